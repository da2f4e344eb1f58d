//! A `Plan` carried out: the trace into requests, sizes resolved, every replay played, a `Report`.
//!
//! ```text
//! sizes known, gets only:  trace -> replays                               one reading
//! else, small trace:       trace -> survey, kept -> replays               one reading
//! else, large file:        trace -> survey;  trace again -> replays       two readings
//! a share, large stream:   refused: it cannot be read again
//! writes, large stream:    trace -> survey of its head, kept -> replays,  one reading
//!                          and the rest -> replays
//! ```
//!
//! The survey finds what shares are shares of, and where the log has writes, what keys are first
//! written with ([`crate::fill`]).

use std::fs::Metadata;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::{fmt, io};

use eviction::Kind;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use store::Geometry;

use crate::belady::Foresight;
use crate::blueprint::{Blueprint, Counting};
use crate::fill::{Fills, FirstWrites};
use crate::ranking::Ranking;
use crate::replay::{self, Expiry, Player, Replay, Request, ServerShape, Tally, Unit, Weighing};
use crate::sampling::{Deal, Dealing};
use crate::size::{Share, Size};
use crate::trace::{Access, Format, Notes, OpenError, Position, Trace, TraceError};
use crate::ttl::TtlRule;

/// Requests worth keeping in memory so that a trace need not be read twice: 128 MiB of them.
pub const KEPT_REQUESTS_MAX: usize = 8 << 20;

/// For each request that may be kept in memory the optimum may hold so many, in a third of the room: a
/// billion, in 8 GiB.
const FORESEEN_PER_KEPT: u64 = 128;

/// Requests between two looks at how far the work has come.
const GLANCE_REQUESTS: u64 = 1 << 16;

/// What shall be replayed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where the trace is.
    pub source: Source,
    /// How it is written.
    pub format: Format,
    /// The policies, in the order of the report.
    pub policies: Vec<Kind>,
    /// Whether the optimum ([`crate::belady`]) is played as well; it comes last.
    pub min: bool,
    /// What is simulated, and in which sizes.
    pub caches: Caches,
    /// How the log's requests are to be understood.
    pub semantics: Semantics,
    /// What becomes of requests for objects of size 0.
    pub empty: Empty,
    /// Whether a malformed record ends the run.
    pub strict: bool,
    /// Threads that replays are spread over.
    pub jobs: NonZeroUsize,
    /// How many requests may be kept in memory to save a second reading; [`KEPT_REQUESTS_MAX`].
    pub kept_requests_max: usize,
}

/// How a log's requests are to be understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Semantics {
    /// Which TTLs items get.
    pub ttl: TtlRule,
    /// What becomes of expired ones.
    pub expiry: Expiry,
    /// In bytes: what is added to each object, in bytes.
    pub item_overhead_bytes: u32,
}

/// Where a trace is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a file.
    File(PathBuf),
    /// On standard input.
    Stdin,
}

/// What is simulated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caches {
    /// Bare caches.
    Plain {
        /// What sizes count.
        unit: Unit,
        /// Their sizes.
        sizes: Vec<Size>,
    },
    /// Servers.
    Server {
        /// Their threads and largest item.
        shape: ServerShape,
        /// Their memory in bytes.
        memory_bytes: Vec<u64>,
    },
}

impl Caches {
    /// What sizes of servers count, as the report says it.
    pub(crate) const SERVER_UNIT: &'static str = "server-memory-bytes";

    /// What sizes count, as the report says it.
    pub(crate) fn unit_name(&self) -> &'static str {
        match self {
            Self::Plain { unit, .. } => unit.name(),
            Self::Server { .. } => Self::SERVER_UNIT,
        }
    }
}

/// What becomes of requests for objects of size 0. Many logs write 0 where they do not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// They are dropped, unless the log is of a key-value store: there they are misses, or values
    /// without a byte.
    Auto,
    /// They are left out and counted, as libCacheSim's command line does.
    Drop,
    /// They are played; without keys and overhead they weigh 1 in bytes.
    Keep,
}

impl Empty {
    /// The name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Drop => "drop",
            Self::Keep => "keep",
        }
    }
}

/// What came of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The trace's file, or `-`.
    pub trace: String,
    /// The trace's format.
    pub format: &'static str,
    /// What cache sizes count.
    pub unit: &'static str,
    /// What the trace held.
    pub found: Found,
    /// How often the trace was read.
    pub readings: u32,
    /// A row a policy and size.
    pub rows: Vec<Row>,
}

/// What a trace held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Requests played.
    pub requests: u64,
    /// Of these, the reads.
    pub reads: u64,
    /// Of these, the writes: set, add, replace, cas.
    pub writes: u64,
    /// Records that could not be read.
    pub malformed: u64,
    /// Requests for objects of size 0 that were left out.
    pub empty_dropped: u64,
    /// Records that are none of a cache's business, and what the log says it lost.
    pub notes: Notes,
}

