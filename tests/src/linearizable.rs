//! Whether what clients saw of a key could have been seen of one memcached: linearizability.
//!
//! The search is that of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993) with the memory of
//! Lowe ("Testing for Linearizability", 2017): take an operation that nothing else must precede, apply it to a
//! model of one item, go on; where nothing fits, go back; never search twice from the same set of taken
//! operations and the same item. Keys are independent of each other, so each is judged alone (Herlihy and
//! Wing 1990: linearizability is local).
//!
//! - An operation of unknown outcome may be taken at any time after its begin, or never. A place reached with
//!   fewer of them taken can do all that the same place reached with more can, so only the former is searched.
//!   Of several that could be told apart by nobody only the one begun first is tried; one that overwrites what
//!   another has just written is not, since it might have come in place of the other.
//! - A read that changes nothing and fits now is taken at once: later it would fit no better.
//! - Eviction and expiry are legal: under [`Rules::may_vanish`] an item may be gone at any moment, but what is
//!   gone stays gone until it is written again. An item with a lifetime may be gone from one second before its
//!   end, and must be from one second after it.
//! - The cas of a write is learned from the first read that tells it, must be greater than all of that key
//!   before it, and stays until the next write.

#[cfg(test)]
mod cross_check;
mod item;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use crate::history::{Ended, History, Operation};
use crate::linearizable::item::{Moment, State};
use crate::model::{Answer, Key, Request, Rule};

/// What a server is allowed.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Whether it may forget an item at any moment, as a cache that is full does.
    pub may_vanish: bool,
    /// Steps that the search of one key may take until it gives up.
    pub steps_max: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { may_vanish: false, steps_max: 2_000_000 }
    }
}

/// Whether one key's history is that of one memcached.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It is.
    Linearizable,
    /// It cannot be.
    Violation(Box<Violation>),
    /// The search was given up after this many steps.
    Undecided(u64),
}

/// A history that cannot be, as short as was found.
#[derive(Debug, Clone)]
pub struct Violation {
    /// What the item was where the search came farthest, and what did not fit there.
    pub reason: String,
    /// Operations that contradict each other, by begin.
    pub operations: Vec<Operation>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LINES_MAX: usize = 60;
        writeln!(f, "{}", self.reason)?;
        let hidden = self.operations.len().saturating_sub(LINES_MAX);
        if hidden > 0 {
            writeln!(f, "  ({hidden} operations before these)")?;
        }
        self.operations[hidden..].iter().try_for_each(|operation| writeln!(f, "  {operation}"))
    }
}

/// What became of a whole history.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Keys judged.
    pub keys: usize,
    /// Operations on them.
    pub operations: usize,
    /// Of these, with an unknown outcome.
    pub unknown: usize,
    /// Keys whose history cannot be.
    pub violations: BTreeMap<Key, Violation>,
    /// Keys whose search was given up.
    pub undecided: Vec<Key>,
}

impl Summary {
    /// Nothing, if no key is violated and at most `undecided_max` are undecided; otherwise what is wrong.
    ///
    /// # Errors
    /// A text for people with the first violations.
    pub fn accept(&self, undecided_max: usize) -> Result<(), String> {
        const SHOWN_MAX: usize = 3;
        if self.violations.is_empty() && self.undecided.len() <= undecided_max {
            return Ok(());
        }
        let mut text = format!(
            "of {} keys {} are not linearizable and {} are undecided",
            self.keys,
            self.violations.len(),
            self.undecided.len()
        );
        for (key, violation) in self.violations.iter().take(SHOWN_MAX) {
            text.push_str(&format!("\n{}: {violation}", key.escape_ascii()));
        }
        for key in self.undecided.iter().take(SHOWN_MAX) {
            text.push_str(&format!("\nundecided: {}", key.escape_ascii()));
        }
        Err(text)
    }
}

