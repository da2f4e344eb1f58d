//! `ProtocolError`: what can be wrong with a request, and how each is answered.
//!
//! The lines are memcached's, byte for byte: clients compare them. Where memcached closes the
//! connection, [`ProtocolError::closes`] says so; everywhere else the connection stays usable and
//! the decoder has already skipped what belongs to the bad request.

use std::fmt;

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProtocolError {
    /// No such command.
    UnknownCommand,
    /// A command has too few arguments or a malformed one: a key over 250 bytes, a number that is none, a
    /// negative length. Also a line of less than two bytes.
    BadCommandLine,
    /// The data block does not end in `\r\n` where the announced length says.
    BadDataChunk,
    /// The expiry of `touch`, `gat`, `gats` or the delay of `flush_all` is no number.
    InvalidExptime,
    /// The delta of `incr` or `decr` is no number.
    InvalidDelta,
    /// The item holds something other than a decimal number: `incr`, `decr` and `ma` leave it be.
    NonNumericValue,
    /// A meta command carries the same flag twice.
    DuplicateFlag,
    /// A meta command carries a flag that no meta command has.
    InvalidFlag,
    /// The key or a flag of `ma` cannot be read: memcached has one line for all its reasons.
    InvalidOrDuplicateFlag,
    /// The number of a meta flag (`T N R C E F`) is none.
    BadToken,
    /// More flags than a meta command may carry.
    TooManyFlags,
    /// The opaque of a meta command is longer than 32 bytes, its `O` included.
    OpaqueTooLong,
    /// Flag `M` of `ms` names no mode.
    InvalidModeSet,
    /// Flag `M` of `ma` names no mode.
    InvalidModeArithmetic,
    /// Flag `b`, and the key is no base64.
    KeyNotBase64,
    /// Flag `J` of `ma` is not followed by a number.
    InvalidInitial,
    /// Flag `D` of `ma` is not followed by a number.
    InvalidMetaDelta,
    /// The value is larger than the server stores (`-I`).
    TooLarge,
    /// No memory for the value, nor for a buffer to receive it in.
    OutOfMemoryStoring,
    /// No memory to carry out `incr`, `decr` or `ma`.
    OutOfMemory,
    /// `cache_memlimit` with less than memcached takes.
    MemoryLimitTooSmall,
    /// `cache_memlimit` with a number that must have been meant as bytes.
    MemoryLimitTooLarge,
    /// `flush_all` on a server whose operator has forbidden it (`-F`).
    FlushNotAllowed,
    /// `shutdown` with a word that is no way to stop.
    InvalidShutdownMode,
    /// The server sheds load; the request may be tried again.
    Busy,
    /// The line has no end within its limit. Nothing is answered; the connection closes.
    LineTooLong,
    /// What should be a binary request does not begin as one. Nothing is answered; the connection
    /// closes.
    BadMagic,
    /// The extras and the key of a binary request are longer than its body. The connection closes.
    BadFrameLengths,
    /// A binary request has parts that its command does not take, or lacks one, or its key is over
    /// 250 bytes. The connection closes.
    BadFrame,
    /// The client of a binary connection must authenticate first. The connection closes.
    NotAuthenticated,
    /// The first line of an HTTP request. Nothing is answered; the connection closes.
    NotOurProtocol,
}

impl ProtocolError {
    /// Every error, for tables and tests.
    pub const ALL: [Self; 31] = [
        Self::UnknownCommand,
        Self::BadCommandLine,
        Self::BadDataChunk,
        Self::InvalidExptime,
        Self::InvalidDelta,
        Self::NonNumericValue,
        Self::DuplicateFlag,
        Self::InvalidFlag,
        Self::InvalidOrDuplicateFlag,
        Self::BadToken,
        Self::TooManyFlags,
        Self::OpaqueTooLong,
        Self::InvalidModeSet,
        Self::InvalidModeArithmetic,
        Self::KeyNotBase64,
        Self::InvalidInitial,
        Self::InvalidMetaDelta,
        Self::TooLarge,
        Self::OutOfMemoryStoring,
        Self::OutOfMemory,
        Self::MemoryLimitTooSmall,
        Self::MemoryLimitTooLarge,
        Self::FlushNotAllowed,
        Self::InvalidShutdownMode,
        Self::Busy,
        Self::LineTooLong,
        Self::BadMagic,
        Self::BadFrameLengths,
        Self::BadFrame,
        Self::NotAuthenticated,
        Self::NotOurProtocol,
    ];

