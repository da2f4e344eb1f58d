//! A `SizingPlan` carried out: the log scouted, caches played until the best is found, an `Advice`.
//!
//! ```text
//! stream        is written to a temporary file first: a log is read several times
//! first reading the scout: what there is; up to 8 million requests are kept in memory from then on
//! each further  a round: several caches at once
//! ```

use std::fs::File;
use std::io;

use eviction::Kind;
use tempfile::NamedTempFile;

use super::choice::{Aim, Candidate, STEP_BYTES, envelope, in_steps, knee};
use super::fleet::{Fleet, Wish, memory_bytes_min};
use super::prices::{Costs, Load, PerRequest, Prices};
use super::watch::{Actor, Course, Scout, Scouted};
use crate::replay::{self, Replay, ServerShape};
use crate::run::{Found, Observer, Plan, Played, Recital, RunError, Source, play_all};
use crate::sampling::miniature::Miniatures;
use crate::sampling::{Part, Sampling, threshold_of};
use crate::trace::TraceError;

/// How much work is done without being asked for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Requests times caches of a log that is played whole.
    pub whole_plays_max: u64,
    /// Objects of a log that is played whole: caches of all sizes hold them at once.
    pub whole_objects_max: u64,
    /// Objects of the sample that the search in a longer log looks at.
    pub searched_objects: usize,
}

impl Default for Effort {
    /// A minute or two of two cores, and less than a GiB.
    fn default() -> Self {
        Self { whole_plays_max: 200_000_000, whole_objects_max: 1 << 19, searched_objects: 1 << 15 }
    }
}

/// The smallest cache that is tried holds this part of everything.
const SMALLEST_PART: f64 = 2048.0;

/// The largest cache that is tried holds everything, so much room to spare: what a server does not use of
/// its shards, and that some of them get more than their share.
const ROOM_TO_SPARE: f64 = 1.25;

/// How often a larger cache is tried where the largest does not do what it must.
const EXTENSIONS_MAX: u32 = 3;

/// Rounds between sizes that were played; three are what it takes.
const ROUNDS_MAX: u32 = 8;

/// What is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ask {
    /// The least hit ratio.
    pub target: Option<f64>,
    /// What things cost.
    pub prices: Option<Prices>,
    /// What a request takes, in seconds.
    pub time: Option<PerRequest>,
}

/// How closely the log is looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Depth {
    /// A short log whole; a long one in a sample, and what was found there whole.
    Auto,
    /// As said, and no more than that.
    Sampling(Sampling),
}

/// What is asked of which log.
#[derive(Clone, Debug)]
pub struct SizingPlan {
    /// The log, its semantics, the policies; of its caches the server's shape.
    pub plan: Plan,
    /// What is asked.
    pub ask: Ask,
    /// What is said of the servers.
    pub wish: Wish,
    /// How closely the log is looked at.
    pub depth: Depth,
    /// How much of that goes without saying.
    pub effort: Effort,
    /// How many sizes are tried to begin with.
    pub points: usize,
    /// Reads a second, if not those of the log.
    pub reads_per_s: Option<f64>,
}

/// Why there is no advice.
#[derive(Debug, thiserror::Error)]
pub enum SizingError {
    /// The log cannot be played.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Prices are by the month, and the log does not tell how much happens in one.
    #[error(
        "{path} does not tell how many requests come in a month: say it with --requests-per-second"
    )]
    NoTime {
        /// Its file, or `-`.
        path: String,
    },
    /// A stream cannot be put where it can be read again.
    #[error("{path} is a stream, and cannot be put into a temporary file")]
    Spool {
        /// Its file, or `-`.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// What came of a plan.
#[derive(Clone, Debug)]
pub struct Advice {
    /// The log's file, or `-`.
    pub trace: String,
    /// The log's format.
    pub format: &'static str,
    /// What the log held.
    pub found: Found,
    /// What the scout found.
    pub scouted: Scouted,
    /// How often the log was read.
    pub readings: u32,
    /// What was asked.
    pub ask: Ask,
    /// What was said of the servers.
    pub wish: Wish,
    /// The policies, in the order they were named.
    pub policies: Vec<Kind>,
    /// How much is asked of the cache; none where neither the log nor anybody told.
    pub load: Option<Load>,
    /// The share of the objects that the curves were made from.
    pub rate: f64,
    /// The curves: what was played, by policy and size.
    pub curves: Vec<Candidate>,
    /// What was played of the whole log, where the curves are of a sample.
    pub confirmed: Vec<Candidate>,
    /// What a cache that holds everything hits; its memory is that of the largest that was tried.
    pub ceiling: Candidate,
    /// The same in each tenth of the log.
    pub ceiling_tenths: Vec<f64>,
    /// The knee of the best policies' curve.
    pub knee: Option<Candidate>,
    /// What is advised; none if nothing does what it must.
    pub chosen: Option<Chosen>,
}

/// A cache that is advised.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The cache as one server.
    pub candidate: Candidate,
    /// The same as servers that can be started.
    pub fleet: Fleet,
    /// Its hit ratio in each tenth of the log.
    pub tenths: Vec<f64>,
    /// What a month costs with it, and without any; none without prices.
    pub costs: Option<(Costs, Costs)>,
    /// The other policies in the same memory.
    pub others: Vec<Candidate>,
}

