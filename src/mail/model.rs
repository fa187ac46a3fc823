//! Mails as the provider sees them: to whom, about what, and what became of them. What is in them is nobody's business.

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::http::page::Order;
use crate::http::text;
use crate::stored::stored;

/// How a mail stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MailState {
    /// It waits for its first or its next try.
    Queued,
    /// It is being handed over.
    Sending,
    /// The mail server has it.
    Sent,
    /// It is not out, and is not tried again by itself.
    Failed,
    /// It may be out: the mail server had it and did not say. It is not tried again by itself.
    Unknown,
}

stored!(MailState, Self::Unknown);

impl MailState {
    /// As stored.
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

/// A mail, without what is in it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MailView {
    /// Its id, which is in its Message-ID too.
    pub id: Uuid,
    /// To whom.
    #[schema(example = "me@example.com")]
    pub recipient: String,
    /// What it is about.
    pub subject: String,
    /// How it stands.
    pub state: MailState,
    /// Whether it waits for the mail server, which is away or takes no mail from us, for as long as that lasts.
    pub held: bool,
    /// Tries so far.
    pub attempts: i32,
    /// Why the last try failed.
    pub error: Option<String>,
    /// When it is tried next; null where it is not.
    pub next_try_at: Option<DateTime<Utc>>,
    /// When it was queued first.
    pub created_at: DateTime<Utc>,
    /// When the mail server took it.
    pub sent_at: Option<DateTime<Utc>>,
}

/// Which mails to show.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListMails {
    /// From 1.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<i64>,
    /// Mails a page: 20, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    /// Mails are sorted by when they were queued first: newest first (`desc`) if left out.
    #[garde(skip)]
    #[param(inline)]
    pub order: Option<Order>,
    /// Those that stand so.
    #[garde(skip)]
    #[param(inline)]
    pub state: Option<MailState>,
    /// Those that wait for the mail server, or those that do not.
    #[garde(skip)]
    pub held: Option<bool>,
    /// Those to this address, without regard to case.
    #[garde(inner(length(chars, max = 254), custom(text::plain)))]
    pub recipient: Option<String>,
}
