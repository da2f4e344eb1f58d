//! What another setting would do to the same log: nodes, replicas, a near cache, a restart, other TTLs.
//!
//! ```text
//! log ─────────────┬──> cache as it is        ─┐
//!  (played once    ├──> cache as it would be  ─┼──> rows: how often each hits, what each is asked for
//!   for all)       └──> ...                   ─┘
//! ```
//!
//! A question is a file under `what_if/`: its model, which is a [`Player`] with a cache or several, what is
//! assumed, and the columns of its answer. All caches are those of [`crate::replay`]: the server's policies,
//! and its footprints and shards where the plan says so.
//!
//! - The log's clients stay as they are: they ask for the same, at the same times, and fill in after a miss.
//! - Room is shared out evenly, rounded down.

mod course;
mod growth;
mod moment;
mod near;
mod node_loss;
mod nodes;
mod replicas;
mod restart;
mod scan;
mod shards;
#[cfg(test)]
mod textbook;
mod ttls;

pub mod report;

pub use growth::Growth;
pub use moment::{Moment, MomentError};
pub use near::Near;
pub use node_loss::NodeLoss;
use nodes::CLUSTER_SHARDS;
pub use replicas::Replicas;
pub use restart::Restart;
pub use scan::Scan;
pub use shards::Shards;
pub use ttls::Ttls;

use crate::blueprint::Blueprint;
use crate::replay::{Player, Request};
use crate::run::{Observer, Plan, Played, Report, RunError, play_all};
use crate::trace::Format;

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// Several nodes instead of one.
    Shards(Shards),
    /// Several copies of each item.
    Replicas(Replicas),
    /// Caches in the clients.
    Near(Near),
    /// A restart, cold or warm.
    Restart(Restart),
    /// A node that is lost.
    NodeLoss(NodeLoss),
    /// A flood of objects that are asked for once.
    Scan(Scan),
    /// Other TTLs.
    Ttls(Ttls),
    /// More objects, or more requests.
    Growth(Growth),
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The question's name.
    pub question: &'static str,
    /// What was read; it has no rows.
    pub log: Report,
    /// What the figures rest on.
    pub assumptions: &'static [&'static str],
    /// The figures.
    pub summary: Table,
    /// How they came about over time, where the question is about a moment.
    pub course: Option<Table>,
    /// Whether a person asked to be shown that instead.
    pub shows_course: bool,
}

/// Figures under names.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The columns' names.
    pub columns: &'static [&'static str],
    /// As many in each row.
    pub rows: Vec<Vec<Cell>>,
}

/// A figure.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A policy, or a setting.
    Name(String),
    /// A number of something.
    Count(u64),
    /// A difference of such numbers.
    Difference(i64),
    /// A part of a whole.
    Ratio(f64),
    /// There is none.
    None,
}

impl Table {
    fn new(columns: &'static [&'static str]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len(), "a figure for each column");
        self.rows.push(row);
    }
}

impl Cell {
    fn name(name: impl ToString) -> Self {
        Self::Name(name.to_string())
    }

    /// `part / whole`, if there is a whole.
    fn share(part: u64, whole: u64) -> Self {
        if whole == 0 { Self::None } else { Self::Ratio(part as f64 / whole as f64) }
    }

    fn count(count: Option<u64>) -> Self {
        count.map_or(Self::None, Self::Count)
    }
}

/// A question being asked of one cache of the plan.
trait Model: Player {
    /// Adds what came of it.
    fn tell(&self, summary: &mut Table, course: &mut Table);
}

/// One of several models of any kind.
struct Asked(Box<dyn Model>);

impl Player for Asked {
    fn request(&mut self, request: &Request) {
        self.0.request(request);
    }
}

/// What is to be known of a log before some questions can be asked.
#[derive(Clone, Debug)]
struct Census {
    requests: u64,
    /// By cluster shard.
    shard_requests: Vec<u64>,
}

impl Default for Census {
    fn default() -> Self {
        Self { requests: 0, shard_requests: vec![0; CLUSTER_SHARDS] }
    }
}

impl Player for Census {
    fn request(&mut self, request: &Request) {
        self.requests += 1;
        self.shard_requests[nodes::cluster_shard(request.key)] += 1;
    }
}

/// Carries `plan` out with `question` asked of each of its caches.
///
/// # Errors
///
/// The log cannot be read, or would have to be twice and is a stream.
pub fn run(
    plan: &Plan,
    question: &Question,
    observer: &mut dyn Observer,
) -> Result<Answer, RunError> {
    let outcome = carry_out(plan, question, observer);
    observer.end();
    outcome
}

