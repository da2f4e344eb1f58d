//! `Client`: what an application calls.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use protocol::request::{Direction, StoreMode};
use protocol::{Exptime, KEY_BYTES_MAX, Key};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::address::Address;
use crate::codec::Codec;
use crate::config::{Config, Mode, ReadFrom};
use crate::connection::command::{Command, Reply};
use crate::connection::random_number;
use crate::error::{ConnectError, Error, Fate, InvalidKey};
use crate::fleet::{Fleet, Wish};
use crate::pool::Node;
use crate::random::Random;
use crate::retry::{Attempts, Budget, Class, Failure, Hedge, Next};
use crate::routing::Router;
use crate::ttl::Ttl;
use crate::value::{Found, Stored, Value, Written};
use crate::{clock, follow};

/// A client of one server, of several, or of a cluster. Clones share everything, and a clone costs next to nothing.
///
/// Every call ends within the client's timeout. A call that is dropped before is given up: a write may still
/// happen then.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
    timeout: Duration,
    fail_soft: bool,
}

/// What clones of a client share.
pub(crate) struct Inner {
    pub(crate) config: Arc<Config>,
    fleet: RwLock<Arc<Fleet>>,
    /// The map may be old.
    pub(crate) hints: Arc<Notify>,
    /// When the map was known to be the newest; told after the map, if that was a new one.
    pub(crate) map_checks: watch::Sender<Option<Instant>>,
    retries: Mutex<Retries>,
    /// Where the configuration has it.
    hedge: Option<Mutex<Hedge>>,
    /// Calls so far: in turn they take one or the other server where nothing speaks for either.
    draws: AtomicUsize,
}

/// What may be tried again, of all calls together.
struct Retries {
    budget: Budget,
    random: Random,
}

/// A value to be written, with all that can be said of how.
#[derive(Clone, Copy, Debug)]
pub struct Put<'a> {
    /// Under which condition, or in which way.
    pub mode: StoreMode,
    /// The value.
    pub data: &'a [u8],
    /// What a get is to give back with it. Means nothing to `append` and `prepend`.
    pub flags: u32,
    /// How long it is to live. Means nothing to `append` and `prepend`.
    pub ttl: Ttl,
    /// The item must still be what this write left. The mode is then [`StoreMode::Set`].
    pub compare_cas: Option<u64>,
}

/// What a lookup does beside looking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lookup {
    /// The item gets this life.
    pub touch: Option<Ttl>,
    /// A miss creates an empty item with this life, and the caller has won: it is to compute the value and to
    /// [store](Client::cas) it. Others find the empty item until then.
    pub vivify: Option<Ttl>,
    /// Who finds less than this left of the item's life has won, if nobody has before.
    pub recache: Option<Ttl>,
}

impl Client {
    /// A client of the servers that `config` names. It connects in the background, on the runtime that this is
    /// called on.
    pub fn new(config: Config) -> Self {
        let config = Arc::new(config);
        let open = |address| Node::open(address, &config);
        let fleet = match &config.mode {
            Mode::Static(scheme) => {
                Fleet::of_servers(Router::new(*scheme, config.servers.clone()), open)
            }
            Mode::Equals | Mode::Cluster { .. } => {
                Fleet::of_equals(&config.servers, &config.balance, open)
            }
        };
        let retries = Retries {
            budget: Budget::new(config.retry_budget),
            random: Random::new(random_number()),
        };
        let (timeout, fail_soft) = (config.timeout, config.fail_soft);
        let hedge = config.hedge.map(|hedge| Mutex::new(Hedge::new(hedge)));
        let inner = Arc::new(Inner {
            config,
            fleet: RwLock::new(Arc::new(fleet)),
            hints: Arc::new(Notify::new()),
            map_checks: watch::Sender::new(None),
            retries: Mutex::new(retries),
            hedge,
            draws: AtomicUsize::new(0),
        });
        if let Mode::Cluster { poll_interval, .. } = inner.config.mode {
            tokio::spawn(follow::follow(Arc::downgrade(&inner), poll_interval));
        }
        Self { inner, timeout, fail_soft }
    }

    /// The same client, whose calls may take another time.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// The same client, whose calls never [fail softly](Config::fail_soft).
    #[must_use]
    pub fn strict(&self) -> Self {
        Self { fail_soft: false, ..self.clone() }
    }

    /// The servers that are known at this moment: those of the configuration, or of a cluster's map.
    pub fn nodes(&self) -> Vec<Address> {
        self.inner.fleet().nodes().iter().map(|node| node.address().clone()).collect()
    }

