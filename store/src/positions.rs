//! How far each cluster shard's log has been applied to a cache file, in a small file beside it.
//!
//! ```text
//! 0        8        12            16           32             48           52    56            64
//! | magic  | format | shard_count | cache id   | cluster id   | zeros      | crc | incarnation | position of shard 0 | ...
//!   8        4        4             16           16             4            4     8             8 each
//! ```
//!
//! - Numbers are little-endian; the CRC-32C covers the 52 bytes before it. A position of 0 is none.
//! - A position is one store to mapped memory, which the kernel owns: a kill leaves the old one or the
//!   new one. Who notes it has written the item before, so the cache file holds at least what the
//!   position says. One write more may be there, which perhaps nobody else has, and what a walk of the
//!   segments loses is missing: a position ranks copies, and does not spare their comparison.
//! - The loss of power is not covered: pages of the two files reach the device in any order. After a
//!   restart of the machine positions are not to be believed.
//! - The file is made under another name, so one that is there is complete. One that belongs to another
//!   cache file or cluster, is of another format or is damaged gives way to a new one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::arena::mapped::SharedWords;

const MAGIC: [u8; 8] = *b"CACHEPOS";
const FORMAT: u32 = 1;
const CRC_AT: usize = 52;
const HEADER_BYTES: usize = 56;
const WORD_BYTES: usize = 8;
/// Which word the incarnation is.
const INCARNATION: usize = HEADER_BYTES / WORD_BYTES;
/// Which word the first position is.
const FIRST: usize = INCARNATION + 1;

/// What positions belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionsOwner {
    /// The cache file's, see [`crate::superblock::Superblock::cache_id`].
    pub cache_id: u128,
    /// The cluster's.
    pub cluster_id: u128,
    /// Cluster shards.
    pub shard_count: u16,
}

/// Why positions are not there, or what there is of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Those of an earlier process.
    Positions {
        /// The last one that used the file.
        incarnation: u64,
    },
    /// There was no file.
    Nothing,
    /// The file was of another cache, cluster, number of shards or format, or damaged; it is gone.
    Another,
}

/// Why a file of positions cannot be used. Each names the file.
#[derive(Debug, thiserror::Error)]
pub enum PositionsError {
    /// Another process has it, or another handle of this one.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
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

/// The positions of all cluster shards, for any thread to note. Locked by this process until dropped.
#[derive(Debug)]
pub struct Positions {
    words: SharedWords,
    shard_count: u16,
    /// Keeps the lock.
    _file: File,
}

impl Positions {
    /// Opens the positions at `path` that belong to `owner`, or makes a file of none. The process that
    /// notes positions from now on is `incarnation`; those of the one before stay until it does.
    pub fn open_or_create(
        path: &Path,
        owner: &PositionsOwner,
        incarnation: u64,
    ) -> Result<(Self, Found), PositionsError> {
        let error =
            |action| move |source| PositionsError::Io { action, path: path.to_owned(), source };
        let header = header(owner);
        let bytes = header.len() + WORD_BYTES * (1 + usize::from(owner.shard_count));
        let existing = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Some(lock(file, path)?),
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => None,
            Err(reason) => return Err(error("open")(reason)),
        };
        let is_owned = |file: &File| {
            let mut found = [0; HEADER_BYTES];
            let len = file.metadata().map_or(0, |it| it.len());
            len == bytes as u64 && file.read_exact_at(&mut found, 0).is_ok() && found == header
        };
        let (file, found) = match existing {
            Some(file) if is_owned(&file) => (file, None),
            Some(_) => (make(path, &header, bytes).map_err(error("make"))?, Some(Found::Another)),
            None => (make(path, &header, bytes).map_err(error("make"))?, Some(Found::Nothing)),
        };
        let file = if found.is_some() { lock(file, path)? } else { file };
        let words = SharedWords::of(&file).map_err(error("map"))?;
        let positions = Self { words, shard_count: owner.shard_count, _file: file };
        let before = positions.word(INCARNATION).swap(incarnation.to_le(), Ordering::SeqCst);
        let found = found.unwrap_or_else(|| Found::Positions { incarnation: u64::from_le(before) });
        Ok((positions, found))
    }

    /// The position of a shard, if it has one.
    pub fn get(&self, shard: u16) -> Option<u64> {
        let position = u64::from_le(self.place(shard).load(Ordering::Acquire));
        (position != 0).then_some(position)
    }

    /// Notes a position: after what it stands for was written to the cache file.
    #[inline]
    pub fn set(&self, shard: u16, position: u64) {
        // Released, so that neither compiler nor processor moves the item's bytes behind it.
        self.place(shard).store(position.to_le(), Ordering::Release);
    }

    /// Notes that a shard has none: before it holds what no single position stands for.
    pub fn forget(&self, shard: u16) {
        // What follows must not come before it, unlike what `set` keeps in order.
        self.place(shard).swap(0, Ordering::SeqCst);
    }

