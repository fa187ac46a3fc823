//! Business logic for accounts. Functions for the command line act for the provider and check no rights.

mod creation;
mod members;
mod suspension;
mod transfer;

use kernel::audit;
use kernel::auth::{Caller, role_forbids};
use kernel::db;
use kernel::error::{Code, Error, Result};
use kernel::http::patch::Patch;
use kernel::ids::AccountId;
use kernel::listing::{Window, list_error};
use sqlx::PgConnection;

use super::access::AccountAccess;
use super::model::{AccountKind, AccountRow, AccountView, ListAccounts, UpdateAccount};
use super::store;
use crate::Accounts;
use crate::store::accounts;

pub use creation::{add, create};
pub use members::{add_member, all_members, members, put_member, remove_member, update_member};
pub use suspension::{set_suspension, set_suspension_of};

/// A page of the accounts that the caller can act for, oldest first, with their total.
pub async fn list(
    accounts: &Accounts,
    caller: &Caller,
    query: &ListAccounts,
    window: Window,
) -> Result<(Vec<AccountView>, i64)> {
    window.check()?;
    store::list(&accounts.core.db, caller, query, window).await.map_err(list_error)
}

/// All accounts, oldest first.
pub async fn all(accounts: &Accounts) -> Result<Vec<AccountRow>> {
    Ok(accounts::all(&accounts.core.db).await?)
}

/// The account with this id.
pub async fn find(accounts: &Accounts, id: AccountId) -> Result<AccountRow> {
    accounts::find(&accounts.core.db, id).await?.ok_or_else(not_found)
}

fn not_found() -> Error {
    Error::not_found("account")
}

/// Locks an account, with its reseller and these others, and returns it as it is then. It must still be whose it was.
async fn lock(tx: &mut PgConnection, seen: &AccountRow, others: &[AccountId]) -> Result<AccountRow> {
    let all: Vec<AccountId> = others.iter().copied().chain([seen.id]).collect();
    accounts::lock(tx, &all).await?;
    let now = accounts::find(tx, seen.id).await?.ok_or_else(not_found)?;
    match (now.owner_id, now.parent_id) == (seen.owner_id, seen.parent_id) {
        true => Ok(now),
        false => Err(Error::new(Code::Conflict, "This account has just been transferred; load it again.")),
    }
}

/// The account after a change, as the caller sees it.
async fn view(tx: &mut PgConnection, access: &AccountAccess) -> Result<AccountView> {
    let reach = store::reach(&mut *tx, &access.caller, access.account.id).await?;
    let role = reach.map_or(access.role, |reach| reach.role);
    Ok(accounts::find(tx, access.account.id).await?.ok_or_else(not_found)?.seen_as(role))
}

/// Changes an account.
pub async fn update(accounts: &Accounts, access: &AccountAccess, update: UpdateAccount) -> Result<AccountView> {
    check_update(access, &update)?;
    let seen = &access.account;
    audit::account(seen.id);
    let mut tx = db::begin(&accounts.core.db).await?;
    if let Some(owner) = update.owner_id {
        transfer::lock_owners(&mut tx, [seen.owner_id, owner]).await?;
    }
    let parent = update.parent_id.value().copied();
    let mut account = lock(&mut tx, seen, parent.as_slice()).await?;
    let was_suspended = crate::store::suspension(&mut tx, account.id).await?;
    let UpdateAccount { name, server_limit, kind, parent_id, owner_id } = update;
    account.name = name.map_or(account.name, |name| name.trim().to_owned());
    account.server_limit = server_limit.apply(account.server_limit);
    account.kind = kind.unwrap_or(account.kind);
    account.parent_id = parent_id.apply(account.parent_id);
    check_place(&mut tx, &account).await?;
    store::update(&mut tx, &account, kind).await?;
    if let Some(owner) = owner_id {
        transfer::hand_over(&mut tx, &account, owner).await?;
    }
    let is_suspended = crate::store::suspension(&mut tx, account.id).await?;
    if was_suspended.is_some() != is_suspended.is_some() {
        // It has moved out of a suspended reseller, or into one.
        let by = Some(access.caller.user);
        accounts.core.subjects().suspend_owned(&mut tx, by, account.id, is_suspended.as_deref()).await?;
    }
    let view = view(&mut tx, access).await?;
    let done = tx.commit().await;
    accounts.tokens.empty();
    done.map(|()| view)
}

