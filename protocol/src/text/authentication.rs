//! Authentication over text: the first thing that a client may say where it is asked for.
//!
//! ```text
//! set <any> <any> <any> <bytes>\r\n
//! <user> <password>\r\n
//! ```
//!
//! It is answered with `STORED`, or with an error after which the client may try again. memcached's
//! `proto_text.c`, `try_read_command_asciiauth`, says what is answered when; a line that is wrong does
//! not skip data behind it.

use crate::credentials::Credentials;
use crate::token::{Tokens, find, parse_u32};

/// The longest line before a client has authenticated, in bytes, as long as its end is not seen.
const LINE_BYTES_MAX: usize = 2048;

/// The shortest line that could be one, without its newline.
const LINE_BYTES_MIN: usize = 6;

/// The longest user and password together, in bytes.
const DATA_BYTES_MAX: usize = 16384;

const LINE_END: &[u8; 2] = b"\r\n";

/// What a client that has not authenticated has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthenticationStep<'a> {
    /// Half of it.
    More {
        /// How long the input must become before another call can get further.
        wanted: usize,
    },
    /// Whom it says it is: answered with [`ACCEPTED`] or with [`REJECTED`].
    Credentials {
        /// Bytes of the input they took up.
        consumed: usize,
        /// User and password.
        credentials: Credentials<'a>,
    },
    /// Anything else.
    Refused {
        /// Bytes of the input it took up.
        consumed: usize,
        /// What to answer.
        line: &'static str,
    },
    /// Nothing that could become one: the connection closes without a word.
    Closes,
}

/// The answer to credentials that are right.
pub const ACCEPTED: &str = "STORED\r\n";

/// The answer to credentials that are wrong.
pub const REJECTED: &str = "CLIENT_ERROR authentication failure\r\n";

const UNAUTHENTICATED: &str = "CLIENT_ERROR unauthenticated\r\n";
const TOO_LONG: &str = "CLIENT_ERROR auth token too long\r\n";
const BAD_TERMINATION: &str = "CLIENT_ERROR bad command line termination\r\n";
const BAD_FORMAT: &str = "CLIENT_ERROR bad authentication token format\r\n";

/// Reads what a client that has not authenticated has sent.
///
/// It keeps no state: a line is searched again with every piece that arrives, and is short.
pub fn decode(input: &[u8]) -> AuthenticationStep<'_> {
    let Some(newline) = find(b'\n', input) else {
        return match input.len() {
            too_many if too_many > LINE_BYTES_MAX => AuthenticationStep::Closes,
            len => AuthenticationStep::More { wanted: len + 1 },
        };
    };
    if newline < LINE_BYTES_MIN {
        return AuthenticationStep::Closes;
    }
    let data_start = newline + 1;
    let refused = |consumed, line| AuthenticationStep::Refused { consumed, line };
    let data_bytes = match announced_bytes(&input[..newline]) {
        Some(bytes) if bytes > DATA_BYTES_MAX => return refused(data_start, TOO_LONG),
        Some(bytes) => bytes,
        None => return refused(data_start, UNAUTHENTICATED),
    };
    let consumed = data_start + data_bytes + LINE_END.len();
    let Some(block) = input.get(data_start..consumed) else {
        return AuthenticationStep::More { wanted: consumed };
    };
    let Some(data) = block.strip_suffix(LINE_END) else {
        return refused(consumed, BAD_TERMINATION);
    };
    match find(b' ', data) {
        Some(space) => {
            let credentials = Credentials { user: &data[..space], password: &data[space + 1..] };
            AuthenticationStep::Credentials { consumed, credentials }
        }
        None => refused(consumed, BAD_FORMAT),
    }
}

/// How much data a line says that follows it; `None` when it is no `set`.
fn announced_bytes(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    // What the word goes on with, and what stands behind the length, is not looked at.
    let mut words = Tokens::new(line.starts_with(b"set").then_some(line)?);
    usize::try_from(parse_u32(words.nth(4)?)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(input: &[u8]) -> (usize, &'static str) {
        match decode(input) {
            AuthenticationStep::Refused { consumed, line } => (consumed, line),
            step => panic!("{step:?} where an error is due"),
        }
    }

    #[test]
    fn a_set_of_user_and_password_is_what_is_asked_for() {
        let input = b"set any 1 2 13\r\nuser a secret\r\nget k\r\n";
        let AuthenticationStep::Credentials { consumed, credentials } = decode(input) else {
            panic!("credentials")
        };
        assert_eq!(consumed, input.len() - b"get k\r\n".len());
        assert_eq!((credentials.user, credentials.password), (&b"user"[..], &b"a secret"[..]));
    }

    #[test]
    fn whatever_else_is_refused_as_memcached_refuses_it() {
        for (input, consumed, line) in [
            (&b"get foo\r\n"[..], 9, UNAUTHENTICATED),
            (b"mg foo v\r\n", 10, UNAUTHENTICATED),
            (b"set foo 0 0\r\nx\r\n", 13, UNAUTHENTICATED),
            (b"set foo 0 0 x\r\nx\r\n", 15, UNAUTHENTICATED),
            (b"add foo 0 0 2\r\n", 15, UNAUTHENTICATED),
            (b"set foo 0 0 2147483646\r\n", 24, TOO_LONG),
            (b"set foo 0 0 16385\r\n", 19, TOO_LONG),
            (b"set foo 0 0 2\r\nhi\r\n", 19, BAD_FORMAT),
            (b"set foo 0 0 3\r\na bcd", 20, BAD_TERMINATION),
        ] {
            assert_eq!(refused(input), (consumed, line), "{}", input.escape_ascii());
        }
    }

    #[test]
    fn a_line_too_short_or_without_an_end_closes() {
        assert_eq!(decode(b"get\r\n"), AuthenticationStep::Closes);
        assert_eq!(decode(&[b'x'; 2049]), AuthenticationStep::Closes);
        assert_eq!(decode(&[b'x'; 2048]), AuthenticationStep::More { wanted: 2049 });
    }

    #[test]
    fn all_but_the_last_byte_is_not_enough() {
        let input = b"set any 1 2 6\r\nuser p\r\n";
        for end in 0..input.len() {
            let AuthenticationStep::More { wanted } = decode(&input[..end]) else {
                panic!("{end} bytes are no credentials")
            };
            assert!(end < wanted && wanted <= input.len());
        }
    }

    proptest! {
        #[test]
        fn noise_never_stops_it(noise in proptest::collection::vec(any::<u8>(), 0..3000)) {
            match decode(&noise) {
                AuthenticationStep::More { wanted } => prop_assert!(wanted > noise.len()),
                AuthenticationStep::Credentials { consumed, .. }
                | AuthenticationStep::Refused { consumed, .. } => {
                    prop_assert!(0 < consumed && consumed <= noise.len());
                }
                AuthenticationStep::Closes => {}
            }
        }
    }
}
