//! A connection that has shaken hands: a stream, who is at its other end, and how its frames are checked.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use cluster::Member;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::peer::STALL_DEADLINE;
use crate::peer::frame::{FrameDecoder, FrameEncoder, FrameError};
use crate::peer::handshake::Purpose;
use crate::peer::tls::PeerStream;

/// A connection between nodes, after the handshake.
#[derive(Debug)]
pub struct PeerConnection {
    /// What carries it.
    pub stream: PeerStream,
    /// Who is at the other end; `None` if it joins and is nobody yet.
    pub peer: Option<Member>,
    /// Where the other end is.
    pub address: SocketAddr,
    /// What it is for.
    pub purpose: Purpose,
    /// Writes its frames, in the order in which they are sent.
    pub encoder: FrameEncoder,
    /// Finds the frames in what it brings.
    pub decoder: FrameDecoder,
}

/// Why a connection came to its end.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The other side closed it.
    #[error("the peer closed the connection")]
    Closed,
    /// The network or TLS failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The other side sent what is no frame of this connection.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other side sent a frame that says nothing.
    #[error("a frame that makes no sense")]
    Malformed,
    /// The other side took nothing, or left a frame half sent.
    #[error("the peer has stalled")]
    Stalled,
}

impl ConnectionError {
    /// Whether what the peer sent was the reason.
    pub fn is_peers_fault(&self) -> bool {
        matches!(self, Self::Frame(_) | Self::Malformed)
    }
}

impl PeerConnection {
    /// Sends one frame.
    ///
    /// # Errors
    ///
    /// When it is too long, or the connection is at its end.
    pub async fn send(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        let mut bytes = Vec::new();
        self.encoder.encode(payload, &mut bytes)?;
        write(&mut self.stream, &bytes).await
    }

    /// Waits this long at the most for one frame.
    ///
    /// # Errors
    ///
    /// When it does not come, or the connection is at its end.
    pub async fn receive(&mut self, deadline: Duration) -> Result<Bytes, ConnectionError> {
        let receive = async {
            loop {
                if let Some(payload) = self.decoder.next_frame()? {
                    return Ok(Bytes::copy_from_slice(payload));
                }
                read(&mut self.stream, &mut self.decoder).await?;
            }
        };
        timeout(deadline, receive).await.unwrap_or(Err(ConnectionError::Stalled))
    }
}

/// Reads once, however little there is; says how much. Waits for ever for a frame to begin, and not for it
/// to end.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    decoder: &mut FrameDecoder,
) -> Result<usize, ConnectionError> {
    let partial = decoder.is_partial();
    let read = stream.read(decoder.space());
    let bytes = if partial {
        timeout(STALL_DEADLINE, read).await.map_err(|_| ConnectionError::Stalled)??
    } else {
        read.await?
    };
    if bytes == 0 {
        return Err(ConnectionError::Closed);
    }
    decoder.received(bytes);
    Ok(bytes)
}

/// Sends all of `bytes`, for as long as the other side takes some.
pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
) -> Result<(), ConnectionError> {
    while !bytes.is_empty() {
        let written = timeout(STALL_DEADLINE, stream.write(bytes)).await;
        match written.map_err(|_| ConnectionError::Stalled)?? {
            0 => return Err(ConnectionError::Closed),
            written => bytes = &bytes[written..],
        }
    }
    Ok(timeout(STALL_DEADLINE, stream.flush()).await.map_err(|_| ConnectionError::Stalled)??)
}

/// Sets a socket up: small frames leave at once, and a dead host is noticed by the kernel.
pub(super) fn set_up(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new().with_time(second).with_interval(second).with_retries(4);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(STALL_DEADLINE))
}
