//! Facts of routing: what libmemcached answered, what moves, and how even it is.

use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

/// Made by asking libmemcached; `tests/clients/php/servers_of_keys.php` is how.
const ANSWERS: &str = include_str!("libmemcached.txt");

fn fleet(names: &[&str]) -> Vec<Server> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn equals(count: u32) -> Vec<Server> {
    (1..=count).map(|n| Server::new(format!("10.0.0.{n}"), PORT_DEFAULT)).collect()
}

fn keys(count: u32) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(|n| format!("session:{n}").into_bytes())
}

/// The name of the server that each of 20,000 keys goes to.
fn homes(scheme: Scheme, servers: Vec<Server>) -> Vec<String> {
    let router = Router::new(scheme, servers);
    keys(20_000).map(|key| router.servers()[router.server_of(&key).unwrap()].to_string()).collect()
}

/// Keys of each server, in proportion to what its weight says it should have.
fn shares(scheme: Scheme, servers: Vec<Server>) -> Vec<f64> {
    const KEYS: u32 = 20_000;
    let router = Router::new(scheme, servers);
    let mut counts = vec![0u32; router.servers().len()];
    keys(KEYS).for_each(|key| counts[router.server_of(&key).unwrap()] += 1);
    let total: u32 = router.servers().iter().map(|server| server.weight).sum();
    let fair = |server: &Server| f64::from(KEYS) * f64::from(server.weight) / f64::from(total);
    router.servers().iter().zip(counts).map(|(s, count)| f64::from(count) / fair(s)).collect()
}

#[test]
fn keys_go_where_libmemcached_sends_them() {
    let mut router = None;
    let mut compared = 0;
    for line in ANSWERS.lines().filter(|line| !line.starts_with('#')) {
        let (first, rest) = line.split_once(' ').unwrap();
        if first == "fleet" {
            let words: Vec<_> = rest.split(' ').collect();
            router = Some(Router::new(words[0].parse().unwrap(), fleet(&words[1..])));
        } else {
            let router = router.as_ref().unwrap();
            let server = &router.servers()[router.server_of(first.as_bytes()).unwrap()];
            assert_eq!(server.to_string(), rest, "{first} by {}", router.scheme().name());
            compared += 1;
        }
    }
    assert_eq!(compared, 7 * 6 * 40);
}

#[test]
fn servers_are_read_as_they_are_written() {
    for (text, host, port, weight) in [
        ("cache-a.example", "cache-a.example", 11211, 1),
        ("cache-a.example:7000*3", "cache-a.example", 7000, 3),
        ("[::1]:7000", "::1", 7000, 1),
        ("[::1]*2", "::1", 11211, 2),
        ("/run/cache.sock*5", "/run/cache.sock", 11211, 5),
    ] {
        assert_eq!(text.parse(), Ok(Server::new(host, port).with_weight(weight)));
    }
    for text in ["", ":7000", "a:", "a:0", "a:70000", "a:7000*", "a*0", "a*-1"] {
        assert!(text.parse::<Server>().is_err(), "{text}");
    }
}

#[test]
fn schemes_are_called_by_name() {
    for (name, scheme) in Scheme::ALL {
        assert_eq!(name.parse(), Ok(scheme));
        assert_eq!(scheme.name(), name);
    }
    let error = "crush".parse::<Scheme>().unwrap_err().to_string();
    assert!(error.starts_with("there is no routing scheme `crush`; there are ketama, "), "{error}");
}

#[test]
fn without_servers_no_key_has_one() {
    for (_, scheme) in Scheme::ALL {
        assert_eq!(Router::new(scheme, Vec::new()).server_of(b"k"), None);
        assert_eq!(Router::new(scheme, equals(3)).server_among(b"k", |_| false), None);
    }
}

#[test]
fn shares_of_equals_are_within_what_is_stated() {
    for (scheme, low, high) in [
        (Scheme::Ketama, 0.75, 1.30),
        (Scheme::Consistent(Hash::Md5), 0.65, 1.45),
        (Scheme::Rendezvous, 0.95, 1.05),
        (Scheme::Modulo(Hash::OneAtATime), 0.95, 1.05),
    ] {
        for share in [2, 3, 5, 10].map(equals).into_iter().flat_map(|all| shares(scheme, all)) {
            assert!((low..high).contains(&share), "{}: {share:.3}", scheme.name());
        }
    }
}

