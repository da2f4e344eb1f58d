//! `cache-server local-cluster` as its users run it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn program(arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_cache-server"));
    program.arg("local-cluster").args(arguments).stdin(Stdio::null());
    program
}

fn output(arguments: &[&str]) -> Output {
    program(arguments).output().unwrap()
}

/// Why `arguments` are refused, and with which exit code.
fn refusal(arguments: &[&str]) -> (Option<i32>, String) {
    let output = output(arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn bad_usage_is_64_and_help_is_no_failure() {
    let help = output(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8(help.stdout).unwrap();
    for flag in ["--nodes", "--replicas", "--preset", "--dir", "--base-port", "--memory"] {
        assert!(text.contains(flag), "{flag}: {text}");
    }
    for arguments in [&[][..], &["--dir", "d", "--nodes", "1"], &["--dir", "d", "-p", "1"]] {
        assert_eq!(refusal(arguments).0, Some(64), "{arguments:?}");
    }
}

#[test]
fn ports_and_folders_of_others_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, said) = refusal(&["--dir", dir, "--base-port", &port]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("port {port}, for clients of node 1")), "{said}");
    fs::write(folder.path().join("diary"), "dear").unwrap();
    let (code, said) = refusal(&["--dir", dir]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("diary"), "{said}");
    assert!(!folder.path().join("node-1").exists(), "nothing was started");
}

/// A local cluster; told to stop when dropped, and killed if it stays.
struct LocalCluster(Child);

impl LocalCluster {
    fn start(dir: &Path, base_port: u16, more: &[&str]) -> Self {
        let mut command = program(&["--shards", "64", "--memory", "16", "--threads", "1"]);
        command.arg("--dir").arg(dir).args(["--base-port", &base_port.to_string()]).args(more);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// The list of nodes, once there is one.
    fn nodes(&mut self, dir: &Path) -> Vec<Value> {
        let list = eventually("cluster.json", || {
            if let Some(status) = self.0.try_wait().unwrap() {
                let logs = (1..=9).map(|node| dir.join(format!("node-{node}/log")));
                let logs: Vec<_> = logs.filter_map(|log| fs::read_to_string(log).ok()).collect();
                panic!("it ended with {status}:\n{}", logs.join("\n"));
            }
            fs::read(dir.join("cluster.json")).ok()
        });
        let list: Value = serde_json::from_slice(&list).expect("it is there whole or not at all");
        list["nodes"].as_array().unwrap().clone()
    }

    fn stop(&mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
        eventually("the end", || self.0.try_wait().unwrap())
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        // Killed, it takes its nodes along.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn eventually<T>(what: &str, mut get: impl FnMut() -> Option<T>) -> T {
    for _ in 0..6000 {
        if let Some(value) = get() {
            return value;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

/// Sends `request` to a node and returns the first line of its answer.
fn ask(node: &Value, request: &str) -> String {
    let stream = TcpStream::connect(node["client"].as_str().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (&stream).write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

fn runs(node: &Value) -> bool {
    let pid = node["pid"].as_i64().unwrap();
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn nodes_serve_together_go_on_without_one_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mut cluster = LocalCluster::start(dir, 21_311, &[]);
    let nodes = cluster.nodes(dir);
    assert_eq!(nodes.len(), 3);
    assert_eq!(nodes[2]["id"], 3);
    assert_eq!(nodes[2]["client"], "127.0.0.1:21313");
    assert_eq!(nodes[2]["admin"], "127.0.0.1:21413");
    assert_eq!(nodes[2]["peer"], "127.0.0.1:21513");
    for (writer, reader) in [(0, 1), (1, 2), (2, 0)] {
        let stored = ask(&nodes[writer], &format!("set k{writer} 0 0 1\r\na\r\n"));
        assert_eq!(stored, "STORED\r\n");
        let found = ask(&nodes[reader], &format!("get k{writer}\r\n"));
        assert_eq!(found, format!("VALUE k{writer} 0 1\r\n"));
    }
    kill(Pid::from_raw(nodes[2]["pid"].as_i64().unwrap().try_into().unwrap()), Signal::SIGKILL)
        .unwrap();
    eventually("the keys elsewhere", || {
        let is_found = |key: &u32| ask(&nodes[0], &format!("get k{key}\r\n")).starts_with("VALUE");
        let found = (0..3).filter(is_found);
        (found.count() == 3).then_some(())
    });
    assert!(runs(&nodes[0]) && runs(&nodes[1]) && !runs(&nodes[2]));
    assert_eq!(cluster.stop(Signal::SIGINT).code(), Some(0));
    assert!(!nodes.iter().any(runs));
    assert!(!dir.join("cluster.json").exists());

    let mut again = LocalCluster::start(dir, 21_311, &[]);
    let nodes = again.nodes(dir);
    for key in 0..3 {
        assert_eq!(ask(&nodes[0], &format!("get k{key}\r\n")), format!("VALUE k{key} 0 1\r\n"));
    }
    assert_eq!(again.stop(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn a_node_is_started_again_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mut cluster = LocalCluster::start(dir, 22_311, &["--restart"]);
    let nodes = cluster.nodes(dir);
    kill(Pid::from_raw(nodes[0]["pid"].as_i64().unwrap().try_into().unwrap()), Signal::SIGKILL)
        .unwrap();
    let restarted = eventually("another process", || {
        let now = cluster.nodes(dir);
        (now[0]["pid"] != nodes[0]["pid"]).then_some(now)
    });
    assert_eq!(restarted[1]["pid"], nodes[1]["pid"]);
    eventually("its service", || {
        let stream = TcpStream::connect(restarted[0]["client"].as_str().unwrap());
        stream.ok().map(|_| ())
    });
    assert_eq!(cluster.stop(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn nodes_end_with_whoever_started_them() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mut cluster = LocalCluster::start(dir, 23_311, &[]);
    let nodes = cluster.nodes(dir);
    assert!(nodes.iter().all(runs));
    drop(cluster);
    eventually("the end of all nodes", || (!nodes.iter().any(runs)).then_some(()));
}
