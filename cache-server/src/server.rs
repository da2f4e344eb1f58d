//! `Server`: binds, spawns workers, joins them on shutdown.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use protocol::backup::CacheId;
use store::Timestamp;
use store::arena::CacheFile;
use store::arena::bus_error::{self, bus_errors};
use tokio::sync::watch;

use crate::administration::Administration;
use crate::authentication::{AuthFileError, Guard};
use crate::backup::{Backups, fresh_cache_id};
use crate::clock::{Clock, Now};
use crate::cluster_node::{self, ClusterNode, NodeParts};
use crate::commands::{CommandCounters, CommandTotals};
use crate::config::{Config, IoChoice};
use crate::live_curve::LiveCurve;
use crate::maintenance::Maintenance;
use crate::memory_file::{MemoryFile, MemoryFileError, Reason};
use crate::net::listener::{ListenError, ListenerParts, Listeners};
use crate::net::mailbox::mailbox;
use crate::net::{ListeningAddress, Network, Unavailable, WorkerParts, probe_uring, run_worker};
use crate::observe::Observation;
use crate::residency::ResidencyAlarm;
use crate::restoring::Restorers;
use crate::scheduled_backup::{BackupRecord, ScheduledBackup};
use crate::service::{CacheService, ServiceParts};
use crate::shards::Shards;
use crate::signal::Orders;
use crate::stats::Statistics;
use crate::tls::{self, Certificates, TlsError};

