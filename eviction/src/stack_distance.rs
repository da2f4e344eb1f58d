//! `Stack`: in which sizes of an LRU cache a request would hit, for all sizes at once.
//!
//! LRU keeps what was used last, so the cache of every size holds the top of one and the same stack. A
//! request hits in all caches that reach down to its object: those of at least its *stack distance*,
//! what lies above it and itself. R. L. Mattson, J. Gecsei, D. R. Slutz, I. L. Traiger, "Evaluation
//! techniques for storage hierarchies", IBM Systems Journal 9(2), 1970.
//!
//! ```text
//! oldest                                   newest
//! slots    | a | · | b | · | c | · | d | a'| free |     each use takes the next slot, and leaves a dot
//!            └───────────── a was used again ──┘         where it stood before
//!
//! sums     |    1st 32     |    2nd 32     | ...        what a group weighs, groups of groups above
//! ```
//!
//! What lies above an object is the weight of the slots behind its own. It is summed up through a tree
//! of groups of 32, as in B. T. Bennett, V. J. Kruskal, "LRU stack processing", IBM Journal of Research
//! and Development 19(4), 1975, where the tree is binary. When the slots run out, the dots are pressed
//! out of them: memory follows the number of objects and not of requests.
//!
//! **Holes.** Where an object is deleted, those caches that held it have room, and the smaller ones
//! have not. Its slot becomes a hole that weighs what it weighed. A newcomer fills the newest holes: the
//! caches that reach down to them need not let anything go. A hit fills those above its old place and
//! leaves them there, because whoever holds the object already needs no room for it.
//!
//! **Deadlines.** An object that a small cache let go and fetched again is younger there than in a large
//! one, and expires later: its deadline is a step function of the cache's size, kept as such.
//!
//! **What is exact.** Counted in objects all of this is, expired items being dropped when they are asked
//! for. In bytes it is where each object has one size, nothing is deleted, and the cache is no smaller
//! than the largest object: a smaller one lets that object pass by, which the stack does not know.

use std::collections::{BTreeSet, HashMap};

use crate::KeyHash;
use crate::directory::{Directory, KEYS_MAX};

/// Slots in a group, and groups in a group of the next level.
const GROUP: usize = 32;
const GROUP_LOG: usize = 5;

/// Slots of an empty stack.
const SLOTS_MIN: usize = 1 << 10;

/// The owner of a slot that has none.
const NOBODY: u32 = u32::MAX;
/// The slot of an object that is not in the stack.
const NOWHERE: u32 = u32::MAX;
/// The slot of an object that was forgotten, and its number free.
const FORGOTTEN: u32 = u32::MAX - 1;

/// The deadline of what never expires.
pub const NEVER: u32 = u32::MAX;
/// In place of a deadline where there are several, by the size of the cache.
const SEVERAL: u32 = u32::MAX - 1;

/// A time in seconds as a deadline: [`NEVER`] stays as it is, and what is so late that it would be taken for
/// something else is a little earlier.
pub(crate) fn deadline_of(time_s: u32) -> u32 {
    if time_s == NEVER { NEVER } else { time_s.min(SEVERAL - 1) }
}

/// The caches that a request hits in: from one size to another, which is no longer among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The smallest.
    pub from: u64,
    /// `u64::MAX` where there is no end.
    pub to: u64,
}

/// The objects of a log from the most to the least recently used.
#[derive(Debug)]
pub struct Stack {
    /// Numbers of objects by key.
    directory: Directory,
    objects: Vec<Object>,
    /// Numbers of objects that were forgotten.
    free: Vec<u32>,
    /// Who stands in a slot; `NOBODY` in a hole, and where nothing is.
    owners: Vec<u32>,
    sums: Sums,
    /// The next slot to be taken.
    next: usize,
    /// Below this all slots are empty.
    bottom: usize,
    holes: BTreeSet<u32>,
    /// Deadlines of those objects that have several.
    steps: HashMap<u32, Vec<Step>>,
    /// By how much weights above an object are multiplied: one over the share of objects seen.
    scale: f64,
}

#[derive(Clone, Copy, Debug)]
struct Object {
    key: KeyHash,
    slot: u32,
    /// When it expires, in caches of all sizes, or `SEVERAL`.
    deadline: u32,
}

