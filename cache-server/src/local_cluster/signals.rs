//! Signals to whoever runs the cluster, waited for one by one and for a limited time.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that are waited for. Nodes do not inherit that they are blocked: the standard library
/// unblocks all in a process it starts.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

impl Signals {
    /// Blocks what asks for the end, and what tells of a child's, in this thread and in those it starts.
    pub(super) fn block() -> io::Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
            signals.add(signal);
        }
        signals.thread_block()?;
        Ok(Self(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// The next signal, or `None` when none comes within `limit`.
    pub(super) fn wait(&self, limit: Option<Duration>) -> io::Result<Option<Signal>> {
        let limit = match limit {
            Some(limit) => PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        let mut readable = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut readable, limit) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(read) = self.0.read_signal()? else { return Ok(None) };
        let number = i32::try_from(read.ssi_signo).unwrap_or(i32::MAX);
        Ok(Some(Signal::try_from(number)?))
    }
}