    /// The positions of all shards.
    pub fn all(&self) -> Vec<Option<u64>> {
        (0..self.shard_count).map(|shard| self.get(shard)).collect()
    }

    fn place(&self, shard: u16) -> &AtomicU64 {
        assert!(shard < self.shard_count, "shard {shard} of {}", self.shard_count);
        self.word(FIRST + usize::from(shard))
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.words.words()[at]
    }
}

fn header(owner: &PositionsOwner) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..16].copy_from_slice(&u32::from(owner.shard_count).to_le_bytes());
    header[16..32].copy_from_slice(&owner.cache_id.to_le_bytes());
    header[32..48].copy_from_slice(&owner.cluster_id.to_le_bytes());
    let crc = crc32c::crc32c(&header[..CRC_AT]);
    header[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    header
}

fn lock(file: File, path: &Path) -> Result<File, PositionsError> {
    let path = path.to_owned();
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(PositionsError::InUse { path }),
        Err(TryLockError::Error(source)) => {
            Err(PositionsError::Io { action: "lock", path, source })
        }
    }
}

/// A file of no positions at `path`, in place of what is there. Every byte is written, so that there is
/// room for all of them.
fn make(path: &Path, header: &[u8], bytes: usize) -> io::Result<File> {
    let mut content = header.to_vec();
    content.resize(bytes, 0);
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let unfinished = PathBuf::from(name);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all_at(&content, 0)?;
    fs::rename(&unfinished, path)?;
    Ok(file)
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const OWNER: PositionsOwner = PositionsOwner { cache_id: 7, cluster_id: 9, shard_count: 64 };

    struct Place(TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("positions")
        }

        fn open(&self, owner: &PositionsOwner, incarnation: u64) -> (Positions, Found) {
            Positions::open_or_create(&self.path(), owner, incarnation).unwrap()
        }
    }

    #[test]
    fn positions_outlive_the_process_that_noted_them() {
        let place = Place::new();
        let (positions, found) = place.open(&OWNER, 1);
        assert_eq!((found, positions.get(63)), (Found::Nothing, None));
        positions.set(0, 5);
        positions.set(63, u64::MAX);
        positions.set(7, 1);
        positions.forget(7);
        drop(positions);

        let (positions, found) = place.open(&OWNER, 2);
        assert_eq!(found, Found::Positions { incarnation: 1 });
        let mut expected = vec![None; 64];
        (expected[0], expected[63]) = (Some(5), Some(u64::MAX));
        assert_eq!(positions.all(), expected);
        drop(positions);
        assert_eq!(place.open(&OWNER, 3).1, Found::Positions { incarnation: 2 });
        assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_of_another_owner_gives_way() {
        let others = [
            PositionsOwner { cache_id: 8, ..OWNER },
            PositionsOwner { cluster_id: 8, ..OWNER },
            PositionsOwner { shard_count: 128, ..OWNER },
        ];
        for other in others {
            let place = Place::new();
            place.open(&OWNER, 1).0.set(3, 5);
            let (positions, found) = place.open(&other, 2);
            assert_eq!(found, Found::Another);
            assert_eq!(positions.all(), vec![None; usize::from(other.shard_count)]);
        }
    }

    #[test]
    fn every_damage_of_the_header_and_every_other_length_is_noticed() {
        let place = Place::new();
        place.open(&OWNER, 1).0.set(3, 5);
        let whole = fs::read(place.path()).unwrap();
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(place.path(), &bytes).unwrap();
            assert_eq!(place.open(&OWNER, 2).1, Found::Another, "bit {bit}");
        }
        for len in [0, 1, HEADER_BYTES, whole.len() - 1, whole.len() + 1] {
            let mut bytes = whole.clone();
            bytes.resize(len, 0);
            fs::write(place.path(), &bytes).unwrap();
            assert_eq!(place.open(&OWNER, 2).1, Found::Another, "{len} bytes");
        }
        assert_eq!(place.open(&OWNER, 3).0.all(), vec![None; 64]);
    }

    #[test]
    fn positions_in_use_are_not_opened_again() {
        let place = Place::new();
        let (positions, _) = place.open(&OWNER, 1);
        let again = Positions::open_or_create(&place.path(), &OWNER, 2);
        assert!(matches!(again, Err(PositionsError::InUse { .. })));
        positions.set(1, 4);
        drop(positions);
        assert_eq!(place.open(&OWNER, 2).0.get(1), Some(4));
    }

    #[test]
    fn what_is_noted_is_in_the_file_at_once() {
        let place = Place::new();
        let (positions, _) = place.open(&OWNER, 1);
        positions.set(2, 0x0102_0304_0506_0708);
        let bytes = fs::read(place.path()).unwrap();
        assert_eq!(bytes[64 + 16..64 + 24], [8, 7, 6, 5, 4, 3, 2, 1]);
    }

    #[test]
    #[should_panic(expected = "shard 64 of 64")]
    fn a_shard_that_does_not_exist_has_no_position() {
        Place::new().open(&OWNER, 1).0.get(64);
    }
}