/// Judges every key of `history`.
#[must_use]
pub fn check(history: &History, rules: Rules) -> Summary {
    let mut summary = Summary::default();
    for (key, operations) in history.by_key() {
        summary.keys += 1;
        summary.operations += operations.len();
        summary.unknown += operations.iter().filter(|one| one.answer().is_none()).count();
        match check_key(&operations, rules) {
            Verdict::Linearizable => {}
            Verdict::Violation(violation) => drop(summary.violations.insert(key, *violation)),
            Verdict::Undecided(_) => summary.undecided.push(key),
        }
    }
    summary
}

/// Judges `operations`, all of them on one key, or on all keys, that nothing was stored under before.
#[must_use]
pub fn check_key(operations: &[Operation], rules: Rules) -> Verdict {
    match Search::of(operations, rules).run() {
        Found::Order => Verdict::Linearizable,
        Found::Nothing { .. } => Verdict::Violation(Box::new(explain(operations, rules))),
        Found::TooMuch { steps } => Verdict::Undecided(steps),
    }
}

/// Which of the operations that were answered are taken: all before `first`, and `others`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Taken {
    first: u32,
    /// Ascending; all greater than `first`.
    others: Vec<u32>,
}

impl Taken {
    fn has(&self, index: u32) -> bool {
        index < self.first || self.others.binary_search(&index).is_ok()
    }

    fn with(&self, index: u32) -> Self {
        let mut next = self.clone();
        if let Err(place) = next.others.binary_search(&index) {
            next.others.insert(place, index);
        }
        let run =
            next.others.iter().zip(next.first..).take_while(|(other, wanted)| *other == wanted);
        let run = u32::try_from(run.count()).expect("a history fits memory");
        next.first += run;
        next.others.drain(..run as usize);
        next
    }

    fn len(&self) -> usize {
        self.first as usize + self.others.len()
    }
}

/// A place of the search: what was taken, and what is stored then.
#[derive(Debug, Clone)]
struct Place {
    taken: Taken,
    /// Of the operations with unknown outcome. Ascending.
    unknown_taken: Vec<u32>,
    state: State,
    /// The latest begin of all taken.
    earliest_ns: u64,
    /// Whether the last one taken has an unknown outcome.
    is_after_unknown: bool,
}

/// What may be taken next.
#[derive(Debug, Clone, Copy)]
enum Candidate {
    Answered(u32),
    Unknown(u32),
}

/// A place with what is left to try there.
struct Fork {
    place: Place,
    /// Tried from the end.
    candidates: Vec<Candidate>,
    latest_ns: u64,
}

/// How a search ended.
enum Found {
    /// With an order that explains everything.
    Order,
    /// There is none.
    Nothing {
        /// The place with most operations taken.
        farthest: Place,
    },
    /// It was given up.
    TooMuch {
        /// After so many.
        steps: u64,
    },
}

/// An operation of unknown outcome.
struct Unknown<'a> {
    operation: &'a Operation,
    /// Operations of one class do the same, as far as anybody could see.
    class: usize,
    /// What it leaves does not depend on what was there.
    overwrites: bool,
}

struct Search<'a> {
    /// By begin.
    answered: Vec<&'a Operation>,
    /// By begin.
    unknown: Vec<Unknown<'a>>,
    rules: Rules,
    /// Lifetimes depend on when an operation is taken; then no read is taken out of turn.
    has_lifetimes: bool,
    /// Where the search was: for each set of answered operations and state, the sets of unknown ones of which
    /// none contains another.
    visited: HashMap<(Taken, State), Vec<Vec<u32>>>,
    steps: u64,
}

impl<'a> Search<'a> {
    fn of(operations: &'a [Operation], rules: Rules) -> Self {
        let mut sorted: Vec<&Operation> = operations.iter().collect();
        sorted.sort_by_key(|operation| (operation.invoked_ns, operation.returned_ns()));
        let (answered, unknown): (Vec<_>, Vec<_>) =
            sorted.into_iter().partition(|one| one.answer().is_some());
        let unknown = classified(&unknown, &answered);
        let has_lifetimes = operations.iter().any(|operation| {
            matches!(operation.request,
                Request::Put { ttl_s, .. } | Request::Touch { ttl_s, .. } if ttl_s > 0)
        });
        Self { answered, unknown, rules, has_lifetimes, visited: HashMap::new(), steps: 0 }
    }

