//! `Foresight`: the clairvoyant optimum, MIN: whoever is asked for again last leaves first.
//!
//! L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal
//! 5(2), 1966. No policy without a view of the future hits more often where objects count alike; how far
//! one is from it says what a better policy could still win.
//!
//! ```text
//! use      0    1    2    3    4    5
//! object   A    B    A    C    B    D
//! next     2    4    -    -    -    -       the use that would be a hit if the object stayed
//! ```
//!
//! - A cache is the set of the uses that its objects will be hits at. Use `n` is a hit if `n` is in the set;
//!   what leaves is the largest of the set. So neither keys nor a directory are needed to play, and one
//!   reading serves every size.
//! - As in the other caches whatever is asked for or written is taken in, and has a place of its own at that
//!   moment, even if it is never wanted again.
//! - What is written anew or deleted before it is read again was kept for nothing: its next use is none.
//!   A write, though, has a place like a read. Ops that need something to be there (replace, cas, append,
//!   incr, touch) keep it there and change nothing.
//! - TTLs are not foreseen: when an object expires depends on when it was filled in, and so on what the
//!   cache did before. In bytes the farthest next use is not the optimum. Both are refused
//!   ([`crate::run::RunError`]).
//! - Memory: 8 bytes a use; until the log is read, up to 39 more an object; for each size played at a time
//!   a bit a use and up to 8 bytes for each object of its room.

use std::collections::BinaryHeap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::replay::{Request, Tally};
use crate::trace::Op;

/// What has no next use.
const NEVER: u32 = u32::MAX;

/// Stale members of a heap that are not worth a sweep.
const STALE_UNSWEPT_MAX: usize = 1024;

/// A read that can be a hit, or a write.
#[derive(Clone, Copy, Debug)]
struct Use {
    /// The use that is a hit if the object stays until then.
    next: u32,
    /// Bytes of a read.
    bytes: u32,
}

/// What a log will ask for, by what it asked for before.
#[derive(Clone, Debug, Default)]
pub struct Foresight {
    uses: Vec<Use>,
    /// The last use of each object that may be read again.
    last: HashTable<(u64, u32)>,
    /// All reads; no hits.
    reads: Tally,
}

impl Foresight {
    /// Takes note of the next request of the log.
    ///
    /// # Panics
    ///
    /// There are more than 2^32 of them.
    pub fn note(&mut self, request: &Request) {
        let key = request.key.0;
        match request.op {
            Op::Get | Op::GetAndTouch => {
                self.reads.count(request, false);
                // What can never be filled in is never there.
                if request.fills {
                    let now = self.push(request.size_bytes);
                    if let Some(before) = self.last_use(key, now) {
                        self.uses[before as usize].next = now;
                    }
                }
            }
            Op::Set | Op::Add => {
                let now = self.push(0);
                let _kept_for_nothing = self.last_use(key, now);
            }
            Op::Delete => {
                if let Ok(entry) = self.last.find_entry(key, |&(other, _)| other == key) {
                    entry.remove();
                }
            }
            Op::Replace | Op::Cas | Op::Append | Op::Prepend | Op::Incr | Op::Decr | Op::Touch => {}
        }
    }

    fn push(&mut self, bytes: u32) -> u32 {
        let now = u32::try_from(self.uses.len()).unwrap_or(NEVER);
        assert!(now < NEVER, "uses are numbered in 32 bits");
        self.uses.push(Use { next: NEVER, bytes });
        now
    }

    /// The use of an object before this one, which takes its place.
    fn last_use(&mut self, key: u64, now: u32) -> Option<u32> {
        match self.last.entry(key, |&(other, _)| other == key, |&(other, _)| other) {
            Entry::Occupied(mut place) => Some(std::mem::replace(&mut place.get_mut().1, now)),
            Entry::Vacant(place) => {
                place.insert((key, now));
                None
            }
        }
    }

    /// Nothing more is to come: what only noting needs is given back.
    pub fn seal(&mut self) {
        self.last = HashTable::new();
        self.uses.shrink_to_fit();
    }

