//! One `io_uring`: operations in, completions out, and the memory that they work on.
//!
//! - Received bytes lie in the ring's [`Pool`] until they are given back.
//! - Bytes to be sent are copied to the outbox. A send is tried once, while it is submitted, so the
//!   outbox is free again when [`Ring::enter`] has returned: no send is ever under way. One that went
//!   through completes without a word; one that did not, or in part, says so.
//! - No other operation has memory of its own.
//!
//! So a completion that comes late, twice or never can cost a client its connection, and nothing worse.

#![expect(unsafe_code, reason = "operations name raw memory; everything above is safe")]

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;
use std::{fmt, io};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[cfg(test)]
use super::faults::Faults;
use super::memory::Pages;
use super::pool::{Filled, GROUP, Pool};

/// How large a ring is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Operations submitted by one system call.
    pub(super) submissions: u32,
    /// Completions that wait to be looked at; the kernel keeps what is beyond.
    pub(super) completions: u32,
    /// Buffers to receive into, at first
    pub(super) buffers: u16,
    /// and at most, a power of two.
    pub(super) buffers_max: u16,
    /// The size of each.
    pub(super) buffer_bytes: usize,
    /// A receive takes as many buffers at once as it fills, where the kernel can do that.
    pub(super) bundles: bool,
    /// What the sends of one turn may take together.
    pub(super) outbox_bytes: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            submissions: 1024,
            completions: 4096,
            buffers: 64,
            buffers_max: 1024,
            buffer_bytes: 2048,
            bundles: true,
            outbox_bytes: 256 << 10,
        }
    }
}

/// Whom an operation is for. The ring makes nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// Less than 2^29.
    pub(super) index: u32,
    /// Sets those apart who had the same index at different times.
    pub(super) generation: u32,
}

/// What an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes of a client.
    Receive,
    /// Room to send.
    Writable,
    /// Bytes for a client.
    Send,
    /// The end of another operation.
    Cancel,
}

const KINDS: [Kind; 4] = [Kind::Receive, Kind::Writable, Kind::Send, Kind::Cancel];

/// An operation by its name, which its completions carry.
///
/// ```text
/// | generation, 32 bits | index, 29 bits | kind, 3 bits |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token(u64);

impl Token {
    fn new(kind: Kind, key: Key) -> Self {
        debug_assert!(key.index < 1 << 29, "fits its bits");
        Self(u64::from(key.generation) << 32 | u64::from(key.index) << 3 | kind as u64)
    }

    #[expect(clippy::cast_possible_truncation, reason = "each is masked to its bits")]
    fn parts(self) -> Option<(Kind, Key)> {
        let kind = KINDS.get((self.0 & 7) as usize)?;
        let key = Key { index: self.0 as u32 >> 3, generation: (self.0 >> 32) as u32 };
        Some((*kind, key))
    }
}

/// What became of an operation.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) kind: Kind,
    pub(super) key: Key,
    /// Bytes, or what went wrong.
    pub(super) result: Result<u32, i32>,
    /// The first buffer that was filled.
    buffer: Option<u16>,
    /// More completions of the same operation follow.
    pub(super) is_followed: bool,
}

/// One `io_uring` and its memory.
pub(super) struct Ring {
    uring: IoUring,
    pool: Pool,
    outbox: Pages,
    outbox_bytes_max: usize,
    outbox_bytes: usize,
    /// Operations for which the queue had no room.
    backlog: VecDeque<Entry>,
    receives_bundles: bool,
    #[cfg(test)]
    faults: Faults,
    /// Completions that the kernel knows nothing of.
    #[cfg(test)]
    invented: Vec<Completion>,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring for the thread that calls, and for no other.
    pub(super) fn open(shape: &Shape) -> io::Result<Self> {
        #[cfg(test)]
        let (shape, faults) = &Faults::arranged(shape)?;
        let uring = IoUring::builder()
            .setup_cqsize(shape.completions)
            .setup_clamp()
            // One failed operation does not hold up those behind it.
            .setup_submit_all()
            // Completions are worked on when this thread asks for them, not by interrupting it.
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(shape.submissions)?;
        let pool = Pool::register(&uring, shape.buffers, shape.buffers_max, shape.buffer_bytes)?;
        let outbox = Pages::new(shape.outbox_bytes);
        let receives_bundles = shape.bundles && uring.params().is_feature_recvsend_bundle();
        Ok(Self {
            uring,
            pool,
            outbox,
            outbox_bytes_max: shape.outbox_bytes,
            outbox_bytes: 0,
            backlog: VecDeque::new(),
            receives_bundles,
            #[cfg(test)]
            faults: *faults,
            #[cfg(test)]
            invented: Vec::new(),
        })
    }

