//! Sessions and locks, beside a cache that fails where it hurts.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tower_sessions_core::SessionStore as _;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store::Error as StoreError;

use super::fake::{Cache, Mishap};
use super::{LockConfig, LockError, Locks, Sessions, SessionsConfig};
use crate::clock;

/// Far more than anything here may take: it only ends a test that hangs.
const LIMIT: Duration = Duration::from_secs(30);
const MS: Duration = Duration::from_millis(1);

fn record(life: Duration) -> Record {
    let data = [("user".to_owned(), "alice".into()), ("cart".to_owned(), 17.into())];
    let expiry_date = (clock::now() + life).into();
    Record { id: Id::default(), data: data.into(), expiry_date }
}

fn hour() -> Record {
    record(Duration::from_secs(3600))
}

async fn sessions(cache: &Cache, change: impl FnOnce(&mut SessionsConfig)) -> Sessions {
    let mut config = SessionsConfig::default();
    change(&mut config);
    Sessions::with_config(cache.client().await, config)
}

#[tokio::test]
async fn a_session_is_read_as_it_was_written_until_it_is_deleted() {
    let cache = Cache::default();
    let store = sessions(&cache, |_| {}).await;
    let mut record = hour();
    store.create(&mut record).await.unwrap();
    assert_eq!(store.load(&record.id).await.unwrap(), Some(record.clone()));

    record.data.insert("cart".into(), 18.into());
    store.save(&record).await.unwrap();
    assert_eq!(store.load(&record.id).await.unwrap(), Some(record.clone()));

    store.delete(&record.id).await.unwrap();
    assert_eq!(store.load(&record.id).await.unwrap(), None);
    store.delete(&record.id).await.unwrap();
}

#[tokio::test]
async fn an_id_that_is_taken_is_drawn_anew() {
    let cache = Cache::default();
    let store = sessions(&cache, |_| {}).await;
    let mut first = hour();
    store.create(&mut first).await.unwrap();
    let mut second = Record { id: first.id, ..hour() };
    store.create(&mut second).await.unwrap();
    assert_ne!(first.id, second.id);
    assert_eq!(store.load(&first.id).await.unwrap(), Some(first));
    assert_eq!(store.load(&second.id).await.unwrap(), Some(second));
}

#[tokio::test]
async fn an_outage_is_an_error_and_no_missing_session() {
    let cache = Cache::default();
    let client = cache.client_with(|config| config.fail_soft = true).await;
    let store = Sessions::new(client);
    let mut record = hour();
    store.create(&mut record).await.unwrap();
    cache.set_down(true);
    assert!(matches!(store.load(&record.id).await, Err(StoreError::Backend(_))));
    assert!(matches!(store.save(&record).await, Err(StoreError::Backend(_))));
    assert!(matches!(store.create(&mut hour()).await, Err(StoreError::Backend(_))));
    assert!(matches!(store.delete(&record.id).await, Err(StoreError::Backend(_))));
}

#[tokio::test]
async fn an_outage_is_a_missing_session_for_those_who_want_it_so() {
    let cache = Cache::default();
    let store = sessions(&cache, |config| config.fail_soft = true).await;
    cache.set_down(true);
    let mut record = hour();
    store.create(&mut record).await.unwrap();
    store.save(&record).await.unwrap();
    assert_eq!(store.load(&record.id).await.unwrap(), None);
    // A logout that has not happened is never passed over.
    assert!(store.delete(&record.id).await.is_err());
}

