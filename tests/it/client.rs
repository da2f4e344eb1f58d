//! cache-client against real servers and a cluster of processes.

use std::collections::BTreeMap;
use std::time::Duration;

use cache_client::config::Mode;
use cache_client::error::ConnectError;
use cache_client::routing::Scheme;
use cache_client::{
    Client, Codec, Config, Credentials, Dialect, Error, Fate, Lookup, Server, Tls, Ttl, Written,
};
use cache_server::config::{Authentication, UnixSocket};
use tests::cluster_rig::{Layout, Rig};
use tests::process::Launcher;
use tests::server::Server as Subject;
use tests::tls::{Authority, EITHER};

const LIFE: Duration = Duration::from_secs(100);

fn at(address: std::net::SocketAddr) -> Server {
    Server::new(address.ip().to_string(), address.port())
}

fn client_of(address: std::net::SocketAddr, change: impl FnOnce(&mut Config)) -> Client {
    let mut config = Config::new([at(address)]);
    config.timeout = Duration::from_secs(10);
    change(&mut config);
    Client::new(config)
}

fn text(value: Option<cache_client::Value>) -> Option<String> {
    value.map(|value| String::from_utf8(value.data.to_vec()).unwrap())
}

#[tokio::test]
async fn every_operation_does_what_it_says_in_both_dialects() {
    for dialect in [Dialect::Meta, Dialect::Text] {
        // Also against another program: see `Subject::from_environment`.
        let server = Subject::start(&[]);
        let client = client_of(server.address(), |config| config.connection.dialect = dialect);

        assert_eq!(client.get("k").await.unwrap(), None);
        assert_eq!(client.replace("k", "v", LIFE).await.unwrap(), Written::NotStored);
        assert_eq!(client.append("k", "v").await.unwrap(), Written::NotStored);
        assert_eq!(client.cas("k", "v", LIFE, 1).await.unwrap(), Written::NotFound);
        assert_eq!(client.incr("k", 1).await.unwrap(), None);
        assert!(!client.touch("k", LIFE).await.unwrap());
        assert!(!client.delete("k").await.unwrap());

        assert_eq!(client.set("k", "v", LIFE).await.unwrap(), Written::Stored);
        assert_eq!(client.add("k", "w", LIFE).await.unwrap(), Written::NotStored);
        assert_eq!(client.append("k", ">").await.unwrap(), Written::Stored);
        assert_eq!(client.prepend("k", "<").await.unwrap(), Written::Stored);
        let value = client.gets("k").await.unwrap().unwrap();
        assert_eq!((&*value.data, value.flags), (&b"<v>"[..], 0));
        let cas = value.cas.unwrap();
        assert_eq!(client.cas("k", "w", LIFE, cas).await.unwrap(), Written::Stored);
        assert_eq!(client.cas("k", "x", LIFE, cas).await.unwrap(), Written::Exists);
        assert_eq!(text(client.gat("k", LIFE).await.unwrap()), Some("w".into()));
        assert!(client.touch("k", LIFE).await.unwrap());

        assert_eq!(client.set("n", "17", Ttl::NEVER).await.unwrap(), Written::Stored);
        assert_eq!(client.incr("n", 5).await.unwrap(), Some(22));
        assert_eq!(client.decr("n", 100).await.unwrap(), Some(0));
        let refused = client.incr("k", 1).await.unwrap_err();
        assert!(matches!(refused, Error::Refused { .. }), "{refused:?}");
        assert_eq!(refused.fate(), Fate::DidNotHappen);

        let found = client.get_many(&["k", "none", "n"]).await.unwrap();
        let found: Vec<_> = found.into_iter().map(text).collect();
        assert_eq!(found[..2], [Some("w".into()), None]);
        assert_eq!(found[2].as_deref().map(str::trim_end), Some("0"));

        assert!(client.delete("k").await.unwrap());
        client.flush_all().await.unwrap();
        assert_eq!(client.get("n").await.unwrap(), None);
        assert!(client.versions().await.into_iter().all(|(_, version)| version.is_ok()));
    }
}

