//! Openraft behind [`ControlPlane`].
//!
//! ```text
//!  propose ─▶ batch ─▶ openraft ─▶ Storage (fsync)
//!                         │ ▲
//!                         ▼ │ handle
//!                      Transport ◀─▶ the other nodes
//! ```
//!
//! What is ours here, since openraft does not do it:
//! - Proposals that arrive while one is being written are written together, as one entry: under load an
//!   fsync and a round trip serve many.
//! - A proposal, a linearizable read and a change of voters may start on any node; they go to the leader
//!   and are tried again until the caller's deadline.
//! - A node that is to be removed loses its vote first: the vote of one that is gone counts against every
//!   decision, and two of them leave no majority to take them away with.
//! - A watchdog: a voter whose disk hangs keeps its seat and decides nothing. It stands back at once, so that
//!   another leads, and goes on serving items; if the disk does not come back the process ends.
//! - No randomness. Openraft draws a node's election timeout once, when it starts; here the range it
//!   draws from holds one number, which follows from the node's id ([`Timers::election_timeout_ms`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster::NodeId;
use cluster::map::{ClusterMap, Command, Outcome};
use openraft::error::{
    ChangeMembershipError, CheckIsLeaderError, ClientWriteError, InitializeError, RaftError,
};
use openraft::{ChangeMembers, Config, EmptyNode, Raft, RaftMetrics, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::network::{Peers, Refusal, Request, Response, Transport, encode};
use super::storage::{Progress, Storage, Types};
use super::voters::{self, VOTERS_MAX};
use super::{Change, ControlPlane, RaftRole, Reply, Status, Unavailable};

/// Between two tries of one call.
const PAUSE: Duration = Duration::from_millis(20);

/// One try of a call, at a node that neither answers nor loses the lead.
const TRY_MAX: Duration = Duration::from_secs(1);

/// An entry holds about this many bytes of commands; a single larger one goes alone.
const ENTRY_BYTES_MAX: usize = 1024 * 1024;

/// The largest command. It must pass the frame limit of the control connections (16 MiB), in an append
/// request of its own.
const COMMAND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A piece of a snapshot on its way to another node.
const SNAPSHOT_PIECE_BYTES: u64 = 1024 * 1024;

/// A piece of a snapshot takes at most this long to be sent and written.
const SNAPSHOT_PIECE_TIMEOUT_MS: u64 = 5_000;

/// A learner this close behind may be made a voter: it is told the rest while the vote is held.
const VOTER_LAG_MAX: u64 = 64;

/// Entries kept before the snapshot, for followers that are a little behind.
const LOG_KEPT: u64 = 256;

/// How often the watchdog looks.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Proposals waiting on a leader. More wait at their callers.
const PROPOSALS_MAX: usize = 4096;

/// When a node calls for an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// The leader says that it is there this often, rounded up to openraft's ticks of one and a half
    /// times this. An append request that is not answered in this time is sent again.
    pub heartbeat_interval_ms: u64,
    /// The shortest election timeout.
    pub election_timeout_min_ms: u64,
    /// The bound of the longest. At most twice the shortest: a node refuses its vote for one timeout
    /// after it heard of a leader, and asks for votes after two, so whoever is first finds all willing.
    pub election_timeout_max_ms: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat_interval_ms: 50,
            election_timeout_min_ms: 150,
            election_timeout_max_ms: 300,
        }
    }
}

impl Timers {
    /// Eight steps between the shortest and the longest.
    const STEPS: u64 = 8;

    /// A node's own election timeout. Nodes that came one after the other differ, so that they do not
    /// run against each other; when two do, openraft lets the greater id win.
    pub fn election_timeout_ms(&self, node: NodeId) -> u64 {
        let step = u64::from(node.0.saturating_sub(1)) % Self::STEPS;
        let range = self.election_timeout_max_ms.saturating_sub(self.election_timeout_min_ms);
        self.election_timeout_min_ms + range * step / Self::STEPS
    }
}

