//! A column: one value for every [`EntryId`], dense.
//!
//! Room is reserved when the column is built and not touched before an entry needs it, so reserving
//! for more entries than ever come costs address space, not memory. An id beyond what was announced
//! makes the column grow.

use std::ops::{Index, IndexMut};

use crate::EntryId;
use crate::snapshot::{Reader, Row, SnapshotError, Writer};

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

    /// Makes room for `entry`, with `value` for all that have none yet.
    #[inline]
    pub(crate) fn reach(&mut self, entry: EntryId, value: T) {
        if entry.index() >= self.0.len() {
            self.grow(entry, value);
        }
    }

    /// The rows up to that of the highest entry ever set.
    pub(crate) fn rows(&self) -> &[T] {
        &self.0
    }

    /// Writes all rows, without their number.
    pub(crate) fn save<const BYTES: usize>(&self, to: &mut Writer<'_>)
    where
        T: Row<BYTES>,
    {
        to.rows(&self.0);
    }

    /// Replaces all rows by `rows` rows that `save` wrote. What was reserved stays so.
    pub(crate) fn load<const BYTES: usize>(
        &mut self,
        rows: usize,
        from: &mut Reader<'_>,
    ) -> Result<(), SnapshotError>
    where
        T: Row<BYTES>,
    {
        from.rows(rows, &mut self.0)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn a_loaded_column_has_the_rows_that_were_saved_and_the_room_that_was_reserved() {
        let mut saved = Column::<u32>::with_capacity(0);
        (0..10).for_each(|id| saved.set(EntryId(id), id * id));
        let mut bytes = Vec::new();
        saved.save(&mut Writer::new(&mut bytes, Kind::Lru));

        let mut loaded = Column::<u32>::with_capacity(1_000);
        let place = loaded.address(EntryId(0));
        loaded.load(10, &mut Reader::new(&bytes, Kind::Lru).unwrap()).unwrap();
        assert_eq!(loaded.rows(), saved.rows());
        (10..1_000).for_each(|id| loaded.set(EntryId(id), id));
        assert_eq!(loaded.address(EntryId(0)), place);
    }
}