impl Found {
    /// Whether there was no request at all, played or left out.
    pub(crate) fn is_nothing(&self) -> bool {
        self.requests + self.empty_dropped == 0
    }
}

/// One replay's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Who left.
    pub policy: Ranking,
    /// The capacity, resolved.
    pub cache_size: u64,
    /// What was counted.
    pub tally: Tally,
}

/// Why a plan could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The trace cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// Its file, or `-`.
        path: String,
        /// Why.
        source: OpenError,
    },
    /// The trace cannot be read to its end.
    #[error("{path} is unreadable after {requests} requests")]
    Unreadable {
        /// Its file, or `-`.
        path: String,
        /// Requests read until then.
        requests: u64,
        /// Why.
        source: io::Error,
    },
    /// A record is malformed and the plan is strict.
    #[error("{path} is malformed, and --strict ends the run")]
    Malformed {
        /// Its file, or `-`.
        path: String,
        /// Where and how.
        source: TraceError,
    },
    /// A stream that would have to be read twice.
    #[error(
        "a size in percent needs the whole trace before the replay, and {path} is a stream of more \
         than {kept_requests_max} requests: put it in a file or give sizes as numbers"
    )]
    ShareOfStream {
        /// The stream.
        path: String,
        /// How many could have been kept.
        kept_requests_max: usize,
    },
    /// Curves of several policies, of a stream.
    #[error(
        "curves of other policies than lru need the log a second time, and {path} is a stream: put it \
         in a file, or map lru alone"
    )]
    TwiceOfStream {
        /// The stream.
        path: String,
    },
    /// The optimum of something else than objects.
    #[error(
        "min is the optimum where objects count alike: give --unit objects, or policies that a server has"
    )]
    MinNotOfObjects,
    /// The optimum of less than the log.
    #[error("the curve of min is one of the whole log: leave --sample and --part away")]
    MinOfSample,
    /// The optimum, with TTLs.
    #[error(
        "min cannot foresee TTLs, and request {request} of {path} has one: when an item expires depends \
         on when it was filled in. Give --expiry ignore, or --ttl none"
    )]
    MinOfTtls {
        /// Its file, or `-`.
        path: String,
        /// Which request, the first being 1.
        request: u64,
    },
    /// The optimum, of a log too long to hold.
    #[error(
        "min holds 8 bytes of each request, and {path} has more than the {requests_max} that it holds at \
         most: play a --part of the log"
    )]
    TooLongToForesee {
        /// Its file, or `-`.
        path: String,
        /// How many could have been held.
        requests_max: u64,
    },
    /// A question about a moment, of a stream.
    #[error(
        "a share of the requests, or the node asked most, needs the log twice, and {path} is a stream: put \
         it in a file, or give times, and --node"
    )]
    MomentOfStream {
        /// The stream.
        path: String,
    },
    /// Nothing to tell of.
    #[error("{path} has no reads")]
    NoReads {
        /// Its file, or `-`.
        path: String,
    },
    /// A log in another format than the one it was read in, most likely.
    #[error(
        "{path} has no request that can be read as {format}: {malformed} records are malformed"
    )]
    NothingReadable {
        /// Its file, or `-`.
        path: String,
        /// The format's name.
        format: &'static str,
        /// How many records there are.
        malformed: u64,
    },
    /// A share so small that nothing fits.
    #[error("{share} of {whole} {unit} is no room for anything")]
    EmptyShare {
        /// The share.
        share: Share,
        /// What it is a share of.
        whole: u64,
        /// What is counted.
        unit: &'static str,
    },
}

