//! The store shards behind their locks, and which one owns a key.
//!
//! A shard is single-threaded; this is where threads meet it. A lock is held for one command on one
//! key, or for one bounded slice of maintenance, so with several shards for each worker two of them
//! seldom want the same one.
//!
//! Who finds a lock taken by another may answer from a copy: `hot.rs`.
//!
//! A shard that lies in the memory file may still have to be brought back from there: `restoring.rs`.

pub mod hot;
mod sync;
pub mod versions;

use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::{fmt, io, thread};

use cluster::ShardId;
use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use store::arena::bus_error::bus_errors;
use store::arena::{AnonymousArena, Arena, CacheFile, Durability, HeapArena};
use store::snapshot::{SnapshotName, SnapshotWriter};
use store::{ChangedGroups, ChangedKeys, GROUPS, Geometry, Key, PrefetchDepth, Shard, Timestamp};

use crate::clock::{Clock, Now, boot_ns};
use crate::config::Config;
use crate::memory_file::{MemoryFile, MemoryFileError, take_into_use};
use crate::observe::changes::Subscribers;
use crate::replication::replicas::{Context, Replicas, before_touches};
use crate::replication::{Agenda, Replication};
use crate::restoring::{Pending, Progress, convert};
use crate::shards::versions::{Version, Versions};

/// Reads of a store shard that are remembered for its other copies, between two reports.
const USES_NOTED_MAX: u32 = 256;

/// Entries that a sweep looks at under one lock: some ten microseconds.
const SWEEP_SLICE_ENTRIES: u32 = 16 * 1024;

/// Shards that a batch locks without allocating: as many as one worker has for most sizes of memory.
const SHARDS_HELD: usize = 16;

/// All of a server's memory.
pub struct Shards {
    slots: Box<[CachePadded<Slot>]>,
    geometry: Geometry,
    /// Held while it is changed, so that all shards get the same.
    memory_bytes: Mutex<u64>,
    config: store::Config,
    threads: NonZeroUsize,
    /// The memory file, where there is one.
    file: Option<CacheFile>,
    progress: Arc<Progress>,
    saved_counters: String,
    /// Pages of memory files that had failed when this one was opened.
    bus_errors_before: u64,
    /// Who is told which keys have changed.
    subscribers: Arc<Subscribers>,
    /// On a node of a cluster.
    replication: OnceLock<Arc<Replication>>,
}

impl fmt::Debug for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards").field("geometry", &self.geometry).finish_non_exhaustive()
    }
}

/// A shard behind its lock.
struct Slot {
    /// Whether the shard is there. While it is not, whoever locks it may wait for as long as it takes
    /// to bring one back.
    is_back: AtomicBool,
    /// Requests that wait for the shard to come back.
    waiting: AtomicU32,
    /// Whether the shard is to note its victims, once it is back.
    notes_victims: AtomicBool,
    progress: Arc<Progress>,
    /// How often its items have changed, where several workers serve.
    versions: Option<Arc<Versions>>,
    held: Mutex<Held>,
}

/// A shard, or what it is to be brought back from.
struct Held {
    shard: Shard,
    pending: Option<Box<Pending>>,
    /// The cluster shards that lie in it, on a node of a cluster.
    replicas: Option<Box<Replicas>>,
    /// Whether the shard is to count its items by their size.
    counts_sizes: bool,
    /// The slot's.
    versions: Option<Arc<Versions>>,
    subscribers: Arc<Subscribers>,
    /// Empty between two uses.
    changed_keys: ChangedKeys,
}

impl Held {
    fn new(
        shard: Shard,
        pending: Option<Box<Pending>>,
        config: &Config,
        subscribers: &Arc<Subscribers>,
    ) -> Self {
        // A worker alone meets no lock that another worker has.
        let is_shared = config.threads.get() > 1;
        Self {
            shard,
            pending,
            replicas: None,
            counts_sizes: config.inspection.tracks_sizes,
            versions: is_shared.then(|| Arc::new(Versions::new(GROUPS))),
            subscribers: Arc::clone(subscribers),
            changed_keys: ChangedKeys::default(),
        }
    }

