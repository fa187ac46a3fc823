//! The database locks that are not rows, and the order in which all locks are taken.
//!
//! Two transactions that take the same locks in different orders wait for each other until one of them is aborted. So
//! all code takes the locks it needs in this order, and skips the others:
//!
//! 1. the request's idempotency key, then the account (`users`);
//! 2. the server (`servers`);
//! 3. [`Lock::Placement`], under which the nodes' capacity is counted;
//! 4. the host (`hosts`), then its pools (`address_pools`) by id, then its unknown guests;
//! 5. the operation (`operations`). A step locks its operation first (`Context::begin`) and continues at 2. The two
//!    can't deadlock: code that holds a server only enqueues, and `on conflict do nothing` does not wait for a row that
//!    is merely locked;
//! 6. [`Lock::Alerts`] and the other alert locks, then incidents (`alerts`) by id.
//!
//! [`Lock::Consoles`] and [`Lock::Traffic`] are the only locks in their transactions, and so are those that
//! `audit_upkeep` and `history_upkeep` take inside the database.

use sqlx::PgConnection;

use crate::ids::HostId;

/// All locks that are taken by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Choosing a node with enough capacity: one order at a time.
    Placement,
    /// Counting connected consoles.
    Consoles,
    /// Evaluating the alerts of a host's sweep.
    Alerts(HostId),
    /// Evaluating alerts that no sweep covers: one process does so for all.
    Patrol,
    /// Notifying users of alerts: one process does so for all.
    Tell,
    /// Metering the traffic of a host's servers.
    Traffic(HostId),
}

/// The key of a PostgreSQL lock. Neither form may change: processes of two versions may run at the same time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(i64),
    /// A name, and a number or a second name within it.
    Name(&'static str, Option<i32>, &'static str),
}

impl Lock {
    fn key(self) -> Key {
        let of = |host: HostId| Some(i32::try_from(host.0 & 0x7fff_ffff).unwrap_or(0));
        match self {
            Self::Placement => Key::Number(0x696e_6b70_6c61_6365),
            Self::Consoles => Key::Number(0x696e_6b63_6f6e_736f),
            Self::Alerts(host) => Key::Name("alerts", of(host), ""),
            Self::Patrol => Key::Name("alerts", None, "patrol"),
            Self::Tell => Key::Name("alerts", None, "tell"),
            Self::Traffic(host) => Key::Name("traffic", of(host), ""),
        }
    }

    /// Waits for the lock, and holds it until the transaction ends.
    pub(crate) async fn hold(self, tx: &mut PgConnection) -> sqlx::Result<()> {
        match self.key() {
            Key::Number(key) => {
                sqlx::query!("select pg_advisory_xact_lock($1)", key).execute(tx).await?;
            }
            Key::Name(name, number, part) => {
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
    pub(crate) async fn try_hold(self, tx: &mut PgConnection) -> sqlx::Result<bool> {
        match self.key() {
            Key::Number(key) => {
                sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "ours!""#, key).fetch_one(tx).await
            }
            Key::Name(name, number, part) => {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_locks_are_the_same() {
        let mut keys = [1, 2].map(HostId).map(|host| [Lock::Alerts(host), Lock::Traffic(host)].map(Lock::key)).concat();
        keys.extend([Lock::Placement, Lock::Consoles, Lock::Patrol, Lock::Tell].map(Lock::key));
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }
}
