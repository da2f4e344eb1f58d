//! The folder of a local cluster: whose it is, what stands where, and the list of nodes in it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use cluster::NodeId;
use serde::Serialize;

use super::{Plan, local};
use crate::cluster_dir::ClusterDir;

const LIST_FILE: &str = "cluster.json";
const LIST_FILE_ASIDE: &str = "cluster.json.tmp";
const LOCK_FILE: &str = "lock";
const NODE_DIR_PREFIX: &str = "node-";

/// In a node's folder: its cluster directory.
pub(super) const CLUSTER_DIR: &str = "cluster";
/// Its memory file.
pub(super) const CACHE_FILE: &str = "cache";
/// What it says.
pub(super) const LOG_FILE: &str = "log";
/// What it joins with, until it has.
pub(super) const TOKEN_FILE: &str = "token";

/// The folder, locked until it is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

/// A node in `cluster.json`.
#[derive(Debug, Serialize)]
pub(super) struct ListedNode {
    /// Its id in the cluster.
    pub(super) id: NodeId,
    /// Its process.
    pub(super) pid: u32,
    /// `host:port` for clients.
    pub(super) client: String,
    /// `host:port` for administration.
    pub(super) admin: String,
    /// `host:port` for other nodes.
    pub(super) peer: String,
    /// Where its log is.
    pub(super) log: PathBuf,
}

/// What stands in `cluster.json`.
#[derive(Serialize)]
struct List<'a> {
    nodes: &'a [ListedNode],
}

