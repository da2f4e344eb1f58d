//! The primary: orders writes, counts acks, serves under its lease, changes the in-sync set.

use std::collections::BTreeMap;

use bytes::Bytes;
use smallvec::smallvec;

use super::{Effect, Entry, Grants, Replica, Role, Rule, quorum_position};
use crate::map::ShardConfig;
use crate::message::{Append, Entries, Message};
use crate::{Epoch, Member, NodeId, Sequence, Version};

/// What a primary knows of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Primary {
    /// Whether the tail that it took over is committed again.
    is_serving: bool,
    /// The last write of those that it took over.
    inherited: Sequence,
    /// In-sync members and joiners, but for this node.
    peers: BTreeMap<NodeId, Peer>,
    /// Configurations that the map was asked for and that may still come to be.
    proposed: Vec<ShardConfig>,
    /// Joins begun.
    joins: u32,
    /// Whether it has stopped serving for another to lead.
    handing_over: Option<NodeId>,
}

/// One that follows a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Peer {
    member: Member,
    /// It has this log up to here, as it said under this primary.
    matched: Option<Version>,
    /// Writes up to here are on their way to it; `None` until it said where it stands.
    sent: Option<Version>,
    kind: PeerKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum PeerKind {
    InSync,
    Joining {
        /// Which join: an answer to an earlier one says nothing of the copy that is being made now.
        attempt: u32,
        /// All that it lacked was sent.
        is_sent: bool,
    },
    /// Its copy is whole: it can be taken into the in-sync set.
    Joined,
}

impl Primary {
    #[inline]
    pub(super) fn is_serving(&self) -> bool {
        self.is_serving && self.handing_over.is_none()
    }
}

impl Replica {
    /// Whether writes are taken: this node serves, and enough copies are in sync.
    #[inline]
    pub fn takes_writes(&self, in_sync_min: usize) -> bool {
        self.is_serving() && self.config.in_sync.len() >= in_sync_min
    }

    /// The version of the next write. To be asked of a primary alone.
    #[inline]
    pub fn next_version(&self) -> Version {
        Version::new(self.config.epoch, Sequence(self.last().sequence().0 + 1))
    }

    /// Orders a write, which the store has carried out already, and sends it on.
    ///
    /// # Panics
    ///
    /// When this node is not the primary.
    pub fn write(&mut self, op: Bytes, effects: &mut Vec<Effect>) -> Version {
        let version = self.next_version();
        let prev = self.last();
        let stable = self.log.base().sequence();
        let (epoch, committed) = (self.config.epoch, self.committed);
        let entry = Entry { version, op };
        let Role::Primary(primary) = &mut self.role else { panic!("only a primary orders writes") };
        for (&to, peer) in &mut primary.peers {
            if peer.sent == Some(prev) {
                peer.sent = Some(version);
                let entries = smallvec![entry.clone()];
                let append = Append { epoch, prev, committed, stable, entries };
                effects.push(Effect::Send { to, message: Message::Append(append) });
            }
        }
        self.log.push(entry);
        // A write that others have to have is not committed before one of them says so.
        if self.commits_alone() {
            self.advance(effects);
        }
        version
    }

    /// Whether a write may be committed by this node's having it.
    fn commits_alone(&self) -> bool {
        let Role::Primary(primary) = &self.role else { return false };
        let mut configs = std::iter::once(&self.config).chain(&primary.proposed);
        configs.any(|config| self.write_quorum(config.in_sync.len()) <= 1)
    }

    /// Whether a read may be answered from this node: nobody else can have been appointed meanwhile.
    #[inline]
    pub fn may_read(&self, grants: &impl Grants) -> bool {
        let Role::Primary(primary) = &self.role else { return false };
        // Rule 8.
        let pending = if self.keeps(Rule::ReadBoth) { primary.proposed.as_slice() } else { &[] };
        primary.is_serving()
            && self.has_lease(&self.config, grants)
            && pending.iter().all(|config| self.has_lease(config, grants))
    }

