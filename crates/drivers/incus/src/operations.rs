//! Incus's operations, and the names of our tasks.
//!
//! Incus forgets an operation seconds after its end, and dies with all of them. So a [`TaskId`] names the operation
//! and all that is needed to finish the work without it: `<operation>?then=<what>&vmid=<n>&marker=<uuid>[&boot=<n>]`.
//! It is text and outlives us; `follow` carries it on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hypervisor::{Error, GuestKind, GuestPower, GuestRef, Result, Task, TaskId, TaskState, rows};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{IncusOperation, Instance};
use crate::client::{Client, Reply, failure};

/// How long a look at a task waits for what it had to submit.
const FOLLOW_UP_WAIT: Duration = Duration::from_secs(15);

/// What must follow an operation to complete our task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IncusFollowUp {
    /// Mark a new guest as complete.
    Confirm,
    /// The guest must run, whoever started it.
    Started,
    /// The guest must be stopped: force it where it is still in the same boot.
    Stopped {
        /// [`Instance::boot`] when the stop was requested.
        boot: i64,
    },
    /// The guest must have restarted: force it where it is still in the same boot.
    Restarted {
        /// [`Instance::boot`] when the restart was requested.
        boot: i64,
    },
    /// Restore configuration and power to what they were before the roll-back.
    Settle,
}

/// What a [`TaskId`] says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct IncusTaskId {
    pub(crate) operation: String,
    pub(crate) follow_up: Option<(IncusFollowUp, GuestRef)>,
}

/// The task for an operation that has a follow-up.
pub(crate) fn chained(operation: &str, then: IncusFollowUp, guest: &GuestRef) -> Task {
    let (word, boot) = match then {
        IncusFollowUp::Confirm => ("confirm", None),
        IncusFollowUp::Started => ("started", None),
        IncusFollowUp::Stopped { boot } => ("stopped", Some(boot)),
        IncusFollowUp::Restarted { boot } => ("restarted", Some(boot)),
        IncusFollowUp::Settle => ("settle", None),
    };
    let mut id = format!("{operation}?then={word}&vmid={}&marker={}", guest.vmid, guest.marker);
    if let Some(boot) = boot {
        let _ = write!(id, "&boot={boot}");
    }
    Task::Running(TaskId(id))
}

/// The same for a mutation's answer.
pub(crate) fn chained_reply(reply: Reply, then: IncusFollowUp, guest: &GuestRef) -> Task {
    match reply {
        Reply::Done => Task::Done,
        Reply::Operation(operation) => chained(&operation.id, then, guest),
    }
}

/// The task for a mutation without a follow-up.
pub(crate) fn plain(reply: Reply) -> Task {
    match reply {
        Reply::Done => Task::Done,
        Reply::Operation(operation) => Task::Running(TaskId(operation.id)),
    }
}

pub(crate) fn parse(id: &TaskId) -> Result<IncusTaskId> {
    let nonsense = || Error::Invalid(format!("{:?} is not a task id of ours", id.0));
    let (operation, rest) = id.0.split_once('?').unwrap_or((&id.0, ""));
    Uuid::parse_str(operation).map_err(|_| nonsense())?;
    let operation = operation.to_owned();
    if rest.is_empty() {
        return Ok(IncusTaskId { operation, follow_up: None });
    }
    let value =
        |key: &str| rest.split('&').filter_map(|pair| pair.split_once('=')).find(|(k, _)| *k == key).map(|p| p.1);
    let number = |key: &str| value(key).and_then(|v| v.parse::<i64>().ok()).ok_or_else(nonsense);
    let then = match value("then") {
        Some("confirm") => IncusFollowUp::Confirm,
        Some("started") => IncusFollowUp::Started,
        Some("stopped") => IncusFollowUp::Stopped { boot: number("boot")? },
        Some("restarted") => IncusFollowUp::Restarted { boot: number("boot")? },
        Some("settle") => IncusFollowUp::Settle,
        _ => return Err(nonsense()),
    };
    let marker = value("marker").and_then(|v| Uuid::parse_str(v).ok()).ok_or_else(nonsense)?;
    let guest = GuestRef { marker, vmid: number("vmid")?, kind: GuestKind::Lxc, node: String::new() };
    Ok(IncusTaskId { operation, follow_up: Some((then, guest)) })
}

