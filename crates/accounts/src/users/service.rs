//! Business logic for users as staff manage them. `by` is `None` for the command line, which acts for the provider.

use kernel::audit;
use kernel::db;
use kernel::error::{Code, Error, Result};
use kernel::hashing::{self, HashClient};
use kernel::http::patch::Patch;
use kernel::idempotency::Once;
use kernel::ids::UserId;
use kernel::listing::{Window, list_error};
use kernel::secrets;
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgConnection;

use super::model::{CreatedUser, ListUsers, NewUser, UpdateUser, UserDetails, UserSummary};
use super::store::{self, LockedUser};
use crate::locks::ADMINS;
use crate::service::insert_with_account;
use crate::{Accounts, members};

/// A page of users, oldest first, with their total.
pub async fn list(accounts: &Accounts, query: &ListUsers, window: Window) -> Result<(Vec<UserSummary>, i64)> {
    window.check()?;
    store::list(&accounts.core.db, query, window).await.map_err(list_error)
}

/// All users, oldest first.
pub async fn all(accounts: &Accounts) -> Result<Vec<UserSummary>> {
    Ok(store::all(&accounts.core.db).await?)
}

/// A user, with the accounts that they have a role in.
pub async fn get(accounts: &Accounts, user: UserId) -> Result<UserDetails> {
    details(&mut *accounts.core.db.acquire().await?, user).await
}

async fn details(db: &mut PgConnection, user: UserId) -> Result<UserDetails> {
    let summary = store::find(&mut *db, user).await?.ok_or_else(not_found)?;
    Ok(UserDetails { summary, accounts: store::accounts_of(db, user).await? })
}

fn not_found() -> Error {
    Error::not_found("user")
}

/// A new user's password: its hash, and itself where it was generated and has to be shown.
#[derive(Debug)]
pub(crate) struct InitialPassword {
    pub(crate) hash: String,
    pub(crate) shown: Option<String>,
}

impl InitialPassword {
    /// This one, or a generated one.
    pub(crate) async fn of(given: Option<SecretString>) -> Result<Self> {
        let shown = given.is_none();
        let password = given.unwrap_or_else(secrets::readable_password);
        let shown = shown.then(|| password.expose_secret().to_owned());
        Ok(Self { hash: hashing::hash(HashClient::Known, password).await?, shown })
    }
}

/// Creates a user with an account of their own. The caller has validated `new`.
pub async fn create(accounts: &Accounts, once: &Once, new: NewUser) -> Result<CreatedUser> {
    let password = InitialPassword::of(new.password).await?;
    let created = once.run(&accounts.core, async |tx| {
        let user = insert_with_account(tx, &new.email, new.name.trim(), new.staff_role, &password.hash, true).await?;
        let user = store::find(tx, user.id).await?.ok_or_else(not_found)?;
        Ok(CreatedUser { user, password: password.shown })
    });
    let created = created.await?;
    audit::account(created.user.account_id);
    Ok(created)
}

/// Changes a user. `by`: who does so, if it is a user.
pub async fn update(accounts: &Accounts, by: Option<UserId>, user: UserId, update: &UpdateUser) -> Result<UserDetails> {
    let mut tx = db::begin(&accounts.core.db).await?;
    if update.disabled == Some(true) || update.staff_role != Patch::Keep {
        ADMINS.hold(&mut tx).await?;
    }
    let before = store::lock(&mut tx, user).await?.ok_or_else(not_found)?;
    let after = LockedUser {
        staff_role: update.staff_role.apply(before.staff_role),
        is_disabled: update.disabled.unwrap_or(before.is_disabled),
    };
    if before.is_admin() && !after.is_admin() {
        check_may_go(&mut tx, by, user).await?;
    }
    store::update(&mut tx, user, update).await?;
    if after.is_disabled {
        crate::store::sessions::revoke_sessions(&mut tx, user).await?;
    }
    let details = details(&mut tx, user).await?;
    audit::account(details.summary.account_id);
    let done = tx.commit().await;
    accounts.tokens.empty();
    done.map(|()| details)
}

/// Refuses to take away the last of those who run the installation, and the one who asks.
async fn check_may_go(tx: &mut PgConnection, by: Option<UserId>, user: UserId) -> Result<()> {
    if by == Some(user) {
        return Err(Error::new(Code::Conflict, "You can't do this to yourself; another admin has to."));
    }
    match store::is_other_admin(tx, user).await? {
        true => Ok(()),
        false => Err(Error::new(Code::Conflict, "This is the installation's last admin; add another one first.")),
    }
}

/// Deletes a user with the accounts that they own, none of which may have anything in use.
pub async fn delete(accounts: &Accounts, by: Option<UserId>, user: UserId) -> Result<()> {
    let mut tx = db::begin(&accounts.core.db).await?;
    ADMINS.hold(&mut tx).await?;
    let before = store::lock(&mut tx, user).await?.ok_or_else(not_found)?;
    if before.is_admin() || by == Some(user) {
        check_may_go(&mut tx, by, user).await?;
    }
    let owned = store::lock_own_accounts(&mut tx, user).await?;
    if let Some(first) = owned.first() {
        audit::account(*first);
    }
    for account in &owned {
        members::service::check_unused(accounts, &mut tx, *account, &owned).await?;
    }
    for account in owned {
        members::service::remove(&mut tx, account).await?;
    }
    forget(&mut tx, user).await?;
    let done = tx.commit().await;
    accounts.tokens.empty();
    done
}

async fn forget(tx: &mut PgConnection, user: UserId) -> Result<()> {
    crate::store::sessions::revoke_sessions(tx, user).await?;
    crate::store::sessions::revoke_api_tokens(tx, user).await?;
    Ok(store::delete(tx, user).await?)
}

/// Deletes a user, who is locked, with the last account that they owned, unless they are more than its owner.
pub(crate) async fn delete_with_account(tx: &mut PgConnection, user: UserId) -> Result<()> {
    let conflict = |words: &str| Err(Error::new(Code::Conflict, words));
    match store::lock(tx, user).await? {
        Some(found) if found.staff_role.is_some() => {
            conflict("This is the only account of a member of staff; delete the user instead.")
        }
        Some(_) if !store::accounts_of(&mut *tx, user).await?.is_empty() => {
            conflict("Its owner owns no other account, but is a member of some; only the provider can delete the user.")
        }
        _ => forget(tx, user).await,
    }
}

/// Ends all sessions of a user at once, sockets included. API tokens stay.
pub async fn end_sessions(accounts: &Accounts, user: UserId) -> Result<()> {
    let mut tx = db::begin(&accounts.core.db).await?;
    let found = store::find(&mut *tx, user).await?.ok_or_else(not_found)?;
    audit::account(found.account_id);
    crate::store::sessions::revoke_sessions(&mut tx, user).await?;
    let done = tx.commit().await;
    accounts.tokens.empty();
    done
}
