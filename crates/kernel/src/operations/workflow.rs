//! The parts of a workflow: steps, their outcomes, and what they may use.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hypervisor::Driver;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::fenced::Fenced;
use super::store;
use crate::core::Core;
use crate::db::{self, Tx};
use crate::error::{Code, Error};
use crate::secrets::{Sealed, SealedBy, Sealer};
use crate::subjects::Subject;

/// Outcome of a step.
#[derive(Debug)]
pub enum Outcome {
    /// The step is done; the next one may run.
    Done,
    /// The step is done, with the database changes of this transaction (from [`Context::begin`]). The engine commits it
    /// together with its own record: both happen or neither.
    DoneIn(Tx),
    /// The data has to be saved, then the step continues at once: for a mark set before something irrevocable.
    Again,
    /// The host is working. The worker is freed, and the step runs again after this long.
    Wait {
        /// Delay before the step runs again.
        after: Duration,
        /// Progress of the step in percent, if known.
        progress: Option<u8>,
    },
}

/// Severity of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// May pass on its own: retried with backoff until the operation's deadline.
    Retry,
    /// Permanent: the operation is undone.
    Fail,
    /// Permanent until a person removes what is in the way, such as a protection or a stale lock: the operation is
    /// undone, and is stuck where that keeps it from being undone.
    Blocked,
    /// Continuing or undoing could do harm: manual intervention is required.
    Stuck,
}

impl FaultKind {
    /// Whether repeating the step changes nothing, and undoing it is safe.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Fail | Self::Blocked)
    }
}

/// Why a step did not complete.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Its severity.
    pub kind: FaultKind,
    /// Error code for the customer's program.
    pub code: Code,
    /// Message for the customer.
    pub message: String,
    /// Detail for the provider: the host's own message.
    pub detail: Option<String>,
}

impl Fault {
    /// A fault with a message for the customer.
    pub fn new(kind: FaultKind, code: Code, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), detail: None }
    }

    /// The same fault with another severity.
    #[must_use]
    pub fn with_kind(self, kind: FaultKind) -> Self {
        Self { kind, ..self }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        // Internal errors (the database, a bug) are no reason to tear down a customer's server: retry until the
        // deadline.
        let kind = match error.code {
            Code::Internal | Code::DatabaseUnavailable | Code::OutcomeUnknown | Code::HostUnreachable => {
                FaultKind::Retry
            }
            _ => FaultKind::Fail,
        };
        Self { kind, code: error.code, message: error.message, detail: error.cause.map(|c| format!("{c:#}")) }
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Error::from(error).into()
    }
}

impl From<hypervisor::Error> for Fault {
    fn from(error: hypervisor::Error) -> Self {
        use hypervisor::Error as H;
        let kind = match &error {
            H::NotOurs(_) => FaultKind::Stuck,
            // Credentials are for the provider to fix, which takes no new order; nor can a host always look them up. A
            // missing right is an answer, like any other refusal.
            H::Unauthorized(_) => FaultKind::Retry,
            H::StaleLock(_) | H::Protected(_) | H::Forbidden(_) => FaultKind::Blocked,
            e if e.is_transient() => FaultKind::Retry,
            _ => FaultKind::Fail,
        };
        Self { kind, ..Error::from(error).into() }
    }
}

/// One step of a workflow. Both directions must be repeatable: after a crash they run again with the last saved data.
#[async_trait]
pub trait Step<D>: Send + Sync + Debug {
    /// The step's name in the log and the API, such as `start_guest`.
    fn name(&self) -> &'static str;

    /// Runs the step, or the next part of it.
    async fn run(&self, ctx: &Context<'_>, data: &mut D) -> Result<Outcome, Fault>;

    /// Undoes the step, whether it was done completely, in part or not at all.
    async fn undo(&self, _ctx: &Context<'_>, _data: &mut D) -> Result<Outcome, Fault> {
        Ok(Outcome::Done)
    }
}

/// The data that a workflow keeps between steps, as JSON.
pub trait Data: Serialize + DeserializeOwned + Debug + Send + Sync {
    /// Increased with every change that an older version could not read, would lose, or would resume at another step:
    /// such versions leave the operation to others. Older data is read, with defaults.
    const VERSION: i32 = 1;

    /// The secrets in it, each with the purpose it is sealed for.
    fn sealed(&mut self) -> Vec<(&'static str, &mut Sealed)> {
        vec![]
    }
}

/// What names a workflow where an operation is enqueued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkflowKind {
    /// The workflow's name in the database and the API, such as `create`.
    pub name: &'static str,
    /// The step that an operation of it begins with, which is shown while the operation is queued.
    pub first_step: &'static str,
}

/// A kind of operation: its steps in order, over durable data `D`.
#[derive(Debug)]
pub struct Workflow<D> {
    /// Its kind.
    pub kind: WorkflowKind,
    /// The steps, in order.
    pub steps: Vec<Box<dyn Step<D>>>,
}

