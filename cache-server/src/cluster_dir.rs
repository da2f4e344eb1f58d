//! `ClusterDir`: a node's identity on disk, so that it is the same node after a restart.
//!
//! ```text
//! DIR/node.json   who this node is: written aside, synced, renamed, and the folder synced
//! DIR/lock        locked for as long as a process uses the folder
//! DIR/...         what the cluster agreed on: the control plane's
//! ```
//!
//! - The identity is the folder's claim: a folder that holds anything else without one is not used.
//! - A node's id and cluster never change; its addresses may with every start.
//! - Each start draws an incarnation greater than all before, and begins nothing until that is on disk.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cluster::map::Addresses;
use cluster::pool::Pool;
use cluster::{ClusterId, Incarnation, NodeId};
use serde::{Deserialize, Serialize};

use crate::config::ClusterStart;

/// What [`NodeFile`] looks like in this build.
const FORMAT: u32 = 1;
const NODE_FILE: &str = "node.json";
const NODE_FILE_ASIDE: &str = "node.json.tmp";
const LOCK_FILE: &str = "lock";

/// Why a folder cannot be a node's. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterDirError {
    /// Another process has it.
    #[error("another process uses the cluster directory {}", dir.display())]
    Busy {
        /// The folder.
        dir: PathBuf,
    },
    /// A cluster is to be founded where a node is at home.
    #[error(
        "--init: {} belongs to node {node} of cluster {cluster} already; start without --init to go on \
         as that node",
        dir.display()
    )]
    FoundedBefore {
        /// The folder.
        dir: PathBuf,
        /// Its node.
        node: NodeId,
        /// Its node's cluster.
        cluster: ClusterId,
    },
    /// The node is one of another cluster.
    #[error(
        "{} belongs to node {node} of cluster {cluster}, and the seeds are of cluster {wanted}",
        dir.display()
    )]
    OtherCluster {
        /// The folder.
        dir: PathBuf,
        /// Its node.
        node: NodeId,
        /// Its node's cluster.
        cluster: ClusterId,
        /// The cluster that was to be joined.
        wanted: ClusterId,
    },
    /// There is nobody to go on as.
    #[error(
        "{} holds no node: found a cluster with --init, or join one with --join",
        dir.display()
    )]
    Nobody {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder holds something, and no identity that says whose it is.
    #[error(
        "{} holds {found:?} and no node: name an empty directory, or empty this one",
        dir.display()
    )]
    Foreign {
        /// The folder.
        dir: PathBuf,
        /// What is there, among others.
        found: String,
    },
    /// The identity is of another format.
    #[error("{} has format {found}, this build reads format {FORMAT}", file.display())]
    Format {
        /// The identity's file.
        file: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The identity cannot be understood.
    #[error("{} is no node's identity", file.display())]
    Malformed {
        /// The identity's file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The operating system refuses.
    #[error("cannot use the cluster directory {}", dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its cluster.
    #[serde(with = "cluster_id_hex")]
    pub cluster: ClusterId,
    /// Its id, for ever.
    pub node: NodeId,
    /// Where it was last found.
    pub addresses: Addresses,
    /// What it is about to found its cluster with; gone once that is done. A founder that was interrupted
    /// goes on with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founding: Option<Founding>,
}

/// What a cluster is founded with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// What it promises.
    pub pool: Pool,
    /// Into how many shards keys are cut.
    pub shard_count: u16,
}

/// What stands in `node.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NodeFile {
    format: u32,
    #[serde(flatten)]
    identity: Identity,
    /// The last life that began; 0 before the first.
    incarnation: u64,
}

/// Read before all else: what follows may look different in another format.
#[derive(Deserialize)]
struct NodeFileFormat {
    format: u32,
}

/// A node's folder, locked for this process until it is dropped.
#[derive(Debug)]
pub struct ClusterDir {
    dir: PathBuf,
    node: Option<NodeFile>,
    /// Holds the lock.
    _lock: File,
}

