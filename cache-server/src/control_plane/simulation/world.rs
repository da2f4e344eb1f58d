//! The nodes in one loop: letters that have arrived, then a turn of each node, a step of time at a time.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use cluster::map::{
    Addresses, Command, NewNode, Outcome, Reconfigure, Refusal, Role, ShardConfig, Standing,
};
use cluster::pool::Pool;
use cluster::{ClusterId, Incarnation, NodeId, ShardId};
use openraft::raft::AppendEntriesResponse;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::{Instant, advance, sleep, sleep_until};

use super::disk::{Ailment, Lie, SimulatedDisk};
use super::history::History;
use super::network::{Incoming, Letter, MS, Network, Outbox, Outgoing, Port, Weather};
use super::random::Random;
use crate::control_plane::network::Response;
use crate::control_plane::raft::Breach;
use crate::control_plane::{
    ControlPlane, Failure, Identity, OpenError, RaftControlPlane, Settings, StartError, Storage,
};

/// From one look at the network to the next.
const STEP_US: u64 = 2 * MS;
const CLUSTER: ClusterId = ClusterId(7);
const FOUNDER: NodeId = NodeId(1);
const SHARDS: u16 = 64;
/// A map has room for 256, and forgets the oldest to take another.
const TOKENS_MAX: usize = 200;
/// Clocks go by the world's.
const RATE: u64 = 1_000;

/// Who and what is simulated.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) voters: usize,
    pub(super) learners: u64,
    pub(super) snapshot_entries: u64,
    pub(super) lie: Option<Lie>,
    pub(super) breach: Option<Breach>,
}

/// What an operator wants done, by whichever node gets to it.
#[derive(Default)]
struct Wishes {
    remove: Option<NodeId>,
    add: Option<u64>,
    added: Option<NodeId>,
    drain: Option<NodeId>,
    no_drains: bool,
}

/// What all nodes see.
struct Common {
    plan: Plan,
    history: Arc<Mutex<History>>,
    /// Whom a failure detector would see.
    alive: Mutex<BTreeSet<NodeId>>,
    voters_max: AtomicUsize,
    wishes: Mutex<Wishes>,
    clients_run: AtomicBool,
    /// Whether faults are over.
    is_healed: AtomicBool,
    /// Of those that began since then: whose proposals were answered, and whose reads.
    served: Mutex<(BTreeSet<NodeId>, BTreeSet<NodeId>)>,
    tokens: AtomicUsize,
}

/// One life of a node's process.
struct Life {
    common: Arc<Common>,
    node: NodeId,
    number: u64,
    disk: SimulatedDisk,
    outbox: Outbox,
    seed: u64,
    plane: Mutex<Option<Arc<RaftControlPlane>>>,
    /// Why it ended.
    end: Mutex<Option<End>>,
}

#[derive(Debug)]
enum End {
    /// It cannot go on, for this reason.
    Failed(&'static str),
    /// It does not start.
    Refused(String),
}

/// What runs a node.
struct Process {
    life: Arc<Life>,
    runtime: Runtime,
    inbox: mpsc::UnboundedSender<Incoming>,
    /// What its clock said first.
    origin: Instant,
    /// How far its clock has come since then.
    clock_us: u64,
}

struct Node {
    disk: SimulatedDisk,
    lives: u64,
    process: Option<Process>,
    /// When it is started again; `None` while it runs, and for good once it is gone.
    starts_us: Option<u64>,
    paused_until_us: Option<u64>,
    disk_mends_us: Option<u64>,
    /// When it hears that it was removed, and ends.
    ends_us: Option<u64>,
    /// By how much its clock goes, in thousandths.
    rate: u64,
    /// Whether its file is damaged before it starts again.
    is_damaged: bool,
}

pub(super) struct World {
    pub(super) now_us: u64,
    pub(super) history: Arc<Mutex<History>>,
    pub(super) faults: BTreeMap<&'static str, u64>,
    random: Random,
    network: Network,
    nodes: BTreeMap<NodeId, Node>,
    common: Arc<Common>,
    /// Who is being replaced.
    replaced: Option<NodeId>,
    requests: u64,
    harm: u64,
}

thread_local! {
    /// Whether something that the world runs on this thread has panicked.
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// Openraft's tasks take their panics with them: one that has none to tell would look like one that hangs.
fn notice_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICKED.set(true);
            before(info);
        }));
    });
}

