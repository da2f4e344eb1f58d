//! The binary commands: what their text counterparts do, answered in frames.
//!
//! What memcached counts and what it answers is `proto_bin.c` of 1.6.45. Statistics and whatever else
//! needs no key are the text command's answer, put into frames.

use protocol::binary::Head;
use protocol::binary::request::{Arithmetic, BinaryRequest, Command, Get};
use protocol::binary::response::{
    Status, encode_error, encode_header, encode_miss_with_key, encode_stat, encode_success,
};
use protocol::request::{FlushAll, Store, StoreMode, Verbosity};
use protocol::token::Tokens;
use protocol::{Exptime, Request, Response, ResponseDecoder, ResponseLimits, ResponseStep};
use store::{DeleteOutcome, DeltaOutcome, PutOutcome};

use super::{CacheService, On, create_counter, delta};
use crate::config::PROTOCOL_VERSION;
use crate::net::{Call, Flow};

/// What the extras of a hit hold: the client's flags.
const FLAGS_BYTES: usize = 4;

/// Statistics that are one text of many lines, and not a name and a value each.
const DETAIL_DUMP: &[u8] = b"detail dump";

impl CacheService {
    /// Carries out a binary request on the item of its key.
    pub(super) fn binary_on_key(
        &self,
        request: &BinaryRequest<'_>,
        on: &mut On<'_, '_>,
        out: &mut Vec<u8>,
    ) {
        let head = request.head;
        match &request.command {
            Command::Get(get) => self.binary_get(head, get, on, out),
            Command::Touch { exptime, .. } => self.binary_touch(head, *exptime, on, out),
            Command::Store(store) => self.binary_store(head, store, on, out),
            Command::Arithmetic(arithmetic) => self.binary_arithmetic(head, arithmetic, on, out),
            Command::Delete { compare_cas, .. } => self.binary_delete(head, *compare_cas, on, out),
            _ => debug_assert!(false, "a request without a key"),
        }
    }

    /// Carries out a binary request that concerns no key.
    pub(super) fn binary_without_key(
        &mut self,
        request: &BinaryRequest<'_>,
        call: &Call<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        let head = request.head;
        match request.command {
            Command::Flush { delay } => {
                let flush = Request::FlushAll(FlushAll { delay, noreply: false });
                match self.in_text(&flush, call) == b"OK\r\n" {
                    true if head.is_quiet() => {}
                    true => encode_success(out, head, 0, b""),
                    // What memcached answers where flushing is switched off.
                    false => encode_error(out, head, Status::AuthFailure),
                }
            }
            Command::Stat { group } => {
                let arguments = Tokens::new(group);
                let text = self.in_text(&Request::Stats { arguments }, call);
                encode_statistics(head, group, &text, out);
            }
            Command::Verbosity { level } => {
                self.in_text(&Request::Verbosity(Verbosity { level, noreply: true }), call);
                encode_success(out, head, 0, b"");
            }
            Command::Version => encode_success(out, head, 0, PROTOCOL_VERSION.as_bytes()),
            Command::Noop => encode_success(out, head, 0, b""),
            Command::Quit => {
                if !head.is_quiet() {
                    encode_success(out, head, 0, b"");
                }
                return Flow::Close;
            }
            // Where there is SASL, these do not come this far.
            _ => encode_error(out, head, Status::UnknownCommand),
        }
        Flow::Continue
    }

    /// What a request of the text protocol that concerns no key is answered with.
    fn in_text(&mut self, request: &Request<'_>, call: &Call<'_>) -> Vec<u8> {
        let mut text = Vec::new();
        let mut done = 0;
        loop {
            let call = Call { done, output_bytes_high: usize::MAX, ..*call };
            match self.without_key(request, &call, &mut text) {
                Flow::Pause { done: further } => done = further,
                // None of these has the client listen, or a value.
                Flow::Continue | Flow::Close | Flow::Listen | Flow::Apart(_) => return text,
            }
        }
    }

    fn binary_get(&self, head: Head, get: &Get<'_>, on: &mut On<'_, '_>, out: &mut Vec<u8>) {
        let On { shard, key, now, .. } = on.parts();
        self.fetch(get.touch, shard, &key, now, |item| match item {
            Some(item) => {
                let asked = if get.with_key { get.key.as_bytes() } else { &[] };
                let value_bytes = item.value.len();
                encode_header(out, head, item.cas, FLAGS_BYTES, asked.len(), value_bytes);
                out.extend_from_slice(&item.client_flags.to_be_bytes());
                out.extend_from_slice(asked);
                item.value.append_to(out);
            }
            None if head.is_quiet() => {}
            None if get.with_key => encode_miss_with_key(out, head, get.key),
            None => encode_error(out, head, Status::NotFound),
        });
    }

    fn binary_touch(&self, head: Head, exptime: Exptime, on: &mut On<'_, '_>, out: &mut Vec<u8>) {
        let On { shard, key, now, .. } = on.parts();
        self.fetch(Some(exptime), shard, &key, now, |item| match item {
            Some(item) => {
                encode_header(out, head, item.cas, FLAGS_BYTES, 0, 0);
                out.extend_from_slice(&item.client_flags.to_be_bytes());
            }
            None => encode_error(out, head, Status::NotFound),
        });
    }

