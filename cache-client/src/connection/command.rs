//! `Command`: what a call asks, written in either dialect, and what answers it may have.

use protocol::meta::flags::Returns;
use protocol::meta::request::{MetaArithmetic, MetaDelete, MetaGet, MetaKey, MetaSet};
use protocol::meta::response::{MetaReply, MetaStatus, Returned};
use protocol::request::{Arithmetic, Delete, Direction, FlushAll, Get, Store, StoreMode, Touch};
use protocol::response::Response;
use protocol::text::request::Keys;
use protocol::{Exptime, Key, Request};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::Dialect;
use crate::retry::Class;
use crate::value::Stored;

/// What a call asks one server. Keys are tokens ([`Key::is_token`]).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Command<'a> {
    Get {
        key: Key<'a>,
        touch: Option<Exptime>,
        with_cas: bool,
    },
    /// A get that tells and decides more; always a meta command.
    Lookup {
        key: Key<'a>,
        touch: Option<Exptime>,
        vivify: Option<Exptime>,
        recache: Option<Exptime>,
    },
    Store {
        mode: StoreMode,
        key: Key<'a>,
        flags: u32,
        exptime: Exptime,
        compare_cas: Option<u64>,
        data: &'a [u8],
    },
    /// The item stays and is stale; always a meta command.
    Invalidate {
        key: Key<'a>,
        exptime: Option<Exptime>,
    },
    Delete {
        key: Key<'a>,
    },
    Arithmetic {
        direction: Direction,
        key: Key<'a>,
        delta: u64,
    },
    Touch {
        key: Key<'a>,
        exptime: Exptime,
    },
    FlushAll {
        delay: Exptime,
    },
    Version,
    /// `config get cluster`.
    Nodes,
    /// `config get shards`.
    Shards,
}

/// What an answer must be, for it to be the answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    MetaGet,
    MetaStore,
    MetaDelete,
    MetaArithmetic,
    /// One key of a get; behind the values of all of them stands an `END`, with which the last one ends.
    TextGet {
        key_hash: u64,
        is_last: bool,
    },
    TextStore,
    TextDelete,
    TextArithmetic,
    TextTouch,
    FlushAll,
    Version,
    /// A list of that name and an `END`, which are given as they came.
    Config {
        name: &'static [u8],
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Of a get: the item, if there is one.
    Found(Option<Stored>),
    /// The condition was met, and it was done.
    Done,
    /// The condition of an add, replace, append or prepend was not met.
    NotStored,
    /// The cas is another.
    Exists,
    NotFound,
    Number(u64),
    Text(Vec<u8>),
}

/// The flags that a meta command asks back, the opaque behind them.
struct Wanted {
    text: [u8; 24],
    len: usize,
}

impl Wanted {
    fn new(letters: &[u8], opaque: u32) -> Self {
        let mut wanted = Self { text: [b' '; 24], len: 0 };
        for &letter in letters {
            wanted.push(letter);
            wanted.push(b' ');
        }
        wanted.push(b'O');
        let mut digits = [0; 10];
        let (mut start, mut rest) = (digits.len(), opaque);
        loop {
            start -= 1;
            digits[start] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        digits[start..].iter().for_each(|&digit| wanted.push(digit));
        wanted
    }

    fn push(&mut self, byte: u8) {
        self.text[self.len] = byte;
        self.len += 1;
    }

    fn returns(&self) -> Returns<'_> {
        Returns::new(&self.text[..self.len])
    }
}

