//! Request and response types for notes.

use garde::Validate;
use kernel::http::text;
use serde::{Deserialize, Serialize};

/// A note.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Note {
    pub text: String,
    /// Whether the task has read it.
    pub read: bool,
}

/// A note to leave.
#[derive(Debug, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewNote {
    #[garde(length(chars, max = 100), custom(text::title))]
    pub text: String,
}
