//! A cache too simple to be wrong, to hold a server's answers against.
//!
//! A cache may forget: to evict, expire or flush an item is always right, so a miss never
//! contradicts the model, which then forgets too. Everything else must follow from what was asked
//! and answered before: a hit has the value, flags and cas that were last acknowledged, and is not
//! over. The model therefore judges pairs of request and answer, in the order of one client; keys
//! that several clients write are beyond it.

use std::collections::HashMap;

/// A lifetime may end this much later than asked for: servers may count in whole seconds.
const CLOCK_SLACK_MS: u64 = 1_000;

/// A key, as sent.
pub type Key = Vec<u8>;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Request {
    /// Read an item.
    Get {
        /// Of which key.
        key: Key,
    },
    /// Store an item if `rule` allows.
    Put {
        /// Under which key.
        key: Key,
        /// When to store.
        rule: Rule,
        /// What to store.
        value: Vec<u8>,
        /// The client's own number.
        flags: u32,
        /// Seconds from now; 0 is for ever.
        ttl_s: u32,
    },
    /// Add to an item's value. One that was counted is to be read first: only then is it known
    /// whether spaces follow its digits.
    Extend {
        /// Of which key.
        key: Key,
        /// Where.
        side: Side,
        /// What to add.
        value: Vec<u8>,
    },
    /// Count a number up or down.
    Count {
        /// Of which key.
        key: Key,
        /// Which way.
        direction: Direction,
        /// By how much.
        delta: u64,
    },
    /// Remove an item.
    Delete {
        /// Of which key.
        key: Key,
    },
    /// Give an item a new lifetime.
    Touch {
        /// Of which key.
        key: Key,
        /// Seconds from now; 0 is for ever.
        ttl_s: u32,
    },
    /// Remove everything.
    FlushAll,
}

impl Request {
    /// The key it is about; empty for all of them.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Get { key }
            | Self::Put { key, .. }
            | Self::Extend { key, .. }
            | Self::Count { key, .. }
            | Self::Delete { key }
            | Self::Touch { key, .. } => key,
            Self::FlushAll => b"",
        }
    }
}

/// When a value may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// Where a value is extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Before the value: `prepend`.
    Front,
    /// Behind the value: `append`.
    Back,
}

/// Which way a number is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// `incr`, which starts again after 64 bits.
    Up,
    /// `decr`, which stops at 0.
    Down,
}

/// What a server answers.
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
    },
    /// The number after counting.
    Number(u64),
    /// Done: `STORED`, `DELETED`, `TOUCHED`, `OK`.
    Done,
    /// `NOT_STORED`.
    NotStored,
    /// `EXISTS`.
    Exists,
    /// A miss: `END` without a value, `NOT_FOUND`.
    Missing,
    /// The value is no number.
    NotANumber,
}

/// When a request was sent and its answer received, in milliseconds since any moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The server did not act before this.
    pub sent_ms: u64,
    /// The server had acted by then.
    pub received_ms: u64,
}

/// An answer that cannot be: what was asked, what was answered, and why it cannot.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Wrong(String);

/// What a server may hold, going by what it said.
#[derive(Debug, Clone, Default)]
pub struct Model {
    items: HashMap<Key, Item>,
}

#[derive(Debug, Clone)]
struct Item {
    value: Vec<u8>,
    flags: u32,
    /// Known once the value was read.
    cas: Option<u64>,
    /// It was counted: spaces may follow the digits.
    is_counter: bool,
    /// From then on a hit is wrong.
    over_at_ms: Option<u64>,
}

impl Model {
    /// An empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many items the server may hold.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether the server can hold nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Judges that `request` was answered with `answer`, and takes it into account.
    ///
    /// # Errors
    /// When that answer cannot be.
    pub fn observe(&mut self, request: &Request, answer: &Answer, at: Span) -> Result<(), Wrong> {
        self.judge(request, answer, at)
            .map_err(|reason| Wrong(format!("{request:?} was answered {answer:?}, but {reason}")))
    }

