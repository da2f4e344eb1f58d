//! What a client should never do, done: over TCP, TLS, UNIX sockets and UDP.
//!
//! After each input the server has answered as memcached does or has closed, serves a new connection,
//! and holds no more memory than it says it may (`-m` and [`cache_server::Config::allowance_bytes`]).
//! Nothing here is timed: what waits, waits for an answer or an end.
//!
//! Each table names its inputs, and a failure names the input. How malformed lines are answered to the
//! byte stands in `scripts/`; here it is enough that there is one error and that what follows is served.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use tests::connection::{ANSWER_LIMIT, Connection, Stream, prepared};
use tests::server::{Server, config};
use tests::tls::{Authority, Client, EITHER};
use tests::wait;

/// What becomes of a connection after an input.
enum Outcome {
    /// It is answered with so many lines that report errors, and goes on.
    Errors(usize),
    /// It is answered with this, and goes on.
    Says(&'static str),
    /// It is closed, whatever was said before.
    Closes,
    /// The server waits for the rest.
    Waits,
}

use Outcome::{Closes, Errors, Says, Waits};

/// What is sent: `{x*3}` stands for `xxx`, and `\x` escapes for bytes.
type Input = (&'static str, &'static str, Outcome);

const LINES: &[Input] = &[
    ("an empty line", r"\r\n", Errors(1)),
    ("a newline alone", r"\n", Errors(1)),
    ("spaces alone", r"      \r\n", Errors(1)),
    ("zero bytes", r"\x00\x00\x00\x00\r\n", Errors(1)),
    ("control characters", r"\x01\x02\x03\x07\x1b\x7f\r\n", Errors(1)),
    ("high bytes", r"x\xff\xfe\xfd\r\n", Errors(1)),
    ("a command that is none", r"nosuchcommand with words\r\n", Errors(1)),
    ("a command in capitals", r"GET k\r\n", Errors(1)),
    ("a get without a key", r"get\r\n", Errors(1)),
    ("a get of spaces", r"get      \r\n", Errors(1)),
    ("a key of 251 bytes", r"get {k*251}\r\n", Errors(1)),
    ("a key of 2,000 bytes", r"get {k*2000}\r\n", Errors(1)),
    ("a key too long behind good ones", r"get a b c {k*251}\r\n", Errors(1)),
    ("a gat without a key", r"gat 0\r\n", Errors(1)),
    ("a gat whose expiry is no number", r"gat soon k\r\n", Errors(1)),
    ("a set without words", r"set\r\n", Errors(1)),
    ("a set of a key alone", r"set k\r\n", Errors(1)),
    ("a set without a length", r"set k 0 0\r\n", Errors(1)),
    ("a set whose length is no number", r"set k 0 0 many\r\n", Errors(1)),
    ("a set of -1 bytes", r"set k 0 0 -1\r\n", Errors(1)),
    ("a set of 2^31 bytes", r"set k 0 0 2147483648\r\n", Errors(1)),
    ("a set of 2^32 bytes", r"set k 0 0 4294967296\r\n", Errors(1)),
    (
        "a set of 2^32 - 2 bytes, which wraps with its line end",
        r"set k 0 0 4294967294\r\n",
        Errors(1),
    ),
    ("a set of 2^63 bytes", r"set k 0 0 9223372036854775808\r\n", Errors(1)),
    ("a set of 2^64 bytes", r"set k 0 0 18446744073709551616\r\n", Errors(1)),
    ("a length of a hundred digits", r"set k 0 0 {9*100}\r\n", Errors(1)),
    ("a length with a sign", r"set k 0 0 +-1\r\n", Errors(1)),
    ("flags that are no number", r"set k x 0 1\r\nv\r\n", Errors(1)),
    ("flags of -1", r"set k -1 0 1\r\nv\r\n", Errors(1)),
    ("an expiry that is no number", r"set k 0 soon 1\r\nv\r\n", Errors(1)),
    ("an expiry beyond 64 bits", r"set k 0 99999999999999999999 1\r\nv\r\n", Errors(1)),
    ("a set of a key too long", r"set {k*251} 0 0 1\r\nv\r\n", Errors(1)),
    ("data longer than announced", r"set k 0 0 1\r\nvalue\r\n", Errors(2)),
    ("data with a command in it", r"set k 0 0 3\r\nmn\r\n\r\n", Errors(2)),
    ("a value above the limit", r"set k 0 0 2000000\r\n{v*2000000}\r\n", Errors(1)),
    ("a cas whose number is none", r"cas k 0 0 1 x\r\nv\r\n", Errors(1)),
    ("a cas of 2^64", r"cas k 0 0 1 18446744073709551616\r\nv\r\n", Errors(1)),
    ("an incr without a number", r"incr k\r\n", Errors(1)),
    ("an incr by -1", r"incr k -1\r\n", Errors(1)),
    ("an incr by 2^64", r"incr k 18446744073709551616\r\n", Errors(1)),
    ("a decr by words", r"decr k one\r\n", Errors(1)),
    ("a touch without an expiry", r"touch k\r\n", Errors(1)),
    ("a flush whose delay is no number", r"flush_all soon\r\n", Errors(1)),
    ("a verbosity of words", r"verbosity loud\r\n", Errors(1)),
    (
        "a cache_memlimit of nothing",
        r"cache_memlimit 0\r\n",
        Says("MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n"),
    ),
    ("a cache_memlimit of 2^32", r"cache_memlimit 4294967296\r\n", Errors(1)),
    ("statistics of nothing known", r"stats nosuchthing\r\n", Errors(1)),
    ("an mg without a key", r"mg\r\n", Errors(1)),
    ("an mg of a key too long", r"mg {k*251} v\r\n", Errors(1)),
    ("an mg with a flag twice", r"mg k v v\r\n", Errors(1)),
    ("base64 that is none", r"mg ==== b v\r\n", Errors(1)),
    ("an opaque of 100 bytes", r"mg k O{o*100}\r\n", Errors(1)),
    ("an mg with a hundred flags", r"mg k{ v*100}\r\n", Errors(1)),
    ("an ms without a length", r"ms k\r\n", Errors(1)),
    ("an ms of -1 bytes", r"ms k -1\r\n", Errors(1)),
    ("an ms of 2^32 bytes", r"ms k 4294967296\r\n", Errors(1)),
    ("client flags of 2^64", r"ms k 1 F18446744073709551616\r\nv\r\n", Errors(1)),
    ("a mode that is none", r"ms k 1 MX\r\nv\r\n", Errors(1)),
    ("an ms with 400 flags", r"ms k 1{ T0*400}\r\nv\r\n", Errors(1)),
    ("an ma by -1", r"ma k D-1\r\n", Errors(1)),
    ("a meta command that is none", r"mz k\r\n", Errors(1)),
    ("garbage between commands", r"mn\r\n\x00garbage\x00\r\nmn\r\n", Says("MN\r\nERROR\r\nMN\r\n")),
    ("a line of 2,047 bytes", r"{x*2045}\r\n", Errors(1)),
    ("a line that never ends", r"{x*100000}", Closes),
    ("a set line that never ends", r"set k 0 0 {1*100000}", Closes),
    ("a key that never ends", r"get {k*100000}", Waits),
    ("a get of 100,000 keys", r"get{ k*100000}\r\n", Says("END\r\n")),
    ("a get of 100,000 keys without an end", r"get{ k*100000}", Waits),
    ("a value that is never finished", r"set k 0 0 1000000\r\n{v*500000}", Waits),
    ("a value of which nothing comes", r"set k 0 0 1048000\r\n", Waits),
    ("half a command", r"get k", Waits),
    ("a pipeline of 50,000 lines that are wrong", r"{x\r\n*50000}", Errors(50_000)),
    ("half of a binary header", r"\x80\x00\x00\x01\x00", Waits),
];

/// Datagrams, and whether they are answered.
const DATAGRAMS: &[(&str, &str, bool)] = &[
    ("an empty datagram", "", false),
    ("half a header", r"\x00\x01\x00", false),
    ("a header alone", r"\x00\x01\x00\x00\x00\x01\x00\x00", false),
    ("the first of two datagrams", r"\x00\x01\x00\x00\x00\x02\x00\x00get k\r\n", false),
    ("a message of no datagrams", r"\x00\x01\x00\x00\x00\x00\x00\x00get k\r\n", false),
    ("a message of 65,535 datagrams", r"\x00\x01\x00\x00\xff\xff\x00\x00get k\r\n", false),
    ("a request without its line end", r"\x00\x01\x00\x00\x00\x01\x00\x00get k", false),
    ("a value that is not there", r"\x00\x01\x00\x00\x00\x01\x00\x00set k 0 0 9\r\n", false),
    ("half a value", r"\x00\x01\x00\x00\x00\x01\x00\x00set k 0 0 9\r\nabc", false),
    ("a request without a header", r"get k\r\n", false),
    ("garbage in a datagram", r"\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x02\r\n", true),
    ("a sequence number where there is one", r"\x00\x01\x00\x09\x00\x01\x00\x00mn\r\n", true),
    ("reserved bits", r"\x00\x01\x00\x00\x00\x01\xff\xffmn\r\n", true),
    ("a line longer than lines are", r"\x00\x01\x00\x00\x00\x01\x00\x00{x*3000}\r\n", false),
    ("10,000 keys in a datagram", r"\x00\x01\x00\x00\x00\x01\x00\x00get{ large*10000}\r\n", true),
    ("a value too large for datagrams", r"\x00\x01\x00\x00\x00\x01\x00\x00get large\r\n", true),
    ("statistics in a datagram", r"\x00\x01\x00\x00\x00\x01\x00\x00stats settings\r\n", true),
    ("5,000 requests in a datagram", r"\x00\x01\x00\x00\x00\x01\x00\x00{get large\r\n*5000}", true),
    (
        "half of a binary request in a datagram",
        r"\x00\x01\x00\x00\x00\x01\x00\x00\x80\x00\x00\x01",
        false,
    ),
    ("a quit in a datagram", r"\x00\x01\x00\x00\x00\x01\x00\x00quit\r\n", false),
];

/// What is sent in the place of a handshake. The server closes, or waits and then closes.
const NO_HANDSHAKES: &[(&str, &str)] = &[
    ("a plain request", r"version\r\n"),
    ("zero bytes in the place of records", r"{\x00*5000}"),
    ("a record of a kind that is none", r"\x63\x03\x03\x00\x01\x00"),
    ("a record of no length", r"\x16\x03\x01\x00\x00"),
    ("a record longer than records are", r"\x16\x03\x01\xff\xff{\x00*70000}"),
    (
        "a message of a handshake without an end",
        r"{\x16\x03\x01\x40\x00\x01\xff\xff\xff{\x00*16380}*1}{\x16\x03\x01\x00\x01\x00*20000}",
    ),
    ("data before the handshake", r"\x17\x03\x03\x00\x05hello"),
    ("an alert before the handshake", r"\x15\x03\x03\x00\x02\x02\x28"),
    ("SSL 2", r"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10"),
    ("a hello of garbage", r"\x16\x03\x01\x00\x20\x01\x00\x00\x1c{\xff*28}"),
    (
        "a hello of an old version",
        r"\x16\x03\x00\x00\x31\x01\x00\x00\x2d\x03\x00{\x11*32}\x00\x00\x02\x00\x05\x01\x00\x00\x00",
    ),
];

/// `\r`, `\n`, `\xNN` and `{unit*count}` into bytes.
fn bytes_of(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(inside) = rest.strip_prefix('{') {
            // The count stands before the brace that closes this one.
            let mut depth = 1;
            let end = inside.find(|letter| {
                depth += match letter {
                    '{' => 1,
                    '}' => -1,
                    _ => 0,
                };
                depth == 0
            });
            let (unit, after) = inside.split_at(end.expect("a brace closes"));
            let (unit, count) = unit.rsplit_once('*').expect("{unit*count}");
            bytes.extend(bytes_of(unit).repeat(count.parse().expect("a count")));
            rest = &after[1..];
        } else if let Some(hex) = rest.strip_prefix(r"\x") {
            bytes.push(u8::from_str_radix(&hex[..2], 16).expect("two digits"));
            rest = &hex[2..];
        } else if let Some(after) = rest.strip_prefix(r"\r") {
            bytes.push(b'\r');
            rest = after;
        } else if let Some(after) = rest.strip_prefix(r"\n") {
            bytes.push(b'\n');
            rest = after;
        } else {
            bytes.push(u8::try_from(first).expect("ASCII"));
            rest = &rest[first.len_utf8()..];
        }
    }
    bytes
}

