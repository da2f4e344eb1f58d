//! Reads the operating system's clock, once per turn of a worker's loop.
//!
//! Everything below the server takes the time as an argument; this file is where it comes from.
//! All parts of one server share one [`Clock`], so that a test which advances it moves the whole
//! server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One reading of the clock, handed down for the length of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Wall-clock time since the start of 1970, in milliseconds.
    pub unix_ms: u64,
}

impl Now {
    /// The same in whole seconds, the unit of the protocol.
    pub fn unix_seconds(self) -> u64 {
        self.unix_ms / 1000
    }
}

/// The wall clock, plus what a test has advanced it by.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    test: Arc<Test>,
}

/// What a test did to a clock.
#[derive(Debug, Default)]
struct Test {
    /// Ahead of the operating system's; of one that was set back, what makes its time when it is added.
    ahead_ms: AtomicU64,
    /// Where it was stopped; 0 while it runs.
    stopped_unix_ms: AtomicU64,
}

impl Clock {
    /// The operating system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// Reads the clock. Before 1970 it reads zero.
    pub fn now(&self) -> Now {
        match self.test.stopped_unix_ms.load(Ordering::Relaxed) {
            0 => self.running(),
            unix_ms => Now { unix_ms },
        }
    }

    fn running(&self) -> Now {
        // As it was at the last tick, at most 10 ms ago: a fifth of what it costs to have it exactly, and nothing
        // that is promised to clients is finer than a second.
        let clock = nix::time::ClockId::CLOCK_REALTIME_COARSE;
        let since_1970 = nix::time::clock_gettime(clock).map_or(0, whole_ms_of);
        let ahead_ms = self.test.ahead_ms.load(Ordering::Relaxed);
        Now { unix_ms: since_1970.wrapping_add(ahead_ms) }
    }

    /// Moves this clock, and every clone of it, ahead of the operating system's.
    pub fn advance(&self, by: Duration) {
        self.move_by(whole_ms(by));
    }

    /// Moves this clock, and every clone of it, by so many seconds, back if they are less than none.
    pub fn shift(&self, seconds: i32) {
        self.move_by((i64::from(seconds) * 1000).cast_unsigned());
    }

    /// Stops this clock, and every clone of it, where it is. It can still be moved.
    pub fn pause(&self) {
        self.test.stopped_unix_ms.store(self.now().unix_ms, Ordering::Relaxed);
    }

    /// Lets it run again, from the time that it would have if it had never been stopped.
    pub fn resume(&self) {
        self.test.stopped_unix_ms.store(0, Ordering::Relaxed);
    }

    /// Moves it by what is to be added, wrapping around.
    fn move_by(&self, ms: u64) {
        let test = &*self.test;
        test.ahead_ms.fetch_add(ms, Ordering::Relaxed);
        if test.stopped_unix_ms.load(Ordering::Relaxed) != 0 {
            test.stopped_unix_ms.fetch_add(ms, Ordering::Relaxed);
        }
    }
}

/// Nanoseconds of the clock that runs through suspend, by which promises between nodes are measured. No
/// test advances it.
pub fn boot_ns() -> u64 {
    let Ok(time) = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME) else { return 0 };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
}

/// Waits, on a thread that serves nobody.
pub fn pause(duration: Duration) {
    #[expect(clippy::disallowed_methods, reason = "this is the file that waits")]
    std::thread::sleep(duration);
}

/// Zero for what is before 1970.
fn whole_ms_of(time: nix::sys::time::TimeSpec) -> u64 {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    seconds * 1000 + u64::try_from(time.tv_nsec()).unwrap_or(0) / 1_000_000
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_the_systems_to_within_a_tick() {
        #[expect(clippy::disallowed_methods, reason = "what it is compared with")]
        let system = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let exactly = whole_ms(system);
        let ours = Clock::system().now().unix_ms;
        assert!(
            (exactly.saturating_sub(100)..exactly + 60_000).contains(&ours),
            "{ours} at {exactly}"
        );
    }

    #[test]
    fn advancing_one_clone_moves_all() {
        let clock = Clock::system();
        let clone = clock.clone();
        let before = clock.now();
        clone.advance(Duration::from_hours(1));
        assert!(clock.now().unix_ms >= before.unix_ms + 3_600_000);
    }
}