/// How a node takes part.
#[derive(Clone)]
pub struct Settings {
    /// When elections are held.
    pub timers: Timers,
    /// Entries between two snapshots.
    pub snapshot_entries: u64,
    /// A transaction that takes longer than this is a disk that hangs: this node neither leads nor seeks to.
    pub disk_timeout: Duration,
    /// A voter whose disk hangs for so long leaves. Not at once: nodes that share a disk would all leave
    /// over a hiccup of it, and with them what they hold in memory, which needs no disk.
    pub disk_timeout_of_process: Duration,
    /// Called, at most once, when this node cannot take part any more. [`leave_process`] in production.
    pub on_failure: Arc<dyn Fn(&Failure) + Send + Sync>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timers: Timers::default(),
            snapshot_entries: 512,
            disk_timeout: Duration::from_secs(1),
            disk_timeout_of_process: Duration::from_secs(30),
            on_failure: Arc::new(leave_process),
        }
    }
}

/// Why a node cannot take part in the control plane any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The node votes, and its disk does not come back with a write.
    #[error("the disk with the Raft log of this voter has not finished a write for {ms} ms")]
    DiskHangs {
        /// For how long.
        ms: u64,
    },
    /// Openraft stopped: the log could not be written or read.
    #[error("the Raft log failed: {0}")]
    Stopped(String),
}

/// Logs the failure and ends the process: a voter that will not write again is worth less than one that is
/// known to be gone, and whatever supervises the process can start it elsewhere or anew.
pub fn leave_process(failure: &Failure) {
    tracing::error!("leaving: {failure}");
    std::process::exit(74); // EX_IOERR of sysexits(3)
}

/// Why the control plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The timers contradict each other.
    #[error("the control plane's timers do not fit each other: {0}")]
    Timers(String),
    /// What is on disk cannot be made sense of.
    #[error("the Raft log cannot be taken up: {0}")]
    Log(String),
    /// The cluster was founded before.
    #[error("this node belongs to a cluster already")]
    Founded,
}

/// A [`ControlPlane`] kept by Raft.
pub struct RaftControlPlane {
    me: NodeId,
    raft: Raft<Types>,
    storage: Storage,
    peers: Peers,
    proposals: mpsc::Sender<Proposal>,
    /// Who was alive when voters were looked at last, and how many there may be.
    tended: Mutex<(BTreeSet<NodeId>, usize)>,
    /// Held while a vote is taken away: the next removal sees what came of this one.
    removing: AsyncMutex<()>,
    stopping: Arc<AtomicBool>,
    /// Whether the disk hangs, so that this node is not to lead.
    stands_back: Arc<AtomicBool>,
    tasks: Vec<AbortHandle>,
    #[cfg(test)]
    breach: std::sync::OnceLock<Breach>,
}

/// A rule to break, so that it is seen that the simulation would tell.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// A leader does not ask whether it still leads before it answers a read.
    ReadsUnconfirmed,
    /// A proposer is told what a command will come to, not what it came to.
    AnswersEarly,
}

impl RaftControlPlane {
    /// Takes up what `storage` holds. Runs on the calling runtime, until [`stop`](Self::stop).
    ///
    /// # Errors
    ///
    /// The timers contradict each other, or the log does.
    pub async fn start(
        storage: Storage,
        transport: Arc<dyn Transport>,
        settings: Settings,
    ) -> Result<Self, StartError> {
        let me = storage.identity().node;
        let config = config(me, &settings)?;
        let pause = Duration::from_millis(settings.timers.heartbeat_interval_ms);
        let peers = Peers { me, transport, pause };
        let (log, machine) = storage.halves();
        let raft = Raft::new(raft_id(me), Arc::new(config), peers.clone(), log, machine)
            .await
            .map_err(|error| StartError::Log(error.to_string()))?;

        let (proposals, waiting) = mpsc::channel(PROPOSALS_MAX);
        let (stopping, stands_back) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let watchdog = Watchdog {
            me,
            metrics: raft.metrics(),
            disk: storage.progress(),
            stopping: Arc::clone(&stopping),
            settings,
            stand_back: stand_back(raft.clone(), Arc::clone(&stands_back)),
        };
        let tasks = vec![
            tokio::spawn(write_proposals(raft.clone(), me, waiting)).abort_handle(),
            tokio::spawn(watchdog.run()).abort_handle(),
        ];
        let (tended, removing) = (Mutex::new((BTreeSet::new(), VOTERS_MAX)), AsyncMutex::new(()));
        Ok(Self {
            me,
            raft,
            storage,
            peers,
            proposals,
            tended,
            removing,
            stopping,
            stands_back,
            tasks,
            #[cfg(test)]
            breach: std::sync::OnceLock::new(),
        })
    }

