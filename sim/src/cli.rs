//! Flags into a `Plan`, or into a trace to generate.

pub mod caches;
pub mod capture;
pub mod curve;
pub mod part;
pub mod size;
pub mod what_if;

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::thread;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use eviction::{Kind, UnknownPolicy};

use self::caches::CachesArgs;
use self::capture::CaptureArgs;
use self::curve::{CurveArgs, MergeArgs};
use self::part::PartArgs;
use self::size::SizeArgs;
use self::what_if::WhatIfArgs;
use crate::ranking::{Ranking, UnknownRanking};
use crate::replay::Expiry;
use crate::report::Output;
use crate::run::{Caches, Empty, KEPT_REQUESTS_MAX, Plan, Semantics, Source};
use crate::sampling::Dealing;
use crate::size::{Size, SizeError, read_bytes};
use crate::trace::csv::Layout;
use crate::trace::{Format, zipf};
use crate::ttl::TtlRule;

/// Predicts a cache's hit ratio from a request log, with the server's own eviction code.
#[derive(Debug, Parser)]
#[command(name = "cache-sim", version, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What stands below the commands in `cache-sim --help`: where to begin.
const EXAMPLES: &str = "\
Where to begin, with a log of nginx, Apache, memcached, Redis, or any other (cache-sim size --help lists them):
  cache-sim size --trace access.log --plot size.html         how large a cache, with a picture
  cache-sim size --trace access.log --target-hit-ratio 0.9   ... that hits nine of ten reads
  cache-sim describe --trace access.log                      what the log is like
  cache-sim COMMAND --help                                   everything else, with examples";

/// What `cache-sim` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say how much memory a cache needs and which policy, for a hit ratio or for prices, with a picture
    Size(Box<SizeArgs>),
    /// Replay a trace through caches of several policies and sizes, reading it once for all of them
    Run(Box<RunArgs>),
    /// Draw the miss ratio by cache size: exactly for LRU at all sizes, or from a sample with its error
    Curve(Box<CurveArgs>),
    /// Put the maps of parts of a log together
    Merge(MergeArgs),
    /// Ask what another setting would do to a log: more nodes, replicas, a near cache, a restart, other TTLs
    #[command(subcommand)]
    WhatIf(Box<WhatIfArgs>),
    /// Describe a log: its objects, their popularity, sizes and TTLs, how soon they come again
    Describe(Box<DescribeArgs>),
    /// Record what a running memcached is asked for, as a log for the others
    Capture(CaptureArgs),
    /// Make a synthetic trace
    #[command(subcommand)]
    Generate(GenerateCommand),
}

/// Flags that say which log is read, and how.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// The trace, packed with zstd, gzip or xz or not; `-` is standard input
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,

    /// How the trace is written; told by the file's name and its first lines if left out
    #[arg(long, value_name = "FORMAT", value_parser = FormatParser)]
    format: Option<Format>,

    /// Columns of a CSV, by number from 1 or by the header's names, as in time=1,id=2,size=3 (the
    /// default). Also: op, ttl, key-size; time-unit=s|ms|us|ns|auto,
    /// delimiter=tab|space|semicolon|CHARACTER, header=yes|no|auto. Without a size column every object
    /// has size 1. Ids that are no numbers are hashed
    #[arg(long, value_name = "LAYOUT")]
    csv: Option<Layout>,

    /// End the run at the first malformed record rather than report, count and pass over it
    #[arg(long)]
    strict: bool,

    /// What becomes of reads of size 0, which many logs write where they do not know: drop leaves
    /// them out and counts them, keep plays them (in bytes they weigh 1); auto keeps those of a
    /// key-value log, where they are misses, and drops others
    #[arg(long, value_name = "WHAT", default_value = "auto")]
    empty: EmptyName,
}

/// Flags that say how the log's requests are to be understood.
#[derive(Clone, Copy, Debug, Args)]
pub struct SemanticsArgs {
    /// How long items live: as the log says (log), for ever (none), so long after each write
    /// (300, 5m, 12h, 7d), or the log's times a factor (x0.5)
    #[arg(long, value_name = "TTL", default_value = "log")]
    ttl: TtlRule,

    /// What becomes of expired items: ignore serves them all the same; lazy keeps them in their room
    /// until they are asked for or evicted; eager lets them go at the second they expire, as the
    /// server's sweep does
    #[arg(long, value_name = "HOW", default_value = "eager")]
    expiry: ExpiryName,

