//! Replay: a recorded log played against a server, op by op, as the simulator plays it to itself.
//!
//! ```text
//! for every request of the log:    get k ── hit ──> done
//!                                    └── miss ──> set k, with the value that the log says was there
//!                                  set k, delete k, touch k, ...: as the log has them
//! once the log's clock says so:    delete k, where k's TTL is up
//! ```
//!
//! What is on the wire, which a simulator must assume alike to predict the hit ratio (`sim::replay`
//! says what it makes of each op, `sim::fill` what a miss is filled with):
//!
//! - The key is [`Access::key`](sim::trace::Access::key). The value is as long as the log says; client
//!   flags are 0. A `cas` is sent as a `replace`: no log tells what the client had read before.
//! - One connection, and at depth 1 the exact order of the log. The set of a miss leaves in one write
//!   with the next request: the server meets them in order, and a round trip is saved.
//! - A hit leaves the object as it is, whatever size the log says now.
//! - What the server refuses (too large for it) is counted, and the replay goes on.
//! - What cannot be sent as the log has it, because the log does not say what to send, is sent as an
//!   `append` of nothing, which is a use of an object like any other: an append to a value of unknown
//!   length, an `incr` of what is too long for a number.
//!
//! **Time.** A log of hours is played in seconds, and TTLs must not take hours all the same. So by
//! default the log's clock is the replay's ([`Expiry::Log`]): what expires is written with an expiry
//! further off than any replay lasts, and deleted at the log's second when its time is up. To the
//! server's policy and budget that is what its own sweep does, with any server, and it is exact. With
//! [`Expiry::Server`] TTLs are sent as they are, and somebody sees to it that the server's clock goes
//! along with the log's: the test that holds the server in its process, or patience.

pub mod log;

mod body;
mod expiries;
mod player;

use std::net::SocketAddr;

use sim::replay::Request;
use sim::trace::Access;

use self::player::Player;
use crate::interrupt::{Interrupt, Interrupted};
use crate::session::SessionError;

/// Most requests that may be under way: their gets fit a socket's buffer whatever it is.
pub const DEPTH_MAX: usize = 1000;
const PROGRESS_INTERVAL_REQUESTS: u64 = 4096;
/// How many mistaken answers are kept word for word.
const SAMPLES_MAX: usize = 5;

/// One request of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// As the log has it.
    pub access: Access,
    /// As a cache sees it, completed by what the log wrote before ([`sim::fill::Fills`]).
    pub request: Request,
}

impl From<Access> for Wanted {
    /// One of a log in which nothing is known of the key's value but what the request says.
    fn from(access: Access) -> Self {
        Self { access, request: access.into() }
    }
}

/// Who lets items go whose time is up.
pub enum Expiry<'a> {
    /// The replay, at the log's second.
    Log,
    /// The server. Each time that the log's clock moves on, this hears by how many seconds before the
    /// next request is sent. A TTL of over 30 days is sent as 30 days.
    Server(&'a mut dyn FnMut(u32) -> Result<(), Interrupted>),
}

/// What came of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Requests of any kind played.
    pub operations: u64,
    /// Of these, the reads: gets and gats. What hit ratios are of.
    pub requests: u64,
    /// Reads that found their object.
    pub hits: u64,
    /// Writes that the server stored, those after misses included.
    pub stored: u64,
    /// Writes that the server refused.
    pub refused: u64,
    /// Items deleted because their time was up.
    pub expired: u64,
    /// Hits whose bytes are not their object's.
    pub wrong: u64,
    /// The first refusals and wrong values, for people to read.
    pub samples: Vec<String>,
}

impl Replayed {
    /// The share of the reads that were hits, in percent; 0 of none.
    pub fn hit_percent(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { 100.0 * self.hits as f64 / self.requests as f64 }
    }

    fn keep_sample(&mut self, sample: impl FnOnce() -> String) {
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(sample());
        }
    }
}

/// Why a replay did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError<E> {
    /// The log cannot be read on.
    #[error("the log cannot be read on after {requests} requests")]
    Trace {
        /// Requests read before.
        requests: u64,
        /// What the reader says.
        #[source]
        source: E,
    },
    /// The server cannot be talked to.
    #[error("the server cannot be talked to")]
    Session(#[from] SessionError),
    /// The user wants the program to end.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// Why a turn was not played to its end.
#[derive(Debug, thiserror::Error)]
enum TurnError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl<E> From<TurnError> for ReplayError<E> {
    fn from(error: TurnError) -> Self {
        match error {
            TurnError::Session(error) => Self::Session(error),
            TurnError::Interrupted(error) => Self::Interrupted(error),
        }
    }
}

/// Plays `log` against `server`; `progress` hears now and then how many requests have been played.
///
/// With a `depth` above 1 so many requests are under way together and their misses are set after all of
/// them: faster over a network, and only approximately what the log's order would have given.
///
/// # Errors
/// When the server or the log breaks off; refused and wrong objects are counted, not errors.
pub fn replay<E>(
    log: impl IntoIterator<Item = Result<Wanted, E>>,
    server: SocketAddr,
    depth: usize,
    expiry: Expiry<'_>,
    interrupt: &Interrupt,
    mut progress: impl FnMut(u64),
) -> Result<Replayed, ReplayError<E>> {
    assert!((1..=DEPTH_MAX).contains(&depth), "between 1 and {DEPTH_MAX} requests are under way");
    let mut player = Player::connect(server, expiry)?;
    let mut log = log.into_iter();
    let mut batch = Vec::with_capacity(depth);
    let mut next_report = PROGRESS_INTERVAL_REQUESTS;
    loop {
        batch.clear();
        for wanted in log.by_ref().take(depth) {
            let requests = player.replayed().operations;
            batch.push(wanted.map_err(|source| ReplayError::Trace { requests, source })?);
        }
        player.play(&batch)?;
        if batch.is_empty() {
            // The empty turn has carried the sets of the last misses.
            return Ok(player.into_replayed());
        }
        let operations = player.replayed().operations;
        if operations >= next_report {
            next_report = operations + PROGRESS_INTERVAL_REQUESTS;
            progress(operations);
            interrupt.check()?;
        }
    }
}
