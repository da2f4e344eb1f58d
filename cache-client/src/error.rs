//! `Error`: why a call failed, and whether its write happened.
//!
//! | error | sent to a server | [`Fate`] of a write |
//! |---|---|---|
//! | [`Error::InvalidKey`], [`Error::TooLarge`], [`Error::Codec`] | no | did not happen |
//! | [`Error::Unreachable`], [`Error::NoRoom`], [`Error::NoServer`] | no | did not happen |
//! | [`Error::Refused`] | yes, and refused | did not happen, unless the server says that it does not know |
//! | [`Error::Lost`] | not its last byte | did not happen |
//! | [`Error::Lost`], [`Error::DeadlinePassed`] | perhaps | unknown |
//!
//! A call that is answered has no error: that nothing was stored since a condition was not met is an outcome
//! ([`Written`](crate::Written)).

use std::sync::Arc;
use std::time::Duration;

use protocol::response::ErrorKind;
use protocol::response::decoder::ResponseError;

use crate::address::Address;
use crate::codec::CodecError;

/// Whether a write whose call failed was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It was not, and will not be.
    DidNotHappen,
    /// It was carried out once, or not at all, or still may be.
    Unknown,
}

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The key cannot be sent.
    #[error(transparent)]
    InvalidKey(#[from] InvalidKey),
    /// The value is longer than this client may send.
    #[error("the value has {bytes} bytes, more than the {bytes_max} that may be sent")]
    TooLarge {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
    /// The value could not be encoded, or what was read is no such value.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// There is no connection to the server, and the last attempt to make one failed.
    #[error("{address} is not reachable")]
    Unreachable {
        /// Which server.
        address: Address,
        /// What went wrong.
        source: ConnectError,
    },
    /// No server is known, or every one is given up for the moment.
    #[error("no server can be asked")]
    NoServer,
    /// As many calls as there may be are under way, and none made room before the deadline.
    #[error("no room for another call on the connection to {address}")]
    NoRoom {
        /// Which server.
        address: Address,
    },
    /// There was no answer in time.
    #[error("{address} did not answer within {after:?}")]
    DeadlinePassed {
        /// Which server.
        address: Address,
        /// How long the call waited.
        after: Duration,
        /// What became of a write.
        fate: Fate,
    },
    /// The connection was lost before the answer came.
    #[error("the connection to {address} was lost")]
    Lost {
        /// Which server.
        address: Address,
        /// Why.
        source: Disconnect,
        /// What became of a write.
        fate: Fate,
    },
    /// The server answered with an error.
    #[error("{address} refused: {source}")]
    Refused {
        /// Which server.
        address: Address,
        /// What it said.
        source: Refusal,
    },
}

impl Error {
    /// Whether the write was carried out. Of a read it says whether the server may have been asked.
    pub fn fate(&self) -> Fate {
        match self {
            Self::DeadlinePassed { fate, .. } | Self::Lost { fate, .. } => *fate,
            Self::Refused { source, .. } => source.fate(),
            Self::InvalidKey(_)
            | Self::TooLarge { .. }
            | Self::Codec(_)
            | Self::Unreachable { .. }
            | Self::NoServer
            | Self::NoRoom { .. } => Fate::DidNotHappen,
        }
    }

    /// Whether the server or the way to it is at fault, so that another attempt may end otherwise. What the
    /// caller got wrong stays wrong.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::InvalidKey(_) | Self::TooLarge { .. } | Self::Codec(_) => false,
            Self::Refused { source, .. } => source.is_transient(),
            Self::Unreachable { .. }
            | Self::NoServer
            | Self::NoRoom { .. }
            | Self::DeadlinePassed { .. }
            | Self::Lost { .. } => true,
        }
    }
}

