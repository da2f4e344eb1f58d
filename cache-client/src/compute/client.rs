//! A [`Client`] as what values are computed into.

use std::time::Duration;

use bytes::Bytes;

use crate::compute::Store;
use crate::{Client, Error, Found, Lookup, Ttl, Written};

impl Store for Client {
    type Error = Error;

    async fn lookup(
        &self,
        key: &[u8],
        vivify: Option<Duration>,
        recache: Option<Duration>,
    ) -> Result<Option<Found>, Error> {
        let [vivify, recache] = [vivify, recache].map(|life| life.map(Ttl::from));
        Self::lookup(self, key, Lookup { touch: None, vivify, recache }).await
    }

    async fn cas(&self, key: &[u8], data: Bytes, ttl: Duration, cas: u64) -> Result<bool, Error> {
        Self::cas(self, key, data, ttl, cas).await.map(Written::is_stored)
    }

    async fn invalidate(&self, key: &[u8]) -> Result<bool, Error> {
        Self::invalidate(self, key, None).await
    }

    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, Error> {
        let found = Self::get_many(self, keys).await?;
        Ok(found.into_iter().map(|value| value.map(|value| value.data)).collect())
    }

    async fn add(&self, key: &[u8], data: Bytes) -> Result<bool, Error> {
        Self::add(self, key, data, Ttl::NEVER).await.map(Written::is_stored)
    }

    async fn incr(&self, key: &[u8], delta: u64) -> Result<Option<u64>, Error> {
        Self::incr(self, key, delta).await
    }
}
