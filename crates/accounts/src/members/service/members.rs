//! Members of accounts.

use kernel::audit;
use kernel::auth::{ClientAddress, MemberRole};
use kernel::db;
use kernel::error::{Code, Error, Result};
use kernel::idempotency::{Once, OnceCheck};
use kernel::ids::UserId;
use kernel::listing::{Window, list_error};
use sqlx::PgConnection;

use crate::Accounts;
use crate::members::access::AccountAccess;
use crate::members::model::{AccountRow, ListMembers, Member, NewMember};
use crate::members::store::members as store;
use crate::service::attempts::{limit_address, uncount_address};
use crate::store::accounts;

/// The maximum number of members of an account beside its owner.
const MOST: i64 = 100;

fn not_found() -> Error {
    Error::not_found("member")
}

/// A page of an account's members, the owner first, with their total.
pub async fn members(
    accounts: &Accounts,
    account: &AccountRow,
    query: &ListMembers,
    window: Window,
) -> Result<(Vec<Member>, i64)> {
    window.check()?;
    store::list(&accounts.core.db, account.id, query.q.as_deref(), window).await.map_err(list_error)
}

/// All members of an account, the owner first.
pub async fn all_members(accounts: &Accounts, account: &AccountRow) -> Result<Vec<Member>> {
    Ok(store::list(&accounts.core.db, account.id, None, Window::first(MOST + 1)).await?.0)
}

/// Adds a member: a user with this address.
pub async fn add_member(
    accounts: &Accounts,
    once: &Once,
    access: &AccountAccess,
    from: ClientAddress,
    new: NewMember,
) -> Result<Member> {
    audit::account(access.account.id);
    // Who has no account here can be seen, so this counts like an attempt to log in, until it succeeds.
    let found = async {
        limit_address(accounts, from).await?;
        let user = find_user(accounts, &new.email).await?;
        uncount_address(accounts, from).await?;
        Ok(user)
    };
    let user = match once.check(&accounts.core, found).await? {
        OnceCheck::New(user) => user,
        OnceCheck::Done(member) => return Ok(member),
    };
    once.run(&accounts.core, async |tx| insert(tx, &access.account, user, new.role).await).await
}

/// Adds a member for the provider.
pub async fn put_member(accounts: &Accounts, account: &AccountRow, new: NewMember) -> Result<Member> {
    audit::account(account.id);
    let user = find_user(accounts, &new.email).await?;
    let mut tx = db::begin(&accounts.core.db).await?;
    let member = insert(&mut tx, account, user, new.role).await?;
    tx.commit().await?;
    Ok(member)
}

fn unknown() -> Error {
    Error::field("email", "No user has confirmed this address.")
}

async fn find_user(accounts: &Accounts, email: &str) -> Result<UserId> {
    let found = crate::store::user_by_email(&accounts.core.db, email).await?;
    // Somebody who registers with another person's address must not be taken for that person.
    found.filter(|user| user.email_confirmed_at.is_some()).map(|user| user.id).ok_or_else(unknown)
}

async fn insert(tx: &mut PgConnection, account: &AccountRow, user: UserId, role: MemberRole) -> Result<Member> {
    // Locked before the account, so that they are not deleted meanwhile.
    if crate::store::lock_users(tx, &[user]).await?.is_empty() {
        return Err(unknown());
    }
    let account = super::lock(tx, account, &[]).await?.id;
    if accounts::role(tx, account, user).await?.is_some() {
        return Err(Error::new(Code::AlreadyExists, "This user is already a member of the account."));
    }
    if store::count(tx, account).await? >= MOST {
        let words = format!("The account has {MOST} members; remove one that is no longer needed.");
        return Err(Error::new(Code::ResourceUnavailable, words));
    }
    store::set(tx, account, user, role).await?;
    store::find(tx, account, user).await?.ok_or_else(not_found)
}

/// A member whose account is locked, and who is not its owner.
async fn lock_member(tx: &mut PgConnection, account: &AccountRow, user: UserId) -> Result<()> {
    let account = super::lock(tx, account, &[]).await?;
    match accounts::role(tx, account.id, user).await? {
        None => Err(not_found()),
        Some(MemberRole::Owner) => {
            Err(Error::new(Code::Conflict, "This user owns the account; transfer it to another member first."))
        }
        Some(_) => Ok(()),
    }
}

/// Gives a member another role.
pub async fn update_member(
    accounts: &Accounts,
    account: &AccountRow,
    user: UserId,
    role: MemberRole,
) -> Result<Member> {
    audit::account(account.id);
    let mut tx = db::begin(&accounts.core.db).await?;
    crate::store::lock_users(&mut tx, &[user]).await?;
    lock_member(&mut tx, account, user).await?;
    store::set(&mut tx, account.id, user, role).await?;
    let member = store::find(&mut *tx, account.id, user).await?.ok_or_else(not_found)?;
    let done = tx.commit().await;
    accounts.tokens.empty();
    done.map(|()| member)
}

/// Removes a member; their API tokens that act for the account are revoked. Members may always leave, others need the
/// right to manage the account.
pub async fn remove_member(accounts: &Accounts, account: &AccountRow, user: UserId) -> Result<()> {
    audit::account(account.id);
    let mut tx = db::begin(&accounts.core.db).await?;
    lock_member(&mut tx, account, user).await?;
    store::delete(&mut tx, account.id, user).await?;
    crate::store::tokens::revoke_of_account(&mut tx, account.id, Some(user)).await?;
    let done = tx.commit().await;
    accounts.tokens.empty();
    done
}
