//! Who was evicted, for whoever watches evictions.
//!
//! ```text
//! write ──▶ makes room ──▶ Victims, as many as there is room for ──▶ the caller, after the write
//! ```
//!
//! Nothing is noted, and nothing costs anything, until somebody watches. What is noted and not taken is
//! bounded: of the victims beyond that only their number is known.

use eviction::EntryId;

use crate::entries::state;
use crate::shard::Shard;
use crate::time::{Deadline, Timestamp};

/// Victims noted between two calls of [`Shard::take_victims`].
const VICTIMS_MAX: usize = 1024;

/// An item that was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Victim<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// The length of its value, in bytes.
    pub value_bytes: u64,
    /// When it would have expired.
    pub deadline: Deadline,
    /// Whether it was ever read.
    pub fetched: bool,
    /// Seconds since it was used.
    pub idle_secs: u32,
}

/// Victims in the order in which they left. Empty ones cost no memory.
#[derive(Debug, Default)]
pub struct Victims {
    rows: Vec<Row>,
    /// The keys, one after the other.
    keys: Vec<u8>,
    lost: u64,
}

#[derive(Debug)]
struct Row {
    key_end: usize,
    value_bytes: u64,
    deadline: Deadline,
    fetched: bool,
    idle_secs: u32,
}

impl Victims {
    /// The victims, the first one first.
    pub fn iter(&self) -> impl Iterator<Item = Victim<'_>> {
        let mut key_start = 0;
        self.rows.iter().map(move |row| {
            let key = &self.keys[key_start..row.key_end];
            key_start = row.key_end;
            let &Row { value_bytes, deadline, fetched, idle_secs, .. } = row;
            Victim { key, value_bytes, deadline, fetched, idle_secs }
        })
    }

    /// How many more there were.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.keys.clear();
        self.lost = 0;
    }
}

/// What a shard notes of its victims.
#[derive(Debug, Default)]
pub(crate) struct VictimNotes {
    pub(crate) is_on: bool,
    noted: Victims,
}

impl Shard {
    /// Whether victims are noted from now on.
    pub fn set_noting_victims(&mut self, is_on: bool) {
        *self.victim_notes() = VictimNotes { is_on, noted: Victims::default() };
    }

    /// Puts those who were evicted since the last call into `into`, in place of what was there.
    pub fn take_victims(&mut self, into: &mut Victims) {
        into.clear();
        std::mem::swap(&mut self.victim_notes().noted, into);
    }

    #[cold]
    pub(crate) fn note_victim(&mut self, id: EntryId, now: Timestamp) {
        // Taken out for as long as the record is borrowed.
        let mut noted = std::mem::take(&mut self.victim_notes().noted);
        if noted.rows.len() < VICTIMS_MAX {
            let (record, usage) = (self.record(id), self.usage(id, now));
            noted.keys.extend_from_slice(record.key());
            noted.rows.push(Row {
                key_end: noted.keys.len(),
                value_bytes: record.item_value_bytes().into(),
                deadline: record.deadline(),
                fetched: usage.state & state::FETCHED != 0,
                idle_secs: usage.idle_secs,
            });
        } else {
            noted.lost += 1;
        }
        self.victim_notes().noted = noted;
    }
}

#[cfg(test)]
mod tests {
    use eviction::Kind;

    use super::*;
    use crate::{Config, Geometry, Key, NewItem, Precondition};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const VALUE: [u8; 1000] = [b'v'; 1000];

    fn small_shard() -> Shard {
        let geometry = Geometry::new(8 << 20, 64 << 10, 1);
        let item_bytes_max = 64 << 10;
        Shard::new(Config {
            geometry,
            item_bytes_max,
            policy: Kind::Lru,
            evicts: true,
            protected: crate::Protected::NONE,
            shard: 0,
        })
    }

    /// Writes `numbers` one after the other, as much as they are.
    fn fill(shard: &mut Shard, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let key = format!("key-{number}");
            let new = NewItem {
                client_flags: 0,
                deadline: Deadline::NEVER,
                value: &[&VALUE],
                own_cas: None,
            };
            shard.put(&Key::new(key.as_bytes()), &new, Precondition::None, NOW);
        }
    }

    #[test]
    fn every_victim_is_told_with_what_it_was() {
        let mut shard = small_shard();
        fill(&mut shard, 0..1);
        shard.get(&Key::new(b"key-0"), NOW);
        shard.set_noting_victims(true);
        let (mut victims, mut told) = (Victims::default(), Vec::new());
        for number in 1..20_000 {
            fill(&mut shard, number..number + 1);
            shard.take_victims(&mut victims);
            told.extend(victims.iter().map(|it| (it.key.to_vec(), it.value_bytes, it.fetched)));
        }
        assert_eq!(told.len() as u64, shard.counters().evicted);
        assert_eq!(told[0], (b"key-0".to_vec(), 1000, true));
        assert_eq!(told[1], (b"key-1".to_vec(), 1000, false));
    }

    #[test]
    fn what_nobody_takes_is_bounded_and_counted() {
        let mut shard = small_shard();
        shard.set_noting_victims(true);
        fill(&mut shard, 0..20_000);
        let mut victims = Victims::default();
        shard.take_victims(&mut victims);
        assert_eq!(victims.iter().count(), VICTIMS_MAX);
        assert_eq!(VICTIMS_MAX as u64 + victims.lost(), shard.counters().evicted);
        shard.set_noting_victims(false);
        fill(&mut shard, 0..100);
        shard.take_victims(&mut victims);
        assert_eq!(victims.iter().count(), 0, "nobody watches");
    }
}
