//! Asks the processor to bring a value near before it is read.
//!
//! A prefetch is a hint: it reads nothing that the program could see, so the only thing unsafe about
//! it is the intrinsic's signature. On processors without one this does nothing.

#![expect(unsafe_code, reason = "the prefetch instruction is an intrinsic that takes a pointer")]

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Fetches the cache line that `value` begins in.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    prefetch_address(std::ptr::from_ref(value).cast());
}

/// Fetches the cache line at an address, which need not be one to read from.
#[inline]
pub fn prefetch_address(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction reads nothing that the program could see and does not fault,
        // whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Fetches the first `lines` cache lines of `bytes`.
#[inline]
pub(crate) fn prefetch_lines(bytes: &[u8], lines: usize) {
    for line in bytes.chunks(LINE_BYTES).take(lines) {
        prefetch(&line[0]);
    }
}
