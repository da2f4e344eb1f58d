//! What is asked for by the prefix of its key: `stats detail`.
//!
//! The prefix is what stands before the first delimiter (`-D`); a key without one is not counted. What is
//! counted is bounded: a prefix that comes when there is no room for another is not. memcached bounds their
//! number alone.

use std::collections::BTreeMap;
use std::io::Write as _;

use parking_lot::Mutex;

/// Prefixes at most.
const PREFIXES_MAX: usize = 1 << 16;
/// What they and their counts may take, in bytes.
const BYTES_MAX: usize = 4 << 20;
/// What one takes beside its own length, about.
const PREFIX_BYTES: usize = 96;

/// What was asked of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Get { hit: bool },
    Set,
    Delete,
}

/// Counts by prefix.
#[derive(Debug)]
pub(super) struct Prefixes {
    delimiter: u8,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    prefixes: BTreeMap<Box<[u8]>, Counts>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    gets: u64,
    hits: u64,
    sets: u64,
    deletes: u64,
}

impl Prefixes {
    pub(super) fn new(delimiter: u8) -> Self {
        Self { delimiter, counted: Mutex::default() }
    }

    pub(super) fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// Counts what was asked of `key`.
    pub(super) fn count(&self, key: &[u8], asked: Asked) {
        let Some(end) = key.iter().position(|&byte| byte == self.delimiter) else { return };
        let prefix = &key[..end];
        let mut counted = self.counted.lock();
        let counted = &mut *counted;
        if !counted.prefixes.contains_key(prefix) {
            let bytes = counted.bytes + prefix.len() + PREFIX_BYTES;
            if counted.prefixes.len() >= PREFIXES_MAX || bytes > BYTES_MAX {
                return;
            }
            counted.bytes = bytes;
            counted.prefixes.insert(prefix.into(), Counts::default());
        }
        let Some(counts) = counted.prefixes.get_mut(prefix) else { return };
        match asked {
            Asked::Get { hit } => {
                counts.gets += 1;
                counts.hits += u64::from(hit);
            }
            Asked::Set => counts.sets += 1,
            Asked::Delete => counts.deletes += 1,
        }
    }

    /// Appends a line for each prefix, in their order, and the end of them.
    pub(super) fn dump(&self, out: &mut Vec<u8>) {
        for (prefix, counts) in &self.counted.lock().prefixes {
            let Counts { gets, hits, sets, deletes } = counts;
            out.extend_from_slice(b"PREFIX ");
            out.extend_from_slice(prefix);
            // Writing to a vector does not fail.
            let _ = write!(out, " get {gets} hit {hits} set {sets} del {deletes}\r\n");
        }
        out.extend_from_slice(b"END\r\n");
    }

    pub(super) fn clear(&self) {
        *self.counted.lock() = Counted::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dumped(prefixes: &Prefixes) -> String {
        let mut out = Vec::new();
        prefixes.dump(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn requests_are_counted_by_what_stands_before_the_delimiter() {
        let prefixes = Prefixes::new(b':');
        prefixes.count(b"foo:1", Asked::Get { hit: true });
        prefixes.count(b"foo:2", Asked::Get { hit: false });
        prefixes.count(b"foo:3:4", Asked::Set);
        prefixes.count(b"bar:", Asked::Delete);
        prefixes.count(b"no-prefix", Asked::Set);
        let expected =
            "PREFIX bar get 0 hit 0 set 0 del 1\r\nPREFIX foo get 2 hit 1 set 1 del 0\r\nEND\r\n";
        assert_eq!(dumped(&prefixes), expected);
        prefixes.clear();
        assert_eq!(dumped(&prefixes), "END\r\n");
    }

    #[test]
    fn prefixes_are_bounded_in_number_and_in_bytes() {
        let prefixes = Prefixes::new(b'/');
        for number in 0..2 * PREFIXES_MAX {
            prefixes.count(format!("{number}/").as_bytes(), Asked::Set);
        }
        let counted = prefixes.counted.lock();
        assert!(counted.prefixes.len() <= PREFIXES_MAX && counted.bytes <= BYTES_MAX);
        assert!(counted.prefixes.len() > PREFIXES_MAX / 2, "there is room for many");
    }
}