    /// A bug interrupted a change of the shard: what it holds is in doubt.
    #[cold]
    fn give_up(&mut self) {
        if self.replicas.is_some() {
            tracing::error!("a bug interrupted a change of a shard; this node ends");
            leave_cluster_at_once();
        }
        tracing::error!("a bug interrupted a change of a shard; its items are dropped");
        self.shard.clear();
        self.tell_changes();
    }

    /// Lets those who read without the lock know what has changed under it: before it is let go.
    #[inline]
    fn tell_changes(&mut self) {
        if self.versions.is_some() {
            let changed = self.shard.take_changed_groups();
            self.tell(changed);
        }
        // Last: who is told of a change finds no copy any more that is from before it.
        if self.shard.has_changed_keys() {
            self.tell_changed_keys();
        }
    }

    #[cold]
    fn tell_changed_keys(&mut self) {
        self.shard.take_changed_keys(&mut self.changed_keys);
        self.subscribers.tell(&self.changed_keys);
    }

    #[inline]
    fn tell(&self, changed: ChangedGroups) {
        if let Some(versions) = &self.versions
            && !changed.is_empty()
        {
            changed.iter().for_each(|group| versions.advance(group));
        }
    }

    /// Has a shard that has just come here count and note what is wanted of it.
    fn prepare(&mut self) {
        if self.counts_sizes {
            self.shard.count_sizes();
        }
        self.shard.set_noting_changed_keys(self.subscribers.is_any());
        self.prepare_for_replication();
    }

    /// Has the shard tell what the other copies need to hear of.
    fn prepare_for_replication(&mut self) {
        if self.replicas.is_some() {
            self.shard.set_noting_departures(true);
            self.shard.set_noting_uses(USES_NOTED_MAX);
        }
    }
}

impl Slot {
    fn of(
        shard: Shard,
        config: &Config,
        progress: &Arc<Progress>,
        subscribers: &Arc<Subscribers>,
    ) -> CachePadded<Self> {
        let mut held = Held::new(shard, None, config, subscribers);
        held.prepare();
        Self::holding(held, progress)
    }

    fn pending(
        pending: Pending,
        config: &Config,
        progress: &Arc<Progress>,
        subscribers: &Arc<Subscribers>,
    ) -> CachePadded<Self> {
        let shard = pending.placeholder();
        Self::holding(Held::new(shard, Some(Box::new(pending)), config, subscribers), progress)
    }

    fn holding(held: Held, progress: &Arc<Progress>) -> CachePadded<Self> {
        CachePadded::new(Self {
            is_back: AtomicBool::new(held.pending.is_none()),
            waiting: AtomicU32::new(0),
            notes_victims: AtomicBool::new(false),
            progress: Arc::clone(progress),
            versions: held.versions.clone(),
            held: Mutex::new(held),
        })
    }

    /// Locks the shard, and brings it back if nobody has before.
    #[inline]
    fn lock(&self) -> Locked<'_> {
        Locked(self.lock_held())
    }

    #[inline]
    fn lock_held(&self) -> MutexGuard<'_, Held> {
        if !self.is_back.load(Ordering::Acquire) {
            self.demand();
        }
        self.held.lock()
    }

    /// Brings the shard back for a request, or waits for whoever is at it.
    #[cold]
    #[inline(never)]
    fn demand(&self) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.progress.demand();
        self.bring_back();
        self.progress.demand_is_met();
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }

    fn bring_back(&self) {
        let mut held = self.held.lock();
        let Some(pending) = held.pending.take() else { return };
        let (shard, back) = pending.restore(&self.waiting);
        held.shard = shard;
        held.prepare();
        self.is_back.store(true, Ordering::Release);
        // Whoever changes it meanwhile sees that the shard is back, or is seen here.
        fence(Ordering::SeqCst);
        held.shard.set_noting_victims(self.notes_victims.load(Ordering::Relaxed));
        let is_told = held.subscribers.is_any();
        held.shard.set_noting_changed_keys(is_told);
        back.tell();
    }

    fn set_noting_victims(&self, notes: bool) {
        self.notes_victims.store(notes, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if let Some(mut shard) = self.lock_if_back() {
            shard.set_noting_victims(notes);
        }
    }

    /// To be called when there are subscribers, or none any more.
    fn set_noting_changed_keys(&self, notes: bool) {
        fence(Ordering::SeqCst);
        if let Some(mut shard) = self.lock_if_back() {
            shard.set_noting_changed_keys(notes);
        }
    }

    /// Locks the shard if it is there.
    fn lock_if_back(&self) -> Option<Locked<'_>> {
        self.is_back.load(Ordering::Acquire).then(|| self.lock())
    }
}

