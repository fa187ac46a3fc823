//! Business logic for the audit log: how entries begin and end, and who may read which.

use std::net::IpAddr;
use std::sync::PoisonError;

use uuid::Uuid;

use super::model::{AuditEntry, ListEntries, RefusedWrites};
use super::note::{NOTES, Notes};
use super::store;
use crate::auth::Caller;
use crate::core::Core;
use crate::db::is_missing_partition;
use crate::error::{Code, Error, Result};
use crate::ids::AccountId;
use crate::listing::{Window, list_error};
use crate::subjects::Subject;

/// Maximum number of refused writes per account and hour that are stored as entries. The others are only counted.
const KEPT: i64 = 20;

/// An action that is about to begin.
#[derive(Debug)]
pub(super) struct NewEntry<'a> {
    pub caller: Option<Caller>,
    pub address: IpAddr,
    pub request_id: Option<&'a str>,
    pub action: &'a str,
    pub subject: Option<&'a str>,
    pub subject_id: Option<String>,
    pub about: Option<Subject>,
}

/// An entry that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenEntry {
    pub id: Uuid,
}

/// The outcome of an action; empty if it was cut off before there was a response.
#[derive(Debug, Default)]
pub(super) struct EntryOutcome {
    pub status: Option<u16>,
    pub code: Option<Code>,
    pub subject_id: Option<String>,
    pub about: Option<Subject>,
    pub account: Option<AccountId>,
    pub reason: Option<String>,
    pub operation: Option<Uuid>,
}

impl EntryOutcome {
    /// Whether it is certain that nothing was done, and that this was no internal error.
    fn changed_nothing(&self) -> bool {
        let no_room = [Code::ResourceUnavailable, Code::HostUnreachable, Code::HostError];
        self.status.is_some_and(|status| (400..500).contains(&status))
            || self.code.is_some_and(|c| no_room.contains(&c))
    }
}

/// Begins an entry. If it can't be recorded, the action does not take place.
pub(super) async fn begin(core: &Core, deed: &NewEntry<'_>) -> Result<OpenEntry> {
    let role = deed.caller.as_ref().map_or("nobody", |caller| caller.audit_role());
    Ok(store::begin(&core.db, role, deed).await?)
}

/// Ends an entry. The action is done by now, so a failure to record its end only goes to the log.
pub(super) async fn end(core: &Core, begun: OpenEntry, end: &EntryOutcome) {
    keep(core, begun, end, end.changed_nothing()).await;
}

async fn keep(core: &Core, begun: OpenEntry, end: &EntryOutcome, counted: bool) {
    let write = async || match counted {
        true => store::refused(&core.db, begun, end, KEPT).await,
        false => store::end(&core.db, begun, end).await,
    };
    let written = match write().await {
        // The clock is months ahead of the janitor, or behind it.
        Err(error) if is_missing_partition(&error) => match store::create_partitions(&core.db).await {
            Ok(()) => write().await,
            failed => failed,
        },
        written => written,
    };
    if let Err(error) = written {
        tracing::error!(entry = %begun.id, %error, "cannot record the end of an audit entry");
    }
}

/// Runs a CLI command and records that it was run. `action` names it, without its arguments.
pub async fn command(core: &Core, action: &str, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let (subject, _) = action.split_once(' ').unwrap_or((action, ""));
    let begun = store::begin_command(&core.db, action, subject).await.map_err(Error::from)?;
    let notes = Notes::default();
    let result = NOTES.scope(Notes::clone(&notes), work).await;
    let known = notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let failed = result.as_ref().err();
    let failed = failed.map(|error| error.downcast_ref::<Error>().map_or(Code::Internal, |error| error.code));
    let ended = EntryOutcome {
        status: Some(failed.map_or(200, Code::status)),
        code: failed,
        subject_id: known.subject_id,
        account: known.account,
        reason: known.reason,
        ..EntryOutcome::default()
    };
    // The command line can't flood the log.
    keep(core, begun, &ended, false).await;
    result
}

/// The entries that the caller may see: all for staff; for a member of an account what was done for it, what the
/// provider and its reseller did to what it owns, and login attempts of its owner. Which of the provider's staff or the
/// reseller's members acted, and from where, is not shown.
pub async fn list(core: &Core, caller: &Caller, query: &ListEntries, window: Window) -> Result<(Vec<AuditEntry>, i64)> {
    window.check()?;
    let _turn = core.turns.take(caller.account).await?;
    let mine = caller.only_account();
    let owned = match mine {
        Some(account) => core.subjects().owned_by(account).await?.iter().map(ToString::to_string).collect(),
        None => vec![],
    };
    let (mut entries, total) = store::list(&core.db, mine, caller.reseller, caller.is_reseller, &owned, query, window)
        .await
        .map_err(list_error)?;
    let is_others = |entry: &AuditEntry| {
        let above = entry.role == "provider" || (entry.role == "reseller" && !caller.is_reseller);
        above || entry.account_id != mine
    };
    for entry in entries.iter_mut().filter(|entry| mine.is_some() && entry.role != "nobody" && is_others(entry)) {
        (entry.user_id, entry.token_id, entry.address, entry.request_id) = (None, None, None, None);
        entry.account_id = entry.account_id.filter(|_| entry.account_id == mine);
    }
    Ok((entries, total))
}

/// Number of refused writes by hour, user and account: all for staff; for a member of an account those for it.
pub async fn refusals(core: &Core, caller: &Caller, window: Window) -> Result<(Vec<RefusedWrites>, i64)> {
    window.check()?;
    let _turn = core.turns.take(caller.account).await?;
    let mine = caller.only_account();
    let (mut refused, total) = store::refusals(&core.db, mine, window).await.map_err(list_error)?;
    // Who acts for the account from above is not shown.
    for row in refused.iter_mut().filter(|_| mine.is_some()) {
        row.user_id = row.user_id.filter(|user| *user == caller.user);
    }
    Ok((refused, total))
}

/// The latest entries, for the command line.
pub async fn latest(core: &Core, limit: i64) -> Result<Vec<AuditEntry>> {
    Ok(store::list(&core.db, None, None, false, &[], &ListEntries::default(), Window::first(limit)).await?.0)
}

/// Creates partitions for the coming months, and deletes entries past the configured retention.
pub async fn upkeep(core: &Core) -> Result<()> {
    Ok(store::upkeep(&core.db, core.config.audit_days).await?)
}
