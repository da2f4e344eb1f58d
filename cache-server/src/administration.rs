//! What clients administer: `lru_crawler`, `slabs`, `lru`, `debugtime`, `verbosity`.
//!
//! Scripts send these to every memcached they look after. What works here works: dumps, a crawl, the verbosity.
//! What has no meaning here (see [`Knobs`]) is accepted or refused as memcached does it, told by `stats settings`,
//! and changes nothing else. Which error comes first, and that the beginning of a word stands for the word, is
//! memcached's as well (`proto_text.c`).

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arrayvec::ArrayVec;
use parking_lot::Mutex;
use protocol::token::Tokens;

use crate::clock::Clock;
use crate::config::{Config, Knobs};
use crate::dump::DumpKind;
use crate::logging;

/// Words that any of these commands takes, and one more.
const WORDS_MAX: usize = 6;
/// Classes are numbered from 1 to this.
const CLASS_MAX: u32 = 63;

const OK: &str = "OK\r\n";
const ERROR: &str = "ERROR\r\n";
const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format\r\n";
const BAD_CLASS: &str = "BADCLASS invalid class id\r\n";
const CRAWLER_DISABLED: &str = "CLIENT_ERROR lru crawler disabled\r\n";

/// What comes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// One line.
    Line(&'static str),
    /// A list of the items.
    Dump {
        kind: DumpKind,
        /// Whether their class is among those that were asked for.
        has_items: bool,
    },
}

type Words<'a> = ArrayVec<&'a [u8], WORDS_MAX>;

/// What was administered so far.
#[derive(Debug)]
pub struct Administration {
    knobs: Mutex<Knobs>,
    dumps_allowed: bool,
    verbosity: AtomicU32,
    /// Somebody asked for a crawl that is not over.
    crawls: AtomicBool,
    crawler_starts: AtomicU64,
    /// The clock, where clients may set it.
    test_clock: Option<Clock>,
}

impl Administration {
    /// As the command line says, so far.
    pub fn new(config: &Config, clock: &Clock) -> Self {
        let test_clock = config.inspection.test_clock.then(|| clock.clone());
        if test_clock.is_some() {
            tracing::warn!("clients may set the clock of this server: it is one for tests");
        }
        Self {
            knobs: Mutex::new(config.knobs.clone()),
            dumps_allowed: config.inspection.dumps,
            verbosity: AtomicU32::new(config.verbosity.into()),
            crawls: AtomicBool::new(false),
            crawler_starts: AtomicU64::new(0),
            test_clock,
        }
    }

    /// What `stats settings` tells of memcached's internals.
    pub fn knobs(&self) -> Knobs {
        self.knobs.lock().clone()
    }

    /// How much is logged.
    pub fn verbosity(&self) -> u32 {
        self.verbosity.load(Ordering::Relaxed)
    }

    /// Logs as much as with so many `-v` from now on; as in memcached, 2 is the most.
    pub(crate) fn set_verbosity(&self, level: u32) {
        let level = level.min(2);
        self.verbosity.store(level, Ordering::Relaxed);
        logging::set_verbosity(u8::try_from(level).unwrap_or(u8::MAX));
    }

    /// Whether keys may be listed.
    pub fn dumps_allowed(&self) -> bool {
        self.dumps_allowed
    }

    /// Whether a crawl is under way.
    pub fn is_crawling(&self) -> bool {
        self.crawls.load(Ordering::Relaxed)
    }

    /// How many crawls and dumps there were.
    pub fn crawler_starts(&self) -> u64 {
        self.crawler_starts.load(Ordering::Relaxed)
    }

    /// The crawl that was asked for is over.
    pub(crate) fn note_crawled(&self) {
        self.crawls.store(false, Ordering::Relaxed);
    }

    pub(crate) fn reset_counters(&self) {
        self.crawler_starts.store(0, Ordering::Relaxed);
    }

