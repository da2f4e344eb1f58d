//! What threads of replication synchronise with where there is no lock. The model test in
//! `tests/leases_model.rs` puts loom's in their place.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
