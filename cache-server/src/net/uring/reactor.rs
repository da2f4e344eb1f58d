//! Who waits for what of a ring: streams, and the turn that serves all of them.
//!
//! ```text
//!  tasks: take what arrived, post answers          Reactor::turn, when all of them have had their turn
//!  ──────────────────────────────────────> ring ──> one system call: sends tried, bytes received
//!  <────────────────────────────────────────────── tasks woken
//! ```
//!
//! - What arrived and was not taken by the next turn is copied to memory of the stream's own, leased, so
//!   that whoever does not take it keeps no other client from its buffers; beyond a bound nothing more is
//!   received until it is taken.
//! - A send that the socket has no room for is kept the same way, and goes on when there is room.
//! - A socket is closed when its stream is dropped and no operation names it any more.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nix::libc;
use nix::sys::eventfd::EventFd;
use smallvec::SmallVec;
use tokio::io::unix::AsyncFd;

use super::pool::Filled;
use super::ring::{Completion, Key, Kind, Ring};
use crate::net::buffers::{Gauge, Lease};
use crate::net::driver::{SlowReader, send_at_once, send_pieces_at_once};

/// What a stream may have received and not taken, in bytes, before it receives no more.
const UNTAKEN_BYTES_MAX: usize = 64 << 10;

/// Answers longer than this leave by a system call of their own, from where they stand.
const POSTED_BYTES_MAX: usize = 8 << 10;

/// From so many streams something arrives in a turn without anything being allocated.
const ARRIVED_INLINE: usize = 64;

/// How often one turn asks the kernel to go on with what it has not taken yet.
const ATTEMPTS_MAX: u32 = 10_000;

/// The streams of one worker, and their ring.
#[derive(Debug)]
pub(super) struct Reactor {
    inner: RefCell<Inner>,
}

/// A task that waits for something, or did before.
#[derive(Debug, Default)]
struct Waiter {
    waker: Option<Waker>,
    waits: bool,
}

impl Waiter {
    fn wait(&mut self, context: &Context<'_>) {
        self.waits = true;
        match &self.waker {
            Some(waker) if waker.will_wake(context.waker()) => {}
            _ => self.waker = Some(context.waker().clone()),
        }
    }

    /// Wakes it if it waits, and says whether it did.
    fn wake(&mut self) -> bool {
        let waited = std::mem::take(&mut self.waits);
        if waited && let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
        waited
    }
}

/// Why a stream is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// What the operating system said.
    Os(i32),
    /// No memory for what it sent or did not take.
    OutOfMemory,
    /// The client took nothing for too long.
    Slow,
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Os(error) => Self::from_raw_os_error(error),
            Failure::OutOfMemory => io::ErrorKind::OutOfMemory.into(),
            Failure::Slow => Self::other(SlowReader),
        }
    }
}

/// Bytes of which a prefix is done with.
#[derive(Debug, Default)]
struct Rest {
    bytes: Vec<u8>,
    done: usize,
}

impl Rest {
    fn bytes(&self) -> &[u8] {
        &self.bytes[self.done..]
    }

    fn is_empty(&self) -> bool {
        self.done == self.bytes.len()
    }

