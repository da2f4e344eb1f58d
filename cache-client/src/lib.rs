//! An asynchronous memcached client that follows a cluster.

pub mod routing;