    fn judge(&mut self, request: &Request, answer: &Answer, at: Span) -> Result<(), String> {
        match (request, answer) {
            (Request::Get { key }, Answer::Value { value, flags, cas }) => {
                self.present(key, at)?.has(value, *flags, *cas)
            }
            (Request::Put { key, rule, value, flags, ttl_s }, Answer::Done) => {
                match rule {
                    // What is there is overwritten, or may have been forgotten just before.
                    Rule::Always | Rule::IfAbsent => {}
                    Rule::IfPresent => drop(self.present(key, at)?),
                    Rule::IfCas(cas) => self.present(key, at)?.has_cas(*cas)?,
                }
                let (value, flags) = (value.clone(), *flags);
                let over_at_ms = over_at_ms(*ttl_s, at);
                let item = Item { value, flags, cas: None, is_counter: false, over_at_ms };
                self.items.insert(key.clone(), item);
                Ok(())
            }
            (Request::Put { key, rule: Rule::IfAbsent, .. }, Answer::NotStored) => {
                self.present(key, at).map(|_| ())
            }
            (Request::Put { key, rule: Rule::IfCas(cas), .. }, Answer::Exists) => {
                match self.present(key, at)?.cas {
                    Some(known) if known == *cas => Err("that is its cas".to_owned()),
                    _ => Ok(()),
                }
            }
            (Request::Extend { key, side, value }, Answer::Done) => {
                let item = self.present(key, at)?;
                let place = match side {
                    Side::Front => 0,
                    Side::Back => item.value.len(),
                };
                item.value.splice(place..place, value.iter().copied());
                (item.is_counter, item.cas) = (false, None);
                Ok(())
            }
            (Request::Count { key, direction, delta }, Answer::Number(number)) => {
                self.present(key, at)?.counts(*direction, *delta, *number)
            }
            (Request::Count { key, .. }, Answer::NotANumber) => {
                match self.present(key, at)?.number() {
                    Some(number) => Err(format!("it is {number}")),
                    None => Ok(()),
                }
            }
            (Request::Delete { key }, Answer::Done) => {
                self.present(key, at)?;
                self.forget(key)
            }
            (Request::Touch { key, ttl_s }, Answer::Done) => {
                self.present(key, at)?.over_at_ms = over_at_ms(*ttl_s, at);
                Ok(())
            }
            (Request::FlushAll, Answer::Done) => {
                self.items.clear();
                Ok(())
            }
            // A miss, in the words of each command.
            (Request::Put { key, rule: Rule::IfPresent, .. }, Answer::NotStored)
            | (Request::Put { key, rule: Rule::IfCas(_), .. }, Answer::Missing)
            | (Request::Extend { key, .. }, Answer::NotStored)
            | (
                Request::Get { key }
                | Request::Count { key, .. }
                | Request::Delete { key }
                | Request::Touch { key, .. },
                Answer::Missing,
            ) => self.forget(key),
            _ => Err("that is no answer to it".to_owned()),
        }
    }

    /// The item the server says is there.
    fn present(&mut self, key: &[u8], at: Span) -> Result<&mut Item, String> {
        let item = self.items.get_mut(key).ok_or("nothing is there")?;
        match item.over_at_ms {
            Some(over) if at.sent_ms >= over => {
                Err(format!("it was over {} ms before", at.sent_ms - over))
            }
            _ => Ok(item),
        }
    }

    fn forget(&mut self, key: &[u8]) -> Result<(), String> {
        self.items.remove(key);
        Ok(())
    }
}

impl Item {
    fn has(&mut self, value: &[u8], flags: u32, cas: u64) -> Result<(), String> {
        let trim = |bytes: &[u8]| bytes.trim_ascii_end().to_vec();
        let is_equal = value == self.value || self.is_counter && trim(value) == trim(&self.value);
        if !is_equal {
            return Err(format!("the value is {}", self.value.escape_ascii()));
        }
        if flags != self.flags {
            return Err(format!("the flags are {}", self.flags));
        }
        // As it was read: what a later append adds to.
        value.clone_into(&mut self.value);
        self.has_cas(cas)?;
        self.cas = Some(cas);
        Ok(())
    }

    fn has_cas(&self, cas: u64) -> Result<(), String> {
        match self.cas {
            Some(known) if known != cas => Err(format!("the cas is {known}")),
            _ => Ok(()),
        }
    }

    fn number(&self) -> Option<u64> {
        let text = std::str::from_utf8(&self.value).ok()?.trim_end_matches(' ');
        text.parse().ok()
    }

    fn counts(&mut self, direction: Direction, delta: u64, number: u64) -> Result<(), String> {
        let before = self.number().ok_or("it is no number")?;
        let after = match direction {
            Direction::Up => before.wrapping_add(delta),
            Direction::Down => before.saturating_sub(delta),
        };
        if number != after {
            return Err(format!("it was {before}"));
        }
        self.value = after.to_string().into_bytes();
        (self.is_counter, self.cas) = (true, None);
        Ok(())
    }
}

