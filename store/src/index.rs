//! The flat hash table from key hash to `EntryId`.
//!
//! ```text
//! bucket, 64 bytes, one cache line:
//! | 12 tags, 1 B each | spill, 4 B | 12 entry ids, 4 B each |
//! ```
//!
//! - A bucket is found by the high part of a 28-bit hash (fast range, so the number of buckets need
//!   not be a power of two), a slot in it by the low 8 bits, compared twelve at once.
//! - A full bucket spills into the next; `spill` counts the entries that passed by, so a lookup stops
//!   at the first bucket that nothing passed.
//! - Buckets are in hash order whatever their number, so growing is one pass from front to back over
//!   the old table and the new. It grows by a quarter, not by doubling: at most a quarter is unused.

use std::ops::Range;

use eviction::EntryId;

use crate::hash::{TAG_BITS, fast_range};
use crate::huge_pages;
use crate::prefetch::prefetch;
use crate::snapshot::{Reader, Writer};

const SLOTS: usize = 12;
/// Grows when more than this many of a bucket's slots are taken on average.
const LOAD_MAX: usize = 10;
const BUCKETS_MIN: usize = 8;
/// Marks an empty slot; no hash has this tag.
const EMPTY: u8 = 0;

#[derive(Clone)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u8; SLOTS],
    spill: u32,
    ids: [EntryId; SLOTS],
}

const EMPTY_BUCKET: Bucket = Bucket { tags: [EMPTY; SLOTS], spill: 0, ids: [EntryId(0); SLOTS] };

impl Bucket {
    /// A bit for each slot whose tag is `tag`.
    #[inline]
    fn matches(&self, tag: u8) -> u32 {
        let mut bits = 0;
        for (slot, &it) in self.tags.iter().enumerate() {
            bits |= u32::from(it == tag) << slot;
        }
        bits
    }
}

/// Hash table of entry ids. The keys themselves stay in the records: whoever asks compares them.
///
/// A hash has 28 bits, well mixed.
pub struct Index {
    buckets: Vec<Bucket>,
    len: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self::new()
    }
}

impl Index {
    /// An empty table.
    pub fn new() -> Self {
        Self { buckets: empty(BUCKETS_MIN), len: 0 }
    }

    /// Entries in the table.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bucket that a hash belongs to.
    #[inline]
    pub(crate) fn bucket_of(&self, hash: u32) -> usize {
        let count = u32::try_from(self.buckets.len()).unwrap_or(u32::MAX);
        fast_range(hash << 4, count) as usize
    }

    #[inline]
    fn next(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() { 0 } else { bucket + 1 }
    }

