//! Predicts a cache's hit ratio from a request log, with the server's own eviction code.
//!
//! A log is a [`trace::Trace`], an iterator of accesses. A [`replay::Replay`] is one cache, of one
//! policy and one size, that is fed them. A [`run::Plan`] says which log, which policies and which
//! sizes; [`run::run`] reads the log once for all of them and returns a [`run::Report`].
//!
//! ```
//! use eviction::Kind;
//! use sim::replay::{Replay, Unit};
//! use sim::trace::{Format, Trace};
//!
//! let log = "time,id,size\n0,7,100\n1,8,100\n2,7,100\n";
//! let mut cache = Replay::new(Kind::Lru, 200, Unit::Bytes);
//! for access in Trace::read(log.as_bytes(), &Format::Csv(Default::default()))? {
//!     cache.request(&access?.into());
//! }
//! assert_eq!(cache.tally().hits, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The figures are comparable with those of other simulators; the rules stand in [`replay`].

pub mod belady;
pub mod blueprint;
pub mod capture;
pub mod cli;
pub mod console;
pub mod curve;
pub mod describe;
pub mod fill;
pub mod html;
pub mod partial;
pub mod plot;
pub mod ranking;
pub mod replay;
pub mod report;
pub mod run;
pub mod sampling;
pub mod size;
pub mod sizing;
pub mod tallies;
pub mod trace;
pub mod ttl;
pub mod what_if;
