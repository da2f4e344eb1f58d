//! SIEVE: a queue that never reorders, and a hand that sieves out what was not read.
//!
//! Y. Zhang, J. Yang, Y. Yue, Y. Vigfusson, K. V. Rashmi, "SIEVE is simpler than LRU: an efficient
//! turn-key eviction algorithm for web caches", NSDI 2024.
//!
//! ```text
//! newest ─> g ─> f ─> e* ─> d ─> c* ─> b ─> a <─ oldest        * visited
//!                               hand
//! ```
//!
//! The hand moves from oldest to newest, clears the mark of what was visited, evicts the first entry
//! that was not, and stays there: entries that survived lie behind it, newcomers ahead of it, so a
//! newcomer that nobody reads is soon met. Past the newest the hand starts again at the oldest.

use crate::column::Column;
use crate::list::{Links, List};
use crate::snapshot::{Reader, Writer, check};
use crate::{EntryId, KeyHash, Kind, Policy, SnapshotError};

/// SIEVE.
#[derive(Debug)]
pub struct Sieve {
    queue: List,
    links: Links,
    /// Read since it was inserted, or since the hand last passed.
    visited: Column<bool>,
    /// Where the next search starts; `None` is the oldest.
    hand: Option<EntryId>,
}

impl Sieve {
    /// An empty queue with columns reserved for `entries_max` entries.
    pub fn new(entries_max: usize) -> Self {
        Self {
            queue: List::EMPTY,
            links: Links::with_capacity(entries_max),
            visited: Column::with_capacity(entries_max),
            hand: None,
        }
    }
}

impl Policy for Sieve {
    fn on_insert(&mut self, entry: EntryId, _key: KeyHash, _weight: u32) {
        self.queue.push_newest(&mut self.links, entry);
        self.visited.set(entry, false);
    }

    fn on_hit(&mut self, entry: EntryId) {
        self.visited[entry] = true;
    }

    fn next_victim(&self) -> Option<EntryId> {
        self.hand.or_else(|| self.queue.oldest())
    }

    fn on_update(&mut self, entry: EntryId, _weight: u32) {
        self.on_hit(entry);
    }

    fn on_remove(&mut self, entry: EntryId) {
        if self.hand == Some(entry) {
            self.hand = List::newer(&self.links, entry);
        }
        self.queue.remove(&mut self.links, entry);
    }

    fn evict(&mut self) -> Option<EntryId> {
        let oldest = self.queue.oldest()?;
        let mut entry = self.hand.unwrap_or(oldest);
        // Ends after one round at the latest: by then every mark is cleared.
        while self.visited[entry] {
            self.visited[entry] = false;
            entry = List::newer(&self.links, entry).unwrap_or(oldest);
        }
        self.hand = List::newer(&self.links, entry);
        self.queue.remove(&mut self.links, entry);
        Some(entry)
    }

    fn save(&self, to: &mut Vec<u8>) {
        let mut to = Writer::new(to, Kind::Sieve);
        self.queue.save(&mut to);
        to.entry(self.hand);
        self.links.save(&mut to);
        self.visited.save(&mut to);
    }

    fn load(&mut self, from: &[u8]) -> Result<(), SnapshotError> {
        let mut from = Reader::new(from, Kind::Sieve)?;
        self.queue = List::load(&mut from)?;
        self.hand = from.entry()?;
        let rows = self.links.load(&mut from)?;
        self.visited.load(rows, &mut from)?;
        from.finish()?;
        check(self.hand.is_none_or(|hand| self.links.stands(hand)), "place of the hand")?;
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

    /// Entries from oldest to newest, their marks, and the index of the hand.
    struct Model {
        queue: Vec<(EntryId, bool)>,
        hand: usize,
    }

    impl Model {
        fn take(&mut self, at: usize) {
            self.queue.remove(at);
            if at < self.hand {
                self.hand -= 1;
            }
        }
    }

    impl Policy for Model {
        fn on_insert(&mut self, entry: EntryId, _key: KeyHash, _weight: u32) {
            // A hand that passed the newest is already on its way to the oldest.
            if self.hand == self.queue.len() {
                self.hand = 0;
            }
            self.queue.push((entry, false));
        }

        fn on_hit(&mut self, entry: EntryId) {
            for (other, visited) in &mut self.queue {
                *visited |= *other == entry;
            }
        }

        fn on_update(&mut self, entry: EntryId, _weight: u32) {
            self.on_hit(entry);
        }

        fn on_remove(&mut self, entry: EntryId) {
            let at = self.queue.iter().position(|(other, _)| *other == entry).unwrap();
            self.take(at);
        }

        fn evict(&mut self) -> Option<EntryId> {
            if self.queue.is_empty() {
                return None;
            }
            loop {
                self.hand %= self.queue.len();
                let (entry, visited) = self.queue[self.hand];
                if !visited {
                    self.take(self.hand);
                    return Some(entry);
                }
                self.queue[self.hand].1 = false;
                self.hand += 1;
            }
        }

        never_restarted!();
    }

    proptest! {
        #[test]
        fn victims_are_those_of_a_vector_with_a_hand(ops in ops(40, 9), capacity in 1..60_u64) {
            let model = Model { queue: Vec::new(), hand: 0 };
            assert_same_victims(Sieve::new(0), model, capacity, &ops)?;
        }
    }
}
