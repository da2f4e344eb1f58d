//! `Request`: what a client may ask, borrowed from the input.
//!
//! Keys and values point into the connection's buffer; a key that was sent in base64 is decoded when
//! it is asked for ([`MetaKey::key`](crate::meta::request::MetaKey::key)). A request is complete and valid when it is handed out: lengths are checked, numbers are
//! numbers, the data block has arrived with its line end.

pub mod decoder;

use crate::backup::{Backup, Items, Restore};
use crate::binary::request::{BinaryRequest, Command};
use crate::exptime::Exptime;
use crate::key::Key;
use crate::meta::request::{MetaArithmetic, MetaDebug, MetaDelete, MetaGet, MetaSet};
use crate::text::request::Keys;
use crate::token::{Tokens, push_token};

/// One request. The classic commands first, then the meta commands, then the binary ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// `get`, `gets`, `gat`, `gats`.
    Get(Get<'a>),
    /// `set`, `add`, `replace`, `append`, `prepend`, `cas`.
    Store(Store<'a>),
    /// `incr`, `decr`.
    Arithmetic(Arithmetic<'a>),
    /// `touch`.
    Touch(Touch<'a>),
    /// `delete`.
    Delete(Delete<'a>),
    /// `flush_all`.
    FlushAll(FlushAll),
    /// `verbosity`.
    Verbosity(Verbosity),
    /// `cache_memlimit`.
    MemoryLimit(MemoryLimit),
    /// `shutdown`: the server stops, where that is allowed.
    Shutdown {
        /// How; `None` for a word that says no way to stop.
        mode: Option<ShutdownMode>,
    },
    /// `stats`, with the words after it.
    Stats {
        /// What is asked for; none for the general statistics.
        arguments: Tokens<'a>,
    },
    /// `watch`, `lru_crawler`, `lru`, `slabs` and `debugtime`, with the words after them.
    Administer {
        /// Which.
        command: AdminCommand,
        /// What of it. What they come to depends on how the server was started, and so does which error
        /// comes first: the server reads them.
        arguments: Tokens<'a>,
    },
    /// `version`.
    Version,
    /// `refresh_certs`: TLS certificates are read again.
    RefreshCerts,
    /// `config get cluster`: which nodes there are. What clients that discover nodes by themselves ask.
    ConfigGetCluster,
    /// `config get shards`: which node holds which shard, for clients that send a key to its primary.
    ConfigGetShards,
    /// `backup`: the next slice of one.
    Backup(Backup<'a>),
    /// `restore`: items of a backup.
    Restore(Restore<'a>),
    /// `quit`: the connection closes once earlier answers are sent.
    Quit,
    /// `mg`.
    MetaGet(MetaGet<'a>),
    /// `ms`.
    MetaSet(MetaSet<'a>),
    /// `md`.
    MetaDelete(MetaDelete<'a>),
    /// `ma`.
    MetaArithmetic(MetaArithmetic<'a>),
    /// `me`.
    MetaDebug(MetaDebug<'a>),
    /// `mn`: answered with `MN`, always.
    MetaNoop,
    /// A request of the binary protocol.
    Binary(BinaryRequest<'a>),
}

impl<'a> Request<'a> {
    /// Appends the request, as a client sends it. Keys must be tokens ([`Key::is_token`]).
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Get(get) => get.encode(out),
            Self::Store(store) => store.encode(out),
            Self::Arithmetic(arithmetic) => arithmetic.encode(out),
            Self::Touch(touch) => touch.encode(out),
            Self::Delete(delete) => delete.encode(out),
            Self::FlushAll(flush_all) => flush_all.encode(out),
            Self::Verbosity(verbosity) => verbosity.encode(out),
            Self::MemoryLimit(limit) => limit.encode(out),
            Self::Shutdown { mode } => out.extend_from_slice(match mode {
                Some(ShutdownMode::Now) => b"shutdown\r\n",
                Some(ShutdownMode::Graceful) => b"shutdown graceful\r\n",
                None => b"shutdown otherwise\r\n",
            }),
            Self::Stats { arguments } => {
                out.extend_from_slice(b"stats");
                arguments.clone().for_each(|word| push_token(out, word));
                out.extend_from_slice(b"\r\n");
            }
            Self::Administer { command, arguments } => {
                out.extend_from_slice(command.name());
                arguments.clone().for_each(|word| push_token(out, word));
                out.extend_from_slice(b"\r\n");
            }
            Self::Version => out.extend_from_slice(b"version\r\n"),
            Self::RefreshCerts => out.extend_from_slice(b"refresh_certs\r\n"),
            Self::ConfigGetCluster => out.extend_from_slice(b"config get cluster\r\n"),
            Self::ConfigGetShards => out.extend_from_slice(b"config get shards\r\n"),
            Self::Backup(backup) => backup.encode(out),
            Self::Restore(restore) => restore.encode(out),
            Self::Quit => out.extend_from_slice(b"quit\r\n"),
            Self::MetaGet(get) => get.encode(out),
            Self::MetaSet(set) => set.encode(out),
            Self::MetaDelete(delete) => delete.encode(out),
            Self::MetaArithmetic(arithmetic) => arithmetic.encode(out),
            Self::MetaDebug(debug) => debug.encode(out),
            Self::MetaNoop => out.extend_from_slice(b"mn\r\n"),
            Self::Binary(binary) => binary.encode(out),
        }
    }

    /// Puts the data block behind the header it belongs to; `None` when it is no data for that.
    #[inline]
    pub(crate) fn with_data(mut self, block: &'a [u8]) -> Option<Self> {
        match &mut self {
            Self::Store(store) => store.data = block,
            Self::MetaSet(set) => set.data = block,
            Self::Restore(restore) => restore.items = Items::new(block).ok()?,
            Self::Binary(BinaryRequest { command: Command::Store(store), .. }) => {
                store.data = block;
            }
            Self::Binary(BinaryRequest { command: Command::Sasl(sasl), .. }) => {
                sasl.message = block;
            }
            _ => debug_assert!(block.is_empty(), "only writes carry data"),
        }
        Some(self)
    }
}

/// Fetches items: answered with a `VALUE` block per hit, in the order of the keys, then `END`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get<'a> {
    /// One key or more, all of them valid.
    pub keys: Keys<'a>,
    /// `gets` and `gats`: each block carries the item's cas.
    pub with_cas: bool,
    /// `gat` and `gats`: the items found get this expiry.
    pub touch: Option<Exptime>,
}

/// Writes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store<'a> {
    /// Under which condition, or in which way.
    pub mode: StoreMode,
    /// The item.
    pub key: Key<'a>,
    /// What the client wants back with the value. Means nothing to `append` and `prepend`.
    pub client_flags: u32,
    /// When the item expires. Means nothing to `append` and `prepend`.
    pub exptime: Exptime,
    /// `cas`: the item must still have this cas. The mode is then [`StoreMode::Set`].
    pub compare_cas: Option<u64>,
    /// The value, without its line end.
    pub data: &'a [u8],
    /// No answer is wanted.
    pub noreply: bool,
}

/// The ways to write a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StoreMode {
    /// Whatever is there.
    #[default]
    Set,
    /// Only if nothing is there.
    Add,
    /// Only if something is there.
    Replace,
    /// After the value that is there.
    Append,
    /// Before the value that is there.
    Prepend,
}

/// Changes a decimal number in place; answered with the new number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arithmetic<'a> {
    /// Up or down.
    pub direction: Direction,
    /// The item.
    pub key: Key<'a>,
    /// By how much.
    pub delta: u64,
    /// No answer is wanted.
    pub noreply: bool,
}

/// Which way a number goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Up, wrapping at 2^64.
    #[default]
    Increment,
    /// Down, stopping at 0.
    Decrement,
}

/// Gives an item a new expiry without fetching it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch<'a> {
    /// The item.
    pub key: Key<'a>,
    /// Its new expiry.
    pub exptime: Exptime,
    /// No answer is wanted.
    pub noreply: bool,
}

/// Removes an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delete<'a> {
    /// The item.
    pub key: Key<'a>,
    /// No answer is wanted.
    pub noreply: bool,
}

/// Invalidates every item there is, now or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushAll {
    /// When. [`Exptime::Never`] (0, or no number) and [`Exptime::Immediate`] mean now.
    pub delay: Exptime,
    /// No answer is wanted.
    pub noreply: bool,
}

/// How a server is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// `shutdown`.
    Now,
    /// `shutdown graceful`: what is in memory is kept where a file is there to keep it.
    Graceful,
}

/// What an administrator asks for, beside statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdminCommand {
    /// `watch`: what happens, as it happens.
    Watch,
    /// `lru_crawler`: keys or items listed, expired ones removed.
    LruCrawler,
    /// `lru`: how memcached's segments of the LRU are sized.
    Lru,
    /// `slabs`: how memcached's pages are moved between classes.
    Slabs,
    /// `debugtime`: another time of day.
    DebugTime,
}

impl AdminCommand {
    /// Every one of them.
    pub const ALL: [Self; 5] =
        [Self::Watch, Self::LruCrawler, Self::Lru, Self::Slabs, Self::DebugTime];

    /// Its name on the line.
    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::Watch => b"watch",
            Self::LruCrawler => b"lru_crawler",
            Self::Lru => b"lru",
            Self::Slabs => b"slabs",
            Self::DebugTime => b"debugtime",
        }
    }
}

/// Sets how much the server logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verbosity {
    /// The level asked for.
    pub level: u32,
    /// No answer is wanted.
    pub noreply: bool,
}

/// Sets how much memory the server may take for items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// In MiB, as `-m` is.
    pub mebibytes: u32,
    /// No answer is wanted.
    pub noreply: bool,
}
