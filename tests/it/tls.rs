//! TLS to clients, requests in datagrams, and UNIX sockets: the ways in that are not plain TCP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cache_server::config::{Protection, TlsConfig, TlsVersion, UnixSocket, VerifyMode};
use cache_server::net::ListeningAddress;
use cache_server::{Config, Listen};
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use tests::connection::{ANSWER_LIMIT, Connection, prepared};
use tests::script::Script;
use tests::server::{Server, Subject};
use tests::tls::{Authority, Client, EITHER, TlsStream};
use tests::wait;

/// A server under TLS as `change` has it.
fn server(authority: &Authority, change: impl FnOnce(&mut TlsConfig)) -> Server {
    let mut tls = authority.server();
    change(&mut tls);
    Server::start_changed(&[], |config| config.tls = Some(tls))
}

fn asked(connection: &mut Connection, request: &str) -> String {
    connection.send(request.as_bytes()).unwrap();
    let line = connection.receive_line().unwrap();
    String::from_utf8(line.expect("an answer")).unwrap()
}

/// What `stats`, or `stats topic`, says of `name`.
fn stat(connection: &mut Connection, topic: &str, name: &str) -> Option<String> {
    connection.send(format!("stats{topic}\r\n").as_bytes()).unwrap();
    let mut found = None;
    loop {
        let line = String::from_utf8(connection.receive_line().unwrap().unwrap()).unwrap();
        if line == "END" {
            return found;
        }
        let words: Vec<_> = line.splitn(3, ' ').collect();
        if let ["STAT", told, value] = words[..]
            && told == name
        {
            found = Some(value.to_owned());
        }
    }
}

fn serves(client: &Client, address: SocketAddr) -> bool {
    // A client of TLS 1.3 learns only when it reads that its certificate is not good enough.
    let Ok(mut connection) = client.open(address) else { return false };
    connection.send(b"mn\r\n").is_ok() && matches!(connection.receive_line(), Ok(Some(_)))
}

#[test]
fn every_dialogue_is_the_same_under_tls() {
    if Subject::from_environment() != Subject::Ours {
        return;
    }
    let authority = Authority::new();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut played = 0;
    for folder in [scripts.clone(), scripts.join("ours")] {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
        for path in paths {
            let script = Script::open(&path).unwrap();
            let flags: Vec<&str> = script.launch.iter().map(String::as_str).collect();
            let server =
                Server::start_changed(&flags, |config| config.tls = Some(authority.server()));
            let versions = if played % 2 == 0 { &[&TLS13] } else { &[&TLS12] };
            let client = authority.client(versions);
            script
                .play_over(&|| client.open(server.address()), &mut |by| server.advance(by))
                .unwrap_or_else(|disagreement| panic!("under TLS: {disagreement}"));
            played += 1;
        }
    }
    assert!(played > 30, "all of them");
}

#[test]
fn large_values_pass_both_ways() {
    let authority = Authority::new();
    let server = server(&authority, |_| {});
    for versions in [&[&TLS12], &[&TLS13]] {
        let mut connection = authority.client(versions).open(server.address()).unwrap();
        for len in [16_383, 16_384, 16_385, 100_000, 1_000_000] {
            let value: Vec<u8> = (0..=250).cycle().take(len).collect();
            connection.send(format!("set k 0 0 {len}\r\n").as_bytes()).unwrap();
            connection.send(&value).unwrap();
            assert_eq!(asked(&mut connection, "\r\n"), "STORED");
            assert_eq!(asked(&mut connection, "get k\r\n"), format!("VALUE k 0 {len}"));
            assert!(connection.receive_block(len).unwrap() == value, "{len} bytes");
            assert_eq!(connection.receive_line().unwrap().unwrap(), b"END");
        }
    }
}

#[test]
fn deep_pipeline_is_answered_whole() {
    let authority = Authority::new();
    let server = server(&authority, |_| {});
    let mut connection = authority.client(EITHER).open(server.address()).unwrap();
    assert_eq!(asked(&mut connection, "set k 0 0 3\r\nabc\r\n"), "STORED");
    const REQUESTS: usize = 5_000;
    connection.send(&b"get k\r\n".repeat(REQUESTS)).unwrap();
    for _ in 0..REQUESTS {
        for expected in [&b"VALUE k 0 3"[..], b"abc", b"END"] {
            assert_eq!(connection.receive_line().unwrap().unwrap(), expected);
        }
    }
}

