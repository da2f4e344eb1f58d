//! Who watches, and the lines on their way to them.
//!
//! ```text
//! worker: | lines of a turn | ──▶ feed: | lines, at most so many bytes | ──▶ connection, as fast as it takes them
//!                             ──▶ feed: ...         `- too many: counted, told as skipped=N
//! ```
//!
//! A worker hands its lines over at the end of a turn, so a watcher costs it a lock a turn. Nobody ever waits
//! for a watcher: what does not fit is left out, and the next line that does fit says how much that was.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::net::buffers::Lease;

/// Watchers at the same time: memcached's bound.
const WATCHERS_MAX: usize = 20;
/// Bytes handed to a connection at once.
const TAKEN_BYTES_MAX: usize = 16 << 10;
/// Room kept for the line that tells how many were skipped, as in memcached.
const SKIPPED_LINE_BYTES: usize = 128;

/// What can be watched: a bit each.
pub(super) mod topic {
    pub(in crate::observe) const FETCHERS: u32 = 1;
    pub(in crate::observe) const MUTATIONS: u32 = 1 << 1;
    pub(in crate::observe) const EVICTIONS: u32 = 1 << 2;
    pub(in crate::observe) const CONNECTIONS: u32 = 1 << 3;
    pub(in crate::observe) const DELETIONS: u32 = 1 << 4;
    /// What memcached has words for and there is nothing to tell of: its proxy, its threads, and raw commands,
    /// of which memcached 1.6.45 tells nothing either.
    const NOTHING: u32 = 1 << 5;

    /// The words, in the order in which memcached compares what it was given with them: the beginning of one
    /// stands for it.
    const WORDS: [(&str, u32); 10] = [
        ("rawcmds", NOTHING),
        ("evictions", EVICTIONS),
        ("fetchers", FETCHERS),
        ("mutations", MUTATIONS),
        ("sysevents", NOTHING),
        ("connevents", CONNECTIONS),
        ("proxyreqs", NOTHING),
        ("proxyevents", NOTHING),
        ("proxyuser", NOTHING),
        ("deletions", DELETIONS),
    ];

    /// What a word asks for.
    pub(in crate::observe) fn of(word: &[u8]) -> Option<u32> {
        let meant = WORDS.iter().find(|(name, _)| name.as_bytes().starts_with(word));
        meant.map(|&(_, topic)| topic)
    }
}

/// Lines in one buffer, each with its topic.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) bytes: Vec<u8>,
    ends: Vec<(u32, usize)>,
}

impl Lines {
    /// What was appended to `bytes` since the last line is one about `topic`.
    pub(super) fn end_line(&mut self, topic: u32) {
        self.ends.push((topic, self.bytes.len()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |&(topic, end)| {
            let line = &self.bytes[start..end];
            start = end;
            (topic, line)
        })
    }
}

/// The lines of one watcher.
#[derive(Debug)]
pub(super) struct Feed {
    topics: u32,
    /// On its buffer, from the memory that all connections share.
    lease: Lease,
    waiting: Mutex<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    /// The first of them that was not taken.
    start: usize,
    /// Lines left out since the last one that was not.
    skipped: u64,
    reader: Option<Waker>,
}

/// What became of lines at one watcher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    sent: u64,
    skipped: u64,
}

impl Feed {
    fn new(topics: u32, lease: Lease) -> Self {
        // The answer to its request comes the same way, so that it is the first line.
        let waiting = Waiting { bytes: b"OK\r\n".to_vec(), start: 0, skipped: 0, reader: None };
        Self { topics, lease, waiting: Mutex::new(waiting) }
    }

