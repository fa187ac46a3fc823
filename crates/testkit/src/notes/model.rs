//! Request and response types for notes.

use garde::Validate;
use kernel::http::text;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A note.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Note {
    pub id: u32,
    pub text: String,
    /// Whether its operation has pinned it.
    pub pinned: bool,
    /// Whether the task has read it.
    pub read: bool,
}

/// A note that was left, and the operation that pins it.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LeftNote {
    #[serde(flatten)]
    pub note: Note,
    pub operation_id: Uuid,
}

/// A note to leave.
#[derive(Debug, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewNote {
    #[garde(length(chars, max = 100), custom(text::title))]
    pub text: String,
}
