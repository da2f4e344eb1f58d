//! Tickets: how an answer that is not ready yet is named, and what is decided about it.
//!
//! ```text
//! out:  | VALUE a ... | hold 7: STORED | hold 8, empty | END |
//!         may leave     waits           waits           waits behind them
//! ```
//!
//! A request whose answer depends on something that has not happened yet is answered all the same,
//! with one or more [`Hold`]s: ranges of the output that stay until their ticket is resolved. What
//! lies behind a hold waits with it, so answers leave in the order of their requests.

use bytes::Bytes;

/// Who waits for answers: a client's connection, or a response of its own.
///
/// A slot of the worker's [`WaitingRoom`](crate::net::waiting_room::WaitingRoom) and the
/// generation of its use: one that is gone is never mistaken for its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HolderId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// Names one answer that is not ready yet. Unique among the tickets of its worker; a later one is
/// greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    // First, so that tickets compare by it.
    pub(crate) number: u64,
    pub(crate) holder: HolderId,
}

impl Ticket {
    /// What tells it from the worker's other tickets: ascending, never used again.
    pub fn number(self) -> u64 {
        self.number
    }

    /// Who waits.
    pub fn holder(self) -> HolderId {
        self.holder
    }
}

/// A range of the output that stays until `ticket` is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Decides.
    pub ticket: Ticket,
    /// Where in `out` the range begins.
    pub from: usize,
    /// Where in `out` it ends: at `from` when the answer is to come from elsewhere.
    pub to: usize,
}

/// What becomes of a range that was held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It leaves as it is.
    Keep,
    /// This leaves in its place.
    Replace(Bytes),
}
