//! Encodes and decodes the classic responses.

use crate::key::Key;

/// Appends the line of a `VALUE` block, its line end included. The data and its `\r\n` are the
/// caller's to append, so that a large value can be sent from where it lies.
pub fn encode_value_line(
    out: &mut Vec<u8>,
    key: Key<'_>,
    client_flags: u32,
    value_bytes: usize,
    cas: Option<u64>,
) {
    let _ = (out, key, client_flags, value_bytes, cas);
}
