//! Runs one claimed operation, step by step, until it ends, waits, or loses its lease.

use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rand::RngExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Operations;
use super::failpoints::Action;
use super::model::OperationState;
use super::store::{self, Claimed, StepUpdate};
use super::workflow::{AnyWorkflow, Context, Fault, FaultKind, Outcome, lost_lease};
use crate::core::Core;
use crate::db::{self, Tx};
use crate::error::{Code, Error, Result};

/// How long work in progress may take to finish after the lease is lost: a call to the host, a transaction, a save.
/// Each has a limit of its own; this is for anything that hangs anyway.
const ENDING: Duration = Duration::from_mins(2);

/// What runs an operation: the service, and the operation's workflow.
struct Runner<'a> {
    core: &'a Core,
    workflow: &'a dyn AnyWorkflow,
}

/// A claimed operation and its deadline on our clock: the claim said how much time was left.
struct ClaimedWork {
    op: Claimed,
    deadline: Instant,
    /// Cancelled when the lease is lost.
    lost: CancellationToken,
}

impl ClaimedWork {
    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    fn state(&self) -> OperationState {
        if self.op.undoing { OperationState::Undoing } else { OperationState::Running }
    }
}

/// What to do after a step.
enum AfterStep {
    /// The next step may run at once.
    Go,
    /// The worker is done with the operation for now.
    Leave,
}

/// Works on a claimed operation while its lease is kept alive. Errors are our own (the database): the lease expires and
/// the operation resumes from its last saved state. Once the lease is lost, a step starts nothing new, neither in the
/// database nor on the host; the work in progress is finished, and so is the save of its outcome: that may be committed
/// already, and then its end is counted, logged and reported.
pub(super) async fn run(operations: &Operations, claimed: Claimed) {
    let core = &operations.core;
    let (id, fence) = (claimed.id, claimed.fence);
    let deadline = Instant::now() + Duration::from_secs_f64(claimed.seconds_left.max(0.0));
    let lost = CancellationToken::new();
    let keep = async {
        keep_lease(core, id, fence).await;
        lost.cancel();
        tokio::time::sleep(ENDING).await;
    };
    let kind = claimed.kind.clone();
    let worked = async {
        let Some(workflow) = operations.workflow(&kind) else {
            return Err(Error::internal(anyhow::anyhow!("there is no workflow {kind}")));
        };
        steps(&Runner { core, workflow }, ClaimedWork { op: claimed, deadline, lost: lost.clone() }).await
    };
    let worked = tokio::select! {
        biased;
        worked = worked => worked,
        () = keep => {
            tracing::warn!(operation = %id, "lease lost, and the database does not answer; another worker continues");
            return;
        }
    };
    if let Err(error) = worked {
        tracing::error!(operation = %id, %error, "cannot save the operation's state; it will be resumed");
    }
}

/// Renews the lease until that fails.
async fn keep_lease(core: &Core, id: uuid::Uuid, fence: i64) {
    let lease = core.engine.lease;
    let mut last = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(lease / 3).await;
        let asked = tokio::time::Instant::now();
        // A database that does not answer must not hide that the lease has expired.
        match tokio::time::timeout(lease / 3, store::renew(&core.lease_db, id, fence, lease)).await {
            Ok(Ok(true)) => last = asked,
            Ok(Ok(false)) => return,
            // Past its end another worker may hold it, whether or not we can see that.
            _ if last.elapsed() + lease / 3 >= lease => return,
            Ok(Err(error)) => tracing::warn!(operation = %id, %error, "cannot renew the lease; retrying"),
            Err(_) => tracing::warn!(operation = %id, "cannot renew the lease in time; retrying"),
        }
    }
}

async fn steps(run: &Runner<'_>, mut work: ClaimedWork) -> Result<()> {
    let core = run.core;
    loop {
        match step(run, &mut work).await? {
            AfterStep::Go if work.lost.is_cancelled() => return Ok(()),
            AfterStep::Go if core.shutdown.is_cancelled() => {
                // Between steps nothing is in progress: hand it to another process right away.
                store::release(&core.db, work.op.id, work.op.fence).await?;
                return Ok(());
            }
            AfterStep::Go => {}
            AfterStep::Leave => return Ok(()),
        }
    }
}

