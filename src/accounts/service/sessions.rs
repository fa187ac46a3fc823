//! An account's own logins: looking at them, and ending them.

use uuid::Uuid;

use crate::accounts::model::SessionView;
use crate::accounts::{Accounts, store};
use crate::db;
use crate::error::{Error, Result};
use crate::ids::UserId;

/// The logins that are shown: nobody has more by signing in as people do.
const SHOWN: i64 = 100;

/// The account's live logins, the one that asks first, then the newest.
pub async fn sessions(accounts: &Accounts, user: UserId, current: Uuid) -> Result<Vec<SessionView>> {
    Ok(store::sessions::list(&accounts.core.db, user, current, SHOWN).await?)
}

/// Ends one of the account's logins at once, sockets included.
pub async fn end_session(accounts: &Accounts, user: UserId, session: Uuid) -> Result<()> {
    let mut tx = db::begin(&accounts.core.db).await?;
    if !store::sessions::revoke_own(&mut tx, user, session).await? {
        return Err(Error::not_found("login"));
    }
    let ended = tx.commit().await;
    accounts.tokens.empty();
    ended
}

/// Ends all of the account's logins but this one.
pub async fn end_other_sessions(accounts: &Accounts, user: UserId, keep: Uuid) -> Result<()> {
    let mut tx = db::begin(&accounts.core.db).await?;
    store::revoke_other_sessions(&mut tx, user, keep).await?;
    let ended = tx.commit().await;
    accounts.tokens.empty();
    ended
}