    /// Rule 3: whether a write quorum of the set, this node counted, still grants this node its term.
    #[inline]
    fn has_lease(&self, config: &ShardConfig, grants: &impl Grants) -> bool {
        let quorum = self.write_quorum(config.in_sync.len());
        if quorum <= 1 || !self.keeps(Rule::ReadQuorum) {
            return true;
        }
        let holds = |&&member: &&Member| member == self.me || grants.holds_from(member);
        config.in_sync.iter().filter(holds).count() >= quorum
    }

    /// The in-sync set without this node.
    fn peers(&self) -> impl Iterator<Item = Member> {
        let me = self.me.node;
        self.config.in_sync.iter().copied().filter(move |member| member.node != me)
    }

    /// The map appointed this node.
    pub(super) fn lead(&mut self, effects: &mut Vec<Effect>) {
        let mut primary = Primary { inherited: self.last().sequence(), ..Primary::default() };
        let last = self.last();
        let matched = match &self.role {
            Role::Candidate(candidate) if candidate.ballot() == self.config.epoch => {
                candidate.matched().clone()
            }
            _ => Default::default(),
        };
        for member in self.peers() {
            let known = matched.contains(&member.node).then_some(last);
            let kind = PeerKind::InSync;
            primary.peers.insert(member.node, Peer { member, matched: known, sent: known, kind });
        }
        // Rule 4.
        if !self.keeps(Rule::RecommitTail) {
            primary.is_serving = true;
        }
        self.role = Role::Primary(primary);
        if self.is_serving() {
            effects.push(Effect::Serves);
        }
        self.probe_all(effects);
        self.advance(effects);
    }

    /// The map says that this node goes on leading, with another in-sync set.
    pub(super) fn lead_on(&mut self, effects: &mut Vec<Effect>) {
        let members: Vec<Member> = self.peers().collect();
        let was_serving = self.is_serving();
        let Role::Primary(primary) = &mut self.role else { return };
        primary.proposed.clear();
        primary.handing_over = None;
        primary
            .peers
            .retain(|_, peer| members.contains(&peer.member) || peer.kind != PeerKind::InSync);
        for member in members {
            let new = Peer { member, matched: None, sent: None, kind: PeerKind::InSync };
            let peer = primary.peers.entry(member.node).or_insert(new);
            if peer.member != member {
                *peer = new;
            }
            peer.kind = PeerKind::InSync;
        }
        if !was_serving && self.is_serving() {
            effects.push(Effect::Serves);
        }
        self.probe_all(effects);
        self.advance(effects);
    }

    /// Tells every follower of this epoch, and asks where it stands.
    fn probe_all(&self, effects: &mut Vec<Effect>) {
        let Role::Primary(primary) = &self.role else { return };
        for &node in primary.peers.keys() {
            self.probe(node, effects);
        }
    }

    /// An append of nothing, from where the follower is thought to be.
    fn probe(&self, node: NodeId, effects: &mut Vec<Effect>) {
        let Role::Primary(primary) = &self.role else { return };
        let Some(peer) = primary.peers.get(&node) else { return };
        let append = Append {
            epoch: self.config.epoch,
            prev: peer.sent.unwrap_or_else(|| self.last()),
            committed: self.committed,
            stable: self.log.base().sequence(),
            entries: Entries::new(),
        };
        Self::send(node, Message::Append(append), effects);
    }

    /// Sends a follower that stands at `from` what comes after.
    fn stream_from(&mut self, node: NodeId, from: Version, effects: &mut Vec<Effect>) -> bool {
        let Some(place) = self.log.place_of(from) else { return false };
        let entries: Entries = self.log.after(place).cloned().collect();
        let last = self.last();
        let (epoch, committed) = (self.config.epoch, self.committed);
        let stable = self.log.base().sequence();
        let Role::Primary(primary) = &mut self.role else { return false };
        let Some(peer) = primary.peers.get_mut(&node) else { return false };
        peer.sent = Some(last);
        if !entries.is_empty() {
            let append = Append { epoch, prev: from, committed, stable, entries };
            Self::send(node, Message::Append(append), effects);
        }
        true
    }

