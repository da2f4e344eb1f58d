//! One line into tokens, tokens into numbers, numbers into a line.
//!
//! Tokens are separated by spaces alone: a tab is a byte of a key like any other. Numbers are read as
//! memcached reads them, with C's `strtol` family: white space other than a space and a `+` may stand
//! in front, white space may follow, and what comes after that is not looked at. Two slips of
//! memcached's are not copied: 2^32 is no 32-bit number (memcached stores 0), and a number with a
//! minus is never a large unsigned one.

use std::fmt;

/// The tokens of a line, separated by spaces.
#[derive(Clone)]
pub struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    /// The tokens of `line`, which is without its line end.
    #[inline]
    pub const fn new(line: &'a [u8]) -> Self {
        Self { rest: line }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        while let [b' ', rest @ ..] = self.rest {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        let end = find(b' ', self.rest).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(token)
    }
}

impl fmt::Debug for Tokens<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone().map(|token| token.escape_ascii().to_string())).finish()
    }
}

/// Lines with the same tokens are equal, however many spaces separate them.
impl PartialEq for Tokens<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.clone().eq(other.clone())
    }
}

impl Eq for Tokens<'_> {}

/// The place of the first `needle` in `haystack`: blocks that do not hold it are passed over sixteen
/// bytes at a time, the rest is searched by eights.
#[inline]
pub(crate) fn find(needle: u8, haystack: &[u8]) -> Option<usize> {
    let (blocks, _) = haystack.as_chunks::<16>();
    let passed = 16 * blocks.iter().take_while(|block| !holds(needle, block)).count();
    let rest = haystack.get(passed..)?;
    let (words, tail) = rest.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        if let Some(place) = find_in_word(needle, *word) {
            return Some(passed + index * 8 + place);
        }
    }
    if tail.is_empty() {
        return None;
    }
    // The last word again, or rather the eight bytes that end with the haystack: no needle is in
    // those of them that were searched before.
    if let Some(last) = haystack.last_chunk::<8>() {
        return find_in_word(needle, *last).map(|place| haystack.len() - 8 + place);
    }
    tail.iter().position(|&byte| byte == needle).map(|place| passed + place)
}

/// Whether `needle` is in the block. Without an early end, so that it becomes one vector comparison.
#[inline]
fn holds(needle: u8, block: &[u8; 16]) -> bool {
    block.iter().fold(false, |found, &byte| found | (byte == needle))
}

/// The place of the first `needle` in eight bytes.
///
/// A byte of `word ^ pattern` is 0 where the needle is, and subtracting 1 from each byte borrows into
/// the top bit of the first such byte (Mycroft's test; bytes above it may answer falsely, the lowest
/// one never does).
#[inline]
fn find_in_word(needle: u8, word: [u8; 8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    let differs = u64::from_le_bytes(word) ^ (ONES * u64::from(needle));
    let found = differs.wrapping_sub(ONES) & !differs & TOPS;
    (found != 0).then_some((found.trailing_zeros() / 8) as usize)
}

/// `token` as an unsigned 64-bit number.
#[inline]
pub(crate) fn parse_u64(token: &[u8]) -> Option<u64> {
    let (negative, digits) = sign(token);
    let number = magnitude(digits)?;
    (!negative || number == 0).then_some(number)
}

/// `token` as an unsigned 32-bit number.
#[inline]
pub(crate) fn parse_u32(token: &[u8]) -> Option<u32> {
    u32::try_from(parse_u64(token)?).ok()
}

/// `token` as a signed 64-bit number.
#[inline]
pub(crate) fn parse_i64(token: &[u8]) -> Option<i64> {
    let (negative, digits) = sign(token);
    let number = magnitude(digits)?;
    if negative { 0i64.checked_sub_unsigned(number) } else { i64::try_from(number).ok() }
}

/// `token` as the length of a data block: 0 to 2^31 - 3, memcached's bounds.
#[inline]
pub(crate) fn parse_length(token: &[u8]) -> Option<usize> {
    const LENGTH_MAX: usize = (1 << 31) - 3;
    usize::try_from(parse_u64(token)?).ok().filter(|&length| length <= LENGTH_MAX)
}

/// Whether a minus stands in front, and what follows the sign.
#[inline]
fn sign(token: &[u8]) -> (bool, &[u8]) {
    let mut token = token;
    while let [b'\t'..=b'\r', rest @ ..] = token {
        token = rest;
    }
    match token {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, token),
    }
}

