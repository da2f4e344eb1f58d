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
use crate::{EntryId, KeyHash, Policy};

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
}