#[test]
fn oldest_version_is_the_one_asked_for() {
    let authority = Authority::new();
    for (asked, serves_old, told) in [
        (TlsVersion::V1_0, true, "tlsv1.2"),
        (TlsVersion::V1_2, true, "tlsv1.2"),
        (TlsVersion::V1_3, false, "tlsv1.3"),
    ] {
        let server = server(&authority, |tls| tls.version_min = asked);
        assert_eq!(serves(&authority.client(&[&TLS12]), server.address()), serves_old, "{asked}");
        let mut newest = authority.client(&[&TLS13]).open(server.address()).unwrap();
        assert_eq!(stat(&mut newest, " settings", "ssl_min_version").unwrap(), told);
        let errors = stat(&mut newest, "", "ssl_handshake_errors").unwrap();
        assert_eq!(errors, if serves_old { "0" } else { "1" });
    }
}

#[test]
fn clients_certificate_is_asked_for_as_the_mode_says() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let good = authority.identity("client");
    let bad = stranger.identity("client");
    let cases = [
        (VerifyMode::None, true, true, true),
        (VerifyMode::Request, true, true, false),
        (VerifyMode::Require, false, true, false),
        (VerifyMode::Once, false, true, false),
    ];
    for versions in [&[&TLS12], &[&TLS13]] {
        for (mode, without, with_good, with_bad) in cases {
            let server = server(&authority, |tls| {
                tls.verify = mode;
                tls.authorities = Some(authority.path("ca.pem"));
            });
            let serves =
                |identity| serves(&authority.client_as(versions, identity), server.address());
            assert_eq!(serves(None), without, "{mode:?} without");
            assert_eq!(serves(Some(&good)), with_good, "{mode:?} with a good one");
            assert_eq!(serves(Some(&bad)), with_bad, "{mode:?} with another authority's");
        }
    }
}

#[test]
fn addresses_are_protected_each_as_its_prefix_says() {
    let authority = Authority::new();
    let address = |protection| Listen { protection, ..Listen::loopback(0) };
    let protections = [Protection::Usual, Protection::Plain, Protection::Basic, Protection::Mutual];
    let server = Server::start_changed(&[], |config| {
        config.tls =
            Some(TlsConfig { authorities: Some(authority.path("ca.pem")), ..authority.server() });
        config.listen = protections.map(address).to_vec();
    });
    let addresses: Vec<SocketAddr> = server
        .listening()
        .iter()
        .map(|address| match address {
            ListeningAddress::Tcp(address) => *address,
            other => panic!("TCP, not {other}"),
        })
        .collect();
    let [usual, plain, basic, mutual] = addresses[..] else { panic!("four addresses") };
    let anybody = authority.client(EITHER);
    let known = authority.client_as(EITHER, Some(&authority.identity("client")));
    assert!(serves(&anybody, usual) && serves(&anybody, basic));
    assert!(!serves(&anybody, mutual) && serves(&known, mutual));
    let mut over_tcp = Connection::open(plain).unwrap();
    assert_eq!(asked(&mut over_tcp, "mn\r\n"), "MN");
    assert!(!serves(&anybody, plain), "what is plain knows no TLS");
}

#[test]
fn nobody_passes_where_a_certificate_is_needed_and_no_authority_is_named() {
    let authority = Authority::new();
    let server = server(&authority, |tls| tls.verify = VerifyMode::Require);
    let identity = authority.identity("client");
    assert!(!serves(&authority.client(EITHER), server.address()));
    assert!(!serves(&authority.client_as(EITHER, Some(&identity)), server.address()));
}

/// Has a conversation and says how its session began.
fn kind_of_session(client: &Client, address: SocketAddr) -> Option<HandshakeKind> {
    let mut stream: TlsStream = client.connect(address).unwrap();
    stream.write_all(b"mn\r\n").unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    stream.conn.handshake_kind()
}

#[test]
fn sessions_are_resumed_where_that_was_asked_for() {
    let authority = Authority::new();
    for versions in [&[&TLS12], &[&TLS13]] {
        for resumes in [false, true] {
            let server = server(&authority, |tls| tls.resumes_sessions = resumes);
            let client = authority.client(versions);
            assert_eq!(kind_of_session(&client, server.address()), Some(HandshakeKind::Full));
            let second = kind_of_session(&client, server.address());
            assert_eq!(second == Some(HandshakeKind::Resumed), resumes, "{second:?}");
            let mut other = authority.client(versions).forgetful().open(server.address()).unwrap();
            let sessions = stat(&mut other, "", "ssl_new_sessions");
            assert_eq!(sessions.as_deref(), resumes.then_some("2"));
        }
    }
}

