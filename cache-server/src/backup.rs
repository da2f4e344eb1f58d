//! The items of all shards as a backup: given out in slices, and put back.
//!
//! A slice is what one `backup` request is answered with. It locks one shard and is bounded in bytes
//! and in entries looked at, so whoever waits for that shard waits some tens of microseconds; nothing
//! is kept between two slices, so a client that never comes back costs nothing.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::ControlFlow;
use std::sync::Arc;

use protocol::backup::{
    CacheId, Cursor, ITEM_HEAD_BYTES, Item, ItemHead, Restore, Restored, SLICE_BYTES_MAX,
};
use store::{
    BackedUpItem, CAS_COUNTED_MAX, Deadline, Key, Resident, RestoreOutcome, Timestamp, WalkPlace,
};

use crate::shards::Shards;

/// Entries looked at under one lock: each may be a cache miss, a hundred nanoseconds or two.
const SLICE_ENTRIES_MAX: u32 = 512;

/// Where a slice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Where the next one begins.
    pub next: Cursor,
    /// Items in it.
    pub items: u64,
}

/// The items of a server, for backups.
pub struct Backups {
    shards: Arc<Shards>,
    cache_id: CacheId,
}

impl Backups {
    /// Backups of `shards`, whose items belong to `cache_id`.
    pub fn new(shards: Arc<Shards>, cache_id: CacheId) -> Self {
        Self { shards, cache_id }
    }

    /// The cache that the items belong to.
    pub fn cache_id(&self) -> CacheId {
        self.cache_id
    }

    /// Appends the slice at `cursor` to `out`, items whose keys begin with `prefix` alone. `None`
    /// when the cursor is behind the last shard.
    pub fn slice(
        &self,
        cursor: Cursor,
        prefix: &[u8],
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> Option<Slice> {
        if cursor.shard >= self.shards.geometry().shard_count {
            return None;
        }
        let start = out.len();
        let mut items = 0;
        let visit = |key: &[u8], item: &store::Item<'_>| {
            if !key.starts_with(prefix) {
                return ControlFlow::Continue(());
            }
            let Some(key) = protocol::Key::new(key) else { return ControlFlow::Continue(()) };
            let bytes = ITEM_HEAD_BYTES + key.as_bytes().len() + item.value.len();
            if items > 0 && out.len() - start + bytes > SLICE_BYTES_MAX {
                return ControlFlow::Break(());
            }
            let head = ItemHead {
                key,
                client_flags: item.client_flags,
                cas: item.cas,
                deadline_unix_ms: item.deadline.timestamp().map(|at| at.0),
                stale: item.stale,
            };
            head.encode(item.value.len(), out);
            item.value.append_to(out);
            items += 1;
            ControlFlow::Continue(())
        };
        let from = WalkPlace { generation: cursor.generation, entry: cursor.entry };
        let next = self.shards.lock_nth(cursor.shard).walk(from, SLICE_ENTRIES_MAX, now, visit);
        let next = match next {
            Some(WalkPlace { generation, entry }) => Cursor { generation, entry, ..cursor },
            None => Cursor { shard: cursor.shard + 1, ..Cursor::default() },
        };
        Some(Slice { next, items })
    }

    /// Puts items back. Each locks its shard for itself.
    pub fn restore(&self, restore: &Restore<'_>, now: Timestamp) -> Restored {
        let resident = match restore.keep_newer {
            None => Resident::Yields,
            Some(cache_id) if cache_id == self.cache_id => Resident::StaysIfNewer,
            Some(_) => Resident::Stays,
        };
        self.count_on_after(restore);
        let mut restored = Restored::default();
        for item in restore.items.clone() {
            let key = Key::new(item.head.key.as_bytes());
            let outcome = self.shards.lock(&key).restore(&key, &backed_up(&item), resident, now);
            match outcome {
                RestoreOutcome::Stored => restored.stored += 1,
                RestoreOutcome::Kept => restored.kept += 1,
                RestoreOutcome::Expired => restored.expired += 1,
                RestoreOutcome::Refused => restored.refused += 1,
            }
        }
        restored
    }

    /// No shard gives what it writes from now on a cas that is about to come back: one of another
    /// server may be any shard's next.
    fn count_on_after(&self, restore: &Restore<'_>) {
        let cas_numbers = restore.items.clone().map(|item| item.head.cas);
        if let Some(greatest) = cas_numbers.filter(|&cas| cas < CAS_COUNTED_MAX).max() {
            self.shards.each().for_each(|mut shard| shard.count_on_after(greatest));
        }
    }
}

fn backed_up<'a>(item: &Item<'a>) -> BackedUpItem<'a> {
    let deadline = item.head.deadline_unix_ms;
    BackedUpItem {
        client_flags: item.head.client_flags,
        cas: item.head.cas,
        deadline: deadline.map_or(Deadline::NEVER, |unix_ms| Deadline::at(Timestamp(unix_ms))),
        stale: item.head.stale,
        value: item.value,
    }
}

