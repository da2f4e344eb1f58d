//! The thread that writes a backup file now and then, where one is asked for.
//!
//! It pulls the slices that a client would, one at a time with a pause after each, so that clients
//! come first; a backup takes as long as it takes. What it writes goes to a file beside the one that
//! is named, which takes its place when all of it is on disk: a backup that fails, or that a stop of
//! the server cuts short, leaves the one before it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use protocol::backup::file::{FileEncoder, FileHeader, Totals};
use protocol::backup::{Cursor, Items};
use store::Timestamp;

use crate::backup::Backups;
use crate::clock::Clock;
use crate::config::BackupConfig;

/// The pause after each slice. With it a backup takes less than half a core's time.
const SLICE_PAUSE: Duration = Duration::from_micros(200);
/// What a zstd frame begins with, and so a backup (RFC 8878, section 3.1.1).
const BEGINNING: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
/// Fast rather than small: the server has other things to do.
const COMPRESSION_LEVEL: i32 = 1;

/// What became of the backups so far.
#[derive(Debug, Default)]
pub struct BackupRecord(Mutex<BackupReport>);

/// What became of the backups up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// Whether one is being written.
    pub is_running: bool,
    /// How many were written.
    pub written: u64,
    /// How many could not be.
    pub failed: u64,
    /// The last one that ended.
    pub last: Option<LastBackup>,
}

/// How the last backup ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastBackup {
    /// What it holds; `None` when it failed.
    pub totals: Option<Totals>,
    /// When it ended, in seconds since 1970.
    pub ended_unix_s: u64,
    /// How long it took.
    pub duration_ms: u64,
}

impl BackupRecord {
    /// What became of the backups up to now.
    pub fn report(&self) -> BackupReport {
        *self.0.lock()
    }

    fn begin(&self) {
        self.0.lock().is_running = true;
    }

    /// A backup ended: `None` when it was cut short by a stop.
    fn end(&self, last: Option<LastBackup>) {
        let mut report = self.0.lock();
        report.is_running = false;
        let Some(last) = last else { return };
        match last.totals {
            Some(_) => report.written += 1,
            None => report.failed += 1,
        }
        report.last = Some(last);
    }
}

/// A running backup thread; it stops when this is dropped, and a backup under way with it.
#[derive(Debug)]
pub struct ScheduledBackup {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ScheduledBackup {
    /// Starts a thread that writes backups as `config` says, the first one interval from now, and
    /// keeps `record` of them.
    ///
    /// # Errors
    ///
    /// When the operating system has no thread to give.
    pub fn start(
        config: BackupConfig,
        backups: Arc<Backups>,
        clock: Clock,
        record: Arc<BackupRecord>,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let writer = Writer { path: config.file, backups, clock, stopped };
        let thread = thread::Builder::new().name("backup".into()).spawn(move || {
            while !writer.is_stopped_after(config.interval) {
                writer.write_and_tell(&record);
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for ScheduledBackup {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the backup met a bug in the server, please report it");
        }
    }
}

/// Why there is no new backup.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("the server stops")]
    Stopped,
    #[error("{} is something other than a backup, and is left alone", path.display())]
    InTheWay { path: PathBuf },
    #[error("another backup is being written to {}", path.display())]
    Busy { path: PathBuf },
    #[error("a slice holds what is no item, which is a bug in the server")]
    Item(#[from] protocol::backup::ItemError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes one backup after the other.
struct Writer {
    path: PathBuf,
    backups: Arc<Backups>,
    clock: Clock,
    stopped: mpsc::Receiver<()>,
}

impl Writer {
    /// Waits so long, or until the server stops.
    fn is_stopped_after(&self, wait: Duration) -> bool {
        self.stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout)
    }

    fn write_and_tell(&self, record: &BackupRecord) {
        let began = self.clock.now();
        record.begin();
        let outcome = self.write();
        let ended = self.clock.now();
        let last = |totals| LastBackup {
            totals,
            ended_unix_s: ended.unix_seconds(),
            duration_ms: ended.unix_ms.saturating_sub(began.unix_ms),
        };
        let path = self.path.display();
        match outcome {
            Ok(totals) => {
                let last = last(Some(totals));
                tracing::info!(
                    "backup: {} items in {} ms to {path}",
                    totals.items,
                    last.duration_ms
                );
                record.end(Some(last));
            }
            Err(WriteError::Stopped) => record.end(None),
            Err(error) => {
                let error = anyhow::Error::new(error);
                tracing::warn!("no backup to {path}, the one before it stays: {error:#}");
                record.end(Some(last(None)));
            }
        }
    }

    /// Writes a backup and has it take the place of the one before.
    fn write(&self) -> Result<Totals, WriteError> {
        // What a link leads to is meant, and not the link.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        refuse_to_replace(&path)?;
        let mut beside = path.clone().into_os_string();
        beside.push(".tmp");
        let beside = PathBuf::from(beside);
        let file = create(&beside)?;
        let written = self.write_items(&file).and_then(|totals| {
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            Ok(totals)
        });
        if written.is_err() {
            // Better gone, but what is wrong has been said already.
            let _ = fs::remove_file(&beside);
        } else {
            sync_folder_of(&path)?;
        }
        written
    }

    fn write_items(&self, file: &File) -> Result<Totals, WriteError> {
        let mut packed = zstd::Encoder::new(file, COMPRESSION_LEVEL)?;
        packed.include_checksum(true)?;
        let header = FileHeader {
            cache_id: self.backups.cache_id(),
            taken_unix_ms: self.clock.now().unix_ms,
            server_version: env!("CARGO_PKG_VERSION").as_bytes(),
            prefix: b"",
        };
        let (mut frame, mut slice) = (Vec::new(), Vec::new());
        let mut encoder = FileEncoder::begin(&header, crc32c::crc32c, &mut frame);
        let mut cursor = Cursor::default();
        loop {
            slice.clear();
            let now = Timestamp(self.clock.now().unix_ms);
            let Some(next) = self.backups.slice(cursor, b"", now, &mut slice) else { break };
            cursor = next.next;
            if next.items > 0 {
                encoder.block(&Items::new(&slice)?, &mut frame);
                packed.write_all(&frame)?;
                packed.write_all(&slice)?;
                frame.clear();
            }
            if self.is_stopped_after(SLICE_PAUSE) {
                return Err(WriteError::Stopped);
            }
        }
        let totals = encoder.end(&mut frame);
        packed.write_all(&frame)?;
        packed.finish()?;
        Ok(totals)
    }
}

/// An empty file that nobody else writes to, and that only this user reads: a backup holds whatever
/// the cache does, sessions for instance.
fn create(path: &Path) -> Result<File, WriteError> {
    let busy = || WriteError::Busy { path: path.to_owned() };
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => busy(),
        fs::TryLockError::Error(error) => error.into(),
    })?;
    // Whoever held the lock before may have made a backup of this very file.
    if fs::metadata(path).map(|named| named.ino()).ok() != Some(file.metadata()?.ino()) {
        return Err(busy());
    }
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.set_len(0)?;
    Ok(file)
}

/// A backup takes the place of a backup, and of nothing else: least of all of the memory file.
fn refuse_to_replace(path: &Path) -> Result<(), WriteError> {
    let in_the_way = || WriteError::InTheWay { path: path.to_owned() };
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.is_file() {
        return Err(in_the_way());
    }
    let mut beginning = Vec::new();
    File::open(path)?.take(BEGINNING.len() as u64).read_to_end(&mut beginning)?;
    if beginning.is_empty() || beginning == BEGINNING { Ok(()) } else { Err(in_the_way()) }
}

/// Has the name of a file survive a power cut, too.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use protocol::backup::file::{FileDecoder, FileStep};
    use store::{Deadline, Key, NewItem, Precondition};

