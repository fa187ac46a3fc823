//! Operations as people see them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::ServerId;
use crate::stored::stored;

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Another operation is at work on its server, and this one is next, whatever becomes of that; `error` says what it
    /// waits for.
    Waiting,
    /// Nobody works on it yet.
    Queued,
    /// Under way.
    Running,
    /// It failed, and what it had done is being taken back.
    Undoing,
    /// Ended as asked.
    Succeeded,
    /// Ended, cleanly undone.
    Failed,
    /// It could be neither ended nor undone: a person must look.
    Stuck,
    /// One that a newer version knows and this one does not.
    #[serde(skip_deserializing)]
    Unknown,
}

stored!(State, Self::Unknown);

impl State {
    /// Whether it has ended for good.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// Why an operation failed, or is being retried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationError {
    /// One of the closed list of codes.
    pub code: String,
    /// What happened, for the customer.
    pub message: String,
    /// The host's own words: for providers only, null for everyone else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// An operation, as the API and the `operation` event show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationView {
    /// Its id.
    pub id: Uuid,
    /// Whose.
    pub server_id: ServerId,
    /// What it does: `create`, `start`, ….
    pub kind: String,
    /// Where it stands.
    pub state: State,
    /// 0 to 100.
    pub progress: u8,
    /// The step at work.
    pub step: String,
    /// Why it failed, or, while it runs, why a step is being retried, or what it waits for.
    pub error: Option<OperationError>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When work on it began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
}