/// An id that no other cache has: for one that begins empty.
pub fn fresh_cache_id() -> CacheId {
    // Hashers are seeded from the operating system's randomness, each with keys of its own.
    let random = || u128::from(RandomState::new().build_hasher().finish());
    CacheId::new(random() << 64 | random())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use protocol::backup::Items;
    use store::{NewItem, Precondition};

    use super::*;
    use crate::config::Config;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn backups(memory_mib: usize) -> Backups {
        let config = Config { memory_bytes: memory_mib << 20, ..Config::default() };
        Backups::new(Arc::new(Shards::new(&config)), fresh_cache_id())
    }

    fn put(backups: &Backups, key: &str, value: &[u8]) {
        let key = Key::new(key.as_bytes());
        let new =
            NewItem { client_flags: 0, deadline: Deadline::NEVER, value: &[value], own_cas: None };
        backups.shards.lock(&key).put(&key, &new, Precondition::None, NOW);
    }

    /// All slices of a backup, encoded.
    fn slices(backups: &Backups, prefix: &[u8]) -> Vec<Vec<u8>> {
        let (mut slices, mut cursor) = (Vec::new(), Cursor::default());
        loop {
            let mut bytes = Vec::new();
            let Some(slice) = backups.slice(cursor, prefix, NOW, &mut bytes) else {
                return slices;
            };
            assert_eq!(Items::new(&bytes).expect("items").len() as u64, slice.items);
            slices.push(bytes);
            cursor = slice.next;
        }
    }

    #[test]
    fn a_slice_is_bounded_unless_one_item_is_larger() {
        let backups = backups(64);
        put(&backups, "large", &vec![0; 300_000]);
        for n in 0..5000 {
            put(&backups, &format!("key-{n}"), &[7; 500]);
        }
        let mut items = 0;
        for slice in slices(&backups, b"") {
            let slice = Items::new(&slice).expect("items");
            assert!(slice.as_bytes().len() <= SLICE_BYTES_MAX || slice.len() == 1);
            items += slice.len();
        }
        assert_eq!(items, 5001);
    }

    #[test]
    fn only_what_begins_with_the_prefix_is_in_it() {
        let backups = backups(64);
        for n in 0..5000 {
            put(&backups, &format!("user:{n}"), b"u");
            put(&backups, &format!("page:{n}"), b"p");
        }
        let slices = slices(&backups, b"user:");
        let items = slices.iter().flat_map(|slice| Items::new(slice).expect("items"));
        let keys: Vec<_> = items.map(|item| item.head.key.as_bytes().to_vec()).collect();
        assert_eq!(keys.len(), 5000);
        assert!(keys.iter().all(|key| key.starts_with(b"user:")));
    }

    #[test]
    fn every_item_finds_its_way_into_a_server_cut_otherwise() {
        let (from, to) = (backups(64), backups(200));
        for n in 0..5000 {
            put(&from, &format!("key-{n}"), format!("value-{n}").as_bytes());
        }
        let mut restored = Restored::default();
        for slice in slices(&from, b"") {
            let items = Items::new(&slice).expect("items");
            restored += to.restore(&Restore { keep_newer: None, items }, NOW);
        }
        assert_eq!(restored, Restored { stored: 5000, ..Restored::default() });
        let key = Key::new(b"key-4711");
        let value = to.shards.lock(&key).peek(&key, NOW).map(|item| item.value.to_vec());
        assert_eq!(value.as_deref(), Some(&b"value-4711"[..]));
    }

    #[test]
    fn no_write_is_given_the_cas_of_an_item_that_came_back() {
        let (from, to) = (backups(64), backups(200));
        for n in 0..1000 {
            put(&from, &format!("restored-{n}"), b"r");
        }
        for slice in slices(&from, b"") {
            let items = Items::new(&slice).expect("items");
            to.restore(&Restore { keep_newer: None, items }, NOW);
        }
        for n in 0..1000 {
            put(&to, &format!("written-{n}"), b"w");
        }
        let slices = slices(&to, b"");
        let items = slices.iter().flat_map(|slice| Items::new(slice).expect("items"));
        let cas_numbers: BTreeSet<u64> = items.map(|item| item.head.cas).collect();
        assert_eq!(cas_numbers.len(), 2000);
    }

    #[test]
    fn items_of_another_cache_are_never_newer() {
        let backups = backups(64);
        put(&backups, "k", b"here");
        let key = protocol::Key::new(b"k").expect("a key");
        let head =
            ItemHead { key, client_flags: 0, cas: u64::MAX, deadline_unix_ms: None, stale: false };
        let mut bytes = Vec::new();
        Item { head, value: b"there" }.encode(&mut bytes);
        let items = Items::new(&bytes).expect("items");
        for (cache_id, stored) in [(fresh_cache_id(), 0), (backups.cache_id(), 1)] {
            let restore = Restore { keep_newer: Some(cache_id), items: items.clone() };
            assert_eq!(backups.restore(&restore, NOW).stored, stored);
        }
    }
}
