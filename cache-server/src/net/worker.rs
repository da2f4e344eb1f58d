//! One worker: what a client's connection is led through, turn after turn, whatever its socket is.
//!
//! ```text
//!            accept          poll_receive, poll_send
//! Driver ───────────> Socket <────────────────────── Client ──> Connection ──> Service
//! tokio.rs            a task each                               no socket      no connection
//! ```
//!
//! A single-threaded tokio runtime runs the tasks, one per connection; a [`Driver`] says what sockets
//! are and who waits for them. A request spawns no task and allocates nothing.
//!
//! A connection may be suspended at every `await`, and another have its turn in the same buffers. So
//! between `lend` and `settle` there is only what is ready at once: one read that has succeeded, one
//! write that is tried.
//!
//! A connection whose answers are not all ready waits for its client and for them at the same time.
//! What other threads post is dealt with by a task of the worker's own, as are ticks.
//!
//! An orderly stop shuts down the reading half of every connection. The kernel then hands out what
//! had arrived, and the end of the stream after it: a connection needs to know of no other way to
//! end, and the path of a request has nothing to check.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::convert::Infallible;
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::Shutdown;
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, spawn_local, yield_now};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::clock::{Clock, Now};
use crate::config::{IoChoice, Limits, Protection, REQUESTS_PER_TURN_DEFAULT};
use crate::net::connection::{Connection, OutOfMemory, Scratch, Tally, Turn, TurnLimits};
use crate::net::counters::Counters;
use crate::net::detached::{Addressee, Served, Spare, serve};
use crate::net::driver::{Driver, Listener, SlowReader, Socket};
use crate::net::gate::Entrance;
use crate::net::listener::{TcpEntrance, UdpEntrance, WorkerListeners};
use crate::net::mailbox::Mailbox;
use crate::net::registry::{ConnectionRecord, ConnectionState, Endpoint};
use crate::net::side_stream::SideStream;
use crate::net::ticket::{HolderId, Resolution, Ticket};
use crate::net::tls::{TlsStream, TlsWorker};
use crate::net::tokio::Runtime;
use crate::net::uring::Uring;
use crate::net::waiting_room::WaitingRoom;
use crate::net::{
    CloseReason, Network, PROGRESS_INTERVAL, Service, TICK_INTERVAL, WorkerRecord, udp,
};

/// What a client is told when `-c` are connected: memcached's line.
const REFUSAL: &[u8] = b"ERROR Too many open connections\r\n";

/// How long accepting rests after it failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a client that takes nothing is looked at.
const STALL_STEP_MAX: Duration = Duration::from_secs(1);

/// How often silent clients are looked for.
const IDLE_STEP: Duration = Duration::from_secs(1);

/// Answers of one connection that are not ready, at most.
const HOLDS_MAX: usize = 1024;

/// Tasks that have their turn before the runtime looks at its own sockets and timers, where the clients'
/// sockets are a ring's: a driver that sees to it by itself every few turns.
const URING_EVENT_INTERVAL: u32 = 256;

/// What is received of one datagram: more than any holds.
const RECEIVED_DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// What a worker is made of.
pub(crate) struct WorkerParts<S: Service> {
    /// Which one, from 0.
    pub(crate) index: usize,
    /// What answers its clients.
    pub(crate) service: S,
    /// What other threads send it.
    pub(crate) mailbox: Mailbox<S::Message>,
    /// Its sockets.
    pub(crate) listeners: WorkerListeners,
    /// What it shares with the others.
    pub(crate) network: Arc<Network>,
    /// Where its time comes from.
    pub(crate) clock: Clock,
    /// What requests may be like.
    pub(crate) protocol_limits: protocol::Limits,
    /// What is spoken, and who is let in.
    pub(crate) entrance: Entrance,
    /// What connections may hold.
    pub(crate) limits: Limits,
    /// Requests in a turn while other clients are connected (`-R`).
    pub(crate) requests_per_turn: u32,
    /// What reads and writes its clients' sockets.
    pub(crate) io: IoChoice,
    /// Becomes true when the server is to stop.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Serves until told to stop, then until clients have their last answers or the time for it is over.
/// Calls `on_ready` once it serves.
///
/// # Errors
///
/// When the runtime or a listening socket cannot be set up; `on_ready` is not called then.
pub(crate) fn run_worker<S: Service + 'static>(
    parts: WorkerParts<S>,
    on_ready: impl FnOnce(),
) -> io::Result<()> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all();
    let uring = open_uring(&parts)?;
    if uring.is_some() {
        builder.event_interval(URING_EVENT_INTERVAL);
    }
    let runtime = builder.build_local(Default::default())?;
    runtime.block_on(async move {
        let WorkerParts { listeners, mailbox, mut stop, .. } = parts;
        // Sockets that are not clients' are the runtime's to wait for, and other nodes are as urgent.
        let naps = listeners.udp.is_empty() && !parts.service.is_watched();
        let worker = Rc::new(Worker {
            index: parts.index,
            service: RefCell::new(parts.service),
            room: Rc::new(WaitingRoom::new(parts.network.share_buffers())),
            is_ticking: Cell::new(false),
            ticks_wanted: Notify::new(),
            scratch: RefCell::new(Scratch::default()),
            clients: RefCell::default(),
            all_gone: Notify::new(),
            network: parts.network,
            clock: parts.clock,
            protocol_limits: parts.protocol_limits,
            entrance: parts.entrance,
            limits: parts.limits,
            requests_per_turn: parts.requests_per_turn,
        });
        let accepting = match &uring {
            Some(uring) => worker.accept_from(uring, listeners)?,
            None => worker.accept_from(&Runtime, listeners)?,
        };
        let mut driving = pin!(worker.drive(uring, naps));
        worker.start_service(mailbox);
        on_ready();
        tokio::select! {
            // An error means that the server is gone without a word: stop as well.
            _ = stop.wait_for(|&stop| stop) => {}
            failure = &mut driving => return failure,
        }
        accepting.iter().for_each(JoinHandle::abort);
        worker.finish().await;
        Ok(())
    })
}

/// The ring of the worker that `parts` make, on this thread; `None` if it is to do without, or has to.
fn open_uring<S: Service>(parts: &WorkerParts<S>) -> io::Result<Option<Uring>> {
    let uring = match parts.io {
        IoChoice::Epoll => return Ok(None),
        IoChoice::Auto | IoChoice::Uring => Uring::open(parts.network.share_buffers()),
    };
    match uring {
        Ok(uring) => {
            parts.network.worker(parts.index).is_uring.store(true, Ordering::Relaxed);
            Ok(Some(uring))
        }
        Err(error) if parts.io == IoChoice::Uring => Err(io::Error::other(error)),
        Err(error) => {
            let source = error.source().map(ToString::to_string).unwrap_or_default();
            tracing::info!(worker = parts.index, "epoll serves its clients; {error} ({source})");
            Ok(None)
        }
    }
}

