//! Nodes in one runtime, each with a file of its own, over a network that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use cluster::map::{Addresses, NewNode, Outcome, Role};
use cluster::pool::Pool;
use cluster::{ClusterId, NodeId};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::*;

const CLUSTER: ClusterId = ClusterId(7);
const SOON: Duration = Duration::from_secs(10);

/// Who is running, and who can hear whom.
#[derive(Default)]
struct Network {
    running: Mutex<BTreeMap<NodeId, Weak<RaftControlPlane>>>,
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
}

struct Port {
    from: NodeId,
    network: Arc<Network>,
}

impl Transport for Port {
    fn call(&self, to: NodeId, request: Vec<u8>) -> Called<'_> {
        assert_ne!(to, self.from, "a node does not call itself");
        Box::pin(async move {
            let unreachable = || TransportError::Unreachable { to, reason: "cut off".into() };
            if self.network.cut.lock().contains(&(self.from, to)) {
                // What is lost on the way is not reported.
                std::future::pending::<()>().await;
            }
            let other = self.network.running.lock().get(&to).and_then(Weak::upgrade);
            let other = other.ok_or_else(unreachable)?;
            let response = other.handle(&request).await;
            drop(other);
            if self.network.cut.lock().contains(&(to, self.from)) {
                std::future::pending::<()>().await;
            }
            response.ok_or_else(unreachable)
        })
    }
}

struct Group {
    directory: TempDir,
    network: Arc<Network>,
    nodes: BTreeMap<NodeId, Arc<RaftControlPlane>>,
    settings: Settings,
}

impl Group {
    /// Node 1 alone, which has founded a cluster.
    async fn founded() -> Self {
        Self::founded_with(Settings {
            on_failure: Arc::new(|failure| panic!("{failure}")),
            ..Settings::default()
        })
        .await
    }

    async fn founded_with(settings: Settings) -> Self {
        let mut group = Self {
            directory: tempfile::tempdir().unwrap(),
            network: Arc::default(),
            nodes: BTreeMap::new(),
            settings,
        };
        group.start_new(1).await;
        group.node(1).found().await.unwrap();
        let found = Command::Found {
            cluster: CLUSTER,
            pool: Pool::sessions(),
            shard_count: 64,
            node: new_node(1),
        };
        let outcome = group.node(1).propose(found, SOON).await;
        assert_eq!(outcome, Ok(Outcome::NodeAdded(NodeId(1))));
        group
    }

    /// Three nodes, all with a vote.
    async fn of_three() -> Self {
        let mut group = Self::founded().await;
        group.join(2).await;
        group.join(3).await;
        group.vote(&[1, 2, 3]).await;
        group
    }

    fn path(&self, node: u32) -> PathBuf {
        self.directory.path().join(format!("{node}.redb"))
    }

    async fn start_new(&mut self, node: u32) {
        let identity = Identity { cluster: CLUSTER, node: NodeId(node) };
        let storage = Storage::create(&self.path(node), identity, Writing::Thread).unwrap();
        self.start(node, storage).await;
    }

    async fn restart(&mut self, node: u32) {
        let identity = Identity { cluster: CLUSTER, node: NodeId(node) };
        // The writer of a life that was killed lets go of the file when it is done.
        let storage = timeout(SOON, async {
            loop {
                match Storage::open(&self.path(node), identity, Writing::Thread) {
                    Err(OpenError::InUse { .. }) => sleep(Duration::from_millis(5)).await,
                    opened => return opened.unwrap(),
                }
            }
        });
        let storage = storage.await.unwrap();
        self.start(node, storage).await;
    }

    async fn start(&mut self, node: u32, storage: Storage) {
        let from = NodeId(node);
        let port = Arc::new(Port { from, network: self.network.clone() });
        let plane = RaftControlPlane::start(storage, port, self.settings.clone()).await.unwrap();
        let plane = Arc::new(plane);
        self.network.running.lock().insert(from, Arc::downgrade(&plane));
        self.nodes.insert(from, plane);
    }

