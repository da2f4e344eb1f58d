//! The suite: every workload, our server beside any number of others, in one report.
//!
//! ```text
//! rows.rs ──> speed.rs   rounds of load       ours A B echo | echo B A ours | ours A B echo ...
//!         ──> memory.rs  filled servers                       └ too noisy: run again
//!         ──> hits.rs    logs replayed (traces.rs)
//!                └──> figures.rs ──> table.rs, JSON, html.rs
//! ```
//!
//! - A *round* is one turn of load for every server, one after the other, in an order that turns round
//!   from round to round. All servers are up meanwhile, on the same core; the load is on another.
//! - Servers are compared round by round, so that a machine that turns slower slows both sides of a
//!   ratio. What is told is the median of the ratios, and how far they spread ([`spread`]).
//! - The machine is watched while it measures ([`crate::noise`]). A round that was disturbed is run
//!   again; a row that cannot be measured undisturbed has no figures.
//! - A server that gives bytes that are not its key's ends the suite: there is no report.

pub mod contestant;
pub mod figures;
pub mod html;
pub mod rows;
pub mod spread;
pub mod table;

mod environment;
mod hits;
mod memory;
mod speed;
mod traces;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use self::contestant::Contestant;
use self::figures::{Report, SCHEMA, Server, Verdict};
use self::rows::{Data, Row, Scale, Speed, Task};
use crate::compare::CompareError;
use crate::interrupt::{Interrupt, Interrupted};
use crate::load::{self, Extent, LoadError, Pace, Target};
use crate::noise::Noise;
use crate::replay::ReplayError;
use crate::replay::log::LogError;
use crate::server_process::{Kind, Launch, LaunchError, ServerProcess};
use crate::syscalls::Tool;

/// What a suite does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Our server.
    pub ours: Contestant,
    /// Those it is compared with.
    pub others: Vec<Contestant>,
    /// This program, which is the echo server too.
    pub echo: PathBuf,
    /// The workloads.
    pub rows: Vec<Row>,
    /// How they are run.
    pub rules: Rules,
    /// The command line, for the report.
    pub command: String,
}

/// How rows are run.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Rounds a row.
    pub rounds: usize,
    /// How long a round is measured.
    pub round: Duration,
    /// How long a server is loaded before each round counts.
    pub warm_up: Duration,
    /// The largest share of disturbance a round may have.
    pub noise_max: f64,
    /// Whether rounds with more count all the same.
    pub noise_allowed: bool,
    /// How much of everything there is.
    pub scale: Scale,
    /// Whether system calls are counted.
    pub counts_syscalls: bool,
    /// The servers' cores.
    pub server_cores: Vec<usize>,
    /// The load's cores.
    pub load_cores: Vec<usize>,
    /// Logs to be replayed, and folders of them.
    pub traces: Vec<PathBuf>,
    /// Memory for a log's replay, in shares of what its objects take together.
    pub memory_shares: Vec<f64>,
}

/// Who hears how far a suite is.
pub trait Observer {
    /// There are so many steps more than was thought.
    fn expect(&mut self, steps: u64);
    /// This is being done.
    fn begin(&mut self, doing: &str);
    /// A step is done.
    fn done(&mut self);
    /// Something that the user had better know.
    fn note(&mut self, text: &str);
    /// A row is done.
    fn row(&mut self, row: &figures::Row);
}

/// Why a suite has no report.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// A server gave what is not its key's.
    #[error("row {row}: {server} gave {count} values that are not their keys', such as: {sample}")]
    WrongValues {
        /// The row.
        row: &'static str,
        /// The server.
        server: String,
        /// How many.
        count: u64,
        /// The first, in words.
        sample: String,
    },
    /// A row broke off for a reason that is not a server's.
    #[error("row {row} broke off")]
    Row {
        /// The row.
        row: &'static str,
        /// Why.
        #[source]
        source: RowError,
    },
    /// The machine does not tell what it is.
    #[error("the machine does not tell what it is")]
    Environment(#[source] io::Error),
    /// The user wants the program to end.
    #[error("interrupted, rows done: {}", .0.rows.len())]
    Interrupted(
        /// Of the rows that were done.
        Box<Report>,
    ),
}

/// Why a row has no figures.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// A server gave what is not its key's.
    #[error("{server} gave {count} wrong values, such as: {sample}")]
    WrongValues {
        /// The server.
        server: String,
        /// How many.
        count: u64,
        /// The first, in words.
        sample: String,
    },
    /// A server broke off, or cannot be looked at.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// A log cannot be used.
    #[error("{} cannot be replayed", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        #[source]
        source: LogError,
    },
    /// A replay broke off.
    #[error("replaying {log} to {server} broke off: {reason}")]
    Replay {
        /// The log.
        log: String,
        /// The server.
        server: String,
        /// Why.
        reason: String,
    },
    /// What disturbs a round cannot be told.
    #[error("the kernel does not tell who waits for a core")]
    Noise(#[source] io::Error),
    /// A folder cannot be listed.
    #[error("{} cannot be listed", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The user wants the program to end.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl From<LaunchError> for RowError {
    fn from(error: LaunchError) -> Self {
        CompareError::from(error).into()
    }
}

