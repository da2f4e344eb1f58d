//! Shards that an earlier server left in the memory file, on their way back.
//!
//! A shard is pending until somebody needs it: a request for one of its keys, or the threads that go
//! through all of them. Whoever it is restores it under its lock, so a request waits for one shard at
//! most, and those that are back serve meanwhile.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, thread};

use parking_lot::Mutex;
use store::arena::{Arena, CacheFile, SegmentId};
use store::snapshot::Snapshot;
use store::{Config, Geometry, Key, Restored, Shard, Timestamp};

use crate::clock::Clock;
use crate::memory_file::{MemoryFile, Reason, Written};
use crate::shards::Shards;

/// How long a thread that nobody waits for leaves the processor to requests before it looks again,
/// and how often it does so at most after each segment, so that a busy server comes to the end of it.
const PASS: Duration = Duration::from_millis(1);
const PASSES_MAX: u32 = 20;
/// Shards give their items up to others in so many steps.
const CONVERT_STEPS: u64 = 256;

/// How a shard came back, and what the server is told of it.
#[derive(Debug)]
pub struct Progress {
    reason: Option<Reason>,
    clock_back_ms: u64,
    pending: AtomicU32,
    was_converted: bool,
    from_snapshot: AtomicU32,
    walked: AtomicU32,
    /// From the start until the last shard was back.
    restored_ms: AtomicU64,
    restored: Mutex<Restored>,
    /// Threads that wait for a shard, or bring one back, on behalf of a request.
    demands: AtomicU32,
    is_abandoned: AtomicBool,
    /// The snapshot, which takes room for nothing once all shards are back.
    snapshot_path: Option<PathBuf>,
}

/// What `stats` tells of a restart.
#[derive(Clone, Copy, Debug)]
pub struct RestoreReport {
    /// Whether shards are still pending.
    pub is_restoring: bool,
    /// `none` without a memory file, else `cold`, `snapshot`, `walk`, `mixed` or `converted`.
    pub kind: &'static str,
    /// Why the restart is what it is; none without a memory file.
    pub reason: Option<Reason>,
    /// From the start until all shards were back, in milliseconds.
    pub duration_ms: u64,
    /// By how much the clock is behind the time when the file was last in use, in milliseconds.
    pub clock_back_ms: u64,
    /// What came back so far.
    pub restored: Restored,
    /// Whether the file failed while it was in use, and was given up.
    pub is_abandoned: bool,
}

impl Progress {
    /// A server without a memory file: nothing to bring back.
    pub fn none() -> Self {
        Self::new(None, 0, 0, false, None)
    }

    /// `pending` shards to bring back.
    pub fn of(file: &MemoryFile, pending: u32) -> Self {
        let was_converted = file.successor.is_some();
        let snapshot_path = Some(file.file.snapshot_path());
        let progress =
            Self::new(Some(file.reason), file.clock_back_ms, pending, was_converted, snapshot_path);
        progress.restored.lock().damaged_bytes = file.file.truncated_bytes();
        progress
    }

    fn new(
        reason: Option<Reason>,
        clock_back_ms: u64,
        pending: u32,
        was_converted: bool,
        snapshot_path: Option<PathBuf>,
    ) -> Self {
        Self {
            reason,
            clock_back_ms,
            pending: AtomicU32::new(pending),
            was_converted,
            from_snapshot: AtomicU32::new(0),
            walked: AtomicU32::new(0),
            restored_ms: AtomicU64::new(0),
            restored: Mutex::new(Restored::default()),
            demands: AtomicU32::new(0),
            is_abandoned: AtomicBool::new(false),
            snapshot_path,
        }
    }

    /// A request needs a shard that is not back.
    pub(crate) fn demand(&self) {
        self.demands.fetch_add(1, Ordering::AcqRel);
    }

    /// It has it.
    pub(crate) fn demand_is_met(&self) {
        self.demands.fetch_sub(1, Ordering::AcqRel);
    }

