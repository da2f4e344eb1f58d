//! A disk with one file on it, which keeps what was written apart from what was synced.
//!
//! ```text
//!  redb ──write, set_len──▶ seen ─ ─ ─▶ pending: write, write, sync, write ──in its time──▶ durable
//! ```
//!
//! - redb runs over it as over a file: what is torn is torn in redb's own pages.
//! - The writer does a transaction at once, and its syncs take effect when the time has passed that the disk
//!   needs. A power failure in between finds the transaction anywhere: all up to some sync of it is durable, and of
//!   what was written after that any sectors are, but none that was written after a later sync.
//! - It takes its time from the clock of the node that it belongs to.

use std::io;
use std::mem::take;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redb::backends::InMemoryBackend;
use redb::{Database, StorageBackend};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::random::Random;
use crate::control_plane::storage::file::{
    Disk, File, Job, VOTE, Write, Writer, answer, builder, opening, write_identity, writer_is_gone,
};
use crate::control_plane::storage::{Identity, OpenError};

const SECTOR_BYTES: usize = 512;

/// What is wrong with a disk that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ailment {
    /// A write fails.
    Writes,
    /// A sync fails, and what it was to make durable may or may not be.
    Syncs,
    /// There is no room, until somebody makes some.
    Full,
}

/// What a disk, or who writes to it, does wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// What was written is called durable before it is.
    SyncsLater,
    /// Votes are not written.
    ForgetsVotes,
}

#[derive(Debug)]
enum Operation {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
    Sync,
}

#[derive(Debug)]
struct Contents {
    /// What a power failure leaves.
    durable: Vec<u8>,
    /// What a process reads.
    seen: Vec<u8>,
    /// What is between the two, in order.
    pending: Vec<Operation>,
    /// Counts processes: who had the file open before has it no longer.
    lives: u64,
    /// Whether a transaction is under way, so that syncs take their time.
    is_busy: bool,
    /// How long a transaction takes.
    latency_ms: (u64, u64),
    /// After so many operations of its kind.
    ailment: Option<(Ailment, u64)>,
    failed: u64,
    lie: Option<Lie>,
    random: Random,
}

/// See the head of this file. A clone is the same disk.
#[derive(Clone, Debug)]
pub(super) struct SimulatedDisk(Arc<Mutex<Contents>>);

impl SimulatedDisk {
    pub(super) fn new(seed: u64, lie: Option<Lie>) -> Self {
        Self(Arc::new(Mutex::new(Contents {
            durable: vec![],
            seen: vec![],
            pending: vec![],
            lives: 0,
            is_busy: false,
            latency_ms: (0, 2),
            ailment: None,
            failed: 0,
            lie,
            random: Random::of_seed(seed),
        })))
    }

    pub(super) fn is_blank(&self) -> bool {
        self.0.lock().durable.is_empty()
    }

    /// From now on a transaction takes this long.
    pub(super) fn slow_down(&self, latency_ms: (u64, u64)) {
        self.0.lock().latency_ms = latency_ms;
    }

    /// From now on the disk fails, after so many operations that could have failed.
    pub(super) fn ail(&self, ailment: Ailment, after: u64) {
        self.0.lock().ailment = Some((ailment, after));
    }

    /// It works again, and is as fast as it was.
    pub(super) fn mend(&self) {
        let mut contents = self.0.lock();
        contents.ailment = None;
        contents.latency_ms = (0, 2);
    }

    /// How many operations have failed.
    pub(super) fn failed(&self) -> u64 {
        self.0.lock().failed
    }

    /// The process is killed: what it has written by then stays.
    pub(super) fn lose_process(&self) {
        let mut contents = self.0.lock();
        let (pending, issued) = contents.interrupt();
        pending[..issued].iter().for_each(|operation| apply(&mut contents.durable, operation));
        contents.seen = contents.durable.clone();
    }

