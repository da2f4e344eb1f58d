//! Faults done to a loaded cluster, one after the other, and what came of them.
//!
//! ```text
//! healthy ── choose a victim ── probe its shards ── strike ── a while ── make good ── healthy ── ...
//!                                                      └────────────── gap ──────────────┘
//! ```
//!
//! - The next fault waits until every shard has all its copies again: a cluster of two copies promises
//!   nothing to who takes both.
//! - A *gap* is the longest time without an acknowledged write to shards of the victim, through one node that
//!   survives. Each survivor has a prober of its own, and every fault gives one gap for each of them.
//! - In the end every key is read through every node, and the whole history is judged.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::cluster_rig::{Memory, Rig};
use crate::history::History;
use crate::linearizable::{self, Rules, Summary};
use crate::load::{Load, LoadPlan, Prober, Tally, now_ns};
use crate::model::Key;
use crate::promises::{self, Broken};
use crate::wait::{self, Stopwatch};

/// How long a cluster may take until it is whole again. What a node lost is copied anew.
const WHOLE_LIMIT: Duration = Duration::from_secs(60);
/// How long a shard may go without service once what was broken is made good.
const SERVICE_LIMIT: Duration = Duration::from_secs(10);
/// Keys that probers choose from. Each node serves some of them.
const PROBE_KEYS: u32 = 48;
/// What probers do before a fault, so that their connections are warm.
const WARM_UP: Duration = Duration::from_millis(250);
/// Searches given up that are no failure yet.
const UNDECIDED_MAX: usize = 2;

/// What happens to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL, and started again with its memory file.
    Kill,
    /// SIGKILL, and started again without.
    KillAndEmpty,
    /// SIGKILL, and started again at once.
    KillAndHurry,
    /// SIGSTOP, and SIGCONT.
    Pause,
    /// SIGTERM, and started again.
    Stop,
    /// Cut off from all other nodes; clients still reach it.
    Isolate,
    /// Nothing that it sends reaches other nodes.
    Mute,
    /// Nothing that other nodes send reaches it.
    Deafen,
    /// Cut off from one other node; both reach the third.
    Bridge,
}

/// Whom it happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// A node that serves some shard: any.
    Primary,
    /// The one that leads the control plane.
    Leader,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill -9, warm restart",
            Self::KillAndEmpty => "kill -9, empty restart",
            Self::KillAndHurry => "kill -9, restart at once",
            Self::Pause => "SIGSTOP and SIGCONT",
            Self::Stop => "SIGTERM and restart",
            Self::Isolate => "isolated, reached by clients",
            Self::Mute => "cut off one way, to others",
            Self::Deafen => "cut off one way, from others",
            Self::Bridge => "cut off from one other",
        })
    }
}

/// What is done to a cluster.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// Faults to draw from.
    pub faults: Vec<(Fault, Victim)>,
    /// How many.
    pub rounds: u32,
    /// How long each lasts.
    pub lasts: std::ops::Range<Duration>,
    /// Where all chance comes from, but for the moments of the machine.
    pub seed: u64,
    /// What clients do meanwhile.
    pub load: LoadPlan,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// Gaps of each kind of fault.
    pub gaps: BTreeMap<(Fault, Victim), Vec<Duration>>,
    /// How long it took until all shards had all copies again, from when the fault was made good.
    pub whole_after: Vec<Duration>,
    /// What clients went through.
    pub tally: Tally,
    /// What they saw, judged key by key.
    pub summary: Summary,
    /// What they saw, judged otherwise.
    pub broken: Vec<Broken>,
    /// What it was drawn from.
    pub seed: u64,
}

impl Report {
    /// Fails unless every key is linearizable and every promise kept.
    ///
    /// # Panics
    /// When one is not.
    pub fn assert_right(&self) {
        let broken: Vec<String> = self.broken.iter().take(5).map(Broken::to_string).collect();
        let count = self.broken.len();
        assert!(broken.is_empty(), "seed {}: {count} broken:\n{}", self.seed, broken.join("\n"));
        if let Err(wrong) = self.summary.accept(UNDECIDED_MAX) {
            panic!("seed {}: {wrong}", self.seed);
        }
        assert!(self.tally.answered > 100, "a run in which nothing was answered proves nothing");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { keys, operations, unknown, undecided, .. } = &self.summary;
        let Tally { answered, lost, late, refused } = &self.tally;
        writeln!(
            f,
            "seed {}: {operations} operations on {keys} keys, {unknown} of unknown outcome, {} keys undecided",
            self.seed,
            undecided.len()
        )?;
        writeln!(
            f,
            "  {answered} answered, {lost} connections lost, {late} late, refused: {refused:?}"
        )?;
        for ((fault, victim), gaps) in &self.gaps {
            // In the order of the faults, so that the worst can be found in what the nodes said.
            let worst = (1..).zip(gaps).max_by_key(|(_, gap)| **gap).map_or(0, |(nth, _)| nth);
            writeln!(
                f,
                "  {fault} ({victim:?}): gap without an acknowledged write {}, the worst is no. {worst}",
                Spread(gaps)
            )?;
        }
        writeln!(f, "  whole again after {}", Spread(&self.whole_after))
    }
}

