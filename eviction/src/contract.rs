//! What every policy promises, run over [`Kind::ALL`], and the owner that asks them to keep it.

use std::collections::{BTreeMap, HashMap};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::{Admission, EntryId, KeyHash, Kind, Policy};

/// What a client may do to a cache.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Read, and on a miss insert with this weight.
    Get(u64, u32),
    /// Overwrite or insert.
    Put(u64, u32),
    Delete(u64),
    /// The owner wants room for reasons of its own.
    Evict,
    /// Room is made for an insert that then fails.
    Abandon(u64, u32),
}

/// Operations on `keys` keys of weights up to `weight_max`; few keys are asked for often.
pub(crate) fn ops(keys: u64, weight_max: u32) -> impl Strategy<Value = Vec<Op>> {
    let key = prop_oneof![3 => 0..keys / 4 + 1, 2 => 0..keys];
    let weight = 1..=weight_max;
    let op = prop_oneof![
        20 => (key.clone(), weight.clone()).prop_map(|(k, w)| Op::Get(k, w)),
        3 => (key.clone(), weight.clone()).prop_map(|(k, w)| Op::Put(k, w)),
        2 => key.clone().prop_map(Op::Delete),
        1 => Just(Op::Evict),
        1 => (key, weight).prop_map(|(k, w)| Op::Abandon(k, w)),
    ];
    vec(op, 0..400)
}

