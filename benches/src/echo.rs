//! The echo server: moves the bytes that a cache would, and does nothing else.
//!
//! ```text
//! epoll ─> read ─> count requests off by their lengths ─> as many answers, in one write ─> epoll ...
//! ```
//!
//! What it manages per second of processor time is what the kernel leaves to any server that reads and
//! writes in this way: the limit that servers are held against.
//!
//! - It does: accept, wait for readable sockets, read what has come, and answer every request with as
//!   many bytes as a hit takes, in one vectored write straight from the answer's template. One thread,
//!   one read and one write a turn, no copy.
//! - It does not: parse, hash, look anything up, keep or check anything, have a limit or a timer. How long
//!   a request is, its first byte tells: all gets are alike, and all sets, in one run.
//! - It is no limit for a server that spares system calls. Several connections served by one call of
//!   `io_uring` can be faster than this.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::interrupt::Interrupt;
use crate::keyspace::{Keyspace, KeyspaceError};
use crate::value::Values;
use crate::wire::Dialect;
use crate::workload::Ask;

const INPUT_BYTES: usize = 256 * 1024;
const EVENTS_PER_WAIT: usize = 1024;
/// Most answers that one write carries: the kernel's bound.
const SLICES_PER_WRITE: usize = 1024;
/// Longest sleep in epoll, should a signal come just before it.
const SLEEP_MAX: Duration = Duration::from_secs(1);
const LISTENER: Token = Token(usize::MAX);

/// How long requests are, and what answers them.
#[derive(Clone, Debug)]
pub struct Frames {
    get_bytes: usize,
    set_bytes: usize,
    hit: Vec<u8>,
}

const STORED: &[u8] = b"STORED\r\n";

impl Frames {
    /// Gets of so many keys and sets of one, all keys and all values of one length.
    ///
    /// # Errors
    /// When there are no keys of that length.
    pub fn new(
        key_bytes: usize,
        value_bytes: usize,
        keys_per_get: usize,
    ) -> Result<Self, KeyspaceError> {
        let mut key = vec![0; Keyspace::new(1, key_bytes)?.key_bytes()];
        Keyspace::new(1, key_bytes)?.write_key(0, &mut key);
        let (mut get, mut set) = (Vec::new(), Vec::new());
        Dialect::Text.write_get(std::iter::repeat_n(key.as_slice(), keys_per_get), &mut get);
        Dialect::Text.write_set(&key, value_bytes, &Values::new(), &mut set);
        // What stands between a set's line and its end is what a hit gives back.
        let value = &set[set.len() - value_bytes - 2..];
        let announcement =
            [b"VALUE ".as_slice(), &key, format!(" 0 {value_bytes}\r\n").as_bytes()].concat();
        let hit = [announcement.as_slice(), value].concat().repeat(keys_per_get);
        Ok(Self {
            get_bytes: get.len(),
            set_bytes: set.len(),
            hit: [hit.as_slice(), b"END\r\n"].concat(),
        })
    }

    fn request_bytes(&self, ask: Ask) -> usize {
        match ask {
            Ask::Get => self.get_bytes,
            Ask::Set => self.set_bytes,
        }
    }

    fn answer(&self, ask: Ask) -> &[u8] {
        match ask {
            Ask::Get => &self.hit,
            Ask::Set => STORED,
        }
    }
}

/// One client, without its socket.
#[derive(Debug, Default)]
struct Client {
    /// The request that is coming, and how many bytes of it are missing.
    coming: Option<(Ask, usize)>,
    /// Requests that are to be answered.
    due: VecDeque<Ask>,
    /// How many bytes of the first answer are on their way.
    sent: usize,
}

impl Client {
    /// Counts the requests that end in `input`.
    ///
    /// # Errors
    /// When a request is neither get nor set.
    fn hear(&mut self, frames: &Frames, mut input: &[u8]) -> io::Result<()> {
        while let [first, ..] = input {
            let (ask, missing) = match (self.coming, first) {
                (Some(coming), _) => coming,
                (None, b'g') => (Ask::Get, frames.request_bytes(Ask::Get)),
                (None, b's') => (Ask::Set, frames.request_bytes(Ask::Set)),
                (None, _) => return Err(ErrorKind::InvalidData.into()),
            };
            let here = missing.min(input.len());
            input = &input[here..];
            self.coming = (here < missing).then_some((ask, missing - here));
            if here == missing {
                self.due.push_back(ask);
            }
        }
        Ok(())
    }

