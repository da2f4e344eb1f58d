//! Looks after running servers: `cache-ctl backup`, `restore`, `dump`.
//!
//! ```text
//! server <──slices of items── connection.rs <── backup.rs ──> backup_file.rs ──> FILE
//!                                           <── restore.rs <─
//!                                           <── dump.rs ──> json lines, csv
//! ```
//!
//! One file per subcommand. Nothing is held whole: neither the server's items nor the file. What
//! travels and what stands in the file is `protocol::backup`'s.

pub mod backup;
pub mod backup_file;
pub mod cli;
pub mod connection;
pub mod dump;
pub mod new_file;
pub mod progress;
pub mod restore;
