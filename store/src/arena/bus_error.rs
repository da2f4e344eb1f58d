//! Surviving a bus error: what the system sends a process that touches a mapped page whose file
//! cannot provide it.
//!
//! The arena's space is reserved before it is touched, so none should come. One comes all the same
//! when somebody truncates the file, or the device below fails to read. Without a handler the
//! process dies; with it the page becomes a page of zeros, which no checksum of a record agrees
//! with, and the fault is counted.
//!
//! ```text
//! fault at an address ──▶ in a registered mapping? ──yes──▶ zeros over that page, counter + 1, return
//!                                 └──no──▶ put back the action that was there before, return;
//!                                          the access faults again and takes its course
//! ```
//!
//! - A reader compares [`bus_errors`] before and after its work, and throws the work away if it
//!   grew: the bytes that it was about to answer may be zeros that nobody wrote.
//! - What is written to a replaced page does not reach the file. Whoever sees the counter grow gives
//!   the mapping up.
//! - A system call that is given a page without a file behind it fails with `EFAULT` instead.
//! - The table of mappings is lock-free because a signal handler may wait for nobody. Each entry is
//!   one word, so an entry is seen whole or not at all, and nothing else is shared. The entry that a
//!   fault needs was stored before the mapping was handed to the thread that faults, and is taken
//!   out only when no thread can touch the mapping any more.

#![expect(
    unsafe_code,
    reason = "a signal handler is installed, and replaces pages under a mapping"
)]

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, compiler_fence};
use std::sync::{Once, OnceLock};
use std::{io, ptr};

use libc::{c_int, c_void, siginfo_t};

/// Mappings at once: a page and an extent for each of 8,192 shards.
pub(crate) const MAPPINGS_MAX: usize = 1 << 14;
/// What an entry counts in. Mappings begin and end at multiples of it.
const UNIT_BYTES: usize = 4096;
/// Bits of an entry that hold a length; 28 bits of 4 KiB are 1 TiB. The 36 bits above hold the
/// start, enough for the 48 bits of an address that a process is given unless it asks for more.
const LEN_BITS: u32 = 28;

static MAPPINGS: [AtomicU64; MAPPINGS_MAX] = [const { AtomicU64::new(0) }; MAPPINGS_MAX];
static BUS_ERRORS: AtomicU64 = AtomicU64::new(0);
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(UNIT_BYTES);
static ACTION_BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Lets the process survive bus errors in mapped arenas from now on. Called once by the program, at
/// its start; again does nothing.
pub fn install() -> io::Result<()> {
    static INSTALLED: Once = Once::new();
    let mut outcome = Ok(());
    INSTALLED.call_once(|| outcome = replace_action());
    outcome
}

/// How many pages were replaced by zeros since the process started.
///
/// Everything that the calling thread read before is taken into account.
pub fn bus_errors() -> u64 {
    // A fault is raised by the instruction that reads: the compiler must not move it past the load.
    compiler_fence(Ordering::SeqCst);
    let count = BUS_ERRORS.load(Ordering::SeqCst);
    compiler_fence(Ordering::SeqCst);
    count
}

/// A mapping's entry in the table, taken out when dropped: dropped before the mapping is.
#[derive(Debug)]
pub(crate) struct Registration {
    slot: &'static AtomicU64,
}

impl Registration {
    /// Enters a mapping. `None` where the table is full, or the address beyond what it can hold.
    pub(crate) fn of(mapping: &[u8]) -> Option<Self> {
        let entry = Entry::of(mapping)?.0;
        let slot = MAPPINGS.iter().find(|slot| {
            slot.compare_exchange(0, entry, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        })?;
        Some(Self { slot })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.slot.store(0, Ordering::SeqCst);
    }
}

/// Start and length of a mapping in one word, never 0.
#[derive(Clone, Copy)]
struct Entry(u64);

impl Entry {
    fn of(mapping: &[u8]) -> Option<Self> {
        let from = mapping.as_ptr().addr() / UNIT_BYTES;
        let to = (mapping.as_ptr().addr() + mapping.len()).div_ceil(UNIT_BYTES);
        let (start, len) = (u64::try_from(from).ok()?, u64::try_from(to - from).ok()?);
        let fits =
            start >> (u64::BITS - LEN_BITS) == 0 && len >> LEN_BITS == 0 && !mapping.is_empty();
        fits.then_some(Self(start << LEN_BITS | len))
    }

