//! Whoever looks on while requests are served: watchers of what happens, and counts by the keys' prefixes.
//!
//! ```text
//! service ──look, outcome──▶ Observer ──lines, once a turn──▶ watchers.rs ──▶ connections that watch
//!                            one a worker `─each request────▶ prefixes.rs ──▶ stats detail dump
//! shards ──changed keys, before they are unlocked───────────▶ changes.rs ───▶ connections that watch changes
//! ```
//!
//! While nobody looks on this costs a worker one load a turn and one branch a request.
//!
//! Every command on a key looks it up first, and the lookup is a line of its own (`item_get`), that of a write
//! too: as in memcached, and programs that read the stream count on it.

pub(crate) mod changes;
pub(crate) mod line;
mod prefixes;
mod watchers;

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use protocol::binary::request::{BinaryRequest, Command};
use protocol::changes::{CHANGES, decode_prefixes};
use protocol::request::StoreMode;
use protocol::token::Tokens;
use protocol::{Exptime, ProtocolError, Refusal, Request};
use store::{Key, Look, PutOutcome, Shard, Timestamp, Victims};

use self::changes::ChangeFeed;
use self::line::Stored;
use self::prefixes::{Asked, Prefixes};
pub use self::watchers::LogCounters;
use self::watchers::{Feed, Lines, Watchers, topic};
use crate::clock::Now;
use crate::config::Inspection;
use crate::net::CloseReason;
use crate::net::buffers::{Gauge, Lease};
use crate::net::registry::ConnectionRecord;
use crate::net::side_stream::SideStream;
use crate::shards::Shards;

/// Beside the topics of watchers: requests are counted by prefix.
const PREFIXES: u32 = 1 << 31;

/// Who is connected where no client of this server is: a request that another node passed on.
const NO_CLIENT: RawFd = 0;

/// What all workers share of it.
#[derive(Debug)]
pub struct Observation {
    /// The topics that anybody watches, and [`PREFIXES`].
    wanted: CachePadded<AtomicU32>,
    watchers: Watchers,
    /// Held while watchers come or go, so that what is wanted and who watches agree.
    changing: Mutex<()>,
    prefixes: Prefixes,
    watching_allowed: bool,
    feed_bytes_max: usize,
    worker_bytes_max: usize,
    /// The memory of all connections' buffers, of which watchers have theirs.
    buffers: Arc<Gauge>,
    shards: Arc<Shards>,
}

/// Why nobody watches now who wanted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchRefused {
    /// `-W`.
    NotAllowed,
    /// There is no such topic.
    UnknownTopic,
    /// No key begins so, or too many prefixes are named.
    BadPrefix,
    /// There are too many already.
    TooMany,
    /// There is no memory for the lines.
    OutOfMemory,
}

impl WatchRefused {
    pub(crate) fn line(self) -> &'static str {
        match self {
            Self::NotAllowed => "CLIENT_ERROR watch commands not allowed\r\n",
            Self::UnknownTopic => "ERROR\r\n",
            Self::BadPrefix => "CLIENT_ERROR bad prefix\r\n",
            Self::TooMany => "WATCHER_TOO_MANY log watcher limit reached\r\n",
            Self::OutOfMemory => "WATCHER_FAILED failed to add log watcher\r\n",
        }
    }
}

impl Observation {
    /// Nobody looks on yet, unless prefixes are counted from the start.
    pub fn new(shards: Arc<Shards>, buffers: Arc<Gauge>, inspection: &Inspection) -> Self {
        let wanted = if inspection.counts_prefixes { PREFIXES } else { 0 };
        Self {
            wanted: CachePadded::new(AtomicU32::new(wanted)),
            watchers: Watchers::default(),
            changing: Mutex::new(()),
            prefixes: Prefixes::new(inspection.prefix_delimiter),
            watching_allowed: inspection.watches,
            feed_bytes_max: inspection.watcher_buffer_bytes,
            worker_bytes_max: inspection.worker_buffer_bytes,
            buffers,
            shards,
        }
    }

