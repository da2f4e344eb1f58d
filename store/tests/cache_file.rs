//! What a cache file does to other processes, and bad files to this one: tests that need a process
//! of their own.

#![cfg(not(miri))]

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;

use memmap2::Mmap;
use store::arena::bus_error::{bus_errors, install};
use store::arena::{Arena, CacheFile, Existing, MappedArena, OpenError, SegmentId};
use store::superblock::{PolicyName, Superblock};

const SEGMENT_BYTES: u32 = 16 << 10;
const PAGE_BYTES: usize = 4096;
/// Set in the environment of a process that is to be the test itself, to its argument.
const RERUN: &str = "STORE_TEST_RERUN";

/// How `test` ends in a process of its own; `Err` has the argument where this is that process.
fn in_own_process(test: &str, argument: &str) -> Result<ExitStatus, String> {
    if let Ok(argument) = std::env::var(RERUN) {
        return Err(argument);
    }
    let program = std::env::current_exe().expect("a running test has a program");
    let mut command = Command::new(program);
    command.args([test, "--exact", "--nocapture"]).env(RERUN, argument);
    let output = command.output().expect("what runs can be started again");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("running 1 test"), "there is no test {test}: {said}");
    Ok(output.status)
}

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
        policy: PolicyName::new("lru").expect("three letters"),
        extents: vec![4],
        clean: None,
        seen_unix_ms: 0,
    }
}

fn created(directory: &Path) -> CacheFile {
    CacheFile::create(directory, superblock(), Existing::Keep).expect("there is room")
}

/// The first shard's arena, full of ones, in a file that was cut after its first two pages of
/// segments.
fn cut_file(directory: &Path) -> (MappedArena, PathBuf) {
    let file = created(directory);
    let mut arena = file.arena(0).expect("the first one");
    (0..4).for_each(|segment| arena.segment_mut(SegmentId(segment)).fill(1));
    let first = superblock().extent_offset(0);
    let other = OpenOptions::new().write(true).open(file.path());
    let cut = other.and_then(|it| it.set_len(first + 2 * PAGE_BYTES as u64));
    cut.expect("a lock keeps nobody from it");
    (arena, file.path().to_owned())
}

#[test]
fn another_process_is_told_that_the_file_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    // The one that runs again does not make a file.
    let file = std::env::var(RERUN).is_err().then(|| created(directory.path()));
    let path = file.as_ref().map(|it| it.path().to_str().unwrap()).unwrap_or_default();
    match in_own_process("another_process_is_told_that_the_file_is_in_use", path) {
        Ok(status) => assert!(status.success(), "{status}"),
        Err(path) => {
            let path = Path::new(&path);
            let error = CacheFile::open(path).expect_err("the parent has it");
            let expected = format!("{} is in use by another process", path.display());
            assert_eq!(error.to_string(), expected);
            let error = CacheFile::create(path, superblock(), Existing::Overwrite);
            assert!(matches!(error, Err(OpenError::InUse { .. })));
        }
    }
}

#[test]
fn a_killed_process_leaves_its_file_unlocked_and_what_it_wrote_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let name = "a_killed_process_leaves_its_file_unlocked_and_what_it_wrote_in_it";
    match in_own_process(name, directory.path().to_str().unwrap()) {
        Ok(status) => {
            assert_eq!(status.signal(), Some(libc::SIGKILL));
            let file = CacheFile::open(directory.path()).unwrap().unwrap();
            assert_eq!(file.arena(1).unwrap().segment(SegmentId(3))[77], 7);
        }
        Err(directory) => {
            let mut arena = created(Path::new(&directory)).arena(1).unwrap();
            arena.segment_mut(SegmentId(3))[77] = 7;
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }
}

#[test]
fn pages_cut_from_under_an_arena_read_as_zeros_and_are_counted() {
    let name = "pages_cut_from_under_an_arena_read_as_zeros_and_are_counted";
    if let Ok(status) = in_own_process(name, "") {
        assert!(status.success(), "{status}");
        return;
    }
    install().unwrap();
    install().expect("again does nothing");
    let directory = tempfile::tempdir().unwrap();
    let (mut arena, path) = cut_file(directory.path());
    let segment = arena.segment_mut(SegmentId(0));

    assert_eq!((segment[2 * PAGE_BYTES - 1], bus_errors()), (1, 0), "two pages are left");
    assert_eq!((segment[2 * PAGE_BYTES], bus_errors()), (0, 1));
    assert_eq!((segment[3 * PAGE_BYTES - 1], bus_errors()), (0, 1), "the same page");
    segment[3 * PAGE_BYTES] = 7;
    assert_eq!((segment[3 * PAGE_BYTES], bus_errors()), (7, 2), "a write is survived, too");
    assert!(arena.segment(SegmentId(3)).iter().all(|&byte| byte == 0));
    assert_eq!(bus_errors(), 2 + 4);

    drop(arena);
    let file = CacheFile::open(&path).unwrap().unwrap();
    assert!(file.truncated_bytes() > 0);
    let arena = file.arena(0).unwrap();
    assert_eq!(arena.segment(SegmentId(0))[3 * PAGE_BYTES], 0, "it did not reach the file");
    assert_eq!(bus_errors(), 2 + 4);
}

#[test]
fn every_thread_survives() {
    if let Ok(status) = in_own_process("every_thread_survives", "") {
        assert!(status.success(), "{status}");
        return;
    }
    install().unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let directory = tempfile::tempdir().unwrap();
                let (arena, _path) = cut_file(directory.path());
                let segment = arena.segment(SegmentId(0));
                let sum: usize = segment.iter().map(|&byte| usize::from(byte)).sum();
                assert_eq!(sum, 2 * PAGE_BYTES);
            });
        }
    });
    assert_eq!(bus_errors(), 8 * 2);
}

#[test]
#[expect(unsafe_code, reason = "a mapping that is nobody's arena")]
fn a_fault_elsewhere_kills_the_process() {
    if let Ok(status) = in_own_process("a_fault_elsewhere_kills_the_process", "") {
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
        return;
    }
    install().unwrap();
    let file = tempfile::tempfile().unwrap();
    file.set_len(PAGE_BYTES as u64).unwrap();
    // SAFETY: no other process knows the file, and only bytes are read from it.
    let mapping = unsafe { Mmap::map(&file) }.unwrap();
    file.set_len(0).unwrap();
    assert_eq!(mapping[9], 0, "not reached");
}

#[test]
fn a_signal_that_a_process_sent_is_not_swallowed() {
    if let Ok(status) = in_own_process("a_signal_that_a_process_sent_is_not_swallowed", "") {
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
        return;
    }
    install().unwrap();
    // The first reaches the action that the standard library has put in place, which makes room for
    // the default; the second one kills.
    for _ in 0..2 {
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGBUS).unwrap();
    }
}
