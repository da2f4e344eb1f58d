//! A connection to a server: one request out, its answer in.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::{fmt, thread};

use protocol::backup::{Backup, CacheId, Cursor, Items, Records, Restore, Restored};
use protocol::response::ErrorKind;
use protocol::response::decoder::ResponseError;
use protocol::token::Tokens;
use protocol::{Request, Response, ResponseDecoder, ResponseLimits, ResponseStep};

/// The port of an address that names none.
const PORT_DEFAULT: u16 = 11211;
/// What one read takes at most, where no more is known to come.
const READ_BYTES: usize = 64 << 10;
/// The pause before each slice but the first: a slice takes some hundred microseconds of the server's.
const SLICE_PAUSE: Duration = Duration::from_micros(500);
/// A slice that is one item of the largest size there is, and what stands around it.
const LIMITS: ResponseLimits =
    ResponseLimits { value_bytes_max: (1 << 30) + 4096, line_bytes_max: 1 << 16 };

/// What to do with a server did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Nobody can be reached at that address.
    #[error("cannot connect to {address}")]
    Connect {
        /// The address as it was given.
        address: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// It let too much time pass.
    #[error("the server does not answer within {} s", timeout.as_secs_f64())]
    Timeout {
        /// How long it may take.
        timeout: Duration,
    },
    /// The connection failed.
    #[error("the connection to the server failed")]
    Connection(#[source] io::Error),
    /// It closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// It talks nonsense.
    #[error(transparent)]
    Malformed(#[from] ResponseError),
    /// It sent items that are none.
    #[error("the server sent a slice that cannot be read")]
    Items(#[from] protocol::backup::ItemError),
    /// It does not know what it is asked for.
    #[error("the server does not know `{command}`: it is another one, or an older one")]
    Unknown {
        /// The first word of the request.
        command: &'static str,
    },
    /// It refuses.
    #[error("the server refuses: {line}")]
    Refused {
        /// Its words.
        line: String,
    },
    /// It answers something that is no answer to the question.
    #[error("the server answers `{command}` with something else")]
    Unexpected {
        /// The first word of the request.
        command: &'static str,
    },
    /// It does not say of itself what a server of this project says.
    #[error("the server tells no {name}: it is another one, or an older one")]
    Untold {
        /// The statistic that is missing.
        name: &'static str,
    },
}

/// Bytes in both directions.
trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// A connection to a server.
pub struct Connection {
    stream: Box<dyn Stream>,
    timeout: Duration,
    /// What has arrived; the first `done` bytes are done with.
    received: Vec<u8>,
    done: usize,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// What a server says of itself that a backup is to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The cache that its items belong to.
    pub cache_id: CacheId,
    /// Its version.
    pub version: String,
    /// Items it holds, roughly: expired ones may be among them.
    pub items: u64,
    /// Its clock, in seconds since the start of 1970.
    pub unix_s: u64,
}

/// What a server said to a `restore`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreAnswer {
    /// It went through the items.
    Done(Restored),
    /// The items together are more than it takes at once: one of them is larger than it stores.
    TooLarge,
}

impl Connection {
    /// Connects to `address`: HOST:PORT, HOST, or the path of a UNIX socket, which has a slash in it.
    /// `timeout` is how long the server may take for anything.
    ///
    /// # Errors
    ///
    /// When nobody listens there.
    pub fn open(address: &str, timeout: Duration) -> Result<Self, ServerError> {
        let stream = connect(address, timeout)
            .map_err(|source| ServerError::Connect { address: address.to_owned(), source })?;
        Ok(Self { stream, timeout, received: Vec::new(), done: 0 })
    }

    /// Asks what a backup is to know of the server.
    ///
    /// # Errors
    ///
    /// When it does not answer, or is no server of this project.
    pub fn facts(&mut self) -> Result<Facts, ServerError> {
        let mut cache_id = None;
        let mut version = None;
        self.stats(b"server", |name, value| match name {
            b"cache_id" => cache_id = CacheId::parse(value),
            b"server_version" => version = Some(String::from_utf8_lossy(value).into_owned()),
            _ => {}
        })?;
        let (mut items, mut unix_s) = (None, None);
        let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
        self.stats(b"", |name, value| match name {
            b"curr_items" => items = number(value),
            b"time" => unix_s = number(value),
            _ => {}
        })?;
        let untold = |name| ServerError::Untold { name };
        Ok(Facts {
            cache_id: cache_id.ok_or_else(|| untold("cache_id"))?,
            version: version.ok_or_else(|| untold("server_version"))?,
            items: items.ok_or_else(|| untold("curr_items"))?,
            unix_s: unix_s.ok_or_else(|| untold("time"))?,
        })
    }

    /// Asks for the statistics of `topic`, and tells `tell` the name and value of each.
    ///
    /// # Errors
    ///
    /// When the server does not answer, or knows no such topic.
    pub fn stats(
        &mut self,
        topic: &[u8],
        mut tell: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), ServerError> {
        self.send(&Request::Stats { arguments: Tokens::new(topic) })?;
        loop {
            match self.receive("stats")? {
                Response::Stat { name, value } => tell(name, value),
                Response::End => return Ok(()),
                _ => return Err(ServerError::Unexpected { command: "stats" }),
            }
        }
    }

    /// Asks for the slice of a backup at `cursor`: where the next one begins, and the items. `None`
    /// at the end.
    ///
    /// # Errors
    ///
    /// When the server does not answer, or not with items.
    pub fn slice(
        &mut self,
        cursor: Cursor,
        prefix: &[u8],
    ) -> Result<Option<(Cursor, Items<'_>)>, ServerError> {
        // Clients come first: at full speed a backup would take half of a core from them.
        if cursor != Cursor::default() {
            thread::park_timeout(SLICE_PAUSE);
        }
        self.send(&Request::Backup(Backup { cursor, prefix }))?;
        match self.receive("backup")? {
            Response::Records(Records { next, data }) => Ok(Some((next, Items::new(data)?))),
            Response::End => Ok(None),
            _ => Err(ServerError::Unexpected { command: "backup" }),
        }
    }

    /// Has the server put items back.
    ///
    /// # Errors
    ///
    /// When it does not answer, or refuses all of them for another reason than their size.
    pub fn restore(&mut self, restore: Restore<'_>) -> Result<RestoreAnswer, ServerError> {
        self.send(&Request::Restore(restore))?;
        match self.receive("restore") {
            Ok(Response::Restored(restored)) => Ok(RestoreAnswer::Done(restored)),
            Ok(_) => Err(ServerError::Unexpected { command: "restore" }),
            Err(ServerError::Refused { line }) if line.contains("too large") => {
                Ok(RestoreAnswer::TooLarge)
            }
            Err(error) => Err(error),
        }
    }

    fn send(&mut self, request: &Request<'_>) -> Result<(), ServerError> {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        self.stream.write_all(&bytes).map_err(|error| self.failure(error))
    }

    /// The next response; an error that the server answers is one here.
    fn receive(&mut self, command: &'static str) -> Result<Response<'_>, ServerError> {
        self.received.drain(..self.done);
        self.done = 0;
        let mut decoder = ResponseDecoder::new(LIMITS);
        loop {
            match decoder.decode(&self.received) {
                ResponseStep::More { wanted } => self.receive_more(wanted)?,
                ResponseStep::Response { consumed, .. } => {
                    self.done = consumed;
                    break;
                }
                ResponseStep::Malformed(error) => return Err(error.into()),
            }
        }
        // Read once more, where nothing changes what it borrows from.
        match decoder.decode(&self.received[..self.done]) {
            ResponseStep::Response { response: Response::Error(error), .. } => {
                if error.kind == ErrorKind::Unknown {
                    return Err(ServerError::Unknown { command });
                }
                let mut line = Vec::new();
                error.encode(&mut line);
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                Err(ServerError::Refused { line })
            }
            ResponseStep::Response { response, .. } => Ok(response),
            ResponseStep::More { .. } => Err(ServerError::Unexpected { command }),
            ResponseStep::Malformed(error) => Err(error.into()),
        }
    }

    /// Reads some more, so that at least `wanted` bytes can be there in the end.
    fn receive_more(&mut self, wanted: usize) -> Result<(), ServerError> {
        let before = self.received.len();
        let room = wanted.saturating_sub(before).max(READ_BYTES);
        // A slice is announced with its length, but its bytes are believed as they come.
        self.received.resize(before + room.min(16 * READ_BYTES), 0);
        let read = loop {
            match self.stream.read(&mut self.received[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.received.truncate(before + read.as_ref().map_or(0, |count| *count));
        match read {
            Ok(0) => Err(ServerError::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(self.failure(error)),
        }
    }

    fn failure(&self, error: io::Error) -> ServerError {
        match error.kind() {
            // Which of the two it is depends on the system.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ServerError::Timeout { timeout: self.timeout }
            }
            _ => ServerError::Connection(error),
        }
    }
}

fn connect(address: &str, timeout: Duration) -> io::Result<Box<dyn Stream>> {
    if address.contains('/') {
        let stream = UnixStream::connect(address)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        return Ok(Box::new(stream));
    }
    // An address without a port is one of IPv6 in brackets, or a name.
    let has_port = address.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && (host.ends_with(']') || !host.contains(':'))
    });
    let resolved: Vec<_> = if has_port {
        address.to_socket_addrs()?.collect()
    } else {
        let host = address.trim_start_matches('[').trim_end_matches(']');
        (host, PORT_DEFAULT).to_socket_addrs()?.collect()
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in resolved {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(Box::new(stream));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A connection to a server that says `answer` to whatever it hears first, and then nothing.
    fn connection(answer: &'static [u8]) -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut heard = [0; 1024];
            let _ = client.read(&mut heard).unwrap();
            client.write_all(answer).unwrap();
        });
        Connection::open(&address, Duration::from_secs(5)).unwrap()
    }

    #[test]
    fn a_server_without_the_command_is_told_from_one_that_refuses() {
        let slice = |answer| connection(answer).slice(Cursor::default(), b"").map(|_| ());
        assert!(matches!(slice(b"ERROR\r\n"), Err(ServerError::Unknown { command: "backup" })));
        let refused = slice(b"SERVER_ERROR busy\r\n");
        assert!(
            matches!(refused, Err(ServerError::Refused { line }) if line == "SERVER_ERROR busy")
        );
        assert!(matches!(slice(b"STORED\r\n"), Err(ServerError::Unexpected { .. })));
        assert!(matches!(slice(b"RECORDS 0 0 0 9\r\n"), Err(ServerError::Closed)));
        assert!(matches!(slice(b"RECORDS 0 0 0 1\r\nx\r\n"), Err(ServerError::Items(_))));
        assert!(matches!(slice(b"END\r\n"), Ok(())));
    }

    #[test]
    fn another_server_tells_no_cache_id() {
        let facts = connection(b"STAT maxbytes 1\r\nEND\r\nSTAT time 5\r\nEND\r\n").facts();
        assert!(matches!(facts, Err(ServerError::Untold { name: "cache_id" })));
    }

    #[test]
    fn a_silent_server_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut connection = Connection::open(&address, Duration::from_millis(20)).unwrap();
        assert!(matches!(connection.facts(), Err(ServerError::Timeout { .. })));
    }
}
