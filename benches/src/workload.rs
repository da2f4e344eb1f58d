//! A workload: which requests are made, of which keys and values, in which proportion.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::keyspace::{Keyspace, KeyspaceError, Popularity, Sampler};
use crate::value::{Values, mix};
use crate::wire::Dialect;

/// Most keys one get may ask for; a line of so many of the longest keys is still a quarter of what
/// memcached reads before it gives a line up.
pub const KEYS_PER_GET_MAX: usize = 1000;

/// What is asked of a server, and what its answers must be.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The keys there are.
    pub keyspace: Keyspace,
    /// How requests spread over them.
    pub popularity: Popularity,
    /// Lengths of values, in bytes. Each key has one of these, always the same.
    pub value_bytes: RangeInclusive<usize>,
    /// How large a share of the requests are gets, from 0 to 1; the others are sets.
    pub get_share: f64,
    /// How many keys one get asks for.
    pub keys_per_get: usize,
    /// Which commands are spoken.
    pub dialect: Dialect,
    /// Whether a key that a get missed is then set, as an application would that looks aside to its
    /// database.
    pub fill: bool,
    /// The values.
    pub values: Values,
    /// Whether what comes back is compared with what its key must have. An echo server keeps nothing, so
    /// only its answers' lengths are right.
    pub checks: bool,
}

impl Workload {
    /// The length of the value of the key of `index`, in bytes.
    #[inline]
    pub fn value_bytes_of(&self, index: u32) -> usize {
        let (low, high) = (*self.value_bytes.start(), *self.value_bytes.end());
        if low == high {
            return low;
        }
        let above = mix(u64::from(index)) % (high - low + 1) as u64;
        low + usize::try_from(above).expect("no more than the range's width")
    }
}

/// What a request is, its keys apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Read all the keys.
    Get,
    /// Write the one key.
    Set,
}

/// The requests of one thread, one after the other.
#[derive(Debug)]
pub enum Requests {
    /// Drawn from the workload's proportions, without end.
    Drawn {
        /// The source of all chance in them.
        random: Box<StdRng>,
        /// Which keys.
        sampler: Sampler,
        /// See [`Workload::get_share`].
        get_share: f64,
        /// See [`Workload::keys_per_get`].
        keys_per_get: usize,
    },
    /// As drawn, but all of some keys equally often.
    Among {
        /// The source of all chance in them.
        random: Box<StdRng>,
        /// Which keys, by their indexes.
        keys: Arc<[u32]>,
        /// See [`Workload::get_share`].
        get_share: f64,
        /// See [`Workload::keys_per_get`].
        keys_per_get: usize,
    },
    /// A set of every key in a range of indexes, in order, once.
    Filling(Range<u32>),
}

impl Requests {
    /// Requests in the proportions of `workload`; the same `seed` gives the same ones.
    ///
    /// # Errors
    /// When the workload's popularity cannot be.
    pub fn drawn(workload: &Workload, seed: u64) -> Result<Self, KeyspaceError> {
        Ok(Self::Drawn {
            random: Box::new(StdRng::seed_from_u64(seed)),
            sampler: Sampler::new(&workload.keyspace, workload.popularity)?,
            get_share: workload.get_share,
            keys_per_get: workload.keys_per_get,
        })
    }

    /// Requests in the proportions of `workload`, for none but `keys`, whatever its popularity.
    pub fn among(workload: &Workload, keys: Arc<[u32]>, seed: u64) -> Self {
        Self::Among {
            random: Box::new(StdRng::seed_from_u64(seed)),
            keys,
            get_share: workload.get_share,
            keys_per_get: workload.keys_per_get,
        }
    }

    /// The share of a filling of all keys that falls to thread number `thread` of `threads`.
    pub fn filling(workload: &Workload, thread: usize, threads: usize) -> Self {
        let count = u64::from(workload.keyspace.count());
        let bound = |thread: usize| {
            u32::try_from(count * thread as u64 / threads as u64).expect("at most every key")
        };
        Self::Filling(bound(thread)..bound(thread + 1))
    }