impl ClusterDir {
    /// Takes `dir` into use, which is made if it is not there, for a server that comes to its cluster by
    /// `start`.
    ///
    /// # Errors
    ///
    /// When another process has it, what it holds does not fit `start`, or it cannot be read or written.
    pub fn open(dir: &Path, start: &ClusterStart) -> Result<Self, ClusterDirError> {
        let io_error = |source| ClusterDirError::Io { dir: dir.to_owned(), source };
        // Without the right to make it this is told as what it is: nobody lives there.
        if *start == ClusterStart::Continue && !dir.join(NODE_FILE).exists() {
            return Err(ClusterDirError::Nobody { dir: dir.to_owned() });
        }
        // Keys and logs are this user's alone.
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error)?;
        let node = read(dir)?;
        if node.is_none() {
            refuse_foreign(dir)?;
        }
        let lock = lock(dir)?;
        // Read again: whoever had the lock may have written meanwhile.
        let node = read(dir)?;
        match (&node, start) {
            (Some(NodeFile { identity, .. }), ClusterStart::Init { .. }) => {
                Err(ClusterDirError::FoundedBefore {
                    dir: dir.to_owned(),
                    node: identity.node,
                    cluster: identity.cluster,
                })
            }
            (None, ClusterStart::Continue) => Err(ClusterDirError::Nobody { dir: dir.to_owned() }),
            _ => Ok(Self { dir: dir.to_owned(), node, _lock: lock }),
        }
    }

    /// Who lives in `dir`, without taking it into use.
    ///
    /// # Errors
    ///
    /// When there is an identity that cannot be read.
    pub fn peek(dir: &Path) -> Result<Option<Identity>, ClusterDirError> {
        Ok(read(dir)?.map(|node| node.identity))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Who lives here; nobody before the cluster was founded or joined.
    pub fn identity(&self) -> Option<&Identity> {
        self.node.as_ref().map(|node| &node.identity)
    }

    /// Refuses to go on where the node that lives here is of another cluster than `wanted`: the one that
    /// the seeds are of.
    ///
    /// # Errors
    ///
    /// When it is.
    pub fn check_cluster(&self, wanted: ClusterId) -> Result<(), ClusterDirError> {
        match self.identity() {
            Some(identity) if identity.cluster != wanted => Err(ClusterDirError::OtherCluster {
                dir: self.dir.clone(),
                node: identity.node,
                cluster: identity.cluster,
                wanted,
            }),
            _ => Ok(()),
        }
    }

    /// Has `identity` live here from now on: it is on disk when this returns. The first time it moves in;
    /// later its addresses may differ, and its founding be over.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn establish(&mut self, identity: Identity) -> Result<(), ClusterDirError> {
        let incarnation = match &self.node {
            Some(node) => {
                let same = (node.identity.cluster, node.identity.node);
                assert_eq!(same, (identity.cluster, identity.node), "a node stays who it is");
                node.incarnation
            }
            None => 0,
        };
        self.write(NodeFile { format: FORMAT, identity, incarnation })
    }

    /// Begins a life of the node that lives here: draws an incarnation, greater than all before, which is
    /// on disk when this returns. `unix_ns` is the time since the start of 1970, in nanoseconds; that it
    /// may jump back is why the last incarnation is kept.
    ///
    /// # Errors
    ///
    /// When nobody lives here, or it cannot be written.
    pub fn begin_life(&mut self, unix_ns: u64) -> Result<Incarnation, ClusterDirError> {
        let Some(node) = &self.node else {
            return Err(ClusterDirError::Nobody { dir: self.dir.clone() });
        };
        let incarnation = (node.incarnation + 1).max(unix_ns);
        self.write(NodeFile { incarnation, ..node.clone() })?;
        Ok(Incarnation(incarnation))
    }

    fn write(&mut self, node: NodeFile) -> Result<(), ClusterDirError> {
        replace(&self.dir, &node)
            .map_err(|source| ClusterDirError::Io { dir: self.dir.clone(), source })?;
        self.node = Some(node);
        Ok(())
    }
}