/// How a hit ratio moves over the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trend {
    /// It does not.
    Steady,
    /// The cache is still being filled, or the log repeats itself more and more.
    Rising,
    /// The log turns to other objects.
    Falling,
}

/// By how much the second half of a log must differ for its trend to have a name.
const TREND: f64 = 0.02;

impl Advice {
    /// What a cache of so much memory and hit ratio costs: money, or without prices bytes.
    pub fn cost(&self, memory_bytes: u64, hit_ratio: f64) -> f64 {
        cost(&self.ask, self.wish, self.load, memory_bytes, hit_ratio)
    }

    /// A candidate's costs of a month; none without prices.
    pub fn costs(&self, of: &Candidate) -> Option<Costs> {
        let fleet = self.wish.fleet(of.memory_bytes);
        let (prices, load) = self.ask.prices.zip(self.load)?;
        Some(prices.with_cache(load, fleet.total_bytes(), of.hit_ratio))
    }

    /// Whether what a cache saves has a price, and not memory alone.
    pub fn weighs(&self) -> bool {
        self.ask.prices.is_some_and(|prices| prices.weigh_anything())
    }

    /// The share of the misses at `hit_ratio` that no cache of any size could spare.
    pub fn unavoidable(&self, hit_ratio: f64) -> f64 {
        let missed = 1.0 - hit_ratio;
        if missed <= 0.0 { 0.0 } else { ((1.0 - self.ceiling.hit_ratio) / missed).clamp(0.0, 1.0) }
    }
}

impl Chosen {
    /// How the hit ratio moves, once a tenth of the log has filled the cache.
    pub fn trend(&self) -> Trend {
        let moved = self.late() - mean(&self.tenths[1..self.tenths.len() / 2]);
        if moved > TREND {
            Trend::Rising
        } else if moved < -TREND {
            Trend::Falling
        } else {
            Trend::Steady
        }
    }

    /// The hit ratio in the second half of the log.
    pub fn late(&self) -> f64 {
        mean(&self.tenths[self.tenths.len() / 2..])
    }

    /// The least and the most that a tenth of the log hit, the first left out.
    pub fn range(&self) -> (f64, f64) {
        let filled = || self.tenths[1..].iter().copied();
        (filled().fold(1.0, f64::min), filled().fold(0.0, f64::max))
    }
}

fn mean(ratios: &[f64]) -> f64 {
    ratios.iter().sum::<f64>() / ratios.len().max(1) as f64
}

fn cost(ask: &Ask, wish: Wish, load: Option<Load>, memory_bytes: u64, hit_ratio: f64) -> f64 {
    let machine_bytes = wish.fleet(memory_bytes).total_bytes();
    match ask.prices.zip(load) {
        Some((prices, load)) => prices.with_cache(load, machine_bytes, hit_ratio).total(),
        None => machine_bytes as f64,
    }
}

/// Carries `plan` out.
///
/// # Errors
///
/// The log cannot be read, has no reads, or tells no time where prices ask for it.
pub fn run(plan: &SizingPlan, observer: &mut dyn Observer) -> Result<Advice, SizingError> {
    let outcome = spool(&plan.plan.source, observer).and_then(|spooled| {
        let mut log = plan.plan.clone();
        if let Some(file) = &spooled {
            log.source = Source::File(file.path().to_path_buf());
        }
        Search::begin(plan, log, observer)?.finish()
    });
    observer.end();
    outcome
}

/// A stream as a file, which is deleted when it is no longer needed; none if it is one already.
fn spool(
    source: &Source,
    observer: &mut dyn Observer,
) -> Result<Option<NamedTempFile>, SizingError> {
    let copied = || {
        let mut file = NamedTempFile::with_prefix("cache-sim-")?;
        match source {
            Source::Stdin => io::copy(&mut io::stdin().lock(), file.as_file_mut())?,
            Source::File(path) => io::copy(&mut File::open(path)?, file.as_file_mut())?,
        };
        Ok(file)
    };
    // A file that is missing is named when it is read.
    let is_there = !matches!(source, Source::File(path) if !path.exists());
    if !source.is_stream() || !is_there {
        return Ok(None);
    }
    observer.begin("copy", None);
    copied().map(Some).map_err(|source_error: io::Error| SizingError::Spool {
        path: source.to_string(),
        source: source_error,
    })
}

/// A plan on its way to an advice.
struct Search<'a> {
    plan: &'a SizingPlan,
    /// The log as it is read from now on.
    log: Plan,
    shape: ServerShape,
    observer: Heard<'a>,
    kept: Option<Vec<replay::Request>>,
    format: &'static str,
    found: Found,
    readings: u32,
    scouted: Scouted,
    load: Option<Load>,
    /// The share of objects that the search looks at.
    rate: f64,
}

/// What a round brought.
struct Round {
    candidates: Vec<(Candidate, Vec<f64>)>,
}

impl Round {
    fn plain(&self) -> impl Iterator<Item = Candidate> {
        self.candidates.iter().map(|(candidate, _)| *candidate)
    }
}

