//! The lines that watchers read, as memcached writes them (`logger.c`), and the keys in them and in dumps.
//!
//! ```text
//! ts=1795390196.004000 gid=7 type=item_get key=k%3A3 status=found clsid=1 cfd=27 size=155
//! ```
//!
//! memcached writes the microseconds without leading zeros, so that four milliseconds look like four tenths of a
//! second; here they have six digits.

use std::io::Write as _;

use protocol::changes::push_encoded;
use store::{Look, PutOutcome, Victim};

use crate::clock::Now;
use crate::net::CloseReason;
use crate::net::registry::{ConnectionRecord, Endpoint};

/// The class of every item: there is one.
pub(crate) const CLASS: u32 = 1;

/// Begins a line.
pub(super) fn begin(out: &mut Vec<u8>, now: Now, gid: u64, kind: &str) {
    let (seconds, micros) = (now.unix_seconds(), now.unix_ms % 1000 * 1000);
    // Writing to a vector does not fail; here and below.
    let _ = write!(out, "ts={seconds}.{micros:06} gid={gid} type={kind} ");
}

fn push_key(out: &mut Vec<u8>, key: &[u8]) {
    out.extend_from_slice(b"key=");
    push_encoded(out, key);
}

/// The rest of an `item_get`.
pub(super) fn item_get(out: &mut Vec<u8>, key: &[u8], look: Look, client: i32) {
    let (status, class, bytes) = match look {
        Look::Nothing => ("not_found", 0, 0),
        Look::Expired => ("expired", 0, 0),
        Look::Item { value_bytes } => ("found", CLASS, value_bytes),
    };
    push_key(out, key);
    let _ = writeln!(out, " status={status} clsid={class} cfd={client} size={bytes}");
}

/// What a write was, for its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) outcome: PutOutcome,
    pub(super) command: &'static str,
    /// Seconds until the item expires; 0 if it does not.
    pub(super) ttl_s: u32,
    pub(super) value_bytes: usize,
}

/// The rest of an `item_store`.
pub(super) fn item_store(out: &mut Vec<u8>, key: &[u8], stored: Stored, client: i32) {
    let Stored { outcome, command, ttl_s, value_bytes } = stored;
    let (status, class) = match outcome {
        PutOutcome::Stored { .. } => ("stored", CLASS),
        PutOutcome::NotStored => ("not_stored", CLASS),
        PutOutcome::Exists => ("exists", CLASS),
        PutOutcome::NotFound => ("not_found", CLASS),
        PutOutcome::TooLarge => ("too_large", 0),
        PutOutcome::OutOfMemory => ("no_memory", 0),
    };
    push_key(out, key);
    let _ = writeln!(
        out,
        " status={status} cmd={command} ttl={ttl_s} clsid={class} cfd={client} size={value_bytes}"
    );
}

/// The rest of a `deleted`.
pub(super) fn deleted(out: &mut Vec<u8>, key: &[u8], command: &str, value_bytes: u64) {
    push_key(out, key);
    let _ = writeln!(out, " cmd={command} clsid={CLASS} size={value_bytes}");
}

/// The rest of an `eviction`.
pub(super) fn eviction(out: &mut Vec<u8>, victim: &Victim<'_>, now: Now) {
    let Victim { key, value_bytes, deadline, fetched, idle_secs } = *victim;
    let fetched = if fetched { "yes" } else { "no" };
    push_key(out, key);
    let _ = match deadline.timestamp() {
        Some(at) => {
            let ttl_s = (at.0 / 1000).saturating_sub(now.unix_seconds());
            write!(out, " fetch={fetched} ttl={ttl_s}")
        }
        None => write!(out, " fetch={fetched} ttl=-1"),
    };
    let _ = writeln!(out, " la={idle_secs} clsid={CLASS} size={value_bytes}");
}

