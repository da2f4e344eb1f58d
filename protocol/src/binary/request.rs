//! Decodes and encodes the binary requests.
//!
//! | command | extras | key | value |
//! |---|---|---|---|
//! | `get getk` | | yes | |
//! | `gat gatk touch` | expiry, 4 bytes | yes | |
//! | `set add replace` | client flags, 4; expiry, 4 | yes | yes |
//! | `append prepend` | | yes | yes |
//! | `increment decrement` | delta, 8; initial, 8; expiry, 4 | yes | |
//! | `delete` | | yes | |
//! | `flush` | none, or delay, 4 | | |
//! | `verbosity` | level, 4 | | |
//! | `stat` | | none, or the group | |
//! | `sasl auth`, `sasl step` | | the mechanism | its message |
//! | `noop version quit sasl list` | | | |
//!
//! A cas other than 0 in the header must be the item's; with one, `add` and `replace` are `set`. An
//! expiry of all ones tells `increment` and `decrement` not to create the number. Other expiries are
//! those of the text protocol, without negative ones.

use std::fmt;

use crate::binary::{HEADER_BYTES, Head, Header, Opcode, REQUEST_MAGIC};
use crate::error::ProtocolError;
use crate::exptime::{EXPTIME_RELATIVE_MAX_S, Exptime};
use crate::key::Key;
use crate::request::{Direction, Store, StoreMode};

/// The expiry with which a number that is not there is not created.
const DO_NOT_CREATE: u32 = u32::MAX;

/// A binary request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinaryRequest<'a> {
    /// What the answer repeats, and whether it is left out when it is the expected one.
    pub head: Head,
    /// What to do.
    pub command: Command<'a>,
}

/// What a binary request asks for. Quiet or not is for the [`Head`] to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `get`, `getk`, `gat`, `gatk`.
    Get(Get<'a>),
    /// `touch`.
    Touch {
        /// The item.
        key: Key<'a>,
        /// Its new expiry.
        exptime: Exptime,
    },
    /// `set`, `add`, `replace`, `append`, `prepend`. It is `noreply` when it is quiet.
    Store(Store<'a>),
    /// `increment`, `decrement`.
    Arithmetic(Arithmetic<'a>),
    /// `delete`.
    Delete {
        /// The item.
        key: Key<'a>,
        /// The cas that it must have.
        compare_cas: Option<u64>,
    },
    /// `flush`.
    Flush {
        /// When; [`Exptime::Never`] is now.
        delay: Exptime,
    },
    /// `stat`.
    Stat {
        /// Which statistics, its words separated by spaces; empty for the general ones.
        group: &'a [u8],
    },
    /// `verbosity`.
    Verbosity {
        /// The level asked for.
        level: u32,
    },
    /// `version`.
    Version,
    /// `noop`.
    Noop,
    /// `quit`.
    Quit,
    /// `sasl list`.
    SaslList,
    /// `sasl auth`, `sasl step`.
    Sasl(SaslMessage<'a>),
}

/// Fetches an item. The answer always carries its cas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Get<'a> {
    /// The item.
    pub key: Key<'a>,
    /// The key comes back, from a miss too.
    pub with_key: bool,
    /// The item gets this expiry.
    pub touch: Option<Exptime>,
}

/// Changes a number, or creates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arithmetic<'a> {
    /// Up or down.
    pub direction: Direction,
    /// The item.
    pub key: Key<'a>,
    /// By how much.
    pub delta: u64,
    /// What it is if it was not there.
    pub initial: u64,
    /// The expiry of a number that is created; `None` if none is.
    pub create: Option<Exptime>,
    /// The cas that the item must have.
    pub compare_cas: Option<u64>,
}

/// A client's part of an authentication.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SaslMessage<'a> {
    /// It is the first one, which chooses the mechanism.
    pub begins: bool,
    /// The mechanism.
    pub mechanism: &'a [u8],
    /// What that calls for. Secret.
    pub message: &'a [u8],
}