    fn run(mut self) -> Found {
        let start = Place {
            taken: Taken::default(),
            unknown_taken: Vec::new(),
            state: State::EMPTY,
            earliest_ns: 0,
            is_after_unknown: false,
        };
        let mut farthest = start.clone();
        let mut forks = vec![self.fork(start)];
        while let Some(fork) = forks.last_mut() {
            if fork.place.taken.len() == self.answered.len() {
                return Found::Order;
            }
            let Some(candidate) = fork.candidates.pop() else {
                forks.pop();
                continue;
            };
            self.steps += 1;
            if self.steps > self.rules.steps_max {
                return Found::TooMuch { steps: self.steps };
            }
            let Some(next) = self.take(&fork.place, candidate, fork.latest_ns) else { continue };
            let is_idle = match candidate {
                Candidate::Answered(index) => changes_nothing(self.answered[index as usize]),
                Candidate::Unknown(_) => false,
            };
            if is_idle && !self.has_lifetimes && next.state == fork.place.state {
                fork.candidates.clear();
            }
            if !self.visit(&next) {
                continue;
            }
            if next.taken.len() > farthest.taken.len() {
                farthest = next.clone();
            }
            forks.push(self.fork(next));
        }
        Found::Nothing { farthest }
    }

    /// What nothing that is left must precede.
    fn fork(&self, place: Place) -> Fork {
        let mut latest_ns = u64::MAX;
        let mut answered = Vec::new();
        for (index, operation) in
            (place.taken.first..).zip(&self.answered[place.taken.first as usize..])
        {
            if place.taken.has(index) {
                continue;
            }
            if operation.invoked_ns > latest_ns {
                break;
            }
            latest_ns = latest_ns.min(operation.returned_ns());
            answered.push(index);
        }
        // What came back first was probably done first; what nobody heard of was probably not done.
        answered
            .sort_by_key(|&index| std::cmp::Reverse(self.answered[index as usize].returned_ns()));
        let mut candidates = Vec::new();
        let mut classes = Vec::new();
        for (index, unknown) in (0..).zip(&self.unknown) {
            if unknown.operation.invoked_ns > latest_ns {
                break;
            }
            let is_useless = place.is_after_unknown && unknown.overwrites
                || place.unknown_taken.binary_search(&index).is_ok()
                || classes.contains(&unknown.class);
            if !is_useless {
                classes.push(unknown.class);
                candidates.push(Candidate::Unknown(index));
            }
        }
        candidates.extend(answered.into_iter().map(Candidate::Answered));
        Fork { place, candidates, latest_ns }
    }

    fn take(&self, place: &Place, candidate: Candidate, latest_ns: u64) -> Option<Place> {
        let operation = match candidate {
            Candidate::Answered(index) => self.answered[index as usize],
            Candidate::Unknown(index) => self.unknown[index as usize].operation,
        };
        let earliest_ns = place.earliest_ns.max(operation.invoked_ns);
        let at = Moment { earliest_ns, latest_ns };
        let state = place.state.after(operation, at, self.rules)?;
        let is_after_unknown = matches!(candidate, Candidate::Unknown(_));
        if is_after_unknown && state == place.state {
            return None;
        }
        let mut next = Place {
            taken: place.taken.clone(),
            unknown_taken: place.unknown_taken.clone(),
            state,
            earliest_ns,
            is_after_unknown,
        };
        match candidate {
            Candidate::Answered(index) => next.taken = place.taken.with(index),
            Candidate::Unknown(index) => {
                let at = next.unknown_taken.partition_point(|&taken| taken < index);
                next.unknown_taken.insert(at, index);
            }
        }
        Some(next)
    }

