//! The binary protocol: frames with a fixed header instead of lines.
//!
//! ```text
//!     0       1       2       3       4       5       6       7
//! +-------+-------+-------+-------+-------+-------+-------+-------+
//! | magic | opcode|  key length   | extras| type 0| request: 0    |
//! |       |       |               | length|       | answer: status|
//! +-------+-------+-------+-------+-------+-------+-------+-------+
//! | body length: extras, key, value| opaque: comes back as it is  |
//! +-------+-------+-------+-------+-------+-------+-------+-------+
//! |                              cas                              |
//! +-------+-------+-------+-------+-------+-------+-------+-------+
//! | extras | key | value ...
//! ```
//!
//! Numbers are big-endian. What the extras hold depends on the [`Opcode`]; see [`request`] and
//! [`response`]. A quiet command is answered only where its answer is not the expected one: a hit of a
//! get, a failure of anything else.
//!
//! The layout is that of memcached's `protocol_binary.h` and of its wiki's `BinaryProtocolRevamped`;
//! what is answered when is 1.6.45's `proto_bin.c`, tried out, and stands in `binary/conformance.rs`.

pub mod request;
pub mod response;
pub mod sasl;

#[cfg(test)]
mod conformance;

/// The first byte of a request. No line of text begins with it: so a server tells by the first byte of
/// a connection what is spoken on it.
pub const REQUEST_MAGIC: u8 = 0x80;

/// The first byte of an answer.
pub const RESPONSE_MAGIC: u8 = 0x81;

/// The length of the header of a request or of an answer, in bytes.
pub const HEADER_BYTES: usize = 24;

/// What a request is told by, and what its answer repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The command, perhaps one that is not known; see [`Opcode::from_byte`].
    pub opcode: u8,
    /// The client's own mark.
    pub opaque: u32,
}

impl Head {
    /// The head of the request that `bytes` begin with; `None` when they are no frame.
    #[inline]
    pub fn of_request(bytes: &[u8]) -> Option<Self> {
        Self::of(REQUEST_MAGIC, bytes)
    }

    /// The head of the answer that `bytes` begin with; `None` when they are no frame.
    #[inline]
    pub fn of_response(bytes: &[u8]) -> Option<Self> {
        Self::of(RESPONSE_MAGIC, bytes)
    }

    #[inline]
    fn of(magic: u8, bytes: &[u8]) -> Option<Self> {
        if bytes.first() == Some(&magic) { Some(Header::read(bytes)?.head) } else { None }
    }

    /// Whether the answer that is expected is left out.
    #[inline]
    pub const fn is_quiet(self) -> bool {
        match Opcode::from_byte(self.opcode) {
            Some(opcode) => opcode.is_quiet(),
            None => false,
        }
    }
}

/// The key in the request that `bytes` begin with, unread otherwise; `None` when they are no frame.
pub fn key_in_request(bytes: &[u8]) -> Option<&[u8]> {
    let header = Header::read(bytes).filter(|header| header.magic == REQUEST_MAGIC)?;
    bytes.get(HEADER_BYTES + header.extras_bytes..header.prefix_bytes())
}

