//! An asynchronous memcached client that follows a cluster.

pub mod balance;
pub mod random;
pub mod retry;
pub mod routing;

#[cfg(test)]
mod test_time;
