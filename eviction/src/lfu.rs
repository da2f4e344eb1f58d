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
use crate::{EntryId, KeyHash, Policy};

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
}

/// Stands for "no bucket".
const NONE: u32 = u32::MAX;

/// The entries of one priority.
#[derive(Debug)]
struct Bucket {
    priority: u64,
    entries: List,
    above: u32,
    below: u32,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contract::{assert_same_victims, ops};

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
