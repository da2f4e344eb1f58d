//! Typed values, computed once.
//!
//! ```text
//! | flags of the codec, u32 little-endian | what the codec wrote |        where plain values are bytes
//! ```
//!
//! A value that is there and cannot be read as the type, because another version of the program wrote it, counts as
//! missing: it is computed anew and overwritten. postcard cannot always tell, JSON mostly can.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Cached, ComputeError, Policy, Store};
use crate::codec::{Codec, CodecError};

impl<S: Store, E: std::fmt::Display + From<CodecError> + Send + Sync> Cached<S, E> {
    /// The value of `key`, computed and stored if it is not there. A computed value that the codec refuses is an error.
    pub async fn get_or_compute_as<T, F>(
        &self,
        key: &[u8],
        policy: &Policy,
        compute: impl FnOnce() -> F,
    ) -> Result<Option<T>, ComputeError<E>>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<Option<T>, E>>,
    {
        let codec = &self.codec;
        let mut compute = Some(compute);
        let first = || encoded(codec, compute.take().expect("nobody has computed yet")());
        let found = self.get_or_compute(key, policy, first).await?;
        let Some(bytes) = found else { return Ok(None) };
        let unreadable = match decode(codec, &bytes) {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        let failed = |error| ComputeError(Arc::new(E::from(error)));
        // What this caller has computed itself would be no other the second time.
        let Some(compute) = compute else { return Err(failed(unreadable)) };
        tracing::debug!(error = %unreadable, "a value of another kind is computed anew");
        let is_good = |bytes: &[u8]| decode::<T>(codec, bytes).is_ok();
        let second = || encoded(codec, compute());
        let found = self.get_or_compute_if(key, &[], policy, is_good, second).await?;
        found.map(|bytes| decode(codec, &bytes)).transpose().map_err(failed)
    }
}

async fn encoded<T: Serialize, E: From<CodecError>>(
    codec: &Codec,
    computing: impl Future<Output = Result<Option<T>, E>>,
) -> Result<Option<Bytes>, E> {
    let value = computing.await?;
    Ok(value.map(|value| encode(codec, &value)).transpose()?)
}

fn encode<T: Serialize>(codec: &Codec, value: &T) -> Result<Bytes, CodecError> {
    let (data, flags) = codec.encode(value)?;
    let mut bytes = BytesMut::with_capacity(size_of::<u32>() + data.len());
    bytes.put_u32_le(flags);
    bytes.put_slice(&data);
    Ok(bytes.freeze())
}

fn decode<T: DeserializeOwned>(codec: &Codec, bytes: &[u8]) -> Result<T, CodecError> {
    let Some((flags, data)) = bytes.split_first_chunk() else {
        return Err(CodecError::Decode("it is shorter than its flags".to_owned()));
    };
    codec.decode_bytes(data, u32::from_le_bytes(*flags))
}
