//! The flags of meta commands and their arguments.
//!
//! A flag is one letter with its argument right behind it. As in memcached every meta command takes
//! every known flag and heeds those that mean something to it:
//!
//! | flag | argument | means |
//! |---|---|---|
//! | `b` | | the key is written in base64 |
//! | `c f h k l s t`, `O` | of `O`: opaque | sent back, in the order asked for ([`Return`]) |
//! | `v` | | the value is sent back |
//! | `q` | | the expected response is left out |
//! | `u` | | the read leaves no trace |
//! | `T N R` | seconds | expiry, expiry of an item created on a miss, recache when less is left |
//! | `C E` | cas | compare with it; the new one |
//! | `F` | number | client flags |
//! | `I` | | stale rather than gone |
//! | `x` | | the value goes, the item stays |
//! | `M` | letter | mode |
//! | `J D` | number | initial value, delta |
//! | `L P` | anything | reserved for proxies, ignored |

use crate::error::ProtocolError;
use crate::exptime::Exptime;
use crate::token::{Tokens, parse_i64, parse_u32, parse_u64, push_token};

/// The longest opaque, its `O` included, in bytes.
pub const OPAQUE_BYTES_MAX: usize = 32;

/// The most tokens on the line of a meta command, its name included.
pub(crate) const TOKENS_MAX: usize = 20;

/// Everything the flags of one command say, but for what they ask to be sent back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    pub(crate) base64: bool,
    pub(crate) value: bool,
    pub(crate) quiet: bool,
    pub(crate) no_bump: bool,
    pub(crate) invalidate: bool,
    pub(crate) remove_value: bool,
    pub(crate) opaque_too_long: bool,
    pub(crate) mode: Option<u8>,
    pub(crate) client_flags: u32,
    pub(crate) touch: Option<Exptime>,
    pub(crate) vivify: Option<Exptime>,
    pub(crate) recache: Option<Exptime>,
    pub(crate) compare_cas: Option<u64>,
    pub(crate) new_cas: Option<u64>,
    pub(crate) delta: Option<u64>,
    pub(crate) initial: Option<u64>,
}

impl Flags {
    /// Reads all flags of a line. `is_key` says whether the key is base64, should a flag claim so.
    ///
    /// memcached reports at once what is no flag, a duplicate and an unknown one, and of several bad
    /// arguments the last one, except that a bad `F` names no reason of its own. So does this.
    pub(crate) fn parse(
        tokens: Tokens<'_>,
        is_base64: impl Fn() -> bool,
    ) -> Result<Self, ProtocolError> {
        let mut flags = Self::default();
        let mut error = None;
        let mut seen = 0u128;
        for token in tokens {
            let [flag, argument @ ..] = token else { continue };
            if !(flag.is_ascii_digit() || (b'A'..=b'z').contains(flag)) {
                return Err(ProtocolError::BadCommandLine);
            }
            if seen >> flag & 1 == 1 {
                return Err(ProtocolError::DuplicateFlag);
            }
            seen |= 1 << flag;
            match flags.take(*flag, argument, &is_base64) {
                Ok(()) => {}
                Err(ProtocolError::InvalidFlag) => return Err(ProtocolError::InvalidFlag),
                Err(ProtocolError::BadCommandLine) => {
                    error.get_or_insert(ProtocolError::BadCommandLine);
                }
                Err(worse) => error = Some(worse),
            }
        }
        error.map_or(Ok(flags), Err)
    }

    fn take(
        &mut self,
        flag: u8,
        argument: &[u8],
        is_base64: impl Fn() -> bool,
    ) -> Result<(), ProtocolError> {
        match flag {
            b'c' | b'f' | b'h' | b'k' | b'l' | b's' | b't' | b'L' | b'P' => {}
            b'O' => self.opaque_too_long = argument.len() >= OPAQUE_BYTES_MAX,
            b'v' => self.value = true,
            b'q' => self.quiet = true,
            b'u' => self.no_bump = true,
            b'I' => self.invalidate = true,
            b'x' => self.remove_value = true,
            b'b' if is_base64() => self.base64 = true,
            b'b' => return Err(ProtocolError::KeyNotBase64),
            b'T' => self.touch = Some(exptime(argument)?),
            b'N' => self.vivify = Some(exptime(argument)?),
            b'R' => self.recache = Some(exptime(argument)?),
            b'C' => self.compare_cas = Some(parse_u64(argument).ok_or(ProtocolError::BadToken)?),
            b'E' => self.new_cas = Some(parse_u64(argument).ok_or(ProtocolError::BadToken)?),
            b'F' => self.client_flags = parse_u32(argument).ok_or(ProtocolError::BadCommandLine)?,
            b'J' => {
                self.initial = Some(parse_u64(argument).ok_or(ProtocolError::InvalidInitial)?);
            }
            b'D' => self.delta = Some(parse_u64(argument).ok_or(ProtocolError::InvalidMetaDelta)?),
            // As in memcached a word counts as its first letter, and nothing is no mode there is.
            b'M' => self.mode = Some(argument.first().copied().unwrap_or_default()),
            _ => return Err(ProtocolError::InvalidFlag),
        }
        Ok(())
    }
}

