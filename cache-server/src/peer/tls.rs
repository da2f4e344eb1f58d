//! TLS between nodes: both show certificates of the cluster's CA, and each knows which node the other is.
//!
//! - TLS 1.3 (RFC 8446) alone, without session resumption: every connection is checked against the
//!   certificates of the day, so what [`Tls::reload`] brings holds for all that begin after it.
//! - The name in a certificate is a node of a cluster, not a host; it is compared with what the handshake
//!   says (`handshake.rs`). rustls checks everything else.
//! - A process that joins has no certificate. It trusts whom its token's [`Fingerprint`] vouches for, and
//!   may then ask to join and nothing else.
//! - Plain connections are taken and made where both ends are on the loopback, or where the operator said so.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use cluster::ClusterId;
use parking_lot::RwLock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring as provider};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError as TlsCertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
    ServerConfig, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::clock::Now;
use crate::peer::certificates::{
    CertificateError, ClusterFiles, Fingerprint, certificates, malformed, read,
};
use crate::peer::handshake::{CertifiedNode, Proven};

/// The first byte of a TLS connection: a record of the handshake (RFC 8446 section 5.1). No plain one
/// begins with it.
pub const FIRST_BYTE: u8 = 22;

/// How connections between nodes are protected.
#[derive(Debug)]
pub struct Security {
    /// The node's certificates: it speaks TLS to all others. `None`: it speaks plainly.
    pub tls: Option<Tls>,
    /// Plain connections are taken from anywhere and made to anywhere (`--peer-plaintext`).
    pub plaintext_anywhere: bool,
}

impl Security {
    /// Whether a connection between these two addresses may be plain.
    pub fn allows_plaintext(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        // A node with certificates asks for them on the loopback too: other users' processes are there.
        let loopback = |address: SocketAddr| address.ip().to_canonical().is_loopback();
        let stays_inside = loopback(local) && loopback(remote);
        self.plaintext_anywhere || (self.tls.is_none() && stays_inside)
    }
}

/// A node's certificate and whom it trusts, as loaded last.
#[derive(Debug)]
pub struct Tls {
    files: ClusterFiles,
    loaded: RwLock<Arc<Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    named: CertifiedNode,
    stamps: [Stamp; 3],
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    fingerprint: Fingerprint,
}

/// What tells whether a file was replaced.
type Stamp = Option<(SystemTime, u64)>;

impl Tls {
    /// Loads the certificates in `files`.
    ///
    /// # Errors
    ///
    /// When one is missing, cannot be understood, or no other node would accept it.
    pub fn load(files: ClusterFiles, now: Now) -> Result<Self, CertificateError> {
        let loaded = Loaded::load(&files, now)?;
        Ok(Self { files, loaded: RwLock::new(Arc::new(loaded)) })
    }

    /// Loads them again if a file was replaced; says whether. Connections keep what they began with.
    ///
    /// # Errors
    ///
    /// As [`Tls::load`], and when the certificate is another node's. What was loaded before stays.
    pub fn reload(&self, now: Now) -> Result<bool, CertificateError> {
        let before = Arc::clone(&self.loaded.read());
        if stamps(&self.files) == before.stamps {
            return Ok(false);
        }
        let loaded = Loaded::load(&self.files, now)?;
        if loaded.named != before.named {
            return Err(CertificateError::OtherNode {
                found: loaded.named.to_string(),
                expected: before.named.to_string(),
            });
        }
        *self.loaded.write() = Arc::new(loaded);
        Ok(true)
    }

    /// Which node the certificate is for.
    pub fn named(&self) -> CertifiedNode {
        self.loaded.read().named
    }

    /// What join tokens say of the CA: of the first certificate in `ca.pem`.
    pub fn fingerprint(&self) -> Fingerprint {
        self.loaded.read().fingerprint
    }

    /// Encrypts a connection that another process made.
    ///
    /// # Errors
    ///
    /// When the other side's certificate is not the cluster's. It may have none.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<PeerStream> {
        let config = Arc::clone(&self.loaded.read().server);
        let stream = TlsAcceptor::from(config).accept(tcp).await?;
        Ok(PeerStream::Tls(Box::new(stream.into())))
    }

    /// Encrypts a connection to another node.
    ///
    /// # Errors
    ///
    /// When the other side's certificate is not the cluster's.
    pub async fn connect(&self, tcp: TcpStream) -> io::Result<PeerStream> {
        let config = Arc::clone(&self.loaded.read().client);
        connect(config, tcp).await
    }
}

/// Encrypts a connection from a process that has no certificate yet.
///
/// # Errors
///
/// When the other side's certificate is not of the CA that `fingerprint` is of.
pub async fn connect_to_join(fingerprint: Fingerprint, tcp: TcpStream) -> io::Result<PeerStream> {
    let config = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(Trust::Fingerprint(fingerprint))))
        .with_no_client_auth();
    connect(Arc::new(without_resumption(config)), tcp).await
}

