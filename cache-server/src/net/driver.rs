//! What a worker asks of its driver: sockets, and somebody who waits for them.
//!
//! [`Driver`] turns bound sockets into [`Listener`]s, those give a [`Socket`] per client, and nothing
//! above knows more. Two of them: [`tokio`](crate::net::tokio) and [`uring`](crate::net::uring).

use std::future::Future;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll};

use nix::sys::socket::{MsgFlags, send};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::net::registry::Endpoint;

/// A client has taken nothing of what was sent to it, for too long.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("takes nothing of its answers")]
pub(super) struct SlowReader;

/// Where a worker's sockets come from.
pub(super) trait Driver {
    /// A socket that clients connect to, of either family.
    type Tcp: Listener;
    /// The same for those on this machine.
    type Unix: Listener;

    /// Serves `socket`, which is listening.
    fn serve_tcp(&self, socket: std::net::TcpListener) -> io::Result<Self::Tcp>;

    /// Serves `socket`, which is listening at `path`.
    fn serve_unix(
        &self,
        socket: std::os::unix::net::UnixListener,
        path: Endpoint,
    ) -> io::Result<Self::Unix>;
}

/// A listening socket.
pub(super) trait Listener: 'static {
    /// What a client is connected by.
    type Stream: Socket + AsyncRead + AsyncWrite;

    /// Waits for the next client, and says where it is.
    async fn accept(&self) -> io::Result<(Self::Stream, Endpoint)>;
}

/// What a client is connected by.
pub(super) trait Socket: AsRawFd + Unpin + 'static {
    /// Appends to `input` what the client sends, and tells how much that is; 0 at its end. As much as
    /// fits is read, once.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        input: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>>;

    /// Sends the beginning of `output`, and tells how much. What was handed in and not sent is handed
    /// in again.
    fn poll_send(&mut self, context: &mut Context<'_>, output: &[u8]) -> Poll<io::Result<usize>>;

    /// Whether [`Socket::poll_send_pieces`] sends anything.
    fn sends_pieces(&self) -> bool {
        false
    }

    /// Sends the beginning of `pieces`, one behind the other, in one call if that is possible at once, and tells how much.
    /// What was not sent is handed to [`Socket::poll_send`], and may stand elsewhere by then.
    fn poll_send_pieces(
        &mut self,
        _context: &mut Context<'_>,
        _pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    /// Waits until the kernel has all that was sent; where a driver has none of it, that is at once.
    fn poll_sent(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Lets every other connection have its turn first.
    fn give_way(&self) -> impl Future<Output = ()>;

    /// The connection ends by the server's will or the client's; whatever is to be said of it is said
    /// now, if that is possible at once.
    fn part(&mut self) {}

    /// Sends `line` if that is possible at once, and closes. Under TLS as well it is sent plainly, as
    /// memcached does: whoever is refused has not shaken hands.
    fn refuse(self, line: &[u8])
    where
        Self: Sized,
    {
        // Not through the driver, which may not have heard yet that the socket is writable.
        let _ = send_at_once(self.as_raw_fd(), line);
    }
}

/// Sends the beginning of `pieces`, if that is possible at once.
pub(super) fn send_pieces_at_once(fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    SockRef::from(&fd).send_vectored_with_flags(pieces, flags.bits())
}

/// Sends the beginning of `bytes`, if that is possible at once.
pub(super) fn send_at_once(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(fd, bytes, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)?)
}