    /// The entry of this 28-bit hash for which `is_it` says yes.
    #[inline]
    pub fn find(&self, hash: u32, mut is_it: impl FnMut(EntryId) -> bool) -> Option<EntryId> {
        let tag = slot_tag(hash);
        let mut at = self.bucket_of(hash);
        // Entries that were passed over may outlast those that filled their bucket, so in a small
        // table every bucket can have a spill: the walk ends where it began.
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            let mut matches = bucket.matches(tag);
            while matches != 0 {
                let id = bucket.ids[matches.trailing_zeros() as usize];
                if is_it(id) {
                    return Some(id);
                }
                matches &= matches - 1;
            }
            if bucket.spill == 0 {
                return None;
            }
            at = self.next(at);
        }
        None
    }

    /// The first entry whose tag fits this hash, which need not be the one looked for.
    #[inline]
    pub fn first(&self, hash: u32) -> Option<EntryId> {
        self.find(hash, |_| true)
    }

    /// Asks the processor to fetch the bucket of this hash.
    #[inline]
    pub fn prefetch(&self, hash: u32) {
        prefetch(&self.buckets[self.bucket_of(hash)]);
    }

    /// Adds an entry that is not in the table. `hash_of` gives the hash of the entries that are,
    /// should the table have to grow.
    pub fn insert(&mut self, hash: u32, id: EntryId, hash_of: impl Fn(EntryId) -> u32) {
        if self.len >= self.buckets.len() * LOAD_MAX {
            self.grow(hash_of);
        }
        self.place(hash, id);
        self.len += 1;
    }

    /// Makes room in an empty table for about so many entries, so that it need not grow on the way.
    pub(crate) fn reserve(&mut self, entries: u64) {
        debug_assert!(self.is_empty());
        let buckets = usize::try_from(entries).unwrap_or(0) / LOAD_MAX + 1;
        if buckets > self.buckets.len() {
            self.buckets = empty(buckets);
        }
    }

    fn place(&mut self, hash: u32, id: EntryId) {
        let mut at = self.bucket_of(hash);
        loop {
            let free = self.buckets[at].matches(EMPTY);
            if free != 0 {
                let slot = free.trailing_zeros() as usize;
                let bucket = &mut self.buckets[at];
                bucket.tags[slot] = slot_tag(hash);
                bucket.ids[slot] = id;
                return;
            }
            self.buckets[at].spill += 1;
            at = self.next(at);
        }
    }

    fn grow(&mut self, hash_of: impl Fn(EntryId) -> u32) {
        let count = self.buckets.len() + (self.buckets.len() / 4).max(BUCKETS_MIN);
        let old = std::mem::replace(&mut self.buckets, empty(count));
        for bucket in &old {
            for (slot, &tag) in bucket.tags.iter().enumerate() {
                if tag != EMPTY {
                    self.place(hash_of(bucket.ids[slot]), bucket.ids[slot]);
                }
            }
        }
    }

    /// Takes an entry out of the table.
    pub fn remove(&mut self, hash: u32, id: EntryId) {
        let tag = slot_tag(hash);
        let home = self.bucket_of(hash);
        let mut at = home;
        loop {
            let mut matches = self.buckets[at].matches(tag);
            while matches != 0 {
                let slot = matches.trailing_zeros() as usize;
                if self.buckets[at].ids[slot] == id {
                    self.buckets[at].tags[slot] = EMPTY;
                    self.unspill(home, at);
                    self.len -= 1;
                    return;
                }
                matches &= matches - 1;
            }
            assert!(self.buckets[at].spill > 0, "an entry that is removed is in the table");
            at = self.next(at);
        }
    }

    /// One entry less passed the buckets from `from` to before `to`.
    fn unspill(&mut self, from: usize, to: usize) {
        let mut at = from;
        while at != to {
            self.buckets[at].spill -= 1;
            at = self.next(at);
        }
    }

    /// The least hash that belongs to a bucket.
    pub(crate) fn first_hash_of(&self, bucket: usize) -> u32 {
        let first = ((bucket as u64) << TAG_BITS).div_ceil(self.buckets.len() as u64);
        u32::try_from(first).unwrap_or(u32::MAX)
    }

    /// Appends all entries that belong to these buckets, and others that stand where those may have
    /// spilled to, each once.
    pub(crate) fn collect(&self, buckets: Range<usize>, to: &mut Vec<EntryId>) {
        let mut at = buckets.start;
        for count in 1..=self.buckets.len() {
            let bucket = &self.buckets[at];
            let mut taken = !bucket.matches(EMPTY) & ((1 << SLOTS) - 1);
            while taken != 0 {
                to.push(bucket.ids[taken.trailing_zeros() as usize]);
                taken &= taken - 1;
            }
            if count >= buckets.len() && bucket.spill == 0 {
                break;
            }
            at = self.next(at);
        }
    }

    /// Writes the table to a snapshot.
    pub(crate) fn save(&self, to: &mut Writer<'_>) {
        to.u64(self.len as u64);
        to.column(&self.buckets, |bucket| {
            let mut bytes = [0; 64];
            bytes[..SLOTS].copy_from_slice(&bucket.tags);
            bytes[SLOTS..SLOTS + 4].copy_from_slice(&bucket.spill.to_le_bytes());
            let (ids, _) = bytes[SLOTS + 4..].as_chunks_mut::<4>();
            for (to, id) in ids.iter_mut().zip(bucket.ids) {
                *to = id.0.to_le_bytes();
            }
            bytes
        });
    }

    /// The table of a snapshot; `None` when it cannot be one of entries below `entries_high`.
    pub(crate) fn load(from: &mut Reader<'_>, entries_high: u32) -> Option<Self> {
        let len = usize::try_from(from.u64()?).ok()?;
        let rows = from.column::<64>()?;
        let (mut id_max, mut taken) = (0, 0);
        let mut buckets = huge_pages::with_capacity(rows.len());
        buckets.extend(rows.iter().map(|row| {
            let mut bucket = EMPTY_BUCKET;
            bucket.tags.copy_from_slice(&row[..SLOTS]);
            let (words, _) = row[SLOTS..].as_chunks::<4>();
            bucket.spill = u32::from_le_bytes(words[0]);
            for (slot, word) in words[1..].iter().enumerate() {
                bucket.ids[slot] = EntryId(u32::from_le_bytes(*word));
                let is_taken = bucket.tags[slot] != EMPTY;
                taken += usize::from(is_taken);
                id_max = id_max.max(if is_taken { bucket.ids[slot].0 } else { 0 });
            }
            bucket
        }));
        let is_sound =
            rows.len() >= BUCKETS_MIN && taken == len && (id_max < entries_high || taken == 0);
        is_sound.then_some(Self { buckets, len })
    }

    /// Memory of the table in bytes.
    pub fn bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }
}