impl World {
    pub(super) fn new(plan: Plan, seed: u64) -> Self {
        notice_panics();
        PANICKED.set(false);
        let history = Arc::new(Mutex::new(History::default()));
        let common = Common {
            voters_max: AtomicUsize::new(plan.voters),
            plan,
            history: Arc::clone(&history),
            alive: Mutex::default(),
            wishes: Mutex::default(),
            clients_run: AtomicBool::new(true),
            is_healed: AtomicBool::new(false),
            served: Mutex::default(),
            tokens: AtomicUsize::new(0),
        };
        let mut world = Self {
            now_us: 0,
            history,
            faults: BTreeMap::new(),
            random: Random::of_seed(seed),
            network: Network::new(),
            nodes: BTreeMap::new(),
            common: Arc::new(common),
            replaced: None,
            requests: 0,
            harm: 0,
        };
        world.join(FOUNDER);
        world
    }

    /// What went wrong, for a run in which nothing did is no test.
    pub(super) fn harm(&self) -> u64 {
        let disks: u64 = self.nodes.values().map(|node| node.disk.failed()).sum();
        self.harm + self.network.harm + disks
    }

    fn join(&mut self, id: NodeId) {
        let disk = SimulatedDisk::new(self.random.below(u64::MAX), self.common.plan.lie);
        let node = Node {
            disk,
            lives: 0,
            process: None,
            starts_us: Some(self.now_us),
            paused_until_us: None,
            disk_mends_us: None,
            ends_us: None,
            rate: RATE,
            is_damaged: false,
        };
        self.nodes.insert(id, node);
    }

    /// Steps until `until_us`, or until something happens that must not.
    pub(super) fn run_until(&mut self, until_us: u64) -> Result<(), String> {
        while self.now_us < until_us {
            self.step();
            if PANICKED.get() {
                return Err("something panicked".into());
            }
            if let Some(violation) = self.history.lock().violation.take() {
                return Err(format!("at {} ms: {violation}", self.now_us / MS));
            }
        }
        Ok(())
    }

    /// Steps until nothing is missing.
    pub(super) fn run_until_it(
        &mut self,
        does: &str,
        within_us: u64,
        missing: impl Fn(&Self) -> Option<String>,
    ) -> Result<(), String> {
        let until_us = self.now_us + within_us;
        while let Some(why) = missing(self) {
            if self.now_us >= until_us {
                return Err(format!("the cluster never {does}: {why}; {}", self.told()));
            }
            self.run_until(self.now_us + 20 * MS)?;
        }
        Ok(())
    }

