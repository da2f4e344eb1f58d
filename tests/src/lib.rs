//! The harness: what a test needs to start a server, talk to it, and know what it ought to say.
//!
//! - [`server`] starts a server on a free port and ends it with the test.
//! - [`connection`] is a client of it.
//! - [`script`] plays a dialogue with it, line by line.
//! - [`client`] asks what the model asks, in either protocol.
//! - [`model`] is a cache too simple to be wrong, to hold a long random run against.
//! - [`process`] starts a server and ends it in every way, [`killer`] does so under load, and
//!   [`ledger`] knows what must be there afterwards.
//! - [`history`] is what the clients of a cluster saw, and [`linearizable`] says whether it can be.
//! - [`program`] finds the workspace's own binaries, built as the tests are.
//! - [`wait`] is the only place where a test lets real time pass.
//!
//! The tests themselves are one binary, `it/main.rs`, so the workspace is linked once for all of them.

pub mod client;
pub mod connection;
pub mod history;
pub mod killer;
pub mod ledger;
pub mod linearizable;
pub mod model;
pub mod process;
pub mod program;
pub mod script;
pub mod server;
pub mod wait;
