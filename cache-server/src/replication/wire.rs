//! What a data connection between two nodes carries: one frame's payload is any number of these.
//!
//! ```text
//! kind u8 | shard u16 | what the kind has
//! entry:  version u64 | len u32 | op
//! ```
//!
//! Numbers are little-endian. The protocol of the shards is [`cluster::message::Message`]; the kinds from 32
//! on are the server's own.

use bytes::{Buf, BufMut, Bytes};
use cluster::message::{Append, Entries, Message, Seal};
use cluster::shard::Entry;
use cluster::{Epoch, Incarnation, NodeId, Sequence, ShardId, Version};

use crate::replication::op::{Op, Ops};

const APPEND: u8 = 1;
const APPENDED: u8 = 2;
const MISMATCH: u8 = 3;
const SEAL: u8 = 4;
const SEALED: u8 = 5;
const SEAL_REFUSED: u8 = 6;
const JOIN: u8 = 7;
const COMPLETE: u8 = 8;
const JOINED: u8 = 9;
const DEPARTED: u8 = 32;
const USED: u8 = 33;
const WHAT_HAVE_YOU: u8 = 34;
const I_HAVE: u8 = 35;
const ITEM: u8 = 36;
const DROP: u8 = 37;

/// One of a frame's messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LaneMessage {
    /// Of the shard protocol.
    Shard(ShardId, Message),
    /// A backup to the primary: this item left by itself, for want of memory or because its time was over.
    Departed(ShardId, KeyStamp),
    /// The primary to its backups: keys, by their hashes, that were read lately.
    Used(ShardId, Vec<u64>),
    /// The primary to one that is to join: say what you hold of the shard.
    WhatHaveYou(ShardId, Epoch),
    /// The answer, in parts: the items that it holds. `is_all` says that this part is the last.
    IHave {
        /// Which shard.
        shard: ShardId,
        /// The epoch in which it was asked.
        epoch: Epoch,
        /// Whether nothing follows.
        is_all: bool,
        /// The items.
        items: Vec<KeyStamp>,
    },
    /// The primary to one that joins: an item that it lacks, as an operation of `op.rs`.
    Item(ShardId, Bytes),
    /// The primary to one that joins: items that it holds and the primary does not.
    Drop(ShardId, Vec<KeyStamp>),
}

/// An item in short: the hash of its key, and a number that tells it from others of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyStamp {
    /// XXH3-64 of the key.
    pub(crate) key_hash: u64,
    /// Its cas in [`LaneMessage::Departed`], elsewhere its fingerprint.
    pub(crate) stamp: u64,
}

/// A payload is not what this protocol's version writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message between nodes cannot be read, {left} bytes before the end of its frame")]
pub(crate) struct BadMessage {
    left: usize,
}

fn head(to: &mut Vec<u8>, kind: u8, shard: ShardId) {
    to.put_u8(kind);
    to.put_u16_le(shard.0);
}

fn put_entries(to: &mut Vec<u8>, entries: &[Entry]) {
    to.put_u32_le(len_u32(entries.len()));
    for entry in entries {
        to.put_u64_le(entry.version.cas());
        to.put_u32_le(len_u32(entry.op.len()));
        to.put_slice(&entry.op);
    }
}

fn put_stamps(to: &mut Vec<u8>, stamps: &[KeyStamp]) {
    to.put_u32_le(len_u32(stamps.len()));
    for stamp in stamps {
        to.put_u64_le(stamp.key_hash);
        to.put_u64_le(stamp.stamp);
    }
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("a frame is far shorter")
}

