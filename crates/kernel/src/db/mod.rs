//! The database: connection pools, transactions and migrations.

mod tx;

use std::time::Duration;

use anyhow::Context;
use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgPool};

use crate::config::Config;

pub use tx::{Savepoint, Tx, begin};

/// The migrations, compiled in. Migrations added by a newer version on the same database are no obstacle (see
/// `schema`).
pub static MIGRATIONS: sqlx::migrate::Migrator =
    sqlx::migrate::Migrator { ignore_missing: true, ..sqlx::migrate!("../../migrations") };

/// Limits on every connection of the pools. A process that froze while holding a lock (of placement, or of an
/// operation's row) would otherwise block every order, and with them every connection of every other process.
/// Statements time out before the request does.
const LIMITS: [(&str, &str); 3] =
    [("idle_in_transaction_session_timeout", "15s"), ("lock_timeout", "8s"), ("statement_timeout", "25s")];

/// Connections for claiming operations and keeping their leases.
const LEASE_CONNECTIONS: u32 = 3;
/// How long a connection may be idle in the pool before it is tested again.
const UNTESTED: Duration = Duration::from_secs(1);
/// How long a released connection may take to finish what was started on it: longer than a statement may.
const RETURN: Duration = Duration::from_secs(30);

/// Opens the pool. An unreachable database is not an error here: requests get a 503 until it is back.
pub fn pool(config: &Config) -> anyhow::Result<PgPool> {
    pool_of(config, config.database_pool)
}

/// Opens the pool for claiming operations and keeping their leases, so that no number of requests can cost an operation
/// its lease.
pub fn lease_pool(config: &Config) -> anyhow::Result<PgPool> {
    pool_of(config, LEASE_CONNECTIONS)
}

/// A pool of one connection, for a listener: it may break unnoticed, and is then dropped with its pool.
#[expect(clippy::disallowed_methods, reason = "it checks what is released")]
pub fn listening_pool(db: &PgPool) -> PgPool {
    let options = checked_pool_options().max_connections(1).max_lifetime(None).idle_timeout(None);
    options.acquire_timeout(db.options().get_acquire_timeout()).connect_lazy_with((*db.connect_options()).clone())
}

fn connection(config: &Config) -> anyhow::Result<PgConnectOptions> {
    let options: PgConnectOptions =
        config.database_url.expose_secret().parse().context(
            "DATABASE_URL is not a PostgreSQL URL such as postgres://user:password@127.0.0.1:5432/innkeeper",
        )?;
    Ok(options.application_name("innkeeper").options(LIMITS))
}

/// Common to all pools: no connection returns to the pool inside a transaction. The check runs after the borrower has
/// its result, while others use the next connection.
fn checked_pool_options() -> PgPoolOptions {
    PgPoolOptions::new().after_release(|connection, _| {
        Box::pin(async move {
            let late = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "timeout checking a released connection");
            let outside = tokio::time::timeout(RETURN, tx::is_idle(connection)).await.map_err(late)??;
            if !outside {
                tracing::warn!("closing a connection that was released inside a transaction");
            }
            Ok(outside)
        })
    })
}

#[expect(clippy::disallowed_methods, reason = "it checks what is released")]
fn pool_of(config: &Config, connections: u32) -> anyhow::Result<PgPool> {
    let pool = checked_pool_options()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(config.database_wait_seconds.into()))
        // sqlx tests every connection that is released. Testing it again when it is acquired a moment later would add a
        // round trip to each query, and could promise no more than the first test.
        .test_before_acquire(false)
        .before_acquire(|connection, about| {
            Box::pin(async move {
                if about.idle_for > UNTESTED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(connection(config)?);
    Ok(pool)
}

/// A transaction for reading a list: with a plan for the given filters (a generic one would read everything) and a
/// timeout of two seconds, because no client waits longer and all of them need the connection. Whoever waits for a lock
/// is told so a little earlier: no filter would help them.
pub async fn begin_list_query(db: &PgPool) -> sqlx::Result<Tx> {
    let mut tx = begin(db).await?;
    sqlx::query!(
        "select set_config('plan_cache_mode', 'force_custom_plan', true) as plans,
                set_config('statement_timeout', '2s', true) as time,
                set_config('lock_timeout', '1500ms', true) as locks"
    )
    .fetch_one(&mut *tx)
    .await?;
    Ok(tx)
}

/// Migrates the schema; several processes may do so at the same time. Uses a connection of its own: migrating a large
/// table, or waiting for another process's migration, may take longer than the pool's limits.
pub async fn migrate(db: &PgPool) -> anyhow::Result<()> {
    let run = async {
        let mut db = db.connect_options().connect().await?;
        for (limit, _) in LIMITS {
            db.execute(sqlx::AssertSqlSafe(format!("set {limit} = 0"))).await?;
        }
        crate::schema::check(&mut db).await?;
        MIGRATIONS.run(&mut db).await?;
        db.close().await?;
        anyhow::Ok(())
    };
    run.await.context("migrating the database schema")
}

/// Whether a statement failed because a name (or another unique value) is taken.
pub fn is_unique_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// Whether a statement failed because of a missing row, or one that is still referenced.
pub fn is_foreign_key_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
}

/// Whether there was no partition for a row.
pub fn is_missing_partition(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|e| e.code().as_deref() == Some("23514") && e.constraint().is_none())
}

/// Whether a statement timed out waiting for a lock.
pub fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|e| e.code().as_deref() == Some("55P03"))
}
