//! Limits on guessing passwords and addresses.

use std::time::Duration;

use kernel::auth::ClientAddress;
use kernel::error::{Code, Error, Result};

use crate::{Accounts, store};

/// What login attempts are counted by: an email address from one network, an email address from everywhere, one
/// network.
pub(super) const PLACE: &str = "place:";
pub(super) const ACCOUNT: &str = "account:";
pub(super) const ADDRESS: &str = "address:";
/// What attempts at the current password are counted by, for an authenticated user.
pub(super) const SESSION: &str = "session:";
/// Limit of an email address's attempts from everywhere, as a multiple of those from one network: many attackers
/// together get no further.
pub(super) const EVERYWHERE: i32 = 10;
/// Limit of a /48's attempts, as a multiple of one network's.
const WIDE: i32 = 4;

/// Counts an attempt by address, and by the /48 around it: anyone with a /48 has 65,536 networks to come from.
pub(crate) async fn limit_address(accounts: &Accounts, address: ClientAddress) -> Result<()> {
    let most = accounts.settings.login_limit_address;
    if let Some(wide) = address.wide() {
        limit(accounts, (ADDRESS, &wide), most.saturating_mul(WIDE)).await?;
    }
    limit(accounts, (ADDRESS, &address.network()), most).await
}

pub(crate) async fn limit(accounts: &Accounts, key: store::attempts::AttemptKey<'_>, limit: i32) -> Result<()> {
    let (attempts, seconds) = store::attempts::count(&accounts.core.db, key).await?;
    if attempts <= limit {
        return Ok(());
    }
    let wait = Duration::from_secs(seconds.max(1).unsigned_abs());
    let minutes = wait.as_secs().div_ceil(60);
    Err(Error {
        retry_after: Some(wait),
        ..Error::new(Code::RateLimited, format!("Too many attempts. Try again in {minutes} minutes."))
    })
}

/// Takes back an attempt of an address after a success.
pub(crate) async fn uncount_address(accounts: &Accounts, address: ClientAddress) -> Result<()> {
    if let Some(wide) = address.wide() {
        store::attempts::uncount(&accounts.core.db, (ADDRESS, &wide)).await?;
    }
    Ok(store::attempts::uncount(&accounts.core.db, (ADDRESS, &address.network())).await?)
}
