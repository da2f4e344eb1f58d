//! A frame: what nodes' connections carry once they have shaken hands.
//!
//! ```text
//! | payload bytes, u32 LE | crc32c, u32 LE | payload |
//! ```
//!
//! - The checksum covers the length and the payload, and starts from the [`Salt`] of the connection and
//!   direction plus the number of the frame. A frame that was damaged is noticed, and so is one that is
//!   whole but does not belong here: sent before, left out, out of turn, or on another connection.
//! - It guards against faults. Whoever may be hostile is kept out by TLS.
//! - A frame that is too long or does not match ends the connection: what follows it cannot be found.
//!
//! Bytes in, payloads out: no socket here.

/// The bytes before a payload.
pub const HEADER_BYTES: usize = 8;

/// What a buffer begins with, and is read into at a time.
const READ_BYTES: usize = 64 << 10;

/// A buffer that grew beyond this for one long frame is given back after it.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// What the checksums of one direction of one connection start from; agreed on in the handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Salt(pub u32);

/// Why a frame cannot be sent or taken. The connection ends with the second kind, and with the first if it
/// was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than this connection carries.
    #[error("a frame of {payload_bytes} bytes, where {payload_bytes_max} are the most")]
    TooLong {
        /// What it would hold.
        payload_bytes: usize,
        /// What it may.
        payload_bytes_max: usize,
    },
    /// Damaged, or not the one that is due here.
    #[error("frame {number} of the connection does not match its checksum")]
    Checksum {
        /// Which frame was due, counted from 0 and modulo 2^32.
        number: u32,
    },
}

/// Writes the frames of one direction of a connection, in the order in which they are to be sent.
#[derive(Debug)]
pub struct FrameEncoder {
    salt: Salt,
    /// Of the frame to come.
    number: u32,
    payload_bytes_max: usize,
}

/// Where a frame begins whose payload is still being written.
#[derive(Debug)]
#[must_use = "a frame that was begun has no header yet"]
pub struct FrameStart(usize);

impl FrameEncoder {
    /// At the beginning of a connection.
    pub fn new(salt: Salt, payload_bytes_max: usize) -> Self {
        assert!(u32::try_from(payload_bytes_max).is_ok(), "a length has 32 bits");
        Self { salt, number: 0, payload_bytes_max }
    }

    /// Leaves room for a header in `out`; the payload is what is appended from here on.
    pub fn begin(&self, out: &mut Vec<u8>) -> FrameStart {
        let start = FrameStart(out.len());
        out.extend_from_slice(&[0; HEADER_BYTES]);
        start
    }

    /// Completes the frame begun at `start`, which ends where `out` ends.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`]; `out` is as it was before the frame was begun, and the next frame may follow.
    pub fn finish(&mut self, start: FrameStart, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let FrameStart(start) = start;
        let (header, payload) = out[start..].split_at_mut(HEADER_BYTES);
        let payload_bytes = payload.len();
        let length = u32::try_from(payload_bytes).ok();
        let Some(length) = length.filter(|_| payload_bytes <= self.payload_bytes_max) else {
            out.truncate(start);
            let payload_bytes_max = self.payload_bytes_max;
            return Err(FrameError::TooLong { payload_bytes, payload_bytes_max });
        };
        header[..4].copy_from_slice(&length.to_le_bytes());
        header[4..]
            .copy_from_slice(&checksum(self.salt, self.number, length, payload).to_le_bytes());
        self.number = self.number.wrapping_add(1);
        Ok(())
    }

    /// Appends a whole frame.
    ///
    /// # Errors
    ///
    /// As [`FrameEncoder::finish`].
    pub fn encode(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        let start = self.begin(out);
        out.extend_from_slice(payload);
        self.finish(start, out)
    }
}