impl Shards {
    /// Empty shards as `config` says, in anonymous memory.
    pub fn new(config: &Config) -> Self {
        let geometry = config.geometry();
        let shard_config = shard_config(config, geometry);
        let progress = Arc::new(Progress::none());
        let subscribers = Arc::new(Subscribers::default());
        let shard = |shard| {
            let store_config = store::Config { shard, ..shard_config };
            let shard = Shard::with_arena(store_config, anonymous(geometry));
            Slot::of(shard, config, &progress, &subscribers)
        };
        Self {
            slots: (0..geometry.shard_count).map(shard).collect(),
            geometry,
            memory_bytes: Mutex::new(config.memory_bytes as u64),
            config: shard_config,
            threads: config.threads,
            file: None,
            progress,
            saved_counters: String::new(),
            bus_errors_before: bus_errors(),
            subscribers,
            replication: OnceLock::new(),
        }
    }

    /// Shards in a memory file, with whatever it brings back: each on demand, or when
    /// [`Restorers`](crate::restoring::Restorers) come to it. Where the file was cut differently, all
    /// are brought back before this returns.
    ///
    /// # Errors
    ///
    /// When the system refuses to map the file.
    pub fn open(file: MemoryFile, config: &Config, clock: &Clock) -> Result<Self, MemoryFileError> {
        let mapped = |source: io::Error| MemoryFileError::Io {
            action: "map",
            path: file.file.path().to_owned(),
            source,
        };
        let geometry = file.geometry;
        let is_warm = file.reason.is_warm();
        let pending = if is_warm { file.written.geometry.shard_count } else { 0 };
        let progress = Arc::new(Progress::of(&file, pending));
        let subscribers = Arc::new(Subscribers::default());
        let shard_config = shard_config(config, geometry);
        let target = file.successor.as_ref().unwrap_or(&file.file);
        let slot = |shard| -> io::Result<_> {
            let store_config = store::Config { shard, ..shard_config };
            let arena: Box<dyn Arena> = Box::new(target.arena(shard)?);
            if !is_warm || file.successor.is_some() {
                let shard = Shard::with_arena(store_config, arena);
                return Ok(Slot::of(shard, config, &progress, &subscribers));
            }
            let pending = Pending::new(&file, arena, store_config, &progress, clock);
            Ok(Slot::pending(pending, config, &progress, &subscribers))
        };
        let slots = (0..geometry.shard_count).map(slot).collect::<io::Result<_>>();
        let shards = Self {
            slots: slots.map_err(mapped)?,
            geometry,
            memory_bytes: Mutex::new(config.memory_bytes as u64),
            config: shard_config,
            threads: config.threads,
            file: Some(target.clone()),
            progress,
            saved_counters: file.saved_counters(),
            bus_errors_before: bus_errors(),
            subscribers,
            replication: OnceLock::new(),
        };
        if let Some(successor) = &file.successor {
            tracing::info!(
                shards = geometry.shard_count,
                before = file.written.geometry.shard_count,
                "the memory file is cut anew; this takes room for both until it is done"
            );
            convert(&file, &shards, &shards.progress, shard_config, config.threads, clock)
                .map_err(mapped)?;
            file.file.replace_with(successor)?;
        }
        Ok(shards)
    }

    /// How far bringing back what the memory file holds has come.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The memory file, where there is one and it did not fail.
    pub fn file(&self) -> Option<&CacheFile> {
        self.file.as_ref().filter(|_| !self.progress.is_abandoned())
    }

    /// What the server before gave to [`Self::save`], where it stopped in order.
    pub fn saved_counters(&self) -> &str {
        &self.saved_counters
    }

