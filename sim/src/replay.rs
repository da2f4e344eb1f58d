//! `Replay`: one policy, one capacity, one trace into a `Tally`.
//!
//! A replay is driven request by request, so that one reading of the trace can serve many, and
//! [`play`] spreads them over threads. For a log of gets the rules are those of other simulators, so
//! that figures can be compared:
//!
//! - A miss inserts the object, as a look-aside client does, and cold misses count.
//! - An object larger than the cache is a miss and is not admitted, nor is one that the policy itself
//!   refuses (S3-FIFO and W-TinyLFU do).
//! - A hit leaves the size as it was recorded on insertion.
//! - Counted in objects, each weighs 1; in bytes, its size (at least 1), the key's where the log is
//!   of a key-value store, and what [`Weighing`] adds.
//!
//! Where a log has more than gets, the other ops do what memcached's commands do:
//!
//! | op | nothing there | something there |
//! |---|---|---|
//! | get, gat | a miss; filled with what the log last wrote there, see [`crate::fill`] | a hit; gat: another expiry |
//! | set | written | written anew; gone if that cannot be |
//! | add | written | a use of it |
//! | replace, cas | nothing | written anew |
//! | append, prepend | nothing | written anew, as large as the log makes it; keeps its expiry |
//! | incr, decr | nothing | a use of it |
//! | touch | nothing | a use of it, another expiry |
//! | delete | nothing | gone |
//!
//! Only gets and gats are counted. What expires is heeded as [`Expiry`] says.
//!
//! [`Replay::of_server`] counts as the server does instead: see there.

#[cfg(test)]
mod against_models;
mod deadlines;
mod directory;
mod population;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use deadlines::{NEVER, NEVER_ANY_MORE};
use eviction::{EntryId, KeyHash, Kind};
use population::{Capacity, Population, Room, Written};
use store::hash::key_hash;
use store::record::{Shape, entry_bytes, footprint};
use store::{Budget, Geometry};

use crate::trace::{Access, KEY_BYTES_MAX, Op, with_decimal};

/// Requests handed to a thread at a time: long enough that the hand-over costs nothing, short enough
/// to stay in a second-level cache while the thread's replays take their turns.
const BATCH_REQUESTS: usize = 8 * 1024;

/// Requests handed at a time to the only replay on the reader's own thread: few enough to stay in a
/// first-level cache.
const BATCH_REQUESTS_ALONE: usize = 1024;

/// Requests whose first cache lines are fetched together: enough to wait for memory once and not for each,
/// few enough that none is gone again when its turn comes.
const WINDOW_REQUESTS: usize = 16;

/// Batches a thread may lag behind the reader.
const BATCHES_AHEAD: usize = 4;

/// Most entries that columns are reserved for ahead of time.
const ENTRIES_RESERVED_MAX: u64 = 1 << 20;

/// An access as a cache sees it: under the key that `cache-bench replay` sends ([`Access::key`]),
/// hashed as the server hashes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The key's hash.
    pub key: KeyHash,
    /// When, in whole seconds.
    pub time_s: u32,
    /// The value's size in bytes; of a read, that of the value a miss is filled with.
    pub size_bytes: u32,
    /// Seconds until a value written (or, of a read, filled in) expires; 0 is never.
    pub ttl_s: u32,
    /// The key's length in bytes.
    pub key_bytes: u16,
    /// What was asked for.
    pub op: Op,
    /// Whether `size_bytes` is that of a value, so that a miss can be filled with it.
    pub fills: bool,
}

impl From<Access> for Request {
    #[inline]
    fn from(access: Access) -> Self {
        let Access { time_s, size_bytes, ttl_s, op, .. } = access;
        let hash = |key: &[u8]| (key_hash(key), u16::try_from(key.len()).unwrap_or(u16::MAX));
        let (key, key_bytes) = match access.key_bytes {
            // The buffer for any key costs more than the digits do.
            0 => with_decimal(access.id, hash),
            _ => hash(access.key(&mut [0; KEY_BYTES_MAX])),
        };
        Self { key, time_s, size_bytes, ttl_s, key_bytes, op, fills: true }
    }
}