impl Command<'_> {
    /// What happens if it is carried out twice.
    pub(crate) fn class(&self) -> Class {
        match *self {
            Self::Get { touch: None, .. } | Self::Version | Self::Nodes | Self::Shards => {
                Class::Read
            }
            Self::Lookup { touch: None, vivify: None, recache: None, .. } => Class::Read,
            Self::Store { compare_cas: Some(_), .. } | Self::Lookup { .. } => Class::Conditional,
            Self::Store { mode, .. } => match mode {
                StoreMode::Set => Class::Idempotent,
                StoreMode::Add | StoreMode::Replace => Class::Conditional,
                StoreMode::Append | StoreMode::Prepend => Class::Accumulating,
            },
            Self::Arithmetic { .. } => Class::Accumulating,
            Self::Get { .. }
            | Self::Touch { .. }
            | Self::Delete { .. }
            | Self::Invalidate { .. }
            | Self::FlushAll { .. } => Class::Idempotent,
        }
    }

    /// Appends the request and says what may come back.
    #[inline]
    pub(crate) fn encode(&self, dialect: Dialect, opaque: u32, out: &mut Vec<u8>) -> Expect {
        match (dialect, *self) {
            (_, Self::Lookup { key, touch, vivify, recache }) => {
                let wanted = Wanted::new(b"fct", opaque);
                let get = MetaGet { touch, vivify, recache, ..meta_get(key, wanted.returns()) };
                get.encode(out);
                Expect::MetaGet
            }
            (_, Self::Invalidate { key, exptime }) => {
                let wanted = Wanted::new(b"", opaque);
                let delete = MetaDelete::plain(MetaKey::plain(key), wanted.returns());
                MetaDelete { invalidate: true, touch: exptime, ..delete }.encode(out);
                Expect::MetaDelete
            }
            (_, Self::FlushAll { delay }) => {
                FlushAll { delay, noreply: false }.encode(out);
                Expect::FlushAll
            }
            (_, Self::Version) => {
                Request::Version.encode(out);
                Expect::Version
            }
            (_, Self::Nodes) => {
                Request::ConfigGetCluster.encode(out);
                Expect::Config { name: b"cluster" }
            }
            (_, Self::Shards) => {
                Request::ConfigGetShards.encode(out);
                Expect::Config { name: b"shards" }
            }
            (Dialect::Meta, _) => self.encode_meta(opaque, out),
            (Dialect::Text, _) => self.encode_text(out),
        }
    }

    fn encode_meta(&self, opaque: u32, out: &mut Vec<u8>) -> Expect {
        match *self {
            Self::Get { key, touch, with_cas } => {
                let wanted = Wanted::new(if with_cas { b"fc" } else { b"f" }, opaque);
                MetaGet { touch, ..meta_get(key, wanted.returns()) }.encode(out);
                Expect::MetaGet
            }
            Self::Touch { key, exptime } => {
                let wanted = Wanted::new(b"", opaque);
                let get = meta_get(key, wanted.returns());
                MetaGet { value: false, touch: Some(exptime), ..get }.encode(out);
                Expect::MetaGet
            }
            Self::Store { mode, key, flags, exptime, compare_cas, data } => {
                let wanted = Wanted::new(b"", opaque);
                let set = MetaSet {
                    key: MetaKey::plain(key),
                    returns: wanted.returns(),
                    mode,
                    client_flags: flags,
                    exptime,
                    compare_cas,
                    new_cas: None,
                    invalidate: false,
                    vivify: None,
                    data,
                    quiet: false,
                };
                set.encode(out);
                Expect::MetaStore
            }
            Self::Delete { key } => {
                let wanted = Wanted::new(b"", opaque);
                MetaDelete::plain(MetaKey::plain(key), wanted.returns()).encode(out);
                Expect::MetaDelete
            }
            Self::Arithmetic { direction, key, delta } => {
                let wanted = Wanted::new(b"", opaque);
                let arithmetic = MetaArithmetic {
                    key: MetaKey::plain(key),
                    returns: wanted.returns(),
                    direction,
                    delta,
                    initial: 0,
                    vivify: None,
                    touch: None,
                    compare_cas: None,
                    new_cas: None,
                    value: true,
                    quiet: false,
                };
                arithmetic.encode(out);
                Expect::MetaArithmetic
            }
            _ => unreachable!("what is the same in both dialects was written before"),
        }
    }

    fn encode_text(&self, out: &mut Vec<u8>) -> Expect {
        let noreply = false;
        match *self {
            Self::Get { key, touch, with_cas } => {
                // One key is a line of keys.
                if let Some(keys) = Keys::new(key.as_bytes()) {
                    Get { keys, with_cas, touch }.encode(out);
                }
                Expect::TextGet { key_hash: xxh3_64(key.as_bytes()), is_last: true }
            }
            Self::Touch { key, exptime } => {
                Touch { key, exptime, noreply }.encode(out);
                Expect::TextTouch
            }
            Self::Store { mode, key, flags, exptime, compare_cas, data } => {
                let client_flags = flags;
                Store { mode, key, client_flags, exptime, compare_cas, data, noreply }.encode(out);
                Expect::TextStore
            }
            Self::Delete { key } => {
                Delete { key, noreply }.encode(out);
                Expect::TextDelete
            }
            Self::Arithmetic { direction, key, delta } => {
                Arithmetic { direction, key, delta, noreply }.encode(out);
                Expect::TextArithmetic
            }
            _ => unreachable!("what is the same in both dialects was written before"),
        }
    }
}

