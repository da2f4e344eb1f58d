//! Clients that have to say who they are, by text and over SASL.

use std::net::SocketAddr;
use std::path::PathBuf;

use cache_server::config::Authentication;
use cache_server::{Config, Listen, Server};
use tests::connection::Connection;
use tests::frame;

const USERS: &str = "foo:bar\nalice:a secret\n";

/// A server that asks, and the file that says whom it knows.
struct Asking {
    server: Server,
    _folder: tempfile::TempDir,
}

impl Asking {
    fn start(authentication: impl FnOnce(PathBuf) -> Authentication) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        std::fs::write(&path, USERS).unwrap();
        let authentication = authentication(path);
        let listen = vec![Listen::loopback(0)];
        let config = Config { listen, authentication, ..Config::default() };
        Self { server: Server::start(&config).unwrap(), _folder: folder }
    }

    fn in_text() -> Self {
        Self::start(Authentication::File)
    }

    fn over_sasl() -> Self {
        Self::start(|path| Authentication::Sasl { password_file: Some(path) })
    }

    fn address(&self) -> SocketAddr {
        self.server.address().unwrap()
    }

    fn client(&self) -> Client {
        Client(Connection::open(self.address()).unwrap())
    }
}

struct Client(Connection);

impl Client {
    /// What `text` is answered with, in lines.
    fn line(&mut self, text: &str) -> String {
        self.0.send(text.as_bytes()).unwrap();
        match self.0.receive_line().unwrap() {
            Some(line) => String::from_utf8(line).unwrap(),
            None => "closed".into(),
        }
    }

    /// What a request is answered with, both [in words](frame).
    fn frame(&mut self, request: &[u8]) -> String {
        self.0.send(&frame::encode(request).unwrap()).unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        match self.0.receive_frame().unwrap() {
            Some(answer) => String::from_utf8(answer).unwrap(),
            None => "closed".into(),
        }
    }

    fn stat(&mut self, name: &str) -> String {
        let mut answer = self.frame(b"stat");
        let mut found = String::new();
        while answer != "stat" {
            if let Some(value) = answer.strip_prefix(&format!("stat key={name} value=")) {
                found = value.to_owned();
            }
            answer = self.answer();
        }
        found
    }
}

#[test]
fn in_text_the_first_set_says_who_a_client_is() {
    let asking = Asking::in_text();
    let mut client = asking.client();
    assert_eq!(client.line("get foo\r\n"), "CLIENT_ERROR unauthenticated");
    assert_eq!(client.line("mg foo v\r\n"), "CLIENT_ERROR unauthenticated");
    let bad_format = "CLIENT_ERROR bad authentication token format";
    assert_eq!(client.line("set foo 0 0 2\r\nhi\r\n"), bad_format);
    assert_eq!(client.line("set foo 0 0 7\r\nfoo bab\r\n"), "CLIENT_ERROR authentication failure");
    assert_eq!(client.line("set foo 0 0 2147483646\r\n"), "CLIENT_ERROR auth token too long");
    assert_eq!(client.line("set x 0 0 14\r\nalice a secret\r\n"), "STORED");
    assert_eq!(client.line("get x\r\n"), "END", "what was sent is no item");
    assert_eq!(client.line("set x 0 0 2\r\nhi\r\n"), "STORED");
    assert_eq!(client.line("get x\r\n"), "VALUE x 0 2");
}

#[test]
fn in_text_a_client_may_go_on_in_one_breath() {
    let asking = Asking::in_text();
    let mut client = asking.client();
    assert_eq!(client.line("set x 0 0 7\r\nfoo bar\r\nmn\r\nset y 0 0 1\r\na\r\n"), "STORED");
    assert_eq!(client.line(""), "MN");
    assert_eq!(client.line(""), "STORED");
}

#[test]
fn in_text_it_does_not_matter_how_credentials_are_cut() {
    let asking = Asking::in_text();
    let input = b"set x 0 0 7\r\nfoo bar\r\nmn\r\n";
    for cut in 1..input.len() {
        let mut client = asking.client();
        client.0.send(&input[..cut]).unwrap();
        tests::wait::pass(std::time::Duration::from_millis(2));
        client.0.send(&input[cut..]).unwrap();
        assert_eq!((client.line(""), client.line("")), ("STORED".into(), "MN".into()), "{cut}");
    }
}

