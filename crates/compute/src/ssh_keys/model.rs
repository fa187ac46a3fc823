//! Request and response types for SSH keys.

use chrono::{DateTime, Utc};
use garde::Validate;
use kernel::auth::Owner;
use kernel::core::Core;
use kernel::error::Result;
use kernel::http::owned::{Ownable, Ownership};
use kernel::http::text;
use serde::{Deserialize, Serialize};

use super::store;
use crate::ids::{AccountId, SshKeyId};

/// A public key of an account.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SshKey {
    /// Its id.
    pub id: SshKeyId,
    /// Its name.
    pub name: String,
    /// The OpenSSH line.
    pub public_key: String,
    /// As printed by `ssh-keygen -l`.
    #[schema(example = "SHA256:jplVdD3DTURTIaNMwccPtyvRg7vHg9qw6xQMkHPgyRc")]
    pub fingerprint: String,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

/// A key to add.
#[derive(Debug, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewSshKey {
    /// Its name.
    #[garde(length(chars, max = 100), custom(text::title))]
    pub name: String,
    /// One OpenSSH line; a trailing line break is removed.
    #[serde(deserialize_with = "text::line")]
    #[garde(length(max = 8192), custom(text::ssh_key))]
    #[schema(example = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2X0OWNlLS+ChqYjV8kNwVsWTB5Yc7vYXxWk0GmKoIh me@there")]
    pub public_key: String,
}

/// A key as far as access to it goes.
#[derive(Debug, Clone)]
pub struct SshKeyRecord {
    /// The key's id.
    pub id: SshKeyId,
    /// The account that owns it.
    pub account: AccountId,
    /// The reseller whose customer the account is.
    pub reseller: Option<AccountId>,
}

impl Ownable for SshKeyRecord {
    const NAME: &'static str = "SSH key";

    type Id = SshKeyId;

    async fn find(core: &Core, id: SshKeyId) -> Result<Option<Self>> {
        Ok(store::find(&core.db, id).await?)
    }

    fn ownership(&self, _: &Core) -> Ownership {
        Ownership::Account(Owner { account: self.account, reseller: self.reseller }, None)
    }
}
