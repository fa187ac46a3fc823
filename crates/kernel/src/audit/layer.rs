//! The middleware that begins and ends audit entries.

use std::sync::{Arc, PoisonError};

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use tower_http::request_id::RequestId;
use uuid::Uuid;

use super::note::{NOTES, Notes};
use super::service::{self, EntryOutcome, NewEntry, OpenEntry};
use crate::auth::ClientAddress;
use crate::core::Core;
use crate::dialect;
use crate::error::Error;
use crate::http::auth::RequestIdentity;
use crate::subjects::{CONTRACT_KIND, Subject};

/// The largest response that is parsed for the ids of created objects.
const ANSWER: usize = 256 * 1024;

/// Records a request that may change something. An unauthenticated request to a route that needs authentication can
/// change nothing, and is not recorded: anonymous clients must not be able to fill the log.
pub async fn watch(State(core): State<Arc<Core>>, request: Request, next: Next) -> Response {
    let dialect = dialect::of(request.extensions());
    let route = request.extensions().get::<MatchedPath>().filter(|_| !request.method().is_safe());
    let Some(route) = route.map(|path| path.as_str().to_owned()) else { return next.run(request).await };
    let action = format!("{} {route}", request.method());
    let caller = match request.extensions().get::<RequestIdentity>() {
        Some(RequestIdentity::Somebody(caller)) => Some(caller.clone()),
        _ if dialect.is_open(&action) => None,
        _ => return next.run(request).await,
    };
    let (subject, subject_id) = dialect.subject(&route, request.uri().path());
    let kind = subject.unwrap_or_default();
    let about = |id: &str| core.subjects().at(kind, id);
    let deed = NewEntry {
        caller,
        address: ClientAddress::of(request.extensions(), request.headers(), &core).0,
        request_id: request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok()),
        action: &action,
        subject,
        about: subject_id.as_deref().and_then(about),
        subject_id,
    };
    let begun = match service::begin(&core, &deed).await {
        Ok(begun) => begun,
        Err(error) => return error.into_response(),
    };
    let unanswered = EntryGuard(Some((Arc::clone(&core), begun)));
    let notes = Notes::default();
    let response = NOTES.scope(Arc::clone(&notes), next.run(request)).await;
    let (response, made) = read_answer(response).await;
    let known = notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let id = made.id.as_ref().map(plain);
    let end = EntryOutcome {
        status: Some(response.status().as_u16()),
        code: response.extensions().get::<Arc<Error>>().map(|error| error.code),
        about: made.about(&core).or_else(|| about(id.as_deref()?)),
        subject_id: known.subject_id.or(id),
        account: known.account,
        reason: known.reason,
        operation: made.operation(),
    };
    unanswered.answered(end).await;
    response
}

/// An entry whose request has no response yet. If it is dropped, the entry still ends.
struct EntryGuard(Option<(Arc<Core>, OpenEntry)>);

impl EntryGuard {
    async fn answered(mut self, end: EntryOutcome) {
        if let Some((core, begun)) = self.0.take() {
            service::end(&core, begun, &end).await;
        }
    }
}

impl Drop for EntryGuard {
    fn drop(&mut self) {
        let (Some((core, begun)), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else { return };
        runtime.spawn(async move { service::end(&core, begun, &EntryOutcome::default()).await });
    }
}

/// The ids of created objects in a response. It may hold secrets, which are not read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreatedIds {
    id: Option<Value>,
    subject: Option<Value>,
    server_id: Option<Value>,
    operation_id: Option<Value>,
}

impl CreatedIds {
    /// What the answer says that it is about: an operation its subject, other answers the server that they belong to.
    fn about(&self, core: &Core) -> Option<Subject> {
        let named = self.subject.as_ref().and_then(Value::as_str).and_then(|text| text.parse::<Subject>().ok());
        let known = |subject: Subject| core.subjects().subject(&subject.kind, &subject.id);
        named.and_then(known).or_else(|| core.subjects().subject(CONTRACT_KIND, &plain(self.server_id.as_ref()?)))
    }

    fn operation(&self) -> Option<Uuid> {
        self.operation_id.as_ref().and_then(Value::as_str).and_then(|id| id.parse().ok())
    }
}

async fn read_answer(response: Response) -> (Response, CreatedIds) {
    let json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    let small = response.body().size_hint().exact().is_some_and(|size| size <= ANSWER as u64);
    if !response.status().is_success() || !json || !small {
        return (response, CreatedIds::default());
    }
    let (parts, body) = response.into_parts();
    match to_bytes(body, ANSWER).await {
        Ok(bytes) => {
            let made = serde_json::from_slice(&bytes).unwrap_or_default();
            (Response::from_parts(parts, Body::from(bytes)), made)
        }
        Err(error) => (Error::internal(error).into_response(), CreatedIds::default()),
    }
}

fn plain(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}
