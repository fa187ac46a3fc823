//! The database: the pools of a process, transactions on them, and its migrations.

mod tx;

use std::time::Duration;

use anyhow::Context;
use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgPool};

use crate::config::Config;

pub use tx::{Savepoint, Tx, begin};

/// The migrations, compiled in. That a newer version beside this one has added more is no obstacle (see `schema`).
pub static MIGRATIONS: sqlx::migrate::Migrator =
    sqlx::migrate::Migrator { ignore_missing: true, ..sqlx::migrate!("./migrations") };

/// Limits of every connection of the pools. A process that froze with a lock in its hands (the one of placement, an
/// operation's row) would otherwise stop every order, and with them every connection of every other process.
/// Statements end before a request's own time is over.
const LIMITS: [(&str, &str); 3] =
    [("idle_in_transaction_session_timeout", "15s"), ("lock_timeout", "8s"), ("statement_timeout", "25s")];

/// How many connections claim operations and keep their leases.
const LEASE_CONNECTIONS: u32 = 3;
/// How long a connection may have lain in the pool to be taken for a live one.
const UNTESTED: Duration = Duration::from_secs(1);
/// How long a connection that comes back may take to bring what was begun on it to its end: longer than a statement may.
const RETURN: Duration = Duration::from_secs(30);

/// Opens the pool. A database that is away for the moment is no error here: requests answer 503 until it is back.
pub fn pool(config: &Config) -> anyhow::Result<PgPool> {
    pool_of(config, config.database_pool)
}

/// Opens the pool that operations are claimed and their leases kept with: requests, however many, must not cost us
/// an operation.
pub fn lease_pool(config: &Config) -> anyhow::Result<PgPool> {
    pool_of(config, LEASE_CONNECTIONS)
}

/// A pool of one, for who listens: its connection may break without anybody noticing, and is then left behind whole.
pub(crate) fn listening_pool(db: &PgPool) -> PgPool {
    let options = guarded().max_connections(1).max_lifetime(None).idle_timeout(None);
    options.acquire_timeout(db.options().get_acquire_timeout()).connect_lazy_with((*db.connect_options()).clone())
}

fn connection(config: &Config) -> anyhow::Result<PgConnectOptions> {
    let options: PgConnectOptions =
        config.database_url.expose_secret().parse().context(
            "DATABASE_URL is not a PostgreSQL URL such as postgres://user:password@127.0.0.1:5432/innkeeper",
        )?;
    Ok(options.application_name("innkeeper").options(LIMITS))
}

/// What every pool has: no connection comes back to it inside a transaction. The question is asked after the answer
/// that its borrower waited for, while others have the next connection.
fn guarded() -> PgPoolOptions {
    PgPoolOptions::new().after_release(|connection, _| {
        Box::pin(async move {
            let late = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "a connection does not come back");
            let outside = tokio::time::timeout(RETURN, tx::is_outside(connection)).await.map_err(late)??;
            if !outside {
                tracing::warn!("a connection came back inside a transaction; it is closed");
            }
            Ok(outside)
        })
    })
}

fn pool_of(config: &Config, connections: u32) -> anyhow::Result<PgPool> {
    let pool = guarded()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(config.database_wait_seconds.into()))
        // sqlx tests every connection that comes back. To test it again when it goes out a moment later would be one
        // more round trip for each query, and could not promise more than that one did.
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

/// A transaction to read a list in, with a plan for these very filters (one for any would read everything), and an end
/// after two seconds: nobody waits for more, and everybody waits for the connection.
pub async fn reading(db: &PgPool) -> sqlx::Result<Tx> {
    let mut tx = begin(db).await?;
    sqlx::query!(
        "select set_config('plan_cache_mode', 'force_custom_plan', true) as plans,
                set_config('statement_timeout', '2s', true) as time"
    )
    .fetch_one(&mut *tx)
    .await?;
    Ok(tx)
}

/// Brings the schema up to date; several processes may do so at the same time. It happens on a connection of its own:
/// a migration of a large table, or the wait for another process' one, may take longer than the pool's limits.
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
    run.await.context("bringing the database schema up to date")
}

/// Whether a statement failed because a name (or another unique thing) is taken.
pub fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// Whether a statement failed because of a row that is not there, or one that something still refers to.
pub fn is_in_use(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
}

/// Whether a row found no partition for its time.
pub fn is_without_room(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|e| e.code().as_deref() == Some("23514") && e.constraint().is_none())
}

/// Whether a statement waited too long for what another transaction holds.
pub fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|e| e.code().as_deref() == Some("55P03"))
}