/// The rest of a `conn_new` or, with a reason, of a `conn_close`.
pub(super) fn connection(
    out: &mut Vec<u8>,
    record: &ConnectionRecord,
    reason: Option<CloseReason>,
) {
    let _ = match &record.peer {
        Endpoint::Tcp(peer) => {
            write!(out, "rip={} rport={} transport=tcp", peer.ip(), peer.port())
        }
        Endpoint::Udp(local) => {
            write!(out, "rip={} rport={} transport=udp", local.ip(), local.port())
        }
        Endpoint::Unix(_) => write!(out, "rip=unix rport=0 transport=local"),
    };
    let reason = reason.map(|reason| match reason {
        CloseReason::Error => " reason=error",
        CloseReason::Normal => " reason=normal",
        CloseReason::IdleTimeout => " reason=idle_timeout",
        CloseReason::Shutdown => " reason=shutdown",
    });
    let _ = writeln!(out, "{} cfd={}", reason.unwrap_or_default(), record.fd);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use store::{Deadline, Timestamp};

    use super::*;

    const NOW: Now = Now { unix_ms: 1_795_390_196_004 };

    fn text(line: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        line(&mut out);
        String::from_utf8(out).expect("keys are encoded")
    }

    #[test]
    fn keys_are_encoded_as_in_an_address() {
        assert_eq!(text(|out| push_encoded(out, b"aZ0-._~")), "aZ0-._~");
        assert_eq!(text(|out| push_encoded(out, b"k:3 \xff#")), "k%3A3%20%FF%23");
    }

    #[test]
    fn lines_are_those_of_memcached() {
        let found = Look::Item { value_bytes: 155 };
        assert_eq!(
            text(|out| begin(out, NOW, 7, "item_get")),
            "ts=1795390196.004000 gid=7 type=item_get "
        );
        assert_eq!(
            text(|out| item_get(out, b"k:3", found, 27)),
            "key=k%3A3 status=found clsid=1 cfd=27 size=155\n"
        );
        assert_eq!(
            text(|out| item_get(out, b"k", Look::Nothing, 27)),
            "key=k status=not_found clsid=0 cfd=27 size=0\n"
        );
        let stored = Stored {
            outcome: PutOutcome::Stored { cas: 1 },
            command: "set",
            ttl_s: 60,
            value_bytes: 3,
        };
        assert_eq!(
            text(|out| item_store(out, b"k", stored, 27)),
            "key=k status=stored cmd=set ttl=60 clsid=1 cfd=27 size=3\n"
        );
        assert_eq!(text(|out| deleted(out, b"k", "md", 3)), "key=k cmd=md clsid=1 size=3\n");
    }

    #[test]
    fn eviction_tells_what_was_left_of_a_life() {
        let mut victim = Victim {
            key: b"k",
            value_bytes: 9,
            deadline: Deadline::NEVER,
            fetched: true,
            idle_secs: 4,
        };
        assert_eq!(
            text(|out| eviction(out, &victim, NOW)),
            "key=k fetch=yes ttl=-1 la=4 clsid=1 size=9\n"
        );
        victim.deadline = Deadline::at(Timestamp(NOW.unix_ms + 60_000));
        assert_eq!(
            text(|out| eviction(out, &victim, NOW)),
            "key=k fetch=yes ttl=60 la=4 clsid=1 size=9\n"
        );
    }

    #[test]
    fn connection_tells_where_it_came_from() {
        let peer = Endpoint::Tcp(([127, 0, 0, 1], 4711).into());
        let record = ConnectionRecord::new(27, peer.clone(), peer, NOW);
        assert_eq!(
            text(|out| connection(out, &record, None)),
            "rip=127.0.0.1 rport=4711 transport=tcp cfd=27\n"
        );
        let path = Endpoint::Unix(Arc::from(std::path::Path::new("/run/cache.sock")));
        let record = ConnectionRecord::new(28, path.clone(), path, NOW);
        assert_eq!(
            text(|out| connection(out, &record, Some(CloseReason::Normal))),
            "rip=unix rport=0 transport=local reason=normal cfd=28\n"
        );
    }
}
