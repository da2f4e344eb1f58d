//! The server's certificates for clients: loaded, shown to whoever connects, loaded again.
//!
//! ```text
//! chain, key, CA  ──load──> Certificates ──server_config──> each connection that is accepted
//!                               ^
//!     refresh_certs, SIGHUP, a file that changed (Watch)
//! ```
//!
//! - A connection keeps what it began with; what is loaded later holds for those that begin after it.
//! - What cannot be used is refused whole, with its reason, and what was loaded before stays.
//! - Before what is shown runs out the log says so: 30 days, 7 days and one day before, and then.
//! - Sessions can be resumed only where a client was asked for the same proof: each kind of address
//!   has a key for tickets of its own, and every load makes new ones. A ticket holds all there is to a
//!   session (RFC 5077), so the server remembers none.
//!
//! Between nodes of a cluster other certificates count; see [`crate::peer::tls`].

mod ciphers;
mod expiry;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use std::{fmt, io};

use parking_lot::RwLock;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring as provider};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio::sync::watch;

use self::expiry::{Notice, Notices};
use crate::clock::Now;
use crate::config::{KeyFormat, Protection, TlsConfig, TlsVersion, VerifyMode};

/// How often files are looked at, to see whether they changed.
const LOOK_INTERVAL_MS: u64 = 1_000;

/// Why certificates cannot be used. Begins with memcached's words, which are the answer to
/// `refresh_certs`.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// `refresh_certs` without `-Z`.
    #[error("Error TLS not enabled")]
    NotEnabled,
    /// No chain was named.
    #[error("Error loading the certificate chain: none is named, see -o ssl_chain_cert=FILE")]
    NoChain,
    /// The chain cannot be used.
    #[error("Error loading the certificate chain: {} : {reason}", path.display())]
    Chain {
        /// Its file.
        path: PathBuf,
        /// Why not.
        reason: Unusable,
    },
    /// The key cannot be used.
    #[error("Error loading the key: {} : {reason}", path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why not.
        reason: Unusable,
    },
    /// Clients' authorities cannot be used.
    #[error("Error loading the CA certificate: {} : {reason}", path.display())]
    Authorities {
        /// Their file.
        path: PathBuf,
        /// Why not.
        reason: Unusable,
    },
    /// None of the cipher suites asked for is known.
    #[error("Error setting the provided cipher(s): {list}: none is known here")]
    Ciphers {
        /// What was asked for.
        list: String,
    },
    /// rustls refuses what all of it comes to.
    #[error("Error setting up TLS: {0}")]
    Setup(rustls::Error),
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("{0}")]
    Unread(#[from] io::Error),
    /// What it should hold is not in it.
    #[error("holds no {what}")]
    Absent {
        /// What it should hold.
        what: &'static str,
    },
    /// What it holds cannot be understood or is not supported.
    #[error("{0}")]
    Refused(rustls::Error),
    /// The key is not the certificate's.
    #[error("the key is not that of the certificate")]
    OtherKey,
}

impl From<rustls::Error> for Unusable {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(_) => Self::OtherKey,
            error => Self::Refused(error),
        }
    }
}

/// What the server shows to clients, as loaded last.
pub struct Certificates {
    /// As it was asked for.
    config: TlsConfig,
    /// The same with paths from the root: the background changes the working directory.
    files: TlsConfig,
    loaded: RwLock<Loaded>,
    refreshed_unix_s: AtomicU64,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("config", &self.config).finish_non_exhaustive()
    }
}

/// One state of the files.
struct Loaded {
    stamps: Stamps,
    /// When the first certificate of the chain runs out that does, where that can be read.
    expiry_unix_s: Option<u64>,
    usual: Arc<ServerConfig>,
    basic: Arc<ServerConfig>,
    mutual: Arc<ServerConfig>,
}

/// What tells whether a file was replaced.
type Stamp = Option<(SystemTime, u64, u64)>;

/// Those of the chain, the key and the authorities.
type Stamps = [Stamp; 3];

