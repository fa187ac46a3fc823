//! Business logic for passwords: changing and resetting them.

use kernel::db;
use kernel::error::{Error, Result};
use kernel::hashing::{self, HashClient};
use kernel::idempotency::{Once, OnceCheck};
use kernel::ids::UserId;
use secrecy::SecretString;
use uuid::Uuid;

use super::attempts::{SESSION, limit};
use crate::model::ChangePassword;
use crate::{Accounts, store};

/// Changes a password and ends the user's other sessions.
pub async fn change_password(
    accounts: &Accounts,
    once: &Once,
    user: UserId,
    session: Uuid,
    change: ChangePassword,
) -> Result<()> {
    let wrong = || Error::field("currentPassword", "This is not your current password.");
    let current = change.current_password;
    let verified = async {
        let user = store::user(&accounts.core.db, user).await?.ok_or_else(|| Error::not_found("user"))?;
        let tried = session.to_string();
        let key = (SESSION, tried.as_str());
        limit(accounts, key, accounts.settings.login_limit_account).await?;
        let present = store::credentials(&accounts.core.db, &user.email).await?.map(|c| c.password_hash);
        if !hashing::verify(HashClient::Known, current, present.clone()).await? {
            return Err(wrong());
        }
        store::attempts::uncount(&accounts.core.db, key).await?;
        Ok((user, present))
    };
    let (user, present) = match once.check(&accounts.core, verified).await? {
        OnceCheck::New(verified) => verified,
        OnceCheck::Done(answer) => return Ok(answer),
    };
    let hash = hashing::hash(HashClient::Known, change.new_password).await?;
    let work = once.run(&accounts.core, async |tx| {
        // Anyone else who knew it may have changed it meanwhile.
        if !store::lock_credentials(tx, user.id, present.as_deref().unwrap_or_default()).await? {
            return Err(wrong());
        }
        store::set_password(tx, user.id, &hash).await?;
        store::sessions::revoke_other_sessions(tx, user.id, session).await?;
        if change.revoke_tokens {
            store::sessions::revoke_api_tokens(tx, user.id).await?;
        }
        Ok(())
    });
    let done = work.await;
    // Also if the outcome of the commit is unknown.
    accounts.tokens.empty();
    done
}

/// Sets a new password without knowing the old one, and ends the user's sessions. API tokens are revoked as well
/// unless `keep_tokens` is set: an intruder may have created some. Returns the number of tokens revoked.
pub async fn reset_password(
    accounts: &Accounts,
    user: UserId,
    password: SecretString,
    keep_tokens: bool,
) -> Result<u64> {
    let hash = hashing::hash(HashClient::Known, password).await?;
    let mut tx = db::begin(&accounts.core.db).await?;
    store::set_password(&mut tx, user, &hash).await?;
    store::sessions::revoke_sessions(&mut tx, user).await?;
    let revoked = if keep_tokens { 0 } else { store::sessions::revoke_api_tokens(&mut tx, user).await? };
    let done = tx.commit().await;
    accounts.tokens.empty();
    done.map(|()| revoked)
}
