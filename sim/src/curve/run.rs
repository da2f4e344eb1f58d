//! A `CurvePlan` carried out: LRU mapped at all sizes, then other policies played at the sizes that its
//! map shows.
//!
//! ```text
//! LRU alone:    trace -> map                                                    one reading
//! others too:   trace -> map;  trace again -> replays, or miniatures of a sample   two readings
//! min:          trace -> foresight, beside the map                             none of its own
//! ```
//!
//! Where LRU's map is not exact ([`Map::trusted_from`]) LRU is replayed too, if the trace is a file.

use eviction::Kind;

use super::{LruMapper, Map, Point, Spec};
use crate::belady::Foresight;
use crate::ranking::Ranking;
use crate::replay::{Player, Replay, Request, Tally, Unit};
use crate::run::{Caches, Found, Observer, Plan, Played, RunError, play_all};
use crate::sampling::miniature::Miniatures;
use crate::sampling::{Dealing, Part, Sampling};
use crate::size::Size;

/// Which curves are drawn, and how closely.
#[derive(Clone, Debug)]
pub struct CurvePlan {
    /// The log, its semantics, the policies, and in what unit; its sizes are left empty.
    pub plan: Plan,
    /// How much of the log is looked at.
    pub sampling: Sampling,
    /// Which part of its objects.
    pub dealing: Dealing,
    /// How many sizes, where `sizes` names none.
    pub points: usize,
    /// The sizes.
    pub sizes: Vec<Size>,
}

/// What came of a curve's plan.
#[derive(Clone, Debug)]
pub struct CurveReport {
    /// The trace's file, or `-`.
    pub trace: String,
    /// The trace's format.
    pub format: &'static str,
    /// What the trace held.
    pub found: Found,
    /// How often the trace was read.
    pub readings: u32,
    /// LRU at all sizes.
    pub map: Map,
    /// The curves, in the order of the plan's policies.
    pub curves: Vec<Curve>,
}

/// The miss ratio of a policy by size.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// The policy, or the optimum.
    pub policy: Ranking,
    /// Its points, from small to large.
    pub points: Vec<Point>,
}

impl CurveReport {
    /// The report on a map that was put together of parts.
    pub fn of_map(map: Map, sizes: &[Size], points: usize) -> Self {
        let sizes = shown(&map, sizes, points);
        let curve = Curve { policy: Kind::Lru.into(), points: map.points(&sizes) };
        Self {
            trace: "merged".into(),
            format: "map",
            found: Found::default(),
            readings: 0,
            curves: vec![curve],
            map,
        }
    }
}

/// Carries `plan` out.
///
/// # Errors
///
/// The trace cannot be read, or would have to be twice and is a stream.
pub fn run(plan: &CurvePlan, observer: &mut dyn Observer) -> Result<CurveReport, RunError> {
    let outcome = carry_out(plan, observer);
    observer.end();
    outcome
}

