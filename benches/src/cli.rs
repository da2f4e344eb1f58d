//! The command line of cache-bench: flags into plans, and results into reports.

mod cluster;
mod echo;
mod suite;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::Signal;
use sim::trace::Format;
use sim::trace::csv::Layout;
use sim::ttl::TtlRule;

use self::cluster::ClusterArgs;
use self::echo::EchoArgs;
use self::suite::SuiteArgs;
use crate::backup::{self, Notice, Round};
use crate::compare::{self, Contest, Rules, Speed, median};
use crate::interrupt::{Interrupt, Interrupted};
use crate::keyspace::{Keyspace, Popularity};
use crate::load::{self, Extent, Outcome, Pace, Plan, Target};
use crate::replay::log::{Log, Malformed, Requests};
use crate::replay::{DEPTH_MAX, Expiry, Replayed, replay};
use crate::report::{Cell, Output, Report};
use crate::restart::{self, Contender, Series};
use crate::schedule::Arrivals;
use crate::server_process::{Kind, Launch, cpu_time};
use crate::session::Session;
use crate::size::{parse_bytes, parse_bytes_range};
use crate::value::Values;
use crate::wire::Dialect;
use crate::workload::{KEYS_PER_GET_MAX, Workload};
use crate::{clock, cores};

/// Largest value a workload may write, in bytes.
const VALUE_BYTES_MAX: u64 = 1 << 30;
const CONNECTIONS_MAX: u64 = 65_536;
const THREADS_MAX: u64 = 1024;
const DEPTH_MAX_LOAD: u64 = 100_000;
/// Highest rate of an open loop, in requests a second; no machine comes near it.
const RATE_MAX: f64 = 1e8;

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
    /// At least one was not: the server mixed up or broke what it was given to keep.
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

/// Load on one server.
///
/// In a closed loop (the default) each connection sends DEPTH requests at once, waits until all are
/// answered, and sends the next. In an open loop (--rate) requests are due at their own times and
/// latency is measured from those times, however late a request could be sent.
///
/// Every value read is checked against what its key must hold; the exit code is 1 if one was wrong.
#[derive(Debug, Args)]
struct RunArgs {
    /// The server, HOST:PORT.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:11211", value_parser = parse_server)]
    server: SocketAddr,
    /// The commands spoken: get and set, or mg and ms.
    #[arg(long, value_enum, default_value_t = Protocol::Text)]
    protocol: Protocol,
    /// Connections to the server, of all threads together.
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,
    /// Requests outstanding on each connection.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=DEPTH_MAX_LOAD))]
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
    fn execute(&self, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
        ensure!(
            self.connections >= self.threads,
            "{} threads cannot share {} connections",
            self.threads,
            self.connections
        );
        let workload = self.workload()?;
        let plan = self.plan();
        if let Some(pid) = self.server_pid {
            cpu_time(pid).with_context(|| format!("--server-pid {pid}"))?;
        }
        let mut session = Session::connect(self.server)?;
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
        run_report(&version, &outcome, items).write(self.output, &mut io::stdout().lock())?;
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

    fn plan(&self) -> Plan {
        let bounded = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let warm_up_default =
            if self.requests.is_some() { Duration::ZERO } else { Duration::from_secs(1) };
        Plan {
            targets: vec![Target::any_key(self.server)],
            connections: bounded(self.connections),
            threads: bounded(self.threads),
            depth: bounded(self.depth),
            pace: self
                .rate
                .map_or(Pace::Closed, |rate| Pace::Open { rate, arrivals: self.arrivals.into() }),
            warm_up: self.warm_up.unwrap_or(warm_up_default),
            extent: self.requests.map_or(Extent::Time(self.duration), Extent::Requests),
            seed: self.seed,
            cores: self.cores.clone(),
            server_pids: self.server_pid.into_iter().collect(),
        }
    }
}

/// Everything a run came to, as one row.
fn run_report(version: &str, outcome: &Outcome, items: u64) -> Report {
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
        ("server_items", items.into()),
        (
            "server_rss_bytes_per_item",
            Cell::real(
                resident_bytes.filter(|_| items > 0).map(|bytes| bytes as f64 / items as f64),
                1,
            ),
        ),
    ]);
    Report::of_one(cells)
}

