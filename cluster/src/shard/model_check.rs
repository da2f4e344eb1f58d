//! The shard protocol explored: every order of messages, losses and crashes in small worlds, over the real code.
//!
//! ```text
//! genesis ──action──> world ──action──> world ...      breadth first: what is found is found the shortest way
//!                       │ in each: what must hold holds, and without faults it comes to rest
//! ```
//!
//! What must hold:
//! - Who answers reads, or is the primary that the map names and serves, has every write that was acknowledged,
//!   and every one that was read as committed.
//! - Histories that end in one version are equal, and no version is given to a second write.
//! - One node at most commits in an epoch, and none panics.
//! - Once faults are over, the primary serves and every node has all that it has, unless too few members
//!   live.
//!
//! Each rule is then broken on purpose ([`Replica::broken`](super::Replica)), and must be missed: a rule that
//! can be broken without a trace is not needed, or this looks the wrong way.
//!
//! `MODEL_CHECK_WORLDS=10000000` explores larger worlds, so many of each.

#![expect(clippy::print_stdout, reason = "a search says how far it went")]

mod search;
mod world;

use self::search::{Report, search};
use self::world::{Budget, Setup};
use super::Rule;
use crate::pool::Ack;

/// Nothing happens but messages, and the map's answers.
const QUIET: Budget = Budget {
    writes: 0,
    campaigns: 0,
    losses: 0,
    hand_overs: 0,
    crashes: 0,
    warm_crashes: 0,
    returns: 0,
    joins: 0,
    retries: 0,
    reconnects: 0,
    renewals: 0,
    duplicates: 0,
};

/// Two copies, both acknowledge.
const PAIR: Setup = Setup { nodes: 2, in_sync: 2, ack: Ack::All, budget: QUIET, broken: None };
/// One copy, and a node that may join.
const ONE_AND_JOINER: Setup = Setup { in_sync: 1, ..PAIR };
/// Two copies, and a node that may join.
const PAIR_AND_JOINER: Setup = Setup { nodes: 3, ..PAIR };
/// Three copies, two acknowledge.
const TRIO: Setup = Setup { nodes: 3, in_sync: 3, ack: Ack::Quorum, budget: QUIET, broken: None };
/// Three copies, all acknowledge.
const TRIO_ALL: Setup = Setup { ack: Ack::All, ..TRIO };

/// More than any world that is to be explored wholly has.
const WHOLE: usize = 1_000_000;

/// Explores, and looks in each `recovery_every`-th world whether it comes to rest.
fn explore(setup: Setup, worlds_max: usize, recovery_every: usize) -> Report {
    let mut number = 0;
    search(setup, worlds_max, |universe, world| {
        number += 1;
        if number % recovery_every == 0 { universe.check_recovery(world) } else { Ok(()) }
    })
}

/// Every world that can come of `setup` is as it must be.
fn holds(setup: Setup, recovery_every: usize) {
    let report = explore(setup, WHOLE, recovery_every);
    println!("{} worlds, the farthest {} actions away", report.worlds, report.depth);
    assert!(report.violation.is_none(), "{}", report.violation.unwrap_or_default());
    assert!(report.is_exhausted, "not all of them after {}", report.worlds);
}

/// Breaking `rule` breaks what must hold.
fn is_needed(rule: Rule, setup: Setup) {
    let report = search(Setup { broken: Some(rule), ..setup }, WHOLE, |_, _| Ok(()));
    println!("{} worlds", report.worlds);
    let violation = report.violation.expect("the rule is broken, and nothing else");
    println!("{violation}");
}

#[test]
fn pair_keeps_its_promise_through_a_crash_and_two_campaigns() {
    let budget = Budget { writes: 1, campaigns: 2, losses: 1, crashes: 1, ..QUIET };
    holds(Setup { budget, ..PAIR }, 1);
}

#[test]
fn pair_keeps_its_promise_when_messages_come_twice() {
    let budget = Budget { writes: 2, campaigns: 1, losses: 1, duplicates: 2, ..QUIET };
    holds(Setup { budget, ..PAIR }, 4);
}

#[test]
fn pair_keeps_its_promise_while_it_is_handed_over() {
    let budget = Budget { writes: 2, campaigns: 1, hand_overs: 1, retries: 1, ..QUIET };
    holds(Setup { budget, ..PAIR }, 4);
}

#[test]
fn copy_is_whole_when_it_is_counted() {
    let budget = Budget { writes: 2, campaigns: 1, joins: 1, retries: 1, ..QUIET };
    holds(Setup { budget, ..ONE_AND_JOINER }, 4);
}

#[test]
fn join_begun_again_is_no_shortcut() {
    let budget = Budget { writes: 1, campaigns: 1, joins: 2, reconnects: 1, ..QUIET };
    holds(Setup { budget, ..ONE_AND_JOINER }, 4);
}