/// Whoever logs a request does not log a password.
impl fmt::Debug for SaslMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaslMessage")
            .field("begins", &self.begins)
            .field("mechanism", &self.mechanism.escape_ascii().to_string())
            .field("message_bytes", &self.message.len())
            .finish()
    }
}

impl<'a> Command<'a> {
    /// The item it is about, if it is about one.
    #[inline]
    pub fn key(&self) -> Option<Key<'a>> {
        match self {
            Self::Get(get) => Some(get.key),
            Self::Store(store) => Some(store.key),
            Self::Arithmetic(arithmetic) => Some(arithmetic.key),
            Self::Touch { key, .. } | Self::Delete { key, .. } => Some(*key),
            _ => None,
        }
    }
}

impl<'a> BinaryRequest<'a> {
    /// Reads a request without its value, which stays empty. `prefix` is header, extras and key, and
    /// the lengths in `header` are sound.
    #[inline]
    pub(crate) fn parse(header: &Header, prefix: &'a [u8]) -> Result<Self, ProtocolError> {
        let (extras, key) = prefix[HEADER_BYTES..].split_at(header.extras_bytes);
        let value_bytes = header.total_bytes() - header.prefix_bytes();
        let opcode = Opcode::from_byte(header.head.opcode).ok_or(ProtocolError::UnknownCommand)?;
        let fields = Fields { opcode, extras, key, value_bytes, cas: header.cas };
        match fields.command() {
            Some(command) => Ok(Self { head: header.head, command }),
            None => Err(ProtocolError::BadFrame),
        }
    }

    /// Appends the request, as a client sends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut extras = [0; 20];
        let mut put = |offset: usize, bytes: &[u8]| {
            extras[offset..offset + bytes.len()].copy_from_slice(bytes);
            offset + bytes.len()
        };
        let (extras_bytes, value, cas) = match &self.command {
            Command::Get(Get { touch: Some(exptime), .. }) | Command::Touch { exptime, .. } => {
                (put(0, &to_wire(*exptime).to_be_bytes()), &[][..], None)
            }
            Command::Store(store) => {
                let extras_bytes = match store.mode {
                    StoreMode::Append | StoreMode::Prepend => 0,
                    _ => {
                        put(0, &store.client_flags.to_be_bytes());
                        put(4, &to_wire(store.exptime).to_be_bytes())
                    }
                };
                (extras_bytes, store.data, store.compare_cas)
            }
            Command::Arithmetic(arithmetic) => {
                put(0, &arithmetic.delta.to_be_bytes());
                put(8, &arithmetic.initial.to_be_bytes());
                let exptime = arithmetic.create.map_or(DO_NOT_CREATE, to_wire);
                (put(16, &exptime.to_be_bytes()), &[][..], arithmetic.compare_cas)
            }
            Command::Delete { compare_cas, .. } => (0, &[][..], *compare_cas),
            Command::Flush { delay: Exptime::Never } => (0, &[][..], None),
            Command::Flush { delay } => (put(0, &to_wire(*delay).to_be_bytes()), &[][..], None),
            Command::Verbosity { level } => (put(0, &level.to_be_bytes()), &[][..], None),
            Command::Sasl(sasl) => (0, sasl.message, None),
            Command::Get(_)
            | Command::Stat { .. }
            | Command::Version
            | Command::Noop
            | Command::Quit
            | Command::SaslList => (0, &[][..], None),
        };
        let key = match &self.command {
            Command::Stat { group } => group,
            Command::Sasl(sasl) => sasl.mechanism,
            command => command.key().map_or(&[][..], Key::as_bytes),
        };
        let header = Header {
            magic: REQUEST_MAGIC,
            head: self.head,
            key_bytes: key.len(),
            extras_bytes,
            body_bytes: extras_bytes + key.len() + value.len(),
            status: 0,
            cas: cas.unwrap_or(0),
        };
        header.write(out);
        for part in [&extras[..extras_bytes], key, value] {
            out.extend_from_slice(part);
        }
    }
}

