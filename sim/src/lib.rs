//! Predicts a cache's hit ratio from a request log, with the server's own eviction code.

pub mod trace;
