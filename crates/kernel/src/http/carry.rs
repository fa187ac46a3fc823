//! Request timeouts, and handlers that survive a disconnect: hyper drops a handler when its client is gone.
//!
//! A request that may change something runs to completion in its own task, even if no one waits for it any more; only
//! its response can be lost. A request that only reads is dropped, and its connection with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::task::AtomicWaker;
use futures_util::{StreamExt, stream};
use tracing::Instrument;

use super::patience::BodyDeadline;
use crate::core::Core;
use crate::dialect;
use crate::error::{Code, Error};

/// How long work may continue after its request has timed out: by then everything it waits for has hit a limit of its
/// own.
const REST: Duration = Duration::from_mins(5);
/// How long a handler may take to report that its body is not coming.
const REFUSAL: Duration = Duration::from_secs(1);

/// Times out a request and says whose fault it was: a body that did not arrive is the client's, who may send it again;
/// a request that arrived but is not done yet is ours, and may still be completed.
pub(super) async fn limit_time(State(core): State<Arc<Core>>, request: Request, next: Next) -> Response {
    let most = dialect::of(request.extensions()).time_limit(dialect::route(request.extensions()), &core.config);
    if let Some(due) = request.extensions().get::<BodyDeadline>() {
        due.extend(most.saturating_sub(Duration::from_secs(core.config.request_seconds.into())));
    }
    let gate = Arc::new(BodyGate::default());
    let safe = request.method().is_safe();
    let work = next.run(watched(request, &gate));
    if safe {
        return match tokio::time::timeout(most, work).await {
            Ok(response) => response,
            Err(_) => too_slow(),
        };
    }
    let whole = tokio::time::timeout(most + REST, work).in_current_span();
    let mut work = core.spawn(async { whole.await.unwrap_or_else(|_| too_slow()) });
    let ended = match tokio::time::timeout(most, &mut work).await {
        Ok(ended) => ended,
        // Nothing is in progress before the body has arrived: the handler ends, and so does its audit log entry.
        Err(_) if gate.shut() => match tokio::time::timeout(REFUSAL, work).await {
            Ok(ended) => ended,
            Err(_) => return too_slow(),
        },
        Err(_) => return too_slow(),
    };
    ended.unwrap_or_else(|error| Error::internal(error).into_response())
}

fn too_slow() -> Response {
    let error = Error::new(
        Code::TooSlow,
        "This took too long, and may still complete. Check whether it was done before you try again.",
    );
    Error { retry_after: Some(Duration::from_secs(10)), ..error }.into_response()
}

/// The error that a late body is cut off with.
#[derive(Debug, thiserror::Error)]
#[error("the request body did not arrive in time")]
pub(super) struct BodyTooLate;

/// Whether a request is waiting for its body, and whether it may keep waiting.
#[derive(Default)]
struct BodyGate {
    state: AtomicU8,
    reader: AtomicWaker,
}

const AWAITED: u8 = 1;
const SHUT: u8 = 2;

impl BodyGate {
    /// Accepts no more of a body that is being waited for. Returns false if nothing waits for one.
    fn shut(&self) -> bool {
        let shut = self.state.compare_exchange(AWAITED, SHUT, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if shut {
            self.reader.wake();
        }
        shut
    }

    fn is_shut(&self) -> bool {
        self.state.load(Ordering::SeqCst) == SHUT
    }

    /// Records whether the body is being waited for; returns false if it is too late for it.
    fn note(&self, awaited: bool) -> bool {
        let to = if awaited { AWAITED } else { 0 };
        let noted = self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| (now != SHUT).then_some(to));
        noted.is_ok()
    }
}

/// Passes the request's body through the gate.
fn watched(request: Request, gate: &Arc<BodyGate>) -> Request {
    let gate = Arc::clone(gate);
    request.map(|body| {
        if body.is_end_stream() {
            return body;
        }
        let mut body = body.into_data_stream();
        Body::from_stream(stream::poll_fn(move |cx| {
            gate.reader.register(cx.waker());
            if gate.is_shut() {
                return std::task::Poll::Ready(Some(Err(axum::Error::new(BodyTooLate))));
            }
            let polled = body.poll_next_unpin(cx);
            match gate.note(polled.is_pending()) {
                true => polled,
                false => std::task::Poll::Ready(Some(Err(axum::Error::new(BodyTooLate)))),
            }
        }))
    })
}
