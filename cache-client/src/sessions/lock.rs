//! `Locks`: one holder at a time, across processes, and none for ever.
//!
//! A lock is an item that names its holder and has a short life, which the holder renews.
//!
//! ```text
//! add ──stored──> held ──every third of the lease──> gets, is it mine? ──> cas: another lease
//!  ▲                │
//!  └─ a pause ── somebody's        dropped or released ──> gets, is it mine? ──> cas: over at once
//! ```
//!
//! - **Nothing sticks.** A guard that is dropped, with the future that holds it when a client has gone away, gives the
//!   lock back. A process that dies, or is cut off, does not; then the lock ends with its lease.
//! - **Only the holder's own item is touched**: what was taken over meanwhile is another write, which `cas` tells.
//! - **Nobody waits for ever** ([`LockConfig::wait`]), and who does not get it is told whether it is taken or the cache
//!   is at fault. Who waits asks again after growing random pauses; there is no queue.
//! - One task takes the lock, renews it and gives it back, one after the other, so that none of these overtakes another.
//!
//! A lock is a lease, not a fence: a holder that stands still for longer than its lease goes on without it. So
//! [`Lock::check`] comes before what must not happen twice. A cache that loses the item (evicted, or on a node
//! lost without a copy) has lost the lock as well.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::connection::random_number;
use crate::random::Random;
use crate::{Client, Error, Fate, Ttl, Written};

/// The shortest and the longest pause of who waits.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// The parts of a lease after which it is renewed, after which that is tried again, and that one call may take.
const RENEWALS_PER_LEASE: u32 = 3;
const ATTEMPTS_PER_LEASE: u32 = 10;
const CALLS_PER_LEASE: u32 = 4;
/// How often it is tried to give a lock back; what fails then is left to the end of the lease.
const RELEASES_MAX: u32 = 3;

/// How locks are taken and held.
#[derive(Clone, Debug)]
pub struct LockConfig {
    /// In front of each name.
    pub prefix: String,
    /// How long a lock outlives a holder that has died, and one that is cut off from the cache believes itself to have
    /// it. Longer than the cache may take to answer while it fails over.
    pub lease: Duration,
    /// How long somebody else's lock is waited for. Longer than the lease, so that who waits for a holder that has died
    /// gets it.
    pub wait: Duration,
}

impl Default for LockConfig {
    fn default() -> Self {
        Self {
            prefix: "session:lock:".into(),
            lease: Duration::from_secs(10),
            wait: Duration::from_secs(20),
        }
    }
}

/// Why there is no lock, or none any more.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LockError {
    /// It was somebody else's all the time.
    #[error("the lock is held by another, and was waited for {waited:?}")]
    Busy {
        /// For how long.
        waited: Duration,
    },
    /// The cache could not be asked.
    #[error("the lock cannot be taken")]
    Cache(#[from] Error),
    /// The lease has ended before it was renewed, and another may hold the lock.
    #[error("the lock was lost")]
    Lost,
    /// The runtime is being shut down.
    #[error("nobody is left to hold the lock")]
    ShutDown,
}

/// Locks by name. Clones share the client.
#[derive(Clone, Debug)]
pub struct Locks {
    client: Client,
    config: Arc<LockConfig>,
}

/// A lock that is held until this is dropped, or for a lease where it cannot be renewed.
#[must_use = "a lock that is dropped is given back"]
pub struct Lock {
    /// The end of the lease.
    end: watch::Receiver<Instant>,
    /// Dropped, it tells the keeper to give the lock back.
    release: oneshot::Sender<()>,
    keeper: JoinHandle<Result<(), LockError>>,
}

/// What a keeper hands over when it has the lock.
struct Taken {
    end: watch::Receiver<Instant>,
    release: oneshot::Sender<()>,
}

/// Who takes, renews and gives back one lock.
struct Keeper {
    client: Client,
    key: String,
    /// No other holder has the same.
    token: String,
    config: Arc<LockConfig>,
}

impl Locks {
    /// Locks with the defaults of [`LockConfig`].
    pub fn new(client: Client) -> Self {
        Self::with_config(client, LockConfig::default())
    }

    /// Locks that are taken and held in this way.
    pub fn with_config(client: Client, config: LockConfig) -> Self {
        // A call that outlasts the lease is of no use to it.
        let client = client.strict().with_timeout(config.lease / CALLS_PER_LEASE);
        Self { client, config: Arc::new(config) }
    }

    /// The lock called `name`, once nobody else has it. A future that is dropped before leaves no lock behind.
    ///
    /// # Errors
    ///
    /// When it is somebody else's, or the cache does not answer, for [`LockConfig::wait`].
    pub async fn lock(&self, name: impl fmt::Display) -> Result<Lock, LockError> {
        let keeper = Keeper {
            client: self.client.clone(),
            key: format!("{}{name}", self.config.prefix),
            token: format!("{:016x}{:016x}", random_number(), random_number()),
            config: Arc::clone(&self.config),
        };
        let (report, taken) = oneshot::channel();
        let keeper = tokio::spawn(keeper.run(report));
        let Taken { end, release } = taken.await.map_err(|_| LockError::ShutDown)??;
        Ok(Lock { end, release, keeper })
    }
}

impl Lock {
    /// Whether the lease lasts.
    pub fn is_held(&self) -> bool {
        Instant::now() < *self.end.borrow()
    }

