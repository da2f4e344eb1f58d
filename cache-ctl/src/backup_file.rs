//! A backup file read and written as a stream, packed with zstd.
//!
//! What stands in it is `protocol::backup::file`'s; here is what that leaves to its caller: packing,
//! reading as much as is needed, and telling a file that was cut short from one that is damaged.

use std::io::{self, BufReader, Read, Write};

use protocol::backup::file::{FileDecoder, FileEncoder, FileError, FileHeader, FileStep, Totals};
use protocol::backup::{CacheId, Items};

/// The level at which zstd itself is used when none is asked for: a third of the level 1's speed is
/// still more than a server gives out.
const COMPRESSION_LEVEL: i32 = 3;
/// What one read asks for, where no more is needed.
const READ_BYTES: usize = 128 << 10;

/// Writes a backup file.
pub struct BackupWriter<W: Write> {
    packed: zstd::Encoder<'static, W>,
    encoder: FileEncoder,
    /// What is to be written next.
    frame: Vec<u8>,
}

impl<W: Write> BackupWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// When `out` cannot be written to.
    pub fn begin(header: &FileHeader<'_>, out: W) -> io::Result<Self> {
        let mut packed = zstd::Encoder::new(out, COMPRESSION_LEVEL)?;
        packed.include_checksum(true)?;
        let mut frame = Vec::new();
        let encoder = FileEncoder::begin(header, crc32c::crc32c, &mut frame);
        Ok(Self { packed, encoder, frame })
    }

    /// Adds items.
    ///
    /// # Errors
    ///
    /// When the file cannot be written to.
    pub fn add(&mut self, items: &Items<'_>) -> io::Result<()> {
        self.encoder.block(items, &mut self.frame);
        self.packed.write_all(&self.frame)?;
        self.frame.clear();
        self.packed.write_all(items.as_bytes())
    }

    /// What was added so far.
    pub fn totals(&self) -> Totals {
        self.encoder.totals()
    }

    /// Ends the file and gives back what it was written to.
    ///
    /// # Errors
    ///
    /// When the file cannot be written to.
    pub fn end(mut self) -> io::Result<(W, Totals)> {
        let totals = self.encoder.end(&mut self.frame);
        self.packed.write_all(&self.frame)?;
        let mut out = self.packed.finish()?;
        // What is buffered when the program ends fails unheard.
        out.flush()?;
        Ok((out, totals))
    }
}

/// Why a backup cannot be read, or not any further.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be unpacked.
    #[error("the backup is damaged, or none: it cannot be unpacked")]
    Packed(#[source] io::Error),
    /// It ends before its time.
    #[error("the backup is cut short")]
    CutShort,
    /// Something is not as it was written.
    #[error("the backup cannot be read")]
    File(#[from] FileError),
    /// Something stands behind its end.
    #[error("the backup is damaged: it goes on behind its end")]
    GoesOn,
}

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cache that the items are of.
    pub cache_id: CacheId,
    /// When it was begun, in milliseconds since the start of 1970.
    pub taken_unix_ms: u64,
    /// The version of the server.
    pub server_version: String,
    /// What all keys begin with; empty for every key.
    pub prefix: Vec<u8>,
}

/// Reads a backup file.
pub struct BackupReader<R: Read> {
    packed: zstd::Decoder<'static, BufReader<R>>,
    decoder: FileDecoder,
    header: Header,
    /// Why no more can be unpacked; told when what could be is used up.
    failed: Option<ReadError>,
    /// What is unpacked; the first `done` bytes are done with.
    unpacked: Vec<u8>,
    done: usize,
}

impl<R: Read> BackupReader<R> {
    /// Begins to read: the header.
    ///
    /// # Errors
    ///
    /// When `input` is no backup.
    pub fn open(input: R) -> Result<Self, ReadError> {
        let packed = zstd::Decoder::new(input).map_err(ReadError::Packed)?;
        let header = Header {
            cache_id: CacheId::default(),
            taken_unix_ms: 0,
            server_version: String::new(),
            prefix: Vec::new(),
        };
        let decoder = FileDecoder::new(crc32c::crc32c);
        let mut reader =
            Self { packed, decoder, header, failed: None, unpacked: Vec::new(), done: 0 };
        reader.read_header()?;
        Ok(reader)
    }

    fn read_header(&mut self) -> Result<(), ReadError> {
        loop {
            match self.decoder.decode(&self.unpacked)? {
                FileStep::More { wanted } => self.unpack(wanted)?,
                FileStep::Header { consumed, header } => {
                    self.header = Header {
                        cache_id: header.cache_id,
                        taken_unix_ms: header.taken_unix_ms,
                        server_version: String::from_utf8_lossy(header.server_version).into_owned(),
                        prefix: header.prefix.to_vec(),
                    };
                    self.done = consumed;
                    return Ok(());
                }
                FileStep::Block { .. } | FileStep::End { .. } => {
                    unreachable!("the header comes first")
                }
            }
        }
    }

