//! `Response`: what a server may answer.
//!
//! A server appends responses to a connection's output with [`Response::encode`]; a client reads them
//! back with [`decoder::ResponseDecoder`].

pub mod decoder;

use crate::backup::{Records, Restored};
use crate::error::ProtocolError;
use crate::key::Key;
use crate::meta::response::MetaReply;
use crate::text::response::encode_stat;
use crate::token::push_number;

/// One response, or one piece of a response of several: a value of a get, a line of the statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response<'a> {
    /// `VALUE`, one item of a get.
    Value(Value<'a>),
    /// `END`: no more values, no more statistics, no more slices of a backup.
    End,
    /// `STORED`.
    Stored,
    /// `NOT_STORED`: the condition of an add, replace, append or prepend is not met.
    NotStored,
    /// `EXISTS`: the cas does not match.
    Exists,
    /// `NOT_FOUND`.
    NotFound,
    /// `DELETED`.
    Deleted,
    /// `TOUCHED`.
    Touched,
    /// `OK`: `flush_all`, `verbosity`.
    Ok,
    /// `RESET`: `stats reset`.
    Reset,
    /// The new number, of `incr` or `decr`.
    Number(u64),
    /// `VERSION`.
    Version {
        /// The version, such as `1.6.45`.
        version: &'a [u8],
    },
    /// `STAT`, one line of the statistics.
    Stat {
        /// Its name: one token.
        name: &'a [u8],
        /// Its value: the rest of the line.
        value: &'a [u8],
    },
    /// `CONFIG`: `config get`. An `END` follows.
    Config(Config<'a>),
    /// `RECORDS`, a slice of a backup.
    Records(Records<'a>),
    /// `RESTORED`: `restore`.
    Restored(Restored),
    /// A meta response.
    Meta(MetaReply<'a>),
    /// `MN`.
    MetaNoop,
    /// `ME`: what `me` found out.
    MetaDebug {
        /// The key, as it was asked for.
        key: &'a [u8],
        /// `name=value` pairs, separated by spaces.
        facts: &'a [u8],
    },
    /// `ERROR`, `CLIENT_ERROR` or `SERVER_ERROR`.
    Error(ErrorLine<'a>),
}

/// One item of a get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// The item.
    pub key: Key<'a>,
    /// What the client stored with it.
    pub client_flags: u32,
    /// Its cas, for `gets` and `gats`.
    pub cas: Option<u64>,
    /// The value.
    pub data: &'a [u8],
}

/// A list that was asked for with `config get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config<'a> {
    /// Which.
    pub name: &'a [u8],
    /// The list.
    pub data: &'a [u8],
}

/// An error as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorLine<'a> {
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// What follows the kind; may be empty.
    pub message: &'a [u8],
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// `ERROR`: the command is not known.
    Unknown,
    /// `CLIENT_ERROR`: the request is malformed.
    Client,
    /// `SERVER_ERROR`: the server cannot carry it out.
    Server,
    /// `MEMLIMIT_TOO_SMALL`: `cache_memlimit` with too small a number.
    MemoryLimitTooSmall,
    /// `MEMLIMIT_ADJUST_FAILED`: `cache_memlimit` with a number that cannot be meant.
    MemoryLimitAdjustFailed,
}

impl ErrorKind {
    /// Every kind.
    pub(crate) const ALL: [Self; 5] = [
        Self::Unknown,
        Self::Client,
        Self::Server,
        Self::MemoryLimitTooSmall,
        Self::MemoryLimitAdjustFailed,
    ];

    /// The word the line begins with.
    pub(crate) const fn word(self) -> &'static [u8] {
        match self {
            Self::Unknown => b"ERROR",
            Self::Client => b"CLIENT_ERROR",
            Self::Server => b"SERVER_ERROR",
            Self::MemoryLimitTooSmall => b"MEMLIMIT_TOO_SMALL",
            Self::MemoryLimitAdjustFailed => b"MEMLIMIT_ADJUST_FAILED",
        }
    }
}

impl Response<'_> {
    /// Appends the response.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let line: &[u8] = match self {
            Self::Value(value) => return value.encode(out),
            Self::Config(config) => return config.encode(out),
            Self::Records(records) => return records.encode(out),
            Self::Restored(restored) => return restored.encode(out),
            Self::Meta(reply) => return reply.encode(out),
            Self::Error(error) => return error.encode(out),
            Self::Stat { name, value } => return encode_stat(out, name, value),
            Self::Version { version } => return encode_words(out, &[b"VERSION", version]),
            Self::MetaDebug { key, facts } => return encode_words(out, &[b"ME", key, facts]),
            Self::Number(number) => {
                push_number(out, *number);
                b"\r\n"
            }
            Self::End => b"END\r\n",
            Self::Stored => b"STORED\r\n",
            Self::NotStored => b"NOT_STORED\r\n",
            Self::Exists => b"EXISTS\r\n",
            Self::NotFound => b"NOT_FOUND\r\n",
            Self::Deleted => b"DELETED\r\n",
            Self::Touched => b"TOUCHED\r\n",
            Self::Ok => b"OK\r\n",
            Self::Reset => b"RESET\r\n",
            Self::MetaNoop => b"MN\r\n",
        };
        out.extend_from_slice(line);
    }
}

fn encode_words(out: &mut Vec<u8>, words: &[&[u8]]) {
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
    out.extend_from_slice(b"\r\n");
}

impl From<ProtocolError> for ErrorLine<'static> {
    /// The error as it stands on the wire. One that is answered with nothing is `ERROR` here.
    fn from(error: ProtocolError) -> Self {
        let line = error.line().trim_end_matches("\r\n").as_bytes();
        for kind in ErrorKind::ALL {
            if let Some([b' ', message @ ..]) = line.strip_prefix(kind.word()) {
                return Self { kind, message };
            }
        }
        Self { kind: ErrorKind::Unknown, message: b"" }
    }
}
