//! `Connection`: one socket to one server, shared by all who call.
//!
//! ```text
//! calls ──encode──> Pipeline (behind a short lock) ──all there is──> one write ──> server
//!   ▲                   │                                                            │
//!   └── answer, wake ───┴──────────────── one read <─────────────────────────────────┘
//! ```
//!
//! A task, the *driver*, owns the socket. A call encodes its request into the pipeline's output and waits. The
//! driver lets all who can run do so before it writes, so that requests of tasks that became ready together leave
//! in one write, and their answers come in one read. A call allocates nothing but the value that it gets.
//!
//! ```text
//! Connecting ──────────> Open ──lost──> Connecting (at once)
//!   ▲   └──failed──> Down ─┐
//!   └────── delay ─────────┘
//! ```
//!
//! While it connects, calls wait; while it is down, they fail at once and the driver goes on trying. A server whose name
//! has other addresses is connected to anew once what is under way has ended (`resolve.rs`).

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use protocol::Key;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use crate::address::Address;
use crate::config::{Config, Mode};
use crate::connection::command::Command;
use crate::connection::pipeline::{Failure, Limits, Outcome, Pipeline, Ticket};
use crate::connection::transport::Transport;
use crate::error::{ConnectError, Disconnect, Error, Fate};
use crate::random::Random;
use crate::resolve::Lookup;
use crate::retry::{Backoff, RefreshConfig};

pub(crate) mod command;
mod pipeline;
pub(crate) mod transport;

/// What is read at once, and kept when nothing is read.
const INPUT_BYTES: usize = 64 << 10;
/// What a buffer of output may keep when it is empty.
const OUTPUT_BYTES_KEPT: usize = 256 << 10;
/// What the input may keep of the room that a long value took.
const INPUT_BYTES_KEPT: usize = 1 << 20;
/// When there is nothing to wait for.
const TIMER_FAR: Duration = Duration::from_secs(3600);

/// A socket to a server and the calls on it. The connection ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    address: Address,
    state: Mutex<State>,
    /// There may be room, or the link has changed: whoever waits looks again.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    pipeline: Pipeline,
    link: Link,
    /// Calls that wait for room or for the link, in the order in which they came. Each that leaves wakes the next.
    waiting: usize,
    /// The driver, while it sleeps.
    driver: Option<Waker>,
    is_dropped: bool,
    moved: Moved,
}

/// Whether the server's name has other addresses than the connection's by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    No,
    /// What is under way may still end; no call is added to it.
    Draining,
    /// It was waited for long enough.
    Overdue,
}

#[derive(Debug)]
enum Link {
    Connecting,
    Open,
    Down(ConnectError),
}

impl Shared {
    fn set_moved(&self, moved: Moved) {
        let driver = {
            let mut state = self.state.lock();
            state.moved = moved;
            state.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

/// What a call wants of a pipeline.
trait Ask {
    /// How many requests it makes.
    fn requests(&self) -> usize;
    fn ask(&self, pipeline: &mut Pipeline, now: Instant, deadline: Instant, waker: Waker)
    -> Ticket;
}

impl Ask for Command<'_> {
    fn requests(&self) -> usize {
        1
    }

    #[inline]
    fn ask(
        &self,
        pipeline: &mut Pipeline,
        now: Instant,
        deadline: Instant,
        waker: Waker,
    ) -> Ticket {
        pipeline.ask(self, now, deadline, waker)
    }
}

/// Fetches many items.
struct AskMany<'a, 'k> {
    keys: &'a [Key<'k>],
    with_cas: bool,
}

impl Ask for AskMany<'_, '_> {
    fn requests(&self) -> usize {
        self.keys.len()
    }

