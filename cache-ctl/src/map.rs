//! `cache-ctl map`: who holds which shard.

use std::io::{self, Write};

use crate::admin::model::{Map, MapShard};
use crate::admin::{Admin, AdminError, Said};
use crate::output;

/// Asks a node for its map.
///
/// # Errors
///
/// When it does not answer.
pub fn ask(admin: &Admin) -> Result<Said<Map>, AdminError> {
    admin.get("/cluster/map")
}

/// Writes it for a person: a row for each run of shards that are held alike.
///
/// # Errors
///
/// When it cannot be written.
pub fn write(out: impl Write, map: &Map) -> io::Result<()> {
    let mut table = output::table(&["shards", "epoch", "primary", "in sync", "wanted"]);
    let alike = |a: &MapShard, b: &MapShard| {
        (a.epoch, a.primary, &a.in_sync, &a.targets) == (b.epoch, b.primary, &b.in_sync, &b.targets)
    };
    for run in map.shards.chunk_by(alike) {
        let [first, .., last] = run else {
            table.add_row(row(&run[0], run[0].shard.to_string()));
            continue;
        };
        table.add_row(row(first, format!("{}-{}", first.shard, last.shard)));
    }
    output::write_table(out, &table)
}

fn row(shard: &MapShard, shards: String) -> [String; 5] {
    [
        shards,
        shard.epoch.to_string(),
        output::ids(shard.primary),
        output::ids(shard.in_sync.iter().map(|member| member.node)),
        output::ids(shard.targets.iter().copied()),
    ]
}
