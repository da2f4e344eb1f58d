//! What a server must hold, to the item, going by what it acknowledged: for tests that end it.
//!
//! ```text
//! key ──▶ the states it can be in:   { "a" }           acknowledged
//!                                    { "a", "ab" }     an append that was not answered
//!                                    { "a", nothing }  its lifetime ends about now, or a flush runs
//! ```
//!
//! - As a rule there is one state. An operation without an answer, because the server was killed,
//!   adds the state after it to the state before it. An answer strikes out the states that it
//!   contradicts; when none is left the server is wrong.
//! - Nothing is forgiven but what [`Forgetting`] says: [`crate::model`] judges servers that evict
//!   whenever they like, and knows nothing of their end.
//! - Times are microseconds since any moment. What the server does at a moment of its own clock is
//!   known to a second; in between both is possible.

use std::collections::BTreeMap;
use std::sync::RwLock;

/// A server may count lifetimes and delays in whole seconds.
const CLOCK_SLACK_US: u64 = 1_100_000;
const SECOND_US: u64 = 1_000_000;

/// When an operation was sent and its answer received, or when a moment is that is known to lie
/// between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Not before.
    pub from_us: u64,
    /// Not after.
    pub to_us: u64,
}

impl Span {
    fn is_before(self, other: Self) -> bool {
        self.to_us < other.from_us
    }

    /// The moment `delay_s` later, as exactly as a server may take it.
    fn later(self, delay_s: u32) -> Self {
        let delay_us = u64::from(delay_s) * SECOND_US;
        Self {
            from_us: (self.from_us + delay_us).saturating_sub(CLOCK_SLACK_US),
            to_us: self.to_us + delay_us + CLOCK_SLACK_US,
        }
    }
}

/// When a value may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Always: `set`.
    Always,
    /// If nothing is there: `add`.
    IfAbsent,
    /// If something is there: `replace`.
    IfPresent,
    /// If this is still its cas: `cas`.
    IfCas(u64),
}

/// What is done to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Read it.
    Get,
    /// Store a value.
    Put {
        /// When.
        rule: Rule,
        /// The value.
        value: Vec<u8>,
        /// The client's own number.
        flags: u32,
        /// Seconds from now; 0 is for ever.
        ttl_s: u32,
    },
    /// Add to the value: at its end, or before it.
    Extend {
        /// Whether at its end.
        at_end: bool,
        /// What.
        value: Vec<u8>,
    },
    /// Count a number.
    Count {
        /// Up, or down to 0 at most.
        is_up: bool,
        /// By how much.
        delta: u64,
    },
    /// Remove it.
    Delete,
    /// Give it a new lifetime.
    Touch {
        /// Seconds from now; 0 is for ever.
        ttl_s: u32,
        /// Whether to read it as well: `gat`.
        reads: bool,
    },
    /// Mark it stale: `md` with the flag I.
    Invalidate,
}

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A hit.
    Value {
        /// The bytes.
        value: Vec<u8>,
        /// The client's own number.
        flags: u32,
        /// The number of this value.
        cas: u64,
        /// What else was told, if it was.
        rest: Option<Rest>,
    },
    /// The number after counting.
    Number(u64),
    /// Done; the new value's cas, if that was told.
    Done(Option<u64>),
    /// `NOT_STORED`.
    NotStored,
    /// `EXISTS`.
    Exists,
    /// A miss.
    Missing,
    /// The value is no number.
    NotANumber,
    /// No room.
    Refused,
}

/// What the meta commands tell of an item beyond value, flags and cas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// Seconds left; `None` is for ever.
    pub ttl_s: Option<u64>,
    /// Whether it is marked stale.
    pub is_stale: bool,
}

/// An answer that cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Wrong(String);

/// What a server may forget besides what is deleted, expired or flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgetting {
    /// Nothing: it has memory to spare.
    Nothing,
    /// Anything: it evicts.
    Anything,
}