/// Hears what happens while a plan is carried out.
pub trait Observer {
    /// A stretch of work begins: `what`, with `end` steps of it, if that is known.
    fn begin(&mut self, what: &'static str, end: Option<u64>);
    /// The stretch has come to step `at`.
    fn advance(&mut self, at: u64);
    /// A record could not be read.
    fn malformed(&mut self, error: &TraceError);
    /// No more work is to come.
    fn end(&mut self);
}

/// Nobody watches.
impl Observer for () {
    fn begin(&mut self, _: &'static str, _: Option<u64>) {}
    fn advance(&mut self, _: u64) {}
    fn malformed(&mut self, _: &TraceError) {}
    fn end(&mut self) {}
}

/// Carries `plan` out.
///
/// # Errors
///
/// The trace cannot be read, or a size cannot be resolved. No figures are returned then: part of a
/// trace has another miss ratio than the whole.
pub fn run(plan: &Plan, observer: &mut dyn Observer) -> Result<Report, RunError> {
    run_part(plan, Dealing::WHOLE, observer)
}

/// Carries out what of `plan` one of several workers is to do.
///
/// # Errors
///
/// As for [`run`].
pub fn run_part(
    plan: &Plan,
    dealing: Dealing,
    observer: &mut dyn Observer,
) -> Result<Report, RunError> {
    let outcome = carry_out(plan, dealing, observer);
    observer.end();
    outcome
}

fn carry_out(
    plan: &Plan,
    dealing: Dealing,
    observer: &mut dyn Observer,
) -> Result<Report, RunError> {
    let build = |format: &Format, whole| contestants(plan, dealing, format, whole);
    let Played { players, format, found, readings } = play_all(plan, observer, build)?;
    // A part of a log may well be empty.
    if dealing == Dealing::WHOLE && found.is_nothing() {
        return Err(RunError::NoReads { path: plan.source.to_string() });
    }
    let rows = players.into_iter().flat_map(|player| player.rows(plan.jobs)).collect();
    Ok(Report {
        trace: plan.source.to_string(),
        format: format.name(),
        unit: plan.caches.unit_name(),
        found,
        readings,
        rows,
    })
}

/// What a plan's trace was played to, and what it held.
pub(crate) struct Played<P> {
    pub(crate) players: Vec<P>,
    pub(crate) format: Format,
    pub(crate) found: Found,
    pub(crate) readings: u32,
}

/// Plays the trace of `plan` to the players that `build` makes of its format and, where the plan has
/// shares, of what those are shares of.
///
/// # Errors
///
/// The trace cannot be read, or nothing of it.
pub(crate) fn play_all<P: Player>(
    plan: &Plan,
    observer: &mut dyn Observer,
    build: impl FnOnce(&Format, u64) -> Result<Vec<P>, RunError>,
) -> Result<Played<P>, RunError> {
    let played = play_log(plan, observer, build)?;
    let Found { malformed, .. } = played.found;
    if played.found.is_nothing() && malformed > 0 {
        let (path, format) = (plan.source.to_string(), played.format.name());
        return Err(RunError::NothingReadable { path, format, malformed });
    }
    Ok(played)
}

fn play_log<P: Player>(
    plan: &Plan,
    observer: &mut dyn Observer,
    build: impl FnOnce(&Format, u64) -> Result<Vec<P>, RunError>,
) -> Result<Played<P>, RunError> {
    let mut reading = Reading::first(plan, observer)?;
    let format = reading.format.clone();
    if !plan.needs_survey(&format) {
        let mut players = build(&format, 0)?;
        replay::play(&mut reading, &mut players, plan.jobs)?;
        return Ok(Played { players, format, found: reading.found(), readings: 1 });
    }
    let weighing = plan.weighing(&format);
    let Survey { whole, kept, first_writes } = Survey::take(&mut reading, weighing)?;
    let mut players = build(&format, whole)?;
    let fills = format.has_writes().then(|| first_writes.into_fills());
    let (found, readings) = match kept {
        Kept::All(requests) => {
            let found = reading.found();
            let recital = Recital::of(&requests, observer);
            replay::play(Filled { requests: recital, fills }, &mut players, plan.jobs)?;
            (found, 1)
        }
        Kept::Head(head) => {
            let requests = head.into_iter().map(Ok).chain(&mut reading);
            replay::play(Filled { requests, fills }, &mut players, plan.jobs)?;
            (reading.found(), 1)
        }
        Kept::None => {
            let found = reading.found();
            let requests = Reading::second(plan, observer)?;
            replay::play(Filled { requests, fills }, &mut players, plan.jobs)?;
            (found, 2)
        }
    };
    Ok(Played { players, format, found, readings })
}

impl Plan {
    /// Whether the whole trace is to be known before the first request can be played.
    fn needs_survey(&self, format: &Format) -> bool {
        self.has_shares() || format.has_writes()
    }

    /// Whether a size is a share of what the trace holds.
    fn has_shares(&self) -> bool {
        match &self.caches {
            Caches::Plain { sizes, .. } => sizes.iter().any(|size| matches!(size, Size::Share(_))),
            Caches::Server { .. } => false,
        }
    }

    /// What objects weigh in bare caches.
    pub(crate) fn weighing(&self, format: &Format) -> Weighing {
        let unit = match &self.caches {
            Caches::Plain { unit, .. } => *unit,
            Caches::Server { .. } => Unit::Bytes,
        };
        self.semantics.weighing(unit, format)
    }

