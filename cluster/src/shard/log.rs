//! The end of a shard's log: writes that some member of the in-sync set may still lack.
//!
//! ```text
//! ... forgotten | base | entry | entry | ... | last
//!                        ^ committed may stand anywhere from base on
//! ```
//!
//! What a write left is in the store; the log keeps it only until every member has it, so that a member
//! that fell behind, or a new primary, can be given the rest in order.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{Sequence, Version};

/// A write that was ordered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Which write.
    pub version: Version,
    /// What it left, opaque here.
    pub op: Bytes,
}

/// The end of a shard's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Log {
    base: Version,
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Log {
    /// A log of which nothing is kept, and whose last write was `last`.
    pub(super) fn at(last: Version) -> Self {
        Self { base: last, entries: VecDeque::new(), bytes: 0 }
    }

    /// The last write.
    #[inline]
    pub fn last(&self) -> Version {
        self.entries.back().map_or(self.base, |entry| entry.version)
    }

    /// The write before the first that is kept.
    pub fn base(&self) -> Version {
        self.base
    }

    /// Bytes of the writes that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The writes that are kept, the oldest first.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    #[inline]
    pub(super) fn push(&mut self, entry: Entry) {
        debug_assert!(entry.version > self.last(), "writes are ordered");
        debug_assert!(
            entry.version.sequence().0 == self.last().sequence().0 + 1,
            "and leave no gap"
        );
        self.bytes += entry.op.len();
        self.entries.push_back(entry);
    }

    /// Where in the log `version` stands: how many of the kept writes are not after it. `None` when it is
    /// none of this log, or forgotten.
    pub(super) fn place_of(&self, version: Version) -> Option<usize> {
        if version == self.base {
            return Some(0);
        }
        let index = version.sequence().0.checked_sub(self.base.sequence().0 + 1)?;
        let index = usize::try_from(index).ok()?;
        (self.entries.get(index)?.version == version).then_some(index + 1)
    }

    /// The write after the one at `place`, if it is there.
    pub(super) fn next(&self, place: usize) -> Option<&Entry> {
        self.entries.get(place)
    }

    /// The writes after the one at `place`.
    pub(super) fn after(&self, place: usize) -> impl Iterator<Item = &Entry> {
        self.entries.range(place..)
    }

    /// Forgets the writes up to `through`.
    #[inline]
    pub(super) fn forget(&mut self, through: Sequence) {
        while let Some(entry) = self.entries.front()
            && entry.version.sequence() <= through
        {
            self.base = entry.version;
            self.bytes -= entry.op.len();
            self.entries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    fn version(epoch: u32, sequence: u64) -> Version {
        Version::new(Epoch(epoch), Sequence(sequence))
    }

    fn log(versions: &[(u32, u64)]) -> Log {
        let mut log = Log::default();
        for &(epoch, sequence) in versions {
            log.push(Entry { version: version(epoch, sequence), op: Bytes::from_static(b"op") });
        }
        log
    }

    #[test]
    fn version_of_another_history_has_no_place() {
        let log = log(&[(1, 1), (1, 2), (3, 3)]);
        assert_eq!(log.place_of(version(1, 2)), Some(2));
        assert_eq!(log.place_of(version(3, 3)), Some(3));
        assert_eq!(log.place_of(version(2, 3)), None);
        assert_eq!(log.place_of(version(3, 4)), None);
        assert_eq!(log.place_of(Version::ZERO), Some(0));
    }

    #[test]
    fn what_is_forgotten_leaves_its_version_behind() {
        let mut log = log(&[(1, 1), (1, 2), (3, 3)]);
        log.forget(Sequence(2));
        assert_eq!(log.base(), version(1, 2));
        assert_eq!(log.place_of(version(1, 2)), Some(0));
        assert_eq!(log.place_of(version(1, 1)), None);
        assert_eq!(log.bytes(), 2);
        log.forget(Sequence(9));
        assert_eq!(log.last(), version(3, 3));
    }
}
