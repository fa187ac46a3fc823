//! Suspending accounts: the provider or the account's reseller stops everything that it owns and, if it is a reseller,
//! everything that its customers own.

use kernel::audit;
use kernel::db;
use kernel::error::{Code, Error, Result};
use kernel::idempotency::Once;
use kernel::ids::UserId;
use sqlx::PgConnection;

use super::{lock, view};
use crate::Accounts;
use crate::members::access::AccountAccess;
use crate::members::model::{AccountKind, AccountRow, AccountView};
use crate::members::store;
use crate::store::accounts;

/// Suspends an account for this reason, or with `None` ends that.
pub async fn set_suspension(
    accounts: &Accounts,
    once: &Once,
    access: &AccountAccess,
    reason: Option<&str>,
) -> Result<AccountView> {
    let work = once.run(&accounts.core, async |tx| {
        set(accounts, tx, Some(access.caller.user), &access.account, reason).await?;
        view(tx, access).await
    });
    let done = work.await;
    // Also if the outcome of the commit is unknown.
    accounts.tokens.empty();
    done
}

/// The same on the command line.
pub async fn set_suspension_of(accounts: &Accounts, account: &AccountRow, reason: Option<&str>) -> Result<()> {
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
    let reason = reason.map(str::trim);
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
    // Each with why it is suspended now. All are locked before anything that they own.
    let mut affected = vec![(account.id, accounts::suspension(tx, account.id).await?)];
    if account.kind == AccountKind::Reseller {
        affected.extend(store::lock_customers(tx, account.id).await?);
    }
    for (id, reason) in affected {
        accounts.core.subjects().suspend_owned(tx, by, id, reason.as_deref()).await?;
    }
    Ok(())
}