/// How often the memory file is told what time it is.
const SEEN_INTERVAL_MS: u64 = 1_000;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be served.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Clients have to be known, and nobody can be.
    #[error(transparent)]
    AuthFile(#[from] AuthFileError),
    /// There is to be TLS, and it cannot be.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The memory file cannot be used.
    #[error(transparent)]
    MemoryFile(#[from] MemoryFileError),
    /// The server cannot be a node of its cluster.
    #[error(transparent)]
    Cluster(#[from] cluster_node::StartError),
    /// Clients' sockets are to be `io_uring`'s, and cannot be.
    #[error(transparent)]
    Uring(#[from] Unavailable),
    /// A thread, or the event loop on it, cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// A running server. Stops in order when told to, or when dropped.
#[derive(Debug)]
pub struct Server {
    network: Arc<Network>,
    clock: Clock,
    stop: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
    shards: Arc<Shards>,
    live_curve: Arc<LiveCurve>,
    commands: Box<[Arc<CachePadded<CommandCounters>>]>,
    maintenance: Option<Maintenance>,
    sync: Option<Maintenance>,
    /// Looks after the certificates.
    watch: Option<Maintenance>,
    restorers: Option<Restorers>,
    backup: Option<ScheduledBackup>,
    unix_path: Option<PathBuf>,
    cluster: Option<ClusterNode>,
}

impl Server {
    /// Binds what `config` asks for and serves it, on threads of its own.
    ///
    /// The process as a whole is left alone: user, limits and pid file are [`crate::process`]'s.
    ///
    /// # Errors
    ///
    /// When an address cannot be bound or a thread not started; nothing is served then.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let guard = Arc::new(Guard::open(&config.authentication)?);
        let certificates = load_certificates(config)?;
        let mut listeners =
            Listeners::bind_tcp(&config.listen, config.threads.get(), config.backlog)?
                .under_tls(certificates);
        listeners.bind_udp(&config.udp)?;
        if let Some(socket) = &config.unix_socket {
            listeners.bind_unix(socket, config.backlog)?;
        }
        Self::start_on(listeners, Storage::open(config)?, guard, config, &Orders::default())
    }

    /// Serves on sockets that are bound already, one set per worker, what `storage` holds, to clients that
    /// `guard` lets in. An order to stop
    /// ends the start of a node that waits for its cluster; later it is the caller's to obey.
    ///
    /// # Errors
    ///
    /// When a thread cannot be started, or the server be no node of its cluster; nothing is served then.
    pub fn start_on(
        listeners: Listeners,
        storage: Storage,
        guard: Arc<Guard>,
        config: &Config,
        orders: &Orders,
    ) -> Result<Self, StartError> {
        if config.io == IoChoice::Uring {
            probe_uring()?;
        }
        let ListenerParts { workers: listeners, addresses, certificates, unix_path } =
            listeners.into_parts();
        let network = Network::new(
            listeners.len(),
            config.connections_max.get(),
            config.buffer_bytes_max(),
            addresses,
        );
        let network = Arc::new(network.under_tls(certificates.clone()));
        let Storage { shards, cache_id, clock } = storage;
        shards.take_into_use(clock.now())?;
        let commands: Box<[_]> = listeners
            .iter()
            .map(|_| Arc::new(CachePadded::new(CommandCounters::default())))
            .collect();
        go_on_counting(shards.saved_counters(), &commands[0], &network);
        let backups = Arc::new(Backups::new(Arc::clone(&shards), cache_id));
        let backup_record = Arc::new(BackupRecord::default());
        let live_curve = Arc::new(LiveCurve::new(Arc::clone(&shards), config, clock.now()));
        let buffers = network.share_buffers();
        let observation = Observation::new(Arc::clone(&shards), buffers, &config.inspection);
        let observation = Arc::new(observation);
        let administration = Arc::new(Administration::new(config, &clock));
        let started_at = clock.now();
        let maintain = maintain(&shards, &live_curve, &administration, clock.now());
        let maintenance =
            Maintenance::start(clock.clone(), maintain).map_err(StartError::Thread)?;
        let sync = start_sync(&shards, config.sync_interval, &clock).map_err(StartError::Thread)?;
        let watch = watch_certificates(certificates, orders, &clock).map_err(StartError::Thread)?;
        let restorers = Restorers::start(&shards, config.threads).map_err(StartError::Thread)?;
        let (stop, stopped) = watch::channel(false);
        // Before it is a node: one that gets no further leaves its memory file in order as well.
        let mut server = Self {
            network: Arc::clone(&network),
            clock: clock.clone(),
            stop,
            workers: Vec::with_capacity(listeners.len()),
            shards: Arc::clone(&shards),
            live_curve,
            commands: commands.clone(),
            maintenance: Some(maintenance),
            sync,
            watch,
            restorers: Some(restorers),
            backup: None,
            unix_path,
            cluster: None,
        };
        let cluster = server.become_node(config, cache_id, listeners.len(), orders)?;
        let statistics = Arc::new(Statistics {
            shards: Arc::clone(&shards),
            network: Arc::clone(&network),
            commands,
            backups: Arc::clone(&backups),
            backup_record: Arc::clone(&backup_record),
            live_curve: Arc::clone(&server.live_curve),
            observation: Arc::clone(&observation),
            administration: Arc::clone(&administration),
            replication: cluster.as_ref().map(|cluster| Arc::clone(cluster.replication())),
            config: config.clone(),
            started: started_at,
        });
        let io = config.io;
        let (started, starts) = mpsc::channel();
        let mut postboxes = Vec::with_capacity(listeners.len());
        for (index, listeners) in listeners.into_iter().enumerate() {
            let (postbox, mailbox) = mailbox();
            postboxes.push(postbox);
            let limits = protocol::Limits {
                value_bytes_max: config.item_bytes_max,
                ..protocol::Limits::default()
            };
            let parts = ServiceParts {
                shards: Arc::clone(&shards),
                counters: Arc::clone(&server.commands[index]),
                statistics: Arc::clone(&statistics),
                backups: Arc::clone(&backups),
                administration: Arc::clone(&administration),
                observation: Arc::clone(&observation),
                protocol_limits: limits,
                guard: Arc::clone(&guard),
                allows_flush: config.allows_flush,
                allows_shutdown: config.allows_shutdown,
                orders: orders.clone(),
                seat: cluster.as_ref().map(|cluster| cluster.seat(index)),
            };
            let (network, clock, stop) = (Arc::clone(&network), clock.clone(), stopped.clone());
            let requests_per_turn = config.requests_per_turn.get();
            let entrance = config.entrance();
            let connection_limits = config.limits.clone();
            let started = started.clone();
            let worker = thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    let parts = WorkerParts {
                        index,
                        // What it is made of later stays on this thread.
                        service: CacheService::new(parts),
                        mailbox,
                        listeners,
                        network,
                        clock,
                        protocol_limits: limits,
                        entrance,
                        limits: connection_limits,
                        requests_per_turn,
                        io,
                        stop,
                    };
                    // Nobody listens when another worker failed: this one is about to be stopped.
                    let ready = || drop(started.send(Ok(())));
                    if let Err(error) = run_worker(parts, ready) {
                        drop(started.send(Err(error)));
                    }
                })
                .map_err(StartError::Thread)?;
            server.workers.push(worker);
        }
        // Whoever asked for the server hears of a worker that cannot serve, and not its clients.
        for start in starts.iter().take(server.workers.len()) {
            start.map_err(StartError::Thread)?;
        }
        if let Some(cluster) = cluster {
            cluster.workers_started(postboxes.into());
            server.cluster = Some(cluster);
        }
        if let Some(config) = config.backup.clone() {
            let backup = ScheduledBackup::start(config, backups, clock, backup_record);
            server.backup = Some(backup.map_err(StartError::Thread)?);
        }
        for address in network.listening() {
            tracing::info!("listening on {address}");
        }
        Ok(server)
    }

    /// Where clients can connect, ports resolved.
    pub fn listening(&self) -> &[ListeningAddress] {
        self.network.listening()
    }

    /// The first TCP address, if there is one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listening().iter().find_map(|address| match address {
            ListeningAddress::Tcp(address) => Some(*address),
            ListeningAddress::Udp(_) | ListeningAddress::Unix(_) => None,
        })
    }

    /// The clock all of the server reads; advancing it ages every item.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Moves the clock on by `by`, and lets go before it returns what has expired by then: as if so much time
    /// had passed, sweeps included.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.shards.sweep_whole(Timestamp(self.clock.now().unix_ms));
    }

    /// Its connections and their counters.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Makes the server a node of its cluster, where it is to be one.
    fn become_node(
        &self,
        config: &Config,
        cache_id: CacheId,
        workers: usize,
        orders: &Orders,
    ) -> Result<Option<ClusterNode>, StartError> {
        let Some(cluster) = &config.cluster else { return Ok(None) };
        let parts = NodeParts {
            config: cluster.clone(),
            shards: Arc::clone(&self.shards),
            live_curve: Arc::clone(&self.live_curve),
            network: Arc::clone(&self.network),
            clock: self.clock.clone(),
            client_address: self.address().unwrap_or_else(|| ([127, 0, 0, 1], 0).into()),
            workers,
            cache_id: cache_id.number(),
            // Not after a restart of the machine: what was noted may be ahead of what was kept.
            is_warm: matches!(
                self.shards.progress().report().reason,
                Some(Reason::CleanStop | Reason::Killed)
            ),
            orders: orders.clone(),
        };
        Ok(Some(ClusterNode::start(parts)?))
    }

    /// What the next server goes on from, when this one has stopped.
    fn counters(&self) -> String {
        let mut totals = CommandTotals::default();
        for worker in &self.commands {
            totals.add(worker);
        }
        let network = self.network.counters();
        let each = totals.each().chain(network.each());
        each.map(|(name, count)| format!("{name} {count}\n")).collect()
    }

    /// Stops in order: no client is accepted any more, what was received is answered, connections
    /// close, and threads end.
    pub fn stop(self) {
        drop(self);
    }
}