/// One worker: everything its connections share, on its own thread.
struct Worker<S> {
    index: usize,
    service: RefCell<S>,
    /// What is held of its clients' answers.
    room: Rc<WaitingRoom>,
    /// Whether the service is being called regularly.
    is_ticking: Cell<bool>,
    /// The service wants that, from now on.
    ticks_wanted: Notify,
    scratch: RefCell<Scratch>,
    /// Open connections, to shut them down at the end.
    clients: RefCell<HashSet<RawFd>>,
    all_gone: Notify,
    network: Arc<Network>,
    clock: Clock,
    protocol_limits: protocol::Limits,
    entrance: Entrance,
    limits: Limits,
    requests_per_turn: u32,
}

/// A listening socket, as those see it who come in by it.
#[derive(Clone)]
struct Door {
    local: Endpoint,
    entrance: Entrance,
}

/// A client that has to wait for room.
struct Late<T> {
    stream: T,
    peer: Endpoint,
    door: Door,
}

/// Why a connection ended.
enum Ending {
    /// The client closed, asked for it, or was cut off by the network.
    Closed,
    /// The client sent what no connection goes on after.
    AtFault,
    /// The client did not take its answers.
    Slow,
    /// There was no memory for what it sent or did not take.
    OutOfMemory,
    /// A bug, met while serving a request; logged where it was caught.
    Crashed,
}

impl Ending {
    /// The reason that is told.
    fn reason(&self) -> CloseReason {
        match self {
            Self::Closed => CloseReason::Normal,
            Self::AtFault | Self::Slow | Self::OutOfMemory | Self::Crashed => CloseReason::Error,
        }
    }
}

impl From<OutOfMemory> for Ending {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::OutOfMemory => Self::OutOfMemory,
            _ if error.get_ref().is_some_and(|error| error.is::<SlowReader>()) => Self::Slow,
            _ => Self::Closed,
        }
    }
}