#[test]
fn certificates_are_loaded_again_under_open_connections() {
    let authority = Authority::new();
    let server = server(&authority, |_| {});
    let client = authority.client(EITHER);
    let shown = || {
        let stream = client.connect(server.address()).unwrap();
        stream.conn.peer_certificates().unwrap()[0].clone()
    };
    let mut open = client.open(server.address()).unwrap();
    let before = shown();

    authority.install(&authority.identity("localhost"));
    assert_eq!(asked(&mut open, "refresh_certs\r\n"), "OK");
    let after = shown();
    assert!(before != after, "new connections get the new one");
    assert_eq!(asked(&mut open, "mn\r\n"), "MN", "old ones go on");
    assert_eq!(stat(&mut open, "", "time_since_server_cert_refresh").unwrap(), "0");

    authority.write("chain.pem", "no certificate");
    let refusal = asked(&mut open, "refresh_certs\r\n");
    assert!(refusal.starts_with("Error loading the certificate chain: "), "{refusal}");
    assert!(shown() == after, "what was there stays");

    // Changed back, it is noticed without being asked.
    let third = authority.identity("localhost");
    authority.install(&third);
    let noticed = wait::until(Duration::from_secs(20), || (shown() != after).then_some(()));
    assert!(noticed.is_some(), "files that change are loaded");
}

#[test]
fn certificates_cannot_be_refreshed_where_there_are_none() {
    let server = Server::start_here(&[]);
    let mut connection = Connection::open(server.address()).unwrap();
    assert_eq!(asked(&mut connection, "refresh_certs\r\n"), "Error TLS not enabled");
    assert_eq!(stat(&mut connection, " settings", "ssl_enabled").unwrap(), "no");
    assert_eq!(stat(&mut connection, "", "ssl_handshake_errors"), None);
}

#[test]
fn handshake_that_is_dragged_out_is_cut_off() {
    let authority = Authority::new();
    let server = Server::start_changed(&[], |config| {
        config.tls = Some(authority.server());
        config.limits.handshake_timeout = Duration::from_millis(300);
    });
    let mut silent = prepared(TcpStream::connect(server.address()).unwrap(), ANSWER_LIMIT).unwrap();
    let mut half = prepared(TcpStream::connect(server.address()).unwrap(), ANSWER_LIMIT).unwrap();
    half.write_all(&[22, 3, 1, 1]).unwrap();
    let mut nothing = Vec::new();
    for stalled in [&mut silent, &mut half] {
        // Closed, or reset if something was not read; at most an alert says why.
        let _ = stalled.read_to_end(&mut nothing);
        assert!(nothing.is_empty() || nothing[0] == 21, "{nothing:?}");
        nothing.clear();
    }
    let client = authority.client(EITHER);
    let mut late = client.open(server.address()).unwrap();
    wait::pass(Duration::from_millis(600));
    assert_eq!(asked(&mut late, "mn\r\n"), "MN", "the limit is of the handshake alone");
    assert_eq!(stat(&mut late, "", "ssl_handshake_errors").unwrap(), "2");
}

#[test]
fn client_is_told_that_nothing_was_cut_off() {
    let authority = Authority::new();
    let server = server(&authority, |_| {});
    let mut stream = authority.client(EITHER).connect(server.address()).unwrap();
    stream.write_all(b"mn\r\nquit\r\n").unwrap();
    let mut answer = String::new();
    // An end without TLS's goodbye would be an error.
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "MN\r\n");
}

#[test]
fn client_that_takes_nothing_is_dropped_under_tls_too() {
    let authority = Authority::new();
    let server = Server::start_changed(&[], |config| {
        config.tls = Some(authority.server());
        config.limits.write_timeout = Duration::from_millis(300);
    });
    let client = authority.client(EITHER);
    let mut other = client.open(server.address()).unwrap();
    let value = "x".repeat(500_000);
    assert_eq!(asked(&mut other, &format!("set k 0 0 500000\r\n{value}\r\n")), "STORED");
    let mut slow = client.connect(server.address()).unwrap();
    slow.write_all(&b"get k\r\n".repeat(100)).unwrap();
    let gone = wait::until(Duration::from_secs(20), || {
        (stat(&mut other, "", "curr_connections").unwrap() == "1").then_some(())
    });
    assert!(gone.is_some(), "it is dropped");
    assert_eq!(stat(&mut other, "", "read_buf_bytes").unwrap(), "0");
}

/// A server with UDP, and a client of it.
fn with_datagrams(change: impl FnOnce(&mut Config)) -> (Server, UdpSocket) {
    let server = Server::start_changed(&[], |config| {
        config.udp = vec![Listen::loopback(0)];
        change(config);
    });
    let udp = server.listening().iter().find_map(|address| match address {
        ListeningAddress::Udp(address) => Some(*address),
        _ => None,
    });
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(udp.expect("UDP is served")).unwrap();
    client.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
    (server, client)
}

fn send_datagram(client: &UdpSocket, id: u16, request: &[u8]) {
    let header = [&id.to_be_bytes()[..], &[0, 0, 0, 1, 0, 0]].concat();
    client.send(&[&header[..], request].concat()).unwrap();
}

