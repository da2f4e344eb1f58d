//! `cache-server local-cluster`: the nodes of a cluster as processes on this machine, for trying it out.
//!
//! ```text
//! DIR/cluster.json     where the nodes are, while all of them serve: ours to write, anybody's to read
//! DIR/lock             locked for as long as somebody runs the cluster
//! DIR/node-1/cluster/  the node's cluster directory
//!           /cache     its memory file
//!           /log       what it says
//! ```
//!
//! They are real servers, started as an operator would: the first founds the cluster, the others join it,
//! one after the other, each with a token of its own. A node that was there before goes on with what it
//! has, so the same command on the same DIR is the restart of a whole cluster.
//!
//! Ctrl-C is heard here alone: each node leads a process group of its own and is told to stop in order. When
//! this process is killed the system tells them (`--stop-with-parent`).

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use cluster::NodeId;
use cluster::pool::Pool;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use nix::sys::signal::Signal;

use self::admin_client::AdminClient;
use self::folder::{Folder, ListedNode};
use self::node::{Node, Origin};
use self::signals::Signals;
use crate::admin::model::Status;
use crate::clock::Clock;
use crate::config::{ADMIN_PORT_OFFSET, PEER_PORT_OFFSET};

mod admin_client;
mod folder;
mod node;
mod signals;

/// The most nodes: ports for clients end where those for administration begin.
pub const NODES_MAX: u16 = ADMIN_PORT_OFFSET;

/// How often something that is waited for is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long nodes may take to leave before they are killed: longer than one waits for others to go on.
const STOP_LIMIT: Duration = Duration::from_secs(40);
/// The pause before a node that ended by itself is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// A node that ends sooner after its start than this has not got far.
const QUICK_END: Duration = Duration::from_secs(10);
/// So many quick ends in a row, and a node is not started again.
const QUICK_ENDS_MAX: u32 = 5;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many nodes, 1 to [`NODES_MAX`], and no fewer than there are copies of a shard.
    pub nodes: u16,
    /// What the cluster promises.
    pub pool: Pool,
    /// Into how many shards keys are cut.
    pub shard_count: u16,
    /// Where everything is kept, from the root.
    pub dir: PathBuf,
    /// Where nodes are found.
    pub ports: Ports,
    /// Each node's memory for items, in mebibytes.
    pub memory_mebibytes: NonZeroUsize,
    /// What the keys begin with that each node evicts last, as `--protect` names it.
    pub protect: Option<String>,
    /// Each node's worker threads.
    pub threads: NonZeroUsize,
    /// Whether items outlive their node, in a file.
    pub memory_file: bool,
    /// Whether a node is started again that ends by itself.
    pub restart: bool,
    /// How long the cluster may take until it serves, in seconds.
    pub wait_s: NonZeroU32,
}

/// The ports of all nodes on the loopback, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    base: u16,
}

impl Ports {
    /// The greatest base: the last node has all its ports.
    pub const BASE_MAX: u16 = u16::MAX - PEER_PORT_OFFSET - (NODES_MAX - 1);

    /// Ports of which the first is `base`, 1 to [`Self::BASE_MAX`].
    pub fn new(base: u16) -> Option<Self> {
        (1..=Self::BASE_MAX).contains(&base).then_some(Self { base })
    }

    /// Where the node `index` serves clients.
    pub fn client(self, index: u16) -> u16 {
        self.base + index
    }

    /// Where it is administered.
    pub fn admin(self, index: u16) -> u16 {
        self.base + ADMIN_PORT_OFFSET + index
    }

    /// Where other nodes reach it.
    pub fn peer(self, index: u16) -> u16 {
        self.base + PEER_PORT_OFFSET + index
    }