#[test]
fn shares_follow_weights() {
    let servers = || fleet(&["a*1", "b*2", "c*4", "d*8"]);
    for (scheme, low, high) in [(Scheme::Ketama, 0.7, 1.4), (Scheme::Rendezvous, 0.93, 1.07)] {
        for share in shares(scheme, servers()) {
            assert!((low..high).contains(&share), "{}: {share:.3}", scheme.name());
        }
    }
}

#[test]
fn a_server_that_comes_takes_its_share_and_moves_nothing_else() {
    for scheme in [Scheme::Ketama, Scheme::Consistent(Hash::Md5), Scheme::Rendezvous] {
        let (before, after) = (homes(scheme, equals(4)), homes(scheme, equals(5)));
        let moved: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old != new).collect();
        assert!(moved.iter().all(|(_, new)| *new == "10.0.0.5:11211"), "{}", scheme.name());
        let share = moved.len() as f64 / before.len() as f64;
        assert!((0.13..0.28).contains(&share), "{}: {share:.3} of 0.2", scheme.name());
    }
}

#[test]
fn a_weight_that_grows_takes_keys_and_moves_nothing_else() {
    let before = homes(Scheme::Rendezvous, fleet(&["a", "b", "c*2"]));
    let after = homes(Scheme::Rendezvous, fleet(&["a", "b*3", "c*2"]));
    let mut moved = before.iter().zip(&after).filter(|(old, new)| old != new);
    assert!(moved.all(|(_, new)| new == "b:11211"));
}

#[test]
fn modulo_moves_all_but_a_few_and_says_so() {
    let scheme = Scheme::Modulo(Hash::OneAtATime);
    let (before, after) = (homes(scheme, equals(4)), homes(scheme, equals(5)));
    let stayed = before.iter().zip(&after).filter(|(old, new)| old == new).count();
    assert!((0.17..0.23).contains(&(stayed as f64 / before.len() as f64)));
}

#[test]
fn a_server_that_takes_no_keys_leaves_them_to_all_the_others() {
    for (_, scheme) in Scheme::ALL {
        let router = Router::new(scheme, equals(4));
        let orphans = keys(4_000).filter(|key| router.server_of(key) == Some(2));
        let heirs: BTreeSet<_> =
            orphans.map(|key| router.server_among(&key, |server| server != 2)).collect();
        assert_eq!(heirs, BTreeSet::from([Some(0), Some(1), Some(3)]), "{}", scheme.name());
    }
}

proptest! {
    #[test]
    fn a_key_whose_server_takes_keys_stays_there(
        key in vec(any::<u8>(), 1..60),
        down in btree_set(0usize..6, 0..6),
        scheme in 0usize..Scheme::ALL.len(),
    ) {
        let router = Router::new(Scheme::ALL[scheme].1, equals(6));
        let own = router.server_of(&key).unwrap();
        let chosen = router.server_among(&key, |server| !down.contains(&server)).unwrap();
        prop_assert!(!down.contains(&chosen));
        prop_assert!(chosen == own || down.contains(&own));
    }

    #[test]
    fn losing_a_server_is_the_same_as_its_taking_no_keys(
        key in vec(any::<u8>(), 1..60),
        lost in 0usize..6,
    ) {
        for scheme in [Scheme::Ketama, Scheme::Consistent(Hash::Md5), Scheme::Rendezvous] {
            let all = Router::new(scheme, equals(6));
            let mut left = equals(6);
            left.remove(lost);
            let left = Router::new(scheme, left);
            let skipped = all.server_among(&key, |server| server != lost).unwrap();
            let routed = left.server_of(&key).unwrap();
            prop_assert_eq!(&all.servers()[skipped], &left.servers()[routed]);
        }
    }

    #[test]
    fn order_of_servers_means_nothing_but_to_modulo(key in vec(any::<u8>(), 1..60)) {
        for scheme in [Scheme::Ketama, Scheme::Consistent(Hash::Crc32), Scheme::Rendezvous] {
            let forth = Router::new(scheme, equals(7));
            let back = Router::new(scheme, equals(7).into_iter().rev().collect());
            let server = |router: &Router| router.servers()[router.server_of(&key).unwrap()].clone();
            prop_assert_eq!(server(&forth), server(&back));
        }
    }
}
