//! The open connections of one worker, as `stats conns` shows them.
//!
//! The worker locks its registry when a client comes or goes; requests only store into their own
//! record.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Now;

/// Open connections and listening sockets by file descriptor: unique while open.
#[derive(Debug, Default)]
pub struct Registry {
    connections: Mutex<HashMap<RawFd, Arc<ConnectionRecord>>>,
    listeners: Mutex<Vec<(RawFd, Endpoint)>>,
}

impl Registry {
    pub(crate) fn insert(&self, record: Arc<ConnectionRecord>) {
        let earlier = self.connections.lock().insert(record.fd, record);
        debug_assert!(earlier.is_none(), "a connection leaves before its descriptor is reused");
    }

    pub(crate) fn remove(&self, fd: RawFd) {
        self.connections.lock().remove(&fd);
    }

    pub(crate) fn insert_listener(&self, fd: RawFd, local: Endpoint) {
        self.listeners.lock().push((fd, local));
    }

    pub(crate) fn for_each_listener(&self, mut visit: impl FnMut(RawFd, &Endpoint)) {
        self.listeners.lock().iter().for_each(|(fd, local)| visit(*fd, local));
    }

    pub(crate) fn for_each(&self, visit: &mut impl FnMut(&ConnectionRecord)) {
        self.connections.lock().values().for_each(|record| visit(record));
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
    is_sent_away: AtomicBool,
}

impl ConnectionRecord {
    pub(crate) fn new(fd: RawFd, peer: Endpoint, local: Endpoint, now: Now) -> Self {
        Self {
            fd,
            peer,
            local,
            state: AtomicU8::new(ConnectionState::Waiting as u8),
            active_unix_ms: AtomicU64::new(now.unix_ms),
            is_sent_away: AtomicBool::new(false),
        }
    }

    /// What it is doing.
    pub fn state(&self) -> ConnectionState {
        match self.state.load(Ordering::Relaxed) {
            state if state == ConnectionState::Serving as u8 => ConnectionState::Serving,
            state if state == ConnectionState::Sending as u8 => ConnectionState::Sending,
            state if state == ConnectionState::Receiving as u8 => ConnectionState::Receiving,
            state if state == ConnectionState::Watching as u8 => ConnectionState::Watching,
            _ => ConnectionState::Waiting,
        }
    }

    /// Seconds since it last sent something, or since it connected, as a clock counts that shows no smaller
    /// unit: as in memcached a client that sleeps for a second has been idle for one.
    pub fn idle_seconds(&self, now: Now) -> u64 {
        let active_unix_ms = self.active_unix_ms.load(Ordering::Relaxed);
        now.unix_seconds().saturating_sub(active_unix_ms / 1000)
    }

    /// Whether it has been silent for longer than `limit` while it could have spoken, and has not been told
    /// to go before; it is told now. As in memcached this is for clients over a network alone.
    pub(crate) fn outstays(&self, limit: Duration, now: Now) -> bool {
        matches!(self.peer, Endpoint::Tcp(_))
            && matches!(self.state(), ConnectionState::Waiting | ConnectionState::Receiving)
            && self.idle_seconds(now) > limit.as_secs()
            && !self.is_sent_away.swap(true, Ordering::Relaxed)
    }

    /// Whether it was told to go because it was silent.
    pub(crate) fn was_sent_away(&self) -> bool {
        self.is_sent_away.load(Ordering::Relaxed)
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
    /// Waits for the rest of a value.
    Receiving,
    /// Is sent what happens, and asks for nothing.
    Watching,
}

/// One end of a connection, shown as memcached shows it: `tcp:127.0.0.1:11211`, `tcp6:[::1]:11211`,
/// `unix:/run/cache.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An address and port.
    Tcp(std::net::SocketAddr),
    /// An address of the server's for datagrams, on either end.
    Udp(std::net::SocketAddr),
    /// A UNIX socket: the server's path, on either end.
    Unix(Arc<std::path::Path>),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) if address.is_ipv6() => write!(f, "tcp6:{address}"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Udp(address) if address.is_ipv6() => write!(f, "udp6:{address}"),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