    /// Makes this node the only voter of a new cluster. Its first command says what the cluster is to be.
    ///
    /// # Errors
    ///
    /// The node has heard of a cluster before.
    pub async fn found(&self) -> Result<(), StartError> {
        match self.raft.initialize(BTreeSet::from([raft_id(self.me)])).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Err(StartError::Founded),
            Err(error) => Err(StartError::Log(error.to_string())),
        }
    }

    /// How its disk does.
    #[cfg(test)]
    pub(super) fn disk(&self) -> Arc<Progress> {
        self.storage.progress()
    }

    /// From now on it breaks a rule.
    #[cfg(test)]
    pub(super) fn breach(&self, breach: Breach) {
        assert!(self.breach.set(breach).is_ok(), "one rule is broken at a time");
    }

    /// Answers bytes that another node's [`Transport::call`] sent. `None`: they are no request, and whoever
    /// sent them is not one of us.
    pub async fn handle(&self, request: &[u8]) -> Option<Vec<u8>> {
        let request = postcard::from_bytes(request).ok()?;
        Some(encode(&self.answer(request).await))
    }

    /// Asks for votes now. For a failure detector that knows earlier than Raft that the leader is gone;
    /// nodes that heard from it a moment ago refuse.
    pub async fn campaign(&self) {
        if self.stands_back.load(Ordering::Acquire) {
            return;
        }
        // It fails when Raft has stopped, and then there is nothing to ask for.
        let _ = self.raft.trigger().elect().await;
    }

    /// On the leader: takes the next step towards the right voters, if there is one to take.
    ///
    /// See [`voters::next_change`]. To be called now and then, on every node.
    ///
    /// # Errors
    ///
    /// The step was not done in time; it may be yet.
    pub async fn tend_voters(
        &self,
        alive: &BTreeSet<NodeId>,
        voters_max: usize,
        within: Duration,
    ) -> Result<Option<Change>, Unavailable> {
        if self.leader() != Some(self.me) {
            return Ok(None);
        }
        *self.tended.lock() = (alive.clone(), voters_max);
        let map = self.watch().borrow().clone();
        let next =
            || voters::next_change(&map, &self.voters(), &self.learners(), alive, voters_max);
        let change = self.unfinished_change().or_else(next);
        if let Some(change) = &change {
            tracing::info!(?change, "changing who takes part in the control plane");
            self.change(change.clone(), within).await?;
        }
        Ok(change)
    }

    /// The change of voters that a leader began and did not live to finish. Until somebody does, a majority of
    /// those who voted before is needed for every decision, beside one of those who are to vote.
    fn unfinished_change(&self) -> Option<Change> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow();
        match metrics.membership_config.membership().get_joint_config().as_slice() {
            [_, .., next] => Some(Change::Vote(next.iter().copied().map(node_id).collect())),
            _ => None,
        }
    }

    /// Takes part no longer, and writes down how far it came.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!("the control plane did not stop in order: {error}");
        }
        if let Err(error) = self.storage.flush().await {
            tracing::warn!("how far the control plane came was not written down: {error}");
        }
        self.tasks.iter().for_each(AbortHandle::abort);
    }

    /// Has the leader, or this node if it leads, answer `request`.
    async fn ask_leader(
        &self,
        request: Request,
        within: Duration,
    ) -> Result<Response, Unavailable> {
        let started = Instant::now();
        let mut told = None;
        let mut last = "no leader is known".to_owned();
        loop {
            let left = within.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(Unavailable::Deadline { waited: within, last });
            }
            if let Some(leader) = told.take().or_else(|| self.leader()) {
                match self.ask(leader, &request, left.min(TRY_MAX)).await {
                    Ok(Response::Refused(Refusal::Never(why))) => {
                        return Err(Unavailable::Refused(why));
                    }
                    Ok(Response::Refused(refusal)) => {
                        last = refusal.to_string();
                        if let Refusal::NotLeader { leader, .. } = refusal {
                            told = leader.filter(|leader| *leader != self.me);
                        }
                    }
                    Ok(response) => return Ok(response),
                    Err(why) => last = why,
                }
            }
            sleep(PAUSE.min(within.saturating_sub(started.elapsed()))).await;
        }
    }

    /// One try. It ends early when another node takes the lead.
    async fn ask(
        &self,
        leader: NodeId,
        request: &Request,
        within: Duration,
    ) -> Result<Response, String> {
        let before = self.leader();
        let mut metrics = self.raft.server_metrics();
        let deposed = metrics.wait_for(|now| {
            let now = now.current_leader.map(node_id);
            now.is_some() && now != before && now != Some(leader)
        });
        let answered = async {
            if leader == self.me {
                timeout(within, self.answer(request.clone()))
                    .await
                    .map_err(|_| format!("no majority agreed within {} ms", within.as_millis()))
            } else {
                let called = self.peers.call(leader, request, within).await;
                called.map_err(|error| error.to_string())
            }
        };
        tokio::select! {
            biased;
            answered = answered => answered,
            _ = deposed => Err(format!("node {leader} lost the lead")),
        }
    }

    async fn answer(&self, request: Request) -> Response {
        let answered = match request {
            Request::Append(request) => {
                self.raft.append_entries(request).await.map(Response::Append).map_err(stopped)
            }
            Request::Vote(request) => {
                self.raft.vote(request).await.map(Response::Vote).map_err(stopped)
            }
            Request::Snapshot(request) => match self.raft.install_snapshot(request).await {
                Ok(response) => Ok(Response::Snapshot(Ok(response))),
                Err(RaftError::APIError(error)) => Ok(Response::Snapshot(Err(error))),
                Err(error) => Err(stopped(error)),
            },
            Request::Propose(command) => self.propose_here(command).await.map(Response::Proposed),
            Request::ReadIndex => self.read_index().await.map(Response::ReadIndex),
            Request::Change(change) => self.change_here(change).await.map(|()| Response::Changed),
        };
        answered.unwrap_or_else(Response::Refused)
    }

    async fn propose_here(&self, command: Command) -> Result<Outcome, Refusal> {
        if self.leader() != Some(self.me) {
            return Err(self.not_leader(self.leader()));
        }
        let bytes = encode(&command).len();
        if bytes > COMMAND_BYTES_MAX {
            let why = format!("a command of {bytes} bytes, and at most {COMMAND_BYTES_MAX} fit");
            return Err(Refusal::Never(why));
        }
        if let Command::Remove { node, .. } = command {
            self.take_vote_from(node, &command).await?;
        }
        let (answer, answered) = oneshot::channel();
        let gone = || Refusal::NotNow("the control plane is stopping".into());
        #[cfg(test)]
        let likely = ClusterMap::clone(&self.watch().borrow()).apply(&command);
        let proposal = Proposal { command, bytes, answer };
        self.proposals.send(proposal).await.map_err(|_| gone())?;
        #[cfg(test)]
        if self.breach.get() == Some(&Breach::AnswersEarly) {
            tokio::spawn(answered);
            return Ok(likely);
        }
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Has others vote than `node`, which `removal` is about to strike from the map, unless the map will
    /// refuse that.
    async fn take_vote_from(&self, node: NodeId, removal: &Command) -> Result<(), Refusal> {
        let _one_at_a_time = self.removing.lock().await;
        let mut map = ClusterMap::clone(&self.watch().borrow());
        let (voters, learners) = (self.voters(), self.learners());
        let is_refused = matches!(map.apply(removal), Outcome::Refused(_));
        if is_refused || !voters.contains(&node) {
            return Ok(());
        }
        let (alive, voters_max) = self.tended.lock().clone();
        match voters::next_vote(&map, &voters, &learners, &alive, voters_max) {
            Some(change) => {
                tracing::info!(%node, ?change, "taking the vote of a node that is to be removed");
                // A leader that is cut off may never hear what comes of it, and others wait behind this one.
                let late =
                    |_| Refusal::NotNow(format!("taking the vote of node {node} is not done"));
                timeout(TRY_MAX, self.change_here(change)).await.map_err(late)?
            }
            None => Ok(()),
        }
    }

    async fn read_index(&self) -> Result<Option<u64>, Refusal> {
        #[cfg(test)]
        if self.breach.get() == Some(&Breach::ReadsUnconfirmed) && self.leader() == Some(self.me) {
            return Ok(*self.storage.watch_applied().borrow());
        }
        match self.raft.ensure_linearizable().await {
            Ok(log_id) => Ok(log_id.map(|log_id| log_id.index)),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to))) => {
                Err(self.not_leader(to.leader_id.map(node_id)))
            }
            Err(error) => Err(Refusal::NotNow(error.to_string())),
        }
    }

    async fn change_here(&self, change: Change) -> Result<(), Refusal> {
        let metrics = self.raft.metrics().borrow().clone();
        if metrics.state != ServerState::Leader {
            return Err(self.not_leader(metrics.current_leader.map(node_id)));
        }
        let membership = metrics.membership_config.membership();
        let known = |node: &NodeId| membership.get_node(&raft_id(*node)).is_some();
        if !known(&self.me) {
            // It leads until the others know that it has left, and openraft takes no further change from it.
            return Err(Refusal::NotNow("the leader has left".into()));
        }
        let changed = match change {
            Change::Learn(node) if known(&node) => return Ok(()),
            Change::Learn(node) => self.raft.add_learner(raft_id(node), EmptyNode {}, false).await,
            Change::Vote(nodes) if nodes.is_empty() => {
                return Err(Refusal::Never("somebody has to vote".into()));
            }
            Change::Vote(nodes) => {
                let settled = membership.get_joint_config().len() == 1;
                if settled && nodes == self.voters() {
                    return Ok(());
                }
                // Who has a vote by now keeps it, however far behind.
                let finishes = self.unfinished_change() == Some(Change::Vote(nodes.clone()));
                if let Some(stranger) = nodes.iter().find(|node| !known(node)) {
                    return Err(Refusal::Never(format!("node {stranger} is not a learner yet")));
                }
                let is_behind = |node: &&NodeId| !finishes && !has_caught_up(&metrics, **node);
                if let Some(behind) = nodes.iter().find(is_behind) {
                    return Err(Refusal::NotNow(format!("node {behind} has not caught up")));
                }
                let nodes: BTreeSet<u64> = nodes.into_iter().map(raft_id).collect();
                self.raft.change_membership(nodes, true).await
            }
            Change::Forget(node) if !known(&node) => return Ok(()),
            Change::Forget(node) if self.voters().contains(&node) => {
                return Err(Refusal::Never(format!("node {node} has a vote")));
            }
            Change::Forget(node) => {
                let nodes = ChangeMembers::RemoveNodes(BTreeSet::from([raft_id(node)]));
                self.raft.change_membership(nodes, true).await
            }
        };
        match changed {
            Ok(_) => Ok(()),
            Err(error) => Err(write_refused(self.me, error)),
        }
    }

    fn not_leader(&self, leader: Option<NodeId>) -> Refusal {
        Refusal::NotLeader { by: self.me, leader }
    }

    async fn read_here(&self, within: Duration) -> Result<Arc<ClusterMap>, Unavailable> {
        let started = Instant::now();
        let Response::ReadIndex(index) = self.ask_leader(Request::ReadIndex, within).await? else {
            return Err(Unavailable::Refused("the leader answered another question".into()));
        };
        let mut applied = self.storage.watch_applied();
        let left = within.saturating_sub(started.elapsed());
        let waited = timeout(left, applied.wait_for(|applied| *applied >= index)).await;
        if waited.is_err() {
            let last = "this node has not applied yet what the leader has".to_owned();
            return Err(Unavailable::Deadline { waited: within, last });
        }
        Ok(self.watch().borrow().clone())
    }
}