/// In caches below `to`, and of at least where the step before ends, an object expires at `deadline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    to: u64,
    deadline: u32,
}

impl Stack {
    /// An empty stack of objects that stand for `scale` objects each.
    pub fn of_sample(scale: f64) -> Self {
        Self::with_capacity(0, scale)
    }

    /// The same, with room for so many of them.
    pub fn with_capacity(objects: usize, scale: f64) -> Self {
        let slots = slots_for(objects);
        Self {
            directory: Directory::with_capacity(objects),
            objects: Vec::with_capacity(objects),
            free: Vec::new(),
            owners: vec![NOBODY; slots],
            sums: Sums::new(slots),
            next: 0,
            bottom: 0,
            holes: BTreeSet::new(),
            steps: HashMap::new(),
            scale,
        }
    }

    /// Objects seen and not forgotten.
    pub fn len(&self) -> usize {
        self.directory.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What all objects in the stack weigh together, and holes.
    pub fn weight(&self) -> u64 {
        self.sums.total()
    }

    /// Each object stands for `scale` from now on.
    pub fn rescale(&mut self, scale: f64) {
        self.scale = scale;
    }

    /// Looks `key` up at `now_s` and, where that is a miss, fills in a value of `weight` that expires at
    /// `deadline_s`. Tells `hits` each range of sizes in which it was a hit, in ascending order. A hit
    /// leaves weight and deadline as they are. Returns whether no cache of any size ever saw it.
    #[inline]
    pub fn read(
        &mut self,
        key: KeyHash,
        weight: u32,
        now_s: u32,
        deadline_s: u32,
        mut hits: impl FnMut(Sizes),
    ) -> bool {
        let Some(object) = self.find(key) else {
            self.enter(key, weight, deadline_s);
            return true;
        };
        let Object { slot, deadline, .. } = self.objects[object as usize];
        if slot == NOWHERE {
            self.fill_holes(0, weight);
            self.push(object, weight);
            self.set_deadline(object, deadline_s);
            return false;
        }
        let (slot, own) = (slot as usize, self.sums.leaf(slot as usize));
        let from = self.scaled(self.sums.above(slot)) + u64::from(own);
        if deadline == deadline_s && now_s < deadline && deadline != SEVERAL {
            // The caches that fetch it again have it for as long as those that hold it.
            hits(Sizes { from, to: u64::MAX });
        } else {
            self.read_with_deadlines(object, from, now_s, deadline_s, &mut hits);
        }
        self.lift(object, slot, own);
        false
    }

    /// What [`read`](Self::read) does with the deadlines of an object that caches from `from` up hold.
    #[inline(never)]
    fn read_with_deadlines(
        &mut self,
        object: u32,
        from: u64,
        now_s: u32,
        deadline_s: u32,
        hits: &mut impl FnMut(Sizes),
    ) {
        let mut new = Vec::new();
        append(&mut new, Step { to: from, deadline: deadline_s });
        let mut begin = 0;
        for step in self.deadlines(object) {
            let held_from = from.max(begin);
            begin = step.to;
            if step.to <= from {
                continue;
            }
            let lives = now_s < step.deadline;
            append(
                &mut new,
                Step { deadline: if lives { step.deadline } else { deadline_s }, ..step },
            );
            if lives {
                hits(Sizes { from: held_from, to: step.to });
            }
        }
        self.set_deadlines(object, new);
    }

    /// Writes a value of `weight` that expires at `deadline_s`, in caches of all sizes. Returns whether
    /// no cache of any size ever saw it.
    pub fn write(&mut self, key: KeyHash, weight: u32, deadline_s: u32) -> bool {
        let Some(object) = self.find(key) else {
            self.enter(key, weight, deadline_s);
            return true;
        };
        self.set_deadline(object, deadline_s);
        let slot = self.objects[object as usize].slot;
        if slot == NOWHERE {
            self.fill_holes(0, weight);
            self.push(object, weight);
            return false;
        }
        self.lift(object, slot as usize, weight);
        false
    }

    /// Gives `key`, where it is held and not expired, another deadline. That is no use of it here: only
    /// those caches would move it up that hold it, and what they hold would be no stack any more.
    pub fn touch(&mut self, key: KeyHash, now_s: u32, deadline_s: u32) {
        let Some(object) = self.find(key) else {
            return;
        };
        let mut new = Vec::new();
        for step in self.deadlines(object) {
            let lives = now_s < step.deadline;
            append(
                &mut new,
                Step { deadline: if lives { deadline_s } else { step.deadline }, ..step },
            );
        }
        self.set_deadlines(object, new);
    }

    /// Deletes `key`, in caches of all sizes.
    pub fn delete(&mut self, key: KeyHash) {
        let Some(object) = self.find(key) else {
            return;
        };
        let slot = std::mem::replace(&mut self.objects[object as usize].slot, NOWHERE);
        if slot != NOWHERE {
            self.owners[slot as usize] = NOBODY;
            self.holes.insert(slot);
        }
    }

    /// Whether `key` is in the stack.
    pub fn holds(&self, key: KeyHash) -> bool {
        self.find(key).is_some_and(|object| self.objects[object as usize].slot != NOWHERE)
    }

    /// When `key` expires in those caches that keep it longest, if it is in the stack.
    pub fn last_deadline(&self, key: KeyHash) -> Option<u32> {
        let object = self.find(key)?;
        let Object { slot, deadline, .. } = self.objects[object as usize];
        match deadline {
            _ if slot == NOWHERE => None,
            SEVERAL => self.steps.get(&object)?.iter().map(|step| step.deadline).max(),
            _ => Some(deadline),
        }
    }

    /// Forgets `key` as if it had never been asked for.
    pub fn forget(&mut self, key: KeyHash) {
        let objects = &self.objects;
        let Some(object) = self.directory.remove(key, |object| objects[object as usize].key) else {
            return;
        };
        let slot = std::mem::replace(&mut self.objects[object as usize].slot, FORGOTTEN);
        if slot != NOWHERE {
            self.owners[slot as usize] = NOBODY;
            self.sums.set(slot as usize, 0);
        }
        self.set_deadline(object, NEVER);
        self.free.push(object);
    }

    /// Forgets all objects that `keeps` does not want.
    pub fn retain(&mut self, keeps: impl Fn(KeyHash) -> bool) {
        for object in 0..self.objects.len() {
            let Object { key, slot, .. } = self.objects[object];
            if slot != FORGOTTEN && !keeps(key) {
                self.forget(key);
            }
        }
    }

    /// Deletes, and forgets, what is held by caches of no size at `now_s`, because it has expired. Looks
    /// at all objects: for a small stack.
    pub fn expire(&mut self, now_s: u32) {
        for object in 0..self.objects.len() {
            let Object { key, slot, deadline } = self.objects[object];
            let is_due = slot != FORGOTTEN
                && deadline <= now_s.min(SEVERAL)
                && self.last_deadline(key).is_none_or(|last| last <= now_s);
            if is_due {
                self.delete(key);
                self.forget(key);
            }
        }
    }

    /// Forgets what no cache of up to `size` holds, and returns whether there was anything.
    pub fn truncate(&mut self, size: u64) -> bool {
        let mut has_cut = false;
        while self.bottom < self.next {
            let own = self.sums.leaf(self.bottom);
            let owner = self.owners[self.bottom];
            if own > 0 || owner != NOBODY {
                let above = self.scaled(self.sums.total() - u64::from(own));
                if above.saturating_add(own.into()) <= size {
                    break;
                }
                has_cut = true;
                if owner == NOBODY {
                    self.holes.remove(&number(self.bottom));
                    self.sums.set(self.bottom, 0);
                } else {
                    self.forget(self.objects[owner as usize].key);
                }
            }
            self.bottom += 1;
        }
        has_cut
    }

    /// Has at most `count` holes, and forgets the oldest of more.
    pub fn limit_holes(&mut self, count: usize) {
        while self.holes.len() > count
            && let Some(hole) = self.holes.pop_first()
        {
            self.sums.set(hole as usize, 0);
        }
    }

    /// What it takes of memory besides itself, in bytes, holes counted at three times their number.
    pub fn bytes(&self) -> usize {
        let levels: usize = self.sums.levels.iter().map(Vec::capacity).sum();
        let steps: usize = self.steps.values().map(Vec::capacity).sum();
        self.directory.bytes()
            + self.objects.capacity() * size_of::<Object>()
            + (self.free.capacity() + self.owners.capacity() + self.sums.leaves.capacity())
                * size_of::<u32>()
            + levels * size_of::<u64>()
            + self.holes.len() * 3 * size_of::<u32>()
            + self.steps.capacity() * size_of::<(u32, Vec<Step>)>()
            + steps * size_of::<Step>()
    }

    /// The keys in the stack, in no order.
    pub fn keys(&self) -> impl Iterator<Item = KeyHash> {
        let in_stack = |object: &&Object| object.slot < FORGOTTEN;
        self.objects.iter().filter(in_stack).map(|object| object.key)
    }

    /// What each object in the stack weighs, in no order.
    pub fn weights(&self) -> impl Iterator<Item = u32> {
        let in_stack = |object: &&Object| object.slot < FORGOTTEN;
        self.objects.iter().filter(in_stack).map(|object| self.sums.leaf(object.slot as usize))
    }

    #[inline]
    fn find(&self, key: KeyHash) -> Option<u32> {
        self.directory.find(key, |object| self.objects[object as usize].key)
    }

    /// Puts a key that was never seen on top.
    fn enter(&mut self, key: KeyHash, weight: u32, deadline_s: u32) {
        let new = Object { key, slot: NOWHERE, deadline: deadline_s };
        let object = match self.free.pop() {
            Some(object) => {
                self.objects[object as usize] = new;
                object
            }
            None => {
                assert!(self.objects.len() < KEYS_MAX, "a stack has at most 1.6 billion objects");
                let object = number(self.objects.len());
                self.objects.push(new);
                object
            }
        };
        let objects = &self.objects;
        self.directory.insert(key, object, |other| objects[other as usize].key);
        self.fill_holes(0, weight);
        self.push(object, weight);
    }

    /// Moves an object from its slot to the top.
    #[inline]
    fn lift(&mut self, object: u32, slot: usize, weight: u32) {
        self.owners[slot] = NOBODY;
        let own = self.sums.leaf(slot);
        if self.holes.is_empty() {
            self.sums.set(slot, 0);
        } else {
            // Those that hold it have as much room as before: what fills holes above opens here.
            let filled = self.fill_holes(slot + 1, own);
            self.sums.set(slot, filled);
            if filled > 0 {
                self.holes.insert(number(slot));
            }
        }
        self.push(object, weight);
    }

    /// Puts an object on top, in the next slot.
    #[inline]
    fn push(&mut self, object: u32, weight: u32) {
        if self.next == self.owners.len() {
            self.press();
        }
        self.owners[self.next] = object;
        self.sums.set(self.next, weight);
        self.objects[object as usize].slot = number(self.next);
        self.next += 1;
    }

    /// Takes up to `weight` out of the newest holes from slot `from` on; returns how much.
    fn fill_holes(&mut self, from: usize, weight: u32) -> u32 {
        let mut left = weight;
        while left > 0
            && let Some(&hole) = self.holes.last()
            && hole as usize >= from
        {
            let room = self.sums.leaf(hole as usize);
            let filled = room.min(left);
            left -= filled;
            self.sums.set(hole as usize, room - filled);
            if filled == room {
                self.holes.remove(&hole);
            }
        }
        weight - left
    }

    /// Presses empty slots out, and makes sure that a third of the slots is free again.
    #[cold]
    fn press(&mut self) {
        let mut weights = Vec::with_capacity(self.len() + self.holes.len());
        let mut holes = BTreeSet::new();
        for slot in 0..self.next {
            let (owner, weight) = (self.owners[slot], self.sums.leaf(slot));
            let to = weights.len();
            if owner != NOBODY {
                self.objects[owner as usize].slot = number(to);
            } else if weight > 0 {
                holes.insert(number(to));
            } else {
                continue;
            }
            self.owners[to] = owner;
            weights.push(weight);
        }
        self.holes = holes;
        self.next = weights.len();
        self.bottom = 0;
        let slots = slots_for(self.next).max(self.owners.len());
        self.owners[self.next..].fill(NOBODY);
        self.owners.resize(slots, NOBODY);
        self.sums.refill(&weights, slots);
    }

    #[inline]
    fn scaled(&self, weight: u64) -> u64 {
        if self.scale == 1.0 {
            return weight;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "weights are positive, and their sum is far below 2^53"
        )]
        let scaled = (weight as f64 * self.scale) as u64;
        scaled
    }