    fn step(&mut self) {
        self.now_us += STEP_US;
        while let Some(letter) = self.network.arrival(self.now_us) {
            self.deliver(letter);
        }
        self.steer();
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            self.turn(id);
        }
    }

    fn deliver(&mut self, letter: Letter) {
        let mut history = self.history.lock();
        match letter {
            Letter::Call { call, from, to, request } => {
                history.trace(&[4, call, from.0.into(), to.0.into(), request.len() as u64]);
                let process = self.nodes.get(&to).and_then(|node| node.process.as_ref());
                let incoming = Incoming { call, from, request };
                if process.is_none_or(|process| process.inbox.send(incoming).is_err()) {
                    self.network.refuse(self.now_us, call, to);
                }
            }
            Letter::Answer { call, from, to, response } => {
                history.trace(&[5, call, from.0.into(), to.0.into()]);
                self.network.complete(call, response);
            }
            Letter::NobodyThere { call, to } => {
                history.trace(&[6, call, to.0.into()]);
                self.network.complete(call, None);
            }
        }
    }

    /// What happens around the nodes: who is known to be alive, who was added and removed.
    fn steer(&mut self) {
        let running = |(id, node): (&NodeId, &Node)| {
            (node.process.is_some() && node.paused_until_us.is_none()).then_some(*id)
        };
        *self.common.alive.lock() = self.nodes.iter().filter_map(running).collect();

        let added = self.common.wishes.lock().added.take();
        if let Some(added) = added {
            self.join(added);
        }
        let (map, membership, voters) = {
            let history = self.history.lock();
            (history.map(), history.membership().clone(), history.voters())
        };
        let standing = |id: NodeId| map.nodes.get(&id).map(|node| node.standing);
        for (id, node) in &mut self.nodes {
            if standing(*id) == Some(Standing::Removed) && node.ends_us.is_none() {
                node.ends_us = Some(self.now_us + self.random.between(0, 1_500) * MS);
            }
        }
        let wishes = self.common.wishes.lock();
        if let Some(old) = self.replaced
            && wishes.remove.is_none()
            && wishes.add.is_none()
            && !membership.contains(&old)
            && standing(old) == Some(Standing::Removed)
            && voters == Some(self.common.plan.voters)
        {
            self.replaced = None;
        }
        let all = self.common.plan.voters as u64 + self.common.plan.learners;
        if (self.nodes.len() as u64) < all && wishes.add.is_none() && map.is_founded() {
            drop(wishes);
            self.wish_for_another();
        }
    }

    fn wish_for_another(&mut self) {
        self.requests += 1;
        self.common.wishes.lock().add = Some(self.requests);
    }

    /// One node's share of a step.
    fn turn(&mut self, id: NodeId) {
        let now_us = self.now_us;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.ends_us.is_some_and(|at_us| at_us <= now_us) {
            node.ends_us = Some(u64::MAX);
            node.starts_us = None;
            self.end(id, false);
            return;
        }
        if node.disk_mends_us.is_some_and(|at_us| at_us <= now_us) {
            node.disk_mends_us = None;
            node.disk.mend();
        }
        if node.starts_us.is_some_and(|at_us| at_us <= now_us) {
            node.starts_us = None;
            self.start(id);
        }
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(process) = &mut node.process else { return };
        process.clock_us += STEP_US * node.rate / RATE;
        match node.paused_until_us {
            Some(until_us) if now_us < until_us => return,
            Some(_) => {
                // All that was due meanwhile is due at once.
                node.paused_until_us = None;
                let clock = process.origin + Duration::from_micros(process.clock_us);
                process.runtime.block_on(async { advance(clock - Instant::now()).await });
            }
            None => {}
        }
        let until = process.origin + Duration::from_millis(process.clock_us / MS);
        process.runtime.block_on(async { sleep_until(until).await });
        let mut outgoing = std::mem::take(&mut *process.life.outbox.lock());
        // Openraft has those who read wait for one `watch`, and whom that wakes first is tokio's to choose.
        outgoing.sort_by_key(|letter| match letter {
            Outgoing::Call { .. } => 0,
            Outgoing::Answer { call, .. } => *call,
        });
        let end = process.life.end.lock().take();
        for letter in outgoing {
            self.network.post(now_us, id, letter, &mut self.random);
        }
        match end {
            Some(End::Failed(why)) => {
                *self.faults.entry(why).or_default() += 1;
                let for_us = self.random.between(100, 1_000) * MS;
                self.crash(id, true, for_us);
            }
            Some(End::Refused(why)) => {
                self.history.lock().violated(|| format!("node {id} does not start: {why}"));
            }
            None => {}
        }
    }

    fn start(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if std::mem::take(&mut node.is_damaged) && self.is_lost_to_damage(id) {
            return;
        }
        let seed = self.random.below(u64::MAX);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.lives += 1;
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without a driver can be made");
        let life = Arc::new(Life {
            common: Arc::clone(&self.common),
            node: id,
            number: node.lives,
            disk: node.disk.clone(),
            outbox: Outbox::default(),
            seed,
            plane: Mutex::default(),
            end: Mutex::default(),
        });
        let (inbox, arriving) = mpsc::unbounded_channel();
        let origin = runtime.block_on(async { Instant::now() });
        runtime.spawn(live(Arc::clone(&life), arriving));
        self.history.lock().trace(&[7, id.0.into(), node.lives]);
        node.process = Some(Process { life, runtime, inbox, origin, clock_us: 0 });
    }

    /// Damages a node's file. Whether that was the end of the node.
    fn is_lost_to_damage(&mut self, id: NodeId) -> bool {
        let Some(node) = self.nodes.get(&id) else { return true };
        let identity = Identity { cluster: CLUSTER, node: id };
        let before = Storage::contents(&node.disk, identity);
        node.disk.damage();
        let (fate, is_lost) = match (before, Storage::contents(&node.disk, identity)) {
            (Ok(before), Ok(after)) if before == after => ("damage without effect", false),
            // After a crash the last transaction, damaged, looks like one that the crash interrupted.
            (Ok(_), Ok(_)) => ("damage taken for a crash", true),
            (Ok(_), Err(OpenError::Unusable { .. })) => ("damage refused", true),
            (Ok(_), Err(error)) => {
                self.history.lock().violated(|| format!("node {id} finds damage to be {error}"));
                return true;
            }
            (Err(error), _) => {
                self.history.lock().violated(|| format!("node {id} lost its file: {error}"));
                return true;
            }
        };
        *self.faults.entry(fate).or_default() += 1;
        if is_lost {
            self.replace(id);
        } else {
            self.replaced = None;
        }
        is_lost
    }

    /// The process ends where it is.
    fn end(&mut self, id: NodeId, power_fails: bool) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(process) = node.process.take() else { return };
        // First, so that nothing is written by what ends.
        if power_fails {
            self.harm += u64::from(node.disk.lose_power());
        } else {
            node.disk.lose_process();
        }
        node.paused_until_us = None;
        drop(process.life.plane.lock().take());
        drop(process.runtime);
        self.network.forget(id);
        let mut history = self.history.lock();
        history.begins(id);
        history.trace(&[8, id.0.into()]);
    }

    fn crash(&mut self, id: NodeId, power_fails: bool, for_us: u64) {
        self.harm += 1;
        self.end(id, power_fails);
        let now_us = self.now_us;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.starts_us = Some(now_us + for_us);
        }
    }

    /// An operator puts another in the place of a node, which is gone or about to be.
    fn replace(&mut self, id: NodeId) {
        self.replaced = Some(id);
        self.common.wishes.lock().remove = Some(id);
        self.wish_for_another();
    }

    fn running(&self) -> Vec<NodeId> {
        let is_running = |node: &Node| node.process.is_some() && node.ends_us.is_none();
        self.nodes.iter().filter(|(_, node)| is_running(node)).map(|(id, _)| *id).collect()
    }

    fn plane(&self, id: NodeId) -> Option<Arc<RaftControlPlane>> {
        self.nodes.get(&id)?.process.as_ref()?.life.plane.lock().clone()
    }
}

