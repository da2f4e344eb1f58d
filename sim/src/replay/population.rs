//! `Population`: the entries that compete for one room, ranked by one policy, without their bytes.
//!
//! ```text
//! key hash -> directory -> EntryId -> columns: key hash and weight, deadline
//!                             |
//!                             +------ the policy's own columns
//! ```
//!
//! It asks and tells the policy what a store shard does, in the same order: on a hit `on_hit`; for a
//! newcomer `before_insert`, then `evict` until it fits, then `on_insert`; for what is written anew
//! `evict` until it fits, then `on_update`, unless it was evicted itself and is a newcomer.

use eviction::{Admission, EntryId, KeyHash, Kind, Link, Policy};
use store::record::Footprint;
use store::{Budget, prefetch_address};

use super::Expiry;
use super::deadlines::{Deadlines, NEVER};
use super::directory::Directory;

/// What decides whether one more entry fits. Weights are bytes, footprints, or 1 an object.
pub(crate) trait Room {
    /// Whether a newcomer stays outside if the policy holds it for worth less than its victims.
    const TAKES_ADVICE: bool;
    /// Whether a deadline takes room of its own.
    const FIELDS_WEIGH: bool;

    /// The most that the entries may weigh together.
    fn capacity(&self) -> u64;
    /// What they weigh together now.
    fn weight(&self) -> u64;
    /// Whether an entry of `weight` fits if all others leave.
    fn could_hold(&self, weight: u32) -> bool;
    /// Whether an entry of `weight` fits without another leaving.
    fn fits(&self, weight: u32) -> bool;
    /// Whether a resident entry of weight `old` may become one of `new` without another leaving.
    fn fits_replacing(&self, old: u32, new: u32) -> bool;
    /// Whether free ids take so much room that the entries are to be numbered anew.
    fn wants_renumbering(&self) -> bool;
    /// Counts an entry that became resident.
    fn insert(&mut self, weight: u32);
    /// Counts an entry that left.
    fn remove(&mut self, weight: u32);
    /// Counts an entry that was written anew.
    fn replace(&mut self, old: u32, new: u32);
    /// Forgets all entries and their ids.
    fn clear(&mut self);
}

/// A sum of weights that may not grow beyond a maximum: a cache without overhead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    max: u64,
    used: u64,
}

impl Capacity {
    /// Room for weights up to `max` in sum.
    pub(crate) fn new(max: u64) -> Self {
        Self { max, used: 0 }
    }
}

impl Room for Capacity {
    const TAKES_ADVICE: bool = true;
    const FIELDS_WEIGH: bool = false;

    fn capacity(&self) -> u64 {
        self.max
    }

    fn weight(&self) -> u64 {
        self.used
    }

    #[inline]
    fn could_hold(&self, weight: u32) -> bool {
        u64::from(weight) <= self.max
    }

    #[inline]
    fn fits(&self, weight: u32) -> bool {
        self.used + u64::from(weight) <= self.max
    }

    #[inline]
    fn fits_replacing(&self, old: u32, new: u32) -> bool {
        self.used - u64::from(old) + u64::from(new) <= self.max
    }

    #[inline]
    fn wants_renumbering(&self) -> bool {
        false
    }

    #[inline]
    fn insert(&mut self, weight: u32) {
        self.used += u64::from(weight);
    }

    #[inline]
    fn remove(&mut self, weight: u32) {
        self.used -= u64::from(weight);
    }

    #[inline]
    fn replace(&mut self, old: u32, new: u32) {
        self.used = self.used - u64::from(old) + u64::from(new);
    }

    fn clear(&mut self) {
        self.used = 0;
    }
}

/// The server's own accounting of a shard; a weight is a footprint.
impl Room for Budget {
    // What a server has acknowledged it keeps, for a moment at least.
    const TAKES_ADVICE: bool = false;
    const FIELDS_WEIGH: bool = true;

    fn capacity(&self) -> u64 {
        self.bytes_max()
    }

    fn weight(&self) -> u64 {
        self.used_bytes()
    }

    #[inline]
    fn could_hold(&self, weight: u32) -> bool {
        Self::could_hold(self, Footprint::from_bytes(weight))
    }