/// Column names of a latency distribution: mean, five quantiles, maximum.
type LatencyColumns = [&'static str; 7];
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

fn latency_cells(
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

/// A log played against one server.
///
/// What the log has is sent, op by op, on one connection; a get that misses is followed by a set of the
/// value that the log says was there. Keys and values are as long as recorded, flags are 0. What the
/// server refuses to store counts as a miss. Time is the log's: an item whose TTL is up is deleted at
/// that second of the log. The exit code is 1 if a value read was wrong.
#[derive(Debug, Args)]
struct ReplayArgs {
    /// The log; packed with zstd, gzip or xz or not.
    trace: PathBuf,
    /// The server, HOST:PORT.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:11211", value_parser = parse_server)]
    server: SocketAddr,
    #[command(flatten)]
    format: FormatArgs,
    /// How long items live: as the log says (log), for ever (none), so long after each write (300, 5m,
    /// 12h, 7d), or the log's times a factor (x0.5).
    #[arg(long, value_name = "TTL", default_value = "log")]
    ttl: TtlRule,
    /// Play the log in its own time, second by second, and leave it to the server to let items expire.
    #[arg(long)]
    real_time: bool,
    /// Requests under way at once. Above 1 the order of the log is kept only approximately: the sets
    /// of so many gets come after all of them.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=DEPTH_MAX as u64))]
    depth: u64,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Args)]
struct FormatArgs {
    /// How the log is written, as `cache-sim` names it [default: by its name and first lines].
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    format: Option<Format>,
    /// Columns of a CSV, as `cache-sim` takes them: time=ts,id=url,size=bytes.
    #[arg(long, value_name = "LAYOUT", conflicts_with = "format")]
    csv: Option<Layout>,
    /// End at the first line or record that cannot be read, instead of counting it.
    #[arg(long)]
    strict: bool,
}

impl FormatArgs {
    fn log(&self, path: &Path, ttl: TtlRule) -> Log {
        let by_columns = self.csv.clone().map(Format::Csv);
        let format = by_columns.or_else(|| self.format.clone()).unwrap_or(Format::Guess);
        Log { path: path.to_owned(), format, strict: self.strict, ttl }
    }
}

/// A format's name or another of its names.
fn parse_format(name: &str) -> Result<Format, String> {
    let is_it = |format: &&Format| format.name() == name || format.aliases().contains(&name);
    Format::ALL.iter().find(is_it).cloned().ok_or_else(|| {
        let names: Vec<_> = Format::ALL.iter().map(Format::name).collect();
        format!("there are {}", names.join(", "))
    })
}

fn note_malformed(Malformed { count, first }: &Malformed, path: &Path) -> anyhow::Result<()> {
    if let Some(first) = first {
        writeln!(io::stderr(), "{}: {count} malformed, the first at {first}", path.display())?;
    }
    Ok(())
}

fn open_log(log: &Log) -> anyhow::Result<Requests<'_>> {
    log.open().with_context(|| format!("cannot read {}", log.path.display()))
}

impl ReplayArgs {
    fn execute(&self, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
        let log = self.format.log(&self.trace, self.ttl);
        let mut requests = open_log(&log)?;
        let version = Session::connect(self.server)?.version()?;
        let bar = progress_bar(None);
        bar.set_message("replaying");
        let depth = usize::try_from(self.depth)?;
        let mut wait = |seconds: u32| wait_s(seconds, interrupt);
        let expiry = if self.real_time { Expiry::Server(&mut wait) } else { Expiry::Log };
        let note = |played| bar.set_position(played);
        let replayed = replay(requests.by_ref(), self.server, depth, expiry, interrupt, note)
            .with_context(|| format!("replaying {}", self.trace.display()))?;
        bar.finish_and_clear();
        note_malformed(requests.malformed(), &self.trace)?;
        note_samples(&replayed.samples)?;
        let mut cells = vec![("server_version", version.into())];
        cells.extend(replay_cells(&self.trace, &replayed));
        cells.push(("malformed", requests.malformed().count.into()));
        Report::of_one(cells).write(self.output, &mut io::stdout().lock())?;
        Ok(Verdict::of(replayed.wrong))
    }
}

/// Lets so many seconds pass, or as many as the user has patience for.
fn wait_s(seconds: u32, interrupt: &Interrupt) -> Result<(), Interrupted> {
    let until = clock::now() + Duration::from_secs(seconds.into());
    while clock::now() < until {
        interrupt.check()?;
        std::thread::park_timeout(Duration::from_millis(100));
    }
    Ok(())
}

fn replay_cells(trace: &Path, replayed: &Replayed) -> Vec<(&'static str, Cell)> {
    let name = trace.file_name().unwrap_or(trace.as_os_str());
    vec![
        ("trace", name.to_string_lossy().into_owned().into()),
        ("operations", replayed.operations.into()),
        ("requests", replayed.requests.into()),
        ("hits", replayed.hits.into()),
        ("hit_percent", Cell::Real(replayed.hit_percent(), 4)),
        ("stored", replayed.stored.into()),
        ("refused", replayed.refused.into()),
        ("expired", replayed.expired.into()),
        ("wrong_values", replayed.wrong.into()),
    ]
}