    /// Who uses which, for the node `index`.
    fn each(self, index: u16) -> [(&'static str, u16); 3] {
        [
            ("clients", self.client(index)),
            ("administration", self.admin(index)),
            ("other nodes", self.peer(index)),
        ]
    }
}

/// `port` on the loopback, where everything happens.
fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Why the cluster goes on no further.
#[derive(Debug)]
enum Halt {
    /// It was told to stop.
    Told(Signal),
    /// It cannot go on.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Runs a cluster as `plan` says until a signal asks for its end, and ends it in order.
///
/// # Errors
///
/// When it cannot be started, or no node is left.
pub fn run(plan: &Plan) -> anyhow::Result<()> {
    let folder = Folder::open(&plan.dir)?;
    folder.check(plan)?;
    check_ports(plan)?;
    let signals = Signals::block().context("cannot wait for signals")?;
    let client = AdminClient::new();
    let clock = Clock::system();
    let mut cluster = LocalCluster { plan, folder, signals, client, clock, nodes: Vec::new() };
    let halt = match cluster.start() {
        Ok(()) => cluster.attend(),
        Err(halt) => halt,
    };
    if let Halt::Told(signal) = halt {
        tracing::info!("{signal}: stopping {} nodes", cluster.running());
    }
    cluster.stop();
    match halt {
        Halt::Told(_) => Ok(()),
        Halt::Failed(error) => Err(error),
    }
}

/// Refuses ports that somebody else has, before anything is started.
fn check_ports(plan: &Plan) -> anyhow::Result<()> {
    for index in 0..plan.nodes {
        for (user, port) in plan.ports.each(index) {
            let node = index + 1;
            TcpListener::bind(local(port)).with_context(|| {
                format!(
                    "port {port}, for {user} of node {node}, cannot be had; try another --base-port"
                )
            })?;
        }
    }
    Ok(())
}

struct LocalCluster<'a> {
    plan: &'a Plan,
    folder: Folder,
    signals: Signals,
    client: AdminClient,
    clock: Clock,
    /// In order of their ports.
    nodes: Vec<Node>,
}

impl LocalCluster<'_> {
    /// Starts all nodes and waits until every one of them finds the cluster healthy.
    fn start(&mut self) -> Result<(), Halt> {
        let deadline_ms = self.now_ms() + u64::from(self.plan.wait_s.get()) * 1000;
        // Those that were there before: together, since fewer than a majority of them agree on nothing.
        let known = self.folder.nodes_known(self.plan.nodes)?;
        for index in 0..known.max(1) {
            let origin = if known == 0 { Origin::Founds } else { Origin::Continues };
            self.start_node(index, origin)?;
        }
        self.until(deadline_ms, "node 1 knows of its cluster", |cluster| cluster.knows(0))?;
        self.check_pool()?;
        for index in known.max(1)..self.plan.nodes {
            let number = index + 1;
            let mut token = None;
            self.until(deadline_ms, "node 1 gives a token to join with", |cluster| {
                // Refused while the control plane has no leader, such as when a voter was just added.
                token = cluster.client.token(cluster.plan.ports.admin(0)).ok();
                token.is_some()
            })?;
            self.folder.write_token(index, &token.map(|token| token.token).unwrap_or_default())?;
            self.start_node(index, Origin::Joins)?;
            self.until(deadline_ms, &format!("node {number} joins"), |cluster| {
                cluster.knows(index)
            })?;
            self.folder.remove_token(index);
        }
        self.until(deadline_ms, "every node serves every shard with all its copies", |cluster| {
            (0..cluster.plan.nodes).all(|index| cluster.serves(index))
        })?;
        self.list_nodes()?;
        if let Err(error) = self.tell() {
            // Nobody reads it. The list tells the same.
            tracing::debug!("cannot print the nodes: {error}");
        }
        Ok(())
    }

    /// Stays until it is told to stop, or no node is left.
    fn attend(&mut self) -> Halt {
        loop {
            let restarts = self.nodes.iter().any(|node| node.restart_at_ms.is_some());
            match self.signals.wait(restarts.then_some(POLL_INTERVAL)) {
                Ok(Some(Signal::SIGCHLD) | None) => {}
                Ok(Some(signal)) => return Halt::Told(signal),
                Err(error) => return Halt::Failed(error.into()),
            }
            if let Err(error) = self.take_note_of_ends().and_then(|()| self.restart_due()) {
                return Halt::Failed(error);
            }
            if self.nodes.iter().all(|node| !node.is_running() && node.restart_at_ms.is_none()) {
                return Halt::Failed(anyhow!("no node is left"));
            }
        }
    }

