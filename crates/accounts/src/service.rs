//! Business logic for accounts: signing in, rotating tokens, revoking them.

mod confirmations;
mod sessions;

use std::time::Duration;

use kernel::audit;
use kernel::auth::{Caller, ClientAddress, Role, Scope, Scopes, UNKNOWN_SCOPE};
use kernel::db::{self, Tx};
use kernel::error::{Code, Error, Result};
use kernel::hashing::{self, HashClient};
use kernel::idempotency::{Once, OnceCheck};
use kernel::ids::UserId;
use kernel::secrets;
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::cache::CacheLookup;
use super::model::{
    AccountSummary, ApiToken, ChangePassword, CreatedApiToken, Login, NewApiToken, Refresh, Register, SignedIn,
    UpdateMe, User,
};
use super::{Accounts, store};

pub use confirmations::{confirm, resend};
pub use sessions::{end_other_sessions, end_session, sessions};

/// Where a login comes from, for the list of sessions.
#[derive(Debug, Clone)]
pub struct LoginOrigin {
    /// The client's address.
    pub address: ClientAddress,
    /// The client's user agent.
    pub user_agent: String,
}

/// What login attempts are counted by: an account from one network, an account from everywhere, one network.
const PLACE: &str = "place:";
const ACCOUNT: &str = "account:";
const ADDRESS: &str = "address:";
/// What attempts at the current password are counted by, for an authenticated user.
const SESSION: &str = "session:";
/// Limit of an account's attempts from everywhere, as a multiple of those from one network: many attackers together get
/// no further.
const EVERYWHERE: i32 = 10;
/// How long a lost response to a refresh can be requested again, from the same address.
const REFRESH_GRACE: Duration = Duration::from_secs(15);
/// Limit of a /48's attempts, as a multiple of one network's.
const WIDE: i32 = 4;
/// Maximum number of API tokens per account.
const API_TOKENS: usize = 100;

fn unauthenticated(message: &str) -> Error {
    Error::new(Code::Unauthenticated, message)
}

/// Creates an account on the provider's behalf: its address counts as confirmed. The caller has validated `email` and
/// `password`.
pub async fn add_user(
    accounts: &Accounts,
    email: &str,
    name: &str,
    role: Role,
    password: SecretString,
) -> Result<User> {
    let hash = hashing::hash(HashClient::Known, password).await?;
    let mut tx = db::begin(&accounts.core.db).await?;
    let user = store::insert_user(&mut tx, email, name, role, &hash, true).await?.ok_or_else(address_taken)?;
    tx.commit().await?;
    Ok(user)
}

fn address_taken() -> Error {
    Error::new(Code::AlreadyExists, "An account with this email address already exists.")
}

/// Registers a customer, if the provider allows it.
pub async fn register(accounts: &Accounts, new: Register, origin: &LoginOrigin) -> Result<SignedIn> {
    if !accounts.settings.registration {
        return Err(Error::new(Code::Forbidden, "Registration is closed; ask the provider for an account."));
    }
    // Registrations count like failed logins from this address: hashing is expensive, and this must not become a way to
    // test which email addresses have accounts.
    limit_address(accounts, origin.address).await?;
    let hash = hashing::hash(HashClient::Stranger, new.password).await?;
    let mut tx = db::begin(&accounts.core.db).await?;
    let user = store::insert_user(&mut tx, &new.email, new.name.trim(), Role::Customer, &hash, false).await?;
    let user = user.ok_or_else(address_taken)?;
    audit::account(user.id);
    confirmations::send(accounts, &mut tx, &user).await?;
    open_session(accounts, tx, user, origin).await
}

