//! What clients saw, and whether it can be.
//!
//! Every write has a [`Version`], and the log that all copies hold in the end is the order of the writes. So
//! no search is needed: given that order, each key is linearizable if and only if
//! - what was acknowledged is in it, and what is in it was asked for;
//! - what a client saw (the last write of the key at that point of the order) is never older than what any
//!   operation saw or wrote that had ended before, and never a write that was asked for only afterwards;
//! - a conditional write came right after the write that it saw.

use std::collections::BTreeMap;

use cluster::Version;

/// Which operation of the run.
pub(crate) type OperationId = u32;

/// What a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Read,
    /// Store this operation's number.
    Set,
    /// Store it if there is nothing.
    Add,
    /// One more than there is; 1 if there is nothing.
    Count,
    /// Store this operation's number if this version is the last.
    Swap(Version),
}

/// How an operation ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It saw this write last, and changed nothing.
    Saw(Version),
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

/// A write as it is in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) version: Version,
    pub(crate) key: u8,
    pub(crate) value: u64,
    pub(crate) by: OperationId,
}

/// Says what cannot be of the operations, given the logs that all copies ended with, one of each shard.
pub(crate) fn check(operations: &[Operation], logs: &[Vec<Write>]) -> Result<(), String> {
    let mut by_key: BTreeMap<u8, Vec<Write>> = BTreeMap::new();
    for write in logs.iter().flatten() {
        by_key.entry(write.key).or_default().push(*write);
    }
    for (key, writes) in &by_key {
        check_order(*key, operations, writes)?;
    }
    let keys: std::collections::BTreeSet<u8> = operations.iter().map(|it| it.key).collect();
    for key in keys {
        let none = Vec::new();
        check_sights(key, operations, by_key.get(&key).unwrap_or(&none))?;
    }
    Ok(())
}

/// The writes of one key do what was asked, each once.
fn check_order(key: u8, operations: &[Operation], writes: &[Write]) -> Result<(), String> {
    let mut done = std::collections::BTreeSet::new();
    let mut last: Option<Write> = None;
    for write in writes {
        let operation = &operations[write.by as usize];
        let why = |what: &str| {
            Err(format!("key {key}: {write:?} after {last:?}, asked as {operation:?}, {what}"))
        };
        if last.is_some_and(|last| last.version >= write.version) {
            return why("is out of order");
        }
        if !done.insert(write.by) {
            return why("was done twice");
        }
        match operation.ask {
            Ask::Read => return why("was no write"),
            Ask::Set => {}
            Ask::Add if last.is_some() => return why("found something"),
            Ask::Swap(seen) if last.map_or(Version::ZERO, |last| last.version) != seen => {
                return why("saw another write last");
            }
            Ask::Count if write.value != last.map_or(0, |last| last.value) + 1 => {
                return why("counted wrong");
            }
            Ask::Add | Ask::Swap(_) | Ask::Count => {}
        }
        match operation.end {
            Some((_, End::Wrote(version))) if version == write.version => {}
            None => {}
            Some(_) => return why("ended otherwise for the client"),
        }
        last = Some(*write);
    }
    Ok(())
}

/// What clients saw of one key fits the order of its writes and the order in time.
fn check_sights(key: u8, operations: &[Operation], writes: &[Write]) -> Result<(), String> {
    let asked_at: BTreeMap<Version, u64> = writes
        .iter()
        .map(|write| (write.version, operations[write.by as usize].asked_ns))
        .chain([(Version::ZERO, 0)])
        .collect();
    let mut ended: Vec<(u64, u64, Version, bool, usize)> = Vec::new();
    for (number, operation) in operations.iter().enumerate().filter(|(_, it)| it.key == key) {
        let Some((ended_ns, end)) = operation.end else { continue };
        let (version, is_write) = match end {
            End::Saw(version) => (version, false),
            End::Wrote(version) => (version, true),
            End::Refused => continue,
        };
        let Some(&write_asked_ns) = asked_at.get(&version) else {
            return Err(format!(
                "key {key}: operation {number} {operation:?} was acknowledged and is lost; of its log {writes:?}"
            ));
        };
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

    fn version(sequence: u64) -> Version {
        Version::new(Epoch(1), Sequence(sequence))
    }

    fn operation(ask: Ask, asked_ns: u64, ended_ns: u64, end: End) -> Operation {
        Operation { key: 0, ask, asked_ns, end: Some((ended_ns, end)) }
    }

    fn log(writes: &[(u64, u64, OperationId)]) -> Vec<Vec<Write>> {
        let write =
            |&(sequence, value, by)| Write { version: version(sequence), key: 0, value, by };
        vec![writes.iter().map(write).collect()]
    }

    #[test]
    fn lost_stale_and_double_writes_are_seen() {
        let wrote = operation(Ask::Set, 0, 1, End::Wrote(version(1)));
        let again = operation(Ask::Set, 2, 3, End::Wrote(version(2)));
        let good = log(&[(1, 0, 0), (2, 1, 1)]);
        let both = [wrote.clone(), again.clone()];
        assert_eq!(check(&both, &good), Ok(()));
        assert!(check(&both, &log(&[(1, 0, 0)])).unwrap_err().contains("is lost"));
        assert!(check(&both, &log(&[(1, 0, 0), (2, 1, 0)])).unwrap_err().contains("twice"));
        let stale = operation(Ask::Read, 4, 5, End::Saw(version(1)));
        let three = [wrote.clone(), again.clone(), stale];
        assert!(check(&three, &good).unwrap_err().contains("is stale"));
        let overlapping = operation(Ask::Read, 2, 5, End::Saw(version(1)));
        assert_eq!(check(&[wrote.clone(), again, overlapping], &good), Ok(()));
        let early = operation(Ask::Read, 0, 1, End::Saw(version(2)));
        let later = operation(Ask::Set, 2, 3, End::Wrote(version(2)));
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
}
