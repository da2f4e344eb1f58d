//! The flags of meta commands and their arguments.

use crate::token::Tokens;

/// What a meta command wants sent back: iterated in the order the flags stand on the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returns<'a> {
    flags: Tokens<'a>,
    accepted: u32,
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

impl<'a> Iterator for Returns<'a> {
    type Item = Return<'a>;

    fn next(&mut self) -> Option<Return<'a>> {
        loop {
            let (&flag, argument) = self.flags.next()?.split_first()?;
            if self.accepted >> (flag & 31) & 1 == 0 {
                continue;
            }
            return Some(match flag {
                b'c' => Return::Cas,
                b'f' => Return::ClientFlags,
                b'h' => Return::HitBefore,
                b'k' => Return::Key,
                b'l' => Return::LastAccess,
                b'O' => Return::Opaque(argument),
                b's' => Return::Size,
                b't' => Return::Ttl,
                _ => continue,
            });
        }
    }
}
