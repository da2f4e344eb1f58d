//! Numbers as memcached reads them: the digits a word begins with, whatever follows (`atoi`).
//!
//! `-m 64m` is 64 mebibytes to memcached, and command lines that say so are in use; so it is here, with a
//! word about it in the log. A word that begins with no digit is 0 to memcached. It is refused here:
//! nobody means that.

use std::fmt::Display;

use super::refused::Refused;

/// A number, and the word it was read from if that says more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Number<T> {
    value: T,
    word: Option<String>,
}

impl<T: Copy> Number<T> {
    /// The number.
    pub(super) fn value(&self) -> T {
        self.value
    }
}

impl<T> Number<T> {
    /// The same, its value turned into another one.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Number<U> {
        Number { value: change(self.value), word: self.word }
    }
}

impl<T: Display> Number<T> {
    /// The number. What else its word says is passed over, and `warnings` say so.
    pub(super) fn take(self, flag: &str, warnings: &mut Vec<String>) -> T {
        if let Some(word) = self.word {
            warnings.push(format!("{flag} {word}: read as {}, as memcached does", self.value));
        }
        self.value
    }
}

/// The whole number that `text` begins with, after spaces.
pub(super) fn integer(text: &str) -> Result<Number<i64>, Refused> {
    let text = text.trim();
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(text.len() - unsigned.len() + digits);
    let value = number.parse().map_err(|_| match digits {
        0 => Refused::usage(format!("{text:?} is no number")),
        _ => Refused::usage(format!("{number} is more than memcached can count")),
    })?;
    Ok(Number { value, word: (!rest.is_empty()).then(|| text.to_owned()) })
}

/// A count of at least one, or else what memcached says, and its exit code for that: 1.
pub(super) fn at_least_one(text: &str, reason: &str) -> Result<Number<u32>, Refused> {
    let refused = || Refused::failure(format!("{reason}, not {:?}", text.trim()));
    let number = integer(text).map_err(|_| refused())?;
    match u32::try_from(number.value) {
        Ok(value @ 1..) => Ok(number.map(|_| value)),
        _ => Err(refused()),
    }
}

/// The number with a fraction that `text` begins with, 0 if there is none (`atof`).
pub(super) fn decimal(text: &str) -> f64 {
    let text = text.trim();
    let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let mut end = text.bytes().take_while(is_part).count();
    while end > 0 {
        if let Ok(value) = text[..end].parse() {
            return value;
        }
        end -= 1;
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(i64, bool)> {
        integer(text).ok().map(|number| (number.value, number.word.is_some()))
    }

    #[test]
    fn the_digits_at_the_start_count_and_the_rest_is_told() {
        assert_eq!(read("64"), Some((64, false)));
        assert_eq!(read(" 64"), Some((64, false)));
        assert_eq!(read("64m"), Some((64, true)));
        assert_eq!(read("-1"), Some((-1, false)));
        assert_eq!(read("1.5"), Some((1, true)));
        for none in ["", "m", "-", "é", "99999999999999999999"] {
            assert_eq!(read(none), None, "{none:?}");
        }
        let mut warnings = Vec::new();
        assert_eq!(integer("64m").unwrap().take("-m", &mut warnings), 64);
        assert_eq!(warnings, ["-m 64m: read as 64, as memcached does"]);
    }

    #[test]
    fn fractions_are_read_as_far_as_they_go() {
        for (text, value) in
            [("1.25", 1.25), ("2x", 2.0), ("1.5e", 1.5), ("x", 0.0), ("", 0.0), ("1e2", 100.0)]
        {
            assert!((decimal(text) - value).abs() < f64::EPSILON, "{text:?}");
        }
    }
}
