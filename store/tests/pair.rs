//! A shard side by side with a map that is too simple to be wrong: one step at a time, for proptest
//! and for the fuzzer.
//!
//! With memory to spare the shard must answer exactly like the map. With little memory it may forget
//! an item, but never answer with a wrong one; what it forgot, the map forgets before the next step.

use std::collections::HashMap;
use std::path::Path;

use eviction::Kind;
use store::arena::{CacheFile, Existing};
use store::superblock::{PolicyName, Superblock};
use store::{
    Config, Deadline, DeleteOutcome, Delta, DeltaOutcome, End, Geometry, Invalidation, Key,
    NewItem, Precondition, PutOutcome, Shard, Timestamp,
};

const START: Timestamp = Timestamp(1_800_000_000_000);

#[derive(Clone, Debug, PartialEq)]
struct ModelItem {
    value: Vec<u8>,
    client_flags: u32,
    deadline: Deadline,
    cas: u64,
    stale: bool,
}

/// One step of a client, or of the world around it.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Put {
        key: u8,
        rule: Rule,
        bytes: usize,
        client_flags: u32,
        ttl_ms: Option<u64>,
        own_cas: Option<u64>,
    },
    Concat {
        key: u8,
        back: bool,
        bytes: usize,
    },
    Number {
        key: u8,
        value: u64,
    },
    Delta {
        key: u8,
        up: bool,
        by: u64,
    },
    Touch {
        key: u8,
        ttl_ms: Option<u64>,
    },
    Delete {
        key: u8,
        right_cas: Option<bool>,
    },
    Invalidate {
        key: u8,
        drop_value: bool,
    },
    Get {
        key: u8,
    },
    Advance {
        ms: u64,
    },
    Sweep,
    Flush {
        in_ms: u64,
    },
    SetPolicy(Kind),
    /// The process ends between two steps, and another takes over its arena.
    Kill,
    /// The shard is saved, and another goes on from that.
    Restart,
}

/// What must hold for a write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    Set,
    Add,
    Replace,
    Cas(bool),
}

/// A shard and its model, after the same steps.
pub(crate) struct Pair {
    shard: Shard,
    model: HashMap<Vec<u8>, ModelItem>,
    flush_at: Option<Timestamp>,
    now: Timestamp,
    may_forget: bool,
    step: u64,
    config: Config,
    file: Option<CacheFile>,
    /// The cas of the next write, where not the shard but its owner counts.
    own_cas: Option<u64>,
    /// Whether a client has chosen a cas itself: the shard may come to the same by counting.
    has_chosen_cas: bool,
}

/// A shard whose `check` looks at the counts of sizes, too.
fn counting(mut shard: Shard) -> Shard {
    shard.count_sizes();
    shard
}

impl Pair {
    pub(crate) fn new(memory_bytes: u64, policy: Kind, may_forget: bool) -> Self {
        let item_bytes_max = 100_000;
        let geometry =
            Geometry { shard_count: 1, ..Geometry::new(memory_bytes, item_bytes_max, 1) };
        let geometry = Geometry { shard_bytes: memory_bytes, ..geometry };
        let config = Config {
            geometry,
            item_bytes_max,
            policy,
            evicts: true,
            protected: store::Protected::NONE,
            shard: 0,
        };
        Self {
            shard: counting(Shard::new(config)),
            model: HashMap::new(),
            flush_at: None,
            now: START,
            may_forget,
            step: 0,
            config,
            file: None,
            own_cas: None,
            has_chosen_cas: false,
        }
    }

    /// As [`Pair::new`], over a cache file at `path`.
    pub(crate) fn in_file(path: &Path, memory_bytes: u64, policy: Kind, may_forget: bool) -> Self {
        let pair = Self::new(memory_bytes, policy, may_forget);
        let geometry = pair.config.geometry;
        let superblock = Superblock {
            generation: 0,
            cache_id: 1,
            cluster_id: 0,
            boot_id: 1,
            shard_count: 1,
            segment_bytes: geometry.segment_bytes,
            shard_bytes: geometry.shard_bytes,
            item_bytes_max: pair.config.item_bytes_max,
            policy: PolicyName::new(policy.name()).expect("short"),
            extents: vec![geometry.segment_count()],
            clean: None,
            seen_unix_ms: 0,
        };
        let file = CacheFile::create(path, superblock, Existing::Keep).expect("a new file");
        let shard =
            Shard::with_arena(pair.config, Box::new(file.arena(0).expect("its only arena")));
        Self { shard: counting(shard), file: Some(file), ..pair }
    }

