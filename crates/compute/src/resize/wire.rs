//! The response of the server-management API to a resize.

use serde::Serialize;
use uuid::Uuid;

use super::service::Resized;
use crate::servers::wire::{SUCCESS, task_id};

/// The response to a request for another size.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resizing {
    /// `success`: the request was accepted.
    pub status: &'static str,
    /// The host's own task id, the operation's id if the host has none (yet), or `unchanged`.
    pub data: String,
    /// Whether the server is restarted for it.
    pub restart: bool,
    /// The operation, for `GET /api/operations/{id}`; null if the server already has that size.
    pub operation_id: Option<Uuid>,
}

impl From<Resized> for Resizing {
    fn from(resized: Resized) -> Self {
        let (accepted, restart) = match &resized {
            Resized::Unchanged => (None, false),
            Resized::Accepted { accepted, restart } => (Some(accepted), *restart),
        };
        Self {
            status: SUCCESS,
            data: accepted.map_or_else(|| "unchanged".to_owned(), task_id),
            restart,
            operation_id: accepted.map(|accepted| accepted.operation),
        }
    }
}
