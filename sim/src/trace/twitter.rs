//! Twitter's cache-trace: requests to its memcached-like caches.
//!
//! ```text
//! time,anonymised key,key size,value size,client,op,TTL
//! 0,q:q:1:8WTwl7huJeQ,17,249,1,get,0
//! ```
//!
//! - There is no header. Times and TTLs are seconds; a TTL is 0 unless the op writes.
//! - A get's value size may be 0: it was a miss.
//! - A key may hold a comma, so the fields are counted from both ends.
//!
//! The layout is that of github.com/twitter/cache-trace, README.

use memchr::{memchr, memrchr};

use super::fields::{bad, key_length, number_u32, object_id, size};
use super::lines::{LineFormat, Parsed};
use super::{Access, Fault, Op};

/// The lines.
pub(crate) struct Twitter;

impl LineFormat for Twitter {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        let (line, ttl) = before_last(line, "TTL")?;
        let (line, op) = before_last(line, "op")?;
        let (line, _client) = before_last(line, "client")?;
        let (line, value_size) = before_last(line, "value size")?;
        let (line, key_size) = before_last(line, "key size")?;
        let comma = memchr(b',', line).ok_or(Fault::Missing { field: "key" })?;
        let (time, key) = (&line[..comma], &line[comma + 1..]);
        if key.is_empty() {
            return Err(Fault::EmptyId);
        }
        Ok(Parsed::One(Access {
            id: object_id(key),
            time_s: number_u32("time", time)?,
            size_bytes: size(value_size)?,
            ttl_s: number_u32("TTL", ttl.trim_ascii_end())?,
            key_bytes: key_length(key_size)?,
            op: op_named(op).ok_or_else(|| bad("op", op, "one of memcached's"))?,
        }))
    }
}

/// What stands before the last field, and that.
#[inline]
fn before_last<'a>(line: &'a [u8], field: &'static str) -> Result<(&'a [u8], &'a [u8]), Fault> {
    let comma = memrchr(b',', line).ok_or(Fault::Missing { field })?;
    Ok((&line[..comma], &line[comma + 1..]))
}

/// The op that memcached calls so.
#[inline]
pub(crate) fn op_named(name: &[u8]) -> Option<Op> {
    Some(match name {
        b"get" | b"gets" => Op::Get,
        b"gat" | b"gats" => Op::GetAndTouch,
        b"set" => Op::Set,
        b"add" => Op::Add,
        b"replace" => Op::Replace,
        b"cas" => Op::Cas,
        b"append" => Op::Append,
        b"prepend" => Op::Prepend,
        b"delete" => Op::Delete,
        b"touch" => Op::Touch,
        b"incr" => Op::Incr,
        b"decr" => Op::Decr,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::lines::testing::{accesses, complaint};

    #[test]
    fn lines_have_the_documented_layout() {
        let text = "0,q:q:1:8W,17,249,1,get,0\n5,42,2,100,9,set,3600\n6,42,2,0,9,delete,0\n";
        let get = Access { key_bytes: 17, ..Access::get(0, object_id(b"q:q:1:8W"), 249) };
        let set =
            Access { id: 42, time_s: 5, size_bytes: 100, ttl_s: 3600, key_bytes: 2, op: Op::Set };
        let delete = Access { time_s: 6, size_bytes: 0, ttl_s: 0, op: Op::Delete, ..set };
        assert_eq!(accesses(Twitter, text), [get, set, delete]);
    }

    #[test]
    fn every_op_is_known_by_its_name() {
        for op in Op::ALL {
            let text = format!("0,k,1,1,1,{op},0\n");
            assert_eq!(accesses(Twitter, &text)[0].op, op);
        }
        assert_eq!(accesses(Twitter, "0,k,1,1,1,gets,0\n")[0].op, Op::Get);
    }

    #[test]
    fn a_key_may_hold_a_comma() {
        assert_eq!(accesses(Twitter, "0,a,b,3,1,1,get,0\n")[0].id, object_id(b"a,b"));
    }

    #[test]
    fn malformed_lines_say_what_is_wrong() {
        for (line, why) in [
            ("0,k,1,1,1,fetch,0", "the op is `fetch`, not one of memcached's"),
            ("0,k,1,x,1,get,0", "the size is `x`, not a number from 0 to 18446744073709551615"),
            ("0,1,1,1,get,0", "there is no key"),
            ("0,,1,1,1,get,0", "the id is empty"),
            ("get", "there is no TTL"),
        ] {
            assert_eq!(complaint(Twitter, line), format!("line 1: {why}"));
        }
    }
}
