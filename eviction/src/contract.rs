//! What every policy promises, run over [`Kind::ALL`], and the owner that asks them to keep it.

use std::collections::{BTreeMap, HashMap};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::{Admission, EntryId, KeyHash, Kind, Policy, SnapshotError};

/// The part of [`Policy`] that a model of one has no use for.
macro_rules! never_restarted {
    () => {
        fn save(&self, _to: &mut Vec<u8>) {
            unreachable!("a model is asked for its victims alone");
        }

        fn load(&mut self, _from: &[u8]) -> Result<(), $crate::SnapshotError> {
            unreachable!("a model is asked for its victims alone");
        }

        fn holds_exactly(&self, _residents: &mut dyn Iterator<Item = EntryId>) -> bool {
            unreachable!("a model is asked for its victims alone");
        }
    };
}
pub(crate) use never_restarted;

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

impl Owner {
    /// What the policy remembers.
    fn saved(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.policy.save(&mut bytes);
        bytes
    }

    /// The same owner with another policy, that a snapshot was loaded into.
    fn restarted(&self, kind: Kind, snapshot: &[u8]) -> Result<Self, SnapshotError> {
        let mut policy = kind.build(self.capacity, ENTRIES_MAX);
        policy.load(snapshot)?;
        Ok(Self {
            capacity: self.capacity,
            used: self.used,
            entries: self.entries.clone(),
            residents: self.residents.clone(),
            free: self.free.clone(),
            victims: self.victims.clone(),
            hits: self.hits,
            policy,
        })
    }

    /// How far apart the lines lie that hits on two entries will touch.
    fn hit_distances(&self) -> [usize; 2] {
        let [one, other] = [1, 3].map(|entry| self.policy.hit_addresses(EntryId(entry)));
        [0, 1].map(|place| other[place].addr() - one[place].addr())
    }

    fn holds_exactly_its_own(&self) -> bool {
        self.policy.holds_exactly(&mut self.residents.keys().copied())
    }
}

/// What policies are announced here: fewer than come, so that columns grow too.
const ENTRIES_MAX: usize = 4;

fn owner(kind: Kind, capacity: u64) -> Owner {
    Owner::new(capacity, kind.build(capacity, ENTRIES_MAX))
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

    #[test]
    fn a_restarted_policy_goes_on_as_the_one_before(
        before in ops(60, 9), after in ops(60, 9), capacity in 1..120_u64,
    ) {
        for kind in Kind::ALL {
            let mut one = owner(kind, capacity);
            for op in &before {
                one.apply(op);
            }
            let snapshot = one.saved();
            let mut other = one.restarted(kind, &snapshot).unwrap();
            prop_assert!(other.holds_exactly_its_own(), "{}", kind);
            prop_assert_eq!(&other.saved(), &snapshot, "{}", kind);
            for op in &after {
                one.apply(op);
                other.apply(op);
                prop_assert_eq!(&one.victims, &other.victims, "{}: {:?}", kind, op);
                prop_assert_eq!(&one.residents, &other.residents, "{}: {:?}", kind, op);
                prop_assert_eq!(one.hit_distances(), other.hit_distances(), "{}", kind);
            }
            prop_assert_eq!(one.saved(), other.saved(), "{}", kind);
            one.drain();
            other.drain();
            prop_assert_eq!(one.victims, other.victims, "{}", kind);
        }
    }

    #[test]
    fn a_snapshot_cut_anywhere_is_refused(ops in ops(40, 9), capacity in 1..60_u64) {
        for kind in Kind::ALL {
            let mut owner = owner(kind, capacity);
            for op in ops.iter().take(100) {
                owner.apply(op);
            }
            let mut snapshot = owner.saved();
            for end in 0..snapshot.len() {
                prop_assert!(kind.build(capacity, 4).load(&snapshot[..end]).is_err(), "{}", kind);
            }
            snapshot.push(0);
            let too_long = Err(SnapshotError::TooLong { left_bytes: 1 });
            prop_assert_eq!(kind.build(capacity, 4).load(&snapshot), too_long, "{}", kind);
        }
    }

    #[test]
    fn a_damaged_snapshot_is_refused_or_does_no_harm(
        before in ops(60, 9),
        after in ops(60, 9),
        capacity in 1..120_u64,
        damages in vec(vec((any::<prop::sample::Index>(), damage()), 1..4), 20),
    ) {
        for kind in Kind::ALL {
            let mut owner = owner(kind, capacity);
            for op in &before {
                owner.apply(op);
            }
            let snapshot = owner.saved();
            for damage in &damages {
                let mut damaged = snapshot.clone();
                for (at, damage) in damage {
                    damage.apply(at.index(snapshot.len()), &mut damaged);
                }
                let Ok(mut other) = owner.restarted(kind, &damaged) else { continue };
                if !other.holds_exactly_its_own() {
                    continue;
                }
                for op in &after {
                    other.apply(op);
                }
                // What went on after damage can be saved like anything else.
                let again = other.saved();
                prop_assert!(other.restarted(kind, &again).is_ok(), "{}", kind);
                other.drain();
            }
        }
    }
}

