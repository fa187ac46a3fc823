//! Refresh tokens: used once, for an access token and the next refresh token.

use std::time::Duration;

use kernel::auth::ClientAddress;
use kernel::error::Result;
use kernel::{audit, db, secrets};
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgConnection;
use uuid::Uuid;

use super::unauthenticated;
use crate::model::User;
use crate::store::sessions::RefreshRow;
use crate::{Accounts, store};

/// How a login's refresh tokens travel. They are not accepted the other way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshCarrier {
    /// In the bodies of requests and responses.
    Body,
    /// In a browser's cookie, which scripts can't read.
    Cookie,
}

impl RefreshCarrier {
    /// How long a used token may come again: because its response was lost, or from another tab of a browser.
    fn grace(self) -> Duration {
        match self {
            Self::Body => Duration::from_secs(15),
            Self::Cookie => Duration::from_secs(30),
        }
    }
}

/// A login's new tokens.
#[derive(Debug)]
pub struct IssuedTokens {
    /// For the `Authorization: Bearer` header.
    pub access: SecretString,
    /// For the next refresh; `None` if another tab of the browser has it.
    pub refresh: Option<SecretString>,
    /// Seconds until the access token expires.
    pub expires_in: u32,
    /// Seconds until the session expires.
    pub session_expires_in: i64,
    /// The user who signed in.
    pub user: User,
}

/// Issues an access token and, if asked to, a refresh token.
pub(super) async fn issue(
    accounts: &Accounts,
    tx: &mut PgConnection,
    user: User,
    session: Uuid,
    with_refresh: bool,
) -> Result<IssuedTokens> {
    let (access, hash) = secrets::new_token("ink_a_");
    let expires_in = accounts.settings.access_token_minutes * 60;
    let session_expires_in =
        store::sessions::insert_session_token(tx, "access", &hash, session, Some(expires_in)).await?;
    let mut refresh = None;
    if with_refresh {
        let (token, hash) = secrets::new_token("ink_r_");
        store::sessions::insert_session_token(tx, "refresh", &hash, session, None).await?;
        refresh = Some(token);
    }
    Ok(IssuedTokens { access, refresh, expires_in, session_expires_in, user })
}

/// What a refresh token that was used before may still be exchanged for.
enum Reuse {
    /// A new pair: its response was lost.
    Pair,
    /// An access token: another tab of the browser has the next refresh token.
    Access,
    /// Nothing: it was stolen.
    Theft,
}

fn reuse(row: &RefreshRow, carrier: RefreshCarrier, address: ClientAddress) -> Reuse {
    let is_near = row.used_from.as_deref().is_some_and(|from| match carrier {
        RefreshCarrier::Body => from == address.0.to_string(),
        RefreshCarrier::Cookie => {
            from.parse().is_ok_and(|from| ClientAddress(from).known_network() == address.known_network())
        }
    });
    match carrier {
        _ if !row.just_used || !row.live || !is_near => Reuse::Theft,
        _ if !row.succeeded => Reuse::Pair,
        RefreshCarrier::Body => Reuse::Theft,
        RefreshCarrier::Cookie => Reuse::Access,
    }
}

/// Exchanges a refresh token for a new pair. A token that was used before counts as stolen: its session is revoked. The
/// exceptions are an immediate retry from the same place, because the response may have been lost, and the other tabs
/// of a browser, which may all have sent the same cookie at once.
pub async fn refresh(
    accounts: &Accounts,
    token: &SecretString,
    carrier: RefreshCarrier,
    address: ClientAddress,
) -> Result<IssuedTokens> {
    let refused = || unauthenticated("This refresh token is no longer valid; sign in again.");
    let (hash, by_cookie) = (secrets::hash_token(token.expose_secret()), carrier == RefreshCarrier::Cookie);
    let mut tx = db::begin(&accounts.core.db).await?;
    let row = store::sessions::lock_refresh(&mut tx, &hash, by_cookie, carrier.grace()).await?.ok_or_else(refused)?;
    audit::account(row.account);
    let mut with_refresh = true;
    if row.used {
        match reuse(&row, carrier, address) {
            Reuse::Pair => {}
            Reuse::Access => with_refresh = false,
            Reuse::Theft => {
                store::sessions::revoke_session(&mut tx, row.session).await?;
                let revoked = tx.commit().await;
                accounts.tokens.empty();
                revoked?;
                tracing::warn!(user = row.user.0, session = %row.session, "a refresh token was used twice; session revoked");
                return Err(refused());
            }
        }
    } else if row.live {
        store::sessions::mark_used(&mut tx, row.id, &address.0.to_string()).await?;
    } else {
        return Err(refused());
    }
    let user = store::user(&mut *tx, row.user).await?.ok_or_else(refused)?;
    let issued = issue(accounts, &mut tx, user, row.session, with_refresh).await?;
    tx.commit().await?;
    Ok(issued)
}

/// Ends the session that this cookie's refresh token is for, if there is one: all of its tokens stop working at once.
pub async fn end_by_refresh_token(accounts: &Accounts, token: &SecretString) -> Result<()> {
    let hash = secrets::hash_token(token.expose_secret());
    let mut tx = db::begin(&accounts.core.db).await?;
    let grace = RefreshCarrier::Cookie.grace();
    let Some(row) = store::sessions::lock_refresh(&mut tx, &hash, true, grace).await? else { return Ok(()) };
    audit::account(row.account);
    store::sessions::revoke_session(&mut tx, row.session).await?;
    let done = tx.commit().await;
    // Also if the outcome of the commit is unknown.
    accounts.tokens.empty();
    done
}
