//! A cluster of real server processes that a test may kill, pause, stop, restart and cut off one by one.
//!
//! ```text
//! DIR/node-1/cluster/   the node's cluster directory
//!           /cache      its memory file
//!           /log        what it says, over all its lives
//!           /token      what let it join
//! ```
//!
//! The rig starts every node itself, so it has each one's command line to start it again with, and signals
//! nobody but its own children: a child keeps its process id until the rig has taken note of its end.
//! [`LocalCluster`] is what `cache-server local-cluster` starts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::cluster_rig::admin::{Location, Status};
use crate::cluster_rig::ports::Ports;
use crate::connection::Connection;
use crate::netns::Network;
use crate::program::Program;
use crate::wait;

pub mod admin;
mod ports;

/// How long a cluster may take until all shards have all copies.
const HEALTHY_LIMIT: Duration = Duration::from_secs(60);
/// How long a node may take to leave once told to: it hands its shards over first.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Ports of a node in a namespace, where it has all of them to itself.
const PORTS_ALONE: [u16; 3] = [11_211, 11_311, 11_411];

/// What a cluster is like.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Nodes to begin with.
    pub nodes: usize,
    /// `sessions` or `strict`.
    pub preset: &'static str,
    /// Copies of each shard.
    pub replicas: u8,
    /// What reads wait for: `lease`, `confirm` or `any`.
    pub reads: &'static str,
    /// Shards of the cluster.
    pub shards: u16,
    /// Each node's memory for items.
    pub memory_mib: u32,
    /// What the keys begin with that nodes evict last.
    pub protect: Option<&'static str>,
    /// Each node's worker threads.
    pub threads: u32,
    /// Whether items outlive a process, in a file.
    pub memory_file: bool,
    /// Whether nodes in namespaces speak TLS with each other.
    pub encrypted: bool,
}

impl Layout {
    /// Three nodes with two copies, both of which acknowledge.
    #[must_use]
    pub fn sessions() -> Self {
        Self {
            nodes: 3,
            preset: "sessions",
            replicas: 2,
            reads: "lease",
            shards: 64,
            memory_mib: 64,
            protect: None,
            threads: 1,
            memory_file: true,
            encrypted: false,
        }
    }

    /// Three nodes with three copies, two of which acknowledge.
    #[must_use]
    pub fn strict() -> Self {
        Self { preset: "strict", replicas: 3, ..Self::sessions() }
    }
}

/// Where nodes are.
#[derive(Debug)]
enum Ground {
    /// All on the loopback.
    Loopback(Ports),
    /// Each in a namespace.
    Apart(Network),
}

/// What a restarted node finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// The file that it had.
    Kept,
    /// None: its machine was replaced, its identity kept.
    Lost,
}

/// A node and the process that it is at the moment, if any.
#[derive(Debug)]
pub struct Node {
    /// Its id in the cluster, from 1.
    pub id: u32,
    /// Where clients find it.
    pub client: SocketAddr,
    /// Where it is administered.
    pub admin: SocketAddr,
    /// Starts it in its later lives: who it is stands in its directory.
    again: Vec<String>,
    dir: PathBuf,
    child: Option<Child>,
    is_paused: bool,
}

/// A running cluster; killed when dropped. What its nodes said is kept if the test fails.
#[derive(Debug)]
pub struct Rig {
    layout: Layout,
    ground: Ground,
    nodes: Vec<Node>,
    dir: Option<TempDir>,
}

impl Rig {
    /// Starts a cluster on the loopback and waits until it is healthy.
    ///
    /// # Panics
    /// When it does not get there.
    #[must_use]
    pub fn start(layout: &Layout) -> Self {
        let room = u16::try_from(layout.nodes + 3).expect("a handful");
        Self::found(layout, Ground::Loopback(Ports::claim(room)))
    }

    /// Starts a cluster with each node in a namespace of `network`, and waits until it is healthy.
    ///
    /// # Panics
    /// When it does not get there.
    #[must_use]
    pub fn start_apart(layout: &Layout, network: Network) -> Self {
        Self::found(layout, Ground::Apart(network))
    }

