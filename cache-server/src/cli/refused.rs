//! `Refused`: why a command line is not obeyed, and the exit code that memcached has for that.

use crate::process::{EX_OSERR, EX_USAGE};

/// The exit code of a program that failed and says no more.
const EXIT_FAILURE: u8 = 1;

/// A value of a flag that cannot be obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Refused {
    pub(super) exit_code: u8,
    pub(super) reason: String,
}

impl Refused {
    /// Refused with memcached's code for bad usage, 64.
    pub(super) fn usage(reason: impl Into<String>) -> Self {
        Self { exit_code: EX_USAGE, reason: reason.into() }
    }

    /// Refused with code 1, where memcached's `main` returns that.
    pub(super) fn failure(reason: impl Into<String>) -> Self {
        Self { exit_code: EXIT_FAILURE, reason: reason.into() }
    }

    /// Refused with 71, which memcached has for every address that it cannot serve.
    pub(super) fn address(reason: impl Into<String>) -> Self {
        Self { exit_code: EX_OSERR, reason: reason.into() }
    }
}

impl From<String> for Refused {
    fn from(reason: String) -> Self {
        Self::usage(reason)
    }
}
