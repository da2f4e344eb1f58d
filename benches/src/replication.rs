//! What replication costs and what it saves: clusters of our server beside one server alone.
//!
//! ```text
//! round    1                           2
//!          alone  3 apart  cluster     3 apart  cluster  alone  ...   all up at once, on one core; the load on
//! ```                                                                 another
//!
//! - Work is counted per second of processor time, that of all processes of a cluster together: a set that
//!   two nodes carry out costs both. The rounds are interleaved and every round has ratios of its own, as in
//!   [`crate::compare`].
//! - A request is *routed* when it goes to the node that leads its key, as from a client that follows the map;
//!   *forwarded* when it goes to one that does not; *spread* when it goes to any, as from a client that knows
//!   of one node.
//! - Several processes on one core cost more than one does, whatever they do: each is woken for fewer clients, and
//!   finds the processor's caches full of the others' memory. What of a cluster's price is this and would not be
//!   there on machines of their own shows in servers *apart*: as many as the cluster has nodes, without a cluster,
//!   each asked for the keys that a node of the cluster leads.
//! - [`lose_a_node`] is about hits instead: what a full cluster loses of them with a node.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster_process::{ClusterError, ClusterLaunch, ClusterProcess, leader_of};
use crate::compare::{CompareError, Contest, KEY_BYTES, Side};
use crate::interrupt::Interrupt;
use crate::keyspace::{Keyspace, Popularity};
use crate::load::{self, Extent, Outcome, Pace, Plan, Target};
use crate::server_process::{Kind, Launch, ServerProcess};
use crate::value::Values;
use crate::wire::Dialect;
use crate::workload::Workload;

/// Copies of every shard: the preset `sessions`.
const COPIES: u8 = 2;
/// Long enough that a full memory is a matter of seconds.
const LOSS_VALUE_BYTES: usize = 1000;
/// Connections while a node is lost.
const LOSS_CONNECTIONS: usize = 32;
/// Windows after the loss of a node.
const LOSS_WINDOWS: usize = 3;

/// Which node a request is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The one that leads the key.
    Routed,
    /// One that does not.
    Forwarded,
    /// Any.
    Spread,
}

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Errand {
    /// Its name in reports.
    pub name: &'static str,
    contest: Contest,
    route: Route,
    /// Connections, of all nodes together.
    pub connections: usize,
    /// Requests in a pipeline on each.
    pub depth: usize,
    /// The ratio to be reached, if one is promised.
    pub goal: Option<f64>,
}

impl Errand {
    /// All of them. Six connections and ten times six divide among one, two and three nodes alike.
    pub const ALL: [Self; 9] = [
        Self::of("set routed", Contest::SET, Route::Routed, 48, 1, Some(0.4)),
        Self::of("set routed", Contest::SET, Route::Routed, 18, 16, Some(0.4)),
        Self::of("set spread", Contest::SET, Route::Spread, 48, 1, None),
        Self::of("set spread", Contest::SET, Route::Spread, 18, 16, None),
        Self::of("get routed", Contest::GET, Route::Routed, 48, 1, Some(0.95)),
        Self::of("get routed", Contest::GET, Route::Routed, 18, 16, Some(0.95)),
        Self::of("get forwarded", Contest::GET, Route::Forwarded, 48, 1, None),
        Self::of("get forwarded", Contest::GET, Route::Forwarded, 18, 16, Some(0.45)),
        Self::of("get forwarded", Contest::GET, Route::Forwarded, 48, 16, Some(0.45)),
    ];

    const fn of(
        name: &'static str,
        contest: Contest,
        route: Route,
        connections: usize,
        depth: usize,
        goal: Option<f64>,
    ) -> Self {
        Self { name, contest, route, connections, depth, goal }
    }
}

/// How clusters are compared with a server alone.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Our server's executable.
    pub program: PathBuf,
    /// Sizes of the clusters, in nodes.
    pub nodes: Vec<u16>,
    /// Worker threads of each node.
    pub threads: usize,
    /// What each process may hold, in MiB.
    pub memory_mib: u64,
    /// Rounds for each errand.
    pub rounds: usize,
    /// How long a round is measured.
    pub round: Duration,
    /// How long the server is loaded before each round counts.
    pub warm_up: Duration,
    /// Keys that everybody holds.
    pub keys: u64,
    /// The cores of the servers.
    pub server_cores: Vec<usize>,
    /// The cores of the load.
    pub load_cores: Vec<usize>,
}

impl Rules {
    fn cluster(&self, nodes: u16) -> ClusterLaunch {
        ClusterLaunch {
            program: self.program.clone(),
            nodes,
            copies: COPIES,
            threads: self.threads,
            memory_mib: self.memory_mib,
            cores: self.server_cores.clone(),
        }
    }

