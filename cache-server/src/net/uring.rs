//! The `io_uring` driver of Linux: one system call a turn for all connections of a worker together.
//!
//! ```text
//!             one thread
//!   tasks ──────────────────> Reactor ──> Ring ──> kernel
//!   a client each             who waits   operations, buffers
//!        ^                       │ reactor.rs     ring.rs, pool.rs, memory.rs
//!        └──── woken by ─────────┘
//! ```
//!
//! - A client's bytes are received by one operation that goes on for as long as it is connected, into
//!   buffers that all clients share.
//! - Answers are gathered while tasks have their turns. Behind the last of them the *turn* of the
//!   reactor sends all of them and takes what has arrived since.
//! - Descriptors stay what they are, so all else works as it does with the other driver: what shuts
//!   sockets down, counts them or looks at them.
//!
//! - Clients are accepted by the runtime. A socket that an operation names stays open when its process is
//!   killed, until the kernel has taken the ring apart: for a listening one that is too long, as the server
//!   that is started next finds its address in use.
//!
//! The runtime stays the one that runs the tasks, with its timers and all sockets that are not
//! clients'. While nothing happens it is the runtime that waits, for the ring's descriptor among others.
//! A worker that has no such sockets waits in the ring first, for a moment (`NAP`): under load that is
//! all the waiting there is.

#[cfg(test)]
mod faults;
mod memory;
mod pool;
mod reactor;
mod ring;

use std::future::{Future, poll_fn};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{io, net};

use nix::libc;
use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::yield_now;

use self::reactor::Reactor;
use self::ring::{Key, Ring, Shape};
use crate::net::buffers::Gauge;
use crate::net::driver::{Driver, Listener, Socket};
use crate::net::registry::Endpoint;
use crate::net::tokio::Runtime;

/// How long a worker waits in its ring before it lets the runtime wait. What other threads and timers
/// want of it is late by no more.
const NAP: Duration = Duration::from_micros(100);

/// How many turns may follow each other before the runtime looks at its timers and other sockets.
const TURNS_MAX: u32 = 8;

/// The smallest room that a read is given.
const ROOM_BYTES_MIN: usize = 64;

/// What the memory of one ring comes to at most, in bytes: its buffers and its outbox.
pub const RING_BYTES_MAX: usize = 3 << 20;

/// Why clients' sockets cannot be `io_uring`'s.
#[derive(Debug, thiserror::Error)]
#[error("no io_uring here: {reason}")]
pub struct Unavailable {
    reason: &'static str,
    /// What the kernel said.
    #[source]
    source: io::Error,
}

impl Unavailable {
    fn of(source: io::Error) -> Self {
        let reason = match source.raw_os_error() {
            Some(libc::ENOSYS) => "this kernel has none, or a filter of system calls hides it",
            Some(libc::EPERM | libc::EACCES) => {
                "it is forbidden, by kernel.io_uring_disabled or a filter of system calls"
            }
            Some(libc::EINVAL) => "this kernel is older than 6.1",
            Some(libc::ENOMEM) => {
                "there is no memory for it; locked memory may be short (ulimit -l)"
            }
            Some(libc::EMFILE | libc::ENFILE) => "no descriptor is left for it (ulimit -n)",
            _ => "the kernel gives another reason",
        };
        Self { reason, source }
    }
}

/// Whether this thread could have a ring.
///
/// # Errors
///
/// Why it could not.
pub(crate) fn probe() -> Result<(), Unavailable> {
    Ring::open(&Shape::default()).map(drop).map_err(Unavailable::of)
}

/// Whether tests of it can run here; says why not.
#[cfg(test)]
#[expect(clippy::print_stderr, reason = "whoever runs the tests is to know")]
pub(crate) fn is_there() -> bool {
    let probed = probe();
    if let Err(error) = &probed {
        eprintln!("not tested: {error}");
    }
    probed.is_ok()
}

/// A worker's ring, and who drives it.
#[derive(Clone, Debug)]
pub(super) struct Uring {
    reactor: Rc<Reactor>,
}

impl Uring {
    /// A ring for this thread. What clients keep is leased from `gauge`.
    ///
    /// # Errors
    ///
    /// When the kernel has no `io_uring`, too old a one, or none for us.
    pub(super) fn open(gauge: Arc<Gauge>) -> Result<Self, Unavailable> {
        let ring = Ring::open(&Shape::default()).map_err(Unavailable::of)?;
        Ok(Self { reactor: Rc::new(Reactor::new(ring, gauge)) })
    }