    /// Carries out `lru_crawler`. `is_behind` says that earlier answers were not sent: memcached, which
    /// gives the connection away for a dump, refuses one then.
    pub(crate) fn lru_crawler(&self, arguments: Tokens<'_>, is_behind: bool) -> Outcome {
        let words = words(arguments);
        match words.as_slice() {
            [word, classes] if is_short_for(word, "crawl") => Outcome::Line(self.crawl(classes)),
            [word, classes] if is_short_for(word, "metadump") => {
                self.dump(DumpKind::Facts, classes, is_behind)
            }
            [word, classes] if is_short_for(word, "mgdump") => {
                self.dump(DumpKind::Keys, classes, is_behind)
            }
            [word, number] if is_short_for(word, "tocrawl") => {
                Outcome::Line(self.set(parse(number), BAD_FORMAT, |knobs, items| {
                    knobs.lru_crawler_tocrawl = items;
                }))
            }
            [word, number] if is_short_for(word, "sleep") => {
                let sleep_us = parse::<u32>(number);
                if sleep_us.is_some_and(|us| us > 1_000_000) {
                    return Outcome::Line("CLIENT_ERROR sleep must be one second or less\r\n");
                }
                Outcome::Line(self.set(sleep_us, BAD_FORMAT, |knobs, us| {
                    knobs.lru_crawler_sleep_us = us;
                }))
            }
            [word] if is_short_for(word, "enable") => {
                let was_on = std::mem::replace(&mut self.knobs.lock().lru_crawler, true);
                let failed = "ERROR failed to start lru crawler thread\r\n";
                Outcome::Line(if was_on { failed } else { OK })
            }
            [word] if is_short_for(word, "disable") => {
                self.knobs.lock().lru_crawler = false;
                Outcome::Line(OK)
            }
            _ => Outcome::Line(ERROR),
        }
    }

