//! Who makes a request.

use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Scopes;
use crate::error::Result;
use crate::http::ClientAddress;
use crate::ids::UserId;
use crate::stored::stored;

/// What an account is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs the installation.
    Provider,
    /// Orders servers.
    Customer,
    /// One that a newer version knows and this one does not.
    #[serde(skip_deserializing)]
    #[value(skip)]
    Unknown,
}

stored!(Role, Self::Unknown);

impl Role {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Customer => "customer",
            Self::Unknown => "unknown",
        }
    }
}

/// Who makes a request, with what.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose account.
    pub user: UserId,
    /// Its role.
    pub role: Role,
    /// The token shown.
    pub token: Uuid,
    /// The login it belongs to; none for an API token.
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
