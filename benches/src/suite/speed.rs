//! Rounds of load: work per processor time in a closed loop, latency in an open one.
//!
//! - *Closed loop*: keys read or written per second of the server's processor time, so a load generator
//!   that cannot keep a server busy does not flatter or hide anything.
//! - *Open loop*: all servers get the same requests a second, half of what the first server compared
//!   with answers in a closed loop. Latency counts from when a request was due.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::figures::{Better, ComparedBy, Entrant, Measure, Percentile, Verdict};
use super::rows::{Scale, Speed};
use super::spread::Spread;
use super::{Bench, ECHO, Fielded, Found, RowError};
use crate::compare::{CompareError, KEY_BYTES};
use crate::load::{self, Extent, Outcome, Pace, Plan};
use crate::noise::{Noise, Watch};
use crate::schedule::Arrivals;
use crate::server_process::Kind;
use crate::suite::contestant::Contestant;
use crate::syscalls::{Counting, Tool};
use crate::tally::Tally;

/// Quantiles told of a distribution of latency.
const QUANTILES: [f64; 12] =
    [0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99999, 1.0];
/// How much of a server's pace an open loop asks for.
const OPEN_LOOP_SHARE: f64 = 0.5;

/// Work per processor time.
pub(super) fn closed_loop(bench: &mut Bench<'_>, speed: &Speed) -> Result<Found, RowError> {
    let mut fielded = bench.field(speed.data, speed)?;
    if speed.has_echo() {
        fielded.push(echo(bench, speed)?);
    }
    let rounds = rounds(bench, speed, &fielded, Pace::Closed)?;
    let mut servers = entrants(bench, &fielded, &rounds);
    let mut measures = Vec::new();
    if rounds.verdict != Verdict::TooNoisy {
        let work = |slot: &Slot| slot.keys_per_cpu_second;
        let name = "keys per CPU second";
        measures.push(measure(name, "1/s", Better::Higher, &fielded, &rounds, work));
        if bench.plan.rules.counts_syscalls {
            for (entrant, told) in fielded.iter().zip(&mut servers) {
                told.syscalls_per_request = syscalls_per_request(bench, speed, entrant)?;
            }
        }
    }
    if speed.has_echo() {
        fielded.pop();
    }
    bench.field = Some((speed.data, fielded));
    let notes = doubts(speed, &servers);
    Ok(rounds.found(servers, measures, notes))
}

/// Latency at a pace that everybody keeps up with.
pub(super) fn open_loop(bench: &mut Bench<'_>, speed: &Speed) -> Result<Found, RowError> {
    let fielded = bench.field(speed.data, speed)?;
    // Ours, if it is alone.
    let reference = fielded.get(1).or_else(|| fielded.first());
    let Some(reference) = reference else { return Ok(Found::default()) };
    bench.begin(&format!("how much {} manages", reference.name));
    let saturated = load(bench, speed, reference, &bench.load_plan(reference, speed))?;
    let rate = (saturated.requests_per_second() * OPEN_LOOP_SHARE).max(1.0);
    let note = format!(
        "{rate:.0} requests a second, half of the {:.0} that {} answered in a closed loop",
        saturated.requests_per_second(),
        reference.name
    );
    let pace = Pace::Open { rate, arrivals: Arrivals::Poisson };
    let rounds = rounds(bench, speed, &fielded, pace)?;
    let servers = entrants(bench, &fielded, &rounds);
    let mut measures = Vec::new();
    if rounds.verdict != Verdict::TooNoisy {
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let latency = |slot: &Slot| slot.latency_us(quantile);
            measures.push(measure(name, "us", Better::Lower, &fielded, &rounds, latency));
        }
    }
    bench.field = Some((speed.data, fielded));
    let notes = std::iter::once(note).chain(doubts(speed, &servers)).collect();
    Ok(rounds.found(servers, measures, notes))
}

