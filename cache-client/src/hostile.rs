//! (tests) Servers that answer wrongly, by halves, late, twice or not at all: every call ends, with the right class
//! of error, and no answer goes to another's call.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use protocol::response::decoder::ResponseError;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::balance::Balance;
use crate::error::{ConnectError, Disconnect};
use crate::resolve::{Resolve, Resolved, Resolving};
use crate::retry::{BreakerConfig, HedgeConfig, RefreshConfig};
use crate::routing::Server;
use crate::{Client, Config, Dialect, Error, Fate, Ttl, Written};

/// Far more than any call may take: it only ends a test that hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// What a client said on one connection.
struct Session {
    stream: BufReader<TcpStream>,
    /// How many connections there were before.
    index: usize,
}

/// A meta request, as far as these servers look at it.
#[derive(Debug)]
struct Asked {
    words: Vec<String>,
}

impl Asked {
    fn key(&self) -> &str {
        &self.words[1]
    }

    /// The flag that names the request, with its letter.
    fn opaque(&self) -> &str {
        self.words.iter().find(|word| word.starts_with('O')).expect("an opaque")
    }

    /// The answer that is right: every key is there, and its value is the key.
    fn answer(&self) -> String {
        if self.words[0] == "get" {
            let value = |key: &String| format!("VALUE {key} 0 {}\r\n{key}\r\n", key.len());
            return self.words[1..].iter().map(value).collect::<String>() + "END\r\n";
        }
        format!("VA {} f0 {}\r\n{}\r\n", self.key().len(), self.opaque(), self.key())
    }
}

impl Session {
    /// The next request; `None` when the client has left.
    async fn request(&mut self) -> Option<Asked> {
        let mut line = String::new();
        let bytes = self.stream.read_line(&mut line).await.ok()?;
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if bytes == 0 {
            return None;
        }
        if words[0] == "ms" {
            let mut block = vec![0; words[2].parse::<usize>().expect("a length") + 2];
            self.stream.read_exact(&mut block).await.ok()?;
        }
        Some(Asked { words })
    }

    async fn say(&mut self, answer: impl AsRef<[u8]>) {
        // The client may have left: that is its right.
        let _ = self.stream.get_mut().write_all(answer.as_ref()).await;
    }

    /// Answers everything as it should be, until the client leaves.
    async fn serve(mut self) {
        while let Some(asked) = self.request().await {
            self.say(asked.answer()).await;
        }
    }

    /// Says nothing more and keeps the connection until the client leaves it.
    async fn wait_for_end(mut self) {
        while self.request().await.is_some() {}
    }
}

/// A server whose connections `serve` carries.
async fn server<F, S>(serve: F) -> Server
where
    F: Fn(Session) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for index in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            tokio::spawn(serve(Session { stream: BufReader::new(stream), index }));
        }
    });
    Server::new(address.ip().to_string(), address.port())
}

fn client_of(address: Server, change: impl FnOnce(&mut Config)) -> Client {
    let mut config = Config::new([address]);
    config.timeout = Duration::from_secs(10);
    // Each test looks at one attempt.
    config.retry.attempts_max = 1;
    config.breaker = None;
    change(&mut config);
    Client::new(config)
}

/// A client of a server that answers the first request with `answer`, in which `OPAQUE` stands for the request's,
/// and serves honestly from the second connection on.
async fn client_answered(answer: &'static str) -> Client {
    let address = server(move |mut session| async move {
        if session.index > 0 {
            return session.serve().await;
        }
        let Some(asked) = session.request().await else { return };
        session.say(answer.replace("OPAQUE", asked.opaque())).await;
        session.wait_for_end().await;
    });
    client_of(address.await, |_| {})
}

async fn ends<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, call).await.expect("every call ends")
}

async fn why_lost(client: &Client) -> Disconnect {
    match ends(client.get("a")).await {
        Err(Error::Lost { source, fate: Fate::Unknown, .. }) => source,
        other => panic!("{other:?}"),
    }
}