/// The middle, the worst of a hundred, and the worst of some durations.
pub struct Spread<'a>(pub &'a [Duration]);

impl Spread<'_> {
    /// So many of a hundred are at most this; none of none.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.0.to_vec();
        sorted.sort_unstable();
        let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
        sorted.get(place).copied()
    }
}

impl fmt::Display for Spread<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |percent| self.percentile(percent).unwrap_or_default().as_secs_f64();
        let (middle, worst_of_100, worst) = (seconds(50), seconds(99), seconds(100));
        let count = self.0.len();
        write!(f, "median {middle:.3} s, p99 {worst_of_100:.3} s, worst {worst:.3} s of {count}")
    }
}

/// A cluster under load with its probers.
#[derive(Debug)]
pub struct Scene {
    clock: Stopwatch,
    load: Load,
    probers: Vec<(SocketAddr, Prober)>,
    random: StdRng,
    seed: u64,
}

impl Scene {
    /// Loads the nodes of `rig`.
    #[must_use]
    pub fn start(rig: &Rig, plan: &LoadPlan, seed: u64) -> Self {
        let clock = Stopwatch::start();
        let nodes: Vec<SocketAddr> = rig.nodes().iter().map(|node| node.client).collect();
        let load = Load::start(&LoadPlan { seed, ..plan.clone() }, &nodes, clock);
        let start = |(number, &node): (u32, &SocketAddr)| {
            (node, Prober::start(number, node, plan.answer_limit, clock))
        };
        let probers = (1_000..).zip(&nodes).map(start).collect();
        Self { clock, load, probers, random: StdRng::seed_from_u64(seed), seed }
    }

    /// The load, to be told of nodes that come and go.
    #[must_use]
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// What the clock of all operations says.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        now_ns(self.clock)
    }

    /// Has the probers write keys that `victim` serves, or any for none.
    ///
    /// # Panics
    /// When it serves none of many.
    pub fn probe(&self, rig: &Rig, victim: Option<usize>) {
        let names = (0..PROBE_KEYS).map(|number| format!("probe.{number}"));
        let is_meant = |name: &String| victim.is_none() || rig.primary_of(name) == victim;
        let keys: Vec<Key> = names.filter(is_meant).map(String::into_bytes).collect();
        assert!(!keys.is_empty(), "every node serves some of many keys");
        for (_, prober) in &self.probers {
            prober.set_keys(keys.clone());
        }
        wait::pass(WARM_UP);
    }

    /// The longest gap since `from_ns` through each of these nodes.
    #[must_use]
    pub fn gaps(&self, nodes: &[SocketAddr], from_ns: u64) -> Vec<Duration> {
        let to_ns = self.now_ns();
        let is_meant = |(node, prober): &(SocketAddr, Prober)| {
            nodes.contains(node).then(|| prober.longest_gap(from_ns, to_ns))
        };
        self.probers.iter().filter_map(is_meant).collect()
    }

    /// One fault from beginning to end: its gaps, and how long it took until the cluster was whole again.
    ///
    /// # Panics
    /// When the cluster does not come back.
    pub fn play(
        &mut self,
        rig: &mut Rig,
        fault: Fault,
        victim: Victim,
        lasts: Duration,
    ) -> (Vec<Duration>, Duration) {
        rig.wait_healthy(WHOLE_LIMIT);
        let index = match victim {
            Victim::Primary => {
                let probe = format!("probe.{}", self.random.random_range(0..PROBE_KEYS));
                rig.primary_of(&probe).expect("a healthy cluster serves every key")
            }
            Victim::Leader => rig.leader().expect("a healthy cluster has a leader"),
        };
        self.probe(rig, Some(index));
        let others: Vec<usize> =
            rig.running().into_iter().filter(|&other| other != index).collect();
        let survivors: Vec<SocketAddr> =
            others.iter().map(|&other| rig.nodes()[other].client).collect();
        let from_ns = self.now_ns();
        strike(rig, fault, index, &others);
        if fault != Fault::KillAndHurry {
            wait::pass(lasts);
        }
        make_good(rig, fault, index);
        let serving = wait::until(SERVICE_LIMIT, || {
            let gaps = self.gaps(&survivors, self.now_ns().saturating_sub(500_000_000));
            gaps.iter().all(|gap| *gap < Duration::from_millis(400)).then_some(())
        });
        assert!(serving.is_some(), "seed {}: no service after {fault}", self.seed);
        let whole_after = rig.wait_healthy(WHOLE_LIMIT);
        (self.gaps(&survivors, from_ns), whole_after)
    }

    /// Ends the load and judges what was seen.
    ///
    /// # Panics
    /// When a key cannot be read in the end.
    #[must_use]
    pub fn finish(self) -> (History, Tally) {
        let probed = self.probers.into_iter().map(|(_, prober)| prober.finish());
        let probed: Vec<History> = probed.collect();
        let (mut history, tally) = self.load.finish();
        probed.into_iter().for_each(|seen| history.merge(seen));
        (history, tally)
    }
}