    /// Has what has expired removed, all of it. The sweep does the same about once a second; after this
    /// somebody knows when it is done.
    fn crawl(&self, classes: &[u8]) -> &'static str {
        if !self.knobs.lock().lru_crawler {
            return CRAWLER_DISABLED;
        }
        match Classes::parse(classes) {
            Classes::Hash => "ERROR an unknown error happened\r\n",
            Classes::Bad => BAD_CLASS,
            Classes::None => "NOTSTARTED no items to crawl\r\n",
            Classes::Some { has_items } => {
                if has_items && self.crawls.swap(true, Ordering::Relaxed) {
                    return "BUSY currently processing crawler request\r\n";
                }
                self.crawler_starts.fetch_add(1, Ordering::Relaxed);
                OK
            }
        }
    }

    fn dump(&self, kind: DumpKind, classes: &[u8], is_behind: bool) -> Outcome {
        let (not_allowed, behind) = match kind {
            DumpKind::Facts => (
                "ERROR metadump not allowed\r\n",
                "ERROR cannot pipeline other commands before metadump\r\n",
            ),
            DumpKind::Keys => (
                "ERROR key dump not allowed\r\n",
                "ERROR cannot pipeline other commands before mgdump\r\n",
            ),
        };
        if !self.knobs.lock().lru_crawler {
            return Outcome::Line(CRAWLER_DISABLED);
        }
        if !self.dumps_allowed {
            return Outcome::Line(not_allowed);
        }
        if is_behind {
            return Outcome::Line(behind);
        }
        match Classes::parse(classes) {
            Classes::Bad => Outcome::Line(BAD_CLASS),
            Classes::None => Outcome::Line("NOTSTARTED no items to crawl\r\n"),
            Classes::Hash => Outcome::Dump { kind, has_items: true },
            Classes::Some { has_items } => Outcome::Dump { kind, has_items },
        }
    }

    /// A dump begins.
    pub(crate) fn note_dump(&self) {
        self.crawler_starts.fetch_add(1, Ordering::Relaxed);
    }

    /// Carries out `slabs`.
    pub(crate) fn slabs(&self, arguments: Tokens<'_>) -> &'static str {
        let words = words(arguments);
        match words.as_slice() {
            [word, from, to] if is_short_for(word, "reassign") => self.reassign(from, to),
            [word, rest @ ..] if is_short_for(word, "automove") && !rest.is_empty() => {
                self.automove(rest)
            }
            _ => ERROR,
        }
    }

    /// No class has pages, so none has one to spare.
    fn reassign(&self, from: &[u8], to: &[u8]) -> &'static str {
        if !self.knobs.lock().slab_reassign {
            return "CLIENT_ERROR slab reassignment disabled\r\n";
        }
        let (Some(from), Some(to)) = (parse::<i32>(from), parse::<i32>(to)) else {
            return BAD_FORMAT;
        };
        let is_class = |class: i32| u32::try_from(class).is_ok_and(|class| class <= CLASS_MAX);
        if from == to {
            "SAME src and dst class are identical\r\n"
        } else if is_class(from) && is_class(to) {
            "NOSPARE source class has no spare pages\r\n"
        } else {
            "BADCLASS invalid src or dst class id\r\n"
        }
    }

    fn automove(&self, words: &[&[u8]]) -> &'static str {
        let number = words.get(1).copied().unwrap_or_default();
        match words[0] {
            word if is_short_for(word, "ratio") => {
                self.set(parse_float(number), ERROR, |knobs, ratio| {
                    knobs.slab_automove_ratio = ratio;
                })
            }
            word if is_short_for(word, "freeratio") => {
                self.set(parse_float(number), ERROR, |knobs, ratio| {
                    knobs.slab_automove_free_ratio = ratio;
                })
            }
            word if is_short_for(word, "window") => match parse::<u32>(number) {
                Some(window_s) if !(3..=1800).contains(&window_s) => {
                    "CLIENT_ERROR automove window too low or too high\r\n"
                }
                window_s => self.set(window_s, BAD_FORMAT, |knobs, window_s| {
                    knobs.slab_automove_window_s = window_s;
                }),
            },
            word => match parse::<u32>(word) {
                Some(level) if level > 2 => ERROR,
                level => self.set(level, BAD_FORMAT, |knobs, level| knobs.slab_automove = level),
            },
        }
    }

    /// Carries out `lru`.
    pub(crate) fn lru(&self, arguments: Tokens<'_>) -> &'static str {
        let words = words(arguments);
        let has_maintainer = self.knobs.lock().lru_maintainer;
        match words.as_slice() {
            [word, hot, warm, hot_factor, warm_factor, ..] if is_short_for(word, "tune") => {
                let percents = parse::<u32>(hot).zip(parse::<u32>(warm));
                let factors = parse_float(hot_factor).zip(parse_float(warm_factor));
                self.tune(percents, factors)
            }
            [word, mode, ..] if is_short_for(word, "mode") && has_maintainer => {
                let segmented = match *mode {
                    b"flat" => Some(false),
                    b"segmented" => Some(true),
                    _ => None,
                };
                self.set(segmented, ERROR, |knobs, segmented| knobs.lru_segmented = segmented)
            }
            [word, ttl_s, ..] if is_short_for(word, "temp_ttl") && has_maintainer => {
                self.set(parse::<i32>(ttl_s), ERROR, |knobs, ttl_s| {
                    knobs.temp_lru = ttl_s >= 0;
                    if let Ok(ttl_s) = u32::try_from(ttl_s) {
                        knobs.temporary_ttl_s = ttl_s;
                    }
                })
            }
            _ => ERROR,
        }
    }

    fn tune(&self, percents: Option<(u32, u32)>, factors: Option<(f64, f64)>) -> &'static str {
        let (Some((hot, warm)), Some((hot_factor, warm_factor))) = (percents, factors) else {
            return ERROR;
        };
        if hot.saturating_add(warm) > 80 {
            return "ERROR hot and warm pcts must not exceed 80\r\n";
        }
        if hot_factor <= 0.0 || warm_factor <= 0.0 {
            return "ERROR hot/warm age factors must be greater than 0\r\n";
        }
        let mut knobs = self.knobs.lock();
        knobs.hot_lru_percent = hot;
        knobs.warm_lru_percent = warm;
        knobs.hot_max_factor = hot_factor;
        knobs.warm_max_factor = warm_factor;
        OK
    }

    /// Carries out `debugtime`, which memcached has in its debug build alone: a number moves the clock by so
    /// many seconds, `p` stops it, `r` lets it run again.
    pub(crate) fn debug_time(&self, mut arguments: Tokens<'_>) -> &'static str {
        let (Some(clock), Some(word)) = (&self.test_clock, arguments.next()) else { return ERROR };
        match word {
            b"p" => clock.pause(),
            b"r" => clock.resume(),
            word => match parse::<i32>(word) {
                Some(seconds) => clock.shift(seconds),
                None => return ERROR,
            },
        }
        OK
    }

    /// Sets a knob to a value that could be read; answers `error` if it could not.
    fn set<T>(
        &self,
        value: Option<T>,
        error: &'static str,
        act: impl FnOnce(&mut Knobs, T),
    ) -> &'static str {
        let Some(value) = value else { return error };
        act(&mut self.knobs.lock(), value);
        OK
    }
}

