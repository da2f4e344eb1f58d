//! Listening sockets: one per worker and TCP address, so that the kernel spreads clients over them.
//!
//! A port that another process serves must be an error, not quietly shared with it. `SO_REUSEPORT`
//! alone would share it with any process of the same user, so the first socket is bound without,
//! and joins the group afterwards: there is no moment at which somebody else could slip in.

use std::io;
use std::net::{SocketAddr, SocketAddrV6, TcpListener, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::ifaddrs::getifaddrs;
use nix::sys::stat::{Mode, umask};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::config::{Dialect, Listen, Protection, UnixSocket};
use crate::net::ListeningAddress;
use crate::tls::Certificates;

/// Why an address cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The name has no address.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// A TCP address cannot be bound.
    #[error("cannot listen on {address}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A UDP address cannot be bound.
    #[error("cannot listen on {address} for datagrams")]
    Udp {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A UNIX socket cannot be bound.
    #[error("cannot listen on {}", path.display())]
    Unix {
        /// Its path.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// The sockets of one worker.
#[derive(Debug, Default)]
pub struct WorkerListeners {
    /// One per TCP address.
    pub tcp: Vec<TcpEntrance>,
    /// One per UDP address.
    pub udp: Vec<UdpEntrance>,
    /// The UNIX socket, shared by all workers.
    pub unix: Option<UnixListener>,
}

/// A worker's socket for one TCP address, and what is asked of those who come in.
#[derive(Debug)]
pub struct TcpEntrance {
    /// The socket.
    pub socket: TcpListener,
    /// Whether they speak TLS.
    pub protection: Protection,
    /// What they speak, where it is not what is usual.
    pub dialect: Option<Dialect>,
}

/// A worker's socket for one UDP address.
#[derive(Debug)]
pub struct UdpEntrance {
    /// The socket.
    pub socket: UdpSocket,
    /// What is spoken, where it is not what is usual.
    pub dialect: Option<Dialect>,
}

/// All sockets of a server, bound.
#[derive(Debug)]
pub struct Listeners {
    workers: Vec<WorkerListeners>,
    addresses: Vec<ListeningAddress>,
    certificates: Option<Arc<Certificates>>,
    unix_path: Option<PathBuf>,
}

/// What becomes of [`Listeners`] when they are served.
pub(crate) struct ListenerParts {
    /// The sockets of each worker.
    pub(crate) workers: Vec<WorkerListeners>,
    /// Where clients can connect, ports resolved.
    pub(crate) addresses: Vec<ListeningAddress>,
    /// What is shown to clients, where there is TLS.
    pub(crate) certificates: Option<Arc<Certificates>>,
    /// The file to remove at the end.
    pub(crate) unix_path: Option<PathBuf>,
}

impl Listeners {
    /// Binds the TCP addresses that `listen` asks for, once per worker.
    ///
    /// # Errors
    ///
    /// When one of them cannot be resolved or bound; none is served then.
    pub fn bind_tcp(listen: &[Listen], workers: usize, backlog: u32) -> Result<Self, ListenError> {
        let mut listeners = Self {
            workers: (0..workers).map(|_| WorkerListeners::default()).collect(),
            addresses: Vec::new(),
            certificates: None,
            unix_path: None,
        };
        for wanted in listen {
            let resolved = resolve(wanted)?;
            let (mut left, mut served) = (resolved.len(), false);
            for address in resolved {
                left -= 1;
                let tcp_error = |source| ListenError::Tcp { address, source };
                match bind_group(address, workers, backlog) {
                    Ok((bound, group)) => {
                        served = true;
                        for (worker, socket) in listeners.workers.iter_mut().zip(group) {
                            let Listen { protection, dialect, .. } = *wanted;
                            worker.tcp.push(TcpEntrance { socket, protection, dialect });
                        }
                        listeners.addresses.push(ListeningAddress::Tcp(bound));
                    }
                    // A name or an interface may have addresses of a family that this machine does not
                    // have: IPv6 may be off. One of them must be there.
                    Err(error) if is_absent_family(&error) && (left > 0 || served) => {
                        tracing::debug!(%address, "not served: {error}");
                    }
                    Err(error) => return Err(tcp_error(error)),
                }
            }
        }
        Ok(listeners)
    }

    /// Binds the UDP addresses that `listen` asks for, once per worker: the kernel hands what comes from
    /// one client to one worker.
    ///
    /// # Errors
    ///
    /// When one of them cannot be resolved or bound.
    pub fn bind_udp(&mut self, listen: &[Listen]) -> Result<(), ListenError> {
        for wanted in listen {
            for address in resolve(wanted)? {
                // Where -U names the port that an address has in any case.
                if self.addresses.contains(&ListeningAddress::Udp(address)) {
                    continue;
                }
                match bind_udp_group(address, self.workers.len()) {
                    Ok((bound, group)) => {
                        for (worker, socket) in self.workers.iter_mut().zip(group) {
                            worker.udp.push(UdpEntrance { socket, dialect: wanted.dialect });
                        }
                        self.addresses.push(ListeningAddress::Udp(bound));
                    }
                    Err(error) if wanted.host.is_none() && is_absent_family(&error) => {
                        tracing::debug!(%address, "not served by UDP: {error}");
                    }
                    Err(source) => return Err(ListenError::Udp { address, source }),
                }
            }
        }
        Ok(())
    }

    /// Serves TCP addresses under TLS with `certificates`, those apart that are to be plain.
    #[must_use]
    pub fn under_tls(self, certificates: Option<Arc<Certificates>>) -> Self {
        Self { certificates, ..self }
    }

    /// Binds a UNIX socket, to be shared by all workers.
    ///
    /// A socket file left behind by a dead server is replaced; one that is served is not.
    ///
    /// # Errors
    ///
    /// When the path is served by somebody else, holds something other than a socket, or cannot be
    /// bound.
    pub fn bind_unix(&mut self, socket: &UnixSocket, backlog: u32) -> Result<(), ListenError> {
        let path = &socket.path;
        let unix_error = |source| ListenError::Unix { path: path.clone(), source };
        remove_stale_socket(path).map_err(unix_error)?;
        let listener = bind_unix_socket(socket, backlog).map_err(unix_error)?;
        for worker in &mut self.workers {
            worker.unix = Some(listener.try_clone().map_err(unix_error)?);
        }
        self.addresses.push(ListeningAddress::Unix(path.clone()));
        self.unix_path = Some(path.clone());
        Ok(())
    }

    /// Where clients can connect, ports resolved.
    pub fn addresses(&self) -> &[ListeningAddress] {
        &self.addresses
    }

    /// What they are made of.
    pub(crate) fn into_parts(self) -> ListenerParts {
        let Self { workers, addresses, certificates, unix_path } = self;
        ListenerParts { workers, addresses, certificates, unix_path }
    }
}

fn resolve(wanted: &Listen) -> Result<Vec<SocketAddr>, ListenError> {
    let Some(host) = &wanted.host else {
        return Ok(vec![([0; 4], wanted.port).into(), ([0_u16; 8], wanted.port).into()]);
    };
    let of_interface = of_interface(host, wanted.port);
    if !of_interface.is_empty() {
        return Ok(of_interface);
    }
    let resolved = (host.as_str(), wanted.port)
        .to_socket_addrs()
        .map_err(|source| ListenError::Resolve { host: host.clone(), source })?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in resolved {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// The addresses of the network interface of this name; none where no interface has it.
fn of_interface(name: &str, port: u16) -> Vec<SocketAddr> {
    let Ok(all) = getifaddrs() else { return Vec::new() };
    all.filter(|of| of.interface_name == name)
        .filter_map(|of| {
            let address = of.address?;
            let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), port)));
            // An address of the link alone says which link: its scope.
            v4.or_else(|| {
                let v6 = address.as_sockaddr_in6()?;
                Some(SocketAddrV6::new(v6.ip(), port, 0, v6.scope_id()).into())
            })
        })
        .collect()
}

fn is_absent_family(error: &io::Error) -> bool {
    use nix::libc::{EADDRNOTAVAIL, EAFNOSUPPORT};
    matches!(error.raw_os_error(), Some(EADDRNOTAVAIL | EAFNOSUPPORT))
}

/// Binds `address` and as many sockets beside it as there are workers.
fn bind_group(
    address: SocketAddr,
    workers: usize,
    backlog: u32,
) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let (bound, group) = bind_beside(address, workers, new_tcp_socket)?;
    for socket in &group {
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    }
    Ok((bound, group.into_iter().map(TcpListener::from).collect()))
}

