//! One replicated shard as one of its nodes sees it: primary and in-sync backups.
//!
//! ```text
//!   Outside ──Join──> Joining ──in-sync set──> Backup ──campaign──> Candidate ──map──> Primary
//!      ^                                         ^  handed over ─────────────────────────^ │
//!      └───────────── left out by the map ───────┴───────────── another leads ─────────────┘
//! ```
//!
//! The design is primary-backup replication with reconfiguration by a consensus service, as in `PacificA`
//! (Lin, Yang, Zhang, Zhou: "`PacificA`: Replication in Log-Based Distributed Storage Systems", Microsoft
//! Research, 2008). Logs match as in Raft (Ongaro and Ousterhout, 2014): each append names the write before
//! it, so two logs that end in the same [`Version`] are equal. The map ([`ShardConfig`]) names primary and
//! in-sync set; it changes by compare-and-set on its epoch, which grows with every change.
//!
//! Ten rules are necessary; breaking any one loses an acknowledged write or serves a stale read. Each is
//! kept where its number stands ([`Rule`]), and `shard/model_check.rs` breaks them one by one.
//!
//! - A follower has promised itself to one epoch and its leader, and answers nobody of a lower one.
//! - What is committed is on a write quorum of the in-sync set, and of every set that was proposed to come
//!   after it.
//! - Nothing here knows what a write is, what time it is, or how a message travels. Messages may be lost,
//!   doubled and overtaken; between [`Message::Join`] and [`Message::Complete`] the driver sends what the
//!   joiner lacks, and these three must come in their order or not at all.

mod backup;
mod log;
mod pending;
mod primary;
mod takeover;

#[cfg(test)]
mod model_check;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use smallvec::SmallVec;

pub use self::log::{Entry, Log};
pub use self::pending::Pending;
use self::primary::Primary;
use self::takeover::Candidate;
use crate::map::{Reconfigure, ShardConfig};
use crate::message::Message;
use crate::pool::Ack;
use crate::{Epoch, Member, NodeId, Sequence, ShardId, Version};

/// What this node has promised to others and others to it: leases, kept by whoever reads the clock.
pub trait Grants {
    /// Whether this node's promise to `node` not to seek promotion still binds it.
    fn binds_towards(&self, node: NodeId) -> bool;
    /// Whether `member`'s promise to this node can still be relied on.
    fn holds_from(&self, member: Member) -> bool;
}

/// The ten rules, by their numbers in the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// 1: a backup seals only after its own grant ran out, and before promotion.
    SealAfterGrant,
    /// 2: membership names the incarnation.
    Incarnations,
    /// 3: strict reads need live grants from a write quorum of the in-sync set.
    ReadQuorum,
    /// 4: a new primary commits its inherited tail again before it serves.
    RecommitTail,
    /// 5: while a change is pending, a commit satisfies the old set and the new.
    CommitBoth,
    /// 6: the sealed set has at least in-sync - write quorum + 1 members.
    SealQuorum,
    /// 7: a sealed member never acknowledges the old epoch.
    SealedIsSilent,
    /// 8: the read lease too satisfies both sets while a change is pending.
    ReadBoth,
    /// 9: a change is proposed only if a quorum of the new set holds all that is committed.
    ShrinkCovered,
    /// 10: promotion: seal, bring the sealed set to the best log, then commit with in-sync = that set.
    SyncSealed,
}

/// What a replica hears.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// The map says this of the shard.
    Configured(ShardConfig),
    /// A message from another member.
    Received {
        /// The sender, in the life in which it sent.
        from: Member,
        /// What it said.
        message: Message,
    },
    /// The connection to a node is new: what was under way before may be lost.
    Connected(NodeId),
    /// The primary is overdue: seek promotion, or go on seeking it with what has answered. To be repeated
    /// while that lasts.
    Campaign,
    /// A member's process is another by now; said to a candidate, also of the primary.
    Returned(Returned),
    /// These are overdue, or their lives have ended: lead on without them, and bring none of them in.
    MembersLost(Vec<Member>),
    /// A node that is to join said what it has; bring it in from here.
    StartJoin(Member),
    /// All that the joiner lacked was sent.
    FinishJoin(NodeId),
    /// The join cannot go on.
    AbortJoin(NodeId),
    /// Let `NodeId` lead, which is in sync.
    HandOver(NodeId),
    /// Lead on without a member that is not wanted any more.
    LetGo(Member),
    /// The map refused this configuration.
    Rejected(ShardConfig),
    /// What was sent may be lost, or a proposal: say it again. To be repeated while something is open.
    Retry,
}

/// What became of a member of the in-sync set whose life has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Returned {
    /// The node in its present life, which is a later one.
    pub member: Member,
    /// Where that life found its log to end when it began; `None` if it found none. To be said only of a
    /// copy that no join has touched since.
    pub last: Option<Version>,
}

