//! The data plane: listeners, and one worker per thread of `-t`.
//!
//! ```text
//!            listener.rs             worker.rs                connection.rs        service.rs
//! clients -> | a socket per worker | -> | a task per client | -> | bytes to requests | -> Service
//!                                       | a turn at a time  | <- | answers to bytes  | <-
//!                                         over tokio.rs or uring.rs: driver.rs
//! ```
//!
//! - Workers share no task and steal no work: the kernel spreads clients over their listening
//!   sockets (`SO_REUSEPORT`), and a client stays with the worker that accepted it.
//! - A turn is: read once, answer every request that has arrived (up to `-R` when others wait), write
//!   once. It allocates nothing, and the buffers it works in belong to the worker; a connection owns
//!   memory only while half a request or an unsent answer is waiting.
//! - An answer that is not ready is held: `ticket.rs` names it, `waiting_room.rs` knows who waits, and
//!   `outgoing.rs` keeps what comes behind it in order. `detached.rs` is the same without a client.
//! - Other threads reach a worker through its `mailbox.rs`.
//! - What comes in datagrams is served as a connection that lasts for one of them (`udp.rs`).
//! - Under TLS `tls.rs` stands between the socket and the connection, which knows nothing of it.
//! - What all connections hold is counted in one [`buffers::Gauge`] and bounded.

pub mod buffers;
pub mod connection;
pub mod counters;
pub mod detached;
mod driver;
pub mod gate;
#[cfg(test)]
mod holding;
pub mod listener;
pub mod mailbox;
mod outgoing;
pub mod registry;
mod room;
pub mod side_stream;
mod sync;
pub mod ticket;
mod tls;
mod tokio;
mod udp;
mod uring;
pub mod waiting_room;
mod worker;

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use ::tokio::time::Instant;
use crossbeam_utils::CachePadded;
use protocol::meta::request::MetaKey;
use protocol::{Credentials, Refusal, Request};
use store::PinnedValue;

pub(crate) use self::uring::probe as probe_uring;
pub use self::uring::{RING_BYTES_MAX, Unavailable};
pub use self::worker::{WeakWorker, WorkerHandle};
pub(crate) use self::worker::{WorkerParts, run_worker};
use crate::clock::Now;
use crate::net::buffers::Gauge;
use crate::net::counters::{Counters, CountersSnapshot};
use crate::net::registry::{ConnectionRecord, Endpoint, Registry};
use crate::net::room::Room;
pub use crate::net::room::RoomReport;
use crate::net::side_stream::SideStream;
use crate::net::ticket::{Hold, HolderId, Ticket};
use crate::net::waiting_room::WaitingRoom;
use crate::tls::Certificates;

/// What answers requests. Each worker owns one and calls it from its own thread.
///
/// A panic inside is caught: it costs the client its connection and nobody else theirs. What an
/// implementation shares with other workers must therefore stay usable after one.
///
/// An answer need not be ready: [`Service::holds`] says which parts of it wait, and the worker's
/// [`WaitingRoom`] is told when they need not any more. A service whose answers are always ready
/// implements [`Service::handle`] and [`Service::invalidate`] alone.
pub trait Service {
    /// What other threads send to this one.
    type Message: Send + 'static;

    /// The worker runs; nothing was served yet. `worker` is for the tasks that the service spawns
    /// on it; what the service keeps of it must be weak ([`WorkerHandle::downgrade`]).
    fn started(&mut self, _worker: &WorkerHandle<Self>)
    where
        Self: Sized,
    {
    }

    /// Carries out `request` and appends its answer to `out`, which may hold earlier answers.
    fn handle(&mut self, request: &Request<'_>, call: Call<'_>, out: &mut Vec<u8>) -> Flow;

    /// The holds within what the last [`Service::handle`] appended, in the order of their ranges and
    /// tickets; taken out by whoever asks. None, or an empty list, when all of it may leave.
    fn holds(&mut self) -> Option<&mut Vec<Hold>> {
        None
    }