    fn found(layout: &Layout, ground: Ground) -> Self {
        let dir = TempDir::with_prefix("cluster-").expect("there is room for a cluster");
        let mut rig = Self { layout: layout.clone(), ground, nodes: Vec::new(), dir: Some(dir) };
        for _ in 0..layout.nodes {
            rig.add_node();
        }
        rig.wait_healthy(HEALTHY_LIMIT);
        rig
    }

    /// Starts one node more, which joins; its place among the nodes.
    ///
    /// # Panics
    /// When it does not join.
    pub fn add_node(&mut self) -> usize {
        let index = self.nodes.len();
        let dir = self.dir().join(format!("node-{}", index + 1));
        fs::create_dir_all(&dir).expect("a node has a folder");
        let [client, admin, peer] = self.addresses(index);
        let mut again = match &self.ground {
            Ground::Loopback(_) => Vec::new(),
            Ground::Apart(network) => network.command_in(index),
        };
        again.push(Program::Server.path().display().to_string());
        let mut say = |words: &[&str]| again.extend(words.iter().map(|&word| word.to_owned()));
        say(&["-u", "root", "-l", &client.ip().to_string(), "-p", &client.port().to_string()]);
        say(&["-m", &self.layout.memory_mib.to_string(), "-t", &self.layout.threads.to_string()]);
        if let Some(prefixes) = self.layout.protect {
            say(&["--protect", prefixes]);
        }
        if self.layout.memory_file {
            say(&["-e", &dir.join("cache").display().to_string()]);
        }
        say(&["--cluster-dir", &dir.join("cluster").display().to_string()]);
        say(&["--peer-listen", &peer.to_string(), "--admin-listen", &admin.to_string()]);
        say(&["--stop-with-parent"]);
        if matches!(self.ground, Ground::Apart(_)) && !self.layout.encrypted {
            say(&["--peer-plaintext"]);
        }
        let mut first = again.clone();
        let mut say = |words: &[&str]| first.extend(words.iter().map(|&word| word.to_owned()));
        if index == 0 {
            say(&["--init", "--pool", self.layout.preset]);
            say(&["--replicas", &self.layout.replicas.to_string()]);
            say(&["--reads", self.layout.reads]);
            say(&["--shards", &self.layout.shards.to_string()]);
        } else {
            let [_, seed_admin, seed_peer] = self.addresses(self.running()[0]);
            let token = wait::until(HEALTHY_LIMIT, || admin::token(seed_admin).ok());
            let file = dir.join("token");
            fs::write(&file, token.expect("a running node gives tokens")).expect("a token fits");
            say(&["--join", &seed_peer.to_string()]);
            say(&["--token-file", &file.display().to_string()]);
        }
        let mut node = Node { id: 0, client, admin, again, dir, child: None, is_paused: false };
        node.spawn(&first);
        self.nodes.push(node);
        let id = wait::until(HEALTHY_LIMIT, || {
            assert!(self.nodes[index].is_running(), "{}", self.last_words(index));
            admin::status(admin).ok().map(|status| status.node)
        });
        self.nodes[index].id =
            id.unwrap_or_else(|| panic!("it does not join: {}", self.last_words(index)));
        index
    }

    /// Of the node `index`: for clients, administration, peers.
    fn addresses(&self, index: usize) -> [SocketAddr; 3] {
        match &self.ground {
            Ground::Loopback(ports) => {
                let index = u16::try_from(index).expect("a handful");
                [0, 100, 200].map(|offset| {
                    SocketAddr::from((Ipv4Addr::LOCALHOST, ports.base + offset + index))
                })
            }
            Ground::Apart(network) => {
                let ip = IpAddr::from(network.address(index));
                PORTS_ALONE.map(|port| SocketAddr::from((ip, port)))
            }
        }
    }

    /// All nodes, in the order in which they were started first.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The network, if nodes are in namespaces.
    #[must_use]
    pub fn network(&self) -> Option<&Network> {
        match &self.ground {
            Ground::Loopback(_) => None,
            Ground::Apart(network) => Some(network),
        }
    }