    /// A follower has this log up to `last`.
    pub(super) fn appended(
        &mut self,
        from: Member,
        epoch: Epoch,
        last: Version,
        effects: &mut Vec<Effect>,
    ) {
        if let Role::Candidate(_) = self.role {
            return self.matched_ballot(from, epoch, last, effects);
        }
        let is_ours = self.log.place_of(last).is_some();
        let incarnations = self.keeps(Rule::Incarnations);
        let Role::Primary(primary) = &mut self.role else { return };
        let Some(peer) = primary.peers.get_mut(&from.node) else { return };
        // Rule 2: an ack of another life says nothing of this one.
        let is_its = peer.member == from || !incarnations;
        if epoch != self.config.epoch || !is_its {
            return;
        }
        if is_ours {
            peer.matched = peer.matched.max(Some(last));
        }
        if peer.sent.is_none() {
            self.stream_from(from.node, last, effects);
        }
        self.advance(effects);
    }

    /// A follower stands elsewhere, or follows another.
    pub(super) fn mismatched(
        &mut self,
        from: Member,
        epoch: Epoch,
        last: Version,
        promised: Epoch,
        effects: &mut Vec<Effect>,
    ) {
        let (is_last, current) = (last == self.last(), self.config.epoch);
        let Role::Primary(primary) = &mut self.role else { return };
        let Some(peer) = primary.peers.get_mut(&from.node) else { return };
        if epoch != current || peer.member != from {
            return;
        }
        let kind = peer.kind;
        if let PeerKind::Joining { .. } = kind {
            // Its join was refused or did not arrive, and has to be begun anew.
            primary.peers.remove(&from.node);
        }
        if promised > current {
            // Sealed by a candidate that may never be appointed: an epoch beyond its promise frees it.
            if primary.proposed.is_empty() {
                let to = ShardConfig { epoch: promised.next(), ..self.config.clone() };
                self.propose_change(to, effects);
            }
            return;
        }
        if promised < current || is_last || matches!(kind, PeerKind::Joining { .. }) {
            // It has not heard of this epoch, or what it missed has come meanwhile.
            return;
        }
        let Role::Primary(primary) = &mut self.role else { return };
        let Some(peer) = primary.peers.get_mut(&from.node) else { return };
        peer.sent = None;
        if !self.stream_from(from.node, last, effects) {
            // It lacks what is forgotten, or has what never was: its copy is no use.
            match kind {
                PeerKind::InSync => self.drop_members(&[from], effects),
                PeerKind::Joining { .. } | PeerKind::Joined => self.abort_join(from.node),
            }
        }
    }

    /// What was under way to `node` may be lost.
    pub(super) fn connected(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        let Role::Primary(primary) = &mut self.role else { return };
        let Some(peer) = primary.peers.get_mut(&node) else { return };
        if matches!(peer.kind, PeerKind::Joining { .. }) {
            // What the joiner lacked was under way as well.
            primary.peers.remove(&node);
            return;
        }
        peer.sent = None;
        self.probe(node, effects);
    }

    /// Counts acks, and tells of what has been committed by them.
    fn advance(&mut self, effects: &mut Vec<Effect>) {
        let both = self.keeps(Rule::CommitBoth);
        let Role::Primary(primary) = &self.role else { return };
        let mut committed = self.held_by_quorum(primary, &self.config);
        // Rule 5.
        if both {
            for config in &primary.proposed {
                committed = committed.min(self.held_by_quorum(primary, config));
            }
        }
        let serves = committed >= primary.inherited && !primary.is_serving;
        let stable = self.stable(primary);
        if serves && let Role::Primary(primary) = &mut self.role {
            primary.is_serving = true;
        }
        if committed > self.committed {
            self.committed = committed;
            effects.push(Effect::Committed(committed));
        }
        if serves && self.is_serving() {
            effects.push(Effect::Serves);
        }
        self.log.forget(stable.min(self.committed));
        self.go_on_handing_over(effects);
    }

