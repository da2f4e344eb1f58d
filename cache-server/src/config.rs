//! `Config`: what a server is asked to be, checked once and then passed down in parts.
//!
//! Sizes are bytes and times carry their unit, whatever the flag's spelling was: [`crate::cli`]
//! turns memcached's flags into this.

mod cluster;
mod inspection;
mod knobs;
mod tls;

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

pub use protocol::Dialect;
use store::Geometry;

pub use self::cluster::{
    ADMIN_PORT_OFFSET, ClusterConfig, ClusterStart, Endpoint, PEER_PORT_OFFSET, TokenSource,
    WEIGHT_DEFAULT, ZONE_BYTES_MAX,
};
pub use self::inspection::{DEBUG_BUILD, Inspection, TEST_CLOCK_VARIABLE};
pub use self::knobs::{FlashKnobs, Knobs};
pub use self::tls::{
    KeyFormat, OUTPUT_BYTES_DEFAULT as TLS_OUTPUT_BYTES_DEFAULT, Protection, TlsConfig, TlsVersion,
    VerifyMode,
};
use crate::net::RING_BYTES_MAX;
use crate::net::gate::Entrance;

/// The level of memcached whose protocol the server speaks: the answer to `version`.
///
/// Clients read features off this number, not off the product's name: several switch to newer
/// behaviour from 1.4.14 on, and the meta commands came with 1.6. So it names the memcached release
/// that the commands were compared with; the product's own version is `cache-server -V`.
pub const PROTOCOL_VERSION: &str = "1.6.45";

/// The eviction policy when `--eviction` is not given.
pub const EVICTION_DEFAULT: eviction::Kind = eviction::Kind::WTinyLfu;

/// The port when neither `-p` nor `-l` names one: memcached's.
pub const PORT_DEFAULT: u16 = 11211;

/// Requests in a turn when `-R` is not given. A client that is alone is not held to it then.
pub const REQUESTS_PER_TURN_DEFAULT: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// The smallest `-I`.
pub const ITEM_BYTES_FLOOR: usize = 1024;

/// The largest `-I`.
pub const ITEM_BYTES_CEILING: usize = 1 << 30;

const MIB: usize = 1 << 20;

/// What a server is asked to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// TCP addresses to serve at; empty when only a UNIX socket is served, or only UDP (`-p 0`).
    pub listen: Vec<Listen>,
    /// UDP addresses to serve at: those of `-l`, at the port of `-U` unless they name one.
    pub udp: Vec<Listen>,
    /// Whether TCP addresses are served under TLS, and how (`-Z`). All else is plain.
    pub tls: Option<TlsConfig>,
    /// UNIX socket to serve at.
    pub unix_socket: Option<UnixSocket>,
    /// Length of each listening socket's queue of connections not yet accepted.
    pub backlog: u32,
    /// What is spoken (`-B`), at addresses that say nothing else.
    pub dialect: Dialect,
    /// Whether clients have to say who they are (`-S`, `-Y`).
    pub authentication: Authentication,
    /// Whether `shutdown` is obeyed (`-A`).
    pub allows_shutdown: bool,
    /// Whether `flush_all` is obeyed (`-F` forbids it).
    pub allows_flush: bool,
    /// Memory for items, overhead included, in bytes (`-m`).
    pub memory_bytes: usize,
    /// Whether items are evicted for new ones; if not, a full cache refuses writes (`-M`).
    pub evicts: bool,
    /// Which items are evicted.
    pub eviction: eviction::Kind,
    /// Whose items leave last, and only for each other.
    pub protected: store::Protected,
    /// The largest item, key and overhead included, in bytes (`-I`).
    pub item_bytes_max: usize,
    /// The file in which the items live (`-e`), so that they outlive the server.
    pub memory_file: Option<PathBuf>,
    /// Whether to start only if the memory file brings items back (`--require-warm`).
    pub require_warm: bool,
    /// How often the memory file is written to its device (`--sync-interval`); never, if zero.
    pub sync_interval: Duration,
    /// Clients served at the same time (`-c`).
    pub connections_max: NonZeroU32,
    /// Worker threads (`-t`).
    pub threads: NonZeroUsize,
    /// Requests one connection may have answered before the others get their turn (`-R`).
    pub requests_per_turn: NonZeroU32,
    /// What reads and writes clients' sockets (`--io`).
    pub io: IoChoice,
    /// Whether it keeps the hit ratio at other sizes, of its own traffic (`--no-live-curve`).
    pub live_curve: bool,
    /// A backup written now and then.
    pub backup: Option<BackupConfig>,
    /// How often `-v` was given.
    pub verbosity: u8,
    /// What clients may look into.
    pub inspection: Inspection,
    /// What is told of memcached's internals.
    pub knobs: Knobs,
    /// What the log says at the start: flags that do nothing here, and why.
    pub warnings: Vec<String>,
    /// Bounds on what connections may hold.
    pub limits: Limits,
    /// What is asked of the operating system for the process as a whole.
    pub process: ProcessConfig,
    /// The cluster that the server is a node of; `None` if it is alone.
    pub cluster: Option<ClusterConfig>,
}