    /// The places of nodes that run and are not paused.
    #[must_use]
    pub fn running(&self) -> Vec<usize> {
        let runs = |node: &Node| node.child.is_some() && !node.is_paused;
        (0..self.nodes.len()).filter(|&index| runs(&self.nodes[index])).collect()
    }

    /// The place of the node with this id.
    #[must_use]
    pub fn index_of(&self, id: u32) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// SIGKILL: it does nothing more, wherever it is. Returns when it is gone.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.signal(Signal::SIGKILL);
        let mut child = node.child.take().expect("it ran");
        drop(child.wait());
        node.is_paused = false;
    }

    /// SIGSTOP: it does nothing, and its connections stay. Returns when all its threads stand still: on a busy
    /// machine some go on for a while.
    ///
    /// # Panics
    /// When it does not run, or goes on.
    pub fn pause(&mut self, index: usize) {
        self.nodes[index].signal(Signal::SIGSTOP);
        let pid = self.nodes[index].child.as_ref().expect("it was sent a signal").id();
        let stopped = wait::until_promptly(STOP_LIMIT, || is_stopped(pid).then_some(()));
        assert!(stopped.is_some(), "it goes on after SIGSTOP");
        self.nodes[index].is_paused = true;
    }

    /// SIGCONT: it goes on as if nothing had happened.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume(&mut self, index: usize) {
        self.nodes[index].signal(Signal::SIGCONT);
        self.nodes[index].is_paused = false;
    }

    /// SIGHUP: it reads its files again.
    ///
    /// # Panics
    /// When it does not run.
    pub fn hang_up(&mut self, index: usize) {
        self.nodes[index].signal(Signal::SIGHUP);
    }

    /// Where a node keeps who it is.
    #[must_use]
    pub fn cluster_dir(&self, index: usize) -> PathBuf {
        self.nodes[index].dir.join("cluster")
    }

    /// Waits until a node has said `what`, in any of its lives.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_said(&self, index: usize, what: &str) {
        let has_said = || {
            let said = fs::read(self.nodes[index].log()).unwrap_or_default();
            String::from_utf8_lossy(&said).contains(what).then_some(())
        };
        let said = wait::until(STOP_LIMIT, has_said);
        assert!(said.is_some(), "it never said {what:?}: {}", self.last_words(index));
    }

    /// SIGTERM, and waits until it has handed over and left in order.
    ///
    /// # Panics
    /// When it stays, or leaves with another exit code than 0.
    pub fn stop(&mut self, index: usize) {
        self.nodes[index].signal(Signal::SIGTERM);
        let status = wait::until(STOP_LIMIT, || self.nodes[index].ended());
        let status =
            status.unwrap_or_else(|| panic!("it stays after SIGTERM: {}", self.last_words(index)));
        assert!(status.success(), "it left with {status}: {}", self.last_words(index));
        self.nodes[index].child = None;
    }

    /// Starts a node again that was killed or stopped. Does not wait for it.
    ///
    /// # Panics
    /// When it runs.
    pub fn restart(&mut self, index: usize, memory: Memory) {
        let node = &mut self.nodes[index];
        assert!(node.child.is_none(), "a node has one process at a time");
        if memory == Memory::Lost {
            node.lose_memory();
        }
        let again = node.again.clone();
        node.spawn(&again);
    }

    /// How the node at `index` sees the cluster, if it answers.
    #[must_use]
    pub fn status(&self, index: usize) -> Option<Status> {
        admin::status(self.nodes[index].admin).ok()
    }

    /// Where `key` is, as the first running node that answers has it.
    #[must_use]
    pub fn locate(&self, key: &str) -> Option<Location> {
        self.running()
            .into_iter()
            .find_map(|index| admin::locate(self.nodes[index].admin, key).ok())
    }

    /// The place of the node that serves `key`.
    #[must_use]
    pub fn primary_of(&self, key: &str) -> Option<usize> {
        self.locate(key)?.primary.and_then(|id| self.index_of(id))
    }

    /// The place of the node that leads the control plane.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let leader = |index: usize| self.status(index)?.leader;
        self.running().into_iter().find_map(leader).and_then(|id| self.index_of(id))
    }

    /// Whether every running node finds nothing amiss and serves all shards with all copies.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.running().into_iter().all(|index| {
            self.status(index).is_some_and(|status| {
                status.is_healthy
                    && status.shards > 0
                    && status.shards_serving == status.shards
                    && status.shards_short == 0
            })
        })
    }

    /// Waits until [`Self::is_healthy`]; how long it took.
    ///
    /// # Panics
    /// When it does not get there within `limit`, or a node ends meanwhile.
    pub fn wait_healthy(&mut self, limit: Duration) -> Duration {
        let clock = wait::Stopwatch::start();
        let healthy = wait::until(limit, || {
            self.assert_alive();
            self.is_healthy().then_some(())
        });
        if healthy.is_none() {
            let words: Vec<String> = (0..self.nodes.len())
                .map(|index| format!("{:?}\n{}", self.status(index), self.last_words(index)))
                .collect();
            panic!("not healthy after {limit:?}:\n{}", words.join("\n"));
        }
        clock.elapsed()
    }

    /// What the node at `index` counts as a node of a cluster: those of its `stats cluster` that are numbers. None
    /// when it does not answer.
    #[must_use]
    pub fn counts(&self, index: usize) -> BTreeMap<String, u64> {
        let ask = || -> io::Result<BTreeMap<String, u64>> {
            let mut connection = Connection::open(self.nodes[index].client)?;
            connection.send(b"stats cluster\r\n")?;
            let mut counts = BTreeMap::new();
            while let Some(line) = connection.receive_line()? {
                let line = String::from_utf8_lossy(&line).into_owned();
                let mut words = line.split_whitespace();
                let (Some("STAT"), Some(name), Some(value)) =
                    (words.next(), words.next(), words.next())
                else {
                    break;
                };
                if let Ok(value) = value.parse() {
                    counts.insert(name.to_owned(), value);
                }
            }
            Ok(counts)
        };
        ask().unwrap_or_default()
    }

    /// The last line with `what` in it that the node at `index` has said in any of its lives.
    #[must_use]
    pub fn last_line_with(&self, index: usize, what: &str) -> Option<String> {
        let said = fs::read(self.nodes[index].log()).ok()?;
        let said = String::from_utf8_lossy(&said);
        said.lines().rfind(|line| line.contains(what)).map(str::to_owned)
    }

    /// # Panics
    /// When a node that was neither killed nor stopped has ended.
    pub fn assert_alive(&mut self) {
        for index in self.running() {
            if let Some(status) = self.nodes[index].ended() {
                panic!("node {} ended with {status}: {}", index + 1, self.last_words(index));
            }
        }
    }

    /// The end of what the node at `index` said.
    #[must_use]
    pub fn last_words(&self, index: usize) -> String {
        const LINES_MAX: usize = 25;
        let said = fs::read(self.nodes[index].log()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        let end = &lines[lines.len().saturating_sub(LINES_MAX)..];
        format!("node {} said:\n  {}", index + 1, end.join("\n  "))
    }

    fn dir(&self) -> &Path {
        self.dir.as_ref().expect("it is there until the end").path()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                // Both fail only if it has already ended, which is what is wanted.
                drop(child.kill());
                drop(child.wait());
            }
        }
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            #[expect(clippy::print_stderr, reason = "who looks into a failure wants the logs")]
            {
                eprintln!("what the nodes said is kept in {}", dir.keep().display());
            }
        }
    }
}

