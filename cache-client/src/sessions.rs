//! `Sessions`: a store for [tower-sessions](https://docs.rs/tower-sessions), and locks that end by themselves.
//!
//! ```text
//! session:<id>        how long it lives, and the record, as JSON
//! session:lock:<id>   whose turn it is: see `lock.rs`
//! ```
//!
//! - **An outage is an error**, never a session that is not there: who is told that there is none is logged out.
//!   [`SessionsConfig::fail_soft`] has it otherwise.
//! - **An id is taken once.** [`create`](SessionStore::create) adds, and draws another id where there is an item already.
//! - **What has ended stays ended.** A request that began before a logout does not bring the session back by saving it.
//! - **The server forgets a session by itself** when its time is over; nothing needs to be swept.
//!
//! ```no_run
//! use cache_client::sessions::{Locks, Sessions};
//! use cache_client::{Client, Config};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(Config::cluster(["127.0.0.1:11211".parse()?]));
//! let store = Sessions::new(client.clone()); // for SessionManagerLayer::new
//!
//! let locks = Locks::new(client);
//! let lock = locks.lock("alice's session").await?; // before the session is read
//! // ... the request, and its session saved ...
//! lock.release().await?; // or dropped, if nobody needs to know
//! # Ok(())
//! # }
//! ```

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::{SessionStore, session_store};

pub use self::lock::{Lock, LockConfig, LockError, Locks};
use crate::codec::CodecError;
use crate::{
    Client, Codec, Error, Fate, Format, Lookup, Put, StoreMode, Ttl, Value, Written, clock,
};

mod lock;

/// How often a write is tried whose outcome is unknown, and how many ids are drawn.
const ATTEMPTS_MAX: u32 = 3;

/// How sessions are kept.
#[derive(Clone, Debug)]
pub struct SessionsConfig {
    /// In front of each id. What a server of this project may be told to evict last (`--protect`).
    pub prefix: String,
    /// A session of which less than this share of its life is left when it is read gets the whole of it again: 0.5
    /// means one write for half a life however often it is read. `None`, the default, leaves the end where the last
    /// save has put it, as is right for sessions that end on a date. Needs a server that knows the meta commands.
    pub touch_below: Option<f64>,
    /// A save brings a session back that is not there, as a cache in front of a database must
    /// ([`CachingSessionStore`](tower_sessions_core::CachingSessionStore)). Otherwise that is an error: it has ended,
    /// or somebody has logged out, since it was read.
    pub may_revive: bool,
    /// What is the server's or the network's fault makes a session one that is not there, and a save one that is
    /// forgotten. A session that could not be deleted stays an error. The client's own
    /// [`Config::fail_soft`](crate::Config::fail_soft) means nothing here.
    pub fail_soft: bool,
}

impl Default for SessionsConfig {
    fn default() -> Self {
        Self { prefix: "session:".into(), touch_below: None, may_revive: false, fail_soft: false }
    }
}

/// Sessions in the cache. Clones share the client.
#[derive(Clone, Debug)]
pub struct Sessions {
    client: Client,
    config: Arc<SessionsConfig>,
}

/// What is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Stored<R> {
    /// How long it was to live when it was written.
    life_s: u32,
    record: R,
}

impl Sessions {
    /// Sessions with the defaults of [`SessionsConfig`].
    pub fn new(client: Client) -> Self {
        Self::with_config(client, SessionsConfig::default())
    }

    /// Sessions kept in this way.
    pub fn with_config(client: Client, config: SessionsConfig) -> Self {
        Self { client: client.strict(), config: Arc::new(config) }
    }

    /// The key that the session is stored under.
    pub fn key(&self, id: &Id) -> String {
        format!("{}{id}", self.config.prefix)
    }

