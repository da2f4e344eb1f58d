//! Flags of `cache-sim size`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;

use clap::{Args, ValueEnum};

use super::caches::item_size;
use super::curve::SampleSize;
use super::{
    ExpiryName, LogArgs, ONE_JOB, OutputName, PlanError, Policies, SERVER_ITEM_BYTES_MAX,
    SERVER_THREADS, policies,
};
use crate::plot::Form;
use crate::replay::ServerShape;
use crate::report::Output;
use crate::run::{Caches, KEPT_REQUESTS_MAX, Plan, Semantics};
use crate::size::read_bytes;
use crate::sizing::fleet::{FleetError, Preset, Wish};
use crate::sizing::prices::{Backend, PerRequest, PerRequestError, Prices};
use crate::sizing::run::{Ask, Depth, Effort, SizingPlan};
use crate::ttl::TtlRule;

/// Flags of `cache-sim size`.
#[derive(Debug, Args)]
#[command(after_help = SIZE_EXAMPLES, after_long_help = SIZE_HELP)]
pub struct SizeArgs {
    #[command(flatten)]
    log: LogArgs,

    /// Eviction policies to choose from, separated by commas, or all
    #[arg(
        long,
        value_name = "LIST",
        default_value = "lru,lfu,arc,s3fifo,wtinylfu",
        value_parser = policies
    )]
    policy: Policies,

    /// How long items live: as the log says (log), for ever (none), so long after each write
    /// (300, 5m, 12h, 7d), or the log's times a factor (x0.5)
    #[arg(long, value_name = "TTL", default_value = "log")]
    ttl: TtlRule,

    /// What becomes of expired items: the server lets them go at the second they expire (eager); lazy
    /// and ignore ask what if it did not
    #[arg(long, value_name = "HOW", default_value = "eager")]
    expiry: ExpiryName,

    /// How closely the log is looked at: auto plays a short log whole, searches a longer one in a sample
    /// and plays whole what it found there; whole; or a sample and nothing else, a share of the objects
    /// (1%) or so many of them at most (8192)
    #[arg(long, value_name = "auto|whole|SHARE|N", default_value = "auto", value_parser = depth)]
    sample: Depth,

    /// How many sizes are tried of each policy, before those between them that may be better
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u16).range(4..=200))]
    points: u16,

    /// What is printed
    #[arg(long, value_name = "FORM", default_value = "table")]
    output: OutputName,

    /// Draw a picture too: an SVG, a PNG, or, if the name ends in .html, a page to send to a colleague,
    /// with the answer, curves, what it rests on, and the command that made it
    #[arg(long, value_name = "FILE", value_parser = super::curve::picture)]
    plot: Option<PathBuf>,

    /// Threads to replay on; as many as there are cores if left out. The figures do not depend on it
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    #[command(flatten)]
    asked: AskArgs,

    #[command(flatten)]
    servers: ServerArgs,
}

/// Flags that say what is asked.
#[derive(Debug, Args)]
#[command(next_help_heading = "What is asked")]
struct AskArgs {
    /// The least hit ratio: 0.9 or 90%
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    target_hit_ratio: Option<f64>,

    /// What a GiB of memory costs a month. Prices are in one currency, whichever it is
    #[arg(long, value_name = "PRICE", value_parser = price)]
    memory_price: Option<f64>,

    /// What a miss costs: 0.0000004, or 0.40/M for a million of them (/k for a thousand)
    #[arg(long, value_name = "PRICE", value_parser = price, requires = "memory_price")]
    miss_cost: Option<f64>,

    /// What a hit costs, memory aside; nothing if left out
    #[arg(long, value_name = "PRICE", value_parser = price, requires = "memory_price")]
    hit_cost: Option<f64>,

    /// What a request costs without a cache; as much as a miss, less a hit, if left out
    #[arg(long, value_name = "PRICE", value_parser = price, requires = "memory_price")]
    direct_cost: Option<f64>,

    /// How long a miss takes, the look into the cache included: 20ms, 1.5s, 300us
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    miss_time: Option<f64>,

    /// How long a hit takes
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    hit_time: Option<f64>,

    /// How long a request takes without a cache; as long as a miss, less a hit, if left out
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    direct_time: Option<f64>,

    /// What a second is worth that a request takes
    #[arg(long, value_name = "PRICE", value_parser = price, requires = "memory_price")]
    second_price: Option<f64>,

    /// Requests a second that one replica of the backend serves
    #[arg(long, value_name = "N", value_parser = rate, requires = "backend_price")]
    backend_rate: Option<f64>,

    /// What one replica of the backend costs a month
    #[arg(long, value_name = "PRICE", value_parser = price, requires_all = ["backend_rate", "memory_price"])]
    backend_price: Option<f64>,

