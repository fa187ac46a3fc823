//! Access to an account: the extractors answer 404 to everyone who may not know that the account exists.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use kernel::auth::{Access, Caller, MemberRole, account_suspended, role_forbids, scopes_forbid};
use kernel::core::Core;
use kernel::error::{Error, Result};
use kernel::http::auth::{AnyCaller, core, level};
use kernel::http::extract::Path;
use kernel::ids::AccountId;
use serde::Deserialize;

use super::model::AccountRow;
use super::store::{self, AccountReach};

/// An account that the caller may read (GET) or manage (other methods).
#[derive(Debug, Clone)]
pub struct AccountAccess {
    /// The caller.
    pub caller: Caller,
    /// The account, never a deleted one.
    pub account: AccountRow,
    /// The role that the caller acts in.
    pub role: MemberRole,
    reach: AccountReach,
}

/// An account that the caller may know of, whatever their role in it. The handler must limit what they do.
#[derive(Debug, Clone)]
pub(super) struct KnownAccount(pub AccountAccess);

/// An account that the caller manages from above: the provider, and who manages the reseller whose customer it is.
#[derive(Debug, Clone)]
pub(super) struct AccountFromAbove(pub AccountAccess);

impl AccountAccess {
    /// The account with this id, if the caller may know of it and their token covers this much of whole accounts.
    async fn of(core: &Core, caller: Caller, id: AccountId, level: Access) -> Result<Self> {
        if !caller.scopes.allow(level) {
            return Err(scopes_forbid());
        }
        let none = || Error::not_found("account");
        let reach = store::reach(&core.db, &caller, id).await?.ok_or_else(none)?;
        let account = crate::store::accounts::find(&core.db, id).await?.ok_or_else(none)?;
        Ok(Self { caller, account, role: reach.role, reach })
    }

    /// Whether the caller is the provider, or manages the reseller whose customer it is.
    pub(super) fn is_above(&self) -> bool {
        self.caller.is_provider() || self.reach.above.is_some_and(MemberRole::manages)
    }

    /// Whether the caller owns it.
    pub(super) fn is_owner(&self) -> bool {
        self.account.owner_id == self.caller.user
    }

    /// Refuses callers who may not manage the account.
    pub(super) fn check_manages(&self) -> Result<()> {
        match self.is_above() || self.role.manages() {
            true => self.check_not_suspended(),
            false => Err(role_forbids()),
        }
    }

    /// Refuses callers who may not manage it from above.
    fn check_above(&self) -> Result<()> {
        match self.is_above() {
            true => self.check_not_suspended(),
            false => Err(role_forbids()),
        }
    }

    /// Refuses changes by members of a suspended account, and by those of a suspended reseller.
    fn check_not_suspended(&self) -> Result<()> {
        // From above only the reseller's own suspension stands in the way.
        let reason = if self.is_above() { &self.reach.reseller_suspended } else { &self.reach.suspended };
        match reason {
            Some(reason) if !self.caller.is_provider() => Err(account_suspended(reason)),
            _ => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct AccountPath {
    id: AccountId,
}

impl<S: Send + Sync> FromRequestParts<S> for KnownAccount {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let AnyCaller(caller) = AnyCaller::from_request_parts(parts, state).await?;
        // By name: a path may have more parameters.
        let Path(AccountPath { id }) = Path::<AccountPath>::from_request_parts(parts, state).await?;
        AccountAccess::of(core(&parts.extensions)?, caller, id, level(&parts.method)).await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AccountAccess {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let KnownAccount(access) = KnownAccount::from_request_parts(parts, state).await?;
        if level(&parts.method) == Access::Write {
            access.check_manages()?;
        }
        Ok(access)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AccountFromAbove {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let KnownAccount(access) = KnownAccount::from_request_parts(parts, state).await?;
        access.check_above()?;
        Ok(Self(access))
    }
}
