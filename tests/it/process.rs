//! The program as a process: how it starts, stops, and answers the shell.

use std::process::Command;

use tests::connection::Connection;
use tests::program::Program;
use tests::server::Server;

#[test]
fn told_to_stop_it_closes_connections_and_exits_with_0() {
    for signal in ["TERM", "INT"] {
        let server = Server::start_process(&[]);
        let mut client = Connection::open(server.address()).unwrap();
        client.send(b"set k 0 0 1\r\na\r\n").unwrap();
        assert_eq!(client.receive_line().unwrap().as_deref(), Some(b"STORED".as_slice()));
        let status = server.stop_with(signal);
        assert_eq!(status.code(), Some(0), "after {signal}");
        assert_eq!(client.receive_line().unwrap(), None, "after {signal}");
    }
}

#[test]
fn version_and_help_are_told_and_nothing_is_served() {
    for flag in ["-V", "--version", "-h", "--help"] {
        let output = Command::new(Program::Server.path()).arg(flag).output().unwrap();
        assert!(output.status.success(), "{flag}");
        assert!(!output.stdout.is_empty(), "{flag}");
    }
}

#[test]
fn a_flag_it_does_not_know_is_refused_before_anything_is_served() {
    let output = Command::new(Program::Server.path()).arg("--no-such-flag").output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--no-such-flag"));
}
