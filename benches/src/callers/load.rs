//! The workload of a cache, carried by callers: gets and sets in the proportions and with the checks of `workload.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cache_client::{Error, Ttl, Value, Written};

use super::{Caller, Errand, Plan};
use crate::clock;
use crate::connection::wrong_value;
use crate::interrupt::Interrupt;
use crate::keyspace::KeyspaceError;
use crate::load::{LoadError, Outcome};
use crate::tally::Tally;
use crate::workload::{Ask, Requests, Workload};

/// What callers ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What the workload draws, for as long as the plan says.
    Drawn {
        /// Where all chance in the requests comes from.
        seed: u64,
        /// How many at most, of all callers together; those that fill a miss are not counted.
        requests_max: u64,
    },
    /// Every key is set once, in order of index.
    Filling,
}

/// The workload, and who asks for which part of it.
struct Carried {
    workload: Arc<Workload>,
    extent: Extent,
    callers: usize,
    /// Requests that may still be made.
    requests_left: AtomicU64,
}

/// Carries `workload` as `plan` says; `progress` hears now and then how many requests have been answered, warm-up
/// included.
///
/// # Errors
/// As [`run`](super::run). Calls that fail, and writes that were not made, are counted as refused.
pub fn carry(
    plan: &Plan,
    workload: &Arc<Workload>,
    extent: Extent,
    interrupt: &Interrupt,
    progress: impl FnMut(u64),
) -> Result<Outcome, LoadError> {
    let requests_max = match extent {
        Extent::Drawn { requests_max, .. } => requests_max,
        Extent::Filling => u64::MAX,
    };
    let carried = Carried {
        workload: Arc::clone(workload),
        extent,
        callers: plan.callers,
        requests_left: AtomicU64::new(requests_max),
    };
    // What cannot be drawn is said before anybody calls.
    carried.requests(0)?;
    let counted = super::run(plan, &Arc::new(carried), interrupt, progress)?;
    let mut tally = Tally::new();
    counted.counts.into_iter().for_each(|count| tally.merge(count));
    let end = counted.until.or(tally.last_answer).unwrap_or(counted.from);
    let elapsed = end.saturating_duration_since(counted.from);
    Ok(Outcome { tally, elapsed, usage: counted.usage })
}

impl Carried {
    fn requests(&self, caller: usize) -> Result<Requests, KeyspaceError> {
        match self.extent {
            Extent::Filling => Ok(Requests::filling(&self.workload, caller, self.callers)),
            Extent::Drawn { seed, .. } => {
                let seed = seed.wrapping_mul(1_000_003).wrapping_add(caller as u64);
                Requests::drawn(&self.workload, seed)
            }
        }
    }
}

impl Carried {
    fn takes_one(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        self.requests_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

impl Errand for Carried {
    type Count = Tally;

    async fn call(self: Arc<Self>, caller: Caller<Tally>) {
        let Ok(mut requests) = self.requests(caller.number) else { return };
        let mut keys = Vec::new();
        let mut asking = Asking { workload: &self.workload, caller: &caller, value: Vec::new() };
        let mut now = clock::now();
        while caller.goes_on(now) && self.takes_one() {
            let Some(ask) = requests.next(&mut keys) else { return };
            now = asking.ask(ask, &keys, now).await;
        }
    }
}

/// One caller at work.
struct Asking<'a> {
    workload: &'a Workload,
    caller: &'a Caller<Tally>,
    /// Room for a value to be written.
    value: Vec<u8>,
}

impl Asking<'_> {
    /// Asks, waits for the answer and counts it; when that was.
    async fn ask(&mut self, ask: Ask, keys: &[u32], began: Instant) -> Instant {
        match ask {
            Ask::Set => self.set(keys[0], began).await,
            Ask::Get => self.get(keys, began).await,
        }
    }

    async fn get(&mut self, indexes: &[u32], began: Instant) -> Instant {
        let keys: Vec<_> = indexes.iter().map(|&index| self.key(index)).collect();
        let found = match &*keys {
            [key] => self.caller.client().get(key).await.map(|value| vec![value]),
            keys => self.caller.client().get_many(keys).await,
        };
        let mut now = clock::now();
        let found = match found {
            Ok(found) => found,
            Err(error) => return self.failed(&error).await,
        };
        self.count_found(&keys, &found, began, now);
        if self.workload.fill {
            for (&index, value) in indexes.iter().zip(&found) {
                if value.is_none() {
                    now = self.set(index, now).await;
                }
            }
        }
        now
    }

    fn count_found(&self, keys: &[Vec<u8>], found: &[Option<Value>], began: Instant, now: Instant) {
        let Workload { checks, values, .. } = self.workload;
        let mut tally = self.caller.count.borrow_mut();
        let counts = u64::from(self.caller.window.contains(now));
        for (key, value) in keys.iter().zip(found) {
            match value {
                None => tally.misses += counts,
                Some(value) => {
                    tally.hits += counts;
                    if *checks && !values.matches(key, &value.data) {
                        tally.wrong(|| wrong_value(key, &value.data));
                    }
                }
            }
        }
        tally.answered(Ask::Get, began, now, &self.caller.window);
        self.caller.answered();
    }

    async fn set(&mut self, index: u32, began: Instant) -> Instant {
        let key = self.key(index);
        self.value.clear();
        self.workload.values.append(&key, self.workload.value_bytes_of(index), &mut self.value);
        let written = self.caller.client().set(&key, &self.value, Ttl::NEVER).await;
        let now = clock::now();
        match written {
            Ok(written) => {
                let mut tally = self.caller.count.borrow_mut();
                if written != Written::Stored {
                    tally.refused(|| format!("a set ended as {written:?}"));
                }
                tally.answered(Ask::Set, began, now, &self.caller.window);
                self.caller.answered();
                now
            }
            Err(error) => self.failed(&error).await,
        }
    }

    async fn failed(&self, error: &Error) -> Instant {
        self.caller.count.borrow_mut().refused(|| error.to_string());
        self.caller.pause().await;
        clock::now()
    }

    fn key(&self, index: u32) -> Vec<u8> {
        let keyspace = &self.workload.keyspace;
        let mut key = vec![0; keyspace.key_bytes()];
        keyspace.write_key(index, &mut key);
        key
    }
}
