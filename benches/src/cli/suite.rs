//! `cache-bench suite`: flags into a plan, and its report into a table and files.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sim::html::command_line;

use super::parse::parse_duration;
use super::{Cores, Verdict};
use crate::cores;
use crate::interrupt::Interrupt;
use crate::report::Output;
use crate::suite::contestant::Contestant;
use crate::suite::figures::{self, Report};
use crate::suite::rows::{self, Scale};
use crate::suite::{self, Observer, Plan, Rules, SuiteError, html, table};

/// All workloads, our server beside any number of others, in one report.
///
/// Every row is run in interleaved rounds, all servers on one core and the load on another, and an echo
/// server beside them that only moves the bytes. Told are medians of the rounds' ratios and how far they
/// spread. A round that other programs disturbed is run again; a row that could not be measured
/// undisturbed has no figures. The exit code is 1, and there is no report, if a server gave a wrong value;
/// it is 1 as well if a row broke off.
#[derive(Debug, Args)]
pub(super) struct SuiteArgs {
    /// Our server's executable.
    #[arg(long, value_name = "PATH", required_unless_present = "list")]
    ours: Option<PathBuf>,
    /// Servers to compare with: names found in PATH, or at a path, with flags of their own
    /// ('old=/opt/old/memcached -t 1'); several are separated by commas. Redis is known by
    /// its name or its --version; others must take memcached's flags.
    #[arg(
        long,
        value_name = "NAME[=PATH[ FLAGS]]",
        value_delimiter = ',',
        default_value = "memcached"
    )]
    against: Vec<String>,
    /// Rows to run, by name or by group (speed, latency, memory, hits), separated by commas; --list
    /// names them [default: all].
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    rows: Vec<String>,
    /// Name the rows and what they are, and run none.
    #[arg(long)]
    list: bool,
    /// Rounds of each row [default: 7, or 2 with --quick].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: Option<u64>,
    /// How long a round is measured [default: 2s, or 50ms with --quick].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    round: Option<Duration>,
    /// How long a server is loaded before each round [default: 300ms, or 10ms with --quick].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    warm_up: Option<Duration>,
    /// A fiftieth of the items and short rounds: shows that everything works, and nothing else.
    #[arg(long)]
    quick: bool,
    /// The largest share of a round that server or load may have waited for a core, or the hypervisor
    /// kept from one; on shared cores, that other programs used.
    #[arg(long, value_name = "SHARE", default_value_t = NOISE_MAX_DEFAULT, value_parser = parse_share)]
    noise_max: f64,
    /// Count rounds that are noisier, and mark their rows.
    #[arg(long)]
    allow_noise: bool,
    /// Do not count system calls.
    #[arg(long)]
    no_syscalls: bool,
    /// Logs to be replayed beside those made up, and folders of *.oracleGeneral.zst, separated by commas.
    #[arg(long, value_name = "PATH", value_delimiter = ',')]
    traces: Vec<PathBuf>,
    /// Memory of a log's replay, in percent of what its objects take together; several are separated by
    /// commas.
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', default_value = "5,20",
          value_parser = parse_percent)]
    memory_percent: Vec<f64>,
    /// Write all figures, and where they are from, to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with pictures to this file too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// A further flag for our server; may be repeated.
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    ours_arg: Vec<std::ffi::OsString>,
    /// How figures are printed.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// What a quiet machine stays below, and one with a neighbour does not.
const NOISE_MAX_DEFAULT: f64 = 0.02;

impl SuiteArgs {
    pub(super) fn execute(&self, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
        let scale = if self.quick { Scale::Quick } else { Scale::Full };
        let rows = rows::chosen(scale, &self.rows).map_err(anyhow::Error::msg)?;
        if self.list {
            let mut out = io::stdout().lock();
            for row in rows {
                writeln!(out, "{:17} {:8} {}", row.name, row.task.group(), row.about)?;
            }
            return Ok(Verdict::Sound);
        }
        let plan = self.plan(rows, scale)?;
        allow_many_files()?;
        // Whatever waits and prints here keeps off the servers' core.
        cores::pin(&plan.rules.load_cores).context("cannot run on the load's cores")?;
        let mut progress = Progress::new();
        let report = suite::run(&plan, interrupt, &mut progress);
        progress.bar.finish_and_clear();
        let report = match report {
            Err(SuiteError::Interrupted(report)) => {
                // What was measured was measured.
                self.write(&report)?;
                return Err(SuiteError::Interrupted(report).into());
            }
            report => report?,
        };
        self.write(&report)?;
        let failed = |row: &figures::Row| matches!(row.verdict, figures::Verdict::Failed(_));
        ensure!(!report.rows.iter().any(failed), "a row broke off");
        Ok(Verdict::Sound)
    }

