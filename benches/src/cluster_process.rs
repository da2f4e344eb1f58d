//! A cluster under test: `cache-server local-cluster` as a child, its nodes found, watched, ended.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use std::{fs, io, thread};

use cache_ctl::admin::model::Map;
use cache_ctl::admin::{Admin, AdminError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64;

use crate::interrupt::{Interrupt, Interrupted};
use crate::{clock, cores};

/// How long the nodes may take until every one of them serves its shards.
const START_MAX: Duration = Duration::from_secs(120);
/// How long they may take to leave before they are killed.
const STOP_MAX: Duration = Duration::from_secs(45);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
const ADMIN_MAX: Duration = Duration::from_secs(5);
/// Ports of the nodes for administration and for each other lie this far and twice as far above.
const PORT_OFFSET: u16 = 100;
/// Ports that this machine gives to nobody by itself, on Linux as it comes.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// How to start a cluster.
#[derive(Clone, Debug)]
pub struct ClusterLaunch {
    /// The executable of our server.
    pub program: PathBuf,
    /// How many nodes.
    pub nodes: u16,
    /// Copies of each shard, all of which acknowledge a write.
    pub copies: u8,
    /// Worker threads of each node.
    pub threads: usize,
    /// How much each node may hold, in MiB.
    pub memory_mib: u64,
    /// The cores they may run on; none named means any.
    pub cores: Vec<usize>,
}

/// Why a cluster did not come up, or cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// It could not be started at all.
    #[error("cannot start {}", program.display())]
    Start {
        /// The executable.
        program: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// It ended before its nodes served.
    #[error("the cluster ended with {status} before it served: {said}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// What it wrote.
        said: String,
    },
    /// It runs and does not come to rest.
    #[error("the cluster of {nodes} nodes did not serve all its shards within {START_MAX:?}")]
    Restless {
        /// How many nodes it was to have.
        nodes: u16,
    },
    /// What it says of its nodes cannot be read.
    #[error("the list of the cluster's nodes cannot be read: {reason}")]
    List {
        /// Why.
        reason: String,
    },
    /// A node does not say where keys are.
    #[error("a node does not say where keys are")]
    Map(#[from] AdminError),
    /// A node cannot be ended.
    #[error("cannot end node {id}")]
    Kill {
        /// Which node.
        id: u32,
        /// What the operating system says.
        #[source]
        source: nix::Error,
    },
    /// The user wants the program to end.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// One of the nodes.
#[derive(Clone, Debug)]
pub struct ClusterNode {
    /// Its id in the cluster.
    pub id: u32,
    /// Its process.
    pub pid: u32,
    /// Where it serves clients.
    pub client: SocketAddr,
    /// Where it is administered.
    pub admin: String,
}

/// A cluster that this process started, and that ends with it.
#[derive(Debug)]
pub struct ClusterProcess {
    child: Child,
    nodes: Vec<ClusterNode>,
    // After the child: its files go when it has ended.
    folder: TempDir,
}

impl ClusterProcess {
    /// Starts a cluster on free ports of loopback, its items in anonymous memory, and waits until every shard
    /// is served by the node that is to lead it.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not come to rest.
    pub fn start(launch: &ClusterLaunch, interrupt: &Interrupt) -> Result<Self, ClusterError> {
        let failed = |source| ClusterError::Start { program: launch.program.clone(), source };
        let folder = TempDir::new().map_err(failed)?;
        let said = fs::File::create(folder.path().join("said")).map_err(failed)?;
        let base = free_base(launch.nodes).map_err(failed)?;
        let mut command = Command::new(&launch.program);
        command
            .args(["local-cluster", "--preset", "sessions", "--no-memory-file"])
            .args(["--nodes", &launch.nodes.to_string()])
            .args(["--replicas", &launch.copies.to_string()])
            .args(["--threads", &launch.threads.to_string()])
            .args(["--memory", &launch.memory_mib.to_string()])
            .args(["--base-port", &base.to_string()])
            .arg("--dir")
            .arg(folder.path().join("nodes"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said);
        // The nodes inherit the cores of the thread that starts them, so that thread is a new one.
        let child = thread::scope(|scope| {
            let start = || {
                cores::pin(&launch.cores)?;
                command.spawn()
            };
            scope.spawn(start).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let mut cluster = Self { child: child.map_err(failed)?, nodes: Vec::new(), folder };
        cluster.wait_until_at_rest(launch, interrupt)?;
        Ok(cluster)
    }

    fn wait_until_at_rest(
        &mut self,
        launch: &ClusterLaunch,
        interrupt: &Interrupt,
    ) -> Result<(), ClusterError> {
        let list = self.folder.path().join("nodes/cluster.json");
        let deadline = clock::now() + START_MAX;
        while clock::now() < deadline {
            interrupt.check()?;
            if let Ok(Some(status)) = self.child.try_wait() {
                let said = fs::read_to_string(self.folder.path().join("said")).unwrap_or_default();
                return Err(ClusterError::Ended { status, said: said.trim().replace('\n', "; ") });
            }
            if self.nodes.is_empty() && list.exists() {
                self.nodes = read_list(&list).map_err(|reason| ClusterError::List { reason })?;
            }
            if !self.nodes.is_empty() && is_at_rest(&self.map()?, launch.copies) {
                return Ok(());
            }
            thread::park_timeout(LOOK_INTERVAL);
        }
        Err(ClusterError::Restless { nodes: launch.nodes })
    }

    /// The nodes, in order of their ports.
    pub fn nodes(&self) -> &[ClusterNode] {
        &self.nodes
    }

    /// Where keys are, as the first node sees it.
    ///
    /// # Errors
    /// When that node does not answer.
    pub fn map(&self) -> Result<Map, ClusterError> {
        Ok(Admin::at(&self.nodes[0].admin, ADMIN_MAX).get::<Map>("/cluster/map")?.read)
    }

    /// Kills a node, which the cluster learns of no sooner than of a machine that lost power.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn kill_node(&self, node: &ClusterNode) -> Result<(), ClusterError> {
        let pid = Pid::from_raw(i32::try_from(node.pid).unwrap_or(0));
        assert!(pid.as_raw() > 0, "a node is a process, not a group of them");
        kill(pid, Signal::SIGKILL).map_err(|source| ClusterError::Kill { id: node.id, source })
    }
}

impl Drop for ClusterProcess {
    /// SIGTERM, and SIGKILL when that does not end it: its nodes end with it.
    fn drop(&mut self) {
        // The child has not been waited for, so its pid cannot belong to anyone else yet.
        let asked = i32::try_from(self.child.id())
            .is_ok_and(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM).is_ok());
        let deadline = clock::now() + STOP_MAX;
        while asked && clock::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::park_timeout(LOOK_INTERVAL);
        }
        // Nothing is left to be done when these fail: the process is gone then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The node that leads the shard of a key.
pub fn leader_of(map: &Map, key: &[u8]) -> Option<u32> {
    // The top bits of XXH3-64, as many as there are shards: docs/replication.md.
    let bits = map.shards.len().trailing_zeros();
    let shard = usize::try_from(xxh3_64(key) >> (64 - bits)).ok()?;
    map.shards.get(shard)?.primary
}

/// Whether every shard has its copies, and is led by whom the balancer prefers.
fn is_at_rest(map: &Map, copies: u8) -> bool {
    map.shards.iter().all(|shard| {
        shard.in_sync.len() == usize::from(copies)
            && shard.primary.is_some()
            && shard.primary == shard.targets.first().copied()
    })
}

fn read_list(path: &Path) -> Result<Vec<ClusterNode>, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let list: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let nodes = list["nodes"].as_array().ok_or("it has no nodes")?;
    nodes.iter().map(|node| node_in(node).ok_or_else(|| format!("no node: {node}"))).collect()
}

fn node_in(node: &serde_json::Value) -> Option<ClusterNode> {
    let number = |name: &str| u32::try_from(node[name].as_u64()?).ok();
    Some(ClusterNode {
        id: number("id")?,
        pid: number("pid")?,
        client: node["client"].as_str()?.parse().ok()?,
        admin: node["admin"].as_str()?.to_owned(),
    })
}

/// A port from which on all that so many nodes need are free at the moment.
fn free_base(nodes: u16) -> io::Result<u16> {
    let span = 2 * PORT_OFFSET + nodes;
    let tries = usize::from((PORTS.end - PORTS.start) / span);
    let first = PORTS.start + u16::try_from(std::process::id() % 64).unwrap_or(0) * span;
    let bases = (0..tries).map(|step| {
        let steps = u16::try_from(step).unwrap_or(0) * span;
        PORTS.start + (first - PORTS.start + steps) % (PORTS.end - PORTS.start - span)
    });
    let is_free = |&base: &u16| {
        (0..nodes).all(|node| {
            [0, PORT_OFFSET, 2 * PORT_OFFSET].iter().all(|offset| {
                TcpListener::bind((Ipv4Addr::LOCALHOST, base + offset + node)).is_ok()
            })
        })
    };
    let mut bases = bases;
    bases.find(is_free).ok_or_else(|| io::ErrorKind::AddrInUse.into())
}

#[cfg(test)]
mod tests {
    use cache_ctl::admin::model::{InSync, MapShard};

    use super::*;

    fn map_of(primaries: &[u32]) -> Map {
        let shard = |(shard, &primary): (u16, &u32)| MapShard {
            shard,
            epoch: 1,
            primary: Some(primary),
            in_sync: vec![InSync { node: 1 }, InSync { node: 2 }],
            targets: vec![primary, 3 - primary],
        };
        Map { shards: (0..).zip(primaries).map(shard).collect() }
    }

    #[test]
    fn keys_are_led_by_the_primary_of_the_shard_that_their_top_bits_name() {
        // XXH3-64 of the empty input begins with the bits 001.
        assert_eq!(leader_of(&map_of(&[2, 2, 2, 2, 2, 2, 2, 2]), b""), Some(2));
        assert_eq!(leader_of(&map_of(&[2, 1, 2, 2, 2, 2, 2, 2]), b""), Some(1));
    }

    #[test]
    fn cluster_is_at_rest_when_all_copies_are_there_and_the_preferred_lead() {
        let mut map = map_of(&[1, 2]);
        assert!(is_at_rest(&map, 2) && !is_at_rest(&map, 3));
        map.shards[1].primary = Some(1);
        assert!(!is_at_rest(&map, 2));
    }

    #[test]
    fn nodes_are_read_from_the_list() {
        let node = serde_json::json!({
            "id": 3, "pid": 77, "client": "127.0.0.1:9002", "admin": "127.0.0.1:9102",
            "peer": "127.0.0.1:9202", "log": "/d/node-3/log",
        });
        let read = node_in(&node).unwrap();
        assert_eq!((read.id, read.pid, read.client.port()), (3, 77, 9002));
        assert!(node_in(&serde_json::json!({ "id": 3 })).is_none());
    }

    #[test]
    fn ports_of_a_cluster_do_not_overlap_and_can_be_had() {
        let base = free_base(3).unwrap();
        assert!(PORTS.contains(&base) && PORTS.contains(&(base + 202)));
    }
}
