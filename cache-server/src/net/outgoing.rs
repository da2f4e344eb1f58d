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

use crate::net::buffers::Buffer;
use crate::net::connection::{Turn, TurnLimits};
use crate::net::ticket::{Hold, HolderId};
use crate::net::waiting_room::{HeldBytes, Left, WaitingRoom};

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
pub(crate) struct Space<'a> {
    /// Appended to.
    pub(crate) out: &'a mut Vec<u8>,
    /// The length of `out` at which a request of many answers pauses.
    pub(crate) bytes_high: usize,
    /// How many holds it may have until then.
    pub(crate) holds_max: usize,
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

    /// Where the next answer goes, and how long it may become. There is no obstacle.
    #[inline]
    pub(crate) fn space(&mut self, limits: TurnLimits) -> Space<'_> {
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

    /// Holds back `holds`, which lie in what was appended where [`Outgoing::space`] said.
    pub(crate) fn hold(&mut self, room: &WaitingRoom, holds: &mut Vec<Hold>) {
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