    fn tell(&self, lines: &Lines) -> Told {
        let mut told = Told::default();
        let mut waiting = self.waiting.lock();
        for (topic, line) in lines.iter() {
            if topic & self.topics == 0 {
                continue;
            }
            let waiting_bytes = waiting.bytes.len() - waiting.start;
            if waiting_bytes + line.len() + SKIPPED_LINE_BYTES > self.lease.bytes() {
                waiting.skipped += 1;
                told.skipped += 1;
                continue;
            }
            let skipped = std::mem::take(&mut waiting.skipped);
            if skipped > 0 {
                // Writing to a vector does not fail.
                let _ = writeln!(waiting.bytes, "skipped={skipped}");
            }
            waiting.bytes.extend_from_slice(line);
            told.sent += 1;
        }
        let reader = if told.sent > 0 { waiting.reader.take() } else { None };
        drop(waiting);
        if let Some(reader) = reader {
            reader.wake();
        }
        told
    }

    pub(super) fn poll_take(&self, context: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<()> {
        let mut waiting = self.waiting.lock();
        let Waiting { bytes, start, reader, .. } = &mut *waiting;
        let end = bytes.len().min(*start + TAKEN_BYTES_MAX);
        if end == *start {
            *reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        into.extend_from_slice(&bytes[*start..end]);
        *start = end;
        if *start == bytes.len() {
            bytes.clear();
            *start = 0;
        } else if *start >= self.lease.bytes() / 2 {
            bytes.drain(..*start);
            *start = 0;
        }
        Poll::Ready(())
    }
}

/// Everybody who watches.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    feeds: Mutex<Vec<Arc<Feed>>>,
    /// Numbers the lines of all workers in the order in which they were written.
    gid: AtomicU64,
    written: AtomicU64,
    dropped: AtomicU64,
    sent: AtomicU64,
    skipped: AtomicU64,
}

/// Lines counted, under memcached's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounters {
    /// Lines that workers could not write: evictions beyond what a shard remembers of one write.
    pub worker_dropped: u64,
    /// Lines that workers wrote.
    pub worker_written: u64,
    /// Lines that a watcher was too slow for.
    pub watcher_skipped: u64,
    /// Lines that watchers were given.
    pub watcher_sent: u64,
    /// Watchers now.
    pub watchers: u64,
}

impl Watchers {
    /// Adds a watcher, for whom so much memory is leased; `None` when there are as many as there may be.
    pub(super) fn add(&self, topics: u32, lease: Lease) -> Option<Arc<Feed>> {
        let mut feeds = self.feeds.lock();
        if feeds.len() >= WATCHERS_MAX {
            return None;
        }
        let feed = Arc::new(Feed::new(topics, lease));
        feeds.push(Arc::clone(&feed));
        Some(feed)
    }

    pub(super) fn remove(&self, feed: &Arc<Feed>) {
        self.feeds.lock().retain(|it| !Arc::ptr_eq(it, feed));
    }

    /// All that anybody watches.
    pub(super) fn topics(&self) -> u32 {
        self.feeds.lock().iter().fold(0, |topics, feed| topics | feed.topics)
    }

