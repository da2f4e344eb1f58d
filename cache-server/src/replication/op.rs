//! What a write left, as the replicas of a shard tell each other: results, not operations.
//!
//! ```text
//! put:    1 | key len u8 | marks u8 | flags u32 | deadline u64 | cas u64 | key | value
//! touch:  2 | key len u8 | marks u8 |             deadline u64 | cas u64 | key
//! remove: 3 | key len u8 |                                                 key
//! flush:  4
//! confirm: 5
//! ```
//!
//! Numbers are little-endian. A deadline is in milliseconds since the start of 1970; all ones is never. Bit 0
//! of the marks says that the item is stale, bit 1 that a client was told to compute it again. An operation
//! carries the clock of the primary that ordered it where it matters: in the deadline.

use bytes::{BufMut, Bytes, BytesMut};
use store::Deadline;

const PUT: u8 = 1;
const TOUCH: u8 = 2;
const REMOVE: u8 = 3;
const FLUSH: u8 = 4;
const CONFIRM: u8 = 5;

const STALE: u8 = 1;
const WIN_SENT: u8 = 2;

/// What bytes before the key come to at most.
const HEAD_BYTES_MAX: usize = 23;

/// Short operations share an allocation of this many bytes. It is held for as long as any of them is, and the
/// last of each shard is held until the next: no larger than that.
const SHARED_BYTES: usize = 4096;

/// Longer ones have one of their own.
const SHARED_EACH_MAX: usize = 512;

/// Where operations are put together, one allocation for many.
#[derive(Default)]
pub(crate) struct Ops {
    room: BytesMut,
}

impl Ops {
    /// An operation of at most `bytes_max`, as `write` writes it.
    #[inline]
    fn make(&mut self, bytes_max: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
        if bytes_max > SHARED_EACH_MAX {
            let mut own = BytesMut::with_capacity(bytes_max);
            write(&mut own);
            return own.freeze();
        }
        if self.room.capacity() < bytes_max {
            self.room = BytesMut::with_capacity(SHARED_BYTES);
        }
        write(&mut self.room);
        self.room.split().freeze()
    }

    /// A copy of an operation that arrived in a frame.
    #[inline]
    pub(crate) fn copy(&mut self, op: &[u8]) -> Bytes {
        self.make(op.len(), |to| to.put_slice(op))
    }
}

/// What a write left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op<'a> {
    /// An item.
    Put {
        /// 1 to 250 bytes.
        key: &'a [u8],
        /// All of it but the value.
        facts: Facts,
        /// Its value.
        value: &'a [u8],
    },
    /// An item whose value is as it was.
    Touch {
        /// 1 to 250 bytes.
        key: &'a [u8],
        /// All of it but value and client flags. The item is the one that has this cas.
        facts: Facts,
    },
    /// No item.
    Remove {
        /// 1 to 250 bytes.
        key: &'a [u8],
    },
    /// No item under any key of the cluster shard.
    Flush,
    /// What was there: a read waits for it, since who has it follows who ordered it.
    Confirm,
}

/// An item without key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) client_flags: u32,
    pub(crate) deadline: Deadline,
    pub(crate) cas: u64,
    pub(crate) stale: bool,
    pub(crate) win_sent: bool,
}

/// The bytes are no operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a replicated write of {bytes} bytes cannot be read")]
pub(crate) struct BadOp {
    bytes: usize,
}

impl Facts {
    fn marks(&self) -> u8 {
        u8::from(self.stale) * STALE + u8::from(self.win_sent) * WIN_SENT
    }

    fn deadline_ms(&self) -> u64 {
        self.deadline.timestamp().map_or(u64::MAX, |at| at.0)
    }
}

/// An item as the stream carries it: `value` in as many pieces as it has, `value_bytes` in all.
pub(crate) fn encode_put<'v>(
    ops: &mut Ops,
    key: &[u8],
    facts: &Facts,
    value: impl Iterator<Item = &'v [u8]>,
    value_bytes: usize,
) -> Bytes {
    let bytes = HEAD_BYTES_MAX + key.len() + value_bytes;
    ops.make(bytes, |to| {
        to.put_u8(PUT);
        put_key_len(to, key);
        to.put_u8(facts.marks());
        to.put_u32_le(facts.client_flags);
        to.put_u64_le(facts.deadline_ms());
        to.put_u64_le(facts.cas);
        to.put_slice(key);
        value.for_each(|piece| to.put_slice(piece));
        debug_assert_eq!(to.len(), bytes, "the value is whole");
    })
}

/// The change of an item whose value stays.
pub(crate) fn encode_touch(ops: &mut Ops, key: &[u8], facts: &Facts) -> Bytes {
    ops.make(HEAD_BYTES_MAX + key.len(), |to| {
        to.put_u8(TOUCH);
        put_key_len(to, key);
        to.put_u8(facts.marks());
        to.put_u64_le(facts.deadline_ms());
        to.put_u64_le(facts.cas);
        to.put_slice(key);
    })
}

/// The absence of a key.
pub(crate) fn encode_remove(ops: &mut Ops, key: &[u8]) -> Bytes {
    ops.make(2 + key.len(), |to| {
        to.put_u8(REMOVE);
        put_key_len(to, key);
        to.put_slice(key);
    })
}