/// So many empty buckets.
fn empty(count: usize) -> Vec<Bucket> {
    let mut buckets = huge_pages::with_capacity(count);
    buckets.resize(count, EMPTY_BUCKET);
    buckets
}

/// The low 8 bits of a hash, but never the mark of an empty slot.
#[inline]
fn slot_tag(hash: u32) -> u8 {
    hash.to_le_bytes()[0].max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::config::Geometry;
    use crate::hash::key_hash;

    #[test]
    fn a_bucket_is_one_cache_line() {
        assert_eq!(size_of::<Bucket>(), 64);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u32),
        Remove(prop::sample::Index),
    }

    fn op() -> impl Strategy<Value = Op> {
        // Few distinct hashes, so that buckets overflow and tags collide.
        let hash = prop_oneof![0..1u32 << 28, (0..4u32).prop_map(|n| n << 20), Just(77)];
        prop_oneof![3 => hash.prop_map(Op::Insert), 2 => any::<prop::sample::Index>().prop_map(Op::Remove)]
    }

    proptest! {
        #[test]
        fn an_index_finds_what_was_inserted_and_nothing_else(ops in prop::collection::vec(op(), 1..600)) {
            let mut index = Index::new();
            let mut model: HashMap<u32, u32> = HashMap::new();
            let mut next = 0;
            for op in ops {
                match op {
                    Op::Insert(hash) => {
                        model.insert(next, hash);
                        index.insert(hash, EntryId(next), |id| model[&id.0]);
                        next += 1;
                    }
                    Op::Remove(which) if !model.is_empty() => {
                        let mut ids: Vec<u32> = model.keys().copied().collect();
                        ids.sort_unstable();
                        let id = ids[which.index(ids.len())];
                        index.remove(model[&id], EntryId(id));
                        model.remove(&id);
                    }
                    Op::Remove(_) => {}
                }
                prop_assert_eq!(index.len(), model.len());
            }
            for (&id, &hash) in &model {
                prop_assert_eq!(index.find(hash, |it| it.0 == id), Some(EntryId(id)));
            }
            prop_assert_eq!(index.find(123, |id| !model.contains_key(&id.0)), None);
        }
    }

    /// Entries of an index over the keys of one shard of so many, and the buckets that a search for
    /// each of them looks at, summed up.
    fn searched(shard_count: u32) -> (usize, usize) {
        let geometry = Geometry { shard_count, ..Geometry::new(64 << 20, 1 << 20, 1) };
        let tagging = geometry.tagging();
        let hashes = (0u64..).map(|n| key_hash(&n.to_le_bytes()));
        let tags: Vec<u32> = hashes
            .filter(|&hash| geometry.shard_of(hash) == shard_count / 2)
            .map(|hash| tagging.tag_of(hash))
            .take(50_000)
            .collect();
        let mut index = Index::new();
        for (id, &tag) in (0..).zip(&tags) {
            index.insert(tag, EntryId(id), |id| tags[id.index()]);
        }
        let searched = (0..).zip(&tags).map(|(id, &tag)| {
            let (mut at, mut count) = (index.bucket_of(tag), 1);
            while !index.buckets[at].ids.contains(&EntryId(id)) {
                (at, count) = (index.next(at), count + 1);
            }
            count
        });
        (tags.len(), searched.sum())
    }

    #[test]
    fn an_index_is_filled_as_evenly_whichever_bits_chose_its_shard() {
        let (entries, alone) = searched(1);
        for shard_count in [2, 16, 256] {
            let (_, of_many) = searched(shard_count);
            assert!(of_many < alone + entries / 20, "{of_many} buckets after {alone}");
        }
        assert!(alone < entries * 5 / 4, "{alone} buckets for {entries} entries");
    }

    #[test]
    fn the_entries_of_any_buckets_are_collected_once() {
        let hash = |n: u32| n.wrapping_mul(0x9e37_79b9) >> 4;
        let mut index = Index::new();
        for id in 0..5_000 {
            index.insert(hash(id), EntryId(id), |id| hash(id.0));
        }
        let count = index.buckets.len();
        for from in 0..count {
            for to in [from + 1, (from + 7).min(count), count] {
                let mut collected = Vec::new();
                index.collect(from..to, &mut collected);
                collected.retain(|id| (from..to).contains(&index.bucket_of(hash(id.0))));
                collected.sort_unstable();
                let end = if to == count { 1 << TAG_BITS } else { index.first_hash_of(to) };
                let hashes = index.first_hash_of(from)..end;
                let expected: Vec<EntryId> =
                    (0..5_000).filter(|&id| hashes.contains(&hash(id))).map(EntryId).collect();
                assert_eq!(collected, expected, "buckets {from}..{to} of {count}");
            }
        }
    }

    #[test]
    fn a_search_for_what_is_absent_ends_in_a_table_that_is_full_and_old() {
        // As full as a table of the smallest size becomes, one entry replaced at a time.
        let mut index = Index::new();
        let hash = |n: u32| n.wrapping_mul(0x9e37_79b9) >> 4;
        let full = u32::try_from(BUCKETS_MIN * LOAD_MAX).unwrap();
        let (mut entries, mut seed) = ((0..full).collect::<Vec<u32>>(), 1u32);
        for &id in &entries {
            index.insert(hash(id), EntryId(id), |id| hash(id.0));
        }
        for new in full..full + 20_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let leaving = (seed >> 8) as usize % entries.len();
            let old = std::mem::replace(&mut entries[leaving], new);
            index.remove(hash(old), EntryId(old));
            index.insert(hash(new), EntryId(new), |id| hash(id.0));
            assert_eq!(index.find(hash(old), |id| id.0 == old), None);
        }
        assert_eq!(index.buckets.len(), BUCKETS_MIN, "the table did not grow");
    }

    #[test]
    fn an_entry_costs_at_most_eight_bytes_once_the_table_has_grown() {
        let mut index = Index::new();
        let hash = |id: u32| id.wrapping_mul(0x9e37_79b9) >> 4;
        for id in 0..100_000 {
            index.insert(hash(id), EntryId(id), |id| hash(id.0));
            if id > 10_000 {
                assert!(index.bytes() <= (id as usize + 1) * 8 + 1024);
            }
        }
    }
}
