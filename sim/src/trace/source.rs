//! The bytes of a trace: counted as they are stored, unpacked, and looked at before they are read.
//!
//! ```text
//! file or standard input -> counted -> unpacked if zstd, gzip or xz -> looked at -> a format's reader
//! ```

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much is asked of the source at a time, and how much can be looked at.
pub(crate) const BUFFER_BYTES: usize = 128 * 1024;

/// The first bytes of a zstd frame: magic number 0xFD2FB528, little-endian (RFC 8878, section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The first bytes of a gzip member (RFC 1952, section 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The first bytes of an xz stream (The .xz File Format, section 2.1.1.1).
const XZ_MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];

/// The widest window that zstd can make (`--long=31`); frames name how much of it they need.
const ZSTD_WINDOW_LOG_MAX: u32 = 31;

/// The bytes of a trace, unpacked.
pub(crate) type Source = Peeking<Box<dyn Read + Send>>;

/// How many bytes of the source, as they are stored, have been taken.
#[derive(Clone, Debug, Default)]
pub struct Position(Arc<AtomicU64>);

impl Position {
    /// Bytes taken by now.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// So many more have been taken.
    pub(crate) fn advance(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All of them have.
    #[cfg(feature = "parquet")]
    pub(crate) fn finish(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

/// `source`, unpacked if its first bytes say that it is packed, and how far it has been read.
pub(crate) fn unpacked(source: impl Read + Send + 'static) -> io::Result<(Source, Position)> {
    let position = Position::default();
    let counted = Counted { source, position: position.clone() };
    let mut source = Peeking::new(counted);
    let head = source.peek(XZ_MAGIC.len())?;
    let plain: Box<dyn Read + Send> = if head.starts_with(&ZSTD_MAGIC) {
        let mut decoder = zstd::Decoder::with_buffer(source)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        Box::new(decoder)
    } else if head.starts_with(&GZIP_MAGIC) {
        Box::new(flate2::bufread::MultiGzDecoder::new(source))
    } else if head.starts_with(&XZ_MAGIC) {
        Box::new(lzma_rust2::XzReader::new(source, true))
    } else {
        // What has been looked at goes first; then the source itself, without a buffer in between.
        let (buffered, source) = source.into_parts();
        let mut plain = Peeking::<Box<dyn Read + Send>>::new(Box::new(source));
        plain.put_first(&buffered);
        return Ok((plain, position));
    };
    Ok((Peeking::new(plain), position))
}

/// Counts what passes through.
struct Counted<R> {
    source: R,
    position: Position,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.position.advance(count as u64);
        Ok(count)
    }
}

/// A buffered reader whose first bytes can be looked at, as many as are asked for.
pub(crate) struct Peeking<R> {
    source: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<R: Read> Peeking<R> {
    /// An empty buffer before `source`.
    pub(crate) fn new(source: R) -> Self {
        Self { source, buffer: vec![0; BUFFER_BYTES].into(), start: 0, end: 0 }
    }

    /// The next bytes: `count` of them, or all there are, or as many as the buffer holds.
    pub(crate) fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        while self.end < count.min(self.buffer.len()) {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(&self.buffer[..self.end])
    }

    fn into_parts(self) -> (Vec<u8>, R) {
        (self.buffer[self.start..self.end].to_vec(), self.source)
    }

    /// Puts bytes into the buffer, which is empty.
    fn put_first(&mut self, bytes: &[u8]) {
        self.buffer[..bytes.len()].copy_from_slice(bytes);
        self.end = bytes.len();
    }
}

impl<R: Read> Read for Peeking<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let count = from.len().min(to.len());
        to[..count].copy_from_slice(&from[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for Peeking<R> {
    #[inline]
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            (self.start, self.end) = (0, self.source.read(&mut self.buffer)?);
        }
        Ok(&self.buffer[self.start..self.end])
    }

    #[inline]
    fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read_all(bytes: Vec<u8>) -> io::Result<(Vec<u8>, u64)> {
        let (mut source, position) = unpacked(io::Cursor::new(bytes))?;
        let mut read = Vec::new();
        source.read_to_end(&mut read)?;
        Ok((read, position.bytes()))
    }

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    /// `xz -9` of `hello hello hello\n`.
    const XZ: [u8; 72] = [
        253, 55, 122, 88, 90, 0, 0, 4, 230, 214, 180, 70, 2, 0, 33, 1, 28, 0, 0, 0, 16, 207, 88,
        204, 224, 0, 17, 0, 12, 93, 0, 52, 25, 73, 238, 141, 233, 79, 126, 33, 33, 176, 0, 0, 31,
        1, 217, 200, 135, 193, 67, 200, 0, 1, 40, 18, 201, 106, 98, 142, 31, 182, 243, 125, 1, 0,
        0, 0, 0, 4, 89, 90,
    ];

    #[test]
    fn packed_bytes_are_unpacked_and_counted_as_they_are_stored() {
        let plain = b"0123456789".repeat(50_000);
        let zst = zstd::encode_all(plain.as_slice(), 0).unwrap();
        for bytes in [plain.clone(), zst, gzip(&plain)] {
            let stored = bytes.len() as u64;
            assert_eq!(read_all(bytes).unwrap(), (plain.clone(), stored));
        }
        assert_eq!(read_all(XZ.to_vec()).unwrap().0, b"hello hello hello\n");
        assert_eq!(read_all(Vec::new()).unwrap().0, b"");
    }

    #[test]
    fn members_and_streams_that_follow_each_other_are_one_trace() {
        assert_eq!(read_all([gzip(b"one "), gzip(b"two")].concat()).unwrap().0, b"one two");
        let twice = read_all([XZ, XZ].concat()).unwrap().0;
        assert_eq!(twice, b"hello hello hello\n".repeat(2));
    }

    #[test]
    fn data_cut_short_is_an_error() {
        let plain = [7u8; 24 * 5000].map(|byte| byte.wrapping_mul(31));
        let zst = zstd::encode_all(plain.as_slice(), 0).unwrap();
        for bytes in [zst, gzip(&plain), XZ.to_vec()] {
            assert!(read_all(bytes[..bytes.len() - 3].to_vec()).is_err());
        }
    }

    #[test]
    fn what_was_looked_at_is_still_there() {
        /// Hands out one byte at a time.
        struct Dripping(io::Cursor<&'static [u8]>);
        impl Read for Dripping {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let one = buffer.len().min(1);
                self.0.read(&mut buffer[..one])
            }
        }
        let mut source = Peeking::new(Dripping(io::Cursor::new(b"abcdef")));
        assert_eq!(source.peek(4).unwrap(), b"abcd");
        source.consume(2);
        assert_eq!(source.peek(100).unwrap(), b"cdef");
        let mut rest = String::new();
        source.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "cdef");
    }
}
