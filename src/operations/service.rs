//! Operations as they are looked at, waited for and taken up again.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::model::OperationView;
use super::store;
pub use super::store::LogLine;
use super::{OPERATION_CHANGED, Operations};
use crate::auth::Caller;
use crate::auth::Level;
use crate::core::Core;
use crate::db;
use crate::error::{Code, Error, Result};
use crate::http::page::PageQuery;
use crate::idempotency::{Begun, Once};
use crate::ids::ServerId;
use crate::keyring::Resealed;
use crate::secrets::SealedBy;

/// One operation, without the provider's detail; for whoever may see its server, which the caller has checked.
pub async fn view(core: &Core, id: Uuid) -> Result<Option<OperationView>> {
    Ok(store::get(&core.db, id).await?.map(|row| row.view(false)))
}

/// Several operations, likewise, in one look.
pub async fn views(core: &Core, ids: &[Uuid]) -> Result<Vec<OperationView>> {
    if ids.is_empty() {
        return Ok(vec![]);
    }
    Ok(store::some(&core.db, ids).await?.into_iter().map(|row| row.view(false)).collect())
}

/// The operation that holds a server now, likewise.
pub async fn active(core: &Core, server: ServerId) -> Result<Option<OperationView>> {
    Ok(store::active(&core.db, server).await?.map(|row| row.view(false)))
}

/// One operation, for someone who asks for it: 404 unless they may see its server.
pub async fn get(operations: &Operations, caller: &Caller, id: Uuid) -> Result<OperationView> {
    let unknown = || Error::not_found("operation");
    let row = store::get(&operations.core.db, id).await?.ok_or_else(unknown)?;
    // The history of a server outlives it.
    operations.subjects.authorize(caller, &row.subject(), Level::Read).await.map_err(|e| match e.code {
        Code::NotFound => unknown(),
        _ => e,
    })?;
    Ok(row.view(caller.is_provider()))
}

/// A server's operations, newest first, and how many there are in all.
pub async fn of_server(
    core: &Core,
    caller: &Caller,
    server: ServerId,
    page: PageQuery,
) -> Result<(Vec<OperationView>, i64)> {
    page.check()?;
    let _turn = core.turns.take(caller.user).await?;
    let rows = store::of_server(&core.db, server, page.size(), page.offset()).await?;
    let total = store::count_of_server(&core.db, server).await?;
    Ok((rows.into_iter().map(|row| row.view(caller.is_provider())).collect(), total))
}

/// An operation's log, its last thousand lines, for the provider.
pub async fn log(core: &Core, id: Uuid) -> Result<Vec<LogLine>> {
    store::get(&core.db, id).await?.ok_or_else(|| Error::not_found("operation"))?;
    Ok(store::log_lines(&core.db, id).await?)
}

/// Operations that wait for a person, oldest first, and how many there are in all.
pub async fn stuck(core: &Core, page: PageQuery) -> Result<(Vec<OperationView>, i64)> {
    let rows = store::stuck(&core.db, page.size(), page.offset()).await?;
    Ok((rows.into_iter().map(|row| row.view(true)).collect(), store::count_stuck(&core.db).await?))
}

/// Takes a stuck operation up again where it stopped, after a person has put right what was in its way.
pub async fn retry(operations: &Operations, once: &Once, id: Uuid) -> Result<OperationView> {
    let core = &operations.core;
    let mut tx = match once.begin(core).await? {
        Begun::New(tx) => tx,
        Begun::Done(answer) => return Ok(answer),
    };
    let deadline = Duration::from_secs(core.config.operation_deadline_seconds.into());
    let (kind, step, place) = store::place(&mut tx, id).await?.ok_or_else(|| Error::not_found("operation"))?;
    // Where another version had its steps elsewhere, a person says that it may go on at the one of the same name.
    let here = operations.workflow(&kind).and_then(|w| w.steps().iter().position(|name| *name == step));
    let place = here.and_then(|index| i32::try_from(index).ok()).unwrap_or(place);
    let taken_up = store::unstick(&mut tx, id, place, deadline, core.engine.undo_deadline).await?;
    let row = store::get(&mut *tx, id).await?.ok_or_else(|| Error::not_found("operation"))?;
    if !taken_up {
        return Err(Error::new(Code::Conflict, "Only a stuck operation can be taken up again."));
    }
    store::log(&mut tx, id, "info", "", "taken up again by the provider").await?;
    tx.finish(core, row.view(true)).await
}

