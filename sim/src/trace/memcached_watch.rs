//! memcached's `watch fetchers mutations evictions deletions`, as a client of it receives it.
//!
//! ```text
//! OK
//! ts=1795321311.320809 gid=2 type=item_get key=k%3A3 status=not_found clsid=0 cfd=11 size=0
//! ts=1795321311.321549 gid=4 type=item_store key=k%3A3 status=stored cmd=set ttl=0 clsid=5 cfd=11 size=155
//! ts=… gid=… type=deleted key=k%3A3 cmd=delete clsid=5 size=155
//! ts=… gid=… type=eviction key=k%3A4 fetch=yes ttl=-1 la=3 clsid=5 size=155
//! skipped=17
//! ```
//!
//! What a reader must know of it:
//!
//! - Each thread has a buffer of its own, so lines come out of order. They are put in the order of
//!   `gid` again, within a window of [`WINDOW_LINES`]; what comes later than that stays where it is.
//! - A write looks its key up first, and that is logged as an `item_get`: one that is followed, on the
//!   same connection, by an `item_store` of the same key was no read. A `deleted` has no connection;
//!   the last lookup of its key before it was its own.
//! - Keys are URI-encoded. The microseconds of `ts` are not padded (`10.5` is 10.000005); whole seconds
//!   are taken. `size` is the value's, 0 on a miss. `ttl` is what is left, 0 is for ever.
//! - `skipped=N` means that N lines were lost because the watcher was too slow: their share is reported.
//! - incr, decr and touch show as lookups, and are taken for reads.
//!
//! Fields are found by name, because versions differ in them. The layout is that of memcached's
//! `logger.c` and `doc/protocol.txt`, "Watchers".

use std::collections::{BTreeMap, HashMap};

use memchr::memmem;

use super::fields::{bad, length_of, number, number_u32, object_id, seconds, size};
use super::lines::{LineFormat, Parsed};
use super::{Access, Fault, Op};

/// How many lines are put in order at a time.
const WINDOW_LINES: usize = 4096;

/// Connections that are remembered at a time; as many as a server may have.
const CONNECTIONS_MAX: usize = 1 << 17;

/// The lines.
#[derive(Debug, Default)]
pub(crate) struct MemcachedWatch {
    /// Lines by number; several may have one.
    window: BTreeMap<(u64, u64), Held>,
    /// Lines taken by now: tells apart those of one number.
    lines: u64,
    /// The last lookup of each connection.
    last_lookup: HashMap<u32, Lookup>,
    /// The last lookup of all.
    last_of_all: Option<Lookup>,
    /// The log has ended, and the window is emptied.
    is_ending: bool,
}

/// A line in the window.
#[derive(Clone, Copy, Debug)]
struct Held {
    access: Access,
    /// A lookup that turned out to be part of a write.
    is_part_of_write: bool,
}

/// A lookup that may turn out to be part of a write.
#[derive(Clone, Copy, Debug)]
struct Lookup {
    place: (u64, u64),
    id: u64,
}

/// What a line means that tells of the watching itself, in any of memcached's streams: its beginning, or
/// how many lines were lost.
pub(super) fn about_the_watch(line: &[u8]) -> Option<Result<Parsed, Fault>> {
    if line.starts_with(b"OK") {
        return Some(Ok(Parsed::Silent));
    }
    let count = line.strip_prefix(b"skipped=")?.trim_ascii();
    let lost = number(count).map(Parsed::Lost);
    Some(lost.ok_or_else(|| bad("skipped", count, "a number of lines")))
}

