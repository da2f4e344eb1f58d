//! A file that appears when it is whole: written beside its place, then moved there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file under way. Dropped before [`NewFile::commit`], it is gone.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    /// `PATH.tmp`, until it is moved.
    beside: Option<PathBuf>,
    path: PathBuf,
}

impl NewFile {
    /// Begins a file that is to stand at `path`. Only this user may read it: a backup holds whatever
    /// the cache does.
    ///
    /// # Errors
    ///
    /// When there can be none, or another one is under way to the same place.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let mut beside = path.to_owned().into_os_string();
        beside.push(".tmp");
        let beside = PathBuf::from(beside);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&beside)?;
        let busy = || io::Error::other("another backup is being written there");
        file.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => busy(),
            fs::TryLockError::Error(error) => error,
        })?;
        // Whoever held the lock before may have moved this very file to its place.
        if fs::metadata(&beside).map(|named| named.ino()).ok() != Some(file.metadata()?.ino()) {
            return Err(busy());
        }
        file.set_len(0)?;
        Ok(Self { file, beside: Some(beside), path: path.to_owned() })
    }

    /// Where to write.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Has the file take its place, and survive a power cut there. What stood there before is gone.
    ///
    /// # Errors
    ///
    /// When the operating system cannot; what stood there before is there still.
    pub fn commit(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        let Some(beside) = &self.beside else { return Ok(()) };
        fs::rename(beside, &self.path)?;
        self.beside = None;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // Why it is not wanted has been told already.
            let _ = fs::remove_file(beside);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_takes_its_place_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "before").unwrap();
        let given_up = NewFile::begin(&path).unwrap();
        given_up.file().write_all(b"half").unwrap();
        assert!(NewFile::begin(&path).is_err(), "one at a time");
        drop(given_up);
        assert_eq!(fs::read(&path).unwrap(), b"before");
        let new = NewFile::begin(&path).unwrap();
        new.file().write_all(b"after").unwrap();
        new.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }
}
