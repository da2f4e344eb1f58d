//! Which items may be others than they were: for whoever keeps copies of them outside the shard.
//!
//! Keys fall into [`GROUPS`] groups by their hash. A group has changed when an item of one of its keys was
//! written, changed in place, or left, whatever for. What an item is used for is no change, nor is a mark.

use eviction::KeyHash;

use crate::config::Geometry;
use crate::shard::Shard;

/// Groups of keys in each shard.
pub const GROUPS: usize = 256;

const WORDS: usize = GROUPS / u64::BITS as usize;

/// Groups that have changed, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangedGroups([u64; WORDS]);

impl ChangedGroups {
    /// All of them.
    pub const ALL: Self = Self([u64::MAX; WORDS]);

    #[inline]
    pub(crate) fn add(&mut self, tag: u32) {
        let group = group_of_tag(tag);
        self.0[group / 64] |= 1 << (group % 64);
    }

    /// Whether none has.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// The groups, each below [`GROUPS`], in order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..).zip(self.0).flat_map(|(word, mut bits): (usize, u64)| {
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros() as usize);
                bits &= bits.wrapping_sub(1);
                bit.map(|bit| word * 64 + bit)
            })
        })
    }
}

#[inline]
fn group_of_tag(tag: u32) -> usize {
    usize::from(tag.to_le_bytes()[0])
}

impl Geometry {
    /// The group, within its shard, of a key with this hash.
    #[inline]
    pub fn group_of(&self, hash: KeyHash) -> usize {
        group_of_tag(self.tagging().tag_of(hash))
    }
}

impl Shard {
    /// The groups that have changed since this was called last.
    #[inline]
    pub fn take_changed_groups(&mut self) -> ChangedGroups {
        std::mem::take(self.changed_groups_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_listed_in_order_and_once() {
        let mut changed = ChangedGroups::default();
        assert!(changed.is_empty());
        [255, 0, 64, 63, 64].into_iter().for_each(|tag| changed.add((tag << 8) | tag));
        assert_eq!(changed.iter().collect::<Vec<_>>(), [0, 63, 64, 255]);
        assert_eq!(ChangedGroups::ALL.iter().collect::<Vec<_>>(), (0..GROUPS).collect::<Vec<_>>());
    }
}
