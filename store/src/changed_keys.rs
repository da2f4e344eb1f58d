//! Which keys have changed, by name: for whoever keeps copies of items far away and cannot look at
//! [groups](crate::changes).
//!
//! ```text
//! write ──▶ KeyNotes, as many as there is room for ──▶ the caller, before the shard is unlocked
//! ```
//!
//! - A key has changed when its item was written, deleted, or given an earlier end. What expires or is
//!   evicted is not noted: no reader would find another value of it, and its end was known.
//! - Nothing is noted, and nothing costs anything, until somebody asks for it. What is noted and not
//!   taken is bounded: beyond that, everything has changed.

use eviction::EntryId;

use crate::shard::Shard;
use crate::time::Deadline;

/// Keys noted between two calls of [`Shard::take_changed_keys`].
const KEYS_MAX: usize = 1024;

/// Keys in the order in which they changed. Empty ones cost no memory.
#[derive(Debug, Default)]
pub struct ChangedKeys {
    /// The keys, one after the other.
    keys: Vec<u8>,
    ends: Vec<usize>,
    is_all: bool,
}

impl ChangedKeys {
    /// Whether any item may have changed; the keys then say nothing more.
    pub fn is_all(&self) -> bool {
        self.is_all
    }

    /// The keys, the first one first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let key = &self.keys[start..end];
            start = end;
            key
        })
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.ends.is_empty() && !self.is_all
    }

    fn add(&mut self, key: &[u8]) {
        if self.is_all {
            return;
        }
        if self.ends.len() == KEYS_MAX {
            return self.add_all();
        }
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
    }

    fn add_all(&mut self) {
        self.clear();
        self.is_all = true;
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.ends.clear();
        self.is_all = false;
    }
}

/// What a shard notes of changed keys.
#[derive(Debug, Default)]
pub(crate) struct KeyNotes {
    is_on: bool,
    noted: ChangedKeys,
}

impl KeyNotes {
    #[inline]
    pub(crate) fn note(&mut self, key: &[u8]) {
        if self.is_on {
            self.noted.add(key);
        }
    }

    pub(crate) fn note_all(&mut self) {
        if self.is_on {
            self.noted.add_all();
        }
    }
}

impl Shard {
    /// Whether changed keys are noted from now on.
    pub fn set_noting_changed_keys(&mut self, is_on: bool) {
        *self.key_notes_mut() = KeyNotes { is_on, noted: ChangedKeys::default() };
    }

    /// Whether there are changed keys to take.
    #[inline]
    pub fn has_changed_keys(&self) -> bool {
        !self.key_notes().noted.is_empty()
    }

    /// Puts the keys that have changed since the last call into `into`, in place of what was there.
    pub fn take_changed_keys(&mut self, into: &mut ChangedKeys) {
        into.clear();
        std::mem::swap(&mut self.key_notes_mut().noted, into);
    }

    #[inline]
    pub(crate) fn note_changed_entry(&mut self, id: EntryId) {
        if self.key_notes().is_on {
            self.note_key_of(id);
        }
    }

    /// An entry is about to get another deadline. Who holds a copy until the old one may keep it until a later one.
    pub(crate) fn note_deadline(&mut self, id: EntryId, to: Deadline) {
        let before = self.record(id).deadline().timestamp();
        let is_earlier = to.timestamp().is_some_and(|to| before.is_none_or(|before| to < before));
        if is_earlier {
            self.note_changed_entry(id);
        }
    }

    #[cold]
    fn note_key_of(&mut self, id: EntryId) {
        // Taken out for as long as the record is borrowed.
        let mut noted = std::mem::take(&mut self.key_notes_mut().noted);
        noted.add(self.record(id).key());
        self.key_notes_mut().noted = noted;
    }
}

#[cfg(test)]
mod tests {
    use eviction::Kind;

    use super::*;
    use crate::{
        Config, Delta, End, Geometry, Invalidation, Key, NewItem, Precondition, Replicated,
        Timestamp,
    };

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn shard() -> Shard {
        let geometry = Geometry::new(8 << 20, 64 << 10, 1);
        let item_bytes_max = 64 << 10;
        let config = Config {
            geometry,
            item_bytes_max,
            policy: Kind::Lru,
            evicts: true,
            protected: crate::Protected::NONE,
            shard: 0,
        };
        Shard::new(config)
    }

    fn in_seconds(seconds: u64) -> Deadline {
        Deadline::at(NOW.plus_millis(seconds * 1000))
    }

    fn put(shard: &mut Shard, key: &str, deadline: Deadline) {
        let new = NewItem { client_flags: 0, deadline, value: &[b"1"], own_cas: None };
        shard.put(&Key::new(key.as_bytes()), &new, Precondition::None, NOW);
    }

