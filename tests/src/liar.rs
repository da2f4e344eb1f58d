//! A server that answers as memcached does and, if asked to, breaks a promise now and then: what finds no fault
//! with it proves nothing.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// How it lies, once in so many writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Not at all.
    Never,
    /// An acknowledged write is not done.
    Lose(u64),
    /// A write is acknowledged and undone by the next one to another key: as after a failover to a copy that
    /// lacked it.
    Undo(u64),
    /// An append or a count is done twice.
    Twice(u64),
    /// A deleted item is there again.
    Revive(u64),
    /// It hangs up instead of answering, having done what was asked or not: no lie.
    HangUp(u64),
}

/// A liar that serves until the process ends; its threads wait for clients.
#[derive(Debug, Clone, Copy)]
pub struct Liar {
    address: SocketAddr,
}

#[derive(Debug, Clone)]
struct Item {
    flags: String,
    value: Vec<u8>,
    cas: u64,
}

#[derive(Debug)]
struct Table {
    items: HashMap<String, Item>,
    cas: u64,
    requests: u64,
    writes: u64,
    lie: Lie,
    /// What the key of the last write held before, to be put back.
    undo: Option<(String, Option<Item>)>,
}

impl Liar {
    /// Starts one.
    ///
    /// # Errors
    /// When the loopback has no port left.
    pub fn start(lie: Lie) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let items = HashMap::new();
        let table =
            Arc::new(Mutex::new(Table { items, cas: 0, requests: 0, writes: 0, lie, undo: None }));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let table = Arc::clone(&table);
                // A client that leaves ends its connection, nothing more.
                std::thread::spawn(move || serve(stream, &table).ok());
            }
        });
        Ok(Self { address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        self.address
    }
}

fn serve(mut stream: TcpStream, table: &Mutex<Table>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        let block_bytes: Option<usize> = match words.as_slice() {
            ["set" | "add" | "replace" | "append" | "prepend" | "cas", _, _, _, bytes, ..] => {
                bytes.parse().ok()
            }
            ["ms", _, bytes, ..] => bytes.parse().ok(),
            _ => None,
        };
        let mut block = vec![0; block_bytes.map_or(0, |bytes| bytes + 2)];
        input.read_exact(&mut block)?;
        block.truncate(block_bytes.unwrap_or(0));
        let answer = {
            let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
            table.requests += 1;
            let requests = table.requests;
            match table.lie {
                Lie::HangUp(every) if requests.is_multiple_of(every) => {
                    if requests.is_multiple_of(2 * every) {
                        drop(table.answer(&words, block));
                    }
                    return Ok(());
                }
                _ => table.answer(&words, block),
            }
        };
        stream.write_all(&answer)?;
        line.clear();
    }
    Ok(())
}

impl Table {
    fn answer(&mut self, words: &[&str], block: Vec<u8>) -> Vec<u8> {
        let text = |text: &str| text.as_bytes().to_vec();
        match *words {
            ["gets", ref keys @ ..] => {
                let mut answer = Vec::new();
                for key in keys {
                    if let Some(item) = self.items.get(*key) {
                        let Item { flags, value, cas } = item;
                        let head = format!("VALUE {key} {flags} {} {cas}\r\n", value.len());
                        answer.extend([head.as_bytes(), value, b"\r\n"].concat());
                    }
                }
                answer.extend(b"END\r\n");
                answer
            }
            ["mg", key, .., ttl] if ttl.starts_with('T') => {
                text(if self.items.contains_key(key) { "HD\r\n" } else { "EN\r\n" })
            }
            ["mg", key, ..] => match self.items.get(key) {
                Some(Item { flags, value, cas }) => {
                    let head = format!("VA {} f{flags} c{cas}\r\n", value.len());
                    [head.as_bytes(), value, b"\r\n"].concat()
                }
                None => text("EN\r\n"),
            },
            ["touch", key, ..] => {
                text(if self.items.contains_key(key) { "TOUCHED\r\n" } else { "NOT_FOUND\r\n" })
            }
            ["delete" | "md", key, ..] => {
                let (done, missing) =
                    if words[0] == "md" { ("HD", "NF") } else { ("DELETED", "NOT_FOUND") };
                let old = self.items.get(key).cloned();
                let is_there = old.is_some();
                self.change(key, None);
                if is_there
                    && matches!(self.lie, Lie::Revive(every) if self.writes.is_multiple_of(every))
                {
                    // Not at once: somebody may write it before.
                    self.undo = Some((key.to_owned(), old));
                }
                text(&format!("{}\r\n", if is_there { done } else { missing }))
            }
            ["incr" | "decr", key, delta] => match self.count(key, words[0] == "incr", delta) {
                Some(number) => text(&format!("{number}\r\n")),
                None => text("NOT_FOUND\r\n"),
            },
            ["ma", key, mode, delta, "v"] => match self.count(key, mode == "MI", &delta[1..]) {
                Some(number) => {
                    let digits = number.to_string();
                    text(&format!("VA {}\r\n{digits}\r\n", digits.len()))
                }
                None => text("NF\r\n"),
            },
            ["append" | "prepend", key, ..] => {
                text(if self.extend(key, words[0] == "append", &block) {
                    "STORED\r\n"
                } else {
                    "NOT_STORED\r\n"
                })
            }
            ["ms", key, _, mode @ ("MA" | "MP")] => {
                text(if self.extend(key, mode == "MA", &block) { "HD\r\n" } else { "NS\r\n" })
            }
            ["ms", key, _, flags, _ttl, rule] => {
                let flags = flags.trim_start_matches('F').to_owned();
                let cas = rule.strip_prefix('C').and_then(|cas| cas.parse().ok());
                let answer = self.put(key, rule, cas, flags, block);
                text(match answer {
                    Put::Stored => "HD\r\n",
                    Put::NotStored => "NS\r\n",
                    Put::Exists => "EX\r\n",
                    Put::NotFound => "NF\r\n",
                })
            }
            [command, key, flags, _, _, ref rest @ ..] => {
                let rule = match command {
                    "add" => "ME",
                    "replace" => "MR",
                    _ => "MS",
                };
                let cas = rest.first().and_then(|cas| cas.parse().ok());
                let answer = self.put(key, rule, cas, flags.to_owned(), block);
                text(match answer {
                    Put::Stored => "STORED\r\n",
                    Put::NotStored => "NOT_STORED\r\n",
                    Put::Exists => "EXISTS\r\n",
                    Put::NotFound => "NOT_FOUND\r\n",
                })
            }
            _ => text("ERROR\r\n"),
        }
    }