    /// The writes that a write quorum of `config` has.
    fn held_by_quorum(&self, primary: &Primary, config: &ShardConfig) -> Sequence {
        let position = |member: &Member| {
            if *member == self.me {
                return self.last().sequence();
            }
            let peer = primary
                .peers
                .get(&member.node)
                .filter(|peer| peer.member == *member || !self.keeps(Rule::Incarnations));
            peer.and_then(|peer| peer.matched).unwrap_or_default().sequence()
        };
        let positions = config.in_sync.iter().map(position);
        quorum_position(positions, self.write_quorum(config.in_sync.len()))
    }

    /// The writes that every follower has.
    fn stable(&self, primary: &Primary) -> Sequence {
        let matched = |peer: &Peer| peer.matched.unwrap_or_default().sequence();
        primary.peers.values().map(matched).min().unwrap_or_else(|| self.last().sequence())
    }

    /// Asks the map for another configuration of this primary's shard.
    fn propose_change(&mut self, to: ShardConfig, effects: &mut Vec<Effect>) {
        let Role::Primary(primary) = &self.role else { return };
        // Rule 9. What is committed is on a quorum of the present set already, also while its members have
        // not said so to this primary.
        let covered = to.in_sync == self.config.in_sync
            || self.held_by_quorum(primary, &to) >= self.committed;
        if !covered && self.keeps(Rule::ShrinkCovered) {
            return;
        }
        self.propose(to.clone(), effects);
        if let Role::Primary(primary) = &mut self.role
            && !primary.proposed.contains(&to)
        {
            primary.proposed.push(to);
        }
    }

    /// The configuration that would follow with this in-sync set.
    fn successor(&self, primary: NodeId, mut in_sync: Vec<Member>) -> ShardConfig {
        in_sync.sort_unstable();
        let beyond = self.config.epoch.max(self.promise.epoch);
        ShardConfig { epoch: beyond.next(), primary: Some(primary), in_sync }
    }

    /// Leads on without these members, all at once: a set that still holds one of several that are gone may
    /// have no quorum with all that is committed (rule 9).
    pub(super) fn drop_members(&mut self, lost: &[Member], effects: &mut Vec<Effect>) {
        let Role::Primary(primary) = &self.role else { return };
        let is_joiner = |member: &&Member| {
            let peer = primary.peers.get(&member.node);
            peer.is_some_and(|peer| peer.member == **member && peer.kind != PeerKind::InSync)
        };
        let joiners: Vec<Member> = lost.iter().filter(is_joiner).copied().collect();
        for joiner in joiners {
            self.abort_join(joiner.node);
            self.start_afresh_if_proposed(joiner, effects);
            // It stays as long as it may be in the set any moment, and is not proposed again.
            if let Role::Primary(primary) = &mut self.role
                && let Some(peer) = primary.peers.get_mut(&joiner.node)
            {
                peer.kind = PeerKind::Joining { attempt: 0, is_sent: false };
            }
        }
        let stays = |member: &Member| *member == self.me || !lost.contains(member);
        let rest: Vec<Member> = self.config.in_sync.iter().copied().filter(stays).collect();
        if rest.len() < self.config.in_sync.len() {
            let to = self.successor(self.me.node, rest);
            self.propose_change(to, effects);
        }
    }

    /// The map refused what this primary asked for, and may have said yes to an earlier asking: only an
    /// epoch beyond both makes that certain.
    pub(super) fn rejected(&mut self, refused: &ShardConfig, effects: &mut Vec<Effect>) {
        let Role::Primary(primary) = &self.role else { return };
        let is_newest = primary.proposed.last() == Some(refused);
        let is_same_set =
            refused.in_sync == self.config.in_sync && refused.primary == self.config.primary;
        if is_newest && !is_same_set {
            let to = self.successor_beyond_proposed();
            self.propose_change(to, effects);
        }
    }

    /// A joiner that may be in the set any moment is lost: the set without it, in an epoch of its own.
    fn start_afresh_if_proposed(&mut self, joiner: Member, effects: &mut Vec<Effect>) {
        let Role::Primary(primary) = &self.role else { return };
        let newest = primary.proposed.last();
        if newest.is_some_and(|it| it.in_sync.contains(&joiner)) {
            let to = self.successor_beyond_proposed();
            self.propose_change(to, effects);
        }
    }

