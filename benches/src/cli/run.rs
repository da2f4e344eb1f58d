//! `cache-bench run`: load on one server.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use cache_client::Server;
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;

use super::client::{self, ClientArgs};
use super::parse::{parse_duration, parse_get_share, parse_rate, parse_server, parse_value_bytes};
use super::{CONNECTIONS_MAX, Verdict, note_samples, progress_bar};
use crate::callers;
use crate::callers::load::Extent;
use crate::interrupt::Interrupt;
use crate::keyspace::{Keyspace, Popularity};
use crate::load::{self, Outcome, Pace, Plan, Target};
use crate::report::{Cell, Output, Report};
use crate::schedule::Arrivals;
use crate::server_process::cpu_time;
use crate::session::Session;
use crate::value::Values;
use crate::wire::Dialect;
use crate::workload::{KEYS_PER_GET_MAX, Workload};

const THREADS_MAX: u64 = 1024;
const DEPTH_MAX: u64 = 100_000;

/// Load on one server.
///
/// In a closed loop (the default) each connection sends DEPTH requests at once, waits until all are
/// answered, and sends the next. In an open loop (--rate) requests are due at their own times and
/// latency is measured from those times, however late a request could be sent.
///
/// Every value read is checked against what its key must hold; the exit code is 1 if one was wrong.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The server, HOST:PORT; with `--driver client` several may be named, separated by commas.
    #[arg(long, value_name = "ADDR", value_delimiter = ',', default_value = "127.0.0.1:11211")]
    server: Vec<Server>,
    /// Who carries the requests.
    #[arg(long, value_enum, default_value_t = Driver::Socket)]
    driver: Driver,
    #[command(flatten)]
    client: ClientArgs,
    /// The commands spoken: get and set, or mg and ms.
    #[arg(long, value_enum, default_value_t = Protocol::Text)]
    protocol: Protocol,
    /// Connections to the server, of all threads together; with `--driver client` callers, who share the connections of
    /// their thread's client.
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,
    /// Requests outstanding on each connection.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=DEPTH_MAX))]
    depth: u64,
    /// Threads of the load generator.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=THREADS_MAX))]
    threads: u64,
    /// How many keys there are.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    keys: u64,
    /// Length of each key, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 24)]
    key_bytes: usize,
    /// Length of each value: a size, or a range of sizes from which each key has one of its own
    /// (100, 4k, 100-4k).
    #[arg(long, value_name = "BYTES[-BYTES]", default_value = "100", value_parser = parse_value_bytes)]
    value_bytes: RangeInclusive<usize>,
    /// How requests spread over the keys: uniform, zipf (exponent 0.99) or zipf:EXPONENT.
    #[arg(long, value_name = "HOW", default_value = "uniform", value_parser = Popularity::parse)]
    popularity: Popularity,
    /// Requests that are gets to requests that are sets.
    #[arg(long, value_name = "GETS:SETS", default_value = "9:1", value_parser = parse_get_share)]
    ratio: f64,
    /// Keys that one get asks for.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=KEYS_PER_GET_MAX as u64))]
    keys_per_get: u64,
    /// Set each key that a get missed, as an application would that looks aside to its database;
    /// these sets come on top of the ratio.
    #[arg(long)]
    fill: bool,
    /// Set every key once before the load begins.
    #[arg(long)]
    preload: bool,
    /// Open loop: so many requests a second, of all connections together.
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Open loop: how requests follow each other.
    #[arg(long, value_enum, default_value_t = ArrivalsArg::Poisson, requires = "rate")]
    arrivals: ArrivalsArg,
    /// How long to measure (500ms, 10s, 5m).
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// How long to load the server before measuring [default: 1s, or none with --requests].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    warm_up: Option<Duration>,
    /// End after so many requests instead of a duration.
    #[arg(long, value_name = "N", conflicts_with = "duration",
          value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// Where all chance in the requests comes from: the same seed gives the same requests.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// The server's process on this machine: reports its processor time and memory.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// The cores of the load generator (0,2); the server had better run on others.
    #[arg(long, value_name = "CORES", value_delimiter = ',')]
    cores: Vec<usize>,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Who carries requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Driver {
    /// Plain sockets, at the least cost to the load: for measuring servers.
    Socket,
    /// cache-client, which may follow a cluster: for measuring both together. In a closed loop, a request at a time for
    /// each caller.
    Client,
}

