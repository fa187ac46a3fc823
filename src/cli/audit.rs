//! `innkeeper audit …`: the audit log.

use clap::Subcommand;
use innkeeper::run::Service;
use kernel::audit::model::AuditEntry;
use kernel::audit::service;

use super::output::{or_none, table, time};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the latest entries of the audit log, newest first
    List {
        /// Maximum number of entries
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
}

pub(super) async fn run(service: &Service, command: Command) -> anyhow::Result<()> {
    let Command::List { limit } = command;
    let entries = service::latest(&service.core, limit).await?;
    table(
        ["WHEN", "WHO", "FROM", "WHAT", "ON", "RESULT", "OPERATION", "REQUEST"],
        entries.into_iter().map(|e| {
            let on = [&e.subject, &e.subject_id].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ");
            let about = e.account_id.map(|id| format!(" (account {id})")).unwrap_or_default();
            [
                time(e.at),
                e.user_id.map_or_else(|| e.role.clone(), |id| format!("{} {id}", e.role)),
                or_none(e.address.as_ref()),
                e.action.clone(),
                on + &about,
                result(&e),
                or_none(e.operation_state.as_ref().map(|state| format!("{state:?}").to_lowercase())),
                or_none(e.request_id),
            ]
        }),
    );
    Ok(())
}

fn result(entry: &AuditEntry) -> String {
    match (&entry.code, entry.status, entry.ended_at) {
        (Some(code), ..) => code.clone(),
        (None, Some(status), _) => status.to_string(),
        (None, None, Some(_)) => "left".to_owned(),
        (None, None, None) => "not ended".to_owned(),
    }
}
