//! The cluster's own certificate authority, the nodes' certificates, and the files they are kept in.
//!
//! ```text
//! DIR/ca.pem        the cluster's CA certificates: what a node trusts (several while one takes over from another)
//! DIR/ca-key.pem    the key of the first of them; only where nodes are admitted; 0600
//! DIR/node.pem      this node's certificate
//! DIR/node-key.pem  its key, which never leaves the node; 0600
//! ```
//!
//! - A certificate names its node by URI: `cache-cluster://<cluster id>/node/<node id>` (RFC 3986; in the
//!   subject alternative name, RFC 5280 section 4.2.1.6). Host names and addresses play no part.
//! - Keys are Ed25519 (RFC 8410): any 32 bytes are a public key, so a joining node sends its own and needs
//!   no certificate request around it.
//! - Files are written aside and renamed: there is no moment at which one is half there.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster::{ClusterId, NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use webpki::EndEntityCert;

use crate::clock::Now;
use crate::peer::handshake::CertifiedNode;

/// How long certificates are good for. Nobody renews them by itself, so they outlive the machines.
pub const LIFETIME: Duration = Duration::from_hours(20 * 365 * 24);

/// Clocks of nodes differ: a certificate is good from this long before it was made.
const EARLIER: Duration = Duration::from_hours(24);

/// Why certificates cannot be made, read or kept.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// What should be a certificate or key is none.
    #[error("{what} cannot be understood")]
    Malformed {
        /// Which.
        what: String,
    },
    /// A key and a certificate that do not belong together.
    #[error("the key of {what} is not the one that its certificate is for")]
    OtherKey {
        /// Of whom.
        what: &'static str,
    },
    /// A certificate that the cluster's CA did not make, or that is no longer good.
    #[error("the node's certificate is not one of the cluster's: {0}")]
    NotOfTheCluster(String),
    /// A certificate of somebody else.
    #[error("the certificate is {found}'s, where {expected}'s was expected")]
    OtherNode {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(String),
    /// The operating system gives no random numbers.
    #[error("the operating system gives no random numbers")]
    Random,
}

impl CertifiedNode {
    /// Its name in a certificate.
    pub fn uri(&self) -> String {
        format!("{}/node/{}", cluster_uri(self.cluster), self.node)
    }

    /// The node of this name. A name is written in one way only.
    pub fn from_uri(uri: &str) -> Option<Self> {
        let (cluster, node) = uri.split_once("/node/")?;
        let named = Self { cluster: cluster_of_uri(cluster)?, node: NodeId(node.parse().ok()?) };
        (named.node.0 != 0 && named.uri() == uri).then_some(named)
    }

    /// The node that a certificate is for, whoever signed it; `None` unless it names exactly one.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        Self::from_uri(&only_uri(certificate)?)
    }
}

fn cluster_uri(cluster: ClusterId) -> String {
    format!("cache-cluster://{cluster}")
}

fn cluster_of_uri(uri: &str) -> Option<ClusterId> {
    let id = uri.strip_prefix("cache-cluster://")?;
    let cluster = ClusterId(u64::from_str_radix(id, 16).ok()?);
    (cluster_uri(cluster) == uri).then_some(cluster)
}

fn only_uri(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let mut uris = certificate.valid_uri_names();
    let uri = uris.next()?.to_owned();
    uris.next().is_none().then_some(uri)
}

/// What a join token says of the CA: the beginning of the SHA-256 of its certificate. 128 bits, which
/// nobody finds a second certificate for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// Of this certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&digest.as_ref()[..16]);
        Self(fingerprint)
    }
}

/// The public half of a [`NodeKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// A node's key.
pub struct NodeKey(KeyPair);

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey")
    }
}

impl NodeKey {
    /// A new one.
    ///
    /// # Errors
    ///
    /// When the operating system gives no random numbers.
    pub fn generate() -> Result<Self, CertificateError> {
        KeyPair::generate_for(&PKCS_ED25519).map(Self).map_err(make_error)
    }

    /// Its public half, for [`CertificateAuthority::issue`].
    pub fn public_key(&self) -> PublicKey {
        let mut public_key = [0; 32];
        public_key.copy_from_slice(self.0.public_key_raw());
        PublicKey(public_key)
    }
}

