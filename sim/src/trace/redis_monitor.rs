//! Redis's and Valkey's `MONITOR`: the commands a server was given.
//!
//! ```text
//! 1378822105.089572 [0 127.0.0.1:56604] "SET" "msg" "hello world" "EX" "60"
//! seconds           database, client    arguments, quoted and \-escaped
//! ```
//!
//! - Replies are not shown: how large a value is is known from its write only.
//! - Strings are read: GET, MGET, GETEX, GETDEL, SET with its options, SETEX, PSETEX, SETNX, GETSET,
//!   MSET, MSETNX, APPEND, DEL, UNLINK, the EXPIRE family, PERSIST, INCR and DECR. Other types, and all
//!   that is not a value under a key, are passed over.
//! - A key is one of its database: the same name in two databases is two objects.
//! - INCR makes the key if it is not there; here, as in memcached, it does not.
//!
//! The layout is that of redis.io/commands/monitor and of `sdscatrepr` in Redis's `sds.c`.

use std::collections::VecDeque;

use super::fields::{bad, compound_id, length_of, number, object_id, seconds};
use super::lines::{LineFormat, Parsed};
use super::{Access, Fault, Op};

/// Milliseconds in a second.
const SECOND_MS: u64 = 1000;

/// The lines.
#[derive(Debug, Default)]
pub(crate) struct RedisMonitor {
    /// The arguments of the line, their bytes one behind the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    queue: VecDeque<Access>,
}

impl LineFormat for RedisMonitor {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        let line = line.trim_ascii();
        if line == b"OK" || line == b"+OK" {
            return Ok(Parsed::Silent);
        }
        let line = line.strip_prefix(b"+").unwrap_or(line);
        let mut parts = line.splitn(2, |&byte| byte == b' ');
        let time = parts.next().unwrap_or_default();
        let time_s = seconds(time)?;
        let rest = parts.next().unwrap_or_default();
        let bracket = rest.strip_prefix(b"[").ok_or(Fault::Missing { field: "client" })?;
        let end = bracket.iter().position(|&byte| byte == b']');
        let end = end.ok_or(Fault::Missing { field: "client" })?;
        let database = bracket[..end].split(|&byte| byte == b' ').next().unwrap_or_default();
        self.unquote(&bracket[end + 1..])?;
        self.queue.clear();
        self.read_command(time_s, database)
    }

    fn pop(&mut self) -> Option<Access> {
        self.queue.pop_front()
    }
}

impl RedisMonitor {
    /// Takes the quotes and escapes off the arguments.
    fn unquote(&mut self, mut rest: &[u8]) -> Result<(), Fault> {
        self.bytes.clear();
        self.ends.clear();
        loop {
            rest = rest.trim_ascii_start();
            let Some(quoted) = rest.strip_prefix(b"\"") else { break };
            rest = quoted;
            loop {
                let (&byte, behind) = rest.split_first().ok_or(Fault::OpenQuote)?;
                rest = behind;
                match byte {
                    b'"' => break,
                    b'\\' => {
                        let (&escape, behind) = rest.split_first().ok_or(Fault::OpenQuote)?;
                        let hex = |at: usize| char::from(*behind.get(at)?).to_digit(16);
                        let (byte, taken) = match (escape, hex(0).zip(hex(1))) {
                            (b'x', Some((high, low))) => {
                                (u8::try_from(high * 16 + low).unwrap_or_default(), 2)
                            }
                            (b'n', _) => (b'\n', 0),
                            (b'r', _) => (b'\r', 0),
                            (b't', _) => (b'\t', 0),
                            (b'a', _) => (7, 0),
                            (b'b', _) => (8, 0),
                            (other, _) => (other, 0),
                        };
                        self.bytes.push(byte);
                        rest = &behind[taken..];
                    }
                    other => self.bytes.push(other),
                }
            }
            self.ends.push(self.bytes.len());
        }
        if rest.is_empty() { Ok(()) } else { Err(bad("arguments", rest, "in quotes")) }
    }

    /// An argument, the command being number 0.
    fn argument(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(&self.bytes[start..end])
    }

