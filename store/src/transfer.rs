//! Items on their way from one shard to another that is cut differently.
//!
//! The shards that a cache file was written with are opened, whatever the server is now, and give
//! their items up in the order in which they would evict them, all in step. The new shards take them
//! in that order: what does not fit any more leaves about as it would have left before.

use crate::entries::state;
use crate::record;
use crate::shard::{Fields, Item, Key, Shard, shape_of};
use crate::time::{Deadline, Timestamp};

/// An item on its way.
#[derive(Clone, Copy)]
pub struct Transfer<'a> {
    item: Item<'a>,
    /// The number of the write that made it.
    sequence: u64,
    own_cas: Option<u64>,
    accessed_secs: u32,
    marks: u32,
}

impl Shard {
    /// The greatest number that a write may have been given so far.
    pub fn sequence(&self) -> u64 {
        self.sequence_ref().last()
    }

    /// Gives writes greater numbers than `sequence` from now on.
    pub fn count_on_after(&mut self, sequence: u64) {
        self.go_on_after(sequence);
    }

    /// Calls `take` with up to `items_max` items that were not given up before, the one that would be
    /// evicted first coming first. From the first call on the shard is good for nothing else; what its
    /// arena holds stays.
    pub fn give_up(
        &mut self,
        items_max: u64,
        now: Timestamp,
        mut take: impl FnMut(&[u8], Transfer<'_>),
    ) {
        self.flush_if_due(now);
        for _ in 0..items_max {
            let Some(id) = self.victim_unasked() else { break };
            let usage = self.usage(id, now);
            let header = self.record(id).header();
            if header.deadline.unwrap_or(Deadline::NEVER).is_due(now) {
                continue;
            }
            let transfer = Transfer {
                item: self.item(id, usage),
                sequence: header.cas,
                own_cas: header.own_cas,
                accessed_secs: self.accessed_secs(id),
                marks: usage.state,
            };
            take(self.record(id).key(), transfer);
        }
    }

    /// Takes an item over, cas, marks and time of last use included. Other items are evicted for it if
    /// need be, even where the shard evicts nothing for a client. `false` when it does not fit.
    pub fn adopt(&mut self, key: &Key<'_>, transfer: &Transfer<'_>, now: Timestamp) -> bool {
        let item = &transfer.item;
        let mut fields = Fields {
            client_flags: item.client_flags,
            deadline: item.deadline,
            own_cas: transfer.own_cas,
            stale: transfer.marks & state::STALE != 0,
            sequence: transfer.sequence,
        };
        if self.may_need_parts(key, item.value.len()) {
            // Parts are found by the number of their head. A file may say of two shards that they gave
            // the same.
            fields.own_cas = Some(item.cas);
            fields.sequence = self.next_sequence();
        }
        let pieces: Vec<&[u8]> = item.value.pieces().collect();
        let evicts = self.set_evicts(true);
        // It was accepted once, whatever the largest item is now.
        let stored = shape_of(key, fields, &pieces)
            .and_then(|shape| self.store_shaped(key, None, fields, &pieces, shape, now));
        self.set_evicts(evicts);
        if let Ok(id) = stored {
            self.entries().set_state(id, transfer.marks);
            self.entries().set_accessed_secs(id, transfer.accessed_secs);
        }
        stored.is_ok()
    }

    fn may_need_parts(&self, key: &Key<'_>, value_bytes: usize) -> bool {
        let fixed = record::HEADER_BYTES as usize + record::OPTIONAL_BYTES_MAX;
        fixed + key.bytes().len() + value_bytes > self.part_bytes_max() as usize
    }
}
