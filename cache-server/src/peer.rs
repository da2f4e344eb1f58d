//! How nodes connect: one port each, on which every connection begins with a handshake and then carries
//! frames.
//!
//! ```text
//! dial.rs   -> |                                             | -> accept.rs -> control: links.rs
//!              | tls.rs -> handshake.rs -> frames (frame.rs) |            -> data, forward, join: whoever asked
//! join.rs   -> |                                             |
//! ```
//!
//! - What a peer sends is checked before it is believed: a frame that is malformed, too long, damaged or
//!   of another connection ends the connection, and nothing but the connection.
//! - Everything that waits for a peer has a time limit, and everything queued for one a bound.
//! - Which node the other side is, its certificate says (`certificates.rs`); see [`tls`] for where
//!   connections may be plain.

pub mod accept;
pub mod certificates;
pub mod connection;
pub mod counters;
pub mod dial;
pub mod frame;
pub mod handshake;
pub mod join;
pub mod links;
pub mod tls;

#[cfg(test)]
mod fixtures;

use std::time::Duration;

/// How long a connection may take to be made and to shake hands, on either side.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);

/// How long a peer may take nothing, or leave a frame half sent, before it is given up.
pub const STALL_DEADLINE: Duration = Duration::from_secs(5);
