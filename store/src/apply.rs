//! Changes that were decided elsewhere, applied to a copy: results, not operations.
//!
//! The shard that clients write to says what each write left of its key, and its copies are made to
//! hold just that: value, flags, deadline, cas and marks, whatever they held before. [`Shard::peek`]
//! reads it back after a write. No client asked, so nothing of this counts as stored.
//!
//! A copy that cannot hold the new item holds none: never an older value of the key.

use eviction::{EntryId, KeyHash};

use crate::entries::state;
use crate::hash::key_hash;
use crate::shard::{Fields, Key, NoRoom, Shard, shape_of};
use crate::time::{Deadline, Timestamp};

/// All that a write left of its key.
#[derive(Clone, Copy, Debug)]
pub struct Replicated<'a> {
    /// Opaque to the server.
    pub client_flags: u32,
    /// When the item expires.
    pub deadline: Deadline,
    /// The cas that clients see.
    pub cas: u64,
    /// Whether a client marked it stale.
    pub stale: bool,
    /// Whether a client was told to compute it again.
    pub win_sent: bool,
    /// The value, in as many pieces as the caller has it in.
    pub value: &'a [&'a [u8]],
}

/// What became of a replicated item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The key has it.
    Stored,
    /// Its time is over; the key has no item.
    Expired,
    /// The shard could not hold it if it held nothing else; the key has no item.
    TooLarge,
    /// No room could be made; the key has no item.
    NoRoom,
}

impl Shard {
    /// Makes `new` the item of its key, whatever was there. The largest item that clients may write
    /// is no limit: it was accepted where it came from.
    pub fn apply_put(&mut self, key: &Key<'_>, new: &Replicated<'_>, now: Timestamp) -> Applied {
        let old = self.find(key, now);
        if new.deadline.is_due(now) {
            if let Some(old) = old {
                self.delete_entry(old, now);
            }
            return Applied::Expired;
        }
        let fields = Fields {
            client_flags: new.client_flags,
            deadline: new.deadline,
            own_cas: Some(new.cas),
            stale: new.stale,
            sequence: self.next_sequence(),
        };
        let stored = shape_of(key, fields, new.value)
            .and_then(|shape| self.store_shaped(key, old, fields, new.value, shape, now));
        match stored {
            Ok(id) => {
                self.entries().set_state(id, marks(new.stale, new.win_sent));
                Applied::Stored
            }
            Err(no_room) => {
                self.remove_unwritten(key, now);
                match no_room {
                    NoRoom::TooLarge => Applied::TooLarge,
                    NoRoom::OutOfMemory => Applied::NoRoom,
                }
            }
        }
    }

    /// Gives the item of `key` another deadline and other marks, if it is there with this cas; a use of
    /// it. Whether the key is now as it is where the change came from.
    pub fn apply_touch(
        &mut self,
        key: &Key<'_>,
        cas: u64,
        deadline: Deadline,
        (stale, win_sent): (bool, bool),
        now: Timestamp,
    ) -> bool {
        let Some(id) = self.find(key, now) else { return false };
        if self.record(id).cas() != cas {
            return false;
        }
        if deadline.is_due(now) {
            self.delete_entry(id, now);
            return true;
        }
        let fetched = self.mark_used(id, now).state & state::FETCHED;
        let marks = fetched | marks(stale, win_sent);
        if self.record(id).is_stale() == stale && self.can_touch_in_place(id, deadline) {
            self.touch_in_place(id, deadline);
            self.entries().set_state(id, marks);
            self.sample_touch(key, deadline);
            return true;
        }
        let fields = Fields { deadline, stale, ..self.fields(id) };
        match self.store_again(key, id, fields, now) {
            Some(id) => self.entries().set_state(id, marks),
            None => {
                self.remove_unwritten(key, now);
                return false;
            }
        }
        true
    }

    /// Removes the item of `key`; whether there was one.
    pub fn apply_remove(&mut self, key: &Key<'_>, now: Timestamp) -> bool {
        self.flush_if_due(now);
        self.sample_delete(key.hash());
        let Some(id) = self.find_there(key) else { return false };
        self.delete_entry(id, now);
        true
    }

    /// Removes the item of the key with this hash, if its cas is this one; whether it was. A copy of it
    /// was evicted elsewhere: it departs as evicted, so that all copies hear of it.
    pub fn remove_if_cas(&mut self, hash: KeyHash, cas: u64, now: Timestamp) -> bool {
        self.flush_if_due(now);
        let Some(id) = self.find_hash(hash) else { return false };
        let is_it = self.record(id).cas() == cas;
        if is_it {
            self.remove_evicted_elsewhere(id, now);
        }
        is_it
    }

    /// The entry of the key with this hash, expired or not.
    pub(crate) fn find_hash(&self, hash: KeyHash) -> Option<EntryId> {
        let tag = self.tag_of(hash);
        self.find_tagged(tag, |key| key_hash(key) == hash)
    }
}

fn marks(stale: bool, win_sent: bool) -> u32 {
    let stale = if stale { state::STALE } else { 0 };
    let win_sent = if win_sent { state::WIN_SENT } else { 0 };
    stale | win_sent
}