    fn plan(&self, rows: Vec<rows::Row>, scale: Scale) -> anyhow::Result<Plan> {
        let Cores { server, load } = Cores::of_this_machine()?;
        let others: Vec<Contestant> =
            self.against.iter().map(|text| Contestant::parse(text)).collect::<Result<_, _>>()?;
        let ours = Contestant::ours(self.ours.clone().unwrap_or_default(), self.ours_arg.clone());
        let mut names: Vec<&str> = others.iter().map(|it| it.name.as_str()).collect();
        names.extend([ours.name.as_str(), suite::ECHO]);
        names.sort_unstable();
        let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
        ensure!(twice.is_none(), "two servers are called '{}'", twice.map_or("", |pair| pair[0]));
        let (rounds, round_ms, warm_up_ms) = if self.quick { (2, 50, 10) } else { (7, 2000, 300) };
        Ok(Plan {
            ours,
            others,
            echo: std::env::current_exe().context("cannot find this program")?,
            rows,
            rules: Rules {
                rounds: usize::try_from(self.rounds.unwrap_or(rounds))?,
                round: self.round.unwrap_or_else(|| Duration::from_millis(round_ms)),
                warm_up: self.warm_up.unwrap_or_else(|| Duration::from_millis(warm_up_ms)),
                noise_max: self.noise_max,
                noise_allowed: self.allow_noise,
                scale,
                counts_syscalls: !self.no_syscalls,
                server_cores: server,
                load_cores: load,
                traces: self.traces.clone(),
                memory_shares: self.memory_percent.iter().map(|percent| percent / 100.0).collect(),
            },
            command: command_line(std::env::args()),
        })
    }

    fn write(&self, report: &Report) -> anyhow::Result<()> {
        let write_to = |path: &Path, text: &str| {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        let json = serde_json::to_string_pretty(report)? + "\n";
        if let Some(path) = &self.json {
            write_to(path, &json)?;
        }
        if let Some(path) = &self.html {
            let mut page = String::new();
            html::page(report, &mut page)?;
            write_to(path, &page)?;
        }
        let mut out = io::stdout().lock();
        match self.output {
            Output::Json => out.write_all(json.as_bytes())?,
            output => table::of(report).write(output, &mut out)?,
        }
        Ok(())
    }
}

/// A thousand connections are more files than a process may open by default.
fn allow_many_files() -> anyhow::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("cannot open many files")
}

/// How far a suite is, on a terminal.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new() -> Self {
        let bar = ProgressBar::new(0);
        // A template that cannot be read would leave the default look.
        let style = ProgressStyle::with_template("{wide_msg} {bar:20} {pos}/{len} {elapsed}");
        Self { bar: style.map_or_else(|_| ProgressBar::new(0), |style| bar.with_style(style)) }
    }
}

impl Observer for Progress {
    fn expect(&mut self, steps: u64) {
        self.bar.inc_length(steps);
    }

    fn begin(&mut self, doing: &str) {
        self.bar.set_message(doing.to_owned());
        self.bar.tick();
    }

    fn done(&mut self) {
        self.bar.inc(1);
    }

    fn note(&mut self, text: &str) {
        // Above the bar, or, without a terminal, as a line of standard error.
        self.bar.suspend(|| {
            // Without standard error there is nobody left to tell.
            let _ = writeln!(io::stderr(), "cache-bench: {text}");
        });
    }

    fn row(&mut self, row: &figures::Row) {
        table::in_lines(row).iter().for_each(|line| self.note(line));
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a share from 0 to 1".to_owned())
}

fn parse_percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok().filter(|percent| *percent > 0.0 && *percent <= 1000.0);
    percent.ok_or_else(|| "expected a number of percent above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_percents_have_bounds() {
        assert_eq!(parse_share("0.02"), Ok(0.02));
        assert_eq!(parse_percent("12.5"), Ok(12.5));
        for text in ["-0.1", "1.1", "x", "NaN"] {
            assert!(parse_share(text).is_err(), "{text}");
        }
        assert!(parse_percent("0").is_err() && parse_percent("inf").is_err());
    }
}
