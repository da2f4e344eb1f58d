//! webcachesim's `.tr` (also of LRB and `AdaptSize`): time, id and size, separated by blanks.
//!
//! ```text
//! time id size [further features]
//! 1 4 1024
//! ```
//!
//! The layout is that of github.com/sunnyszy/lrb, README, "Trace Format". The simulator of `AdaptSize`
//! takes an id of another size for another object; here an object keeps its identity, and while it is
//! in the cache its size.

use super::fields::{length_of, object_id, seconds, size, word, words};
use super::lines::{LineFormat, Parsed};
use super::{Access, Fault};

/// The lines.
pub(crate) struct Webcachesim;

impl LineFormat for Webcachesim {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        let mut words = words(line);
        let time_s = seconds(word(&mut words, "time")?)?;
        let id = word(&mut words, "id")?;
        let size_bytes = size(word(&mut words, "size")?)?;
        let access = Access::get(time_s, object_id(id), size_bytes);
        Ok(Parsed::One(Access { key_bytes: length_of(id), ..access }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::lines::testing::{accesses, complaint};

    #[test]
    fn features_behind_the_size_are_not_read() {
        let read = accesses(Webcachesim, "1 4 1024\n2 5 10 7 7\n");
        let read: Vec<_> = read.iter().map(|it| (it.time_s, it.id, it.size_bytes)).collect();
        assert_eq!(read, [(1, 4, 1024), (2, 5, 10)]);
    }

    #[test]
    fn a_line_without_a_size_is_malformed() {
        assert_eq!(complaint(Webcachesim, "1 4\n"), "line 1: there is no size");
    }
}
