//! The database locks that are not rows, and the order in which all locks are taken.
//!
//! Two transactions that take the same locks in different orders wait for each other until one of them is aborted. So
//! all code takes the locks it needs in this order, and skips the others:
//!
//! 1. the request's idempotency key, then `accounts::locks::ADMINS`, then users (`users`) by id, then accounts
//!    (`accounts`): a reseller's before its customers', these by id;
//! 2. the server (`servers`);
//! 3. `compute::locks::PLACEMENT`, under which the nodes' capacity is counted;
//! 4. the host (`hosts`), then its pools (`address_pools`) by id, then its unknown guests;
//! 5. the operation (`operations`). A step locks its operation first (`Context::begin`) and continues at 2. The two
//!    can't deadlock: code that holds a server only enqueues, and `on conflict do nothing` does not wait for a row that
//!    is merely locked;
//! 6. `watch::locks::alerts` and the other alert locks, then incidents (`alerts`) by id.
//!
//! `compute::locks::CONSOLES` and `watch::locks::traffic` are the only locks in their transactions, and so are those
//! that `audit_upkeep` and `history_upkeep` take inside the database.

use sqlx::PgConnection;

/// A lock of the database that is taken by name, until the transaction ends. Features declare theirs as constants.
/// Names and numbers may never change: processes of two versions may run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lock(LockKey);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum LockKey {
    Number(i64),
    /// A name, and a number or a second name within it.
    Name(&'static str, Option<i32>, &'static str),
}

impl Lock {
    /// The lock of this number.
    pub const fn numbered(number: i64) -> Self {
        Self(LockKey::Number(number))
    }

    /// The lock of this name within a group.
    pub const fn named(group: &'static str, name: &'static str) -> Self {
        Self(LockKey::Name(group, None, name))
    }

    /// The lock of one row within a group.
    pub fn of(group: &'static str, id: i64) -> Self {
        Self(LockKey::Name(group, Some(i32::try_from(id & 0x7fff_ffff).unwrap_or(0)), ""))
    }

    /// Waits for the lock, and holds it until the transaction ends.
    pub async fn hold(self, tx: &mut PgConnection) -> sqlx::Result<()> {
        match self.0 {
            LockKey::Number(key) => {
                sqlx::query!("select pg_advisory_xact_lock($1)", key).execute(tx).await?;
            }
            LockKey::Name(name, number, part) => {
                sqlx::query!(
                    "select pg_advisory_xact_lock(hashtext($1), coalesce($2, hashtext($3)))",
                    name,
                    number,
                    part
                )
                .execute(tx)
                .await?;
            }
        }
        Ok(())
    }

    /// Holds the lock until the transaction ends; false if another transaction has it.
    pub async fn try_acquire(self, tx: &mut PgConnection) -> sqlx::Result<bool> {
        match self.0 {
            LockKey::Number(key) => {
                sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "ours!""#, key).fetch_one(tx).await
            }
            LockKey::Name(name, number, part) => {
                sqlx::query_scalar!(
                    r#"select pg_try_advisory_xact_lock(hashtext($1), coalesce($2, hashtext($3))) as "ours!""#,
                    name,
                    number,
                    part
                )
                .fetch_one(tx)
                .await
            }
        }
    }
}