impl Drop for RaftControlPlane {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl ControlPlane for RaftControlPlane {
    fn propose(
        &self,
        command: Command,
        within: Duration,
    ) -> Reply<'_, Result<Outcome, Unavailable>> {
        Box::pin(async move {
            match self.ask_leader(Request::Propose(command), within).await? {
                Response::Proposed(outcome) => Ok(outcome),
                _ => Err(Unavailable::Refused("the leader answered another question".into())),
            }
        })
    }

    fn read(&self, within: Duration) -> Reply<'_, Result<Arc<ClusterMap>, Unavailable>> {
        Box::pin(self.read_here(within))
    }

    fn watch(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.storage.watch()
    }

    fn leader(&self) -> Option<NodeId> {
        self.raft.server_metrics().borrow().current_leader.map(node_id)
    }

    fn voters(&self) -> BTreeSet<NodeId> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.membership().voter_ids().map(node_id).collect()
    }

    fn learners(&self) -> BTreeSet<NodeId> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.membership().learner_ids().map(node_id).collect()
    }

    fn change(&self, change: Change, within: Duration) -> Reply<'_, Result<(), Unavailable>> {
        Box::pin(async move { self.ask_leader(Request::Change(change), within).await.map(|_| ()) })
    }

    fn status(&self) -> Status {
        let metrics = self.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let matched = metrics.replication.unwrap_or_default();
        let index = |log_id: openraft::LogId<u64>| log_id.index;
        Status {
            node: self.me,
            role: match metrics.state {
                ServerState::Learner => RaftRole::Learner,
                ServerState::Follower => RaftRole::Follower,
                ServerState::Candidate => RaftRole::Candidate,
                ServerState::Leader => RaftRole::Leader,
                ServerState::Shutdown => RaftRole::Stopped,
            },
            leader: metrics.current_leader.map(node_id),
            term: metrics.current_term,
            voters: membership.voter_ids().map(node_id).collect(),
            learners: membership.learner_ids().map(node_id).collect(),
            last_log_index: metrics.last_log_index,
            applied_index: metrics.last_applied.map(index),
            snapshot_index: metrics.snapshot.map(index),
            quorum_ack_age_ms: metrics.millis_since_quorum_ack,
            matched_index: matched
                .into_iter()
                .map(|(node, log_id)| (node_id(node), log_id.map(index)))
                .collect(),
            stopped: metrics.running_state.err().map(|fatal| fatal.to_string()),
        }
    }
}

