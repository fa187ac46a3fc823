//! Operations as the API shows them.

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::http::text;
use crate::ids::AccountId;
use crate::listing::Place;
use crate::stored_enum;
use crate::subjects::Subject;

/// Selects a part of a subject's operations.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListSubjectOperations {
    /// Page number, from 1.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<i64>,
    /// Operations per page: 20 by default, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    /// `next` of the response before: continues the list there, past the last page, too. Not together with `page`.
    #[garde(skip)]
    #[param(value_type = Option<String>)]
    pub after: Option<Place<Uuid>>,
}

/// Selects operations.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListOperations {
    /// Page number, from 1.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<i64>,
    /// Operations per page: 20 by default, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    /// `next` of the response before: continues the list there, past the last page, too. Not together with `page`.
    #[garde(skip)]
    #[param(value_type = Option<String>)]
    pub after: Option<Place<Uuid>>,
    /// Only those in this state.
    #[garde(skip)]
    #[param(inline)]
    pub state: Option<OperationState>,
    /// Only those that do this: `create`, `start`, ….
    #[garde(inner(length(chars, max = 100), custom(text::plain)))]
    pub kind: Option<String>,
    /// Only those on this subject, such as `server:12`.
    #[garde(inner(length(chars, max = 300), custom(text::plain)))]
    pub subject: Option<String>,
    /// Staff: only those in this lane, such as a host's: `host:3`.
    #[garde(inner(length(chars, max = 300), custom(text::plain)))]
    pub lane: Option<String>,
    /// Staff: only those on what this account owns.
    #[garde(skip)]
    pub account_id: Option<AccountId>,
    /// Only those that were requested at this time or later.
    #[garde(inner(custom(text::instant)))]
    pub from: Option<DateTime<Utc>>,
    /// Only those that were requested before this time.
    #[garde(inner(custom(text::instant)))]
    pub to: Option<DateTime<Utc>>,
}

/// State of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OperationState {
    /// Another operation holds the subject, and this one runs next, whatever its outcome; `error` says what it waits
    /// for.
    Waiting,
    /// No worker has claimed it yet.
    Queued,
    /// In progress.
    Running,
    /// It failed, and what it had done is being undone.
    Undoing,
    /// Completed.
    Succeeded,
    /// Failed, and cleanly undone.
    Failed,
    /// It could be neither completed nor undone: manual intervention is required.
    Stuck,
    /// A state that only a newer version knows.
    #[serde(skip_deserializing)]
    Unknown,
}

stored_enum!(OperationState, Self::Unknown);

impl OperationState {
    /// Whether it has ended for good.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// Why an operation failed, or is being retried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationError {
    /// An error code from the closed list.
    pub code: String,
    /// What happened, for the customer.
    pub message: String,
    /// The host's own message: for providers only, null for everyone else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// An operation, as the API and the `operation` event show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationView {
    /// The operation's id.
    pub id: Uuid,
    /// Its number, for people.
    pub number: i64,
    /// What it works on: a kind and an id.
    #[schema(value_type = String, example = "server:1")]
    pub subject: Subject,
    /// The server it works on; null if that is something else.
    #[schema(example = 1)]
    pub server_id: Option<i64>,
    /// What it does: `create`, `start`, ….
    pub kind: String,
    /// Its current state.
    pub state: OperationState,
    /// Progress in percent, 0 to 100.
    pub progress: u8,
    /// The current step.
    pub step: String,
    /// Why it failed or, while it runs, why a step is being retried or what it waits for.
    pub error: Option<OperationError>,
    /// When it was requested.
    pub created_at: DateTime<Utc>,
    /// When work on it started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
}
