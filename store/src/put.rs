//! `Precondition` and `PutOutcome`: set, add, replace and cas are one write path.

use crate::time::Deadline;

/// What must hold of the key for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing: `set`.
    None,
    /// No item is there: `add`.
    Absent,
    /// An item is there: `replace`.
    Present,
    /// An item is there and has this cas: `cas`.
    Cas(u64),
    /// As [`Self::Cas`], but an item whose cas is greater is replaced as well, by a value that is
    /// marked stale and keeps the old deadline: `ms` with the invalidate flag.
    CasOrStale(u64),
}

/// A value on its way in.
#[derive(Clone, Copy, Debug)]
pub struct NewItem<'a> {
    /// Opaque to the server, given back with the value.
    pub client_flags: u32,
    /// When the item expires.
    pub deadline: Deadline,
    /// The value, in as many pieces as the caller has it in.
    pub value: &'a [&'a [u8]],
    /// A cas that the client chose; `None` lets the shard count on.
    pub own_cas: Option<u64>,
}

impl NewItem<'_> {
    /// Length of the value in bytes.
    pub fn value_bytes(&self) -> usize {
        self.value.iter().map(|piece| piece.len()).sum()
    }
}

/// How a write ended. Each outcome is a line of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The value is in the cache, with this cas.
    Stored {
        /// The item's cas now.
        cas: u64,
    },
    /// The precondition did not hold.
    NotStored,
    /// The item's cas is another one.
    Exists,
    /// There is no item to compare with.
    NotFound,
    /// The item is larger than any item may be. If nothing had to hold for the write, what was there
    /// under the key is gone, so that a client whose write failed does not read the value before it.
    TooLarge,
    /// No room could be made. What was there under the key is gone likewise.
    OutOfMemory,
}
