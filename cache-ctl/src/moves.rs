//! `cache-ctl moves`, which shows copies under way, and `cache-ctl move`, which asks for some.

use std::io::{self, Write};

use indicatif::HumanBytes;

use crate::admin::model::{Agreed, MoveRequest, Moves};
use crate::admin::{Admin, AdminError, Said};
use crate::output;

/// Asks a node what is under way.
///
/// # Errors
///
/// When it does not answer.
pub fn ask(admin: &Admin) -> Result<Said<Moves>, AdminError> {
    admin.get("/cluster/moves")
}

/// Has `shard` be held by `targets`, the preferred primary first.
///
/// # Errors
///
/// When the cluster does not agree.
pub fn request(admin: &Admin, shard: u16, targets: &[u32]) -> Result<Said<Agreed>, AdminError> {
    admin.post("/cluster/move", &MoveRequest { shard, targets })
}

/// Writes what is under way for a person.
///
/// # Errors
///
/// When it cannot be written.
pub fn write(mut out: impl Write, moves: &Moves) -> io::Result<()> {
    if moves.running.is_empty() && moves.queued == 0 {
        return writeln!(out, "nothing is being moved");
    }
    let mut table = output::table(&["shard", "from", "to", "state", "items", "bytes"]);
    for it in &moves.running {
        table.add_row([
            it.shard.to_string(),
            it.from.to_string(),
            it.to.to_string(),
            it.state.replace('_', " "),
            it.items.to_string(),
            HumanBytes(it.bytes).to_string(),
        ]);
    }
    output::write_table(&mut out, &table)?;
    writeln!(out, "{} more wait for their turn", moves.queued)
}
