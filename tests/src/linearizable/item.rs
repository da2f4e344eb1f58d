//! One item of a memcached, as far as what was told of it says: what follows from an operation and its answer.

use std::fmt;
use std::sync::Arc;

use super::Rules;
use crate::history::Operation;
use crate::model::{Answer, Direction, Request, Rule, Side};

/// A lifetime may end this much earlier or later than asked for: servers may count in whole seconds.
const CLOCK_SLACK_NS: u64 = 1_000_000_000;
const NS_PER_S: u64 = 1_000_000_000;

/// What is stored under the key, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    item: Option<Item>,
    /// The greatest cas told so far.
    cas_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Item {
    value: Arc<[u8]>,
    flags: u32,
    /// Known once it was told.
    cas: Option<u64>,
    /// It was counted: spaces may follow the digits, see memcached's `do_add_delta`.
    is_counter: bool,
    lifetime: Option<Lifetime>,
}

/// When an item is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Lifetime {
    /// From then on it may be gone.
    earliest_ns: u64,
    /// After that it must be.
    latest_ns: u64,
}

/// When an operation takes effect, as far as the operations taken before and not yet taken tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) earliest_ns: u64,
    pub(super) latest_ns: u64,
}

impl Lifetime {
    fn of(ttl_s: u32, at: Moment) -> Option<Self> {
        let ttl_ns = u64::from(ttl_s) * NS_PER_S;
        (ttl_s > 0).then(|| Self {
            earliest_ns: (at.earliest_ns + ttl_ns).saturating_sub(CLOCK_SLACK_NS),
            latest_ns: at.latest_ns.saturating_add(ttl_ns + CLOCK_SLACK_NS),
        })
    }
}

impl State {
    /// Nothing was ever stored.
    pub(super) const EMPTY: Self = Self { item: None, cas_max: 0 };

    /// The item, unless it is over.
    fn present(&self, at: Moment) -> Option<&Item> {
        let is_over = |life: &Lifetime| at.earliest_ns > life.latest_ns;
        self.item.as_ref().filter(|item| !item.lifetime.as_ref().is_some_and(is_over))
    }

    /// Without an item, if it may be gone.
    fn absent(&self, at: Moment, rules: Rules) -> Option<Self> {
        let may_be_gone = match &self.item {
            None => true,
            Some(item) => {
                rules.may_vanish
                    || item.lifetime.is_some_and(|life| at.latest_ns >= life.earliest_ns)
            }
        };
        may_be_gone.then_some(Self { item: None, cas_max: self.cas_max })
    }

    fn with(&self, item: Item) -> Self {
        Self { item: Some(item), cas_max: self.cas_max }
    }

    /// As after `cas` was told to be that of the item; none if it cannot be. 0 tells nothing.
    fn told(&self, item: &Item, cas: u64) -> Option<Self> {
        match item.cas {
            _ if cas == 0 => Some(self.with(item.clone())),
            Some(known) => (known == cas).then(|| self.with(item.clone())),
            None if cas <= self.cas_max => None,
            None => {
                let item = Item { cas: Some(cas), ..item.clone() };
                Some(Self { item: Some(item), cas_max: cas })
            }
        }
    }

