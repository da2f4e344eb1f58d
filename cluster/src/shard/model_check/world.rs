//! A small world: a few replicas, what flies between them, the map, the leases, and what must hold.
//!
//! A world is a handful of numbers: whatever is large (a replica with its history, a message) is interned and
//! stands as its number, so that millions of worlds fit and each is compared at once.
//!
//! - What was sent arrives at any later time, in any order, once or never; a few times twice. Only `Join` and
//!   the `Complete` that follows come in their order, once, or not at all.
//! - A node hears of any configuration that the map ever had, in ascending order, with gaps or without.
//! - A lease ends when it suits the adversary: for whom it binds never before its holder's. Both ends at
//!   once are enough: a holder that counts on less, and a granter bound for longer, can do nothing more.
//! - A crashed node comes back empty at once, in a new life that the map knows of.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use bytes::Bytes;

use crate::map::{Reconfigure, ShardConfig};
use crate::message::Message;
use crate::pool::Ack;
use crate::shard::{Effect, Grants, Input, Log, Replica, Returned, Rule};
use crate::{Epoch, Incarnation, Member, NodeId, ShardId, Version};

/// A write as the model knows it: its version, and which of the world's writes it is.
pub(super) type Write = (Version, u8);

/// How often something may happen in a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    pub(super) writes: u8,
    pub(super) campaigns: u8,
    pub(super) losses: u8,
    pub(super) hand_overs: u8,
    pub(super) crashes: u8,
    pub(super) warm_crashes: u8,
    pub(super) returns: u8,
    pub(super) joins: u8,
    pub(super) retries: u8,
    pub(super) reconnects: u8,
    pub(super) renewals: u8,
    pub(super) duplicates: u8,
}

/// Where a world begins: nodes 1 to `in_sync` in sync under node 1, the others outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) nodes: u32,
    pub(super) in_sync: u32,
    pub(super) ack: Ack,
    pub(super) budget: Budget,
    pub(super) broken: Option<Rule>,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// What flies as this number arrives.
    Deliver(u32),
    /// The same, and it goes on flying.
    Duplicate(u32),
    /// The same, and just before it the receiver's promise to the node ends.
    DeliverUnbound(u32, NodeId),
    /// A node hears of the configuration with this index.
    Learn(NodeId, usize),
    Write(NodeId),
    Campaign(NodeId),
    /// The same, and just before it the promise to the primary ends.
    CampaignUnbound(NodeId, NodeId),
    /// The second, or all others, are lost.
    MemberLost(NodeId, NodeId),
    AllLost(NodeId),
    HandOver(NodeId, NodeId),
    /// The node begins a new life, empty or with what it had.
    Crash(NodeId),
    CrashWarm(NodeId),
    /// The first hears that the second's life has ended.
    Return(NodeId, NodeId),
    StartJoin(NodeId, NodeId),
    FinishJoin(NodeId, NodeId),
    AbortJoin(NodeId, NodeId),
    Retry(NodeId),
    Connected(NodeId, NodeId),
    /// The first grants the second a lease.
    Renew(NodeId, NodeId),
}

/// A node: its replica, and the history that a store behind it would have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Site {
    pub(super) replica: Replica,
    pub(super) history: Vec<Write>,
    /// Whether all of the history is here: not between a join's beginning and its end.
    is_whole: bool,
    /// How much of the history it found when it was appointed primary.
    inherited: usize,
    /// Where the log of the life before ended, as the map was told.
    recovered: Option<Version>,
}

/// What is on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Flying {
    Message { from: Member, to: NodeId, message: Message, copy: Option<Copy> },
    Proposal { by: Member, change: Reconfigure },
    Rejected { to: Member, config: ShardConfig },
}

/// What comes with a `Join` and a `Complete`: which of the sender's joins it is, and the sender's history.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Copy {
    number: u8,
    history: Vec<Write>,
}

/// The joins from one life to a node: how many began, and which was the last that arrived.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Lane {
    from: Member,
    to: NodeId,
    begun: u8,
    arrived: u8,
}