/// Finds the frames in what one direction of a connection brings, in pieces of any size.
///
/// ```text
/// buffer: | given out | waiting | space to read into |
///         0         start      end               buffer.len()
/// ```
#[derive(Debug)]
pub struct FrameDecoder {
    salt: Salt,
    /// Of the frame that is due.
    number: u32,
    payload_bytes_max: usize,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl FrameDecoder {
    /// At the beginning of a connection. Takes no memory before the first [`FrameDecoder::space`].
    pub fn new(salt: Salt, payload_bytes_max: usize) -> Self {
        Self { salt, number: 0, payload_bytes_max, buffer: Vec::new(), start: 0, end: 0 }
    }

    /// Where to read more into: never empty. Call it when [`FrameDecoder::next_frame`] has no more.
    ///
    /// The buffer grows with what has arrived, not with what a header announces: announcing costs nothing.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > KEPT_BYTES_MAX {
                self.buffer = Vec::new();
            }
        }
        let waiting = self.end - self.start;
        let due = self.due_bytes().unwrap_or(HEADER_BYTES);
        let fits = self.start + due <= self.buffer.len() && self.end < self.buffer.len();
        if !fits {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, waiting);
            // A whole frame if it is close to being there, and twice what is there otherwise.
            let wanted = due.max(waiting + 1).min((2 * waiting).max(READ_BYTES));
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted.max(READ_BYTES), 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// `bytes` were read into the last [`FrameDecoder::space`].
    pub fn received(&mut self, bytes: usize) {
        assert!(bytes <= self.buffer.len() - self.end, "no more than there was room for");
        self.end += bytes;
    }

    /// The payload of the next frame, in place; `None` if it is not all there yet.
    ///
    /// # Errors
    ///
    /// When the frame is too long or not the one that is due. Every later call says the same.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let Some(header) = self.buffer[self.start..self.end].first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [a, b, c, d, e, f, g, h] = *header;
        let (length, expected) =
            (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let (payload_bytes, payload_bytes_max) = (length as usize, self.payload_bytes_max);
        if payload_bytes > payload_bytes_max {
            return Err(FrameError::TooLong { payload_bytes, payload_bytes_max });
        }
        let from = self.start + HEADER_BYTES;
        if self.end - from < payload_bytes {
            return Ok(None);
        }
        let payload = &self.buffer[from..from + payload_bytes];
        if checksum(self.salt, self.number, length, payload) != expected {
            return Err(FrameError::Checksum { number: self.number });
        }
        self.number = self.number.wrapping_add(1);
        self.start = from + payload_bytes;
        Ok(Some(payload))
    }

    /// Whether the beginning of a frame is waiting for its rest.
    pub fn is_partial(&self) -> bool {
        self.start < self.end
    }

    /// The memory held.
    pub fn buffer_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The bytes of the frame that is due, header and all, if its header is there.
    fn due_bytes(&self) -> Option<usize> {
        let [a, b, c, d] = *self.buffer[self.start..self.end].first_chunk::<4>()?;
        let payload_bytes = u32::from_le_bytes([a, b, c, d]) as usize;
        Some(HEADER_BYTES + payload_bytes.min(self.payload_bytes_max))
    }
}