    /// Reads a second in the mean, where the log tells no time or is of a part of the traffic
    #[arg(long, value_name = "N", value_parser = rate)]
    requests_per_second: Option<f64>,
}

/// Flags that describe the servers.
#[derive(Debug, Args)]
#[command(next_help_heading = "Servers")]
struct ServerArgs {
    /// Threads of each server (its -t)
    #[arg(long, value_name = "N", default_value_t = SERVER_THREADS, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,

    /// The largest item (the server's -I), 1MiB if left out; what is larger is not stored
    #[arg(long, value_name = "BYTES", value_parser = item_size)]
    item_size_max: Option<u64>,

    /// Servers that share the memory
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    nodes: Option<u32>,

    /// What each machine has for its server, what it needs beyond -m included; there are as many servers
    /// as it takes
    #[arg(long, value_name = "BYTES", value_parser = read_bytes)]
    node_memory_max: Option<u64>,

    /// The servers are a cluster, which keeps every item more than once: sessions twice, strict three
    /// times; of three nodes, if nothing asks for more
    #[arg(long, value_name = "PRESET")]
    preset: Option<PresetName>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PresetName {
    Sessions,
    Strict,
}

/// What stands below the flags in `cache-sim size -h`.
const SIZE_EXAMPLES: &str = "\
Examples:
  cache-sim size --trace access.log --plot size.html
  cache-sim size --trace access.log --target-hit-ratio 0.9
  cache-sim size --trace access.log --memory-price 3 --miss-cost 0.40/M
  cache-sim size --trace access.log --memory-price 3 --backend-rate 500 --backend-price 120
  zcat kv.csv.gz | cache-sim size --trace - --format twitter --preset sessions";

/// What stands below the flags in `cache-sim size --help`.
const SIZE_HELP: &str = "\
The answer is the least memory, or with prices the cheapest, in which the log hits as often as is asked; with \
neither, the knee of the best policies' curve. It is the server's -m: caches are played as the server is, \
item footprints, shards and all. The machine needs more than -m; how much is told too.

A cache pays when H·R + M·(1−R) < L: R is the hit ratio, H what a hit takes, M a miss, L a request without a \
cache. In time that is --hit-time, --miss-time and --direct-time, in money --hit-cost, --miss-cost and \
--direct-cost. Any of M and L tells the other: M = L + H.

A month's bill has memory (machines, allowance included), requests (their cost), waiting (their time, at \
--second-price) and the backend: as many replicas as the misses of the busiest minute need.

A hit ratio that no cache of any size reaches is said to be so, with the most that can be had. Items larger \
than -I are misses, and how many there are is told.

A stream is copied into a temporary file (TMPDIR says where), as a log is read several times.

Examples:
  cache-sim size --trace access.log --plot size.html
  cache-sim size --trace access.log --target-hit-ratio 0.9
  cache-sim size --trace access.log --memory-price 3 --miss-cost 0.40/M
  cache-sim size --trace access.log --memory-price 3 --backend-rate 500 --backend-price 120
  cache-sim size --trace access.log --memory-price 3 --miss-time 20ms --hit-time 0.5ms --second-price 0.0001
  zcat kv.csv.gz | cache-sim size --trace - --format twitter --preset sessions";

/// Why flags that each can be read ask for nothing together.
#[derive(Debug, thiserror::Error)]
pub enum SizeError {
    /// The log's flags contradict each other.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// There are no such servers.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// What requests cost makes no sense.
    #[error("--miss-cost, --hit-cost and --direct-cost: {0}")]
    Money(PerRequestError),
    /// What requests take makes no sense.
    #[error("--miss-time, --hit-time and --direct-time: {0}")]
    Time(PerRequestError),
    /// Memory has a price, and nothing that it saves has one.
    #[error(
        "--memory-price alone makes no cache the cheapest: say what misses cost as well (--miss-cost, \
         --second-price with --miss-time, or --backend-rate and --backend-price), or which \
         --target-hit-ratio is wanted"
    )]
    NothingToWeigh,
    /// A second has a price, and no request takes any.
    #[error("--second-price needs to know how long requests take: --miss-time, and --hit-time")]
    SecondsOfNothing,
}

impl SizeArgs {
    /// The plan that the flags describe.
    ///
    /// # Errors
    ///
    /// They contradict each other, or ask for nothing that could be found.
    pub fn plan(&self) -> Result<SizingPlan, SizeError> {
        let jobs = self.jobs.or_else(|| thread::available_parallelism().ok()).unwrap_or(ONE_JOB);
        let wish = self.servers.wish();
        wish.check()?;
        Ok(SizingPlan {
            plan: Plan {
                source: self.log.source(),
                format: self.log.trace_format()?,
                policies: self.policies(),
                min: false,
                caches: Caches::Server { shape: wish.shape, memory_bytes: Vec::new() },
                semantics: Semantics {
                    ttl: self.ttl,
                    expiry: self.expiry.into(),
                    item_overhead_bytes: 0,
                },
                empty: self.log.empty.into(),
                strict: self.log.strict,
                kept_requests_max: KEPT_REQUESTS_MAX,
                jobs,
            },
            ask: self.asked.ask()?,
            wish,
            depth: self.sample,
            effort: Effort::default(),
            points: self.points.into(),
            reads_per_s: self.asked.requests_per_second,
        })
    }

