//! Waiting for something to happen: the loop of the conformance suite, and what the database shows.

use std::fmt::Debug;

pub use conformance::wait::{Look, PATIENCE, wait_for, wait_long_for, within};

use crate::client::Response;

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

/// More requests wait than there is room for, and not just for their turn to count an attempt.
const TOGETHER: &str = "select count(*) >= 6 from pg_stat_activity
                        where datname = current_database() and wait_event_type = 'Lock'
                          and query not like '%login_attempts%'";

/// Sends these requests while nothing can be inserted into `table`, until many of them wait: by then they have looked
/// how many rows there are, or wait for one that has. Returns the statuses of their answers. At most five of the
/// requests may have room.
pub async fn released_together<F>(db: &sqlx::PgPool, table: &str, requests: impl Iterator<Item = F>) -> Vec<u16>
where
    F: Future<Output = Response> + Send + 'static,
{
    let mut held = kernel::db::begin(db).await.expect("the database answers");
    let lock = sqlx::AssertSqlSafe(format!("lock table {table} in share mode"));
    sqlx::query(lock).execute(&mut *held).await.expect("the database answers");
    let sent: Vec<_> = requests.map(tokio::spawn).collect();
    wait_for_sql(db, "requests that wait", TOGETHER, true).await;
    held.rollback().await.expect("the database answers");
    let mut statuses = vec![];
    for answer in sent {
        statuses.push(answer.await.expect("a request that ends").status);
    }
    statuses
}
