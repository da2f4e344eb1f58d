//! Loads that cache-client carries, against our server in this process.

#![expect(clippy::unwrap_used, reason = "test helpers")]

use std::sync::Arc;
use std::time::Duration;

use benches::callers::Plan;
use benches::callers::load::{Extent, carry};
use benches::interrupt::Interrupt;
use benches::keyspace::{Keyspace, Popularity};
use benches::sessions::{self, Users};
use benches::value::Values;
use benches::wire::Dialect;
use benches::workload::Workload;
use cache_server::{Config, Listen, Server};

fn server(memory_mib: usize) -> Server {
    let memory_bytes = memory_mib << 20;
    let listen = vec![Listen::loopback(0)];
    Server::start(&Config { listen, memory_bytes, ..Config::default() }).unwrap()
}

fn plan(servers: &[&Server], duration: Option<Duration>) -> Plan {
    let address = |server: &&Server| server.address().unwrap().to_string().parse().unwrap();
    let mut config = cache_client::Config::new(servers.iter().map(address));
    config.timeout = Duration::from_secs(10);
    Plan {
        config,
        callers: 10,
        threads: 2,
        clients: 2,
        warm_up: Duration::ZERO,
        duration,
        cores: Vec::new(),
        server_pids: Vec::new(),
    }
}

fn workload(change: impl FnOnce(&mut Workload)) -> Arc<Workload> {
    let mut workload = Workload {
        keyspace: Keyspace::new(500, 16).unwrap(),
        popularity: Popularity::Uniform,
        value_bytes: 1..=2000,
        get_share: 1.0,
        keys_per_get: 1,
        dialect: Dialect::Text,
        fill: false,
        values: Values::new(),
        checks: true,
    };
    change(&mut workload);
    Arc::new(workload)
}

fn carried(plan: &Plan, workload: &Arc<Workload>, extent: Extent) -> benches::load::Outcome {
    carry(plan, workload, extent, &Interrupt::default(), |_| ()).unwrap()
}

#[test]
fn callers_find_what_they_have_stored_on_whichever_server() {
    let servers = [server(64), server(64)];
    let plan = plan(&servers.each_ref(), None);
    let filled = carried(&plan, &workload(|_| ()), Extent::Filling);
    assert_eq!((filled.tally.sets, filled.tally.refused), (500, 0));
    for keys_per_get in [1, 7] {
        let workload = workload(|workload| workload.keys_per_get = keys_per_get);
        let drawn = carried(&plan, &workload, Extent::Drawn { seed: 1, requests_max: 1000 });
        let tally = drawn.tally;
        assert_eq!((tally.gets, tally.hits), (1000, 1000 * keys_per_get as u64));
        assert_eq!((tally.misses, tally.wrong, tally.refused), (0, 0, 0));
    }
}

#[test]
fn what_is_missed_is_filled_in() {
    let server = server(64);
    let workload = workload(|workload| workload.fill = true);
    let drawn = Extent::Drawn { seed: 2, requests_max: 3000 };
    let outcome = carried(&plan(&[&server], None), &workload, drawn);
    assert_eq!(outcome.tally.gets, 3000);
    assert_eq!(outcome.tally.sets, outcome.tally.misses);
    assert!(outcome.tally.hits > outcome.tally.misses);
}

#[test]
fn calls_that_fail_are_counted_and_the_load_goes_on() {
    let (one, other) = (server(64), server(64));
    let mut plan = plan(&[&one, &other], None);
    plan.config.retry.attempts_max = 1;
    drop(other);
    let drawn = Extent::Drawn { seed: 3, requests_max: 500 };
    let tally = carried(&plan, &workload(|_| ()), drawn).tally;
    assert!(tally.refused > 0 && tally.gets > 0, "{} {}", tally.refused, tally.gets);
    assert_eq!(tally.refused + tally.gets, 500);
}

fn users() -> Users {
    Users {
        count: 300,
        ttl: Duration::from_secs(600),
        session_bytes: 100..=4000,
        write_share: 0.3,
        logout_share: 0.05,
        think: Duration::ZERO,
        locks: false,
        seed: 1,
    }
}

fn looked_at(plan: &Plan, users: &Users) -> sessions::Count {
    sessions::run(plan, users, &Interrupt::default(), |_| ()).unwrap().count
}

#[test]
fn sessions_that_are_kept_are_all_found_again() {
    let server = server(64);
    for locks in [false, true] {
        let plan = plan(&[&server], Some(Duration::from_millis(500)));
        // Others' sessions of the same names would be nobody's.
        let users = Users { locks, seed: u64::from(locks), ..users() };
        let count = looked_at(&plan, &users);
        assert!(count.pages > 0 && count.logins > 0, "{count:?}");
        assert_eq!((count.lost, count.stale, count.expired), (0, 0, 0));
        assert_eq!((count.calls.wrong, count.calls.refused), (0, 0), "{:?}", count.calls.samples);
    }
}

#[test]
fn sessions_that_a_server_has_no_room_for_are_counted_as_lost() {
    let server = server(4);
    let users = Users { count: 5000, session_bytes: 8000..=8000, logout_share: 0.0, ..users() };
    let count = looked_at(&plan(&[&server], Some(Duration::from_secs(2))), &users);
    assert!(count.lost > 0, "{count:?}");
    assert_eq!((count.stale, count.calls.wrong), (0, 0));
}

#[test]
fn a_workload_that_cannot_be_drawn_is_refused_before_anybody_calls() {
    let server = server(64);
    let popularity = Popularity::Zipf { exponent: f64::NAN };
    let workload = workload(|workload| workload.popularity = popularity);
    let drawn = Extent::Drawn { seed: 1, requests_max: 1 };
    let plan = plan(&[&server], None);
    assert!(carry(&plan, &workload, drawn, &Interrupt::default(), |_| ()).is_err());
}
