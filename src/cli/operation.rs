//! `innkeeper operation …`: operations that require manual intervention.

use clap::Subcommand;
use innkeeper::run::Service;
use kernel::audit;
use kernel::idempotency::Once;
use kernel::listing::Window;
use kernel::operations::model::OperationView;
use kernel::operations::service;
use uuid::Uuid;

use super::output::{plain, table, time};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the stuck operations
    List,
    /// Show an operation's log
    Log {
        /// Id of the operation
        id: Uuid,
    },
    /// Retry a stuck operation, after fixing the cause
    Retry {
        /// Id of the operation
        id: Uuid,
    },
    /// Abandon a stuck operation: it is not continued, and nothing is undone
    Abandon {
        /// Id of the operation
        id: Uuid,
    },
}

pub(super) async fn run(service: &Service, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List => {
            let reason = |o: &OperationView| {
                o.error.as_ref().map(|e| e.detail.as_ref().unwrap_or(&e.message).clone()).unwrap_or_default()
            };
            let mut rows = vec![];
            for page in 0.. {
                let (some, _) = service::stuck(&service.core, Window { limit: 100, offset: page * 100 }).await?;
                if some.is_empty() {
                    break;
                }
                rows.extend(some);
            }
            table(
                ["ID", "SUBJECT", "KIND", "STEP", "SINCE", "ERROR"],
                rows.iter().map(|o| {
                    let since = time(o.created_at);
                    [o.id.to_string(), o.subject.to_string(), o.kind.clone(), o.step.clone(), since, plain(&reason(o))]
                }),
            );
        }
        Command::Log { id } => {
            for line in service::log(&service.core, id).await? {
                println!("{} {:5} {} {}", time(line.at), line.level, line.step, plain(&line.message));
            }
        }
        Command::Retry { id } => {
            audit::subject(id);
            service::retry(&service.features.operations, &Once::default(), id).await?;
            println!("Operation {id} will be retried.");
        }
        Command::Abandon { id } => {
            audit::subject(id);
            service::abandon(&service.features.operations, &Once::default(), id).await?;
            println!("Operation {id} has been abandoned; the next sweep updates its server.");
        }
    }
    Ok(())
}

/// Declares that the database was restored.
pub(super) async fn declare_restored(service: &Service) -> anyhow::Result<()> {
    let held = kernel::restores::service::declare_restored(&service.core).await?;
    println!("Operations that were in progress and are now stuck: {held} (innkeeper operation list).");
    println!("Queued emails are held as well (innkeeper mail list).");
    Ok(())
}
