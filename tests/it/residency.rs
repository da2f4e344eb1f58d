//! Protected items (`--protect`): others leave first, however a server ends, and on every node of a cluster.

use std::time::Duration;

use cache_client::{Client, Config};
use tests::cluster_rig::{Layout, Rig};
use tests::connection::Connection;
use tests::killer::{stat, stats_of};
use tests::process::{Launcher, Process};
use tests::wait;

const SESSIONS: u32 = 2000;
const LIMIT: Duration = Duration::from_secs(20);

/// Writes items called `prefix` and a number, of a kilobyte each; how many were stored.
fn fill(process: &Process, prefix: &str, numbers: std::ops::Range<u32>) -> u32 {
    let mut connection = process.connect();
    let value = "v".repeat(1000);
    let mut stored = 0;
    let numbers: Vec<u32> = numbers.collect();
    for batch in numbers.chunks(100) {
        let sets: String = batch
            .iter()
            .map(|number| format!("set {prefix}{number} 0 0 1000\r\n{value}\r\n"))
            .collect();
        connection.send(sets.as_bytes()).unwrap();
        for _ in batch {
            stored += u32::from(connection.receive_line().unwrap().unwrap() == b"STORED");
        }
    }
    stored
}

/// How many of the sessions are there.
fn present(process: &Process) -> u32 {
    let mut connection = process.connect();
    let is_there = |connection: &mut Connection, number: u32| {
        connection.send(format!("mg session:{number}\r\n").as_bytes()).unwrap();
        connection.receive_line().unwrap().unwrap() == b"HD"
    };
    (0..SESSIONS).map(|number| u32::from(is_there(&mut connection, number))).sum()
}

/// How many items were evicted, and of them protected ones.
fn counted(connection: &mut Connection) -> (u64, u64) {
    let general = stats_of(connection, "stats");
    let own = stats_of(connection, "stats server");
    (stat(&general, "evictions"), stat(&own, "evicted_protected"))
}

#[test]
fn a_flood_of_other_keys_costs_no_session_however_the_server_ends_in_between() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache").display().to_string();
    let launcher =
        Launcher::new(&["-m", "8", "-I", "64k", "-t", "1", "--protect", "session:", "-e", &file]);
    let mut process = launcher.start();
    assert_eq!(fill(&process, "session:", 0..SESSIONS), SESSIONS);
    for signal in ["KILL", "TERM", "KILL"] {
        assert_eq!(fill(&process, "page:", 0..20_000), 20_000);
        assert_eq!(present(&process), SESSIONS);
        let (evicted, protected) = counted(&mut process.connect());
        assert!(evicted > 10_000 && protected == 0, "{evicted}, {protected}");
        match signal {
            "KILL" => process.kill(),
            signal => process.stop(signal),
        }
        process = launcher.start();
        assert_eq!(present(&process), SESSIONS, "after {signal}");
    }
    assert_eq!(fill(&process, "page:", 0..20_000), 20_000);
    assert_eq!(present(&process), SESSIONS);
}

#[test]
fn a_flood_of_sessions_costs_sessions_and_the_operator_is_told() {
    let launcher = Launcher::new(&["-m", "8", "-I", "64k", "-t", "1", "--protect", "session:"]);
    let mut process = launcher.start();
    fill(&process, "page:", 0..10_000);
    assert_eq!(fill(&process, "session:", 0..20_000), 20_000, "each has its place");
    let (_, protected) = counted(&mut process.connect());
    assert!(protected > 10_000, "{protected}");
    let told = wait::until(LIMIT, || {
        process.said().contains("protected items were evicted").then_some(())
    });
    assert!(told.is_some(), "{}", process.said());
    // What is not protected takes the place of none.
    fill(&process, "page:", 0..1000);
    assert_eq!(counted(&mut process.connect()).1, protected);
}

#[tokio::test]
async fn a_flood_of_other_keys_costs_no_session_of_a_cluster_that_loses_a_node() {
    let layout = Layout { memory_mib: 16, protect: Some("session:"), ..Layout::sessions() };
    let mut rig = Rig::start(&layout);
    let servers = rig
        .nodes()
        .iter()
        .map(|node| cache_client::Server::new(node.client.ip().to_string(), node.client.port()));
    let mut config = Config::cluster(servers);
    config.timeout = Duration::from_secs(20);
    let client = Client::new(config);
    let value = vec![b'v'; 2000];
    for number in 0..SESSIONS {
        let written = client.set(format!("session:{number}"), &value, Duration::from_secs(3600));
        assert!(written.await.unwrap().is_stored());
    }
    flood(&client, 0..2000).await;
    rig.kill(1);
    flood(&client, 2000..4000).await;
    for number in 0..SESSIONS {
        let found = client.get(format!("session:{number}")).await.unwrap();
        assert!(found.is_some(), "session:{number}");
    }
    for index in rig.running() {
        let (evicted, protected) =
            counted(&mut Connection::open(rig.nodes()[index].client).unwrap());
        assert!(evicted > 100 && protected == 0, "{evicted}, {protected}");
    }
}

/// More than there is room for, from all sides.
async fn flood(client: &Client, numbers: std::ops::Range<u32>) {
    let numbers: Vec<u32> = numbers.collect();
    let mut tasks = tokio::task::JoinSet::new();
    for part in numbers.chunks(numbers.len() / 8) {
        let (client, part) = (client.clone(), part.to_vec());
        tasks.spawn(async move {
            for number in part {
                // Some may be lost with the node.
                let _ = client
                    .set(format!("page:{number}"), vec![b'p'; 20_000], Duration::from_secs(3600))
                    .await;
            }
        });
    }
    tasks.join_all().await;
}
