//! `Near`: values kept in the process, and how they are kept right.
//!
//! ```text
//! get ──▶ near? ──yes──▶ served, no server is asked
//!            │ no
//!            └──▶ Client ──▶ server ──▶ kept, if nothing speaks against it            near/state.rs
//!                              │
//!  each server's stream of changed keys, `watch changes` ──▶ what changed is dropped   near/stream.rs, near/follow.rs
//! ```
//!
//! What is served from here was the server's answer at some moment no longer ago than
//! [`staleness_max`](Near::staleness_max). With a stream that moment is when the server last proved that it had told of
//! all changes; without one, which memcached does not have, it is when the value was asked for.

mod follow;
mod state;
mod stream;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
pub use eviction::Kind;
use parking_lot::Mutex;
use protocol::request::StoreMode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use self::follow::Streams;
pub use self::state::NearCounters;
use self::state::{Answer, Limits, Look, State};
use self::stream::Pace;
use crate::client::join;
use crate::{Client, Error, Mode, Put, Ttl, Value, Written};

/// What is kept near, and how old it may be.
#[derive(Clone, Debug)]
pub struct NearConfig {
    /// What keys, values and all that goes with them may take, in bytes.
    pub bytes_max: usize,
    /// What leaves when there is no room.
    pub eviction: Kind,
    /// Keys are kept near that begin with one of these; all, if there is none. The request of a stream has to fit
    /// into a line of 2,048 bytes.
    pub prefixes: Vec<Vec<u8>>,
    /// The longest that a value is kept without being asked for again. It is never kept beyond its own life.
    pub ttl_max: Duration,
    /// The longest that "there is none" is kept; `None` for not at all.
    pub absent_ttl_max: Option<Duration>,
    /// How long a value is kept while no stream tells of its changes; `None` for not at all. Of memcached nothing is
    /// kept then.
    pub without_stream: Option<Duration>,
    /// How old a value may be that a stream keeps right: after so long without a proof that the stream is up to date
    /// nothing is served that relies on it, and it is given up.
    pub silence_max: Duration,
    /// How often each stream is asked for that proof: a fraction of `silence_max`.
    pub ping_interval: Duration,
}

impl Default for NearConfig {
    fn default() -> Self {
        Self {
            bytes_max: 64 << 20,
            eviction: Kind::S3Fifo,
            prefixes: Vec::new(),
            ttl_max: Duration::from_secs(300),
            absent_ttl_max: None,
            without_stream: None,
            silence_max: Duration::from_secs(2),
            ping_interval: Duration::from_millis(500),
        }
    }
}

impl NearConfig {
    fn limits(&self) -> Limits {
        Limits {
            bytes_max: self.bytes_max,
            eviction: self.eviction,
            ttl_max: self.ttl_max,
            short_ttl: self.without_stream,
            absent_ttl_max: self.absent_ttl_max,
        }
    }

    fn pace(&self) -> Pace {
        let ping_interval = self.ping_interval.min(self.silence_max / 2);
        Pace { ping_interval, silence_max: self.silence_max }
    }

    fn covers(&self, key: &[u8]) -> bool {
        self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| key.starts_with(prefix))
    }
}

/// A client that keeps what it read in the process. Clones share everything.
///
/// Its servers have to be of this project for values to be kept longer than
/// [`NearConfig::without_stream`], and to know the meta commands in any case.
#[derive(Clone)]
pub struct Near {
    shared: Arc<Shared>,
}

/// What clones, and the tasks that follow changes, share.
struct Shared {
    client: Client,
    config: NearConfig,
    state: Mutex<State>,
    streams: Mutex<Streams>,
}