    fn deadlines(&self, object: u32) -> Vec<Step> {
        match self.objects[object as usize].deadline {
            SEVERAL => self.steps.get(&object).cloned().unwrap_or_default(),
            deadline => vec![Step { to: u64::MAX, deadline }],
        }
    }

    fn set_deadline(&mut self, object: u32, deadline_s: u32) {
        let before = std::mem::replace(&mut self.objects[object as usize].deadline, deadline_s);
        if before == SEVERAL {
            self.steps.remove(&object);
        }
    }

    fn set_deadlines(&mut self, object: u32, new: Vec<Step>) {
        if let [only] = new[..] {
            self.set_deadline(object, only.deadline);
        } else {
            self.objects[object as usize].deadline = SEVERAL;
            self.steps.insert(object, new);
        }
    }
}

/// A slot as its owner keeps it.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "there are at most 3/2 slots for 1.6 billion objects"
)]
fn number(slot: usize) -> u32 {
    slot as u32
}

/// Slots of a stack of so many objects, a third of them free.
fn slots_for(objects: usize) -> usize {
    (objects * 3 / 2).max(SLOTS_MIN)
}

/// Adds a step, or lengthens the last if it has the same deadline. One of no length is left out.
fn append(steps: &mut Vec<Step>, step: Step) {
    match steps.last_mut() {
        Some(last) if last.deadline == step.deadline => last.to = step.to,
        _ if step.to == 0 => {}
        _ => steps.push(step),
    }
}

