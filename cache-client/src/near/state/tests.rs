//! What is near, in single situations, and beside a server, a network and clients that do anything in any order.

use std::collections::VecDeque;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use protocol::changes::ChangeLine;

use super::*;
use crate::near::stream::{Pace, Stream, Told};
use crate::test_time;

const MS: Duration = Duration::from_millis(1);
const LIMITS: Limits = Limits {
    bytes_max: 100_000,
    eviction: Kind::Lru,
    ttl_max: Duration::from_secs(60),
    short_ttl: None,
    absent_ttl_max: None,
};
const SILENCE_MAX: Duration = Duration::from_secs(2);
const STREAM: SourceId = SourceId(7);

fn at(millis: u32) -> Instant {
    test_time::start() + millis * MS
}

fn value(text: &str) -> Value {
    Value { data: Bytes::copy_from_slice(text.as_bytes()), flags: 0, cas: None }
}

/// A cache whose stream is up as of 0.
fn followed(limits: Limits) -> State {
    let mut state = State::new(limits);
    state.add_source(STREAM);
    state.heard(STREAM, at(0), SILENCE_MAX);
    state
}

fn keep(state: &mut State, key: &str, found: Option<&str>, ttl_s: Option<u32>, now: Instant) {
    let token = state.begin(key.as_bytes(), &[STREAM], now);
    let value = found.map(value);
    state.finish(token, key.as_bytes(), Answer { value: value.as_ref(), ttl_s }, now);
}

/// What is found: `-` for nothing, `none` for no item.
fn find(state: &mut State, key: &str, now: Instant) -> String {
    match state.find(key.as_bytes(), now) {
        Look::Hit(Some(value)) => String::from_utf8_lossy(&value.data).into_owned(),
        Look::Hit(None) => "none".to_owned(),
        Look::Miss => "-".to_owned(),
    }
}

#[test]
fn what_was_read_is_found_until_a_change_is_told() {
    let mut state = followed(LIMITS);
    keep(&mut state, "a", Some("1"), None, at(0));
    keep(&mut state, "b", Some("2"), None, at(0));
    assert_eq!(
        (find(&mut state, "a", at(1)), find(&mut state, "b", at(1))),
        ("1".into(), "2".into())
    );
    state.changed(b"a");
    assert_eq!(
        (find(&mut state, "a", at(1)), find(&mut state, "b", at(1))),
        ("-".into(), "2".into())
    );
    state.flush();
    assert_eq!(find(&mut state, "b", at(1)), "-");
    let counters = state.counters();
    assert_eq!((counters.hits, counters.misses, counters.dropped, counters.items), (3, 2, 1, 0));
}

#[test]
fn what_was_asked_for_before_a_change_was_told_is_not_kept() {
    let changes: [fn(&mut State); 3] =
        [|state| state.changed(b"a"), State::flush, |state| state.lost(STREAM)];
    for change in changes {
        let mut state = followed(LIMITS);
        let token = state.begin(b"a", &[STREAM], at(0));
        change(&mut state);
        state.finish(token, b"a", Answer { value: Some(&value("1")), ttl_s: None }, at(1));
        assert_eq!(find(&mut state, "a", at(1)), "-");
        assert_eq!(state.counters().raced, 1);
    }
}

#[test]
fn nothing_is_served_that_cannot_be_shown_to_be_up_to_date() {
    let mut state = followed(LIMITS);
    keep(&mut state, "a", Some("1"), None, at(0));
    assert_eq!(find(&mut state, "a", at(2000)), "1");
    assert_eq!(find(&mut state, "a", at(2001)), "-");
    assert_eq!(state.counters().misses_withheld, 1);
    // It was late, not lost: what it told meanwhile was heard.
    state.heard(STREAM, at(1000), SILENCE_MAX);
    assert_eq!(find(&mut state, "a", at(3000)), "1");
    // The one that is furthest behind counts.
    state.add_source(SourceId(8));
    assert_eq!(find(&mut state, "a", at(3000)), "1", "that one is not relied on yet");
    state.heard(SourceId(8), at(999), SILENCE_MAX);
    assert_eq!(find(&mut state, "a", at(3000)), "-");
}