    /// These requests follow: a chance to have their items fetched from memory all at once, and to
    /// carry out the first of them together. Appends their answers to `out`, and begins none once `out`
    /// is `output_bytes_high` long. How many were carried out: each of the others is handed to
    /// [`Service::handle`]. What is answered here is answered whole, waits for nothing, and the next
    /// request follows.
    fn handle_ahead(
        &mut self,
        _requests: &[Ahead<'_>],
        _now: Now,
        _output_bytes_high: usize,
        _out: &mut Vec<u8>,
    ) -> usize {
        0
    }

    /// This has arrived from several clients, the beginning from each, who are served in a moment, one by one:
    /// a chance to have the items they ask for fetched from memory all at once. It may be anything, and nobody
    /// may notice what is made of it.
    fn foresee(&self, _arrived: &[&[u8]]) {}

    /// A turn of the client with this descriptor begins.
    fn turn_begins(&mut self, _client: RawFd) {}

    /// A client came.
    fn client_came(&mut self, _client: &ConnectionRecord, _now: Now) {}

    /// A client left, or was made to.
    fn client_left(&mut self, _client: &ConnectionRecord, _reason: CloseReason, _now: Now) {}

    /// A request was refused before it came here; it is answered already.
    fn refused(&mut self, _refusal: &Refusal<'_>, _now: Now) {}

    /// What the client is sent whose request was answered with [`Flow::Listen`]; asked once, at once.
    fn take_side_stream(&mut self) -> Option<Arc<dyn SideStream>> {
        None
    }

    /// A connection's turn is over: its requests are carried out, their answers not sent. Also
    /// after a batch of messages and after a tick.
    fn turn_ended(&mut self) {}

    /// Whether what was answered since the last call can be sent: asked once a turn. If not, the
    /// connection is closed without it.
    fn is_sound(&mut self) -> bool {
        true
    }

    /// Whether a client is let in with these; `None` is one that sent something else. Asked where
    /// clients have to authenticate.
    fn authenticate(&mut self, _credentials: Option<Credentials<'_>>) -> bool {
        false
    }

    /// Answers a write that was refused with `line`, and removes the item that it was to replace, so
    /// that no stale value stays behind. Like [`Service::handle`] otherwise; `call.raw` is empty.
    fn invalidate(&mut self, key: &MetaKey<'_>, line: &[u8], call: Call<'_>, out: &mut Vec<u8>);

    /// Another thread sent this; see [`mailbox`].
    fn post(&mut self, _message: Self::Message, _now: Now) {}

    /// Whether [`Service::tick`] is to be called: asked at the end of each turn, and after each tick.
    fn wants_ticks(&self) -> bool {
        false
    }

    /// Called every [`TICK_INTERVAL`] while wanted, if the worker is not busy.
    fn tick(&mut self, _now: Now) {}

    /// Whether somebody looks at the worker's progress ([`Network::worker_stall`]); asked once.
    fn is_watched(&self) -> bool {
        false
    }
}

/// Answers a request that was refused before it could be handled; an item that it was to replace goes with it.
fn refuse<S: Service>(service: &mut S, refusal: &Refusal<'_>, call: Call<'_>, out: &mut Vec<u8>) {
    let Some(key) = &refusal.invalidates else { return refusal.encode(out) };
    let mut answer = Vec::new();
    refusal.encode(&mut answer);
    service.invalidate(key, &answer, call, out);
}

/// How often a service is called that wants to be.
pub const TICK_INTERVAL: Duration = Duration::from_millis(10);

/// How often a watched worker shows that it runs.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(25);

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
pub struct Call<'a> {
    /// The time, the same for the whole turn.
    pub now: Now,
    /// The request as it was sent: with its data and line ends, and nothing else.
    pub raw: &'a [u8],
    /// How much of this request earlier calls have answered: what the last [`Flow::Pause`] said,
    /// and 0 at first.
    pub done: usize,
    /// The length of `out` beyond which a request of many answers must pause.
    pub output_bytes_high: usize,
    /// How many holds a request of many answers may have before it must pause; at least 1.
    pub holds_max: usize,
    /// Whether a value may be sent from where it stands ([`Flow::Apart`]): the answer leaves at once, over a plain
    /// socket.
    pub sends_apart: bool,
    /// Who waits for the answer.
    pub holder: HolderId,
    /// Where tickets come from, and where they are resolved.
    pub waiting_room: &'a WaitingRoom,
}

impl Call<'_> {
    /// A new ticket for a part of this answer.
    pub fn issue_ticket(&self) -> Ticket {
        self.waiting_room.issue(self.holder)
    }
}

/// A value that is not among the bytes of its answer but leaves from where it is stored.
#[derive(Debug)]
pub struct Apart {
    /// How many bytes of the output come before it, those behind it are there already.
    pub at: usize,
    /// Pinned for as long as it takes to send it: no shard is locked meanwhile.
    pub value: PinnedValue,
}