    /// What becomes readable when something happens between [`Ring::signal`] and [`Ring::enter`]. A ring has one.
    pub(super) fn signals(&self) -> io::Result<AsyncFd<EventFd>> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        // Also for what is put off until this thread enters, which the ring's own descriptor does not tell.
        self.uring.submitter().register_eventfd(event.as_fd().as_raw_fd())?;
        // SAFETY: it owns its descriptor, which so stays open and the same.
        Ok(unsafe { AsyncFd::register_with_interest(event, Interest::READABLE)? })
    }

    /// Has what happens from now on signalled. False if something has happened already.
    pub(super) fn signal(&mut self) -> bool {
        self.uring.completion().enable_eventfd();
        // The kernel first notes what there is to do, then looks whether to signal it.
        fence(Ordering::SeqCst);
        let submission = self.uring.submission();
        let is_idle = !submission.taskrun() && !submission.cq_overflow() && submission.is_empty();
        drop(submission);
        is_idle && self.backlog.is_empty() && self.uring.completion().is_empty()
    }

    /// Receives into buffers of the pool until it fails, is cancelled, or the stream ends.
    pub(super) fn receive(&mut self, socket: RawFd, key: Key) {
        let entry = if self.receives_bundles {
            opcode::RecvMultiBundle::new(Fd(socket), GROUP).build()
        } else {
            opcode::RecvMulti::new(Fd(socket), GROUP).build()
        };
        self.push(entry, Kind::Receive, key);
    }

    /// Waits until `socket` takes bytes again.
    pub(super) fn await_writable(&mut self, socket: RawFd, key: Key) {
        let events = u32::from(libc::POLLOUT.cast_unsigned());
        self.push(opcode::PollAdd::new(Fd(socket), events).build(), Kind::Writable, key);
    }

    /// Whether `count` more bytes fit the outbox.
    pub(super) fn has_room(&self, count: usize) -> bool {
        count <= self.outbox_bytes_max - self.outbox_bytes
    }

    /// Appends `bytes` to the outbox, which has room for them.
    pub(super) fn post(&mut self, bytes: &[u8]) {
        assert!(self.has_room(bytes.len()), "whoever posts has asked for room");
        self.outbox.write(self.outbox_bytes, bytes);
        self.outbox_bytes += bytes.len();
    }

    /// What was posted at `range`.
    pub(super) fn posted(&self, range: Range<usize>) -> &[u8] {
        self.outbox.bytes(range)
    }

    /// How much is posted, which is where the next will stand.
    pub(super) fn posted_bytes(&self) -> usize {
        self.outbox_bytes
    }

    /// Sends what was posted at `range`, as much of it as `socket` takes at once. A completion follows only
    /// if that is not all.
    pub(super) fn send(&mut self, socket: RawFd, range: Range<usize>, key: Key) {
        #[cfg(test)]
        let Some(range) = self.cut_short(range, key) else { return };
        let bytes = self.outbox.bytes(range);
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // All of it, or what there is room for and a completion that says how much.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL;
        let entry = opcode::Send::new(Fd(socket), bytes.as_ptr(), len).flags(flags).build();
        self.push(entry.flags(Flags::SKIP_SUCCESS), Kind::Send, key);
    }

    /// Ends an operation, which completes all the same.
    pub(super) fn cancel(&mut self, kind: Kind, key: Key) {
        let entry = opcode::AsyncCancel::new(Token::new(kind, key).0).build();
        self.push(entry.flags(Flags::SKIP_SUCCESS), Kind::Cancel, key);
    }

    /// Submits everything, and waits up to `wait` for something to complete. On return every send
    /// has been tried, and the outbox is empty once its completions are looked at.
    pub(super) fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.pool.tell();
        self.uring.completion().disable_eventfd();
        loop {
            self.refill();
            let is_last = self.backlog.is_empty();
            let submitted = match wait {
                Some(wait) if is_last => {
                    let time = Timespec::from(wait);
                    let arguments = SubmitArgs::new().timespec(&time);
                    self.uring.submitter().submit_with_args(1, &arguments)
                }
                _ => self.uring.submit(),
            };
            match submitted {
                Ok(_) if is_last && self.uring.submission().is_empty() => return Ok(()),
                Ok(count) if count > 0 => {}
                Ok(_) => return Ok(()),
                Err(error) => match error.raw_os_error() {
                    Some(libc::ETIME) => return Ok(()),
                    // Interrupted, or completions have to be looked at first.
                    Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => return Ok(()),
                    _ => return Err(error),
                },
            }
        }
    }

    /// Whether everything that was asked for is with the kernel, and nothing is left there that did not
    /// fit the queue of completions.
    pub(super) fn is_drained(&mut self) -> bool {
        let submission = self.uring.submission();
        submission.is_empty() && !submission.cq_overflow() && self.backlog.is_empty()
    }

    /// What a test has a send go short of.
    #[cfg(test)]
    fn cut_short(&mut self, range: Range<usize>, key: Key) -> Option<Range<usize>> {
        let count = self.faults.cut(range.len());
        let result = match count {
            _ if count == range.len() => return Some(range),
            0 => Err(libc::EAGAIN),
            _ => Ok(u32::try_from(count).unwrap()),
        };
        let (kind, buffer) = (Kind::Send, None);
        self.invented.push(Completion { kind, key, result, buffer, is_followed: false });
        (count > 0).then_some(range.start..range.start + count)
    }

    /// Appends what has completed.
    pub(super) fn reap(&mut self, completions: &mut Vec<Completion>) {
        #[cfg(test)]
        completions.append(&mut self.invented);
        for entry in self.uring.completion() {
            let (result, flags) = (entry.result(), entry.flags());
            let buffer = cqueue::buffer_select(flags);
            if let Some(id) = buffer
                && result <= 0
            {
                self.pool.give_back_empty(id);
            }
            if result == -libc::ENOBUFS {
                self.pool.grow();
            }
            let Some((kind, key)) = Token(entry.user_data()).parts() else { continue };
            if kind == Kind::Cancel {
                // What it was to end was over already.
                continue;
            }
            completions.push(Completion {
                kind,
                key,
                result: u32::try_from(result).map_err(|_| -result),
                buffer,
                is_followed: cqueue::more(flags),
            });
        }
        #[cfg(test)]
        self.cancel_some(completions);
    }

    /// What a test has cancelled without anybody having asked for it.
    #[cfg(test)]
    fn cancel_some(&mut self, completions: &[Completion]) {
        for completion in completions {
            if completion.kind == Kind::Receive && self.faults.cancels_receive() {
                self.cancel(Kind::Receive, completion.key);
            }
        }
    }

    /// The buffers that `completion` brings; to be asked for once.
    pub(super) fn filled(&self, completion: &Completion) -> impl Iterator<Item = Filled> {
        let first = completion.buffer.zip(completion.result.ok());
        first.into_iter().flat_map(|(id, bytes)| self.pool.filled(id, bytes as usize))
    }

    /// What arrived in `filled`, from `from` on.
    pub(super) fn bytes(&self, filled: &Filled, from: usize) -> &[u8] {
        self.pool.bytes(filled, from)
    }

    /// Has `filled` filled again.
    pub(super) fn give_back(&mut self, filled: Filled) {
        self.pool.give_back(filled);
    }

    /// Forgets what was posted.
    ///
    /// # Panics
    ///
    /// While the kernel has still to read some of it.
    pub(super) fn clear_outbox(&mut self) {
        assert!(self.is_drained(), "every send has been tried");
        self.outbox_bytes = 0;
    }

    fn push(&mut self, entry: Entry, kind: Kind, key: Key) {
        self.backlog.push_back(entry.user_data(Token::new(kind, key).0));
        if self.backlog.len() == 1 {
            self.refill();
        }
    }

    /// Queues as much of the backlog as there is room for.
    fn refill(&mut self) {
        let mut submission = self.uring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: what the operation reads is the outbox, unchanged until every send was tried;
            // what it writes are buffers of the pool, which are the kernel's until it says
            // otherwise. Both live until nothing is under way; see `drop`.
            if unsafe { submission.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.backlog.clear();
        // What was queued and not submitted is never looked at again: the queue goes with the ring.
        let stopped = self.uring.submitter().register_sync_cancel(None, CancelBuilder::any());
        match stopped {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!("operations go on after their ring: {error}");
                self.pool.abandon();
                self.outbox.abandon();
            }
        }
    }
}