/// Faults.
impl World {
    /// One fault of those there are; what it was.
    pub(super) fn strike(&mut self) -> Option<&'static str> {
        let nodes = self.running();
        if nodes.is_empty() {
            return None;
        }
        // Who leads is struck most often.
        let leader = nodes.iter().find_map(|id| self.plane(*id)?.leader());
        let victim = match leader {
            Some(leader) if nodes.contains(&leader) && self.random.permille(400) => leader,
            _ => self.random.pick(&nodes),
        };
        let others = || nodes.iter().copied().filter(move |id| *id != victim);
        let for_us = self.random.between(50, 2_500) * MS;
        let quickly_us = self.random.between(1, 60) * MS;
        let may_lose = self.replaced.is_none() && self.common.wishes.lock().add.is_none();
        match self.random.below(22) {
            0 => {
                self.crash(victim, false, for_us);
                Some("kill")
            }
            1 => {
                self.crash(victim, true, for_us);
                Some("power failure")
            }
            2 => {
                let power_fails = self.random.permille(500);
                self.crash(victim, power_fails, quickly_us);
                Some("quick restart")
            }
            3 | 4 => {
                for id in nodes {
                    let for_us = self.random.between(1, 1_000) * MS;
                    self.crash(id, true, for_us);
                }
                Some("power failure of all")
            }
            5 => {
                let until_us = self.now_us + for_us;
                self.nodes.get_mut(&victim)?.paused_until_us = Some(until_us);
                self.harm += 1;
                Some("pause")
            }
            6 => {
                others().for_each(|other| self.network.part(victim, other));
                Some("one node cut off")
            }
            7 => {
                others().for_each(|other| self.network.cut(victim, other));
                Some("one node not heard")
            }
            8 => {
                others().for_each(|other| self.network.cut(other, victim));
                Some("one node deaf")
            }
            9 => {
                let other = self.random.pick(&nodes);
                self.network.part(victim, other);
                (victim != other).then_some("two nodes apart")
            }
            10 | 11 => {
                let bridged = self.random.permille(500);
                let sides: Vec<(NodeId, bool)> =
                    nodes.iter().map(|id| (*id, self.random.permille(500))).collect();
                let is_bridge = |id: NodeId| bridged && id == victim;
                for (a, _) in sides.iter().filter(|(id, side)| *side && !is_bridge(*id)) {
                    for (b, _) in sides.iter().filter(|(id, side)| !*side && !is_bridge(*id)) {
                        self.network.part(*a, *b);
                    }
                }
                Some(if bridged { "halves with a bridge" } else { "halves" })
            }
            12 => {
                self.network.weather = Weather::FOUL;
                Some("foul weather")
            }
            13 => {
                self.nodes.get_mut(&victim)?.rate =
                    self.random.between(RATE * 9 / 10, RATE * 11 / 10);
                Some("another clock rate")
            }
            14 => {
                let by_us = for_us;
                let process = self.nodes.get_mut(&victim)?.process.as_mut()?;
                process.clock_us += by_us;
                process.runtime.block_on(advance(Duration::from_micros(by_us)));
                Some("clock jump")
            }
            15 => {
                let slowest_ms = self.random.pick(&[50, 400, 2_500, 6_000]);
                let now_us = self.now_us;
                let node = self.nodes.get_mut(&victim)?;
                node.disk.slow_down((slowest_ms / 5, slowest_ms));
                node.disk_mends_us = Some(now_us + for_us * 2);
                self.harm += 1;
                Some("slow disk")
            }
            16 => {
                let ailment = self.random.pick(&[Ailment::Writes, Ailment::Syncs, Ailment::Full]);
                let after = self.random.below(30);
                let now_us = self.now_us;
                let node = self.nodes.get_mut(&victim)?;
                node.disk.ail(ailment, after);
                node.disk_mends_us = Some(now_us + for_us);
                Some(match ailment {
                    Ailment::Writes => "disk fails to write",
                    Ailment::Syncs => "disk fails to sync",
                    Ailment::Full => "disk is full",
                })
            }
            17 if may_lose => {
                self.end(victim, true);
                self.harm += 1;
                self.replace(victim);
                Some("disk lost")
            }
            18 if may_lose => {
                self.crash(victim, true, quickly_us);
                self.nodes.get_mut(&victim)?.is_damaged = true;
                // Until it is known what came of it nobody else is lost.
                self.replaced = Some(victim);
                Some("file damaged")
            }
            19 if may_lose => {
                self.replace(victim);
                Some("removal")
            }
            20 => {
                self.common.wishes.lock().drain = Some(victim);
                Some("drain")
            }
            _ => {
                self.network.heal();
                None
            }
        }
    }

    /// Faults are over.
    pub(super) fn heal(&mut self) {
        self.network.heal();
        let now_us = self.now_us;
        for node in self.nodes.values_mut() {
            node.disk.mend();
            node.disk_mends_us = None;
            node.starts_us = node.starts_us.map(|_| now_us);
            node.paused_until_us = node.paused_until_us.map(|_| now_us);
        }
        let mut wishes = self.common.wishes.lock();
        wishes.drain = None;
        wishes.no_drains = true;
        self.common.is_healed.store(true, Ordering::Relaxed);
    }

    pub(super) fn stop_clients(&self) {
        self.common.clients_run.store(false, Ordering::Relaxed);
    }
}

