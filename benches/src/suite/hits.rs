//! Hit ratios at equal memory: logs replayed to servers with their default policies.

use super::contestant::Contestant;
use super::figures::{Better, ComparedBy, Entrant, Measure};
use super::traces::Source;
use super::{Bench, Found, RowError};
use crate::replay::{Expiry, Replayed, replay};
use crate::server_process::Kind;

/// Every log at every share of what its objects take together.
pub(super) fn row(bench: &mut Bench<'_>) -> Result<Found, RowError> {
    bench.field = None;
    let rules = &bench.plan.rules;
    let (takes_part, absent): (Vec<_>, Vec<_>) =
        bench.contestants().partition(|it| it.kind == Kind::Memcached);
    let mut found = Found::default();
    // By server: the hits of each log at each size, in percent.
    let mut hits: Vec<(String, Vec<f64>)> =
        takes_part.iter().map(|it| (it.name.clone(), Vec::new())).collect();
    let sources = Source::all(&rules.traces, rules.scale)?;
    let replays = (rules.memory_shares.len() * takes_part.len()) as u64;
    bench.observer.expect(sources.len() as u64 * replays);
    for source in &sources {
        bench.begin(&format!("reading {}", source.name));
        let demand = source.demand()?;
        if !demand.has_sizes {
            (0..replays).for_each(|_| bench.observer.done());
            found.notes.push(format!("{} is left out: it does not tell sizes", source.name));
            continue;
        }
        for &share in &rules.memory_shares {
            let memory_mib = mebibytes(demand.bytes as f64 * share);
            for (contestant, (_, hits)) in takes_part.iter().zip(&mut hits) {
                hits.push(play(bench, source, contestant, memory_mib)?.hit_percent());
                bench.observer.done();
            }
            let (log, percent) = (&source.name, share * 100.0);
            let name = format!("hits of {log}, {percent:.0}% of its bytes: -m {memory_mib}");
            found
                .measures
                .push(measure(name, &hits, |hits| hits.last().copied().into_iter().collect()));
        }
    }
    // A round is a log: the ends of the spread are the worst of them and the best.
    found.measures.push(measure("hits, log by log", &hits, <[f64]>::to_vec));
    let mean = |hits: &[f64]| vec![hits.iter().sum::<f64>() / hits.len().max(1) as f64];
    found.measures.push(measure("hits on average", &hits, mean));
    let present = takes_part.iter().map(|it| (it, None));
    let absent = absent.iter().map(|it| (it, Some("logs are replayed in memcached's protocol")));
    let entrant = |(contestant, absent): (&&Contestant, Option<&str>)| Entrant {
        server: contestant.name.clone(),
        absent: absent.map(str::to_owned),
        ..Entrant::default()
    };
    found.servers = present.chain(absent).map(entrant).collect();
    Ok(found)
}

fn measure(
    name: impl Into<String>,
    hits: &[(String, Vec<f64>)],
    of: impl Fn(&[f64]) -> Vec<f64>,
) -> Measure {
    let values = hits.iter().map(|(server, hits)| (server.clone(), of(hits))).collect();
    Measure::of(name, "%", Better::Higher, ComparedBy::Difference, values)
}

/// Bytes in whole mebibytes, as `-m` has them, and never so few that a server cannot start.
fn mebibytes(bytes: f64) -> u64 {
    const MIB_MIN: u64 = 8;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a sum of sizes, above 0"
    )]
    let mib = (bytes / f64::from(1 << 20)).round() as u64;
    mib.max(MIB_MIN)
}

/// Replays a log to a server that was just started with so much memory.
fn play(
    bench: &mut Bench<'_>,
    source: &Source,
    contestant: &Contestant,
    memory_mib: u64,
) -> Result<Replayed, RowError> {
    let [server_cores, _] = bench.cores(1);
    let launch = contestant.launch(memory_mib, server_cores, &[]);
    let entrant = bench.start(contestant, &launch)?;
    let (log, server) = (source.name.as_str(), contestant.name.as_str());
    bench.begin(&format!("replaying {log} to {server} at -m {memory_mib}"));
    let address = entrant.server.address();
    let replayed = replay(source.requests()?, address, 1, Expiry::Log, bench.interrupt, |_| {})
        .map_err(|error| RowError::from((error, log, server)))?;
    if replayed.wrong > 0 {
        let sample = replayed.samples.first().cloned().unwrap_or_default();
        let server = server.to_owned();
        return Err(RowError::WrongValues { server, count: replayed.wrong, sample });
    }
    Ok(replayed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_whole_mebibytes_and_never_too_little_to_start() {
        assert_eq!(mebibytes(25.4 * 1024.0 * 1024.0), 25);
        assert_eq!(mebibytes(1000.0), 8);
    }
}
