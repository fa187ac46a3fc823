//! How many requests a minute: by token, and by address for who shows none. The allowance holds for all processes
//! together, and a request asks nobody: a process takes a share of a minute's allowance from the database at a time.

mod layer;
mod service;
mod store;

pub(crate) use layer::limit;
pub use service::{Limits, purge};