/// The state of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    sites: Vec<u32>,
    /// Ascending, each once.
    flying: Vec<u32>,
    /// All that the map had, the latest last.
    configs: Rc<Vec<ShardConfig>>,
    /// Holder and granter of each lease.
    leases: Rc<Vec<(NodeId, Member)>>,
    lanes: Rc<Vec<Lane>>,
    /// What was acknowledged, or read as committed.
    acknowledged: Rc<Vec<Write>>,
    written: Rc<Vec<Version>>,
    committers: Rc<Vec<(Epoch, NodeId)>>,
    left: Budget,
}

/// All sites and all that flew, by number.
pub(super) struct Universe {
    setup: Setup,
    sites: Interner<Site>,
    flying: Interner<Flying>,
}

struct Interner<T> {
    numbers: HashMap<Rc<T>, u32>,
    values: Vec<Rc<T>>,
}

impl<T: Hash + Eq> Interner<T> {
    fn new() -> Self {
        Self { numbers: HashMap::new(), values: Vec::new() }
    }

    fn intern(&mut self, value: T) -> u32 {
        if let Some(&number) = self.numbers.get(&value) {
            return number;
        }
        let number = u32::try_from(self.values.len()).unwrap();
        let value = Rc::new(value);
        self.values.push(Rc::clone(&value));
        self.numbers.insert(value, number);
        number
    }

    fn get(&self, number: u32) -> Rc<T> {
        Rc::clone(&self.values[number as usize])
    }
}

/// The leases of one node, as a replica asks for them.
struct Held<'a> {
    me: Member,
    leases: &'a [(NodeId, Member)],
}

impl Grants for Held<'_> {
    fn binds_towards(&self, node: NodeId) -> bool {
        self.leases.contains(&(node, self.me))
    }

    fn holds_from(&self, member: Member) -> bool {
        self.leases.contains(&(self.me.node, member))
    }
}

/// In which every world comes to rest, with a few to spare.
const RECOVERY_ROUNDS: u32 = 24;

/// The first life of a node.
fn first_life(node: u32) -> Member {
    Member { node: NodeId(node), incarnation: Incarnation(1) }
}

fn index(node: NodeId) -> usize {
    node.0 as usize - 1
}

impl Universe {
    pub(super) fn new(setup: Setup) -> Self {
        Self { setup, sites: Interner::new(), flying: Interner::new() }
    }

    /// The world at its beginning: everyone knows the first configuration, and the primary serves.
    pub(super) fn genesis(&mut self) -> World {
        let members: Vec<Member> = (1..=self.setup.in_sync).map(first_life).collect();
        let config =
            ShardConfig { epoch: Epoch(1), primary: Some(NodeId(1)), in_sync: members.clone() };
        let everyone = || (1..=self.setup.nodes).map(first_life);
        let leases = everyone()
            .flat_map(|holder| everyone().map(move |granter| (holder.node, granter)))
            .filter(|(holder, granter)| *holder != granter.node)
            .collect();
        let blank: Vec<Site> = everyone().map(|me| self.blank(me)).collect();
        let sites = blank.into_iter().map(|site| self.sites.intern(site)).collect();
        let mut world = World {
            sites,
            flying: Vec::new(),
            configs: Rc::new(vec![config]),
            leases: Rc::new(leases),
            lanes: Rc::default(),
            acknowledged: Rc::default(),
            written: Rc::default(),
            committers: Rc::default(),
            left: self.setup.budget,
        };
        for node in (1..=self.setup.nodes).map(NodeId) {
            world = self.apply(&world, Action::Learn(node, 0)).unwrap().unwrap_or(world);
        }
        self.deliver_all(&mut world).unwrap();
        world
    }

    fn blank(&self, me: Member) -> Site {
        let mut replica = Replica::new(ShardId(0), me, self.setup.ack, Version::ZERO);
        replica.broken = self.setup.broken;
        Site { replica, history: Vec::new(), is_whole: true, inherited: 0, recovered: None }
    }

