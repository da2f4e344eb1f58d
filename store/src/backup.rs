//! The items of a shard as a backup sees them: walked in slices while it serves, and put back.
//!
//! ```text
//! entries  0 ........ place ........ high          a slice looks at so many entries, then the lock
//!          | walked   | next slice   |             is let go; ids stay, so the walk goes on there
//! ```
//!
//! - An item that is there for the whole length of a walk keeps its entry's id and is met, in some
//!   state that it had meanwhile. What is written, deleted or evicted meanwhile may be met or not; an
//!   item that goes and comes back may be met twice, the later state later.
//! - When the columns are built anew, ids change. The generation says so, and the walk begins again.
//! - A walk is no use of an item: neither the policy nor the counters hear of it.

use std::ops::ControlFlow;

use eviction::EntryId;

use crate::log::Location;
use crate::put::{NewItem, Precondition, PutOutcome};
use crate::shard::{Item, Key, Shard};
use crate::time::{Deadline, Timestamp};
use crate::update::Invalidation;

/// Writes are counted on from a restored cas below this. A greater one was chosen by a client; no server
/// writes so often, and counting on from it would use the numbers up.
pub const CAS_COUNTED_MAX: u64 = 1 << 55;

/// Where a walk over a shard's items stands. It begins at the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkPlace {
    /// Which numbering of the entries `entry` belongs to.
    pub generation: u64,
    /// The entry that is next.
    pub entry: u32,
}

/// An item on its way back from a backup.
#[derive(Clone, Copy, Debug)]
pub struct BackedUpItem<'a> {
    /// Opaque to the server, given back with the value.
    pub client_flags: u32,
    /// The cas that clients saw, and will see again.
    pub cas: u64,
    /// When the item expires.
    pub deadline: Deadline,
    /// Whether a client marked it stale.
    pub stale: bool,
    /// The value.
    pub value: &'a [u8],
}

/// What happens to an item that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resident {
    /// It is replaced.
    Yields,
    /// It stays unless its cas is lower. That compares items of one cache, and of no two.
    StaysIfNewer,
    /// It stays.
    Stays,
}

/// What became of an item on its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreOutcome {
    /// It is in the cache.
    Stored,
    /// What was there stayed.
    Kept,
    /// Its time is over.
    Expired,
    /// It is larger than any item may be, or no room could be made. What was there stayed, unless it
    /// was evicted in the attempt to make room.
    Refused,
}

