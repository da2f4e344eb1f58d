//! `cache-ctl locate`: where a key is.

use std::io::{self, Write};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::admin::model::Locate;
use crate::admin::{Admin, AdminError, Said};
use crate::output;

/// Asks a node where `key` is.
///
/// # Errors
///
/// When it does not answer.
pub fn ask(admin: &Admin, key: &str) -> Result<Said<Locate>, AdminError> {
    admin.get(&format!("/cluster/locate?key={}", utf8_percent_encode(key, NON_ALPHANUMERIC)))
}

/// Writes it for a person.
///
/// # Errors
///
/// When it cannot be written.
pub fn write(out: impl Write, located: &Locate) -> io::Result<()> {
    let mut table =
        output::table(&["key", "shard", "epoch", "primary", "clients", "in sync", "wanted"]);
    table.add_row([
        located.key.clone(),
        located.shard.to_string(),
        located.epoch.to_string(),
        output::ids(located.primary),
        output::or_dash(located.client_address.as_deref().unwrap_or("")).to_owned(),
        output::ids(located.in_sync.iter().copied()),
        output::ids(located.targets.iter().copied()),
    ]);
    output::write_table(out, &table)
}
