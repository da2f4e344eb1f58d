//! `Size`: how large a cache shall be, as a person writes it: `489`, `10%`, `1GiB`.

use std::fmt;
use std::str::FromStr;

/// Suffixes of amounts of bytes, longest first where one ends another, and what they stand for.
/// A lone letter counts in powers of 1024, as in memcached's flags.
const UNITS: [(&str, u64); 13] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("b", 1),
];

/// Digits taken behind a decimal point; more would not change any size that fits a machine.
const FRACTION_DIGITS_MAX: u32 = 9;

/// A cache's size before the trace is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// So many units of whatever is counted: objects or bytes.
    Count(u64),
    /// An amount of bytes, whatever is counted.
    Bytes(u64),
    /// A share of everything in the trace.
    Share(Share),
}

/// A percentage, exact to the digit it was written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    percent: Decimal,
}

impl Share {
    /// The floor of this share of `whole`.
    pub fn of(self, whole: u64) -> u64 {
        self.percent.times(whole, 100)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.percent)
    }
}

/// Why a text is no size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Neither a number nor one with a unit.
    #[error("`{0}` is no size: write 489, 10% or 1GiB")]
    Unreadable(String),
    /// Nothing fits in it.
    #[error("`{0}` is no room for anything")]
    Zero(String),
    /// Beyond 64 bits.
    #[error("`{0}` is larger than any memory")]
    TooLarge(String),
    /// A share where an amount is needed.
    #[error("`{0}` is not an amount of bytes: write 65536 or 64MiB")]
    NotBytes(String),
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let size = if let Some(percent) = text.strip_suffix('%') {
            let unreadable = || SizeError::Unreadable(text.into());
            let percent = Decimal::read(percent).ok_or_else(unreadable)?;
            Self::Share(Share { percent })
        } else if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            Self::Count(text.parse().map_err(|_| SizeError::TooLarge(text.into()))?)
        } else {
            Self::Bytes(bytes(text)?)
        };
        match size {
            Self::Count(0) | Self::Bytes(0) => Err(SizeError::Zero(text.into())),
            Self::Share(share) if share.percent.digits == 0 => Err(SizeError::Zero(text.into())),
            size => Ok(size),
        }
    }
}

/// Reads an amount of bytes: `65536`, `64MiB`, `1.5g`.
///
/// # Errors
///
/// `text` is no amount, or a share.
pub fn read_bytes(text: &str) -> Result<u64, SizeError> {
    match text.parse()? {
        Size::Count(bytes) | Size::Bytes(bytes) => Ok(bytes),
        Size::Share(_) => Err(SizeError::NotBytes(text.into())),
    }
}

/// An amount with a unit behind it.
fn bytes(text: &str) -> Result<u64, SizeError> {
    let unreadable = || SizeError::Unreadable(text.into());
    let lower = text.to_ascii_lowercase();
    let (number, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((lower.strip_suffix(suffix)?, *unit)))
        .ok_or_else(unreadable)?;
    let amount = Decimal::read(number.trim_end()).ok_or_else(unreadable)?;
    match amount.times(unit, 1) {
        u64::MAX => Err(SizeError::TooLarge(text.into())),
        bytes => Ok(bytes),
    }
}

/// A decimal number without rounding: `digits / 10^fraction_digits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    digits: u64,
    fraction_digits: u32,
}

impl Decimal {
    /// Reads digits with at most one point among them.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = format!("{whole}{fraction}");
        let fraction_digits = u32::try_from(fraction.len()).ok()?;
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        (is_plain && fraction_digits <= FRACTION_DIGITS_MAX)
            .then(|| digits.parse().ok())
            .flatten()
            .map(|digits| Self { digits, fraction_digits })
    }

    /// Whether it is nothing.
    pub(crate) fn is_zero(self) -> bool {
        self.digits == 0
    }

    /// The floor of `self * factor / divisor`, or the largest number if it is larger.
    pub(crate) fn times(self, factor: u64, divisor: u64) -> u64 {
        let scale = 10u128.pow(self.fraction_digits) * u128::from(divisor);
        let product = u128::from(self.digits) * u128::from(factor);
        u64::try_from(product / scale).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = 10u64.pow(self.fraction_digits);
        write!(f, "{}", self.digits / scale)?;
        match self.fraction_digits as usize {
            0 => Ok(()),
            width => write!(f, ".{:0width$}", self.digits % scale),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> Share {
        match text.parse() {
            Ok(Size::Share(share)) => share,
            other => panic!("{text} reads as {other:?}"),
        }
    }

    #[test]
    fn bare_number_counts_whatever_is_counted() {
        assert_eq!("489".parse(), Ok(Size::Count(489)));
    }

    #[test]
    fn units_are_powers_of_1024_unless_they_say_otherwise() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("64m", 64 << 20),
            ("1g", 1 << 30),
            ("1GB", 1_000_000_000),
            ("1.5KiB", 1536),
            ("2 TiB", 2 << 40),
            ("7B", 7),
        ] {
            assert_eq!(text.parse(), Ok(Size::Bytes(bytes)), "{text}");
            assert_eq!(read_bytes(text), Ok(bytes));
        }
    }

    #[test]
    fn share_is_the_floor_and_never_a_rounded_product() {
        assert_eq!(share("10%").of(1387), 138);
        assert_eq!(share("30%").of(1387), 416);
        assert_eq!(share("0.1%").of(1000), 1);
        assert_eq!(share("0.1%").of(999), 0);
        assert_eq!(share("29%").of(100), 29);
        assert_eq!(share("100%").of(u64::MAX), u64::MAX);
        assert_eq!(share("250%").of(10), 25);
        assert_eq!(share("12.50%").to_string(), "12.50%");
    }

    #[test]
    fn what_is_no_size_is_refused() {
        let error = |text: &str| text.parse::<Size>().unwrap_err();
        for text in ["", "%", ".", "1x", "-1", "1e3", "GiB", "1..5g", "1.2.3%", "+5", "0x10"] {
            assert_eq!(error(text), SizeError::Unreadable(text.into()));
        }
        for text in ["0", "0%", "0.00%", "0KiB"] {
            assert_eq!(error(text), SizeError::Zero(text.into()));
        }
        for text in ["18446744073709551616", "99999999TiB"] {
            assert_eq!(error(text), SizeError::TooLarge(text.into()));
        }
        assert_eq!(read_bytes("10%"), Err(SizeError::NotBytes("10%".into())));
    }
}
