//! `ClusterMap`: nodes, pool, and per shard epoch, primary and in-sync set.
//!
//! The map is the state that the control plane agrees on. It changes by [`Command`]s alone, each applied by
//! every node in the same order with the same [`Outcome`].
//!
//! ```text
//! unfounded ──Found──> node 1, every shard wanted there, none appointed
//!
//! node    AddNode ──> Member <──Drain, CancelDrain──> Draining
//!                        └────────Remove──> Removed <────┘        for ever
//! shard   (epoch, primary, in-sync set)  by Reconfigure, each a compare-and-set on the epoch
//!         targets                        by SetTargets, a compare-and-set on `placement_revision`
//! ```
//!
//! What holds after every command:
//!
//! - A command that is refused changes nothing. `revision` grows by one with each that changed something.
//! - Node ids are given out in ascending order; a removed node keeps its entry, so that its id is never
//!   given out again. A node's incarnation only grows.
//! - A shard's epoch only grows, and grows with every change of its primary or in-sync set.
//! - The primary is of the in-sync set, and a shard without a primary has an empty one. Members are ordered
//!   by node, each node once, and joined the set in the life that was the node's present one.
//! - Targets are data nodes that were not removed, each once, at least one for every shard.
//! - At least one data node takes its share of the shards.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::command::{Command, NewNode, Outcome, PoolChange, Refusal};
use crate::hash::{SHARD_COUNT_MAX, SHARD_COUNT_MIN, shard_of_key};
use crate::pool::{Ack, Pool};
use crate::{ClusterId, Epoch, Incarnation, Member, NodeId, ShardId, Version};

mod command;

/// The most copies of a shard that a pool or an operator can ask for.
pub const COPIES_MAX: u8 = 7;
/// The greatest weight of a node; the least is 1.
pub const WEIGHT_MAX: u16 = 1000;
/// Join tokens that wait to be used. One more, and the first to expire is forgotten.
pub const TOKENS_MAX: usize = 256;

/// Who founded the cluster.
const FOUNDER: NodeId = NodeId(1);

/// Who holds a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardConfig {
    /// Grows with every change of what follows.
    pub epoch: Epoch,
    /// Who orders writes and serves; `None` before the first is appointed. Always of the in-sync set.
    pub primary: Option<NodeId>,
    /// Who holds every committed write, by node, each in the life in which it does.
    pub in_sync: Vec<Member>,
}

/// A shard in the map.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardPlace {
    /// Who holds it now.
    pub config: ShardConfig,
    /// Who should, the preferred primary first. The primary brings them in sync and lets go of the others.
    pub targets: Vec<NodeId>,
}

/// Where a node is found. Each is `host:port`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Addresses {
    /// Other nodes connect here.
    pub peer: String,
    /// Clients connect here.
    pub client: String,
    /// Administration connects here.
    pub admin: String,
}

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// It holds shards, and votes if it is a voter.
    Data,
    /// It votes and holds nothing.
    Witness,
}

/// How a node stands with the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// It takes its share.
    Member,
    /// Its shards are being moved away; then it may leave.
    Draining,
    /// It left. Its id is not given out again, and whoever comes with it is refused.
    Removed,
}

/// A node in the map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Where it is found.
    pub addresses: Addresses,
    /// Copies of one shard go to different zones where that is possible.
    pub zone: String,
    /// Its share of the shards, in proportion to the other nodes' weights: 1 to 1,000.
    pub weight: u16,
    /// What it is for.
    pub role: Role,
    /// How it stands.
    pub standing: Standing,
    /// Its life at present: the last that announced itself.
    pub incarnation: Option<Incarnation>,
    /// Whether that life said that it is about to end.
    pub is_down: bool,
    /// Where its shards' logs stood when this life began, as its memory file said; of those shards alone
    /// of which it had any.
    pub recovered: BTreeMap<ShardId, Version>,
    /// The build that it runs.
    pub version: String,
    /// What [`Command::AddNode`] carried, so that the same command, sent again, finds its node.
    pub request: u64,
}

