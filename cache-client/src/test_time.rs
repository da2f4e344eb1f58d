//! The time at which tests begin: one instant for all of them, since none can be made up.

use std::sync::LazyLock;
use std::time::Instant;

/// When tests begin.
#[expect(clippy::disallowed_methods, reason = "there is no other way to an `Instant`")]
pub(crate) fn start() -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    *START
}