/// The flushes so far, for the ledgers of all clients.
#[derive(Debug, Default)]
pub struct Flushes(RwLock<Vec<Flush>>);

/// A flush that was begun.
#[derive(Debug, Clone, Copy)]
pub struct FlushNumber {
    index: usize,
    delay_s: u32,
}

#[derive(Debug, Clone, Copy)]
struct Flush {
    /// When everything is forgotten.
    at: Span,
    /// Whether it was acknowledged.
    is_certain: bool,
}

impl Flushes {
    /// A `flush_all` with `delay_s` is about to be sent: from now on it may happen.
    ///
    /// # Panics
    /// When another thread did while it had the list.
    pub fn begin(&self, now_us: u64, delay_s: u32) -> FlushNumber {
        let mut at = Span { from_us: now_us, to_us: now_us };
        if delay_s > 0 {
            at = at.later(delay_s);
        }
        at.to_us = u64::MAX;
        let mut flushes = self.0.write().expect("no thread panics here");
        flushes.push(Flush { at, is_certain: false });
        FlushNumber { index: flushes.len() - 1, delay_s }
    }

    /// It was answered, or the server is gone without an answer, and it has happened or never will.
    ///
    /// # Panics
    /// When another thread did while it had the list.
    pub fn end(&self, number: FlushNumber, now_us: u64, is_certain: bool) {
        let FlushNumber { index, delay_s } = number;
        let mut at = Span { from_us: now_us, to_us: now_us };
        if delay_s > 0 {
            at = at.later(delay_s);
        }
        let mut flushes = self.0.write().expect("no thread panics here");
        flushes[index].at.to_us = at.to_us;
        flushes[index].is_certain = is_certain;
    }

