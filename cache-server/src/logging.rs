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
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;

/// Starts logging, for as often as `-v` was given. The first call counts.
pub fn start(verbosity: u8) {
    let level = match verbosity {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // The Raft library logs every try to reach a node that is gone; what an operator needs to know of it is
    // logged here.
    let raft = if verbosity > 1 { level } else { LevelFilter::OFF };
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    let targets = Targets::new().with_default(level).with_target("openraft", raft);
    let subscriber = tracing_subscriber::registry().with(lines).with(targets);
    // Refused when a subscriber is there already: a test's, which is just as good.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