    /// Writes a record for as long as it has to live; whether the mode let it. One whose time is over is removed.
    async fn write(&self, record: &Record, mode: StoreMode) -> Result<Written, Error> {
        let key = self.key(&record.id);
        let Some(life) = life_left(record) else {
            return self.client.delete(key).await.map(|_| Written::Stored);
        };
        let life_s = u32::try_from(life.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        let (data, flags) = self.codec().encode(&Stored { life_s, record })?;
        self.client.put(key, Put { flags, ..Put::new(mode, &data, life.into()) }).await
    }

    async fn find(&self, id: &Id) -> Result<Option<Record>, Error> {
        let key = self.key(id);
        let Some(touch_below) = self.config.touch_below else {
            let Some(value) = self.client.get(key).await? else { return Ok(None) };
            let record = self.decode(id, &value)?.record;
            return Ok(life_left(&record).map(|_| record));
        };
        let Some(found) = self.client.lookup(&key, Lookup::default()).await? else {
            return Ok(None);
        };
        let Stored { life_s, record } = self.decode(id, &found.value)?;
        let Some(mut left_s) = found.ttl_s else { return Ok(Some(record)) };
        if f64::from(left_s) < touch_below * f64::from(life_s) {
            match self.client.touch(key, Ttl::seconds(life_s)).await {
                Ok(true) => left_s = life_s,
                // It was removed just now.
                Ok(false) => return Ok(None),
                Err(error) => tracing::debug!(%error, "a session was read and not touched"),
            }
        }
        // What the server says: the record knows only of its last save.
        let end = clock::now() + Duration::from_secs(left_s.into());
        Ok(Some(Record { expiry_date: end.into(), ..record }))
    }

    fn decode(&self, id: &Id, value: &Value) -> Result<Stored<Record>, CodecError> {
        let stored: Stored<Record> = self.codec().decode(value)?;
        match stored.record.id == *id {
            true => Ok(stored),
            false => Err(CodecError::Decode("the record is another session's".into())),
        }
    }

    /// Sessions are maps of anything, and only JSON says what each thing is.
    fn codec(&self) -> Codec {
        Codec { format: Format::Json, ..*self.client.codec() }
    }

    fn soften<T>(&self, result: Result<T, Error>, instead: T) -> session_store::Result<T> {
        match result {
            Err(error) if self.config.fail_soft && error.is_transient() => {
                tracing::debug!(%error, "a session failed softly");
                Ok(instead)
            }
            result => result.map_err(|error| told(&error)),
        }
    }
}

#[async_trait]
impl SessionStore for Sessions {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        let mut written = Ok(Written::NotStored);
        for _ in 0..ATTEMPTS_MAX {
            written = self.write(record, StoreMode::Add).await;
            match &written {
                // The id is somebody's.
                Ok(Written::NotStored) => {}
                // It may be ours by now, which only another id leaves no doubt of. Nobody hears of this one.
                Err(error) if error.fate() == Fate::Unknown && error.is_transient() => {}
                _ => break,
            }
            record.id = Id::default();
        }
        match self.soften(written, Written::Stored)? {
            Written::Stored => Ok(()),
            _ => Err(session_store::Error::Backend(format!("{ATTEMPTS_MAX} ids are in use"))),
        }
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        let mode = if self.config.may_revive { StoreMode::Set } else { StoreMode::Replace };
        let mut written = Ok(Written::NotStored);
        for _ in 0..ATTEMPTS_MAX {
            written = self.write(record, mode).await;
            match &written {
                // Twice is as good as once.
                Err(error) if error.fate() == Fate::Unknown && error.is_transient() => {}
                _ => break,
            }
        }
        match self.soften(written, Written::Stored)? {
            Written::Stored => Ok(()),
            _ => Err(session_store::Error::Backend("the session has ended meanwhile".into())),
        }
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        let found = self.find(id).await;
        self.soften(found, None)
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        let deleted = self.client.delete(self.key(id)).await;
        deleted.map(drop).map_err(|error| told(&error))
    }
}

/// How long the record has to live; `None` where its time is over.
fn life_left(record: &Record) -> Option<Duration> {
    let left = SystemTime::from(record.expiry_date).duration_since(clock::now()).ok();
    left.filter(|left| !left.is_zero())
}

/// The error with what caused it, as text is all that a session's error holds.
fn told(error: &Error) -> session_store::Error {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    match error {
        Error::Codec(CodecError::Decode(_) | CodecError::Flags { .. }) => {
            session_store::Error::Decode(text)
        }
        Error::Codec(_) | Error::TooLarge { .. } => session_store::Error::Encode(text),
        _ => session_store::Error::Backend(text),
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