impl Shard {
    /// Calls `visit` with the key and the item of up to `entries_max` entries from `from` on, and
    /// returns where to go on; `None` when the shard is walked to its end.
    ///
    /// When `visit` breaks, the item counts as not met: the place returned is the item's.
    pub fn walk(
        &mut self,
        from: WalkPlace,
        entries_max: u32,
        now: Timestamp,
        mut visit: impl FnMut(&[u8], &Item<'_>) -> ControlFlow<()>,
    ) -> Option<WalkPlace> {
        self.walk_weighed(from, entries_max, now, |key, item, _| visit(key, item))
    }

    /// [`Shard::walk`], with what each item costs of the shard's memory in bytes, overhead included.
    pub fn walk_weighed(
        &mut self,
        from: WalkPlace,
        entries_max: u32,
        now: Timestamp,
        mut visit: impl FnMut(&[u8], &Item<'_>, u64) -> ControlFlow<()>,
    ) -> Option<WalkPlace> {
        self.flush_if_due(now);
        let generation = self.columns_generation();
        let first = if from.generation == generation { from.entry } else { 0 };
        let high = self.entries_high();
        let end = first.saturating_add(entries_max).min(high);
        for entry in first..end {
            let id = EntryId(entry);
            if self.entries().location(id) == Location::NONE || self.record(id).is_part() {
                continue;
            }
            let item = self.item(id, self.usage(id, now));
            if item.deadline.is_due(now) {
                continue;
            }
            let footprint = self.footprint(self.record(id).shape());
            if visit(self.record(id).key(), &item, footprint.bytes()).is_break() {
                return Some(WalkPlace { generation, entry });
            }
        }
        (end < high).then_some(WalkPlace { generation, entry: end })
    }

    /// Puts an item of a backup into the shard, as a write that keeps the cas.
    pub fn restore(
        &mut self,
        key: &Key<'_>,
        item: &BackedUpItem<'_>,
        resident: Resident,
        now: Timestamp,
    ) -> RestoreOutcome {
        if item.deadline.is_due(now) {
            return RestoreOutcome::Expired;
        }
        let there = self.peek(key, now).map(|there| there.cas);
        // Not an unconditional write: one that fails removes what is there, because the client must
        // not read the value before its own. Here what is there is as good as what cannot be stored.
        let precondition = match (there, resident) {
            (None, _) => Precondition::Absent,
            (Some(_), Resident::Yields) => Precondition::Present,
            (Some(cas), Resident::StaysIfNewer) if cas < item.cas => Precondition::Present,
            (Some(_), Resident::StaysIfNewer | Resident::Stays) => return RestoreOutcome::Kept,
        };
        // Whatever is written from now on has a greater cas: also where the item is of a cache that
        // was written more often, its cas is never given to another value of the key.
        if item.cas < CAS_COUNTED_MAX {
            self.count_on_after(item.cas);
        }
        let new = NewItem {
            client_flags: item.client_flags,
            deadline: item.deadline,
            value: &[item.value],
            own_cas: Some(item.cas),
        };
        match self.put(key, &new, precondition, now) {
            PutOutcome::Stored { .. } => {}
            outcome => {
                debug_assert!(
                    matches!(outcome, PutOutcome::TooLarge | PutOutcome::OutOfMemory),
                    "nobody came between the look and the write"
                );
                return RestoreOutcome::Refused;
            }
        }
        if item.stale {
            let (mark_stale, own_cas) = (true, Some(item.cas));
            let change = Invalidation { mark_stale, own_cas, ..Invalidation::default() };
            self.invalidate(key, None, change, now);
            // Without room for the mark the item goes.
            if self.find(key, now).is_none() {
                return RestoreOutcome::Refused;
            }
        }
        RestoreOutcome::Stored
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use eviction::Kind;

    use super::*;
    use crate::config::{Config, Geometry};

    const MIB: u64 = 1 << 20;
    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn shard() -> Shard {
        shard_that(true)
    }

    fn shard_that(evicts: bool) -> Shard {
        let geometry = Geometry::new(8 * MIB, MIB, 1);
        let policy = Kind::Lru;
        Shard::new(Config {
            geometry,
            item_bytes_max: MIB,
            policy,
            evicts,
            protected: crate::Protected::NONE,
            shard: 0,
        })
    }

    fn put(shard: &mut Shard, key: &str, value: &[u8]) -> u64 {
        let new =
            NewItem { client_flags: 0, deadline: Deadline::NEVER, value: &[value], own_cas: None };
        match shard.put(&Key::new(key.as_bytes()), &new, Precondition::None, NOW) {
            PutOutcome::Stored { cas } => cas,
            outcome => panic!("{outcome:?}"),
        }
    }

    fn value_of(shard: &mut Shard, key: &str) -> Option<Vec<u8>> {
        shard.peek(&Key::new(key.as_bytes()), NOW).map(|item| item.value.to_vec())
    }

    fn item(cas: u64, value: &[u8]) -> BackedUpItem<'_> {
        let deadline = Deadline::NEVER;
        BackedUpItem { client_flags: 7, cas, deadline, stale: false, value }
    }

    fn restore(shard: &mut Shard, key: &str, item: &BackedUpItem<'_>) -> RestoreOutcome {
        shard.restore(&Key::new(key.as_bytes()), item, Resident::StaysIfNewer, NOW)
    }

    /// Walks to the end; `between` the slices something happens.
    fn walk(
        shard: &mut Shard,
        entries_max: u32,
        mut between: impl FnMut(&mut Shard),
    ) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut met = BTreeMap::new();
        let mut place = Some(WalkPlace::default());
        while let Some(from) = place {
            place = shard.walk(from, entries_max, NOW, |key, item| {
                met.insert(key.to_vec(), item.value.to_vec());
                ControlFlow::Continue(())
            });
            between(shard);
        }
        met
    }

    #[test]
    fn a_walk_meets_every_item_once_whatever_the_slices() {
        let mut shard = shard();
        let large = vec![1; 600_000];
        for n in 0..1000 {
            put(&mut shard, &format!("key-{n}"), format!("value-{n}").as_bytes());
        }
        put(&mut shard, "large", &large);
        for entries_max in [1, 7, 1000, u32::MAX] {
            let met = walk(&mut shard, entries_max, |_| {});
            assert_eq!(met.len(), 1001, "slices of {entries_max}");
            assert_eq!(met[&b"large"[..]], large);
            assert_eq!(met[&b"key-77"[..]], b"value-77");
        }
        assert_eq!(shard.counters().evicted, 0);
    }

    #[test]
    fn a_visit_that_breaks_meets_the_item_again() {
        let mut shard = shard();
        put(&mut shard, "a", b"1");
        put(&mut shard, "b", b"2");
        let mut met = 0;
        let place = shard.walk(WalkPlace::default(), 10, NOW, |_, _| {
            met += 1;
            if met == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(place.map(|place| place.entry), Some(1));
        let rest = shard.walk(place.expect("not the end"), 10, NOW, |key, _| {
            assert_eq!(key, b"b");
            ControlFlow::Continue(())
        });
        assert_eq!(rest, None);
    }

    #[test]
    fn what_stays_is_met_though_all_around_it_changes() {
        let mut shard = shard();
        for n in 0..500 {
            put(&mut shard, &format!("stays-{n}"), b"as it was");
            put(&mut shard, &format!("goes-{n}"), b"x");
        }
        let mut round = 0;
        let met = walk(&mut shard, 10, |shard| {
            for n in round..round + 20 {
                shard.delete(&Key::new(format!("goes-{}", n % 500).as_bytes()), None, NOW);
                put(shard, &format!("comes-{n}"), b"y");
            }
            put(shard, &format!("stays-{}", round % 500), b"as it is");
            // Memory is cut anew, so ids change; often enough to be met, not so often as to go on
            // for ever.
            if round == 600 {
                shard.set_policy(Kind::Arc, NOW);
            }
            round += 20;
        });
        for n in 0..500 {
            let value = &met[format!("stays-{n}").as_bytes()];
            assert!(value == b"as it was" || value == b"as it is", "stays-{n}");
        }
    }

    #[test]
    fn expired_and_flushed_items_are_not_met() {
        let mut shard = shard();
        let deadline = Deadline::at(NOW.plus_millis(1));
        let new = NewItem { client_flags: 0, deadline, value: &[b"v"], own_cas: None };
        shard.put(&Key::new(b"short"), &new, Precondition::None, NOW);
        put(&mut shard, "long", b"v");
        let mut keys = Vec::new();
        let later = NOW.plus_millis(1);
        let mut note = |key: &[u8], _: &Item<'_>| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        };
        shard.walk(WalkPlace::default(), 10, later, &mut note);
        shard.flush_all(later, NOW);
        shard.walk(WalkPlace::default(), 10, later, &mut note);
        assert_eq!(keys, [b"long"]);
    }

    #[test]
    fn an_item_comes_back_with_all_that_a_client_knows_of_it() {
        let mut shard = shard();
        let deadline = Deadline::at(NOW.plus_millis(60_000));
        let item = BackedUpItem { deadline, stale: true, ..item(12_345, b"value") };
        assert_eq!(restore(&mut shard, "k", &item), RestoreOutcome::Stored);
        let back = shard.peek(&Key::new(b"k"), NOW).expect("it was restored");
        assert_eq!((back.cas, back.client_flags, back.stale), (12_345, 7, true));
        assert_eq!((back.deadline, back.win_sent, back.fetched), (deadline, false, false));
        assert_eq!(back.value.to_vec(), b"value");
        shard.check();
    }

    #[test]
    fn what_is_newer_stays() {
        let mut shard = shard();
        let cas = put(&mut shard, "k", b"now");
        assert_eq!(restore(&mut shard, "k", &item(cas, b"same")), RestoreOutcome::Kept);
        assert_eq!(restore(&mut shard, "k", &item(cas - 1, b"older")), RestoreOutcome::Kept);
        assert_eq!(value_of(&mut shard, "k").as_deref(), Some(&b"now"[..]));
        assert_eq!(restore(&mut shard, "k", &item(cas + 1, b"newer")), RestoreOutcome::Stored);
        assert_eq!(value_of(&mut shard, "k").as_deref(), Some(&b"newer"[..]));
    }

    #[test]
    fn what_is_there_yields_or_stays_as_asked() {
        let mut shard = shard();
        put(&mut shard, "k", b"now");
        let key = Key::new(b"k");
        let older = item(0, b"older");
        assert_eq!(shard.restore(&key, &older, Resident::Stays, NOW), RestoreOutcome::Kept);
        assert_eq!(value_of(&mut shard, "k").as_deref(), Some(&b"now"[..]));
        assert_eq!(shard.restore(&key, &older, Resident::Yields, NOW), RestoreOutcome::Stored);
        assert_eq!(value_of(&mut shard, "k").as_deref(), Some(&b"older"[..]));
    }

    #[test]
    fn what_is_written_over_a_restored_item_is_newer() {
        let mut shard = shard();
        restore(&mut shard, "k", &item(1_000_000, b"of a busier cache"));
        assert!(put(&mut shard, "k", b"since") > 1_000_000);
        restore(&mut shard, "chosen", &item(u64::MAX, b"by a client"));
        assert!(put(&mut shard, "chosen", b"since") < 2_000_000, "numbers are not used up");
    }

    #[test]
    fn an_item_whose_time_is_over_stays_away() {
        let mut shard = shard();
        let item = BackedUpItem { deadline: Deadline::at(NOW), ..item(9, b"value") };
        assert_eq!(restore(&mut shard, "k", &item), RestoreOutcome::Expired);
        assert_eq!(value_of(&mut shard, "k"), None);
    }

    #[test]
    fn an_item_too_large_leaves_what_is_there() {
        let mut shard = shard();
        let cas = put(&mut shard, "k", b"now");
        let value = vec![0; 2 << 20];
        assert_eq!(restore(&mut shard, "k", &item(cas + 1, &value)), RestoreOutcome::Refused);
        assert_eq!(value_of(&mut shard, "k").as_deref(), Some(&b"now"[..]));
    }

    #[test]
    fn a_full_shard_that_evicts_nothing_refuses_and_keeps_what_is_there() {
        let mut shard = shard_that(false);
        put(&mut shard, "k", b"now");
        let value = vec![0; 100_000];
        let outcomes: Vec<_> = (0..100u64)
            .map(|n| restore(&mut shard, &format!("key-{n}"), &item(n + 1, &value)))
            .collect();
        let stored = outcomes.iter().filter(|it| **it == RestoreOutcome::Stored).count();
        let refused = outcomes.iter().filter(|it| **it == RestoreOutcome::Refused).count();
        assert!(stored > 40 && refused > 20 && stored + refused == 100, "{outcomes:?}");
        assert_eq!(restore(&mut shard, "k", &item(999, &value)), RestoreOutcome::Refused);
        assert_eq!(value_of(&mut shard, "k").as_deref(), Some(&b"now"[..]));
        shard.check();
    }

    #[test]
    fn a_restored_item_is_counted_as_any_other() {
        let mut shard = shard();
        for n in 0..1000u64 {
            let key = format!("key-{n}");
            let stored = restore(&mut shard, &key, &item(n + 1, key.as_bytes()));
            assert_eq!(stored, RestoreOutcome::Stored);
        }
        let change = Invalidation { mark_stale: true, ..Invalidation::default() };
        shard.invalidate(&Key::new(b"key-1"), None, change, NOW);
        shard.check();
    }
}
