//! SIGTERM, SIGINT or SIGUSR1 into an orderly stop.
//!
//! The signals are blocked in every thread and taken up by the one that waits for them, so no code
//! runs inside a signal handler. SIGHUP is taken up and ignored, as in memcached, so that closing a
//! terminal does not empty a cache; SIGPIPE is ignored by Rust's runtime. SIGXFSZ is blocked and left
//! at that.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};

/// Has what would make a file larger than the process may (`ulimit -f`) fail with an error, which can
/// be told, instead of ending the process.
///
/// # Errors
///
/// None that is known; the operating system's, passed on.
pub fn block_file_size_signal() -> Result<(), Errno> {
    SigSet::from(Signal::SIGXFSZ).thread_block()
}

/// The signals that this process waits for.
#[derive(Debug)]
pub struct Signals(SigSet);

impl Signals {
    /// Blocks the signals in this thread and in every thread it starts from now on.
    ///
    /// # Errors
    ///
    /// None that is known; the operating system's, passed on.
    pub fn block() -> Result<Self, Errno> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block()?;
        Ok(Self(signals))
    }

    /// Waits until the process is told to stop, and returns by which signal.
    ///
    /// # Errors
    ///
    /// None that is known; the operating system's, passed on.
    pub fn wait_for_stop(&self) -> Result<Signal, Errno> {
        loop {
            match self.0.wait() {
                Ok(Signal::SIGHUP) => tracing::info!("SIGHUP: nothing to reload, going on"),
                Err(Errno::EINTR) => {}
                signal => return signal,
            }
        }
    }
}