/// What capacities and weights count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Each object weighs 1.
    Objects,
    /// Each object weighs its bytes.
    Bytes,
}

impl Unit {
    /// The name on command lines and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Objects => "objects",
            Self::Bytes => "bytes",
        }
    }
}

/// What objects weigh in a bare cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighing {
    /// What is counted.
    pub unit: Unit,
    /// In bytes: what is added to each object, in bytes.
    pub overhead_bytes: u32,
    /// In bytes: whether keys count.
    pub keys_count: bool,
}

impl From<Unit> for Weighing {
    /// Nothing is added.
    fn from(unit: Unit) -> Self {
        Self { unit, overhead_bytes: 0, keys_count: false }
    }
}

impl Weighing {
    /// What a request's object weighs.
    #[inline]
    pub fn weight(self, request: &Request) -> u32 {
        match self.unit {
            Unit::Objects => 1,
            Unit::Bytes => {
                let key_bytes = if self.keys_count { u32::from(request.key_bytes) } else { 0 };
                let added = key_bytes.saturating_add(self.overhead_bytes);
                request.size_bytes.saturating_add(added).max(1)
            }
        }
    }
}

/// What becomes of objects whose time is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// They are served all the same: TTLs are not looked at.
    Ignore,
    /// They are not served, and keep their room until they are asked for or evicted.
    Lazy,
    /// They leave at the second they expire, as from a server that sweeps.
    #[default]
    Eager,
}

impl Expiry {
    /// The name on command lines and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Lazy => "lazy",
            Self::Eager => "eager",
        }
    }
}

/// What of a server's configuration decides, besides memory and policy, what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerShape {
    /// Its worker threads (`-t`), which decide the number of shards.
    pub threads: u32,
    /// Its largest item (`-I`) in bytes.
    pub item_bytes_max: u64,
}

/// What a replay counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Reads played: gets and gats.
    pub requests: u64,
    /// Those whose object was resident.
    pub hits: u64,
    /// Sum of the reads' sizes in bytes.
    pub bytes: u64,
    /// Sum of the hits' sizes in bytes.
    pub hit_bytes: u64,
}

impl Tally {
    /// Misses in requests; none without requests.
    pub fn miss_ratio(&self) -> Option<f64> {
        share(self.requests - self.hits, self.requests)
    }

    /// Bytes missed in bytes asked for; none without bytes.
    pub fn byte_miss_ratio(&self) -> Option<f64> {
        share(self.bytes - self.hit_bytes, self.bytes)
    }

    /// Adds what was counted elsewhere.
    pub(crate) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.hits += other.hits;
        self.bytes += other.bytes;
        self.hit_bytes += other.hit_bytes;
    }

    /// Counts a read.
    #[inline]
    pub(crate) fn count(&mut self, request: &Request, hit: bool) {
        let bytes = u64::from(request.size_bytes);
        self.requests += 1;
        self.bytes += bytes;
        if hit {
            self.hits += 1;
            self.hit_bytes += bytes;
        }
    }
}

/// `part / whole`, if there is a whole.
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// One cache being fed a trace.
pub struct Replay {
    policy: Kind,
    cache_size: u64,
    expiry: Expiry,
    cache: Cache,
    tally: Tally,
}

/// What is simulated.
enum Cache {
    /// One population with a bare capacity.
    Plain { weighing: Weighing, population: Population<Capacity> },
    /// A server's shards.
    Server(Server),
}

impl Replay {
    /// An empty cache for `capacity` objects or bytes, by `unit`; nothing is added to an object's
    /// bytes, and TTLs are heeded.
    pub fn new(policy: Kind, capacity: u64, unit: Unit) -> Self {
        Self::with(policy, capacity, unit.into(), Expiry::default())
    }

    /// The same with another weighing and expiry.
    pub fn with(policy: Kind, capacity: u64, weighing: Weighing, expiry: Expiry) -> Self {
        let entries = entries_reserved(capacity);
        let population = Population::new(policy, entries, Capacity::new(capacity), expiry);
        Self::of(policy, capacity, expiry, Cache::Plain { weighing, population })
    }

