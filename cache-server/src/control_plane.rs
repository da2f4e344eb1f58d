//! `ControlPlane`: propose, watch, read.
//!
//! The cluster agrees on one [`ClusterMap`] and on the order in which [`Command`]s change it. No write of
//! a client passes through here: what does is who holds which shard, which nodes there are, and how they
//! stand. [`RaftControlPlane`] keeps the map with one Raft group; everything else sees the trait.
//!
//! ```text
//!   propose ─▶ leader ─▶ log of a majority, fsynced ─▶ applied everywhere ─▶ watch
//!                                                    └▶ Outcome, to the proposer
//! ```
//!
//! All of it runs on the runtime on which it was started: the control thread's, apart from the workers.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cluster::NodeId;
use cluster::map::{ClusterMap, Command, Outcome};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

mod network;
mod raft;
#[cfg(test)]
mod simulation;
mod storage;
#[cfg(test)]
mod tests;
pub mod voters;

pub use network::{Called, Transport, TransportError};
pub use raft::{Failure, RaftControlPlane, Settings, StartError, Timers, leave_process};
pub use storage::{Identity, OpenError, Storage, Writing};

/// What a [`ControlPlane`] answers with, later.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Agrees with the other nodes on the map.
///
/// Every call may be made on every node: what only the leader can do is sent there. Each waits for at
/// most `within`, and tries again meanwhile, 20 ms after it was refused and at once when another node
/// leads.
pub trait ControlPlane: Send + Sync {
    /// Has `command` applied on every node, and tells with what outcome.
    ///
    /// It may be applied a second time when an answer was lost, and after the caller gave up. Commands
    /// are made for that: each says what it starts from, and one that finds its work done says so.
    fn propose(
        &self,
        command: Command,
        within: Duration,
    ) -> Reply<'_, Result<Outcome, Unavailable>>;

    /// A map that has every command which was applied, with its outcome told, before the call.
    fn read(&self, within: Duration) -> Reply<'_, Result<Arc<ClusterMap>, Unavailable>>;

    /// The map as it is applied on this node, now and whenever it changes. It never runs ahead of what
    /// is agreed upon. After a restart it begins with what the log on disk is known to have agreed upon,
    /// which may be a little less than this node had applied before.
    fn watch(&self) -> watch::Receiver<Arc<ClusterMap>>;

    /// Who leads, as far as this node knows.
    fn leader(&self) -> Option<NodeId>;

    /// Whose majority decides.
    fn voters(&self) -> BTreeSet<NodeId>;

    /// Who is told what was decided, and has no vote.
    fn learners(&self) -> BTreeSet<NodeId>;

    /// Changes who votes and who learns. Done already is done.
    fn change(&self, change: Change, within: Duration) -> Reply<'_, Result<(), Unavailable>>;

    /// How this node's part is doing.
    fn status(&self) -> Status;
}

/// A change of who votes and who learns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The node is told everything from now on. One that is far behind gets a snapshot.
    Learn(NodeId),
    /// Exactly these vote. Each has to be a learner or a voter by now and to have caught up. Voters that
    /// are left out go on as learners.
    Vote(BTreeSet<NodeId>),
    /// The learner is told nothing any more.
    Forget(NodeId),
}

/// How a node's part in the control plane is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// This node.
    pub node: NodeId,
    /// Whether it leads, follows, asks for votes, or only learns.
    pub role: RaftRole,
    /// Whom it follows, or itself.
    pub leader: Option<NodeId>,
    /// The term it is in.
    pub term: u64,
    /// Whose majority decides.
    pub voters: BTreeSet<NodeId>,
    /// Who is told without a vote.
    pub learners: BTreeSet<NodeId>,
    /// The last entry in its log.
    pub last_log_index: Option<u64>,
    /// The last entry applied to its map.
    pub applied_index: Option<u64>,
    /// The last entry in its snapshot.
    pub snapshot_index: Option<u64>,
    /// On the leader: how long ago a majority answered, in milliseconds.
    pub quorum_ack_age_ms: Option<u64>,
    /// On the leader: how far each node's log is known to equal its own.
    pub matched_index: BTreeMap<NodeId, Option<u64>>,
    /// Why it no longer takes part, if it does not.
    pub stopped: Option<String>,
}

/// What a node is in the Raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum RaftRole {
    /// Told without a vote.
    Learner,
    /// Votes and follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
    /// Takes part no longer.
    Stopped,
}

/// The control plane gave no answer in time. A command that was proposed may have been applied, or may
/// be yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Nobody could do it until the deadline.
    #[error("the control plane gave no answer within {} ms: {last}", waited.as_millis())]
    Deadline {
        /// How long it was tried.
        waited: Duration,
        /// Why it did not work the last time.
        last: String,
    },
    /// It cannot be done, now or later. Nothing was changed.
    #[error("the control plane refuses: {0}")]
    Refused(String),
}