/// When a lifetime that began within `at` is over at the latest.
fn over_at_ms(ttl_s: u32, at: Span) -> Option<u64> {
    (ttl_s > 0).then(|| at.received_ms + u64::from(ttl_s) * 1_000 + CLOCK_SLACK_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"k";

    fn at(ms: u64) -> Span {
        Span { sent_ms: ms, received_ms: ms }
    }

    fn get() -> Request {
        Request::Get { key: KEY.to_vec() }
    }

    fn put(rule: Rule, value: &str, ttl_s: u32) -> Request {
        let value = value.as_bytes().to_vec();
        Request::Put { key: KEY.to_vec(), rule, value, flags: 7, ttl_s }
    }

    fn value(value: &str, cas: u64) -> Answer {
        Answer::Value { value: value.as_bytes().to_vec(), flags: 7, cas }
    }

    fn holding(value: &str, ttl_s: u32) -> Model {
        let mut model = Model::new();
        model.observe(&put(Rule::Always, value, ttl_s), &Answer::Done, at(0)).unwrap();
        model
    }

    #[test]
    fn what_was_stored_may_be_read_or_forgotten() {
        let mut model = holding("a", 0);
        assert!(model.observe(&get(), &value("a", 1), at(1)).is_ok());
        assert!(model.observe(&get(), &Answer::Missing, at(2)).is_ok());
        assert!(model.observe(&get(), &value("a", 1), at(3)).is_err(), "forgotten for good");
    }

    #[test]
    fn another_value_is_wrong() {
        assert!(holding("a", 0).observe(&get(), &value("b", 1), at(1)).is_err());
        let flags = Answer::Value { value: b"a".to_vec(), flags: 8, cas: 1 };
        assert!(holding("a", 0).observe(&get(), &flags, at(1)).is_err());
        assert!(Model::new().observe(&get(), &value("a", 1), at(1)).is_err());
    }

    #[test]
    fn a_lifetime_ends() {
        let mut model = holding("a", 2);
        assert!(model.observe(&get(), &value("a", 1), at(2_999)).is_ok());
        assert!(model.observe(&get(), &value("a", 1), at(3_000)).is_err());
    }

    #[test]
    fn a_touch_gives_a_new_lifetime() {
        let mut model = holding("a", 2);
        let touch = Request::Touch { key: KEY.to_vec(), ttl_s: 0 };
        model.observe(&touch, &Answer::Done, at(0)).unwrap();
        assert!(model.observe(&get(), &value("a", 1), at(9_000)).is_ok());
    }

    #[test]
    fn the_cas_stays_until_the_value_changes() {
        let mut model = holding("a", 0);
        model.observe(&get(), &value("a", 5), at(1)).unwrap();
        assert!(model.observe(&get(), &value("a", 6), at(2)).is_err());
        assert!(model.observe(&put(Rule::IfCas(5), "b", 0), &Answer::Exists, at(3)).is_err());
        assert!(model.observe(&put(Rule::IfCas(4), "b", 0), &Answer::Done, at(3)).is_err());
        assert!(model.observe(&put(Rule::IfCas(5), "b", 0), &Answer::Done, at(3)).is_ok());
        assert!(model.observe(&get(), &value("b", 9), at(4)).is_ok());
    }

    #[test]
    fn add_and_replace_tell_what_is_there() {
        let (add, replace) = (put(Rule::IfAbsent, "b", 0), put(Rule::IfPresent, "b", 0));
        assert!(Model::new().observe(&add, &Answer::NotStored, at(0)).is_err());
        assert!(Model::new().observe(&replace, &Answer::Done, at(0)).is_err());
        assert!(Model::new().observe(&replace, &Answer::NotStored, at(0)).is_ok());
        assert!(holding("a", 0).observe(&add, &Answer::NotStored, at(1)).is_ok());
        assert!(holding("a", 0).observe(&add, &Answer::Done, at(1)).is_ok(), "forgotten before");
        assert!(holding("a", 0).observe(&replace, &Answer::Done, at(1)).is_ok());
    }

    #[test]
    fn values_grow_on_the_side_asked_for() {
        let mut model = holding("b", 0);
        for (side, value) in [(Side::Front, b"a"), (Side::Back, b"c")] {
            let extend = Request::Extend { key: KEY.to_vec(), side, value: value.to_vec() };
            model.observe(&extend, &Answer::Done, at(1)).unwrap();
        }
        assert!(model.observe(&get(), &value("abc", 1), at(2)).is_ok());
    }

    #[test]
    fn numbers_count_and_may_be_padded() {
        let mut model = holding("100", 0);
        let count = |direction, delta| Request::Count { key: KEY.to_vec(), direction, delta };
        let down = count(Direction::Down, 95);
        model.observe(&down, &Answer::Number(5), at(1)).unwrap();
        assert!(model.observe(&get(), &value("5  ", 1), at(2)).is_ok());
        assert!(model.observe(&get(), &value("5", 1), at(2)).is_ok());
        let up = count(Direction::Up, u64::MAX);
        assert!(model.clone().observe(&up, &Answer::Number(6), at(3)).is_err());
        assert!(model.observe(&up, &Answer::Number(4), at(3)).is_ok());
        assert!(model.observe(&up, &Answer::NotANumber, at(3)).is_err());
        assert!(holding("a", 0).observe(&up, &Answer::NotANumber, at(1)).is_ok());
    }

    #[test]
    fn deleted_and_flushed_is_gone() {
        let delete = Request::Delete { key: KEY.to_vec() };
        for request in [delete, Request::FlushAll] {
            let mut model = holding("a", 0);
            model.observe(&request, &Answer::Done, at(1)).unwrap();
            assert!(model.is_empty());
        }
    }

    #[test]
    fn an_answer_to_another_question_is_wrong() {
        assert!(holding("a", 0).observe(&get(), &Answer::Done, at(1)).is_err());
        assert!(holding("a", 0).observe(&Request::FlushAll, &Answer::Missing, at(1)).is_err());
    }
}