impl<'a> Search<'a> {
    /// Reads the log for the first time.
    fn begin(
        plan: &'a SizingPlan,
        log: Plan,
        observer: &'a mut dyn Observer,
    ) -> Result<Self, SizingError> {
        let path = || plan.plan.source.to_string();
        let (shape, kept_max) = (plan.wish.shape, log.kept_requests_max);
        let scout = Scout::new(shape, &log.policies, log.semantics, kept_max);
        let mut observer = Heard { observer, is_told: false };
        let Played { players, format, found, readings } =
            play_all(&log, &mut observer, |_, _| Ok(vec![scout]))?;
        observer.is_told = true;
        let (scouted, kept) = players.into_iter().next().map(Scout::finish).unwrap_or_default();
        if scouted.reads == 0 {
            return Err(RunError::NoReads { path: path() }.into());
        }
        let load = load(&scouted, plan.reads_per_s);
        if plan.ask.prices.is_some_and(|prices| prices.weigh_anything()) && load.is_none() {
            return Err(SizingError::NoTime { path: path() });
        }
        let mut search = Self {
            plan,
            log,
            shape,
            observer,
            kept,
            format: format.name(),
            found,
            readings,
            scouted,
            load,
            rate: 1.0,
        };
        search.rate = search.rate_wanted();
        Ok(search)
    }

    /// The share of the objects to be looked at.
    fn rate_wanted(&self) -> f64 {
        let caches = (self.plan.points * self.log.policies.len()) as u64;
        let effort = self.plan.effort;
        let is_short = self.scouted.requests.saturating_mul(caches) <= effort.whole_plays_max
            && self.scouted.objects <= effort.whole_objects_max;
        let objects = self.scouted.objects.max(1) as f64;
        let share = |wanted: usize| (wanted as f64 / objects).min(1.0);
        match self.plan.depth {
            Depth::Auto if is_short => 1.0,
            Depth::Auto => share(effort.searched_objects),
            Depth::Sampling(Sampling::Whole) => 1.0,
            Depth::Sampling(Sampling::Rate(rate)) => rate,
            Depth::Sampling(Sampling::Objects(wanted)) => share(wanted),
        }
    }

    fn finish(mut self) -> Result<Advice, SizingError> {
        let SizingPlan { ask, wish, .. } = *self.plan;
        let load = self.load;
        let cost = |memory, hits| cost(&ask, wish, load, memory, hits);
        let aim = Aim { target: ask.target, cost: &cost };
        let is_whole = self.rate >= 1.0;

        let (first, ceiling, ceiling_tenths) = self.first_round()?;
        let mut played = first;
        let is_reachable = ask.target.is_none_or(|target| ceiling.hit_ratio >= target);
        if is_reachable {
            self.extend(&aim, &mut played, ceiling.memory_bytes)?;
        }
        let asks_for_best = ask.target.is_some() || ask.prices.is_some();
        if asks_for_best && is_reachable {
            self.search(&aim, &mut played, self.rate)?;
        }
        self.refine_knee(&mut played)?;
        let mut curves: Vec<Candidate> = played.plain().collect();
        let mut knee = knee(&envelope(&curves)).copied();

        let confirms = !is_whole && self.plan.depth == Depth::Auto;
        let found = if asks_for_best { aim.best(&curves).copied() } else { knee };
        let mut confirmed = Round { candidates: Vec::new() };
        let mut best = found;
        if let Some(found) = found.filter(|_| confirms) {
            confirmed = self.confirm(&aim, &curves, found, asks_for_best)?;
            let whole: Vec<Candidate> = confirmed.plain().collect();
            best = if asks_for_best { aim.best(&whole).copied() } else { whole.first().copied() };
            if !asks_for_best {
                knee = best;
            }
        }
        let chosen = match best {
            Some(best) => Some(self.chosen(best, &played, &confirmed)?),
            None => None,
        };
        let order = |kind: Kind| self.log.policies.iter().position(|&policy| policy == kind);
        curves.sort_by_key(|it| (order(it.policy), it.memory_bytes));
        Ok(Advice {
            trace: self.plan.plan.source.to_string(),
            format: self.format,
            found: self.found,
            scouted: self.scouted,
            readings: self.readings,
            ask,
            wish,
            policies: self.log.policies.clone(),
            load,
            rate: self.rate,
            curves,
            confirmed: confirmed.plain().collect(),
            ceiling,
            ceiling_tenths,
            knee,
            chosen,
        })
    }

