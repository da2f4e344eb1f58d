//! A file that appears when it is whole: written beside its place, then moved there. What stands
//! there is replaced if it is a backup, and nothing else ever.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What a zstd frame begins with, and so a backup (RFC 8878, section 3.1.1).
const BEGINNING: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

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
    /// When there can be none, another one is under way to the same place, or something other than a
    /// backup stands there.
    pub fn begin(path: &Path) -> io::Result<Self> {
        // What a link leads to is meant, and not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        refuse_to_replace(&path)?;
        let mut beside = path.clone().into_os_string();
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
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.set_len(0)?;
        Ok(Self { file, beside: Some(beside), path })
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

fn refuse_to_replace(path: &Path) -> io::Result<()> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut beginning = Vec::new();
    File::open(path)?.take(BEGINNING.len() as u64).read_to_end(&mut beginning)?;
    if beginning.is_empty() || beginning == BEGINNING {
        return Ok(());
    }
    Err(io::Error::other("it holds something other than a backup, which is left alone"))
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
        let before = [&BEGINNING[..], b"before"].concat();
        fs::write(&path, &before).unwrap();
        let given_up = NewFile::begin(&path).unwrap();
        given_up.file().write_all(b"half").unwrap();
        assert!(NewFile::begin(&path).is_err(), "one at a time");
        drop(given_up);
        assert_eq!(fs::read(&path).unwrap(), before);
        let new = NewFile::begin(&path).unwrap();
        new.file().write_all(b"after").unwrap();
        new.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn what_is_no_backup_is_left_alone_and_links_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "somebody's").unwrap();
        assert!(NewFile::begin(&path).is_err());
        assert!(NewFile::begin(Path::new("/dev/null")).is_err());
        assert!(NewFile::begin(folder.path()).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"somebody's");
        fs::write(&path, BEGINNING).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let new = NewFile::begin(&link).unwrap();
        new.file().write_all(b"after").unwrap();
        new.commit().unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"after");
    }
}
