//! A dialogue with a server, written as a person would type it, and played line by line.
//!
//! ```text
//! # An expired entry is gone.              a comment
//! launch -m 64                             flags the server must be started with (first, optional)
//! > set k 0 1 1                            a line sent, ended by \r\n
//! > a
//! < STORED                                 a line expected, ended by \r\n
//! advance 2s                               the server's clock moves on (s or ms)
//! pause 20ms                               real time passes, so that what was sent has arrived
//! > get k
//! < END
//! >> get k\n                               exactly these bytes, with \r \n \t \\ \xNN understood
//! b> version                               another connection, opened when first named
//! b< VERSION {}
//! => get opaque=3 key=k                    a binary request, see `frame.rs`; answers are frames as well
//! < getq opaque=3 extras=0 value=a         from here on
//! < <EOF>                                  the server has closed the connection
//! ```
//!
//! What varies between runs stands in braces:
//!
//! | written | sent | expected |
//! |---|---|---|
//! | `{cas}` | what `cas` was bound to | bound the first time: a run without spaces; the same from then on |
//! | `{!cas}` | – | a run without spaces that differs from `cas` |
//! | `{}` | – | anything, also nothing |
//! | `{29\|30}` | – | either |
//! | `{x*251}` | `x`, 251 times | the same |
//!
//! An expected line `...` stands for any number of lines up to the one that follows it.
//!
//! A script ends by asking every connection that is still open for `mn`, or `noop`: an answer too many, or one
//! to a `noreply`, shows there at the latest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use std::{fmt, io};

use crate::connection::Connection;
use crate::{frame, wait};

/// A parsed dialogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// What it is called in a failure: its path, usually.
    pub name: String,
    /// The flags its server must be started with.
    pub launch: Vec<String>,
    steps: Vec<Step>,
}

/// One line of a script that does something.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    /// Counted from 1.
    line_number: usize,
    /// Empty for the connection without a name.
    connection: String,
    action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Send(Vec<Piece>),
    SendFrame(Vec<Piece>),
    Expect(Vec<Piece>),
    ExpectAnyLines,
    ExpectClosed,
    Advance(Duration),
    Pause(Duration),
}

/// A part of a line: bytes that are the same in every run, or something in braces.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    Variable(String),
    Other(String),
    Anything,
    Either(Vec<Vec<u8>>),
}

/// Why a script is not one.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// A line that means nothing.
    #[error("{name}:{line_number}: {reason}: {line:?}")]
    Line {
        /// The script.
        name: String,
        /// Counted from 1.
        line_number: usize,
        /// The line as it stands.
        line: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file cannot be read.
    #[error("cannot read {name}")]
    Io {
        /// The script.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Where a server left the script: the line, and what was said so far.
#[derive(Debug, thiserror::Error)]
#[error("{name}:{line_number}: {reason}\nthe dialogue until then:\n{dialogue}")]
pub struct Disagreement {
    /// The script.
    pub name: String,
    /// Counted from 1; the last line for what shows only at the end.
    pub line_number: usize,
    /// What was expected and what came.
    pub reason: String,
    /// The last lines sent and received.
    pub dialogue: String,
}

impl Script {
    /// Reads the script at `path`.
    ///
    /// # Errors
    /// When the file cannot be read, or a line means nothing.
    pub fn open(path: &Path) -> Result<Self, ScriptError> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&name, &text),
            Err(source) => Err(ScriptError::Io { name, source }),
        }
    }

    /// Parses `text`; `name` is what failures call it.
    ///
    /// # Errors
    /// When a line means nothing.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScriptError> {
        let mut script = Self { name: name.to_owned(), launch: Vec::new(), steps: Vec::new() };
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            script.parse_line(line_number, line).map_err(|reason| ScriptError::Line {
                name: name.to_owned(),
                line_number,
                line: line.to_owned(),
                reason,
            })?;
        }
        Ok(script)
    }

    fn parse_line(&mut self, line_number: usize, line: &str) -> Result<(), &'static str> {
        if line.trim().is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if let Some(flags) = line.strip_prefix("launch ") {
            if !self.steps.is_empty() {
                return Err("`launch` comes before everything else");
            }
            self.launch = flags.split_whitespace().map(str::to_owned).collect();
            return Ok(());
        }
        let (connection, action) = if let Some(duration) = line.strip_prefix("advance ") {
            (String::new(), Action::Advance(duration_of(duration)?))
        } else if let Some(duration) = line.strip_prefix("pause ") {
            (String::new(), Action::Pause(duration_of(duration)?))
        } else {
            let mark = line.find(['<', '>']).ok_or("not a line of a dialogue")?;
            let (connection, rest) = line.split_at(mark - usize::from(line[..mark].ends_with('=')));
            if !connection.chars().all(|c| c.is_ascii_lowercase()) {
                return Err("a connection is named by lower-case letters");
            }
            (connection.to_owned(), action_of(rest)?)
        };
        self.steps.push(Step { line_number, connection, action });
        Ok(())
    }

    /// Plays the script with the server at `address`; `advance` moves its clock on.
    ///
    /// # Errors
    /// At the first line where the server says something else.
    pub fn play(
        &self,
        address: SocketAddr,
        advance: &mut dyn FnMut(Duration),
    ) -> Result<(), Disagreement> {
        self.play_over(&|| Connection::open(address), advance)
    }

    /// The same over connections that `open` makes.
    ///
    /// # Errors
    /// At the first line where the server says something else.
    pub fn play_over(
        &self,
        open: &dyn Fn() -> io::Result<Connection>,
        advance: &mut dyn FnMut(Duration),
    ) -> Result<(), Disagreement> {
        let mut dialogue = Dialogue::with(open);
        let mut last_line_number = 0;
        for step in &self.steps {
            last_line_number = step.line_number;
            dialogue
                .take(step, advance)
                .map_err(|reason| self.disagreement(step.line_number, reason, &dialogue))?;
        }
        dialogue
            .ends_in_silence()
            .map_err(|reason| self.disagreement(last_line_number, reason, &dialogue))
    }

    fn disagreement(
        &self,
        line_number: usize,
        reason: String,
        dialogue: &Dialogue<'_>,
    ) -> Disagreement {
        let name = self.name.clone();
        Disagreement { name, line_number, reason, dialogue: dialogue.to_string() }
    }
}