/// What is missing.
impl World {
    /// Who is not served yet.
    pub(super) fn unserved(&self) -> Option<String> {
        let served = self.common.served.lock();
        let (proposed, read) = &*served;
        let is_served = |id: &NodeId| proposed.contains(id) && read.contains(id);
        let unserved: Vec<NodeId> =
            self.running().into_iter().filter(|id| !is_served(id)).collect();
        (!unserved.is_empty()).then(|| format!("nodes {unserved:?} are not served"))
    }

    /// What is not as it should be: everyone takes part, and as many vote as should.
    pub(super) fn unrest(&self) -> Option<String> {
        let history = self.history.lock();
        let map = history.map();
        let present: Vec<NodeId> = map.present().map(|(id, _)| id).collect();
        let all = self.common.plan.voters as u64 + self.common.plan.learners;
        if self.replaced.is_some() || present.len() as u64 != all || self.running() != present {
            let Wishes { remove, add, .. } = &*self.common.wishes.lock();
            return Some(format!(
                "{:?} is replaced, {remove:?} to be removed, {add:?} to be added, {present:?} are there",
                self.replaced
            ));
        }
        if !history.membership().iter().eq(&present) {
            return Some(format!("{:?} take part, not {present:?}", history.membership()));
        }
        drop(history);
        let voters = present.iter().map(|id| Some(self.plane(*id)?.voters()));
        let wanted = self.common.voters_max.load(Ordering::Relaxed);
        let is_off =
            |voters: &Option<BTreeSet<NodeId>>| voters.as_ref().map(BTreeSet::len) != Some(wanted);
        voters.into_iter().find(is_off).map(|voters| format!("{voters:?} vote"))
    }

