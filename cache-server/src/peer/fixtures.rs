//! Nodes for tests: identities, certificates, and a place to run what belongs to one thread.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::{ClusterId, Incarnation, Member, NodeId};
use tempfile::TempDir;
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::clock::{Clock, Now};
use crate::peer::accept;
use crate::peer::certificates::{CertificateAuthority, ClusterFiles, LIFETIME, NodeKey};
use crate::peer::handshake::Identity;
use crate::peer::tls::{Security, Tls};

pub(super) const CLUSTER: ClusterId = ClusterId(0x00c0_ffee_0000_0001);

pub(super) fn now() -> Now {
    Clock::system().now()
}

pub(super) fn member(node: u32) -> Member {
    Member { node: NodeId(node), incarnation: Incarnation(u64::from(node) * 10) }
}

pub(super) fn identity(node: u32) -> Identity {
    Identity { cluster: CLUSTER, member: member(node) }
}

pub(super) fn plain() -> Arc<Security> {
    Arc::new(Security { tls: None, plaintext_anywhere: false })
}

/// A folder with the files of `node`, certified by `authority`.
pub(super) fn files_of(authority: &CertificateAuthority, node: u32) -> (TempDir, ClusterFiles) {
    let folder = tempfile::tempdir().unwrap();
    let files = ClusterFiles::new(folder.path());
    write_files(authority, node, &files, now(), LIFETIME);
    (folder, files)
}

/// A new key and certificate of `node` into `files`.
pub(super) fn write_files(
    authority: &CertificateAuthority,
    node: u32,
    files: &ClusterFiles,
    from: Now,
    lifetime: Duration,
) {
    let key = NodeKey::generate().unwrap();
    let pem = authority.issue(NodeId(node), &key.public_key(), from, lifetime).unwrap();
    files.save_node(authority.pem(), &pem, &key).unwrap();
}

pub(super) fn authority() -> CertificateAuthority {
    CertificateAuthority::found(CLUSTER, now()).unwrap()
}

/// How `node` protects its connections, with a certificate of `authority`.
pub(super) fn encrypted(authority: &CertificateAuthority, node: u32) -> Arc<Security> {
    let (_folder, files) = files_of(authority, node);
    let tls = Tls::load(files, now()).unwrap();
    Arc::new(Security { tls: Some(tls), plaintext_anywhere: false })
}

pub(super) fn listener() -> (std::net::TcpListener, SocketAddr) {
    let listener = accept::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Runs `test` as the control plane would, and not for ever.
pub(super) fn on_one_thread<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    local.block_on(&runtime, async { timeout(Duration::from_secs(20), test).await.unwrap() })
}