impl<S: Service + 'static> Worker<S> {
    fn record(&self) -> &WorkerRecord {
        self.network.worker(self.index)
    }

    fn counters(&self) -> &Counters {
        &self.record().counters
    }

    /// Drives `uring`, if there is one. Ends if that fails.
    async fn drive(self: &Rc<Self>, uring: Option<Uring>, naps: bool) -> io::Result<()> {
        let Some(uring) = uring else { return std::future::pending().await };
        spawn_local(Rc::clone(self).hurry_slow_readers(uring.clone()));
        let worker = Rc::clone(self);
        let foresee = move |arrived: &[&[u8]]| worker.service.borrow().foresee(arrived);
        spawn_local(uring.drive(naps, foresee)).await.map_err(io::Error::other)?
    }

    /// Has clients dropped that take nothing of the answers that the driver keeps for them.
    async fn hurry_slow_readers(self: Rc<Self>, uring: Uring) {
        let step = STALL_STEP_MAX.min(self.limits.write_timeout);
        let mut rounds = interval(step);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            uring.note_stalled(step, self.write_timeout());
        }
    }

    /// How long a client may take nothing.
    fn write_timeout(&self) -> Duration {
        let scarce = self.network.buffers().is_scarce();
        if scarce { self.limits.write_timeout_scarce } else { self.limits.write_timeout }
    }

    /// Tells the service that it runs, and spawns what calls it without a client.
    fn start_service(self: &Rc<Self>, mailbox: Mailbox<S::Message>) {
        self.service.borrow_mut().started(&WorkerHandle { worker: Rc::clone(self) });
        spawn_local(Rc::clone(self).take_mail(mailbox));
        spawn_local(Rc::clone(&self.room).end_patience());
        spawn_local(Rc::clone(self).tick());
        if let Some(limit) = self.limits.idle_timeout {
            spawn_local(Rc::clone(self).close_idle(limit));
        }
        if self.service.borrow().is_watched() {
            spawn_local(Rc::clone(self).show_progress());
        }
        self.note_ticks_wanted(&self.service.borrow());
    }

    /// Hands over what other threads post, all that is there at once.
    async fn take_mail(self: Rc<Self>, mailbox: Mailbox<S::Message>) {
        let mut batch = Vec::new();
        loop {
            mailbox.receive(&mut batch).await;
            let now = self.clock.now();
            let mut messages = batch.drain(..);
            // A message that meets a bug is lost; those behind it are not.
            while self.serve_alone("message", |service| {
                for message in messages.by_ref() {
                    service.post(message, now);
                }
            }) == Served::Crashed
            {}
            drop(messages);
            self.end_turn();
            // Whoever posts without pause does not keep clients waiting.
            yield_now().await;
        }
    }

    /// Calls the service regularly while it wants that.
    async fn tick(self: Rc<Self>) {
        loop {
            self.ticks_wanted.notified().await;
            let mut ticks = interval(TICK_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // The first is immediate.
            ticks.tick().await;
            while self.is_ticking.get() {
                ticks.tick().await;
                let now = self.clock.now();
                self.serve_alone("tick", |service| service.tick(now));
                self.end_turn();
                self.is_ticking.set(self.service.borrow().wants_ticks());
            }
        }
    }

    /// Shows whoever watches that the loop comes around.
    async fn show_progress(self: Rc<Self>) {
        let mut beats = interval(PROGRESS_INTERVAL);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            self.network.note_progress(self.index);
        }
    }

    /// Calls the service other than for a client. A bug met there is logged, and costs what `act` had
    /// left to do.
    fn serve_alone(&self, what: &str, act: impl FnOnce(&mut S)) -> Served {
        let acted = catch_unwind(AssertUnwindSafe(|| act(&mut self.service.borrow_mut())));
        if acted.is_ok() {
            return Served::Answered;
        }
        tracing::error!(worker = self.index, what, "met a bug in the server, please report it");
        Served::Crashed
    }

    /// Ends what the service was called for. False when what it answered may not be sent.
    fn end_turn(&self) -> bool {
        let ended = self.serve_alone("end of a turn", S::turn_ended);
        let mut service = self.service.borrow_mut();
        self.note_ticks_wanted(&service);
        service.is_sound() && ended == Served::Answered
    }

    /// Forgets what a request that met a bug would have held.
    fn give_up_turn(&self) {
        self.room.end_turn();
        if let Some(holds) = self.service.borrow_mut().holds() {
            holds.clear();
        }
    }

    fn note_ticks_wanted(&self, service: &S) {
        if service.wants_ticks() && !self.is_ticking.replace(true) {
            self.ticks_wanted.notify_one();
        }
    }

    /// Spawns a task per listening socket.
    fn accept_from(
        self: &Rc<Self>,
        driver: &impl Driver,
        listeners: WorkerListeners,
    ) -> io::Result<Vec<JoinHandle<()>>> {
        let mut accepting = Vec::new();
        let certificates = self.network.certificates();
        let tls = certificates.map(|certificates| {
            let network = Arc::clone(&self.network);
            let timeout = self.limits.handshake_timeout;
            Rc::new(TlsWorker::new(network, self.index, Arc::clone(certificates), timeout))
        });
        for TcpEntrance { socket, protection, dialect } in listeners.tcp {
            let entrance = self.entrance.speaking(dialect);
            let door = Door { local: Endpoint::Tcp(socket.local_addr()?), entrance };
            self.note_listener(socket.as_raw_fd(), &door.local);
            let listener = driver.serve_tcp(socket)?;
            let accepts = if let Some(tls) = &tls
                && protection != Protection::Plain
            {
                let tls = Rc::clone(tls);
                spawn_local(Rc::clone(self).accept(door, async move || {
                    let (stream, peer) = listener.accept().await?;
                    let stream = TlsStream::new(stream, protection, Rc::clone(&tls))?;
                    Ok((stream, peer))
                }))
            } else {
                spawn_local(Rc::clone(self).accept(door, async move || listener.accept().await))
            };
            accepting.push(accepts);
        }
        for UdpEntrance { socket, dialect } in listeners.udp {
            let entrance = self.entrance.speaking(dialect);
            let door = Door { local: Endpoint::Udp(socket.local_addr()?), entrance };
            let socket = UdpSocket::from_std(socket)?;
            accepting.push(spawn_local(Rc::clone(self).serve_datagrams(door, socket)));
        }
        if let Some(listener) = listeners.unix {
            let address = listener.local_addr()?;
            let path = address.as_pathname().unwrap_or_else(|| Path::new(""));
            let door = Door { local: Endpoint::Unix(Arc::from(path)), entrance: self.entrance };
            let peer = door.local.clone();
            self.note_listener(listener.as_raw_fd(), &door.local);
            let listener = driver.serve_unix(listener, peer)?;
            accepting.push(spawn_local(
                Rc::clone(self).accept(door, async move || listener.accept().await),
            ));
        }
        Ok(accepting)
    }

    fn note_listener(&self, fd: RawFd, local: &Endpoint) {
        self.record().registry.insert_listener(fd, local.clone());
    }

    /// Takes in client after client from one listening socket.
    async fn accept<T: Socket>(
        self: Rc<Self>,
        door: Door,
        next: impl AsyncFn() -> io::Result<(T, Endpoint)>,
    ) {
        let mut is_failing = false;
        loop {
            if !self.limits.refuses_fast {
                self.network.wait_for_room().await;
            }
            match next().await {
                Ok((stream, peer)) => {
                    is_failing = false;
                    if let Some(late) = self.admit(stream, peer, door.clone()) {
                        self.admit_in_the_end(late).await;
                    }
                }
                Err(error) if is_the_clients(&error) => self.counters().accept_failures.add(1),
                Err(error) => {
                    self.counters().accept_failures.add(1);
                    if !is_failing {
                        tracing::warn!("clients at {} have to wait: {error}", door.local);
                    }
                    is_failing = true;
                    // Out of descriptors or memory. The client stays in the queue, so asking again
                    // at once would only spin; another connection's end makes room.
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Answers datagram after datagram.
    async fn serve_datagrams(self: Rc<Self>, door: Door, socket: UdpSocket) {
        let Door { local, entrance } = door;
        let (fd, now) = (socket.as_raw_fd(), self.clock.now());
        let record = Arc::new(ConnectionRecord::new(fd, local.clone(), local, now));
        self.record().registry.insert(Arc::clone(&record));
        let holder = self.room.open();
        let mut datagram = vec![0; RECEIVED_DATAGRAM_BYTES_MAX];
        loop {
            // An error is of an earlier answer that did not arrive.
            let Ok((count, client)) = socket.recv_from(&mut datagram).await else { continue };
            let now = self.clock.now();
            self.counters().bytes_read.add(count as u64);
            record.set_active(now);
            let connection =
                Connection::new(self.protocol_limits, self.network.share_buffers(), holder)
                    .at(entrance);
            self.answer_datagram(&socket, now, connection, &datagram[..count], client);
        }
    }

    /// Answers what is in one datagram: a connection that lasts no longer.
    fn answer_datagram(
        &self,
        socket: &UdpSocket,
        now: Now,
        mut connection: Connection,
        datagram: &[u8],
        client: SocketAddr,
    ) {
        let Some((id, requests)) = udp::request_of(datagram) else {
            return self.counters().datagrams_dropped.add(1);
        };
        let mut wire_bytes_left = udp::wire_bytes_max(client.ip(), datagram.len());
        connection.lend(&mut self.scratch.borrow_mut());
        connection.input_mut().extend_from_slice(requests);
        loop {
            let answer_bytes_max = udp::answer_bytes_max(wire_bytes_left);
            let limits =
                TurnLimits { requests_max: 1, output_bytes_high: answer_bytes_max, holds_max: 1 };
            let turn = self.take_turn(&mut connection, now, limits, socket.as_raw_fd());
            let Ok((turn, tally)) = turn else { break };
            let mut answer = connection.unsent();
            let is_answered = tally.requests > 0;
            let is_too_long =
                answer.len() > answer_bytes_max || (turn == Turn::Full && !is_answered);
            if is_too_long {
                self.counters().datagram_answers_refused.add(1);
                answer = if udp::TOO_LONG.len() <= answer_bytes_max { udp::TOO_LONG } else { b"" };
            } else if !is_answered {
                self.counters().datagrams_dropped.add(1);
            }
            udp::for_each_datagram(id, answer, |part| {
                // What cannot be sent at once is lost, as it may be anywhere on its way.
                if let Ok(sent) = SockRef::from(socket).send_to(part, &client.into()) {
                    self.counters().bytes_written.add(sent as u64);
                }
            });
            wire_bytes_left = wire_bytes_left.saturating_sub(udp::wire_bytes_of(answer.len()));
            connection.mark_sent(connection.unsent().len());
            // Full, and answered: for the next request there may be room.
            let goes_on = matches!(turn, Turn::Spent | Turn::Full) && is_answered && !is_too_long;
            if !goes_on || udp::answer_bytes_max(wire_bytes_left) == 0 {
                break;
            }
        }
        connection.close(&mut self.scratch.borrow_mut());
    }

    /// Has `connection` answer what has arrived. A panic on the way is caught here and costs this
    /// connection alone.
    fn take_turn(
        &self,
        connection: &mut Connection,
        now: Now,
        limits: TurnLimits,
        fd: RawFd,
    ) -> Result<(Turn, Tally), Ending> {
        let mut tally = Tally::default();
        self.room.begin_turn(connection.holder());
        let turn = catch_unwind(AssertUnwindSafe(|| {
            let mut service = self.service.borrow_mut();
            service.turn_begins(fd);
            connection.advance(&mut *service, &self.room, now, limits, &mut tally)
        }));
        let counters = self.counters();
        counters.requests.add(tally.requests.into());
        if tally.values_refused > 0 {
            counters.values_refused_for_memory.add(tally.values_refused.into());
        }
        if turn.is_err() {
            self.give_up_turn();
        }
        if !self.end_turn() {
            return Err(Ending::Crashed);
        }
        connection.release(&self.room, limits);
        self.room.end_turn();
        match turn {
            Ok(turn) => Ok((turn, tally)),
            Err(_) => {
                let shape = catch_unwind(AssertUnwindSafe(|| connection.shape())).ok();
                tracing::error!(
                    fd,
                    command = shape.map_or("(undecodable)", |shape| shape.command),
                    key_bytes = shape.map_or(0, |shape| shape.key_bytes),
                    "a request met a bug in the server; its connection is closed, please report it"
                );
                Err(Ending::Crashed)
            }
        }
    }

    /// Takes in a client that another one came before.
    async fn admit_in_the_end<T: Socket>(self: &Rc<Self>, late: Late<T>) {
        let mut waits = Some(late);
        while let Some(Late { stream, peer, door }) = waits {
            self.network.wait_for_room().await;
            waits = self.admit(stream, peer, door);
        }
    }

    /// Takes a client in, or tells it that the server is full; hands it back if it is to wait instead.
    fn admit<T: Socket>(self: &Rc<Self>, stream: T, peer: Endpoint, door: Door) -> Option<Late<T>> {
        if !self.network.try_open() {
            if !self.limits.refuses_fast {
                return Some(Late { stream, peer, door });
            }
            self.counters().connections_rejected.add(1);
            stream.refuse(REFUSAL);
            return None;
        }
        let client = Client::new(Rc::clone(self), stream.as_raw_fd(), peer, door);
        spawn_local(async move {
            let worker = Rc::clone(&client.worker);
            match client.serve(stream).await {
                Ending::Closed | Ending::AtFault => {}
                Ending::Slow => worker.counters().connections_dropped_slow.add(1),
                Ending::OutOfMemory => worker.counters().connections_dropped_for_memory.add(1),
                Ending::Crashed => worker.counters().connections_crashed.add(1),
            }
        });
        None
    }

    /// Closes clients that have been silent for longer than `limit`: the end of their stream is what they
    /// are told, behind answers that are still held.
    async fn close_idle(self: Rc<Self>, limit: Duration) {
        let mut rounds = interval(IDLE_STEP);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            let now = self.clock.now();
            self.record().registry.for_each(&mut |client| {
                if client.outstays(limit, now) {
                    self.counters().idle_kicks.add(1);
                    // Fails on one that has gone meanwhile.
                    let _ = nix::sys::socket::shutdown(client.fd, Shutdown::Read);
                }
            });
        }
    }

    /// Lets every connection answer what it has received, then end.
    async fn finish(&self) {
        for &fd in self.clients.borrow().iter() {
            // Fails on a connection that its client has closed already: it is ending by itself.
            let _ = nix::sys::socket::shutdown(fd, Shutdown::Read);
        }
        let all_gone = async {
            while !self.clients.borrow().is_empty() {
                self.all_gone.notified().await;
            }
        };
        if timeout(self.limits.stop_timeout, all_gone).await.is_err() {
            let clients = self.clients.borrow().len();
            tracing::warn!(worker = self.index, clients, "stopped before they took their answers");
        }
    }

    /// How far one turn may go: without limit when nobody waits, unless one was asked for.
    fn turn_limits(&self) -> TurnLimits {
        let is_asked_for = self.requests_per_turn != REQUESTS_PER_TURN_DEFAULT.get();
        let alone = !is_asked_for && self.clients.borrow().len() <= 1;
        TurnLimits {
            requests_max: if alone { u32::MAX } else { self.requests_per_turn },
            output_bytes_high: self.limits.output_bytes_high,
            holds_max: HOLDS_MAX,
        }
    }
}

/// A worker as the tasks see it that its service has spawned.
///
/// Belongs to the worker's thread. It keeps the worker alive, and with it the service: what the
/// service keeps is a [`WeakWorker`].
pub struct WorkerHandle<S: Service + 'static> {
    worker: Rc<Worker<S>>,
}

/// A [`WorkerHandle`] that keeps nothing alive.
pub struct WeakWorker<S: Service + 'static> {
    worker: Weak<Worker<S>>,
}