/// Ends a stuck operation as it stands: nothing more is done, and nothing is taken back. Its server shows what the next
/// sweep finds.
pub async fn abandon(operations: &Operations, once: &Once, id: Uuid) -> Result<OperationView> {
    let core = &operations.core;
    let mut tx = match once.begin(core).await? {
        Begun::New(tx) => tx,
        Begun::Done(answer) => return Ok(answer),
    };
    let unknown = || Error::not_found("operation");
    let subject = store::get(&mut *tx, id).await?.ok_or_else(unknown)?.subject();
    // The subject before its operation, as everywhere.
    operations.subjects.kind(&subject.kind)?.abandoned(&mut tx, &subject.id).await?;
    if store::abandon(&mut tx, id).await?.is_none() {
        return Err(Error::new(Code::Conflict, "Only a stuck operation can be given up."));
    }
    store::log(&mut tx, id, "info", "", "given up by the provider").await?;
    let row = store::get(&mut *tx, id).await?.ok_or_else(unknown)?;
    tx.finish(core, row.view(true)).await
}

/// Puts everything that is under way into a person's hands: the database is an older state of itself, of that time.
pub(crate) async fn hold_all(tx: &mut PgConnection, to: Option<DateTime<Utc>>) -> Result<u64> {
    let to =
        to.map_or_else(|| "of an unknown time".to_owned(), |at| format!("of {}", at.format("%Y-%m-%d %H:%M:%S UTC")));
    let message = "The provider's database was restored from a backup while this was under way. It waits until the provider \
                   has looked at the server.";
    let detail = format!(
        "The database was restored to its state {to}. What was done since then, by this operation too, it does not know. \
         Look at the guest; then take the operation up again (innkeeper operation retry) or give it up (innkeeper \
         operation abandon)."
    );
    Ok(store::hold_all(tx, message, &detail).await?)
}

/// How an operation stands after waiting for it a little.
#[derive(Debug)]
pub struct Progress {
    /// As the API shows it.
    pub view: OperationView,
    /// The host's own id of its latest task.
    pub host_task: Option<String>,
}

/// Waits until `enough` says so, or until `at_most` has passed, and tells how the operation stands then.
pub async fn wait(core: &Core, id: Uuid, at_most: Duration, enough: impl Fn(&Progress) -> bool) -> Result<Progress> {
    let mut events = core.events.subscribe();
    let until = tokio::time::Instant::now() + at_most;
    loop {
        let row = store::get(&core.db, id).await?.ok_or_else(|| Error::not_found("operation"))?;
        let progress = Progress { host_task: row.host_task.clone(), view: row.view(false) };
        if enough(&progress) {
            return Ok(progress);
        }
        let changed = async { while events.next_of(&OPERATION_CHANGED).await.is_some_and(|changed| changed != id) {} };
        // The poll is for a process that can't hear events at the moment.
        let poll = tokio::time::sleep(Duration::from_millis(500));
        tokio::select! {
            () = changed => {}
            () = poll => {}
            () = tokio::time::sleep_until(until) => return Ok(progress),
        }
    }
}

/// How long an operation that this version does not know is left to other processes.
const STRANDED: Duration = Duration::from_mins(10);

/// Tells the provider of operations that nobody takes because this version does not know their kind or data: a newer
/// version has begun them. They hold their servers.
pub async fn strand(operations: &Operations) -> Result<()> {
    let core = &operations.core;
    let mut tx = db::begin(&core.db).await?;
    let detail = "no process of a version that knows this kind of operation has come for ten minutes: start the version \
                  that began it, then retry";
    let message = "Nobody is working on this; the provider is told.";
    let known = operations.known();
    let stranded = store::strand(&mut tx, &known, STRANDED, Code::Internal.as_str(), message, detail).await?;
    for (id, _) in &stranded {
        store::log(&mut tx, *id, "error", "", detail).await?;
    }
    tx.commit().await?;
    for (id, kind) in stranded {
        metrics::counter!("innkeeper_operations_total", "kind" => kind.clone(), "state" => "stuck").increment(1);
        tracing::error!(operation = %id, kind, detail, "an operation is stuck: a person must look");
    }
    Ok(())
}

/// Seals secrets in operations' data that an old key sealed with the master key. Those that somebody is at work with
/// stay: their old data would be written back.
pub async fn reseal(operations: &Operations, change: bool) -> Result<Resealed> {
    let core = &operations.core;
    let mut count = Resealed::default();
    for id in store::open_ids(&core.db).await? {
        let mut tx = db::begin(&core.db).await?;
        let Some((kind, mut data, leased)) = store::data(&mut tx, id).await? else { continue };
        let Some(workflow) = operations.workflow(&kind) else { continue };
        // What this version can't read it can't seal either; its operation is stuck, or a newer version's.
        let Ok(secrets) = workflow.reseal(&core.sealer, &mut data) else { continue };
        let done = change && !leased && secrets.iter().any(|by| matches!(by, SealedBy::Old(_)));
        if done {
            store::set_data(&mut tx, id, &data).await?;
        }
        tx.commit().await?;
        for by in &secrets {
            count.add(by, done);
        }
    }
    Ok(count)
}

/// Forgets what operations said a year ago.
pub async fn purge(core: &Core) -> Result<()> {
    Ok(store::purge_log(&core.db).await?)
}
