//! What one server gives out, another one takes: backups, whole and damaged, under load and by the
//! program.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cache_ctl::backup_file::BackupReader;
use cache_ctl::restore::Plan;
use indicatif::ProgressBar;
use protocol::backup::Restored;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use tests::connection::Connection;
use tests::program::Program;
use tests::server::Server;
use tests::wait;

const PATIENCE: Duration = Duration::from_secs(10);

/// All that a client can know of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    value: Vec<u8>,
    client_flags: u32,
    cas: u64,
    expires_unix_ms: Option<u64>,
    stale: bool,
}

type Items = BTreeMap<Vec<u8>, Item>;

fn ctl(server: &Server) -> cache_ctl::connection::Connection {
    let address = server.address().to_string();
    cache_ctl::connection::Connection::open(&address, PATIENCE).unwrap()
}

fn backup_of(server: &Server, prefix: &str) -> Vec<u8> {
    let bar = ProgressBar::hidden();
    cache_ctl::backup::back_up(&mut ctl(server), prefix.as_bytes(), Vec::new(), &bar).unwrap().0
}

fn restore(server: &Server, backup: &[u8], keep_newer: bool) -> anyhow::Result<Restored> {
    let plan = Plan { prefix: Vec::new(), keep_newer };
    cache_ctl::restore::restore(&mut ctl(server), backup, &plan, &ProgressBar::hidden())
}

/// The items of a backup; the later of two copies counts.
fn items_of(backup: &[u8]) -> Items {
    let mut reader = BackupReader::open(backup).unwrap();
    let mut items = Items::new();
    while let Some(block) = reader.next_block().unwrap() {
        for item in block {
            let seen = Item {
                value: item.value.to_vec(),
                client_flags: item.head.client_flags,
                cas: item.head.cas,
                expires_unix_ms: item.head.deadline_unix_ms,
                stale: item.head.stale,
            };
            items.insert(item.head.key.as_bytes().to_vec(), seen);
        }
    }
    items
}

fn line(client: &mut Connection) -> String {
    String::from_utf8(client.receive_line().unwrap().expect("an answer")).unwrap()
}

fn ask(server: &Server, request: &str) -> String {
    let mut client = Connection::open(server.address()).unwrap();
    client.send(format!("{request}\r\n").as_bytes()).unwrap();
    line(&mut client)
}

fn set(server: &Server, key: &str, value: &str) {
    assert_eq!(ask(server, &format!("set {key} 0 0 {}\r\n{value}", value.len())), "STORED");
}

fn value_of(server: &Server, key: &str) -> Option<String> {
    let mut client = Connection::open(server.address()).unwrap();
    client.send(format!("get {key}\r\n").as_bytes()).unwrap();
    let answer = line(&mut client);
    (answer != "END").then(|| line(&mut client))
}

fn statistic(server: &Server, name: &str) -> Option<String> {
    let mut client = Connection::open(server.address()).unwrap();
    client.send(b"stats backup\r\n").unwrap();
    loop {
        let line = line(&mut client);
        if line == "END" {
            return None;
        }
        let mut words = line.split(' ').skip(1);
        if words.next() == Some(name) {
            return words.next().map(str::to_owned);
        }
    }
}

/// A key as a meta command has it: in base64 where the number says so.
fn meta_key(n: u32) -> (String, &'static str) {
    if n.is_multiple_of(7) {
        let mut written = Vec::new();
        let binary = [b"\x00 \r\n\xff".as_slice(), &n.to_le_bytes()].concat();
        protocol::meta::base64::encode(&binary, &mut written);
        (String::from_utf8(written).unwrap(), " b")
    } else {
        (format!("key:{n}"), "")
    }
}

