//! The portable driver: tokio's sockets, and its runtime to wait for them.
//!
//! One turn of a connection costs one read and one write: a read that leaves its buffer part empty
//! tells the runtime that the socket is drained (see `receive` in `worker.rs`), so there is no second
//! read just to be told to wait.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::yield_now;

use crate::net::driver::{Driver, Listener, Socket};
use crate::net::registry::Endpoint;

/// The runtime that the worker's tasks run in.
pub(super) struct Runtime;

impl Driver for Runtime {
    type Tcp = TcpListener;
    type Unix = (UnixListener, Endpoint);

    fn serve_tcp(&self, socket: std::net::TcpListener) -> io::Result<TcpListener> {
        TcpListener::from_std(socket)
    }

    fn serve_unix(
        &self,
        socket: std::os::unix::net::UnixListener,
        path: Endpoint,
    ) -> io::Result<(UnixListener, Endpoint)> {
        Ok((UnixListener::from_std(socket)?, path))
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Endpoint)> {
        Self::accept(self).await.map(|(stream, peer)| (stream, Endpoint::Tcp(peer)))
    }
}

impl Listener for (UnixListener, Endpoint) {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Endpoint)> {
        self.0.accept().await.map(|(stream, _)| (stream, self.1.clone()))
    }
}

/// A stream of either family, as it is.
macro_rules! plain_socket {
    ($Stream:ty) => {
        impl Socket for $Stream {
            #[inline]
            fn poll_receive(
                &mut self,
                context: &mut Context<'_>,
                input: &mut Vec<u8>,
            ) -> Poll<io::Result<usize>> {
                pin!(self.read_buf(input)).poll(context)
            }

            #[inline]
            fn poll_send(
                &mut self,
                context: &mut Context<'_>,
                output: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(self).poll_write(context, output)
            }

            fn sends_pieces(&self) -> bool {
                true
            }

            fn poll_send_pieces(
                &mut self,
                context: &mut Context<'_>,
                pieces: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(self).poll_write_vectored(context, pieces)
            }

            /// By way of the runtime's poll: others may have something to receive by then.
            fn give_way(&self) -> impl Future<Output = ()> {
                yield_now()
            }
        }
    };
}

plain_socket!(TcpStream);
plain_socket!(UnixStream);