/// Writes a message of the shard protocol.
pub(crate) fn encode_shard(to: &mut Vec<u8>, shard: ShardId, message: &Message) {
    match message {
        Message::Append(append) => {
            head(to, APPEND, shard);
            to.put_u32_le(append.epoch.0);
            to.put_u64_le(append.prev.cas());
            to.put_u64_le(append.committed.0);
            to.put_u64_le(append.stable.0);
            put_entries(to, &append.entries);
        }
        Message::Appended { epoch, last } => {
            head(to, APPENDED, shard);
            to.put_u32_le(epoch.0);
            to.put_u64_le(last.cas());
        }
        Message::Mismatch { epoch, last, promised } => {
            head(to, MISMATCH, shard);
            to.put_u32_le(epoch.0);
            to.put_u64_le(last.cas());
            to.put_u32_le(promised.0);
        }
        Message::Seal(seal) => {
            head(to, SEAL, shard);
            to.put_u32_le(seal.from.0);
            to.put_u32_le(seal.primary.0);
            to.put_u64_le(seal.incarnation.0);
            to.put_u32_le(seal.ballot.0);
            to.put_u64_le(seal.last.cas());
        }
        Message::Sealed { ballot, last, beyond } => {
            head(to, SEALED, shard);
            to.put_u32_le(ballot.0);
            to.put_u64_le(last.cas());
            put_entries(to, beyond);
        }
        Message::SealRefused { ballot, promised } => {
            head(to, SEAL_REFUSED, shard);
            to.put_u32_le(ballot.0);
            to.put_u32_le(promised.0);
        }
        Message::Join { epoch, incarnation, attempt, at } => {
            head(to, JOIN, shard);
            to.put_u32_le(epoch.0);
            to.put_u64_le(incarnation.0);
            to.put_u32_le(*attempt);
            to.put_u64_le(at.cas());
        }
        Message::Complete { epoch, attempt, at } => {
            head(to, COMPLETE, shard);
            to.put_u32_le(epoch.0);
            to.put_u32_le(*attempt);
            to.put_u64_le(at.cas());
        }
        Message::Joined { epoch, attempt, last } => {
            head(to, JOINED, shard);
            to.put_u32_le(epoch.0);
            to.put_u32_le(*attempt);
            to.put_u64_le(last.cas());
        }
    }
}

