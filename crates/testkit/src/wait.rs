//! Waiting for something to happen: the loop of the conformance suite, and what the database shows.

use std::fmt::Debug;

pub use conformance::wait::{Look, PATIENCE, wait_for, wait_long_for, within};

/// Waits until a query returns this; fails the test if it does not.
pub async fn wait_for_sql<T>(db: &sqlx::PgPool, what: &str, sql: &str, wanted: T)
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin + PartialEq + Debug,
{
    wait_for(what, async || {
        let found: T = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(db).await.expect("the database answers");
        if found == wanted { Ok(()) } else { Err(found) }
    })
    .await;
}

/// How many connections to the test's database wait for a lock.
pub const BLOCKED: &str =
    "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