    /// Lets requests go first: waits while any of them needs a shard, unless it is one of `own`, those
    /// that wait for the shard in hand.
    fn let_requests_pass(&self, own: &AtomicU32) {
        for _ in 0..PASSES_MAX {
            let demands = self.demands.load(Ordering::Acquire);
            if demands == 0 || own.load(Ordering::Acquire) > 0 {
                break;
            }
            thread::park_timeout(PASS);
        }
    }

    /// Whether shards are still pending.
    pub fn is_restoring(&self) -> bool {
        self.pending.load(Ordering::Acquire) > 0
    }

    /// The file failed and was given up. `true` for the first who says so.
    pub fn abandon(&self) -> bool {
        !self.is_abandoned.swap(true, Ordering::AcqRel)
    }

    /// Whether the file failed and was given up.
    pub fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Acquire)
    }

    fn count(&self, source: Source, restored: Restored) {
        match source {
            Source::Snapshot => self.from_snapshot.fetch_add(1, Ordering::Relaxed),
            Source::Walk => self.walked.fetch_add(1, Ordering::Relaxed),
        };
        *self.restored.lock() += restored;
    }

    /// One shard less is pending. Whoever brings the last one back says how long it took.
    fn shard_is_back(&self, start: Timestamp, now: Timestamp) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            // It says nothing of the segments any more, and may not have been there.
            let _ = self.snapshot_path.as_ref().map(fs::remove_file);
            self.restored_ms.store(now.0.saturating_sub(start.0), Ordering::Release);
            let report = self.report();
            tracing::info!(
                kind = report.kind,
                reason = report.reason.map(tracing::field::display),
                items = report.restored.items,
                expired = report.restored.expired,
                dropped_records = report.restored.dropped_records,
                damaged_bytes = report.restored.damaged_bytes,
                duration_ms = report.duration_ms,
                "restored"
            );
        }
    }

    /// What `stats` tells.
    pub fn report(&self) -> RestoreReport {
        // First, so that a report of the end holds what the last shard brought.
        let is_restoring = self.is_restoring();
        let from_snapshot = self.from_snapshot.load(Ordering::Relaxed);
        let walked = self.walked.load(Ordering::Relaxed);
        let kind = match (self.reason, from_snapshot, walked) {
            (None, ..) => "none",
            _ if self.was_converted => "converted",
            // Nothing is back yet: what is expected.
            (Some(Reason::CleanStop), 0, 0) if is_restoring => "snapshot",
            (Some(_), 0, 0) if is_restoring => "walk",
            (_, 0, 0) => "cold",
            (_, _, 0) => "snapshot",
            (_, 0, _) => "walk",
            _ => "mixed",
        };
        RestoreReport {
            is_restoring,
            kind,
            reason: self.reason,
            duration_ms: self.restored_ms.load(Ordering::Acquire),
            clock_back_ms: self.clock_back_ms,
            restored: *self.restored.lock(),
            is_abandoned: self.is_abandoned(),
        }
    }
}

/// What a shard was brought back from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Snapshot,
    Walk,
}

/// A shard that is still to be brought back.
pub struct Pending {
    /// As it was written.
    config: Config,
    /// As it is to be.
    geometry: Geometry,
    policy: eviction::Kind,
    arena: Box<dyn Arena>,
    file: CacheFile,
    snapshot: Option<Arc<Snapshot>>,
    progress: Arc<Progress>,
    clock: Clock,
    start: Timestamp,
}

impl Pending {
    /// The shard of `file` with this number. `wanted` is what it is to become.
    pub fn new(
        file: &MemoryFile,
        arena: Box<dyn Arena>,
        wanted: Config,
        progress: &Arc<Progress>,
        clock: &Clock,
    ) -> Self {
        Self {
            config: Config {
                geometry: file.written.geometry,
                policy: file.written.policy,
                ..wanted
            },
            geometry: wanted.geometry,
            policy: wanted.policy,
            arena,
            file: file.file.clone(),
            snapshot: file.snapshot.clone(),
            progress: Arc::clone(progress),
            clock: clock.clone(),
            start: Timestamp(clock.now().unix_ms),
        }
    }

    /// The shard does not come back, since the file is given up.
    pub(crate) fn give_up(self) -> Back {
        Back { progress: self.progress, clock: self.clock, start: self.start }
    }

