//! Flags of `cache-sim what-if`: a question, and the log and caches that it is asked of.

use std::num::NonZeroUsize;
use std::thread;

use clap::{Args, Subcommand};
use eviction::Kind;

use super::caches::CachesArgs;
use super::{
    KEPT_REQUESTS_MAX, LogArgs, ONE_JOB, OutputName, PlanError, Policies, SemanticsArgs, policies,
};
use crate::report::Output;
use crate::run::{Caches, Plan};
use crate::size::Size;
use crate::ttl::{TtlRule, seconds};
use crate::what_if::{
    Growth, Moment, Near, NodeLoss, Question, Replicas, Restart, Scan, Shards, Ttls,
};

/// Questions of `cache-sim what-if`.
#[derive(Debug, Subcommand)]
#[command(after_long_help = WHAT_IF_HELP)]
pub enum WhatIfArgs {
    /// Several nodes instead of one cache: hits, and the share of the node that is asked most
    Shards(ShardsArgs),
    /// Several copies of each item in the same room: hits, and how they spread load
    Replicas(ReplicasArgs),
    /// A small cache in each client: what it serves, what it leaves to the server, how stale that is
    Near(NearArgs),
    /// A restart: hits over time of a cold cache and of a warm one, and misses until it has recovered
    Restart(RestartArgs),
    /// A node that is lost, with copies that take over and without
    NodeLoss(NodeLossArgs),
    /// A flood of objects that are asked for once, for a while
    Scan(ScanArgs),
    /// Other TTLs: hits and memory
    Ttl(TtlArgs),
    /// More objects, or more requests
    Growth(GrowthArgs),
}

/// What stands below the questions in `cache-sim what-if --help`.
const WHAT_IF_HELP: &str = "\
The log is played to the caches as they are and as they would be, in one reading. The policies, footprints \
and shards are the server's own: --as-server counts as it does. What an answer rests on stands below its \
table, in JSON under `assumptions`, and in the help of each question.

Examples:
  cache-sim what-if shards --trace access.log --as-server 64GiB --nodes 4,8,16
  cache-sim what-if near --trace access.log --as-server 8GiB --near-size 64MiB --near-ttl 5s --clients 20
  cache-sim what-if restart --trace access.log --policy lru,wtinylfu --as-server 8GiB --at 12h --over-time
  cache-sim what-if scan --trace access.log --policy all --size 10% --rate 100% --at 50% --for 10%";

/// The log, and the caches that are asked about.
#[derive(Debug, Args)]
struct AskedArgs {
    #[command(flatten)]
    log: LogArgs,

    #[command(flatten)]
    semantics: SemanticsArgs,

    #[command(flatten)]
    caches: CachesArgs,

    #[command(flatten)]
    who: WhoArgs,
}

/// Whose answer is asked for, and how it is told.
#[derive(Debug, Args)]
struct WhoArgs {
    /// Eviction policies, separated by commas, or all
    #[arg(long, value_name = "LIST", default_value = "wtinylfu", value_parser = policies)]
    policy: Policies,

    /// What is printed; JSON holds the course over time too
    #[arg(long, value_name = "FORM", default_value = "table")]
    output: OutputName,

    /// Threads to replay on; as many as there are cores if left out. The figures do not depend on it
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

/// Flags of `cache-sim what-if shards`.
#[derive(Debug, Args)]
#[command(after_long_help = help(Asked::Shards))]
pub struct ShardsArgs {
    #[command(flatten)]
    asked: AskedArgs,

    /// How many nodes share the size; several numbers are separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "2,4,8", value_parser = number)]
    nodes: Vec<u32>,
}

/// Flags of `cache-sim what-if replicas`.
#[derive(Debug, Args)]
#[command(after_long_help = help(Asked::Replicas))]
pub struct ReplicasArgs {
    #[command(flatten)]
    asked: AskedArgs,

    /// Copies of each item; several numbers are separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,2,3", value_parser = number)]
    copies: Vec<u32>,

    /// Nodes that they lie on
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = number)]
    nodes: u32,
}

/// Flags of `cache-sim what-if near`.
#[derive(Debug, Args)]
#[command(after_long_help = help(Asked::Near))]
pub struct NearArgs {
    #[command(flatten)]
    asked: AskedArgs,

    /// Room of each near cache: a number of the unit's (489), or an amount of bytes (64MiB); bytes in front
    /// of servers
    #[arg(long, value_name = "SIZE")]
    near_size: Size,

