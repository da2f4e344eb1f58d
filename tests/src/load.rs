//! Clients that load a cluster and write down what they saw.
//!
//! Each client is a thread with one connection, asks one thing after the other (or a pipeline of things), and
//! changes over to another node when its connection fails or an answer takes too long. All share their keys, so
//! they get into each other's way, except for those set once. Every value that is written is different, and
//! names who wrote it.
//!
//! | key | what is done to it |
//! |---|---|
//! | `reg` | get and set: a register |
//! | `cas` | gets and cas |
//! | `ctr` | add once, incr |
//! | `one` | set once, never again |
//! | `add` | add, delete, replace |
//! | `app` | add once, append; another key every few seconds |
//! | `ses` | set with a lifetime, touch, get, delete |
//!
//! Registers are also read many at once and in pipelines, and everything is asked in both protocols.
//! [`Prober`]s measure how long no write is acknowledged.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::client::{Client, Dialect, Refused};
use crate::history::{Ended, History, Operation};
use crate::model::{Answer, Direction, Key, Request, Rule, Side};
use crate::wait::{self, Stopwatch};

/// How long a node is left alone that failed.
const AVOID: Duration = Duration::from_secs(2);
/// How long a client waits that was refused; asked without rest a node refuses without rest.
const REFUSAL_PAUSE: Duration = Duration::from_millis(5);
/// After so long a multi-get may have been answered with what had arrived: then a miss tells nothing.
const WHOLE_ANSWER_LIMIT: Duration = Duration::from_millis(200);
/// How often another key is appended to.
const APPEND_PERIOD: Duration = Duration::from_secs(4);
/// Keys read at once.
const KEYS_PER_READ: u32 = 12;
/// Requests in a pipeline.
const PIPELINE: u32 = 8;

/// Errors that promise that nothing was done. What is refused so is no part of the history; read all the same,
/// it came out of nowhere.
const NOT_DONE: [&str; 3] = [
    "SERVER_ERROR no primary for this key at present",
    "SERVER_ERROR too few copies are in sync",
    "SERVER_ERROR busy",
];

/// How a cluster is loaded.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Where all chance comes from, but for the moments of the machine.
    pub seed: u64,
    /// Clients besides the probers.
    pub clients: u32,
    /// What each of them waits between two requests.
    pub pause: Duration,
    /// Keys of each kind.
    pub keys: u32,
    /// How long a client waits for an answer.
    pub answer_limit: Duration,
}

impl Default for LoadPlan {
    fn default() -> Self {
        Self {
            seed: 1,
            clients: 6,
            pause: Duration::from_millis(4),
            keys: 60,
            answer_limit: Duration::from_secs(3),
        }
    }
}

/// What clients went through, besides what they saw.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Operations answered.
    pub answered: u64,
    /// Connections that could not be made, or ended.
    pub lost: u64,
    /// Answers that took too long.
    pub late: u64,
    /// `SERVER_ERROR`s, by their words.
    pub refused: BTreeMap<String, u64>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.lost += other.lost;
        self.late += other.late;
        for (line, count) in other.refused {
            *self.refused.entry(line).or_default() += count;
        }
    }

    /// Notes `error` if it is an error of the server, after which the connection goes on; whether it says
    /// that nothing was done.
    ///
    /// # Panics
    /// When it is an error that nothing asked here may give.
    fn refusal(&mut self, error: &io::Error) -> Option<bool> {
        let Refused(line) = Refused::of(error)?;
        assert!(line.starts_with("SERVER_ERROR "), "a proper request was answered: {line}");
        *self.refused.entry(line.clone()).or_default() += 1;
        Some(NOT_DONE.contains(&line.as_str()))
    }
}

/// A load under way.
#[derive(Debug)]
pub struct Load {
    threads: Vec<JoinHandle<(History, Tally)>>,
    stop: Arc<AtomicBool>,
    nodes: Arc<Mutex<Vec<SocketAddr>>>,
    clock: Stopwatch,
    plan: LoadPlan,
}