    /// Every policy in every size, and a cache that holds everything.
    fn first_round(&mut self) -> Result<(Round, Candidate, Vec<f64>), SizingError> {
        let top = self.scouted.weight_bytes as f64 * ROOM_TO_SPARE + 2.0 * STEP_BYTES as f64;
        let sizes = grid(top, memory_bytes_min(self.plan.wish.shape), self.plan.points);
        let largest = sizes.last().copied().unwrap_or(STEP_BYTES);
        let of = |&policy: &Kind| sizes.iter().map(move |&size| (policy, size)).collect::<Vec<_>>();
        let mut wanted: Vec<(Kind, u64)> = self.log.policies.iter().flat_map(of).collect();
        // FIFO, as it is the cheapest and never has to choose.
        let everything = largest.saturating_mul(4);
        wanted.push((Kind::Fifo, everything));
        let mut round = self.play(&wanted, self.rate)?;
        let holds_all = |(it, _): &(Candidate, Vec<f64>)| it.memory_bytes == everything;
        let at = round.candidates.iter().position(holds_all);
        let (ceiling, mut tenths) = round.candidates.swap_remove(at.unwrap_or_default());
        if tenths.is_empty() {
            tenths = self.course((Kind::Fifo, everything))?;
        }
        Ok((round, Candidate { memory_bytes: largest, ..ceiling }, tenths))
    }

    /// Tries larger caches as long as none does what it must.
    fn extend(&mut self, aim: &Aim<'_>, played: &mut Round, from: u64) -> Result<(), SizingError> {
        let mut size = from;
        for _ in 0..EXTENSIONS_MAX {
            let candidates: Vec<Candidate> = played.plain().collect();
            if aim.best(&candidates).is_some() {
                break;
            }
            size = size.saturating_mul(2);
            let wanted: Vec<(Kind, u64)> =
                self.log.policies.iter().map(|&policy| (policy, size)).collect();
            played.candidates.extend(self.play(&wanted, self.rate)?.candidates);
        }
        Ok(())
    }

    /// Plays between sizes until nothing more is to be gained.
    fn search(&mut self, aim: &Aim<'_>, played: &mut Round, rate: f64) -> Result<(), SizingError> {
        for _ in 0..ROUNDS_MAX {
            let candidates: Vec<Candidate> = played.plain().collect();
            let wanted = aim.next(&candidates);
            if wanted.is_empty() {
                break;
            }
            played.candidates.extend(self.play(&wanted, rate)?.candidates);
        }
        Ok(())
    }

    /// Plays between the knee and its neighbours.
    fn refine_knee(&mut self, played: &mut Round) -> Result<(), SizingError> {
        let edge = envelope(&played.plain().collect::<Vec<_>>());
        let Some(found) = knee(&edge).copied() else { return Ok(()) };
        let at = edge.iter().position(|it| *it == found).unwrap_or_default();
        let from = edge[at.saturating_sub(1)].memory_bytes as f64;
        let to = edge[(at + 1).min(edge.len() - 1)].memory_bytes as f64;
        let known: Vec<Candidate> = played.plain().collect();
        let mut wanted: Vec<(Kind, u64)> = (1..8)
            .map(|n| (found.policy, in_steps(from * (to / from).powf(f64::from(n) / 8.0))))
            .collect();
        wanted.dedup();
        wanted.retain(|(policy, size)| {
            !known.iter().any(|it| it.policy == *policy && it.memory_bytes == *size)
        });
        if !wanted.is_empty() {
            played.candidates.extend(self.play(&wanted, self.rate)?.candidates);
        }
        Ok(())
    }

    /// Plays the whole log around what a sample found.
    fn confirm(
        &mut self,
        aim: &Aim<'_>,
        curves: &[Candidate],
        found: Candidate,
        asks_for_best: bool,
    ) -> Result<Round, SizingError> {
        if !asks_for_best {
            return self.play(&[(found.policy, found.memory_bytes)], 1.0);
        }
        // The policy found, and the one that comes closest to it.
        let others: Vec<Candidate> =
            curves.iter().filter(|it| it.policy != found.policy).copied().collect();
        let second = aim.best(&others).copied();
        let least = memory_bytes_min(self.plan.wish.shape);
        let near = |it: Candidate| {
            [0.92, 1.0, 1.08]
                .map(|factor| (it.policy, in_steps(it.memory_bytes as f64 * factor).max(least)))
        };
        let mut wanted: Vec<(Kind, u64)> =
            std::iter::once(found).chain(second).flat_map(near).collect();
        wanted.dedup();
        let mut round = self.play(&wanted, 1.0)?;
        let mut size = found.memory_bytes as f64;
        for _ in 0..ROUNDS_MAX {
            let whole: Vec<Candidate> = round.plain().collect();
            if aim.best(&whole).is_some() {
                break;
            }
            size *= 1.25;
            let mut wanted: Vec<(Kind, u64)> =
                whole.iter().map(|it| (it.policy, in_steps(size))).collect();
            wanted.sort_by_key(|(policy, _)| policy.name());
            wanted.dedup();
            round.candidates.extend(self.play(&wanted, 1.0)?.candidates);
        }
        self.search(aim, &mut round, 1.0)?;
        Ok(round)
    }