fn carry_out(plan: &CurvePlan, observer: &mut dyn Observer) -> Result<CurveReport, RunError> {
    let CurvePlan { plan: log, sampling, dealing, .. } = plan;
    let Dealing { part, is_dealt } = *dealing;
    let others: Vec<Kind> =
        log.policies.iter().copied().filter(|&policy| policy != Kind::Lru).collect();
    if log.min {
        let is_whole = *sampling == Sampling::Whole && part == Part::WHOLE;
        match log.caches {
            Caches::Plain { unit: Unit::Objects, .. } if is_whole => {}
            Caches::Plain { unit: Unit::Objects, .. } => return Err(RunError::MinOfSample),
            _ => return Err(RunError::MinNotOfObjects),
        }
    }
    if !others.is_empty() && log.source.is_stream() {
        return Err(RunError::TwiceOfStream { path: log.source.to_string() });
    }
    let expiry = log.semantics.expiry;
    let mapped = play_all(log, observer, |format, _| {
        let spec = Spec { weighing: log.weighing(format), expiry, sampling: *sampling, part };
        let mapper = Surveyor::Lru(Box::new(LruMapper::new(spec).of_dealt(is_dealt)));
        let foresight = log.min.then(|| Surveyor::Min(Foresight::default()));
        Ok(std::iter::once(mapper).chain(foresight).collect())
    })?;
    let Played { players, format, found, mut readings } = mapped;
    let (mut map, mut foresight) = (None, None);
    for player in players {
        match player {
            Surveyor::Lru(mapper) => map = Some(mapper.finish()),
            Surveyor::Min(min) => foresight = Some(min),
        }
    }
    let Some(map) = map else {
        return Err(RunError::NoReads { path: log.source.to_string() });
    };
    if map.requests() == 0 {
        return Err(RunError::NoReads { path: log.source.to_string() });
    }
    let sizes = shown(&map, &plan.sizes, plan.points);
    let mut points = Vec::new();
    if !others.is_empty() {
        let weighed = (log.weighing(&format), expiry);
        let played = if map.rate() < 1.0 || part != Part::WHOLE {
            let played = play_all(log, observer, |_, _| {
                Ok(vec![Miniatures::new(&others, &sizes, weighed, *dealing, map.rate())])
            })?;
            points.extend(played.players.into_iter().flat_map(Miniatures::finish));
            played.readings
        } else {
            let played = play_all(log, observer, |_, _| {
                let replay =
                    |&policy: &Kind, &size: &u64| Replay::with(policy, size, weighed.0, weighed.1);
                let of_policy =
                    |policy| sizes.iter().map(move |size| replay(policy, size)).collect::<Vec<_>>();
                Ok(others.iter().flat_map(of_policy).collect())
            })?;
            points.extend(played.players.iter().filter_map(exact_point));
            played.readings
        };
        readings += played;
    }
    let small: Vec<u64> = sizes.iter().copied().filter(|&size| size < map.trusted_from()).collect();
    let lru = if small.is_empty() || log.source.is_stream() || part != Part::WHOLE {
        map.points(&sizes)
    } else {
        let played = play_all(log, observer, |format, _| {
            let replay = |&size| Replay::with(Kind::Lru, size, log.weighing(format), expiry);
            Ok(small.iter().map(replay).collect())
        })?;
        readings += played.readings;
        let replayed = played.players.iter().filter_map(exact_point).map(|(_, point)| point);
        replayed.chain(map.points(&sizes[small.len()..])).collect()
    };
    let min: Vec<Point> = foresight.map_or_else(Vec::new, |mut foresight| {
        foresight.seal();
        let tallies = foresight.play_all(&sizes, log.jobs);
        sizes.iter().zip(tallies).filter_map(|(&size, tally)| point(size, tally)).collect()
    });
    let curve = |&policy: &Kind| {
        let points = if policy == Kind::Lru {
            lru.clone()
        } else {
            points.iter().filter(|(of, _)| *of == policy).map(|(_, point)| *point).collect()
        };
        Curve { policy: policy.into(), points }
    };
    let optimum = log.min.then_some(Curve { policy: Ranking::Min, points: min });
    Ok(CurveReport {
        trace: log.source.to_string(),
        format: format.name(),
        found,
        readings,
        curves: log.policies.iter().map(curve).chain(optimum).collect(),
        map,
    })
}

/// The sizes that are drawn, ascending: those asked for, or as many as `points`.
fn shown(map: &Map, sizes: &[Size], points: usize) -> Vec<u64> {
    if sizes.is_empty() {
        return map.sizes(points);
    }
    let resolved = |size: &Size| match size {
        Size::Count(count) | Size::Bytes(count) => *count,
        Size::Share(share) => share.of(map.weight()).max(1),
    };
    let mut sizes: Vec<u64> = sizes.iter().map(resolved).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// What a replay of the whole log counted.
fn exact_point(replay: &Replay) -> Option<(Kind, Point)> {
    Some((replay.policy(), point(replay.cache_size(), replay.tally())?))
}

fn point(cache_size: u64, tally: Tally) -> Option<Point> {
    let miss_ratio = tally.miss_ratio()?;
    let byte_miss_ratio = tally.byte_miss_ratio().unwrap_or(0.0);
    Some(Point { cache_size, miss_ratio, byte_miss_ratio, margin: 0.0 })
}

/// Who is fed the trace in its first reading.
enum Surveyor {
    Lru(Box<LruMapper>),
    Min(Foresight),
}

impl Player for Surveyor {
    #[inline]
    fn request(&mut self, request: &Request) {
        match self {
            Self::Lru(mapper) => mapper.request(request),
            Self::Min(foresight) => foresight.note(request),
        }
    }
}
