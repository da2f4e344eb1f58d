//! A whole server in this process, over real sockets: what the operating system has a part in.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::num::{NonZeroU32, NonZeroUsize};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use cache_server::config::{Dialect, UnixSocket};
use cache_server::net::ListeningAddress;
use cache_server::net::registry::ConnectionState;
use cache_server::{Config, Listen, Server, StartError};

const VERSION: &[u8] = b"VERSION 1.6.45\r\n";

fn config() -> Config {
    Config {
        listen: vec![Listen::loopback(0)],
        threads: NonZeroUsize::new(2).unwrap(),
        ..Config::default()
    }
}

fn connect(server: &Server) -> TcpStream {
    let client = TcpStream::connect(server.address().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client
}

fn ask(client: &mut (impl Read + Write)) -> Vec<u8> {
    client.write_all(b"version\r\n").unwrap();
    let mut answer = vec![0; VERSION.len()];
    client.read_exact(&mut answer).unwrap();
    answer
}

/// Waits for what another thread is about to make true.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

#[test]
fn pipelines_of_many_clients_are_answered_in_full() {
    let server = Server::start(&config()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = connect(&server);
                for depth in [1, 16, 19, 20, 21, 100, 10_000] {
                    client.write_all(&b"version\r\n".repeat(depth)).unwrap();
                    let mut answers = vec![0; VERSION.len() * depth];
                    client.read_exact(&mut answers).unwrap();
                    assert!(answers == VERSION.repeat(depth), "depth {depth}");
                }
            });
        }
    });
    eventually("all closed", || server.network().connections() == 0);
    let counters = server.network().counters();
    assert_eq!(counters.requests, 8 * (1 + 16 + 19 + 20 + 21 + 100 + 10_000));
    assert_eq!(counters.bytes_read, counters.requests * b"version\r\n".len() as u64);
    assert_eq!(counters.bytes_written, counters.requests * VERSION.len() as u64);
    assert_eq!(counters.connections_accepted, 8);
}

#[test]
fn client_beyond_the_limit_is_told_and_closed() {
    let limit = NonZeroU32::new(2).unwrap();
    let server = Server::start(&Config { connections_max: limit, ..config() }).unwrap();
    let mut first = connect(&server);
    let mut second = connect(&server);
    assert_eq!((ask(&mut first), ask(&mut second)), (VERSION.into(), VERSION.into()));
    let mut refusal = String::new();
    connect(&server).read_to_string(&mut refusal).unwrap();
    assert_eq!(refusal, "ERROR Too many open connections\r\n");
    assert_eq!(server.network().counters().connections_rejected, 1);
    drop(second);
    eventually("room for another", || server.network().connections() == 1);
    assert_eq!(ask(&mut connect(&server)), VERSION);
    assert_eq!(ask(&mut first), VERSION);
}

#[test]
fn what_is_spoken_may_differ_by_address() {
    let place = |dialect| Listen { dialect, ..Listen::loopback(0) };
    let listen = vec![place(Some(Dialect::Binary)), place(Some(Dialect::Text)), place(None)];
    let server = Server::start(&Config { listen, dialect: Dialect::Text, ..config() }).unwrap();
    let clients = server.listening().iter().map(|address| match address {
        ListeningAddress::Tcp(address) => TcpStream::connect(address).unwrap(),
        other => panic!("only TCP was asked for, not {other:?}"),
    });
    let mut clients: Vec<TcpStream> = clients.collect();
    let noop = [&[0x80, 0x0a][..], &[0; 22]].concat();
    clients[0].write_all(&noop).unwrap();
    let mut answer = [0; 24];
    clients[0].read_exact(&mut answer).unwrap();
    assert_eq!(answer[..2], [0x81, 0x0a], "an answer to noop");
    assert_eq!(ask(&mut clients[1]), VERSION);
    assert_eq!(ask(&mut clients[2]), VERSION, "where nothing else is said it is as usual");
    let mut wrong = TcpStream::connect(server.address().unwrap()).unwrap();
    wrong.write_all(b"version\r\n").unwrap();
    assert_eq!(wrong.read(&mut answer).unwrap_or(0), 0, "text is not spoken there");
}