#[test]
fn joiner_is_no_member_of_what_came_before_its_join() {
    let budget = Budget { losses: 1, joins: 2, ..QUIET };
    holds(Setup { budget, ..ONE_AND_JOINER }, 4);
}

#[test]
fn crashed_member_comes_back_by_joining() {
    let budget = Budget { writes: 1, losses: 1, crashes: 1, joins: 1, ..QUIET };
    holds(Setup { budget, ..PAIR }, 4);
}

#[test]
fn trio_keeps_its_promise_through_a_campaign() {
    let budget = Budget { writes: 1, campaigns: 1, losses: 1, ..QUIET };
    holds(Setup { budget, ..TRIO }, 16);
}

#[test]
fn trio_keeps_its_promise_when_two_campaign() {
    let budget = Budget { writes: 1, campaigns: 2, ..QUIET };
    holds(Setup { budget, ..TRIO }, 16);
}

#[test]
fn primary_goes_on_when_all_others_are_lost_at_once() {
    let budget = Budget { writes: 1, losses: 1, crashes: 2, ..QUIET };
    holds(Setup { budget, ..TRIO }, 4);
    holds(Setup { budget, ..TRIO_ALL }, 4);
}

#[test]
fn one_that_lives_and_one_that_returned_are_enough() {
    let budget =
        Budget { writes: 1, campaigns: 1, crashes: 1, warm_crashes: 1, returns: 2, ..QUIET };
    holds(Setup { budget, ..TRIO }, 8);
    holds(Setup { budget, ..PAIR }, 1);
}

#[test]
fn rule_1_is_needed() {
    let budget = Budget { writes: 1, campaigns: 1, ..QUIET };
    is_needed(Rule::SealAfterGrant, Setup { budget, ..PAIR });
}

#[test]
fn rule_2_is_needed() {
    let budget = Budget { writes: 2, campaigns: 1, crashes: 1, ..QUIET };
    is_needed(Rule::Incarnations, Setup { budget, ..PAIR });
}

#[test]
fn rule_3_is_needed() {
    let budget = Budget { writes: 1, campaigns: 1, ..QUIET };
    is_needed(Rule::ReadQuorum, Setup { budget, ..PAIR });
}

#[test]
fn rule_4_is_needed() {
    let budget = Budget { writes: 1, campaigns: 2, hand_overs: 1, ..QUIET };
    is_needed(Rule::RecommitTail, Setup { budget, ..TRIO_ALL });
}

#[test]
fn rule_5_is_needed() {
    let budget = Budget { writes: 1, campaigns: 1, losses: 1, ..QUIET };
    is_needed(Rule::CommitBoth, Setup { budget, ..TRIO });
}

#[test]
fn rule_6_is_needed() {
    let budget = Budget { writes: 1, campaigns: 2, ..QUIET };
    is_needed(Rule::SealQuorum, Setup { budget, ..TRIO });
}

#[test]
fn rule_7_is_needed() {
    let budget = Budget { writes: 1, campaigns: 1, ..QUIET };
    is_needed(Rule::SealedIsSilent, Setup { budget, ..TRIO });
}

#[test]
fn rule_8_is_needed() {
    let budget = Budget { writes: 1, campaigns: 1, losses: 1, ..QUIET };
    is_needed(Rule::ReadBoth, Setup { budget, ..TRIO });
}

#[test]
fn rule_9_is_needed() {
    let budget = Budget { writes: 1, campaigns: 1, losses: 1, ..QUIET };
    is_needed(Rule::ShrinkCovered, Setup { budget, ..TRIO });
}

#[test]
fn rule_10_is_needed() {
    let budget = Budget { writes: 1, campaigns: 2, ..QUIET };
    is_needed(Rule::SyncSealed, Setup { budget, ..TRIO });
}

/// Worlds too large to explore wholly, as far as there is time for.
#[test]
fn larger_worlds_hold_as_far_as_they_are_explored() {
    let asked = std::env::var("MODEL_CHECK_WORLDS").ok();
    let worlds_max = asked.and_then(|worlds| worlds.parse().ok()).unwrap_or(20_000);
    let busy = Budget {
        writes: 2,
        campaigns: 2,
        losses: 1,
        hand_overs: 1,
        crashes: 1,
        warm_crashes: 1,
        returns: 2,
        joins: 1,
        retries: 1,
        reconnects: 1,
        renewals: 1,
        duplicates: 1,
    };
    for setup in [PAIR, ONE_AND_JOINER, TRIO, PAIR_AND_JOINER, TRIO_ALL] {
        let report = explore(Setup { budget: busy, ..setup }, worlds_max, 64);
        println!("{} worlds, the farthest {} actions away", report.worlds, report.depth);
        assert!(report.violation.is_none(), "{}", report.violation.unwrap_or_default());
    }
}
