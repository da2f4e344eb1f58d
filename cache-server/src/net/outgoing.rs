//! What a connection has to say: answers that may leave, and behind them those that may not yet.
//!
//! ```text
//! output:  | sent | may leave ... |
//! held:                           | hold | answers | hold | ... |    empty while nothing is held
//! ```
//!
//! While nothing is held, answers are appended to the output and nothing else happens: a server
//! whose answers are always ready pays one comparison per request. From the first hold on they are
//! appended to the held bytes, and move over when everything before them may leave.

use crate::clock::Now;
use crate::net::buffers::Buffer;
use crate::net::connection::{Turn, TurnLimits};
use crate::net::ticket::{Hold, HolderId};
use crate::net::waiting_room::{HeldBytes, Left, WaitingRoom};
use crate::net::{Apart, Call, Service};

/// The answers of one connection that are not sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) output: Buffer,
    /// A value that goes between the bytes of the output, until it is sent or among them.
    apart: Option<Apart>,
    /// Whether there may be one.
    sends_apart: bool,
    holder: HolderId,
    held: HeldBytes,
    /// What the room said last of the holds within `held`.
    left: Left,
}

/// Where the next answer goes.
struct Space<'a> {
    /// Appended to.
    out: &'a mut Vec<u8>,
    /// The length of `out` at which a request of many answers pauses.
    bytes_high: usize,
    /// How many holds it may have until then.
    holds_max: usize,
}

impl Outgoing {
    /// Nothing yet, on behalf of `holder`.
    pub(crate) fn new(holder: HolderId) -> Self {
        Self {
            output: Buffer::default(),
            apart: None,
            sends_apart: false,
            holder,
            held: HeldBytes::default(),
            left: Left::default(),
        }
    }

    /// The connection's socket can send several pieces at once.
    pub(crate) fn allow_apart(&mut self) {
        self.sends_apart = true;
    }

    /// Keeps a value that belongs to the answer that was appended last.
    pub(crate) fn set_apart(&mut self, apart: Apart) {
        debug_assert!(self.apart.is_none(), "each is sent before the next request");
        self.apart = Some(apart);
    }

    /// Whether there is one.
    #[inline]
    pub(crate) fn has_apart(&self) -> bool {
        self.apart.is_some()
    }

