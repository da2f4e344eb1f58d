//! What must hold of a whole history, in words that need no search: a second opinion on [`linearizable`], and a
//! verdict on keys that are too hard for it.
//!
//! - A cas is that of one value, and grows: who reads later never reads an earlier write.
//! - What was overwritten or deleted does not come back.
//! - Under a key that is only ever set, what was acknowledged is there.
//! - A counter is at least what was acknowledged, and at most that and what has an unknown outcome; no number
//!   is given out twice.
//! - What was appended and acknowledged is there once, what has an unknown outcome once at most, and every
//!   reader saw a beginning of what is there in the end.
//!
//! Each is judged over keys on which nothing else was done, and none over keys with a lifetime. Nothing may
//! have been evicted.
//!
//! [`linearizable`]: crate::linearizable

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use crate::history::{History, Operation};
use crate::model::{Answer, Direction, Key, Request, Rule, Side};

/// A promise that was not kept.
#[derive(Debug, Clone)]
pub struct Broken {
    /// On which key.
    pub key: Key,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key.escape_ascii(), self.reason)
    }
}

/// What `history` shows not to have been kept; nothing, if all was.
#[must_use]
pub fn broken(history: &History) -> Vec<Broken> {
    let judge = |(key, operations): (Key, Vec<Operation>)| {
        let reason = broken_by(&operations)?;
        Some(Broken { key, reason })
    };
    history.by_key().into_iter().filter_map(judge).collect()
}

/// What is wrong with the operations on one key.
fn broken_by(operations: &[Operation]) -> Option<String> {
    if let Some(reason) = cas_goes_back(operations) {
        return Some(reason);
    }
    let only = |allowed: fn(&Request) -> bool| operations.iter().all(|one| allowed(&one.request));
    let is_lasting = |request: &Request| {
        !matches!(request, Request::Put { ttl_s: 1.., .. } | Request::Touch { ttl_s: 1.., .. })
    };
    if !only(is_lasting) {
        return None;
    }
    let is_plain =
        |request: &Request| !matches!(request, Request::Count { .. } | Request::Extend { .. });
    if only(|request| {
        matches!(request, Request::Get { .. } | Request::Put { rule: Rule::Always, .. })
    }) && let Some(reason) = lost(operations)
    {
        return Some(reason);
    }
    if only(is_plain) {
        return came_back(operations);
    }
    if only(|request| {
        matches!(
            request,
            Request::Get { .. }
                | Request::Put { rule: Rule::IfAbsent, .. }
                | Request::Count { direction: Direction::Up, .. }
        )
    }) {
        return miscounted(operations);
    }
    if only(|request| {
        matches!(
            request,
            Request::Get { .. }
                | Request::Put { rule: Rule::IfAbsent, .. }
                | Request::Extend { side: Side::Back, .. }
        )
    }) {
        return misappended(operations);
    }
    None
}

/// What a read told.
struct Read<'a> {
    operation: &'a Operation,
    value: &'a [u8],
    flags: u32,
    cas: u64,
}

fn reads(operations: &[Operation]) -> impl Iterator<Item = Read<'_>> {
    operations.iter().filter_map(|operation| match operation.answer() {
        Some(Answer::Value { value, flags, cas }) => {
            Some(Read { operation, value, flags: *flags, cas: *cas })
        }
        _ => None,
    })
}

fn cas_goes_back(operations: &[Operation]) -> Option<String> {
    let mut values: HashMap<u64, (&[u8], u32)> = HashMap::new();
    let mut by_end: Vec<Read<'_>> = reads(operations).filter(|read| read.cas != 0).collect();
    for read in &by_end {
        let told = *values.entry(read.cas).or_insert((read.value, read.flags));
        // A counter may be padded with spaces (memcached's `do_add_delta`).
        if told.0.trim_ascii_end() != read.value.trim_ascii_end() || told.1 != read.flags {
            return Some(format!("cas {} is that of two values: {}", read.cas, read.operation));
        }
    }
    by_end.sort_by_key(|read| read.operation.returned_ns());
    // Of the reads that ended first, the greatest cas.
    let mut greatest: Vec<(u64, u64)> = Vec::new();
    for read in &by_end {
        let before = greatest.last().map_or(0, |&(_, cas)| cas);
        greatest.push((read.operation.returned_ns(), before.max(read.cas)));
    }
    by_end.iter().find_map(|read| {
        let earlier = greatest.partition_point(|&(end, _)| end < read.operation.invoked_ns);
        let &(_, cas) = greatest[..earlier].last()?;
        (cas > read.cas).then(|| format!("cas {cas} was read before {}", read.operation))
    })
}

