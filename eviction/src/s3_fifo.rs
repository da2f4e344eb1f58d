//! S3-FIFO: three queues, of which a small one keeps out what is read only once.
//!
//! J. Yang, Y. Zhang, Z. Qiu, Y. Yue, R. Vinayak, "FIFO queues are all you need for cache eviction",
//! SOSP 2023.
//!
//! ```text
//!              ┌──────── read twice or more ───────┐
//!              │                                   v
//! new ──> small S, 10 % ──> ghosts G      main M, 90 % ──> out
//!                              │           ^       │
//!                              └ wanted ───┘  <────┘ read: once more round, a read fewer
//! ```
//!
//! Reads are counted up to three; moving to the main queue sets the count back to 0. S, M and what
//! the ghosts weighed are shares of the capacity in the owner's unit, bytes or objects.
//!
//! What is larger than S is refused: S, asked to hold it, would have to let go all it holds, and M
//! takes only what proved itself in S. An owner that keeps it anyway has it in S like any other.
//!
//! Before the first eviction what does not fit into S goes to M: nothing is gained by leaving room in
//! M unused, and the newcomers of a full cache are then not queued behind a whole cache of old ones.

use std::ptr;

use crate::column::Column;
use crate::ghost::GhostLists;
use crate::list::{Links, List};
use crate::snapshot::{Reader, Row, Writer, check};
use crate::{Admission, EntryId, KeyHash, Kind, Link, Policy, SnapshotError};

/// Reads are counted up to this: two bits.
const READS_MAX: u8 = 3;
/// An entry of the small queue that was read this often moves to the main queue.
const READS_TO_STAY: u8 = 2;

/// S3-FIFO.
#[derive(Debug)]
pub struct S3Fifo {
    small: Queue,
    main: Queue,
    ghosts: GhostLists<1>,
    ghost_weight_max: u64,
    incoming: Option<Incoming>,
    has_evicted: bool,
    len: usize,
    /// The most entries ever resident: also the most ghosts there may be.
    len_max: usize,
    links: Links,
    keys: Column<KeyHash>,
    weights: Column<u32>,
    marks: Column<Mark>,
}

/// S or M: its entries, what they weigh together, and what they should.
#[derive(Debug)]
struct Queue {
    entries: List,
    weight: u64,
    weight_max: u64,
}

impl Queue {
    fn new(weight_max: u64) -> Self {
        Self { entries: List::EMPTY, weight: 0, weight_max }
    }
}

/// Where an entry stands, and how often it was read since it came there.
#[derive(Clone, Copy, Debug)]
struct Mark {
    in_main: bool,
    reads: u8,
}

impl Row<2> for Mark {
    fn to_bytes(self) -> [u8; 2] {
        [self.in_main.into(), self.reads]
    }

    fn from_bytes([in_main, reads]: [u8; 2]) -> Self {
        Self { in_main: in_main != 0, reads: reads.min(READS_MAX) }
    }
}

/// What room is being made for.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    key: KeyHash,
    /// Whether it was a ghost.
    returning: bool,
}

impl Incoming {
    fn save(&self, to: &mut Writer<'_>) {
        to.key(self.key);
        to.bool(self.returning);
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Ok(Self { key: from.key()?, returning: from.bool()? })
    }
}

impl S3Fifo {
    /// An empty cache of `capacity` weight units, with columns reserved for `entries_max` entries.
    pub fn new(capacity: u64, entries_max: usize) -> Self {
        // Room for one at least, where objects are counted and few.
        let small_max = (capacity / 10).max(1).min(capacity);
        Self {
            small: Queue::new(small_max),
            main: Queue::new(capacity - small_max),
            ghosts: GhostLists::new(),
            ghost_weight_max: capacity - small_max,
            incoming: None,
            has_evicted: false,
            len: 0,
            len_max: 0,
            links: Links::with_capacity(entries_max),
            keys: Column::with_capacity(entries_max),
            weights: Column::with_capacity(entries_max),
            marks: Column::with_capacity(entries_max),
        }
    }

    fn capacity(&self) -> u64 {
        self.small.weight_max + self.main.weight_max
    }

    fn queue(&mut self, in_main: bool) -> &mut Queue {
        if in_main { &mut self.main } else { &mut self.small }
    }

    fn push(&mut self, entry: EntryId, in_main: bool, reads: u8) {
        self.marks.set(entry, Mark { in_main, reads });
        let weight = u64::from(self.weights[entry]);
        let queue = if in_main { &mut self.main } else { &mut self.small };
        queue.entries.push_newest(&mut self.links, entry);
        queue.weight += weight;
    }

    fn take(&mut self, entry: EntryId) {
        let weight = u64::from(self.weights[entry]);
        let queue = if self.marks[entry].in_main { &mut self.main } else { &mut self.small };
        queue.entries.remove(&mut self.links, entry);
        queue.weight -= weight;
    }

    fn remember(&mut self, entry: EntryId) {
        self.ghosts.push(0, self.keys[entry], self.weights[entry]);
        // Bytes alone would allow millions of tiny ghosts after one large entry left.
        while self.ghosts.weight(0) > self.ghost_weight_max || self.ghosts.len() > self.len_max {
            self.ghosts.pop_oldest(0);
        }
    }
}