/// Sets items of every kind: values from nothing to a mebibyte, any bytes, flags, expiries, a cas of
/// the client's, stale ones, binary keys.
fn fill(server: &Server, numbers: Range<u32>, rng: &mut StdRng) {
    let mut client = Connection::open(server.address()).unwrap();
    for from in numbers.clone().step_by(100) {
        let (mut requests, mut answers) = (Vec::new(), 0);
        for n in from..(from + 100).min(numbers.end) {
            let value_bytes = match n % 1000 {
                0 => rng.random_range(0..1_000_000),
                1..20 => rng.random_range(0..20_000),
                20 => 0,
                _ => rng.random_range(0..300),
            };
            let mut value = vec![0; value_bytes];
            rng.fill_bytes(&mut value);
            let (key, base64) = meta_key(n);
            let mut line = format!("ms {key} {value_bytes}{base64} F{}", n % 5 * 1000);
            if n.is_multiple_of(3) {
                line += &format!(" T{}", rng.random_range(1_000..1_000_000));
            }
            if n.is_multiple_of(11) {
                line += &format!(" E{}", rng.random_range(1..u64::from(u32::MAX)));
            }
            requests.extend_from_slice(line.as_bytes());
            requests.extend_from_slice(b"\r\n");
            requests.extend_from_slice(&value);
            requests.extend_from_slice(b"\r\n");
            answers += 1;
            if n.is_multiple_of(13) {
                requests.extend_from_slice(format!("md {key}{base64} I\r\n").as_bytes());
                answers += 1;
            }
        }
        client.send(&requests).unwrap();
        for _ in 0..answers {
            assert_eq!(line(&mut client), "HD");
        }
    }
}

/// What a client sees of every item, asked for by meta commands: nothing of it is a backup's code.
fn seen(server: &Server, items: u32) -> Vec<(String, Vec<u8>)> {
    let mut client = Connection::open(server.address()).unwrap();
    let mut seen = Vec::new();
    for from in (0..items).step_by(100) {
        let numbers = from..(from + 100).min(items);
        let mut requests = String::new();
        for n in numbers.clone() {
            let (key, base64) = meta_key(n);
            requests += &format!("mg {key}{base64} v f c t\r\n");
        }
        client.send(requests.as_bytes()).unwrap();
        for n in numbers {
            let head = line(&mut client);
            let words: Vec<&str> = head.split(' ').collect();
            assert_eq!(words[0], "VA", "item {n}: {head}");
            seen.push((head.clone(), client.receive_block(words[1].parse().unwrap()).unwrap()));
        }
    }
    seen
}

/// The head of an answer without the seconds that are left, and these.
fn without_ttl(head: &str) -> (String, i64) {
    let (ttl, rest): (Vec<&str>, Vec<&str>) =
        head.split(' ').partition(|word| word.starts_with('t'));
    (rest.join(" "), ttl[0][1..].parse().unwrap())
}

#[test]
fn a_restored_copy_is_equal_item_by_item() {
    const ITEMS: u32 = 100_000;
    let from = Server::start_here(&["-m", "512", "-t", "2"]);
    let to = Server::start_here(&["-m", "400", "-t", "4", "--eviction", "lru"]);
    fill(&from, 0..ITEMS, &mut StdRng::seed_from_u64(5));
    let backup = backup_of(&from, "");
    let restored = restore(&to, &backup, false).unwrap();
    assert_eq!(restored, Restored { stored: u64::from(ITEMS), ..Restored::default() });
    assert_eq!(items_of(&backup), items_of(&backup_of(&to, "")));
    for (n, (before, after)) in seen(&from, ITEMS).iter().zip(seen(&to, ITEMS)).enumerate() {
        let ((head, ttl), (head_after, ttl_after)) =
            (without_ttl(&before.0), without_ttl(&after.0));
        assert_eq!(head, head_after, "item {n}");
        assert!((ttl - ttl_after).abs() <= 60, "item {n}: {ttl} and then {ttl_after}");
        assert!((ttl == -1) == (ttl_after == -1), "item {n}: {ttl} and then {ttl_after}");
        assert!(before.1 == after.1, "the value of item {n}");
    }
}

