//! Business logic for accounts: signing in, rotating tokens, revoking them.

pub(crate) mod attempts;
pub(crate) mod confirmations;
mod passwords;
mod refresh;
mod sessions;
mod tokens;

use kernel::audit;
use kernel::auth::{Caller, ClientAddress, StaffRole};
use kernel::db::{self, Tx};
use kernel::error::{Code, Error, Result};
use kernel::hashing::{self, HashClient};
use kernel::idempotency::Once;
use kernel::ids::UserId;
use secrecy::SecretString;
use sqlx::PgConnection;
use uuid::Uuid;

use super::model::{Login, Me, Register, UpdateMe, User};
use super::{Accounts, store};
use attempts::{ACCOUNT, EVERYWHERE, PLACE, limit, limit_address, uncount_address};

pub use confirmations::{confirm, resend};
pub use passwords::{change_password, reset_password};
pub use refresh::{IssuedTokens, RefreshCarrier, end_by_refresh_token, refresh};
pub use sessions::{end_other_sessions, end_session, sessions};
pub use tokens::{api_tokens, authenticate, create_api_token, live, revoke_api_token};

/// Where a login comes from, for the list of sessions.
#[derive(Debug, Clone)]
pub struct LoginOrigin {
    /// The client's address.
    pub address: ClientAddress,
    /// The client's user agent.
    pub user_agent: String,
    /// How the login's refresh tokens are to travel.
    pub carrier: RefreshCarrier,
}

impl LoginOrigin {
    /// The user agent, as much of it as is worth keeping.
    pub(crate) fn agent(&self) -> String {
        self.user_agent.chars().filter(|c| !c.is_control()).take(200).collect()
    }
}

pub(crate) fn unauthenticated(message: &str) -> Error {
    Error::new(Code::Unauthenticated, message)
}

/// Creates a user with an account of their own on the provider's behalf: their address counts as confirmed. The caller
/// has validated `email` and `password`.
pub async fn add_user(
    accounts: &Accounts,
    email: &str,
    name: &str,
    staff_role: Option<StaffRole>,
    password: SecretString,
) -> Result<User> {
    let hash = hashing::hash(HashClient::Known, password).await?;
    let mut tx = db::begin(&accounts.core.db).await?;
    let user = insert_with_account(&mut tx, email, name, staff_role, &hash, true).await?;
    tx.commit().await?;
    Ok(user)
}

/// Adds a user, and an account of the same name that is theirs.
pub(crate) async fn insert_with_account(
    tx: &mut PgConnection,
    email: &str,
    name: &str,
    staff_role: Option<StaffRole>,
    hash: &str,
    is_confirmed: bool,
) -> Result<User> {
    let id = store::insert_user(tx, email, name, staff_role, hash, is_confirmed).await?.ok_or_else(address_taken)?;
    store::accounts::insert_own(tx, id, None).await?;
    let user = store::user(&mut *tx, id).await?;
    user.ok_or_else(|| Error::internal(anyhow::anyhow!("a user who was just added is not there")))
}

pub(crate) fn address_taken() -> Error {
    Error::new(Code::AlreadyExists, "A user with this email address already exists.")
}

/// Registers a customer, if the provider allows it.
pub async fn register(accounts: &Accounts, new: Register, origin: &LoginOrigin) -> Result<IssuedTokens> {
    if !accounts.settings.registration {
        return Err(Error::new(Code::Forbidden, "Registration is closed; ask the provider for an account."));
    }
    // Registrations count like failed logins from this address: hashing is expensive, and this must not become a way to
    // test which email addresses have users.
    limit_address(accounts, origin.address).await?;
    let hash = hashing::hash(HashClient::Stranger, new.password).await?;
    let mut tx = db::begin(&accounts.core.db).await?;
    let user = insert_with_account(&mut tx, &new.email, new.name.trim(), None, &hash, false).await?;
    audit::account(user.account_id);
    store::accounts::limit_servers(&mut tx, user.account_id, accounts.settings.registration_server_limit).await?;
    confirmations::send(accounts, &mut tx, &user).await?;
    open_session(accounts, tx, user, origin).await
}

