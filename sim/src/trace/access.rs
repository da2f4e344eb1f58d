//! `Access`: one record of a request log, whatever the log, in 24 bytes.
//!
//! A log of gets fills `time_s`, `id` and `size_bytes` and leaves the rest at its default; one of a
//! key-value store fills all. What each [`Op`] does to a cache stands in [`crate::replay`].

use std::fmt;

/// The longest key that is made up for an object, in bytes: memcached's limit.
pub const KEY_BYTES_MAX: usize = 250;

/// What keys are written in where an id's decimal digits are too long: 64 characters.
const ALPHABET: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";

/// What a client asked for: memcached's commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// Reads.
    #[default]
    Get,
    /// Reads, and gives what is found another expiry: `gat`.
    GetAndTouch,
    /// Writes.
    Set,
    /// Writes if nothing is there.
    Add,
    /// Writes if something is there.
    Replace,
    /// Writes if what is there is what the client read before; a log does not tell, so as
    /// [`Op::Replace`].
    Cas,
    /// Lengthens what is there, at its end.
    Append,
    /// Lengthens what is there, at its beginning.
    Prepend,
    /// Removes what is there.
    Delete,
    /// Gives what is there another expiry.
    Touch,
    /// Counts what is there up.
    Incr,
    /// Counts what is there down.
    Decr,
}

impl Op {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 12] = [
        Self::Get,
        Self::GetAndTouch,
        Self::Set,
        Self::Add,
        Self::Replace,
        Self::Cas,
        Self::Append,
        Self::Prepend,
        Self::Delete,
        Self::Touch,
        Self::Incr,
        Self::Decr,
    ];

    /// Whether it asks for a value: these are what hit ratios are of.
    #[inline]
    pub fn is_read(self) -> bool {
        matches!(self, Self::Get | Self::GetAndTouch)
    }

    /// Whether it brings a whole value along.
    #[inline]
    pub fn is_write(self) -> bool {
        matches!(self, Self::Set | Self::Add | Self::Replace | Self::Cas)
    }

    /// memcached's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetAndTouch => "gat",
            Self::Set => "set",
            Self::Add => "add",
            Self::Replace => "replace",
            Self::Cas => "cas",
            Self::Append => "append",
            Self::Prepend => "prepend",
            Self::Delete => "delete",
            Self::Touch => "touch",
            Self::Incr => "incr",
            Self::Decr => "decr",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One request of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Which object. A log whose ids are text has them hashed, unless they are plain numbers.
    pub id: u64,
    /// When, in whole seconds; the log says since when. 0 where it has no times.
    pub time_s: u32,
    /// The value's size in bytes as of this request; 1 where the log has no sizes, 0 where it has
    /// none for this request: a get that was a miss, say.
    pub size_bytes: u32,
    /// How long what is written (or, of a get, what would be after a miss) may be served, in
    /// seconds; 0 is for ever, or not known.
    pub ttl_s: u32,
    /// Length of the key in bytes; 0 where the log does not tell.
    pub key_bytes: u16,
    /// What was asked for.
    pub op: Op,
}

impl Access {
    /// A get, as logs have it that know no more.
    #[inline]
    pub fn get(time_s: u32, id: u64, size_bytes: u32) -> Self {
        Self { id, time_s, size_bytes, ttl_s: 0, key_bytes: 0, op: Op::Get }
    }

    /// A key for the object, of the length that the log tells: the id in decimal digits, with zeros
    /// before them; where the digits are too long, the id's last digits in base 64; where the log
    /// tells no length, the decimal digits alone.
    ///
    /// The server that is predicted and the server that is measured are asked for the same keys.
    pub fn key<'a>(&self, buffer: &'a mut [u8; KEY_BYTES_MAX]) -> &'a [u8] {
        let wanted = usize::from(self.key_bytes).min(KEY_BYTES_MAX);
        let decimal = digits(self.id, b"0123456789", buffer);
        if wanted == 0 || wanted == decimal {
            return &buffer[KEY_BYTES_MAX - decimal..];
        }
        let first = KEY_BYTES_MAX - wanted;
        if wanted > decimal {
            buffer[first..KEY_BYTES_MAX - decimal].fill(b'0');
        } else {
            let written = digits(self.id, ALPHABET, buffer);
            buffer[first..KEY_BYTES_MAX - written.min(wanted)].fill(b'0');
        }
        &buffer[first..]
    }
}

/// Calls `take` with the decimal digits of `number`. Every request of most logs comes this way: it is
/// worth writing two digits at a time.
#[inline]
pub(crate) fn with_decimal<T>(number: u64, take: impl FnOnce(&[u8]) -> T) -> T {
    take(itoa::Buffer::new().format(number).as_bytes())
}

/// Writes `number` in the digits of `alphabet` to the end of `buffer` and returns how many they are.
#[inline]
fn digits<const BASE: usize, const LEN: usize>(
    mut number: u64,
    alphabet: &[u8; BASE],
    buffer: &mut [u8; LEN],
) -> usize {
    let mut first = LEN;
    loop {
        first -= 1;
        let digit = usize::try_from(number % BASE as u64).unwrap_or_default();
        buffer[first] = alphabet[digit];
        number /= BASE as u64;
        if number == 0 {
            return LEN - first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u64, key_bytes: u16) -> String {
        let access = Access { key_bytes, ..Access::get(0, id, 1) };
        String::from_utf8(access.key(&mut [0; KEY_BYTES_MAX]).to_vec()).unwrap()
    }

    #[test]
    fn an_access_is_24_bytes() {
        assert_eq!(size_of::<Access>(), 24);
    }

    #[test]
    fn key_of_unknown_length_is_the_id_in_decimal_digits() {
        assert_eq!(key(0, 0), "0");
        assert_eq!(key(42, 0), "42");
        assert_eq!(key(u64::MAX, 0), "18446744073709551615");
    }

    #[test]
    fn key_has_the_length_that_the_log_tells() {
        assert_eq!(key(42, 2), "42");
        assert_eq!(key(42, 5), "00042");
        assert_eq!(key(u64::MAX, 22), "0018446744073709551615");
        assert_eq!(key(u64::MAX, 13), "00f__________");
        assert_eq!(key(u64::MAX - 1, 3), "__-");
        assert_eq!(key(7, 300).len(), KEY_BYTES_MAX);
    }

    #[test]
    fn ops_are_listed_once_each() {
        for (index, op) in Op::ALL.into_iter().enumerate() {
            assert_eq!(op as usize, index);
        }
    }
}
