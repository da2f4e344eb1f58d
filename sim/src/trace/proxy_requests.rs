//! memcached's proxy, `watch proxyreqs`: the requests it passed on, word for word.
//!
//! ```text
//! ts=… gid=… type=proxy_req elapsed=97 type=105 code=17 status=0 res=HD cfd=11 be=b0:11211 detail= req=get a b
//! ```
//!
//! - The request stands behind `req=`, to the line's end, in the classic or the meta protocol.
//! - A get of several keys is a read of each. How large a value is is known from its write only.
//! - `skipped=N` means that N lines were lost.
//!
//! The layout is that of memcached's `proxy_request.c` and `logger.c`.

use std::collections::VecDeque;

use memchr::memmem;

use super::fields::{length_of, number_u32, object_id, seconds, word, words};
use super::lines::{LineFormat, Parsed};
use super::memcached_watch::about_the_watch;
use super::twitter::op_named;
use super::{Access, Fault, Op};

/// Longer relative times are moments since 1970 (memcached's `doc/protocol.txt`, "Expiration times").
const RELATIVE_MAX_S: u32 = 60 * 60 * 24 * 30;

/// The lines.
#[derive(Debug, Default)]
pub(crate) struct ProxyRequests {
    queue: VecDeque<Access>,
}

impl LineFormat for ProxyRequests {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        if let Some(parsed) = about_the_watch(line) {
            return parsed;
        }
        let Some(at) = memmem::find(line, b" req=") else {
            let is_request = memmem::find(line, b"type=proxy_req").is_some();
            return if is_request {
                Err(Fault::Missing { field: "req" })
            } else {
                Ok(Parsed::PassedOver)
            };
        };
        let time = words(line).find_map(|word| word.strip_prefix(b"ts="));
        let time_s = seconds(time.ok_or(Fault::Missing { field: "ts" })?)?;
        self.queue.clear();
        self.read_request(&line[at + b" req=".len()..], time_s)
    }

    fn pop(&mut self) -> Option<Access> {
        self.queue.pop_front()
    }
}

impl ProxyRequests {
    /// Puts the accesses of a request into the queue.
    fn read_request(&mut self, request: &[u8], time_s: u32) -> Result<Parsed, Fault> {
        let mut words = words(request);
        let command = word(&mut words, "command")?;
        if let [b'm', _] = command {
            return self.read_meta(command, words, time_s);
        }
        let Some(op) = op_named(command) else { return Ok(Parsed::PassedOver) };
        let ttl_s = match op {
            Op::GetAndTouch => ttl(word(&mut words, "expiry")?, time_s)?,
            _ => Some(0),
        };
        if op.is_read() {
            for key in words {
                self.push(key, Access { time_s, op, ttl_s: ttl_s.unwrap_or(1), ..none() });
            }
            return Ok(Parsed::Queued);
        }
        let key = word(&mut words, "key")?;
        let mut access = Access { time_s, op, ..none() };
        match op {
            Op::Touch => access = expiring(access, word(&mut words, "expiry")?)?,
            Op::Delete | Op::Incr | Op::Decr => {}
            _ => {
                word(&mut words, "flags")?;
                access = expiring(access, word(&mut words, "expiry")?)?;
                if access.op != Op::Delete {
                    access.size_bytes = number_u32("size", word(&mut words, "size")?)?;
                }
            }
        }
        self.push(key, access);
        Ok(Parsed::Queued)
    }

    /// The meta commands: `mg key flags`, `ms key bytes flags`, `md`, `ma`.
    fn read_meta<'a>(
        &mut self,
        command: &[u8],
        mut words: impl Iterator<Item = &'a [u8]>,
        time_s: u32,
    ) -> Result<Parsed, Fault> {
        let op = match command {
            b"mg" => Op::Get,
            b"ms" => Op::Set,
            b"md" => Op::Delete,
            b"ma" => Op::Incr,
            _ => return Ok(Parsed::PassedOver),
        };
        let key = word(&mut words, "key")?;
        let mut access = Access { time_s, op, ..none() };
        if op == Op::Set {
            access.size_bytes = number_u32("size", word(&mut words, "size")?)?;
        }
        for flag in words {
            match (op, flag) {
                (Op::Get, [b'T', ttl_s @ ..]) => {
                    let op = Op::GetAndTouch;
                    let ttl_s = ttl(ttl_s, time_s)?.unwrap_or(1);
                    access = Access { op, ttl_s, ..access };
                }
                (Op::Set, [b'T', ttl_s @ ..]) => access = expiring(access, ttl_s)?,
                (Op::Set, [b'M', mode @ ..]) => access.op = mode_of(mode, access.op),
                (Op::Set, [b'C', ..]) => access.op = Op::Cas,
                _ => {}
            }
        }
        self.push(key, access);
        Ok(Parsed::Queued)
    }

    fn push(&mut self, key: &[u8], access: Access) {
        let (id, key_bytes) = (object_id(key), length_of(key));
        self.queue.push_back(Access { id, key_bytes, ..access });
    }
}

