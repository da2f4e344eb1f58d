//! One client connection: bytes out, lines and blocks in.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take, unless said otherwise.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(10);

const LINE_END: &[u8] = b"\r\n";

/// A connection with what has arrived and was not read yet.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
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

    fn waiting(stream: TcpStream, limit: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Self { stream, received: Vec::new(), limit })
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

    /// Reads what has arrived; `false` at the end of the connection.
    fn receive_more(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 64 * 1024];
        let count = match self.stream.read(&mut buffer) {
            // A server that closes with input unread resets the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
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