    fn put(
        &mut self,
        key: &str,
        rule: &str,
        cas: Option<u64>,
        flags: String,
        value: Vec<u8>,
    ) -> Put {
        let there = self.items.get(key);
        match (cas, there) {
            (Some(cas), Some(item)) if item.cas != cas => return Put::Exists,
            (Some(_), None) => return Put::NotFound,
            (None, Some(_)) if rule == "ME" => return Put::NotStored,
            (None, None) if rule == "MR" => return Put::NotStored,
            _ => {}
        }
        self.cas += 1;
        let item = Item { flags, value, cas: self.cas };
        self.change(key, Some(item));
        Put::Stored
    }

    fn extend(&mut self, key: &str, at_end: bool, more: &[u8]) -> bool {
        let Some(item) = self.items.get(key).cloned() else { return false };
        let times = if matches!(self.lie, Lie::Twice(every) if (self.writes + 1).is_multiple_of(every))
        {
            2
        } else {
            1
        };
        let more = more.repeat(times);
        let value = match at_end {
            true => [item.value, more].concat(),
            false => [more, item.value].concat(),
        };
        self.cas += 1;
        self.change(key, Some(Item { value, cas: self.cas, ..item }));
        true
    }

    fn count(&mut self, key: &str, up: bool, delta: &str) -> Option<u64> {
        let item = self.items.get(key).cloned()?;
        let delta: u64 = delta.parse().ok()?;
        let before: u64 = std::str::from_utf8(&item.value).ok()?.parse().ok()?;
        let once = |number: u64| match up {
            true => number.wrapping_add(delta),
            false => number.saturating_sub(delta),
        };
        let after = once(before);
        let is_twice =
            matches!(self.lie, Lie::Twice(every) if (self.writes + 1).is_multiple_of(every));
        let kept = if is_twice { once(after) } else { after };
        self.cas += 1;
        self.change(key, Some(Item { value: kept.to_string().into(), cas: self.cas, ..item }));
        Some(after)
    }

    /// Stores or removes, unless it lies.
    fn change(&mut self, key: &str, item: Option<Item>) {
        self.writes += 1;
        if let Some((undone, before)) = self.undo.take() {
            if undone == key {
                self.undo = None;
            } else {
                self.set(&undone, before);
            }
        }
        match self.lie {
            Lie::Lose(every) if self.writes.is_multiple_of(every) => {}
            Lie::Undo(every) if self.writes.is_multiple_of(every) => {
                self.undo = Some((key.to_owned(), self.items.get(key).cloned()));
                self.set(key, item);
            }
            _ => self.set(key, item),
        }
    }

    fn set(&mut self, key: &str, item: Option<Item>) {
        match item {
            Some(item) => drop(self.items.insert(key.to_owned(), item)),
            None => drop(self.items.remove(key)),
        }
    }
}

/// How a write ended.
enum Put {
    Stored,
    NotStored,
    Exists,
    NotFound,
}
