//! Seal, sync, promote: how a backup takes over from a primary that is gone.
//!
//! ```text
//! campaign ──Seal──> each backup      sealed: enough of them, this node counted
//!          <─Sealed─                  adopt the longest log
//!          ──Append─>                 the others get what they lack, under the ballot
//!          <─Appended─                all of them have it: propose to lead, with these in sync
//! ```
//!
//! A member whose life has ended acknowledges nothing any more, so what its next life found counts as its
//! seal; should that be the best log, the candidate asks the map to have that node lead ([`Returned`]). This
//! needs that the primary's life has ended too: a primary that lives may still read by the grants of the dead.
//!
//! A ballot is an epoch that nobody has used: who has promised itself to one refuses lower ones, and the map
//! takes the first proposal alone that starts from its epoch. So two candidates may meet; at most one leads.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{Effect, Grants, Positions, Promise, Replica, Returned, Role, Rule};
use crate::map::{Reconfigure, ShardConfig};
use crate::message::{Append, Message, Seal};
use crate::shard::Entry;
use crate::{Epoch, Member, NodeId, Version};

/// What a candidate has gathered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Candidate {
    ballot: Epoch,
    /// Sealed members, with where their logs ended when they answered.
    sealed: Positions,
    /// Those of them that are known to have all of this node's log.
    matched: BTreeSet<NodeId>,
    /// Members whose lives have ended.
    returned: BTreeMap<NodeId, Returned>,
    /// What the map was asked for.
    proposed: Option<ShardConfig>,
}

impl Candidate {
    /// The ballot, which is the epoch if this candidate wins.
    pub(super) fn ballot(&self) -> Epoch {
        self.ballot
    }

    /// Where the sealed members' logs are known to end, for the primary to go on from.
    pub(super) fn matched(&self) -> &BTreeSet<NodeId> {
        &self.matched
    }

    /// Where the logs of members ended whose lives have, but for those that sealed before: none, as long as
    /// the primary's life may go on.
    fn seals_of_the_ended(&self, primary: NodeId) -> impl Iterator<Item = (Version, Member)> {
        let is_over = self.returned.contains_key(&primary);
        let found = self.returned.values().filter(move |it| {
            // Rule 1: a grant outlives who gave it, and a primary that lives may still read by it.
            is_over && !self.sealed.contains_key(&it.member.node)
        });
        found.filter_map(|it| Some((it.last?, it.member)))
    }
}

impl Replica {
    /// Seeks promotion, or goes on.
    pub(super) fn campaign(&mut self, grants: &impl Grants, effects: &mut Vec<Effect>) {
        let Some(primary) = self.config.primary else { return };
        let is_backup = matches!(self.role, Role::Backup | Role::Candidate(_));
        if !is_backup || primary == self.me.node {
            return;
        }
        // Rule 1.
        if grants.binds_towards(primary) && self.keeps(Rule::SealAfterGrant) {
            return;
        }
        if let Role::Candidate(candidate) = &self.role
            && self.promise == (Promise { epoch: candidate.ballot, leader: Some(self.me.node) })
        {
            self.ask_for_seals(effects);
            self.promote_if_enough(true, effects);
            return;
        }
        let ballot = self.promise.epoch.next();
        self.promise = Promise { epoch: ballot, leader: Some(self.me.node) };
        self.role = Role::Candidate(Candidate {
            ballot,
            sealed: BTreeMap::new(),
            matched: BTreeSet::new(),
            returned: BTreeMap::new(),
            proposed: None,
        });
        self.ask_for_seals(effects);
        self.promote_if_enough(false, effects);
    }

    /// Gives up a campaign that cannot win any more.
    fn withdraw(&mut self) {
        self.role = Role::Backup;
    }

    /// Asks those of the in-sync set that have not answered; sends those that lag what they lack.
    fn ask_for_seals(&self, effects: &mut Vec<Effect>) {
        let Role::Candidate(candidate) = &self.role else { return };
        let Some(primary) = self.config.primary else { return };
        for member in self.peers_but(primary) {
            if !candidate.sealed.contains_key(&member.node) {
                let seal = Seal {
                    from: self.config.epoch,
                    primary,
                    incarnation: member.incarnation,
                    ballot: candidate.ballot,
                    last: self.last(),
                };
                Self::send(member.node, Message::Seal(seal), effects);
            } else if !candidate.matched.contains(&member.node) {
                self.bring_up(candidate, member.node, effects);
            }
        }
    }

    /// The in-sync set without this node and `primary`.
    fn peers_but(&self, primary: NodeId) -> impl Iterator<Item = Member> {
        let me = self.me.node;
        let others = self.config.in_sync.iter().copied();
        others.filter(move |member| member.node != me && member.node != primary)
    }

    /// Sends a sealed member what it lacks of this node's log.
    fn bring_up(&self, candidate: &Candidate, node: NodeId, effects: &mut Vec<Effect>) {
        let Some(place) = candidate.sealed.get(&node).and_then(|&last| self.log.place_of(last))
        else {
            // It has what this node has not, and no candidate can make it forget. It joins again later.
            return;
        };
        let append = Append {
            epoch: candidate.ballot,
            prev: candidate.sealed[&node],
            committed: self.committed,
            stable: self.log.base().sequence(),
            entries: self.log.after(place).cloned().collect(),
        };
        Self::send(node, Message::Append(append), effects);
    }

