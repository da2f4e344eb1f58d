//! What happened, and whether it may have.
//!
//! The history holds the one log that all nodes should apply, as whoever was first applied it, and carries it
//! out itself. Judged at every step:
//! - Every node applies that log: at each index the same entry, and with it the same map.
//! - The lead goes on and never back; an id that was given up leads no more and is never given out again.
//! - What a proposer is told was applied, with that outcome. What it changed it changed once.
//! - A read has all that was acknowledged, and all that another read had, before it began.
//! - What a node said of its vote it never takes back, crashes or not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster::NodeId;
use cluster::map::{ClusterMap, Command, Outcome, Standing};
use openraft::{EntryPayload, LeaderId, LogId, Vote};

use crate::control_plane::storage::Entry;

/// An entry of the log, and what it came to.
struct Applied {
    log_id: LogId<u64>,
    payload: Vec<u8>,
    outcomes: Vec<Outcome>,
    map: Arc<ClusterMap>,
}

#[derive(Default)]
pub(super) struct History {
    log: BTreeMap<u64, Applied>,
    /// Where in the log a command stands.
    places: BTreeMap<Vec<u8>, Vec<(u64, usize)>>,
    /// Commands that changed the map, encoded.
    effective: BTreeSet<Vec<u8>>,
    /// The first map of each revision.
    revisions: BTreeMap<u64, Arc<ClusterMap>>,
    /// What each running node applied last.
    applied: BTreeMap<NodeId, u64>,
    /// The greatest vote that a node is known to have given.
    votes: BTreeMap<NodeId, LeaderId<u64>>,
    /// Who votes and learns, as the log says.
    membership: BTreeSet<NodeId>,
    /// How many vote, if it is settled who does.
    voters: Option<usize>,
    /// Ids that no longer take part after they were removed, each with the lead (term and node) in which that
    /// was decided. A leader that is removed goes on until that is committed.
    former: BTreeMap<NodeId, (u64, u64)>,
    /// What a read must have at least.
    floor: u64,
    trace: u64,
    pub(super) acknowledged: usize,
    pub(super) reads: usize,
    pub(super) snapshots: usize,
    pub(super) leads: BTreeSet<(u64, u64)>,
    pub(super) violation: Option<String>,
}

fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("it can be encoded")
}

/// Whether a command says what it starts from, so that it changes something once.
fn happens_once(command: &Command) -> bool {
    let once = matches!(
        command,
        Command::Found { .. }
            | Command::AddToken { .. }
            | Command::AddNode { .. }
            | Command::NodeUp { .. }
            | Command::Reconfigure(_)
            | Command::Remove { .. }
    );
    once
}

impl History {
    pub(super) fn violated(&mut self, what: impl FnOnce() -> String) {
        self.violation.get_or_insert_with(what);
    }