/// Sets how many servers an account may have, for the provider; none: as many as it likes.
pub async fn set_limit(accounts: &Accounts, account: &AccountRow, limit: Option<i32>) -> Result<()> {
    audit::account(account.id);
    let mut tx = db::begin(&accounts.core.db).await?;
    let account = AccountRow { server_limit: limit, ..lock(&mut tx, account, &[]).await? };
    store::update(&mut tx, &account, None).await?;
    tx.commit().await
}

/// Refuses changes of what only others may change.
fn check_update(access: &AccountAccess, update: &UpdateAccount) -> Result<()> {
    let is_provider = access.caller.is_provider();
    let may = (update.server_limit == Patch::Keep || access.is_above())
        && ((update.kind.is_none() && update.parent_id == Patch::Keep) || is_provider)
        // Nobody becomes an owner unasked: that is for the provider to find out.
        && (update.owner_id.is_none() || is_provider);
    if may { Ok(()) } else { Err(role_forbids()) }
}

/// Refuses a kind and a parent that don't fit: a reseller has no parent, and only resellers have customers.
async fn check_place(tx: &mut PgConnection, account: &AccountRow) -> Result<()> {
    match (account.kind, account.parent_id) {
        (AccountKind::Reseller, Some(_)) => return Err(no_parent()),
        (AccountKind::Reseller, None) => return Ok(()),
        (_, Some(parent)) if parent == account.id => return Err(no_reseller(parent)),
        (_, Some(parent)) => check_reseller(tx, parent).await?,
        (_, None) => {}
    }
    match store::count_customers(tx, account.id, &[]).await? {
        0 => Ok(()),
        _ => Err(Error::new(Code::Conflict, "This account has customers, so it has to remain a reseller.")),
    }
}

fn no_parent() -> Error {
    Error::field("parentId", "A reseller can't be another reseller's customer.")
}

fn no_reseller(id: AccountId) -> Error {
    Error::field("parentId", format!("There is no reseller {id}."))
}

/// Refuses a parent that is no reseller. It is locked.
async fn check_reseller(tx: &mut PgConnection, parent: AccountId) -> Result<()> {
    let found = accounts::find(tx, parent).await?;
    match found.is_some_and(|found| found.kind == AccountKind::Reseller) {
        true => Ok(()),
        false => Err(no_reseller(parent)),
    }
}

/// Deletes an account. Its owner may, and who is above it.
pub async fn delete(accounts: &Accounts, access: &AccountAccess) -> Result<()> {
    if !access.is_above() {
        if !access.is_owner() {
            return Err(role_forbids());
        }
        access.caller.check_login()?;
    }
    delete_unused(accounts, &access.account, access.is_above()).await
}

/// Deletes an account that has nothing in use. `from_above`: with its owner, if they own nothing else.
pub async fn delete_unused(accounts: &Accounts, seen: &AccountRow, from_above: bool) -> Result<()> {
    audit::account(seen.id);
    let mut tx = db::begin(&accounts.core.db).await?;
    // The owner as well: of two accounts that are deleted at the same time, one is the last.
    crate::store::lock_user(&mut tx, seen.owner_id).await?;
    let account = lock(&mut tx, seen, &[]).await?;
    check_unused(accounts, &mut tx, account.id, &[]).await?;
    let is_all = crate::store::accounts::count_own(&mut tx, account.owner_id).await? <= 1;
    if is_all && !from_above {
        let words = "This is its owner's only account; ask the provider to delete the user instead.";
        return Err(Error::new(Code::Conflict, words));
    }
    remove(&mut tx, account.id).await?;
    if is_all {
        crate::users::service::delete_with_account(&mut tx, account.owner_id).await?;
    }
    let done = tx.commit().await;
    accounts.tokens.empty();
    done
}

/// Refuses to delete an account, which is locked, that has something in use, or customers other than these.
pub(crate) async fn check_unused(
    accounts: &Accounts,
    tx: &mut PgConnection,
    account: AccountId,
    deleted_with_it: &[AccountId],
) -> Result<()> {
    let conflict = |words: String| Err(Error::new(Code::Conflict, words));
    let used = accounts.core.subjects().in_use(tx, account).await?;
    if used > 0 {
        return conflict(format!("The account {account} still has something in use ({used}); delete that first."));
    }
    match store::count_customers(tx, account, deleted_with_it).await? {
        0 => Ok(()),
        customers => conflict(format!("The account {account} still has customers ({customers}); delete them first.")),
    }
}

/// Deletes an account, which is locked, with its members and the API tokens that act for it.
pub(crate) async fn remove(tx: &mut PgConnection, account: AccountId) -> Result<()> {
    crate::store::tokens::revoke_of_account(tx, account, None).await?;
    Ok(store::delete(tx, account).await?)
}
