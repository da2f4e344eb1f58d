//! Load: many connections that carry a workload to a server, or to several, and what came of it.
//!
//! ```text
//!   main thread        connect all ── warm-up ──|──── measured ────|── wait for the last answers
//!   per thread         epoll ─> read ─> check and tally ─> ask again ─> write ─> epoll ...
//!   server             CPU time and memory:     ^                  ^
//! ```
//!
//! - *Closed loop*: a connection sends `depth` requests in one write, waits until all are answered,
//!   and sends the next: the pace of a client with so many requests in a pipeline.
//! - *Open loop*: requests are due at moments of their own (see `schedule.rs`); the first connection
//!   with less than `depth` outstanding takes each. Latency counts from the moment it was due.
//! - One epoll wait serves all connections that have answers, and every connection costs one read
//!   and one write per turn, so that one core of load keeps one core of server busy.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::iter::Sum;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::connection::{Connection, ReplyError};
use crate::interrupt::{Interrupt, Interrupted};
use crate::keyspace::KeyspaceError;
use crate::schedule::{Arrivals, Schedule};
use crate::server_process::{cpu_time, resident_bytes};
use crate::tally::{Tally, Window};
use crate::workload::{Ask, Requests, Workload};
use crate::{clock, cores, noise};

/// How long the last answers may take after the end.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long a server may stay silent while answers are due, where no duration ends the run.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Longest sleep in epoll: interrupts and ends are seen within it.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// Epoll sleeps in whole milliseconds; an open loop spins through anything shorter.
const SLEEP_MIN: Duration = Duration::from_millis(2);
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
const EVENTS_PER_WAIT: usize = 1024;

/// When a connection asks again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// When it has been answered.
    Closed,
    /// When a schedule says so.
    Open {
        /// Requests a second, of all connections together.
        rate: f64,
        /// How they follow each other.
        arrivals: Arrivals,
    },
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// After a time, measured from the end of the warm-up.
    Time(Duration),
    /// After so many requests, of all connections together.
    Requests(u64),
    /// After every key has been set once, in order of index.
    Filling,
}

/// A server, or one of several that share a load.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// The only keys that it is asked for, by their indexes and all equally often; `None` for those that the
    /// workload draws.
    pub keys: Option<Arc<[u32]>>,
}

impl Target {
    /// A server that is asked for whatever the workload draws.
    pub fn any_key(address: SocketAddr) -> Self {
        Self { address, keys: None }
    }
}

/// How a workload is carried to a server.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server; or several, each with an equal share of the connections of each thread.
    pub targets: Vec<Target>,
    /// How many connections there are, of all threads together.
    pub connections: usize,
    /// How many threads serve them.
    pub threads: usize,
    /// How many requests a connection may have outstanding.
    pub depth: usize,
    /// When a connection asks again.
    pub pace: Pace,
    /// How long the server is loaded before anything counts.
    pub warm_up: Duration,
    /// When the run ends.
    pub extent: Extent,
    /// Where all chance in the requests comes from.
    pub seed: u64,
    /// The cores the threads may run on; none named means any.
    pub cores: Vec<usize>,
    /// The server's processes to be watched, if any.
    pub server_pids: Vec<u32>,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What came of the requests.
    pub tally: Tally,
    /// How long was measured.
    pub elapsed: Duration,
    /// What the server used meanwhile, if its processes were named.
    pub usage: Option<Usage>,
}

/// What a server's processes used while they were measured.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Processor time, user and kernel together.
    pub cpu: Duration,
    /// Memory in RAM at the end, in bytes.
    pub resident_bytes: u64,
}

impl Usage {
    /// What was used between two looks at the processor time; `None` where nobody was looked at.
    pub(crate) fn between(
        before: Option<Duration>,
        after: Option<Duration>,
        resident_bytes: Option<u64>,
    ) -> Option<Self> {
        let cpu = after?.saturating_sub(before?);
        Some(Self { cpu, resident_bytes: resident_bytes? })
    }
}

impl Outcome {
    /// Requests answered per second.
    pub fn requests_per_second(&self) -> f64 {
        self.tally.requests() as f64 / self.elapsed.as_secs_f64()
    }

    /// Keys read or written per second.
    pub fn keys_per_second(&self) -> f64 {
        self.tally.keys() as f64 / self.elapsed.as_secs_f64()
    }