    /// The policies, each once.
    fn policies(&self) -> Vec<eviction::Kind> {
        let mut policies = Vec::new();
        for &policy in &self.policy.0 {
            if !policies.contains(&policy) {
                policies.push(policy);
            }
        }
        policies
    }

    /// How the advice is to be written.
    pub fn output(&self) -> Output {
        self.output.into()
    }

    /// Where the picture goes, if one is drawn, and in which form.
    pub fn plot(&self) -> Option<(&Path, Form)> {
        let path = self.plot.as_deref()?;
        Some((path, Form::of(path).ok()?))
    }
}

impl AskArgs {
    fn ask(&self) -> Result<Ask, SizeError> {
        let time = PerRequest::new(self.hit_time, self.miss_time, self.direct_time);
        let time = time.map_err(SizeError::Time)?;
        let money = PerRequest::new(self.hit_cost, self.miss_cost, self.direct_cost);
        let money = money.map_err(SizeError::Money)?;
        if self.second_price.is_some() && time.is_none() {
            return Err(SizeError::SecondsOfNothing);
        }
        let backend = self.backend_rate.zip(self.backend_price);
        let prices = self.memory_price.map(|memory_gib_month| Prices {
            memory_gib_month,
            money,
            time,
            second: self.second_price.unwrap_or(0.0),
            backend: backend.map(|(requests_per_s, month)| Backend { requests_per_s, month }),
        });
        let target = self.target_hit_ratio;
        if target.is_none() && prices.is_some_and(|prices| !prices.weigh_anything()) {
            return Err(SizeError::NothingToWeigh);
        }
        Ok(Ask { target, prices, time })
    }
}

impl ServerArgs {
    fn wish(&self) -> Wish {
        let item_bytes_max = self.item_size_max.unwrap_or(SERVER_ITEM_BYTES_MAX);
        Wish {
            shape: ServerShape { threads: self.threads, item_bytes_max },
            nodes: self.nodes,
            machine_bytes_max: self.node_memory_max,
            preset: self.preset.map(|preset| match preset {
                PresetName::Sessions => Preset::Sessions,
                PresetName::Strict => Preset::Strict,
            }),
        }
    }
}

/// Why a text is no number of its kind.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum NumberError {
    #[error("write a share above 0 and up to 1, as in 0.9 or 90%")]
    Ratio,
    #[error("write an amount of 0 or more, as in 3, 0.0000004 or 0.40/M (for a million)")]
    Price,
    #[error("write a time of 0 or more with its unit, as in 20ms, 1.5s or 300us")]
    Time,
    #[error("write how many a second, above 0")]
    Rate,
    #[error("write auto, whole, a share of the objects as in 1%, or at least 512 of them")]
    Depth,
}

/// Reads a number that is one: no infinity, and nothing that is none.
fn number(text: &str) -> Option<f64> {
    let number: f64 = text.trim().parse().ok()?;
    number.is_finite().then_some(number)
}

fn ratio(text: &str) -> Result<f64, NumberError> {
    let ratio = match text.strip_suffix('%') {
        Some(percent) => number(percent).map(|percent| percent / 100.0),
        None => number(text),
    };
    ratio.filter(|&ratio| ratio > 0.0 && ratio <= 1.0).ok_or(NumberError::Ratio)
}

fn price(text: &str) -> Result<f64, NumberError> {
    let (amount, of) = match text.rsplit_once('/') {
        None => (text, 1.0),
        Some((amount, "k" | "K")) => (amount, 1e3),
        Some((amount, "M" | "m")) => (amount, 1e6),
        Some(_) => return Err(NumberError::Price),
    };
    let amount = number(amount).filter(|&amount| amount >= 0.0).ok_or(NumberError::Price)?;
    Ok(amount / of)
}