async fn step(run: &Runner<'_>, work: &mut ClaimedWork) -> Result<AfterStep> {
    let core = run.core;
    let op = &mut work.op;
    let names = run.workflow.steps();
    let index = usize::try_from(op.step_index).unwrap_or(usize::MAX);
    let Some(&name) = names.get(index).filter(|name| **name == op.step) else {
        // Started by a version with other steps: there is no telling which of ours comes next.
        let detail = format!(
            "step {} of this {} is `{}`, which is not where this version has it: let the version that started it \
             continue, or check the guest and retry at the step of that name",
            index + 1,
            op.kind,
            op.step
        );
        let step = op.step.clone();
        return stuck(run, op, &step, &detail).await;
    };
    let ctx = Context {
        core,
        operation: op.id,
        subject: op.subject(),
        attempts: op.attempts,
        step: name,
        fence: op.fence,
        host_task: Mutex::new(op.host_task.clone()),
        lost: work.lost.clone(),
    };
    let before = op.data.clone();
    let acted = AssertUnwindSafe(act(run, op, index, name, &ctx)).catch_unwind().await;
    let (mut outcome, forget) = acted.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "panic".into());
        metrics::counter!("innkeeper_panics_total").increment(1);
        (Err(Error::internal(anyhow::anyhow!("the step panicked: {text}")).into()), false)
    });
    if ctx.lost.is_cancelled() && outcome.is_err() {
        tracing::warn!(operation = %ctx.operation, "lease lost; another worker continues");
        return Ok(AfterStep::Leave);
    }
    op.host_task = ctx.host_task.into_inner().unwrap_or_else(PoisonError::into_inner);
    if forget {
        op.data = before;
        // As after a crash between acting and saving: what the step wrote on its own stays, the record of it does not.
        outcome = match outcome {
            Ok(Outcome::DoneIn(tx)) => {
                tx.commit().await?;
                Ok(Outcome::Again)
            }
            Ok(_) => Ok(Outcome::Again),
            Err(fault) => Err(fault),
        };
    }
    let undoing = op.undoing;
    let next = save_outcome(run, work, &names, index, outcome).await?;
    let saved = core.engine.failpoints.pass(&work.op.kind, name, undoing, "saved");
    work.lost.run_until_cancelled(saved).await;
    Ok(next)
}

/// Runs the step between its two failpoints. True: discard the outcome.
async fn act(
    run: &Runner<'_>,
    op: &mut Claimed,
    index: usize,
    name: &str,
    ctx: &Context<'_>,
) -> (Result<Outcome, Fault>, bool) {
    let points = &run.core.engine.failpoints;
    let injected = || Fault::new(FaultKind::Fail, Code::Internal, "This fault was injected.");
    match ctx.lost.run_until_cancelled(points.pass(&op.kind, name, op.undoing, "before")).await {
        Some(Some(Action::Fail)) => return (Err(injected()), false),
        Some(_) => {}
        None => return (Err(lost_lease()), false),
    }
    let outcome = run.workflow.run(index, op.undoing, ctx, &mut op.data).await;
    let boundary = match outcome {
        Ok(Outcome::Done | Outcome::DoneIn(_)) => "acted",
        Ok(Outcome::Wait { .. }) => "waiting",
        _ => return (outcome, false),
    };
    match ctx.lost.run_until_cancelled(points.pass(&op.kind, name, op.undoing, boundary)).await.flatten() {
        Some(Action::Fail) => (Err(injected()), false),
        Some(Action::Repeat) => (outcome, true),
        _ => (outcome, false),
    }
}

