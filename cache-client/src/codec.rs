//! `Codec`: typed values as bytes, and what was done to them in the client flags.
//!
//! ```text
//! flags    0                        plain bytes, as other clients write them
//!          1010 1100 1110 01cf      bits 16 and above are 0
//!                         │└ format: 0 postcard, 1 JSON
//!                         └─ compressed with zstd
//! ```
//!
//! A value read back says by its flags how it was written, so that a fleet can change format or threshold while it
//! runs. Other clients' flags are refused rather than guessed at, and so is a value that would become longer
//! than the bound when it is unpacked.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::value::Value;

/// What a typed value's flags are, but for the lowest bits.
const MARK: u32 = 0xace4;
const JSON: u32 = 1;
const COMPRESSED: u32 = 2;

/// zstd's own default: its fastest levels save little time on values of some kilobytes.
const COMPRESSION_LEVEL: i32 = 3;

/// A form for typed values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// [postcard](https://postcard.jamesmunns.com): short and fast; both sides must agree on the type exactly.
    #[default]
    Postcard,
    /// JSON: readable, and fields may come and go.
    Json,
}

/// How typed values become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codec {
    /// What new values are written in. Both are read.
    pub format: Format,
    /// From how many encoded bytes on a value is compressed, if that makes it shorter; `None` for never.
    pub compress_from_bytes: Option<usize>,
    /// The longest value, before it is compressed and after it is unpacked.
    pub value_bytes_max: usize,
}

impl Default for Codec {
    fn default() -> Self {
        Self { format: Format::Postcard, compress_from_bytes: None, value_bytes_max: 16 << 20 }
    }
}

/// Why a typed value could not be written, or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// serde does not know how to write it.
    #[error("the value cannot be encoded: {0}")]
    Encode(String),
    /// The bytes are no such value.
    #[error("the bytes are no such value: {0}")]
    Decode(String),
    /// It is too long, or becomes so.
    #[error("the value has more than {bytes_max} bytes")]
    TooLarge {
        /// How many it may have.
        bytes_max: usize,
    },
    /// It was not written by this codec.
    #[error("the flags {flags} are none of a typed value")]
    Flags {
        /// What they are.
        flags: u32,
    },
}

impl Codec {
    /// `value` as bytes, and the flags to store with them.
    pub fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<(Vec<u8>, u32), CodecError> {
        let (plain, flags) = match self.format {
            Format::Postcard => (postcard::to_stdvec(value).map_err(encode_error)?, MARK),
            Format::Json => (serde_json::to_vec(value).map_err(encode_error)?, MARK | JSON),
        };
        if plain.len() > self.value_bytes_max {
            return Err(CodecError::TooLarge { bytes_max: self.value_bytes_max });
        }
        if self.compress_from_bytes.is_none_or(|from| plain.len() < from) {
            return Ok((plain, flags));
        }
        let packed = zstd::bulk::compress(&plain, COMPRESSION_LEVEL).map_err(encode_error)?;
        if packed.len() < plain.len() {
            Ok((packed, flags | COMPRESSED))
        } else {
            Ok((plain, flags))
        }
    }

    /// The value that was stored, by what its flags say.
    pub fn decode<T: DeserializeOwned>(&self, value: &Value) -> Result<T, CodecError> {
        self.decode_bytes(&value.data, value.flags)
    }

    /// The same of bytes and their flags.
    pub(crate) fn decode_bytes<T: DeserializeOwned>(
        &self,
        data: &[u8],
        flags: u32,
    ) -> Result<T, CodecError> {
        if flags & !(JSON | COMPRESSED) != MARK {
            return Err(CodecError::Flags { flags });
        }
        let unpacked;
        let plain = if flags & COMPRESSED == 0 {
            data
        } else {
            unpacked = self.unpack(data)?;
            &unpacked
        };
        if plain.len() > self.value_bytes_max {
            return Err(CodecError::TooLarge { bytes_max: self.value_bytes_max });
        }
        if flags & JSON == 0 {
            let (decoded, rest) = postcard::take_from_bytes(plain).map_err(decode_error)?;
            let is_whole = rest.is_empty();
            is_whole.then_some(decoded).ok_or_else(|| decode_error("bytes are left over"))
        } else {
            serde_json::from_slice(plain).map_err(decode_error)
        }
    }

