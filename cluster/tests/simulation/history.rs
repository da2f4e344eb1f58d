//! What clients saw, and whether it can be.
//!
//! Every write has a [`Version`], and the log that all copies hold in the end is the order of the writes. So
//! no search is needed: given that order, each key is linearizable if and only if
//! - what was acknowledged is in it, and what is in it was asked for;
//! - what a client saw (the last write of the key at that point of the order) is never older than what any
//!   operation saw or wrote that had ended before, and never a write that was asked for only afterwards;
//! - a conditional write came right after the write that it saw.
//!
//! So no version is given twice, and a counter is what was acknowledged, or more by what nobody knows of. What
//! the cache does on its own (evict, expire) is in the order as well, and changes what is seen from there on:
//! nothing that was removed comes back, by whatever it was removed.

use std::collections::{BTreeMap, BTreeSet};

use cluster::Version;

/// Which operation of the run.
pub(crate) type OperationId = u32;

/// What a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Read,
    /// Store this operation's number.
    Set {
        /// For so long; for good if `None`.
        ttl_ns: Option<u64>,
    },
    /// Store it if there is nothing.
    Add,
    /// One more than there is; 1 if there is nothing.
    Count,
    /// Put this operation's number behind what there is, if there is anything.
    Append,
    /// Store this operation's number if this version is the last, and left something.
    Swap(Version),
    /// Have what there is stay for so long, if there is anything.
    Touch {
        ttl_ns: u64,
    },
    /// Remove what there is.
    Delete,
    /// Remove everything of the key's shard.
    Flush,
}

/// How an operation ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It saw what this write left, and changed nothing.
    Saw(Version),
    /// It saw that there is nothing, as this write left it, and changed nothing.
    Missed(Version),
    /// It wrote this.
    Wrote(Version),
    /// It was not done, and will not be.
    Refused,
}

#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) key: u8,
    pub(crate) ask: Ask,
    pub(crate) asked_ns: u64,
    /// `None` while, or for ever if, nobody knows.
    pub(crate) end: Option<(u64, End)>,
}

/// The key of a write that is about every key of its shard.
pub(crate) const EVERY_KEY: u8 = u8::MAX;

/// What a write left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    Value {
        value: u64,
        /// By the wall clock of the primary that took it.
        deadline_ns: Option<u64>,
    },
}

/// Why something was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Client(OperationId),
    /// There was no room.
    Eviction,
    /// Its time was over.
    Expiry,
}

/// A write as it is in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) version: Version,
    pub(crate) key: u8,
    pub(crate) left: Left,
    pub(crate) by: By,
}

impl Write {
    pub(crate) fn is_about(&self, key: u8) -> bool {
        self.key == key || self.key == EVERY_KEY
    }

    pub(crate) fn value(&self) -> Option<u64> {
        match self.left {
            Left::Nothing => None,
            Left::Value { value, .. } => Some(value),
        }
    }

    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        match self.left {
            Left::Nothing => None,
            Left::Value { deadline_ns, .. } => deadline_ns,
        }
    }
}

/// What there is after `more` was put behind `value`: another number for every order.
pub(crate) fn appended(value: u64, more: OperationId) -> u64 {
    (value ^ u64::from(more)).wrapping_mul(0x0100_0000_01b3).rotate_left(7)
}

/// Says what cannot be of the operations, given the logs that all copies ended with, one of each shard.
pub(crate) fn check(operations: &[Operation], logs: &[Vec<Write>]) -> Result<(), String> {
    let keys: BTreeSet<u8> = operations.iter().map(|it| it.key).collect();
    for key in keys {
        let shard = usize::from(key) % logs.len();
        let writes: Vec<Write> =
            logs[shard].iter().filter(|write| write.is_about(key)).copied().collect();
        check_order(key, operations, &writes)?;
        let is_about = |it: &Operation| {
            it.key == key || (it.ask == Ask::Flush && usize::from(it.key) % logs.len() == shard)
        };
        check_sights(key, operations, is_about, &writes)?;
    }
    Ok(())
}

/// The writes of one key do what was asked, each once.
fn check_order(key: u8, operations: &[Operation], writes: &[Write]) -> Result<(), String> {
    let mut done = BTreeSet::new();
    let mut last: Option<Write> = None;
    for write in writes {
        let asked = match write.by {
            By::Client(id) => Some(&operations[id as usize]),
            By::Eviction | By::Expiry => None,
        };
        let why = |what: &str| {
            Err(format!("key {key}: {write:?} after {last:?}, asked as {asked:?}, {what}"))
        };
        if last.is_some_and(|last| last.version >= write.version) {
            return why("is out of order");
        }
        let before = last.and_then(|last| last.value());
        match write.by {
            By::Client(id) => {
                if !done.insert(id) {
                    return why("was done twice");
                }
                if let Some(wrong) = wrong_of(id, operations[id as usize].ask, last, write) {
                    return why(wrong);
                }
                match operations[id as usize].end {
                    Some((_, End::Wrote(version))) if version == write.version => {}
                    None => {}
                    Some(_) => return why("ended otherwise for the client"),
                }
            }
            By::Eviction | By::Expiry if before.is_none() || write.value().is_some() => {
                return why("removed nothing");
            }
            By::Expiry if last.and_then(|last| last.deadline_ns()).is_none() => {
                return why("was to stay for good");
            }
            By::Eviction | By::Expiry => {}
        }
        last = Some(*write);
    }
    Ok(())
}

