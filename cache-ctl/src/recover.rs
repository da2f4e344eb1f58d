//! `cache-ctl recover`: shards that cannot go on by themselves go on with what there is.

use std::io::{self, Write};

use crate::admin::model::{RecoverRequest, Recovered, Recovery};
use crate::admin::{Admin, AdminError, Said};
use crate::output;

/// Asks for it; without `accept_data_loss` only what would be done.
///
/// # Errors
///
/// When the cluster does not agree.
pub fn ask(admin: &Admin, accept_data_loss: bool) -> Result<Said<Recovery>, AdminError> {
    admin.post("/cluster/recover", &RecoverRequest { accept_data_loss })
}

/// Writes for a person what is done, or would be: a row for each run of shards that go on alike.
///
/// # Errors
///
/// When it cannot be written.
pub fn write(mut out: impl Write, recovery: &Recovery) -> io::Result<()> {
    if recovery.shards.is_empty() {
        return writeln!(out, "every shard goes on by itself, or has nobody to go on with");
    }
    let mut table = output::table(&["shards", "goes on at", "with"]);
    let follows = |a: &Recovered, b: &Recovered| {
        (a.node, &a.copy) == (b.node, &b.copy) && a.shard + 1 == b.shard
    };
    for run in recovery.shards.chunk_by(follows) {
        let (first, last) = (run[0].shard, run[run.len() - 1].shard);
        let shards = if first == last { first.to_string() } else { format!("{first}-{last}") };
        let with = match run[0].copy.as_str() {
            "in_sync" => "its copy, which may lack the last writes",
            "restarted" => "what its memory file brought back",
            "none" => "nothing: their items are lost",
            other => other,
        };
        table.add_row([shards, format!("node {}", run[0].node), with.to_owned()]);
    }
    output::write_table(&mut out, &table)?;
    if recovery.is_done {
        writeln!(out, "\ndone: other copies of these shards count for nothing any more")
    } else {
        writeln!(
            out,
            "\nnothing is changed yet. Bring back every node that can be brought back first; what only the \
             others hold\nis lost for good with --accept-data-loss"
        )
    }
}