    /// Notes `place`; `false` if all that can follow from it was searched already.
    fn visit(&mut self, place: &Place) -> bool {
        let sets = self.visited.entry((place.taken.clone(), place.state.clone())).or_default();
        if sets.iter().any(|set| is_subset(set, &place.unknown_taken)) {
            return false;
        }
        sets.retain(|set| !is_subset(&place.unknown_taken, set));
        sets.push(place.unknown_taken.clone());
        true
    }
}

/// `unknown` without those that need never be taken.
fn classified<'a>(unknown: &[&'a Operation], answered: &[&Operation]) -> Vec<Unknown<'a>> {
    let reads: HashSet<&[u8]> = answered
        .iter()
        .filter_map(|one| match one.answer() {
            Some(Answer::Value { value, .. }) => Some(value.as_slice()),
            _ => None,
        })
        .collect();
    let all = || unknown.iter().chain(answered);
    let is_extended = all().any(|one| matches!(one.request, Request::Extend { .. }));
    let is_counted = all().any(|one| matches!(one.request, Request::Count { .. }));
    let is_swapped =
        all().any(|one| matches!(one.request, Request::Put { rule: Rule::IfCas(_), .. }));
    let is_seen = |part: &[u8]| {
        is_counted
            || reads.contains(part)
            || is_extended && (part.is_empty() || reads.iter().any(|read| contains(read, part)))
    };
    let mut classes: HashMap<Request, usize> = HashMap::new();
    let mut kept = Vec::new();
    for &operation in unknown {
        let mut request = operation.request.clone();
        match &mut request {
            // Nobody could tell its value from another.
            Request::Put { value, flags, .. } if !is_seen(value) => {
                (*value, *flags) = (Vec::new(), 0);
            }
            // Taken, it could only spoil what is read.
            Request::Extend { value, .. } if !is_swapped && !is_seen(value) => continue,
            _ => {}
        }
        let overwrites = matches!(
            request,
            Request::Put { rule: Rule::Always, .. } | Request::Delete { .. } | Request::FlushAll
        );
        let count = classes.len();
        let class = *classes.entry(request).or_insert(count);
        kept.push(Unknown { operation, class, overwrites });
    }
    kept
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

/// Whether all of `few` are in `many`, both ascending.
fn is_subset(few: &[u32], many: &[u32]) -> bool {
    few.len() <= many.len() && few.iter().all(|index| many.binary_search(index).is_ok())
}

/// Shortens a history that cannot be, each time to one that follows from it and cannot be either.
fn explain(operations: &[Operation], rules: Rules) -> Violation {
    /// Reads tried to be left out.
    const TRIES_MAX: usize = 400;
    // Explaining may not take much longer than finding.
    let brief = Rules { steps_max: rules.steps_max.min(200_000), ..rules };
    let is_wrong = |operations: &[Operation]| {
        matches!(Search::of(operations, brief).run(), Found::Nothing { .. })
    };
    let mut shortest = operations.to_vec();
    shortest.sort_by_key(|operation| (operation.invoked_ns, operation.returned_ns()));

    // What happened until some moment: from a history that can be no shorter one follows that cannot.
    let mut ends: Vec<u64> = shortest.iter().map(Operation::returned_ns).collect();
    ends.sort_unstable();
    let first_wrong = ends.partition_point(|&end_ns| !is_wrong(&until(&shortest, end_ns)));
    if let Some(&end_ns) = ends.get(first_wrong) {
        shortest = until(&shortest, end_ns);
    }

    // What happened since a `set` during which nothing else went on: of what was before it only that matters
    // which may still be to come.
    let resets: Vec<usize> = (0..shortest.len()).filter(|&at| is_reset(&shortest, at)).collect();
    let kept = resets.partition_point(|&at| is_wrong(&since(&shortest, at)));
    if let Some(last) = kept.checked_sub(1) {
        shortest = since(&shortest, resets[last]);
    }

    // Without what changed nothing.
    for at in (0..shortest.len()).rev().take(TRIES_MAX) {
        if !changes_nothing(&shortest[at]) {
            continue;
        }
        let mut fewer = shortest.clone();
        fewer.remove(at);
        if is_wrong(&fewer) {
            shortest = fewer;
        }
    }

    let reason = match Search::of(&shortest, rules).run() {
        Found::Nothing { farthest } => {
            let left: Vec<String> = (0..)
                .zip(shortest.iter().filter(|operation| operation.answer().is_some()))
                .filter(|(index, _)| !farthest.taken.has(*index))
                .map(|(_, operation)| format!("\n    {operation}"))
                .take(8)
                .collect();
            let taken = farthest.taken.len();
            format!(
                "no order explains it; after {taken} operations {}, and nothing fits next of{}",
                farthest.state,
                left.concat()
            )
        }
        _ => "no order explains it".to_owned(),
    };
    Violation { reason, operations: shortest }
}