async fn is_honest_again(client: &Client) {
    let value = ends(client.get("b")).await.unwrap().expect("it is there");
    assert_eq!(&*value.data, b"b");
}

#[tokio::test]
async fn an_answer_to_another_request_ends_the_connection() {
    let client = client_answered("VA 1 f0 O4711\r\na\r\n").await;
    assert!(matches!(why_lost(&client).await, Disconnect::Mismatch));
    is_honest_again(&client).await;
}

#[tokio::test]
async fn an_answer_without_the_request_s_opaque_ends_the_connection() {
    let client = client_answered("VA 1 f0\r\na\r\n").await;
    assert!(matches!(why_lost(&client).await, Disconnect::Mismatch));
    is_honest_again(&client).await;
}

#[tokio::test]
async fn an_answer_of_another_kind_ends_the_connection() {
    for answer in ["STORED\r\n", "NS OPAQUE\r\n", "MN\r\n", "17\r\n"] {
        let client = client_answered(answer).await;
        assert!(matches!(why_lost(&client).await, Disconnect::Mismatch), "{answer}");
        is_honest_again(&client).await;
    }
}

#[tokio::test]
async fn garbage_ends_the_connection() {
    let client = client_answered("HTTP/1.1 400 Bad Request\r\n").await;
    let lost = why_lost(&client).await;
    assert!(matches!(lost, Disconnect::Malformed(ResponseError::UnknownLine)), "{lost:?}");
    is_honest_again(&client).await;
}

#[tokio::test]
async fn a_length_beyond_the_bound_ends_the_connection_before_anything_is_kept_for_it() {
    let client = client_answered("VA 2000000000 f0 OPAQUE\r\n").await;
    let lost = why_lost(&client).await;
    assert!(matches!(lost, Disconnect::Malformed(ResponseError::ValueTooLarge)), "{lost:?}");
    is_honest_again(&client).await;
}

#[tokio::test]
async fn half_an_answer_is_no_answer() {
    let address = server(|mut session| async move {
        if session.index > 0 {
            return session.serve().await;
        }
        let Some(asked) = session.request().await else { return };
        session.say(format!("VA 5 f0 {}\r\nhel", asked.opaque())).await;
    });
    let client = client_of(address.await, |_| {});
    assert!(matches!(why_lost(&client).await, Disconnect::Closed));
    is_honest_again(&client).await;
}

#[tokio::test]
async fn a_reset_fails_what_is_under_way() {
    let address = server(|mut session| async move {
        if session.index > 0 {
            return session.serve().await;
        }
        session.request().await;
        let socket = socket2::SockRef::from(session.stream.get_ref());
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    });
    let client = client_of(address.await, |_| {});
    let lost = why_lost(&client).await;
    assert!(matches!(lost, Disconnect::Io(_) | Disconnect::Closed), "{lost:?}");
    is_honest_again(&client).await;
}

