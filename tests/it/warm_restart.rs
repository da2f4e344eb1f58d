//! A server with a memory file that is ended in every way, and what its successor holds.
//!
//! The campaigns end a loaded server `KILL_COUNT` times (20 unless named), half of them with memory
//! to spare and half of them full; `cargo xtask soak` makes it 200. A failure names its seed, which
//! `KILL_SEED` sets; the moments of the machine are not in the seed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;
use tests::connection::Connection;
use tests::killer::{self, Plan, Report, stat, stats, stats_of, text};
use tests::ledger::Forgetting;
use tests::process::{Launcher, Process};
use tests::program::Program;
use tests::wait;

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
        command_lines: vec![words("-m 256 -t 2", &folder.path().join("cache"))],
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
fn a_killed_server_under_changing_command_lines_forgets_nothing() {
    let folder = folder();
    let file = folder.path().join("cache");
    let lines = ["-m 256 -t 2", "-m 256 -t 1", "-m 300 -t 4 --eviction lru", "-m 200 -t 2 -I 2m"];
    let report = campaign(Plan {
        command_lines: lines.iter().map(|line| words(line, &file)).collect(),
        ends: ends() / 2,
        seed: seed(),
        forgetting: Forgetting::Nothing,
        clients: 4,
        keys: 1_500,
        large_keys: 2,
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
        command_lines: vec![words("-m 16 -t 2", &folder.path().join("cache"))],
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

/// Items of which all is known, in a server that nobody else writes to.
mod known {
    use tests::connection::Connection;

    /// The `number`-th item: its key is its number, the rest follows from it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(super) struct Item {
        pub(super) value: Vec<u8>,
        pub(super) flags: u32,
        pub(super) cas: u64,
        /// Whether it has a lifetime, which is long.
        pub(super) expires: bool,
    }

    pub(super) const LIFETIME_S: u64 = 100_000;

    /// A value that only this key has: `bytes` long, or as many as it takes to say whose it is.
    pub(super) fn value(number: u32, bytes: usize) -> Vec<u8> {
        let mut value = format!("{number:08}:").into_bytes();
        let mut word = u64::from(number) + 1;
        while value.len() < bytes {
            word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ 0x5bd1;
            value.extend_from_slice(&word.to_le_bytes());
        }
        value.truncate(bytes.max(9));
        value
    }

    /// Every hundredth is large, every fourth has a lifetime.
    pub(super) fn bytes(number: u32) -> usize {
        match number % 100 {
            0 => 60_000,
            1..10 => 3_000,
            rest => 9 + rest as usize * 2,
        }
    }

    /// Stores the items of `numbers`; their cas, one for each.
    pub(super) fn fill(
        connection: &mut Connection,
        numbers: impl IntoIterator<Item = u32>,
        bytes: impl Fn(u32) -> usize,
    ) {
        for number in numbers {
            let value = value(number, bytes(number));
            let ttl_s = if number % 4 == 0 { LIFETIME_S } else { 0 };
            let mut request =
                format!("ms {number} {} F{} T{ttl_s}\r\n", value.len(), number % 3).into_bytes();
            request.extend_from_slice(&value);
            request.extend_from_slice(b"\r\n");
            connection.send(&request).unwrap();
            assert_eq!(connection.receive_line().unwrap().as_deref(), Some(b"HD".as_slice()));
        }
    }

    /// Reads an item without being counted as its reader; `None` when it is not there. Panics where
    /// it is not what was stored.
    pub(super) fn read(
        connection: &mut Connection,
        number: u32,
        bytes: impl Fn(u32) -> usize,
    ) -> Option<Item> {
        connection.send(format!("mg {number} v f c t q\r\nmn\r\n").as_bytes()).unwrap();
        let line = String::from_utf8(connection.receive_line().unwrap().expect("it answers"));
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let ["VA", len, flags, cas, ttl] = words.as_slice() else {
            assert_eq!(line, "MN");
            return None;
        };
        let found = connection.receive_block(len.parse().unwrap()).unwrap();
        assert_eq!(connection.receive_line().unwrap().as_deref(), Some(b"MN".as_slice()));
        assert!(found == value(number, bytes(number)), "{number} has the value of another");
        let flags: u32 = flags[1..].parse().unwrap();
        assert_eq!(flags, number % 3, "the flags of {number}");
        let expires = &ttl[1..] != "-1";
        assert_eq!(expires, number.is_multiple_of(4), "the lifetime of {number}");
        if expires {
            let left: u64 = ttl[1..].parse().unwrap();
            assert!((LIFETIME_S - 300..=LIFETIME_S).contains(&left), "{left} s are left");
        }
        Some(Item { value: found, flags, cas: cas[1..].parse().unwrap(), expires })
    }

    /// What is there of the items of `numbers`.
    pub(super) fn read_all(
        connection: &mut Connection,
        numbers: std::ops::Range<u32>,
        bytes: impl Fn(u32) -> usize,
    ) -> Vec<Option<Item>> {
        numbers.map(|number| read(connection, number, &bytes)).collect()
    }
}

/// A launcher of servers over `file`.
fn launcher(line: &str, file: &Path) -> Launcher {
    let words = words(line, file);
    Launcher::new(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What a server says of itself once all is restored.
fn restored(process: &Process) -> Vec<(String, String)> {
    let mut connection = process.connect();
    wait::until_promptly(Duration::from_secs(30), || {
        let stats = stats(&mut connection);
        (stat(&stats, "restoring") == 0).then_some(stats)
    })
    .expect("restoring ends")
}

fn ask(connection: &mut Connection, request: &str) -> String {
    connection.send(request.as_bytes()).unwrap();
    String::from_utf8(connection.receive_line().unwrap().expect("it answers")).unwrap()
}

/// Ends a server: in order by a signal, or by SIGKILL.
fn end(process: Process, signal: &str) {
    match signal {
        "KILL" => process.kill(),
        signal => process.stop(signal),
    }
}

#[test]
fn a_full_cache_holds_after_a_kill_exactly_what_it_held() {
    let folder = folder();
    let launcher = launcher("-m 16 -t 2", &folder.path().join("cache"));
    let process = launcher.start();
    let mut connection = process.connect();
    let numbers = 0..40_000;
    known::fill(&mut connection, numbers.clone(), known::bytes);
    let before = known::read_all(&mut connection, numbers.clone(), known::bytes);
    let said = stats(&mut connection);
    assert!(stat(&said, "evictions") > 0, "it was full");
    process.kill();

    let process = launcher.start();
    let after = known::read_all(&mut process.connect(), numbers, known::bytes);
    let found = after.iter().flatten().count();
    assert_eq!(stat(&said, "curr_items"), found as u64);
    for (number, (before, after)) in before.iter().zip(&after).enumerate() {
        assert!(before == after, "item {number}");
    }
}

#[test]
fn an_orderly_stop_keeps_items_counters_and_the_order_of_use() {
    for signal in ["TERM", "INT", "USR1"] {
        let folder = folder();
        let launcher = launcher("-m 16 -t 2 --eviction lru", &folder.path().join("cache"));
        let process = launcher.start();
        let mut connection = process.connect();
        let bytes = |_| 1_000;
        // Full, but for a little, and the first of it used again.
        known::fill(&mut connection, 0..12_500, bytes);
        assert_eq!(stat(&stats(&mut connection), "evictions"), 0, "it is not full yet");
        for number in 0..1_000 {
            assert!(ask_value(&mut connection, number));
        }
        let before = stats(&mut connection);
        end(process, signal);

        let process = launcher.start();
        let after = restored(&process);
        assert_eq!(text(&after, "restore_kind"), "snapshot", "after {signal}");
        for name in ["curr_items", "total_items", "evictions", "bytes", "cmd_set", "get_hits"] {
            assert_eq!(text(&after, name), text(&before, name), "{name} after {signal}");
        }
        let mut connection = process.connect();
        known::fill(&mut connection, 12_500..17_500, bytes);
        let evicted = stat(&stats(&mut connection), "evictions");
        assert!((500..5_000).contains(&evicted), "{evicted} evicted after {signal}");
        let used = known::read_all(&mut connection, 0..1_000, bytes);
        assert!(used.iter().all(Option::is_some), "what was used stays, after {signal}");
        let later = known::read_all(&mut connection, 1_000..12_500, bytes);
        let gone = later.iter().filter(|item| item.is_none()).count() as u64;
        assert_eq!(gone, evicted, "what was not used left, after {signal}");
    }
}

#[test]
fn sizes_are_counted_of_what_was_brought_back() {
    for signal in ["TERM", "KILL"] {
        let folder = folder();
        let launcher = launcher("-m 16 -o track_sizes", &folder.path().join("cache"));
        let process = launcher.start();
        let mut connection = process.connect();
        known::fill(&mut connection, 0..1_000, |number| 10 + number as usize);
        let before = stats_of(&mut connection, "stats sizes");
        assert!(before.len() > 20, "{before:?}");
        end(process, signal);

        let process = launcher.start();
        restored(&process);
        let mut connection = process.connect();
        assert_eq!(stats_of(&mut connection, "stats sizes"), before, "after {signal}");
        ask(&mut connection, "flush_all\r\n");
        assert_eq!(stats_of(&mut connection, "stats sizes"), [], "after {signal} and a flush");
    }
}

/// Reads an item as a client does; whether it is there.
fn ask_value(connection: &mut Connection, number: u32) -> bool {
    connection.send(format!("get {number}\r\n").as_bytes()).unwrap();
    let line = String::from_utf8(connection.receive_line().unwrap().unwrap()).unwrap();
    if line == "END" {
        return false;
    }
    let len = line.rsplit(' ').next().unwrap().parse().unwrap();
    connection.receive_block(len).unwrap();
    connection.receive_line().unwrap();
    true
}

#[test]
fn another_command_line_keeps_the_items() {
    for signal in ["TERM", "KILL"] {
        let folder = folder();
        let file = folder.path().join("cache");
        let numbers = 0..6_000;
        let process = launcher("-m 64 -t 1", &file).start();
        known::fill(&mut process.connect(), numbers.clone(), known::bytes);
        let all = known::read_all(&mut process.connect(), numbers.clone(), known::bytes);
        assert!(all.iter().all(Option::is_some));
        end(process, signal);
        let mut given: BTreeSet<u64> = all.iter().flatten().map(|item| item.cas).collect();
        assert_eq!(given.len(), all.len(), "no two items have the same cas");
        for line in [
            "-m 128 -t 1",
            "-m 128 -t 4",
            "-m 128 -t 4 --eviction arc",
            "-m 100 -t 4 --eviction lru",
            "-m 100 -t 3 -I 4m",
            "-m 1024 -t 2",
            "-m 64 -t 2 -I 512k",
            "-m 64 -t 1",
        ] {
            let process = launcher(line, &file).start();
            let now = known::read_all(&mut process.connect(), numbers.clone(), known::bytes);
            let differing = all.iter().zip(&now).filter(|(before, now)| before != now).count();
            assert_eq!(differing, 0, "{line} after {signal}");
            let stats = restored(&process);
            assert_eq!(stat(&stats, "curr_items"), u64::from(numbers.end), "{line}");
            let mut connection = process.connect();
            for number in 0..100 {
                let stored = ask(&mut connection, &format!("ms later-{number} 1 c\r\nx\r\n"));
                let cas: u64 = stored.strip_prefix("HD c").unwrap().parse().unwrap();
                assert!(given.insert(cas), "{line} after {signal}: {cas} is given once");
                assert_eq!(ask(&mut connection, &format!("md later-{number}\r\n")), "HD");
            }
            end(process, signal);
        }
    }
}

#[test]
fn less_memory_costs_what_the_policy_evicts_and_no_more() {
    for (signal, line) in [("TERM", "-m 16 -t 1"), ("TERM", "-m 16 -t 2"), ("KILL", "-m 16 -t 2")] {
        let folder = folder();
        let file = folder.path().join("cache");
        let numbers = 0..20_000;
        let process = launcher("-m 64 -t 2 --eviction lru", &file).start();
        known::fill(&mut process.connect(), numbers.clone(), known::bytes);
        let all = known::read_all(&mut process.connect(), numbers.clone(), known::bytes);
        end(process, signal);

        let process = launcher(&format!("{line} --eviction lru"), &file).start();
        let now = known::read_all(&mut process.connect(), numbers.clone(), known::bytes);
        let kept = all.iter().zip(&now).filter(|(before, now)| before == now).count();
        let gone = now.iter().filter(|item| item.is_none()).count();
        assert_eq!(kept + gone, all.len(), "{line} after {signal}: what is there is unchanged");
        let stats = restored(&process);
        assert_eq!(stat(&stats, "curr_items"), kept as u64, "{line} after {signal}");
        let (bytes, limit) = (stat(&stats, "bytes"), stat(&stats, "limit_maxbytes"));
        assert!(bytes > limit * 6 / 10, "{line} after {signal}: {bytes} of {limit} bytes in use");
        // What was used last is evicted last, whatever shards it comes from and goes to.
        let last = &now[now.len() - kept / 2..];
        let missing = last.iter().filter(|item| item.is_none()).count();
        assert!(missing * 20 < last.len(), "{line} after {signal}: {missing} of {}", last.len());
    }
}

#[test]
fn less_memory_for_the_same_shards_costs_what_was_used_least_recently() {
    for signal in ["TERM", "KILL"] {
        let folder = folder();
        let file = folder.path().join("cache");
        let (numbers, bytes) = (0..10_000, |_| 9_000);
        let process = launcher("-m 120 -t 1 --eviction lru", &file).start();
        known::fill(&mut process.connect(), numbers.clone(), bytes);
        end(process, signal);
        let process = launcher("-m 64 -t 1 --eviction lru", &file).start();
        let now = known::read_all(&mut process.connect(), numbers.clone(), bytes);
        let kind = restored(&process);
        assert_ne!(text(&kind, "restore_kind"), "converted");
        let kept = now.iter().flatten().count();
        assert!((4_000..7_000).contains(&kept), "{kept} are kept after {signal}");
        // Each shard is a part of the whole, so not to the item.
        let last = &now[now.len() - kept * 9 / 10..];
        assert!(last.iter().all(Option::is_some), "what was written last stays, after {signal}");
    }
}

#[test]
fn what_comes_due_while_the_server_is_down_is_gone() {
    for signal in ["TERM", "KILL"] {
        let folder = folder();
        let launcher = launcher("-m 64", &folder.path().join("cache"));
        let process = launcher.start();
        let mut connection = process.connect();
        assert_eq!(ask(&mut connection, "set stays 0 1000 1\r\na\r\n"), "STORED");
        assert_eq!(ask(&mut connection, "set expires 0 1 1\r\na\r\n"), "STORED");
        assert_eq!(ask(&mut connection, "set touched 0 0 1\r\na\r\n"), "STORED");
        assert_eq!(ask(&mut connection, "touch touched 1\r\n"), "TOUCHED");
        assert_eq!(ask(&mut connection, "set spared 0 1 1\r\na\r\n"), "STORED");
        assert_eq!(ask(&mut connection, "touch spared 0\r\n"), "TOUCHED");
        end(process, signal);
        wait::pass(Duration::from_millis(2_100));

        let process = launcher.start();
        let mut connection = process.connect();
        assert_eq!(ask(&mut connection, "mg expires\r\n"), "EN", "after {signal}");
        assert_eq!(ask(&mut connection, "mg touched\r\n"), "EN", "after {signal}");
        assert_eq!(ask(&mut connection, "mg stays\r\n"), "HD", "after {signal}");
        assert_eq!(ask(&mut connection, "mg spared\r\n"), "HD", "after {signal}");
        assert_eq!(ask(&mut connection, "flush_all 2\r\n"), "OK");
        assert_eq!(ask(&mut connection, "mg stays\r\n"), "HD", "the flush is not due");
        end(process, signal);
        wait::pass(Duration::from_millis(2_100));

        let process = launcher.start();
        let mut connection = process.connect();
        assert_eq!(ask(&mut connection, "mg stays\r\n"), "EN", "after {signal}");
        assert_eq!(ask(&mut connection, "mg spared\r\n"), "EN", "after {signal}");
        assert_eq!(ask(&mut connection, "set new 0 0 1\r\na\r\n"), "STORED");
        end(process, signal);
        let process = launcher.start();
        assert_eq!(ask(&mut process.connect(), "mg new\r\n"), "HD", "a flush happens once");
        drop(process);
    }
}

#[test]
fn a_flush_still_to_come_comes_after_a_restart() {
    // The same command line, and one by which the file is cut anew.
    let [same, other] = ["-m 64 -t 1", "-m 256 -t 4"];
    for (signal, later) in [("TERM", same), ("KILL", same), ("TERM", other), ("KILL", other)] {
        let folder = folder();
        let file = folder.path().join("cache");
        let process = launcher(same, &file).start();
        let mut connection = process.connect();
        assert_eq!(ask(&mut connection, "set k 0 0 1\r\na\r\n"), "STORED");
        assert_eq!(ask(&mut connection, "flush_all 4\r\n"), "OK");
        end(process, signal);
        let process = launcher(later, &file).start();
        let mut connection = process.connect();
        assert_eq!(ask(&mut connection, "mg k\r\n"), "HD", "{signal}, then {later}");
        wait::pass(Duration::from_millis(5_100));
        assert_eq!(ask(&mut connection, "mg k\r\n"), "EN", "{signal}, then {later}");
    }
}

#[test]
fn a_second_server_is_told_that_the_file_is_in_use() {
    let folder = folder();
    let file = folder.path().join("cache");
    let first = launcher("-m 64", &file).start();
    assert_eq!(ask(&mut first.connect(), "set k 0 0 1\r\na\r\n"), "STORED");
    for line in ["-m 64", "-m 128 -t 8", "-m 64 --require-warm"] {
        let (status, said) = launcher(line, &file).refused();
        assert!(!status.success(), "{line}");
        assert!(said.contains("in use by another process"), "{line}: {said}");
    }
    assert_eq!(ask(&mut first.connect(), "mg k v\r\n"), "VA 1");
}

#[test]
fn somebody_elses_file_is_refused_and_left_alone() {
    let folder = folder();
    let file = folder.path().join("notes.txt");
    for content in [b"My notes.\n".to_vec(), vec![0; 100_000], vec![b'x'; 5_000_000]] {
        fs::write(&file, &content).unwrap();
        let (status, said) = launcher("-m 64", &file).refused();
        assert!(!status.success());
        assert!(said.contains("notes.txt"), "{said}");
        assert!(fs::read(&file).unwrap() == content, "it is as it was");
    }
}

#[test]
fn require_warm_starts_only_when_something_comes_back() {
    let folder = folder();
    let file = folder.path().join("cache");
    let warm = launcher("-m 64 --require-warm", &file);
    let (status, said) = warm.refused();
    assert!(!status.success());
    assert!(said.contains("--require-warm") && said.contains("new_file"), "{said}");
    assert!(!file.exists(), "nothing is left behind");

    let process = launcher("-m 64", &file).start();
    restored(&process);
    process.kill();
    for signal in ["KILL", "TERM"] {
        end(warm.start(), signal);
    }
    // Both copies of the superblock.
    let mut content = fs::read(&file).unwrap();
    content[100] ^= 1;
    content[2048 + 100] ^= 1;
    fs::write(&file, &content).unwrap();
    let (status, said) = warm.refused();
    assert!(!status.success());
    assert!(said.contains("damaged_superblock"), "{said}");
    assert!(fs::read(&file).unwrap() == content, "it is as it was");
}

#[test]
fn a_file_of_another_format_is_set_aside() {
    let folder = folder();
    let file = folder.path().join("cache");
    let process = launcher("-m 64", &file).start();
    assert_eq!(ask(&mut process.connect(), "set k 0 0 1\r\na\r\n"), "STORED");
    process.stop("TERM");
    let mut content = fs::read(&file).unwrap();
    for copy in [0, 2048] {
        content[copy + 8..copy + 12].copy_from_slice(&999_u32.to_le_bytes());
        let crc = crc32c::crc32c(&content[copy..copy + 2044]);
        content[copy + 2044..copy + 2048].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(&file, &content).unwrap();

    let (status, said) = launcher("-m 64 --require-warm", &file).refused();
    assert!(!status.success());
    assert!(said.contains("other_format"), "{said}");

    let process = launcher("-m 64", &file).start();
    let stats = restored(&process);
    assert_eq!(text(&stats, "restore_kind"), "cold");
    assert_eq!(text(&stats, "restore_reason"), "other_format");
    assert_eq!(ask(&mut process.connect(), "mg k\r\n"), "EN");
    assert!(fs::read(folder.path().join("cache.refused")).unwrap() == content, "it is kept");
}

#[test]
fn damage_costs_what_it_hits_and_no_more() {
    let numbers = 0..10_000;
    let mut random = StdRng::seed_from_u64(seed());
    for signal in ["KILL", "TERM"] {
        for flips in [1_u64, 10, 100] {
            let folder = folder();
            let file = folder.path().join("cache");
            let launcher = launcher("-m 16 -t 2", &file);
            let process = launcher.start();
            known::fill(&mut process.connect(), numbers.clone(), known::bytes);
            let before = known::read_all(&mut process.connect(), numbers.clone(), known::bytes);
            end(process, signal);
            let damaged = File::options().read(true).write(true).open(&file).unwrap();
            let len = damaged.metadata().unwrap().len();
            for _ in 0..flips {
                let at = random.random_range(4096..len);
                let mut byte = [0];
                damaged.read_exact_at(&mut byte, at).unwrap();
                byte[0] ^= 1 << random.random_range(0..8);
                damaged.write_all_at(&byte, at).unwrap();
            }
            let process = launcher.start();
            let after = known::read_all(&mut process.connect(), numbers.clone(), known::bytes);
            let mut lost = 0;
            for (number, (before, after)) in before.iter().zip(&after).enumerate() {
                match (before, after) {
                    (before, after) if before == after => {}
                    (Some(_), None) => lost += 1,
                    other => {
                        panic!("{flips} flips, {signal}: item {number} was, and is: {other:?}")
                    }
                }
            }
            assert!(lost <= flips, "{flips} flips, {signal}: {lost} items lost");
            let kind = restored(&process);
            let kind = text(&kind, "restore_kind");
            assert!(signal == "TERM" || kind == "walk", "{kind}");
        }
    }
}

#[test]
fn a_cut_file_costs_what_was_cut_off() {
    let numbers = 0..10_000;
    let folder = folder();
    let file = folder.path().join("cache");
    let launcher = launcher("-m 16 -t 2", &file);
    let mut random = StdRng::seed_from_u64(seed());
    for signal in ["KILL", "TERM"] {
        let _ = fs::remove_file(&file);
        let process = launcher.start();
        known::fill(&mut process.connect(), numbers.clone(), known::bytes);
        let before = known::read_all(&mut process.connect(), numbers.clone(), known::bytes);
        end(process, signal);
        let snapshot = folder.path().join("cache.snapshot");
        let whole = (fs::read(&file).unwrap(), fs::read(&snapshot).ok());
        for _ in 0..4 {
            let len = random.random_range(0..whole.0.len());
            fs::write(&file, &whole.0[..len]).unwrap();
            if let Some(snapshot_bytes) = &whole.1 {
                fs::write(&snapshot, snapshot_bytes).unwrap();
            }
            let process = launcher.start();
            let after = known::read_all(&mut process.connect(), numbers.clone(), known::bytes);
            for (number, (before, after)) in before.iter().zip(&after).enumerate() {
                assert!(after.is_none() || before == after, "cut to {len}, item {number}");
            }
            // It goes on working.
            known::fill(&mut process.connect(), 0..100, known::bytes);
            let again = known::read_all(&mut process.connect(), 0..100, known::bytes);
            assert!(again.iter().all(Option::is_some), "cut to {len}");
        }
    }
}

/// Where the shards' sections of a snapshot end: behind them are counters, without which no shard walks.
fn shards_end(snapshot: &[u8]) -> usize {
    let number = |at: usize| u32::from_le_bytes(snapshot[at..at + 4].try_into().unwrap()) as usize;
    let shard_count = number(12);
    number(40 + 20 * shard_count)
}

#[test]
fn a_damaged_snapshot_costs_time_and_no_item() {
    let numbers = 0..5_000;
    let folder = folder();
    let file = folder.path().join("cache");
    let snapshot = folder.path().join("cache.snapshot");
    let launcher = launcher("-m 64 -t 2", &file);
    let process = launcher.start();
    known::fill(&mut process.connect(), numbers.clone(), known::bytes);
    let before = known::read_all(&mut process.connect(), numbers.clone(), known::bytes);
    process.stop("TERM");
    let mut random = StdRng::seed_from_u64(seed());
    for round in 0..6 {
        let mut bytes = fs::read(&snapshot).unwrap();
        let shards_end = shards_end(&bytes);
        match round {
            0 => bytes.truncate(random.random_range(0..shards_end)),
            1 => bytes.clear(),
            2 => bytes[8] ^= 2,
            _ => {
                let at = random.random_range(0..shards_end);
                bytes[at] ^= 1 << random.random_range(0..8);
            }
        }
        fs::write(&snapshot, &bytes).unwrap();
        let process = launcher.start();
        let after = known::read_all(&mut process.connect(), numbers.clone(), known::bytes);
        assert!(before == after, "round {round}");
        let stats = restored(&process);
        let kind = text(&stats, "restore_kind");
        assert!(["walk", "mixed"].contains(&kind), "round {round}: {kind}");
        process.stop("TERM");
    }
}

#[test]
fn a_full_disk_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path(), "16m") else { return };
    let file = folder.path().join("cache");
    let (status, said) = launcher("-m 64", &file).refused();
    assert!(!status.success());
    assert!(said.to_lowercase().contains("no space left"), "{said}");
    assert!(!file.exists(), "nothing is left behind");

    // What fits goes on, and outlives an attempt to make it larger.
    let process = launcher("-m 8 -t 1", &file).start();
    known::fill(&mut process.connect(), 0..2_000, known::bytes);
    let before = known::read_all(&mut process.connect(), 0..2_000, known::bytes);
    process.stop("TERM");
    let (status, said) = launcher("-m 64 -t 1", &file).refused();
    assert!(!status.success());
    assert!(said.to_lowercase().contains("no space left"), "{said}");
    let process = launcher("-m 8 -t 1", &file).start();
    let after = known::read_all(&mut process.connect(), 0..2_000, known::bytes);
    assert!(before == after, "what was there is there");
    drop(process);
    drop(disk);
}

/// A file system of so many bytes, for as long as this lives.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// `None`, with a word on it, where a test may not mount.
    #[expect(clippy::print_stderr, reason = "a test that does nothing says so")]
    fn mount(path: &'a Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path);
        let output = mount.output();
        if output.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self(path));
        }
        eprintln!("skipped: a small disk cannot be mounted here: {output:?}");
        None
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // A mount that stays behind is the machine's to tell.
        drop(Command::new("umount").arg("--lazy").arg(self.0).status());
    }
}