fn action_of(text: &str) -> Result<Action, &'static str> {
    // The line may be empty: `>` alone sends \r\n.
    let argument = |rest: &str| rest.strip_prefix(' ').unwrap_or(rest).to_owned();
    if let Some(rest) = text.strip_prefix(">>") {
        return Ok(Action::Send(pieces_of(&unescape(&argument(rest))?, b"")?));
    }
    if let Some(rest) = text.strip_prefix('>') {
        return Ok(Action::Send(pieces_of(argument(rest).as_bytes(), b"\r\n")?));
    }
    if let Some(rest) = text.strip_prefix("=>") {
        return Ok(Action::SendFrame(pieces_of(&unescape(&argument(rest))?, b"")?));
    }
    let line = text.strip_prefix('<').map(argument).ok_or("neither sent nor expected")?;
    Ok(match line.as_str() {
        "<EOF>" => Action::ExpectClosed,
        "..." => Action::ExpectAnyLines,
        _ => Action::Expect(pieces_of(line.as_bytes(), b"")?),
    })
}

fn duration_of(text: &str) -> Result<Duration, &'static str> {
    let number = |digits: &str| digits.trim().parse().map_err(|_| "not a duration");
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => number(digits).map(Duration::from_millis),
        (None, Some(digits)) => number(digits).map(Duration::from_secs),
        (None, None) => Err("a duration ends in s or ms"),
    }
}

/// The bytes that `text` writes with \r, \n, \t, \\ and \xNN.
fn unescape(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let mut digit = || rest.next().and_then(|d| char::from(d).to_digit(16));
                let value = digit().zip(digit()).map(|(high, low)| high * 16 + low);
                value.and_then(|v| u8::try_from(v).ok()).ok_or("\\x takes two digits")?
            }
            _ => return Err("unknown escape"),
        });
    }
    Ok(bytes)
}

/// `text` cut at its braces, with `end` after it.
fn pieces_of(text: &[u8], end: &[u8]) -> Result<Vec<Piece>, &'static str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.iter().position(|&byte| byte == b'{') {
        let length = rest[open..].iter().position(|&byte| byte == b'}').ok_or("{ without }")?;
        let inside = std::str::from_utf8(&rest[open + 1..open + length]).map_err(|_| "not text")?;
        pieces.push(Piece::Bytes(rest[..open].to_vec()));
        pieces.push(piece_of(inside)?);
        rest = &rest[open + length + 1..];
    }
    pieces.push(Piece::Bytes([rest, end].concat()));
    pieces.retain(|piece| !matches!(piece, Piece::Bytes(bytes) if bytes.is_empty()));
    Ok(pieces)
}

