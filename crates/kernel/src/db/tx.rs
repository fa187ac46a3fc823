//! The only way to begin and commit a transaction.
//!
//! sqlx 0.9.0 loses a transaction whose `begin` is dropped while PostgreSQL answers it (transact-rs/sqlx#4393): the
//! connection returns to the pool inside that transaction, and changes reported to its next borrower as done are rolled
//! back later. So a dropped [`begin`] still runs to completion, and [`is_idle`] checks each connection that is
//! released, whoever had it. Lints forbid every other way (`clippy.toml`).

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use sqlx::{Connection, PgConnection, PgPool, PgTransaction};
use tokio::runtime::Handle;

use crate::error::{Error, Result};

/// A transaction. Rolled back when dropped.
#[derive(Debug)]
pub struct Tx(PgTransaction<'static>);

/// Begins a transaction on a connection of the pool. The future may be dropped at any moment.
#[expect(clippy::disallowed_methods, reason = "the only place that begins")]
pub async fn begin(pool: &PgPool) -> sqlx::Result<Tx> {
    let connection = pool.acquire().await?;
    PendingBegin(Some(PgTransaction::begin(connection, None))).await.map(Tx)
}

impl Tx {
    /// Commits it. If the response is lost, the error says that it may have been done.
    #[expect(clippy::disallowed_methods, reason = "the only place that commits")]
    pub async fn commit(self) -> Result<()> {
        match self.0.commit().await {
            Ok(()) => Ok(()),
            Err(error) if is_refusal(&error) => Err(error.into()),
            Err(error) => Err(Error::outcome_unknown(error)),
        }
    }

    /// Rolls back, and waits until that is done.
    pub async fn rollback(self) -> sqlx::Result<()> {
        self.0.rollback().await
    }
}

impl Deref for Tx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

/// Whether an error of COMMIT is PostgreSQL's answer that nothing was committed. An error that ends the connection is
/// not: it may have come after the commit, unless it reports an idle transaction timeout.
fn is_refusal(error: &sqlx::Error) -> bool {
    let answer = error.as_database_error().and_then(|e| e.try_downcast_ref::<PgDatabaseError>());
    answer.is_some_and(|e| e.severity() == PgSeverity::Error || e.code() == "25P03")
}

/// A transaction that is being begun. If dropped, it continues in the background and is rolled back.
struct PendingBegin(Option<BoxFuture<'static, sqlx::Result<PgTransaction<'static>>>>);

impl Future for PendingBegin {
    type Output = sqlx::Result<PgTransaction<'static>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.0.as_mut().map_or(Poll::Pending, |begun| begun.poll_unpin(cx));
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl Drop for PendingBegin {
    fn drop(&mut self) {
        if let (Some(begun), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            // After this time the connection is released as is, and closed.
            runtime.spawn(tokio::time::timeout(super::RETURN, begun));
        }
    }
}

/// A part of a transaction that can be rolled back on its own, as it is when dropped.
#[derive(Debug)]
pub struct Savepoint<'a>(PgTransaction<'a>);

impl<'a> Savepoint<'a> {
    /// Sets the savepoint.
    #[expect(clippy::disallowed_methods, reason = "it ends with the transaction around it")]
    pub async fn begin(tx: &'a mut PgConnection) -> sqlx::Result<Self> {
        tx.begin().await.map(Self)
    }

    /// Releases the savepoint and keeps its changes in the transaction.
    #[expect(clippy::disallowed_methods, reason = "it commits nothing")]
    pub async fn keep(self) -> sqlx::Result<()> {
        self.0.commit().await
    }
}

impl Deref for Savepoint<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for Savepoint<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

/// Whether a connection is outside of any transaction. sqlx reads PostgreSQL's transaction status with every response
/// and does not expose it, but `begin_with` fails if its statement has begun no transaction.
#[expect(clippy::disallowed_methods, reason = "it begins nothing")]
pub(super) async fn is_idle(connection: &mut PgConnection) -> sqlx::Result<bool> {
    match connection.begin_with("select").await {
        Err(sqlx::Error::BeginFailed) => Ok(true),
        // In a failed transaction the statement is refused.
        Ok(_) | Err(sqlx::Error::Database(_) | sqlx::Error::InvalidSavePointStatement) => Ok(false),
        Err(error) => Err(error),
    }
}