impl LaneMessage {
    /// Appends the message to a frame's payload.
    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Self::Shard(shard, message) => encode_shard(to, *shard, message),
            Self::Departed(shard, item) => {
                head(to, DEPARTED, *shard);
                to.put_u64_le(item.key_hash);
                to.put_u64_le(item.stamp);
            }
            Self::Used(shard, hashes) => {
                head(to, USED, *shard);
                to.put_u32_le(len_u32(hashes.len()));
                hashes.iter().for_each(|&hash| to.put_u64_le(hash));
            }
            Self::WhatHaveYou(shard, epoch) => {
                head(to, WHAT_HAVE_YOU, *shard);
                to.put_u32_le(epoch.0);
            }
            Self::IHave { shard, epoch, is_all, items } => {
                head(to, I_HAVE, *shard);
                to.put_u32_le(epoch.0);
                to.put_u8(u8::from(*is_all));
                put_stamps(to, items);
            }
            Self::Item(shard, op) => {
                head(to, ITEM, *shard);
                to.put_u32_le(len_u32(op.len()));
                to.put_slice(op);
            }
            Self::Drop(shard, items) => {
                head(to, DROP, *shard);
                put_stamps(to, items);
            }
        }
    }

    /// Which shard it is about.
    pub(crate) fn shard(&self) -> ShardId {
        match self {
            Self::Shard(shard, _)
            | Self::Departed(shard, _)
            | Self::Used(shard, _)
            | Self::WhatHaveYou(shard, _)
            | Self::IHave { shard, .. }
            | Self::Item(shard, _)
            | Self::Drop(shard, _) => *shard,
        }
    }

    /// The key of the first operation that it carries, if it carries any.
    pub(crate) fn first_key(&self) -> Option<&[u8]> {
        let op = match self {
            Self::Shard(_, Message::Append(append)) => &append.entries.first()?.op,
            Self::Item(_, op) => op,
            _ => return None,
        };
        match Op::decode(op) {
            Ok(Op::Put { key, .. } | Op::Touch { key, .. } | Op::Remove { key }) => Some(key),
            Ok(Op::Flush | Op::Confirm) | Err(_) => None,
        }
    }

    /// Whether the operations that it carries can be carried out.
    pub(crate) fn is_sound(&self) -> bool {
        let are_ops = |entries: &[Entry]| entries.iter().all(|entry| Op::decode(&entry.op).is_ok());
        match self {
            Self::Shard(_, Message::Append(append)) => are_ops(&append.entries),
            Self::Shard(_, Message::Sealed { beyond, .. }) => are_ops(beyond),
            Self::Item(_, op) => Op::decode(op).is_ok(),
            _ => true,
        }
    }

    /// Takes the next message off a frame's payload; operations are copied to `ops`, so that nothing keeps the
    /// frame.
    ///
    /// # Errors
    ///
    /// When what is there is no message. The connection is to be dropped then.
    pub(crate) fn decode(from: &mut &[u8], ops: &mut Ops) -> Result<Self, BadMessage> {
        let left = from.len();
        Self::try_decode(from, ops).ok_or(BadMessage { left })
    }

    fn try_decode(from: &mut &[u8], ops: &mut Ops) -> Option<Self> {
        let kind = from.try_get_u8().ok()?;
        let shard = ShardId(from.try_get_u16_le().ok()?);
        let message = match kind {
            APPEND => Message::Append(Append {
                epoch: epoch(from)?,
                prev: version(from)?,
                committed: sequence(from)?,
                stable: sequence(from)?,
                entries: entries(from, ops)?,
            }),
            APPENDED => Message::Appended { epoch: epoch(from)?, last: version(from)? },
            MISMATCH => Message::Mismatch {
                epoch: epoch(from)?,
                last: version(from)?,
                promised: epoch(from)?,
            },
            SEAL => Message::Seal(Seal {
                from: epoch(from)?,
                primary: NodeId(from.try_get_u32_le().ok()?),
                incarnation: Incarnation(from.try_get_u64_le().ok()?),
                ballot: epoch(from)?,
                last: version(from)?,
            }),
            SEALED => Message::Sealed {
                ballot: epoch(from)?,
                last: version(from)?,
                beyond: entries(from, ops)?.into_vec(),
            },
            SEAL_REFUSED => Message::SealRefused { ballot: epoch(from)?, promised: epoch(from)? },
            JOIN => Message::Join {
                epoch: epoch(from)?,
                incarnation: Incarnation(from.try_get_u64_le().ok()?),
                attempt: from.try_get_u32_le().ok()?,
                at: version(from)?,
            },
            COMPLETE => Message::Complete {
                epoch: epoch(from)?,
                attempt: from.try_get_u32_le().ok()?,
                at: version(from)?,
            },
            JOINED => Message::Joined {
                epoch: epoch(from)?,
                attempt: from.try_get_u32_le().ok()?,
                last: version(from)?,
            },
            DEPARTED => return Some(Self::Departed(shard, stamp(from)?)),
            USED => {
                return Some(Self::Used(shard, list(from, 8, |from| from.try_get_u64_le().ok())?));
            }
            WHAT_HAVE_YOU => return Some(Self::WhatHaveYou(shard, epoch(from)?)),
            I_HAVE => {
                let epoch = epoch(from)?;
                let is_all = from.try_get_u8().ok()? != 0;
                return Some(Self::IHave { shard, epoch, is_all, items: list(from, 16, stamp)? });
            }
            ITEM => return Some(Self::Item(shard, op(from, ops)?)),
            DROP => return Some(Self::Drop(shard, list(from, 16, stamp)?)),
            _ => return None,
        };
        Some(Self::Shard(shard, message))
    }
}

fn epoch(from: &mut &[u8]) -> Option<Epoch> {
    let epoch = Epoch(from.try_get_u32_le().ok()?);
    (epoch <= Epoch::MAX).then_some(epoch)
}

fn version(from: &mut &[u8]) -> Option<Version> {
    Some(Version::from_cas(from.try_get_u64_le().ok()?))
}

fn sequence(from: &mut &[u8]) -> Option<Sequence> {
    Some(Sequence(from.try_get_u64_le().ok()?))
}

fn stamp(from: &mut &[u8]) -> Option<KeyStamp> {
    let key_hash = from.try_get_u64_le().ok()?;
    Some(KeyStamp { key_hash, stamp: from.try_get_u64_le().ok()? })
}

