//! Business logic for access and API tokens: who shows one, and new ones.

use std::time::Duration;

use kernel::auth::{Caller, ClientAddress, Scope, UNKNOWN_SCOPE};
use kernel::db;
use kernel::error::{Code, Error, Result};
use kernel::idempotency::Once;
use kernel::ids::{AccountId, UserId};
use kernel::secrets;
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::unauthenticated;
use crate::cache::CacheLookup;
use crate::model::{ApiToken, CreatedApiToken, NewApiToken};
use crate::{Accounts, store};

/// Maximum number of API tokens per user.
const API_TOKENS: usize = 100;

/// Authenticates the caller with this token, acting for this account, from this address; without an account for the
/// token's own. Refresh tokens are not accepted.
pub async fn authenticate(
    accounts: &Accounts,
    token: &str,
    account: Option<AccountId>,
    address: ClientAddress,
) -> Result<Caller> {
    let hash = secrets::hash_token(token);
    let reading = match accounts.tokens.get(&(hash, account)) {
        CacheLookup::Yes(caller) => return Ok(caller),
        CacheLookup::No(reading) => reading,
    };
    accounts.core.limits.guess(&accounts.core, address).await?;
    let row = store::tokens::live_token(&accounts.core.db, &hash, account).await;
    // If the database can't say, it does not count as a guess either.
    if !matches!(row, Ok(None)) {
        accounts.core.limits.uncount_lookup(address).await;
    }
    let invalid = || unauthenticated("This token is invalid or has expired; sign in again.");
    let row = row?.ok_or_else(invalid)?;
    let caller = row.caller().ok_or_else(|| match account {
        Some(_) => Error::not_found("account"),
        // Of a user who has left the account.
        None => invalid(),
    })?;
    if row.stale_use
        && let Err(error) = store::tokens::touch_token(&accounts.core.db, row.id).await
    {
        // This is only bookkeeping: reads must keep working while the database accepts no writes.
        tracing::debug!(%error, "cannot record the use of a token");
    }
    let left = row.seconds_left.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
    accounts.tokens.put(reading, (hash, account), &caller, left);
    Ok(caller)
}

/// Those callers that are still authenticated, with their current rights: for connections that stay open after
/// authentication.
pub async fn live(accounts: &Accounts, callers: &[Caller]) -> Result<Vec<Caller>> {
    Ok(store::tokens::live_callers(&accounts.core.db, callers).await?)
}

/// Creates an API token, with which a user acts for this account, of which they must be a member. Its secret is in the
/// response and nowhere else. `session`: the login that requests it, if one does.
pub async fn create_api_token(
    accounts: &Accounts,
    once: &Once,
    (user, account): (UserId, AccountId),
    session: Option<Uuid>,
    new: NewApiToken,
) -> Result<CreatedApiToken> {
    let known = |scope: &Scope| {
        scope.subject.as_ref().is_none_or(|s| accounts.core.subjects().subject(&s.kind, &s.id).is_some())
    };
    if !new.scopes.iter().all(|text| text.parse().is_ok_and(|scope| known(&scope))) {
        return Err(Error::field("scopes", UNKNOWN_SCOPE));
    }
    once.run(&accounts.core, async |tx| {
        store::lock_user(tx, user).await?;
        // The lock may have waited for a new password, which ended the user's sessions and revoked their tokens.
        if let Some(session) = session
            && !store::sessions::is_live(tx, session).await?
        {
            return Err(unauthenticated("This session has ended; sign in again."));
        }
        // Against the removal of the member meanwhile.
        store::accounts::lock(tx, &[account]).await?;
        // Users whose access comes from its reseller or from being staff have no membership that the token could depend
        // on.
        if store::accounts::role(tx, account, user).await?.is_none() {
            return Err(Error::new(Code::Forbidden, "API tokens act only for accounts that you are a member of."));
        }
        if store::tokens::api_tokens(&mut *tx, user).await?.len() >= API_TOKENS {
            let message = format!("You have {API_TOKENS} API tokens; revoke one that is no longer needed.");
            return Err(Error::new(Code::ResourceUnavailable, message));
        }
        let (token, hash) = secrets::new_token("ink_t_");
        let details = store::tokens::insert_api_token(
            &mut *tx,
            (user, account),
            &hash,
            new.name.trim(),
            &new.scopes,
            new.expires_at,
        )
        .await?;
        Ok(CreatedApiToken { token: token.expose_secret().to_owned(), details })
    })
    .await
}

/// The user's live API tokens, oldest first.
pub async fn api_tokens(accounts: &Accounts, user: UserId) -> Result<Vec<ApiToken>> {
    Ok(store::tokens::api_tokens(&accounts.core.db, user).await?)
}

/// Revokes an API token at once, sockets included.
pub async fn revoke_api_token(accounts: &Accounts, user: UserId, token: Uuid) -> Result<()> {
    let mut tx = db::begin(&accounts.core.db).await?;
    if !store::tokens::revoke_api_token(&mut tx, user, token).await? {
        return Err(Error::not_found("API token"));
    }
    let revoked = tx.commit().await;
    accounts.tokens.empty();
    revoked
}