fn carry_out(
    plan: &Plan,
    question: &Question,
    observer: &mut dyn Observer,
) -> Result<Answer, RunError> {
    let mut plan = plan.clone();
    if let Question::Ttls(_) = question {
        // The rules are what is asked about.
        plan.semantics.ttl = crate::ttl::TtlRule::Log;
    }
    let mut readings = 0;
    let census = if question.needs_census() {
        if plan.source.is_stream() {
            return Err(RunError::MomentOfStream { path: plan.source.to_string() });
        }
        let counted = play_all(&plan, observer, |_, _| Ok(vec![Census::default()]))?;
        readings += counted.readings;
        counted.players.into_iter().next().unwrap_or_default()
    } else {
        Census::default()
    };
    let build = |format: &Format, whole| {
        let blueprints = plan.blueprints(format, whole)?;
        Ok(question.models(&plan, &blueprints, format, &census))
    };
    let Played { players, format, found, readings: played } = play_all(&plan, observer, build)?;
    if found.is_nothing() {
        return Err(RunError::NoReads { path: plan.source.to_string() });
    }
    let mut summary = Table::new(question.columns());
    let mut course = Table::new(question.course_columns());
    players.iter().for_each(|Asked(model)| model.tell(&mut summary, &mut course));
    Ok(Answer {
        question: question.name(),
        log: Report {
            trace: plan.source.to_string(),
            format: format.name(),
            unit: plan.caches.unit_name(),
            found,
            readings: readings + played,
            rows: Vec::new(),
        },
        assumptions: question.assumptions(),
        summary,
        course: (!course.columns.is_empty()).then_some(course),
        shows_course: question.shows_course(),
    })
}

