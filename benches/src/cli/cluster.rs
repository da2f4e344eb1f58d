//! `cache-bench cluster`: what replication costs, and what it saves when a node is lost.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::parse::{parse_duration, parse_memory_mib};
use super::{Cores, Verdict, progress_bar};
use crate::compare::median;
use crate::interrupt::Interrupt;
use crate::replication::{self, Cost, Errand, Loss, Rules};
use crate::report::{Cell, Output, Report};

/// Clusters of our server beside one server alone, on this machine.
///
/// All servers are started alike and share one core, the load has another. In interleaved rounds each is
/// loaded in turn, and its work counted per second of processor time, that of all nodes of a cluster
/// together; `ratio` is the median of the rounds, the cluster's to the lone server's. The clusters hold two
/// copies of every item, and both acknowledge a set. `ratio_apart` is the cluster's to as many servers without
/// a cluster, each asked for what a node leads: what is missing to 1 there is the cluster's own doing, and what
/// is missing besides is the price of several processes on one core.
#[derive(Debug, Args)]
pub(super) struct ClusterArgs {
    /// Our server's executable.
    #[arg(long, value_name = "PATH")]
    ours: PathBuf,
    /// What to measure; several may be named, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Measure::Cost, Measure::Loss])]
    measure: Vec<Measure>,
    /// Only the errands whose names begin so: set, "get forwarded".
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
    /// Sizes of the clusters.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [2, 3],
          value_parser = clap::value_parser!(u16).range(2..=8))]
    nodes: Vec<u16>,
    /// Worker threads of each node (the server alone has one).
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=64))]
    threads: u64,
    /// Rounds for each errand and server.
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,
    /// How long a round is measured.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    round: Duration,
    /// How long a server is loaded before each round.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_duration)]
    warm_up: Duration,
    /// Items that everybody holds while costs are compared.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    keys: u64,
    /// What each server may hold while costs are compared: -m (in whole MiB).
    #[arg(long, value_name = "BYTES", default_value = "256m", value_parser = parse_memory_mib)]
    memory: u64,
    /// What each server may hold when a node is lost.
    #[arg(long, value_name = "BYTES", default_value = "64m", value_parser = parse_memory_mib)]
    memory_lost: u64,
    /// How long hits are counted before the loss of a node, and thrice after; the cluster is read for thrice
    /// as long before.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    window: Duration,
    /// Let servers and load run on any core.
    #[arg(long)]
    any_core: bool,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measure {
    /// Work per second of processor time.
    Cost,
    /// Hits when a node of a full cluster is killed.
    Loss,
}

impl ClusterArgs {
    pub(super) fn execute(&self, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
        let cores = if self.any_core {
            Cores { server: Vec::new(), load: Vec::new() }
        } else {
            Cores::of_this_machine()?
        };
        let rules = Rules {
            program: self.ours.clone(),
            nodes: self.nodes.clone(),
            threads: usize::try_from(self.threads)?,
            memory_mib: self.memory,
            rounds: usize::try_from(self.rounds)?,
            round: self.round,
            warm_up: self.warm_up,
            keys: self.keys,
            server_cores: cores.server,
            load_cores: cores.load,
        };
        let bar = progress_bar(None);
        let progress = |doing: &str| bar.set_message(doing.to_owned());
        let mut wrong = 0;
        if self.measure.contains(&Measure::Cost) {
            let errands: Vec<Errand> =
                Errand::ALL.into_iter().filter(|it| it.name.starts_with(&self.only)).collect();
            let costs = replication::costs(&errands, &rules, interrupt, progress)?;
            wrong += costs
                .iter()
                .map(|cost| cost.alone.wrong + cost.apart.wrong + cost.cluster.wrong)
                .sum::<u64>();
            bar.suspend(|| cost_report(&costs).write(self.output, &mut io::stdout().lock()))?;
        }
        if self.measure.contains(&Measure::Loss) {
            let rules = Rules {
                memory_mib: self.memory_lost,
                round: self.window,
                warm_up: 3 * self.window,
                ..rules
            };
            let losses = self
                .nodes
                .iter()
                .map(|&nodes| replication::lose_a_node(nodes, &rules, interrupt, progress))
                .collect::<Result<Vec<_>, _>>()?;
            wrong += losses.iter().map(|loss| loss.wrong).sum::<u64>();
            bar.suspend(|| loss_report(&losses).write(self.output, &mut io::stdout().lock()))?;
        }
        bar.finish_and_clear();
        Ok(Verdict::of(wrong))
    }
}

/// A row for each errand and cluster.
fn cost_report(costs: &[Cost]) -> Report {
    let mut report = Report::new(&[
        "errand",
        "connections",
        "depth",
        "nodes",
        "ratio",
        "ratio_min",
        "ratio_max",
        "goal",
        "ratio_apart",
        "keys_per_cpu_s",
        "alone_keys_per_cpu_s",
        "apart_keys_per_cpu_s",
        "keys_per_s",
        "alone_keys_per_s",
        "refused",
        "wrong_values",
    ]);
    for cost in costs {
        let Cost { errand, nodes, alone, apart, cluster } = cost;
        let ratios = cost.ratios();
        let extreme = |pick: fn(f64, f64) -> f64| ratios.iter().copied().reduce(pick);
        report.push(vec![
            errand.name.into(),
            (errand.connections as u64).into(),
            (errand.depth as u64).into(),
            u64::from(*nodes).into(),
            Cell::Real(median(&ratios), 3),
            Cell::real(extreme(f64::min), 3),
            Cell::real(extreme(f64::max), 3),
            Cell::real(errand.goal, 2),
            Cell::Real(median(&cost.ratios_to_apart()), 3),
            Cell::Real(median(&cluster.keys_per_cpu_second), 0),
            Cell::Real(median(&alone.keys_per_cpu_second), 0),
            Cell::Real(median(&apart.keys_per_cpu_second), 0),
            Cell::Real(median(&cluster.keys_per_second), 0),
            Cell::Real(median(&alone.keys_per_second), 0),
            (alone.refused + apart.refused + cluster.refused).into(),
            (alone.wrong + apart.wrong + cluster.wrong).into(),
        ]);
    }
    report
}

/// A row for each cluster.
fn loss_report(losses: &[Loss]) -> Report {
    let mut report = Report::new(&[
        "nodes",
        "hit_ratio",
        "after_1",
        "after_2",
        "after_3",
        "capacity_before",
        "capacity_after",
        "beyond_capacity_points",
        "refused",
        "wrong_values",
    ]);
    for loss in losses {
        let after = |window: usize| Cell::real(loss.after.get(window).copied(), 4);
        report.push(vec![
            u64::from(loss.nodes).into(),
            Cell::Real(loss.before, 4),
            after(0),
            after(1),
            after(2),
            Cell::Real(loss.capacity_before, 4),
            Cell::Real(loss.capacity_after, 4),
            Cell::Real(100.0 * loss.beyond_capacity(), 2),
            loss.refused.into(),
            loss.wrong.into(),
        ]);
    }
    report
}
