//! Plain ids, an object a line; and LIRS's traces, which mark places with `*`.
//!
//! ```text
//! 42932745          /index.html          42
//! 42932746          /logo.png            *
//! ```
//!
//! There are no times and no sizes: every object has size 1. The marks are those of Jiang and Zhang's
//! traces for LIRS (SIGMETRICS 2002), where they end a part of the trace; they ask for nothing.

use super::fields::{length_of, object_id};
use super::lines::{LineFormat, Parsed};
use super::{Access, Fault};

/// The lines.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ids {
    /// An id each.
    Plain,
    /// Ids and marks.
    Lirs,
}

impl LineFormat for Ids {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        let id = line.trim_ascii();
        if matches!(self, Self::Lirs) && id.starts_with(b"*") {
            return Ok(Parsed::PassedOver);
        }
        let access = Access::get(0, object_id(id), 1);
        Ok(Parsed::One(Access { key_bytes: length_of(id), ..access }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::lines::testing::{accesses, read};

    #[test]
    fn a_line_is_an_object() {
        let ids: Vec<u64> =
            accesses(Ids::Plain, "7\n /a \n7\n*\n").iter().map(|it| it.id).collect();
        assert_eq!(ids, [7, object_id(b"/a"), 7, object_id(b"*")]);
    }

    #[test]
    fn marks_are_passed_over() {
        let (items, notes) = read(Ids::Lirs, "7\n*\n8\n*** end\n");
        assert_eq!((items.len(), notes.passed_over), (2, 2));
    }
}
