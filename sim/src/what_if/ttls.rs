//! Other TTLs: none, one for all, the log's longer or shorter: what hits and memory come to.

use super::{Cell, Model, Table};
use crate::blueprint::{Blueprint, Counting};
use crate::replay::{Expiry, Player, Replay, Request, Weighing};
use crate::ttl::TtlRule;

pub(super) const ASSUMPTIONS: &[&str] = &[
    "A TTL is that of a write, or of what is filled in after a miss; touches and gats are given theirs by \
     the same rule.",
    "held_max and held_mean are what the cache holds, in the unit of its size (a server's footprints), looked \
     at after every 64th request: what of the room is in use.",
    "unlimited is a cache without bounds: its held_max is the room that all unexpired items take, its hit \
     ratio the best there is with these TTLs. It is counted bare, in front of servers too.",
];

pub(super) const COLUMNS: &[&str] =
    &["policy", "cache_size", "ttl", "hit_ratio", "held_max", "held_mean"];

/// Other TTLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ttls {
    /// The rules that are tried.
    pub rules: Vec<TtlRule>,
}

/// Requests between two looks at what is held.
const LOOK_REQUESTS: u64 = 64;

impl Ttls {
    pub(super) fn model(&self, blueprint: Blueprint) -> TtlsModel {
        let ruled = |&rule: &TtlRule| Ruled {
            rule,
            cache: blueprint.build(),
            held_max: 0,
            held_sum: 0,
            looks: 0,
        };
        let size = Some(blueprint.size).filter(|&size| size < u64::MAX);
        let policy = blueprint.policy;
        let ruled = self.rules.iter().map(ruled).collect();
        TtlsModel { name: policy.name(), size, ruled, requests: 0 }
    }

    /// The same in a cache that nothing is evicted from, so that its policy makes no difference.
    pub(super) fn unlimited(&self, weighing: Weighing, expiry: Expiry) -> TtlsModel {
        let (policy, counting) = (eviction::Kind::Fifo, Counting::Plain(weighing));
        let blueprint = Blueprint { policy, size: u64::MAX, counting, expiry };
        TtlsModel { name: "unlimited", ..self.model(blueprint) }
    }
}

/// One cache under each rule.
pub(super) struct TtlsModel {
    name: &'static str,
    /// None is without bounds.
    size: Option<u64>,
    ruled: Vec<Ruled>,
    requests: u64,
}

struct Ruled {
    rule: TtlRule,
    cache: Replay,
    held_max: u64,
    held_sum: u128,
    looks: u64,
}

impl Ruled {
    fn look(&mut self) {
        let held = self.cache.weight();
        self.held_max = self.held_max.max(held);
        self.held_sum += u128::from(held);
        self.looks += 1;
    }

    fn held_mean(&self) -> Cell {
        let mean = self.held_sum.checked_div(self.looks.into());
        Cell::count(mean.and_then(|mean| u64::try_from(mean).ok()))
    }
}

impl Player for TtlsModel {
    fn request(&mut self, request: &Request) {
        let looks = self.requests.is_multiple_of(LOOK_REQUESTS);
        self.requests += 1;
        for ruled in &mut self.ruled {
            let ttl_s = ruled.rule.apply(request.ttl_s);
            ruled.cache.request(&Request { ttl_s, ..*request });
            if looks {
                ruled.look();
            }
        }
    }
}

impl Model for TtlsModel {
    fn tell(&self, summary: &mut Table, _course: &mut Table) {
        for ruled in &self.ruled {
            let tally = ruled.cache.tally();
            summary.push(vec![
                Cell::name(self.name),
                Cell::count(self.size),
                Cell::name(ruled.rule),
                Cell::share(tally.hits, tally.requests),
                Cell::Count(ruled.held_max),
                ruled.held_mean(),
            ]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::replay::Unit;
    use crate::what_if::textbook::{self, Textbook};

    proptest! {
        #[test]
        fn other_ttls_are_textbook_caches_with_them(log in textbook::log(400), size in 1u64..60) {
            let rules = ["log", "none", "30", "x0.5"].map(|rule| rule.parse::<TtlRule>().unwrap());
            let question = Ttls { rules: rules.to_vec() };
            let unlimited = question.unlimited(Unit::Objects.into(), Expiry::Eager);
            for (mut model, size) in [(question.model(textbook::lru(size)), size), (unlimited, 999)] {
                log.iter().for_each(|request| model.request(request));
                let rows = textbook::summary(&model, COLUMNS);
                for (at, row) in rows.iter().enumerate() {
                    let mut cache = Textbook::new(size);
                    let (mut hits, mut held) = (0, Vec::new());
                    for (turn, request) in log.iter().enumerate() {
                        let ttl_s = match (at, request.ttl_s) {
                            (0, ttl_s) => ttl_s,
                            (1, _) => 0,
                            (2, _) => 30,
                            (_, 0) => 0,
                            (_, ttl_s) => (ttl_s / 2).max(1),
                        };
                        let hit = cache.ask(&Request { ttl_s, ..*request });
                        hits += u64::from(hit == Some(true));
                        if turn % 64 == 0 {
                            held.push(cache.len());
                        }
                    }
                    let reads = log.iter().filter(|request| request.op.is_read()).count() as u64;
                    let mean = held.iter().sum::<u64>() / held.len() as u64;
                    let max = held.iter().copied().max().unwrap();
                    let want = [Cell::share(hits, reads), Cell::Count(max), Cell::Count(mean)];
                    prop_assert_eq!(&row[3..], want);
                }
            }
        }
    }
}
