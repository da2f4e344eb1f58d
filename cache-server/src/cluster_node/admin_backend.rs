//! What the admin port asks of a node.
//!
//! It is answered from the map as this node has applied it, and from what the control thread last published
//! of its peers; changes go to the control plane, whichever node is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster::map::{Command, Outcome, Reconfigure, Refusal};
use cluster::{Incarnation, Member, NodeId, ShardId};
use parking_lot::Mutex;

use super::data_loss::remedies;
use super::joins::Progress;
use crate::admin::model::{
    Agreed, Locate, Map, Move, MoveState, Moves, Mrc, NodeStatus, Raft, Recovered, Recovery,
    ShardCounts, Status, Token,
};
use crate::admin::{AdminBackend, AdminError, Answer};
use crate::clock::{Clock, boot_ns};
use crate::control_plane::{Change, ControlPlane, RaftControlPlane, Unavailable};
use crate::live_curve::LiveCurve;
use crate::peer::join::JoinToken;
use crate::peer::tls::{Security, Tls};
use crate::replication::replicas::Sent;
use crate::replication::{Agenda, Replication};
use crate::shards::Shards;

/// How long a change is tried for.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A node is given up only when it was not heard of for this long: it may be back before an operator is.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(5);

/// What the control thread publishes of the others.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    /// Nodes that are heard of, this one among them.
    pub(super) alive: BTreeSet<NodeId>,
    /// In which lives they were heard of last.
    pub(super) lives: BTreeMap<NodeId, Incarnation>,
    /// For how long the others have not been.
    pub(super) silent: BTreeMap<NodeId, Duration>,
    /// For how long nobody who is heard of has led the control plane with a majority.
    pub(super) leaderless: Option<Duration>,
    /// Copies that this node brings in sync.
    pub(super) joins: Vec<(ShardId, NodeId, Option<Progress>)>,
}

impl Peers {
    /// Whether a node is heard of in this life.
    fn hears(&self, member: Member) -> bool {
        self.alive.contains(&member.node)
            && self.lives.get(&member.node) == Some(&member.incarnation)
    }
}

/// Answers the admin port.
pub(super) struct Backend {
    pub(super) replication: Arc<Replication>,
    pub(super) control_plane: Arc<RaftControlPlane>,
    pub(super) shards: Arc<Shards>,
    pub(super) live_curve: Arc<LiveCurve>,
    pub(super) clock: Clock,
    pub(super) peers: Arc<Mutex<Peers>>,
    /// Where join tokens learn which CA to vouch for.
    pub(super) security: Arc<Security>,
}

impl Backend {
    /// The shards that this node leads and serves.
    fn served_here(&self) -> BTreeSet<ShardId> {
        let mut served = BTreeSet::new();
        let mut agenda = Agenda::default();
        for slot in 0..self.shards.geometry().shard_count {
            self.shards.with_replicas(
                slot,
                &mut agenda,
                self.clock.now(),
                boot_ns(),
                |_, replicas, _| {
                    let serving = replicas.iter().filter(|replica| replica.is_serving());
                    served.extend(serving.map(|replica| replica.id()));
                },
            );
        }
        served
    }

    async fn agree(&self, command: Command) -> Result<Agreed, AdminError> {
        match self.control_plane.propose(command, PROPOSE_TIMEOUT).await.map_err(unavailable)? {
            Outcome::Refused(refusal) => Err(refused(&refusal)),
            _ => Ok(self.agreed()),
        }
    }

