//! Servers as subjects of operations, scopes and audit entries.

use std::time::Duration;

use kernel::auth::Caller;
use kernel::error::Error;
use kernel::operations::{Context, Fault, FaultKind, NewOperation, WorkflowKind};
use kernel::subjects::Subject;

use super::model::ServerRecord;
use crate::hosts::lane;
use crate::ids::{ServerId, UserId};

/// The kind of servers as subjects.
pub const KIND: &str = "server";

/// A server as a subject.
pub fn subject(server: ServerId) -> Subject {
    Subject::new(KIND, server)
}

/// The only servers that a caller's token covers, or none if it covers all of the account's.
pub fn only(caller: &Caller) -> Option<Vec<i64>> {
    caller.scopes.only(KIND).map(|ids| ids.iter().filter_map(|id| id.parse().ok()).collect())
}

/// The server that an operation works on. A step of a server's workflow on anything else is a bug.
pub fn server_of(ctx: &Context<'_>) -> Result<ServerId, Fault> {
    let unexpected = || Fault::from(Error::internal(anyhow::anyhow!("{} is not a server", ctx.subject)));
    ctx.subject.number(KIND).map(ServerId).ok_or_else(|| unexpected().with_kind(FaultKind::Stuck))
}

/// An operation on a server, in the lane of its host, at its owner's turn.
pub fn operation<D>(
    server: &ServerRecord,
    kind: WorkflowKind,
    data: D,
    user: impl Into<Option<UserId>>,
    deadline: Duration,
) -> NewOperation<D> {
    NewOperation {
        kind,
        subject: subject(server.id),
        lane: lane(server.host_id),
        account: Some(server.account_id),
        data,
        user: user.into(),
        deadline,
    }
}
