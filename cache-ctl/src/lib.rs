//! Looks after running servers: `cache-ctl backup`, `restore`, `dump`, `mrc`; and after clusters of them:
//! `status`, `map`, `locate`, `moves`, `move`, `add`, `drain`, `undrain`, `remove`, `voters`,
//! `recover`.
//!
//! ```text
//! server <──slices of items── connection.rs <── backup.rs ──> backup_file.rs ──> FILE
//!                                           <── restore.rs <─
//!                                           <── dump.rs ──> json lines, csv
//! node   <──JSON over HTTP─── admin.rs <── status.rs, map.rs, locate.rs, moves.rs, membership.rs, recover.rs
//!                                                                      ──> output.rs ──> table, json
//! ```
//!
//! Of items nothing is held whole: neither the server's nor the file. What travels and what stands in the
//! file is `protocol::backup`'s.

pub mod admin;
pub mod backup;
pub mod backup_file;
pub mod cli;
pub mod connection;
pub mod dump;
pub mod locate;
pub mod map;
pub mod membership;
pub mod moves;
pub mod mrc;
pub mod new_file;
pub mod output;
pub mod progress;
pub mod recover;
pub mod restore;
pub mod status;