/// `operations` as they stood at `end_ns`: what was under way then has an unknown outcome.
fn until(operations: &[Operation], end_ns: u64) -> Vec<Operation> {
    let begun = operations.iter().filter(|operation| operation.invoked_ns <= end_ns);
    begun
        .cloned()
        .map(|operation| match operation.returned_ns() > end_ns {
            true => Operation { ended: Ended::Unknown, ..operation },
            false => operation,
        })
        // A read of unknown outcome says nothing.
        .filter(|one| one.answer().is_some() || !matches!(one.request, Request::Get { .. }))
        .collect()
}

/// `operations` from that at `at` on, and those before it that may still take effect.
fn since(operations: &[Operation], at: usize) -> Vec<Operation> {
    let pending = operations[..at].iter().filter(|one| one.answer().is_none());
    pending.chain(&operations[at..]).cloned().collect()
}

/// Whether the operation at `at` stored something while nothing else went on that was answered, so that what
/// was before it does not matter.
fn is_reset(operations: &[Operation], at: usize) -> bool {
    let one = &operations[at];
    let is_before = |other: &Operation| match other.answer() {
        Some(_) => other.returned_ns() < one.invoked_ns,
        None => true,
    };
    matches!(one.request, Request::Put { rule: Rule::Always, .. })
        && one.answer() == Some(&Answer::Done)
        && operations[..at].iter().all(is_before)
        && operations[at + 1..].iter().all(|other| other.invoked_ns > one.returned_ns())
}

/// Whether an operation, answered as it was, left everything as it found it.
fn changes_nothing(operation: &Operation) -> bool {
    matches!(
        (&operation.request, operation.answer()),
        (Request::Get { .. }, _)
            | (_, Some(Answer::NotStored | Answer::Exists | Answer::Missing | Answer::NotANumber))
    )
}

#[cfg(test)]
mod tests {
    use super::cross_check::Cache;
    use super::*;
    use crate::model::{Direction, Side};

    const KEY: &[u8] = b"k";

    pub(super) fn get() -> Request {
        Request::Get { key: KEY.to_vec() }
    }

    pub(super) fn put(rule: Rule, value: &str) -> Request {
        put_for(rule, value, 0)
    }

    fn put_for(rule: Rule, value: &str, ttl_s: u32) -> Request {
        Request::Put { key: KEY.to_vec(), rule, value: value.into(), flags: 0, ttl_s }
    }

    pub(super) fn delete() -> Request {
        Request::Delete { key: KEY.to_vec() }
    }

    pub(super) fn append(value: &str) -> Request {
        Request::Extend { key: KEY.to_vec(), side: Side::Back, value: value.into() }
    }

    pub(super) fn incr(delta: u64) -> Request {
        Request::Count { key: KEY.to_vec(), direction: Direction::Up, delta }
    }

    pub(super) fn value(value: &str, cas: u64) -> Answer {
        Answer::Value { value: value.into(), flags: 0, cas }
    }