/// The state of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMap {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Commands that changed anything, counted.
    pub revision: u64,
    /// The revision in which what placement depends on last changed: which nodes there are and how they
    /// stand, zones, weights, the number of copies, targets.
    pub placement_revision: u64,
    /// What is promised.
    pub pool: Pool,
    /// All nodes there ever were.
    pub nodes: BTreeMap<NodeId, Node>,
    /// By [`ShardId`].
    pub shards: Vec<ShardPlace>,
    /// Hashes (SHA-256) of join tokens not used yet, each with the time it expires, in milliseconds since
    /// the start of 1970.
    pub tokens: BTreeMap<[u8; 32], u64>,
}

/// A change of one shard's configuration. It happens if the shard is still in the epoch that it starts from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reconfigure {
    /// Which shard.
    pub shard: ShardId,
    /// The epoch that the proposer believes the shard to be in.
    pub from: Epoch,
    /// What it is to become. Its epoch is greater than `from`.
    pub to: ShardConfig,
}

/// What a command that was not refused did to the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    /// All was as it says already.
    Nothing,
    /// Something that placement does not depend on.
    Map,
    /// Something that placement depends on.
    Placement,
}

/// A change and what to answer, or why not.
type Applied = Result<(Change, Outcome), Refusal>;

impl ShardConfig {
    /// The node, in the life in which it is in sync.
    pub fn member(&self, node: NodeId) -> Option<Member> {
        self.in_sync.iter().copied().find(|member| member.node == node)
    }

    /// The primary, in the life in which it was appointed.
    pub fn primary_member(&self) -> Option<Member> {
        self.primary.and_then(|primary| self.member(primary))
    }
}

impl ShardPlace {
    /// Whether the in-sync set is exactly the targets, and the first of them leads.
    pub fn is_settled(&self) -> bool {
        self.config.primary == self.targets.first().copied()
            && self.config.in_sync.len() == self.targets.len()
            && self.config.in_sync.iter().all(|member| self.targets.contains(&member.node))
    }
}

impl Node {
    /// Whether it takes its share of the shards.
    pub fn takes_share(&self) -> bool {
        self.role == Role::Data && self.standing == Standing::Member
    }

    /// Whether shards may be held there: it is a data node that was not removed.
    pub fn may_hold(&self) -> bool {
        self.role == Role::Data && self.standing != Standing::Removed
    }
}

impl Default for ClusterMap {
    /// Before the cluster is founded.
    fn default() -> Self {
        Self {
            cluster: ClusterId::default(),
            revision: 0,
            placement_revision: 0,
            pool: Pool::sessions(),
            nodes: BTreeMap::new(),
            shards: Vec::new(),
            tokens: BTreeMap::new(),
        }
    }
}

/// Questions.
impl ClusterMap {
    /// Whether there is a cluster: before, every command but [`Command::Found`] is refused.
    pub fn is_founded(&self) -> bool {
        !self.shards.is_empty()
    }

    /// How many shards the keys are divided into; 0 before the cluster is founded.
    pub fn shard_count(&self) -> u16 {
        u16::try_from(self.shards.len()).unwrap_or(u16::MAX)
    }

    /// The shard of a key, once the cluster is founded.
    pub fn shard_of_key(&self, key: &[u8]) -> Option<ShardId> {
        self.is_founded().then(|| shard_of_key(key, self.shard_count()))
    }

    /// Who holds a shard, and who should.
    pub fn place(&self, shard: ShardId) -> Option<&ShardPlace> {
        self.shards.get(usize::from(shard.0))
    }

    /// All shards, in order.
    pub fn places(&self) -> impl Iterator<Item = (ShardId, &ShardPlace)> {
        (0..).map(ShardId).zip(&self.shards)
    }

    /// Who leads a shard, in the life in which it was appointed.
    pub fn primary_of(&self, shard: ShardId) -> Option<Member> {
        self.place(shard)?.config.primary_member()
    }