impl<S: Service + 'static> Clone for WorkerHandle<S> {
    fn clone(&self) -> Self {
        Self { worker: Rc::clone(&self.worker) }
    }
}

impl<S: Service + 'static> Clone for WeakWorker<S> {
    fn clone(&self) -> Self {
        Self { worker: Weak::clone(&self.worker) }
    }
}

impl<S: Service + 'static> WeakWorker<S> {
    /// The worker, while it runs.
    pub fn upgrade(&self) -> Option<WorkerHandle<S>> {
        self.worker.upgrade().map(|worker| WorkerHandle { worker })
    }
}

impl<S: Service + 'static> WorkerHandle<S> {
    /// The same, for the service to keep.
    pub fn downgrade(&self) -> WeakWorker<S> {
        WeakWorker { worker: Rc::downgrade(&self.worker) }
    }

    /// Which worker, from 0.
    pub fn index(&self) -> usize {
        self.worker.index
    }

    /// The time.
    pub fn now(&self) -> Now {
        self.worker.clock.now()
    }

    /// Where what is held of this worker's answers is resolved.
    pub fn waiting_room(&self) -> &Rc<WaitingRoom> {
        &self.worker.room
    }

    /// Decides what becomes of the answer held under `ticket`.
    pub fn resolve(&self, ticket: Ticket, resolution: Resolution) {
        self.worker.room.resolve(ticket, resolution);
    }

    /// Whether the service is being called regularly, as it wants or wanted a moment ago.
    pub fn is_ticking(&self) -> bool {
        self.worker.is_ticking.get()
    }

    /// Runs `task` on the worker's thread until it ends or the worker stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
        spawn_local(task)
    }

    /// Calls `act` with the service, not from within one of its methods. [`WorkerHandle::end_turn`]
    /// is to follow, once for any number of calls.
    ///
    /// # Panics
    ///
    /// When the service is in use: called from within it.
    pub fn with_service<T>(&self, act: impl FnOnce(&mut S) -> T) -> T {
        act(&mut self.worker.service.borrow_mut())
    }

    /// Carries out `request`, one whole request as a client would send it, and appends its answer to
    /// `out`; or, if it is not ready, has it handed to `addressee` later.
    /// [`WorkerHandle::end_turn`] is to follow, once for any number of requests.
    pub fn serve(
        &self,
        now: Now,
        request: &[u8],
        out: &mut Vec<u8>,
        addressee: &Addressee,
        spare: &mut Spare,
    ) -> Served {
        let worker = &*self.worker;
        let (start, limits) = (out.len(), worker.protocol_limits);
        let mut served = Served::Crashed;
        let outcome = worker.serve_alone("request of another node", |service| {
            served = serve(service, &worker.room, limits, now, request, out, addressee, spare);
        });
        if outcome == Served::Crashed {
            out.truncate(start);
            worker.give_up_turn();
        }
        served
    }

    /// Ends a turn: the service does what it has put off to its end. False when what was answered in
    /// it must not be sent, as what it was read from has turned out to be damaged.
    #[must_use]
    pub fn end_turn(&self) -> bool {
        self.worker.end_turn()
    }
}

/// Whether accepting failed because the client gave up meanwhile.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

impl<T: Socket + AsyncRead + AsyncWrite> Socket for TlsStream<T> {
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        input: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        Self::poll_receive(self, context, input)
    }

    fn poll_send(&mut self, context: &mut Context<'_>, output: &[u8]) -> Poll<io::Result<usize>> {
        Self::poll_send(self, context, output)
    }

    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket_mut().poll_sent(context)
    }

    fn give_way(&self) -> impl Future<Output = ()> {
        self.socket().give_way()
    }

    fn part(&mut self) {
        Self::part(self);
    }
}

