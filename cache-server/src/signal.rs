//! SIGTERM, SIGINT or SIGUSR1 into an orderly stop, SIGHUP into a look at files that may have changed.
//!
//! ```text
//! signals ──> Signals, a thread ──┐
//! `shutdown` of a client ─────────┤
//!                                 ├──> Orders ──> process.rs: stops in order
//! a node that was removed ────────┘          └──> cluster_node: ends its start, reloads certificates
//! ```
//!
//! The signals are blocked in every thread and taken up by the one that waits for them, so no code
//! runs inside a signal handler. SIGHUP never ends the process, as in memcached, so that closing a
//! terminal does not empty a cache; SIGPIPE is ignored by Rust's runtime. SIGXFSZ is blocked and left
//! at that.

use std::sync::Arc;
use std::{fmt, io, thread};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use tokio::sync::watch;

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

    /// Turns them into orders from now on, on a thread of its own that lasts as long as the process.
    ///
    /// # Errors
    ///
    /// When the operating system has no thread to give.
    pub fn pass_on(self, orders: Orders) -> io::Result<()> {
        let pass_on = move || {
            loop {
                match self.0.wait() {
                    Ok(Signal::SIGHUP) => orders.reload(),
                    Ok(signal) => orders.stop(StopReason::Signal(signal)),
                    Err(Errno::EINTR) => {}
                    Err(error) => return tracing::error!("cannot wait for signals: {error}"),
                }
            }
        };
        thread::Builder::new().name("signals".into()).spawn(pass_on).map(drop)
    }
}

/// Why a process stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It was told to.
    Signal(Signal),
    /// A client told it to, and may (`-A`).
    Command,
    /// It is a node that its cluster has removed, and this is who said so, or how it shows.
    Removed(String),
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => write!(f, "{signal}"),
            Self::Command => f.write_str("a client said shutdown"),
            Self::Removed(how) => write!(f, "this node was removed from its cluster ({how})"),
        }
    }
}

/// What a process is told while it runs: any thread may give an order, and any may wait for one.
#[derive(Clone, Debug, Default)]
pub struct Orders(Arc<Given>);

#[derive(Debug, Default)]
struct Given {
    stop: watch::Sender<Option<StopReason>>,
    /// How often files were to be read again.
    reloads: watch::Sender<u64>,
}

impl Orders {
    /// Asks for an orderly stop. The first reason is the one that counts.
    pub fn stop(&self, reason: StopReason) {
        self.0.stop.send_if_modified(|given| {
            let is_first = given.is_none();
            if is_first {
                *given = Some(reason);
            }
            is_first
        });
    }

    /// Why to stop, if that was asked for.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.0.stop.borrow().clone()
    }

    /// Waits until a stop is asked for.
    pub async fn stopped(&self) -> StopReason {
        let mut given = self.0.stop.subscribe();
        loop {
            if let Some(reason) = given.borrow_and_update().clone() {
                return reason;
            }
            // The sender lives at least as long as `self`.
            let _ = given.changed().await;
        }
    }

    /// Asks for files to be read again that may have changed.
    pub fn reload(&self) {
        if self.0.reloads.receiver_count() == 0 {
            return tracing::info!("SIGHUP: nothing to reload, going on");
        }
        self.0.reloads.send_modify(|count| *count += 1);
    }

    /// Changes whenever files are to be read again.
    pub fn reloads(&self) -> watch::Receiver<u64> {
        self.0.reloads.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_to_stop_is_the_one_that_counts() {
        let orders = Orders::default();
        assert_eq!(orders.stop_reason(), None);
        let removed = StopReason::Removed("node 2 was removed".into());
        orders.stop(removed.clone());
        orders.stop(StopReason::Signal(Signal::SIGTERM));
        assert_eq!(orders.stopped().await, removed);
    }

    #[test]
    fn a_reload_reaches_who_subscribed() {
        let orders = Orders::default();
        orders.reload();
        let reloads = orders.reloads();
        assert!(!reloads.has_changed().unwrap(), "nobody had anything to reload before");
        orders.clone().reload();
        assert!(reloads.has_changed().unwrap());
    }
}
