//! One client connection: bytes out, lines and blocks in.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use protocol::binary::response::{BinaryResponse, BinaryResponseStep};

use crate::frame;

/// How long an answer may take, unless said otherwise.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The longest answer in a frame, in bytes.
const FRAME_BYTES_MAX: usize = 16 << 20;

const LINE_END: &[u8] = b"\r\n";

/// What carries bytes both ways, its limits in time set.
pub trait Stream: Read + Write + fmt::Debug + Send {}

impl<T: Read + Write + fmt::Debug + Send> Stream for T {}

/// A connection with what has arrived and was not read yet.
#[derive(Debug)]
pub struct Connection {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    /// How long an answer may take.
    limit: Duration,
}

impl Connection {
    /// Connects to `address`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect(address).and_then(Self::over)
    }

    /// Connects to `address`, and waits no longer than `limit` for that and for each answer.
    ///
    /// # Errors
    /// When nobody listens there, or the system there is as good as gone.
    pub fn open_within(address: SocketAddr, limit: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, limit)?;
        Self::waiting(stream, limit)
    }

    /// Takes over a stream that is connected already.
    ///
    /// # Errors
    /// When its options cannot be set.
    pub fn over(stream: TcpStream) -> io::Result<Self> {
        Self::waiting(stream, ANSWER_LIMIT)
    }

    /// Connects to the UNIX socket at `path`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn open_unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self::of(Box::new(stream), ANSWER_LIMIT))
    }

    /// Takes over a stream of which a read and a write take no longer than `limit`.
    #[must_use]
    pub fn of(stream: Box<dyn Stream>, limit: Duration) -> Self {
        Self { stream, received: Vec::new(), limit }
    }

    fn waiting(stream: TcpStream, limit: Duration) -> io::Result<Self> {
        Ok(Self::of(Box::new(prepared(stream, limit)?), limit))
    }

    /// Sends `bytes` as they are.
    ///
    /// # Errors
    /// When the other side is gone or does not read.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next line without its end, or `None` at the end of the connection.
    ///
    /// # Errors
    /// When none arrives in time.
    pub fn receive_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            let unsearched = &self.received[searched..];
            let found = unsearched.windows(LINE_END.len()).position(|pair| pair == LINE_END);
            if let Some(offset) = found {
                let end = searched + offset;
                let line = self.received[..end].to_vec();
                self.received.drain(..end + LINE_END.len());
                return Ok(Some(line));
            }
            searched = self.received.len().saturating_sub(LINE_END.len() - 1);
            if !self.receive_more()? {
                return Ok(None);
            }
        }
    }

    /// The next `len` bytes and the line end that follows them; without that it is an error.
    ///
    /// # Errors
    /// When they do not arrive in time, or something else does.
    pub fn receive_block(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < len + LINE_END.len() {
            if !self.receive_more()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let end = &self.received[len..len + LINE_END.len()];
        if end != LINE_END {
            return Err(io::Error::other(format!("a block of {len} bytes has no end")));
        }
        let block = self.received[..len].to_vec();
        self.received.drain(..len + LINE_END.len());
        Ok(block)
    }

    /// The next frame of the binary protocol [in words](crate::frame), or `None` at the end of the
    /// connection.
    ///
    /// # Errors
    /// When none arrives in time, or something else does.
    pub fn receive_frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            match BinaryResponse::decode(&self.received, FRAME_BYTES_MAX) {
                BinaryResponseStep::Response { consumed, response } => {
                    let told = frame::describe(&response);
                    self.received.drain(..consumed);
                    return Ok(Some(told));
                }
                BinaryResponseStep::Malformed => return Err(io::Error::other("no frame")),
                BinaryResponseStep::More { .. } => {}
            }
            if !self.receive_more()? {
                return Ok(None);
            }
        }
    }

    /// Everything until the connection ends.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn receive_rest(&mut self) -> io::Result<Vec<u8>> {
        while self.receive_more()? {}
        Ok(std::mem::take(&mut self.received))
    }

    /// Reads what has arrived; `false` at the end of the connection.
    fn receive_more(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 64 * 1024];
        let count = match self.stream.read(&mut buffer) {
            // A fuzzer's clock ticks by signals.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            // A server that closes with input unread resets the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            // And so does one under TLS, before it has said goodbye, or while reading still writes.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let reason = format!("no answer within {:?}", self.limit);
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
            other => other?,
        };
        self.received.extend_from_slice(&buffer[..count]);
        Ok(count > 0)
    }
}

/// A socket that sends at once and waits no longer than `limit`.
///
/// # Errors
/// When its options cannot be set.
pub fn prepared(stream: TcpStream, limit: Duration) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}
