//! `CacheFile`: the one file in which the segments of all shards live, locked and with its room
//! reserved.
//!
//! `superblock.rs` draws how it is cut.
//!
//! - A file is used by one process at a time: whoever holds its lock. The lock belongs to the file
//!   and not to its name, so after taking it the name is looked up again.
//! - All room is reserved before the first byte is mapped. A full disk is an error here, where it
//!   can be told, and not a bus error at some write later.
//! - While a file is being made it begins with a mark of its own. One with that mark was never used:
//!   it counts as absent.
//! - The superblock is written through the file descriptor rather than a mapping, copy A to its end
//!   before copy B begins: two system calls cannot be reordered, and a failure comes as an error.
//! - The only thing shared between shards is the superblock, behind a lock that no request takes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::arena::{MappedArena, space};
use crate::superblock::{
    COPY_BYTES, EXTENTS_MAX, MAGIC_UNFINISHED, SUPERBLOCK_BYTES, Superblock, SuperblockError,
};

/// The file's name where a directory was given.
const NAME_IN_DIRECTORY: &str = "cache.arena";
/// How often the file behind a name may change hands while it is being locked.
const LOCK_ATTEMPTS: usize = 16;

/// Why a cache file cannot be used. Each names the file.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it, or another handle of this one.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is a directory where a file should be, a device, a socket or a pipe.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// What the path names.
        path: PathBuf,
    },
    /// It is a cache file, and may not be overwritten.
    #[error("{} is a cache file already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It holds something else, or a superblock that this build cannot read. It was left untouched.
    #[error("cannot use {}: {source}", path.display())]
    Superblock {
        /// The file.
        path: PathBuf,
        /// What is wrong with its first bytes.
        source: SuperblockError,
    },
    /// There is no room for it.
    #[error("cannot reserve {bytes} bytes for {}", path.display())]
    Reserve {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What [`CacheFile::create`] does where a cache file stands already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Leaves it alone: [`OpenError::Exists`].
    Keep,
    /// Throws its content away. What is not a cache file is left alone all the same.
    Overwrite,
}

/// What a write must survive before it counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process, however it comes.
    Process,
    /// The loss of power: it is on the device.
    Power,
}

/// A cache file, locked by this process until the last clone and the last arena are dropped.
#[derive(Clone, Debug)]
pub struct CacheFile {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    /// Its name; of a successor the name it is going to have.
    path: PathBuf,
    superblock: Mutex<Superblock>,
    /// Extents whose room may have been given back by an earlier process.
    inherited_extents: usize,
    truncated_bytes: u64,
    /// Which shards have an arena now, and which had one: there is one at a time.
    arenas: Box<[ArenaMark]>,
    /// Whether it still has the name of a file that is to replace another.
    is_successor: AtomicBool,
}

#[derive(Debug, Default)]
struct ArenaMark {
    exists: AtomicBool,
    existed: AtomicBool,
}

impl CacheFile {
    /// Makes the file at `path`, with room reserved for all of it and zeros everywhere but in the
    /// superblock. A directory gets a file `cache.arena`. Only the owner may read it.
    ///
    /// When it fails nothing is left at `path`, except what it refused to overwrite.
    ///
    /// # Panics
    ///
    /// Where [`Superblock::is_valid`] is false.
    pub fn create(
        path: &Path,
        superblock: Superblock,
        existing: Existing,
    ) -> Result<Self, OpenError> {
        let path = file_path(path);
        let Some((file, path)) = locked(&path, true)? else {
            return Err(OpenError::InUse { path });
        };
        refuse_to_overwrite(&file, &path, existing)?;
        Self::fill(file, &path, path.clone(), superblock, false)
    }

    /// Makes the file that is to replace this one, beside it: `PATH.new`. It is removed again unless
    /// [`Self::replace_with`] gets it.
    pub fn create_successor(&self, superblock: Superblock) -> Result<Self, OpenError> {
        let path = self.successor_path();
        let Some((file, path)) = locked(&path, true)? else {
            return Err(OpenError::InUse { path });
        };
        refuse_to_overwrite(&file, &path, Existing::Overwrite)?;
        Self::fill(file, &path, self.path().to_owned(), superblock, true)
    }

