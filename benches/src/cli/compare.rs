//! `cache-bench compare`: two servers side by side.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use sim::ttl::TtlRule;

use super::parse::{parse_duration, parse_memory_mib};
use super::replay::{FormatArgs, note_malformed, open_log, replay_cells};
use super::{CONNECTIONS_MAX, Cores, Verdict, note_samples, progress_bar};
use crate::compare::{self, Contest, Rules, Speed, median};
use crate::interrupt::Interrupt;
use crate::report::{Cell, Output, Report};
use crate::server_process::{Kind, Launch};

/// Two servers side by side on this machine.
///
/// Both are started with memcached's flags, one worker thread each, pinned to the same core, the
/// load on another. Speed is compared in interleaved pairs of rounds by keys read or written per
/// second of the server's processor time; `ratio` is the median of the pairs, ours to theirs.
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// Our server's executable.
    #[arg(long, value_name = "PATH")]
    ours: PathBuf,
    /// The server to compare with, found by its name or at a path.
    #[arg(long, value_name = "NAME[=PATH]", default_value = "memcached")]
    against: Vec<String>,
    /// What to compare; several may be named, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',',
          default_values_t = [WorkloadArg::Get, WorkloadArg::GetDepth16, WorkloadArg::MultiGet50,
                              WorkloadArg::Set, WorkloadArg::Mixed])]
    workload: Vec<WorkloadArg>,
    /// Pairs of rounds per workload.
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    pairs: u64,
    /// How long a round is measured.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    round: Duration,
    /// How long a server is loaded before each round.
    #[arg(long, value_name = "TIME", default_value = "300ms", value_parser = parse_duration)]
    warm_up: Duration,
    /// Connections to a server.
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,
    /// Items that both servers hold while their speed is compared.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    keys: u64,
    /// What the servers may hold: -m of both (in whole MiB) [default: 1g for speed, 256m for
    /// memory; hit-ratio needs it named].
    #[arg(long, value_name = "BYTES", value_parser = parse_memory_mib)]
    memory: Option<u64>,
    /// The trace of hit-ratio; packed with zstd or not.
    #[arg(long, value_name = "PATH")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
    /// A further flag for our server; may be repeated.
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    ours_arg: Vec<OsString>,
    /// A further flag for the other server; may be repeated.
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    against_arg: Vec<OsString>,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WorkloadArg {
    /// Gets, one at a time on each connection.
    Get,
    /// Gets, sixteen in a pipeline on each connection.
    #[value(name = "get-depth-16")]
    GetDepth16,
    /// Gets of 50 keys.
    #[value(name = "multi-get-50")]
    MultiGet50,
    /// Sets, one at a time on each connection.
    Set,
    /// 95 gets to 5 sets, zipf.
    Mixed,
    /// Resident memory per item of a full server (24-byte keys, 100-byte values).
    Memory,
    /// The hit ratio that a trace meets at equal memory (--trace, --memory).
    HitRatio,
}

impl WorkloadArg {
    fn contest(self) -> Option<Contest> {
        match self {
            Self::Get => Some(Contest::GET),
            Self::GetDepth16 => Some(Contest::GET_PIPELINE),
            Self::MultiGet50 => Some(Contest::MULTI_GET),
            Self::Set => Some(Contest::SET),
            Self::Mixed => Some(Contest::MIXED),
            Self::Memory | Self::HitRatio => None,
        }
    }
}

impl CompareArgs {
    pub(super) fn execute(&self, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
        if self.workload.contains(&WorkloadArg::HitRatio) {
            ensure!(self.trace.is_some(), "hit-ratio needs --trace");
            ensure!(self.memory.is_some(), "hit-ratio needs --memory");
        } else if self.trace.is_some() {
            bail!("--trace is for --workload hit-ratio");
        }
        let cores = Cores::of_this_machine()?;
        let contests: Vec<Contest> =
            self.workload.iter().filter_map(|workload| workload.contest()).collect();
        let mut verdict = Verdict::Sound;
        for against in &self.against {
            let theirs = compare::program_of(against);
            if !contests.is_empty() {
                self.compare_speed(&theirs, &contests, &cores, interrupt, &mut verdict)?;
            }
            if self.workload.contains(&WorkloadArg::Memory) {
                self.compare_memory(&theirs, &cores, interrupt)?;
            }
            if let Some(trace) = &self.trace {
                self.compare_hit_ratio(&theirs, trace, &cores, interrupt, &mut verdict)?;
            }
        }
        Ok(verdict)
    }

    /// Our server and theirs, to be started alike.
    fn launches(&self, theirs: &Path, memory_mib: u64, cores: &Cores) -> [Launch; 2] {
        // Room beside the load for the connections that ask for statistics.
        let connections = usize::try_from(self.connections).unwrap_or(usize::MAX).max(1024) + 16;
        let launch = |program: &Path, extra: &[OsString]| Launch {
            kind: Kind::Memcached,
            program: program.to_owned(),
            memory_mib,
            connections,
            cores: cores.server.clone(),
            extra: extra.to_vec(),
        };
        [launch(&self.ours, &self.ours_arg), launch(theirs, &self.against_arg)]
    }

