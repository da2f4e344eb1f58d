//! The memory that all connections hold in buffers of their own, counted and bounded.
//!
//! Connections work in buffers that their worker lends them for a turn. One that must keep bytes
//! beyond its turn, half a request or an answer that the client has not taken, gets a buffer of its
//! own and a [`Lease`] on its size. The sum of all leases never exceeds the gauge's bound: a lease that does not fit
//! is refused, and the connection says so to its client, or closes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// How many bytes are leased, of how many.
#[derive(Debug)]
pub struct Gauge {
    bytes: CachePadded<AtomicUsize>,
    bytes_max: usize,
}

impl Gauge {
    /// A gauge of which nothing is leased yet.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes: CachePadded::new(AtomicUsize::new(0)), bytes_max }
    }

    /// Bytes leased now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that may be leased.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether more than half is leased: time to hurry those who hold memory without using it.
    pub fn is_scarce(&self) -> bool {
        self.bytes() > self.bytes_max / 2
    }
}

/// One connection's share of a [`Gauge`], given back when dropped.
#[derive(Debug)]
pub struct Lease {
    gauge: Arc<Gauge>,
    bytes: usize,
}

impl Lease {
    /// A lease on nothing yet.
    pub fn new(gauge: Arc<Gauge>) -> Self {
        Self { gauge, bytes: 0 }
    }

    /// Makes this a lease on `bytes`. False, and unchanged, when the gauge has not that much left.
    #[must_use]
    pub fn resize(&mut self, bytes: usize) -> bool {
        if bytes <= self.bytes {
            self.gauge.bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        } else {
            let more = bytes - self.bytes;
            let grown = self.gauge.bytes.try_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_add(more).filter(|&sum| sum <= self.gauge.bytes_max)
            });
            if grown.is_err() {
                return false;
            }
        }
        self.bytes = bytes;
        true
    }

    /// Bytes leased.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.gauge.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A vector of which a prefix is done with, and which may be the worker's.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) start: usize,
    is_lent: bool,
}

impl Buffer {
    /// What is not done with.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Takes `scratch`, the worker's, unless there is one of its own.
    pub(crate) fn borrow(&mut self, scratch: &mut Vec<u8>) {
        if self.bytes.capacity() == 0 {
            debug_assert!(scratch.is_empty() && self.start == 0, "nothing is left from before");
            debug_assert!(scratch.capacity() > 0, "whoever had it before gave it back");
            std::mem::swap(&mut self.bytes, scratch);
            self.is_lent = true;
        }
    }

    /// What the connection owns of it, in bytes.
    pub(crate) fn own_bytes(&self) -> usize {
        if self.is_lent { 0 } else { self.bytes.capacity() }
    }

    /// Gives a lent vector back and keeps the rest, if any, in one of `capacity` bytes.
    pub(crate) fn settle(&mut self, scratch: &mut Vec<u8>, capacity: usize) {
        if self.rest().is_empty() {
            self.bytes.clear();
            self.start = 0;
            let bytes = std::mem::take(&mut self.bytes);
            if std::mem::take(&mut self.is_lent) {
                *scratch = bytes;
            }
        } else if self.is_lent {
            let mut own = Vec::with_capacity(capacity);
            own.extend_from_slice(self.rest());
            *scratch = std::mem::replace(&mut self.bytes, own);
            scratch.clear();
            self.start = 0;
            self.is_lent = false;
        } else if capacity > self.bytes.capacity() || self.bytes.len() == self.bytes.capacity() {
            self.bytes.drain(..self.start);
            self.start = 0;
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_together_stay_within_the_bound() {
        let gauge = Arc::new(Gauge::new(100));
        let mut first = Lease::new(Arc::clone(&gauge));
        let mut second = Lease::new(Arc::clone(&gauge));
        assert!(first.resize(70));
        assert!(!second.resize(31), "only 30 are left");
        assert_eq!((second.bytes(), gauge.bytes()), (0, 70));
        assert!(second.resize(30));
        assert!(gauge.is_scarce());
        drop(first);
        assert_eq!(gauge.bytes(), 30);
        assert!(second.resize(100));
    }
}