    /// An empty server of `memory_bytes` (its `-m`): its shards, each with its share of the memory
    /// and a policy of its own, its footprints and its key hash. A value has the object's size, the
    /// expiry of its TTL, and no client flags.
    pub fn of_server(policy: Kind, memory_bytes: u64, shape: ServerShape, expiry: Expiry) -> Self {
        let server = Server::new(policy, memory_bytes, shape, expiry);
        Self::of(policy, memory_bytes, expiry, Cache::Server(server))
    }

    /// The same server in miniature, for a share of the objects: with that share of what all its shards
    /// have for items. It is one shard, as a share of each would hold too few objects to be like it.
    pub fn of_server_in_miniature(
        policy: Kind,
        memory_bytes: u64,
        shape: ServerShape,
        expiry: Expiry,
        share: f64,
    ) -> Self {
        let server = Server::in_miniature(policy, memory_bytes, shape, expiry, share);
        Self::of(policy, memory_bytes, expiry, Cache::Server(server))
    }

    fn of(policy: Kind, cache_size: u64, expiry: Expiry, cache: Cache) -> Self {
        Self { policy, cache_size, expiry, cache, tally: Tally::default() }
    }

    /// Plays one request.
    #[inline]
    pub fn request(&mut self, request: &Request) {
        let _hit = self.ask(request);
    }

    /// Plays one request. The answer is whether a read was a hit; none if it was no read.
    #[inline]
    pub fn ask(&mut self, request: &Request) -> Option<bool> {
        let deadline = self.deadline(request);
        let read = match &mut self.cache {
            Cache::Plain { weighing, population } => {
                serve(population, request, deadline, |_| Some(weighing.weight(request)))
            }
            Cache::Server(server) => server.request(request, deadline),
        };
        if let Some(hit) = read {
            self.tally.count(request, hit);
        }
        read
    }

    /// Plays requests in their order. What they look at is fetched ahead, in two links of a chain: a
    /// window ahead its lines of the directory, and then what the policy keeps of what they find there.
    pub fn requests(&mut self, batch: &[Request]) {
        let mut windows = batch.chunks(WINDOW_REQUESTS);
        let mut next = windows.next();
        if let Some(first) = next {
            self.prefetch_directory(first);
        }
        while let Some(window) = next {
            next = windows.next();
            if let Some(next) = next {
                self.prefetch_directory(next);
            }
            self.prefetch_policy(window);
            window.iter().for_each(|request| self.request(request));
        }
    }

    fn prefetch_directory(&self, window: &[Request]) {
        match &self.cache {
            Cache::Plain { population, .. } => {
                window.iter().for_each(|request| population.prefetch_directory(request.key));
            }
            Cache::Server(server) => {
                let shard =
                    |request: &Request| server.shard(request).prefetch_directory(request.key);
                window.iter().for_each(shard);
            }
        }
    }

    fn prefetch_policy(&self, window: &[Request]) {
        match &self.cache {
            Cache::Plain { population, .. } => {
                window.iter().for_each(|request| population.prefetch_policy(request.key));
            }
            Cache::Server(server) => {
                let shard = |request: &Request| server.shard(request).prefetch_policy(request.key);
                window.iter().for_each(shard);
            }
        }
    }

    /// When what the request writes, or fills in, expires.
    #[inline]
    fn deadline(&self, request: &Request) -> u32 {
        match (request.ttl_s, self.expiry) {
            (0, _) | (_, Expiry::Ignore) => NEVER,
            (ttl_s, _) => request.time_s.saturating_add(ttl_s),
        }
    }

    /// The policy.
    pub fn policy(&self) -> Kind {
        self.policy
    }

    /// The capacity, in objects or bytes, or the server's memory in bytes.
    pub fn cache_size(&self) -> u64 {
        self.cache_size
    }