#[tokio::test]
async fn one_answer_too_many_is_nobody_s() {
    let address = server(|mut session| async move {
        while let Some(asked) = session.request().await {
            session.say(asked.answer().repeat(2)).await;
        }
    });
    let client = client_of(address.await, |_| {});
    for number in 0..100 {
        let key = format!("key.{number}");
        match ends(client.get(&key)).await {
            Ok(value) => assert_eq!(value.expect("it is there").data, key),
            // The answer before came again while this one was under way.
            Err(Error::Lost { source: Disconnect::Mismatch, .. }) => {}
            // It came while nothing was, and the request just after it.
            Err(Error::Lost { source: Disconnect::Unasked, .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_late_answer_is_dropped_and_the_next_call_has_its_own() {
    let address = server(|mut session| async move {
        let Some(late) = session.request().await else { return };
        let Some(next) = session.request().await else { return };
        session.say(late.answer()).await;
        session.say(next.answer()).await;
        session.serve().await;
    });
    let client = client_of(address.await, |_| {});
    let hasty = client.with_timeout(Duration::from_millis(50));
    let error = ends(hasty.get("late")).await.unwrap_err();
    assert!(matches!(error, Error::DeadlinePassed { fate: Fate::Unknown, .. }), "{error:?}");
    assert_eq!(ends(client.get("next")).await.unwrap().expect("it is there").data, "next");
    is_honest_again(&client).await;
}

#[tokio::test]
async fn a_call_that_is_dropped_leaves_its_answer_to_nobody() {
    let address = server(|mut session| async move {
        let Some(dropped) = session.request().await else { return };
        let Some(next) = session.request().await else { return };
        session.say(dropped.answer() + &next.answer()).await;
        session.serve().await;
    });
    let client = client_of(address.await, |_| {});
    // The connection is made before, so that the dropped call has sent its request.
    let sent = tokio::time::timeout(Duration::from_millis(200), client.get("dropped")).await;
    assert!(sent.is_err());
    assert_eq!(ends(client.get("next")).await.unwrap().expect("it is there").data, "next");
}

#[tokio::test]
async fn a_server_that_says_nothing_costs_a_call_its_deadline() {
    let address = server(Session::wait_for_end).await;
    let client = client_of(address, |config| config.timeout = Duration::from_millis(50));
    let error = ends(client.set("k", "v", Ttl::NEVER)).await.unwrap_err();
    assert!(matches!(error, Error::DeadlinePassed { fate: Fate::Unknown, .. }), "{error:?}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_for_long_is_given_up() {
    let address = server(|session| async move {
        if session.index > 0 { session.serve().await } else { session.wait_for_end().await }
    });
    let client = client_of(address.await, |config| {
        config.connection.silence_max = Duration::from_millis(50);
    });
    assert!(matches!(why_lost(&client).await, Disconnect::Silent(_)));
    is_honest_again(&client).await;
}

#[tokio::test]
async fn a_connection_with_too_many_calls_given_up_is_given_up_itself() {
    let address = server(|session| async move {
        if session.index > 0 { session.serve().await } else { session.wait_for_end().await }
    });
    let client = client_of(address.await, |config| config.connection.abandoned_max = 3);
    let hasty = client.with_timeout(Duration::from_millis(20));
    let waits = tokio::spawn({
        let client = client.clone();
        async move { client.get("a").await }
    });
    for _ in 0..4 {
        assert!(ends(hasty.get("x")).await.is_err());
    }
    let error = ends(waits).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Lost { source: Disconnect::Abandoned(4), .. }), "{error:?}");
    is_honest_again(&client).await;
}

#[tokio::test]
async fn a_call_without_room_is_not_sent() {
    let address = server(Session::wait_for_end).await;
    let client = client_of(address, |config| config.connection.requests_max = 2);
    let hasty = client.with_timeout(Duration::from_millis(50));
    let calls = [0, 1].map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.get("a").await })
    });
    let error = loop {
        match ends(hasty.set("k", "v", Ttl::NEVER)).await {
            // The others have not begun yet.
            Err(Error::DeadlinePassed { .. }) => {}
            Err(error) => break error,
            Ok(written) => panic!("{written:?}"),
        }
    };
    assert!(matches!(error, Error::NoRoom { .. }), "{error:?}");
    assert_eq!(error.fate(), Fate::DidNotHappen);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn calls_that_wait_for_room_get_it_as_answers_come() {
    let address = server(Session::serve).await;
    let client = client_of(address, |config| config.connection.requests_max = 2);
    let calls: Vec<_> = (0..100)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.get(format!("key.{number}")).await })
        })
        .collect();
    for (number, call) in calls.into_iter().enumerate() {
        let value = ends(call).await.unwrap().unwrap().expect("it is there");
        assert_eq!(value.data, format!("key.{number}"));
    }
}

