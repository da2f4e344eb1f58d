//! ARC, the adaptive replacement cache (written `arc::Arc`, never imported bare).
//!
//! N. Megiddo, D. S. Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003.
//!
//! ```text
//!            L1: read once                            L2: read at least twice
//!  ghosts B1          resident T1        |        resident T2          ghosts B2
//!  oldest ─────────────── newest                 newest ─────────────── oldest
//! ```
//!
//! | paper | here |
//! |---|---|
//! | T1, T2 | `recent`, `frequent`: resident entries |
//! | B1, B2 | `RECENT`, `FREQUENT` of `ghosts`: keys that left T1, T2 |
//! | p | `recent_target`: the weight T1 should have; a real number |
//! | c | `capacity` |
//!
//! A hit on a ghost says which of the two lists was cut too short, and moves p that way.
//!
//! **Sizes.** The paper's pages are equal. Here |X| is the weight of X, and where the paper makes room
//! for one page, room is made for the newcomer's weight. With equal weights all this is the paper's
//! algorithm; with unequal ones two things had to be chosen, and were chosen by measurement:
//!
//! - A ghost hit moves p by the paper's ratio times the least of three weights: the newcomer's, and
//!   those of the next victims of T1 and T2. More than that one step cannot shift from one list to
//!   the other; the newcomer's weight alone lets one large object throw p across the whole range.
//! - B1 is cut only when L1 is longer than allowed by weight *and* by number. By weight alone, a few
//!   large objects that pass through T1 wipe out the memory of hundreds of small ones.

use std::ptr;

use crate::column::Column;
use crate::ghost::GhostLists;
use crate::list::{Links, List};
use crate::snapshot::{Reader, Writer, check};
use crate::{Admission, EntryId, KeyHash, Kind, Link, Policy, SnapshotError};

/// B1 among the ghosts.
const RECENT: usize = 0;
/// B2 among the ghosts.
const FREQUENT: usize = 1;

/// Adaptive replacement cache.
#[derive(Debug)]
pub struct Arc {
    capacity: u64,
    recent_target: f64,
    recent: Side,
    frequent: Side,
    ghosts: GhostLists<2>,
    incoming: Option<Incoming>,
    /// The most entries ever resident: also the most ghosts there may be.
    len_max: usize,
    links: Links,
    keys: Column<KeyHash>,
    weights: Column<u32>,
    /// Whether an entry stands in `frequent`.
    is_frequent: Column<bool>,
}

/// T1 or T2: entries from most to least recently used, how many, and what they weigh together.
#[derive(Clone, Copy, Debug)]
struct Side {
    recency: List,
    len: usize,
    weight: u64,
}

/// What room is being made for.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    key: KeyHash,
    weight: u32,
    /// The ghost list it was found in.
    ghost: Option<usize>,
}

impl Incoming {
    fn save(&self, to: &mut Writer<'_>) {
        to.key(self.key);
        to.u32(self.weight);
        to.bool(self.ghost.is_some());
        to.bool(self.ghost == Some(FREQUENT));
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let (key, weight) = (from.key()?, from.u32()?);
        let (is_ghost, is_frequent) = (from.bool()?, from.bool()?);
        let list = if is_frequent { FREQUENT } else { RECENT };
        Ok(Self { key, weight, ghost: is_ghost.then_some(list) })
    }
}

impl Arc {
    /// An empty cache of `capacity` weight units, with columns reserved for `entries_max` entries.
    pub fn new(capacity: u64, entries_max: usize) -> Self {
        let empty = Side { recency: List::EMPTY, len: 0, weight: 0 };
        Self {
            capacity,
            recent_target: 0.0,
            recent: empty,
            frequent: empty,
            ghosts: GhostLists::new(),
            incoming: None,
            len_max: 0,
            links: Links::with_capacity(entries_max),
            keys: Column::with_capacity(entries_max),
            weights: Column::with_capacity(entries_max),
            is_frequent: Column::with_capacity(entries_max),
        }
    }

