//! A client that asks what the model asks, in the classic protocol or in the meta commands.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::connection::Connection;
use crate::model::{Answer, Direction, Request, Rule, Side};

/// In which words a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `get`, `set` and so on.
    Classic,
    /// `mg`, `ms` and so on; what has no meta command is asked in the classic words.
    Meta,
}

impl Dialect {
    /// Appends `request` as it is sent.
    pub fn write(self, request: &Request, bytes: &mut Vec<u8>) {
        match self {
            Self::Classic => write_classic(request, bytes),
            Self::Meta => write_meta(request, bytes),
        }
    }
}

/// One connection that asks and waits for the answer.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
}

impl Client {
    /// Connects to the server at `address`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        Connection::open(address).map(|connection| Self { connection })
    }

    /// Connects to the server at `address`, and waits no longer than `limit` for that and for each answer.
    ///
    /// # Errors
    /// When nobody listens there, or the system there is as good as gone.
    pub fn open_within(address: SocketAddr, limit: Duration) -> io::Result<Self> {
        Connection::open_within(address, limit).map(|connection| Self { connection })
    }

    /// Asks `request` in `dialect` and reads its answer.
    ///
    /// # Errors
    /// When the connection ends, or the answer is none the protocol knows: an error line included.
    pub fn ask(&mut self, request: &Request, dialect: Dialect) -> io::Result<Answer> {
        self.send(std::slice::from_ref(request), dialect)?;
        self.receive()
    }

    /// Asks `requests`, all at once, without waiting for answers: as many are to be [received].
    ///
    /// # Errors
    /// When the other side is gone or does not read.
    ///
    /// [received]: Self::receive
    pub fn send(&mut self, requests: &[Request], dialect: Dialect) -> io::Result<()> {
        let mut bytes = Vec::new();
        requests.iter().for_each(|request| dialect.write(request, &mut bytes));
        self.send_bytes(&bytes)
    }

    /// Sends what a client may send, or should not.
    ///
    /// # Errors
    /// When the other side is gone or does not read.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.connection.send(bytes)
    }

    /// Reads all of `keys` with one request: a value or a miss for each.
    ///
    /// # Errors
    /// When the connection ends, or what comes is no answer: an error line is [`Refused`].
    pub fn get_many(&mut self, keys: &[Vec<u8>]) -> io::Result<Vec<Answer>> {
        let mut bytes = Vec::new();
        let words: Vec<&[u8]> =
            std::iter::once(&b"gets"[..]).chain(keys.iter().map(Vec::as_slice)).collect();
        write_line(&mut bytes, &words);
        self.connection.send(&bytes)?;
        let mut answers = vec![Answer::Missing; keys.len()];
        loop {
            let line = self.line()?;
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["VALUE", key, flags, len, cas] => {
                    let value = self.connection.receive_block(number(len)?)?;
                    let (flags, cas) = (number(flags)?, number(cas)?);
                    let place = keys.iter().position(|wanted| wanted == key.as_bytes());
                    let place = place.ok_or_else(|| unexpected(&line))?;
                    answers[place] = Answer::Value { value, flags, cas };
                }
                ["END"] => return Ok(answers),
                _ => return Err(unexpected(&line)),
            }
        }
    }

    /// Reads the answer to the first of the requests sent that has none yet.
    ///
    /// # Errors
    /// When the connection ends, or the answer is none the protocol knows. An error line is [`Refused`], and
    /// the next answer can be read.
    pub fn receive(&mut self) -> io::Result<Answer> {
        let line = self.line()?;
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["VALUE", _key, flags, len, cas] => {
                let value = self.connection.receive_block(number(len)?)?;
                match self.line()?.as_str() {
                    "END" => Ok(Answer::Value { value, flags: number(flags)?, cas: number(cas)? }),
                    other => Err(unexpected(other)),
                }
            }
            ["VA", len, rest @ ..] => {
                let value = self.connection.receive_block(number(len)?)?;
                match rest {
                    [flags, cas] => Ok(Answer::Value {
                        value,
                        flags: number(flags.trim_start_matches('f'))?,
                        cas: number(cas.trim_start_matches('c'))?,
                    }),
                    [] => Ok(Answer::Number(number(&String::from_utf8_lossy(&value))?)),
                    _ => Err(unexpected(&line)),
                }
            }
            ["STORED" | "DELETED" | "TOUCHED" | "OK" | "HD"] => Ok(Answer::Done),
            ["NOT_STORED" | "NS"] => Ok(Answer::NotStored),
            ["EXISTS" | "EX"] => Ok(Answer::Exists),
            ["END" | "NOT_FOUND" | "EN" | "NF"] => Ok(Answer::Missing),
            ["CLIENT_ERROR", "cannot", "increment", "or", "decrement", "non-numeric", "value"] => {
                Ok(Answer::NotANumber)
            }
            [digits] => number(digits).map(Answer::Number),
            _ => Err(unexpected(&line)),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let line = self.connection.receive_line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        String::from_utf8(line).map_err(io::Error::other)
    }
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| unexpected(text))
}

