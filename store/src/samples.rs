//! `Samples`: what became of the items of some keys, for a curve that is drawn of them elsewhere.
//!
//! ```text
//! get, put, delete ──height of the key below the threshold──▶ | uses, bounded | ──▶ exchange_samples
//!                  └─for all others: one comparison
//! ```
//!
//! Which keys are sampled their hashes say ([`eviction::live_curve`]), and so says every shard the same.
//! What does not fit is lost, and counted. A read that follows others of its key at once is left out: it
//! hits in caches of any size that is worth asking about, and a key that everybody reads would leave no
//! room for the others.

use eviction::live_curve::{Use, What, height};
use eviction::stack_distance::NEVER;
use eviction::{EntryId, KeyHash};

use crate::shard::{Key, Shard};
use crate::time::Deadline;

/// Uses before a read that it is compared with.
const COMPARED: usize = 8;

/// What was noted of a shard since the last time.
#[derive(Debug, Default)]
pub struct Samples {
    /// Keys whose height is below this are sampled: none for 0.
    pub threshold: u64,
    /// What became of their items, in order; never more than was reserved.
    pub uses: Vec<Use>,
    /// Uses that found no place.
    pub lost: u64,
    /// Reads, of all keys.
    pub reads: u64,
    /// Those that found an item.
    pub hits: u64,
    /// Whether all items were forgotten at once; what stands in `uses` came after that.
    pub is_cleared: bool,
}

impl Samples {
    /// Nothing, and room for so many uses of keys below `threshold`.
    pub fn new(threshold: u64, uses_max: usize) -> Self {
        Self { threshold, uses: Vec::with_capacity(uses_max), ..Self::default() }
    }

    /// Empties it, and has it sample keys below `threshold`. What is reserved stays so.
    pub fn begin(&mut self, threshold: u64) {
        let mut uses = std::mem::take(&mut self.uses);
        uses.clear();
        *self = Self { threshold, uses, ..Self::default() };
    }

    #[inline]
    pub(crate) fn takes(&self, key: KeyHash) -> bool {
        height(key) < self.threshold
    }

    /// Counts a read; whether its key is sampled.
    #[inline]
    pub(crate) fn count_read(&mut self, key: KeyHash, is_hit: bool) -> bool {
        self.reads += 1;
        self.hits += u64::from(is_hit);
        self.takes(key)
    }

    fn note(&mut self, key: KeyHash, what: What) {
        let is_again = |used: &Use| used.key == key && matches!(used.what, What::Hit { .. });
        if matches!(what, What::Hit { .. }) && self.uses.iter().rev().take(COMPARED).any(is_again) {
            return;
        }
        if self.uses.len() < self.uses.capacity() {
            self.uses.push(Use { key, what });
        } else {
            self.lost += 1;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.uses.clear();
        self.is_cleared = true;
    }
}

impl Shard {
    /// Takes what was noted since the last time, and has the shard go on with `next`.
    pub fn exchange_samples(&mut self, next: Samples) -> Samples {
        std::mem::replace(self.samples_mut(), next)
    }

    /// Notes that `key`, which is sampled, was read.
    #[cold]
    #[inline(never)]
    pub(crate) fn sample_read(&mut self, key: KeyHash, found: Option<EntryId>) {
        let what = match found {
            Some(id) => {
                let (weight, deadline_s) = self.sampled_as(id);
                What::Hit { weight, deadline_s }
            }
            None => What::Miss,
        };
        self.samples_mut().note(key, what);
    }

    /// Notes that the item of `key` was written as entry `id`.
    #[inline]
    pub(crate) fn sample_write(&mut self, key: &Key<'_>, id: EntryId) {
        if self.samples().takes(key.hash()) {
            let (weight, deadline_s) = self.sampled_as(id);
            self.samples_mut().note(key.hash(), What::Write { weight, deadline_s });
        }
    }

    /// Notes that the item of `key` was given another deadline.
    #[inline]
    pub(crate) fn sample_touch(&mut self, key: &Key<'_>, deadline: Deadline) {
        if self.samples().takes(key.hash()) {
            let deadline_s = seconds(deadline);
            self.samples_mut().note(key.hash(), What::Touch { deadline_s });
        }
    }

    /// Notes that the item of a key was deleted, or was to be.
    #[inline]
    pub(crate) fn sample_delete(&mut self, key: KeyHash) {
        if self.samples().takes(key) {
            self.samples_mut().note(key, What::Delete);
        }
    }