    /// What the backup says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next items, as they were written; `None` at the end of a file that is whole.
    ///
    /// # Errors
    ///
    /// When what follows is damaged or missing.
    pub fn next_block(&mut self) -> Result<Option<Items<'_>>, ReadError> {
        let from = loop {
            match self.decoder.decode(&self.unpacked[self.done..])? {
                FileStep::More { wanted } => self.unpack(wanted)?,
                FileStep::Block { consumed, items } => {
                    let bytes = items.as_bytes().len();
                    self.done += consumed;
                    break self.done - bytes;
                }
                FileStep::End { consumed, .. } => {
                    self.done += consumed;
                    return self.expect_end().map(|()| None);
                }
                FileStep::Header { .. } => unreachable!("the header comes once"),
            }
        };
        let items = Items::new(&self.unpacked[from..self.done]).map_err(FileError::Item)?;
        Ok(Some(items))
    }

    /// Unpacks some more, so that `wanted` bytes that are not done with can be there in the end.
    fn unpack(&mut self, wanted: usize) -> Result<(), ReadError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.unpacked.drain(..self.done);
        self.done = 0;
        let before = self.unpacked.len();
        let room = wanted.saturating_sub(before).max(READ_BYTES) as u64;
        let error = match (&mut self.packed).take(room).read_to_end(&mut self.unpacked) {
            Ok(0) => ReadError::CutShort,
            Ok(_) => return Ok(()),
            Err(error) => unpacking(error),
        };
        // What came before the damage may be sound all the same.
        if self.unpacked.len() == before {
            return Err(error);
        }
        self.failed = Some(error);
        Ok(())
    }

    /// Nothing follows, and the checksum of the whole holds.
    fn expect_end(&mut self) -> Result<(), ReadError> {
        let mut more = [0];
        if self.done < self.unpacked.len() {
            return Err(ReadError::GoesOn);
        }
        match self.packed.read(&mut more) {
            Ok(0) => Ok(()),
            Ok(_) => Err(ReadError::GoesOn),
            Err(error) => Err(unpacking(error)),
        }
    }
}

fn unpacking(error: io::Error) -> ReadError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ReadError::CutShort,
        _ => ReadError::Packed(error),
    }
}

#[cfg(test)]
mod tests {
    use protocol::Key;
    use protocol::backup::{Item, ItemHead};

    use super::*;

    fn backup(blocks: usize) -> Vec<u8> {
        let header = FileHeader {
            cache_id: CacheId::new(7),
            taken_unix_ms: 1,
            server_version: b"1",
            prefix: b"",
        };
        let mut writer = BackupWriter::begin(&header, Vec::new()).unwrap();
        for n in 0..blocks {
            let (mut bytes, key) = (Vec::new(), format!("key-{n}"));
            let head = ItemHead {
                key: Key::new(key.as_bytes()).unwrap(),
                client_flags: 0,
                cas: 1,
                deadline_unix_ms: None,
                stale: false,
            };
            Item { head, value: &vec![b'v'; n * 100] }.encode(&mut bytes);
            writer.add(&Items::new(&bytes).unwrap()).unwrap();
        }
        writer.end().unwrap().0
    }

    fn read(bytes: &[u8]) -> Result<usize, ReadError> {
        let mut reader = BackupReader::open(bytes)?;
        let mut items = 0;
        while let Some(block) = reader.next_block()? {
            items += block.len();
        }
        Ok(items)
    }

    #[test]
    fn what_was_written_is_read() {
        for blocks in [0, 1, 1000] {
            assert_eq!(read(&backup(blocks)).unwrap(), blocks);
        }
    }

    #[test]
    fn a_file_that_was_cut_says_so() {
        let bytes = backup(1000);
        for len in [0, 1, 10, bytes.len() / 2, bytes.len() - 5, bytes.len() - 1] {
            assert!(matches!(read(&bytes[..len]), Err(ReadError::CutShort)), "{len} bytes");
        }
    }

    #[test]
    fn what_is_no_backup_is_told() {
        assert!(matches!(read(b"{\"key\":1}"), Err(ReadError::Packed(_))));
        let packed = zstd::encode_all(&b"{\"key\":1}"[..], 1).unwrap();
        assert!(matches!(read(&packed), Err(ReadError::File(FileError::NotABackup))));
        let twice = backup(1).repeat(2);
        assert!(matches!(read(&twice), Err(ReadError::GoesOn)));
    }
}