/// An acknowledged write that a later read did not find.
fn lost(operations: &[Operation]) -> Option<String> {
    let is_write = |one: &&Operation| one.answer() == Some(&Answer::Done);
    let first = operations.iter().filter(is_write).min_by_key(|one| one.returned_ns())?;
    let is_miss = |one: &&Operation| {
        one.answer() == Some(&Answer::Missing) && one.invoked_ns > first.returned_ns()
    };
    let miss = operations.iter().find(is_miss)?;
    Some(format!("an acknowledged write is lost\n  {first}\n  {miss}"))
}

/// A value that was overwritten or deleted and then read.
fn came_back(operations: &[Operation]) -> Option<String> {
    let mut writes: HashMap<&[u8], Option<&Operation>> = HashMap::new();
    for one in operations {
        if let Request::Put { value, .. } = &one.request {
            // Of a value that was written twice nothing can be said.
            writes.entry(value).and_modify(|write| *write = None).or_insert(Some(one));
        }
    }
    let ends_others = |one: &&Operation| {
        one.answer() == Some(&Answer::Done)
            && matches!(
                one.request,
                Request::Put { rule: Rule::Always, .. }
                    | Request::Delete { .. }
                    | Request::FlushAll
            )
    };
    let mut ends: Vec<&Operation> = operations.iter().filter(ends_others).collect();
    ends.sort_by_key(|one| one.returned_ns());
    // Of those that ended first, the one that began last.
    let mut last_begun: Vec<&Operation> = Vec::new();
    for &end in &ends {
        let before = last_begun.last().filter(|before| before.invoked_ns > end.invoked_ns);
        last_begun.push(before.copied().unwrap_or(end));
    }
    reads(operations).find_map(|read| {
        let write = (*writes.get(read.value)?)?;
        let ended = ends.partition_point(|end| end.returned_ns() < read.operation.invoked_ns);
        let end = last_begun[..ended].last()?;
        (end.invoked_ns > write.returned_ns())
            .then(|| format!("what was gone came back\n  {write}\n  {end}\n  {}", read.operation))
    })
}

fn miscounted(operations: &[Operation]) -> Option<String> {
    let (mut acknowledged, mut unknown) = (0_u64, 0_u64);
    let mut numbers = BTreeSet::new();
    for one in operations {
        match (&one.request, one.answer()) {
            (Request::Count { delta, .. }, Some(Answer::Number(number))) => {
                acknowledged += delta;
                if *delta > 0 && !numbers.insert(*number) {
                    return Some(format!("{number} was given out twice: {one}"));
                }
            }
            (Request::Count { delta, .. }, None) => unknown += delta,
            _ => {}
        }
    }
    let start = operations.iter().find_map(|one| match &one.request {
        Request::Put { value, .. } => std::str::from_utf8(value).ok()?.parse::<u64>().ok(),
        _ => None,
    })?;
    let last = operations.iter().map(|one| one.invoked_ns).max()?;
    let read = reads(operations).find(|read| read.operation.invoked_ns == last)?;
    // Only a read after everything else tells the sum.
    if operations
        .iter()
        .any(|one| one.answer().is_some() && one.returned_ns() > last && one.invoked_ns != last)
    {
        return None;
    }
    let number: u64 = std::str::from_utf8(read.value).ok()?.trim_end().parse().ok()?;
    let (least, most) = (start + acknowledged, start + acknowledged + unknown);
    (!(least..=most).contains(&number))
        .then(|| format!("counted from {start} to between {least} and {most}: {}", read.operation))
}

/// Values appended must be told apart by their end, which is [`APPEND_END`], and no two be equal.
fn misappended(operations: &[Operation]) -> Option<String> {
    let mut outcomes: BTreeMap<&[u8], Option<u64>> = BTreeMap::new();
    for one in operations {
        if let Request::Extend { value, .. } = &one.request {
            let done_ns = match one.answer() {
                Some(Answer::Done) => Some(one.returned_ns()),
                // It found nothing to append to.
                Some(_) => continue,
                None => None,
            };
            outcomes.insert(value, done_ns);
        }
    }
    let longest = reads(operations).max_by_key(|read| read.value.len())?;
    for read in reads(operations) {
        if !longest.value.starts_with(read.value) {
            return Some(format!(
                "two readers saw different orders\n  {}\n  {}",
                read.operation, longest.operation
            ));
        }
    }
    let mut seen = BTreeSet::new();
    for part in longest.value.split_inclusive(|&byte| byte == APPEND_END) {
        if !outcomes.contains_key(part) {
            return Some(format!("nobody appended {}: {}", part.escape_ascii(), longest.operation));
        }
        if !seen.insert(part) {
            return Some(format!("{} is there twice: {}", part.escape_ascii(), longest.operation));
        }
    }
    let is_missing = |(part, done_ns): &(&&[u8], &Option<u64>)| {
        done_ns.is_some_and(|done_ns| done_ns < longest.operation.invoked_ns)
            && !seen.contains(*part)
    };
    let (part, _) = outcomes.iter().find(is_missing)?;
    Some(format!("{} was acknowledged and is not in {}", part.escape_ascii(), longest.operation))
}