fn exptime(argument: &[u8]) -> Result<Exptime, ProtocolError> {
    parse_i64(argument).map(Exptime::from_wire).ok_or(ProtocolError::BadToken)
}

/// What a meta command wants sent back: iterated in the order the flags stand on the line.
#[derive(Clone, Debug)]
pub struct Returns<'a> {
    flags: Tokens<'a>,
    heeded: u64,
}

/// One thing to send back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Return<'a> {
    /// `c`: the cas.
    Cas,
    /// `f`: the client's flags.
    ClientFlags,
    /// `h`: whether the item was read before.
    HitBefore,
    /// `k`: the key, as it was written.
    Key,
    /// `l`: seconds since the item was last read or written.
    LastAccess,
    /// `O`: these bytes, which are without the `O`.
    Opaque(&'a [u8]),
    /// `s`: the length of the value.
    Size,
    /// `t`: seconds until the item expires, -1 for never.
    Ttl,
}

impl<'a> Returns<'a> {
    /// What `flags` ask for, written as on a line (`c k Oabc`): for a client that builds a request.
    /// Flags that ask for nothing are passed over.
    pub const fn new(flags: &'a [u8]) -> Self {
        Self { flags: Tokens::new(flags), heeded: u64::MAX }
    }

    /// What the flags among `tokens` ask for, as far as they are among `heeded`.
    pub(crate) const fn of(tokens: Tokens<'a>, heeded: u64) -> Self {
        Self { flags: tokens, heeded }
    }

    /// Whether the line has flag `first`, and flag `then` behind it. Flags are read one after the other: `t`
    /// before `T` tells the lifetime that is left, behind it the new one.
    pub fn stands_before(&self, first: u8, then: u8) -> bool {
        let mut letters = self.flags.clone().filter_map(<[u8]>::first);
        letters.any(|&letter| letter == first) && letters.any(|&letter| letter == then)
    }

    /// Appends the flags to a request.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for wanted in self.clone() {
            push_token(out, &[wanted.letter()]);
            if let Return::Opaque(opaque) = wanted {
                out.extend_from_slice(opaque);
            }
        }
    }
}

/// A set of flags as bits, for [`Returns::of`].
pub(crate) const fn letters(flags: &[u8]) -> u64 {
    let mut set = 0;
    let mut index = 0;
    while index < flags.len() {
        set |= 1 << (flags[index] & 63);
        index += 1;
    }
    set
}

impl<'a> Return<'a> {
    /// The flag.
    pub const fn letter(self) -> u8 {
        match self {
            Self::Cas => b'c',
            Self::ClientFlags => b'f',
            Self::HitBefore => b'h',
            Self::Key => b'k',
            Self::LastAccess => b'l',
            Self::Opaque(_) => b'O',
            Self::Size => b's',
            Self::Ttl => b't',
        }
    }

    fn from_token(token: &'a [u8]) -> Option<Self> {
        let (flag, argument) = token.split_first()?;
        Some(match flag {
            b'c' => Self::Cas,
            b'f' => Self::ClientFlags,
            b'h' => Self::HitBefore,
            b'k' => Self::Key,
            b'l' => Self::LastAccess,
            b'O' => Self::Opaque(argument),
            b's' => Self::Size,
            b't' => Self::Ttl,
            _ => return None,
        })
    }
}

impl<'a> Iterator for Returns<'a> {
    type Item = Return<'a>;

    #[inline]
    fn next(&mut self) -> Option<Return<'a>> {
        let heeded = self.heeded;
        self.flags
            .by_ref()
            .filter_map(Return::from_token)
            .find(|wanted| heeded >> (wanted.letter() & 63) & 1 == 1)
    }
}

/// Two requests that want the same things in the same order are equal.
impl PartialEq for Returns<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.clone().eq(other.clone())
    }
}

impl Eq for Returns<'_> {}