    /// A member has sealed.
    pub(super) fn sealed(
        &mut self,
        from: Member,
        ballot: Epoch,
        last: Version,
        beyond: Vec<Entry>,
        effects: &mut Vec<Effect>,
    ) {
        let is_asked = self.is_current(from);
        let Role::Candidate(candidate) = &mut self.role else { return };
        if candidate.ballot != ballot || candidate.proposed.is_some() || !is_asked {
            return;
        }
        candidate.sealed.insert(from.node, last);
        if last > self.log.last() {
            // The best log wins. One that does not go on from this node's must lead itself.
            let place = self.log.last();
            let goes_on = beyond
                .first()
                .is_some_and(|first| first.version.sequence().0 == place.sequence().0 + 1)
                && beyond.last().is_some_and(|entry| entry.version == last);
            if !goes_on {
                return self.withdraw();
            }
            candidate.matched.clear();
            for entry in beyond {
                effects.push(Effect::Apply(entry.clone()));
                self.log.push(entry);
            }
        }
        let mine = self.log.last();
        for (&node, &theirs) in &candidate.sealed {
            if theirs == mine {
                candidate.matched.insert(node);
            }
        }
        self.ask_for_seals(effects);
        self.promote_if_enough(false, effects);
    }

    /// A member follows another of at least this ballot.
    pub(super) fn seal_refused(&mut self, ballot: Epoch, promised: Epoch) {
        let Role::Candidate(candidate) = &self.role else { return };
        if candidate.ballot != ballot || candidate.proposed.is_some() {
            return;
        }
        // The next campaign has a greater ballot than the one it lost against.
        self.promise = Promise { epoch: self.promise.epoch.max(promised), leader: None };
        self.withdraw();
    }

    /// A sealed member has all of this log up to `last`.
    pub(super) fn matched_ballot(
        &mut self,
        from: Member,
        epoch: Epoch,
        last: Version,
        effects: &mut Vec<Effect>,
    ) {
        let mine = self.last();
        let is_asked = self.is_current(from);
        let Role::Candidate(candidate) = &mut self.role else { return };
        if candidate.ballot != epoch || !is_asked || candidate.proposed.is_some() {
            return;
        }
        if last == mine && candidate.sealed.contains_key(&from.node) {
            candidate.sealed.insert(from.node, last);
            candidate.matched.insert(from.node);
            self.promote_if_enough(false, effects);
        }
    }

    /// A member's life has ended, and this is what its next one found.
    pub(super) fn returned(&mut self, returned: Returned, effects: &mut Vec<Effect>) {
        let node = returned.member.node;
        let has_ended = |member: Member| member.incarnation < returned.member.incarnation;
        let is_member = self.config.member(node).is_some_and(has_ended);
        let Role::Candidate(candidate) = &mut self.role else { return };
        if is_member {
            candidate.returned.insert(node, returned);
            self.promote_if_enough(false, effects);
        }
    }

    /// Whether this is a member of the in-sync set in the life that the map names.
    pub(super) fn is_current(&self, member: Member) -> bool {
        // Rule 2.
        self.config
            .in_sync
            .iter()
            .any(|&it| it == member || (!self.keeps(Rule::Incarnations) && it.node == member.node))
    }

    /// Asks the map for promotion once enough members have sealed and have this node's log. As long as
    /// others may still answer, `is_late` says that they had their time.
    fn promote_if_enough(&mut self, is_late: bool, effects: &mut Vec<Effect>) {
        let Role::Candidate(candidate) = &self.role else { return };
        let Some(primary) = self.config.primary else { return };
        let in_sync = self.config.in_sync.len();
        let sealed = candidate.sealed.len() + 1;
        let everyone = self.peers_but(primary).count() + 1;
        // Rule 6: every write quorum has a member among the sealed, so the best log has all that is
        // committed.
        let enough = in_sync + 1 - self.write_quorum(in_sync).min(in_sync);
        let ended = candidate.seals_of_the_ended(primary).count();
        if sealed + ended < enough && self.keeps(Rule::SealQuorum) {
            return;
        }
        // Rule 10: the new in-sync set is sealed, and has this log.
        let syncs = self.keeps(Rule::SyncSealed);
        let ready = candidate.matched.len() + 1;
        if ready < sealed && syncs && !is_late || (sealed < everyone && !is_late) {
            return;
        }
        let to = match &candidate.proposed {
            // What was asked for another is asked anew: that one may have ended once more.
            Some(proposed) if proposed.primary == Some(self.me.node) => proposed.clone(),
            _ => self.promotion(candidate, primary),
        };
        if let Role::Candidate(candidate) = &mut self.role {
            candidate.proposed = Some(to.clone());
        }
        let from = self.config.epoch;
        effects.push(Effect::Propose(Reconfigure { shard: self.id, from, to }));
    }

    /// Who is to lead, with whom: the best log that is known.
    fn promotion(&self, candidate: &Candidate, primary: NodeId) -> ShardConfig {
        let epoch = candidate.ballot;
        let found = candidate.seals_of_the_ended(primary);
        if let Some((last, best)) = found.max_by_key(|&(last, member)| (last, Reverse(member.node)))
            && last > self.last()
        {
            return ShardConfig { epoch, primary: Some(best.node), in_sync: vec![best] };
        }
        let syncs = self.keeps(Rule::SyncSealed);
        let is_in = |member: &Member| {
            member.node == self.me.node
                || candidate.matched.contains(&member.node)
                || (!syncs && member.node != primary)
        };
        let mut in_sync: Vec<Member> = self.config.in_sync.iter().copied().filter(is_in).collect();
        in_sync.sort_unstable();
        ShardConfig { epoch, primary: Some(self.me.node), in_sync }
    }
}
