//! The database: one pool a process, and its migrations.

use std::time::Duration;

use anyhow::Context;
use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgPool};

use crate::config::Config;

/// The migrations, compiled in.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// How long a connection may have lain in the pool to be taken for a live one.
const UNTESTED: Duration = Duration::from_secs(1);

/// Opens the pool. A database that is away for the moment is no error here: requests answer 503 until it is back.
pub fn pool(config: &Config) -> anyhow::Result<PgPool> {
    let options: PgConnectOptions =
        config.database_url.expose_secret().parse().context(
            "DATABASE_URL is not a PostgreSQL URL such as postgres://user:password@127.0.0.1:5432/innkeeper",
        )?;
    Ok(PgPoolOptions::new()
        .max_connections(config.database_pool)
        .acquire_timeout(Duration::from_secs(3))
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
        .connect_lazy_with(options.application_name("innkeeper")))
}

/// Brings the schema up to date; several processes may do so at the same time.
pub async fn migrate(db: &PgPool) -> anyhow::Result<()> {
    MIGRATIONS.run(db).await.context("bringing the database schema up to date")
}

/// Whether a statement failed because a name (or another unique thing) is taken.
pub fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// Whether a statement failed because of a row that is not there, or one that something still refers to.
pub fn is_in_use(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
}