#[test]
fn a_prefix_picks_what_is_backed_up_and_what_is_restored() {
    let from = Server::start_here(&[]);
    for n in 0..1000 {
        set(&from, &format!("user:{n}"), "u");
        set(&from, &format!("page:{n}"), "p");
    }
    let (all, users) = (backup_of(&from, ""), backup_of(&from, "user:"));
    assert_eq!(items_of(&all).len(), 2000);
    assert_eq!(items_of(&users).len(), 1000);
    assert!(items_of(&users).keys().all(|key| key.starts_with(b"user:")));
    let to = Server::start_here(&[]);
    let plan = Plan { prefix: b"page:".to_vec(), keep_newer: false };
    let bar = ProgressBar::hidden();
    let restored = cache_ctl::restore::restore(&mut ctl(&to), &all[..], &plan, &bar).unwrap();
    assert_eq!(restored.stored, 1000);
    assert_eq!((value_of(&to, "user:1"), value_of(&to, "page:1")), (None, Some("p".into())));
}

#[test]
fn what_was_written_since_stays_where_that_is_asked_for() {
    let server = Server::start_here(&[]);
    for key in ["written", "deleted", "touched", "untouched"] {
        set(&server, key, "then");
    }
    let backup = backup_of(&server, "");
    set(&server, "written", "since");
    assert_eq!(ask(&server, "delete deleted"), "DELETED");
    assert_eq!(ask(&server, "touch touched 1000"), "TOUCHED");
    let restored = restore(&server, &backup, true).unwrap();
    assert_eq!((restored.stored, restored.kept), (1, 3));
    assert_eq!(value_of(&server, "written").as_deref(), Some("since"));
    assert_eq!(value_of(&server, "deleted").as_deref(), Some("then"));
    assert!(ask(&server, "mg touched t") != "HD t-1", "the touch is newer than the backup");
    assert_eq!(restore(&server, &backup, false).unwrap().stored, 4);
    assert_eq!(value_of(&server, "written").as_deref(), Some("then"));
}

#[test]
fn a_backup_of_another_cache_is_never_newer() {
    let (from, to) = (Server::start_here(&[]), Server::start_here(&[]));
    set(&to, "both", "to");
    for key in ["a", "b", "both"] {
        set(&from, key, "from");
    }
    let restored = restore(&to, &backup_of(&from, ""), true).unwrap();
    assert_eq!((restored.stored, restored.kept), (2, 1));
    assert_eq!(value_of(&to, "both").as_deref(), Some("to"));
}

/// A folder that the server may write to, who runs as another user where the test is root's.
fn folder_for_everyone() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), everyone).unwrap();
    folder
}

#[test]
fn a_cache_that_was_restarted_is_the_same_and_knows_what_is_newer() {
    let folder = folder_for_everyone();
    let file = folder.path().join("cache.memory");
    let start = || Server::start_process(&["-e", file.to_str().unwrap()]);
    for signal in ["TERM", "KILL"] {
        let server = start();
        for key in ["written", "deleted", "untouched"] {
            set(&server, key, "then");
        }
        let backup = backup_of(&server, "");
        set(&server, "written", "before the restart");
        assert_eq!(ask(&server, "delete deleted"), "DELETED");
        server.stop_with(signal);
        let server = start();
        let restored = restore(&server, &backup, true).unwrap();
        assert_eq!((restored.stored, restored.kept), (1, 2), "after {signal}");
        assert_eq!(value_of(&server, "written").as_deref(), Some("before the restart"));
        // What was restored outlives a restart as what was written does.
        let before = items_of(&backup_of(&server, ""));
        server.stop_with(signal);
        assert_eq!(items_of(&backup_of(&start(), "")), before, "after {signal}");
    }
}