/// A well-mixed hash of a small number.
pub(crate) fn hash_of(key: u64) -> KeyHash {
    let mixed = (key + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    KeyHash((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9))
}

/// Owns entries and keeps a policy informed as the server and the simulator do.
pub(crate) struct Owner<P: ?Sized + Policy = dyn Policy> {
    capacity: u64,
    used: u64,
    entries: BTreeMap<u64, EntryId>,
    residents: HashMap<EntryId, (u64, u32)>,
    free: Vec<EntryId>,
    /// Keys in the order of their eviction.
    pub(crate) victims: Vec<u64>,
    pub(crate) hits: usize,
    pub(crate) policy: Box<P>,
}

impl<P: ?Sized + Policy> Owner<P> {
    pub(crate) fn new(capacity: u64, policy: Box<P>) -> Self {
        Self {
            capacity,
            used: 0,
            entries: BTreeMap::new(),
            residents: HashMap::new(),
            free: Vec::new(),
            victims: Vec::new(),
            hits: 0,
            policy,
        }
    }

    pub(crate) fn get(&mut self, key: u64, weight: u32) {
        if let Some(&entry) = self.entries.get(&key) {
            self.hits += 1;
            self.policy.on_hit(entry);
        } else {
            self.insert(key, weight);
        }
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        match *op {
            Op::Get(key, weight) => self.get(key, weight),
            Op::Put(key, weight) => self.put(key, weight),
            Op::Delete(key) => {
                if let Some(entry) = self.entries.remove(&key) {
                    self.policy.on_remove(entry);
                    self.forget(entry);
                }
            }
            Op::Evict => {
                self.evict();
            }
            Op::Abandon(key, weight) => {
                if !self.entries.contains_key(&key) && u64::from(weight) <= self.capacity {
                    self.policy.before_insert(hash_of(key), weight);
                    self.make_room(u64::from(weight));
                }
            }
        }
    }

    fn insert(&mut self, key: u64, weight: u32) {
        if u64::from(weight) > self.capacity {
            return;
        }
        if self.policy.before_insert(hash_of(key), weight) == Admission::Refuse {
            return;
        }
        self.make_room(u64::from(weight));
        self.admit(key, weight);
    }

    fn admit(&mut self, key: u64, weight: u32) {
        let next = u32::try_from(self.residents.len()).unwrap();
        let entry = self.free.pop().unwrap_or(EntryId(next));
        self.entries.insert(key, entry);
        assert!(self.residents.insert(entry, (key, weight)).is_none());
        self.used += u64::from(weight);
        self.policy.on_insert(entry, hash_of(key), weight);
    }

    /// Overwrites even what the policy advises against: a client's write is kept.
    fn put(&mut self, key: u64, weight: u32) {
        let Some(&entry) = self.entries.get(&key) else {
            if u64::from(weight) <= self.capacity {
                self.policy.before_insert(hash_of(key), weight);
                self.make_room(u64::from(weight));
                self.admit(key, weight);
            }
            return;
        };
        let old = u64::from(self.residents[&entry].1);
        while self.entries.contains_key(&key) && self.used - old + u64::from(weight) > self.capacity
        {
            self.evict().unwrap();
        }
        if self.entries.contains_key(&key) {
            self.used = self.used - old + u64::from(weight);
            self.residents.insert(entry, (key, weight));
            self.policy.on_update(entry, weight);
        } else if u64::from(weight) <= self.capacity {
            self.make_room(u64::from(weight));
            self.admit(key, weight);
        }
    }

    fn make_room(&mut self, weight: u64) {
        while self.used + weight > self.capacity {
            self.evict().expect("what is resident can be evicted");
        }
    }

    fn evict(&mut self) -> Option<u64> {
        let Some(entry) = self.policy.evict() else {
            assert!(self.residents.is_empty(), "a policy forgot {} entries", self.residents.len());
            return None;
        };
        let key = self.residents.get(&entry).expect("only what is resident is evicted").0;
        self.entries.remove(&key);
        self.victims.push(key);
        self.forget(entry);
        Some(key)
    }

    fn forget(&mut self, entry: EntryId) {
        let (_, weight) = self.residents.remove(&entry).unwrap();
        self.used -= u64::from(weight);
        self.free.push(entry);
    }

    fn drain(&mut self) -> usize {
        std::iter::from_fn(|| self.evict()).count()
    }
}

/// Runs `ops` with a policy and with a model of it: both must let the same keys go, in that order.
pub(crate) fn assert_same_victims<P: Policy + 'static, M: Policy + 'static>(
    policy: P,
    model: M,
    capacity: u64,
    ops: &[Op],
) -> Result<(), TestCaseError> {
    let mut real = Owner::new(capacity, Box::new(policy));
    let mut model = Owner::new(capacity, Box::new(model));
    for op in ops {
        real.apply(op);
        model.apply(op);
        prop_assert_eq!(real.victims.last(), model.victims.last(), "{:?}", op);
    }
    real.drain();
    model.drain();
    prop_assert_eq!(real.victims, model.victims);
    prop_assert_eq!(real.hits, model.hits);
    Ok(())
}

fn owner(kind: Kind, capacity: u64) -> Owner {
    Owner::new(capacity, kind.build(capacity, 4))
}

proptest! {
    #[test]
    fn victims_are_resident_each_once_and_all_in_the_end(
        ops in ops(40, 9), capacity in 1..60_u64,
    ) {
        for kind in Kind::ALL {
            let mut owner = owner(kind, capacity);
            for op in &ops {
                owner.apply(op);
            }
            let residents = owner.residents.len();
            prop_assert_eq!(owner.drain(), residents, "{}", kind);
            prop_assert_eq!(owner.policy.evict(), None, "{}", kind);
        }
    }

    #[test]
    fn the_same_events_give_the_same_victims(ops in ops(60, 5), capacity in 1..60_u64) {
        for kind in Kind::ALL {
            let (mut one, mut other) = (owner(kind, capacity), owner(kind, capacity));
            for op in &ops {
                one.apply(op);
                other.apply(op);
            }
            prop_assert_eq!(one.victims, other.victims, "{}", kind);
        }
    }
}

#[test]
fn an_empty_policy_has_no_victim() {
    for kind in Kind::ALL {
        assert_eq!(kind.build(8, 8).evict(), None, "{kind}");
    }
}

#[test]
fn an_entry_of_equal_weight_is_never_refused() {
    for kind in Kind::ALL {
        for capacity in [1, 2, 9, 10, 99, 100, 1_000] {
            let mut policy = kind.build(capacity, 0);
            for key in 0..200 {
                assert_eq!(policy.before_insert(hash_of(key), 1), Admission::Insert, "{kind}");
            }
        }
    }
}

#[test]
fn an_id_beyond_what_was_announced_makes_the_columns_grow() {
    for kind in Kind::ALL {
        let mut policy = kind.build(10, 1);
        policy.on_insert(EntryId(1_000), hash_of(1), 1);
        policy.on_hit(EntryId(1_000));
        assert_eq!(policy.evict(), Some(EntryId(1_000)), "{kind}");
    }
}

#[test]
fn an_entry_reused_for_another_key_starts_anew() {
    for kind in Kind::ALL {
        let mut policy = kind.build(100, 4);
        policy.on_insert(EntryId(0), hash_of(1), 1);
        for _ in 0..20 {
            policy.on_hit(EntryId(0));
        }
        policy.on_remove(EntryId(0));
        policy.on_insert(EntryId(0), hash_of(2), 1);
        policy.on_insert(EntryId(1), hash_of(3), 1);
        policy.on_hit(EntryId(1));
        policy.on_hit(EntryId(1));
        assert_eq!(policy.evict(), Some(EntryId(0)), "{kind}");
    }
}

#[test]
fn weight_follows_updates() {
    // Entries that grew count as what they are now: nothing is left of them after they went.
    for kind in Kind::ALL {
        let mut owner = owner(kind, 1_000);
        for round in 1..50_u32 {
            for key in 0..10 {
                owner.apply(&Op::Put(key, round));
            }
        }
        for key in 0..10 {
            owner.apply(&Op::Delete(key));
        }
        for key in 100..400 {
            owner.apply(&Op::Put(key, 4));
        }
        assert_eq!(owner.residents.len(), 250, "{kind}");
        assert_eq!(owner.drain(), 250, "{kind}");
    }
}

/// A fixed sequence of requests: few keys often, with a scan in between.
fn requests() -> impl Iterator<Item = u64> {
    let mut state = 1_u64;
    (0..20_000_u64).map(move |at| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let draw = state >> 33;
        if at % 4_000 < 600 { 1_000 + at } else { draw % (1 + (state >> 50) % 400) }
    })
}

#[test]
fn hits_on_a_fixed_sequence_stay_what_they_were() {
    let hits = Kind::ALL.map(|kind| {
        let mut owner = owner(kind, 100);
        for key in requests() {
            owner.get(key, 1);
        }
        (kind.name(), owner.hits)
    });
    let expected = [
        ("fifo", 6_772),
        ("lru", 7_206),
        ("lfu", 8_762),
        ("lfuda", 8_613),
        ("arc", 7_785),
        ("clock", 7_333),
        ("sieve", 8_920),
        ("s3fifo", 8_373),
        ("wtinylfu", 8_459),
    ];
    assert_eq!(hits.as_slice(), expected);
}
