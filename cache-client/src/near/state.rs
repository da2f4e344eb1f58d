//! What is near, and whether it may be served: a state machine without sockets or clocks.
//!
//! ```text
//!                       begin ──▶ token: the key's generation, the epoch, the time
//! get ──find──▶ miss ──┤                            ...the server is asked...
//!          `──▶ hit    finish ──▶ kept, if no change of the key was told meanwhile and nothing was flushed
//! ```
//!
//! Three facts bound how old a hit can be:
//!
//! - **What was asked for before a change was told is not kept.** The answer may be from before the change. A change
//!   that is told counts up the generation of the key's slot, a flush the epoch. What is asked for afterwards sees
//!   the change: servers tell of one before they let anybody see it, and not before they stop showing what was there.
//! - **What was kept is dropped when a change is told**, and everything when a stream is lost.
//! - **What relies on streams is served only while all of them are known to be up to date**, as of no longer ago than
//!   allowed. That is looked at when it is served, not left to a timer.
//!
//! What was kept while a stream of its key was down relies on none: it lives for a short time from when it was asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eviction::{Admission, EntryId, KeyHash, Kind, Policy};
use xxhash_rust::xxh3::xxh3_64;

use crate::value::Value;

/// Keys that fall together lose an answer now and then, nothing else.
const GENERATIONS: usize = 4096;

/// Upper bound of what an entry takes beside key, value and what its policy notes: its row, its place in the table,
/// and what allocations add.
const ENTRY_BYTES: usize = 256;

/// What is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) bytes_max: usize,
    pub(super) eviction: Kind,
    /// The longest life here.
    pub(super) ttl_max: Duration,
    /// The life of what relies on no stream; `None` where that is not kept.
    pub(super) short_ttl: Option<Duration>,
    /// The longest life of "there is none"; `None` where that is not kept.
    pub(super) absent_ttl_max: Option<Duration>,
}

/// Something that tells of changes, or of who does: to be heard from again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SourceId(pub(super) u64);

impl SourceId {
    /// Not a stream of changes: whoever keeps a cluster's map fresh, which says who tells of what.
    pub(super) const MAP: Self = Self(0);
}

/// How up to date a source is.
#[derive(Clone, Copy, Debug)]
struct Source {
    through: Instant,
    /// How long ago that may be.
    age_max: Duration,
}

/// What was looked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It is near: a value, or that there is none.
    Hit(Option<Value>),
    Miss,
}

/// A question under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    epoch: u64,
    generation: u64,
    asked_at: Instant,
    relies_on_streams: bool,
}

/// What a server answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) value: Option<&'a Value>,
    /// What is left of its life, in seconds, rounded up; `None` for no end.
    pub(super) ttl_s: Option<u32>,
}

/// What happened so far, and what there is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NearCounters {
    /// Reads that were served from here.
    pub hits: u64,
    /// Of those, how many were told that there is no item.
    pub hits_absent: u64,
    /// Reads that went to a server.
    pub misses: u64,
    /// Of those, how many found a value here that could not be shown to be up to date.
    pub misses_withheld: u64,
    /// Answers that were kept.
    pub kept: u64,
    /// Answers that were not kept, since a change was told while they were under way.
    pub raced: u64,
    /// Changes of single keys that were told, by servers or by writes through here.
    pub changes: u64,
    /// Of those, how many dropped something.
    pub dropped: u64,
    /// How often everything was dropped.
    pub flushes: u64,
    /// What left for want of room.
    pub evicted: u64,
    /// Items that are near now.
    pub items: usize,
    /// The bytes they take.
    pub bytes: usize,
    /// Streams that are up now.
    pub streams: usize,
}

impl NearCounters {
    /// Which part of the reads was served from here.
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn hit_ratio(&self) -> f64 {
        self.hits as f64 / (self.hits + self.misses).max(1) as f64
    }
}

