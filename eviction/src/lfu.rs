//! Least frequently used, plain or with dynamic aging.
//!
//! ```text
//! priority     1             2         5
//! buckets    [ · ] <──────> [ · ] <──> [ · ]       ascending; no bucket is empty
//!              │             │         │
//! entries      d ─> c ─> a   e         b           within one, newest to oldest use
//!                        ^ the victim
//! ```
//!
//! - **Plain**: an entry's priority is the number of its uses since it was inserted (F); the count is
//!   forgotten when it leaves.
//! - **With dynamic aging** (LFU-DA): M. Arlitt, L. Cherkasova, J. Dilley, R. Friedrich, T. Jin,
//!   "Evaluating content management techniques for web proxy caches", ACM SIGMETRICS Performance
//!   Evaluation Review 27(4), 2000. An entry's priority (K) becomes F + L at each use, where the age L
//!   is the priority of the last victim. What was once popular cannot stay for that alone: the age
//!   overtakes it.
//!
//! Ties fall on the least recently used. Buckets as in K. Shah, A. Mitra, D. Matani, "An O(1)
//! algorithm for implementing the LFU cache eviction scheme", 2010: a use moves an entry to the next
//! bucket or to a new one between. Under aging it may have to climb over more: at most F of them,
//! since the age has not passed the entry yet and priorities are whole numbers.

use crate::column::Column;
use crate::list::{Links, List};
use crate::snapshot::{Reader, Row, Writer, check, pair_from_bytes, pair_to_bytes};
use crate::{EntryId, KeyHash, Kind, Policy, SnapshotError};

/// Least frequently used; ties fall on the least recently used.
#[derive(Debug)]
pub struct Lfu {
    /// The bucket each entry stands in.
    bucket: Column<u32>,
    /// Links of the entries within their buckets.
    links: Links,
    buckets: Buckets,
    aging: Option<Aging>,
}

/// What dynamic aging keeps beyond plain counts.
#[derive(Debug)]
struct Aging {
    /// L: the priority of the last victim.
    age: u64,
    /// F of each entry: its uses since it was inserted.
    uses: Column<u32>,
}

impl Lfu {
    /// Plain counts, empty, with columns reserved for `entries_max` entries.
    pub fn new(entries_max: usize) -> Self {
        Self {
            bucket: Column::with_capacity(entries_max),
            links: Links::with_capacity(entries_max),
            buckets: Buckets::new(),
            aging: None,
        }
    }

    /// With dynamic aging, empty, with columns reserved for `entries_max` entries.
    pub fn with_dynamic_aging(entries_max: usize) -> Self {
        let aging = Aging { age: 0, uses: Column::with_capacity(entries_max) };
        Self { aging: Some(aging), ..Self::new(entries_max) }
    }

    fn kind(&self) -> Kind {
        if self.aging.is_some() { Kind::LfuDa } else { Kind::Lfu }
    }

    /// Takes `entry` out, and its bucket with it when nothing else stands there.
    fn take(&mut self, entry: EntryId) {
        let bucket = self.bucket[entry];
        let entries = &mut self.buckets.at(bucket).entries;
        entries.remove(&mut self.links, entry);
        if entries.is_empty() {
            self.buckets.remove(bucket);
        }
    }
}

impl Policy for Lfu {
    fn on_insert(&mut self, entry: EntryId, _key: KeyHash, _weight: u32) {
        let mut priority = 1;
        if let Some(aging) = &mut self.aging {
            aging.uses.set(entry, 1);
            priority += aging.age;
        }
        let bucket = self.buckets.find_above(NONE, priority);
        self.bucket.set(entry, bucket);
        self.buckets.at(bucket).entries.push_newest(&mut self.links, entry);
    }

    fn on_hit(&mut self, entry: EntryId) {
        let from = self.bucket[entry];
        let priority = match &mut self.aging {
            None => self.buckets.at(from).priority + 1,
            Some(aging) => {
                let uses = aging.uses[entry].saturating_add(1);
                aging.uses[entry] = uses;
                // Only a count that reached its ceiling could make this less than it was.
                (aging.age + u64::from(uses)).max(self.buckets.at(from).priority)
            }
        };
        if self.buckets.at(from).priority == priority {
            self.buckets.at(from).entries.renew(&mut self.links, entry);
            return;
        }
        let to = self.buckets.find_above(from, priority);
        self.take(entry);
        self.bucket[entry] = to;
        self.buckets.at(to).entries.push_newest(&mut self.links, entry);
    }

    fn hit_addresses(&self, entry: EntryId) -> [*const u8; 2] {
        [self.links.address(entry), self.bucket.address(entry)]
    }

    fn next_victim(&self) -> Option<EntryId> {
        self.buckets.lowest()?.entries.oldest()
    }