impl Certificates {
    /// Loads what `config` names, from the working directory as it is now.
    ///
    /// # Errors
    ///
    /// When a file is missing or holds what cannot be used.
    pub fn load(config: TlsConfig, now: Now) -> Result<Self, TlsError> {
        let absolute = |path: &Option<PathBuf>| {
            path.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        };
        let files = TlsConfig {
            chain: absolute(&config.chain),
            key: absolute(&config.key),
            authorities: absolute(&config.authorities),
            ..config.clone()
        };
        let loaded = RwLock::new(Loaded::load(&files)?);
        let refreshed_unix_s = AtomicU64::new(now.unix_seconds());
        Ok(Self { config, files, loaded, refreshed_unix_s })
    }

    /// Says in the log what was asked for and is done otherwise.
    pub fn announce(&self) {
        let config = &self.config;
        let spoken = config.version_min.spoken();
        if config.version_min != spoken {
            tracing::warn!(
                "ssl_min_version: {} is not spoken; the oldest is {spoken}",
                config.version_min
            );
        }
        if config.kernel_tls {
            tracing::warn!("ssl_kernel_tls: does nothing here, the server encrypts by itself");
        }
        if let Some(list) = &config.ciphers {
            for name in ciphers::unknown_names(list) {
                tracing::warn!("ssl_ciphers: {name} is not known here and is left out");
            }
        }
        if config.verify != VerifyMode::None && config.authorities.is_none() {
            tracing::warn!(
                "ssl_verify_mode without ssl_ca_cert: no client's certificate is accepted"
            );
        }
    }

    /// What was asked for.
    pub fn config(&self) -> &TlsConfig {
        &self.config
    }

    /// What a connection to an address protected as `protection` begins with; `None`: it is plain.
    pub fn server_config(&self, protection: Protection) -> Option<Arc<ServerConfig>> {
        let loaded = self.loaded.read();
        match protection {
            Protection::Plain => None,
            Protection::Usual => Some(Arc::clone(&loaded.usual)),
            Protection::Basic => Some(Arc::clone(&loaded.basic)),
            Protection::Mutual => Some(Arc::clone(&loaded.mutual)),
        }
    }

    /// Loads everything again, changed or not.
    ///
    /// # Errors
    ///
    /// As [`Certificates::load`]. What was loaded before stays.
    pub fn refresh(&self, now: Now) -> Result<(), TlsError> {
        let loaded = Loaded::load(&self.files)?;
        *self.loaded.write() = loaded;
        self.refreshed_unix_s.store(now.unix_seconds(), Ordering::Relaxed);
        Ok(())
    }

    /// Whole seconds since they were loaded last.
    pub fn seconds_since_refresh(&self, now: Now) -> u64 {
        now.unix_seconds().saturating_sub(self.refreshed_unix_s.load(Ordering::Relaxed))
    }
}

impl Loaded {
    fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        // Before the files: one that is replaced meanwhile is loaded next time.
        let stamps = stamps(config);
        let ring = provider(config)?;
        let key = Arc::new(certified_key(config, &ring)?);
        let roots = config.authorities.as_deref().map(authorities).transpose()?.map(Arc::new);
        let with =
            |verify| server_config(config, &ring, &key, client_verifier(verify, &roots, &ring)?);
        Ok(Self {
            stamps,
            expiry_unix_s: key.cert.iter().filter_map(|it| expiry::expiry_unix_s(it)).min(),
            usual: with(config.verify)?,
            basic: with(VerifyMode::None)?,
            mutual: with(VerifyMode::Require)?,
        })
    }
}

/// rustls's cryptography with the cipher suites asked for. As in memcached the list is of TLS 1.2;
/// those of TLS 1.3 are always there.
fn provider(config: &TlsConfig) -> Result<Arc<CryptoProvider>, TlsError> {
    let mut ring = provider::default_provider();
    if let Some(list) = &config.ciphers {
        ring.cipher_suites = ciphers::chosen(list, &ring.cipher_suites)
            .ok_or_else(|| TlsError::Ciphers { list: list.clone() })?;
    }
    Ok(Arc::new(ring))
}

fn certified_key(config: &TlsConfig, ring: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let path = config.chain.as_ref().ok_or(TlsError::NoChain)?;
    let chain =
        certificates(path).map_err(|reason| TlsError::Chain { path: path.clone(), reason })?;
    // memcached's help has it that the key may be a part of the chain's file.
    let path = config.key.as_ref().unwrap_or(path);
    let key_error = |reason| TlsError::Key { path: path.clone(), reason };
    let key = private_key(path, config.key_format).map_err(key_error)?;
    CertifiedKey::from_der(chain, key, ring).map_err(|error| key_error(error.into()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let pem = std::fs::read(path)?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) | Err(_) => Err(Unusable::Absent { what: "certificate in PEM" }),
    }
}

