//! The one way to begin a transaction and to commit it.
//!
//! sqlx 0.9.0 forgets a transaction whose `begin` is dropped while PostgreSQL answers it (transact-rs/sqlx#4393): the
//! connection goes back to the pool inside of it, and what the next borrower is told was done is rolled back later. So
//! [`begin`] is brought to its end by whoever drops it, and [`is_outside`] looks at each connection that comes back,
//! whoever had it. Lints forbid every other way (`clippy.toml`).

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

/// A transaction. Dropped, it is rolled back.
#[derive(Debug)]
pub struct Tx(PgTransaction<'static>);

/// Begins a transaction on a connection of the pool. It may be dropped at any moment.
pub async fn begin(pool: &PgPool) -> sqlx::Result<Tx> {
    let connection = pool.acquire().await?;
    Beginning(Some(PgTransaction::begin(connection, None))).await.map(Tx)
}

impl Tx {
    /// Commits it. Where the answer is lost the error says that it may have been done.
    #[expect(clippy::disallowed_methods, reason = "this is how it is done")]
    pub async fn commit(self) -> Result<()> {
        match self.0.commit().await {
            Ok(()) => Ok(()),
            Err(error) if is_refusal(&error) => Err(error.into()),
            Err(error) => Err(Error::perhaps_done(error)),
        }
    }

    /// Takes back what was done in it, and waits for that.
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

/// Whether an error of COMMIT is PostgreSQL's answer, by which nothing was done. One that ends the connection is none:
/// it may have come after the deed, unless it says that the transaction had been idle for too long.
fn is_refusal(error: &sqlx::Error) -> bool {
    let answer = error.as_database_error().and_then(|e| e.try_downcast_ref::<PgDatabaseError>());
    answer.is_some_and(|e| e.severity() == PgSeverity::Error || e.code() == "25P03")
}

/// A transaction that is being begun. Dropped, it goes on by itself, to be rolled back.
struct Beginning(Option<BoxFuture<'static, sqlx::Result<PgTransaction<'static>>>>);

impl Future for Beginning {
    type Output = sqlx::Result<PgTransaction<'static>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.0.as_mut().map_or(Poll::Pending, |begun| begun.poll_unpin(cx));
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        if let (Some(begun), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            // Past its time the connection comes back as it is, and is closed.
            runtime.spawn(tokio::time::timeout(super::RETURN, begun));
        }
    }
}

/// A part of a transaction that can be taken back by itself. Dropped, it is.
#[derive(Debug)]
pub struct Savepoint<'a>(PgTransaction<'a>);

impl<'a> Savepoint<'a> {
    /// Begins it.
    #[expect(clippy::disallowed_methods, reason = "dropped, it goes with the transaction around it")]
    pub async fn begin(tx: &'a mut PgConnection) -> sqlx::Result<Self> {
        tx.begin().await.map(Self)
    }

    /// Makes it a part of the transaction like any other.
    #[expect(clippy::disallowed_methods, reason = "nothing is committed by it")]
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

/// Whether a connection is outside of every transaction. sqlx reads PostgreSQL's word on it with every answer and
/// shows it nowhere, but refuses to have begun a transaction by a statement that begins none.
#[expect(clippy::disallowed_methods, reason = "nothing is begun by it")]
pub(super) async fn is_outside(connection: &mut PgConnection) -> sqlx::Result<bool> {
    match connection.begin_with("select").await {
        Err(sqlx::Error::BeginFailed) => Ok(true),
        // Inside one that has failed the statement is refused.
        Ok(_) | Err(sqlx::Error::Database(_) | sqlx::Error::InvalidSavePointStatement) => Ok(false),
        Err(error) => Err(error),
    }
}