    fn agreed(&self) -> Agreed {
        Agreed { revision: self.replication.map().revision }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unavailable(error: Unavailable) -> AdminError {
    match error {
        Unavailable::Refused(reason) => AdminError::Conflict(reason),
        error => AdminError::Unavailable(error.to_string()),
    }
}

fn refused(refusal: &Refusal) -> AdminError {
    match refusal {
        Refusal::NodeUnknown { .. } | Refusal::ShardUnknown { .. } => {
            AdminError::NotFound(refusal.to_string())
        }
        refusal => AdminError::Conflict(refusal.to_string()),
    }
}

impl AdminBackend for Backend {
    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async {
            let map = self.replication.map();
            let peers = self.peers.lock().clone();
            let silent_ms = |node: NodeId| {
                let is_silent = !peers.alive.contains(&node);
                is_silent.then(|| millis(peers.silent.get(&node).copied().unwrap_or_default()))
            };
            let me = self.replication.me().node;
            let served = self.served_here();
            let raft = self.control_plane.status();
            let nodes = map
                .present()
                .map(|(id, node)| NodeStatus::of(&map, id, node, silent_ms(id)))
                .collect();
            let shards =
                ShardCounts::of(&map, |shard, place| match place.config.primary_member() {
                    Some(primary) if primary.node == me => served.contains(&shard),
                    // Whether another serves what it leads only it can say; that its process is heard of is a
                    // sign, and that it is another process by now says that it does not.
                    Some(primary) => {
                        peers.hears(primary) && map.current(primary.node) == Some(primary)
                    }
                    None => false,
                });
            let mut status = Status {
                cluster: map.cluster.to_string(),
                node: me,
                revision: map.revision,
                pool: map.pool.clone(),
                raft: Raft {
                    leader: raft.leader.filter(|_| peers.leaderless.is_none()),
                    leaderless_ms: peers.leaderless.map(millis),
                    term: raft.term,
                    voters: raft.voters.into_iter().collect(),
                    applied: raft.applied_index.unwrap_or(0),
                },
                nodes,
                shards,
                healthy: false,
            };
            status.healthy = status.is_healthy();
            Ok(status)
        })
    }

