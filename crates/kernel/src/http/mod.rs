//! Transport only: the router, the layers every request passes, extractors, errors, pages, OpenAPI, health.

pub mod auth;
mod carry;
mod client;
mod error;
pub mod extract;
mod health;
pub mod openapi;
pub mod page;
pub mod patch;
pub mod patience;
mod rights;
mod router;
pub mod server;
pub mod text;

pub use client::ClientAddress;
pub use error::ErrorBody;
pub use health::{ACCESS, describe, figures};
pub use router::{router, routes};
