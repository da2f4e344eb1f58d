//! A small cache in each client, in front of the server: what it serves, what it leaves to the server, and
//! how old its answers are.
//!
//! ```text
//! read ──> near cache of the client ──miss──> server ──miss──> origin
//! write, delete, gat ────────────────────────> server          and out of the writer's own near cache
//! ```

use std::collections::HashMap;

use eviction::{KeyHash, Kind};

use super::{Cell, Model, Table};
use crate::blueprint::{Blueprint, Counting};
use crate::replay::{Expiry, Player, Replay, Request, Weighing};
use crate::sampling::mixed;
use crate::trace::Op;

pub(super) const ASSUMPTIONS: &[&str] = &[
    "Each client has a near cache of its own; the log does not tell clients apart, so its requests are dealt \
     to them at random.",
    "A near copy is served for --near-ttl after it was fetched, and no longer than its item's TTL counted \
     from then. A copy whose time is up keeps its room until it is asked for or evicted.",
    "Who writes or deletes drops its own near copy; those of others go on being served. stale_hits are hits \
     on copies of which the log has written or deleted the item since they were fetched; stale_s_max is how \
     old such an answer can be.",
    "What is served near the server does not hear of: its policy sees the other requests alone.",
];

pub(super) const COLUMNS: &[&str] = &[
    "policy",
    "cache_size",
    "near_policy",
    "near_size",
    "clients",
    "near_ttl_s",
    "hit_ratio_alone",
    "hit_ratio",
    "near_hit_ratio",
    "server_hit_ratio",
    "server_requests_share",
    "stale_hits",
    "stale_share",
    "stale_s_max",
];

/// A cache in each client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near {
    /// The room of each, in objects or bytes as the plan counts; bytes in front of servers.
    pub size: u64,
    /// Who leaves it.
    pub policy: Kind,
    /// How long a copy is served; for ever if none.
    pub ttl_s: Option<u32>,
    /// How many clients there are.
    pub clients: u32,
}

impl Near {
    pub(super) fn model(&self, blueprint: Blueprint, weighing: Weighing) -> NearModel {
        let counting = Counting::Plain(weighing);
        let (policy, size) = (self.policy, self.size);
        let near = Blueprint { policy, size, counting, expiry: Expiry::Lazy };
        let client = || Client { cache: near.build(), fetched: HashMap::new() };
        NearModel {
            question: *self,
            blueprint,
            alone: blueprint.build(),
            server: blueprint.build(),
            clients: (0..self.clients.max(1)).map(|_| client()).collect(),
            versions: HashMap::new(),
            counts: Counts::default(),
        }
    }
}

/// The server alone, and behind near caches.
pub(super) struct NearModel {
    question: Near,
    blueprint: Blueprint,
    alone: Replay,
    server: Replay,
    clients: Vec<Client>,
    /// How often the log changed each key that it changed.
    versions: HashMap<u64, u32>,
    counts: Counts,
}

struct Client {
    cache: Replay,
    /// The versions of what it fetched, where not the first.
    fetched: HashMap<u64, u32>,
}

#[derive(Default)]
struct Counts {
    requests: u64,
    reads: u64,
    near_hits: u64,
    stale_hits: u64,
    server_requests: u64,
}

/// The client that sends the `turn`th request.
fn client_of(turn: u64, clients: usize) -> usize {
    usize::try_from(mixed(KeyHash(turn)) % clients as u64).unwrap_or_default()
}

impl NearModel {
    /// The request as a near cache sees it.
    fn near_request(&self, request: &Request, op: Op) -> Request {
        let own_ttl_s = match self.blueprint.expiry {
            Expiry::Ignore => None,
            _ => Some(request.ttl_s).filter(|&ttl_s| ttl_s > 0),
        };
        let ttls = own_ttl_s.into_iter().chain(self.question.ttl_s);
        Request { op, ttl_s: ttls.min().unwrap_or(0), ..*request }
    }

    /// Whether a read is served by the client that sends it.
    fn is_near(&mut self, client: usize, request: &Request) -> bool {
        let asked = self.near_request(request, Op::Get);
        let Client { cache, fetched } = &mut self.clients[client];
        let key = request.key.0;
        let version = self.versions.get(&key).copied().unwrap_or(0);
        if cache.ask(&asked) == Some(true) {
            let is_stale = fetched.get(&key).copied().unwrap_or(0) != version;
            self.counts.near_hits += 1;
            self.counts.stale_hits += u64::from(is_stale);
            return true;
        }
        if version > 0 {
            fetched.insert(key, version);
        }
        false
    }

    /// What else is asked for: it goes to the server, and what it changes out of the client's own cache.
    fn pass_on(&mut self, client: usize, request: &Request) {
        if matches!(request.op, Op::Touch | Op::GetAndTouch) {
            return;
        }
        *self.versions.entry(request.key.0).or_insert(0) += 1;
        let dropped = self.near_request(request, Op::Delete);
        self.clients[client].cache.request(&dropped);
    }
}

