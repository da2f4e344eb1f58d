//! What the admin port asks of a node.
//!
//! It is answered from the map as this node has applied it, and from what the control thread last published
//! of its peers; changes go to the control plane, whichever node is asked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cluster::map::{Command, Outcome, Refusal};
use cluster::{NodeId, ShardId};
use parking_lot::Mutex;

use crate::admin::model::{
    Agreed, Locate, Map, Move, MoveState, Moves, NodeStatus, Raft, ShardCounts, Status, Token,
};
use crate::admin::{AdminBackend, AdminError, Answer};
use crate::clock::{Clock, boot_ns};
use crate::control_plane::{Change, ControlPlane, RaftControlPlane, Unavailable};
use crate::peer::certificates::Fingerprint;
use crate::peer::join::JoinToken;
use crate::replication::{Agenda, Replication};
use crate::shards::Shards;

/// How long a change is tried for.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the control thread publishes of the others.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    /// Nodes that are heard of, this one among them.
    pub(super) alive: BTreeSet<NodeId>,
    /// Copies that this node brings in sync.
    pub(super) joins: Vec<(ShardId, NodeId)>,
}

/// Answers the admin port.
pub(super) struct Backend {
    pub(super) replication: Arc<Replication>,
    pub(super) control_plane: Arc<RaftControlPlane>,
    pub(super) shards: Arc<Shards>,
    pub(super) clock: Clock,
    pub(super) peers: Arc<Mutex<Peers>>,
    /// What join tokens say of the cluster's CA.
    pub(super) fingerprint: Option<Fingerprint>,
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
            let alive = self.peers.lock().alive.clone();
            let me = self.replication.me().node;
            let served = self.served_here();
            let raft = self.control_plane.status();
            let nodes = map
                .present()
                .map(|(id, node)| NodeStatus::of(&map, id, node, alive.contains(&id)))
                .collect();
            let shards = ShardCounts::of(&map, |shard, place| match place.config.primary {
                Some(node) if node == me => served.contains(&shard),
                // Whether another serves what it leads only it can say; that it is heard of is a sign.
                Some(node) => alive.contains(&node),
                None => false,
            });
            let mut status = Status {
                cluster: map.cluster.to_string(),
                node: me,
                revision: map.revision,
                pool: map.pool.clone(),
                raft: Raft {
                    leader: raft.leader,
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

    fn moves(&self) -> Answer<'_, Moves> {
        Box::pin(async {
            let map = self.replication.map();
            let me = self.replication.me().node;
            let joins = self.peers.lock().joins.clone();
            let running = joins
                .into_iter()
                .map(|(shard, to)| Move {
                    shard,
                    from: me,
                    to,
                    state: MoveState::CatchingUp,
                    items: 0,
                    bytes: 0,
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
        let based_on = self.replication.map().placement_revision;
        Box::pin(self.agree(Command::SetTargets { based_on, targets: vec![(shard, targets)] }))
    }

    fn token(&self, ttl: Duration) -> Answer<'_, Token> {
        Box::pin(async move {
            let token = JoinToken::generate(self.fingerprint)
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
}