    /// Reports nodes that ended by themselves; the others go on.
    fn take_note_of_ends(&mut self) -> anyhow::Result<()> {
        let now_ms = self.clock.now().unix_ms;
        for node in &mut self.nodes {
            let Some(status) = node.ended()? else { continue };
            tracing::warn!("node {} (process {}) ended: {status}", node.number(), node.pid());
            if !self.plan.restart {
                continue;
            }
            let lived_ms = now_ms.saturating_sub(node.started_ms);
            let quick = u128::from(lived_ms) < QUICK_END.as_millis();
            node.quick_ends = if quick { node.quick_ends + 1 } else { 0 };
            if node.quick_ends < QUICK_ENDS_MAX {
                node.restart_at_ms = Some(now_ms + millis(RESTART_PAUSE));
            } else {
                tracing::error!(
                    "node {} ended {QUICK_ENDS_MAX} times soon after its start and stays away: {}",
                    node.number(),
                    node.last_words()
                );
            }
        }
        Ok(())
    }

    fn restart_due(&mut self) -> anyhow::Result<()> {
        let now_ms = self.now_ms();
        let mut restarted = false;
        for node in &mut self.nodes {
            if node.restart_at_ms.is_none_or(|at_ms| at_ms > now_ms) {
                continue;
            }
            node.start(self.plan, &Origin::Continues, now_ms)?;
            tracing::info!("node {} is started again as process {}", node.number(), node.pid());
            restarted = true;
        }
        if restarted { self.list_nodes() } else { Ok(()) }
    }

    /// Tells all nodes to stop and waits until they have. Told again, or after a limit, kills them.
    fn stop(&mut self) {
        self.folder.remove_list();
        for node in &self.nodes {
            node.tell_to_stop();
        }
        let deadline_ms = self.now_ms() + millis(STOP_LIMIT);
        while self.running() > 0 && self.now_ms() < deadline_ms {
            match self.signals.wait(Some(POLL_INTERVAL)) {
                Ok(Some(Signal::SIGCHLD) | None) => {}
                Ok(Some(signal)) => {
                    tracing::warn!("{signal} again: killing what still runs");
                    break;
                }
                Err(_) => break,
            }
        }
        for node in &mut self.nodes {
            if node.is_running() {
                tracing::warn!("node {} does not stop and is killed", node.number());
                node.kill();
            }
        }
    }

    fn start_node(&mut self, index: u16, origin: Origin) -> anyhow::Result<()> {
        let mut node = Node::new(index, self.folder.node_dir(index));
        if !matches!(origin, Origin::Continues) {
            self.folder.prepare_node(index)?;
        }
        node.start(self.plan, &origin, self.now_ms())?;
        self.nodes.push(node);
        Ok(())
    }

    /// Waits for `what` to become true, until `deadline_ms`, as long as all nodes run and nobody asks for
    /// the end.
    fn until(
        &mut self,
        deadline_ms: u64,
        what: &str,
        mut is_so: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), Halt> {
        loop {
            for node in &mut self.nodes {
                if let Some(status) = node.ended()? {
                    let (number, words) = (node.number(), node.last_words());
                    return Err(anyhow!("node {number} ended ({status}): {words}").into());
                }
            }
            if is_so(self) {
                return Ok(());
            }
            if self.now_ms() >= deadline_ms {
                let limit_s = self.plan.wait_s;
                let logs = self.plan.dir.join("node-*").join("log");
                return Err(anyhow!(
                    "not within {limit_s} s: {what}; the logs are {}",
                    logs.display()
                )
                .into());
            }
            match self.signals.wait(Some(POLL_INTERVAL))? {
                Some(Signal::SIGCHLD) | None => {}
                Some(signal) => return Err(Halt::Told(signal)),
            }
        }
    }

