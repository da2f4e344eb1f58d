//! Any bytes, in any pieces, as a client's of the binary protocol: the decoder hears the same in one
//! piece and in many, gets ahead, waits for no more than it takes, and hands out requests that survive
//! being written and read again. What a server might answer is read the same way.
//!
//! The first byte of the input says how long the pieces are, and whether the client must authenticate.

#![no_main]

#[path = "../pieces.rs"]
mod pieces;

use libfuzzer_sys::fuzz_target;
use protocol::binary::response::{BinaryResponse, BinaryResponseStep};
use protocol::binary::sasl::parse_plain;
use protocol::text::authentication::{self, AuthenticationStep};
use protocol::{Decoder, Dialect, Limits, Refusal, Request, Step};

use self::pieces::Expected;

const LIMITS: Limits =
    Limits { value_bytes_max: 256, line_bytes_max: 512, get_line_bytes_max: 1024 };

/// The longest header, extras and key; a value or a message of SASL comes on top.
const PREFIX_BYTES_MAX: usize = 24 + 255 + 65535;

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, stream)) = bytes.split_first() else { return };
    let (is_locked, piece_bytes) = (how & 1 == 1, usize::from(how >> 1).max(1));
    let whole = hear(stream, is_locked, stream.len().max(1));
    let pieces = hear(stream, is_locked, piece_bytes);
    assert_eq!(whole, pieces, "what is heard depends on the pieces");
    hear_answers(stream);
    let _ = parse_plain(stream);
    match authentication::decode(stream) {
        AuthenticationStep::More { wanted } => assert!(wanted > stream.len()),
        AuthenticationStep::Credentials { consumed, .. }
        | AuthenticationStep::Refused { consumed, .. } => {
            assert!(0 < consumed && consumed <= stream.len());
        }
        AuthenticationStep::Closes => {}
    }
});

/// Requests and refusals, in order.
fn hear(stream: &[u8], is_locked: bool, piece_bytes: usize) -> Vec<String> {
    let mut decoder = Decoder::of(LIMITS, Dialect::Binary);
    decoder.set_locked(is_locked);
    let check_refusal = |refusal: &Refusal<'_>| {
        let mut answer = Vec::new();
        refusal.encode(&mut answer);
        assert!(refusal.closes() || !answer.is_empty());
    };
    let wanted_bytes_max = PREFIX_BYTES_MAX + protocol::binary::sasl::MESSAGE_BYTES_MAX;
    let expected = Expected { wanted_bytes_max, check, check_refusal };
    pieces::hear(decoder, stream, piece_bytes, &expected)
}

/// What is handed out reads the same when it is written and read again.
fn check(request: &Request<'_>) {
    let mut written = Vec::new();
    request.encode(&mut written);
    let again = Decoder::of(LIMITS, Dialect::Binary).decode(&written);
    assert_eq!(again, Step::Request { consumed: written.len(), request: request.clone() });
}

/// Answers are what was written.
fn hear_answers(mut stream: &[u8]) {
    while let BinaryResponseStep::Response { consumed, response } =
        BinaryResponse::decode(stream, 256)
    {
        let mut written = Vec::new();
        response.encode(&mut written);
        // One byte of the header has no meaning.
        assert_eq!((&written[..5], &written[6..]), (&stream[..5], &stream[6..consumed]));
        stream = &stream[consumed..];
    }
}
