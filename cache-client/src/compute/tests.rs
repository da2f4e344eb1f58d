//! Facts of `get_or_compute`, over a cache in memory that behaves as memcached does, in paused time.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinSet;

use super::*;
use crate::Value;
use crate::codec::CodecError;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// How long a request takes.
const TRIP: Duration = MS;

/// A server of memcached's, as far as leases go.
#[derive(Debug, Default)]
struct Fake {
    items: Mutex<HashMap<Vec<u8>, Item>>,
    cas: AtomicU64,
    is_down: AtomicBool,
    lookups: AtomicU64,
}

#[derive(Debug)]
struct Item {
    data: Bytes,
    cas: u64,
    ends: Option<Instant>,
    is_stale: bool,
    win_sent: bool,
}

#[derive(Debug, PartialEq, Eq, Error)]
#[error("down")]
struct Down;

impl Fake {
    /// Runs `act` on the items that are alive, a trip from here.
    async fn serve<T>(
        &self,
        act: impl FnOnce(&mut HashMap<Vec<u8>, Item>) -> T,
    ) -> Result<T, Down> {
        sleep(TRIP).await;
        if self.is_down.load(Ordering::Relaxed) {
            return Err(Down);
        }
        let mut items = self.items.lock();
        items.retain(|_, item| item.ends.is_none_or(|ends| Instant::now() < ends));
        Ok(act(&mut items))
    }

    fn item(&self, data: Bytes, ttl: Option<Duration>) -> Item {
        let cas = self.cas.fetch_add(1, Ordering::Relaxed) + 1;
        let ends = ttl.map(|ttl| Instant::now() + ttl);
        Item { data, cas, ends, is_stale: false, win_sent: false }
    }

    fn evict(&self, key: &[u8]) {
        self.items.lock().remove(key);
    }
}

impl Store for Arc<Fake> {
    type Error = Down;

    async fn lookup(
        &self,
        key: &[u8],
        vivify: Option<Duration>,
        recache: Option<Duration>,
    ) -> Result<Option<Found>, Down> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        self.serve(|items| {
            if let Some(ttl) = vivify
                && !items.contains_key(key)
            {
                let item = Item { win_sent: true, ..self.item(Bytes::new(), Some(ttl)) };
                let value = Value { cas: Some(item.cas), ..Value::default() };
                let found = Found { value, won: true, ..Found::default() };
                items.insert(key.to_vec(), item);
                return Some(found);
            }
            let item = items.get_mut(key)?;
            let left = item.ends.map(|ends| ends - Instant::now());
            let is_due =
                item.is_stale || recache.is_some_and(|below| left.is_some_and(|left| left < below));
            let won = is_due && !item.win_sent;
            item.win_sent |= won;
            let value = Value { data: item.data.clone(), cas: Some(item.cas), flags: 0 };
            let ttl_s = left.map(|left| u32::try_from(left.as_secs()).unwrap());
            Some(Found { value, ttl_s, won, ..Found::default() })
        })
        .await
    }

    async fn cas(&self, key: &[u8], data: Bytes, ttl: Duration, cas: u64) -> Result<bool, Down> {
        self.serve(|items| {
            let is_same = items.get(key).is_some_and(|item| item.cas == cas);
            if is_same {
                items.insert(key.to_vec(), self.item(data, Some(ttl)));
            }
            is_same
        })
        .await
    }

    async fn invalidate(&self, key: &[u8]) -> Result<bool, Down> {
        self.serve(|items| {
            let Some(item) = items.get_mut(key) else { return false };
            item.cas = self.cas.fetch_add(1, Ordering::Relaxed) + 1;
            (item.is_stale, item.win_sent) = (true, false);
            true
        })
        .await
    }

    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, Down> {
        self.serve(|items| {
            keys.iter().map(|key| items.get(key).map(|item| item.data.clone())).collect()
        })
        .await
    }

    async fn add(&self, key: &[u8], data: Bytes) -> Result<bool, Down> {
        self.serve(|items| {
            let is_new = !items.contains_key(key);
            if is_new {
                items.insert(key.to_vec(), self.item(data, None));
            }
            is_new
        })
        .await
    }

    async fn incr(&self, key: &[u8], delta: u64) -> Result<Option<u64>, Down> {
        self.serve(|items| {
            let item = items.get_mut(key)?;
            let number = generation::parse(&item.data)?.wrapping_add(delta);
            item.data = Bytes::from(number.to_string());
            Some(number)
        })
        .await
    }
}

