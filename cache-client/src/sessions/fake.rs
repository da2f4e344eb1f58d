//! (tests) A cache in this process that fails just where a test wants it to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::{Client, Config, Server};

/// What happens to a request instead of an answer. The connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// It is not carried out.
    RequestLost,
    /// It is, and nobody hears of it.
    AnswerLost,
}

/// A cache that knows the meta commands, as far as sessions use them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cache(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    items: BTreeMap<String, Item>,
    cas: u64,
    /// For the next requests of that command.
    mishaps: VecDeque<(String, Mishap)>,
    is_down: bool,
    asked: Vec<String>,
}

#[derive(Clone, Debug)]
struct Item {
    data: Vec<u8>,
    flags: String,
    cas: u64,
    end: Instant,
}

impl Cache {
    /// A client of it whose calls are tried once.
    pub(crate) async fn client(&self) -> Client {
        self.client_with(|_| {}).await
    }

    pub(crate) async fn client_with(&self, change: impl FnOnce(&mut Config)) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cache = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(cache.clone().serve(BufReader::new(stream)));
            }
        });
        let mut config = Config::new([Server::new(address.ip().to_string(), address.port())]);
        config.retry.attempts_max = 1;
        config.connection.reconnect_delay = Duration::from_millis(1);
        config.breaker = None;
        config.timeout = Duration::from_secs(10);
        change(&mut config);
        Client::new(config)
    }

    /// The next request that begins with `command` comes to grief, after those that were said before.
    pub(crate) fn fail_next(&self, command: &str, mishap: Mishap) {
        self.0.lock().mishaps.push_back((command.to_owned(), mishap));
    }

    /// Every request is lost from now on, or none.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.0.lock().is_down = is_down;
    }

    /// How many requests began with `command`.
    pub(crate) fn asked(&self, command: &str) -> usize {
        self.0.lock().asked.iter().filter(|asked| asked.starts_with(command)).count()
    }

    /// Of these, how many with `part` in them.
    pub(crate) fn asked_with(&self, command: &str, part: &str) -> usize {
        let state = self.0.lock();
        let asked = state.asked.iter().filter(|asked| asked.starts_with(command));
        asked.filter(|asked| asked.contains(part)).count()
    }

    /// All items become so much older.
    pub(crate) fn age(&self, by: Duration) {
        for item in self.0.lock().items.values_mut() {
            item.end -= by;
        }
    }

    /// The keys of all items.
    pub(crate) fn keys(&self) -> Vec<String> {
        let now = Instant::now();
        let state = self.0.lock();
        let alive = state.items.iter().filter(|(_, item)| item.end > now);
        alive.map(|(key, _)| key.clone()).collect()
    }

    /// Removes everything, as an eviction or a lost node does.
    pub(crate) fn forget(&self) {
        self.0.lock().items.clear();
    }

    /// Changes the value of every item.
    pub(crate) fn tamper(&self, data: &[u8]) {
        for item in self.0.lock().items.values_mut() {
            item.data = data.to_vec();
        }
    }

    async fn serve(self, mut stream: BufReader<TcpStream>) {
        loop {
            let mut line = String::new();
            if !stream.read_line(&mut line).await.is_ok_and(|bytes| bytes > 0) {
                return;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let mut data = Vec::new();
            if words[0] == "ms" {
                data.resize(words[2].parse::<usize>().unwrap() + 2, 0);
                if stream.read_exact(&mut data).await.is_err() {
                    return;
                }
                data.truncate(data.len() - 2);
            }
            let answer = {
                let state = &mut *self.0.lock();
                state.asked.push(line.clone());
                let place = state
                    .mishaps
                    .iter()
                    .position(|(command, _)| line.starts_with(command.as_str()));
                let mishap = place.and_then(|place| state.mishaps.remove(place));
                let mishap = mishap.map(|(_, mishap)| mishap);
                if state.is_down || mishap == Some(Mishap::RequestLost) {
                    return;
                }
                let answer = state.answer(&words, data);
                if mishap == Some(Mishap::AnswerLost) {
                    return;
                }
                answer
            };
            if stream.get_mut().write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

impl State {
    fn answer(&mut self, words: &[&str], data: Vec<u8>) -> Vec<u8> {
        let now = Instant::now();
        self.items.retain(|_, item| item.end > now);
        let (key, options) = (words[1], &words[if words[0] == "ms" { 3 } else { 2 }..]);
        let option = |letter: char| options.iter().find_map(|option| option.strip_prefix(letter));
        let opaque = option('O').expect("an opaque");
        let end = |seconds: &str| {
            let seconds: i64 = seconds.parse().unwrap();
            now + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        };
        match words[0] {
            "mg" => {
                let Some(item) = self.items.get_mut(key) else {
                    return format!("EN O{opaque}\r\n").into_bytes();
                };
                if let Some(seconds) = option('T') {
                    item.end = end(seconds);
                }
                let left_s = (item.end - now).as_secs();
                let mut told = String::new();
                for option in options {
                    match &option[..1] {
                        "f" => told += &format!(" f{}", item.flags),
                        "c" => told += &format!(" c{}", item.cas),
                        "t" => told += &format!(" t{left_s}"),
                        "O" => told += &format!(" O{opaque}"),
                        _ => {}
                    }
                }
                if !options.contains(&"v") {
                    return format!("HD{told}\r\n").into_bytes();
                }
                let head = format!("VA {}{told}\r\n", item.data.len());
                [head.as_bytes(), &item.data, b"\r\n"].concat()
            }
            "ms" => {
                let found = self.items.get(key).map(|item| item.cas);
                let expected = option('C').map(|cas| cas.parse::<u64>().unwrap());
                let verdict = match (option('M'), found, expected) {
                    (Some("E"), Some(_), _) | (Some("R"), None, _) => "NS",
                    (_, None, Some(_)) => "NF",
                    (_, Some(cas), Some(expected)) if cas != expected => "EX",
                    _ => "HD",
                };
                if verdict == "HD" {
                    self.cas += 1;
                    let flags = option('F').unwrap_or("0").to_owned();
                    let end = option('T').map_or(now + Duration::from_secs(1 << 20), end);
                    self.items.insert(key.to_owned(), Item { data, flags, cas: self.cas, end });
                }
                format!("{verdict} O{opaque}\r\n").into_bytes()
            }
            "md" => {
                let verdict = if self.items.remove(key).is_some() { "HD" } else { "NF" };
                format!("{verdict} O{opaque}\r\n").into_bytes()
            }
            other => panic!("sessions do not ask {other}"),
        }
    }
}
