//! Guests that carry our marker and that no server goes with: what a restored database, or somebody's hands on a host,
//! left behind. They are reported, their addresses and numbers are held back, and a provider can make servers of them.
//! None is ever changed from here.

mod feature;
pub mod model;
mod routes;
pub mod service;
mod store;

pub use feature::UnknownGuests;