fn private_key(path: &Path, format: KeyFormat) -> Result<PrivateKeyDer<'static>, Unusable> {
    let bytes = std::fs::read(path)?;
    match format {
        KeyFormat::Pem => PrivateKeyDer::from_pem_slice(&bytes)
            .map_err(|_| Unusable::Absent { what: "private key in PEM" }),
        KeyFormat::Der => PrivateKeyDer::try_from(bytes)
            .map_err(|_| Unusable::Absent { what: "private key in DER" }),
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let unusable = |reason| TlsError::Authorities { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for authority in certificates(path).map_err(unusable)? {
        roots.add(authority).map_err(|error| unusable(error.into()))?;
    }
    Ok(roots)
}

/// Who checks clients' certificates; `None`: they are not asked for any.
fn client_verifier(
    verify: VerifyMode,
    roots: &Option<Arc<RootCertStore>>,
    ring: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let is_mandatory = match verify {
        VerifyMode::None => return Ok(None),
        VerifyMode::Request => false,
        VerifyMode::Require | VerifyMode::Once => true,
    };
    let Some(roots) = roots else {
        let algorithms = ring.signature_verification_algorithms;
        return Ok(Some(Arc::new(TrustsNobody { is_mandatory, algorithms })));
    };
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(ring));
    let builder = if is_mandatory { builder } else { builder.allow_unauthenticated() };
    let refused = |error: rustls::server::VerifierBuilderError| {
        TlsError::Setup(rustls::Error::General(error.to_string()))
    };
    builder.build().map(Some).map_err(refused)
}

fn server_config(
    config: &TlsConfig,
    ring: &Arc<CryptoProvider>,
    key: &Arc<CertifiedKey>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let versions: &[&SupportedProtocolVersion] = match config.version_min.spoken() {
        TlsVersion::V1_3 => &[&TLS13],
        TlsVersion::V1_0 | TlsVersion::V1_1 | TlsVersion::V1_2 => &[&TLS13, &TLS12],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(ring))
        .with_protocol_versions(versions)
        .map_err(TlsError::Setup)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let resolver = SingleCertAndKey::from(Arc::clone(key));
    let mut server = builder.with_cert_resolver(Arc::new(resolver));
    server.session_storage = Arc::new(NoServerSessionStorage {});
    if config.resumes_sessions {
        server.ticketer = provider::Ticketer::new().map_err(TlsError::Setup)?;
    } else {
        server.send_tls13_tickets = 0;
    }
    Ok(Arc::new(server))
}

/// Asks for certificates and accepts none, for there is no authority: what memcached does where
/// clients must have a certificate and `ssl_ca_cert` is not given.
#[derive(Debug)]
struct TrustsNobody {
    is_mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for TrustsNobody {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signature, &self.algorithms)
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

fn stamps(config: &TlsConfig) -> Stamps {
    let stamp = |path: &Option<PathBuf>| {
        let metadata = std::fs::metadata(path.as_ref()?).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    };
    [stamp(&config.chain), stamp(&config.key), stamp(&config.authorities)]
}

/// Loads certificates again when it is asked for or their files change.
///
/// Files are replaced one after the other. So they are loaded only once they have stayed the same from
/// one look to the next, and what was found wrong with them is said once.
#[derive(Debug)]
pub struct Watch {
    certificates: Arc<Certificates>,
    orders: watch::Receiver<u64>,
    /// As they were at the last look.
    seen: Stamps,
    /// As they were when they were loaded last, in vain or not.
    tried: Stamps,
    looked_unix_ms: u64,
    notices: Notices,
}

impl Watch {
    /// Watches over `certificates`, and loads them whenever `orders` changes.
    pub fn new(certificates: Arc<Certificates>, orders: watch::Receiver<u64>) -> Self {
        let stamps = certificates.loaded.read().stamps;
        let (looked_unix_ms, notices) = (0, Notices::default());
        Self { certificates, orders, seen: stamps, tried: stamps, looked_unix_ms, notices }
    }

