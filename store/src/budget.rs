//! `Budget`: how many items a shard may hold, counted in footprints.
//!
//! The shard asks it before every write, and the simulator's shard asks the very same code, so both
//! evict at the same moment.
//!
//! - Columns are indexed by dense entry ids and do not shrink while the shard lives, so an id that
//!   is free still costs its columns. What the high-water mark costs beyond the resident entries is
//!   charged as idle.

use crate::record::Footprint;
use crate::size_counts::SizeCounts;
use crate::snapshot::{Reader, Writer};

/// What a shard's items may take, and what they take now.
#[derive(Clone, Debug)]
pub struct Budget {
    bytes_max: u64,
    used_bytes: u64,
    entries: u64,
    entries_high: u64,
    entry_bytes: u64,
    /// Where somebody wants to know.
    sizes: Option<Box<SizeCounts>>,
}

impl Budget {
    /// A budget of `bytes_max` ([`crate::Geometry::items_bytes_max`]) for items whose entries cost
    /// `entry_bytes` of columns each (index and policy included).
    pub fn new(bytes_max: u64, entry_bytes: u32) -> Self {
        Self {
            bytes_max,
            used_bytes: 0,
            entries: 0,
            entries_high: 0,
            entry_bytes: u64::from(entry_bytes),
            sizes: None,
        }
    }

    /// Bytes of footprint that the shard may hold.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes charged now: footprints of the resident items, and idle columns.
    #[inline]
    pub fn charged_bytes(&self) -> u64 {
        self.used_bytes + (self.entries_high - self.entries) * self.entry_bytes
    }

    /// Sum of the resident items' footprints in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Resident items.
    pub fn items(&self) -> u64 {
        self.entries
    }

    /// Whether an item of `footprint` could be held by an otherwise empty shard.
    pub fn could_hold(&self, footprint: Footprint) -> bool {
        footprint.bytes() <= self.bytes_max
    }

    /// Whether ids are free, so that building the columns anew would give memory back.
    pub fn has_idle(&self) -> bool {
        self.entries_high > self.entries
    }

    /// Whether a new item of `footprint` fits without an eviction.
    #[inline]
    pub fn fits(&self, footprint: Footprint) -> bool {
        // A free id is there for the newcomer: its columns are in the idle bytes already.
        let reused = if self.entries_high > self.entries { self.entry_bytes } else { 0 };
        self.charged_bytes() + footprint.bytes() - reused <= self.bytes_max
    }

    /// Whether a resident item of footprint `old` may become one of `new` without an eviction.
    #[inline]
    pub fn fits_replacing(&self, old: Footprint, new: Footprint) -> bool {
        self.charged_bytes() - old.bytes() + new.bytes() <= self.bytes_max
    }

    /// Whether free ids hold so much memory that the columns are worth building anew: after items
    /// became much larger than they were, an eighth of the budget.
    #[inline]
    pub fn wants_compaction(&self) -> bool {
        (self.entries_high - self.entries) * self.entry_bytes > self.bytes_max / 8
    }

    /// Counts an item that became resident.
    #[inline]
    pub fn insert(&mut self, footprint: Footprint) {
        self.used_bytes += footprint.bytes();
        self.entries += 1;
        self.entries_high = self.entries_high.max(self.entries);
        if let Some(sizes) = &mut self.sizes {
            sizes.insert(footprint);
        }
    }

    /// Counts an item that left.
    #[inline]
    pub fn remove(&mut self, footprint: Footprint) {
        debug_assert!(self.entries > 0 && self.used_bytes >= footprint.bytes());
        self.used_bytes -= footprint.bytes();
        self.entries -= 1;
        if let Some(sizes) = &mut self.sizes {
            sizes.remove(footprint);
        }
    }

    /// Counts an item whose value was replaced.
    #[inline]
    pub fn replace(&mut self, old: Footprint, new: Footprint) {
        self.used_bytes = self.used_bytes - old.bytes() + new.bytes();
        if let Some(sizes) = &mut self.sizes {
            sizes.remove(old);
            sizes.insert(new);
        }
    }

    /// Goes on counting sizes from `counts`, which are those of the resident items.
    pub(crate) fn set_size_counts(&mut self, counts: SizeCounts) {
        self.sizes = Some(Box::new(counts));
    }

    pub(crate) fn size_counts(&self) -> Option<&SizeCounts> {
        self.sizes.as_deref()
    }

    /// Forgets all items, for a budget of `bytes_max` and entries of `entry_bytes`.
    pub(crate) fn begin_anew(&mut self, bytes_max: u64, entry_bytes: u32) {
        self.clear();
        self.bytes_max = bytes_max;
        self.entry_bytes = u64::from(entry_bytes);
    }

    /// Writes what is used to a snapshot.
    pub(crate) fn save(&self, to: &mut Writer<'_>) {
        for number in [self.used_bytes, self.entries, self.entries_high] {
            to.u64(number);
        }
    }

    /// Takes what is used from a snapshot.
    pub(crate) fn load(&mut self, from: &mut Reader<'_>) -> Option<()> {
        for number in [&mut self.used_bytes, &mut self.entries, &mut self.entries_high] {
            *number = from.u64()?;
        }
        Some(())
    }

    /// Forgets all items and the high-water mark, as when the columns are built anew.
    pub fn clear(&mut self) {
        (self.used_bytes, self.entries, self.entries_high) = (0, 0, 0);
        if let Some(sizes) = &mut self.sizes {
            sizes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footprint(bytes: u32) -> Footprint {
        Footprint::from_bytes(bytes)
    }

    #[test]
    fn a_budget_takes_items_until_it_is_full() {
        let mut budget = Budget::new(1000, 10);
        budget.insert(footprint(600));
        assert!(budget.fits(footprint(400)));
        assert!(!budget.fits(footprint(401)));
        assert!(budget.fits_replacing(footprint(600), footprint(1000)));
    }

    #[test]
    fn ids_of_items_that_left_are_still_charged_until_they_are_reused() {
        let mut budget = Budget::new(1000, 10);
        budget.insert(footprint(100));
        budget.insert(footprint(100));
        budget.remove(footprint(100));
        budget.remove(footprint(100));
        assert_eq!(budget.charged_bytes(), 20);
        assert!(budget.fits(footprint(990)), "the newcomer takes one of the two ids");
        assert!(!budget.fits(footprint(991)));
    }
}