    /// How typed values become bytes.
    pub fn codec(&self) -> &Codec {
        &self.inner.config.codec
    }

    /// The value of a key, if there is one.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>, Error> {
        let key = check(key.as_ref())?;
        self.find(key, &Command::Get { key, touch: None, with_cas: false }).await
    }

    /// The value of a key with its cas.
    pub async fn gets(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>, Error> {
        let key = check(key.as_ref())?;
        self.find(key, &Command::Get { key, touch: None, with_cas: true }).await
    }

    /// The value of a key, and a new life for it.
    pub async fn gat(
        &self,
        key: impl AsRef<[u8]>,
        ttl: impl Into<Ttl>,
    ) -> Result<Option<Value>, Error> {
        let key = check(key.as_ref())?;
        let touch = Some(exptime(ttl.into()));
        self.find(key, &Command::Get { key, touch, with_cas: false }).await
    }

    /// The values of many keys, in their order. Those of each server are asked for together.
    pub async fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>, Error> {
        self.find_many(keys, false).await
    }

    /// The same, with each one's cas.
    pub async fn gets_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>, Error> {
        self.find_many(keys, true).await
    }

    /// A get that tells more and may take upon itself to compute the value. Needs a server that knows the meta
    /// commands, whatever the dialect.
    pub async fn lookup(&self, key: impl AsRef<[u8]>, how: Lookup) -> Result<Option<Found>, Error> {
        let key = check(key.as_ref())?;
        let Lookup { touch, vivify, recache } = how;
        let [touch, vivify, recache] = [touch, vivify, recache].map(|ttl| ttl.map(exptime));
        let command = Command::Lookup { key, touch, vivify, recache };
        self.find(key, &command).await
    }

    /// A [lookup](Client::lookup) that only looks, and whose failures are none of a miss.
    pub(crate) async fn look(&self, key: &[u8]) -> Result<Option<Found>, Error> {
        let key = check(key)?;
        let command = Command::Lookup { key, touch: None, vivify: None, recache: None };
        self.ask(key, &command).await.map(|reply| match reply {
            Reply::Found(found) => found.map(Found::from),
            _ => None,
        })
    }

    /// Writes a value, whatever is there.
    pub async fn set(
        &self,
        key: impl AsRef<[u8]>,
        data: impl AsRef<[u8]>,
        ttl: impl Into<Ttl>,
    ) -> Result<Written, Error> {
        self.put(key, Put::new(StoreMode::Set, data.as_ref(), ttl.into())).await
    }

    /// Writes a value if there is none.
    pub async fn add(
        &self,
        key: impl AsRef<[u8]>,
        data: impl AsRef<[u8]>,
        ttl: impl Into<Ttl>,
    ) -> Result<Written, Error> {
        self.put(key, Put::new(StoreMode::Add, data.as_ref(), ttl.into())).await
    }

    /// Writes a value if there is one.
    pub async fn replace(
        &self,
        key: impl AsRef<[u8]>,
        data: impl AsRef<[u8]>,
        ttl: impl Into<Ttl>,
    ) -> Result<Written, Error> {
        self.put(key, Put::new(StoreMode::Replace, data.as_ref(), ttl.into())).await
    }

    /// Writes a value if nobody has since `cas` was read.
    pub async fn cas(
        &self,
        key: impl AsRef<[u8]>,
        data: impl AsRef<[u8]>,
        ttl: impl Into<Ttl>,
        cas: u64,
    ) -> Result<Written, Error> {
        let put = Put::new(StoreMode::Set, data.as_ref(), ttl.into());
        self.put(key, Put { compare_cas: Some(cas), ..put }).await
    }

    /// Adds to the end of a value.
    pub async fn append(
        &self,
        key: impl AsRef<[u8]>,
        data: impl AsRef<[u8]>,
    ) -> Result<Written, Error> {
        self.put(key, Put::new(StoreMode::Append, data.as_ref(), Ttl::NEVER)).await
    }

    /// Adds to the front of a value.
    pub async fn prepend(
        &self,
        key: impl AsRef<[u8]>,
        data: impl AsRef<[u8]>,
    ) -> Result<Written, Error> {
        self.put(key, Put::new(StoreMode::Prepend, data.as_ref(), Ttl::NEVER)).await
    }

    /// Writes a value in the way that `put` says.
    pub async fn put(&self, key: impl AsRef<[u8]>, put: Put<'_>) -> Result<Written, Error> {
        let key = check(key.as_ref())?;
        let Put { mode, data, flags, ttl, compare_cas } = put;
        let bytes_max = self.inner.config.value_bytes_max;
        if data.len() > bytes_max {
            return Err(Error::TooLarge { bytes: data.len(), bytes_max });
        }
        let command = Command::Store { mode, key, flags, exptime: exptime(ttl), compare_cas, data };
        let written = self.ask(key, &command).await.map(|reply| match reply {
            Reply::Done => Written::Stored,
            Reply::Exists => Written::Exists,
            Reply::NotFound => Written::NotFound,
            _ => Written::NotStored,
        });
        self.soften(written, || Written::NotStored)
    }

    /// A typed value, if there is one.
    pub async fn get_as<T: DeserializeOwned>(
        &self,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<T>, Error> {
        let found = self.get(key).await?;
        Ok(found.map(|value| self.codec().decode(&value)).transpose()?)
    }

    /// Writes a typed value, whatever is there.
    pub async fn set_as<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        ttl: impl Into<Ttl>,
    ) -> Result<Written, Error> {
        let (data, flags) = self.codec().encode(value)?;
        let put = Put::new(StoreMode::Set, &data, ttl.into());
        self.put(key, Put { flags, ..put }).await
    }

    /// Removes an item; whether there was one.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let key = check(key.as_ref())?;
        self.is_done(key, &Command::Delete { key }).await
    }

    /// Marks an item stale, and gives it `ttl` to live if one is named: the next to [look it up](Client::lookup)
    /// has won, and others find the old value until it is replaced. Whether there was one. Needs a server that
    /// knows the meta commands.
    pub async fn invalidate(&self, key: impl AsRef<[u8]>, ttl: Option<Ttl>) -> Result<bool, Error> {
        let key = check(key.as_ref())?;
        self.is_done(key, &Command::Invalidate { key, exptime: ttl.map(exptime) }).await
    }

    /// Gives an item another life; whether there was one.
    pub async fn touch(&self, key: impl AsRef<[u8]>, ttl: impl Into<Ttl>) -> Result<bool, Error> {
        let key = check(key.as_ref())?;
        self.is_done(key, &Command::Touch { key, exptime: exptime(ttl.into()) }).await
    }

    /// Adds to a number, which wraps at 2^64; the new one, or `None` where there is none.
    pub async fn incr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, Error> {
        self.count(key.as_ref(), Direction::Increment, delta).await
    }

    /// Takes from a number, which stops at 0; the new one, or `None` where there is none.
    pub async fn decr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, Error> {
        self.count(key.as_ref(), Direction::Decrement, delta).await
    }

    /// Removes every item of every server. It ends with the first server that fails; others may be empty by then.
    pub async fn flush_all(&self) -> Result<(), Error> {
        for node in self.inner.fleet().nodes() {
            self.ask_node(node, &Command::FlushAll { delay: Exptime::Never }).await?;
        }
        Ok(())
    }

    /// What each server calls its version: asks every one, and so tells whether it answers.
    pub async fn versions(&self) -> Vec<(Address, Result<String, Error>)> {
        let mut versions = Vec::new();
        for node in self.inner.fleet().nodes() {
            let version = self.ask_node(node, &Command::Version).await.map(|reply| match reply {
                Reply::Text(text) => String::from_utf8_lossy(&text).into_owned(),
                _ => String::new(),
            });
            versions.push((node.address().clone(), version));
        }
        versions
    }

    async fn count(
        &self,
        key: &[u8],
        direction: Direction,
        delta: u64,
    ) -> Result<Option<u64>, Error> {
        let key = check(key)?;
        let counted = self.ask(key, &Command::Arithmetic { direction, key, delta }).await;
        let counted = counted.map(|reply| match reply {
            Reply::Number(number) => Some(number),
            _ => None,
        });
        self.soften(counted, || None)
    }

    async fn is_done(&self, key: Key<'_>, command: &Command<'_>) -> Result<bool, Error> {
        let done = self.ask(key, command).await;
        let done = done.map(|reply| matches!(reply, Reply::Done | Reply::Found(Some(_))));
        self.soften(done, || false)
    }

    async fn find<T: From<Stored>>(
        &self,
        key: Key<'_>,
        command: &Command<'_>,
    ) -> Result<Option<T>, Error> {
        let found = self.ask(key, command).await.map(|reply| match reply {
            Reply::Found(found) => found,
            _ => None,
        });
        if let Ok(Some(Stored { cas: Some(cas), .. })) = found {
            self.inner.hint_by(key, cas);
        }
        self.soften(found.map(|found| found.map(T::from)), || None)
    }

    async fn find_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        with_cas: bool,
    ) -> Result<Vec<Option<Value>>, Error> {
        let keys: Vec<_> = keys.iter().map(|key| check(key.as_ref())).collect::<Result<_, _>>()?;
        let fleet = self.inner.fleet();
        if fleet.is_undivided() {
            let Some(&first) = keys.first() else { return Ok(Vec::new()) };
            let fetched = self.attempt(first, &Fetch { keys: &keys, with_cas }, None).await;
            let found = fetched.map(|all| all.into_iter().map(|it| it.map(Value::from)).collect());
            return self.soften(found, || vec![None; keys.len()]);
        }
        let parts = self.parts(&fleet, &keys);
        let mut found = vec![None; keys.len()];
        let fetch = parts.iter().map(|part| self.fetch(&fleet, part, with_cas));
        for (part, fetched) in parts.iter().zip(join(fetch).await) {
            let fetched = self.soften(fetched, || vec![None; part.places.len()])?;
            for ((&place, &key), value) in part.places.iter().zip(&part.keys).zip(fetched) {
                if let Some(Stored { cas: Some(cas), .. }) = value {
                    self.inner.hint_by(key, cas);
                }
                found[place] = value.map(Value::from);
            }
        }
        Ok(found)
    }

    /// Fetches keys of one server.
    async fn fetch(
        &self,
        fleet: &Arc<Fleet>,
        part: &Part<'_>,
        with_cas: bool,
    ) -> Result<Vec<Option<Stored>>, Error> {
        let Some(&first) = part.keys.first() else { return Ok(Vec::new()) };
        let chosen = part.node.map(|node| (Arc::clone(fleet), node));
        self.attempt(first, &Fetch { keys: &part.keys, with_cas }, chosen).await
    }

    /// The keys of each server, and their places among all.
    fn parts<'k>(&self, fleet: &Fleet, keys: &[Key<'k>]) -> Vec<Part<'k>> {
        let (draw, now) = (self.inner.draw(), Instant::now());
        let mut parts: Vec<Part<'k>> = Vec::new();
        for (place, &key) in keys.iter().enumerate() {
            let wish = Wish { key: key.as_bytes(), is_read: true, not: None, draw, now };
            let node = fleet.choose(wish);
            let known = parts.iter().position(|part| part.node == node);
            let index = known.unwrap_or_else(|| {
                parts.push(Part { node, places: Vec::new(), keys: Vec::new() });
                parts.len() - 1
            });
            parts[index].places.push(place);
            parts[index].keys.push(key);
        }
        parts
    }

    async fn ask(&self, key: Key<'_>, command: &Command<'_>) -> Result<Reply, Error> {
        self.attempt(key, command, None).await
    }

    /// Tries until it succeeds, or nothing speaks for another attempt. `chosen` is who is asked first, if that has been
    /// found out.
    async fn attempt<Q: Question>(
        &self,
        key: Key<'_>,
        question: &Q,
        mut chosen: Option<(Arc<Fleet>, usize)>,
    ) -> Result<Q::Answer, Error> {
        let inner = &*self.inner;
        let class = question.class();
        let mut now = Instant::now();
        let deadline = now + self.timeout;
        let mut attempts = Attempts::new(inner.config.retry, class, deadline.into_std());
        inner.retries.lock().budget.deposit(now.into_std());
        let mut failed: Option<Address> = None;
        loop {
            let (is_read, draw) = (class == Class::Read, inner.draw());
            let wish = Wish { key: key.as_bytes(), is_read, not: failed.as_ref(), draw, now };
            let (fleet, index) = match chosen.take() {
                Some(chosen) => chosen,
                None => {
                    let fleet = inner.fleet();
                    let index = fleet.choose(wish).ok_or(Error::NoServer)?;
                    (fleet, index)
                }
            };
            let asked = match &inner.hedge {
                Some(hedge) if is_read && fleet.has_equals() => {
                    ask_hedged(question, &fleet, index, wish, deadline, hedge).await
                }
                _ => ask_if_admitted(question, &fleet, index, now, deadline).await,
            };
            let error = match asked {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            inner.hint_after(&error);
            now = Instant::now();
            let next = {
                let Retries { budget, random } = &mut *inner.retries.lock();
                attempts.failed(now.into_std(), failure_of(&error), budget, random)
            };
            let Next::Again { wait, elsewhere } = next else { return Err(error) };
            tracing::debug!(%error, ?wait, "trying again");
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
                now = Instant::now();
            }
            failed = elsewhere.then(|| fleet.nodes()[index].address().clone());
        }
    }

    async fn ask_node(&self, node: &Node, command: &Command<'_>) -> Result<Reply, Error> {
        let now = Instant::now();
        node.connection().ask(command, now, now + self.timeout).await
    }

    /// In fail-soft mode, what is the server's or the network's fault is `instead`.
    pub(crate) fn soften<T>(
        &self,
        result: Result<T, Error>,
        instead: impl FnOnce() -> T,
    ) -> Result<T, Error> {
        match result {
            Err(error) if self.fail_soft && error.is_transient() => {
                tracing::debug!(%error, "failed softly");
                Ok(instead())
            }
            result => result,
        }
    }
}

