//! Requests into bytes and bytes into replies: as much of memcached's protocol as a load needs, and as
//! much of Redis's as comparing with it takes.
//!
//! The load generator must cost less per operation than the server it measures, and it only ever
//! meets answers to what it asked itself. So this scanner looks for the few replies that can come
//! and hands everything else on as a refusal, where the `protocol` crate decodes, and checks, all of
//! them. Sources: memcached `doc/protocol.txt`, "Retrieval command", "Storage commands", "Meta
//! commands"; "Redis serialization protocol specification", version 2.
//!
//! No reply of either protocol begins as one of the other does, so one scanner reads both.

use std::fmt::Write as _;

use crate::value::Values;

/// Longest line a server may answer with before it is taken for garbage, in bytes.
const LINE_BYTES_MAX: usize = 2048;
/// Largest value a server may announce, in bytes: memcached's bound for `-I`.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 30;

/// Which family of commands a load speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The classic commands: `get`, `set`.
    Text,
    /// The meta commands: `mg`, `ms`; a get of several keys is that many quiet `mg`s and one `mn`.
    Meta,
    /// Redis's: `GET`, `MGET`, `SET`.
    Resp,
}

impl Dialect {
    /// Appends one request for all of `keys`.
    pub fn write_get<'a>(self, keys: impl ExactSizeIterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
        let several = keys.len() > 1;
        match self {
            Self::Text => {
                out.extend_from_slice(b"get");
                for key in keys {
                    out.push(b' ');
                    out.extend_from_slice(key);
                }
                out.extend_from_slice(b"\r\n");
            }
            Self::Meta => {
                for key in keys {
                    out.extend_from_slice(b"mg ");
                    out.extend_from_slice(key);
                    out.extend_from_slice(if several { b" k v q\r\n" } else { b" k v\r\n" });
                }
                if several {
                    out.extend_from_slice(b"mn\r\n");
                }
            }
            Self::Resp => {
                write_resp_length(b'*', keys.len() + 1, out);
                let name = if several { b"MGET".as_slice() } else { b"GET" };
                std::iter::once(name).chain(keys).for_each(|part| write_resp_bulk(part, out));
            }
        }
    }

    /// Appends one request that stores `key` with its value of `value_bytes`, client flags 0,
    /// never expiring.
    pub fn write_set(self, key: &[u8], value_bytes: usize, values: &Values, out: &mut Vec<u8>) {
        let (before, between) = match self {
            Self::Text => (b"set ".as_slice(), b" 0 0 ".as_slice()),
            Self::Meta => (b"ms ".as_slice(), b" ".as_slice()),
            Self::Resp => {
                out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
                write_resp_bulk(key, out);
                write_resp_length(b'$', value_bytes, out);
                values.append(key, value_bytes, out);
                out.extend_from_slice(b"\r\n");
                return;
            }
        };
        out.extend_from_slice(before);
        out.extend_from_slice(key);
        out.extend_from_slice(between);
        out.extend_from_slice(itoa::Buffer::new().format(value_bytes).as_bytes());
        out.extend_from_slice(b"\r\n");
        values.append(key, value_bytes, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// `$3\r\nabc\r\n`
fn write_resp_bulk(bytes: &[u8], out: &mut Vec<u8>) {
    write_resp_length(b'$', bytes.len(), out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// `$3\r\n`, `*3\r\n`
fn write_resp_length(mark: u8, length: usize, out: &mut Vec<u8>) {
    out.push(mark);
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// One unit of a server's answer, borrowed from the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// A key that was found.
    Hit {
        /// Its key, as the server names it.
        key: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// The value of the next key asked for, which is not named: Redis's `$3`.
    Bulk(&'a [u8]),
    /// The next key asked for is not there: Redis's `$-1`.
    Nil,
    /// The values of so many keys follow: Redis's `*3`.
    Array(usize),
    /// Nothing more comes for this get: `END`, `MN`.
    End,
    /// The one key asked for is not there: `EN`.
    Miss,
    /// The write took place: `STORED`, `HD`, `+OK`.
    Stored,
    /// The write's condition did not hold: `NOT_STORED`.
    NotStored,
    /// What was to be removed is: `DELETED`.
    Deleted,
    /// What was to have another expiry has it: `TOUCHED`.
    Touched,
    /// There is nothing to remove, touch or count: `NOT_FOUND`.
    NotFound,
    /// What a counter has come to.
    Number,
    /// Any other line: an error, or a meta command that did not take place.
    Refused(&'a [u8]),
}

impl Reply<'_> {
    /// The reply in words that may be shown: an answer as the server wrote it, a hit without its
    /// value.
    pub fn describe(&self) -> String {
        match self {
            Self::Hit { key, value } => {
                format!("the value of '{}', {} bytes", printable(key), value.len())
            }
            Self::Bulk(value) => format!("a value of {} bytes", value.len()),
            Self::Nil => "nil".to_owned(),
            Self::Array(count) => format!("an array of {count}"),
            Self::End => "END".to_owned(),
            Self::Miss => "EN".to_owned(),
            Self::Stored => "STORED".to_owned(),
            Self::NotStored => "NOT_STORED".to_owned(),
            Self::Deleted => "DELETED".to_owned(),
            Self::Touched => "TOUCHED".to_owned(),
            Self::NotFound => "NOT_FOUND".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Refused(line) => printable(line),
        }
    }
}

/// What a server sent is no reply.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A line that does not end.
    #[error("the server sent a line of over {LINE_BYTES_MAX} bytes")]
    Line,
    /// A line that announces a value, but not how long it is or of which key.
    #[error("the server announced a value in a line that cannot be read: '{0}'")]
    Announcement(String),
    /// A value that does not end in a line break where it should.
    #[error("the server sent a value of another length than it announced in '{0}'")]
    Value(String),
}

/// Takes the next reply off the front of `input`: the reply and its length in bytes, or `None`
/// while it is incomplete.
///
/// # Errors
/// When the bytes cannot become a reply whatever follows.
#[inline]
pub fn next_reply(input: &[u8]) -> Result<Option<(Reply<'_>, usize)>, WireError> {
    let Some(line_bytes) = memchr::memchr(b'\n', input).map(|newline| newline + 1) else {
        return if input.len() > LINE_BYTES_MAX { Err(WireError::Line) } else { Ok(None) };
    };
    let line = input[..line_bytes].trim_ascii_end();
    let unreadable = || WireError::Announcement(String::from_utf8_lossy(line).into_owned());
    let (key, value_bytes) = if let Some(rest) = line.strip_prefix(b"VALUE ") {
        announced_in_text(rest).ok_or_else(unreadable)?
    } else if let Some(rest) = line.strip_prefix(b"VA ") {
        announced_in_meta(rest).ok_or_else(unreadable)?
    } else if let Some(length) = line.strip_prefix(b"$")
        && length != b"-1"
    {
        (b"".as_slice(), number(length).ok_or_else(unreadable)?)
    } else {
        let reply = match line {
            b"END" | b"MN" => Reply::End,
            b"STORED" | b"HD" | b"+OK" => Reply::Stored,
            b"EN" => Reply::Miss,
            b"NOT_STORED" => Reply::NotStored,
            b"DELETED" => Reply::Deleted,
            b"TOUCHED" => Reply::Touched,
            b"NOT_FOUND" => Reply::NotFound,
            b"$-1" => Reply::Nil,
            [b'*', count @ ..] => Reply::Array(number(count).ok_or_else(unreadable)?),
            [b'0'..=b'9', ..] => Reply::Number,
            // memcached returns the key with a miss too (seen in 1.6.18), if it was asked for.
            _ if line.starts_with(b"EN k") => Reply::Miss,
            _ => Reply::Refused(line),
        };
        return Ok(Some((reply, line_bytes)));
    };
    let Some(value) = input[line_bytes..].get(..value_bytes + 2) else { return Ok(None) };
    let Some(value) = value.strip_suffix(b"\r\n") else {
        return Err(WireError::Value(String::from_utf8_lossy(line).into_owned()));
    };
    // No key is empty, so a value without one was none of memcached's.
    let reply = if key.is_empty() { Reply::Bulk(value) } else { Reply::Hit { key, value } };
    Ok(Some((reply, line_bytes + value_bytes + 2)))
}

/// `<key> <flags> <bytes> [<cas>]`
fn announced_in_text(rest: &[u8]) -> Option<(&[u8], usize)> {
    let mut fields = rest.split(|&byte| byte == b' ');
    let key = fields.next()?;
    let _flags = fields.next()?;
    Some((key, number(fields.next()?)?)).filter(|(key, _)| !key.is_empty())
}

/// `<bytes> <flag>*`, of which `k<key>` is the one that was asked for.
fn announced_in_meta(rest: &[u8]) -> Option<(&[u8], usize)> {
    let mut fields = rest.split(|&byte| byte == b' ');
    let value_bytes = number(fields.next()?)?;
    let key = fields.find_map(|flag| flag.strip_prefix(b"k"))?;
    Some((key, value_bytes)).filter(|(key, _)| !key.is_empty())
}

fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 10 {
        return None;
    }
    let number = digits.iter().try_fold(0_usize, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + usize::from(digit - b'0'))
    })?;
    (number <= VALUE_BYTES_MAX).then_some(number)
}

/// Bytes from a server in a form that may be shown: cut short, control characters escaped.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = bytes[..bytes.len().min(120)].escape_ascii().to_string();
    if bytes.len() > 120 {
        // Writing to a string cannot fail.
        let _ = write!(text, "... ({} bytes)", bytes.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(mut input: &[u8]) -> Vec<Reply<'_>> {
        let mut replies = Vec::new();
        while let Some((reply, bytes)) = next_reply(input).unwrap() {
            replies.push(reply);
            input = &input[bytes..];
        }
        assert_eq!(input, b"", "everything is a reply");
        replies
    }

    #[test]
    fn requests_are_written_as_the_protocol_has_them() {
        let keys = [b"k1".as_slice(), b"k2"];
        let get = |dialect: Dialect, count: usize| {
            let mut out = Vec::new();
            dialect.write_get(keys[..count].iter().copied(), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(get(Dialect::Text, 1), "get k1\r\n");
        assert_eq!(get(Dialect::Text, 2), "get k1 k2\r\n");
        assert_eq!(get(Dialect::Meta, 1), "mg k1 k v\r\n");
        assert_eq!(get(Dialect::Meta, 2), "mg k1 k v q\r\nmg k2 k v q\r\nmn\r\n");
        let values = Values::new();
        for (dialect, header) in
            [(Dialect::Text, "set k1 0 0 9\r\n"), (Dialect::Meta, "ms k1 9\r\n")]
        {
            let mut out = Vec::new();
            dialect.write_set(b"k1", 9, &values, &mut out);
            let body = out.strip_prefix(header.as_bytes()).unwrap();
            assert!(values.matches(b"k1", body.strip_suffix(b"\r\n").unwrap()));
        }
    }

    #[test]
    fn text_replies_are_read() {
        assert_eq!(
            replies(b"VALUE k1 0 4\r\na\r\nb\r\nVALUE k2 7 0 99\r\n\r\nEND\r\nSTORED\r\n"),
            [
                Reply::Hit { key: b"k1", value: b"a\r\nb" },
                Reply::Hit { key: b"k2", value: b"" },
                Reply::End,
                Reply::Stored,
            ]
        );
    }

    #[test]
    fn meta_replies_are_read() {
        assert_eq!(
            replies(b"VA 2 f0 kk1\r\nab\r\nEN\r\nEN kk1\r\nHD\r\nMN\r\nNS\r\n"),
            [
                Reply::Hit { key: b"k1", value: b"ab" },
                Reply::Miss,
                Reply::Miss,
                Reply::Stored,
                Reply::End,
                Reply::Refused(b"NS"),
            ]
        );
    }

    #[test]
    fn redis_is_asked_and_read_in_its_protocol() {
        let mut out = Vec::new();
        Dialect::Resp.write_get([b"k1".as_slice()].into_iter(), &mut out);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$2\r\nk1\r\n");
        out.clear();
        Dialect::Resp.write_get([b"k1".as_slice(), b"k2"].into_iter(), &mut out);
        assert_eq!(out, b"*3\r\n$4\r\nMGET\r\n$2\r\nk1\r\n$2\r\nk2\r\n");
        out.clear();
        let values = Values::new();
        Dialect::Resp.write_set(b"k1", 9, &values, &mut out);
        let body = out.strip_prefix(b"*3\r\n$3\r\nSET\r\n$2\r\nk1\r\n$9\r\n").unwrap();
        assert!(values.matches(b"k1", body.strip_suffix(b"\r\n").unwrap()));
        assert_eq!(
            replies(b"+OK\r\n*2\r\n$4\r\na\r\nb\r\n$-1\r\n$0\r\n\r\n-OOM over\r\n"),
            [
                Reply::Stored,
                Reply::Array(2),
                Reply::Bulk(b"a\r\nb"),
                Reply::Nil,
                Reply::Bulk(b""),
                Reply::Refused(b"-OOM over"),
            ]
        );
    }

    #[test]
    fn an_incomplete_reply_waits_for_the_rest() {
        let whole = b"VALUE k1 0 4\r\nabcd\r\n";
        for cut in 0..whole.len() {
            assert_eq!(next_reply(&whole[..cut]), Ok(None), "cut at {cut}");
        }
        assert!(next_reply(whole).unwrap().is_some());
    }

    #[test]
    fn what_cannot_be_a_reply_is_an_error() {
        assert_eq!(next_reply(&[b'x'; LINE_BYTES_MAX + 1]), Err(WireError::Line));
        for line in
            ["VALUE k1 0 -1\r\n", "VALUE k1\r\n", "VA 2 f0\r\n", "VALUE k 0 99999999999\r\n"]
        {
            assert!(
                matches!(next_reply(line.as_bytes()), Err(WireError::Announcement(_))),
                "{line}"
            );
        }
        assert!(matches!(next_reply(b"VALUE k1 0 2\r\nabcd"), Err(WireError::Value(_))));
    }

    #[test]
    fn replies_to_what_is_no_get_and_no_set_are_told_apart() {
        assert_eq!(
            replies(b"NOT_STORED\r\nDELETED\r\nTOUCHED\r\nNOT_FOUND\r\n17\r\nBUSY\r\n"),
            [
                Reply::NotStored,
                Reply::Deleted,
                Reply::Touched,
                Reply::NotFound,
                Reply::Number,
                Reply::Refused(b"BUSY"),
            ]
        );
    }

    #[test]
    fn a_refusal_keeps_the_servers_words() {
        assert_eq!(
            replies(b"SERVER_ERROR object too large for cache\r\n"),
            [Reply::Refused(b"SERVER_ERROR object too large for cache")]
        );
    }
}
