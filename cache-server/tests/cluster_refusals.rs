//! Nodes that a cluster does not take: each says why, ends with a code that is not 0, and changes nothing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// A node: its folder, and where it listens for clients, administration and peers.
struct Place {
    dir: PathBuf,
    ports: Cell<[u16; 3]>,
}

/// Ports that were free a moment ago: a connection of another test may have one of them by the time it is wanted.
fn free_ports() -> [u16; 3] {
    let free = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    free.map(|listener| listener.local_addr().unwrap().port())
}

impl Place {
    fn new(folder: &Path, name: &str) -> Self {
        Self { dir: folder.join(name), ports: Cell::new(free_ports()) }
    }

    fn command(&self, more: &[&str]) -> Command {
        let [client, admin, peer] = self.ports.get();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cache-server"));
        command.args([
            "-u",
            "root",
            "-m",
            "16",
            "-t",
            "1",
            "-l",
            "127.0.0.1",
            "--stop-with-parent",
        ]);
        command.args(["-p", &client.to_string(), "--cluster-dir"]).arg(&self.dir);
        command.args(["--admin-listen", &format!("127.0.0.1:{admin}")]);
        command.args(["--peer-listen", &format!("127.0.0.1:{peer}")]);
        command.args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn start(&self, more: &[&str]) -> Running {
        for _ in 0..3 {
            let mut running = self.spawn(more);
            let answered = eventually("an answer on the admin port", || {
                let answers = || self.admin("GET", "status", None).map(|_| true);
                let is_over = || running.child.try_wait().unwrap().map(|_| false);
                answers().or_else(is_over)
            });
            if answered {
                return running;
            }
            assert!(running.said().contains("Address already in use"), "{}", running.said());
            self.ports.set(free_ports());
        }
        panic!("no ports are to be had");
    }

    /// Starts it and does not wait until it serves.
    fn spawn(&self, more: &[&str]) -> Running {
        let log = self.dir.with_extension("log");
        let said = File::create(&log).unwrap();
        Running { child: self.command(more).stderr(said).spawn().unwrap(), log }
    }

    /// What a node says that does not start, and with which code it ends.
    fn refusal(&self, more: &[&str]) -> (i32, String) {
        let child = self.command(more).spawn().unwrap();
        let Output { status, stderr, .. } = child.wait_with_output().unwrap();
        (status.code().unwrap(), String::from_utf8(stderr).unwrap())
    }

    fn admin(&self, method: &str, what: &str, body: Option<Value>) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}/cluster/{what}", self.ports.get()[1]);
        let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
        let answer = match method {
            "GET" => agent.get(url).call(),
            _ => agent.post(url).send_json(body.unwrap_or_default()),
        };
        answer.ok()?.body_mut().read_json().ok()
    }

    fn token(&self) -> String {
        let token = || self.admin("POST", "token", Some(json!({ "ttl_s": 60 })));
        eventually("a token", token)["token"].as_str().unwrap().to_owned()
    }

    fn seed(&self) -> String {
        format!("127.0.0.1:{}", self.ports.get()[2])
    }

    fn nodes(&self) -> usize {
        self.admin("GET", "status", None).unwrap()["nodes"].as_array().unwrap().len()
    }

    fn has_identity(&self) -> bool {
        self.dir.join("node.json").exists()
    }
}