    /// What is advised, with all that is told of it.
    fn chosen(
        &mut self,
        best: Candidate,
        played: &Round,
        confirmed: &Round,
    ) -> Result<Chosen, SizingError> {
        let all = || played.candidates.iter().chain(&confirmed.candidates);
        let known = all().find(|(it, tenths)| *it == best && !tenths.is_empty());
        let tenths = match known {
            Some((_, tenths)) => tenths.clone(),
            None => self.course((best.policy, best.memory_bytes))?,
        };
        let rivals: Vec<(Kind, u64)> = self
            .log
            .policies
            .iter()
            .filter(|&&policy| policy != best.policy)
            .map(|&policy| (policy, best.memory_bytes))
            .collect();
        let others = if rivals.is_empty() {
            Vec::new()
        } else {
            self.play(&rivals, self.rate)?.plain().collect()
        };
        let fleet = self.plan.wish.fleet(best.memory_bytes);
        let priced = self.plan.ask.prices.zip(self.load);
        let costs = priced.map(|(prices, load)| {
            let with = prices.with_cache(load, fleet.total_bytes(), best.hit_ratio);
            (with, prices.without_cache(load))
        });
        Ok(Chosen { candidate: best, fleet, tenths, costs, others })
    }

    /// The tenths of one cache of a sample.
    fn course(&mut self, (policy, memory_bytes): (Kind, u64)) -> Result<Vec<f64>, SizingError> {
        let rate = self.rate;
        let course = Course::new(
            self.replay(policy, memory_bytes, rate),
            Some(threshold_of(rate)),
            self.scouted.reads,
        );
        let actors = self.perform(vec![Actor::Course(Box::new(course))])?;
        let tenths = |actor: &Actor| match actor {
            Actor::Course(course) => Some(course.tenths()),
            Actor::Miniatures(_) => None,
        };
        Ok(actors.iter().find_map(tenths).unwrap_or_default())
    }

    /// One cache, for a share of the objects.
    fn replay(&self, policy: Kind, memory_bytes: u64, rate: f64) -> Replay {
        let expiry = self.log.semantics.expiry;
        if rate < 1.0 {
            return Replay::of_server_in_miniature(policy, memory_bytes, self.shape, expiry, rate);
        }
        Replay::of_server(policy, memory_bytes, self.shape, expiry)
    }

    /// Plays the log to caches: whole, or a share of its objects.
    fn play(&mut self, wanted: &[(Kind, u64)], rate: f64) -> Result<Round, SizingError> {
        let reads = self.scouted.reads;
        let replays = wanted.iter().map(|&(policy, size)| self.replay(policy, size, rate));
        if rate < 1.0 {
            let replays = wanted.iter().map(|&(_, size)| size).zip(replays).collect();
            let miniatures = Miniatures::of(replays, Part::WHOLE, rate);
            let actors = self.perform(vec![Actor::Miniatures(Box::new(miniatures))])?;
            let points = actors.into_iter().flat_map(|actor| match actor {
                Actor::Miniatures(miniatures) => miniatures.finish(),
                Actor::Course(_) => Vec::new(),
            });
            let candidates = points.map(|(policy, point)| {
                let (hit_ratio, margin) = (1.0 - point.miss_ratio, point.margin);
                let memory_bytes = point.cache_size;
                (Candidate { policy, memory_bytes, hit_ratio, margin }, Vec::new())
            });
            return Ok(Round { candidates: candidates.collect() });
        }
        let actors = replays
            .map(|replay| Actor::Course(Box::new(Course::new(replay, None, reads))))
            .collect();
        let candidate = |actor: &Actor| {
            let Actor::Course(course) = actor else { return None };
            let replay = course.replay();
            let hit_ratio = 1.0 - replay.tally().miss_ratio()?;
            let (policy, memory_bytes) = (replay.policy(), replay.cache_size());
            Some((Candidate { policy, memory_bytes, hit_ratio, margin: 0.0 }, course.tenths()))
        };
        Ok(Round { candidates: self.perform(actors)?.iter().filter_map(candidate).collect() })
    }

    /// Plays the log to `actors`, from memory if it is there.
    fn perform(&mut self, mut actors: Vec<Actor>) -> Result<Vec<Actor>, SizingError> {
        let Some(kept) = &self.kept else {
            let played = play_all(&self.log, &mut self.observer, |_, _| Ok(actors))?;
            self.readings += played.readings;
            return Ok(played.players);
        };
        let requests = Recital::of(kept, &mut self.observer);
        replay::play(requests, &mut actors, self.log.jobs)?;
        Ok(actors)
    }
}

/// How much is asked of the cache: by the log, or at another rate with the log's ups and downs.
fn load(scouted: &Scouted, reads_per_s: Option<f64>) -> Option<Load> {
    let of_log = scouted.duration_s().map(|seconds| {
        let mean_per_s = scouted.reads as f64 / f64::from(seconds);
        // A log of less than a minute has no busiest one.
        let busiest_per_s = scouted.busiest as f64 / f64::from(seconds.min(60));
        Load { mean_per_s, busiest_per_s: busiest_per_s.max(mean_per_s) }
    });
    match (reads_per_s, of_log) {
        (None, of_log) => of_log,
        (Some(mean_per_s), None) => Some(Load { mean_per_s, busiest_per_s: mean_per_s }),
        (Some(mean_per_s), Some(of_log)) => {
            let peak = of_log.busiest_per_s / of_log.mean_per_s;
            Some(Load { mean_per_s, busiest_per_s: mean_per_s * peak })
        }
    }
}

