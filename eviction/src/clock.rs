//! CLOCK: a queue in which an entry that was read gets a second round.
//!
//! F. J. Corbató, "A paging experiment with the Multics system", MIT Project MAC, 1968. In the form
//! with a queue (FIFO with reinsertion) rather than a ring with a hand; both choose the same victims.
//! The bit starts at 0: an entry earns its second round by being read, not by arriving.

use crate::column::Column;
use crate::list::{Links, List};
use crate::snapshot::{Reader, Writer};
use crate::{EntryId, KeyHash, Kind, Policy, SnapshotError};

/// FIFO with one second chance.
#[derive(Debug)]
pub struct Clock {
    queue: List,
    links: Links,
    /// Read since it entered the queue, or since it was last passed over.
    visited: Column<bool>,
}

impl Clock {
    /// An empty queue with columns reserved for `entries_max` entries.
    pub fn new(entries_max: usize) -> Self {
        Self {
            queue: List::EMPTY,
            links: Links::with_capacity(entries_max),
            visited: Column::with_capacity(entries_max),
        }
    }
}

impl Policy for Clock {
    fn on_insert(&mut self, entry: EntryId, _key: KeyHash, _weight: u32) {
        self.queue.push_newest(&mut self.links, entry);
        self.visited.set(entry, false);
    }

    fn on_hit(&mut self, entry: EntryId) {
        self.visited[entry] = true;
    }

    fn next_victim(&self) -> Option<EntryId> {
        self.queue.oldest()
    }

    fn on_update(&mut self, entry: EntryId, _weight: u32) {
        self.on_hit(entry);
    }

    fn on_remove(&mut self, entry: EntryId) {
        self.queue.remove(&mut self.links, entry);
    }

    fn evict(&mut self) -> Option<EntryId> {
        // Ends after one round at the latest: by then every bit is cleared.
        loop {
            let entry = self.queue.oldest()?;
            if !self.visited[entry] {
                self.queue.remove(&mut self.links, entry);
                return Some(entry);
            }
            self.visited[entry] = false;
            self.queue.renew(&mut self.links, entry);
        }
    }

    fn save(&self, to: &mut Vec<u8>) {
        let mut to = Writer::new(to, Kind::Clock);
        self.queue.save(&mut to);
        self.links.save(&mut to);
        self.visited.save(&mut to);
    }

    fn load(&mut self, from: &[u8]) -> Result<(), SnapshotError> {
        let mut from = Reader::new(from, Kind::Clock)?;
        self.queue = List::load(&mut from)?;
        let rows = self.links.load(&mut from)?;
        self.visited.load(rows, &mut from)?;
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

    /// Entries in the order of the queue, and their bits.
    struct Model(Vec<(EntryId, bool)>);

    impl Policy for Model {
        fn on_insert(&mut self, entry: EntryId, _key: KeyHash, _weight: u32) {
            self.0.push((entry, false));
        }

        fn on_hit(&mut self, entry: EntryId) {
            for (other, visited) in &mut self.0 {
                *visited |= *other == entry;
            }
        }

        fn on_update(&mut self, entry: EntryId, _weight: u32) {
            self.on_hit(entry);
        }

        fn on_remove(&mut self, entry: EntryId) {
            self.0.retain(|(other, _)| *other != entry);
        }

        fn evict(&mut self) -> Option<EntryId> {
            while !self.0.is_empty() {
                let (entry, visited) = self.0.remove(0);
                if !visited {
                    return Some(entry);
                }
                self.0.push((entry, false));
            }
            None
        }

        never_restarted!();
    }

    proptest! {
        #[test]
        fn victims_are_those_of_a_rotated_vector(ops in ops(40, 9), capacity in 1..60_u64) {
            assert_same_victims(Clock::new(0), Model(Vec::new()), capacity, &ops)?;
        }
    }
}
