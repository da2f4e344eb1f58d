//! The memory file (`-e`): opened at the start, with whatever an earlier server left in it.
//!
//! ```text
//! no file                                   -> a new one, cold
//! a file of other shards or segments        -> each item into a new file, which takes its place
//! any other file of ours                    -> its shards as they are, more or less memory in them
//! one of another format or cluster, damaged -> set aside as PATH.refused, and a new one, cold
//! somebody else's file                      -> an error: it is left alone
//! ```
//!
//! Where there is no room for a second file the shards stay as they were cut: the items matter more
//! than the number of shards.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use eviction::Kind;
use store::Geometry;
use store::arena::{CacheFile, Durability, Existing, OpenError};
use store::snapshot::{Snapshot, SnapshotName};
use store::superblock::{PolicyName, Superblock, SuperblockError};

use crate::backup::fresh_cache_id;
use crate::clock::Now;
use crate::config::Config;

/// Why a server cannot use its memory file.
#[derive(Debug, thiserror::Error)]
pub enum MemoryFileError {
    /// The file cannot be opened or made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be made larger, or set aside.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Nothing can be brought back, and `--require-warm` was given.
    #[error("{} brings nothing back ({reason}), and --require-warm was given", path.display())]
    Cold {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: Reason,
    },
}

/// Why the restart is what it is: one word of `stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There was no file.
    NewFile,
    /// The server before stopped in order.
    CleanStop,
    /// The server before was killed.
    Killed,
    /// The machine stopped, and the server before with it.
    MachineRestart,
    /// The file is of another version.
    OtherFormat,
    /// The file belongs to another cluster.
    OtherCluster,
    /// Neither copy of the file's superblock is whole.
    DamagedSuperblock,
}

impl Reason {
    /// Whether there is something to bring back.
    pub fn is_warm(self) -> bool {
        matches!(self, Self::CleanStop | Self::Killed | Self::MachineRestart)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NewFile => "new_file",
            Self::CleanStop => "clean_stop",
            Self::Killed => "killed",
            Self::MachineRestart => "machine_restart",
            Self::OtherFormat => "other_format",
            Self::OtherCluster => "other_cluster",
            Self::DamagedSuperblock => "damaged_superblock",
        })
    }
}

/// A memory file, ready for shards.
pub struct MemoryFile {
    /// The file; with [`Self::successor`] the one that is to be replaced.
    pub file: CacheFile,
    /// The file whose shards are cut as is wanted now, where the old one's are not.
    pub successor: Option<CacheFile>,
    /// How the shards in `file` were cut, and their policy.
    pub written: Written,
    /// How the shards are to be cut.
    pub geometry: Geometry,
    /// Why the restart is what it is.
    pub reason: Reason,
    /// The snapshot that belongs to the segments.
    pub snapshot: Option<Arc<Snapshot>>,
    /// By how much the clock is behind the time when the file was last in use, in milliseconds.
    pub clock_back_ms: u64,
}

/// What the shards in a file were written with.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// How the memory was cut.
    pub geometry: Geometry,
    /// The policy.
    pub policy: Kind,
}

impl MemoryFile {
    /// Opens the memory file at `path`, or makes it, for a server of this `config`.
    ///
    /// # Errors
    ///
    /// When it cannot be used; what it holds is not lost then.
    pub fn open(path: &Path, config: &Config, now: Now) -> Result<Self, MemoryFileError> {
        let refused = match CacheFile::open(path) {
            Ok(Some(file)) if file.superblock().cluster_id == CLUSTER_ID => {
                return Self::reopen(file, config, now);
            }
            Ok(Some(_)) => Reason::OtherCluster,
            Ok(None) => return Self::create(path, config, Reason::NewFile, now),
            Err(OpenError::Superblock { path, source }) => match source {
                SuperblockError::Format { .. } => Reason::OtherFormat,
                SuperblockError::Damaged => Reason::DamagedSuperblock,
                SuperblockError::NotACacheFile => {
                    return Err(OpenError::Superblock { path, source }.into());
                }
            },
            Err(error) => return Err(error.into()),
        };
        if config.require_warm {
            return Err(MemoryFileError::Cold { path: path.to_owned(), reason: refused });
        }
        let aside = set_aside(path, refused)?;
        match Self::create(path, config, refused, now) {
            Err(MemoryFileError::Open(OpenError::Reserve { .. })) => {
                tracing::warn!("there is no room beside {}: it is removed", aside.display());
                fs::remove_file(&aside).map_err(|source| MemoryFileError::Io {
                    action: "remove",
                    path: aside,
                    source,
                })?;
                Self::create(path, config, refused, now)
            }
            created => created,
        }
    }

