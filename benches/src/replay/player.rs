//! `Player`: one turn of a replay after the other, questions out and answers in.
//!
//! ```text
//! a turn:   sets of the misses before | deletes of what is due | the requests of the batch     one write
//!           their answers, in that order                                                       then
//! ```
//!
//! What has been asked stands in a queue; the answer to its front says what is to be done next, which
//! at depth 1 reaches the server before the next request does.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;

use sim::trace::{KEY_BYTES_MAX, Op};

use super::body::Bodies;
use super::expiries::Expiries;
use super::{Expiry, Replayed, TurnError, Wanted};
use crate::session::{Session, SessionError};
use crate::wire::{Reply, VALUE_BYTES_MAX, printable};

/// The longest expiry that is not taken for a date, in seconds; longer than any replay.
const EXPIRY_MAX_S: u32 = 30 * 24 * 60 * 60;

/// What was asked of the server, and not answered yet.
#[derive(Clone, Copy, Debug)]
struct Asked {
    what: What,
    wanted: Wanted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// What the log has.
    Op,
    /// The set that follows a miss.
    Fill,
    /// A use of what is there, where the op itself cannot be sent.
    Use,
    /// The delete of what is due.
    Expire,
}

/// Plays requests to a server and counts what comes of them.
pub(super) struct Player<'a> {
    session: Session,
    bodies: Bodies,
    expiry: Expiry<'a>,
    /// The log's clock, once it has begun.
    now_s: Option<u32>,
    expiries: Expiries,
    /// To be sent at the head of the next turn.
    follow_ups: Vec<Asked>,
    asked: VecDeque<Asked>,
    /// Keys whose value is no more what was written, but lengthened.
    lengthened: HashSet<u64>,
    replayed: Replayed,
}

impl<'a> Player<'a> {
    pub(super) fn connect(server: SocketAddr, expiry: Expiry<'a>) -> Result<Self, SessionError> {
        Ok(Self {
            session: Session::connect(server)?,
            bodies: Bodies::new(),
            expiry,
            now_s: None,
            expiries: Expiries::default(),
            follow_ups: Vec::new(),
            asked: VecDeque::new(),
            lengthened: HashSet::new(),
            replayed: Replayed::default(),
        })
    }

    /// What has been counted by now.
    pub(super) fn replayed(&self) -> &Replayed {
        &self.replayed
    }

    /// What was counted.
    pub(super) fn into_replayed(self) -> Replayed {
        self.replayed
    }

    /// One turn: what follows from the turn before, and the requests of `batch`.
    pub(super) fn play(&mut self, batch: &[Wanted]) -> Result<(), TurnError> {
        for follow_up in std::mem::take(&mut self.follow_ups) {
            self.ask(follow_up);
        }
        for &wanted in batch {
            self.keep_time(wanted.request.time_s)?;
            self.replayed.operations += 1;
            self.ask(Asked { what: What::Op, wanted });
        }
        self.hear_all()?;
        Ok(())
    }

    /// The log's clock is at `now_s`: what is due leaves.
    fn keep_time(&mut self, now_s: u32) -> Result<(), TurnError> {
        let before_s = *self.now_s.get_or_insert(now_s);
        if now_s <= before_s {
            return Ok(());
        }
        self.now_s = Some(now_s);
        match &self.expiry {
            Expiry::Log => {
                while let Some(access) = self.expiries.next_due(now_s) {
                    self.ask(Asked { what: What::Expire, wanted: access.into() });
                }
            }
            Expiry::Server(_) => {
                // What was sent before is to be met by the server's clock of before.
                self.hear_all()?;
                if let Expiry::Server(advance) = &mut self.expiry {
                    advance(now_s - before_s)?;
                }
            }
        }
        Ok(())
    }

    /// What an item that lives for `ttl_s` is written with.
    fn expiry_s(&self, ttl_s: u32) -> u32 {
        match self.expiry {
            Expiry::Log if ttl_s > 0 => EXPIRY_MAX_S,
            _ => ttl_s.min(EXPIRY_MAX_S),
        }
    }

