//! A whole cluster simulated: the real state machines of every node, a network that loses and delays, clocks
//! that differ, nodes that crash and pause, and clients that remember what they were told. One thread, one
//! seed: a run can be had again.
//!
//! `SIM_SEEDS=10000` runs so many, `SIM_SEED=7` that one alone.

#![expect(clippy::print_stdout, reason = "a run says what it was")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod history;
mod network;
mod random;
mod server;
mod world;

use std::collections::BTreeMap;

use cluster::NodeId;
use cluster::map::Command;
use cluster::pool::Pool;

use crate::history::End;
use crate::network::{MS, Weather};
use crate::random::Random;
use crate::world::{Plan, World};

/// How long faults go on.
const FAULTS_NS: u64 = 10_000 * MS;
/// In which everything must be as it should be once they are over.
const HEALING_NS: u64 = 10_000 * MS;

fn plan(random: &mut Random) -> Plan {
    let is_strict = random.permille(500);
    Plan {
        nodes: random.pick(&[3, 4, 5]),
        shards: random.pick(&[2, 4, 8]),
        keys: random.pick(&[3, 8, 20]),
        clients: random.pick(&[2, 4, 6]),
        room: random.pick(&[1, 2, 4, 100, 100]),
        pool: if is_strict { Pool::strict() } else { Pool::sessions() },
    }
}

/// One fault of those there are; what it was.
fn strike(world: &mut World) -> Option<&'static str> {
    let nodes = world.nodes();
    let victim = world.random.pick(&nodes);
    let for_ns = world.random.between(50, 3_000) * MS;
    match world.random.below(14) {
        0 if world.can_lose(victim) => {
            world.crash(victim, false, for_ns);
            Some("crash, memory lost")
        }
        0 | 1 if world.may_crash(victim) => {
            world.crash(victim, true, for_ns);
            Some("crash, memory file kept")
        }
        2 => {
            world.pause(victim, for_ns);
            Some("pause")
        }
        3 => {
            for &other in nodes.iter().filter(|&&other| other != victim) {
                world.network.cut(victim, other);
                world.network.cut(other, victim);
            }
            Some("one node cut off")
        }
        4 => {
            for &other in nodes.iter().filter(|&&other| other != victim) {
                world.network.cut(victim, other);
            }
            Some("one node not heard")
        }
        5 => {
            let other = world.random.pick(&nodes);
            world.network.cut(victim, other);
            world.network.cut(other, victim);
            Some("two nodes apart")
        }
        6 => {
            // Two halves, and one node that both of them hear.
            for &a in nodes.iter().filter(|&&node| node < victim) {
                for &b in nodes.iter().filter(|&&node| node > victim) {
                    world.network.cut(a, b);
                    world.network.cut(b, a);
                }
            }
            Some("two halves with a bridge")
        }
        7 if world.may_crash(victim) => {
            let quickly_ns = world.random.between(1, 60) * MS;
            world.crash(victim, true, quickly_ns);
            Some("quick restart")
        }
        8 => {
            world.change_clock(victim);
            Some("another clock")
        }
        9 => world.command(Command::Drain { node: victim }).then_some("drain"),
        10 => {
            let weight = world.random.pick(&[1, 100, 300]);
            let zone = world.random.pick(&["", "a", "b"]).into();
            let command = Command::SetZoneWeight { node: victim, zone, weight };
            world.command(command).then_some("move")
        }
        11 => {
            world.cancel_drains();
            None
        }
        12 => {
            world.network.weather = Weather::FOUL;
            Some("foul weather")
        }
        _ => {
            world.network.heal();
            None
        }
    }
}

/// What a run was.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    trace: u64,
    operations: usize,
    acknowledged: usize,
    takeovers: u64,
    harm: u64,
    /// From the end of the faults until all was as it should be.
    healed_ms: u64,
    faults: BTreeMap<&'static str, u64>,
}