    /// Opens the file at `path`, or `None` if there is none, an empty one, or one whose creation was
    /// not finished. A file shorter than its superblock says is extended by zeros, see
    /// [`Self::truncated_bytes`]. Nothing else in it changes.
    pub fn open(path: &Path) -> Result<Option<Self>, OpenError> {
        let Some((file, path)) = locked(&file_path(path), false)? else { return Ok(None) };
        let head = read_head(&file).map_err(io_error("read", &path))?;
        if head.is_empty() || head.starts_with(&MAGIC_UNFINISHED) {
            return Ok(None);
        }
        let superblock = Superblock::decode(&head)
            .map_err(|source| OpenError::Superblock { path: path.clone(), source })?;
        let len = file.metadata().map_err(io_error("measure", &path))?.len();
        let truncated_bytes = superblock.file_bytes().saturating_sub(len);
        if truncated_bytes > 0 {
            reserve_all(&file, &superblock, len).map_err(|source| OpenError::Reserve {
                path: path.clone(),
                bytes: truncated_bytes,
                source,
            })?;
        }
        let inherited_extents = superblock.extents.len();
        let opened = Self {
            inner: Arc::new(Inner {
                arenas: ArenaMark::for_shards(superblock.shard_count),
                superblock: Mutex::new(superblock),
                is_successor: AtomicBool::new(false),
                inherited_extents,
                truncated_bytes,
                file,
                path,
            }),
        };
        opened.remove_stray_successor();
        Ok(Some(opened))
    }

