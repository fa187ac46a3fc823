//! Places where tests make the engine fail: every boundary of every step. Release builds have none.
//!
//! A point is `kind:step:boundary`, where the boundary is `before` (the step has not run), `waiting` (the host is at
//! work on it and our database does not know yet), `acted` (it is done and our database does not know yet) or `saved`
//! (what it came to is in the database), each with `undo-` in front on the way back.

use std::str::FromStr;

/// The boundaries of a step, in the order in which they are passed.
pub const BOUNDARIES: [&str; 4] = ["before", "waiting", "acted", "saved"];

/// What happens at a point. Each fires once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The process is killed with SIGKILL.
    Kill,
    /// The step fails for good.
    Fail,
    /// The step panics.
    Panic,
    /// What the step did is forgotten, so it runs a second time.
    Repeat,
    /// It waits here until it is let go.
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

    /// The points that are armed.
    #[derive(Debug, Default)]
    pub struct Failpoints {
        armed: Mutex<HashMap<String, Action>>,
        go: Notify,
    }

    impl Failpoints {
        /// Reads `point=action` joined with `;`.
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

        /// Lets the one that is held, or will be held next, go on.
        pub fn let_go(&self) {
            self.go.notify_one();
        }

        /// Passes a point. A kill, a panic or a wait happens here; the rest is the caller's.
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

    /// Nothing: release builds have no failpoints.
    #[derive(Debug, Default)]
    pub struct Failpoints;

    impl Failpoints {
        /// Refuses any.
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
