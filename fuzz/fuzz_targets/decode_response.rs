//! Any bytes, in any pieces, as a server's: the decoder hears the same in one piece and in many, gets
//! ahead, and hands out responses that survive being written and read again.
//!
//! The first byte of the input says how long the pieces are.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{Response, ResponseDecoder, ResponseLimits, ResponseStep};

const LIMITS: ResponseLimits = ResponseLimits { value_bytes_max: 256, line_bytes_max: 512 };

fuzz_target!(|bytes: &[u8]| {
    let Some((&piece_bytes, stream)) = bytes.split_first() else { return };
    let whole = hear(stream, stream.len().max(1));
    let pieces = hear(stream, usize::from(piece_bytes).max(1));
    assert_eq!(whole, pieces, "what is heard depends on the pieces");
});

/// Responses in order, and the error that ended them, if one did.
fn hear(stream: &[u8], piece_bytes: usize) -> Vec<String> {
    let mut decoder = ResponseDecoder::new(LIMITS);
    let (mut heard, mut start, mut end) = (Vec::new(), 0, 0);
    loop {
        let input = &stream[start..end];
        match decoder.decode(input) {
            ResponseStep::More { wanted } => {
                assert!(wanted > input.len(), "enough is there already");
                if end == stream.len() {
                    return heard;
                }
                end = (end + piece_bytes).min(stream.len());
            }
            ResponseStep::Response { consumed, response } => {
                assert!(0 < consumed && consumed <= input.len(), "a step takes up what is there");
                check(&response);
                heard.push(format!("{response:?}"));
                start += consumed;
            }
            ResponseStep::Malformed(error) => {
                heard.push(error.to_string());
                return heard;
            }
        }
    }
}

fn check(response: &Response<'_>) {
    let mut written = Vec::new();
    response.encode(&mut written);
    let limits = ResponseLimits { line_bytes_max: 4096, ..LIMITS };
    let again = ResponseDecoder::new(limits).decode(&written);
    assert_eq!(
        again,
        ResponseStep::Response { consumed: written.len(), response: response.clone() }
    );
}