    pub(super) fn next_gid(&self) -> u64 {
        self.gid.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Hands `lines` to everybody they concern, and empties them.
    pub(super) fn tell(&self, lines: &mut Lines) {
        self.written.fetch_add(lines.ends.len() as u64, Ordering::Relaxed);
        let mut told = Told::default();
        for feed in self.feeds.lock().iter() {
            let Told { sent, skipped } = feed.tell(lines);
            told.sent += sent;
            told.skipped += skipped;
        }
        self.sent.fetch_add(told.sent, Ordering::Relaxed);
        self.skipped.fetch_add(told.skipped, Ordering::Relaxed);
        lines.clear();
    }

    pub(super) fn count_dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn counters(&self) -> LogCounters {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogCounters {
            worker_dropped: count(&self.dropped),
            worker_written: count(&self.written),
            watcher_skipped: count(&self.skipped),
            watcher_sent: count(&self.sent),
            watchers: self.feeds.lock().len() as u64,
        }
    }

    pub(super) fn reset_counters(&self) {
        for counter in [&self.written, &self.dropped, &self.sent, &self.skipped] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    use super::*;
    use crate::net::buffers::Gauge;

    fn lease(bytes: usize) -> Lease {
        let mut lease = Lease::new(Arc::new(Gauge::new(bytes)));
        assert!(lease.resize(bytes), "all of it is free");
        lease
    }

    /// Lines of a topic, one for each word.
    fn lines(topic: u32, words: &[&str]) -> Lines {
        let mut lines = Lines::default();
        for word in words {
            lines.bytes.extend_from_slice(word.as_bytes());
            lines.bytes.push(b'\n');
            lines.end_line(topic);
        }
        lines
    }

    fn take(feed: &Feed) -> String {
        let (mut into, mut context) = (Vec::new(), Context::from_waker(Waker::noop()));
        while feed.poll_take(&mut context, &mut into).is_ready() {}
        String::from_utf8(into).expect("text")
    }

    #[test]
    fn a_watcher_hears_of_what_it_asked_for_alone() {
        let watchers = Watchers::default();
        let feed =
            watchers.add(topic::FETCHERS | topic::DELETIONS, lease(1 << 16)).expect("the first");
        watchers.tell(&mut lines(topic::FETCHERS, &["get"]));
        watchers.tell(&mut lines(topic::MUTATIONS, &["set"]));
        watchers.tell(&mut lines(topic::DELETIONS, &["delete"]));
        assert_eq!(take(&feed), "OK\r\nget\ndelete\n");
        let counters = watchers.counters();
        assert_eq!((counters.worker_written, counters.watcher_sent), (3, 2));
    }

    #[test]
    fn what_does_not_fit_is_skipped_and_told_with_the_next_line_that_does() {
        let watchers = Watchers::default();
        let feed = watchers.add(topic::FETCHERS, lease(400)).expect("the first");
        let long = "x".repeat(99);
        for _ in 0..5 {
            watchers.tell(&mut lines(topic::FETCHERS, &[&long]));
        }
        assert_eq!(take(&feed), format!("OK\r\n{long}\n{long}\n"));
        watchers.tell(&mut lines(topic::FETCHERS, &["get"]));
        assert_eq!(take(&feed), "skipped=3\nget\n");
        assert_eq!(watchers.counters().watcher_skipped, 3);
    }

    #[test]
    fn a_reader_that_waits_is_woken_by_the_first_line() {
        struct Woken(AtomicBool);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let watchers = Watchers::default();
        let feed = watchers.add(topic::FETCHERS, lease(400)).expect("the first");
        assert_eq!(take(&feed), "OK\r\n");
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        assert!(feed.poll_take(&mut Context::from_waker(&waker), &mut Vec::new()).is_pending());
        watchers.tell(&mut lines(topic::MUTATIONS, &["set"]));
        assert!(!woken.0.load(Ordering::Relaxed), "that is not for it");
        watchers.tell(&mut lines(topic::FETCHERS, &["get"]));
        assert!(woken.0.load(Ordering::Relaxed));
    }

    #[test]
    fn there_is_a_most_of_watchers() {
        let watchers = Watchers::default();
        let feeds: Vec<_> =
            (0..30).map_while(|_| watchers.add(topic::FETCHERS, lease(400))).collect();
        assert_eq!(feeds.len(), WATCHERS_MAX);
        watchers.remove(&feeds[3]);
        assert!(watchers.add(topic::FETCHERS, lease(400)).is_some());
        assert_eq!(watchers.counters().watchers, WATCHERS_MAX as u64);
    }

    #[test]
    fn the_beginning_of_a_word_is_enough() {
        assert_eq!(topic::of(b"fetchers"), Some(topic::FETCHERS));
        assert_eq!(topic::of(b"m"), Some(topic::MUTATIONS));
        assert_eq!(topic::of(b"fetcherss"), None);
        assert_eq!(topic::of(b"foo"), None);
    }
}
