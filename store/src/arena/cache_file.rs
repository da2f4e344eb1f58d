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

use crate::arena::bus_error::MAPPINGS_MAX;
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
    #[error("cannot use {}", path.display())]
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
    /// The file that `path` means: itself, or the one in it where it is a directory.
    pub fn path_for(path: &Path) -> PathBuf {
        if path.is_dir() { path.join(NAME_IN_DIRECTORY) } else { path.to_owned() }
    }

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
        let path = Self::path_for(path);
        let (file, path) = made(&path)?;
        refuse_to_overwrite(&file, &path, existing)?;
        Self::fill(file, &path, path.clone(), superblock, false)
    }

    /// Makes the file that is to replace this one, beside it: `PATH.new`. It is removed again unless
    /// [`Self::replace_with`] gets it.
    pub fn create_successor(&self, superblock: Superblock) -> Result<Self, OpenError> {
        let path = self.successor_path();
        let (file, path) = made(&path)?;
        refuse_to_overwrite(&file, &path, Existing::Overwrite)?;
        Self::fill(file, &path, self.path().to_owned(), superblock, true)
    }

    /// Opens the file at `path`, or `None` if there is none, an empty one, or one whose creation was
    /// not finished. A file shorter than its superblock says is extended by zeros, see
    /// [`Self::truncated_bytes`], and a copy of the superblock that was torn is written anew. Nothing
    /// else in it changes.
    pub fn open(path: &Path) -> Result<Option<Self>, OpenError> {
        let Some((file, path)) = locked(&Self::path_for(path), false)? else { return Ok(None) };
        let head = read_head(&file).map_err(io_error("read", &path))?;
        if head.is_empty() || head.starts_with(&MAGIC_UNFINISHED) {
            return Ok(None);
        }
        let superblock = Superblock::decode(&head)
            .map_err(|source| OpenError::Superblock { path: path.clone(), source })?;
        mend_superblock(&file, &head, &superblock).map_err(io_error("write to", &path))?;
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

    /// Empties the file, and the next [`Self::open`] finds none: for who goes on without it, and must
    /// not have what it holds come back.
    pub fn discard(&self) -> io::Result<()> {
        self.inner.file.set_len(0)
    }

    /// Whether an extent can be added: there are fewer than a file may have, and all mappings that
    /// there would be can be protected from bus errors.
    pub fn can_grow(&self) -> bool {
        let superblock = self.state();
        let extents = superblock.extents.len() + 1;
        // A page, each extent, and besides the shards a snapshot that is read.
        let mappings = superblock.shard_count as usize * (extents + 1) + 1;
        extents <= EXTENTS_MAX && mappings <= MAPPINGS_MAX
    }

    /// Adds an extent of so many segments for each shard, at the end of the file. An arena has them
    /// after it was asked to grow. After an error nothing has changed.
    pub fn grow(&self, segments_per_shard: u32) -> io::Result<()> {
        if !self.can_grow() {
            let reason = "the file has as many extents as it may have until it is made anew";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
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

fn appended(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}

/// The file at `path`, made where there is none, as [`locked`] gives it.
fn made(path: &Path) -> Result<(File, PathBuf), OpenError> {
    locked(path, true)?.ok_or_else(|| io_error("make", path)(io::ErrorKind::NotFound.into()))
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

/// Makes both copies of the superblock say what the one that counts does. An update begins with copy
/// A: were copy B still torn by one loss of power, another could take both.
fn mend_superblock(file: &File, head: &[u8], superblock: &Superblock) -> io::Result<()> {
    let copy = superblock.encode_copy();
    for offset in [0, COPY_BYTES] {
        if head.get(offset..offset + COPY_BYTES) != Some(&copy[..]) {
            file.write_all_at(&copy, offset as u64)?;
            file.sync_data()?;
        }
    }
    Ok(())
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
    #[cfg(target_os = "linux")]
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use tempfile::TempDir;

    use super::*;
    #[cfg(target_os = "linux")]
    use crate::arena::bus_error::{bus_errors, install};
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
    fn a_file_has_its_room_and_belongs_to_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let file = created(&directory);
        let metadata = fs::metadata(file.path()).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert_eq!(metadata.len(), superblock().file_bytes());
        assert!(metadata.blocks() * 512 >= 3 * 4096 + 8 * u64::from(SEGMENT_BYTES));
    }

    #[test]
    fn a_directory_gets_a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let file = CacheFile::create(directory.path(), superblock(), Existing::Keep).unwrap();
        assert!(file.path().ends_with("cache.arena"));
        assert!(file.snapshot_path().ends_with("cache.arena.snapshot"));
        drop(file);
        assert!(CacheFile::open(directory.path()).unwrap().is_some());
    }

    #[test]
    fn a_link_leads_to_the_same_file_and_the_same_snapshot() {
        let directory = tempfile::tempdir().unwrap();
        let (link, target) = (directory.path().join("link"), directory.path().join("target"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let file = CacheFile::create(&link, superblock(), Existing::Keep).unwrap();
        assert!(matches!(CacheFile::open(&target), Err(OpenError::InUse { .. })));
        assert_eq!(file.snapshot_path().file_name().unwrap(), "target.snapshot");
    }

    #[test]
    fn absent_empty_and_unfinished_files_are_none_and_can_be_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        assert!(CacheFile::open(&path).unwrap().is_none());
        assert!(!path.exists(), "looking makes no file");
        for content in [&b""[..], &MAGIC_UNFINISHED, &[&MAGIC_UNFINISHED[..], &[0; 9999]].concat()]
        {
            fs::write(&path, content).unwrap();
            assert!(CacheFile::open(&path).unwrap().is_none());
            assert_eq!(fs::read(&path).unwrap(), content);
            drop(CacheFile::create(&path, superblock(), Existing::Keep).unwrap());
            assert_eq!(reopened(&directory).superblock(), superblock());
        }
    }

    #[test]
    fn what_is_not_a_cache_file_is_refused_and_left_untouched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        for content in [&b"all my letters"[..], &[0; 8192], &superblock().encode()[1..]] {
            fs::write(&path, content).unwrap();
            let opened = CacheFile::open(&path).map(drop);
            let created = CacheFile::create(&path, superblock(), Existing::Overwrite).map(drop);
            for error in [opened, created] {
                assert!(matches!(
                    error,
                    Err(OpenError::Superblock { source: SuperblockError::NotACacheFile, .. })
                ));
            }
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        let error = CacheFile::create(Path::new("/dev/null"), superblock(), Existing::Overwrite);
        assert!(matches!(error, Err(OpenError::NotAFile { .. })));
    }

    #[test]
    fn a_cache_file_is_overwritten_only_when_the_caller_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let file = created(&directory);
        file.arena(0).unwrap().segment_mut(SegmentId(3)).fill(7);
        let path = file.path().to_owned();
        drop(file);
        let error = CacheFile::create(&path, superblock(), Existing::Keep);
        assert!(matches!(error, Err(OpenError::Exists { .. })));
        assert_eq!(reopened(&directory).arena(0).unwrap().segment(SegmentId(3))[0], 7);

        let other = Superblock { cache_id: 5, ..superblock() };
        let file = CacheFile::create(&path, other.clone(), Existing::Overwrite).unwrap();
        assert_eq!(file.arena(0).unwrap().segment(SegmentId(3))[0], 0);
        drop(file);
        assert_eq!(reopened(&directory).superblock(), other);
    }

    #[test]
    fn a_damaged_superblock_is_an_error_and_may_be_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = created(&directory).path().to_owned();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        for copy in [0, COPY_BYTES] {
            file.write_all_at(&[0xff], copy as u64 + 100).unwrap();
        }
        let error = CacheFile::open(&path).map(drop);
        assert!(matches!(
            error,
            Err(OpenError::Superblock { source: SuperblockError::Damaged, .. })
        ));
        assert!(CacheFile::create(&path, superblock(), Existing::Overwrite).is_ok());
    }

    #[test]
    fn a_file_cut_anywhere_is_extended_by_zeros_and_keeps_what_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let file = created(&directory);
        let path = file.path().to_owned();
        for shard in 0..2 {
            let mut arena = file.arena(shard).unwrap();
            arena.page_mut().unwrap().fill(1);
            (0..4).for_each(|segment| arena.segment_mut(SegmentId(segment)).fill(1));
        }
        drop(file);
        let whole = fs::read(&path).unwrap();
        let zeros = vec![0; whole.len()];
        // From its end to its beginning, so that what is below the cut is still as it was written.
        for len in (0..whole.len()).step_by(4096).rev() {
            OpenOptions::new().write(true).open(&path).unwrap().set_len(len as u64).unwrap();
            let Some(file) = CacheFile::open(&path).unwrap() else {
                assert_eq!(len, 0);
                continue;
            };
            assert_eq!(file.truncated_bytes(), (whole.len() - len) as u64);
            assert_eq!(file.superblock(), superblock());
            let read = fs::read(&path).unwrap();
            assert_eq!(read.len(), whole.len(), "cut at {len}");
            assert!(read[..len] == whole[..len] && read[len..] == zeros[len..], "cut at {len}");
            file.arena(1).unwrap().segment_mut(SegmentId(3))[SEGMENT_BYTES as usize - 1] = 2;
        }
    }

    #[test]
    fn an_update_is_there_after_reopening_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let file = created(&directory);
        for (durability, id) in [(Durability::Process, 7), (Durability::Power, 8)] {
            file.update(durability, |it| it.clean = Some(id)).unwrap();
        }
        file.sync().unwrap();
        drop(file);
        let read = reopened(&directory).superblock();
        assert_eq!((read.clean, read.generation), (Some(8), 2));
    }

    #[test]
    #[should_panic(expected = "not cut anew")]
    fn an_update_does_not_cut_the_file_anew() {
        let directory = tempfile::tempdir().unwrap();
        let _outcome = created(&directory).update(Durability::Process, |it| it.shard_count = 3);
    }

    #[test]
    fn a_shard_has_one_arena_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let file = created(&directory);
        let arena = file.arena(0).unwrap();
        assert!(file.arena(0).is_err(), "it has one");
        assert!(file.arena(2).is_err(), "there is no such shard");
        drop(arena);
        assert!(file.arena(0).is_ok());
    }

    #[test]
    fn a_file_has_at_most_64_extents() {
        let directory = tempfile::tempdir().unwrap();
        let file = created(&directory);
        assert!(file.grow(0).is_err(), "an extent is not empty");
        (1..EXTENTS_MAX).for_each(|_| file.grow(1).unwrap());
        assert_eq!(file.grow(1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        drop(file);
        assert_eq!(reopened(&directory).superblock().extents.len(), EXTENTS_MAX);
    }

    #[test]
    fn what_an_unfinished_growth_left_behind_is_not_taken_for_zeros() {
        let directory = tempfile::tempdir().unwrap();
        let path = created(&directory).path().to_owned();
        let file = OpenOptions::new().write(true).open(path).unwrap();
        let end = superblock().file_bytes();
        file.write_all_at(&[9; 4 << 20], end).unwrap();
        let file = reopened(&directory);
        assert_eq!(file.truncated_bytes(), 0);
        file.grow(2).unwrap();
        let arena = file.arena(0).unwrap();
        assert!(arena.segment(SegmentId(5)).iter().all(|&byte| byte == 0));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_file_system_is_an_error_and_leaves_no_half_file() {
        let Some(disk) = Mounted::new("tmpfs", Some("size=4m")) else { return };
        let path = disk.path().join("a");
        let fits = Superblock { extents: vec![64], ..superblock() };
        let too_large = Superblock { extents: vec![1024], ..superblock() };

        let error = CacheFile::create(&path, too_large.clone(), Existing::Keep).unwrap_err();
        assert!(matches!(error, OpenError::Reserve { .. }), "{error:?}");
        assert!(!path.exists());

        let file = CacheFile::create(&path, fits.clone(), Existing::Keep).unwrap();
        assert!(matches!(file.create_successor(too_large), Err(OpenError::Reserve { .. })));
        assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 1);

        let error = file.grow(1024).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.superblock(), fits);
        assert_eq!(fs::metadata(&path).unwrap().len(), fits.file_bytes());
        file.grow(1).unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn room_that_is_gone_is_refused_until_it_is_back() {
        let Some(disk) = Mounted::new("tmpfs", Some("size=4m")) else { return };
        let geometry = Superblock { extents: vec![64], ..superblock() };
        let file = CacheFile::create(&disk.path().join("a"), geometry, Existing::Keep).unwrap();
        let mut arena = file.arena(1).unwrap();
        (0..64).for_each(|segment| arena.release(SegmentId(segment)));
        let filler = disk.path().join("filler");
        let _until_full = fs::write(&filler, vec![1; 8 << 20]);

        assert!(!arena.reserve(SegmentId(5)));
        drop((file, arena));
        let file = CacheFile::open(&disk.path().join("a")).unwrap().unwrap();
        let mut arena = file.arena(1).unwrap();
        assert!(arena.is_blank(SegmentId(5)));
        assert!(!arena.reserve(SegmentId(5)), "a later process finds out as well");

        fs::remove_file(filler).unwrap();
        assert!(arena.reserve(SegmentId(5)));
        arena.segment_mut(SegmentId(5)).fill(3);
        assert!(!arena.is_blank(SegmentId(5)));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_released_segment_reads_as_zeros_although_there_is_no_room_for_them() {
        let Some(disk) = Mounted::new("tmpfs", Some("size=4m")) else { return };
        let file = CacheFile::create(disk.path(), superblock(), Existing::Keep).unwrap();
        let mut arena = file.arena(1).unwrap();
        arena.segment_mut(SegmentId(2)).fill(7);
        arena.release(SegmentId(2));
        let _until_full = fs::write(disk.path().join("filler"), vec![1; 8 << 20]);
        // Here a hole takes room when it is read.
        install().unwrap();
        assert!(arena.segment(SegmentId(2)).iter().all(|&byte| byte == 0));
        assert!(bus_errors() > 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn where_nothing_can_be_reserved_zeros_take_the_room() {
        let Some(disk) = Mounted::new("ramfs", None) else { return };
        let file = CacheFile::create(disk.path(), superblock(), Existing::Keep).unwrap();
        let room = |file: &CacheFile| file.file().metadata().unwrap().blocks() * 512;
        let reserved = room(&file);
        assert!(reserved >= 3 * 4096 + 8 * u64::from(SEGMENT_BYTES));

        let mut arena = file.arena(1).unwrap();
        (0..4).for_each(|segment| arena.segment_mut(SegmentId(segment)).fill(7));
        arena.release(SegmentId(2));
        assert_eq!(room(&file), reserved, "nothing can be given back");
        assert!(arena.segment(SegmentId(2)).iter().all(|&byte| byte == 0), "what it held is gone");
        drop((file, arena));

        let file = CacheFile::open(disk.path()).unwrap().unwrap();
        let mut arena = file.arena(1).unwrap();
        assert!((0..4).all(|segment| arena.reserve(SegmentId(segment))));
        assert!(arena.segment(SegmentId(3)).iter().all(|&byte| byte == 7));
    }

    /// A file system of its own, mounted as long as this lives.
    #[cfg(target_os = "linux")]
    struct Mounted(TempDir);

    #[cfg(target_os = "linux")]
    impl Mounted {
        /// `None`, with a word on it, where the test may not mount.
        #[expect(clippy::print_stderr, reason = "a test says why it does nothing")]
        fn new(kind: &str, options: Option<&str>) -> Option<Self> {
            let directory = tempfile::tempdir().unwrap();
            match mount(Some(kind), directory.path(), Some(kind), MsFlags::empty(), options) {
                Ok(()) => Some(Self(directory)),
                Err(error) => {
                    eprintln!("skipped: cannot mount a {kind} of its own: {error}");
                    None
                }
            }
        }

        fn path(&self) -> &Path {
            self.0.path()
        }
    }

    #[cfg(target_os = "linux")]
    impl Drop for Mounted {
        fn drop(&mut self) {
            // Lazily: files of the test may be open still.
            let _unmounted = umount2(self.path(), MntFlags::MNT_DETACH);
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

    #[test]
    fn the_successor_of_a_conversion_that_was_killed_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = created(&directory).path().to_owned();
        let stray = appended(&path, ".new");
        fs::copy(&path, &stray).unwrap();
        drop(reopened(&directory));
        assert!(!stray.exists());
        fs::write(&stray, "somebody's draft").unwrap();
        drop(reopened(&directory));
        assert!(stray.exists(), "what is not ours is left alone");
    }
}
