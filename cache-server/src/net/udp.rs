//! Requests in datagrams (`-U`): memcached's frame, and how much may be answered.
//!
//! ```text
//! | request id, 2 | sequence, 2 | datagrams, 2 | 0, 2 | request, or part of an answer |
//! ```
//!
//! All numbers are big-endian. The id is the client's, and comes back with each datagram of the answer;
//! these are numbered from 0 and say how many there are. A request fits one datagram: what says that
//! it has more is dropped, as memcached does, and so is what holds half a request. See memcached's
//! protocol.txt, "UDP protocol", and memcached.c, `try_read_udp` and `build_udp_header`.
//!
//! A sender of datagrams can claim any address. So that nobody has this server flood somebody else,
//! which memcached has been used for with a factor of 51,000, an answer is bounded:
//!
//! - to an address that is reachable from the internet, by three times what was received, the rule of
//!   RFC 9000 section 8.1 (a client that wants more may send its request with spaces at its end);
//! - to one that is not (loopback, private and link-local networks) by [`DATAGRAMS_MAX`] datagrams.
//!
//! What is longer is not sent; the client is told so, in one short line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The frame's header, in bytes.
pub(crate) const HEADER_BYTES: usize = 8;

/// The largest datagram of an answer, header included: one that need not be fragmented.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 1400;

/// What a datagram of an answer carries.
const PART_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - HEADER_BYTES;

/// Datagrams of one answer, within a private network.
pub(crate) const DATAGRAMS_MAX: usize = 16;

/// Times what was received that is answered to the internet.
const AMPLIFICATION_MAX: usize = 3;

/// What is answered instead of what is too long.
pub(crate) const TOO_LONG: &[u8] = b"SERVER_ERROR answer too long for UDP\r\n";

/// The request in `datagram` and its id; `None` when there is none, or not all of it.
pub(crate) fn request_of(datagram: &[u8]) -> Option<(u16, &[u8])> {
    let (header, request) = datagram.split_first_chunk::<HEADER_BYTES>()?;
    let [id_high, id_low, _, _, count_high, count_low, _, _] = *header;
    let is_whole = u16::from_be_bytes([count_high, count_low]) == 1 && !request.is_empty();
    is_whole.then(|| (u16::from_be_bytes([id_high, id_low]), request))
}

/// What the answers to one datagram of `received_bytes` may take together, their headers included.
pub(crate) fn wire_bytes_max(client: IpAddr, received_bytes: usize) -> usize {
    let few = DATAGRAMS_MAX * DATAGRAM_BYTES_MAX;
    if is_within_reach_of_few(client.to_canonical()) {
        few
    } else {
        few.min(AMPLIFICATION_MAX * received_bytes)
    }
}

/// How long an answer may be that takes `wire_bytes`.
pub(crate) fn answer_bytes_max(wire_bytes: usize) -> usize {
    let rest = (wire_bytes % DATAGRAM_BYTES_MAX).saturating_sub(HEADER_BYTES);
    wire_bytes / DATAGRAM_BYTES_MAX * PART_BYTES_MAX + rest
}

/// What an answer of `answer_bytes` takes, its headers included.
pub(crate) fn wire_bytes_of(answer_bytes: usize) -> usize {
    answer_bytes + answer_bytes.div_ceil(PART_BYTES_MAX) * HEADER_BYTES
}

/// Whether nobody on the internet has this address.
fn is_within_reach_of_few(address: IpAddr) -> bool {
    let of_carrier = |v4: Ipv4Addr| matches!(v4.octets(), [100, 64..=127, _, _]); // RFC 6598
    let v4 =
        |v4: Ipv4Addr| v4.is_loopback() || v4.is_private() || v4.is_link_local() || of_carrier(v4);
    let v6 = |v6: Ipv6Addr| v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local();
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => v6(address),
    }
}

