//! Suspending accounts: whoever is above an account stops all that it has, and if it is a reseller all that its
//! customers have.

use kernel::audit;
use kernel::db;
use kernel::error::{Code, Error, Result};
use kernel::idempotency::Once;
use kernel::ids::{AccountId, UserId};
use sqlx::PgConnection;

use super::{lock, view};
use crate::Accounts;
use crate::members::access::AccountAccess;
use crate::members::model::{AccountKind, AccountRow, AccountView};
use crate::members::store;
use crate::store::accounts;

/// What a reseller's customers are told. The function `suspension_of` says the same.
pub(crate) const WITH_RESELLER: &str = "its reseller is suspended";

/// Suspends an account for this reason.
pub async fn suspend(accounts: &Accounts, once: &Once, access: &AccountAccess, reason: &str) -> Result<AccountView> {
    change(accounts, once, access, Some(reason.trim())).await
}

/// Ends the suspension of an account.
pub async fn unsuspend(accounts: &Accounts, once: &Once, access: &AccountAccess) -> Result<AccountView> {
    change(accounts, once, access, None).await
}

async fn change(accounts: &Accounts, once: &Once, access: &AccountAccess, reason: Option<&str>) -> Result<AccountView> {
    let work = once.run(&accounts.core, async |tx| {
        set(accounts, tx, Some(access.caller.user), &access.account, reason).await?;
        view(tx, access).await
    });
    let done = work.await;
    // Also if the outcome of the commit is unknown.
    accounts.tokens.empty();
    done
}

/// Suspends an account on the command line.
pub async fn suspend_account(accounts: &Accounts, account: &AccountRow, reason: &str) -> Result<()> {
    change_account(accounts, account, Some(reason.trim())).await
}

/// Ends the suspension of an account on the command line.
pub async fn unsuspend_account(accounts: &Accounts, account: &AccountRow) -> Result<()> {
    change_account(accounts, account, None).await
}

async fn change_account(accounts: &Accounts, account: &AccountRow, reason: Option<&str>) -> Result<()> {
    let mut tx = db::begin(&accounts.core.db).await?;
    set(accounts, &mut tx, None, account, reason).await?;
    let done = tx.commit().await;
    accounts.tokens.empty();
    done
}

/// Suspends an account for this reason, or with `None` ends that. `by`: the user who does so, if one does.
async fn set(
    accounts: &Accounts,
    tx: &mut PgConnection,
    by: Option<UserId>,
    seen: &AccountRow,
    reason: Option<&str>,
) -> Result<()> {
    audit::account(seen.id);
    if let Some(reason) = reason {
        audit::reason(reason);
    }
    let conflict = |words: &str| Err(Error::new(Code::Conflict, words));
    if Some(seen.owner_id) == by {
        return conflict("This is your own account.");
    }
    let account = lock(tx, seen, &[]).await?;
    match (&account.suspend_reason, reason) {
        (Some(_), Some(_)) => return conflict("This account is already suspended."),
        (None, None) => return conflict("This account is not suspended."),
        _ => {}
    }
    store::suspend(tx, account.id, reason).await?;
    for (id, reason) in affected(tx, account, reason).await? {
        accounts.core.subjects().suspend_owned(tx, by, id, reason.as_deref()).await?;
    }
    Ok(())
}

/// The accounts that a suspension or its end concerns, an account and its customers, each with why it is suspended now.
/// They are locked before anything that they own.
async fn affected(
    tx: &mut PgConnection,
    account: AccountRow,
    now: Option<&str>,
) -> Result<Vec<(AccountId, Option<String>)>> {
    let AccountRow { id, kind, .. } = account;
    let mut all = vec![(id, accounts::suspension(tx, id).await?)];
    if kind == AccountKind::Reseller {
        let customers = store::lock_customers(tx, id).await?;
        all.extend(customers.into_iter().map(|(id, own)| (id, own.or_else(|| now.map(|_| WITH_RESELLER.to_owned())))));
    }
    Ok(all)
}