#[test]
fn a_file_cut_under_a_running_server_does_not_end_it() {
    let numbers = 0..10_000;
    let folder = folder();
    let file = folder.path().join("cache");
    let launcher = launcher("-m 32 -t 2", &file);
    let mut process = launcher.start();
    known::fill(&mut process.connect(), numbers.clone(), known::bytes);
    let before = known::read_all(&mut process.connect(), numbers.clone(), known::bytes);
    let len = fs::metadata(&file).unwrap().len();
    File::options().write(true).open(&file).unwrap().set_len(len / 3).unwrap();
    let mut connection = process.connect();
    let mut found = 0;
    for number in numbers {
        // A connection that met the hole may be closed; the next one is served.
        let read =
            catch_unwind(AssertUnwindSafe(|| known::read(&mut connection, number, known::bytes)));
        let Ok(item) = read else {
            connection = process.connect();
            continue;
        };
        let index = usize::try_from(number).unwrap();
        assert!(item.is_none() || item == before[index], "item {number}");
        found += usize::from(item.is_some());
    }
    assert_eq!(process.ended(), None, "it lives: {}", process.said());
    // It goes on, with items or without, once it has noticed. Each of its threads closes the first
    // connection that asks it something afterwards.
    let mut once_noticed = |ask: &dyn Fn(&mut Connection)| {
        let asked = wait::until(Duration::from_secs(10), || {
            catch_unwind(AssertUnwindSafe(|| ask(&mut process.connect()))).ok()
        });
        assert!(asked.is_some(), "it serves after a while: {}", process.said());
    };
    once_noticed(&|connection| assert_eq!(stat(&stats(connection), "memory_file_failed"), 1));
    once_noticed(&|connection| known::fill(connection, 0..100, known::bytes));
    once_noticed(&|connection| {
        let again = known::read_all(connection, 0..100, known::bytes);
        assert!(again.iter().all(Option::is_some), "{found} were found after the cut");
    });
    // What is acknowledged from now on is not undone by the file.
    once_noticed(&|connection| {
        for number in 0..100 {
            let answer = ask(connection, &format!("md {number} q\r\nmn\r\n"));
            assert_eq!(answer, "MN", "nothing else is said of what is or was there");
        }
    });
    process.kill();
    let process = launcher.start();
    let after = known::read_all(&mut process.connect(), 0..100, known::bytes);
    assert!(after.iter().all(Option::is_none), "what was deleted stays deleted");
}

