//! `cache-bench suite` as a user runs it: its report, and what keeps it from reporting.
//!
//! The suite starts servers as programs, and a test has none: so this test's own program is the server,
//! by way of a script that starts it again with one of its tests, the server's flags in the environment.

#![expect(clippy::unwrap_used, reason = "test helpers")]

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use cache_server::cli;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

const FLAGS: &str = "SUITE_TEST_SERVER_FLAGS";

/// The flags after which one of the tests below is a server; none when it was started as a test.
fn flags() -> Option<Vec<String>> {
    let flags = std::env::var(FLAGS).ok()?;
    Some(flags.split_ascii_whitespace().map(str::to_owned).collect())
}

#[test]
#[ignore = "our server, which other tests start"]
fn serve_as_ours() {
    let Some(flags) = flags() else { return };
    let line = ["cache-server".to_owned()].into_iter().chain(flags);
    let Ok(cli::Command::Serve(config)) = cli::parse_command(line.map(Into::into)) else {
        panic!("the suite gives flags that a server takes")
    };
    cache_server::process::run(&config).unwrap();
}

#[test]
#[ignore = "a server that mixes values up, which other tests start"]
fn serve_as_liar() {
    let Some(flags) = flags() else { return };
    let port = flags.iter().skip_while(|flag| *flag != "-p").nth(1).unwrap().parse().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    for stream in listener.incoming() {
        // A client that leaves ends its connection with an error; that is all there is to it.
        thread::spawn(|| lie(&stream.unwrap()));
    }
}

/// Forgets everything it is given, and gives every key the same value.
fn lie(stream: &TcpStream) -> io::Result<()> {
    let mut input = BufReader::new(stream);
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut out = stream;
        match words.as_slice() {
            ["get", key] => write!(out, "VALUE {key} 0 5\r\nwrong\r\nEND\r\n")?,
            ["set", _, _, _, bytes] => {
                input.read_exact(&mut vec![0; bytes.parse::<usize>().unwrap() + 2])?;
                out.write_all(b"STORED\r\n")?;
            }
            _ => out.write_all(b"VERSION 0.0.0-liar\r\n")?,
        }
        line.clear();
    }
    Ok(())
}

/// A folder with a program for each server, and what the suite writes.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Started by root, a server runs as somebody else.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let bench = Self { folder };
        let this = std::env::current_exe().unwrap();
        for server in ["ours", "liar"] {
            let script = format!(
                "#!/bin/sh\n[ \"$1\" = --version ] && echo {server} 1.2.3 && exit\n\
                 {FLAGS}=\"$*\" exec '{}' --exact serve_as_{server} --ignored --nocapture\n",
                this.display()
            );
            fs::write(bench.path(server), script).unwrap();
            fs::set_permissions(bench.path(server), Permissions::from_mode(0o755)).unwrap();
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the suite's quick variant: our server against `other`.
    fn suite(&self, other: &str, arguments: &[&str]) -> Output {
        let against = format!("other={}", self.path(other).display());
        Command::new(env!("CARGO_BIN_EXE_cache-bench"))
            .args(["suite", "--quick", "--no-syscalls", "--against", &against, "--ours"])
            .arg(self.path("ours"))
            .arg("--json")
            .arg(self.path("report.json"))
            .arg("--html")
            .arg(self.path("report.html"))
            .args(arguments)
            .output()
            .unwrap()
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("report.json")).unwrap()).unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn names(list: &Value, field: &str) -> Vec<String> {
    let name = |it: &Value| it[field].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(name).collect()
}