/// The parts of a frame whose command is known.
struct Fields<'a> {
    opcode: Opcode,
    extras: &'a [u8],
    key: &'a [u8],
    value_bytes: usize,
    cas: u64,
}

impl<'a> Fields<'a> {
    /// What they mean; `None` when a part is there that must not be, or is missing.
    #[inline]
    fn command(&self) -> Option<Command<'a>> {
        match self.opcode {
            Opcode::Get | Opcode::GetQ => self.get(false),
            Opcode::GetK | Opcode::GetKQ => self.get(true),
            Opcode::Gat | Opcode::GatQ => self.get_and_touch(false),
            Opcode::GatK | Opcode::GatKQ => self.get_and_touch(true),
            Opcode::Set | Opcode::SetQ => self.store(StoreMode::Set),
            Opcode::Add | Opcode::AddQ => self.store(StoreMode::Add),
            Opcode::Replace | Opcode::ReplaceQ => self.store(StoreMode::Replace),
            Opcode::Append | Opcode::AppendQ => self.concat(StoreMode::Append),
            Opcode::Prepend | Opcode::PrependQ => self.concat(StoreMode::Prepend),
            Opcode::Increment | Opcode::IncrementQ => self.arithmetic(Direction::Increment),
            Opcode::Decrement | Opcode::DecrementQ => self.arithmetic(Direction::Decrement),
            Opcode::Delete | Opcode::DeleteQ => {
                let (key, []) = (self.item()?, self.extras) else { return None };
                self.without_value(Command::Delete { key, compare_cas: self.compare_cas() })
            }
            Opcode::Touch => {
                let key = self.item()?;
                let exptime = from_wire(u32::from_be_bytes(*self.extras.as_array()?));
                self.without_value(Command::Touch { key, exptime })
            }
            Opcode::Flush | Opcode::FlushQ => {
                let delay = match self.extras {
                    [] => Exptime::Never,
                    extras => from_wire(u32::from_be_bytes(*extras.as_array()?)),
                };
                self.alone(Command::Flush { delay })
            }
            Opcode::Verbosity => {
                let level = u32::from_be_bytes(*self.extras.as_array()?);
                self.alone(Command::Verbosity { level })
            }
            Opcode::Stat => match self.extras {
                [] => self.without_value(Command::Stat { group: self.key }),
                _ => None,
            },
            Opcode::SaslAuth | Opcode::SaslStep => match (self.extras, self.key) {
                ([], mechanism @ [_, ..]) => {
                    let begins = self.opcode == Opcode::SaslAuth;
                    Some(Command::Sasl(SaslMessage { begins, mechanism, message: &[] }))
                }
                _ => None,
            },
            Opcode::SaslList => self.bare(Command::SaslList),
            Opcode::Version => self.bare(Command::Version),
            Opcode::Noop => self.bare(Command::Noop),
            Opcode::Quit | Opcode::QuitQ => self.bare(Command::Quit),
        }
    }

    fn item(&self) -> Option<Key<'a>> {
        Key::new(self.key)
    }

    fn compare_cas(&self) -> Option<u64> {
        (self.cas != 0).then_some(self.cas)
    }

    /// `command`, if nothing is in the frame but extras and key.
    fn without_value(&self, command: Command<'a>) -> Option<Command<'a>> {
        (self.value_bytes == 0).then_some(command)
    }

    /// `command`, if nothing is in the frame but extras.
    fn alone(&self, command: Command<'a>) -> Option<Command<'a>> {
        if self.key.is_empty() { self.without_value(command) } else { None }
    }

    /// `command`, if nothing is in the frame.
    fn bare(&self, command: Command<'a>) -> Option<Command<'a>> {
        if self.extras.is_empty() { self.alone(command) } else { None }
    }

    #[inline]
    fn get(&self, with_key: bool) -> Option<Command<'a>> {
        let (key, []) = (self.item()?, self.extras) else { return None };
        self.without_value(Command::Get(Get { key, with_key, touch: None }))
    }

    fn get_and_touch(&self, with_key: bool) -> Option<Command<'a>> {
        let key = self.item()?;
        let touch = Some(from_wire(u32::from_be_bytes(*self.extras.as_array()?)));
        self.without_value(Command::Get(Get { key, with_key, touch }))
    }

    #[inline]
    fn store(&self, mode: StoreMode) -> Option<Command<'a>> {
        let key = self.item()?;
        let &[a, b, c, d, e, f, g, h] = self.extras.as_array::<8>()?;
        // With a cas, whichever it is is a compare-and-set.
        let compare_cas = self.compare_cas();
        Some(Command::Store(Store {
            mode: if compare_cas.is_some() { StoreMode::Set } else { mode },
            key,
            client_flags: u32::from_be_bytes([a, b, c, d]),
            exptime: from_wire(u32::from_be_bytes([e, f, g, h])),
            compare_cas,
            data: &[],
            noreply: self.opcode.is_quiet(),
        }))
    }

    fn concat(&self, mode: StoreMode) -> Option<Command<'a>> {
        let (key, []) = (self.item()?, self.extras) else { return None };
        Some(Command::Store(Store {
            mode,
            key,
            client_flags: 0,
            exptime: Exptime::Never,
            compare_cas: self.compare_cas(),
            data: &[],
            noreply: self.opcode.is_quiet(),
        }))
    }

    fn arithmetic(&self, direction: Direction) -> Option<Command<'a>> {
        let key = self.item()?;
        let (delta, rest) = self.extras.split_first_chunk::<8>()?;
        let (initial, rest) = rest.split_first_chunk::<8>()?;
        let create = match u32::from_be_bytes(*rest.as_array()?) {
            DO_NOT_CREATE => None,
            exptime => Some(from_wire(exptime)),
        };
        self.without_value(Command::Arithmetic(Arithmetic {
            direction,
            key,
            delta: u64::from_be_bytes(*delta),
            initial: u64::from_be_bytes(*initial),
            create,
            compare_cas: self.compare_cas(),
        }))
    }
}