    fn contains(self, address: u64) -> bool {
        let (start, len) = (self.0 >> LEN_BITS, self.0 & ((1 << LEN_BITS) - 1));
        (start..start + len).contains(&(address / UNIT_BYTES as u64))
    }
}

fn replace_action() -> io::Result<()> {
    // SAFETY: `sysconf` reads a constant of the system.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    PAGE_BYTES.store(usize::try_from(page_bytes).unwrap_or(UNIT_BYTES), Ordering::SeqCst);

    // Known before the handler can run, because the handler falls back on it.
    let mut before = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with no new action given, `sigaction` only writes the present one to `before`.
    check(unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), before.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so it filled `before`.
    let before = unsafe { before.assume_init() };
    let _first = ACTION_BEFORE.set(before);

    let mut action = before;
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_bus_error;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `sigemptyset` writes the mask of `action`, which lives on this stack.
    check(unsafe { libc::sigemptyset(&raw mut action.sa_mask) })?;
    // SAFETY: `action` is complete, and its handler calls nothing but what a handler may.
    check(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) })
}

fn check(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs in the middle of any instruction of any thread: it reads and writes atomics and makes
/// system calls, no more.
extern "C" fn on_bus_error(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the system passes a valid `info` to a handler installed with `SA_SIGINFO`.
    let info = unsafe { &*info };
    // Codes of 0 and below say that a process sent the signal: it has no address.
    if info.si_code > 0 {
        // SAFETY: a bus error raised by the system carries the address that was touched.
        let address = unsafe { info.si_addr() };
        if is_mapped(address) && replace_page(address) {
            BUS_ERRORS.fetch_add(1, Ordering::SeqCst);
            return;
        }
    }
    restore_action();
    if info.si_code <= 0 {
        // Nothing would send it again. It is held back until the handler returns.
        // SAFETY: `raise` may be called in a handler.
        unsafe { libc::raise(libc::SIGBUS) };
    }
}

fn is_mapped(address: *mut c_void) -> bool {
    let address = address.addr() as u64;
    MAPPINGS.iter().any(|slot| Entry(slot.load(Ordering::SeqCst)).contains(address))
}

/// Puts a page of zeros where `address` points; `false` where the system refuses, as it does with a
/// page of another size.
fn replace_page(address: *mut c_void) -> bool {
    let page_bytes = PAGE_BYTES.load(Ordering::SeqCst);
    let page = address.map_addr(|address| address & !(page_bytes - 1));
    // SAFETY: the page lies in a registered mapping, which is alive, since a thread just touched it.
    // The page was unreadable, so nothing that anybody has read from it changes.
    let replaced = unsafe {
        libc::mmap(
            page,
            page_bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    replaced == page
}

/// Puts back what was there before this handler. The access that faulted is repeated and meets it:
/// the process dies as it would have.
fn restore_action() {
    if let Some(before) = ACTION_BEFORE.get() {
        // SAFETY: `before` was filled by the system and is never changed.
        unsafe { libc::sigaction(libc::SIGBUS, before, ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const PAGE: usize = 4096;

    #[test]
    fn the_table_has_every_mapping_from_its_entry_to_its_leaving() {
        let memory = vec![0_u8; 64 * PAGE];
        let is_in = |bytes: &[u8]| is_mapped(bytes.as_ptr().cast_mut().cast());
        thread::scope(|scope| {
            // An entry covers whole pages: the gaps keep one thread's from touching another's.
            for run in memory.chunks_exact(8 * PAGE).map(|run| &run[PAGE..3 * PAGE]) {
                scope.spawn(move || {
                    for _ in 0..if cfg!(miri) { 2 } else { 500 } {
                        let registration = Registration::of(run).unwrap();
                        assert!(is_in(run) && is_in(&run[2 * PAGE - 1..]));
                        drop(registration);
                        assert!(!is_in(run) && !is_in(&run[2 * PAGE - 1..]));
                    }
                });
            }
        });
    }

    #[test]
    fn an_entry_ends_where_its_mapping_does() {
        assert!(Entry::of(&[]).is_none());
        let end = 0x7fff_ffff_f000_u64;
        let entry = Entry((end / 4096 - (8 << 18)) << LEN_BITS | 8 << 18);
        assert!(entry.contains(end - 1) && entry.contains(end - (8 << 30)));
        assert!(!entry.contains(end) && !entry.contains(end - (8 << 30) - 1));
        assert!(!Entry(0).contains(0), "an empty slot has nothing");
    }
}