fn unexpected(text: &str) -> io::Error {
    let is_error =
        ["ERROR", "CLIENT_ERROR ", "SERVER_ERROR "].iter().any(|word| text.starts_with(word));
    match is_error {
        true => io::Error::other(Refused(text.to_owned())),
        false => io::Error::other(format!("unexpected: {text}")),
    }
}

/// An error line instead of an answer. It is inside of an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("refused: {0}")]
pub struct Refused(pub String);

impl Refused {
    /// The error line that `error` is, if it is one.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

fn write_classic(request: &Request, bytes: &mut Vec<u8>) {
    match request {
        Request::Get { key } => write_line(bytes, &[b"gets", key]),
        Request::Put { key, rule, value, flags, ttl_s } => {
            let (flags, ttl_s, len) = (text(*flags), text(*ttl_s), text(value.len()));
            let command: &[u8] = match rule {
                Rule::Always => b"set",
                Rule::IfAbsent => b"add",
                Rule::IfPresent => b"replace",
                Rule::IfCas(_) => b"cas",
            };
            let cas = if let Rule::IfCas(cas) = rule { text(*cas) } else { Vec::new() };
            write_line(bytes, &[command, key, &flags, &ttl_s, &len, &cas]);
            write_block(bytes, value);
        }
        Request::Extend { key, side, value } => {
            let command: &[u8] = match side {
                Side::Front => b"prepend",
                Side::Back => b"append",
            };
            write_line(bytes, &[command, key, b"0", b"0", &text(value.len())]);
            write_block(bytes, value);
        }
        Request::Count { key, direction, delta } => {
            let command: &[u8] = match direction {
                Direction::Up => b"incr",
                Direction::Down => b"decr",
            };
            write_line(bytes, &[command, key, &text(*delta)]);
        }
        Request::Delete { key } => write_line(bytes, &[b"delete", key]),
        Request::Touch { key, ttl_s } => write_line(bytes, &[b"touch", key, &text(*ttl_s)]),
        Request::FlushAll => write_line(bytes, &[b"flush_all"]),
    }
}

fn write_meta(request: &Request, bytes: &mut Vec<u8>) {
    match request {
        Request::Get { key } => write_line(bytes, &[b"mg", key, b"v", b"f", b"c"]),
        Request::Put { key, rule, value, flags, ttl_s } => {
            let rule = match rule {
                Rule::Always => b"MS".to_vec(),
                Rule::IfAbsent => b"ME".to_vec(),
                Rule::IfPresent => b"MR".to_vec(),
                Rule::IfCas(cas) => format!("C{cas}").into_bytes(),
            };
            let (flags, ttl_s) = (format!("F{flags}"), format!("T{ttl_s}"));
            let len = text(value.len());
            write_line(bytes, &[b"ms", key, &len, flags.as_bytes(), ttl_s.as_bytes(), &rule]);
            write_block(bytes, value);
        }
        Request::Extend { key, side, value } => {
            let mode: &[u8] = match side {
                Side::Front => b"MP",
                Side::Back => b"MA",
            };
            write_line(bytes, &[b"ms", key, &text(value.len()), mode]);
            write_block(bytes, value);
        }
        Request::Count { key, direction, delta } => {
            let mode: &[u8] = match direction {
                Direction::Up => b"MI",
                Direction::Down => b"MD",
            };
            write_line(bytes, &[b"ma", key, mode, format!("D{delta}").as_bytes(), b"v"]);
        }
        Request::Delete { key } => write_line(bytes, &[b"md", key]),
        Request::Touch { key, ttl_s } => {
            write_line(bytes, &[b"mg", key, format!("T{ttl_s}").as_bytes()]);
        }
        Request::FlushAll => write_classic(request, bytes),
    }
}

fn text(number: impl ToString) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// The words that are not empty, with a space between them.
fn write_line(bytes: &mut Vec<u8>, words: &[&[u8]]) {
    let words: Vec<&[u8]> = words.iter().copied().filter(|word| !word.is_empty()).collect();
    bytes.extend_from_slice(&words.join(&b' '));
    bytes.extend_from_slice(b"\r\n");
}

fn write_block(bytes: &mut Vec<u8>, value: &[u8]) {
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(b"\r\n");
}
