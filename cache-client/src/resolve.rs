//! `Resolve`: from the name of a server to its addresses, at each new connection and from time to time in between.
//!
//! ```text
//! connected to one of them ──lifetime over──> asked again ──still among them──> asked again later
//!                                                │ none of them any more
//!                                                └──> calls under way end, new ones wait ──> connected anew
//! ```
//!
//! A resolver that fails changes nothing: what is connected stays connected. A server that is named by its IP address, or
//! by a path, is not asked for.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use tokio::time::Instant;

use crate::random::Random;
use crate::retry::{Refresh, RefreshConfig};

/// The addresses of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// All of them; any is as good as the others.
    pub addresses: Vec<SocketAddr>,
    /// For how long they are good, if the answer says so; [`RefreshConfig::lifetime`] where it does not.
    pub lifetime: Option<Duration>,
}

/// What a resolver answers, later.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Resolved>> + Send + 'a>>;

/// Who knows the addresses of names.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// The addresses of `host`, with `port`.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a>;
}

/// The operating system's resolver, which does not tell how long an answer is good.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a> {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((host, port)).await?.collect();
            Ok(Resolved { addresses, lifetime: None })
        })
    }
}

/// What a connection was made by: asked for again, it may say that the server is somewhere else.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Which of the addresses is connected to.
    pub(crate) peer: SocketAddr,
    pub(crate) lifetime: Option<Duration>,
}

impl Lookup {
    /// Of `host`, if that is a name.
    pub(crate) fn of(host: &str, port: u16, peer: SocketAddr, resolved: &Resolved) -> Option<Self> {
        let is_name = host.parse::<IpAddr>().is_err();
        is_name.then(|| Self { host: host.to_owned(), port, peer, lifetime: resolved.lifetime })
    }

    /// Asks from time to time, until the address is none of the name's any more.
    pub(crate) async fn until_moved(
        self,
        resolver: Arc<dyn Resolve>,
        config: RefreshConfig,
        seed: u64,
    ) {
        let now = || Instant::now().into_std();
        let (mut refresh, mut random) = (Refresh::new(config), Random::new(seed));
        refresh.ask(now());
        refresh.answered(now(), self.lifetime, &mut random);
        while let Some(due) = refresh.due_at() {
            tokio::time::sleep_until(due.into()).await;
            refresh.ask(now());
            match resolver.resolve(&self.host, self.port).await {
                Ok(found) if found.addresses.contains(&self.peer) => {
                    refresh.answered(now(), found.lifetime, &mut random);
                }
                Ok(found) if !found.addresses.is_empty() => return,
                Ok(_) | Err(_) => refresh.failed(now(), &mut random),
            }
        }
    }
}