    fn alone(&self, memory_mib: u64) -> Launch {
        Launch {
            kind: Kind::Memcached,
            program: self.program.clone(),
            memory_mib,
            connections: 1024,
            cores: self.server_cores.clone(),
            extra: Vec::new(),
        }
    }
}

/// Why a comparison did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// A cluster did not come up.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// As in other comparisons.
    #[error(transparent)]
    Compare(#[from] CompareError),
}

/// How a cluster compares with a server alone in one errand.
#[derive(Clone, Debug)]
pub struct Cost {
    /// What was asked.
    pub errand: Errand,
    /// How many nodes the cluster has.
    pub nodes: u16,
    /// The server alone.
    pub alone: Side,
    /// As many servers as the cluster has nodes, without a cluster.
    pub apart: Side,
    /// The cluster.
    pub cluster: Side,
}

impl Cost {
    /// Per round: the cluster's work per processor second as a share of the lone server's.
    pub fn ratios(&self) -> Vec<f64> {
        ratios(&self.cluster, &self.alone)
    }

    /// The same, as a share of that of the servers apart.
    pub fn ratios_to_apart(&self) -> Vec<f64> {
        ratios(&self.cluster, &self.apart)
    }
}

fn ratios(side: &Side, other: &Side) -> Vec<f64> {
    let pairs = side.keys_per_cpu_second.iter().zip(&other.keys_per_cpu_second);
    pairs.map(|(side, other)| side / other).collect()
}

/// A server alone, several apart or a cluster, under load.
struct Subject {
    title: String,
    /// By route: where requests go, with which keys.
    routed: Vec<Target>,
    forwarded: Vec<Target>,
    spread: Vec<Target>,
    pids: Vec<u32>,
}

impl Subject {
    fn alone(server: &ServerProcess) -> Self {
        let targets = vec![Target::any_key(server.address())];
        Self {
            title: server.title(),
            routed: targets.clone(),
            forwarded: targets.clone(),
            spread: targets,
            pids: vec![server.pid()],
        }
    }

    /// Servers without a cluster in the places of the nodes of `cluster`.
    fn apart(servers: &[ServerProcess], cluster: &Self) -> Self {
        let in_place = |(server, node): (&ServerProcess, &Target)| Target {
            address: server.address(),
            keys: node.keys.clone(),
        };
        let routed: Vec<Target> = servers.iter().zip(&cluster.routed).map(in_place).collect();
        Self {
            title: format!("{} servers apart", servers.len()),
            forwarded: routed.clone(),
            spread: routed.clone(),
            routed,
            pids: servers.iter().map(ServerProcess::pid).collect(),
        }
    }

    fn cluster(cluster: &ClusterProcess, keyspace: Keyspace) -> Result<Self, ClusterError> {
        let map = cluster.map()?;
        let mut key = vec![0; keyspace.key_bytes()];
        let leaders: Vec<Option<u32>> = (0..keyspace.count())
            .map(|index| {
                keyspace.write_key(index, &mut key);
                leader_of(&map, &key)
            })
            .collect();
        let nodes = cluster.nodes();
        let targets = |asks: &dyn Fn(u32, u32) -> bool| -> Vec<Target> {
            let target = |node: &crate::cluster_process::ClusterNode| {
                let is_asked = |leader: &Option<u32>| leader.is_some_and(|it| asks(node.id, it));
                let keys = (0..).zip(&leaders).filter(|(_, it)| is_asked(it)).map(|(key, _)| key);
                Target { address: node.client, keys: Some(keys.collect::<Arc<[u32]>>()) }
            };
            nodes.iter().map(target).collect()
        };
        Ok(Self {
            title: format!("{} nodes", nodes.len()),
            routed: targets(&|node, leader| node == leader),
            forwarded: targets(&|node, leader| node != leader),
            spread: nodes.iter().map(|node| Target::any_key(node.client)).collect(),
            pids: nodes.iter().map(|node| node.pid).collect(),
        })
    }

    fn targets(&self, route: Route) -> &[Target] {
        match route {
            Route::Routed => &self.routed,
            Route::Forwarded => &self.forwarded,
            Route::Spread => &self.spread,
        }
    }

    fn run(
        &self,
        errand: &Errand,
        seed: u64,
        keyspace: Keyspace,
        rules: &Rules,
        interrupt: &Interrupt,
    ) -> Result<Outcome, CompareError> {
        let plan = Plan {
            targets: self.targets(errand.route).to_vec(),
            connections: errand.connections,
            threads: 1,
            depth: errand.depth,
            pace: Pace::Closed,
            warm_up: rules.warm_up,
            extent: Extent::Time(rules.round),
            seed,
            cores: rules.load_cores.clone(),
            server_pids: self.pids.clone(),
        };
        load::run(&plan, &errand.contest.workload(keyspace), interrupt, |_| {})
            .map_err(|source| CompareError::Load { server: self.title.clone(), source })
    }

