//! What the models are tested against: an LRU cache that is too simple to be wrong, and logs to ask it.

use std::collections::BTreeMap;

use eviction::Kind;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Cell, Model, Table};
use crate::blueprint::{Blueprint, Counting};
use crate::replay::{Expiry, Request, Unit};
use crate::trace::{Access, Op};

/// LRU counted in objects, expired ones leaving at once: by key when it was used and until when it lives.
#[derive(Clone, Debug)]
pub(super) struct Textbook {
    capacity: usize,
    clock: u64,
    items: BTreeMap<u64, (u64, u64)>,
}

impl Textbook {
    pub(super) fn new(capacity: u64) -> Self {
        let capacity = usize::try_from(capacity).unwrap();
        Self { capacity, clock: 0, items: BTreeMap::new() }
    }

    /// Plays a request; whether a read was a hit.
    pub(super) fn ask(&mut self, request: &Request) -> Option<bool> {
        let (key, now_s) = (request.key.0, u64::from(request.time_s));
        self.items.retain(|_, &mut (_, until_s)| until_s > now_s);
        let until_s = match request.ttl_s {
            0 => u64::MAX,
            ttl_s => now_s + u64::from(ttl_s),
        };
        self.clock += 1;
        let (clock, found) = (self.clock, self.items.get_mut(&key));
        match (request.op, found) {
            (Op::Get, Some((used, _))) => {
                *used = clock;
                Some(true)
            }
            (Op::Get, None) => {
                self.put(key, until_s);
                Some(false)
            }
            (Op::Delete, _) => {
                self.items.remove(&key);
                None
            }
            (_, found) => {
                assert_eq!(request.op, Op::Set, "the logs below hold nothing else");
                match found {
                    Some(item) => *item = (clock, until_s),
                    None => self.put(key, until_s),
                }
                None
            }
        }
    }

    fn put(&mut self, key: u64, until_s: u64) {
        if self.items.len() == self.capacity {
            let oldest = self.items.iter().min_by_key(|(_, (used, _))| *used);
            let oldest = *oldest.unwrap().0;
            self.items.remove(&oldest);
        }
        self.items.insert(key, (self.clock, until_s));
    }

    /// Objects held at a time, after what is due has left.
    pub(super) fn len(&self) -> u64 {
        self.items.len() as u64
    }
}

/// Gets, sets and deletes of few keys, in the order of time.
pub(super) fn log(requests: usize) -> impl Strategy<Value = Vec<Request>> {
    let op = prop_oneof![8 => Just(Op::Get), 2 => Just(Op::Set), 1 => Just(Op::Delete)];
    let step = (op, 0u64..80, 0u32..3, 1u32..60, prop_oneof![Just(0u32), 1u32..200]);
    vec(step, 1..requests).prop_map(|steps| {
        let mut time_s = 1000;
        steps
            .into_iter()
            .map(|(op, id, later_s, size_bytes, ttl_s)| {
                time_s += later_s;
                Access { id, time_s, size_bytes, ttl_s, key_bytes: 0, op }.into()
            })
            .collect()
    })
}

/// An LRU cache for `size` objects.
pub(super) fn lru(size: u64) -> Blueprint {
    let counting = Counting::Plain(Unit::Objects.into());
    Blueprint { policy: Kind::Lru, size, counting, expiry: Expiry::Eager }
}

/// What a model says at the end, and of its course in `course_columns` if it has one.
pub(super) fn told(
    model: &impl Model,
    columns: &'static [&'static str],
    course_columns: &'static [&'static str],
) -> [Vec<Vec<Cell>>; 2] {
    let (mut summary, mut course) = (Table::new(columns), Table::new(course_columns));
    model.tell(&mut summary, &mut course);
    [summary.rows, course.rows]
}

/// What a model without a course says at the end.
pub(super) fn summary(model: &impl Model, columns: &'static [&'static str]) -> Vec<Vec<Cell>> {
    let [summary, _course] = told(model, columns, &[]);
    summary
}
