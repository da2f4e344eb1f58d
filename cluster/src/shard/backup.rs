//! A follower: applies writes in order, seals for a candidate, joins.

use super::{Effect, Grants, Log, Replica, Role, Rule};
use crate::message::{Append, Message, Seal};
use crate::shard::Promise;
use crate::{Epoch, NodeId, Sequence, Version};

impl Replica {
    /// Whether this replica follows `leader` in `epoch`, from now on at the latest.
    ///
    /// A greater epoch than promised is that of a primary that the map appointed, or of a candidate that
    /// this replica has sealed for: nobody else sends it anything to follow.
    fn follows(&mut self, leader: NodeId, epoch: Epoch) -> bool {
        // Rule 7: a promise to one epoch is a refusal of every lower one.
        let refused = epoch < self.promise.epoch && self.keeps(Rule::SealedIsSilent);
        if refused || epoch < self.config.epoch {
            return false;
        }
        if epoch > self.promise.epoch {
            self.promise = Promise { epoch, leader: Some(leader) };
            if let Role::Candidate(_) = self.role {
                self.role = Role::Backup;
            }
        }
        epoch < self.promise.epoch || self.promise.leader == Some(leader)
    }

    /// Writes to apply.
    pub(super) fn follow(&mut self, leader: NodeId, append: Append, effects: &mut Vec<Effect>) {
        // One that is outside has nothing that could match, and is asked again once it joins.
        if matches!(self.role, Role::Outside) {
            return;
        }
        let epoch = append.epoch;
        let follows = !self.is_primary() && self.follows(leader, epoch);
        // What comes before is either the last write, or kept: then the overlap is looked at.
        let place = if follows { self.log.place_of(append.prev) } else { None };
        let Some(mut place) = place else { return self.refuse(leader, epoch, effects) };
        let mut matched = append.prev;
        for entry in append.entries {
            let version = entry.version;
            if let Some(kept) = self.log.next(place) {
                if kept.version != version {
                    // Another history: this copy has what the leader never had.
                    return self.refuse(leader, epoch, effects);
                }
            } else {
                self.log.push(entry.clone());
                effects.push(Effect::Apply(entry));
            }
            place += 1;
            matched = version;
        }
        self.committed = self.committed.max(append.committed.min(matched.sequence()));
        self.log.forget(append.stable.min(self.committed));
        let appended = Message::Appended { epoch, last: matched };
        Self::send(leader, appended, effects);
    }

    /// Says where this replica stands, and whom it follows.
    fn refuse(&self, leader: NodeId, epoch: Epoch, effects: &mut Vec<Effect>) {
        // A ballot may have the number of the epoch that another won. Who has promised itself to that ballot
        // learns of the epoch from the map, and has not heard of it until then.
        let is_of_another = self.promise.epoch == epoch && self.promise.leader != Some(leader);
        let promised = if is_of_another { self.config.epoch } else { self.promise.epoch };
        let mismatch = Message::Mismatch { epoch, last: self.last(), promised };
        Self::send(leader, mismatch, effects);
    }

    /// A sealed member grants its primary nothing, and answers nothing that it is not asked. Should the primary
    /// be alive after all, it hears of the seal and moves on to an epoch beyond.
    pub(super) fn tell_of_seal(&self, effects: &mut Vec<Effect>) {
        let is_follower = matches!(self.role, Role::Backup | Role::Candidate(_));
        if let Some(primary) = self.config.primary
            && is_follower
            && self.is_sealed()
            && primary != self.me.node
        {
            self.refuse(primary, self.config.epoch, effects);
        }
    }

    /// A candidate asks to be followed instead of the primary.
    pub(super) fn seal(
        &mut self,
        candidate: NodeId,
        seal: &Seal,
        grants: &impl Grants,
        effects: &mut Vec<Effect>,
    ) {
        let ballot = seal.ballot;
        let is_meant = self.is_in_sync()
            && !self.is_primary()
            && (seal.incarnation == self.me.incarnation || !self.keeps(Rule::Incarnations))
            && seal.from >= self.config.epoch;
        if !is_meant {
            return;
        }
        // Rule 1: as long as its own grant binds it, this node takes no part in ending the primary's term.
        if grants.binds_towards(seal.primary) && self.keeps(Rule::SealAfterGrant) {
            return;
        }
        let again = Promise { epoch: ballot, leader: Some(candidate) } == self.promise;
        if ballot <= self.promise.epoch && !again {
            let promised = self.promise.epoch;
            return Self::send(candidate, Message::SealRefused { ballot, promised }, effects);
        }
        self.promise = Promise { epoch: ballot, leader: Some(candidate) };
        self.role = Role::Backup;
        let beyond = self
            .log
            .place_of(seal.last)
            .map(|place| self.log.after(place).cloned().collect())
            .unwrap_or_default();
        let sealed = Message::Sealed { ballot, last: self.last(), beyond };
        Self::send(candidate, sealed, effects);
    }

