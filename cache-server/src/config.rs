//! `Config`: what a server is asked to be, checked once and then passed down in parts.
//!
//! Sizes are bytes and times carry their unit, whatever the flag's spelling was: [`crate::cli`]
//! turns memcached's flags into this.

mod cluster;

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use store::Geometry;

pub use self::cluster::{
    ADMIN_PORT_OFFSET, ClusterConfig, ClusterStart, Endpoint, PEER_PORT_OFFSET, TokenSource,
    WEIGHT_DEFAULT, ZONE_BYTES_MAX,
};

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

/// The smallest `-I`.
pub const ITEM_BYTES_FLOOR: usize = 1024;

/// The largest `-I`.
pub const ITEM_BYTES_CEILING: usize = 1 << 30;

const MIB: usize = 1 << 20;

/// What a server is asked to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// TCP addresses to serve at; empty when only a UNIX socket is served.
    pub listen: Vec<Listen>,
    /// UNIX socket to serve at.
    pub unix_socket: Option<UnixSocket>,
    /// Length of each listening socket's queue of connections not yet accepted.
    pub backlog: u32,
    /// Memory for items, overhead included, in bytes (`-m`).
    pub memory_bytes: usize,
    /// Whether items are evicted for new ones; if not, a full cache refuses writes (`-M`).
    pub evicts: bool,
    /// Which items are evicted.
    pub eviction: eviction::Kind,
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
    /// Whether it keeps the hit ratio at other sizes, of its own traffic (`--no-live-curve`).
    pub live_curve: bool,
    /// A backup written now and then.
    pub backup: Option<BackupConfig>,
    /// How often `-v` was given.
    pub verbosity: u8,
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
            unix_socket: None,
            backlog: 1024,
            memory_bytes: 64 * MIB,
            evicts: true,
            eviction: EVICTION_DEFAULT,
            item_bytes_max: MIB,
            memory_file: None,
            require_warm: false,
            sync_interval: Duration::ZERO,
            connections_max: const { NonZeroU32::new(1024).unwrap() },
            threads: const { NonZeroUsize::new(4).unwrap() },
            requests_per_turn: const { NonZeroU32::new(20).unwrap() },
            live_curve: true,
            backup: None,
            verbosity: 0,
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
    ///           + per worker, its two shared buffers and its stack
    ///           + per connection, 4 KiB for its task and its place in tables (1.4 KiB measured)
    ///           + connections' own buffers, bounded by `Limits::buffer_bytes_max`
    /// ```
    pub fn allowance_bytes(&self) -> usize {
        let worker_bytes = 3 * MIB + self.item_bytes_max;
        16 * MIB
            + self.threads.get() * worker_bytes
            + self.connections_max.get() as usize * 4096
            + self.buffer_bytes_max()
    }

    /// How the memory for items is cut into shards and segments.
    pub fn geometry(&self) -> Geometry {
        let threads = u32::try_from(self.threads.get()).unwrap_or(u32::MAX);
        Geometry::new(self.memory_bytes as u64, self.item_bytes_max as u64, threads)
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
}

impl Listen {
    /// Reachable from this machine alone.
    pub fn loopback(port: u16) -> Self {
        Self { host: Some("127.0.0.1".to_owned()), port }
    }
}

/// A UNIX socket to serve at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// Its path. A socket that nobody serves any more is replaced.
    pub path: PathBuf,
    /// Its access mode, such as `0o700`.
    pub mode: u32,
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
    /// How long an orderly stop waits for clients to take their last answers.
    pub stop_timeout: Duration,
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
            stop_timeout: Duration::from_secs(5),
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
