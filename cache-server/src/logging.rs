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
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, fmt, reload};

/// What is logged of this process, once logging has started.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Starts logging, for as often as `-v` was given. The first call counts.
pub fn start(verbosity: u8) {
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    let (filter, handle) = reload::Layer::new(targets(verbosity));
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    // Refused when a subscriber is there already: a test's, which is just as good.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        // The first call alone comes here.
        let _ = FILTER.set(handle);
    }
}

/// Logs as much as with so many `-v` from now on, if logging was started here.
pub fn set_verbosity(verbosity: u8) {
    if let Some(filter) = FILTER.get() {
        // Fails only when the subscriber is gone, which is never before the process is.
        let _ = filter.reload(targets(verbosity));
    }
}

fn targets(verbosity: u8) -> Targets {
    let level = match verbosity {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // The Raft library logs every try to reach a node that is gone; what an operator needs to know of it is
    // logged here.
    let raft = if verbosity > 1 { level } else { LevelFilter::OFF };
    Targets::new().with_default(level).with_target("openraft", raft)
}
