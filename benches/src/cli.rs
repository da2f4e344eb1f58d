//! The command line of cache-bench: flags into plans, and results into reports. A subcommand a file.

mod backup;
mod client;
mod cluster;
mod compare;
mod echo;
mod parse;
mod replay;
mod restart;
mod run;
mod sessions;
mod suite;

use std::fmt::Write as _;
use std::io::{self, Write as _};

use anyhow::Context;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use self::backup::BackupArgs;
use self::cluster::ClusterArgs;
use self::compare::CompareArgs;
use self::echo::EchoArgs;
use self::replay::ReplayArgs;
use self::restart::RestartArgs;
use self::run::RunArgs;
use self::sessions::SessionsArgs;
use self::suite::SuiteArgs;
use crate::cores;
use crate::interrupt::Interrupt;

const CONNECTIONS_MAX: u64 = 65_536;

/// Loads memcached-protocol servers, replays traces against them, and compares them.
#[derive(Debug, Parser)]
#[command(name = "cache-bench", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Put a server under load; report speed, latency and hit ratio.
    Run(RunArgs),
    /// Have users log in to sessions and look at pages; report speed, and sessions lost.
    Sessions(SessionsArgs),
    /// Play a recorded trace against a server; report the hit ratio.
    Replay(ReplayArgs),
    /// Start our server and another, and compare them side by side.
    Compare(CompareArgs),
    /// Load our server with a backup going on and without, and compare the latency.
    Backup(BackupArgs),
    /// End our server and another, start them again, and compare how soon they give hits.
    Restart(RestartArgs),
    /// Start clusters of our server and one alone; compare what a request costs them, and kill a node.
    Cluster(ClusterArgs),
    /// Compare our server with others in all workloads; report as a table, JSON and a page.
    Suite(SuiteArgs),
    /// Serve as the limit in comparisons: move bytes as a cache would, and do nothing else.
    Echo(EchoArgs),
}

/// Whether every value that came back was its key's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was.
    Sound,
    /// At least one was not: the server mixed up, broke or lost what it was given to keep.
    WrongValues,
}

impl Verdict {
    fn of(wrong: u64) -> Self {
        if wrong == 0 { Self::Sound } else { Self::WrongValues }
    }
}

impl Cli {
    /// Does what the command line says and prints the results to standard output.
    ///
    /// # Errors
    /// When the servers or files named cannot be used, or the run breaks off.
    pub fn execute(&self) -> anyhow::Result<Verdict> {
        let interrupt = Interrupt::on_signals().context("cannot wait for signals")?;
        match &self.command {
            Task::Run(args) => args.execute(&interrupt),
            Task::Sessions(args) => args.execute(&interrupt),
            Task::Replay(args) => args.execute(&interrupt),
            Task::Compare(args) => args.execute(&interrupt),
            Task::Backup(args) => args.execute(&interrupt),
            Task::Restart(args) => args.execute(&interrupt),
            Task::Cluster(args) => args.execute(&interrupt),
            Task::Suite(args) => args.execute(&interrupt),
            Task::Echo(args) => args.execute(&interrupt),
        }
    }
}

/// Where server and load run.
struct Cores {
    server: Vec<usize>,
    load: Vec<usize>,
}

impl Cores {
    /// The server has the last core (interrupts prefer the first), the load the others.
    fn of_this_machine() -> anyhow::Result<Self> {
        let allowed = cores::allowed().context("cannot ask which cores there are")?;
        let Some((&last, others)) = allowed.split_last().filter(|(_, others)| !others.is_empty())
        else {
            writeln!(
                io::stderr(),
                "only one core: server and load share it, and the figures are of little use"
            )?;
            return Ok(Self { server: Vec::new(), load: Vec::new() });
        };
        Ok(Self { server: vec![last], load: others.to_vec() })
    }
}

/// Says on standard error what servers refused or got wrong.
fn note_samples(samples: &[String]) -> io::Result<()> {
    let mut lines = String::new();
    for sample in samples {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "server: {sample}");
    }
    io::stderr().write_all(lines.as_bytes())
}

/// A bar of so many requests, or a spinner; on a terminal only.
fn progress_bar(requests: Option<u64>) -> ProgressBar {
    let (bar, template) = match requests {
        Some(requests) => {
            (ProgressBar::new(requests), "{msg} {wide_bar} {human_pos}/{human_len} {eta}")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {msg} {human_pos} requests {elapsed}"),
    };
    // A template that cannot be read would leave the default look.
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_flags_are_refused() {
        let refused: [&[&str]; 13] = [
            &["run", "--connections", "0"],
            &["run", "--depth", "0"],
            &["run", "--rate", "0"],
            &["run", "--value-bytes", "4k-100"],
            &["run", "--popularity", "zipf:x"],
            &["run", "--requests", "10", "--duration", "1s"],
            &["run", "--arrivals", "constant"],
            &["run", "--driver", "client", "--scheme", "alphabet"],
            &["sessions", "--users", "0"],
            &["sessions", "--writes", "1.5"],
            &["sessions", "--servers-are", "friends"],
            &["sessions", "--server", "host:port"],
            &["replay", "t.csv", "--depth", "1001"],
        ];
        for flags in refused {
            let line = std::iter::once("cache-bench").chain(flags.iter().copied());
            assert!(Cli::try_parse_from(line).is_err(), "{flags:?}");
        }
    }
}