    /// Refuses to go on with a cluster that promises something else than was asked for.
    fn check_pool(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.status_of(0) else { return Ok(()) };
        let (found, wanted) = (&status.pool, &self.plan.pool);
        if (&found.name, found.copies, found.reads) != (&wanted.name, wanted.copies, wanted.reads) {
            bail!(
                "{} holds a cluster of the preset {} with {} copies and reads = {}, and not {} with {} and {}",
                self.plan.dir.display(),
                found.name,
                found.copies,
                found.reads.name(),
                wanted.name,
                wanted.copies,
                wanted.reads.name()
            );
        }
        Ok(())
    }

    fn status_of(&self, index: u16) -> Option<Status> {
        self.client.status(self.plan.ports.admin(index)).ok()
    }

    /// Whether a node has the cluster's map: before, it knows neither shards nor what is promised.
    fn knows(&self, index: u16) -> bool {
        self.status_of(index).is_some_and(|status| status.shards.total > 0)
    }

    /// Whether a node serves clients, and finds all well with the cluster.
    fn serves(&mut self, index: u16) -> bool {
        let Some(status) = self.status_of(index) else { return false };
        self.nodes[usize::from(index)].id = Some(status.node);
        status.healthy
            && status.nodes.len() >= usize::from(self.plan.nodes)
            && TcpStream::connect(local(self.plan.ports.client(index))).is_ok()
    }

    fn list_nodes(&self) -> anyhow::Result<()> {
        let listed: Vec<_> = self.nodes.iter().map(|node| self.listed(node)).collect();
        self.folder.list(&listed)
    }

    fn listed(&self, node: &Node) -> ListedNode {
        let ports = self.plan.ports;
        ListedNode {
            id: node.id.unwrap_or_else(|| NodeId(node.number().into())),
            pid: node.pid(),
            client: local(ports.client(node.index)).to_string(),
            admin: local(ports.admin(node.index)).to_string(),
            peer: local(ports.peer(node.index)).to_string(),
            log: node.log(),
        }
    }

    /// Tells a person what there is now.
    fn tell(&self) -> io::Result<()> {
        let mut table = Table::new();
        table
            .load_style(NOTHING)
            .set_header(["node", "process", "clients", "admin", "peers", "log"]);
        for node in &self.nodes {
            let ListedNode { id, pid, client, admin, peer, log } = self.listed(node);
            let log = log.display().to_string();
            table.add_row([id.to_string(), pid.to_string(), client, admin, peer, log]);
        }
        let admin = local(self.plan.ports.admin(0));
        let mut out = io::stdout().lock();
        for line in table.lines() {
            writeln!(out, "{}", line.strip_prefix(' ').unwrap_or(&line).trim_end())?;
        }
        writeln!(out)?;
        writeln!(out, "Any memcached client may talk to any of them; all hold the same cache.")?;
        writeln!(out, "`cache-ctl --node {admin} status` looks at it. Ctrl-C stops all.")?;
        out.flush()
    }

    fn running(&mut self) -> usize {
        self.nodes.iter_mut().filter_map(|node| node.check_running().then_some(())).count()
    }

    fn now_ms(&self) -> u64 {
        self.clock.now().unix_ms
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_lie_apart_and_fit() {
        let ports = Ports::new(11_311).unwrap();
        assert_eq!((ports.client(2), ports.admin(2), ports.peer(2)), (11_313, 11_413, 11_513));
        let last = Ports::new(Ports::BASE_MAX).unwrap();
        assert_eq!(last.peer(NODES_MAX - 1), u16::MAX);
        assert!(last.client(NODES_MAX - 1) < last.admin(0));
        assert_eq!(Ports::new(Ports::BASE_MAX + 1), None);
        assert_eq!(Ports::new(0), None);
    }
}
