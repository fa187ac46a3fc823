//! A user's own sessions: listing and ending them.

use kernel::db;
use kernel::error::{Error, Result};
use kernel::ids::UserId;
use uuid::Uuid;

use crate::model::SessionView;
use crate::{Accounts, store};

/// Maximum number of sessions shown: no one gets there by normal logins.
const SHOWN: i64 = 100;

/// The user's live sessions, the current one first, then the newest.
pub async fn sessions(accounts: &Accounts, user: UserId, current: Uuid) -> Result<Vec<SessionView>> {
    Ok(store::sessions::list(&accounts.core.db, user, current, SHOWN).await?)
}

/// Ends one of the user's sessions at once, sockets included.
pub async fn end_session(accounts: &Accounts, user: UserId, session: Uuid) -> Result<()> {
    let mut tx = db::begin(&accounts.core.db).await?;
    if !store::sessions::revoke_own(&mut tx, user, session).await? {
        return Err(Error::not_found("session"));
    }
    let ended = tx.commit().await;
    accounts.tokens.empty();
    ended
}

/// Ends all of the user's sessions but this one.
pub async fn end_other_sessions(accounts: &Accounts, user: UserId, keep: Uuid) -> Result<()> {
    let mut tx = db::begin(&accounts.core.db).await?;
    store::sessions::revoke_other_sessions(&mut tx, user, keep).await?;
    let ended = tx.commit().await;
    accounts.tokens.empty();
    ended
}