/// A connected client; dropping it takes it off every list.
struct Client<S: Service + 'static> {
    worker: Rc<Worker<S>>,
    record: Arc<ConnectionRecord>,
    /// Who it is in the waiting room.
    holder: HolderId,
    entrance: Entrance,
}

/// What ends a connection's waiting.
enum Received {
    /// Bytes from the client, this many; none at the end of its stream.
    Bytes(usize),
    /// An answer that was held may leave.
    Released,
}

impl<S: Service + 'static> Drop for Client<S> {
    fn drop(&mut self) {
        let fd = self.record.fd;
        self.worker.room.close(self.holder);
        tracing::debug!(fd, peer = %self.record.peer, "connection closed");
        self.worker.record().registry.remove(fd);
        let mut clients = self.worker.clients.borrow_mut();
        clients.remove(&fd);
        if clients.is_empty() {
            self.worker.all_gone.notify_one();
        }
        self.worker.network.close();
    }
}

impl<S: Service + 'static> Client<S> {
    fn new(worker: Rc<Worker<S>>, fd: RawFd, peer: Endpoint, door: Door) -> Self {
        let Door { local, entrance } = door;
        tracing::debug!(fd, %peer, "connection opened");
        let record = Arc::new(ConnectionRecord::new(fd, peer, local, worker.clock.now()));
        worker.record().registry.insert(Arc::clone(&record));
        worker.clients.borrow_mut().insert(fd);
        worker.counters().connections_accepted.add(1);
        let holder = worker.room.open();
        worker
            .serve_alone("new client", |service| service.client_came(&record, worker.clock.now()));
        Self { worker, record, holder, entrance }
    }

    /// Serves `stream` until the connection ends.
    async fn serve<T: Socket>(self, mut stream: T) -> Ending {
        let worker = &*self.worker;
        let mut connection =
            Connection::new(worker.protocol_limits, worker.network.share_buffers(), self.holder)
                .at(self.entrance);
        if stream.sends_pieces() {
            connection = connection.sending_apart();
        }
        let Err(mut ending) = self.converse(&mut stream, &mut connection).await;
        // The buffers that it may have been lent are others', while it waits for its last bytes to leave.
        connection.close(&mut worker.scratch.borrow_mut());
        if matches!(ending, Ending::Closed | Ending::AtFault) {
            let parted = async {
                poll_fn(|context| stream.poll_sent(context)).await?;
                stream.part();
                poll_fn(|context| stream.poll_sent(context)).await
            };
            if let Err(error) = parted.await
                && let slow @ Ending::Slow = Ending::from(error)
            {
                ending = slow;
            }
        } else {
            stream.part();
        }
        worker.serve_alone("client that left", |service| {
            let reason = match ending.reason() {
                CloseReason::Normal if self.record.was_sent_away() => CloseReason::IdleTimeout,
                reason => reason,
            };
            service.client_left(&self.record, reason, worker.clock.now());
        });
        ending
    }

    /// Turn after turn. Wherever this may wait for long, the connection is settled.
    async fn converse<T: Socket>(
        &self,
        stream: &mut T,
        connection: &mut Connection,
    ) -> Result<Infallible, Ending> {
        let counters = self.worker.counters();
        loop {
            match self.receive(stream, connection).await? {
                Received::Bytes(0) if connection.is_holding() => connection.end_input(),
                Received::Bytes(0) => return Err(Ending::Closed),
                Received::Bytes(count) => counters.bytes_read.add(count as u64),
                Received::Released => {}
            }
            loop {
                let turn = self.take_turn(connection)?;
                // At once: the next turn is another client's.
                let side_stream = if turn == Turn::Listens {
                    self.worker.service.borrow_mut().take_side_stream()
                } else {
                    None
                };
                self.send(stream, connection).await?;
                match turn {
                    Turn::Listens => {
                        self.settle(connection)?;
                        let Some(side_stream) = side_stream else { return Err(Ending::Closed) };
                        return Err(self.listen(stream, &*side_stream).await);
                    }
                    Turn::Drained => break,
                    Turn::Spent => counters.yields.add(1),
                    Turn::Full => {}
                    Turn::Held => {
                        self.settle(connection)?;
                        self.record.set_state(ConnectionState::Waiting);
                        poll_fn(|context| {
                            self.worker.room.poll_released(self.holder, true, context)
                        })
                        .await;
                        continue;
                    }
                    Turn::Closes if connection.is_at_fault() => return Err(Ending::AtFault),
                    Turn::Closes => return Err(Ending::Closed),
                    Turn::OutOfMemory => return Err(Ending::OutOfMemory),
                }
                self.settle(connection)?;
                stream.give_way().await;
            }
            self.settle(connection)?;
            self.record.set_state(if connection.awaits_value() {
                ConnectionState::Receiving
            } else {
                ConnectionState::Waiting
            });
        }
    }

    /// Sends what `side_stream` has, as fast as the client takes it. What the client says is heard there and not
    /// answered; how it ends is by closing. Nobody waits for it: what it does not take waits in the side stream,
    /// which is bounded.
    async fn listen<T: Socket>(&self, stream: &mut T, side_stream: &dyn SideStream) -> Ending {
        self.record.set_state(ConnectionState::Watching);
        let mut heard = Vec::with_capacity(256);
        let (mut bytes, mut sent) = (Vec::new(), 0);
        let counters = self.worker.counters();
        poll_fn(|context| {
            loop {
                match stream.poll_receive(context, &mut heard) {
                    Poll::Ready(Ok(count)) if count > 0 => {
                        counters.bytes_read.add(count as u64);
                        side_stream.hear(&heard);
                        heard.clear();
                        // Whoever talks all the time does not keep others from their turn.
                        context.waker().wake_by_ref();
                    }
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
                if sent == bytes.len() {
                    bytes.clear();
                    sent = 0;
                    if side_stream.poll_take(context, &mut bytes).is_pending() {
                        return Poll::Pending;
                    }
                }
                match stream.poll_send(context, &bytes[sent..]) {
                    Poll::Ready(Ok(count)) if count > 0 => {
                        counters.bytes_written.add(count as u64);
                        sent += count;
                    }
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
        Ending::Closed
    }

    /// Waits for the client to send, and reads once; or for an answer that is held.
    ///
    /// The worker's buffer is lent only while the read is tried, so a waiting connection holds none.
    async fn receive<T: Socket>(
        &self,
        stream: &mut T,
        connection: &mut Connection,
    ) -> io::Result<Received> {
        poll_fn(|context| {
            let mut scratch = self.worker.scratch.borrow_mut();
            connection.lend(&mut scratch);
            let read = stream.poll_receive(context, connection.input_mut());
            if let Poll::Ready(read) = read {
                return Poll::Ready(read.map(Received::Bytes));
            }
            if connection.settle(&mut scratch).is_err() {
                // Nothing was added, and what was kept before is leased.
                return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
            }
            if connection.is_holding() {
                let released = self.worker.room.poll_released(self.holder, false, context);
                return released.map(|()| Ok(Received::Released));
            }
            Poll::Pending
        })
        .await
    }

    /// Answers what has arrived.
    fn take_turn(&self, connection: &mut Connection) -> Result<Turn, Ending> {
        let worker = &*self.worker;
        let now = worker.clock.now();
        self.record.set_active(now);
        self.record.set_state(ConnectionState::Serving);
        connection.lend(&mut worker.scratch.borrow_mut());
        worker
            .take_turn(connection, now, worker.turn_limits(), self.record.fd)
            .map(|(turn, _)| turn)
    }

    /// Sends every answer there is, waiting for the client to take it if need be.
    async fn send<T: Socket>(
        &self,
        stream: &mut T,
        connection: &mut Connection,
    ) -> Result<(), Ending> {
        if connection.has_apart() {
            self.send_apart(stream, connection).await?;
        }
        if !connection.has_unsent() {
            return Ok(());
        }
        // Nearly always the socket takes all of it at once, straight from the worker's buffer.
        let first =
            poll_fn(|context| Poll::Ready(stream.poll_send(context, connection.unsent()))).await;
        if let Poll::Ready(sent) = first {
            self.mark_sent(connection, sent?)?;
            if !connection.has_unsent() {
                return Ok(());
            }
        }
        self.send_rest(stream, connection).await
    }

    /// Sends a value from where it is stored, and what is around it, as far as that is possible at once. The rest is
    /// unsent as any answer is.
    async fn send_apart<T: Socket>(
        &self,
        stream: &mut T,
        connection: &mut Connection,
    ) -> Result<(), Ending> {
        let sent = poll_fn(|context| {
            let pieces: SmallVec<[IoSlice<'_>; 8]> =
                connection.pieces().map(IoSlice::new).collect();
            Poll::Ready(match stream.poll_send_pieces(context, &pieces) {
                Poll::Ready(sent) => sent,
                Poll::Pending => Ok(0),
            })
        });
        let sent = sent.await?;
        self.worker.counters().bytes_written.add(sent as u64);
        connection.end_apart(sent);
        // What was copied from a memory file that somebody cuts short meanwhile may be nothing that was ever stored.
        if connection.has_unsent() && !self.worker.end_turn() {
            return Err(Ending::Crashed);
        }
        Ok(())
    }

    /// The client is slower than its answers: they move to a buffer of its own, and it has a while to
    /// take the next of them.
    async fn send_rest<T: Socket>(
        &self,
        stream: &mut T,
        connection: &mut Connection,
    ) -> Result<(), Ending> {
        self.settle(connection)?;
        self.record.set_state(ConnectionState::Sending);
        let step = STALL_STEP_MAX.min(self.worker.limits.write_timeout);
        let mut stalled = Duration::ZERO;
        while connection.has_unsent() {
            let write = poll_fn(|context| stream.poll_send(context, connection.unsent()));
            match timeout(step, write).await {
                Ok(sent) => {
                    self.mark_sent(connection, sent?)?;
                    stalled = Duration::ZERO;
                }
                Err(_) => {
                    stalled += step;
                    if stalled >= self.worker.write_timeout() {
                        return Err(Ending::Slow);
                    }
                }
            }
        }
        Ok(())
    }

    fn mark_sent(&self, connection: &mut Connection, count: usize) -> Result<(), Ending> {
        if count == 0 {
            return Err(Ending::Closed);
        }
        self.worker.counters().bytes_written.add(count as u64);
        connection.mark_sent(count);
        Ok(())
    }

    fn settle(&self, connection: &mut Connection) -> Result<(), OutOfMemory> {
        connection.settle(&mut self.worker.scratch.borrow_mut())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read, Write};
    use std::sync::mpsc;
    use std::thread;

    use bytes::Bytes;
    use protocol::Request;
    use protocol::meta::request::MetaKey;

    use super::*;
    use crate::config::Listen;
    use crate::net::listener::Listeners;
    use crate::net::mailbox::{Postbox, mailbox};
    use crate::net::ticket::Hold;
    use crate::net::{Call, Flow, ListeningAddress};

    /// Has each of these tests run over either driver.
    macro_rules! over_either_driver {
        ($($test:ident)*) => {
            mod over_epoll {
                $(#[test]
                fn $test() {
                    super::$test(super::IoChoice::Epoll);
                })*
            }

            mod over_uring {
                $(#[test]
                fn $test() {
                    if crate::net::uring::is_there() {
                        super::$test(super::IoChoice::Uring);
                    }
                })*
            }
        };
    }

    over_either_driver! {
        bug_met_by_one_request_costs_one_connection
        client_that_takes_nothing_is_paused_and_then_dropped
        stop_answers_what_was_received
        client_that_sends_no_more_gets_what_was_held
        requests_behind_a_held_answer_are_carried_out_as_they_arrive
        more_requests_than_may_be_held_are_answered_in_the_end
        answer_that_becomes_ready_at_the_end_of_its_turn_leaves_with_it
        stop_waits_for_held_answers_and_not_for_ever
        message_that_meets_a_bug_is_lost_and_the_next_is_not
        service_ticks_while_it_wants_to
        worker_shows_progress_while_idle_and_none_while_it_hangs
        task_of_the_worker_serves_requests_without_a_client
    }

    /// Answers `mn`, and has a bug in `stats`.
    struct Buggy;

    impl Service for Buggy {
        type Message = Infallible;

        fn handle(&mut self, request: &Request<'_>, _: Call<'_>, out: &mut Vec<u8>) -> Flow {
            assert!(!matches!(request, Request::Stats { .. }), "a bug");
            out.extend_from_slice(b"MN\r\n");
            Flow::Continue
        }

        fn invalidate(&mut self, _: &MetaKey<'_>, _: &[u8], _: Call<'_>, _: &mut Vec<u8>) {}
    }

    /// What a test tells the worker.
    type Act = Box<dyn FnOnce(&mut Deferring) + Send>;

    /// Holds the answer to `mn` until it is told to let go, and answers `version` at once. Counts
    /// ticks, turns and what else it is called for.
    #[derive(Default)]
    struct Deferring {
        worker: Option<WeakWorker<Self>>,
        holds: Vec<Hold>,
        open: Vec<Ticket>,
        /// Let go of everything when the turn ends.
        is_hasty: bool,
        wants_ticks: bool,
        ticks: u32,
        turns: u32,
        finished: Rc<RefCell<Vec<u64>>>,
        foreseen: RefCell<Vec<Vec<Vec<u8>>>>,
    }

    impl Deferring {
        fn resolve_all(&mut self) {
            let worker = self.worker.as_ref().unwrap().upgrade().unwrap();
            self.open.drain(..).for_each(|ticket| worker.resolve(ticket, Resolution::Keep));
        }
    }

    impl Service for Deferring {
        type Message = Act;

        fn started(&mut self, worker: &WorkerHandle<Self>) {
            self.worker = Some(worker.downgrade());
        }

        fn handle(&mut self, request: &Request<'_>, call: Call<'_>, out: &mut Vec<u8>) -> Flow {
            let from = out.len();
            match request {
                Request::Quit => return Flow::Close,
                Request::Version => out.extend_from_slice(b"VERSION\r\n"),
                _ => {
                    out.extend_from_slice(b"MN\r\n");
                    let ticket = call.issue_ticket();
                    self.open.push(ticket);
                    self.holds.push(Hold { ticket, from, to: out.len() });
                }
            }
            Flow::Continue
        }

        fn holds(&mut self) -> Option<&mut Vec<Hold>> {
            Some(&mut self.holds)
        }

        fn foresee(&self, arrived: &[&[u8]]) {
            self.foreseen.borrow_mut().push(arrived.iter().map(|bytes| bytes.to_vec()).collect());
        }

        fn turn_ended(&mut self) {
            self.turns += 1;
            if self.is_hasty {
                self.resolve_all();
            }
        }

        fn invalidate(&mut self, _: &MetaKey<'_>, _: &[u8], _: Call<'_>, _: &mut Vec<u8>) {}

        fn post(&mut self, act: Act, _: Now) {
            act(self);
        }

        fn wants_ticks(&self) -> bool {
            self.wants_ticks
        }

        fn tick(&mut self, _: Now) {
            self.ticks += 1;
        }

        fn is_watched(&self) -> bool {
            true
        }
    }

    impl Running<Act> {
        /// Has the worker carry out `act`, and waits for what it returns.
        fn ask<T: Send + 'static>(
            &self,
            act: impl FnOnce(&mut Deferring) -> T + Send + 'static,
        ) -> T {
            let (answer, answers) = mpsc::channel();
            self.postbox.post(Box::new(move |service| answer.send(act(service)).unwrap()));
            answers.recv_timeout(Duration::from_secs(10)).unwrap()
        }

        fn deferring(io: IoChoice) -> Self {
            Self::start_service(io, Limits::default(), Deferring::default)
        }

        /// Waits until the worker holds back `count` answers.
        fn await_held(&self, count: usize) {
            for _ in 0..1000 {
                if self.ask(|service| service.open.len()) == count {
                    return;
                }
                thread::yield_now();
            }
            panic!("{count} answers were to be held");
        }
    }

    /// One worker on a thread of its own, stopped and joined when dropped.
    pub(in crate::net) struct Running<M = Infallible> {
        address: SocketAddr,
        pub(in crate::net) network: Arc<Network>,
        postbox: Postbox<M>,
        stop: watch::Sender<bool>,
        thread: Option<thread::JoinHandle<io::Result<()>>>,
    }

    impl Running {
        fn start(io: IoChoice, limits: Limits) -> Self {
            Self::start_service(io, limits, || Buggy)
        }
    }

    impl<M: Send + 'static> Running<M> {
        pub(in crate::net) fn start_service<S: Service<Message = M> + 'static>(
            io: IoChoice,
            limits: Limits,
            service: impl FnOnce() -> S + Send + 'static,
        ) -> Self {
            let listeners = Listeners::bind_tcp(&[Listen::loopback(0)], 1, 16).unwrap();
            let [ListeningAddress::Tcp(address)] = *listeners.addresses() else { panic!() };
            let network = Network::new(1, 8, 1 << 20, listeners.addresses().to_vec());
            let network = Arc::new(network);
            let shared = Arc::clone(&network);
            let (stop, stopped) = watch::channel(false);
            let (postbox, mailbox) = mailbox();
            let run = move || {
                let parts = WorkerParts {
                    index: 0,
                    service: service(),
                    mailbox,
                    listeners: listeners.into_parts().workers.remove(0),
                    network: shared,
                    clock: Clock::system(),
                    protocol_limits: protocol::Limits::default(),
                    entrance: Entrance::default(),
                    limits,
                    requests_per_turn: 20,
                    io,
                    stop: stopped,
                };
                run_worker(parts, || {})
            };
            Self { address, network, postbox, stop, thread: Some(thread::spawn(run)) }
        }
    }

    impl<M> Running<M> {
        pub(in crate::net) fn connect(&self) -> std::net::TcpStream {
            let client = std::net::TcpStream::connect(self.address).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            client
        }

        pub(in crate::net) fn join(&mut self) {
            self.outcome().unwrap();
        }

        /// How it ended, once it was told to.
        pub(in crate::net) fn outcome(&mut self) -> io::Result<()> {
            self.stop.send_replace(true);
            self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap())
        }
    }

    impl<M> Drop for Running<M> {
        fn drop(&mut self) {
            self.join();
        }
    }

    fn ask(client: &mut std::net::TcpStream) -> [u8; 4] {
        client.write_all(b"mn\r\n").unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        answer
    }

    #[test]
    fn what_arrived_from_several_clients_is_foreseen_before_they_are_served() {
        if !crate::net::uring::is_there() {
            return;
        }
        let running = Running::deferring(IoChoice::Uring);
        let ask = |client: &mut std::net::TcpStream| client.write_all(b"version\r\n").unwrap();
        let take_answer =
            |client: &mut std::net::TcpStream| client.read_exact(&mut [0; 9]).unwrap();
        let mut clients = [running.connect(), running.connect()];
        for client in &mut clients {
            ask(client);
            take_answer(client);
        }
        let (begin, begun) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel();
        running.postbox.post(Box::new(move |service| {
            service.foreseen.take();
            begin.send(()).unwrap();
            goes_on.recv_timeout(Duration::from_secs(10)).unwrap();
        }));
        begun.recv_timeout(Duration::from_secs(10)).unwrap();
        clients.iter_mut().for_each(ask);
        go_on.send(()).unwrap();
        clients.iter_mut().for_each(take_answer);
        let foreseen = running.ask(|service| service.foreseen.take());
        assert_eq!(foreseen, [[b"version\r\n", b"version\r\n"]]);
    }

    fn bug_met_by_one_request_costs_one_connection(io: IoChoice) {
        let mut worker = Running::start(io, Limits::default());
        let mut bystander = worker.connect();
        assert_eq!(&ask(&mut bystander), b"MN\r\n");
        let mut client = worker.connect();
        client.write_all(b"mn\r\nstats\r\n").unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"", "what the turn had answered is in doubt and not sent");
        for _ in 0..100 {
            assert_eq!(&ask(&mut bystander), b"MN\r\n");
        }
        worker.join();
        assert_eq!(worker.network.counters().connections_crashed, 1);
    }

    fn client_that_takes_nothing_is_paused_and_then_dropped(io: IoChoice) {
        let mut worker = Running::start(
            io,
            Limits { write_timeout: Duration::from_millis(200), ..Limits::default() },
        );
        let mut slow = worker.connect();
        slow.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let requests = b"mn\r\n".repeat(10_000);
        let mut sent = 0_usize;
        // Paused: at some point the server reads no more, and the socket takes no more. Dropped: it
        // fails for good.
        let error = loop {
            match slow.write(&requests) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => break error,
            }
        };
        assert!(
            matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
            "{error}"
        );
        let mut other = worker.connect();
        assert_eq!(&ask(&mut other), b"MN\r\n");
        drop(other);
        worker.join();
        let counters = worker.network.counters();
        assert_eq!(counters.connections_dropped_slow, 1, "after {sent} bytes");
        assert_eq!(worker.network.buffers().bytes(), 0);
        assert_eq!(worker.network.connections(), 0);
    }

    fn stop_answers_what_was_received(io: IoChoice) {
        let mut worker = Running::start(io, Limits::default());
        let mut clients: Vec<_> = (0..4).map(|_| worker.connect()).collect();
        for client in &mut clients {
            assert_eq!(&ask(client), b"MN\r\n");
            client.write_all(&b"mn\r\n".repeat(1000)).unwrap();
        }
        worker.join();
        for mut client in clients {
            let mut answers = Vec::new();
            client.read_to_end(&mut answers).unwrap();
            assert_eq!(answers, b"MN\r\n".repeat(1000));
        }
    }

    /// Everything that `client` gets before the worker closes.
    fn rest(client: &mut std::net::TcpStream) -> String {
        let mut answers = String::new();
        client.read_to_string(&mut answers).unwrap();
        answers
    }

    fn client_that_sends_no_more_gets_what_was_held(io: IoChoice) {
        let worker = Running::deferring(io);
        for ending in ["", "quit\r\nmn\r\n"] {
            let mut client = worker.connect();
            client.write_all(format!("mn\r\nversion\r\nmn\r\n{ending}").as_bytes()).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            worker.await_held(2);
            worker.ask(Deferring::resolve_all);
            assert_eq!(rest(&mut client), "MN\r\nVERSION\r\nMN\r\n");
        }
    }

    fn requests_behind_a_held_answer_are_carried_out_as_they_arrive(io: IoChoice) {
        let worker = Running::deferring(io);
        let mut client = worker.connect();
        for count in 1..=50 {
            client.write_all(b"mn\r\n").unwrap();
            worker.await_held(count);
        }
        worker.ask(Deferring::resolve_all);
        let mut answers = [0; 200];
        client.read_exact(&mut answers).unwrap();
        assert_eq!(answers[..], *b"MN\r\n".repeat(50));
    }

    fn more_requests_than_may_be_held_are_answered_in_the_end(io: IoChoice) {
        let worker = Running::deferring(io);
        let mut client = worker.connect();
        client.write_all(&b"mn\r\n".repeat(HOLDS_MAX + 10)).unwrap();
        worker.await_held(HOLDS_MAX);
        worker.ask(|service| {
            service.is_hasty = true;
        });
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(rest(&mut client).len(), 4 * (HOLDS_MAX + 10));
    }

    fn answer_that_becomes_ready_at_the_end_of_its_turn_leaves_with_it(io: IoChoice) {
        let worker = Running::deferring(io);
        worker.ask(|service| service.is_hasty = true);
        let mut client = worker.connect();
        let before = worker.ask(|service| service.turns);
        for _ in 0..100 {
            assert_eq!(&ask(&mut client), b"MN\r\n");
        }
        let turns = worker.ask(|service| service.turns) - before;
        assert!((100..=103).contains(&turns), "one for each request, not two: {turns}");
    }

    fn stop_waits_for_held_answers_and_not_for_ever(io: IoChoice) {
        let limits = Limits { stop_timeout: Duration::from_millis(300), ..Limits::default() };
        let mut worker = Running::start_service(io, limits, Deferring::default);
        let mut answered = worker.connect();
        answered.write_all(b"mn\r\n").unwrap();
        worker.await_held(1);
        let mut cut_off = worker.connect();
        cut_off.write_all(b"mn\r\n").unwrap();
        worker.await_held(2);
        worker.stop.send_replace(true);
        worker.ask(|service| {
            let ticket = service.open.remove(0);
            let room = service.worker.as_ref().unwrap().upgrade().unwrap();
            room.resolve(ticket, Resolution::Replace(Bytes::from_static(b"LATE\r\n")));
        });
        assert_eq!(rest(&mut answered), "LATE\r\n");
        worker.join();
        assert_eq!(rest(&mut cut_off), "");
        assert_eq!(worker.network.buffers().bytes(), 0);
    }

    fn message_that_meets_a_bug_is_lost_and_the_next_is_not(io: IoChoice) {
        let worker = Running::deferring(io);
        worker.postbox.post_all((0..5).map(|_| {
            Box::new(|service: &mut Deferring| assert_eq!(service.ticks, 1, "a bug")) as Act
        }));
        assert_eq!(worker.ask(|_| 7), 7);
    }

    fn service_ticks_while_it_wants_to(io: IoChoice) {
        let worker = Running::deferring(io);
        assert_eq!(worker.ask(|service| service.ticks), 0);
        worker.ask(|service| service.wants_ticks = true);
        while worker.ask(|service| service.ticks) < 3 {
            thread::yield_now();
        }
        worker.ask(|service| service.wants_ticks = false);
        while worker.ask(|service| service.worker.as_ref().unwrap().upgrade().unwrap().is_ticking())
        {
            thread::yield_now();
        }
        worker.ask(|service| service.wants_ticks = true);
        let before = worker.ask(|service| service.ticks);
        while worker.ask(|service| service.ticks) <= before {
            thread::yield_now();
        }
    }

    fn worker_shows_progress_while_idle_and_none_while_it_hangs(io: IoChoice) {
        let worker = Running::deferring(io);
        let is_stalled =
            |worker: &Running<Act>| worker.network.worker_stall(0) > Duration::from_millis(300);
        worker.ask(|_| {});
        let (hung, released) = (Arc::clone(&worker.network), mpsc::channel());
        let (release, released) = released;
        worker.postbox.post(Box::new(move |_| released.recv().unwrap()));
        while !is_stalled(&worker) {
            thread::yield_now();
        }
        release.send(()).unwrap();
        while hung.worker_stall(0) > PROGRESS_INTERVAL {
            thread::yield_now();
        }
    }

    fn task_of_the_worker_serves_requests_without_a_client(io: IoChoice) {
        let worker = Running::deferring(io);
        worker.ask(|service| {
            let handle = service.worker.as_ref().unwrap().upgrade().unwrap();
            let finished = Rc::clone(&service.finished);
            handle.clone().spawn(async move {
                let (mut out, mut spare) = (Vec::new(), Spare::default());
                let now = handle.now();
                let finished = Rc::new(move |token, answer: &[u8]| {
                    assert_eq!(answer, b"MN\r\n");
                    finished.borrow_mut().push(token);
                });
                for token in 0..3 {
                    let addressee = Addressee { finished: finished.clone(), token };
                    let mut serve =
                        |request| handle.serve(now, request, &mut out, &addressee, &mut spare);
                    assert_eq!(serve(b"mn\r\n"), Served::Held);
                    assert_eq!(serve(b"version\r\n"), Served::Answered);
                }
                spare.close(handle.waiting_room());
                assert_eq!(out, b"VERSION\r\n".repeat(3));
                assert!(handle.end_turn());
            });
        });
        worker.await_held(3);
        worker.ask(|service| {
            service.open.reverse();
            service.resolve_all();
        });
        assert_eq!(worker.ask(|service| service.finished.borrow().clone()), [2, 1, 0]);
    }
}
