//! `cache-bench restart`: how soon a server that was ended gives hits again.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use nix::sys::signal::Signal;

use super::parse::{parse_items_bytes, parse_memory_mib};
use super::{Cores, Verdict, progress_bar};
use crate::compare::{self, median};
use crate::cores;
use crate::interrupt::Interrupt;
use crate::report::{Cell, Output, Report};
use crate::restart::{self, Contender, Series};
use crate::server_process::{Kind, Launch};

/// Restarts over a memory file, side by side on this machine.
///
/// Both servers keep the same items in a file (-e) in one folder, tmpfs best. Each is ended and
/// started again, round by round: ours after a stop and after a kill, on one core and on all; the
/// other after a stop, on one core. `ratio` is the median of the rounds' ratios of the time to the
/// first hit, to that of the other server. The exit code is 1 if a value was wrong or missing.
#[derive(Debug, Args)]
pub(super) struct RestartArgs {
    /// Our server's executable.
    #[arg(long, value_name = "PATH")]
    ours: PathBuf,
    /// The server to compare with, found by its name or at a path; it has to know -e.
    #[arg(long, value_name = "NAME[=PATH]", default_value = "memcached")]
    against: String,
    /// Where the files are put while this runs.
    #[arg(long, value_name = "FOLDER", default_value = "/dev/shm")]
    folder: PathBuf,
    /// Keys and values of all items together.
    #[arg(long, value_name = "BYTES", default_value = "1g", value_parser = parse_items_bytes)]
    items: u64,
    /// Length of each key, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 20)]
    key_bytes: usize,
    /// Length of each value, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    value_bytes: usize,
    /// What the servers may hold: -m of both (in whole MiB) [default: two and a half times the items].
    #[arg(long, value_name = "BYTES", value_parser = parse_memory_mib)]
    memory: Option<u64>,
    /// Rounds, each with one restart of every kind.
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,
    /// Keys looked at after each restart.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    sample: u64,
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

impl RestartArgs {
    pub(super) fn execute(&self, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
        let cores = Cores::of_this_machine()?;
        let all_cores = cores::allowed().context("cannot ask which cores there are")?;
        let item_bytes = u64::try_from(self.key_bytes + self.value_bytes)?;
        let folder = tempfile::tempdir_in(&self.folder)
            .with_context(|| format!("cannot put files in {}", self.folder.display()))?;
        // Started by root, the servers run as somebody else.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777))?;
        let memory_mib = self.memory.unwrap_or_else(|| (5 * self.items).div_ceil(2 << 20));
        let threads = OsString::from(format!("-t{}", all_cores.len()));
        let contender = |program: PathBuf, extra: &[OsString], stop, survives_kills| Contender {
            launch: Launch {
                kind: Kind::Memcached,
                program,
                memory_mib,
                connections: 64,
                cores: cores.server.clone(),
                extra: std::iter::once(&threads).chain(extra).cloned().collect(),
            },
            stop,
            survives_kills,
        };
        let theirs = compare::program_of(&self.against);
        // memcached leaves its memory behind after this signal alone.
        let theirs = contender(theirs, &self.against_arg, Signal::SIGUSR1, false);
        let ours = contender(self.ours.clone(), &self.ours_arg, Signal::SIGTERM, true);
        let rules = restart::Rules {
            rounds: usize::try_from(self.rounds)?,
            keys: self.items / item_bytes.max(1),
            key_bytes: self.key_bytes,
            value_bytes: self.value_bytes,
            sample: usize::try_from(self.sample)?,
            folder: folder.path().to_owned(),
            load_cores: cores.load,
            all_cores,
        };
        let bar = progress_bar(None);
        let series = restart::restarts(&theirs, &ours, &rules, interrupt, |doing| {
            bar.set_message(doing.to_owned());
        })?;
        bar.finish_and_clear();
        restart_report(&series, rules.keys).write(self.output, &mut io::stdout().lock())?;
        let restarts = series.iter().flat_map(|series| &series.restarts);
        Ok(Verdict::of(restarts.map(|restart| restart.missing + restart.wrong).sum()))
    }
}

/// A row for each kind of restart, theirs first.
fn restart_report(series: &[Series], keys: u64) -> Report {
    let mut report = Report::new(&[
        "server",
        "ended",
        "cores",
        "rounds",
        "items",
        "accepts_ms",
        "first_hit_ms",
        "first_hit_ms_min",
        "first_hit_ms_max",
        "ratio",
        "all_back_ms",
        "end_ms",
        "missing",
        "wrong_values",
    ]);
    let Some(theirs) = series.first() else { return report };
    for it in series {
        let first_hits = it.restarts.iter().map(|restart| restart.first_hit_ms);
        report.push(vec![
            it.title.as_str().into(),
            it.ending.name().into(),
            (it.cores as u64).into(),
            (it.restarts.len() as u64).into(),
            keys.into(),
            Cell::Real(it.median(|restart| restart.accepts_ms), 1),
            Cell::Real(it.median(|restart| restart.first_hit_ms), 1),
            Cell::real(first_hits.clone().reduce(f64::min), 1),
            Cell::real(first_hits.reduce(f64::max), 1),
            Cell::Real(it.ratio(theirs), 3),
            Cell::Real(it.median(|restart| restart.all_back_ms), 1),
            Cell::Real(median(&it.stop_ms), 1),
            it.restarts.iter().map(|restart| restart.missing).sum::<u64>().into(),
            it.restarts.iter().map(|restart| restart.wrong).sum::<u64>().into(),
        ]);
    }
    report
}