    /// From one moment to the next it neither hears nor says anything, as after `kill -9`.
    async fn kill(&mut self, node: u32) {
        self.network.running.lock().remove(&NodeId(node));
        let plane = self.nodes.remove(&NodeId(node)).unwrap();
        let others: Vec<u32> = (1..10).filter(|other| *other != node).collect();
        self.part(&[node], &others);
        // Its tasks are of this process, and end when they are told to; nobody hears of it.
        plane.stop().await;
        drop(plane);
        self.mend();
    }

    async fn join(&mut self, node: u32) {
        let add = Command::AddNode {
            request: u64::from(node),
            token_hash: None,
            now_unix_ms: 0,
            node: new_node(node),
        };
        let outcome = self.any().propose(add, SOON).await;
        assert_eq!(outcome, Ok(Outcome::NodeAdded(NodeId(node))));
        self.start_new(node).await;
        self.any().change(Change::Learn(NodeId(node)), SOON).await.unwrap();
    }

    async fn vote(&self, nodes: &[u32]) {
        let nodes = BTreeSet::from_iter(nodes.iter().copied().map(NodeId));
        self.any().change(Change::Vote(nodes.clone()), SOON).await.unwrap();
        self.everywhere(|plane| plane.voters() == nodes).await;
    }

    fn node(&self, node: u32) -> &RaftControlPlane {
        &self.nodes[&NodeId(node)]
    }

    fn any(&self) -> &RaftControlPlane {
        self.nodes.values().next().unwrap()
    }

    fn part(&self, some: &[u32], others: &[u32]) {
        let mut cut = self.network.cut.lock();
        for (a, b) in some.iter().flat_map(|a| others.iter().map(|b| (NodeId(*a), NodeId(*b)))) {
            cut.extend([(a, b), (b, a)]);
        }
    }

    fn mend(&self) {
        self.network.cut.lock().clear();
    }

    async fn leader(&self) -> u32 {
        let leads = |plane: &&Arc<RaftControlPlane>| plane.status().role == RaftRole::Leader;
        timeout(SOON, async {
            loop {
                if let Some(leader) = self.nodes.values().find(leads) {
                    return leader.status().node.0;
                }
                sleep(Duration::from_millis(2)).await;
            }
        })
        .await
        .expect("somebody leads")
    }

    async fn everywhere(&self, holds: impl Fn(&RaftControlPlane) -> bool) {
        for plane in self.nodes.values() {
            let waited = timeout(SOON, async {
                while !holds(plane) {
                    sleep(Duration::from_millis(2)).await;
                }
            });
            assert!(waited.await.is_ok(), "it does not hold on {:?}", plane.status());
        }
    }

    async fn all_have(&self, token: u8) {
        self.everywhere(|plane| has(plane, token)).await;
    }
}

fn new_node(node: u32) -> NewNode {
    NewNode {
        addresses: Addresses { peer: format!("node{node}:1"), ..Addresses::default() },
        zone: format!("zone{node}"),
        weight: 100,
        role: Role::Data,
        version: "1".into(),
    }
}

fn remove(node: u32, force: bool) -> Command {
    Command::Remove { node: NodeId(node), force }
}

/// A command whose effect is easily looked for.
fn token(token: u8) -> Command {
    Command::AddToken { hash: [token; 32], expires_unix_ms: u64::from(token) }
}

fn has(plane: &RaftControlPlane, token: u8) -> bool {
    plane.watch().borrow().tokens.contains_key(&[token; 32])
}

#[tokio::test]
async fn one_node_decides_alone() {
    let group = Group::founded().await;
    assert_eq!(group.node(1).propose(token(1), SOON).await, Ok(Outcome::Done));
    assert!(has(group.node(1), 1), "what is answered is applied");
    assert_eq!(group.node(1).voters(), BTreeSet::from([NodeId(1)]));
    assert!(matches!(group.node(1).found().await, Err(StartError::Founded)));
}

#[tokio::test]
async fn any_node_takes_a_proposal() {
    let group = Group::of_three().await;
    for node in [1, 2, 3] {
        let token_of = u8::try_from(node).unwrap();
        assert_eq!(group.node(node).propose(token(token_of), SOON).await, Ok(Outcome::Done));
        group.all_have(token_of).await;
    }
}