fn op(from: &mut &[u8], ops: &mut Ops) -> Option<Bytes> {
    let len = from.try_get_u32_le().ok()? as usize;
    let (op, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(ops.copy(op))
}

fn entries(from: &mut &[u8], ops: &mut Ops) -> Option<Entries> {
    list(from, 12, |from| Some(Entry { version: version(from)?, op: op(from, ops)? }))
}

/// A count and so many elements of at least `bytes_min` each.
fn list<T, L: FromIterator<T>>(
    from: &mut &[u8],
    bytes_min: usize,
    mut one: impl FnMut(&mut &[u8]) -> Option<T>,
) -> Option<L> {
    let count = from.try_get_u32_le().ok()? as usize;
    // Before memory is taken for it: a count that the frame has no room for is a lie.
    if count > from.len() / bytes_min {
        return None;
    }
    (0..count).map(|_| one(from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(epoch: u32, sequence: u64) -> Version {
        Version::new(Epoch(epoch), Sequence(sequence))
    }

    fn one_of_each() -> Vec<LaneMessage> {
        let entry = |sequence| Entry {
            version: version(3, sequence),
            op: Bytes::from(vec![b'x'; usize::try_from(sequence).unwrap()]),
        };
        let stamps = vec![KeyStamp { key_hash: 5, stamp: 6 }, KeyStamp { key_hash: 7, stamp: 8 }];
        let shard = ShardId(1023);
        let of_shards = [
            Message::Append(Append {
                epoch: Epoch(3),
                prev: version(2, 7),
                committed: Sequence(6),
                stable: Sequence(5),
                entries: [entry(8), entry(9)].into_iter().collect(),
            }),
            Message::Appended { epoch: Epoch(3), last: version(3, 9) },
            Message::Mismatch { epoch: Epoch(3), last: version(3, 9), promised: Epoch(4) },
            Message::Seal(Seal {
                from: Epoch(3),
                primary: NodeId(9),
                incarnation: Incarnation(u64::MAX),
                ballot: Epoch(5),
                last: version(3, 9),
            }),
            Message::Sealed { ballot: Epoch(5), last: version(3, 9), beyond: vec![entry(1)] },
            Message::SealRefused { ballot: Epoch(5), promised: Epoch(6) },
            Message::Join {
                epoch: Epoch(5),
                incarnation: Incarnation(1),
                attempt: 7,
                at: version(3, 9),
            },
            Message::Complete { epoch: Epoch(5), attempt: 7, at: version(3, 9) },
            Message::Joined { epoch: Epoch(5), attempt: 7, last: version(3, 9) },
        ];
        let mut all: Vec<_> =
            of_shards.into_iter().map(|message| LaneMessage::Shard(shard, message)).collect();
        all.extend([
            LaneMessage::Departed(shard, stamps[0]),
            LaneMessage::Used(shard, vec![1, 2, 3]),
            LaneMessage::WhatHaveYou(shard, Epoch(5)),
            LaneMessage::IHave { shard, epoch: Epoch(5), is_all: true, items: stamps.clone() },
            LaneMessage::Item(shard, Bytes::from_static(b"op")),
            LaneMessage::Drop(shard, stamps),
        ]);
        all
    }

    #[test]
    fn messages_of_one_frame_are_read_as_they_were_written() {
        let mut payload = Vec::new();
        one_of_each().iter().for_each(|message| message.encode(&mut payload));
        let mut from = payload.as_slice();
        let mut ops = Ops::default();
        for message in one_of_each() {
            assert_eq!(LaneMessage::decode(&mut from, &mut ops), Ok(message));
        }
        assert!(from.is_empty());
    }

    #[test]
    fn message_that_is_cut_short_is_refused() {
        for message in one_of_each() {
            let mut payload = Vec::new();
            message.encode(&mut payload);
            for len in 0..payload.len() {
                let decoded = LaneMessage::decode(&mut &payload[..len], &mut Ops::default());
                assert_eq!(decoded, Err(BadMessage { left: len }));
            }
        }
    }

    #[test]
    fn count_that_the_frame_has_no_room_for_takes_no_memory() {
        let mut from: &[u8] = &[USED, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
        assert!(LaneMessage::decode(&mut from, &mut Ops::default()).is_err());
    }
}