    /// To be called several times a second.
    pub fn round(&mut self, now: Now) {
        if self.orders.has_changed().unwrap_or(false) {
            self.orders.mark_unchanged();
            self.refresh(now, "SIGHUP");
        }
        if now.unix_ms.abs_diff(self.looked_unix_ms) >= LOOK_INTERVAL_MS {
            self.looked_unix_ms = now.unix_ms;
            self.look(now);
            self.tell_expiry(now);
        }
    }

    fn look(&mut self, now: Now) {
        let before = self.seen;
        self.seen = stamps(&self.certificates.files);
        // By the command they may have been loaded without this having been told.
        let loaded = self.certificates.loaded.read().stamps;
        // What cannot be looked at, perhaps since root's rights were given up, has not changed.
        let is_whole =
            self.seen.iter().zip(&loaded).all(|(now, then)| now.is_some() == then.is_some());
        let is_new = self.seen != self.tried && self.seen != loaded;
        if self.seen == before && is_new && is_whole {
            self.refresh(now, "files changed");
        }
    }

    /// Says in the log that what is shown to clients runs out soon, or has.
    fn tell_expiry(&mut self, now: Now) {
        let Some(expiry_unix_s) = self.certificates.loaded.read().expiry_unix_s else { return };
        match self.notices.due(expiry_unix_s, now.unix_seconds()) {
            None => {}
            Some(Notice::Within { days: 1 }) => {
                tracing::warn!("the certificate that clients are shown expires within a day");
            }
            Some(Notice::Within { days }) => {
                tracing::warn!("the certificate that clients are shown expires within {days} days");
            }
            Some(Notice::Expired) => {
                tracing::error!("the certificate that clients are shown has expired");
            }
        }
    }

    fn refresh(&mut self, now: Now, why: &str) {
        self.tried = stamps(&self.certificates.files);
        match self.certificates.refresh(now) {
            Ok(()) => tracing::info!("{why}: new connections get the certificates as they are now"),
            Err(error) => {
                tracing::error!("{why}: the certificates stay as they were: {error}");
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::AtomicU32;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    const NOW: Now = Now { unix_ms: 5_000_000 };

    /// An authority with a folder in which it puts what it makes.
    pub(crate) struct Office {
        pub(crate) folder: tempfile::TempDir,
        issuer: CertifiedIssuer<'static, KeyPair>,
        made: AtomicU32,
    }

    impl Office {
        pub(crate) fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, "an authority");
            let key = KeyPair::generate().unwrap();
            let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
            let office = Self { folder, issuer, made: AtomicU32::new(0) };
            office.write("ca.pem", &office.issuer.pem());
            office.issue("localhost");
            office
        }

        /// Makes a certificate for `name` and puts it and its key where the server looks.
        pub(crate) fn issue(&self, name: &str) {
            let (chain, key) = self.certificate(name);
            self.write("chain.pem", &chain);
            self.write("key.pem", &key);
        }

        /// A certificate for `name` and its key, both in PEM.
        pub(crate) fn certificate(&self, name: &str) -> (String, String) {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            let number = self.made.fetch_add(1, Ordering::Relaxed);
            params.distinguished_name.push(DnType::CommonName, format!("{name} {number}"));
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.issuer).unwrap();
            (certificate.pem(), key.serialize_pem())
        }

        pub(crate) fn write(&self, file: &str, text: &str) {
            std::fs::write(self.path(file), text).unwrap();
        }

        pub(crate) fn path(&self, file: &str) -> PathBuf {
            self.folder.path().join(file)
        }

        pub(crate) fn config(&self) -> TlsConfig {
            TlsConfig {
                chain: Some(self.path("chain.pem")),
                key: Some(self.path("key.pem")),
                ..TlsConfig::default()
            }
        }

        pub(crate) fn roots(&self) -> RootCertStore {
            authorities(&self.path("ca.pem")).unwrap()
        }
    }