/// Why a key cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// It has no byte, or too many.
    #[error("a key has 1 to 250 bytes, not {bytes}")]
    Length {
        /// How many it has.
        bytes: usize,
    },
    /// It holds a byte that ends a word of the protocol.
    #[error("a key holds neither spaces nor control characters, as this one at byte {offset}")]
    Character {
        /// Where.
        offset: usize,
    },
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name could not be resolved, or nobody accepts there.
    #[error("cannot connect: {0}")]
    Io(Arc<std::io::Error>),
    /// The name stands for no address.
    #[error("the name has no address")]
    NoAddress,
    /// It took too long.
    #[error("not connected within {0:?}")]
    Timeout(Duration),
    /// The first attempt has not ended.
    #[error("not connected yet")]
    NotYet,
    /// It has failed so often lately that it is left alone for a while.
    #[error("it has failed too often and is left alone for a while")]
    LeftAlone,
    /// The name of the server is none that a certificate can be for.
    #[error("no certificate can be for that name")]
    ServerName,
    /// The server does not accept the user and password.
    #[error("authentication failed: {0}")]
    Authentication(Arc<str>),
}

impl From<std::io::Error> for ConnectError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Disconnect {
    /// The server closed it.
    #[error("the server closed the connection")]
    Closed,
    /// The operating system says so.
    #[error("{0}")]
    Io(Arc<std::io::Error>),
    /// What came is no response.
    #[error(transparent)]
    Malformed(ResponseError),
    /// A response that is none to the request whose turn it was.
    #[error("the server sent an answer to something else")]
    Mismatch,
    /// A response that nobody waits for.
    #[error("the server sent an answer that nobody asked for")]
    Unasked,
    /// Too many calls were given up, and their answers still to come.
    #[error("{0} calls were given up unanswered")]
    Abandoned(usize),
    /// Nothing was heard for too long, although answers were due.
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    /// The server's name has other addresses by now.
    #[error("the server's name has other addresses by now")]
    Moved,
    /// The client is being dropped, or does not want the server any more.
    #[error("the client let go of it")]
    Dropped,
}

impl From<std::io::Error> for Disconnect {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// An error that a server answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whose fault it is, as the server sees it.
    pub kind: ErrorKind,
    /// What it said.
    pub message: Box<str>,
}

/// What servers say when they have not carried out a request, and may carry it out another time.
const NOT_AT_PRESENT: [&str; 6] = [
    "busy",
    "no primary for this key at present",
    "too few copies are in sync",
    "out of memory",
    "out of memory storing object",
    "out of memory writing get response",
];

/// What they say when they will not carry it out at all.
const NOT_AT_ALL: [&str; 2] =
    ["object too large for cache", "not available on a node of a cluster"];

impl Refusal {
    /// Whether the request was carried out. `SERVER_ERROR` may come of a proxy or a node that lost sight of the
    /// request after it had passed it on, so that only those lines count as *did not happen* which say nothing
    /// else.
    pub fn fate(&self) -> Fate {
        let known = NOT_AT_PRESENT.iter().chain(&NOT_AT_ALL).any(|&known| *known == *self.message);
        match self.kind {
            ErrorKind::Server if !known => Fate::Unknown,
            _ => Fate::DidNotHappen,
        }
    }

    /// Whether the same request may be answered otherwise another time.
    pub fn is_transient(&self) -> bool {
        self.kind == ErrorKind::Server && NOT_AT_ALL.iter().all(|&known| *known != *self.message)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.kind, &*self.message) {
            (ErrorKind::Unknown, "") => f.write_str("the command is not known"),
            (_, message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(kind: ErrorKind, message: &str) -> Refusal {
        Refusal { kind, message: message.into() }
    }

    #[test]
    fn a_server_error_that_is_not_known_leaves_the_fate_open() {
        let unknown = refusal(ErrorKind::Server, "outcome unknown: the primary was lost");
        assert_eq!(unknown.fate(), Fate::Unknown);
        assert_eq!(refusal(ErrorKind::Server, "backend failure").fate(), Fate::Unknown);
    }

    #[test]
    fn a_refusal_before_the_write_is_one_that_did_not_happen() {
        for message in NOT_AT_PRESENT {
            assert_eq!(refusal(ErrorKind::Server, message).fate(), Fate::DidNotHappen);
            assert!(refusal(ErrorKind::Server, message).is_transient());
        }
        let too_large = refusal(ErrorKind::Server, "object too large for cache");
        assert_eq!((too_large.fate(), too_large.is_transient()), (Fate::DidNotHappen, false));
        assert_eq!(refusal(ErrorKind::Client, "bad data chunk").fate(), Fate::DidNotHappen);
    }
}
