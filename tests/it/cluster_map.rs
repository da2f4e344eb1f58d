//! The map that a cluster of processes gives its clients, as `cache-client` reads it.

use std::time::Duration;

use cache_client::routing::{Map, ReadFrom};
use tests::cluster_rig::{Layout, LocalCluster};
use tests::connection::Connection;
use tests::wait;

const WHOLE_LIMIT: Duration = Duration::from_secs(60);

/// An answer as its bytes, up to and with `END`.
fn ask(connection: &mut Connection, question: &str) -> Vec<u8> {
    connection.send(question.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\nEND\r\n") {
        answer.extend_from_slice(&connection.receive_line().unwrap().unwrap());
        answer.extend_from_slice(b"\r\n");
    }
    answer
}

#[test]
fn clients_learn_from_any_node_who_leads_which_shard() {
    let cluster = LocalCluster::start(&Layout { replicas: 2, ..Layout::sessions() });
    for node in &cluster.nodes {
        let mut connection = Connection::open(node.client).unwrap();
        // Right after a start nobody may lead a shard yet.
        let map = wait::until(WHOLE_LIMIT, || {
            let map = Map::parse(&ask(&mut connection, "config get shards\r\n")).unwrap();
            let revision = Map::revision_in(&ask(&mut connection, "config get cluster\r\n"));
            let key_of = |n: u32| format!("key.{n}").into_bytes();
            let is_led = (0..1000).all(|n| map.primary_of(&key_of(n)).is_some());
            (is_led && revision == Ok(map.revision)).then_some(map)
        });
        let map = map.expect("a map in which every shard is led");
        assert_eq!(map.nodes.len(), 3);
        for n in 0..100 {
            let key = format!("key.{n}");
            let primary = map.primary_of(key.as_bytes()).unwrap();
            assert_eq!(map.readers(key.as_bytes(), ReadFrom::Any, "").next(), Some(primary));
            let led_by = cluster.nodes.iter().find(|node| node.id == primary.0).unwrap();
            assert_eq!(map.nodes[&primary].address, led_by.client.to_string());
        }
        // What was written in an epoch says which, in its cas.
        connection.send(b"ms key.1 1 c\r\nv\r\n").unwrap();
        let stored = String::from_utf8(connection.receive_line().unwrap().unwrap());
        let cas: u64 = stored.unwrap().strip_prefix("HD c").unwrap().parse().unwrap();
        assert!(!map.is_outdated_by(b"key.1", cas));
        assert!(map.is_outdated_by(b"key.1", cas + (1 << 40)));
    }
    cluster.stop();
}
