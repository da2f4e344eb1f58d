//! What clients asked of a server or a cluster, what they were told, and when.
//!
//! ```text
//! client 1   |-- set k a --|                 |---- get k -> b ----|
//! client 2         |------ set k b ... (the connection is lost: outcome unknown)
//!            0                                                        time, ns
//! ```
//!
//! An operation takes effect at one moment between its two ends. One of unknown outcome takes effect at some
//! moment after its begin, or never. All times are of one clock, that of the machine the clients run on.

use std::collections::BTreeMap;
use std::fmt;

use crate::model::{Answer, Direction, Key, Request, Rule, Side};

/// One request of one client, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Who asked. A client asks one thing after the other, unless it pipelines.
    pub client: u32,
    /// What was asked.
    pub request: Request,
    /// Before it was sent.
    pub invoked_ns: u64,
    /// How it ended.
    pub ended: Ended,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// With an answer.
    Answered {
        /// Which.
        answer: Answer,
        /// After it was received.
        at_ns: u64,
    },
    /// With a timeout, a lost connection or a `SERVER_ERROR`: nobody knows whether it was or will be done.
    Unknown,
}

impl Operation {
    /// The answer, if there was one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match &self.ended {
            Ended::Answered { answer, .. } => Some(answer),
            Ended::Unknown => None,
        }
    }

    /// When it was over: never, if its outcome is unknown.
    #[must_use]
    pub fn returned_ns(&self) -> u64 {
        match self.ended {
            Ended::Answered { at_ns, .. } => at_ns,
            Ended::Unknown => u64::MAX,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {:<3} ", self.client)?;
        match self.ended {
            Ended::Answered { at_ns, .. } => {
                write!(f, "{:>12.6} .. {:>12.6} s  ", seconds(self.invoked_ns), seconds(at_ns))?;
            }
            Ended::Unknown => {
                write!(f, "{:>12.6} .. {:>12} s  ", seconds(self.invoked_ns), "unknown")?;
            }
        }
        match &self.request {
            Request::Get { .. } => write!(f, "get")?,
            Request::Put { rule, value, flags, ttl_s, .. } => {
                match rule {
                    Rule::Always => write!(f, "set")?,
                    Rule::IfAbsent => write!(f, "add")?,
                    Rule::IfPresent => write!(f, "replace")?,
                    Rule::IfCas(cas) => write!(f, "cas {cas}")?,
                }
                write!(f, " {} flags {flags}", shown(value))?;
                if *ttl_s > 0 {
                    write!(f, " for {ttl_s} s")?;
                }
            }
            Request::Extend { side: Side::Front, value, .. } => {
                write!(f, "prepend {}", shown(value))?;
            }
            Request::Extend { side: Side::Back, value, .. } => {
                write!(f, "append {}", shown(value))?;
            }
            Request::Count { direction: Direction::Up, delta, .. } => write!(f, "incr {delta}")?,
            Request::Count { direction: Direction::Down, delta, .. } => write!(f, "decr {delta}")?,
            Request::Delete { .. } => write!(f, "delete")?,
            Request::Touch { ttl_s, .. } => write!(f, "touch {ttl_s} s")?,
            Request::FlushAll => write!(f, "flush_all")?,
        }
        match self.answer() {
            Some(Answer::Value { value, flags, cas }) => {
                write!(f, " -> {} flags {flags} cas {cas}", shown(value))
            }
            Some(Answer::Number(number)) => write!(f, " -> {number}"),
            Some(other) => write!(f, " -> {other:?}"),
            None => Ok(()),
        }
    }
}

/// Everything that was asked in a run.
#[derive(Debug, Clone, Default)]
pub struct History {
    operations: Vec<Operation>,
}

impl History {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an operation; the order of adding says nothing.
    pub fn push(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    /// Adds what another client did.
    pub fn merge(&mut self, other: Self) {
        self.operations.extend(other.operations);
    }

    /// All of it.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether nothing was asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The history of each key, by begin. A flush is a part of every key's: each is flushed at a moment of
    /// its own within it.
    #[must_use]
    pub fn by_key(&self) -> BTreeMap<Key, Vec<Operation>> {
        let mut keys: BTreeMap<Key, Vec<Operation>> = BTreeMap::new();
        let is_flush = |operation: &&Operation| operation.request == Request::FlushAll;
        for operation in self.operations.iter().filter(|operation| !is_flush(operation)) {
            keys.entry(operation.request.key().to_vec()).or_default().push(operation.clone());
        }
        for flush in self.operations.iter().filter(is_flush) {
            keys.values_mut().for_each(|operations| operations.push(flush.clone()));
        }
        for operations in keys.values_mut() {
            operations.sort_by_key(|operation| (operation.invoked_ns, operation.returned_ns()));
        }
        keys
    }
}

impl Extend<Operation> for History {
    fn extend<I: IntoIterator<Item = Operation>>(&mut self, operations: I) {
        self.operations.extend(operations);
    }
}

impl FromIterator<Operation> for History {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Self {
        Self { operations: operations.into_iter().collect() }
    }
}

/// The beginning of a value, for people.
fn shown(value: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 60;
    if value.len() <= SHOWN_BYTES_MAX {
        return format!("\"{}\"", value.escape_ascii());
    }
    // The end as well: what is appended shows there.
    let (head, tail) = (&value[..SHOWN_BYTES_MAX / 2], &value[value.len() - SHOWN_BYTES_MAX / 2..]);
    let len = value.len();
    format!("\"{}...{}\" ({len} bytes)", head.escape_ascii(), tail.escape_ascii())
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(key: &str, invoked_ns: u64) -> Operation {
        let request = Request::Get { key: key.into() };
        Operation { client: 1, request, invoked_ns, ended: Ended::Unknown }
    }

    #[test]
    fn keys_are_told_apart_and_each_is_in_the_order_of_begin() {
        let history: History = [get("b", 3), get("a", 2), get("b", 1)].into_iter().collect();
        let keys = history.by_key();
        assert_eq!(keys.len(), 2);
        let begins: Vec<u64> = keys[&b"b".to_vec()].iter().map(|one| one.invoked_ns).collect();
        assert_eq!(begins, [1, 3]);
    }

    #[test]
    fn a_flush_is_a_part_of_every_key() {
        let flush = Operation { request: Request::FlushAll, ..get("", 2) };
        let history: History = [get("a", 1), flush, get("b", 3)].into_iter().collect();
        assert!(history.by_key().values().all(|operations| operations.len() == 2));
    }
}
