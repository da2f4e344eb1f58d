//! The file of a node's Raft log: looked at before it is opened, written a transaction at a time.
//!
//! ```text
//! about   identity   format, cluster, node
//!         vote       the last vote given
//!         committed  how far the log was known to be committed
//!         purged     the last entry dropped after a snapshot
//!         snapshot   meta data and map
//! log     index → entry, without a hole
//! ```
//!
//! All values are encoded with postcard. The database keeps a checksum of every page; all of them are
//! checked when it is opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::{fs, io, thread};

use cluster::{ClusterId, NodeId};
use parking_lot::Mutex;
use redb::backends::InMemoryBackend;
use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, TableError,
};
use serde::{Deserialize, Serialize};

use super::{Entry, Logged, Memory, encode};

/// The format of the file. Another format is refused.
const FORMAT: u32 = 1;

/// A file larger than this is not a Raft log of ours: snapshots keep it to a few times the map.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Pages of the file kept in memory. All that is read later is in [`Memory`] anyway.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

const IDENTITY: &str = "identity";
pub(in super::super) const VOTE: &str = "vote";
pub(super) const COMMITTED: &str = "committed";
pub(super) const PURGED: &str = "purged";
pub(super) const SNAPSHOT: &str = "snapshot";

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Which node of it.
    pub node: NodeId,
}

/// Where writes are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// On a thread of their own: an fsync then keeps nobody waiting who does not need it.
    Thread,
    /// On the caller's thread, before the call returns: nothing depends on how threads are scheduled.
    /// For tests.
    Inline,
}

/// Why the Raft log cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no file.
    #[error(
        "there is no {path}: without its Raft log a node cannot come back under its id, and joins anew"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A file to be made is there already.
    #[error(
        "{path} is there already: this node has an identity, start it without --init and --join"
    )]
    Present {
        /// Which file.
        path: PathBuf,
    },
    /// Another process has it.
    #[error("{path} is in use by another process")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// It is not a Raft log of this program, or it is damaged.
    #[error("{path} cannot be used as the Raft log of this node: {reason}")]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// It belongs to somebody else.
    #[error(
        "{path} is the Raft log of node {} of cluster {}, and this is node {} of cluster {}",
        found.node, found.cluster, expected.node, expected.cluster
    )]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        found: Identity,
        /// Who asked.
        expected: Identity,
    },
    /// The operating system refused.
    #[error("cannot open {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// What the file lies on: a file system, or a simulated disk that is slow, fails, and forgets what was
/// not synced.
pub(in super::super) trait Disk {
    /// What the file is called.
    fn path(&self) -> &Path;

    /// Makes the file, which appears under its name when it is whole.
    fn make(&self, identity: Identity) -> Result<(), OpenError>;

    /// The file as it is, in memory.
    fn copy(&self) -> Result<InMemoryBackend, OpenError>;

    /// Opens a file that was inspected.
    fn open(&self) -> Result<Database, OpenError>;

    /// Has what is handed to the writer written to `file`.
    fn start(&self, file: File) -> io::Result<Writer>;
}

/// A file where its path says.
pub(super) struct FileSystem<'a> {
    pub(super) path: &'a Path,
    pub(super) writing: Writing,
}

impl Disk for FileSystem<'_> {
    fn path(&self) -> &Path {
        self.path
    }

    fn make(&self, identity: Identity) -> Result<(), OpenError> {
        let path = self.path;
        if path.exists() {
            return Err(OpenError::Present { path: path.into() });
        }
        let unfinished = path.with_extension("new");
        match fs::remove_file(&unfinished) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::Io { path: unfinished, source });
            }
            _ => {}
        }
        let made = builder()
            .create(&unfinished)
            .map_err(redb::Error::from)
            .and_then(|database| write_identity(&database, identity))
            .and_then(|()| sync(&unfinished).map_err(redb::Error::Io));
        made.map_err(|error| opening(&unfinished, error))?;
        let renamed = fs::rename(&unfinished, path).and_then(|()| sync_directory_of(path));
        renamed.map_err(|source| OpenError::Io { path: path.into(), source })
    }

    fn copy(&self) -> Result<InMemoryBackend, OpenError> {
        copy_of(self.path)
    }

    fn open(&self) -> Result<Database, OpenError> {
        builder().open(self.path).map_err(|error| opening(self.path, error.into()))
    }

    fn start(&self, mut file: File) -> io::Result<Writer> {
        Ok(match self.writing {
            Writing::Inline => {
                let file = Mutex::new(file);
                Box::new(move |job| file.lock().commit(vec![job]))
            }
            Writing::Thread => {
                // The thread ends when the sender goes, and is not waited for: it may be in an fsync that
                // hangs.
                let (sender, jobs) = mpsc::channel::<Job>();
                thread::Builder::new().name("raft-log".into()).spawn(move || {
                    while let Ok(first) = jobs.recv() {
                        file.commit(std::iter::once(first).chain(jobs.try_iter()).collect());
                    }
                })?;
                Box::new(move |job| {
                    if let Err(refused) = sender.send(job) {
                        (refused.0.done)(Err(writer_is_gone()));
                    }
                })
            }
        })
    }
}