/// An access that knows nothing yet.
fn none() -> Access {
    Access::get(0, 0, 0)
}

/// The op of a meta set's mode.
fn mode_of(mode: &[u8], otherwise: Op) -> Op {
    match mode {
        b"E" | b"e" => Op::Add,
        b"R" | b"r" => Op::Replace,
        b"A" | b"a" => Op::Append,
        b"P" | b"p" => Op::Prepend,
        _ => otherwise,
    }
}

/// `access` with the expiry of `text`; what is expired at once is as good as deleted.
fn expiring(access: Access, text: &[u8]) -> Result<Access, Fault> {
    Ok(match ttl(text, access.time_s)? {
        Some(ttl_s) => Access { ttl_s, ..access },
        None => Access { op: Op::Delete, ..access },
    })
}

/// The TTL of an expiry at a time: 0 is for ever, none is expired at once.
fn ttl(text: &[u8], now_s: u32) -> Result<Option<u32>, Fault> {
    if text.starts_with(b"-") {
        return Ok(None);
    }
    let expiry = number_u32("expiry", text)?;
    Ok(match expiry {
        ..=RELATIVE_MAX_S => Some(expiry),
        moment => moment.checked_sub(now_s).filter(|&ttl_s| ttl_s > 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::lines::testing::{accesses, complaint, ops, read};

    fn line(request: &str) -> String {
        format!(
            "ts=1700000000.5 gid=1 type=proxy_req elapsed=97 type=105 code=17 status=0 res=HD cfd=11 \
             be=b0:11211 detail= req={request}\n"
        )
    }

    fn ops_of(request: &str) -> Vec<(Op, u32, u32)> {
        ops(&accesses(ProxyRequests::default(), &line(request)))
    }

    #[test]
    fn requests_of_both_protocols_are_read() {
        assert_eq!(ops_of("get a bb"), [(Op::Get, 0, 0); 2]);
        assert_eq!(ops_of("gat 60 a"), [(Op::GetAndTouch, 0, 60)]);
        assert_eq!(ops_of("set a 0 60 155"), [(Op::Set, 155, 60)]);
        assert_eq!(ops_of("cas a 0 0 155 7"), [(Op::Cas, 155, 0)]);
        assert_eq!(ops_of("delete a"), [(Op::Delete, 0, 0)]);
        assert_eq!(ops_of("touch a 60"), [(Op::Touch, 0, 60)]);
        assert_eq!(ops_of("incr a 1"), [(Op::Incr, 0, 0)]);
        assert_eq!(ops_of("mg a v t"), [(Op::Get, 0, 0)]);
        assert_eq!(ops_of("mg a v T30"), [(Op::GetAndTouch, 0, 30)]);
        assert_eq!(ops_of("ms a 155 T60"), [(Op::Set, 155, 60)]);
        assert_eq!(ops_of("ms a 155 ME T60"), [(Op::Add, 155, 60)]);
        assert_eq!(ops_of("md a q"), [(Op::Delete, 0, 0)]);
        assert_eq!(ops_of("ma a"), [(Op::Incr, 0, 0)]);
    }

    #[test]
    fn a_distant_expiry_is_a_moment() {
        assert_eq!(ops_of("set a 0 1700000060 155"), [(Op::Set, 155, 60)]);
        assert_eq!(ops_of("set a 0 1600000000 155"), [(Op::Delete, 0, 0)]);
        assert_eq!(ops_of("set a 0 -1 155"), [(Op::Delete, 0, 0)]);
    }

    #[test]
    fn what_is_no_request_is_passed_over_and_what_was_lost_is_counted() {
        let text = format!("OK\n{}skipped=3\nts=1.1 gid=2 type=conn_new\n", line("stats"));
        let (items, notes) = read(ProxyRequests::default(), &text);
        assert_eq!((items.len(), notes.lost, notes.passed_over), (0, 3, 2));
    }

    #[test]
    fn a_request_cut_short_is_malformed() {
        assert_eq!(
            complaint(ProxyRequests::default(), &line("set a 0")),
            "line 1: there is no expiry"
        );
        let without = "ts=1.1 gid=1 type=proxy_req elapsed=97";
        assert_eq!(complaint(ProxyRequests::default(), without), "line 1: there is no req");
    }
}
