//! How many requests a minute: by token and account, and by address for who shows no good token. The allowance holds for
//! all processes together, and a request asks nobody: a process takes a share of a minute's allowance from the database
//! at a time. What costs the database nothing (pages, health) is counted by each process alone. And how many connections
//! an address may have.

mod feature;
mod layer;
mod places;
mod service;
mod store;
mod turns;

pub use feature::Limiting;
pub(crate) use layer::{Refused, limit, note_refusal};
pub use places::{Place, Places};
pub use service::{Allowance, Limits, Who};
pub use turns::Turns;
