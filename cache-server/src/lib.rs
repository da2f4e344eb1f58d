//! A cache server that speaks memcached's protocol: `Server::start` and `Server::stop`.
//!
//! ```
//! use std::io::{Read, Write};
//!
//! use cache_server::{Config, Listen, Server};
//!
//! let config = Config { listen: vec![Listen::loopback(0)], ..Config::default() };
//! let server = Server::start(&config)?;
//! let mut client = std::net::TcpStream::connect(server.address().expect("TCP is served"))?;
//! client.write_all(b"mn\r\nquit\r\n")?;
//! let mut answer = String::new();
//! client.read_to_string(&mut answer)?;
//! assert_eq!(answer, "MN\r\n");
//! server.stop();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod admin;
pub mod administration;
pub mod authentication;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod cluster_dir;
pub mod cluster_node;
pub mod commands;
pub mod config;
pub mod control_plane;
mod dump;
pub mod live_curve;
pub mod local_cluster;
pub mod logging;
pub mod maintenance;
pub mod memory_file;
pub mod net;
pub mod observe;
pub mod peer;
pub mod pid_file;
pub mod port_file;
pub mod process;
mod replication;
pub mod residency;
pub mod restoring;
mod routing;
pub mod scheduled_backup;
pub mod server;
pub mod service;
pub mod shards;
pub mod signal;
pub mod stats;
pub mod tls;

pub use config::{Config, Listen};
pub use server::{Server, StartError};
