//! One conversation with a server, a question at a time: for replaying a trace in its order, and
//! for asking a server about itself.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::clock;
use crate::wire::{Reply, WireError, next_reply};

/// How long a server may be silent while an answer is due.
const SILENCE_MAX: Duration = Duration::from_secs(10);
const INPUT_BYTES: usize = 64 * 1024;
/// Failed reads between two looks at the clock.
const SPINS_PER_LOOK: u32 = 1024;

/// Why a conversation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The socket failed.
    #[error("the connection to {server} failed")]
    Io {
        /// Who was spoken to.
        server: SocketAddr,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The server closed the connection while an answer was due.
    #[error("{0} closed the connection while an answer was due")]
    Closed(SocketAddr),
    /// Nothing came for too long.
    #[error("{0} was silent for {SILENCE_MAX:?} while an answer was due")]
    Silent(SocketAddr),
    /// The server's bytes are no reply.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A reply that does not fit the question.
    #[error("the server answered '{question}' with '{answer}'")]
    Mismatch {
        /// What was asked.
        question: &'static str,
        /// What came.
        answer: String,
    },
}

/// One conversation with a server.
#[derive(Debug)]
pub struct Session {
    server: SocketAddr,
    stream: TcpStream,
    output: Vec<u8>,
    output_sent: usize,
    input: Vec<u8>,
    input_start: usize,
    input_end: usize,
}

impl Session {
    /// Connects to `server`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(server: SocketAddr) -> Result<Self, SessionError> {
        let open = || {
            let stream = TcpStream::connect_timeout(&server, SILENCE_MAX)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        Ok(Self {
            server,
            stream: open().map_err(|source| SessionError::Io { server, source })?,
            output: Vec::new(),
            output_sent: 0,
            input: vec![0; INPUT_BYTES],
            input_start: 0,
            input_end: 0,
        })
    }