    fn from(&self, index: usize) -> Vec<Flush> {
        self.0.read().expect("no thread panics here")[index..].to_vec()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cas {
    /// It was told.
    Known(u64),
    /// It is greater than this: the greatest that the key had when it was written.
    Above(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    value: Vec<u8>,
    flags: u32,
    cas: Cas,
    over_at: Option<Span>,
    is_stale: bool,
}

#[derive(Debug, Clone)]
struct State {
    /// What may be there; `None` is nothing.
    possible: Vec<Option<Item>>,
    /// The last operation on it.
    since: Span,
    /// How many of the flushes are accounted for.
    flushes: usize,
    cas_max: u64,
}

impl State {
    fn new() -> Self {
        let since = Span { from_us: 0, to_us: 0 };
        Self { possible: vec![None], since, flushes: 0, cas_max: 0 }
    }
}

/// What one client knows of its keys, which nobody else writes.
#[derive(Debug)]
pub struct Ledger {
    states: BTreeMap<u32, State>,
    forgetting: Forgetting,
}

impl Ledger {
    /// A ledger of an empty server.
    #[must_use]
    pub fn new(forgetting: Forgetting) -> Self {
        Self { states: BTreeMap::new(), forgetting }
    }

    /// The keys that were ever written.
    #[must_use]
    pub fn keys(&self) -> Vec<u32> {
        self.states.keys().copied().collect()
    }

    /// The cas of a key, if it is known for certain.
    #[must_use]
    pub fn cas(&self, key: u32) -> Option<u64> {
        match self.states.get(&key)?.possible.as_slice() {
            [Some(Item { cas: Cas::Known(cas), .. })] => Some(*cas),
            _ => None,
        }
    }

    /// Items whose lifetimes may have ended at `now`, whether or not the server has noticed.
    #[must_use]
    pub fn count_over(&self, now_us: u64) -> u64 {
        let is_over = |item: &Item| item.over_at.is_some_and(|at| at.from_us <= now_us);
        let over = |state: &&State| state.possible.iter().flatten().any(is_over);
        self.states.values().filter(over).count() as u64
    }

    /// Judges that `op` on `key` was answered with `answer`, and takes it into account.
    ///
    /// # Errors
    /// When that answer cannot be.
    pub fn answered(
        &mut self,
        key: u32,
        op: &Op,
        answer: &Answer,
        span: Span,
        flushes: &Flushes,
    ) -> Result<(), Wrong> {
        let state = self.states.entry(key).or_insert_with(State::new);
        expand(state, self.forgetting, flushes, span);
        let mut next = Vec::new();
        for before in &state.possible {
            if *answer == Answer::Refused && self.forgetting == Forgetting::Anything {
                next.push(before.clone());
                next.push(None);
                continue;
            }
            let (expected, after) = step(op, before.as_ref(), span, state.cas_max);
            if let Some(after) = fits(op, &expected, before.as_ref(), after, answer, span) {
                next.push(after);
            }
        }
        if next.is_empty() {
            return Err(Wrong(format!(
                "{} was answered {}, but {} at {span:?}",
                shown(&format!("{op:?}")),
                shown(&format!("{answer:?}")),
                told(state)
            )));
        }
        next.dedup();
        if let Answer::Value { cas, .. } | Answer::Done(Some(cas)) = answer {
            state.cas_max = state.cas_max.max(*cas);
        }
        state.possible = next;
        state.since = span;
        Ok(())
    }

    /// `op` on `key` was sent, at least in part, and not answered before the server was gone.
    pub fn unanswered(&mut self, key: u32, op: &Op, span: Span, flushes: &Flushes) {
        let state = self.states.entry(key).or_insert_with(State::new);
        expand(state, self.forgetting, flushes, span);
        let done: Vec<Option<Item>> = state
            .possible
            .iter()
            .map(|before| step(op, before.as_ref(), span, state.cas_max).1)
            .collect();
        for after in done {
            if !state.possible.contains(&after) {
                state.possible.push(after);
            }
        }
        // A span that begins before keeps a flush meanwhile from being certain.
        state.since = Span { from_us: state.since.from_us, to_us: span.to_us };
    }
}

/// Adds what time, flushes and eviction may have made of a key until `span`.
fn expand(state: &mut State, forgetting: Forgetting, flushes: &Flushes, span: Span) {
    for flush in flushes.from(state.flushes) {
        if span.is_before(flush.at) {
            break;
        }
        if !flush.at.is_before(state.since) {
            let is_over = flush.at.is_before(span);
            if is_over && flush.is_certain && state.since.is_before(flush.at) {
                state.possible = vec![None];
            } else if !state.possible.contains(&None) {
                state.possible.push(None);
            }
            if !is_over {
                // It goes on: looked at again next time.
                break;
            }
        }
        state.flushes += 1;
    }
    let mut ends = false;
    for possible in &mut state.possible {
        let Some(over_at) = possible.as_ref().and_then(|item| item.over_at) else { continue };
        if over_at.is_before(span) {
            *possible = None;
        } else if !span.is_before(over_at) {
            ends = true;
        }
    }
    if (ends || forgetting == Forgetting::Anything) && !state.possible.contains(&None) {
        state.possible.push(None);
    }
    state.possible.dedup();
}

/// What the server says, its numbers apart, and what is there then.
fn step(op: &Op, before: Option<&Item>, span: Span, cas_max: u64) -> (Expected, Option<Item>) {
    let over_at = |ttl_s: u32| (ttl_s > 0).then(|| span.later(ttl_s));
    let cas = Cas::Above(cas_max);
    match (op, before) {
        (Op::Put { rule, value, flags, ttl_s }, _) => {
            let refused = match (rule, before) {
                (Rule::Always, _) | (Rule::IfAbsent, None) | (Rule::IfPresent, Some(_)) => None,
                (Rule::IfAbsent, Some(_)) | (Rule::IfPresent, None) => Some(Expected::NotStored),
                (Rule::IfCas(_), None) => Some(Expected::Missing),
                (Rule::IfCas(wanted), Some(item)) => {
                    (item.cas != Cas::Known(*wanted)).then_some(Expected::Exists)
                }
            };
            if let Some(refused) = refused {
                return (refused, before.cloned());
            }
            let (value, over_at) = (value.clone(), over_at(*ttl_s));
            let item = Item { value, flags: *flags, cas, over_at, is_stale: false };
            (Expected::Done { new_cas: true }, Some(item))
        }
        (Op::Extend { .. }, None) => (Expected::NotStored, None),
        (_, None) => (Expected::Missing, None),
        (Op::Get, Some(item)) => (Expected::Value, Some(item.clone())),
        (Op::Extend { at_end, value }, Some(item)) => {
            let mut item = Item { cas, is_stale: false, ..item.clone() };
            let place = if *at_end { item.value.len() } else { 0 };
            item.value.splice(place..place, value.iter().copied());
            (Expected::Done { new_cas: true }, Some(item))
        }
        (Op::Count { is_up, delta }, Some(item)) => {
            let digits = std::str::from_utf8(&item.value).ok();
            let Some(number) = digits.and_then(|digits| digits.parse::<u64>().ok()) else {
                return (Expected::NotANumber, Some(item.clone()));
            };
            let number =
                if *is_up { number.wrapping_add(*delta) } else { number.saturating_sub(*delta) };
            let value = number.to_string().into_bytes();
            (Expected::Number(number), Some(Item { value, cas, ..item.clone() }))
        }
        (Op::Delete, Some(_)) => (Expected::Done { new_cas: false }, None),
        (Op::Touch { ttl_s, reads }, Some(item)) => {
            let expected = if *reads { Expected::Value } else { Expected::Done { new_cas: false } };
            (expected, Some(Item { over_at: over_at(*ttl_s), ..item.clone() }))
        }
        (Op::Invalidate, Some(item)) => {
            let item = Item { cas, is_stale: true, ..item.clone() };
            (Expected::Done { new_cas: false }, Some(item))
        }
    }
}

enum Expected {
    Value,
    Number(u64),
    Done { new_cas: bool },
    NotStored,
    Exists,
    Missing,
    NotANumber,
}

/// What is there after `answer`, if that is what was expected.
fn fits(
    op: &Op,
    expected: &Expected,
    before: Option<&Item>,
    after: Option<Item>,
    answer: &Answer,
    span: Span,
) -> Option<Option<Item>> {
    match (expected, answer) {
        (Expected::Value, Answer::Value { value, flags, cas, rest }) => {
            let (before, mut after) = (before?, after?);
            let is_same = before.value == *value
                && before.flags == *flags
                && before.cas.may_be(*cas)
                && rest.is_none_or(|rest| {
                    // A read that touches tells the new lifetime.
                    let told = if matches!(op, Op::Get) { before } else { &after };
                    told.is_stale == rest.is_stale && lives(told.over_at, rest.ttl_s, span)
                });
            after.cas = Cas::Known(*cas);
            is_same.then_some(Some(after))
        }
        (Expected::Number(expected), Answer::Number(number)) => {
            (expected == number).then_some(after)
        }
        (Expected::Done { new_cas: true }, Answer::Done(Some(cas))) => {
            let mut after = after?;
            let is_later = after.cas.may_be(*cas);
            after.cas = Cas::Known(*cas);
            is_later.then_some(Some(after))
        }
        (Expected::Done { .. }, Answer::Done(None))
        | (Expected::NotStored, Answer::NotStored)
        | (Expected::Exists, Answer::Exists)
        | (Expected::Missing, Answer::Missing)
        | (Expected::NotANumber, Answer::NotANumber) => Some(after),
        _ => None,
    }
}

impl Cas {
    fn may_be(self, cas: u64) -> bool {
        match self {
            Self::Known(known) => known == cas,
            Self::Above(least) => cas > least,
        }
    }
}

/// Whether an item that is over at `over_at` has `ttl_s` left in `span`.
fn lives(over_at: Option<Span>, ttl_s: Option<u64>, span: Span) -> bool {
    match (over_at, ttl_s) {
        (None, None) => true,
        (Some(over_at), Some(ttl_s)) => {
            let left_us = ttl_s * SECOND_US;
            span.from_us + left_us <= over_at.to_us + SECOND_US
                && span.to_us + left_us + SECOND_US >= over_at.from_us
        }
        _ => false,
    }
}

fn told(state: &State) -> String {
    let states: Vec<String> = state
        .possible
        .iter()
        .map(|possible| match possible {
            None => "nothing".to_owned(),
            Some(item) => shown(&format!("{item:?}")),
        })
        .collect();
    format!("there is {} since {:?}", states.join(" or "), state.since)
}

/// As much of a long text as a person reads.
fn shown(text: &str) -> String {
    const CHARACTERS: usize = 300;
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => {
            let tail = &text[text.len() - text.len().min(200)..];
            format!("{}… {tail}", &text[..end])
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u32 = 1;

    fn at(second: u64) -> Span {
        Span { from_us: second * SECOND_US, to_us: second * SECOND_US + 100 }
    }

    fn put(value: &str, ttl_s: u32) -> Op {
        Op::Put { rule: Rule::Always, value: value.into(), flags: 7, ttl_s }
    }

    fn value(value: &str, cas: u64) -> Answer {
        Answer::Value { value: value.into(), flags: 7, cas, rest: None }
    }

    fn flush(flushes: &Flushes, span: Span, delay_s: u32, is_certain: bool) {
        let number = flushes.begin(span.from_us, delay_s);
        flushes.end(number, span.to_us, is_certain);
    }

    /// A ledger that knows of one acknowledged value, of cas 5.
    fn holding(text: &str, ttl_s: u32) -> (Ledger, Flushes) {
        let (mut ledger, flushes) = (Ledger::new(Forgetting::Nothing), Flushes::default());
        ledger.answered(KEY, &put(text, ttl_s), &Answer::Done(Some(5)), at(1), &flushes).unwrap();
        (ledger, flushes)
    }

    #[test]
    fn what_is_acknowledged_must_be_there_and_be_the_same() {
        let wrong = [Answer::Missing, value("b", 5), value("a", 4)];
        for answer in wrong {
            let (mut ledger, flushes) = holding("a", 0);
            assert!(ledger.answered(KEY, &Op::Get, &answer, at(9), &flushes).is_err());
        }
        let (mut ledger, flushes) = holding("a", 0);
        assert!(ledger.answered(KEY, &Op::Get, &value("a", 5), at(9), &flushes).is_ok());
    }

    #[test]
    fn an_unanswered_write_happened_or_did_not_and_then_stays_so() {
        for (found, other) in [(value("a", 5), value("b", 6)), (value("b", 6), value("a", 5))] {
            let (mut ledger, flushes) = holding("a", 0);
            ledger.unanswered(KEY, &put("b", 0), at(2), &flushes);
            let mut third = ledger.answered(KEY, &Op::Get, &value("c", 7), at(3), &flushes);
            assert!(third.is_err());
            third = ledger.answered(KEY, &Op::Get, &found, at(4), &flushes);
            assert_eq!(third, Ok(()));
            assert!(ledger.answered(KEY, &Op::Get, &other, at(5), &flushes).is_err());
        }
    }

    #[test]
    fn a_count_that_was_not_answered_counts_once_or_not_at_all() {
        let (mut ledger, flushes) = holding("10", 0);
        let count = Op::Count { is_up: true, delta: 1 };
        ledger.answered(KEY, &count, &Answer::Number(11), at(2), &flushes).unwrap();
        ledger.unanswered(KEY, &count, at(3), &flushes);
        for (text, is_right) in [("10", false), ("11", true), ("12", true), ("13", false)] {
            let (states, forgetting) = (ledger.states.clone(), ledger.forgetting);
            let mut ledger = Ledger { states, forgetting };
            let answer = value(text, 9);
            let read = ledger.answered(KEY, &Op::Get, &answer, at(4), &flushes);
            assert_eq!(read.is_ok(), is_right, "{text}");
        }
    }

    #[test]
    fn a_deleted_item_stays_away() {
        let (mut ledger, flushes) = holding("a", 0);
        ledger.answered(KEY, &Op::Delete, &Answer::Done(None), at(2), &flushes).unwrap();
        assert!(ledger.answered(KEY, &Op::Get, &value("a", 5), at(3), &flushes).is_err());
        assert!(ledger.answered(KEY, &Op::Get, &Answer::Missing, at(4), &flushes).is_ok());
    }

    #[test]
    fn a_flush_takes_what_was_there_before_and_nothing_later() {
        let (mut ledger, flushes) = holding("a", 0);
        flush(&flushes, at(2), 0, true);
        assert!(ledger.answered(KEY, &Op::Get, &value("a", 5), at(3), &flushes).is_err());
        assert!(
            ledger.answered(KEY, &put("b", 0), &Answer::Done(Some(6)), at(4), &flushes).is_ok()
        );
        assert!(ledger.answered(KEY, &Op::Get, &value("b", 6), at(5), &flushes).is_ok());
    }

    #[test]
    fn a_flush_to_come_takes_what_is_there_then() {
        let (mut ledger, flushes) = holding("a", 0);
        flush(&flushes, at(2), 5, true);
        assert!(ledger.answered(KEY, &Op::Get, &value("a", 5), at(4), &flushes).is_ok());
        assert!(ledger.answered(KEY, &Op::Get, &value("a", 5), at(9), &flushes).is_err());
        assert!(ledger.answered(KEY, &Op::Get, &Answer::Missing, at(9), &flushes).is_ok());
    }

    #[test]
    fn a_flush_that_was_not_answered_may_have_been() {
        for answer in [value("a", 5), Answer::Missing] {
            let (mut ledger, flushes) = holding("a", 0);
            flush(&flushes, at(2), 0, false);
            assert!(ledger.answered(KEY, &Op::Get, &answer, at(3), &flushes).is_ok());
        }
    }

    #[test]
    fn a_lifetime_ends_when_it_ends() {
        let (mut ledger, flushes) = holding("a", 10);
        assert!(ledger.answered(KEY, &Op::Get, &Answer::Missing, at(8), &flushes).is_err());
        assert!(ledger.answered(KEY, &Op::Get, &value("a", 5), at(8), &flushes).is_ok());
        assert!(ledger.answered(KEY, &Op::Get, &value("a", 5), at(14), &flushes).is_err());
        assert!(ledger.answered(KEY, &Op::Get, &Answer::Missing, at(14), &flushes).is_ok());
    }

    #[test]
    fn the_cas_of_a_later_write_is_greater() {
        for (cas, is_right) in [(4, false), (5, false), (6, true)] {
            let (mut ledger, flushes) = holding("a", 0);
            let stored = Answer::Done(Some(cas));
            let write = ledger.answered(KEY, &put("b", 0), &stored, at(2), &flushes);
            assert_eq!(write.is_ok(), is_right, "{cas}");
        }
    }

    #[test]
    fn who_evicts_may_forget_but_not_remember_wrongly() {
        let (ledger, flushes) = holding("a", 0);
        let mut ledger = Ledger { forgetting: Forgetting::Anything, ..ledger };
        assert!(ledger.answered(KEY, &Op::Get, &value("b", 6), at(2), &flushes).is_err());
        assert!(ledger.answered(KEY, &Op::Get, &Answer::Missing, at(3), &flushes).is_ok());
        assert!(ledger.answered(KEY, &Op::Get, &value("a", 5), at(4), &flushes).is_err());
    }
}