    /// The next request; its key indexes replace what `keys` held. `None` when there are no more.
    #[inline]
    pub fn next(&mut self, keys: &mut Vec<u32>) -> Option<Ask> {
        keys.clear();
        match self {
            Self::Filling(range) => {
                keys.push(range.next()?);
                Some(Ask::Set)
            }
            Self::Drawn { random, sampler, get_share, keys_per_get } => {
                let (ask, count) = kind_of(random, *get_share, *keys_per_get);
                keys.extend((0..count).map(|_| sampler.sample(random)));
                Some(ask)
            }
            Self::Among { random, keys: these, get_share, keys_per_get } => {
                let (ask, count) = kind_of(random, *get_share, *keys_per_get);
                keys.extend((0..count).map(|_| these[random.random_range(0..these.len())]));
                Some(ask)
            }
        }
    }
}

/// Whether a request is a get or a set, and of how many keys.
#[inline]
fn kind_of(random: &mut StdRng, get_share: f64, keys_per_get: usize) -> (Ask, usize) {
    let is_get = get_share >= 1.0 || random.random::<f64>() < get_share;
    if is_get { (Ask::Get, keys_per_get) } else { (Ask::Set, 1) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Gets of single keys out of a hundred, values of 10 to 99 bytes.
    pub(crate) fn small_workload() -> Workload {
        Workload {
            keyspace: Keyspace::new(100, 8).unwrap(),
            popularity: Popularity::Uniform,
            value_bytes: 10..=99,
            get_share: 1.0,
            keys_per_get: 1,
            dialect: Dialect::Text,
            fill: false,
            values: Values::new(),
            checks: true,
        }
    }

    #[test]
    fn a_key_keeps_its_size_and_sizes_fill_their_range() {
        let workload = small_workload();
        let sizes: Vec<_> = (0..100).map(|index| workload.value_bytes_of(index)).collect();
        assert!(sizes.iter().all(|bytes| workload.value_bytes.contains(bytes)));
        assert!(sizes.iter().min() < Some(&20) && sizes.iter().max() > Some(&90));
        assert_eq!(workload.value_bytes_of(7), sizes[7]);
    }

    #[test]
    fn requests_come_in_the_proportion_asked_for() {
        let workload = Workload { get_share: 0.95, keys_per_get: 3, ..small_workload() };
        let mut requests = Requests::drawn(&workload, 7).unwrap();
        let mut keys = Vec::new();
        let mut sets = 0;
        for _ in 0..10_000 {
            match requests.next(&mut keys).unwrap() {
                Ask::Get => assert_eq!(keys.len(), 3),
                Ask::Set => {
                    assert_eq!(keys.len(), 1);
                    sets += 1;
                }
            }
        }
        assert!((430..570).contains(&sets), "{sets} sets of an expected 500");
    }

    #[test]
    fn requests_among_some_keys_are_for_those_alone() {
        let mut requests = Requests::among(&small_workload(), [3, 14, 15].into(), 7);
        let mut asked = [0; 100];
        let mut keys = Vec::new();
        for _ in 0..3_000 {
            requests.next(&mut keys);
            asked[keys[0] as usize] += 1;
        }
        assert_eq!(asked[3] + asked[14] + asked[15], 3_000);
        assert!(asked[3] > 900 && asked[14] > 900 && asked[15] > 900);
    }

    #[test]
    fn the_same_seed_gives_the_same_requests() {
        let draw = |seed| {
            let mut requests = Requests::drawn(&small_workload(), seed).unwrap();
            let mut keys = Vec::new();
            (0..50)
                .map(|_| {
                    requests.next(&mut keys);
                    keys[0]
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn threads_fill_every_key_once_between_them() {
        let workload = small_workload();
        let mut filled = Vec::new();
        let mut keys = Vec::new();
        for thread in 0..3 {
            let mut requests = Requests::filling(&workload, thread, 3);
            while requests.next(&mut keys) == Some(Ask::Set) {
                filled.push(keys[0]);
            }
        }
        assert_eq!(filled, (0..100).collect::<Vec<_>>());
    }
}