    /// Writes beside the memory file what the next server needs to go on at once. To be called when
    /// no request is served any more. `counters` are the server's own, for [`Self::saved_counters`].
    ///
    /// # Errors
    ///
    /// When it cannot be written: the next server walks the segments then.
    pub fn save(&self, counters: &str, now: Now) -> io::Result<()> {
        let Some(file) = self.file() else { return Ok(()) };
        if bus_errors() != self.bus_errors_before {
            return Err(io::Error::other("the memory file failed"));
        }
        let superblock = file.superblock();
        let name = SnapshotName {
            cache_id: superblock.cache_id,
            snapshot_id: superblock.generation + 1,
            shard_count: superblock.shard_count,
        };
        let writer = SnapshotWriter::create(&file.snapshot_path(), name)?;
        let next = AtomicU32::new(0);
        let outcomes: Vec<io::Result<()>> = thread::scope(|scope| {
            let save = || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= self.geometry.shard_count {
                        return Ok(());
                    }
                    writer.section(index, &self.lock_nth(index).save())?;
                }
            };
            let threads: Vec<_> = (0..self.threads.get()).map(|_| scope.spawn(save)).collect();
            let panicked = |_| Err(io::Error::other("a shard cannot be saved"));
            threads.into_iter().map(|it| it.join().unwrap_or_else(panicked)).collect()
        });
        outcomes.into_iter().collect::<io::Result<()>>()?;
        writer.section(self.geometry.shard_count, counters.as_bytes())?;
        // The segments first, then the snapshot of them, then the word that it is theirs.
        file.sync()?;
        writer.finish()?;
        file.update(Durability::Power, |superblock| {
            superblock.clean = Some(name.snapshot_id);
            superblock.seen_unix_ms = superblock.seen_unix_ms.max(now.unix_ms);
        })
    }

    /// Marks the memory file as in use: to be called before anybody is served.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn take_into_use(&self, now: Now) -> Result<(), MemoryFileError> {
        let Some(file) = self.file() else { return Ok(()) };
        take_into_use(file, &self.config, now).map_err(|source| MemoryFileError::Io {
            action: "write to",
            path: file.path().to_owned(),
            source,
        })
    }

    /// Notes the time in the memory file, for the next server to compare its clock with.
    pub fn note_time(&self, now: Now) {
        let Some(file) = self.file() else { return };
        let noted = file.update(Durability::Process, |superblock| {
            superblock.seen_unix_ms = superblock.seen_unix_ms.max(now.unix_ms);
        });
        if let Err(error) = noted {
            tracing::warn!("the time cannot be noted in the memory file: {error}");
        }
    }

    /// The memory file failed under the server: goes on in anonymous memory, with empty shards. The
    /// file is emptied: what it holds is old from now on.
    pub fn abandon_file(&self) {
        if !self.progress.abandon() {
            return;
        }
        if self.replication.get().is_some() {
            tracing::error!("the memory file was truncated, or its device failed: this node ends");
            leave_cluster_at_once();
        }
        tracing::error!(
            "the memory file was truncated, or its device failed: it is given up, and the cache is \
             empty and in anonymous memory until the server is started again"
        );
        // First: nothing that is acknowledged from now on may be undone by the file.
        if let Some(Err(error)) = self.file.as_ref().map(CacheFile::discard) {
            tracing::error!(
                "remove the memory file before the next start, it is out of date: {error}"
            );
        }
        let geometry = self.geometry.with_memory(self.memory_bytes());
        for (index, slot) in (0..).zip(&self.slots) {
            let config = store::Config { shard: index, geometry, ..self.config };
            let mut held = slot.held.lock();
            let pending = held.pending.take();
            // What clients know a cas of is gone, and no other item gets the same.
            let sequence = held.shard.sequence();
            held.shard = Shard::with_arena(config, anonymous(geometry));
            held.shard.count_on_after(sequence);
            held.prepare();
            held.tell(ChangedGroups::ALL);
            held.subscribers.tell_all();
            slot.is_back.store(true, Ordering::Release);
            if let Some(pending) = pending {
                pending.give_up().tell();
            }
        }
    }

    /// The memory for items, overhead included, in bytes: `-m`, or what it was changed to.
    pub fn memory_bytes(&self) -> u64 {
        *self.memory_bytes.lock()
    }

    /// Changes the memory for items. Keys stay in their shards; a shard that becomes smaller evicts.
    ///
    /// # Errors
    ///
    /// When the memory file cannot be made so large. Nothing is changed then.
    pub fn set_memory(&self, memory_bytes: u64, now: Timestamp) -> io::Result<()> {
        let mut current = self.memory_bytes.lock();
        let geometry = self.geometry.with_memory(memory_bytes);
        if let Some(file) = self.file() {
            let have: u32 = file.superblock().extents.iter().sum();
            let wanted = geometry.segment_count();
            if wanted > have {
                file.grow(wanted - have)?;
            }
            file.update(Durability::Process, |it| it.shard_bytes = geometry.shard_bytes)?;
        }
        *current = memory_bytes;
        for mut shard in self.each() {
            shard.set_geometry(geometry, now);
        }
        Ok(())
    }

    /// How the memory is cut, as it was at the start.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Locks the shard that owns `key`.
    #[inline]
    pub fn lock(&self, key: &Key<'_>) -> Locked<'_> {
        let owner = self.geometry.shard_of(key.hash()) as usize;
        self.slots[owner].lock()
    }

    /// The version of the group that `key` is in, while its shard is there; `None` as well where one worker serves.
    #[inline]
    pub fn version_of(&self, key: &Key<'_>) -> Option<Version> {
        let slot = &self.slots[self.geometry.shard_of(key.hash()) as usize];
        let versions = slot.versions.as_deref()?;
        slot.is_back
            .load(Ordering::Acquire)
            .then(|| versions.of(self.geometry.group_of(key.hash())))
    }

    /// The shards as the requests of one batch find them.
    #[inline]
    pub fn batch(&self) -> Batch<'_> {
        Batch { shards: self, held: SmallVec::new() }
    }

    /// Has the items of `keys` fetched from memory, all at once.
    pub fn prefetch(&self, keys: &[Key<'_>]) {
        self.batch().prefetch(keys);
    }

    /// Locks the shard of this number, below the geometry's `shard_count`.
    pub fn lock_nth(&self, index: u32) -> Locked<'_> {
        self.slots[index as usize].lock()
    }

    /// Locks one shard after the other.
    pub fn each(&self) -> impl Iterator<Item = Locked<'_>> {
        self.slots.iter().map(|slot| slot.lock())
    }

    /// Locks one shard after the other, those alone that are there: for who must not wait.
    pub fn each_that_is_back(&self) -> impl Iterator<Item = Locked<'_>> {
        self.slots.iter().filter_map(|slot| slot.lock_if_back())
    }

    /// Brings the shard of this number back, behind those that requests wait for.
    pub(crate) fn bring_back(&self, index: u32) {
        self.slots[index as usize].bring_back();
    }

    /// Locks the shard of this number, if it is there.
    pub fn lock_nth_if_back(&self, index: u32) -> Option<Locked<'_>> {
        self.slots[index as usize].lock_if_back()
    }

    /// Who is told which keys have changed.
    pub(crate) fn subscribers(&self) -> &Subscribers {
        &self.subscribers
    }

    /// Has every shard note which keys change from now on, or not any more.
    pub(crate) fn set_noting_changed_keys(&self, notes: bool) {
        self.slots.iter().for_each(|slot| slot.set_noting_changed_keys(notes));
    }

    /// Has every shard note who is evicted from now on, or not any more.
    pub(crate) fn set_noting_victims(&self, notes: bool) {
        self.slots.iter().for_each(|slot| slot.set_noting_victims(notes));
    }

    /// Makes the shards a node's of a cluster. To be called once, before anybody is served.
    pub(crate) fn join_cluster(
        &self,
        replication: &Arc<Replication>,
        replicas: impl Fn(u32) -> Replicas,
    ) {
        assert!(self.replication.set(Arc::clone(replication)).is_ok(), "a node joins once");
        for (index, slot) in (0..).zip(&self.slots) {
            let mut held = slot.held.lock();
            held.replicas = Some(Box::new(replicas(index)));
            held.prepare_for_replication();
        }
    }

    /// Calls `act` with a shard and its replicas, locked. Does nothing where there is no cluster.
    ///
    /// What `act` has put on the agenda is the caller's to carry out.
    pub(crate) fn with_replicas<T>(
        &self,
        index: u32,
        agenda: &mut Agenda,
        now: Now,
        boot_ns: u64,
        act: impl FnOnce(&mut Shard, &mut Replicas, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let replication = self.replication.get()?;
        let mut locked = self.lock_nth(index);
        let (shard, replicas) = locked.parts();
        let now = Timestamp(now.unix_ms);
        let mut context = Context { replication, agenda, now, boot_ns };
        replicas.map(|replicas| act(shard, replicas, &mut context))
    }

    /// The store shard in which a cluster shard lies.
    pub(crate) fn of_cluster_shard(&self, shard: ShardId, shard_count: u16) -> u32 {
        let each = u32::from(shard_count) / self.geometry.shard_count;
        u32::from(shard.0) / each.max(1)
    }

    /// Removes what has expired: a tenth of every shard, or a slice where that is more, so that the
    /// whole memory is swept about once a second at ten calls a second.
    pub fn sweep(&self, now: Timestamp) {
        for (index, slot) in (0..).zip(&self.slots) {
            let Some(shard) = slot.lock_if_back() else { continue };
            let mut left = shard.entries_high() / 10 + SWEEP_SLICE_ENTRIES;
            drop(shard);
            while left > 0 {
                let slice = left.min(SWEEP_SLICE_ENTRIES);
                // Unlocked between slices: a worker that waits goes first.
                if self.sweep_slice(index, slice, now) {
                    break;
                }
                left -= slice;
            }
        }
    }
}