    /// What stands for the shard until it is back: one without any memory.
    pub(crate) fn placeholder(&self) -> Shard {
        Shard::with_arena(self.config, Box::new(NoArena))
    }

    /// Brings the shard back: from the snapshot, or else from its segments. A bug met on the way costs
    /// the shard its items, and nothing else.
    ///
    /// What comes with the shard is to be told once the shard is where others see it.
    /// While `own`, the requests that wait for this shard, are none, all others go first.
    pub(crate) fn restore(self, own: &AtomicU32) -> (Shard, Back) {
        let (geometry, policy) = (self.geometry, self.policy);
        let config = Config { geometry, policy, ..self.config };
        let file = self.file.clone();
        let back = Back {
            progress: Arc::clone(&self.progress),
            clock: self.clock.clone(),
            start: self.start,
        };
        let shard = catch_unwind(AssertUnwindSafe(|| self.reopen(own))).unwrap_or_else(|_| {
            tracing::error!(
                shard = config.shard,
                "restoring a shard met a bug in the server, please report it; the shard is empty"
            );
            match file.arena(config.shard) {
                Ok(arena) => Shard::with_arena(config, Box::new(arena)),
                Err(_) => Shard::new(config),
            }
        });
        (shard, back)
    }

    fn reopen(self, own: &AtomicU32) -> Shard {
        let now = || Timestamp(self.clock.now().unix_ms);
        let progress = Arc::clone(&self.progress);
        let pace = &mut || progress.let_requests_pass(own);
        let (mut shard, source, restored) =
            reopen(self.config, self.arena, self.snapshot.as_deref(), now(), pace);
        if self.policy != self.config.policy {
            shard.set_policy(self.policy, now());
        }
        if self.geometry != self.config.geometry {
            shard.set_geometry(self.geometry, now());
        }
        self.progress.count(source, restored);
        shard
    }
}

/// The news that a shard is back.
#[must_use]
pub struct Back {
    progress: Arc<Progress>,
    clock: Clock,
    start: Timestamp,
}

impl Back {
    /// Tells it: whoever hears that nothing is pending any more finds every shard in its place.
    pub fn tell(self) {
        self.progress.shard_is_back(self.start, Timestamp(self.clock.now().unix_ms));
    }
}

fn reopen(
    config: Config,
    mut arena: Box<dyn Arena>,
    snapshot: Option<&Snapshot>,
    now: Timestamp,
    pace: &mut dyn FnMut(),
) -> (Shard, Source, Restored) {
    if let Some(snapshot) = snapshot {
        let error = match snapshot.section(config.shard) {
            Ok(section) => match Shard::reopen_from_paced(config, arena, section, pace) {
                Ok(shard) => {
                    let restored = Restored { items: shard.items(), ..Restored::default() };
                    return (shard, Source::Snapshot, restored);
                }
                Err((error, given_back)) => {
                    arena = given_back;
                    anyhow::Error::new(error)
                }
            },
            Err(error) => anyhow::Error::new(error),
        };
        tracing::warn!(shard = config.shard, "a shard's segments are walked: {error:#}");
    }
    let (shard, restored) = Shard::reopen_paced(config, arena, now, pace);
    if restored.dropped_records > 0 {
        tracing::warn!(
            shard = config.shard,
            dropped_records = restored.dropped_records,
            damaged_bytes = restored.damaged_bytes,
            "a shard was damaged; what could not be trusted is dropped"
        );
    }
    (shard, Source::Walk, restored)
}

