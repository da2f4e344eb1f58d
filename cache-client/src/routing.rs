//! Where a key goes: to which of the servers that a client was told of, or to which node of a cluster.
//!
//! ```text
//! static servers   Router   scheme by name, key -> server, the same one on every client of the fleet
//! a cluster        Map      key -> shard -> primary and backups, as `config get shards` says (map.rs)
//! ```
//!
//! - Where a key goes depends on the scheme, the servers as they are written, and the key; on nothing else, also
//!   not on the build or the machine.
//! - `ketama`, `consistent` and `modulo` agree with libmemcached 1.1.4, so that a fleet can be moved over client by
//!   client: `routing/libmemcached.txt` holds what libmemcached answered.
//! - `rendezvous` is ours, and what a new fleet should take: the most even one, and exact about what moves.
//!
//! | scheme | keys that move when one of n equal servers is added or lost | a server's share, of its fair one |
//! |---|---|---|
//! | `ketama`, `consistent` | about 1/n | 0.75 to 1.30 (160 points), 0.65 to 1.45 (100 points) |
//! | `rendezvous` | 1/n, also with weights | 0.95 to 1.05, which is chance among 20,000 keys |
//! | `modulo` | all but 1/n | 0.95 to 1.05 |

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

pub use self::hash::Hash;
pub use self::map::{Map, MapError, MapNode, MapShard, NodeState, OtherCluster, ReadFrom};
use self::rendezvous::Seats;
use self::ring::Ring;

mod hash;
pub mod map;
mod rendezvous;
mod ring;

/// The port that memcached's clients mean where none is written.
pub const PORT_DEFAULT: u16 = 11211;

/// How keys are given to servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// What libmemcached does under `MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED` and PHP's Memcached under
    /// `OPT_LIBKETAMA_COMPATIBLE`: MD5, 160 points a server, in proportion to weights.
    Ketama,
    /// What libmemcached does under `MEMCACHED_BEHAVIOR_KETAMA`, and under
    /// `MEMCACHED_DISTRIBUTION_CONSISTENT`: 100 points a server, points and keys hashed by one function. As
    /// there, a weight above 1 on any server turns it into [`Scheme::Ketama`], but for the hash of keys.
    Consistent(Hash),
    /// Highest random weight by XXH3-64, weighted by logarithm.
    Rendezvous,
    /// The hash modulo the number of servers; weights mean nothing. libmemcached's default, with
    /// [`Hash::OneAtATime`].
    Modulo(Hash),
}

impl Scheme {
    /// All schemes by name.
    pub const ALL: [(&'static str, Self); 8] = [
        ("ketama", Self::Ketama),
        ("consistent", Self::Consistent(Hash::OneAtATime)),
        ("consistent-md5", Self::Consistent(Hash::Md5)),
        ("consistent-crc32", Self::Consistent(Hash::Crc32)),
        ("rendezvous", Self::Rendezvous),
        ("modulo", Self::Modulo(Hash::OneAtATime)),
        ("modulo-md5", Self::Modulo(Hash::Md5)),
        ("modulo-crc32", Self::Modulo(Hash::Crc32)),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, scheme)| *scheme == self).map_or("", |(name, _)| name)
    }
}

/// No scheme has this name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no routing scheme `{0}`; there are {names}", names = scheme_names())]
pub struct UnknownScheme(pub String);

fn scheme_names() -> String {
    Scheme::ALL.map(|(name, _)| name).join(", ")
}

impl FromStr for Scheme {
    type Err = UnknownScheme;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.iter();
        let found = all.find(|(known, _)| *known == name).map(|&(_, scheme)| scheme);
        found.ok_or_else(|| UnknownScheme(name.to_owned()))
    }
}

/// A server as it is written: `host`, `host:port`, `[v6]:port` or `/path/of/socket`, and `*weight` after any.
///
/// What is written decides where keys go, so that all clients have to write the same: a name is not its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// A name or an address without brackets, or the path of a UNIX socket.
    pub host: String,
    /// Of a UNIX socket [`PORT_DEFAULT`], as libmemcached has it.
    pub port: u16,
    /// Its share of the keys, in proportion to the others' weights; at least 1.
    pub weight: u32,
}