    /// Puts a question into the output.
    fn ask(&mut self, asked: Asked) {
        let Wanted { access, request } = asked.wanted;
        let mut buffer = [0; KEY_BYTES_MAX];
        let key = access.key(&mut buffer);
        let expiry_s = self.expiry_s(request.ttl_s);
        let value_bytes = request.size_bytes as usize;
        if asked.what == What::Fill || asked.what == What::Op && request.op.is_write() {
            if value_bytes > VALUE_BYTES_MAX {
                self.withhold(asked, key);
                return;
            }
            let command = match (asked.what, request.op) {
                (What::Op, Op::Add) => "add",
                (What::Op, Op::Replace | Op::Cas) => "replace",
                _ => "set",
            };
            let out = self.session.output();
            write_storage(command, key, expiry_s, value_bytes, out);
            self.bodies.append(key, value_bytes, out);
            out.extend_from_slice(b"\r\n");
            if asked.what == What::Fill {
                // Known at once: it may be due before its answer is heard.
                self.expiries.set(request.key.0, &access, request.time_s, request.ttl_s);
            }
            self.asked.push_back(asked);
            return;
        }
        let out = self.session.output();
        let number = |number: u32, out: &mut Vec<u8>| {
            out.push(b' ');
            out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        };
        match (asked.what, request.op) {
            (What::Expire, _) | (_, Op::Delete) => {
                out.extend_from_slice(b"delete ");
                out.extend_from_slice(key);
            }
            (What::Op, Op::GetAndTouch) => {
                out.extend_from_slice(b"gat");
                number(expiry_s, out);
                out.push(b' ');
                out.extend_from_slice(key);
            }
            (What::Op, Op::Touch) => {
                out.extend_from_slice(b"touch ");
                out.extend_from_slice(key);
                number(expiry_s, out);
            }
            (What::Op, op @ (Op::Incr | Op::Decr)) => {
                // By nothing: how much is no matter, and a counter's width stays.
                out.extend_from_slice(if op == Op::Incr { b"incr " } else { b"decr " });
                out.extend_from_slice(key);
                number(0, out);
            }
            (What::Op, op @ (Op::Append | Op::Prepend)) => {
                let piece_bytes = if request.fills { access.size_bytes as usize } else { 0 };
                let piece_bytes = piece_bytes.min(VALUE_BYTES_MAX);
                write_storage(op.name(), key, 0, piece_bytes, out);
                self.bodies.append(key, piece_bytes, out);
            }
            (What::Use, _) => write_storage("append", key, 0, 0, out),
            _ => {
                out.extend_from_slice(b"get ");
                out.extend_from_slice(key);
            }
        }
        out.extend_from_slice(b"\r\n");
        self.asked.push_back(asked);
    }

    /// Does without a write of what is larger than any server takes: it is refused unseen. What a set
    /// was to overwrite leaves all the same.
    fn withhold(&mut self, Asked { what, wanted }: Asked, key: &[u8]) {
        self.replayed.refused += 1;
        let bytes = wanted.request.size_bytes;
        self.replayed.keep_sample(|| format!("{bytes} bytes are more than any server takes"));
        if what == What::Op && wanted.request.op == Op::Set {
            let out = self.session.output();
            out.extend_from_slice(b"delete ");
            out.extend_from_slice(key);
            out.extend_from_slice(b"\r\n");
            let request = sim::replay::Request { op: Op::Delete, ..wanted.request };
            self.asked.push_back(Asked { what, wanted: Wanted { request, ..wanted } });
        }
    }

    /// Hears the answers to all that was asked.
    fn hear_all(&mut self) -> Result<(), SessionError> {
        while let Some(asked) = self.asked.pop_front() {
            let request = asked.wanted.request;
            let key = request.key.0;
            match (asked.what, request.op) {
                (What::Op, Op::Get | Op::GetAndTouch) => self.hear_read(asked.wanted)?,
                (What::Expire, _) | (_, Op::Delete) => {
                    let is_expired = asked.what == What::Expire;
                    let was_there = self.session.reply(|reply| match reply {
                        Reply::Deleted => Ok(true),
                        Reply::NotFound => Ok(false),
                        other => Err(mismatch("delete", other)),
                    })??;
                    self.replayed.expired += u64::from(is_expired && was_there);
                    self.expiries.forget(key);
                }
                (What::Op, Op::Touch) => {
                    let was_there = self.session.reply(|reply| match reply {
                        Reply::Touched => Ok(true),
                        Reply::NotFound => Ok(false),
                        other => Err(mismatch("touch", other)),
                    })??;
                    if was_there {
                        self.note_written(&asked.wanted);
                    }
                }
                (What::Op, Op::Incr | Op::Decr) => {
                    let counted = self.session.reply(|reply| match reply {
                        Reply::Number | Reply::NotFound => Ok(true),
                        Reply::Refused(line) if line.starts_with(b"CLIENT_ERROR") => Ok(false),
                        other => Err(mismatch("incr", other)),
                    })??;
                    if !counted {
                        self.follow_ups.push(Asked { what: What::Use, ..asked });
                    }
                }
                _ => self.hear_write(asked)?,
            }
        }
        Ok(())
    }