    /// What is held now: objects, bytes, or bytes of footprints.
    pub fn weight(&self) -> u64 {
        match &self.cache {
            Cache::Plain { population, .. } => population.weight(),
            Cache::Server(server) => server.shards.iter().map(Population::weight).sum(),
        }
    }

    /// What has been counted by now.
    pub fn tally(&self) -> Tally {
        self.tally
    }
}

/// Entries to reserve columns for, untouched, in a cache of `capacity`; more come as they are needed.
fn entries_reserved(capacity: u64) -> usize {
    usize::try_from(capacity.min(ENTRIES_RESERVED_MAX)).unwrap_or(0)
}

/// A server's memory as far as it decides what is resident.
///
/// The budget, the footprints, the cut into shards and the order of calls are the store's own. What
/// is left out is the log below them: live records are held to a share of it at which it need not
/// ask for victims. Where it does, in a few MiB full of tiny items, the store's `evicted_by_log`
/// counts them, and the store keeps so much less than is predicted here.
struct Server {
    geometry: Geometry,
    item_bytes_max: u64,
    policy_bytes: u32,
    shards: Vec<Population<Budget>>,
}

impl Server {
    fn new(policy: Kind, memory_bytes: u64, shape: ServerShape, expiry: Expiry) -> Self {
        let geometry = Geometry::new(memory_bytes, shape.item_bytes_max, shape.threads);
        Self::of(policy, geometry, geometry.items_bytes_max(), shape, expiry)
    }

    fn in_miniature(
        policy: Kind,
        memory_bytes: u64,
        shape: ServerShape,
        expiry: Expiry,
        share: f64,
    ) -> Self {
        let geometry = Geometry::new(memory_bytes, shape.item_bytes_max, shape.threads);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a size"
        )]
        let of_all = |bytes: u64| (bytes as f64 * f64::from(geometry.shard_count) * share) as u64;
        let one_shard = Geometry { shard_count: 1, ..geometry };
        Self::of(policy, one_shard, of_all(geometry.items_bytes_max()), shape, expiry)
    }

    /// As many empty shards as `geometry` has, each with `items_bytes_max` for its items.
    fn of(
        policy: Kind,
        geometry: Geometry,
        items_bytes_max: u64,
        shape: ServerShape,
        expiry: Expiry,
    ) -> Self {
        let policy_bytes = policy.entry_bytes();
        let shard = || {
            let budget = Budget::new(items_bytes_max, entry_bytes(policy_bytes));
            Population::new(policy, entries_reserved(budget.bytes_max()), budget, expiry)
        };
        let shards = (0..geometry.shard_count).map(|_| shard()).collect();
        Self { geometry, item_bytes_max: shape.item_bytes_max, policy_bytes, shards }
    }

    /// The shard that owns the request's key.
    #[inline]
    fn shard(&self, request: &Request) -> &Population<Budget> {
        &self.shards[self.geometry.shard_of(request.key) as usize]
    }

    /// Plays one request, and after a miss the set that a look-aside client sends.
    #[inline]
    fn request(&mut self, request: &Request, deadline: u32) -> Option<bool> {
        let shard = &mut self.shards[self.geometry.shard_of(request.key) as usize];
        let (item_bytes_max, policy_bytes) = (self.item_bytes_max, self.policy_bytes);
        let part_bytes_max = self.geometry.part_bytes_max();
        serve(shard, request, deadline, |form| {
            let shape = Shape {
                expires: form.expires,
                has_own_cas: form.has_own_cas,
                ..Shape::plain(request.key_bytes.into(), request.size_bytes)
            };
            // What was accepted once is not asked for its size again.
            let is_taken = form.has_own_cas || shape.item_bytes() <= item_bytes_max;
            is_taken.then(|| footprint(shape, policy_bytes, part_bytes_max).weight())
        })
    }
}

/// What of an item's record decides its footprint besides the lengths of key and value.
#[derive(Clone, Copy)]
struct Form {
    expires: bool,
    has_own_cas: bool,
}

impl Form {
    /// A record as a client's write makes it.
    #[inline]
    fn written(deadline: u32) -> Self {
        Self { expires: deadline != NEVER, has_own_cas: false }
    }
}