    fn side(&mut self, frequent: bool) -> &mut Side {
        if frequent { &mut self.frequent } else { &mut self.recent }
    }

    fn push(&mut self, entry: EntryId, frequent: bool) {
        self.is_frequent.set(entry, frequent);
        let weight = u64::from(self.weights[entry]);
        let side = if frequent { &mut self.frequent } else { &mut self.recent };
        side.recency.push_newest(&mut self.links, entry);
        side.len += 1;
        side.weight += weight;
    }

    fn take(&mut self, entry: EntryId) {
        let weight = u64::from(self.weights[entry]);
        let side = if self.is_frequent[entry] { &mut self.frequent } else { &mut self.recent };
        side.recency.remove(&mut self.links, entry);
        side.len -= 1;
        side.weight -= weight;
    }

    fn len(&self) -> usize {
        self.recent.len + self.frequent.len
    }

    /// How far a ghost hit moves p at the paper's ratio of 1.
    fn step(&self, weight: u32) -> f64 {
        let victims = [self.recent.recency.oldest(), self.frequent.recency.oldest()];
        let weights = victims.into_iter().flatten().map(|victim| self.weights[victim]);
        f64::from(weights.fold(weight, u32::min))
    }

    /// Case IV, the part before REPLACE: forgets ghosts until the newcomer leaves |L1| ≤ c and
    /// |L1| + |L2| ≤ 2c.
    fn trim_ghosts(&mut self, weight: u64) {
        while self.recent.weight + self.ghosts.weight(RECENT) + weight > self.capacity
            && self.recent.len + self.ghosts.len_of(RECENT) >= self.len()
        {
            if self.ghosts.pop_oldest(RECENT).is_none() {
                break;
            }
        }
        let resident = self.recent.weight + self.frequent.weight + weight;
        while resident + self.ghosts.weight(RECENT) + self.ghosts.weight(FREQUENT)
            > 2 * self.capacity
        {
            if self.ghosts.pop_oldest(FREQUENT).is_none() {
                break;
            }
        }
    }

    fn remember(&mut self, list: usize, entry: EntryId) {
        self.ghosts.push(list, self.keys[entry], self.weights[entry]);
        // Bytes alone would allow millions of tiny ghosts after one large entry left.
        while self.ghosts.len() > self.len_max {
            // By weight; but what weighs nothing must go some time, too.
            let longer = if self.ghosts.weight(RECENT) > self.ghosts.weight(FREQUENT)
                || self.ghosts.len_of(FREQUENT) == 0
            {
                RECENT
            } else {
                FREQUENT
            };
            self.ghosts.pop_oldest(longer);
        }
    }
}

impl Policy for Arc {
    fn before_insert(&mut self, key: KeyHash, weight: u32) -> Admission {
        let capacity = self.capacity as f64;
        let recent_ghosts = self.ghosts.weight(RECENT) as f64;
        let frequent_ghosts = self.ghosts.weight(FREQUENT) as f64;
        let ghost = self.ghosts.take(key).map(|ghost| ghost.list);
        match ghost {
            Some(RECENT) => {
                // Case II: read once, evicted, wanted again. Recency earns room.
                let step = self.step(weight) * (frequent_ghosts / recent_ghosts).max(1.0);
                self.recent_target = (self.recent_target + step).min(capacity);
            }
            Some(_) => {
                // Case III: read twice, evicted, wanted again. Frequency earns room.
                let step = self.step(weight) * (recent_ghosts / frequent_ghosts).max(1.0);
                self.recent_target = (self.recent_target - step).max(0.0);
            }
            None => self.trim_ghosts(u64::from(weight)),
        }
        self.incoming = Some(Incoming { key, weight, ghost });
        Admission::Insert
    }