#[test]
fn quick_rows_come_to_a_report_in_three_forms() {
    let bench = Bench::new();
    let rows = "mixed,multi-get-50,set-16,open-loop,evict,memory-arc";
    let output = bench.suite("ours", &["--allow-noise", "--rows", rows]);
    assert!(output.status.success(), "{}", said(&output));
    let report = bench.report();
    assert_eq!(report["schema"], 1);
    assert_eq!(names(&report["servers"], "name"), ["ours", "other", "echo"]);
    assert_eq!(report["servers"][1]["version"], "ours 1.2.3");
    let rows: Vec<&str> = rows.split(',').collect();
    let found = names(&report["rows"], "name");
    assert!(rows.iter().all(|row| found.iter().any(|it| it == row)), "{found:?}");
    let row = |name: &str| {
        let rows = report["rows"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).unwrap()
    };
    let mixed = row("mixed");
    assert!(["measured", "noisy"].contains(&mixed["verdict"].as_str().unwrap()), "{mixed}");
    let comparisons = &mixed["measures"][0]["comparisons"];
    assert_eq!(names(comparisons, "against"), ["other", "echo"]);
    assert_eq!(comparisons[0]["rounds"].as_array().unwrap().len(), 2);
    assert!(comparisons[0]["spread"]["median"].as_f64().unwrap() > 0.0);
    assert_eq!(mixed["servers"][0]["hit_ratio"], 1.0);
    assert_eq!(names(&row("evict")["servers"], "server"), ["ours", "other"]);
    assert!(row("evict")["servers"][0]["hit_ratio"].as_f64().unwrap() < 1.0);
    assert_eq!(names(&row("open-loop")["measures"], "name"), ["p50", "p99", "p99.9"]);
    assert!(!row("open-loop")["servers"][0]["latency"].as_array().unwrap().is_empty());
    let memory = &row("memory-arc")["measures"];
    assert_eq!(names(&memory[0]["comparisons"], "against"), ["ours with lru", "other"]);
    assert!(memory[0]["values"][0]["spread"]["median"].as_f64().unwrap() > 34.0);
    assert!(fs::read_to_string(bench.path("report.html")).unwrap().contains("<svg"));
    assert!(said(&output).contains("keys per CPU second"));
}

#[test]
fn a_server_that_gives_wrong_bytes_leaves_no_report() {
    let bench = Bench::new();
    let output = bench.suite("liar", &["--allow-noise", "--rows", "mixed"]);
    let said = said(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("row mixed: other gave") && said.contains("is not its own"), "{said}");
    for file in ["report.json", "report.html"] {
        assert!(!Path::new(&bench.path(file)).exists(), "{file}");
    }
}

#[test]
fn a_machine_that_is_too_noisy_gives_no_figures() {
    let bench = Bench::new();
    // No machine is as quiet as that.
    let output = bench.suite("ours", &["--noise-max", "0", "--rows", "set"]);
    assert!(output.status.success(), "{}", said(&output));
    let row = &bench.report()["rows"][0];
    assert_eq!(row["verdict"], "too_noisy");
    assert_eq!(row["measures"].as_array().unwrap().len(), 0);
    assert_eq!(row["rounds_discarded"], 3);
    assert!(said(&output).contains("too noisy"));
}

#[test]
fn a_suite_that_is_interrupted_tells_of_the_rows_that_were_done() {
    let bench = Bench::new();
    let against = format!("other={}", bench.path("ours").display());
    let mut suite = Command::new(env!("CARGO_BIN_EXE_cache-bench"))
        .args(["suite", "--quick", "--no-syscalls", "--allow-noise", "--against", &against])
        .args(["--rows", "mixed,set", "--rounds", "20", "--output", "csv", "--ours"])
        .arg(bench.path("ours"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(suite.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(told.any(|line| line.contains("mixed: keys per CPU second")));
    let id = Pid::from_raw(suite.id().try_into().unwrap());
    signal::kill(id, Signal::SIGINT).unwrap();
    assert!(told.any(|line| line.contains("interrupted, rows done: 1")));
    let output = suite.wait_with_output().unwrap();
    assert!(!output.status.success());
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.lines().skip(1).all(|line| line.starts_with("mixed,")), "{table}");
    assert!(table.lines().count() > 1, "{table}");
}

#[test]
fn a_row_that_is_none_is_refused_with_those_there_are() {
    let output = Bench::new().suite("ours", &["--rows", "mixd"]);
    assert!(!output.status.success());
    assert!(said(&output).contains("multi-get-50"), "{}", said(&output));
}