fn meta_get<'a>(key: Key<'a>, returns: Returns<'a>) -> MetaGet<'a> {
    MetaGet {
        key: MetaKey::plain(key),
        returns,
        value: true,
        touch: None,
        vivify: None,
        recache: None,
        known_cas: None,
        new_cas: None,
        no_bump: false,
        quiet: false,
    }
}

/// The reply that a whole response is to a request of that kind; `None` when it is none to it.
pub(crate) fn reply(expect: Expect, opaque: u32, response: &Response<'_>) -> Option<Reply> {
    if let Response::Meta(answer) = response {
        return meta_reply(expect, opaque, answer);
    }
    Some(match (expect, response) {
        (Expect::TextStore, Response::Stored)
        | (Expect::TextDelete, Response::Deleted)
        | (Expect::TextTouch, Response::Touched)
        | (Expect::FlushAll, Response::Ok) => Reply::Done,
        (Expect::TextStore, Response::NotStored) => Reply::NotStored,
        (Expect::TextStore, Response::Exists) => Reply::Exists,
        (
            Expect::TextStore | Expect::TextDelete | Expect::TextTouch | Expect::TextArithmetic,
            Response::NotFound,
        ) => Reply::NotFound,
        (Expect::TextArithmetic, Response::Number(number)) => Reply::Number(*number),
        (Expect::Version, Response::Version { version }) => Reply::Text(version.to_vec()),
        _ => return None,
    })
}

/// Every meta response but an error carries the opaque of its request; one that does not is no answer to it.
fn meta_reply(expect: Expect, opaque: u32, answer: &MetaReply<'_>) -> Option<Reply> {
    let mut stored = Stored::default();
    let mut is_ours = false;
    for returned in answer.returned.clone() {
        match returned {
            Returned::Opaque(digits) => is_ours = parse(digits) == Some(opaque),
            Returned::Cas(cas) => stored.cas = Some(cas),
            Returned::ClientFlags(flags) => stored.flags = flags,
            Returned::Ttl(ttl_s) => stored.ttl_s = Some(ttl_s),
            Returned::Won => stored.won = true,
            Returned::Stale => stored.is_stale = true,
            Returned::WinSent => stored.win_sent = true,
            _ => {}
        }
    }
    if !is_ours {
        return None;
    }
    Some(match (expect, answer.status) {
        (Expect::MetaGet, MetaStatus::Value { .. } | MetaStatus::Done) => {
            stored.data = bytes::Bytes::copy_from_slice(answer.data);
            Reply::Found(Some(stored))
        }
        (Expect::MetaGet, MetaStatus::Miss) => Reply::Found(None),
        (Expect::MetaStore | Expect::MetaDelete, MetaStatus::Done) => Reply::Done,
        (Expect::MetaStore | Expect::MetaArithmetic, MetaStatus::NotStored) => Reply::NotStored,
        (Expect::MetaStore | Expect::MetaDelete | Expect::MetaArithmetic, status) => match status {
            MetaStatus::Exists => Reply::Exists,
            MetaStatus::NotFound => Reply::NotFound,
            MetaStatus::Value { .. } if expect == Expect::MetaArithmetic => {
                Reply::Number(parse_number(answer.data)?)
            }
            _ => return None,
        },
        _ => return None,
    })
}

fn parse(digits: &[u8]) -> Option<u32> {
    u32::try_from(parse_number(digits)?).ok()
}

fn parse_number(digits: &[u8]) -> Option<u64> {
    // memcached pads a number that became shorter with spaces, where its place was kept.
    let digits = digits.trim_ascii_end();
    let number = digits.iter().try_fold(0u64, |number, &digit| {
        let digit = digit.checked_sub(b'0').filter(|&digit| digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    });
    number.filter(|_| !digits.is_empty())
}
