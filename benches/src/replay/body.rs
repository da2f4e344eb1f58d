//! What is stored under a key of a replay: a number, where it is short enough, so that it can be
//! counted up and down; else what any load stores ([`Values`]).
//!
//! Neither has to be remembered to be recognised.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::value::{Values, mix};

/// The most digits that a counter has: those of the greatest number of 64 bits.
const DIGITS_MAX: usize = 20;

/// Makes the values of a replay and recognises them.
#[derive(Debug)]
pub(super) struct Bodies {
    values: Values,
}

impl Bodies {
    pub(super) fn new() -> Self {
        Self { values: Values::new() }
    }

    /// Appends the value of `key` that is `value_bytes` long.
    pub(super) fn append(&self, key: &[u8], value_bytes: usize, out: &mut Vec<u8>) {
        if value_bytes <= DIGITS_MAX {
            out.extend_from_slice(&number(key, value_bytes)[..value_bytes]);
        } else {
            self.values.append(key, value_bytes, out);
        }
    }

    /// Whether `value` is what [`Self::append`] writes for `key` at its length.
    pub(super) fn matches(&self, key: &[u8], value: &[u8]) -> bool {
        if value.len() <= DIGITS_MAX {
            *value == number(key, value.len())[..value.len()]
        } else {
            self.values.matches(key, value)
        }
    }
}

/// Digits of a number below 2^64, not beginning with a 0: counting by nothing leaves its width.
fn number(key: &[u8], digits: usize) -> [u8; DIGITS_MAX] {
    let mut rest = xxh3_64_with_seed(key, digits as u64);
    let mut number = [b'0'; DIGITS_MAX];
    number[0] = b'1';
    // Twenty digits that begin with 10 are less than 2^64.
    for digit in number.iter_mut().skip(2) {
        rest = mix(rest);
        *digit += u8::try_from(rest % 10).unwrap_or_default();
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(key: &[u8], value_bytes: usize) -> Vec<u8> {
        let mut body = Vec::new();
        Bodies::new().append(key, value_bytes, &mut body);
        body
    }

    #[test]
    fn short_values_are_numbers_and_all_are_as_long_as_asked() {
        for value_bytes in 0..60 {
            let body = body(b"k42", value_bytes);
            assert_eq!(body.len(), value_bytes);
            assert!(Bodies::new().matches(b"k42", &body));
            if (1..=DIGITS_MAX).contains(&value_bytes) {
                let number: u64 = std::str::from_utf8(&body).unwrap().parse().unwrap();
                assert_eq!(number.to_string().len(), value_bytes, "no 0 in front");
            }
        }
    }

    #[test]
    fn another_keys_value_is_caught() {
        for value_bytes in [8, 20, 21, 500] {
            assert!(!Bodies::new().matches(b"k2", &body(b"k1", value_bytes)));
        }
    }
}