#[test]
fn a_limit_of_file_size_is_told_at_the_start() {
    let folder = folder();
    let file = folder.path().join("cache");
    // In blocks of 512 bytes: 4 MiB.
    let line = r#"ulimit -f 8192 && exec "$0" -u root -l 127.0.0.1 -p -1 -m 64 -e "$1""#;
    let mut limited = Command::new("sh");
    limited.args(["-c", line]).arg(Program::Server.path()).arg(&file);
    let output = limited.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some_and(|code| code != 0), "{:?}: {said}", output.status);
    assert!(said.contains("File too large"), "{said}");
    assert!(!file.exists(), "nothing is left behind");
}

#[test]
fn a_start_that_fails_leaves_the_snapshot_to_the_next() {
    let folder = folder();
    let file = folder.path().join("cache");
    let launcher_of = |line: &str| launcher(line, &file);
    let process = launcher_of("-m 64").start();
    known::fill(&mut process.connect(), 0..1000, known::bytes);
    process.stop("TERM");
    let (status, said) = launcher_of("-m 64 -l 192.0.2.1").refused();
    assert!(!status.success(), "no machine has an address of the documentation's: {said}");
    let process = launcher_of("-m 64").start();
    assert_eq!(text(&restored(&process), "restore_kind"), "snapshot");
    let items = known::read_all(&mut process.connect(), 0..1000, known::bytes);
    assert!(items.iter().all(Option::is_some));
}