    /// Runs turn after turn, behind all tasks that are ready. `naps` if nothing but clients is urgent. After a
    /// turn `foresee` sees what arrived from several clients, before any of them is served. Ends with an error,
    /// without which it does not.
    pub(super) async fn drive(self, naps: bool, foresee: impl Fn(&[&[u8]])) -> io::Result<()> {
        let Self { reactor } = self;
        let signals = reactor.signals()?;
        let nap = naps.then_some(NAP);
        let mut turns = 0;
        poll_fn(|context| {
            while !reactor.turn(nap)? {
                turns = 0;
                // Of signals up to now the turn has dealt with what they were for.
                while let Poll::Ready(mut guard) = signals.poll_read_ready(context)? {
                    guard.clear_ready();
                }
                if reactor.rest(context) {
                    return Poll::Pending;
                }
            }
            reactor.foresee(&foresee);
            turns += 1;
            if turns < TURNS_MAX {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            turns = 0;
            pin!(yield_now()).poll(context).map(Ok)
        })
        .await
    }

    /// Fails streams that take nothing for longer than `allowed` says, looking every `step`.
    pub(super) fn note_stalled(&self, step: Duration, allowed: Duration) {
        self.reactor.note_stalled(step, allowed);
    }
}

impl Driver for Uring {
    type Tcp = UringListener<TcpListener>;
    type Unix = UringListener<(UnixListener, Endpoint)>;

    fn serve_tcp(&self, socket: net::TcpListener) -> io::Result<Self::Tcp> {
        let listener = Runtime.serve_tcp(socket)?;
        Ok(UringListener { reactor: Rc::clone(&self.reactor), listener })
    }

    fn serve_unix(
        &self,
        socket: unix::net::UnixListener,
        path: Endpoint,
    ) -> io::Result<Self::Unix> {
        let listener = Runtime.serve_unix(socket, path)?;
        Ok(UringListener { reactor: Rc::clone(&self.reactor), listener })
    }
}

/// A listening socket of the runtime's, whose clients are the ring's.
#[derive(Debug)]
pub(super) struct UringListener<L> {
    reactor: Rc<Reactor>,
    listener: L,
}

impl Listener for UringListener<TcpListener> {
    type Stream = UringStream;

    async fn accept(&self) -> io::Result<(UringStream, Endpoint)> {
        let (client, peer) = Listener::accept(&self.listener).await?;
        Ok((UringStream::new(Rc::clone(&self.reactor), client.into_std()?.into()), peer))
    }
}

impl Listener for UringListener<(UnixListener, Endpoint)> {
    type Stream = UringStream;

    async fn accept(&self) -> io::Result<(UringStream, Endpoint)> {
        let (client, peer) = self.listener.accept().await?;
        Ok((UringStream::new(Rc::clone(&self.reactor), client.into_std()?.into()), peer))
    }
}

/// A client's socket of either family.
#[derive(Debug)]
pub(super) struct UringStream {
    reactor: Rc<Reactor>,
    key: Key,
    fd: RawFd,
}

impl UringStream {
    fn new(reactor: Rc<Reactor>, socket: OwnedFd) -> Self {
        let fd = socket.as_raw_fd();
        let key = reactor.open_stream(socket);
        Self { reactor, key, fd }
    }
}

impl AsRawFd for UringStream {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl Drop for UringStream {
    fn drop(&mut self) {
        self.reactor.drop_stream(self.key);
    }
}

impl Socket for UringStream {
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        input: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        if input.capacity() == input.len() {
            input.reserve(ROOM_BYTES_MIN);
        }
        let room = input.capacity() - input.len();
        self.reactor.poll_receive(self.key, context, room, |bytes| input.extend_from_slice(bytes))
    }

    fn poll_send(&mut self, context: &mut Context<'_>, output: &[u8]) -> Poll<io::Result<usize>> {
        self.reactor.poll_send(self.key, context, &[output])
    }

    fn sends_pieces(&self) -> bool {
        true
    }

    fn poll_send_pieces(
        &mut self,
        _context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.reactor.send_pieces(self.key, pieces)
    }

    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.reactor.poll_sent(self.key, context)
    }

    /// Behind the turn of the ring: others may have received something by then.
    fn give_way(&self) -> impl Future<Output = ()> {
        let mut has_waited = false;
        poll_fn(move |context| {
            if std::mem::replace(&mut has_waited, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            self.reactor.note_ready_task();
            Poll::Pending
        })
    }
}

impl AsyncRead for UringStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = into.remaining();
        let take = |bytes: &[u8]| into.put_slice(bytes);
        ready!(self.reactor.poll_receive(self.key, context, room, take))?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for UringStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.reactor.poll_send(self.key, context, &[bytes])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let pieces: smallvec::SmallVec<[&[u8]; 16]> = pieces.iter().map(|piece| &**piece).collect();
        self.reactor.poll_send(self.key, context, &pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.reactor.poll_sent(self.key, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.reactor.poll_sent(self.key, context))?;
        Poll::Ready(shutdown(self.fd, Shutdown::Write).map_err(io::Error::from))
    }
}
