//! Any bytes, in any pieces, as a client's: the decoder hears the same in one piece and in many, gets
//! ahead, and hands out requests that survive being written and read again.
//!
//! The first byte of the input says how long the pieces are.

#![no_main]

#[path = "../pieces.rs"]
mod pieces;

use libfuzzer_sys::fuzz_target;
use protocol::meta::request::{KeyScratch, MetaKey};
use protocol::{Decoder, Limits, Refusal, Request, Step};

use self::pieces::Expected;

const LIMITS: Limits =
    Limits { value_bytes_max: 256, line_bytes_max: 512, get_line_bytes_max: 1024 };

fuzz_target!(|bytes: &[u8]| {
    let Some((&piece_bytes, stream)) = bytes.split_first() else { return };
    let whole = hear(stream, stream.len().max(1));
    let pieces = hear(stream, usize::from(piece_bytes).max(1));
    assert_eq!(whole, pieces, "what is heard depends on the pieces");
});

/// Requests and refusals, in order.
fn hear(stream: &[u8], piece_bytes: usize) -> Vec<String> {
    let check_refusal = |refusal: &Refusal<'_>| {
        let line = refusal.line();
        assert!(line.is_empty() || line.ends_with("\r\n"));
    };
    let expected = Expected { wanted_bytes_max: usize::MAX, check, check_refusal };
    pieces::hear(Decoder::new(LIMITS), stream, piece_bytes, &expected)
}

/// What is handed out is valid, and reads the same when it is written and read again.
fn check(request: &Request<'_>) {
    let key: Option<MetaKey<'_>> = match request {
        Request::Get(get) => {
            assert_eq!(get.keys.len(), get.keys.clone().count());
            None
        }
        Request::MetaGet(get) => Some(get.key),
        Request::MetaSet(set) => Some(set.key),
        Request::MetaDelete(delete) => Some(delete.key),
        Request::MetaArithmetic(arithmetic) => Some(arithmetic.key),
        Request::MetaDebug(debug) => Some(debug.key),
        _ => None,
    };
    if let Some(key) = key {
        assert!(!key.key(&mut KeyScratch::default()).as_bytes().is_empty());
    }
    let mut written = Vec::new();
    request.encode(&mut written);
    let again = Decoder::new(Limits { line_bytes_max: 4096, ..LIMITS }).decode(&written);
    assert_eq!(again, Step::Request { consumed: written.len(), request: request.clone() });
}