    fn on_update(&mut self, entry: EntryId, _weight: u32) {
        self.on_hit(entry);
    }

    fn on_remove(&mut self, entry: EntryId) {
        self.take(entry);
    }

    fn evict(&mut self) -> Option<EntryId> {
        let bucket = self.buckets.lowest()?;
        let entry = bucket.entries.oldest()?;
        if let Some(aging) = &mut self.aging {
            aging.age = bucket.priority;
        }
        self.take(entry);
        Some(entry)
    }

    fn save(&self, to: &mut Vec<u8>) {
        let mut to = Writer::new(to, self.kind());
        self.buckets.save(&mut to);
        self.links.save(&mut to);
        self.bucket.save(&mut to);
        if let Some(aging) = &self.aging {
            to.u64(aging.age);
            aging.uses.save(&mut to);
        }
    }

    fn load(&mut self, from: &[u8]) -> Result<(), SnapshotError> {
        let mut from = Reader::new(from, self.kind())?;
        self.buckets.load(&mut from)?;
        let rows = self.links.load(&mut from)?;
        self.bucket.load(rows, &mut from)?;
        if let Some(aging) = &mut self.aging {
            aging.age = from.u64()?;
            aging.uses.load(rows, &mut from)?;
            let lowest = self.buckets.lowest().map_or(PRIORITY_MAX, |bucket| bucket.priority);
            check(aging.age <= lowest, "age")?;
        }
        from.finish()?;
        let lists = self.buckets.slots.iter().map(|bucket| bucket.entries);
        self.links.check(lists, |entry| self.bucket[entry] as usize)
    }

    fn holds_exactly(&self, residents: &mut dyn Iterator<Item = EntryId>) -> bool {
        self.links.hold_exactly(residents)
    }
}

/// Stands for "no bucket".
const NONE: u32 = u32::MAX;
/// Far beyond any: a priority grows by one with each use, an age with each eviction by what one entry
/// can be used.
const PRIORITY_MAX: u64 = u64::MAX / 2;

/// The entries of one priority.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    priority: u64,
    entries: List,
    above: u32,
    below: u32,
}

impl Row<24> for Bucket {
    fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.priority.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.entries.to_bytes());
        bytes[16..].copy_from_slice(&pair_to_bytes(self.above, self.below));
        bytes
    }

    fn from_bytes(bytes: [u8; 24]) -> Self {
        let [priority, entries, neighbours] = [0, 8, 16].map(|at| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            word
        });
        let (above, below) = pair_from_bytes(neighbours);
        let priority = u64::from_le_bytes(priority);
        Self { priority, entries: List::from_bytes(entries), above, below }
    }
}

/// Buckets in ascending order of priority. Those that were emptied are used again.
#[derive(Debug)]
struct Buckets {
    slots: Vec<Bucket>,
    /// The first of the free slots, chained by `above`.
    free: u32,
    lowest: u32,
}

impl Buckets {
    fn new() -> Self {
        Self { slots: Vec::new(), free: NONE, lowest: NONE }
    }

    #[inline]
    fn at(&mut self, bucket: u32) -> &mut Bucket {
        &mut self.slots[bucket as usize]
    }

    fn lowest(&self) -> Option<&Bucket> {
        self.slots.get(self.lowest as usize)
    }

    /// The bucket above `below` (`NONE`: any) of exactly `priority`, made if there is none.
    #[inline]
    fn find_above(&mut self, mut below: u32, priority: u64) -> u32 {
        loop {
            let above = if below == NONE { self.lowest } else { self.at(below).above };
            if above == NONE || self.at(above).priority > priority {
                return self.make(priority, below, above);
            }
            if self.at(above).priority == priority {
                return above;
            }
            below = above;
        }
    }

    fn make(&mut self, priority: u64, below: u32, above: u32) -> u32 {
        let bucket = Bucket { priority, entries: List::EMPTY, above, below };
        let made = self.free;
        let made = if made == NONE {
            self.slots.push(bucket);
            u32::try_from(self.slots.len() - 1).expect("there are no more buckets than entries")
        } else {
            self.free = self.at(made).above;
            *self.at(made) = bucket;
            made
        };
        self.link(below, made);
        self.link(made, above);
        made
    }

    fn remove(&mut self, bucket: u32) {
        let Bucket { above, below, .. } = *self.at(bucket);
        self.link(below, above);
        self.at(bucket).above = self.free;
        self.free = bucket;
    }

    /// Makes `below` and `above` neighbours.
    fn link(&mut self, below: u32, above: u32) {
        if below == NONE {
            self.lowest = above;
        } else {
            self.at(below).above = above;
        }
        if above != NONE {
            self.at(above).below = below;
        }
    }
}