    /// Sets every key, at the first address.
    fn fill(&self, workload: &Workload, interrupt: &Interrupt) -> Result<(), CompareError> {
        self.fill_at(self.spread[0].address, workload, interrupt)
    }

    fn fill_at(
        &self,
        address: SocketAddr,
        workload: &Workload,
        interrupt: &Interrupt,
    ) -> Result<(), CompareError> {
        let plan = Plan {
            targets: vec![Target::any_key(address)],
            connections: 8,
            threads: 1,
            depth: 1,
            pace: Pace::Closed,
            warm_up: Duration::ZERO,
            extent: Extent::Filling,
            seed: 1,
            cores: Vec::new(),
            server_pids: Vec::new(),
        };
        load::fill(&plan, workload, interrupt, |_| {})
            .map_err(|source| CompareError::Load { server: self.title.clone(), source })?;
        Ok(())
    }
}

/// Compares clusters with a server alone in each of `errands`; `progress` hears what is going on.
///
/// # Errors
/// When a server or a cluster does not come up or breaks off. All are ended in any case.
pub fn costs(
    errands: &[Errand],
    rules: &Rules,
    interrupt: &Interrupt,
    mut progress: impl FnMut(&str),
) -> Result<Vec<Cost>, ReplicationError> {
    let keyspace = Keyspace::new(rules.keys, KEY_BYTES).map_err(CompareError::from)?;
    progress("starting a server alone");
    let server = ServerProcess::start(&rules.alone(rules.memory_mib), interrupt)
        .map_err(CompareError::from)?;
    let mut subjects = vec![Subject::alone(&server)];
    let workload = Contest::SET.workload(keyspace);
    let fill = |subject: &Subject| subject.fill(&workload, interrupt);
    fill(&subjects[0])?;
    // Alive as long as they are loaded.
    let (mut clusters, mut servers) = (Vec::new(), Vec::new());
    for &nodes in &rules.nodes {
        progress(&format!("starting a cluster of {nodes} nodes, and as many servers"));
        let cluster = ClusterProcess::start(&rules.cluster(nodes), interrupt)?;
        let of_cluster = Subject::cluster(&cluster, keyspace)?;
        fill(&of_cluster)?;
        clusters.push(cluster);
        let start = |_| ServerProcess::start(&rules.alone(rules.memory_mib), interrupt);
        let apart: Vec<ServerProcess> =
            (0..nodes).map(start).collect::<Result<_, _>>().map_err(CompareError::from)?;
        let of_apart = Subject::apart(&apart, &of_cluster);
        for server in &apart {
            of_apart.fill_at(server.address(), &workload, interrupt)?;
        }
        servers.push(apart);
        subjects.extend([of_apart, of_cluster]);
    }
    let mut results = Vec::new();
    for errand in errands {
        let mut sides: Vec<Side> = subjects
            .iter()
            .map(|subject| Side { title: subject.title.clone(), ..Side::default() })
            .collect();
        for round in 0..rules.rounds {
            for turn in 0..subjects.len() {
                // 0 1 2, 1 2 0, 2 0 1: none is always the first.
                let which = (round + turn) % subjects.len();
                let (subject, seed) = (&subjects[which], 1 + round as u64);
                let Errand { name, connections, depth, .. } = errand;
                progress(&format!(
                    "{name}, {connections} x {depth}, round {} of {}: {}",
                    round + 1,
                    rules.rounds,
                    subject.title
                ));
                sides[which].add(&subject.run(errand, seed, keyspace, rules, interrupt)?);
            }
        }
        let alone = sides.remove(0);
        let mut sides = sides.into_iter();
        for &nodes in &rules.nodes {
            let (Some(apart), Some(cluster)) = (sides.next(), sides.next()) else { break };
            results.push(Cost { errand: *errand, nodes, alone: alone.clone(), apart, cluster });
        }
    }
    Ok(results)
}

/// What became of hits when a node of a full cluster was killed.
#[derive(Clone, Debug)]
pub struct Loss {
    /// How many nodes there were.
    pub nodes: u16,
    /// The share of gets that hit, before.
    pub before: f64,
    /// From the moment of the kill, one round after the other.
    pub after: Vec<f64>,
    /// What a server alone with as much memory as the cluster has for different items hits, before.
    pub capacity_before: f64,
    /// The same with what is left of that memory.
    pub capacity_after: f64,
    /// Requests that were refused after the kill.
    pub refused: u64,
    /// Values that were not their key's.
    pub wrong: u64,
}