/// Plays one request to a population. `weigh` says what the request's object weighs in which form,
/// none if it is not taken. The answer is whether a read was a hit; none if it was no read.
#[inline]
fn serve<R: Room>(
    population: &mut Population<R>,
    request: &Request,
    deadline: u32,
    weigh: impl Fn(Form) -> Option<u32>,
) -> Option<bool> {
    let &Request { key, time_s, fills, op, .. } = request;
    population.expire(time_s);
    if op == Op::Get && population.read(key, time_s) {
        return Some(true);
    }
    let written =
        |deadline| weigh(Form::written(deadline)).map(|weight| Written { key, weight, deadline });
    match op {
        Op::Get => {
            fill(population, written(deadline), fills);
            return Some(false);
        }
        Op::GetAndTouch => {
            let found = population.find(key, time_s);
            match found {
                Some(entry) => touch(population, entry, request, deadline, weigh),
                None => fill(population, written(deadline), fills),
            }
            return Some(found.is_some());
        }
        Op::Set => {
            // A client whose write failed must not read the value before it.
            let is_written = written(deadline).is_some_and(|it| population.write(it, time_s));
            if !is_written {
                population.remove(key, time_s);
            }
        }
        Op::Add => match population.find(key, time_s) {
            Some(entry) => population.mark_used(entry),
            None => fill(population, written(deadline), true),
        },
        Op::Replace | Op::Cas => {
            if population.find(key, time_s).is_some()
                && let Some(written) = written(deadline)
            {
                population.write(written, time_s);
            }
        }
        Op::Append | Op::Prepend => {
            if let Some(entry) = population.find(key, time_s) {
                let deadline = match population.deadline(entry) {
                    NEVER_ANY_MORE => NEVER,
                    deadline => deadline,
                };
                match written(deadline) {
                    // Where the log does not tell how large the value was, it stays as it is.
                    _ if !fills => population.mark_used(entry),
                    Some(written) => {
                        population.write(written, time_s);
                    }
                    None => {}
                }
            }
        }
        Op::Incr | Op::Decr => {
            if let Some(entry) = population.find(key, time_s) {
                population.mark_used(entry);
            }
        }
        Op::Touch => {
            if let Some(entry) = population.find(key, time_s) {
                touch(population, entry, request, deadline, weigh);
            }
        }
        Op::Delete => population.remove(key, time_s),
    }
    None
}

/// Inserts what is missing, if it is known and taken.
#[inline]
fn fill<R: Room>(population: &mut Population<R>, written: Option<Written>, fills: bool) {
    if let Some(written) = written.filter(|_| fills) {
        population.insert(written);
    }
}

/// Gives an entry another deadline. A server's record that has no field for one is written again, and
/// its cas, which clients know, is kept apart then.
#[cold]
fn touch<R: Room>(
    population: &mut Population<R>,
    entry: EntryId,
    request: &Request,
    deadline: u32,
    weigh: impl Fn(Form) -> Option<u32>,
) {
    let had_field = population.deadline(entry) != NEVER;
    let gains_field = !had_field && deadline != NEVER;
    let keeps_field = had_field && deadline == NEVER;
    population.touch(entry, if keeps_field { NEVER_ANY_MORE } else { deadline });
    if R::FIELDS_WEIGH
        && gains_field
        && request.fills
        && let Some(weight) = weigh(Form { expires: true, has_own_cas: true })
    {
        population.write(Written { key: request.key, weight, deadline }, request.time_s);
    }
}

/// Whatever is fed a trace, request by request.
pub trait Player: Send {
    /// Plays one request.
    fn request(&mut self, request: &Request);

    /// Plays requests in their order.
    fn requests(&mut self, batch: &[Request]) {
        batch.iter().for_each(|request| self.request(request));
    }
}

impl Player for Replay {
    #[inline]
    fn request(&mut self, request: &Request) {
        Self::request(self, request);
    }

    fn requests(&mut self, batch: &[Request]) {
        Self::requests(self, batch);
    }
}