    fn compare_speed(
        &self,
        theirs: &Path,
        contests: &[Contest],
        cores: &Cores,
        interrupt: &Interrupt,
        verdict: &mut Verdict,
    ) -> anyhow::Result<()> {
        let [ours, theirs] = self.launches(theirs, self.memory.unwrap_or(1024), cores);
        let rules = Rules {
            pairs: usize::try_from(self.pairs)?,
            round: self.round,
            warm_up: self.warm_up,
            connections: usize::try_from(self.connections)?,
            keys: self.keys,
            load_cores: cores.load.clone(),
        };
        let bar = progress_bar(None);
        let results = compare::speed(&ours, &theirs, contests, &rules, interrupt, |doing| {
            bar.set_message(doing.to_owned());
        })?;
        bar.finish_and_clear();
        if results.iter().any(|speed| speed.ours.wrong + speed.theirs.wrong > 0) {
            *verdict = Verdict::WrongValues;
        }
        speed_report(&results).write(self.output, &mut io::stdout().lock())?;
        Ok(())
    }

    fn compare_memory(
        &self,
        theirs: &Path,
        cores: &Cores,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        let bar = progress_bar(None);
        let [ours, theirs] =
            self.launches(theirs, self.memory.unwrap_or(256), cores).map(|launch| {
                compare::memory(&launch, &cores.load, interrupt, |doing| {
                    bar.set_message(doing.to_owned());
                })
            });
        let sides = [ours?, theirs?];
        bar.finish_and_clear();
        let theirs_bytes = sides[1].bytes_per_item();
        let mut report = Report::new(&[
            "server",
            "items_written",
            "items_held",
            "rss_bytes",
            "rss_bytes_per_item",
            "ratio",
        ]);
        for side in &sides {
            report.push(vec![
                side.title.as_str().into(),
                side.written.into(),
                side.items.into(),
                side.resident_bytes.into(),
                Cell::Real(side.bytes_per_item(), 1),
                Cell::Real(side.bytes_per_item() / theirs_bytes, 3),
            ]);
        }
        report.write(self.output, &mut io::stdout().lock())?;
        Ok(())
    }

    fn compare_hit_ratio(
        &self,
        theirs: &Path,
        path: &Path,
        cores: &Cores,
        interrupt: &Interrupt,
        verdict: &mut Verdict,
    ) -> anyhow::Result<()> {
        let memory_mib = self.memory.context("hit-ratio needs --memory")?;
        let mut columns = vec!["server", "memory_mib"];
        let mut rows = Vec::new();
        let log = self.format.log(path, TtlRule::Log);
        for launch in self.launches(theirs, memory_mib, cores) {
            let mut requests = open_log(&log)?;
            let bar = progress_bar(None);
            let (title, replayed) =
                compare::hit_ratio(&launch, requests.by_ref(), interrupt, |title, requests| {
                    bar.set_message(title.to_owned());
                    bar.set_position(requests);
                })?;
            bar.finish_and_clear();
            note_malformed(requests.malformed(), path)?;
            note_samples(&replayed.samples)?;
            if replayed.wrong > 0 {
                *verdict = Verdict::WrongValues;
            }
            let (names, cells): (Vec<_>, Vec<_>) =
                replay_cells(path, &replayed).into_iter().unzip();
            if rows.is_empty() {
                columns.extend(names);
            }
            rows.push([vec![title.into(), memory_mib.into()], cells].concat());
        }
        let mut report = Report::new(&columns);
        rows.into_iter().for_each(|row| report.push(row));
        report.write(self.output, &mut io::stdout().lock())?;
        Ok(())
    }
}

/// A row a workload.
fn speed_report(results: &[Speed]) -> Report {
    let mut report = Report::new(&[
        "workload",
        "ours",
        "theirs",
        "pairs",
        "ratio",
        "ratio_min",
        "ratio_max",
        "ours_keys_per_cpu_s",
        "theirs_keys_per_cpu_s",
        "ours_keys_per_s",
        "theirs_keys_per_s",
        "ours_core_share",
        "theirs_core_share",
        "refused",
        "wrong_values",
    ]);
    for speed in results {
        let Speed { contest, ours, theirs } = speed;
        let ratios = speed.ratios();
        let extreme = |pick: fn(f64, f64) -> f64| ratios.iter().copied().reduce(pick);
        report.push(vec![
            (*contest).into(),
            ours.title.as_str().into(),
            theirs.title.as_str().into(),
            (ratios.len() as u64).into(),
            Cell::Real(median(&ratios), 3),
            Cell::real(extreme(f64::min), 3),
            Cell::real(extreme(f64::max), 3),
            Cell::Real(median(&ours.keys_per_cpu_second), 0),
            Cell::Real(median(&theirs.keys_per_cpu_second), 0),
            Cell::Real(median(&ours.keys_per_second), 0),
            Cell::Real(median(&theirs.keys_per_second), 0),
            Cell::Real(median(&ours.core_share), 2),
            Cell::Real(median(&theirs.core_share), 2),
            (ours.refused + theirs.refused).into(),
            (ours.wrong + theirs.wrong).into(),
        ]);
    }
    report
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Task};

    #[test]
    fn what_is_compared_by_default_is_speed() {
        let cli = Cli::try_parse_from(["cache-bench", "compare", "--ours", "x"]).unwrap();
        let Task::Compare(args) = cli.command else { panic!("a comparison was asked for") };
        let contests: Vec<_> = args.workload.iter().filter_map(|w| w.contest()).collect();
        assert_eq!(contests, Contest::ALL);
    }
}