/// The cluster's CA, with the key that makes certificates.
pub struct CertificateAuthority {
    cluster: ClusterId,
    /// Of the CA itself.
    certificate: CertificateDer<'static>,
    /// All of `ca.pem`.
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// The CA of a cluster that is being founded.
    ///
    /// # Errors
    ///
    /// When the operating system gives no random numbers.
    pub fn found(cluster: ClusterId, now: Now) -> Result<Self, CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(make_error)?;
        let parameters = authority_parameters(cluster, now)?;
        let certificate = parameters.self_signed(&key).map_err(make_error)?;
        let pem = certificate.pem();
        let issuer = Issuer::new(parameters, key);
        Ok(Self { cluster, certificate: certificate.der().clone(), pem, issuer })
    }

    /// The CA whose files are in `files`; `None` where there is no key of it.
    ///
    /// # Errors
    ///
    /// When the files cannot be read or do not belong together.
    pub fn load(files: &ClusterFiles, now: Now) -> Result<Option<Self>, CertificateError> {
        let path = files.authority_key();
        let key = match fs::read_to_string(&path) {
            Ok(pem) => KeyPair::from_pem(&pem).map_err(|_| malformed(&path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CertificateError::Io { action: "read", path, source }),
        };
        let path = files.authority();
        let pem = read(&path)?;
        let certificate = certificates(&pem, &path)?.swap_remove(0);
        let cluster = only_uri(&certificate).as_deref().and_then(cluster_of_uri);
        let cluster = cluster.ok_or_else(|| malformed(&path))?;
        let parsed = EndEntityCert::try_from(&certificate).map_err(|_| malformed(&path))?;
        if *parsed.subject_public_key_info() != *key.subject_public_key_info() {
            return Err(CertificateError::OtherKey { what: "the cluster's CA" });
        }
        // Of the parameters an issuer needs the name alone, and that follows from the cluster.
        let issuer = Issuer::new(authority_parameters(cluster, now)?, key);
        Ok(Some(Self { cluster, certificate, pem, issuer }))
    }

    /// Keeps certificate and key in `files`.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn save(&self, files: &ClusterFiles) -> Result<(), CertificateError> {
        files.write(&files.authority_key(), &self.issuer.key().serialize_pem(), SECRET)?;
        files.write(&files.authority(), &self.pem, PUBLIC)
    }

    /// The certificate of `node`, good for `lifetime` from `now`, in PEM.
    ///
    /// # Errors
    ///
    /// When the operating system gives no random numbers.
    pub fn issue(
        &self,
        node: NodeId,
        public_key: &PublicKey,
        now: Now,
        lifetime: Duration,
    ) -> Result<String, CertificateError> {
        let named = CertifiedNode { cluster: self.cluster, node };
        let mut parameters = parameters(&named.to_string(), &named.uri(), now, lifetime)?;
        parameters.use_authority_key_identifier_extension = true;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Both ends of a connection show the same certificate.
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = parameters.signed_by(public_key, &self.issuer).map_err(make_error)?;
        Ok(certificate.pem())
    }

    /// Which cluster it is of.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What nodes trust: the whole of `ca.pem`.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// What join tokens say of it.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }
}

fn authority_parameters(
    cluster: ClusterId,
    now: Now,
) -> Result<CertificateParams, CertificateError> {
    let name = format!("cache cluster {cluster}");
    let mut parameters = parameters(&name, &cluster_uri(cluster), now, LIFETIME)?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(parameters)
}

fn parameters(
    name: &str,
    uri: &str,
    now: Now,
    lifetime: Duration,
) -> Result<CertificateParams, CertificateError> {
    let seconds = i64::try_from(now.unix_seconds()).ok();
    let made = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let made = made.ok_or_else(|| CertificateError::Make("the clock is far off".to_owned()))?;
    // 64 random bits, the first one 0: a serial number is positive and is never given twice.
    let mut serial = [0; 8];
    SystemRandom::new().fill(&mut serial).map_err(|_| CertificateError::Random)?;
    serial[0] &= 0x7f;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(make_error)?)];
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    parameters.not_before = made - EARLIER;
    parameters.not_after = made + lifetime;
    Ok(parameters)
}

/// Where the files are.
#[derive(Clone, Debug)]
pub struct ClusterFiles {
    folder: PathBuf,
}

/// Who may read a file.
type Mode = u32;

const PUBLIC: Mode = 0o644;
const SECRET: Mode = 0o600;

impl ClusterFiles {
    /// In this folder, which exists.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// `ca.pem`.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// `ca-key.pem`.
    pub fn authority_key(&self) -> PathBuf {
        self.folder.join("ca-key.pem")
    }

    /// `node.pem`.
    pub fn node(&self) -> PathBuf {
        self.folder.join("node.pem")
    }

    /// `node-key.pem`.
    pub fn node_key(&self) -> PathBuf {
        self.folder.join("node-key.pem")
    }

    /// Whether this node has a certificate: if not, its connections are not encrypted.
    pub fn has_node(&self) -> bool {
        self.node().exists()
    }

    /// Keeps a node's certificate and key, and the CA that it trusts.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn save_node(
        &self,
        authority_pem: &str,
        node_pem: &str,
        key: &NodeKey,
    ) -> Result<(), CertificateError> {
        self.write(&self.authority(), authority_pem, PUBLIC)?;
        self.write(&self.node_key(), &key.0.serialize_pem(), SECRET)?;
        // Last: a node that has this one has them all.
        self.write(&self.node(), node_pem, PUBLIC)
    }

    fn write(&self, path: &Path, text: &str, mode: Mode) -> Result<(), CertificateError> {
        write_aside(&self.folder, path, text, mode).map_err(|source| CertificateError::Io {
            action: "write",
            path: path.to_owned(),
            source,
        })
    }
}

