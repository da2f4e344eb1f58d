//! `Expiries`: which items are due by the log's clock, as far as a client can know.
//!
//! A client does not hear what the server evicts. What is noted of a key is when the value that was
//! last written under it expires; an evicted one is deleted once more in vain, which is no harm.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use sim::trace::Access;

/// An object whose time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    deadline_s: u64,
    key: u64,
    id: u64,
    key_bytes: u16,
}

/// When items expire, by the log's clock.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    /// By the key's hash: what holds.
    deadlines: HashMap<u64, u64>,
    /// What is to be looked at, earliest first; an entry that does not hold any more is passed over.
    queue: BinaryHeap<Reverse<Due>>,
}

impl Expiries {
    /// The object of `access`, whose key's hash is `key`, was written at `now_s` or given another
    /// expiry; a `ttl_s` of 0 is none.
    pub(super) fn set(&mut self, key: u64, access: &Access, now_s: u32, ttl_s: u32) {
        if ttl_s == 0 {
            self.deadlines.remove(&key);
            return;
        }
        let deadline_s = u64::from(now_s) + u64::from(ttl_s);
        self.deadlines.insert(key, deadline_s);
        let (id, key_bytes) = (access.id, access.key_bytes);
        self.queue.push(Reverse(Due { deadline_s, key, id, key_bytes }));
    }

    /// The object is gone.
    pub(super) fn forget(&mut self, key: u64) {
        self.deadlines.remove(&key);
    }

    /// The next object that is due at `now_s`, with which it is forgotten.
    pub(super) fn next_due(&mut self, now_s: u32) -> Option<Access> {
        while let Some(&Reverse(due)) = self.queue.peek()
            && due.deadline_s <= u64::from(now_s)
        {
            self.queue.pop();
            if self.deadlines.get(&due.key) == Some(&due.deadline_s) {
                self.deadlines.remove(&due.key);
                let access = Access { key_bytes: due.key_bytes, ..Access::get(now_s, due.id, 0) };
                return Some(access);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_anew_or_is_gone_is_not_due() {
        let mut expiries = Expiries::default();
        let object = |id| Access::get(0, id, 1);
        for (key, ttl_s) in [(1, 10), (2, 10), (3, 10), (4, 10), (5, 20)] {
            expiries.set(key, &object(key), 100, ttl_s);
        }
        expiries.set(1, &object(1), 105, 10);
        expiries.set(2, &object(2), 105, 0);
        expiries.forget(3);
        assert_eq!(expiries.next_due(109), None);
        assert_eq!(expiries.next_due(110).map(|access| access.id), Some(4));
        assert_eq!(expiries.next_due(110), None);
        assert_eq!(expiries.next_due(115).map(|access| access.id), Some(1));
        assert_eq!(expiries.next_due(u32::MAX).map(|access| access.id), Some(5));
    }
}