impl Node {
    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn spawn(&mut self, words: &[String]) {
        let log = File::options().create(true).append(true).open(self.log());
        let log = log.expect("a node can log");
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {words:?}: {error}"));
        (self.child, self.is_paused) = (Some(child), false);
    }

    /// Removes the memory file and what lies beside it under its name.
    fn lose_memory(&self) {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for entry in
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("cache"))
        {
            fs::remove_file(entry.path()).expect("a memory file can be removed");
        }
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("only a node that runs is sent a signal");
        let process = i32::try_from(child.id()).expect("a process id");
        kill(Pid::from_raw(process), signal).unwrap_or_else(|error| panic!("{signal}: {error}"));
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    fn is_running(&mut self) -> bool {
        self.child.is_some() && self.ended().is_none()
    }
}

/// A cluster as `cache-server local-cluster` starts it, and stops it when told to.
#[derive(Debug)]
pub struct LocalCluster {
    child: Child,
    said: PathBuf,
    /// As `cluster.json` lists them.
    pub nodes: Vec<ListedNode>,
    _ports: Ports,
    _dir: TempDir,
}

/// A node in `cluster.json`.
#[derive(Debug, Clone)]
pub struct ListedNode {
    /// Its id in the cluster.
    pub id: u32,
    /// Its process.
    pub pid: u32,
    /// Where clients find it.
    pub client: SocketAddr,
    /// Where it is administered.
    pub admin: SocketAddr,
}