    /// Takes an empty or unwanted `file` at `place` and makes a cache file of it.
    fn fill(
        file: File,
        place: &Path,
        path: PathBuf,
        superblock: Superblock,
        is_successor: bool,
    ) -> Result<Self, OpenError> {
        assert!(superblock.is_valid(), "a file is cut as it can be: {superblock:?}");
        let filled = begin(&file)
            .map_err(io_error("write", place))
            .and_then(|()| {
                reserve_all(&file, &superblock, 0).map_err(|source| OpenError::Reserve {
                    path: place.to_owned(),
                    bytes: superblock.file_bytes(),
                    source,
                })
            })
            .and_then(|()| finish(&file, place, &superblock).map_err(io_error("write", place)));
        if let Err(error) = filled {
            // What went wrong first is what the caller wants to know. Emptied as well as removed: a
            // link's target stays.
            let _emptied = file.set_len(0);
            let _removed = fs::remove_file(place);
            return Err(error);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                arenas: ArenaMark::for_shards(superblock.shard_count),
                superblock: Mutex::new(superblock),
                inherited_extents: 0,
                truncated_bytes: 0,
                is_successor: AtomicBool::new(is_successor),
                file,
                path,
            }),
        })
    }

    /// The file's name, with links followed; of a successor the name it is going to have.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Where the snapshot that belongs to the file stands: `PATH.snapshot`.
    pub fn snapshot_path(&self) -> PathBuf {
        appended(self.path(), ".snapshot")
    }

    fn successor_path(&self) -> PathBuf {
        appended(self.path(), ".new")
    }

    /// Bytes that were missing at the file's end when it was opened, and are zeros now.
    pub fn truncated_bytes(&self) -> u64 {
        self.inner.truncated_bytes
    }

    /// The superblock as it stands in the file.
    pub fn superblock(&self) -> Superblock {
        self.state().clone()
    }

    /// Changes the superblock. At every instant the file has the old one or the new one; after an
    /// error it may have either, and this handle has the old one.
    ///
    /// # Panics
    ///
    /// If `change` cuts the file another way: [`Self::grow`] adds extents.
    pub fn update(
        &self,
        durability: Durability,
        change: impl FnOnce(&mut Superblock),
    ) -> io::Result<()> {
        let mut state = self.state();
        let mut next = state.clone();
        change(&mut next);
        let cut = |it: &Superblock| (it.shard_count, it.segment_bytes, it.extents.clone());
        assert!(cut(&next) == cut(&state), "a file is not cut anew while it is in use");
        next.generation = state.generation + 1;
        self.write_superblock(&next, durability)?;
        *state = next;
        Ok(())
    }

    /// Writes everything to the device that was written to the file or to an arena of it.
    pub fn sync(&self) -> io::Result<()> {
        self.inner.file.sync_data()
    }

    /// Adds an extent of so many segments for each shard, at the end of the file. An arena has them
    /// after it was asked to grow. After an error nothing has changed.
    pub fn grow(&self, segments_per_shard: u32) -> io::Result<()> {
        let mut state = self.state();
        let mut next = state.clone();
        next.extents.push(segments_per_shard);
        next.generation += 1;
        if !next.is_valid() {
            let reason = format!(
                "cannot add an extent of {segments_per_shard} segments to {} of at most {EXTENTS_MAX}",
                state.extents.len(),
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let old_bytes = state.file_bytes();
        let offset = next.extent_offset(state.extents.len());
        // What an earlier attempt may have left behind is not taken for zeros.
        let grown = self
            .inner
            .file
            .set_len(old_bytes)
            .and_then(|()| space::reserve_new(&self.inner.file, offset, next.file_bytes() - offset))
            .and_then(|()| self.write_superblock(&next, Durability::Process));
        if let Err(error) = grown {
            // The first error says more. What cannot be undone is undone by the next attempt.
            let _restored = self.write_superblock(&state, Durability::Process);
            let _shortened = self.inner.file.set_len(old_bytes);
            return Err(error);
        }
        *state = next;
        Ok(())
    }

    /// The arena of one shard: all its segments in all extents. There is one at a time.
    ///
    /// # Errors
    ///
    /// Where the shard has one already, where there is no such shard, and where the system refuses.
    pub fn arena(&self, shard: u32) -> io::Result<MappedArena> {
        MappedArena::new(self, shard)
    }

    /// Gives `successor` this file's name, in one step: after a kill or a loss of power the name
    /// stands for the one or the other. This file is gone as soon as it is dropped.
    ///
    /// # Panics
    ///
    /// If `successor` was not made by [`Self::create_successor`] of this file.
    pub fn replace_with(&self, successor: &Self) -> Result<(), OpenError> {
        assert!(
            successor.inner.is_successor.load(Ordering::SeqCst) && successor.path() == self.path(),
            "a file is replaced by its own successor"
        );
        successor.inner.file.sync_all().map_err(io_error("sync", &self.successor_path()))?;
        fs::rename(self.successor_path(), self.path()).map_err(io_error("replace", self.path()))?;
        successor.inner.is_successor.store(false, Ordering::SeqCst);
        sync_directory(self.path()).map_err(io_error("sync the directory of", self.path()))
    }

    /// Removes what a conversion that was killed has left behind. Nobody else can be at it: whoever
    /// converts holds the lock on the file that is being converted, as this process does.
    fn remove_stray_successor(&self) {
        let path = self.successor_path();
        let Ok(Some((file, path))) = locked(&path, false) else { return };
        if refuse_to_overwrite(&file, &path, Existing::Overwrite).is_ok() {
            // It is in nobody's way; the next conversion overwrites it.
            let _removed = fs::remove_file(path);
        }
    }

    fn state(&self) -> MutexGuard<'_, Superblock> {
        // A panic leaves the last superblock that reached the file.
        self.inner.superblock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_superblock(&self, superblock: &Superblock, durability: Durability) -> io::Result<()> {
        let copy = superblock.encode_copy();
        for offset in [0, COPY_BYTES] {
            self.inner.file.write_all_at(&copy, offset as u64)?;
            // Between the copies as well, so that the device does not get both at once.
            if durability == Durability::Power {
                self.inner.file.sync_data()?;
            }
        }
        Ok(())
    }

    pub(super) fn file(&self) -> &File {
        &self.inner.file
    }

    /// Notes that a shard has an arena: `None` where it has one or does not exist.
    pub(super) fn claim(&self, shard: u32) -> Option<Claim> {
        let mark = self.inner.arenas.get(shard as usize)?;
        if mark.exists.swap(true, Ordering::SeqCst) {
            return None;
        }
        let existed = mark.existed.swap(true, Ordering::SeqCst);
        let known_from = if existed { usize::MAX } else { self.inner.inherited_extents };
        Some(Claim { file: self.clone(), shard, known_from })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if *self.is_successor.get_mut() {
            // Left behind it is only unused room, which the next start removes.
            let _removed = fs::remove_file(appended(&self.path, ".new"));
        }
    }
}

impl ArenaMark {
    fn for_shards(count: u32) -> Box<[Self]> {
        (0..count).map(|_| Self::default()).collect()
    }
}

/// The right of one arena to a shard's segments, given back when dropped: after the mappings are.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) file: CacheFile,
    pub(super) shard: u32,
    /// The first extent whose room was reserved by this process and not given back since.
    pub(super) known_from: usize,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.file.inner.arenas[self.shard as usize].exists.store(false, Ordering::SeqCst);
    }
}

