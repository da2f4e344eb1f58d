//! Encodes and decodes the meta responses.

use crate::meta::flags::Returns;
use crate::meta::request::MetaKey;

/// How a meta command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetaStatus {
    /// `HD`: done; a hit without its value.
    Done,
    /// `VA <bytes>`: the value follows the line.
    Value {
        /// Its length, without the line end.
        bytes: usize,
    },
    /// `EN`: a miss of `mg` or `me`.
    Miss,
    /// `NF`: a miss of `ms`, `md` or `ma`.
    NotFound,
    /// `NS`: not stored.
    NotStored,
    /// `EX`: the cas does not match.
    Exists,
}

/// What a response can tell about an item; the flags of the request choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItemFacts {
    /// `c`: the cas.
    pub cas: u64,
    /// `f`: the client's flags.
    pub client_flags: u32,
    /// `h`: it was read before this request.
    pub hit_before: bool,
    /// `l`: seconds since it was last read or written, before this request.
    pub last_access_s: u32,
    /// `s`: the length of its value.
    pub value_bytes: usize,
    /// `t`: seconds until it expires; `None` for never, written -1.
    pub ttl_s: Option<u32>,
    /// `W`: this client has won the right to recache it.
    pub won: bool,
    /// `X`: it is stale.
    pub stale: bool,
    /// `Z`: another client has won before.
    pub win_sent: bool,
}

/// Appends the line of a meta response: the status, what `returns` asks for, the line end. The value
/// after a [`MetaStatus::Value`] line, and its `\r\n`, are the caller's to append.
///
/// Without `item` only the key and the opaque are sent back, as for a miss.
pub fn encode_line(
    out: &mut Vec<u8>,
    status: MetaStatus,
    key: &MetaKey<'_>,
    returns: Returns<'_>,
    item: Option<&ItemFacts>,
) {
    let _ = (out, status, key, returns, item);
}

/// A meta response, as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaReply<'a> {
    /// How the command ended.
    pub status: MetaStatus,
    /// The flags of the line, as sent.
    pub flags: &'a [u8],
    /// The value after a [`MetaStatus::Value`] line; empty otherwise.
    pub data: &'a [u8],
}