    pub(super) fn site(&self, world: &World, node: NodeId) -> Rc<Site> {
        self.sites.get(world.sites[index(node)])
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.setup.nodes).map(NodeId)
    }

    /// All that could happen next.
    pub(super) fn actions(&self, world: &World) -> Vec<Action> {
        let mut actions = Vec::new();
        for &number in &world.flying {
            actions.push(Action::Deliver(number));
            if world.left.duplicates > 0 {
                actions.push(Action::Duplicate(number));
            }
            if let Flying::Message { to, message: Message::Seal(seal), .. } =
                &*self.flying.get(number)
                && self.binds(world, *to, seal.primary)
            {
                actions.push(Action::DeliverUnbound(number, seal.primary));
            }
        }
        let left = &world.left;
        for node in self.nodes() {
            let site = self.site(world, node);
            let replica = &site.replica;
            for (at, config) in world.configs.iter().enumerate() {
                if config.epoch > replica.config.epoch {
                    actions.push(Action::Learn(node, at));
                }
            }
            if left.writes > 0 && replica.is_serving() {
                actions.push(Action::Write(node));
            }
            if left.campaigns > 0 && replica.is_in_sync() && !replica.is_primary() {
                actions.push(Action::Campaign(node));
                if let Some(primary) = replica.config.primary
                    && self.binds(world, node, primary)
                {
                    actions.push(Action::CampaignUnbound(node, primary));
                }
            }
            if left.crashes > 0 {
                actions.push(Action::Crash(node));
            }
            if left.warm_crashes > 0 && site.is_whole {
                actions.push(Action::CrashWarm(node));
            }
            if left.retries > 0 && replica.has_open_business() {
                actions.push(Action::Retry(node));
            }
            if left.losses > 0 && replica.is_primary() && replica.config.in_sync.len() > 2 {
                actions.push(Action::AllLost(node));
            }
            for other in self.nodes().filter(|&other| other != node) {
                if left.renewals > 0 && self.may_renew(world, node, other) {
                    actions.push(Action::Renew(node, other));
                }
                if left.returns > 0
                    && replica.is_candidate()
                    && self.has_ended(world, replica, other)
                {
                    actions.push(Action::Return(node, other));
                }
                if !replica.is_primary() {
                    continue;
                }
                let is_member = replica.config.in_sync.iter().any(|it| it.node == other);
                let is_joiner = replica.joiners().iter().any(|it| it.node == other);
                if left.losses > 0 && (is_member || is_joiner) {
                    actions.push(Action::MemberLost(node, other));
                }
                if left.hand_overs > 0 && is_member {
                    actions.push(Action::HandOver(node, other));
                }
                if left.joins > 0 {
                    actions.push(Action::StartJoin(node, other));
                }
                if is_joiner {
                    actions.push(Action::FinishJoin(node, other));
                }
                if left.reconnects > 0 && (is_member || is_joiner) {
                    actions.push(Action::Connected(node, other));
                    if is_joiner {
                        actions.push(Action::AbortJoin(node, other));
                    }
                }
            }
        }
        actions
    }

    fn binds(&self, world: &World, granter: NodeId, holder: NodeId) -> bool {
        let granter = self.site(world, granter).replica.me;
        world.leases.contains(&(holder, granter))
    }

    fn may_renew(&self, world: &World, granter: NodeId, holder: NodeId) -> bool {
        let (site, other) = (self.site(world, granter), self.site(world, holder));
        !self.binds(world, granter, holder)
            && site.replica.withholds_from() != Some(holder)
            && other.replica.config.epoch >= site.replica.config.epoch
    }

    /// The world after `action`; `None` when nothing comes of it.
    pub(super) fn apply(&mut self, world: &World, action: Action) -> Result<Option<World>, String> {
        let mut next = world.clone();
        match action {
            Action::Deliver(number) => {
                next.flying.retain(|&it| it != number);
                self.deliver(&mut next, number)?;
            }
            Action::Duplicate(number) => {
                next.left.duplicates -= 1;
                self.deliver(&mut next, number)?;
            }
            Action::DeliverUnbound(number, holder) => {
                let flying = self.flying.get(number);
                let Flying::Message { to, .. } = &*flying else { unreachable!("only a message") };
                self.end_lease(&mut next, holder, *to);
                next.flying.retain(|&it| it != number);
                self.deliver(&mut next, number)?;
            }
            Action::Learn(node, at) => {
                let config = world.configs[at].clone();
                self.input(&mut next, node, Input::Configured(config))?;
            }
            Action::Write(node) => {
                next.left.writes -= 1;
                self.write(&mut next, node)?;
            }
            Action::Campaign(node) => {
                next.left.campaigns -= 1;
                self.input(&mut next, node, Input::Campaign)?;
            }
            Action::CampaignUnbound(node, holder) => {
                next.left.campaigns -= 1;
                self.end_lease(&mut next, holder, node);
                self.input(&mut next, node, Input::Campaign)?;
            }
            Action::MemberLost(node, other) => {
                next.left.losses -= 1;
                let replica = &self.site(&next, node).replica;
                let joiners = replica.joiners();
                let known = replica.config.in_sync.iter().chain(&joiners);
                let lost = known.copied().filter(|it| it.node == other).collect();
                self.input(&mut next, node, Input::MembersLost(lost))?;
            }
            Action::AllLost(node) => {
                next.left.losses -= 1;
                let in_sync = &self.site(&next, node).replica.config.in_sync;
                let lost = in_sync.iter().copied().filter(|it| it.node != node).collect();
                self.input(&mut next, node, Input::MembersLost(lost))?;
            }
            Action::HandOver(node, other) => {
                next.left.hand_overs -= 1;
                self.input(&mut next, node, Input::HandOver(other))?;
            }
            Action::Crash(node) => {
                next.left.crashes -= 1;
                self.crash(&mut next, node, false);
            }
            Action::CrashWarm(node) => {
                next.left.warm_crashes -= 1;
                self.crash(&mut next, node, true);
            }
            Action::Return(node, other) => {
                next.left.returns -= 1;
                let returned = self.returned(&next, other);
                self.input(&mut next, node, Input::Returned(returned))?;
            }
            Action::StartJoin(node, other) => {
                next.left.joins -= 1;
                let joiner = self.site(&next, other).replica.me;
                self.input(&mut next, node, Input::StartJoin(joiner))?;
            }
            Action::FinishJoin(node, other) => {
                self.input(&mut next, node, Input::FinishJoin(other))?;
            }
            Action::AbortJoin(node, other) => {
                next.left.reconnects -= 1;
                self.input(&mut next, node, Input::AbortJoin(other))?;
            }
            Action::Retry(node) => {
                next.left.retries -= 1;
                self.input(&mut next, node, Input::Retry)?;
            }
            Action::Connected(node, other) => {
                next.left.reconnects -= 1;
                self.input(&mut next, node, Input::Connected(other))?;
            }
            Action::Renew(granter, holder) => {
                next.left.renewals -= 1;
                let granter = self.site(&next, granter).replica.me;
                let leases = Rc::make_mut(&mut next.leases);
                leases.push((holder, granter));
                leases.sort_unstable();
            }
        }
        self.check(&mut next)?;
        self.clear(&mut next);
        // What only spends budget or loses a message leads nowhere that its beginning does not lead.
        let is_idle = next.flying.iter().all(|it| world.flying.binary_search(it).is_ok())
            && World { left: world.left, flying: world.flying.clone(), ..next.clone() } == *world;
        if is_idle {
            return Ok(None);
        }
        Ok(Some(next))
    }

    /// Takes out of the air what can have no effect any more, so that worlds that differ in that alone are
    /// one.
    fn clear(&self, world: &mut World) {
        let mut flying = std::mem::take(&mut world.flying);
        flying.retain(|&number| self.is_live(world, &self.flying.get(number)));
        world.flying = flying;
    }

    /// Whether something may still come of what flies. Epochs and promises grow while a node lives, and a
    /// later life leads no epoch of an earlier one.
    fn is_live(&self, world: &World, flying: &Flying) -> bool {
        let epoch_of = |node: NodeId| self.site(world, node).replica.config.epoch;
        let lives = |member: Member| self.site(world, member.node).replica.me == member;
        match flying {
            Flying::Message { from, to, message, .. } => match message {
                Message::Append(append) => {
                    append.epoch >= epoch_of(*to)
                        || (lives(*from) && append.epoch >= epoch_of(from.node))
                }
                Message::Join { epoch, .. } | Message::Complete { epoch, .. } => {
                    *epoch >= epoch_of(*to)
                }
                Message::Appended { epoch, .. }
                | Message::Mismatch { epoch, .. }
                | Message::Joined { epoch, .. } => *epoch >= epoch_of(*to),
                Message::Seal(seal) => seal.from >= epoch_of(*to),
                Message::Sealed { ballot, .. } | Message::SealRefused { ballot, .. } => {
                    *ballot > epoch_of(*to)
                        && *ballot >= self.site(world, *to).replica.promise.epoch
                }
            },
            Flying::Proposal { by, change } => {
                let now = world.configs.last().unwrap().epoch;
                change.from == now || (lives(*by) && change.from >= epoch_of(by.node))
            }
            Flying::Rejected { to, config } => lives(*to) && config.epoch > epoch_of(to.node),
        }
    }

    fn end_lease(&self, world: &mut World, holder: NodeId, granter: NodeId) {
        let granter = self.site(world, granter).replica.me;
        Rc::make_mut(&mut world.leases).retain(|&lease| lease != (holder, granter));
    }

    fn crash(&mut self, world: &mut World, node: NodeId, is_warm: bool) {
        let before = self.site(world, node);
        let incarnation = Incarnation(before.replica.me.incarnation.0 + 1);
        let mut site = self.blank(Member { node, incarnation });
        if is_warm {
            let position = before.replica.position();
            site.replica.log = Log::at(position);
            site.history.clone_from(&before.history);
            site.recovered = Some(position).filter(|it| *it != Version::ZERO);
        }
        world.sites[index(node)] = self.sites.intern(site);
        // What others granted it is gone; what it granted is kept for ever by one who does nothing more.
        Rc::make_mut(&mut world.leases).retain(|&(holder, _)| holder != node);
    }

    /// Whether a replica counts on an earlier life of `other`.
    fn has_ended(&self, world: &World, replica: &Replica, other: NodeId) -> bool {
        let present = self.site(world, other).replica.me;
        replica.config.member(other).is_some_and(|it| it != present)
    }

    fn returned(&self, world: &World, node: NodeId) -> Returned {
        let site = self.site(world, node);
        Returned { member: site.replica.me, last: site.recovered }
    }

    fn deliver(&mut self, world: &mut World, number: u32) -> Result<(), String> {
        match &*self.flying.get(number) {
            Flying::Message { from, to, message, copy } => {
                if let Some(copy) = copy {
                    let is_join = matches!(message, Message::Join { .. });
                    let lanes = Rc::make_mut(&mut world.lanes);
                    let lane =
                        lanes.iter_mut().find(|lane| lane.from == *from && lane.to == *to).unwrap();
                    let is_due = if is_join {
                        copy.number > lane.arrived
                    } else {
                        copy.number == lane.arrived
                    };
                    if !is_due {
                        return Ok(());
                    }
                    lane.arrived = copy.number;
                }
                let input = Input::Received { from: *from, message: message.clone() };
                self.input_with(world, *to, input, copy.as_ref())
            }
            Flying::Proposal { by, change } => {
                let (by, change) = (*by, change.clone());
                if self.accepts(world, &change) {
                    Rc::make_mut(&mut world.configs).push(change.to);
                } else {
                    self.launch(world, Flying::Rejected { to: by, config: change.to });
                }
                Ok(())
            }
            Flying::Rejected { to, config } => {
                if self.site(world, to.node).replica.me != *to {
                    return Ok(());
                }
                self.input(world, to.node, Input::Rejected(config.clone()))
            }
        }
    }

    /// What the map's machine says to a proposal.
    fn accepts(&self, world: &World, change: &Reconfigure) -> bool {
        let now = world.configs.last().unwrap();
        let is_known = |member: &Member| {
            now.in_sync.contains(member) || self.site(world, member.node).replica.me == *member
        };
        now.epoch == change.from
            && change.to.epoch > now.epoch
            && change.to.in_sync.iter().all(is_known)
    }

    fn launch(&mut self, world: &mut World, flying: Flying) {
        let number = self.flying.intern(flying);
        if let Err(at) = world.flying.binary_search(&number) {
            world.flying.insert(at, number);
        }
    }

    fn input(&mut self, world: &mut World, node: NodeId, input: Input) -> Result<(), String> {
        self.input_with(world, node, input, None)
    }

    fn input_with(
        &mut self,
        world: &mut World,
        node: NodeId,
        input: Input,
        copy: Option<&Copy>,
    ) -> Result<(), String> {
        let mut site = (*self.site(world, node)).clone();
        let was_primary = site.replica.is_primary();
        let is_join = matches!(&input, Input::Received { message: Message::Join { .. }, .. });
        let before = copy.map(|_| site.replica.clone());
        let mut effects = Vec::new();
        let leases = Rc::clone(&world.leases);
        let grants = Held { me: site.replica.me, leases: &leases };
        catch_unwind(AssertUnwindSafe(|| site.replica.step(input, &grants, &mut effects)))
            .map_err(|_| format!("node {node} panics"))?;
        // What is refused leaves the replica as it was.
        if let Some(copy) = copy.filter(|_| before.is_some_and(|before| before != site.replica)) {
            site.is_whole = !is_join;
            if is_join {
                site.history.clone_from(&copy.history);
            }
        }
        if !was_primary && site.replica.is_primary() {
            site.inherited = site.history.len();
        }
        self.settle(world, node, site, effects)
    }

    fn write(&mut self, world: &mut World, node: NodeId) -> Result<(), String> {
        let mut site = (*self.site(world, node)).clone();
        let number = u8::try_from(world.written.len() + 1).unwrap();
        let mut effects = Vec::new();
        let version = site.replica.next_version();
        site.history.push((version, number));
        site.replica.write(Bytes::copy_from_slice(&[number]), &mut effects);
        if world.written.contains(&version) {
            return Err(format!("node {node} gives version {version} to a second write"));
        }
        Rc::make_mut(&mut world.written).push(version);
        self.settle(world, node, site, effects)
    }

    /// Carries out what a replica asked for.
    fn settle(
        &mut self,
        world: &mut World,
        node: NodeId,
        mut site: Site,
        effects: Vec<Effect>,
    ) -> Result<(), String> {
        let me = site.replica.me;
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    let copy = self.copy_for(world, &site, to, &message);
                    self.launch(world, Flying::Message { from: me, to, message, copy });
                }
                Effect::Apply(entry) => site.history.push((entry.version, entry.op[0])),
                Effect::Committed(through) => {
                    let epoch = site.replica.config.epoch;
                    let committers = Rc::make_mut(&mut world.committers);
                    if committers.iter().any(|&(it, by)| it == epoch && by != node) {
                        return Err(format!("a second node commits in epoch {epoch}: {node}"));
                    }
                    if !committers.contains(&(epoch, node)) {
                        committers.push((epoch, node));
                        committers.sort_unstable();
                    }
                    let upto = |write: &&Write| write.0.sequence() <= through;
                    acknowledge(world, site.history.iter().filter(upto));
                }
                Effect::Propose(change) => {
                    self.launch(world, Flying::Proposal { by: me, change });
                }
                Effect::Serves | Effect::Deposed => {}
            }
        }
        world.sites[index(node)] = self.sites.intern(site);
        Ok(())
    }

    fn copy_for(
        &self,
        world: &mut World,
        site: &Site,
        to: NodeId,
        message: &Message,
    ) -> Option<Copy> {
        let from = site.replica.me;
        let is_join = matches!(message, Message::Join { .. });
        if !is_join && !matches!(message, Message::Complete { .. }) {
            return None;
        }
        let lanes = Rc::make_mut(&mut world.lanes);
        let at = lanes.iter().position(|it| it.from == from && it.to == to).unwrap_or_else(|| {
            lanes.push(Lane { from, to, begun: 0, arrived: 0 });
            lanes.len() - 1
        });
        if is_join {
            lanes[at].begun += 1;
        }
        let history = if is_join { site.history.clone() } else { Vec::new() };
        Some(Copy { number: lanes[at].begun, history })
    }

    /// What must hold in every world.
    fn check(&self, world: &mut World) -> Result<(), String> {
        let now = world.configs.last().unwrap().clone();
        let sites: Vec<Rc<Site>> = self.nodes().map(|node| self.site(world, node)).collect();
        for site in &sites {
            let grants = Held { me: site.replica.me, leases: &world.leases };
            let me = site.replica.me;
            if site.replica.is_in_sync() && !site.is_whole {
                return Err(format!("node {} is in sync with half a copy", me.node));
            }
            if site.replica.is_serving() && site.replica.may_read(&grants) {
                let lost = world.acknowledged.iter().find(|it| !site.history.contains(it));
                if let Some((version, _)) = lost {
                    return Err(format!(
                        "node {} answers reads without {version}, which is acknowledged",
                        me.node
                    ));
                }
                acknowledge(world, site.history.iter().take(site.inherited));
            }
        }
        for site in &sites {
            let me = site.replica.me;
            let leads = now.primary == Some(me.node) && now.in_sync.contains(&me) || {
                // In a world without rule 2 the wrong life may lead.
                now.primary == Some(me.node) && site.replica.config == now
            };
            if leads && site.replica.is_serving() {
                if !site.is_whole {
                    return Err(format!("node {} leads with half a copy", me.node));
                }
                let lost = world.acknowledged.iter().find(|it| !site.history.contains(it));
                if let Some((version, _)) = lost {
                    return Err(format!(
                        "node {} leads without {version}, which is acknowledged",
                        me.node
                    ));
                }
            }
        }
        for (at, one) in sites.iter().enumerate() {
            for other in &sites[at + 1..] {
                agree(one, other)?;
            }
        }
        Ok(())
    }

    /// Whether a world whose faults are over comes to serve from every node that can: all that flew is lost,
    /// and the driver goes on as it should.
    pub(super) fn check_recovery(&mut self, world: &World) -> Result<(), String> {
        let mut world = world.clone();
        world.flying.clear();
        for round in 0..RECOVERY_ROUNDS {
            if self.is_beyond_recovery(&world) || self.is_at_rest(&world) {
                return Ok(());
            }
            self.drive(&mut world, round)?;
        }
        Err(format!("no rest after {RECOVERY_ROUNDS} rounds:\n{}", self.picture(&world)))
    }

    /// One round of a driver whose nodes all live and hear each other.
    fn drive(&mut self, world: &mut World, round: u32) -> Result<(), String> {
        let latest = world.configs.last().unwrap().clone();
        for node in self.nodes() {
            self.input(world, node, Input::Configured(latest.clone()))?;
            if self.site(world, node).replica.has_open_business() {
                self.input(world, node, Input::Retry)?;
            }
            self.deliver_all(world)?;
        }
        let latest = world.configs.last().unwrap().clone();
        let lives = |universe: &Self, world: &World, member: Member| {
            universe.site(world, member.node).replica.me == member
        };
        let Some(primary) = latest.primary else { return Ok(()) };
        let leader = latest.in_sync.iter().find(|it| it.node == primary).copied();
        if !leader.is_some_and(|leader| lives(self, world, leader)) {
            // The next in line seeks promotion, each in its turn.
            let line: Vec<Member> =
                latest.in_sync.iter().copied().filter(|&it| lives(self, world, it)).collect();
            for member in &line {
                self.end_lease(world, primary, member.node);
            }
            if let Some(next) = line.get(round as usize / 3 % line.len().max(1)) {
                self.input(world, next.node, Input::Campaign)?;
                for other in self.nodes() {
                    if self.has_ended(world, &self.site(world, next.node).replica, other) {
                        let returned = self.returned(world, other);
                        self.input(world, next.node, Input::Returned(returned))?;
                    }
                }
            }
            return self.deliver_all(world);
        }
        let joiners = self.site(world, primary).replica.joiners();
        let known = latest.in_sync.iter().chain(&joiners).copied();
        let lost: Vec<Member> = known.filter(|&it| !lives(self, world, it)).collect();
        if !lost.is_empty() {
            self.input(world, primary, Input::MembersLost(lost))?;
            self.deliver_all(world)?;
        }
        for node in self.nodes().filter(|&node| node != primary) {
            let joiner = self.site(world, node).replica.me;
            let latest = world.configs.last().unwrap();
            if !latest.in_sync.iter().any(|it| it.node == node) {
                self.input(world, primary, Input::StartJoin(joiner))?;
                self.deliver_all(world)?;
                self.input(world, primary, Input::FinishJoin(node))?;
                self.deliver_all(world)?;
            }
        }
        Ok(())
    }

    /// Whether too few of the in-sync set live, or have come back with what they had, for anyone to lead.
    fn is_beyond_recovery(&self, world: &World) -> bool {
        let latest = world.configs.last().unwrap();
        let lives = |it: &&Member| self.site(world, it.node).replica.me == **it;
        let living = latest.in_sync.iter().filter(lives).count();
        let is_back = |it: &&Member| !lives(it) && self.site(world, it.node).recovered.is_some();
        let back = latest.in_sync.iter().filter(is_back).count();
        let has_primary = latest.primary_member().is_some_and(|it| lives(&&it));
        let members = latest.in_sync.len();
        let enough = members + 1 - self.setup.ack.write_quorum(members);
        // Where nobody lives it is for the map to appoint somebody.
        !has_primary && (living == 0 || living + back < enough)
    }

    /// Whether the map's primary serves and everyone has all that it has.
    fn is_at_rest(&self, world: &World) -> bool {
        let latest = world.configs.last().unwrap();
        let Some(primary) = latest.primary.map(|node| self.site(world, node)) else { return false };
        primary.replica.is_serving()
            && primary.replica.committed == primary.replica.last().sequence()
            && !primary.replica.has_open_business()
            && self.nodes().map(|node| self.site(world, node)).all(|site| {
                site.replica.config == *latest
                    && latest.in_sync.contains(&site.replica.me)
                    && !site.replica.is_sealed()
                    && site.history == primary.history
                    && site.replica.last() == primary.replica.last()
            })
    }

    /// Delivers what flies, the oldest first, and what comes of it, until nothing flies any more.
    fn deliver_all(&mut self, world: &mut World) -> Result<(), String> {
        for _ in 0..1000 {
            let Some(&number) = world.flying.first() else { return Ok(()) };
            world.flying.remove(0);
            self.deliver(world, number)?;
            self.check(world)?;
        }
        Err("messages never end".into())
    }

    /// How an action reads.
    pub(super) fn describe(&self, world: &World, action: Action) -> String {
        match action {
            Action::Deliver(number) => format!("{}", self.flying.get(number)),
            Action::DeliverUnbound(number, holder) => {
                format!("its promise to {holder} ends, then {}", self.flying.get(number))
            }
            Action::Learn(node, at) => {
                let config = &world.configs[at];
                format!("{node} learns {}", told(config))
            }
            other => format!("{other:?}"),
        }
    }

    /// How a world reads.
    pub(super) fn picture(&self, world: &World) -> String {
        let mut lines = format!("map: {}\n", told(world.configs.last().unwrap()));
        for node in self.nodes() {
            let site = self.site(world, node);
            let replica = &site.replica;
            lines += &format!(
                "  {node}@{} {} of {}, promised {:?}, committed {}, history {:?}\n",
                replica.me.incarnation.0,
                replica.role_name(),
                told(&replica.config),
                replica.promise,
                replica.committed.0,
                site.history,
            );
        }
        lines + &format!("  acknowledged {:?}", world.acknowledged)
    }
}

