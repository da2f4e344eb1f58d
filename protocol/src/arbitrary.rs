//! (tests) Requests and responses of every kind, made up, and streams of bytes to decode.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;

use crate::backup::{Backup, CacheId, Cursor, Item, ItemHead, Items, Restore};
use crate::binary::request::{BinaryRequest, Command, SaslMessage};
use crate::binary::{self, Head, Opcode};
use crate::exptime::Exptime;
use crate::key::Key;
use crate::meta::flags::Returns;
use crate::meta::request::{MetaArithmetic, MetaDebug, MetaDelete, MetaGet, MetaKey, MetaSet};
use crate::request::{
    AdminCommand, Arithmetic, Delete, Direction, FlushAll, Get, MemoryLimit, Request, ShutdownMode,
    Store, StoreMode, Touch, Verbosity,
};
use crate::text::request::Keys;
use crate::token::Tokens;

/// What a request is made of; the bytes it borrows live here.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    kind: usize,
    key: Vec<u8>,
    key_base64: Option<Vec<u8>>,
    words: Vec<u8>,
    returns: Vec<u8>,
    data: Vec<u8>,
    items: Vec<u8>,
    mode: StoreMode,
    direction: Direction,
    client_flags: u32,
    number: u64,
    cas: Option<u64>,
    new_cas: Option<u64>,
    exptimes: [Option<Exptime>; 3],
    yes: [bool; 4],
}

/// The kinds of requests, and the flags whose answers a meta command of that kind sends.
const KINDS: [&[u8]; 18] = [
    b"", b"", b"", b"", b"", b"", b"", b"", b"", b"", b"cfhklst", b"cks", b"k", b"ckt", b"", b"",
    b"", b"",
];

/// Any bytes that can stand as one token.
pub(crate) fn token(bytes_max: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_map(|byte| if b" \r\n\0".contains(&byte) { b'x' } else { byte });
    vec(byte, 1..=bytes_max)
}

pub(crate) fn exptime() -> impl Strategy<Value = Exptime> {
    prop_oneof![-2i64..3, 2_591_999i64..2_592_003, any::<u32>().prop_map(i64::from)]
        .prop_map(Exptime::from_wire)
}

/// An item of a backup, with bytes of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackupItem {
    key: Vec<u8>,
    value: Vec<u8>,
    client_flags: u32,
    cas: u64,
    deadline_unix_ms: Option<u64>,
    stale: bool,
}

impl BackupItem {
    pub(crate) fn named(key: &[u8]) -> Self {
        let (key, value) = (key.to_vec(), b"some value".to_vec());
        Self { key, value, client_flags: 0, cas: 0, deadline_unix_ms: None, stale: false }
    }

    pub(crate) fn borrowed(&self) -> Item<'_> {
        let head = ItemHead {
            key: Key::new(&self.key).expect("1 to 250 bytes"),
            client_flags: self.client_flags,
            cas: self.cas,
            deadline_unix_ms: self.deadline_unix_ms,
            stale: self.stale,
        };
        Item { head, value: &self.value }
    }
}

impl From<Item<'_>> for BackupItem {
    fn from(item: Item<'_>) -> Self {
        Self {
            key: item.head.key.as_bytes().to_vec(),
            value: item.value.to_vec(),
            client_flags: item.head.client_flags,
            cas: item.head.cas,
            deadline_unix_ms: item.head.deadline_unix_ms,
            stale: item.head.stale,
        }
    }
}