    fn on_insert(&mut self, entry: EntryId, key: KeyHash, weight: u32) {
        if self.incoming.is_none_or(|incoming| incoming.key != key) {
            self.before_insert(key, weight);
        }
        let frequent = self.incoming.take().is_some_and(|incoming| incoming.ghost.is_some());
        self.keys.set(entry, key);
        self.weights.set(entry, weight);
        self.push(entry, frequent);
        self.len_max = self.len_max.max(self.len());
    }

    fn on_hit(&mut self, entry: EntryId) {
        // Case I: read at least twice now.
        if self.is_frequent[entry] {
            self.frequent.recency.renew(&mut self.links, entry);
        } else {
            self.take(entry);
            self.push(entry, true);
        }
    }

    fn hit_addresses(&self, entry: EntryId) -> [*const u8; 2] {
        [self.links.address(entry), self.is_frequent.address(entry)]
    }

    fn insert_address(&self, key: KeyHash) -> *const u8 {
        self.ghosts.address(key)
    }

    fn next_victim(&self) -> Option<EntryId> {
        let from_recent =
            self.recent.weight as f64 > self.recent_target || self.frequent.recency.is_empty();
        let side = if from_recent { &self.recent } else { &self.frequent };
        side.recency.oldest()
    }

    fn eviction_addresses(&self, victim: EntryId, link: Link) -> [*const u8; 4] {
        // Of L1 and L2 the one that is as long as it may be forgets a ghost.
        let is_recent_full = self.recent.weight + self.ghosts.weight(RECENT) >= self.capacity;
        let forgetful = if is_recent_full { RECENT } else { FREQUENT };
        match link {
            Link::First => {
                let [ghost_key, ghost_weight] = self.ghosts.oldest_addresses(forgetful);
                let (key, weight) = (self.keys.address(victim), self.weights.address(victim));
                [key, weight, ghost_key, ghost_weight]
            }
            Link::Second => {
                let remembered = self.ghosts.address(self.keys[victim]);
                [remembered, self.ghosts.oldest_cell_address(forgetful), ptr::null(), ptr::null()]
            }
        }
    }

    fn on_update(&mut self, entry: EntryId, weight: u32) {
        self.take(entry);
        self.weights[entry] = weight;
        self.push(entry, true);
    }

    fn on_remove(&mut self, entry: EntryId) {
        self.take(entry);
    }

    fn evict(&mut self) -> Option<EntryId> {
        let recent_weight = self.recent.weight as f64;
        // Case IV A, when L1 is nothing but T1 and leaves no room: its oldest goes without a ghost.
        let overfull = self.incoming.is_some_and(|incoming| {
            incoming.ghost.is_none()
                && self.recent.weight + u64::from(incoming.weight) > self.capacity
        });
        let came_from_frequent =
            self.incoming.is_some_and(|incoming| incoming.ghost == Some(FREQUENT));
        // REPLACE.
        let recent_too_long = overfull
            || recent_weight > self.recent_target
            || (came_from_frequent && recent_weight >= self.recent_target);
        let from_recent =
            recent_too_long && !self.recent.recency.is_empty() || self.frequent.recency.is_empty();
        let entry = self.side(!from_recent).recency.oldest()?;
        self.take(entry);
        if !(from_recent && overfull) {
            self.remember(if from_recent { RECENT } else { FREQUENT }, entry);
        }
        Some(entry)
    }

    fn save(&self, to: &mut Vec<u8>) {
        let mut to = Writer::new(to, Kind::Arc);
        to.u64(self.capacity);
        to.f64(self.recent_target);
        to.count(self.len_max);
        to.option(self.incoming.as_ref(), Incoming::save);
        self.ghosts.save(&mut to);
        self.recent.recency.save(&mut to);
        self.frequent.recency.save(&mut to);
        self.links.save(&mut to);
        self.keys.save(&mut to);
        self.weights.save(&mut to);
        self.is_frequent.save(&mut to);
    }