impl LineFormat for MemcachedWatch {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        if let Some(parsed) = about_the_watch(line) {
            return parsed;
        }
        let line = Line(line);
        let op = match line.field(b"type=")? {
            b"item_get" => Op::Get,
            b"item_store" => match line.field(b"cmd=")? {
                b"add" => Op::Add,
                b"replace" => Op::Replace,
                b"cas" => Op::Cas,
                b"append" => Op::Append,
                b"prepend" => Op::Prepend,
                // A `null` is of a command that logs no name: a meta set, mostly.
                _ => Op::Set,
            },
            b"deleted" => Op::Delete,
            _ => return Ok(Parsed::PassedOver),
        };
        let (id, key_bytes) = decoded_key(line.field(b"key=")?)?;
        let gid = number(line.field(b"gid=")?).ok_or(Fault::Missing { field: "gid" })?;
        let time_s = seconds(line.field(b"ts=")?)?;
        // Old versions have no size in some lines.
        let size_bytes = line.field_if_any(b"size=").map_or(Ok(0), size)?;
        let ttl_s = match line.field_if_any(b"ttl=") {
            // Evictions aside, -1 is what versions write for ever.
            Some(ttl) if !ttl.starts_with(b"-") => number_u32("TTL", ttl)?,
            _ => 0,
        };
        let connection = line.field_if_any(b"cfd=").and_then(number).unwrap_or(u64::MAX);
        let connection = u32::try_from(connection).unwrap_or(u32::MAX);
        let access = Access { id, time_s, size_bytes, ttl_s, key_bytes, op };
        self.lines += 1;
        self.take((gid, self.lines), connection, access);
        Ok(Parsed::Queued)
    }

    fn pop(&mut self) -> Option<Access> {
        while self.is_ending || self.window.len() > WINDOW_LINES {
            let (_, held) = self.window.pop_first()?;
            if !held.is_part_of_write {
                return Some(held.access);
            }
        }
        None
    }

    fn finish(&mut self) {
        self.is_ending = true;
    }
}

impl MemcachedWatch {
    /// Puts a line into the window, and marks the lookup that it began with.
    fn take(&mut self, place: (u64, u64), connection: u32, access: Access) {
        let lookup = Lookup { place, id: access.id };
        let of_write = match access.op {
            Op::Get => {
                if self.last_lookup.len() >= CONNECTIONS_MAX {
                    self.last_lookup.clear();
                }
                self.last_lookup.insert(connection, lookup);
                self.last_of_all = Some(lookup);
                None
            }
            Op::Delete => self.last_of_all.take(),
            _ => self.last_lookup.remove(&connection),
        };
        let of_write = of_write.filter(|lookup| lookup.id == access.id && lookup.place < place);
        if let Some(lookup) = of_write.and_then(|lookup| self.window.get_mut(&lookup.place)) {
            lookup.is_part_of_write = true;
        }
        self.window.insert(place, Held { access, is_part_of_write: false });
    }
}

/// A line's fields, `name=value`, by name.
#[derive(Clone, Copy)]
struct Line<'a>(&'a [u8]);

impl<'a> Line<'a> {
    /// The value behind `name`, which ends in `=` and must be there.
    fn field(self, name: &'static [u8]) -> Result<&'a [u8], Fault> {
        let field = std::str::from_utf8(name).unwrap_or_default().trim_end_matches('=');
        self.field_if_any(name).ok_or(Fault::Missing { field })
    }

    /// The value behind `name`. No value holds a blank: keys are encoded.
    fn field_if_any(self, name: &[u8]) -> Option<&'a [u8]> {
        let at = memmem::find_iter(self.0, name)
            .find(|&at| at == 0 || self.0[at - 1].is_ascii_whitespace())?;
        self.0[at + name.len()..].split(u8::is_ascii_whitespace).next()
    }
}