    /// Who should hold a shard, the preferred primary first.
    pub fn wanted(&self, shard: ShardId) -> &[NodeId] {
        self.place(shard).map_or(&[], |place| &place.targets)
    }

    /// The shards that a node leads.
    pub fn shards_led_by(&self, node: NodeId) -> impl Iterator<Item = ShardId> {
        let places = self.places();
        places.filter(move |(_, place)| place.config.primary == Some(node)).map(|(shard, _)| shard)
    }

    /// The shards in whose in-sync set a node is, in whatever life.
    pub fn copies_on(&self, node: NodeId) -> impl Iterator<Item = ShardId> {
        let places = self.places();
        places.filter(move |(_, place)| place.config.member(node).is_some()).map(|(shard, _)| shard)
    }

    /// The shards that a node should hold.
    pub fn wanted_on(&self, node: NodeId) -> impl Iterator<Item = ShardId> {
        let places = self.places();
        places.filter(move |(_, place)| place.targets.contains(&node)).map(|(shard, _)| shard)
    }

    /// The shards that are not held as they should be: what is being moved, or has lost a copy.
    pub fn unsettled(&self) -> impl Iterator<Item = ShardId> {
        self.places().filter(|(_, place)| !place.is_settled()).map(|(shard, _)| shard)
    }

    /// The node in its present life; `None` if there is no such node, it was removed, it never announced
    /// itself, or it said that it is about to end.
    pub fn current(&self, node: NodeId) -> Option<Member> {
        let known = self.nodes.get(&node).filter(|known| known.standing != Standing::Removed)?;
        if known.is_down {
            return None;
        }
        Some(Member { node, incarnation: known.incarnation? })
    }

    /// Those of `nodes` that have a present life, in it.
    pub fn current_members(&self, nodes: &[NodeId]) -> Vec<Member> {
        nodes.iter().filter_map(|&node| self.current(node)).collect()
    }

    /// The nodes that were not removed.
    pub fn present(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let nodes = self.nodes.iter().map(|(&id, node)| (id, node));
        nodes.filter(|(_, node)| node.standing != Standing::Removed)
    }

    /// Whether a removal would not be refused: nothing is held there and nothing is wanted there.
    pub fn is_vacant(&self, node: NodeId) -> bool {
        self.copies_on(node).next().is_none() && self.wanted_on(node).next().is_none()
    }

    fn not_removed(&self, node: NodeId) -> Result<&Node, Refusal> {
        match self.nodes.get(&node) {
            None => Err(Refusal::NodeUnknown { node }),
            Some(known) if known.standing == Standing::Removed => {
                Err(Refusal::NodeRemoved { node })
            }
            Some(known) => Ok(known),
        }
    }

    /// That somebody would still take shards if `node` did not.
    fn others_take_share(&self, node: NodeId) -> Result<(), Refusal> {
        let mut others = self.nodes.iter().filter(|&(&other, _)| other != node);
        match others.any(|(_, other)| other.takes_share()) {
            true => Ok(()),
            false => Err(Refusal::LastDataNode { node }),
        }
    }
}