    fn binary_store(&self, head: Head, store: &Store<'_>, on: &mut On<'_, '_>, out: &mut Vec<u8>) {
        let joins = matches!(store.mode, StoreMode::Append | StoreMode::Prepend);
        let status = match self.write(store, on) {
            PutOutcome::Stored { .. } if head.is_quiet() => return,
            PutOutcome::Stored { cas } => return encode_success(out, head, cas, b""),
            PutOutcome::Exists => Status::Exists,
            PutOutcome::NotFound => Status::NotFound,
            PutOutcome::NotStored => match store.mode {
                StoreMode::Add => Status::Exists,
                StoreMode::Replace => Status::NotFound,
                _ => Status::NotStored,
            },
            // The part that was sent is not.
            PutOutcome::TooLarge if joins => Status::NotStored,
            PutOutcome::TooLarge => Status::TooLarge,
            PutOutcome::OutOfMemory => Status::OutOfMemory,
        };
        encode_error(out, head, status);
    }

    fn binary_arithmetic(
        &self,
        head: Head,
        wanted: &Arithmetic<'_>,
        on: &mut On<'_, '_>,
        out: &mut Vec<u8>,
    ) {
        let On { shard, key, own_cas, now, .. } = on.parts();
        let change = delta(wanted.direction, wanted.delta);
        let mut outcome = shard.add_delta(&key, change, None, wanted.compare_cas, own_cas, now);
        match (outcome, wanted.create) {
            // As in memcached, a number that is created counts as nothing.
            (DeltaOutcome::NotFound, Some(exptime)) => {
                outcome = create_counter(shard, wanted.initial, &key, exptime, own_cas, now);
            }
            _ => self.count_arithmetic(outcome, wanted.direction),
        }
        let status = match outcome {
            DeltaOutcome::Changed { .. } if head.is_quiet() => return,
            DeltaOutcome::Changed { value, cas } => {
                return encode_success(out, head, cas, &value.to_be_bytes());
            }
            DeltaOutcome::NotFound => Status::NotFound,
            DeltaOutcome::NotANumber => Status::NonNumeric,
            DeltaOutcome::Exists => Status::Exists,
            DeltaOutcome::OutOfMemory => Status::OutOfMemory,
        };
        encode_error(out, head, status);
    }

    fn binary_delete(
        &self,
        head: Head,
        compare_cas: Option<u64>,
        on: &mut On<'_, '_>,
        out: &mut Vec<u8>,
    ) {
        let On { shard, key, now, .. } = on.parts();
        let outcome = shard.delete(&key, compare_cas, now);
        self.count_delete(outcome);
        match outcome {
            DeleteOutcome::Deleted if head.is_quiet() => {}
            DeleteOutcome::Deleted => encode_success(out, head, 0, b""),
            DeleteOutcome::NotFound => encode_error(out, head, Status::NotFound),
            DeleteOutcome::Exists => encode_error(out, head, Status::Exists),
        }
    }
}

/// Puts the text answer to `stats` into frames: one per line, then an empty one.
fn encode_statistics(head: Head, group: &[u8], text: &[u8], out: &mut Vec<u8>) {
    let from = out.len();
    let mut decoder = ResponseDecoder::new(ResponseLimits::default());
    let mut rest = text;
    loop {
        match decoder.decode(rest) {
            ResponseStep::Response { consumed, response } => {
                rest = &rest[consumed..];
                match response {
                    Response::Stat { name, value } => encode_stat(out, head, name, value),
                    Response::End | Response::Ok | Response::Reset => break,
                    _ => return encode_error(out, head, Status::NotFound),
                }
            }
            _ if group == DETAIL_DUMP => {
                out.truncate(from);
                encode_stat(out, head, b"detailed", text);
                break;
            }
            _ => {
                out.truncate(from);
                return encode_error(out, head, Status::NotFound);
            }
        }
    }
    encode_stat(out, head, b"", b"");
}

#[cfg(test)]
mod tests {
    use protocol::binary::Opcode;
    use protocol::binary::response::{BinaryResponse, BinaryResponseStep};

    use super::*;

    fn framed(group: &str, text: &str) -> Vec<(u16, String, String)> {
        let head = Head { opcode: Opcode::Stat as u8, opaque: 7 };
        let mut out = Vec::new();
        encode_statistics(head, group.as_bytes(), text.as_bytes(), &mut out);
        let (mut rest, mut frames) = (&out[..], Vec::new());
        while let BinaryResponseStep::Response { consumed, response } =
            BinaryResponse::decode(rest, 1 << 20)
        {
            assert_eq!(response.head, head);
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            frames.push((response.status, text(response.key), text(response.value)));
            rest = &rest[consumed..];
        }
        assert!(rest.is_empty());
        frames
    }

    fn stat(name: &str, value: &str) -> (u16, String, String) {
        (0, name.into(), value.into())
    }

    #[test]
    fn statistics_are_a_frame_a_line_and_an_empty_one() {
        let frames = framed("", "STAT pid 5\r\nSTAT empty \r\nSTAT words a b\r\nEND\r\n");
        assert_eq!(
            frames,
            [stat("pid", "5"), stat("empty", ""), stat("words", "a b"), stat("", "")]
        );
        assert_eq!(framed("reset", "RESET\r\n"), [stat("", "")]);
        assert_eq!(framed("detail on", "OK\r\n"), [stat("", "")]);
    }

    #[test]
    fn statistics_there_are_none_of_are_not_found() {
        for text in ["ERROR\r\n", "CLIENT_ERROR usage\r\n", "ITEM k [1 b; 0 s]\r\nEND\r\n"] {
            assert_eq!(framed("what", text), [(1, String::new(), "Not found".into())]);
        }
    }

    #[test]
    fn the_dump_of_details_is_one_value() {
        let text = "PREFIX a get 1 hit 1 set 1 del 0\r\nEND\r\n";
        assert_eq!(framed("detail dump", text), [stat("detailed", text), stat("", "")]);
    }
}