    fn map(&self) -> Answer<'_, Map> {
        Box::pin(async { Ok(Map::from(&*self.replication.map())) })
    }

    fn locate(&self, key: Vec<u8>) -> Answer<'_, Locate> {
        Box::pin(async move {
            let map = self.replication.map();
            Locate::of(&map, &key)
                .ok_or_else(|| AdminError::Unavailable("there is no map yet".to_owned()))
        })
    }

    fn mrc(&self) -> Answer<'_, Mrc> {
        Box::pin(async {
            let told = self.live_curve.tell(self.clock.now());
            told.ok_or_else(|| {
                AdminError::NotFound("this node draws no curve: --no-live-curve".into())
            })
        })
    }

    fn moves(&self) -> Answer<'_, Moves> {
        Box::pin(async {
            let map = self.replication.map();
            let me = self.replication.me().node;
            let joins = self.peers.lock().joins.clone();
            let running = joins
                .into_iter()
                .map(|(shard, to, progress)| {
                    let state = match progress {
                        None => MoveState::Waiting,
                        Some(Progress { is_all: false, .. }) => MoveState::CatchingUp,
                        Some(Progress { is_all: true, .. }) => MoveState::Joining,
                    };
                    let Sent { items, bytes } = progress.unwrap_or_default().sent;
                    Move { shard, from: me, to, state, items, bytes }
                })
                .collect();
            let queued = map.unsettled().count();
            Ok(Moves { running, queued: u32::try_from(queued).unwrap_or(u32::MAX) })
        })
    }

    fn drain(&self, node: NodeId, drains: bool) -> Answer<'_, Agreed> {
        let command = if drains { Command::Drain { node } } else { Command::CancelDrain { node } };
        Box::pin(self.agree(command))
    }

    fn move_shard(&self, shard: ShardId, targets: Vec<NodeId>) -> Answer<'_, Agreed> {
        let map = self.replication.map();
        if targets.len() > usize::from(map.pool.copies) {
            let (named, copies) = (targets.len(), map.pool.copies);
            let reason =
                format!("targets: {named} nodes are named, and a shard has {copies} copies");
            return Box::pin(std::future::ready(Err(AdminError::Conflict(reason))));
        }
        let based_on = map.placement_revision;
        Box::pin(self.agree(Command::SetTargets { based_on, targets: vec![(shard, targets)] }))
    }

    fn token(&self, ttl: Duration) -> Answer<'_, Token> {
        Box::pin(async move {
            let fingerprint = self.security.tls.as_ref().map(Tls::fingerprint);
            let token = JoinToken::generate(fingerprint)
                .map_err(|error| AdminError::Unavailable(error.to_string()))?;
            let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            let expires_unix_ms = self.clock.now().unix_ms.saturating_add(ttl_ms);
            self.agree(Command::AddToken { hash: token.hash(), expires_unix_ms }).await?;
            let map = self.replication.map();
            let seeds = map.present().map(|(_, node)| node.addresses.peer.clone()).collect();
            let expires_unix_s = expires_unix_ms / 1000;
            Ok(Token { token: token.to_string(), expires_unix_s, seeds })
        })
    }

    fn remove(&self, node: NodeId, force: bool) -> Answer<'_, Agreed> {
        Box::pin(self.agree(Command::Remove { node, force }))
    }

    fn set_voters(&self, voters: Vec<NodeId>) -> Answer<'_, Agreed> {
        Box::pin(async move {
            let voters: BTreeSet<NodeId> = voters.into_iter().collect();
            for &voter in &voters {
                let learn = Change::Learn(voter);
                self.control_plane.change(learn, PROPOSE_TIMEOUT).await.map_err(unavailable)?;
            }
            let vote = Change::Vote(voters);
            self.control_plane.change(vote, PROPOSE_TIMEOUT).await.map_err(unavailable)?;
            Ok(self.agreed())
        })
    }

    fn recover(&self, accepts_data_loss: bool) -> Answer<'_, Recovery> {
        Box::pin(async move {
            // With all that is agreed on, or not at all: the map of a node that was cut off is an old one.
            let map = self.control_plane.read(PROPOSE_TIMEOUT).await.map_err(unavailable)?;
            let peers = self.peers.lock().clone();
            let missed = peers.silent.iter().filter(|(_, silent)| **silent < GIVEN_UP_AFTER);
            if let Some((node, silent)) =
                missed.map(|(node, silent)| (node, millis(*silent))).next()
            {
                let reason =
                    format!("node {node} was heard of {silent} ms ago: try again in a moment");
                return Err(AdminError::Conflict(reason));
            }
            // A process whose life the map does not know yet may bring back what is about to be given up.
            let present = |node: &NodeId| map.current(*node).is_some_and(|it| peers.hears(it));
            if let Some(node) = peers.alive.iter().find(|node| !present(node)) {
                let reason = format!("node {node} is starting, or ends: try again in a moment");
                return Err(AdminError::Conflict(reason));
            }
            let (shards, changes): (Vec<Recovered>, Vec<Reconfigure>) =
                remedies(&map, &peers.alive).into_iter().unzip();
            if !accepts_data_loss || shards.is_empty() {
                return Ok(Recovery { is_done: accepts_data_loss, shards });
            }
            for it in &shards {
                tracing::warn!(
                    shard = %it.shard, epoch = %it.epoch, node = %it.node, copy = ?it.copy,
                    "goes on with what is there, as an operator asked: writes may be lost"
                );
            }
            let command = Command::Reconfigure(changes);
            let agreed = self.control_plane.propose(command, PROPOSE_TIMEOUT).await;
            let Outcome::Reconfigured(outcomes) = agreed.map_err(unavailable)? else {
                return Err(AdminError::Conflict("the map was not changed".to_owned()));
            };
            // What changed meanwhile goes on in another way.
            let done = shards.into_iter().zip(outcomes).filter(|(_, outcome)| outcome.is_ok());
            Ok(Recovery { is_done: true, shards: done.map(|(shard, _)| shard).collect() })
        })
    }
}
