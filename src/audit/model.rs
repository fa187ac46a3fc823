//! Entries of the audit log as they are asked for and shown.

use chrono::{DateTime, Datelike, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::http::page::Order;
use crate::http::text;
use crate::ids::{ServerId, UserId};
use crate::operations::model::State;

/// An entry of the audit log.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its id.
    pub id: Uuid,
    /// When it was begun.
    pub at: DateTime<Utc>,
    /// Who; null for nobody, for the command line, and, to customers, for the provider.
    pub user_id: Option<UserId>,
    /// What they were: `provider`, `customer`, `nobody` (not signed in), `cli` (the command line).
    pub role: String,
    /// The token shown. Null to customers where it is not theirs.
    pub token_id: Option<Uuid>,
    /// From where. Null to customers where it is the provider.
    pub address: Option<String>,
    /// The request's id, as its answer had it.
    pub request_id: Option<String>,
    /// Method and route, or the command.
    #[schema(example = "POST /api/server/{id}/start")]
    pub action: String,
    /// The kind of thing it was done to.
    #[schema(example = "server")]
    pub subject: Option<String>,
    /// Which.
    pub subject_id: Option<String>,
    /// The server that it was done to.
    pub server_id: Option<ServerId>,
    /// The account it was about, where that was not the caller's: of a failed login.
    pub account_id: Option<UserId>,
    /// The answer's status, also where the client left before it. Null while there is none yet.
    pub status: Option<i16>,
    /// The error's code; null where it was done.
    pub code: Option<String>,
    /// When it ended; null while it is under way, and where the process died.
    pub ended_at: Option<DateTime<Utc>>,
    /// The operation that it began, for `GET /api/operations/{id}`.
    pub operation_id: Option<Uuid>,
    /// How that operation stands now.
    pub operation_state: Option<State>,
    /// Why that operation failed.
    pub operation_code: Option<String>,
}

/// Which entries to show.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListEntries {
    /// From 1.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<i64>,
    /// Entries a page: 20, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    /// Entries are sorted by when they were begun.
    #[garde(skip)]
    #[param(inline)]
    pub sort: Option<Sort>,
    /// Newest first (`desc`) if left out.
    #[garde(skip)]
    #[param(inline)]
    pub order: Option<Order>,
    /// By this account.
    #[garde(skip)]
    pub user_id: Option<UserId>,
    /// With this token.
    #[garde(skip)]
    pub token_id: Option<Uuid>,
    /// To this server.
    #[garde(skip)]
    pub server_id: Option<ServerId>,
    /// Method and route, or the command: exactly this.
    #[garde(inner(length(chars, max = 200), custom(text::plain)))]
    pub action: Option<String>,
    /// To things of this kind.
    #[garde(inner(length(chars, max = 200), custom(text::plain)))]
    pub subject: Option<String>,
    /// To the thing with this id.
    #[garde(inner(length(chars, max = 200), custom(text::plain)))]
    pub subject_id: Option<String>,
    /// With this request id.
    #[garde(inner(length(chars, max = 200), custom(text::plain)))]
    pub request_id: Option<String>,
    /// That ended with this error code.
    #[garde(inner(length(chars, max = 200), custom(text::plain)))]
    pub code: Option<String>,
    /// Begun at this time or later.
    #[garde(inner(custom(instant)))]
    pub from: Option<DateTime<Utc>>,
    /// Begun before this time.
    #[garde(inner(custom(instant)))]
    pub to: Option<DateTime<Utc>>,
}

/// A time that a calendar has.
fn instant(at: &DateTime<Utc>, (): &()) -> garde::Result {
    match (0..=9999).contains(&at.year()) {
        true => Ok(()),
        false => Err(garde::Error::new("must be in the years 0 to 9999")),
    }
}

/// Writes of an hour that were refused. The first of them are entries of the log, the others are only counted.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// When the hour began.
    pub hour: DateTime<Utc>,
    /// Who was refused; null: nobody had signed in.
    pub user_id: Option<UserId>,
    /// The account it was about, where nobody had signed in.
    pub account_id: Option<UserId>,
    /// How many there were.
    pub count: i64,
    /// When the last one was.
    pub last_at: DateTime<Utc>,
}

/// What entries can be sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Sort {
    /// When they were begun.
    #[default]
    At,
}
