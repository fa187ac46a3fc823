//! Request and response types for users as staff see them, and for login links.

use chrono::{DateTime, Utc};
use garde::Validate;
use kernel::auth::{MemberRole, StaffRole};
use kernel::http::patch::Patch;
use kernel::http::text;
use kernel::ids::{AccountId, UserId};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::members::model::AccountKind;
use crate::model::{AlertMails, Language, User, bounded, strong};

/// Selects users.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListUsers {
    /// Page number, from 1. The oldest users come first.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<i64>,
    /// Users per page: 20 by default, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    /// `next` of the response before: continues the list there, past the last page, too. Not together with `page`.
    #[garde(skip)]
    pub after: Option<UserId>,
    /// Only users whose name or address contains this text, ignoring case.
    #[garde(inner(length(chars, max = 254), custom(text::plain)))]
    pub q: Option<String>,
}

/// A user as staff see them.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserSummary {
    /// The user's id.
    pub id: UserId,
    /// Email address, used to sign in.
    pub email: String,
    /// The user's name.
    pub name: String,
    /// The user's role on the provider's staff; null if they have none.
    pub staff_role: Option<StaffRole>,
    /// The user's own account, for which requests are made unless they name another.
    pub account_id: AccountId,
    /// The language of the dashboard.
    pub language: Language,
    /// Time zone, as an IANA name.
    pub time_zone: String,
    /// Which alerts are sent by email.
    pub alert_mails: AlertMails,
    /// Whether an email is sent when a server is ready.
    pub server_mails: bool,
    /// When the email address was confirmed; null if it was not.
    pub email_confirmed_at: Option<DateTime<Utc>>,
    /// When the user was disabled; null if they are not.
    pub disabled_at: Option<DateTime<Utc>>,
    /// Time of creation.
    pub created_at: DateTime<Utc>,
}

/// A user and the accounts in which they have a role.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserDetails {
    /// The user.
    #[serde(flatten)]
    pub summary: UserSummary,
    /// Their own accounts first.
    pub accounts: Vec<UserAccount>,
}

/// An account in which a user has a role.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserAccount {
    /// The account's id.
    pub id: AccountId,
    /// What kind of account it is.
    pub kind: AccountKind,
    /// The account's name.
    pub name: String,
    /// The user's role in it.
    pub role: MemberRole,
}

/// A user to create.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewUser {
    /// Email address, used to sign in: ASCII, with a domain in another script in its `xn--` form. It counts as
    /// confirmed.
    #[garde(length(max = 254), custom(text::email))]
    pub email: String,
    /// The user's name; may be empty.
    #[garde(length(chars, max = 200), custom(text::trimmed))]
    pub name: String,
    /// At least ten characters. Without it one is generated and shown once.
    #[serde(default)]
    #[garde(inner(custom(strong)))]
    #[schema(value_type = Option<String>, format = Password)]
    pub password: Option<SecretString>,
    /// The user's role on the provider's staff; null or omitted: none.
    #[serde(default)]
    #[garde(skip)]
    pub staff_role: Option<StaffRole>,
}

/// A new user.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedUser {
    /// The user.
    #[serde(flatten)]
    pub user: UserSummary,
    /// The generated password, shown only once; absent if the request had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub password: Option<String>,
}

/// Changes to a user. Omitted fields stay unchanged.
#[derive(Debug, Default, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateUser {
    /// The user's name.
    #[garde(inner(length(chars, max = 200), custom(text::trimmed)))]
    pub name: Option<String>,
    /// The user's role on the provider's staff; null removes them from it.
    #[serde(default)]
    #[garde(skip)]
    #[schema(value_type = Option<StaffRole>)]
    pub staff_role: Patch<StaffRole>,
    /// Whether the user is disabled: they can't sign in, their sessions end, and their API tokens don't work.
    #[garde(skip)]
    pub disabled: Option<bool>,
}

/// A login link to create.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewLoginLink {
    /// Why the login link is needed. The audit log shows it, to the user as well.
    #[garde(length(chars, max = 500), custom(text::title))]
    pub reason: String,
}

/// A login link, which is shown only once. It can be used once.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoginLink {
    /// The link, for a browser.
    pub url: String,
    /// The secret in it, for `POST /api/auth/login-link`.
    pub token: String,
    /// When it expires, after half a minute.
    pub expires_at: DateTime<Utc>,
}

/// The use of a login link.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UseLoginLink {
    /// The secret from the link.
    #[garde(custom(bounded))]
    #[schema(value_type = String)]
    pub token: SecretString,
}

/// A user's login that was opened with a link. It can't be refreshed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkedSession {
    /// For the `Authorization: Bearer` header.
    pub access_token: String,
    /// `Bearer`.
    pub token_type: &'static str,
    /// Seconds until the session ends.
    pub expires_in: u32,
    /// The user whose login it is.
    pub user: User,
}
