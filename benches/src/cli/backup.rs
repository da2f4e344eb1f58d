//! `cache-bench backup`: what clients notice of a backup.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::parse::{parse_duration, parse_memory_mib};
use super::{CONNECTIONS_MAX, Cores, Verdict, progress_bar};
use crate::backup::{self, Notice, Round};
use crate::compare::{Rules, median};
use crate::interrupt::Interrupt;
use crate::report::{Cell, Output, Report};
use crate::server_process::{Kind, Launch};

/// Our server under full load, with a backup going on and without.
///
/// The server has a core of its own. The load (95 gets to 5 sets, zipf) and the backup share the
/// others, so what is told is rather more than what a backup from another machine would cost. The
/// exit code is 1 if a request failed.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// Our server's executable.
    #[arg(long, value_name = "PATH")]
    ours: PathBuf,
    /// Pairs of rounds, one with a backup and one without.
    #[arg(long, value_name = "N", default_value_t = 7,
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    pairs: u64,
    /// How long a round is measured.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    round: Duration,
    /// How long the server is loaded before each round.
    #[arg(long, value_name = "TIME", default_value = "300ms", value_parser = parse_duration)]
    warm_up: Duration,
    /// Connections to the server.
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,
    /// Items that the server holds.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    keys: u64,
    /// What the server may hold: -m (in whole MiB).
    #[arg(long, value_name = "BYTES", default_value = "1g", value_parser = parse_memory_mib)]
    memory: u64,
    /// A further flag for the server; may be repeated.
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    ours_arg: Vec<OsString>,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl BackupArgs {
    pub(super) fn execute(&self, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
        let cores = Cores::of_this_machine()?;
        let connections = usize::try_from(self.connections)?;
        let launch = Launch {
            kind: Kind::Memcached,
            program: self.ours.clone(),
            memory_mib: self.memory,
            // Room for the backup beside the load.
            connections: connections + 16,
            cores: cores.server,
            extra: self.ours_arg.clone(),
        };
        let rules = Rules {
            pairs: usize::try_from(self.pairs)?,
            round: self.round,
            warm_up: self.warm_up,
            connections,
            keys: self.keys,
            load_cores: cores.load,
        };
        let bar = progress_bar(None);
        let notice = backup::notice(&launch, &rules, interrupt, |doing| {
            bar.set_message(doing.to_owned());
        })?;
        bar.finish_and_clear();
        backup_report(&notice).write(self.output, &mut io::stdout().lock())?;
        Ok(Verdict::of(notice.with.iter().chain(&notice.without).map(|round| round.failed).sum()))
    }
}

/// Medians of the rounds with a backup and of those without, and of the pairs' ratios.
fn backup_report(notice: &Notice) -> Report {
    let median_of = |rounds: &[Round], of: &dyn Fn(&Round) -> f64| {
        median(&rounds.iter().map(of).collect::<Vec<_>>())
    };
    let mut cells: Vec<(&'static str, Cell)> = vec![
        ("pairs", (notice.with.len() as u64).into()),
        ("backups", notice.backed_up.whole.into()),
        ("backup_bytes", notice.backed_up.bytes.into()),
        ("failed", notice.with.iter().map(|round| round.failed).sum::<u64>().into()),
    ];
    for (quantile, names) in [
        (0.5, ["p50_us", "p50_us_with_backup", "p50_ratio"]),
        (0.99, ["p99_us", "p99_us_with_backup", "p99_ratio"]),
        (0.999, ["p99.9_us", "p99.9_us_with_backup", "p99.9_ratio"]),
    ] {
        let latency_us = |round: &Round| round.latency_us(quantile);
        let [without, with, ratio] = names;
        cells.push((without, Cell::Real(median_of(&notice.without, &latency_us), 1)));
        cells.push((with, Cell::Real(median_of(&notice.with, &latency_us), 1)));
        cells.push((ratio, Cell::Real(notice.ratio(quantile), 2)));
    }
    let rate = |round: &Round| round.requests_per_second;
    cells.push(("requests_per_second", Cell::Real(median_of(&notice.without, &rate), 0)));
    cells.push(("requests_per_second_with_backup", Cell::Real(median_of(&notice.with, &rate), 0)));
    Report::of_one(cells)
}
