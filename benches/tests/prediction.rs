//! What `cache-sim run --as-server` predicts, `cache-bench replay` measures on a server: writes, deletes
//! and TTLs in the mix, for every policy.

use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use benches::interrupt::Interrupt;
use benches::replay::{Expiry, Replayed, Wanted, replay};
use cache_server::{Config, Listen, Server};
use eviction::Kind;
use sim::fill::{Fills, FirstWrites};
use sim::replay::{Expiry as SimulatedExpiry, Replay, ServerShape, Tally};
use sim::trace::{Access, Op};

const MEMORY_BYTES: usize = 4 << 20;
const ITEM_BYTES_MAX: usize = 64 << 10;
const THREADS: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// A log of a key-value store, with all there is: skewed keys, every op, TTLs, values of a few bytes up to
/// some that the server does not take. Its clock moves on by `step_s` every hundred requests, and what
/// expires does so between two steps, or at one if they are as short as can be.
fn log(requests: u32, step_s: u32) -> Vec<Wanted> {
    // A linear congruential generator will do.
    let mut state = 2026u64;
    let mut draw = |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let small = |number: u64| u32::try_from(number).expect("small");
    let accesses: Vec<Access> = (0..requests)
        .map(|n| {
            let id = draw(130).pow(2) + draw(40);
            let op = match draw(24) {
                0..=12 => Op::Get,
                13..=16 => Op::Set,
                17 => Op::Delete,
                _ => Op::ALL[usize::try_from(draw(Op::ALL.len() as u64)).expect("an index")],
            };
            let has_ttl = draw(2) == 0 && op != Op::Get;
            let ttl_s = if has_ttl { small(2 + draw(200)) * step_s + step_s / 2 } else { 0 };
            // An object keeps its size, but for what appends add to it.
            let size_bytes = match (id % 100, op) {
                (_, Op::Append | Op::Prepend) => 10,
                (0, _) => 70_000,
                (1..=9, _) => small(1 + id % 20),
                _ => small(100 + id * 7 % 3000),
            };
            let key_bytes = if id % 3 == 0 { 0 } else { 20 };
            Access { id, time_s: n / 100 * step_s, size_bytes, ttl_s, key_bytes, op }
        })
        .collect();
    let mut first_writes = FirstWrites::default();
    accesses.iter().for_each(|&access| first_writes.note(&access.into()));
    let mut fills: Fills = first_writes.into_fills();
    let completed = |access: &Access| {
        let mut wanted = Wanted::from(*access);
        fills.complete(&mut wanted.request);
        wanted
    };
    accesses.iter().map(completed).collect()
}

fn predicted(policy: Kind, memory_bytes: usize, log: &[Wanted]) -> Tally {
    let shape = ServerShape {
        threads: u32::try_from(THREADS.get()).expect("a few"),
        item_bytes_max: ITEM_BYTES_MAX as u64,
    };
    let mut cache = Replay::of_server(policy, memory_bytes as u64, shape, SimulatedExpiry::Eager);
    log.iter().for_each(|wanted| cache.request(&wanted.request));
    cache.tally()
}

/// Replays `log` to a server of `policy` in this process, which lets items expire itself if `drives_clock`.
fn measured(policy: Kind, log: &[Wanted], drives_clock: bool) -> Replayed {
    let config = Config {
        listen: vec![Listen::loopback(0)],
        memory_bytes: MEMORY_BYTES,
        item_bytes_max: ITEM_BYTES_MAX,
        threads: THREADS,
        eviction: policy,
        ..Config::default()
    };
    let server = Server::start(&config).expect("a server on any port");
    let mut advance = |seconds: u32| {
        server.advance(Duration::from_secs(seconds.into()));
        Ok(())
    };
    let expiry = if drives_clock { Expiry::Server(&mut advance) } else { Expiry::Log };
    let log = log.iter().copied().map(Ok::<_, std::io::Error>);
    let address = server.address().expect("it serves TCP");
    replay(log, address, 1, expiry, &Interrupt::default(), |_| {}).expect("it answers")
}

/// Compares prediction and measurement for every policy, each on a thread of its own.
fn check_all(step_s: u32, drives_clock: bool) {
    let log = log(20_000, step_s);
    thread::scope(|scope| {
        for policy in Kind::ALL {
            let log = &log;
            scope.spawn(move || {
                let without_end = predicted(policy, 100 * MEMORY_BYTES, log);
                let predicted = predicted(policy, MEMORY_BYTES, log);
                assert!(predicted.hits + 200 < without_end.hits, "{policy}: something was evicted");
                let measured = measured(policy, log, drives_clock);
                assert_eq!(measured.wrong, 0, "{policy}: {:?}", measured.samples);
                assert_eq!(measured.requests, predicted.requests, "{policy}");
                assert!(measured.refused > 0, "{policy}: some are too large");
                assert_eq!(measured.expired == 0, drives_clock, "{policy}: who lets items expire");
                let apart = measured.hits.abs_diff(predicted.hits);
                assert!(
                    apart * 1000 <= predicted.requests,
                    "{policy}: {} hits of {} are predicted, {} measured",
                    predicted.hits,
                    predicted.requests,
                    measured.hits
                );
            });
        }
    });
}

#[test]
fn a_replay_measures_what_is_predicted_for_every_policy() {
    check_all(1, false);
}

#[test]
fn a_server_that_lets_items_expire_itself_is_predicted_too() {
    // However slowly the test runs, no item expires a step too early.
    check_all(1000, true);
}