impl Default for Config {
    /// What a server is when no flag is given: memcached's defaults, but only on loopback.
    fn default() -> Self {
        Self {
            listen: vec![Listen::loopback(PORT_DEFAULT)],
            udp: Vec::new(),
            tls: None,
            unix_socket: None,
            backlog: 1024,
            dialect: Dialect::Auto,
            authentication: Authentication::None,
            allows_shutdown: false,
            allows_flush: true,
            memory_bytes: 64 * MIB,
            evicts: true,
            eviction: EVICTION_DEFAULT,
            protected: store::Protected::NONE,
            item_bytes_max: MIB,
            memory_file: None,
            require_warm: false,
            sync_interval: Duration::ZERO,
            connections_max: const { NonZeroU32::new(1024).unwrap() },
            threads: const { NonZeroUsize::new(4).unwrap() },
            requests_per_turn: REQUESTS_PER_TURN_DEFAULT,
            io: IoChoice::Auto,
            live_curve: true,
            backup: None,
            verbosity: 0,
            inspection: Inspection::default(),
            knobs: Knobs::default(),
            warnings: Vec::new(),
            limits: Limits::default(),
            process: ProcessConfig::default(),
            cluster: None,
        }
    }
}

impl Config {
    /// What resident memory may exceed `-m` by, in bytes: the other half of the promise
    /// "resident memory stays within `-m` plus the allowance".
    ///
    /// ```text
    /// allowance = program and runtimes, 16 MiB
    ///           + per worker, its two shared buffers, its stack, its copies of hot items, its ring's buffers
    ///           + per connection, 4 KiB for its task and its place in tables (1.4 KiB measured)
    ///           + per connection under TLS, 16 KiB for keys and records (9 to 15 KiB measured)
    ///           + connections' own buffers, bounded by `Limits::buffer_bytes_max`
    /// ```
    pub fn allowance_bytes(&self) -> usize {
        let ring_bytes = if self.io == IoChoice::Epoll { 0 } else { RING_BYTES_MAX };
        let worker_bytes = 3 * MIB + ring_bytes + self.item_bytes_max;
        let connection_bytes = if self.tls.is_some() { (4 + 16) << 10 } else { 4 << 10 };
        16 * MIB
            + self.threads.get() * worker_bytes
            + self.connections_max.get() as usize * connection_bytes
            + self.buffer_bytes_max()
    }

    /// How the memory for items is cut into shards and segments.
    pub fn geometry(&self) -> Geometry {
        let threads = u32::try_from(self.threads.get()).unwrap_or(u32::MAX);
        Geometry::new(self.memory_bytes as u64, self.item_bytes_max as u64, threads)
    }

    /// Where clients come in.
    pub fn entrance(&self) -> Entrance {
        match self.authentication {
            Authentication::None => Entrance::Open(self.dialect),
            Authentication::File(_) => Entrance::Text,
            Authentication::Sasl { .. } => Entrance::Sasl,
        }
    }

    /// What the buffers of all connections may take together, in bytes.
    pub fn buffer_bytes_max(&self) -> usize {
        // A few of the largest items must fit at once, or a raised `-I` could never be used.
        self.limits.buffer_bytes_max.max(self.item_bytes_max.saturating_mul(4))
    }
}