#[test]
fn a_restored_copy_outlives_the_server() {
    let folder = folder_for_everyone();
    let file = folder.path().join("cache.memory");
    let start = || Server::start_process(&["-m", "128", "-e", file.to_str().unwrap()]);
    let from = Server::start_here(&["-m", "128"]);
    fill(&from, 0..5000, &mut StdRng::seed_from_u64(11));
    let backup = backup_of(&from, "");
    let mut to = start();
    assert_eq!(restore(&to, &backup, false).unwrap().stored, 5000);
    for signal in ["KILL", "TERM"] {
        to.stop_with(signal);
        to = start();
        let (before, after) = (items_of(&backup), items_of(&backup_of(&to, "")));
        assert_eq!(before.len(), after.len(), "after {signal}");
        for (key, item) in before {
            assert_eq!(after.get(&key), Some(&item), "after {signal}: {}", key.escape_ascii());
        }
    }
}

#[test]
fn what_expired_in_between_stays_away() {
    let (from, to) = (Server::start_here(&[]), Server::start_here(&[]));
    assert_eq!(ask(&from, "set short 0 10 1\r\na"), "STORED");
    set(&from, "long", "b");
    let backup = backup_of(&from, "");
    to.advance(Duration::from_secs(11));
    let restored = restore(&to, &backup, false).unwrap();
    assert_eq!((restored.stored, restored.expired), (1, 1));
    assert_eq!(value_of(&to, "short"), None);
}

#[test]
fn items_larger_than_a_server_takes_are_refused_one_by_one() {
    let (from, to) = (Server::start_here(&[]), Server::start_here(&["-I", "100k"]));
    for n in 0..10 {
        set(&from, &format!("large-{n}"), &"x".repeat(if n % 2 == 0 { 300_000 } else { 99_950 }));
        set(&from, &format!("small-{n}"), "x");
    }
    let restored = restore(&to, &backup_of(&from, ""), false).unwrap();
    assert_eq!((restored.stored, restored.refused), (15, 5));
    assert!(value_of(&to, "large-1").is_some() && value_of(&to, "large-2").is_none());
}

/// Restores a damaged backup into an empty server: nothing in it may differ from what was backed up,
/// and unless the damage changed nothing, it is told, with the number of items that were restored.
fn check_damaged(server: &Server, damaged: &[u8], whole: &Items, what: &str) -> bool {
    assert_eq!(ask(server, "flush_all"), "OK");
    let outcome = restore(server, damaged, false);
    let there = items_of(&backup_of(server, ""));
    for (key, item) in &there {
        assert_eq!(Some(item), whole.get(key), "{what}: {}", key.escape_ascii());
    }
    match outcome {
        Ok(_) => {
            assert_eq!(&there, whole, "{what}: nothing is missing when nothing is told");
            false
        }
        Err(error) => {
            let told = format!("{error:#}");
            let count = told.split_once("stopped after ").map_or("0", |(_, rest)| rest);
            let count = count.split(' ').next().unwrap().parse::<usize>().unwrap();
            assert_eq!(count, there.len(), "{what}: {told}");
            true
        }
    }
}

