//! First in, first out: the entry that came first leaves first, read or not.
//!
//! L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems
//! Journal 5(2), 1966. The yardstick below which no policy should fall.

use crate::list::{Links, List};
use crate::snapshot::{Reader, Writer};
use crate::{EntryId, KeyHash, Kind, Policy, SnapshotError};

/// First in, first out.
#[derive(Debug)]
pub struct Fifo {
    queue: List,
    links: Links,
}

impl Fifo {
    /// An empty queue with columns reserved for `entries_max` entries.
    pub fn new(entries_max: usize) -> Self {
        Self { queue: List::EMPTY, links: Links::with_capacity(entries_max) }
    }
}

impl Policy for Fifo {
    fn on_insert(&mut self, entry: EntryId, _key: KeyHash, _weight: u32) {
        self.queue.push_newest(&mut self.links, entry);
    }

    fn on_hit(&mut self, _entry: EntryId) {}

    fn next_victim(&self) -> Option<EntryId> {
        self.queue.oldest()
    }

    fn on_update(&mut self, _entry: EntryId, _weight: u32) {}

    fn on_remove(&mut self, entry: EntryId) {
        self.queue.remove(&mut self.links, entry);
    }

    fn evict(&mut self) -> Option<EntryId> {
        self.queue.pop_oldest(&mut self.links)
    }

    fn save(&self, to: &mut Vec<u8>) {
        let mut to = Writer::new(to, Kind::Fifo);
        self.queue.save(&mut to);
        self.links.save(&mut to);
    }

    fn load(&mut self, from: &[u8]) -> Result<(), SnapshotError> {
        let mut from = Reader::new(from, Kind::Fifo)?;
        self.queue = List::load(&mut from)?;
        self.links.load(&mut from)?;
        from.finish()?;
        self.links.check([self.queue], |_| 0)
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

    /// Entries in the order they came.
    struct Model(Vec<EntryId>);

    impl Policy for Model {
        fn on_insert(&mut self, entry: EntryId, _key: KeyHash, _weight: u32) {
            self.0.push(entry);
        }

        fn on_hit(&mut self, _entry: EntryId) {}

        fn on_update(&mut self, _entry: EntryId, _weight: u32) {}

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
        fn victims_are_those_of_a_queue(ops in ops(40, 9), capacity in 1..60_u64) {
            assert_same_victims(Fifo::new(0), Model(Vec::new()), capacity, &ops)?;
        }
    }
}
