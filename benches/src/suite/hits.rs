//! Hit ratios at equal memory: logs replayed to servers with their default policies.

use super::figures::{Better, ComparedBy, Entrant, Measure};
use super::traces::Source;
use super::{Bench, Fielded, Found, RowError};
use crate::replay::{Expiry, Replayed, replay};
use crate::server_process::Kind;

/// Every log at every share of what its objects take together.
pub(super) fn row(bench: &mut Bench<'_>) -> Result<Found, RowError> {
    bench.field = None;
    let rules = &bench.plan.rules;
    let (takes_part, absent): (Vec<_>, Vec<_>) =
        bench.contestants().partition(|it| it.kind == Kind::Memcached);
    let mut found = Found::default();
    let mut of_all: Vec<(String, Vec<f64>)> =
        takes_part.iter().map(|it| (it.name.clone(), Vec::new())).collect();
    let sources = Source::all(&rules.traces, rules.scale)?;
    let steps = sources.len() * rules.memory_shares.len() * takes_part.len();
    bench.observer.expect(steps as u64);
    for source in &sources {
        bench.begin(&format!("reading {}", source.name));
        let demand = source.demand()?;
        if !demand.has_sizes {
            (0..rules.memory_shares.len() * takes_part.len()).for_each(|_| bench.observer.done());
            found.notes.push(format!("{} is left out: it does not tell sizes", source.name));
            continue;
        }
        for &share in &rules.memory_shares {
            let memory_mib = mebibytes(demand.bytes as f64 * share);
            for (contestant, (_, percents)) in takes_part.iter().zip(&mut of_all) {
                let [server_cores, _] = bench.cores(1);
                let launch = contestant.launch(memory_mib, server_cores, &[]);
                let entrant = bench.start(contestant, &launch)?;
                let replayed = play(bench, source, &entrant)?;
                percents.push(replayed.hit_percent());
                bench.observer.done();
            }
            let last = |(name, percents): &(String, Vec<f64>)| {
                (name.clone(), percents.last().copied().into_iter().collect())
            };
            let name = format!(
                "hits of {}, {:.0}% of its bytes: -m {memory_mib}",
                source.name,
                share * 100.0
            );
            found.measures.push(percent(name, of_all.iter().map(last).collect()));
        }
    }
    // A round is a log: the ends of the spread are the worst of them and the best.
    found.measures.push(percent("hits, log by log".to_owned(), of_all.clone()));
    let mean = |(name, percents): &(String, Vec<f64>)| {
        (name.clone(), vec![percents.iter().sum::<f64>() / percents.len().max(1) as f64])
    };
    found.measures.push(percent("hits on average".to_owned(), of_all.iter().map(mean).collect()));
    found.servers = takes_part
        .iter()
        .map(|it| Entrant { server: it.name.clone(), ..Entrant::default() })
        .chain(absent.iter().map(|it| Entrant {
            server: it.name.clone(),
            absent: Some("logs are replayed in memcached's protocol".to_owned()),
            ..Entrant::default()
        }))
        .collect();
    Ok(found)
}

fn percent(name: String, values: Vec<(String, Vec<f64>)>) -> Measure {
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

fn play(bench: &mut Bench<'_>, source: &Source, entrant: &Fielded) -> Result<Replayed, RowError> {
    let (log, server) = (source.name.as_str(), entrant.name.as_str());
    let doing = format!("replaying {log} to {server}");
    bench.begin(&doing);
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