    /// Who has not what all should have.
    pub(super) fn unlike(&self) -> Option<String> {
        let history = self.history.lock();
        let differs = |id: &NodeId| {
            let map = self.plane(*id).map(|plane| plane.watch().borrow().clone());
            !history.is_current(*id) || map != Some(history.map())
        };
        let unlike: Vec<NodeId> = self.running().into_iter().filter(differs).collect();
        (!unlike.is_empty()).then(|| format!("nodes {unlike:?} lack something"))
    }

    /// Where everyone stands.
    fn told(&self) -> String {
        let of = |(id, node): (&NodeId, &Node)| match self.plane(*id) {
            Some(plane) => format!("\n{:?}", plane.status()),
            None => {
                format!("\nnode {id} starts at {:?}, ends at {:?}", node.starts_us, node.ends_us)
            }
        };
        self.nodes.iter().map(of).collect()
    }
}

// What runs on a node.

async fn live(life: Arc<Life>, inbox: mpsc::UnboundedReceiver<Incoming>) {
    match life.begin().await {
        Ok(plane) => {
            *life.plane.lock() = Some(Arc::clone(&plane));
            tokio::spawn(serve(Arc::clone(&life), Arc::clone(&plane), inbox));
            // One task: see the head of `simulation.rs`.
            tokio::join!(life.tend(&plane), life.ask(&plane));
        }
        Err(end) => *life.end.lock() = Some(end),
    }
}

/// Answers what other nodes ask.
async fn serve(
    life: Arc<Life>,
    plane: Arc<RaftControlPlane>,
    mut inbox: mpsc::UnboundedReceiver<Incoming>,
) {
    while let Some(Incoming { call, from, request }) = inbox.recv().await {
        let (life, plane) = (Arc::clone(&life), Arc::clone(&plane));
        tokio::spawn(async move {
            let response = plane.handle(&request).await;
            life.note_vote(response.as_deref().unwrap_or_default());
            life.outbox.lock().push(Outgoing::Answer { call, to: from, response });
        });
    }
}