    /// Who leaves a near cache
    #[arg(long, value_name = "POLICY", default_value = "lru")]
    near_policy: Kind,

    /// How long a near copy is served (5s, 1m), or none for ever; it is how stale an answer can be
    #[arg(long, value_name = "TIME", default_value = "60s")]
    near_ttl: NearTtl,

    /// Clients, each with a near cache of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number)]
    clients: u32,
}

/// Flags of `cache-sim what-if restart`.
#[derive(Debug, Args)]
#[command(after_long_help = help(Asked::Restart))]
pub struct RestartArgs {
    #[command(flatten)]
    asked: AskedArgs,

    /// When: a time since the log's beginning (12h), or a share of its requests (50%), for which it is read
    /// twice
    #[arg(long, value_name = "WHEN", default_value = "50%")]
    at: Moment,

    /// How long the server is down (30s)
    #[arg(long, value_name = "TIME")]
    down: Option<NearTtl>,

    /// Show the course over time, window by window
    #[arg(long)]
    over_time: bool,
}

/// Flags of `cache-sim what-if node-loss`.
#[derive(Debug, Args)]
#[command(after_long_help = help(Asked::NodeLoss))]
pub struct NodeLossArgs {
    #[command(flatten)]
    asked: AskedArgs,

    /// Nodes that share the size
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=1024))]
    nodes: u32,

    /// Copies of each item, to be compared with one
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = number)]
    copies: u32,

    /// The node that is lost, from 0; the one that is asked most if left out, for which the log is read
    /// twice
    #[arg(long, value_name = "N")]
    node: Option<u32>,

    /// When: a time since the log's beginning (12h), or a share of its requests (50%), for which it is read
    /// twice
    #[arg(long, value_name = "WHEN", default_value = "50%")]
    at: Moment,

    /// Show the course over time, window by window
    #[arg(long)]
    over_time: bool,
}

/// Flags of `cache-sim what-if scan`.
#[derive(Debug, Args)]
#[command(after_long_help = help(Asked::Scan))]
pub struct ScanArgs {
    #[command(flatten)]
    asked: AskedArgs,

    /// Requests of the flood, in those of the log
    #[arg(long, value_name = "PERCENT", default_value = "100%", value_parser = percent)]
    rate: f64,

    /// When it begins: a time since the log's beginning (12h), or a share of its requests (50%), for which it
    /// is read twice
    #[arg(long, value_name = "WHEN", default_value = "50%")]
    at: Moment,

    /// How long it lasts: a time (10m), or a share of the log's requests (10%)
    #[arg(long = "for", value_name = "LENGTH", default_value = "10%")]
    lasts: Moment,

    /// Show the course over time, window by window
    #[arg(long)]
    over_time: bool,
}

/// Flags of `cache-sim what-if ttl`.
#[derive(Debug, Args)]
#[command(after_long_help = help(Asked::Ttl))]
pub struct TtlArgs {
    #[command(flatten)]
    asked: AskedArgs,

    /// The rules that are compared, separated by commas: as the log says (log), for ever (none), so long
    /// after each write (300, 5m, 12h, 7d), or the log's times a factor (x0.5)
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "log,none,x0.5,x2")]
    ttls: Vec<TtlRule>,
}

/// Flags of `cache-sim what-if growth`.
#[derive(Debug, Args)]
#[command(after_long_help = help(Asked::Growth))]
pub struct GrowthArgs {
    #[command(flatten)]
    asked: AskedArgs,

    /// How many times as many; several factors are separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "2,10", value_parser = number)]
    factors: Vec<u32>,
}

/// The questions without what they are about.
#[derive(Clone, Copy)]
enum Asked {
    Shards,
    Replicas,
    Near,
    Restart,
    NodeLoss,
    Scan,
    Ttl,
    Growth,
}

/// What an answer rests on, for the end of its question's help.
fn help(asked: Asked) -> String {
    let at = Moment::Seconds(0);
    let question = match asked {
        Asked::Shards => Question::Shards(Shards { nodes: Vec::new() }),
        Asked::Replicas => Question::Replicas(Replicas { copies: Vec::new(), nodes: 1 }),
        Asked::Near => Question::Near(Near { size: 1, policy: Kind::Lru, ttl_s: None, clients: 1 }),
        Asked::Restart => Question::Restart(Restart { at, down_s: 0, over_time: false }),
        Asked::NodeLoss => {
            let (nodes, copies, node, over_time) = (2, 1, None, false);
            Question::NodeLoss(NodeLoss { nodes, copies, node, at, over_time })
        }
        Asked::Scan => Question::Scan(Scan { rate: 1.0, at, lasts: at, over_time: false }),
        Asked::Ttl => Question::Ttls(Ttls { rules: Vec::new() }),
        Asked::Growth => Question::Growth(Growth { factors: Vec::new() }),
    };
    let mut help = String::from("Assumed:");
    for line in question.assumptions() {
        help += "\n- ";
        help += line;
    }
    help
}