/// Moves the items of the file's shards to `shards`, which lie in its successor, on `threads` threads.
pub fn convert(
    file: &MemoryFile,
    shards: &Shards,
    progress: &Arc<Progress>,
    config: Config,
    threads: NonZeroUsize,
    clock: &Clock,
) -> std::io::Result<()> {
    let count = file.written.geometry.shard_count;
    let arenas: Vec<Mutex<Option<Box<dyn Arena>>>> = (0..count)
        .map(|shard| Ok(Mutex::new(Some(Box::new(file.file.arena(shard)?) as Box<dyn Arena>))))
        .collect::<std::io::Result<_>>()?;
    let next = AtomicU32::new(0);
    // Numbers that clients may know are not handed out again, whichever shard counted them.
    let opened: Mutex<Vec<Shard>> = Mutex::new(Vec::new());
    let now = Timestamp(clock.now().unix_ms);
    let on_all_threads = |work: &(dyn Fn(u32) + Sync)| {
        next.store(0, Ordering::Relaxed);
        thread::scope(|scope| {
            for _ in 0..threads.get().min(count as usize) {
                scope.spawn(|| {
                    loop {
                        let shard = next.fetch_add(1, Ordering::Relaxed);
                        if shard >= count {
                            break;
                        }
                        work(shard);
                    }
                });
            }
        });
    };
    on_all_threads(&|shard| {
        let Some(arena) = arenas[shard as usize].lock().take() else { return };
        let Written { geometry, policy } = file.written;
        let config = Config { geometry, policy, shard, ..config };
        let (shard, source, restored) =
            reopen(config, arena, file.snapshot.as_deref(), now, &mut || {});
        progress.count(source, restored);
        opened.lock().push(shard);
    });
    let sequence = opened.lock().iter().map(Shard::sequence).max().unwrap_or(0);
    // A flush still to come is every shard's; one that has come was carried out when they were opened.
    let flush_at = opened.lock().iter().filter_map(Shard::flush_to_come).max();
    for mut shard in shards.each() {
        shard.count_on_after(sequence);
        if let Some(at) = flush_at {
            shard.flush_all(at, now);
        }
    }
    // In step: the first to leave of each come before the last to leave of any.
    let opened: Vec<Mutex<Shard>> = opened.into_inner().into_iter().map(Mutex::new).collect();
    for _ in 0..=CONVERT_STEPS {
        on_all_threads(&|shard| {
            let Some(shard) = opened.get(shard as usize) else { return };
            let mut shard = shard.lock();
            let items_max = shard.items() / CONVERT_STEPS + 1;
            shard.give_up(items_max, now, |key, transfer| {
                let key = Key::new(key);
                shards.lock(&key).adopt(&key, &transfer, now);
            });
        });
    }
    for _ in 0..count {
        progress.shard_is_back(now, Timestamp(clock.now().unix_ms));
    }
    Ok(())
}

/// Memory for a shard that is not there yet: none.
pub(crate) struct NoArena;

impl Arena for NoArena {
    fn segment_bytes(&self) -> u32 {
        1 << 14
    }

    fn segment_count(&self) -> u32 {
        0
    }

    fn segment(&self, _segment: SegmentId) -> &[u8] {
        &[]
    }

    fn segment_mut(&mut self, _segment: SegmentId) -> &mut [u8] {
        &mut []
    }

    fn grow(&mut self, _segment_count: u32) {}

    fn release(&mut self, _segment: SegmentId) {}
}

/// The threads that go through the shards that are pending.
#[derive(Debug)]
pub struct Restorers {
    threads: Vec<thread::JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Restorers {
    /// Starts up to `threads` threads, no more than the machine has cores.
    ///
    /// # Errors
    ///
    /// When the operating system has no thread to give; the shards come back on demand then.
    pub fn start(shards: &Arc<Shards>, threads: NonZeroUsize) -> std::io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let stop = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicU32::new(0));
        let mut restorers = Self { threads: Vec::new(), stop: Arc::clone(&stop) };
        if !shards.progress().is_restoring() {
            return Ok(restorers);
        }
        for index in 0..threads.get().min(cores) {
            let (shards, next, stop) = (Arc::clone(shards), Arc::clone(&next), Arc::clone(&stop));
            let work = move || {
                let count = shards.geometry().shard_count;
                while !stop.load(Ordering::Relaxed) {
                    let shard = next.fetch_add(1, Ordering::Relaxed);
                    if shard >= count {
                        break;
                    }
                    shards.bring_back(shard);
                }
            };
            let name = format!("restore-{index}");
            restorers.threads.push(thread::Builder::new().name(name).spawn(work)?);
        }
        Ok(restorers)
    }
}

impl Drop for Restorers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("restoring ended by a bug in the server, please report it");
            }
        }
    }
}
