//! Side by side: our server and another that takes memcached's flags, on this machine, in one run.
//!
//! ```text
//! pair       1         2         3
//! rounds  ours them  them ours  ours them  ...     both servers up, on one core; the load on another
//! ```
//!
//! - What is compared is work per second of the server's processor time, so a load generator that
//!   cannot keep a server busy does not flatter or hide anything.
//! - The rounds alternate and every pair has a ratio of its own: a machine that turns slower
//!   meanwhile (heat, neighbours) slows both halves of a pair. The median of the ratios is the
//!   result, their range its uncertainty.
//! - Both servers are started alike: `-t 1`, equal `-m`, loopback, the same core.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::interrupt::{Interrupt, Interrupted};
use crate::keyspace::{Keyspace, KeyspaceError, Popularity};
use crate::load::{self, Extent, LoadError, Outcome, Pace, Plan, Target};
use crate::replay::{Expiry, ReplayError, Replayed, Wanted, replay};
use crate::server_process::{Launch, LaunchError, ServerProcess, resident_bytes};
use crate::session::{Session, SessionError};
use crate::value::Values;
use crate::wire::Dialect;
use crate::workload::Workload;

pub(crate) const KEY_BYTES: usize = 24;
const VALUE_BYTES: usize = 100;

/// A workload in which the servers' speed is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contest {
    /// Its name in reports.
    pub name: &'static str,
    get_permille: u32,
    keys_per_get: usize,
    depth: usize,
    is_zipf: bool,
}

impl Contest {
    /// One get at a time on each connection.
    pub const GET: Self =
        Self { name: "get", get_permille: 1000, keys_per_get: 1, depth: 1, is_zipf: false };
    /// Sixteen gets in a pipeline.
    pub const GET_PIPELINE: Self = Self { name: "get-depth-16", depth: 16, ..Self::GET };
    /// One get of 50 keys at a time.
    pub const MULTI_GET: Self = Self { name: "multi-get-50", keys_per_get: 50, ..Self::GET };
    /// One set at a time.
    pub const SET: Self = Self { name: "set", get_permille: 0, ..Self::GET };
    /// 95 gets to 5 sets, some keys far more popular than others.
    pub const MIXED: Self = Self { name: "mixed", get_permille: 950, is_zipf: true, ..Self::GET };

    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::GET, Self::GET_PIPELINE, Self::MULTI_GET, Self::SET, Self::MIXED];

    pub(crate) fn workload(self, keyspace: Keyspace) -> Workload {
        let exponent = Popularity::ZIPF_EXPONENT_DEFAULT;
        Workload {
            keyspace,
            popularity: if self.is_zipf {
                Popularity::Zipf { exponent }
            } else {
                Popularity::Uniform
            },
            value_bytes: VALUE_BYTES..=VALUE_BYTES,
            get_share: f64::from(self.get_permille) / 1000.0,
            keys_per_get: self.keys_per_get,
            dialect: Dialect::Text,
            fill: false,
            values: Values::new(),
            checks: true,
        }
    }
}

/// How speed is compared.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Pairs of rounds per workload.
    pub pairs: usize,
    /// How long a round is measured.
    pub round: Duration,
    /// How long the server is loaded before each round counts.
    pub warm_up: Duration,
    /// Connections to the server.
    pub connections: usize,
    /// Keys that both servers hold.
    pub keys: u64,
    /// The cores of the load.
    pub load_cores: Vec<usize>,
}