#[test]
fn datagrams_that_hold_no_request_are_counted() {
    let config = Config { udp: vec![Listen::loopback(0)], ..config() };
    let server = Server::start(&config).unwrap();
    let udp = server.listening().iter().find_map(|address| match address {
        ListeningAddress::Udp(address) => Some(*address),
        _ => None,
    });
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"no frame", udp.unwrap()).unwrap();
    eventually("one is dropped", || server.network().counters().datagrams_dropped == 1);
    let mut asks = connect(&server);
    asks.write_all(b"stats server\r\nquit\r\n").unwrap();
    let mut told = String::new();
    asks.read_to_string(&mut told).unwrap();
    assert!(told.contains("STAT datagrams_dropped 1\r\n"), "{told}");
    assert!(told.contains("STAT datagram_answers_refused 0\r\n"), "{told}");
}

#[test]
fn unix_socket_is_served_and_removed_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.sock");
    let unix_socket = Some(UnixSocket { path: path.clone(), mode: 0o700 });
    let server = Server::start(&Config { listen: Vec::new(), unix_socket, ..config() }).unwrap();
    assert_eq!(server.address(), None);
    let mut clients: Vec<_> = (0..8).map(|_| UnixStream::connect(&path).unwrap()).collect();
    for client in &mut clients {
        assert_eq!(ask(client), VERSION);
    }
    server.stop();
    assert!(!path.exists());
}

#[test]
fn port_in_use_is_an_error() {
    let server = Server::start(&config()).unwrap();
    let listen = vec![Listen::loopback(server.address().unwrap().port())];
    let second = Server::start(&Config { listen, ..config() });
    assert!(matches!(second, Err(StartError::Listen(_))), "{second:?}");
    assert_eq!(ask(&mut connect(&server)), VERSION);
}

#[test]
fn stopped_server_frees_its_port() {
    let server = Server::start(&config()).unwrap();
    let address = server.address().unwrap();
    let mut client = connect(&server);
    assert_eq!(ask(&mut client), VERSION);
    server.stop();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the client sees an orderly end");
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let listen = vec![Listen::loopback(address.port())];
    let again = Server::start(&Config { listen, ..config() }).unwrap();
    assert_eq!(ask(&mut connect(&again)), VERSION);
}

#[test]
fn open_connections_can_be_listed() {
    let server = Server::start(&config()).unwrap();
    let mut client = connect(&server);
    assert_eq!(ask(&mut client), VERSION);
    server.clock().advance(Duration::from_secs(7));
    let mut seen = Vec::new();
    server.network().for_each_connection(|connection| {
        seen.push((connection.peer.to_string(), connection.local.to_string()));
        assert!(connection.idle_seconds(server.clock().now()) >= 7);
    });
    let peer = format!("tcp:{}", client.local_addr().unwrap());
    let local = format!("tcp:{}", server.address().unwrap());
    assert_eq!(seen, [(peer, local)]);
    eventually("it waits", || {
        let mut waits = false;
        server.network().for_each_connection(|connection| {
            waits = connection.state() == ConnectionState::Waiting;
        });
        waits
    });
}

#[test]
fn bytes_may_come_one_at_a_time() {
    let server = Server::start(&config()).unwrap();
    let mut client = connect(&server);
    client.set_nodelay(true).unwrap();
    for byte in b"version\r\nmn\r\nquit\r\n" {
        client.write_all(&[*byte]).unwrap();
    }
    let mut answers = Vec::new();
    client.read_to_end(&mut answers).unwrap();
    assert_eq!(answers, [VERSION, b"MN\r\n"].concat());
}

#[test]
fn line_without_end_closes() {
    let server = Server::start(&config()).unwrap();
    let mut client = connect(&server);
    client.write_all(&[b'x'; 10_000]).unwrap();
    let mut answer = Vec::new();
    // The rest of the line was never read, so the end may come as a reset.
    match client.read_to_end(&mut answer) {
        Ok(_) => assert!(answer.is_empty() || answer.ends_with(b"\r\n"), "{answer:?}"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    assert_eq!(ask(&mut connect(&server)), VERSION);
}
