//! Access to a server: the extractor answers 404 to everyone who may not know that the server exists.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use kernel::auth::Caller;
use kernel::error::{Error, Result};
use kernel::http::auth::{AnyCaller, core, level};
use kernel::http::extract::Path;
use serde::Deserialize;

use super::model::ServerRecord;
use super::service;
use crate::ids::ServerId;

/// A server that the caller may read (GET) or change (other methods).
#[derive(Debug, Clone)]
pub struct ServerAccess {
    /// The caller.
    pub caller: Caller,
    /// The server, never a deleted one.
    pub server: ServerRecord,
}

#[derive(Deserialize)]
struct ServerPath {
    id: ServerId,
}

impl<S: Send + Sync> FromRequestParts<S> for ServerAccess {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let AnyCaller(caller) = AnyCaller::from_request_parts(parts, state).await?;
        // By name: a path may have more parameters.
        let Path(ServerPath { id }) = Path::<ServerPath>::from_request_parts(parts, state).await?;
        let server = service::accessible(core(&parts.extensions)?, &caller, id, level(&parts.method)).await?;
        Ok(Self { caller, server })
    }
}