/// Which classes of items a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Classes {
    /// A list that names none.
    None,
    /// Something that is no list.
    Bad,
    /// `hash`: all, by the hash table.
    Hash,
    /// Some.
    Some {
        /// Whether the one with items is among them.
        has_items: bool,
    },
}

impl Classes {
    fn parse(word: &[u8]) -> Self {
        match word {
            b"all" => return Self::Some { has_items: true },
            b"hash" => return Self::Hash,
            _ => {}
        }
        let mut classes = Self::None;
        for number in word.split(|&byte| byte == b',').filter(|number| !number.is_empty()) {
            let class = parse::<u32>(number).filter(|class| (1..=CLASS_MAX).contains(class));
            let Some(class) = class else { return Self::Bad };
            let had_items = classes == Self::Some { has_items: true };
            classes = Self::Some { has_items: had_items || class == 1 };
        }
        classes
    }
}

/// The words after a command; of those beyond the last that any takes, that there are more.
fn words(arguments: Tokens<'_>) -> Words<'_> {
    arguments.take(WORDS_MAX).collect()
}

/// As memcached compares the words of these commands: the beginning is enough.
pub(crate) fn is_short_for(word: &[u8], name: &str) -> bool {
    name.as_bytes().starts_with(word)
}

fn parse<N: FromStr>(word: &[u8]) -> Option<N> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn parse_float(word: &[u8]) -> Option<f64> {
    parse::<f64>(word).filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn administration() -> Administration {
        Administration::new(&Config::default(), &Clock::system())
    }

    fn line(administration: &Administration, request: &str) -> &'static str {
        let (command, arguments) = request.split_once(' ').unwrap_or((request, ""));
        let arguments = Tokens::new(arguments.as_bytes());
        let answer = match command {
            "slabs" => administration.slabs(arguments),
            "lru" => administration.lru(arguments),
            "debugtime" => administration.debug_time(arguments),
            _ => match administration.lru_crawler(arguments, false) {
                Outcome::Line(line) => line,
                Outcome::Dump { .. } => panic!("{request} is a dump"),
            },
        };
        answer.trim_end()
    }

    /// What memcached 1.6.45 answers, started without a flag.
    #[test]
    fn every_answer_is_that_of_memcached() {
        let administration = administration();
        let dialogue = [
            ("lru_crawler", "ERROR"),
            ("lru_crawler metadump", "ERROR"),
            ("lru_crawler metadump 64", "BADCLASS invalid class id"),
            ("lru_crawler metadump 0", "BADCLASS invalid class id"),
            ("lru_crawler mgdump x", "BADCLASS invalid class id"),
            ("lru_crawler crawl hash", "ERROR an unknown error happened"),
            ("lru_crawler crawl ,", "NOTSTARTED no items to crawl"),
            ("lru_crawler crawl 5", "OK"),
            ("lru_crawler enable", "ERROR failed to start lru crawler thread"),
            ("lru_crawler disable", "OK"),
            ("lru_crawler disable", "OK"),
            ("lru_crawler metadump all", "CLIENT_ERROR lru crawler disabled"),
            ("lru_crawler crawl all", "CLIENT_ERROR lru crawler disabled"),
            ("lru_crawler enable", "OK"),
            ("lru_crawler sleep 100", "OK"),
            ("lru_crawler sleep 2000000", "CLIENT_ERROR sleep must be one second or less"),
            ("lru_crawler sleep x", "CLIENT_ERROR bad command line format"),
            ("lru_crawler tocrawl 10", "OK"),
            ("lru_crawler tocrawl x", "CLIENT_ERROR bad command line format"),
            ("lru_crawler foo bar", "ERROR"),
            ("slabs", "ERROR"),
            ("slabs reassign", "ERROR"),
            ("slabs reassign 1 2", "NOSPARE source class has no spare pages"),
            ("slabs reassign 1 x", "CLIENT_ERROR bad command line format"),
            ("slabs reassign 1 1", "SAME src and dst class are identical"),
            ("slabs reassign -1 1", "BADCLASS invalid src or dst class id"),
            ("slabs reassign 1 99", "BADCLASS invalid src or dst class id"),
            ("slabs automove", "ERROR"),
            ("slabs automove 0", "OK"),
            ("slabs automove 2", "OK"),
            ("slabs automove 3", "ERROR"),
            ("slabs automove x", "CLIENT_ERROR bad command line format"),
            ("slabs automove ratio 0.8", "OK"),
            ("slabs automove ratio x", "ERROR"),
            ("slabs automove ratio", "ERROR"),
            ("slabs automove freeratio 0.1", "OK"),
            ("slabs automove window 2", "CLIENT_ERROR automove window too low or too high"),
            ("slabs automove window 10", "OK"),
            ("slabs automove window", "CLIENT_ERROR bad command line format"),
            ("lru", "ERROR"),
            ("lru tune 10 25 0.1 2.0", "OK"),
            ("lru tune 10 25 0.1", "ERROR"),
            ("lru tune 60 60 0.1 2", "ERROR hot and warm pcts must not exceed 80"),
            ("lru tune 10 25 -1 2", "ERROR hot/warm age factors must be greater than 0"),
            ("lru tune a 25 0.1 2.0", "ERROR"),
            ("lru mode flat", "OK"),
            ("lru mode foo", "ERROR"),
            ("lru temp_ttl 60", "OK"),
            ("lru temp_ttl x", "ERROR"),
            ("lru foo 1", "ERROR"),
            ("debugtime 1", "ERROR"),
            ("debugtime p", "ERROR"),
        ];
        for (request, expected) in dialogue {
            assert_eq!(line(&administration, request), expected, "{request}");
        }
    }

    #[test]
    fn what_was_set_is_what_is_told() {
        let administration = administration();
        for request in
            ["lru tune 10 25 0.5 3", "lru mode flat", "lru temp_ttl 90", "slabs automove 0"]
        {
            assert_eq!(line(&administration, request), "OK");
        }
        let knobs = administration.knobs();
        assert_eq!((knobs.hot_lru_percent, knobs.warm_lru_percent), (10, 25));
        assert_eq!((knobs.lru_segmented, knobs.temp_lru, knobs.temporary_ttl_s), (false, true, 90));
        assert_eq!(knobs.slab_automove, 0);
    }

    #[test]
    fn a_crawl_that_is_not_over_keeps_another_waiting() {
        let administration = administration();
        assert_eq!(line(&administration, "lru_crawler crawl all"), "OK");
        assert_eq!(
            line(&administration, "lru_crawler crawl 1"),
            "BUSY currently processing crawler request"
        );
        administration.note_crawled();
        assert_eq!(line(&administration, "lru_crawler crawl 1"), "OK");
    }

    #[test]
    fn the_clock_is_set_by_clients_only_of_a_server_for_tests() {
        let clock = Clock::system();
        let mut config = Config::default();
        assert_eq!(line(&Administration::new(&config, &clock), "debugtime 100"), "ERROR");
        config.inspection.test_clock = true;
        let administration = Administration::new(&config, &clock);
        let before = clock.now();
        assert_eq!(line(&administration, "debugtime 3600"), "OK");
        assert!(clock.now().unix_seconds() >= before.unix_seconds() + 3600);
        assert_eq!(line(&administration, "debugtime p"), "OK");
        assert_eq!(clock.now(), clock.now());
        assert_eq!(line(&administration, "debugtime -3600"), "OK");
        assert_eq!(line(&administration, "debugtime r"), "OK");
        assert!(clock.now().unix_seconds() < before.unix_seconds() + 3600);
    }
}