/// Commands.
impl ClusterMap {
    /// Carries out one command, or refuses it and changes nothing. Every node that applies the same commands
    /// to the same map ends with the same map and answers the same.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        let applied = match command {
            Command::Found { cluster, pool, shard_count, node } => {
                self.found(*cluster, pool, *shard_count, node)
            }
            _ if !self.is_founded() => Err(Refusal::NotFounded),
            Command::AddToken { hash, expires_unix_ms } => {
                Ok(self.add_token(*hash, *expires_unix_ms))
            }
            Command::AddNode { request, token_hash, now_unix_ms, node } => {
                self.add_node(*request, token_hash.as_ref(), *now_unix_ms, node)
            }
            Command::NodeUp { node, incarnation, addresses, version, recovered } => {
                self.node_up(*node, *incarnation, addresses, version, recovered)
            }
            Command::NodeDown { node, incarnation } => self.node_down(*node, *incarnation),
            Command::Reconfigure(changes) => Ok(self.reconfigure_all(changes)),
            Command::SetTargets { based_on, targets } => self.set_targets(*based_on, targets),
            Command::Drain { node } => self.drain(*node),
            Command::CancelDrain { node } => self.cancel_drain(*node),
            Command::Remove { node, force } => self.remove(*node, *force),
            Command::SetZoneWeight { node, zone, weight } => {
                self.set_zone_weight(*node, zone, *weight)
            }
            Command::SetPool(change) => self.set_pool(change),
        };
        match applied {
            Ok((change, outcome)) => {
                self.revision += u64::from(change > Change::Nothing);
                if change == Change::Placement {
                    self.placement_revision = self.revision;
                }
                outcome
            }
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    fn found(
        &mut self,
        cluster: ClusterId,
        pool: &Pool,
        shard_count: u16,
        founder: &NewNode,
    ) -> Applied {
        if self.is_founded() {
            // The id was drawn at random by the founder: who knows it repeats the command.
            return match self.cluster == cluster {
                true => Ok((Change::Nothing, Outcome::NodeAdded(FOUNDER))),
                false => Err(Refusal::Founded { cluster: self.cluster }),
            };
        }
        let is_in_bounds = (SHARD_COUNT_MIN..=SHARD_COUNT_MAX).contains(&shard_count);
        if !is_in_bounds || !shard_count.is_power_of_two() {
            return Err(Refusal::ShardCount { found: shard_count });
        }
        check_pool(pool)?;
        check_weight(founder.weight)?;
        if founder.role != Role::Data {
            return Err(Refusal::FounderHoldsNothing);
        }
        self.cluster = cluster;
        self.pool = pool.clone();
        self.nodes.insert(FOUNDER, founder.join(0));
        let place = ShardPlace { config: ShardConfig::default(), targets: vec![FOUNDER] };
        self.shards = vec![place; usize::from(shard_count)];
        Ok((Change::Placement, Outcome::NodeAdded(FOUNDER)))
    }

    fn add_token(&mut self, hash: [u8; 32], expires_unix_ms: u64) -> (Change, Outcome) {
        if self.tokens.insert(hash, expires_unix_ms) == Some(expires_unix_ms) {
            return (Change::Nothing, Outcome::Done);
        }
        if self.tokens.len() > TOKENS_MAX {
            let first = self.tokens.iter().map(|(hash, expires)| (*expires, *hash)).min();
            if let Some((_, first)) = first {
                self.tokens.remove(&first);
            }
        }
        (Change::Map, Outcome::Done)
    }

    fn add_node(
        &mut self,
        request: u64,
        token_hash: Option<&[u8; 32]>,
        now_unix_ms: u64,
        new: &NewNode,
    ) -> Applied {
        // A copy that comes late finds its node wherever that has moved to, and adds no other when it is gone.
        // The founder came without a request.
        let mut joined = self.nodes.iter().filter(|&(&id, _)| id != FOUNDER);
        if let Some((&id, node)) = joined.find(|(_, node)| node.request == request) {
            return match node.standing {
                Standing::Removed => Err(Refusal::NodeRemoved { node: id }),
                _ => Ok((Change::Nothing, Outcome::NodeAdded(id))),
            };
        }
        check_weight(new.weight)?;
        if let Some(hash) = token_hash {
            match self.tokens.get(hash) {
                None => return Err(Refusal::TokenUnknown),
                Some(&expires) if expires <= now_unix_ms => {
                    let expired_ms_ago = now_unix_ms - expires;
                    return Err(Refusal::TokenExpired { expired_ms_ago });
                }
                Some(_) => {}
            }
        }
        let mut present = self.present();
        if let Some((node, _)) = present.find(|(_, node)| node.addresses.peer == new.addresses.peer)
        {
            let peer = new.addresses.peer.clone();
            return Err(Refusal::AddressTaken { node, peer });
        }
        drop(present);
        // Removed nodes are still there, which is what keeps an id from being given out again.
        let last = self.nodes.last_key_value().map_or(0, |(id, _)| id.0);
        let id = NodeId(last.checked_add(1).ok_or(Refusal::NoMoreIds)?);
        self.nodes.insert(id, new.join(request));
        if let Some(hash) = token_hash {
            self.tokens.remove(hash);
        }
        self.tokens.retain(|_, expires| *expires > now_unix_ms);
        Ok((Change::Placement, Outcome::NodeAdded(id)))
    }

    fn node_up(
        &mut self,
        id: NodeId,
        incarnation: Incarnation,
        addresses: &Addresses,
        version: &str,
        recovered: &BTreeMap<ShardId, Version>,
    ) -> Applied {
        let known = self.not_removed(id)?;
        if let Some((&shard, _)) = recovered.last_key_value()
            && self.place(shard).is_none()
        {
            return Err(Refusal::ShardUnknown { shard, count: self.shard_count() });
        }
        let announced = Node {
            incarnation: Some(incarnation),
            addresses: addresses.clone(),
            version: version.into(),
            recovered: recovered.clone(),
            is_down: false,
            ..known.clone()
        };
        if announced == *known {
            return Ok((Change::Nothing, Outcome::Done));
        }
        if let Some(present) = known.incarnation
            && incarnation <= present
        {
            return Err(Refusal::OldLife { node: id, present, found: incarnation });
        }
        self.nodes.insert(id, announced);
        Ok((Change::Map, Outcome::Done))
    }

    fn node_down(&mut self, id: NodeId, incarnation: Incarnation) -> Applied {
        let known = self.not_removed(id)?;
        if known.incarnation != Some(incarnation) {
            return Ok((Change::Nothing, Outcome::Done));
        }
        // The life is not forgotten: the next has to be a later one.
        let gone = Node { is_down: true, ..known.clone() };
        if gone == *known {
            return Ok((Change::Nothing, Outcome::Done));
        }
        self.nodes.insert(id, gone);
        Ok((Change::Map, Outcome::Done))
    }

    fn reconfigure_all(&mut self, changes: &[Reconfigure]) -> (Change, Outcome) {
        let mut change = Change::Nothing;
        let mut outcomes = Vec::with_capacity(changes.len());
        for wanted in changes {
            outcomes.push(self.reconfigure(wanted).map(|made| change = change.max(made)));
        }
        (change, Outcome::Reconfigured(outcomes))
    }

    fn reconfigure(&mut self, wanted: &Reconfigure) -> Result<Change, Refusal> {
        let Reconfigure { shard, from, ref to } = *wanted;
        let count = self.shard_count();
        let place = self.place(shard).ok_or(Refusal::ShardUnknown { shard, count })?;
        let present = &place.config;
        if present == to {
            return Ok(Change::Nothing);
        }
        if present.epoch != from {
            return Err(Refusal::EpochPassed { shard, from, present: present.epoch });
        }
        // The last epoch is kept for `give_up`, which must not fail.
        if to.epoch <= from || to.epoch >= Epoch::MAX {
            return Err(Refusal::EpochOutOfOrder { shard, from, to: to.epoch });
        }
        if !to.in_sync.is_sorted_by(|a, b| a.node < b.node) {
            return Err(Refusal::MembersOutOfOrder { shard });
        }
        match to.primary {
            None if to.in_sync.is_empty() => {}
            None => return Err(Refusal::PrimaryMissing { shard }),
            Some(primary) if to.member(primary).is_none() => {
                return Err(Refusal::PrimaryOutside { shard, primary });
            }
            Some(_) => {}
        }
        for &member in &to.in_sync {
            // Who is in the set may stay there in a life that has ended: ending a membership is up to
            // those who know that the others hold what was committed. It may not be given the lead.
            let stays = present.in_sync.contains(&member);
            let is_appointed =
                to.primary == Some(member.node) && present.primary_member() != Some(member);
            if !stays || is_appointed {
                self.in_present_life(member)?;
            }
        }
        self.shards[usize::from(shard.0)].config = to.clone();
        Ok(Change::Map)
    }

    fn in_present_life(&self, member: Member) -> Result<(), Refusal> {
        let Member { node, incarnation } = member;
        let known = self.not_removed(node)?;
        if known.role != Role::Data {
            return Err(Refusal::HoldsNothing { node });
        }
        match known.incarnation {
            Some(present) if present == incarnation => Ok(()),
            Some(present) => Err(Refusal::OldLife { node, present, found: incarnation }),
            None => Err(Refusal::NeverUp { node }),
        }
    }

    fn set_targets(&mut self, based_on: u64, targets: &[(ShardId, Vec<NodeId>)]) -> Applied {
        if based_on != self.placement_revision {
            return Err(Refusal::PlacementChanged { based_on, present: self.placement_revision });
        }
        let mut seen = BTreeSet::new();
        for (shard, nodes) in targets {
            let shard = *shard;
            let count = self.shard_count();
            self.place(shard).ok_or(Refusal::ShardUnknown { shard, count })?;
            if !seen.insert(shard) {
                return Err(Refusal::ShardTwice { shard });
            }
            if nodes.is_empty() || nodes.len() > usize::from(COPIES_MAX) {
                return Err(Refusal::TargetCount { shard, found: nodes.len() });
            }
            for (index, &node) in nodes.iter().enumerate() {
                if self.not_removed(node)?.role != Role::Data {
                    return Err(Refusal::HoldsNothing { node });
                }
                if nodes[..index].contains(&node) {
                    return Err(Refusal::TargetTwice { shard, node });
                }
            }
        }
        let mut change = Change::Nothing;
        for (shard, nodes) in targets {
            let place = &mut self.shards[usize::from(shard.0)];
            if place.targets != *nodes {
                place.targets.clone_from(nodes);
                change = Change::Placement;
            }
        }
        Ok((change, Outcome::Done))
    }

    fn drain(&mut self, node: NodeId) -> Applied {
        if self.not_removed(node)?.takes_share() {
            self.others_take_share(node)?;
        }
        Ok(self.set_standing(node, Standing::Draining))
    }

    fn cancel_drain(&mut self, node: NodeId) -> Applied {
        self.not_removed(node)?;
        Ok(self.set_standing(node, Standing::Member))
    }

    fn set_standing(&mut self, node: NodeId, standing: Standing) -> (Change, Outcome) {
        match self.nodes.get_mut(&node) {
            Some(known) if known.standing != standing => {
                known.standing = standing;
                (Change::Placement, Outcome::Done)
            }
            _ => (Change::Nothing, Outcome::Done),
        }
    }

    fn remove(&mut self, node: NodeId, force: bool) -> Applied {
        let known = self.nodes.get(&node).ok_or(Refusal::NodeUnknown { node })?;
        if known.standing == Standing::Removed {
            return Ok((Change::Nothing, Outcome::Done));
        }
        if known.takes_share() {
            self.others_take_share(node)?;
        }
        if !force && !self.is_vacant(node) {
            let in_sync = self.copies_on(node).count();
            let wanted = self.wanted_on(node).count();
            return Err(Refusal::StillHolds { node, in_sync, wanted });
        }
        let applied = self.set_standing(node, Standing::Removed);
        self.give_up(node);
        Ok(applied)
    }

    /// After a node was removed by force: it is wanted nowhere, and shards that could not go on without it
    /// go on without it.
    ///
    /// Where the members that are left are enough for a takeover, or the primary can lead on, its membership
    /// is left to them: they alone know whether they hold what was committed. Where they are too few, the
    /// operator has just said that the missing are gone for good, and with them possibly writes that were
    /// acknowledged.
    fn give_up(&mut self, node: NodeId) {
        let takers: Vec<NodeId> =
            self.present().filter(|(_, node)| node.takes_share()).map(|(id, _)| id).collect();
        for index in 0..self.shards.len() {
            if self.shards[index].config.member(node).is_some()
                && let Some(config) = self.without_removed(&self.shards[index].config)
            {
                self.shards[index].config = config;
            }
            let place = &mut self.shards[index];
            place.targets.retain(|&target| target != node);
            if place.targets.is_empty() {
                let mut holders = place.config.in_sync.iter().map(|member| member.node);
                let holder = holders.find(|holder| takers.contains(holder));
                // Anyone will do: the balancer sees to the rest.
                place.targets = vec![holder.unwrap_or(takers[index % takers.len()])];
            }
        }
    }

    /// What becomes of a configuration whose removed members were too many for the rest to go on by itself;
    /// `None` where the rest can.
    fn without_removed(&self, config: &ShardConfig) -> Option<ShardConfig> {
        let is_present = |member: &Member| self.not_removed(member.node).is_ok();
        let left: Vec<Member> = config.in_sync.iter().copied().filter(is_present).collect();
        let members = config.in_sync.len();
        let takeover_quorum = members + 1 - self.pool.ack.write_quorum(members);
        if left.len() >= takeover_quorum || config.epoch >= Epoch::MAX {
            return None;
        }
        let epoch = config.epoch.next();
        let lives = |member: &Member| self.current(member.node) == Some(*member);
        match config.primary_member().filter(|primary| left.contains(primary)) {
            // It holds every write it acknowledged. The others may not, and join again.
            Some(primary) if lives(&primary) => {
                Some(ShardConfig { epoch, primary: Some(primary.node), in_sync: vec![primary] })
            }
            _ => {
                let heir = left.iter().copied().find(lives).or_else(|| left.first().copied());
                Some(ShardConfig { epoch, primary: heir.map(|heir| heir.node), in_sync: left })
            }
        }
    }

    fn set_zone_weight(&mut self, node: NodeId, zone: &str, weight: u16) -> Applied {
        self.not_removed(node)?;
        check_weight(weight)?;
        match self.nodes.get_mut(&node) {
            Some(known) if known.zone != zone || known.weight != weight => {
                known.zone = zone.into();
                known.weight = weight;
                Ok((Change::Placement, Outcome::Done))
            }
            _ => Ok((Change::Nothing, Outcome::Done)),
        }
    }

    fn set_pool(&mut self, change: &PoolChange) -> Applied {
        let present = &self.pool;
        let pool = Pool {
            name: present.name.clone(),
            copies: change.copies.unwrap_or(present.copies),
            ack: change.ack.unwrap_or(present.ack),
            in_sync_min: change.in_sync_min.unwrap_or(present.in_sync_min),
            reads: change.reads.unwrap_or(present.reads),
            on_total_loss: change.on_total_loss.unwrap_or(present.on_total_loss),
        };
        check_pool(&pool)?;
        // A takeover seals in-sync - write quorum + 1 members: with a greater quorum than the one under
        // which writes were acknowledged, it could miss them all.
        if strength(pool.ack) > strength(present.ack) {
            return Err(Refusal::AckStronger { present: present.ack, wanted: pool.ack });
        }
        let made = match () {
            () if pool == *present => Change::Nothing,
            () if pool.copies == present.copies => Change::Map,
            () => Change::Placement,
        };
        self.pool = pool;
        Ok((made, Outcome::Done))
    }
}

fn strength(ack: Ack) -> u8 {
    match ack {
        Ack::Primary => 0,
        Ack::Quorum => 1,
        Ack::All => 2,
    }
}

fn check_weight(found: u16) -> Result<(), Refusal> {
    match (1..=WEIGHT_MAX).contains(&found) {
        true => Ok(()),
        false => Err(Refusal::Weight { found }),
    }
}

fn check_pool(pool: &Pool) -> Result<(), Refusal> {
    if !(1..=COPIES_MAX).contains(&pool.copies) {
        return Err(Refusal::Copies { found: pool.copies });
    }
    if !(1..=pool.copies).contains(&pool.in_sync_min) {
        return Err(Refusal::InSyncMin { found: pool.in_sync_min, copies: pool.copies });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
