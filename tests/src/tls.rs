//! TLS for tests: an authority, certificates of its in a folder, and clients that speak it.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use cache_server::config::TlsConfig;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::client::Resumption;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;

use crate::connection::{ANSWER_LIMIT, Connection, prepared};

/// The name that a server's certificate is for.
const SERVER_NAME: &str = "localhost";

/// Both versions, the newer one first.
pub const EITHER: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Who makes certificates, and a folder in which they are.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, both in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Authority {
    /// A new one, with a certificate for a server in its folder.
    ///
    /// # Panics
    /// When files cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for certificates");
        let mut params = CertificateParams::new(Vec::new()).expect("no name is wrong");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let key = KeyPair::generate().expect("a key can be made");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a key signs");
        let authority = Self { folder, issuer };
        authority.write("ca.pem", &authority.issuer.pem());
        authority.install(&authority.identity(SERVER_NAME));
        authority
    }

    /// A new certificate for `name`.
    ///
    /// # Panics
    /// When `name` is none.
    #[must_use]
    pub fn identity(&self, name: &str) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name of a host");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("an authority signs");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Puts `identity` where the server looks.
    pub fn install(&self, identity: &Identity) {
        self.write("chain.pem", &identity.certificate);
        self.write("key.pem", &identity.key);
    }

    /// Writes a file into the folder.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the folder can be written to");
    }

    /// The path of a file in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a server is asked to be that shows the certificate in the folder.
    #[must_use]
    pub fn server(&self) -> TlsConfig {
        TlsConfig {
            chain: Some(self.path("chain.pem")),
            key: Some(self.path("key.pem")),
            ..TlsConfig::default()
        }
    }

    /// The same as options of `-o`, with `-Z` before them.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let path = |name| self.path(name).display().to_string();
        let chain = format!("ssl_chain_cert={}", path("chain.pem"));
        let key = format!("ssl_key={}", path("key.pem"));
        ["-Z", "-o", &chain, "-o", &key].map(str::to_owned).to_vec()
    }

    /// A client that trusts this authority, speaks `versions` and has no certificate.
    #[must_use]
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> Client {
        self.client_as(versions, None)
    }

    /// A client that shows `identity`.
    ///
    /// # Panics
    /// When that is none.
    #[must_use]
    pub fn client_as(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Identity>,
    ) -> Client {
        let mut roots = RootCertStore::empty();
        let own = self.issuer.der().clone();
        roots.add(own).expect("an authority's certificate");
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(ring)
            .with_protocol_versions(versions)
            .expect("versions that there are")
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::from_pem_slice(identity.certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
                let chain = vec![chain.expect("a certificate")];
                builder.with_client_auth_cert(chain, key.expect("a key")).expect("they are a pair")
            }
        };
        Client { config: Arc::new(config) }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// What clients have in common: versions, certificate, and sessions to resume.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
}

/// A connection under TLS.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl Client {
    /// Versions, certificate and trust, for whoever connects by other means.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// The same, remembering no session.
    #[must_use]
    pub fn forgetful(self) -> Self {
        let mut config = (*self.config).clone();
        config.resumption = Resumption::disabled();
        Self { config: Arc::new(config) }
    }

    /// Connects, without a handshake so far.
    ///
    /// # Errors
    /// When nobody listens there.
    ///
    /// # Panics
    /// When the configuration is wrong.
    pub fn begin(&self, address: SocketAddr) -> io::Result<TlsStream> {
        let tcp = prepared(TcpStream::connect(address)?, ANSWER_LIMIT)?;
        let name = ServerName::try_from(SERVER_NAME).expect("a name of a host");
        let tls =
            ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        Ok(StreamOwned::new(tls, tcp))
    }

    /// Connects and shakes hands.
    ///
    /// # Errors
    /// When nobody listens there, or one side does not want the other.
    pub fn connect(&self, address: SocketAddr) -> io::Result<TlsStream> {
        let mut stream = self.begin(address)?;
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    /// A connection to talk over.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn open(&self, address: SocketAddr) -> io::Result<Connection> {
        Ok(Connection::of(Box::new(self.connect(address)?), ANSWER_LIMIT))
    }
}
