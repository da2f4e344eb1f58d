//! What a suite comes to: the figures of every row, as its JSON has them.
//!
//! ```text
//! Report ── environment, servers ── rows ── servers: what each did
//!                                     └── measures: values ── rounds, spread
//!                                                   comparisons: ours beside each other's
//! ```
//!
//! A change to these types is a change to the file's form: [`SCHEMA`] goes up.

use serde::Serialize;

use super::spread::Spread;
use crate::noise::Noise;

/// The version of the JSON's form.
pub const SCHEMA: u32 = 1;

/// A whole suite.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Where and how it was run.
    pub environment: Environment,
    /// Who was compared; ours is the first, the echo server the last.
    pub servers: Vec<Server>,
    /// What was compared.
    pub rows: Vec<Row>,
}

/// Where and how a suite was run.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// When it began, in UTC.
    pub date: String,
    /// The command that ran it.
    pub command: String,
    /// cache-bench's version.
    pub version: &'static str,
    /// The kernel's release.
    pub kernel: String,
    /// The processor's name.
    pub cpu: String,
    /// How many cores the suite uses.
    pub cores: usize,
    /// The machine's memory, in bytes.
    pub memory_bytes: u64,
    /// The servers' cores.
    pub server_cores: Vec<usize>,
    /// The load's cores.
    pub load_cores: Vec<usize>,
    /// Rounds of each row.
    pub rounds: usize,
    /// How long a round is measured, in seconds.
    pub round_s: f64,
    /// How long a server is loaded before, in seconds.
    pub warm_up_s: f64,
    /// The largest share of disturbance a round may have.
    pub noise_max: f64,
    /// Whether rounds with more counted all the same.
    pub noise_allowed: bool,
    /// What counted system calls, or why nobody did; nothing if nobody was to.
    pub syscalls: Option<String>,
}

/// A server of the suite.
#[derive(Clone, Debug, Serialize)]
pub struct Server {
    /// What it is called in the report.
    pub name: String,
    /// What its program says that it is, or the version it answers; none if no row had it start.
    pub version: Option<String>,
    /// How it was started first.
    pub command: Option<String>,
}

/// What came of a row.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// What kind of row it is.
    pub group: &'static str,
    /// What it is, in a line.
    pub about: String,
    /// What its figures are worth.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Whether servers and load shared their cores: they wait for each other then, and only what other
    /// programs used is noise.
    pub cores_are_shared: bool,
    /// The worst that disturbed a round that counts; for want of one, any round. None where nothing is timed.
    pub noise: Option<Noise>,
    /// The share of disturbance that decides, in each round that counts.
    pub noise_by_round: Vec<f64>,
    /// Rounds that did not count because something disturbed them.
    pub rounds_discarded: usize,
    /// What each server did.
    pub servers: Vec<Entrant>,
    /// What was measured and compared.
    pub measures: Vec<Measure>,
    /// What else is to be known.
    pub notes: Vec<String>,
}

/// What a row's figures are worth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "reason", rename_all = "snake_case")]
pub enum Verdict {
    /// They stand.
    Measured,
    /// They stand, but the machine was noisier than it should be.
    Noisy,
    /// The machine was too noisy for figures: there are none.
    TooNoisy,
    /// A server broke off: there are no figures.
    Failed(String),
}

/// What a server did in a row.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Entrant {
    /// Its name.
    pub server: String,
    /// Why it has no figures here.
    pub absent: Option<String>,
    /// Keys read or written per second.
    pub keys_per_second: Option<f64>,
    /// How large a share of its cores it used; above 1 with several threads.
    pub core_share: Option<f64>,
    /// The share of the keys asked for that it had.
    pub hit_ratio: Option<f64>,
    /// Requests answered with an error, or writes not made.
    pub refused: u64,
    /// System calls of its process per request.
    pub syscalls_per_request: Option<f64>,
    /// Latency of all rounds together, from the shortest to the longest.
    pub latency: Vec<Percentile>,
    /// Items held, where they were counted.
    pub items: Option<u64>,
    /// Resident memory, where it was looked at.
    pub resident_bytes: Option<u64>,
}

