//! The program as its users run it: flags, exit codes, signals, pid file, background.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// The program, allowed to run as whoever runs the tests.
fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_cache-server"));
    program.args(["-u", "root"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    program
}

fn output(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cache-server")).args(arguments).output().unwrap()
}

fn eventually<T>(what: &str, mut get: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(value) = get() {
            return value;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

/// Asks for the version until the server is there.
fn ask(socket: &Path) -> String {
    let mut client = eventually("a socket", || UnixStream::connect(socket).ok());
    client.write_all(b"version\r\nquit\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

fn stop(mut server: Child, signal: Signal) -> ExitStatus {
    kill(Pid::from_raw(server.id().try_into().unwrap()), signal).unwrap();
    eventually("the end", || server.try_wait().unwrap())
}

#[test]
fn signals_stop_in_order_and_a_hangup_does_not() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1] {
        let folder = tempfile::tempdir().unwrap();
        let (socket, pid_file) = (folder.path().join("sock"), folder.path().join("pid"));
        let server = program().arg("-s").arg(&socket).arg("-P").arg(&pid_file).spawn().unwrap();
        assert_eq!(ask(&socket), "VERSION 1.6.45\r\n");
        assert_eq!(fs::read_to_string(&pid_file).unwrap(), format!("{}\n", server.id()));
        kill(Pid::from_raw(server.id().try_into().unwrap()), Signal::SIGHUP).unwrap();
        assert_eq!(ask(&socket), "VERSION 1.6.45\r\n");
        assert_eq!(stop(server, signal).code(), Some(0), "{signal}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{signal}: all is removed");
    }
}

#[test]
fn daemon_leaves_its_starter_and_relative_paths_still_hold() {
    let folder = tempfile::tempdir().unwrap();
    let started = program()
        .args(["-dk", "-t1", "-s", "sock", "-P", "pid"])
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert_eq!(started.code(), Some(0));
    assert_eq!(ask(&folder.path().join("sock")), "VERSION 1.6.45\r\n");
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGTERM).unwrap();
    eventually("everything removed", || {
        (fs::read_dir(folder.path()).unwrap().count() == 0).then_some(())
    });
}

#[test]
fn exit_codes_tell_usage_from_the_system() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, code, reason) in [
        (&["--no-such-flag"][..], 1, "--no-such-flag"),
        (&["-c", "0"], 1, "greater than 0"),
        (&["-B", "http"], 64, "auto, binary, or ascii"),
        (&["-u", "root", "-l", "nowhere.invalid"], 71, "nowhere.invalid"),
        (&["-I", "40m"], 64, "1/2 of memory"),
        (&["-u", "root", "-p", &port], 71, "in use"),
        (&["-u", "root", "-s", "/nonexistent/sock"], 71, "/nonexistent/sock"),
    ] {
        let output = output(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
}

#[test]
fn root_must_say_who_to_run_as() {
    if geteuid().is_root() {
        assert_eq!(output(&["-p-1"]).status.code(), Some(64));
        assert_eq!(output(&["-p-1", "-u", "no such user"]).status.code(), Some(67));
    } else {
        // Anybody else stays who they are, and -u is not looked at.
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sock");
        let server = program().args(["-u", "no such user", "-s"]).arg(&socket).spawn().unwrap();
        assert_eq!(ask(&socket), "VERSION 1.6.45\r\n");
        assert_eq!(stop(server, Signal::SIGTERM).code(), Some(0));
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let version = output(&["-V"]);
    assert_eq!(version.status.code(), Some(0));
    let expected = concat!("memcached 1.6.45\ncache-server ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(String::from_utf8(version.stdout).unwrap(), expected);
    let help = output(&["-h"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8(help.stdout).unwrap().contains("--max-reqs-per-event"));
}