    /// The state after `operation`, or none if it cannot have ended so, or would change nothing where its
    /// outcome is unknown. Never two: with the answer known it is known whether the item was there, and
    /// without one only what it does to an item matters.
    pub(super) fn after(&self, operation: &Operation, at: Moment, rules: Rules) -> Option<Self> {
        let answer = operation.answer();
        match &operation.request {
            Request::Get { .. } => match answer? {
                Answer::Value { value, flags, cas } => {
                    let item = self.present(at)?;
                    let reads = (*flags == item.flags).then(|| item.reads(value)).flatten()?;
                    self.told(&reads, *cas)
                }
                Answer::Missing => self.absent(at, rules),
                _ => None,
            },
            Request::Put { rule, value, flags, ttl_s, .. } => {
                let item = || Item {
                    value: value.as_slice().into(),
                    flags: *flags,
                    cas: None,
                    is_counter: false,
                    lifetime: Lifetime::of(*ttl_s, at),
                };
                let put = |state: &Self| Some(state.with(item()));
                match (rule, answer) {
                    (Rule::Always, None | Some(Answer::Done)) => put(self),
                    (Rule::IfAbsent, None | Some(Answer::Done)) => put(&self.absent(at, rules)?),
                    (Rule::IfAbsent, Some(Answer::NotStored)) => {
                        self.present(at).map(|_| self.clone())
                    }
                    (Rule::IfPresent, None | Some(Answer::Done)) => {
                        self.present(at)?;
                        put(self)
                    }
                    (Rule::IfPresent, Some(Answer::NotStored))
                    | (Rule::IfCas(_), Some(Answer::Missing)) => self.absent(at, rules),
                    (Rule::IfCas(cas), None | Some(Answer::Done)) => {
                        put(&self.told(self.present(at)?, *cas)?)
                    }
                    (Rule::IfCas(cas), Some(Answer::Exists)) => {
                        (self.present(at)?.cas != Some(*cas)).then(|| self.clone())
                    }
                    _ => None,
                }
            }
            Request::Extend { side, value, .. } => match answer {
                None | Some(Answer::Done) => {
                    let item = self.present(at)?;
                    let value: Vec<u8> = match side {
                        Side::Front => [value, &*item.value].concat(),
                        Side::Back => [&*item.value, value].concat(),
                    };
                    let value = value.into();
                    Some(self.with(Item { value, cas: None, is_counter: false, ..item.clone() }))
                }
                Some(Answer::NotStored) => self.absent(at, rules),
                Some(_) => None,
            },
            Request::Count { direction, delta, .. } => match answer {
                None | Some(Answer::Number(_)) => {
                    let item = self.present(at)?;
                    let before = item.number()?;
                    let after = match direction {
                        Direction::Up => before.wrapping_add(*delta),
                        Direction::Down => before.saturating_sub(*delta),
                    };
                    if answer.is_some_and(|told| *told != Answer::Number(after)) {
                        return None;
                    }
                    let value = after.to_string().into_bytes().into();
                    Some(self.with(Item { value, cas: None, is_counter: true, ..item.clone() }))
                }
                Some(Answer::NotANumber) => {
                    self.present(at)?.number().is_none().then(|| self.clone())
                }
                Some(Answer::Missing) => self.absent(at, rules),
                Some(_) => None,
            },
            Request::Delete { .. } => match answer {
                None | Some(Answer::Done) => {
                    self.present(at)?;
                    Some(Self { item: None, cas_max: self.cas_max })
                }
                Some(Answer::Missing) => self.absent(at, rules),
                Some(_) => None,
            },
            Request::Touch { ttl_s, .. } => match answer {
                None | Some(Answer::Done) => {
                    let item = self.present(at)?.clone();
                    Some(self.with(Item { lifetime: Lifetime::of(*ttl_s, at), ..item }))
                }
                Some(Answer::Missing) => self.absent(at, rules),
                Some(_) => None,
            },
            Request::FlushAll => match answer {
                None | Some(Answer::Done) => Some(Self { item: None, cas_max: self.cas_max }),
                Some(_) => None,
            },
        }
    }
}

impl Item {
    /// The item as it was read, if `value` can be read from it.
    fn reads(&self, value: &[u8]) -> Option<Self> {
        let is_equal = *value == *self.value
            || self.is_counter && value.trim_ascii_end() == self.value.trim_ascii_end();
        // As it was read: what a later append adds to.
        is_equal.then(|| Self { value: value.into(), ..self.clone() })
    }

    fn number(&self) -> Option<u64> {
        std::str::from_utf8(&self.value).ok()?.trim_end_matches(' ').parse().ok()
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(item) = &self.item else { return write!(f, "nothing is stored") };
        write!(f, "\"{}\" flags {} is stored", item.value.escape_ascii(), item.flags)?;
        if let Some(cas) = item.cas {
            write!(f, " as cas {cas}")?;
        }
        if let Some(lifetime) = item.lifetime {
            write!(f, " until {} ms at most", lifetime.latest_ns / 1_000_000)?;
        }
        Ok(())
    }
}