/// Signs in with an email address and a password.
pub async fn login(accounts: &Accounts, login: Login, origin: &LoginOrigin) -> Result<SignedIn> {
    let network = origin.address.network();
    let place = format!("{network} {}", login.email);
    let (place, account) = ((PLACE, place.as_str()), (ACCOUNT, login.email.as_str()));
    let address = (ADDRESS, network.as_str());
    let most = accounts.settings.login_limit_account;
    // Counted before the check and taken back on success: parallel guesses can't outrun the count.
    limit_address(accounts, origin.address).await?;
    limit(accounts, place, most).await?;
    let everywhere = limit(accounts, account, most.saturating_mul(EVERYWHERE)).await;
    let wrong = || unauthenticated("The email address or the password is wrong.");
    let found = store::credentials(&accounts.core.db, &login.email).await?;
    // Attackers must not lock out the owner, who signs in from a known network or its neighbourhood.
    let before = match &found {
        Some(found) => store::session_addresses(&accounts.core.db, found.user.id).await?,
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
        audit::account(found.user.id);
    }
    let right = hashing::verify(asker, login.password, hash).await?;
    match found {
        Some(found) if right && !found.disabled => {
            for counted in [place, account, address] {
                store::uncount_attempt(&accounts.core.db, counted).await?;
            }
            if let Some(wide) = origin.address.wide() {
                store::uncount_attempt(&accounts.core.db, (ADDRESS, &wide)).await?;
            }
            // The check takes a while. If the password was changed or the account disabled meanwhile, its sessions have
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

/// Counts an attempt by address, and by the /48 around it: anyone with a /48 has 65,536 networks to come from.
async fn limit_address(accounts: &Accounts, address: ClientAddress) -> Result<()> {
    let most = accounts.settings.login_limit_address;
    if let Some(wide) = address.wide() {
        limit(accounts, (ADDRESS, &wide), most.saturating_mul(WIDE)).await?;
    }
    limit(accounts, (ADDRESS, &address.network()), most).await
}

async fn limit(accounts: &Accounts, key: store::AttemptKey<'_>, limit: i32) -> Result<()> {
    let (attempts, seconds) = store::count_attempt(&accounts.core.db, key).await?;
    if attempts <= limit {
        return Ok(());
    }
    let wait = Duration::from_secs(seconds.max(1).unsigned_abs());
    let minutes = wait.as_secs().div_ceil(60);
    Err(Error {
        retry_after: Some(wait),
        ..Error::new(Code::RateLimited, format!("Too many login attempts. Try again in {minutes} minutes."))
    })
}

async fn open_session(accounts: &Accounts, mut tx: Tx, user: User, origin: &LoginOrigin) -> Result<SignedIn> {
    let (session, days) = (Uuid::now_v7(), i32::try_from(accounts.settings.session_days).unwrap_or(i32::MAX));
    let agent: String = origin.user_agent.chars().filter(|c| !c.is_control()).take(200).collect();
    store::insert_session(&mut tx, session, user.id, &origin.address.0.to_string(), &agent, days).await?;
    let signed_in = issue(accounts, &mut tx, user, session).await?;
    tx.commit().await?;
    Ok(signed_in)
}

async fn issue(accounts: &Accounts, tx: &mut sqlx::PgConnection, user: User, session: Uuid) -> Result<SignedIn> {
    let (access, access_hash) = secrets::new_token("ink_a_");
    let (refresh, refresh_hash) = secrets::new_token("ink_r_");
    let expires_in = accounts.settings.access_token_minutes * 60;
    store::insert_session_token(tx, "access", &access_hash, session, Some(expires_in)).await?;
    store::insert_session_token(tx, "refresh", &refresh_hash, session, None).await?;
    Ok(SignedIn {
        access_token: access.expose_secret().to_owned(),
        refresh_token: refresh.expose_secret().to_owned(),
        token_type: "Bearer",
        expires_in,
        user,
    })
}

/// Exchanges a refresh token for a new pair. A token that was used before counts as stolen: its session is revoked. The
/// exception is an immediate retry from the same address, because the response may have been lost.
pub async fn refresh(accounts: &Accounts, refresh: Refresh, address: ClientAddress) -> Result<SignedIn> {
    let refused = || unauthenticated("This refresh token is no longer valid; sign in again.");
    let hash = secrets::hash_token(refresh.refresh_token.expose_secret());
    let from = address.0.to_string();
    let mut tx = db::begin(&accounts.core.db).await?;
    let row = store::lock_refresh(&mut tx, &hash, &from, REFRESH_GRACE).await?.ok_or_else(refused)?;
    audit::account(row.user);
    if row.used && !(row.just_here && row.live) {
        store::revoke_session(&mut tx, row.session).await?;
        let revoked = tx.commit().await;
        accounts.tokens.empty();
        revoked?;
        tracing::warn!(user = row.user.0, session = %row.session, "a refresh token was used twice; session revoked");
        return Err(refused());
    }
    if !row.live {
        return Err(refused());
    }
    if !row.used {
        store::mark_used(&mut tx, row.id, &from).await?;
    }
    let user = store::user(&mut *tx, row.user).await?.ok_or_else(refused)?;
    let signed_in = issue(accounts, &mut tx, user, row.session).await?;
    tx.commit().await?;
    Ok(signed_in)
}

/// Ends a session: its access and refresh tokens stop working at once.
pub async fn logout(accounts: &Accounts, once: &Once, session: Uuid) -> Result<()> {
    let work = once.run(&accounts.core, async |tx| store::revoke_session(tx, session).await.map_err(Into::into));
    let done = work.await;
    // Also if the outcome of the commit is unknown.
    accounts.tokens.empty();
    done
}

/// Changes a user's own settings.
pub async fn update_me(accounts: &Accounts, user: UserId, update: &UpdateMe) -> Result<User> {
    let mut tx = db::begin(&accounts.core.db).await?;
    let changed = store::update_user(&mut tx, user, update.alert_mails).await?;
    tx.commit().await?;
    changed.ok_or_else(|| Error::not_found("account"))
}

/// Changes a password and ends the account's other sessions.
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
        let user = store::user(&accounts.core.db, user).await?.ok_or_else(|| Error::not_found("account"))?;
        let tried = session.to_string();
        let key = (SESSION, tried.as_str());
        limit(accounts, key, accounts.settings.login_limit_account).await?;
        let present = store::credentials(&accounts.core.db, &user.email).await?.map(|c| c.password_hash);
        if !hashing::verify(HashClient::Known, current, present.clone()).await? {
            return Err(wrong());
        }
        store::uncount_attempt(&accounts.core.db, key).await?;
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
        store::revoke_other_sessions(tx, user.id, session).await?;
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

/// All accounts, oldest first.
pub async fn users(accounts: &Accounts) -> Result<Vec<AccountSummary>> {
    Ok(store::users(&accounts.core.db).await?)
}

/// The account with this email address, ignoring case.
pub async fn find_user(accounts: &Accounts, email: &str) -> Result<User> {
    store::user_by_email(&accounts.core.db, email).await?.ok_or_else(|| Error::not_found("account"))
}

/// Sets a new password without knowing the old one, and ends the account's sessions. API tokens are revoked as well
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
    store::revoke_sessions(&mut tx, user).await?;
    let revoked = if keep_tokens { 0 } else { store::sessions::revoke_api_tokens(&mut tx, user).await? };
    let done = tx.commit().await;
    accounts.tokens.empty();
    done.map(|()| revoked)
}

/// Disables an account: no one can sign in to it, and its sessions and tokens stop working at once.
pub async fn disable_user(accounts: &Accounts, user: UserId) -> Result<()> {
    let mut tx = db::begin(&accounts.core.db).await?;
    store::disable_user(&mut tx, user).await?;
    store::revoke_sessions(&mut tx, user).await?;
    let done = tx.commit().await;
    accounts.tokens.empty();
    done
}

/// Sets the maximum number of servers of an account. Existing servers stay.
pub async fn set_server_limit(accounts: &Accounts, user: UserId, servers: u16) -> Result<()> {
    let mut tx = db::begin(&accounts.core.db).await?;
    if !store::set_server_limit(&mut tx, user, servers.into()).await? {
        return Err(Error::not_found("account"));
    }
    tx.commit().await
}

/// Authenticates the caller with this token, from this address. Refresh tokens are not accepted.
pub async fn authenticate(accounts: &Accounts, token: &str, address: ClientAddress) -> Result<Caller> {
    let hash = secrets::hash_token(token);
    let reading = match accounts.tokens.get(&hash) {
        CacheLookup::Yes(caller) => return Ok(caller),
        CacheLookup::No(reading) => reading,
    };
    accounts.core.limits.guess(&accounts.core, address).await?;
    let row = store::live_token(&accounts.core.db, &hash).await;
    // If the database can't say, it does not count as a guess either.
    if !matches!(row, Ok(None)) {
        accounts.core.limits.uncount_lookup(address).await;
    }
    let row = row?.ok_or_else(|| unauthenticated("This token is invalid or has expired; sign in again."))?;
    if row.stale_use
        && let Err(error) = store::touch_token(&accounts.core.db, row.id).await
    {
        // This is only bookkeeping: reads must keep working while the database accepts no writes.
        tracing::debug!(%error, "cannot record the use of a token");
    }
    let scopes = if row.session.is_some() { Scopes::All } else { Scopes::from_stored(&row.scopes) };
    let caller = Caller { user: row.user, role: row.role, token: row.id, session: row.session, scopes };
    let left = row.seconds_left.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
    accounts.tokens.put(reading, hash, &caller, left);
    Ok(caller)
}

/// Those callers that are still authenticated, with their current rights: for connections that stay open after
/// authentication.
pub async fn live(accounts: &Accounts, callers: &[Caller]) -> Result<Vec<Caller>> {
    Ok(store::live_callers(&accounts.core.db, callers).await?)
}

/// Creates an API token. Its secret is in the response and nowhere else. `session`: the login that requests it, if one
/// does.
pub async fn create_api_token(
    accounts: &Accounts,
    once: &Once,
    user: UserId,
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
        store::lock_account(tx, user).await?;
        // The lock may have waited for a new password, which ended the account's sessions and revoked its tokens.
        if let Some(session) = session
            && !store::sessions::is_live(tx, session).await?
        {
            return Err(unauthenticated("This session has ended; sign in again."));
        }
        if store::api_tokens(&mut *tx, user).await?.len() >= API_TOKENS {
            let message = format!("Your account has {API_TOKENS} API tokens; revoke one that is no longer needed.");
            return Err(Error::new(Code::ResourceUnavailable, message));
        }
        let (token, hash) = secrets::new_token("ink_t_");
        let details =
            store::insert_api_token(&mut *tx, user, &hash, new.name.trim(), &new.scopes, new.expires_at).await?;
        Ok(CreatedApiToken { token: token.expose_secret().to_owned(), details })
    })
    .await
}

/// The account's live API tokens, oldest first.
pub async fn api_tokens(accounts: &Accounts, user: UserId) -> Result<Vec<ApiToken>> {
    Ok(store::api_tokens(&accounts.core.db, user).await?)
}

/// Revokes an API token at once, sockets included.
pub async fn revoke_api_token(accounts: &Accounts, user: UserId, token: Uuid) -> Result<()> {
    let mut tx = db::begin(&accounts.core.db).await?;
    if !store::revoke_api_token(&mut tx, user, token).await? {
        return Err(Error::not_found("API token"));
    }
    let revoked = tx.commit().await;
    accounts.tokens.empty();
    revoked
}

/// Deletes expired sessions and tokens.
pub async fn purge(accounts: &Accounts) -> Result<()> {
    Ok(store::purge(&accounts.core.db).await?)
}