impl<E: std::fmt::Display> From<(ReplayError<E>, &str, &str)> for RowError {
    fn from((error, log, server): (ReplayError<E>, &str, &str)) -> Self {
        if let ReplayError::Interrupted(interrupted) = error {
            return interrupted.into();
        }
        let (log, server, reason) = (log.to_owned(), server.to_owned(), error.to_string());
        Self::Replay { log, server, reason }
    }
}

impl RowError {
    /// Whether the user, and nobody else, ended it.
    fn is_interrupt(&self) -> bool {
        matches!(
            self,
            Self::Interrupted(_)
                | Self::Compare(
                    CompareError::Interrupted(_)
                        | CompareError::Launch(LaunchError::Interrupted(_))
                        | CompareError::Load { source: LoadError::Interrupted(_), .. }
                )
        )
    }
}

/// Runs all rows of `plan`.
///
/// # Errors
/// When a server gave a wrong value, or the user ended it: then with what there is. A server that breaks off costs its row.
pub fn run(
    plan: &Plan,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Report, SuiteError> {
    let environment = environment::of(plan).map_err(SuiteError::Environment)?;
    let mut bench = Bench::new(plan, interrupt, observer);
    for row in &plan.rows {
        bench.observer.expect(bench.steps(row));
    }
    let mut rows = Vec::new();
    let mut is_interrupted = false;
    for row in &plan.rows {
        bench.row = row.name;
        let measured = match &row.task {
            Task::Speed(speed) => speed::closed_loop(&mut bench, speed),
            Task::OpenLoop(speed) => speed::open_loop(&mut bench, speed),
            Task::Memory(fill) => memory::row(&mut bench, fill),
            Task::HitRatio => hits::row(&mut bench),
        };
        let found = match measured {
            Ok(found) => found,
            Err(RowError::WrongValues { server, count, sample }) => {
                return Err(SuiteError::WrongValues { row: row.name, server, count, sample });
            }
            Err(error) if error.is_interrupt() => {
                is_interrupted = true;
                break;
            }
            Err(source) => {
                // Whatever went wrong, the next row finds new servers.
                bench.field = None;
                let reason = told(&source);
                bench.observer.note(&format!("row {}: {reason}", row.name));
                Found { verdict: Some(Verdict::Failed(reason)), ..Found::default() }
            }
        };
        for note in &found.notes {
            bench.observer.note(&format!("row {}: {note}", row.name));
        }
        let row = figures::Row {
            name: row.name,
            group: row.task.group(),
            about: row.about.clone(),
            verdict: found.verdict.unwrap_or(Verdict::Measured),
            cores_are_shared: row.task.shares_cores(),
            noise: found.noise,
            noise_by_round: found.noise_by_round,
            rounds_discarded: found.rounds_discarded,
            servers: found.servers,
            measures: found.measures,
            notes: found.notes,
        };
        bench.observer.row(&row);
        rows.push(row);
    }
    let environment = figures::Environment { syscalls: bench.who_counts(), ..environment };
    let report = Report { schema: SCHEMA, environment, servers: bench.servers, rows };
    if is_interrupted { Err(SuiteError::Interrupted(Box::new(report))) } else { Ok(report) }
}

/// An error and its causes, in a line.
fn told(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
        cause = error.source();
    }
    told
}

/// What a row came to.
#[derive(Default)]
struct Found {
    verdict: Option<Verdict>,
    noise: Option<Noise>,
    noise_by_round: Vec<f64>,
    rounds_discarded: usize,
    servers: Vec<figures::Entrant>,
    measures: Vec<figures::Measure>,
    notes: Vec<String>,
}

/// What rows are run with.
struct Bench<'a> {
    plan: &'a Plan,
    interrupt: &'a Interrupt,
    observer: &'a mut dyn Observer,
    /// The row that is run.
    row: &'static str,
    /// Servers that hold what the last row asked of them.
    field: Option<(Data, Vec<Fielded>)>,
    /// Who counts system calls, once it has been tried; or why nobody does.
    tool: Option<Result<Tool, String>>,
    servers: Vec<Server>,
}

/// A server that takes part in a row.
struct Fielded {
    name: String,
    kind: Kind,
    server: ServerProcess,
}

/// What the echo server is called in reports.
pub(crate) const ECHO: &str = "echo";