fn run(seed: u64) -> Result<Run, String> {
    let mut random = Random::of_seed(seed ^ 0x5eed);
    let plan = plan(&mut random);
    let told = format!("{plan:?}");
    let mut world = World::new(plan, seed);
    let mut faults = BTreeMap::new();
    world.run_until(2_000 * MS);
    let mut now_ns = world.now_ns;
    let faults_end_ns = now_ns + FAULTS_NS;
    while now_ns < faults_end_ns {
        now_ns += world.random.between(20, 1_200) * MS;
        world.run_until(now_ns.min(faults_end_ns));
        if let Some(fault) = strike(&mut world) {
            *faults.entry(fault).or_default() += 1;
        }
    }
    world.network.heal();
    // A crash or a pause may last beyond the end of the faults: healing begins with the last.
    let is_away = |world: &World, node: NodeId| !world.is_alive(node) || world.is_paused(node);
    while world.violation.is_none() && world.nodes().iter().any(|&node| is_away(&world, node)) {
        now_ns += 10 * MS;
        world.run_until(now_ns);
    }
    let healed_from_ns = world.now_ns;
    world.run_until(healed_from_ns + HEALING_NS / 4);
    // By now somebody leads Raft for certain.
    world.cancel_drains();
    world.run_until(healed_from_ns + HEALING_NS / 2);
    world.stop_clients();
    let mut unrest = Err(String::new());
    let mut healed_ns = world.now_ns;
    for _ in 0..50 {
        unrest = world.unrest();
        if unrest.is_ok() || world.violation.is_some() {
            break;
        }
        healed_ns += HEALING_NS / 100;
        world.run_until(healed_ns);
    }
    // What was asked last is answered, or given up.
    world.run_until(healed_ns + 2_100 * MS);
    let scan = world.scan();
    world.run_until(world.now_ns + 200 * MS);
    if let Some(violation) = world.violation.take() {
        return Err(format!("seed {seed}: {violation}\n{told}\n{faults:?}"));
    }
    unrest.map_err(|why| format!("seed {seed}: no rest, {why}\n{told}\n{faults:?}"))?;
    for (key, end) in world.operations[scan..].iter().map(|it| (it.key, it.end)) {
        if !matches!(end, Some((_, End::Saw(_) | End::Missed(_) | End::Wrote(_)))) {
            return Err(format!(
                "seed {seed}: in the end key {key} gave {end:?}\n{told}\n{faults:?}"
            ));
        }
    }
    history::check(&world.operations, &world.logs())
        .map_err(|why| format!("seed {seed}: {why}\n{told}\n{faults:?}"))?;
    let acknowledged = world.operations.iter().filter(|it| it.end.is_some()).count();
    Ok(Run {
        trace: world.trace(),
        operations: world.operations.len(),
        acknowledged,
        takeovers: world.takeovers,
        harm: world.network.harm,
        healed_ms: (healed_ns - healed_from_ns) / MS,
        faults,
    })
}

fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_seed_loses_or_forges_anything() {
    let seeds: Vec<u64> = match asked("SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..asked("SIM_SEEDS").unwrap_or(200)).collect(),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = seeds.len().div_ceil(threads);
    let runs: Vec<Result<Run, String>> = std::thread::scope(|scope| {
        let started: Vec<_> = seeds
            .chunks(share)
            .map(|seeds| {
                scope.spawn(move || seeds.iter().map(|&seed| run(seed)).collect::<Vec<_>>())
            })
            .collect();
        started.into_iter().flat_map(|it| it.join().unwrap()).collect()
    });
    let failed: Vec<&String> = runs.iter().filter_map(|run| run.as_ref().err()).collect();
    assert!(
        failed.is_empty(),
        "{} of {} runs: {}",
        failed.len(),
        runs.len(),
        failed.iter().map(|it| it.as_str()).collect::<Vec<_>>().join("\n\n")
    );
    let runs: Vec<Run> = runs.into_iter().flatten().collect();
    let mut faults = BTreeMap::new();
    for run in &runs {
        assert!(run.harm > 0, "nothing went wrong: {run:?}");
        assert!(run.acknowledged > 50, "too little went right: {run:?}");
        for (fault, times) in &run.faults {
            *faults.entry(fault).or_insert(0) += times;
        }
    }
    let operations: usize = runs.iter().map(|run| run.operations).sum();
    let takeovers: u64 = runs.iter().map(|run| run.takeovers).sum();
    println!("{} runs, {operations} operations, {takeovers} takeovers, {faults:?}", runs.len());
}

#[test]
fn one_seed_gives_one_run() {
    for seed in [1, 2, 3] {
        assert_eq!(run(seed), run(seed));
    }
}
