//! The one way to a server: the extractor that answers 404 to everyone who may not know it.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;

use super::model::ServerRecord;
use super::service;
use crate::accounts::model::Caller;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::auth::{Anyone, level};
use crate::http::extract::Path;
use crate::ids::ServerId;

/// A server that the caller may look at (GET) or change (other methods).
#[derive(Debug, Clone)]
pub struct ServerAccess {
    /// Who asks.
    pub caller: Caller,
    /// The server, which is not deleted.
    pub server: ServerRecord,
}

#[derive(Deserialize)]
struct Named {
    id: ServerId,
}

impl FromRequestParts<Arc<App>> for ServerAccess {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        let Anyone(caller) = Anyone::from_request_parts(parts, app).await?;
        // By its name: a path may have more parameters.
        let Path(Named { id }) = Path::<Named>::from_request_parts(parts, app).await?;
        let server = service::reach(app, &caller, id, level(&parts.method)).await?;
        Ok(Self { caller, server })
    }
}