impl LocalCluster {
    /// Starts one and waits until it says where its nodes are.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start(layout: &Layout) -> Self {
        let dir = TempDir::with_prefix("local-cluster-").expect("there is room for a cluster");
        let ports = Ports::claim(u16::try_from(layout.nodes).expect("a handful"));
        let said = dir.path().join("said");
        let folder = dir.path().join("cluster");
        let mut command = Command::new(Program::Server.path());
        command.args(["local-cluster", "--nodes", &layout.nodes.to_string()]);
        command.args(["--replicas", &layout.replicas.to_string(), "--preset", layout.preset]);
        command.args(["--reads", layout.reads]);
        command.args(["--base-port", &ports.base.to_string(), "--dir"]).arg(&folder);
        command.args(["--memory", &layout.memory_mib.to_string()]);
        let log = File::create(&said).expect("it can log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().expect("the server starts");
        let nodes = wait::until(HEALTHY_LIMIT, || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("it ended with {status}: {}", fs::read_to_string(&said).unwrap_or_default());
            }
            read_list(&folder.join("cluster.json")).ok()
        });
        let Some(nodes) = nodes else {
            drop(child.kill());
            panic!("it does not serve: {}", fs::read_to_string(&said).unwrap_or_default())
        };
        Self { child, said, nodes, _ports: ports, _dir: dir }
    }

    /// Whether every listed process is a child of the one that was started.
    #[must_use]
    pub fn owns_its_nodes(&self) -> bool {
        self.nodes.iter().all(|node| parent_of(node.pid) == Some(self.child.id()))
    }

    /// SIGINT, as Ctrl-C sends it, and waits until it has left with all its nodes.
    ///
    /// # Panics
    /// When something stays.
    pub fn stop(mut self) {
        let process = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(process), Signal::SIGINT).expect("it runs");
        let status = wait::until(STOP_LIMIT, || self.child.try_wait().ok().flatten());
        let said = || fs::read_to_string(&self.said).unwrap_or_default();
        let status = status.unwrap_or_else(|| panic!("it stays: {}", said()));
        assert!(status.success(), "it left with {status}: {}", said());
        let left: Vec<&ListedNode> =
            self.nodes.iter().filter(|node| parent_of(node.pid).is_some()).collect();
        assert!(left.is_empty(), "{left:?} stay");
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        // Fails only if it has already left. Its nodes end with it: `--stop-with-parent`.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether every thread of a process stands still, as `proc_pid_stat(5)` has it: state `T`.
fn is_stopped(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        // A thread that ended meanwhile does nothing more.
        let Ok(stat) = fs::read_to_string(thread.path().join("stat")) else { return true };
        stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('T'))
    })
}

/// The parent of a process, if it runs.
fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn read_list(path: &Path) -> io::Result<Vec<ListedNode>> {
    let list: Value = serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)?;
    let wrong = || io::Error::other(format!("that lists no nodes: {list}"));
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let address = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
    let nodes = list["nodes"].as_array().ok_or_else(wrong)?;
    let listed = nodes.iter().map(|node| {
        Some(ListedNode {
            id: number(&node["id"])?,
            pid: number(&node["pid"])?,
            client: address(&node["client"])?,
            admin: address(&node["admin"])?,
        })
    });
    listed.collect::<Option<Vec<_>>>().ok_or_else(wrong)
}