fn seconds(text: &str) -> Result<f64, NumberError> {
    let units = [("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let read = |(unit, seconds): (&str, f64)| Some(number(text.strip_suffix(unit)?)? * seconds);
    let time = units.into_iter().find_map(read);
    time.filter(|&time| time >= 0.0).ok_or(NumberError::Time)
}

fn rate(text: &str) -> Result<f64, NumberError> {
    number(text).filter(|&rate| rate > 0.0).ok_or(NumberError::Rate)
}

fn depth(text: &str) -> Result<Depth, NumberError> {
    match text {
        "auto" => Ok(Depth::Auto),
        "whole" => Ok(Depth::Sampling(crate::sampling::Sampling::Whole)),
        _ => match text.parse() {
            Ok(SampleSize(sampling)) => Ok(Depth::Sampling(sampling)),
            Err(_) => Err(NumberError::Depth),
        },
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use clap::error::ErrorKind;
    use eviction::Kind;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(flags: &str) -> Result<SizeArgs, clap::Error> {
        let words = ["cache-sim", "size", "--trace", "a.log"].into_iter();
        match Cli::try_parse_from(words.chain(flags.split_whitespace()))?.command {
            Command::Size(args) => Ok(*args),
            _ => panic!("asked for a size"),
        }
    }

    fn plan(flags: &str) -> SizingPlan {
        args(flags).unwrap().plan().unwrap()
    }

    #[test]
    fn a_log_alone_is_enough() {
        let plan = plan("");
        assert_eq!(plan.ask, Ask::default());
        assert_eq!((plan.wish.nodes, plan.wish.shape.threads), (None, 4));
        let wanted = [Kind::Lru, Kind::Lfu, Kind::Arc, Kind::S3Fifo, Kind::WTinyLfu];
        assert_eq!(plan.plan.policies, wanted);
    }

    #[test]
    fn prices_are_of_one_or_of_many() {
        let plan = plan(
            "--memory-price 3 --miss-cost 0.40/M --hit-cost 0.0001/k --backend-rate 500 \
             --backend-price 120 --target-hit-ratio 90%",
        );
        assert_eq!(plan.ask.target, Some(0.9));
        let prices = plan.ask.prices.unwrap();
        let money = prices.money.unwrap();
        assert_eq!(prices.memory_gib_month, 3.0);
        assert!((money.miss - 4e-7).abs() < 1e-18 && (money.hit - 1e-7).abs() < 1e-18);
        assert!((money.direct - 3e-7).abs() < 1e-18);
        assert_eq!(prices.backend, Some(Backend { requests_per_s: 500.0, month: 120.0 }));
    }

    #[test]
    fn times_have_units() {
        let time = plan("--miss-time 20ms --hit-time 500us").ask.time.unwrap();
        assert!((time.miss - 0.02).abs() < 1e-12 && (time.hit - 0.0005).abs() < 1e-12);
        assert!((time.direct - 0.0195).abs() < 1e-12);
    }

    #[test]
    fn nonsense_is_refused_and_says_what_would_make_sense() {
        for (flags, word) in [
            ("--target-hit-ratio 0", "0.9 or 90%"),
            ("--target-hit-ratio 1.01", "0.9 or 90%"),
            ("--target-hit-ratio NaN", "0.9 or 90%"),
            ("--target-hit-ratio=-0.5", "0.9 or 90%"),
            ("--target-hit-ratio 150%", "0.9 or 90%"),
            ("--memory-price=-3", "0 or more"),
            ("--memory-price nan", "0 or more"),
            ("--memory-price inf", "0 or more"),
            ("--memory-price 3 --miss-cost 4/x", "0.40/M"),
            ("--miss-time 20", "with its unit"),
            ("--miss-time=-1ms", "0 or more"),
            ("--memory-price 3 --backend-price 9 --backend-rate 0", "above 0"),
            ("--requests-per-second=-1", "above 0"),
            ("--sample 7", "at least 512"),
            ("--plot a.jpg", ".svg, .png or .html"),
            ("--item-size-max 2GiB", "1GiB"),
        ] {
            let error = args(flags).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ValueValidation, "{flags}: {error}");
            assert!(error.to_string().contains(word), "{flags}: {error}");
        }
        for flags in [
            "--miss-cost 1",
            "--memory-price 3 --backend-rate 5",
            "--second-price 1 --miss-time 1s",
        ] {
            let error = args(flags).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument, "{flags}");
        }
    }

    #[test]
    fn what_asks_for_nothing_is_refused() {
        let error = |flags: &str| args(flags).unwrap().plan().unwrap_err().to_string();
        assert!(error("--memory-price 3").contains("--miss-cost"));
        assert!(error("--memory-price 3 --second-price 1").contains("--miss-time"));
        assert!(error("--hit-time 1ms").contains("say what a miss takes"));
        assert!(error("--hit-time 2ms --miss-time 1ms").contains("takes less than a hit"));
        assert!(error("--node-memory-max 32MiB").contains("leaves no room"));
        assert!(error("--nodes 1 --preset sessions").contains("2 copies"));
        // Memory has a price and the target says how much of it is wanted.
        assert!(args("--memory-price 3 --target-hit-ratio 0.5").unwrap().plan().is_ok());
    }
}
