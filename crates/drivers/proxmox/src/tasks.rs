//! The host's tasks, and the names of ours.
//!
//! A [`TaskId`] is a UPID and what must follow it, with everything that is needed for that:
//! `<upid>?then=<what>&kind=<lxc|vm>&vmid=<n>&marker=<uuid>&node=<name>[&cores=..&memory=..&disk=..]`. It is text and
//! outlives us; `follow` carries it on.

use std::fmt::Write as _;

use hypervisor::{Error, GuestKind, GuestPower, GuestRef, GuestSize, Result, Task, TaskId, TaskState, last_lines};
use serde::Deserialize;
use uuid::Uuid;

use crate::api::TaskRow;
use crate::client::Client;
use crate::error::failure_with;
use crate::place::{LocatedGuest, Place};
use crate::rows::{Rows, rows};

/// How many last lines of a log go into an error or a warning.
const TAIL: usize = 12;
/// How many seconds after its start a task may still be unknown to its node.
const YOUNG_S: i64 = 15;

/// What must follow a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PveFollowUp {
    /// A container was created: it must be ours.
    Made,
    /// A VM was cloned: it must get its size, and then its tag.
    Sized(GuestSize),
    /// The guest must be running.
    Started,
    /// The guest must be stopped.
    Stopped,
    /// The guest must have restarted.
    Restarted,
    /// What a roll-back must not change must be restored.
    Settled,
    /// The guest must be gone: another deletion of it may have been faster.
    Deleted,
}

/// The parts of a UPID that we use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upid {
    pub(crate) text: String,
    pub(crate) node: String,
    pub(crate) kind: String,
    /// What it works on: a guest's number if it is one guest.
    pub(crate) id: String,
    /// The start in seconds since 1970, and in the node's own ticks: they order a node's tasks.
    pub(crate) age: (u64, u64),
}

impl Upid {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let nonsense = || Error::Invalid(format!("{text:?} is not a task id of ours"));
        let parts: Vec<&str> = text.split(':').collect();
        let ["UPID", node, _pid, pstart, start, kind, id, _user, ""] = parts[..] else { return Err(nonsense()) };
        let hex = |digits: &str| u64::from_str_radix(digits, 16).map_err(|_| nonsense());
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '?' | '&');
        if node.is_empty() || kind.is_empty() || !text.chars().all(plain) {
            return Err(nonsense());
        }
        let age = (hex(start)?, hex(pstart)?);
        Ok(Self { text: text.to_owned(), node: node.to_owned(), kind: kind.to_owned(), id: id.to_owned(), age })
    }
}

/// What a [`TaskId`] says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PveTaskId {
    pub(crate) upid: Upid,
    pub(crate) follow_up: Option<(PveFollowUp, GuestRef)>,
}

/// The task for a UPID without a follow-up.
pub(crate) fn plain(upid: String) -> Task {
    Task::Running(TaskId(upid))
}

/// The task for a UPID with a follow-up.
pub(crate) fn chained(upid: &str, then: PveFollowUp, guest: &GuestRef) -> Task {
    let word = match then {
        PveFollowUp::Made => "made",
        PveFollowUp::Sized(_) => "sized",
        PveFollowUp::Started => "started",
        PveFollowUp::Stopped => "stopped",
        PveFollowUp::Restarted => "restarted",
        PveFollowUp::Settled => "settled",
        PveFollowUp::Deleted => "deleted",
    };
    let kind = if guest.kind == GuestKind::Lxc { "lxc" } else { "vm" };
    let mut id =
        format!("{upid}?then={word}&kind={kind}&vmid={}&marker={}&node={}", guest.vmid, guest.marker, guest.node);
    if let PveFollowUp::Sized(limits) = then {
        let (cores, memory) = (limits.cores.unwrap_or_default(), limits.memory_mib.unwrap_or_default());
        let _ = write!(id, "&cores={cores}&memory={memory}&disk={}", limits.disk_gib.unwrap_or_default());
    }
    Task::Running(TaskId(id))
}