impl Policy for S3Fifo {
    fn before_insert(&mut self, key: KeyHash, weight: u32) -> Admission {
        let returning = self.ghosts.take(key).is_some();
        self.incoming = Some(Incoming { key, returning });
        if !returning && u64::from(weight) > self.small.weight_max {
            return Admission::Refuse;
        }
        Admission::Insert
    }

    fn on_insert(&mut self, entry: EntryId, key: KeyHash, weight: u32) {
        let returning = match self.incoming.take() {
            Some(incoming) if incoming.key == key => incoming.returning,
            _ => self.ghosts.take(key).is_some(),
        };
        let filling = !self.has_evicted && self.small.weight >= self.small.weight_max;
        self.keys.set(entry, key);
        self.weights.set(entry, weight);
        self.push(entry, returning || filling, 0);
        self.len += 1;
        self.len_max = self.len_max.max(self.len);
    }

    fn on_hit(&mut self, entry: EntryId) {
        let mark = &mut self.marks[entry];
        mark.reads = (mark.reads + 1).min(READS_MAX);
    }

    fn insert_address(&self, key: KeyHash) -> *const u8 {
        self.ghosts.address(key)
    }

    fn next_victim(&self) -> Option<EntryId> {
        let from_main = self.main.weight > self.main.weight_max;
        let queue = if from_main { &self.main } else { &self.small };
        queue.entries.oldest()
    }

    fn eviction_addresses(&self, victim: EntryId, link: Link) -> [*const u8; 4] {
        match link {
            Link::First => {
                let [ghost_key, ghost_weight] = self.ghosts.oldest_addresses(0);
                let (key, weight) = (self.keys.address(victim), self.weights.address(victim));
                [key, weight, ghost_key, ghost_weight]
            }
            Link::Second => {
                let remembered = self.ghosts.address(self.keys[victim]);
                [remembered, self.ghosts.oldest_cell_address(0), ptr::null(), ptr::null()]
            }
        }
    }

    fn on_update(&mut self, entry: EntryId, weight: u32) {
        self.on_hit(entry);
        let grown = u64::from(weight);
        let was = u64::from(self.weights[entry]);
        let in_main = self.marks[entry].in_main;
        let queue = self.queue(in_main);
        queue.weight = queue.weight - was + grown;
        self.weights[entry] = weight;
    }

    fn on_remove(&mut self, entry: EntryId) {
        self.take(entry);
        self.len -= 1;
    }

    fn evict(&mut self) -> Option<EntryId> {
        self.has_evicted = true;
        // Ends: each step moves an entry out of S for good, or takes a read from one in M.
        loop {
            let from_main =
                self.main.weight > self.main.weight_max || self.small.entries.is_empty();
            let entry = self.queue(from_main).entries.oldest()?;
            let Mark { reads, .. } = self.marks[entry];
            self.take(entry);
            if from_main && reads > 0 {
                self.push(entry, true, reads - 1);
            } else if !from_main && reads >= READS_TO_STAY {
                self.push(entry, true, 0);
            } else {
                self.len -= 1;
                if !from_main {
                    self.remember(entry);
                }
                return Some(entry);
            }
        }
    }

    fn save(&self, to: &mut Vec<u8>) {
        let mut to = Writer::new(to, Kind::S3Fifo);
        to.u64(self.capacity());
        to.bool(self.has_evicted);
        to.count(self.len_max);
        to.option(self.incoming.as_ref(), Incoming::save);
        self.ghosts.save(&mut to);
        self.small.entries.save(&mut to);
        self.main.entries.save(&mut to);
        self.links.save(&mut to);
        self.keys.save(&mut to);
        self.weights.save(&mut to);
        self.marks.save(&mut to);
    }