    /// An operation that was answered, from and to in milliseconds.
    pub(super) fn done(from_ms: u64, to_ms: u64, request: Request, answer: Answer) -> Operation {
        let ended = Ended::Answered { answer, at_ns: to_ms * 1_000_000 };
        Operation { client: 0, request, invoked_ns: from_ms * 1_000_000, ended }
    }

    pub(super) fn unknown(from_ms: u64, request: Request) -> Operation {
        Operation { client: 0, request, invoked_ns: from_ms * 1_000_000, ended: Ended::Unknown }
    }

    pub(super) fn is_right(operations: &[Operation]) -> bool {
        is_right_under(operations, Rules::default())
    }

    pub(super) fn is_right_under(operations: &[Operation], rules: Rules) -> bool {
        match check_key(operations, rules) {
            Verdict::Linearizable => true,
            Verdict::Violation(_) => false,
            Verdict::Undecided(steps) => panic!("undecided after {steps} steps"),
        }
    }

    pub(super) const FORGETFUL: Rules = Rules { may_vanish: true, steps_max: 100_000 };

    #[test]
    fn what_was_acknowledged_is_read() {
        let set = done(0, 1, put(Rule::Always, "a"), Answer::Done);
        assert!(is_right(&[set.clone(), done(2, 3, get(), value("a", 1))]));
        assert!(!is_right(&[set.clone(), done(2, 3, get(), Answer::Missing)]), "lost");
        assert!(is_right_under(&[set, done(2, 3, get(), Answer::Missing)], FORGETFUL));
        assert!(!is_right(&[done(2, 3, get(), value("a", 1))]), "out of nowhere");
    }

    #[test]
    fn a_read_after_an_overwrite_is_stale() {
        let sets = [
            done(0, 1, put(Rule::Always, "a"), Answer::Done),
            done(2, 5, put(Rule::Always, "b"), Answer::Done),
        ];
        let reading =
            |from, to, text| [&sets[..], &[done(from, to, get(), value(text, 0))]].concat();
        assert!(is_right(&reading(4, 9, "a")), "begun before the overwrite was over");
        assert!(!is_right(&reading(6, 9, "a")));
        assert!(!is_right_under(&reading(6, 9, "a"), FORGETFUL));
        let twice = [reading(3, 3, "b"), vec![done(4, 4, get(), value("a", 0))]].concat();
        assert!(!is_right(&twice), "seen to be overwritten, then not");
    }

    #[test]
    fn what_is_gone_stays_gone() {
        let operations = [
            done(0, 1, put(Rule::Always, "a"), Answer::Done),
            done(2, 3, get(), Answer::Missing),
            done(4, 5, get(), value("a", 0)),
        ];
        assert!(!is_right_under(&operations, FORGETFUL));
    }

    #[test]
    fn an_unknown_outcome_may_come_late_or_never_and_once_at_most() {
        let begun = [unknown(0, put(Rule::Always, "a")), done(1, 2, get(), Answer::Missing)];
        assert!(is_right(&begun));
        let late = [&begun[..], &[done(900, 901, get(), value("a", 0))]].concat();
        assert!(is_right(&late));
        let twice = [
            &late[..],
            &[done(902, 903, delete(), Answer::Done), done(904, 905, get(), value("a", 0))],
        ]
        .concat();
        assert!(!is_right(&twice));
    }

    #[test]
    fn numbers_are_counted_once() {
        let start = done(0, 1, put(Rule::Always, "5"), Answer::Done);
        let two = [done(2, 4, incr(1), Answer::Number(6)), done(2, 4, incr(1), Answer::Number(7))];
        assert!(is_right(&[&[start.clone()][..], &two].concat()));
        let same = [done(2, 4, incr(1), Answer::Number(6)), done(2, 4, incr(1), Answer::Number(6))];
        assert!(!is_right(&[&[start.clone()][..], &same].concat()));
        let gap = [start.clone(), done(2, 3, incr(1), Answer::Number(7))];
        assert!(!is_right(&gap));
        let filled = [start.clone(), unknown(2, incr(1)), done(2, 3, incr(1), Answer::Number(7))];
        assert!(is_right(&filled));
        let padded = Request::Count { key: KEY.to_vec(), direction: Direction::Down, delta: 1 };
        let padded = [
            done(0, 1, put(Rule::Always, "10"), Answer::Done),
            done(2, 3, padded, Answer::Number(9)),
            done(4, 5, get(), value("9 ", 0)),
        ];
        assert!(is_right(&padded));
    }