pub(crate) fn parse(id: &TaskId) -> Result<PveTaskId> {
    let nonsense = || Error::Invalid(format!("{:?} is not a task id of ours", id.0));
    let (upid, rest) = id.0.split_once('?').unwrap_or((&id.0, ""));
    let upid = Upid::parse(upid)?;
    if rest.is_empty() {
        return Ok(PveTaskId { upid, follow_up: None });
    }
    let value = |key: &str| {
        let mut pairs = rest.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(k, _)| *k == key).map(|(_, value)| value).ok_or_else(nonsense)
    };
    let then = match value("then")? {
        "made" => PveFollowUp::Made,
        "sized" => PveFollowUp::Sized(GuestSize {
            cores: Some(value("cores")?.parse().map_err(|_| nonsense())?),
            memory_mib: Some(value("memory")?.parse().map_err(|_| nonsense())?),
            disk_gib: Some(value("disk")?.parse().map_err(|_| nonsense())?),
            // Part of the network, which a guest gets when it is prepared.
            bandwidth_mbps: None,
        }),
        "started" => PveFollowUp::Started,
        "stopped" => PveFollowUp::Stopped,
        "restarted" => PveFollowUp::Restarted,
        "settled" => PveFollowUp::Settled,
        "deleted" => PveFollowUp::Deleted,
        _ => return Err(nonsense()),
    };
    let guest = GuestRef {
        marker: Uuid::parse_str(value("marker")?).map_err(|_| nonsense())?,
        vmid: value("vmid")?.parse().map_err(|_| nonsense())?,
        kind: if value("kind")? == "vm" { GuestKind::Vm } else { GuestKind::Lxc },
        node: value("node")?.to_owned(),
    };
    Ok(PveTaskId { upid, follow_up: Some((then, guest)) })
}

/// The outcome of a host's task, so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TaskOutcome {
    Running,
    /// With the warnings of its log, where it has any.
    Succeeded(Option<String>),
    Failed(Error),
    /// Its end was not seen: the node died or forgot it.
    Lost,
}

impl From<TaskOutcome> for TaskState {
    fn from(end: TaskOutcome) -> Self {
        match end {
            TaskOutcome::Running => Self::Running(None),
            TaskOutcome::Succeeded(warnings) => Self::Succeeded(warnings),
            TaskOutcome::Failed(error) => Self::Failed(error),
            TaskOutcome::Lost => Self::Unknown,
        }
    }
}

/// A change of power whose task has ended. The guest's state counts, whoever brought it about.
pub(crate) fn power_result(end: TaskOutcome, is: GuestPower, wanted: GuestPower) -> TaskState {
    match end {
        TaskOutcome::Failed(_) | TaskOutcome::Lost if is == wanted => TaskState::Succeeded(None),
        // The HA manager has not done it yet.
        TaskOutcome::Succeeded(_) if is != wanted => TaskState::Running(None),
        other => other.into(),
    }
}

pub(crate) async fn state(client: &Client, upid: &Upid) -> Result<TaskOutcome> {
    #[derive(Deserialize)]
    struct TaskStatus {
        status: String,
        exitstatus: Option<String>,
    }
    let status: TaskStatus = match client.get(&["nodes", &upid.node, "tasks", &upid.text, "status"], &[]).await {
        Ok(status) => status,
        // No such task, or in some versions an unknown UPID.
        Err(Error::NotFound(_) | Error::Invalid(_)) => {
            let age = chrono::Utc::now().timestamp().saturating_sub_unsigned(upid.age.0);
            return Ok(if (0..YOUNG_S).contains(&age) { TaskOutcome::Running } else { TaskOutcome::Lost });
        }
        // The credentials were good when it was submitted: the node can't read its users at the moment.
        Err(Error::Unauthorized(text) | Error::Forbidden(text)) => return Err(Error::Unreachable(text)),
        Err(error) => return Err(error),
    };
    if status.status == "running" {
        return Ok(TaskOutcome::Running);
    }
    match status.exitstatus.as_deref() {
        Some("OK") => Ok(TaskOutcome::Succeeded(None)),
        Some(text) if text.starts_with("WARNINGS") => Ok(TaskOutcome::Succeeded(Some(tail(client, upid).await?))),
        Some(text) if !is_end_unknown(text) => {
            // The log is only detail: without it the failure is still a failure.
            let detail = tail(client, upid).await.unwrap_or_default();
            Ok(TaskOutcome::Failed(failure_with(text, &detail)))
        }
        // The node may have read the log between the process's end and its last line, and keeps that status. The log
        // is right.
        _ => Ok(by_log(&tail(client, upid).await?)),
    }
}