fn piece_of(inside: &str) -> Result<Piece, &'static str> {
    let is_name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase());
    if inside.is_empty() {
        Ok(Piece::Anything)
    } else if let Some((unit, count)) = inside.split_once('*') {
        let count: usize = count.parse().map_err(|_| "{x*n} takes a number")?;
        Ok(Piece::Bytes(unit.repeat(count).into_bytes()))
    } else if inside.contains('|') {
        Ok(Piece::Either(inside.split('|').map(|one| one.as_bytes().to_vec()).collect()))
    } else if let Some(name) = inside.strip_prefix('!').filter(|name| is_name(name)) {
        Ok(Piece::Other(name.to_owned()))
    } else if is_name(inside) {
        Ok(Piece::Variable(inside.to_owned()))
    } else {
        Err("braces hold nothing this script knows")
    }
}

/// What variables stand for so far.
type Bindings = BTreeMap<String, Vec<u8>>;

/// The bindings under which `pieces` read as `line`, or `None` when they cannot.
fn matched(pieces: &[Piece], line: &[u8], bindings: &Bindings) -> Option<Bindings> {
    let Some((piece, others)) = pieces.split_first() else {
        return line.is_empty().then(|| bindings.clone());
    };
    let word = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
    match piece {
        Piece::Bytes(bytes) => matched(others, line.strip_prefix(bytes.as_slice())?, bindings),
        Piece::Either(choices) => choices
            .iter()
            .filter_map(|choice| line.strip_prefix(choice.as_slice()))
            .find_map(|rest| matched(others, rest, bindings)),
        Piece::Anything => {
            (0..=line.len()).find_map(|taken| matched(others, &line[taken..], bindings))
        }
        Piece::Variable(name) => match bindings.get(name) {
            Some(value) => matched(others, line.strip_prefix(value.as_slice())?, bindings),
            None => (1..=word).rev().find_map(|taken| {
                let mut bound = bindings.clone();
                bound.insert(name.clone(), line[..taken].to_vec());
                matched(others, &line[taken..], &bound)
            }),
        },
        Piece::Other(name) => (1..=word)
            .rev()
            .filter(|&taken| bindings.get(name).is_some_and(|value| *value != line[..taken]))
            .find_map(|taken| matched(others, &line[taken..], bindings)),
    }
}

/// The bytes to send, or why there are none.
fn filled(pieces: &[Piece], bindings: &Bindings) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Bytes(fixed) => bytes.extend_from_slice(fixed),
            Piece::Variable(name) => bytes.extend_from_slice(
                bindings.get(name).ok_or_else(|| format!("{{{name}}} is not bound yet"))?,
            ),
            Piece::Other(_) | Piece::Anything | Piece::Either(_) => {
                return Err("only a variable or a repetition can be sent".to_owned());
            }
        }
    }
    Ok(bytes)
}

/// The connections of one run, and what was said on them.
struct Dialogue<'a> {
    open: &'a dyn Fn() -> io::Result<Connection>,
    connections: BTreeMap<String, Connection>,
    /// Where `...` was read: lines pass until one is what the next line expects.
    skipping: BTreeSet<String>,
    /// Where frames are spoken.
    framed: BTreeSet<String>,
    bindings: Bindings,
    said: Vec<String>,
}

impl fmt::Display for Dialogue<'_> {
    /// The last lines, each cut to a width that fits a screen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LINES_SHOWN: usize = 12;
        let first = self.said.len().saturating_sub(LINES_SHOWN);
        self.said[first..].iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

impl<'a> Dialogue<'a> {
    fn with(open: &'a dyn Fn() -> io::Result<Connection>) -> Self {
        Self {
            open,
            connections: BTreeMap::new(),
            skipping: BTreeSet::new(),
            framed: BTreeSet::new(),
            bindings: Bindings::new(),
            said: Vec::new(),
        }
    }

    /// Does what `step` says; an error is the reason it could not.
    fn take(&mut self, step: &Step, advance: &mut dyn FnMut(Duration)) -> Result<(), String> {
        let name = step.connection.as_str();
        match &step.action {
            Action::Advance(duration) => advance(*duration),
            Action::Pause(duration) => wait::pass(*duration),
            Action::Send(pieces) => {
                let bytes = filled(pieces, &self.bindings)?;
                self.note(name, '>', &bytes);
                let sent = self.connection(name)?.send(&bytes);
                sent.map_err(|error| format!("cannot send: {error}"))?;
            }
            Action::SendFrame(pieces) => {
                let text = filled(pieces, &self.bindings)?;
                self.note(name, '>', &text);
                let sent = self.connection(name)?.send(&frame::encode(&text)?);
                sent.map_err(|error| format!("cannot send: {error}"))?;
                self.framed.insert(name.to_owned());
            }
            Action::Expect(pieces) => self.expect(name, pieces)?,
            Action::ExpectAnyLines => drop(self.skipping.insert(name.to_owned())),
            Action::ExpectClosed => {
                if let Some(line) = self.receive(name)? {
                    return Err(format!("expected the end, got {}", shown(&line)));
                }
                self.connections.remove(name);
                self.framed.remove(name);
            }
        }
        Ok(())
    }