/// A way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Tcp,
    Tls,
    Unix,
}

/// A server with every way in, as processes of their own, whose memory is looked at.
struct Target {
    authority: Authority,
    client: Client,
    /// TLS, a plain address and UDP.
    server: Server,
    plain: SocketAddr,
    udp: SocketAddr,
    /// The same for a UNIX socket.
    local: Server,
    path: PathBuf,
    resident_bytes_max: u64,
}

impl Target {
    fn start() -> Self {
        let authority = Authority::new();
        let port = free_port();
        let (plain, udp) = (format!("notls:127.0.0.1:{port}"), port.to_string());
        let mut flags = authority.flags();
        flags.extend(["-m", "64", "-t", "2", "-l", &plain, "-U", &udp].map(str::to_owned));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let of_config = config(&flags);
        let most = of_config.memory_bytes + of_config.allowance_bytes();
        let server = Server::start_process(&flags);
        let path = authority.path("cache.sock");
        let local = Server::start_process_at_path(&path, &["-m", "64", "-t", "2"]);
        let client = authority.client(EITHER);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let resident_bytes_max = u64::try_from(most).expect("it fits");
        let target = Self {
            authority,
            client,
            server,
            plain: address,
            udp: address,
            local,
            path,
            resident_bytes_max,
        };
        let mut connection = target.open(Way::Tcp).expect("it serves");
        let large = format!("set large 0 0 100000\r\n{}\r\n", "v".repeat(100_000));
        connection.send(large.as_bytes()).expect("it takes a value");
        assert_eq!(connection.receive_line().expect("an answer").as_deref(), Some(&b"STORED"[..]));
        target
    }

