//! Guests that carry our marker but belong to no server: left behind by a restored database, or by manual changes on a
//! host. They are reported, their addresses and numbers are reserved, and a provider can turn them into servers. This
//! module never changes a guest.

mod feature;
pub mod model;
mod routes;
pub mod service;
mod store;

pub use feature::UnknownGuests;