#[tokio::test]
async fn nobody_listening_is_a_write_that_did_not_happen() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = client_of(Server::new("127.0.0.1", address.port()), |_| {});
    let error = ends(client.set("k", "v", Ttl::NEVER)).await.unwrap_err();
    let Error::Unreachable { source: ConnectError::Io(_), .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(error.fate(), Fate::DidNotHappen);
}

#[tokio::test]
async fn a_refusal_tells_what_became_of_the_write() {
    for (answer, fate) in [
        ("SERVER_ERROR outcome unknown: the primary was lost\r\n", Fate::Unknown),
        ("SERVER_ERROR object too large for cache\r\n", Fate::DidNotHappen),
        ("SERVER_ERROR too few copies are in sync\r\n", Fate::DidNotHappen),
        ("CLIENT_ERROR bad data chunk\r\n", Fate::DidNotHappen),
    ] {
        let address = server(move |mut session| async move {
            while session.request().await.is_some() {
                session.say(answer).await;
            }
        });
        let client = client_of(address.await, |_| {});
        let error = ends(client.set("k", "v", Ttl::NEVER)).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error:?}");
        assert_eq!(error.fate(), fate, "{answer}");
    }
}

#[tokio::test]
async fn one_key_that_is_refused_fails_the_whole_get_of_many() {
    let address = server(|mut session| async move {
        while let Some(asked) = session.request().await {
            match &*asked.words[asked.words.len() - 1] {
                "bad" => session.say("SERVER_ERROR busy\r\n").await,
                _ => session.say(asked.answer()).await,
            }
        }
    });
    let client = client_of(address.await, |_| {});
    let error = ends(client.get_many(&["a", "b", "bad", "c"])).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    let found = ends(client.get_many(&["a", "b", "c"])).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|value| value.expect("it is there").data).collect();
    assert_eq!(found, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_read_whose_connection_was_lost_is_asked_again() {
    let address = server(|mut session| async move {
        if session.index > 0 {
            return session.serve().await;
        }
        session.request().await;
    });
    let client = client_of(address.await, |config| config.retry.attempts_max = 2);
    is_honest_again(&client).await;
}

#[tokio::test]
async fn a_count_that_may_have_happened_is_not_sent_again() {
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    let address = server(move |mut session| {
        let counter = Arc::clone(&counter);
        async move {
            if session.request().await.is_some() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let client = client_of(address.await, |config| config.retry.attempts_max = 5);
    let error = ends(client.incr("n", 1)).await.unwrap_err();
    assert!(matches!(error, Error::Lost { fate: Fate::Unknown, .. }), "{error:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_server_that_hangs_is_left_alone_for_a_while() {
    let address = server(Session::wait_for_end).await;
    let client = client_of(address, |config| {
        config.timeout = Duration::from_millis(20);
        config.breaker = Some(BreakerConfig { failures_max: 2, ..BreakerConfig::default() });
    });
    for _ in 0..2 {
        let error = ends(client.get("a")).await.unwrap_err();
        assert!(matches!(error, Error::DeadlinePassed { .. }), "{error:?}");
    }
    let error = ends(client.get("a")).await.unwrap_err();
    let Error::Unreachable { source: ConnectError::LeftAlone, .. } = error else {
        panic!("{error:?}")
    };
}

#[tokio::test]
async fn in_text_a_value_of_another_key_ends_the_connection() {
    let address = server(|mut session| async move {
        while let Some(asked) = session.request().await {
            let key = if session.index > 0 { asked.key() } else { "z" };
            session.say(format!("VALUE {key} 0 1\r\n{key}\r\nEND\r\n")).await;
        }
    });
    let client = client_of(address.await, |config| config.connection.dialect = Dialect::Text);
    assert!(matches!(why_lost(&client).await, Disconnect::Mismatch));
    is_honest_again(&client).await;
}

#[tokio::test]
async fn fail_soft_makes_errors_misses() {
    let address = server(|mut session| async move {
        session.request().await;
        session.say("garbage\r\n").await;
    });
    let client = client_of(address.await, |config| config.fail_soft = true);
    assert_eq!(ends(client.get("a")).await.unwrap(), None);
    assert_eq!(ends(client.set("a", "v", Ttl::NEVER)).await.unwrap(), Written::NotStored);
    assert_eq!(ends(client.get_many(&["a", "b"])).await.unwrap(), [None, None]);
    // What the caller got wrong stays an error.
    assert!(matches!(ends(client.get("a b")).await, Err(Error::InvalidKey(_))));
}

/// A server that counts what it answers, after `delay` for reads.
async fn counting_server(delay: Duration) -> (Server, Arc<AtomicU32>) {
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    let address = server(move |mut session| {
        let counter = Arc::clone(&counter);
        async move {
            while let Some(asked) = session.request().await {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(delay).await;
                session.say(asked.answer()).await;
            }
        }
    });
    (address.await, asked)
}

async fn pair_of_equals(
    second_delay: Duration,
    change: impl FnOnce(&mut Config),
) -> (Client, [Arc<AtomicU32>; 2]) {
    let (first, first_asked) = counting_server(Duration::ZERO).await;
    let (second, second_asked) = counting_server(second_delay).await;
    let mut config = Config::equals([first, second]);
    config.timeout = Duration::from_secs(10);
    change(&mut config);
    (Client::new(config), [first_asked, second_asked])
}

#[tokio::test]
async fn equals_share_the_calls_and_one_of_them_takes_a_get_of_many() {
    let (client, asked) = pair_of_equals(Duration::ZERO, |config| {
        config.balance.strategy = Balance::RoundRobin;
    })
    .await;
    for _ in 0..10 {
        is_honest_again(&client).await;
    }
    let counts = || asked.each_ref().map(|asked| asked.load(Ordering::Relaxed));
    assert_eq!(counts(), [5, 5]);
    let found = ends(client.get_many(&["a", "b", "c", "d"])).await.unwrap();
    assert!(found.iter().all(Option::is_some));
    let mut counts = counts();
    counts.sort_unstable();
    assert_eq!(counts, [5, 9]);
}

#[tokio::test]
async fn a_read_that_is_late_is_answered_by_an_equal() {
    let never = 2 * LIMIT;
    let (client, asked) = pair_of_equals(never, |config| {
        config.balance.strategy = Balance::RoundRobin;
        let samples_min = 1;
        config.hedge = Some(HedgeConfig { share_max: 1.0, samples_min, ..HedgeConfig::default() });
    })
    .await;
    // Nothing is known of how long an answer takes before there was one.
    let first = [client.clone(), client.clone()];
    let [a, b] = first.each_ref().map(|client| client.get("b"));
    tokio::select! { found = a => found, found = b => found }.unwrap().unwrap();
    for _ in 0..4 {
        is_honest_again(&client).await;
    }
    assert_eq!(asked[1].load(Ordering::Relaxed), 1, "the late one is still at the first");
}

#[tokio::test]
async fn equals_that_are_fast_are_not_asked_twice() {
    let (client, asked) = pair_of_equals(Duration::ZERO, |config| {
        let delay_min = LIMIT;
        config.hedge = Some(HedgeConfig {
            share_max: 1.0,
            samples_min: 1,
            delay_min,
            ..HedgeConfig::default()
        });
    })
    .await;
    for _ in 0..20 {
        is_honest_again(&client).await;
    }
    assert_eq!(asked.iter().map(|asked| asked.load(Ordering::Relaxed)).sum::<u32>(), 20);
}

/// A name that moves from one address to another after it was asked for so often.
#[derive(Debug)]
struct Moving {
    servers: [SocketAddr; 2],
    asked: AtomicU32,
    moves_at: u32,
}

impl Resolve for Moving {
    fn resolve<'a>(&'a self, _host: &'a str, _port: u16) -> Resolving<'a> {
        let turn = self.asked.fetch_add(1, Ordering::Relaxed);
        let address = self.servers[usize::from(turn >= self.moves_at)];
        let lifetime = Some(Duration::from_millis(1));
        Box::pin(std::future::ready(Ok(Resolved { addresses: vec![address], lifetime })))
    }
}

#[tokio::test]
async fn a_server_whose_name_moves_is_found_at_its_new_address_and_no_call_fails() {
    let (old, old_asked) = counting_server(Duration::from_millis(1)).await;
    let (new, new_asked) = counting_server(Duration::ZERO).await;
    let servers = [old, new].map(|server| server.to_string().parse().unwrap());
    let client = client_of(Server::new("cache", 1), |config| {
        config.resolver = Arc::new(Moving { servers, asked: AtomicU32::new(0), moves_at: 5 });
        let interval_min = Duration::from_millis(5);
        config.resolve = Some(RefreshConfig { interval_min, ..RefreshConfig::default() });
    });
    ends(async {
        while new_asked.load(Ordering::Relaxed) < 5 {
            let value = client.get("b").await.unwrap().expect("it is there");
            assert_eq!(&*value.data, b"b");
        }
    })
    .await;
    assert!(old_asked.load(Ordering::Relaxed) > 0, "the old address was used first");
}

/// What a server that cannot be trusted does next.
#[derive(Clone, Copy, Debug)]
enum Whim {
    Right,
    Twice,
    OtherOpaque,
    OtherKind,
    Garbage,
    Half,
    Late,
    HangUp,
}

/// Whims by a generator that its seed decides.
fn whim(state: &mut u64) -> Whim {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    match (*state >> 33) % 160 {
        0 => Whim::Twice,
        1 => Whim::OtherOpaque,
        2 => Whim::OtherKind,
        3 => Whim::Garbage,
        4 => Whim::Half,
        5..8 => Whim::Late,
        8 => Whim::HangUp,
        _ => Whim::Right,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_server_does_no_answer_goes_to_another_s_call() {
    let address = server(|mut session| async move {
        let mut state = session.index as u64;
        while let Some(asked) = session.request().await {
            match whim(&mut state) {
                Whim::Right => session.say(asked.answer()).await,
                Whim::Twice => session.say(asked.answer().repeat(2)).await,
                Whim::OtherOpaque => session.say("VA 5 f0 O1\r\nwrong\r\n").await,
                Whim::OtherKind => session.say("STORED\r\n").await,
                Whim::Garbage => session.say([0xff; 100]).await,
                Whim::Late => {
                    let answer = asked.answer();
                    let (first, last) = answer.split_at(answer.len() / 2);
                    session.say(first).await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    session.say(last).await;
                }
                Whim::Half => {
                    let answer = asked.answer();
                    session.say(&answer[..answer.len() - 3]).await;
                    return;
                }
                Whim::HangUp => return,
            }
        }
    });
    let client = client_of(address.await, |_| {});
    let tasks: Vec<_> = (0..20)
        .map(|task| {
            let client = client.clone();
            tokio::spawn(async move {
                let (mut right, hasty) = (0, client.with_timeout(Duration::from_millis(3)));
                for number in 0..200 {
                    let key = format!("key.{task}.{number}");
                    let client = if number % 10 == 0 { &hasty } else { &client };
                    match client.get(&key).await {
                        Ok(value) => {
                            assert_eq!(value.expect("it is there").data, key);
                            right += 1;
                        }
                        Err(Error::Lost { .. } | Error::DeadlinePassed { .. }) => {}
                        Err(Error::Unreachable { .. } | Error::NoRoom { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
                right
            })
        })
        .collect();
    let mut right = 0;
    for task in tasks {
        right += ends(task).await.unwrap();
    }
    assert!(right > 0, "some are answered");
}
