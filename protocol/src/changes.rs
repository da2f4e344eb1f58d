//! `watch changes`: which keys have changed, as a stream of lines. An extension of this project.
//!
//! ```text
//! client   watch changes [PREFIX ...]\r\n     the beginnings of the keys that matter; all where there is none
//! server   OK\r\n                             whatever changes from here on is told
//!          key=user%3A17                      was written, deleted or given an earlier end
//!          all                                any item may have changed: a flush
//!          skipped=12                         so many lines were left out: the same
//! client   \n                                 a ping
//! server   alive=1                            so many pings were heard; all that changed before the last of
//!                                             them was told before this line
//! ```
//!
//! Keys and prefixes are encoded as in the other lines of `watch`. Lines of the stream end in a bare newline, as
//! those do. The line of a change leaves the shard before any reader can see the change.

use crate::KEY_BYTES_MAX;
use crate::token::{Tokens, push_number};

/// The word behind `watch`.
pub const CHANGES: &[u8] = b"changes";

/// Prefixes that may be named.
pub const PREFIXES_MAX: usize = 64;

/// What a client says to have the stream prove that it is up to date.
pub const PING: u8 = b'\n';

/// The longest line of the stream, its end left out.
pub const LINE_BYTES_MAX: usize = KEY.len() + 3 * KEY_BYTES_MAX;

const KEY: &[u8] = b"key=";
const SKIPPED: &[u8] = b"skipped=";
const ALIVE: &[u8] = b"alive=";
const ALL: &[u8] = b"all";

/// A line of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeLine<'a> {
    /// The item of this key has changed.
    Key(&'a [u8]),
    /// Any item may have.
    All,
    /// So many lines were left out.
    Skipped(u64),
    /// So many pings were heard.
    Alive(u64),
}

/// Room for a key that is decoded.
pub type KeyRoom = [u8; KEY_BYTES_MAX];

impl<'a> ChangeLine<'a> {
    /// Appends the line, its end included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Key(key) => {
                out.extend_from_slice(KEY);
                push_encoded(out, key);
            }
            Self::All => out.extend_from_slice(ALL),
            Self::Skipped(lines) => {
                out.extend_from_slice(SKIPPED);
                push_number(out, lines);
            }
            Self::Alive(pings) => {
                out.extend_from_slice(ALIVE);
                push_number(out, pings);
            }
        }
        out.push(b'\n');
    }

    /// Reads a line that is without its end; `None` where it is none of the stream's.
    pub fn decode(line: &[u8], room: &'a mut KeyRoom) -> Option<Self> {
        if let Some(encoded) = line.strip_prefix(KEY) {
            return decode(encoded, room).map(Self::Key);
        }
        if let Some(lines) = line.strip_prefix(SKIPPED) {
            return number(lines).map(Self::Skipped);
        }
        if let Some(pings) = line.strip_prefix(ALIVE) {
            return number(pings).map(Self::Alive);
        }
        (line == ALL).then_some(Self::All)
    }
}

/// Appends the request of a stream of all keys that begin with one of `prefixes`; of all keys, if there is none.
pub fn encode_request<'p>(prefixes: impl IntoIterator<Item = &'p [u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"watch ");
    out.extend_from_slice(CHANGES);
    for prefix in prefixes {
        out.push(b' ');
        push_encoded(out, prefix);
    }
    out.extend_from_slice(b"\r\n");
}

/// The prefixes that a request names behind [`CHANGES`]; `None` where one cannot be the beginning of a key, or there
/// are too many.
pub fn decode_prefixes(words: Tokens<'_>) -> Option<Vec<Box<[u8]>>> {
    let mut room = [0; KEY_BYTES_MAX];
    let prefixes: Option<Vec<Box<[u8]>>> =
        words.take(PREFIXES_MAX + 1).map(|word| decode(word, &mut room).map(Box::from)).collect();
    prefixes.filter(|prefixes| prefixes.len() <= PREFIXES_MAX)
}