    fn load(&mut self, from: &[u8]) -> Result<(), SnapshotError> {
        let mut from = Reader::new(from, Kind::S3Fifo)?;
        from.capacity(self.capacity())?;
        self.has_evicted = from.bool()?;
        self.len_max = from.count()?;
        self.incoming = from.option(Incoming::load)?;
        self.ghosts.load(&mut from)?;
        let [small, main] = [List::load(&mut from)?, List::load(&mut from)?];
        let rows = self.links.load(&mut from)?;
        self.keys.load(rows, &mut from)?;
        self.weights.load(rows, &mut from)?;
        self.marks.load(rows, &mut from)?;
        from.finish()?;

        self.links.check([small, main], |entry| self.marks[entry].in_main.into())?;
        let mut weights = [0; 2];
        for entry in self.links.entries() {
            weights[usize::from(self.marks[entry].in_main)] += u64::from(self.weights[entry]);
        }
        self.small = Queue { entries: small, weight: weights[0], ..self.small };
        self.main = Queue { entries: main, weight: weights[1], ..self.main };
        self.len = self.links.standing();
        check((self.len..=rows).contains(&self.len_max), "greatest number of entries")?;
        check(self.ghosts.len() <= self.len_max, "number of ghosts")?;
        check(self.ghosts.weight(0) <= self.ghost_weight_max, "weight of the ghosts")
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

    /// The three queues, oldest first.
    struct Model {
        capacity: u64,
        small: Vec<Resident>,
        main: Vec<Resident>,
        ghosts: Vec<(KeyHash, u32)>,
        has_evicted: bool,
        most: usize,
        incoming: Option<(KeyHash, bool)>,
    }

    #[derive(Clone, Copy)]
    struct Resident {
        entry: EntryId,
        key: KeyHash,
        weight: u32,
        reads: u32,
    }

    fn weight_of(queue: &[Resident]) -> u64 {
        queue.iter().map(|resident| u64::from(resident.weight)).sum()
    }

    impl Model {
        fn new(capacity: u64) -> Self {
            let (small, main, ghosts) = (Vec::new(), Vec::new(), Vec::new());
            Self { capacity, small, main, ghosts, has_evicted: false, most: 0, incoming: None }
        }

        fn small_max(&self) -> u64 {
            (self.capacity / 10).max(1)
        }

        fn is_ghost(&self, key: KeyHash) -> bool {
            self.ghosts.iter().any(|ghost| ghost.0 == key)
        }

        fn find(&mut self, entry: EntryId) -> &mut Resident {
            let mut residents = self.small.iter_mut().chain(&mut self.main);
            residents.find(|resident| resident.entry == entry).unwrap()
        }
    }

    impl Policy for Model {
        fn before_insert(&mut self, key: KeyHash, weight: u32) -> Admission {
            let returning = self.is_ghost(key);
            self.ghosts.retain(|ghost| ghost.0 != key);
            self.incoming = Some((key, returning));
            let passes_through = u64::from(weight) > self.small_max() && !returning;
            if passes_through { Admission::Refuse } else { Admission::Insert }
        }

        fn on_insert(&mut self, entry: EntryId, key: KeyHash, weight: u32) {
            let announced = self.incoming.take().filter(|incoming| incoming.0 == key);
            let returning = announced.map_or_else(|| self.is_ghost(key), |incoming| incoming.1);
            self.ghosts.retain(|ghost| ghost.0 != key);
            let filling = !self.has_evicted && weight_of(&self.small) >= self.small_max();
            let queue = if returning || filling { &mut self.main } else { &mut self.small };
            queue.push(Resident { entry, key, weight, reads: 0 });
            self.most = self.most.max(self.small.len() + self.main.len());
        }

        fn on_hit(&mut self, entry: EntryId) {
            let resident = self.find(entry);
            resident.reads = (resident.reads + 1).min(3);
        }

        fn on_update(&mut self, entry: EntryId, weight: u32) {
            self.on_hit(entry);
            self.find(entry).weight = weight;
        }

        fn on_remove(&mut self, entry: EntryId) {
            self.small.retain(|resident| resident.entry != entry);
            self.main.retain(|resident| resident.entry != entry);
        }

        fn evict(&mut self) -> Option<EntryId> {
            self.has_evicted = true;
            loop {
                let main_max = self.capacity - self.small_max();
                if weight_of(&self.main) > main_max || self.small.is_empty() {
                    if self.main.is_empty() {
                        return None;
                    }
                    let mut oldest = self.main.remove(0);
                    if oldest.reads == 0 {
                        return Some(oldest.entry);
                    }
                    oldest.reads -= 1;
                    self.main.push(oldest);
                } else {
                    let mut oldest = self.small.remove(0);
                    if oldest.reads < 2 {
                        self.ghosts.push((oldest.key, oldest.weight));
                        let weight = |ghosts: &[(KeyHash, u32)]| -> u64 {
                            ghosts.iter().map(|ghost| u64::from(ghost.1)).sum()
                        };
                        while weight(&self.ghosts) > main_max || self.ghosts.len() > self.most {
                            self.ghosts.remove(0);
                        }
                        return Some(oldest.entry);
                    }
                    oldest.reads = 0;
                    self.main.push(oldest);
                }
            }
        }

        never_restarted!();
    }

    proptest! {
        #[test]
        fn victims_are_those_of_three_vectors(ops in ops(60, 1), capacity in 1..40_u64) {
            assert_same_victims(S3Fifo::new(capacity, 0), Model::new(capacity), capacity, &ops)?;
        }

        #[test]
        fn so_they_are_with_weights(ops in ops(60, 9), capacity in 1..120_u64) {
            assert_same_victims(S3Fifo::new(capacity, 0), Model::new(capacity), capacity, &ops)?;
        }
    }

    #[test]
    fn a_scan_passes_through_the_small_queue() {
        let mut cache = crate::contract::Owner::new(100, Box::new(S3Fifo::new(100, 100)));
        for _ in 0..3 {
            (0..90).for_each(|key| cache.get(key, 1));
        }
        (1_000..2_000).for_each(|key| cache.get(key, 1));
        let hits = cache.hits;
        (20..90).for_each(|key| cache.get(key, 1));
        assert_eq!(cache.hits - hits, 70);
    }
}