    fn advance(&mut self, count: usize) {
        self.done += count;
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

/// A client's socket.
#[derive(Debug)]
struct Stream {
    socket: OwnedFd,
    /// Nobody uses it any more; it goes when nothing is under way.
    is_dropped: bool,
    /// A receive is under way,
    is_receiving: bool,
    /// and was told to end.
    is_pausing: bool,
    awaits_writable: bool,
    /// Sends of this turn.
    posted: u32,
    /// What arrived, oldest first; of the first this much is taken.
    inbox: VecDeque<Filled>,
    taken: usize,
    /// What arrived before that and was not taken in its turn.
    untaken: Rest,
    has_ended: bool,
    failure: Option<Failure>,
    /// What the socket had no room for.
    unsent: Rest,
    /// How long it has taken nothing of that.
    stalled: Duration,
    lease: Lease,
    reader: Waiter,
    writer: Waiter,
}

impl Stream {
    fn new(socket: OwnedFd, gauge: Arc<Gauge>) -> Self {
        Self {
            socket,
            is_dropped: false,
            is_receiving: false,
            is_pausing: false,
            awaits_writable: false,
            posted: 0,
            inbox: VecDeque::new(),
            taken: 0,
            untaken: Rest::default(),
            has_ended: false,
            failure: None,
            unsent: Rest::default(),
            stalled: Duration::ZERO,
            lease: Lease::new(gauge),
            reader: Waiter::default(),
            writer: Waiter::default(),
        }
    }

    fn is_under_way(&self) -> bool {
        self.is_receiving || self.awaits_writable || self.posted > 0
    }

    /// Leases what is kept. False, and nothing is kept any more, if it cannot be.
    fn lease_kept(&mut self) -> bool {
        let kept = self.untaken.bytes.capacity() + self.unsent.bytes.capacity();
        if kept == self.lease.bytes() || self.lease.resize(kept) {
            return true;
        }
        (self.untaken, self.unsent) = (Rest::default(), Rest::default());
        let _ = self.lease.resize(0);
        self.failure = Some(Failure::OutOfMemory);
        false
    }
}

/// Streams by their key.
#[derive(Debug, Default)]
struct Streams {
    slots: Vec<(u32, Option<Box<Stream>>)>,
    free: Vec<u32>,
}

impl Streams {
    fn insert(&mut self, stream: Stream) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).expect("fewer sockets than descriptors")
        });
        let slot = &mut self.slots[index as usize];
        slot.1 = Some(Box::new(stream));
        Key { index, generation: slot.0 }
    }

    fn get(&mut self, key: Key) -> Option<&mut Stream> {
        let (generation, stream) = self.slots.get_mut(key.index as usize)?;
        if *generation == key.generation { stream.as_deref_mut() } else { None }
    }

    /// Closes it, if nobody uses it and nothing is under way.
    fn close_if_done(&mut self, key: Key) {
        if self.get(key).is_some_and(|stream| stream.is_dropped && !stream.is_under_way()) {
            let slot = &mut self.slots[key.index as usize];
            *slot = (slot.0.wrapping_add(1), None);
            self.free.push(key.index);
        }
    }
}

/// One send of this turn.
#[derive(Debug)]
struct Posted {
    stream: Key,
    range: Range<usize>,
}

#[derive(Debug)]
struct Inner {
    ring: Ring,
    streams: Streams,
    gauge: Arc<Gauge>,
    /// Sends of this turn, and which turn it is.
    posted: Vec<Posted>,
    turn: u32,
    /// Streams to which something arrived in the last turn.
    fresh: Vec<Key>,
    /// Streams that wait to receive, while no receive is under way.
    starved: Vec<Key>,
    /// Streams with something unsent, and perhaps others.
    behind: Vec<Key>,
    completions: Vec<Completion>,
    /// What runs the turns, while there is nothing to do.
    driver: Waiter,
    /// Tasks were woken, or wait for others to have their turn.
    has_ready_tasks: bool,
}

impl Reactor {
    /// One that has no streams yet. What its streams keep is leased from `gauge`.
    pub(super) fn new(ring: Ring, gauge: Arc<Gauge>) -> Self {
        Self {
            inner: RefCell::new(Inner {
                ring,
                streams: Streams::default(),
                gauge,
                posted: Vec::new(),
                turn: 0,
                fresh: Vec::new(),
                starved: Vec::new(),
                behind: Vec::new(),
                completions: Vec::new(),
                driver: Waiter::default(),
                has_ready_tasks: false,
            }),
        }
    }

    /// What becomes readable when a turn would find something, while the reactor rests.
    pub(super) fn signals(&self) -> io::Result<AsyncFd<EventFd>> {
        self.inner.borrow().ring.signals()
    }