#[test]
fn damage_is_told_and_never_restores_a_wrong_value() {
    let seed = std::env::var("CACHE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let mut rng = StdRng::seed_from_u64(seed);
    let from = Server::start_here(&[]);
    // Without the largest values: a small file is read often.
    fill(&from, 1..1000, &mut rng);
    let backup = backup_of(&from, "");
    let whole = items_of(&backup);
    assert_eq!(whole.len(), 999);
    let server = Server::start_here(&[]);
    let regions = 200;
    let mut told = 0;
    for region in 0..regions {
        let (from, to) = (backup.len() * region / regions, backup.len() * (region + 1) / regions);
        let (byte, bit) = (rng.random_range(from..to), rng.random_range(0..8));
        let mut damaged = backup.clone();
        damaged[byte] ^= 1 << bit;
        let what = format!("seed {seed}, bit {bit} of byte {byte} of {}", backup.len());
        told += u32::from(check_damaged(&server, &damaged, &whole, &what));
    }
    assert!(told >= 190, "{told} of {regions} flipped bits are told");
    for _ in 0..50 {
        let len = rng.random_range(0..backup.len());
        let what = format!("seed {seed}, cut to {len} of {} bytes", backup.len());
        assert!(check_damaged(&server, &backup[..len], &whole, &what), "{what}: is told");
    }
    for bit in 0..8 * 32 {
        // The head of the frame, and the header of the backup.
        let mut damaged = backup.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        check_damaged(&server, &damaged, &whole, &format!("seed {seed}, bit {bit}"));
    }
}

#[test]
fn a_backup_under_load_holds_what_stays_and_fails_no_request() {
    const STAY: u32 = 20_000;
    let server = Server::start_here(&["-m", "128", "-t", "2"]);
    fill(&server, 0..STAY, &mut StdRng::seed_from_u64(9));
    let over = AtomicBool::new(false);
    let backups: Vec<Items> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (server, over) = (&server, &over);
                scope.spawn(move || load(server, client, over))
            })
            .collect::<Vec<_>>();
        let backups = (0..5).map(|_| items_of(&backup_of(&server, ""))).collect();
        over.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.join().unwrap() > 100, "there was a load");
        }
        backups
    });
    let stays = items_of(&backup_of(&server, ""));
    for backup in backups {
        let mut found = 0;
        for (key, item) in &backup {
            if key.starts_with(b"key:") || key.starts_with(b"\x00 ") {
                assert_eq!(stays.get(key), Some(item));
                found += 1;
            }
        }
        assert_eq!(found, STAY);
    }
}

/// Sets, reads and deletes keys of its own until it is over; every answer is checked.
fn load(server: &Server, client: u32, over: &AtomicBool) -> u32 {
    let mut connection = Connection::open(server.address()).unwrap();
    let mut rounds = 0;
    while !over.load(Ordering::Relaxed) {
        let key = format!("load:{client}:{}", rounds % 500);
        let value = format!("{rounds}").repeat(rounds as usize % 50);
        let len = value.len();
        let request = format!("set {key} 0 0 {len}\r\n{value}\r\nget {key}\r\n");
        connection.send(request.as_bytes()).unwrap();
        assert_eq!(line(&mut connection), "STORED");
        assert_eq!(line(&mut connection), format!("VALUE {key} 0 {len}"));
        assert_eq!(connection.receive_block(len).unwrap(), value.as_bytes());
        assert_eq!(line(&mut connection), "END");
        if rounds % 5 == 0 {
            connection.send(format!("delete {key}\r\n").as_bytes()).unwrap();
            assert_eq!(line(&mut connection), "DELETED");
        }
        rounds += 1;
    }
    rounds
}