/// The id and length of a URI-encoded key.
fn decoded_key(encoded: &[u8]) -> Result<(u64, u16), Fault> {
    if encoded.is_empty() {
        return Err(Fault::EmptyId);
    }
    if !encoded.contains(&b'%') {
        return Ok((object_id(encoded), length_of(encoded)));
    }
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&byte, behind)) = rest.split_first() {
        let digit = |at: usize| char::from(*behind.get(at)?).to_digit(16);
        let escaped = if byte == b'%' { digit(0).zip(digit(1)) } else { None };
        (rest, _) = match escaped {
            Some((high, low)) => {
                (&behind[2..], decoded.push(u8::try_from(high * 16 + low).unwrap_or_default()))
            }
            None => (behind, decoded.push(byte)),
        };
    }
    Ok((object_id(&decoded), length_of(&decoded)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::lines::testing::{accesses, complaint, ops, read};

    /// Lines as memcached 1.6.18 writes them.
    fn get(gid: u32, key: &str, size: u32, cfd: u32) -> String {
        let status = if size > 0 { "found" } else { "not_found" };
        format!(
            "ts=10.5 gid={gid} type=item_get key={key} status={status} clsid=0 cfd={cfd} size={size}\n"
        )
    }

    fn store(gid: u32, key: &str, cmd: &str, ttl: u32, size: u32, cfd: u32) -> String {
        format!(
            "ts=11.5 gid={gid} type=item_store key={key} status=stored cmd={cmd} ttl={ttl} clsid=5 \
             cfd={cfd} size={size}\n"
        )
    }

    #[test]
    fn the_lookup_of_a_write_is_no_read() {
        let text = [
            "OK\n".into(),
            get(1, "a", 0, 11),
            get(2, "a", 0, 11),
            store(3, "a", "set", 60, 155, 11),
            get(4, "a", 155, 11),
            get(5, "b", 7, 12),
            store(6, "a", "add", 0, 9, 11),
        ]
        .concat();
        let want = [(Op::Get, 0, 0), (Op::Set, 155, 60), (Op::Get, 7, 0), (Op::Add, 9, 0)];
        assert_eq!(ops(&accesses(MemcachedWatch::default(), &text)), want);
    }

    #[test]
    fn lines_are_put_in_the_order_of_their_numbers() {
        let text = [get(3, "c", 3, 1), get(1, "a", 1, 2), get(2, "b", 2, 3)].concat();
        let sizes: Vec<u32> =
            accesses(MemcachedWatch::default(), &text).iter().map(|it| it.size_bytes).collect();
        assert_eq!(sizes, [1, 2, 3]);
    }

    #[test]
    fn more_lines_than_the_window_holds_come_out_all() {
        let lines: Vec<String> = (1..10_000).map(|gid| get(gid, "a", gid, 1)).collect();
        let read = accesses(MemcachedWatch::default(), &lines.concat());
        assert!(read.iter().map(|access| access.size_bytes).eq(1..10_000));
    }

    #[test]
    fn keys_are_decoded_and_times_are_whole_seconds() {
        let read = accesses(MemcachedWatch::default(), &get(1, "k%3A3%3A0%zz", 1, 1));
        assert_eq!((read[0].id, read[0].key_bytes), (object_id(b"k:3:0%zz"), 8));
        assert_eq!(read[0].time_s, 10);
    }

    #[test]
    fn a_delete_and_its_lookup_are_one() {
        let deleted = "ts=12.1 gid=3 type=deleted key=a cmd=delete clsid=5 size=155\n";
        let text = [get(1, "a", 155, 1), get(2, "a", 155, 1), deleted.into()].concat();
        let want = [(Op::Get, 155, 0), (Op::Delete, 155, 0)];
        assert_eq!(ops(&accesses(MemcachedWatch::default(), &text)), want);
    }

    #[test]
    fn what_was_lost_is_counted_and_what_is_no_request_passed_over() {
        let text = "OK\nskipped=17\nskipped=3\n\
                    ts=1.0 gid=1 type=eviction key=a fetch=yes ttl=-1 la=3 clsid=5 size=155\n";
        let (items, notes) = read(MemcachedWatch::default(), text);
        assert_eq!((items.len(), notes.lost, notes.passed_over), (0, 20, 1));
    }

    #[test]
    fn malformed_lines_say_what_is_wrong() {
        for (line, why) in [
            ("ts=1.0 gid=1 key=a", "there is no type"),
            ("ts=1.0 gid=1 type=item_get status=found", "there is no key"),
            (
                "ts=x gid=1 type=item_get key=a",
                "the time is `x`, not a number from 0 to 4294967295",
            ),
            ("skipped=many", "the skipped is `many`, not a number of lines"),
        ] {
            assert_eq!(complaint(MemcachedWatch::default(), line), format!("line 1: {why}"));
        }
    }
}
