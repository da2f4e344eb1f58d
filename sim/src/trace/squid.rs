//! Squid's native `access.log`.
//!
//! ```text
//! time.ms    elapsed client   result/status bytes method URL user hierarchy/peer type
//! 1286536308.779 180 10.0.0.1 TCP_MISS/200  411   GET http://a/b - DIRECT/10.0.0.2 text/html
//! ```
//!
//! - What may come from a cache is read: GETs answered 200, 203, 206 or 304, not denied or aborted.
//! - Bytes are those sent, headers included; the size is the largest seen so far ([`super::largest`]).
//!
//! The layout is that of wiki.squid-cache.org, "Features/LogFormat", `squid`.

use super::access_log::may_come_from_a_cache;
use super::fields::{bad, length_of, object_id, seconds, size, word, words};
use super::largest::Largest;
use super::lines::{LineFormat, Parsed};
use super::{Access, Fault};

/// The lines.
#[derive(Debug, Default)]
pub(crate) struct Squid {
    largest: Largest,
}

impl LineFormat for Squid {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        let mut words = words(line);
        let time_s = seconds(word(&mut words, "time")?)?;
        word(&mut words, "elapsed time")?;
        word(&mut words, "client")?;
        let result = word(&mut words, "result")?;
        let sent = size(word(&mut words, "size")?)?;
        let method = word(&mut words, "method")?;
        let url = word(&mut words, "URL")?;
        let slash = result.iter().position(|&byte| byte == b'/');
        let slash = slash.ok_or_else(|| bad("result", result, "as in TCP_HIT/200"))?;
        let (kind, status) = (&result[..slash], &result[slash + 1..]);
        let is_served = !kind.starts_with(b"TCP_DENIED") && !kind.ends_with(b"ABORTED");
        if method != b"GET" || !is_served || !may_come_from_a_cache(status) {
            return Ok(Parsed::PassedOver);
        }
        let id = object_id(url);
        let access = Access::get(time_s, id, self.largest.of(id, sent));
        Ok(Parsed::One(Access { key_bytes: length_of(url), ..access }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::lines::testing::{complaint, read};

    #[test]
    fn what_may_come_from_a_cache_is_read() {
        let text = "1286536308.779    180 10.0.0.1 TCP_MISS/200 411 GET http://a/b - DIRECT/10.0.0.2 text/html\n\
                    1286536309.001      2 10.0.0.1 TCP_IMS_HIT/304 200 GET http://a/b - NONE/- text/html\n\
                    1286536309.001      2 10.0.0.1 TCP_DENIED/200 200 GET http://a/b - NONE/- text/html\n\
                    1286536309.001      2 10.0.0.1 TCP_MISS/200 200 CONNECT a:443 - DIRECT/10.0.0.2 -\n";
        let (items, notes) = read(Squid::default(), text);
        let sizes: Vec<u32> = items.iter().map(|item| item.as_ref().unwrap().size_bytes).collect();
        assert_eq!((sizes, notes.passed_over), (vec![411, 411], 2));
        assert_eq!(items[0].as_ref().unwrap().time_s, 1_286_536_308);
    }

    #[test]
    fn a_result_without_a_status_is_malformed() {
        let want = "line 1: the result is `TCP_MISS`, not as in TCP_HIT/200";
        assert_eq!(complaint(Squid::default(), "1.0 1 c TCP_MISS 1 GET http://a/\n"), want);
    }
}