#[tokio::test]
async fn read_has_all_that_was_answered_before() {
    let group = Group::of_three().await;
    for round in 0..10 {
        group.node(1).propose(token(round), SOON).await.unwrap();
        for node in [1, 2, 3] {
            let map = group.node(node).read(SOON).await.unwrap();
            assert!(map.tokens.contains_key(&[round; 32]), "node {node} read an old map");
        }
    }
}

#[tokio::test]
async fn watch_never_goes_back() {
    let group = Group::of_three().await;
    let mut watched = group.node(3).watch();
    for round in 0..20 {
        group.node(1).propose(token(round), SOON).await.unwrap();
    }
    let mut revision = watched.borrow_and_update().revision;
    while !has(group.node(3), 19) {
        timeout(SOON, watched.changed()).await.unwrap().unwrap();
        let next = watched.borrow_and_update().revision;
        assert!(next > revision);
        revision = next;
    }
}

#[tokio::test]
async fn leader_killed_is_followed_by_another_within_600_ms() {
    let mut group = Group::of_three().await;
    let mut took = vec![];
    for round in 0..5 {
        let leader = group.leader().await;
        let survivor = (1..=3).find(|node| *node != leader).unwrap();
        group.node(survivor).propose(token(100), SOON).await.unwrap();
        group.kill(leader).await;
        let killed = Instant::now();
        let outcome = group.node(survivor).propose(token(round), SOON).await;
        took.push(killed.elapsed());
        assert_eq!(outcome, Ok(Outcome::Done));
        group.restart(leader).await;
        group.all_have(round).await;
    }
    took.sort();
    assert!(took[2] < Duration::from_millis(600), "gaps after a kill: {took:?}");
}

#[tokio::test]
async fn minority_decides_nothing() {
    let group = Group::of_three().await;
    let leader = group.leader().await;
    let others: Vec<u32> = (1..=3).filter(|node| *node != leader).collect();
    group.part(&[leader], &others);
    let within = Duration::from_millis(1500);
    let cut_off = group.node(leader).propose(token(1), within);
    let read = group.node(leader).read(within);
    let majority = group.node(others[0]).propose(token(2), SOON);
    let (cut_off, read, majority) = tokio::join!(cut_off, read, majority);
    assert!(matches!(cut_off, Err(Unavailable::Deadline { .. })), "{cut_off:?}");
    assert!(matches!(read, Err(Unavailable::Deadline { .. })), "{read:?}");
    assert_eq!(majority, Ok(Outcome::Done));
    assert!(!has(group.node(leader), 1) && !has(group.node(leader), 2));
    group.mend();
    group.all_have(2).await;
    group.node(leader).propose(token(3), SOON).await.unwrap();
    group.all_have(3).await;
    let map = group.node(leader).read(SOON).await.unwrap();
    assert!(!map.tokens.contains_key(&[1; 32]), "what the minority wrote is undone");
}

#[tokio::test]
async fn restart_of_all_has_everything() {
    let mut group = Group::of_three().await;
    for round in 0..10 {
        group.any().propose(token(round), SOON).await.unwrap();
    }
    for node in [1, 2, 3] {
        group.kill(node).await;
    }
    for node in [1, 2, 3] {
        group.restart(node).await;
    }
    for round in 0..10 {
        group.all_have(round).await;
    }
    group.any().propose(token(10), SOON).await.unwrap();
    group.all_have(10).await;
}

#[tokio::test]
async fn node_far_behind_gets_a_snapshot() {
    let settings = Settings { snapshot_entries: 20, ..Settings::default() };
    let mut group = Group::founded_with(settings).await;
    for round in 0..120 {
        group.any().propose(token(round), SOON).await.unwrap();
    }
    group.everywhere(|plane| plane.status().snapshot_index > Some(60)).await;
    group.join(2).await;
    group.all_have(119).await;
    group.everywhere(|plane| plane.status().snapshot_index > Some(60)).await;
    assert_eq!(*group.node(1).watch().borrow(), *group.node(2).watch().borrow());

    group.kill(2).await;
    for round in 120..240 {
        group.any().propose(token(round), SOON).await.unwrap();
    }
    group.restart(2).await;
    group.all_have(239).await;
    group.kill(2).await;
    group.restart(2).await;
    assert!(has(group.node(2), 239), "what a snapshot brought is on disk");
}