impl Near {
    /// What `client` reads is kept near from now on. Begins to follow changes in the background, on the runtime that
    /// this is called on.
    pub fn new(client: Client, config: NearConfig) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(config.limits())),
            streams: Mutex::new(Streams::new(&client)),
            client,
            config,
        });
        shared.follow();
        Self { shared }
    }

    /// The client that asks the servers. A write through it is known here when the stream tells of it.
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// How old a value may be that a get gives: no older than this is the moment at which a get sent to the server could
    /// have given it. `Duration::ZERO` where nothing is ever kept.
    pub fn staleness_max(&self) -> Duration {
        let config = &self.shared.config;
        let streams = match self.shared.map_age_max() {
            Some(map_age_max) => config.silence_max.max(map_age_max),
            None => config.silence_max,
        };
        streams.max(config.without_stream.unwrap_or_default())
    }

    /// What happened so far, and what is near now.
    pub fn counters(&self) -> NearCounters {
        self.shared.state.lock().counters()
    }

    /// The value of a key, if there is one.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>, Error> {
        let (shared, key) = (&*self.shared, key.as_ref());
        if !shared.config.covers(key) {
            return shared.client.get(key).await;
        }
        let now = Instant::now().into_std();
        if let Look::Hit(value) = shared.state.lock().find(key, now) {
            return Ok(value);
        }
        shared.client.soften(shared.fetch(key).await, || None)
    }

    /// The values of many keys, in their order. Those that are not near are asked for together.
    pub async fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>, Error> {
        join(keys.iter().map(|key| self.get(key))).await.into_iter().collect()
    }

    /// A typed value, if there is one.
    pub async fn get_as<T: DeserializeOwned>(
        &self,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<T>, Error> {
        let found = self.get(key).await?;
        Ok(found.map(|value| self.client().codec().decode(&value)).transpose()?)
    }

    /// As [`Client::set`].
    pub async fn set(
        &self,
        key: impl AsRef<[u8]>,
        data: impl AsRef<[u8]>,
        ttl: impl Into<Ttl>,
    ) -> Result<Written, Error> {
        self.put(key, Put::new(StoreMode::Set, data.as_ref(), ttl.into())).await
    }

    /// As [`Client::set_as`].
    pub async fn set_as<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        ttl: impl Into<Ttl>,
    ) -> Result<Written, Error> {
        let (data, flags) = self.client().codec().encode(value)?;
        let put = Put::new(StoreMode::Set, &data, ttl.into());
        self.put(key, Put { flags, ..put }).await
    }

    /// As [`Client::put`], for all other ways of writing a value.
    pub async fn put(&self, key: impl AsRef<[u8]>, put: Put<'_>) -> Result<Written, Error> {
        self.write(key, |client, key| client.put(key, put)).await
    }

    /// As [`Client::delete`].
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        self.write(key, |client, key| client.delete(key)).await
    }

    /// As [`Client::touch`].
    pub async fn touch(&self, key: impl AsRef<[u8]>, ttl: impl Into<Ttl>) -> Result<bool, Error> {
        let ttl = ttl.into();
        self.write(key, |client, key| client.touch(key, ttl)).await
    }

    /// As [`Client::incr`].
    pub async fn incr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, Error> {
        self.write(key, |client, key| client.incr(key, delta)).await
    }

    /// As [`Client::decr`].
    pub async fn decr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, Error> {
        self.write(key, |client, key| client.decr(key, delta)).await
    }

    /// As [`Client::flush_all`].
    pub async fn flush_all(&self) -> Result<(), Error> {
        let _flushed = Flushed::new(&self.shared);
        self.shared.client.flush_all().await
    }

    /// Drops what is kept of a key, and what is being asked for it: for a write that did not go through here.
    pub fn forget(&self, key: impl AsRef<[u8]>) {
        self.shared.state.lock().changed(key.as_ref());
    }

    /// Carries out a write of a key, of which nothing is near before and nothing of before is near after.
    async fn write<'a, K, F>(
        &'a self,
        key: K,
        write: impl FnOnce(&'a Client, Bytes) -> F,
    ) -> F::Output
    where
        K: AsRef<[u8]>,
        F: Future,
    {
        let key = Bytes::copy_from_slice(key.as_ref());
        let _changed = Changed::new(&self.shared, key.clone());
        write(&self.shared.client, key).await
    }
}

impl fmt::Debug for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Near").field("client", &self.shared.client).finish_non_exhaustive()
    }
}

impl Shared {
    /// Asks a server, and keeps the answer if nothing speaks against it.
    async fn fetch(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        let token = self.begin(key, Instant::now().into_std());
        let found = self.client.look(key).await?;
        // One that is being computed, or is to be computed anew, is not what the next reader is to find.
        let is_settled = found.as_ref().is_none_or(|it| !(it.won || it.is_stale || it.win_sent));
        let ttl_s = found.as_ref().and_then(|it| it.ttl_s);
        let value = found.map(|it| it.value);
        if is_settled {
            let answer = Answer { value: value.as_ref(), ttl_s };
            self.state.lock().finish(token, key, answer, Instant::now().into_std());
        }
        Ok(value)
    }

    /// How old the map of a cluster may be for what is near to be served.
    fn map_age_max(&self) -> Option<Duration> {
        let config = &self.client.inner.config;
        match config.mode {
            Mode::Cluster { poll_interval, .. } => Some(2 * poll_interval + config.timeout),
            Mode::Static(_) | Mode::Equals => None,
        }
    }
}

/// A write of a key under way. However it ends, and if it is given up, what was read while it was under way is not
/// kept.
struct Changed<'a> {
    shared: &'a Shared,
    key: Bytes,
}

impl<'a> Changed<'a> {
    fn new(shared: &'a Shared, key: Bytes) -> Self {
        shared.state.lock().changed(&key);
        Self { shared, key }
    }
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        self.shared.state.lock().changed(&self.key);
    }
}

/// The same for a write of all keys.
struct Flushed<'a>(&'a Shared);

impl<'a> Flushed<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.state.lock().flush();
        Self(shared)
    }
}

impl Drop for Flushed<'_> {
    fn drop(&mut self) {
        self.0.state.lock().flush();
    }
}
