//! `cache-bench sessions`: the load of a session store, and whether it keeps what it acknowledged.

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, ensure};
use cache_client::Server;
use clap::Args;

use super::client::{self, ClientArgs};
use super::parse::{parse_duration, parse_share, parse_value_bytes};
use super::run::latency_cells;
use super::{Verdict, note_samples, progress_bar};
use crate::callers::Plan;
use crate::interrupt::Interrupt;
use crate::report::{Cell, Output, Report};
use crate::server_process::cpu_time;
use crate::sessions::{self, Count, Outcome, SESSION_BYTES_MIN, Users};

/// The load of a session store, and whether it keeps what it acknowledged.
///
/// Users log in, look at pages, now and then change their sessions, and log out. Each page reads the session and renews
/// its life, by whichever of the application's replicas serves it; a call that fails is tried again until it succeeds, as
/// a user reloads a page. Every session read is compared with what was acknowledged last: the exit code is 1 if one was
/// lost before its time, was older than that, or held what nobody wrote.
#[derive(Debug, Args)]
pub(super) struct SessionsArgs {
    /// The servers, HOST:PORT; several are separated by commas.
    #[arg(long, value_name = "ADDR", value_delimiter = ',', default_value = "127.0.0.1:11211")]
    server: Vec<Server>,
    #[command(flatten)]
    client: ClientArgs,
    /// How many users there are.
    #[arg(long, value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// Users who look at a page at the same time.
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u16).range(1..))]
    callers: u16,
    /// Replicas of the application, each a client of its own, in each thread.
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    replicas: u16,
    /// Threads of the load.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Length of a session: a size, or a range of sizes of which each user has one.
    #[arg(long, value_name = "BYTES[-BYTES]", default_value = "200-2k", value_parser = parse_value_bytes)]
    session_bytes: RangeInclusive<usize>,
    /// How long a session lives after the last page.
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = parse_duration)]
    ttl: Duration,
    /// The share of pages that change the session, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value = "0.1", value_parser = parse_share)]
    writes: f64,
    /// The share of pages that log the user out.
    #[arg(long, value_name = "SHARE", default_value = "0.01", value_parser = parse_share)]
    logouts: f64,
    /// How long a caller pauses between two pages, on average.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    think: Duration,
    /// Pages that change a session lock it, by an item beside it, as PHP's handler does.
    #[arg(long)]
    locks: bool,
    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// How long to load the servers before measuring.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    warm_up: Duration,
    /// Where all chance comes from.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// The servers' processes on this machine: reports their processor time and memory.
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    server_pid: Vec<u32>,
    /// The cores of the load (0,2).
    #[arg(long, value_name = "CORES", value_delimiter = ',')]
    cores: Vec<usize>,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl SessionsArgs {
    pub(super) fn execute(&self, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
        ensure!(
            *self.session_bytes.start() >= SESSION_BYTES_MIN,
            "a session has at least {SESSION_BYTES_MIN} bytes, so that it can be told from others"
        );
        ensure!(self.callers >= self.threads, "every thread needs a caller: --callers is too low");
        ensure!(self.ttl >= Duration::from_secs(2), "a session lives for at least 2s");
        for &pid in &self.server_pid {
            cpu_time(pid).with_context(|| format!("--server-pid {pid}"))?;
        }
        let plan = self.plan();
        let version = client::version(&plan.config)?;
        let bar = progress_bar(None);
        bar.set_message("running");
        let outcome =
            sessions::run(&plan, &self.users(), interrupt, |calls| bar.set_position(calls))?;
        bar.finish_and_clear();
        let Count { calls, lost, stale, .. } = &outcome.count;
        note_samples(&calls.samples)?;
        report(&version, &outcome).write(self.output, &mut io::stdout().lock())?;
        Ok(Verdict::of(calls.wrong + lost + stale))
    }

    fn plan(&self) -> Plan {
        Plan {
            config: self.client.config(&self.server),
            callers: usize::from(self.callers),
            threads: usize::from(self.threads),
            clients: usize::from(self.replicas),
            warm_up: self.warm_up,
            duration: Some(self.duration),
            cores: self.cores.clone(),
            server_pids: self.server_pid.clone(),
        }
    }

    fn users(&self) -> Users {
        Users {
            count: self.users,
            ttl: self.ttl,
            session_bytes: self.session_bytes.clone(),
            write_share: self.writes,
            logout_share: self.logouts,
            think: self.think,
            locks: self.locks,
            seed: self.seed,
        }
    }
}

/// What became of all users, as one row.
fn report(version: &str, outcome: &Outcome) -> Report {
    let Count { calls, pages, logins, logouts, lost, stale, expired, outage_max } = &outcome.count;
    let seconds = outcome.elapsed.as_secs_f64();
    let cpu_s = outcome.usage.map(|usage| usage.cpu.as_secs_f64()).filter(|&cpu_s| cpu_s > 0.0);
    let mut cells: Vec<(&'static str, Cell)> = vec![
        ("server_version", version.into()),
        ("seconds", Cell::Real(seconds, 3)),
        ("pages", (*pages).into()),
        ("pages_per_second", Cell::Real(*pages as f64 / seconds, 0)),
        ("logins", (*logins).into()),
        ("logouts", (*logouts).into()),
        ("expired", (*expired).into()),
        ("lost", (*lost).into()),
        ("stale", (*stale).into()),
        ("wrong_values", calls.wrong.into()),
        ("failed_calls", calls.refused.into()),
        ("longest_outage_ms", Cell::Real(outage_max.as_secs_f64() * 1000.0, 1)),
        ("reads", calls.gets.into()),
        ("writes", calls.sets.into()),
    ];
    cells.extend(latency_cells(READ_LATENCY, &calls.get_latency));
    cells.extend(latency_cells(WRITE_LATENCY, &calls.set_latency));
    cells.extend([
        ("server_cpu_seconds", Cell::real(cpu_s, 3)),
        ("pages_per_cpu_second", Cell::real(cpu_s.map(|cpu_s| *pages as f64 / cpu_s), 0)),
        ("server_rss_bytes", Cell::count(outcome.usage.map(|usage| usage.resident_bytes))),
    ]);
    Report::of_one(cells)
}

const READ_LATENCY: super::run::LatencyColumns = [
    "read_mean_us",
    "read_p50_us",
    "read_p90_us",
    "read_p99_us",
    "read_p99.9_us",
    "read_p99.99_us",
    "read_max_us",
];
const WRITE_LATENCY: super::run::LatencyColumns = [
    "write_mean_us",
    "write_p50_us",
    "write_p90_us",
    "write_p99_us",
    "write_p99.9_us",
    "write_p99.99_us",
    "write_max_us",
];
