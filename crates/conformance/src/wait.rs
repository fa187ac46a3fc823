//! Waiting for something to happen. This is the only loop that waits in these tests: it has an end, and reports what it
//! saw last.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout_at};

/// How long anything may take: machines are busy. A failure means that something never happens, not that it is slow.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// The result of one look: what is waited for, or what was seen instead.
pub trait Look {
    /// What is waited for.
    type Found;

    /// It, or what was seen.
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

/// Looks again and again until there is a result; fails the test if none comes.
pub async fn wait_for<L: Look>(what: &str, look: impl AsyncFnMut() -> L) -> L::Found {
    wait_long_for(PATIENCE, what, look).await
}

/// The same for what naturally takes long.
pub async fn wait_long_for<L: Look>(patience: Duration, what: &str, mut look: impl AsyncFnMut() -> L) -> L::Found {
    let until = Instant::now() + patience;
    let (mut seen, mut pause) = ("no answer".to_owned(), Duration::from_millis(5));
    loop {
        match timeout_at(until, look()).await.map(Look::found) {
            Ok(Ok(found)) => return found,
            Ok(Err(instead)) => seen = instead,
            Err(Elapsed { .. }) => panic!("{what}: timed out after {patience:?}; last seen: {seen}"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// A time limit for a single event, without polling.
pub async fn within<T>(what: &str, coming: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, coming).await.unwrap_or_else(|_| panic!("{what}: timed out after {PATIENCE:?}"))
}
