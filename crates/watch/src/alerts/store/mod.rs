//! The SQL of alerts.

mod incidents;
mod rules;
mod tell;
mod watch;

pub(super) use incidents::*;
pub(super) use rules::*;
pub(super) use tell::*;
pub(super) use watch::*;

type Result<T> = sqlx::Result<T>;
