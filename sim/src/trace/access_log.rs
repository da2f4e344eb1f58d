//! The combined log of nginx, Apache and Varnish (`varnishncsa`).
//!
//! ```text
//! client - user [17/May/2015:10:05:03 +0000] "GET /a?b HTTP/1.1" 200 203023 "referer" "user agent"
//! ```
//!
//! - What may come from a cache is read: GETs answered 200, 203, 206 or 304. Everything else is passed
//!   over.
//! - The object is the request's target as it stands, query and all.
//! - 304 sends no body and 206 a part, so the size is the largest seen so far ([`super::largest`]), 1
//!   until something is.
//! - What stands behind the size is not looked at, so logs with more or fewer fields there are read, the
//!   common log format too.
//!
//! The layouts are those of nginx's `ngx_http_log_module` ("combined"), Apache's `mod_log_config` and
//! `varnishncsa(1)`.

use memchr::{memchr, memmem};

use super::fields::{bad, digits, length_of, object_id, size, unix_seconds};
use super::largest::Largest;
use super::lines::{LineFormat, Parsed};
use super::{Access, Fault};

/// Months as these logs write them.
const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// The lines.
#[derive(Debug, Default)]
pub(crate) struct AccessLog {
    largest: Largest,
}

impl LineFormat for AccessLog {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        let opened = memchr(b'[', line).ok_or(Fault::Missing { field: "time" })?;
        let rest = &line[opened + 1..];
        let closed = memmem::find(rest, b"] \"").ok_or(Fault::Missing { field: "request" })?;
        let (time, rest) = (&rest[..closed], &rest[closed + 3..]);
        let end = end_of_quoted(rest).ok_or(Fault::OpenQuote)?;
        let (request, rest) = (&rest[..end], &rest[end + 1..]);
        let mut fields = rest.trim_ascii_start().split(|&byte| byte == b' ');
        let status = fields.next().unwrap_or_default();
        let bytes = fields.next().ok_or(Fault::Missing { field: "size" })?;
        if status.len() != 3 || !status.iter().all(u8::is_ascii_digit) {
            return Err(bad("status", status, "three digits"));
        }
        let mut words = request.split(|&byte| byte == b' ');
        if words.next() != Some(b"GET") || !may_come_from_a_cache(status) {
            return Ok(Parsed::PassedOver);
        }
        let target = words.next().filter(|target| !target.is_empty()).ok_or(Fault::EmptyId)?;
        let time_s =
            moment(time).ok_or_else(|| bad("time", time, "as in 17/May/2015:10:05:03 +0000"))?;
        let sent = if bytes == b"-" { 0 } else { size(bytes)? };
        let id = object_id(target);
        let access = Access::get(time_s, id, self.largest.of(id, sent).max(1));
        Ok(Parsed::One(Access { key_bytes: length_of(target), ..access }))
    }
}

/// Whether an answer of this status is one that a cache keeps, or could have given.
pub(crate) fn may_come_from_a_cache(status: &[u8]) -> bool {
    matches!(status, b"200" | b"203" | b"206" | b"304")
}

/// Where the quote is that closes a quoted text; one that is escaped does not.
fn end_of_quoted(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr(b'"', text.get(at..)?)?;
        let escapes = text[..at].iter().rev().take_while(|&&byte| byte == b'\\').count();
        if escapes % 2 == 0 {
            return Some(at);
        }
        at += 1;
    }
}

/// `17/May/2015:10:05:03 +0000` in seconds since 1970.
fn moment(text: &[u8]) -> Option<u32> {
    let two = |from| digits(text, from, 2);
    let month = MONTHS.iter().position(|&month| text.get(3..6) == Some(month))?;
    let date = [digits(text, 7, 4)?, u32::try_from(month).ok()? + 1, two(0)?];
    let local = unix_seconds(date, [two(12)?, two(15)?, two(18)?])?;
    let offset_s = two(22)? * 3600 + two(24)? * 60;
    match text.get(21)? {
        b'+' => local.checked_sub(offset_s),
        b'-' => local.checked_add(offset_s),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::lines::testing::{accesses, complaint, read};

    fn line(request: &str, status: &str, bytes: &str) -> String {
        format!(
            "10.0.0.1 - - [17/May/2015:12:05:03 +0200] \"{request}\" {status} {bytes} \"-\" \"a [b] c\"\n"
        )
    }

    #[test]
    fn what_may_come_from_a_cache_is_read() {
        let text = [
            line("GET /a?b HTTP/1.1", "304", "0"),
            line("GET /a?b HTTP/1.1", "200", "500"),
            line("GET /a?b HTTP/1.1", "206", "100"),
            line("GET /a HTTP/1.1", "200", "-"),
            line("POST /a HTTP/1.1", "200", "500"),
            line("HEAD /a HTTP/1.1", "200", "-"),
            line("GET /b HTTP/1.1", "404", "500"),
            line("\\x16\\x03\\x01", "400", "226"),
        ];
        let (items, notes) = read(AccessLog::default(), &text.concat());
        let accesses: Vec<Access> = items.into_iter().map(Result::unwrap).collect();
        let sizes: Vec<u32> = accesses.iter().map(|access| access.size_bytes).collect();
        assert_eq!(sizes, [1, 500, 500, 1], "the largest seen so far");
        assert_eq!(accesses[0].time_s, 1_431_857_103);
        assert_eq!((accesses[0].id, accesses[0].key_bytes), (object_id(b"/a?b"), 4));
        assert_eq!(notes.passed_over, 4);
    }

    #[test]
    fn quotes_within_a_request_are_escaped() {
        let read = accesses(AccessLog::default(), &line(r#"GET /a\"b HTTP/1.1"#, "200", "5"));
        assert_eq!(read[0].id, object_id(br#"/a\"b"#));
    }

    #[test]
    fn malformed_lines_say_what_is_wrong() {
        for (text, why) in [
            ("nothing".into(), "there is no time"),
            ("a [17/May/2015:12:05:03 +0200] GET".into(), "there is no request"),
            (
                "a [17/May/2015:12:05:03 +0200] \"GET / 200 5".into(),
                "a quote is not closed in its line",
            ),
            (line("GET / HTTP/1.1", "2x0", "5"), "the status is `2x0`, not three digits"),
            (
                line("GET / HTTP/1.1", "200", "x"),
                "the size is `x`, not a number from 0 to 18446744073709551615",
            ),
            (
                line("GET / HTTP/1.1", "200", "5").replace("May", "Mai"),
                "the time is `17/Mai/2015:12:05:03 +0200`, not as in 17/May/2015:10:05:03 +0000",
            ),
        ] {
            assert_eq!(complaint(AccessLog::default(), &text), format!("line 1: {why}"));
        }
    }
}