    fn ask(
        &self,
        pipeline: &mut Pipeline,
        now: Instant,
        deadline: Instant,
        waker: Waker,
    ) -> Ticket {
        let keys = self.keys.iter().copied();
        pipeline.ask_many(keys, self.keys.len(), self.with_cas, now, deadline, waker)
    }
}

/// How an attempt to place a call went.
enum Placed {
    There,
    /// There is no room, or no connection yet.
    Waits,
    Down(ConnectError),
}

impl Connection {
    /// A connection that is made in the background, on the runtime that this is called on.
    pub(crate) fn open(address: Address, config: Arc<Config>) -> Self {
        let bounds = &config.connection;
        let limits = Limits {
            pending_max: bounds.requests_max,
            output_bytes_max: bounds.output_bytes_max,
            abandoned_max: bounds.abandoned_max,
            silence_max: bounds.silence_max,
            value_bytes_max: config.value_bytes_max,
            gets_in_lines: matches!(config.mode, Mode::Static(_)),
        };
        let state = State {
            pipeline: Pipeline::new(limits, bounds.dialect),
            link: Link::Connecting,
            waiting: 0,
            driver: None,
            is_dropped: false,
            moved: Moved::No,
        };
        let shared = Arc::new(Shared { address, state: Mutex::new(state), changed: Notify::new() });
        let driver = Driver {
            shared: Arc::clone(&shared),
            config,
            sending: Vec::new(),
            sent: 0,
            written: 0,
            input: vec![0; INPUT_BYTES],
            filled: 0,
            woken: Vec::new(),
            is_gathered: false,
        };
        tokio::spawn(driver.run());
        Self { shared }
    }

    /// How much there is to do: a connection that is not there is behind all that are.
    pub(crate) fn load(&self) -> (bool, usize) {
        let state = self.shared.state.lock();
        (!matches!(state.link, Link::Open), state.pipeline.pending())
    }

    /// Whether the last attempt to connect has failed.
    pub(crate) fn is_down(&self) -> bool {
        matches!(self.shared.state.lock().link, Link::Down(_))
    }

    /// Asks, and waits for the answer until `deadline`.
    pub(crate) async fn ask(
        &self,
        command: &Command<'_>,
        now: Instant,
        deadline: Instant,
    ) -> Result<command::Reply, Error> {
        match self.call(command, now, deadline).await? {
            Outcome::One(reply) => Ok(reply),
            Outcome::Many(_) => unreachable!("a call of one request has one answer"),
            Outcome::Failed(failure) => Err(self.error(failure, deadline - now)),
        }
    }

    /// Asks for many items, and waits for all answers until `deadline`.
    pub(crate) async fn ask_many(
        &self,
        keys: &[Key<'_>],
        with_cas: bool,
        now: Instant,
        deadline: Instant,
    ) -> Result<Vec<Option<crate::value::Stored>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        match self.call(&AskMany { keys, with_cas }, now, deadline).await? {
            Outcome::Many(found) => Ok(found),
            Outcome::One(_) => unreachable!("a call of many requests has as many answers"),
            Outcome::Failed(failure) => Err(self.error(failure, deadline - now)),
        }
    }

    async fn call(
        &self,
        ask: &impl Ask,
        now: Instant,
        deadline: Instant,
    ) -> Result<Outcome, Error> {
        let mut call = Call { shared: &self.shared, ticket: None };
        let first =
            poll_fn(|cx| Poll::Ready(call.place(ask, false, now, deadline, cx.waker()))).await;
        match first {
            Placed::There => {}
            Placed::Down(source) => return Err(self.unreachable(source)),
            Placed::Waits => self.wait_for_place(&mut call, ask, deadline).await?,
        }
        Ok(poll_fn(|cx| call.poll_outcome(cx.waker())).await)
    }

    /// Waits until there is a connection with room, and places the call.
    async fn wait_for_place(
        &self,
        call: &mut Call<'_>,
        ask: &impl Ask,
        deadline: Instant,
    ) -> Result<(), Error> {
        let _waiting = Waiting::new(&self.shared);
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let place =
                |cx: &mut Context<'_>| call.place(ask, true, Instant::now(), deadline, cx.waker());
            let mut place = Some(place);
            let placed = poll_fn(|cx| {
                Poll::Ready(place.take().map_or(Placed::Waits, |mut place| place(cx)))
            });
            match placed.await {
                Placed::There => return Ok(()),
                Placed::Down(source) => return Err(self.unreachable(source)),
                Placed::Waits => {}
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Err(self.nothing_sent());
            }
        }
    }

