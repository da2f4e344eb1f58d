//! Meta's key-value caches, in the layouts of two years; columns are found by the header's names.
//!
//! ```text
//! 202206  key,op,size,op_count,key_size
//! 202401  op_time,key,key_size,op,op_count,size,cache_hits,ttl,usecase,sub_usecase
//! ```
//!
//! - A line stands for `op_count` requests within a second. In 202206 there are no times.
//! - A GET of size 0 was a miss.
//! - In 202206 the SET that follows a miss may stand before it (`CacheLib`, issue 306): a SET directly
//!   followed by GETs of its key that missed goes behind them.
//! - A lease is a GET that may be followed by a SET with the lease's token; here both are what they
//!   are without.
//!
//! The layouts are those of `CacheLib`'s documentation, "Cachebench", and its `KVReplayGenerator.h`.

use super::fields::{bad, key_length, number_u32, object_id, seconds, size};
use super::header::Columns;
use super::lines::{LineFormat, Parsed};
use super::{Access, Fault, Op, OpenError};

/// What a line of 202401 begins with.
const HEADER_2024: &[u8] = b"op_time,key,";

/// What a line of 202206 begins with.
const HEADER_2022: &[u8] = b"key,op,size,";

/// The lines of 202401.
pub(crate) struct MetaKv2024(Columns<7>);

impl MetaKv2024 {
    /// Finds the columns.
    ///
    /// # Errors
    ///
    /// One is not in the header.
    pub(crate) fn open(head: &[u8]) -> Result<Self, OpenError> {
        let names = ["op_time", "key", "key_size", "op", "op_count", "size", "ttl"];
        Columns::find(head, names).map(Self)
    }
}

impl LineFormat for MetaKv2024 {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        // Files that were put together have further headers.
        if line.starts_with(HEADER_2024) {
            return Ok(Parsed::Silent);
        }
        let [time, key, key_size, op, count, value_size, ttl] = self.0.of(line)?;
        if key.is_empty() {
            return Err(Fault::EmptyId);
        }
        let Some(op) = op_named(op)? else { return Ok(Parsed::PassedOver) };
        let access = Access {
            id: object_id(key),
            time_s: seconds(time)?,
            size_bytes: size(value_size)?,
            ttl_s: if op.is_write() { number_u32("TTL", ttl)? } else { 0 },
            key_bytes: key_length(key_size)?,
            op,
        };
        Ok(Parsed::Repeated(access, number_u32("op_count", count)?))
    }
}

/// The lines of 202206.
pub(crate) struct MetaKv2022 {
    columns: Columns<5>,
    /// A SET that may have to let GETs pass, and how many they are.
    held: Option<(Access, u32)>,
    /// What is to be handed out, in order.
    queue: [(Access, u32); 2],
}

impl MetaKv2022 {
    /// Finds the columns.
    ///
    /// # Errors
    ///
    /// One is not in the header.
    pub(crate) fn open(head: &[u8]) -> Result<Self, OpenError> {
        let columns = Columns::find(head, ["key", "op", "size", "op_count", "key_size"])?;
        Ok(Self { columns, held: None, queue: [(Access::default(), 0); 2] })
    }
}

impl LineFormat for MetaKv2022 {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        if line.starts_with(HEADER_2022) {
            return Ok(Parsed::Silent);
        }
        let [key, op, value_size, count, key_size] = self.columns.of(line)?;
        if key.is_empty() {
            return Err(Fault::EmptyId);
        }
        let Some(op) = op_named(op)? else { return Ok(Parsed::PassedOver) };
        let access = Access {
            id: object_id(key),
            time_s: 0,
            size_bytes: size(value_size)?,
            ttl_s: 0,
            key_bytes: key_length(key_size)?,
            op,
        };
        let count = number_u32("op_count", count)?;
        let none = (Access::default(), 0);
        self.queue = match self.held.take() {
            // What missed comes first; the SET stays held, for there may be more of them.
            Some(set) if op.is_read() && access.size_bytes == 0 && access.id == set.0.id => {
                self.held = Some(set);
                [(access, count), none]
            }
            held => {
                let held = held.unwrap_or(none);
                if op == Op::Set {
                    self.held = Some((access, count));
                    [held, none]
                } else {
                    [held, (access, count)]
                }
            }
        };
        Ok(Parsed::Queued)
    }

    fn pop(&mut self) -> Option<Access> {
        let (access, count) = self.queue.iter_mut().find(|(_, count)| *count > 0)?;
        *count -= 1;
        Some(*access)
    }

    fn finish(&mut self) {
        if let Some(held) = self.held.take() {
            self.queue[0] = held;
        }
    }
}

