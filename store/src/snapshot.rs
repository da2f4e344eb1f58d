//! A snapshot: what an orderly stop writes beside the cache file, so that the next start need not walk
//! the segments.
//!
//! ```text
//! file:     | header | section of shard 0 | section of shard 1 | ... | the owner's |      in any order
//! header:   magic 8 | format 4 | shard_count 4 | snapshot_id 8 | cache_id 16
//!           | per section: offset 8, len 8, crc32c 4 | crc32c 4
//! section:  sequence, flush, counters | segments | columns | chains | index | policy
//! ```
//!
//! - A section holds what the segments do not say: index, columns, the policy's order and ghosts,
//!   counters. It also holds a checksum of every segment, so a segment that changed after the stop is
//!   noticed before anything in it is served.
//! - The superblock names the one snapshot that belongs to the segments as they are. It does so last,
//!   and stops to before the next start writes its first byte.
//! - Every section has a checksum of its own: one that is damaged costs its shard a walk.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::arena::mapped::ReadMapping;

const MAGIC: [u8; 8] = *b"CACHSNAP";
const FORMAT: u32 = 3;
const FIXED_BYTES: usize = 40;
const TABLE_ROW_BYTES: usize = 20;

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is none.
    #[error("there is no snapshot")]
    Missing,
    /// It does not begin as a snapshot does, or its header is damaged.
    #[error("the snapshot's header is damaged")]
    Header,
    /// Another build wrote it.
    #[error("the snapshot has format {found}, this build reads format {expected}")]
    Format {
        /// The format found.
        found: u32,
        /// The format of this build.
        expected: u32,
    },
    /// It belongs to another cache file, or to another state of this one.
    #[error("the snapshot belongs to another state of the cache file")]
    Other,
    /// A section's checksum does not hold, or what it says cannot be.
    #[error("the snapshot of shard {shard} is damaged")]
    Section {
        /// The shard.
        shard: u32,
    },
    /// The policy cannot go on from it.
    #[error("the policy cannot go on from its snapshot")]
    Policy(#[from] eviction::SnapshotError),
    /// Other keys were protected when it was written, so that its ranks are none of now.
    #[error("other keys were protected when the snapshot was taken")]
    Protected,
    /// It cannot be read or written.
    #[error("cannot access the snapshot")]
    Io(#[from] io::Error),
}

/// Which snapshot, of which cache file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotName {
    /// The cache file's id.
    pub cache_id: u128,
    /// The number that the superblock calls it by.
    pub snapshot_id: u64,
    /// How many shards have a section in it; one more is for what their owner wants to keep.
    pub shard_count: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    offset: u64,
    len: u64,
    crc: u32,
}

fn header_bytes(shard_count: u32) -> usize {
    FIXED_BYTES + (shard_count as usize + 1) * TABLE_ROW_BYTES + 4
}

/// A snapshot being written, by several threads if that suits. It stands under its name only once it
/// is complete.
#[derive(Debug)]
pub struct SnapshotWriter {
    path: PathBuf,
    unfinished: PathBuf,
    name: SnapshotName,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    file: File,
    end: u64,
    rows: Vec<Row>,
    is_finished: bool,
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        let progress = self.progress.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !progress.is_finished {
            // It is of no use, and what is wrong has been told already.
            let _ = std::fs::remove_file(&self.unfinished);
        }
    }
}

impl SnapshotWriter {
    /// Begins a snapshot that will stand at `path`. Only the owner may read it.
    ///
    /// # Errors
    ///
    /// When the file cannot be made.
    pub fn create(path: &Path, name: SnapshotName) -> io::Result<Self> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".new");
        let unfinished = PathBuf::from(unfinished);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        let progress = Mutex::new(Progress {
            file,
            end: header_bytes(name.shard_count) as u64,
            rows: vec![Row::default(); name.shard_count as usize + 1],
            is_finished: false,
        });
        Ok(Self { path: path.to_owned(), unfinished, name, progress })
    }

    /// Writes the section of a shard, or behind the last shard's the owner's own.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn section(&self, shard: u32, bytes: &[u8]) -> io::Result<()> {
        let crc = crc32c::crc32c(bytes);
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = progress.end;
        progress.file.write_all_at(bytes, offset)?;
        progress.end += bytes.len() as u64;
        progress.rows[shard as usize] = Row { offset, len: bytes.len() as u64, crc };
        Ok(())
    }

    /// Writes the header, and puts the snapshot in the place of the one before. When it returns, it is
    /// on the device.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn finish(self) -> io::Result<()> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let mut header = Vec::with_capacity(header_bytes(self.name.shard_count));
        header.write_all(&MAGIC)?;
        header.write_all(&FORMAT.to_le_bytes())?;
        header.write_all(&self.name.shard_count.to_le_bytes())?;
        header.write_all(&self.name.snapshot_id.to_le_bytes())?;
        header.write_all(&self.name.cache_id.to_le_bytes())?;
        for row in &progress.rows {
            header.write_all(&row.offset.to_le_bytes())?;
            header.write_all(&row.len.to_le_bytes())?;
            header.write_all(&row.crc.to_le_bytes())?;
        }
        let crc = crc32c::crc32c(&header);
        header.write_all(&crc.to_le_bytes())?;
        progress.file.write_all_at(&header, 0)?;
        progress.file.sync_all()?;
        std::fs::rename(&self.unfinished, &self.path)?;
        progress.is_finished = true;
        match self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            Some(folder) => File::open(folder)?.sync_all(),
            None => File::open(".")?.sync_all(),
        }
    }
}

