//! The harness: what a test needs to start a server, talk to it, and know what it ought to say.
//!
//! - [`server`] starts a server on a free port and ends it with the test.
//! - [`connection`] is a client of it.
//! - [`script`] plays a dialogue with it, line by line.
//! - [`client`] asks what the model asks, in either protocol.
//! - [`model`] is a cache too simple to be wrong, to hold a long random run against.
//! - [`program`] finds the workspace's own binaries, built as the tests are.
//! - [`wait`] is the only place where a test lets real time pass.
//!
//! The tests themselves are one binary, `it/main.rs`, so the workspace is linked once for all of them.

pub mod client;
pub mod connection;
pub mod model;
pub mod program;
pub mod script;
pub mod server;
pub mod wait;