    /// What an entry weighs, and when it expires.
    fn sampled_as(&self, id: EntryId) -> (u32, u32) {
        let record = self.record(id);
        (self.footprint(record.shape()).weight(), seconds(self.fields(id).deadline))
    }
}

fn seconds(deadline: Deadline) -> u32 {
    match deadline.column_secs() {
        0 => NEVER,
        seconds => seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::put::{NewItem, Precondition};
    use crate::time::Timestamp;
    use crate::{Config, Geometry};

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn shard(threshold: u64, uses_max: usize) -> Shard {
        let mut shard = Shard::new(Config {
            geometry: Geometry::new(8 << 20, 64 << 10, 1),
            item_bytes_max: 64 << 10,
            policy: eviction::Kind::Lru,
            evicts: true,
            protected: crate::Protected::NONE,
            shard: 0,
        });
        shard.exchange_samples(Samples::new(threshold, uses_max));
        shard
    }

    fn put(shard: &mut Shard, key: &[u8], deadline: Deadline) {
        let new = NewItem { client_flags: 0, deadline, value: &[b"value"], own_cas: None };
        shard.put(&Key::new(key), &new, Precondition::None, NOW);
    }

    fn noted(shard: &mut Shard) -> Vec<What> {
        let samples = shard.exchange_samples(Samples::new(u64::MAX, 100));
        samples.uses.iter().map(|used| used.what).collect()
    }

    #[test]
    fn what_becomes_of_an_item_is_noted_with_its_footprint_and_deadline() {
        let (mut shard, key) = (shard(u64::MAX, 100), Key::new(b"a"));
        assert!(shard.get(&key, NOW).is_none());
        let deadline = Deadline::at(NOW.plus_millis(1_500));
        put(&mut shard, b"a", deadline);
        let weight = u32::try_from(shard.footprint_bytes(&key, NOW).unwrap()).unwrap();
        let deadline_s = 1_000_002;
        assert!(shard.get(&key, NOW).is_some());
        shard.touch(&key, Deadline::at(NOW.plus_millis(9_000)), NOW);
        shard.delete(&key, None, NOW);
        shard.delete(&key, None, NOW);
        let want = [
            What::Miss,
            What::Write { weight, deadline_s },
            What::Hit { weight, deadline_s },
            What::Touch { deadline_s: 1_000_009 },
            What::Delete,
            What::Delete,
        ];
        assert_eq!(noted(&mut shard), want);
        put(&mut shard, b"a", Deadline::NEVER);
        shard.peek(&key, NOW);
        assert!(matches!(noted(&mut shard)[..], [What::Write { deadline_s: NEVER, .. }]));
    }

    #[test]
    fn reads_are_counted_and_keys_above_the_threshold_not_noted() {
        let (mut shard, key) = (shard(0, 100), Key::new(b"a"));
        shard.get(&key, NOW);
        put(&mut shard, b"a", Deadline::NEVER);
        shard.get(&key, NOW);
        shard.get(&key, NOW);
        let samples = shard.exchange_samples(Samples::default());
        assert_eq!((samples.reads, samples.hits, samples.uses.len()), (3, 2, 0));
    }

    #[test]
    fn a_key_that_is_read_again_at_once_is_noted_once() {
        let mut shard = shard(u64::MAX, 100);
        put(&mut shard, b"a", Deadline::NEVER);
        put(&mut shard, b"b", Deadline::NEVER);
        for _ in 0..50 {
            shard.get(&Key::new(b"a"), NOW);
            shard.get(&Key::new(b"b"), NOW);
        }
        let samples = shard.exchange_samples(Samples::default());
        assert_eq!((samples.reads, samples.uses.len()), (100, 4));
    }

    #[test]
    fn what_does_not_fit_is_lost_and_counted() {
        let mut shard = shard(u64::MAX, 3);
        let reserved = shard.samples().uses.capacity() as u64;
        (0..10).for_each(|n| put(&mut shard, format!("key-{n}").as_bytes(), Deadline::NEVER));
        let samples = shard.exchange_samples(Samples::default());
        assert_eq!((samples.uses.len() as u64, samples.lost), (reserved, 10 - reserved));
    }

    #[test]
    fn a_flush_is_told_and_what_came_before_it_is_not() {
        let mut shard = shard(u64::MAX, 100);
        put(&mut shard, b"a", Deadline::NEVER);
        shard.flush_all(NOW, NOW);
        put(&mut shard, b"b", Deadline::NEVER);
        let mut samples = shard.exchange_samples(Samples::default());
        assert_eq!((samples.uses.len(), samples.is_cleared), (1, true));
        samples.begin(7);
        assert_eq!((samples.threshold, samples.uses.len(), samples.is_cleared), (7, 0, false));
    }
}
