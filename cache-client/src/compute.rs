//! `get_or_compute`: a value from the cache, or computed once and put there.
//!
//! ```text
//! callers of a key ──> one flight a process ──> lookup ──┬─ fresh ───────────────────────────> all get it
//!  (flight.rs)                                           ├─ stale or early, lease won ──> all get it; the one
//!                                                        │                                that won computes anew
//!                                                        ├─ nothing, lease won ──> compute ──> all get it ──> store
//!                                                        └─ nothing, lease elsewhere ──> look again until it is there
//! ```
//!
//! - **One computation at a time.** In a process by a flight; across processes by memcached's lease: a lookup that finds
//!   nothing leaves an empty item (`mg` with `N`), and one caller alone is told that it has won (`W`). What it computes
//!   is stored only if the lease is still its own (`C`). A lease runs out by itself, so that a winner that dies holds
//!   nobody up for longer than [`Policy::lease`].
//! - **Nobody waits without need.** Callers get the value as soon as it is computed, before it is stored. Those in other
//!   processes look again after a twentieth of the time that they have waited. While a value is stale, all but one caller
//!   get it at once.
//! - **A caller that goes away** hands over to one that waits, or to the next one of its process; to another process when
//!   the lease ends, and where there is an old value when that does.
//! - **A cache that fails is a miss**: each process computes for itself, once at a time, and stores nothing.
//! - A caller may be given what was looked up up to one round trip before it asked, by the flight that it joined.
//!
//! | to get | say |
//! |---|---|
//! | a value that is computed while the old one is served | [`Policy::stale`] above zero |
//! | hot values renewed before they end, at one caller's cost | [`Policy::early`] above zero (`early.rs`) |
//! | "there is none" remembered | a computation that gives `None`, and [`Policy::absent`] above zero |
//! | all values of a name invalid at once | [`Namespace`] |
//! | all values that depend on something invalid at once | tags ([`Cached::get_or_compute_tagged`]) |
//! | what serde knows instead of bytes | [`Cached::get_or_compute_as`] (`typed.rs`) |

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::{Instant, sleep};
use xxhash_rust::xxh3::Xxh3;

use self::envelope::Envelope;
pub use self::flight::OnError;
use self::flight::{Flights, Turn};
pub use self::generation::Namespace;
use crate::codec::Codec;
use crate::random::Random;
use crate::value::Found;

mod client;
mod early;
mod envelope;
mod flight;
mod generation;
mod typed;

/// What a caching layer needs of a client. Each method is one request of memcached's.
pub trait Store: Send + Sync {
    /// Why a request failed.
    type Error: fmt::Display + Send;

    /// `mg <key> v c t N<vivify> R<recache>`. With `vivify` a miss leaves an empty item with that life, won by this
    /// caller. `None` is a miss without it, or a failure that counts as a miss.
    fn lookup(
        &self,
        key: &[u8],
        vivify: Option<Duration>,
        recache: Option<Duration>,
    ) -> impl Future<Output = Result<Option<Found>, Self::Error>> + Send;

    /// `ms <key> C<cas> T<ttl>`: stores if the item is still what `cas` left; whether it was. A life of zero is over at
    /// once.
    fn cas(
        &self,
        key: &[u8],
        data: Bytes,
        ttl: Duration,
        cas: u64,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// `md <key> I`: marks the item stale, so that the next lookup wins; whether there was one.
    fn invalidate(&self, key: &[u8]) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// The values of many keys, in their order.
    fn get_many(
        &self,
        keys: &[Vec<u8>],
    ) -> impl Future<Output = Result<Vec<Option<Bytes>>, Self::Error>> + Send;

    /// Stores for ever if there is nothing; whether it did.
    fn add(
        &self,
        key: &[u8],
        data: Bytes,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Adds to a number; the new one, or `None` where there is none.
    fn incr(
        &self,
        key: &[u8],
        delta: u64,
    ) -> impl Future<Output = Result<Option<u64>, Self::Error>> + Send;
}

/// How long what is computed is good, and who computes it again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// How long a value is fresh. Like all lives rounded up to whole seconds.
    pub fresh: Duration,
    /// How long after that it is served while one caller computes it anew.
    pub stale: Duration,
    /// How eagerly a fresh value is computed anew before it ends; 1 is what the paper recommends, 0 is never.
    pub early: f64,
    /// How long it is remembered that there is no value; zero for not at all.
    pub absent: Duration,
    /// How long a computation may take before somebody else is let try.
    pub lease: Duration,
    /// Who learns of a computation that failed.
    pub on_error: OnError,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(60),
            stale: Duration::ZERO,
            early: 1.0,
            absent: Duration::ZERO,
            lease: Duration::from_secs(10),
            on_error: OnError::Share,
        }
    }
}

