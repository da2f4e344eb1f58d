//! A flood of objects that are asked for once, for a while: a crawler, a backup, a table scan.

use eviction::KeyHash;

use super::course::Course;
use super::moment::{Moment, Watch};
use super::{Cell, Census, Model, Table};
use crate::blueprint::Blueprint;
use crate::replay::{Player, Replay, Request};
use crate::sampling::mixed;
use crate::trace::Op;

pub(super) const ASSUMPTIONS: &[&str] = &[
    "For --for, to each of the log's requests come --rate more, each for an object that nobody else asks \
     for, and that is filled in after its miss. They are spread evenly over the log's.",
    "Each is as large, and lives as long, as the object of the request that it comes with.",
    "Hits and reads are those of the log alone: the flood's own reads all miss, and are not counted.",
    "Recovered is the cache when, after the flood, it misses no more than 1% of the reads more than without \
     it, in all windows from there to the end of the log.",
];

pub(super) const COLUMNS: &[&str] = &[
    "policy",
    "cache_size",
    "flood_s",
    "injected",
    "reads_during",
    "hit_ratio_during_calm",
    "hit_ratio_during",
    "extra_misses_during",
    "extra_misses_after",
    "recovered_after_s",
];

pub(super) const COURSE_COLUMNS: &[&str] =
    &["policy", "cache_size", "after_s", "reads", "hit_ratio_calm", "hit_ratio", "extra_misses"];

/// A flood.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scan {
    /// Requests injected for each of the log's.
    pub rate: f64,
    /// When it begins.
    pub at: Moment,
    /// How long it lasts.
    pub lasts: Moment,
    /// Whether the course is shown instead of the summary.
    pub over_time: bool,
}

impl Scan {
    pub(super) fn model(&self, blueprint: Blueprint, census: &Census) -> ScanModel {
        ScanModel {
            blueprint,
            rate: self.rate,
            begin: self.at.watch(census),
            end: self.lasts.watch(census),
            phase: Phase::Before,
            calm: blueprint.build(),
            flooded: blueprint.build(),
            owed: 0.0,
            injected: 0,
            during: Course::new(),
            after: Course::new(),
        }
    }
}

/// Keys of a flood, which no log has.
const SALT: u64 = 0x5ca1_ab1e_0ddb_a115;

/// A cache that is left alone, and one that is flooded.
pub(super) struct ScanModel {
    blueprint: Blueprint,
    rate: f64,
    begin: Watch,
    end: Watch,
    phase: Phase,
    calm: Replay,
    flooded: Replay,
    /// Requests of the flood that are due.
    owed: f64,
    injected: u64,
    during: Course,
    after: Course,
}

/// How far the flood has come, and the times it began and ended.
#[derive(Clone, Copy)]
enum Phase {
    Before,
    During { began_s: u32 },
    After { began_s: u32, ended_s: u32 },
}

impl ScanModel {
    fn advance(&mut self, request: &Request) {
        if let Phase::Before = self.phase
            && self.begin.is_past(request)
        {
            self.phase = Phase::During { began_s: request.time_s };
        }
        if let Phase::During { began_s } = self.phase
            && self.end.is_past(request)
        {
            self.phase = Phase::After { began_s, ended_s: request.time_s };
        }
    }

    /// Plays what of the flood comes before `request`.
    fn flood(&mut self, request: &Request) {
        self.owed += self.rate;
        while self.owed >= 1.0 {
            self.owed -= 1.0;
            self.flooded.request(&flood_request(self.injected, request));
            self.injected += 1;
        }
    }
}

/// Number `turn` of a flood, beside `request`.
fn flood_request(turn: u64, request: &Request) -> Request {
    Request { key: KeyHash(mixed(KeyHash(turn ^ SALT))), op: Op::Get, fills: true, ..*request }
}