    #[inline]
    fn fits(&self, weight: u32) -> bool {
        Self::fits(self, Footprint::from_bytes(weight))
    }

    #[inline]
    fn fits_replacing(&self, old: u32, new: u32) -> bool {
        Self::fits_replacing(self, Footprint::from_bytes(old), Footprint::from_bytes(new))
    }

    #[inline]
    fn wants_renumbering(&self) -> bool {
        self.wants_compaction()
    }

    #[inline]
    fn insert(&mut self, weight: u32) {
        Self::insert(self, Footprint::from_bytes(weight));
    }

    #[inline]
    fn remove(&mut self, weight: u32) {
        Self::remove(self, Footprint::from_bytes(weight));
    }

    #[inline]
    fn replace(&mut self, old: u32, new: u32) {
        Self::replace(self, Footprint::from_bytes(old), Footprint::from_bytes(new));
    }

    fn clear(&mut self) {
        Self::clear(self);
    }
}

/// What is written: its key, what it weighs, until when it may be served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// The key.
    pub(crate) key: KeyHash,
    /// What the entry weighs.
    pub(crate) weight: u32,
    /// When it expires; [`NEVER`] if it does not.
    pub(crate) deadline: u32,
}

/// Entries, their room and their policy.
pub(crate) struct Population<R> {
    kind: Kind,
    /// Entries that the policy's columns are reserved for.
    entries_reserved: usize,
    policy: Box<dyn Policy>,
    room: R,
    directory: Directory,
    /// By entry. Together, because an eviction asks for both.
    residents: Vec<Resident>,
    deadlines: Deadlines,
    free: Vec<EntryId>,
    /// The next victim, as far as the policy can tell, when its row is on its way from memory and what
    /// that names is to be fetched next.
    victim_ahead: Option<EntryId>,
}

/// What is known of an entry.
#[derive(Clone, Copy)]
struct Resident {
    key: KeyHash,
    weight: u32,
}

impl<R: Room> Population<R> {
    /// Nobody yet in an empty `room`.
    pub(crate) fn new(kind: Kind, entries_reserved: usize, room: R, expiry: Expiry) -> Self {
        Self {
            kind,
            entries_reserved,
            policy: kind.build(room.capacity(), entries_reserved),
            room,
            directory: Directory::new(),
            residents: Vec::new(),
            deadlines: Deadlines::new(expiry),
            free: Vec::new(),
            victim_ahead: None,
        }
    }

    /// Has fetched what a look at the directory for `key` touches first.
    #[inline]
    pub(crate) fn prefetch_directory(&self, key: KeyHash) {
        self.directory.prefetch(key);
    }

    /// Has fetched what the policy touches first when `key` is used, or comes in.
    #[inline]
    pub(crate) fn prefetch_policy(&self, key: KeyHash) {
        match self.directory.find(key) {
            Some(entry) => self.policy.hit_addresses(entry).into_iter().for_each(prefetch_address),
            None => prefetch_address(self.policy.insert_address(key)),
        }
    }

    /// Has fetched what the next eviction will look at, whose turn comes some requests later.
    #[inline]
    fn prefetch_victim(&mut self) {
        self.victim_ahead = self.policy.next_victim();
        if let Some(victim) = self.victim_ahead {
            prefetch_address(self.residents.as_ptr().wrapping_add(victim.index()).cast());
            let addresses = self.policy.eviction_addresses(victim, Link::First);
            addresses.into_iter().for_each(prefetch_address);
        }
    }

    /// The second link of that chain, when the first is there.
    #[inline]
    fn prefetch_on(&mut self) {
        if let Some(victim) = self.victim_ahead.take() {
            self.directory.prefetch(self.residents[victim.index()].key);
            let addresses = self.policy.eviction_addresses(victim, Link::Second);
            addresses.into_iter().for_each(prefetch_address);
        }
    }

    /// What the entries weigh together.
    pub(crate) fn weight(&self) -> u64 {
        self.room.weight()
    }

    /// Lets everything go that is due, if that is done without being asked for.
    #[inline]
    pub(crate) fn expire(&mut self, now_s: u32) {
        while let Some(entry) = self.deadlines.next_due(now_s) {
            self.drop_entry(entry);
        }
    }