    /// The present set once more, in an epoch that was not asked for yet.
    fn successor_beyond_proposed(&self) -> ShardConfig {
        let to = self.successor(self.me.node, self.config.in_sync.clone());
        let Role::Primary(primary) = &self.role else { return to };
        let asked = primary.proposed.iter().map(|it| it.epoch).max().unwrap_or_default();
        ShardConfig { epoch: to.epoch.max(asked.next()), ..to }
    }

    /// Brings a node in: its copy is to become this node's, from the last write on.
    pub(super) fn start_join(&mut self, member: Member, effects: &mut Vec<Effect>) {
        let (epoch, at) = (self.config.epoch, self.last());
        let is_in = |config: &ShardConfig| config.member(member.node).is_some();
        let is_counted = is_in(&self.config) || member.node == self.me.node;
        let Role::Primary(primary) = &mut self.role else { return };
        // One that is in the set, or may be any moment, must not begin anew. Nor must its next life: until the
        // set is without the one before, a takeover may count on what that life found (`Returned`).
        if is_counted || primary.proposed.iter().any(is_in) {
            return;
        }
        primary.joins += 1;
        let attempt = primary.joins;
        let kind = PeerKind::Joining { attempt, is_sent: false };
        let peer = Peer { member, matched: None, sent: Some(at), kind };
        primary.peers.insert(member.node, peer);
        let incarnation = member.incarnation;
        Self::send(member.node, Message::Join { epoch, incarnation, attempt, at }, effects);
    }

    /// All that a joiner lacked was sent.
    pub(super) fn finish_join(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        let (epoch, at) = (self.config.epoch, self.last());
        let Role::Primary(primary) = &mut self.role else { return };
        let Some(peer) = primary.peers.get_mut(&node) else { return };
        if let PeerKind::Joining { attempt, is_sent } = &mut peer.kind {
            *is_sent = true;
            let attempt = *attempt;
            Self::send(node, Message::Complete { epoch, attempt, at }, effects);
        }
    }

    pub(super) fn abort_join(&mut self, node: NodeId) {
        let Role::Primary(primary) = &mut self.role else { return };
        let may_be_in =
            primary.proposed.iter().any(|it| it.in_sync.iter().any(|it| it.node == node));
        if primary.peers.get(&node).is_some_and(|peer| peer.kind != PeerKind::InSync) && !may_be_in
        {
            primary.peers.remove(&node);
        }
    }

    /// A joiner's copy is whole.
    pub(super) fn joined(
        &mut self,
        from: Member,
        epoch: Epoch,
        attempt: u32,
        last: Version,
        effects: &mut Vec<Effect>,
    ) {
        let is_ours = self.log.place_of(last).is_some();
        let current = self.config.epoch;
        let Role::Primary(primary) = &mut self.role else { return };
        let Some(peer) = primary.peers.get_mut(&from.node) else { return };
        let is_meant = peer.kind == PeerKind::Joining { attempt, is_sent: true };
        if epoch != current || peer.member != from || !is_meant || !is_ours {
            return;
        }
        // What it acknowledged before, an earlier copy may have had.
        peer.matched = Some(last);
        peer.kind = PeerKind::Joined;
        self.admit(from.node, effects);
    }

    /// Takes a joiner whose copy is whole into the in-sync set.
    fn admit(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        let Role::Primary(primary) = &self.role else { return };
        let Some(peer) = primary.peers.get(&node) else { return };
        if peer.kind != PeerKind::Joined || primary.handing_over.is_some() {
            return;
        }
        let mut in_sync = self.config.in_sync.clone();
        in_sync.push(peer.member);
        let to = self.successor(self.me.node, in_sync);
        self.propose_change(to, effects);
    }

