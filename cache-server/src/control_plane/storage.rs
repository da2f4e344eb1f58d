//! The Raft log, vote and snapshots of this node: kept in memory, and written through to one file.
//!
//! ```text
//!  Raft core ──append, vote──▶ Memory (whole log, vote, snapshot)      reads end here
//!                                 │ Job: writes, and whom to tell
//!                                 ▼
//!                       writer: all that waits, one transaction, one fsync ──▶ raft.redb
//!                                                                              about  identity, vote, ...
//!                                                                              log    index → entry
//! ```
//!
//! - A vote or an entry is acknowledged after the fsync of the transaction that holds it, never before.
//! - Writes reach the file in the order in which they were made, so after a crash the file holds a
//!   prefix of them.
//! - The applied map is not a table of its own. It is the last snapshot plus the entries after it up to
//!   what is known to be committed, which [`openraft::storage::RaftStateMachine`] names as the second of
//!   its two ways: an entry then costs one fsync and not two. How far was committed goes along with
//!   whatever is written next; when the file is behind there, the leader says so again.
//! - A node that led when it went does not come back as the leader, as openraft would have it for a vote that says
//!   so: it does not know how far it had committed, and it sent entries to others before its own disk had them,
//!   in whose places it might now put others. It comes back with its vote for itself, and a new term is begun.
//! - A snapshot is taken every few hundred entries (`raft.rs`) and the entries before it are dropped, so
//!   memory and file stay within a few snapshots' size.
//!
//! The file names its cluster and node. It is made once, when the node gets its id, and never made
//! again under that id: a node that lost it has lost its vote, and must join as a new one.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::io::Cursor;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;

