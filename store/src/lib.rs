//! stub
pub mod budget;
pub mod config;
pub mod hash;
pub mod record;
pub mod time;
pub use budget::Budget;
pub use config::{Config, Geometry};
