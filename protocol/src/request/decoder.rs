//! `Decoder`: bytes as they arrive into requests, resuming where it stopped.

use crate::error::ProtocolError;
use crate::meta::request::MetaKey;
use crate::request::Request;

/// What a decoder accepts at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest value, in bytes. A longer one is answered with
    /// [`ProtocolError::TooLarge`] and its data is swallowed.
    pub value_bytes_max: usize,
    /// The longest command line, in bytes, its line end included; beyond it the connection closes.
    /// 2,048 as in memcached.
    pub line_bytes_max: usize,
    /// The same for `get`, `gets`, `gat` and `gats`, whose lines may carry many keys. memcached has
    /// no bound here. 1 MiB by default: 4,000 keys of the longest kind, 100,000 short ones.
    pub get_line_bytes_max: usize,
}

impl Default for Limits {
    /// Values up to 1 MiB, lines up to 2,048 bytes, those of gets up to 1 MiB.
    fn default() -> Self {
        Self { value_bytes_max: 1 << 20, line_bytes_max: 2048, get_line_bytes_max: 1 << 20 }
    }
}

/// What one call of [`Decoder::decode`] found.
///
/// In every case the first `consumed` bytes of the input are done with: the next call gets what
/// follows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// There is no whole request yet.
    More {
        /// Bytes of the input to drop: more than 0 only while refused data is being swallowed.
        consumed: usize,
        /// How long the input must become, counted after dropping `consumed`, before another call
        /// can get further. At least 1 more than what is there; exact when a data block is awaited.
        wanted: usize,
    },
    /// A request.
    Request {
        /// Bytes of the input it took up.
        consumed: usize,
        /// The request.
        request: Request<'a>,
    },
    /// Something that is not carried out but answered with an error.
    Refused {
        /// Bytes of the input it took up. Data that belongs to it and has not arrived is swallowed
        /// by later calls.
        consumed: usize,
        /// What to answer.
        refusal: Refusal<'a>,
    },
}

/// A request that is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// Why.
    pub error: ProtocolError,
    /// The client asked for no answer, so there is none. ([`Refusal::line`] heeds it.)
    pub noreply: bool,
    /// An item that must be removed: a `set` or `ms` whose value could not be taken leaves no stale
    /// value behind.
    pub invalidates: Option<MetaKey<'a>>,
}

impl Refusal<'_> {
    /// The line to answer, its `\r\n` included; empty when nothing is to be sent.
    pub const fn line(&self) -> &'static str {
        if self.noreply { "" } else { self.error.line() }
    }

    /// Whether the connection closes once the line, if any, is sent.
    pub const fn closes(&self) -> bool {
        self.error.closes()
    }
}

/// Turns a connection's bytes into requests.
///
/// It owns no input: the caller keeps the bytes and passes all that are not consumed yet, each call
/// the same ones with more behind them. What was looked at before is not looked at again. Requests
/// borrow from the input alone, so several can be decoded first and carried out together.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
}

impl Decoder {
    /// A decoder at the start of a connection.
    pub fn new(limits: Limits) -> Self {
        Self { limits }
    }

    /// Changes the limits, from the next line on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The first request of `input`, or what is missing.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Step<'a> {
        Step::More { consumed: 0, wanted: input.len() + 1 }
    }

    /// How many bytes of input the request whose data is awaited takes up, header and data block
    /// with its line end; `None` when no data is awaited.
    pub fn awaited_bytes(&self) -> Option<usize> {
        None
    }

    /// Refuses the request whose data is awaited: the next [`Decoder::decode`] answers `error`, and
    /// the data is swallowed as it arrives. Without effect when no data is awaited.
    pub fn refuse_data(&mut self, error: ProtocolError) {
        let _ = error;
    }
}