    fn taken(shard: &mut Shard) -> Vec<String> {
        let mut keys = ChangedKeys::default();
        shard.take_changed_keys(&mut keys);
        if keys.is_all() {
            return vec!["(all)".to_owned()];
        }
        keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
    }

    /// A shard that holds `k` for a hundred seconds, and notes from then on.
    fn noting_shard() -> Shard {
        let mut shard = shard();
        put(&mut shard, "k", in_seconds(100));
        assert!(!shard.has_changed_keys(), "nobody has asked for it");
        shard.set_noting_changed_keys(true);
        shard
    }

    fn told<T>(change: impl FnOnce(&mut Shard, &Key<'_>) -> T) -> Vec<String> {
        let mut shard = noting_shard();
        change(&mut shard, &Key::new(b"k"));
        let keys = taken(&mut shard);
        assert!(!shard.has_changed_keys());
        keys
    }

    #[test]
    fn every_change_of_an_item_is_told_by_its_key() {
        assert_eq!(told(|shard, _| put(shard, "other", Deadline::NEVER)), ["other"]);
        assert_eq!(told(|shard, _| put(shard, "k", Deadline::NEVER)), ["k"]);
        let append = |shard: &mut Shard, key: &Key<'_>| {
            shard.concat(key, End::Back, b"2", None, None, NOW);
        };
        assert_eq!(told(append), ["k"]);
        let count = |by| {
            move |shard: &mut Shard, key: &Key<'_>| {
                shard.add_delta(key, Delta::Increment(by), None, None, None, NOW);
            }
        };
        assert_eq!(told(count(1)), ["k"], "rewritten in place");
        assert_eq!(told(count(100)), ["k"], "longer than before");
        assert_eq!(told(|shard, key| shard.delete(key, None, NOW)), ["k"]);
        let stale = Invalidation { mark_stale: true, ..Invalidation::default() };
        assert_eq!(told(|shard, key| shard.invalidate(key, None, stale, NOW)), ["k"]);
        assert_eq!(told(|shard, key| assert!(shard.apply_remove(key, NOW))), ["k"]);
        let replicated = Replicated {
            client_flags: 0,
            deadline: Deadline::NEVER,
            cas: 9,
            stale: false,
            win_sent: false,
            value: &[b"2"],
        };
        assert_eq!(told(|shard, key| shard.apply_put(key, &replicated, NOW)), ["k"]);
    }

    #[test]
    fn a_life_that_becomes_shorter_is_told_and_a_longer_one_is_not() {
        let touch = |deadline| {
            move |shard: &mut Shard, key: &Key<'_>| assert!(shard.touch(key, deadline, NOW))
        };
        assert_eq!(told(touch(in_seconds(50))), ["k"]);
        assert_eq!(told(touch(in_seconds(0))), ["k"]);
        assert!(told(touch(in_seconds(200))).is_empty());
        assert!(told(touch(Deadline::NEVER)).is_empty());
    }

    #[test]
    fn reads_and_what_changes_nothing_are_not_told() {
        assert!(told(|shard, key| assert!(shard.get(key, NOW).is_some())).is_empty());
        assert!(told(|shard, key| shard.delete(key, Some(77), NOW)).is_empty());
        assert!(told(|shard, _| shard.delete(&Key::new(b"miss"), None, NOW)).is_empty());
        let after = NOW.plus_millis(200_000);
        assert!(told(|shard, key| assert!(shard.get(key, after).is_none())).is_empty());
    }

    #[test]
    fn a_flush_is_everything_and_so_is_more_than_there_is_room_for() {
        assert_eq!(told(|shard, _| shard.flush_all(NOW, NOW)), ["(all)"]);
        assert_eq!(told(|shard, _| shard.clear()), ["(all)"]);
        let many = |count| {
            move |shard: &mut Shard, _: &Key<'_>| {
                (0..count).for_each(|n| put(shard, &n.to_string(), Deadline::NEVER));
            }
        };
        assert_eq!(told(many(KEYS_MAX)).len(), KEYS_MAX);
        assert_eq!(told(many(KEYS_MAX + 1)), ["(all)"]);
    }

    #[test]
    fn a_flush_to_come_is_told_when_it_comes() {
        let mut shard = noting_shard();
        shard.flush_all(NOW.plus_millis(1_000), NOW);
        assert!(!shard.has_changed_keys());
        shard.sweep(NOW.plus_millis(1_000), 1);
        assert_eq!(taken(&mut shard), ["(all)"]);
    }
}
