//! The hash functions that libmemcached (its libhashkit) gives a key to a server by.

use std::fmt;

use md5::{Digest as _, Md5};

/// A hash function of keys to 32 bits, by its name in libmemcached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hash {
    /// Bob Jenkins's one-at-a-time ("Hash Functions", Dr. Dobb's Journal, 1997): `MEMCACHED_HASH_DEFAULT`.
    ///
    /// libhashkit adds each byte as a C `char`, which has a sign on x86 and none on ARM, so that its clients on the
    /// two send a key with bytes above 127 to different servers. This is the x86 one, on every machine.
    OneAtATime,
    /// The first four bytes of MD5 (RFC 1321), little-endian: `MEMCACHED_HASH_MD5`.
    Md5,
    /// Bits 16 to 30 of the CRC-32 of IEEE 802.3: `MEMCACHED_HASH_CRC`, as in Perl's `Cache::Memcached`.
    Crc32,
}

impl Hash {
    /// The hash of `key`.
    pub fn of(self, key: &[u8]) -> u32 {
        match self {
            Self::OneAtATime => one_at_a_time(key),
            Self::Md5 => md5_words(key)[0],
            Self::Crc32 => (crc32fast::hash(key) >> 16) & 0x7fff,
        }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneAtATime => "one-at-a-time",
            Self::Md5 => "md5",
            Self::Crc32 => "crc32",
        })
    }
}

/// The digest as four little-endian words.
pub(super) fn md5_words(text: &[u8]) -> [u32; 4] {
    let digest: [u8; 16] = Md5::digest(text).into();
    let (words, _) = digest.as_chunks::<4>();
    std::array::from_fn(|index| u32::from_le_bytes(words[index]))
}

fn one_at_a_time(key: &[u8]) -> u32 {
    let mut hash = 0u32;
    for &byte in key {
        hash = hash.wrapping_add_signed(i32::from(byte.cast_signed()));
        hash = hash.wrapping_add(hash << 10);
        hash ^= hash >> 6;
    }
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_their_specifications() {
        // RFC 1321, A.5: MD5 ("abc") = 900150983cd24fb0...
        assert_eq!(Hash::Md5.of(b"abc"), 0x9850_0190);
        // The check value of CRC-32 is 0xcbf43926 for these digits.
        assert_eq!(Hash::Crc32.of(b"123456789"), 0x4bf4);
        // Of Jenkins's function these are known: "a" and the pangram.
        assert_eq!(Hash::OneAtATime.of(b"a"), 0xca2e_9442);
        assert_eq!(
            Hash::OneAtATime.of(b"The quick brown fox jumps over the lazy dog"),
            0x519e_91f5
        );
    }

    #[test]
    fn bytes_above_127_are_added_with_their_sign() {
        assert_eq!(Hash::OneAtATime.of(b"\xff"), {
            let hash = u32::MAX.wrapping_add(u32::MAX << 10);
            let hash = hash ^ (hash >> 6);
            let hash = hash.wrapping_add(hash << 3);
            let hash = hash ^ (hash >> 11);
            hash.wrapping_add(hash << 15)
        });
    }
}
