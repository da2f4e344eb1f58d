//! What came of the requests: counts, and how long each took.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::workload::Ask;

/// Longest latency told apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// How many mistaken answers are kept word for word.
const SAMPLES_MAX: usize = 5;

/// What is measured: the time after the warm-up and before the end.
///
/// An answer counts if it came then, so that counts belong to the same time as the server's
/// processor use. A latency counts if its request was to be sent then, so that waiting does not
/// carry a slow request out of sight.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The first moment that counts.
    pub from: Instant,
    /// The first moment that counts no more; `None` when requests are counted, not time.
    pub until: Option<Instant>,
}

impl Window {
    /// Whether `moment` counts.
    #[inline]
    pub fn contains(&self, moment: Instant) -> bool {
        self.from <= moment && self.until.is_none_or(|until| moment < until)
    }
}

/// What came of the requests of one thread, or of all of them.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Gets answered; one with several keys counts once.
    pub gets: u64,
    /// Sets answered.
    pub sets: u64,
    /// Keys found.
    pub hits: u64,
    /// Keys asked for and not found.
    pub misses: u64,
    /// Requests of them that the server answered with an error, or writes it did not make.
    pub refused: u64,
    /// Values that are not their key's, over the whole run, warm-up included.
    pub wrong: u64,
    /// Requests that were due in an open loop and not sent, or not answered, before the run ended.
    pub unanswered: u64,
    /// Latency of gets, in nanoseconds.
    pub get_latency: Histogram<u64>,
    /// Latency of sets, in nanoseconds.
    pub set_latency: Histogram<u64>,
    /// The first refusals and wrong values, for people to read.
    pub samples: Vec<String>,
    /// When the last answer came.
    pub last_answer: Option<Instant>,
    /// How long the load's threads were ready to run and had no core, over the whole run and as far as
    /// the kernel says.
    pub load_wait: Duration,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Tally {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self {
            gets: 0,
            sets: 0,
            hits: 0,
            misses: 0,
            refused: 0,
            wrong: 0,
            unanswered: 0,
            get_latency: latency_histogram(),
            set_latency: latency_histogram(),
            samples: Vec::new(),
            last_answer: None,
            load_wait: Duration::ZERO,
        }
    }

    /// A request that was to be sent at `intended` was answered at `now`.
    #[inline]
    pub fn answered(&mut self, ask: Ask, intended: Instant, now: Instant, window: &Window) {
        if window.contains(now) {
            self.last_answer = Some(now);
            match ask {
                Ask::Get => self.gets += 1,
                Ask::Set => self.sets += 1,
            }
        }
        if window.contains(intended) {
            self.waited(ask, now.saturating_duration_since(intended));
        }
    }

    /// A request that was to be sent at `intended` had no answer when the run was given up at `now`:
    /// its latency is at least that, so that a server that stalls cannot look fast.
    pub fn never_answered(&mut self, ask: Ask, intended: Instant, now: Instant, window: &Window) {
        if window.contains(intended) {
            self.unanswered += 1;
            self.waited(ask, now.saturating_duration_since(intended));
        }
    }

    #[inline]
    fn waited(&mut self, ask: Ask, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        match ask {
            Ask::Get => self.get_latency.saturating_record(nanoseconds),
            Ask::Set => self.set_latency.saturating_record(nanoseconds),
        }
    }

    /// A value was not its key's.
    pub fn wrong(&mut self, describe: impl FnOnce() -> String) {
        self.wrong += 1;
        self.keep_sample(describe);
    }

    /// The server answered with an error.
    pub fn refused(&mut self, describe: impl FnOnce() -> String) {
        self.refused += 1;
        self.keep_sample(describe);
    }

    fn keep_sample(&mut self, describe: impl FnOnce() -> String) {
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(describe());
        }
    }

    /// Requests answered.
    pub fn requests(&self) -> u64 {
        self.gets + self.sets
    }

    /// Keys read or written.
    pub fn keys(&self) -> u64 {
        self.hits + self.misses + self.sets
    }

    /// The share of the keys asked for that were found; `None` when none was asked for.
    pub fn hit_ratio(&self) -> Option<f64> {
        let asked = self.hits + self.misses;
        (asked > 0).then(|| self.hits as f64 / asked as f64)
    }

    /// Adds what another thread counted.
    pub fn merge(&mut self, other: Self) {
        self.gets += other.gets;
        self.sets += other.sets;
        self.hits += other.hits;
        self.misses += other.misses;
        self.refused += other.refused;
        self.wrong += other.wrong;
        self.unanswered += other.unanswered;
        // Both were built alike, so every value of one has a place in the other.
        let _ = self.get_latency.add(other.get_latency);
        let _ = self.set_latency.add(other.set_latency);
        self.samples.extend(other.samples);
        self.samples.truncate(SAMPLES_MAX);
        self.last_answer = self.last_answer.max(other.last_answer);
        self.load_wait += other.load_wait;
    }
}

/// Three significant digits from a microsecond up: what is below is the load generator's own time.
fn latency_histogram() -> Histogram<u64> {
    let latency_max = u64::try_from(LATENCY_MAX.as_nanos()).unwrap_or(u64::MAX);
    Histogram::new_with_bounds(1_000, latency_max, 3)
        .expect("the bounds are constants in the order that a histogram wants")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_request_never_answered_is_among_the_latencies_and_not_the_answers() {
        let start = clock::now();
        let window = Window { from: start, until: Some(start + SECOND) };
        let mut tally = Tally::new();
        for _ in 0..98 {
            tally.answered(Ask::Get, start, start + Duration::from_micros(20), &window);
        }
        for _ in 0..2 {
            tally.never_answered(Ask::Get, start, start + 3 * SECOND, &window);
        }
        tally.never_answered(Ask::Get, start + SECOND, start + 3 * SECOND, &window);
        assert_eq!((tally.gets, tally.unanswered), (98, 2));
        let p99_ms = tally.get_latency.value_at_quantile(0.99) / 1_000_000;
        assert!((2_990..=3_010).contains(&p99_ms), "p99 is {p99_ms} ms");
    }

    #[test]
    fn an_answer_counts_when_it_came_and_its_latency_when_it_was_asked_for() {
        let start = clock::now();
        let window = Window { from: start + SECOND, until: Some(start + 2 * SECOND) };
        let mut tally = Tally::new();
        tally.answered(Ask::Get, start, start + SECOND, &window);
        assert_eq!((tally.gets, tally.get_latency.len()), (1, 0));
        tally.answered(Ask::Get, start + SECOND, start + 2 * SECOND, &window);
        assert_eq!((tally.gets, tally.get_latency.len()), (1, 1));
    }

    #[test]
    fn threads_add_up() {
        let start = clock::now();
        let window = Window { from: start, until: None };
        let mut total = Tally::new();
        for hits in [3, 5] {
            let mut tally = Tally { hits, misses: 1, ..Tally::new() };
            tally.answered(Ask::Set, start, start + SECOND, &window);
            total.merge(tally);
        }
        assert_eq!((total.hits, total.misses, total.sets), (8, 2, 2));
        assert_eq!(total.hit_ratio(), Some(0.8));
        assert_eq!(total.set_latency.len(), 2);
    }

    #[test]
    fn no_gets_have_no_hit_ratio() {
        assert_eq!(Tally::new().hit_ratio(), None);
    }
}