fn new_node(request: u64) -> NewNode {
    NewNode {
        addresses: Addresses { peer: format!("node-{request}:1"), ..Addresses::default() },
        zone: format!("zone-{}", request % 3),
        weight: 100,
        role: Role::Data,
        version: "1".into(),
    }
}

impl Life {
    async fn begin(self: &Arc<Self>) -> Result<Arc<RaftControlPlane>, End> {
        let identity = Identity { cluster: CLUSTER, node: self.node };
        let is_new = self.disk.is_blank();
        let storage = match is_new {
            true => Storage::create_on(&self.disk, identity),
            false => Storage::open_on(&self.disk, identity),
        };
        let storage = storage.map_err(|error| match error {
            OpenError::Io { .. } => End::Failed("did not start: disk"),
            error => End::Refused(error.to_string()),
        })?;
        let (history, node) = (Arc::clone(&self.common.history), self.node);
        storage.witnessed(Box::new(move |log_id, entry, map| {
            history.lock().applies(node, log_id, entry, map);
        }));
        let witness = Arc::downgrade(self);
        let settings = Settings {
            snapshot_entries: self.common.plan.snapshot_entries,
            disk_timeout: Duration::from_millis(500),
            disk_timeout_of_process: Duration::from_secs(4),
            on_failure: Arc::new(move |failure| {
                if let Some(life) = witness.upgrade() {
                    *life.end.lock() = Some(End::Failed(match failure {
                        Failure::DiskHangs { .. } => "left: disk hung",
                        Failure::Stopped(_) => "left: Raft stopped",
                    }));
                }
            }),
            ..Settings::default()
        };
        let port = Arc::new(Port(Arc::clone(&self.outbox)));
        let started = RaftControlPlane::start(storage, port, settings).await;
        let plane = Arc::new(started.map_err(|error| End::Refused(error.to_string()))?);
        if let Some(breach) = self.common.plan.breach {
            plane.breach(breach);
        }
        if self.node == FOUNDER {
            match plane.found().await {
                Ok(()) | Err(StartError::Founded) => {}
                Err(_) => return Err(End::Failed("was not founded")),
            }
        }
        Ok(plane)
    }

    /// What a node says of its vote.
    fn note_vote(&self, response: &[u8]) {
        let vote = match postcard::from_bytes(response) {
            Ok(Response::Vote(response)) => response.vote,
            Ok(Response::Append(AppendEntriesResponse::HigherVote(vote))) => vote,
            _ => return,
        };
        self.common.history.lock().votes(self.node, vote);
    }

    /// What the control thread does of all this.
    async fn tend(&self, plane: &RaftControlPlane) {
        loop {
            sleep(Duration::from_millis(140 + u64::from(self.node.0))).await;
            let alive = self.common.alive.lock().clone();
            if let Some(leader) = plane.leader()
                && !alive.contains(&leader)
                && plane.voters().contains(&self.node)
            {
                plane.campaign().await;
            }
            let voters_max = self.common.voters_max.load(Ordering::Relaxed);
            // What is not done now is done later.
            let _ = plane.tend_voters(&alive, voters_max, Duration::from_secs(1)).await;
        }
    }

    /// A client, as long as the node lives.
    async fn ask(&self, plane: &RaftControlPlane) {
        let mut random = Random::of_seed(self.seed);
        if self.node == FOUNDER && self.number == 1 {
            let (cluster, pool) = (CLUSTER, Pool::sessions());
            let node = new_node(0);
            let found = Command::Found { cluster, pool, shard_count: SHARDS, node };
            self.propose(plane, found, Duration::from_secs(5)).await;
        }
        let up = Command::NodeUp {
            node: self.node,
            incarnation: Incarnation(self.number),
            addresses: Addresses {
                peer: format!("{}.{}", self.node, self.number),
                ..Addresses::default()
            },
            version: "1".into(),
            recovered: BTreeMap::new(),
        };
        self.propose(plane, up, Duration::from_secs(5)).await;
        loop {
            sleep(Duration::from_millis(random.between(5, 160))).await;
            if !self.common.clients_run.load(Ordering::Relaxed) {
                continue;
            }
            let within = Duration::from_millis(random.between(200, 2_500));
            match self.wish(plane) {
                Some(command) if random.permille(700) => {
                    let outcome = self.propose(plane, command.clone(), within).await;
                    self.fulfil(&command, outcome);
                    continue;
                }
                _ => {}
            }
            let (first, second) =
                (self.command(plane, &mut random), self.command(plane, &mut random));
            match random.below(10) {
                0..5 => {
                    self.propose(plane, first, within).await;
                }
                5 => {
                    tokio::join!(
                        self.propose(plane, first, within),
                        self.read(plane, within),
                        self.propose(plane, second, within),
                    );
                }
                _ => self.read(plane, within).await,
            }
        }
    }