    /// The entry of `key`, if it may be served. One that is due is met here and leaves.
    #[inline]
    pub(crate) fn find(&mut self, key: KeyHash, now_s: u32) -> Option<EntryId> {
        self.prefetch_on();
        let entry = self.directory.find(key)?;
        if self.deadlines.is_due(entry, now_s) {
            self.drop_entry(entry);
            return None;
        }
        Some(entry)
    }

    /// Looks `key` up, which is a use of it. True is a hit.
    #[inline]
    pub(crate) fn read(&mut self, key: KeyHash, now_s: u32) -> bool {
        let found = self.find(key, now_s);
        if let Some(entry) = found {
            self.policy.on_hit(entry);
        }
        found.is_some()
    }

    /// A use of an entry that changes when it expires.
    pub(crate) fn touch(&mut self, entry: EntryId, deadline: u32) {
        self.policy.on_hit(entry);
        self.deadlines.set(entry, deadline);
    }

    /// A use of an entry that changes nothing.
    pub(crate) fn mark_used(&mut self, entry: EntryId) {
        self.policy.on_hit(entry);
    }

    /// When an entry expires; [`NEVER`] if it does not.
    pub(crate) fn deadline(&self, entry: EntryId) -> u32 {
        self.deadlines.of(entry)
    }

    /// Removes `key`, because somebody asked for it.
    pub(crate) fn remove(&mut self, key: KeyHash, now_s: u32) {
        if let Some(entry) = self.find(key, now_s) {
            self.drop_entry(entry);
        }
    }

    /// Makes `written` resident in place of what is there under its key, and lets others go for it.
    /// False if it would not even fit alone; what is there stays then.
    pub(crate) fn write(&mut self, written: Written, now_s: u32) -> bool {
        match self.find(written.key, now_s) {
            Some(entry) => self.replace(entry, written),
            None => self.insert(written),
        }
    }

    /// Makes `written`, whose key is not resident, so, and lets others go for it. An entry that would
    /// not even fit alone is left outside, and where the policy's advice is taken, one it refuses.
    /// False if it would not fit.
    #[inline]
    pub(crate) fn insert(&mut self, written: Written) -> bool {
        let Written { key, weight, .. } = written;
        if !self.room.could_hold(weight) {
            return false;
        }
        let advice = self.policy.before_insert(key, weight);
        if R::TAKES_ADVICE && advice == Admission::Refuse {
            return true;
        }
        let is_full = !self.room.fits(weight);
        while !self.room.fits(weight) {
            let _victim = self.make_room();
        }
        let entry = self.admit(written);
        self.policy.on_insert(entry, key, weight);
        if is_full {
            self.prefetch_victim();
        }
        true
    }

    /// Writes the resident `entry` anew. It may be evicted for its own successor.
    fn replace(&mut self, mut entry: EntryId, written: Written) -> bool {
        let Written { key, weight, deadline } = written;
        if !self.room.could_hold(weight) {
            return false;
        }
        loop {
            let before = self.residents[entry.index()].weight;
            if self.room.fits_replacing(before, weight) {
                self.room.replace(before, weight);
                self.residents[entry.index()].weight = weight;
                self.deadlines.set(entry, deadline);
                self.policy.on_update(entry, weight);
                return true;
            }
            match self.make_room() {
                Some(victim) if victim == entry => return self.insert(written),
                Some(_) => {}
                None => match self.directory.find(key) {
                    Some(renumbered) => entry = renumbered,
                    None => return self.insert(written),
                },
            }
        }
    }

    /// Lets one entry go, and names it; or numbers them anew, where free ids are in the way.
    #[inline]
    fn make_room(&mut self) -> Option<EntryId> {
        if self.room.wants_renumbering() {
            self.renumber();
            return None;
        }
        let victim = self.policy.evict();
        match victim {
            Some(victim) => self.forget(victim),
            // Nobody is left, and only free ids are in the way.
            None => {
                assert!(!self.free.is_empty(), "what could be held fits when nobody is resident");
                self.renumber();
            }
        }
        victim
    }

