//! `cache-ctl status`: how the cluster is, as one node sees it.

use std::io::{self, Write};

use crate::admin::model::{Reads, Status};
use crate::admin::{Admin, AdminError, Said};
use crate::output;

/// Asks a node how the cluster is.
///
/// # Errors
///
/// When it does not answer.
pub fn ask(admin: &Admin) -> Result<Said<Status>, AdminError> {
    admin.get("/cluster/status")
}

/// Writes it for a person.
///
/// # Errors
///
/// When it cannot be written.
pub fn write(mut out: impl Write, status: &Status) -> io::Result<()> {
    let Status { cluster, node, revision, pool, raft, nodes, shards, healthy } = status;
    let (name, copies) = (&pool.name, pool.copies);
    let reads = match pool.reads {
        Reads::Lease => "",
        Reads::Confirm => ", reads are confirmed",
        Reads::Any => ", any copy answers reads",
    };
    writeln!(out, "cluster {cluster}, {name} with {copies} copies{reads}, as node {node} sees it")?;
    let leader = match (raft.leader, raft.leaderless_ms) {
        (Some(leader), _) => format!("node {leader} leads"),
        (None, Some(ms)) => format!("nobody has led with a majority for {}", output::seconds(ms)),
        (None, None) => "nobody leads".to_owned(),
    };
    let voters = output::ids(raft.voters.iter().copied());
    writeln!(
        out,
        "control plane: {leader}, term {}, voters {voters}; map revision {revision}",
        raft.term
    )?;
    writeln!(
        out,
        "shards: {} of {} serve, {} lack a copy, {} have no primary",
        shards.serving, shards.total, shards.under_replicated, shards.without_primary
    )?;
    let amiss = if *healthy { "all is well" } else { "something is amiss" };
    writeln!(out, "{amiss}\n")?;
    let mut table = output::table(&[
        "node",
        "state",
        "role",
        "primaries",
        "copies",
        "zone",
        "weight",
        "clients",
        "admin",
        "peers",
        "version",
    ]);
    for node in nodes {
        let state = match (node.up, node.silent_ms) {
            (true, _) => node.standing.clone(),
            (false, Some(ms)) => format!("{}, silent for {}", node.standing, output::seconds(ms)),
            (false, None) => format!("{}, down", node.standing),
        };
        table.add_row([
            node.id.to_string(),
            state,
            node.role.clone(),
            node.shards_primary.to_string(),
            node.shards_copies.to_string(),
            output::or_dash(&node.zone).to_owned(),
            node.weight.to_string(),
            node.addresses.client.clone(),
            node.addresses.admin.clone(),
            node.addresses.peer.clone(),
            output::or_dash(&node.version).to_owned(),
        ]);
    }
    output::write_table(out, &table)
}