/// What a replica asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Send this.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Carry out a write that another ordered.
    Apply(Entry),
    /// Writes up to this one are committed: answers that wait for them may go.
    Committed(Sequence),
    /// Have the map changed.
    Propose(Reconfigure),
    /// This node leads and serves the shard from now on.
    Serves,
    /// It does not any more. Answers that still wait have an unknown outcome.
    Deposed,
}

/// Whom a replica follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Promise {
    epoch: Epoch,
    leader: Option<NodeId>,
}

/// What a replica is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Role {
    /// Its copy, if any, counts for nothing.
    Outside,
    /// Its copy is being brought up to the primary's.
    Joining {
        /// The primary's number of this join.
        attempt: u32,
        is_complete: bool,
    },
    /// In sync.
    Backup,
    /// In sync, and seeking promotion.
    Candidate(Candidate),
    /// Orders writes.
    Primary(Primary),
}

/// One shard on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    id: ShardId,
    me: Member,
    ack: Ack,
    config: ShardConfig,
    promise: Promise,
    log: Log,
    committed: Sequence,
    role: Role,
    #[cfg(test)]
    broken: Option<Rule>,
}

impl Replica {
    /// A shard of which this node, in this life, has nothing that counts yet. `recovered` is where its log
    /// stood in an earlier life, as far as what that life left can tell.
    pub fn new(id: ShardId, me: Member, ack: Ack, recovered: Version) -> Self {
        Self {
            id,
            me,
            ack,
            config: ShardConfig::default(),
            promise: Promise { epoch: Epoch::default(), leader: None },
            log: Log::at(recovered),
            committed: Sequence(0),
            role: Role::Outside,
            #[cfg(test)]
            broken: None,
        }
    }

    /// Which shard.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// What the map says of it, as far as this node has heard.
    pub fn config(&self) -> &ShardConfig {
        &self.config
    }

    /// The end of its log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Where its log ends.
    #[inline]
    pub fn last(&self) -> Version {
        self.log.last()
    }

    /// What a later life should find of a copy that counts: where its log ends. A log without a write ends
    /// just before the first that any could have: that it is empty is known, and nothing was lost, but whatever
    /// has a write is better.
    pub fn position(&self) -> Version {
        match self.last() {
            Version::ZERO if self.is_in_sync() => Version::new(Epoch(1), Sequence(0)),
            last => last,
        }
    }

    /// Writes up to this one are known to be committed.
    #[inline]
    pub fn committed(&self) -> Sequence {
        self.committed
    }

