//! What watchers are told: a real server, watched over a socket, and recorded by `cache-sim capture`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::connection::Connection;
use tests::killer::{stat, stats, stats_of};
use tests::program::Program;
use tests::server::Server;
use tests::wait;

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// A connection that watches. Its lines end in a bare newline.
struct Watcher(BufReader<TcpStream>);

impl Watcher {
    fn of(server: &Server, topics: &str) -> Self {
        let mut stream = TcpStream::connect(server.address()).expect("it listens");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        stream.write_all(format!("watch {topics}\r\n").as_bytes()).expect("it takes a line");
        let mut watcher = Self(BufReader::new(stream));
        assert_eq!(watcher.line(), "OK\r");
        watcher
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).expect("in time") > 0, "it is not closed");
        line.trim_end_matches('\n').to_owned()
    }

    /// The next line without its time and number.
    fn event(&mut self) -> String {
        let line = self.line();
        let (ts, rest) = line.split_once(' ').expect("several fields");
        let (seconds, micros) =
            ts.strip_prefix("ts=").and_then(|it| it.split_once('.')).expect("ts");
        assert!(seconds.parse::<u64>().is_ok() && micros.len() == 6, "{ts}");
        let (gid, rest) = rest.split_once(' ').expect("several fields");
        assert!(gid.strip_prefix("gid=").is_some_and(|it| it.parse::<u64>().is_ok()), "{gid}");
        rest.to_owned()
    }
}

/// A client whose requests are answered before it goes on.
struct Client(Connection);

impl Client {
    fn of(server: &Server) -> Self {
        Self(Connection::open(server.address()).expect("it listens"))
    }

    /// Sends `request` and waits until it is carried out.
    fn ask(&mut self, request: &str) {
        self.0.send(format!("{request}\r\nmn\r\n").as_bytes()).expect("it takes a line");
        while self.0.receive_line().expect("in time").expect("it is open") != b"MN" {}
    }

    /// The descriptor that `stats conns` shows for it: the server's end of its only connection.
    fn descriptor(&mut self) -> String {
        let told = stats_of(&mut self.0, "stats conns");
        let serving = told.iter().find(|(_, value)| value == "conn_parse_cmd");
        let (name, _) = serving.expect("it is being served");
        name.split_once(':').expect("its state").0.to_owned()
    }
}

#[test]
fn fetches_writes_and_deletions_are_told_as_memcached_tells_them() {
    let server = Server::start_here(&[]);
    let mut client = Client::of(&server);
    let fd = client.descriptor();
    let mut watcher = Watcher::of(&server, "fetchers mutations deletions");
    let mut told = |request: &str, lines: &[&str]| {
        client.ask(request);
        for line in lines {
            assert_eq!(watcher.event(), line.replace("FD", &fd), "{request:?}");
        }
    };
    let found = "type=item_get key=k%3A1 status=found clsid=1 cfd=FD size=3";
    told(
        "set k:1 0 0 3\r\nabc",
        &[
            "type=item_get key=k%3A1 status=not_found clsid=0 cfd=FD size=0",
            "type=item_store key=k%3A1 status=stored cmd=set ttl=0 clsid=1 cfd=FD size=3",
        ],
    );
    told("get k:1 miss", &[found, "type=item_get key=miss status=not_found clsid=0 cfd=FD size=0"]);
    told("mg k:1 v", &[found]);
    told("touch k:1 100", &[found]);
    told(
        "add k:1 0 60 1\r\na",
        &[
            found,
            "type=item_store key=k%3A1 status=not_stored cmd=add ttl=60 clsid=1 cfd=FD size=1",
        ],
    );
    told(
        "append k:1 0 0 2\r\nde",
        &[found, "type=item_store key=k%3A1 status=stored cmd=append ttl=0 clsid=1 cfd=FD size=2"],
    );
    let longer = "type=item_get key=k%3A1 status=found clsid=1 cfd=FD size=5";
    told(
        "cas k:1 0 0 1 12345678\r\na",
        &[longer, "type=item_store key=k%3A1 status=exists cmd=cas ttl=0 clsid=1 cfd=FD size=1"],
    );
    told(
        "ms new 2 MR\r\nab",
        &[
            "type=item_get key=new status=not_found clsid=0 cfd=FD size=0",
            "type=item_store key=new status=not_stored cmd=replace ttl=0 clsid=1 cfd=FD size=2",
        ],
    );
    told(
        &format!("set big 0 0 2000000\r\n{}", "x".repeat(2_000_000)),
        &["type=item_store key=big status=too_large cmd=set ttl=0 clsid=0 cfd=FD size=0"],
    );
    told("md k:1 I", &[longer]);
    told("delete k:1", &[longer, "type=deleted key=k%3A1 cmd=delete clsid=1 size=5"]);
    // What was not there is not deleted.
    told("delete k:1", &["type=item_get key=k%3A1 status=not_found clsid=0 cfd=FD size=0"]);
    told(
        "set n,\u{e4} 0 0 1\r\na",
        &[
            "type=item_get key=n%2C%C3%A4 status=not_found clsid=0 cfd=FD size=0",
            "type=item_store key=n%2C%C3%A4 status=stored cmd=set ttl=0 clsid=1 cfd=FD size=1",
        ],
    );
    told(
        "md n,\u{e4}",
        &[
            "type=item_get key=n%2C%C3%A4 status=found clsid=1 cfd=FD size=1",
            "type=deleted key=n%2C%C3%A4 cmd=md clsid=1 size=1",
        ],
    );
    told(
        "ms short 1 T1\r\na",
        &[
            "type=item_get key=short status=not_found clsid=0 cfd=FD size=0",
            "type=item_store key=short status=stored cmd=set ttl=1 clsid=1 cfd=FD size=1",
        ],
    );
    server.advance(Duration::from_secs(2));
    // Unless the sweep was there first.
    client.ask("mg short v");
    let gone = watcher.event();
    assert!(
        gone.contains("key=short status=expired ") || gone.contains("status=not_found "),
        "{gone}"
    );
}

