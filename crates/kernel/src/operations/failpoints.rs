//! Points where tests make the engine fail: every boundary of every step. Release builds have none.
//!
//! A point is `kind:step:boundary`, where the boundary is `before` (the step has not run), `waiting` (the host is
//! working on it and our database does not know yet), `acted` (it is done and our database does not know yet) or
//! `saved` (the outcome is in the database), each with the prefix `undo-` while undoing.

use std::str::FromStr;

/// The boundaries of a step, in the order they are passed.
pub const BOUNDARIES: [&str; 4] = ["before", "waiting", "acted", "saved"];

/// What happens at a point. Each fires once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The process is killed with SIGKILL.
    Kill,
    /// The step fails permanently.
    Fail,
    /// The step panics.
    Panic,
    /// The outcome of the step is discarded, so it runs a second time.
    Repeat,
    /// The operation waits here until it is released.
    Hold,
}

impl FromStr for Action {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "kill" => Ok(Self::Kill),
            "fail" => Ok(Self::Fail),
            "panic" => Ok(Self::Panic),
            "repeat" => Ok(Self::Repeat),
            "hold" => Ok(Self::Hold),
            _ => anyhow::bail!("a failpoint's action is kill, fail, panic, repeat or hold, not {text:?}"),
        }
    }
}

#[cfg(debug_assertions)]
mod imp {
    use std::collections::HashMap;
    use std::sync::{Mutex, PoisonError};

    use tokio::sync::Notify;

    use super::Action;

    /// The armed points.
    #[derive(Debug, Default)]
    pub struct Failpoints {
        armed: Mutex<HashMap<String, Action>>,
        go: Notify,
    }

    impl Failpoints {
        /// Parses `point=action` entries joined with `;`.
        pub fn parse(text: &str) -> anyhow::Result<Self> {
            let points = Self::default();
            for entry in text.split(';').map(str::trim).filter(|e| !e.is_empty()) {
                let (point, action) = entry
                    .split_once('=')
                    .ok_or_else(|| anyhow::anyhow!("a failpoint is kind:step:boundary=action, not {entry:?}"))?;
                points.arm(point, action.parse()?);
            }
            Ok(points)
        }

        /// Arms a point.
        pub fn arm(&self, point: &str, action: Action) {
            self.armed.lock().unwrap_or_else(PoisonError::into_inner).insert(point.to_owned(), action);
        }

        /// Whether every armed point has fired.
        pub fn all_fired(&self) -> bool {
            self.armed.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
        }

        /// Releases the operation that is held, or the next one to be held.
        pub fn let_go(&self) {
            self.go.notify_one();
        }

        /// Passes a point. Kill, panic and hold happen here; the rest is up to the caller.
        #[allow(clippy::panic, reason = "that is what the point is for")]
        pub(in crate::operations) async fn pass(
            &self,
            kind: &str,
            step: &str,
            undo: bool,
            boundary: &str,
        ) -> Option<Action> {
            let point = format!("{kind}:{step}:{}{boundary}", if undo { "undo-" } else { "" });
            let action = self.armed.lock().unwrap_or_else(PoisonError::into_inner).remove(&point)?;
            tracing::warn!(point, ?action, "failpoint");
            match action {
                Action::Kill => {
                    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                    std::process::abort()
                }
                Action::Panic => panic!("failpoint {point}"),
                Action::Hold => {
                    self.go.notified().await;
                    None
                }
                Action::Fail | Action::Repeat => Some(action),
            }
        }
    }
}

#[cfg(not(debug_assertions))]
mod imp {
    use super::Action;

    /// Empty: release builds have no failpoints.
    #[derive(Debug, Default)]
    pub struct Failpoints;

    impl Failpoints {
        /// Rejects any failpoint.
        pub fn parse(text: &str) -> anyhow::Result<Self> {
            anyhow::ensure!(text.is_empty(), "INNKEEPER_FAILPOINTS is for debug builds only");
            Ok(Self)
        }

        #[allow(clippy::unused_self, clippy::unused_async)]
        #[inline]
        pub(in crate::operations) async fn pass(&self, _: &str, _: &str, _: bool, _: &str) -> Option<Action> {
            None
        }
    }
}

pub use imp::Failpoints;