    /// What caches of `capacities` objects count, on up to `jobs` threads.
    pub fn play_all(&self, capacities: &[u64], jobs: NonZeroUsize) -> Vec<Tally> {
        let next = AtomicUsize::new(0);
        let play = || {
            let mut played = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(&capacity) = capacities.get(at) else {
                    return played;
                };
                played.push((at, self.play(capacity)));
            }
        };
        let mut played: Vec<(usize, Tally)> = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..jobs.get().min(capacities.len())).map(|_| scope.spawn(play)).collect();
            threads
                .into_iter()
                .flat_map(|thread| match thread.join() {
                    Ok(played) => played,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
                .collect()
        });
        played.sort_unstable_by_key(|&(at, _)| at);
        played.into_iter().map(|(_, tally)| tally).collect()
    }

    /// What a cache of `capacity` objects counts that knows all this.
    pub fn play(&self, capacity: u64) -> Tally {
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
        let mut room = Room::new(self.uses.len());
        let mut tally = self.reads;
        for (now, &Use { next, bytes }) in (0..).zip(&self.uses) {
            if room.take(now) {
                tally.hits += 1;
                tally.hit_bytes += u64::from(bytes);
            } else if room.len == capacity {
                room.evict();
            }
            if next != NEVER {
                room.insert(next, now);
            }
        }
        tally
    }
}

/// The uses that resident objects will be hits at.
struct Room {
    /// A bit a use.
    members: Vec<u64>,
    /// The members, the latest first, and under them uses that are past.
    latest: BinaryHeap<u32>,
    len: usize,
}

impl Room {
    fn new(uses: usize) -> Self {
        Self { members: vec![0; uses.div_ceil(64)], latest: BinaryHeap::new(), len: 0 }
    }

    /// Takes `now` out, if it is a member.
    fn take(&mut self, now: u32) -> bool {
        let (word, bit) = (&mut self.members[now as usize / 64], 1_u64 << (now % 64));
        let is_member = *word & bit != 0;
        // Cleared only where it is set: rustc 1.95 and 1.97 at opt-level 2 and above make code of an
        // unconditional `*word &= !bit` after the look that leaves members in.
        if is_member {
            *word &= !bit;
            self.len -= 1;
        }
        is_member
    }

    fn insert(&mut self, next: u32, now: u32) {
        self.members[next as usize / 64] |= 1 << (next % 64);
        self.len += 1;
        self.latest.push(next);
        // Past uses are the smallest, and sink.
        if self.latest.len() > 2 * self.len + STALE_UNSWEPT_MAX {
            self.latest.retain(|&next| next > now);
        }
    }