#[test]
fn clients_that_come_and_go_are_told_with_the_reason() {
    let server = Server::start_here(&[]);
    let mut watcher = Watcher::of(&server, "connevents");
    let mut end = |last: &str| {
        let mut stream = TcpStream::connect(server.address()).expect("it listens");
        let port = stream.local_addr().expect("an address").port();
        stream.write_all(last.as_bytes()).expect("it takes a line");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        let came = watcher.event();
        assert!(
            came.starts_with(&format!(
                "type=conn_new rip=127.0.0.1 rport={port} transport=tcp cfd="
            )),
            "{came}"
        );
        watcher.event().replace(&format!("rport={port} "), "")
    };
    let normal = "type=conn_close rip=127.0.0.1 transport=tcp reason=normal cfd=";
    let error = "type=conn_close rip=127.0.0.1 transport=tcp reason=error cfd=";
    assert!(end("quit\r\n").starts_with(normal));
    assert!(end("GET / HTTP/1.1\r\n").starts_with(error));
    assert!(end(&"x".repeat(5000)).starts_with(error));
}

#[test]
fn evictions_are_told_with_the_write_that_made_them() {
    let server = Server::start_here(&["-m", "8", "-I", "64k", "-t", "1", "--eviction", "lru"]);
    let mut client = Client::of(&server);
    let value = "v".repeat(10_000);
    for number in 0..2_000 {
        client.ask(&format!("set before-{number} 0 0 10000 noreply\r\n{value}"));
    }
    let before = stat(&stats(&mut client.0), "evictions");
    assert!(before > 0, "it is full");
    let mut watcher = Watcher::of(&server, "evictions");
    for number in 0..100 {
        client.ask(&format!("set after-{number} 0 0 10000 noreply\r\n{value}"));
    }
    let evicted = stat(&stats(&mut client.0), "evictions") - before;
    assert!(evicted > 0);
    for _ in 0..evicted {
        let line = watcher.event();
        assert!(line.starts_with("type=eviction key=before-"), "{line}");
        assert!(line.contains(" fetch=no ttl=-1 la="), "{line}");
        assert!(line.ends_with(" clsid=1 size=10000"), "{line}");
    }
}