type Process<E = String> = Arc<Cached<Arc<Fake>, E>>;

/// Processes that share a cache, and the count of computations in all of them.
struct World {
    fake: Arc<Fake>,
    processes: Vec<Process>,
    computed: Arc<AtomicU64>,
}

impl World {
    fn new(processes: u64) -> Self {
        let fake = Arc::new(Fake::default());
        let process = |seed| Arc::new(Cached::new(Arc::clone(&fake), seed));
        let processes = (0..processes).map(process).collect();
        Self { fake, processes, computed: Arc::default() }
    }

    fn computed(&self) -> u64 {
        self.computed.load(Ordering::Relaxed)
    }

    /// A call in one process whose computation takes so long and gives which computation it was.
    fn call(
        &self,
        process: usize,
        policy: Policy,
        takes: Duration,
    ) -> impl Future<Output = Result<String, String>> + Send + 'static {
        let (process, computed) =
            (Arc::clone(&self.processes[process]), Arc::clone(&self.computed));
        async move {
            let compute = || async {
                sleep(takes).await;
                Ok(Some(Bytes::from(nth(&computed))))
            };
            let got = process.get_or_compute(b"k", &policy, compute).await;
            got.map(text).map_err(|error| error.to_string())
        }
    }
}

fn nth(computed: &AtomicU64) -> String {
    (computed.fetch_add(1, Ordering::Relaxed) + 1).to_string()
}

fn text(value: Option<Bytes>) -> String {
    value.map_or_else(|| "none".into(), |value| String::from_utf8(value.to_vec()).unwrap())
}

/// Without what is drawn.
fn policy() -> Policy {
    Policy { early: 0.0, ..Policy::default() }
}