    #[test]
    fn appends_come_in_one_order() {
        let begin = [
            done(0, 1, put(Rule::Always, ""), Answer::Done),
            done(2, 9, append("a"), Answer::Done),
            done(2, 9, append("b"), Answer::Done),
        ];
        let reads = |texts: [&str; 2]| {
            let [first, second] = texts;
            let reads = [done(3, 4, get(), value(first, 0)), done(10, 11, get(), value(second, 0))];
            [&begin[..], &reads].concat()
        };
        assert!(is_right(&reads(["a", "ab"])));
        assert!(is_right(&reads(["", "ba"])));
        assert!(!is_right(&reads(["b", "ab"])));
        assert!(!is_right(&reads(["a", "a"])));
        assert!(!is_right(&reads(["a", "abb"])));
    }

    #[test]
    fn a_cas_is_one_write_and_grows() {
        let set = |from, text| done(from, from + 1, put(Rule::Always, text), Answer::Done);
        let read = |from, text, cas| done(from, from + 1, get(), value(text, cas));
        let grows = [set(0, "a"), read(2, "a", 5), set(4, "b"), read(6, "b", 6)];
        assert!(is_right(&grows));
        assert!(!is_right(&[set(0, "a"), read(2, "a", 5), set(4, "b"), read(6, "b", 5)]));
        assert!(!is_right(&[set(0, "a"), read(2, "a", 5), set(4, "b"), read(6, "b", 4)]));
        assert!(!is_right(&[set(0, "a"), read(2, "a", 5), read(4, "a", 6)]));
        let swap = |cas, answer| done(8, 9, put(Rule::IfCas(cas), "c"), answer);
        assert!(is_right(&[&grows[..], &[swap(6, Answer::Done)]].concat()));
        assert!(!is_right(&[&grows[..], &[swap(6, Answer::Exists)]].concat()));
        assert!(!is_right(&[&grows[..], &[swap(5, Answer::Done)]].concat()));
        assert!(is_right(&[&grows[..], &[swap(5, Answer::Exists)]].concat()));
    }

    #[test]
    fn a_lifetime_ends_within_a_second_of_its_time() {
        let set = done(0, 1, put_for(Rule::Always, "a", 10), Answer::Done);
        let hit = |ms| [set.clone(), done(ms, ms, get(), value("a", 0))];
        let miss = |ms| [set.clone(), done(ms, ms, get(), Answer::Missing)];
        assert!(is_right(&hit(11_000)));
        assert!(!is_right(&hit(11_100)));
        assert!(!is_right_under(&hit(11_100), FORGETFUL));
        assert!(is_right(&miss(9_100)));
        assert!(!is_right(&miss(8_900)), "before its time");
        let touch = Request::Touch { key: KEY.to_vec(), ttl_s: 100 };
        let touched = done(5, 6, touch, Answer::Done);
        assert!(is_right(&[set.clone(), touched, done(50_000, 50_001, get(), value("a", 0))]));
    }

    #[test]
    fn a_flush_ends_what_was_before_it() {
        let set = done(0, 1, put(Rule::Always, "a"), Answer::Done);
        let flush = done(2, 3, Request::FlushAll, Answer::Done);
        assert!(is_right(&[set.clone(), flush.clone(), done(4, 5, get(), Answer::Missing)]));
        assert!(!is_right(&[set, flush, done(4, 5, get(), value("a", 0))]));
    }