pub(super) fn raft_id(node: NodeId) -> u64 {
    u64::from(node.0)
}

pub(super) fn node_id(id: u64) -> NodeId {
    // Ids enter the group through `raft_id` alone.
    NodeId(u32::try_from(id).unwrap_or(u32::MAX))
}

fn config(me: NodeId, settings: &Settings) -> Result<Config, StartError> {
    let timers = settings.timers;
    if timers.election_timeout_max_ms > 2 * timers.election_timeout_min_ms {
        let why = "the longest election timeout is more than twice the shortest";
        return Err(StartError::Timers(why.into()));
    }
    let election_timeout = timers.election_timeout_ms(me);
    let config = Config {
        cluster_name: "cache".into(),
        heartbeat_interval: timers.heartbeat_interval_ms,
        election_timeout_min: election_timeout,
        election_timeout_max: election_timeout + 1,
        install_snapshot_timeout: SNAPSHOT_PIECE_TIMEOUT_MS,
        snapshot_max_chunk_size: SNAPSHOT_PIECE_BYTES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.snapshot_entries),
        // Whoever is behind the snapshot gets the snapshot, so this only has to exceed its interval.
        replication_lag_threshold: settings.snapshot_entries * 2 + LOG_KEPT,
        max_in_snapshot_log_to_keep: LOG_KEPT.min(settings.snapshot_entries),
        ..Config::default()
    };
    config.validate().map_err(|error| StartError::Timers(error.to_string()))
}

