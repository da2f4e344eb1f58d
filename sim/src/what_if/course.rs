//! `Course`: two caches from a moment on, the one as it was and the other as it became, window by window.
//!
//! ```text
//! reads      0 ── width ── 2 width ── ...        all windows but the last have as many reads
//! hits       as it was | as it became
//! ```
//!
//! There are at most [`WINDOWS_MAX`] windows: when there would be more, each two become one.

use super::Cell;

/// Windows that a course is told in, at most.
const WINDOWS_MAX: usize = 128;

/// Reads of the first windows.
const WIDTH_MIN: u64 = 64;

/// A cache has recovered when it hits in no more than this share of the reads less often.
const RECOVERED_WITHIN: f64 = 0.01;

/// Two caches from a moment on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Course {
    width: u64,
    windows: Vec<Window>,
}

/// A stretch of reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// The time of its first read.
    pub(super) from_s: u32,
    pub(super) reads: u64,
    /// Of the cache as it was.
    pub(super) hits_before: u64,
    /// Of the cache as it became.
    pub(super) hits_after: u64,
}

/// When the second cache was as good as the first again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recovery {
    /// The time.
    pub(super) at_s: u32,
    /// Reads until then.
    pub(super) reads: u64,
    /// How many more of them were misses.
    pub(super) extra_misses: i64,
}

impl Window {
    /// How many more misses the second cache had.
    pub(super) fn extra_misses(&self) -> i64 {
        self.hits_before.cast_signed() - self.hits_after.cast_signed()
    }

    /// As a row of a course shows it, whose time is told from `since_s` on.
    pub(super) fn figures(&self, since_s: u32) -> [Cell; 5] {
        [
            Cell::Count(self.from_s.saturating_sub(since_s).into()),
            Cell::Count(self.reads),
            Cell::share(self.hits_before, self.reads),
            Cell::share(self.hits_after, self.reads),
            Cell::Difference(self.extra_misses()),
        ]
    }

    fn has_recovered(&self) -> bool {
        self.extra_misses() as f64 <= RECOVERED_WITHIN * self.reads as f64
    }

    fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.hits_before += other.hits_before;
        self.hits_after += other.hits_after;
    }
}

impl Course {
    pub(super) fn new() -> Self {
        Self { width: WIDTH_MIN, windows: Vec::new() }
    }

    /// Counts a read, and whether each cache had it.
    pub(super) fn count(&mut self, time_s: u32, hit_before: bool, hit_after: bool) {
        if self.windows.last().is_none_or(|window| window.reads == self.width) {
            if self.windows.len() == WINDOWS_MAX {
                self.halve();
            }
            let (reads, hits_before, hits_after) = (0, 0, 0);
            self.windows.push(Window { from_s: time_s, reads, hits_before, hits_after });
        }
        if let Some(window) = self.windows.last_mut() {
            let (hits_before, hits_after) = (u64::from(hit_before), u64::from(hit_after));
            window.add(Window { from_s: time_s, reads: 1, hits_before, hits_after });
        }
    }

    fn halve(&mut self) {
        let halved = self.windows.chunks(2).map(|pair| {
            let mut window = pair[0];
            pair[1..].iter().for_each(|&other| window.add(other));
            window
        });
        self.windows = halved.collect();
        self.width *= 2;
    }

    /// The windows, in order.
    pub(super) fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// All of it as one.
    pub(super) fn whole(&self) -> Window {
        let mut whole = Window { from_s: 0, reads: 0, hits_before: 0, hits_after: 0 };
        self.windows.iter().for_each(|&window| whole.add(window));
        whole
    }

    /// The beginning of the windows in which the second cache hits as often as the first, within
    /// 1 % of the reads, from there to the end of the log. None if it does not at the end.
    pub(super) fn recovery(&self) -> Option<Recovery> {
        let first = self.windows.iter().rposition(|window| !window.has_recovered());
        let first = first.map_or(0, |last_bad| last_bad + 1);
        let at_s = self.windows.get(first)?.from_s;
        let before = &self.windows[..first];
        Some(Recovery {
            at_s,
            reads: before.iter().map(|window| window.reads).sum(),
            extra_misses: before.iter().map(Window::extra_misses).sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_halved_and_lose_nothing() {
        let mut course = Course::new();
        let reads = 100_000;
        for n in 0..reads {
            course.count(n, n % 2 == 0, n % 4 == 0);
        }
        let (windows, whole) = (course.windows(), course.whole());
        assert!(windows.len() > WINDOWS_MAX / 2 && windows.len() <= WINDOWS_MAX);
        assert_eq!((whole.reads, whole.hits_before, whole.hits_after), (100_000, 50_000, 25_000));
        assert!(windows.iter().rev().skip(1).all(|window| window.reads == course.width));
        let mut reads_before = 0;
        for window in windows {
            assert_eq!(u64::from(window.from_s), reads_before);
            reads_before += window.reads;
        }
    }

    #[test]
    fn recovery_is_where_the_last_bad_window_ends() {
        let mut course = Course::new();
        let width = u32::try_from(WIDTH_MIN).unwrap();
        for n in 0..10 * width {
            // Bad in the windows 0 and 3.
            course.count(n, true, !matches!(n / width, 0 | 3) || n % 2 == 0);
        }
        let extra_misses = i64::from(width);
        let reads = u64::from(4 * width);
        assert_eq!(course.recovery(), Some(Recovery { at_s: 4 * width, reads, extra_misses }));
        course.count(999_999, true, false);
        assert_eq!(course.recovery(), None);
    }

    #[test]
    fn who_never_fell_back_has_recovered_at_once() {
        let mut course = Course::new();
        assert_eq!(course.recovery(), None);
        course.count(7, false, true);
        assert_eq!(course.recovery(), Some(Recovery { at_s: 7, reads: 0, extra_misses: 0 }));
    }
}