impl Load {
    /// Starts the clients of `nodes`; moments are counted by `clock`.
    #[must_use]
    pub fn start(plan: &LoadPlan, nodes: &[SocketAddr], clock: Stopwatch) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let nodes = Arc::new(Mutex::new(nodes.to_vec()));
        let threads = (0..plan.clients)
            .map(|number| {
                let walk = Walk {
                    link: Link::new(number, plan.answer_limit, clock, Arc::clone(&nodes)),
                    keys: plan.keys,
                    random: StdRng::seed_from_u64(plan.seed.wrapping_add(u64::from(number))),
                    written: 0,
                    told: HashMap::new(),
                };
                let (stop, pause) = (Arc::clone(&stop), plan.pause);
                std::thread::spawn(move || walk.run(&stop, pause))
            })
            .collect();
        Self { threads, stop, nodes, clock, plan: plan.clone() }
    }

    /// Tells the clients of a node that came later.
    pub fn add_node(&self, node: SocketAddr) {
        locked(&self.nodes).push(node);
    }

    /// Tells the clients that a node is gone for good.
    pub fn remove_node(&self, node: SocketAddr) {
        locked(&self.nodes).retain(|other| *other != node);
    }

    /// Ends the clients with what they are at, and reads every key of theirs through every node.
    ///
    /// # Panics
    /// When a client did, or a key cannot be read.
    #[must_use]
    pub fn finish(self) -> (History, Tally) {
        self.stop.store(true, Ordering::Relaxed);
        let mut history = History::new();
        let mut tally = Tally::default();
        for thread in self.threads {
            let (seen, went) = thread.join().expect("a client sees what it can understand");
            history.merge(seen);
            tally.add(went);
        }
        let keys: Vec<Key> = history.by_key().into_keys().collect();
        let nodes = locked(&self.nodes).clone();
        for (reader, &node) in (self.plan.clients..).zip(&nodes) {
            let only = Arc::new(Mutex::new(vec![node]));
            let mut link = Link::new(reader, self.plan.answer_limit, self.clock, only);
            for some in keys.chunks(32) {
                let gets: Vec<Request> =
                    some.iter().map(|key| Request::Get { key: key.clone() }).collect();
                let is_read = wait::until(Duration::from_secs(30), || {
                    let before = link.tally.answered;
                    link.ask_all(&gets, Dialect::Classic);
                    (link.tally.answered == before + gets.len() as u64).then_some(())
                });
                assert!(is_read.is_some(), "a quiet cluster answers: {node}, {:?}", link.tally);
            }
            history.merge(link.history);
        }
        (history, tally)
    }
}

/// A connection to any node that takes it, and what was seen through it.
#[derive(Debug)]
struct Link {
    number: u32,
    limit: Duration,
    clock: Stopwatch,
    nodes: Arc<Mutex<Vec<SocketAddr>>>,
    client: Option<(SocketAddr, Client)>,
    /// Nodes that failed, and until when to leave them alone.
    avoided: HashMap<SocketAddr, u64>,
    history: History,
    tally: Tally,
}

impl Link {
    fn new(
        number: u32,
        limit: Duration,
        clock: Stopwatch,
        nodes: Arc<Mutex<Vec<SocketAddr>>>,
    ) -> Self {
        let (history, tally) = (History::new(), Tally::default());
        Self { number, limit, clock, nodes, client: None, avoided: HashMap::new(), history, tally }
    }

    fn now_ns(&self) -> u64 {
        now_ns(self.clock)
    }

