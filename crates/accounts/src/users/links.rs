//! Links with which the provider's staff sign in as a user, to see what they see: each works once, soon after it was
//! made, for a limited time and with a reason.

use std::time::Duration;

use kernel::audit;
use kernel::auth::StaffRole;
use kernel::db;
use kernel::error::{Code, Error, Result};
use kernel::idempotency::Once;
use kernel::ids::UserId;
use kernel::secrets;
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgConnection;
use uuid::Uuid;

use super::model::{LinkedSession, LoginLink, NewLoginLink};
use super::store::{self, UsedLink};
use crate::Accounts;
use crate::model::User;
use crate::service::{LoginOrigin, unauthenticated};

/// How long a link is valid.
const LIFE: Duration = Duration::from_secs(30);
/// How long a login that was opened by one lasts, in seconds.
const SESSION_LIFE: u32 = 3600;

/// Creates a link for a user's login. `by`: the member of staff who opens it.
pub async fn create(
    accounts: &Accounts,
    once: &Once,
    by: UserId,
    user: UserId,
    new: NewLoginLink,
) -> Result<LoginLink> {
    let (token, hash) = secrets::new_token("ink_l_");
    let reason = new.reason.trim();
    audit::reason(reason);
    once.run(&accounts.core, async |tx| {
        check_opener(tx, by).await?;
        let target = target(tx, user).await?;
        audit::account(target.account_id);
        let expires_at = store::insert_link(tx, &hash, (user, by), reason, LIFE).await?;
        let base = accounts.settings.public_url.trim_end_matches('/');
        // In the fragment, which never reaches a server's log.
        let url = format!("{base}/login-link/#{}", token.expose_secret());
        Ok(LoginLink { url, token: token.expose_secret().to_owned(), expires_at })
    })
    .await
}

/// Refuses all but providers and support staff.
async fn check_opener(tx: &mut PgConnection, by: UserId) -> Result<()> {
    let found = store::find(tx, by).await?.filter(|found| found.disabled_at.is_none());
    match found.and_then(|found| found.staff_role) {
        Some(StaffRole::Admin | StaffRole::Support) => Ok(()),
        _ => Err(Error::new(Code::Forbidden, "Only the provider's support may do this.")),
    }
}

/// The user whose login is to be opened.
async fn target(tx: &mut PgConnection, user: UserId) -> Result<User> {
    let found = store::lock(tx, user).await?.ok_or_else(|| Error::not_found("user"))?;
    let conflict = |words: &str| Err(Error::new(Code::Conflict, words));
    match found {
        found if found.staff_role.is_some() => {
            conflict("This user is a member of the provider's staff: login links for staff are not allowed.")
        }
        found if found.is_disabled => conflict("This user is disabled."),
        _ => crate::store::user(tx, user).await?.ok_or_else(|| Error::not_found("user")),
    }
}

/// Opens the login that this link is for; needs no authentication.
pub async fn open(accounts: &Accounts, token: &SecretString, origin: &LoginOrigin) -> Result<LinkedSession> {
    accounts.core.limits.guess(&accounts.core, origin.address).await?;
    let mut tx = db::begin(&accounts.core.db).await?;
    let found = take(&mut tx, &secrets::hash_token(token.expose_secret())).await;
    if !matches!(found, Ok(None)) {
        accounts.core.limits.uncount_lookup(origin.address).await;
    }
    let invalid = || unauthenticated("This login link is invalid, has expired or was used; ask for another one.");
    let link = found?.ok_or_else(invalid)?;
    // Not the account: its members read such entries, and staff don't have to tell them where they sit.
    audit::subject(link.user);
    audit::reason(&link.reason);
    let session = Uuid::now_v7();
    let (address, agent) = (origin.address.0.to_string(), origin.agent());
    let (users, from) = ((link.user, link.opened_by), (address.as_str(), agent.as_str()));
    let read_only = link.opener != Some(StaffRole::Admin);
    crate::store::sessions::insert_opened(&mut tx, session, users, read_only, from, SESSION_LIFE).await?;
    let (access, access_hash) = secrets::new_token("ink_a_");
    crate::store::sessions::insert_session_token(&mut tx, "access", &access_hash, session, Some(SESSION_LIFE)).await?;
    let user = crate::store::user(&mut *tx, link.user).await?.ok_or_else(invalid)?;
    tx.commit().await?;
    Ok(LinkedSession {
        access_token: access.expose_secret().to_owned(),
        token_type: "Bearer",
        expires_in: SESSION_LIFE,
        user,
    })
}

/// Uses a link, of which one can be the first: if it is valid, and both users still are what they were.
async fn take(tx: &mut PgConnection, hash: &[u8; 32]) -> Result<Option<UsedLink>> {
    match store::lock_user_of_link(tx, hash).await? {
        true => Ok(store::use_link(tx, hash).await?),
        false => Ok(None),
    }
}