    /// A command that will be known again.
    fn command(&self, plane: &RaftControlPlane, random: &mut Random) -> Command {
        if random.permille(600) && self.common.tokens.load(Ordering::Relaxed) < TOKENS_MAX {
            let number = self.common.tokens.fetch_add(1, Ordering::Relaxed);
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            return Command::AddToken { hash, expires_unix_ms: number as u64 + 1 };
        }
        let shard = ShardId(u16::try_from(random.below(SHARDS.into())).unwrap());
        let map = plane.watch().borrow().clone();
        let from = map.place(shard).map(|place| place.config.epoch).unwrap_or_default();
        let to = ShardConfig { epoch: from.next(), ..ShardConfig::default() };
        Command::Reconfigure(vec![Reconfigure { shard, from, to }])
    }

    /// What an operator wants done, if this node is the one to do it.
    fn wish(&self, plane: &RaftControlPlane) -> Option<Command> {
        let wishes = self.common.wishes.lock();
        if let Some(request) = wishes.add {
            let node = new_node(request);
            return Some(Command::AddNode { request, token_hash: None, now_unix_ms: 0, node });
        }
        if let Some(node) = wishes.remove.filter(|node| *node != self.node) {
            return Some(Command::Remove { node, force: true });
        }
        if let Some(node) = wishes.drain {
            return Some(Command::Drain { node });
        }
        let map = plane.watch().borrow().clone();
        let is_draining = |standing| standing == Standing::Draining;
        let mut draining = map.present().filter(|(_, node)| is_draining(node.standing));
        let node = draining.next().map(|(id, _)| id).filter(|_| wishes.no_drains)?;
        Some(Command::CancelDrain { node })
    }

    fn fulfil(&self, command: &Command, outcome: Option<Outcome>) {
        let Some(outcome) = outcome else { return };
        let mut wishes = self.common.wishes.lock();
        match (command, outcome) {
            (Command::AddNode { request, .. }, Outcome::NodeAdded(id))
                if wishes.add == Some(*request) =>
            {
                wishes.add = None;
                wishes.added = Some(id);
            }
            // Refused for now where it is the last that is not being drained.
            (
                Command::Remove { node, .. },
                Outcome::Done | Outcome::Refused(Refusal::NodeRemoved { .. }),
            ) if wishes.remove == Some(*node) => {
                wishes.remove = None;
            }
            (Command::Drain { node }, _) if wishes.drain == Some(*node) => wishes.drain = None,
            _ => {}
        }
    }

    async fn propose(
        &self,
        plane: &RaftControlPlane,
        command: Command,
        within: Duration,
    ) -> Option<Outcome> {
        let is_healed = self.common.is_healed.load(Ordering::Relaxed);
        let outcome = plane.propose(command.clone(), within).await.ok()?;
        self.common.history.lock().acknowledges(self.node, &command, &outcome);
        if is_healed {
            self.common.served.lock().0.insert(self.node);
        }
        Some(outcome)
    }

    async fn read(&self, plane: &RaftControlPlane, within: Duration) {
        let is_healed = self.common.is_healed.load(Ordering::Relaxed);
        let floor = self.common.history.lock().floor();
        let Ok(map) = plane.read(within).await else { return };
        self.common.history.lock().reads(self.node, floor, &map);
        if is_healed {
            self.common.served.lock().1.insert(self.node);
        }
    }
}
