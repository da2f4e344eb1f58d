//! A column: one value for every [`EntryId`], dense.
//!
//! Room is reserved when the column is built and not touched before an entry needs it, so reserving
//! for more entries than ever come costs address space, not memory. An id beyond what was announced
//! makes the column grow.

use std::ops::{Index, IndexMut};

use crate::EntryId;

/// One `T` for every entry; what it holds before it is set means nothing.
#[derive(Debug)]
pub(crate) struct Column<T>(Vec<T>);

impl<T: Copy> Column<T> {
    /// Reserves, untouched, for `entries_max` entries.
    pub(crate) fn with_capacity(entries_max: usize) -> Self {
        Self(Vec::with_capacity(entries_max))
    }

    /// Sets the value of `entry`, which need not have had one.
    #[inline]
    pub(crate) fn set(&mut self, entry: EntryId, value: T) {
        if let Some(place) = self.0.get_mut(entry.index()) {
            *place = value;
        } else {
            self.grow(entry, value);
        }
    }

    #[cold]
    fn grow(&mut self, entry: EntryId, value: T) {
        self.0.resize(entry.index() + 1, value);
    }
}

/// The value of an entry that was set before.
impl<T> Column<T> {
    /// Where the row of `entry` lies, or would lie.
    pub(crate) fn address(&self, entry: EntryId) -> *const u8 {
        self.0.as_ptr().wrapping_add(entry.index()).cast()
    }
}

impl<T> Index<EntryId> for Column<T> {
    type Output = T;

    #[inline]
    fn index(&self, entry: EntryId) -> &T {
        &self.0[entry.index()]
    }
}

impl<T> IndexMut<EntryId> for Column<T> {
    #[inline]
    fn index_mut(&mut self, entry: EntryId) -> &mut T {
        &mut self.0[entry.index()]
    }
}
