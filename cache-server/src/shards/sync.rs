//! What threads that read without a lock synchronise with. The model test in `tests/versions_model.rs` puts
//! loom's in its place.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
