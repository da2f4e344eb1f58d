//! A client's stream in pieces, and what a decoder hears of it: for all targets that decode requests.

use protocol::{Decoder, Refusal, Request, Step};

/// What one target knows of what it hears.
pub struct Expected {
    /// The most that the decoder may wait for, in bytes.
    pub wanted_bytes_max: usize,
    /// Called with each request.
    pub check: fn(&Request<'_>),
    /// Called with each refusal.
    pub check_refusal: fn(&Refusal<'_>),
}

/// Requests and refusals, in order.
pub fn hear(
    mut decoder: Decoder,
    stream: &[u8],
    piece_bytes: usize,
    expected: &Expected,
) -> Vec<String> {
    let (mut heard, mut start, mut end) = (Vec::new(), 0, 0);
    loop {
        let input = &stream[start..end];
        let (consumed, said) = match decoder.decode(input) {
            Step::More { consumed, wanted } => {
                assert!(consumed <= input.len() && wanted > input.len() - consumed);
                assert!(wanted <= expected.wanted_bytes_max);
                start += consumed;
                if end == stream.len() {
                    return heard;
                }
                end = (end + piece_bytes).min(stream.len());
                continue;
            }
            Step::Request { consumed, request } => {
                (expected.check)(&request);
                (consumed, format!("{request:?}"))
            }
            Step::Refused { consumed, refusal } => {
                (expected.check_refusal)(&refusal);
                (consumed, format!("{refusal:?}"))
            }
        };
        assert!(0 < consumed && consumed <= input.len(), "a step takes up what is there");
        start += consumed;
        heard.push(said);
    }
}
