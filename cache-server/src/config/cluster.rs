//! `ClusterConfig`: what a node of a cluster is asked to be.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::{fmt, io};

use cluster::map::{Addresses, Role};
use cluster::pool::Pool;

use super::Listen;

/// The admin port is the clients' port plus this, unless `--admin-listen` says otherwise.
pub const ADMIN_PORT_OFFSET: u16 = 100;

/// The port for other nodes is the clients' port plus this, unless `--peer-listen` says otherwise.
pub const PEER_PORT_OFFSET: u16 = 200;

/// A node's weight unless `--weight` says otherwise.
pub const WEIGHT_DEFAULT: u16 = 100;

/// The longest name of a zone, in bytes.
pub const ZONE_BYTES_MAX: usize = 64;

/// What a node of a cluster is asked to be.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Where it keeps its identity and what the cluster agreed on (`--cluster-dir`), from the root.
    pub dir: PathBuf,
    /// How it comes to its cluster.
    pub start: ClusterStart,
    /// Where other nodes connect (`--peer-listen`).
    pub peer_listen: Listen,
    /// What other nodes are told to connect to, if not what is listened at (`--peer-advertise`).
    pub peer_advertise: Option<Endpoint>,
    /// What clients are told to connect to, if not the first address of `-l` (`--client-advertise`).
    pub client_advertise: Option<Endpoint>,
    /// Where administration connects (`--admin-listen`).
    pub admin_listen: Listen,
    /// Copies of one shard go to different zones where that is possible (`--zone`); may be empty.
    pub zone: String,
    /// Its share of the shards, relative to the other nodes' (`--weight`), 1 to [`cluster::map::WEIGHT_MAX`].
    pub weight: u16,
    /// What it is for (`--role`).
    pub role: Role,
    /// Whether nodes on other machines are talked to without encryption (`--peer-plaintext`).
    pub peer_plaintext: bool,
}

impl ClusterConfig {
    /// What others are told to connect to, once sockets are bound: what is advertised, else what is
    /// listened at. An admin port open on every address of the machine is reached where the node is.
    ///
    /// An address that does not say where the node is has been refused with the flags.
    pub fn addresses(&self, client: SocketAddr, peer: SocketAddr, admin: SocketAddr) -> Addresses {
        let told = |advertised: &Option<Endpoint>, bound: SocketAddr| match advertised {
            Some(endpoint) => endpoint.to_string(),
            None => bound.to_string(),
        };
        let admin = match &self.peer_advertise {
            Some(peer) if admin.ip().is_unspecified() => {
                Endpoint { host: peer.host.clone(), port: admin.port() }.to_string()
            }
            _ if admin.ip().is_unspecified() => {
                SocketAddr::new(peer.ip(), admin.port()).to_string()
            }
            _ => admin.to_string(),
        };
        Addresses {
            peer: told(&self.peer_advertise, peer),
            client: told(&self.client_advertise, client),
            admin,
        }
    }
}

/// How a node comes to its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterStart {
    /// It has an identity from before.
    Continue,
    /// It founds one (`--init`).
    Init {
        /// What the cluster promises (`--pool`, `--replicas`).
        pool: Pool,
        /// Into how many shards keys are cut (`--shards`): a power of two,
        /// [`cluster::hash::SHARD_COUNT_MIN`] to [`cluster::hash::SHARD_COUNT_MAX`].
        shard_count: u16,
    },
    /// It asks to be let into one (`--join`); or it was let in before, and goes on.
    Join {
        /// Peer addresses of nodes that are in it.
        seeds: Vec<Endpoint>,
        /// What lets it in.
        token: TokenSource,
    },
}

/// Where the token of `--join` is found.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// On the command line (`--token`).
    Given(String),
    /// In a file (`--token-file`), from the root.
    File(PathBuf),
}

impl TokenSource {
    /// The token, without the spaces and line ends around it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or holds nothing.
    pub fn read(&self) -> io::Result<String> {
        let text = match self {
            Self::Given(token) => token.clone(),
            Self::File(path) => std::fs::read_to_string(path)?,
        };
        match text.trim() {
            "" => Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no token")),
            token => Ok(token.to_owned()),
        }
    }
}

impl fmt::Debug for TokenSource {
    /// Without the token: whoever reads it in a log could join.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str("Given(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Where somebody is reached: a name or an address, and a port. IPv6 addresses are written in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || format!("{text:?} is no HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|&port| port != 0).ok_or_else(wrong)?;
        let host = match host.strip_prefix('[') {
            Some(bracketed) => bracketed.strip_suffix(']').ok_or_else(wrong)?,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        if host.is_empty() || host == "*" || host.contains(char::is_whitespace) {
            return Err(wrong());
        }
        if host.parse().is_ok_and(|address: std::net::IpAddr| address.is_unspecified()) {
            return Err(format!("{text:?} is every address of a machine, and leads to none"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_says_where_and_reads_back() {
        for text in ["10.0.0.1:7", "[::1]:7", "cache-1.example:11211"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for wrong in ["", "host", "host:", ":7", "host:0", "host:x", "::1:7", "[::1:7", "*:7"] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong:?}");
        }
        assert!("0.0.0.0:7".parse::<Endpoint>().unwrap_err().contains("leads to none"));
        assert!("[::]:7".parse::<Endpoint>().unwrap_err().contains("leads to none"));
    }

    #[test]
    fn a_token_is_read_without_its_line_end_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "secret\n").unwrap();
        assert_eq!(TokenSource::File(path.clone()).read().unwrap(), "secret");
        std::fs::write(&path, "\n").unwrap();
        assert!(TokenSource::File(path).read().is_err());
        assert!(!format!("{:?}", TokenSource::Given("secret".into())).contains("secret"));
    }

    #[test]
    fn what_is_advertised_goes_before_what_is_bound() {
        let config = ClusterConfig {
            dir: PathBuf::new(),
            start: ClusterStart::Continue,
            peer_listen: Listen::new(None, 1),
            peer_advertise: Some(Endpoint { host: "cache-1".into(), port: 7 }),
            client_advertise: None,
            admin_listen: Listen::new(None, 3),
            zone: String::new(),
            weight: WEIGHT_DEFAULT,
            role: Role::Data,
            peer_plaintext: false,
        };
        let bound = |text: &str| text.parse().unwrap();
        let told = config.addresses(bound("127.0.0.1:1"), bound("0.0.0.0:2"), bound("0.0.0.0:3"));
        assert_eq!(told.peer, "cache-1:7");
        assert_eq!(told.client, "127.0.0.1:1");
        assert_eq!(told.admin, "cache-1:3");
    }
}
