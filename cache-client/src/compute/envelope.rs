//! What is stored for a computed value: the value, or that there is none, and what it takes to judge it.
//!
//! ```text
//! | 0xc1 | kind: 0 none, 1 value | took, ms, u32 | tags, u64 | value |        numbers little-endian
//! ```

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};

/// What an envelope of this form begins with. No text in UTF-8 does.
const FORM: u8 = 0xc1;
const NONE: u8 = 0;
const VALUE: u8 = 1;
const HEADER_BYTES: usize = 14;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    /// `None` if it was computed that there is none.
    pub(super) value: Option<Bytes>,
    /// How long the computation took.
    pub(super) took: Duration,
    /// The tags that it depends on, and their generations.
    pub(super) tags: u64,
}

impl Envelope {
    pub(super) fn encode(&self) -> Bytes {
        let value = self.value.as_deref().unwrap_or_default();
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + value.len());
        bytes.put_u8(FORM);
        bytes.put_u8(if self.value.is_some() { VALUE } else { NONE });
        bytes.put_u32_le(u32::try_from(self.took.as_millis()).unwrap_or(u32::MAX));
        bytes.put_u64_le(self.tags);
        bytes.put_slice(value);
        bytes.freeze()
    }

    /// `None` for what is no envelope: a lease that was left, or what somebody else stored under the key.
    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let (header, value) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let [FORM, kind, took @ .., _, _, _, _, _, _, _, _] = *header else { return None };
        let (_, tags) = header.split_last_chunk::<8>()?;
        let value = match kind {
            NONE if value.is_empty() => None,
            VALUE => Some(bytes.slice(HEADER_BYTES..)),
            _ => return None,
        };
        Some(Self {
            value,
            took: Duration::from_millis(u64::from(u32::from_le_bytes(took))),
            tags: u64::from_le_bytes(*tags),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_in_is_taken_out(
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..50)),
            took_ms in any::<u32>(),
            tags in any::<u64>(),
        ) {
            let took = Duration::from_millis(u64::from(took_ms));
            let envelope = Envelope { value: value.map(Bytes::from), took, tags };
            prop_assert_eq!(Envelope::decode(&envelope.encode()), Some(envelope));
        }

        #[test]
        fn nothing_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            let _ = Envelope::decode(&Bytes::from(bytes));
        }
    }

    #[test]
    fn what_others_store_is_no_envelope() {
        for bytes in
            [&b""[..], b"text", b"\xc1", b"\xc1\x02............", b"\xc1\x00.............."]
        {
            assert_eq!(Envelope::decode(&Bytes::from_static(bytes)), None);
        }
    }
}