    /// What is to be sent, as far as one write carries it.
    fn unsent<'a>(&self, frames: &'a Frames) -> Vec<IoSlice<'a>> {
        let answers = self.due.iter().take(SLICES_PER_WRITE).map(|&ask| frames.answer(ask));
        let skips = std::iter::once(self.sent).chain(std::iter::repeat(0));
        answers.zip(skips).map(|(answer, skip)| IoSlice::new(&answer[skip..])).collect()
    }

    /// So many bytes are on their way.
    fn sent(&mut self, frames: &Frames, bytes: usize) {
        self.sent += bytes;
        while let Some(&ask) = self.due.front() {
            let answer_bytes = frames.answer(ask).len();
            if self.sent < answer_bytes {
                return;
            }
            self.sent -= answer_bytes;
            self.due.pop_front();
        }
    }
}

/// Serves `port` of loopback until the user wants it to end.
///
/// # Errors
/// When the operating system refuses the port or epoll; a client that fails is let go.
pub fn serve(port: u16, frames: &Frames, interrupt: &Interrupt) -> io::Result<()> {
    let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut clients: Vec<Option<(TcpStream, Client)>> = Vec::new();
    let mut events = Events::with_capacity(EVENTS_PER_WAIT);
    let mut input = vec![0; INPUT_BYTES];
    while interrupt.check().is_ok() {
        match poll.poll(&mut events, Some(SLEEP_MAX)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut clients)?;
                continue;
            }
            let Some(slot) = clients.get_mut(event.token().0) else { continue };
            let Some((stream, client)) = slot else { continue };
            if !turn(stream, client, frames, &mut input).unwrap_or(false) {
                *slot = None;
            }
        }
    }
    Ok(())
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    clients: &mut Vec<Option<(TcpStream, Client)>>,
) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nodelay(true)?;
                let free = clients.iter().position(Option::is_none).unwrap_or(clients.len());
                let interest = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut stream, Token(free), interest)?;
                if free == clients.len() {
                    clients.push(None);
                }
                clients[free] = Some((stream, Client::default()));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads what has come and answers it: whether the client is still there.
fn turn(
    stream: &mut TcpStream,
    client: &mut Client,
    frames: &Frames,
    input: &mut [u8],
) -> io::Result<bool> {
    let mut is_empty = false;
    while !is_empty {
        match stream.read(input) {
            Ok(0) => return Ok(false),
            Ok(received) => {
                client.hear(frames, &input[..received])?;
                // A read that left room has emptied the socket; the next bytes raise another event.
                is_empty = received < input.len();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => is_empty = true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    while !client.due.is_empty() {
        match stream.write_vectored(&client.unsent(frames)) {
            Ok(sent) => client.sent(frames, sent),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Reply, next_reply};

    fn unsent(client: &Client, frames: &Frames) -> Vec<u8> {
        client.unsent(frames).iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn every_request_is_answered_with_as_many_bytes_as_a_cache_takes() {
        let frames = Frames::new(8, 100, 2).unwrap();
        let mut requests = Vec::new();
        let keys = [b"k0000001".as_slice(), b"k0000002"];
        Dialect::Text.write_get(keys.into_iter(), &mut requests);
        Dialect::Text.write_set(keys[0], 100, &Values::new(), &mut requests);
        for pieces in [1, 7, requests.len()] {
            let mut client = Client::default();
            for piece in requests.chunks(pieces) {
                client.hear(&frames, piece).unwrap();
            }
            let answers = unsent(&client, &frames);
            let mut rest = answers.as_slice();
            let mut told = Vec::new();
            while let Some((reply, bytes)) = next_reply(rest).unwrap() {
                told.push(match reply {
                    Reply::Hit { key, value } => key.len() + value.len(),
                    Reply::End => 1,
                    Reply::Stored => 2,
                    other => panic!("{other:?}"),
                });
                rest = &rest[bytes..];
            }
            assert_eq!((told.as_slice(), rest), ([108, 108, 1, 2].as_slice(), b"".as_slice()));
        }
    }

    #[test]
    fn a_write_that_stops_anywhere_is_taken_up_there() {
        let frames = Frames::new(8, 10, 1).unwrap();
        let mut client = Client { due: [Ask::Get, Ask::Set, Ask::Get].into(), ..Client::default() };
        let whole = unsent(&client, &frames);
        let mut sent = Vec::new();
        while !client.due.is_empty() {
            let step = unsent(&client, &frames).into_iter().take(5).collect::<Vec<_>>();
            client.sent(&frames, step.len());
            sent.extend(step);
        }
        assert_eq!((sent, client.sent), (whole, 0));
    }

    #[test]
    fn what_is_no_request_ends_the_conversation() {
        let frames = Frames::new(8, 10, 1).unwrap();
        assert!(Client::default().hear(&frames, b"version\r\n").is_err());
    }
}
