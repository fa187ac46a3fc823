//! Request and response types for members of accounts.

use chrono::{DateTime, Utc};
use garde::Validate;
use kernel::auth::MemberRole;
use kernel::http::text;
use kernel::ids::UserId;
use serde::{Deserialize, Serialize};

/// A member of an account.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The user's id.
    pub user_id: UserId,
    /// The user's email address.
    pub email: String,
    /// The user's name.
    pub name: String,
    /// The user's role in the account.
    pub role: MemberRole,
    /// When they became a member; for the owner, when the account was created.
    pub since: DateTime<Utc>,
}

/// Selects members of an account.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListMembers {
    /// Page number, from 1. The owner comes first, the others by address.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<i64>,
    /// Members per page: 20 by default, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    /// Only members whose name or address contains this text, ignoring case.
    #[garde(inner(length(chars, max = 254), custom(text::plain)))]
    pub q: Option<String>,
}

/// A member to add.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewMember {
    /// The address of a user.
    #[garde(length(min = 1, max = 254), custom(text::plain))]
    pub email: String,
    /// Their role: any but `owner`.
    #[garde(custom(given))]
    pub role: MemberRole,
}

/// A change of a member.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateMember {
    /// Their new role: any but `owner`.
    #[garde(custom(given))]
    pub role: MemberRole,
}

/// Checks that a member may be given this role: `owner` only comes with a transfer of the account.
fn given(role: &MemberRole, (): &()) -> garde::Result {
    match role {
        MemberRole::Owner => Err(garde::Error::new("must be admin, member, billing or viewer")),
        _ => Ok(()),
    }
}