/// How a connection goes on after a request.
#[derive(Debug)]
pub enum Flow {
    /// The request is answered; the next one follows.
    Continue,
    /// The same, and this belongs to the answer: only where [`Call::sends_apart`] says so.
    Apart(Apart),
    /// The request is answered in part and the output is full: once it is sent, the same request is
    /// handed in again. Thus a get of ten thousand large values takes no more memory than a few.
    Pause {
        /// What to hand in as [`Call::done`]; the service gives it its meaning, such as a count of keys.
        done: usize,
    },
    /// The connection closes once everything before is sent.
    Close,
    /// No request follows: once everything before is sent, the client gets what
    /// [`Service::take_side_stream`] has for it, until either of them ends that.
    Listen,
}

/// Why a connection ended, in memcached's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client sent what cannot be made sense of, did not take its answers, or met a bug.
    Error,
    /// The client closed it, or asked for that.
    Normal,
    /// The client was silent for too long.
    IdleTimeout,
    /// The server stops.
    Shutdown,
}

/// What the workers share, and what `stats` reads: counters, open connections, buffers.
#[derive(Debug)]
pub struct Network {
    connections: CachePadded<AtomicU32>,
    connections_max: u32,
    room: Room,
    buffers: Arc<Gauge>,
    workers: Box<[WorkerRecord]>,
    listening: Vec<ListeningAddress>,
    certificates: Option<Arc<Certificates>>,
    began: Instant,
}

/// One worker as the others see it.
#[derive(Debug, Default)]
pub(crate) struct WorkerRecord {
    pub(crate) counters: CachePadded<Counters>,
    pub(crate) registry: Registry,
    /// Whether its clients' sockets are a ring's.
    pub(crate) is_uring: AtomicBool,
    /// When its loop last came around, in milliseconds since the network began.
    progress_ms: CachePadded<AtomicU64>,
}

/// An address that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListeningAddress {
    /// A TCP address, its port resolved.
    Tcp(SocketAddr),
    /// A UDP address, its port resolved.
    Udp(SocketAddr),
    /// The path of a UNIX socket.
    Unix(PathBuf),
}

impl fmt::Display for ListeningAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Udp(address) => write!(f, "{address} (UDP)"),
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
            room: Room::default(),
            buffers: Arc::new(Gauge::new(buffer_bytes_max)),
            workers: (0..workers).map(|_| WorkerRecord::default()).collect(),
            listening,
            certificates: None,
            began: Instant::now(),
        }
    }

    /// Serves under TLS with `certificates`, where addresses are not plain.
    #[must_use]
    pub(crate) fn under_tls(self, certificates: Option<Arc<Certificates>>) -> Self {
        Self { certificates, ..self }
    }

    /// What is shown to clients; `None` where there is no TLS.
    pub fn certificates(&self) -> Option<&Arc<Certificates>> {
        self.certificates.as_ref()
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// What reads and writes clients' sockets: a driver's name, or that it is not the same for all workers.
    pub fn io_driver(&self) -> &'static str {
        let workers = self.workers.iter();
        let rings = workers.filter(|worker| worker.is_uring.load(Ordering::Relaxed)).count();
        match rings {
            0 => "epoll",
            _ if rings == self.workers.len() => "uring",
            _ => "mixed",
        }
    }

    /// How long ago the loop of worker `index` last came around, idle or not; a healthy one does at
    /// least every 50 ms. Means something only for workers whose service is watched
    /// ([`Service::is_watched`]) and which serve.
    pub fn worker_stall(&self, index: usize) -> Duration {
        let seen = Duration::from_millis(self.worker(index).progress_ms.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(seen)
    }

    /// The loop of worker `index` comes around.
    pub(crate) fn note_progress(&self, index: usize) {
        let elapsed_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.worker(index).progress_ms.store(elapsed_ms, Ordering::Relaxed);
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
        self.room.reset();
    }

    /// Calls `visit` with every listening socket of the first worker: one for each address.
    pub fn for_each_listener(&self, visit: impl FnMut(RawFd, &Endpoint)) {
        if let Some(worker) = self.workers.first() {
            worker.registry.for_each_listener(visit);
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

    /// Waits until one more client may be connected. Meanwhile clients queue up before the listening socket
    /// that asks.
    pub(crate) async fn wait_for_room(&self) {
        let is_there = || self.connections.load(Ordering::SeqCst) < self.connections_max;
        if !is_there() {
            self.room.wait(is_there).await;
        }
    }

    /// How listening sockets have waited for room.
    pub fn room(&self) -> RoomReport {
        self.room.report()
    }

    pub(crate) fn close(&self) {
        let before = self.connections.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "a connection closes once");
        if before >= self.connections_max {
            self.room.made();
        }
    }
}
