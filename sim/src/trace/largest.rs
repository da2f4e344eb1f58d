//! `Largest`: the largest size seen of each object so far.
//!
//! A log of an HTTP server says how much was sent, which is less than the object where it was not
//! modified (304) or a part was asked for (206). The best guess at an object's size is the most that was
//! ever sent of it. Memory: some 16 to 32 bytes for each object of the log.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64;

/// Sizes by object.
#[derive(Debug, Default)]
pub(crate) struct Largest(HashTable<(u64, u32)>);

impl Largest {
    /// Takes note of a size of an object and returns the largest by now.
    pub(crate) fn of(&mut self, id: u64, size_bytes: u32) -> u32 {
        let hash = |id: u64| xxh3_64(&id.to_le_bytes());
        match self.0.entry(hash(id), |&(other, _)| other == id, |&(other, _)| hash(other)) {
            Entry::Occupied(mut place) => {
                let (_, largest) = place.get_mut();
                *largest = size_bytes.max(*largest);
                *largest
            }
            Entry::Vacant(place) => {
                place.insert((id, size_bytes));
                size_bytes
            }
        }
    }
}