/// The computation failed. One error is shared by all who waited for it.
#[derive(Debug, Error)]
#[error("the value could not be computed: {0}")]
pub struct ComputeError<E: fmt::Display>(pub Arc<E>);

impl<E: fmt::Display> Clone for ComputeError<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A value, or that there is none.
type Shared<E> = Result<Option<Bytes>, ComputeError<E>>;

/// The least wait before another look at what somebody else computes.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// The longest.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// Who waits looks again after this part of the time waited: it learns of a value at most that much later than there is
/// one.
const WAIT_PART: u32 = 20;

/// Values of a cache, computed when they are missing. The computations of all its keys fail with the one `E`.
pub struct Cached<S, E: fmt::Display> {
    store: S,
    codec: Codec,
    flights: Flights<Shared<E>>,
    random: Mutex<Random>,
}

/// A key, and what counts as its value.
struct Sought<'a, G> {
    key: &'a [u8],
    tags: &'a [&'a [u8]],
    policy: &'a Policy,
    is_good: G,
}

/// What the cache says of a key.
enum Look {
    /// Here it is.
    Use(Option<Bytes>),
    /// Here it is, and this caller is to compute it anew.
    Renew(Option<Bytes>, Lease),
    /// There is nothing, and this caller is to compute it.
    Compute(Lease),
    /// There is nothing, and somebody else computes it.
    Wait,
    /// The cache does not answer.
    Down,
}

/// The right to store what is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    cas: u64,
    /// Of the tags' generations from before the computation, so that what is invalidated while it runs is invalid.
    tags: u64,
}

impl<S: Store, E: fmt::Display + Send + Sync> Cached<S, E> {
    /// Over `store`. `seed` decides who renews a value early and which generations names begin with; give every process
    /// another.
    pub fn new(store: S, seed: u64) -> Self {
        let random = Mutex::new(Random::new(seed));
        Self { store, codec: Codec::default(), flights: Flights::default(), random }
    }

    /// The same, whose [typed values](Self::get_or_compute_as) become bytes so.
    #[must_use]
    pub fn with_codec(self, codec: Codec) -> Self {
        Self { codec, ..self }
    }

    /// What it is over.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The value of `key`, computed and stored if it is not there. `None` if the computation says that there is none.
    pub async fn get_or_compute<F>(
        &self,
        key: &[u8],
        policy: &Policy,
        compute: impl FnOnce() -> F,
    ) -> Result<Option<Bytes>, ComputeError<E>>
    where
        F: Future<Output = Result<Option<Bytes>, E>>,
    {
        self.get_or_compute_tagged(key, &[], policy, compute).await
    }

    /// The same for a value that depends on all of `tags`: once any of them is [invalidated](Self::invalidate_tag) it is
    /// not served any more. Costs a request for the tags' generations beside each lookup. `tags` are the same, in the same
    /// order, whenever the key is asked for.
    pub async fn get_or_compute_tagged<F>(
        &self,
        key: &[u8],
        tags: &[&[u8]],
        policy: &Policy,
        compute: impl FnOnce() -> F,
    ) -> Result<Option<Bytes>, ComputeError<E>>
    where
        F: Future<Output = Result<Option<Bytes>, E>>,
    {
        self.get_or_compute_if(key, tags, policy, |_| true, compute).await
    }