    /// The value now under the key has the expiry that the request gives.
    fn note_written(&mut self, Wanted { access, request }: &Wanted) {
        self.expiries.set(request.key.0, access, request.time_s, request.ttl_s);
    }

    /// The answer to what stores, or lengthens.
    fn hear_write(&mut self, Asked { what, wanted }: Asked) -> Result<(), SessionError> {
        let request = wanted.request;
        let key = request.key.0;
        let lengthens = what == What::Op && matches!(request.op, Op::Append | Op::Prepend);
        let replayed = &mut self.replayed;
        let is_stored = self.session.reply(|reply| match reply {
            Reply::Stored => Some(true),
            Reply::NotStored => Some(false),
            other => {
                replayed.refused += 1;
                replayed.keep_sample(|| other.describe());
                None
            }
        })?;
        match is_stored {
            Some(true) if what == What::Use => {}
            Some(true) if lengthens => {
                self.replayed.stored += 1;
                if request.fills && wanted.access.size_bytes > 0 {
                    self.lengthened.insert(key);
                }
            }
            Some(true) => {
                self.replayed.stored += 1;
                self.lengthened.remove(&key);
                if what == What::Op {
                    self.note_written(&wanted);
                }
            }
            // What was there before a set that failed is gone; of other writes it stays.
            None if what == What::Fill || request.op == Op::Set => self.expiries.forget(key),
            Some(false) | None => {}
        }
        Ok(())
    }

    /// The answer to a get or gat; a miss is followed by a set, where it is known of what.
    fn hear_read(&mut self, wanted: Wanted) -> Result<(), SessionError> {
        let mut buffer = [0; KEY_BYTES_MAX];
        let key = wanted.access.key(&mut buffer);
        let hash = wanted.request.key.0;
        let Self { session, bodies, lengthened, replayed, .. } = self;
        replayed.requests += 1;
        let mut is_hit = false;
        loop {
            let is_last = session.reply(|reply| match reply {
                Reply::Hit { key: found, value } => {
                    is_hit = true;
                    replayed.hits += 1;
                    let is_own = || lengthened.contains(&hash) || bodies.matches(key, value);
                    if *found != key || !is_own() {
                        replayed.wrong += 1;
                        replayed.keep_sample(|| {
                            let (key, found) = (printable(key), printable(found));
                            let value = printable(value);
                            format!("asked for '{key}', got of '{found}': '{value}'")
                        });
                    }
                    Ok(false)
                }
                Reply::End => Ok(true),
                other => Err(mismatch("get", other)),
            })??;
            if is_last {
                break;
            }
        }
        if is_hit {
            if wanted.request.op == Op::GetAndTouch {
                self.note_written(&wanted);
            }
            return Ok(());
        }
        self.expiries.forget(hash);
        if wanted.request.fills {
            self.follow_ups.push(Asked { what: What::Fill, wanted });
        }
        Ok(())
    }
}

fn mismatch(question: &'static str, answer: &Reply<'_>) -> SessionError {
    SessionError::Mismatch { question, answer: answer.describe() }
}

/// Appends the line of a storage command.
fn write_storage(command: &str, key: &[u8], expiry_s: u32, value_bytes: usize, out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(command.as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.extend_from_slice(b" 0 ");
    out.extend_from_slice(digits.format(expiry_s).as_bytes());
    out.push(b' ');
    out.extend_from_slice(digits.format(value_bytes).as_bytes());
    out.extend_from_slice(b"\r\n");
}