async fn connect(config: Arc<ClientConfig>, tcp: TcpStream) -> io::Result<PeerStream> {
    // rustls wants a name. It is neither sent nor compared.
    let name = ServerName::IpAddress(tcp.peer_addr()?.ip().into());
    let stream = TlsConnector::from(config).connect(name, tcp).await?;
    Ok(PeerStream::Tls(Box::new(stream.into())))
}

fn without_resumption(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config
}

impl Loaded {
    fn load(files: &ClusterFiles, now: Now) -> Result<Self, CertificateError> {
        // Before the files: one that is replaced meanwhile is loaded next time.
        let stamps = stamps(files);
        let path = files.authority();
        let authorities = certificates(&read(&path)?, &path)?;
        let path = files.node();
        let mut chain = certificates(&read(&path)?, &path)?;
        let named = CertifiedNode::of(&chain[0]).ok_or_else(|| malformed(&path))?;
        let path = files.node_key();
        let key = PrivateKeyDer::from_pem_slice(read(&path)?.as_bytes());
        let key = key.map_err(|_| malformed(&path))?;

        let refused = |error: rustls::Error| CertificateError::NotOfTheCluster(error.to_string());
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots.add(authority.clone()).map_err(refused)?;
        }
        let roots = Arc::new(roots);
        let verifier = Verifier::new(Trust::Authorities(Arc::clone(&roots)));
        let at = UnixTime::since_unix_epoch(Duration::from_millis(now.unix_ms));
        verifier.verify(&chain[0], &chain[1..], at).map_err(refused)?;

        // Sent along: whoever joins knows the CA by its fingerprint only.
        chain.extend(authorities.iter().cloned());
        let server = server_config(Arc::clone(&roots), chain.clone(), key.clone_key());
        let client = client_config(verifier, chain, key);
        let other_key = |error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::OtherKey { what: "the node" },
            error => refused(error),
        };
        Ok(Self {
            named,
            stamps,
            server: Arc::new(server.map_err(other_key)?),
            client: Arc::new(client.map_err(other_key)?),
            fingerprint: Fingerprint::of(&authorities[0]),
        })
    }
}

fn server_config(
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let provider: Arc<CryptoProvider> = Arc::new(provider::default_provider());
    // Whoever joins has none yet; the handshake asks everybody else for theirs.
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_config(
    verifier: Verifier,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain, key)?;
    Ok(without_resumption(config))
}

fn stamps(files: &ClusterFiles) -> [Stamp; 3] {
    let stamp = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    [stamp(&files.authority()), stamp(&files.node()), stamp(&files.node_key())]
}

/// Checks the certificate of the node that was connected to, its name apart.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Whose certificates are believed.
#[derive(Debug)]
enum Trust {
    /// Those that one of these made.
    Authorities(Arc<RootCertStore>),
    /// Those that a CA of this fingerprint made, which is sent along with them.
    Fingerprint(Fingerprint),
}

impl Verifier {
    fn new(trust: Trust) -> Self {
        let algorithms = provider::default_provider().signature_verification_algorithms;
        Self { trust, algorithms }
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let verify = |roots: &RootCertStore| {
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, chain, now, algorithms)
        };
        match &self.trust {
            Trust::Authorities(roots) => verify(roots),
            Trust::Fingerprint(fingerprint) => {
                let vouched = |sent: &&CertificateDer<'_>| Fingerprint::of(sent) == *fingerprint;
                let authority =
                    chain.iter().find(vouched).ok_or(TlsCertificateError::UnknownIssuer)?;
                let mut roots = RootCertStore::empty();
                roots.add(authority.clone().into_owned())?;
                verify(&roots)
            }
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now)?;
        // A host's name says nothing here; the node's is compared when it says who it is.
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A connection between nodes, plain or encrypted.
#[derive(Debug)]
pub enum PeerStream {
    /// Plain: any thread may try to write to it.
    Plain(TcpStream),
    /// Encrypted: one task reads and writes.
    Tls(Box<TlsStream<TcpStream>>),
}

impl PeerStream {
    /// The connection underneath.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// What the other side has proven to be; `None` on a plain connection.
    pub fn proven(&self) -> Option<Proven> {
        let Self::Tls(stream) = self else { return None };
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        Some(shown.and_then(CertifiedNode::of).map_or(Proven::Nobody, Proven::Node))
    }

    /// Which cluster the other side has proven to be of.
    pub fn proven_cluster(&self) -> Option<ClusterId> {
        match self.proven() {
            Some(Proven::Node(CertifiedNode { cluster, .. })) => Some(cluster),
            Some(Proven::Nobody) | None => None,
        }
    }

    /// Hands the socket over to the runtime that this is called on, whose thread is woken from now on.
    ///
    /// # Errors
    ///
    /// When the socket cannot be registered; the stream is as it was.
    pub fn move_to_this_runtime(&mut self) -> io::Result<()> {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => stream.get_mut().0,
        };
        // A second descriptor of the same socket; the first one is closed when it is replaced.
        let socket = std::net::TcpStream::from(tcp.as_fd().try_clone_to_owned()?);
        *tcp = TcpStream::from_std(socket)?;
        Ok(())
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