impl Shards {
    /// How many protected items were evicted; `None` where there are none, or while some shards are not back.
    pub fn evicted_protected(&self) -> Option<u64> {
        if self.config.protected.is_none() {
            return None;
        }
        let counted = |index| {
            let shard = self.lock_nth_if_back(index)?;
            Some(shard.counters().evicted_protected)
        };
        (0..self.geometry.shard_count).map(counted).sum()
    }

    /// Removes all that has expired, however much there is to look at.
    pub fn sweep_whole(&self, now: Timestamp) {
        for index in 0..self.geometry.shard_count {
            // From where the last slice ended to the end, and from the front.
            for _ in 0..2 {
                while !self.sweep_slice(index, SWEEP_SLICE_ENTRIES, now) {}
            }
        }
    }

    /// Sweeps a slice of a shard; whether that was the last.
    fn sweep_slice(&self, index: u32, entries: u32, now: Timestamp) -> bool {
        let Some(replication) = self.replication.get() else {
            return self.lock_nth(index).sweep(now, entries).wrapped;
        };
        let mut agenda = Agenda::default();
        let at = Now { unix_ms: now.0 };
        let wrapped =
            self.with_replicas(index, &mut agenda, at, boot_ns(), |shard, replicas, context| {
                let wrapped = shard.sweep(before_touches(now), entries).wrapped;
                replicas.pass_departures_on(shard, context);
                wrapped
            });
        agenda.carry_out(replication, None, |_, _| {});
        wrapped.unwrap_or(true)
    }
}