    fn stream(&self, way: Way) -> io::Result<Box<dyn Stream>> {
        Ok(match way {
            Way::Tcp => Box::new(prepared(TcpStream::connect(self.plain)?, ANSWER_LIMIT)?),
            Way::Tls => Box::new(self.client.connect(self.server.address())?),
            Way::Unix => {
                let stream = UnixStream::connect(&self.path)?;
                stream.set_read_timeout(Some(ANSWER_LIMIT))?;
                stream.set_write_timeout(Some(ANSWER_LIMIT))?;
                Box::new(stream)
            }
        })
    }

    fn open(&self, way: Way) -> io::Result<Connection> {
        Ok(Connection::of(self.stream(way)?, ANSWER_LIMIT))
    }

    /// What must hold after each input, `name`.
    fn stands(&self, name: &str) {
        for way in [Way::Tcp, Way::Tls, Way::Unix] {
            let mut connection =
                self.open(way).unwrap_or_else(|error| panic!("after {name}: {way:?}: {error}"));
            connection.send(b"mn\r\n").unwrap();
            let answer = connection.receive_line();
            assert!(matches!(&answer, Ok(Some(line)) if line == b"MN"), "after {name}: {answer:?}");
        }
        for server in [&self.server, &self.local] {
            let resident = server.resident_bytes().expect("a process of this test");
            assert!(resident <= self.resident_bytes_max, "after {name}: {resident} bytes");
        }
    }