#[test]
fn a_watcher_that_does_not_read_costs_its_buffer_and_is_told_what_it_missed() {
    let server = Server::start_here(&[]);
    let mut watcher = Watcher::of(&server, "fetchers");
    let mut client = Client::of(&server);
    let key = "k".repeat(200);
    let batch = format!("get {}", vec![key.as_str(); 1000].join(" "));
    // Until its buffer, and those of the two sockets, are full.
    let mut batches = 0;
    let skips = wait::until(LIMIT, || {
        for _ in 0..10 {
            client.ask(&batch);
            batches += 1;
        }
        (stat(&stats(&mut client.0), "log_watcher_skipped") > 0).then_some(())
    });
    assert!(skips.is_some(), "{batches} batches were taken");
    let told = stats(&mut client.0);
    assert_eq!(stat(&told, "log_watchers"), 1);
    assert_eq!(stat(&told, "log_worker_written"), 1000 * batches);
    let (sent, skipped) = (stat(&told, "log_watcher_sent"), stat(&told, "log_watcher_skipped"));
    assert_eq!(sent + skipped, 1000 * batches);
    // The sockets took some on the way, so lines were skipped more than once.
    let (mut lines, mut missed) = (0, 0);
    while lines < sent {
        let line = watcher.line();
        match line.strip_prefix("skipped=") {
            Some(count) => missed += count.parse::<u64>().expect("a number"),
            None => {
                assert!(line.contains(" type=item_get key=kkk"), "{line}");
                lines += 1;
            }
        }
    }
    client.ask("get last");
    let rest = skipped - missed;
    if rest > 0 {
        assert_eq!(watcher.line(), format!("skipped={rest}"));
    }
    assert!(watcher.event().starts_with("type=item_get key=last "));
}

#[test]
fn a_watcher_that_leaves_is_not_told_any_more() {
    let server = Server::start_here(&[]);
    let mut client = Client::of(&server);
    let watchers: Vec<Watcher> = (0..20).map(|_| Watcher::of(&server, "fetchers")).collect();
    let mut refused = Connection::open(server.address()).expect("it listens");
    refused.send(b"watch\r\n").expect("it takes a line");
    let line = refused.receive_line().expect("in time").expect("an answer");
    assert_eq!(line, b"WATCHER_TOO_MANY log watcher limit reached");
    drop(watchers);
    let all_gone =
        wait::until(LIMIT, || (stat(&stats(&mut client.0), "log_watchers") == 0).then_some(()));
    assert!(all_gone.is_some());
    client.ask("get k");
    assert_eq!(stat(&stats(&mut client.0), "log_worker_written"), 0);
}

#[test]
fn what_a_watcher_says_is_dropped() {
    let server = Server::start_here(&[]);
    let mut watcher = Watcher::of(&server, "fetchers");
    watcher.0.get_mut().write_all(b"get from-the-watcher\r\nflush_all\r\n").expect("sent");
    Client::of(&server).ask("get k");
    assert!(watcher.event().starts_with("type=item_get key=k "));
}

#[test]
fn changes_are_told_by_key_and_pings_are_answered_behind_them() {
    let server = Server::start_here(&[]);
    let mut client = Client::of(&server);
    client.ask("set user:0 0 0 1\r\na");
    let mut watcher = Watcher::of(&server, "changes user%3A %C3");
    let mut pings = 0;
    let mut told = |request: &str, lines: &[&str]| {
        client.ask(request);
        watcher.0.get_mut().write_all(b"\n").expect("it takes a ping");
        pings += 1;
        for line in lines {
            assert_eq!(watcher.line(), *line, "{request:?}");
        }
        // Nothing more: what changed stands before the answer to a ping that was sent later.
        assert_eq!(watcher.line(), format!("alive={pings}"), "{request:?}");
    };
    let changed = &["key=user%3A1"][..];
    told("set session:1 0 0 1\r\na", &[]);
    told("set user:1 0 100 1\r\n1", changed);
    told("get user:1", &[]);
    told("add user:1 0 0 1\r\n1", &[]);
    told("append user:1 0 0 1\r\n2", changed);
    told("incr user:1 1", changed);
    told("incr user:1 100", changed);
    told("touch user:1 1000", &[]);
    told("touch user:1 10", changed);
    told("mg user:1 s T5", changed);
    told("md user:1 I", changed);
    told("ms user:1 1\r\na", changed);
    told("delete user:1", changed);
    told("delete user:1", &[]);
    told("mg user:1 v N30", changed);
    told("set \u{e4}, 0 0 1\r\na", &["key=%C3%A4%2C"]);
    told("ma user:2 N0 J5", &["key=user%3A2"]);
    // Shard after shard: once, or several times.
    client.ask("flush_all");
    watcher.0.get_mut().write_all(b"\n").expect("it takes a ping");
    assert_eq!(watcher.line(), "all");
    let next = wait::until(LIMIT, || Some(watcher.line()).filter(|line| line != "all"));
    assert_eq!(next, Some(format!("alive={}", pings + 1)));
}