    /// Has the kernel do what was asked for, and wakes those for whom something happened. Waits up to
    /// `wait` for that, unless a task is known to be ready. Says whether one is afterwards.
    pub(super) fn turn(&self, wait: Option<Duration>) -> io::Result<bool> {
        let inner = &mut *self.inner.borrow_mut();
        inner.turn(wait)?;
        Ok(std::mem::take(&mut inner.has_ready_tasks))
    }

    /// Shows `foresee` what has arrived with the last turn, of each stream the beginning, unless it is but one's.
    pub(super) fn foresee(&self, foresee: impl FnOnce(&[&[u8]])) {
        let inner = &mut *self.inner.borrow_mut();
        if inner.fresh.len() < 2 {
            return;
        }
        let ring = &inner.ring;
        let arrived: SmallVec<[&[u8]; ARRIVED_INLINE]> = inner
            .fresh
            .iter()
            .filter_map(|&key| {
                inner.streams.get(key)?.inbox.front().map(|filled| ring.bytes(filled, 0))
            })
            .collect();
        foresee(&arrived);
    }

    /// Rests, if there is nothing to do: `context` is woken when somebody asks for something. False if there
    /// is, after all.
    pub(super) fn rest(&self, context: &Context<'_>) -> bool {
        let inner = &mut *self.inner.borrow_mut();
        inner.driver.wait(context);
        inner.ring.signal()
    }

    /// The task that calls is about to wait for all others to have had their turn.
    pub(super) fn note_ready_task(&self) {
        let inner = &mut *self.inner.borrow_mut();
        inner.has_ready_tasks = true;
        inner.driver.wake();
    }

    /// Every stream that takes nothing has done so for another `step`. Those that have for as long as
    /// `allowed` fail.
    pub(super) fn note_stalled(&self, step: Duration, allowed: Duration) {
        let inner = &mut *self.inner.borrow_mut();
        // A turn now and then costs nothing, and no signal that went amiss is missed for long.
        inner.driver.wake();
        inner.behind.retain(|&key| {
            let Some(stream) = inner.streams.get(key) else { return false };
            if stream.is_dropped || stream.unsent.is_empty() {
                return false;
            }
            stream.stalled += step;
            if stream.stalled >= allowed {
                stream.failure = Some(Failure::Slow);
                stream.reader.wake();
                stream.writer.wake();
            }
            stream.failure.is_none()
        });
    }

    /// Takes over a client's socket.
    pub(super) fn open_stream(&self, socket: OwnedFd) -> Key {
        let inner = &mut *self.inner.borrow_mut();
        let stream = Stream::new(socket, Arc::clone(&inner.gauge));
        inner.streams.insert(stream)
    }

    /// Hands what has arrived to `take`, piece by piece, at most `count_max` bytes of it, and tells how many;
    /// 0 when the client sends no more.
    pub(super) fn poll_receive(
        &self,
        key: Key,
        context: &Context<'_>,
        count_max: usize,
        take: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        self.inner.borrow_mut().poll_receive(key, context, count_max, take)
    }

    /// Sends the beginning of the `pieces`, and tells how much of them.
    pub(super) fn poll_send(
        &self,
        key: Key,
        context: &Context<'_>,
        pieces: &[&[u8]],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *self.inner.borrow_mut();
        // At most once: after a turn nothing is posted.
        loop {
            let Some(stream) = inner.streams.get(key) else { return gone() };
            if let Some(failure) = stream.failure {
                return Poll::Ready(Err(failure.into()));
            }
            if !stream.unsent.is_empty() {
                stream.writer.wait(context);
                return Poll::Pending;
            }
            let count: usize = pieces.iter().map(|piece| piece.len()).sum();
            if count <= POSTED_BYTES_MAX && inner.post(key, pieces) {
                return Poll::Ready(Ok(count));
            }
            let Some(stream) = inner.streams.get(key) else { return gone() };
            if stream.posted == 0 && count > POSTED_BYTES_MAX {
                let first = pieces.iter().find(|piece| !piece.is_empty());
                return inner.poll_send_at_once(key, context, first.copied().unwrap_or_default());
            }
            // What was posted before it goes first.
            inner.turn(None)?;
        }
    }