    /// Has every write given its cas, as in a cluster.
    pub(crate) fn with_own_cas(self) -> Self {
        Self { own_cas: Some(1 << 40), ..self }
    }

    fn next_own_cas(&mut self) -> Option<u64> {
        self.own_cas = self.own_cas.map(|cas| cas + 1);
        self.own_cas
    }

    /// Another shard over the same arena: from what the first saved, or from its segments alone.
    fn reopen(&mut self, saved: Option<&[u8]>) {
        let Some(file) = &self.file else { return };
        drop(std::mem::replace(&mut self.shard, Shard::new(self.config)));
        let arena = Box::new(file.arena(0).expect("its only arena"));
        self.shard = counting(match saved {
            Some(section) => match Shard::reopen_from(self.config, arena, section) {
                Ok(shard) => shard,
                Err((error, _)) => panic!("{error}"),
            },
            None => {
                let (shard, restored) = Shard::reopen(self.config, arena, self.now);
                assert_eq!((restored.dropped_records, restored.damaged_bytes), (0, 0));
                shard
            }
        });
    }

    /// Both forget what is due, the model also what the shard has evicted; then they agree, exactly.
    fn settle_all(&mut self) {
        let keys: Vec<Vec<u8>> = self.model.keys().cloned().collect();
        for key in keys {
            self.settle(&key);
        }
    }

    fn deadline(&self, ttl_ms: Option<u64>) -> Deadline {
        ttl_ms.map_or(Deadline::NEVER, |ttl| Deadline::at(self.now.plus_millis(ttl)))
    }

    /// The model forgets what is due; then both must agree on `key`, or the shard forgot it.
    fn settle(&mut self, key: &[u8]) {
        if self.flush_at.is_some_and(|at| at <= self.now) {
            self.flush_at = None;
            self.model.clear();
        }
        let now = self.now;
        self.model.retain(|_, item| !item.deadline.is_due(now));
        let shard = self.shard.peek(&Key::new(key), now).map(|item| ModelItem {
            value: item.value.to_vec(),
            client_flags: item.client_flags,
            deadline: item.deadline,
            cas: item.cas,
            stale: item.stale,
        });
        match (shard, self.model.get(key)) {
            (None, Some(_)) if self.may_forget => {
                self.model.remove(key);
            }
            (shard, model) => assert_eq!(shard.as_ref(), model, "key {key:?}"),
        }
    }

    fn value(&mut self, bytes: usize) -> Vec<u8> {
        self.step += 1;
        let step = self.step;
        (0..bytes)
            .map(|at| (step.wrapping_mul(31).wrapping_add(at as u64 * 7) % 251) as u8)
            .collect()
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        match *op {
            Op::Put { key, rule, bytes, client_flags, ttl_ms, own_cas } => {
                let value = self.value(bytes);
                self.has_chosen_cas |= own_cas.is_some();
                let own_cas = own_cas.or_else(|| self.next_own_cas());
                self.put(key, rule, value, client_flags, self.deadline(ttl_ms), own_cas);
            }
            Op::Number { key, value } => {
                let digits = value.to_string().into_bytes();
                let own_cas = self.next_own_cas();
                self.put(key, Rule::Set, digits, 0, Deadline::NEVER, own_cas);
            }
            Op::Concat { key, back, bytes } => self.concat(&name(key), back, bytes),
            Op::Delta { key, up, by } => self.delta(&name(key), up, by),
            Op::Touch { key, ttl_ms } => self.touch(&name(key), self.deadline(ttl_ms)),
            Op::Delete { key, right_cas } => self.delete(&name(key), right_cas),
            Op::Invalidate { key, drop_value } => self.invalidate(&name(key), drop_value),
            Op::Get { key } => {
                let key = name(key);
                self.settle(&key);
                let got = self.shard.get(&Key::new(&key), self.now).map(|item| item.value.to_vec());
                assert_eq!(got, self.model.get(&key).map(|item| item.value.clone()));
            }
            Op::Advance { ms } => self.now = self.now.plus_millis(ms),
            Op::Sweep => {
                self.shard.sweep(self.now, 10);
            }
            Op::Flush { in_ms } => {
                self.settle(b"any");
                let at = self.now.plus_millis(in_ms);
                self.shard.flush_all(at, self.now);
                self.flush_at = Some(at);
            }
            Op::SetPolicy(kind) => {
                self.config.policy = kind;
                self.shard.set_policy(kind, self.now);
            }
            Op::Kill => {
                self.settle_all();
                self.reopen(None);
                self.check_nothing_is_lost();
            }
            Op::Restart => {
                self.settle_all();
                let section = self.shard.save();
                self.reopen(Some(&section));
                assert!(self.shard.save() == section, "it goes on where it stood");
                self.check_nothing_is_lost();
            }
        }
    }

