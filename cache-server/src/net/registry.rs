//! The open connections of one worker, as `stats conns` shows them.
//!
//! The worker locks its registry when a client comes or goes; requests only store into their own
//! record.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::clock::Now;

/// Open connections by file descriptor: unique while open.
#[derive(Debug, Default)]
pub struct Registry(Mutex<HashMap<RawFd, Arc<ConnectionRecord>>>);

impl Registry {
    pub(crate) fn insert(&self, record: Arc<ConnectionRecord>) {
        let earlier = self.0.lock().insert(record.fd, record);
        debug_assert!(earlier.is_none(), "a connection leaves before its descriptor is reused");
    }

    pub(crate) fn remove(&self, fd: RawFd) {
        self.0.lock().remove(&fd);
    }

    pub(crate) fn for_each(&self, visit: &mut impl FnMut(&ConnectionRecord)) {
        self.0.lock().values().for_each(|record| visit(record));
    }
}

/// One open connection.
#[derive(Debug)]
pub struct ConnectionRecord {
    /// Its file descriptor, which names it in `stats conns`.
    pub fd: RawFd,
    /// Who is connected.
    pub peer: Endpoint,
    /// Where it connected to.
    pub local: Endpoint,
    state: AtomicU8,
    active_unix_ms: AtomicU64,
}

impl ConnectionRecord {
    pub(crate) fn new(fd: RawFd, peer: Endpoint, local: Endpoint, now: Now) -> Self {
        Self {
            fd,
            peer,
            local,
            state: AtomicU8::new(ConnectionState::Waiting as u8),
            active_unix_ms: AtomicU64::new(now.unix_ms),
        }
    }

    /// What it is doing.
    pub fn state(&self) -> ConnectionState {
        match self.state.load(Ordering::Relaxed) {
            state if state == ConnectionState::Serving as u8 => ConnectionState::Serving,
            state if state == ConnectionState::Sending as u8 => ConnectionState::Sending,
            _ => ConnectionState::Waiting,
        }
    }

    /// Whole seconds since it last sent something, or since it connected.
    pub fn idle_seconds(&self, now: Now) -> u64 {
        now.unix_ms.saturating_sub(self.active_unix_ms.load(Ordering::Relaxed)) / 1000
    }

    pub(crate) fn set_state(&self, state: ConnectionState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    pub(crate) fn set_active(&self, now: Now) {
        self.active_unix_ms.store(now.unix_ms, Ordering::Relaxed);
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnectionState {
    /// Waits for the client to send.
    Waiting,
    /// Has requests answered.
    Serving,
    /// Waits for the client to take its answers.
    Sending,
}

/// One end of a connection, shown as memcached shows it: `tcp:127.0.0.1:11211`, `tcp6:[::1]:11211`,
/// `unix:/run/cache.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An address and port.
    Tcp(std::net::SocketAddr),
    /// A UNIX socket: the server's path, on either end.
    Unix(Arc<std::path::Path>),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) if address.is_ipv6() => write!(f, "tcp6:{address}"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