#[tokio::test]
async fn voters_grow_from_one_to_three_and_one_is_replaced() {
    let mut group = Group::of_three().await;
    group.join(4).await;
    group.node(3).propose(token(1), SOON).await.unwrap();
    group.vote(&[1, 2, 4]).await;
    let forget = Change::Forget(NodeId(3));
    group.any().change(forget.clone(), SOON).await.unwrap();
    group.any().change(forget, SOON).await.unwrap();
    group.kill(3).await;
    group.everywhere(|plane| plane.learners().is_empty()).await;
    group.kill(1).await;
    group.node(2).propose(token(2), SOON).await.unwrap();
    group.all_have(2).await;
}

#[tokio::test]
async fn vote_is_for_nodes_that_caught_up() {
    let group = Group::founded().await;
    let within = Duration::from_millis(200);
    let stranger = Change::Vote(BTreeSet::from([NodeId(1), NodeId(9)]));
    let refused = group.node(1).change(stranger, within).await;
    assert!(matches!(refused, Err(Unavailable::Refused(_))), "{refused:?}");
    // Node 5 was never started.
    group.node(1).change(Change::Learn(NodeId(5)), SOON).await.unwrap();
    let silent = Change::Vote(BTreeSet::from([NodeId(1), NodeId(5)]));
    let refused = group.node(1).change(silent, within).await;
    assert!(matches!(refused, Err(Unavailable::Deadline { .. })), "{refused:?}");
    let nobody = group.node(1).change(Change::Vote(BTreeSet::new()), within).await;
    assert!(matches!(nobody, Err(Unavailable::Refused(_))), "{nobody:?}");
    assert_eq!(group.node(1).propose(token(1), SOON).await, Ok(Outcome::Done));
}