fn has_caught_up(metrics: &RaftMetrics<u64, EmptyNode>, node: NodeId) -> bool {
    if metrics.id == raft_id(node) {
        return true;
    }
    let matched = metrics.replication.as_ref().and_then(|nodes| nodes.get(&raft_id(node)).copied());
    let Some(Some(matched)) = matched else { return false };
    matched.index + VOTER_LAG_MAX >= metrics.last_log_index.unwrap_or(0)
}

fn stopped<E: std::error::Error>(error: E) -> Refusal {
    Refusal::NotNow(format!("its Raft has stopped: {error}"))
}

fn write_refused(me: NodeId, error: RaftError<u64, ClientWriteError<u64, EmptyNode>>) -> Refusal {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
            Refusal::NotLeader { by: me, leader: to.leader_id.map(node_id) }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::InProgress(error) => Refusal::NotNow(error.to_string()),
            error => Refusal::Never(error.to_string()),
        },
        RaftError::Fatal(error) => stopped(error),
    }
}

/// A command on the leader, and who waits for its outcome.
struct Proposal {
    command: Command,
    bytes: usize,
    answer: oneshot::Sender<Result<Outcome, Refusal>>,
}

/// Writes what waits as one entry, and again, until nobody can propose any more.
async fn write_proposals(raft: Raft<Types>, me: NodeId, mut waiting: mpsc::Receiver<Proposal>) {
    let mut held_over = None;
    loop {
        let first = match held_over.take() {
            Some(proposal) => proposal,
            None => match waiting.recv().await {
                Some(proposal) => proposal,
                None => return,
            },
        };
        let mut bytes = first.bytes;
        let mut batch = vec![first];
        while let Ok(next) = waiting.try_recv() {
            bytes += next.bytes;
            if bytes > ENTRY_BYTES_MAX {
                held_over = Some(next);
                break;
            }
            batch.push(next);
        }
        // Who gave up has tried again, or will not: nothing is gained by doing it twice.
        batch.retain(|proposal| !proposal.answer.is_closed());
        if batch.is_empty() {
            continue;
        }
        let (commands, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|proposal| (proposal.command, proposal.answer)).unzip();
        // Openraft answers a leader that was cut off only when it hears from the others again.
        let result = match timeout(TRY_MAX, raft.client_write(commands)).await {
            Ok(Ok(written)) => Ok(written.data),
            Ok(Err(error)) => Err(write_refused(me, error)),
            Err(_) => Err(Refusal::NotNow("no majority answered".into())),
        };
        match result {
            Ok(outcomes) => {
                assert_eq!(outcomes.len(), answers.len(), "an outcome for each command");
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    // Whoever waited may have given up.
                    let _ = answer.send(Ok(outcome));
                }
            }
            Err(refusal) => {
                for answer in answers {
                    let _ = answer.send(Err(refusal.clone()));
                }
            }
        }
    }
}

