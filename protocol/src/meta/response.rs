//! Encodes and decodes the meta responses.
//!
//! ```text
//! HD|EN|NF|NS|EX <flags>*\r\n          VA <bytes> <flags>*\r\n<data>\r\n
//! ```
//!
//! A flag is sent back as its letter with its value right behind it, in the order of the request;
//! what the client did not ask for (`W X Z`) follows.

use crate::key::Key;
use crate::meta::flags::{Return, Returns};
use crate::meta::request::MetaKey;
use crate::token::{
    Tokens, parse_i64, parse_length, parse_u32, parse_u64, push_number, push_token,
};

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

/// The meta commands that know quiet mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetaCommand {
    /// `mg`.
    Get,
    /// `ms`.
    Set,
    /// `md`.
    Delete,
    /// `ma`.
    Arithmetic,
}

impl MetaStatus {
    /// Whether `command` leaves out this response when it carries flag `q`: the table in
    /// [`meta::request`](crate::meta::request).
    pub const fn is_quiet(self, command: MetaCommand) -> bool {
        match command {
            MetaCommand::Get => matches!(self, Self::Miss),
            MetaCommand::Set | MetaCommand::Delete => matches!(self, Self::Done),
            MetaCommand::Arithmetic => matches!(self, Self::Done | Self::Value { .. }),
        }
    }
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
/// after a [`MetaStatus::Value`] line, and its `\r\n`, are the caller's to append, so that a large
/// value can be sent from where it lies.
///
/// Without `item` only the key and the opaque are sent back, as for a miss. (For an `ms` that stored
/// nothing, memcached answers flag `c` with `c0`: pass facts that say so.)
#[inline]
pub fn encode_line(
    out: &mut Vec<u8>,
    status: MetaStatus,
    key: &MetaKey<'_>,
    returns: Returns<'_>,
    item: Option<&ItemFacts>,
) {
    push_status(out, status);
    for wanted in returns {
        match (wanted, item) {
            (Return::Key, _) => {
                push_flag(out, b'k');
                out.extend_from_slice(key.written());
                if key.is_base64() {
                    push_flag(out, b'b');
                }
            }
            (Return::Opaque(opaque), _) => {
                push_flag(out, b'O');
                out.extend_from_slice(opaque);
            }
            (wanted, Some(item)) => push_fact(out, wanted, item),
            (_, None) => {}
        }
    }
    if let Some(item) = item {
        for (flag, present) in [(b'Z', item.win_sent), (b'X', item.stale), (b'W', item.won)] {
            if present {
                push_flag(out, flag);
            }
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn push_status(out: &mut Vec<u8>, status: MetaStatus) {
    out.extend_from_slice(match status {
        MetaStatus::Done => b"HD",
        MetaStatus::Value { .. } => b"VA",
        MetaStatus::Miss => b"EN",
        MetaStatus::NotFound => b"NF",
        MetaStatus::NotStored => b"NS",
        MetaStatus::Exists => b"EX",
    });
    if let MetaStatus::Value { bytes } = status {
        out.push(b' ');
        push_number(out, bytes as u64);
    }
}

fn push_fact(out: &mut Vec<u8>, wanted: Return<'_>, item: &ItemFacts) {
    push_flag(out, wanted.letter());
    match wanted {
        Return::Cas => push_number(out, item.cas),
        Return::ClientFlags => push_number(out, item.client_flags.into()),
        Return::HitBefore => out.push(if item.hit_before { b'1' } else { b'0' }),
        Return::LastAccess => push_number(out, item.last_access_s.into()),
        Return::Size => push_number(out, item.value_bytes as u64),
        Return::Ttl => match item.ttl_s {
            Some(seconds) => push_number(out, seconds.into()),
            None => out.extend_from_slice(b"-1"),
        },
        Return::Key | Return::Opaque(_) => debug_assert!(false, "these need no item"),
    }
}

fn push_flag(out: &mut Vec<u8>, flag: u8) {
    out.extend_from_slice(&[b' ', flag]);
}

/// A meta response, as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaReply<'a> {
    /// How the command ended.
    pub status: MetaStatus,
    /// What was sent back.
    pub returned: ReturnedFlags<'a>,
    /// The value after a [`MetaStatus::Value`] line; empty otherwise.
    pub data: &'a [u8],
}

/// What a meta response tells: iterated in the order of the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnedFlags<'a> {
    tokens: Tokens<'a>,
}

/// One thing a meta response tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Returned<'a> {
    /// `b`: the key just sent back is written in base64.
    Base64,
    /// `c`: the cas.
    Cas(u64),
    /// `f`: the client's flags.
    ClientFlags(u32),
    /// `h`: whether the item was read before.
    HitBefore(bool),
    /// `k`: the key, as it was written.
    Key(&'a [u8]),
    /// `l`: seconds since the item was last read or written.
    LastAccess(u32),
    /// `O`: the opaque of the request.
    Opaque(&'a [u8]),
    /// `s`: the length of the value.
    Size(usize),
    /// `t`: seconds until the item expires; `None` for never.
    Ttl(Option<u32>),
    /// `W`: this client has won the right to recache the item.
    Won,
    /// `X`: the item is stale.
    Stale,
    /// `Z`: another client has won before.
    WinSent,
}

impl<'a> ReturnedFlags<'a> {
    /// The flags on `line`, written as in a response (`c5 kname W`); `None` when one is malformed or
    /// unknown.
    pub fn new(line: &'a [u8]) -> Option<Self> {
        Self::of(Tokens::new(line))
    }

    pub(crate) fn of(tokens: Tokens<'a>) -> Option<Self> {
        tokens.clone().all(|token| Returned::from_token(token).is_some()).then_some(Self { tokens })
    }
}

impl<'a> Iterator for ReturnedFlags<'a> {
    type Item = Returned<'a>;

    fn next(&mut self) -> Option<Returned<'a>> {
        self.tokens.next().and_then(Returned::from_token)
    }
}

impl<'a> Returned<'a> {
    fn from_token(token: &'a [u8]) -> Option<Self> {
        let (flag, argument) = token.split_first()?;
        Some(match (flag, argument) {
            (b'c', cas) => Self::Cas(parse_u64(cas)?),
            (b'f', client_flags) => Self::ClientFlags(parse_u32(client_flags)?),
            (b'h', b"0") => Self::HitBefore(false),
            (b'h', b"1") => Self::HitBefore(true),
            (b'k', key) => Self::Key(Key::new(key)?.as_bytes()),
            (b'l', seconds) => Self::LastAccess(parse_u32(seconds)?),
            (b'O', opaque) => Self::Opaque(opaque),
            (b's', bytes) => Self::Size(parse_length(bytes)?),
            (b't', seconds) => match parse_i64(seconds)? {
                -1 => Self::Ttl(None),
                seconds => Self::Ttl(Some(u32::try_from(seconds).ok()?)),
            },
            (b'b', b"") => Self::Base64,
            (b'W', b"") => Self::Won,
            (b'X', b"") => Self::Stale,
            (b'Z', b"") => Self::WinSent,
            _ => return None,
        })
    }
}

impl MetaReply<'_> {
    /// Appends the response, with its data if it has any.
    pub fn encode(&self, out: &mut Vec<u8>) {
        push_status(out, self.status);
        self.returned.tokens.clone().for_each(|token| push_token(out, token));
        out.extend_from_slice(b"\r\n");
        if let MetaStatus::Value { bytes } = self.status {
            debug_assert_eq!(bytes, self.data.len(), "the line announces what follows it");
            out.extend_from_slice(self.data);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Reads a meta response from its line; the data, if any, is still empty. `None` when it is none.
pub(crate) fn parse<'a>(code: &[u8], mut tokens: Tokens<'a>) -> Option<MetaReply<'a>> {
    let status = match code {
        b"HD" => MetaStatus::Done,
        b"VA" => MetaStatus::Value { bytes: parse_length(tokens.next()?)? },
        b"EN" => MetaStatus::Miss,
        b"NF" => MetaStatus::NotFound,
        b"NS" => MetaStatus::NotStored,
        b"EX" => MetaStatus::Exists,
        _ => return None,
    };
    Some(MetaReply { status, returned: ReturnedFlags::of(tokens)?, data: b"" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(status: MetaStatus, flags: &[u8], item: Option<&ItemFacts>) -> String {
        let key = MetaKey::base64(b"Zm9v").expect("base64");
        let mut out = Vec::new();
        encode_line(&mut out, status, &key, Returns::new(flags), item);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn flags_come_back_in_the_order_of_the_request() {
        let item = ItemFacts { cas: 34, client_flags: 5, value_bytes: 1, ..Default::default() };
        let flags = b"s v t f c h l k Oxx";
        assert_eq!(
            line(MetaStatus::Value { bytes: 1 }, flags, Some(&item)),
            "VA 1 s1 t-1 f5 c34 h0 l0 kZm9v b Oxx\r\n"
        );
    }

    #[test]
    fn a_miss_sends_back_key_and_opaque_alone() {
        assert_eq!(line(MetaStatus::Miss, b"s Oxx t k c", None), "EN Oxx kZm9v b\r\n");
    }

    #[test]
    fn what_was_not_asked_for_follows() {
        let stale = ItemFacts { won: true, stale: true, ..Default::default() };
        assert_eq!(line(MetaStatus::Done, b"t", Some(&stale)), "HD t-1 X W\r\n");
        let won_before = ItemFacts { win_sent: true, stale: true, ..Default::default() };
        assert_eq!(line(MetaStatus::Done, b"", Some(&won_before)), "HD Z X\r\n");
    }
}