    /// The same; a value that is there counts only if it `is_good`.
    async fn get_or_compute_if<F>(
        &self,
        key: &[u8],
        tags: &[&[u8]],
        policy: &Policy,
        is_good: impl Fn(&[u8]) -> bool,
        compute: impl FnOnce() -> F,
    ) -> Result<Option<Bytes>, ComputeError<E>>
    where
        F: Future<Output = Result<Option<Bytes>, E>>,
    {
        let sought = Sought { key, tags, policy, is_good };
        let mut lead = match self.flights.join(key).await {
            Turn::Landed(shared) => return shared,
            Turn::Lead(lead) => lead,
        };
        let (old, lease) = match self.look_until_known(&sought, lead.lease()).await {
            Look::Use(value) => {
                lead.set_lease(None);
                lead.publish(Ok(value.clone()));
                return Ok(value);
            }
            Look::Renew(old, lease) => {
                // Whoever waits, or comes while the new value is computed, is served the old one.
                lead.publish(Ok(old.clone()));
                (Some(old), Some(lease))
            }
            Look::Compute(lease) => (None, Some(lease)),
            // After a long wait: whoever was to compute it is gone.
            Look::Wait | Look::Down => (None, None),
        };
        lead.set_lease(lease.map(|lease| lease.cas));
        let began = Instant::now();
        let computed = compute().await;
        match (computed, old) {
            (Ok(value), old) => {
                if old.is_none() {
                    lead.publish(Ok(value.clone()));
                }
                if let Some(lease) = lease {
                    self.put(key, policy, value.clone(), began.elapsed(), lease).await;
                }
                lead.set_lease(None);
                Ok(value)
            }
            // The lease is left to the next who asks.
            (Err(_), Some(old)) => Ok(old),
            (Err(error), None) => {
                let error = ComputeError(Arc::new(error));
                lead.fail(policy.on_error, Err(error.clone()));
                if let Some(lease) = lease {
                    self.release(key, lease).await;
                }
                lead.set_lease(None);
                Err(error)
            }
        }
    }

    /// Marks a value as stale: the next who asks computes it anew, and the others are served the old one until then.
    /// Whether there was one.
    pub async fn invalidate(&self, key: &[u8]) -> Result<bool, S::Error> {
        self.store.invalidate(key).await
    }

    /// Makes every value that depends on `tag` invalid, however many there are, at the cost of one request. Values that
    /// are being computed from what was true before are among them.
    pub async fn invalidate_tag(&self, tag: &[u8]) -> Result<(), S::Error> {
        let start = self.draw();
        generation::advance(&self.store, &tag_key(tag), start).await.map(drop)
    }

    async fn look_until_known(
        &self,
        sought: &Sought<'_, impl Fn(&[u8]) -> bool>,
        inherited: Option<u64>,
    ) -> Look {
        let &Sought { key, policy, .. } = sought;
        let began = Instant::now();
        let mut is_rearmed = false;
        loop {
            match self.look(sought, inherited).await {
                Ok(Look::Wait) => {}
                Ok(look) => return look,
                Err(error) => {
                    tracing::debug!(%error, "the cache does not answer, and the value is computed without it");
                    return Look::Down;
                }
            }
            let waited = began.elapsed();
            if waited > policy.lease * 2 {
                if is_rearmed {
                    return Look::Wait;
                }
                // An item that was there before its lease was given out outlives it: whoever had that is gone.
                let _ = self.store.invalidate(key).await;
                is_rearmed = true;
            }
            sleep((waited / WAIT_PART).clamp(WAIT_MIN, WAIT_MAX)).await;
        }
    }

