//! Room for one more client: who accepts waits here while `-c` are connected (`-o no_maxconns_fast`).
//!
//! Clients wait in the kernel's queue then, as with memcached, whose listener is disabled in the same way and
//! whose statistics tell of it: `accepting_conns`, `listen_disabled_num`, `time_in_listen_disabled_us`.

use std::pin::pin;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Where listening sockets wait for a connection to close.
#[derive(Debug, Default)]
pub(crate) struct Room {
    made: Notify,
    waits: Mutex<Waits>,
}

#[derive(Debug, Default)]
struct Waits {
    /// How many sockets wait.
    count: u32,
    /// Since when the first of them does.
    since: Option<Instant>,
    times: u64,
    total: Duration,
}

/// How listening sockets have waited for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomReport {
    /// None waits now.
    pub is_accepting: bool,
    /// How often one began to while none did.
    pub times: u64,
    /// How long that took in all, without the wait that goes on.
    pub total: Duration,
}

impl Room {
    /// Waits until `is_there` says so; asked again whenever a connection has closed.
    pub(crate) async fn wait(&self, is_there: impl Fn() -> bool) {
        let _waiting = Waiting::begin(self);
        loop {
            let mut made = pin!(self.made.notified());
            // In line before looking: a connection that closes in between is not missed.
            made.as_mut().enable();
            if is_there() {
                return;
            }
            made.await;
        }
    }

    /// A connection has closed that left no room before.
    pub(crate) fn made(&self) {
        self.made.notify_waiters();
    }

    pub(crate) fn report(&self) -> RoomReport {
        let waits = self.waits.lock();
        RoomReport { is_accepting: waits.count == 0, times: waits.times, total: waits.total }
    }

    /// Forgets what was counted (`stats reset`).
    pub(crate) fn reset(&self) {
        let mut waits = self.waits.lock();
        (waits.times, waits.total) = (0, Duration::ZERO);
    }
}

/// A socket that waits; no more, when dropped.
struct Waiting<'a>(&'a Room);

impl<'a> Waiting<'a> {
    fn begin(room: &'a Room) -> Self {
        let mut waits = room.waits.lock();
        waits.count += 1;
        if waits.count == 1 {
            waits.times += 1;
            waits.since = Some(Instant::now());
        }
        Self(room)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waits = self.0.waits.lock();
        waits.count -= 1;
        if waits.count == 0
            && let Some(since) = waits.since.take()
        {
            waits.total += since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_overlap_into_one_and_their_time_is_told() {
        let (room, is_there) = (Room::default(), AtomicBool::new(false));
        assert_eq!(
            room.report(),
            RoomReport { is_accepting: true, times: 0, total: Duration::ZERO }
        );
        let wait = || room.wait(|| is_there.load(Ordering::Relaxed));
        let look = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert!(!room.report().is_accepting);
            room.made();
            tokio::task::yield_now().await;
            assert!(!room.report().is_accepting, "somebody else took it");
            is_there.store(true, Ordering::Relaxed);
            room.made();
        };
        tokio::join!(wait(), wait(), look);
        let report = room.report();
        assert_eq!((report.is_accepting, report.times), (true, 1));
        assert_eq!(report.total, Duration::from_secs(3));
        room.reset();
        assert_eq!(room.report().times, 0);
    }
}