pub(in super::super) fn builder() -> Builder {
    let mut builder = Builder::new();
    // Bits that the device turned are then an error here and not a panic later.
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

pub(in super::super) fn write_identity(
    database: &Database,
    identity: Identity,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(LOG)?;
    let bytes = encode(&(FORMAT, identity)).map_err(redb::Error::Io)?;
    transaction.open_table(ABOUT)?.insert(IDENTITY, bytes.as_slice())?;
    transaction.commit()?;
    Ok(())
}

fn sync(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    sync(directory)
}

/// Reads all there is from a copy of the file in memory: recovering from a crash writes to it, and a file
/// that is not ours, or beyond recovery, is none of our business to write to.
pub(super) fn inspect(disk: &impl Disk, identity: Identity) -> Result<Memory, OpenError> {
    let path = disk.path();
    let unusable = |reason: String| OpenError::Unusable { path: path.into(), reason };
    let copy = disk.copy()?;
    // The copy is in memory: whatever cannot be read of it is not in the file.
    let damaged = |error: redb::Error| unusable(error.to_string());
    let database = builder().create_with_backend(copy).map_err(|error| damaged(error.into()))?;
    let contents = read_all(&database).map_err(|error| match error {
        ReadError::Database(error) => damaged(error),
        ReadError::Contents(reason) => unusable(reason),
    })?;
    let Contents { found, memory } = contents;
    if found != identity {
        return Err(OpenError::Foreign { path: path.into(), found, expected: identity });
    }
    Ok(memory)
}

fn copy_of(path: &Path) -> Result<InMemoryBackend, OpenError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => OpenError::Missing { path: path.into() },
        _ => OpenError::Io { path: path.into(), source },
    };
    let file = fs::File::open(path).map_err(failed)?;
    match file.try_lock_shared() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(OpenError::InUse { path: path.into() }),
        Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
    }
    let bytes = file.metadata().map_err(failed)?.len();
    if bytes == 0 || bytes > FILE_BYTES_MAX {
        let reason = format!("it has {bytes} bytes");
        return Err(OpenError::Unusable { path: path.into(), reason });
    }
    let contents = fs::read(path).map_err(failed)?;
    let backend = InMemoryBackend::new();
    let copied = backend.set_len(bytes).and_then(|()| backend.write(0, &contents));
    copied.map_err(failed)?;
    Ok(backend)
}

struct Contents {
    found: Identity,
    memory: Memory,
}

enum ReadError {
    Database(redb::Error),
    Contents(String),
}

impl<E: Into<redb::Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

fn read_all(database: &Database) -> Result<Contents, ReadError> {
    let transaction = database.begin_read()?;
    let about = match transaction.open_table(ABOUT) {
        Ok(about) => about,
        Err(TableError::Storage(error)) => return Err(error.into()),
        Err(error) => {
            return Err(ReadError::Contents(format!("another program wrote it: {error}")));
        }
    };
    let identity = about.get(IDENTITY)?;
    let Some(identity) = identity else {
        return Err(ReadError::Contents("it names no node".into()));
    };
    // The format stands first, and is read alone: what follows may look otherwise in another one.
    let (format, rest) = postcard::take_from_bytes::<u32>(identity.value())
        .map_err(|error| ReadError::Contents(format!("its identity: {error}")))?;
    if format != FORMAT {
        let reason = format!("it has format {format}, this build reads format {FORMAT}");
        return Err(ReadError::Contents(reason));
    }
    let found = part("identity", rest)?;
    let mut memory = Memory {
        vote: optional_part(&about, VOTE)?,
        committed: optional_part(&about, COMMITTED)?,
        purged: optional_part(&about, PURGED)?,
        snapshot: optional_part(&about, SNAPSHOT)?,
        log: BTreeMap::new(),
        replaced: 0,
    };
    for item in transaction.open_table(LOG)?.iter()? {
        let (index, bytes) = item?;
        let entry: Entry = part("log", bytes.value())?;
        let index = index.value();
        let before = memory
            .log
            .last_key_value()
            .map_or_else(|| memory.purged.map(|purged| purged.index), |(before, _)| Some(*before));
        if entry.log_id.index != index || before.is_some_and(|before| before + 1 != index) {
            return Err(ReadError::Contents(format!("its log has a hole before entry {index}")));
        }
        memory.log.insert(index, Logged { entry, bytes: bytes.value().len() });
    }
    Ok(Contents { found, memory })
}

