//! Keys sharded by hash over nodes, each shard replicated: everything that decides, and nothing that does.
//!
//! Every part is a state machine: one input in, effects out. None reads a clock, draws a random number or
//! opens a socket, and all collections are ordered, so that the same inputs give the same effects: in a
//! model check, in a seeded simulation and in production.
#![forbid(unsafe_code)]

mod id;
mod time;

pub mod config;
pub mod failure_detector;
pub mod grant;
pub mod hash;
pub mod map;
pub mod message;
pub mod node;
pub mod placement;
pub mod pool;
pub mod shard;

pub use id::{ClusterId, Epoch, Incarnation, Member, NodeId, Sequence, ShardId, Version};
pub use time::Instant;