    /// The power fails. Whether anything was lost.
    pub(super) fn lose_power(&self) -> bool {
        let mut contents = self.0.lock();
        let (pending, issued) = contents.interrupt();
        let synced = pending[..issued].iter().rposition(|it| matches!(it, Operation::Sync));
        let synced = synced.map_or(0, |at| at + 1);
        let likely = contents.random.pick(&[0, 100, 500, 900, 1000]);
        for (at, operation) in pending[..issued].iter().enumerate() {
            if at < synced {
                apply(&mut contents.durable, operation);
            } else {
                contents.tear(operation, likely);
            }
        }
        contents.seen = contents.durable.clone();
        synced < pending.len()
    }

    /// Damages the file while nobody has it open.
    pub(super) fn damage(&self) {
        let mut contents = self.0.lock();
        let count = contents.durable.len();
        if contents.random.permille(300) {
            let cut = contents.below(count);
            contents.durable.truncate(cut);
        } else {
            // Most of the file is room that is not in use. What is, is told by its bytes.
            let used: Vec<usize> = (0..count).filter(|&at| contents.durable[at] != 0).collect();
            let flips = contents.random.between(1, 3);
            for _ in 0..flips {
                let at = contents.random.pick(&used);
                let bit = contents.random.below(8);
                contents.durable[at] ^= 1 << bit;
            }
        }
        contents.seen = contents.durable.clone();
    }

    fn open_backend(&self) -> Backend {
        Backend { disk: self.clone(), lives: self.0.lock().lives }
    }

    fn complete(&self) {
        let mut contents = self.0.lock();
        contents.is_busy = false;
        contents.settle();
    }
}

impl Contents {
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.random.below(end as u64)).expect("an index fits memory")
    }

    /// Whoever had the file open has it no longer. What was under way, and how much of it was issued.
    fn interrupt(&mut self) -> (Vec<Operation>, usize) {
        self.lives += 1;
        self.is_busy = false;
        let pending = take(&mut self.pending);
        let issued = self.below(pending.len() + 1);
        (pending, issued)
    }

    /// Everything up to the last sync is durable from now on.
    fn settle(&mut self) {
        let Some(last) = self.pending.iter().rposition(|it| matches!(it, Operation::Sync)) else {
            return;
        };
        for operation in self.pending.drain(..=last) {
            apply(&mut self.durable, &operation);
        }
    }

    /// Of a write that nobody synced any sectors may be there.
    fn tear(&mut self, operation: &Operation, likely: u64) {
        match operation {
            Operation::Write { offset, bytes } => {
                let mut from = 0;
                while from < bytes.len() {
                    let upto =
                        bytes.len().min(from + SECTOR_BYTES - (offset + from) % SECTOR_BYTES);
                    if self.random.permille(likely) {
                        let bytes = bytes[from..upto].to_vec();
                        let sector = Operation::Write { offset: offset + from, bytes };
                        apply(&mut self.durable, &sector);
                    }
                    from = upto;
                }
            }
            Operation::Resize(_) if self.random.permille(likely) => {
                apply(&mut self.durable, operation);
            }
            Operation::Resize(_) | Operation::Sync => {}
        }
    }

    fn fails(&mut self, ailments: &[Ailment]) -> io::Result<()> {
        let Some((ailment, after)) = &mut self.ailment else { return Ok(()) };
        if !ailments.contains(ailment) {
            return Ok(());
        }
        if let Some(left) = after.checked_sub(1) {
            *after = left;
            return Ok(());
        }
        self.failed += 1;
        let no_room = *ailment == Ailment::Full;
        if !no_room {
            self.ailment = None;
        }
        let why = if no_room { nix::errno::Errno::ENOSPC } else { nix::errno::Errno::EIO };
        Err(why.into())
    }
}

fn apply(file: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Write { offset, bytes } => {
            let end = offset + bytes.len();
            if file.len() < end {
                file.resize(end, 0);
            }
            file[*offset..end].copy_from_slice(bytes);
        }
        Operation::Resize(bytes) => file.resize(*bytes, 0),
        Operation::Sync => {}
    }
}

/// The file as redb has it open.
#[derive(Debug)]
struct Backend {
    disk: SimulatedDisk,
    lives: u64,
}

