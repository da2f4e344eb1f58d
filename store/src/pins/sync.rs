//! What pins synchronise with. The model test in `tests/pins_model.rs` puts loom's in its place.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicU32, Ordering};
