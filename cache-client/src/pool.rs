//! `Node`: one server, the few connections to it, and whether it is worth asking.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::address::Address;
use crate::config::Config;
use crate::connection::{Connection, random_number};
use crate::random::Random;
use crate::retry::{Admission, Breaker, Permit};

/// One server and the connections to it, which last as long as this does.
#[derive(Debug)]
pub(crate) struct Node {
    address: Address,
    connections: Vec<Connection>,
    /// Where the configuration has one.
    health: Option<Mutex<Health>>,
}

#[derive(Debug)]
struct Health {
    breaker: Breaker,
    random: Random,
}

/// Leave to ask a node, once. How that went is to be told; dropped, it was given up.
#[derive(Debug)]
pub(crate) struct Leave<'a> {
    health: Option<&'a Mutex<Health>>,
    permit: Option<Permit>,
}

impl Node {
    /// Begins to connect, in the background.
    pub(crate) fn open(address: Address, config: &Arc<Config>) -> Self {
        let count = config.connection.connections.max(1);
        let open = || Connection::open(address.clone(), Arc::clone(config));
        let connections = (0..count).map(|_| open()).collect();
        let health = config.breaker.map(|breaker| {
            let random = Random::new(random_number());
            Mutex::new(Health { breaker: Breaker::new(breaker), random })
        });
        Self { address, connections, health }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// The connection with the least to do, of those that there are; the first when there is none.
    pub(crate) fn connection(&self) -> &Connection {
        let [first, others @ ..] = &self.connections[..] else {
            unreachable!("a node has one connection at least")
        };
        if others.is_empty() {
            return first;
        }
        let least = self.connections.iter().min_by_key(|connection| connection.load());
        least.unwrap_or(first)
    }

    /// Whether it may answer: it is not known to be out of reach, and has not failed too often lately.
    pub(crate) fn is_promising(&self, now: Instant) -> bool {
        let admits = |health: &Mutex<Health>| health.lock().breaker.would_admit(now.into_std());
        !self.connections.iter().all(Connection::is_down) && self.health.as_ref().is_none_or(admits)
    }

    /// Leave to ask it; `None` while it is left alone.
    pub(crate) fn admit(&self, now: Instant) -> Option<Leave<'_>> {
        let Some(health) = &self.health else { return Some(Leave { health: None, permit: None }) };
        match health.lock().breaker.admit(now.into_std()) {
            Admission::Granted(permit) => {
                Some(Leave { health: Some(health), permit: Some(permit) })
            }
            Admission::Refused { .. } => None,
        }
    }
}

impl Leave<'_> {
    /// Whether the node has done what can be asked of it.
    pub(crate) fn ended(mut self, now: Instant, is_success: bool) {
        let (Some(health), Some(permit)) = (self.health, self.permit.take()) else { return };
        let Health { breaker, random } = &mut *health.lock();
        if is_success {
            breaker.succeeded(now.into_std(), permit);
        } else {
            breaker.failed(now.into_std(), permit, random);
        }
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if let (Some(health), Some(permit)) = (self.health, self.permit.take()) {
            health.lock().breaker.cancelled(permit);
        }
    }
}
