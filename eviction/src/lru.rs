//! Least recently used: the entry that was read longest ago leaves.
//!
//! R. L. Mattson, J. Gecsei, D. R. Slutz, I. L. Traiger, "Evaluation techniques for storage
//! hierarchies", IBM Systems Journal 9(2), 1970.

use crate::list::{Links, List};
use crate::snapshot::{Reader, Writer};
use crate::{EntryId, KeyHash, Kind, Policy, SnapshotError};

/// Least recently used.
#[derive(Debug)]
pub struct Lru {
    recency: List,
    links: Links,
}

impl Lru {
    /// An empty list with columns reserved for `entries_max` entries.
    pub fn new(entries_max: usize) -> Self {
        Self { recency: List::EMPTY, links: Links::with_capacity(entries_max) }
    }
}

impl Policy for Lru {
    fn on_insert(&mut self, entry: EntryId, _key: KeyHash, _weight: u32) {
        self.recency.push_newest(&mut self.links, entry);
    }

    fn on_hit(&mut self, entry: EntryId) {
        self.recency.renew(&mut self.links, entry);
    }

    fn hit_addresses(&self, entry: EntryId) -> [*const u8; 2] {
        [self.links.address(entry), std::ptr::null()]
    }

    fn next_victim(&self) -> Option<EntryId> {
        self.recency.oldest()
    }

    fn on_update(&mut self, entry: EntryId, _weight: u32) {
        self.on_hit(entry);
    }

    fn on_remove(&mut self, entry: EntryId) {
        self.recency.remove(&mut self.links, entry);
    }

    fn evict(&mut self) -> Option<EntryId> {
        self.recency.pop_oldest(&mut self.links)
    }

    fn save(&self, to: &mut Vec<u8>) {
        let mut to = Writer::new(to, Kind::Lru);
        self.recency.save(&mut to);
        self.links.save(&mut to);
    }

    fn load(&mut self, from: &[u8]) -> Result<(), SnapshotError> {
        let mut from = Reader::new(from, Kind::Lru)?;
        self.recency = List::load(&mut from)?;
        self.links.load(&mut from)?;
        from.finish()?;
        self.links.check([self.recency], |_| 0)
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

    /// Entries from least to most recently used.
    struct Model(Vec<EntryId>);

    impl Policy for Model {
        fn on_insert(&mut self, entry: EntryId, _key: KeyHash, _weight: u32) {
            self.0.push(entry);
        }

        fn on_hit(&mut self, entry: EntryId) {
            self.on_remove(entry);
            self.0.push(entry);
        }

        fn on_update(&mut self, entry: EntryId, _weight: u32) {
            self.on_hit(entry);
        }

        fn on_remove(&mut self, entry: EntryId) {
            self.0.retain(|other| *other != entry);
        }

        fn evict(&mut self) -> Option<EntryId> {
            if self.0.is_empty() { None } else { Some(self.0.remove(0)) }
        }

        never_restarted!();
    }

    proptest! {
        #[test]
        fn victims_are_those_of_a_reordered_vector(ops in ops(40, 9), capacity in 1..60_u64) {
            assert_same_victims(Lru::new(0), Model(Vec::new()), capacity, &ops)?;
        }
    }

    fn lru_of(entries: &[u32]) -> Lru {
        let mut lru = Lru::new(entries.len());
        for &entry in entries {
            lru.on_insert(EntryId(entry), KeyHash(entry.into()), 1);
        }
        lru
    }

    #[test]
    fn hit_saves_the_oldest_entry() {
        let mut lru = lru_of(&[1, 2, 3]);
        lru.on_hit(EntryId(1));
        assert_eq!(lru.evict(), Some(EntryId(2)));
    }
}