impl Loss {
    /// By how much hits fell in the worst round beyond what the lost memory costs anyway, as a share.
    pub fn beyond_capacity(&self) -> f64 {
        let worst = self.after.iter().copied().fold(f64::INFINITY, f64::min);
        (self.before - worst) - (self.capacity_before - self.capacity_after)
    }
}

/// Fills a cluster beyond its memory, reads with zipf's popularity while what is missed is set again, and
/// kills a node meanwhile.
///
/// # Errors
/// When a server or a cluster does not come up or breaks off. All are ended in any case.
pub fn lose_a_node(
    nodes: u16,
    rules: &Rules,
    interrupt: &Interrupt,
    mut progress: impl FnMut(&str),
) -> Result<Loss, ReplicationError> {
    let items_per_node = (rules.memory_mib << 20) / (LOSS_VALUE_BYTES + KEY_BYTES) as u64;
    // Five times what fits the whole cluster, each item held twice.
    let keys = 5 * items_per_node * u64::from(nodes) / u64::from(COPIES);
    let workload = Workload {
        keyspace: Keyspace::new(keys, KEY_BYTES).map_err(CompareError::from)?,
        popularity: Popularity::Zipf { exponent: Popularity::ZIPF_EXPONENT_DEFAULT },
        value_bytes: LOSS_VALUE_BYTES..=LOSS_VALUE_BYTES,
        get_share: 1.0,
        keys_per_get: 1,
        dialect: Dialect::Text,
        fill: true,
        values: Values::new(),
        checks: true,
    };
    let read = |targets: &[Target], title: &str, seed: u64, warm_up: Duration| {
        let plan = Plan {
            targets: targets.to_vec(),
            connections: LOSS_CONNECTIONS,
            threads: 1,
            depth: 8,
            pace: Pace::Closed,
            warm_up,
            extent: Extent::Time(rules.round),
            seed,
            cores: rules.load_cores.clone(),
            server_pids: Vec::new(),
        };
        load::run(&plan, &workload, interrupt, |_| {})
            .map_err(|source| CompareError::Load { server: title.to_owned(), source })
    };
    let hits = |outcome: &Outcome| outcome.tally.hit_ratio().unwrap_or(f64::NAN);
    let mut capacity = |nodes: u16| -> Result<f64, ReplicationError> {
        // A node that is left alone holds one copy of all: no less than two that hold two.
        let memory_mib = rules.memory_mib * u64::from(nodes.max(2)) / u64::from(COPIES);
        progress(&format!("what {memory_mib} MiB alone hit"));
        let server = ServerProcess::start(&rules.alone(memory_mib), interrupt)
            .map_err(CompareError::from)?;
        let subject = Subject::alone(&server);
        subject.fill(&workload, interrupt)?;
        Ok(hits(&read(&subject.spread, &subject.title, 1, rules.warm_up)?))
    };
    let (capacity_before, capacity_after) = (capacity(nodes)?, capacity(nodes - 1)?);

    progress(&format!("starting a cluster of {nodes} nodes"));
    let cluster = ClusterProcess::start(&rules.cluster(nodes), interrupt)?;
    let subject = Subject::cluster(&cluster, workload.keyspace)?;
    progress(&format!("filling {} with {keys} items", subject.title));
    subject.fill(&workload, interrupt)?;
    // Clients of the others alone: connections to the one that is killed would tell of nothing else.
    let (lost, left) = (&cluster.nodes()[cluster.nodes().len() - 1], cluster.nodes().len() - 1);
    let targets = &subject.spread[..left];
    progress(&format!("reading from {left} of {nodes} nodes"));
    let before = read(targets, &subject.title, 1, rules.warm_up)?;
    progress(&format!("reading without node {}", lost.id));
    cluster.kill_node(lost)?;
    let after = (0..LOSS_WINDOWS)
        .map(|window| read(targets, &subject.title, 2 + window as u64, Duration::ZERO))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Loss {
        nodes,
        before: hits(&before),
        after: after.iter().map(hits).collect(),
        capacity_before,
        capacity_after,
        refused: after.iter().map(|outcome| outcome.tally.refused).sum(),
        wrong: before.tally.wrong + after.iter().map(|outcome| outcome.tally.wrong).sum::<u64>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_that_went_with_the_memory_are_not_held_against_the_cluster() {
        let loss = Loss {
            nodes: 3,
            before: 0.80,
            after: vec![0.78, 0.75, 0.76],
            capacity_before: 0.80,
            capacity_after: 0.76,
            refused: 0,
            wrong: 0,
        };
        assert!((loss.beyond_capacity() - 0.01).abs() < 1e-9);
    }

    #[test]
    fn connections_divide_among_clusters_of_one_to_three_nodes() {
        assert!(Errand::ALL.iter().all(|errand| errand.connections % 6 == 0));
    }
}