/// Maps the result of an operation that has ended.
pub(crate) fn ended(operation: &IncusOperation) -> TaskState {
    if operation.is_success() { TaskState::Succeeded(None) } else { TaskState::Failed(failure(&operation.err)) }
}

/// Submits a forced change of power and waits briefly, so that its failure isn't lost.
pub(crate) async fn change_power(client: &Client, name: &str, action: &str) -> Result<TaskState> {
    let state = match force(client, name, action).await {
        // Incus may say so at once, as the operation's result, or instead of an answer to the wait.
        Err(Error::Conflict(_)) | Ok(TaskState::Failed(Error::Conflict(_))) => None,
        other => Some(other?),
    };
    if let Some(state) = state {
        return Ok(state);
    }
    // The guest changed by itself after we looked.
    let now = client.get::<Instance>(&["instances", name], &[]).await?.power();
    Ok(match (action, now) {
        // A guest that was already up may have stopped since: the caller checks whether it stays up.
        ("stop", GuestPower::Stopped) | ("start", GuestPower::Running | GuestPower::Stopped) => {
            TaskState::Succeeded(None)
        }
        // In transition: the next look finds what is left to do.
        _ => TaskState::Running(None),
    })
}

async fn force(client: &Client, name: &str, action: &str) -> Result<TaskState> {
    let body = json!({"action": action, "force": true, "timeout": 0});
    Ok(match client.send(Method::PUT, &["instances", name, "state"], Some(&body)).await? {
        Reply::Done => TaskState::Succeeded(None),
        Reply::Operation(operation) => {
            let now = client.wait(&operation.id, FOLLOW_UP_WAIT).await?;
            // Still running: the next look finds it among the running operations.
            if now.is_running() { TaskState::Running(None) } else { ended(&now) }
        }
    })
}

/// The background operation that is running on an instance. Open consoles and execs don't count.
pub(crate) async fn busy(client: &Client, instance: &str) -> Result<Option<IncusOperation>> {
    let by_state: BTreeMap<String, Vec<Value>> = client.get(&["operations"], &[("recursion", "1")]).await?;
    let (read, odd) = rows::split(by_state.into_values().flatten().collect());
    client.odd_lists.note("operations", &odd);
    Ok(at_work(read, &odd, instance))
}

/// One that can't be read counts unless it is about something else.
fn at_work(read: Vec<IncusOperation>, odd: &[Value], instance: &str) -> Option<IncusOperation> {
    let unknown = || IncusOperation { description: "an operation that can't be read".to_owned(), ..Default::default() };
    let may_concern = |row: &Value| match row.get("resources").filter(|of| of.is_object()) {
        Some(of) => of.to_string().contains(&format!("/instances/{instance}")),
        None => true,
    };
    let found = read.into_iter().find(|o| o.class == "task" && o.is_running() && o.concerns(instance));
    found.or_else(|| odd.iter().any(may_concern).then(unknown))
}