    /// The sizes of bare caches or of servers; shares are shares of `whole`.
    fn sizes(&self, whole: u64) -> Result<Vec<u64>, RunError> {
        match &self.caches {
            Caches::Plain { unit, sizes } => {
                sizes.iter().map(|&size| resolve(size, whole, *unit)).collect()
            }
            Caches::Server { memory_bytes, .. } => Ok(memory_bytes.clone()),
        }
    }

    /// The caches of the server's policies, policy by policy; shares are shares of `whole`.
    pub(crate) fn blueprints(
        &self,
        format: &Format,
        whole: u64,
    ) -> Result<Vec<Blueprint>, RunError> {
        let sizes = self.sizes(whole)?;
        let of_policy = |&policy: &Kind| sizes.iter().map(move |&size| (policy, size));
        let blueprint = |(policy, size)| self.blueprint(policy, size, format);
        Ok(self.policies.iter().flat_map(of_policy).map(blueprint).collect())
    }

    pub(crate) fn blueprint(&self, policy: Kind, size: u64, format: &Format) -> Blueprint {
        let counting = match &self.caches {
            Caches::Plain { .. } => Counting::Plain(self.weighing(format)),
            Caches::Server { shape, .. } => Counting::Server(*shape),
        };
        Blueprint { policy, size, counting, expiry: self.semantics.expiry }
    }

    /// The flags that figures depend on, besides policies and sizes.
    pub fn flags(&self) -> String {
        let Semantics { ttl, expiry, item_overhead_bytes } = self.semantics;
        let caches = match &self.caches {
            Caches::Plain { unit, .. } => unit.name().to_owned(),
            Caches::Server { shape: ServerShape { threads, item_bytes_max }, .. } => {
                format!(
                    "{}, threads {threads}, item-size-max {item_bytes_max}",
                    Caches::SERVER_UNIT
                )
            }
        };
        let (expiry, empty) = (expiry.name(), self.empty.name());
        format!(
            "{caches}, ttl {ttl}, expiry {expiry}, item-overhead {item_overhead_bytes}, empty {empty}"
        )
    }

    /// How many requests the optimum may hold; none if it is not asked for.
    fn foreseen_max(&self) -> Option<u64> {
        self.min.then_some((self.kept_requests_max as u64).saturating_mul(FORESEEN_PER_KEPT))
    }
}

/// Who is fed the trace of a plan.
enum Contestant {
    /// A cache of a policy.
    Cache {
        /// The size that is asked about; a part of the log has a part of it.
        size: u64,
        replay: Replay,
        deal: Deal,
    },
    /// The optimum, at the sizes asked about, and at what a part of the log has of them.
    Optimum { sizes: Vec<(u64, u64)>, foresight: Foresight, deal: Deal },
}

/// The empty caches, policy by policy; shares are shares of `whole`.
fn contestants(
    plan: &Plan,
    dealing: Dealing,
    format: &Format,
    whole: u64,
) -> Result<Vec<Contestant>, RunError> {
    let mut contestants = Vec::new();
    for blueprint in plan.blueprints(format, whole)? {
        let size = blueprint.size;
        // A server's shards are parts by nature: each plays whole ones.
        let (replay, deal) = match blueprint.counting {
            Counting::Plain(_) => {
                let capacity = dealing.share_of(size);
                (blueprint.of_size(capacity).build(), dealing.of_objects())
            }
            Counting::Server(ServerShape { threads, item_bytes_max }) => {
                let geometry = Geometry::new(size, item_bytes_max, threads);
                (blueprint.build(), dealing.of_shards(geometry))
            }
        };
        contestants.push(Contestant::Cache { size, replay, deal });
    }
    if plan.min {
        let Caches::Plain { unit: Unit::Objects, .. } = plan.caches else {
            return Err(RunError::MinNotOfObjects);
        };
        let share = |size| (size, dealing.share_of(size));
        contestants.push(Contestant::Optimum {
            sizes: plan.sizes(whole)?.into_iter().map(share).collect(),
            foresight: Foresight::default(),
            deal: dealing.of_objects(),
        });
    }
    Ok(contestants)
}

impl Player for Contestant {
    #[inline]
    fn request(&mut self, request: &Request) {
        match self {
            Self::Cache { replay, deal, .. } => {
                if deal.takes(request.key) {
                    replay.request(request);
                }
            }
            Self::Optimum { foresight, deal, .. } => {
                if deal.takes(request.key) {
                    foresight.note(request);
                }
            }
        }
    }

