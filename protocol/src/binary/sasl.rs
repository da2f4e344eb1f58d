//! The one way to authenticate over SASL: the mechanism `PLAIN`.
//!
//! ```text
//! message:  [on behalf of] NUL user NUL password
//! ```
//!
//! RFC 4616. A user acts on their own behalf alone: the first part is empty, or the user once more.

use crate::credentials::Credentials;

/// The mechanisms, as they are listed.
pub const MECHANISMS: &str = "PLAIN";

/// The longest name of a mechanism, in bytes: memcached's `MAX_SASL_MECH_LEN`.
pub const MECHANISM_BYTES_MAX: usize = 32;

/// The longest message, in bytes. PLAIN needs a few hundred.
pub const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// Reads a message of `PLAIN`; `None` when it is none, or asks to act for somebody else.
pub fn parse_plain(message: &[u8]) -> Option<Credentials<'_>> {
    let mut parts = message.split(|&byte| byte == 0);
    let (on_behalf_of, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let is_sound = parts.next().is_none() && !user.is_empty();
    let is_for_oneself = on_behalf_of.is_empty() || on_behalf_of == user;
    (is_sound && is_for_oneself).then_some(Credentials { user, password })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_is_user_and_password_between_nuls() {
        let read =
            |message: &'static [u8]| parse_plain(message).map(|found| (found.user, found.password));
        assert_eq!(read(b"\0user\0pass word"), Some((&b"user"[..], &b"pass word"[..])));
        assert_eq!(read(b"user\0user\0p"), Some((&b"user"[..], &b"p"[..])));
        assert_eq!(read(b"\0user@realm\0"), Some((&b"user@realm"[..], &b""[..])));
        for wrong in [&b""[..], b"user", b"\0user", b"\0\0p", b"root\0user\0p", b"\0user\0p\0x"] {
            assert_eq!(read(wrong), None, "{}", wrong.escape_ascii());
        }
    }
}