#[test]
fn nothing_is_kept_while_the_stream_is_down_unless_that_is_wanted() {
    let mut state = State::new(LIMITS);
    state.add_source(STREAM);
    keep(&mut state, "a", Some("1"), None, at(0));
    assert_eq!(find(&mut state, "a", at(0)), "-");

    let mut state = State::new(Limits { short_ttl: Some(500 * MS), ..LIMITS });
    keep(&mut state, "a", Some("1"), None, at(0));
    assert_eq!(find(&mut state, "a", at(499)), "1");
    assert_eq!(find(&mut state, "a", at(500)), "-");
    // One that comes up does not make it live longer.
    keep(&mut state, "a", Some("1"), None, at(500));
    state.add_source(STREAM);
    state.heard(STREAM, at(600), SILENCE_MAX);
    assert_eq!(find(&mut state, "a", at(1000)), "-");
}

#[test]
fn a_source_that_was_removed_has_nothing_more_to_say() {
    let mut state = followed(LIMITS);
    state.remove_source(STREAM);
    state.heard(STREAM, at(10), SILENCE_MAX);
    assert_eq!(state.counters().streams, 0);
    keep(&mut state, "a", Some("1"), None, at(10));
    assert_eq!(find(&mut state, "a", at(10)), "-");
}

#[test]
fn nothing_outlives_its_item() {
    let mut state = followed(LIMITS);
    keep(&mut state, "a", Some("1"), Some(2), at(0));
    assert_eq!(find(&mut state, "a", at(999)), "1");
    assert_eq!(find(&mut state, "a", at(1000)), "-", "the server rounds up");
    keep(&mut state, "a", Some("1"), Some(1), at(1000));
    assert_eq!(find(&mut state, "a", at(1000)), "-");
}

#[test]
fn that_there_is_none_is_kept_only_on_request() {
    let mut state = followed(LIMITS);
    keep(&mut state, "a", None, None, at(0));
    assert_eq!(find(&mut state, "a", at(0)), "-");
    let mut state = followed(Limits { absent_ttl_max: Some(100 * MS), ..LIMITS });
    keep(&mut state, "a", None, None, at(0));
    assert_eq!(find(&mut state, "a", at(99)), "none");
    assert_eq!(find(&mut state, "a", at(100)), "-");
}

#[test]
fn bytes_are_bounded_under_every_policy() {
    for eviction in Kind::ALL {
        let mut state = followed(Limits { eviction, ..LIMITS });
        for number in 0..5000u32 {
            let text = "x".repeat(number as usize % 700);
            keep(&mut state, &format!("key-{number}"), Some(&text), None, at(0));
            find(&mut state, &format!("key-{}", number / 2), at(1));
            if number % 3 == 0 {
                state.changed(format!("key-{}", number / 3).as_bytes());
            }
            assert!(state.bytes <= LIMITS.bytes_max, "{eviction}");
        }
        let counters = state.counters();
        assert!(counters.evicted > 0 && counters.items > 50, "{eviction}: {counters:?}");
        assert_eq!(state.entries.iter().flatten().count(), counters.items);
        let bytes: usize = state.entries.iter().flatten().map(|entry| entry.bytes).sum();
        assert_eq!(bytes, counters.bytes);
    }
}

#[test]
fn a_value_that_is_larger_than_all_there_may_be_is_not_kept() {
    let mut state = followed(LIMITS);
    keep(&mut state, "a", Some(&"x".repeat(LIMITS.bytes_max)), None, at(0));
    assert_eq!(find(&mut state, "a", at(0)), "-");
}

/// What may happen, in any order.
#[derive(Clone, Debug)]
enum Event {
    /// Somebody else writes a key.
    Write(usize),
    /// The server forgets everything.
    FlushAll,
    /// A get is sent.
    Ask(usize),
    /// The server answers the n-th of those that it has not.
    Serve(usize),
    /// The n-th answer arrives.
    Arrive(usize),
    /// The next bytes of the stream arrive, so many.
    Deliver(usize),
    /// The server hears what the client has said on the stream.
    Hear,
    /// The connection of the stream is cut, and nobody notices.
    Cut,
    /// The client notices.
    Notice,
    /// The stream is asked for anew, if there is none.
    Connect,
    /// Time passes, in milliseconds, and no timer goes off.
    Pass(u32),
    /// The timers that are due go off.
    Tick,
    /// A key is read.
    Read(usize),
}

