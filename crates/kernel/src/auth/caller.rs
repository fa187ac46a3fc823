//! Who makes a request.

use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ClientAddress, Scopes};
use crate::error::Result;
use crate::ids::UserId;
use crate::stored_enum;

/// The role of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs the installation.
    Provider,
    /// Orders servers.
    Customer,
    /// A role known to a newer version but not to this one.
    #[serde(skip_deserializing)]
    #[value(skip)]
    Unknown,
}

stored_enum!(Role, Self::Unknown);

impl Role {
    /// The value stored in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Customer => "customer",
            Self::Unknown => "unknown",
        }
    }
}

/// The authenticated caller of a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The account.
    pub user: UserId,
    /// The account's role.
    pub role: Role,
    /// The token shown.
    pub token: Uuid,
    /// The session that the token belongs to; none for an API token.
    pub session: Option<Uuid>,
    /// What the token may do.
    pub scopes: Scopes,
}

impl Caller {
    /// Whether this is a provider.
    pub fn is_provider(&self) -> bool {
        self.role == Role::Provider
    }
}

/// Knows tokens: the kernel asks it who makes a request.
#[async_trait]
pub trait Authenticator: Debug + Send + Sync {
    /// Whose token this is, shown from this address.
    async fn authenticate(&self, token: &str, from: ClientAddress) -> Result<Caller>;
}