impl Inner {
    pub(crate) fn fleet(&self) -> Arc<Fleet> {
        Arc::clone(&self.fleet.read())
    }

    pub(crate) fn set_fleet(&self, fleet: Fleet) {
        *self.fleet.write() = Arc::new(fleet);
    }

    pub(crate) fn open(&self, address: Address) -> Node {
        Node::open(address, &self.config)
    }

    pub(crate) fn reads(&self) -> &ReadFrom {
        const PRIMARY: &ReadFrom =
            &ReadFrom { copy: crate::routing::ReadFrom::Primary, zone: String::new() };
        match &self.config.mode {
            Mode::Cluster { reads, .. } => reads,
            Mode::Static(_) | Mode::Equals => PRIMARY,
        }
    }

    fn draw(&self) -> usize {
        self.draws.fetch_add(1, Ordering::Relaxed)
    }

    /// A value that was written in an epoch after the map's: its shard has another primary by now.
    fn hint_by(&self, key: Key<'_>, cas: u64) {
        let fleet = self.fleet.read();
        if fleet.map().is_some_and(|map| map.is_outdated_by(key.as_bytes(), cas)) {
            self.hints.notify_one();
        }
    }

    /// A node that does not answer may not be the one to ask any more.
    fn hint_after(&self, error: &Error) {
        let is_hint = match error {
            Error::Unreachable { .. } | Error::Lost { .. } | Error::DeadlinePassed { .. } => true,
            Error::Refused { source, .. } => source.is_transient(),
            _ => false,
        };
        if is_hint {
            self.hints.notify_one();
        }
    }
}