/// Hands `send` the datagrams that `answer` to request `id` comes to.
pub(crate) fn for_each_datagram(id: u16, answer: &[u8], mut send: impl FnMut(&[u8])) {
    let parts = answer.chunks(PART_BYTES_MAX);
    let count = u16::try_from(parts.len()).unwrap_or(u16::MAX);
    debug_assert!(parts.len() <= DATAGRAMS_MAX, "an answer is bounded");
    for (sequence, part) in (0_u16..).zip(parts) {
        let mut datagram = [0; DATAGRAM_BYTES_MAX];
        datagram[..2].copy_from_slice(&id.to_be_bytes());
        datagram[2..4].copy_from_slice(&sequence.to_be_bytes());
        datagram[4..6].copy_from_slice(&count.to_be_bytes());
        datagram[HEADER_BYTES..][..part.len()].copy_from_slice(part);
        send(&datagram[..HEADER_BYTES + part.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_what_follows_the_header_of_a_message_of_one() {
        assert_eq!(request_of(b"\x12\x34\0\0\0\x01\0\0mn\r\n"), Some((0x1234, &b"mn\r\n"[..])));
        // memcached looks at neither the sequence nor what is reserved.
        assert_eq!(request_of(b"\0\x01\0\x07\0\x01\xff\xffmn"), Some((1, &b"mn"[..])));
        for dropped in [&b""[..], b"\0\0\0\0\0\x01\0", b"\0\0\0\0\0\x01\0\0"] {
            assert_eq!(request_of(dropped), None);
        }
        for count in [b"\0\0", b"\0\x02", b"\x01\x01", b"\xff\xff"] {
            let datagram = [&b"\0\0\0\0"[..], count, b"\0\0mn\r\n"].concat();
            assert_eq!(request_of(&datagram), None, "{count:?}");
        }
    }

    #[test]
    fn answer_is_cut_into_numbered_datagrams() {
        let answer: Vec<u8> = (0..=255).cycle().take(3 * PART_BYTES_MAX - 5).collect();
        let mut datagrams: Vec<Vec<u8>> = Vec::new();
        for_each_datagram(0xabcd, &answer, |datagram| datagrams.push(datagram.to_vec()));
        assert_eq!(datagrams.len(), 3);
        let mut joined = Vec::new();
        for (index, datagram) in (0..).zip(&datagrams) {
            assert!(datagram.len() <= DATAGRAM_BYTES_MAX);
            assert_eq!(datagram[..8], [0xab, 0xcd, 0, index, 0, 3, 0, 0]);
            joined.extend_from_slice(&datagram[8..]);
        }
        assert_eq!(joined, answer);
    }

    #[test]
    fn answer_that_is_nothing_is_no_datagram() {
        for_each_datagram(1, b"", |_| panic!("nothing is to be sent"));
    }

    #[test]
    fn nobody_on_the_internet_gets_more_than_three_times_what_was_sent() {
        let internet: [IpAddr; 3] =
            ["8.8.8.8", "2001:db8::1", "::ffff:8.8.8.8"].map(|text| text.parse().unwrap());
        for client in internet {
            for received in HEADER_BYTES + 1..=65_507 {
                let wire = wire_bytes_of(answer_bytes_max(wire_bytes_max(client, received)));
                assert!(wire <= AMPLIFICATION_MAX * received, "{client} {received}: {wire}");
            }
            assert!(wire_bytes_max(client, 1400) > 4000, "enough for who pads a request");
        }
    }

    #[test]
    fn private_networks_get_a_few_datagrams() {
        for client in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.0.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            let client: IpAddr = client.parse().unwrap();
            let answer = answer_bytes_max(wire_bytes_max(client, 12));
            assert_eq!(answer, DATAGRAMS_MAX * PART_BYTES_MAX, "{client}");
        }
        for client in ["172.32.0.1", "100.128.0.1", "11.0.0.1"] {
            assert_eq!(wire_bytes_max(client.parse().unwrap(), 12), 36, "{client}");
        }
    }
}