    /// What the frame says of its length is believed as far as the bound.
    fn unpack(&self, packed: &[u8]) -> Result<Vec<u8>, CodecError> {
        let too_large = CodecError::TooLarge { bytes_max: self.value_bytes_max };
        let len = zstd::zstd_safe::get_frame_content_size(packed);
        let len =
            len.ok().flatten().ok_or_else(|| decode_error("no frame of zstd with its length"))?;
        let len = usize::try_from(len).ok().filter(|&len| len <= self.value_bytes_max);
        zstd::bulk::decompress(packed, len.ok_or(too_large)?).map_err(decode_error)
    }
}

fn encode_error(error: impl std::fmt::Display) -> CodecError {
    CodecError::Encode(error.to_string())
}

fn decode_error(error: impl std::fmt::Display) -> CodecError {
    CodecError::Decode(error.to_string())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Session {
        user: u64,
        name: String,
        basket: Vec<(u32, u16)>,
        note: Option<String>,
    }

    fn codec(format: Format, compress_from_bytes: Option<usize>) -> Codec {
        Codec { format, compress_from_bytes, ..Codec::default() }
    }

    fn stored((data, flags): (Vec<u8>, u32)) -> Value {
        Value { data: Bytes::from(data), flags, cas: None }
    }

    proptest! {
        #[test]
        fn a_value_is_read_by_every_codec(
            user: u64,
            name: String,
            basket: Vec<(u32, u16)>,
            note: Option<String>,
            threshold in proptest::option::of(0usize..200),
        ) {
            let session = Session { user, name, basket, note };
            for format in [Format::Postcard, Format::Json] {
                let written = stored(codec(format, threshold).encode(&session).unwrap());
                prop_assert_eq!(Codec::default().decode::<Session>(&written), Ok(session.clone()));
            }
        }

        #[test]
        fn noise_is_refused_and_nothing_worse(
            data: Vec<u8>,
            flags in prop_oneof![0u32..8, MARK..MARK + 4, any::<u32>()],
        ) {
            let _ = Codec::default().decode::<Session>(&stored((data, flags)));
        }
    }

    #[test]
    fn what_compresses_well_is_stored_compressed() {
        let (data, flags) = codec(Format::Postcard, Some(100)).encode(&vec![7u8; 10_000]).unwrap();
        assert_eq!(flags, MARK | COMPRESSED);
        assert!(data.len() < 100);
    }

    #[test]
    fn what_does_not_is_stored_as_it_is() {
        let (data, flags) = codec(Format::Postcard, Some(1)).encode(&[1u8, 2, 3]).unwrap();
        assert_eq!((data.len(), flags), (3, MARK));
    }

    #[test]
    fn a_small_value_that_unpacks_to_a_large_one_is_refused() {
        let packed = stored(codec(Format::Postcard, Some(0)).encode(&vec![0u8; 1 << 20]).unwrap());
        let small = Codec { value_bytes_max: 1 << 10, ..Codec::default() };
        let refused = Err(CodecError::TooLarge { bytes_max: 1 << 10 });
        assert_eq!(small.decode::<Vec<u8>>(&packed), refused);
    }

    #[test]
    fn plain_bytes_are_no_typed_value() {
        let plain = stored((b"5".to_vec(), 0));
        assert_eq!(Codec::default().decode::<u8>(&plain), Err(CodecError::Flags { flags: 0 }));
    }

    #[test]
    fn bytes_that_are_left_over_are_an_error() {
        let (mut data, flags) = Codec::default().encode(&1u8).unwrap();
        data.push(0);
        assert!(Codec::default().decode::<u8>(&stored((data, flags))).is_err());
    }
}