fn checksum(salt: Salt, number: u32, length: u32, payload: &[u8]) -> u32 {
    // Two frames of equal bytes and different starts never have equal checksums: a CRC of given bytes maps
    // starts one to one.
    let start = salt.0.wrapping_add(number);
    crc32c::crc32c_append(crc32c::crc32c_append(start, &length.to_le_bytes()), payload)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const SALT: Salt = Salt(0x5a17);
    const MAX: usize = 1 << 20;

    fn encoded(salt: Salt, payloads: &[Vec<u8>]) -> Vec<u8> {
        let (mut encoder, mut out) = (FrameEncoder::new(salt, MAX), Vec::new());
        for payload in payloads {
            encoder.encode(payload, &mut out).unwrap();
        }
        out
    }

    /// Hands `bytes` to `decoder` in pieces of the sizes given, over and over; the frames that come out.
    fn decode(
        decoder: &mut FrameDecoder,
        mut bytes: &[u8],
        sizes: &[usize],
    ) -> (Vec<Vec<u8>>, Result<(), FrameError>) {
        let (mut frames, mut sizes) = (Vec::new(), sizes.iter().cycle());
        loop {
            match decoder.next_frame() {
                Ok(Some(payload)) => frames.push(payload.to_vec()),
                Ok(None) if bytes.is_empty() => return (frames, Ok(())),
                Ok(None) => {
                    let space = decoder.space();
                    let size = (*sizes.next().unwrap()).min(bytes.len()).min(space.len());
                    space[..size].copy_from_slice(&bytes[..size]);
                    decoder.received(size);
                    bytes = &bytes[size..];
                }
                Err(error) => return (frames, Err(error)),
            }
        }
    }

    fn decode_whole(salt: Salt, bytes: &[u8]) -> (Vec<Vec<u8>>, Result<(), FrameError>) {
        decode(&mut FrameDecoder::new(salt, MAX), bytes, &[usize::MAX])
    }

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        vec(vec(any::<u8>(), 0..300), 0..20)
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(payloads in payloads(), sizes in vec(1_usize..400, 1..20)) {
            let mut decoder = FrameDecoder::new(SALT, MAX);
            let (frames, end) = decode(&mut decoder, &encoded(SALT, &payloads), &sizes);
            prop_assert_eq!(frames, payloads);
            prop_assert_eq!(end, Ok(()));
            prop_assert!(!decoder.is_partial());
        }

        #[test]
        fn no_flipped_bit_goes_unnoticed(payloads in payloads(), bit in any::<prop::sample::Index>()) {
            let mut bytes = encoded(SALT, &payloads);
            prop_assume!(!bytes.is_empty());
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut decoder = FrameDecoder::new(SALT, MAX);
            let (frames, end) = decode(&mut decoder, &bytes, &[usize::MAX]);
            // The frames before it are whole; then nothing that was not sent, and no clean end.
            prop_assert!(frames.len() < payloads.len());
            prop_assert_eq!(&frames[..], &payloads[..frames.len()]);
            prop_assert!(end.is_err() || decoder.is_partial());
        }

        #[test]
        fn any_bytes_are_frames_or_an_error_and_take_bounded_memory(
            bytes in vec(any::<u8>(), 0..4096),
            sizes in vec(1_usize..400, 1..20),
        ) {
            let mut decoder = FrameDecoder::new(SALT, MAX);
            let _ = decode(&mut decoder, &bytes, &sizes);
            prop_assert!(decoder.buffer_bytes() <= READ_BYTES);
        }
    }

    #[test]
    fn a_payload_built_in_place_equals_one_that_is_copied() {
        let (mut encoder, mut out) = (FrameEncoder::new(SALT, MAX), Vec::new());
        let start = encoder.begin(&mut out);
        out.extend_from_slice(b"in ");
        out.extend_from_slice(b"place");
        encoder.finish(start, &mut out).unwrap();
        assert_eq!(out, encoded(SALT, &[b"in place".to_vec()]));
    }

    #[test]
    fn a_payload_too_long_to_send_leaves_no_trace() {
        let (mut encoder, mut out) = (FrameEncoder::new(SALT, 4), Vec::new());
        encoder.encode(b"four", &mut out).unwrap();
        let before = out.clone();
        let error = encoder.encode(b"five!", &mut out);
        assert_eq!(error, Err(FrameError::TooLong { payload_bytes: 5, payload_bytes_max: 4 }));
        assert_eq!(out, before);
        encoder.encode(b"next", &mut out).unwrap();
        let (frames, end) = decode_whole(SALT, &out);
        assert_eq!((frames.len(), end), (2, Ok(())));
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_by_its_header_alone() {
        let mut bytes = u32::try_from(MAX + 1).unwrap().to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0; 4]);
        let (_, end) = decode_whole(SALT, &bytes);
        assert_eq!(
            end,
            Err(FrameError::TooLong { payload_bytes: MAX + 1, payload_bytes_max: MAX })
        );
    }

    #[test]
    fn announcing_a_long_frame_takes_no_memory() {
        let mut decoder = FrameDecoder::new(SALT, 64 << 20);
        let header = (64_u32 << 20).to_le_bytes();
        let (_, end) = decode(&mut decoder, &header, &[1]);
        assert_eq!(end, Ok(()));
        assert!(decoder.space().len() <= READ_BYTES);
    }

    #[test]
    fn a_long_frame_gives_its_memory_back() {
        let long = vec![7; 8 << 20];
        let mut encoder = FrameEncoder::new(SALT, 64 << 20);
        let mut bytes = Vec::new();
        encoder.encode(&long, &mut bytes).unwrap();
        let mut decoder = FrameDecoder::new(SALT, 64 << 20);
        let (frames, _) = decode(&mut decoder, &bytes, &[60_000]);
        assert!(frames == [long]);
        assert!(decoder.buffer_bytes() > KEPT_BYTES_MAX);
        decoder.space();
        assert_eq!(decoder.buffer_bytes(), READ_BYTES);
    }

    #[test]
    fn a_frame_of_another_connection_is_refused() {
        let (frames, end) = decode_whole(Salt(1), &encoded(Salt(2), &[b"a".to_vec()]));
        assert_eq!((frames.len(), end), (0, Err(FrameError::Checksum { number: 0 })));
    }

    #[test]
    fn a_frame_sent_twice_left_out_or_out_of_turn_is_refused() {
        let payloads: Vec<Vec<u8>> = (b'a'..=b'c').map(|byte| vec![byte]).collect();
        let frames: Vec<Vec<u8>> =
            encoded(SALT, &payloads).chunks(HEADER_BYTES + 1).map(<[u8]>::to_vec).collect();
        for order in [&[0, 0][..], &[1, 0], &[0, 2]] {
            let bytes: Vec<u8> = order.iter().flat_map(|&index| frames[index].clone()).collect();
            assert!(decode_whole(SALT, &bytes).1.is_err(), "{order:?}");
        }
    }
}
