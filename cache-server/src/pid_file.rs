//! The file that tells other programs this process's id, for as long as it serves.

use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::sys::signal::kill;
use nix::unistd::Pid;

/// A pid file; removed when this is dropped.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes this process's id to `path`, replacing what a dead server left there.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(path: &Path) -> io::Result<Self> {
        // Written aside and renamed: whoever polls for the file never reads half a number.
        let mut aside = path.as_os_str().to_owned();
        aside.push(".tmp");
        let aside = PathBuf::from(aside);
        fs::write(&aside, format!("{}\n", std::process::id()))?;
        fs::rename(&aside, path)?;
        Ok(Self(path.to_owned()))
    }

    /// The process whose id `path` holds, if it runs.
    pub fn running(path: &Path) -> Option<Pid> {
        let id = fs::read_to_string(path).ok()?.trim().parse().ok().filter(|&id| id > 0)?;
        kill(Pid::from_raw(id), None).ok().map(|()| Pid::from_raw(id))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!("cannot remove the pid file {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_file_holds_the_process_id_while_it_lives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.pid");
        let file = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(PidFile::running(&path), Some(Pid::this()));
        drop(file);
        assert_eq!(PidFile::running(&path), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
