//! The admin port: HTTP/1.1 with JSON, for `cache-ctl` and whoever else looks after a cluster.
//!
//! | | | answers |
//! |---|---|---|
//! | GET | `/cluster/status` | [`Status`] |
//! | GET | `/cluster/map` | [`Map`] |
//! | GET | `/cluster/moves` | [`Moves`] |
//! | GET | `/cluster/locate?key=KEY` | [`Locate`] |
//! | GET | `/node/mrc` | [`Mrc`] |
//! | POST | `/cluster/drain`, `/cluster/undrain` | [`DrainRequest`] → [`Agreed`] |
//! | POST | `/cluster/move` | [`MoveRequest`] → [`Agreed`] |
//! | POST | `/cluster/token` | [`TokenRequest`] → [`Token`] |
//! | POST | `/cluster/remove` | [`RemoveRequest`] → [`Agreed`] |
//! | POST | `/cluster/voters` | [`VotersRequest`] → [`Agreed`] |
//! | POST | `/cluster/recover` | [`RecoverRequest`] → [`Recovery`] |
//!
//! What cannot be done is answered with a status that says whose turn it is, and [`Failure`].
//!
//! - Nobody is asked who they are, so the port belongs on the loopback or in a network of administrators.
//!   A page in a browser there cannot post: a body must be called `application/json`, which a browser
//!   sends to another origin only when that allows it, and this port never does.
//! - Everything is bounded: connections at a time, the time for a request's head, for its body and for its
//!   answer, and the body's length.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cluster::{NodeId, ShardId};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use percent_encoding::percent_decode_str;
use protocol::Key;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use self::model::{
    Agreed, DrainRequest, Failure, Locate, Map, MoveRequest, Moves, Mrc, RecoverRequest, Recovery,
    RemoveRequest, Status, Token, TokenRequest, VotersRequest,
};

pub mod model;

/// The longest body.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Connections at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to send a request's head. An idle connection ends with it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request may take, from its head to its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long accepting pauses when the system has nothing to accept with, such as descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The cluster, as the admin port needs it.
///
/// Requests that change something return when the control plane has agreed to it, which takes the leader a
/// round; what follows from it, such as moving shards, goes on by itself. They may be asked of any node.
pub trait AdminBackend: Send + Sync + 'static {
    /// How the cluster is.
    fn status(&self) -> Answer<'_, Status>;
    /// Where everything is.
    fn map(&self) -> Answer<'_, Map>;
    /// Where `key` is: any key that memcached's protocol takes.
    fn locate(&self, key: Vec<u8>) -> Answer<'_, Locate>;
    /// What is under way.
    fn moves(&self) -> Answer<'_, Moves>;
    /// What the node that is asked would hit with another amount of memory.
    fn mrc(&self) -> Answer<'_, Mrc>;
    /// Moves the shards of `node` away, or no longer.
    fn drain(&self, node: NodeId, drains: bool) -> Answer<'_, Agreed>;
    /// Has `shard` be held by `targets`, which are not empty and name each node once.
    fn move_shard(&self, shard: ShardId, targets: Vec<NodeId>) -> Answer<'_, Agreed>;
    /// Makes a token that lets one node in until `ttl` has passed, which is more than nothing.
    fn token(&self, ttl: Duration) -> Answer<'_, Token>;
    /// Strikes `node` from the cluster: when it holds nothing, or, with `force`, whatever it holds.
    fn remove(&self, node: NodeId, force: bool) -> Answer<'_, Agreed>;
    /// Has `voters` vote in the control plane, and nobody else. They are not empty and name each node
    /// once.
    fn set_voters(&self, voters: Vec<NodeId>) -> Answer<'_, Agreed>;
    /// Has shards that cannot go on by themselves go on with what there is, or, unless `accepts_data_loss`,
    /// tells what that would be.
    fn recover(&self, accepts_data_loss: bool) -> Answer<'_, Recovery>;
}

