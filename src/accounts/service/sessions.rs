//! An account's own logins: looking at them, and ending them.

use uuid::Uuid;

use crate::accounts::model::SessionView;
use crate::accounts::store;
use crate::app::App;
use crate::db;
use crate::error::{Error, Result};
use crate::ids::UserId;

/// The logins that are shown: nobody has more by signing in as people do.
const SHOWN: i64 = 100;

/// The account's live logins, the one that asks first, then the newest.
pub async fn sessions(app: &App, user: UserId, current: Uuid) -> Result<Vec<SessionView>> {
    Ok(store::sessions::list(&app.db, user, current, SHOWN).await?)
}

/// Ends one of the account's logins at once, sockets included.
pub async fn end_session(app: &App, user: UserId, session: Uuid) -> Result<()> {
    let mut tx = db::begin(&app.db).await?;
    if !store::sessions::revoke_own(&mut tx, user, session).await? {
        return Err(Error::not_found("login"));
    }
    let ended = tx.commit().await;
    app.tokens.empty();
    ended
}

/// Ends all of the account's logins but this one.
pub async fn end_other_sessions(app: &App, user: UserId, keep: Uuid) -> Result<()> {
    let mut tx = db::begin(&app.db).await?;
    store::revoke_other_sessions(&mut tx, user, keep).await?;
    let ended = tx.commit().await;
    app.tokens.empty();
    ended
}