/// Plays all of `requests` to each of `replays`, which take turns on up to `jobs` threads while this
/// one reads; of one job, both are this one's. The figures do not depend on `jobs`.
///
/// # Errors
///
/// The first error among `requests`; what came before it has been played.
pub fn play<E, P: Player>(
    requests: impl Iterator<Item = Result<Request, E>>,
    replays: &mut [P],
    jobs: NonZeroUsize,
) -> Result<(), E> {
    if jobs == NonZeroUsize::MIN {
        return play_here(requests, replays);
    }
    let jobs = jobs.get().min(replays.len());
    // Dealt like cards: neighbours differ in size only, so each thread gets some of every policy.
    let mut hands: Vec<Vec<&mut P>> = (0..jobs).map(|_| Vec::new()).collect();
    for (index, replay) in replays.iter_mut().enumerate() {
        hands[index % jobs].push(replay);
    }
    thread::scope(|scope| {
        let players: Vec<SyncSender<Batch>> = hands
            .into_iter()
            .map(|hand| {
                let (sender, receiver) = sync_channel(BATCHES_AHEAD);
                scope.spawn(move || play_batches(&receiver, hand));
                sender
            })
            .collect();
        deal(requests, &players)
    })
}

/// Reads and plays in turns, which costs the least: no request goes from one core to another.
fn play_here<E, P: Player>(
    mut requests: impl Iterator<Item = Result<Request, E>>,
    replays: &mut [P],
) -> Result<(), E> {
    let length = if replays.len() == 1 { BATCH_REQUESTS_ALONE } else { BATCH_REQUESTS };
    let mut batch = Vec::with_capacity(length);
    loop {
        let outcome = read_batch(&mut requests, length, &mut batch);
        replays.iter_mut().for_each(|replay| replay.requests(&batch));
        if outcome.is_err() || batch.len() < length {
            return outcome;
        }
        batch.clear();
    }
}

/// Appends up to `length` requests to `batch`, fewer at the end or before an error.
fn read_batch<E>(
    requests: &mut impl Iterator<Item = Result<Request, E>>,
    length: usize,
    batch: &mut Vec<Request>,
) -> Result<(), E> {
    for request in requests.take(length) {
        batch.push(request?);
    }
    Ok(())
}

/// A run of requests, read once and played by every thread.
type Batch = Arc<Vec<Request>>;

/// Sends `requests` to all players, batch by batch. Dropping the senders ends the players.
fn deal<E>(
    mut requests: impl Iterator<Item = Result<Request, E>>,
    players: &[SyncSender<Batch>],
) -> Result<(), E> {
    loop {
        let mut batch = Vec::with_capacity(BATCH_REQUESTS);
        let outcome = read_batch(&mut requests, BATCH_REQUESTS, &mut batch);
        let ended = batch.len() < BATCH_REQUESTS;
        let batch = Arc::new(batch);
        // A player that is gone has panicked; the scope passes its panic on.
        let all_play = players.iter().all(|player| player.send(Arc::clone(&batch)).is_ok());
        if ended || !all_play {
            return outcome;
        }
    }
}