/// The op of a name; none of one that is no request of a cache's.
fn op_named(name: &[u8]) -> Result<Option<Op>, Fault> {
    Ok(Some(match name {
        b"GET" | b"GET_LEASE" | b"GETS" => Op::Get,
        b"SET" | b"SET_LEASE" => Op::Set,
        b"ADD" => Op::Add,
        b"REPLACE" => Op::Replace,
        b"CAS" => Op::Cas,
        b"DELETE" => Op::Delete,
        b"TOUCH" => Op::Touch,
        _ if name.is_empty() => return Err(bad("op", name, "the name of one")),
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::lines::testing::{accesses, complaint, ops, read};

    const HEADER: &str = "key,op,size,op_count,key_size\n";

    fn of_2022(lines: &str) -> Vec<(Op, u32, u32)> {
        let text = format!("{HEADER}{lines}");
        ops(&accesses(MetaKv2022::open(HEADER.as_bytes()).unwrap(), &text))
    }

    /// The beginning of `CacheLib`'s `kv_traces_1.csv` (Apache-2.0), and a line of our own.
    const OF_2024: &str = "\
op_time,key,key_size,op,op_count,size,cache_hits,ttl,usecase,sub_usecase
604038471,82131353f9ddc8c6,48,GET,1,87,1,0,366387042,3003229276
604038471,a54f88ab02ece24d,24,GET,3,0,0,0,699950563,699950563
604038472,a54f88ab02ece24d,24,SET,1,50,0,300,699950563,699950563
604038472,a54f88ab02ece24d,24,FLUSH,1,50,0,300,699950563,699950563
";

    #[test]
    fn a_line_stands_for_as_many_requests_as_it_counts() {
        let (items, notes) = read(MetaKv2024::open(OF_2024.as_bytes()).unwrap(), OF_2024);
        let accesses: Vec<Access> = items.into_iter().map(Result::unwrap).collect();
        let get = |size_bytes| (Op::Get, size_bytes, 0);
        assert_eq!(ops(&accesses), [get(87), get(0), get(0), get(0), (Op::Set, 50, 300)]);
        assert_eq!((accesses[0].key_bytes, accesses[0].time_s), (48, 604_038_471));
        assert_eq!(accesses[4].id, accesses[3].id);
        assert_eq!(notes.passed_over, 1, "what is no request");
    }

    #[test]
    fn a_set_goes_behind_the_misses_that_called_for_it() {
        let (get, set) = ((Op::Get, 0, 0), (Op::Set, 50, 0));
        assert_eq!(of_2022("a,SET,50,1,9\na,GET,0,2,9\na,GET_LEASE,0,1,9\n"), [get, get, get, set]);
        let hit = (Op::Get, 50, 0);
        assert_eq!(of_2022("a,SET,50,1,9\na,GET,50,1,9\n"), [set, hit]);
        assert_eq!(of_2022("a,SET,50,1,9\nb,GET,0,1,9\n"), [set, get]);
        assert_eq!(of_2022("a,SET,50,1,9\nb,SET,50,2,9\n"), [set, set, set]);
    }

    #[test]
    fn malformed_lines_say_what_is_wrong() {
        let format = || MetaKv2022::open(HEADER.as_bytes()).unwrap();
        let text = format!("{HEADER}a,GET,5,x,9\n");
        let want = "line 2: the op_count is `x`, not a number from 0 to 4294967295";
        assert_eq!(complaint(format(), &text), want);
        assert_eq!(complaint(format(), ",GET,5,1,9\n"), "line 1: the id is empty");
    }
}