/// Weights by slot, and what they come to behind a slot.
#[derive(Debug)]
struct Sums {
    leaves: Vec<u32>,
    /// What groups of the level below weigh, from groups of slots up. The top has one group at most.
    levels: Vec<Vec<u64>>,
}

impl Sums {
    fn new(slots: usize) -> Self {
        let mut sums = Self { leaves: Vec::new(), levels: Vec::new() };
        sums.refill(&[], slots);
        sums
    }

    /// `weights` from the first slot on, in `slots` slots. All vectors are whole groups, so that sums
    /// run over slices of a known length.
    fn refill(&mut self, weights: &[u32], slots: usize) {
        let leaves = slots.next_multiple_of(GROUP);
        self.leaves.clear();
        self.leaves.reserve_exact(leaves);
        self.leaves.extend_from_slice(weights);
        self.leaves.resize(leaves, 0);
        self.levels.clear();
        let groups = self.leaves.as_chunks::<GROUP>().0.iter();
        let mut level: Vec<u64> =
            groups.map(|group| group.iter().map(|&leaf| u64::from(leaf)).sum()).collect();
        while level.len() > GROUP {
            level.resize(level.len().next_multiple_of(GROUP), 0);
            let above =
                level.as_chunks::<GROUP>().0.iter().map(|group| group.iter().sum()).collect();
            self.levels.push(std::mem::replace(&mut level, above));
        }
        level.resize(GROUP, 0);
        self.levels.push(level);
    }

