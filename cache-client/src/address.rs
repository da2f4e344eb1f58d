//! `Address`: where a server is found, and what errors call it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::routing::Server;

/// Where a server is found. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Arc<Place>);

#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// Where one connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint<'a> {
    /// A name or an IP address without brackets, and a port. A name is resolved at each connection anew.
    Tcp {
        /// The name.
        host: &'a str,
        /// The port.
        port: u16,
    },
    /// A socket in the file system.
    Unix(&'a Path),
}

impl Address {
    /// A host, by name or IP address, and a port.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self(Arc::new(Place::Tcp { host: host.into(), port }))
    }

    /// A socket in the file system.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Place::Unix(path.into())))
    }

    /// Where one connects to.
    pub fn endpoint(&self) -> Endpoint<'_> {
        match &*self.0 {
            Place::Tcp { host, port } => Endpoint::Tcp { host, port: *port },
            Place::Unix(path) => Endpoint::Unix(path),
        }
    }
}

impl From<&Server> for Address {
    fn from(server: &Server) -> Self {
        if server.is_socket() {
            Self::unix(&server.host)
        } else {
            Self::tcp(&server.host, server.port)
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.endpoint() {
            Endpoint::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Endpoint::Tcp { host, port } => write!(f, "{host}:{port}"),
            Endpoint::Unix(path) => path.display().fmt(f),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_the_server_was_written() {
        for text in ["cache.example:11211", "10.0.0.1:7", "[::1]:7"] {
            let server: Server = text.parse().unwrap();
            assert_eq!(Address::from(&server).to_string(), text);
        }
    }

    #[test]
    fn a_path_is_a_socket() {
        let server: Server = "/run/cache.sock".parse().unwrap();
        let address = Address::from(&server);
        assert_eq!(address.endpoint(), Endpoint::Unix(Path::new("/run/cache.sock")));
        assert_eq!(address.to_string(), "/run/cache.sock");
    }
}