fn file_path(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(NAME_IN_DIRECTORY) } else { path.to_owned() }
}

fn appended(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}

/// The file at `path`, locked, and its name with links followed. `None` if there is none and none is
/// to be made.
fn locked(path: &Path, make: bool) -> Result<Option<(File, PathBuf)>, OpenError> {
    for _ in 0..LOCK_ATTEMPTS {
        // Looked at before it is opened: opening a device can have effects of its own.
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => {
                return Err(OpenError::NotAFile { path: path.to_owned() });
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("open", path)(error));
            }
            _ => {}
        }
        let file =
            match OpenOptions::new().read(true).write(true).create(make).mode(0o600).open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !make => return Ok(None),
                file => file.map_err(io_error("open", path))?,
            };
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse { path: path.to_owned() },
            TryLockError::Error(error) => io_error("lock", path)(error),
        })?;
        // Whoever held it may have replaced or removed it in the meantime.
        let of_file = file.metadata().map_err(io_error("measure", path))?;
        let of_name = fs::metadata(path).ok();
        let is_same = |it: &fs::Metadata| it.ino() == of_file.ino() && it.dev() == of_file.dev();
        if of_name.is_some_and(|of_name| is_same(&of_name)) {
            let path = fs::canonicalize(path).map_err(io_error("find", path))?;
            return Ok(Some((file, path)));
        }
    }
    Err(OpenError::InUse { path: path.to_owned() })
}

