//! An asynchronous memcached client that follows a cluster.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use cache_client::{Client, Config, Error, Fate};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(Config::new(["127.0.0.1:11211".parse()?]));
//!
//! client.set("greeting", "hello", Duration::from_secs(60)).await?;
//! let greeting = client.get("greeting").await?;
//! assert_eq!(greeting.map(|value| value.data), Some("hello".into()));
//!
//! // A write that failed says whether it was carried out.
//! match client.incr("visits", 1).await {
//!     Ok(visits) => println!("{visits:?}"),
//!     Err(error) if error.fate() == Fate::DidNotHappen => println!("try again: {error}"),
//!     Err(error) => println!("it may have been counted: {error}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! All tasks share a [`Client`], and with it one connection to each server, or a few: requests of tasks that run at
//! the same time leave in one write, and their answers come in one read (`connection.rs`).
//!
//! What is promised, and the bounds: `docs/client.md`.

pub mod address;
pub mod balance;
pub mod client;
mod clock;
pub mod codec;
pub mod compute;
pub mod config;
mod connection;
pub mod error;
mod fleet;
mod follow;
pub mod near;
mod pool;
pub mod random;
pub mod resolve;
pub mod retry;
pub mod routing;
#[cfg(feature = "tower-sessions")]
pub mod sessions;
pub mod ttl;
pub mod value;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod test_time;

pub use address::Address;
pub use client::{Client, Lookup, Put};
pub use codec::{Codec, Format};
pub use config::{
    BalanceConfig, Config, ConnectionConfig, Credentials, Dialect, Mode, ReadFrom, Tls,
};
pub use error::{Error, Fate};
pub use near::{Near, NearConfig};
pub use protocol::request::StoreMode;
pub use routing::Server;
pub use ttl::Ttl;
pub use value::{Found, Value, Written};
