//! Notes as a part of the service.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use kernel::auth::AccessRow;
use kernel::core::Core;
use kernel::error::Result;
use kernel::feature::{BackgroundTask, Feature};
use kernel::ids::AccountId;
use kernel::operations::AnyWorkflow;
use kernel::subjects::SubjectKind;
use tokio::sync::Notify;
use utoipa_axum::router::OpenApiRouter;

use super::model::Note;
use super::{routes, workflow};

/// Notes that accounts leave and a task reads. They are kept in memory.
#[derive(Debug)]
pub struct Notes {
    pub(super) core: Arc<Core>,
    notes: Mutex<Vec<(AccountId, Note)>>,
    left: Notify,
    /// Whether the task is running.
    pub reading: AtomicBool,
}

impl Notes {
    pub fn new(core: &Arc<Core>) -> Arc<Self> {
        let (core, reading) = (Arc::clone(core), AtomicBool::new(false));
        Arc::new(Self { core, notes: Mutex::default(), left: Notify::new(), reading })
    }

    pub(super) fn of(&self, account: AccountId) -> Vec<Note> {
        self.all().iter().filter(|(by, _)| *by == account).map(|(_, note)| note.clone()).collect()
    }

    pub(super) fn leave(&self, by: AccountId, text: String) -> Note {
        let mut all = self.all();
        let id = all.last().map_or(1, |(_, note)| note.id + 1);
        let note = Note { id, text, pinned: false, read: false };
        all.push((by, note.clone()));
        drop(all);
        self.left.notify_one();
        note
    }

    pub(super) fn forget(&self, which: impl Fn(&Note) -> bool) {
        self.all().retain(|(_, note)| !which(note));
    }

    /// Whose note this is.
    pub(super) fn owner(&self, id: &str) -> Option<AccountId> {
        self.all().iter().find(|(_, note)| note.id.to_string() == id).map(|(by, _)| *by)
    }

    /// Changes a note, if it is still there.
    pub(super) fn change(&self, id: &str, change: impl Fn(&mut Note)) {
        self.all().iter_mut().filter(|(_, note)| note.id.to_string() == id).for_each(|(_, note)| change(note));
    }

    pub(super) fn all(&self) -> MutexGuard<'_, Vec<(AccountId, Note)>> {
        self.notes.lock().expect("nobody panics while holding it")
    }

    async fn read(&self) {
        self.reading.store(true, Ordering::Relaxed);
        while self.core.shutdown.run_until_cancelled(self.left.notified()).await.is_some() {
            for (_, note) in self.all().iter_mut().filter(|(_, note)| !note.read) {
                note.read = true;
                metrics::counter!("innkeeper_notes_read_total").increment(1);
            }
        }
        self.reading.store(false, Ordering::Relaxed);
    }
}

#[async_trait]
impl Feature for Notes {
    fn name(&self) -> &'static str {
        "notes"
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(self)
    }

    fn workflows(self: Arc<Self>) -> Vec<Box<dyn AnyWorkflow>> {
        vec![workflow::pin(&self)]
    }

    fn subjects(self: Arc<Self>) -> Vec<Arc<dyn SubjectKind>> {
        vec![self]
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    fn tasks(self: Arc<Self>) -> Vec<BackgroundTask> {
        vec![BackgroundTask::new("notes", async move { self.read().await })]
    }

    async fn upkeep(&self) -> Result<()> {
        self.forget(|note| note.read);
        Ok(())
    }

    fn describe(&self) {
        metrics::describe_counter!("innkeeper_notes_read_total", "Notes read.");
    }
}