/// An echo server for these requests.
fn echo(bench: &mut Bench<'_>, speed: &Speed) -> Result<Fielded, RowError> {
    let flags = [
        ("--key-bytes", KEY_BYTES),
        ("--value-bytes", speed.data.value_bytes),
        ("--keys-per-get", speed.keys_per_get),
    ];
    let flags = flags.iter().flat_map(|(flag, value)| [(*flag).into(), value.to_string().into()]);
    let program = bench.plan.echo.clone();
    let echo =
        Contestant { name: ECHO.to_owned(), kind: Kind::Echo, program, flags: flags.collect() };
    let [server_cores, _] = bench.cores(1);
    let launch = echo.launch(speed.data.memory_mib, server_cores, &[]);
    bench.start(&echo, &launch)
}

/// One turn of load on one server.
struct Slot {
    keys_per_cpu_second: f64,
    keys_per_second: f64,
    core_share: f64,
    noise: Noise,
    tally: Tally,
}

impl Slot {
    fn latency_us(&self, quantile: f64) -> f64 {
        let mut latency = self.tally.get_latency.clone();
        // Both were built alike, so every value of one has a place in the other.
        let _ = latency.add(&self.tally.set_latency);
        latency.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// The rounds that count, server by server.
struct Rounds {
    slots: Vec<Vec<Slot>>,
    verdict: Verdict,
    noise: Option<Noise>,
    noise_by_round: Vec<f64>,
    discarded: usize,
}

impl Rounds {
    fn found(self, servers: Vec<Entrant>, measures: Vec<Measure>, notes: Vec<String>) -> Found {
        Found {
            verdict: Some(self.verdict),
            noise: self.noise,
            noise_by_round: self.noise_by_round,
            rounds_discarded: self.discarded,
            servers,
            measures,
            notes,
        }
    }
}

/// As many rounds as there are to be, or none if the machine is too noisy in more than as many again.
fn rounds(
    bench: &mut Bench<'_>,
    speed: &Speed,
    fielded: &[Fielded],
    pace: Pace,
) -> Result<Rounds, RowError> {
    let rules = &bench.plan.rules;
    let nothing = || fielded.iter().map(|_| Vec::new()).collect();
    let mut rounds = Rounds {
        slots: nothing(),
        verdict: Verdict::Measured,
        noise: None,
        noise_by_round: Vec::new(),
        discarded: 0,
    };
    let mut any = Noise::default();
    while rounds.noise_by_round.len() < rules.rounds {
        let round = round(bench, speed, fielded, pace, rounds.noise_by_round.len())?;
        let noise = round.iter().map(|(_, slot)| slot.noise).fold(Noise::default(), Noise::worse);
        let share = noise.share(speed.data.threads > 1);
        any = any.worse(noise);
        let is_noisy = share > rules.noise_max;
        if is_noisy && !rules.noise_allowed {
            rounds.discarded += 1;
            if rounds.discarded > rules.rounds {
                let (slots, verdict) = (nothing(), Verdict::TooNoisy);
                let (noise, noise_by_round) = (Some(any), Vec::new());
                return Ok(Rounds { slots, verdict, noise, noise_by_round, ..rounds });
            }
            bench.observer.expect(fielded.len() as u64);
            continue;
        }
        if is_noisy {
            rounds.verdict = Verdict::Noisy;
        }
        rounds.noise = Some(rounds.noise.unwrap_or_default().worse(noise));
        rounds.noise_by_round.push(share);
        round.into_iter().for_each(|(which, slot)| rounds.slots[which].push(slot));
    }
    Ok(rounds)
}

/// A turn for every server, each with its place in `fielded`.
fn round(
    bench: &mut Bench<'_>,
    speed: &Speed,
    fielded: &[Fielded],
    pace: Pace,
    number: usize,
) -> Result<Vec<(usize, Slot)>, RowError> {
    let mut order: Vec<usize> = (0..fielded.len()).collect();
    if !number.is_multiple_of(2) {
        // There and back again: nobody is always first, or always after the same.
        order.reverse();
    }
    let mut round = Vec::new();
    for which in order {
        let entrant = &fielded[which];
        let (counted, wanted) = (number + 1, bench.plan.rules.rounds);
        bench.begin(&format!("round {counted} of {wanted}: {}", entrant.name));
        let plan = Plan { pace, seed: counted as u64, ..bench.load_plan(entrant, speed) };
        round.push((which, slot(bench, speed, fielded, entrant, &plan)?));
        bench.observer.done();
    }
    Ok(round)
}

/// One turn of load, watched.
fn slot(
    bench: &Bench<'_>,
    speed: &Speed,
    fielded: &[Fielded],
    entrant: &Fielded,
    plan: &Plan,
) -> Result<Slot, RowError> {
    let pids: Vec<u32> = fielded.iter().map(|it| it.server.pid()).collect();
    let watch = Watch::start(entrant.server.pid(), &pids).map_err(RowError::Noise)?;
    let outcome = load(bench, speed, entrant, plan)?;
    let noise = watch.end(outcome.tally.load_wait, plan.threads).map_err(RowError::Noise)?;
    let cpu = outcome.usage.map_or(Duration::ZERO, |usage| usage.cpu);
    Ok(Slot {
        keys_per_cpu_second: outcome.keys_per_cpu_second().unwrap_or(f64::NAN),
        keys_per_second: outcome.keys_per_second(),
        core_share: cpu.as_secs_f64() / outcome.elapsed.as_secs_f64(),
        noise,
        tally: outcome.tally,
    })
}

/// Load on a server, whose every value must be its key's.
fn load(
    bench: &Bench<'_>,
    speed: &Speed,
    entrant: &Fielded,
    plan: &Plan,
) -> Result<Outcome, RowError> {
    let checks = entrant.kind != Kind::Echo;
    let workload =
        speed.workload(entrant.kind.dialect(), checks).map_err(CompareError::Keyspace)?;
    let outcome = load::run(plan, &workload, bench.interrupt, |_| {})
        .map_err(|source| CompareError::Load { server: entrant.name.clone(), source })?;
    let Tally { wrong, samples, .. } = &outcome.tally;
    if *wrong > 0 {
        let (server, sample) = (entrant.name.clone(), samples.first().cloned().unwrap_or_default());
        return Err(RowError::WrongValues { server, count: *wrong, sample });
    }
    Ok(outcome)
}

/// What everybody did, those who could take no part included.
fn entrants(bench: &Bench<'_>, fielded: &[Fielded], rounds: &Rounds) -> Vec<Entrant> {
    let present = fielded.iter().zip(&rounds.slots).map(|(entrant, slots)| {
        let server = entrant.name.clone();
        if slots.is_empty() {
            return Entrant { server, ..Entrant::default() };
        }
        let mut all = Tally::new();
        slots.iter().for_each(|slot| all.merge(slot.tally.clone()));
        let middle = |of: fn(&Slot) -> f64| {
            Some(Spread::of(&slots.iter().map(of).collect::<Vec<_>>()).median)
        };
        let mut latency = all.get_latency.clone();
        // Both were built alike, so every value of one has a place in the other.
        let _ = latency.add(&all.set_latency);
        Entrant {
            server,
            keys_per_second: middle(|slot| slot.keys_per_second),
            core_share: middle(|slot| slot.core_share),
            hit_ratio: all.hit_ratio(),
            refused: all.refused,
            latency: percentiles(&latency),
            ..Entrant::default()
        }
    });
    let absent = bench
        .contestants()
        .filter(|it| fielded.iter().all(|entrant| entrant.name != it.name))
        .map(|it| Entrant {
            server: it.name.clone(),
            absent: Some("runs commands on one thread".to_owned()),
            ..Entrant::default()
        });
    present.chain(absent).collect()
}

/// What makes a server's figures doubtful: it answers with less than it was given to keep.
fn doubts(speed: &Speed, servers: &[Entrant]) -> Vec<String> {
    let mut doubts = Vec::new();
    for Entrant { server, hit_ratio, refused, .. } in servers {
        if let Some(ratio) = hit_ratio.filter(|&ratio| ratio < 1.0 && !speed.data.overflows()) {
            let percent = 100.0 * ratio;
            doubts.push(format!(
                "{server} had {percent:.2}% of the keys asked for, and was given all"
            ));
        }
        if *refused > 0 {
            doubts.push(format!("{server} refused {refused} requests"));
        }
    }
    doubts
}

fn percentiles(latency: &Histogram<u64>) -> Vec<Percentile> {
    let us = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
    let at = |quantile| Percentile { quantile, us: us(latency.value_at_quantile(quantile)) };
    if latency.is_empty() { Vec::new() } else { QUANTILES.map(at).to_vec() }
}

fn measure(
    name: &str,
    unit: &'static str,
    better: Better,
    fielded: &[Fielded],
    rounds: &Rounds,
    of: impl Fn(&Slot) -> f64,
) -> Measure {
    let values = fielded.iter().zip(&rounds.slots);
    let values =
        values.map(|(entrant, slots)| (entrant.name.clone(), slots.iter().map(&of).collect()));
    Measure::of(name, unit, better, ComparedBy::Ratio, values.collect())
}

/// System calls of a server for a request; `None` if nobody may count them.
fn syscalls_per_request(
    bench: &mut Bench<'_>,
    speed: &Speed,
    entrant: &Fielded,
) -> Result<Option<f64>, RowError> {
    let pid = entrant.server.pid();
    let tool = bench.tool.get_or_insert_with(|| Tool::for_process(pid));
    let Ok(tool) = *tool else { return Ok(None) };
    bench.begin(&format!("counting system calls of {}", entrant.name));
    let scale = if bench.plan.rules.scale == Scale::Full { 1 } else { 10 };
    // Enough for every connection to have asked many times; large values take their time.
    let few = if speed.data.value_bytes > 10_000 { 4_000 } else { 20_000 } / scale;
    let mut counts = [0; 2];
    for (count, requests) in counts.iter_mut().zip([few, 3 * few]) {
        let extent = Extent::Requests(requests);
        let plan = Plan { extent, warm_up: Duration::ZERO, ..bench.load_plan(entrant, speed) };
        let Ok(counting) = Counting::start(tool, pid) else { return Ok(None) };
        load(bench, speed, entrant, &plan)?;
        let Ok(counted) = counting.end() else { return Ok(None) };
        *count = counted;
    }
    let [few_calls, many_calls] = counts.map(|count| count as f64);
    Ok(Some((many_calls - few_calls) / (2 * few) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::rows::{self, Task};

    fn row(name: &str) -> Speed {
        let rows = rows::chosen(Scale::Full, &[name.to_owned()]).unwrap();
        let Task::Speed(speed) = rows[0].task else { panic!("{name} is a row of speed") };
        speed
    }

    #[test]
    fn a_server_that_lost_what_it_was_given_is_in_doubt_where_all_fits() {
        let entrant = |hit_ratio, refused| {
            let server = "theirs".to_owned();
            Entrant { server, hit_ratio: Some(hit_ratio), refused, ..Entrant::default() }
        };
        assert!(doubts(&row("mixed"), &[entrant(1.0, 0)]).is_empty());
        assert!(doubts(&row("mixed"), &[entrant(0.7, 0)])[0].contains("70.00%"));
        assert!(doubts(&row("evict"), &[entrant(0.7, 0)]).is_empty());
        assert!(doubts(&row("evict"), &[entrant(0.7, 3)])[0].contains("refused 3"));
    }
}