use cluster::NodeId;
use cluster::map::{ClusterMap, Command, Outcome};
use openraft::storage::{LogFlushed, RaftLogStorage, RaftStateMachine};
use openraft::{
    AnyError, EmptyNode, EntryPayload, LogId, LogState, OptionalSend, RaftLogReader,
    RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError, StorageIOError, StoredMembership,
    Vote,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

pub(super) use self::file::Progress;
use self::file::{
    COMMITTED, Disk, Done, File, FileSystem, Job, PURGED, SNAPSHOT, VOTE, Write, Writer,
    writer_is_gone,
};
pub use self::file::{Identity, OpenError, Writing};

pub(super) mod file;

openraft::declare_raft_types!(
    /// What openraft is to agree on: batches of commands, and an outcome for each.
    pub Types:
        D = Vec<Command>,
        R = Vec<Outcome>,
        NodeId = u64,
        Node = EmptyNode,
);

/// An entry of the log.
pub(super) type Entry = openraft::Entry<Types>;
type RaftError = StorageError<u64>;

/// Entries of one append request hold about this many bytes together, so that it passes the frame limit
/// of the connections and comes back before the next is due. A single larger entry goes alone.
const APPEND_BYTES_MAX: usize = 1024 * 1024;

/// The Raft log, vote and snapshots of a node.
pub struct Storage {
    shared: Arc<Shared>,
}

struct Shared {
    identity: Identity,
    memory: Mutex<Memory>,
    writer: Writer,
    progress: Arc<Progress>,
    maps: watch::Sender<Arc<ClusterMap>>,
    applied_index: watch::Sender<Option<u64>>,
    #[cfg(test)]
    witness: std::sync::OnceLock<Witness>,
}

/// Told of every entry that is applied, with the map that came of it; and of a snapshot that was installed.
#[cfg(test)]
pub(super) type Witness = Box<dyn Fn(LogId<u64>, Option<&Entry>, &Arc<ClusterMap>) + Send + Sync>;

/// What the file holds, and what is on its way there.
#[derive(Default)]
struct Memory {
    log: BTreeMap<u64, Logged>,
    vote: Option<Vote<u64>>,
    committed: Option<LogId<u64>>,
    purged: Option<LogId<u64>>,
    snapshot: Option<StoredSnapshot>,
    /// How often entries were taken back, or a snapshot took their place. A leader's log only grows.
    replaced: u64,
}

#[derive(Clone)]
struct Logged {
    entry: Entry,
    bytes: usize,
}

#[derive(Clone, Serialize, Deserialize)]
struct StoredSnapshot {
    meta: SnapshotMeta<u64, EmptyNode>,
    /// A [`ClusterMap`], encoded.
    map: Vec<u8>,
}

impl Storage {
    /// Makes the file for a node that just got its id, and opens it.
    ///
    /// The file appears under its name when it is whole: a crash before leaves nothing there.
    ///
    /// # Errors
    ///
    /// A file of that name is there, or cannot be made.
    pub fn create(path: &Path, identity: Identity, writing: Writing) -> Result<Self, OpenError> {
        Self::create_on(&FileSystem { path, writing }, identity)
    }

    /// Opens the file of a node that comes back.
    ///
    /// # Errors
    ///
    /// It is not there, in use, damaged, or somebody else's. It is looked at in a copy first, so a file
    /// that is refused is left as it was.
    pub fn open(path: &Path, identity: Identity, writing: Writing) -> Result<Self, OpenError> {
        Self::open_on(&FileSystem { path, writing }, identity)
    }

    /// [`create`](Self::create), on any disk.
    pub(super) fn create_on(disk: &impl Disk, identity: Identity) -> Result<Self, OpenError> {
        disk.make(identity)?;
        Self::open_on(disk, identity)
    }

    /// [`open`](Self::open), on any disk.
    pub(super) fn open_on(disk: &impl Disk, identity: Identity) -> Result<Self, OpenError> {
        let path = disk.path();
        let mut inspected = file::inspect(disk, identity)?;
        inspected.vote = inspected.vote.map(|vote| without_the_lead(vote, identity.node));
        let database = disk.open()?;
        let progress = Arc::new(Progress::default());
        let writer = disk
            .start(File { database, progress: progress.clone() })
            .map_err(|source| OpenError::Io { path: path.into(), source })?;
        let map = match &inspected.snapshot {
            Some(snapshot) => decode(&snapshot.map).map_err(|error| OpenError::Unusable {
                path: path.into(),
                reason: error.to_string(),
            })?,
            None => ClusterMap::default(),
        };
        let applied = inspected.snapshot.as_ref().and_then(|it| it.meta.last_log_id);
        let shared = Shared {
            identity,
            memory: Mutex::new(inspected),
            writer,
            progress,
            maps: watch::Sender::new(Arc::new(map)),
            applied_index: watch::Sender::new(applied.map(|it| it.index)),
            #[cfg(test)]
            witness: std::sync::OnceLock::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whose log it is.
    pub fn identity(&self) -> Identity {
        self.shared.identity
    }

    /// The map as it is applied on this node.
    pub fn watch(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.shared.maps.subscribe()
    }

    /// The index of the last entry that is applied on this node.
    pub(super) fn watch_applied(&self) -> watch::Receiver<Option<u64>> {
        self.shared.applied_index.subscribe()
    }

    /// What the writer is doing, for a watchdog.
    pub(super) fn progress(&self) -> Arc<Progress> {
        self.shared.progress.clone()
    }

    /// Openraft's two halves: the log, and the machine that applies it. To be taken once.
    pub(super) fn halves(&self) -> (LogStore, Machine) {
        let snapshot = self.shared.memory.lock().snapshot.clone();
        let machine = Machine {
            shared: self.shared.clone(),
            map: self.shared.maps.borrow().clone(),
            applied: snapshot.as_ref().and_then(|it| it.meta.last_log_id),
            membership: snapshot.map(|it| it.meta.last_membership).unwrap_or_default(),
        };
        (LogStore { shared: self.shared.clone() }, machine)
    }

    /// Has `witness` told from now on, and of the map that this node begins with.
    #[cfg(test)]
    pub(super) fn witnessed(&self, witness: Witness) {
        let applied =
            self.shared.memory.lock().snapshot.as_ref().and_then(|it| it.meta.last_log_id);
        if let Some(applied) = applied {
            witness(applied, None, &self.shared.maps.borrow());
        }
        assert!(self.shared.witness.set(witness).is_ok(), "a log has one witness");
    }

    /// All that a file holds, as bytes that are equal when it is.
    #[cfg(test)]
    pub(super) fn contents(disk: &impl Disk, identity: Identity) -> Result<Vec<u8>, OpenError> {
        let Memory { log, vote, committed, purged, snapshot, .. } = file::inspect(disk, identity)?;
        let entries: Vec<Entry> = log.into_values().map(|logged| logged.entry).collect();
        Ok(encode(&(entries, vote, committed, purged, snapshot)).expect("it was decoded"))
    }

    /// Writes down how far was committed, so that a restart begins with the map of now. Waits for the
    /// writes before it.
    pub(super) async fn flush(&self) -> io::Result<()> {
        let written = self.shared.write_for(&self.shared.memory.lock(), vec![]);
        written.wait().await
    }
}

/// The vote of a node that begins, as its last life left it: nobody follows it yet.
fn without_the_lead(vote: Vote<u64>, me: NodeId) -> Vote<u64> {
    let is_own = vote.leader_id.node_id == u64::from(me.0);
    Vote { committed: vote.committed && !is_own, ..vote }
}

impl Shared {
    /// Hands `writes` to the writer, which calls `done` once they are on the disk.
    ///
    /// `memory` is borrowed locked, so that the file is written in the order in which memory changed.
    fn write(&self, memory: &Memory, mut writes: Vec<Write>, done: Done) {
        // Every transaction carries how far was committed, which is not worth one of its own.
        if let Some(committed) = memory.committed {
            match encode(&committed) {
                Ok(bytes) => writes.push(Write::About(COMMITTED, bytes)),
                Err(error) => return done(Err(error)),
            }
        }
        (self.writer)(Job { writes, done });
    }

    /// The same for a caller that waits.
    fn write_for(&self, memory: &Memory, writes: Vec<Write>) -> Written {
        let (sender, receiver) = oneshot::channel();
        let done = move |result| {
            // Nobody waits any more when the core is being shut down.
            let _ = sender.send(result);
        };
        self.write(memory, writes, Box::new(done));
        Written(receiver)
    }
}

/// Writes on their way to the disk.
struct Written(oneshot::Receiver<io::Result<()>>);

impl Written {
    async fn wait(self) -> io::Result<()> {
        self.0.await.unwrap_or_else(|_| Err(writer_is_gone()))
    }
}

fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(io::Error::other)
}

fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(io::Error::other)
}

// Openraft's log half.

/// The log and the vote, as openraft sees them.
pub(super) struct LogStore {
    shared: Arc<Shared>,
}

/// Reads the log; every replication task has one.
///
/// A task may outlive the lead of its node for a moment, and a node that has heard of nothing yet takes what it
/// sends. So it is given nothing any more once the log is not the leader's that it was, nor what does not follow
/// upon what it sent before: openraft passes either on as it is.
#[derive(Clone)]
pub(super) struct LogReader {
    shared: Arc<Shared>,
    /// [`Memory::replaced`] when it was made.
    replaced: u64,
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, RaftError> {
        let memory = self.shared.memory.lock();
        Ok(memory.log.range(range).map(|(_, logged)| logged.entry.clone()).collect())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, RaftError> {
        let memory = self.shared.memory.lock();
        if memory.replaced != self.replaced || !memory.log.contains_key(&start) {
            return Ok(vec![]);
        }
        let mut bytes = 0;
        let fitting = memory.log.range(start..end).take_while(|(index, logged)| {
            bytes += logged.bytes;
            **index == start || bytes <= APPEND_BYTES_MAX
        });
        Ok(fitting.map(|(_, logged)| logged.entry.clone()).collect())
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, RaftError> {
        self.get_log_reader().await.try_get_log_entries(range).await
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, RaftError> {
        let memory = self.shared.memory.lock();
        let last = memory.log.last_key_value().map(|(_, logged)| logged.entry.log_id);
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: last.or(memory.purged) })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        let replaced = self.shared.memory.lock().replaced;
        LogReader { shared: self.shared.clone(), replaced }
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), RaftError> {
        let failed = |error: io::Error| StorageIOError::write_vote(AnyError::new(&error));
        let bytes = encode(vote).map_err(failed)?;
        let written = {
            let mut memory = self.shared.memory.lock();
            memory.vote = Some(*vote);
            self.shared.write_for(&memory, vec![Write::About(VOTE, bytes)])
        };
        Ok(written.wait().await.map_err(failed)?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, RaftError> {
        Ok(self.shared.memory.lock().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId<u64>>) -> Result<(), RaftError> {
        // It goes to the file with what is written next.
        self.shared.memory.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<u64>>, RaftError> {
        Ok(self.shared.memory.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<Types>) -> Result<(), RaftError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let failed = |error: io::Error| StorageIOError::write_logs(AnyError::new(&error));
        let mut writes = vec![];
        let mut memory = self.shared.memory.lock();
        for entry in entries {
            let bytes = encode(&entry).map_err(failed)?;
            let index = entry.log_id.index;
            memory.log.insert(index, Logged { entry, bytes: bytes.len() });
            writes.push((index, bytes));
        }
        let done = Box::new(move |result| flushed.log_io_completed(result));
        self.shared.write(&memory, vec![Write::Append(writes)], done);
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<u64>) -> Result<(), RaftError> {
        let failed = |error: io::Error| StorageIOError::write_logs(AnyError::new(&error));
        let written = {
            let mut memory = self.shared.memory.lock();
            memory.log.split_off(&from.index);
            memory.replaced += 1;
            self.shared.write_for(&memory, vec![Write::Truncate(from.index)])
        };
        Ok(written.wait().await.map_err(failed)?)
    }

    async fn purge(&mut self, upto: LogId<u64>) -> Result<(), RaftError> {
        let failed = |error: io::Error| StorageIOError::write_logs(AnyError::new(&error));
        let purged = encode(&upto).map_err(failed)?;
        let written = {
            let mut memory = self.shared.memory.lock();
            // Otherwise it is what a snapshot of another node has taken the place of.
            let is_own = memory.log.get(&upto.index).is_some_and(|it| it.entry.log_id == upto);
            memory.replaced += u64::from(!is_own);
            memory.log = memory.log.split_off(&(upto.index + 1));
            memory.purged = Some(upto);
            let writes = vec![Write::About(PURGED, purged), Write::Purge(upto.index)];
            self.shared.write_for(&memory, writes)
        };
        Ok(written.wait().await.map_err(failed)?)
    }
}

// Openraft's state machine half.

/// The map, and how far it is applied.
pub(super) struct Machine {
    shared: Arc<Shared>,
    map: Arc<ClusterMap>,
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, EmptyNode>,
}

impl Machine {
    fn publish(&self) {
        self.shared.maps.send_if_modified(|published| {
            let changed = !Arc::ptr_eq(published, &self.map);
            if changed {
                *published = self.map.clone();
            }
            changed
        });
        // After the map, so that who waits for an index finds its map.
        self.shared.applied_index.send_replace(self.applied.map(|it| it.index));
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, EmptyNode>), RaftError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<Outcome>>, RaftError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut outcomes = vec![];
        for entry in entries {
            #[cfg(test)]
            let seen = entry.clone();
            self.applied = Some(entry.log_id);
            outcomes.push(match entry.payload {
                EntryPayload::Blank => vec![],
                EntryPayload::Normal(commands) => {
                    // Watchers keep the map they have; this clones it once for all of `entries`.
                    let map = Arc::make_mut(&mut self.map);
                    commands.iter().map(|command| map.apply(command)).collect()
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    vec![]
                }
            });
            #[cfg(test)]
            if let Some(witness) = self.shared.witness.get() {
                witness(seen.log_id, Some(&seen), &self.map);
            }
        }
        self.publish();
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            shared: self.shared.clone(),
            map: self.map.clone(),
            applied: self.applied,
            membership: self.membership.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, RaftError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, EmptyNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), RaftError> {
        let failed = |error: io::Error| {
            StorageIOError::read_snapshot(Some(meta.signature()), AnyError::new(&error))
        };
        let map = snapshot.into_inner();
        self.map = Arc::new(decode(&map).map_err(failed)?);
        self.shared.keep_snapshot(StoredSnapshot { meta: meta.clone(), map }).await?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish();
        #[cfg(test)]
        if let (Some(witness), Some(applied)) = (self.shared.witness.get(), self.applied) {
            witness(applied, None, &self.map);
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, RaftError> {
        let stored = self.shared.memory.lock().snapshot.clone();
        Ok(stored.map(StoredSnapshot::into_snapshot))
    }
}

/// The map at one moment, to be written down.
pub(super) struct SnapshotBuilder {
    shared: Arc<Shared>,
    map: Arc<ClusterMap>,
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, EmptyNode>,
}

impl RaftSnapshotBuilder<Types> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, RaftError> {
        let failed = |error: io::Error| StorageIOError::write_snapshot(None, AnyError::new(&error));
        // Two snapshots up to one entry are the same bytes, so the entry and its builder name it.
        let place = self.applied.map_or_else(|| "empty".into(), |applied| applied.to_string());
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: format!("{place} of {}", self.shared.identity.node),
        };
        let map = encode(self.map.as_ref()).map_err(failed)?;
        let stored = StoredSnapshot { meta, map };
        self.shared.keep_snapshot(stored.clone()).await?;
        Ok(stored.into_snapshot())
    }
}

impl StoredSnapshot {
    fn into_snapshot(self) -> Snapshot<Types> {
        Snapshot { meta: self.meta, snapshot: Box::new(Cursor::new(self.map)) }
    }
}

impl Shared {
    async fn keep_snapshot(&self, stored: StoredSnapshot) -> Result<(), RaftError> {
        let signature = stored.meta.signature();
        let failed = |error: io::Error| {
            StorageIOError::write_snapshot(Some(signature.clone()), AnyError::new(&error))
        };
        let bytes = encode(&stored).map_err(failed)?;
        let written = {
            let mut memory = self.memory.lock();
            // One that was built may be overtaken by one that is installed: the newer one stays.
            let kept = memory.snapshot.as_ref().map(|kept| kept.meta.last_log_id);
            if kept.is_some_and(|kept| kept > stored.meta.last_log_id) {
                return Ok(());
            }
            memory.snapshot = Some(stored);
            self.write_for(&memory, vec![Write::About(SNAPSHOT, bytes)])
        };
        Ok(written.wait().await.map_err(failed)?)
    }
}

#[cfg(test)]
mod tests;
