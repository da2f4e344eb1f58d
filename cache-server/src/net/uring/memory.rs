//! Memory that the kernel reads and writes while operations are under way: whole pages, zeroed, never moved.

#![expect(unsafe_code, reason = "the kernel is handed raw memory; everything above is safe")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Range;
use std::ptr::NonNull;
use std::slice;

const PAGE_BYTES: usize = 4096;

/// Whole pages of memory.
#[derive(Debug)]
pub(super) struct Pages {
    base: NonNull<u8>,
    layout: Layout,
    is_abandoned: bool,
}

impl Pages {
    /// Zeroed pages that hold `bytes`, at least one.
    pub(super) fn new(bytes: usize) -> Self {
        let bytes = bytes.max(1).next_multiple_of(PAGE_BYTES);
        let layout = Layout::from_size_align(bytes, PAGE_BYTES);
        let layout = layout.expect("a few megabytes are less than half of the address space");
        // SAFETY: the layout's size is at least one page.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).unwrap_or_else(|| handle_alloc_error(layout));
        Self { base, layout, is_abandoned: false }
    }

    /// Where they begin; they stay there until `self` drops.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// What stands at `range`. The kernel writes nothing there meanwhile: whoever has let it write there has
    /// been told that it is done.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.layout.size(), "within the pages");
        // SAFETY: within the allocation, as has just been checked.
        let start = unsafe { self.base.add(range.start) };
        // SAFETY: initialised since it was allocated, borrowed from `self`, and not written by the
        // kernel, as the caller keeps track of.
        unsafe { slice::from_raw_parts(start.as_ptr(), range.len()) }
    }

    /// Writes `bytes` at `offset`. The kernel may read what stands elsewhere.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len()).expect("an offset within the pages");
        assert!(end <= self.layout.size(), "within the pages");
        // SAFETY: within the allocation, as has just been checked.
        let start = unsafe { self.base.add(offset) };
        // SAFETY: `start` has room for `bytes`, which belong to somebody else as `self` is borrowed
        // exclusively.
        unsafe { start.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    /// Never gives them back: the kernel may not be done with them.
    pub(super) fn abandon(&mut self) {
        self.is_abandoned = true;
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if !self.is_abandoned {
            // SAFETY: allocated with this very layout, and nobody is handed it any more.
            unsafe { dealloc(self.base.as_ptr(), self.layout) }
        }
    }
}