    fn shown(certificates: &Certificates) -> Arc<ServerConfig> {
        certificates.server_config(Protection::Usual).unwrap()
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_file_and_the_reason() {
        let office = Office::new();
        let refusal = |config: TlsConfig| Certificates::load(config, NOW).unwrap_err().to_string();
        let good = office.config();
        assert!(refusal(TlsConfig { chain: None, ..good.clone() }).contains("none is named"));
        let missing = refusal(TlsConfig { chain: Some("/nowhere".into()), ..good.clone() });
        assert!(
            missing.starts_with("Error loading the certificate chain: /nowhere : "),
            "{missing}"
        );
        let no_key = refusal(TlsConfig { key: good.chain.clone(), ..good.clone() });
        assert!(no_key.contains("holds no private key in PEM"), "{no_key}");
        let der = refusal(TlsConfig { key_format: KeyFormat::Der, ..good.clone() });
        assert!(der.contains("holds no private key in DER"), "{der}");
        office.write("other.pem", &office.certificate("other").1);
        let other = refusal(TlsConfig { key: Some(office.path("other.pem")), ..good.clone() });
        assert!(other.ends_with("the key is not that of the certificate"), "{other}");
        let authorities = refusal(TlsConfig { authorities: good.key.clone(), ..good.clone() });
        assert!(authorities.starts_with("Error loading the CA certificate: "), "{authorities}");
        let ciphers = refusal(TlsConfig { ciphers: Some("RC4-MD5".into()), ..good });
        assert!(ciphers.starts_with("Error setting the provided cipher(s): RC4-MD5"), "{ciphers}");
    }

    #[test]
    fn the_key_may_stand_in_the_chains_file() {
        let office = Office::new();
        let (chain, key) = office.certificate("localhost");
        office.write("both.pem", &format!("{chain}{key}"));
        let both = TlsConfig { chain: Some(office.path("both.pem")), key: None, ..office.config() };
        assert!(Certificates::load(both, NOW).is_ok());
    }

    #[test]
    fn bad_certificate_is_refused_and_the_old_one_stays() {
        let office = Office::new();
        let certificates = Certificates::load(office.config(), NOW).unwrap();
        let before = shown(&certificates);
        office.write("chain.pem", "not a certificate");
        let later = Now { unix_ms: NOW.unix_ms + 7_000 };
        assert!(certificates.refresh(later).is_err());
        assert!(Arc::ptr_eq(&before, &shown(&certificates)));
        assert_eq!(certificates.seconds_since_refresh(later), 7);
        office.issue("localhost");
        certificates.refresh(later).unwrap();
        assert!(!Arc::ptr_eq(&before, &shown(&certificates)));
        assert_eq!(certificates.seconds_since_refresh(later), 0);
    }

    #[test]
    fn the_end_of_what_is_shown_is_known() {
        let certificates = Certificates::load(Office::new().config(), NOW).unwrap();
        // What the office gives out is good until the year 4096.
        assert_eq!(certificates.loaded.read().expiry_unix_s, Some(67_090_118_400));
    }

    #[test]
    fn changed_files_are_loaded_once_they_stay_the_same() {
        let office = Office::new();
        let certificates = Arc::new(Certificates::load(office.config(), NOW).unwrap());
        let (orders, receiver) = watch::channel(0);
        let mut watch = Watch::new(Arc::clone(&certificates), receiver);
        let mut now = NOW;
        let mut look = |watch: &mut Watch| {
            now.unix_ms += LOOK_INTERVAL_MS;
            watch.round(now);
            shown(&certificates)
        };
        let before = look(&mut watch);
        let (chain, key) = office.certificate("localhost");
        office.write("chain.pem", &chain);
        assert!(Arc::ptr_eq(&before, &look(&mut watch)), "half of the pair is there");
        office.write("key.pem", &key);
        assert!(Arc::ptr_eq(&before, &look(&mut watch)), "it may change further");
        let after = look(&mut watch);
        assert!(!Arc::ptr_eq(&before, &after));
        assert!(Arc::ptr_eq(&after, &look(&mut watch)), "nothing changed");
        orders.send_modify(|count| *count += 1);
        assert!(!Arc::ptr_eq(&after, &look(&mut watch)), "SIGHUP loads in any case");
    }

    #[test]
    fn addresses_differ_in_what_they_ask_of_clients() {
        let office = Office::new();
        let certificates = Certificates::load(office.config(), NOW).unwrap();
        assert!(certificates.server_config(Protection::Plain).is_none());
        let [usual, basic, mutual] = [Protection::Usual, Protection::Basic, Protection::Mutual]
            .map(|protection| certificates.server_config(protection).unwrap());
        assert!(!Arc::ptr_eq(&usual, &basic) && !Arc::ptr_eq(&basic, &mutual));
    }
}