/// So many items, their keys any bytes.
pub(crate) fn backup_items(
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<BackupItem>> {
    let (key, value) = (vec(any::<u8>(), 1..=250), vec(any::<u8>(), 0..100));
    // All ones are how never is written.
    let deadline = proptest::option::of(0..u64::MAX);
    let item = (key, value, any::<u32>(), any::<u64>(), deadline, any::<bool>()).prop_map(
        |(key, value, client_flags, cas, deadline_unix_ms, stale)| BackupItem {
            key,
            value,
            client_flags,
            cas,
            deadline_unix_ms,
            stale,
        },
    );
    vec(item, count)
}

impl Parts {
    pub(crate) fn any() -> impl Strategy<Value = Self> {
        let mode = prop_oneof![
            Just(StoreMode::Set),
            Just(StoreMode::Add),
            Just(StoreMode::Replace),
            Just(StoreMode::Append),
            Just(StoreMode::Prepend)
        ];
        let direction = prop_oneof![Just(Direction::Increment), Just(Direction::Decrement)];
        let bytes = (
            token(250),
            proptest::option::of(vec(any::<u8>(), 1..=186)),
            vec(token(250), 1..5),
            vec(any::<u8>(), 0..64),
            proptest::option::of(token(31)),
            backup_items(0..4),
        );
        let numbers = (
            any::<u32>(),
            any::<u64>(),
            any::<Option<u64>>(),
            any::<Option<u64>>(),
            [(); 3].map(|()| proptest::option::of(exptime())),
        );
        (0..KINDS.len(), mode, direction, bytes, numbers, any::<[bool; 4]>())
            .prop_flat_map(|(kind, mode, direction, bytes, numbers, yes)| {
                let letters = subsequence(KINDS[kind].to_vec(), 0..=KINDS[kind].len());
                (letters.prop_shuffle(), Just((kind, mode, direction, bytes, numbers, yes)))
            })
            .prop_map(|(letters, (kind, mode, direction, bytes, numbers, yes))| {
                let (key, binary_key, words, data, opaque, items) = bytes;
                let mut encoded = Vec::new();
                items.iter().for_each(|item| item.borrowed().encode(&mut encoded));
                let (client_flags, number, cas, new_cas, exptimes) = numbers;
                let mut returns: Vec<Vec<u8>> =
                    letters.iter().map(|&letter| vec![letter]).collect();
                if let Some(opaque) = opaque.filter(|_| (10..14).contains(&kind)) {
                    returns.push([b"O", &opaque[..]].concat());
                }
                let key_base64 = binary_key.map(|binary| {
                    let mut written = Vec::new();
                    let key = Key::new(&binary).expect("1 to 186 bytes");
                    MetaKey::encode_base64(key, &mut written);
                    written
                });
                Self {
                    kind,
                    key,
                    key_base64,
                    words: words.join(&b' '),
                    returns: returns.join(&b' '),
                    data,
                    items: encoded,
                    mode,
                    direction,
                    client_flags,
                    number,
                    cas,
                    new_cas,
                    exptimes,
                    yes,
                }
            })
    }

    pub(crate) fn request(&self) -> Request<'_> {
        let key = Key::new(&self.key).expect("1 to 250 bytes");
        let noreply = self.yes[0];
        match self.kind {
            0 => Request::Get(Get {
                keys: Keys::new(&self.words).expect("keys of 1 to 250 bytes"),
                with_cas: self.yes[1],
                touch: self.exptimes[0],
            }),
            1 => Request::Store(Store {
                mode: self.mode,
                key,
                client_flags: self.client_flags,
                exptime: self.exptime(),
                compare_cas: self.cas.filter(|_| self.mode == StoreMode::Set),
                data: &self.data,
                noreply,
            }),
            2 => Request::Arithmetic(Arithmetic {
                direction: self.direction,
                key,
                delta: self.number,
                noreply,
            }),
            3 => Request::Touch(Touch { key, exptime: self.exptime(), noreply }),
            4 => Request::Delete(Delete { key, noreply }),
            5 => Request::FlushAll(FlushAll { delay: self.exptime(), noreply }),
            6 if self.yes[0] => Request::MemoryLimit(MemoryLimit {
                mebibytes: self.client_flags.clamp(8, 1_000_000_000),
                noreply,
            }),
            6 => Request::Verbosity(Verbosity { level: self.client_flags, noreply }),
            7 => Request::Stats { arguments: Tokens::new(&self.words) },
            8 if self.yes[0] && self.yes[1] => Request::RefreshCerts,
            8 if self.yes[0] && self.yes[2] => Request::ConfigGetShards,
            8 if self.yes[0] => Request::ConfigGetCluster,
            8 if self.yes[1] => Request::Shutdown {
                mode: match self.client_flags % 3 {
                    0 => Some(ShutdownMode::Now),
                    1 => Some(ShutdownMode::Graceful),
                    _ => None,
                },
            },
            8 => Request::Version,
            9 if self.yes[0] => {
                let commands = AdminCommand::ALL;
                let command = commands[self.words.len() % commands.len()];
                Request::Administer { command, arguments: Tokens::new(&self.words) }
            }
            9 => Request::Quit,
            14 => Request::MetaDebug(MetaDebug { key: self.meta_key() }),
            15 => Request::MetaNoop,
            16 => Request::Backup(Backup {
                cursor: Cursor {
                    shard: self.client_flags,
                    generation: self.number,
                    entry: self.client_flags,
                },
                prefix: if self.yes[0] { b"" } else { &self.key },
            }),
            17 => Request::Restore(Restore {
                keep_newer: self.cas.map(|id| CacheId::new(u128::from(id) << 64)),
                items: Items::new(&self.items).expect("encoded above"),
            }),
            _ => self.meta_request(),
        }
    }

    fn meta_request(&self) -> Request<'_> {
        let (key, returns) = (self.meta_key(), Returns::new(&self.returns));
        let [touch, vivify, recache] = self.exptimes;
        let [quiet, value, invalidate, no_bump] = self.yes;
        match self.kind {
            10 => Request::MetaGet(MetaGet {
                key,
                returns,
                value,
                touch,
                vivify,
                recache,
                known_cas: self.cas,
                new_cas: self.new_cas,
                no_bump,
                quiet,
            }),
            11 => Request::MetaSet(MetaSet {
                key,
                returns,
                mode: self.mode,
                client_flags: self.client_flags,
                exptime: self.exptime(),
                compare_cas: self.cas,
                new_cas: self.new_cas,
                invalidate,
                vivify,
                data: &self.data,
                quiet,
            }),
            12 => Request::MetaDelete(MetaDelete {
                key,
                returns,
                compare_cas: self.cas,
                new_cas: self.new_cas,
                invalidate,
                remove_value: value,
                touch,
                quiet,
            }),
            _ => Request::MetaArithmetic(MetaArithmetic {
                key,
                returns,
                direction: self.direction,
                delta: self.number,
                initial: u64::from(self.client_flags),
                vivify,
                touch,
                compare_cas: self.cas,
                new_cas: self.new_cas,
                value,
                quiet,
            }),
        }
    }

    /// A request of the binary protocol. An expiry is any but a negative one.
    pub(crate) fn binary_request(&self) -> BinaryRequest<'_> {
        let opcode = Opcode::ALL[self.client_flags as usize % Opcode::ALL.len()];
        let key = Key::new(&self.key).expect("1 to 250 bytes");
        let [exptime, touch, create] = self.exptimes.map(|exptime| match exptime {
            Some(Exptime::Immediate) => None,
            exptime => exptime,
        });
        let compare_cas = self.cas.filter(|&cas| cas != 0);
        let store = |mode: StoreMode, keeps_facts: bool| {
            let is_set = matches!(mode, StoreMode::Set | StoreMode::Add | StoreMode::Replace);
            Command::Store(Store {
                mode: if is_set && compare_cas.is_some() { StoreMode::Set } else { mode },
                key,
                client_flags: if keeps_facts { self.client_flags } else { 0 },
                exptime: exptime.filter(|_| keeps_facts).unwrap_or_default(),
                compare_cas,
                data: &self.data,
                noreply: opcode.is_quiet(),
            })
        };
        let get = |with_key, touch| Command::Get(binary::request::Get { key, with_key, touch });
        let arithmetic = |direction| {
            // All ones are how no creation is written.
            let create = create.filter(|&create| create != Exptime::At { unix_s: u32::MAX });
            let (delta, initial) = (self.number, self.new_cas.unwrap_or_default());
            Command::Arithmetic(binary::request::Arithmetic {
                direction,
                key,
                delta,
                initial,
                create,
                compare_cas,
            })
        };
        let sasl = |begins| {
            let mechanism = &self.key;
            Command::Sasl(SaslMessage { begins, mechanism, message: &self.data })
        };
        let command = match opcode {
            Opcode::Get | Opcode::GetQ => get(false, None),
            Opcode::GetK | Opcode::GetKQ => get(true, None),
            Opcode::Gat | Opcode::GatQ => get(false, Some(touch.unwrap_or_default())),
            Opcode::GatK | Opcode::GatKQ => get(true, Some(touch.unwrap_or_default())),
            Opcode::Set | Opcode::SetQ => store(StoreMode::Set, true),
            Opcode::Add | Opcode::AddQ => store(StoreMode::Add, true),
            Opcode::Replace | Opcode::ReplaceQ => store(StoreMode::Replace, true),
            Opcode::Append | Opcode::AppendQ => store(StoreMode::Append, false),
            Opcode::Prepend | Opcode::PrependQ => store(StoreMode::Prepend, false),
            Opcode::Delete | Opcode::DeleteQ => Command::Delete { key, compare_cas },
            Opcode::Increment | Opcode::IncrementQ => arithmetic(Direction::Increment),
            Opcode::Decrement | Opcode::DecrementQ => arithmetic(Direction::Decrement),
            Opcode::Quit | Opcode::QuitQ => Command::Quit,
            Opcode::Flush | Opcode::FlushQ => Command::Flush { delay: exptime.unwrap_or_default() },
            Opcode::Noop => Command::Noop,
            Opcode::Version => Command::Version,
            Opcode::Stat if self.yes[0] => Command::Stat { group: b"" },
            Opcode::Stat => Command::Stat { group: &self.key },
            Opcode::Verbosity => Command::Verbosity { level: self.client_flags },
            Opcode::Touch => Command::Touch { key, exptime: exptime.unwrap_or_default() },
            Opcode::SaslList => Command::SaslList,
            Opcode::SaslAuth => sasl(true),
            Opcode::SaslStep => sasl(false),
        };
        let head = Head { opcode: opcode as u8, opaque: self.client_flags };
        BinaryRequest { head, command }
    }

    fn meta_key(&self) -> MetaKey<'_> {
        match &self.key_base64 {
            Some(written) => MetaKey::base64(written).expect("encoded above"),
            None => MetaKey::plain(Key::new(&self.key).expect("1 to 250 bytes")),
        }
    }

    fn exptime(&self) -> Exptime {
        self.exptimes[0].unwrap_or_default()
    }
}

