//! Request and response types for users, sessions and tokens.

use chrono::{DateTime, Utc};
use garde::Validate;
use kernel::auth::{Scope, StaffRole};
use kernel::http::text;
use kernel::ids::{AccountId, UserId};
use kernel::stored_enum;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::members::model::AccountView;

/// Which alerts a user is emailed about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertMails {
    /// Critical alerts, and warnings about CPU, memory and disk.
    All,
    /// Critical alerts only.
    Critical,
    /// No alerts. The provider's admins get critical ones all the same.
    None,
}

stored_enum!(AlertMails, Self::All);

impl AlertMails {
    /// The value stored in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Critical => "critical",
            Self::None => "none",
        }
    }
}

/// A language of the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// English.
    En,
    /// Russian.
    Ru,
}

stored_enum!(Language, Self::En);

impl Language {
    /// The value stored in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Ru => "ru",
        }
    }
}

/// Changes to the caller's own settings. Omitted fields stay unchanged.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateMe {
    /// My name; may be empty.
    #[garde(inner(length(chars, max = 200), custom(text::trimmed)))]
    pub name: Option<String>,
    /// The language of the dashboard.
    #[garde(skip)]
    pub language: Option<Language>,
    /// My time zone, as an IANA name.
    #[garde(inner(custom(text::time_zone)))]
    #[schema(example = "Europe/Berlin")]
    pub time_zone: Option<String>,
    /// Which alerts I get by email.
    #[garde(skip)]
    pub alert_mails: Option<AlertMails>,
    /// Whether I get an email when a server is ready.
    #[garde(skip)]
    pub server_mails: Option<bool>,
}

/// A user, as they and the provider see them.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
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
    /// When the email address was confirmed; null if it was not. Until then only confirmation emails are sent to it.
    pub email_confirmed_at: Option<DateTime<Utc>>,
    /// Time of creation.
    pub created_at: DateTime<Utc>,
}

/// The caller, and the account that the request was made for.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Me {
    /// The user.
    #[serde(flatten)]
    pub user: User,
    /// The account, with the caller's role in it.
    pub account: AccountView,
}

/// A registration.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Register {
    /// Email address, used to sign in: ASCII, with a domain in another script in its `xn--` form.
    #[garde(length(max = 254), custom(text::email))]
    pub email: String,
    /// At least ten characters.
    #[garde(custom(strong))]
    #[schema(value_type = String, format = Password)]
    pub password: SecretString,
    /// The user's name.
    #[serde(default)]
    #[garde(length(chars, max = 200), custom(text::trimmed))]
    pub name: String,
}

/// Credentials to sign in with.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Login {
    /// Email address.
    #[garde(length(min = 1, max = 254), custom(text::plain))]
    pub email: String,
    /// Password.
    #[garde(custom(bounded))]
    #[schema(value_type = String, format = Password)]
    pub password: SecretString,
}

/// A refresh token to exchange.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RefreshSession {
    /// The refresh token from the last login or refresh. It can be used once.
    #[garde(custom(bounded))]
    #[schema(value_type = String)]
    pub refresh_token: SecretString,
}

/// A change of the caller's own password.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangePassword {
    /// The current password.
    #[garde(custom(bounded))]
    #[schema(value_type = String, format = Password)]
    pub current_password: SecretString,
    /// The new password: at least ten characters.
    #[garde(custom(strong))]
    #[schema(value_type = String, format = Password)]
    pub new_password: SecretString,
    /// Whether to revoke the user's API tokens as well; by default they stay. Set it if others may have known the
    /// old password.
    #[serde(default)]
    #[garde(skip)]
    pub revoke_tokens: bool,
}

/// The confirmation of an email address.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfirmAddress {
    /// The code from the confirmation email.
    #[garde(custom(bounded))]
    #[schema(value_type = String)]
    pub code: SecretString,
}

/// A session of a user.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// The session's id.
    pub id: Uuid,
    /// Whether this is the session that made the request.
    pub current: bool,
    /// Time of the login.
    pub created_at: DateTime<Utc>,
    /// Whether the provider's staff opened it with a login link.
    pub by_provider: bool,
    /// The client's address at login; empty if staff opened it.
    pub address: String,
    /// The client's user agent at login; empty if staff opened it.
    pub user_agent: String,
    /// When the session last got new tokens: about every 15 minutes while it is in use.
    pub last_used_at: DateTime<Utc>,
    /// When the session expires.
    pub expires_at: DateTime<Utc>,
}

/// The tokens of a new login or refresh.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignedIn {
    /// For the `Authorization: Bearer` header.
    pub access_token: String,
    /// For `/api/auth/refresh`; can be used once.
    pub refresh_token: String,
    /// `Bearer`.
    pub token_type: &'static str,
    /// Seconds until the access token expires.
    pub expires_in: u32,
    /// The user who signed in.
    pub user: User,
}

/// The login of a browser, whose refresh token is in a cookie.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrowserSession {
    /// For the `Authorization: Bearer` header. Keep it in memory only.
    pub access_token: String,
    /// `Bearer`.
    pub token_type: &'static str,
    /// Seconds until the access token expires.
    pub expires_in: u32,
    /// Seconds until the login expires.
    pub session_expires_in: i64,
    /// The user who signed in.
    pub user: User,
}

/// A new API token.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewApiToken {
    /// What the token is for.
    #[garde(length(chars, max = 100), custom(text::title))]
    pub name: String,
    /// `read` or `write`, or either for one thing, such as `read:server:12`.
    #[garde(length(min = 1, max = 50), inner(custom(scope)))]
    pub scopes: Vec<String>,
    /// When the token expires; omit it for one that never does.
    #[serde(default)]
    #[garde(custom(in_future))]
    pub expires_at: Option<DateTime<Utc>>,
}

/// An API token in a list, without its secret.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiToken {
    /// The token's id.
    pub id: Uuid,
    /// What the token is for.
    pub name: String,
    /// The account that it acts for.
    pub account_id: AccountId,
    /// The token's scopes.
    pub scopes: Vec<String>,
    /// Time of creation.
    pub created_at: DateTime<Utc>,
    /// When the token expires; null if it never does.
    pub expires_at: Option<DateTime<Utc>>,
    /// When the token was last used, to within a minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A new API token with its secret, which is shown only once.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedApiToken {
    /// The secret, for the `Authorization: Bearer` header.
    pub token: String,
    /// All other details.
    #[serde(flatten)]
    pub details: ApiToken,
}

/// Whether a password is long enough, and not too long.
pub(crate) fn strong(password: &SecretString, (): &()) -> garde::Result {
    use secrecy::ExposeSecret;
    match password.expose_secret().chars().count() {
        10..=128 => Ok(()),
        _ => Err(garde::Error::new("must have 10 to 128 characters")),
    }
}

/// Whether something secret is there, and not too long to be looked up.
pub(crate) fn bounded(secret: &SecretString, (): &()) -> garde::Result {
    use secrecy::ExposeSecret;
    match secret.expose_secret().len() {
        1..=1024 => Ok(()),
        _ => Err(garde::Error::new("must have 1 to 1024 characters")),
    }
}

fn scope(text: &str, (): &()) -> garde::Result {
    text.parse::<Scope>().map(drop).map_err(garde::Error::new)
}

#[allow(clippy::ref_option, reason = "garde calls it with a reference to the field")]
fn in_future(at: &Option<DateTime<Utc>>, (): &()) -> garde::Result {
    match at {
        Some(at) if *at <= Utc::now() => Err(garde::Error::new("must be in the future")),
        _ => Ok(()),
    }
}
