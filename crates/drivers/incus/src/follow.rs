//! Following a task to its end: the state of its operation, and what is still missing.
//!
//! What follows is decided by level, not by edge: once the operation has ended *or is forgotten*, the guest's own
//! state says what is left to do. Any process of ours can do it.

use async_trait::async_trait;
use hypervisor::{Error, GuestPower, Result, TaskId, TaskState, Tasks};
use reqwest::Method;
use serde_json::json;

use crate::Incus;
use crate::api::{IncusOperation, Instance};
use crate::client::{Client, classify_shortage};
use crate::lookup::{self, READY};
use crate::operations::{IncusFollowUp, busy, change_power, ended, parse};
use crate::snapshots;

#[async_trait]
impl Tasks for Incus {
    async fn task(&self, id: &TaskId) -> Result<TaskState> {
        match carry_on(&self.client, id).await? {
            TaskState::Failed(error) => Ok(TaskState::Failed(classify_shortage(&self.client, error).await)),
            other => Ok(other),
        }
    }
}

async fn carry_on(client: &Client, id: &TaskId) -> Result<TaskState> {
    let parsed = parse(id)?;
    let operation: Option<IncusOperation> = client.get_opt(&["operations", &parsed.operation], &[]).await?;
    if let Some(operation) = operation.as_ref().filter(|o| o.is_running()) {
        return Ok(TaskState::Running(operation.progress()));
    }
    let Some((then, guest)) = parsed.follow_up else {
        return Ok(operation.map_or(TaskState::Unknown, |o| ended(&o)));
    };
    if then == IncusFollowUp::Started && operation.as_ref().is_some_and(IncusOperation::is_success) {
        return Ok(TaskState::Succeeded(None));
    }
    // Another process may have submitted the follow-up already.
    if busy(client, &lookup::name(&guest)).await?.is_some() {
        return Ok(TaskState::Running(None));
    }
    let instance = match lookup::get(client, &guest).await {
        Ok(Some(instance)) => instance,
        Ok(None) => return Ok(operation.map_or(TaskState::Unknown, |o| gone(&o))),
        Err(error @ Error::NotOurs(_)) => return Ok(TaskState::Failed(error)),
        Err(error) => return Err(error),
    };
    match then {
        IncusFollowUp::Confirm => confirm(client, operation.as_ref(), &instance).await,
        IncusFollowUp::Started => Ok(started(operation.as_ref(), &instance)),
        IncusFollowUp::Stopped { boot } => stopped(client, &instance, boot).await,
        IncusFollowUp::Restarted { boot } => restarted(client, &instance, boot).await,
        IncusFollowUp::Settle => snapshots::settle(client, operation.as_ref(), &guest, &instance).await,
    }
}

/// The operation has ended and its guest is not there: that can't be a success.
fn gone(operation: &IncusOperation) -> TaskState {
    match ended(operation) {
        TaskState::Succeeded(_) => TaskState::Failed(Error::NotFound("the guest is gone".to_owned())),
        other => other,
    }
}

async fn confirm(client: &Client, operation: Option<&IncusOperation>, instance: &Instance) -> Result<TaskState> {
    if instance.config.contains_key(READY) {
        return Ok(TaskState::Succeeded(None));
    }
    // Forgotten before any process of ours saw its end: the instance may be incomplete. `create` makes it again.
    let Some(operation) = operation else { return Ok(TaskState::Unknown) };
    if operation.is_success() {
        let body = json!({"config": {READY: "true"}});
        client.send_and_wait(Method::PATCH, &["instances", &instance.name], Some(&body)).await?;
    }
    Ok(ended(operation))
}

fn started(operation: Option<&IncusOperation>, instance: &Instance) -> TaskState {
    match (operation.map_or(TaskState::Unknown, ended), instance.power()) {
        // Another start was faster, or nobody saw the end of ours. A guest that was already up may have stopped
        // since: the caller checks whether it stays up.
        (TaskState::Failed(Error::Conflict(_)), GuestPower::Running | GuestPower::Stopped)
        | (TaskState::Unknown, GuestPower::Running) => TaskState::Succeeded(None),
        (other, _) => other,
    }
}

async fn stopped(client: &Client, instance: &Instance, boot: i64) -> Result<TaskState> {
    if instance.power() == GuestPower::Stopped {
        return Ok(TaskState::Succeeded(None));
    }
    if instance.boot() != boot {
        return Ok(TaskState::Failed(Error::Conflict("it was started again while it was being stopped".to_owned())));
    }
    change_power(client, &instance.name, "stop").await
}

async fn restarted(client: &Client, instance: &Instance, boot: i64) -> Result<TaskState> {
    match instance.power() {
        GuestPower::Running if instance.boot() != boot => Ok(TaskState::Succeeded(None)),
        // It went down, and the daemon died or gave up before it started it again.
        GuestPower::Stopped => change_power(client, &instance.name, "start").await,
        _ => change_power(client, &instance.name, "restart").await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_another_was_faster_with_is_a_success() {
        let operation = |code: u16, err: &str| -> IncusOperation {
            serde_json::from_value(json!({"id": "b3a1", "status_code": code, "err": err})).unwrap()
        };
        let instance =
            |status: &str| -> Instance { serde_json::from_value(json!({"name": "ink-1", "status": status})).unwrap() };
        let already = operation(400, "The instance is already running");
        assert_eq!(started(Some(&already), &instance("Running")), TaskState::Succeeded(None));
        assert_eq!(started(None, &instance("Running")), TaskState::Succeeded(None));
        assert_eq!(started(None, &instance("Stopped")), TaskState::Unknown);
        assert_eq!(started(Some(&already), &instance("Stopped")), TaskState::Succeeded(None));
        assert!(matches!(started(Some(&already), &instance("Frozen")), TaskState::Failed(Error::Conflict(_))));
        let broken = operation(400, "exit status 1");
        assert!(matches!(started(Some(&broken), &instance("Running")), TaskState::Failed(Error::Failed(_))));
    }
}