/// One whole answer, put together.
fn receive_answer(client: &UdpSocket, id: u16) -> Vec<u8> {
    let mut parts: Vec<Option<Vec<u8>>> = Vec::new();
    loop {
        let mut datagram = [0; 1500];
        let count = client.recv(&mut datagram).unwrap();
        let number = |at: usize| u16::from_be_bytes([datagram[at], datagram[at + 1]]);
        assert!(count <= 1400 && number(0) == id && number(6) == 0, "{:?}", &datagram[..8]);
        parts.resize(number(4).into(), None);
        parts[usize::from(number(2))] = Some(datagram[8..count].to_vec());
        if parts.iter().all(Option::is_some) {
            return parts.into_iter().flatten().flatten().collect();
        }
    }
}

#[test]
fn request_in_a_datagram_is_answered_with_its_id() {
    let (_server, client) = with_datagrams(|_| {});
    send_datagram(&client, 7, b"set k 0 0 2\r\nab\r\n");
    assert_eq!(receive_answer(&client, 7), b"STORED\r\n");
    send_datagram(&client, 0xfffe, b"get k\r\n");
    assert_eq!(receive_answer(&client, 0xfffe), b"VALUE k 0 2\r\nab\r\nEND\r\n");
    send_datagram(&client, 8, b"set k 0 0 1 noreply\r\nc\r\nget k\r\nmn\r\n");
    assert_eq!(receive_answer(&client, 8), b"VALUE k 0 1\r\nc\r\nEND\r\n", "each by itself");
    assert_eq!(receive_answer(&client, 8), b"MN\r\n");
    send_datagram(&client, 9, b"no such command\r\n");
    assert_eq!(receive_answer(&client, 9), b"ERROR\r\n");
}

#[test]
fn answer_in_datagrams_is_bounded() {
    let (server, client) = with_datagrams(|_| {});
    let mut over_tcp = Connection::open(server.address()).unwrap();
    for (key, len) in [("fits", 20_000), ("large", 30_000), ("huge", 1_000_000)] {
        let value = "v".repeat(len);
        assert_eq!(asked(&mut over_tcp, &format!("set {key} 0 0 {len}\r\n{value}\r\n")), "STORED");
    }
    send_datagram(&client, 1, b"get fits\r\n");
    assert_eq!(
        receive_answer(&client, 1).len(),
        "VALUE fits 0 20000\r\n\r\nEND\r\n".len() + 20_000
    );
    let too_long = b"SERVER_ERROR answer too long for UDP\r\n";
    for request in ["get large\r\n", "get huge\r\n", "get fits fits\r\n"] {
        send_datagram(&client, 2, request.as_bytes());
        assert_eq!(receive_answer(&client, 2), too_long, "{request}");
    }
    let many = "get ".to_owned() + &"huge ".repeat(10_000) + "\r\n";
    send_datagram(&client, 3, many.as_bytes());
    assert_eq!(receive_answer(&client, 3), too_long);
    // The bound is of all answers to one datagram, and the first that is too long is the last.
    send_datagram(&client, 4, b"get fits\r\nget fits\r\nget fits\r\n");
    assert!(receive_answer(&client, 4).starts_with(b"VALUE fits"));
    assert_eq!(receive_answer(&client, 4), too_long);
    send_datagram(&client, 5, b"mn\r\n");
    assert_eq!(receive_answer(&client, 5), b"MN\r\n");
}

#[test]
fn datagrams_that_hold_no_whole_request_are_dropped() {
    let (_server, client) = with_datagrams(|_| {});
    for dropped in [
        &b""[..],
        b"\0",
        b"\0\x01\0\0\0\x01\0\0",
        b"\0\x01\0\0\0\x02\0\0get k\r\n",
        b"\0\x01\0\0\0\0\0\0get k\r\n",
        b"\0\x01\0\0\0\x01\0\0get k",
        b"\0\x01\0\0\0\x01\0\0set k 0 0 10\r\nabc",
    ] {
        client.send(dropped).unwrap();
    }
    // What follows stands by itself: nothing was waited for.
    send_datagram(&client, 2, b"get k\r\n");
    assert_eq!(receive_answer(&client, 2), b"END\r\n");
}

#[test]
fn unix_socket_is_plain_has_its_mode_and_goes_with_the_server() {
    let authority = Authority::new();
    let path = authority.path("cache.sock");
    let server = Server::start_changed(&[], |config| {
        config.tls = Some(authority.server());
        config.unix_socket = Some(UnixSocket { path: path.clone(), mode: 0o640 });
    });
    let metadata = std::fs::symlink_metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
    let mut connection = Connection::open_unix(&path).unwrap();
    assert_eq!(asked(&mut connection, "mn\r\n"), "MN");
    drop(server);
    assert!(!path.exists());
}
