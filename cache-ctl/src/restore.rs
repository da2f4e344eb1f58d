//! `cache-ctl restore`: the items of a backup into a server, while it serves.

use std::io::{self, Read, Write};

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use protocol::backup::{CacheId, Item, Items, Restore, Restored, SLICE_BYTES_MAX};

use crate::backup_file::BackupReader;
use crate::connection::{Connection, RestoreAnswer};

/// Which items of a backup are restored, and over what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Only those whose keys begin with it.
    pub prefix: Vec<u8>,
    /// Leave what the server holds if it is newer; see [`Restore::keep_newer`].
    pub keep_newer: bool,
}

/// Puts the items of a backup into a server, as they are read; `bar` hears how many bytes of the
/// file that took.
///
/// # Errors
///
/// When the server fails or the file is damaged, with the number of items restored until then: what
/// was read before the damage was as it had been written, and stays restored.
pub fn restore(
    server: &mut Connection,
    input: impl Read,
    plan: &Plan,
    bar: &ProgressBar,
) -> anyhow::Result<Restored> {
    let mut file = BackupReader::open(bar.wrap_read(input))?;
    let keep_newer = plan.keep_newer.then(|| file.header().cache_id);
    let mut sender =
        Sender { server, keep_newer, waiting: Vec::new(), restored: Restored::default() };
    let outcome = send_all(&mut file, &plan.prefix, &mut sender);
    let restored = sender.restored;
    outcome.with_context(|| format!("stopped after {} items were restored", restored.stored))?;
    Ok(restored)
}

fn send_all<R: Read>(
    file: &mut BackupReader<R>,
    prefix: &[u8],
    sender: &mut Sender<'_>,
) -> anyhow::Result<()> {
    let outcome = loop {
        match file.next_block() {
            Ok(Some(items)) => {
                for item in items.filter(|item| item.head.key.as_bytes().starts_with(prefix)) {
                    sender.add(&item)?;
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // What is sound before the damage is restored, too.
    sender.flush()?;
    Ok(outcome?)
}

/// Items on their way, as many at once as a server takes.
struct Sender<'a> {
    server: &'a mut Connection,
    keep_newer: Option<CacheId>,
    waiting: Vec<u8>,
    restored: Restored,
}

impl Sender<'_> {
    fn add(&mut self, item: &Item<'_>) -> anyhow::Result<()> {
        if self.waiting.len() + item.encoded_bytes() > SLICE_BYTES_MAX {
            self.flush()?;
        }
        item.encode(&mut self.waiting);
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let items = Items::new(&self.waiting)?;
        let count = items.len() as u64;
        if count == 0 {
            return Ok(());
        }
        match self.server.restore(Restore { keep_newer: self.keep_newer, items })? {
            RestoreAnswer::Done(restored) => self.restored += restored,
            RestoreAnswer::TooLarge if count == 1 => self.restored.refused += 1,
            RestoreAnswer::TooLarge => bail!("the server refuses {count} items as one too large"),
        }
        self.waiting.clear();
        Ok(())
    }
}

/// One line on what was done.
///
/// # Errors
///
/// What standard error answers.
pub fn summarise(restored: Restored, bar: &ProgressBar) -> io::Result<()> {
    let Restored { stored, kept, expired, .. } = restored;
    let seconds = bar.elapsed().as_secs_f64();
    writeln!(
        io::stderr(),
        "{stored} items restored in {seconds:.1} s; {kept} kept as they were, {expired} expired"
    )
}