impl Question {
    /// The name on command lines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Shards(_) => "shards",
            Self::Replicas(_) => "replicas",
            Self::Near(_) => "near",
            Self::Restart(_) => "restart",
            Self::NodeLoss(_) => "node-loss",
            Self::Scan(_) => "scan",
            Self::Ttls(_) => "ttl",
            Self::Growth(_) => "growth",
        }
    }

    /// What the answer rests on.
    pub fn assumptions(&self) -> &'static [&'static str] {
        match self {
            Self::Shards(_) => shards::ASSUMPTIONS,
            Self::Replicas(_) => replicas::ASSUMPTIONS,
            Self::Near(_) => near::ASSUMPTIONS,
            Self::Restart(_) => restart::ASSUMPTIONS,
            Self::NodeLoss(_) => node_loss::ASSUMPTIONS,
            Self::Scan(_) => scan::ASSUMPTIONS,
            Self::Ttls(_) => ttls::ASSUMPTIONS,
            Self::Growth(_) => growth::ASSUMPTIONS,
        }
    }

    fn columns(&self) -> &'static [&'static str] {
        match self {
            Self::Shards(_) => shards::COLUMNS,
            Self::Replicas(_) => replicas::COLUMNS,
            Self::Near(_) => near::COLUMNS,
            Self::Restart(_) => restart::COLUMNS,
            Self::NodeLoss(_) => node_loss::COLUMNS,
            Self::Scan(_) => scan::COLUMNS,
            Self::Ttls(_) => ttls::COLUMNS,
            Self::Growth(_) => growth::COLUMNS,
        }
    }

    fn course_columns(&self) -> &'static [&'static str] {
        match self {
            Self::Restart(_) => restart::COURSE_COLUMNS,
            Self::NodeLoss(_) => node_loss::COURSE_COLUMNS,
            Self::Scan(_) => scan::COURSE_COLUMNS,
            _ => &[],
        }
    }

    fn shows_course(&self) -> bool {
        match self {
            Self::Restart(restart) => restart.over_time,
            Self::NodeLoss(loss) => loss.over_time,
            Self::Scan(scan) => scan.over_time,
            _ => false,
        }
    }

    /// Whether the log is to be counted before it is played.
    fn needs_census(&self) -> bool {
        match self {
            Self::Restart(restart) => restart.at.is_share(),
            Self::NodeLoss(loss) => loss.at.is_share() || loss.node.is_none(),
            Self::Scan(scan) => scan.at.is_share() || scan.lasts.is_share(),
            _ => false,
        }
    }

    fn models(
        &self,
        plan: &Plan,
        blueprints: &[Blueprint],
        format: &Format,
        census: &Census,
    ) -> Vec<Asked> {
        let of_each = |model: &dyn Fn(Blueprint) -> Box<dyn Model>| {
            blueprints.iter().map(|&blueprint| Asked(model(blueprint))).collect()
        };
        match self {
            Self::Shards(shards) => of_each(&|it| Box::new(shards.model(it))),
            Self::Replicas(replicas) => of_each(&|it| Box::new(replicas.model(it))),
            Self::Near(near) => of_each(&|it| Box::new(near.model(it, plan.weighing(format)))),
            Self::Restart(restart) => of_each(&|it| Box::new(restart.model(it, census))),
            Self::NodeLoss(loss) => of_each(&|it| Box::new(loss.model(it, census))),
            Self::Scan(scan) => of_each(&|it| Box::new(scan.model(it, census))),
            Self::Ttls(ttls) => {
                let unlimited = ttls.unlimited(plan.weighing(format), plan.semantics.expiry);
                let limited = blueprints.iter().map(|&it| ttls.model(it));
                limited.chain([unlimited]).map(|model| Asked(Box::new(model))).collect()
            }
            Self::Growth(growth) => of_each(&|it| Box::new(growth.model(it))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::num::NonZeroUsize;

    use eviction::Kind;
    use tempfile::NamedTempFile;

    use super::*;
    use crate::replay::ServerShape;
    use crate::run::{self, Caches, Empty, KEPT_REQUESTS_MAX, Semantics, Source};
    use crate::ttl::TtlRule;

    /// Ids that come again, some sooner than others, with sizes and TTLs.
    fn log() -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        for n in 0..20_000_u64 {
            let id = n * n % 4_001;
            let ttl_s = if id % 3 == 0 { 40 } else { 0 };
            writeln!(file, "{},{id},{},{ttl_s}", n / 100, 300 + id % 900).unwrap();
        }
        file
    }

    /// A server under every policy.
    fn plan(file: &NamedTempFile) -> Plan {
        let shape = ServerShape { threads: 1, item_bytes_max: 64 << 10 };
        Plan {
            source: Source::File(file.path().into()),
            format: Format::Csv("time=1,id=2,size=3,ttl=4".parse().unwrap()),
            policies: Kind::ALL.to_vec(),
            min: false,
            caches: Caches::Server { shape, memory_bytes: vec![2 << 20] },
            semantics: Semantics::default(),
            empty: Empty::Auto,
            strict: true,
            jobs: NonZeroUsize::MIN,
            kept_requests_max: KEPT_REQUESTS_MAX,
        }
    }

    fn column(answer: &Answer, name: &str) -> Vec<Cell> {
        let at = answer.summary.columns.iter().position(|column| *column == name).unwrap();
        answer.summary.rows.iter().map(|row| row[at].clone()).collect()
    }

    #[test]
    fn a_setting_that_changes_nothing_is_the_server_to_the_last_hit() {
        let file = log();
        let plan = plan(&file);
        let report = run::run(&plan, &mut ()).unwrap();
        let want: Vec<Cell> =
            report.rows.iter().map(|row| Cell::share(row.tally.hits, row.tally.requests)).collect();
        assert!(want.iter().all(|hits| matches!(hits, Cell::Ratio(ratio) if *ratio > 0.1)));
        for (question, name) in [
            (Question::Shards(Shards { nodes: vec![1] }), "hit_ratio"),
            (Question::Shards(Shards { nodes: vec![1] }), "one_cache_hit_ratio"),
            (Question::Replicas(Replicas { copies: vec![1], nodes: 1 }), "hit_ratio_filled_apart"),
            (Question::Growth(Growth { factors: vec![1] }), "hit_ratio_today"),
            (Question::Ttls(Ttls { rules: vec![TtlRule::Log] }), "hit_ratio"),
        ] {
            let mut found = column(&run(&plan, &question, &mut ()).unwrap(), name);
            match question {
                // Three rows a policy.
                Question::Growth(_) => found = found.into_iter().step_by(3).collect(),
                // And one without bounds.
                Question::Ttls(_) => found.truncate(want.len()),
                _ => {}
            }
            assert_eq!(found, want, "{} {name}", question.name());
        }
    }

    #[test]
    fn every_question_has_a_figure_for_each_column_under_every_policy() {
        let file = log();
        let at: Moment = "50%".parse().unwrap();
        let near = Near { size: 4_000, policy: Kind::Lru, ttl_s: Some(5), clients: 2 };
        let (nodes, copies, over_time) = (3, 2, true);
        for (question, rows_each) in [
            (Question::Shards(Shards { nodes: vec![2, 3] }), 2),
            (Question::Replicas(Replicas { copies: vec![1, 2], nodes }), 2),
            (Question::Near(near), 1),
            (Question::Restart(Restart { at, down_s: 1, over_time }), 1),
            (Question::NodeLoss(NodeLoss { nodes, copies, node: None, at, over_time }), 2),
            (Question::Scan(Scan { rate: 1.0, at, lasts: "5s".parse().unwrap(), over_time }), 1),
            (Question::Growth(Growth { factors: vec![2, 10] }), 6),
        ] {
            let answer = run(&plan(&file), &question, &mut ()).unwrap();
            assert_eq!(answer.summary.rows.len(), rows_each * Kind::ALL.len());
            for table in [Some(&answer.summary), answer.course.as_ref()].into_iter().flatten() {
                assert!(table.rows.iter().all(|row| row.len() == table.columns.len()));
                assert!(table.rows.len() >= rows_each * Kind::ALL.len(), "{}", question.name());
            }
            assert_eq!(answer.shows_course, answer.course.is_some());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_share_of_a_stream_is_refused() {
        use std::os::fd::AsRawFd;

        let (reader, _writer) = std::io::pipe().unwrap();
        let file = log();
        let source = Source::File(format!("/proc/self/fd/{}", reader.as_raw_fd()).into());
        let plan = Plan { source, ..plan(&file) };
        let at: Moment = "50%".parse().unwrap();
        let question = Question::Restart(Restart { at, down_s: 0, over_time: false });
        let error = run(&plan, &question, &mut ()).unwrap_err();
        assert!(matches!(error, RunError::MomentOfStream { .. }), "{error}");
    }
}
