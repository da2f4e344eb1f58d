//! Grants in every interleaving of the threads that give, hold and end them.
//!
//! The file under test is compiled once more here, with loom's atomics in place of the real ones.

#[path = "../src/replication/leases.rs"]
mod leases;

/// What `leases.rs` finds beside it.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cluster::shard::Grants;
use cluster::{Incarnation, Member, NodeId};
use loom::thread;

use crate::leases::Leases;

const NODE: NodeId = NodeId(1);
const FIRST_LIFE: Member = Member { node: NODE, incarnation: Incarnation(7) };
const SECOND_LIFE: Member = Member { node: NODE, incarnation: Incarnation(8) };
const NOW_NS: u64 = 1_000;
const LATER_NS: u64 = NOW_NS + 300;

fn leases() -> loom::sync::Arc<Leases> {
    loom::sync::Arc::new(Leases::with_places(2))
}

/// One thread seals by `seal`, another grants by `grant`, each of which says whether it did; never both.
/// Returns whether sealing and granting were each seen to go through.
fn either_seals_or_grants(seal: fn(&Leases) -> bool, grant: fn(&Leases) -> bool) -> (bool, bool) {
    let (was_sealed, was_granted) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let seen = (Arc::clone(&was_sealed), Arc::clone(&was_granted));
    loom::model(move || {
        let leases = leases();
        let others = loom::sync::Arc::clone(&leases);
        let sealer = thread::spawn(move || seal(&others));
        let granted = grant(&leases);
        let sealed = sealer.join().expect("it does not panic");
        assert!(!(sealed && granted), "sealed and granted");
        was_sealed.fetch_or(sealed, Ordering::Relaxed);
        was_granted.fetch_or(granted, Ordering::Relaxed);
    });
    (seen.0.load(Ordering::Relaxed), seen.1.load(Ordering::Relaxed))
}

fn seal(leases: &Leases) -> bool {
    !leases.at(NOW_NS).binds_towards(NODE)
}

/// As the control thread does, which had seen no seal when it looked last.
fn grant(leases: &Leases) -> bool {
    leases.set_bound(NODE, LATER_NS);
    leases.seals_tried(NODE) == 0
}

#[test]
fn a_term_is_ended_or_renewed_never_both() {
    assert_eq!(either_seals_or_grants(seal, grant), (true, true), "each goes through sometimes");
}

#[test]
#[should_panic(expected = "sealed and granted")]
fn a_seal_that_looks_before_it_is_announced_passes_the_grant() {
    let looks_first = |leases: &Leases| {
        let is_bound = leases.is_bound(NODE, NOW_NS);
        leases.announce_seal(NODE);
        !is_bound
    };
    either_seals_or_grants(looks_first, grant);
}

#[test]
#[should_panic(expected = "sealed and granted")]
fn a_grant_that_looks_before_it_is_written_passes_the_seal() {
    let looks_first = |leases: &Leases| {
        let is_unsealed = leases.seals_tried(NODE) == 0;
        leases.set_bound(NODE, LATER_NS);
        is_unsealed
    };
    either_seals_or_grants(seal, looks_first);
}

/// While a node's second life takes its first one's place with a grant until `second_until_ns`, `member`
/// never seems to grant anything at `now_ns`.
fn never_holds(member: Member, second_until_ns: u64, now_ns: u64) {
    loom::model(move || {
        let leases = leases();
        leases.set_held(FIRST_LIFE, NOW_NS);
        let control = loom::sync::Arc::clone(&leases);
        let control = thread::spawn(move || control.set_held(SECOND_LIFE, second_until_ns));
        assert!(!leases.at(now_ns).holds_from(member));
        control.join().expect("it does not panic");
    });
}

#[test]
fn a_new_life_is_not_taken_at_the_word_of_the_old_one() {
    never_holds(SECOND_LIFE, NOW_NS - 10, NOW_NS - 5);
}

#[test]
fn an_old_life_is_not_taken_at_the_word_of_the_new_one() {
    never_holds(FIRST_LIFE, LATER_NS, NOW_NS + 5);
}

#[test]
fn grant_holds_until_its_time_and_for_its_life_alone() {
    loom::model(|| {
        let leases = leases();
        leases.set_held(FIRST_LIFE, 100);
        assert!(leases.at(99).holds_from(FIRST_LIFE));
        assert!(!leases.at(100).holds_from(FIRST_LIFE));
        assert!(!leases.at(99).holds_from(SECOND_LIFE));
        leases.set_held(SECOND_LIFE, 50);
        assert!(!leases.at(40).holds_from(FIRST_LIFE));
        assert!(leases.at(40).holds_from(SECOND_LIFE));
    });
}

#[test]
fn what_was_granted_is_not_taken_back() {
    loom::model(|| {
        let leases = leases();
        leases.set_bound(NODE, 100);
        leases.set_bound(NODE, 50);
        assert!(leases.at(99).binds_towards(NODE));
        assert!(!leases.at(100).binds_towards(NODE));
    });
}

#[test]
fn a_node_without_a_place_is_bound_for_ever_and_grants_nothing() {
    loom::model(|| {
        let leases = leases();
        let nobody = NodeId(2);
        leases.set_bound(nobody, 1);
        leases.set_held(Member { node: nobody, ..FIRST_LIFE }, LATER_NS);
        assert!(leases.at(NOW_NS).binds_towards(nobody));
        assert!(!leases.at(NOW_NS).holds_from(Member { node: nobody, ..FIRST_LIFE }));
    });
}

/// Whether a lease that one thread found, while `revoke` was carried out by another, still covers anything.
fn lease_outlives(revoke: fn(&Leases)) -> (bool, bool) {
    let (was_found, was_missed) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let seen = (Arc::clone(&was_found), Arc::clone(&was_missed));
    loom::model(move || {
        let leases = leases();
        leases.set_held(FIRST_LIFE, LATER_NS);
        let others = loom::sync::Arc::clone(&leases);
        let reader =
            thread::spawn(move || others.find(NOW_NS, |grants| grants.holds_from(FIRST_LIFE)));
        revoke(&leases);
        let lease = reader.join().expect("it does not panic");
        if let Some(lease) = lease {
            assert!(!leases.covers(lease, NOW_NS), "a lease outlived its grant");
        }
        was_found.fetch_or(lease.is_some(), Ordering::Relaxed);
        was_missed.fetch_or(lease.is_none(), Ordering::Relaxed);
    });
    (seen.0.load(Ordering::Relaxed), seen.1.load(Ordering::Relaxed))
}

#[test]
fn no_lease_outlives_a_grant_that_is_taken_back() {
    let take_back = |leases: &Leases| leases.set_held(FIRST_LIFE, 0);
    assert_eq!(lease_outlives(take_back), (true, true), "it is found before, and not after");
}

#[test]
fn no_lease_outlives_the_life_that_granted_it() {
    let begin_anew = |leases: &Leases| leases.set_held(SECOND_LIFE, LATER_NS);
    assert_eq!(lease_outlives(begin_anew), (true, true), "it is found before, and not after");
}

#[test]
fn lease_lasts_as_long_as_the_shortest_grant_and_through_renewals() {
    loom::model(|| {
        let leases = leases();
        leases.set_held(FIRST_LIFE, LATER_NS);
        let lease = leases.find(NOW_NS, |grants| grants.holds_from(FIRST_LIFE)).expect("granted");
        leases.set_held(FIRST_LIFE, LATER_NS + 1);
        assert!(leases.covers(lease, LATER_NS - 1) && !leases.covers(lease, LATER_NS));
    });
}
