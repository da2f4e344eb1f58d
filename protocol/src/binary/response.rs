//! Decodes and encodes the binary answers.
//!
//! | answer to | extras | key | value |
//! |---|---|---|---|
//! | a hit of `get gat` | client flags, 4 bytes | with `getk gatk` | the value |
//! | a miss of `getk gatk` | | the key | |
//! | a hit of `touch` | client flags, 4 | | |
//! | `increment decrement` | | | the number, 8 bytes |
//! | `stat`, once per line and once empty | | the name | what it is |
//! | `version` | | | the version |
//! | `sasl list` | | | the mechanisms |
//! | whatever failed | | | the reason, for people |
//!
//! The cas is that of the item as it is now, and 0 where there is none.

use crate::binary::{Head, Header, RESPONSE_MAGIC};
use crate::error::ProtocolError;
use crate::key::Key;

/// How a binary request ended: the numbers are memcached's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Status {
    /// Done.
    Success = 0x00,
    /// There is no such item.
    NotFound = 0x01,
    /// There is an item already, or one with another cas.
    Exists = 0x02,
    /// The value is larger than the server stores.
    TooLarge = 0x03,
    /// The request is malformed.
    InvalidArguments = 0x04,
    /// There is nothing to append or prepend to.
    NotStored = 0x05,
    /// The item holds no number.
    NonNumeric = 0x06,
    /// The client has not authenticated, or could not.
    AuthFailure = 0x20,
    /// The authentication goes on.
    AuthContinue = 0x21,
    /// There is no such command.
    UnknownCommand = 0x81,
    /// No memory.
    OutOfMemory = 0x82,
    /// Not carried out, or not known to be: what a node of a cluster says that has lost the primary.
    InternalError = 0x84,
    /// The server sheds load; the request may be tried again.
    Busy = 0x85,
    /// Not at present; the request may be tried again.
    TemporaryFailure = 0x86,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 14] = [
        Self::Success,
        Self::NotFound,
        Self::Exists,
        Self::TooLarge,
        Self::InvalidArguments,
        Self::NotStored,
        Self::NonNumeric,
        Self::AuthFailure,
        Self::AuthContinue,
        Self::UnknownCommand,
        Self::OutOfMemory,
        Self::InternalError,
        Self::Busy,
        Self::TemporaryFailure,
    ];

    /// The status of this number.
    pub fn from_wire(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|&status| status as u16 == number)
    }

    /// What is said of it: memcached's words, empty where it has none.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Success | Self::AuthContinue => "",
            Self::NotFound => "Not found",
            Self::Exists => "Data exists for key.",
            Self::TooLarge => "Too large.",
            Self::InvalidArguments => "Invalid arguments",
            Self::NotStored => "Not stored.",
            Self::NonNumeric => "Non-numeric server-side value for incr or decr",
            Self::AuthFailure => "Auth failure.",
            Self::UnknownCommand => "Unknown command",
            Self::OutOfMemory => "Out of memory",
            Self::InternalError => "Internal error",
            Self::Busy => "Busy",
            Self::TemporaryFailure => "Temporary failure",
        }
    }
}

impl From<ProtocolError> for Status {
    fn from(error: ProtocolError) -> Self {
        match error {
            ProtocolError::UnknownCommand | ProtocolError::BadFrameLengths => Self::UnknownCommand,
            ProtocolError::NonNumericValue => Self::NonNumeric,
            ProtocolError::TooLarge => Self::TooLarge,
            ProtocolError::OutOfMemory | ProtocolError::OutOfMemoryStoring => Self::OutOfMemory,
            ProtocolError::Busy => Self::Busy,
            ProtocolError::NotAuthenticated => Self::AuthFailure,
            _ => Self::InvalidArguments,
        }
    }
}

/// Appends the header of a successful answer. Extras, key and value are the caller's to append, so
/// that a large value can be sent from where it lies.
#[inline]
pub fn encode_header(
    out: &mut Vec<u8>,
    head: Head,
    cas: u64,
    extras_bytes: usize,
    key_bytes: usize,
    value_bytes: usize,
) {
    let header = Header {
        magic: RESPONSE_MAGIC,
        head,
        key_bytes,
        extras_bytes,
        body_bytes: extras_bytes + key_bytes + value_bytes,
        status: Status::Success as u16,
        cas,
    };
    header.write(out);
}

/// Appends a successful answer without extras and key.
pub fn encode_success(out: &mut Vec<u8>, head: Head, cas: u64, value: &[u8]) {
    encode_header(out, head, cas, 0, 0, value.len());
    out.extend_from_slice(value);
}

/// Appends the answer to what failed, in memcached's words.
pub fn encode_error(out: &mut Vec<u8>, head: Head, status: Status) {
    encode_worded_error(out, head, status, status.text().as_bytes());
}