    /// Asks all of `requests` at once; what is answered, in their order.
    fn ask_all(&mut self, requests: &[Request], dialect: Dialect) -> Vec<Option<Answer>> {
        let invoked_ns = self.now_ns();
        let mut answers = vec![None; requests.len()];
        let Some((node, mut client)) = self.connected() else { return answers };
        let mut failure = client.send(requests, dialect).err();
        let mut is_refused = false;
        for (request, place) in requests.iter().zip(&mut answers) {
            let mut ended = Ended::Unknown;
            if failure.is_none() {
                match client.receive() {
                    Ok(answer) => {
                        *place = Some(answer.clone());
                        self.tally.answered += 1;
                        ended = Ended::Answered { answer, at_ns: self.now_ns() };
                    }
                    Err(error) => match self.tally.refusal(&error) {
                        Some(is_not_done) => {
                            is_refused = true;
                            if is_not_done {
                                continue;
                            }
                        }
                        None => failure = Some(error),
                    },
                }
            }
            self.note(request.clone(), invoked_ns, ended);
        }
        match failure {
            None => self.client = Some((node, client)),
            Some(error) => self.failed(node, &error),
        }
        if is_refused {
            wait::pass(REFUSAL_PAUSE);
        }
        answers
    }

    /// Reads `keys` with one request.
    fn get_many(&mut self, keys: &[Key]) {
        let invoked_ns = self.now_ns();
        let Some((node, mut client)) = self.connected() else { return };
        match client.get_many(keys) {
            Ok(answers) => {
                let at_ns = self.now_ns();
                let is_whole = u128::from(at_ns - invoked_ns) < WHOLE_ANSWER_LIMIT.as_nanos();
                for (key, answer) in keys.iter().zip(answers) {
                    if is_whole || answer != Answer::Missing {
                        let request = Request::Get { key: key.clone() };
                        self.note(request, invoked_ns, Ended::Answered { answer, at_ns });
                    }
                }
                self.tally.answered += 1;
                self.client = Some((node, client));
            }
            Err(error) if self.tally.refusal(&error).is_some() => {
                self.client = Some((node, client));
            }
            Err(error) => self.failed(node, &error),
        }
    }

    fn note(&mut self, request: Request, invoked_ns: u64, ended: Ended) {
        // A read of unknown outcome says nothing.
        if ended != Ended::Unknown || !matches!(request, Request::Get { .. }) {
            self.history.push(Operation { client: self.number, request, invoked_ns, ended });
        }
    }

    fn connected(&mut self) -> Option<(SocketAddr, Client)> {
        if let Some(connected) = self.client.take() {
            return Some(connected);
        }
        let nodes = locked(&self.nodes).clone();
        let home = self.number as usize % nodes.len().max(1);
        let in_order = nodes.iter().cycle().skip(home).take(nodes.len());
        let now_ns = self.now_ns();
        for &node in in_order {
            if self.avoided.get(&node).is_some_and(|&until_ns| now_ns < until_ns) {
                continue;
            }
            match Client::open_within(node, self.limit) {
                Ok(client) => return Some((node, client)),
                Err(error) => self.failed(node, &error),
            }
        }
        // All failed of late. They need not be asked without rest.
        wait::pass(Duration::from_millis(10));
        if nodes.iter().all(|node| self.avoided.contains_key(node)) {
            self.avoided.clear();
        }
        None
    }

    fn failed(&mut self, node: SocketAddr, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => self.tally.late += 1,
            _ => self.tally.lost += 1,
        }
        let until_ns = self.now_ns() + u64::try_from(AVOID.as_nanos()).unwrap_or(u64::MAX);
        self.avoided.insert(node, until_ns);
    }
}

/// One client.
struct Walk {
    link: Link,
    keys: u32,
    random: StdRng,
    /// Values written so far.
    written: u64,
    /// The cas of each key as it was last read.
    told: HashMap<Key, u64>,
}

impl Walk {
    fn run(mut self, stop: &AtomicBool, pause: Duration) -> (History, Tally) {
        while !stop.load(Ordering::Relaxed) {
            match self.random.random_range(0..20) {
                0 => {
                    let keys = (0..KEYS_PER_READ).map(|_| self.key("reg")).collect::<Vec<_>>();
                    self.link.get_many(&distinct(keys));
                }
                1 => {
                    let requests: Vec<Request> = (0..PIPELINE).map(|_| self.register()).collect();
                    self.ask_all(&requests);
                }
                _ => {
                    let request = self.request();
                    self.ask_all(&[request]);
                }
            }
            wait::pass(pause);
        }
        (self.link.history, self.link.tally)
    }

