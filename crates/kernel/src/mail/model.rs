//! Request and response types for emails, as the provider sees them: recipient, subject and delivery state. Bodies are
//! private.

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::http::text;
use crate::listing::{Place, SortOrder};
use crate::stored_enum;

/// Delivery state of an email.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MailState {
    /// Waiting for its first or next attempt.
    Queued,
    /// Being handed to the mail server.
    Sending,
    /// Accepted by the mail server.
    Sent,
    /// Not sent; it is not retried automatically.
    Failed,
    /// Possibly sent: the mail server received it and did not confirm. It is not retried automatically.
    Unknown,
}

stored_enum!(MailState, Self::Unknown);

impl MailState {
    /// The value stored in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// An email, without its body.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MailView {
    /// The email's id, which is part of its Message-ID.
    pub id: Uuid,
    /// The recipient's address.
    #[schema(example = "me@example.com")]
    pub recipient: String,
    /// The subject line.
    pub subject: String,
    /// Delivery state.
    pub state: MailState,
    /// Whether it is held until the mail server is reachable and accepts our email again.
    pub held: bool,
    /// Number of attempts so far.
    pub attempts: i32,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// Time of the next attempt; null if there is none.
    pub next_try_at: Option<DateTime<Utc>>,
    /// When it was first queued.
    pub created_at: DateTime<Utc>,
    /// When the mail server accepted it.
    pub sent_at: Option<DateTime<Utc>>,
}

/// Selects emails.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListMails {
    /// Page number, from 1.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<i64>,
    /// Emails per page: 20 by default, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    /// `next` of the response before: continues the list there, past the last page, too. Not together with `page`.
    #[garde(skip)]
    #[param(value_type = Option<String>)]
    pub after: Option<Place<Uuid>>,
    /// Emails are sorted by the time they were first queued: newest first (`desc`) by default.
    #[garde(skip)]
    #[param(inline)]
    pub order: Option<SortOrder>,
    /// Only emails in this state.
    #[garde(skip)]
    #[param(inline)]
    pub state: Option<MailState>,
    /// Only emails that wait for the mail server, or only those that do not.
    #[garde(skip)]
    pub held: Option<bool>,
    /// Only emails to this address, ignoring case.
    #[garde(inner(length(chars, max = 254), custom(text::plain)))]
    pub recipient: Option<String>,
}
