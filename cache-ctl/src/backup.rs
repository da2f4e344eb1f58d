//! `cache-ctl backup`: the items of a server into a file, while it serves.

use std::io::{self, Write};

use anyhow::Context as _;
use indicatif::ProgressBar;
use protocol::backup::Cursor;
use protocol::backup::file::{FileHeader, Totals};

use crate::backup_file::BackupWriter;
use crate::connection::Connection;

/// Writes the items of a server, those whose keys begin with `prefix`, to `out`, slice by slice;
/// `bar` hears how many there are.
///
/// # Errors
///
/// When the server or `out` fails. What was written until then is no backup.
pub fn back_up<W: Write>(
    server: &mut Connection,
    prefix: &[u8],
    out: W,
    bar: &ProgressBar,
) -> anyhow::Result<(W, Totals)> {
    let facts = server.facts()?;
    if prefix.is_empty() {
        bar.set_length(facts.items);
    }
    let header = FileHeader {
        cache_id: facts.cache_id,
        taken_unix_ms: facts.unix_s.saturating_mul(1000),
        server_version: facts.version.as_bytes(),
        prefix,
    };
    let unwritable = "cannot write the backup";
    let mut file = BackupWriter::begin(&header, out).context(unwritable)?;
    let mut cursor = Cursor::default();
    while let Some((next, items)) = server.slice(cursor, prefix)? {
        if items.len() > 0 {
            file.add(&items).context(unwritable)?;
        }
        cursor = next;
        bar.set_position(file.totals().items);
    }
    file.end().context(unwritable)
}

/// One line on what was done.
///
/// # Errors
///
/// What standard error answers.
pub fn summarise(totals: Totals, bar: &ProgressBar) -> io::Result<()> {
    let Totals { items, bytes } = totals;
    let seconds = bar.elapsed().as_secs_f64();
    writeln!(io::stderr(), "{items} items, {bytes} bytes unpacked, backed up in {seconds:.1} s")
}