#[tokio::test]
async fn a_session_that_is_no_session_is_an_error() {
    let cache = Cache::default();
    let store = sessions(&cache, |config| config.fail_soft = true).await;
    let mut record = hour();
    store.create(&mut record).await.unwrap();
    cache.tamper(b"{\"life_s\":1,\"record\":");
    assert!(matches!(store.load(&record.id).await, Err(StoreError::Decode(_))));
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_made_again_under_another_id() {
    let cache = Cache::default();
    let store = sessions(&cache, |_| {}).await;
    cache.fail_next("ms", Mishap::AnswerLost);
    let mut record = hour();
    let drawn = record.id;
    store.create(&mut record).await.unwrap();
    assert_ne!(record.id, drawn);
    assert_eq!(store.load(&record.id).await.unwrap(), Some(record));
}

#[tokio::test]
async fn a_save_whose_answer_was_lost_is_made_again() {
    let cache = Cache::default();
    let store = sessions(&cache, |_| {}).await;
    let mut record = hour();
    store.create(&mut record).await.unwrap();
    for mishap in [Mishap::AnswerLost, Mishap::RequestLost] {
        cache.fail_next("ms", mishap);
        store.save(&record).await.unwrap();
    }
}

#[tokio::test]
async fn a_save_does_not_bring_back_who_has_logged_out() {
    let cache = Cache::default();
    let store = sessions(&cache, |_| {}).await;
    let mut record = hour();
    store.create(&mut record).await.unwrap();
    store.delete(&record.id).await.unwrap();
    assert!(matches!(store.save(&record).await, Err(StoreError::Backend(_))));
    assert_eq!(store.load(&record.id).await.unwrap(), None);

    let in_front_of_another = sessions(&cache, |config| config.may_revive = true).await;
    in_front_of_another.save(&record).await.unwrap();
    assert_eq!(store.load(&record.id).await.unwrap(), Some(record));
}

#[tokio::test]
async fn a_session_ends_when_its_record_does() {
    let cache = Cache::default();
    let store = sessions(&cache, |_| {}).await;
    let mut short = record(300 * MS);
    store.create(&mut short).await.unwrap();
    assert!(store.load(&short.id).await.unwrap().is_some());
    sleep(310 * MS).await;
    // The cache keeps it for a whole second.
    assert_eq!(cache.keys(), [store.key(&short.id)]);
    assert_eq!(store.load(&short.id).await.unwrap(), None);

    let mut record = hour();
    store.create(&mut record).await.unwrap();
    record.expiry_date = (clock::now() - MS).into();
    store.save(&record).await.unwrap();
    assert!(!cache.keys().contains(&store.key(&record.id)));
}

#[tokio::test]
async fn a_session_that_is_read_late_in_its_life_lives_on_and_early_costs_no_write() {
    let cache = Cache::default();
    let store = sessions(&cache, |config| config.touch_below = Some(0.6)).await;
    let mut record = record(Duration::from_secs(10));
    store.create(&mut record).await.unwrap();
    let saved = record.expiry_date;
    for _ in 0..3 {
        let read = store.load(&record.id).await.unwrap().unwrap();
        assert!(read.expiry_date <= saved);
        assert_eq!(read.data, record.data);
    }
    let touches = |cache: &Cache| cache.asked("mg") - cache.asked_with("mg", " t ");
    assert_eq!(touches(&cache), 0);
    cache.age(Duration::from_secs(5));
    let read = store.load(&record.id).await.unwrap().unwrap();
    assert_eq!(touches(&cache), 1);
    assert!(read.expiry_date >= saved - Duration::from_secs(2), "its whole life once more");
    cache.age(Duration::from_secs(2));
    assert!(store.load(&record.id).await.unwrap().is_some());
    assert_eq!(touches(&cache), 1, "of which there is enough left");
}

#[tokio::test]
async fn a_touch_that_fails_takes_no_session_away() {
    let cache = Cache::default();
    let store = sessions(&cache, |config| config.touch_below = Some(1.0)).await;
    let mut record = record(Duration::from_secs(10));
    store.create(&mut record).await.unwrap();
    cache.age(Duration::from_secs(2));
    cache.fail_next(&format!("mg {} T", store.key(&record.id)), Mishap::RequestLost);
    let read = store.load(&record.id).await.unwrap();
    assert_eq!(read.map(|read| read.data), Some(record.data));
}

async fn locks(cache: &Cache, lease: Duration, wait: Duration) -> Locks {
    let config = LockConfig { lease, wait, ..LockConfig::default() };
    Locks::with_config(cache.client().await, config)
}

#[tokio::test]
async fn a_lock_is_one_holder_s_until_it_is_released() {
    let cache = Cache::default();
    let here = locks(&cache, 1000 * MS, 50 * MS).await;
    let there = locks(&cache, 1000 * MS, LIMIT).await;
    let lock = here.lock("a").await.unwrap();
    assert!(matches!(here.lock("a").await, Err(LockError::Busy { .. })));
    assert!(here.lock("b").await.is_ok(), "another name is another lock");

    let waits = tokio::spawn(async move { there.lock("a").await });
    sleep(100 * MS).await;
    assert!(!waits.is_finished() && lock.check().is_ok());
    lock.release().await.unwrap();
    let taken = timeout(LIMIT, waits).await.unwrap().unwrap().unwrap();
    assert!(taken.is_held());
}

#[tokio::test]
async fn a_guard_that_is_dropped_gives_the_lock_back() {
    let cache = Cache::default();
    let locks = locks(&cache, LIMIT * 2, LIMIT).await;
    drop(locks.lock("a").await.unwrap());
    let _lock = timeout(LIMIT, locks.lock("a")).await.expect("long before its lease ends").unwrap();
}

#[tokio::test]
async fn a_request_that_is_given_up_while_it_waits_or_holds_leaves_no_lock() {
    let cache = Cache::default();
    let locks = locks(&cache, LIMIT * 2, LIMIT).await;
    let held = locks.lock("a").await.unwrap();
    for patience in [0, 1, 5, 30] {
        assert!(timeout(patience * MS, locks.lock("a")).await.is_err());
    }
    let holder = tokio::spawn({
        let locks = locks.clone();
        async move {
            let _lock = locks.lock("a").await.unwrap();
            std::future::pending::<()>().await;
        }
    });
    held.release().await.unwrap();
    while !cache.keys().iter().any(|key| key.ends_with('a')) {
        sleep(MS).await;
    }
    holder.abort();
    let _lock = timeout(LIMIT, locks.lock("a")).await.expect("long before its lease ends").unwrap();
}

#[tokio::test]
async fn a_lock_outlives_its_lease_while_it_is_held() {
    let cache = Cache::default();
    let locks = locks(&cache, 300 * MS, Duration::ZERO).await;
    let lock = locks.lock("a").await.unwrap();
    for _ in 0..20 {
        sleep(100 * MS).await;
        lock.check().unwrap();
        assert!(matches!(locks.lock("a").await, Err(LockError::Busy { .. })));
    }
    lock.release().await.unwrap();
}

#[tokio::test]
async fn a_lock_whose_holder_died_is_taken_after_its_lease() {
    let cache = Cache::default();
    let locks = locks(&cache, 1000 * MS, LIMIT).await;
    // Another process's, which says nothing any more.
    let dead = cache.client().await;
    dead.add("session:lock:a", "another token", Duration::from_secs(2)).await.unwrap();
    let began = Instant::now();
    let lock = timeout(LIMIT, locks.lock("a")).await.unwrap().unwrap();
    assert!(began.elapsed() > 1500 * MS, "not before");
    assert!(lock.is_held());
}

#[tokio::test]
async fn a_lock_whose_item_is_gone_or_another_s_is_lost_and_left_alone() {
    for is_taken in [false, true] {
        let cache = Cache::default();
        let locks = locks(&cache, 300 * MS, Duration::ZERO).await;
        let lock = locks.lock("a").await.unwrap();
        cache.forget();
        if is_taken {
            let other = cache.client().await;
            other.add("session:lock:a", "another token", LIMIT).await.unwrap();
        }
        timeout(LIMIT, lock.lost()).await.unwrap();
        assert!(matches!(lock.check(), Err(LockError::Lost)));
        assert!(matches!(lock.release().await, Err(LockError::Lost)));
        assert_eq!(cache.keys().len(), usize::from(is_taken), "what is another's stays");
    }
}

#[tokio::test]
async fn a_lock_that_cannot_be_renewed_is_not_believed_in_beyond_its_lease() {
    let cache = Cache::default();
    let locks = locks(&cache, 300 * MS, Duration::ZERO).await;
    let lock = locks.lock("a").await.unwrap();
    cache.set_down(true);
    timeout(LIMIT, lock.lost()).await.unwrap();
    assert!(!lock.is_held());
}

#[tokio::test]
async fn a_renewal_that_fails_is_made_again() {
    let cache = Cache::default();
    let locks = locks(&cache, 1000 * MS, Duration::ZERO).await;
    let lock = locks.lock("a").await.unwrap();
    for (command, mishap) in [("mg", Mishap::RequestLost), ("ms", Mishap::AnswerLost)] {
        cache.fail_next(command, mishap);
        sleep(1200 * MS).await;
        lock.check().unwrap();
    }
    lock.release().await.unwrap();
}

#[tokio::test]
async fn a_lock_whose_answer_was_lost_is_known_again() {
    let cache = Cache::default();
    let locks = locks(&cache, LIMIT, LIMIT / 2).await;
    cache.fail_next("ms", Mishap::AnswerLost);
    let lock = timeout(LIMIT / 3, locks.lock("a")).await.unwrap().unwrap();
    assert!(lock.is_held());
    cache.fail_next("ms", Mishap::AnswerLost);
    lock.release().await.unwrap();
    assert!(cache.keys().is_empty());
}

#[tokio::test]
async fn a_cache_that_does_not_answer_is_not_a_lock_that_is_held() {
    let cache = Cache::default();
    let locks = locks(&cache, 1000 * MS, 100 * MS).await;
    cache.set_down(true);
    let error = timeout(LIMIT, locks.lock("a")).await.unwrap().unwrap_err();
    assert!(matches!(error, LockError::Cache(_)), "{error:?}");
}

#[tokio::test]
async fn of_many_who_count_under_a_lock_no_count_is_lost() {
    let cache = Cache::default();
    let store = sessions(&cache, |_| {}).await;
    let mut record = hour();
    record.data.insert("count".into(), 0.into());
    store.create(&mut record).await.unwrap();
    let id = record.id;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (store, locks) = (store.clone(), locks(&cache, LIMIT, LIMIT).await);
        tasks.spawn(async move {
            for _ in 0..5 {
                let lock = locks.lock(id).await.unwrap();
                let mut record = store.load(&id).await.unwrap().unwrap();
                let count = record.data["count"].as_u64().unwrap();
                tokio::task::yield_now().await;
                record.data.insert("count".into(), (count + 1).into());
                lock.check().unwrap();
                store.save(&record).await.unwrap();
            }
        });
    }
    timeout(LIMIT, tasks.join_all()).await.unwrap();
    assert_eq!(store.load(&id).await.unwrap().unwrap().data["count"], 40);
}
