//! Written but not committed: what a strict read has to wait for.
//!
//! A read that sees a write which is not committed yet must not be answered before it is: should this node
//! be lost, nobody else may ever have heard of it. So an answer waits for the last write of its key, and for
//! no other. (The alternative, to keep the value before and to answer with that, costs memory for each write
//! under way, and an answer that is older by a round trip.)

use std::collections::{BTreeMap, VecDeque};

use crate::Sequence;

/// Writes that are looked through one by one. Of a shard whose backups answer there are hardly ever more.
const SCANNED_MAX: usize = 32;

/// The writes of a shard that are not committed, by the hash of their key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    order: VecDeque<(Sequence, u64)>,
    /// The last of each key, once there were more than [`SCANNED_MAX`] and until there are none.
    last: Option<BTreeMap<u64, Sequence>>,
}

impl Pending {
    /// `key_hash` was written as number `sequence`, not less than those before: a write may be of several keys.
    pub fn wrote(&mut self, key_hash: u64, sequence: Sequence) {
        debug_assert!(self.order.back().is_none_or(|&(last, _)| last <= sequence), "in order");
        self.order.push_back((sequence, key_hash));
        if let Some(last) = &mut self.last {
            last.insert(key_hash, sequence);
        } else if self.order.len() > SCANNED_MAX {
            self.last = Some(self.order.iter().map(|&(sequence, key)| (key, sequence)).collect());
        }
    }

    /// Writes up to `sequence` are committed.
    pub fn committed(&mut self, sequence: Sequence) {
        while let Some(&(first, key_hash)) = self.order.front()
            && first <= sequence
        {
            self.order.pop_front();
            if let Some(last) = &mut self.last
                && last.get(&key_hash) == Some(&first)
            {
                last.remove(&key_hash);
            }
        }
        if self.order.is_empty() {
            self.last = None;
        }
    }

    /// The write that whoever sees this key has to wait for.
    #[inline]
    pub fn of(&self, key_hash: u64) -> Option<Sequence> {
        if let Some(last) = &self.last {
            return last.get(&key_hash).copied();
        }
        let mut newest_first = self.order.iter().rev();
        newest_first.find(|&&(_, key)| key == key_hash).map(|&(sequence, _)| sequence)
    }

    /// Forgets everything: this node leads the shard no more.
    pub fn clear(&mut self) {
        self.last = None;
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn key_waits_for_its_last_write_however_many_there_are(
            keys in proptest::collection::vec(0..20_u64, 0..100),
            commits in proptest::collection::vec(0..100_usize, 0..10),
        ) {
            let mut pending = Pending::default();
            let mut committed = 0;
            for (done, &key) in keys.iter().enumerate() {
                pending.wrote(key, Sequence(done as u64 + 1));
                if commits.contains(&done) {
                    committed = done.div_ceil(2).max(committed);
                    pending.committed(Sequence(committed as u64));
                }
                for asked in 0..20 {
                    let last = (committed..=done).rev().find(|&place| keys[place] == asked);
                    let expected = last.map(|place| Sequence(place as u64 + 1));
                    prop_assert_eq!(pending.of(asked), expected);
                }
            }
            pending.committed(Sequence(keys.len() as u64));
            prop_assert_eq!(pending, Pending::default());
        }
    }

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