impl WhatIfArgs {
    /// The plan and the question that the flags describe.
    ///
    /// # Errors
    ///
    /// They contradict each other, or leave the format open.
    pub fn plan(&self) -> Result<(Plan, Question), PlanError> {
        let asked = self.asked();
        let caches = asked.caches.caches()?;
        let question = self.question(&caches)?;
        let jobs = asked.who.jobs.or_else(|| thread::available_parallelism().ok());
        let plan = Plan {
            source: asked.log.source(),
            format: asked.log.trace_format()?,
            policies: asked.who.policy.0.clone(),
            min: false,
            caches,
            semantics: asked.semantics.into(),
            empty: asked.log.empty.into(),
            strict: asked.log.strict,
            kept_requests_max: KEPT_REQUESTS_MAX,
            jobs: jobs.unwrap_or(ONE_JOB),
        };
        Ok((plan, question))
    }

    /// How the answer is to be written.
    pub fn output(&self) -> Output {
        self.asked().who.output.into()
    }

    fn asked(&self) -> &AskedArgs {
        match self {
            Self::Shards(args) => &args.asked,
            Self::Replicas(args) => &args.asked,
            Self::Near(args) => &args.asked,
            Self::Restart(args) => &args.asked,
            Self::NodeLoss(args) => &args.asked,
            Self::Scan(args) => &args.asked,
            Self::Ttl(args) => &args.asked,
            Self::Growth(args) => &args.asked,
        }
    }

    fn question(&self, caches: &Caches) -> Result<Question, PlanError> {
        Ok(match self {
            Self::Shards(ShardsArgs { nodes, .. }) => {
                Question::Shards(Shards { nodes: nodes.clone() })
            }
            Self::Replicas(ReplicasArgs { copies, nodes, .. }) => {
                at_most(copies.iter().copied().max().unwrap_or(1), *nodes)?;
                Question::Replicas(Replicas { copies: copies.clone(), nodes: *nodes })
            }
            Self::Near(NearArgs { near_size, near_policy, near_ttl, clients, .. }) => {
                Question::Near(Near {
                    size: near_room(*near_size, caches)?,
                    policy: *near_policy,
                    ttl_s: near_ttl.0,
                    clients: *clients,
                })
            }
            Self::Restart(RestartArgs { at, down, over_time, .. }) => {
                let down_s = down.and_then(|NearTtl(down_s)| down_s).unwrap_or(0);
                Question::Restart(Restart { at: *at, down_s, over_time: *over_time })
            }
            Self::NodeLoss(NodeLossArgs { nodes, copies, node, at, over_time, .. }) => {
                at_most(*copies, *nodes)?;
                if let Some(node) = *node
                    && node >= *nodes
                {
                    return Err(PlanError::NoSuchNode { node, nodes: *nodes });
                }
                Question::NodeLoss(NodeLoss {
                    nodes: *nodes,
                    copies: *copies,
                    node: *node,
                    at: *at,
                    over_time: *over_time,
                })
            }
            Self::Scan(ScanArgs { rate, at, lasts, over_time, .. }) => {
                let (rate, at, lasts, over_time) = (*rate, *at, *lasts, *over_time);
                Question::Scan(Scan { rate, at, lasts, over_time })
            }
            Self::Ttl(TtlArgs { asked, .. }) if asked.semantics.ttl != TtlRule::Log => {
                return Err(PlanError::TwoTtlRules);
            }
            Self::Ttl(TtlArgs { ttls, .. }) => Question::Ttls(Ttls { rules: ttls.clone() }),
            Self::Growth(GrowthArgs { factors, .. }) => {
                Question::Growth(Growth { factors: factors.clone() })
            }
        })
    }
}

fn at_most(copies: u32, nodes: u32) -> Result<(), PlanError> {
    if copies > nodes { Err(PlanError::MoreCopiesThanNodes { copies, nodes }) } else { Ok(()) }
}