    /// Puts the accesses of a command into the queue.
    fn read_command(&mut self, time_s: u32, database: &[u8]) -> Result<Parsed, Fault> {
        let command = self.argument(0).ok_or(Fault::Missing { field: "command" })?;
        let command = command.to_ascii_uppercase();
        let access = |op| Access { op, ..Access::get(time_s, 0, 0) };
        let last = self.ends.len();
        match command.as_slice() {
            b"GET" => self.push(database, 1, access(Op::Get))?,
            b"MGET" => self.push_all(database, 1..last, access(Op::Get))?,
            b"GETDEL" => {
                self.push(database, 1, access(Op::Get))?;
                self.push(database, 1, access(Op::Delete))?;
            }
            b"GETEX" => {
                let read = match self.options(2, time_s)?.ttl {
                    Ttl::Unsaid => access(Op::Get),
                    Ttl::Forever => access(Op::GetAndTouch),
                    Ttl::Of(ttl_s) => Access { ttl_s, ..access(Op::GetAndTouch) },
                };
                self.push(database, 1, read)?;
            }
            b"SET" => {
                let options = self.options(3, time_s)?;
                let ttl_s = match options.ttl {
                    Ttl::Of(ttl_s) => ttl_s,
                    Ttl::Unsaid | Ttl::Forever => 0,
                };
                if options.is_read {
                    self.push(database, 1, access(Op::Get))?;
                }
                self.push(database, 1, self.sized(2, Access { ttl_s, ..access(options.op) })?)?;
            }
            b"SETEX" | b"PSETEX" => {
                let scale = if command[0] == b'P' { SECOND_MS } else { 1 };
                let ttl_s = self.duration(2, scale)?;
                self.push(database, 1, self.sized(3, Access { ttl_s, ..access(Op::Set) })?)?;
            }
            b"SETNX" => self.push(database, 1, self.sized(2, access(Op::Add))?)?,
            b"GETSET" => {
                self.push(database, 1, access(Op::Get))?;
                self.push(database, 1, self.sized(2, access(Op::Set))?)?;
            }
            b"MSET" | b"MSETNX" => {
                let op = if command.len() == 4 { Op::Set } else { Op::Add };
                for key in (1..last).step_by(2) {
                    self.push(database, key, self.sized(key + 1, access(op))?)?;
                }
            }
            b"APPEND" => self.push(database, 1, self.sized(2, access(Op::Append))?)?,
            b"DEL" | b"UNLINK" => self.push_all(database, 1..last, access(Op::Delete))?,
            b"PERSIST" => self.push(database, 1, access(Op::Touch))?,
            b"EXPIRE" | b"PEXPIRE" => {
                let scale = if command[0] == b'P' { SECOND_MS } else { 1 };
                let touch = match self.argument(2) {
                    // A time that has passed deletes.
                    Some(text) if text.starts_with(b"-") || text == b"0" => access(Op::Delete),
                    _ => Access { ttl_s: self.duration(2, scale)?, ..access(Op::Touch) },
                };
                self.push(database, 1, touch)?;
            }
            b"EXPIREAT" | b"PEXPIREAT" => {
                let scale = if command[0] == b'P' { SECOND_MS } else { 1 };
                let touch = match self.moment(2, scale, time_s)? {
                    0 => access(Op::Delete),
                    ttl_s => Access { ttl_s, ..access(Op::Touch) },
                };
                self.push(database, 1, touch)?;
            }
            b"INCR" | b"INCRBY" | b"INCRBYFLOAT" => self.push(database, 1, access(Op::Incr))?,
            b"DECR" | b"DECRBY" => self.push(database, 1, access(Op::Decr))?,
            _ => return Ok(Parsed::PassedOver),
        }
        Ok(Parsed::Queued)
    }

    /// Puts an access to the key that is argument `index` into the queue.
    fn push(&mut self, database: &[u8], index: usize, access: Access) -> Result<(), Fault> {
        let key = self.argument(index).ok_or(Fault::Missing { field: "key" })?;
        let id = match database {
            b"0" => object_id(key),
            database => compound_id(&[database, key]),
        };
        let key_bytes = length_of(key);
        self.queue.push_back(Access { id, key_bytes, ..access });
        Ok(())
    }

    fn push_all(
        &mut self,
        database: &[u8],
        mut indexes: impl Iterator<Item = usize>,
        access: Access,
    ) -> Result<(), Fault> {
        indexes.try_for_each(|index| self.push(database, index, access))
    }

    /// `access` with the size of the value that is argument `index`.
    fn sized(&self, index: usize, access: Access) -> Result<Access, Fault> {
        let value = self.argument(index).ok_or(Fault::Missing { field: "value" })?;
        Ok(Access { size_bytes: u32::try_from(value.len()).unwrap_or(u32::MAX), ..access })
    }

    /// Argument `index` as a duration in seconds, rounded up; `scale` steps are a second.
    fn duration(&self, index: usize, scale: u64) -> Result<u32, Fault> {
        let text = self.argument(index).ok_or(Fault::Missing { field: "expiry" })?;
        let steps = number(text).ok_or_else(|| bad("expiry", text, "a number"))?;
        Ok(u32::try_from(steps.div_ceil(scale)).unwrap_or(u32::MAX))
    }

    /// Argument `index` as a moment, in seconds from now; 0 has passed.
    fn moment(&self, index: usize, scale: u64, now_s: u32) -> Result<u32, Fault> {
        Ok(self.duration(index, scale)?.saturating_sub(now_s))
    }