#[tokio::test]
async fn one_of_many_wins_the_right_to_compute_a_value() {
    let server = Subject::start(&[]);
    let client = client_of(server.address(), |_| {});
    let how = Lookup { vivify: Some(Ttl::seconds(30)), ..Lookup::default() };
    let first = client.lookup("k", how).await.unwrap().unwrap();
    assert!(first.won && first.value.data.is_empty());
    let second = client.lookup("k", how).await.unwrap().unwrap();
    assert!(!second.won && second.win_sent);
    let cas = first.value.cas.unwrap();
    assert_eq!(client.cas("k", "computed", LIFE, cas).await.unwrap(), Written::Stored);
    let third = client.lookup("k", how).await.unwrap().unwrap();
    assert_eq!((&*third.value.data, third.won, third.win_sent), (&b"computed"[..], false, false));
    assert!(third.ttl_s.is_some_and(|left| left <= 100));

    assert!(client.invalidate("k", Some(Ttl::seconds(30))).await.unwrap());
    let stale = client.lookup("k", how).await.unwrap().unwrap();
    assert_eq!((&*stale.value.data, stale.won, stale.is_stale), (&b"computed"[..], true, true));
}

#[tokio::test]
async fn a_typed_value_is_read_as_it_was_written() {
    let server = Subject::start(&[]);
    let client = client_of(server.address(), |config| {
        config.codec = Codec { compress_from_bytes: Some(100), ..Codec::default() };
    });
    let basket: BTreeMap<String, u32> =
        (0..100).map(|number| (format!("item {number}"), number)).collect();
    client.set_as("basket", &basket, LIFE).await.unwrap();
    assert_eq!(client.get_as("basket").await.unwrap(), Some(basket));
    client.set("plain", "bytes", LIFE).await.unwrap();
    let refused = client.get_as::<u32>("plain").await.unwrap_err();
    assert!(matches!(refused, Error::Codec(_)), "{refused:?}");
}