    /// Takes an entry out that leaves for a reason other than eviction.
    fn drop_entry(&mut self, entry: EntryId) {
        self.policy.on_remove(entry);
        self.forget(entry);
    }

    /// Numbers the resident entries without gaps. As in the shard, a new policy learns of them in
    /// the order in which the one before would have let them go.
    #[cold]
    fn renumber(&mut self) {
        let order: Vec<EntryId> = std::iter::from_fn(|| self.policy.evict()).collect();
        self.policy = self.kind.build(self.room.capacity(), self.entries_reserved);
        self.room.clear();
        self.directory.clear();
        self.free.clear();
        self.victim_ahead = None;
        let residents = std::mem::take(&mut self.residents);
        let expiry = self.deadlines.expiry();
        let deadlines = std::mem::replace(&mut self.deadlines, Deadlines::new(expiry));
        for before in order {
            let Resident { key, weight } = residents[before.index()];
            let _advice = self.policy.before_insert(key, weight);
            let entry = self.admit(Written { key, weight, deadline: deadlines.of(before) });
            self.policy.on_insert(entry, key, weight);
        }
    }

    /// Takes an entry that the policy let go out of directory and room.
    #[inline]
    fn forget(&mut self, entry: EntryId) {
        let Resident { key, weight } = self.residents[entry.index()];
        let removed = self.directory.remove(key);
        assert!(removed == Some(entry), "the policy let an entry go that is not resident");
        self.room.remove(weight);
        self.deadlines.set(entry, NEVER);
        self.free.push(entry);
    }

    /// Gives a newcomer its id and its place in directory and room.
    #[inline]
    fn admit(&mut self, written: Written) -> EntryId {
        let Written { key, weight, deadline } = written;
        let entry = match self.free.pop() {
            Some(entry) => {
                self.residents[entry.index()] = Resident { key, weight };
                entry
            }
            None => {
                let next = u32::try_from(self.residents.len()).ok().filter(|&id| id < u32::MAX);
                assert!(next.is_some(), "a cache holds fewer than 2^32 entries");
                self.residents.push(Resident { key, weight });
                EntryId(next.unwrap_or(u32::MAX))
            }
        };
        self.room.insert(weight);
        self.deadlines.set(entry, deadline);
        self.directory.insert(key, entry);
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(key: u64, weight: u32) -> Written {
        Written { key: KeyHash(key), weight, deadline: NEVER }
    }

    #[test]
    fn an_entry_as_large_as_the_room_takes_the_place_of_all_others() {
        // Twelve free ids of 10 bytes stay just below what makes the entries be numbered anew.
        let room = Budget::new(1000, 10);
        let mut population = Population::new(Kind::Lru, 16, room, Expiry::Eager);
        for key in 0..12 {
            population.insert(written(key, 80));
        }
        population.insert(written(99, 1000));
        assert!(population.read(KeyHash(99), 0));
        assert!(!population.read(KeyHash(11), 0));
    }

    #[test]
    fn deadlines_outlive_a_renumbering() {
        let room = Budget::new(1000, 10);
        let mut population = Population::new(Kind::Lru, 16, room, Expiry::Eager);
        for key in 0..12 {
            let deadline = if key == 11 { 50 } else { NEVER };
            population.insert(Written { deadline, ..written(key, 80) });
        }
        population.renumber();
        population.expire(49);
        assert!(population.find(KeyHash(11), 49).is_some());
        population.expire(50);
        assert!(population.directory.find(KeyHash(11)).is_none());
        assert!(population.find(KeyHash(10), 50).is_some());
    }

    #[test]
    fn what_grows_may_be_evicted_for_itself_and_stays() {
        let room = Capacity::new(100);
        let mut population = Population::new(Kind::Lru, 16, room, Expiry::Eager);
        population.insert(written(1, 10));
        population.insert(written(2, 80));
        assert!(population.write(written(1, 90), 0));
        assert!(population.find(KeyHash(1), 0).is_some());
        assert!(population.find(KeyHash(2), 0).is_none());
        assert!(!population.write(written(1, 101), 0));
        assert!(population.find(KeyHash(1), 0).is_some(), "left to whoever wrote it");
    }
}