/// Saves the outcome of the step, and decides how to continue.
async fn save_outcome(
    run: &Runner<'_>,
    work: &mut ClaimedWork,
    names: &[&'static str],
    index: usize,
    outcome: Result<Outcome, Fault>,
) -> Result<AfterStep> {
    match outcome {
        Ok(Outcome::Done) => done(run, &mut work.op, names, index, db::begin(&run.core.db).await?).await,
        Ok(Outcome::DoneIn(tx)) => done(run, &mut work.op, names, index, tx).await,
        Ok(Outcome::Again) => {
            let saved = write(run, &work.op, SaveOptions::new(names[index], work.state())).await?;
            Ok(if saved { AfterStep::Go } else { AfterStep::Leave })
        }
        Ok(Outcome::Wait { after, progress }) => {
            if work.is_late() {
                let fault = Fault::new(FaultKind::Retry, Code::HostError, "The host did not finish in time.");
                return handle_fault(run, work, names, index, fault).await;
            }
            let state = work.state();
            let op = &mut work.op;
            let percent = progress_of(names.len(), index, progress.unwrap_or(0));
            // The host is working, so the retry succeeded.
            let visible = !op.undoing && (percent > op.progress || op.error_code.is_some());
            if visible {
                op.progress = op.progress.max(percent);
                (op.error_code, op.error_message, op.error_detail) = (None, None, None);
            }
            op.attempts = 0;
            write(run, op, SaveOptions { release: Some(after), visible, ..SaveOptions::new(names[index], state) })
                .await?;
            Ok(AfterStep::Leave)
        }
        Err(fault) => handle_fault(run, work, names, index, fault).await,
    }
}

/// Overall progress, with the current step `inner` percent done.
fn progress_of(steps: usize, index: usize, inner: u8) -> i16 {
    let whole = (index * 100 + usize::from(inner.min(99))) / steps.max(1);
    i16::try_from(whole.min(99)).unwrap_or(99)
}

/// The step is done: continue with the next one (or the previous one), or end the operation.
async fn done(
    run: &Runner<'_>,
    op: &mut Claimed,
    names: &[&'static str],
    index: usize,
    mut tx: Tx,
) -> Result<AfterStep> {
    let ended = if op.undoing { index == 0 } else { index + 1 == names.len() };
    let state = match (ended, op.undoing) {
        (false, false) => OperationState::Running,
        (false, true) => OperationState::Undoing,
        (true, false) => OperationState::Succeeded,
        (true, true) => OperationState::Failed,
    };
    let next = match (ended, op.undoing) {
        (true, _) => index,
        (false, true) => index - 1,
        (false, false) => index + 1,
    };
    op.attempts = 0;
    if op.undoing {
        op.error_detail = op.error_detail.as_deref().and_then(original_error).map(str::to_owned);
    } else {
        // The retry succeeded.
        (op.error_code, op.error_message, op.error_detail) = (None, None, None);
        op.progress = if ended { 100 } else { progress_of(names.len(), next, 0) };
    }
    op.step_index = i32::try_from(next).unwrap_or(i32::MAX);
    names[next].clone_into(&mut op.step);
    if ended {
        // Sealed passwords and the like are no longer needed.
        op.data = Value::Null;
    }
    let release = ended.then_some(Duration::ZERO);
    let entry = SaveOptions { release, visible: true, ..SaveOptions::new(names[next], state) };
    if !save(run, &mut tx, op, &entry).await? {
        tx.rollback().await?;
        return Ok(AfterStep::Leave);
    }
    let way = if op.undoing { "undone" } else { "done" };
    store::log(&mut tx, op.id, "info", names[index], way).await?;
    tx.commit().await?;
    if ended {
        let outcome = if op.undoing { "failed" } else { "succeeded" };
        metrics::counter!("innkeeper_operations_total", "kind" => op.kind.clone(), "state" => outcome).increment(1);
        tracing::info!(operation = %op.id, kind = op.kind, subject = %op.subject(), outcome, "operation ended");
        return Ok(AfterStep::Leave);
    }
    Ok(AfterStep::Go)
}

/// Separates the reason of a failure from what keeps it from being undone, in an operation's detail.
const UNDOING: &str = "\nundoing it: ";

/// The first of the two.
fn original_error(detail: &str) -> Option<&str> {
    detail.split(UNDOING).next().filter(|why| !why.is_empty())
}

fn error_of(op: &Claimed) -> Option<(String, String, Option<String>)> {
    Some((op.error_code.clone()?, op.error_message.clone().unwrap_or_default(), op.error_detail.clone()))
}

/// The step failed: retry it, undo the operation, or mark it stuck.
async fn handle_fault(
    run: &Runner<'_>,
    work: &mut ClaimedWork,
    names: &[&'static str],
    index: usize,
    fault: Fault,
) -> Result<AfterStep> {
    let (late, state) = (work.is_late(), work.state());
    let op = &mut work.op;
    let name = names[index];
    let detail = fault.detail.as_deref().unwrap_or(&fault.message).to_owned();
    let told = if op.undoing {
        // A failing undo is reported next to why the operation failed, and does not hide it.
        let why = op.error_detail.as_deref().and_then(original_error).unwrap_or_default();
        Some(format!("{why}{UNDOING}{detail}"))
    } else {
        fault.detail.clone()
    };
    let same = (op.undoing || op.error_code.as_deref() == Some(fault.code.as_str())) && op.error_detail == told;
    op.error_detail = told;
    let verdict = match (fault.kind, op.undoing) {
        (FaultKind::Stuck, _) | (FaultKind::Blocked, true) => FaultKind::Stuck,
        (_, true) if late => FaultKind::Stuck,
        // While undoing, only time helps.
        (_, true) => FaultKind::Retry,
        (FaultKind::Retry, false) if late => FaultKind::Fail,
        (kind, false) => kind,
    };
    if !op.undoing {
        op.error_code = Some(fault.code.as_str().to_owned());
        op.error_message = Some(match verdict {
            FaultKind::Retry => format!("{} We keep trying.", fault.message),
            _ => fault.message.clone(),
        });
    }
    match verdict {
        FaultKind::Retry => {
            op.attempts += 1;
            let after = back_off(op.attempts, op.undoing);
            // Only the first of a series of identical failures is logged.
            let log = (!same || op.attempts == 1).then(|| ("warn", format!("{detail}; retrying")));
            if write(run, op, SaveOptions { release: Some(after), log, visible: true, ..SaveOptions::new(name, state) })
                .await?
            {
                tracing::warn!(
                    operation = %op.id, kind = op.kind, step = name, attempts = op.attempts, detail,
                    "step failed; it will be retried"
                );
            }
            Ok(AfterStep::Leave)
        }
        FaultKind::Fail | FaultKind::Blocked => {
            op.undoing = true;
            op.attempts = 0;
            let undo_deadline = run.core.engine.undo_deadline;
            let log = Some(("error", format!("{detail}; undoing")));
            let turned = SaveOptions {
                deadline: Some(undo_deadline),
                log,
                visible: true,
                ..SaveOptions::new(name, OperationState::Undoing)
            };
            let saved = write(run, op, turned).await?;
            work.deadline = Instant::now() + undo_deadline;
            if !saved {
                return Ok(AfterStep::Leave);
            }
            let op = &work.op;
            tracing::warn!(
                operation = %op.id, kind = op.kind, step = name, detail,
                "operation failed and is being undone"
            );
            Ok(AfterStep::Go)
        }
        FaultKind::Stuck => stuck(run, op, name, &detail).await,
    }
}

/// Marks it stuck, unless another worker has it by now.
async fn stuck(run: &Runner<'_>, op: &Claimed, name: &str, detail: &str) -> Result<AfterStep> {
    let log = Some(("error", format!("{detail}; manual intervention is required")));
    let release = Some(Duration::ZERO);
    if write(run, op, SaveOptions { release, log, visible: true, ..SaveOptions::new(name, OperationState::Stuck) })
        .await?
    {
        metrics::counter!("innkeeper_operations_total", "kind" => op.kind.clone(), "state" => "stuck").increment(1);
        tracing::error!(
            operation = %op.id, kind = op.kind, subject = %op.subject(), step = name, detail,
            "operation is stuck; manual intervention is required"
        );
    }
    Ok(AfterStep::Leave)
}

/// Half a second, doubling up to 30 seconds (five minutes while undoing), with 25 % jitter.
fn back_off(attempts: i32, undoing: bool) -> Duration {
    let most = if undoing { 300.0 } else { 30.0 };
    let seconds = (0.25 * 2f64.powi(attempts.clamp(1, 16))).min(most);
    Duration::from_secs_f64(seconds * rand::rng().random_range(0.75..1.25))
}

/// What is written of an operation, beside what it holds itself.
struct SaveOptions<'a> {
    step: &'a str,
    state: OperationState,
    /// Give the lease back, to be claimed again after this long.
    release: Option<Duration>,
    /// A new deadline from now.
    deadline: Option<Duration>,
    /// A line for its log: level and message.
    log: Option<(&'a str, String)>,
    /// Whether watchers can see a difference.
    visible: bool,
}

impl<'a> SaveOptions<'a> {
    fn new(step: &'a str, state: OperationState) -> Self {
        Self { step, state, release: None, deadline: None, log: None, visible: false }
    }
}

/// Saves an operation in a transaction of its own; false where another worker has it now.
async fn write(run: &Runner<'_>, op: &Claimed, entry: SaveOptions<'_>) -> Result<bool> {
    let mut tx = db::begin(&run.core.db).await?;
    if !save(run, &mut tx, op, &entry).await? {
        return Ok(false);
    }
    if let Some((level, message)) = entry.log {
        store::log(&mut tx, op.id, level, entry.step, &message).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Saves an operation, without its log, in this transaction; false where another worker has it now.
async fn save(run: &Runner<'_>, tx: &mut Tx, op: &Claimed, entry: &SaveOptions<'_>) -> Result<bool> {
    let error = error_of(op);
    let update = StepUpdate {
        state: entry.state,
        undoing: op.undoing,
        step_index: op.step_index,
        step: entry.step,
        data: &op.data,
        version: run.workflow.version(),
        attempts: op.attempts,
        progress: op.progress,
        error: error.as_ref().map(|(c, m, d)| (c.as_str(), m.as_str(), d.as_deref())),
        host_task: op.host_task.as_deref(),
        release: entry.release,
        deadline: entry.deadline,
        visible: entry.visible,
    };
    Ok(store::save(tx, op.id, op.fence, &update).await?)
}