/// The absence of every key.
pub(crate) fn encode_flush() -> Bytes {
    Bytes::from_static(&[FLUSH])
}

/// No change.
pub(crate) fn encode_confirm() -> Bytes {
    Bytes::from_static(&[CONFIRM])
}

fn put_key_len(to: &mut BytesMut, key: &[u8]) {
    to.put_u8(u8::try_from(key.len()).expect("the protocol checked the length"));
}

impl<'a> Op<'a> {
    /// Reads what the functions above wrote.
    ///
    /// # Errors
    ///
    /// When the bytes are nothing of the kind.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, BadOp> {
        Self::try_decode(bytes).ok_or(BadOp { bytes: bytes.len() })
    }

    fn try_decode(bytes: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        match kind {
            FLUSH => return rest.is_empty().then_some(Self::Flush),
            CONFIRM => return rest.is_empty().then_some(Self::Confirm),
            _ => {}
        }
        let (&key_len, rest) = rest.split_first()?;
        let key_len = usize::from(key_len);
        if !(1..=250).contains(&key_len) {
            return None;
        }
        if kind == REMOVE {
            return (rest.len() == key_len).then_some(Self::Remove { key: rest });
        }
        let (&marks, rest) = rest.split_first()?;
        let (client_flags, rest) = match kind {
            PUT => {
                let (flags, rest) = rest.split_first_chunk::<4>()?;
                (u32::from_le_bytes(*flags), rest)
            }
            TOUCH => (0, rest),
            _ => return None,
        };
        let (deadline, rest) = rest.split_first_chunk::<8>()?;
        let (cas, rest) = rest.split_first_chunk::<8>()?;
        let (key, value) = rest.split_at_checked(key_len)?;
        let facts = Facts {
            client_flags,
            deadline: match u64::from_le_bytes(*deadline) {
                u64::MAX => Deadline::NEVER,
                at => Deadline::at(store::Timestamp(at)),
            },
            cas: u64::from_le_bytes(*cas),
            stale: marks & STALE != 0,
            win_sent: marks & WIN_SENT != 0,
        };
        match kind {
            PUT => Some(Self::Put { key, facts, value }),
            _ => value.is_empty().then_some(Self::Touch { key, facts }),
        }
    }
}

#[cfg(test)]
mod tests {
    use store::Timestamp;

    use super::*;

    const FACTS: Facts = Facts {
        client_flags: 7,
        deadline: Deadline::NEVER,
        cas: 1 << 40 | 5,
        stale: true,
        win_sent: false,
    };

    #[test]
    fn what_is_written_is_read() {
        let facts = Facts { deadline: Deadline::at(Timestamp(1_800_000_000_123)), ..FACTS };
        let put =
            encode_put(&mut Ops::default(), b"key", &facts, [&b"va"[..], b"lue"].into_iter(), 5);
        assert_eq!(Op::decode(&put), Ok(Op::Put { key: b"key", facts, value: b"value" }));
        let facts = Facts { client_flags: 0, win_sent: true, ..FACTS };
        assert_eq!(
            Op::decode(&encode_touch(&mut Ops::default(), b"k", &facts)),
            Ok(Op::Touch { key: b"k", facts })
        );
        assert_eq!(
            Op::decode(&encode_remove(&mut Ops::default(), b"k")),
            Ok(Op::Remove { key: b"k" })
        );
        assert_eq!(Op::decode(&encode_flush()), Ok(Op::Flush));
        assert_eq!(Op::decode(&encode_confirm()), Ok(Op::Confirm));
    }

    #[test]
    fn operations_that_share_an_allocation_stay_as_they_were() {
        let mut ops = Ops::default();
        let keys: Vec<Vec<u8>> = (1..=250).map(|len| vec![b'k'; len]).collect();
        let all: Vec<Bytes> = keys.iter().map(|key| encode_remove(&mut ops, key)).collect();
        for (key, op) in keys.iter().zip(&all) {
            assert_eq!(Op::decode(op), Ok(Op::Remove { key }));
        }
        let long = encode_put(&mut ops, b"k", &FACTS, [&[b'v'; 5000][..]].into_iter(), 5000);
        assert_eq!(ops.copy(&long), long);
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        for whole in [
            encode_touch(&mut Ops::default(), b"key", &FACTS),
            encode_remove(&mut Ops::default(), b"key"),
            encode_flush(),
            encode_confirm(),
        ] {
            for len in 0..whole.len() {
                assert_eq!(Op::decode(&whole[..len]), Err(BadOp { bytes: len }));
            }
        }
        let put = encode_put(&mut Ops::default(), b"key", &FACTS, std::iter::empty(), 0);
        for len in 0..put.len() {
            assert_eq!(Op::decode(&put[..len]), Err(BadOp { bytes: len }));
        }
    }

    #[test]
    fn kinds_and_lengths_that_nobody_writes_are_refused() {
        assert!(Op::decode(&[0, 1, b'k']).is_err());
        assert!(Op::decode(&[9, 1, b'k']).is_err());
        assert!(Op::decode(&[REMOVE, 0]).is_err());
        assert!(Op::decode(&[REMOVE, 251]).is_err());
        assert!(Op::decode(&[FLUSH, 0]).is_err());
        assert!(Op::decode(&[CONFIRM, 0]).is_err());
    }
}