/// Runs a campaign.
///
/// # Panics
/// When the cluster does not come back after a fault.
#[must_use]
pub fn run(rig: &mut Rig, campaign: &Campaign) -> Report {
    let mut scene = Scene::start(rig, &campaign.load, campaign.seed);
    let mut random = StdRng::seed_from_u64(campaign.seed);
    let mut gaps: BTreeMap<(Fault, Victim), Vec<Duration>> = BTreeMap::new();
    let mut whole_after = Vec::new();
    for round in 0..campaign.rounds as usize {
        // Each in turn, so that a short campaign has all of them.
        let (fault, victim) = campaign.faults[round % campaign.faults.len()];
        let lasts = random.random_range(campaign.lasts.clone());
        let (seen, whole) = scene.play(rig, fault, victim, lasts);
        gaps.entry((fault, victim)).or_default().extend(seen);
        whole_after.push(whole);
    }
    let (history, tally) = scene.finish();
    judge(&history, tally, campaign.seed, gaps, whole_after)
}

/// What `history` says of the cluster.
#[must_use]
pub fn judge(
    history: &History,
    tally: Tally,
    seed: u64,
    gaps: BTreeMap<(Fault, Victim), Vec<Duration>>,
    whole_after: Vec<Duration>,
) -> Report {
    let summary = linearizable::check(history, Rules::default());
    Report { gaps, whole_after, tally, summary, broken: promises::broken(history), seed }
}

fn strike(rig: &mut Rig, fault: Fault, index: usize, others: &[usize]) {
    let network = || rig.network().expect("to cut takes a network");
    match fault {
        Fault::Kill | Fault::KillAndEmpty | Fault::KillAndHurry => rig.kill(index),
        Fault::Pause => rig.pause(index),
        Fault::Stop => rig.stop(index),
        Fault::Isolate => network().part(&[index], others),
        Fault::Mute => others.iter().for_each(|&other| network().cut(index, other)),
        Fault::Deafen => others.iter().for_each(|&other| network().cut(other, index)),
        Fault::Bridge => network().part(&[index], &others[..1]),
    }
}

fn make_good(rig: &mut Rig, fault: Fault, index: usize) {
    match fault {
        Fault::Kill | Fault::KillAndHurry | Fault::Stop => rig.restart(index, Memory::Kept),
        Fault::KillAndEmpty => rig.restart(index, Memory::Lost),
        Fault::Pause => rig.resume(index),
        Fault::Isolate | Fault::Mute | Fault::Deafen | Fault::Bridge => {
            rig.network().expect("it was cut").heal();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let all: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let spread = Spread(&all);
        assert_eq!(spread.percentile(50), Some(Duration::from_millis(100)));
        assert_eq!(spread.percentile(99), Some(Duration::from_millis(198)));
        assert_eq!(spread.percentile(100), Some(Duration::from_millis(200)));
        assert_eq!(Spread(&[]).percentile(50), None);
        assert_eq!(Spread(&all[..1]).percentile(50), Some(all[0]));
    }
}