/// What one attempt asks of one server.
trait Question {
    type Answer;

    fn class(&self) -> Class;

    fn ask(
        &self,
        node: &Node,
        now: Instant,
        deadline: Instant,
    ) -> impl Future<Output = Result<Self::Answer, Error>> + Send;
}

impl Question for Command<'_> {
    type Answer = Reply;

    fn class(&self) -> Class {
        Command::class(self)
    }

    async fn ask(&self, node: &Node, now: Instant, deadline: Instant) -> Result<Reply, Error> {
        node.connection().ask(self, now, deadline).await
    }
}

/// One attempt, if the server is not left alone at present.
async fn ask_if_admitted<Q: Question>(
    question: &Q,
    fleet: &Fleet,
    index: usize,
    now: Instant,
    deadline: Instant,
) -> Result<Q::Answer, Error> {
    let node = &*fleet.nodes()[index];
    let Some(leave) = node.admit(now) else {
        let source = ConnectError::LeftAlone;
        return Err(Error::Unreachable { address: node.address().clone(), source });
    };
    let under_way = fleet.begin(index, now);
    let answer = question.ask(node, now, deadline).await;
    match &answer {
        // The clock is not looked at for it: a success counts for when it began.
        Ok(_) | Err(Error::Refused { .. }) => leave.ended(now, true),
        Err(Error::DeadlinePassed { .. }) => leave.ended(Instant::now(), false),
        // Whether the server can be reached the connection finds out by itself, and one connection that is lost
        // fails many calls at once.
        Err(_) => drop(leave),
    }
    if let Some(under_way) = under_way {
        let is_success = matches!(answer, Ok(_) | Err(Error::Refused { .. }));
        if under_way.ended(Instant::now().into_std(), is_success) {
            tracing::info!(server = %node.address(), "left out for a while, it does worse than its equals");
        }
    }
    answer
}