impl Player for NearModel {
    fn request(&mut self, request: &Request) {
        let client = client_of(self.counts.requests, self.clients.len());
        self.counts.requests += 1;
        self.counts.reads += u64::from(request.op.is_read());
        self.alone.request(request);
        if request.op == Op::Get {
            if self.is_near(client, request) {
                return;
            }
        } else {
            self.pass_on(client, request);
        }
        self.counts.server_requests += 1;
        self.server.request(request);
    }
}

impl Model for NearModel {
    fn tell(&self, summary: &mut Table, _course: &mut Table) {
        let Near { size, policy, ttl_s, clients } = self.question;
        let (alone, server, counts) = (self.alone.tally(), self.server.tally(), &self.counts);
        summary.push(vec![
            Cell::name(self.blueprint.policy),
            Cell::Count(self.blueprint.size),
            Cell::name(policy),
            Cell::Count(size),
            Cell::Count(clients.into()),
            Cell::count(ttl_s.map(u64::from)),
            Cell::share(alone.hits, alone.requests),
            Cell::share(counts.near_hits + server.hits, counts.reads),
            Cell::share(counts.near_hits, counts.reads),
            Cell::share(server.hits, server.requests),
            Cell::share(counts.server_requests, counts.requests),
            Cell::Count(counts.stale_hits),
            Cell::share(counts.stale_hits, counts.reads),
            Cell::count(ttl_s.map(u64::from)),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::replay::Unit;
    use crate::what_if::textbook::{self, Textbook};

    proptest! {
        #[test]
        fn near_caches_are_textbook_caches_before_one(
            log in textbook::log(400),
            size in 1u64..60,
            near_size in 1u64..20,
            clients in 1u32..4,
            ttl_s in prop_oneof![Just(None), (1u32..60).prop_map(Some)],
        ) {
            let question = Near { size: near_size, policy: Kind::Lru, ttl_s, clients };
            let mut model = question.model(textbook::lru(size), Unit::Objects.into());
            log.iter().for_each(|request| model.request(request));

            let mut server = Textbook::new(size);
            let mut caches: Vec<LazyTextbook> =
                (0..clients).map(|_| LazyTextbook::new(near_size)).collect();
            let mut changes: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
            let (mut reads, mut near, mut stale, mut asked, mut hits) = (0, 0, 0, 0, 0);
            for (turn, request) in log.iter().enumerate() {
                let cache = &mut caches[client_of(turn as u64, clients as usize)];
                let key = request.key.0;
                if request.op == Op::Get {
                    reads += 1;
                    let ttls = [ttl_s, Some(request.ttl_s).filter(|&own| own > 0)];
                    let ttl_s = ttls.into_iter().flatten().min();
                    if let Some(fetched) = cache.get(key, request.time_s, ttl_s, turn) {
                        near += 1;
                        let changes = changes.get(&key).map_or(&[][..], Vec::as_slice);
                        stale += u64::from(changes.iter().any(|&changed| changed > fetched));
                        continue;
                    }
                } else {
                    changes.entry(key).or_default().push(turn);
                    cache.items.remove(&key);
                }
                asked += 1;
                hits += u64::from(server.ask(request) == Some(true));
            }
            let row = textbook::summary(&model, COLUMNS).remove(0);
            prop_assert_eq!(&row[7], &Cell::share(near + hits, reads));
            prop_assert_eq!(&row[8], &Cell::share(near, reads));
            prop_assert_eq!(&row[10], &Cell::share(asked, log.len() as u64));
            prop_assert_eq!(&row[11], &Cell::Count(stale));
        }
    }

    /// LRU that meets expired copies only when they are asked for.
    struct LazyTextbook {
        capacity: usize,
        /// When used, until when served, when fetched.
        items: BTreeMap<u64, (usize, u64, usize)>,
    }

    impl LazyTextbook {
        fn new(capacity: u64) -> Self {
            Self { capacity: usize::try_from(capacity).unwrap(), items: BTreeMap::new() }
        }

        /// When what is served was fetched; otherwise it is fetched now.
        fn get(&mut self, key: u64, now_s: u32, ttl_s: Option<u32>, turn: usize) -> Option<usize> {
            if let Some((used, until_s, fetched)) = self.items.get_mut(&key) {
                if *until_s > u64::from(now_s) {
                    *used = turn;
                    return Some(*fetched);
                }
                self.items.remove(&key);
            }
            if self.items.len() == self.capacity {
                let oldest = *self.items.iter().min_by_key(|(_, (used, ..))| *used).unwrap().0;
                self.items.remove(&oldest);
            }
            let until_s = ttl_s.map_or(u64::MAX, |ttl_s| u64::from(now_s) + u64::from(ttl_s));
            self.items.insert(key, (turn, until_s, turn));
            None
        }
    }
}