    fn ask_all(&mut self, requests: &[Request]) {
        let dialect = if self.random.random_bool(0.5) { Dialect::Classic } else { Dialect::Meta };
        let answers = self.link.ask_all(requests, dialect);
        for (request, answer) in requests.iter().zip(answers) {
            if let (Request::Get { key }, Some(Answer::Value { cas, .. })) = (request, answer) {
                self.told.insert(key.clone(), cas);
            }
        }
    }

    fn request(&mut self) -> Request {
        match self.random.random_range(0..8) {
            0 | 1 => self.register(),
            2 => self.compare_and_swap(),
            3 => self.count(),
            4 => {
                let key = format!("one.{}.{}", self.link.number, self.written).into_bytes();
                self.put(key, Rule::Always, 0)
            }
            5 => self.add_or_delete(),
            6 => self.append(),
            _ => self.session(),
        }
    }

    fn register(&mut self) -> Request {
        let key = self.key("reg");
        match self.random.random_bool(0.5) {
            true => Request::Get { key },
            false => self.put(key, Rule::Always, 0),
        }
    }

    fn compare_and_swap(&mut self) -> Request {
        let key = self.key("cas");
        match (self.told.remove(&key), self.random.random_range(0..6)) {
            (Some(cas), _) => self.put(key, Rule::IfCas(cas), 0),
            (None, 0) => self.put(key, Rule::IfAbsent, 0),
            (None, _) => Request::Get { key },
        }
    }

    fn count(&mut self) -> Request {
        let key = self.key("ctr");
        match self.random.random_range(0..10) {
            0 => {
                let value = b"1000".to_vec();
                Request::Put { key, rule: Rule::IfAbsent, value, flags: 0, ttl_s: 0 }
            }
            1 | 2 => Request::Get { key },
            // Always by one: of counts of unknown outcome only their number matters then.
            _ => Request::Count { key, direction: Direction::Up, delta: 1 },
        }
    }

    fn add_or_delete(&mut self) -> Request {
        let key = self.key("add");
        match self.random.random_range(0..6) {
            0 | 1 => self.put(key, Rule::IfAbsent, 0),
            2 => Request::Delete { key },
            3 => self.put(key, Rule::IfPresent, 0),
            _ => Request::Get { key },
        }
    }

    fn append(&mut self) -> Request {
        let period = self.link.now_ns() / u64::try_from(APPEND_PERIOD.as_nanos()).unwrap_or(1);
        let key = format!("app.{period}.{}", self.random.random_range(0..4)).into_bytes();
        match self.random.random_range(0..6) {
            0 => {
                let rule = Rule::IfAbsent;
                Request::Put { key, rule, value: Vec::new(), flags: 0, ttl_s: 0 }
            }
            1 | 2 => Request::Get { key },
            _ => {
                self.written += 1;
                let value = format!("{}.{};", self.link.number, self.written).into_bytes();
                Request::Extend { key, side: Side::Back, value }
            }
        }
    }

    fn session(&mut self) -> Request {
        let key = self.key("ses");
        let ttl_s = [2, 3, 60, 600][self.random.random_range(0..4)];
        match self.random.random_range(0..8) {
            0..3 => self.put(key, Rule::Always, ttl_s),
            3 => Request::Touch { key, ttl_s },
            4 if self.random.random_bool(0.3) => Request::Delete { key },
            _ => Request::Get { key },
        }
    }

    fn key(&mut self, kind: &str) -> Key {
        format!("{kind}.{}", self.random.random_range(0..self.keys)).into_bytes()
    }

    fn put(&mut self, key: Key, rule: Rule, ttl_s: u32) -> Request {
        self.written += 1;
        let name = format!("{}.{}.", self.link.number, self.written);
        // Sizes of sessions, roughly, and now and then a large one.
        let len = match self.random.random_range(0..400) {
            0 => 40_000,
            1..40 => 2_000,
            _ => 40,
        };
        let filler = "x".repeat(self.random.random_range(0..len));
        let flags = self.random.random();
        Request::Put { key, rule, value: (name + &filler).into_bytes(), flags, ttl_s }
    }
}