/// Has this node neither lead nor seek to, or take part again.
type StandBack = Box<dyn Fn(bool) + Send>;

fn stand_back(raft: Raft<Types>, stands_back: Arc<AtomicBool>) -> StandBack {
    Box::new(move |does| {
        stands_back.store(does, Ordering::Release);
        // Without its heartbeats the others elect one whose disk works.
        raft.runtime_config().heartbeat(!does);
        raft.runtime_config().elect(!does);
    })
}

/// Looks after what Raft cannot see of itself.
struct Watchdog {
    me: NodeId,
    metrics: watch::Receiver<RaftMetrics<u64, EmptyNode>>,
    disk: Arc<Progress>,
    stopping: Arc<AtomicBool>,
    settings: Settings,
    stand_back: StandBack,
}

impl Watchdog {
    async fn run(self) {
        let mut ticks = interval(WATCH_INTERVAL);
        // Ticks are counted, not the clock read: a process that was suspended has not waited for its disk.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let looks_in = |time: Duration| time.as_millis() / WATCH_INTERVAL.as_millis();
        let patience = looks_in(self.settings.disk_timeout);
        let patience_of_process = looks_in(self.settings.disk_timeout_of_process);
        let mut open = None;
        let mut looks = 0;
        let mut hangs = false;
        loop {
            ticks.tick().await;
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            if let Some(failure) = self.raft_stopped() {
                return (self.settings.on_failure)(&failure);
            }
            let now_open = self.disk.open_transaction();
            looks = if now_open.is_some() && now_open == open { looks + 1 } else { 0 };
            open = now_open;
            let ms = u64::try_from(looks * WATCH_INTERVAL.as_millis()).unwrap_or(u64::MAX);
            if looks > patience_of_process && self.votes() {
                return (self.settings.on_failure)(&Failure::DiskHangs { ms });
            }
            let did_hang = std::mem::replace(&mut hangs, looks > patience);
            match (did_hang, hangs) {
                (false, true) => {
                    tracing::error!(
                        "the disk with the Raft log has not finished a write for {ms} ms: this node does not \
                         lead the control plane until it has"
                    );
                    (self.stand_back)(true);
                }
                (true, false) => {
                    tracing::info!("the disk with the Raft log is back");
                    (self.stand_back)(false);
                }
                _ => {}
            }
        }
    }