#[tokio::test]
async fn values_of_all_sizes_come_back_whole() {
    let server = Subject::start(&["-I", "8m"]);
    let client = client_of(server.address(), |_| {});
    let keys: Vec<String> = (0..12).map(|number| format!("key.{number}")).collect();
    let value = |index: usize| {
        let bytes = 3usize.pow(u32::try_from(index).unwrap() + 3) + index;
        (0..bytes).map(|at| u8::try_from((at * 7 + index) % 251).unwrap()).collect::<Vec<u8>>()
    };
    let tasks = keys.iter().enumerate().map(|(index, key)| {
        let (client, key) = (client.clone(), key.clone());
        tokio::spawn(async move { client.set(key, value(index), LIFE).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap().unwrap(), Written::Stored);
    }
    let found = client.get_many(&keys).await.unwrap();
    for (index, found) in found.into_iter().enumerate() {
        assert!(*found.unwrap().data == *value(index), "key.{index}");
    }
    let refused = client.set("large", vec![0; 9 << 20], LIFE).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused:?}");
    assert_eq!(refused.fate(), Fate::DidNotHappen);
}

#[tokio::test]
async fn tls_and_a_unix_socket_carry_the_same() {
    let authority = Authority::new();
    let tls =
        Tls { config: authority.client(EITHER).config(), server_name: Some("localhost".into()) };
    let encrypted = Subject::start_changed(&[], |config| config.tls = Some(authority.server()));
    let client = client_of(encrypted.address(), |config| config.connection.tls = Some(tls));
    assert_eq!(client.set("k", vec![b'v'; 100_000], LIFE).await.unwrap(), Written::Stored);
    assert_eq!(client.get("k").await.unwrap().unwrap().data.len(), 100_000);

    let stranger = Tls { config: Authority::new().client(EITHER).config(), server_name: None };
    let refused = client_of(encrypted.address(), |config| config.connection.tls = Some(stranger));
    let error = refused.get("k").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _local = Subject::start_changed(&[], |config| {
        config.unix_socket = Some(UnixSocket { path: path.clone(), mode: 0o600 });
    });
    let client = Client::new(Config::new([path.display().to_string().parse().unwrap()]));
    assert_eq!(client.set("k", "v", LIFE).await.unwrap(), Written::Stored);
    assert_eq!(text(client.get("k").await.unwrap()), Some("v".into()));
}

#[tokio::test]
async fn who_says_who_it_is_comes_in() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    std::fs::write(&users, "alice:a secret\n").unwrap();
    let server = Subject::start_changed(&[], |config| {
        config.authentication = Authentication::File(users);
    });
    let alice = |password: &str| {
        let credentials = Credentials { user: "alice".into(), password: password.into() };
        client_of(server.address(), |config| config.connection.credentials = Some(credentials))
    };
    assert_eq!(alice("a secret").set("k", "v", LIFE).await.unwrap(), Written::Stored);
    match alice("wrong").set("k", "v", LIFE).await {
        Err(Error::Unreachable { source: ConnectError::Authentication(_), .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn keys_are_divided_among_servers_and_found_again() {
    let servers = [(); 3].map(|()| Subject::start_here(&[]));
    for (_, scheme) in Scheme::ALL {
        let mut config = Config::new(servers.iter().map(|server| at(server.address())));
        config.mode = Mode::Static(scheme);
        let client = Client::new(config);
        let keys: Vec<String> = (0..60).map(|number| format!("key.{number}")).collect();
        for key in &keys {
            assert_eq!(client.set(key, key, LIFE).await.unwrap(), Written::Stored);
        }
        let found = client.get_many(&keys).await.unwrap();
        assert!(found.into_iter().map(text).eq(keys.iter().cloned().map(Some)), "{scheme:?}");
        for server in &servers {
            let alone = client_of(server.address(), |_| {});
            let here = alone.get_many(&keys).await.unwrap().into_iter().flatten().count();
            assert!((1..60).contains(&here), "{scheme:?} has {here} of 60 keys on one of three");
        }
        client.flush_all().await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_was_restarted_is_found_again() {
    let launcher = Launcher::new(&[]);
    let process = launcher.start();
    let address = process.address();
    let client = client_of(address, |config| config.retry.attempts_max = 1);
    assert_eq!(client.set("k", "v", LIFE).await.unwrap(), Written::Stored);
    process.kill();
    let error = client.set("k", "w", LIFE).await.unwrap_err();
    assert!(matches!(error, Error::Lost { .. } | Error::Unreachable { .. }), "{error:?}");
    let _again = Subject::start_changed(&[], |config| {
        config.listen = vec![cache_server::Listen::loopback(address.port())];
    });
    let patient = async {
        while client.set("k", "w", LIFE).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), patient).await.expect("it is found again");
    assert_eq!(text(client.get("k").await.unwrap()), Some("w".into()));
}

fn forwarded(rig: &Rig) -> u64 {
    let of = |index| rig.counts(index).get("cluster_forwarded").copied().unwrap_or_default();
    rig.running().into_iter().map(of).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_asked_at_its_primaries_and_followed_when_one_is_lost() {
    let mut rig = Rig::start(&Layout::sessions());
    let mut config = Config::cluster([at(rig.nodes()[0].client)]);
    config.timeout = Duration::from_secs(5);
    let client = Client::new(config);
    let keys: Vec<String> = (0..300).map(|number| format!("key.{number}")).collect();
    let patient = async {
        while client.nodes().len() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), patient).await.expect("it learns of all nodes");

    let before = forwarded(&rig);
    for key in &keys {
        assert_eq!(client.set(key, key, LIFE).await.unwrap(), Written::Stored);
    }
    let found = client.get_many(&keys).await.unwrap();
    assert!(found.into_iter().map(text).eq(keys.iter().cloned().map(Some)));
    assert_eq!(forwarded(&rig), before, "requests that a node had to pass on");

    // The node that the client was told of: from here on it knows of the others only by the map.
    rig.kill(0);
    for key in &keys {
        let value = client.get(key).await;
        assert_eq!(
            text(value.unwrap_or_else(|error| panic!("{key}: {error:?}"))),
            Some(key.clone())
        );
        assert_eq!(client.set(key, "new", LIFE).await.unwrap(), Written::Stored);
    }
    let found = client.get_many(&keys).await.unwrap();
    assert!(found.into_iter().all(|value| text(value).as_deref() == Some("new")));
}