/// Commands spoken.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    /// Classic: get, set.
    Text,
    /// Meta: mg, ms, mn.
    Meta,
}

impl From<Protocol> for Dialect {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Text => Self::Text,
            Protocol::Meta => Self::Meta,
        }
    }
}

/// How the requests of an open loop follow each other.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ArrivalsArg {
    /// At equal distances.
    Constant,
    /// Independently of each other, as from many users.
    Poisson,
}

impl From<ArrivalsArg> for Arrivals {
    fn from(arrivals: ArrivalsArg) -> Self {
        match arrivals {
            ArrivalsArg::Constant => Self::Constant,
            ArrivalsArg::Poisson => Self::Poisson,
        }
    }
}

impl RunArgs {
    pub(super) fn execute(&self, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
        ensure!(
            self.connections >= self.threads,
            "{} threads cannot share {} connections",
            self.threads,
            self.connections
        );
        if let Some(pid) = self.server_pid {
            cpu_time(pid).with_context(|| format!("--server-pid {pid}"))?;
        }
        match self.driver {
            Driver::Socket => self.execute_over_sockets(interrupt),
            Driver::Client => self.execute_by_client(interrupt),
        }
    }

    fn execute_over_sockets(&self, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
        let [server] = &*self.server else { bail!("several servers need --driver client") };
        ensure!(!server.is_socket(), "a UNIX socket needs --driver client");
        let server = parse_server(&server.to_string()).map_err(anyhow::Error::msg)?;
        let workload = self.workload()?;
        let plan = self.plan(server);
        let mut session = Session::connect(server)?;
        let version = session.version()?;
        if self.preload {
            let bar = progress_bar(Some(self.keys));
            bar.set_message("preloading");
            let filled =
                load::fill(&plan, &workload, interrupt, |requests| bar.set_position(requests))?;
            bar.finish_and_clear();
            note_samples(&filled.tally.samples)?;
        }
        let bar = progress_bar(self.requests);
        bar.set_message("running");
        let outcome =
            load::run(&plan, &workload, interrupt, |requests| bar.set_position(requests))?;
        bar.finish_and_clear();
        let items = session.items()?;
        note_samples(&outcome.tally.samples)?;
        let report = run_report(&version, &outcome, Some(items));
        report.write(self.output, &mut io::stdout().lock())?;
        Ok(Verdict::of(outcome.tally.wrong))
    }

    fn execute_by_client(&self, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
        ensure!(
            self.depth == 1,
            "a caller of a client has one request under way: leave out --depth"
        );
        ensure!(
            self.rate.is_none(),
            "callers of a client go round in a closed loop: leave out --rate"
        );
        let workload = Arc::new(self.workload()?);
        let warm_up = self.warm_up.unwrap_or_else(|| self.warm_up_default());
        let plan = callers::Plan {
            config: self.client.config(&self.server),
            callers: bounded(self.connections),
            threads: bounded(self.threads),
            clients: 1,
            warm_up,
            duration: self.requests.is_none().then_some(self.duration),
            cores: self.cores.clone(),
            server_pids: self.server_pid.into_iter().collect(),
        };
        let version = client::version(&plan.config)?;
        if self.preload {
            let bar = progress_bar(Some(self.keys));
            bar.set_message("preloading");
            let filling = callers::Plan { warm_up: Duration::ZERO, duration: None, ..plan.clone() };
            let progress = |requests| bar.set_position(requests);
            let filled =
                callers::load::carry(&filling, &workload, Extent::Filling, interrupt, progress)?;
            bar.finish_and_clear();
            note_samples(&filled.tally.samples)?;
        }
        let bar = progress_bar(self.requests);
        bar.set_message("running");
        let requests_max = self.requests.unwrap_or(u64::MAX);
        let extent = Extent::Drawn { seed: self.seed, requests_max };
        let progress = |requests| bar.set_position(requests);
        let outcome = callers::load::carry(&plan, &workload, extent, interrupt, progress)?;
        bar.finish_and_clear();
        note_samples(&outcome.tally.samples)?;
        run_report(&version, &outcome, None).write(self.output, &mut io::stdout().lock())?;
        Ok(Verdict::of(outcome.tally.wrong))
    }

    fn workload(&self) -> anyhow::Result<Workload> {
        Ok(Workload {
            keyspace: Keyspace::new(self.keys, self.key_bytes)?,
            popularity: self.popularity,
            value_bytes: self.value_bytes.clone(),
            get_share: self.ratio,
            keys_per_get: usize::try_from(self.keys_per_get)?,
            dialect: self.protocol.into(),
            fill: self.fill,
            values: Values::new(),
            checks: true,
        })
    }

