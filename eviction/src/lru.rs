//! Least recently used: the entry that was read longest ago leaves.
//!
//! R. L. Mattson, J. Gecsei, D. R. Slutz, I. L. Traiger, "Evaluation techniques for storage
//! hierarchies", IBM Systems Journal 9(2), 1970.

use crate::list::{Links, List};
use crate::{EntryId, KeyHash, Policy};

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

    fn on_update(&mut self, entry: EntryId, _weight: u32) {
        self.on_hit(entry);
    }

    fn on_remove(&mut self, entry: EntryId) {
        self.recency.remove(&mut self.links, entry);
    }

    fn evict(&mut self) -> Option<EntryId> {
        self.recency.pop_oldest(&mut self.links)
    }
}
