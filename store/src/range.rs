//! The items whose key hashes lie in a range, walked in slices: one cluster shard of a store shard.
//!
//! ```text
//! index    | bucket | bucket | bucket | bucket | bucket |      in the order of tags
//!          0 ........ |---- range ------------| ....... max
//!                          ▲ place: a tag, whatever becomes of buckets and entries
//! ```
//!
//! - Items outside of the range are passed by without being looked at, so a walk costs what the range
//!   holds, not what the shard does.
//! - An item that is there for the whole length of a walk is met once, in some state that it had
//!   meanwhile, also when the index grows or the columns are built anew between two slices. What is
//!   written, deleted or evicted meanwhile may be met or not.
//! - A walk is no use of an item: neither the policy nor the counters hear of it.

use eviction::{EntryId, KeyHash};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::chunks::Value;
use crate::hash::key_hash;
use crate::shard::{Item, Shard};
use crate::time::Timestamp;

/// Buckets whose entries are asked from memory together: some forty entries.
const BUCKETS_AT_ONCE: usize = 4;

/// Key hashes from a first to a last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashRange {
    first: u64,
    last: u64,
}

impl HashRange {
    /// All hashes.
    pub const ALL: Self = Self { first: 0, last: u64::MAX };

    /// The hashes whose top `bits` bits, at most 32, are `top`.
    pub fn with_top_bits(top: u32, bits: u32) -> Self {
        assert!(bits <= 32 && u64::from(top) >> bits == 0, "{top} has at most {bits} bits");
        let rest = u64::MAX.checked_shr(bits).unwrap_or(0);
        let first = if bits == 0 { 0 } else { u64::from(top) << (u64::BITS - bits) };
        Self { first, last: first | rest }
    }

    /// One hash.
    pub fn of(hash: KeyHash) -> Self {
        Self { first: hash.0, last: hash.0 }
    }

    /// Whether a hash is among them.
    #[inline]
    pub fn contains(&self, hash: KeyHash) -> bool {
        (self.first..=self.last).contains(&hash.0)
    }
}

/// Where a walk over a range stands. It begins at the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangePlace {
    /// The least tag that was not met yet.
    tag: u32,
}

/// After how much a slice of a walk ends: whichever is reached first. The last few items may go beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceLimit {
    /// Entries.
    pub entries: u32,
    /// Bytes of values.
    pub value_bytes: u64,
}

impl SliceLimit {
    /// The whole range at once.
    pub const NONE: Self = Self { entries: u32::MAX, value_bytes: u64::MAX };
}

/// An item met on a walk.
#[derive(Clone, Copy)]
pub struct RangeItem<'a> {
    /// The hash of its key.
    pub hash: KeyHash,
    /// Its key.
    pub key: &'a [u8],
    /// All else.
    pub item: Item<'a>,
}

impl RangeItem<'_> {
    /// 64 bits that are the same for items which clients cannot tell apart, on every node and in every
    /// build, and else differ but by a chance of one in 2^64: XXH3 over key hash, cas, deadline, flags,
    /// marks and the value's XXH3.
    ///
    /// The cas alone does not tell values apart, since a client may choose it.
    pub fn fingerprint(&self) -> u64 {
        let item = &self.item;
        let deadline = item.deadline.timestamp().map_or(u64::MAX, |at| at.0);
        let marks = u32::from(item.stale) | u32::from(item.win_sent) << 1;
        let mut fields = [0; 40];
        fields[0..8].copy_from_slice(&self.hash.0.to_le_bytes());
        fields[8..16].copy_from_slice(&item.cas.to_le_bytes());
        fields[16..24].copy_from_slice(&deadline.to_le_bytes());
        fields[24..28].copy_from_slice(&item.client_flags.to_le_bytes());
        fields[28..32].copy_from_slice(&marks.to_le_bytes());
        fields[32..40].copy_from_slice(&value_hash(&item.value).to_le_bytes());
        xxh3_64(&fields)
    }
}