/// The digits at the front of `token`, which end with it or at white space.
#[inline]
fn magnitude(token: &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for (index, &byte) in token.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                number = number.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
            }
            b'\t'..=b'\r' if index > 0 => return Some(number),
            _ => return None,
        }
    }
    (!token.is_empty()).then_some(number)
}

/// Appends `number` in decimal.
///
/// Digits that go to memory one by one and are read from there together make the processor wait until all are
/// written; a get spent a fiftieth of its time so. Most numbers of an answer fit a register.
#[inline]
pub(crate) fn push_number(out: &mut Vec<u8>, number: u64) {
    match u32::try_from(number) {
        Ok(number) if number < 100_000_000 => {
            let digits = eight_digits(number);
            let zeros = (digits.trailing_zeros() / 8).min(7);
            let text = (digits | 0x3030_3030_3030_3030) >> (8 * zeros);
            out.extend_from_slice(&text.to_le_bytes());
            out.truncate(out.len() - zeros as usize);
        }
        _ => push_large_number(out, number),
    }
}

/// The digits of a number below 10^8, a byte each, the first one lowest.
#[inline]
fn eight_digits(number: u32) -> u64 {
    // Two numbers of four digits, then four of two, then eight of one, side by side. To divide is to multiply and
    // shift: n * 10486 >> 20 is n / 100 below 10^4, n * 103 >> 10 is n / 10 below 100.
    let fours = u64::from(number / 10_000) | (u64::from(number % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = hundreds | ((fours - 100 * hundreds) << 16);
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | ((twos - 10 * tens) << 8)
}

fn push_large_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    let mut rest = number;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends `number` in decimal, with its sign if it is negative.
pub(crate) fn push_signed(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    push_number(out, number.unsigned_abs());
}

/// Appends a space and `token`.
pub(crate) fn push_token(out: &mut Vec<u8>, token: &[u8]) {
    out.push(b' ');
    out.extend_from_slice(token);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_are_what_stands_between_spaces() {
        let tokens: Vec<&[u8]> = Tokens::new(b"  get a\tb  c ").collect();
        assert_eq!(tokens, [&b"get"[..], b"a\tb", b"c"]);
    }

    #[test]
    fn numbers_are_read_as_strtol_reads_them() {
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b"+7"), Some(7));
        assert_eq!(parse_u64(b"\t7\tjunk"), Some(7));
        assert_eq!(parse_u64(b"-0"), Some(0));
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        for wrong in [&b""[..], b"-1", b"+", b"-", b"\t", b"7x", b"x7", b"0x10", b"1.5", b"--1"] {
            assert_eq!(parse_u64(wrong), None, "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn two_to_the_32_is_no_32_bit_number() {
        assert_eq!(parse_u32(b"4294967295"), Some(u32::MAX));
        assert_eq!(parse_u32(b"4294967296"), None);
    }

    #[test]
    fn a_number_is_written_as_the_standard_library_writes_it() {
        let powers = (0..20).map(|power| 10u64.pow(power));
        for number in powers.flat_map(|power| [power - 1, power, power + 1]).chain(0..20_000) {
            let mut out = b"VALUE ".to_vec();
            push_number(&mut out, number);
            assert_eq!(out, format!("VALUE {number}").into_bytes());
        }
    }

    proptest! {
        #[test]
        fn find_agrees_with_a_byte_by_byte_search(
            haystack in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(0x0b), Just(0x8a), any::<u8>()], 0..64),
        ) {
            let expected = haystack.iter().position(|&byte| byte == b'\n');
            prop_assert_eq!(find(b'\n', &haystack), expected);
        }

        #[test]
        fn a_number_written_is_the_number_read(
            number in prop_oneof![any::<u64>(), 0..200_000_000u64],
            signed: i64,
        ) {
            let mut out = Vec::new();
            push_number(&mut out, number);
            prop_assert_eq!(parse_u64(&out), Some(number));
            out.clear();
            push_signed(&mut out, signed);
            prop_assert_eq!(parse_i64(&out), Some(signed));
        }
    }
}