fn read_head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; SUPERBLOCK_BYTES];
    let mut len = 0;
    while len < head.len() {
        match file.read_at(&mut head[len..], len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    head.truncate(len);
    Ok(head)
}

fn refuse_to_overwrite(file: &File, path: &Path, existing: Existing) -> Result<(), OpenError> {
    let head = read_head(file).map_err(io_error("read", path))?;
    if head.is_empty() || head.starts_with(&MAGIC_UNFINISHED) {
        return Ok(());
    }
    match (Superblock::decode(&head), existing) {
        (Err(source @ SuperblockError::NotACacheFile), _) => {
            Err(OpenError::Superblock { path: path.to_owned(), source })
        }
        (_, Existing::Keep) => Err(OpenError::Exists { path: path.to_owned() }),
        (_, Existing::Overwrite) => Ok(()),
    }
}

/// Empties the file and marks it as unfinished.
fn begin(file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all_at(&MAGIC_UNFINISHED, 0)?;
    // A loss of power in what follows leaves a file that is known to be ours.
    file.sync_all()
}

/// Writes the superblock, and with the first copy of it over the mark: the file is finished.
fn finish(file: &File, path: &Path, superblock: &Superblock) -> io::Result<()> {
    let copy = superblock.encode_copy();
    file.write_all_at(&copy, COPY_BYTES as u64)?;
    file.write_all_at(&copy, 0)?;
    file.sync_all()?;
    sync_directory(path)
}

/// Reserves what the file has no room for yet beyond its first `len` bytes.
fn reserve_all(file: &File, superblock: &Superblock, len: u64) -> io::Result<()> {
    let pages = (0, superblock.page_offset(superblock.shard_count));
    let extents = superblock.extents.iter().enumerate().map(|(index, &segments)| {
        let offset = superblock.extent_offset(index);
        (offset, offset + superblock.extent_bytes(segments))
    });
    for (from, to) in std::iter::once(pages).chain(extents) {
        // Block by block: what the end of the file has cut through is taken for content.
        let from = from.max(len);
        if from < to {
            space::reserve_new(file, from, to - from)?;
        }
    }
    Ok(())
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::arena::{Arena, SegmentId};
    use crate::superblock::PolicyName;

    const SEGMENT_BYTES: u32 = 16 << 10;

    fn superblock() -> Superblock {
        Superblock {
            generation: 0,
            cache_id: 1,
            cluster_id: 0,
            boot_id: 2,
            shard_count: 2,
            segment_bytes: SEGMENT_BYTES,
            shard_bytes: 1 << 20,
            item_bytes_max: 1 << 20,
            policy: PolicyName::new("lru").unwrap(),
            extents: vec![4],
            clean: None,
            seen_unix_ms: 0,
        }
    }

    fn created(directory: &TempDir) -> CacheFile {
        CacheFile::create(&directory.path().join("a"), superblock(), Existing::Keep).unwrap()
    }

    fn reopened(directory: &TempDir) -> CacheFile {
        CacheFile::open(&directory.path().join("a")).unwrap().unwrap()
    }

    #[test]
    fn what_is_written_to_segments_and_pages_is_there_after_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let file = created(&directory);
        for shard in 0..2 {
            let mut arena = file.arena(shard).unwrap();
            assert_eq!((arena.segment_count(), arena.segment_bytes()), (4, SEGMENT_BYTES));
            arena.segment_mut(SegmentId(shard))[9] = 10 + u8::try_from(shard).unwrap();
            arena.page_mut().unwrap()[4095] = 20 + u8::try_from(shard).unwrap();
        }
        drop(file);
        let file = reopened(&directory);
        assert_eq!(file.superblock(), superblock());
        for shard in 0..2 {
            let arena = file.arena(shard).unwrap();
            for segment in 0..4 {
                let expected = if segment == shard { 10 + shard } else { 0 };
                assert_eq!(u32::from(arena.segment(SegmentId(segment))[9]), expected);
            }
            assert_eq!(u32::from(arena.page().unwrap()[4095]), 20 + shard);
        }
    }

    #[test]
    fn a_file_is_locked_as_long_as_a_handle_or_an_arena_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let file = created(&directory);
        let path = file.path().to_owned();
        let arena = file.arena(0).unwrap();
        assert!(matches!(CacheFile::open(&path), Err(OpenError::InUse { .. })));
        drop(file);
        assert!(matches!(CacheFile::open(&path), Err(OpenError::InUse { .. })));
        drop(arena);
        assert!(CacheFile::open(&path).unwrap().is_some());
    }

    #[test]
    fn an_added_extent_is_mapped_when_asked_for_and_there_after_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let file = created(&directory);
        let mut arena = file.arena(1).unwrap();
        arena.grow(9);
        assert_eq!(arena.segment_count(), 4, "there is nothing to map");
        file.grow(3).unwrap();
        file.grow(5).unwrap();
        arena.grow(6);
        assert_eq!(arena.segment_count(), 6);
        arena.grow(100);
        assert_eq!(arena.segment_count(), 12);
        for segment in 0..12 {
            assert!(arena.reserve(SegmentId(segment)));
            arena.segment_mut(SegmentId(segment)).fill(u8::try_from(segment).unwrap());
        }
        drop((file, arena));
        let file = reopened(&directory);
        assert_eq!(file.superblock().extents, [4, 3, 5]);
        let (other, arena) = (file.arena(0).unwrap(), file.arena(1).unwrap());
        for segment in 0..12 {
            let expected = u8::try_from(segment).unwrap();
            assert!(arena.segment(SegmentId(segment)).iter().all(|&byte| byte == expected));
            assert!(other.segment(SegmentId(segment)).iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn a_successor_takes_the_name_or_goes() {
        let directory = tempfile::tempdir().unwrap();
        let file = created(&directory);
        drop(file.create_successor(Superblock { cache_id: 8, ..superblock() }).unwrap());
        let new = file.create_successor(Superblock { cache_id: 9, ..superblock() }).unwrap();
        file.replace_with(&new).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        drop((file, new));
        assert_eq!(reopened(&directory).superblock().cache_id, 9);
    }
}
