//! What the operator reads: one line per event on standard error.
//!
//! | flag | adds |
//! |---|---|
//! | none | start and stop; what is wrong |
//! | `-v` | connections that come and go |
//! | `-vv` | everything |
//!
//! ERROR means that someone must act; keys and values are never logged.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;

/// Starts logging, for as often as `-v` was given. The first call counts.
pub fn start(verbosity: u8) {
    let level = match verbosity {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .finish();
    // Refused when a subscriber is there already: a test's, which is just as good.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