macro_rules! opcodes {
    ($($(#[$doc:meta])* $name:ident = $byte:literal,)+) => {
        /// The commands, by the byte that names them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Opcode { $($(#[$doc])* $name = $byte,)+ }

        impl Opcode {
            /// Every command.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The command that `byte` names.
            #[inline]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

opcodes! {
    /// An item's value.
    Get = 0x00,
    /// Writes a value.
    Set = 0x01,
    /// Writes a value where there is none.
    Add = 0x02,
    /// Writes a value where there is one.
    Replace = 0x03,
    /// Removes an item.
    Delete = 0x04,
    /// Adds to a number, or creates it.
    Increment = 0x05,
    /// Takes from a number, or creates it.
    Decrement = 0x06,
    /// Closes the connection, once that is answered.
    Quit = 0x07,
    /// Invalidates every item.
    Flush = 0x08,
    /// `Get`, quietly.
    GetQ = 0x09,
    /// Nothing: tells that everything before it is answered.
    Noop = 0x0a,
    /// The server's version.
    Version = 0x0b,
    /// `Get`, with the key in its answer.
    GetK = 0x0c,
    /// `GetK`, quietly.
    GetKQ = 0x0d,
    /// Writes behind a value.
    Append = 0x0e,
    /// Writes in front of a value.
    Prepend = 0x0f,
    /// Statistics.
    Stat = 0x10,
    /// `Set`, quietly.
    SetQ = 0x11,
    /// `Add`, quietly.
    AddQ = 0x12,
    /// `Replace`, quietly.
    ReplaceQ = 0x13,
    /// `Delete`, quietly.
    DeleteQ = 0x14,
    /// `Increment`, quietly.
    IncrementQ = 0x15,
    /// `Decrement`, quietly.
    DecrementQ = 0x16,
    /// Closes the connection without a word.
    QuitQ = 0x17,
    /// `Flush`, quietly.
    FlushQ = 0x18,
    /// `Append`, quietly.
    AppendQ = 0x19,
    /// `Prepend`, quietly.
    PrependQ = 0x1a,
    /// Sets how much the server logs.
    Verbosity = 0x1b,
    /// Gives an item another expiry.
    Touch = 0x1c,
    /// `Get`, and another expiry.
    Gat = 0x1d,
    /// `Gat`, quietly.
    GatQ = 0x1e,
    /// Which ways to authenticate there are.
    SaslList = 0x20,
    /// Begins to authenticate.
    SaslAuth = 0x21,
    /// Goes on with that.
    SaslStep = 0x22,
    /// `Gat`, with the key in its answer.
    GatK = 0x23,
    /// `GatK`, quietly.
    GatKQ = 0x24,
}

impl Opcode {
    /// Whether the answer that is expected is left out.
    #[inline]
    pub const fn is_quiet(self) -> bool {
        matches!(
            self,
            Self::GetQ
                | Self::GetKQ
                | Self::SetQ
                | Self::AddQ
                | Self::ReplaceQ
                | Self::DeleteQ
                | Self::IncrementQ
                | Self::DecrementQ
                | Self::QuitQ
                | Self::FlushQ
                | Self::AppendQ
                | Self::PrependQ
                | Self::GatQ
                | Self::GatKQ
        )
    }

    /// Whether a client may send it that has not authenticated, where that is asked for.
    pub const fn is_for_everybody(self) -> bool {
        matches!(self, Self::SaslList | Self::SaslAuth | Self::SaslStep | Self::Version)
    }
}

/// A header, read: of a request or of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) magic: u8,
    pub(crate) head: Head,
    pub(crate) key_bytes: usize,
    pub(crate) extras_bytes: usize,
    pub(crate) body_bytes: usize,
    /// Of an answer; nothing in a request.
    pub(crate) status: u16,
    pub(crate) cas: u64,
}

impl Header {
    /// The header at the front of `bytes`, if all of it is there.
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let &[
            magic,
            opcode,
            key_1,
            key_0,
            extras,
            _type,
            status_1,
            status_0,
            body_3,
            body_2,
            body_1,
            body_0,
            opaque_3,
            opaque_2,
            opaque_1,
            opaque_0,
            ref cas @ ..,
        ] = bytes.first_chunk::<HEADER_BYTES>()?;
        Some(Self {
            magic,
            head: Head {
                opcode,
                opaque: u32::from_be_bytes([opaque_3, opaque_2, opaque_1, opaque_0]),
            },
            key_bytes: usize::from(u16::from_be_bytes([key_1, key_0])),
            extras_bytes: usize::from(extras),
            body_bytes: u32::from_be_bytes([body_3, body_2, body_1, body_0]) as usize,
            status: u16::from_be_bytes([status_1, status_0]),
            cas: u64::from_be_bytes(*cas),
        })
    }

    /// Header, extras and key: all but the value.
    #[inline]
    pub(crate) const fn prefix_bytes(&self) -> usize {
        HEADER_BYTES + self.extras_bytes + self.key_bytes
    }

    /// The whole frame.
    #[inline]
    pub(crate) const fn total_bytes(&self) -> usize {
        HEADER_BYTES + self.body_bytes
    }

    /// Whether extras and key fit into the body.
    #[inline]
    pub(crate) const fn is_sound(&self) -> bool {
        self.prefix_bytes() <= self.total_bytes()
    }

    /// Appends it.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "lengths fit their fields, as asserted")]
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        debug_assert!(
            self.key_bytes <= usize::from(u16::MAX)
                && self.extras_bytes <= usize::from(u8::MAX)
                && u32::try_from(self.body_bytes).is_ok(),
            "lengths fit their fields"
        );
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.magic;
        bytes[1] = self.head.opcode;
        bytes[2..4].copy_from_slice(&(self.key_bytes as u16).to_be_bytes());
        bytes[4] = self.extras_bytes as u8;
        bytes[6..8].copy_from_slice(&self.status.to_be_bytes());
        bytes[8..12].copy_from_slice(&(self.body_bytes as u32).to_be_bytes());
        bytes[12..16].copy_from_slice(&self.head.opaque.to_be_bytes());
        bytes[16..].copy_from_slice(&self.cas.to_be_bytes());
        out.extend_from_slice(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opcode_is_found_by_its_byte() {
        for &opcode in Opcode::ALL {
            assert_eq!(Opcode::from_byte(opcode as u8), Some(opcode));
        }
        let known = (0..=255).filter(|&byte| Opcode::from_byte(byte).is_some()).count();
        assert_eq!(known, Opcode::ALL.len());
    }

    #[test]
    fn a_header_written_is_the_header_read() {
        let header = Header {
            magic: RESPONSE_MAGIC,
            head: Head { opcode: 0x23, opaque: 0xdead_beef },
            key_bytes: 0x1234,
            extras_bytes: 0x56,
            body_bytes: 0x789a_bcde,
            status: 0x81,
            cas: 0x0102_0304_0506_0708,
        };
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(Header::read(&bytes), Some(header));
        assert_eq!(Header::read(&bytes[..HEADER_BYTES - 1]), None);
    }
}