    /// Reads the line that `pieces` describe, after those that `...` lets pass.
    fn expect(&mut self, name: &str, pieces: &[Piece]) -> Result<(), String> {
        let skips = self.skipping.remove(name);
        loop {
            let Some(line) = self.receive(name)? else {
                return Err(format!("expected {}, got the end", told(pieces)));
            };
            if let Some(bindings) = matched(pieces, &line, &self.bindings) {
                self.bindings = bindings;
                return Ok(());
            }
            if !skips {
                return Err(format!("expected {}, got {}", told(pieces), shown(&line)));
            }
        }
    }

    fn connection(&mut self, name: &str) -> Result<&mut Connection, String> {
        if !self.connections.contains_key(name) {
            let opened = (self.open)().map_err(|error| format!("cannot connect: {error}"))?;
            self.connections.insert(name.to_owned(), opened);
        }
        self.connections.get_mut(name).ok_or_else(|| "no such connection".to_owned())
    }

    /// The next line, or `None` at the end of the connection.
    fn receive(&mut self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let is_framed = self.framed.contains(name);
        let connection = self.connection(name)?;
        let line = if is_framed { connection.receive_frame() } else { connection.receive_line() };
        let line = line.map_err(|error| format!("cannot receive: {error}"))?;
        match &line {
            Some(line) => self.note(name, '<', line),
            None => self.note(name, '<', b"<EOF>"),
        }
        Ok(line)
    }

    fn note(&mut self, connection: &str, mark: char, bytes: &[u8]) {
        self.said.push(format!("{connection}{mark} {}", shown(bytes)));
    }

    fn ends_in_silence(&mut self) -> Result<(), String> {
        let names: Vec<String> = self.connections.keys().cloned().collect();
        for name in names {
            let (question, answer) = match self.framed.contains(&name) {
                true => (frame::encode(b"noop")?, &b"noop"[..]),
                false => (b"mn\r\n".to_vec(), &b"MN"[..]),
            };
            let sent = self.connection(&name)?.send(&question);
            sent.map_err(|error| format!("cannot send anything at the end: {error}"))?;
            match self.receive(&name)? {
                Some(line) if line == answer => {}
                Some(line) => return Err(format!("an answer too many: {}", shown(&line))),
                None => return Err("closed at the end, and no line said so".to_owned()),
            }
        }
        Ok(())
    }
}

/// `bytes` as a person reads them, cut to a width that fits a screen.
fn shown(bytes: &[u8]) -> String {
    const BYTES_SHOWN: usize = 120;
    let cut = &bytes[..bytes.len().min(BYTES_SHOWN)];
    let more = bytes.len() - cut.len();
    let text = cut.escape_ascii().to_string();
    if more == 0 { format!("`{text}`") } else { format!("`{text}`… and {more} bytes more") }
}