    /// The line to answer, its `\r\n` included; empty when nothing is answered, or no line: a binary
    /// request is answered with a [`Status`](crate::binary::response::Status).
    pub const fn line(self) -> &'static str {
        match self {
            Self::UnknownCommand => "ERROR\r\n",
            Self::BadCommandLine => "CLIENT_ERROR bad command line format\r\n",
            Self::BadDataChunk => "CLIENT_ERROR bad data chunk\r\n",
            Self::InvalidExptime => "CLIENT_ERROR invalid exptime argument\r\n",
            Self::InvalidDelta => "CLIENT_ERROR invalid numeric delta argument\r\n",
            Self::NonNumericValue => {
                "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
            }
            Self::DuplicateFlag => "CLIENT_ERROR duplicate flag\r\n",
            Self::InvalidFlag => "CLIENT_ERROR invalid flag\r\n",
            Self::InvalidOrDuplicateFlag => "CLIENT_ERROR invalid or duplicate flag\r\n",
            Self::BadToken => "CLIENT_ERROR bad token in command line format\r\n",
            Self::TooManyFlags => "CLIENT_ERROR options flags are too long\r\n",
            Self::OpaqueTooLong => "CLIENT_ERROR opaque token too long\r\n",
            Self::InvalidModeSet => "CLIENT_ERROR invalid mode for ms M token\r\n",
            Self::InvalidModeArithmetic => "CLIENT_ERROR invalid mode for ma M token\r\n",
            Self::KeyNotBase64 => "CLIENT_ERROR error decoding key\r\n",
            Self::InvalidInitial => "CLIENT_ERROR invalid numeric initial value\r\n",
            Self::InvalidMetaDelta => "CLIENT_ERROR invalid numeric delta value\r\n",
            Self::TooLarge => "SERVER_ERROR object too large for cache\r\n",
            Self::OutOfMemoryStoring => "SERVER_ERROR out of memory storing object\r\n",
            Self::OutOfMemory => "SERVER_ERROR out of memory\r\n",
            Self::MemoryLimitTooSmall => {
                "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n"
            }
            Self::MemoryLimitTooLarge => {
                "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n"
            }
            Self::FlushNotAllowed => "CLIENT_ERROR flush_all not allowed\r\n",
            Self::InvalidShutdownMode => "CLIENT_ERROR invalid shutdown mode\r\n",
            Self::Busy => "SERVER_ERROR busy\r\n",
            Self::LineTooLong
            | Self::NotOurProtocol
            | Self::BadMagic
            | Self::BadFrameLengths
            | Self::BadFrame
            | Self::NotAuthenticated => "",
        }
    }

    /// Whether the connection closes once the line, if any, is sent.
    pub const fn closes(self) -> bool {
        matches!(
            self,
            Self::LineTooLong
                | Self::NotOurProtocol
                | Self::BadMagic
                | Self::BadFrameLengths
                | Self::BadFrame
                | Self::NotAuthenticated
        )
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineTooLong => f.write_str("the line has no end within its limit"),
            Self::BadMagic => f.write_str("no binary request begins like this"),
            Self::BadFrameLengths => f.write_str("extras and key are longer than the body"),
            Self::BadFrame => f.write_str("the command does not take these parts"),
            Self::NotAuthenticated => f.write_str("the client must authenticate first"),
            Self::NotOurProtocol => f.write_str("the line is one of HTTP"),
            error => f.write_str(error.line().trim_end()),
        }
    }
}

impl std::error::Error for ProtocolError {}