impl Buckets {
    fn save(&self, to: &mut Writer<'_>) {
        to.u32(self.lowest);
        to.u32(self.free);
        to.count(self.slots.len());
        to.rows(&self.slots);
    }

    /// Replaces the buckets by those that `save` wrote; that their entries stand in them remains to be
    /// checked.
    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), SnapshotError> {
        self.lowest = from.u32()?;
        self.free = from.u32()?;
        let count = from.count()?;
        from.rows(count, &mut self.slots)?;
        let taken = self.check_taken()?;
        let free = self.check_free()?;
        // Each way leads to a bucket once, and none is both empty and not, so these are all.
        let (reached, standing) = (taken + free, self.slots.len());
        if reached != standing {
            return Err(SnapshotError::Unreachable { reached, standing });
        }
        Ok(())
    }

    /// How many buckets there are from the lowest up, each with entries and above the one before.
    fn check_taken(&self) -> Result<usize, SnapshotError> {
        let (mut below, mut bucket, mut count) = (NONE, self.lowest, 0);
        let mut priority_below = None;
        while bucket != NONE {
            let Bucket { priority, entries, above, below: named } = *self.sound(bucket)?;
            let ascends = priority_below < Some(priority) && priority <= PRIORITY_MAX;
            if named != below || !ascends || entries.is_empty() {
                return Err(SnapshotError::BrokenList { id: bucket });
            }
            priority_below = Some(priority);
            (below, bucket, count) = (bucket, above, count + 1);
        }
        Ok(count)
    }

    /// How many buckets are free.
    fn check_free(&self) -> Result<usize, SnapshotError> {
        let (mut bucket, mut count) = (self.free, 0);
        while bucket != NONE {
            let Bucket { entries, above, .. } = *self.sound(bucket)?;
            if !entries.is_empty() || count == self.slots.len() {
                return Err(SnapshotError::BrokenList { id: bucket });
            }
            (bucket, count) = (above, count + 1);
        }
        Ok(count)
    }

    fn sound(&self, bucket: u32) -> Result<&Bucket, SnapshotError> {
        let rows = self.slots.len();
        self.slots.get(bucket as usize).ok_or(SnapshotError::OutOfRange { id: bucket, rows })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contract::{assert_same_victims, never_restarted, ops};

    /// Every entry with its priority, its uses and when it was last used.
    struct Model {
        entries: Vec<Counted>,
        /// L, if it ages.
        age: Option<u64>,
        now: u64,
    }

    struct Counted {
        entry: EntryId,
        priority: u64,
        uses: u64,
        used_at: u64,
    }

    impl Model {
        fn new(age: Option<u64>) -> Self {
            Self { entries: Vec::new(), age, now: 0 }
        }
    }

    impl Policy for Model {
        fn on_insert(&mut self, entry: EntryId, _key: KeyHash, _weight: u32) {
            self.entries.push(Counted { entry, priority: 0, uses: 0, used_at: 0 });
            self.on_hit(entry);
        }

        fn on_hit(&mut self, entry: EntryId) {
            self.now += 1;
            let counted = self.entries.iter_mut().find(|counted| counted.entry == entry).unwrap();
            counted.uses += 1;
            counted.used_at = self.now;
            counted.priority = counted.uses + self.age.unwrap_or(0);
        }

        fn on_update(&mut self, entry: EntryId, _weight: u32) {
            self.on_hit(entry);
        }

        fn on_remove(&mut self, entry: EntryId) {
            self.entries.retain(|counted| counted.entry != entry);
        }

        fn evict(&mut self) -> Option<EntryId> {
            let victim = self.entries.iter().min_by_key(|c| (c.priority, c.used_at))?;
            let (entry, priority) = (victim.entry, victim.priority);
            self.age = self.age.map(|_| priority);
            self.on_remove(entry);
            Some(entry)
        }

        never_restarted!();
    }

    proptest! {
        #[test]
        fn victims_have_the_least_count(ops in ops(40, 9), capacity in 1..60_u64) {
            assert_same_victims(Lfu::new(0), Model::new(None), capacity, &ops)?;
        }

        #[test]
        fn victims_have_the_least_aged_count(ops in ops(40, 9), capacity in 1..60_u64) {
            let policy = Lfu::with_dynamic_aging(0);
            assert_same_victims(policy, Model::new(Some(0)), capacity, &ops)?;
        }
    }

    #[test]
    fn buckets_are_used_again() {
        let mut lfu = Lfu::new(0);
        lfu.on_insert(EntryId(0), KeyHash(0), 1);
        for _ in 0..1_000 {
            lfu.on_hit(EntryId(0));
        }
        assert_eq!(lfu.buckets.slots.len(), 2);
    }
}
