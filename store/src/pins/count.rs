//! How often one segment is pinned. The model test in `tests/pins_model.rs` puts loom's atomics in.

use super::sync::{Arc, AtomicU32, Ordering};

/// How often one segment is pinned.
#[derive(Debug, Default)]
pub(crate) struct Count(Arc<AtomicU32>);

/// One of the times. Dropped, it is none any more.
#[derive(Debug)]
pub(crate) struct Pin(Arc<AtomicU32>);

impl Count {
    /// Once more; under the lock of the segment's shard.
    pub(crate) fn pin(&self) -> Pin {
        self.0.fetch_add(1, Ordering::Relaxed);
        Pin(Arc::clone(&self.0))
    }

    /// Whether it is pinned; under the lock of the segment's shard. If not, whoever had it pinned has read what it wanted
    /// to, and whatever is written from now on is written after that.
    #[inline]
    pub(crate) fn is_pinned(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}
