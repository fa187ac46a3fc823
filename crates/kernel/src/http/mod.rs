//! Transport only: the router, the layers every request passes, extractors, errors, pages, OpenAPI, health.

pub mod auth;
mod carry;
mod client;
pub mod embedded;
mod error;
pub mod extract;
mod health;
mod native;
pub mod openapi;
pub mod owned;
pub mod page;
pub mod patch;
pub mod patience;
mod rights;
mod router;
pub mod server;
pub mod text;

pub use error::ErrorBody;
pub(crate) use error::status;
pub use health::{ACCESS, describe, figures};
pub(crate) use native::Outside;
pub use router::{router, routes};