    fn check_nothing_is_lost(&mut self) {
        self.shard.check();
        let may_forget = std::mem::replace(&mut self.may_forget, false);
        for key in 0..40 {
            self.settle(&name(key));
        }
        self.may_forget = may_forget;
    }

    fn put(
        &mut self,
        key: u8,
        rule: Rule,
        value: Vec<u8>,
        client_flags: u32,
        deadline: Deadline,
        own_cas: Option<u64>,
    ) {
        let key = name(key);
        self.settle(&key);
        let there = self.model.get(&key);
        let (precondition, expected) = match (rule, there) {
            (Rule::Set, _) => (Precondition::None, None),
            (Rule::Add, None) => (Precondition::Absent, None),
            (Rule::Add, Some(_)) => (Precondition::Absent, Some(PutOutcome::NotStored)),
            (Rule::Replace, None) => (Precondition::Present, Some(PutOutcome::NotStored)),
            (Rule::Replace, Some(_)) => (Precondition::Present, None),
            (Rule::Cas(_), None) => (Precondition::Cas(7), Some(PutOutcome::NotFound)),
            (Rule::Cas(true), Some(item)) => (Precondition::Cas(item.cas), None),
            (Rule::Cas(false), Some(item)) => {
                (Precondition::Cas(item.cas.wrapping_add(1)), Some(PutOutcome::Exists))
            }
        };
        let (left, right) = value.split_at(value.len() / 3);
        let new = NewItem { client_flags, deadline, value: &[left, right], own_cas };
        let outcome = self.shard.put(&Key::new(&key), &new, precondition, self.now);
        match (outcome, expected) {
            (PutOutcome::Stored { cas }, None) => {
                assert!(own_cas.is_none_or(|own| own == cas));
                let item = ModelItem { value, client_flags, deadline, cas, stale: false };
                self.model.insert(key, item);
            }
            (PutOutcome::OutOfMemory | PutOutcome::TooLarge, None) if self.may_forget => {
                if matches!(rule, Rule::Set) {
                    self.model.remove(&key);
                }
                self.settle(&key);
            }
            (outcome, expected) => assert_eq!(Some(outcome), expected),
        }
    }

    fn concat(&mut self, key: &[u8], back: bool, bytes: usize) {
        self.settle(key);
        let more = self.value(bytes);
        let end = if back { End::Back } else { End::Front };
        let own_cas = self.next_own_cas();
        let outcome = self.shard.concat(&Key::new(key), end, &more, None, own_cas, self.now);
        match (outcome, self.model.get_mut(key)) {
            (PutOutcome::Stored { cas }, Some(item)) => {
                let old = std::mem::take(&mut item.value);
                item.value = if back { [old, more].concat() } else { [more, old].concat() };
                assert!(own_cas.is_none_or(|own| own == cas));
                item.cas = cas;
                item.stale = false;
            }
            (PutOutcome::TooLarge, Some(item)) => assert!(item.value.len() + bytes > 99_000),
            (PutOutcome::OutOfMemory, Some(_)) if self.may_forget => {}
            (PutOutcome::NotStored, None) => {}
            (outcome, item) => panic!("{outcome:?} with {item:?}"),
        }
    }

