//! `Key`: 1 to 250 bytes that name an item.
//!
//! In the text commands a key is one token of the line, so it can hold neither a space nor a line
//! end; nothing else is refused. The protocol document asks clients to leave control characters
//! out, but memcached stores and finds such keys, and so do we. A meta command may send its key in
//! base64 (flag `b`); the decoded key may hold any byte.

use std::fmt;

/// The longest key, in bytes (memcached's `KEY_MAX_LENGTH`).
pub const KEY_BYTES_MAX: usize = 250;

/// The name of an item: 1 to [`KEY_BYTES_MAX`] bytes, borrowed from the input.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key<'a>(&'a [u8]);

impl<'a> Key<'a> {
    /// `bytes` as a key, or `None` when they are empty or too many.
    ///
    /// Any byte is taken, as in a key that was sent in base64; see [`Key::is_token`] for what a
    /// plain line can carry.
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > KEY_BYTES_MAX { None } else { Some(Self(bytes)) }
    }

    /// The bytes of the key.
    #[inline]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether the key can stand in a command line as it is. One with a space, a line end or a NUL
    /// cannot: it travels in base64, in a meta command.
    pub fn is_token(self) -> bool {
        !self.0.iter().any(|byte| matches!(byte, b' ' | b'\r' | b'\n' | b'\0'))
    }
}

impl AsRef<[u8]> for Key<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.escape_ascii())
    }
}
