//! `/api/notes`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use kernel::auth::{AccessRow, Admission};
use kernel::error::Result;
use kernel::http::ErrorBody;
use kernel::http::auth::{AccountCaller, ProviderCaller};
use kernel::http::extract::Json;
use kernel::idempotency::{OnceStart, Post};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Notes;
use super::model::{NewNote, Note};

pub(super) fn routes() -> OpenApiRouter<Arc<Notes>> {
    OpenApiRouter::new().routes(routes!(list, leave, forget))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[
    ("GET", "/api/notes", Admission::Account),
    ("POST", "/api/notes", Admission::Account),
    ("DELETE", "/api/notes", Admission::Provider),
];

/// My notes
#[utoipa::path(get, path = "/notes", tag = "notes", operation_id = "listNotes",
    responses((status = 200, body = Vec<Note>), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn list(State(notes): State<Arc<Notes>>, AccountCaller(caller): AccountCaller) -> Json<Vec<Note>> {
    Json(notes.of(caller.user))
}

/// Leave a note
#[utoipa::path(post, path = "/notes", tag = "notes", operation_id = "leaveNote", request_body = NewNote,
    responses((status = 201, body = Note), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn leave(
    State(notes): State<Arc<Notes>>,
    AccountCaller(caller): AccountCaller,
    Post(once, new): Post<NewNote>,
) -> Result<(StatusCode, Json<Note>)> {
    let note = match once.begin(&notes.core).await? {
        OnceStart::New(tx) => tx.finish(&notes.core, notes.leave(caller.user, new.text)).await?,
        OnceStart::Done(note) => note,
    };
    Ok((StatusCode::CREATED, Json(note)))
}

/// Forget everybody's notes
#[utoipa::path(delete, path = "/notes", tag = "notes", operation_id = "forgetNotes",
    responses((status = 204), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn forget(State(notes): State<Arc<Notes>>, _: ProviderCaller) -> StatusCode {
    notes.forget(|_| true);
    StatusCode::NO_CONTENT
}