    /// Says so as a `Result`: before a write that must be the holder's.
    ///
    /// # Errors
    ///
    /// When the lease has ended.
    pub fn check(&self) -> Result<(), LockError> {
        self.is_held().then_some(()).ok_or(LockError::Lost)
    }

    /// Ends when the lease has: what is done under the lock may be given up then.
    pub async fn lost(&self) {
        let mut end = self.end.clone();
        loop {
            let at = *end.borrow_and_update();
            if at <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(at) => {}
                changed = end.changed() => if changed.is_err() { return sleep_until(at).await },
            }
        }
    }

    /// Gives the lock back and waits until that is done, as a drop does not.
    ///
    /// # Errors
    ///
    /// When it had been lost, or the cache does not answer: then it ends with its lease.
    pub async fn release(self) -> Result<(), LockError> {
        drop(self.release);
        self.keeper.await.map_err(|_| LockError::ShutDown)?
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("is_held", &self.is_held()).finish_non_exhaustive()
    }
}

impl Keeper {
    async fn run(
        self,
        mut report: oneshot::Sender<Result<Taken, LockError>>,
    ) -> Result<(), LockError> {
        let end = match self.take(&mut report).await {
            Ok(end) => end,
            Err(error) => {
                // Who asked may have left; then nobody wants to know.
                let _ = report.send(Err(error));
                return Ok(());
            }
        };
        let (end, seen) = watch::channel(end);
        let (release, released) = oneshot::channel();
        // Where who asked has left, `release` is dropped with what was not delivered, and the lock given back.
        let _ = report.send(Ok(Taken { end: seen, release }));
        self.hold(&end, released).await
    }

    /// The end of the lease, once it is this holder's.
    async fn take(
        &self,
        report: &mut oneshot::Sender<Result<Taken, LockError>>,
    ) -> Result<Instant, LockError> {
        let began = Instant::now();
        let mut random = Random::new(random_number());
        let mut pause = PAUSE_MIN;
        // Since when the item may be this holder's without its knowledge.
        let mut unsure_since = None;
        loop {
            let now = Instant::now();
            let failed = match self.client.add(&self.key, &self.token, self.life()).await {
                Ok(Written::Stored) => return Ok(now + self.config.lease),
                Ok(_) => match unsure_since {
                    Some(since) if self.is_its_own().await => return Ok(since + self.config.lease),
                    _ => None,
                },
                Err(error) if !error.is_transient() => return Err(error.into()),
                Err(error) => {
                    if error.fate() == Fate::Unknown {
                        unsure_since.get_or_insert(now);
                    }
                    Some(error)
                }
            };
            let waited = began.elapsed();
            let is_over = waited + pause > self.config.wait;
            if !is_over {
                tokio::select! {
                    () = sleep(pause.mul_f64(0.5 + random.unit() / 2.0)) => {}
                    () = report.closed() => {}
                }
            }
            if is_over || report.is_closed() {
                if unsure_since.is_some() {
                    // What fails here the end of the lease sees to.
                    let _ = self.give_back().await;
                }
                return Err(failed.map_or(LockError::Busy { waited }, LockError::Cache));
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Renews the lease until the lock is to be given back, and gives it back.
    async fn hold(
        &self,
        end: &watch::Sender<Instant>,
        mut released: oneshot::Receiver<()>,
    ) -> Result<(), LockError> {
        let lease = self.config.lease;
        let mut wake = *end.borrow() - lease + lease / RENEWALS_PER_LEASE;
        loop {
            tokio::select! {
                _ = &mut released => return self.give_back().await,
                () = sleep_until(wake) => {}
            }
            let now = Instant::now();
            match self.replace(&self.token, self.life()).await {
                Ok(true) => {
                    end.send_replace(now + lease);
                    wake = now + lease / RENEWALS_PER_LEASE;
                }
                Err(error) if Instant::now() < *end.borrow() => {
                    tracing::debug!(%error, key = self.key, "a lock was not renewed");
                    wake = Instant::now() + lease / ATTEMPTS_PER_LEASE;
                }
                _ => {
                    tracing::debug!(key = self.key, "a lock was lost");
                    end.send_replace(now);
                    return Err(LockError::Lost);
                }
            }
        }
    }

    async fn give_back(&self) -> Result<(), LockError> {
        let mut attempt = 1;
        loop {
            match self.replace("", Ttl::seconds(0)).await {
                Ok(true) => return Ok(()),
                // By an attempt before this one, as far as anybody can tell.
                Ok(false) if attempt > 1 => return Ok(()),
                Ok(false) => return Err(LockError::Lost),
                Err(error) if attempt == RELEASES_MAX => return Err(error.into()),
                Err(_) => sleep(PAUSE_MAX).await,
            }
            attempt += 1;
        }
    }

    /// Writes the item anew if it is this holder's; whether it was.
    async fn replace(&self, data: &str, ttl: Ttl) -> Result<bool, Error> {
        let Some(value) = self.client.gets(&self.key).await? else { return Ok(false) };
        let own = value.cas.filter(|_| value.data == self.token);
        let Some(cas) = own else { return Ok(false) };
        self.client.cas(&self.key, data, ttl, cas).await.map(Written::is_stored)
    }

    async fn is_its_own(&self) -> bool {
        let found = self.client.gets(&self.key).await;
        found.is_ok_and(|value| value.is_some_and(|value| value.data == self.token))
    }

    /// Servers count whole seconds, and may begin within one: an item lives up to a second less than was said.
    fn life(&self) -> Ttl {
        (self.config.lease + Duration::from_secs(1)).into()
    }
}