/// A workflow with its data type erased, as the engine keeps it.
#[async_trait]
pub trait AnyWorkflow: Send + Sync + Debug {
    /// Its kind.
    fn kind(&self) -> WorkflowKind;
    /// The names of the steps, in order.
    fn steps(&self) -> Vec<&'static str>;
    /// The version of the workflow's data.
    fn version(&self) -> i32;
    /// Runs a step, or its undo, on stored data.
    async fn run(&self, step: usize, undo: bool, ctx: &Context<'_>, data: &mut Value) -> Result<Outcome, Fault>;
    /// Reseals secrets in stored data with the master key, and returns the keys they were sealed with.
    fn reseal(&self, sealer: &Sealer, data: &mut Value) -> Result<Vec<SealedBy>, Error>;
}

#[async_trait]
impl<D: Data> AnyWorkflow for Workflow<D> {
    fn kind(&self) -> WorkflowKind {
        self.kind
    }

    fn version(&self) -> i32 {
        D::VERSION
    }

    fn reseal(&self, sealer: &Sealer, data: &mut Value) -> Result<Vec<SealedBy>, Error> {
        let mut typed: D = serde_json::from_value(data.clone()).map_err(Error::internal)?;
        let by: Vec<SealedBy> = typed
            .sealed()
            .into_iter()
            .map(|(purpose, sealed)| sealed.reseal(sealer, purpose))
            .collect::<Result<_, _>>()?;
        if by.iter().any(|by| matches!(by, SealedBy::Old(_))) {
            *data = serde_json::to_value(typed).map_err(Error::internal)?;
        }
        Ok(by)
    }

    fn steps(&self) -> Vec<&'static str> {
        self.steps.iter().map(|s| s.name()).collect()
    }

    async fn run(&self, step: usize, undo: bool, ctx: &Context<'_>, data: &mut Value) -> Result<Outcome, Fault> {
        let stuck = |e: serde_json::Error| {
            let fault =
                Fault::from(Error::internal(anyhow::anyhow!("the data of a {} operation: {e}", self.kind.name)));
            fault.with_kind(FaultKind::Stuck)
        };
        let mut typed: D = serde_json::from_value(data.clone()).map_err(stuck)?;
        let step = &self.steps[step];
        let outcome = if undo { step.undo(ctx, &mut typed).await } else { step.run(ctx, &mut typed).await };
        // The data of a failed step counts too: it says which requests the host may have received.
        *data = serde_json::to_value(typed).map_err(stuck)?;
        outcome
    }
}

/// The fault of a step whose lease is lost. No one is notified: another worker continues.
pub(super) fn lost_lease() -> Fault {
    Fault::new(FaultKind::Retry, Code::Internal, "The lease was lost.")
}

/// What a step may use.
#[derive(Debug)]
pub struct Context<'a> {
    /// What every part of the service shares.
    pub core: &'a Core,
    /// The operation's id.
    pub operation: Uuid,
    /// What it works on.
    pub subject: Subject,
    /// Earlier attempts at this step.
    pub attempts: i32,
    pub(super) step: &'a str,
    pub(super) fence: i64,
    pub(super) host_task: Mutex<Option<String>>,
    /// Cancelled when the lease is lost: the step starts nothing new after that.
    pub(super) lost: CancellationToken,
}

impl Context<'_> {
    /// Begins a transaction that locks the operation: it fails if another worker has taken the operation over, and none
    /// can take it over until the transaction ends.
    pub async fn begin(&self) -> Result<Tx, Fault> {
        if self.lost.is_cancelled() {
            return Err(lost_lease());
        }
        let mut tx = db::begin(&self.core.db).await?;
        if !store::hold(&mut tx, self.operation, self.fence).await? {
            return Err(Fault::new(FaultKind::Retry, Code::Internal, "Another worker has this operation now."));
        }
        Ok(tx)
    }

    /// Adds a warning to the operation's log, for the provider: something went wrong that ends nothing.
    pub async fn warn(&self, message: &str) -> Result<(), Fault> {
        tracing::warn!(operation = %self.operation, subject = %self.subject, step = self.step, message);
        let mut tx = self.begin().await?;
        store::log(&mut tx, self.operation, "warn", self.step, message).await?;
        Ok(tx.commit().await?)
    }

    /// Wraps a driver for use in a step: once the lease is lost, the host gets no new calls.
    pub fn fenced(&self, driver: Arc<dyn Driver>) -> Arc<dyn Driver> {
        Arc::new(Fenced { driver, lost: self.lost.clone() })
    }

    /// Identifies this claim of the operation: the same number means that no other worker, and no earlier or later run
    /// of this process, has run the step since.
    pub fn claim(&self) -> i64 {
        self.fence
    }

    /// Moves the operation to another lane: what it works on is elsewhere now.
    pub async fn set_lane(&self, tx: &mut PgConnection, lane: &str) -> Result<(), Fault> {
        Ok(store::set_lane(tx, self.operation, lane).await?)
    }

    /// Stores the host's id of its latest task, for the API's `taskId`.
    pub fn host_task(&self, id: &hypervisor::TaskId) {
        *self.host_task.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.0.clone());
    }
}