fn distinct(mut keys: Vec<Key>) -> Vec<Key> {
    keys.sort();
    keys.dedup();
    keys
}

/// Writes through one node as fast as it is answered, to find out for how long it is not.
#[derive(Debug)]
pub struct Prober {
    thread: JoinHandle<History>,
    stop: Arc<AtomicBool>,
    shared: Arc<Probed>,
}

#[derive(Debug, Default)]
struct Probed {
    keys: Mutex<Vec<Key>>,
    /// When a write was acknowledged. Ascending.
    acknowledged_ns: Mutex<Vec<u64>>,
}

impl Prober {
    /// Starts as client `number` of the node at `address`; it writes nothing until it has keys.
    #[must_use]
    pub fn start(number: u32, address: SocketAddr, limit: Duration, clock: Stopwatch) -> Self {
        let (stop, shared) = (Arc::new(AtomicBool::new(false)), Arc::new(Probed::default()));
        let (told, probed) = (Arc::clone(&stop), Arc::clone(&shared));
        let nodes = Arc::new(Mutex::new(vec![address]));
        let mut link = Link::new(number, limit, clock, nodes);
        let thread = std::thread::spawn(move || {
            let mut written = 0_usize;
            while !told.load(Ordering::Relaxed) {
                wait::pass(Duration::from_millis(2));
                let key = {
                    let keys = locked(&probed.keys);
                    let Some(key) = keys.get(written % keys.len().max(1)) else { continue };
                    key.clone()
                };
                written += 1;
                let value = format!("{number}.{written}").into_bytes();
                let set = Request::Put { key, rule: Rule::Always, value, flags: 0, ttl_s: 0 };
                // A node that failed is to be tried again at once: that is what is measured.
                link.avoided.clear();
                if let [Some(Answer::Done)] = link.ask_all(&[set], Dialect::Classic)[..] {
                    locked(&probed.acknowledged_ns).push(link.now_ns());
                }
            }
            link.history
        });
        Self { thread, stop, shared }
    }

    /// From now on writes these keys, one after the other.
    pub fn set_keys(&self, keys: Vec<Key>) {
        *locked(&self.shared.keys) = keys;
    }

    /// The longest time within these moments in which no write was acknowledged.
    #[must_use]
    pub fn longest_gap(&self, from_ns: u64, to_ns: u64) -> Duration {
        longest_gap(&locked(&self.shared.acknowledged_ns), from_ns, to_ns)
    }

    /// Ends it: what it saw.
    ///
    /// # Panics
    /// When it did.
    #[must_use]
    pub fn finish(self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a prober understands what it is told")
    }
}

/// The longest time between two of `moments_ns`, the ends of what was watched included.
fn longest_gap(moments_ns: &[u64], from_ns: u64, to_ns: u64) -> Duration {
    let within = moments_ns.iter().filter(|moment| (from_ns..=to_ns).contains(*moment));
    let mut before = from_ns;
    let mut longest = 0;
    for &moment in within.chain([&to_ns]) {
        longest = longest.max(moment - before);
        before = moment;
    }
    Duration::from_nanos(longest)
}

/// What `clock` says, in nanoseconds.
#[must_use]
pub fn now_ns(clock: Stopwatch) -> u64 {
    u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What another thread was at when it failed does not matter to a list of moments.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_counts_both_ends() {
        let ms = |ms: u64| ms * 1_000_000;
        let moments = [ms(1), ms(10), ms(14)];
        assert_eq!(longest_gap(&moments, ms(0), ms(15)), Duration::from_millis(9));
        assert_eq!(longest_gap(&moments, ms(9), ms(30)), Duration::from_millis(16));
        assert_eq!(longest_gap(&[], ms(9), ms(30)), Duration::from_millis(21));
        assert_eq!(longest_gap(&moments, ms(8), ms(9)), Duration::from_millis(1));
    }
}