    /// Whether this replica may say what it has to `leader`, which is about to bring it in, in `epoch`. From then
    /// on nothing changes this copy but what `leader` sends, or `leader` is told that its epoch is over. So a
    /// primary that has not heard of its successor may not: it would go on writing.
    pub fn may_tell(&mut self, leader: NodeId, epoch: Epoch) -> bool {
        // One that is promised to a later epoch takes nothing of this one, and answers the join with where it
        // stands, which is how the primary hears of it.
        !self.is_primary() && (self.promise.epoch > epoch || self.follows(leader, epoch))
    }

    /// The primary begins to bring this copy to its own.
    pub(super) fn join(
        &mut self,
        leader: NodeId,
        epoch: Epoch,
        attempt: u32,
        at: Version,
        effects: &mut Vec<Effect>,
    ) {
        // A member of the in-sync set has nothing to learn this way: a message from before it was one.
        if self.is_in_sync() {
            return;
        }
        if !self.follows(leader, epoch) {
            // What it promised while it was a member may be beyond the primary's epoch.
            return self.refuse(leader, epoch, effects);
        }
        self.role = Role::Joining { attempt, is_complete: false };
        self.log = Log::at(at);
        // What of it is committed the primary will say.
        self.committed = Sequence(0);
    }

    /// The primary has sent all.
    pub(super) fn complete(
        &mut self,
        leader: NodeId,
        epoch: Epoch,
        attempt: u32,
        at: Version,
        effects: &mut Vec<Effect>,
    ) {
        let is_its_end =
            matches!(self.role, Role::Joining { attempt: begun, .. } if begun == attempt);
        if self.is_in_sync() {
            return;
        }
        if !is_its_end || !self.follows(leader, epoch) || self.log.place_of(at).is_none() {
            // Its beginning was lost or refused: the primary waits in vain.
            return self.refuse(leader, epoch, effects);
        }
        self.role = Role::Joining { attempt, is_complete: true };
        let last = self.last();
        Self::send(leader, Message::Joined { epoch, attempt, last }, effects);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use smallvec::smallvec;

    use super::*;
    use crate::map::ShardConfig;
    use crate::pool::Ack;
    use crate::shard::{Entry, Input};
    use crate::{Incarnation, Member, ShardId};

    const OLD: NodeId = NodeId(1);
    const ME: NodeId = NodeId(2);
    const NEW: NodeId = NodeId(3);

    /// Nobody has promised anything.
    struct Nothing;

    impl Grants for Nothing {
        fn binds_towards(&self, _: NodeId) -> bool {
            false
        }
        fn holds_from(&self, _: Member) -> bool {
            false
        }
    }

    fn member(node: NodeId) -> Member {
        Member { node, incarnation: Incarnation(1) }
    }

    /// A member of epoch 1, led by `primary`.
    fn member_under(primary: NodeId) -> Replica {
        let mut replica = Replica::new(ShardId(0), member(ME), Ack::All, Version::ZERO);
        let in_sync = vec![member(OLD), member(ME)];
        let config = ShardConfig { epoch: Epoch(1), primary: Some(primary), in_sync };
        replica.step(Input::Configured(config), &Nothing, &mut Vec::new());
        replica
    }

    #[test]
    fn who_said_what_it_has_takes_nothing_from_an_earlier_primary() {
        let mut replica = member_under(OLD);
        assert!(replica.may_tell(NEW, Epoch(2)));
        let version = Version::new(Epoch(1), Sequence(1));
        let late = Append {
            epoch: Epoch(1),
            prev: Version::ZERO,
            committed: Sequence(0),
            stable: Sequence(0),
            entries: smallvec![Entry { version, op: Bytes::new() }],
        };
        let mut effects = Vec::new();
        let message = Message::Append(late);
        replica.step(Input::Received { from: member(OLD), message }, &Nothing, &mut effects);
        assert!(!effects.iter().any(|it| matches!(it, Effect::Apply(_))), "{effects:?}");
        assert_eq!(replica.last(), Version::ZERO);
    }

    #[test]
    fn primary_that_has_not_heard_of_its_successor_does_not_say_what_it_has() {
        assert!(!member_under(ME).may_tell(NEW, Epoch(2)));
    }

    #[test]
    fn primary_whose_epoch_is_over_is_answered_and_its_join_refused() {
        let mut replica = member_under(OLD);
        assert!(replica.may_tell(NEW, Epoch(3)));
        let gone = ShardConfig { epoch: Epoch(2), primary: Some(OLD), in_sync: vec![member(OLD)] };
        replica.step(Input::Configured(gone), &Nothing, &mut Vec::new());
        assert!(replica.may_tell(OLD, Epoch(2)), "or it would never hear");
        let mut effects = Vec::new();
        let incarnation = Incarnation(1);
        let message = Message::Join { epoch: Epoch(2), incarnation, attempt: 1, at: Version::ZERO };
        replica.step(Input::Received { from: member(OLD), message }, &Nothing, &mut effects);
        let promised = Epoch(3);
        let refused = Message::Mismatch { epoch: Epoch(2), last: Version::ZERO, promised };
        assert_eq!(effects, [Effect::Send { to: OLD, message: refused }]);
    }
}