/// The room of a near cache, in what the caches behind it count.
fn near_room(size: Size, caches: &Caches) -> Result<u64, PlanError> {
    let counts_objects = matches!(caches, Caches::Plain { unit: crate::replay::Unit::Objects, .. });
    match size {
        Size::Bytes(_) if counts_objects => Err(PlanError::BytesOfObjects),
        Size::Count(size) | Size::Bytes(size) => Ok(size),
        Size::Share(_) => Err(PlanError::NearShare),
    }
}

/// A time, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NearTtl(Option<u32>);

/// Why a text is no such time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a time (5s, 1m, 12h), or none")]
struct NoTime;

impl std::str::FromStr for NearTtl {
    type Err = NoTime;

    fn from_str(text: &str) -> Result<Self, NoTime> {
        match text {
            "none" => Ok(Self(None)),
            text => Ok(Self(Some(seconds(text).ok_or(NoTime)?))),
        }
    }
}

/// The most nodes, copies, clients or factors that are taken.
const NUMBER_MAX: u32 = 1024;

/// Why a text is no number of nodes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a number from 1 to {NUMBER_MAX}")]
struct NoNumber;

fn number(text: &str) -> Result<u32, NoNumber> {
    text.trim().parse().ok().filter(|number| (1..=NUMBER_MAX).contains(number)).ok_or(NoNumber)
}

/// Why a text is no rate.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a percentage above 0 and up to 10000%, as in 50%")]
struct NoRate;

fn percent(text: &str) -> Result<f64, NoRate> {
    let percent = text.strip_suffix('%').and_then(|percent| percent.parse::<f64>().ok());
    percent.filter(|&it| it > 0.0 && it <= 10_000.0).map(|it| it / 100.0).ok_or(NoRate)
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::{Cli, Command};

    fn asked(line: &str) -> Result<Result<Question, PlanError>, ErrorKind> {
        let words = ["cache-sim", "what-if"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words).map_err(|error| error.kind())?.command {
            Command::WhatIf(args) => Ok(args.plan().map(|(_, question)| question)),
            _ => panic!("asked what if"),
        }
    }

    #[test]
    fn questions_are_read_as_a_person_asks_them() {
        assert_eq!(
            asked("near --trace a --as-server 1g --near-size 64m --near-ttl 5s --clients 20"),
            Ok(Ok(Question::Near(Near {
                size: 64 << 20,
                policy: Kind::Lru,
                ttl_s: Some(5),
                clients: 20,
            })))
        );
        assert_eq!(
            asked("restart --trace a --size 1g --at 12h --down 30s"),
            Ok(Ok(Question::Restart(Restart {
                at: Moment::Seconds(43_200),
                down_s: 30,
                over_time: false,
            })))
        );
        assert_eq!(
            asked("scan --trace a --size 1g --rate 50% --for 10m --at 1h"),
            Ok(Ok(Question::Scan(Scan {
                rate: 0.5,
                at: Moment::Seconds(3600),
                lasts: Moment::Seconds(600),
                over_time: false,
            })))
        );
        assert_eq!(
            asked("growth --trace a --size 1g"),
            Ok(Ok(Question::Growth(Growth { factors: vec![2, 10] })))
        );
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let copies = PlanError::MoreCopiesThanNodes { copies: 4, nodes: 3 };
        assert_eq!(asked("replicas --trace a --size 1g --copies 2,4"), Ok(Err(copies)));
        let node = PlanError::NoSuchNode { node: 3, nodes: 3 };
        assert_eq!(asked("node-loss --trace a --size 1g --node 3"), Ok(Err(node)));
        assert_eq!(asked("ttl --trace a --size 1g --ttl x2"), Ok(Err(PlanError::TwoTtlRules)));
        let near = "near --trace a --size 100 --unit objects --near-size";
        assert_eq!(asked(&format!("{near} 1m")), Ok(Err(PlanError::BytesOfObjects)));
        assert_eq!(asked(&format!("{near} 1%")), Ok(Err(PlanError::NearShare)));
        for line in [
            "shards --trace a --size 1g --nodes 0",
            "shards --trace a --size 1g --policy min",
            "scan --trace a --size 1g --rate 0%",
            "restart --trace a --size 1g --at soon",
        ] {
            assert_eq!(asked(line), Err(ErrorKind::ValueValidation), "{line}");
        }
    }

    #[test]
    fn help_of_each_question_says_what_is_assumed() {
        let mut command = Cli::command();
        let what_if = command.find_subcommand_mut("what-if").unwrap();
        for question in what_if.get_subcommands_mut() {
            let help = question.render_long_help().to_string();
            assert!(help.contains("Assumed:\n- "), "{}", question.get_name());
        }
    }
}
