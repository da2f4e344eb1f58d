//! Who is told which keys have changed: `watch changes`.
//!
//! ```text
//! shard, locked ──keys──▶ Subscribers ──▶ feed: | lines, at most so many bytes | ──▶ connection
//!                                               `- a ping is answered in its place among them
//! ```
//!
//! - The lines of a change are in the feeds before its shard is unlocked, hence before any reader sees the change,
//!   whoever made it: a request, another node of the cluster, a flush that has come due.
//! - Nobody waits for a subscriber. What is too much for a feed empties it, and the subscriber is told first of all
//!   how many lines that were: to be told of some changes is worth nothing to it.
//! - While nobody subscribes, a shard notes nothing, and unlocking one looks at a field of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, RwLock};
use protocol::changes::{ChangeLine, PING};
use store::ChangedKeys;

use crate::net::buffers::Lease;

/// Subscribers at the same time: each costs every write a look at its prefixes.
const SUBSCRIBERS_MAX: usize = 256;
/// Bytes handed to a connection at once. More than the longest line.
const TAKEN_BYTES_MAX: usize = 16 << 10;

/// The lines of one subscriber.
#[derive(Debug)]
pub(crate) struct ChangeFeed {
    /// What its keys begin with; none for all keys.
    prefixes: Vec<Box<[u8]>>,
    /// On its buffer, from the memory that all connections share.
    lease: Lease,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Whether all shards tell of changes by now.
    is_open: bool,
    bytes: Vec<u8>,
    /// The first of them that was not taken.
    start: usize,
    /// Lines of changes among them.
    lines: u64,
    /// Lines that were left out before those.
    skipped: u64,
    /// Whether the last line says that everything has changed.
    ends_with_all: bool,
    pings: u64,
    reader: Option<Waker>,
}

impl Waiting {
    fn change(&mut self, line: ChangeLine<'_>, bytes_max: usize) {
        if !self.is_open || line == ChangeLine::All && self.ends_with_all {
            return;
        }
        self.lines += 1;
        self.push(line, bytes_max);
        self.ends_with_all = line == ChangeLine::All;
    }

    /// Adds a line, or, where there is no room for it, takes out all there are.
    fn push(&mut self, line: ChangeLine<'_>, bytes_max: usize) {
        line.encode(&mut self.bytes);
        if self.bytes.len() - self.start <= bytes_max {
            return;
        }
        self.skipped += std::mem::take(&mut self.lines);
        self.bytes.clear();
        self.start = 0;
        self.ends_with_all = false;
        if self.pings > 0 {
            // One that was not taken yet may have been among them.
            ChangeLine::Alive(self.pings).encode(&mut self.bytes);
        }
    }

    /// Whoever waits for lines, if there are any.
    fn take_reader(&mut self) -> Option<Waker> {
        if self.is_empty() { None } else { self.reader.take() }
    }

    fn is_empty(&self) -> bool {
        self.start == self.bytes.len() && self.skipped == 0
    }
}

impl ChangeFeed {
    fn new(prefixes: Vec<Box<[u8]>>, lease: Lease) -> Self {
        Self { prefixes, lease, waiting: Mutex::default() }
    }

    /// All shards tell of changes by now: whatever the subscriber asks them for after this line is up to date, or it
    /// will be told.
    fn open(&self) {
        self.with(|waiting, _| {
            waiting.bytes.extend_from_slice(b"OK\r\n");
            waiting.is_open = true;
        });
    }

    /// The client has said something; some of it may be pings.
    pub(super) fn hear(&self, bytes: &[u8]) {
        let pings = bytes.iter().filter(|&&byte| byte == PING).count() as u64;
        if pings > 0 {
            self.with(|waiting, bytes_max| {
                waiting.pings += pings;
                waiting.push(ChangeLine::Alive(waiting.pings), bytes_max);
            });
        }
    }

