//! Waiting for what comes when it comes. There is no other loop that waits in these tests: this one has an end, and
//! says what it saw last.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// How long anything may take: machines are busy. What it says is that something never comes, not that it is slow.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// What one look came to: what is waited for, or what was seen instead.
pub trait Look {
    type Found;

    fn found(self) -> Result<Self::Found, String>;
}

impl<T> Look for Option<T> {
    type Found = T;

    fn found(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".to_owned())
    }
}

impl<T, E: Debug> Look for Result<T, E> {
    type Found = T;

    fn found(self) -> Result<T, String> {
        self.map_err(|seen| format!("{seen:?}"))
    }
}

/// Looks again and again until it is there; fails the test when it does not come.
pub async fn wait_for<L: Look>(what: &str, look: impl AsyncFnMut() -> L) -> L::Found {
    wait_long_for(PATIENCE, what, look).await
}

/// The same for what takes long by its nature.
pub async fn wait_long_for<L: Look>(patience: Duration, what: &str, mut look: impl AsyncFnMut() -> L) -> L::Found {
    let until = Instant::now() + patience;
    let (mut seen, mut pause) = ("that nothing answers".to_owned(), Duration::from_millis(5));
    loop {
        match timeout_at(until, look()).await.map(Look::found) {
            Ok(Ok(found)) => return found,
            Ok(Err(instead)) => seen = instead,
            Err(_) => panic!("{what}: did not come in {patience:?}; the last thing seen was {seen}"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// Waits until SQL comes to this; fails the test when it does not.
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

/// Bounds what is waited for without looking: a message, an end.
pub async fn within<T>(what: &str, coming: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, coming).await.unwrap_or_else(|_| panic!("{what}: did not come in {PATIENCE:?}"))
}