const KEYS: usize = 3;

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..KEYS).prop_map(Event::Write),
        1 => Just(Event::FlushAll),
        6 => (0..KEYS).prop_map(Event::Ask),
        6 => (0..3usize).prop_map(Event::Serve),
        6 => (0..3usize).prop_map(Event::Arrive),
        8 => (1..40usize).prop_map(Event::Deliver),
        3 => Just(Event::Hear),
        1 => Just(Event::Cut),
        1 => Just(Event::Notice),
        2 => Just(Event::Connect),
        5 => (1..800u32).prop_map(Event::Pass),
        4 => Just(Event::Tick),
        8 => (0..KEYS).prop_map(Event::Read),
    ]
}

struct Question {
    key: usize,
    token: Token,
    /// What the server answered.
    found: Option<Option<usize>>,
}

/// The stream between them, as each of the two ends has it.
struct Line {
    client: Stream,
    /// On the way to the client.
    bytes: VecDeque<u8>,
    /// On the way to the server, and heard there.
    pings: u64,
    heard: u64,
    is_cut: bool,
}

/// A server, a client with what it keeps, and all that is between them.
struct World {
    now: Instant,
    /// For each key what it was, and from when on.
    history: Vec<Vec<(Instant, Option<usize>)>>,
    questions: VecDeque<Question>,
    line: Option<Line>,
    state: State,
    /// How old may be what relies on no stream.
    short_ttl: Duration,
    hits: usize,
}

const PACE: Pace = Pace { ping_interval: Duration::from_millis(300), silence_max: SILENCE_MAX };

impl World {
    fn new(short_ttl: Option<Duration>) -> Self {
        let absent_ttl_max = Some(Duration::from_secs(30));
        let mut state = State::new(Limits { short_ttl, absent_ttl_max, ..LIMITS });
        state.add_source(STREAM);
        Self {
            now: at(0),
            history: vec![vec![(at(0), None)]; KEYS],
            questions: VecDeque::new(),
            line: None,
            state,
            short_ttl: short_ttl.unwrap_or_default(),
            hits: 0,
        }
    }

    fn key(key: usize) -> String {
        format!("key:{key}")
    }

    fn tell(&mut self, line: ChangeLine<'_>) {
        if let Some(to) = self.line.as_mut().filter(|line| !line.is_cut) {
            let mut bytes = Vec::new();
            line.encode(&mut bytes);
            to.bytes.extend(bytes);
        }
    }

    fn write(&mut self, key: usize, written: Option<usize>) {
        self.tell(ChangeLine::Key(Self::key(key).as_bytes()));
        self.history[key].push((self.now, written));
    }