#[tokio::test(start_paused = true)]
async fn a_value_is_computed_once_and_then_found() {
    let world = World::new(2);
    assert_eq!(world.call(0, policy(), 100 * MS).await, Ok("1".into()));
    assert_eq!(world.call(0, policy(), 100 * MS).await, Ok("1".into()));
    assert_eq!(world.call(1, policy(), 100 * MS).await, Ok("1".into()));
    sleep(61 * SECOND).await;
    assert_eq!(world.call(1, policy(), 100 * MS).await, Ok("2".into()));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_of_an_expired_key_cause_one_computation_and_wait_for_it_and_no_more() {
    let world = World::new(1);
    world.call(0, policy(), 100 * MS).await.unwrap();
    sleep(61 * SECOND).await;
    let began = Instant::now();
    let mut calls = JoinSet::new();
    (0..1000).for_each(|_| drop(calls.spawn(world.call(0, policy(), 100 * MS))));
    for got in calls.join_all().await {
        assert_eq!(got, Ok("2".into()));
    }
    assert_eq!(world.computed(), 2);
    // The computation, and a trip each to look and to store.
    assert!(began.elapsed() <= 110 * MS, "{:?}", began.elapsed());
    assert_eq!(world.processes[0].flights.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn callers_of_four_processes_cause_one_computation_and_wait_a_tenth_longer_at_most() {
    let world = World::new(4);
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for n in 0..1000 {
        calls.spawn(world.call(n % 4, policy(), 500 * MS));
    }
    for got in calls.join_all().await {
        assert_eq!(got, Ok("1".into()));
    }
    assert_eq!(world.computed(), 1);
    assert!(began.elapsed() <= 550 * MS, "{:?}", began.elapsed());
    assert!(world.fake.lookups.load(Ordering::Relaxed) < 400, "waiters do not flood the cache");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_goes_away_hands_over_to_who_waits() {
    let world = World::new(1);
    let leader = tokio::spawn(world.call(0, policy(), SECOND));
    sleep(10 * MS).await;
    let waiter = tokio::spawn(world.call(0, policy(), 100 * MS));
    sleep(10 * MS).await;
    leader.abort();
    let began = Instant::now();
    assert_eq!(waiter.await.unwrap(), Ok("1".into()));
    assert!(began.elapsed() < 110 * MS, "the lease is handed over too: {:?}", began.elapsed());
    // And what it computed is stored.
    assert_eq!(world.call(0, policy(), SECOND).await, Ok("1".into()));
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_winner_went_away_alone_is_the_next_callers() {
    let world = World::new(1);
    let leader = tokio::spawn(world.call(0, policy(), SECOND));
    sleep(10 * MS).await;
    leader.abort();
    assert!(leader.await.is_err());
    let began = Instant::now();
    assert_eq!(world.call(0, policy(), 100 * MS).await, Ok("1".into()));
    assert!(began.elapsed() < 110 * MS, "{:?}", began.elapsed());
    assert_eq!(world.processes[0].flights.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_whose_renewal_was_given_up_is_renewed_by_the_next_caller() {
    let world = World::new(1);
    world.call(0, policy(), MS).await.unwrap();
    world.processes[0].invalidate(b"k").await.unwrap();
    let renewing = tokio::spawn(world.call(0, policy(), SECOND));
    sleep(10 * MS).await;
    renewing.abort();
    assert!(renewing.await.is_err());
    assert_eq!(world.call(0, policy(), MS).await, Ok("2".into()));
    assert_eq!(world.processes[0].flights.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_holds_up_the_others_for_its_lease() {
    let world = World::new(2);
    let policy = Policy { lease: 3 * SECOND, ..policy() };
    let dead = tokio::spawn(world.call(0, policy, SECOND));
    sleep(10 * MS).await;
    dead.abort();
    let began = Instant::now();
    assert_eq!(world.call(1, policy, 100 * MS).await, Ok("1".into()));
    assert!((3 * SECOND - 10 * MS..4 * SECOND).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_is_served_to_all_but_the_one_who_computes_it_anew() {
    let world = World::new(2);
    let policy = Policy { stale: 30 * SECOND, ..policy() };
    world.call(0, policy, 100 * MS).await.unwrap();
    sleep(61 * SECOND).await;
    let renewing = tokio::spawn(world.call(0, policy, 100 * MS));
    sleep(10 * MS).await;
    let began = Instant::now();
    assert_eq!(world.call(0, policy, 100 * MS).await, Ok("1".into()));
    assert_eq!(world.call(1, policy, 100 * MS).await, Ok("1".into()));
    assert!(began.elapsed() < 10 * MS, "nobody waits");
    assert_eq!(renewing.await.unwrap(), Ok("2".into()));
    assert_eq!(world.call(1, policy, 100 * MS).await, Ok("2".into()));
    assert_eq!(world.computed(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_read_often_is_renewed_before_it_ends_by_one_caller_at_a_time() {
    let world = World::new(4);
    let policy = Policy { early: 1.0, ..Policy::default() };
    world.call(0, policy, 2 * SECOND).await.unwrap();
    // Ten minutes of a reader a process and 50 ms. None ever waits but the one that renews.
    let mut readers = JoinSet::new();
    for process in 0..4 {
        let world = World {
            fake: Arc::clone(&world.fake),
            processes: world.processes.clone(),
            computed: Arc::clone(&world.computed),
        };
        readers.spawn(async move {
            let mut waited = 0;
            for _ in 0..12_000 {
                let began = Instant::now();
                world.call(process, policy, 2 * SECOND).await.unwrap();
                waited += u64::from(began.elapsed() > SECOND);
                sleep(50 * MS).await;
            }
            waited
        });
    }
    let waited: u64 = readers.join_all().await.into_iter().sum();
    let renewals = world.computed() - 1;
    assert_eq!(waited, renewals, "only who renews waits");
    assert!((10..=14).contains(&renewals), "{renewals} in ten minutes of lives of one");
}

#[tokio::test(start_paused = true)]
async fn that_there_is_none_is_remembered() {
    let world = World::new(1);
    let policy = Policy { absent: 5 * SECOND, ..policy() };
    let call = || async {
        let compute = || async {
            nth(&world.computed);
            Ok(None)
        };
        world.processes[0].get_or_compute(b"k", &policy, compute).await.map(text).unwrap()
    };
    assert_eq!(call().await, "none");
    assert_eq!(call().await, "none");
    assert_eq!(world.computed(), 1);
    sleep(6 * SECOND).await;
    assert_eq!(call().await, "none");
    assert_eq!(world.computed(), 2);
}

#[tokio::test(start_paused = true)]
async fn where_it_is_not_to_be_remembered_it_is_not() {
    let world = World::new(2);
    for (n, process) in world.processes.iter().enumerate() {
        let began = Instant::now();
        let compute = || async {
            nth(&world.computed);
            Ok(None)
        };
        assert_eq!(process.get_or_compute(b"k", &policy(), compute).await.unwrap(), None);
        assert_eq!(world.computed(), n as u64 + 1);
        assert!(began.elapsed() < 10 * MS, "the lease was given back");
    }
}

/// Starts three callers whose computations fail with their number, and returns what each got.
async fn failures(on_error: OnError) -> (Vec<String>, u64) {
    let world = World::new(1);
    let mut calls = Vec::new();
    for _ in 0..3 {
        let process = Arc::clone(&world.processes[0]);
        let computed = Arc::clone(&world.computed);
        let policy = Policy { on_error, ..policy() };
        calls.push(tokio::spawn(async move {
            let compute = || async {
                sleep(10 * MS).await;
                Err(nth(&computed))
            };
            process.get_or_compute(b"k", &policy, compute).await.unwrap_err().0.to_string()
        }));
    }
    let mut got = Vec::new();
    for call in calls {
        got.push(call.await.unwrap());
    }
    assert_eq!(world.processes[0].flights.len(), 0);
    // Nobody has to wait for a lease.
    let began = Instant::now();
    assert!(world.call(0, policy(), MS).await.is_ok());
    assert!(began.elapsed() < 10 * MS);
    (got, world.computed())
}

#[tokio::test(start_paused = true)]
async fn an_error_is_shared() {
    let (got, computed) = failures(OnError::Share).await;
    assert_eq!((got, computed), (vec!["1".into(); 3], 2));
}

#[tokio::test(start_paused = true)]
async fn an_error_is_retried_by_so_many_and_then_shared() {
    let (got, computed) = failures(OnError::Retry { attempts_max: 2 }).await;
    assert_eq!((got, computed), (vec!["1".into(), "2".into(), "2".into()], 3));
}

#[tokio::test(start_paused = true)]
async fn when_the_new_value_cannot_be_computed_the_old_one_is_served_and_it_is_tried_again() {
    let world = World::new(1);
    let policy = Policy { stale: 30 * SECOND, ..policy() };
    world.call(0, policy, MS).await.unwrap();
    sleep(61 * SECOND).await;
    let compute = || async { Err("no database".to_owned()) };
    let got = world.processes[0].get_or_compute(b"k", &policy, compute).await;
    assert_eq!(got.map(text).unwrap(), "1");
    assert_eq!(world.call(0, policy, MS).await, Ok("2".into()));
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_down_is_a_miss_and_a_process_still_computes_once_at_a_time() {
    let world = World::new(1);
    world.fake.is_down.store(true, Ordering::Relaxed);
    let mut calls = JoinSet::new();
    (0..100).for_each(|_| drop(calls.spawn(world.call(0, policy(), 100 * MS))));
    for got in calls.join_all().await {
        assert_eq!(got, Ok("1".into()));
    }
    assert_eq!(world.call(0, policy(), 100 * MS).await, Ok("2".into()));
}

#[tokio::test(start_paused = true)]
async fn what_was_written_while_a_value_was_computed_is_not_overwritten() {
    let world = World::new(1);
    let call = tokio::spawn(world.call(0, policy(), 100 * MS));
    sleep(50 * MS).await;
    world.fake.evict(b"k");
    let newer = Envelope { value: Some("newer".into()), took: MS, tags: 0 }.encode();
    world.fake.add(b"k", newer).await.unwrap();
    assert_eq!(call.await.unwrap(), Ok("1".into()));
    assert_eq!(world.call(0, policy(), MS).await, Ok("newer".into()));
}

#[tokio::test(start_paused = true)]
async fn what_others_stored_under_the_key_is_computed_anew() {
    let world = World::new(1);
    world.fake.add(b"k", Bytes::from_static(b"no envelope")).await.unwrap();
    let began = Instant::now();
    assert_eq!(world.call(0, policy(), MS).await, Ok("1".into()));
    assert!(began.elapsed() < 10 * MS);
    assert_eq!(world.call(0, policy(), MS).await, Ok("1".into()));
}

#[tokio::test(start_paused = true)]
async fn an_invalidated_value_is_computed_anew_by_one_and_served_to_the_others() {
    let world = World::new(2);
    world.call(0, policy(), MS).await.unwrap();
    assert_eq!(world.processes[1].invalidate(b"k").await, Ok(true));
    let renewing = tokio::spawn(world.call(0, policy(), 100 * MS));
    sleep(10 * MS).await;
    assert_eq!(world.call(1, policy(), MS).await, Ok("1".into()));
    assert_eq!(renewing.await.unwrap(), Ok("2".into()));
}

async fn tagged(world: &World, process: usize, tags: &[&[u8]]) -> String {
    let compute = || async {
        sleep(100 * MS).await;
        Ok(Some(Bytes::from(nth(&world.computed))))
    };
    let process = &world.processes[process];
    process.get_or_compute_tagged(b"k", tags, &policy(), compute).await.map(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_value_is_invalid_once_any_of_its_tags_is() {
    let world = World::new(2);
    let tags: [&[u8]; 2] = [b"user:1", b"prices"];
    for (n, tag) in tags.iter().enumerate() {
        assert_eq!(tagged(&world, 0, &tags).await, (n + 1).to_string());
        assert_eq!(tagged(&world, 1, &tags).await, (n + 1).to_string());
        world.processes[1].invalidate_tag(tag).await.unwrap();
    }
    assert_eq!(tagged(&world, 0, &tags).await, "3");
    world.processes[0].invalidate_tag(b"another").await.unwrap();
    assert_eq!(tagged(&world, 1, &tags).await, "3");
}

#[tokio::test(start_paused = true)]
async fn callers_of_an_invalid_value_cause_one_computation_too() {
    let world = Arc::new(World::new(4));
    tagged(&world, 0, &[b"t"]).await;
    world.processes[0].invalidate_tag(b"t").await.unwrap();
    let mut calls = JoinSet::new();
    for n in 0..100 {
        let world = Arc::clone(&world);
        calls.spawn(async move { tagged(&world, n % 4, &[b"t"]).await });
    }
    for got in calls.join_all().await {
        assert_eq!(got, "2");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tag_invalidated_while_a_value_is_computed_makes_it_invalid() {
    let world = Arc::new(World::new(1));
    let computing = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { tagged(&world, 0, &[b"t"]).await })
    };
    sleep(50 * MS).await;
    world.processes[0].invalidate_tag(b"t").await.unwrap();
    assert_eq!(computing.await.unwrap(), "1");
    assert_eq!(tagged(&world, 0, &[b"t"]).await, "2");
}

#[tokio::test(start_paused = true)]
async fn a_tag_that_was_evicted_makes_values_invalid_and_never_valid() {
    let world = World::new(1);
    assert_eq!(tagged(&world, 0, &[b"t"]).await, "1");
    world.processes[0].invalidate_tag(b"t").await.unwrap();
    world.fake.evict(b"tag:t");
    assert_eq!(tagged(&world, 0, &[b"t"]).await, "2");
    assert_eq!(tagged(&world, 0, &[b"t"]).await, "2");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_is_emptied_by_one_request() {
    let fake = Arc::new(Fake::default());
    let (ours, theirs) = (Namespace::new("shop", SECOND, 1), Namespace::new("shop", SECOND, 2));
    let before = ours.key(&fake, b"a").await.unwrap();
    assert_eq!(theirs.key(&fake, b"a").await, Ok(before.clone()));
    ours.invalidate(&fake).await.unwrap();
    let after = ours.key(&fake, b"a").await.unwrap();
    assert_ne!(after, before);
    // The other learns of it within what it was told to.
    assert_eq!(theirs.key(&fake, b"a").await, Ok(before));
    sleep(SECOND).await;
    assert_eq!(theirs.key(&fake, b"a").await, Ok(after));
}

#[tokio::test(start_paused = true)]
async fn a_namespace_whose_number_was_evicted_is_empty() {
    let fake = Arc::new(Fake::default());
    let names = Namespace::new("shop", Duration::ZERO, 1);
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(names.key(&fake, b"a").await.unwrap());
        fake.evict(b"generation:shop");
    }
    names.invalidate(&fake).await.unwrap();
    seen.push(names.key(&fake, b"a").await.unwrap());
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count);
    assert_eq!(seen[0].len(), "shop".len() + 18 + 1);
}

#[test]
fn errors_are_shared_without_being_cloned() {
    let error: ComputeError<&str> = ComputeError(Arc::new("no database"));
    assert_eq!(error.clone().to_string(), "the value could not be computed: no database");
    let _: fn(Cached<Arc<Fake>, Infallible>) = drop;
}

/// Why a typed value was not computed.
#[derive(Debug, PartialEq, Eq, Error)]
enum NotComputed {
    #[error(transparent)]
    Codec(#[from] CodecError),
}

type Typed = Cached<Arc<Fake>, NotComputed>;

async fn get_number(process: &Typed, number: u64) -> Result<Option<u64>, String> {
    let compute = || async { Ok(Some(number)) };
    let got = process.get_or_compute_as(b"k", &policy(), compute).await;
    got.map_err(|error| error.0.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_typed_value_is_computed_once_and_then_found() {
    let fake = Arc::new(Fake::default());
    let [one, other] = [1, 2].map(|seed| Typed::new(Arc::clone(&fake), seed));
    assert_eq!(get_number(&one, 1).await, Ok(Some(1)));
    assert_eq!(get_number(&one, 2).await, Ok(Some(1)));
    assert_eq!(get_number(&other, 3).await, Ok(Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_value_of_another_kind_counts_as_missing_and_is_overwritten() {
    let fake = Arc::new(Fake::default());
    let [one, other] = [1, 2].map(|seed| Typed::new(Arc::clone(&fake), seed));
    let compute = || async { Ok(Some(("a name".to_owned(), [1.5f64; 4]))) };
    one.get_or_compute_as(b"k", &policy(), compute).await.unwrap().expect("it was computed");
    assert_eq!(get_number(&other, 3).await, Ok(Some(3)));
    assert_eq!(get_number(&one, 4).await, Ok(Some(3)));
}

#[tokio::test(start_paused = true)]
async fn a_typed_value_that_is_too_long_is_an_error_and_not_stored() {
    let codec = Codec { value_bytes_max: 4, ..Codec::default() };
    let process = Typed::new(Arc::new(Fake::default()), 1).with_codec(codec);
    let long = || async { Ok(Some("much too long".to_owned())) };
    let refused = process.get_or_compute_as(b"k", &policy(), long).await.unwrap_err();
    assert_eq!(*refused.0, NotComputed::Codec(CodecError::TooLarge { bytes_max: 4 }));
    assert_eq!(get_number(&process, 5).await, Ok(Some(5)));
}