/// What is near.
pub(super) struct State {
    limits: Limits,
    policy: Box<dyn Policy>,
    ids: HashMap<Arc<[u8]>, EntryId>,
    entries: Vec<Option<Entry>>,
    free: Vec<EntryId>,
    bytes: usize,
    /// How many changes were told, by the hash of their keys.
    generations: Vec<u64>,
    /// How often everything was dropped.
    epoch: u64,
    /// Those that there are; `None` for one that does not tell at present.
    sources: BTreeMap<SourceId, Option<Source>>,
    /// Until when all of them are up to date enough.
    fresh_until: Option<Instant>,
    counters: NearCounters,
}

struct Entry {
    key: Arc<[u8]>,
    value: Option<Value>,
    ends_at: Instant,
    relies_on_streams: bool,
    bytes: usize,
}

impl State {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            policy: policy(limits),
            ids: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            bytes: 0,
            generations: vec![0; GENERATIONS],
            epoch: 0,
            sources: BTreeMap::new(),
            fresh_until: None,
            counters: NearCounters::default(),
        }
    }

    pub(super) fn counters(&self) -> NearCounters {
        let streams = self.sources.iter().filter(|(id, it)| **id != SourceId::MAP && it.is_some());
        NearCounters {
            items: self.ids.len(),
            bytes: self.bytes,
            streams: streams.count(),
            ..self.counters
        }
    }

    /// Looks for a key.
    pub(super) fn find(&mut self, key: &[u8], now: Instant) -> Look {
        let found = self.ids.get(key).copied();
        let row = found.and_then(|id| Some((id, self.entries.get(id.index())?.as_ref()?)));
        let Some((id, entry)) = row else { return self.miss() };
        if now >= entry.ends_at {
            self.remove(id);
            return self.miss();
        }
        if entry.relies_on_streams && self.fresh_until.is_none_or(|until| now > until) {
            self.counters.misses_withheld += 1;
            return self.miss();
        }
        let value = entry.value.clone();
        self.policy.on_hit(id);
        self.counters.hits += 1;
        self.counters.hits_absent += u64::from(value.is_none());
        Look::Hit(value)
    }

    fn miss(&mut self) -> Look {
        self.counters.misses += 1;
        Look::Miss
    }

    /// A server is about to be asked for a key. `sources` are all who could tell of a change of it; none where that is
    /// not known.
    pub(super) fn begin(&self, key: &[u8], sources: &[SourceId], now: Instant) -> Token {
        let is_up = |source| self.sources.get(source).is_some_and(Option::is_some);
        Token {
            epoch: self.epoch,
            generation: self.generations[slot_of(key)],
            asked_at: now,
            relies_on_streams: !sources.is_empty() && sources.iter().all(is_up),
        }
    }

    /// The server has answered.
    pub(super) fn finish(&mut self, token: Token, key: &[u8], answer: Answer<'_>, now: Instant) {
        if token.epoch != self.epoch || token.generation != self.generations[slot_of(key)] {
            self.counters.raced += 1;
            return;
        }
        let Some(life) = self.life(token, answer) else { return };
        let ends_at = token.asked_at + life;
        if now < ends_at {
            self.insert(key, answer.value, ends_at, token.relies_on_streams);
        }
    }

    /// How long an answer may be kept.
    fn life(&self, token: Token, answer: Answer<'_>) -> Option<Duration> {
        let Limits { ttl_max, short_ttl, absent_ttl_max, .. } = self.limits;
        let mut life = if token.relies_on_streams { ttl_max } else { short_ttl? };
        if answer.value.is_none() {
            life = life.min(absent_ttl_max?);
        }
        if let Some(left_s) = answer.ttl_s {
            // What is left was rounded up.
            life = life.min(Duration::from_secs(left_s.saturating_sub(1).into()));
        }
        Some(life)
    }

    /// A change of this key was told, or is made here.
    pub(super) fn changed(&mut self, key: &[u8]) {
        self.generations[slot_of(key)] += 1;
        self.counters.changes += 1;
        if let Some(&id) = self.ids.get(key) {
            self.counters.dropped += 1;
            self.remove(id);
        }
    }

    /// Any key may have changed, or what is known of changes is worth nothing any more.
    pub(super) fn flush(&mut self) {
        self.epoch += 1;
        self.counters.flushes += 1;
        self.policy = policy(self.limits);
        self.ids.clear();
        self.entries.clear();
        self.free.clear();
        self.bytes = 0;
    }

    /// There is another source, which does not tell yet.
    pub(super) fn add_source(&mut self, source: SourceId) {
        self.sources.insert(source, None);
    }

    /// A source tells of all changes from now on, or is known to have told of all until then.
    pub(super) fn heard(&mut self, source: SourceId, through: Instant, age_max: Duration) {
        // One that was removed may still have something to say.
        if let Some(known) = self.sources.get_mut(&source) {
            *known = Some(Source { through, age_max });
            self.note_freshness();
        }
    }

    /// A source does not tell any more, for the time being.
    pub(super) fn lost(&mut self, source: SourceId) {
        if let Some(known) = self.sources.get_mut(&source)
            && known.take().is_some()
        {
            self.note_freshness();
            self.flush();
        }
    }

    /// A source does not matter any more.
    pub(super) fn remove_source(&mut self, source: SourceId) {
        self.lost(source);
        self.sources.remove(&source);
    }

    fn note_freshness(&mut self) {
        self.fresh_until = self.sources.values().flatten().map(|it| it.through + it.age_max).min();
    }

    fn insert(
        &mut self,
        key: &[u8],
        value: Option<&Value>,
        ends_at: Instant,
        relies_on_streams: bool,
    ) {
        let bytes = footprint(self.limits.eviction, key, value);
        let Ok(weight) = u32::try_from(bytes) else { return };
        if bytes > self.limits.bytes_max {
            return;
        }
        if let Some(&id) = self.ids.get(key) {
            // Two questions were under way; the answer that comes last is as good as the first.
            self.remove(id);
        }
        let hash = KeyHash(xxh3_64(key));
        if self.policy.before_insert(hash, weight) == Admission::Refuse {
            return;
        }
        while self.bytes + bytes > self.limits.bytes_max {
            let Some(victim) = self.policy.evict() else { return };
            self.counters.evicted += 1;
            self.forget(victim);
        }
        let key: Arc<[u8]> = key.into();
        let entry = Entry {
            key: Arc::clone(&key),
            value: value.cloned(),
            ends_at,
            relies_on_streams,
            bytes,
        };
        let id = self.place(entry);
        self.ids.insert(key, id);
        self.bytes += bytes;
        self.policy.on_insert(id, hash, weight);
        self.counters.kept += 1;
    }

    fn place(&mut self, entry: Entry) -> EntryId {
        if let Some(id) = self.free.pop() {
            self.entries[id.index()] = Some(entry);
            return id;
        }
        let id = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push(Some(entry));
        EntryId(id)
    }

    fn remove(&mut self, id: EntryId) {
        self.policy.on_remove(id);
        self.forget(id);
    }

    /// Drops an entry that the policy has forgotten.
    fn forget(&mut self, id: EntryId) {
        if let Some(entry) = self.entries[id.index()].take() {
            self.ids.remove(&entry.key);
            self.bytes -= entry.bytes;
            self.free.push(id);
        }
    }
}

fn policy(limits: Limits) -> Box<dyn Policy> {
    let least = ENTRY_BYTES + limits.eviction.entry_bytes() as usize;
    limits.eviction.build(limits.bytes_max as u64, limits.bytes_max / least)
}

/// What an entry takes.
fn footprint(eviction: Kind, key: &[u8], value: Option<&Value>) -> usize {
    let value_bytes = value.map_or(0, |value| value.data.len());
    ENTRY_BYTES + eviction.entry_bytes() as usize + key.len() + value_bytes
}

fn slot_of(key: &[u8]) -> usize {
    usize::try_from(xxh3_64(key) % GENERATIONS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests;