    fn unreachable(&self, source: ConnectError) -> Error {
        Error::Unreachable { address: self.shared.address.clone(), source }
    }

    /// Why a call that waited for its place did not get it in time.
    fn nothing_sent(&self) -> Error {
        let address = self.shared.address.clone();
        match self.shared.state.lock().link {
            Link::Open => Error::NoRoom { address },
            Link::Connecting | Link::Down(_) => {
                let source = ConnectError::NotYet;
                Error::Unreachable { address, source }
            }
        }
    }

    fn error(&self, failure: Failure, after: Duration) -> Error {
        let address = self.shared.address.clone();
        match failure {
            Failure::Deadline => Error::DeadlinePassed { address, after, fate: Fate::Unknown },
            Failure::Lost { source, was_written } => {
                let fate = if was_written { Fate::Unknown } else { Fate::DidNotHappen };
                Error::Lost { address, source, fate }
            }
            Failure::Refused(source) => Error::Refused { address, source },
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let driver = {
            let mut state = self.shared.state.lock();
            state.is_dropped = true;
            state.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

/// Counts a call among those that wait.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.state.lock().waiting += 1;
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let others_wait = {
            let mut state = self.0.state.lock();
            state.waiting -= 1;
            state.waiting > 0
        };
        // What let this one in, or out, may let in the next.
        if others_wait {
            self.0.changed.notify_one();
        }
    }
}

/// A call under way. Dropped, it gives its place up.
struct Call<'a> {
    shared: &'a Shared,
    ticket: Option<Ticket>,
}

impl Call<'_> {
    fn place(
        &mut self,
        ask: &impl Ask,
        has_waited: bool,
        now: Instant,
        deadline: Instant,
        waker: &Waker,
    ) -> Placed {
        let driver = {
            let mut state = self.shared.state.lock();
            match &state.link {
                Link::Open if state.waiting > 0 && !has_waited => return Placed::Waits,
                Link::Open if state.pipeline.has_room(ask.requests()) => {}
                Link::Open | Link::Connecting => return Placed::Waits,
                Link::Down(error) => return Placed::Down(error.clone()),
            }
            self.ticket = Some(ask.ask(&mut state.pipeline, now, deadline, waker.clone()));
            state.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
        Placed::There
    }

    fn poll_outcome(&mut self, waker: &Waker) -> Poll<Outcome> {
        let Some(ticket) = self.ticket else {
            unreachable!("a call is placed before it is waited for, and answered once")
        };
        match self.shared.state.lock().pipeline.redeem(ticket, waker) {
            Some(outcome) => {
                self.ticket = None;
                Poll::Ready(outcome)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let driver = {
            let mut state = self.shared.state.lock();
            state.pipeline.give_up(ticket);
            if state.pipeline.is_worn_out() { state.driver.take() } else { None }
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

/// Owns the socket.
struct Driver {
    shared: Arc<Shared>,
    config: Arc<Config>,
    /// Taken from the pipeline, and how much of it was sent.
    sending: Vec<u8>,
    sent: usize,
    /// Bytes sent on this connection.
    written: u64,
    /// What was received and not consumed stands at the front of it.
    input: Vec<u8>,
    filled: usize,
    woken: Vec<Waker>,
    /// Whoever was ready has run since the driver last wrote or slept.
    is_gathered: bool,
}

impl Driver {
    async fn run(mut self) {
        let (mut attempt, mut failures) = (0, 0);
        while !self.is_dropped() {
            let (shared, config) = (Arc::clone(&self.shared), Arc::clone(&self.config));
            let connecting =
                Transport::connect(&shared.address, &config.connection, &*config.resolver, attempt);
            let connected = tokio::select! {
                connected = connecting => connected,
                () = self.dropped() => return,
            };
            attempt += 1;
            match connected {
                Ok((transport, lookup)) => {
                    failures = 0;
                    self.set_link(Link::Open);
                    let watch = lookup.zip(config.resolve).map(|(lookup, refresh)| {
                        tokio::spawn(watch_name(Arc::clone(&config), shared, lookup, refresh))
                    });
                    let ended = self.drive(transport).await;
                    if let Some(watch) = watch {
                        watch.abort();
                    }
                    tracing::debug!(server = %self.shared.address, reason = %ended, "connection lost");
                    self.lose(&ended);
                }
                Err(error) => {
                    tracing::debug!(server = %self.shared.address, %error, "cannot connect");
                    // And so it stays until there is a connection: a call is not to wait for the next failure.
                    self.set_link(Link::Down(error));
                    let delay = self.delay(failures);
                    failures += 1;
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        () = self.dropped() => return,
                    }
                }
            }
        }
    }

    /// Doubled with each failure in a row, and between a half and the whole of that.
    fn delay(&self, failures: u32) -> Duration {
        let max = self.config.connection.reconnect_delay_max;
        let whole = Backoff { first: self.config.connection.reconnect_delay, max }.bound(failures);
        whole.mul_f64(0.5 + 0.5 * Random::new(random_number()).unit())
    }

    fn is_dropped(&self) -> bool {
        self.shared.state.lock().is_dropped
    }

    /// Waits until nobody wants the connection any more.
    async fn dropped(&self) {
        poll_fn(|cx| {
            let mut state = self.shared.state.lock();
            if state.is_dropped {
                return Poll::Ready(());
            }
            state.driver = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn set_link(&self, link: Link) {
        self.shared.state.lock().link = link;
        self.shared.changed.notify_one();
    }

    /// Fails all calls, and forgets what was under way.
    fn lose(&mut self, reason: &Disconnect) {
        {
            let mut state = self.shared.state.lock();
            state.link = Link::Connecting;
            state.moved = Moved::No;
            state.pipeline.disconnect(reason, self.written, &mut self.woken);
        }
        self.wake();
        self.sending.clear();
        self.sent = 0;
        self.written = 0;
        self.filled = 0;
        self.input = vec![0; INPUT_BYTES];
    }

    /// Carries requests and answers until the connection ends.
    async fn drive(&mut self, mut transport: Transport) -> Disconnect {
        let mut timer = pin!(tokio::time::sleep(TIMER_FAR));
        loop {
            match poll_fn(|cx| self.turn(&mut transport, timer.as_mut(), cx)).await {
                // Whoever is ready runs, and asks, before what there is to write is written.
                Ok(()) => tokio::task::yield_now().await,
                Err(reason) => return reason,
            }
            self.is_gathered = true;
        }
    }

    /// Writes, reads and looks at the clock as far as nothing has to be waited for. Ready when others should run
    /// before it goes on: who was answered may ask again, and who asks is seldom alone.
    fn turn(
        &mut self,
        transport: &mut Transport,
        mut timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Disconnect>> {
        loop {
            self.send(transport, cx)?;
            if self.receive(transport, cx)? {
                return Poll::Ready(Ok(()));
            }
            if timer.as_mut().poll(cx).is_ready() {
                self.tick()?;
                timer.as_mut().reset(Instant::now() + TIMER_FAR);
                continue;
            }
            let mut state = self.shared.state.lock();
            if state.is_dropped {
                return Poll::Ready(Err(Disconnect::Dropped));
            }
            if state.moved != Moved::No {
                state.link = Link::Connecting;
                let is_idle = state.pipeline.pending() == 0 && !state.pipeline.has_output();
                if is_idle && self.sending.is_empty() || state.moved == Moved::Overdue {
                    return Poll::Ready(Err(Disconnect::Moved));
                }
            }
            if let Some(wakes_at) = state.pipeline.wakes_at().filter(|&at| at < timer.deadline()) {
                timer.as_mut().reset(wakes_at);
                continue;
            }
            if state.pipeline.is_worn_out() {
                drop(state);
                self.tick()?;
                continue;
            }
            if state.pipeline.has_output() && self.sending.is_empty() {
                if self.is_gathered {
                    continue;
                }
                state.driver = None;
                return Poll::Ready(Ok(()));
            }
            self.is_gathered = false;
            state.driver = Some(cx.waker().clone());
            return Poll::Pending;
        }
    }

    /// Writes what there is, if all who are ready have added to it.
    fn send(&mut self, transport: &mut Transport, cx: &mut Context<'_>) -> Result<(), Disconnect> {
        loop {
            if self.sending.is_empty() {
                if !self.is_gathered || !self.take_output() {
                    return Ok(());
                }
                self.is_gathered = false;
            }
            while self.sent < self.sending.len() {
                let rest = &self.sending[self.sent..];
                match Pin::new(&mut *transport).poll_write(cx, rest) {
                    Poll::Ready(Ok(0)) => return Err(Disconnect::Closed),
                    Poll::Ready(Ok(bytes)) => {
                        self.sent += bytes;
                        self.written += bytes as u64;
                    }
                    Poll::Ready(Err(error)) => return Err(error.into()),
                    Poll::Pending => return Ok(()),
                }
            }
            match Pin::new(&mut *transport).poll_flush(cx) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => return Ok(()),
            }
            self.sending.clear();
            self.sending.shrink_to(OUTPUT_BYTES_KEPT);
            self.sent = 0;
        }
    }

    /// Whether there is something to send.
    fn take_output(&mut self) -> bool {
        let waits = {
            let mut state = self.shared.state.lock();
            if !state.pipeline.has_output() {
                return false;
            }
            state.pipeline.take_output(&mut self.sending);
            state.waiting > 0
        };
        if waits {
            self.shared.changed.notify_one();
        }
        true
    }

    /// Reads once, or until somebody was answered: whether somebody was.
    fn receive(
        &mut self,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<bool, Disconnect> {
        while self.woken.is_empty() {
            let mut buffer = ReadBuf::new(&mut self.input[self.filled..]);
            match Pin::new(&mut *transport).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(false),
                Poll::Ready(read) => read?,
            }
            let bytes = buffer.filled().len();
            if bytes == 0 {
                return Err(Disconnect::Closed);
            }
            self.filled += bytes;
            self.take_input()?;
        }
        self.wake();
        Ok(true)
    }

    /// Takes whole responses from the front of the input, and makes room behind what is left.
    fn take_input(&mut self) -> Result<(), Disconnect> {
        let input = &self.input[..self.filled];
        let (received, waits) = {
            let mut state = self.shared.state.lock();
            // It runs, and looks for itself before it sleeps.
            state.driver = None;
            let received = state.pipeline.receive(input, Instant::now(), &mut self.woken)?;
            (received, state.waiting > 0)
        };
        if waits {
            self.shared.changed.notify_one();
        }
        self.input.copy_within(received.consumed..self.filled, 0);
        self.filled -= received.consumed;
        if self.filled == 0 && self.input.len() > INPUT_BYTES_KEPT {
            self.input = vec![0; INPUT_BYTES];
        } else if self.filled == self.input.len() || received.wanted > self.input.len() {
            // Step by step: a length that is a lie costs no more than twice what came.
            let wanted = received.wanted.max(self.filled + 1);
            let room = wanted.min(self.input.len().max(self.filled) * 2);
            self.input.resize(room.max(self.input.len()), 0);
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), Disconnect> {
        let ticked = {
            let mut state = self.shared.state.lock();
            state.pipeline.tick(Instant::now(), &mut self.woken)
        };
        self.wake();
        ticked
    }

    fn wake(&mut self) {
        self.woken.drain(..).for_each(Waker::wake);
    }
}

/// Has a connection made anew when the server's name has other addresses.
async fn watch_name(
    config: Arc<Config>,
    shared: Arc<Shared>,
    lookup: Lookup,
    refresh: RefreshConfig,
) {
    lookup.until_moved(Arc::clone(&config.resolver), refresh, random_number()).await;
    tracing::debug!(server = %shared.address, "its name has other addresses");
    shared.set_moved(Moved::Draining);
    // No call waits longer.
    tokio::time::sleep(config.timeout).await;
    shared.set_moved(Moved::Overdue);
}

/// Another number each time.
pub(crate) fn random_number() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // Each has keys of its own, drawn at random.
    std::hash::RandomState::new().build_hasher().finish()
}