    /// Whether requests are counted by prefix.
    pub fn counts_prefixes(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) & PREFIXES != 0
    }

    /// Counts requests by prefix from now on, or does not any more. What was counted stays.
    pub fn set_counting_prefixes(&self, counts: bool) {
        if counts {
            self.wanted.fetch_or(PREFIXES, Ordering::Relaxed);
        } else {
            self.wanted.fetch_and(!PREFIXES, Ordering::Relaxed);
        }
    }

    /// Appends the counts by prefix, as `stats detail dump` answers.
    pub fn dump_prefixes(&self, out: &mut Vec<u8>) {
        self.prefixes.dump(out);
    }

    /// What ends a prefix.
    pub fn prefix_delimiter(&self) -> u8 {
        self.prefixes.delimiter()
    }

    /// Lines written, sent and left out, and how many watch.
    pub fn log_counters(&self) -> LogCounters {
        let subscribers = self.shards.subscribers();
        let (sent, skipped) = subscribers.lines();
        let mut counters = self.watchers.counters();
        counters.watcher_sent += sent;
        counters.watcher_skipped += skipped;
        counters.watchers += subscribers.count();
        counters
    }

    /// Sets counters to zero, those by prefix too.
    pub fn reset_counters(&self) {
        self.watchers.reset_counters();
        self.shards.subscribers().reset_counters();
        self.prefixes.clear();
    }

    /// Lets somebody watch what `topics` name, fetches if they name nothing; or which keys change.
    pub(crate) fn watch(
        self: &Arc<Self>,
        mut topics: Tokens<'_>,
    ) -> Result<Arc<dyn SideStream>, WatchRefused> {
        if !self.watching_allowed {
            return Err(WatchRefused::NotAllowed);
        }
        if topics.clone().next() == Some(CHANGES) {
            topics.next();
            return self.watch_changes(topics);
        }
        let mut wanted = 0;
        for word in topics {
            wanted |= topic::of(word).ok_or(WatchRefused::UnknownTopic)?;
        }
        if wanted == 0 {
            wanted = topic::FETCHERS;
        }
        let lease = self.lease()?;
        let _changing = self.changing.lock();
        let feed = self.watchers.add(wanted, lease).ok_or(WatchRefused::TooMany)?;
        self.note_topics();
        Ok(Arc::new(Watching { feed, observation: Arc::clone(self) }))
    }

    fn watch_changes(
        self: &Arc<Self>,
        prefixes: Tokens<'_>,
    ) -> Result<Arc<dyn SideStream>, WatchRefused> {
        let prefixes = decode_prefixes(prefixes).ok_or(WatchRefused::BadPrefix)?;
        let lease = self.lease()?;
        let _changing = self.changing.lock();
        let note = |notes| self.shards.set_noting_changed_keys(notes);
        let feed = self.shards.subscribers().add(prefixes, lease, note);
        let feed = feed.ok_or(WatchRefused::TooMany)?;
        Ok(Arc::new(Subscribed { feed, observation: Arc::clone(self) }))
    }

    fn lease(&self) -> Result<Lease, WatchRefused> {
        let mut lease = Lease::new(Arc::clone(&self.buffers));
        if lease.resize(self.feed_bytes_max) { Ok(lease) } else { Err(WatchRefused::OutOfMemory) }
    }

    fn leave(&self, feed: &Arc<Feed>) {
        let _changing = self.changing.lock();
        self.watchers.remove(feed);
        self.note_topics();
    }

    /// Has workers and shards know what is watched now.
    fn note_topics(&self) {
        let topics = self.watchers.topics();
        let before = self.wanted.load(Ordering::Relaxed);
        self.wanted.fetch_or(topics, Ordering::Relaxed);
        self.wanted.fetch_and(topics | PREFIXES, Ordering::Relaxed);
        if (topics ^ before) & topic::EVICTIONS != 0 {
            self.shards.set_noting_victims(topics & topic::EVICTIONS != 0);
        }
    }
}

/// Somebody who watches, until it is dropped.
#[derive(Debug)]
struct Watching {
    feed: Arc<Feed>,
    observation: Arc<Observation>,
}