    fn wants(&self, key: &[u8]) -> bool {
        self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| key.starts_with(prefix))
    }

    fn with(&self, act: impl FnOnce(&mut Waiting, usize)) {
        let mut waiting = self.waiting.lock();
        act(&mut waiting, self.lease.bytes());
        let reader = waiting.take_reader();
        drop(waiting);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Appends whole lines, a bounded amount. With nothing there, waits until there is.
    pub(super) fn poll_take(
        &self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
        counters: &Subscribers,
    ) -> Poll<()> {
        let mut waiting = self.waiting.lock();
        if waiting.is_empty() {
            waiting.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let skipped = std::mem::take(&mut waiting.skipped);
        if skipped > 0 {
            ChangeLine::Skipped(skipped).encode(into);
            counters.skipped.fetch_add(skipped, Ordering::Relaxed);
        }
        let rest = &waiting.bytes[waiting.start..];
        let window = &rest[..rest.len().min(TAKEN_BYTES_MAX)];
        let len = window.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        into.extend_from_slice(&window[..len]);
        let lines = window[..len].split(|&byte| byte == b'\n').filter(|it| is_change(it)).count();
        waiting.lines -= lines as u64;
        counters.sent.fetch_add(lines as u64, Ordering::Relaxed);
        waiting.start += len;
        if waiting.start == waiting.bytes.len() {
            waiting.bytes.clear();
            waiting.start = 0;
            waiting.ends_with_all = false;
        } else if waiting.start >= self.lease.bytes() / 2 {
            let taken = waiting.start;
            waiting.bytes.drain(..taken);
            waiting.start = 0;
        }
        Poll::Ready(())
    }
}

/// Whether a line without its end tells of a change.
fn is_change(line: &[u8]) -> bool {
    line.starts_with(b"key=") || line == b"all"
}

/// Everybody who is told.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    /// Whether there are any: shards are to note changed keys then.
    is_any: AtomicBool,
    feeds: RwLock<Vec<Arc<ChangeFeed>>>,
    sent: AtomicU64,
    skipped: AtomicU64,
}