/// Sizes up to that in which everything fits, each by about the same factor larger than the one before, and none
/// below `least`.
fn grid(top: f64, least: u64, points: usize) -> Vec<u64> {
    let smallest = (top / SMALLEST_PART).max(STEP_BYTES as f64);
    let growth = (top / smallest).max(1.0);
    let last = points.saturating_sub(1).max(1) as f64;
    let size = |n: usize| in_steps((smallest * growth.powf(n as f64 / last)).ceil()).max(least);
    let mut sizes: Vec<u64> = (0..points.max(2)).map(size).collect();
    sizes.dedup();
    sizes
}

/// Passes on what is heard; of malformed records only in the first reading.
struct Heard<'a> {
    observer: &'a mut dyn Observer,
    is_told: bool,
}

impl Observer for Heard<'_> {
    fn begin(&mut self, what: &'static str, end: Option<u64>) {
        self.observer.begin(what, end);
    }

    fn advance(&mut self, at: u64) {
        self.observer.advance(at);
    }

    fn malformed(&mut self, error: &TraceError) {
        if !self.is_told {
            self.observer.malformed(error);
        }
    }

    fn end(&mut self) {
        self.observer.end();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::num::NonZeroUsize;

    use super::super::prices::Backend;
    use super::*;
    use crate::replay::Expiry;
    use crate::run::{self, Caches, Empty, KEPT_REQUESTS_MAX, Semantics};
    use crate::trace::{Access, Format, oracle_general, zipf};
    use crate::ttl::TtlRule;

    const MIB: u64 = STEP_BYTES;
    const SHAPE: ServerShape = ServerShape { threads: 1, item_bytes_max: MIB };

    struct Deaf {
        malformed: u32,
    }

    impl Observer for Deaf {
        fn begin(&mut self, _: &'static str, _: Option<u64>) {}
        fn advance(&mut self, _: u64) {}
        fn malformed(&mut self, _: &TraceError) {
            self.malformed += 1;
        }
        fn end(&mut self) {}
    }

    /// A log of zipf popularity with objects of about 2 KiB.
    fn zipf_log(requests: u64, objects: u64) -> NamedTempFile {
        let spec = zipf::Spec {
            requests,
            objects,
            alpha: 0.9,
            value_bytes: 100..=4096,
            requests_per_s: 100,
            seed: 7,
        };
        let accesses: Vec<Access> = zipf::Generator::new(spec).unwrap().collect();
        let mut file = NamedTempFile::with_suffix(".oracleGeneral").unwrap();
        oracle_general::write(&mut file, &accesses).unwrap();
        file
    }

    fn text_log(text: &str) -> NamedTempFile {
        let mut file = NamedTempFile::with_suffix(".csv").unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn plan(file: &NamedTempFile, policies: &[Kind]) -> SizingPlan {
        SizingPlan {
            plan: Plan {
                source: Source::File(file.path().into()),
                format: Format::Guess,
                policies: policies.to_vec(),
                min: false,
                caches: Caches::Server { shape: SHAPE, memory_bytes: Vec::new() },
                semantics: Semantics {
                    ttl: TtlRule::Log,
                    expiry: Expiry::Eager,
                    item_overhead_bytes: 0,
                },
                empty: Empty::Auto,
                strict: false,
                jobs: NonZeroUsize::new(2).unwrap(),
                kept_requests_max: KEPT_REQUESTS_MAX,
            },
            ask: Ask::default(),
            wish: Wish { shape: SHAPE, nodes: None, machine_bytes_max: None, preset: None },
            depth: Depth::Auto,
            effort: Effort::default(),
            points: 12,
            reads_per_s: None,
        }
    }

    fn advice(plan: &SizingPlan) -> Advice {
        run(plan, &mut Deaf { malformed: 0 }).unwrap()
    }

    fn aiming(plan: SizingPlan, target: f64) -> SizingPlan {
        SizingPlan { ask: Ask { target: Some(target), ..Ask::default() }, ..plan }
    }

    /// The hit ratio of every policy in every size up to `mib` that the server takes, each replayed as it would.
    fn every_size(plan: &SizingPlan, mib: u64) -> Vec<Candidate> {
        let memory_bytes = (2..=mib).map(|mib| mib * MIB).collect();
        let caches = Caches::Server { shape: SHAPE, memory_bytes };
        let log = Plan { caches, ..plan.plan.clone() };
        let report = run::run(&log, &mut Deaf { malformed: 0 }).unwrap();
        let candidate = |row: &run::Row| Candidate {
            policy: row.policy.kind().unwrap(),
            memory_bytes: row.cache_size,
            hit_ratio: 1.0 - row.tally.miss_ratio().unwrap(),
            margin: 0.0,
        };
        report.rows.iter().map(candidate).collect()
    }

    #[test]
    fn a_target_is_met_by_the_least_memory_of_all() {
        let file = zipf_log(40_000, 6_000);
        let base = plan(&file, &[Kind::Lru, Kind::S3Fifo]);
        let every = every_size(&base, 20);
        for target in [0.3, 0.55, 0.7, 0.8] {
            let met = every.iter().filter(|it| it.hit_ratio >= target);
            let least = met.map(|it| it.memory_bytes).min();
            let found = advice(&aiming(base.clone(), target)).chosen.map(|it| it.candidate);
            assert_eq!(found.map(|it| it.memory_bytes), least, "{target}");
            if let Some(found) = found {
                assert!(every.contains(&found), "it is what a replay of it measures: {found:?}");
            }
        }
    }

    #[test]
    fn prices_are_met_by_the_cheapest_of_all() {
        let file = zipf_log(40_000, 6_000);
        let base = plan(&file, &[Kind::Lru, Kind::S3Fifo]);
        let every = every_size(&base, 20);
        let each = |miss: f64| PerRequest::new(None, Some(miss), None).unwrap();
        let prices = |memory: f64, miss: f64, backend: Option<f64>| Prices {
            memory_gib_month: memory,
            money: each(miss),
            time: None,
            second: 0.0,
            backend: backend.map(|month| Backend { requests_per_s: 5.0, month }),
        };
        for prices in [
            prices(3.0, 1e-9, None),
            prices(30.0, 1e-8, None),
            prices(300.0, 1e-8, Some(0.2)),
            prices(3.0, 1e-6, None),
        ] {
            let ask = Ask { prices: Some(prices), ..Ask::default() };
            let advice = advice(&SizingPlan { ask, ..base.clone() });
            let total = |it: &Candidate| advice.costs(it).unwrap().total();
            let least = every.iter().map(total).fold(f64::INFINITY, f64::min);
            let chosen = advice.chosen.clone().unwrap();
            let found = total(&chosen.candidate);
            assert!(found <= least / 0.997 && found >= least - 1e-9, "{found} for {least}");
            // Ten minutes and forty seconds of log are a month's load, so many times over.
            let (with, without) = chosen.costs.unwrap();
            assert!((with.total() - found).abs() < 1e-9);
            let month = advice.load.unwrap().month();
            assert!((without.requests - month * prices.money.unwrap().direct).abs() < 1e-6);
        }
    }

    #[test]
    fn beyond_the_ceiling_nothing_is_advised_and_the_ceiling_told() {
        let file = zipf_log(20_000, 3_000);
        let mut keys = std::collections::HashSet::new();
        let reads = Format::OracleGeneral;
        let trace = crate::trace::Trace::open(file.path(), &reads).unwrap();
        let hits = trace.filter(|access| !keys.insert(access.as_ref().unwrap().id)).count();
        let ceiling = hits as f64 / 20_000.0;
        let base = plan(&file, &[Kind::Lru, Kind::Arc]);
        let none = advice(&aiming(base.clone(), ceiling + 0.0001));
        assert_eq!(none.chosen, None);
        assert!((none.ceiling.hit_ratio - ceiling).abs() < 1e-12);
        let all = advice(&aiming(base, ceiling)).chosen.unwrap();
        assert!((all.candidate.hit_ratio - ceiling).abs() < 1e-12, "the ceiling itself is reached");
    }

    #[test]
    fn a_log_without_reads_is_refused() {
        for text in ["time,id,size\n", "time,op,id,size\n1,set,1,5\n"] {
            let file = text_log(text);
            let mut plan = plan(&file, &[Kind::Lru]);
            plan.plan.format = Format::Csv("time=time,id=id,size=size".parse().unwrap());
            if text.contains("op") {
                plan.plan.format = Format::Csv("time=time,op=op,id=id,size=size".parse().unwrap());
            }
            let error = run(&plan, &mut Deaf { malformed: 0 }).unwrap_err();
            assert!(error.to_string().ends_with("has no reads"), "{error}");
        }
    }

    #[test]
    fn prices_need_a_month_and_a_rate_stands_in_for_it() {
        let file = text_log("5,1,100\n5,2,100\n5,1,100\n");
        let prices = Prices {
            memory_gib_month: 3.0,
            money: PerRequest::new(None, Some(1e-6), None).unwrap(),
            time: None,
            second: 0.0,
            backend: None,
        };
        let ask = Ask { prices: Some(prices), ..Ask::default() };
        let plan = SizingPlan { ask, ..plan(&file, &[Kind::Lru]) };
        let error = run(&plan, &mut Deaf { malformed: 0 }).unwrap_err();
        assert!(error.to_string().contains("--requests-per-second"), "{error}");
        let advice = advice(&SizingPlan { reads_per_s: Some(100.0), ..plan });
        let costs = advice.chosen.unwrap().costs.unwrap();
        assert!((costs.1.requests - 100.0 * 730.0 * 3600.0 * 1e-6).abs() < 1e-6);
    }

    #[test]
    fn one_object_needs_the_smallest_server() {
        let file = text_log("1,1,100\n2,1,100\n3,1,100\n");
        let advice = advice(&plan(&file, &[Kind::Lru]));
        let chosen = advice.chosen.unwrap();
        assert_eq!(chosen.candidate.memory_bytes, memory_bytes_min(SHAPE));
        assert!((chosen.candidate.hit_ratio - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn objects_too_large_for_the_server_are_told() {
        let file = text_log("1,1,2000000\n2,1,2000000\n3,2,10\n4,2,10\n");
        let advice = advice(&plan(&file, &[Kind::Lru]));
        assert_eq!(advice.scouted.reads_too_large, 2);
        assert_eq!(advice.ceiling.hit_ratio, 0.25);
    }

    #[test]
    fn a_long_log_is_searched_in_a_sample_and_confirmed_whole() {
        let file = zipf_log(60_000, 20_000);
        let base = aiming(plan(&file, &[Kind::Lru, Kind::S3Fifo]), 0.5);
        let whole = advice(&base).chosen.unwrap().candidate;
        let effort = Effort { whole_plays_max: 0, searched_objects: 2_000, ..Effort::default() };
        let advice = advice(&SizingPlan { effort, ..base.clone() });
        assert!(advice.rate < 0.5, "{}", advice.rate);
        assert!(advice.curves.iter().all(|it| it.margin > 0.0), "estimates have bands");
        let found = advice.chosen.unwrap().candidate;
        assert_eq!(found.margin, 0.0, "what is advised is no estimate");
        assert!(found.hit_ratio >= 0.5);
        let times = found.memory_bytes as f64 / whole.memory_bytes as f64;
        assert!((0.99..1.1).contains(&times), "{found:?} for {whole:?}");
    }

    #[test]
    fn a_sample_alone_meets_the_target_with_its_lower_edge() {
        let file = zipf_log(60_000, 20_000);
        let depth = Depth::Sampling(Sampling::Objects(2_000));
        let base = aiming(plan(&file, &[Kind::Lru]), 0.4);
        let chosen = advice(&SizingPlan { depth, ..base.clone() }).chosen.unwrap();
        assert!(chosen.candidate.sure() >= 0.4 && chosen.candidate.margin > 0.0);
        let mib = chosen.candidate.memory_bytes / MIB;
        let replayed = every_size(&base, mib).last().copied().unwrap();
        assert!(replayed.hit_ratio >= 0.4, "{replayed:?}");
        assert_eq!(chosen.tenths.len(), super::super::watch::TENTHS);
    }

    #[test]
    fn a_log_too_long_to_keep_is_read_again_and_malformed_records_told_once() {
        let mut text = String::new();
        (0..300).for_each(|n| text += &format!("{n},{},5000\n", n * n % 61));
        let file = text_log(&(text + "oh\n"));
        let base = aiming(plan(&file, &[Kind::Lru]), 0.6);
        let kept = advice(&base);
        let mut again = base.clone();
        again.plan.kept_requests_max = 10;
        let mut deaf = Deaf { malformed: 0 };
        let read = run(&again, &mut deaf).unwrap();
        assert_eq!(deaf.malformed, 1);
        assert_eq!((kept.readings, read.chosen), (1, kept.chosen));
        assert!(read.readings > 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_stream_is_as_good_as_a_file() {
        use std::os::fd::AsRawFd;

        let file = text_log("1,1,100\n2,2,100\n3,1,100\n");
        let wanted = advice(&plan(&file, &[Kind::Lru]));
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"1,1,100\n2,2,100\n3,1,100\n").unwrap();
        drop(writer);
        let mut streamed = plan(&file, &[Kind::Lru]);
        streamed.plan.source = Source::File(format!("/proc/self/fd/{}", reader.as_raw_fd()).into());
        streamed.plan.format = Format::Csv(crate::trace::csv::Layout::default());
        let found = advice(&streamed);
        assert_eq!(found.chosen, wanted.chosen);
        assert!(found.trace.starts_with("/proc/self/fd/"), "named as it was asked for");
    }

    #[test]
    fn a_key_value_log_is_sized_with_its_deletes_and_ttls() {
        let mut text = String::from("time,op,id,size,ttl\n");
        for n in 0..4_000_u64 {
            let id = n * n % 397;
            let (op, ttl) = match n % 7 {
                0 => ("set", 60),
                3 => ("delete", 0),
                _ => ("get", 0),
            };
            text += &format!("{},{op},{id},9000,{ttl}\n", n / 4);
        }
        let file = text_log(&text);
        let columns = "time=time,op=op,id=id,size=size,ttl=ttl";
        let mut base = plan(&file, &[Kind::Lru, Kind::S3Fifo]);
        base.plan.format = Format::Csv(columns.parse().unwrap());
        let every = every_size(&base, 6);
        let ceiling = advice(&base).ceiling.hit_ratio;
        let target = ceiling * 0.8;
        let least =
            every.iter().filter(|it| it.hit_ratio >= target).map(|it| it.memory_bytes).min();
        let found = advice(&aiming(base, target)).chosen.map(|it| it.candidate.memory_bytes);
        assert!(ceiling > 0.1, "{ceiling}");
        assert_eq!(found, least);
    }

    #[test]
    fn a_grid_runs_from_small_to_all_in_whole_steps() {
        let sizes = grid(1e10, MIB, 20);
        assert_eq!(sizes.len(), 20);
        assert!(sizes.iter().all(|size| size.is_multiple_of(MIB)));
        assert!(sizes.is_sorted() && *sizes.last().unwrap() as f64 >= 1e10 - 1e6);
        assert_eq!(grid(10.0, MIB, 20), [MIB]);
        assert_eq!(grid(4e6, 3 * MIB, 20), [3 * MIB, 4 * MIB], "the server takes no less");
    }
}
