//! Single flight: of the callers of a key one leads, and the others wait for what it brings.
//!
//! ```text
//! join ──┬─ first ────────────> Lead ──publish──> landed: all who wait get it, and who joins while the leader is not done
//!        └─ others wait ────────> ^  │
//!                                 └──┘ dropped without: the next in line leads
//! ```
//!
//! - A flight is in the table as long as somebody leads or waits, or a lease is left of one who went away.
//! - What a leader brings is not given to whoever joins after the leader is done.
//! - A lease that was won passes from a leader that is dropped before it used it to the next.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most flights that are kept for their lease alone.
const LEFT_MAX: usize = 1024;

/// Who learns of a computation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// All who wait for it.
    Share,
    /// The one who made it; the next in line computes, until so many have failed: then all.
    Retry {
        /// Computations, the first included.
        attempts_max: u32,
    },
}

/// The flights of all keys.
pub(super) struct Flights<T>(Mutex<Table<T>>);

/// By key.
type Table<T> = HashMap<Box<[u8]>, Arc<Flight<T>>>;

struct Flight<T> {
    /// Its one permit is the leader's. Closed once the flight has landed.
    turn: Arc<Semaphore>,
    landed: OnceLock<T>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Who leads and who waits.
    callers: usize,
    failures: u32,
    /// The cas of the leader's lease, until it is used.
    lease: Option<u64>,
}

/// What a caller is to do.
pub(super) enum Turn<'a, T> {
    /// Take this.
    Landed(T),
    /// Lead.
    Lead(Lead<'a, T>),
}

/// The flight in which this caller leads.
pub(super) struct Lead<'a, T> {
    caller: Caller<'a, T>,
    _turn: OwnedSemaphorePermit,
}

/// A caller in a flight, counted.
struct Caller<'a, T> {
    flights: &'a Flights<T>,
    key: Box<[u8]>,
    flight: Arc<Flight<T>>,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Flights<T> {
    /// Waits for what the leader of `key` brings, or for the lead.
    pub(super) async fn join(&self, key: &[u8]) -> Turn<'_, T> {
        let caller = self.board(key);
        match Arc::clone(&caller.flight.turn).acquire_owned().await {
            Ok(turn) => Turn::Lead(Lead { caller, _turn: turn }),
            Err(_) => match caller.flight.landed.get() {
                Some(landed) => Turn::Landed(landed.clone()),
                None => unreachable!("a flight is closed once it has landed"),
            },
        }
    }

    fn board(&self, key: &[u8]) -> Caller<'_, T> {
        let mut flights = self.0.lock();
        let flight = flights.entry(key.into()).or_insert_with(|| Flight::with_lease(None));
        flight.state.lock().callers += 1;
        Caller { flights: self, key: key.into(), flight: Arc::clone(flight) }
    }

    /// Flights in the table.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl<T> Lead<'_, T> {
    /// Gives `landed` to all who wait, and to who joins until this is dropped.
    pub(super) fn publish(&mut self, landed: T) {
        let flight = &self.caller.flight;
        assert!(flight.landed.set(landed).is_ok(), "a flight lands once");
        flight.turn.close();
    }

    /// Gives `error` to those whom `on_error` says.
    pub(super) fn fail(&mut self, on_error: OnError, error: T) {
        let failures = {
            let mut state = self.caller.flight.state.lock();
            state.failures += 1;
            state.failures
        };
        match on_error {
            OnError::Retry { attempts_max } if failures < attempts_max => {}
            OnError::Share | OnError::Retry { .. } => self.publish(error),
        }
    }

    /// The lease that a leader before left.
    pub(super) fn lease(&self) -> Option<u64> {
        self.caller.flight.state.lock().lease
    }

    /// What the next is to be left if this is dropped.
    pub(super) fn set_lease(&mut self, lease: Option<u64>) {
        self.caller.flight.state.lock().lease = lease;
    }
}

impl<T> Flight<T> {
    fn with_lease(lease: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            turn: Arc::new(Semaphore::new(1)),
            landed: OnceLock::new(),
            state: Mutex::new(State { lease, ..State::default() }),
        })
    }
}

impl<T> Drop for Lead<'_, T> {
    fn drop(&mut self) {
        let Caller { flights, key, flight } = &self.caller;
        let mut flights = flights.0.lock();
        // Another may be under way by now.
        let is_present = flights.get(key).is_some_and(|present| Arc::ptr_eq(present, flight));
        if flight.landed.get().is_none() || !is_present {
            return;
        }
        let lease = flight.state.lock().lease;
        match lease {
            Some(_) if flights.len() <= LEFT_MAX => {
                flights.insert(key.clone(), Flight::with_lease(lease));
            }
            _ => drop(flights.remove(key)),
        }
    }
}

impl<T> Drop for Caller<'_, T> {
    fn drop(&mut self) {
        // Under the table's lock, so that nobody boards in between.
        let mut flights = self.flights.0.lock();
        let is_over = {
            let mut state = self.flight.state.lock();
            state.callers -= 1;
            let is_left = state.lease.is_some() && flights.len() <= LEFT_MAX;
            state.callers == 0 && !is_left
        };
        let is_present =
            || flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight));
        if is_over && is_present() {
            flights.remove(&self.key);
        }
    }
}