/// A server's memory, before anybody is served from it.
#[derive(Debug)]
pub struct Storage {
    shards: Arc<Shards>,
    cache_id: CacheId,
    clock: Clock,
}

impl Storage {
    /// Empty memory as `config` says, or its memory file with whatever that brings back. No thread
    /// outlives the call.
    ///
    /// # Errors
    ///
    /// When the memory file cannot be used.
    pub fn open(config: &Config) -> Result<Self, StartError> {
        let clock = Clock::system();
        let Some(path) = &config.memory_file else {
            let shards = Arc::new(Shards::new(config));
            return Ok(Self { shards, cache_id: fresh_cache_id(), clock });
        };
        bus_error::install().map_err(StartError::Thread)?;
        let file = MemoryFile::open(path, config, clock.now())?;
        let cache_id = CacheId::new(file.cache_id());
        let shards = Arc::new(Shards::open(file, config, &clock)?);
        Ok(Self { shards, cache_id, clock })
    }
}

/// Loads what is shown to clients, where there is to be TLS, and says what of it is not as asked for.
///
/// # Errors
///
/// When a certificate cannot be used.
pub(crate) fn load_certificates(config: &Config) -> Result<Option<Arc<Certificates>>, TlsError> {
    let Some(tls) = &config.tls else { return Ok(None) };
    let certificates = Certificates::load(tls.clone(), Clock::system().now())?;
    certificates.announce();
    Ok(Some(Arc::new(certificates)))
}

