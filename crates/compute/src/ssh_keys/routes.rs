//! `/api/ssh-keys`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use kernel::auth::{AccessRow, Admission};
use kernel::core::Core;
use kernel::error::Result;
use kernel::http::ErrorBody;
use kernel::http::auth::AccountCaller;
use kernel::http::extract::Json;
use kernel::http::owned::Owned;
use kernel::idempotency::Post;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{NewSshKey, SshKey, SshKeyRecord};
use super::service;
use crate::ids::SshKeyId;

pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(delete))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[
    ("GET", "/api/ssh-keys", Admission::Account),
    ("POST", "/api/ssh-keys", Admission::Account),
    ("DELETE", "/api/ssh-keys/{id}", Admission::Owned),
];

/// My SSH keys
#[utoipa::path(get, path = "/ssh-keys", tag = "ssh keys", operation_id = "listSshKeys",
    responses((status = 200, body = Vec<SshKey>), (status = 403, body = ErrorBody)))]
async fn list(State(core): State<Arc<Core>>, AccountCaller(caller): AccountCaller) -> Result<Json<Vec<SshKey>>> {
    Ok(Json(service::list(&core, caller.account).await?))
}

/// Add an SSH key
#[utoipa::path(post, path = "/ssh-keys", tag = "ssh keys", operation_id = "addSshKey", request_body = NewSshKey,
    responses((status = 201, body = SshKey)))]
async fn add(
    State(core): State<Arc<Core>>,
    AccountCaller(caller): AccountCaller,
    Post(once, new): Post<NewSshKey>,
) -> Result<(StatusCode, Json<SshKey>)> {
    Ok((StatusCode::CREATED, Json(service::add(&core, &once, caller.account, new).await?)))
}

/// Delete an SSH key; servers keep the keys that they were created with
#[utoipa::path(delete, path = "/ssh-keys/{id}", tag = "ssh keys", operation_id = "deleteSshKey",
    params(("id" = SshKeyId, Path, description = "The key's id")), responses((status = 204)))]
async fn delete(State(core): State<Arc<Core>>, access: Owned<SshKeyRecord>) -> Result<StatusCode> {
    service::delete(&core, &access).await?;
    Ok(StatusCode::NO_CONTENT)
}