/// The same, and a second attempt at another server if the first takes longer than most do: the first answer counts.
async fn ask_hedged<Q: Question>(
    question: &Q,
    fleet: &Fleet,
    index: usize,
    wish: Wish<'_>,
    deadline: Instant,
    hedge: &Mutex<Hedge>,
) -> Result<Q::Answer, Error> {
    let began = wish.now;
    let observe = || {
        let now = Instant::now();
        hedge.lock().observe(now.into_std(), now - began);
    };
    let mut first = pin!(ask_if_admitted(question, fleet, index, began, deadline));
    let delay = hedge.lock().begin(began.into_std());
    let answered = match delay {
        Some(delay) => tokio::time::timeout(delay, first.as_mut()).await.ok(),
        None => Some(first.as_mut().await),
    };
    if let Some(answer) = answered {
        if answer.is_ok() {
            observe();
        }
        return answer;
    }
    let now = Instant::now();
    let other = Wish { not: Some(fleet.nodes()[index].address()), now, ..wish };
    let other = fleet.choose(other).filter(|&other| other != index);
    let Some(other) = other.filter(|_| hedge.lock().may_send(now.into_std())) else {
        let answer = first.await;
        if answer.is_ok() {
            observe();
        }
        return answer;
    };
    let mut second = pin!(ask_if_admitted(question, fleet, other, now, deadline));
    let answer = tokio::select! {
        answer = first.as_mut() => match answer {
            Ok(answer) => Ok(answer),
            Err(_) => return second.await,
        },
        answer = second.as_mut() => match answer {
            Ok(answer) => Ok(answer),
            Err(_) => first.await,
        },
    };
    if answer.is_ok() {
        observe();
    }
    answer
}

