//! Transport: requests and answers, and errors that a caller can act on.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hypervisor::rows::OddLists;
use hypervisor::{Error, Result};
use reqwest::{Method, RequestBuilder, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::IncusConfig;
use crate::api::{Envelope, IncusOperation, PoolResources, PoolSpace};

/// The answer to a mutation.
#[derive(Debug)]
pub(crate) enum Reply {
    Done,
    /// A background operation was started.
    Operation(IncusOperation),
}

/// The connection to one Incus server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    pub(crate) config: Arc<IncusConfig>,
    /// The instances that the last sweep could not read.
    pub(crate) unreadable: Arc<Mutex<HashSet<String>>>,
    /// The other lists that had unreadable rows the last time.
    pub(crate) odd_lists: OddLists,
}

impl Client {
    pub(crate) fn new(config: IncusConfig) -> Result<Self> {
        for (what, text) in [("project", &config.project), ("storage pool", &config.storage_pool)] {
            if text.is_empty() || text.chars().any(|c| c.is_control() || matches!(c, '/' | '?' | '&' | '#' | ' ')) {
                return Err(Error::Invalid(format!("{text:?} is not a valid {what} name")));
            }
        }
        // reqwest sets up TLS even for a unix socket, and panics if no provider is installed. It doesn't matter if
        // another thread installs one first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .unix_socket(config.socket.as_path())
            .connect_timeout(Duration::from_secs(config.connect_timeout_s.max(1)))
            .timeout(Duration::from_secs(config.request_timeout_s.max(1)))
            // A kept connection may be dead, and then nobody can tell whether the request was received; a new one on a
            // unix socket costs microseconds. A pool also opens connections now and then without using them at once:
            // Incus reads the first byte of a connection before it accepts the next (to detect TLS), so one silent
            // client blocks the whole daemon.
            .pool_max_idle_per_host(0)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| Error::Invalid(format!("can't create an HTTP client: {e}")))?;
        Ok(Self { http, config: Arc::new(config), unreadable: Arc::default(), odd_lists: OddLists::default() })
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.config.request_timeout_s.max(1))
    }

    /// `/1.0/<segments>?project=<ours>&<query>`; every segment is encoded.
    pub(crate) fn url(&self, segments: &[&str], query: &[(&str, &str)]) -> Result<Url> {
        Self::url_in(&self.config.project, segments, query)
    }

    fn url_in(project: &str, segments: &[&str], query: &[(&str, &str)]) -> Result<Url> {
        let mut url = Url::parse("http://incus/1.0").map_err(|e| Error::Failed(e.to_string()))?;
        if segments.iter().any(|s| s.is_empty() || *s == "." || *s == "..") {
            return Err(Error::Invalid("an empty or relative name".to_owned()));
        }
        url.path_segments_mut().map_err(|()| Error::Failed("no base URL".to_owned()))?.extend(segments);
        url.query_pairs_mut().append_pair("project", project).extend_pairs(query);
        Ok(url)
    }

    /// For callers with their own bodies and headers (files).
    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, segments: &[&str], query: &[(&str, &str)]) -> Result<T> {
        let envelope = self.call(Method::GET, segments, query, None, None).await?;
        serde_json::from_value(envelope.metadata).map_err(|e| Error::Failed(format!("invalid response: {e}")))
    }

    /// Something of the server itself, which only its own project shows, and not to every certificate.
    pub(crate) async fn get_of_server<T: DeserializeOwned>(&self, segments: &[&str]) -> Result<T> {
        let response = self.request(Method::GET, Self::url_in("default", segments, &[])?).send().await;
        let response = response.map_err(|e| transport(&e, false))?;
        let status = response.status().as_u16();
        let envelope = envelope(status, &response.bytes().await.map_err(|e| transport(&e, false))?)?;
        serde_json::from_value(envelope.metadata).map_err(|e| Error::Failed(format!("invalid response: {e}")))
    }

    /// `None` where it is missing.
    pub(crate) async fn get_opt<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Option<T>> {
        match self.get(segments, query).await {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn send(&self, method: Method, segments: &[&str], body: Option<&Value>) -> Result<Reply> {
        let envelope = self.call(method, segments, &[], body, None).await?;
        if envelope.kind != "async" {
            return Ok(Reply::Done);
        }
        let operation = serde_json::from_value(envelope.metadata).map_err(|e| {
            // It has begun, but without its id nobody can follow it.
            Error::OutcomeUnknown(format!("operation {} could not be read: {e}", envelope.operation))
        })?;
        Ok(Reply::Operation(operation))
    }

    /// Waits for an operation's end, for `limit` at most, and returns its state then.
    pub(crate) async fn wait(&self, id: &str, limit: Duration) -> Result<IncusOperation> {
        let seconds = limit.as_secs().max(1).to_string();
        let patience = limit + self.timeout();
        let envelope =
            self.call(Method::GET, &["operations", id, "wait"], &[("timeout", &seconds)], None, Some(patience)).await?;
        serde_json::from_value(envelope.metadata).map_err(|e| Error::Failed(format!("invalid operation: {e}")))
    }

    /// For small changes: the caller sees one call.
    pub(crate) async fn send_and_wait(&self, method: Method, segments: &[&str], body: Option<&Value>) -> Result<()> {
        let Reply::Operation(operation) = self.send(method, segments, body).await? else { return Ok(()) };
        let limit = self.timeout();
        let ended = self.wait(&operation.id, limit).await.map_err(|error| match error {
            // The change is under way, and may well happen although we lost sight of it.
            Error::Unreachable(text) | Error::NotFound(text) => Error::OutcomeUnknown(text),
            other => other,
        })?;
        if ended.is_success() {
            Ok(())
        } else if ended.is_running() {
            Err(Error::Locked(format!("{} is still running after {} s", ended.description, limit.as_secs())))
        } else {
            Err(classify_shortage(self, failure(&ended.err)).await)
        }
    }

    async fn call(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
        timeout: Option<Duration>,
    ) -> Result<Envelope> {
        let mutates = method != Method::GET;
        let mut request = self.request(method, self.url(segments, query)?);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(timeout) = timeout {
            request = request.timeout(timeout);
        }
        let response = request.send().await.map_err(|e| transport(&e, mutates))?;
        let status = response.status().as_u16();
        let bytes = response.bytes().await.map_err(|e| transport(&e, mutates))?;
        envelope(status, &bytes)
    }
}

/// Reads a response and maps Incus's errors to ours.
pub(crate) fn envelope(status: u16, bytes: &[u8]) -> Result<Envelope> {
    let Ok(envelope) = serde_json::from_slice::<Envelope>(bytes) else {
        // Never `NotFound`: this does not come from Incus, so it is no evidence.
        return Err(Error::Failed(format!("HTTP {status} with a response that is not from Incus")));
    };
    if envelope.kind == "error" || status >= 400 {
        let code = if envelope.error_code == 0 { status } else { envelope.error_code };
        return Err(refusal(code, &envelope.error));
    }
    Ok(envelope)
}

/// Maps a failure below HTTP.
pub(crate) fn transport(error: &reqwest::Error, mutates: bool) -> Error {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    if error.is_connect() || error.is_builder() || !mutates {
        Error::Unreachable(text)
    } else {
        Error::OutcomeUnknown(text)
    }
}

/// A shortage is the guest's own where Incus found no room for the guest's backup file, which is in the guest's own
/// volume, and the pool has room: not every kind of pool reports a quota.
pub(crate) async fn classify_shortage(client: &Client, error: Error) -> Error {
    let Error::Exhausted(text) = error else { return error };
    if !text.contains("backup.yaml") {
        return Error::Exhausted(text);
    }
    match client.get::<PoolResources>(&["storage-pools", &client.config.storage_pool, "resources"], &[]).await {
        Ok(PoolResources { space: PoolSpace { total, used: Some(used) } })
            if total.saturating_sub(used) > total / 100 =>
        {
            Error::DiskFull(text)
        }
        _ => Error::Exhausted(text),
    }
}

/// Maps an error by its text where that says more than the code, else by its code.
pub(crate) fn refusal(code: u16, text: &str) -> Error {
    let detail = text.to_owned();
    classify(text).unwrap_or(match code {
        400 | 413 | 422 => Error::Invalid(detail),
        401 => Error::Unauthorized(detail),
        403 => Error::Forbidden(detail),
        404 => Error::NotFound(detail),
        409 => Error::Conflict(detail),
        // The object changed between our read and our write: the call can be repeated on the new one.
        412 | 423 | 429 => Error::Locked(detail),
        501 => Error::Unsupported(detail),
        507 => Error::Exhausted(detail),
        // The daemon is starting or shutting down and has done nothing.
        503 => Error::Unreachable(detail),
        _ => Error::Failed(detail),
    })
}

/// Maps the error text of a failed operation.
pub(crate) fn failure(text: &str) -> Error {
    classify(text).unwrap_or_else(|| {
        let lower = text.to_lowercase();
        if lower.contains("not found") || lower.contains("no such object") {
            Error::NotFound(text.to_owned())
        } else {
            Error::Failed(text.to_owned())
        }
    })
}

fn classify(text: &str) -> Option<Error> {
    let lower = text.to_lowercase();
    let any = |needles: &[&str]| needles.iter().any(|needle| lower.contains(needle));
    let detail = text.to_owned();
    if any(&["is busy running", "operation is already running", "currently in use by another", "database is locked"]) {
        Some(Error::Locked(detail))
    } else if any(&["disk quota exceeded"]) {
        // A quota is the guest's own; a full pool says "no space left".
        Some(Error::DiskFull(detail))
    } else if any(&[
        "no space left",
        "not enough space",
        "insufficient",
        "out of memory",
        "reached maximum",
        "cannot allocate memory",
    ]) {
        Some(Error::Exhausted(detail))
    } else if any(&["instance is protected"]) {
        Some(Error::Protected(detail))
    } else if let Some(address) = address_in_use(&lower) {
        Some(Error::AddressInUse(address, detail))
    } else if any(&["already exists", "already in use", "already defined on"]) {
        Some(Error::AlreadyExists(detail))
    } else if any(&["is already running", "is already stopped", "is not running", "is running", "is not stopped"]) {
        Some(Error::Conflict(detail))
    } else if any(&["cannot be restored due to subsequent snapshot"]) {
        // ZFS restores only the newest snapshot.
        Some(Error::Unsupported(detail))
    } else {
        None
    }
}

/// Extracts the address that another interface has: `IP address "10.0.0.5" already defined on another NIC`.
fn address_in_use(text: &str) -> Option<IpAddr> {
    let (before, _) = text.split_once("already defined on")?;
    before.split('"').find_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_mapped_by_words_then_code() {
        assert!(matches!(refusal(404, "Instance not found"), Error::NotFound(_)));
        assert!(matches!(refusal(403, "not authorized"), Error::Forbidden(_)));
        assert!(matches!(refusal(500, "Instance is protected"), Error::Protected(_)));
        assert!(matches!(refusal(500, "Instance is busy running a \"stop\" operation"), Error::Locked(_)));
        assert!(matches!(refusal(400, "Instance \"x\" already exists"), Error::AlreadyExists(_)));
        let taken = refusal(400, r#"Failed: IP address "10.0.0.5" already defined on another NIC"#);
        assert!(matches!(taken, Error::AddressInUse(address, _) if address.to_string() == "10.0.0.5"));
        assert!(matches!(
            refusal(400, r#"MAC address "aa:bb:cc:dd:ee:ff" already defined on another NIC"#),
            Error::AlreadyExists(_)
        ));
        assert!(matches!(refusal(400, "The instance is already running"), Error::Conflict(_)));
        assert!(matches!(refusal(400, "Invalid snapshot name"), Error::Invalid(_)));
        assert!(matches!(refusal(503, "Daemon is starting up"), Error::Unreachable(_)));
        assert!(matches!(refusal(500, "boom"), Error::Failed(_)));
    }

    #[test]
    fn failed_operations_are_mapped_by_their_words() {
        assert!(matches!(failure("write /x: no space left on device"), Error::Exhausted(_)));
        assert!(matches!(failure("open /c/ink-1/backup.yaml: disk quota exceeded"), Error::DiskFull(_)));
        assert!(matches!(failure("Image not found"), Error::NotFound(_)));
        let older =
            "Snapshot \"s1\" cannot be restored due to subsequent snapshot(s). Set zfs.remove_snapshots to override";
        assert!(matches!(failure(older), Error::Unsupported(_)));
        assert!(matches!(failure("exit status 1"), Error::Failed(_)));
    }

    #[test]
    fn only_incus_itself_can_say_not_found() {
        let real = br#"{"type":"error","status":"","status_code":0,"operation":"","error_code":404,
            "error":"Instance not found","metadata":null}"#;
        assert!(matches!(envelope(404, real), Err(Error::NotFound(_))));
        assert!(matches!(envelope(404, b"<html>404</html>"), Err(Error::Failed(_))));
        assert!(matches!(envelope(502, b""), Err(Error::Failed(_))));
    }

    #[test]
    fn urls_keep_names_in_their_segment() {
        let client = Client::new(IncusConfig { project: "inn".to_owned(), ..IncusConfig::default() }).unwrap();
        let url = client.url(&["images", "aliases", "debian/12?x"], &[("a", "b&c")]).unwrap();
        assert_eq!(url.as_str(), "http://incus/1.0/images/aliases/debian%2F12%3Fx?project=inn&a=b%26c");
        assert!(client.url(&["instances", ".."], &[]).is_err());
        assert!(Client::new(IncusConfig { project: "a&b".to_owned(), ..IncusConfig::default() }).is_err());
    }
}