fn from_wire(exptime: u32) -> Exptime {
    Exptime::from_wire(i64::from(exptime))
}

/// There is no negative expiry here; a date long past is as good.
fn to_wire(exptime: Exptime) -> u32 {
    match exptime {
        Exptime::Never => 0,
        Exptime::Immediate => EXPTIME_RELATIVE_MAX_S + 1,
        Exptime::After { seconds: number } | Exptime::At { unix_s: number } => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_does_not_show_when_a_request_is_printed() {
        let message = b"\0user\0secret";
        let sasl = SaslMessage { begins: true, mechanism: b"PLAIN", message };
        let printed = format!("{:?}", Command::Sasl(sasl));
        assert!(printed.contains("PLAIN") && !printed.contains("secret"), "{printed}");
    }

    #[test]
    fn an_expiry_of_all_ones_creates_nothing() {
        let command = |create| {
            Command::Arithmetic(Arithmetic {
                direction: Direction::Increment,
                key: Key::new(b"k").expect("a key"),
                delta: 1,
                initial: 0,
                create,
                compare_cas: None,
            })
        };
        let head = Head { opcode: Opcode::Increment as u8, opaque: 0 };
        for create in [None, Some(Exptime::Never), Some(Exptime::After { seconds: 5 })] {
            let mut frame = Vec::new();
            BinaryRequest { head, command: command(create) }.encode(&mut frame);
            let header = Header::read(&frame).expect("a header");
            let parsed = BinaryRequest::parse(&header, &frame).expect("a request");
            assert_eq!(parsed.command, command(create));
        }
    }
}
