//! The engine's settings, and how an operation is enqueued.

use std::time::Duration;

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::failpoints::Failpoints;
use super::model::OperationState;
use super::store::{self, BlockingOperation, NewRow};
use super::workflow::{Data, WorkflowKind};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::ids::{AccountId, UserId};
use crate::subjects::Subject;

/// The engine's settings, and the way to enqueue.
#[derive(Debug)]
pub struct Engine {
    /// Points where tests make it fail.
    pub failpoints: Failpoints,
    /// This process, as lease owner.
    pub(super) owner: Uuid,
    pub(super) workers: usize,
    pub(super) lease: Duration,
    pub(super) undo_deadline: Duration,
}

/// An operation to enqueue.
#[derive(Debug)]
pub struct NewOperation<D> {
    /// Which workflow.
    pub kind: WorkflowKind,
    /// What it works on.
    pub subject: Subject,
    /// What limits how many operations run at a time, such as the host: `host:12`.
    pub lane: String,
    /// The account whose turn it takes: accounts share a lane fairly.
    pub account: Option<AccountId>,
    /// The workflow's initial data.
    pub data: D,
    /// The user who requested it.
    pub user: Option<UserId>,
    /// How long its steps may take in total before it is undone.
    pub deadline: Duration,
}

impl Engine {
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            failpoints: Failpoints::parse(&config.failpoints)?,
            owner: Uuid::new_v4(),
            workers: config.workers,
            lease: config.lease(),
            undo_deadline: Duration::from_secs(config.undo_deadline_seconds.into()),
        })
    }

    /// Enqueues an operation in the caller's transaction: it exists if and only if that transaction commits. If another
    /// operation holds the subject, or waits for it, the error is `LOCKED` with its id.
    pub async fn enqueue<D: Data>(&self, tx: &mut PgConnection, new: NewOperation<D>) -> Result<Uuid> {
        let new = row(new)?;
        loop {
            if store::insert(tx, &new).await? {
                return Ok(new.id);
            }
            // The conflicting operation may have ended in between: then there is room.
            if let Some(BlockingOperation { id, kind, .. }) = store::blocking(tx, &new.subject).await? {
                return Err(locked(&new.subject, &kind, id));
            }
        }
    }

    /// The same for what nothing may prevent: if another operation holds the subject, this one is next, and nothing
    /// else is accepted before it. Only one waits at a time: this one replaces a waiting operation of a kind in
    /// `instead_of`; any other waiting operation runs instead of this one.
    pub async fn enqueue_behind<D: Data>(
        &self,
        tx: &mut PgConnection,
        new: NewOperation<D>,
        instead_of: &[&str],
    ) -> Result<Enqueued> {
        let new = row(new)?;
        loop {
            if let Some(BlockingOperation { id, kind, .. }) = store::waiting(tx, &new.subject).await? {
                if kind == new.kind || !instead_of.contains(&kind.as_str()) {
                    return Ok(Enqueued { id, waits: true });
                }
                store::replace(tx, id, &format!("Replaced by another operation ({}).", new.kind)).await?;
            }
            if store::insert(tx, &new).await? {
                return Ok(Enqueued { id: new.id, waits: false });
            }
            if let Some(BlockingOperation { kind, state, .. }) = store::blocking(tx, &new.subject).await? {
                let why = match state {
                    OperationState::Stuck => store::BEHIND_STUCK.to_owned(),
                    _ => {
                        format!("Waiting for another operation ({kind}) on this {} to finish.", new.subject.kind_name())
                    }
                };
                if store::insert_waiting(tx, &new, &why).await? {
                    return Ok(Enqueued { id: new.id, waits: true });
                }
            }
        }
    }
}

/// The error for what must wait for this operation on its subject.
pub fn locked(subject: &Subject, kind: &str, operation: Uuid) -> Error {
    let subject = subject.kind_name();
    let message =
        format!("Another operation ({kind}) is in progress on this {subject}; wait for it to finish and try again.");
    Error::new(Code::Locked, message).with_details(json!({ "operationId": operation }))
}

fn row<D: Data>(new: NewOperation<D>) -> Result<NewRow> {
    let NewOperation { kind, subject, lane, account, data, user, deadline } = new;
    Ok(NewRow {
        id: Uuid::now_v7(),
        subject,
        lane,
        account,
        kind: kind.name,
        step: kind.first_step,
        data: serde_json::to_value(&data).map_err(Error::internal)?,
        version: D::VERSION,
        user,
        deadline,
    })
}

/// What became of an operation that nothing may prevent.
#[derive(Debug, Clone, Copy)]
pub struct Enqueued {
    /// The operation, or the one that runs instead.
    pub id: Uuid,
    /// Whether it waits for another one to end.
    pub waits: bool,
}
