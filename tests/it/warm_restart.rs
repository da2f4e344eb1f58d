//! A server with a memory file that is ended in every way, and what its successor holds.
//!
//! The campaigns end a loaded server `KILL_COUNT` times (20 unless named), half of them with memory
//! to spare and half of them full; `cargo xtask soak` makes it 200. A failure names its seed, which
//! `KILL_SEED` sets; the moments of the machine are not in the seed.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use tempfile::TempDir;
use tests::killer::{self, Plan, Report};
use tests::ledger::Forgetting;

/// A folder that costs no disk, where there is one.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn words(line: &str, file: &Path) -> Vec<String> {
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    words.extend(["-e".to_owned(), file.to_str().unwrap().to_owned()]);
    words
}

#[expect(clippy::print_stderr, reason = "a campaign tells what it did, and its seed when it fails")]
fn campaign(plan: Plan) -> Report {
    let seed = plan.seed;
    let report = catch_unwind(AssertUnwindSafe(|| killer::run(&plan))).unwrap_or_else(|panic| {
        eprintln!("KILL_SEED={seed}");
        resume_unwind(panic)
    });
    eprintln!("{report:?}");
    report
}

fn ends() -> u32 {
    u32::try_from(number_from("KILL_COUNT").unwrap_or(20).div_ceil(2)).unwrap()
}

fn seed() -> u64 {
    number_from("KILL_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish())
}

#[test]
fn a_killed_server_with_memory_to_spare_forgets_nothing() {
    let folder = folder();
    let report = campaign(Plan {
        arguments: words("-m 256 -t 2", &folder.path().join("cache")),
        ends: ends(),
        seed: seed(),
        forgetting: Forgetting::Nothing,
        clients: 4,
        keys: 1_500,
        large_keys: 4,
        value_scale: 1,
        memory_limits: None,
    });
    assert_eq!(report.evicted, 0, "there was memory to spare");
    assert!(report.found > 0 && report.operations > 0);
}

#[test]
fn a_killed_server_that_was_full_remembers_nothing_wrong() {
    let folder = folder();
    let report = campaign(Plan {
        arguments: words("-m 16 -t 2", &folder.path().join("cache")),
        ends: ends(),
        seed: seed(),
        forgetting: Forgetting::Anything,
        clients: 4,
        keys: 2_500,
        large_keys: 6,
        value_scale: 4,
        memory_limits: Some([12, 16]),
    });
    assert!(report.evicted > 0, "it was full");
    assert!(report.found > 0 && report.operations > 0);
}