    fn warm_up_default(&self) -> Duration {
        if self.requests.is_some() { Duration::ZERO } else { Duration::from_secs(1) }
    }

    fn plan(&self, server: SocketAddr) -> Plan {
        Plan {
            targets: vec![Target::any_key(server)],
            connections: bounded(self.connections),
            threads: bounded(self.threads),
            depth: bounded(self.depth),
            pace: self
                .rate
                .map_or(Pace::Closed, |rate| Pace::Open { rate, arrivals: self.arrivals.into() }),
            warm_up: self.warm_up.unwrap_or_else(|| self.warm_up_default()),
            extent: self.requests.map_or(load::Extent::Time(self.duration), load::Extent::Requests),
            seed: self.seed,
            cores: self.cores.clone(),
            server_pids: self.server_pid.into_iter().collect(),
        }
    }
}

fn bounded(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Everything a run came to, as one row.
fn run_report(version: &str, outcome: &Outcome, items: Option<u64>) -> Report {
    let tally = &outcome.tally;
    let usage = outcome.usage;
    let resident_bytes = usage.map(|usage| usage.resident_bytes);
    let mut cells: Vec<(&'static str, Cell)> = vec![
        ("server_version", version.into()),
        ("seconds", Cell::Real(outcome.elapsed.as_secs_f64(), 3)),
        ("requests", tally.requests().into()),
        ("gets", tally.gets.into()),
        ("sets", tally.sets.into()),
        ("keys", tally.keys().into()),
        ("hits", tally.hits.into()),
        ("misses", tally.misses.into()),
        ("hit_ratio", Cell::real(tally.hit_ratio(), 6)),
        ("refused", tally.refused.into()),
        ("unanswered", tally.unanswered.into()),
        ("wrong_values", tally.wrong.into()),
        ("requests_per_second", Cell::Real(outcome.requests_per_second(), 0)),
        ("keys_per_second", Cell::Real(outcome.keys_per_second(), 0)),
    ];
    cells.extend(latency_cells(GET_LATENCY, &tally.get_latency));
    cells.extend(latency_cells(SET_LATENCY, &tally.set_latency));
    cells.extend([
        ("server_cpu_seconds", Cell::real(usage.map(|usage| usage.cpu.as_secs_f64()), 3)),
        ("requests_per_cpu_second", Cell::real(outcome.requests_per_cpu_second(), 0)),
        ("keys_per_cpu_second", Cell::real(outcome.keys_per_cpu_second(), 0)),
        ("server_rss_bytes", Cell::count(resident_bytes)),
        ("server_items", Cell::count(items)),
        (
            "server_rss_bytes_per_item",
            Cell::real(
                resident_bytes
                    .zip(items.filter(|&items| items > 0))
                    .map(|(bytes, items)| bytes as f64 / items as f64),
                1,
            ),
        ),
    ]);
    Report::of_one(cells)
}

/// Column names of a latency distribution: mean, five quantiles, maximum.
pub(super) type LatencyColumns = [&'static str; 7];
const QUANTILES: [f64; 5] = [0.5, 0.9, 0.99, 0.999, 0.9999];
const GET_LATENCY: LatencyColumns = [
    "get_mean_us",
    "get_p50_us",
    "get_p90_us",
    "get_p99_us",
    "get_p99.9_us",
    "get_p99.99_us",
    "get_max_us",
];
const SET_LATENCY: LatencyColumns = [
    "set_mean_us",
    "set_p50_us",
    "set_p90_us",
    "set_p99_us",
    "set_p99.9_us",
    "set_p99.99_us",
    "set_max_us",
];

pub(super) fn latency_cells(
    columns: LatencyColumns,
    latency: &Histogram<u64>,
) -> impl Iterator<Item = (&'static str, Cell)> {
    let microseconds = |nanoseconds: f64| {
        if latency.is_empty() { Cell::Absent } else { Cell::Real(nanoseconds / 1000.0, 1) }
    };
    let quantiles = QUANTILES.map(|quantile| latency.value_at_quantile(quantile) as f64);
    let mut cells = vec![microseconds(latency.mean())];
    cells.extend(quantiles.map(microseconds));
    cells.push(microseconds(latency.max() as f64));
    columns.into_iter().zip(cells)
}
