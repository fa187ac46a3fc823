//! What the engine knows: its workflows and settings; and how an operation is put in.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::failpoints::Failpoints;
use super::store::{self, Known};
use super::workflow::{AnyWorkflow, Data};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::ids::{ServerId, UserId};

/// The engine's fixed parts.
#[derive(Debug)]
pub struct Engine {
    workflows: HashMap<&'static str, Box<dyn AnyWorkflow>>,
    /// Where tests make it fail.
    pub failpoints: Failpoints,
    /// This process, as lease owner.
    pub(super) owner: Uuid,
    pub(super) workers: usize,
    pub(super) lease: Duration,
    pub(super) undo_deadline: Duration,
}

/// An operation to be.
#[derive(Debug)]
pub struct NewOperation<D> {
    /// A workflow's name.
    pub kind: &'static str,
    /// On which server.
    pub server: ServerId,
    /// The workflow's first data.
    pub data: D,
    /// Who asked.
    pub user: Option<UserId>,
    /// How long its steps may take in all before it is undone.
    pub deadline: Duration,
}

impl Engine {
    pub(crate) fn new(config: &Config, workflows: Vec<Box<dyn AnyWorkflow>>) -> anyhow::Result<Self> {
        Ok(Self {
            workflows: workflows.into_iter().map(|w| (w.kind(), w)).collect(),
            failpoints: Failpoints::parse(&config.failpoints)?,
            owner: Uuid::new_v4(),
            workers: config.workers,
            lease: config.lease(),
            undo_deadline: Duration::from_secs(config.undo_deadline_seconds.into()),
        })
    }

    /// The workflow of a kind.
    pub fn workflow(&self, kind: &str) -> Option<&dyn AnyWorkflow> {
        self.workflows.get(kind).map(AsRef::as_ref)
    }

    /// What this process can work on.
    pub(super) fn known(&self) -> Known {
        Known {
            kinds: self.workflows.keys().map(ToString::to_string).collect(),
            versions: self.workflows.values().map(|workflow| workflow.version()).collect(),
        }
    }

    /// Puts an operation in, in the caller's transaction: it exists if and only if what it goes with does. Another
    /// operation on the same server gives `LOCKED` with its id.
    pub async fn enqueue<D: Data>(&self, tx: &mut PgConnection, new: NewOperation<D>) -> Result<Uuid> {
        let data = serde_json::to_value(&new.data).map_err(Error::internal)?;
        let first = self.workflow(new.kind).and_then(|w| w.steps().first().copied()).unwrap_or_default();
        let id = Uuid::now_v7();
        loop {
            if store::insert(tx, id, new.server, new.kind, first, &data, D::VERSION, new.user, new.deadline).await? {
                return Ok(id);
            }
            // The one that was in the way may have ended in between: then there is room.
            if let Some((holder, what)) = store::holder(tx, new.server).await? {
                return Err(Error::new(
                    Code::Locked,
                    format!("Another operation ({what}) is under way on this server; wait for its end and try again."),
                )
                .with_details(json!({ "operationId": holder })));
            }
        }
    }
}
