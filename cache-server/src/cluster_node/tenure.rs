//! Which shards this node serves, told to the log once a takeover and not once a shard.
//!
//! A lost node is a matter of hundreds of shards within some milliseconds: what changes is gathered until it
//! has been quiet for [`QUIET`], and told as one line. Each shard's own line is there at `DEBUG`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use cluster::{Epoch, Instant, ShardId};

/// Changes belong together that are no further apart.
const QUIET: Duration = Duration::from_millis(200);
/// What goes on changing is told this often.
const PATIENCE: Duration = Duration::from_secs(2);
/// Runs of shards that are listed.
const RUNS_MAX: usize = 8;

/// What this node serves, and what of it was not told yet.
#[derive(Debug, Default)]
pub(super) struct Tenure {
    serving: BTreeMap<ShardId, Epoch>,
    gained: Shards,
    lost: Shards,
    /// The first and the last change that was not told.
    changed: Option<(Instant, Instant)>,
}

/// Shards with their epochs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shards(BTreeMap<ShardId, Epoch>);

impl Tenure {
    /// A shard is served here in this epoch, or is not.
    pub(super) fn note(&mut self, now: Instant, shard: ShardId, serves: Option<Epoch>) {
        match (serves, self.serving.get(&shard).copied()) {
            // A change of its in-sync set alone.
            (Some(epoch), Some(_)) => drop(self.serving.insert(shard, epoch)),
            (Some(epoch), None) => {
                self.serving.insert(shard, epoch);
                self.lost.0.remove(&shard);
                self.gained.0.insert(shard, epoch);
                self.changed_at(now);
            }
            (None, Some(epoch)) => {
                self.serving.remove(&shard);
                self.gained.0.remove(&shard);
                self.lost.0.insert(shard, epoch);
                self.changed_at(now);
            }
            (None, None) => {}
        }
    }

    fn changed_at(&mut self, now: Instant) {
        let first = self.changed.map_or(now, |(first, _)| first);
        self.changed = Some((first, now));
    }

    /// What came and what went, when that is to be told.
    pub(super) fn take_news(&mut self, now: Instant) -> Option<(Shards, Shards)> {
        let (first, last) = self.changed?;
        if now.since(last) < QUIET && now.since(first) < PATIENCE {
            return None;
        }
        self.changed = None;
        Some((std::mem::take(&mut self.gained), std::mem::take(&mut self.lost)))
    }

    /// How many shards are served here.
    pub(super) fn count(&self) -> usize {
        self.serving.len()
    }
}

impl Shards {
    /// How many.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The least and the greatest epoch.
    pub(super) fn epochs(&self) -> String {
        let (least, greatest) = (self.0.values().min(), self.0.values().max());
        match (least, greatest) {
            (Some(least), Some(greatest)) if least == greatest => least.to_string(),
            (Some(least), Some(greatest)) => format!("{least}-{greatest}"),
            _ => String::new(),
        }
    }
}

impl fmt::Display for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<u16> = self.0.keys().map(|shard| shard.0).collect();
        for (index, run) in ids.chunk_by(|a, b| a + 1 == *b).enumerate() {
            if index == RUNS_MAX {
                return f.write_str(",...");
            }
            f.write_str(if index == 0 { "" } else { "," })?;
            match run {
                [first, .., last] => write!(f, "{first}-{last}")?,
                _ => write!(f, "{}", run[0])?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO.after(Duration::from_millis(ms))
    }

    #[test]
    fn a_takeover_is_told_as_one() {
        let mut tenure = Tenure::default();
        for (shard, epoch) in [(1, 3), (2, 4), (3, 4), (9, 3)] {
            tenure.note(at(u64::from(shard)), ShardId(shard), Some(Epoch(epoch)));
            assert_eq!(tenure.take_news(at(10)), None, "more may follow");
        }
        let (gained, lost) = tenure.take_news(at(300)).unwrap();
        assert_eq!((gained.to_string(), gained.epochs()), ("1-3,9".into(), "3-4".into()));
        assert_eq!((gained.count(), lost.count(), tenure.count()), (4, 0, 4));
        tenure.note(at(400), ShardId(2), Some(Epoch(7)));
        assert_eq!(tenure.take_news(at(900)), None, "who else is in sync is no takeover");
        tenure.note(at(1000), ShardId(9), None);
        let (gained, lost) = tenure.take_news(at(1200)).unwrap();
        assert_eq!((gained.count(), lost.to_string(), lost.epochs()), (0, "9".into(), "3".into()));
    }

    #[test]
    fn what_never_rests_is_told_now_and_then() {
        let mut tenure = Tenure::default();
        let told = (0..50).filter(|&step| {
            let (now, shard) = (at(u64::from(step) * 100), ShardId(step));
            tenure.note(now, shard, Some(Epoch(1)));
            tenure.take_news(now).is_some()
        });
        assert_eq!(told.count(), 2);
    }

    #[test]
    fn many_runs_are_cut_short() {
        let shards = Shards((0..40).map(|shard| (ShardId(shard * 2), Epoch(1))).collect());
        assert_eq!(shards.to_string(), "0,2,4,6,8,10,12,14,...");
    }
}