/// Plays batches until no more come; each replay sees all of a batch before the next takes its turn.
fn play_batches<P: Player>(batches: &Receiver<Batch>, mut replays: Vec<&mut P>) {
    for batch in batches {
        for replay in &mut replays {
            replay.requests(&batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::ops::RangeInclusive;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use store::{Config, Deadline, Key, NewItem, Precondition, Shard, Timestamp};

    use super::*;
    use crate::trace::zipf;

    /// A request as [`Access`] makes it.
    fn request(id: u64, size_bytes: u32) -> Request {
        Access::get(0, id, size_bytes).into()
    }

    /// Plays ids of the given sizes and tells which hit.
    fn hits(mut replay: Replay, accesses: &[(u64, u32)]) -> Vec<bool> {
        let mut before = 0;
        accesses
            .iter()
            .map(|&(id, size_bytes)| {
                replay.request(&request(id, size_bytes));
                let hit = replay.tally().hits > before;
                before = replay.tally().hits;
                hit
            })
            .collect()
    }

    /// LRU as a textbook draws it: a row of objects, the one used last at the end.
    fn textbook_lru(capacity: u64, unit: Unit, accesses: &[(u64, u32)]) -> Vec<bool> {
        let mut row: Vec<(u64, u64)> = Vec::new();
        accesses
            .iter()
            .map(|&(id, size_bytes)| {
                if let Some(place) = row.iter().position(|&(other, _)| other == id) {
                    let object = row.remove(place);
                    row.push(object);
                    return true;
                }
                let weight = match unit {
                    Unit::Objects => 1,
                    Unit::Bytes => u64::from(size_bytes.max(1)),
                };
                if weight <= capacity {
                    row.push((id, weight));
                    while row.iter().map(|&(_, weight)| weight).sum::<u64>() > capacity {
                        row.remove(0);
                    }
                }
                false
            })
            .collect()
    }

    proptest! {
        #[test]
        fn lru_replay_is_the_textbook(
            capacity in 1u64..60,
            accesses in vec((0u64..30, 0u32..70), 0..300),
        ) {
            for unit in [Unit::Objects, Unit::Bytes] {
                let replay = Replay::new(Kind::Lru, capacity, unit);
                prop_assert_eq!(hits(replay, &accesses), textbook_lru(capacity, unit, &accesses));
            }
        }

        #[test]
        fn every_policy_misses_first_and_hits_always_when_all_fits(
            accesses in vec((0u64..30, 1u32..70), 0..200),
        ) {
            let mut seen = HashSet::new();
            let want: Vec<bool> = accesses.iter().map(|&(id, _)| !seen.insert(id)).collect();
            for kind in Kind::ALL {
                prop_assert_eq!(&hits(Replay::new(kind, 30, Unit::Objects), &accesses), &want);
                prop_assert_eq!(&hits(Replay::new(kind, 30 * 70, Unit::Bytes), &accesses), &want);
            }
        }
    }

    #[test]
    fn object_larger_than_the_cache_evicts_nobody() {
        let replay = Replay::new(Kind::Lru, 10, Unit::Bytes);
        assert_eq!(
            hits(replay, &[(1, 10), (2, 11), (1, 10), (2, 11)]),
            [false, false, true, false]
        );
    }

    #[test]
    fn size_recorded_at_insertion_stays() {
        let replay = Replay::new(Kind::Lru, 10, Unit::Bytes);
        // Object 1 came with 4 bytes; that it is asked for with 9 later leaves room for object 2.
        assert_eq!(hits(replay, &[(1, 4), (1, 9), (2, 6), (1, 4)]), [false, true, false, true]);
    }

    #[test]
    fn bytes_are_counted_as_asked_for() {
        let mut replay = Replay::new(Kind::Lru, 10, Unit::Objects);
        [(1, 4), (1, 9), (2, 6)].iter().for_each(|&(id, size)| replay.request(&request(id, size)));
        let want = Tally { requests: 3, hits: 1, bytes: 19, hit_bytes: 9 };
        assert_eq!(replay.tally(), want);
        assert_eq!(replay.tally().miss_ratio(), Some(2.0 / 3.0));
        assert_eq!(Tally::default().miss_ratio(), None);
    }

    #[test]
    fn key_is_the_id_in_decimal_digits() {
        for (id, digits) in [(0, "0"), (42, "42"), (u64::MAX, "18446744073709551615")] {
            let request = request(id, 1);
            assert_eq!(request.key, key_hash(digits.as_bytes()));
            assert_eq!(usize::from(request.key_bytes), digits.len());
        }
    }

    #[test]
    fn figures_do_not_depend_on_the_number_of_threads() {
        let requests = zipf_requests(3 * BATCH_REQUESTS as u64 + 17, 100..=4096);
        let tallies = |jobs| {
            let mut replays: Vec<Replay> = Kind::ALL
                .into_iter()
                .flat_map(|kind| [50, 500].map(|size| Replay::new(kind, size, Unit::Objects)))
                .collect();
            let requests = requests.iter().copied().map(Ok::<_, ()>);
            play(requests, &mut replays, NonZeroUsize::new(jobs).unwrap()).unwrap();
            replays.iter().map(Replay::tally).collect::<Vec<Tally>>()
        };
        assert_eq!(tallies(1), tallies(3));
        assert_eq!(tallies(1), tallies(64));
        assert!(tallies(2).iter().all(|tally| tally.requests == requests.len() as u64));
    }

    #[test]
    fn error_ends_the_replay_behind_what_came_before_it() {
        let mut replays = [Replay::new(Kind::Lru, 9, Unit::Objects)];
        let requests = [Ok(request(1, 1)), Ok(request(1, 1)), Err("torn"), Ok(request(1, 1))];
        let outcome = play(requests.into_iter(), &mut replays, NonZeroUsize::MIN);
        assert_eq!(outcome, Err("torn"));
        assert_eq!(replays[0].tally().requests, 2);
    }

    fn zipf_requests(requests: u64, value_bytes: RangeInclusive<u32>) -> Vec<Request> {
        let accesses = zipf_accesses(requests, 20_000, value_bytes);
        accesses.into_iter().map(Request::from).collect()
    }

    fn zipf_accesses(requests: u64, objects: u64, value_bytes: RangeInclusive<u32>) -> Vec<Access> {
        let (alpha, requests_per_s, seed) = (0.8, 1000, 5);
        let spec = zipf::Spec { requests, objects, alpha, value_bytes, requests_per_s, seed };
        zipf::Generator::new(spec).unwrap().collect()
    }

    /// Plays `accesses` against the store itself, bytes and all, as a look-aside client.
    fn store_hits(policy: Kind, memory_bytes: u64, shape: ServerShape, accesses: &[Access]) -> u64 {
        let item_bytes_max = shape.item_bytes_max;
        let geometry = Geometry::new(memory_bytes, item_bytes_max, shape.threads);
        let mut shards: Vec<Shard> = (0..geometry.shard_count)
            .map(|shard| {
                Shard::new(Config {
                    geometry,
                    item_bytes_max,
                    policy,
                    evicts: true,
                    protected: store::Protected::NONE,
                    shard,
                })
            })
            .collect();
        let now = Timestamp::from_secs(1_800_000_000);
        let zeros = vec![0; 1 << 20];
        let mut hits = 0;
        for access in accesses {
            let digits = access.id.to_string();
            let key = Key::new(digits.as_bytes());
            let shard = &mut shards[geometry.shard_of(key.hash()) as usize];
            if shard.get(&key, now).is_some() {
                hits += 1;
                continue;
            }
            let value = [&zeros[..access.size_bytes as usize]];
            let (client_flags, deadline) = (0, Deadline::NEVER);
            let new = NewItem { client_flags, deadline, value: &value, own_cas: None };
            shard.put(&key, &new, Precondition::None, now);
        }
        hits
    }

    #[test]
    fn server_replay_predicts_the_store_hit_for_hit() {
        let memory_bytes = 8 << 20;
        // Small items, middling ones, and large ones: those are in parts, some too large to store.
        for (item_bytes_max, requests, value_bytes) in [
            (1 << 20, 250_000, 50..=100),
            (64 << 10, 60_000, 100..=4096),
            (64 << 10, 60_000, 10_000..=80_000),
        ] {
            let shape = ServerShape { threads: 2, item_bytes_max };
            let accesses = zipf_accesses(requests, requests, value_bytes.clone());
            let unique: HashSet<u64> = accesses.iter().map(|access| access.id).collect();
            for kind in Kind::ALL {
                let mut replay = Replay::of_server(kind, memory_bytes, shape, Expiry::Eager);
                accesses.iter().for_each(|&access| replay.request(&access.into()));
                let hits = replay.tally().hits;
                let of_store = store_hits(kind, memory_bytes, shape, &accesses);
                assert_eq!(hits, of_store, "{kind}, values of {value_bytes:?} bytes");
                assert!(hits < (accesses.len() - unique.len()) as u64, "something was evicted");
            }
        }
    }
}