    fn raft_stopped(&self) -> Option<Failure> {
        let metrics = self.metrics.borrow();
        metrics.running_state.as_ref().err().map(|fatal| Failure::Stopped(fatal.to_string()))
    }

    fn votes(&self) -> bool {
        let metrics = self.metrics.borrow();
        let mut voters = metrics.membership_config.membership().voter_ids();
        voters.any(|id| id == raft_id(self.me))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use openraft::{Membership, StoredMembership};

    use super::*;

    /// What a watchdog did.
    #[derive(Default)]
    struct Watched {
        failure: Option<Failure>,
        stood_back: Vec<bool>,
    }

    /// What the watchdog of a node does that sees `disk` for `seconds`.
    async fn watched(disk: Arc<Progress>, voter: bool, seconds: u64) -> Watched {
        let done = Arc::new(Mutex::new(Watched::default()));
        let (heard, seen) = (Arc::clone(&done), Arc::clone(&done));
        let mut metrics = RaftMetrics::new_initial(1);
        let voters = BTreeSet::from([if voter { 1 } else { 2 }]);
        let membership = Membership::new(vec![voters], ());
        metrics.membership_config = Arc::new(StoredMembership::new(None, membership));
        let (_sender, metrics) = watch::channel(metrics);
        let on_failure =
            Arc::new(move |failure: &Failure| heard.lock().failure = Some(failure.clone()));
        let settings = Settings { on_failure, ..Settings::default() };
        let stopping = Arc::default();
        let stand_back = Box::new(move |does| seen.lock().stood_back.push(does));
        let watchdog = Watchdog { me: NodeId(1), metrics, disk, stopping, settings, stand_back };
        // The watchdog ends when it has said something, and not otherwise.
        let _ = timeout(Duration::from_secs(seconds), watchdog.run()).await;
        std::mem::take(&mut *done.lock())
    }

    #[tokio::test(start_paused = true)]
    async fn voter_whose_disk_hangs_for_a_second_stands_back_and_leaves_in_the_end() {
        let hanging = Progress::of_a_disk_that_hangs;
        assert!(watched(hanging(), true, 1).await.stood_back.is_empty());
        let while_it_hangs = watched(hanging(), true, 20).await;
        assert_eq!((while_it_hangs.failure, while_it_hangs.stood_back), (None, vec![true]));
        let failure = watched(hanging(), true, 40).await.failure;
        let left_in_time = matches!(failure, Some(Failure::DiskHangs { ms: 30_000..31_000 }));
        assert!(left_in_time, "{failure:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn disk_that_comes_back_has_the_node_take_part_again() {
        let disk = Progress::of_a_disk_that_hangs();
        let hanging = Arc::clone(&disk);
        let coming_back = tokio::spawn(async move {
            sleep(Duration::from_secs(3)).await;
            hanging.next();
        });
        let watched = watched(disk, true, 4).await;
        coming_back.await.unwrap();
        assert_eq!((watched.failure, watched.stood_back), (None, vec![true, false]));
    }

    #[tokio::test(start_paused = true)]
    async fn learner_whose_disk_hangs_stays() {
        assert_eq!(watched(Progress::of_a_disk_that_hangs(), false, 60).await.failure, None);
    }

    #[tokio::test(start_paused = true)]
    async fn busy_disk_is_no_disk_that_hangs() {
        let disk = Progress::of_a_disk_that_hangs();
        let busy = disk.clone();
        let writing = tokio::spawn(async move {
            loop {
                sleep(Duration::from_millis(300)).await;
                busy.next();
            }
        });
        let watched = watched(disk, true, 40).await;
        writing.abort();
        assert!(watched.failure.is_none() && watched.stood_back.is_empty());
    }
}
