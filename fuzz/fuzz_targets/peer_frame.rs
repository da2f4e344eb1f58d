//! Any bytes in any pieces as what a peer sends: handshakes and frames are taken or refused, what is taken
//! reads the same in one piece, and memory stays in proportion to what was sent.

#![no_main]

// The two files alone: they touch no socket, and the server around them takes ten times as long to build.
#[path = "../../cache-server/src/peer/frame.rs"]
#[expect(dead_code, reason = "a server sends and counts as well")]
mod frame;
#[path = "../../cache-server/src/peer/handshake.rs"]
#[expect(dead_code, reason = "a server compares who speaks with who should")]
mod handshake;

use libfuzzer_sys::fuzz_target;

use crate::frame::{FrameDecoder, FrameEncoder, Salt};
use crate::handshake::{Answer, HEAD_BYTES, Head, Hello};

const PAYLOAD_BYTES_MAX: usize = 1 << 20;

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (piece, bytes) = input;
    if let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>()
        && let Ok(head) = Head::decode(head)
    {
        let body = &rest[..rest.len().min(head.body_bytes)];
        let _ = Answer::decode(head, body);
        if let Ok(hello) = Hello::decode(head, body) {
            let mut again = Vec::new();
            hello.encode(&mut again);
            assert_eq!(again, bytes[..HEAD_BYTES + body.len()], "a hello is written in one way");
        }
    }

    // As they came: seldom a frame, never a crash.
    decode(&bytes, usize::from(piece) + 1);

    // As payloads: what was framed is what comes out, however it is cut.
    let payloads: Vec<&[u8]> = bytes.split(|&byte| byte == piece).collect();
    let mut encoder = FrameEncoder::new(Salt(7), PAYLOAD_BYTES_MAX);
    let mut framed = Vec::new();
    for payload in &payloads {
        assert!(encoder.encode(payload, &mut framed).is_ok(), "short enough");
    }
    assert_eq!(decode(&framed, usize::from(piece) + 1), payloads);
});

/// The frames in `bytes` until the first that is none, handed in by pieces.
fn decode(bytes: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let mut decoder = FrameDecoder::new(Salt(7), PAYLOAD_BYTES_MAX);
    let mut frames = Vec::new();
    for mut piece in bytes.chunks(piece) {
        while !piece.is_empty() {
            let space = decoder.space();
            let fitting = space.len().min(piece.len());
            space[..fitting].copy_from_slice(&piece[..fitting]);
            decoder.received(fitting);
            piece = &piece[fitting..];
            loop {
                match decoder.next_frame() {
                    Ok(Some(payload)) => frames.push(payload.to_vec()),
                    Ok(None) => break,
                    Err(_) => return frames,
                }
            }
        }
    }
    assert!(decoder.buffer_bytes() <= (2 * bytes.len()).max(1 << 16), "in proportion");
    frames
}