/// A snapshot to go on from.
#[derive(Debug)]
pub struct Snapshot {
    mapping: ReadMapping,
    rows: Vec<Row>,
}

impl Snapshot {
    /// Opens the snapshot at `path`, if it is the one called `name`.
    ///
    /// # Errors
    ///
    /// When there is none, or another, or its header is damaged.
    pub fn open(path: &Path, name: SnapshotName) -> Result<Self, SnapshotError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SnapshotError::Missing);
            }
            file => file?,
        };
        if file.metadata()?.len() < header_bytes(name.shard_count) as u64 {
            return Err(SnapshotError::Header);
        }
        let mapping = ReadMapping::of(&file)?;
        let header = &mapping.bytes()[..header_bytes(name.shard_count)];
        let (body, _) = header.split_at(header.len() - 4);
        let mut read = Reader::new(header);
        let (Some(magic), Some(format)) = (read.take(8), read.u32()) else {
            return Err(SnapshotError::Header);
        };
        if magic != MAGIC {
            return Err(SnapshotError::Header);
        }
        if format != FORMAT {
            return Err(SnapshotError::Format { found: format, expected: FORMAT });
        }
        let rows = || -> Option<Result<Vec<Row>, SnapshotError>> {
            let (shard_count, snapshot_id) = (read.u32()?, read.u64()?);
            let cache_id = u128::from(read.u64()?) | u128::from(read.u64()?) << 64;
            if (SnapshotName { cache_id, snapshot_id, shard_count }) != name {
                return Some(Err(SnapshotError::Other));
            }
            let mut rows = Vec::with_capacity(shard_count as usize + 1);
            for _ in 0..=shard_count {
                rows.push(Row { offset: read.u64()?, len: read.u64()?, crc: read.u32()? });
            }
            (read.u32()? == crc32c::crc32c(body)).then_some(Ok(rows))
        }();
        let rows = rows.ok_or(SnapshotError::Header)??;
        Ok(Self { mapping, rows })
    }

    /// The section of a shard, or behind the last shard's the owner's own.
    ///
    /// # Errors
    ///
    /// When its checksum does not hold.
    pub fn section(&self, shard: u32) -> Result<&[u8], SnapshotError> {
        let section = || {
            let row = self.rows.get(shard as usize)?;
            let from = usize::try_from(row.offset).ok()?;
            let to = from.checked_add(usize::try_from(row.len).ok()?)?;
            let bytes = self.mapping.bytes().get(from..to)?;
            (crc32c::crc32c(bytes) == row.crc).then_some(bytes)
        };
        section().ok_or(SnapshotError::Section { shard })
    }
}

/// Writes numbers, little-endian.
pub(crate) struct Writer<'a>(pub(crate) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(crate) fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// A column of rows, its length in front of it.
    pub(crate) fn column<T, const BYTES: usize>(
        &mut self,
        rows: &[T],
        encode: impl Fn(&T) -> [u8; BYTES],
    ) {
        self.u64(rows.len() as u64);
        let from = self.0.len();
        self.0.resize(from + rows.len() * BYTES, 0);
        let (chunks, _) = self.0[from..].as_chunks_mut::<BYTES>();
        for (chunk, row) in chunks.iter_mut().zip(rows) {
            *chunk = encode(row);
        }
    }
}

/// Reads what a [`Writer`] wrote; `None` where the bytes end too early.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    /// The rows of a column.
    pub(crate) fn column<const BYTES: usize>(&mut self) -> Option<&'a [[u8; BYTES]]> {
        let len = usize::try_from(self.u64()?).ok()?;
        let (rows, _) = self.take(len.checked_mul(BYTES)?)?.as_chunks::<BYTES>();
        Some(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: SnapshotName = SnapshotName { cache_id: 7 << 100, snapshot_id: 3, shard_count: 2 };

    fn written(folder: &Path) -> PathBuf {
        let path = folder.join("cache.snapshot");
        let writer = SnapshotWriter::create(&path, NAME).unwrap();
        writer.section(1, b"the second shard").unwrap();
        writer.section(0, b"the first").unwrap();
        writer.section(2, b"the owner's").unwrap();
        assert!(!path.exists(), "it does not stand before it is complete");
        writer.finish().unwrap();
        path
    }

    #[test]
    fn sections_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = Snapshot::open(&written(folder.path()), NAME).unwrap();
        assert_eq!(snapshot.section(0).unwrap(), b"the first");
        assert_eq!(snapshot.section(1).unwrap(), b"the second shard");
        assert_eq!(snapshot.section(2).unwrap(), b"the owner's");
        assert!(snapshot.section(3).is_err());
    }

    #[test]
    fn a_snapshot_of_another_state_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        for other in [
            SnapshotName { snapshot_id: 4, ..NAME },
            SnapshotName { cache_id: 1, ..NAME },
            SnapshotName { shard_count: 1, ..NAME },
        ] {
            assert!(matches!(Snapshot::open(&path, other), Err(SnapshotError::Other)));
        }
        let missing = Snapshot::open(&folder.path().join("none"), NAME);
        assert!(matches!(missing, Err(SnapshotError::Missing)));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let whole = std::fs::read(&path).unwrap();
        let is_sound = || {
            let Ok(snapshot) = Snapshot::open(&path, NAME) else { return false };
            (0..3).all(|section| snapshot.section(section).is_ok())
        };
        assert!(is_sound());
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).unwrap();
            assert!(!is_sound(), "bit {bit}");
        }
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(!is_sound(), "cut to {len}");
        }
    }
}