    /// Whether this node orders the shard's writes and serves it.
    #[inline]
    pub fn is_serving(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if primary.is_serving())
    }

    /// Whether this node is the primary, serving or about to.
    pub fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary(_))
    }

    /// Whether this node's copy counts.
    pub fn is_in_sync(&self) -> bool {
        matches!(self.role, Role::Backup | Role::Candidate(_) | Role::Primary(_))
    }

    /// Whether this node's copy is being brought up to the primary's.
    pub fn is_joining(&self) -> bool {
        matches!(self.role, Role::Joining { .. })
    }

    /// Whether this node's copy is being brought up to that of `node`, which it follows: what another sends it
    /// for that purpose is of a time that is over, however late it arrives.
    pub fn joins_under(&self, node: NodeId) -> bool {
        self.is_joining() && self.promise.leader == Some(node)
    }

    /// Whether this node seeks promotion.
    pub fn is_candidate(&self) -> bool {
        matches!(self.role, Role::Candidate(_))
    }

    /// Whether this node has promised to follow nobody of the present configuration.
    pub fn is_sealed(&self) -> bool {
        self.promise.epoch > self.config.epoch
    }

    /// The primary that this node must not renew its grant to, because it has promised itself to whoever is
    /// to come after it.
    pub fn withholds_from(&self) -> Option<NodeId> {
        self.config.primary.filter(|_| self.is_sealed() && self.is_in_sync())
    }

    /// What a role is called in `status`.
    pub fn role_name(&self) -> &'static str {
        match &self.role {
            Role::Outside => "outside",
            Role::Joining { .. } => "joining",
            Role::Backup => "backup",
            Role::Candidate(_) => "candidate",
            Role::Primary(primary) if primary.is_serving() => "primary",
            Role::Primary(_) => "primary (not serving)",
        }
    }

    /// Advances by one input and appends to `effects` what the driver must do, in this order.
    pub fn step(&mut self, input: Input, grants: &impl Grants, effects: &mut Vec<Effect>) {
        match input {
            Input::Configured(config) => self.configure(config, effects),
            Input::Received { from, message } => self.receive(from, message, grants, effects),
            Input::Connected(node) => self.connected(node, effects),
            Input::Campaign => self.campaign(grants, effects),
            Input::Returned(returned) => self.returned(returned, effects),
            Input::MembersLost(lost) => self.drop_members(&lost, effects),
            Input::LetGo(member) => self.drop_members(&[member], effects),
            Input::StartJoin(member) => self.start_join(member, effects),
            Input::FinishJoin(node) => self.finish_join(node, effects),
            Input::AbortJoin(node) => self.abort_join(node),
            Input::HandOver(node) => self.hand_over(node, effects),
            Input::Rejected(config) => self.rejected(&config, effects),
            Input::Retry => self.retry(effects),
        }
    }

    fn receive(
        &mut self,
        from: Member,
        message: Message,
        grants: &impl Grants,
        effects: &mut Vec<Effect>,
    ) {
        match message {
            Message::Append(append) => self.follow(from.node, append, effects),
            Message::Appended { epoch, last } => self.appended(from, epoch, last, effects),
            Message::Mismatch { epoch, last, promised } => {
                self.mismatched(from, epoch, last, promised, effects);
            }
            Message::Seal(seal) => self.seal(from.node, &seal, grants, effects),
            Message::Sealed { ballot, last, beyond } => {
                self.sealed(from, ballot, last, beyond, effects);
            }
            Message::SealRefused { ballot, promised } => self.seal_refused(ballot, promised),
            Message::Join { epoch, incarnation, attempt, at } => {
                if incarnation == self.me.incarnation {
                    self.join(from.node, epoch, attempt, at, effects);
                }
            }
            Message::Complete { epoch, attempt, at } => {
                self.complete(from.node, epoch, attempt, at, effects);
            }
            Message::Joined { epoch, attempt, last } => {
                self.joined(from, epoch, attempt, last, effects);
            }
        }
    }

    /// The map changed.
    fn configure(&mut self, config: ShardConfig, effects: &mut Vec<Effect>) {
        if config.epoch <= self.config.epoch {
            return;
        }
        let is_member = config.in_sync.iter().any(|&member| self.is_me(member));
        let leads = is_member && config.primary == Some(self.me.node);
        self.config = config;
        if self.config.epoch >= self.promise.epoch {
            self.promise = Promise { epoch: self.config.epoch, leader: self.config.primary };
        }
        let was_primary = self.is_primary();
        match (&mut self.role, leads, is_member) {
            (Role::Primary(_), true, _) => self.lead_on(effects),
            // It joins a primary in whose epoch it is no member: what came before that epoch is over, and its
            // copy is half of what it was then.
            (Role::Joining { .. }, _, true) if self.promise.epoch > self.config.epoch => {}
            (_, true, _) if self.promise.epoch == self.config.epoch => self.lead(effects),
            (_, _, true) => self.role = Role::Backup,
            (Role::Joining { .. }, false, false) => {}
            (_, _, false) => self.role = Role::Outside,
        }
        if was_primary && !self.is_primary() {
            effects.push(Effect::Deposed);
        }
        self.insist(effects);
    }

    /// The map appointed this node after it had promised itself to a later candidate: it must not lead what
    /// it has promised away, and asks to be appointed to an epoch beyond that promise.
    fn insist(&self, effects: &mut Vec<Effect>) {
        let is_appointed = self.config.primary == Some(self.me.node)
            && self.config.in_sync.iter().any(|&member| self.is_me(member));
        if is_appointed && !self.is_primary() {
            let to = ShardConfig { epoch: self.promise.epoch.next(), ..self.config.clone() };
            self.propose(to, effects);
        }
    }

    fn propose(&self, to: ShardConfig, effects: &mut Vec<Effect>) {
        let change = Reconfigure { shard: self.id, from: self.config.epoch, to };
        effects.push(Effect::Propose(change));
    }

    /// Whether a member of the in-sync set is this node in this life.
    fn is_me(&self, member: Member) -> bool {
        // Rule 2.
        member == self.me || (!self.keeps(Rule::Incarnations) && member.node == self.me.node)
    }

    /// How many of `in_sync` must have a write.
    fn write_quorum(&self, in_sync: usize) -> usize {
        self.ack.write_quorum(in_sync)
    }

    /// Whether a rule is kept: always, but for a test that breaks it.
    #[inline]
    #[cfg_attr(
        not(test),
        expect(clippy::unused_self, reason = "only a test has a replica that breaks a rule")
    )]
    fn keeps(&self, rule: Rule) -> bool {
        #[cfg(test)]
        return self.broken != Some(rule);
        #[cfg(not(test))]
        {
            let _ = rule;
            true
        }
    }

    fn send(to: NodeId, message: Message, effects: &mut Vec<Effect>) {
        effects.push(Effect::Send { to, message });
    }
}

/// The greatest sequence number that `quorum` of these have.
fn quorum_position(positions: impl Iterator<Item = Sequence>, quorum: usize) -> Sequence {
    let Some(others) = quorum.checked_sub(1) else { return Sequence::default() };
    let mut positions: SmallVec<[Sequence; 8]> = positions.collect();
    positions.sort_unstable_by_key(|&position| Reverse(position));
    positions.get(others).copied().unwrap_or_default()
}

/// How far each follower is known to be.
type Positions = BTreeMap<NodeId, Version>;