#[test]
fn in_text_there_are_no_frames_to_come_in_by() {
    let asking = Asking::in_text();
    let mut client = asking.client();
    client.0.send(&frame::encode(b"get key=k").unwrap()).unwrap();
    assert_eq!(client.line("\r\n"), "CLIENT_ERROR unauthenticated");
}

#[test]
fn in_text_what_cannot_be_a_set_closes() {
    let asking = Asking::in_text();
    assert_eq!(asking.client().line("mn\r\n"), "closed");
    assert_eq!(asking.client().line(&"x".repeat(2049)), "closed");
}

const ALICE: &[u8] = b"saslauth key=PLAIN value=\0alice\0a secret";
const REFUSED: &str = "saslauth 0x20 value=Auth failure.";

#[test]
fn over_sasl_plain_lets_a_client_in() {
    let asking = Asking::over_sasl();
    let mut client = asking.client();
    assert_eq!(client.frame(b"version"), "version value=1.6.45");
    assert_eq!(client.frame(b"sasllist"), "sasllist value=PLAIN");
    assert_eq!(client.frame(b"saslauth key=PLAIN value=\0alice\0wrong"), REFUSED);
    assert_eq!(client.frame(b"saslauth key=CRAM-MD5"), REFUSED);
    let too_long = [b"saslauth key=", &[b'X'; 33][..]].concat();
    assert_eq!(client.frame(&too_long), "saslauth 0x4 value=Invalid arguments");
    assert_eq!(client.frame(ALICE), "saslauth value=Authenticated");
    assert_eq!(client.frame(b"get opaque=1 key=k"), "get 0x1 opaque=1 value=Not found");
    assert_eq!(client.stat("auth_cmds"), "3");
    assert_eq!(client.stat("auth_errors"), "2");
}

#[test]
fn over_sasl_the_message_may_come_in_a_second_step() {
    let asking = Asking::over_sasl();
    let mut client = asking.client();
    assert_eq!(client.frame(b"saslauth key=PLAIN"), "saslauth 0x21");
    let step = b"saslstep key=PLAIN value=\0alice\0a secret";
    assert_eq!(client.frame(step), "saslstep value=Authenticated");
    assert_eq!(client.frame(b"noop"), "noop");
    let mut hasty = asking.client();
    assert_eq!(hasty.frame(step), "saslstep 0x20 value=Auth failure.");
}

#[test]
fn over_sasl_a_client_that_is_not_known_is_told_so_and_closed() {
    let asking = Asking::over_sasl();
    for request in [&b"get opaque=5 key=k"[..], b"noop", b"flush", b"0x99", b"quit"] {
        let mut client = asking.client();
        assert!(client.frame(request).contains(" 0x20"), "{}", request.escape_ascii());
        assert_eq!(client.answer(), "closed");
    }
    let mut client = asking.client();
    assert_eq!(client.frame(b"set body=1000000 key=k extras=0,0"), "set 0x20 value=Auth failure.");
    assert_eq!(client.answer(), "closed", "the value is not waited for");
}

#[test]
fn over_sasl_whoever_fails_again_is_out() {
    let asking = Asking::over_sasl();
    let mut client = asking.client();
    assert_eq!(client.frame(ALICE), "saslauth value=Authenticated");
    // In one breath, so that both are decoded before either is carried out.
    let requests = [
        frame::encode(b"saslauth key=PLAIN value=\0alice\0wrong").unwrap(),
        frame::encode(b"set key=k extras=0,0 value=a").unwrap(),
    ];
    client.0.send(&requests.concat()).unwrap();
    assert_eq!(client.answer(), REFUSED);
    assert_eq!(client.answer(), "set 0x20 value=Auth failure.");
    assert_eq!(client.answer(), "closed");
    let mut client = asking.client();
    assert_eq!(client.frame(ALICE), "saslauth value=Authenticated");
    assert_eq!(client.frame(b"get key=k"), "get 0x1 value=Not found");
}

#[test]
fn over_sasl_there_are_no_lines_to_come_in_by() {
    let asking = Asking::over_sasl();
    assert_eq!(asking.client().line("get k\r\n"), "closed");
}
