//! Room in a file: reserved so that a later write cannot fail for want of it, and given back.
//!
//! - Where the system or the file system cannot reserve, zeros are written instead, which takes the
//!   room as well; and what cannot be given back is overwritten with zeros by the caller.
//! - A file system that copies on write (btrfs, ZFS) keeps the promise for the first write to a
//!   place only: the next one takes room elsewhere. There a bus error remains possible.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

#[cfg(target_os = "linux")]
use nix::errno::Errno;
#[cfg(target_os = "linux")]
use nix::fcntl::{FallocateFlags, fallocate};

/// Reserved at once where a single call keeps being interrupted by signals.
#[cfg(target_os = "linux")]
const SLICE_BYTES: u64 = 64 << 20;
const ZEROS: &[u8] = &[0; 64 << 10];

/// How [`reserve`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reserved {
    /// The system has set the room aside.
    Yes,
    /// The system cannot do that here.
    Unsupported,
}

/// Sets room aside for `bytes` bytes from `offset`, and makes the file reach that far. What the file
/// holds there stays, and what it does not reads as zeros.
#[cfg(target_os = "linux")]
pub(super) fn reserve(file: &File, offset: u64, bytes: u64) -> io::Result<Reserved> {
    let outcome = match allocate(file, FallocateFlags::empty(), offset, bytes) {
        // tmpfs gives up whatever it had done when a signal comes. A smaller bite ends before the
        // next one does.
        Err(Errno::EINTR) => slices(offset, bytes).try_for_each(|(offset, bytes)| {
            retry(|| allocate(file, FallocateFlags::empty(), offset, bytes))
        }),
        outcome => outcome,
    };
    match outcome {
        Ok(()) => Ok(Reserved::Yes),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(Reserved::Unsupported),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn reserve(_file: &File, _offset: u64, _bytes: u64) -> io::Result<Reserved> {
    Ok(Reserved::Unsupported)
}

/// As [`reserve`], for a range that holds nothing yet: where the system cannot, zeros are written.
pub(super) fn reserve_new(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    match reserve(file, offset, bytes)? {
        Reserved::Yes => Ok(()),
        Reserved::Unsupported => {
            let step = ZEROS.len() as u64;
            (0..bytes).step_by(ZEROS.len()).try_for_each(|done| {
                let len = usize::try_from((bytes - done).min(step)).unwrap_or(ZEROS.len());
                file.write_all_at(&ZEROS[..len], offset + done)
            })
        }
    }
}

/// Gives the room of a range back; it reads as zeros from now on. `false` where the system cannot.
#[cfg(target_os = "linux")]
pub(super) fn give_back(file: &File, offset: u64, bytes: u64) -> bool {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    retry(|| allocate(file, flags, offset, bytes)).is_ok()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn give_back(_file: &File, _offset: u64, _bytes: u64) -> bool {
    false
}

/// Whether anything was ever written to a range since its room was reserved or given back. `true`
/// where the system does not tell.
#[cfg(target_os = "linux")]
pub(super) fn holds_data(file: &File, offset: u64, bytes: u64) -> bool {
    let Ok(from) = libc::off_t::try_from(offset) else { return true };
    match nix::unistd::lseek(file, from, nix::unistd::Whence::SeekData) {
        Ok(data) => u64::try_from(data).is_ok_and(|data| data < offset + bytes),
        // No data from here to the end.
        Err(Errno::ENXIO) => false,
        Err(_) => true,
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn holds_data(_file: &File, _offset: u64, _bytes: u64) -> bool {
    true
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, flags: FallocateFlags, offset: u64, bytes: u64) -> Result<(), Errno> {
    let offset = libc::off_t::try_from(offset).map_err(|_| Errno::EFBIG)?;
    let bytes = libc::off_t::try_from(bytes).map_err(|_| Errno::EFBIG)?;
    fallocate(file, flags, offset, bytes)
}

#[cfg(target_os = "linux")]
fn retry(mut call: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}

#[cfg(target_os = "linux")]
fn slices(offset: u64, bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    let starts = (0..bytes).step_by(usize::try_from(SLICE_BYTES).unwrap_or(usize::MAX));
    starts.map(move |done| (offset + done, (bytes - done).min(SLICE_BYTES)))
}