/// Why a comparison did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A server did not come up.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A round broke off.
    #[error("the load on {server} broke off")]
    Load {
        /// The server's title.
        server: String,
        /// Why.
        #[source]
        source: LoadError,
    },
    /// A server does not answer about itself.
    #[error("{server} does not answer about itself")]
    Session {
        /// The server's title.
        server: String,
        /// Why.
        #[source]
        source: SessionError,
    },
    /// A server's memory cannot be read.
    #[error("the memory of {server} cannot be read")]
    Memory {
        /// The server's title.
        server: String,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A server holds nothing of what it was given.
    #[error("{server} holds nothing of what it was given")]
    Empty {
        /// The server's title.
        server: String,
    },
    /// There cannot be so many keys.
    #[error(transparent)]
    Keyspace(#[from] KeyspaceError),
    /// The user wants the program to end.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// One server's side of a comparison of speed.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// The server's name and version.
    pub title: String,
    /// Per round: keys read or written per second of the server's processor time.
    pub keys_per_cpu_second: Vec<f64>,
    /// Per round: keys read or written per second.
    pub keys_per_second: Vec<f64>,
    /// Per round: how large a share of its core the server used.
    pub core_share: Vec<f64>,
    /// Values that were not their key's, in all rounds.
    pub wrong: u64,
    /// Requests refused, in all rounds.
    pub refused: u64,
}

impl Side {
    pub(crate) fn add(&mut self, outcome: &Outcome) {
        let cpu_s = outcome.usage.map_or(0.0, |usage| usage.cpu.as_secs_f64());
        self.keys_per_cpu_second.push(outcome.keys_per_cpu_second().unwrap_or(f64::NAN));
        self.keys_per_second.push(outcome.keys_per_second());
        self.core_share.push(cpu_s / outcome.elapsed.as_secs_f64());
        self.wrong += outcome.tally.wrong;
        self.refused += outcome.tally.refused;
    }
}

/// How two servers compare in one workload.
#[derive(Clone, Debug)]
pub struct Speed {
    /// The workload's name.
    pub contest: &'static str,
    /// Our server.
    pub ours: Side,
    /// The other.
    pub theirs: Side,
}

impl Speed {
    /// Per pair: our work per processor second as a multiple of theirs.
    pub fn ratios(&self) -> Vec<f64> {
        let theirs = &self.theirs.keys_per_cpu_second;
        self.ours
            .keys_per_cpu_second
            .iter()
            .zip(theirs)
            .map(|(ours, theirs)| ours / theirs)
            .collect()
    }
}

/// Compares speed in each of `contests`; `progress` hears what is going on, and `result` of each
/// workload as soon as it is known.
///
/// # Errors
/// When a server does not come up or breaks off. Both are ended in any case.
pub fn speed(
    ours: &Launch,
    theirs: &Launch,
    contests: &[Contest],
    rules: &Rules,
    interrupt: &Interrupt,
    mut progress: impl FnMut(&str),
) -> Result<Vec<Speed>, CompareError> {
    let keyspace = Keyspace::new(rules.keys, KEY_BYTES)?;
    let servers =
        [ServerProcess::start(ours, interrupt)?, ServerProcess::start(theirs, interrupt)?];
    for server in &servers {
        progress(&format!("filling {} with {} items", server.title(), rules.keys));
        let plan = plan(server, rules, 1);
        load::fill(&plan, &Contest::SET.workload(keyspace), interrupt, |_| {})
            .map_err(|source| CompareError::Load { server: server.title(), source })?;
    }
    let mut results = Vec::new();
    for contest in contests {
        let workload = contest.workload(keyspace);
        let mut sides =
            servers.each_ref().map(|server| Side { title: server.title(), ..Side::default() });
        for pair in 0..rules.pairs {
            for turn in 0..2 {
                // 0 1, 1 0, 0 1: neither is always the first.
                let which = (pair + turn) % 2;
                let server = &servers[which];
                let title = server.title();
                progress(&format!(
                    "{}, pair {} of {}: {title}",
                    contest.name,
                    pair + 1,
                    rules.pairs
                ));
                let plan = Plan { seed: 1 + pair as u64, ..plan(server, rules, contest.depth) };
                let outcome = load::run(&plan, &workload, interrupt, |_| {})
                    .map_err(|source| CompareError::Load { server: title, source })?;
                sides[which].add(&outcome);
            }
        }
        let [ours, theirs] = sides;
        results.push(Speed { contest: contest.name, ours, theirs });
    }
    Ok(results)
}

pub(crate) fn plan(server: &ServerProcess, rules: &Rules, depth: usize) -> Plan {
    Plan {
        targets: vec![Target::any_key(server.address())],
        connections: rules.connections,
        threads: 1,
        depth,
        pace: Pace::Closed,
        warm_up: rules.warm_up,
        extent: Extent::Time(rules.round),
        seed: 1,
        cores: rules.load_cores.clone(),
        server_pids: vec![server.pid()],
    }
}

/// What a full server's memory comes to.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The server's name and version.
    pub title: String,
    /// Items that were written.
    pub written: u64,
    /// Items that it holds then.
    pub items: u64,
    /// Its memory in RAM then, in bytes.
    pub resident_bytes: u64,
}