fn acknowledge<'a>(world: &mut World, writes: impl Iterator<Item = &'a Write>) {
    for &write in writes {
        if let Err(at) = world.acknowledged.binary_search(&write) {
            Rc::make_mut(&mut world.acknowledged).insert(at, write);
        }
    }
}

/// Two histories that have a version in common are equal up to it.
fn agree(one: &Site, other: &Site) -> Result<(), String> {
    let common = one
        .history
        .iter()
        .rposition(|(version, _)| other.history.iter().any(|(theirs, _)| theirs == version));
    let Some(at) = common else { return Ok(()) };
    if other.history.get(at) == one.history.get(at) && one.history[..=at] == other.history[..=at] {
        return Ok(());
    }
    let (a, b) = (one.replica.me.node, other.replica.me.node);
    Err(format!("{a} and {b} have {} in common and differ before", one.history[at].0))
}

/// A configuration in short.
fn told(config: &ShardConfig) -> String {
    let members: Vec<String> = config
        .in_sync
        .iter()
        .map(|member| format!("{}@{}", member.node, member.incarnation.0))
        .collect();
    let primary = config.primary.map_or_else(|| "nobody".into(), |node| node.to_string());
    format!("epoch {} led by {primary} with {}", config.epoch, members.join(" "))
}

impl fmt::Display for Flying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message { from, to, message, .. } => {
                write!(f, "{to} hears {}@{}: {message:?}", from.node, from.incarnation.0)
            }
            Self::Proposal { by, change } => {
                let from = change.from;
                write!(f, "the map is asked by {} for {} after {from}", by.node, told(&change.to))
            }
            Self::Rejected { to, config } => {
                write!(f, "{} hears that the map refused {}", to.node, told(config))
            }
        }
    }
}
