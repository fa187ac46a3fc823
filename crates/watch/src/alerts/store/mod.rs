//! The SQL of alerts.

mod incidents;
mod notify;
mod rules;
mod watch;

pub(super) use incidents::*;
pub(super) use notify::*;
pub(super) use rules::*;
pub(super) use watch::*;

type Result<T> = sqlx::Result<T>;