/// Ends the process without another word to anybody: what this node holds may be damaged, and the copies on
/// other nodes are not.
fn leave_cluster_at_once() -> ! {
    std::process::abort()
}

/// A shard, locked.
///
/// Unlocking while a panic unwinds empties the shard: a change was interrupted, its books may not
/// agree, and a cache may forget but never answer wrongly.
pub struct Locked<'a>(MutexGuard<'a, Held>);

/// Shards that some requests in a row are carried out on, each locked when it comes to be needed.
///
/// Where one worker serves, it keeps what it has locked until the batch is through. Nobody else but maintenance
/// wants it, which locks one shard at a time, and each lock that is let go and taken again makes the processor
/// wait for all that it has under way: for a get of many keys that was a fifth of the time. Where several serve,
/// each lets go of one shard before it takes the next.
pub struct Batch<'a> {
    shards: &'a Shards,
    held: SmallVec<[(u32, MutexGuard<'a, Held>); SHARDS_HELD]>,
}

/// A shard of a [`Batch`] while something is done to it.
pub struct InUse<'b>(&'b mut Held);

impl<'a> Batch<'a> {
    /// The shard that owns `key`, locked.
    #[inline]
    pub fn lock(&mut self, key: &Key<'_>) -> InUse<'_> {
        let owner = self.shards.geometry.shard_of(key.hash());
        let at = self.place_of(owner).unwrap_or_else(|| {
            let guard = self.shards.slots[owner as usize].lock_held();
            self.hold(owner, guard)
        });
        InUse(&mut self.held[at].1)
    }

    /// The shard that owns `key`, if nobody else has it locked now.
    #[inline]
    pub fn try_lock(&mut self, key: &Key<'_>) -> Option<InUse<'_>> {
        let owner = self.shards.geometry.shard_of(key.hash());
        let at = self.place_of(owner).or_else(|| self.try_hold(owner))?;
        Some(InUse(&mut self.held[at].1))
    }

    /// Has the items of `keys` fetched from memory, all at once.
    ///
    /// What a read touches hangs in a chain: index, columns, record. Each link is asked for all keys
    /// before the next, so a batch waits for memory three times and not three times for each key.
    /// What changes meanwhile costs a prefetch, nothing else.
    pub fn prefetch(&mut self, keys: &[Key<'_>]) {
        for depth in PrefetchDepth::ALL {
            for key in keys {
                let owner = self.shards.geometry.shard_of(key.hash());
                // A request waits for the shard that it needs, and for no other.
                if let Some(at) = self.place_of(owner).or_else(|| self.try_hold(owner)) {
                    self.held[at].1.shard.prefetch(key, depth);
                }
            }
        }
    }

    /// Where `held` has this shard; if it does not, there is room for it.
    #[inline]
    fn place_of(&mut self, owner: u32) -> Option<usize> {
        let at = self.held.iter().position(|&(held, _)| held == owner);
        if at.is_none() && self.shards.threads.get() > 1 {
            // Two workers that each held a shard that the other waits for would wait for ever.
            self.held.clear();
        }
        at
    }

    /// Locks the shard if it is there and nobody else has it.
    #[inline]
    fn try_hold(&mut self, owner: u32) -> Option<usize> {
        let slot = &self.shards.slots[owner as usize];
        let guard = slot.is_back.load(Ordering::Acquire).then(|| slot.held.try_lock())?;
        guard.map(|guard| self.hold(owner, guard))
    }

    #[inline]
    fn hold(&mut self, owner: u32, guard: MutexGuard<'a, Held>) -> usize {
        self.held.push((owner, guard));
        self.held.len() - 1
    }
}

/// Memory that no file has.
fn anonymous(geometry: Geometry) -> Box<dyn Arena> {
    let (segment_bytes, segment_count) = (geometry.segment_bytes, geometry.segment_count());
    match AnonymousArena::new(segment_bytes, segment_count) {
        Ok(arena) => Box::new(arena),
        // The addresses are limited. Segment by segment there may be enough for what is really used.
        Err(_) => Box::new(HeapArena::new(segment_bytes, segment_count)),
    }
}

/// What every shard is built from.
fn shard_config(config: &Config, geometry: Geometry) -> store::Config {
    store::Config {
        geometry,
        item_bytes_max: config.item_bytes_max as u64,
        policy: config.eviction,
        evicts: config.evicts,
        protected: config.protected,
        shard: 0,
    }
}

impl Locked<'_> {
    /// The shard, and the replicas in it on a node of a cluster.
    #[inline]
    pub(crate) fn parts(&mut self) -> (&mut Shard, Option<&mut Replicas>) {
        let held = &mut *self.0;
        (&mut held.shard, held.replicas.as_deref_mut())
    }
}

impl Deref for Locked<'_> {
    type Target = Shard;

    #[inline]
    fn deref(&self) -> &Shard {
        &self.0.shard
    }
}

impl DerefMut for Locked<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.0.shard
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        if thread::panicking() {
            return self.0.give_up();
        }
        self.0.tell_changes();
    }
}

