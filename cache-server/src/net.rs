//! The data plane: listeners, and one worker per thread of `-t`.
//!
//! ```text
//!            listener.rs             tokio.rs                 connection.rs        service.rs
//! clients -> | a socket per worker | -> | a task per client | -> | bytes to requests | -> Service
//!                                       | a turn at a time  | <- | answers to bytes  | <-
//! ```
//!
//! - Workers share no task and steal no work: the kernel spreads clients over their listening
//!   sockets (`SO_REUSEPORT`), and a client stays with the worker that accepted it.
//! - A turn is: read once, answer every request that has arrived (up to `-R` when others wait), write
//!   once. It allocates nothing, and the buffers it works in belong to the worker; a connection owns
//!   memory only while half a request or an unsent answer is waiting.
//! - What all connections hold is counted in one [`buffers::Gauge`] and bounded.

pub mod buffers;
pub mod connection;
pub mod counters;
pub mod listener;
pub mod registry;
mod tokio;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_utils::CachePadded;
use protocol::Request;
use protocol::meta::request::MetaKey;

pub(crate) use self::tokio::{WorkerParts, run_worker};
use crate::clock::Now;
use crate::net::buffers::Gauge;
use crate::net::counters::{Counters, CountersSnapshot};
use crate::net::registry::{ConnectionRecord, Registry};

/// What answers requests. Each worker owns one and calls it from its own thread.
///
/// A panic inside is caught: it costs the client its connection and nobody else theirs. What an
/// implementation shares with other workers must therefore stay usable after one.
pub trait Service {
    /// Carries out `request` and appends its answer to `out`, which may hold earlier answers.
    fn handle(&mut self, request: &Request<'_>, call: Call, out: &mut Vec<u8>) -> Flow;

    /// These requests follow, one call of [`Service::handle`] each: a chance to have their items
    /// fetched from memory all at once. Changes nothing.
    fn prefetch(&self, _requests: &[Ahead<'_>]) {}

    /// Whether what was answered since the last call can be sent: asked once a turn. If not, the
    /// connection is closed without it.
    fn is_sound(&mut self) -> bool {
        true
    }

    /// Removes an item whose replacement was refused, so that no stale value stays behind.
    fn invalidate(&mut self, key: &MetaKey<'_>, now: Now);
}

/// A request that was decoded before its turn.
#[derive(Clone, Debug)]
pub struct Ahead<'a> {
    /// The request.
    pub request: Request<'a>,
    /// The bytes of input that it takes up.
    pub bytes: usize,
}

/// The circumstances of one call of [`Service::handle`].
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The time, the same for the whole turn.
    pub now: Now,
    /// How much of this request earlier calls have answered: what the last [`Flow::Pause`] said,
    /// and 0 at first.
    pub done: usize,
    /// The length of `out` beyond which a request of many answers must pause.
    pub output_bytes_high: usize,
}

/// How a connection goes on after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The request is answered; the next one follows.
    Continue,
    /// The request is answered in part and the output is full: once it is sent, the same request is
    /// handed in again. Thus a get of ten thousand large values takes no more memory than a few.
    Pause {
        /// What to hand in as [`Call::done`]; the service gives it its meaning, such as a count of keys.
        done: usize,
    },
    /// The connection closes once everything before is sent.
    Close,
}

/// What the workers share, and what `stats` reads: counters, open connections, buffers.
#[derive(Debug)]
pub struct Network {
    connections: CachePadded<AtomicU32>,
    connections_max: u32,
    buffers: Arc<Gauge>,
    workers: Box<[WorkerRecord]>,
    listening: Vec<ListeningAddress>,
}

/// One worker as the others see it.
#[derive(Debug, Default)]
pub(crate) struct WorkerRecord {
    pub(crate) counters: CachePadded<Counters>,
    pub(crate) registry: Registry,
}

/// An address that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListeningAddress {
    /// A TCP address, its port resolved.
    Tcp(SocketAddr),
    /// The path of a UNIX socket.
    Unix(PathBuf),
}

impl fmt::Display for ListeningAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Network {
    /// Goes on from what the counter of this name came to before.
    pub(crate) fn go_on_from(&self, name: &str, count: u64) {
        if let Some(worker) = self.workers.first() {
            worker.counters.go_on_from(name, count);
        }
    }

    pub(crate) fn new(
        workers: usize,
        connections_max: u32,
        buffer_bytes_max: usize,
        listening: Vec<ListeningAddress>,
    ) -> Self {
        Self {
            connections: CachePadded::new(AtomicU32::new(0)),
            connections_max,
            buffers: Arc::new(Gauge::new(buffer_bytes_max)),
            workers: (0..workers).map(|_| WorkerRecord::default()).collect(),
            listening,
        }
    }

    /// The counters of all workers, added up.
    pub fn counters(&self) -> CountersSnapshot {
        let mut sum = CountersSnapshot::default();
        for worker in &self.workers {
            sum.add(&worker.counters);
        }
        sum
    }

    /// Sets the counters that `stats reset` resets to zero.
    pub fn reset_counters(&self) {
        for worker in &self.workers {
            worker.counters.reset();
        }
    }

    /// Calls `visit` with every open connection, worker by worker. Holds up accepts and closes of
    /// that worker meanwhile, and no request.
    pub fn for_each_connection(&self, mut visit: impl FnMut(&ConnectionRecord)) {
        for worker in &self.workers {
            worker.registry.for_each(&mut visit);
        }
    }

    /// How many clients are connected.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many may be (`-c`).
    pub fn connections_max(&self) -> u32 {
        self.connections_max
    }

    /// The memory that connections hold in buffers of their own.
    pub fn buffers(&self) -> &Gauge {
        &self.buffers
    }

    /// Where clients are served.
    pub fn listening(&self) -> &[ListeningAddress] {
        &self.listening
    }

    pub(crate) fn worker(&self, index: usize) -> &WorkerRecord {
        &self.workers[index]
    }

    pub(crate) fn share_buffers(&self) -> Arc<Gauge> {
        Arc::clone(&self.buffers)
    }

    /// Makes room for one more client, if there is any.
    pub(crate) fn try_open(&self) -> bool {
        self.connections
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < self.connections_max).then_some(open + 1)
            })
            .is_ok()
    }

    pub(crate) fn close(&self) {
        let before = self.connections.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a connection closes once");
    }
}
