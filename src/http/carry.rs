//! How long a request may take, and that what it began is not cut off: hyper drops a handler whose client has left.
//!
//! What may change something runs to its end in a task of its own, whoever waits for it; only its answer can be lost.
//! What only reads is dropped, and its connection with it.

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

use crate::core::Core;
use crate::error::{Code, Error};

/// How long work goes on after its request has been answered for it: by then whatever waits has its own limit.
const REST: Duration = Duration::from_mins(5);
/// How long a handler may take to say that its body is not coming.
const REFUSAL: Duration = Duration::from_secs(1);

/// Gives up on a request after a while, and says whose fault it was: a body that did not arrive is the client's, who
/// may send it again; one that arrived and is not done is ours, and may be done yet.
pub(super) async fn carry(State(core): State<Arc<Core>>, request: Request, next: Next) -> Response {
    let most = Duration::from_secs(core.config.request_seconds.into());
    let gate = Arc::new(Gate::default());
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
        // Nothing is at hand before the body is there: the handler ends, and so does the entry of the audit log.
        Err(_) if gate.shut() => match tokio::time::timeout(REFUSAL, work).await {
            Ok(ended) => ended,
            Err(_) => return too_slow(),
        },
        Err(_) => return too_slow(),
    };
    ended.unwrap_or_else(|error| Error::internal(error).into_response())
}

fn too_slow() -> Response {
    let error =
        Error::new(Code::TooSlow, "We did not get this done in time. Look whether it was done before you try again.");
    Error { retry_after: Some(Duration::from_secs(10)), ..error }.into_response()
}

/// What a body that came too late is cut off with.
#[derive(Debug, thiserror::Error)]
#[error("the request's body did not arrive in time")]
pub(super) struct Late;

/// Whether a request waits for its body, and whether it may go on waiting.
#[derive(Default)]
struct Gate {
    state: AtomicU8,
    reader: AtomicWaker,
}

const AWAITED: u8 = 1;
const SHUT: u8 = 2;

impl Gate {
    /// Takes no more of a body that is waited for. False where nobody waits for any.
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

    /// Notes whether the body is waited for; false where it is too late for it.
    fn note(&self, awaited: bool) -> bool {
        let to = if awaited { AWAITED } else { 0 };
        let noted = self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| (now != SHUT).then_some(to));
        noted.is_ok()
    }
}

/// The request with a body that the gate knows of.
fn watched(request: Request, gate: &Arc<Gate>) -> Request {
    let gate = Arc::clone(gate);
    request.map(|body| {
        if body.is_end_stream() {
            return body;
        }
        let mut body = body.into_data_stream();
        Body::from_stream(stream::poll_fn(move |cx| {
            gate.reader.register(cx.waker());
            if gate.is_shut() {
                return std::task::Poll::Ready(Some(Err(axum::Error::new(Late))));
            }
            let polled = body.poll_next_unpin(cx);
            match gate.note(polled.is_pending()) {
                true => polled,
                false => std::task::Poll::Ready(Some(Err(axum::Error::new(Late)))),
            }
        }))
    })
}