impl Deref for InUse<'_> {
    type Target = Shard;

    #[inline]
    fn deref(&self) -> &Shard {
        &self.0.shard
    }
}

impl DerefMut for InUse<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.0.shard
    }
}

impl Drop for InUse<'_> {
    #[inline]
    fn drop(&mut self) {
        if thread::panicking() {
            return self.0.give_up();
        }
        self.0.tell_changes();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use store::{Deadline, NewItem, Precondition};

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn put(shards: &Shards, key: &[u8], deadline: Deadline) {
        let key = Key::new(key);
        let new = NewItem { client_flags: 0, deadline, value: &[b"value"], own_cas: None };
        shards.lock(&key).put(&key, &new, Precondition::None, NOW);
    }

    #[test]
    fn a_shard_that_a_panic_interrupted_is_empty_and_usable() {
        let shards = Shards::new(&Config::default());
        put(&shards, b"a", Deadline::NEVER);
        let key = Key::new(b"a");
        let interrupted = catch_unwind(AssertUnwindSafe(|| {
            let _locked = shards.lock(&key);
            panic!("a bug, made for this test");
        }));
        assert!(interrupted.is_err());
        assert!(shards.lock(&key).get(&key, NOW).is_none());
        put(&shards, b"a", Deadline::NEVER);
        assert!(shards.lock(&key).get(&key, NOW).is_some());
    }

    fn served_by(threads: usize) -> Shards {
        let threads = NonZeroUsize::new(threads).unwrap();
        let shards = Shards::new(&Config { threads, ..Config::default() });
        (0..100).for_each(|n| put(&shards, format!("key-{n}").as_bytes(), Deadline::NEVER));
        assert!(shards.geometry().shard_count > 1);
        shards
    }

    /// Reads every item within one batch; how many shards are locked then.
    fn locked_after(shards: &Shards, batch: &mut Batch<'_>) -> usize {
        let keys: Vec<String> = (0..100).map(|n| format!("key-{n}")).collect();
        let keys: Vec<Key<'_>> = keys.iter().map(|key| Key::new(key.as_bytes())).collect();
        batch.prefetch(&keys);
        assert!(keys.iter().all(|key| batch.lock(key).get(key, NOW).is_some()));
        shards.slots.iter().filter(|slot| slot.held.is_locked()).count()
    }

    #[test]
    fn a_batch_keeps_what_it_locked_where_one_worker_serves() {
        let (alone, several) = (served_by(1), served_by(4));
        let mut batch = alone.batch();
        assert_eq!(locked_after(&alone, &mut batch), alone.slots.len());
        drop(batch);
        assert!(alone.slots.iter().all(|slot| !slot.held.is_locked()));
        assert_eq!(locked_after(&several, &mut several.batch()), 1);
    }

    #[test]
    fn a_bug_within_a_batch_costs_the_items_of_one_shard() {
        let shards = served_by(1);
        let interrupted = catch_unwind(AssertUnwindSafe(|| {
            let mut batch = shards.batch();
            locked_after(&shards, &mut batch);
            let _in_use = batch.lock(&Key::new(b"key-7"));
            panic!("a bug, made for this test");
        }));
        assert!(interrupted.is_err());
        let hit = shards.geometry.shard_of(Key::new(b"key-7").hash());
        for (index, shard) in (0..).zip(shards.each()) {
            assert_eq!(shard.items() == 0, index == hit, "shard {index}");
        }
    }

    #[test]
    fn no_two_items_of_a_server_have_the_same_cas() {
        let shards = Shards::new(&Config::default());
        assert!(shards.geometry().shard_count > 1);
        let keys: Vec<_> = (0..1_000).map(|n| format!("key-{n}")).collect();
        keys.iter().for_each(|key| put(&shards, key.as_bytes(), Deadline::NEVER));
        let cas_of = |key: &String| {
            let key = Key::new(key.as_bytes());
            shards.lock(&key).get(&key, NOW).map(|item| item.cas)
        };
        let cas_numbers: BTreeSet<u64> = keys.iter().filter_map(cas_of).collect();
        assert_eq!(cas_numbers.len(), keys.len());
    }

    #[test]
    fn expired_items_give_their_memory_up_without_being_read() {
        let shards = Shards::new(&Config::default());
        let deadline = Deadline::at(NOW.plus_millis(1));
        for n in 0..10_000 {
            put(&shards, format!("key-{n}").as_bytes(), deadline);
        }
        assert_eq!(shards.each().map(|shard| shard.items()).sum::<u64>(), 10_000);
        shards.sweep(NOW.plus_millis(1));
        assert_eq!(shards.each().map(|shard| shard.items()).sum::<u64>(), 0);
    }
}