    fn load(&mut self, from: &[u8]) -> Result<(), SnapshotError> {
        let mut from = Reader::new(from, Kind::Arc)?;
        from.capacity(self.capacity)?;
        self.recent_target = from.f64()?;
        self.len_max = from.count()?;
        self.incoming = from.option(Incoming::load)?;
        self.ghosts.load(&mut from)?;
        let [recent, frequent] = [List::load(&mut from)?, List::load(&mut from)?];
        let rows = self.links.load(&mut from)?;
        self.keys.load(rows, &mut from)?;
        self.weights.load(rows, &mut from)?;
        self.is_frequent.load(rows, &mut from)?;
        from.finish()?;

        self.links.check([recent, frequent], |entry| self.is_frequent[entry].into())?;
        let mut sides = [recent, frequent].map(|recency| Side { recency, len: 0, weight: 0 });
        for entry in self.links.entries() {
            let side = &mut sides[usize::from(self.is_frequent[entry])];
            side.len += 1;
            side.weight += u64::from(self.weights[entry]);
        }
        [self.recent, self.frequent] = sides;
        check((0.0..=self.capacity as f64).contains(&self.recent_target), "target of ARC")?;
        check((self.len()..=rows).contains(&self.len_max), "greatest number of entries")?;
        check(self.ghosts.len() <= self.len_max, "number of ghosts")
    }

