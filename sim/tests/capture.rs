//! `cache-sim capture` beside servers that are slow, gone, unwilling or real.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;

/// A server that hears a request, says `answer` to it in pieces of so many bytes, and closes; once for each.
fn server(answers: Vec<(&'static str, Vec<u8>, usize)>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let script = move || {
        let (client, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(client.try_clone().unwrap());
        let mut client = client;
        for (want, answer, piece) in answers {
            let mut heard = String::new();
            lines.read_line(&mut heard).unwrap();
            assert_eq!(heard.trim_end(), want);
            for bytes in answer.chunks(piece) {
                client.write_all(bytes).unwrap();
                client.flush().unwrap();
            }
        }
    };
    (address, thread::spawn(script))
}

const WATCH: &str = "watch fetchers mutations deletions evictions";
const OLDER_WATCH: &str = "watch fetchers mutations evictions";

fn get(number: u32) -> String {
    format!(
        "ts=1.{number} gid={number} type=item_get key=k{number} status=found clsid=1 cfd=1 size=9\n"
    )
}

fn log_of(numbers: std::ops::Range<u32>) -> String {
    numbers.map(get).collect()
}

fn cache_sim() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cache-sim"));
    command.stdin(Stdio::null());
    command
}

struct Recording {
    folder: TempDir,
}

impl Recording {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("log.zst")
    }

    fn command(&self, server: &str, flags: &[&str]) -> Command {
        let mut command = cache_sim();
        command.args(["capture", server, "--output"]).arg(self.file()).args(flags);
        command
    }

    fn run(&self, server: &str, flags: &[&str]) -> (bool, String) {
        said(&self.command(server, flags).output().unwrap())
    }

    fn text(&self) -> String {
        let packed = std::fs::read(self.file()).unwrap();
        String::from_utf8(zstd::decode_all(&packed[..]).unwrap()).unwrap()
    }
}

/// Whether it went well, and what was said on standard error.
fn said(output: &Output) -> (bool, String) {
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What `describe` counts in a log.
fn described(file: &Path) -> (bool, String) {
    let output =
        cache_sim().args(["describe", "--output", "csv", "--trace"]).arg(file).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn lines_that_come_in_pieces_are_recorded_whole_and_a_gone_server_costs_the_last() {
    let recording = Recording::new();
    let text = log_of(0..200) + "skipped=50\n" + "ts=1.5 gid=9 type=item_g";
    let (address, script) = server(vec![(WATCH, ["OK\r\n", &text].concat().into(), 7)]);
    let (is_well, said) = recording.run(&address, &[]);
    script.join().unwrap();
    assert!(!is_well && said.contains("the server closed the connection"), "{said}");
    assert!(said.contains("200 requests"), "{said}");
    assert!(said.contains("left out 50 more lines (19.92% of all)"), "{said}");
    assert_eq!(recording.text(), log_of(0..200) + "skipped=50\n");
    let (is_well, told) = described(&recording.file());
    assert!(is_well && told.contains("200"), "{told}");
}

#[test]
fn a_server_without_deletions_is_watched_without() {
    let recording = Recording::new();
    let (address, script) = server(vec![
        (WATCH, b"ERROR\r\n".to_vec(), 100),
        (OLDER_WATCH, ["OK\r\n", &log_of(0..9)].concat().into(), 1000),
    ]);
    let (is_well, said) = recording.run(&address, &["--requests", "5"]);
    script.join().unwrap();
    assert!(is_well, "{said}");
    assert_eq!(recording.text(), log_of(0..5));
}

#[test]
fn a_server_that_cannot_be_watched_leaves_no_file() {
    let error = || b"ERROR\r\n".to_vec();
    let busy = b"ERROR Too many open connections\r\n".to_vec();
    let limit = b"WATCHER_TOO_MANY log watcher limit reached\r\n".to_vec();
    for (answers, why) in [
        (vec![(WATCH, error(), 99), (OLDER_WATCH, error(), 99)], "has no `watch`"),
        (vec![(WATCH, busy, 99)], "refuses to be watched: ERROR Too many open connections"),
        (vec![(WATCH, limit, 3)], "refuses to be watched: WATCHER_TOO_MANY"),
        (vec![(WATCH, Vec::new(), 1)], "does not say whether it may be watched"),
    ] {
        let recording = Recording::new();
        let (address, script) = server(answers);
        let (is_well, said) = recording.run(&address, &["--for", "30s"]);
        script.join().unwrap();
        assert!(!is_well && said.contains(why), "{said}");
        assert!(!recording.file().exists());
    }
    let recording = Recording::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (is_well, said) = recording.run(&nobody, &[]);
    assert!(!is_well && said.contains("cannot connect to 127.0.0.1"), "{said}");
    assert!(!recording.file().exists());
}

#[test]
fn a_file_that_is_there_is_left_as_it_is() {
    let recording = Recording::new();
    std::fs::write(recording.file(), "precious").unwrap();
    let (is_well, said) = recording.run("127.0.0.1:1", &[]);
    assert!(!is_well && said.contains("is there already"), "{said}");
    assert_eq!(std::fs::read(recording.file()).unwrap(), b"precious");
    let folder = recording.folder.path().join("none/log.zst");
    let mut command = cache_sim();
    let (is_well, said) = said_of(command.args(["capture", "127.0.0.1:1", "--output"]).arg(folder));
    assert!(!is_well && said.contains("cannot write"), "{said}");
}

fn said_of(command: &mut Command) -> (bool, String) {
    said(&command.output().unwrap())
}

/// A child that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that lets itself be watched, and the recorder that watches it.
fn watched(recording: &Recording, mut command: Command) -> (TcpStream, Ended) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    command.args(["capture", &address, "--output"]).arg(recording.file());
    let child = Ended(command.stderr(Stdio::piped()).spawn().unwrap());
    let (mut client, _) = listener.accept().unwrap();
    let mut heard = [0; 100];
    assert!(client.read(&mut heard).unwrap() > 0);
    client.write_all(b"OK\r\n").unwrap();
    (client, child)
}

/// Waits until a block was written, as one is every second.
fn wait_for_a_block(recording: &Recording) {
    for _ in 0..600 {
        if std::fs::metadata(recording.file()).is_ok_and(|file| file.len() > 0) {
            return;
        }
        thread::park_timeout(Duration::from_millis(100));
    }
    panic!("no block was written");
}

/// Whether a recorder ended well, and what it said.
fn ended(mut child: Ended) -> (bool, String) {
    let mut said = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.0.wait().unwrap().success(), said)
}