    fn happen(&mut self, event: &Event, number: usize) {
        match *event {
            Event::Write(key) => self.write(key, Some(number)),
            Event::FlushAll => {
                self.tell(ChangeLine::All);
                self.history.iter_mut().for_each(|it| it.push((self.now, None)));
            }
            Event::Ask(key) => {
                let token = self.state.begin(Self::key(key).as_bytes(), &[STREAM], self.now);
                self.questions.push_back(Question { key, token, found: None });
            }
            Event::Serve(n) => {
                if let Some(question) =
                    self.questions.iter_mut().filter(|it| it.found.is_none()).nth(n)
                {
                    question.found = self.history[question.key].last().map(|&(_, value)| value);
                }
            }
            Event::Arrive(n) => {
                let served = |&place: &usize| self.questions[place].found.is_some();
                let place = (0..self.questions.len()).filter(served).nth(n);
                if let Some(question) = place.and_then(|place| self.questions.remove(place)) {
                    let value = question.found.flatten().map(|number| value(&number.to_string()));
                    let answer = Answer { value: value.as_ref(), ttl_s: None };
                    let key = Self::key(question.key);
                    self.state.finish(question.token, key.as_bytes(), answer, self.now);
                }
            }
            Event::Deliver(count) => self.deliver(count),
            Event::Hear => {
                let Some(line) = self.line.as_mut().filter(|it| !it.is_cut) else { return };
                if line.pings > line.heard {
                    line.heard = line.pings;
                    let alive = ChangeLine::Alive(line.heard);
                    self.tell(alive);
                }
            }
            Event::Cut => {
                if let Some(line) = &mut self.line {
                    line.is_cut = true;
                }
            }
            Event::Notice => {
                if self.line.as_ref().is_some_and(|line| line.is_cut) {
                    self.lose();
                }
            }
            Event::Connect => {
                if self.line.is_none() {
                    let client = Stream::new(PACE, self.now);
                    let bytes = b"OK\r\n".iter().copied().collect();
                    self.line = Some(Line { client, bytes, pings: 0, heard: 0, is_cut: false });
                }
            }
            Event::Pass(millis) => self.now += millis * MS,
            Event::Tick => self.tick(),
            Event::Read(key) => self.read(key),
        }
    }

    fn lose(&mut self) {
        self.line = None;
        self.state.lost(STREAM);
    }

    fn tick(&mut self) {
        let Some(line) = &mut self.line else { return };
        match line.client.tick(self.now) {
            Ok(is_due) => line.pings += u64::from(is_due),
            Err(_) => self.lose(),
        }
    }

    fn deliver(&mut self, count: usize) {
        let Some(line) = &mut self.line else { return };
        let count = count.min(line.bytes.len());
        let bytes: Vec<u8> = line.bytes.drain(..count).collect();
        let state = &mut self.state;
        let told = line.client.input(&bytes, |told| match told {
            Told::Open { through } | Told::Alive { through } => {
                state.heard(STREAM, through, SILENCE_MAX);
            }
            Told::Key(key) => state.changed(key),
            Told::All => state.flush(),
        });
        assert!(told.is_ok(), "the server says nothing wrong");
        self.tick();
    }

    /// Reads, and looks how long ago what is found was the value of the key.
    fn read(&mut self, key: usize) {
        let Look::Hit(found) = self.state.find(Self::key(key).as_bytes(), self.now) else { return };
        self.hits += 1;
        let id = self.state.ids[Self::key(key).as_bytes()];
        let relies_on_streams =
            self.state.entries[id.index()].as_ref().is_some_and(|it| it.relies_on_streams);
        let found = found.map(|value| String::from_utf8_lossy(&value.data).parse().unwrap());
        let history = &self.history[key];
        let was = history.iter().rposition(|&(_, value)| value == found).expect("it was there");
        if let Some(&(replaced_at, _)) = history.get(was + 1) {
            let staleness = self.now - replaced_at;
            let bound = if relies_on_streams { SILENCE_MAX } else { self.short_ttl };
            assert!(staleness <= bound, "{found:?} was replaced {staleness:?} ago");
        }
    }
}

fn holds(events: &[Event], short_ttl: Option<Duration>) -> usize {
    let mut world = World::new(short_ttl);
    for (number, event) in events.iter().enumerate() {
        world.happen(event, number);
    }
    world.hits
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_read_is_staler_than_promised(events in vec(event(), 0..300)) {
        holds(&events, None);
    }

    #[test]
    fn no_read_is_staler_than_promised_where_short_lives_do_for_a_stream(
        events in vec(event(), 0..300),
    ) {
        holds(&events, Some(700 * MS));
    }
}

/// The model serves from the cache at all, also after a stream was lost and made again.
#[test]
fn the_model_reads_what_is_near() {
    let read = [Event::Ask(0), Event::Serve(0), Event::Arrive(0), Event::Read(0)];
    let connect = [Event::Connect, Event::Deliver(4)];
    let lose = [Event::Cut, Event::Notice];
    let events = [&connect[..], &read, &[Event::Write(0)], &read, &lose, &connect, &read].concat();
    assert_eq!(holds(&events, None), 3);
}