/// Appends the answer to what failed, in words of one's own.
pub fn encode_worded_error(out: &mut Vec<u8>, head: Head, status: Status, words: &[u8]) {
    let response =
        BinaryResponse { head, status: status as u16, cas: 0, extras: &[], key: &[], value: words };
    response.encode(out);
}

/// Appends a miss that carries its key.
pub fn encode_miss_with_key(out: &mut Vec<u8>, head: Head, key: Key<'_>) {
    let response = BinaryResponse {
        head,
        status: Status::NotFound as u16,
        cas: 0,
        extras: &[],
        key: key.as_bytes(),
        value: &[],
    };
    response.encode(out);
}

/// Appends a line of the statistics; the last one is empty.
pub fn encode_stat(out: &mut Vec<u8>, head: Head, name: &[u8], value: &[u8]) {
    encode_header(out, head, 0, 0, name.len(), value.len());
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

/// An answer, as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinaryResponse<'a> {
    /// That of the request.
    pub head: Head,
    /// How it ended; [`Status::from_wire`] knows most.
    pub status: u16,
    /// The item's cas, 0 when there is none.
    pub cas: u64,
    /// What the command calls for.
    pub extras: &'a [u8],
    /// The key, where it was asked for; the name of a statistic.
    pub key: &'a [u8],
    /// The value, or the reason why there is none.
    pub value: &'a [u8],
}

/// What the bytes of a server begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryResponseStep<'a> {
    /// Half an answer.
    More {
        /// How long the input must become before another call can get further.
        wanted: usize,
    },
    /// An answer.
    Response {
        /// Bytes of the input it took up.
        consumed: usize,
        /// The answer.
        response: BinaryResponse<'a>,
    },
    /// No answer, or one longer than the limit: close the connection.
    Malformed,
}

impl<'a> BinaryResponse<'a> {
    /// Appends the answer, as a server sends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let header = Header {
            magic: RESPONSE_MAGIC,
            head: self.head,
            key_bytes: self.key.len(),
            extras_bytes: self.extras.len(),
            body_bytes: self.extras.len() + self.key.len() + self.value.len(),
            status: self.status,
            cas: self.cas,
        };
        header.write(out);
        for part in [self.extras, self.key, self.value] {
            out.extend_from_slice(part);
        }
    }

    /// The first answer of `input`, whose body has at most `body_bytes_max`.
    pub fn decode(input: &'a [u8], body_bytes_max: usize) -> BinaryResponseStep<'a> {
        if input.first().is_some_and(|&magic| magic != RESPONSE_MAGIC) {
            return BinaryResponseStep::Malformed;
        }
        let Some(header) = Header::read(input) else {
            return BinaryResponseStep::More { wanted: super::HEADER_BYTES };
        };
        if !header.is_sound() || header.body_bytes > body_bytes_max {
            return BinaryResponseStep::Malformed;
        }
        let total_bytes = header.total_bytes();
        let Some(body) = input.get(super::HEADER_BYTES..total_bytes) else {
            return BinaryResponseStep::More { wanted: total_bytes };
        };
        let (extras, rest) = body.split_at(header.extras_bytes);
        let (key, value) = rest.split_at(header.key_bytes);
        let Header { head, status, cas, .. } = header;
        let response = Self { head, status, cas, extras, key, value };
        BinaryResponseStep::Response { consumed: total_bytes, response }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_status_is_found_by_its_number() {
        for status in Status::ALL {
            assert_eq!(Status::from_wire(status as u16), Some(status));
        }
        assert_eq!(Status::from_wire(7), None);
    }

    proptest! {
        #[test]
        fn an_answer_encoded_decodes_to_itself(
            opcode: u8, opaque: u32, status: u16, cas: u64,
            extras in vec(any::<u8>(), 0..30),
            key in vec(any::<u8>(), 0..300),
            value in vec(any::<u8>(), 0..300),
        ) {
            let head = Head { opcode, opaque };
            let response = BinaryResponse {
                head, status, cas, extras: &extras, key: &key, value: &value,
            };
            let mut bytes = Vec::new();
            response.encode(&mut bytes);
            for end in 0..bytes.len() {
                let BinaryResponseStep::More { wanted } = BinaryResponse::decode(&bytes[..end], 1000)
                else { panic!("{end} of {} bytes are no answer", bytes.len()) };
                prop_assert!(end < wanted && wanted <= bytes.len());
            }
            bytes.push(0);
            let step = BinaryResponse::decode(&bytes, 1000);
            prop_assert_eq!(step, BinaryResponseStep::Response { consumed: bytes.len() - 1, response });
        }

        #[test]
        fn noise_never_stops_the_decoder(noise in vec(any::<u8>(), 0..200)) {
            let noise = [&[RESPONSE_MAGIC], &noise[..]].concat();
            if let BinaryResponseStep::More { wanted } = BinaryResponse::decode(&noise, 1000) {
                prop_assert!(noise.len() < wanted && wanted <= 1024);
            }
        }
    }
}