    /// The options of a SET or GETEX, from argument `from` on.
    fn options(&self, from: usize, now_s: u32) -> Result<Options, Fault> {
        let mut options = Options { op: Op::Set, ttl: Ttl::Unsaid, is_read: false };
        let mut index = from;
        while let Some(option) = self.argument(index) {
            let ttl_s = match option.to_ascii_uppercase().as_slice() {
                b"EX" => Some(self.duration(index + 1, 1)?),
                b"PX" => Some(self.duration(index + 1, SECOND_MS)?),
                b"EXAT" => Some(self.moment(index + 1, 1, now_s)?.max(1)),
                b"PXAT" => Some(self.moment(index + 1, SECOND_MS, now_s)?.max(1)),
                other => {
                    match other {
                        b"PERSIST" => options.ttl = Ttl::Forever,
                        b"NX" => options.op = Op::Add,
                        b"XX" => options.op = Op::Replace,
                        b"GET" => options.is_read = true,
                        _ => {}
                    }
                    None
                }
            };
            if let Some(ttl_s) = ttl_s {
                options.ttl = Ttl::Of(ttl_s);
                index += 1;
            }
            index += 1;
        }
        Ok(options)
    }
}

/// What a SET or GETEX asks for besides.
struct Options {
    op: Op,
    ttl: Ttl,
    /// Whether the old value is asked for.
    is_read: bool,
}

/// Which expiry an option asks for.
#[derive(Clone, Copy)]
enum Ttl {
    Unsaid,
    Forever,
    Of(u32),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::lines::testing::{accesses, complaint, ops, read};

    fn line(arguments: &str) -> String {
        format!("1378822105.089572 [0 127.0.0.1:56604] {arguments}\n")
    }

    fn ops_of(arguments: &str) -> Vec<(Op, u32, u32)> {
        ops(&accesses(RedisMonitor::default(), &line(arguments)))
    }

    #[test]
    fn commands_on_strings_are_read() {
        let get = (Op::Get, 0, 0);
        for (arguments, want) in [
            (r#""SET" "msg" "hello world""#, vec![(Op::Set, 11, 0)]),
            (r#""set" "msg" "hi" "ex" "60" "NX""#, vec![(Op::Add, 2, 60)]),
            (r#""SET" "msg" "hi" "XX" "PX" "1500""#, vec![(Op::Replace, 2, 2)]),
            (r#""SET" "msg" "hi" "EXAT" "1378822165" "GET""#, vec![get, (Op::Set, 2, 60)]),
            (r#""SETEX" "msg" "60" "hi""#, vec![(Op::Set, 2, 60)]),
            (r#""PSETEX" "msg" "1" "hi""#, vec![(Op::Set, 2, 1)]),
            (r#""MSET" "a" "1" "b" "22""#, vec![(Op::Set, 1, 0), (Op::Set, 2, 0)]),
            (r#""GET" "msg""#, vec![get]),
            (r#""MGET" "a" "b""#, vec![get, get]),
            (r#""GETEX" "a" "EX" "5""#, vec![(Op::GetAndTouch, 0, 5)]),
            (r#""GETDEL" "a""#, vec![get, (Op::Delete, 0, 0)]),
            (r#""DEL" "a" "b""#, vec![(Op::Delete, 0, 0); 2]),
            (r#""EXPIRE" "a" "60""#, vec![(Op::Touch, 0, 60)]),
            (r#""PEXPIREAT" "a" "1378822165000""#, vec![(Op::Touch, 0, 60)]),
            (r#""EXPIRE" "a" "-1""#, vec![(Op::Delete, 0, 0)]),
            (r#""PERSIST" "a""#, vec![(Op::Touch, 0, 0)]),
            (r#""APPEND" "a" "xyz""#, vec![(Op::Append, 3, 0)]),
            (r#""INCRBY" "a" "3""#, vec![(Op::Incr, 0, 0)]),
        ] {
            assert_eq!(ops_of(arguments), want, "{arguments}");
        }
    }

    #[test]
    fn arguments_are_unescaped() {
        let read = accesses(RedisMonitor::default(), &line(r#""GET" "a\"\\\x41\n \x4""#));
        assert_eq!(read[0].id, object_id(b"a\"\\A\n x4"));
        assert_eq!(read[0].key_bytes, 8);
    }

    #[test]
    fn databases_are_apart() {
        let text = "1.0 [0 lua] \"GET\" \"a\"\n1.0 [1 unix:/run/redis.sock] \"GET\" \"a\"\n";
        let read = accesses(RedisMonitor::default(), text);
        assert_ne!(read[0].id, read[1].id);
        assert_eq!(read[0].id, object_id(b"a"));
    }

    #[test]
    fn greeting_is_silent_and_other_commands_are_passed_over() {
        let text = format!("OK\n{}{}", line(r#""HGET" "h" "f""#), line(r#""PING""#));
        let (items, notes) = read(RedisMonitor::default(), &text);
        assert_eq!((items.len(), notes.passed_over), (0, 2));
    }

    #[test]
    fn malformed_lines_say_what_is_wrong() {
        for (line, why) in [
            (line(r#""GET" "a"#), "a quote is not closed in its line"),
            (line(r#""SET" "a""#), "there is no value"),
            (line(r#""SETEX" "a" "x" "1""#), "the expiry is `x`, not a number"),
            ("1.0 \"GET\" \"a\"\n".into(), "there is no client"),
        ] {
            assert_eq!(complaint(RedisMonitor::default(), &line), format!("line 1: {why}"));
        }
    }
}