/// A TCP address to serve at, as it was asked for; resolved when it is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// A name or an address; `None` is every address of this machine.
    pub host: Option<String>,
    /// The port; zero is any free one.
    pub port: u16,
    /// Whether it is served under TLS; counts only where there is any.
    pub protection: Protection,
    /// What is spoken here, whatever `-B` says (`proto[...]`).
    pub dialect: Option<Dialect>,
}

impl Listen {
    /// `host`, or every address of this machine, at `port`, protected as is usual.
    pub fn new(host: Option<String>, port: u16) -> Self {
        Self { host, port, protection: Protection::Usual, dialect: None }
    }

    /// Reachable from this machine alone.
    pub fn loopback(port: u16) -> Self {
        Self::new(Some("127.0.0.1".to_owned()), port)
    }
}

/// Whether clients have to say who they are, and who knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authentication {
    /// Everybody is served.
    #[default]
    None,
    /// With a user and a password of this file (`-Y`), over the text protocol.
    File(PathBuf),
    /// Over SASL (`-S`), which the binary protocol has.
    Sasl {
        /// The users and their passwords (`MEMCACHED_SASL_PWDB`). Without it nobody is let in.
        password_file: Option<PathBuf>,
    },
}

/// A UNIX socket to serve at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// Its path. A socket that nobody serves any more is replaced.
    pub path: PathBuf,
    /// Its access mode, such as `0o700`.
    pub mode: u32,
}

/// What reads and writes clients' sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// `io_uring` where the kernel lets us, else epoll: but for large writes it costs less, as measured
    /// (`docs/network.md`).
    #[default]
    Auto,
    /// epoll, as any kernel has it.
    Epoll,
    /// `io_uring`, or no server.
    Uring,
}

/// A backup that the server writes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupConfig {
    /// The file (`--backup-file`). Each backup takes the place of the one before.
    pub file: PathBuf,
    /// The time from the end of one backup to the start of the next (`--backup-interval`).
    pub interval: Duration,
}

/// The interval between backups when `--backup-interval` is not given.
pub const BACKUP_INTERVAL_DEFAULT: Duration = Duration::from_secs(3600);

/// Bounds on what connections may hold. None of them is met in ordinary use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Buffers of all connections together, in bytes. Beyond it a value is refused with
    /// `SERVER_ERROR out of memory storing object`, and a client that does not read is dropped.
    pub buffer_bytes_max: usize,
    /// Answers waiting to be sent to one client, in bytes, beyond which none of its requests is
    /// decoded: the slow reader waits for itself.
    pub output_bytes_high: usize,
    /// How long a client may take nothing of its answers before it is dropped.
    pub write_timeout: Duration,
    /// The same while buffers are scarce: whoever holds memory and does not read goes first.
    pub write_timeout_scarce: Duration,
    /// How long a client may take for its TLS handshake.
    pub handshake_timeout: Duration,
    /// How long an orderly stop waits for clients to take their last answers.
    pub stop_timeout: Duration,
    /// How long a client may be silent before it is closed (`-o idle_timeout`); for ever, if `None`.
    pub idle_timeout: Option<Duration>,
    /// Whether a client beyond `-c` is told so and closed, or waits until another one leaves
    /// (`-o no_maxconns_fast`).
    pub refuses_fast: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            buffer_bytes_max: 32 * MIB,
            // Large enough that a write fills the socket's buffer, small enough that a thousand
            // slow readers of small values stay within `buffer_bytes_max` by pausing.
            output_bytes_high: 256 << 10,
            write_timeout: Duration::from_secs(30),
            write_timeout_scarce: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(5),
            idle_timeout: None,
            refuses_fast: true,
        }
    }
}

/// What is asked of the operating system for the process as a whole.
#[derive(Clone, Debug, Default)]
pub struct ProcessConfig {
    /// The user to run as (`-u`); obeyed when started as root, required then.
    pub user: Option<String>,
    /// Run in the background (`-d`).
    pub daemon: bool,
    /// Where to write the process id (`-P`).
    pub pid_file: Option<PathBuf>,
    /// Keep all memory out of swap (`-k`).
    pub lock_memory: bool,
    /// Raise the limit on core files (`-r`).
    pub core_dumps: bool,
    /// Stop when the process that started this one ends (`--stop-with-parent`).
    pub stop_with_parent: bool,
}
