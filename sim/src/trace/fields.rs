//! The fields of a line: numbers, times, ids. What all text formats read alike.
//!
//! - An id that is a plain decimal number stays that number; any other text is hashed (XXH3-64, the
//!   same in every run), so `7` and `07` are two objects.
//! - Times are whole seconds that fit 32 bits; fractions are cut off.

use memchr::memchr;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::Fault;

/// The longest piece of a bad field that is quoted in its fault, in bytes.
const QUOTED_BYTES_MAX: usize = 40;

/// The fields of a line that are separated by one byte, from left to right.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    rest: Option<&'a [u8]>,
    delimiter: u8,
    /// Fields taken by now.
    taken: usize,
}

impl<'a> Fields<'a> {
    /// The fields of `line`.
    pub(crate) fn new(line: &'a [u8], delimiter: u8) -> Self {
        Self { rest: Some(line), delimiter, taken: 0 }
    }

    /// The next field, which must be there.
    #[inline]
    pub(crate) fn next(&mut self, field: &'static str) -> Result<&'a [u8], Fault> {
        let fields = self.taken;
        self.next_if_any().ok_or(Fault::MissingField { field, column: fields + 1, fields })
    }

    /// The next field.
    #[inline]
    pub(crate) fn next_if_any(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        self.taken += 1;
        match memchr(self.delimiter, rest) {
            Some(end) => {
                self.rest = Some(&rest[end + 1..]);
                Some(&rest[..end])
            }
            None => {
                self.rest = None;
                Some(rest)
            }
        }
    }

    /// Passes over `count` fields.
    #[inline]
    pub(crate) fn skip(&mut self, count: usize, field: &'static str) -> Result<(), Fault> {
        (0..count).try_for_each(|_| self.next(field).map(drop))
    }
}

/// The words of a line that are separated by blanks, however many.
pub(crate) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty())
}

/// The next word, which must be there.
pub(crate) fn word<'a>(
    words: &mut impl Iterator<Item = &'a [u8]>,
    field: &'static str,
) -> Result<&'a [u8], Fault> {
    words.next().ok_or(Fault::Missing { field })
}

/// Decimal digits as a number, if they are some and it fits.
#[inline]
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// A number of 64 bits.
pub(crate) fn number_u64(field: &'static str, text: &[u8]) -> Result<u64, Fault> {
    number(text).ok_or_else(|| bad_number(field, text, u64::MAX))
}

/// A number of 32 bits.
#[inline]
pub(crate) fn number_u32(field: &'static str, text: &[u8]) -> Result<u32, Fault> {
    number(text)
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(|| bad_number(field, text, u32::MAX.into()))
}

/// A size of 32 bits; what is larger counts as the largest.
pub(crate) fn size(text: &[u8]) -> Result<u32, Fault> {
    let size = number(text).ok_or_else(|| bad_number("size", text, u64::MAX))?;
    Ok(u32::try_from(size).unwrap_or(u32::MAX))
}

/// A key's length; what is longer counts as the longest.
#[inline]
pub(crate) fn key_length(text: &[u8]) -> Result<u16, Fault> {
    let length = number_u32("key size", text)?;
    Ok(u16::try_from(length).unwrap_or(u16::MAX))
}

/// The length of a key.
#[inline]
pub(crate) fn length_of(key: &[u8]) -> u16 {
    u16::try_from(key.len()).unwrap_or(u16::MAX)
}

/// A time's whole seconds; a fraction must be digits.
pub(crate) fn seconds(text: &[u8]) -> Result<u32, Fault> {
    let (whole, fraction) = match memchr(b'.', text) {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    number(whole)
        .and_then(|seconds| u32::try_from(seconds).ok())
        .filter(|_| fraction.iter().all(u8::is_ascii_digit))
        .ok_or_else(|| bad_number("time", text, u32::MAX.into()))
}

/// The id that a text stands for: the number it is written as, else its hash.
#[inline]
pub(crate) fn object_id(text: &[u8]) -> u64 {
    let is_plain = text.len() == 1 || text.first() != Some(&b'0');
    number(text).filter(|_| is_plain).unwrap_or_else(|| xxh3_64(text))
}

/// The id of an object that several fields name together. The fields are kept apart.
pub(crate) fn compound_id(parts: &[&[u8]]) -> u64 {
    let mut hash = Xxh3::new();
    for part in parts {
        hash.update(part);
        hash.update(&[0]);
    }
    hash.digest()
}

/// The fault of a field that is no number up to `max`.
pub(crate) fn bad_number(field: &'static str, text: &[u8], max: u64) -> Fault {
    Fault::BadNumber { field, text: quoted(text), max }
}

/// The fault of a field that is not what it should be.
pub(crate) fn bad(field: &'static str, text: &[u8], expected: &'static str) -> Fault {
    Fault::Bad { field, text: quoted(text), expected }
}

/// The beginning of a text, for a fault.
fn quoted(text: &[u8]) -> String {
    let shown = &text[..text.len().min(QUOTED_BYTES_MAX)];
    String::from_utf8_lossy(shown).into_owned()
}

/// A date and time of day as seconds since 1970, if they are a day from 1970 to 2105.
///
/// The count of days is Howard Hinnant's `days_from_civil`.
pub(crate) fn unix_seconds(date: [u32; 3], time: [u32; 3]) -> Option<u32> {
    let ([year, month, day], [hour, minute, second]) = (date, time);
    let is_date = (1970..=2105).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !is_date {
        return None;
    }
    // The year begins in March, so that a leap day is its last.
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted / 400, shifted % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Digits of a date from `from` on, `count` of them.
pub(crate) fn digits(text: &[u8], from: usize, count: usize) -> Option<u32> {
    number(text.get(from..from + count)?).and_then(|number| u32::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_count_from_1970() {
        assert_eq!(unix_seconds([1970, 1, 1], [0, 0, 0]), Some(0));
        assert_eq!(unix_seconds([2015, 5, 17], [10, 5, 3]), Some(1_431_857_103));
        assert_eq!(unix_seconds([2024, 2, 29], [23, 59, 59]), Some(1_709_251_199));
        assert_eq!(unix_seconds([2105, 12, 31], [0, 0, 0]), Some(4_291_660_800));
        for date in [[1969, 12, 31], [2015, 13, 1], [2015, 0, 1], [2015, 1, 0], [2200, 1, 1]] {
            assert_eq!(unix_seconds(date, [0, 0, 0]), None);
        }
        assert_eq!(unix_seconds([2015, 1, 1], [24, 0, 0]), None);
    }

    #[test]
    fn text_ids_are_hashed_and_numbers_are_not() {
        assert_eq!(object_id(b"7"), 7);
        assert_eq!(object_id(b"0"), 0);
        assert_eq!(object_id(b"07"), xxh3_64(b"07"));
        assert_eq!(object_id(b"/a"), xxh3_64(b"/a"));
        assert_eq!(object_id(b"18446744073709551615"), u64::MAX);
        assert_eq!(object_id(b""), xxh3_64(b""));
    }

    #[test]
    fn parts_of_an_id_do_not_run_into_each_other() {
        assert_ne!(compound_id(&[b"a", b"bc"]), compound_id(&[b"ab", b"c"]));
    }

    #[test]
    fn a_missing_field_is_named_with_its_column() {
        let mut fields = Fields::new(b"1,2", b',');
        fields.skip(2, "x").unwrap();
        let fault = fields.next("size").unwrap_err();
        assert_eq!(fault.to_string(), "no column 3 for the size, the line has 2");
    }
}
