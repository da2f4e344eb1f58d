//! Copies of the items that everybody wants at once: of those a worker met the lock of whose shard taken.
//!
//! ```text
//! get ──▶ lock free? ──yes──▶ the shard answers
//!            │ no
//!            ├──▶ a copy, its version unchanged? ──yes──▶ the copy answers
//!            └──▶ waits for the lock, answers, and keeps a copy of the answer if it is the second time
//! ```
//!
//! A key that takes a tenth of all requests has one shard, and a lock lets one worker through at a time. Here a
//! worker whose turn it is not answers from what it saw last, and asks [`Versions`](super::versions::Versions)
//! whether that still holds. Where locks are free nothing of this happens, and nothing is paid for it.
//!
//! - A copy is the answer as it was sent, so its key, flags and cas are in it.
//! - A copy is good for as long as its group has the version that it had, and its item's time is not over.
//! - What is answered here is not told to the policy: who is read so often that its lock is never free is read
//!   through it as well, by whoever has it.
//! - There are few, found by the hash of their keys; a newer one takes the place of an older one. Together they
//!   stay below 70 KB a worker, which its part of the allowance covers.

use eviction::KeyHash;
use store::{Deadline, Key, Shard, Timestamp};

use super::Shards;
use super::versions::Version;

/// Copies that a worker keeps.
const COPIES: usize = 32;

/// The longest answer that is kept.
const ANSWER_BYTES_MAX: usize = 2 << 10;

/// Where the key stands in an answer, behind `VALUE `.
const KEY_AT: usize = 6;

/// The copies of one worker.
#[derive(Debug, Default)]
pub struct HotItems {
    places: Vec<Place>,
}

#[derive(Debug, Default)]
struct Place {
    /// For whose key a lock was waited for last. A copy is made of one that comes twice in a row: any item may be in
    /// a shard that somebody has locked for another's sake.
    last: Option<KeyHash>,
    copy: Option<Copy>,
}

#[derive(Debug)]
struct Copy {
    hash: KeyHash,
    /// Whether the answer has the item's cas.
    with_cas: bool,
    version: Version,
    deadline: Deadline,
    /// When everything is to go, if that was known.
    flush_at: Option<Timestamp>,
    /// As `get` or `gets` answer it, without the `END`.
    answer: Box<[u8]>,
}

impl Copy {
    fn is_of(&self, key: &Key<'_>, with_cas: bool) -> bool {
        let asked = key.bytes();
        self.hash == key.hash()
            && self.with_cas == with_cas
            && self.answer[KEY_AT..].starts_with(asked)
            && self.answer.get(KEY_AT + asked.len()) == Some(&b' ')
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.deadline.is_due(now) || self.flush_at.is_some_and(|at| at <= now)
    }
}

impl HotItems {
    /// What the shard of `key` would answer, without asking it. `None` if that is not known for sure.
    pub fn answer(
        &self,
        shards: &Shards,
        key: &Key<'_>,
        with_cas: bool,
        now: Timestamp,
    ) -> Option<&[u8]> {
        let copy = self.places.get(place_of(key))?.copy.as_ref()?;
        let is_it = copy.is_of(key, with_cas)
            && !copy.is_due(now)
            && shards.version_of(key) == Some(copy.version);
        is_it.then_some(&copy.answer)
    }

    /// `shard` is locked, after a wait, and has given `answer`, a `VALUE` block, for `key`: keeps a copy of it, unless
    /// this is the first time.
    pub fn keep(
        &mut self,
        shards: &Shards,
        shard: &mut Shard,
        key: &Key<'_>,
        with_cas: bool,
        now: Timestamp,
        answer: &[u8],
    ) {
        debug_assert!(answer.starts_with(b"VALUE "), "the answer of a hit");
        let Some(version) = shards.version_of(key) else { return };
        if answer.len() > ANSWER_BYTES_MAX {
            return;
        }
        // Most workers never meet a lock that is taken, and need no memory for copies.
        self.places.resize_with(COPIES, Place::default);
        let place = &mut self.places[place_of(key)];
        if place.last.replace(key.hash()) != Some(key.hash()) {
            return;
        }
        let Some(deadline) = shard.peek(key, now).map(|item| item.deadline) else { return };
        place.copy = Some(Copy {
            hash: key.hash(),
            with_cas,
            version,
            deadline,
            flush_at: shard.flush_to_come(),
            answer: answer.into(),
        });
    }
}

