//! Pins: values that are read where they stand after the shard was unlocked.
//!
//! ```text
//! locked    find ─> pin ─┐                    segment freed ─> kept back ─ ... ─> no pin: free for the next record
//! unlocked               └─> read ─> unpin ─────────────────────────────────────────^
//! ```
//!
//! - A value is never rewritten in place but for numbers, which are short; what is pinned is longer
//!   ([`PINNED_BYTES_MIN`]). So a pinned value changes only when its segment is written anew or given back, and the log
//!   does neither while it is pinned.
//! - Whoever has a pin waits for no lock: the log, which is locked, may be waiting for the pin.
//! - Pins are taken under the shard's lock alone, so that a count that was seen at zero there stays so. They are given back
//!   without it.

#![expect(unsafe_code, reason = "what is pinned is read without the lock that the log is behind")]

use std::ptr::NonNull;

use crate::pins::count::Count;

mod count;
mod sync;

/// The shortest value that is pinned rather than copied.
pub const PINNED_BYTES_MIN: usize = 1024;

/// How often each segment is pinned.
#[derive(Debug, Default)]
pub(crate) struct Pins(Vec<Count>);

impl Pins {
    /// Of segments of which none is pinned.
    pub(crate) fn new(segments: usize) -> Self {
        let mut pins = Self::default();
        pins.grow(segments);
        pins
    }

    pub(crate) fn grow(&mut self, segments: usize) {
        self.0.resize_with(segments.max(self.0.len()), Count::default);
    }

    /// Pins `bytes`, which stand in the segment of that number.
    pub(crate) fn pin(&self, segment: usize, bytes: &[u8]) -> PinnedPiece {
        let pin = self.0[segment].pin();
        PinnedPiece { start: NonNull::from(bytes).cast(), len: bytes.len(), _pin: pin }
    }

    /// Whether it is pinned.
    #[inline]
    pub(crate) fn is_pinned(&self, segment: usize) -> bool {
        self.0[segment].is_pinned()
    }

    /// Whether any is.
    pub(crate) fn is_any_pinned(&self) -> bool {
        self.0.iter().any(Count::is_pinned)
    }
}

/// A part of a value, in one segment.
#[derive(Debug)]
pub(crate) struct PinnedPiece {
    start: NonNull<u8>,
    len: usize,
    _pin: count::Pin,
}

// SAFETY: what it points at is shared, and read alone.
unsafe impl Send for PinnedPiece {}

impl PinnedPiece {
    fn bytes(&self) -> &[u8] {
        // SAFETY: `start` points at `len` initialised bytes of a segment that the log neither gives back nor writes
        // anew while `self` pins it (`Log::free`, `Drop for Log`). What the log writes to other bytes of the segment
        // meanwhile touches none of these.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

/// An item's value, to be read where it stands for a moment. Whoever has one takes no lock of a shard until it is
/// dropped.
#[derive(Debug)]
pub struct PinnedValue {
    pieces: Box<[PinnedPiece]>,
}

impl PinnedValue {
    pub(crate) fn new(pieces: Box<[PinnedPiece]>) -> Self {
        Self { pieces }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len).sum()
    }

    /// Whether the value is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value's pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(PinnedPiece::bytes)
    }
}
