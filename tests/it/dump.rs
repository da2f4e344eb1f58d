//! Dumps of keys beside clients: whole, bounded, and at the reader's pace.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use tests::connection::Connection;
use tests::server::Server;

const LIMIT: Duration = Duration::from_secs(20);
const KEYS: u32 = 50_000;

/// A server with so many keys, one of a long name each.
fn filled(server: &Server, keys: u32) {
    let mut client = Connection::open(server.address()).expect("it listens");
    for from in (0..keys).step_by(1000) {
        let sets: String = (from..keys.min(from + 1000))
            .map(|n| format!("set {} 7 0 1 noreply\r\nx\r\n", key(n)))
            .collect();
        client.send(format!("{sets}mn\r\n").as_bytes()).expect("it takes them");
        assert_eq!(client.receive_line().expect("in time").as_deref(), Some(&b"MN"[..]));
    }
}

fn key(number: u32) -> String {
    format!("{number}:{}", "k".repeat(150))
}

fn ask(server: &Server, request: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(server.address()).expect("it listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("it takes a line");
    BufReader::new(stream)
}

fn line(reader: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    assert!(reader.read_line(&mut line).expect("in time") > 0, "it is not closed");
    line
}

#[test]
fn a_dump_is_whole_and_the_connection_goes_on() {
    let server = Server::start_here(&["-m", "128"]);
    filled(&server, KEYS);
    let mut dump = ask(&server, "lru_crawler metadump all\r\nmn\r\n");
    assert_eq!(line(&mut dump), "OK\r\n");
    let mut keys = BTreeSet::new();
    loop {
        let line = line(&mut dump);
        if line == "END\r\n" {
            break;
        }
        let (key, facts) = line.split_once(' ').expect("several fields");
        assert!(facts.starts_with("exp=-1 la=") && facts.ends_with(" flags=7 \n"), "{line}");
        keys.insert(key.to_owned());
    }
    assert_eq!(keys.len(), KEYS as usize);
    assert!(keys.contains(&format!("key={}", key(7).replace(':', "%3A"))));
    assert_eq!(line(&mut dump), "MN\r\n");
}

#[test]
fn a_reader_that_stops_holds_up_nobody_and_no_memory() {
    let mut server = Server::start_process(&["-m", "128", "-t", "1"]);
    filled(&server, KEYS);
    let before = server.resident_bytes().expect("it is a process");
    // More than their sockets take: they stop in the middle of it.
    let mut dumps: Vec<_> = (0..20).map(|_| ask(&server, "lru_crawler mgdump hash\r\n")).collect();
    let mut client = Connection::open(server.address()).expect("it listens");
    for _ in 0..100 {
        client.send(format!("set more 0 0 1\r\nx\r\nget {}\r\n", key(1)).as_bytes()).expect("sent");
        let wanted = [&b"STORED"[..], b"VALUE", b"x", b"END"];
        for wanted in wanted {
            let line = client.receive_line().expect("in time").expect("an answer");
            assert!(line.starts_with(wanted), "{}", line.escape_ascii());
        }
    }
    let grown = server.resident_bytes().expect("it is a process").saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes for dumps that nobody reads");
    for dump in &mut dumps {
        assert_eq!(line(dump), "OK\r\n");
        let mut keys = 0;
        while line(dump) != "EN\r\n" {
            keys += 1;
        }
        assert!(keys >= KEYS, "{keys}");
    }
    assert!(server.exited().is_none());
}

#[test]
fn a_dump_beside_writers_has_everything_that_stays() {
    let server = Server::start_here(&["-m", "128"]);
    filled(&server, KEYS);
    let mut dump = ask(&server, "lru_crawler mgdump all\r\n");
    assert_eq!(line(&mut dump), "OK\r\n");
    let (mut keys, mut written) = (BTreeSet::new(), 0);
    let mut client = Connection::open(server.address()).expect("it listens");
    loop {
        let line = line(&mut dump);
        if line == "EN\r\n" {
            break;
        }
        keys.insert(line.trim_end().to_owned());
        if keys.len() % 5000 == 0 {
            let sets: String =
                (0..500).map(|n| format!("set new-{written}-{n} 0 0 1 noreply\r\nx\r\n")).collect();
            client.send(format!("{sets}mn\r\n").as_bytes()).expect("sent");
            assert!(client.receive_line().expect("in time").is_some());
            written += 1;
        }
    }
    assert!((0..KEYS).all(|number| keys.contains(&format!("mg {}", key(number)))));
}