/// What happens to bytes that are kept for long.
#[derive(Clone, Debug)]
enum Damage {
    Flip(u8),
    /// A value that is likely to be special.
    Word(u32),
    /// What stands elsewhere.
    Copy(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let special = prop_oneof![0..40_u32, u32::MAX - 2..=u32::MAX, any::<u32>()];
    prop_oneof![
        (0..8_u8).prop_map(Damage::Flip),
        special.prop_map(Damage::Word),
        any::<prop::sample::Index>().prop_map(Damage::Copy),
    ]
}

impl Damage {
    fn apply(&self, at: usize, bytes: &mut [u8]) {
        let word = at / 4 * 4;
        let aligned = word..(word + 4).min(bytes.len());
        match self {
            Self::Flip(bit) => bytes[at] ^= 1 << bit,
            Self::Word(value) => {
                let len = aligned.len();
                bytes[aligned].copy_from_slice(&value.to_le_bytes()[..len]);
            }
            Self::Copy(from) => {
                let from = from.index(bytes.len() / 4) * 4;
                bytes.copy_within(from..from + aligned.len(), word);
            }
        }
    }
}

/// An owner that has seen every corner of its policy.
fn seasoned_owner(kind: Kind) -> Owner {
    let mut owner = owner(kind, 30);
    for (at, key) in requests().take(500).enumerate() {
        owner.get(key % 50, 1 + u32::try_from(key % 3).unwrap());
        if at % 40 == 0 {
            owner.apply(&Op::Delete(key % 50));
        }
    }
    owner.apply(&Op::Abandon(7_777, 2));
    owner
}

#[test]
fn a_restart_in_the_middle_costs_no_hit() {
    for kind in Kind::ALL {
        let (mut one, mut other) = (owner(kind, 300), owner(kind, 300));
        for (at, key) in requests().enumerate() {
            if at % 2_500 == 1_700 {
                other = other.restarted(kind, &other.saved()).unwrap();
            }
            one.get(key, 1);
            other.get(key, 1);
        }
        assert_eq!(one.hits, other.hits, "{kind}");
        assert_eq!(one.victims, other.victims, "{kind}");
    }
}

#[test]
fn a_snapshot_with_any_bit_flipped_is_refused_or_does_no_harm() {
    for kind in Kind::ALL {
        let owner = seasoned_owner(kind);
        let snapshot = owner.saved();
        for bit in 0..snapshot.len() * 8 {
            let mut flipped = snapshot.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(mut other) = owner.restarted(kind, &flipped) else { continue };
            assert!(other.holds_exactly_its_own(), "{kind}: bit {bit}");
            for key in requests().take(200) {
                other.get(key % 50, 1);
            }
            other.drain();
        }
    }
}

#[test]
fn the_snapshot_of_another_kind_is_refused() {
    for kind in Kind::ALL {
        let snapshot = seasoned_owner(kind).saved();
        for other in Kind::ALL.into_iter().filter(|other| *other != kind) {
            let expected =
                SnapshotError::OtherKind { found: kind.name().to_owned(), expected: other };
            assert_eq!(other.build(30, 4).load(&snapshot), Err(expected));
        }
    }
}

#[test]
fn the_snapshot_of_another_capacity_is_refused_where_the_capacity_counts() {
    for kind in [Kind::Arc, Kind::S3Fifo, Kind::WTinyLfu] {
        let snapshot = seasoned_owner(kind).saved();
        let expected = SnapshotError::OtherCapacity { found: 30, expected: 31 };
        assert_eq!(kind.build(31, 4).load(&snapshot), Err(expected), "{kind}");
    }
}

#[test]
fn an_owner_learns_that_a_snapshot_is_of_other_entries() {
    for kind in Kind::ALL {
        let mut policy = kind.build(10, 4);
        for entry in 0..3 {
            policy.on_insert(EntryId(entry), hash_of(entry.into()), 1);
        }
        policy.on_remove(EntryId(1));
        let holds = |entries: &[u32]| {
            policy.holds_exactly(&mut entries.iter().map(|entry| EntryId(*entry)))
        };
        assert!(holds(&[0, 2]) && holds(&[2, 0]), "{kind}");
        for other in [&[0][..], &[0, 1, 2], &[0, 1], &[0, 3], &[]] {
            assert!(!holds(other), "{kind}: {other:?}");
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