    /// `inherited` is the lease of one who went away, which is this caller's if it is still the item's.
    async fn look(
        &self,
        sought: &Sought<'_, impl Fn(&[u8]) -> bool>,
        inherited: Option<u64>,
    ) -> Result<Look, S::Error> {
        let &Sought { key, tags, policy, ref is_good } = sought;
        let recache = Some(policy.stale).filter(|stale| !stale.is_zero());
        let (found, tags) = tokio::join!(
            self.store.lookup(key, Some(policy.lease), recache),
            self.tags_hash(tags),
        );
        // A client that turns failures into misses finds nothing where a lease would have been left.
        let (Some(found), tags) = (found?, tags?) else { return Ok(Look::Down) };
        let cas = found.value.cas.unwrap_or_default();
        let won = found.won || inherited == Some(cas);
        let lease = |cas| Lease { cas, tags };
        let is_valid = |envelope: &Envelope| {
            envelope.tags == tags && envelope.value.as_deref().is_none_or(is_good)
        };
        let valid = Envelope::decode(&found.value.data).filter(is_valid);
        let Some(envelope) = valid else {
            let is_empty = found.value.data.is_empty();
            return Ok(match won {
                true => Look::Compute(lease(cas)),
                false if is_empty => Look::Wait,
                // It is there, but may not be served.
                false => match self.win(key, &found, policy).await? {
                    Some(cas) => Look::Compute(lease(cas)),
                    None => Look::Wait,
                },
            });
        };
        let value = envelope.value;
        if won {
            return Ok(Look::Renew(value, lease(cas)));
        }
        let left = found.ttl_s.map(|ttl_s| Duration::from_secs(u64::from(ttl_s)));
        let fresh_left = left.and_then(|left| left.checked_sub(policy.stale));
        let is_early = fresh_left.is_some_and(|left| {
            // The server tells whole seconds. The part of one that is missing is drawn.
            let mut random = self.random.lock();
            let left = left + Duration::from_secs(1).mul_f64(random.unit());
            early::is_due(left, envelope.took, policy.early, random.unit())
        });
        match is_early {
            true => Ok(match self.win(key, &found, policy).await? {
                Some(cas) => Look::Renew(value, lease(cas)),
                None => Look::Use(value),
            }),
            false => Ok(Look::Use(value)),
        }
    }

    /// The lease of an item that has some life left, if nobody else has it.
    async fn win(
        &self,
        key: &[u8],
        found: &Found,
        policy: &Policy,
    ) -> Result<Option<u64>, S::Error> {
        if found.ttl_s.is_none() {
            // What is stored here ends. This is somebody else's, and is to be replaced at once.
            self.store.invalidate(key).await?;
        }
        let more = Duration::from_secs(u64::from(found.ttl_s.unwrap_or(0)) + 1);
        let again = self.store.lookup(key, Some(policy.lease), Some(more)).await?;
        Ok(again.filter(|again| again.won).and_then(|again| again.value.cas))
    }

    async fn put(
        &self,
        key: &[u8],
        policy: &Policy,
        value: Option<Bytes>,
        took: Duration,
        lease: Lease,
    ) {
        let fresh = if value.is_some() { policy.fresh } else { policy.absent };
        if fresh.is_zero() {
            return self.release(key, lease).await;
        }
        let data = Envelope { value, took, tags: lease.tags }.encode();
        // Whoever wrote since knows better, and a value that is not stored is computed again.
        if let Err(error) = self.store.cas(key, data, fresh + policy.stale, lease.cas).await {
            tracing::debug!(%error, "what was computed is not stored");
        }
    }

    /// Lets others compute at once.
    async fn release(&self, key: &[u8], lease: Lease) {
        // An empty item that is over at once takes the place of the one that the lease is on.
        let _ = self.store.cas(key, Bytes::new(), Duration::ZERO, lease.cas).await;
    }

    /// Of no tags 0.
    async fn tags_hash(&self, tags: &[&[u8]]) -> Result<u64, S::Error> {
        if tags.is_empty() {
            return Ok(0);
        }
        let keys: Vec<Vec<u8>> = tags.iter().map(|tag| tag_key(tag)).collect();
        let found = self.store.get_many(&keys).await?;
        let mut hasher = Xxh3::new();
        for (key, found) in keys.iter().zip(found) {
            let generation = match found.as_deref().and_then(generation::parse) {
                Some(generation) => generation,
                None => generation::found(&self.store, key, self.draw()).await?,
            };
            hasher.update(&generation.to_le_bytes());
        }
        // 0 means that there are none.
        Ok(hasher.digest().max(1))
    }

    fn draw(&self) -> u64 {
        self.random.lock().next_u64()
    }
}

impl<S: fmt::Debug, E: fmt::Display> fmt::Debug for Cached<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached").field("store", &self.store).finish_non_exhaustive()
    }
}

fn tag_key(tag: &[u8]) -> Vec<u8> {
    [b"tag:", tag].concat()
}

#[cfg(test)]
mod tests;