/// Puts `node` in the place of what was there: after a power cut there is the one or the other.
fn replace(dir: &Path, node: &NodeFile) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(node)?;
    text.push(b'\n');
    let aside = dir.join(NODE_FILE_ASIDE);
    let mut file = OpenOptions::new();
    let mut file = file.write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&aside, dir.join(NODE_FILE))?;
    File::open(dir)?.sync_all()
}

fn read(dir: &Path) -> Result<Option<NodeFile>, ClusterDirError> {
    let file = dir.join(NODE_FILE);
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ClusterDirError::Io { dir: dir.to_owned(), source }),
    };
    let malformed = |source| ClusterDirError::Malformed { file: file.clone(), source };
    let NodeFileFormat { format } = serde_json::from_slice(&text).map_err(malformed)?;
    if format != FORMAT {
        return Err(ClusterDirError::Format { file, found: format });
    }
    serde_json::from_slice(&text).map(Some).map_err(malformed)
}

fn lock(dir: &Path) -> Result<File, ClusterDirError> {
    let io_error = |source| ClusterDirError::Io { dir: dir.to_owned(), source };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(dir.join(LOCK_FILE)).map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ClusterDirError::Busy { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io_error(error)),
    }
}

/// Refuses a folder that holds what no identity accounts for: somebody else's files, or a control plane's
/// whose identity was lost.
fn refuse_foreign(dir: &Path) -> Result<(), ClusterDirError> {
    let io_error = |source| ClusterDirError::Io { dir: dir.to_owned(), source };
    for entry in fs::read_dir(dir).map_err(io_error)? {
        let name = entry.map_err(io_error)?.file_name();
        if name != LOCK_FILE && name != NODE_FILE_ASIDE {
            let found = name.to_string_lossy().into_owned();
            return Err(ClusterDirError::Foreign { dir: dir.to_owned(), found });
        }
    }
    Ok(())
}

/// A cluster's id as it is shown everywhere: a number of 64 bits is more than some readers of JSON keep.
mod cluster_id_hex {
    use cluster::ClusterId;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &ClusterId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ClusterId, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map(ClusterId).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use cluster::hash::SHARD_COUNT_DEFAULT;

    use super::*;
    use crate::config::{Endpoint, TokenSource};

    const ID: ClusterId = ClusterId(0xfeed);

    fn init() -> ClusterStart {
        ClusterStart::Init { pool: Pool::sessions(), shard_count: SHARD_COUNT_DEFAULT }
    }

    fn join() -> ClusterStart {
        let seeds = vec![Endpoint { host: "h".into(), port: 1 }];
        ClusterStart::Join { seeds, token: TokenSource::Given("t".into()) }
    }

    fn identity(node: u32) -> Identity {
        let addresses =
            Addresses { peer: "h:1".to_owned(), client: "h:2".to_owned(), admin: "h:3".to_owned() };
        Identity { cluster: ID, node: NodeId(node), addresses, founding: None }
    }