/// Where a copy of `key` would be.
fn place_of(key: &Key<'_>) -> usize {
    // The lowest bits: the highest choose the shard.
    usize::from(key.hash().0.to_le_bytes()[0]) % COPIES
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use proptest::prelude::*;
    use store::{Delta, End, NewItem, Precondition};

    use super::*;
    use crate::config::Config;
    use crate::service::encode_value;

    const START: Timestamp = Timestamp(1_800_000_000_000);

    fn shards_of(threads: usize) -> Shards {
        let threads = NonZeroUsize::new(threads).unwrap();
        Shards::new(&Config { threads, ..Config::default() })
    }

    fn put(shards: &Shards, key: &[u8], value: &[u8], deadline: Deadline, now: Timestamp) {
        let key = Key::new(key);
        let new = NewItem { client_flags: 3, deadline, value: &[value], own_cas: None };
        shards.lock(&key).put(&key, &new, Precondition::None, now);
    }

    /// What the shard answers.
    fn block(shard: &mut Shard, key: &Key<'_>, with_cas: bool, now: Timestamp) -> Option<Vec<u8>> {
        let item = shard.get(key, now)?;
        let mut out = Vec::new();
        let asked = protocol::Key::new(key.bytes()).unwrap();
        encode_value(asked, &item, with_cas, &mut out);
        Some(out)
    }

    /// Has a copy kept of what the shard answers now.
    fn copy(hot: &mut HotItems, shards: &Shards, key: &[u8], with_cas: bool, now: Timestamp) {
        let key = Key::new(key);
        let mut shard = shards.lock(&key);
        if let Some(answer) = block(&mut shard, &key, with_cas, now) {
            for _ in 0..2 {
                hot.keep(shards, &mut shard, &key, with_cas, now, &answer);
            }
        }
    }

    #[test]
    fn an_item_that_did_not_change_is_answered_from_its_copy() {
        let (shards, mut hot) = (shards_of(4), HotItems::default());
        put(&shards, b"hot", b"value", Deadline::NEVER, START);
        copy(&mut hot, &shards, b"hot", false, START);
        let key = Key::new(b"hot");
        let expected: &[u8] = b"VALUE hot 3 5\r\nvalue\r\n";
        assert_eq!(hot.answer(&shards, &key, false, START), Some(expected));
        assert_eq!(hot.answer(&shards, &key, true, START), None, "its cas is not in it");
        shards.lock(&key).get(&key, START);
        assert_eq!(hot.answer(&shards, &key, false, START), Some(expected));
    }

    #[test]
    fn an_item_whose_lock_was_taken_once_is_not_copied() {
        let (shards, mut hot) = (shards_of(4), HotItems::default());
        put(&shards, b"hot", b"value", Deadline::NEVER, START);
        let key = Key::new(b"hot");
        for is_known in [false, true] {
            let mut shard = shards.lock(&key);
            let answer = block(&mut shard, &key, false, START).unwrap();
            hot.keep(&shards, &mut shard, &key, false, START, &answer);
            assert_eq!(hot.answer(&shards, &key, false, START).is_some(), is_known);
        }
    }

    #[test]
    fn nothing_is_copied_where_one_worker_serves() {
        let (shards, mut hot) = (shards_of(1), HotItems::default());
        put(&shards, b"hot", b"value", Deadline::NEVER, START);
        copy(&mut hot, &shards, b"hot", false, START);
        assert_eq!(hot.answer(&shards, &Key::new(b"hot"), false, START), None);
    }

    #[test]
    fn a_large_answer_is_not_kept() {
        let (shards, mut hot) = (shards_of(4), HotItems::default());
        put(&shards, b"hot", &[7; ANSWER_BYTES_MAX], Deadline::NEVER, START);
        copy(&mut hot, &shards, b"hot", false, START);
        assert_eq!(hot.answer(&shards, &Key::new(b"hot"), false, START), None);
    }

    #[test]
    fn a_shard_that_a_bug_emptied_answers_by_no_copy() {
        let (shards, mut hot) = (shards_of(4), HotItems::default());
        put(&shards, b"hot", b"value", Deadline::NEVER, START);
        copy(&mut hot, &shards, b"hot", false, START);
        let key = Key::new(b"hot");
        let interrupted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _locked = shards.lock(&key);
            panic!("a bug, made for this test");
        }));
        assert!(interrupted.is_err());
        assert_eq!(hot.answer(&shards, &key, false, START), None);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Put { key: u8, value: u8, secs: Option<u64> },
        Delete(u8),
        Touch { key: u8, secs: Option<u64> },
        Add(u8),
        Append(u8),
        Flush { secs: u64 },
        Sweep,
        Advance { secs: u64 },
        Copy { key: u8, with_cas: bool },
    }

    fn op() -> impl Strategy<Value = Op> {
        let key = || 0..4u8;
        let secs = || prop::option::of(0..10u64);
        prop_oneof![
            3 => (key(), any::<u8>(), secs()).prop_map(|(key, value, secs)| Op::Put { key, value, secs }),
            1 => key().prop_map(Op::Delete),
            1 => (key(), secs()).prop_map(|(key, secs)| Op::Touch { key, secs }),
            1 => key().prop_map(Op::Add),
            1 => key().prop_map(Op::Append),
            1 => (0..10u64).prop_map(|secs| Op::Flush { secs }),
            1 => Just(Op::Sweep),
            2 => (0..4u64).prop_map(|secs| Op::Advance { secs }),
            6 => (key(), any::<bool>()).prop_map(|(key, with_cas)| Op::Copy { key, with_cas }),
        ]
    }

    fn carry_out(op: &Op, shards: &Shards, hot: &mut HotItems, now: &mut Timestamp) {
        let deadline = |secs: Option<u64>, now: Timestamp| {
            secs.map_or(Deadline::NEVER, |secs| Deadline::at(now.plus_millis(secs * 1000)))
        };
        let name = |key: u8| [b'k', b'0' + key];
        let at = *now;
        match *op {
            Op::Put { key, value, secs } => {
                let value = value.to_string();
                put(shards, &name(key), value.as_bytes(), deadline(secs, at), at);
            }
            Op::Delete(key) => {
                let name = name(key);
                let key = Key::new(&name);
                shards.lock(&key).delete(&key, None, at);
            }
            Op::Touch { key, secs } => {
                let name = name(key);
                let key = Key::new(&name);
                shards.lock(&key).touch(&key, deadline(secs, at), at);
            }
            Op::Add(key) => {
                let name = name(key);
                let key = Key::new(&name);
                shards.lock(&key).add_delta(&key, Delta::Increment(1), None, None, None, at);
            }
            Op::Append(key) => {
                let name = name(key);
                let key = Key::new(&name);
                shards.lock(&key).concat(&key, End::Back, b"9", None, None, at);
            }
            Op::Flush { secs } => {
                let flush_at = at.plus_millis(secs * 1000);
                shards.each().for_each(|mut shard| shard.flush_all(flush_at, at));
            }
            Op::Sweep => shards.sweep_whole(at),
            Op::Advance { secs } => *now = at.plus_millis(secs * 1000),
            Op::Copy { key, with_cas } => copy(hot, shards, &name(key), with_cas, at),
        }
    }

    proptest! {
        #[test]
        fn a_copy_that_answers_says_what_the_shard_says(ops in prop::collection::vec(op(), 1..80)) {
            let (shards, mut hot, mut now) = (shards_of(2), HotItems::default(), START);
            for op in &ops {
                carry_out(op, &shards, &mut hot, &mut now);
                for name in [b"k0", b"k1", b"k2", b"k3"] {
                    let key = Key::new(name);
                    for with_cas in [false, true] {
                        let Some(copied) = hot.answer(&shards, &key, with_cas, now) else { continue };
                        let held = block(&mut shards.lock(&key), &key, with_cas, now);
                        prop_assert_eq!(Some(copied), held.as_deref(), "after {:?}", op);
                    }
                }
            }
        }
    }

    #[test]
    fn no_reader_finds_less_than_was_answered_to_the_writer() {
        const WRITES: u64 = 20_000;
        let shards = shards_of(4);
        let answered = AtomicU64::new(0);
        let number = |block: &[u8]| -> u64 {
            let text = std::str::from_utf8(block).unwrap();
            text.lines().nth(1).unwrap().parse().unwrap()
        };
        put(&shards, b"hot", b"0", Deadline::NEVER, START);
        let read = || {
            let (mut hot, mut copies) = (HotItems::default(), 0);
            let key = Key::new(b"hot");
            loop {
                let floor = answered.load(Ordering::SeqCst);
                let found = match hot.answer(&shards, &key, false, START) {
                    Some(block) => {
                        copies += 1;
                        number(block)
                    }
                    None => {
                        let mut shard = shards.lock(&key);
                        let block = block(&mut shard, &key, false, START).unwrap();
                        hot.keep(&shards, &mut shard, &key, false, START, &block);
                        number(&block)
                    }
                };
                assert!(found >= floor, "{found} after {floor}");
                if floor == WRITES {
                    return copies;
                }
            }
        };
        let copies: u64 = thread::scope(|scope| {
            let readers: Vec<_> = (0..3).map(|_| scope.spawn(read)).collect();
            for n in 1..=WRITES {
                put(&shards, b"hot", n.to_string().as_bytes(), Deadline::NEVER, START);
                answered.store(n, Ordering::SeqCst);
            }
            readers.into_iter().map(|reader| reader.join().unwrap()).sum()
        });
        assert!(copies > 0, "no copy was ever good");
    }
}