    fn holds_exactly(&self, residents: &mut dyn Iterator<Item = EntryId>) -> bool {
        self.links.hold_exactly(residents)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contract::{assert_same_victims, never_restarted, ops};

    /// The four lists of the paper, oldest first, and its pseudo-code.
    struct Model {
        c: u64,
        p: f64,
        t1: Vec<Resident>,
        t2: Vec<Resident>,
        b1: Vec<(KeyHash, u32)>,
        b2: Vec<(KeyHash, u32)>,
        most: usize,
        incoming: Option<(KeyHash, u32, From)>,
    }

    #[derive(Clone, Copy)]
    struct Resident {
        entry: EntryId,
        key: KeyHash,
        weight: u32,
    }

    #[derive(Clone, Copy, PartialEq)]
    enum From {
        B1,
        B2,
        Nowhere,
    }

    fn resident_weight(list: &[Resident]) -> u64 {
        list.iter().map(|resident| u64::from(resident.weight)).sum()
    }

    fn ghost_weight(list: &[(KeyHash, u32)]) -> u64 {
        list.iter().map(|(_, weight)| u64::from(*weight)).sum()
    }

    impl Model {
        fn new(c: u64) -> Self {
            let (t1, t2, b1, b2) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            Self { c, p: 0.0, t1, t2, b1, b2, most: 0, incoming: None }
        }

        fn find(&mut self, entry: EntryId) -> Resident {
            for list in [&mut self.t1, &mut self.t2] {
                if let Some(at) = list.iter().position(|resident| resident.entry == entry) {
                    return list.remove(at);
                }
            }
            panic!("{entry:?} is not resident");
        }
    }

    impl Policy for Model {
        fn before_insert(&mut self, key: KeyHash, weight: u32) -> Admission {
            let c = self.c as f64;
            let (b1, b2) = (ghost_weight(&self.b1) as f64, ghost_weight(&self.b2) as f64);
            let lasts = self.t1.first().into_iter().chain(self.t2.first());
            let step = f64::from(lasts.map(|last| last.weight).fold(weight, u32::min));
            let mut from = From::Nowhere;
            if self.b1.iter().any(|ghost| ghost.0 == key) {
                from = From::B1;
                self.p = (self.p + step * (b2 / b1).max(1.0)).min(c);
                self.b1.retain(|ghost| ghost.0 != key);
            } else if self.b2.iter().any(|ghost| ghost.0 == key) {
                from = From::B2;
                self.p = (self.p - step * (b1 / b2).max(1.0)).max(0.0);
                self.b2.retain(|ghost| ghost.0 != key);
            } else {
                let weight = u64::from(weight);
                let t1 = resident_weight(&self.t1);
                while !self.b1.is_empty()
                    && t1 + ghost_weight(&self.b1) + weight > self.c
                    && self.b1.len() >= self.t2.len()
                {
                    self.b1.remove(0);
                }
                let resident = t1 + resident_weight(&self.t2);
                while !self.b2.is_empty()
                    && resident + ghost_weight(&self.b1) + ghost_weight(&self.b2) + weight
                        > 2 * self.c
                {
                    self.b2.remove(0);
                }
            }
            self.incoming = Some((key, weight, from));
            Admission::Insert
        }

        fn on_insert(&mut self, entry: EntryId, key: KeyHash, weight: u32) {
            if self.incoming.is_none_or(|incoming| incoming.0 != key) {
                self.before_insert(key, weight);
            }
            let (_, _, from) = self.incoming.take().unwrap();
            let list = if from == From::Nowhere { &mut self.t1 } else { &mut self.t2 };
            list.push(Resident { entry, key, weight });
            self.most = self.most.max(self.t1.len() + self.t2.len());
        }

        fn on_hit(&mut self, entry: EntryId) {
            let resident = self.find(entry);
            self.t2.push(resident);
        }

        fn on_update(&mut self, entry: EntryId, weight: u32) {
            let resident = Resident { weight, ..self.find(entry) };
            self.t2.push(resident);
        }

        fn on_remove(&mut self, entry: EntryId) {
            self.find(entry);
        }

        fn evict(&mut self) -> Option<EntryId> {
            let t1 = resident_weight(&self.t1);
            let (weight, from) =
                self.incoming.map_or((0, From::B1), |incoming| (incoming.1, incoming.2));
            if from == From::Nowhere && t1 + u64::from(weight) > self.c && !self.t1.is_empty() {
                return Some(self.t1.remove(0).entry);
            }
            let over = t1 as f64 > self.p || from == From::B2 && t1 as f64 >= self.p;
            let (list, ghosts) = if !self.t1.is_empty() && (over || self.t2.is_empty()) {
                (&mut self.t1, &mut self.b1)
            } else if !self.t2.is_empty() {
                (&mut self.t2, &mut self.b2)
            } else {
                return None;
            };
            let Resident { entry, key, weight } = list.remove(0);
            ghosts.push((key, weight));
            while self.b1.len() + self.b2.len() > self.most {
                if ghost_weight(&self.b1) > ghost_weight(&self.b2) {
                    self.b1.remove(0);
                } else {
                    self.b2.remove(0);
                }
            }
            Some(entry)
        }

        never_restarted!();
    }

    proptest! {
        #[test]
        fn victims_of_equal_weight_are_those_of_the_paper(ops in ops(60, 1), c in 1..30_u64) {
            assert_same_victims(Arc::new(c, 0), Model::new(c), c, &ops)?;
        }

        #[test]
        fn victims_of_any_weight_are_those_of_four_vectors(ops in ops(60, 9), c in 1..60_u64) {
            assert_same_victims(Arc::new(c, 0), Model::new(c), c, &ops)?;
        }

        #[test]
        fn ghosts_are_never_more_than_entries_were(ops in ops(60, 9), c in 1..60_u64) {
            let mut owner = crate::contract::Owner::new(c, Box::new(Arc::new(c, 0)));
            for op in &ops {
                owner.apply(op);
                prop_assert!(owner.policy.ghosts.len() <= owner.policy.len_max);
            }
        }
    }

    #[test]
    fn the_target_is_a_real_number() {
        // |B1| = 2 and |B2| = 3: a hit in B1 moves p by 3/2 pages, not by 1.
        let mut arc = Arc::new(100, 0);
        arc.ghosts.push(RECENT, KeyHash(1), 1);
        arc.ghosts.push(RECENT, KeyHash(2), 1);
        for key in 3..6 {
            arc.ghosts.push(FREQUENT, KeyHash(key), 1);
        }
        arc.before_insert(KeyHash(1), 1);
        assert!((arc.recent_target - 1.5).abs() < 1e-9, "{}", arc.recent_target);
    }
}
