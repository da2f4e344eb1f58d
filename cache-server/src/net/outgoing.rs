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
use crate::net::{Call, Service};

/// The answers of one connection that are not sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) output: Buffer,
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
            holder,
            held: HeldBytes::default(),
            left: Left::default(),
        }
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
        let Space { out, bytes_high, holds_max } = self.space(limits);
        let call = Call {
            now,
            raw,
            done,
            output_bytes_high: bytes_high,
            holds_max,
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
        self.held = HeldBytes::default();
        self.left = Left::default();
    }

    fn held_bytes(&self) -> usize {
        self.held.len() + self.left.replacement_bytes
    }
}