/// Runs the program.
fn run(server: &Server, arguments: &[&str]) -> Output {
    let mut ctl = Command::new(Program::Ctl.path());
    ctl.args(arguments).args(["--server", &server.address().to_string()]);
    ctl.stdin(Stdio::null()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_program_backs_up_restores_and_dumps() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache.backup");
    let file = file.to_str().unwrap();
    let (from, to) = (Server::start_here(&[]), Server::start_here(&[]));
    set(&from, "user:1", "one");
    set(&from, "page:1", "two");
    let backup = run(&from, &["backup", file, "--prefix", "user:"]);
    assert_eq!(backup.status.code(), Some(0), "{}", stderr(&backup));
    assert!(stderr(&backup).starts_with("1 items, "), "{}", stderr(&backup));
    let restore = run(&to, &["restore", file]);
    assert_eq!(restore.status.code(), Some(0), "{}", stderr(&restore));
    assert_eq!(value_of(&to, "user:1").as_deref(), Some("one"));
    let dumps = [run(&from, &["dump", "--format", "jsonl", "--prefix", "user:"]), {
        run(&from, &["dump", "--format", "jsonl", file])
    }];
    for dump in &dumps {
        let item: serde_json::Value = serde_json::from_slice(&dump.stdout).unwrap();
        assert_eq!((&item["key"], &item["value"]), (&"user:1".into(), &"one".into()));
    }
    let dump = run(&from, &["dump", "--format", "csv"]);
    assert_eq!(String::from_utf8(dump.stdout).unwrap().lines().count(), 3);
    let address = from.address().to_string();
    let read_by_nobody = |arguments: &[&str]| {
        let mut ctl = Command::new(Program::Ctl.path());
        ctl.args(arguments).args(["--server", &address]).stdout(Stdio::piped());
        let mut child = ctl.stderr(Stdio::null()).spawn().unwrap();
        drop(child.stdout.take());
        child.wait().unwrap().code()
    };
    assert_eq!(read_by_nobody(&["dump", "--format", "csv"]), Some(0), "enough was seen");
    assert_eq!(read_by_nobody(&["backup", "-"]), Some(1), "half a backup is none");
    let piped = run(&from, &["backup", "-"]);
    assert_eq!(items_of(&piped.stdout).len(), 2);
}

#[test]
fn the_program_says_in_one_line_why_it_failed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let server = Server::start_here(&["-I", "1k"]);
    set(&server, "k", "v");
    let large = Server::start_here(&[]);
    set(&large, "k", &"v".repeat(2000));
    assert_eq!(run(&large, &["backup", &path("large")]).status.code(), Some(0));
    std::fs::write(path("text"), "no backup").unwrap();
    let mut cut = std::fs::read(path("large")).unwrap();
    cut.truncate(cut.len() - 3);
    std::fs::write(path("cut"), cut).unwrap();
    for (arguments, reason) in [
        (["restore", &path("none")], "No such file"),
        (["restore", &path("text")], "it cannot be unpacked"),
        (["restore", &path("cut")], "the backup is cut short"),
        (["restore", &path("large")], "1 items were refused"),
        (["backup", &path("no/such/folder")], "cannot write"),
    ] {
        let output = run(&server, &arguments);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        let error = told.lines().last().unwrap();
        assert!(error.starts_with("cache-ctl: ") && error.contains(reason), "{told}");
    }
    assert_eq!(run(&server, &["restore"]).status.code(), Some(64));
    let address = server.address();
    drop(server);
    let mut gone = Command::new(Program::Ctl.path());
    let gone = gone.args(["backup", &path("gone"), "--server", &address.to_string()]);
    let output = gone.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot connect to"), "{}", stderr(&output));
    assert!(!Path::new(&path("gone")).exists() && !Path::new(&path("gone.tmp")).exists());
}

#[test]
fn a_server_told_to_writes_a_backup_by_itself_and_leaves_at_once_when_told() {
    let folder = folder_for_everyone();
    let file = folder.path().join("cache.backup");
    let arguments = ["--backup-file", file.to_str().unwrap(), "--backup-interval", "1"];
    let server = Server::start_process(&arguments);
    assert_eq!(statistic(&server, "backup_last_result").as_deref(), Some("none"));
    for n in 0..1000 {
        set(&server, &format!("k{n}"), "v");
    }
    let written = wait::until(PATIENCE, || {
        let items = statistic(&server, "backup_last_items")?;
        (items == "1000").then_some(())
    });
    assert!(written.is_some(), "a backup is written within {PATIENCE:?}");
    assert_eq!(statistic(&server, "backup_failed").as_deref(), Some("0"));
    let items = items_of(&std::fs::read(&file).unwrap());
    assert_eq!(items.len(), 1000);
    let stopping = wait::Stopwatch::start();
    assert_eq!(server.stop_with("TERM").code(), Some(0));
    assert!(stopping.elapsed() < Duration::from_secs(5), "{:?}", stopping.elapsed());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
}
