//! The buffers that the kernel picks from when bytes arrive, and a ring in which it finds them.
//!
//! ```text
//! entries:  | .. | 7 | 3 | 0 | .. |      taken by the kernel in this order, added behind the last
//! memory:   | buffer 0 | buffer 1 | ... | buffer n-1 |
//! ```
//!
//! A buffer is either in the ring, the kernel's, or [`Filled`], ours. A receive that takes several takes
//! the ones that follow each other in the ring.
//!
//! The kernel goes through all buffers in turn, so there are no more of them than are needed, or none would
//! be in the processor's cache: there are few at first, and twice as many whenever they did not suffice.

#![expect(unsafe_code, reason = "the kernel is told of raw memory; everything above is safe")]

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::memory::Pages;

/// Buffers do not begin at equal places in pages: the cache would have room for few of them.
const STAGGER_BYTES: usize = 64;

/// The one group of buffers of a ring.
pub(super) const GROUP: u16 = 0;

/// The buffers of one ring.
#[derive(Debug)]
pub(super) struct Pool {
    memory: Pages,
    entries: Pages,
    buffer_bytes: usize,
    /// How many buffers there are by now.
    count: u16,
    /// By place in the ring: the buffer that was put there last.
    ids: Box<[u16]>,
    /// By buffer: the place where it was put last.
    places: Box<[u16]>,
    /// How many were ever put in, modulo 2^16; the kernel has been told of `told`.
    tail: u16,
    told: u16,
}

/// A buffer that the kernel has filled; to be given back.
#[derive(Debug)]
pub(super) struct Filled {
    id: u16,
    len: u32,
}

impl Filled {
    /// How many bytes are in it.
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }
}

impl Pool {
    /// Registers `count` buffers with `uring`, which may become `count_max`, a power of two.
    pub(super) fn register(
        uring: &IoUring,
        count: u16,
        count_max: u16,
        buffer_bytes: usize,
    ) -> io::Result<Self> {
        let memory = Pages::new(usize::from(count_max) * (buffer_bytes + STAGGER_BYTES));
        let entries = Pages::new(usize::from(count_max) * size_of::<BufRingEntry>());
        let address = entries.base().as_ptr() as u64;
        // SAFETY: `entries` holds `count_max` entries and, as the pool that it belongs to, outlives the
        // ring's operations: `Ring::drop` waits for them, or abandons the memory.
        unsafe { uring.submitter().register_buf_ring_with_flags(address, count_max, GROUP, 0)? };
        let places: Box<[u16]> = (0..count_max).collect();
        let ids = places.clone();
        let mut pool =
            Self { memory, entries, buffer_bytes, count: 0, ids, places, tail: 0, told: 0 };
        pool.grow_to(count);
        pool.tell();
        Ok(pool)
    }

    /// They did not suffice: there are twice as many from now on, as far as there may be.
    pub(super) fn grow(&mut self) {
        self.grow_to(self.count.saturating_mul(2));
    }

    fn grow_to(&mut self, count: u16) {
        let count_max = u16::try_from(self.ids.len()).unwrap_or(u16::MAX);
        let ids = self.count..count.min(count_max);
        self.count = ids.end;
        ids.for_each(|id| self.put(id));
    }

    /// The buffers that hold what one receive of `bytes` brought, from the one called `first` on.
    pub(super) fn filled(&self, first: u16, bytes: usize) -> impl Iterator<Item = Filled> {
        let (start, mask) = (self.places[usize::from(first)], self.mask());
        let count = bytes.div_ceil(self.buffer_bytes);
        (0..count).map(move |index| {
            let len = (bytes - index * self.buffer_bytes).min(self.buffer_bytes);
            let place = start.wrapping_add(u16::try_from(index).unwrap_or(u16::MAX)) & mask;
            Filled { id: self.ids[usize::from(place)], len: u32::try_from(len).unwrap_or(u32::MAX) }
        })
    }

    /// What arrived in `filled`, from `from` on.
    pub(super) fn bytes(&self, filled: &Filled, from: usize) -> &[u8] {
        let start = self.offset(filled.id);
        self.memory.bytes(start + from..start + filled.len())
    }

    /// Has the kernel fill it again, once it is told.
    pub(super) fn give_back(&mut self, filled: Filled) {
        self.put(filled.id);
    }

    /// The kernel has taken `id` and put nothing into it.
    pub(super) fn give_back_empty(&mut self, id: u16) {
        self.put(id);
    }

    /// Tells the kernel of what was given back.
    pub(super) fn tell(&mut self) {
        if self.told == self.tail {
            return;
        }
        self.told = self.tail;
        let base = self.entries.base().cast::<BufRingEntry>();
        // SAFETY: `base` is the registered ring, aligned to a page.
        let tail = unsafe { BufRingEntry::tail(base.as_ptr()) };
        // SAFETY: it lies within the first entry, is aligned, and is written by nobody but us.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Whoever sees it sees the entries before it.
        tail.store(self.tail, Ordering::Release);
    }

    /// Never gives the memory back: the kernel may not be done with it.
    pub(super) fn abandon(&mut self) {
        self.memory.abandon();
        self.entries.abandon();
    }

    fn put(&mut self, id: u16) {
        let place = self.tail & self.mask();
        self.ids[usize::from(place)] = id;
        self.places[usize::from(id)] = place;
        let offset = self.offset(id);
        // SAFETY: the buffer lies within the memory.
        let address = unsafe { self.memory.base().add(offset) };
        let base = self.entries.base().cast::<BufRingEntry>();
        // SAFETY: `place` is less than the count of entries.
        let mut entry = unsafe { base.add(usize::from(place)) };
        // SAFETY: zeroed at first, aligned, and not the kernel's: it looks no further than the tail
        // that it was told, and as many places as there are buffers suffice for all of them.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(address.as_ptr() as u64);
        entry.set_len(u32::try_from(self.buffer_bytes).unwrap_or(u32::MAX));
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn offset(&self, id: u16) -> usize {
        usize::from(id) * (self.buffer_bytes + STAGGER_BYTES)
    }

    fn mask(&self) -> u16 {
        // The count is a power of two that fits; see `register`.
        u16::try_from(self.ids.len() - 1).unwrap_or(u16::MAX)
    }
}