/// Binds `address` for datagrams and as many sockets beside it as there are workers.
fn bind_udp_group(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<UdpSocket>)> {
    let (bound, group) = bind_beside(address, workers, new_udp_socket)?;
    Ok((bound, group.into_iter().map(UdpSocket::from).collect()))
}

/// A socket of each worker on one address, which the first of them finds free, and where they are.
fn bind_beside(
    address: SocketAddr,
    workers: usize,
    new_socket: fn(SocketAddr) -> io::Result<Socket>,
) -> io::Result<(SocketAddr, Vec<Socket>)> {
    let first = new_socket(address)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    let bound = first.local_addr()?.as_socket().unwrap_or(address);
    let mut group = Vec::with_capacity(workers);
    group.push(first);
    for _ in 1..workers {
        let socket = new_socket(bound)?;
        socket.set_reuse_port(true)?;
        socket.bind(&bound.into())?;
        group.push(socket);
    }
    Ok((bound, group))
}

fn new_udp_socket(address: SocketAddr) -> io::Result<Socket> {
    new_socket(address, Type::DGRAM, Protocol::UDP)
}

fn new_socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn new_tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = new_socket(address, Type::STREAM, Protocol::TCP)?;
    // A restart need not wait for the last server's connections to time out.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit both, which saves two system calls per client.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new())?;
    Ok(socket)
}