#[test]
fn who_is_too_slow_for_changes_is_told_so() {
    let server = Server::start_here(&["-o", "watcher_logbuf_size=4"]);
    let mut watcher = Watcher::of(&server, "changes");
    let mut client = Client::of(&server);
    // Until its buffer, and those of the two sockets, are full.
    let batch: String = (0..1000).map(|n| format!("ms {n:0>240} 1 q\r\na\r\n")).collect();
    let mut written = 0;
    let skips = wait::until(LIMIT, || {
        client.0.send(format!("{batch}mn\r\n").as_bytes()).expect("it takes them");
        assert_eq!(client.0.receive_line().expect("in time").expect("it is open"), b"MN");
        written += 1000;
        (written > 100_000).then_some(())
    });
    assert!(skips.is_some(), "{written} were written");
    watcher.0.get_mut().write_all(b"\n").expect("it takes a ping");
    let (mut told, mut skipped) = (0, 0);
    loop {
        let line = watcher.line();
        if line.starts_with("alive=") {
            break;
        }
        match line.strip_prefix("skipped=") {
            Some(count) => skipped += count.parse::<u64>().expect("a number"),
            None => {
                assert!(line.starts_with("key=0"), "{line}");
                told += 1;
            }
        }
    }
    assert_eq!(told + skipped, written, "every change is told or counted");
    assert!(skipped > 0);
    let figures = stats(&mut client.0);
    assert_eq!(stat(&figures, "log_watcher_sent"), told);
    assert_eq!(stat(&figures, "log_watcher_skipped"), skipped);
    assert_eq!(stat(&figures, "log_watchers"), 1);
}

#[test]
fn streams_of_changes_that_cannot_be_are_refused() {
    let server = Server::start_here(&[]);
    let mut client = Connection::open(server.address()).expect("it listens");
    let mut answer = |request: String| {
        client.send(request.as_bytes()).expect("it takes a line");
        client.receive_line().expect("in time").expect("an answer")
    };
    assert_eq!(answer("watch changes %zz\r\n".into()), b"CLIENT_ERROR bad prefix");
    let many = "a ".repeat(65);
    assert_eq!(answer(format!("watch changes {many}\r\n")), b"CLIENT_ERROR bad prefix");
    assert_eq!(answer("watch fetchers changes\r\n".into()), b"ERROR");
    let forbids = Server::start_here(&["-W"]);
    let mut client = Connection::open(forbids.address()).expect("it listens");
    client.send(b"watch changes\r\n").expect("it takes a line");
    let line = client.receive_line().expect("in time").expect("an answer");
    assert_eq!(line, b"CLIENT_ERROR watch commands not allowed");
}

#[test]
fn capture_records_a_server_of_this_project() {
    let server = Server::start_here(&[]);
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log.zst");
    let mut recorder = Command::new(Program::Sim.path())
        .args(["capture", &server.address().to_string(), "--requests", "300", "--output"])
        .arg(&log)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut client = Client::of(&server);
    let watched =
        wait::until(LIMIT, || (stat(&stats(&mut client.0), "log_watchers") == 1).then_some(()));
    assert!(watched.is_some());
    for number in 0..100 {
        client.ask(&format!("set k{number} 0 0 5\r\nvalue"));
        client.ask(&format!("get k{number}"));
    }
    let ended = wait::until(LIMIT, || recorder.try_wait().expect("it is our child"));
    let mut said = String::new();
    let errors = recorder.stderr.as_mut().expect("it is piped");
    errors.read_to_string(&mut said).expect("text");
    assert!(ended.is_some_and(|status| status.success()), "{said}");
    let run = Command::new(Program::Sim.path())
        .args(["run", "--policy", "lru", "--size", "10MiB", "--output", "json", "--trace"])
        .arg(&log)
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    // The lookup that a write begins with is part of the write.
    for wanted in ["\"requests\": 200", "\"writes\": 100", "\"hits\": 100", "\"malformed\": 0"] {
        assert!(text.contains(wanted), "{wanted} is not in {text}");
    }
}