fn write_aside(folder: &Path, path: &Path, text: &str, mode: Mode) -> io::Result<()> {
    let aside = path.with_extension("pem.tmp");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Born with its mode: a key is at no moment readable by others.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    fs::File::open(folder)?.sync_all()
}

pub(super) fn read(path: &Path) -> Result<String, CertificateError> {
    fs::read_to_string(path).map_err(|source| CertificateError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

/// The certificates in `pem`, which is what `path` holds: at least one.
pub(super) fn certificates(
    pem: &str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    certificates.ok().filter(|found| !found.is_empty()).ok_or_else(|| malformed(path))
}

pub(super) fn malformed(path: &Path) -> CertificateError {
    CertificateError::Malformed { what: path.display().to_string() }
}

fn make_error(error: impl fmt::Display) -> CertificateError {
    CertificateError::Make(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::clock::Clock;

    const CLUSTER: ClusterId = ClusterId(0x00c0_ffee_0000_0001);

    fn folder() -> (tempfile::TempDir, ClusterFiles) {
        let folder = tempfile::tempdir().unwrap();
        let files = ClusterFiles::new(folder.path());
        (folder, files)
    }

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_certificate_names_its_node_and_nothing_else() {
        let now = Clock::system().now();
        let authority = CertificateAuthority::found(CLUSTER, now).unwrap();
        let key = NodeKey::generate().unwrap();
        let pem = authority.issue(NodeId(7), &key.public_key(), now, LIFETIME).unwrap();
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let named = CertifiedNode::of(&certificate).unwrap();
        assert_eq!(named, CertifiedNode { cluster: CLUSTER, node: NodeId(7) });
        assert_eq!(named.uri(), "cache-cluster://00c0ffee00000001/node/7");
        assert_eq!(CertifiedNode::of(&authority.certificate), None, "the CA is no node");
    }

    #[test]
    fn a_name_is_written_in_one_way() {
        let good = "cache-cluster://00c0ffee00000001/node/7";
        assert!(CertifiedNode::from_uri(good).is_some());
        for other in [
            "cache-cluster://c0ffee00000001/node/7",
            "cache-cluster://00C0FFEE00000001/node/7",
            "cache-cluster://00c0ffee00000001/node/07",
            "cache-cluster://00c0ffee00000001/node/+7",
            "cache-cluster://00c0ffee00000001/node/0",
            "cache-cluster://00c0ffee00000001/node/7/",
            "cache-cluster://00c0ffee00000001",
            "https://00c0ffee00000001/node/7",
        ] {
            assert_eq!(CertifiedNode::from_uri(other), None, "{other}");
        }
    }

    #[test]
    fn keys_are_readable_by_their_owner_alone() {
        let (_folder, files) = folder();
        let now = Clock::system().now();
        let authority = CertificateAuthority::found(CLUSTER, now).unwrap();
        authority.save(&files).unwrap();
        let key = NodeKey::generate().unwrap();
        let pem = authority.issue(NodeId(1), &key.public_key(), now, LIFETIME).unwrap();
        files.save_node(authority.pem(), &pem, &key).unwrap();
        assert_eq!(mode_of(&files.authority_key()), 0o600);
        assert_eq!(mode_of(&files.node_key()), 0o600);
        assert!(files.has_node());
        let left = fs::read_dir(&files.folder).unwrap().count();
        assert_eq!(left, 4, "nothing written aside stays behind");
    }

    #[test]
    fn an_authority_read_back_is_the_same() {
        let (_folder, files) = folder();
        let now = Clock::system().now();
        assert!(CertificateAuthority::load(&files, now).unwrap().is_none());
        let authority = CertificateAuthority::found(CLUSTER, now).unwrap();
        authority.save(&files).unwrap();
        let read = CertificateAuthority::load(&files, now).unwrap().unwrap();
        assert_eq!(read.fingerprint(), authority.fingerprint());
        assert_eq!((read.cluster(), read.pem()), (CLUSTER, authority.pem()));
    }

    #[test]
    fn the_key_of_another_authority_is_refused() {
        let (_folder, files) = folder();
        let now = Clock::system().now();
        let authority = CertificateAuthority::found(CLUSTER, now).unwrap();
        authority.save(&files).unwrap();
        let other = CertificateAuthority::found(CLUSTER, now).unwrap();
        fs::write(files.authority_key(), other.issuer.key().serialize_pem()).unwrap();
        let error = CertificateAuthority::load(&files, now).unwrap_err();
        assert!(matches!(error, CertificateError::OtherKey { .. }), "{error}");
    }
}