fn bind_unix_socket(socket: &UnixSocket, backlog: u32) -> io::Result<UnixListener> {
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    listener.set_nonblocking(true)?;
    // The mode is set before anybody can connect: the file is born closed, and opened after.
    let before = umask(Mode::from_bits_truncate(0o777));
    let bound = listener.bind(&socket2::SockAddr::unix(&socket.path)?);
    umask(before);
    bound?;
    std::fs::set_permissions(&socket.path, std::fs::Permissions::from_mode(socket.mode))?;
    listener.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(listener.into())
}

fn remove_stale_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => match UnixStream::connect(path) {
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            Err(_) => std::fs::remove_file(path),
        },
        // Binding fails on whatever else is there, with the right reason.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(listen: &[Listen]) -> Result<Listeners, ListenError> {
        Listeners::bind_tcp(listen, 3, 64)
    }

    fn only_address(listeners: &Listeners) -> SocketAddr {
        match listeners.addresses() {
            [ListeningAddress::Tcp(address)] => *address,
            other => panic!("one TCP address, not {other:?}"),
        }
    }

    #[test]
    fn every_worker_listens_on_the_one_port_that_zero_stands_for() {
        let listeners = bind(&[Listen::loopback(0)]).unwrap();
        let address = only_address(&listeners);
        assert_ne!(address.port(), 0);
        let workers = listeners.into_parts().workers;
        assert_eq!(workers.len(), 3);
        for worker in workers {
            assert_eq!(worker.tcp[0].socket.local_addr().unwrap(), address);
        }
    }

    #[test]
    fn an_interface_stands_for_its_addresses() {
        let listeners = bind(&[Listen::new(Some("lo".into()), 0)]).unwrap();
        let served = |address: &ListeningAddress| match address {
            ListeningAddress::Tcp(address) => address.ip().is_loopback(),
            ListeningAddress::Udp(_) | ListeningAddress::Unix(_) => false,
        };
        assert!(!listeners.addresses().is_empty());
        assert!(listeners.addresses().iter().all(served), "{:?}", listeners.addresses());
    }

    #[test]
    fn port_of_another_server_is_not_shared() {
        let first = bind(&[Listen::loopback(0)]).unwrap();
        let port = only_address(&first).port();
        let second = bind(&[Listen::loopback(port)]);
        let Err(ListenError::Tcp { source, .. }) = second else { panic!("bound twice") };
        assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(bind(&[Listen::loopback(port)]).is_ok());
    }

    #[test]
    fn udp_port_of_another_server_is_not_shared() {
        let mut first = bind(&[]).unwrap();
        first.bind_udp(&[Listen::loopback(0)]).unwrap();
        let [ListeningAddress::Udp(address)] = *first.addresses() else { panic!() };
        let mut second = bind(&[]).unwrap();
        let refusal = second.bind_udp(&[Listen::loopback(address.port())]).unwrap_err();
        assert!(matches!(refusal, ListenError::Udp { .. }), "{refusal}");
        assert_eq!(
            first.into_parts().workers.iter().map(|worker| worker.udp.len()).sum::<usize>(),
            3
        );
    }

    #[test]
    fn clients_are_spread_over_all_workers() {
        let listeners = bind(&[Listen::loopback(0)]).unwrap();
        let address = only_address(&listeners);
        let clients: Vec<_> =
            (0..48).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let workers = listeners.into_parts().workers;
        let accepted =
            workers.iter().map(|worker| std::iter::from_fn(|| worker.tcp[0].socket.accept().ok()));
        let accepted = accepted.map(Iterator::count);
        let accepted: Vec<usize> = accepted.collect();
        assert_eq!(accepted.iter().sum::<usize>(), clients.len());
        assert!(accepted.iter().all(|&count| count > 0), "{accepted:?}");
    }

    #[test]
    fn socket_file_of_a_dead_server_is_replaced_and_of_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixSocket { path: folder.path().join("cache.sock"), mode: 0o640 };
        let mut dead = bind(&[]).unwrap();
        dead.bind_unix(&socket, 16).unwrap();
        let mode = std::fs::metadata(&socket.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let mut second = bind(&[]).unwrap();
        assert!(second.bind_unix(&socket, 16).is_err(), "the first one still listens");
        drop(dead);
        assert!(socket.path.exists(), "a killed server leaves its socket");
        second.bind_unix(&socket, 16).unwrap();
    }
}