    use super::*;
    use crate::backup::fresh_cache_id;
    use crate::config::Config;
    use crate::shards::Shards;

    fn backups(items: usize) -> Arc<Backups> {
        let shards = Arc::new(Shards::new(&Config::default()));
        for n in 0..items {
            let (key, value) = (format!("key-{n}"), format!("value-{n}"));
            let key = Key::new(key.as_bytes());
            let deadline = Deadline::NEVER;
            let new =
                NewItem { client_flags: 0, deadline, value: &[value.as_bytes()], own_cas: None };
            shards.lock(&key).put(&key, &new, Precondition::None, Timestamp(1));
        }
        Arc::new(Backups::new(shards, fresh_cache_id()))
    }

    fn writer(path: PathBuf, items: usize) -> (mpsc::Sender<()>, Writer) {
        let (stop, stopped) = mpsc::channel();
        (stop, Writer { path, backups: backups(items), clock: Clock::system(), stopped })
    }

    /// How many items the file holds, all of it being as it was written.
    fn items_in(path: &Path) -> u64 {
        let bytes = zstd::decode_all(File::open(path).unwrap()).unwrap();
        let (mut decoder, mut at) = (FileDecoder::new(crc32c::crc32c), 0);
        loop {
            match decoder.decode(&bytes[at..]).unwrap() {
                FileStep::Header { consumed, .. } | FileStep::Block { consumed, .. } => {
                    at += consumed;
                }
                FileStep::End { totals, .. } => return totals.items,
                FileStep::More { .. } => panic!("the file is whole"),
            }
        }
    }

    #[test]
    fn a_backup_takes_the_place_of_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.backup");
        for items in [1000, 10] {
            let (_stop, writer) = writer(path.clone(), items);
            let record = BackupRecord::default();
            writer.write_and_tell(&record);
            let report = record.report();
            assert_eq!((report.written, report.failed, report.is_running), (1, 0, false));
            let totals = report.last.and_then(|last| last.totals);
            assert_eq!(totals.map(|totals| totals.items), Some(items as u64));
            assert_eq!(items_in(&path), items as u64);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_backup_that_cannot_be_written_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (_stop, writer) = writer(folder.path().join("no/such/folder/cache.backup"), 1);
        let record = BackupRecord::default();
        writer.write_and_tell(&record);
        assert_eq!((record.report().written, record.report().failed), (0, 1));
        assert_eq!(record.report().last.map(|last| last.totals), Some(None));
    }

    #[test]
    fn a_stop_cuts_a_backup_short_and_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.backup");
        let (_stop, first) = writer(path.clone(), 10);
        first.write_and_tell(&BackupRecord::default());
        let (stop, second) = writer(path.clone(), 1000);
        drop(stop);
        let record = BackupRecord::default();
        second.write_and_tell(&record);
        assert_eq!(record.report(), BackupReport::default());
        assert_eq!(items_in(&path), 10);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn two_backups_do_not_write_to_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.backup.tmp");
        let first = create(&path).unwrap();
        assert!(matches!(create(&path), Err(WriteError::Busy { .. })));
        drop(first);
        assert!(create(&path).is_ok());
    }
}
