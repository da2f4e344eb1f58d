//! Generations: numbers in the cache that make many values invalid by growing by one.
//!
//! A number that was evicted begins anew at another, drawn from 2^63, so that what was stored under the old one stays
//! invalid. Losing it makes valid values invalid too, which is legal for a cache.

use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Store;
use crate::random::Random;

/// Keys that can be made invalid together, however many there are.
///
/// The generation is a part of the key in the cache, so that a value of another one is not found; memory of what is
/// invalid is won back by eviction and by its end of life.
#[derive(Debug)]
pub struct Namespace {
    name: Vec<u8>,
    /// How long a generation that was read is gone by.
    staleness: Duration,
    known: Mutex<Option<(u64, Instant)>>,
    random: Mutex<Random>,
}

impl Namespace {
    /// The namespace `name`. Within `staleness` of an [invalidation](Self::invalidate) by another process, values of before
    /// may still be served; zero asks for the generation each time. `seed` decides what generations begin with; give
    /// every process, and every start of one, another.
    pub fn new(name: impl Into<Vec<u8>>, staleness: Duration, seed: u64) -> Self {
        let random = Mutex::new(Random::new(seed));
        Self { name: name.into(), staleness, known: Mutex::new(None), random }
    }

    /// The key in the cache of `key` in this namespace: 18 bytes and the name longer.
    pub async fn key<S: Store>(&self, store: &S, key: &[u8]) -> Result<Vec<u8>, S::Error> {
        let generation = self.generation(store).await?;
        let middle = format!(":{generation:016x}:");
        Ok([&self.name[..], middle.as_bytes(), key].concat())
    }

    /// Makes all of its values invalid, at the cost of one request.
    pub async fn invalidate<S: Store>(&self, store: &S) -> Result<(), S::Error> {
        // Whatever was known is over, also if it turns out unknown whether the request was carried out.
        *self.known.lock() = None;
        let asked = Instant::now();
        let generation = advance(store, &self.number_key(), self.draw()).await?;
        *self.known.lock() = Some((generation, asked));
        Ok(())
    }

    async fn generation<S: Store>(&self, store: &S) -> Result<u64, S::Error> {
        let known = *self.known.lock();
        if let Some((generation, since)) = known
            && since.elapsed() < self.staleness
        {
            return Ok(generation);
        }
        let asked = Instant::now();
        let generation = found(store, &self.number_key(), self.draw()).await?;
        let mut known = self.known.lock();
        // Of two who asked at one time the later is right.
        if known.is_none_or(|(_, since)| since <= asked) {
            *known = Some((generation, asked));
        }
        Ok(generation)
    }

    fn draw(&self) -> u64 {
        self.random.lock().next_u64()
    }

    fn number_key(&self) -> Vec<u8> {
        [b"generation:", &self.name[..]].concat()
    }
}

pub(super) fn parse(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.trim_end().parse().ok()
}

/// The number under `key`, which begins with `draw` if there is none.
pub(super) async fn found<S: Store>(store: &S, key: &[u8], draw: u64) -> Result<u64, S::Error> {
    if let Some(generation) = read(store, key).await? {
        return Ok(generation);
    }
    let start = begin(draw);
    if store.add(key, Bytes::from(start.to_string())).await? {
        return Ok(start);
    }
    // Somebody else was first. If that is gone already, any will do for this once.
    Ok(read(store, key).await?.unwrap_or(start))
}

/// Makes the number under `key` another, and returns it.
pub(super) async fn advance<S: Store>(store: &S, key: &[u8], draw: u64) -> Result<u64, S::Error> {
    if let Some(generation) = store.incr(key, 1).await? {
        return Ok(generation);
    }
    let start = begin(draw);
    if store.add(key, Bytes::from(start.to_string())).await? {
        return Ok(start);
    }
    // It has begun since, perhaps for a value that is to be invalid.
    Ok(store.incr(key, 1).await?.unwrap_or(start))
}

async fn read<S: Store>(store: &S, key: &[u8]) -> Result<Option<u64>, S::Error> {
    let mut found = store.get_many(&[key.to_vec()]).await?;
    Ok(found.pop().flatten().as_deref().and_then(parse))
}

/// A number with so much above it that it never wraps.
fn begin(draw: u64) -> u64 {
    draw >> 1
}