/// The XXH3 of a value, in however many pieces it stands here.
fn value_hash(value: &Value<'_>) -> u64 {
    let mut pieces = value.pieces();
    match (pieces.next(), pieces.next()) {
        (None, _) => xxh3_64(&[]),
        (Some(whole), None) => xxh3_64(whole),
        (Some(first), Some(second)) => {
            let mut state = Xxh3::new();
            state.update(first);
            state.update(second);
            pieces.for_each(|piece| state.update(piece));
            state.digest()
        }
    }
}

impl Shard {
    /// Calls `visit` with the items in `range` from `from` on, up to `limit`, and returns where to go
    /// on; `None` at the end of the range.
    pub fn walk_range(
        &mut self,
        range: &HashRange,
        from: RangePlace,
        limit: SliceLimit,
        now: Timestamp,
        mut visit: impl FnMut(&RangeItem<'_>),
    ) -> Option<RangePlace> {
        self.flush_if_due(now);
        let (mut place, mut group) = (Some(from), Vec::new());
        let (mut entries, mut value_bytes) = (0u32, 0u64);
        while let Some(from) = place {
            if entries >= limit.entries || value_bytes >= limit.value_bytes {
                break;
            }
            place = self.gather(range, from, &mut group);
            // A group of none has taken its time as well.
            entries += u32::try_from(group.len()).unwrap_or(u32::MAX).max(1);
            for &id in &group {
                let key = self.record(id).key();
                let hash = key_hash(key);
                if !range.contains(hash) {
                    continue;
                }
                let item = self.item(id, self.usage(id, now));
                if item.deadline.is_due(now) {
                    continue;
                }
                value_bytes += item.value.len() as u64;
                visit(&RangeItem { hash, key, item });
            }
        }
        place
    }

    /// Removes the items in `range` from `from` on, some `entries_max` of them, and returns where to go
    /// on; `None` when there are none left. They are removed because somebody asked: no departures.
    pub fn remove_range(
        &mut self,
        range: &HashRange,
        from: RangePlace,
        entries_max: u32,
        now: Timestamp,
    ) -> Option<RangePlace> {
        self.flush_if_due(now);
        let (mut place, mut group) = (Some(from), Vec::new());
        let mut entries = 0u32;
        while let Some(from) = place.filter(|_| entries < entries_max) {
            place = self.gather(range, from, &mut group);
            entries += u32::try_from(group.len()).unwrap_or(u32::MAX).max(1);
            for &id in &group {
                let hash = key_hash(self.record(id).key());
                if range.contains(hash) {
                    self.sample_delete(hash);
                    self.delete_entry(id, now);
                }
            }
        }
        place
    }

    /// Replaces what is in `group` by the entries with the next tags that hashes in `range` can have,
    /// and returns the place after them. What a look at them touches is on its way from memory.
    fn gather(
        &mut self,
        range: &HashRange,
        from: RangePlace,
        group: &mut Vec<EntryId>,
    ) -> Option<RangePlace> {
        let (first, last) = self.tagging().tags_of(range.first, range.last);
        let first = first.max(from.tag);
        let index = self.index_ref();
        let (bucket, bucket_last) = (index.bucket_of(first), index.bucket_of(last));
        let bucket_end = (bucket + BUCKETS_AT_ONCE).min(bucket_last + 1);
        group.clear();
        index.collect(bucket..bucket_end, group);
        let is_end = bucket_end > bucket_last;
        let end = if is_end { last + 1 } else { index.first_hash_of(bucket_end) };
        self.prefetch_rows(group);
        // Some spilled into these buckets from those before.
        let entries = self.entries();
        group.retain(|&id| (first..end).contains(&entries.tag(id)));
        self.prefetch_records(group);
        (!is_end).then_some(RangePlace { tag: end })
    }
}