/// The last byte of everything that is appended.
pub const APPEND_END: u8 = b';';

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Ended;

    fn key() -> Key {
        b"k".to_vec()
    }

    fn done(from: u64, to: u64, request: Request, answer: Answer) -> Operation {
        Operation {
            client: 0,
            request,
            invoked_ns: from,
            ended: Ended::Answered { answer, at_ns: to },
        }
    }

    fn unknown(from: u64, request: Request) -> Operation {
        Operation { client: 0, request, invoked_ns: from, ended: Ended::Unknown }
    }

    fn put(rule: Rule, value: &str) -> Request {
        Request::Put { key: key(), rule, value: value.into(), flags: 0, ttl_s: 0 }
    }

    fn read(from: u64, value: &str, cas: u64) -> Operation {
        let answer = Answer::Value { value: value.into(), flags: 0, cas };
        done(from, from + 1, Request::Get { key: key() }, answer)
    }

    fn miss(from: u64) -> Operation {
        done(from, from + 1, Request::Get { key: key() }, Answer::Missing)
    }

    fn is_kept(operations: &[Operation]) -> bool {
        broken(&operations.iter().cloned().collect()).is_empty()
    }

    #[test]
    fn a_cas_that_goes_back_is_broken() {
        assert!(is_kept(&[read(0, "a", 1), read(5, "b", 2)]));
        assert!(!is_kept(&[read(0, "a", 2), read(5, "b", 1)]));
        assert!(!is_kept(&[read(0, "a", 2), read(5, "b", 2)]), "of two values");
    }

    #[test]
    fn an_acknowledged_write_is_there() {
        let set = done(0, 1, put(Rule::Always, "a"), Answer::Done);
        assert!(is_kept(&[set.clone(), read(3, "a", 0)]));
        assert!(!is_kept(&[set, miss(3)]));
        assert!(is_kept(&[unknown(0, put(Rule::Always, "a")), miss(3)]));
    }

    #[test]
    fn what_was_deleted_does_not_come_back() {
        let delete = Request::Delete { key: key() };
        let begin =
            [done(0, 1, put(Rule::Always, "a"), Answer::Done), done(2, 4, delete, Answer::Done)];
        assert!(is_kept(&[&begin[..], &[read(3, "a", 0)]].concat()));
        assert!(!is_kept(&[&begin[..], &[read(5, "a", 0)]].concat()));
    }

    #[test]
    fn a_counter_is_what_was_counted() {
        let incr = Request::Count { key: key(), direction: Direction::Up, delta: 2 };
        let begin = [
            done(0, 1, put(Rule::IfAbsent, "10"), Answer::Done),
            done(2, 3, incr.clone(), Answer::Number(12)),
            unknown(2, incr.clone()),
        ];
        let ending = |value| [&begin[..], &[read(9, value, 0)]].concat();
        assert!(is_kept(&ending("12")) && is_kept(&ending("14")));
        assert!(!is_kept(&ending("10")) && !is_kept(&ending("16")));
        let twice = done(4, 5, incr, Answer::Number(12));
        assert!(!is_kept(&[&begin[..], &[twice]].concat()));
    }

    #[test]
    fn what_was_appended_is_there_once() {
        let append =
            |value: &str| Request::Extend { key: key(), side: Side::Back, value: value.into() };
        let begin = [
            done(0, 1, put(Rule::IfAbsent, ""), Answer::Done),
            done(2, 3, append("a;"), Answer::Done),
            done(2, 3, append("b;"), Answer::Done),
            unknown(2, append("c;")),
        ];
        let reading = |value| [&begin[..], &[read(9, value, 0)]].concat();
        assert!(is_kept(&reading("a;b;")) && is_kept(&reading("b;c;a;")));
        for wrong in ["a;", "a;b;a;", "a;b;d;", "c;b;"] {
            assert!(!is_kept(&reading(wrong)), "{wrong}");
        }
        assert!(!is_kept(&[&reading("a;b;")[..], &[read(9, "b;", 0)]].concat()), "another order");
    }
}