/// Signs in with an email address and a password.
pub async fn login(accounts: &Accounts, login: Login, origin: &LoginOrigin) -> Result<IssuedTokens> {
    let network = origin.address.network();
    let place = format!("{network} {}", login.email);
    let (place, account) = ((PLACE, place.as_str()), (ACCOUNT, login.email.as_str()));
    let most = accounts.settings.login_limit_account;
    // Counted before the check and taken back on success: parallel guesses can't outrun the count.
    limit_address(accounts, origin.address).await?;
    limit(accounts, place, most).await?;
    let everywhere = limit(accounts, account, most.saturating_mul(EVERYWHERE)).await;
    let wrong = || unauthenticated("The email address or the password is wrong.");
    let found = store::credentials(&accounts.core.db, &login.email).await?;
    // Attackers must not lock out the owner, who signs in from a known network or its neighbourhood.
    let before = match &found {
        Some(found) => store::sessions::session_addresses(&accounts.core.db, found.user.id).await?,
        None => vec![],
    };
    let home = origin.address.known_network();
    let is_known = before.into_iter().any(|known| ClientAddress(known).known_network() == home);
    if !is_known {
        everywhere?;
    }
    let asker = if is_known { HashClient::Known } else { HashClient::Stranger };
    let hash = found.as_ref().map(|c| c.password_hash.clone());
    if let Some(found) = &found {
        audit::account(found.user.account_id);
    }
    let right = hashing::verify(asker, login.password, hash).await?;
    match found {
        Some(found) if right && !found.disabled => {
            for counted in [place, account] {
                store::attempts::uncount(&accounts.core.db, counted).await?;
            }
            uncount_address(accounts, origin.address).await?;
            // The check takes a while. If the password was changed or the user disabled meanwhile, its sessions have
            // been ended.
            let mut tx = db::begin(&accounts.core.db).await?;
            if !store::lock_credentials(&mut tx, found.user.id, &found.password_hash).await? {
                return Err(wrong());
            }
            open_session(accounts, tx, found.user, origin).await
        }
        _ => Err(wrong()),
    }
}

async fn open_session(accounts: &Accounts, mut tx: Tx, user: User, origin: &LoginOrigin) -> Result<IssuedTokens> {
    let (session, days) = (Uuid::now_v7(), i32::try_from(accounts.settings.session_days).unwrap_or(i32::MAX));
    let (address, agent) = (origin.address.0.to_string(), origin.agent());
    let by_cookie = origin.carrier == RefreshCarrier::Cookie;
    store::sessions::insert_session(&mut tx, session, user.id, by_cookie, (&address, &agent), days).await?;
    let signed_in = refresh::issue(accounts, &mut tx, user, session, true).await?;
    tx.commit().await?;
    Ok(signed_in)
}

/// Ends a session: its access and refresh tokens stop working at once.
pub async fn logout(accounts: &Accounts, once: &Once, session: Uuid) -> Result<()> {
    let work =
        once.run(&accounts.core, async |tx| store::sessions::revoke_session(tx, session).await.map_err(Into::into));
    let done = work.await;
    // Also if the outcome of the commit is unknown.
    accounts.tokens.empty();
    done
}

/// The caller, and the account that they act for.
pub async fn me(accounts: &Accounts, caller: &Caller) -> Result<Me> {
    let user = store::user(&accounts.core.db, caller.user).await?.ok_or_else(|| Error::not_found("user"))?;
    let account = store::accounts::find(&accounts.core.db, caller.account).await?;
    let account = account.ok_or_else(|| Error::not_found("account"))?.seen_as(caller.role);
    Ok(Me { user, account })
}

/// Changes a user's own settings.
pub async fn update_me(accounts: &Accounts, user: UserId, update: &UpdateMe) -> Result<User> {
    let mut tx = db::begin(&accounts.core.db).await?;
    let changed = store::update_user(&mut tx, user, update).await?;
    tx.commit().await?;
    changed.ok_or_else(|| Error::not_found("user"))
}

/// The user with this email address, ignoring case.
pub async fn find_user(accounts: &Accounts, email: &str) -> Result<User> {
    store::user_by_email(&accounts.core.db, email).await?.ok_or_else(|| Error::not_found("user"))
}

/// Deletes expired sessions and tokens.
pub async fn purge(accounts: &Accounts) -> Result<()> {
    Ok(store::purge(&accounts.core.db).await?)
}