    /// Notes that something happened.
    pub(super) fn trace(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.trace = (self.trace ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.trace
    }

    /// The last index that somebody applied.
    pub(super) fn last_index(&self) -> u64 {
        self.log.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// The map as agreed upon.
    pub(super) fn map(&self) -> Arc<ClusterMap> {
        self.log.last_key_value().map(|(_, last)| Arc::clone(&last.map)).unwrap_or_default()
    }

    /// Who votes and learns, as agreed upon.
    pub(super) fn membership(&self) -> &BTreeSet<NodeId> {
        &self.membership
    }

    /// How many vote; `None` while that is being changed.
    pub(super) fn voters(&self) -> Option<usize> {
        self.voters
    }

    /// A node begins a life, and applies from its snapshot on.
    pub(super) fn begins(&mut self, node: NodeId) {
        self.applied.remove(&node);
    }

    /// A node applied an entry, or installed the snapshot up to one.
    pub(super) fn applies(
        &mut self,
        node: NodeId,
        log_id: LogId<u64>,
        entry: Option<&Entry>,
        map: &Arc<ClusterMap>,
    ) {
        let index = log_id.index;
        self.trace(&[1, node.0.into(), index, map.revision]);
        let before = self.applied.insert(node, index);
        match entry {
            None => self.snapshots += 1,
            Some(entry) => {
                let follows = before.map_or(0, |before| before + 1);
                if index != follows {
                    self.violated(|| format!("node {node} applied {index} and not {follows}"));
                }
                if !self.log.contains_key(&index) {
                    self.agree(node, entry);
                }
                let payload = encode(&entry.payload);
                if self.log.get(&index).is_some_and(|agreed| agreed.payload != payload) {
                    self.violated(|| format!("node {node} applied another entry {index}"));
                }
            }
        }
        match self.log.get(&index) {
            Some(agreed) if agreed.log_id != log_id => {
                let other = agreed.log_id;
                self.violated(|| format!("node {node} applied {log_id}, another node {other}"));
            }
            Some(agreed) if *agreed.map != **map => {
                self.violated(|| format!("node {node} has another map after entry {log_id}"));
            }
            Some(_) => {}
            None => {
                self.violated(|| format!("node {node} has a snapshot of {log_id}, and no other"));
            }
        }
    }

    /// The first node applies an entry: by that it is agreed upon.
    fn agree(&mut self, node: NodeId, entry: &Entry) {
        let log_id = entry.log_id;
        let leader = log_id.leader_id;
        self.leads.insert((leader.term, leader.node_id));
        let last = self.log.last_key_value().map(|(_, last)| last.log_id);
        if last.is_some_and(|last| last.leader_id > leader || last.index + 1 != log_id.index) {
            self.violated(|| format!("node {node} applied {log_id} after {last:?}"));
        }
        let lead = (leader.term, leader.node_id);
        let is_of =
            |(former, last): (&NodeId, &(u64, u64))| u64::from(former.0) == lead.1 && *last != lead;
        if self.former.iter().any(is_of) {
            self.violated(|| format!("node {} was removed and leads: {log_id}", leader.node_id));
        }
        let mut map = ClusterMap::clone(&self.map());
        let mut outcomes = vec![];
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(commands) => {
                for (at, command) in commands.iter().enumerate() {
                    let revision = map.revision;
                    let outcome = map.apply(command);
                    let encoded = encode(command);
                    if map.revision != revision && happens_once(command) {
                        if let Outcome::NodeAdded(id) = outcome
                            && self.map().nodes.contains_key(&id)
                        {
                            self.violated(|| format!("id {id} was given out twice"));
                        }
                        if !self.effective.insert(encoded.clone()) {
                            self.violated(|| format!("{command:?} was applied twice"));
                        }
                    }
                    self.places.entry(encoded).or_default().push((log_id.index, at));
                    outcomes.push(outcome);
                }
            }
            EntryPayload::Membership(membership) => {
                let id = |node: u64| NodeId(u32::try_from(node).expect("ids are short"));
                let nodes: BTreeSet<NodeId> =
                    membership.nodes().map(|(node, _)| id(*node)).collect();
                let is_removed = |node: &NodeId| {
                    map.nodes.get(node).is_some_and(|it| it.standing == Standing::Removed)
                };
                let left = self.membership.difference(&nodes).filter(|it| is_removed(it));
                self.former.extend(left.map(|node| (*node, lead)));
                self.membership = nodes;
                self.voters = match membership.get_joint_config().as_slice() {
                    [voters] => Some(voters.len()),
                    _ => None,
                };
            }
        }
        let map = Arc::new(map);
        self.revisions.entry(map.revision).or_insert_with(|| Arc::clone(&map));
        let payload = encode(&entry.payload);
        self.log.insert(log_id.index, Applied { log_id, payload, outcomes, map });
    }

    /// A proposer was told what its command came to.
    pub(super) fn acknowledges(&mut self, node: NodeId, command: &Command, outcome: &Outcome) {
        self.acknowledged += 1;
        let places = self.places.get(&encode(command)).cloned().unwrap_or_default();
        self.trace(&[2, node.0.into(), places.len() as u64]);
        let told = |&(index, at): &(u64, usize)| self.log[&index].outcomes[at] == *outcome;
        // Who reads from now on sees it at the first place where it came to that, whichever it was.
        match places.iter().find(|place| told(place)) {
            Some((index, _)) => self.floor = self.floor.max(self.log[index].map.revision),
            None => self.violated(|| {
                format!("node {node} was told {outcome:?} of {command:?}, which nobody applied so")
            }),
        }
    }

    /// What a read must have that begins now.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// A read is answered that began when it had to have `floor`.
    pub(super) fn reads(&mut self, node: NodeId, floor: u64, map: &ClusterMap) {
        self.reads += 1;
        self.trace(&[3, node.0.into(), map.revision]);
        if map.revision < floor {
            let found = map.revision;
            self.violated(|| format!("node {node} read revision {found}, and {floor} was there"));
        }
        if self.revisions.get(&map.revision).is_none_or(|agreed| **agreed != *map) {
            self.violated(|| format!("node {node} read a map that there never was"));
        }
        self.floor = self.floor.max(map.revision);
    }

    /// A node said what its vote is.
    pub(super) fn votes(&mut self, node: NodeId, vote: Vote<u64>) {
        // Whether that one leads by now is not for its voters to promise.
        let whom = vote.leader_id;
        let last = *self.votes.entry(node).or_insert(whom);
        if whom < last {
            self.violated(|| format!("node {node} voted for {whom} after {last}"));
        } else {
            self.votes.insert(node, whom);
        }
    }

    /// Whether a node has applied all there is.
    pub(super) fn is_current(&self, node: NodeId) -> bool {
        self.applied.get(&node) == Some(&self.last_index())
    }
}