    /// Where to append requests; they leave when an answer is waited for.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Waits for the next reply and hands it to `take`.
    ///
    /// # Errors
    /// When the connection ends, stays silent, or carries what is no reply.
    pub fn reply<T>(&mut self, take: impl FnOnce(&Reply<'_>) -> T) -> Result<T, SessionError> {
        let mut silent_since = None;
        loop {
            let input = &self.input[self.input_start..self.input_end];
            if let Some((reply, bytes)) = next_reply(input)? {
                let taken = take(&reply);
                self.input_start += bytes;
                return Ok(taken);
            }
            self.exchange(&mut silent_since)?;
        }
    }

    /// The server's version, as it answers `version`.
    ///
    /// # Errors
    /// When the connection ends or the answer is no version.
    pub fn version(&mut self) -> Result<String, SessionError> {
        self.output.extend_from_slice(b"version\r\n");
        let line = self.reply(|reply| reply.describe())?;
        match line.strip_prefix("VERSION ") {
            Some(version) => Ok(version.to_owned()),
            None => Err(SessionError::Mismatch { question: "version", answer: line }),
        }
    }

    /// The server's general-purpose statistics, by name.
    ///
    /// # Errors
    /// When the connection ends or a line is no statistic.
    pub fn stats(&mut self) -> Result<HashMap<String, String>, SessionError> {
        self.output.extend_from_slice(b"stats\r\n");
        self.read_stats()
    }

    /// What became of the memory file at the start; nothing from a server that does not tell.
    ///
    /// # Errors
    /// When the connection ends or the answer makes no sense.
    pub fn restore_stats(&mut self) -> Result<HashMap<String, String>, SessionError> {
        self.output.extend_from_slice(b"stats restore\r\n");
        match self.read_stats() {
            Err(SessionError::Mismatch { answer, .. }) if answer.starts_with("ERROR") => {
                Ok(HashMap::new())
            }
            told => told,
        }
    }

    fn read_stats(&mut self) -> Result<HashMap<String, String>, SessionError> {
        let mut stats = HashMap::new();
        loop {
            let line = self.reply(|reply| reply.describe())?;
            if line == "END" {
                return Ok(stats);
            }
            let mut fields = line.splitn(3, ' ');
            let (Some("STAT"), Some(name), Some(value)) =
                (fields.next(), fields.next(), fields.next())
            else {
                return Err(SessionError::Mismatch { question: "stats", answer: line });
            };
            stats.insert(name.to_owned(), value.to_owned());
        }
    }

    /// How many items the server holds.
    ///
    /// # Errors
    /// When the connection ends or the server does not say.
    pub fn items(&mut self) -> Result<u64, SessionError> {
        let items = self.stats()?.remove("curr_items").unwrap_or_default();
        items.parse().map_err(|_| SessionError::Mismatch {
            question: "stats",
            answer: format!("curr_items '{items}'"),
        })
    }

    /// As [`Self::version`], of a Redis server.
    ///
    /// # Errors
    /// When the connection ends or the answer has no version.
    pub fn redis_version(&mut self) -> Result<String, SessionError> {
        self.redis_info("server", "redis_version:")?.ok_or_else(|| SessionError::Mismatch {
            question: "INFO server",
            answer: "nothing about redis_version".to_owned(),
        })
    }

    /// As [`Self::items`], of a Redis server.
    ///
    /// # Errors
    /// When the connection ends or the answer makes no sense.
    pub fn redis_items(&mut self) -> Result<u64, SessionError> {
        // A server without keys has no line about them.
        let Some(line) = self.redis_info("keyspace", "db0:keys=")? else { return Ok(0) };
        let keys = line.split_once(',').map_or(line.as_str(), |(keys, _)| keys);
        keys.parse().map_err(|_| SessionError::Mismatch {
            question: "INFO keyspace",
            answer: format!("db0:keys='{line}'"),
        })
    }

    /// What stands behind `name` in a section of Redis's `INFO`.
    fn redis_info(
        &mut self,
        section: &'static str,
        name: &str,
    ) -> Result<Option<String>, SessionError> {
        self.output.extend_from_slice(format!("INFO {section}\r\n").as_bytes());
        self.reply(|reply| match reply {
            Reply::Bulk(info) => {
                let info = String::from_utf8_lossy(info);
                let line = info.lines().find_map(|line| line.strip_prefix(name));
                Ok(line.map(str::to_owned))
            }
            other => Err(SessionError::Mismatch { question: "INFO", answer: other.describe() }),
        })?
    }

    /// Sends what can be sent and receives what has come.
    ///
    /// It spins instead of sleeping: on loopback the answer is there sooner than a sleeper would be
    /// woken, and a trace is replayed one round trip after the other.
    fn exchange(&mut self, silent_since: &mut Option<Instant>) -> Result<(), SessionError> {
        let server = self.server;
        let failed = |source| SessionError::Io { server, source };
        for _ in 0..SPINS_PER_LOOK {
            if self.output_sent < self.output.len() {
                match self.stream.write(&self.output[self.output_sent..]) {
                    Ok(bytes) => self.output_sent += bytes,
                    Err(error) if is_transient(&error) => {}
                    Err(error) => return Err(failed(error)),
                }
                if self.output_sent == self.output.len() {
                    self.output.clear();
                    self.output_sent = 0;
                }
            }
            self.make_room();
            match self.stream.read(&mut self.input[self.input_end..]) {
                Ok(0) => return Err(SessionError::Closed(server)),
                Ok(bytes) => {
                    self.input_end += bytes;
                    return Ok(());
                }
                Err(error) if is_transient(&error) => std::thread::yield_now(),
                Err(error) => return Err(failed(error)),
            }
        }
        let now = clock::now();
        let since = *silent_since.get_or_insert(now);
        if now - since > SILENCE_MAX { Err(SessionError::Silent(server)) } else { Ok(()) }
    }

    fn make_room(&mut self) {
        if self.input_start == self.input_end {
            self.input_start = 0;
            self.input_end = 0;
        } else if self.input_end == self.input.len() {
            self.input.copy_within(self.input_start..self.input_end, 0);
            self.input_end -= self.input_start;
            self.input_start = 0;
            if self.input_end == self.input.len() {
                self.input.resize(2 * self.input.len(), 0);
            }
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
