//! Sizes as people write them: `100`, `64k`, `1m`, `1GiB`, and ranges of them, `100-4k`.

use std::ops::RangeInclusive;

/// Why a text is no size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// It does not start with a whole number.
    #[error("'{0}' is not a size: expected a whole number, then k, m, g or nothing")]
    Number(String),
    /// What follows the number is no unit.
    #[error("'{unit}' in '{text}' is not a unit: use k, m, g, KiB, MiB, GiB or nothing")]
    Unit {
        /// The whole text.
        text: String,
        /// Its part after the number.
        unit: String,
    },
    /// More than 64 bits of bytes.
    #[error("'{0}' is more bytes than 64 bits can count")]
    TooLarge(String),
    /// A range whose first end lies above its second.
    #[error("the range '{0}' ends before it starts")]
    Backwards(String),
}

/// Reads a number of bytes; units are powers of 1024, as in memcached's `-m` and `-I`.
///
/// # Errors
/// When `text` is not a whole number followed by a unit or nothing, or does not fit 64 bits.
pub fn parse_bytes(text: &str) -> Result<u64, SizeError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(SizeError::Number(text.to_owned()));
    }
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(SizeError::Unit { text: text.to_owned(), unit: unit.to_owned() }),
    };
    let number: u64 = number.parse().map_err(|_| SizeError::TooLarge(text.to_owned()))?;
    number.checked_mul(1 << shift).ok_or_else(|| SizeError::TooLarge(text.to_owned()))
}

/// Reads one size, or two with a dash between them as an inclusive range.
///
/// # Errors
/// When either end is no size, or the range runs backwards.
pub fn parse_bytes_range(text: &str) -> Result<RangeInclusive<u64>, SizeError> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let range = parse_bytes(low)?..=parse_bytes(high)?;
    if range.is_empty() { Err(SizeError::Backwards(text.to_owned())) } else { Ok(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024_in_any_case() {
        assert_eq!(parse_bytes("100"), Ok(100));
        assert_eq!(parse_bytes("64k"), Ok(65_536));
        assert_eq!(parse_bytes("1M"), Ok(1 << 20));
        assert_eq!(parse_bytes("2GiB"), Ok(2 << 30));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        assert_eq!(parse_bytes(""), Err(SizeError::Number(String::new())));
        assert_eq!(parse_bytes("-1"), Err(SizeError::Number("-1".to_owned())));
        assert!(matches!(parse_bytes("10 parsecs"), Err(SizeError::Unit { .. })));
        assert!(matches!(parse_bytes("99999999999999999999"), Err(SizeError::TooLarge(_))));
        assert!(matches!(parse_bytes("17179869184g"), Err(SizeError::TooLarge(_))));
    }

    #[test]
    fn a_single_size_is_a_range_of_one() {
        assert_eq!(parse_bytes_range("100"), Ok(100..=100));
        assert_eq!(parse_bytes_range("100-4k"), Ok(100..=4096));
        assert!(matches!(parse_bytes_range("4k-100"), Err(SizeError::Backwards(_))));
    }
}
