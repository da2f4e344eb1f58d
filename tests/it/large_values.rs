//! Large values leave from where they are stored: nobody is sent another's bytes, or half an old value and half a new
//! one, however slowly they read and whatever is written meanwhile.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use tests::server::Server;
use tests::wait;

const KEYS: usize = 12;
const ROUNDS: usize = 150;

/// The value of a key in a version: no byte of it can stand anywhere else unnoticed.
fn value(key: usize, version: usize) -> Vec<u8> {
    // Above and below what leaves so, and more than a part of a segment.
    let bytes = [3_000, 9_000, 40_000, 100_000, 300_000][(key + version) % 5] + version % 97;
    let mut value = format!("{key:04} {version:08} {bytes:08} ").into_bytes();
    let byte = |at: usize| u8::try_from((at * 31 + version * 7 + key) % 251).unwrap();
    value.extend((value.len()..bytes).map(byte));
    value
}

/// Whether it is what some write of this key has stored.
fn is_whole(key: usize, found: &[u8]) -> bool {
    let version = std::str::from_utf8(&found[5..13]).ok().and_then(|text| text.parse().ok());
    version.is_some_and(|version| found == value(key, version))
}

fn connect(server: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    BufReader::new(stream)
}

/// Writes version after version of all keys.
fn write(server: SocketAddr, first: usize) {
    let mut connection = connect(server);
    for version in 0..ROUNDS {
        let version = 2 * version + first;
        for key in 0..KEYS {
            let data = value(key, version);
            let head = format!("set {key} 0 0 {}\r\n", data.len());
            let request = [head.as_bytes(), &data, b"\r\n"].concat();
            connection.get_mut().write_all(&request).unwrap();
            let mut answer = String::new();
            connection.read_line(&mut answer).unwrap();
            assert_eq!(answer, "STORED\r\n");
        }
    }
}

/// How a client reads.
#[derive(Clone, Copy)]
struct Reader {
    /// Asks with `mg`.
    is_meta: bool,
    /// Sends so many requests at once.
    depth: usize,
    /// Takes its answers bit by bit, with pauses.
    is_slow: bool,
}

impl Reader {
    fn read(self, server: SocketAddr) {
        let mut connection = connect(server);
        let rounds = if self.is_slow { ROUNDS / 10 } else { 2 * ROUNDS };
        for round in 0..rounds {
            let keys: Vec<_> =
                (0..self.depth).map(|place| (round * 5 + place * 7) % KEYS).collect();
            let request = |key: &usize| match self.is_meta {
                true => format!("mg {key} v\r\n"),
                false => format!("get {key}\r\n"),
            };
            let requests: String = keys.iter().map(request).collect();
            connection.get_mut().write_all(requests.as_bytes()).unwrap();
            if self.is_slow {
                // Until the socket's buffers are full, and more.
                wait::pass(Duration::from_millis(20));
            }
            keys.iter().for_each(|&key| self.take(&mut connection, key));
        }
    }

    fn take(self, connection: &mut BufReader<TcpStream>, key: usize) {
        let mut line = String::new();
        connection.read_line(&mut line).unwrap();
        if matches!(&*line, "END\r\n" | "EN\r\n") {
            return;
        }
        let words: Vec<_> = line.split_whitespace().collect();
        let bytes = match self.is_meta {
            true => words[1],
            false => words[3],
        };
        let mut data = vec![0; bytes.parse::<usize>().unwrap()];
        if self.is_slow {
            for part in data.chunks_mut(50_000) {
                connection.read_exact(part).unwrap();
                wait::pass(Duration::from_millis(1));
            }
        } else {
            connection.read_exact(&mut data).unwrap();
        }
        assert!(is_whole(key, &data), "{} bytes of {key}", data.len());
        let mut end = vec![0; if self.is_meta { 2 } else { 7 }];
        connection.read_exact(&mut end).unwrap();
        assert_eq!(end, if self.is_meta { &b"\r\n"[..] } else { b"\r\nEND\r\n" });
    }
}

fn values_come_whole(args: &[&str]) {
    // Little memory: what is read is evicted, and its place written anew, all the time.
    let server = Server::start_here(&[args, &["-m", "8", "-t", "4"]].concat());
    let address = server.address();
    thread::scope(|scope| {
        for first in 0..2 {
            scope.spawn(move || write(address, first));
        }
        for is_meta in [false, true] {
            for (depth, is_slow) in [(1, false), (3, false), (1, true), (8, true)] {
                scope.spawn(move || Reader { is_meta, depth, is_slow }.read(address));
            }
        }
    });
}

#[test]
fn values_come_whole_over_epoll() {
    values_come_whole(&["--io", "epoll"]);
}

#[test]
fn values_come_whole_over_whatever_the_kernel_has() {
    values_come_whole(&["--io", "auto"]);
}

#[test]
fn values_in_a_memory_file_come_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory");
    values_come_whole(&["-e", file.to_str().unwrap()]);
}