    /// Requests answered per second of the server's processor time.
    pub fn requests_per_cpu_second(&self) -> Option<f64> {
        let cpu_s = self.usage?.cpu.as_secs_f64();
        (cpu_s > 0.0).then(|| self.tally.requests() as f64 / cpu_s)
    }

    /// Keys read or written per second of the server's processor time.
    pub fn keys_per_cpu_second(&self) -> Option<f64> {
        let cpu_s = self.usage?.cpu.as_secs_f64();
        (cpu_s > 0.0).then(|| self.tally.keys() as f64 / cpu_s)
    }
}

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nobody listens, or not to that many.
    #[error("connection {number} of {connections} to {server} failed")]
    Connect {
        /// The server.
        server: SocketAddr,
        /// Which connection, the first being 1.
        number: usize,
        /// How many there were to be.
        connections: usize,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A socket failed, or the server closed it.
    #[error("the connection to the server failed")]
    Connection(#[source] io::Error),
    /// The server closed a connection.
    #[error("the server closed a connection with {outstanding} requests outstanding on it")]
    Closed {
        /// Requests that were not answered.
        outstanding: usize,
    },
    /// The server's bytes are no answer.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// The server stopped answering.
    #[error("the server has left {outstanding} requests unanswered for {SILENCE_MAX:?}")]
    Silent {
        /// Requests that were not answered.
        outstanding: usize,
    },
    /// The requests cannot be drawn.
    #[error(transparent)]
    Keyspace(#[from] KeyspaceError),
    /// The process named as the server's cannot be watched.
    #[error("cannot watch process {pid}")]
    Watch {
        /// The process.
        pid: u32,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The operating system refuses threads their cores.
    #[error("cannot run on the cores {cores:?}")]
    Cores {
        /// The cores.
        cores: Vec<usize>,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A runtime for callers cannot be made.
    #[error("cannot start a runtime")]
    Runtime(#[source] io::Error),
    /// The user wants the program to end.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// Carries `workload` to a server as `plan` says; `progress` hears now and then how many requests
/// have been answered, warm-up included.
///
/// # Errors
/// When the server cannot be reached, breaks off, or talks nonsense; wrong values and refusals are
/// counted, not errors.
pub fn run(
    plan: &Plan,
    workload: &Workload,
    interrupt: &Interrupt,
    mut progress: impl FnMut(u64),
) -> Result<Outcome, LoadError> {
    assert!(plan.threads > 0 && plan.depth > 0, "somebody carries the load");
    let targets = plan.targets.len();
    assert!(targets > 0, "the load goes somewhere");
    assert!(plan.connections >= plan.threads * targets, "every thread has a connection to each");
    // A process that cannot be watched is reported before the load, not after it.
    watch(&plan.server_pids, cpu_time)?;
    let mut sockets = connect(plan)?;
    let answered = AtomicU64::new(0);
    let start = clock::now();
    let from = start + plan.warm_up;
    let until = match plan.extent {
        Extent::Time(duration) => Some(from + duration),
        Extent::Requests(_) | Extent::Filling => None,
    };
    let window = Window { from, until };
    let mut workers = Vec::new();
    for thread in 0..plan.threads {
        let share = sockets.len() / (plan.threads - thread);
        let sockets = sockets.split_off(sockets.len() - share);
        workers.push(Worker::new(plan, workload, window, start, thread, sockets)?);
    }

    thread::scope(|scope| {
        let (done, all_done) = mpsc::channel::<()>();
        let threads: Vec<_> = workers
            .into_iter()
            .map(|worker| {
                let (done, answered) = (done.clone(), &answered);
                scope.spawn(move || {
                    // Dropped at the end, however it comes: the main thread waits for that.
                    let _done = done;
                    worker.run(plan, interrupt, answered)
                })
            })
            .collect();
        drop(done);
        let mut wait_until = |moment: Option<Instant>| {
            loop {
                progress(answered.load(Ordering::Relaxed));
                let left = moment.map(|moment| moment.saturating_duration_since(clock::now()));
                if left == Some(Duration::ZERO) {
                    break;
                }
                let nap = left.unwrap_or(PROGRESS_INTERVAL).min(PROGRESS_INTERVAL);
                if all_done.recv_timeout(nap) == Err(RecvTimeoutError::Disconnected) {
                    break;
                }
            }
        };
        wait_until(Some(from));
        let cpu_before = watch(&plan.server_pids, cpu_time)?;
        wait_until(until);
        let cpu_after = watch(&plan.server_pids, cpu_time)?;
        let resident_bytes = watch(&plan.server_pids, resident_bytes)?;
        let mut tally = Tally::new();
        for thread in threads {
            let finished = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            tally.merge(finished?);
        }
        let usage = Usage::between(cpu_before, cpu_after, resident_bytes);
        let end = until.or(tally.last_answer).unwrap_or(from);
        Ok(Outcome { tally, elapsed: end.saturating_duration_since(from), usage })
    })
}

/// Sets every key of `workload` once, quickly, at the first of the plan's servers.
///
/// # Errors
/// As [`run`].
pub fn fill(
    plan: &Plan,
    workload: &Workload,
    interrupt: &Interrupt,
    progress: impl FnMut(u64),
) -> Result<Outcome, LoadError> {
    const DEPTH: usize = 64;
    let plan = Plan {
        targets: plan.targets[..1].to_vec(),
        depth: DEPTH,
        connections: plan.connections.min(8).max(plan.threads),
        pace: Pace::Closed,
        warm_up: Duration::ZERO,
        extent: Extent::Filling,
        ..plan.clone()
    };
    run(&plan, workload, interrupt, progress)
}

/// The sum of what `look` finds of each process; `None` of none.
pub(crate) fn watch<T: Sum>(
    pids: &[u32],
    look: impl Fn(u32) -> io::Result<T>,
) -> Result<Option<T>, LoadError> {
    let found = |&pid: &u32| look(pid).map_err(|source| LoadError::Watch { pid, source });
    (!pids.is_empty()).then(|| pids.iter().map(found).sum()).transpose()
}

/// All connections, each with the index of its target.
fn connect(plan: &Plan) -> Result<Vec<(usize, std::net::TcpStream)>, LoadError> {
    let open = |server| {
        let stream = std::net::TcpStream::connect_timeout(server, CONNECT_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    };
    // One to each in turn, so that every thread's share is spread over all of them.
    (1..=plan.connections)
        .zip(plan.targets.iter().enumerate().cycle())
        .map(|(number, (target, Target { address, .. }))| {
            let stream = open(address).map_err(|source| LoadError::Connect {
                server: *address,
                number,
                connections: plan.connections,
                source,
            })?;
            Ok((target, stream))
        })
        .collect()
}

/// A connection and its socket.
struct Socket {
    stream: TcpStream,
    connection: Connection,
    /// Which of the servers it leads to.
    target: usize,
    /// Whether it stands in `Worker::ready`.
    is_ready: bool,
}

/// What one thread does.
struct Worker<'a> {
    workload: &'a Workload,
    depth: usize,
    cores: &'a [usize],
    poll: Poll,
    sockets: Vec<Socket>,
    /// By server.
    requests: Vec<Requests>,
    /// Requests that may still be made; those that fill a miss are not counted.
    requests_left: u64,
    /// When the requests are due, in an open loop.
    schedule: Option<Schedule>,
    /// Connections with room for a request, in an open loop.
    ready: VecDeque<usize>,
    /// Connections that were just asked and not flushed yet, some of them several times.
    touched: Vec<usize>,
    window: Window,
    tally: Tally,
    keys: Vec<u32>,
    outstanding: usize,
}

impl<'a> Worker<'a> {
    fn new(
        plan: &'a Plan,
        workload: &'a Workload,
        window: Window,
        start: Instant,
        thread: usize,
        streams: Vec<(usize, std::net::TcpStream)>,
    ) -> Result<Self, LoadError> {
        let poll = Poll::new().map_err(LoadError::Connection)?;
        let mut sockets = Vec::with_capacity(streams.len());
        for (target, stream) in streams {
            let mut stream = TcpStream::from_std(stream);
            poll.registry()
                .register(
                    &mut stream,
                    Token(sockets.len()),
                    Interest::READABLE | Interest::WRITABLE,
                )
                .map_err(LoadError::Connection)?;
            let connection = Connection::new();
            sockets.push(Socket { stream, connection, target, is_ready: false });
        }
        let seed = plan.seed.wrapping_mul(1_000_003).wrapping_add(thread as u64);
        let requests_to = |(number, target): (u64, &Target)| match (plan.extent, &target.keys) {
            (Extent::Filling, _) => Ok(Requests::filling(workload, thread, plan.threads)),
            (_, Some(keys)) => Ok(Requests::among(workload, Arc::clone(keys), seed + number)),
            (_, None) => Requests::drawn(workload, seed + number),
        };
        let requests = (0..).zip(&plan.targets).map(requests_to).collect::<Result<_, _>>()?;
        let requests_left = match plan.extent {
            Extent::Requests(requests) => {
                let (threads, thread) = (plan.threads as u64, thread as u64);
                requests / threads + u64::from(thread < requests % threads)
            }
            Extent::Time(_) | Extent::Filling => u64::MAX,
        };
        let schedule = match plan.pace {
            Pace::Closed => None,
            Pace::Open { rate, arrivals } => {
                Some(Schedule::new(start, rate / plan.threads as f64, arrivals, seed))
            }
        };
        Ok(Self {
            workload,
            depth: plan.depth,
            cores: &plan.cores,
            poll,
            sockets,
            requests,
            requests_left,
            schedule,
            ready: VecDeque::new(),
            touched: Vec::new(),
            window,
            tally: Tally::new(),
            keys: Vec::new(),
            outstanding: 0,
        })
    }

    fn run(
        mut self,
        plan: &Plan,
        interrupt: &Interrupt,
        answered: &AtomicU64,
    ) -> Result<Tally, LoadError> {
        cores::pin(self.cores)
            .map_err(|source| LoadError::Cores { cores: plan.cores.clone(), source })?;
        let mut events = Events::with_capacity(EVENTS_PER_WAIT);
        let mut last_progress = clock::now();
        for index in 0..self.sockets.len() {
            self.carry_on(index, last_progress)?;
        }
        let mut now = last_progress;
        loop {
            if self.schedule.is_some() {
                self.ask_what_is_due(now)?;
            }
            if self.outstanding == 0 && self.has_ended(now) {
                break;
            }
            if self.window.until.is_some_and(|until| now >= until + DRAIN_MAX) {
                self.give_up(now);
                break;
            }
            match self.poll.poll(&mut events, Some(self.sleep(now))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                polled => polled.map_err(LoadError::Connection)?,
            }
            interrupt.check()?;
            let outstanding_before = self.outstanding;
            for event in &events {
                let index = event.token().0;
                if event.is_writable() && !self.sockets[index].connection.unsent().is_empty() {
                    self.flush(index)?;
                }
                if event.is_readable() {
                    let done = self.receive(index)?;
                    answered.fetch_add(done, Ordering::Relaxed);
                }
            }
            now = clock::now();
            if !events.is_empty() || outstanding_before == 0 {
                last_progress = now;
            } else if now - last_progress > SILENCE_MAX {
                return Err(LoadError::Silent { outstanding: self.outstanding });
            }
        }
        self.tally.load_wait = noise::thread_wait().unwrap_or_default();
        Ok(self.tally)
    }

    /// Reads what has come for one connection, and lets it ask again. Returns how many requests
    /// were answered.
    fn receive(&mut self, index: usize) -> Result<u64, LoadError> {
        let mut done = 0;
        loop {
            let socket = &mut self.sockets[index];
            let room = socket.connection.room();
            let room_bytes = room.len();
            let received = match socket.stream.read(room) {
                Ok(0) => {
                    let outstanding = socket.connection.outstanding();
                    return Err(LoadError::Closed { outstanding });
                }
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(LoadError::Connection(error)),
            };
            let now = clock::now();
            let connection = &mut socket.connection;
            connection.received(received);
            let outstanding = connection.outstanding();
            connection.take_replies(self.workload, now, &self.window, &mut self.tally)?;
            let answered = outstanding - connection.outstanding();
            self.outstanding -= answered;
            done += answered as u64;
            self.carry_on(index, now)?;
            // A read that left room has emptied the socket; the next bytes raise another event.
            if received < room_bytes {
                break;
            }
        }
        Ok(done)
    }

    /// Lets a connection ask again, now that it was answered (or has never asked).
    fn carry_on(&mut self, index: usize, now: Instant) -> Result<(), LoadError> {
        if self.schedule.is_some() {
            while let Some(key) = self.sockets[index].connection.next_missed() {
                self.ask(index, Ask::Set, &[key], now);
            }
            self.mark_ready(index);
            return self.flush(index);
        }
        if self.sockets[index].connection.outstanding() > 0 || self.is_over(now) {
            return Ok(());
        }
        for _ in 0..self.depth {
            if let Some(key) = self.sockets[index].connection.next_missed() {
                self.ask(index, Ask::Set, &[key], now);
            } else if !self.ask_next(index, now) {
                break;
            }
        }
        self.flush(index)
    }

    /// In an open loop: asks what is due, as far as connections have room for it.
    fn ask_what_is_due(&mut self, now: Instant) -> Result<(), LoadError> {
        let horizon = self.window.until.map_or(now, |until| now.min(until));
        debug_assert!(self.touched.is_empty(), "everything asked before has been flushed");
        while let Some(due) = self.schedule.as_ref().map(Schedule::due) {
            let is_due = due <= horizon;
            let Some(index) = self.ready.front().copied().filter(|_| is_due) else { break };
            if !self.ask_next(index, due) {
                break;
            }
            if let Some(schedule) = &mut self.schedule {
                schedule.advance();
            }
            self.ready.pop_front();
            self.sockets[index].is_ready = false;
            self.mark_ready(index);
            self.touched.push(index);
        }
        // Asked first and flushed then, so what is due on one connection leaves in one write.
        while let Some(index) = self.touched.pop() {
            self.flush(index)?;
        }
        Ok(())
    }

    fn mark_ready(&mut self, index: usize) {
        let socket = &mut self.sockets[index];
        if !socket.is_ready && socket.connection.outstanding() < self.depth {
            socket.is_ready = true;
            self.ready.push_back(index);
        }
    }

    /// Asks the next of the requests, if there is one.
    fn ask_next(&mut self, index: usize, intended: Instant) -> bool {
        if self.requests_left == 0 {
            return false;
        }
        let mut keys = std::mem::take(&mut self.keys);
        let ask = self.requests[self.sockets[index].target].next(&mut keys);
        if let Some(ask) = ask {
            self.requests_left -= 1;
            self.ask(index, ask, &keys, intended);
        } else {
            self.requests_left = 0;
        }
        self.keys = keys;
        ask.is_some()
    }

    fn ask(&mut self, index: usize, ask: Ask, keys: &[u32], intended: Instant) {
        self.sockets[index].connection.ask(self.workload, ask, keys, intended);
        self.outstanding += 1;
    }

    fn flush(&mut self, index: usize) -> Result<(), LoadError> {
        let Socket { stream, connection, .. } = &mut self.sockets[index];
        while !connection.unsent().is_empty() {
            match stream.write(connection.unsent()) {
                Ok(sent) => connection.sent(sent),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(LoadError::Connection(error)),
            }
        }
        Ok(())
    }

    /// Whether no more requests are to be made.
    fn is_over(&self, now: Instant) -> bool {
        self.window.until.is_some_and(|until| now >= until)
    }

    /// Whether every request that was to be made has been.
    fn has_ended(&self, now: Instant) -> bool {
        let none_left = self.requests_left == 0;
        match (&self.schedule, self.window.until) {
            (Some(schedule), Some(until)) => none_left || (now >= until && schedule.due() >= until),
            (None, Some(_)) => none_left || self.is_over(now),
            (_, None) => none_left,
        }
    }

    /// The run is over, but not all requests are answered, or, in an open loop, sent.
    fn give_up(&mut self, now: Instant) {
        for socket in &self.sockets {
            for (ask, intended) in socket.connection.unanswered() {
                self.tally.never_answered(ask, intended, now, &self.window);
            }
        }
        let Some(until) = self.window.until else { return };
        let mut keys = std::mem::take(&mut self.keys);
        while let Some(schedule) = self.schedule.as_mut().filter(|schedule| schedule.due() < until)
        {
            let due = schedule.due();
            schedule.advance();
            let Some(ask) = self.requests[0].next(&mut keys) else { break };
            self.tally.never_answered(ask, due, now, &self.window);
        }
    }

    /// How long epoll may sleep.
    fn sleep(&self, now: Instant) -> Duration {
        let until = self.window.until.filter(|&until| now < until);
        let mut sleep =
            until.map_or(SLEEP_MAX, |until| SLEEP_MAX.min(until.saturating_duration_since(now)));
        if let Some(schedule) = &self.schedule
            && !self.ready.is_empty()
            && !self.is_over(now)
        {
            sleep = sleep.min(schedule.due().saturating_duration_since(now));
            return if sleep < SLEEP_MIN { Duration::ZERO } else { sleep - SLEEP_MIN / 2 };
        }
        sleep
    }
}