    /// Sends the beginning of `pieces` past the outbox, if nothing is before them and that is possible at once.
    pub(super) fn send_pieces(&self, key: Key, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.inner.borrow_mut();
        let Some(stream) = inner.streams.get(key) else { return gone() };
        if let Some(failure) = stream.failure {
            return Poll::Ready(Err(failure.into()));
        }
        if stream.posted > 0 || !stream.unsent.is_empty() {
            return Poll::Pending;
        }
        match send_pieces_at_once(stream.socket.as_fd(), pieces) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            sent => Poll::Ready(sent),
        }
    }

    /// Waits until the kernel has all that was sent.
    pub(super) fn poll_sent(&self, key: Key, context: &Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.inner.borrow_mut();
        let Some(stream) = inner.streams.get(key) else { return gone() };
        if let Some(failure) = stream.failure {
            return Poll::Ready(Err(failure.into()));
        }
        if stream.posted == 0 && stream.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        stream.writer.wait(context);
        Poll::Pending
    }

    /// Closes a client's socket, as soon as what was posted for it is tried.
    pub(super) fn drop_stream(&self, key: Key) {
        let inner = &mut *self.inner.borrow_mut();
        let Some(stream) = inner.streams.get(key) else { return };
        stream.is_dropped = true;
        (stream.reader, stream.writer) = (Waiter::default(), Waiter::default());
        (stream.untaken, stream.unsent) = (Rest::default(), Rest::default());
        let _ = stream.lease.resize(0);
        stream.inbox.drain(..).for_each(|filled| inner.ring.give_back(filled));
        if stream.is_receiving && !stream.is_pausing {
            inner.ring.cancel(Kind::Receive, key);
        }
        if stream.awaits_writable {
            inner.ring.cancel(Kind::Writable, key);
        }
        inner.driver.wake();
        inner.streams.close_if_done(key);
    }
}