impl<'a> Bench<'a> {
    fn new(plan: &'a Plan, interrupt: &'a Interrupt, observer: &'a mut dyn Observer) -> Self {
        let contestants = std::iter::once(&plan.ours).chain(&plan.others);
        let names = contestants.map(|it| it.name.clone()).chain([ECHO.to_owned()]);
        let servers = names.map(|name| Server { name, version: None, command: None }).collect();
        Self { plan, interrupt, observer, row: "", field: None, tool: None, servers }
    }

    /// Says what of the row is being done.
    fn begin(&mut self, doing: &str) {
        self.observer.begin(&format!("{}: {doing}", self.row));
    }

    /// All but the echo server, ours first.
    fn contestants(&self) -> impl Iterator<Item = &'a Contestant> + use<'a> {
        let plan = self.plan;
        std::iter::once(&plan.ours).chain(&plan.others)
    }

    /// How many steps a row takes if nothing is run again.
    fn steps(&self, row: &Row) -> u64 {
        let entrants = 1 + self.plan.others.len() as u64;
        let rounds = self.plan.rules.rounds as u64;
        match &row.task {
            Task::Speed(speed) => rounds * (entrants + u64::from(speed.has_echo())),
            Task::OpenLoop(_) => rounds * entrants,
            Task::Memory(fill) => entrants + u64::from(fill.baseline.is_some()),
            // They are counted when the logs are known.
            Task::HitRatio => 0,
        }
    }

    fn start(&mut self, contestant: &Contestant, launch: &Launch) -> Result<Fielded, RowError> {
        self.begin(&format!("starting {}", contestant.name));
        let server = ServerProcess::start(launch, self.interrupt)?;
        if let Some(told) = self.servers.iter_mut().find(|it| it.name == contestant.name)
            && told.version.is_none()
        {
            let program = contestant.version().filter(|_| contestant.kind != Kind::Echo);
            told.version = program.or_else(|| Some(server.version().to_owned()));
            told.command = Some(server.command().to_owned());
        }
        Ok(Fielded { name: contestant.name.clone(), kind: contestant.kind, server })
    }

    /// Cores of the servers and of the load for servers of so many threads.
    fn cores(&self, threads: usize) -> [Vec<usize>; 2] {
        let Rules { server_cores, load_cores, .. } = &self.plan.rules;
        if threads == 1 {
            return [server_cores.clone(), load_cores.clone()];
        }
        let mut all: Vec<usize> = server_cores.iter().chain(load_cores).copied().collect();
        all.sort_unstable();
        all.truncate(threads);
        [all.clone(), all]
    }

    /// The contestants that can hold `data`, filled with it; those of the row before if it is the same.
    fn field(&mut self, data: Data, row: &Speed) -> Result<Vec<Fielded>, RowError> {
        if let Some((_, fielded)) = self.field.take_if(|(held, _)| *held == data) {
            return Ok(fielded);
        }
        self.field = None;
        let mut fielded = Vec::new();
        for contestant in self.contestants() {
            if let Some(threads) = contestant.flags_for_threads(data.threads) {
                let [server_cores, _] = self.cores(data.threads);
                let launch = contestant.launch(data.memory_mib, server_cores, &threads);
                let entrant = self.start(contestant, &launch)?;
                self.begin(&format!("filling {} with {} items", entrant.name, data.keys));
                self.fill(&entrant, row)?;
                fielded.push(entrant);
            }
        }
        Ok(fielded)
    }

    fn fill(&self, entrant: &Fielded, row: &Speed) -> Result<(), RowError> {
        let workload =
            row.workload(entrant.kind.dialect(), true).map_err(CompareError::Keyspace)?;
        let plan = load::Plan { connections: 8, ..self.load_plan(entrant, row) };
        load::fill(&plan, &workload, self.interrupt, |_| {})
            .map_err(|source| CompareError::Load { server: entrant.name.clone(), source })?;
        Ok(())
    }

    /// The load of a row on a server, in a closed loop.
    fn load_plan(&self, entrant: &Fielded, row: &Speed) -> load::Plan {
        let rules = &self.plan.rules;
        let [_, load_cores] = self.cores(row.data.threads);
        load::Plan {
            targets: vec![Target::any_key(entrant.server.address())],
            connections: row.connections,
            threads: row.data.threads,
            depth: row.depth,
            pace: Pace::Closed,
            warm_up: rules.warm_up,
            extent: Extent::Time(rules.round),
            seed: 1,
            cores: load_cores,
            server_pids: vec![entrant.server.pid()],
        }
    }

    /// What counted system calls, or why nobody did.
    fn who_counts(&self) -> Option<String> {
        let tool = self.tool.as_ref()?;
        Some(match tool {
            Ok(tool) => tool.name().to_owned(),
            Err(reasons) => format!("not counted: {reasons}"),
        })
    }
}