    fn requests(&mut self, batch: &[Request]) {
        match self {
            // A replay fetches ahead what a batch will look at.
            Self::Cache { replay, deal: Deal::All, .. } => replay.requests(batch),
            _ => batch.iter().for_each(|request| self.request(request)),
        }
    }
}

impl Contestant {
    /// What came of it; the optimum is played only now, on up to `jobs` threads.
    fn rows(self, jobs: NonZeroUsize) -> Vec<Row> {
        match self {
            Self::Cache { size, replay, .. } => {
                let policy = replay.policy().into();
                vec![Row { policy, cache_size: size, tally: replay.tally() }]
            }
            Self::Optimum { sizes, mut foresight, .. } => {
                foresight.seal();
                let capacities: Vec<u64> = sizes.iter().map(|&(_, capacity)| capacity).collect();
                let tallies = foresight.play_all(&capacities, jobs);
                let row =
                    |((cache_size, _), tally)| Row { policy: Ranking::Min, cache_size, tally };
                sizes.into_iter().zip(tallies).map(row).collect()
            }
        }
    }
}

impl Semantics {
    /// What objects of a log weigh in a bare cache.
    pub fn weighing(&self, unit: Unit, format: &Format) -> Weighing {
        let overhead_bytes = self.item_overhead_bytes;
        Weighing { unit, overhead_bytes, keys_count: format.keys_count() }
    }
}

/// A capacity in `unit`s. An amount of bytes counts as so many units; the command line takes none
/// where objects are counted.
fn resolve(size: Size, whole: u64, unit: Unit) -> Result<u64, RunError> {
    match size {
        Size::Count(count) | Size::Bytes(count) => Ok(count),
        Size::Share(share) => match share.of(whole) {
            0 => Err(RunError::EmptyShare { share, whole, unit: unit.name() }),
            capacity => Ok(capacity),
        },
    }
}

impl Source {
    /// Opens the trace; the bytes there are to read are known of a file only.
    pub(crate) fn open(&self, format: &Format) -> Result<(Trace, Option<u64>), OpenError> {
        match self {
            Self::File(path) => {
                let bytes = path.metadata().ok().filter(Metadata::is_file).map(|file| file.len());
                Ok((Trace::open(path, format)?, bytes))
            }
            Self::Stdin => Ok((Trace::read(io::stdin(), format)?, None)),
        }
    }

    /// Whether it can be opened a second time and holds the same again; a pipe with a name does not.
    pub(crate) fn is_stream(&self) -> bool {
        match self {
            Self::File(path) => !path.is_file(),
            Self::Stdin => true,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stdin => f.write_str("-"),
        }
    }
}

/// The trace as requests: what is malformed is told and counted, what is empty left out.
struct Reading<'a> {
    plan: &'a Plan,
    observer: &'a mut dyn Observer,
    trace: Trace,
    format: Format,
    position: Position,
    /// Length of the file, where it is one.
    bytes: Option<u64>,
    found: Found,
    drops_empty: bool,
    /// How many requests the optimum may hold, if it is asked for.
    foreseen_max: Option<u64>,
    /// A first reading told the observer of what is malformed.
    told: bool,
}

impl<'a> Reading<'a> {
    fn first(plan: &'a Plan, observer: &'a mut dyn Observer) -> Result<Self, RunError> {
        let mut reading = Self::open(plan, observer)?;
        let what = if plan.needs_survey(&reading.format) { "survey" } else { "replay" };
        reading.begin(what);
        Ok(reading)
    }

    fn second(plan: &'a Plan, observer: &'a mut dyn Observer) -> Result<Self, RunError> {
        let mut reading = Self { told: true, ..Self::open(plan, observer)? };
        reading.begin("replay");
        Ok(reading)
    }

    fn open(plan: &'a Plan, observer: &'a mut dyn Observer) -> Result<Self, RunError> {
        let opened = plan.source.open(&plan.format);
        let (trace, bytes) =
            opened.map_err(|source| RunError::Open { path: plan.source.to_string(), source })?;
        let (format, position) = (trace.format().clone(), trace.position());
        let drops_empty = match plan.empty {
            Empty::Auto => !format.has_writes(),
            Empty::Drop => true,
            Empty::Keep => false,
        };
        let (found, told) = (Found::default(), false);
        let foreseen_max = plan.foreseen_max();
        Ok(Self {
            plan,
            observer,
            trace,
            format,
            position,
            bytes,
            found,
            drops_empty,
            foreseen_max,
            told,
        })
    }

    fn begin(&mut self, what: &'static str) {
        self.observer.begin(what, self.bytes);
    }

    /// What has been found by now.
    fn found(&self) -> Found {
        Found { notes: self.trace.notes(), ..self.found }
    }

    /// Whether the optimum can go on with the request just read.
    fn check_foresight(&self, ttl_s: u32, requests_max: u64) -> Result<(), RunError> {
        let (path, request) = (|| self.plan.source.to_string(), self.found.requests);
        if ttl_s > 0 && self.plan.semantics.expiry != Expiry::Ignore {
            return Err(RunError::MinOfTtls { path: path(), request });
        }
        if request > requests_max {
            return Err(RunError::TooLongToForesee { path: path(), requests_max });
        }
        Ok(())
    }

