//! The two things that threads of the data plane synchronise with. The model test in
//! `tests/mailbox_model.rs` puts loom's in their place.

pub(crate) use parking_lot::Mutex;
pub(crate) use tokio::sync::Notify;