/// What is wrong with a write that a client asked for, after `last`.
fn wrong_of(id: OperationId, ask: Ask, last: Option<Write>, write: &Write) -> Option<&'static str> {
    let before = last.and_then(|last| last.value());
    let left = write.value();
    let wrong = match ask {
        Ask::Read => "was no write",
        Ask::Add | Ask::Append | Ask::Delete | Ask::Swap(_) | Ask::Touch { .. }
            if before.is_some() == (ask == Ask::Add) =>
        {
            "found what it should not"
        }
        Ask::Swap(seen) if last.is_none_or(|last| last.version != seen) => "saw another write last",
        Ask::Count if left != Some(before.unwrap_or(0) + 1) => "counted wrong",
        Ask::Append if left != before.map(|before| appended(before, id)) => "appended to another",
        Ask::Set { .. } | Ask::Add | Ask::Swap(_) if left != Some(u64::from(id)) => {
            "stored another"
        }
        Ask::Touch { .. } if left != before => "touched the value",
        Ask::Touch { .. } if write.deadline_ns().is_none() => "is to stay for good",
        Ask::Delete | Ask::Flush if left.is_some() => "left something",
        _ => return None,
    };
    Some(wrong)
}

/// What clients saw of one key fits the order of its writes and the order in time.
fn check_sights(
    key: u8,
    operations: &[Operation],
    is_about: impl Fn(&Operation) -> bool,
    writes: &[Write],
) -> Result<(), String> {
    let known: BTreeMap<Version, (u64, bool)> = writes
        .iter()
        .map(|write| {
            let asked_ns = match write.by {
                By::Client(id) => operations[id as usize].asked_ns,
                By::Eviction | By::Expiry => 0,
            };
            (write.version, (asked_ns, write.value().is_some()))
        })
        .chain([(Version::ZERO, (0, false))])
        .collect();
    let mut ended: Vec<(u64, u64, Version, bool, usize)> = Vec::new();
    for (number, operation) in operations.iter().enumerate().filter(|(_, it)| is_about(it)) {
        let Some((ended_ns, end)) = operation.end else { continue };
        let (version, is_write) = match end {
            End::Saw(version) | End::Missed(version) => (version, false),
            End::Wrote(version) => (version, true),
            End::Refused => continue,
        };
        let Some(&(write_asked_ns, is_something)) = known.get(&version) else {
            return Err(format!(
                "key {key}: operation {number} {operation:?} was acknowledged and is lost; of its log {writes:?}"
            ));
        };
        if !is_write && is_something != matches!(end, End::Saw(_)) {
            return Err(format!(
                "key {key}: operation {number} {operation:?} did not see what was there"
            ));
        }
        if write_asked_ns > ended_ns {
            return Err(format!("key {key}: operation {number} {operation:?} saw the future"));
        }
        ended.push((operation.asked_ns, ended_ns, version, is_write, number));
    }
    let mut by_end = ended.clone();
    by_end.sort_unstable_by_key(|it| it.1);
    ended.sort_unstable_by_key(|it| it.0);
    let mut before = by_end.iter().peekable();
    let mut newest: Option<(Version, usize)> = None;
    for &(asked_ns, _, version, is_write, number) in &ended {
        while let Some(one) = before.next_if(|one| one.1 < asked_ns) {
            newest = newest.max(Some((one.2, one.4)));
        }
        if let Some((least, witness)) = newest
            && (version < least || (is_write && version == least))
        {
            return Err(format!(
                "key {key}: operation {number} {:?} is stale: {witness} {:?} had ended before",
                operations[number], operations[witness]
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cluster::{Epoch, Sequence};

    use super::*;

    const SET: Ask = Ask::Set { ttl_ns: None };

    fn version(sequence: u64) -> Version {
        Version::new(Epoch(1), Sequence(sequence))
    }

    fn operation(ask: Ask, asked_ns: u64, ended_ns: u64, end: End) -> Operation {
        Operation { key: 0, ask, asked_ns, end: Some((ended_ns, end)) }
    }

    fn log(writes: &[(u64, u64, OperationId)]) -> Vec<Vec<Write>> {
        let write = |&(sequence, value, by)| {
            let left = Left::Value { value, deadline_ns: None };
            Write { version: version(sequence), key: 0, left, by: By::Client(by) }
        };
        vec![writes.iter().map(write).collect()]
    }

    #[test]
    fn lost_stale_and_double_writes_are_seen() {
        let wrote = operation(SET, 0, 1, End::Wrote(version(1)));
        let again = operation(SET, 2, 3, End::Wrote(version(2)));
        let good = log(&[(1, 0, 0), (2, 1, 1)]);
        let both = [wrote.clone(), again.clone()];
        assert_eq!(check(&both, &good), Ok(()));
        assert!(check(&both, &log(&[(1, 0, 0)])).unwrap_err().contains("is lost"));
        assert!(check(&both, &log(&[(1, 0, 0), (2, 0, 0)])).unwrap_err().contains("twice"));
        let stale = operation(Ask::Read, 4, 5, End::Saw(version(1)));
        let three = [wrote.clone(), again.clone(), stale];
        assert!(check(&three, &good).unwrap_err().contains("is stale"));
        let overlapping = operation(Ask::Read, 2, 5, End::Saw(version(1)));
        assert_eq!(check(&[wrote.clone(), again, overlapping], &good), Ok(()));
        let early = operation(Ask::Read, 0, 1, End::Saw(version(2)));
        let later = operation(SET, 2, 3, End::Wrote(version(2)));
        assert!(check(&[wrote, later, early], &good).unwrap_err().contains("the future"));
    }

    #[test]
    fn conditional_writes_follow_what_they_saw() {
        let first = operation(Ask::Count, 0, 9, End::Wrote(version(1)));
        let second = operation(Ask::Count, 0, 9, End::Wrote(version(2)));
        let both = [first.clone(), second];
        assert_eq!(check(&both, &log(&[(1, 1, 0), (2, 2, 1)])), Ok(()));
        assert!(check(&both, &log(&[(1, 1, 0), (2, 1, 1)])).is_err());
        let swap = operation(Ask::Swap(version(7)), 0, 9, End::Wrote(version(2)));
        assert!(check(&[first, swap], &log(&[(1, 1, 0), (2, 1, 1)])).is_err());
    }

    #[test]
    fn what_was_removed_does_not_come_back() {
        let wrote = operation(SET, 0, 1, End::Wrote(version(1)));
        let deleted = operation(Ask::Delete, 2, 3, End::Wrote(version(2)));
        let mut logs = log(&[(1, 0, 0)]);
        logs[0].push(Write { version: version(2), key: 0, left: Left::Nothing, by: By::Client(1) });
        let read = |end| [wrote.clone(), deleted.clone(), operation(Ask::Read, 4, 5, end)];
        assert_eq!(check(&read(End::Missed(version(2))), &logs), Ok(()));
        assert!(check(&read(End::Saw(version(1))), &logs).unwrap_err().contains("is stale"));
        assert!(check(&read(End::Saw(version(2))), &logs).unwrap_err().contains("did not see"));
        logs[0][1].by = By::Expiry;
        let two = [wrote.clone(), operation(Ask::Read, 4, 5, End::Missed(version(2)))];
        assert!(check(&two, &logs).unwrap_err().contains("for good"));
        logs[0][1].by = By::Eviction;
        assert_eq!(check(&two, &logs), Ok(()));
        logs[0].swap(0, 1);
        assert!(check(&two, &logs).unwrap_err().contains("removed nothing"));
    }

    #[test]
    fn a_touch_leaves_the_value_and_a_deadline() {
        let wrote = operation(SET, 0, 1, End::Wrote(version(1)));
        let touched = operation(Ask::Touch { ttl_ns: 7 }, 2, 3, End::Wrote(version(2)));
        let both = [wrote, touched];
        let mut logs = log(&[(1, 0, 0), (2, 0, 1)]);
        assert!(check(&both, &logs).unwrap_err().contains("for good"));
        logs[0][1].left = Left::Value { value: 0, deadline_ns: Some(9) };
        assert_eq!(check(&both, &logs), Ok(()));
        logs[0][1].left = Left::Value { value: 1, deadline_ns: Some(9) };
        assert!(check(&both, &logs).unwrap_err().contains("touched the value"));
    }

    #[test]
    fn flush_is_of_every_key_of_its_shard() {
        let wrote = Operation { key: 1, ..operation(SET, 0, 1, End::Wrote(version(1))) };
        let flushed = operation(Ask::Flush, 2, 3, End::Wrote(version(2)));
        let late = Operation { key: 1, ..operation(Ask::Read, 4, 5, End::Saw(version(1))) };
        let mut logs = log(&[(1, 0, 0)]);
        logs[0][0].key = 1;
        logs[0].push(Write {
            version: version(2),
            key: EVERY_KEY,
            left: Left::Nothing,
            by: By::Client(1),
        });
        assert!(check(&[wrote, flushed, late], &logs).unwrap_err().contains("is stale"));
    }
}
