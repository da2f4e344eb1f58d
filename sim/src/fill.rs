//! `Fills`: what a read that is a miss would be followed by, in a log of a key-value store.
//!
//! ```text
//! log:     get k -> hit, 80 B      set k 100 B 60 s      get k -> hit
//! here:    a miss in a smaller cache is filled with the value that the log last wrote under k,
//!          before the first write with that of the first one, and never written with the get's own size
//! ```
//!
//! The log tells what happened before the cache that wrote it. In a smaller one some of its hits are
//! misses; the application that asked would have written the value again, which the log does not
//! show. What it would have written is the same for every cache, so it is found out once, on the way
//! from the log to the replays.
//!
//! - Memory: 24 to 48 bytes for each key that the log ever writes to, and in a first reading as much
//!   for each that it reads before it writes.
//! - What comes after a key's first read is not known until it is read: a log is read twice, or kept.
//!   A stream too long to keep is read once, and such reads are filled with their own size.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::replay::Request;
use crate::trace::Op;

/// A value that the log wrote.
#[derive(Clone, Copy, Debug)]
struct Value {
    key: u64,
    size_bytes: u32,
    ttl_s: u32,
}

/// Values by key.
#[derive(Clone, Debug, Default)]
struct Values(HashTable<Value>);

impl Values {
    #[inline]
    fn get(&self, key: u64) -> Option<&Value> {
        self.0.find(key, |value| value.key == key)
    }

    /// Puts `value` in the place of what is there.
    fn put(&mut self, value: Value) {
        match self.0.entry(value.key, |other| other.key == value.key, |other| other.key) {
            Entry::Occupied(mut place) => *place.get_mut() = value,
            Entry::Vacant(place) => {
                place.insert(value);
            }
        }
    }
}

/// Tells each request what its key's value is.
#[derive(Clone, Debug, Default)]
pub struct Fills {
    /// What was last written.
    latest: Values,
    /// Of keys that are read before they are written: what is first written.
    first: Values,
}

impl Fills {
    /// Completes `request` by what the log wrote before it.
    ///
    /// A read gets the size and TTL of the value that would be filled in; an append the size of the
    /// whole; a touch the size of what is touched. Where there is nothing to know, `fills` becomes
    /// false.
    pub fn complete(&mut self, request: &mut Request) {
        let key = request.key.0;
        match request.op {
            op if op.is_write() => {
                let (size_bytes, ttl_s) = (request.size_bytes, request.ttl_s);
                self.latest.put(Value { key, size_bytes, ttl_s });
            }
            Op::Get | Op::GetAndTouch => {
                let known = self.latest.get(key).or_else(|| self.first.get(key));
                if let Some(value) = known {
                    request.size_bytes = value.size_bytes;
                    if request.op == Op::Get {
                        request.ttl_s = value.ttl_s;
                    }
                } else {
                    request.fills = request.size_bytes > 0;
                }
            }
            Op::Append | Op::Prepend => match self.latest.get(key).copied() {
                Some(value) => {
                    request.size_bytes = request.size_bytes.saturating_add(value.size_bytes);
                    self.latest.put(Value { size_bytes: request.size_bytes, ..value });
                }
                None => request.fills = false,
            },
            Op::Touch => match self.latest.get(key) {
                Some(value) => request.size_bytes = value.size_bytes,
                None => request.fills = false,
            },
            _ => {}
        }
    }
}

/// Finds what keys are first written with, for those that are read before.
#[derive(Clone, Debug, Default)]
pub struct FirstWrites {
    /// Values of keys seen: none yet of those only read.
    seen: HashTable<(u64, Option<(u32, u32)>)>,
    /// Keys whose first request was a write are of no interest later.
    written_first: HashTable<u64>,
}

impl FirstWrites {
    /// Takes note of a request.
    pub fn note(&mut self, request: &Request) {
        let key = request.key.0;
        if !request.op.is_read() && !request.op.is_write() {
            return;
        }
        if self.written_first.find(key, |&other| other == key).is_some() {
            return;
        }
        let entry = self.seen.entry(key, |&(other, _)| other == key, |&(other, _)| other);
        match (entry, request.op.is_write()) {
            (Entry::Occupied(mut place), true) if place.get().1.is_none() => {
                place.get_mut().1 = Some((request.size_bytes, request.ttl_s));
            }
            (Entry::Vacant(place), false) => {
                place.insert((key, None));
            }
            (Entry::Vacant(_), true) => {
                self.written_first.insert_unique(key, key, |&other| other);
            }
            (Entry::Occupied(_), _) => {}
        }
    }

    /// What is known at the beginning of the log, now that it has been read.
    pub fn into_fills(self) -> Fills {
        let mut fills = Fills::default();
        for (key, value) in self.seen {
            if let Some((size_bytes, ttl_s)) = value {
                fills.first.put(Value { key, size_bytes, ttl_s });
            }
        }
        fills
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Access;

    fn request(op: Op, id: u64, size_bytes: u32, ttl_s: u32) -> Request {
        Access { op, ttl_s, ..Access::get(0, id, size_bytes) }.into()
    }

    /// Size, TTL and whether it fills, of each request once completed with what the log tells.
    fn completed(requests: &[Request]) -> Vec<(u32, u32, bool)> {
        let mut first = FirstWrites::default();
        requests.iter().for_each(|request| first.note(request));
        let mut fills = first.into_fills();
        requests
            .iter()
            .map(|request| {
                let mut request = *request;
                fills.complete(&mut request);
                (request.size_bytes, request.ttl_s, request.fills)
            })
            .collect()
    }

    #[test]
    fn a_read_is_filled_with_what_was_last_written() {
        let log = [
            request(Op::Set, 1, 100, 60),
            request(Op::Get, 1, 0, 0),
            request(Op::Add, 1, 200, 0),
            request(Op::Get, 1, 100, 0),
        ];
        let want = [(100, 60, true), (100, 60, true), (200, 0, true), (200, 0, true)];
        assert_eq!(completed(&log), want);
    }

    #[test]
    fn a_read_before_the_first_write_is_filled_with_that() {
        let log = [
            request(Op::Get, 1, 80, 0),
            request(Op::Delete, 1, 0, 0),
            request(Op::Get, 1, 0, 0),
            request(Op::Set, 1, 100, 60),
            request(Op::Set, 1, 300, 9),
        ];
        assert_eq!(completed(&log)[0], (100, 60, true));
        assert_eq!(completed(&log)[2], (100, 60, true));
    }

    #[test]
    fn a_key_never_written_has_the_size_of_its_read_or_none() {
        let log = [request(Op::Get, 1, 80, 5), request(Op::Get, 2, 0, 0)];
        assert_eq!(completed(&log), [(80, 5, true), (0, 0, false)]);
    }

    #[test]
    fn an_append_makes_the_value_as_large_as_both() {
        let log = [
            request(Op::Append, 1, 7, 0),
            request(Op::Set, 1, 100, 60),
            request(Op::Prepend, 1, 20, 0),
            request(Op::Append, 1, 3, 0),
            request(Op::Get, 1, 0, 0),
            request(Op::Touch, 1, 0, 9),
        ];
        let want = [
            (7, 0, false),
            (100, 60, true),
            (120, 0, true),
            (123, 0, true),
            (123, 60, true),
            (123, 9, true),
        ];
        assert_eq!(completed(&log), want);
    }

    #[test]
    fn a_gat_keeps_the_expiry_it_gives() {
        let log = [request(Op::Set, 1, 100, 60), request(Op::GetAndTouch, 1, 0, 7)];
        assert_eq!(completed(&log)[1], (100, 7, true));
    }
}