impl SideStream for Watching {
    fn poll_take(&self, context: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<()> {
        self.feed.poll_take(context, into)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.observation.leave(&self.feed);
    }
}

/// Somebody who is told which keys have changed, until it is dropped.
#[derive(Debug)]
struct Subscribed {
    feed: Arc<ChangeFeed>,
    observation: Arc<Observation>,
}

impl SideStream for Subscribed {
    fn poll_take(&self, context: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<()> {
        self.feed.poll_take(context, into, self.observation.shards.subscribers())
    }

    fn hear(&self, bytes: &[u8]) {
        self.feed.hear(bytes);
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        let _changing = self.observation.changing.lock();
        let shards = &self.observation.shards;
        shards.subscribers().remove(&self.feed, |notes| shards.set_noting_changed_keys(notes));
    }
}

/// How one worker looks on.
#[derive(Debug)]
pub(crate) struct Observer {
    shared: Arc<Observation>,
    /// What was wanted when the turn began.
    wanted: u32,
    /// Whose turn it is.
    client: RawFd,
    lines: RefCell<Lines>,
    victims: RefCell<Victims>,
    /// How the write that is being carried out ended.
    put: Cell<Option<PutOutcome>>,
}

impl Observer {
    pub(crate) fn new(shared: Arc<Observation>) -> Self {
        Self {
            shared,
            wanted: 0,
            client: NO_CLIENT,
            lines: RefCell::default(),
            victims: RefCell::default(),
            put: Cell::new(None),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Observation> {
        &self.shared
    }

    /// A turn begins, of this client's.
    #[inline]
    pub(crate) fn begin_turn(&mut self, client: RawFd) {
        self.client = client;
        self.wanted = self.shared.wanted.load(Ordering::Relaxed);
    }

    /// The requests that follow were passed on by another node.
    pub(crate) fn begin_turn_of_other_node(&mut self) {
        self.begin_turn(NO_CLIENT);
    }

    /// Whether anybody looks on.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.wanted != 0
    }

    /// What the turn left to tell is told.
    #[inline]
    pub(crate) fn end_turn(&mut self) {
        if self.is_on() {
            self.hand_over();
        }
    }

    #[cold]
    fn hand_over(&self) {
        let mut lines = self.lines.borrow_mut();
        if !lines.is_empty() {
            self.shared.watchers.tell(&mut lines);
        }
    }

    /// A key of a get is about to be read.
    #[cold]
    pub(crate) fn fetches(&self, key: &Key<'_>, look: Look, now: Timestamp) {
        self.count(key, || Asked::Get { hit: matches!(look, Look::Item { .. }) });
        self.looks_up(key, look, now);
    }

    /// A request on a key, other than a get, is about to be carried out.
    #[cold]
    pub(crate) fn begins(&self, request: &Request<'_>, key: &Key<'_>, look: Look, now: Timestamp) {
        self.put.set(None);
        match request {
            // Told where it is read, as those of gets are.
            Request::Binary(BinaryRequest {
                command: Command::Get(_) | Command::Touch { .. },
                ..
            }) => return,
            Request::Store(_)
            | Request::Binary(BinaryRequest { command: Command::Store(_), .. }) => {
                self.count(key, || Asked::Set);
            }
            Request::Delete(_)
            | Request::Binary(BinaryRequest { command: Command::Delete { .. }, .. }) => {
                self.count(key, || Asked::Delete);
            }
            _ => {}
        }
        self.looks_up(key, look, now);
    }

    /// The write that is being carried out ended so.
    #[inline]
    pub(crate) fn puts(&self, outcome: PutOutcome) {
        if self.is_on() {
            self.put.set(Some(outcome));
        }
    }

    /// A request on a key was carried out. `look` is what was there before.
    #[cold]
    pub(crate) fn ended(
        &self,
        request: &Request<'_>,
        key: &Key<'_>,
        look: Look,
        shard: &mut Shard,
        now: Timestamp,
    ) {
        if let Some(outcome) = self.put.take()
            && let Some((command, exptime, value_bytes)) = written(request)
        {
            let stored = Stored { outcome, command, ttl_s: ttl_s(exptime, now), value_bytes };
            self.tell(topic::MUTATIONS, "item_store", now, |out, client| {
                line::item_store(out, key.bytes(), stored, client);
            });
        }
        let deletes = match request {
            Request::Delete(_)
            | Request::Binary(BinaryRequest { command: Command::Delete { .. }, .. }) => {
                Some("delete")
            }
            Request::MetaDelete(_) => Some("md"),
            _ => None,
        };
        if let (Some(command), Look::Item { value_bytes }) = (deletes, look)
            && shard.look(key, now) == Look::Nothing
        {
            self.tell(topic::DELETIONS, "deleted", now, |out, _| {
                line::deleted(out, key.bytes(), command, value_bytes);
            });
        }
        self.tell_victims(shard, now);
    }

    /// A write was refused before it came to its shard.
    #[cold]
    pub(crate) fn refuses(&self, refusal: &Refusal<'_>, now: Now) {
        let outcome = match refusal.error {
            ProtocolError::TooLarge => PutOutcome::TooLarge,
            ProtocolError::OutOfMemoryStoring => PutOutcome::OutOfMemory,
            _ => return,
        };
        let Some(key) = &refusal.invalidates else { return };
        let mut scratch = protocol::meta::request::KeyScratch::default();
        let key = key.key(&mut scratch);
        let stored = Stored { outcome, command: "set", ttl_s: 0, value_bytes: 0 };
        self.tell(topic::MUTATIONS, "item_store", Timestamp(now.unix_ms), |out, client| {
            line::item_store(out, key.as_bytes(), stored, client);
        });
    }

    /// A client came, or left for a reason.
    pub(crate) fn connection(
        &mut self,
        record: &ConnectionRecord,
        reason: Option<CloseReason>,
        now: Now,
    ) {
        self.begin_turn(record.fd);
        let kind = if reason.is_some() { "conn_close" } else { "conn_new" };
        self.tell(topic::CONNECTIONS, kind, Timestamp(now.unix_ms), |out, _| {
            line::connection(out, record, reason);
        });
        self.end_turn();
    }

    fn tell_victims(&self, shard: &mut Shard, now: Timestamp) {
        if self.wanted & topic::EVICTIONS == 0 {
            return;
        }
        let mut victims = self.victims.borrow_mut();
        shard.take_victims(&mut victims);
        for victim in victims.iter() {
            self.tell(topic::EVICTIONS, "eviction", now, |out, _| {
                line::eviction(out, &victim, Now { unix_ms: now.0 });
            });
        }
        if victims.lost() > 0 {
            self.shared.watchers.count_dropped(victims.lost());
        }
    }

    fn looks_up(&self, key: &Key<'_>, look: Look, now: Timestamp) {
        self.tell(topic::FETCHERS, "item_get", now, |out, client| {
            line::item_get(out, key.bytes(), look, client);
        });
    }

    fn count(&self, key: &Key<'_>, asked: impl FnOnce() -> Asked) {
        if self.wanted & PREFIXES != 0 {
            self.shared.prefixes.count(key.bytes(), asked());
        }
    }

    /// Writes a line about `topic`, if anybody wants it.
    fn tell(&self, topic: u32, kind: &str, now: Timestamp, rest: impl FnOnce(&mut Vec<u8>, RawFd)) {
        if self.wanted & topic == 0 {
            return;
        }
        let mut lines = self.lines.borrow_mut();
        let (now, gid) = (Now { unix_ms: now.0 }, self.shared.watchers.next_gid());
        line::begin(&mut lines.bytes, now, gid, kind);
        rest(&mut lines.bytes, self.client);
        lines.end_line(topic);
        if lines.bytes.len() >= self.shared.worker_bytes_max {
            self.shared.watchers.tell(&mut lines);
        }
    }
}

/// What a request writes: its command as memcached calls it, its expiry, the length of its data. None of those
/// that write what the client did not send.
fn written(request: &Request<'_>) -> Option<(&'static str, Exptime, usize)> {
    let (mode, compares, exptime, data) = match request {
        Request::Store(store)
        | Request::Binary(BinaryRequest { command: Command::Store(store), .. }) => {
            (store.mode, store.compare_cas.is_some(), store.exptime, store.data)
        }
        Request::MetaSet(set) => (set.mode, set.compare_cas.is_some(), set.exptime, set.data),
        _ => return None,
    };
    let command = match mode {
        StoreMode::Set | StoreMode::Replace if compares => "cas",
        StoreMode::Set => "set",
        StoreMode::Add => "add",
        StoreMode::Replace => "replace",
        StoreMode::Append => "append",
        StoreMode::Prepend => "prepend",
    };
    Some((command, exptime, data.len()))
}

/// Seconds until an item with this expiry, written now, expires; 0 if it does not. One that is stored and
/// expired at once has the largest number, as memcached's, whose difference is below zero and unsigned.
fn ttl_s(exptime: Exptime, now: Timestamp) -> u32 {
    match exptime {
        Exptime::Never => 0,
        Exptime::Immediate => u32::MAX,
        Exptime::After { seconds } => seconds,
        Exptime::At { unix_s } => {
            let left_s = unix_s.saturating_sub(now.as_secs());
            if left_s > 0 { left_s } else { u32::MAX }
        }
    }
}