impl Memory {
    /// Resident memory per item held, in bytes.
    pub fn bytes_per_item(&self) -> f64 {
        self.resident_bytes as f64 / self.items.max(1) as f64
    }
}

/// Starts a server, fills it beyond its memory with items of 24-byte keys and 100-byte values (half
/// as many again as would fit if nothing else took memory), and looks what it holds and what that
/// takes.
///
/// # Errors
/// When the server does not come up or breaks off. It is ended in any case.
pub fn memory(
    launch: &Launch,
    load_cores: &[usize],
    interrupt: &Interrupt,
    mut progress: impl FnMut(&str),
) -> Result<Memory, CompareError> {
    let server = ServerProcess::start(launch, interrupt)?;
    progress(&format!("filling {} beyond -m {}", server.title(), launch.memory_mib));
    fill_beyond(&server, launch, VALUE_BYTES, load_cores, interrupt)
}

/// Fills a server that was just started as `launch` says beyond its memory, with values of `value_bytes`,
/// and looks what it holds and what that takes.
pub(crate) fn fill_beyond(
    server: &ServerProcess,
    launch: &Launch,
    value_bytes: usize,
    load_cores: &[usize],
    interrupt: &Interrupt,
) -> Result<Memory, CompareError> {
    let fits = (launch.memory_mib << 20) / (KEY_BYTES + value_bytes) as u64;
    let written = fits * 3 / 2;
    let workload = Workload {
        value_bytes: value_bytes..=value_bytes,
        dialect: launch.kind.dialect(),
        ..Contest::SET.workload(Keyspace::new(written, KEY_BYTES)?)
    };
    let title = server.title();
    let rules = Rules {
        pairs: 1,
        round: Duration::ZERO,
        warm_up: Duration::ZERO,
        connections: 8,
        keys: written,
        load_cores: load_cores.to_vec(),
    };
    load::fill(&plan(server, &rules, 1), &workload, interrupt, |_| {})
        .map_err(|source| CompareError::Load { server: title.clone(), source })?;
    let items = Session::connect(server.address())
        .and_then(|mut session| launch.kind.items(&mut session))
        .map_err(|source| CompareError::Session { server: title.clone(), source })?;
    let resident_bytes = resident_bytes(server.pid())
        .map_err(|source| CompareError::Memory { server: title.clone(), source })?;
    Ok(Memory { title, written, items, resident_bytes })
}

/// Starts a server and replays a trace against it: its name and version, and what came of it.
///
/// # Errors
/// When the server does not come up, or it or the trace breaks off. It is ended in any case.
pub fn hit_ratio<E>(
    launch: &Launch,
    trace: impl IntoIterator<Item = Result<Wanted, E>>,
    interrupt: &Interrupt,
    mut progress: impl FnMut(&str, u64),
) -> Result<(String, Replayed), HitRatioError<E>> {
    let server = ServerProcess::start(launch, interrupt)?;
    let title = server.title();
    progress(&title, 0);
    let note = |requests| progress(&title, requests);
    let replayed = replay(trace, server.address(), 1, Expiry::Log, interrupt, note)?;
    Ok((title, replayed))
}

/// Why a comparison of hit ratios did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum HitRatioError<E> {
    /// The server did not come up.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The replay broke off.
    #[error(transparent)]
    Replay(#[from] ReplayError<E>),
}

/// The middle of `values`, or the mean of the two in the middle; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Reads `memcached` or `memcached=PATH`, or a path alone.
pub fn program_of(text: &str) -> PathBuf {
    PathBuf::from(text.split_once('=').map_or(text, |(_name, path)| path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value_or_the_mean_of_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let side = |rates: &[f64]| Side { keys_per_cpu_second: rates.to_vec(), ..Side::default() };
        let speed =
            Speed { contest: "get", ours: side(&[200.0, 90.0]), theirs: side(&[100.0, 60.0]) };
        assert_eq!(speed.ratios(), [2.0, 1.5]);
    }

    #[test]
    fn a_peer_is_a_name_or_a_name_with_a_path() {
        assert_eq!(program_of("memcached"), PathBuf::from("memcached"));
        assert_eq!(program_of("memcached=/opt/m/memcached"), PathBuf::from("/opt/m/memcached"));
    }
}
