//! The harness: what a test needs to start a server, talk to it, and know what it ought to say.
//!
//! - [`server`] starts a server on a free port and ends it with the test.
//! - [`connection`] is a client of it.
//! - [`script`] plays a dialogue with it, line by line.
//! - [`frame`] writes the binary protocol's frames in words, for such dialogues.
//! - [`client`] asks what the model asks, in either protocol.
//! - [`model`] is a cache too simple to be wrong, to hold a long random run against.
//! - [`process`] starts a server and ends it in every way, [`killer`] does so under load, and
//!   [`ledger`] knows what must be there afterwards.
//! - [`cluster_rig`] is a cluster of such processes, in namespaces of their own where [`netns`] cuts them off
//!   from each other; [`load`] is its clients, and [`faults`] what is done to it meanwhile.
//! - [`history`] is what those clients saw; [`linearizable`] and [`promises`] say whether it can be, and
//!   [`liar`] is a server of which it cannot.
//! - [`program`] finds the workspace's own binaries, built as the tests are.
//! - [`tls`] makes certificates and speaks TLS.
//! - [`wait`] is the only place where a test lets real time pass.
//!
//! The tests themselves are one binary, `it/main.rs`, so the workspace is linked once for all of them.

pub mod client;
pub mod cluster_rig;
pub mod connection;
pub mod faults;
pub mod frame;
pub mod history;
pub mod killer;
pub mod ledger;
pub mod liar;
pub mod linearizable;
pub mod load;
pub mod model;
pub mod netns;
pub mod process;
pub mod program;
pub mod promises;
pub mod script;
pub mod server;
pub mod tls;
pub mod wait;
