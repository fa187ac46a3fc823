//! Request and response types for accounts and their members.

mod member;

use chrono::{DateTime, Utc};
use garde::Validate;
use kernel::auth::MemberRole;
use kernel::http::patch::Patch;
use kernel::http::text;
use kernel::ids::{AccountId, UserId};
use kernel::stored_enum;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::strong;

pub use member::{ListMembers, Member, NewMember, UpdateMember};

/// What kind of account it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccountKind {
    /// Owns things.
    Customer,
    /// Has customers of its own, and may own things as well.
    Reseller,
    /// A kind known to a newer version but not to this one.
    #[serde(skip_deserializing)]
    Unknown,
}

stored_enum!(AccountKind, Self::Unknown);

impl AccountKind {
    /// The value stored in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Reseller => "reseller",
            Self::Unknown => "unknown",
        }
    }
}

/// An account, without the caller's role in it.
#[derive(Debug, Clone)]
pub struct AccountRow {
    /// The account's id.
    pub id: AccountId,
    /// Its UUID, for other systems.
    pub uuid: Uuid,
    /// What kind of account it is.
    pub kind: AccountKind,
    /// Its name.
    pub name: String,
    /// The user who owns it.
    pub owner_id: UserId,
    /// Their email address.
    pub owner_email: String,
    /// The reseller whose customer it is.
    pub parent_id: Option<AccountId>,
    /// How many servers it may have; `None`: no limit.
    pub server_limit: Option<i32>,
    /// When it was suspended, if it is.
    pub suspended_at: Option<DateTime<Utc>>,
    /// Why it is suspended.
    pub suspend_reason: Option<String>,
    /// Time of creation.
    pub created_at: DateTime<Utc>,
}

impl AccountRow {
    /// The account as the API shows it to a caller with this role.
    pub fn seen_as(self, role: MemberRole) -> AccountView {
        AccountView {
            id: self.id,
            uuid: self.uuid,
            kind: self.kind,
            name: self.name,
            owner_id: self.owner_id,
            owner_email: self.owner_email,
            parent_id: self.parent_id,
            server_limit: self.server_limit,
            suspended_at: self.suspended_at,
            suspend_reason: self.suspend_reason,
            created_at: self.created_at,
            role,
        }
    }
}

/// An account, with the caller's role in it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountView {
    /// The account's id, for the header `X-Account`.
    pub id: AccountId,
    /// Its UUID, for other systems.
    pub uuid: Uuid,
    /// What kind of account it is.
    pub kind: AccountKind,
    /// Its name.
    pub name: String,
    /// The user who owns it.
    pub owner_id: UserId,
    /// Their email address.
    pub owner_email: String,
    /// The reseller whose customer it is; null for the provider's own customers.
    pub parent_id: Option<AccountId>,
    /// How many servers it may have at one time, those of a reseller's customers included; null: no limit.
    pub server_limit: Option<i32>,
    /// When it was suspended; null if it is not.
    pub suspended_at: Option<DateTime<Utc>>,
    /// Why it is suspended.
    pub suspend_reason: Option<String>,
    /// Time of creation.
    pub created_at: DateTime<Utc>,
    /// The caller's role in it: as a member of it or of its reseller, or as the provider's staff.
    pub role: MemberRole,
}

/// Selects accounts.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListAccounts {
    /// Page number, from 1. The oldest accounts come first.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<i64>,
    /// Accounts per page: 20 by default, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    /// `next` of the response before: continues the list there, past the last page, too. Not together with `page`.
    #[garde(skip)]
    pub after: Option<AccountId>,
    /// Only accounts whose name or whose owner's address contains this text, ignoring case.
    #[garde(inner(length(chars, max = 254), custom(text::plain)))]
    pub q: Option<String>,
    /// Only accounts of this kind.
    #[garde(skip)]
    #[param(inline)]
    pub kind: Option<AccountKind>,
    /// Only customers of this reseller.
    #[garde(skip)]
    pub parent_id: Option<AccountId>,
}

/// An account to create.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewAccount {
    /// Its name.
    #[garde(length(chars, max = 200), custom(text::title))]
    pub name: String,
    /// What kind of account it is: a customer by default.
    #[serde(default)]
    #[garde(skip)]
    pub kind: Option<AccountKind>,
    /// The reseller whose customer it becomes; a reseller's members may omit it.
    #[serde(default)]
    #[garde(skip)]
    pub parent_id: Option<AccountId>,
    /// How many servers it may have: 100 by default; null: no limit.
    #[serde(default)]
    #[garde(custom(within_limits))]
    #[schema(value_type = Option<i32>, minimum = 0, maximum = 1_000_000)]
    pub server_limit: Patch<i32>,
    /// A new user who will own it, as their only account.
    #[serde(default)]
    #[garde(dive)]
    pub owner: Option<NewOwner>,
    /// Instead of `owner`: the existing user who will own it.
    #[serde(default)]
    #[garde(skip)]
    pub owner_id: Option<UserId>,
}

/// A new user who owns a new account.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewOwner {
    /// Email address, used to sign in: ASCII, with a domain in another script in its `xn--` form.
    #[garde(length(max = 254), custom(text::email))]
    pub email: String,
    /// The owner's name; may be empty.
    #[garde(length(chars, max = 200), custom(text::trimmed))]
    pub name: String,
    /// At least ten characters. Without it one is generated and shown once.
    #[serde(default)]
    #[garde(inner(custom(strong)))]
    #[schema(value_type = Option<String>, format = Password)]
    pub password: Option<SecretString>,
}

/// A new account.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedAccount {
    /// The account.
    #[serde(flatten)]
    pub account: AccountView,
    /// The new owner's generated password, shown only once; absent if none was generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub password: Option<String>,
}

/// Changes to an account. Omitted fields stay unchanged.
#[derive(Debug, Default, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateAccount {
    /// Its name.
    #[garde(inner(length(chars, max = 200), custom(text::title)))]
    pub name: Option<String>,
    /// How many servers it may have; null: no limit. Only for the provider, and for the reseller whose customer it is.
    #[serde(default)]
    #[garde(custom(within_limits))]
    #[schema(value_type = Option<i32>, minimum = 0, maximum = 1_000_000)]
    pub server_limit: Patch<i32>,
    /// What kind of account it is. Only for the provider.
    #[garde(skip)]
    pub kind: Option<AccountKind>,
    /// The reseller whose customer it is; null: the provider's own. Only for the provider.
    #[serde(default)]
    #[garde(skip)]
    #[schema(value_type = Option<i64>)]
    pub parent_id: Patch<AccountId>,
    /// The member who becomes its owner; the previous owner becomes an admin of it. Only for the provider.
    #[garde(skip)]
    pub owner_id: Option<UserId>,
}

/// A suspension.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SuspendAccount {
    /// The reason, which members see.
    #[garde(length(chars, max = 500), custom(text::title))]
    pub reason: String,
}

/// Checks that a server limit is valid.
fn within_limits(limit: &Patch<i32>, (): &()) -> garde::Result {
    match limit.value() {
        Some(limit) if !(0..=1_000_000).contains(limit) => Err(garde::Error::new("must be from 0 to 1000000")),
        _ => Ok(()),
    }
}