#[test]
fn memory_that_grew_in_64_steps_is_made_anew_when_it_is_to_grow_again() {
    let folder = folder();
    let file = folder.path().join("cache");
    let process = launcher("-m 128 -t 1", &file).start();
    known::fill(&mut process.connect(), 0..1000, known::bytes);
    let mut connection = process.connect();
    let steps = (129..250).take_while(|mebibytes| {
        ask(&mut connection, &format!("cache_memlimit {mebibytes}\r\n")) == "OK"
    });
    assert_eq!(steps.count(), 63, "and then it says that it cannot");
    process.stop("TERM");
    // Shards and segments are as large as before.
    let process = launcher("-m 200 -t 1", &file).start();
    assert_eq!(text(&restored(&process), "restore_kind"), "converted");
    let items = known::read_all(&mut process.connect(), 0..1000, known::bytes);
    assert!(items.iter().all(Option::is_some));
}

#[test]
fn a_backup_never_takes_the_place_of_the_memory_file() {
    let folder = folder();
    let file = folder.path().join("cache");
    let line = format!("-m 64 --backup-interval 1 --backup-file {}", file.display());
    let process = launcher(&line, &file).start();
    let failed = wait::until(Duration::from_secs(20), || {
        let stats = stats(&mut process.connect());
        (text(&stats, "backup_last_result") == "failed").then_some(())
    });
    assert!(failed.is_some(), "it is told");
    known::fill(&mut process.connect(), 0..100, known::bytes);
    process.kill();
    let process = launcher("-m 64", &file).start();
    let items = known::read_all(&mut process.connect(), 0..100, known::bytes);
    assert!(items.iter().all(Option::is_some));
}
