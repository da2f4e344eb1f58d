//! Written but not committed: what a strict read has to wait for.
//!
//! A read that sees a write which is not committed yet must not be answered before it is: should this node
//! be lost, nobody else may ever have heard of it. So an answer waits for the last write of its key, and for
//! no other. (The alternative, to keep the value before and to answer with that, costs memory for each write
//! under way, and an answer that is older by a round trip.)

use std::collections::{BTreeMap, VecDeque};

use crate::Sequence;

/// The writes of a shard that are not committed, by the hash of their key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    last: BTreeMap<u64, Sequence>,
    order: VecDeque<(Sequence, u64)>,
}

impl Pending {
    /// `key_hash` was written as number `sequence`, not less than those before: a write may be of several keys.
    pub fn wrote(&mut self, key_hash: u64, sequence: Sequence) {
        debug_assert!(self.order.back().is_none_or(|&(last, _)| last <= sequence), "in order");
        self.order.push_back((sequence, key_hash));
        self.last.insert(key_hash, sequence);
    }

    /// Writes up to `sequence` are committed.
    pub fn committed(&mut self, sequence: Sequence) {
        while let Some(&(first, key_hash)) = self.order.front()
            && first <= sequence
        {
            self.order.pop_front();
            if self.last.get(&key_hash) == Some(&first) {
                self.last.remove(&key_hash);
            }
        }
    }

    /// The write that whoever sees this key has to wait for.
    #[inline]
    pub fn of(&self, key_hash: u64) -> Option<Sequence> {
        if self.order.is_empty() {
            return None;
        }
        self.last.get(&key_hash).copied()
    }

    /// Forgets everything: this node leads the shard no more.
    pub fn clear(&mut self) {
        self.last.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_waits_for_the_last_write_of_its_key_alone() {
        let mut pending = Pending::default();
        pending.wrote(7, Sequence(1));
        pending.wrote(8, Sequence(2));
        pending.wrote(7, Sequence(3));
        assert_eq!(pending.of(7), Some(Sequence(3)));
        assert_eq!(pending.of(9), None);
        pending.committed(Sequence(2));
        assert_eq!(pending.of(8), None);
        assert_eq!(pending.of(7), Some(Sequence(3)), "the first write of it is not the last");
        pending.committed(Sequence(3));
        assert_eq!(pending, Pending::default());
    }
}
