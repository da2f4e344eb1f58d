//! What is stored under a key: bytes that only that key at that length can have.
//!
//! ```text
//! | mark, 8 B | key | pad chunk 0, up to 4 KiB | pad chunk 1 | ... |     cut to the length asked for
//! ```
//!
//! - The *mark* is a hash of key and length, so even a value too short to hold its key tells most
//!   mistaken hits.
//! - Every chunk is a slice of one pad of random bytes, from a place that mark and chunk number
//!   pick: chunks of one item in the wrong order, or of two items mixed, do not match.
//! - Checking is a handful of `memcmp`s, cheap enough to check every hit of a run.

use xxhash_rust::xxh3::xxh3_64_with_seed;

const MARK_BYTES: usize = 8;
const CHUNK_BYTES: usize = 4096;
/// Where chunks may start in the pad: as many places as 16 bits can name.
const STARTS: usize = 1 << 16;

/// Makes values and recognises them.
#[derive(Clone, Debug)]
pub struct Values {
    pad: Vec<u8>,
}

impl Default for Values {
    fn default() -> Self {
        Self::new()
    }
}

impl Values {
    /// The pad is the same in every process, so one run checks what another has stored.
    pub fn new() -> Self {
        let words = (STARTS + CHUNK_BYTES).div_ceil(8) as u64;
        Self { pad: (0..words).flat_map(|word| mix(word).to_le_bytes()).collect() }
    }

    /// Appends the value of `key` that is `value_bytes` long to `out`.
    pub fn append(&self, key: &[u8], value_bytes: usize, out: &mut Vec<u8>) {
        let end = out.len() + value_bytes;
        for part in self.parts(key, value_bytes) {
            out.extend_from_slice(&part.bytes()[..part.len()]);
        }
        debug_assert_eq!(out.len(), end, "the parts add up to the value");
    }

    /// Whether `value` is what [`Self::append`] writes for `key` at its length.
    pub fn matches(&self, key: &[u8], value: &[u8]) -> bool {
        let mut rest = value;
        for part in self.parts(key, value.len()) {
            let (head, tail) = rest.split_at(part.len());
            if *head != part.bytes()[..part.len()] {
                return false;
            }
            rest = tail;
        }
        true
    }

    /// The value in order, each part cut so that all of them are `value_bytes` together.
    fn parts<'a>(
        &'a self,
        key: &'a [u8],
        value_bytes: usize,
    ) -> impl Iterator<Item = Part<'a>> + use<'a> {
        let mark = xxh3_64_with_seed(key, value_bytes as u64);
        let mut left = value_bytes;
        let mut place = 0_u64;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let part = match place {
                0 => Part::Mark(mark.to_le_bytes(), left.min(MARK_BYTES)),
                1 => Part::Slice(key, left.min(key.len())),
                chunk => {
                    let start = usize::from(low_16_bits(mix(mark ^ chunk)));
                    Part::Slice(&self.pad[start..start + CHUNK_BYTES], left.min(CHUNK_BYTES))
                }
            };
            left -= part.len();
            place += 1;
            Some(part)
        })
    }
}

/// A run of a value, and how much of it the value holds.
enum Part<'a> {
    Mark([u8; MARK_BYTES], usize),
    Slice(&'a [u8], usize),
}

impl Part<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mark(mark, _) => mark,
            Self::Slice(slice, _) => slice,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Mark(_, len) | Self::Slice(_, len) => *len,
        }
    }
}

/// The finaliser of `SplitMix64` (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
/// Generators", OOPSLA 2014), stepped once: neighbouring inputs give unrelated outputs.
pub(crate) fn mix(input: u64) -> u64 {
    let mut word = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn low_16_bits(word: u64) -> u16 {
    let [low, high, ..] = word.to_le_bytes();
    u16::from_le_bytes([low, high])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: &[u8], value_bytes: usize) -> Vec<u8> {
        let mut value = Vec::new();
        Values::new().append(key, value_bytes, &mut value);
        value
    }

    #[test]
    fn a_value_is_as_long_as_asked_and_holds_its_key() {
        for value_bytes in [0, 1, 8, 9, 31, 32, 33, 4096, 4127, 4128, 4129, 100_000] {
            let value = value(b"k00000000000000000000042", value_bytes);
            assert_eq!(value.len(), value_bytes);
            assert!(Values::new().matches(b"k00000000000000000000042", &value));
        }
        let embedded = value(b"key", 100).windows(3).any(|window| window == b"key");
        assert!(embedded, "the key stands in its value");
    }

    #[test]
    fn a_flipped_bit_anywhere_is_caught() {
        let values = Values::new();
        let intact = value(b"k1", 9000);
        for place in 0..intact.len() {
            let mut broken = intact.clone();
            broken[place] ^= 1;
            assert!(!values.matches(b"k1", &broken), "a flipped bit in byte {place} went unseen");
        }
    }

    #[test]
    fn another_keys_value_is_caught() {
        for value_bytes in [8, 100, 5000] {
            assert!(!Values::new().matches(b"k2", &value(b"k1", value_bytes)));
        }
    }

    #[test]
    fn a_value_cut_short_or_run_on_is_caught() {
        let values = Values::new();
        let intact = value(b"k1", 100);
        assert!(!values.matches(b"k1", &intact[..99]));
        assert!(!values.matches(b"k1", &[intact.as_slice(), b"x"].concat()));
    }

    #[test]
    fn chunks_in_the_wrong_order_are_caught() {
        let mut swapped = value(b"k1", 10 + 3 * CHUNK_BYTES);
        let (first, second) = (10, 10 + CHUNK_BYTES);
        for offset in 0..CHUNK_BYTES {
            swapped.swap(first + offset, second + offset);
        }
        assert!(!Values::new().matches(b"k1", &swapped));
    }
}