/// A point of a distribution of latency.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentile {
    /// The share of the requests that took no longer, from 0 to 1.
    pub quantile: f64,
    /// How long that is, in microseconds.
    pub us: f64,
}

/// Something measured of every server.
#[derive(Clone, Debug, Serialize)]
pub struct Measure {
    /// What.
    pub name: String,
    /// In what.
    pub unit: &'static str,
    /// Which way is good.
    pub better: Better,
    /// Whether ours is told as a multiple of the other's or by how much it is more.
    pub compared_by: ComparedBy,
    /// By server.
    pub values: Vec<Values>,
    /// Ours beside each of the others.
    pub comparisons: Vec<Comparison>,
}

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// More is.
    Higher,
    /// Less is.
    Lower,
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ComparedBy {
    /// The first as a multiple of the second.
    Ratio,
    /// The first less the second.
    Difference,
}

/// A server's values, round by round.
#[derive(Clone, Debug, Serialize)]
pub struct Values {
    /// Its name.
    pub server: String,
    /// One a round.
    pub rounds: Vec<f64>,
    /// All of them.
    pub spread: Spread,
}

/// One server beside another, round by round.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The one.
    pub server: String,
    /// The other.
    pub against: String,
    /// One a round.
    pub rounds: Vec<f64>,
    /// All of them.
    pub spread: Spread,
}

impl Row {
    /// What a server did.
    pub fn entrant(&self, name: &str) -> Option<&Entrant> {
        self.servers.iter().find(|it| it.server == name)
    }

    /// The share of disturbance that decides; none where nothing is timed.
    pub fn noise_share(&self) -> Option<f64> {
        self.noise.map(|noise| noise.share(self.cores_are_shared))
    }
}

impl Measure {
    /// Values by server, the first compared with each of the others round by round.
    pub fn of(
        name: impl Into<String>,
        unit: &'static str,
        better: Better,
        compared_by: ComparedBy,
        values: Vec<(String, Vec<f64>)>,
    ) -> Self {
        let compare = |ours: f64, theirs: f64| match compared_by {
            ComparedBy::Ratio => ours / theirs,
            ComparedBy::Difference => ours - theirs,
        };
        let comparisons = values.split_first().map_or(Vec::new(), |((server, ours), others)| {
            let beside = |(against, theirs): &(String, Vec<f64>)| {
                let rounds: Vec<f64> =
                    ours.iter().zip(theirs).map(|(&ours, &theirs)| compare(ours, theirs)).collect();
                let spread = Spread::of(&rounds);
                Comparison { server: server.clone(), against: against.clone(), rounds, spread }
            };
            others.iter().map(beside).collect()
        });
        let of_server = |(server, rounds): (String, Vec<f64>)| {
            let spread = Spread::of(&rounds);
            Values { server, rounds, spread }
        };
        let values = values.into_iter().map(of_server).collect();
        Self { name: name.into(), unit, better, compared_by, values, comparisons }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_compared_with_each_other_round_by_round() {
        let values = vec![
            ("ours".to_owned(), vec![200.0, 90.0, 30.0]),
            ("theirs".to_owned(), vec![100.0, 60.0, 30.0]),
            ("third".to_owned(), vec![50.0, 30.0, 10.0]),
        ];
        let by =
            |compared_by| Measure::of("speed", "", Better::Higher, compared_by, values.clone());
        let ratios = by(ComparedBy::Ratio);
        assert_eq!(ratios.comparisons[0].rounds, [2.0, 1.5, 1.0]);
        assert_eq!(ratios.comparisons[0].spread.median, 1.5);
        assert_eq!(ratios.comparisons[1].against, "third");
        let differences = by(ComparedBy::Difference);
        assert_eq!(differences.comparisons[0].rounds, [100.0, 30.0, 0.0]);
    }

    #[test]
    fn a_verdict_stands_in_the_json_with_its_reason() {
        let json = |verdict| serde_json::to_value::<Verdict>(verdict).unwrap();
        assert_eq!(json(Verdict::TooNoisy)["verdict"], "too_noisy");
        let failed = json(Verdict::Failed("it hung up".to_owned()));
        assert_eq!(
            (&failed["verdict"], &failed["reason"]),
            (&"failed".into(), &"it hung up".into())
        );
    }
}