    /// In bytes: what is added to each object for the cache's own needs
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    item_overhead: u32,
}

/// Flags of `cache-sim run`.
#[derive(Debug, Args)]
#[command(after_long_help = RUN_HELP)]
pub struct RunArgs {
    #[command(flatten)]
    log: LogArgs,

    #[command(flatten)]
    semantics: SemanticsArgs,

    /// Eviction policies, separated by commas: fifo, lru, lfu, lfuda, arc, clock, sieve, s3fifo,
    /// wtinylfu; all of these (all); and min, the optimum, which no server can have: it knows what comes.
    /// It counts objects, and takes no TTLs
    #[arg(long, value_name = "LIST", default_value = "all", value_parser = rankings)]
    policy: Rankings,

    #[command(flatten)]
    caches: CachesArgs,

    #[command(flatten)]
    part: PartArgs,

    /// What is printed
    #[arg(long, value_name = "FORM", default_value = "table")]
    output: OutputName,

    /// Threads to replay on; as many as there are cores if left out. The figures do not depend on it
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

/// What stands below the flags in `cache-sim run --help`.
const RUN_HELP: &str = "\
Rules, so that figures can be compared with those of other simulators: in a log of gets a miss inserts \
the object, and first misses count; an object larger than the cache is a miss and is not admitted, nor \
is one that the policy itself refuses; a hit leaves the size recorded at insertion; nothing is added for \
metadata unless --item-overhead says so.

In a log of a key-value store the ops do what memcached's commands do, gets are what is counted, and an \
object weighs its key and its value. Where the cache that wrote the log hit and this one misses, the \
value that the log last wrote under the key is filled in, with its TTL (before the first write: that \
one's; without any: the get's own size). Such a log is read beforehand to find the first writes.

min lets go whatever is asked for again last: no policy hits more often, so it says what is left to win. \
It takes in what is asked for, as the others do. It is played when the log has been read, from 8 bytes \
kept of each request (of a billion at most), and 39 of each object meanwhile; a log on standard input \
will do.

Figures of parts of a log are put together by merge. With --as-server a part is a share of the server's \
shards, and the parts together are the server to the last hit. With --size it is a share of the objects \
in that share of the room, and the parts together are a cache cut into as many.

The trace is read once for all policies and sizes. A size in percent needs the whole trace beforehand: \
up to 8 million requests are kept in memory meanwhile, a longer file is read twice, a longer stream is \
refused. The last line on standard error says which.

A record that cannot be read is reported with its line (in a binary: its offset), counted, and passed \
over; the first 20 are shown. The count is in the last line on standard error and in JSON, and so are \
the records that the log says it lost, and those that ask no cache for anything.

Examples:
  cache-sim run --trace web.oracleGeneral.zst --policy lru,arc --size 1%,10% --unit objects
  cache-sim run --trace access.log --policy lru --size 64MiB,1GiB
  cache-sim run --trace log.csv --csv time=ts,id=url,size=bytes --size 64MiB,1GiB --output csv
  cache-sim run --trace kv.csv.gz --format twitter --policy lru --size 1GiB --ttl x0.5 --expiry lazy
  cache-sim run --trace log.csv --policy lru --as-server 64MiB,256MiB --threads 4
  cache-sim run --trace log.csv --policy lru,arc,min --unit objects --size 1%,10%
  zcat logs/*.gz | cache-sim run --trace - --format combined --as-server 64GiB --part 3/16 --save part3.json";

/// A list of policies as one value, so that `all` can stand for several.
#[derive(Clone, Debug)]
struct Policies(Vec<Kind>);

fn policies(list: &str) -> Result<Policies, UnknownPolicy> {
    if list == "all" {
        return Ok(Policies(Kind::ALL.to_vec()));
    }
    list.split(',').map(|name| name.trim().parse()).collect::<Result<_, _>>().map(Policies)
}

/// The same, and whether the optimum is among them, which no server can have.
#[derive(Clone, Debug)]
struct Rankings {
    policies: Vec<Kind>,
    min: bool,
}

fn rankings(list: &str) -> Result<Rankings, UnknownRanking> {
    let mut rankings = Rankings { policies: Vec::new(), min: false };
    for name in list.split(',').map(str::trim) {
        match name {
            "all" => rankings.policies.extend(Kind::ALL),
            name => match name.parse()? {
                Ranking::Online(kind) => rankings.policies.push(kind),
                Ranking::Min => rankings.min = true,
            },
        }
    }
    Ok(rankings)
}

/// Reads a format's name, and tells the shell which there are.
#[derive(Clone)]
struct FormatParser;

impl TypedValueParser for FormatParser {
    type Value = Format;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Format, clap::Error> {
        let names = Format::ALL.iter().flat_map(|format| {
            std::iter::once(format.name()).chain(format.aliases().iter().copied())
        });
        let name = PossibleValuesParser::new(names).parse_ref(command, argument, value)?;
        let is_it =
            |format: &&Format| format.name() == name || format.aliases().contains(&name.as_str());
        Ok(Format::ALL.iter().find(is_it).cloned().unwrap_or(Format::Guess))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Format::ALL.iter().map(|format| {
            PossibleValue::new(format.name()).aliases(format.aliases()).help(format.about())
        })))
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OutputName {
    /// Aligned columns, for reading
    Table,
    /// A header with the columns' names, and a line a result
    Csv,
    /// One object: what the trace held, and the results
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EmptyName {
    Auto,
    Drop,
    Keep,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExpiryName {
    Ignore,
    Lazy,
    Eager,
}

/// Why flags that each can be read make no plan together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Columns for a format that has its own.
    #[error("--csv describes columns, but the format is {0}")]
    ColumnsOfBinary(&'static str),
    /// Bytes where objects are counted.
    #[error("a --size is an amount of bytes, but --unit objects counts objects")]
    BytesOfObjects,
    /// A server's flag without a server.
    #[error("{0} describes a server: it needs --as-server")]
    NoServer(&'static str),
    /// A server's shards, of what others dealt.
    #[error("--as-server takes whole shards: leave --dealt away, and let all requests come")]
    ServerOfDealt,
    /// More copies than nodes to lie on.
    #[error("{copies} copies need as many nodes, and there are {nodes}")]
    MoreCopiesThanNodes {
        /// Copies wanted.
        copies: u32,
        /// Nodes there are.
        nodes: u32,
    },
    /// A node that there is not.
    #[error("there is no node {node}: {nodes} nodes are numbered from 0")]
    NoSuchNode {
        /// The node asked for.
        node: u32,
        /// Nodes there are.
        nodes: u32,
    },
    /// Two answers to which TTLs items have.
    #[error("--ttls says which TTLs are compared: leave --ttl away")]
    TwoTtlRules,
    /// A share of what a near cache cannot have.
    #[error("--near-size is a number or an amount of bytes, not a share of the log")]
    NearShare,
    /// A share of the log, of what others dealt.
    #[error("a size in percent needs the whole log, and --dealt says that others have the rest")]
    ShareOfDealt,
}

impl RunArgs {
    /// The plan that the flags describe.
    ///
    /// # Errors
    ///
    /// They contradict each other, or leave the format open.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        let format = self.log.trace_format()?;
        let caches = self.caches.caches()?;
        Ok(Plan {
            source: self.log.source(),
            format,
            policies: self.policy.policies.clone(),
            min: self.policy.min,
            caches,
            semantics: self.semantics.into(),
            empty: self.log.empty.into(),
            strict: self.log.strict,
            kept_requests_max: KEPT_REQUESTS_MAX,
            jobs: self.jobs.or_else(|| thread::available_parallelism().ok()).unwrap_or(ONE_JOB),
        })
    }

    /// What is played of what comes.
    ///
    /// # Errors
    ///
    /// What others dealt has no shares, and no shards of a server.
    pub fn dealing(&self) -> Result<Dealing, PlanError> {
        let dealing = self.part.dealing();
        match self.caches.caches()? {
            Caches::Server { .. } if dealing.is_dealt => Err(PlanError::ServerOfDealt),
            Caches::Plain { sizes, .. }
                if dealing.is_dealt && sizes.iter().any(|it| matches!(it, Size::Share(_))) =>
            {
                Err(PlanError::ShareOfDealt)
            }
            _ => Ok(dealing),
        }
    }

    /// Where the figures are saved, if anywhere.
    pub fn save(&self) -> Option<&Path> {
        self.part.save()
    }

    /// How the report is to be written.
    pub fn output(&self) -> Output {
        self.output.into()
    }
}

/// Flags of `cache-sim describe`.
#[derive(Debug, Args)]
#[command(after_long_help = DESCRIBE_HELP)]
pub struct DescribeArgs {
    #[command(flatten)]
    log: LogArgs,

    /// What is printed
    #[arg(long, value_name = "FORM", default_value = "table")]
    output: OutputName,
}

/// What stands below the flags in `cache-sim describe --help`.
const DESCRIBE_HELP: &str = "\
The log is read once. Up to 2,097,152 objects are counted exactly, in at most 192 MiB; of a log with more \
of them a sample of the objects is kept, and objects.sampled_share says which share of all it is. \
Requests, ops and rates are counted over the whole log in any case. --empty makes no difference.

zipf_alpha is the slope of a line through the logarithms of count and rank, at ranks that are even in the \
logarithm, over the objects asked for at least 3 times; zipf_fit_r2 says how straight that line is. \
working_set is the mean number (and bytes) of objects used within the last minute, hour and day. reuse is \
the time, and the requests, between a read and the use of the object before it. hot names the objects asked \
for most: a number stands for itself, another key for its XXH3-64.

Example:
  cache-sim describe --trace access.log --output json";

impl DescribeArgs {
    /// Where the log is, how it is written, and whether a malformed record ends the run.
    ///
    /// # Errors
    ///
    /// The flags contradict each other.
    pub fn log(&self) -> Result<(Source, Format, bool), PlanError> {
        Ok((self.log.source(), self.log.trace_format()?, self.log.strict))
    }

    /// How the description is to be written.
    pub fn output(&self) -> Output {
        self.output.into()
    }
}

impl LogArgs {
    /// Where the trace is.
    fn source(&self) -> Source {
        match self.trace.to_str() {
            Some("-") => Source::Stdin,
            _ => Source::File(self.trace.clone()),
        }
    }

    /// The format by flag; `--csv` alone means CSV, and of a file of that kind the delimiter is told
    /// by its name.
    fn trace_format(&self) -> Result<Format, PlanError> {
        let named = Format::guess(&self.trace);
        let format = match (&self.format, named, &self.csv) {
            (Some(Format::Csv(_)), Some(Format::Csv(layout)), _) => Format::Csv(layout),
            (Some(format), _, _) => format.clone(),
            (None, Some(Format::Parquet(_)), Some(layout)) => Format::Parquet(layout.clone()),
            (None, Some(format), Some(_)) => format,
            (None, None, Some(layout)) => Format::Csv(layout.clone()),
            (None, _, None) => Format::Guess,
        };
        match (format, &self.csv) {
            (format, None) => Ok(format),
            (Format::Csv(_), Some(layout)) => Ok(Format::Csv(layout.clone())),
            (Format::Parquet(_), Some(layout)) => Ok(Format::Parquet(layout.clone())),
            (format, Some(_)) => Err(PlanError::ColumnsOfBinary(format.name())),
        }
    }
}

/// A server's threads unless it is told otherwise.
const SERVER_THREADS: u32 = 4;

/// A server's largest item unless it is told otherwise, in bytes.
const SERVER_ITEM_BYTES_MAX: u64 = 1 << 20;

/// What is used where the system does not say how many cores there are.
const ONE_JOB: NonZeroUsize = NonZeroUsize::MIN;

impl From<OutputName> for Output {
    fn from(name: OutputName) -> Self {
        match name {
            OutputName::Table => Self::Table,
            OutputName::Csv => Self::Csv,
            OutputName::Json => Self::Json,
        }
    }
}

impl From<SemanticsArgs> for Semantics {
    fn from(args: SemanticsArgs) -> Self {
        let expiry = args.expiry.into();
        Self { ttl: args.ttl, expiry, item_overhead_bytes: args.item_overhead }
    }
}

impl From<ExpiryName> for Expiry {
    fn from(name: ExpiryName) -> Self {
        match name {
            ExpiryName::Ignore => Self::Ignore,
            ExpiryName::Lazy => Self::Lazy,
            ExpiryName::Eager => Self::Eager,
        }
    }
}

impl From<EmptyName> for Empty {
    fn from(name: EmptyName) -> Self {
        match name {
            EmptyName::Auto => Self::Auto,
            EmptyName::Drop => Self::Drop,
            EmptyName::Keep => Self::Keep,
        }
    }
}

/// Kinds of synthetic traces.
#[derive(Debug, Subcommand)]
pub enum GenerateCommand {
    /// Zipf popularity: object k is asked for in proportion to k to the power of -alpha
    Zipf(ZipfArgs),
}

/// Flags of `cache-sim generate zipf`.
#[derive(Debug, Args)]
#[command(after_help = ZIPF_HELP)]
pub struct ZipfArgs {
    /// How many requests
    #[arg(long, value_name = "N")]
    requests: u64,

    /// How many objects there are to ask for; unpopular ones may never turn up
    #[arg(long, value_name = "N")]
    objects: u64,

    /// How skewed: 0 is even, 1 is what key-value workloads look like
    #[arg(long, value_name = "EXPONENT", default_value_t = 0.99)]
    alpha: f64,

    /// Sizes of the objects in bytes, both ends included; each object's is drawn once
    #[arg(long, value_name = "FROM..TO", default_value = "100..4096", value_parser = value_range)]
    value: RangeInclusive<u32>,

    /// Requests per second of the trace's time
    #[arg(long, value_name = "N", default_value_t = 1000)]
    rate: u64,

    /// Another seed, another trace
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Where the trace goes, in the oracleGeneral format: packed if the name ends in .zst; `-` is
    /// standard output
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// What stands below the flags in `cache-sim generate zipf --help`.
const ZIPF_HELP: &str = "\
The same flags make the same trace. All requests are held in memory until they are written.

Example:
  cache-sim generate zipf --requests 2000000 --objects 1000000 --output zipf.oracleGeneral.zst";

impl ZipfArgs {
    /// What the trace is made from.
    pub fn spec(&self) -> zipf::Spec {
        zipf::Spec {
            requests: self.requests,
            objects: self.objects,
            alpha: self.alpha,
            value_bytes: self.value.clone(),
            requests_per_s: self.rate,
            seed: self.seed,
        }
    }

    /// Where the trace goes.
    pub fn output(&self) -> &Path {
        &self.output
    }
}

/// Why a text is no range of sizes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum RangeError {
    #[error("write two sizes, as in 100..4096")]
    NoRange,
    #[error(transparent)]
    Size(#[from] SizeError),
    #[error("a value has at most {} bytes", u32::MAX)]
    TooLarge,
}

/// Reads `100..4096`, or one size for all objects.
fn value_range(text: &str) -> Result<RangeInclusive<u32>, RangeError> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    if from.is_empty() || to.is_empty() {
        return Err(RangeError::NoRange);
    }
    let size = |text| u32::try_from(read_bytes(text)?).map_err(|_| RangeError::TooLarge);
    Ok(size(from)?..=size(to)?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;
    use crate::replay::{ServerShape, Unit};

    /// The plan of a command line, flags separated by spaces.
    fn plan(flags: &str) -> Plan {
        run_args(flags).unwrap().plan().unwrap()
    }

    fn run_args(flags: &str) -> Result<RunArgs, clap::Error> {
        let words = ["cache-sim", "run"].into_iter().chain(flags.split(' '));
        match Cli::try_parse_from(words)?.command {
            Command::Run(args) => Ok(*args),
            _ => panic!("asked to run"),
        }
    }

    #[test]
    fn flags_are_consistent_in_themselves() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_and_policies_come_in_lists() {
        let plan = plan(
            "--trace a.oracleGeneral.zst --policy lru,S3-FIFO --size 489,10% --unit objects --jobs 3",
        );
        assert_eq!(plan.source, Source::File("a.oracleGeneral.zst".into()));
        assert_eq!(plan.format, Format::Guess);
        assert_eq!(plan.policies, [Kind::Lru, Kind::S3Fifo]);
        let sizes = vec![Size::Count(489), "10%".parse().unwrap()];
        assert_eq!(plan.caches, Caches::Plain { unit: Unit::Objects, sizes });
        assert_eq!(plan.jobs.get(), 3);
        assert!(!plan.strict);
    }

    #[test]
    fn all_policies_are_kind_all() {
        assert_eq!(plan("--trace a.csv --size 1 --policy all").policies, Kind::ALL);
        assert_eq!(plan("--trace a.csv --size 1").policies, Kind::ALL);
        assert!(!plan("--trace a.csv --size 1").min);
        let and_min = plan("--trace a.csv --size 1 --policy all,min");
        assert!(and_min.min && and_min.policies == Kind::ALL);
    }

    #[test]
    fn help_names_every_format() {
        let mut command = Cli::command();
        let help = command.find_subcommand_mut("run").unwrap().render_long_help().to_string();
        for format in Format::ALL {
            assert!(help.contains(format.name()), "{} is not in the help", format.name());
        }
    }

    #[test]
    fn help_names_every_policy() {
        let mut command = Cli::command();
        let help = command.find_subcommand_mut("run").unwrap().render_long_help().to_string();
        let words: Vec<&str> = help.split([' ', ',', ';', '\n']).collect();
        for ranking in Kind::ALL.map(Ranking::from).into_iter().chain([Ranking::Min]) {
            assert!(words.contains(&ranking.name()), "{ranking} is not in the help");
        }
    }

    #[test]
    fn server_memory_stands_instead_of_sizes() {
        let plan = plan("--trace a.csv --policy lru --as-server 64MiB,256m --threads 2");
        let shape = ServerShape { threads: 2, item_bytes_max: 1 << 20 };
        assert_eq!(plan.caches, Caches::Server { shape, memory_bytes: vec![64 << 20, 256 << 20] });
    }

    #[test]
    fn format_is_the_flag_or_the_name_or_the_columns() {
        let format = |flags: &str| plan(&format!("{flags} --size 1")).format;
        let tabs = Format::Csv(Layout { delimiter: b'\t', ..Layout::default() });
        assert_eq!(format("--trace a.log --format oracle-general"), Format::OracleGeneral);
        assert_eq!(format("--trace - --format csv"), Format::Csv(Layout::default()));
        assert_eq!(format("--trace a.tsv --format csv"), tabs);
        let ids = Format::Csv("id=4".parse().unwrap());
        assert_eq!(format("--trace a.log --csv id=4"), ids);
        assert_eq!(format("--trace a.csv --csv id=4"), ids);
        assert_eq!(format("--trace a.csv"), Format::Guess);
        assert_eq!(format("--trace a.log --format nginx"), Format::AccessLog);
        assert_eq!(format("--trace a.log --format memcached-watch"), Format::MemcachedWatch);
    }

    #[test]
    fn contradictions_are_refused() {
        let error = |flags: &str| run_args(flags).unwrap().plan().unwrap_err();
        assert_eq!(
            error("--trace a.oracleGeneral --csv id=1 --size 1"),
            PlanError::ColumnsOfBinary("oracle-general")
        );
        assert_eq!(error("--trace a.csv --unit objects --size 5,1GiB"), PlanError::BytesOfObjects);
        let dealing = |flags: &str| run_args(flags).unwrap().dealing();
        let dealt = "--trace a.csv --part 1/2 --dealt --save a.json";
        assert_eq!(dealing(&format!("{dealt} --size 10%")), Err(PlanError::ShareOfDealt));
        assert_eq!(dealing(&format!("{dealt} --as-server 1g")), Err(PlanError::ServerOfDealt));
        assert!(dealing(&format!("{dealt} --size 10")).unwrap().is_dealt);
    }

    #[test]
    fn bad_flags_are_errors_of_usage() {
        for (flags, kind) in [
            ("--size 1", ErrorKind::MissingRequiredArgument),
            ("--trace a.csv", ErrorKind::MissingRequiredArgument),
            ("--trace a.csv --size 0", ErrorKind::ValueValidation),
            ("--trace a.csv --size 1 --policy mru", ErrorKind::ValueValidation),
            ("--trace a.csv --size 1 --csv ids=1", ErrorKind::ValueValidation),
            ("--trace a.csv --size 1 --unit pages", ErrorKind::InvalidValue),
            ("--trace a.csv --size 1 --as-server 1g", ErrorKind::ArgumentConflict),
            ("--trace a.csv --as-server 10%", ErrorKind::ValueValidation),
            ("--trace a.csv --size 1 --jobs 0", ErrorKind::ValueValidation),
            ("--trace a.csv --size 1 --part 1/2", ErrorKind::MissingRequiredArgument),
            ("--trace a.csv --size 1 --save a --dealt", ErrorKind::MissingRequiredArgument),
            ("--trace a.csv --size 1 --frobnicate", ErrorKind::UnknownArgument),
        ] {
            let found = run_args(flags).map(|_| ()).map_err(|error| error.kind());
            assert_eq!(found, Err(kind), "{flags}");
        }
    }

    #[test]
    fn value_sizes_are_a_range_or_one() {
        assert_eq!(value_range("100..4KiB"), Ok(100..=4096));
        assert_eq!(value_range("7"), Ok(7..=7));
        assert_eq!(value_range("..7"), Err(RangeError::NoRange));
        assert_eq!(value_range("1..4GiB"), Err(RangeError::TooLarge));
    }
}