impl Folder {
    /// Takes `path` into use, which is made if it is not there: empty, or a local cluster's from before.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let cannot_use = || format!("cannot use {}", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(cannot_use)?;
        for entry in fs::read_dir(path).with_context(cannot_use)? {
            let name = entry.with_context(cannot_use)?.file_name();
            if !is_ours(&name.to_string_lossy()) {
                bail!(
                    "{} holds {name:?}, which is not of a local cluster: name an empty directory",
                    path.display()
                );
            }
        }
        let lock = lock(path).with_context(cannot_use)?;
        let folder = Self { path: path.to_owned(), _lock: lock };
        // A list from before names processes that are gone.
        folder.remove_list();
        Ok(folder)
    }

    /// Refuses to go on with nodes that `plan` leaves out, or looks for elsewhere.
    pub(super) fn check(&self, plan: &Plan) -> anyhow::Result<()> {
        let dir = self.path.display();
        let known = self.nodes_known(super::NODES_MAX)?;
        if known > plan.nodes {
            bail!("{dir} holds a cluster of {known} nodes: start all of them with --nodes {known}");
        }
        for index in 0..known {
            let Some(identity) = ClusterDir::peek(&self.cluster_dir(index))? else { continue };
            let wanted = local(plan.ports.peer(index)).to_string();
            if identity.addresses.peer != wanted {
                bail!(
                    "{dir} holds a cluster whose node {} is found at {}, and not at {wanted}: start it \
                     with the --base-port that it had",
                    index + 1,
                    identity.addresses.peer
                );
            }
        }
        Ok(())
    }

    /// How many of `nodes_max` nodes are in the cluster already.
    pub(super) fn nodes_known(&self, nodes_max: u16) -> anyhow::Result<u16> {
        let mut known = 0;
        for index in 0..nodes_max {
            if ClusterDir::peek(&self.cluster_dir(index))?.is_none() {
                continue;
            }
            if known != index {
                bail!(
                    "{} holds node {} and not node {}: name another directory",
                    self.path.display(),
                    index + 1,
                    known + 1
                );
            }
            known += 1;
        }
        Ok(known)
    }

    /// Where everything of the node `index` is.
    pub(super) fn node_dir(&self, index: u16) -> PathBuf {
        self.path.join(format!("{NODE_DIR_PREFIX}{}", index + 1))
    }

    fn cluster_dir(&self, index: u16) -> PathBuf {
        self.node_dir(index).join(CLUSTER_DIR)
    }

    /// Makes room for a node that is in no cluster yet. What an attempt before it left, that came to no
    /// node, goes.
    pub(super) fn prepare_node(&self, index: u16) -> anyhow::Result<()> {
        let dir = self.node_dir(index);
        let cannot_make = || format!("cannot make {}", dir.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).with_context(cannot_make)?;
        match fs::remove_dir_all(self.cluster_dir(index)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(cannot_make)
            }
            _ => Ok(()),
        }
    }

    /// Leaves the node `index` what it joins with.
    pub(super) fn write_token(&self, index: u16, token: &str) -> anyhow::Result<()> {
        let dir = self.node_dir(index);
        let path = dir.join(TOKEN_FILE);
        let write = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            writeln!(file, "{token}")
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// It has joined: the token is used up.
    pub(super) fn remove_token(&self, index: u16) {
        remove(&self.node_dir(index).join(TOKEN_FILE));
    }

    /// Lists `nodes`, in the place of the list before: whoever looks for it finds all of it.
    pub(super) fn list(&self, nodes: &[ListedNode]) -> anyhow::Result<()> {
        let path = self.path.join(LIST_FILE);
        let aside = self.path.join(LIST_FILE_ASIDE);
        let mut text = serde_json::to_vec_pretty(&List { nodes })?;
        text.push(b'\n');
        fs::write(&aside, text)
            .and_then(|()| fs::rename(&aside, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The nodes are going, or were gone before.
    pub(super) fn remove_list(&self) {
        remove(&self.path.join(LIST_FILE));
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
        _ => {}
    }
}

fn is_ours(name: &str) -> bool {
    let is_node = |number: &str| number.parse().is_ok_and(|number: u16| number > 0);
    [LIST_FILE, LIST_FILE_ASIDE, LOCK_FILE].contains(&name)
        || name.strip_prefix(NODE_DIR_PREFIX).is_some_and(is_node)
}

fn lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(path.join(LOCK_FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::other("another local cluster runs there")),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use cluster::ClusterId;
    use cluster::map::Addresses;
    use cluster::pool::Pool;

    use super::*;
    use crate::cluster_dir::Identity;
    use crate::config::ClusterStart;
    use crate::local_cluster::Ports;

    fn plan(dir: &Path, nodes: u16) -> Plan {
        Plan {
            nodes,
            pool: Pool::sessions(),
            shard_count: 64,
            dir: dir.to_owned(),
            ports: Ports::new(20_000).unwrap(),
            memory_mebibytes: 64.try_into().unwrap(),
            protect: None,
            threads: 1.try_into().unwrap(),
            memory_file: false,
            restart: false,
            wait_s: 1.try_into().unwrap(),
        }
    }

    /// Has the node `index` live in `folder`.
    fn settle(folder: &Folder, index: u16) {
        let start = ClusterStart::Init { pool: Pool::sessions(), shard_count: 64 };
        let addresses =
            Addresses { peer: format!("127.0.0.1:{}", 20_200 + index), ..Addresses::default() };
        let node = NodeId(u32::from(index) + 1);
        let identity = Identity { cluster: ClusterId(1), node, addresses, founding: None };
        let mut dir = ClusterDir::open(&folder.cluster_dir(index), &start).unwrap();
        dir.establish(identity).unwrap();
    }

    #[test]
    fn list_is_what_was_asked_for_and_goes_with_the_nodes() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(temporary.path()).unwrap();
        let address = |port: u16| format!("127.0.0.1:{port}");
        let node = ListedNode {
            id: NodeId(1),
            pid: 7,
            client: address(1),
            admin: address(2),
            peer: address(3),
            log: "/d/node-1/log".into(),
        };
        folder.list(&[node]).unwrap();
        let text = fs::read(temporary.path().join("cluster.json")).unwrap();
        let list: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            list,
            serde_json::json!({"nodes": [{
                "id": 1,
                "pid": 7,
                "client": "127.0.0.1:1",
                "admin": "127.0.0.1:2",
                "peer": "127.0.0.1:3",
                "log": "/d/node-1/log",
            }]})
        );
        drop(folder);
        Folder::open(temporary.path()).unwrap();
        assert!(!temporary.path().join("cluster.json").exists(), "those processes are gone");
    }

    #[test]
    fn somebody_elses_folder_is_left_alone() {
        for name in ["diary", "node-0", "node-", "node-x"] {
            let temporary = tempfile::tempdir().unwrap();
            fs::write(temporary.path().join(name), "dear").unwrap();
            let error = Folder::open(temporary.path()).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1, "{name}");
        }
    }

    #[test]
    fn two_clusters_cannot_share_a_folder() {
        let temporary = tempfile::tempdir().unwrap();
        let first = Folder::open(temporary.path()).unwrap();
        let error = format!("{:#}", Folder::open(temporary.path()).unwrap_err());
        assert!(error.contains("another local cluster runs there"), "{error}");
        drop(first);
        Folder::open(temporary.path()).unwrap();
    }

    #[test]
    fn cluster_from_before_is_gone_on_with_whole_and_where_it_was() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(temporary.path()).unwrap();
        assert_eq!(folder.nodes_known(3).unwrap(), 0);
        settle(&folder, 0);
        settle(&folder, 1);
        assert_eq!(folder.nodes_known(3).unwrap(), 2);
        folder.check(&plan(temporary.path(), 2)).unwrap();
        folder.check(&plan(temporary.path(), 3)).unwrap();
        let error = folder.check(&plan(temporary.path(), 1)).unwrap_err().to_string();
        assert!(error.contains("--nodes 2"), "{error}");
        let elsewhere = Plan { ports: Ports::new(30_000).unwrap(), ..plan(temporary.path(), 2) };
        let error = folder.check(&elsewhere).unwrap_err().to_string();
        assert!(error.contains("--base-port that it had"), "{error}");
        settle(&folder, 3);
        let error = folder.check(&plan(temporary.path(), 4)).unwrap_err().to_string();
        assert!(error.contains("holds node 4 and not node 3"), "{error}");
    }

    #[test]
    fn an_attempt_that_came_to_no_node_is_forgotten() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(temporary.path()).unwrap();
        folder.prepare_node(0).unwrap();
        fs::create_dir(folder.cluster_dir(0)).unwrap();
        fs::write(folder.cluster_dir(0).join("half"), "").unwrap();
        folder.write_token(0, "secret").unwrap();
        folder.prepare_node(0).unwrap();
        assert!(!folder.cluster_dir(0).exists());
        assert_eq!(fs::read_to_string(folder.node_dir(0).join("token")).unwrap(), "secret\n");
        folder.remove_token(0);
        assert_eq!(fs::read_dir(folder.node_dir(0)).unwrap().count(), 0);
    }
}
