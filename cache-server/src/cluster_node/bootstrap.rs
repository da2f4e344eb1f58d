//! How a process becomes a node of its cluster: by founding it, by joining it, or by coming back.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::map::{Addresses, ClusterMap, Command, NewNode, Outcome, Standing};
use cluster::{ClusterId, Member, NodeId, ShardId, Version};
use store::positions::{Found, Positions, PositionsError, PositionsOwner};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::{NodeParts, seeds};
use crate::cluster_dir::{self, ClusterDir, ClusterDirError, Founding};
use crate::config::{ClusterConfig, ClusterStart, Listen};
use crate::control_plane::{
    Called, ControlPlane, RaftControlPlane, Settings, Storage, Transport, TransportError,
    Unavailable, Writing,
};
use crate::peer::accept;
use crate::peer::certificates::{CertificateAuthority, CertificateError, ClusterFiles, NodeKey};
use crate::peer::connection::PeerConnection;
use crate::peer::counters::PeerCounters;
use crate::peer::handshake::{Identity, Reason, Refused};
use crate::peer::links::{CallError, Handler, LinkEvent, Links, LinksConfig, Reply, Roster};
use crate::peer::tls::{Security, Tls};
use crate::replication::Replication;
use crate::replication::replicas::Replicas;
use crate::signal::{Orders, StopReason};

/// How long a node tries to become part of its cluster.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node's certificate is good for: ten years. To end it earlier, remove the node.
pub(super) const NODE_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
/// Connections of other nodes that are not taken yet.
const HANDED_ON_MAX: usize = 256;

