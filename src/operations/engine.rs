//! The engine's settings, and how an operation is enqueued.

use std::time::Duration;

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::failpoints::Failpoints;
use super::model::State;
use super::store::{self, InTheWay, NewRow};
use super::workflow::{Data, Kind};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::ids::{ServerId, UserId};

/// The engine's settings, and the way to enqueue.
#[derive(Debug)]
pub struct Engine {
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
    /// Which workflow.
    pub kind: Kind,
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
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            failpoints: Failpoints::parse(&config.failpoints)?,
            owner: Uuid::new_v4(),
            workers: config.workers,
            lease: config.lease(),
            undo_deadline: Duration::from_secs(config.undo_deadline_seconds.into()),
        })
    }

    /// Puts an operation in, in the caller's transaction: it exists if and only if what it goes with does. Another
    /// operation on the same server, at work or next, gives `LOCKED` with its id.
    pub async fn enqueue<D: Data>(&self, tx: &mut PgConnection, new: NewOperation<D>) -> Result<Uuid> {
        let new = row(new)?;
        loop {
            if store::insert(tx, &new).await? {
                return Ok(new.id);
            }
            // The one that was in the way may have ended in between: then there is room.
            if let Some(InTheWay { id, kind, .. }) = store::holder(tx, new.server).await? {
                return Err(Error::new(
                    Code::Locked,
                    format!("Another operation ({kind}) is under way on this server; wait for its end and try again."),
                )
                .with_details(json!({ "operationId": id })));
            }
        }
    }

    /// The same for what nobody may keep from happening: where another operation is at work on the server, this one is
    /// next, and nothing else is taken on before it. One waits at a time: of the kinds in `instead_of` this one takes
    /// the place, any other is left to happen instead of this one.
    pub async fn enqueue_behind<D: Data>(
        &self,
        tx: &mut PgConnection,
        new: NewOperation<D>,
        instead_of: &[&str],
    ) -> Result<Placed> {
        let new = row(new)?;
        loop {
            if let Some(InTheWay { id, kind, .. }) = store::waiting(tx, new.server).await? {
                if kind == new.kind || !instead_of.contains(&kind.as_str()) {
                    return Ok(Placed { id, waits: true });
                }
                store::replace(tx, id, &format!("Another operation ({}) was asked for in its place.", new.kind))
                    .await?;
            }
            if store::insert(tx, &new).await? {
                return Ok(Placed { id: new.id, waits: false });
            }
            if let Some(InTheWay { kind, state, .. }) = store::holder(tx, new.server).await? {
                let why = match state {
                    State::Stuck => store::BEHIND_STUCK.to_owned(),
                    _ => format!("It waits for the end of another operation ({kind}) on this server."),
                };
                if store::insert_waiting(tx, &new, &why).await? {
                    return Ok(Placed { id: new.id, waits: true });
                }
            }
        }
    }
}

fn row<D: Data>(new: NewOperation<D>) -> Result<NewRow> {
    let NewOperation { kind, server, data, user, deadline } = new;
    let data = serde_json::to_value(&data).map_err(Error::internal)?;
    let Kind { name, first_step } = kind;
    Ok(NewRow { id: Uuid::now_v7(), server, kind: name, step: first_step, data, version: D::VERSION, user, deadline })
}

/// Where an operation was put that nobody may keep from happening.
#[derive(Debug, Clone, Copy)]
pub struct Placed {
    /// The operation, or the one that happens instead.
    pub id: Uuid,
    /// Whether it waits for another one's end.
    pub waits: bool,
}
