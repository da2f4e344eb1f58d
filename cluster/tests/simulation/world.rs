//! The whole cluster in one loop: events in the order of their time, and ties in the order of their making.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use cluster::grant::{Beacon, GrantAnswer};
use cluster::map::{
    Addresses, ClusterMap, Command, NewNode, Outcome, Reconfigure, Role, ShardConfig, Standing,
};
use cluster::message::Message;
use cluster::node::{self, Rest, Task};
use cluster::pool::Pool;
use cluster::shard::{Effect, Input};
use cluster::{ClusterId, Epoch, Incarnation, Member, NodeId, ShardId, Version};

use crate::history::{Ask, By, EVERY_KEY, End, Left, Operation, OperationId, Write, appended};
use crate::network::{MS, Network};
use crate::random::Random;
use crate::server::{Clock, LeasesAt, Server, Store, Waiting, Walk, encode};

/// From one look of a node at its shards to the next.
const TICK_NS: u64 = 25 * MS;
/// How long a client waits for an answer.
const PATIENCE_NS: u64 = 2_000 * MS;
/// A parked request looks again after this.
const PARK_STEP_NS: u64 = 10 * MS;
/// Keys of a joining copy sent at once.
const SLICE: usize = 3;
/// A node that was away for longer gets no share.
const REPLACE_AFTER: std::time::Duration = std::time::Duration::from_secs(5);

/// Who and what is simulated.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) nodes: u32,
    pub(crate) shards: u16,
    pub(crate) keys: u8,
    pub(crate) clients: u32,
    /// Items that a shard has room for.
    pub(crate) room: usize,
    pub(crate) pool: Pool,
}

/// Freight between two nodes about one shard.
#[derive(Debug, Clone)]
pub(crate) enum Freight {
    Message(Message),
    /// The primary of this epoch: what do you have?
    WhatHaveYou(Epoch),
    /// The joiner, asked in this epoch: this.
    Have(Epoch, BTreeMap<u8, Version>),
    /// The primary: you lack these.
    Items(Vec<Write>),
    /// The primary: I have none of these; and this is what all that you have now is made of.
    Drop(Vec<u8>, Vec<Write>),
}

/// What happens.
#[derive(Debug, Clone)]
enum Event {
    Tick(Member),
    Beacon(NodeId, Beacon),
    Answer(NodeId, GrantAnswer),
    Freight {
        from: Member,
        to: NodeId,
        connection: u64,
        shard: ShardId,
        freight: Freight,
    },
    /// A proposal reaches whoever leads Raft.
    Proposed {
        by: Member,
        command: Command,
    },
    /// What came of the changes of shards that were proposed.
    Refused {
        to: Member,
        config: ShardConfig,
        shard: ShardId,
    },
    /// A node applies the control plane's log up to here.
    Apply {
        node: NodeId,
        upto: usize,
    },
    Ask {
        operation: OperationId,
        at: NodeId,
        by: Member,
        until_ns: u64,
        hops: u8,
    },
    Answered {
        operation: OperationId,
        end: End,
    },
    GivesUp(OperationId),
    NextOperation(u32),
    Raft,
    Resume(NodeId),
    Start(NodeId, bool),
}

#[derive(Debug)]
struct Timed {
    at_ns: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ns, self.number).cmp(&(other.at_ns, other.number))
    }
}

/// Raft, as far as its users can tell: one log; a leader that a majority hears, or none for a while.
#[derive(Debug)]
struct Raft {
    maps: Vec<Arc<ClusterMap>>,
    leader: Option<NodeId>,
    election_ends_ns: Option<u64>,
}

pub(crate) struct World {
    plan: Plan,
    pub(crate) random: Random,
    pub(crate) now_ns: u64,
    events: BinaryHeap<Reverse<Timed>>,
    number: u64,
    pub(crate) network: Network,
    servers: Vec<Server>,
    /// What waits for a paused node, in its order.
    backlog: BTreeMap<NodeId, Vec<Event>>,
    raft: Raft,
    pub(crate) operations: Vec<Operation>,
    client_of: BTreeMap<OperationId, u32>,
    /// What a client saw last of a key, for the next swap.
    seen: BTreeMap<(u32, u8), Version>,
    clients_run: bool,
    /// Who committed in an epoch of a shard.
    committers: BTreeMap<(ShardId, Epoch), Member>,
    /// A hash of everything that happened.
    trace: u64,
    pub(crate) violation: Option<String>,
    pub(crate) takeovers: u64,
    /// Whether a copy was lost that may not have been replaced yet: another loss could be one too many.
    is_weak: bool,
}