impl Backend {
    fn with<T>(&self, what: impl FnOnce(&mut Contents) -> io::Result<T>) -> io::Result<T> {
        let mut contents = self.disk.0.lock();
        if contents.lives != self.lives {
            return Err(io::Error::other("this process is gone"));
        }
        what(&mut contents)
    }
}

fn in_memory(number: u64) -> usize {
    usize::try_from(number).expect("an offset fits memory")
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.with(|contents| Ok(contents.seen.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|contents| {
            let from = in_memory(offset);
            let bytes = contents.seen.get(from..from + out.len());
            out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|contents| {
            if in_memory(len) > contents.seen.len() {
                contents.fails(&[Ailment::Full])?;
            }
            let operation = Operation::Resize(in_memory(len));
            apply(&mut contents.seen, &operation);
            contents.pending.push(operation);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|contents| {
            contents.fails(&[Ailment::Syncs])?;
            contents.pending.push(Operation::Sync);
            if !contents.is_busy {
                contents.settle();
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|contents| {
            contents.fails(&[Ailment::Writes, Ailment::Full])?;
            let operation = Operation::Write { offset: in_memory(offset), bytes: data.to_vec() };
            apply(&mut contents.seen, &operation);
            contents.pending.push(operation);
            Ok(())
        })
    }
}

impl Disk for SimulatedDisk {
    fn path(&self) -> &Path {
        Path::new("raft.redb")
    }

    fn make(&self, identity: Identity) -> Result<(), OpenError> {
        let made = builder()
            .create_with_backend(self.open_backend())
            .map_err(redb::Error::from)
            .and_then(|database| write_identity(&database, identity));
        made.map_err(|error| opening(self.path(), error))?;
        // The file appears under its name when it is whole.
        let mut contents = self.0.lock();
        contents.pending.clear();
        contents.durable = contents.seen.clone();
        Ok(())
    }

    fn copy(&self) -> Result<InMemoryBackend, OpenError> {
        let contents = self.0.lock();
        if contents.seen.is_empty() {
            return Err(OpenError::Missing { path: self.path().into() });
        }
        let copy = InMemoryBackend::new();
        copy.set_len(contents.seen.len() as u64)
            .and_then(|()| copy.write(0, &contents.seen))
            .expect("memory is written to");
        Ok(copy)
    }

    fn open(&self) -> Result<Database, OpenError> {
        let opened = builder().create_with_backend(self.open_backend());
        opened.map_err(|error| opening(self.path(), error.into()))
    }

    fn start(&self, file: File) -> io::Result<Writer> {
        let (sender, jobs) = mpsc::unbounded_channel::<Job>();
        tokio::spawn(write(self.clone(), file, jobs));
        Ok(Box::new(move |job| {
            if let Err(refused) = sender.send(job) {
                (refused.0.done)(Err(writer_is_gone()));
            }
        }))
    }
}

impl SimulatedDisk {
    fn lie(&self) -> Option<Lie> {
        self.0.lock().lie
    }

    fn latency(&self) -> Duration {
        let mut contents = self.0.lock();
        let (least, most) = contents.latency_ms;
        Duration::from_millis(contents.random.between(least, most))
    }
}

/// What the thread `raft-log` does, in the time that the disk needs.
async fn write(disk: SimulatedDisk, file: File, mut jobs: mpsc::UnboundedReceiver<Job>) {
    while let Some(first) = jobs.recv().await {
        let mut batch = vec![first];
        while let Ok(next) = jobs.try_recv() {
            batch.push(next);
        }
        if disk.lie() == Some(Lie::ForgetsVotes) {
            let is_kept = |write: &Write| !matches!(write, Write::About(VOTE, _));
            batch.iter_mut().for_each(|job| job.writes.retain(is_kept));
        }
        file.begin();
        disk.0.lock().is_busy = true;
        let result = file.transaction(&batch);
        if disk.lie() == Some(Lie::SyncsLater) {
            answer(take(&mut batch), &result);
        }
        let latency = disk.latency();
        if !latency.is_zero() {
            sleep(latency).await;
        }
        disk.complete();
        file.end();
        answer(batch, &result);
    }
}