/// Only a bug of ours asks for what was dropped.
fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl Inner {
    fn turn(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.keep_untaken();
        for key in std::mem::take(&mut self.starved) {
            self.receive(key);
        }
        for (index, posted) in self.posted.iter().enumerate() {
            if let Some(stream) = self.streams.get(posted.stream) {
                let index = u32::try_from(index).expect("fewer sends than bytes");
                let key = Key { index, generation: self.turn };
                self.ring.send(stream.socket.as_raw_fd(), posted.range.clone(), key);
            }
        }
        let is_ready = std::mem::take(&mut self.has_ready_tasks);
        let mut wait = wait.filter(|_| !is_ready);
        let mut attempts = 0;
        loop {
            self.ring.enter(wait)?;
            let mut completions = std::mem::take(&mut self.completions);
            self.ring.reap(&mut completions);
            completions.drain(..).for_each(|completion| self.complete(completion));
            self.completions = completions;
            if self.ring.is_drained() {
                break;
            }
            attempts += 1;
            if attempts > ATTEMPTS_MAX {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            wait = None;
        }
        self.settle_posted();
        self.has_ready_tasks |= is_ready || !self.starved.is_empty();
        Ok(())
    }

    /// Nothing is posted any more: every send was tried.
    fn settle_posted(&mut self) {
        let mut posted = std::mem::take(&mut self.posted);
        for Posted { stream: key, .. } in posted.drain(..) {
            let Some(stream) = self.streams.get(key) else { continue };
            stream.posted -= 1;
            if stream.is_dropped {
                self.streams.close_if_done(key);
            } else if stream.unsent.is_empty() || stream.failure.is_some() {
                self.has_ready_tasks |= stream.writer.wake();
            }
        }
        self.posted = posted;
        self.turn = self.turn.wrapping_add(1);
        self.ring.clear_outbox();
    }

    /// Copies what was not taken since the last turn, so that its buffers can be filled again.
    fn keep_untaken(&mut self) {
        let mut fresh = std::mem::take(&mut self.fresh);
        for key in fresh.drain(..) {
            let Some(stream) = self.streams.get(key) else { continue };
            if stream.inbox.is_empty() {
                continue;
            }
            let mut from = std::mem::take(&mut stream.taken);
            let count = stream.inbox.iter().map(Filled::len).sum::<usize>() - from;
            let untaken = &mut stream.untaken;
            if untaken.done > 0 {
                untaken.bytes.drain(..std::mem::take(&mut untaken.done));
            }
            untaken.bytes.reserve_exact(count);
            for filled in stream.inbox.drain(..) {
                untaken.bytes.extend_from_slice(self.ring.bytes(&filled, from));
                from = 0;
                self.ring.give_back(filled);
            }
            let is_full = untaken.bytes.len() > UNTAKEN_BYTES_MAX;
            if !stream.lease_kept() {
                self.has_ready_tasks |= stream.reader.wake() | stream.writer.wake();
            }
            if is_full && stream.is_receiving && !stream.is_pausing {
                stream.is_pausing = true;
                self.ring.cancel(Kind::Receive, key);
            }
        }
        self.fresh = fresh;
    }

    fn receive(&mut self, key: Key) {
        if let Some(stream) = self.streams.get(key)
            && !stream.is_receiving
            && !stream.is_dropped
        {
            stream.is_receiving = true;
            self.ring.receive(stream.socket.as_raw_fd(), key);
            self.driver.wake();
        }
    }

    fn poll_receive(
        &mut self,
        key: Key,
        context: &Context<'_>,
        count_max: usize,
        mut take: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = self.streams.get(key) else { return gone() };
        let mut count = stream.untaken.bytes().len().min(count_max);
        if count > 0 {
            take(&stream.untaken.bytes()[..count]);
            stream.untaken.advance(count);
            if stream.untaken.is_empty() {
                let _ = stream.lease_kept();
            }
        }
        while count < count_max
            && let Some(filled) = stream.inbox.front()
        {
            let bytes = self.ring.bytes(filled, stream.taken);
            let piece = &bytes[..bytes.len().min(count_max - count)];
            take(piece);
            count += piece.len();
            stream.taken += piece.len();
            if stream.taken == filled.len()
                && let Some(filled) = stream.inbox.pop_front()
            {
                stream.taken = 0;
                self.ring.give_back(filled);
            }
        }
        if count > 0 || count_max == 0 {
            return Poll::Ready(Ok(count));
        }
        if let Some(failure) = stream.failure {
            return Poll::Ready(Err(failure.into()));
        }
        if stream.has_ended {
            return Poll::Ready(Ok(0));
        }
        stream.reader.wait(context);
        if !stream.is_receiving {
            self.receive(key);
        }
        Poll::Pending
    }

    /// Copies the `pieces` to the outbox, if they fit behind what this stream has posted.
    fn post(&mut self, key: Key, pieces: &[&[u8]]) -> bool {
        let Some(stream) = self.streams.get(key) else { return false };
        let (last, start) = (self.posted.last_mut(), self.ring.posted_bytes());
        let last = last.filter(|last| last.stream == key && last.range.end == start);
        if stream.posted > 0 && last.is_none() {
            return false;
        }
        let count: usize = pieces.iter().map(|piece| piece.len()).sum();
        if !self.ring.has_room(count) {
            return false;
        }
        for piece in pieces {
            self.ring.post(piece);
        }
        let end = start + count;
        match last {
            Some(last) => last.range.end = end,
            None => {
                stream.posted += 1;
                self.posted.push(Posted { stream: key, range: start..end });
            }
        }
        self.driver.wake();
        true
    }

    fn poll_send_at_once(
        &mut self,
        key: Key,
        context: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = self.streams.get(key) else { return gone() };
        match send_at_once(stream.socket.as_raw_fd(), bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.writer.wait(context);
                self.await_writable(key);
                Poll::Pending
            }
            sent => Poll::Ready(sent),
        }
    }

    fn await_writable(&mut self, key: Key) {
        if let Some(stream) = self.streams.get(key)
            && !stream.awaits_writable
        {
            stream.awaits_writable = true;
            self.ring.await_writable(stream.socket.as_raw_fd(), key);
            self.driver.wake();
        }
    }

    fn complete(&mut self, completion: Completion) {
        let key = completion.key;
        match completion.kind {
            Kind::Receive => self.complete_receive(key, &completion),
            Kind::Writable => self.complete_writable(key),
            Kind::Send => self.complete_send(key, &completion),
            Kind::Cancel => {}
        }
    }

    fn complete_receive(&mut self, key: Key, completion: &Completion) {
        let stream = self.streams.get(key);
        let Some(stream) = stream.filter(|stream| !stream.is_dropped) else {
            let filled: Vec<_> = self.ring.filled(completion).collect();
            filled.into_iter().for_each(|filled| self.ring.give_back(filled));
            if let Some(stream) = self.streams.get(key)
                && !completion.is_followed
            {
                stream.is_receiving = false;
                self.streams.close_if_done(key);
            }
            return;
        };
        if stream.inbox.is_empty() {
            self.fresh.push(key);
        }
        stream.inbox.extend(self.ring.filled(completion));
        if !completion.is_followed {
            (stream.is_receiving, stream.is_pausing) = (false, false);
        }
        match completion.result {
            Ok(0) => stream.has_ended = true,
            // For want of buffers, or by our own will, or nobody's: the receive is asked for again.
            Ok(_) | Err(libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {}
            Err(error) => stream.failure = Some(Failure::Os(error)),
        }
        let is_told = !stream.inbox.is_empty() || stream.has_ended || stream.failure.is_some();
        if is_told {
            self.has_ready_tasks |= stream.reader.wake();
        } else if stream.reader.waits && !stream.is_receiving {
            self.starved.push(key);
        }
    }

    fn complete_send(&mut self, key: Key, completion: &Completion) {
        debug_assert_eq!(key.generation, self.turn, "a send is tried in its turn");
        let Some(posted) = self.posted.get(key.index as usize) else { return };
        let (key, range) = (posted.stream, posted.range.clone());
        let Some(stream) = self.streams.get(key) else { return };
        if stream.is_dropped {
            return;
        }
        let sent = match completion.result {
            Ok(count) => count as usize,
            Err(libc::EAGAIN | libc::ENOBUFS | libc::ECANCELED | libc::EINTR) => 0,
            Err(error) => {
                stream.failure = Some(Failure::Os(error));
                self.has_ready_tasks |= stream.reader.wake() | stream.writer.wake();
                return;
            }
        };
        let rest = self.ring.posted(range.start + sent.min(range.len())..range.end);
        if rest.is_empty() {
            return;
        }
        stream.unsent = Rest { bytes: rest.to_vec(), done: 0 };
        stream.stalled = Duration::ZERO;
        if stream.lease_kept() {
            self.behind.push(key);
            self.await_writable(key);
        } else {
            self.has_ready_tasks |= stream.reader.wake() | stream.writer.wake();
        }
    }

    /// There is room again, or somebody says so: trying is harmless.
    fn complete_writable(&mut self, key: Key) {
        let Some(stream) = self.streams.get(key) else { return };
        stream.awaits_writable = false;
        if stream.is_dropped {
            return self.streams.close_if_done(key);
        }
        while !stream.unsent.is_empty() && stream.failure.is_none() {
            match send_at_once(stream.socket.as_raw_fd(), stream.unsent.bytes()) {
                Ok(count) => {
                    stream.unsent.advance(count);
                    stream.stalled = Duration::ZERO;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.await_writable(key);
                }
                Err(error) => {
                    stream.failure = Some(Failure::Os(error.raw_os_error().unwrap_or(libc::EIO)));
                    self.has_ready_tasks |= stream.reader.wake();
                }
            }
        }
        let _ = stream.lease_kept();
        self.has_ready_tasks |= stream.writer.wake();
    }
}