/// Why a node did not start. Nothing has changed then, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The cluster directory cannot be used.
    #[error(transparent)]
    Dir(#[from] ClusterDirError),
    /// An address cannot be served.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Certificates cannot be made, read or written.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The control plane's file cannot be used.
    #[error(transparent)]
    Storage(#[from] crate::control_plane::OpenError),
    /// The control plane cannot start.
    #[error(transparent)]
    ControlPlane(#[from] crate::control_plane::StartError),
    /// The control plane did not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// No seed let this node in.
    #[error("no seed let this node in: {0}")]
    NotAdmitted(String),
    /// The cluster has removed this node.
    #[error("{0}: start with an empty --cluster-dir to join again")]
    Removed(String),
    /// The cluster refuses this node.
    #[error("the cluster refuses this node: {0}")]
    Refused(String),
    /// The cluster did not tell this node its map.
    #[error("no word of the cluster's map within {} s", START_TIMEOUT.as_secs())]
    NoMap,
    /// The positions file cannot be used.
    #[error(transparent)]
    Positions(#[from] PositionsError),
    /// More store shards than cluster shards.
    #[error(
        "{store_shards} store shards, for {shard_count} cluster shards: ask for fewer threads with -t"
    )]
    TooManyStoreShards {
        /// Store shards.
        store_shards: u32,
        /// Cluster shards.
        shard_count: u16,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// It was told to stop before it had started.
    #[error("told to stop: {0}")]
    Stopped(StopReason),
    /// The control thread met a bug.
    #[error("the control thread met a bug, please report it")]
    Crashed,
}

/// A node that is part of its cluster, before it serves.
pub(super) struct Bootstrapped {
    pub(super) member: Member,
    pub(super) cluster: ClusterId,
    pub(super) links: Links,
    pub(super) control_plane: Arc<RaftControlPlane>,
    pub(super) replication: Arc<Replication>,
    pub(super) inbox: mpsc::UnboundedReceiver<Heard>,
    pub(super) handed_on: mpsc::Receiver<PeerConnection>,
    pub(super) admin: std::net::TcpListener,
    pub(super) security: Arc<Security>,
    pub(super) authority: Option<Rc<CertificateAuthority>>,
    pub(super) peer_counters: Arc<PeerCounters>,
    pub(super) _dir: ClusterDir,
}

/// What control connections bring.
pub(super) enum Heard {
    /// A message of a peer.
    Message(Member, Bytes),
    /// A link's fate.
    Link(LinkEvent),
}

/// Hands what links bring on.
struct Ears {
    inbox: mpsc::UnboundedSender<Heard>,
    /// What a peer said that knows that this node was removed.
    removed: watch::Sender<Option<String>>,
    control_plane: Rc<std::cell::OnceCell<Arc<RaftControlPlane>>>,
}

impl Handler for Ears {
    fn on_message(&self, from: Member, payload: Bytes) {
        // Nobody listens any more: the node stops.
        let _ = self.inbox.send(Heard::Message(from, payload));
    }

    fn on_call(&self, _: Member, payload: Bytes) -> Reply {
        let control_plane = self.control_plane.get().cloned();
        Box::pin(async move {
            let answer = match control_plane {
                Some(control_plane) => control_plane.handle(&payload).await,
                None => None,
            };
            answer.map(Bytes::from).unwrap_or_default()
        })
    }

    fn on_link(&self, event: LinkEvent) {
        if let LinkEvent::Refused(_, Refused { reason: Reason::RemovedNode, text }) = &event {
            self.removed.send_replace(Some(text.clone()));
        }
        let _ = self.inbox.send(Heard::Link(event));
    }
}

/// A call for the control thread to make.
type Call = (NodeId, Vec<u8>, oneshot::Sender<Result<Bytes, CallError>>);

/// Carries the control plane's calls to the control connections, which stay on their thread.
struct CallsByChannel(mpsc::UnboundedSender<Call>);

/// How long a call may take if its caller does not give up before.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

impl Transport for CallsByChannel {
    fn call(&self, to: NodeId, request: Vec<u8>) -> Called<'_> {
        Box::pin(async move {
            let unreachable = |reason: String| TransportError::Unreachable { to, reason };
            let (reply, replied) = oneshot::channel();
            self.0.send((to, request, reply)).map_err(|_| unreachable("this node stops".into()))?;
            match replied.await {
                // An empty reply is how a node says that it does not take part yet.
                Ok(Ok(answer)) if answer.is_empty() => Err(unreachable("not ready".into())),
                Ok(Ok(answer)) => Ok(answer.into()),
                Ok(Err(error)) => Err(unreachable(error.to_string())),
                Err(_) => Err(unreachable("this node stops".into())),
            }
        })
    }
}

/// Becomes a node of the cluster, and announces a new life.
pub(super) async fn bootstrap(parts: &NodeParts) -> Result<Bootstrapped, StartError> {
    let (config, orders) = (&parts.config, &parts.orders);
    let peer = bind_peer(&config.peer_listen)?;
    let admin = bind_admin(&config.admin_listen)?;
    let address_of = |listener: &std::net::TcpListener, listen: &Listen| {
        listener
            .local_addr()
            .map_err(|source| StartError::Listen { address: shown(listen), source })
    };
    let peer_address = address_of(&peer, &config.peer_listen)?;
    let admin_address = address_of(&admin, &config.admin_listen)?;
    let addresses = config.addresses(parts.client_address, peer_address, admin_address);

    let mut dir = ClusterDir::open(&config.dir, &config.start)?;
    let files = ClusterFiles::new(dir.path());
    let plain = config.peer_plaintext || peer_address.ip().is_loopback();
    let mut is_new = false;
    let identity = match (dir.identity(), &config.start) {
        (Some(identity), ClusterStart::Join { seeds, token }) => {
            let others = seeds.iter().map(ToString::to_string);
            let others = others.filter(|seed| *seed != addresses.peer).collect();
            let found = seeds::cluster_of(others, token, config.peer_plaintext || plain);
            match unless_stopped(orders, async { Ok(found.await) }).await? {
                Some(cluster) => dir.check_cluster(cluster)?,
                None => tracing::info!(
                    node = %identity.node, cluster = %identity.cluster,
                    "--join: no seed says which cluster it is of; going on as the node that lives here"
                ),
            }
            identity.clone()
        }
        (Some(identity), _) => identity.clone(),
        (None, ClusterStart::Init { pool, shard_count }) => {
            is_new = true;
            let cluster = ClusterId(fresh_id());
            let node = NodeId(1);
            if !plain {
                let authority = CertificateAuthority::found(cluster, parts.clock.now())?;
                authority.save(&files)?;
                let key = NodeKey::generate()?;
                let now = parts.clock.now();
                let pem = authority.issue(node, &key.public_key(), now, NODE_LIFETIME)?;
                files.save_node(authority.pem(), &pem, &key)?;
            }
            let founding = Some(Founding { pool: pool.clone(), shard_count: *shard_count });
            cluster_dir::Identity { cluster, node, addresses: addresses.clone(), founding }
        }
        (None, ClusterStart::Join { seeds, token }) => {
            is_new = true;
            let seeds = seeds.iter().map(ToString::to_string).collect();
            let token = token.read().map_err(|error| StartError::NotAdmitted(error.to_string()))?;
            let new = new_node(config, &addresses);
            let joined = seeds::join(seeds, &token, new, &files, config.peer_plaintext || plain);
            let (cluster, node) = unless_stopped(orders, joined).await?;
            let addresses = addresses.clone();
            cluster_dir::Identity { cluster, node, addresses, founding: None }
        }
        (None, ClusterStart::Continue) => {
            return Err(ClusterDirError::Nobody { dir: config.dir.clone() }.into());
        }
    };
    let identity = cluster_dir::Identity { addresses: addresses.clone(), ..identity };
    let raft_path = dir.path().join("raft.redb");
    let raft_identity =
        crate::control_plane::Identity { cluster: identity.cluster, node: identity.node };
    let mut created = None;
    if is_new {
        // Left by a start that got no further.
        match std::fs::remove_file(&raft_path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(ClusterDirError::Io { dir: config.dir.clone(), source }.into());
            }
            _ => {}
        }
        created = Some(Storage::create(&raft_path, raft_identity, Writing::Thread)?);
    }
    dir.establish(identity.clone())?;
    let unix_ns = parts.clock.now().unix_ms.saturating_mul(1_000_000);
    let incarnation = dir.begin_life(unix_ns)?;
    let member = Member { node: identity.node, incarnation };
    let cluster = identity.cluster;

    let tls =
        if files.has_node() { Some(Tls::load(files.clone(), parts.clock.now())?) } else { None };
    let security = Arc::new(Security { tls, plaintext_anywhere: config.peer_plaintext });
    let authority = CertificateAuthority::load(&files, parts.clock.now())?.map(Rc::new);
    let peer_counters = Arc::new(PeerCounters::default());

    let (inbox_sender, inbox) = mpsc::unbounded_channel();
    let (handed_on_sender, handed_on) = mpsc::channel(HANDED_ON_MAX);
    let control_plane_cell = Rc::new(std::cell::OnceCell::new());
    let (removed, mut is_removed) = watch::channel(None);
    let ears = Ears { inbox: inbox_sender, removed, control_plane: Rc::clone(&control_plane_cell) };
    let links = Links::start(
        LinksConfig {
            identity: Identity { cluster, member },
            security: Arc::clone(&security),
            counters: Arc::clone(&peer_counters),
            seed: fresh_id(),
        },
        peer,
        Rc::new(ears),
        handed_on_sender,
    )
    .map_err(StartError::Thread)?;

    let (calls, mut calls_to_make) = mpsc::unbounded_channel::<Call>();
    let caller = links.clone();
    tokio::task::spawn_local(async move {
        while let Some((to, request, reply)) = calls_to_make.recv().await {
            let links = caller.clone();
            tokio::task::spawn_local(async move {
                let mut reply = reply;
                tokio::select! {
                    answer = links.call(to, request.into(), CALL_TIMEOUT) => drop(reply.send(answer)),
                    () = reply.closed() => {}
                }
            });
        }
    });

    // A node whose log is lost has forgotten what it promised: it must not come back under its id.
    let storage = match created {
        Some(storage) => storage,
        None => Storage::open(&raft_path, raft_identity, Writing::Thread)?,
    };
    let control_plane =
        RaftControlPlane::start(storage, Arc::new(CallsByChannel(calls)), Settings::default())
            .await?;
    let control_plane = Arc::new(control_plane);
    let _ = control_plane_cell.set(Arc::clone(&control_plane));

    if let Some(founding) = &identity.founding
        && member.node == NodeId(1)
    {
        let found = found(&control_plane, cluster, founding, config, &addresses);
        unless_stopped(orders, found).await?;
    } else if is_new {
        // The seed that let this node in has the leader tell it everything.
        links.set_roster(Roster::default());
    }
    // A node that was removed while it was away has a map that does not say so, and nobody talks to it.
    let map = tokio::select! {
        map = unless_stopped(orders, first_map(&links, &control_plane, member)) => map?,
        refusal = until_removed(&mut is_removed) => return Err(refusal),
    };
    let pool = map.pool.clone();
    let shard_count = map.shard_count();
    let store_shards = parts.shards.geometry().shard_count;
    if store_shards > u32::from(shard_count) {
        return Err(StartError::TooManyStoreShards { store_shards, shard_count });
    }

    let (positions, recovered) = open_positions(parts, cluster, shard_count, incarnation.0)?;
    let told = tell_life(&control_plane, member, &addresses, &recovered);
    tokio::select! {
        told = unless_stopped(orders, told) => told?,
        refusal = until_removed(&mut is_removed) => return Err(refusal),
    }

    let lanes = u16::try_from(parts.workers.clamp(1, 4)).unwrap_or(1);
    let replication = Arc::new(Replication::new(member, shard_count, &pool, lanes, positions));
    let position_of = |shard: ShardId| recovered.get(&shard).copied().unwrap_or(Version::ZERO);
    parts.shards.join_cluster(&replication, |store_shard| {
        Replicas::new(store_shard, store_shards, shard_count, member, pool.ack, position_of)
    });
    tracing::info!(%cluster, node = %member.node, "part of the cluster");
    Ok(Bootstrapped {
        member,
        cluster,
        links,
        control_plane,
        replication,
        inbox,
        handed_on,
        admin,
        security,
        authority,
        peer_counters,
        _dir: dir,
    })
}