impl Server {
    /// A server of weight 1.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, weight: 1 }
    }

    /// The same with another weight; 0 counts as 1.
    #[must_use]
    pub fn with_weight(self, weight: u32) -> Self {
        Self { weight: weight.max(1), ..self }
    }

    /// Whether it is a UNIX socket.
    pub fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// The name that its points and seats have: the port is left out where it is [`PORT_DEFAULT`].
    fn name(&self) -> String {
        match self.port {
            PORT_DEFAULT => self.host.clone(),
            port => format!("{}:{port}", self.host),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.host {
            path if self.is_socket() => f.write_str(path),
            host if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

/// Why a text names no server.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ServerError {
    /// There is nothing in front of the port.
    #[error("`{0}` names no host")]
    Host(String),
    /// What follows the colon.
    #[error("`{0}` has no port from 1 to 65535 after its colon")]
    Port(String),
    /// What follows the asterisk.
    #[error("`{0}` has no weight of at least 1 after its asterisk")]
    Weight(String),
}

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, weight) = match text.rsplit_once('*') {
            None => (text, 1),
            Some((address, digits)) => match digits.parse() {
                Ok(weight @ 1..) => (address, weight),
                _ => return Err(ServerError::Weight(text.to_owned())),
            },
        };
        let (host, port) = match address.rsplit_once(':') {
            _ if address.starts_with('/') => (address, PORT_DEFAULT),
            // The last colon of `[::1]` is inside of the address.
            Some((host, digits)) if !digits.ends_with(']') => match digits.parse() {
                Ok(port @ 1..) => (host, port),
                _ => return Err(ServerError::Port(text.to_owned())),
            },
            _ => (address, PORT_DEFAULT),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match host {
            "" => Err(ServerError::Host(text.to_owned())),
            host => Ok(Self { host: host.to_owned(), port, weight }),
        }
    }
}

/// Servers, and which of them a key goes to.
#[derive(Clone, Debug)]
pub struct Router {
    scheme: Scheme,
    servers: Vec<Server>,
    table: Table,
}

#[derive(Clone, Debug)]
enum Table {
    Ring(Ring),
    Seats(Seats),
    Modulo(Hash),
}

impl Router {
    /// Routes to `servers`, which are called by their index from here on.
    pub fn new(scheme: Scheme, servers: Vec<Server>) -> Self {
        let table = match scheme {
            Scheme::Ketama => Table::Ring(Ring::weighted(&servers, Hash::Md5)),
            Scheme::Consistent(hash) if servers.iter().any(|server| server.weight > 1) => {
                Table::Ring(Ring::weighted(&servers, hash))
            }
            Scheme::Consistent(hash) => Table::Ring(Ring::unweighted(&servers, hash)),
            Scheme::Rendezvous => Table::Seats(Seats::new(&servers)),
            Scheme::Modulo(hash) => Table::Modulo(hash),
        };
        Self { scheme, servers, table }
    }

    /// How keys are given to servers.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The servers, by index.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The server of a key; `None` if there are no servers.
    pub fn server_of(&self, key: &[u8]) -> Option<usize> {
        self.server_among(key, |_| true)
    }

    /// The server of a key among those that `takes_keys`; `None` if none does.
    ///
    /// A key whose own server takes keys stays there. Others are spread over the rest as if theirs were not there,
    /// and go back when it is. libmemcached, told to eject servers, agrees where weights are equal.
    pub fn server_among(&self, key: &[u8], takes_keys: impl Fn(usize) -> bool) -> Option<usize> {
        match &self.table {
            Table::Ring(ring) => ring.server_of(key, takes_keys),
            Table::Seats(seats) => seats.server_of(key, takes_keys),
            Table::Modulo(hash) => modulo(hash.of(key), self.servers.len(), takes_keys),
        }
    }
}

/// The server that the remainder says; if it takes no keys, the remainder among those that do.
fn modulo(hash: u32, servers: usize, takes_keys: impl Fn(usize) -> bool) -> Option<usize> {
    let own = (hash as usize).checked_rem(servers)?;
    if takes_keys(own) {
        return Some(own);
    }
    let left = (0..servers).filter(|&server| takes_keys(server)).count();
    let chosen = (hash as usize / servers).checked_rem(left)?;
    (0..servers).filter(|&server| takes_keys(server)).nth(chosen)
}

#[cfg(test)]
mod tests;
