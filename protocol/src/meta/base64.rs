//! Base64 (RFC 4648, section 4, padded), in which a meta command may write its key.
//!
//! Bytes outside the alphabet are refused, where memcached skips them; so a key has one way to be
//! written, but for the bits that padding leaves unused, which may be anything as in memcached.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// No digit of the alphabet.
const NONE: u8 = 0xff;

/// The value of every byte as a digit.
const VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut digit = 0u8;
    while digit < 64 {
        values[ALPHABET[digit as usize] as usize] = digit;
        digit += 1;
    }
    values
};

/// Decodes `written` into the front of `out` and returns how many bytes that are; `None` when it is
/// no base64, is empty, or does not fit.
pub(crate) fn decode(written: &[u8], out: &mut [u8]) -> Option<usize> {
    let (quads, []) = written.as_chunks::<4>() else { return None };
    let (&last, whole) = quads.split_last()?;
    let mut len = 0;
    let mut put = |bytes: &[u8]| -> Option<()> {
        out.get_mut(len..len + bytes.len())?.copy_from_slice(bytes);
        len += bytes.len();
        Some(())
    };
    for &quad in whole {
        put(&bytes_of(quad)?)?;
    }
    match last {
        [a, b, b'=', b'='] => put(&bytes_of([a, b, b'A', b'A'])?[..1])?,
        [a, b, c, b'='] => put(&bytes_of([a, b, c, b'A'])?[..2])?,
        quad => put(&bytes_of(quad)?)?,
    }
    Some(len)
}

/// The three bytes that four digits stand for.
fn bytes_of(quad: [u8; 4]) -> Option<[u8; 3]> {
    let [a, b, c, d] = quad.map(|byte| VALUES[usize::from(byte)]);
    // A digit has its top two bits clear, NONE has them set.
    if (a | b | c | d) >= 64 {
        return None;
    }
    Some([a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d])
}

/// Appends `bytes` in base64.
pub fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let digit = |value: u8| ALPHABET[usize::from(value & 63)];
    for group in bytes.chunks(3) {
        let [a, b, c] = std::array::from_fn(|index| group.get(index).copied().unwrap_or(0));
        let quad = [digit(a >> 2), digit(a << 4 | b >> 4), digit(b << 2 | c >> 6), digit(c)];
        out.extend_from_slice(&quad[..=group.len()]);
        out.extend_from_slice(&b"=="[..3 - group.len()]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(written: &[u8]) -> Option<Vec<u8>> {
        let mut out = [0; 250];
        decode(written, &mut out).map(|len| out[..len].to_vec())
    }

    #[test]
    fn the_rfc_s_examples_decode() {
        assert_eq!(decoded(b"Zg=="), Some(b"f".to_vec()));
        assert_eq!(decoded(b"Zm8="), Some(b"fo".to_vec()));
        assert_eq!(decoded(b"Zm9v"), Some(b"foo".to_vec()));
        assert_eq!(decoded(b"Zm9vYg=="), Some(b"foob".to_vec()));
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for wrong in [&b""[..], b"Z", b"Zm9", b"====", b"=m9v", b"Z===", b"Zm!v", b"Zg==Zm9v"] {
            assert_eq!(decoded(wrong), None, "{}", wrong.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(bytes in proptest::collection::vec(any::<u8>(), 1..=186)) {
            let mut written = Vec::new();
            encode(&bytes, &mut written);
            prop_assert_eq!(decoded(&written), Some(bytes));
        }
    }
}
