//! A shop of two pages, whose sessions are tower-sessions', in the cache.
//!
//! ```text
//! CACHE_NODES=127.0.0.1:21000,127.0.0.1:21001 PORT=8080 axum-shop
//!
//! request ──> the session's lock, if it may change it ──> tower-sessions ──> a handler
//!             given back when the session is written      reads, and writes what was changed
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::extract::{Form, Request, State};
use axum::http::header::COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cache_client::sessions::{LockConfig, Locks, Sessions, SessionsConfig};
use cache_client::{Client, Config};
use serde::{Deserialize, Serialize};
use tower_sessions::session::{self, Id};
use tower_sessions::{Expiry, Session, SessionManagerLayer};

/// The cookie that holds the session's id.
const COOKIE_NAME: &str = "id";

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let port = std::env::var("PORT").context("PORT")?.parse().context("PORT")?;
    let nodes = std::env::var("CACHE_NODES").context("CACHE_NODES")?;
    let nodes: Vec<_> = nodes.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let client = Client::new(Config {
        // Longer than a node takes to say that it cannot say (5 s), so that no write is under way any more when its
        // outcome is called unknown.
        timeout: Duration::from_secs(8),
        // Each of them knows the others, and who holds which key.
        ..Config::cluster(nodes)
    });
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    axum::serve(listener, shop(client)).await?;
    Ok(())
}

fn shop(client: Client) -> Router {
    // A replica that is killed keeps its locks for a lease. Who waits for one waits longer than that, and shorter
    // than the balancer does.
    let (lease, wait) = (Duration::from_secs(4), Duration::from_secs(12));
    let locks = LockConfig { lease, wait, ..LockConfig::default() };
    // What is only looked at lives on as well, at the cost of a write in half a day.
    let sessions = SessionsConfig { touch_below: Some(0.5), ..SessionsConfig::default() };
    let sessions = SessionManagerLayer::new(Sessions::with_config(client.clone(), sessions))
        .with_name(COOKIE_NAME)
        .with_expiry(Expiry::OnInactivity(time::Duration::DAY))
        // Nothing here leaves this machine.
        .with_secure(false);
    let locks = Locks::with_config(client, locks);
    Router::new()
        .route("/", get(home))
        .route("/login", post(login))
        .route("/cart", post(add_to_cart))
        .route("/logout", post(logout))
        .layer(sessions)
        // Around the layer that reads the session and writes it.
        .layer(middleware::from_fn_with_state(locks, one_at_a_time))
        .route("/health", get(health))
}

/// Has one request of a session at a time change it. Those that only look need not wait.
async fn one_at_a_time(
    State(locks): State<Locks>,
    request: Request,
    next: Next,
) -> Result<Response, Unavailable> {
    let id = session_id(request.headers()).filter(|_| !request.method().is_safe());
    let Some(id) = id else { return Ok(next.run(request).await) };
    let lock = locks.lock(id).await.map_err(Unavailable::because)?;
    let response = tokio::select! {
        response = next.run(request) => response,
        // Somebody else may be at it.
        () = lock.lost() => return Err(Unavailable::because("the lock was lost")),
    };
    // The next one need not wait for the answer to be sent. What cannot be given back ends by itself.
    drop(lock);
    Ok(response)
}

fn session_id(headers: &HeaderMap) -> Option<Id> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = cookies.flat_map(|value| value.split(';')).map(str::trim);
    cookies.find_map(|cookie| {
        let (name, value) = cookie.split_once('=')?;
        (name == COOKIE_NAME).then(|| value.parse().ok())?
    })
}

/// Who is logged in, and what of theirs the session holds.
#[derive(Serialize)]
struct Page {
    user: Option<String>,
    cart: u64,
}

#[derive(Deserialize)]
struct Login {
    user: String,
}

async fn home(session: Session) -> Result<Response, Unavailable> {
    page(&session).await
}

async fn login(session: Session, Form(login): Form<Login>) -> Result<Response, Unavailable> {
    // Another id than before: whoever knew that one is not logged in by it.
    if session.id().is_some() {
        session.flush().await?;
    }
    session.insert("user", login.user).await?;
    page(&session).await
}

async fn add_to_cart(session: Session) -> Result<Response, Unavailable> {
    if session.get::<String>("user").await?.is_some() {
        let cart: u64 = session.get("cart").await?.unwrap_or_default();
        session.insert("cart", cart + 1).await?;
    }
    page(&session).await
}

async fn logout(session: Session) -> Result<StatusCode, Unavailable> {
    if session.id().is_some() {
        session.flush().await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Whether this replica takes requests. Not whether the cache does: another replica would find the same.
async fn health() -> StatusCode {
    StatusCode::NO_CONTENT
}

async fn page(session: &Session) -> Result<Response, Unavailable> {
    let user: Option<String> = session.get("user").await?;
    let cart = session.get("cart").await?.unwrap_or_default();
    let status = if user.is_some() { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    Ok((status, Json(Page { user, cart })).into_response())
}

/// The cache could not be asked. Whether somebody is logged in is then not known, and not denied.
struct Unavailable;

impl Unavailable {
    fn because(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error);
        Self
    }
}

impl From<session::Error> for Unavailable {
    fn from(error: session::Error) -> Self {
        Self::because(error)
    }
}

impl IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    }
}
