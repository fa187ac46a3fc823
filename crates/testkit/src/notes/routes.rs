//! `/api/notes`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use kernel::auth::{AccessRow, Admission};
use kernel::error::Result;
use kernel::http::auth::{AccountCaller, ProviderCaller};
use kernel::http::extract::{Json, Path};
use kernel::idempotency::Post;
use kernel::operations::NewOperation;
use kernel::subjects::Subject;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{LeftNote, NewNote, Note};
use super::{Notes, subject, workflow};

pub(super) fn routes() -> OpenApiRouter<Arc<Notes>> {
    OpenApiRouter::new().routes(routes!(list, leave, forget)).routes(routes!(mark_read))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[
    ("GET", "/api/notes", Admission::Account),
    ("POST", "/api/notes", Admission::Account),
    ("DELETE", "/api/notes", Admission::Provider),
    ("PUT", "/api/notes/{id}/read", Admission::Provider),
];

/// My notes
#[utoipa::path(get, path = "/notes", tag = "notes", operation_id = "listNotes",
    responses((status = 200, body = Vec<Note>)))]
async fn list(State(notes): State<Arc<Notes>>, AccountCaller(caller): AccountCaller) -> Json<Vec<Note>> {
    Json(notes.of(caller.account))
}

/// Leave a note, which an operation pins
#[utoipa::path(post, path = "/notes", tag = "notes", operation_id = "leaveNote", request_body = NewNote,
    responses((status = 201, body = LeftNote)))]
async fn leave(
    State(notes): State<Arc<Notes>>,
    AccountCaller(caller): AccountCaller,
    Post(once, new): Post<NewNote>,
) -> Result<(StatusCode, Json<LeftNote>)> {
    let core = &notes.core;
    let left = once.run(core, async |tx| {
        let note = notes.leave(caller.account, new.text);
        let operation = NewOperation {
            kind: workflow::PIN,
            subject: Subject::new(subject::KIND, note.id),
            lane: "notes".to_owned(),
            account: Some(caller.account),
            data: workflow::Nothing {},
            user: Some(caller.user),
            deadline: Duration::from_mins(1),
        };
        Ok(LeftNote { note, operation_id: core.engine.enqueue(tx, operation).await? })
    });
    Ok((StatusCode::CREATED, Json(left.await?)))
}

/// Forget everybody's notes
#[utoipa::path(delete, path = "/notes", tag = "notes", operation_id = "forgetNotes",
    responses((status = 204)))]
async fn forget(State(notes): State<Arc<Notes>>, _: ProviderCaller) -> StatusCode {
    notes.forget(|_| true);
    StatusCode::NO_CONTENT
}

/// Mark a note as read
#[utoipa::path(put, path = "/notes/{id}/read", tag = "notes", operation_id = "markNoteRead",
    params(("id" = u32, Path, description = "The note's id")), responses((status = 204)))]
async fn mark_read(State(notes): State<Arc<Notes>>, _: ProviderCaller, Path(id): Path<u32>) -> StatusCode {
    notes.change(&id.to_string(), |note| note.read = true);
    StatusCode::NO_CONTENT
}