    fn create(
        path: &Path,
        config: &Config,
        reason: Reason,
        now: Now,
    ) -> Result<Self, MemoryFileError> {
        if config.require_warm {
            return Err(MemoryFileError::Cold { path: path.to_owned(), reason });
        }
        let geometry = config.geometry();
        let superblock = superblock(config, geometry, fresh_cache_id().number(), now);
        let file = CacheFile::create(path, superblock, Existing::Keep)?;
        tracing::info!(path = %file.path().display(), %reason, "a new memory file, nothing to restore");
        let written = Written { geometry, policy: config.eviction };
        let (successor, snapshot) = (None, None);
        Ok(Self { file, successor, written, geometry, reason, snapshot, clock_back_ms: 0 })
    }

    fn reopen(file: CacheFile, config: &Config, now: Now) -> Result<Self, MemoryFileError> {
        let before = file.superblock();
        let written = Written {
            geometry: Geometry {
                shard_count: before.shard_count,
                shard_bytes: before.shard_bytes,
                segment_bytes: before.segment_bytes,
            },
            // A policy that this build does not know has no order that could be taken over.
            policy: Kind::ALL
                .into_iter()
                .find(|kind| kind.name() == before.policy.as_str())
                .unwrap_or(config.eviction),
        };
        let wanted = config.geometry();
        let has_room = wanted.segment_count() <= before.extents.iter().sum() || file.can_grow();
        let is_cut_alike = wanted.shard_count == before.shard_count
            && wanted.segment_bytes == before.segment_bytes
            && has_room;
        let successor = if is_cut_alike { None } else { successor(&file, config, wanted, now)? };
        let geometry = if is_cut_alike || successor.is_some() {
            wanted
        } else {
            written.geometry.with_memory(config.memory_bytes as u64)
        };
        let snapshot = before.clean.and_then(|snapshot_id| open_snapshot(&file, snapshot_id));
        let reason = match before.clean {
            Some(_) => Reason::CleanStop,
            None if before.boot_id == boot_id() => Reason::Killed,
            None => Reason::MachineRestart,
        };
        if file.truncated_bytes() > 0 {
            let bytes = file.truncated_bytes();
            tracing::warn!(bytes, "the memory file was truncated; what stood there is lost");
        }
        let clock_back_ms = before.seen_unix_ms.saturating_sub(now.unix_ms);
        if clock_back_ms > CLOCK_BACK_MS_MAX {
            tracing::warn!(
                clock_back_ms,
                "the clock is behind the time when the memory file was last in use; items live on \
                 for as much longer"
            );
        }
        let memory_file =
            Self { file, successor, written, geometry, reason, snapshot, clock_back_ms };
        if memory_file.successor.is_none() {
            memory_file.reserve()?;
        }
        Ok(memory_file)
    }

    /// Gives the file the room that it is to have. Where there is none, the file and its snapshot stay
    /// as they are.
    fn reserve(&self) -> Result<(), MemoryFileError> {
        let have: u32 = self.file.superblock().extents.iter().sum();
        let wanted = self.geometry.segment_count();
        if wanted <= have {
            return Ok(());
        }
        self.file.grow(wanted - have).map_err(|source| MemoryFileError::Io {
            action: "reserve more memory in",
            path: self.file.path().to_owned(),
            source,
        })
    }