#[tokio::test]
async fn leader_tends_to_the_voters() {
    let mut group = Group::founded().await;
    for node in [2, 3] {
        let add = Command::AddNode {
            request: u64::from(node),
            token_hash: None,
            now_unix_ms: 0,
            node: new_node(node),
        };
        group.any().propose(add, SOON).await.unwrap();
        group.start_new(node).await;
    }
    let alive = BTreeSet::from([1, 2, 3].map(NodeId));
    let tend = async |group: &Group| {
        for _ in 0..20 {
            let leader = group.leader().await;
            match group.node(leader).tend_voters(&alive, 3, SOON).await {
                Ok(None) => break,
                Ok(Some(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    tend(&group).await;
    group.everywhere(|plane| plane.voters() == alive).await;

    let remove = Command::Remove { node: NodeId(3), force: true };
    assert_eq!(group.any().propose(remove, SOON).await, Ok(Outcome::Done));
    tend(&group).await;
    group.kill(3).await;
    group.everywhere(|plane| plane.voters().len() == 1 && plane.learners().len() == 1).await;
}

#[tokio::test]
async fn proposals_at_once_share_entries() {
    let group = Group::founded().await;
    let before = group.node(1).status().last_log_index.unwrap();
    let mut answers = tokio::task::JoinSet::new();
    for round in 0..200 {
        let plane = group.nodes[&NodeId(1)].clone();
        answers.spawn(async move { plane.propose(token(round), SOON).await });
    }
    while let Some(answer) = answers.join_next().await {
        assert_eq!(answer.unwrap(), Ok(Outcome::Done));
    }
    let entries = group.node(1).status().last_log_index.unwrap() - before;
    assert!(entries < 20, "200 proposals made {entries} entries");
}

#[tokio::test]
async fn command_too_large_is_refused() {
    let group = Group::founded().await;
    let zone = "z".repeat(9 * 1024 * 1024);
    let large = Command::SetZoneWeight { node: NodeId(1), zone, weight: 1 };
    let refused = group.node(1).propose(large, SOON).await;
    assert!(matches!(refused, Err(Unavailable::Refused(_))), "{refused:?}");
    assert_eq!(group.node(1).propose(token(1), SOON).await, Ok(Outcome::Done));
}

#[tokio::test]
async fn bytes_that_are_no_request_get_no_answer() {
    let group = Group::founded().await;
    for bytes in [&b""[..], b"\xff", b"get key\r\n", &[0; 3]] {
        assert_eq!(group.node(1).handle(bytes).await, None, "{bytes:?}");
    }
    assert_eq!(group.node(1).propose(token(1), SOON).await, Ok(Outcome::Done));
}

#[test]
fn election_timeout_follows_from_the_id() {
    let timers = Timers::default();
    let of = |node| timers.election_timeout_ms(NodeId(node));
    assert_eq!([of(1), of(2), of(3), of(8), of(9)], [150, 168, 187, 281, 150]);
}

#[tokio::test]
async fn timers_that_contradict_each_other_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (name, timers) in [
        ("a", Timers { election_timeout_max_ms: 301, ..Timers::default() }),
        ("b", Timers { heartbeat_interval_ms: 150, ..Timers::default() }),
    ] {
        let identity = Identity { cluster: CLUSTER, node: NodeId(1) };
        let path = directory.path().join(name);
        let storage = Storage::create(&path, identity, Writing::Inline).unwrap();
        let port = Arc::new(Port { from: NodeId(1), network: Arc::default() });
        let settings = Settings { timers, ..Settings::default() };
        let started = RaftControlPlane::start(storage, port, settings).await;
        assert!(matches!(started.err(), Some(StartError::Timers(_))), "{timers:?}");
    }
}

#[tokio::test]
async fn stopped_node_comes_back_where_it_was() {
    let mut group = Group::founded().await;
    group.any().propose(token(1), SOON).await.unwrap();
    group.node(1).stop().await;
    group.kill(1).await;
    group.restart(1).await;
    assert!(has(group.node(1), 1), "how far was committed is on disk");
}

#[tokio::test]
async fn nodes_removed_one_after_the_other_take_no_majority_with_them() {
    let mut group = Group::of_three().await;
    let all = BTreeSet::from([1, 2, 3].map(NodeId));
    group.node(1).tend_voters(&all, voters::VOTERS_MAX, SOON).await.unwrap();
    for node in [3, 2] {
        assert_eq!(group.node(1).propose(remove(node, true), SOON).await, Ok(Outcome::Done));
        // It ends when it hears of it, which is at once.
        group.kill(node).await;
    }
    assert_eq!(group.node(1).propose(token(1), SOON).await, Ok(Outcome::Done));
    assert_eq!(group.node(1).voters(), BTreeSet::from([NodeId(1)]));
}

#[tokio::test]
async fn leader_that_is_removed_hands_its_vote_on() {
    let mut group = Group::of_three().await;
    let leader = group.leader().await;
    let other = [1, 2, 3].into_iter().find(|node| *node != leader).unwrap();
    assert_eq!(group.node(other).propose(remove(leader, true), SOON).await, Ok(Outcome::Done));
    group.kill(leader).await;
    assert_eq!(group.node(other).propose(token(1), SOON).await, Ok(Outcome::Done));
}

#[tokio::test]
async fn leader_whose_disk_hangs_lets_another_lead_and_follows() {
    let group = Group::of_three().await;
    let first = group.leader().await;
    let disk = group.node(first).disk();
    disk.hang();
    let others = || group.nodes.values().filter(|plane| plane.status().node.0 != first);
    let waited = timeout(SOON, async {
        while !others().any(|plane| plane.status().role == RaftRole::Leader) {
            sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("another leads");
    assert_eq!(group.node(first).propose(token(1), SOON).await, Ok(Outcome::Done));
    disk.come_back();
    group.everywhere(|plane| has(plane, 1)).await;
    assert_ne!(group.leader().await, first, "nobody has taken the lead from the other");
}

#[tokio::test]
async fn removal_that_is_refused_takes_no_vote() {
    let group = Group::of_three().await;
    let refused = group.node(2).propose(remove(1, false), SOON).await;
    assert!(matches!(refused, Ok(Outcome::Refused(_))), "{refused:?}");
    assert_eq!(group.node(2).voters().len(), 3);
}
