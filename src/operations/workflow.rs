//! What a workflow is made of: steps, what they come to, and what they may use.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hypervisor::Driver;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::fenced::Fenced;
use super::store;
use crate::core::Core;
use crate::db::{self, Tx};
use crate::error::{Code, Error};
use crate::ids::ServerId;
use crate::secrets::{Sealed, SealedBy, Sealer};

/// What a step came to.
#[derive(Debug)]
pub enum Outcome {
    /// It is done; the next one may run.
    Done,
    /// It is done with the database changes of this transaction (from [`Context::begin`]), which the engine commits
    /// together with its own record: both happen or neither.
    DoneIn(Tx),
    /// Its data is to be saved, and then it goes on at once: a mark set before something irrevocable.
    Again,
    /// The host is at work. The worker is let go, and the step runs again after this long.
    Wait {
        /// How long.
        after: Duration,
        /// How far the step is, in percent, where known.
        progress: Option<u8>,
    },
}

/// How bad a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// May pass by itself: tried again with back-off until the operation's deadline.
    Retry,
    /// Will not pass: the operation is undone.
    Fail,
    /// Going on or back could do harm: a person must look.
    Stuck,
}

/// Why a step did not come to its end.
#[derive(Debug, Clone)]
pub struct Fault {
    /// How bad.
    pub kind: FaultKind,
    /// For the customer's program.
    pub code: Code,
    /// For the customer.
    pub message: String,
    /// For the provider: the host's own words.
    pub detail: Option<String>,
}

impl Fault {
    /// A fault with a sentence for the customer.
    pub fn new(kind: FaultKind, code: Code, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), detail: None }
    }

    /// The same fault, made worse or better.
    #[must_use]
    pub fn with_kind(self, kind: FaultKind) -> Self {
        Self { kind, ..self }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        // Our own trouble (the database, a bug) is no reason to take a customer's server apart: try until the deadline.
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
            // Credentials are the provider's to mend, and mending them takes no new order; nor can a host always look
            // them up. That they lack a right is an answer, as any other refusal is.
            H::Unauthorized(_) => FaultKind::Retry,
            e if e.is_transient() => FaultKind::Retry,
            _ => FaultKind::Fail,
        };
        Self { kind, ..Error::from(error).into() }
    }
}

/// One step of a workflow. Both ways must be repeatable: after a crash they run again with the data saved before.
#[async_trait]
pub trait Step<D>: Send + Sync + Debug {
    /// Its name in the log and the API, such as `start_guest`.
    fn name(&self) -> &'static str;

    /// Does it, or the next piece of it.
    async fn run(&self, ctx: &Context<'_>, data: &mut D) -> Result<Outcome, Fault>;

    /// Takes it back, whether it was done wholly, in part or not at all.
    async fn undo(&self, _ctx: &Context<'_>, _data: &mut D) -> Result<Outcome, Fault> {
        Ok(Outcome::Done)
    }
}

/// What a workflow keeps between steps, as JSON.
pub trait Data: Serialize + DeserializeOwned + Debug + Send + Sync {
    /// Raised with every change that a program of before could not read, would lose, or would go on with at another
    /// step: such programs leave the operation to others. What is older is read, with defaults.
    const VERSION: i32 = 1;

    /// The secrets in it, each with what it is sealed for.
    fn sealed(&mut self) -> Vec<(&'static str, &mut Sealed)> {
        vec![]
    }
}

/// What names a workflow where an operation is enqueued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its name in the database and the API, such as `create`.
    pub name: &'static str,
    /// The step that an operation of it begins with, which is shown while the operation is queued.
    pub first_step: &'static str,
}

/// A kind of operation: its steps in order, over durable data `D`.
#[derive(Debug)]
pub struct Workflow<D> {
    /// Its kind.
    pub kind: Kind,
    /// Its steps.
    pub steps: Vec<Box<dyn Step<D>>>,
}

/// A workflow whose data type is forgotten, as the engine keeps it.
#[async_trait]
pub trait AnyWorkflow: Send + Sync + Debug {
    /// Its kind.
    fn kind(&self) -> Kind;
    /// The names of its steps, in order.
    fn steps(&self) -> Vec<&'static str>;
    /// The version of its data.
    fn version(&self) -> i32;
    /// Runs a step, or its undo, over data as stored.
    async fn run(&self, step: usize, undo: bool, ctx: &Context<'_>, data: &mut Value) -> Result<Outcome, Fault>;
    /// Seals secrets in data as stored with the master key, and says which keys they were sealed with.
    fn reseal(&self, sealer: &Sealer, data: &mut Value) -> Result<Vec<SealedBy>, Error>;
}

#[async_trait]
impl<D: Data> AnyWorkflow for Workflow<D> {
    fn kind(&self) -> Kind {
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
        // A failed step's data counts too: it says what the host may have heard.
        *data = serde_json::to_value(typed).map_err(stuck)?;
        outcome
    }
}

/// Why a step that has lost its lease goes no further. Nobody is told: another worker goes on.
pub(super) fn overtaken() -> Fault {
    Fault::new(FaultKind::Retry, Code::Internal, "The lease was lost.")
}

/// What a step may use.
#[derive(Debug)]
pub struct Context<'a> {
    /// What every part of the service shares.
    pub core: &'a Core,
    /// The operation.
    pub operation: Uuid,
    /// Its server.
    pub server: ServerId,
    /// The tries of this step before this one.
    pub attempts: i32,
    pub(super) fence: i64,
    pub(super) host_task: Mutex<Option<String>>,
    /// Cancelled when the lease is lost: the step begins nothing new then.
    pub(super) lost: CancellationToken,
}

impl Context<'_> {
    /// Begins a transaction that holds the operation: it fails when another worker has taken the operation over, and
    /// none can take it over before it ends.
    pub async fn begin(&self) -> Result<Tx, Fault> {
        if self.lost.is_cancelled() {
            return Err(overtaken());
        }
        let mut tx = db::begin(&self.core.db).await?;
        if !store::hold(&mut tx, self.operation, self.fence).await? {
            return Err(Fault::new(FaultKind::Retry, Code::Internal, "Another worker has this operation now."));
        }
        Ok(tx)
    }

    /// A driver as a step may use it: once the lease is lost nothing new is asked of the host.
    pub fn fenced(&self, driver: Arc<dyn Driver>) -> Arc<dyn Driver> {
        Arc::new(Fenced { driver, lost: self.lost.clone() })
    }

    /// Names this claim of the operation: the same number means that no other worker, and no other life of this
    /// process, has run the step since.
    pub fn claim(&self) -> i64 {
        self.fence
    }

    /// Keeps the host's own id of its latest task, for the API's `taskId`.
    pub fn host_task(&self, id: &hypervisor::TaskId) {
        *self.host_task.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.0.clone());
    }
}
