//! A restart at a moment of the log: with all that the cache held, or with nothing.

use super::course::Course;
use super::moment::{Moment, Watch};
use super::{Cell, Census, Model, Table};
use crate::blueprint::Blueprint;
use crate::replay::{Player, Replay, Request, Tally};

pub(super) const ASSUMPTIONS: &[&str] = &[
    "While the server is down (--down) all reads are misses, and what is written is in neither cache \
     afterwards: a warm one goes on with the values it had.",
    "Warm is all that the server held when it stopped, in the order of its policy, less what expired.",
    "Recovered is the cold cache when it misses no more than 1% of the reads more than the warm one, in all \
     windows from there to the end of the log; none if that does not come.",
];

pub(super) const COLUMNS: &[&str] = &[
    "policy",
    "cache_size",
    "restart_s",
    "hit_ratio_before",
    "reads_while_down",
    "reads_after",
    "hit_ratio_warm",
    "hit_ratio_cold",
    "extra_misses",
    "recovered_after_s",
    "recovered_after_reads",
    "extra_misses_until_recovered",
];

pub(super) const COURSE_COLUMNS: &[&str] = &[
    "policy",
    "cache_size",
    "after_s",
    "reads",
    "hit_ratio_warm",
    "hit_ratio_cold",
    "extra_misses",
];

/// A restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// When.
    pub at: Moment,
    /// For how long the server is down, in seconds.
    pub down_s: u32,
    /// Whether the course is shown instead of the summary.
    pub over_time: bool,
}

impl Restart {
    pub(super) fn model(&self, blueprint: Blueprint, census: &Census) -> RestartModel {
        RestartModel {
            blueprint,
            down_s: self.down_s,
            watch: self.at.watch(census),
            begins_s: 0,
            warm: blueprint.build(),
            restarted: None,
            reads_while_down: 0,
            course: Course::new(),
            requests: 0,
        }
    }
}

/// A cache, and from the restart on an empty one beside it.
pub(super) struct RestartModel {
    blueprint: Blueprint,
    down_s: u32,
    watch: Watch,
    begins_s: u32,
    warm: Replay,
    restarted: Option<Restarted>,
    reads_while_down: u64,
    course: Course,
    requests: u64,
}

struct Restarted {
    at_s: u32,
    before: Tally,
    cold: Replay,
}

impl Player for RestartModel {
    fn request(&mut self, request: &Request) {
        if self.requests == 0 {
            self.begins_s = request.time_s;
        }
        self.requests += 1;
        if self.restarted.is_none() && self.watch.is_past(request) {
            let (at_s, before) = (request.time_s, self.warm.tally());
            self.restarted = Some(Restarted { at_s, before, cold: self.blueprint.build() });
        }
        let Some(Restarted { at_s, cold, .. }) = &mut self.restarted else {
            self.warm.request(request);
            return;
        };
        if request.time_s < at_s.saturating_add(self.down_s) {
            self.reads_while_down += u64::from(request.op.is_read());
            return;
        }
        let hits = (self.warm.ask(request), cold.ask(request));
        if let (Some(warm), Some(cold)) = hits {
            self.course.count(request.time_s, warm, cold);
        }
    }
}

impl Model for RestartModel {
    fn tell(&self, summary: &mut Table, course: &mut Table) {
        let named =
            || [Cell::name(self.blueprint.policy), Cell::Count(self.blueprint.size)].into_iter();
        let Some(Restarted { at_s, before, .. }) = self.restarted else {
            let none = std::iter::repeat_n(Cell::None, COLUMNS.len() - 2);
            summary.push(named().chain(none).collect());
            return;
        };
        let (whole, recovery) = (self.course.whole(), self.course.recovery());
        let figures = [
            Cell::Count(at_s.saturating_sub(self.begins_s).into()),
            Cell::share(before.hits, before.requests),
            Cell::Count(self.reads_while_down),
            Cell::Count(whole.reads),
            Cell::share(whole.hits_before, whole.reads),
            Cell::share(whole.hits_after, whole.reads),
            Cell::Difference(whole.extra_misses()),
            Cell::count(recovery.map(|recovery| recovery.at_s.saturating_sub(at_s).into())),
            Cell::count(recovery.map(|recovery| recovery.reads)),
            recovery.map_or(Cell::None, |recovery| Cell::Difference(recovery.extra_misses)),
        ];
        summary.push(named().chain(figures).collect());
        for window in self.course.windows() {
            course.push(named().chain(window.figures(at_s)).collect());
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
        fn a_restart_is_a_textbook_cache_and_an_empty_one(
            log in textbook::log(400),
            size in 1u64..60,
            at_s in 1u32..200,
            down_s in 0u32..20,
        ) {
            let question = Restart { at: Moment::Seconds(at_s), down_s, over_time: false };
            let mut model = question.model(textbook::lru(size), &Census::default());
            log.iter().for_each(|request| model.request(request));

            let is_before = |request: &&Request| request.time_s < log[0].time_s + at_s;
            let (before, after) = log.split_at(log.iter().take_while(is_before).count());
            let up_s = after.first().map_or(0, |first| first.time_s + down_s);
            let (down, up) = after.split_at(after.iter().take_while(|it| it.time_s < up_s).count());
            let (mut warm, mut cold) = (Textbook::new(size), Textbook::new(size));
            let hits_of = |cache: &mut Textbook, requests: &[Request]| {
                requests.iter().filter(|request| cache.ask(request) == Some(true)).count() as u64
            };
            let hits = [
                hits_of(&mut warm, before),
                hits_of(&mut warm, up),
                hits_of(&mut cold, up),
            ];
            let reads = |of: &[Request]| of.iter().filter(|it| it.op.is_read()).count() as u64;
            let row = textbook::told(&model, COLUMNS, COURSE_COLUMNS)[0].remove(0);
            if after.is_empty() {
                prop_assert!(row[2..].iter().all(|cell| *cell == Cell::None));
            } else {
                prop_assert_eq!(&row[3], &Cell::share(hits[0], reads(before)));
                prop_assert_eq!(&row[4], &Cell::Count(reads(down)));
                prop_assert_eq!(&row[6], &Cell::share(hits[1], reads(up)));
                prop_assert_eq!(&row[7], &Cell::share(hits[2], reads(up)));
            }
        }
    }

    #[test]
    fn a_cold_cache_recovers_when_it_has_seen_what_there_is() {
        let question = Restart { at: Moment::Seconds(1000), down_s: 0, over_time: true };
        let mut model = question.model(textbook::lru(500), &Census::default());
        for n in 0..20_000_u32 {
            model.request(&crate::trace::Access::get(n / 10, u64::from(n % 500), 1).into());
        }
        let [summary, course] = textbook::told(&model, COLUMNS, COURSE_COLUMNS);
        let row = &summary[0];
        assert_eq!(
            row[5..9],
            [Cell::Count(10_000), Cell::Ratio(1.0), Cell::Ratio(0.95), Cell::Difference(500)]
        );
        assert_eq!(row[11], Cell::Difference(500));
        assert_eq!(course[0][4..6], [Cell::Ratio(1.0), Cell::Ratio(0.0)]);
    }
}