    /// All that is to be sent, piece by piece: the value that stands apart is one of them, or several.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let Self { output, apart, .. } = self;
        let at = apart.as_ref().map_or(output.bytes.len(), |apart| apart.at);
        let value = apart.iter().flat_map(|apart| apart.value.pieces());
        std::iter::once(&output.bytes[output.start..at])
            .chain(value)
            .chain(std::iter::once(&output.bytes[at..]))
    }

    /// The first `sent` bytes of the [pieces](Self::pieces) are on their way. What is left of the value is copied to where
    /// it belongs, and unpinned.
    pub(crate) fn end_apart(&mut self, mut sent: usize) {
        let Some(Apart { at, value }) = self.apart.take() else { return };
        let output = &mut self.output;
        let before = sent.min(at - output.start);
        output.start += before;
        sent -= before;
        if sent >= value.len() {
            output.start += sent - value.len();
            return;
        }
        let mut rest = Vec::with_capacity(value.len() - sent);
        for piece in value.pieces() {
            let skipped = sent.min(piece.len());
            rest.extend_from_slice(&piece[skipped..]);
            sent -= skipped;
        }
        output.bytes.splice(at..at, rest);
    }

    /// Who waits for what is held.
    pub(crate) fn holder(&self) -> HolderId {
        self.holder
    }

    /// Whether anything is held.
    pub(crate) fn is_holding(&self) -> bool {
        self.left.holds > 0
    }

    /// Whether something was to be kept here for which there is no memory.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        self.left.is_out_of_memory
    }

    /// What keeps the next request waiting, if anything does.
    #[inline]
    pub(crate) fn obstacle(&self, limits: TurnLimits) -> Option<Turn> {
        let output_bytes = self.output.rest().len();
        if self.left.holds == 0 {
            return (output_bytes >= limits.output_bytes_high).then_some(Turn::Full);
        }
        let held_bytes = self.held_bytes();
        if self.left.holds >= limits.holds_max || held_bytes >= limits.output_bytes_high {
            return Some(Turn::Held);
        }
        (output_bytes + held_bytes >= limits.output_bytes_high).then_some(Turn::Full)
    }

    /// The circumstances of the request `raw`, and where its answer goes. There is no obstacle.
    #[inline]
    pub(crate) fn call<'a>(
        &'a mut self,
        now: Now,
        raw: &'a [u8],
        done: usize,
        room: &'a WaitingRoom,
        limits: TurnLimits,
    ) -> (Call<'a>, &'a mut Vec<u8>) {
        let holder = self.holder;
        let sends_apart = self.sends_apart && self.left.holds == 0;
        let Space { out, bytes_high, holds_max } = self.space(limits);
        let call = Call {
            now,
            raw,
            done,
            output_bytes_high: bytes_high,
            holds_max,
            sends_apart,
            holder,
            waiting_room: room,
        };
        (call, out)
    }

    #[inline]
    fn space(&mut self, limits: TurnLimits) -> Space<'_> {
        if self.left.holds == 0 {
            return Space {
                bytes_high: self.output.start + limits.output_bytes_high,
                out: &mut self.output.bytes,
                holds_max: limits.holds_max,
            };
        }
        let elsewhere = self.output.rest().len() + self.left.replacement_bytes;
        let (out, start) = self.held.out();
        Space {
            bytes_high: start + limits.output_bytes_high.saturating_sub(elsewhere),
            out,
            holds_max: limits.holds_max.saturating_sub(self.left.holds),
        }
    }

    /// Appends a line that waits for nothing but what is before it.
    pub(crate) fn push(&mut self, line: &[u8]) {
        let out = if self.left.holds == 0 { &mut self.output.bytes } else { self.held.out().0 };
        out.extend_from_slice(line);
    }

    /// Holds back what of the answer that `service` has just appended is not ready.
    #[inline]
    pub(crate) fn hold_what_waits(&mut self, service: &mut impl Service, room: &WaitingRoom) {
        if let Some(holds) = service.holds()
            && !holds.is_empty()
        {
            self.hold(room, holds);
        }
    }

    fn hold(&mut self, room: &WaitingRoom, holds: &mut Vec<Hold>) {
        let out = (self.left.holds == 0).then_some(&mut self.output.bytes);
        self.left.holds += room.hold(self.holder, holds, &mut self.held, out);
    }

    /// Moves to the output what waits for nothing any more, as far as the output is not full.
    #[inline]
    pub(crate) fn release(&mut self, room: &WaitingRoom, limits: TurnLimits) {
        if self.left.holds > 0 {
            let high = self.output.start + limits.output_bytes_high;
            self.left = room.release(self.holder, &mut self.held, &mut self.output.bytes, high);
        }
    }

    /// The memory that what is held takes and that belongs to the connection, in bytes.
    pub(crate) fn held_capacity(&mut self) -> usize {
        self.held.compact();
        self.held.capacity()
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.output.start = self.output.bytes.len();
        self.apart = None;
        self.held = HeldBytes::default();
        self.left = Left::default();
    }

    fn held_bytes(&self) -> usize {
        self.held.len() + self.left.replacement_bytes
    }
}

#[cfg(test)]
mod tests {
    use eviction::Kind;
    use store::{Config, Deadline, Geometry, Key, NewItem, Precondition, Shard, Timestamp};

    use super::*;

    /// A value of more than one piece, pinned.
    fn pinned(value: &[u8]) -> store::PinnedValue {
        let geometry = Geometry::new(1 << 20, 1 << 17, 1);
        let config = Config {
            geometry,
            item_bytes_max: 1 << 18,
            policy: Kind::Lru,
            evicts: true,
            protected: store::Protected::NONE,
            shard: 0,
        };
        let mut shard = Shard::new(config);
        let (key, now) = (Key::new(b"k"), Timestamp(1_800_000_000_000));
        let deadline = Deadline::NEVER;
        let new = NewItem { client_flags: 0, deadline, value: &[value], own_cas: None };
        shard.put(&key, &new, Precondition::None, now);
        shard.get(&key, now).unwrap().value.pin().unwrap()
    }

    #[test]
    fn however_much_of_it_is_sent_the_rest_follows() {
        let value: Vec<u8> = (0..70_000u32).map(|n| (n % 251) as u8).collect();
        let (before, after) = (b"VALUE k 0 70000\r\n", b"\r\nEND\r\n");
        let whole = [&before[..], &value, after].concat();
        let ends = [0, 1, before.len(), before.len() + 1, 40_000, before.len() + value.len()];
        for sent in ends.into_iter().chain([whole.len() - 1, whole.len()]) {
            let mut outgoing = Outgoing::new(HolderId { slot: 0, generation: 0 });
            outgoing.output.bytes.extend_from_slice(b"sent before");
            outgoing.output.start = outgoing.output.bytes.len();
            let at = outgoing.output.start + before.len();
            outgoing.output.bytes.extend_from_slice(&[&before[..], after].concat());
            outgoing.set_apart(Apart { at, value: pinned(&value) });
            assert_eq!(outgoing.pieces().collect::<Vec<_>>().concat(), whole);
            outgoing.end_apart(sent);
            assert!(!outgoing.has_apart());
            assert!(*outgoing.output.rest() == whole[sent..], "{sent} bytes sent");
        }
    }
}