    #[inline]
    fn leaf(&self, slot: usize) -> u32 {
        self.leaves[slot]
    }

    #[inline]
    fn set(&mut self, slot: usize, weight: u32) {
        let before = std::mem::replace(&mut self.leaves[slot], weight);
        let difference = u64::from(weight).wrapping_sub(before.into());
        let mut at = slot;
        for level in &mut self.levels {
            at >>= GROUP_LOG;
            level[at] = level[at].wrapping_add(difference);
        }
    }

    /// What the slots behind `slot` weigh.
    #[inline]
    fn above(&self, slot: usize) -> u64 {
        let group = &self.leaves[slot + 1..(slot | (GROUP - 1)) + 1];
        let mut sum: u64 = group.iter().map(|&leaf| u64::from(leaf)).sum();
        let mut at = slot;
        for level in &self.levels {
            at >>= GROUP_LOG;
            sum += level[at + 1..(at | (GROUP - 1)) + 1].iter().sum::<u64>();
        }
        sum
    }

    fn total(&self) -> u64 {
        self.levels.last().map_or(0, |top| top.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// One LRU cache of one size, as a vector from least to most recently used. Expired objects are
    /// dropped when they are asked for.
    struct Cache {
        size: u64,
        entries: Vec<Entry>,
    }

    #[derive(Clone, Copy)]
    struct Entry {
        key: u64,
        weight: u32,
        deadline_s: u32,
    }

    impl Cache {
        fn take(&mut self, key: u64) -> Option<Entry> {
            let at = self.entries.iter().position(|entry| entry.key == key)?;
            Some(self.entries.remove(at))
        }

        fn put(&mut self, entry: Entry) {
            let used = |entries: &[Entry]| entries.iter().map(|e| u64::from(e.weight)).sum::<u64>();
            while used(&self.entries) + u64::from(entry.weight) > self.size {
                self.entries.remove(0);
            }
            self.entries.push(entry);
        }

        /// Whether it is a hit.
        fn play(&mut self, op: &Op, now_s: u32) -> bool {
            let Op { what, key, weight, ttl_s } = *op;
            let deadline_s = if ttl_s == 0 { NEVER } else { now_s + ttl_s };
            match what {
                What::Read => {
                    let hit = self.take(key).filter(|entry| now_s < entry.deadline_s);
                    self.put(hit.unwrap_or(Entry { key, weight, deadline_s }));
                    hit.is_some()
                }
                What::Write => {
                    self.take(key);
                    self.put(Entry { key, weight, deadline_s });
                    false
                }
                What::Touch => {
                    let held = self.entries.iter_mut().find(|entry| entry.key == key);
                    if let Some(entry) = held.filter(|entry| now_s < entry.deadline_s) {
                        entry.deadline_s = deadline_s;
                    }
                    false
                }
                What::Delete => {
                    self.take(key);
                    false
                }
            }
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum What {
        Read,
        Write,
        Touch,
        Delete,
    }

    #[derive(Clone, Copy, Debug)]
    struct Op {
        what: What,
        key: u64,
        weight: u32,
        ttl_s: u32,
    }

    fn op(deletes: bool) -> impl Strategy<Value = Op> {
        let what = prop_oneof![
            8 => Just(What::Read),
            2 => Just(What::Write),
            1 => Just(What::Touch),
            u32::from(deletes) * 2 => Just(What::Delete),
        ];
        (what, 0..24_u64, prop_oneof![Just(0), 1..40_u32]).prop_map(|(what, key, ttl_s)| Op {
            what,
            key,
            weight: 1,
            ttl_s,
        })
    }

    /// A well-mixed hash, so that directories have no long runs.
    fn hash(key: u64) -> KeyHash {
        KeyHash((key + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// Plays `ops`, one a second, to a stack and to caches of all `sizes`; what hits must agree.
    fn assert_like_caches(
        ops: &[Op],
        sizes: impl Iterator<Item = u64>,
    ) -> Result<(), TestCaseError> {
        let mut caches: Vec<Cache> =
            sizes.map(|size| Cache { size, entries: Vec::new() }).collect();
        let mut stack = Stack::of_sample(1.0);
        for (now_s, op) in (0..).zip(ops) {
            let mut hits = Vec::new();
            let deadline_s = if op.ttl_s == 0 { NEVER } else { now_s + op.ttl_s };
            let key = hash(op.key);
            match op.what {
                What::Read => {
                    stack.read(key, op.weight, now_s, deadline_s, |sizes| hits.push(sizes));
                }
                What::Write => {
                    stack.write(key, op.weight, deadline_s);
                }
                What::Touch => stack.touch(key, now_s, deadline_s),
                What::Delete => stack.delete(key),
            }
            for cache in &mut caches {
                let size = cache.size;
                let told = hits.iter().any(|sizes| (sizes.from..sizes.to).contains(&size));
                prop_assert_eq!(told, cache.play(op, now_s), "{:?} at {} in {}", op, now_s, size);
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn hits_are_those_of_a_cache_of_each_size(ops in vec(op(true), 0..300)) {
            assert_like_caches(&ops, 1..26)?;
        }

        #[test]
        fn hits_are_those_of_a_cache_of_each_size_in_bytes_if_objects_keep_their_sizes(
            ops in vec(op(false), 0..300),
        ) {
            // No smaller caches than the largest object: those do not let it in.
            let weigh = |op: &Op| Op { weight: [1, 8, 5, 2, 9, 6, 3, 10][(op.key & 7) as usize], ..*op };
            let ops: Vec<Op> = ops.iter().map(weigh).collect();
            assert_like_caches(&ops, 10..130)?;
        }

        #[test]
        fn sums_are_those_of_a_vector(
            sets in vec((0..3000_usize, 0..100_u32), 0..200),
            asked in 0..3000_usize,
        ) {
            let (mut sums, mut model) = (Sums::new(3000), vec![0; 3000]);
            for (slot, weight) in sets {
                sums.set(slot, weight);
                model[slot] = weight;
            }
            let sum = |weights: &[u32]| weights.iter().map(|&weight| u64::from(weight)).sum::<u64>();
            prop_assert_eq!(sums.above(asked), sum(&model[asked + 1..]));
            prop_assert_eq!(sums.total(), sum(&model));
        }
    }

    #[test]
    fn slots_follow_the_objects_and_not_the_requests() {
        let mut stack = Stack::of_sample(1.0);
        let distances: Vec<u64> = (0..200_000_u64)
            .filter_map(|n| {
                let mut distance = None;
                stack.read(hash(n % 2_000), 1, 0, NEVER, |sizes| distance = Some(sizes.from));
                distance
            })
            .collect();
        assert_eq!(distances.len(), 198_000);
        assert!(distances.iter().all(|&distance| distance == 2_000));
        assert!(stack.owners.len() <= 3_000, "{} slots", stack.owners.len());
    }

    #[test]
    fn what_no_cache_of_a_size_holds_is_cut_off() {
        let mut stack = Stack::of_sample(2.0);
        for key in 0..5000 {
            stack.read(hash(key), 10, 0, NEVER, |_| ());
        }
        stack.delete(hash(4_500));
        assert!(stack.truncate(2_000));
        // Each stands for two of 10 bytes: above the hundredth lie 99 × 20, and itself is 10 more.
        assert_eq!((stack.weight(), stack.holds(hash(4_899))), (1_000, false));
        assert!(stack.holds(hash(4_900)) && !stack.truncate(2_000));
        let mut from = 0;
        stack.read(hash(4_900), 10, 0, NEVER, |sizes| from = sizes.from);
        assert_eq!(from, 99 * 20 + 10);
    }

    #[test]
    fn what_expired_makes_room_and_is_forgotten() {
        let mut stack = Stack::of_sample(1.0);
        for (key, deadline_s) in [(1, NEVER), (2, 50), (3, 60)] {
            stack.write(hash(key), 10, deadline_s);
        }
        stack.expire(50);
        assert_eq!((stack.len(), stack.holds(hash(2)), stack.weight()), (2, false, 30));
        // A newcomer takes the room: who holds the first needs no more than before.
        stack.write(hash(4), 10, NEVER);
        let mut from = 0;
        stack.read(hash(1), 10, 51, NEVER, |sizes| from = sizes.from);
        assert_eq!(from, 30);
    }

    #[test]
    fn objects_that_are_not_wanted_are_forgotten_and_so_are_holes() {
        let mut stack = Stack::of_sample(1.0);
        for key in 0..100 {
            stack.write(hash(key), 1, NEVER);
        }
        stack.retain(|key| key.0.is_multiple_of(2));
        let kept = (0..100).filter(|&key| hash(key).0.is_multiple_of(2)).count();
        assert_eq!((stack.len(), stack.weight()), (kept, kept as u64));
        assert_eq!((stack.keys().count(), stack.weights().sum::<u32>() as usize), (kept, kept));
        for key in 0..100 {
            stack.delete(hash(key));
            stack.forget(hash(key));
        }
        assert_eq!((stack.len(), stack.weight()), (0, kept as u64));
        stack.limit_holes(7);
        assert_eq!(stack.weight(), 7);
    }

    #[test]
    fn an_object_forgotten_was_never_there() {
        let mut stack = Stack::of_sample(1.0);
        for key in [1, 2, 3] {
            stack.read(hash(key), 1, 0, NEVER, |_| ());
        }
        stack.forget(hash(2));
        let mut from = 0;
        stack.read(hash(1), 1, 0, NEVER, |sizes| from = sizes.from);
        assert_eq!((from, stack.len(), stack.weight()), (2, 2, 2));
        assert!(stack.read(hash(2), 1, 0, NEVER, |_| panic!("it is not there")));
    }
}
