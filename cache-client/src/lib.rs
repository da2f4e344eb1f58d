//! An asynchronous memcached client that follows a cluster.