/// Exit statuses that mean that the node did not see the end.
fn is_end_unknown(text: &str) -> bool {
    ["unexpected status", "unable to get last line", "unable to read tail"].iter().any(|words| text.starts_with(words))
}

fn by_log(log: &str) -> TaskOutcome {
    let last = log.lines().last().unwrap_or_default();
    if last == "TASK OK" {
        return TaskOutcome::Succeeded(None);
    }
    if last.starts_with("TASK WARNINGS") {
        return TaskOutcome::Succeeded(Some(log.to_owned()));
    }
    last.strip_prefix("TASK ERROR: ").map_or(TaskOutcome::Lost, |text| TaskOutcome::Failed(failure_with(text, log)))
}

/// The last lines of a task's log.
async fn tail(client: &Client, upid: &Upid) -> Result<String> {
    #[derive(Deserialize)]
    struct TaskLogLine {
        #[serde(default)]
        t: String,
    }
    let path = ["nodes", &upid.node, "tasks", &upid.text, "log"];
    let lines = rows::<TaskLogLine>(client, &path, &[("start", "0"), ("limit", "2000")]).await?.read;
    let skip = lines.len().saturating_sub(TAIL);
    Ok(lines[skip..].iter().map(|line| line.t.as_str()).collect::<Vec<_>>().join("\n"))
}

/// The end of the log of a guest's latest task of these types; empty if the node has none.
pub(crate) async fn last_log(client: &Client, at: &Place, kinds: &[&str]) -> Result<String> {
    let query = [("vmid", at.vmid.as_str()), ("source", "all"), ("limit", "100")];
    let rows = rows::<TaskRow>(client, &["nodes", &at.node, "tasks"], &query).await?.read;
    let ours = rows.iter().filter(|row| kinds.contains(&row.kind.as_str()) && row.id == at.vmid);
    match ours.filter_map(|row| Upid::parse(&row.upid).ok()).max_by_key(|upid| upid.age) {
        Some(upid) => Ok(last_lines(&tail(client, &upid).await?)),
        None => Ok(String::new()),
    }
}

/// The outcome of a guest's newest task of these kinds that was submitted after `first`.
pub(crate) async fn follower(client: &Client, first: &Upid, at: &Place, kinds: &[&str]) -> Result<Option<TaskOutcome>> {
    let since = first.age.0.to_string();
    let query = [("vmid", at.vmid.as_str()), ("source", "all"), ("since", &since), ("limit", "100")];
    let Rows { read, incomplete } = rows::<TaskRow>(client, &["nodes", &at.node, "tasks"], &query).await?;
    let later = |upid: &Upid| if upid.node == first.node { upid.age > first.age } else { upid.age.0 >= first.age.0 };
    let ours = read.iter().filter(|row| kinds.contains(&row.kind.as_str()) && row.id == at.vmid);
    let newest = ours.filter_map(|row| Upid::parse(&row.upid).ok()).filter(later).max_by_key(|upid| upid.age);
    match newest {
        Some(upid) => match state(client, &upid).await? {
            // The HA manager has only taken the request: the guest's own state says when it is done.
            TaskOutcome::Succeeded(_) if upid.kind.starts_with("ha") => Ok(Some(TaskOutcome::Running)),
            end => Ok(Some(end)),
        },
        // It may be the one that can't be read: nothing may be submitted twice.
        None => Ok(incomplete.then_some(TaskOutcome::Running)),
    }
}

/// What a look at a guest says about what followed a task.
#[derive(Debug)]
pub(crate) enum Followed {
    State(TaskState),
    /// What followed has succeeded, but the guest was not as it should be then. It may have ended after the look, so
    /// this is an error only if a second look shows the same.
    Contradicted(Error),
}

impl Followed {
    /// What [`submit_next`] found; `None` contradicts it.
    pub(crate) fn or(state: Option<TaskState>, contradiction: Error) -> Self {
        state.map_or(Self::Contradicted(contradiction), Self::State)
    }
}