    #[test]
    fn what_is_wrong_is_told_in_few_operations() {
        let mut operations = Vec::new();
        for round in 0..200 {
            let (at, text) = (round * 10, format!("v{round}"));
            operations.push(done(at, at + 1, put(Rule::Always, &text), Answer::Done));
            operations.push(done(at + 2, at + 3, get(), value(&text, 0)));
        }
        // Round 120 reads what round 119 had overwritten.
        operations[241] = done(1_202, 1_203, get(), value("v118", 0));
        let Verdict::Violation(violation) = check_key(&operations, Rules::default()) else {
            panic!("a stale read went unnoticed")
        };
        assert_eq!(violation.operations.len(), 2, "{violation}");
        assert!(violation.to_string().contains("v118"), "{violation}");
    }

    #[test]
    fn a_search_that_takes_too_long_is_given_up() {
        let mut operations = vec![done(0, 1, put(Rule::Always, "0"), Answer::Done)];
        operations.extend((0..30).map(|index| unknown(2, incr(1 << index))));
        operations.push(done(3, 4, get(), value("no number", 0)));
        let rules = Rules { steps_max: 10_000, ..Rules::default() };
        assert!(matches!(check_key(&operations, rules), Verdict::Undecided(_)));
    }

    #[test]
    fn many_writes_of_unknown_outcome_are_no_hard_matter() {
        let mut operations = vec![done(0, 1, put(Rule::Always, "a"), Answer::Done)];
        operations.extend(
            (0..500).map(|index| unknown(2 + index, put(Rule::Always, &index.to_string()))),
        );
        operations.push(done(600, 601, get(), value("7", 0)));
        operations.push(done(602, 603, put(Rule::Always, "b"), Answer::Done));
        operations.push(done(604, 605, get(), value("400", 0)));
        operations.push(done(606, 607, delete(), Answer::Done));
        operations.push(done(608, 609, delete(), Answer::Done));
        assert!(is_right(&operations));
        operations.push(done(610, 611, get(), value("b", 0)));
        assert!(!is_right(&operations));
        let mut counted = vec![done(0, 1, put(Rule::Always, "0"), Answer::Done)];
        counted.extend((0..200).map(|index| unknown(2 + index, incr(1))));
        counted.push(done(300, 301, incr(1), Answer::Number(121)));
        counted.push(done(302, 303, incr(1), Answer::Number(122)));
        assert!(is_right(&counted));
        counted.push(done(304, 305, incr(1), Answer::Number(122)));
        assert!(!is_right(&counted));
    }

    #[test]
    fn a_hundred_thousand_operations_take_seconds() {
        // Two thousand keys, four clients, one operation in fifty of unknown outcome and done all the same.
        let mut history = History::new();
        for key in 0..2_000_u64 {
            let key_name = format!("key {key}").into_bytes();
            let mut cache = Cache::default();
            for index in 0..50_u64 {
                let moment = index * 10;
                let request = match (key + index) % 3 {
                    0 => Request::Get { key: key_name.clone() },
                    1 => Request::Put {
                        key: key_name.clone(),
                        rule: Rule::Always,
                        value: format!("{key}.{index}").into(),
                        flags: 0,
                        ttl_s: 0,
                    },
                    _ => Request::Delete { key: key_name.clone() },
                };
                let answer = cache.serve(&request);
                let from = moment.saturating_sub(15);
                let is_unknown = (key * 7 + index) % 50 == 0;
                history.push(match is_unknown {
                    true => unknown(from, request),
                    false => done(from, moment + 15, request, answer),
                });
            }
        }
        let clock = crate::wait::Stopwatch::start();
        let summary = check(&history, Rules::default());
        assert_eq!(summary.accept(0), Ok(()));
        assert_eq!((summary.keys, summary.operations), (2_000, 100_000));
        assert!(clock.elapsed().as_secs() < 20, "{:?}", clock.elapsed());
    }
}
