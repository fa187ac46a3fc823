//! Handing an account over to another of its members.

use kernel::auth::MemberRole;
use kernel::error::{Error, Result};
use kernel::ids::UserId;
use sqlx::PgConnection;

use crate::members::model::AccountRow;
use crate::members::store;
use crate::store::accounts;

fn only_members() -> Error {
    Error::field("ownerId", "Only a member of the account with a confirmed address can become its owner.")
}

/// Locks the old owner and the new one, before the account: neither must be deleted meanwhile, nor lose the last
/// account of their own.
pub(super) async fn lock_owners(tx: &mut PgConnection, owners: [UserId; 2]) -> Result<()> {
    let found = crate::store::lock_users(tx, &owners).await?;
    if found.contains(&owners[1]) { Ok(()) } else { Err(only_members()) }
}

/// Makes a member the owner, and the owner an admin. A previous owner who is left without any gets a new account of
/// their own.
pub(super) async fn hand_over(tx: &mut PgConnection, account: &AccountRow, to: UserId) -> Result<()> {
    let from = account.owner_id;
    if to == from {
        return Ok(());
    }
    let is_confirmed = crate::store::user(&mut *tx, to).await?.is_some_and(|user| user.email_confirmed_at.is_some());
    if !is_confirmed || accounts::role(tx, account.id, to).await?.is_none() {
        return Err(only_members());
    }
    store::members::delete(tx, account.id, to).await?;
    store::set_owner(tx, account.id, to).await?;
    store::members::set(tx, account.id, from, MemberRole::Admin).await?;
    if accounts::count_own(tx, from).await? == 0 {
        // As before, a reseller's customer.
        accounts::insert_own(tx, from, account.parent_id).await?;
    }
    Ok(())
}