/// What a client of the binary protocol might send: requests, frames that are nearly requests, and
/// noise.
pub(crate) fn binary_stream() -> impl Strategy<Value = Vec<u8>> {
    let frame = |parts: &Parts| {
        let mut out = Vec::new();
        parts.binary_request().encode(&mut out);
        out
    };
    let request = Parts::any().prop_map(move |parts| frame(&parts));
    // Mostly a length, a command, or the magic.
    let broken = (Parts::any(), 0usize..30, any::<u8>()).prop_map(move |(parts, place, byte)| {
        let mut out = frame(&parts);
        let place = place % out.len();
        out[place] = byte;
        out
    });
    let noise = vec(any::<u8>(), 0..40);
    vec(prop_oneof![8 => request, 3 => broken, 1 => noise], 0..8).prop_map(|pieces| pieces.concat())
}

/// What a client might send: requests, lines that are nearly requests, and noise.
pub(crate) fn stream() -> impl Strategy<Value = Vec<u8>> {
    let request = Parts::any().prop_map(|parts| {
        let mut out = Vec::new();
        parts.request().encode(&mut out);
        out
    });
    let broken = (Parts::any(), any::<prop::sample::Index>(), any::<u8>()).prop_map(
        |(parts, place, byte)| {
            let mut out = Vec::new();
            parts.request().encode(&mut out);
            let place = place.index(out.len());
            out[place] = byte;
            out
        },
    );
    let word = prop_oneof![
        prop::sample::select(vec![
            "get",
            "gets",
            "gat",
            "set",
            "cas",
            "append",
            "incr",
            "touch",
            "delete",
            "ms",
            "mg",
            "md",
            "ma",
            "me",
            "mn",
            "flush_all",
            "verbosity",
            "cache_memlimit",
            "backup",
            "restore",
            "keep-newer",
            "0123456789abcdef0123456789abcdef",
            "noreply",
            "b",
            "v",
            "q",
            "k",
            "0",
            "1",
            "5",
            "-1",
            "T0",
            "N5",
            "ME",
            "C1",
            "S1",
            "O12",
            "2147483645",
            "4294967296",
            "70",
        ])
        .prop_map(|word| word.as_bytes().to_vec()),
        token(260),
    ];
    let line = (vec(word, 0..8), prop::sample::select(vec!["\r\n", "\n", "\r\r\n", " \r\n"]))
        .prop_map(|(words, end)| [words.join(&b' '), end.as_bytes().to_vec()].concat());
    let noise = vec(any::<u8>(), 0..40);
    let long = (prop::sample::select(vec!["get ", " gets ", "mg ", "x"]), 1usize..400)
        .prop_map(|(front, times)| [front.as_bytes(), &b"k ".repeat(times)].concat());
    vec(prop_oneof![4 => request, 2 => broken, 4 => line, 1 => noise, 1 => long], 0..8)
        .prop_map(|pieces| pieces.concat())
}