    /// Lets the object go that is asked for last. There is one.
    fn evict(&mut self) {
        if let Some(victim) = self.latest.pop() {
            let was_member = self.take(victim);
            debug_assert!(was_member, "all members lie ahead of what is past");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::trace::Access;

    fn request(op: Op, id: u64) -> Request {
        Access { op, ..Access::get(0, id, 10) }.into()
    }

    fn foresight(requests: &[Request]) -> Foresight {
        let mut foresight = Foresight::default();
        requests.iter().for_each(|request| foresight.note(request));
        foresight.seal();
        foresight
    }

    /// The most hits there can be, by trying every victim at every miss.
    fn best(requests: &[Request], resident: &[u64], capacity: usize) -> u64 {
        let Some((request, rest)) = requests.split_first() else {
            return 0;
        };
        let key = request.key.0;
        let is_there = resident.contains(&key);
        if request.op == Op::Delete {
            let resident: Vec<u64> = resident.iter().copied().filter(|&it| it != key).collect();
            return best(rest, &resident, capacity);
        }
        if is_there {
            return u64::from(request.op.is_read()) + best(rest, resident, capacity);
        }
        let with = |others: &[u64]| [others, &[key]].concat();
        if resident.len() < capacity {
            return best(rest, &with(resident), capacity);
        }
        let without = |victim: usize| {
            let mut others = resident.to_vec();
            others.remove(victim);
            best(rest, &with(&others), capacity)
        };
        (0..resident.len()).map(without).max().unwrap_or(0)
    }

    /// Belady's rule word for word: rows of objects, and a look at all that comes.
    fn textbook(requests: &[Request], capacity: usize) -> u64 {
        let mut resident: Vec<u64> = Vec::new();
        let mut hits = 0;
        for (at, request) in requests.iter().enumerate() {
            let key = request.key.0;
            if request.op == Op::Delete {
                resident.retain(|&other| other != key);
                continue;
            }
            if resident.contains(&key) {
                hits += u64::from(request.op.is_read());
                continue;
            }
            if resident.len() == capacity {
                // An object that is written or deleted before it is read is as good as never read.
                let wanted_at = |key: u64| {
                    let next = requests[at..].iter().position(|other| other.key.0 == key);
                    next.filter(|&ahead| requests[at + ahead].op.is_read()).unwrap_or(usize::MAX)
                };
                let victim = (0..capacity).max_by_key(|&row| wanted_at(resident[row])).unwrap();
                resident.remove(victim);
            }
            resident.push(key);
        }
        hits
    }

    fn log(objects: u64, requests: usize) -> impl Strategy<Value = Vec<Request>> {
        let op = prop_oneof![8 => Just(Op::Get), 1 => Just(Op::Set), 1 => Just(Op::Delete)];
        vec((op, 0..objects).prop_map(|(op, id)| request(op, id)), 0..requests)
    }

    proptest! {
        #[test]
        fn no_choice_of_victims_hits_more_often(requests in log(6, 15), capacity in 1usize..4) {
            let hits = foresight(&requests).play(capacity as u64).hits;
            prop_assert_eq!(hits, best(&requests, &[], capacity));
        }

        #[test]
        fn it_is_beladys_rule(requests in log(60, 600), capacity in 1usize..40) {
            let tally = foresight(&requests).play(capacity as u64);
            prop_assert_eq!(tally.hits, textbook(&requests, capacity));
            let reads = requests.iter().filter(|request| request.op.is_read()).count() as u64;
            prop_assert_eq!((tally.requests, tally.bytes), (reads, reads * 10));
            prop_assert_eq!(tally.hit_bytes, tally.hits * 10);
        }
    }

    #[test]
    fn the_farthest_use_leaves() {
        let log = [1, 2, 3, 1, 2, 3].map(|id| request(Op::Get, id));
        // At the first use of 3 object 2 leaves, which comes later than 1; at its next use 1, which
        // never comes.
        assert_eq!(foresight(&log).play(2).hits, 2);
        assert_eq!(foresight(&log).play(1).hits, 0);
        assert_eq!(foresight(&log).play(3).hits, 3);
    }

    #[test]
    fn sizes_are_played_in_order_on_any_number_of_threads() {
        let log: Vec<Request> = (0..5_000).map(|n| request(Op::Get, n * n % 97)).collect();
        let foresight = foresight(&log);
        let capacities: Vec<u64> = (1..40).collect();
        let one_by_one: Vec<Tally> = capacities.iter().map(|&it| foresight.play(it)).collect();
        for jobs in [1, 3, 64] {
            let jobs = NonZeroUsize::new(jobs).unwrap();
            assert_eq!(foresight.play_all(&capacities, jobs), one_by_one);
        }
    }

    #[test]
    fn what_cannot_be_filled_in_is_counted_and_takes_no_place() {
        let mut absent = request(Op::Get, 7);
        absent.fills = false;
        let log = [request(Op::Get, 1), absent, absent, request(Op::Get, 1)];
        let tally = foresight(&log).play(1);
        assert_eq!((tally.requests, tally.hits), (4, 1));
    }

    #[test]
    fn past_uses_do_not_pile_up() {
        let mut room = Room::new(200_000);
        room.insert(199_999, 0);
        for now in 0..100_000 {
            room.insert(now + 1, now);
            assert!(room.take(now + 1));
        }
        assert!(room.latest.len() <= 2 * STALE_UNSWEPT_MAX, "{}", room.latest.len());
    }
}
