//! The thread that looks after what no request asks for: expiry sweeps, and whatever else is due.
//!
//! It has its own pace, so a busy worker never does the housekeeping, and a busy housekeeper never
//! delays a worker for longer than one slice of its work.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock::{Clock, Now};

/// The pause between two rounds.
pub const PAUSE: Duration = Duration::from_millis(100);

/// A running maintenance thread; it stops when this is dropped.
#[derive(Debug)]
pub struct Maintenance {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Maintenance {
    /// Starts a thread that calls `round` about ten times a second.
    ///
    /// A panic in a round is logged and costs that round alone.
    ///
    /// # Errors
    ///
    /// When the operating system has no thread to give.
    pub fn start(clock: Clock, round: impl FnMut(Now) + Send + 'static) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let mut round = AssertUnwindSafe(round);
        let thread = thread::Builder::new().name("maintenance".into()).spawn(move || {
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                let now = clock.now();
                if catch_unwind(AssertUnwindSafe(|| (round)(now))).is_err() {
                    tracing::error!("maintenance met a bug in the server, please report it");
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its rounds catch their panics; there is nothing to learn from joining but the end.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_go_on_after_one_panicked_and_end_with_the_handle() {
        let (round_done, rounds) = mpsc::channel();
        let mut count = 0;
        let maintenance = Maintenance::start(Clock::system(), move |_| {
            count += 1;
            assert!(count != 1, "the first round meets a bug");
            let _ = round_done.send(count);
        })
        .unwrap();
        assert_eq!(rounds.recv_timeout(Duration::from_secs(10)), Ok(2));
        drop(maintenance);
        while rounds.try_recv().is_ok() {}
        assert_eq!(rounds.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }
}