/// A process that is killed when dropped, and what it says.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn says(&self, what: &str) {
        eventually(what, || self.said().contains(what).then_some(()));
    }

    /// With which code it ends.
    fn ended(&mut self) -> i32 {
        let status = eventually("its end", || self.child.try_wait().unwrap());
        status.code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn eventually<T>(what: &str, mut get: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3_000 {
        if let Some(value) = get() {
            return value;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    panic!("never: {what}");
}

fn assert_refused((code, said): (i32, String), why: &str) {
    assert!(code != 0 && said.contains(why), "ended with {code}: {said}");
}

#[test]
fn a_directory_is_founded_in_once() {
    let folder = tempfile::tempdir().unwrap();
    let founder = Place::new(folder.path(), "founder");
    let again = Place { dir: founder.dir.clone(), ..Place::new(folder.path(), "unused") };
    let running = founder.start(&["--init", "--shards", "64"]);
    let node_file = || fs::read(founder.dir.join("node.json")).unwrap();
    assert_refused(again.refusal(&["--init"]), "another process uses the cluster directory");
    drop(running);
    let before = node_file();
    assert_refused(again.refusal(&["--init"]), "belongs to node 1 of cluster");
    assert_eq!(node_file(), before);
}

#[test]
fn who_has_no_good_token_or_seed_is_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let founder = Place::new(folder.path(), "founder");
    let _running = founder.start(&["--init", "--shards", "64"]);
    let stranger = Place::new(folder.path(), "stranger");
    let (token, seed) = (founder.token(), founder.seed());
    let join = |seed: &str, token: &str| stranger.refusal(&["--join", seed, "--token", token]);
    assert_refused(join(&seed, "nonsense"), "that is no join token");
    let unknown: String = token.chars().rev().collect();
    assert_refused(join(&seed, &unknown), "the join token is not known");
    let nobody = Place::new(folder.path(), "nobody").seed();
    assert_refused(join(&nobody, &token), &format!("{nobody}: cannot connect"));
    assert_refused(stranger.refusal(&["--init", "--pool", "gold"]), "known are sessions, strict");
    assert_refused(stranger.refusal(&[]), "holds no node");
    assert!(!stranger.has_identity());
    assert_eq!(founder.nodes(), 1);
}

#[test]
fn a_token_lets_one_node_in_and_a_removed_node_stays_out() {
    let folder = tempfile::tempdir().unwrap();
    let founder = Place::new(folder.path(), "founder");
    let _running = founder.start(&["--init", "--shards", "64"]);
    let second = Place::new(folder.path(), "second");
    let (token, seed) = (founder.token(), founder.seed());
    let join = ["--join", seed.as_str(), "--token", token.as_str()];
    let running = second.start(&join);
    let third = Place::new(folder.path(), "third");
    assert_refused(third.refusal(&join), "the join token is not known: it was used already");
    assert!(!third.has_identity());
    drop(running);
    let body = json!({ "node": 2, "force": true });
    founder.admin("POST", "remove", Some(body)).expect("it is removed");
    assert_refused(second.refusal(&[]), "was removed");
    assert_eq!(founder.nodes(), 1);
}

#[test]
fn a_directory_of_one_cluster_joins_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| Place::new(folder.path(), name));
    let _clusters = [&one, &other].map(|founder| founder.start(&["--init", "--shards", "64"]));
    let node = Place::new(folder.path(), "node");
    let (token, seed) = (one.token(), one.seed());
    let join = ["--join", seed.as_str(), "--token", token.as_str()];
    drop(node.start(&join));
    let node_file = || fs::read(node.dir.join("node.json")).unwrap();
    let before = node_file();
    let (token, seed) = (other.token(), other.seed());
    let (code, said) = node.refusal(&["--join", &seed, "--token", &token]);
    assert_refused((code, said.clone()), "belongs to node 2 of cluster");
    assert_refused((code, said), "and the seeds are of cluster");
    assert_eq!(node_file(), before);
    assert_eq!(other.nodes(), 1);
    // Its own it goes on in, and where no seed answers it does not wait for one.
    drop(node.start(&join));
    let nobody = Place::new(folder.path(), "nobody").seed();
    node.start(&["--join", &nobody, "--token", &token]).says("no seed says which cluster");
}

#[test]
fn a_seed_that_never_answers_is_waited_for_until_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let seed = silent.local_addr().unwrap().to_string();
    let joiner = Place::new(folder.path(), "joiner");
    let token = "0".repeat(32);
    let refusal = joiner.refusal(&["--join", &seed, "--token", &token]);
    assert_refused(refusal, &format!("no seed let this node in: {seed}: no answer within 2s"));
    assert!(!joiner.has_identity());
}

#[test]
fn a_node_that_waits_for_the_others_ends_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let founder = Place::new(folder.path(), "founder");
    let founding = founder.start(&["--init", "--shards", "64"]);
    let second = Place::new(folder.path(), "second");
    let (token, seed) = (founder.token(), founder.seed());
    let memory = folder.path().join("memory");
    let memory = ["-e", memory.to_str().unwrap()];
    drop(second.start(&[&["--join", &seed, "--token", &token], &memory[..]].concat()));
    drop(founding);
    let mut waiting = second.spawn(&memory);
    waiting.says("waiting for the control plane");
    waiting.signal(Signal::SIGTERM);
    assert_eq!(waiting.ended(), 0, "{}", waiting.said());
    assert!(waiting.said().contains("SIGTERM: stopping before it served"), "{}", waiting.said());
}

#[test]
fn a_node_that_is_removed_while_it_runs_ends() {
    let folder = tempfile::tempdir().unwrap();
    let founder = Place::new(folder.path(), "founder");
    let _running = founder.start(&["--init", "--shards", "64"]);
    let second = Place::new(folder.path(), "second");
    let (token, seed) = (founder.token(), founder.seed());
    let mut running = second.start(&["--join", &seed, "--token", &token]);
    founder.admin("POST", "remove", Some(json!({ "node": 2, "force": true }))).expect("removed");
    assert_eq!(running.ended(), 0, "{}", running.said());
    assert!(
        running.said().contains("this node was removed from its cluster"),
        "{}",
        running.said()
    );
}