impl From<TaskState> for Followed {
    fn from(state: TaskState) -> Self {
        Self::State(state)
    }
}

impl From<TaskOutcome> for Followed {
    fn from(end: TaskOutcome) -> Self {
        Self::State(end.into())
    }
}

/// Submits what follows, unless that was done already; `None` once it has succeeded.
pub(crate) async fn submit_next<F>(
    client: &Client,
    first: &Upid,
    found: &LocatedGuest,
    kinds: &[&str],
    submit: impl FnOnce() -> F,
) -> Result<Option<TaskState>>
where
    F: Future<Output = Result<String>>,
{
    match follower(client, first, &found.at, kinds).await? {
        Some(TaskOutcome::Succeeded(_)) => Ok(None),
        Some(TaskOutcome::Running) => Ok(Some(TaskState::Running(None))),
        Some(TaskOutcome::Failed(error)) if !error.is_transient() => Ok(Some(TaskState::Failed(error))),
        // It was never submitted, or failed for a reason that passes.
        Some(TaskOutcome::Failed(_) | TaskOutcome::Lost) | None => {
            submit().await.map(|_| Some(TaskState::Running(None)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPID: &str = "UPID:pve1:000004F0:0002D892:6B018A7A:vzcreate:100:root@pam!t1:";

    #[test]
    fn chained_ids_survive_as_text() {
        let guest = GuestRef { marker: Uuid::new_v4(), vmid: 500_001, kind: GuestKind::Vm, node: "pve-1".to_owned() };
        let sized = PveFollowUp::Sized(GuestSize {
            cores: Some(2),
            memory_mib: Some(512),
            disk_gib: Some(9),
            ..GuestSize::default()
        });
        for then in [
            PveFollowUp::Made,
            sized,
            PveFollowUp::Started,
            PveFollowUp::Stopped,
            PveFollowUp::Restarted,
            PveFollowUp::Settled,
            PveFollowUp::Deleted,
        ] {
            let Task::Running(id) = chained(UPID, then, &guest) else { unreachable!() };
            let text = serde_json::to_string(&id).unwrap();
            let parsed = parse(&serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(parsed, PveTaskId { upid: Upid::parse(UPID).unwrap(), follow_up: Some((then, guest.clone())) });
        }
    }

    #[test]
    fn foreign_ids_are_refused() {
        let upid = Upid::parse(UPID).unwrap();
        assert_eq!((upid.node.as_str(), upid.kind.as_str()), ("pve1", "vzcreate"));
        assert_eq!(upid.age, (0x6B01_8A7A, 0x2D892));
        for text in ["", "no task of ours", "UPID:pve1", &UPID.replace("pve1", "../x"), &format!("{UPID}?then=delete")]
        {
            assert!(matches!(parse(&TaskId(text.to_owned())), Err(Error::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn an_end_that_nobody_saw_is_read_from_the_log() {
        assert_eq!(by_log("a\nTASK OK"), TaskOutcome::Succeeded(None));
        assert!(matches!(by_log("a\nTASK WARNINGS: 1"), TaskOutcome::Succeeded(Some(_))));
        assert!(matches!(by_log("TASK ERROR: CT is locked (backup)"), TaskOutcome::Failed(Error::Locked(_))));
        assert_eq!(by_log("half a li"), TaskOutcome::Lost);
        assert!(is_end_unknown("unexpected status") && is_end_unknown("unable to get last line from task log - x"));
        assert!(!is_end_unknown("unable to create CT 120 - out of space"));
    }

    #[test]
    fn what_is_so_is_so_whoever_did_it() {
        let locked = || TaskOutcome::Failed(Error::Locked(String::new()));
        assert_eq!(power_result(locked(), GuestPower::Running, GuestPower::Running), TaskState::Succeeded(None));
        assert!(matches!(power_result(locked(), GuestPower::Stopped, GuestPower::Running), TaskState::Failed(_)));
        assert_eq!(power_result(TaskOutcome::Lost, GuestPower::Stopped, GuestPower::Running), TaskState::Unknown);
        assert_eq!(
            power_result(TaskOutcome::Succeeded(None), GuestPower::Stopped, GuestPower::Running),
            TaskState::Running(None)
        );
    }
}