    /// Counts a malformed record, or ends the reading over it.
    fn malformed(&mut self, error: TraceError) -> Result<(), RunError> {
        if self.plan.strict {
            return Err(RunError::Malformed { path: self.plan.source.to_string(), source: error });
        }
        self.found.malformed += 1;
        if !self.told {
            self.observer.malformed(&error);
        }
        Ok(())
    }
}

impl Iterator for Reading<'_> {
    type Item = Result<Request, RunError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.trace.next()? {
                Ok(access) if access.size_bytes == 0 && self.drops_empty && access.op.is_read() => {
                    self.found.empty_dropped += 1;
                }
                Ok(access) => {
                    if self.found.requests.is_multiple_of(GLANCE_REQUESTS) {
                        self.observer.advance(self.position.bytes());
                    }
                    self.found.requests += 1;
                    self.found.reads += u64::from(access.op.is_read());
                    self.found.writes += u64::from(access.op.is_write());
                    let ttl_s = self.plan.semantics.ttl.apply(access.ttl_s);
                    if let Some(requests_max) = self.foreseen_max
                        && let Err(error) = self.check_foresight(ttl_s, requests_max)
                    {
                        return Some(Err(error));
                    }
                    return Some(Ok(Access { ttl_s, ..access }.into()));
                }
                Err(TraceError::Io(source)) => {
                    let path = self.plan.source.to_string();
                    let requests = self.found.requests;
                    return Some(Err(RunError::Unreadable { path, requests, source }));
                }
                Err(error @ TraceError::Malformed { .. }) => {
                    if let Err(error) = self.malformed(error) {
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}

/// Requests kept in memory, played from there.
pub(crate) struct Recital<'a> {
    requests: std::slice::Iter<'a, Request>,
    count: u64,
    observer: &'a mut dyn Observer,
}

impl<'a> Recital<'a> {
    pub(crate) fn of(requests: &'a [Request], observer: &'a mut dyn Observer) -> Self {
        let count = requests.len() as u64;
        observer.begin("replay", Some(count));
        Self { requests: requests.iter(), count, observer }
    }
}

impl Iterator for Recital<'_> {
    type Item = Result<Request, RunError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let left = self.requests.len() as u64;
        if left.is_multiple_of(GLANCE_REQUESTS) {
            self.observer.advance(self.count - left);
        }
        self.requests.next().copied().map(Ok)
    }
}

/// Requests, completed by what the log wrote.
struct Filled<I> {
    requests: I,
    /// None for a log of gets only.
    fills: Option<Fills>,
}

impl<I: Iterator<Item = Result<Request, RunError>>> Iterator for Filled<I> {
    type Item = I::Item;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let mut request = self.requests.next()?;
        if let (Ok(request), Some(fills)) = (&mut request, &mut self.fills) {
            fills.complete(request);
        }
        Some(request)
    }
}

/// What is to be known of a trace before it is played, and its requests if there are few enough of
/// them to keep.
struct Survey {
    /// Unique objects, or the sum of their sizes when first seen.
    whole: u64,
    kept: Kept,
    first_writes: FirstWrites,
}

/// Which requests a survey kept.
enum Kept {
    /// All there are.
    All(Vec<Request>),
    /// The first ones of a stream, whose rest has not been read yet.
    Head(Vec<Request>),
    /// None: the trace is read again.
    None,
}