fn told(pieces: &[Piece]) -> String {
    let mut text = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => text.extend_from_slice(bytes),
            Piece::Variable(name) => text.extend_from_slice(format!("{{{name}}}").as_bytes()),
            Piece::Other(name) => text.extend_from_slice(format!("{{!{name}}}").as_bytes()),
            Piece::Anything => text.extend_from_slice(b"{}"),
            Piece::Either(choices) => {
                text.push(b'{');
                text.extend_from_slice(&choices.join(&b'|'));
                text.push(b'}');
            }
        }
    }
    shown(&text)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread::JoinHandle;

    use super::*;

    /// A server for one connection that answers each line with what `answer` says.
    fn server(answer: fn(&str) -> &'static str) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut client = Connection::over(listener.accept().unwrap().0).unwrap();
            while let Some(line) = client.receive_line().unwrap() {
                let text = String::from_utf8(line).unwrap();
                let reply = if text == "mn" { "MN\r\n" } else { answer(&text) };
                client.send(reply.as_bytes()).unwrap();
                if text == "quit" {
                    break;
                }
            }
        });
        (address, thread)
    }

    fn played(text: &str, answer: fn(&str) -> &'static str) -> Result<(), String> {
        let (address, thread) = server(answer);
        let script = Script::parse("a script", text).unwrap();
        let result = script.play(address, &mut |_| {}).map_err(|error| error.to_string());
        thread.join().unwrap();
        result
    }

    #[test]
    fn a_dialogue_as_written_passes() {
        assert_eq!(played("# ask\n> hello\n< world\n", |_| "world\r\n"), Ok(()));
    }

    #[test]
    fn another_answer_is_told_with_its_line() {
        let failure = played("> hello\n< world\n", |_| "moon\r\n").unwrap_err();
        assert!(failure.starts_with("a script:2: expected `world`, got `moon`"), "{failure}");
    }

    #[test]
    fn an_answer_too_many_shows_at_the_end() {
        let failure = played("> hello\n< world\n", |_| "world\r\nmoon\r\n").unwrap_err();
        assert!(failure.contains("an answer too many: `moon`"), "{failure}");
    }

    #[test]
    fn a_connection_closed_early_shows() {
        let failure = played("> quit\n< world\n", |_| "").unwrap_err();
        assert!(failure.contains("expected `world`, got the end"), "{failure}");
    }

    #[test]
    fn a_variable_keeps_its_value() {
        let echo = |line: &str| match line {
            "first" => "cas 17\r\n",
            "17" => "cas 17\r\n",
            _ => "cas 18\r\n",
        };
        assert_eq!(played("> first\n< cas {c}\n> {c}\n< cas {c}\n", echo), Ok(()));
        assert_eq!(played("> first\n< cas {c}\n> x\n< cas {!c}\n", echo), Ok(()));
        assert!(played("> first\n< cas {c}\n> x\n< cas {c}\n", echo).is_err());
        assert!(played("> first\n< cas {c}\n> {c}\n< cas {!c}\n", echo).is_err());
    }

    #[test]
    fn dots_stand_for_any_lines() {
        let answer = |_: &str| "one\r\ntwo\r\nthree\r\nEND\r\n";
        assert_eq!(played("> stats\n< ...\n< three\n< END\n", answer), Ok(()));
        assert!(played("> stats\n< ...\n< one\n< END\n", answer).is_err());
    }

    #[test]
    fn a_closed_connection_is_the_end() {
        assert_eq!(played("> quit\n< <EOF>\n", |_| ""), Ok(()));
        assert!(played("> quit\n< END\n", |_| "").is_err());
    }

    #[test]
    fn a_repetition_is_sent_and_expected() {
        let answer = |line: &str| if line == "kkkk" { "vvv\r\n" } else { "no\r\n" };
        assert_eq!(played("> {k*4}\n< {v*3}\n", answer), Ok(()));
    }

    #[test]
    fn time_passes_where_the_script_says() {
        let (address, thread) = server(|_| "world\r\n");
        let script = Script::parse("", "> hello\n< world\nadvance 2s\nadvance 30ms\n").unwrap();
        let mut passed = Duration::ZERO;
        script.play(address, &mut |duration| passed += duration).unwrap();
        thread.join().unwrap();
        assert_eq!(passed, Duration::from_millis(2030));
    }

    #[test]
    fn braces_match_what_they_say() {
        let fits = |pattern: &str, line: &str| {
            let pieces = pieces_of(pattern.as_bytes(), b"").unwrap();
            matched(&pieces, line.as_bytes(), &Bindings::new()).is_some()
        };
        assert!(fits("HD t{29|30}", "HD t30"));
        assert!(!fits("HD t{29|30}", "HD t3"));
        assert!(fits("STAT {} END", "STAT pid 12 END"));
        assert!(fits("ME k exp={e} la={l}", "ME k exp=-1 la=0"));
        assert!(!fits("VALUE {k}", "VALUE a b"));
    }

    #[test]
    fn escapes_stand_for_their_bytes() {
        assert_eq!(unescape(r"a\r\n\t\\\x00\xff").unwrap(), b"a\r\n\t\\\x00\xff");
        assert!(unescape(r"\q").is_err());
        assert!(unescape(r"\x0").is_err());
    }

    #[test]
    fn a_line_that_means_nothing_is_refused() {
        for line in ["hello", "advance 2", "advance two s", "> {", "< {Not}", "A> get k"] {
            assert!(Script::parse("", line).is_err(), "{line}");
        }
        assert!(Script::parse("", "> get k\nlaunch -m 64").is_err());
    }
}
