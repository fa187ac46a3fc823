//! Accounts, logins and tokens as they are asked for and answered.

use chrono::{DateTime, Utc};
use garde::Validate;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::auth::{Role, Scope};
use crate::http::text;
use crate::ids::UserId;
use crate::stored::stored;

/// Which alerts somebody is mailed about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertMails {
    /// Critical ones, and warnings of processor, memory and disk.
    All,
    /// Critical ones.
    Critical,
}

stored!(AlertMails, Self::All);

impl AlertMails {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Critical => "critical",
        }
    }
}

/// A change of one's own account. Fields left out stay as they are.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateMe {
    /// Which alerts I am mailed about.
    #[garde(skip)]
    pub alert_mails: Option<AlertMails>,
}

/// An account, as its owner and the provider see it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Mail address, with which one signs in.
    pub email: String,
    /// The person's name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// How many servers it may have at one time.
    pub server_limit: i32,
    /// Which alerts it is mailed about.
    pub alert_mails: AlertMails,
    /// When its address was confirmed. Null: nothing is mailed there before it is, but the question.
    pub email_confirmed_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// An account with whether it is shut out, as the command line lists it.
#[derive(Debug, Clone)]
pub struct Account {
    /// The account.
    pub user: User,
    /// Since when it is shut out.
    pub disabled_at: Option<DateTime<Utc>>,
}

/// A new account.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Register {
    /// Mail address, with which one signs in: ASCII, a domain in another script in its `xn--` form.
    #[garde(length(max = 254), custom(text::email))]
    pub email: String,
    /// Ten characters or more.
    #[garde(custom(strong))]
    #[schema(value_type = String, format = Password)]
    pub password: SecretString,
    /// The person's name.
    #[serde(default)]
    #[garde(length(chars, max = 200), custom(text::trimmed))]
    pub name: String,
}

/// Signing in.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Login {
    /// Mail address.
    #[garde(length(min = 1, max = 254), custom(text::plain))]
    pub email: String,
    /// Password.
    #[garde(custom(bounded))]
    #[schema(value_type = String, format = Password)]
    pub password: SecretString,
}

/// Exchanging a refresh token.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Refresh {
    /// The refresh token of the last login or refresh. It works once.
    #[garde(custom(bounded))]
    #[schema(value_type = String)]
    pub refresh_token: SecretString,
}

/// Changing one's password.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangePassword {
    /// The one in use.
    #[garde(custom(bounded))]
    #[schema(value_type = String, format = Password)]
    pub current_password: SecretString,
    /// The new one: ten characters or more.
    #[garde(custom(strong))]
    #[schema(value_type = String, format = Password)]
    pub new_password: SecretString,
    /// Whether the account's API tokens are revoked as well. They stay, if left out; somebody who fears that the old
    /// password was known to others wants them gone.
    #[serde(default)]
    #[garde(skip)]
    pub revoke_tokens: bool,
}

/// Confirming an address.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Confirm {
    /// The code that was mailed to it.
    #[garde(custom(bounded))]
    #[schema(value_type = String)]
    pub code: SecretString,
}

/// A login of an account's.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// Its id.
    pub id: Uuid,
    /// Whether it is the one that asks.
    pub current: bool,
    /// When somebody signed in.
    pub created_at: DateTime<Utc>,
    /// From where.
    pub address: String,
    /// With what, as it called itself.
    pub user_agent: String,
    /// When it last got new tokens, which it does about every quarter of an hour that it is used.
    pub last_used_at: DateTime<Utc>,
    /// When it ends at the latest.
    pub expires_at: DateTime<Utc>,
}

/// What signing in gives.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignedIn {
    /// For the `Authorization: Bearer` header.
    pub access_token: String,
    /// For `/api/auth/refresh`, once.
    pub refresh_token: String,
    /// `Bearer`.
    pub token_type: &'static str,
    /// Seconds until the access token ends.
    pub expires_in: u32,
    /// Who signed in.
    pub user: User,
}

/// A new API token.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewApiToken {
    /// What it is for.
    #[garde(length(chars, max = 100), custom(text::title))]
    pub name: String,
    /// `read`, `write`, `read:server:ID`, `write:server:ID`.
    #[garde(length(min = 1, max = 50), inner(custom(scope)))]
    pub scopes: Vec<String>,
    /// When it ends; never, if left out.
    #[serde(default)]
    #[garde(custom(in_future))]
    pub expires_at: Option<DateTime<Utc>>,
}

/// An API token in a list: all but the secret.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiToken {
    /// Its id.
    pub id: Uuid,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last shown to us, to within a minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A new API token with its secret, which is shown this once.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedApiToken {
    /// The secret, for the `Authorization: Bearer` header.
    pub token: String,
    /// The rest.
    #[serde(flatten)]
    pub details: ApiToken,
}

fn strong(password: &SecretString, (): &()) -> garde::Result {
    use secrecy::ExposeSecret;
    match password.expose_secret().chars().count() {
        10..=128 => Ok(()),
        _ => Err(garde::Error::new("must have 10 to 128 characters")),
    }
}

fn bounded(secret: &SecretString, (): &()) -> garde::Result {
    use secrecy::ExposeSecret;
    match secret.expose_secret().len() {
        1..=1024 => Ok(()),
        _ => Err(garde::Error::new("must have 1 to 1024 characters")),
    }
}

fn scope(text: &str, (): &()) -> garde::Result {
    text.parse::<Scope>().map(|_| ()).map_err(garde::Error::new)
}

#[allow(clippy::ref_option, reason = "garde calls it with a reference to the field")]
fn in_future(at: &Option<DateTime<Utc>>, (): &()) -> garde::Result {
    match at {
        Some(at) if *at <= Utc::now() => Err(garde::Error::new("must be in the future")),
        _ => Ok(()),
    }
}