#[test]
fn a_full_disk_is_told_and_what_was_written_before_can_be_read() {
    let recording = Recording::new();
    // A file of at most 1 KiB stands for a disk that is full, and an error for the signal it comes with.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 2; exec \"$0\" \"$@\""]);
    limited.arg(env!("CARGO_BIN_EXE_cache-sim")).stdin(Stdio::null());
    let (mut client, child) = watched(&recording, limited);
    client.write_all(log_of(0..5).as_bytes()).unwrap();
    wait_for_a_block(&recording);
    // More than the recorder gets to read, so it may be gone while this is sent.
    let _ = client.write_all(log_of(5..40_000).as_bytes());
    let (is_well, said) = ended(child);
    assert!(!is_well && said.contains("cannot write"), "{said}");
    assert_eq!(recording.text(), log_of(0..5));
}

#[test]
fn an_interrupt_ends_the_log_in_order() {
    let recording = Recording::new();
    let (mut client, child) = watched(&recording, cache_sim());
    client.write_all(log_of(0..40).as_bytes()).unwrap();
    wait_for_a_block(&recording);
    let pid = child.0.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let (is_well, said) = ended(child);
    assert!(is_well && said.contains("40 requests"), "{said}");
    assert_eq!(recording.text(), log_of(0..40));
}

/// memcached on a free port, or `None` where it is not installed.
fn memcached() -> Option<(Ended, String)> {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("memcached");
    command.args(["-l", "127.0.0.1", "-p", &address.port().to_string(), "-U", "0", "-t", "1"]);
    command.args(["-u", "nobody"]).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(child) = command.spawn() else {
        // Not a failure: whoever works on the simulator need not have it.
        let _unheard = writeln!(std::io::stderr(), "skipped: memcached is not installed");
        return None;
    };
    let child = Ended(child);
    for _ in 0..100 {
        if TcpStream::connect(address).is_ok() {
            return Some((child, address.to_string()));
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    panic!("memcached does not serve at {address}");
}

#[test]
fn a_real_memcached_is_recorded_and_the_log_read_back() {
    let Some((_memcached, address)) = memcached() else { return };
    let recording = Recording::new();
    let mut child = recording.command(&address, &["--requests", "6", "--for", "60"]);
    let mut child = Ended(child.stderr(Stdio::piped()).spawn().unwrap());
    let mut client = TcpStream::connect(&address).unwrap();
    let mut answers = BufReader::new(client.try_clone().unwrap());
    let mut ask = |request: &str, end: &str| {
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        while !answer.ends_with(end) {
            assert_ne!(answers.read_line(&mut answer).unwrap(), 0, "{answer}");
        }
        answer
    };
    // The log is of what is asked while somebody watches.
    for _ in 0..600 {
        if ask("stats\r\n", "END\r\n").contains("STAT log_watchers 1\r\n") {
            break;
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    ask("get a\r\n", "END\r\n");
    ask("set a 0 60 5\r\nvalue\r\n", "STORED\r\n");
    ask("get a\r\n", "END\r\n");
    ask("delete a\r\n", "DELETED\r\n");
    for _ in 0..100 {
        if child.0.try_wait().unwrap().is_some() {
            break;
        }
        ask("get a\r\n", "END\r\n");
        thread::park_timeout(Duration::from_millis(50));
    }
    let (is_well, said) = ended(child);
    assert!(is_well, "{said}");
    let text = recording.text();
    // Not every version tells of deletions.
    for kind in ["type=item_get key=a status=not_found", "type=item_store key=a"] {
        assert!(text.contains(kind), "no {kind} in\n{text}");
    }
    let (is_well, told) = described(&recording.file());
    assert!(is_well, "{told}");
}
