//! Resident memory per item of servers that were given more than they hold.

use std::ffi::OsString;

use super::contestant::Contestant;
use super::figures::{Better, ComparedBy, Entrant, Measure};
use super::rows::Fill;
use super::{Bench, Fielded, Found, RowError};
use crate::compare::{CompareError, Memory, fill_beyond};
use crate::server_process::Kind;

/// Fills a server after the other, ours with the row's policy and, if there is one, with the policy it
/// is compared with.
pub(super) fn row(bench: &mut Bench<'_>, row: &Fill) -> Result<Found, RowError> {
    // Nobody else's memory stands in the way.
    bench.field = None;
    let ours = &bench.plan.ours;
    let mut filled = vec![(ours.name.clone(), fill(bench, ours, row, Some(row.policy))?)];
    if let Some(policy) = row.baseline {
        filled
            .push((format!("{} with {policy}", ours.name), fill(bench, ours, row, Some(policy))?));
    }
    for other in &bench.plan.others {
        filled.push((other.name.clone(), fill(bench, other, row, None)?));
    }
    let bytes_per_item = filled
        .iter()
        .map(|(name, memory)| (name.clone(), vec![memory.bytes_per_item()]))
        .collect::<Vec<_>>();
    let measure = |compared_by| {
        let name = "resident bytes per item";
        Measure::of(name, "B", Better::Lower, compared_by, bytes_per_item.clone())
    };
    let mut measures = vec![measure(ComparedBy::Ratio)];
    if row.baseline.is_some() {
        measures.push(measure(ComparedBy::Difference));
    }
    let entrant = |(server, memory): (String, Memory)| Entrant {
        server,
        items: Some(memory.items),
        resident_bytes: Some(memory.resident_bytes),
        ..Entrant::default()
    };
    let servers = filled.into_iter().map(entrant).collect();
    Ok(Found { servers, measures, ..Found::default() })
}

fn fill(
    bench: &mut Bench<'_>,
    contestant: &Contestant,
    row: &Fill,
    policy: Option<&str>,
) -> Result<Memory, RowError> {
    let [server_cores, load_cores] = bench.cores(1);
    let mut launch = contestant.launch(row.memory_mib, server_cores, &[]);
    // After the command line's own: this row says which policy it is of.
    launch.extra.extend(policy.map(|policy| OsString::from(format!("--eviction={policy}"))));
    let Fielded { name, server, kind } = bench.start(contestant, &launch)?;
    debug_assert_ne!(kind, Kind::Echo, "an echo server keeps nothing");
    bench.begin(&format!("filling {name} beyond -m {}", row.memory_mib));
    let memory = fill_beyond(&server, &launch, row.value_bytes, &load_cores, bench.interrupt)?;
    bench.observer.done();
    if memory.items == 0 {
        return Err(CompareError::Empty { server: name }.into());
    }
    Ok(memory)
}
