//! `Idempotency-Key`: a request sent again, because its answer was lost, is answered again and done once.

pub mod service;
mod store;

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::app::App;
use crate::error::{Error, Result};

/// The header's name.
pub const HEADER: &str = "Idempotency-Key";

/// The client's name for this request, if it gave one: 1 to 255 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(pub Option<String>);

impl FromRequestParts<Arc<App>> for IdempotencyKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self> {
        let Some(value) = parts.headers.get(HEADER) else { return Ok(Self(None)) };
        let fine = |v: &&str| (1..=255).contains(&v.len()) && v.chars().all(|c| c.is_ascii_graphic() || c == ' ');
        match value.to_str().ok().filter(fine) {
            Some(key) => Ok(Self(Some(key.to_owned()))),
            None => Err(Error::field(HEADER, "Must have 1 to 255 printable ASCII characters.")),
        }
    }
}