pub(super) fn fresh_id() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library seeds these from the operating system's randomness.
    RandomState::new().hash_one(std::process::id())
}

fn shown(listen: &Listen) -> String {
    format!("{}:{}", listen.host.as_deref().unwrap_or("*"), listen.port)
}

fn resolve(listen: &Listen) -> io::Result<SocketAddr> {
    let host = listen.host.as_deref().unwrap_or("0.0.0.0");
    let mut addresses = (host, listen.port).to_socket_addrs()?;
    addresses.next().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn bind_peer(listen: &Listen) -> Result<std::net::TcpListener, StartError> {
    resolve(listen)
        .and_then(accept::bind)
        .map_err(|source| StartError::Listen { address: shown(listen), source })
}

fn bind_admin(listen: &Listen) -> Result<std::net::TcpListener, StartError> {
    let bound = resolve(listen).and_then(|address| Ok((accept::bind(address)?, address)));
    let (listener, address) =
        bound.map_err(|source| StartError::Listen { address: shown(listen), source })?;
    if !address.ip().is_loopback() {
        tracing::warn!(
            "administration at {address} asks for no password and is not encrypted: let nobody else reach it"
        );
    }
    Ok(listener)
}

/// Makes this node the first of a new cluster, unless it is that already.
async fn found(
    control_plane: &RaftControlPlane,
    cluster: ClusterId,
    founding: &Founding,
    config: &ClusterConfig,
    addresses: &Addresses,
) -> Result<(), StartError> {
    match control_plane.found().await {
        Ok(()) | Err(crate::control_plane::StartError::Founded) => {}
        Err(error) => return Err(error.into()),
    }
    if control_plane.watch().borrow().is_founded() || control_plane.voters().len() > 1 {
        return Ok(());
    }
    let command = Command::Found {
        cluster,
        pool: founding.pool.clone(),
        shard_count: founding.shard_count,
        node: new_node(config, addresses),
    };
    match control_plane.propose(command, START_TIMEOUT).await? {
        Outcome::Refused(cluster::map::Refusal::Founded { .. }) => Ok(()),
        Outcome::Refused(refusal) => Err(StartError::Refused(refusal.to_string())),
        _ => Ok(()),
    }
}

/// This node as the map is to have it.
pub(super) fn new_node(config: &ClusterConfig, addresses: &Addresses) -> NewNode {
    NewNode {
        addresses: addresses.clone(),
        zone: config.zone.clone(),
        weight: config.weight,
        role: config.role,
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// What `step` of the start comes to, unless the process is told to stop before.
async fn unless_stopped<T>(
    orders: &Orders,
    step: impl Future<Output = Result<T, StartError>>,
) -> Result<T, StartError> {
    tokio::select! {
        done = step => done,
        reason = orders.stopped() => Err(StartError::Stopped(reason)),
    }
}

/// Waits for a map that knows this node.
async fn first_map(
    links: &Links,
    control_plane: &RaftControlPlane,
    member: Member,
) -> Result<Arc<ClusterMap>, StartError> {
    let mut maps = control_plane.watch();
    let wait = async {
        loop {
            let map = maps.borrow_and_update().clone();
            links.set_roster(roster(&map));
            match map.nodes.get(&member.node) {
                Some(node) if node.standing == Standing::Removed => {
                    return Err(StartError::Removed(format!("node {} was removed", member.node)));
                }
                Some(_) if map.is_founded() => return Ok(map),
                _ => {}
            }
            if maps.changed().await.is_err() {
                return Err(StartError::NoMap);
            }
        }
    };
    timeout(START_TIMEOUT, wait).await.unwrap_or(Err(StartError::NoMap))
}

/// Waits until a peer says that this node was removed.
async fn until_removed(said: &mut watch::Receiver<Option<String>>) -> StartError {
    match said.wait_for(Option::is_some).await {
        Ok(text) => StartError::Removed(text.clone().unwrap_or_default()),
        // The links have ended, and with them whoever could say so.
        Err(_) => std::future::pending().await,
    }
}

/// Which nodes to connect to.
pub(super) fn roster(map: &ClusterMap) -> Roster {
    let mut roster = Roster::default();
    for (&id, node) in &map.nodes {
        if node.standing == Standing::Removed {
            roster.removed.insert(id);
        } else {
            roster.peers.insert(id, node.addresses.peer.clone());
        }
    }
    roster
}

/// Announces this life of the node.
async fn tell_life(
    control_plane: &RaftControlPlane,
    member: Member,
    addresses: &Addresses,
    recovered: &BTreeMap<ShardId, Version>,
) -> Result<(), StartError> {
    let begun = Instant::now();
    loop {
        let command = Command::NodeUp {
            node: member.node,
            incarnation: member.incarnation,
            addresses: addresses.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            recovered: recovered.clone(),
        };
        match control_plane.propose(command, Duration::from_secs(5)).await {
            Ok(Outcome::Refused(refusal)) => return Err(StartError::Refused(refusal.to_string())),
            Ok(_) => return Ok(()),
            // A whole cluster that starts again has no majority before most of it is there.
            Err(error) if begun.elapsed() > 5 * START_TIMEOUT => return Err(error.into()),
            Err(error) => tracing::info!("waiting for the control plane: {error}"),
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// The positions beside the memory file, and those of the life before.
fn open_positions(
    parts: &NodeParts,
    cluster: ClusterId,
    shard_count: u16,
    incarnation: u64,
) -> Result<(Option<Positions>, BTreeMap<ShardId, Version>), StartError> {
    let Some(file) = parts.shards.file() else { return Ok((None, BTreeMap::new())) };
    let mut path = file.path().as_os_str().to_owned();
    path.push(".positions");
    let owner =
        PositionsOwner { cache_id: parts.cache_id, cluster_id: u128::from(cluster.0), shard_count };
    let (positions, found) = Positions::open_or_create(path.as_ref(), &owner, incarnation)?;
    let mut recovered = BTreeMap::new();
    if let (Found::Positions { .. }, true) = (&found, parts.is_warm) {
        for (shard, position) in (0..).zip(positions.all()) {
            if let Some(position) = position {
                recovered.insert(ShardId(shard), Version::from_cas(position));
            }
        }
    } else {
        (0..shard_count).for_each(|shard| positions.forget(shard));
    }
    Ok((Some(positions), recovered))
}