/// Two servers side by side on this machine.
///
/// Both are started with memcached's flags, one worker thread each, pinned to the same core, the
/// load on another. Speed is compared in interleaved pairs of rounds by keys read or written per
/// second of the server's processor time; `ratio` is the median of the pairs, ours to theirs.
#[derive(Debug, Args)]
struct CompareArgs {
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

impl CompareArgs {
    fn execute(&self, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
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

/// Our server under full load, with a backup going on and without.
///
/// The server has a core of its own. The load (95 gets to 5 sets, zipf) and the backup share the
/// others, so what is told is rather more than what a backup from another machine would cost. The
/// exit code is 1 if a request failed.
#[derive(Debug, Args)]
struct BackupArgs {
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
    fn execute(&self, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
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

/// Restarts over a memory file, side by side on this machine.
///
/// Both servers keep the same items in a file (-e) in one folder, tmpfs best. Each is ended and
/// started again, round by round: ours after a stop and after a kill, on one core and on all; the
/// other after a stop, on one core. `ratio` is the median of the rounds' ratios of the time to the
/// first hit, to that of the other server. The exit code is 1 if a value was wrong or missing.
#[derive(Debug, Args)]
struct RestartArgs {
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
    fn execute(&self, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
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

fn parse_server(text: &str) -> Result<SocketAddr, String> {
    let mut addresses = text
        .to_socket_addrs()
        .map_err(|error| format!("{error}; expected HOST:PORT, such as 127.0.0.1:11211"))?;
    addresses.next().ok_or_else(|| "the host has no address".to_owned())
}

fn parse_value_bytes(text: &str) -> Result<RangeInclusive<usize>, String> {
    let range = parse_bytes_range(text).map_err(|error| error.to_string())?;
    if *range.end() > VALUE_BYTES_MAX {
        return Err(format!("a value has at most {VALUE_BYTES_MAX} bytes"));
    }
    let bound = |bytes: u64| usize::try_from(bytes).map_err(|error| error.to_string());
    Ok(bound(*range.start())?..=bound(*range.end())?)
}

/// `GETS:SETS` into the share of gets.
fn parse_get_share(text: &str) -> Result<f64, String> {
    let expected = "expected two numbers from 0 up and a colon between them, such as 95:5";
    let parse =
        |part: &str| part.parse::<f64>().ok().filter(|part| part.is_finite() && *part >= 0.0);
    let (gets, sets) = text.split_once(':').ok_or(expected)?;
    let (gets, sets) = (parse(gets).ok_or(expected)?, parse(sets).ok_or(expected)?);
    if gets + sets > 0.0 { Ok(gets / (gets + sets)) } else { Err(expected.to_owned()) }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate| (0.001..=RATE_MAX).contains(rate))
        .ok_or_else(|| format!("expected requests a second, from 0.001 to {RATE_MAX}"))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = "expected a number and ms, s, m or h, such as 500ms or 10s";
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale_s = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(expected.to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| expected.to_owned())?;
    let seconds = number * scale_s;
    // A year: far beyond any run, far below where adding to a moment overflows.
    if seconds > 366.0 * 86_400.0 {
        return Err("that is longer than a year".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn parse_items_bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(|error| error.to_string())
}

fn parse_memory_mib(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text).map_err(|error| error.to_string())?;
    let mib = bytes >> 20;
    if mib == 0 || mib << 20 != bytes {
        return Err("memory is given to servers in whole MiB: use 64m, 1g".to_owned());
    }
    Ok(mib)
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
    fn shares_of_gets_are_read() {
        assert_eq!(parse_get_share("1:0"), Ok(1.0));
        assert_eq!(parse_get_share("95:5"), Ok(0.95));
        for text in ["95", "0:0", "-1:2", "a:b", "1:2:3", "NaN:1"] {
            assert!(parse_get_share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "s", "-1s", "1.2.3s", "10parsec", "99999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_is_in_whole_mebibytes() {
        assert_eq!(parse_memory_mib("256m"), Ok(256));
        assert_eq!(parse_memory_mib("1g"), Ok(1024));
        assert!(parse_memory_mib("100").is_err());
        assert!(parse_memory_mib("0m").is_err());
    }

    #[test]
    fn bad_flags_are_refused() {
        let refused: [&[&str]; 8] = [
            &["run", "--connections", "0"],
            &["run", "--depth", "0"],
            &["run", "--rate", "0"],
            &["run", "--value-bytes", "4k-100"],
            &["run", "--popularity", "zipf:x"],
            &["run", "--requests", "10", "--duration", "1s"],
            &["run", "--arrivals", "constant"],
            &["replay", "t.csv", "--depth", "1001"],
        ];
        for flags in refused {
            let line = std::iter::once("cache-bench").chain(flags.iter().copied());
            assert!(Cli::try_parse_from(line).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn what_is_compared_by_default_is_speed() {
        let cli = Cli::try_parse_from(["cache-bench", "compare", "--ours", "x"]).unwrap();
        let Task::Compare(args) = cli.command else { panic!("a comparison was asked for") };
        let contests: Vec<_> = args.workload.iter().filter_map(|w| w.contest()).collect();
        assert_eq!(contests, Contest::ALL);
    }
}
