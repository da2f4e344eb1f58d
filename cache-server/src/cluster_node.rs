//! One node of a cluster: its identity, its control thread, and what that thread does.
//!
//! ```text
//! start: bootstrap.rs  identity, peer port, control plane, a new life announced
//!        seeds.rs      who lets a process in that has no identity yet
//!          │ Replication, for the workers
//! run:   control.rs    beacons and grants, the map to the replicas, proposals, who should hold what
//!        joins.rs      a thread that brings other nodes' copies to this one's
//!        admin_backend.rs  what the admin port asks; data_loss.rs: what an operator can give up
//! stop:  hand over what this node leads, leave the in-sync sets, then the workers may go
//! ```
//!
//! The control thread has a runtime of its own and does nothing for clients, so that their load cannot starve
//! it.

mod admin_backend;
mod bootstrap;
mod control;
mod data_loss;
mod joins;
mod seeds;
mod tenure;

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::LocalSet;

pub use self::bootstrap::StartError;
use crate::clock::Clock;
use crate::config::ClusterConfig;
use crate::live_curve::LiveCurve;
use crate::net::Network;
use crate::net::mailbox::Postbox;
use crate::peer::dial::Dialler;
use crate::replication::{Replication, WorkerMessage};
use crate::routing::Seat;
use crate::shards::Shards;
use crate::signal::Orders;

/// What a node is started with.
pub(crate) struct NodeParts {
    pub(crate) config: ClusterConfig,
    pub(crate) shards: Arc<Shards>,
    pub(crate) live_curve: Arc<LiveCurve>,
    pub(crate) network: Arc<Network>,
    pub(crate) clock: Clock,
    /// Where clients connect to this server.
    pub(crate) client_address: SocketAddr,
    /// Workers that there will be.
    pub(crate) workers: usize,
    /// Which cache its memory file holds, and whether that brought items back.
    pub(crate) cache_id: u128,
    pub(crate) is_warm: bool,
    /// What the process is told, and what the node tells it: to end, when it was removed.
    pub(crate) orders: Orders,
}

/// A running node.
#[derive(Debug)]
pub struct ClusterNode {
    replication: Arc<Replication>,
    dialler: Dialler,
    phase: watch::Sender<Phase>,
    thread: Option<JoinHandle<()>>,
}

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Its workers do not serve yet.
    Starting,
    /// It serves.
    Running,
    /// It hands over what it leads.
    Leaving,
    /// It is to end.
    Stopped,
}

impl ClusterNode {
    /// Starts the control thread, and returns when this node is part of its cluster and has announced its
    /// new life. No shard is served before [`ClusterNode::workers_started`].
    ///
    /// # Errors
    ///
    /// When the node has no identity, cannot get one, or cannot be reached by others; nothing is changed.
    pub(crate) fn start(parts: NodeParts) -> Result<Self, StartError> {
        let (started, starts) = mpsc::sync_channel(1);
        let (phase, phases) = watch::channel(Phase::Starting);
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(StartError::Thread(error)))),
            };
            LocalSet::new().block_on(&runtime, async move {
                match bootstrap::bootstrap(&parts).await {
                    Ok(node) => {
                        let seats = (Arc::clone(&node.replication), node.links.dialler().clone());
                        if started.send(Ok(seats)).is_ok() {
                            control::run(node, parts, phases).await;
                        }
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        };
        let thread =
            thread::Builder::new().name("control".into()).spawn(run).map_err(StartError::Thread)?;
        let (replication, dialler) = starts.recv().map_err(|_| StartError::Crashed)??;
        Ok(Self { replication, dialler, phase, thread: Some(thread) })
    }

    /// The place of worker `index`.
    pub(crate) fn seat(&self, index: usize) -> Seat {
        Seat {
            replication: Arc::clone(&self.replication),
            dialler: self.dialler.clone(),
            worker: u16::try_from(index).unwrap_or(u16::MAX),
        }
    }

    /// What the node's threads share.
    pub(crate) fn replication(&self) -> &Arc<Replication> {
        &self.replication
    }

    /// The workers take messages from now on: shards may be served.
    pub(crate) fn workers_started(&self, workers: Box<[Postbox<WorkerMessage>]>) {
        self.replication.set_workers(workers);
        self.phase.send_replace(Phase::Running);
    }

    /// Hands over what this node leads, and leaves the in-sync sets of what it does not, as far as others
    /// can go on with it. To be called while the workers still serve.
    pub(crate) fn leave(&self) {
        self.phase.send_replace(Phase::Leaving);
        let begun = tokio::time::Instant::now();
        while !self.replication.has_left() && begun.elapsed() < LEAVE_TIMEOUT {
            crate::clock::pause(Duration::from_millis(10));
        }
        if !self.replication.has_left() {
            tracing::warn!("stopping without having handed over everything");
        }
    }

    /// Ends the control thread.
    pub(crate) fn stop(&mut self) {
        self.phase.send_replace(Phase::Stopped);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the control thread met a bug, please report it");
        }
    }
}

impl Drop for ClusterNode {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How long a node that was told to stop tries to hand over what it leads.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);