/// Finds a running operation that does the same, for the caller to join; any other one is [`Error::Locked`].
pub(crate) async fn join(client: &Client, instance: &str, doing: &str) -> Result<Option<IncusOperation>> {
    match busy(client, instance).await? {
        Some(operation) if operation.description == doing => Ok(Some(operation)),
        Some(operation) => Err(Error::Locked(format!("{instance}: {}", operation.description))),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;
    use crate::IncusConfig;

    fn guest() -> GuestRef {
        GuestRef { marker: Uuid::new_v4(), vmid: 500_001, kind: GuestKind::Lxc, node: String::new() }
    }

    #[test]
    fn chained_ids_survive_as_text() {
        let operation = Uuid::new_v4().to_string();
        let guest = guest();
        let all = [
            IncusFollowUp::Confirm,
            IncusFollowUp::Started,
            IncusFollowUp::Stopped { boot: 7 },
            IncusFollowUp::Restarted { boot: -1 },
            IncusFollowUp::Settle,
        ];
        for then in all {
            let Task::Running(id) = chained(&operation, then, &guest) else { unreachable!() };
            let text = serde_json::to_string(&id).unwrap();
            let parsed = parse(&serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(parsed, IncusTaskId { operation: operation.clone(), follow_up: Some((then, guest.clone())) });
        }
    }

    /// An Incus that gives these answers to a change of power, to the wait for it and to reading the guest.
    fn incus(power: Value, wait: Value, instance: Value) -> (Client, PathBuf) {
        let socket = std::env::temp_dir().join(format!("incus-{}.sock", Uuid::new_v4()));
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let mut request = String::new();
                let mut some = [0; 1024];
                let whole = |request: &str| {
                    let (head, body) = request.split_once("\r\n\r\n")?;
                    let length = head
                        .to_lowercase()
                        .split_once("content-length: ")
                        .map_or(0, |(_, rest)| rest.lines().next().and_then(|n| n.parse().ok()).unwrap_or(0));
                    (body.len() >= length).then_some(())
                };
                while whole(&request).is_none() {
                    match stream.read(&mut some).await {
                        Ok(n) if n > 0 => request.push_str(&String::from_utf8_lossy(&some[..n])),
                        _ => break,
                    }
                }
                let body = match request.split([' ', '?']).nth(1).unwrap_or_default() {
                    "/1.0/instances/ink-1/state" => &power,
                    path if path.starts_with("/1.0/operations/") => &wait,
                    _ => &instance,
                };
                let body = body.to_string();
                let status = if body.contains("error_code") { "400 Bad Request" } else { "200 OK" };
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let config = IncusConfig { socket: socket.clone(), ..IncusConfig::default() };
        (Client::new(config).unwrap(), socket)
    }

    #[tokio::test]
    async fn a_guest_that_changed_by_itself_is_looked_at_again_wherever_incus_says_so() {
        let begun = json!({"type": "async", "operation": "/1.0/operations/b3a1",
            "metadata": {"id": "b3a1", "status_code": 103}});
        let refusal = |text: &str| json!({"type": "error", "error_code": 400, "error": text});
        let failed = |text: &str| json!({"type": "sync", "metadata": {"id": "b3a1", "status_code": 400, "err": text}});
        for (action, text, status, then) in [
            ("stop", "The instance is already stopped", "Stopped", TaskState::Succeeded(None)),
            ("start", "The instance is already running", "Running", TaskState::Succeeded(None)),
            ("start", "The instance is already running", "Stopped", TaskState::Succeeded(None)),
            ("restart", "The instance is not running", "Stopped", TaskState::Running(None)),
            ("restart", "The instance is already stopped", "Running", TaskState::Running(None)),
        ] {
            let instance = json!({"type": "sync", "metadata": {"name": "ink-1", "status": status}});
            for (power, wait) in
                [(refusal(text), json!(null)), (begun.clone(), refusal(text)), (begun.clone(), failed(text))]
            {
                let case = format!("{action}, {power}, {wait}");
                let (client, socket) = incus(power, wait, instance.clone());
                assert_eq!(change_power(&client, "ink-1", action).await, Ok(then.clone()), "{case}");
                std::fs::remove_file(socket).unwrap();
            }
        }
    }

    #[test]
    fn an_unreadable_operation_counts_as_at_work_and_hides_no_other() {
        let running = |of: Value| json!({"id": "b3a1", "class": "task", "status_code": 103, "resources": of});
        let ours = running(json!({"instances": ["/1.0/instances/ink-1"]}));
        let is_busy = |list: Vec<Value>| {
            let (read, odd) = rows::split(list);
            at_work(read, &odd, "ink-1").map(|o| o.id)
        };
        let other = json!({"id": 5, "resources": {"instances": ["/1.0/instances/ink-2"]}});
        assert_eq!(is_busy(vec![other.clone(), ours]).as_deref(), Some("b3a1"));
        assert_eq!(is_busy(vec![other]), None);
        for odd in
            [json!(null), json!({"id": 5}), json!({"id": 5, "resources": {"instances": ["/1.0/instances/ink-1"]}})]
        {
            assert!(is_busy(vec![odd.clone()]).is_some(), "{odd}");
        }
    }

    #[test]
    fn foreign_ids_are_refused() {
        let uuid = Uuid::new_v4();
        assert_eq!(parse(&TaskId(uuid.to_string())).unwrap().follow_up, None);
        for text in
            ["", "UPID:pve:1", "../../1.0", &format!("{uuid}?then=delete"), &format!("{uuid}?then=stopped&vmid=1")]
        {
            assert!(parse(&TaskId(text.to_owned())).is_err(), "{text}");
        }
    }
}