/// An answer under way.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, AdminError>> + Send + 'a>>;

/// Why something asked of the admin port is not done. Each says why in its own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The request makes no sense, in whatever state the cluster is.
    #[error("{0}")]
    Invalid(String),
    /// There is no such node, shard or page.
    #[error("{0}")]
    NotFound(String),
    /// It would make sense in another state of the cluster.
    #[error("{0}")]
    Conflict(String),
    /// It cannot be done now, and perhaps soon: the control plane has no leader.
    #[error("{0}")]
    Unavailable(String),
    /// It took too long. Whether it will still be done is unknown.
    #[error("no answer within {} s; it may still be carried out", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    /// The request itself is not one: the status is HTTP's.
    #[error("{1}")]
    Http(StatusCode, String),
}

impl AdminError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Http(status, _) => *status,
        }
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        (self.status(), Json(Failure { error: self.to_string() })).into_response()
    }
}

impl From<JsonRejection> for AdminError {
    fn from(rejection: JsonRejection) -> Self {
        Self::Http(rejection.status(), rejection.body_text())
    }
}

/// Serves the admin port until the future is dropped, which ends its connections as well.
///
/// # Errors
///
/// None: a connection's failure is its own, and a socket that cannot accept is tried again.
pub async fn serve(listener: TcpListener, backend: Arc<dyn AdminBackend>) {
    let service = router(backend);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Aborts what it holds when it is dropped.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let service = service.clone();
                connections.spawn(async move {
                    serve_connection(stream, service).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!("the admin port cannot accept: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, service: Router) {
    // Answers are small and asked for one by one.
    let _ = stream.set_nodelay(true);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .await;
    if let Err(error) = served {
        tracing::debug!("admin connection: {error}");
    }
}

type Backend = State<Arc<dyn AdminBackend>>;
type Body<T> = Result<Json<T>, JsonRejection>;
type Outcome<T> = Result<Json<T>, AdminError>;

fn router(backend: Arc<dyn AdminBackend>) -> Router {
    Router::new()
        .route("/cluster/status", get(status))
        .route("/cluster/map", get(map))
        .route("/cluster/moves", get(moves))
        .route("/cluster/locate", get(locate))
        .route("/node/mrc", get(mrc))
        .route("/cluster/drain", post(drain))
        .route("/cluster/undrain", post(undrain))
        .route("/cluster/move", post(move_shard))
        .route("/cluster/token", post(token))
        .route("/cluster/remove", post(remove))
        .route("/cluster/voters", post(set_voters))
        .route("/cluster/recover", post(recover))
        .fallback(no_such_page)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn(in_time))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(backend)
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => AdminError::Timeout.into_response(),
    }
}

async fn no_such_page() -> AdminError {
    AdminError::NotFound("no such page".into())
}

async fn no_such_method() -> AdminError {
    let said = "GET is for asking, POST for changing".to_owned();
    AdminError::Http(StatusCode::METHOD_NOT_ALLOWED, said)
}

async fn answer<T: Serialize>(answer: Answer<'_, T>) -> Outcome<T> {
    answer.await.map(Json)
}

async fn status(State(backend): Backend) -> Outcome<Status> {
    answer(backend.status()).await
}

async fn map(State(backend): Backend) -> Outcome<Map> {
    answer(backend.map()).await
}

async fn moves(State(backend): Backend) -> Outcome<Moves> {
    answer(backend.moves()).await
}

async fn mrc(State(backend): Backend) -> Outcome<Mrc> {
    answer(backend.mrc()).await
}

async fn locate(State(backend): Backend, RawQuery(query): RawQuery) -> Outcome<Locate> {
    let key = key_of(query.as_deref().unwrap_or(""))?;
    answer(backend.locate(key)).await
}

async fn drain(State(backend): Backend, body: Body<DrainRequest>) -> Outcome<Agreed> {
    let Json(DrainRequest { node }) = body?;
    answer(backend.drain(node, true)).await
}

async fn undrain(State(backend): Backend, body: Body<DrainRequest>) -> Outcome<Agreed> {
    let Json(DrainRequest { node }) = body?;
    answer(backend.drain(node, false)).await
}

async fn move_shard(State(backend): Backend, body: Body<MoveRequest>) -> Outcome<Agreed> {
    let Json(MoveRequest { shard, targets }) = body?;
    let targets = each_once("targets", targets)?;
    answer(backend.move_shard(shard, targets)).await
}

async fn token(State(backend): Backend, body: Body<TokenRequest>) -> Outcome<Token> {
    let Json(TokenRequest { ttl_s }) = body?;
    if ttl_s == 0 {
        return Err(AdminError::Invalid("ttl_s: a token that has expired lets nobody in".into()));
    }
    answer(backend.token(Duration::from_secs(ttl_s.into()))).await
}

async fn remove(State(backend): Backend, body: Body<RemoveRequest>) -> Outcome<Agreed> {
    let Json(RemoveRequest { node, force }) = body?;
    answer(backend.remove(node, force)).await
}

async fn set_voters(State(backend): Backend, body: Body<VotersRequest>) -> Outcome<Agreed> {
    let Json(VotersRequest { voters }) = body?;
    let voters = each_once("voters", voters)?;
    answer(backend.set_voters(voters)).await
}

async fn recover(State(backend): Backend, body: Body<RecoverRequest>) -> Outcome<Recovery> {
    let Json(RecoverRequest { accept_data_loss }) = body?;
    answer(backend.recover(accept_data_loss)).await
}

fn each_once(what: &str, nodes: Vec<NodeId>) -> Result<Vec<NodeId>, AdminError> {
    let twice = (1..nodes.len()).find(|&index| nodes[..index].contains(&nodes[index]));
    match twice {
        Some(index) => {
            Err(AdminError::Invalid(format!("{what}: node {} is there twice", nodes[index])))
        }
        None if nodes.is_empty() => Err(AdminError::Invalid(format!("{what}: no node is named"))),
        None => Ok(nodes),
    }
}

/// The key in a query. It is percent-encoded and nothing else: in a form `+` is a space, and in a key it
/// is itself.
fn key_of(query: &str) -> Result<Vec<u8>, AdminError> {
    let encoded = query.split('&').find_map(|pair| pair.strip_prefix("key="));
    let Some(encoded) = encoded else {
        return Err(AdminError::Invalid("which key? ?key=KEY is missing".into()));
    };
    let key: Vec<u8> = percent_decode_str(encoded).collect();
    if Key::new(&key).is_some() {
        Ok(key)
    } else {
        Err(AdminError::Invalid("key: a key has 1 to 250 bytes".into()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde_json::{Value, json};
    use tokio::runtime;

    use super::*;

    /// Knows a map, agrees to everything that concerns node 1, and tells the rest apart by the node.
    struct Fake;

    fn now<T: Send + 'static>(outcome: Result<T, AdminError>) -> Answer<'static, T> {
        Box::pin(std::future::ready(outcome))
    }

    fn agreed(node: NodeId) -> Answer<'static, Agreed> {
        now(match node.0 {
            1 => Ok(Agreed { revision: 10 }),
            2 => Err(AdminError::Conflict("node 2 is the last".into())),
            3 => Err(AdminError::Unavailable("the control plane has no leader".into())),
            4 => return Box::pin(std::future::pending()),
            _ => Err(AdminError::NotFound(format!("there is no node {node}"))),
        })
    }

    impl AdminBackend for Fake {
        fn status(&self) -> Answer<'_, Status> {
            now(Err(AdminError::Unavailable("starting".into())))
        }
        fn map(&self) -> Answer<'_, Map> {
            now(Ok(Map::from(&model::tests::map())))
        }
        fn locate(&self, key: Vec<u8>) -> Answer<'_, Locate> {
            now(Ok(Locate::of(&model::tests::map(), &key).unwrap()))
        }
        fn moves(&self) -> Answer<'_, Moves> {
            now(Ok(Moves::default()))
        }
        fn mrc(&self) -> Answer<'_, Mrc> {
            now(Err(AdminError::NotFound("this node draws no curve".into())))
        }
        fn drain(&self, node: NodeId, _: bool) -> Answer<'_, Agreed> {
            agreed(node)
        }
        fn move_shard(&self, _: ShardId, targets: Vec<NodeId>) -> Answer<'_, Agreed> {
            agreed(targets[0])
        }
        fn token(&self, ttl: Duration) -> Answer<'_, Token> {
            let expires_unix_s = ttl.as_secs();
            now(Ok(Token { token: "t".into(), expires_unix_s, seeds: vec!["h1:3".into()] }))
        }
        fn remove(&self, node: NodeId, _: bool) -> Answer<'_, Agreed> {
            agreed(node)
        }
        fn set_voters(&self, voters: Vec<NodeId>) -> Answer<'_, Agreed> {
            agreed(voters[0])
        }
        fn recover(&self, accepts_data_loss: bool) -> Answer<'_, Recovery> {
            now(Ok(Recovery { is_done: accepts_data_loss, shards: Vec::new() }))
        }
    }

    /// An admin port over [`Fake`], for as long as it lives.
    struct Port {
        address: SocketAddr,
        stop: Option<tokio::sync::oneshot::Sender<()>>,
        thread: Option<std::thread::JoinHandle<()>>,
        agent: ureq::Agent,
    }

    impl Port {
        fn open() -> Self {
            let (stop, stopped) = tokio::sync::oneshot::channel();
            let (bound, address) = std::sync::mpsc::channel();
            let thread = std::thread::spawn(move || {
                let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
                    bound.send(listener.local_addr().unwrap()).unwrap();
                    tokio::select! {
                        () = serve(listener, Arc::new(Fake)) => {}
                        _ = stopped => {}
                    }
                });
            });
            let address = address.recv().unwrap();
            let config = ureq::Agent::config_builder().http_status_as_error(false);
            let agent = config.timeout_global(Some(Duration::from_secs(60))).build().new_agent();
            Self { address, stop: Some(stop), thread: Some(thread), agent }
        }

        fn url(&self, path: &str) -> String {
            format!("http://{}{path}", self.address)
        }

        fn get(&self, path: &str) -> (u16, Value) {
            let mut response = self.agent.get(self.url(path)).call().unwrap();
            (response.status().as_u16(), response.body_mut().read_json().unwrap())
        }

        fn post(&self, path: &str, body: &Value) -> (u16, Value) {
            let mut response = self.agent.post(self.url(path)).send_json(body).unwrap();
            (response.status().as_u16(), response.body_mut().read_json().unwrap())
        }
    }

    impl Drop for Port {
        fn drop(&mut self) {
            drop(self.stop.take());
            self.thread.take().unwrap().join().unwrap();
        }
    }

    #[test]
    fn questions_are_answered() {
        let port = Port::open();
        let (status, map) = port.get("/cluster/map");
        assert_eq!((status, &map["cluster"]), (200, &json!("000000000000feed")));
        assert_eq!(port.get("/cluster/moves"), (200, json!({"running": [], "queued": 0})));
        let (status, located) = port.get("/cluster/locate?key=a%2Bb+c%20");
        assert_eq!((status, &located["key"]), (200, &json!("a+b+c ")));
    }

    #[test]
    fn changes_are_agreed_to() {
        let port = Port::open();
        let agreed = (200, json!({"revision": 10}));
        for (path, body) in [
            ("/cluster/drain", json!({"node": 1})),
            ("/cluster/undrain", json!({"node": 1})),
            ("/cluster/move", json!({"shard": 7, "targets": [1, 2]})),
            ("/cluster/remove", json!({"node": 1, "force": true})),
            ("/cluster/remove", json!({"node": 1})),
            ("/cluster/voters", json!({"voters": [1, 2, 3]})),
        ] {
            assert_eq!(port.post(path, &body), agreed, "{path} {body}");
        }
        let (_, token) = port.post("/cluster/token", &json!({"ttl_s": 60}));
        assert_eq!(token, json!({"token": "t", "expires_unix_s": 60, "seeds": ["h1:3"]}));
        assert_eq!(port.post("/cluster/token", &json!({})).1["expires_unix_s"], 900);
        for (body, is_done) in [(json!({}), false), (json!({"accept_data_loss": true}), true)] {
            let answer = json!({"is_done": is_done, "shards": []});
            assert_eq!(port.post("/cluster/recover", &body), (200, answer));
        }
    }

    #[test]
    fn refusals_say_why_and_whose_turn_it_is() {
        let port = Port::open();
        for (path, body, status, reason) in [
            ("/cluster/drain", json!({"node": 2}), 409, "node 2 is the last"),
            ("/cluster/drain", json!({"node": 3}), 503, "has no leader"),
            ("/cluster/drain", json!({"node": 9}), 404, "there is no node 9"),
            ("/cluster/drain", json!({"node": -1}), 422, "-1"),
            ("/cluster/drain", json!({"nodes": 1}), 422, "nodes"),
            ("/cluster/move", json!({"shard": 1, "targets": []}), 400, "no node is named"),
            ("/cluster/move", json!({"shard": 1, "targets": [1, 1]}), 400, "node 1 is there twice"),
            ("/cluster/move", json!({"shard": 70000, "targets": [1]}), 422, "70000"),
            ("/cluster/voters", json!({"voters": []}), 400, "no node is named"),
            ("/cluster/token", json!({"ttl_s": 0}), 400, "lets nobody in"),
            ("/cluster/nothing", json!({}), 404, "no such page"),
            ("/cluster/status", json!({}), 405, "GET is for asking"),
        ] {
            let (found, answer) = port.post(path, &body);
            let said = answer["error"].as_str().unwrap();
            assert_eq!(found, status, "{path} {body}: {said}");
            assert!(said.contains(reason), "{path} {body}: {said}");
        }
        for (path, status) in [
            ("/cluster/status", 503),
            ("/cluster/locate", 400),
            ("/node/mrc", 404),
            ("/cluster/locate?key=", 400),
            ("/cluster/drain", 405),
            ("/", 404),
        ] {
            let (found, answer) = port.get(path);
            assert_eq!(found, status, "{path}");
            assert!(answer["error"].is_string(), "{path}: {answer}");
        }
        let long = "k".repeat(251);
        assert_eq!(port.get(&format!("/cluster/locate?key={long}")).0, 400);
    }

    #[test]
    fn a_body_is_json_says_so_and_is_short() {
        let port = Port::open();
        let agent = &port.agent;
        let post = |kind: &str, body: &str| {
            let request = agent.post(port.url("/cluster/drain")).header("content-type", kind);
            request.send(body).unwrap().status().as_u16()
        };
        assert_eq!(post("application/json", "{\"node\": 1}"), 200);
        assert_eq!(post("application/json", "{\"node\": 1"), 400);
        assert_eq!(post("text/plain", "{\"node\": 1}"), 415);
        let long = format!("{{\"node\": 1{}}}", " ".repeat(BODY_BYTES_MAX));
        assert_eq!(post("application/json", &long), 413);
    }

    #[test]
    fn an_answer_that_does_not_come_is_told() {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::time::pause();
            let request = axum::http::Request::post("/cluster/drain")
                .header("content-type", "application/json")
                .body(axum::body::Body::from("{\"node\": 4}"))
                .unwrap();
            let service = TowerToHyperService::new(router(Arc::new(Fake)));
            let response = hyper::service::Service::call(&service, request).await.unwrap();
            assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        });
    }
}
