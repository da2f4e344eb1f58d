//! `Credentials`: who a client says it is, and its proof.

use std::fmt;

/// A user and a password, borrowed from the input. Not to be logged, and never printed whole.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// Who.
    pub user: &'a [u8],
    /// The proof.
    pub password: &'a [u8],
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user.escape_ascii().to_string())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_printed() {
        let printed = format!("{:?}", Credentials { user: b"user", password: b"secret" });
        assert!(printed.contains("user") && !printed.contains("secret"), "{printed}");
    }
}
