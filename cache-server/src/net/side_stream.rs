//! What a connection becomes whose client only listens from now on.

use std::task::{Context, Poll};

/// Bytes that somebody else has for a client, line after line, for as long as it listens. Dropped when it
/// does not any more.
pub trait SideStream: Send + Sync {
    /// Appends what there is to `into`, a bounded amount. With nothing there, waits until there is.
    fn poll_take(&self, context: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<()>;

    /// The client, which is to listen, has said something: called before more is taken.
    fn hear(&self, _bytes: &[u8]) {}
}