impl World {
    pub(crate) fn new(plan: Plan, seed: u64) -> Self {
        let mut random = Random::of_seed(seed);
        let mut map = ClusterMap::default();
        let newcomer = |node: u32| NewNode {
            addresses: Addresses { peer: format!("node-{node}:1"), ..Addresses::default() },
            zone: String::new(),
            weight: 100,
            role: Role::Data,
            version: String::new(),
        };
        let founded = map.apply(&Command::Found {
            cluster: ClusterId(1),
            pool: plan.pool.clone(),
            shard_count: 64,
            node: newcomer(1),
        });
        assert_eq!(founded, Outcome::NodeAdded(NodeId(1)));
        // Fewer than a cluster can be founded with: a few say as much in less time.
        map.shards.truncate(usize::from(plan.shards));
        for node in 2..=plan.nodes {
            map.apply(&Command::AddNode {
                request: u64::from(node),
                token_hash: None,
                now_unix_ms: 0,
                node: newcomer(node),
            });
        }
        let clocks: Vec<Clock> = (0..plan.nodes).map(|_| some_clock(&mut random)).collect();
        let servers = (1..=plan.nodes)
            .zip(clocks)
            .map(|(node, clock)| {
                let me = Member { node: NodeId(node), incarnation: Incarnation(1) };
                let blank =
                    vec![(whole(Store::default()), Version::ZERO); usize::from(plan.shards)];
                Server::new(me, clock, plan.pool.ack, blank)
            })
            .collect();
        let mut world = Self {
            random,
            now_ns: 0,
            events: BinaryHeap::new(),
            number: 0,
            network: Network::new(),
            servers,
            backlog: BTreeMap::new(),
            raft: Raft {
                maps: vec![Arc::new(map)],
                leader: Some(NodeId(1)),
                election_ends_ns: None,
            },
            operations: Vec::new(),
            client_of: BTreeMap::new(),
            seen: BTreeMap::new(),
            clients_run: true,
            committers: BTreeMap::new(),
            trace: 0xcbf2_9ce4_8422_2325,
            violation: None,
            takeovers: 0,
            is_weak: false,
            plan,
        };
        for node in world.nodes() {
            let me = world.server(node).me;
            let first_ns = world.random.below(TICK_NS);
            world.at(first_ns, Event::Tick(me));
        }
        for client in 0..world.plan.clients {
            world.at(1_000 * MS, Event::NextOperation(client));
        }
        world.at(0, Event::Raft);
        world
    }

    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        (1..=self.plan.nodes).map(NodeId).collect()
    }

    fn server(&self, node: NodeId) -> &Server {
        &self.servers[node.0 as usize - 1]
    }

    fn server_mut(&mut self, node: NodeId) -> &mut Server {
        &mut self.servers[node.0 as usize - 1]
    }

    fn lives(&self, member: Member) -> bool {
        let server = self.server(member.node);
        server.is_alive && server.me == member
    }

    fn runs(&self, node: NodeId) -> bool {
        let server = self.server(node);
        server.is_alive && !server.is_paused
    }

    pub(crate) fn map(&self) -> &ClusterMap {
        self.raft.maps.last().unwrap()
    }

    fn at(&mut self, at_ns: u64, event: Event) {
        self.number += 1;
        self.events.push(Reverse(Timed { at_ns, number: self.number, event }));
    }

    fn after(&mut self, delay_ns: u64, event: Event) {
        self.at(self.now_ns + delay_ns, event);
    }

    /// Two runs in which the same happened have the same.
    pub(crate) fn trace(&self) -> u64 {
        self.trace
    }

    fn note(&mut self, what: &[u64]) {
        for word in what {
            self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
    }

    fn violated(&mut self, why: String) {
        if self.violation.is_none() {
            self.violation = Some(format!("after {} ms: {why}", self.now_ns / MS));
        }
    }

    /// Lets everything happen until `until_ns`.
    pub(crate) fn run_until(&mut self, until_ns: u64) {
        while let Some(Reverse(next)) = self.events.peek() {
            if next.at_ns > until_ns || self.violation.is_some() {
                break;
            }
            let Some(Reverse(timed)) = self.events.pop() else { break };
            self.now_ns = timed.at_ns;
            self.note(&[timed.at_ns, timed.number]);
            self.happen(timed.event);
        }
        self.now_ns = self.now_ns.max(until_ns);
    }

    fn happen(&mut self, event: Event) {
        let to = match &event {
            Event::Tick(member) | Event::Refused { to: member, .. } => Some(member.node),
            Event::Beacon(node, _) | Event::Answer(node, _) | Event::Ask { at: node, .. } => {
                Some(*node)
            }
            Event::Freight { to, .. } => Some(*to),
            Event::Apply { node, .. } => Some(*node),
            _ => None,
        };
        if let Some(node) = to {
            if !self.server(node).is_alive {
                return;
            }
            if self.server(node).is_paused {
                self.backlog.entry(node).or_default().push(event);
                return;
            }
        }
        match event {
            Event::Tick(member) => self.tick(member),
            Event::Beacon(to, beacon) => self.node_hears(to, node::Input::Beacon(beacon)),
            Event::Answer(to, answer) => self.node_hears(to, node::Input::Answer(answer)),
            Event::Freight { from, to, connection, shard, freight } => {
                if self.network.arrives(from.node, to, connection) {
                    self.unload(from, to, shard, freight);
                }
            }
            Event::Proposed { by, command } => self.propose_to_leader(by, &command),
            Event::Refused { to, config, shard } => {
                if self.lives(to) {
                    self.input(to.node, shard, Input::Rejected(config));
                }
            }
            Event::Apply { node, upto } => self.apply_map(node, upto),
            Event::Ask { operation, at, by, until_ns, hops } => {
                if self.lives(by) {
                    self.serve(operation, at, until_ns, hops);
                }
            }
            Event::Answered { operation, end } => self.answered(operation, end),
            Event::GivesUp(operation) => self.give_up(operation),
            Event::NextOperation(client) => self.next_operation(client),
            Event::Raft => self.raft(),
            Event::Resume(node) => self.resume(node),
            Event::Start(node, is_warm) => self.start(node, is_warm),
        }
    }

    // Nodes.

    fn tick(&mut self, me: Member) {
        if !self.lives(me) {
            return;
        }
        let rate = self.server(me.node).clock.rate_permille;
        self.after(TICK_NS * 1000 / rate, Event::Tick(me));
        for peer in self.nodes() {
            if peer > me.node && self.server(peer).is_alive && self.network.connect(me.node, peer) {
                for (node, other) in [(me.node, peer), (peer, me.node)] {
                    self.connected(node, other);
                }
            }
        }
        self.node_hears(me.node, node::Input::Tick { worker_silent_ms: 0 });
        for shard in self.shards() {
            self.attend(me.node, shard);
            self.walk_on(me.node, shard);
            self.expire_one(me.node, shard);
        }
        let now = self.local(me.node);
        self.server_mut(me.node).node.forget(now);
        let map = &self.raft.maps[self.server(me.node).applied];
        if map.nodes[&me.node].incarnation != Some(me.incarnation) {
            self.announce(me);
        }
        if self.raft.leader == Some(me.node) {
            for command in self.server_mut(me.node).node.steer(now, REPLACE_AFTER) {
                self.propose(me, command);
            }
        }
    }

    fn shards(&self) -> Vec<ShardId> {
        (0..self.plan.shards).map(ShardId).collect()
    }

    fn local(&self, node: NodeId) -> cluster::Instant {
        self.server(node).clock.at(self.now_ns)
    }

    fn announce(&mut self, me: Member) {
        let known = &self.map().nodes[&me.node];
        let addresses = known.addresses.clone();
        let recovered = self.server(me.node).recovered.clone();
        let command = Command::NodeUp {
            node: me.node,
            incarnation: me.incarnation,
            addresses,
            version: String::new(),
            recovered,
        };
        self.propose(me, command);
    }

    fn connected(&mut self, node: NodeId, other: NodeId) {
        for shard in self.shards() {
            self.copy_mut(node, shard).walks.remove(&other);
            self.input(node, shard, Input::Connected(other));
        }
    }

    fn copy_mut(&mut self, node: NodeId, shard: ShardId) -> &mut crate::server::Copy {
        &mut self.server_mut(node).copies[usize::from(shard.0)]
    }

    fn copy(&self, node: NodeId, shard: ShardId) -> &crate::server::Copy {
        &self.server(node).copies[usize::from(shard.0)]
    }

    fn node_hears(&mut self, node: NodeId, input: node::Input) {
        let now = self.local(node);
        let mut effects = Vec::new();
        self.server_mut(node).node.step(now, input, &mut effects);
        for effect in effects {
            match effect {
                node::Effect::Beacon { to, beacon } => {
                    for at_ns in self.network.post(self.now_ns, node, to, &mut self.random) {
                        self.at(at_ns, Event::Beacon(to, beacon));
                    }
                }
                node::Effect::Answer { to, answer } => {
                    for at_ns in self.network.post(self.now_ns, node, to, &mut self.random) {
                        self.at(at_ns, Event::Answer(to, answer));
                    }
                }
                node::Effect::Bound { peer, until } => {
                    self.server_mut(node).leases.bound.insert(peer, until);
                }
                node::Effect::Held { member, until } => {
                    self.server_mut(node).leases.held.insert(member, until);
                }
                node::Effect::Suspicion(_) => {
                    for shard in self.shards() {
                        self.attend(node, shard);
                    }
                }
            }
        }
    }

    fn attend(&mut self, node: NodeId, shard: ShardId) {
        let now = self.local(node);
        let mut tasks = Vec::new();
        let server = self.server_mut(node);
        let copy = &mut server.copies[usize::from(shard.0)];
        let news = server.node.news();
        let was_still =
            matches!(&copy.at_rest, Some((at, it)) if *at == news && *it == copy.replica);
        let rest = server.node.attend(now, &copy.replica, &mut tasks);
        copy.at_rest = (rest == Rest::Still).then(|| (news, copy.replica.clone()));
        if was_still && (!tasks.is_empty() || rest != Rest::Still) {
            let why = format!("node {node} has {tasks:?} for shard {shard}, which was at rest");
            return self.violated(why);
        }
        for task in tasks {
            match task {
                Task::Step(input) => self.input(node, shard, input),
                Task::Join(member) => {
                    if self.lives(member) {
                        let epoch = self.copy(node, shard).replica.config().epoch;
                        self.ship(node, member.node, shard, Freight::WhatHaveYou(epoch));
                    }
                }
            }
        }
    }

    fn input(&mut self, node: NodeId, shard: ShardId, input: Input) {
        let mut effects = Vec::new();
        let now = self.local(node);
        let server = self.server_mut(node);
        let grants = LeasesAt { leases: &server.leases, now };
        let copy = &mut server.copies[usize::from(shard.0)];
        let was_serving = copy.replica.is_serving();
        let is_map = matches!(input, Input::Configured(_));
        copy.replica.step(input, &grants, &mut effects);
        if !is_map {
            server.node.note_seal(&copy.replica);
        }
        if copy.replica.is_in_sync() && !copy.store.is_whole {
            let why = format!("node {node} is in sync with half a copy of shard {shard}");
            return self.violated(why);
        }
        if !was_serving && copy.replica.is_serving() {
            self.takeovers += 1;
        }
        self.carry_out(node, shard, effects);
    }

    fn carry_out(&mut self, node: NodeId, shard: ShardId, effects: Vec<Effect>) {
        let me = self.server(node).me;
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    self.ship(node, to, shard, Freight::Message(message));
                }
                Effect::Apply(entry) => self.copy_mut(node, shard).store.apply(&entry),
                Effect::Committed(through) => {
                    let copy = self.copy_mut(node, shard);
                    let epoch = copy.replica.config().epoch;
                    copy.pending.committed(through);
                    let due = copy.waiting.extract_if(.., |it| it.sequence <= through).collect();
                    let first = *self.committers.entry((shard, epoch)).or_insert(me);
                    if first != me {
                        self.violated(format!(
                            "{first:?} and {me:?} commit in epoch {epoch} of shard {shard}"
                        ));
                    }
                    self.release(node, due);
                }
                Effect::Propose(change) => self.propose(me, Command::Reconfigure(vec![change])),
                Effect::Serves => {}
                Effect::Deposed => {
                    let copy = self.copy_mut(node, shard);
                    copy.waiting.clear();
                    copy.pending.clear();
                    copy.walks.clear();
                }
            }
        }
    }

    fn release(&mut self, node: NodeId, due: Vec<Waiting>) {
        for waiting in due {
            self.reply(node, waiting.operation, waiting.end);
        }
    }

    // Freight.

    fn ship(&mut self, from: NodeId, to: NodeId, shard: ShardId, freight: Freight) {
        let sender = self.server(from).me;
        let shipped = self.network.ship(self.now_ns, from, to, &mut self.random);
        if let Some((at_ns, connection)) = shipped {
            self.at(at_ns, Event::Freight { from: sender, to, connection, shard, freight });
        }
    }

    fn unload(&mut self, from: Member, to: NodeId, shard: ShardId, freight: Freight) {
        match freight {
            Freight::Message(message) => {
                let is_join = matches!(message, Message::Join { .. });
                let before = is_join.then(|| self.copy(to, shard).replica.clone());
                self.input(to, shard, Input::Received { from, message });
                let copy = self.copy_mut(to, shard);
                // One that is refused leaves the copy as it was.
                if before.is_some_and(|before| before != copy.replica) {
                    copy.store.is_whole = false;
                    copy.store.history.clear();
                }
            }
            Freight::WhatHaveYou(epoch) => {
                let copy = self.copy_mut(to, shard);
                if copy.replica.may_tell(from.node, epoch) {
                    let items = copy.store.items.iter();
                    let has = items.map(|(&key, item)| (key, item.version)).collect();
                    self.ship(to, from.node, shard, Freight::Have(epoch, has));
                }
            }
            Freight::Have(epoch, has) => {
                // An answer to a question of another time says nothing of what the joiner has now.
                if self.copy(to, shard).replica.config().epoch != epoch {
                    return;
                }
                self.input(to, shard, Input::StartJoin(from));
                let copy = self.copy_mut(to, shard);
                if copy.replica.joiners().contains(&from) {
                    let left = copy.store.items.keys().copied().collect();
                    let history = copy.store.history.clone();
                    copy.walks.insert(from.node, Walk { has, left, history });
                }
            }
            Freight::Items(items) => {
                let copy = self.copy_mut(to, shard);
                if copy.replica.joins_under(from.node) {
                    copy.store.items.extend(items.into_iter().map(|item| (item.key, item)));
                }
            }
            Freight::Drop(keys, history) => {
                let copy = self.copy_mut(to, shard);
                if copy.replica.joins_under(from.node) && !copy.store.is_whole {
                    copy.store.items.retain(|key, _| !keys.contains(key));
                    copy.store.history.splice(0..0, history);
                    copy.store.is_whole = true;
                }
            }
        }
    }

    /// Sends joiners another slice of what they lack.
    fn walk_on(&mut self, node: NodeId, shard: ShardId) {
        if self.copy(node, shard).walks.is_empty() {
            return;
        }
        let joiners = self.copy(node, shard).replica.joiners();
        let copy = self.copy_mut(node, shard);
        copy.walks.retain(|&joiner, _| joiners.iter().any(|it| it.node == joiner));
        let mut walks = std::mem::take(&mut copy.walks);
        let items = copy.store.items.clone();
        let mut done = Vec::new();
        for (&joiner, walk) in &mut walks {
            let slice: Vec<u8> = walk.left.iter().copied().take(SLICE).collect();
            if slice.is_empty() {
                let dropped = walk.has.keys().filter(|key| !items.contains_key(key));
                let freight = Freight::Drop(dropped.copied().collect(), walk.history.clone());
                done.push((joiner, freight));
                continue;
            }
            walk.left.retain(|key| !slice.contains(key));
            let lacks = |key: &u8| {
                let item = items.get(key)?;
                (walk.has.get(key) != Some(&item.version)).then_some(*item)
            };
            let lacking: Vec<Write> = slice.iter().filter_map(lacks).collect();
            self.ship(node, joiner, shard, Freight::Items(lacking));
        }
        for (joiner, freight) in done {
            walks.remove(&joiner);
            self.ship(node, joiner, shard, freight);
            self.input(node, shard, Input::FinishJoin(joiner));
        }
        self.copy_mut(node, shard).walks = walks;
    }

    // The control plane.

    fn propose(&mut self, by: Member, command: Command) {
        let delay_ns = self.network.delay_ns(&mut self.random);
        self.after(delay_ns, Event::Proposed { by, command });
    }

    fn leads(&self, node: NodeId) -> bool {
        let nodes = self.nodes();
        let hears = |&&other: &&NodeId| {
            other == node || (self.runs(other) && self.network.hear_each_other(node, other))
        };
        self.runs(node) && nodes.iter().filter(hears).count() * 2 > nodes.len()
    }

    fn propose_to_leader(&mut self, by: Member, command: &Command) {
        let Some(leader) = self.raft.leader.filter(|&leader| self.leads(leader)) else { return };
        let heard = leader == by.node || self.network.hear_each_other(leader, by.node);
        if !heard || !self.lives(by) || self.random.permille(self.network.weather.lost_permille) {
            return;
        }
        let mut map = self.map().clone();
        let outcome = map.apply(command);
        if map.revision != self.map().revision {
            self.raft.maps.push(Arc::new(map));
            for node in self.nodes() {
                self.replicate(node);
            }
        }
        let (Command::Reconfigure(changes), Outcome::Reconfigured(results)) = (command, outcome)
        else {
            return;
        };
        for (change, result) in changes.iter().zip(results) {
            let is_lost = self.random.permille(self.network.weather.lost_permille);
            if result.is_err() && !is_lost {
                let delay_ns = self.network.delay_ns(&mut self.random);
                let Reconfigure { shard, to, .. } = change.clone();
                self.after(delay_ns, Event::Refused { to: by, config: to, shard });
            }
        }
    }

    /// A node hears of all that was committed.
    fn replicate(&mut self, node: NodeId) {
        let Some(leader) = self.raft.leader else { return };
        let upto = self.raft.maps.len() - 1;
        let is_heard = node == leader || self.network.hear_each_other(leader, node);
        if self.server(node).is_alive && is_heard && self.server(node).applied < upto {
            let delay_ns = self.network.delay_ns(&mut self.random);
            self.after(delay_ns, Event::Apply { node, upto });
        }
    }

    fn raft(&mut self) {
        self.after(50 * MS, Event::Raft);
        if self.raft.leader.is_some_and(|leader| !self.leads(leader)) {
            self.raft.leader = None;
            let takes_ns = self.random.between(200, 1_000) * MS;
            self.raft.election_ends_ns = Some(self.now_ns + takes_ns);
        }
        if self.raft.leader.is_none() && self.raft.election_ends_ns <= Some(self.now_ns) {
            let able: Vec<NodeId> =
                self.nodes().into_iter().filter(|&node| self.leads(node)).collect();
            if !able.is_empty() {
                self.raft.leader = Some(self.random.pick(&able));
            }
        }
        for node in self.nodes() {
            self.replicate(node);
        }
    }

    fn apply_map(&mut self, node: NodeId, upto: usize) {
        let before = self.server(node).applied;
        if upto <= before {
            return;
        }
        for at in before + 1..=upto {
            let map = Arc::clone(&self.raft.maps[at]);
            self.server_mut(node).applied = at;
            self.tell_map(node, &map);
        }
    }

    fn tell_map(&mut self, node: NodeId, map: &Arc<ClusterMap>) {
        for (shard, place) in map.places() {
            if place.config.epoch > self.copy(node, shard).replica.config().epoch {
                self.input(node, shard, Input::Configured(place.config.clone()));
            }
        }
        self.node_hears(node, node::Input::Map(Arc::clone(map)));
        // Only now: what is granted anew is granted to who knows of this map.
        let server = self.server_mut(node);
        for copy in &server.copies {
            server.node.note_seal(&copy.replica);
        }
    }

    // Clients.

    pub(crate) fn stop_clients(&mut self) {
        self.clients_run = false;
    }

    fn next_operation(&mut self, client: u32) {
        if !self.clients_run {
            return;
        }
        let key = u8::try_from(self.random.below(u64::from(self.plan.keys))).unwrap();
        let ask = self.next_ask(client, key);
        self.ask(client, key, ask);
    }

    /// What a key is used for: a session, a number, something stored once, something swapped and grown.
    fn next_ask(&mut self, client: u32, key: u8) -> Ask {
        let random = &mut self.random;
        if random.permille(2) {
            return Ask::Flush;
        }
        if random.permille(400) {
            return Ask::Read;
        }
        let ttl_ns = random.permille(300).then_some(random.between(100, 3_000) * MS);
        match (key % 4, random.below(100)) {
            (0, 0..10) | (1, 0..2) | (2 | 3, 0..5) => Ask::Delete,
            (1, _) => Ask::Count,
            (2, 5..95) => Ask::Add,
            (3, 5..30) => Ask::Append,
            (0, 10..25) => Ask::Touch { ttl_ns: random.between(100, 3_000) * MS },
            (3, 30..90) if let Some(&version) = self.seen.get(&(client, key)) => Ask::Swap(version),
            _ => Ask::Set { ttl_ns },
        }
    }

    fn ask(&mut self, client: u32, key: u8, ask: Ask) {
        let id = OperationId::try_from(self.operations.len()).unwrap();
        self.operations.push(Operation { key, ask, asked_ns: self.now_ns, end: None });
        self.client_of.insert(id, client);
        self.after(PATIENCE_NS, Event::GivesUp(id));
        let running: Vec<NodeId> =
            self.nodes().into_iter().filter(|&node| self.server(node).is_alive).collect();
        if running.is_empty() {
            return;
        }
        let at = self.random.pick(&running);
        let by = self.server(at).me;
        let until_ns = self.now_ns + 1_000 * MS;
        self.after(50_000, Event::Ask { operation: id, at, by, until_ns, hops: 0 });
    }

    fn answered(&mut self, operation: OperationId, end: End) {
        let Some(client) = self.client_of.remove(&operation) else { return };
        let entry = &mut self.operations[operation as usize];
        entry.end = Some((self.now_ns, end));
        let key = entry.key;
        match end {
            End::Saw(version) | End::Missed(version) | End::Wrote(version) => {
                self.seen.insert((client, key), version);
            }
            End::Refused => {}
        }
        let pause_ns = self.random.between(1, 30) * MS;
        self.after(pause_ns, Event::NextOperation(client));
    }

    fn give_up(&mut self, operation: OperationId) {
        if let Some(client) = self.client_of.remove(&operation) {
            self.after(MS, Event::NextOperation(client));
        }
    }

    fn serve(&mut self, id: OperationId, at: NodeId, until_ns: u64, hops: u8) {
        let key = self.operations[id as usize].key;
        let shard = ShardId(u16::from(key) % self.plan.shards);
        let copy = self.copy(at, shard);
        if copy.replica.is_serving() {
            if self.carry_out_operation(id, at, shard) {
                return;
            }
        } else if let Some(primary) = copy.replica.config().primary
            && primary != at
            && hops == 0
            && self.server(primary).is_alive
            && self.network.hear_each_other(at, primary)
        {
            let by = self.server(primary).me;
            let delay_ns = self.network.delay_ns(&mut self.random);
            let hop = Event::Ask { operation: id, at: primary, by, until_ns, hops: 1 };
            return self.after(delay_ns, hop);
        }
        if self.now_ns >= until_ns {
            return self.reply(at, id, End::Refused);
        }
        let by = self.server(at).me;
        self.after(PARK_STEP_NS, Event::Ask { operation: id, at, by, until_ns, hops });
    }

    fn reply(&mut self, from: NodeId, operation: OperationId, end: End) {
        // Some answers are lost on the way to the client.
        if self.random.permille(self.network.weather.lost_permille) || !self.runs(from) {
            return;
        }
        self.after(50_000, Event::Answered { operation, end });
    }

    /// Carries an operation out where its shard is served; `false` when it has to wait.
    fn carry_out_operation(&mut self, id: OperationId, at: NodeId, shard: ShardId) -> bool {
        let Operation { key, ask, .. } = self.operations[id as usize].clone();
        self.expire(at, shard, key);
        if !self.copy(at, shard).store.agrees_on(key) {
            let why = format!("node {at} serves key {key} otherwise than it was written");
            self.violated(why);
        }
        let wall_ns = self.server(at).clock.wall_ns(self.now_ns);
        let copy = self.copy(at, shard);
        let last = copy.store.last(key);
        let found = copy.store.items.get(&key).and_then(|item| item.value());
        let deadline_ns = copy.store.items.get(&key).and_then(|item| item.deadline_ns());
        let mine = u64::from(id);
        let keep = |value| Some(Left::Value { value, deadline_ns });
        let stay = |value| Some(Left::Value { value, deadline_ns: None });
        let left = match (ask, found) {
            (Ask::Read, _)
            | (Ask::Delete | Ask::Append | Ask::Swap(_) | Ask::Touch { .. }, None) => None,
            (Ask::Add, Some(_)) => None,
            (Ask::Swap(seen), Some(_)) if seen != last => None,
            (Ask::Set { ttl_ns }, _) => {
                let deadline_ns = ttl_ns.map(|ttl_ns| wall_ns + ttl_ns);
                Some(Left::Value { value: mine, deadline_ns })
            }
            (Ask::Add, None) | (Ask::Swap(_), Some(_)) => stay(mine),
            (Ask::Count, Some(value)) => keep(value + 1),
            (Ask::Count, None) => stay(1),
            (Ask::Append, Some(value)) => keep(appended(value, id)),
            (Ask::Touch { ttl_ns }, Some(value)) => {
                Some(Left::Value { value, deadline_ns: Some(wall_ns + ttl_ns) })
            }
            (Ask::Delete, Some(_)) | (Ask::Flush, _) => Some(Left::Nothing),
        };
        let Some(left) = left else {
            let now = self.local(at);
            let server = self.server_mut(at);
            let grants = LeasesAt { leases: &server.leases, now };
            let copy = &mut server.copies[usize::from(shard.0)];
            if !copy.replica.may_read(&grants) {
                return false;
            }
            let end = if found.is_some() { End::Saw(last) } else { End::Missed(last) };
            match copy.pending.of(u64::from(key)) {
                Some(sequence) => copy.waiting.push(Waiting { sequence, operation: id, end }),
                None => self.reply(at, id, end),
            }
            return true;
        };
        if !self.copy(at, shard).replica.takes_writes(usize::from(self.plan.pool.in_sync_min)) {
            self.reply(at, id, End::Refused);
            return true;
        }
        let key = if ask == Ask::Flush { EVERY_KEY } else { key };
        self.order(at, shard, key, left, By::Client(id));
        self.make_room(at, shard);
        true
    }

    /// Writes, as the primary.
    fn order(&mut self, at: NodeId, shard: ShardId, key: u8, left: Left, by: By) {
        let keys = self.plan.keys;
        let copy = self.copy_mut(at, shard);
        let version = copy.replica.next_version();
        let write = Write { version, key, left, by };
        copy.store.put(write);
        let sequence = version.sequence();
        if key == EVERY_KEY {
            // Whoever misses any of them has seen this write.
            (0..keys).for_each(|key| copy.pending.wrote(u64::from(key), sequence));
        } else {
            copy.pending.wrote(u64::from(key), sequence);
        }
        if let By::Client(operation) = by {
            copy.waiting.push(Waiting { sequence, operation, end: End::Wrote(version) });
        }
        let mut effects = Vec::new();
        copy.replica.write(encode(&write), &mut effects);
        self.carry_out(at, shard, effects);
    }

    /// Removes an item whose time is over by this node's clock on the wall.
    fn expire(&mut self, at: NodeId, shard: ShardId, key: u8) {
        let wall_ns = self.server(at).clock.wall_ns(self.now_ns);
        let item = self.copy(at, shard).store.items.get(&key);
        let is_due = item.and_then(|item| item.deadline_ns()).is_some_and(|at| at <= wall_ns);
        if is_due && self.copy(at, shard).replica.is_serving() {
            self.order(at, shard, key, Left::Nothing, By::Expiry);
        }
    }

    /// The sweep: items go when their time is over, also when nobody asks for them.
    fn expire_one(&mut self, at: NodeId, shard: ShardId) {
        let items = &self.copy(at, shard).store.items;
        let first = items.values().filter(|item| item.deadline_ns().is_some());
        if let Some(key) = first.min_by_key(|item| item.deadline_ns()).map(|item| item.key) {
            self.expire(at, shard, key);
        }
    }

    /// Evicts what was written the longest ago.
    fn make_room(&mut self, at: NodeId, shard: ShardId) {
        let copy = self.copy(at, shard);
        // What was just written may have been committed, and the shard handed over by that.
        if copy.store.items.len() > self.plan.room && copy.replica.is_serving() {
            let oldest = copy.store.items.values().min_by_key(|item| item.version);
            if let Some(victim) = oldest.map(|item| item.key) {
                self.order(at, shard, victim, Left::Nothing, By::Eviction);
            }
        }
    }

    // Faults.

    pub(crate) fn is_alive(&self, node: NodeId) -> bool {
        self.server(node).is_alive
    }

    pub(crate) fn is_paused(&self, node: NodeId) -> bool {
        self.server(node).is_paused
    }

    /// Whether everything that `node` holds is held by as many others as a takeover needs, so that its loss
    /// with all its memory loses nothing.
    pub(crate) fn can_lose(&self, node: NodeId) -> bool {
        let all_run = self.nodes().iter().all(|&other| self.runs(other));
        all_run
            && !self.network.is_cut()
            && self.map().places().all(|(shard, place)| {
                let config = &place.config;
                let is_known = |&other: &NodeId| self.copy(other, shard).replica.config() == config;
                let members = config.in_sync.len();
                config.member(node).is_none()
                    || (members >= usize::from(self.plan.pool.copies)
                        && config.in_sync.iter().all(|&member| self.lives(member))
                        && self.nodes().iter().all(is_known))
            })
    }

    /// Whether a node may crash and come back with its memory: always, but while the loss of a copy is not
    /// made good. What is promised is to survive one loss before repair.
    pub(crate) fn may_crash(&mut self, node: NodeId) -> bool {
        self.is_weak &= self.unrest().is_err();
        self.is_alive(node) && !self.is_weak
    }

    pub(crate) fn crash(&mut self, node: NodeId, is_warm: bool, away_ns: u64) {
        self.is_weak |= !is_warm;
        let server = self.server_mut(node);
        server.is_alive = false;
        server.is_paused = false;
        self.backlog.remove(&node);
        for other in self.nodes().into_iter().filter(|&other| other != node) {
            self.network.break_lane(node, other);
        }
        self.network.harm += 1;
        self.after(away_ns, Event::Start(node, is_warm));
    }

    fn start(&mut self, node: NodeId, is_warm: bool) {
        if self.server(node).is_alive {
            return;
        }
        let clock = some_clock(&mut self.random);
        let old = self.server(node);
        let me = old.next_life();
        let applied = old.applied;
        let stores = match is_warm {
            true => old.left_behind(),
            false => vec![(whole(Store::default()), Version::ZERO); old.copies.len()],
        };
        let server = Server { applied, ..Server::new(me, clock, self.plan.pool.ack, stores) };
        *self.server_mut(node) = server;
        self.announce(me);
        let map = Arc::clone(&self.raft.maps[applied]);
        self.tell_map(node, &map);
        self.after(0, Event::Tick(me));
    }

    pub(crate) fn pause(&mut self, node: NodeId, for_ns: u64) {
        if self.runs(node) {
            self.server_mut(node).is_paused = true;
            self.network.harm += 1;
            self.after(for_ns, Event::Resume(node));
        }
    }

    fn resume(&mut self, node: NodeId) {
        self.server_mut(node).is_paused = false;
        for event in self.backlog.remove(&node).unwrap_or_default() {
            self.happen(event);
        }
    }

    pub(crate) fn change_clock(&mut self, node: NodeId) {
        let (rate_permille, ahead_ns) =
            (self.random.between(996, 1004), some_minute(&mut self.random));
        let now_ns = self.now_ns;
        let clock = &mut self.server_mut(node).clock;
        clock.run_at(rate_permille, now_ns);
        clock.wall_ahead_ns = ahead_ns;
    }

    /// An operator asks for something, if there is somebody to ask.
    pub(crate) fn command(&mut self, command: Command) -> bool {
        let Some(leader) = self.raft.leader else { return false };
        let revision = self.map().revision;
        let by = self.server(leader).me;
        self.propose_to_leader(by, &command);
        self.map().revision != revision
    }

    /// Nobody is to leave any more.
    pub(crate) fn cancel_drains(&mut self) {
        for node in self.nodes() {
            if self.map().nodes[&node].standing == Standing::Draining {
                self.command(Command::CancelDrain { node });
            }
        }
    }

    // In the end.

    /// Asks for every key once more, and writes to each shard. What is answered is in `operations`, from the
    /// number returned on.
    pub(crate) fn scan(&mut self) -> usize {
        let first = self.operations.len();
        for key in 0..self.plan.keys {
            self.ask(self.plan.clients, key, Ask::Read);
        }
        for shard in 0..self.plan.shards.min(u16::from(self.plan.keys)) {
            let key = u8::try_from(shard).unwrap();
            self.ask(self.plan.clients, key, Ask::Set { ttl_ns: None });
        }
        first
    }

    /// What is not yet as it should be once all faults are over.
    pub(crate) fn unrest(&self) -> Result<(), String> {
        for (shard, place) in self.map().places() {
            let config = &place.config;
            let told = || {
                let stands: Vec<String> =
                    self.nodes().iter().map(|&node| self.stands(node, shard)).collect();
                format!("shard {shard}: {place:?}\n{}\nit", stands.join("\n"))
            };
            if !place.is_settled() || config.in_sync.len() != usize::from(self.plan.pool.copies) {
                return Err(format!("{} is not settled", told()));
            }
            let Some(primary) = config.primary.map(|node| self.copy(node, shard)) else {
                return Err(format!("{} is led by nobody", told()));
            };
            if !primary.replica.is_serving() {
                return Err(format!("{} is not served", told()));
            }
            for member in &config.in_sync {
                let copy = self.copy(member.node, shard);
                let is_equal = copy.store.history == primary.store.history
                    && copy.store.items == primary.store.items;
                if !is_equal || (0..self.plan.keys).any(|key| !copy.store.agrees_on(key)) {
                    let theirs = copy.replica.last();
                    let last = primary.replica.last();
                    return Err(format!(
                        "{} has at {member:?} another copy, {theirs} and {last}",
                        told()
                    ));
                }
            }
        }
        Ok(())
    }

    /// How a copy stands, for people.
    fn stands(&self, node: NodeId, shard: ShardId) -> String {
        let Server { me, applied, .. } = self.server(node);
        let replica = &self.copy(node, shard).replica;
        let known = &self.map().nodes[&node];
        format!(
            "  {node}@{} {} of epoch {}, last {}, committed {}, sealed {}, followed by {:?}, joined by \
             {:?}, of map {applied} of {}, recovered {:?}",
            me.incarnation.0,
            replica.role_name(),
            replica.config().epoch,
            replica.last(),
            replica.committed().0,
            replica.is_sealed(),
            replica.lagging(),
            replica.joiners(),
            self.raft.maps.len() - 1,
            known.recovered.get(&shard),
        )
    }

    /// The logs of all shards, as their primaries have them.
    pub(crate) fn logs(&self) -> Vec<Vec<Write>> {
        let places = self.map().places();
        let leaders = places.filter_map(|(shard, place)| Some((shard, place.config.primary?)));
        leaders.map(|(shard, node)| self.copy(node, shard).store.history.clone()).collect()
    }
}

fn whole(store: Store) -> Store {
    Store { is_whole: true, ..store }
}

/// A clock within half a percent of the true rate, that began anywhere.
fn some_clock(random: &mut Random) -> Clock {
    Clock {
        offset_ns: random.between(1_000, 1_000_000) * MS,
        rate_permille: random.between(996, 1004),
        wall_ahead_ns: some_minute(random),
    }
}

fn some_minute(random: &mut Random) -> u64 {
    match random.permille(800) {
        true => random.between(29_500, 30_500) * MS,
        false => random.between(0, 60_000) * MS,
    }
}
