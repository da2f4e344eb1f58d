//! Asks for huge pages under a large table before it is filled.
//!
//! A table that is read at random misses the processor's cache of addresses nearly every time where pages are
//! 4 KiB. Only tables that are written as a whole are worth it: what one of columns never touches would take memory.

#![expect(unsafe_code, reason = "advice to the kernel takes an address")]

/// Smaller tables do without: what a huge page holds besides would be too much of them.
const TABLE_BYTES_MIN: usize = 4 << 20;

/// An empty vector with room for `count` elements, in huge pages if that is much and the system has them.
pub(crate) fn with_capacity<T>(count: usize) -> Vec<T> {
    let table = Vec::with_capacity(count);
    #[cfg(all(target_os = "linux", not(miri)))]
    ask_for(&table);
    table
}

#[cfg(all(target_os = "linux", not(miri)))]
fn ask_for<T>(table: &Vec<T>) {
    const PAGE_BYTES: usize = 4096;
    let bytes = table.capacity() * size_of::<T>();
    if bytes < TABLE_BYTES_MIN {
        return;
    }
    let skipped = table.as_ptr().cast::<u8>().align_offset(PAGE_BYTES);
    let len = (bytes - skipped) / PAGE_BYTES * PAGE_BYTES;
    let from = table.as_ptr().cast::<u8>().wrapping_add(skipped).cast_mut().cast();
    // SAFETY: the pages lie within the vector's own memory, and the advice changes nothing that the program
    // could see. Refused by kernels built without huge pages, and then things stay as they are.
    let _offered = unsafe { libc::madvise(from, len, libc::MADV_HUGEPAGE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_room_whatever_its_size() {
        for count in [0, 1, 1000, 3 << 20] {
            let mut table = with_capacity::<u32>(count);
            assert!(table.is_empty() && table.capacity() >= count);
            table.resize(count, 7);
            assert!(table.iter().all(|&it| it == 7));
        }
    }
}