impl Player for ScanModel {
    fn request(&mut self, request: &Request) {
        self.advance(request);
        if let Phase::During { .. } = self.phase {
            self.flood(request);
        }
        let hits = (self.calm.ask(request), self.flooded.ask(request));
        let (Some(calm), Some(flooded)) = hits else {
            return;
        };
        match self.phase {
            Phase::Before => {}
            Phase::During { .. } => self.during.count(request.time_s, calm, flooded),
            Phase::After { .. } => self.after.count(request.time_s, calm, flooded),
        }
    }
}

impl Model for ScanModel {
    fn tell(&self, summary: &mut Table, course: &mut Table) {
        let named =
            || [Cell::name(self.blueprint.policy), Cell::Count(self.blueprint.size)].into_iter();
        let (began_s, ended_s) = match self.phase {
            Phase::Before => {
                let none = std::iter::repeat_n(Cell::None, COLUMNS.len() - 2);
                summary.push(named().chain(none).collect());
                return;
            }
            Phase::During { began_s } => (began_s, None),
            Phase::After { began_s, ended_s } => (began_s, Some(ended_s)),
        };
        let (during, after) = (self.during.whole(), self.after.whole());
        let lasted_s = ended_s.map(|ended_s| ended_s.saturating_sub(began_s).into());
        let recovery = self.after.recovery().zip(ended_s);
        let recovered_s = recovery.map(|(it, ended_s)| it.at_s.saturating_sub(ended_s).into());
        let figures = [
            Cell::count(lasted_s),
            Cell::Count(self.injected),
            Cell::Count(during.reads),
            Cell::share(during.hits_before, during.reads),
            Cell::share(during.hits_after, during.reads),
            Cell::Difference(during.extra_misses()),
            Cell::Difference(after.extra_misses()),
            Cell::count(recovered_s),
        ];
        summary.push(named().chain(figures).collect());
        for window in self.during.windows().iter().chain(self.after.windows()) {
            course.push(named().chain(window.figures(began_s)).collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::what_if::textbook::{self, Textbook};

    proptest! {
        #[test]
        fn a_flood_is_more_requests_to_a_textbook_cache(
            log in textbook::log(400),
            size in 1u64..60,
            rate in 0.0f64..3.0,
            at_s in 1u32..150,
            lasts_s in 1u32..150,
        ) {
            let (at, lasts) = (Moment::Seconds(at_s), Moment::Seconds(lasts_s));
            let question = Scan { rate, at, lasts, over_time: false };
            let mut model = question.model(textbook::lru(size), &Census::default());
            log.iter().for_each(|request| model.request(request));

            let begin = log.iter().take_while(|it| it.time_s < log[0].time_s + at_s).count();
            let Some(first) = log.get(begin) else { return Ok(()) };
            let end = begin
                + log[begin..].iter().take_while(|it| it.time_s < first.time_s + lasts_s).count();
            let (mut calm, mut flooded) = (Textbook::new(size), Textbook::new(size));
            let mut injected = 0;
            let (mut owed, mut hits) = (0.0, [[0_u64; 2]; 3]);
            for (turn, request) in log.iter().enumerate() {
                let phase = usize::from(turn >= begin) + usize::from(turn >= end);
                if phase == 1 {
                    owed += rate;
                    while owed >= 1.0 {
                        owed -= 1.0;
                        prop_assert_eq!(flooded.ask(&flood_request(injected, request)), Some(false));
                        injected += 1;
                    }
                }
                hits[phase][0] += u64::from(calm.ask(request) == Some(true));
                hits[phase][1] += u64::from(flooded.ask(request) == Some(true));
            }
            let reads = log[begin..end].iter().filter(|it| it.op.is_read()).count() as u64;
            let extra = |hits: [u64; 2]| Cell::Difference(hits[0].cast_signed() - hits[1].cast_signed());
            let row = textbook::told(&model, COLUMNS, COURSE_COLUMNS)[0].remove(0);
            prop_assert_eq!(&row[3..5], [Cell::Count(injected), Cell::Count(reads)]);
            prop_assert_eq!(&row[5], &Cell::share(hits[1][0], reads));
            prop_assert_eq!(&row[6], &Cell::share(hits[1][1], reads));
            prop_assert_eq!(&row[7..9], [extra(hits[1]), extra(hits[2])]);
        }
    }
}
