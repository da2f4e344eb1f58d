//! Twice the objects, or twice the requests: what a cache of today's size makes of them, and one that grows.

use eviction::KeyHash;

use super::{Cell, Model, Table};
use crate::blueprint::Blueprint;
use crate::replay::{Player, Replay, Request};
use crate::sampling::mixed;

pub(super) const ASSUMPTIONS: &[&str] = &[
    "objects x F: there are F populations of objects, as large and as popular as the log's, and all are asked \
     for as it asks for its own, at the same times: F users, shops or tenants for each one of today. LRU \
     counted in objects then does in F times the room exactly what it does today.",
    "requests x F: the same objects, asked for F times as often in the same order. In requests nothing \
     changes but that items live F times as many of them; without TTLs the hit ratio stays as it is, and \
     misses grow with the requests.",
    "cache_size is today's; room x F is that of a cache that grows with the log.",
];

pub(super) const COLUMNS: &[&str] = &[
    "policy",
    "cache_size",
    "growth",
    "factor",
    "room_factor",
    "hit_ratio_today",
    "hit_ratio",
    "misses_factor",
];

/// More objects, or more requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// How many times as many; each number is tried.
    pub factors: Vec<u32>,
}

impl Growth {
    pub(super) fn model(&self, blueprint: Blueprint) -> GrowthModel {
        let grown = |&factor: &u32| {
            let room = blueprint.size.saturating_mul(factor.into());
            Grown {
                factor,
                objects: blueprint.build(),
                objects_and_room: blueprint.of_size(room).build(),
                requests: blueprint.build(),
            }
        };
        let grown = self.factors.iter().map(grown).collect();
        GrowthModel { blueprint, today: blueprint.build(), grown }
    }
}

/// A cache today, and with each factor.
pub(super) struct GrowthModel {
    blueprint: Blueprint,
    today: Replay,
    grown: Vec<Grown>,
}

struct Grown {
    factor: u32,
    objects: Replay,
    objects_and_room: Replay,
    requests: Replay,
}

/// The object of population `number` that is what `key` is in the first.
fn namesake(key: KeyHash, number: u32) -> KeyHash {
    match number {
        0 => key,
        _ => KeyHash(mixed(KeyHash(key.0 ^ mixed(KeyHash(number.into()))))),
    }
}

impl Player for GrowthModel {
    fn request(&mut self, request: &Request) {
        self.today.request(request);
        for Grown { factor, objects, objects_and_room, requests } in &mut self.grown {
            for number in 0..*factor {
                let request = Request { key: namesake(request.key, number), ..*request };
                objects.request(&request);
                objects_and_room.request(&request);
            }
            let ttl_s = request.ttl_s.saturating_mul(*factor);
            requests.request(&Request { ttl_s, ..*request });
        }
    }
}

impl Model for GrowthModel {
    fn tell(&self, summary: &mut Table, _course: &mut Table) {
        let today = self.today.tally();
        for Grown { factor, objects, objects_and_room, requests } in &self.grown {
            for (growth, room_factor, replay) in [
                ("objects", 1, objects),
                ("objects", *factor, objects_and_room),
                ("requests", 1, requests),
            ] {
                let tally = replay.tally();
                // Of requests as many more were made, and as large a share of them missed.
                let times = if growth == "requests" { (*factor).into() } else { 1 };
                let misses = (tally.requests - tally.hits) * times;
                summary.push(vec![
                    Cell::name(self.blueprint.policy),
                    Cell::Count(self.blueprint.size),
                    Cell::name(growth),
                    Cell::Count((*factor).into()),
                    Cell::Count(room_factor.into()),
                    Cell::share(today.hits, today.requests),
                    Cell::share(tally.hits, tally.requests),
                    Cell::share(misses, today.requests - today.hits),
                ]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::what_if::textbook::{self, Textbook};

    fn ratio(log: &[Request], size: u64) -> Cell {
        let mut cache = Textbook::new(size);
        let hits = log.iter().filter(|request| cache.ask(request) == Some(true)).count() as u64;
        Cell::share(hits, log.iter().filter(|request| request.op.is_read()).count() as u64)
    }

    proptest! {
        #[test]
        fn growth_is_a_longer_log_for_a_textbook_cache(
            log in textbook::log(200),
            size in 1u64..60,
            factor in 1u32..4,
        ) {
            let mut model = Growth { factors: vec![factor] }.model(textbook::lru(size));
            log.iter().for_each(|request| model.request(request));

            let mut objects = Vec::new();
            for request in &log {
                for number in 0..factor {
                    objects.push(Request { key: namesake(request.key, number), ..*request });
                }
            }
            let slower = |request: &Request| Request { ttl_s: request.ttl_s * factor, ..*request };
            let requests: Vec<Request> = log.iter().map(slower).collect();
            let rows = textbook::summary(&model, COLUMNS);
            let times = u64::from(factor);
            prop_assert_eq!(&rows[0][6], &ratio(&objects, size));
            prop_assert_eq!(&rows[1][6], &ratio(&objects, size * times));
            prop_assert_eq!(&rows[2][6], &ratio(&requests, size));
        }

        #[test]
        fn lru_that_grows_with_the_objects_hits_as_often(log in textbook::log(200), size in 1u64..60) {
            // Without deletes and expiry the stack of F populations is F times as deep.
            let gets = |it: &Request| Request { ttl_s: 0, op: crate::trace::Op::Get, ..*it };
            let log: Vec<Request> = log.iter().map(gets).collect();
            let mut model = Growth { factors: vec![3] }.model(textbook::lru(size));
            log.iter().for_each(|request| model.request(request));
            let rows = textbook::summary(&model, COLUMNS);
            prop_assert_eq!(&rows[1][5], &rows[1][6]);
        }
    }
}
