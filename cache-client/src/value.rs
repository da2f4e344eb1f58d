//! `Value` and `Found`: what a get gives.

use bytes::Bytes;

/// A value as a get found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// The value.
    pub data: Bytes,
    /// What was stored with it; 0 for plain bytes. See [`Codec`](crate::Codec).
    pub flags: u32,
    /// Which write left it, for [`Client::cas`](crate::Client::cas); of [`Client::gets`](crate::Client::gets)
    /// and [`Client::lookup`](crate::Client::lookup) alone.
    pub cas: Option<u64>,
}

/// What a [lookup](crate::Client::lookup) found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The value. Empty where the lookup has created the item.
    pub value: Value,
    /// How many seconds are left of its life; `None` for no end.
    pub ttl_s: Option<u32>,
    /// This caller and no other is to compute the value anew, and to store it.
    pub won: bool,
    /// The value was invalidated and waits for one to replace it.
    pub is_stale: bool,
    /// Another caller was told to compute the value and has not stored it yet.
    pub win_sent: bool,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Written {
    /// It is done.
    Stored,
    /// There is an item (`add`), or there is none (`replace`, `append`, `prepend`).
    NotStored,
    /// `cas`: the item was written since.
    Exists,
    /// `cas`: there is no item.
    NotFound,
}

impl Written {
    /// Whether the value is there now.
    pub fn is_stored(self) -> bool {
        self == Self::Stored
    }
}

/// An item as it came, before a caller's form is given to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) data: Bytes,
    pub(crate) flags: u32,
    pub(crate) cas: Option<u64>,
    /// What the server said of the life that is left: `None` for nothing.
    pub(crate) ttl_s: Option<Option<u32>>,
    /// `W`, `X` and `Z`: see [`Found`].
    pub(crate) won: bool,
    pub(crate) is_stale: bool,
    pub(crate) win_sent: bool,
}

impl From<Stored> for Value {
    fn from(stored: Stored) -> Self {
        Self { data: stored.data, flags: stored.flags, cas: stored.cas }
    }
}

impl From<Stored> for Found {
    fn from(stored: Stored) -> Self {
        Self {
            ttl_s: stored.ttl_s.flatten(),
            won: stored.won,
            is_stale: stored.is_stale,
            win_sent: stored.win_sent,
            value: stored.into(),
        }
    }
}