    /// Stops serving, and has `node` lead as soon as it has everything.
    pub(super) fn hand_over(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        let is_in = self.peers().any(|member| member.node == node);
        let Role::Primary(primary) = &mut self.role else { return };
        if !is_in || !primary.is_serving || primary.handing_over.is_some() {
            return;
        }
        primary.handing_over = Some(node);
        self.go_on_handing_over(effects);
    }

    fn go_on_handing_over(&mut self, effects: &mut Vec<Effect>) {
        let last = self.last();
        let Role::Primary(primary) = &self.role else { return };
        let Some(heir) = primary.handing_over else { return };
        // Rule 4, its other half: an heir inherits nothing that is not committed. Nor is any answer left
        // waiting when it leads.
        let is_committed = self.committed == last.sequence() || !self.keeps(Rule::RecommitTail);
        let has_all =
            is_committed && primary.peers.get(&heir).is_some_and(|peer| peer.matched == Some(last));
        let is_proposed = primary.proposed.iter().any(|it| it.primary == Some(heir));
        if !has_all || is_proposed {
            return;
        }
        let to = self.successor(heir, self.config.in_sync.clone());
        self.propose_change(to, effects);
    }

    /// Says again what may be lost.
    pub(super) fn retry(&mut self, effects: &mut Vec<Effect>) {
        self.insist(effects);
        self.tell_of_seal(effects);
        let Role::Primary(primary) = &self.role else { return };
        for to in primary.proposed.clone() {
            self.propose(to, effects);
        }
        let last = self.last();
        let behind: Vec<NodeId> = primary
            .peers
            .iter()
            .filter(|(_, peer)| peer.matched != Some(last))
            .filter(|(_, peer)| !matches!(peer.kind, PeerKind::Joining { .. }))
            .map(|(&node, _)| node)
            .collect();
        let joined: Vec<NodeId> = primary
            .peers
            .iter()
            .filter(|(_, peer)| peer.kind == PeerKind::Joined)
            .map(|(&node, _)| node)
            .collect();
        let sent: Vec<NodeId> = primary
            .peers
            .iter()
            .filter(|(_, peer)| matches!(peer.kind, PeerKind::Joining { is_sent: true, .. }))
            .map(|(&node, _)| node)
            .collect();
        for node in behind {
            self.probe(node, effects);
        }
        for node in sent {
            self.finish_join(node, effects);
        }
        for node in joined {
            self.admit(node, effects);
        }
    }

    /// Whether anything is open that [`super::Input::Retry`] would say again.
    pub fn has_open_business(&self) -> bool {
        let is_unheard = |peer: &Peer| match peer.kind {
            PeerKind::InSync => false,
            PeerKind::Joining { is_sent, .. } => is_sent,
            PeerKind::Joined => true,
        };
        match &self.role {
            Role::Primary(primary) => {
                let last = Some(self.last());
                !primary.proposed.is_empty()
                    || !primary.is_serving()
                    || primary.peers.values().any(|peer| peer.matched != last || is_unheard(peer))
            }
            Role::Candidate(_) => true,
            Role::Backup if self.is_sealed() => true,
            Role::Outside | Role::Joining { .. } | Role::Backup => {
                self.config.primary == Some(self.me.node)
            }
        }
    }

    /// The members that follow this primary and have not all of its log, with how far they are.
    pub fn lagging(&self) -> Vec<(NodeId, Sequence)> {
        let Role::Primary(primary) = &self.role else { return Vec::new() };
        let last = self.last();
        let behind = primary.peers.iter().filter(|(_, peer)| peer.matched != Some(last));
        behind.map(|(&node, peer)| (node, peer.matched.unwrap_or_default().sequence())).collect()
    }

    /// Whether no change of the configuration is under way.
    pub fn is_settled(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if primary.proposed.is_empty())
    }

    /// Those that are joining under this primary, each in the life in which it does.
    pub fn joiners(&self) -> Vec<Member> {
        let Role::Primary(primary) = &self.role else { return Vec::new() };
        let joining = primary.peers.values().filter(|peer| peer.kind != PeerKind::InSync);
        joining.map(|peer| peer.member).collect()
    }
}