    /// A folder in which node 3 lives.
    fn inhabited() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        ClusterDir::open(folder.path(), &join()).unwrap().establish(identity(3)).unwrap();
        folder
    }

    /// Why `folder` cannot be used to `start`; nothing in it has changed.
    fn refusal(folder: &Path, start: &ClusterStart) -> ClusterDirError {
        let node_file = || fs::read(folder.join(NODE_FILE)).ok();
        let before = node_file();
        let error = ClusterDir::open(folder, start).unwrap_err();
        assert_eq!(node_file(), before);
        error
    }

    #[test]
    fn identity_is_there_after_a_restart() {
        let folder = inhabited();
        let dir = ClusterDir::open(folder.path(), &ClusterStart::Continue).unwrap();
        assert_eq!(dir.identity(), Some(&identity(3)));
        assert_eq!(ClusterDir::peek(folder.path()).unwrap(), Some(identity(3)));
    }

    #[test]
    fn an_unfinished_founding_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut dir = ClusterDir::open(folder.path(), &init()).unwrap();
        let founding = Some(Founding { pool: Pool::strict(), shard_count: 64 });
        dir.establish(Identity { founding: founding.clone(), ..identity(1) }).unwrap();
        drop(dir);
        let mut dir = ClusterDir::open(folder.path(), &ClusterStart::Continue).unwrap();
        assert_eq!(dir.identity().unwrap().founding, founding);
        dir.establish(identity(1)).unwrap();
        drop(dir);
        assert_eq!(ClusterDir::peek(folder.path()).unwrap(), Some(identity(1)));
    }

    #[test]
    fn incarnations_grow_even_when_the_clock_goes_back() {
        let folder = inhabited();
        for (unix_ns, expected) in [(100, 100), (90, 101), (101, 102), (u64::MAX / 2, u64::MAX / 2)]
        {
            let mut dir = ClusterDir::open(folder.path(), &join()).unwrap();
            assert_eq!(dir.begin_life(unix_ns).unwrap(), Incarnation(expected));
        }
    }

    #[test]
    fn nobody_has_no_lives() {
        let folder = tempfile::tempdir().unwrap();
        let mut dir = ClusterDir::open(folder.path(), &join()).unwrap();
        assert!(matches!(dir.begin_life(1), Err(ClusterDirError::Nobody { .. })));
    }

    #[test]
    fn two_processes_cannot_use_one_folder() {
        let folder = inhabited();
        let first = ClusterDir::open(folder.path(), &join()).unwrap();
        assert!(matches!(refusal(folder.path(), &join()), ClusterDirError::Busy { .. }));
        drop(first);
        ClusterDir::open(folder.path(), &join()).unwrap();
    }

    #[test]
    fn a_cluster_is_founded_once() {
        let folder = inhabited();
        let error = refusal(folder.path(), &init());
        assert!(matches!(error, ClusterDirError::FoundedBefore { .. }));
        assert!(error.to_string().contains("node 3 of cluster 000000000000feed"), "{error}");
    }

    #[test]
    fn a_node_joins_no_second_cluster() {
        let folder = inhabited();
        let dir = ClusterDir::open(folder.path(), &join()).unwrap();
        dir.check_cluster(ID).unwrap();
        let error = dir.check_cluster(ClusterId(1)).unwrap_err();
        assert!(error.to_string().contains("the seeds are of cluster 0000000000000001"), "{error}");
    }

    #[test]
    fn nobody_cannot_be_gone_on_as() {
        let folder = tempfile::tempdir().unwrap();
        let error = refusal(&folder.path().join("none"), &ClusterStart::Continue);
        assert!(matches!(error, ClusterDirError::Nobody { .. }));
        assert!(!folder.path().join("none").exists(), "nothing is left behind");
    }

    #[test]
    fn a_folder_of_somebody_elses_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("diary"), "dear").unwrap();
        for start in [init(), join()] {
            let error = refusal(folder.path(), &start);
            assert!(error.to_string().contains("\"diary\""), "{error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn another_format_and_nonsense_are_refused() {
        let folder = inhabited();
        let file = folder.path().join(NODE_FILE);
        fs::write(&file, r#"{"format": 2, "who": "knows"}"#).unwrap();
        let error = refusal(folder.path(), &join());
        assert!(error.to_string().contains("has format 2, this build reads format 1"), "{error}");
        for nonsense in ["", "{}", "{\"format\": 1}", "[1"] {
            fs::write(&file, nonsense).unwrap();
            let error = refusal(folder.path(), &ClusterStart::Continue);
            assert!(matches!(error, ClusterDirError::Malformed { .. }), "{nonsense}: {error}");
        }
    }

    #[test]
    fn a_write_cut_short_leaves_the_identity_before() {
        let folder = inhabited();
        fs::write(folder.path().join(NODE_FILE_ASIDE), "{\"form").unwrap();
        let mut dir = ClusterDir::open(folder.path(), &ClusterStart::Continue).unwrap();
        assert_eq!(dir.identity(), Some(&identity(3)));
        dir.begin_life(7).unwrap();
        assert!(!folder.path().join(NODE_FILE_ASIDE).exists());
    }
}
