//! `Transport`: bytes to and from a server, over TCP, TLS or a UNIX socket.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use protocol::response::Response;
use protocol::{ResponseDecoder, ResponseLimits, ResponseStep};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::address::{Address, Endpoint};
use crate::config::{ConnectionConfig, Credentials, Tls};
use crate::error::ConnectError;
use crate::resolve::{Lookup, Resolve};

/// An idle connection is probed after so long, so that one whose server is gone is noticed before it is needed.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    TlsUnix(Box<TlsStream<UnixStream>>),
}

impl Transport {
    /// Connects and says who the client is, within the time that there is for it. A name is resolved anew, and
    /// its addresses are tried in turn; `attempt` chooses the first. What was found of the name comes with it.
    pub(crate) async fn connect(
        address: &Address,
        config: &ConnectionConfig,
        resolver: &dyn Resolve,
        attempt: usize,
    ) -> Result<(Self, Option<Lookup>), ConnectError> {
        let connecting = async {
            let tls = config.tls.as_ref();
            let (mut transport, lookup) = Self::open(address, tls, resolver, attempt).await?;
            if let Some(credentials) = &config.credentials {
                transport.authenticate(credentials).await?;
            }
            Ok((transport, lookup))
        };
        let limit = config.connect_timeout;
        let connected = tokio::time::timeout(limit, connecting).await;
        connected.unwrap_or(Err(ConnectError::Timeout(limit)))
    }

    async fn open(
        address: &Address,
        tls: Option<&Tls>,
        resolver: &dyn Resolve,
        attempt: usize,
    ) -> Result<(Self, Option<Lookup>), ConnectError> {
        match address.endpoint() {
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await?;
                let Some(tls) = tls else { return Ok((Self::Unix(stream), None)) };
                let name = tls.server_name.as_deref().ok_or(ConnectError::ServerName)?;
                let connector = TlsConnector::from(Arc::clone(&tls.config));
                let stream = connector.connect(server_name(name)?, stream).await?;
                Ok((Self::TlsUnix(Box::new(stream)), None))
            }
            Endpoint::Tcp { host, port } => {
                let (stream, lookup) = connect_tcp(host, port, resolver, attempt).await?;
                let Some(tls) = tls else { return Ok((Self::Tcp(stream), lookup)) };
                let name = tls.server_name.as_deref().unwrap_or(host);
                let connector = TlsConnector::from(Arc::clone(&tls.config));
                let stream = connector.connect(server_name(name)?, stream).await?;
                Ok((Self::Tls(Box::new(stream)), lookup))
            }
        }
    }

    /// memcached's authentication over text: a `set` of user and password, before anything else.
    async fn authenticate(&mut self, credentials: &Credentials) -> Result<(), ConnectError> {
        let data = format!("{} {}", credentials.user, credentials.password);
        let request = format!("set auth 0 0 {}\r\n{data}\r\n", data.len());
        self.write_all(request.as_bytes()).await?;
        self.flush().await?;
        let mut decoder = ResponseDecoder::new(ResponseLimits::default());
        let mut input = Vec::new();
        loop {
            let failed = |message: &[u8]| {
                let message = String::from_utf8_lossy(message).into_owned();
                Err(ConnectError::Authentication(message.into()))
            };
            match decoder.decode(&input) {
                ResponseStep::Response { response: Response::Stored, consumed } => {
                    return if consumed == input.len() { Ok(()) } else { failed(b"more was said") };
                }
                ResponseStep::Response { response: Response::Error(error), .. } => {
                    return failed(error.message);
                }
                ResponseStep::Response { .. } | ResponseStep::Malformed(_) => {
                    return failed(b"the answer is none to it");
                }
                ResponseStep::More { .. } => {
                    if self.read_buf(&mut input).await? == 0 {
                        return failed(b"the server closed the connection");
                    }
                }
            }
        }
    }
}

async fn connect_tcp(
    host: &str,
    port: u16,
    resolver: &dyn Resolve,
    attempt: usize,
) -> Result<(TcpStream, Option<Lookup>), ConnectError> {
    let resolved = resolver.resolve(host, port).await?;
    let count = resolved.addresses.len();
    let mut failed = ConnectError::NoAddress;
    for turn in 0..count {
        let address = resolved.addresses[(attempt + turn) % count];
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER);
                SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                return Ok((stream, Lookup::of(host, port, address, &resolved)));
            }
            Err(error) => failed = error.into(),
        }
    }
    Err(failed)
}

fn server_name(name: &str) -> Result<ServerName<'static>, ConnectError> {
    ServerName::try_from(name.to_owned()).map_err(|_| ConnectError::ServerName)
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::TlsUnix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::TlsUnix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::TlsUnix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::TlsUnix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
