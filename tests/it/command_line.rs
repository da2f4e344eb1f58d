//! What memcached's flags do, seen from outside: real processes, their clients and their exit codes.
//!
//! How each flag is read, and what it is refused with, are tests of the parser (`cache-server/src/cli.rs`).

use std::fs;
use std::time::Duration;

use tests::connection::Connection;
use tests::process::{Launcher, Process};
use tests::wait;

/// How long something may take that is to happen at once.
const LIMIT: Duration = Duration::from_secs(20);

fn start(arguments: &[&str]) -> Process {
    Launcher::new(arguments).start()
}

fn ask(client: &mut Connection, command: &str) -> String {
    client.send(format!("{command}\r\n").as_bytes()).unwrap();
    line(client).expect("an answer")
}

/// The next line, or nothing if the server has closed the connection.
fn line(client: &mut Connection) -> Option<String> {
    let line = client.receive_line().ok()??;
    Some(String::from_utf8(line).unwrap())
}

/// One line of `stats`.
fn statistic(client: &mut Connection, name: &str) -> Option<String> {
    client.send(b"stats\r\n").unwrap();
    let mut value = None;
    loop {
        let line = line(client).expect("statistics end");
        if line == "END" {
            return value;
        }
        if let Some(rest) = line.strip_prefix(&format!("STAT {name} ")) {
            value = Some(rest.to_owned());
        }
    }
}

fn ended(process: &mut Process) -> Option<i32> {
    wait::until(LIMIT, || process.ended()).and_then(|status| status.code())
}

#[test]
fn a_client_too_many_is_told_so_and_others_are_served() {
    let server = start(&["-c", "1"]);
    // Whoever waited for the server to be there may still be connected.
    let mut first = wait::until(LIMIT, || {
        let mut client = server.connect();
        ask(&mut client, "version").starts_with("VERSION").then_some(client)
    })
    .expect("a client that is served");
    let mut second = server.connect();
    assert_eq!(line(&mut second).as_deref(), Some("ERROR Too many open connections"));
    assert_eq!(line(&mut second), None);
    let rejected = statistic(&mut first, "rejected_connections").unwrap();
    assert!(rejected.parse::<u32>().unwrap() >= 1);
    assert_eq!(statistic(&mut first, "listen_disabled_num").as_deref(), Some("0"));
}

#[test]
fn without_maxconns_fast_a_client_too_many_waits_for_another_to_leave() {
    let server = start(&["-c", "1", "-t", "1", "-o", "no_maxconns_fast"]);
    let mut first = server.connect();
    assert!(ask(&mut first, "version").starts_with("VERSION"));
    let mut second = server.connect();
    second.send(b"version\r\n").unwrap();
    let disabled = wait::until(LIMIT, || {
        (statistic(&mut first, "accepting_conns").as_deref() == Some("0")).then_some(())
    });
    assert!(disabled.is_some(), "the listener is disabled");
    assert_eq!(statistic(&mut first, "rejected_connections").as_deref(), Some("0"));
    first.send(b"quit\r\n").unwrap();
    assert_eq!(line(&mut first), None);
    assert!(line(&mut second).expect("its turn has come").starts_with("VERSION"));
    let times = statistic(&mut second, "listen_disabled_num").unwrap();
    assert!(times.parse::<u32>().unwrap() >= 1);
}

#[test]
fn a_silent_client_is_closed_and_one_that_speaks_is_not() {
    let server = start(&["-o", "idle_timeout=1"]);
    let mut talkative = server.connect();
    let mut silent = server.connect();
    assert!(ask(&mut silent, "version").starts_with("VERSION"));
    let kicked = wait::until(LIMIT, || {
        let kicks = statistic(&mut talkative, "idle_kicks").expect("it is told of");
        (kicks != "0").then_some(kicks)
    });
    assert_eq!(kicked.as_deref(), Some("1"));
    assert_eq!(line(&mut silent), None);
}

#[test]
fn shutdown_stops_where_it_is_allowed() {
    let server = start(&[]);
    let mut client = server.connect();
    assert_eq!(ask(&mut client, "shutdown"), "SERVER_ERROR: shutdown not enabled");
    assert_eq!(ask(&mut client, "shutdown now"), "SERVER_ERROR: shutdown not enabled");
    for command in ["shutdown", "shutdown graceful"] {
        let mut server = start(&["-A"]);
        let mut client = server.connect();
        assert_eq!(ask(&mut client, "shutdown softly"), "CLIENT_ERROR invalid shutdown mode");
        client.send(format!("{command}\r\n").as_bytes()).unwrap();
        assert_eq!(line(&mut client), None, "{command}");
        assert_eq!(ended(&mut server), Some(0), "{command}: {}", server.said());
    }
}

#[test]
fn flush_all_can_be_forbidden() {
    let server = start(&["-F"]);
    let mut client = server.connect();
    assert_eq!(ask(&mut client, "set k 0 0 1\r\na"), "STORED");
    assert_eq!(ask(&mut client, "flush_all"), "CLIENT_ERROR flush_all not allowed");
    assert_eq!(ask(&mut client, "get k"), "VALUE k 0 1");
}

#[test]
fn what_does_nothing_is_told_in_the_log_once_and_the_server_serves() {
    let flags =
        ["-f", "1.1", "-n", "64", "-L", "-C", "-N", "1", "-o", "hashpower=20,slab_reassign"];
    let mut server = start(&flags);
    let said = server.said();
    for flag in ["-f ", "-n ", "-L ", "-C ", "-N ", "-o hashpower ", "-o slab_reassign "] {
        let told = format!("{flag}does nothing here");
        assert_eq!(said.matches(&told).count(), 1, "{flag}: {said}");
    }
}

#[test]
fn what_is_refused_ends_with_memcacheds_exit_code_and_a_reason() {
    for (flags, code, reason) in [
        (&["-c", "0"][..], 1, "greater than 0"),
        (&["-o", "no_such_option"], 1, "no_such_option"),
        (&["--no-such-flag"], 1, "--no-such-flag"),
        (&["-B", "http"], 64, "auto, binary, or ascii"),
        (&["-I", "40m"], 64, "1/2 of memory"),
        (&["-l", "host.invalid"], 71, "host.invalid"),
        (&["-l", "127.0.0.1:port"], 71, "127.0.0.1:port"),
    ] {
        let (status, said) = Launcher::new(flags).refused();
        assert_eq!(status.code(), Some(code), "{flags:?}: {said}");
        assert!(said.contains(reason), "{flags:?}: {said}");
    }
}

#[test]
fn a_file_of_memcacheds_is_served_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memcached.conf");
    let file = path.to_str().unwrap();
    fs::write(&path, "# memcached\n-d\nlogfile /var/log/x\n-m 128\n-c 7   # few\n-o modern\n")
        .unwrap();
    let server = start(&["--memcached-conf", file]);
    let mut client = server.connect();
    assert_eq!(statistic(&mut client, "max_connections").as_deref(), Some("7"));
    let bytes = (128_u64 << 20).to_string();
    assert_eq!(statistic(&mut client, "limit_maxbytes"), Some(bytes));
    fs::write(&path, "PORT=11211\nMAXCONN=\"0\"\n").unwrap();
    let (status, said) = Launcher::new(&["--memcached-conf", file]).refused();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("memcached.conf:2: "), "{said}");
}