/// Starts the thread that loads certificates again, if there are any.
fn watch_certificates(
    certificates: Option<Arc<Certificates>>,
    orders: &Orders,
    clock: &Clock,
) -> io::Result<Option<Maintenance>> {
    let Some(certificates) = certificates else { return Ok(None) };
    let mut watch = tls::Watch::new(certificates, orders.reloads());
    Maintenance::start(clock.clone(), move |now| watch.round(now)).map(Some)
}

/// Goes on from what the server before counted: a name and a number in every line.
fn go_on_counting(saved: &str, commands: &CommandCounters, network: &Network) {
    for line in saved.lines() {
        let Some((name, count)) = line.split_once(' ') else { continue };
        let Ok(count) = count.parse() else { continue };
        commands.go_on_from(name, count);
        network.go_on_from(name, count);
    }
}

/// What the maintenance thread does in a round.
fn maintain(
    shards: &Arc<Shards>,
    live_curve: &Arc<LiveCurve>,
    administration: &Arc<Administration>,
    start: Now,
) -> impl FnMut(Now) + Send + 'static {
    let (shards, live_curve) = (Arc::clone(shards), Arc::clone(live_curve));
    let administration = Arc::clone(administration);
    let bus_errors_before = bus_errors();
    let mut seen = start;
    let mut residency = ResidencyAlarm::new(shards.evicted_protected());
    move |now| {
        if bus_errors() != bus_errors_before {
            shards.abandon_file();
        }
        // Before the sweep, which takes its time: what waits for it is bounded.
        live_curve.round(now);
        if administration.is_crawling() {
            shards.sweep_whole(Timestamp(now.unix_ms));
            administration.note_crawled();
        } else {
            shards.sweep(Timestamp(now.unix_ms));
        }
        if let Some(evicted) = residency.round(now, shards.evicted_protected()) {
            tracing::warn!(
                evicted,
                "protected items were evicted: there is too little memory (-m) for all of them"
            );
        }
        if now.unix_ms.abs_diff(seen.unix_ms) >= SEEN_INTERVAL_MS {
            seen = now;
            shards.note_time(now);
        }
    }
}

/// Starts the thread that writes the memory file to its device, if there is to be one.
fn start_sync(
    shards: &Arc<Shards>,
    interval: Duration,
    clock: &Clock,
) -> io::Result<Option<Maintenance>> {
    if interval.is_zero() || shards.file().is_none() {
        return Ok(None);
    }
    let shards = Arc::clone(shards);
    let mut last = clock.now();
    let sync = move |now: Now| {
        if u128::from(now.unix_ms.abs_diff(last.unix_ms)) < interval.as_millis() {
            return;
        }
        last = now;
        if let Some(Err(error)) = shards.file().map(CacheFile::sync) {
            tracing::warn!("the memory file cannot be written to its device: {error}");
        }
    };
    Maintenance::start(clock.clone(), sync).map(Some)
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(cluster) = &self.cluster {
            cluster.leave();
        }
        self.stop.send_replace(true);
        self.backup = None;
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a worker ended by a bug in the server, please report it");
            }
        }
        self.cluster = None;
        self.maintenance = None;
        self.sync = None;
        self.watch = None;
        self.restorers = None;
        if let Err(error) = self.shards.save(&self.counters(), self.clock.now()) {
            tracing::error!(
                "what the memory file holds has to be searched at the next start: {error}"
            );
        }
        if let Some(path) = &self.unix_path {
            // Gone already, or somebody else's folder by now: either way not served any more.
            let _ = std::fs::remove_file(path);
        }
    }
}