    fn delta(&mut self, key: &[u8], up: bool, by: u64) {
        self.settle(key);
        let delta = if up { Delta::Increment(by) } else { Delta::Decrement(by) };
        let own_cas = self.next_own_cas();
        let outcome = self.shard.add_delta(&Key::new(key), delta, None, None, own_cas, self.now);
        let item = self.model.get(key);
        let number = item.map(|item| number(&item.value));
        // Where a record of so many bytes may be in several parts. Those are no number, whatever they
        // begin with; memcached's chunked items are none either.
        let may_be_parts =
            key.len() + item.map_or(0, |item| item.value.len()) + RECORD_OVERHEAD_MAX
                > (self.config.geometry.segment_bytes / 16) as usize;
        match (outcome, number) {
            (DeltaOutcome::NotANumber, Some(Some(_))) if may_be_parts => {}
            (DeltaOutcome::NotFound, None) | (DeltaOutcome::NotANumber, Some(None)) => {}
            (DeltaOutcome::Changed { value, cas }, Some(Some(before))) => {
                let after = if up { before.wrapping_add(by) } else { before.saturating_sub(by) };
                assert_eq!(value, after);
                assert!(own_cas.is_none_or(|own| own == cas));
                let item = self.model.get_mut(key).expect("it was there");
                item.value = after.to_string().into_bytes();
                item.cas = cas;
            }
            (outcome, number) => panic!("{outcome:?} with {number:?}"),
        }
    }

    fn touch(&mut self, key: &[u8], deadline: Deadline) {
        self.settle(key);
        let touched = self.shard.touch(&Key::new(key), deadline, self.now);
        if let Some(item) = self.model.get_mut(key) {
            assert!(touched || self.may_forget);
            if touched {
                item.deadline = deadline;
            }
        } else {
            assert!(!touched);
        }
    }

    fn delete(&mut self, key: &[u8], right_cas: Option<bool>) {
        self.settle(key);
        let cas = self.model.get(key).map_or(1, |item| item.cas);
        let expected_cas = right_cas.map(|right| if right { cas } else { cas.wrapping_add(1) });
        let expected = match (self.model.contains_key(key), right_cas) {
            (false, _) => DeleteOutcome::NotFound,
            (true, Some(false)) => DeleteOutcome::Exists,
            (true, _) => DeleteOutcome::Deleted,
        };
        assert_eq!(self.shard.delete(&Key::new(key), expected_cas, self.now), expected);
        if expected == DeleteOutcome::Deleted {
            self.model.remove(key);
        }
    }

    fn invalidate(&mut self, key: &[u8], drop_value: bool) {
        self.settle(key);
        let own_cas = self.next_own_cas();
        let change =
            Invalidation { mark_stale: true, drop_value, own_cas, ..Invalidation::default() };
        let outcome = self.shard.invalidate(&Key::new(key), None, change, self.now);
        let cas = self.shard.peek(&Key::new(key), self.now).map(|item| item.cas);
        match (self.model.get_mut(key), cas) {
            (Some(item), Some(cas)) => {
                let is_new = item.cas != cas || self.has_chosen_cas;
                assert!(is_new, "an invalidated item has a new cas");
                assert!(own_cas.is_none_or(|own| own == cas));
                (item.cas, item.stale) = (cas, true);
                if drop_value {
                    (item.value, item.client_flags) = (Vec::new(), 0);
                }
            }
            (Some(_), None) => assert!(self.may_forget),
            (None, _) => assert_eq!(outcome, DeleteOutcome::NotFound),
        }
    }
}

/// Most bytes of a record beside key and value.
const RECORD_OVERHEAD_MAX: usize = 40;

/// A number as memcached reads it: blanks may stand before it, and after a blank anything.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii_start().split(u8::is_ascii_whitespace).next()?;
    let is_number = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

fn name(key: u8) -> Vec<u8> {
    let mut name = format!("key-{key}").into_bytes();
    name.resize(name.len() + usize::from(key) * 5, b'x');
    name
}

impl Pair {
    /// Panics where the shard's books disagree, or its memory is more than it was given.
    pub(crate) fn check(&self) {
        self.shard.check();
        assert!(self.shard.resident_bytes() <= self.config.geometry.shard_bytes);
    }
}
