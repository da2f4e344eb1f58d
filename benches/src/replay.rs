//! Replay: a recorded trace played against a server, as an application would that looks aside to
//! its database.
//!
//! ```text
//! for every request of the trace:    get id  ── hit ──> done
//!                                       └── miss ──> set id, of the size recorded
//! ```
//!
//! What is on the wire, which a simulator must assume alike to predict the hit ratio:
//!
//! - The key is the object's id in decimal digits. The value is as long as the size recorded; client
//!   flags and expiry are 0.
//! - One connection, and at depth 1 the exact order of the trace. The set of a miss leaves in one
//!   write with the get of the next request: the server meets them in order, and a round trip is
//!   saved.
//! - A hit leaves the object as it is, whatever size the trace says now.
//! - An object that the server refuses (too large for it) was missed, and the replay goes on.

use std::net::SocketAddr;

use crate::interrupt::{Interrupt, Interrupted};
use crate::session::{Session, SessionError};
use crate::value::Values;
use crate::wire::{Dialect, Reply, printable};

/// Most requests that may be under way: their gets fit a socket's buffer whatever it is.
pub const DEPTH_MAX: usize = 1000;
const PROGRESS_INTERVAL_REQUESTS: u64 = 4096;
/// How many mistaken answers are kept word for word.
const SAMPLES_MAX: usize = 5;

/// One request of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The object.
    pub id: u64,
    /// The size recorded with this request, in bytes.
    pub bytes: u32,
}

/// What came of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Requests played.
    pub requests: u64,
    /// Objects found.
    pub hits: u64,
    /// Sets that the server stored.
    pub stored: u64,
    /// Sets that the server refused.
    pub refused: u64,
    /// Hits whose bytes are not their object's.
    pub wrong: u64,
    /// The first refusals and wrong values, for people to read.
    pub samples: Vec<String>,
}

impl Replayed {
    /// The share of the requests that were hits, in percent; 0 of none.
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
    /// The trace cannot be read on.
    #[error("the trace cannot be read on after {requests} requests")]
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

/// Plays `trace` against `server`; `progress` hears now and then how many requests have been played.
///
/// With a `depth` above 1 so many gets are under way together and their misses are set after all of
/// them: faster over a network, and only approximately what the trace's order would have given.
///
/// # Errors
/// When the server or the trace breaks off; refused and wrong objects are counted, not errors.
pub fn replay<E>(
    trace: impl IntoIterator<Item = Result<Wanted, E>>,
    server: SocketAddr,
    depth: usize,
    interrupt: &Interrupt,
    mut progress: impl FnMut(u64),
) -> Result<Replayed, ReplayError<E>> {
    assert!((1..=DEPTH_MAX).contains(&depth), "between 1 and {DEPTH_MAX} requests are under way");
    let mut player = Player::connect(server)?;
    let mut trace = trace.into_iter();
    let mut batch = Vec::with_capacity(depth);
    let mut next_report = PROGRESS_INTERVAL_REQUESTS;
    loop {
        batch.clear();
        for wanted in trace.by_ref().take(depth) {
            let requests = player.replayed.requests;
            batch.push(wanted.map_err(|source| ReplayError::Trace { requests, source })?);
        }
        player.play(&batch)?;
        if batch.is_empty() {
            // The empty turn has carried the sets of the last misses.
            return Ok(player.replayed);
        }
        if player.replayed.requests >= next_report {
            next_report = player.replayed.requests + PROGRESS_INTERVAL_REQUESTS;
            progress(player.replayed.requests);
            interrupt.check()?;
        }
    }
}

struct Player {
    session: Session,
    values: Values,
    /// Missed, and to be set at the head of the next turn.
    missed: Vec<Wanted>,
    replayed: Replayed,
}

impl Player {
    fn connect(server: SocketAddr) -> Result<Self, SessionError> {
        Ok(Self {
            session: Session::connect(server)?,
            values: Values::new(),
            missed: Vec::new(),
            replayed: Replayed::default(),
        })
    }

    /// One turn: the sets of the misses before, and the gets of `batch`.
    fn play(&mut self, batch: &[Wanted]) -> Result<(), SessionError> {
        let mut digits = itoa::Buffer::new();
        let output = self.session.output();
        for missed in &self.missed {
            let key = digits.format(missed.id).as_bytes();
            Dialect::Text.write_set(key, missed.bytes as usize, &self.values, output);
        }
        for wanted in batch {
            let key = digits.format(wanted.id).as_bytes();
            Dialect::Text.write_get(std::iter::once(key), output);
        }
        for _ in 0..self.missed.len() {
            let replayed = &mut self.replayed;
            self.session.reply(|reply| match reply {
                Reply::Stored => replayed.stored += 1,
                other => {
                    replayed.refused += 1;
                    replayed.keep_sample(|| other.describe());
                }
            })?;
        }
        self.missed.clear();
        for wanted in batch {
            if !self.hear(digits.format(wanted.id).as_bytes())? {
                self.missed.push(*wanted);
            }
        }
        Ok(())
    }

    /// The answer to a get of `key`: whether it was a hit.
    fn hear(&mut self, key: &[u8]) -> Result<bool, SessionError> {
        let Self { session, values, replayed, .. } = self;
        replayed.requests += 1;
        let mut is_hit = false;
        loop {
            let is_last = session.reply(|reply| match reply {
                Reply::Hit { key: found, value } => {
                    is_hit = true;
                    replayed.hits += 1;
                    if *found != key || !values.matches(key, value) {
                        replayed.wrong += 1;
                        replayed.keep_sample(|| {
                            let (key, found) = (printable(key), printable(found));
                            let value = printable(value);
                            format!("asked for '{key}', got of '{found}': '{value}'")
                        });
                    }
                    Ok(false)
                }
                Reply::End => Ok(true),
                other => Err(SessionError::Mismatch { question: "get", answer: other.describe() }),
            })??;
            if is_last {
                return Ok(is_hit);
            }
        }
    }
}