fn optional_part<T: for<'de> Deserialize<'de>>(
    about: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<Option<T>, ReadError> {
    about.get(name)?.map(|bytes| part(name, bytes.value())).transpose()
}

fn part<T: for<'de> Deserialize<'de>>(name: &str, bytes: &[u8]) -> Result<T, ReadError> {
    postcard::from_bytes(bytes).map_err(|error| ReadError::Contents(format!("its {name}: {error}")))
}

pub(in super::super) fn opening(path: &Path, error: redb::Error) -> OpenError {
    let path = path.into();
    match error {
        redb::Error::DatabaseAlreadyOpen => OpenError::InUse { path },
        redb::Error::Io(source) => OpenError::Io { path, source },
        other => OpenError::Unusable { path, reason: other.to_string() },
    }
}

// The writer.

pub(in super::super) enum Write {
    About(&'static str, Vec<u8>),
    Append(Vec<(u64, Vec<u8>)>),
    /// Drops the entries from this one on.
    Truncate(u64),
    /// Drops the entries up to and with this one.
    Purge(u64),
}

pub(in super::super) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

pub(in super::super) struct Job {
    pub(in super::super) writes: Vec<Write>,
    pub(in super::super) done: Done,
}

/// How many transactions were begun and ended. A watchdog that finds the same one open for too long knows
/// that the disk hangs.
#[derive(Default)]
pub(in super::super) struct Progress {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Progress {
    /// The transaction that is being written, if one is.
    pub(in super::super) fn open_transaction(&self) -> Option<u64> {
        let ended = self.ended.load(Ordering::Acquire);
        let begun = self.begun.load(Ordering::Acquire);
        (begun > ended).then_some(begun)
    }

    #[cfg(test)]
    pub(in super::super) fn of_a_disk_that_hangs() -> Arc<Self> {
        let progress = Self::default();
        progress.hang();
        Arc::new(progress)
    }

    /// From now on one more transaction is begun than ended, until [`Progress::come_back`].
    #[cfg(test)]
    pub(in super::super) fn hang(&self) {
        self.begun.fetch_add(1, Ordering::Release);
    }

    #[cfg(test)]
    pub(in super::super) fn come_back(&self) {
        self.ended.fetch_add(1, Ordering::Release);
    }

    #[cfg(test)]
    pub(in super::super) fn next(&self) {
        self.ended.fetch_add(1, Ordering::Release);
        self.begun.fetch_add(1, Ordering::Release);
    }
}

/// Takes a job, and sees to it that it is done.
pub(in super::super) type Writer = Box<dyn Fn(Job) + Send + Sync>;

/// The file, open for writing.
pub(in super::super) struct File {
    pub(super) database: Database,
    pub(super) progress: Arc<Progress>,
}

pub(in super::super) fn writer_is_gone() -> io::Error {
    io::Error::other("the thread that writes the Raft log is gone")
}

impl File {
    /// All that is waiting, as one transaction: under load an fsync serves many.
    fn commit(&mut self, jobs: Vec<Job>) {
        self.begin();
        let result = self.transaction(&jobs);
        self.end();
        answer(jobs, &result);
    }

    pub(in super::super) fn begin(&self) {
        self.progress.begun.fetch_add(1, Ordering::Release);
    }

    pub(in super::super) fn end(&self) {
        self.progress.ended.fetch_add(1, Ordering::Release);
    }

    pub(in super::super) fn transaction(&self, jobs: &[Job]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut about = transaction.open_table(ABOUT)?;
            let mut log = transaction.open_table(LOG)?;
            for write in jobs.iter().flat_map(|job| &job.writes) {
                match write {
                    Write::About(name, bytes) => {
                        about.insert(*name, bytes.as_slice())?;
                    }
                    Write::Append(entries) => {
                        for (index, bytes) in entries {
                            log.insert(*index, bytes.as_slice())?;
                        }
                    }
                    Write::Truncate(from) => log.retain_in(*from.., |_, _| false)?,
                    Write::Purge(upto) => log.retain_in(..=*upto, |_, _| false)?,
                }
            }
        }
        // Commits are durable unless asked otherwise: one fsync, with checksums to tell a torn one.
        transaction.commit()?;
        Ok(())
    }
}

/// Tells who waits what came of a transaction.
pub(in super::super) fn answer(jobs: Vec<Job>, result: &Result<(), redb::Error>) {
    for job in jobs {
        (job.done)(result.as_ref().copied().map_err(|error| io::Error::other(error.to_string())));
    }
}