/// Appends `key` as memcached does in its lines, every byte that is not a letter, a digit or one of `-._~` as `%XX`.
pub fn push_encoded(out: &mut Vec<u8>, key: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in key {
        if is_plain(byte) {
            out.push(byte);
        } else {
            out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// A key, or the beginning of one, as [`push_encoded`] writes it.
fn decode<'r>(encoded: &[u8], room: &'r mut KeyRoom) -> Option<&'r [u8]> {
    let (mut rest, mut len) = (encoded, 0);
    while let [first, after @ ..] = rest {
        let byte;
        (byte, rest) = match (first, after) {
            (b'%', [high, low, after @ ..]) => (digit(*high)? << 4 | digit(*low)?, after),
            (&plain, after) if is_plain(plain) => (plain, after),
            _ => return None,
        };
        *room.get_mut(len)? = byte;
        len += 1;
    }
    if len == 0 { None } else { room.get(..len) }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// A number of digits alone.
fn number(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn decoded(line: &[u8]) -> Option<String> {
        ChangeLine::decode(line, &mut [0; KEY_BYTES_MAX]).map(|line| format!("{line:?}"))
    }

    #[test]
    fn lines_read_as_the_header_says() {
        let mut out = Vec::new();
        let lines = [
            ChangeLine::Key(b"user:17 \xff"),
            ChangeLine::All,
            ChangeLine::Skipped(12),
            ChangeLine::Alive(1),
        ];
        lines.iter().for_each(|line| line.encode(&mut out));
        assert_eq!(out, b"key=user%3A17%20%FF\nall\nskipped=12\nalive=1\n");
    }

    #[test]
    fn what_is_no_line_of_the_stream_is_refused() {
        let long = [b"key=".as_slice(), &[b'a'; KEY_BYTES_MAX + 1]].concat();
        let lines: [&[u8]; 12] = [
            b"",
            b"key=",
            b"key=%",
            b"key=%4",
            b"key=%4x",
            b"key=a b",
            b"all ",
            b"ALL",
            b"alive=",
            b"alive=-1",
            b"skipped=18446744073709551616",
            &long,
        ];
        for line in lines {
            assert_eq!(decoded(line), None, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn prefixes_are_those_that_a_key_can_begin_with() {
        let prefixes = |words: &[u8]| decode_prefixes(Tokens::new(words)).map(|all| all.len());
        assert_eq!(prefixes(b""), Some(0));
        assert_eq!(prefixes(b"a%3A b"), Some(2));
        assert_eq!(prefixes(b"a%3"), None);
        assert_eq!(prefixes(&b"a ".repeat(PREFIXES_MAX)), Some(PREFIXES_MAX));
        assert_eq!(prefixes(&b"a ".repeat(PREFIXES_MAX + 1)), None);
    }

    proptest! {
        #[test]
        fn a_line_survives_the_way(
            key in vec(any::<u8>(), 1..=KEY_BYTES_MAX),
            number in any::<u64>(),
            kind in 0..4,
        ) {
            let line = match kind {
                0 => ChangeLine::Key(&key),
                1 => ChangeLine::All,
                2 => ChangeLine::Skipped(number),
                _ => ChangeLine::Alive(number),
            };
            let mut out = Vec::new();
            line.encode(&mut out);
            prop_assert_eq!(out.pop(), Some(b'\n'));
            prop_assert!(out.len() <= LINE_BYTES_MAX && !out.contains(&b'\n'));
            let mut room = [0; KEY_BYTES_MAX];
            prop_assert_eq!(ChangeLine::decode(&out, &mut room), Some(line));
        }

        #[test]
        fn a_request_survives_the_way(
            prefixes in vec(vec(any::<u8>(), 1..=40), 0..=PREFIXES_MAX),
        ) {
            let mut out = Vec::new();
            encode_request(prefixes.iter().map(Vec::as_slice), &mut out);
            let words = out.strip_prefix(b"watch changes").unwrap().strip_suffix(b"\r\n").unwrap();
            let decoded = decode_prefixes(Tokens::new(words)).unwrap();
            prop_assert!(decoded.iter().map(|prefix| &prefix[..]).eq(prefixes.iter().map(|it| &it[..])));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(line in vec(any::<u8>(), 0..900)) {
            decoded(&line);
        }
    }
}