    /// Sends `input` and looks at what becomes of the connection.
    fn meets(&self, way: Way, (name, input, outcome): &Input) {
        let mut connection = self.open(way).unwrap();
        let mut bytes = bytes_of(input);
        let goes_on = matches!(outcome, Errors(_) | Says(_));
        if goes_on {
            bytes.extend_from_slice(b"mn\r\n");
        }
        let sent = connection.send(&bytes);
        let mut line = || -> Vec<u8> {
            let line = connection.receive_line();
            let line = line.unwrap_or_else(|error| panic!("{name} over {way:?}: {error}"));
            line.unwrap_or_else(|| panic!("{name} over {way:?}: closed"))
        };
        match outcome {
            Errors(count) => {
                for _ in 0..*count {
                    let error = line();
                    let kinds: [&[u8]; 3] = [b"ERROR", b"CLIENT_ERROR ", b"SERVER_ERROR "];
                    let is_error = kinds.iter().any(|kind| error.starts_with(kind));
                    assert!(is_error, "{name} over {way:?}: {}", error.escape_ascii());
                }
                assert_eq!(line(), b"MN", "{name} over {way:?}");
            }
            Says(text) => {
                let expected = text.split_terminator("\r\n").chain(["MN"]);
                expected.for_each(|expected| {
                    assert_eq!(line(), expected.as_bytes(), "{name} over {way:?}");
                });
            }
            Closes => {
                let rest = connection.receive_rest();
                let is_over = rest.is_ok() || sent.is_err();
                assert!(is_over, "{name} over {way:?} is to be closed: {rest:?}");
            }
            Waits => assert!(sent.is_ok(), "{name} over {way:?}: {sent:?}"),
        }
        self.stands(name);
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Reads until the end, or the reset, of a connection that is to be closed.
fn reads_until_closed(stream: &mut dyn Stream, name: &str) {
    let mut answers = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answers) {
        let kind = error.kind();
        assert!(
            !matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            "{name}: the server neither answers nor closes"
        );
    }
}

#[test]
fn malformed_lines_over_tcp() {
    let target = Target::start();
    LINES.iter().for_each(|input| target.meets(Way::Tcp, input));
}

#[test]
fn malformed_lines_over_tls() {
    let target = Target::start();
    LINES.iter().for_each(|input| target.meets(Way::Tls, input));
}

#[test]
fn malformed_lines_over_a_unix_socket() {
    let target = Target::start();
    LINES.iter().for_each(|input| target.meets(Way::Unix, input));
}

#[test]
fn datagrams_of_all_kinds() {
    let target = Target::start();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(target.udp).unwrap();
    client.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
    let mut datagram = [0; 2000];
    for (name, input, is_answered) in DATAGRAMS {
        client.send(&bytes_of(input)).unwrap();
        // A request of its own shows where the answers to the other one end.
        client.send(b"\xee\xee\x00\x00\x00\x01\x00\x00mn\r\n").unwrap();
        let mut answered_bytes = 0;
        loop {
            let count =
                client.recv(&mut datagram).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(count <= 1400, "{name}");
            if datagram[..2] == *b"\xee\xee" {
                break;
            }
            answered_bytes += count;
        }
        assert_eq!(answered_bytes > 0, *is_answered, "{name}");
        assert!(answered_bytes <= 16 * 1400 + 1400, "{name}: {answered_bytes} bytes");
        target.stands(name);
    }
}

#[test]
fn no_handshakes_where_there_should_be_one() {
    let target = Target::start();
    for (name, input) in NO_HANDSHAKES {
        let mut tcp =
            prepared(TcpStream::connect(target.server.address()).unwrap(), ANSWER_LIMIT).unwrap();
        // The server may have closed before the last of it.
        let _ = tcp.write_all(&bytes_of(input));
        let _ = tcp.shutdown(Shutdown::Write);
        reads_until_closed(&mut tcp, name);
        target.stands(name);
    }
}

#[test]
fn tls_that_goes_wrong_after_the_handshake() {
    let target = Target::start();
    let wrongs: &[(&str, &str)] = &[
        ("a plain request after the handshake", r"get k\r\n"),
        ("a record that does not decrypt", r"\x17\x03\x03\x00\x20{\xaa*32}"),
        (
            "a record longer than records are, after the handshake",
            r"\x17\x03\x03\xff\xff{\x00*70000}",
        ),
        ("half a record, then the end", r"\x17\x03\x03\x20\x00{\xaa*1000}"),
        ("a second hello", r"\x16\x03\x01\x00\x20\x01\x00\x00\x1c{\xff*28}"),
        ("a hundred alerts", r"{\x15\x03\x03\x00\x02\x01\x00*100}"),
        ("the end without a goodbye", ""),
    ];
    for (name, input) in wrongs {
        let mut stream = target.client.connect(target.server.address()).unwrap();
        stream.write_all(b"mn\r\n").unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        let _ = stream.sock.write_all(&bytes_of(input));
        let _ = stream.sock.shutdown(Shutdown::Write);
        reads_until_closed(&mut stream.sock, name);
        target.stands(name);
    }
}

#[test]
fn many_who_begin_and_do_not_go_on() {
    let target = Target::start();
    let half_record = bytes_of(r"\x16\x03\x01\x20\x00\x01\x00\x1f\xfc{\x00*8000}");
    let floods: &[(&str, Way, &[u8])] = &[
        ("400 clients that say nothing", Way::Tcp, b""),
        ("400 clients with half a line", Way::Tcp, b"get k"),
        ("400 clients that announce a value", Way::Tcp, b"set k 0 0 1000000\r\n"),
        ("400 clients over a UNIX socket with half a line", Way::Unix, b"get k"),
        ("400 handshakes that do not begin", Way::Tls, b""),
        ("400 handshakes of one byte", Way::Tls, b"\x16"),
        ("400 handshakes of half a record", Way::Tls, &half_record),
    ];
    for (name, way, begun) in floods {
        let mut open: Vec<Box<dyn Stream>> = Vec::new();
        for _ in 0..400 {
            let mut stream: Box<dyn Stream> = match way {
                Way::Tls => Box::new(TcpStream::connect(target.server.address()).unwrap()),
                way => target.stream(*way).unwrap(),
            };
            stream.write_all(begun).unwrap();
            open.push(stream);
        }
        target.stands(name);
        drop(open);
        target.stands(name);
    }
}

#[test]
fn many_who_send_half_of_a_large_value() {
    let target = Target::start();
    let half = [&b"set k 0 0 1000000\r\n"[..], &vec![b'v'; 500_000]].concat();
    for way in [Way::Tcp, Way::Tls, Way::Unix] {
        let name = format!("100 halves of a large value over {way:?}");
        let mut open = Vec::new();
        for _ in 0..100 {
            let mut stream = target.stream(way).unwrap();
            // Beyond the bound on buffers the value is refused, and read to its end all the same.
            stream.write_all(&half).unwrap();
            open.push(stream);
        }
        target.stands(&name);
    }
}

#[test]
fn answers_that_nobody_reads() {
    let target = Target::start();
    for way in [Way::Tcp, Way::Tls, Way::Unix] {
        let mut other = target.open(way).unwrap();
        let large = format!("set large 0 0 100000\r\n{}\r\n", "v".repeat(100_000));
        other.send(large.as_bytes()).unwrap();
        assert_eq!(other.receive_line().unwrap().unwrap(), b"STORED");
        let mut open = Vec::new();
        for _ in 0..40 {
            let mut stream = target.stream(way).unwrap();
            stream.write_all(&b"get large\r\n".repeat(200)).unwrap();
            open.push(stream);
        }
        target.stands(&format!("40 pipelines that nobody reads over {way:?}"));
    }
}

#[test]
fn senders_of_one_byte_at_a_time() {
    let target = Target::start();
    let requests = b"set k 0 0 5\r\nabcde\r\nget k\r\nbogus\r\nmn\r\n";
    for way in [Way::Tcp, Way::Tls, Way::Unix] {
        let mut connection = target.open(way).unwrap();
        for byte in requests {
            connection.send(std::slice::from_ref(byte)).unwrap();
            wait::pass(Duration::from_millis(1));
        }
        for expected in ["STORED", "VALUE k 0 5", "abcde", "END", "ERROR", "MN"] {
            assert_eq!(connection.receive_line().unwrap().unwrap(), expected.as_bytes());
        }
        target.stands(&format!("one byte at a time over {way:?}"));
    }
}

#[test]
fn clients_that_leave_at_every_point() {
    let target = Target::start();
    let requests = b"set k 0 0 5\r\nabcde\r\nget k\r\n";
    for way in [Way::Tcp, Way::Tls, Way::Unix] {
        for end in 0..requests.len() {
            let mut stream = target.stream(way).unwrap();
            stream.write_all(&requests[..end]).unwrap();
        }
        target.stands(&format!("leaving at every point over {way:?}"));
    }
    let hello = {
        let mut stream = target.client.begin(target.server.address()).unwrap();
        let mut hello = Vec::new();
        stream.conn.write_tls(&mut hello).unwrap();
        hello
    };
    for end in (0..hello.len()).step_by(7) {
        let mut tcp = TcpStream::connect(target.server.address()).unwrap();
        tcp.write_all(&hello[..end]).unwrap();
    }
    target.stands("leaving at every point of a handshake");
    assert!(target.authority.path("ca.pem").exists(), "the folder lasts as long as the servers");
}