impl Survey {
    /// Reads the whole trace, or of a stream that is too long to keep the head.
    fn take(reading: &mut Reading<'_>, weighing: Weighing) -> Result<Self, RunError> {
        let Plan { source, kept_requests_max, .. } = reading.plan;
        let (is_stream, has_writes) = (source.is_stream(), reading.format.has_writes());
        let has_shares = reading.plan.has_shares();
        let mut fills = Fills::default();
        let mut seen = HashTable::new();
        let mut survey =
            Self { whole: 0, kept: Kept::All(Vec::new()), first_writes: FirstWrites::default() };
        while let Some(request) = reading.next().transpose()? {
            let mut completed = request;
            if has_writes {
                survey.first_writes.note(&request);
                fills.complete(&mut completed);
            }
            let key = request.key.0;
            // What is only deleted, or missed and never written, is no object.
            let is_object = completed.fills && (request.op.is_read() || request.op.is_write());
            if has_shares
                && is_object
                && let Entry::Vacant(place) = seen.entry(key, |&other| other == key, |&key| key)
            {
                place.insert(key);
                survey.whole += u64::from(weighing.weight(&completed));
            }
            match &mut survey.kept {
                Kept::All(requests) if requests.len() < *kept_requests_max => {
                    requests.push(request);
                }
                Kept::All(_) if is_stream && has_shares => {
                    let (path, kept_requests_max) = (source.to_string(), *kept_requests_max);
                    return Err(RunError::ShareOfStream { path, kept_requests_max });
                }
                Kept::All(requests) if is_stream => {
                    let mut head = std::mem::take(requests);
                    head.push(request);
                    survey.kept = Kept::Head(head);
                    return Ok(survey);
                }
                Kept::All(_) => survey.kept = Kept::None,
                Kept::Head(_) | Kept::None => {}
            }
        }
        Ok(survey)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tempfile::NamedTempFile;

    use super::*;
    use crate::sampling::Part;
    use crate::trace::csv::Layout;

    /// Remembers what it heard.
    #[derive(Default)]
    struct Listener {
        stretches: Vec<&'static str>,
        complaints: Vec<String>,
    }

    impl Observer for Listener {
        fn begin(&mut self, what: &'static str, _end: Option<u64>) {
            self.stretches.push(what);
        }

        fn advance(&mut self, _at: u64) {}

        fn malformed(&mut self, error: &TraceError) {
            self.complaints.push(error.to_string());
        }

        fn end(&mut self) {}
    }

    /// A plan over a CSV of ids and sizes, in objects, for LRU.
    fn plan(file: &NamedTempFile, sizes: &[&str]) -> Plan {
        Plan {
            source: Source::File(file.path().into()),
            format: Format::Csv("id=1,size=2".parse::<Layout>().unwrap()),
            policies: vec![Kind::Lru],
            min: false,
            caches: Caches::Plain {
                unit: Unit::Objects,
                sizes: sizes.iter().map(|size| size.parse().unwrap()).collect(),
            },
            semantics: Semantics::default(),
            empty: Empty::Auto,
            strict: false,
            jobs: NonZeroUsize::MIN,
            kept_requests_max: KEPT_REQUESTS_MAX,
        }
    }

    fn in_bytes(plan: Plan) -> Plan {
        let sizes = match plan.caches {
            Caches::Plain { sizes, .. } => sizes,
            Caches::Server { .. } => panic!("the plan is for bare caches"),
        };
        Plan { caches: Caches::Plain { unit: Unit::Bytes, sizes }, ..plan }
    }

    fn file(text: &str) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn report_of(plan: &Plan) -> Report {
        run(plan, &mut Listener::default()).unwrap()
    }

    fn capacities(report: &Report) -> Vec<u64> {
        report.rows.iter().map(|row| row.cache_size).collect()
    }

    /// Five objects of 100, 200, 300, 400 and 500 bytes; the last comes again, larger.
    const FIVE: &str = "1,100\n2,200\n3,300\n4,400\n5,500\n5,900\n";

    #[test]
    fn share_is_of_the_unique_objects_or_of_their_first_sizes() {
        let file = file(FIVE);
        assert_eq!(capacities(&report_of(&plan(&file, &["50%", "7", "100%"]))), [2, 7, 5]);
        assert_eq!(capacities(&report_of(&in_bytes(plan(&file, &["10%", "100%"])))), [150, 1500]);
    }

    #[test]
    fn rows_come_policy_by_policy() {
        let file = file(FIVE);
        let policies = vec![Kind::Arc, Kind::Lru];
        let report = report_of(&Plan { policies, min: true, ..plan(&file, &["2", "1"]) });
        let rows: Vec<_> = report.rows.iter().map(|row| (row.policy, row.cache_size)).collect();
        let [arc, lru] = [Kind::Arc, Kind::Lru].map(Ranking::from);
        let min = Ranking::Min;
        assert_eq!(rows, [(arc, 2), (arc, 1), (lru, 2), (lru, 1), (min, 2), (min, 1)]);
    }

    #[test]
    fn known_sizes_need_one_reading_and_a_long_trace_with_shares_two() {
        let file = file(FIVE);
        let short = plan(&file, &["40%"]);
        let long = Plan { kept_requests_max: 3, ..short.clone() };
        let mut listener = Listener::default();
        let report = run(&long, &mut listener).unwrap();
        assert_eq!((report.readings, listener.stretches), (2, vec!["survey", "replay"]));
        assert_eq!(report_of(&short).readings, 1);
        assert_eq!(report_of(&short).rows, report.rows);
        assert_eq!(report_of(&plan(&file, &["2"])), Report { readings: 1, ..report });
    }

    #[test]
    fn malformed_lines_are_told_once_and_counted_however_often_the_trace_is_read() {
        let file = file("1,100\n2,x\n1,100\n3\n");
        for (sizes, kept_requests_max) in [("5", 9), ("100%", 9), ("100%", 1)] {
            let mut listener = Listener::default();
            let plan = Plan { kept_requests_max, ..plan(&file, &[sizes]) };
            let report = run(&plan, &mut listener).unwrap();
            assert_eq!(
                report.found,
                Found { requests: 2, reads: 2, malformed: 2, ..Found::default() }
            );
            assert_eq!(report.rows[0].tally.hits, 1);
            assert_eq!(listener.complaints.len(), 2, "{:?}", listener.complaints);
            assert!(listener.complaints[0].starts_with("line 2: "));
            assert!(listener.complaints[1].starts_with("line 4: "));
        }
    }

    #[test]
    fn strict_plan_ends_at_the_first_malformed_line() {
        let file = file("1,100\n2,x\n1,100\n");
        for sizes in ["5", "100%"] {
            let plan = Plan { strict: true, ..plan(&file, &[sizes]) };
            let error = run(&plan, &mut Listener::default()).unwrap_err();
            assert!(matches!(error, RunError::Malformed { .. }), "{error}");
        }
    }

    #[test]
    fn requests_of_size_0_are_dropped_or_kept() {
        let file = file("1,0\n1,0\n2,9\n");
        let dropping = in_bytes(plan(&file, &["9"]));
        let report = report_of(&dropping);
        assert_eq!(
            report.found,
            Found { requests: 1, reads: 1, empty_dropped: 2, ..Found::default() }
        );
        let report = report_of(&Plan { empty: Empty::Keep, ..dropping });
        assert_eq!(report.found, Found { requests: 3, reads: 3, ..Found::default() });
        assert_eq!(report.rows[0].tally.hits, 1);
    }

    #[test]
    fn a_log_of_which_nothing_can_be_read_has_no_figures() {
        let error = |text: &str| {
            let log = file(text);
            run(&plan(&log, &["5"]), &mut Listener::default()).unwrap_err()
        };
        assert!(matches!(error(""), RunError::NoReads { .. }));
        let error = error("x\ny\n");
        assert!(matches!(error, RunError::NothingReadable { malformed: 2, .. }), "{error}");
        assert!(error.to_string().contains("no request that can be read as csv"), "{error}");
        // A worker's part of a log may be empty.
        let log = file("");
        let dealing = Dealing { part: Part { index: 1, count: 3 }, is_dealt: true };
        let report = run_part(&plan(&log, &["5"]), dealing, &mut Listener::default()).unwrap();
        assert_eq!(report.rows[0].tally.requests, 0);
    }

    #[test]
    fn the_optimum_is_refused_where_it_would_be_none() {
        let log = file("1,0,60\n2,0,0\n");
        let ttls = Format::Csv("id=1,size=2,ttl=3".parse::<Layout>().unwrap());
        let min =
            Plan { policies: Vec::new(), min: true, empty: Empty::Keep, ..plan(&log, &["1"]) };
        let error = |plan: Plan| run(&plan, &mut Listener::default()).unwrap_err();
        assert!(matches!(error(in_bytes(min.clone())), RunError::MinNotOfObjects));
        let with_ttls = Plan { format: ttls, ..min.clone() };
        assert!(matches!(error(with_ttls.clone()), RunError::MinOfTtls { request: 1, .. }));
        let semantics = Semantics { expiry: Expiry::Ignore, ..Semantics::default() };
        assert_eq!(report_of(&Plan { semantics, ..with_ttls }).rows[0].tally.requests, 2);
        let long = file(&"1,1\n".repeat(129));
        let short = Plan { kept_requests_max: 1, min: true, ..plan(&long, &["1"]) };
        assert!(matches!(error(short), RunError::TooLongToForesee { requests_max: 128, .. }));
    }

    #[test]
    fn share_that_rounds_down_to_nothing_is_refused() {
        let file = file(FIVE);
        let error = run(&plan(&file, &["10%"]), &mut Listener::default()).unwrap_err();
        assert_eq!(error.to_string(), "10% of 5 objects is no room for anything");
    }

    #[test]
    fn missing_file_is_named() {
        let file = file("");
        let path = file.path().to_path_buf();
        let plan = plan(&file, &["1"]);
        drop(file);
        let error = run(&plan, &mut Listener::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot open {}", path.display()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn stream_too_long_to_keep_cannot_have_shares() {
        use std::os::fd::AsRawFd;

        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(FIVE.as_bytes()).unwrap();
        drop(writer);
        let source = Source::File(format!("/proc/self/fd/{}", reader.as_raw_fd()).into());
        let plan = Plan { source, kept_requests_max: 3, ..plan(&file(""), &["50%"]) };
        let error = run(&plan, &mut Listener::default()).unwrap_err();
        assert!(matches!(error, RunError::ShareOfStream { .. }), "{error}");
    }
}