impl Subscribers {
    /// Whether shards are to note changed keys.
    pub(crate) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Relaxed)
    }

    /// Keys of a shard have changed, which is still locked.
    pub(crate) fn tell(&self, keys: &ChangedKeys) {
        if keys.is_all() {
            return self.tell_all();
        }
        for feed in self.feeds.read().iter() {
            feed.with(|waiting, bytes_max| {
                for key in keys.iter().filter(|key| feed.wants(key)) {
                    waiting.change(ChangeLine::Key(key), bytes_max);
                }
            });
        }
    }

    /// Any item may have changed.
    #[cold]
    pub(crate) fn tell_all(&self) {
        for feed in self.feeds.read().iter() {
            feed.with(|waiting, bytes_max| waiting.change(ChangeLine::All, bytes_max));
        }
    }

    /// Adds a subscriber, for whom so much memory is leased, and has `note` make the shards note changed keys;
    /// `None` when there are as many as there may be.
    pub(super) fn add(
        &self,
        prefixes: Vec<Box<[u8]>>,
        lease: Lease,
        note: impl FnOnce(bool),
    ) -> Option<Arc<ChangeFeed>> {
        let mut feeds = self.feeds.write();
        if feeds.len() >= SUBSCRIBERS_MAX {
            return None;
        }
        let feed = Arc::new(ChangeFeed::new(prefixes, lease));
        feeds.push(Arc::clone(&feed));
        let is_first = feeds.len() == 1;
        // Who holds a shard locked may be about to tell of it.
        drop(feeds);
        if is_first {
            self.is_any.store(true, Ordering::Relaxed);
            note(true);
        }
        feed.open();
        Some(feed)
    }

    pub(super) fn remove(&self, feed: &Arc<ChangeFeed>, note: impl FnOnce(bool)) {
        let mut feeds = self.feeds.write();
        feeds.retain(|it| !Arc::ptr_eq(it, feed));
        let is_last = feeds.is_empty();
        drop(feeds);
        if is_last {
            self.is_any.store(false, Ordering::Relaxed);
            note(false);
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.feeds.read().len() as u64
    }

    /// Lines that were taken, and such as were left out.
    pub(super) fn lines(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.skipped.load(Ordering::Relaxed))
    }

    pub(super) fn reset_counters(&self) {
        self.sent.store(0, Ordering::Relaxed);
        self.skipped.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::buffers::Gauge;

    struct Subscriber {
        subscribers: Subscribers,
        feed: Arc<ChangeFeed>,
    }

    impl Subscriber {
        fn with(prefixes: &[&str], bytes: usize) -> Self {
            let mut lease = Lease::new(Arc::new(Gauge::new(bytes)));
            assert!(lease.resize(bytes), "all of it is free");
            let subscribers = Subscribers::default();
            let prefixes = prefixes.iter().map(|prefix| prefix.as_bytes().into()).collect();
            let feed = subscribers.add(prefixes, lease, |notes| assert!(notes)).expect("the first");
            let subscriber = Self { subscribers, feed };
            assert_eq!(subscriber.take(), "OK\r\n");
            subscriber
        }

        fn change(&self, key: &str) {
            self.feed.with(|waiting, bytes_max| {
                if self.feed.wants(key.as_bytes()) {
                    waiting.change(ChangeLine::Key(key.as_bytes()), bytes_max);
                }
            });
        }

        fn take(&self) -> String {
            let (mut into, mut context) = (Vec::new(), Context::from_waker(Waker::noop()));
            while self.feed.poll_take(&mut context, &mut into, &self.subscribers).is_ready() {}
            String::from_utf8(into).expect("text")
        }
    }

    #[test]
    fn keys_are_told_in_order_to_those_whose_prefix_they_have() {
        let subscriber = Subscriber::with(&["user:", "x"], 4096);
        ["user:1", "session:1", "xy", "user"].iter().for_each(|key| subscriber.change(key));
        assert_eq!(subscriber.take(), "key=user%3A1\nkey=xy\n");
        assert_eq!(subscriber.subscribers.lines(), (2, 0));
    }

    #[test]
    fn a_ping_is_answered_behind_what_changed_before_it() {
        let subscriber = Subscriber::with(&[], 4096);
        subscriber.change("a");
        subscriber.feed.hear(b"\n \n");
        subscriber.change("b");
        assert_eq!(subscriber.take(), "key=a\nalive=2\nkey=b\n");
        subscriber.feed.hear(b"\n");
        assert_eq!(subscriber.take(), "alive=3\n");
    }

    #[test]
    fn everything_is_told_once_until_it_is_taken() {
        let subscriber = Subscriber::with(&["user:"], 4096);
        (0..3).for_each(|_| subscriber.subscribers.tell_all());
        assert_eq!(subscriber.take(), "all\n");
        subscriber.subscribers.tell_all();
        assert_eq!(subscriber.take(), "all\n");
    }

    #[test]
    fn who_is_too_slow_is_told_first_of_all_how_much_it_missed() {
        let subscriber = Subscriber::with(&[], 64);
        subscriber.feed.hear(b"\n");
        (0..100).for_each(|_| subscriber.change("0123456789"));
        let told = subscriber.take();
        let (skipped, rest) = told.split_once('\n').expect("lines");
        let skipped = skipped.strip_prefix("skipped=").and_then(|it| it.parse().ok());
        let rest = rest.strip_prefix("alive=1\n").expect("the ping is not forgotten");
        assert_eq!(skipped.unwrap_or(0) + rest.lines().count() as u64, 100);
        subscriber.change("next");
        assert_eq!(subscriber.take(), "key=next\n");
        assert_eq!(subscriber.subscribers.lines().1, skipped.unwrap_or(0));
    }

    #[test]
    fn what_changes_before_the_stream_is_open_is_not_told() {
        let subscribers = Subscribers::default();
        let feed = ChangeFeed::new(Vec::new(), Lease::new(Arc::new(Gauge::new(0))));
        feed.with(|waiting, bytes_max| waiting.change(ChangeLine::All, bytes_max));
        let mut context = Context::from_waker(Waker::noop());
        assert!(feed.poll_take(&mut context, &mut Vec::new(), &subscribers).is_pending());
    }

    #[test]
    fn shards_are_told_when_the_first_comes_and_the_last_leaves() {
        let lease = || {
            let mut lease = Lease::new(Arc::new(Gauge::new(64)));
            assert!(lease.resize(64));
            lease
        };
        let subscribers = Subscribers::default();
        let first = subscribers.add(Vec::new(), lease(), |notes| assert!(notes)).expect("room");
        let second = subscribers.add(Vec::new(), lease(), |_| panic!("they know")).expect("room");
        subscribers.remove(&first, |_| panic!("there is one more"));
        assert!(subscribers.is_any());
        subscribers.remove(&second, |notes| assert!(!notes));
        assert!(!subscribers.is_any());
    }
}