    /// What the server before counted; nothing where it was killed.
    pub fn saved_counters(&self) -> String {
        let owner = self.written.geometry.shard_count;
        let section = self.snapshot.as_ref().and_then(|snapshot| snapshot.section(owner).ok());
        section.map_or_else(String::new, |bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The id of the cache whose items the file holds.
    pub fn cache_id(&self) -> u128 {
        self.file.superblock().cache_id
    }
}

/// Marks a file as in use, by shards that are cut and ranked so: before the first write to a segment,
/// and on the device before it, since the snapshot does not describe what comes then.
///
/// # Errors
///
/// When the file cannot be written.
pub fn take_into_use(file: &CacheFile, config: &store::Config, now: Now) -> io::Result<()> {
    let durability = match file.superblock().clean {
        Some(_) => Durability::Power,
        None => Durability::Process,
    };
    file.update(durability, |superblock| {
        superblock.clean = None;
        superblock.boot_id = boot_id();
        superblock.seen_unix_ms = superblock.seen_unix_ms.max(now.unix_ms);
        superblock.shard_bytes = config.geometry.shard_bytes;
        superblock.item_bytes_max = config.item_bytes_max;
        superblock.policy = policy_name(config.policy);
    })
}

/// No cluster: the only one there is so far.
const CLUSTER_ID: u128 = 0;
/// A clock that is set by the network steps back by less than this in ordinary use.
const CLOCK_BACK_MS_MAX: u64 = 2_000;

/// The file beside `file` whose shards are cut as `wanted`; `None` where there is no room for both.
fn successor(
    file: &CacheFile,
    config: &Config,
    wanted: Geometry,
    now: Now,
) -> Result<Option<CacheFile>, MemoryFileError> {
    let cache_id = file.superblock().cache_id;
    match file.create_successor(superblock(config, wanted, cache_id, now)) {
        Ok(successor) => Ok(Some(successor)),
        Err(error @ OpenError::Reserve { .. }) => {
            tracing::warn!(
                "the memory file's {} shards stay as they are, with the memory asked for: {:#}",
                file.superblock().shard_count,
                anyhow::Error::new(error)
            );
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn superblock(config: &Config, geometry: Geometry, cache_id: u128, now: Now) -> Superblock {
    Superblock {
        generation: 0,
        cache_id,
        cluster_id: CLUSTER_ID,
        boot_id: boot_id(),
        shard_count: geometry.shard_count,
        segment_bytes: geometry.segment_bytes,
        shard_bytes: geometry.shard_bytes,
        item_bytes_max: config.item_bytes_max as u64,
        policy: policy_name(config.eviction),
        extents: vec![geometry.segment_count()],
        clean: None,
        seen_unix_ms: now.unix_ms,
    }
}

fn policy_name(policy: Kind) -> PolicyName {
    let Some(name) = PolicyName::new(policy.name()) else {
        unreachable!("names of policies are short and plain")
    };
    name
}

fn open_snapshot(file: &CacheFile, snapshot_id: u64) -> Option<Arc<Snapshot>> {
    let superblock = file.superblock();
    let name = SnapshotName {
        cache_id: superblock.cache_id,
        snapshot_id,
        shard_count: superblock.shard_count,
    };
    match Snapshot::open(&file.snapshot_path(), name) {
        Ok(snapshot) => Some(Arc::new(snapshot)),
        Err(error) => {
            let error = anyhow::Error::new(error);
            tracing::warn!("the memory file is walked although it was left in order: {error:#}");
            None
        }
    }
}

/// Gives a file that is refused another name, so that nothing in it is lost.
fn set_aside(path: &Path, reason: Reason) -> Result<PathBuf, MemoryFileError> {
    let path = CacheFile::path_for(path);
    // What a link leads to is meant, and not the link.
    let path = fs::canonicalize(&path).unwrap_or(path);
    let numbered = |number: u32| {
        let mut aside = path.clone().into_os_string();
        aside.push(if number == 0 { ".refused".into() } else { format!(".refused-{number}") });
        PathBuf::from(aside)
    };
    let aside = (0..).map(numbered).find(|aside| !aside.exists()).unwrap_or_else(|| numbered(0));
    fs::rename(&path, &aside).map_err(|source| MemoryFileError::Io {
        action: "set aside",
        path: path.clone(),
        source,
    })?;
    tracing::warn!(%reason, "{} is refused and set aside as {}", path.display(), aside.display());
    Ok(aside)
}

/// Tells one start of the machine from another; 0 where the system does not.
fn boot_id() -> u128 {
    let Ok(text) = fs::read_to_string("/proc/sys/kernel/random/boot_id") else { return 0 };
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or_default()
}