/// Many keys of one server.
struct Fetch<'a, 'k> {
    keys: &'a [Key<'k>],
    with_cas: bool,
}

impl Question for Fetch<'_, '_> {
    type Answer = Vec<Option<Stored>>;

    fn class(&self) -> Class {
        Class::Read
    }

    async fn ask(
        &self,
        node: &Node,
        now: Instant,
        deadline: Instant,
    ) -> Result<Self::Answer, Error> {
        node.connection().ask_many(self.keys, self.with_cas, now, deadline).await
    }
}

/// The keys of a get of many that one server has.
struct Part<'k> {
    node: Option<usize>,
    places: Vec<usize>,
    keys: Vec<Key<'k>>,
}

/// What an error says of another attempt.
fn failure_of(error: &Error) -> Failure {
    match error.fate() {
        Fate::Unknown => Failure::Unknown,
        Fate::DidNotHappen if !error.is_transient() => Failure::Rejected,
        Fate::DidNotHappen if matches!(error, Error::Refused { .. }) => Failure::Refused,
        Fate::DidNotHappen => Failure::NotSent,
    }
}

/// What all of `calls` come to, which run side by side.
pub(crate) async fn join<T>(calls: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut calls: Vec<_> = calls.map(|call| (Box::pin(call), None)).collect();
    poll_fn(|cx| {
        let mut is_ready = true;
        for (call, done) in &mut calls {
            if done.is_none() {
                match Pin::new(call).poll(cx) {
                    Poll::Ready(output) => *done = Some(output),
                    Poll::Pending => is_ready = false,
                }
            }
        }
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    calls.into_iter().filter_map(|(_, done)| done).collect()
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = &self.inner.config.servers;
        f.debug_struct("Client").field("servers", servers).finish_non_exhaustive()
    }
}

impl<'a> Put<'a> {
    /// Plain bytes, without a condition beyond that of `mode`.
    pub fn new(mode: StoreMode, data: &'a [u8], ttl: Ttl) -> Self {
        Self { mode, data, flags: 0, ttl, compare_cas: None }
    }
}

fn exptime(ttl: Ttl) -> Exptime {
    ttl.to_exptime(clock::unix_s)
}

/// A key that can stand in a request line. The protocol document asks clients to leave out control characters;
/// servers take some of them, and proxies do not.
fn check(key: &[u8]) -> Result<Key<'_>, InvalidKey> {
    let length = InvalidKey::Length { bytes: key.len() };
    let checked = Key::new(key).ok_or(length)?;
    debug_assert!(key.len() <= KEY_BYTES_MAX, "a key is no longer");
    match key.iter().position(|&byte| byte <= b' ' || byte == 0x7f) {
        Some(offset) => Err(InvalidKey::Character { offset }),
        None => Ok(checked),
    }
}
