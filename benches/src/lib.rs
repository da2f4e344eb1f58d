//! The load generator of cache-bench as a library.
//!
//! ```text
//! keyspace, value ──> workload ──> connection ──> load ──> tally ──> report
//!                                    (wire)         ^ schedule (open loop)
//! cache-client ─────────────────> callers ──> tally, sessions
//! trace ──────────────────────────> session ──> replay
//! server_process ──────────────────────────────> compare, backup, restart
//! cluster_process ─────────────────────────────> replication
//! echo, noise, syscalls ───────────────────────> suite: all of it against several servers, in one report
//! ```
//!
//! - Keys and values are functions of a number, so any reply can be checked without remembering
//!   what was written: see [`value`].
//! - A client of the server is a state machine without a socket ([`connection`]); one file drives
//!   many of them over epoll ([`load`]).
//! - Speed is told per second of the server's processor time, servers side by side ([`compare`]).
//!
//! ```
//! use benches::value::Values;
//!
//! let values = Values::new();
//! let mut value = Vec::new();
//! values.append(b"k42", 100, &mut value);
//! assert!(values.matches(b"k42", &value));
//! assert!(!values.matches(b"k43", &value));
//! ```

pub mod backup;
pub mod callers;
pub mod cli;
pub mod clock;
pub mod cluster_process;
pub mod compare;
pub mod connection;
pub mod cores;
pub mod echo;
pub mod interrupt;
pub mod keyspace;
pub mod load;
pub mod noise;
pub mod replay;
pub mod replication;
pub mod report;
pub mod restart;
pub mod schedule;
pub mod server_process;
pub mod session;
pub mod sessions;
pub mod size;
pub mod suite;
pub mod syscalls;
pub mod tally;
pub mod value;
pub mod wire;
pub mod workload;
