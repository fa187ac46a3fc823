//! Waits for the database.

use std::time::{Duration, Instant};

use anyhow::Context;
use kernel::error::is_database_away;
use sqlx::{ConnectOptions, PgPool};

/// Waits until the database answers. An error that waiting can't fix (a wrong password, a missing database) is
/// returned.
pub(super) async fn wait(db: &PgPool) -> anyhow::Result<()> {
    wait_until(db, None).await
}

/// The same for at most half a minute.
pub(super) async fn wait_briefly(db: &PgPool) -> anyhow::Result<()> {
    wait_until(db, Some(Instant::now() + Duration::from_secs(30))).await
}

async fn wait_until(db: &PgPool, end: Option<Instant>) -> anyhow::Result<()> {
    let options = db.connect_options();
    let mut said: Option<Instant> = None;
    loop {
        let connected = tokio::time::timeout(Duration::from_secs(5), options.connect()).await;
        let reason = match connected {
            Ok(Ok(connection)) => {
                let _ = sqlx::Connection::close(connection).await;
                return Ok(());
            }
            Ok(Err(error)) if is_database_away(&error) => error.to_string(),
            Ok(Err(error)) => return Err(error).context("connecting to the database in DATABASE_URL"),
            Err(_) => "it does not respond".to_owned(),
        };
        if end.is_some_and(|end| Instant::now() >= end) {
            anyhow::bail!("the database in DATABASE_URL is unreachable: {reason}");
        }
        if said.is_none_or(|at| at.elapsed() > Duration::from_secs(30)) {
            eprintln!("waiting for the database in DATABASE_URL: {reason}");
            said = Some(Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
