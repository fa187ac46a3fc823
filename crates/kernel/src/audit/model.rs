//! Request and response types for the audit log.

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::http::text;
use crate::ids::{AccountId, UserId};
use crate::listing::{Place, SortOrder};
use crate::operations::model::OperationState;

/// An entry of the audit log.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// The entry's id.
    pub id: Uuid,
    /// When the action began.
    pub at: DateTime<Utc>,
    /// The user who acted; null for unauthenticated clients, for the command line and, if a customer reads the entry,
    /// for staff of the provider and members of their reseller.
    pub user_id: Option<UserId>,
    /// Who acted: `provider` (its staff), `reseller` (members of one), `customer`, `nobody` (unauthenticated) or `cli`
    /// (the command line).
    pub role: String,
    /// The id of the token that was sent. Null to customers where it is not theirs.
    pub token_id: Option<Uuid>,
    /// The client's address. Customers get null if the provider acted.
    pub address: Option<String>,
    /// The request id, as sent in the response.
    pub request_id: Option<String>,
    /// Method and route, or the command.
    #[schema(example = "POST /api/server/{id}/start")]
    pub action: String,
    /// The kind of object that the action applied to.
    #[schema(example = "server")]
    pub subject: Option<String>,
    /// The object's id.
    pub subject_id: Option<String>,
    /// The server that the action applied to.
    pub server_id: Option<i64>,
    /// The subject that the action was about, regardless of the route: its kind and its id.
    #[schema(example = "server:1")]
    pub about: Option<String>,
    /// The account that the action was done for, or that it concerned.
    pub account_id: Option<AccountId>,
    /// The reason that the provider's staff gave, if they had to give one.
    pub reason: Option<String>,
    /// Status of the response, even if the client disconnected before it was sent. Null until there is one.
    pub status: Option<i16>,
    /// The error code; null on success.
    pub code: Option<String>,
    /// When the action ended; null while it is in progress, or if the process died.
    pub ended_at: Option<DateTime<Utc>>,
    /// The operation that it started, for `GET /api/operations/{id}`.
    pub operation_id: Option<Uuid>,
    /// Current state of that operation.
    pub operation_state: Option<OperationState>,
    /// Why that operation failed.
    pub operation_code: Option<String>,
}

/// Selects audit entries.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListEntries {
    /// Page number, from 1.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<i64>,
    /// Entries per page: 20 by default, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    /// `next` of the response before: continues the list there, past the last page, too. Not together with `page`.
    #[garde(skip)]
    #[param(value_type = Option<String>)]
    pub after: Option<Place<Uuid>>,
    /// Sort key: entries are sorted by the time they began.
    #[garde(skip)]
    #[param(inline)]
    pub sort: Option<Sort>,
    /// Newest first (`desc`) by default.
    #[garde(skip)]
    #[param(inline)]
    pub order: Option<SortOrder>,
    /// Only actions of this user.
    #[garde(skip)]
    pub user_id: Option<UserId>,
    /// Only actions with this token.
    #[garde(skip)]
    pub token_id: Option<Uuid>,
    /// Only actions on this server.
    #[garde(skip)]
    #[param(value_type = Option<i64>)]
    pub server_id: Option<i64>,
    /// Only actions about this subject, such as `server:12`.
    #[garde(inner(length(chars, max = 300), custom(text::plain)))]
    pub about: Option<String>,
    /// Method and route, or the command: an exact match.
    #[garde(inner(length(chars, max = 200), custom(text::plain)))]
    pub action: Option<String>,
    /// Only actions on objects of this kind.
    #[garde(inner(length(chars, max = 200), custom(text::plain)))]
    pub subject: Option<String>,
    /// Only actions on the object with this id.
    #[garde(inner(length(chars, max = 200), custom(text::plain)))]
    pub subject_id: Option<String>,
    /// Only actions with this request id.
    #[garde(inner(length(chars, max = 200), custom(text::plain)))]
    pub request_id: Option<String>,
    /// Only actions that ended with this error code.
    #[garde(inner(length(chars, max = 200), custom(text::plain)))]
    pub code: Option<String>,
    /// Only actions that began at this time or later.
    #[garde(inner(custom(text::instant)))]
    pub from: Option<DateTime<Utc>>,
    /// Only actions that began before this time.
    #[garde(inner(custom(text::instant)))]
    pub to: Option<DateTime<Utc>>,
}

/// The refused writes of an hour. The first of them are entries in the audit log, the others are only counted.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusedWrites {
    /// Start of the hour.
    pub hour: DateTime<Utc>,
    /// The user who was refused; null for unauthenticated clients.
    pub user_id: Option<UserId>,
    /// The account that the requests were made for, or that an unauthenticated one concerned.
    pub account_id: Option<AccountId>,
    /// Number of refused writes.
    pub count: i64,
    /// Time of the last one.
    pub last_at: DateTime<Utc>,
}

/// Sort keys for entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Sort {
    /// The time an entry began.
    #[default]
    At,
}
