//! Transport: requests and answers, and errors that a caller can act on.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use hyper::ext::ReasonPhrase;
use hypervisor::rows::OddLists;
use hypervisor::{Error, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::{PasswordLogin, ProxmoxConfig};
use crate::error::{ErrorReply, refusal, words};
use crate::tls;

/// How many calls may be under way at one time: to one host, and in all.
const PER_HOST: usize = 2;
const IN_ALL: usize = 20;

/// How long an idle connection for reading is kept. Nodes keep theirs for 5 s.
const IDLE: Duration = Duration::from_secs(2);

/// All but letters, digits and these is encoded: Proxmox VE splits forms at `;` too.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Names and values of a query or form; names may repeat.
pub(crate) type Params<'a> = [(&'a str, &'a str)];

/// Whom we are authenticated as.
#[derive(Debug, Clone)]
pub(crate) enum ApiCredentials {
    /// The API token.
    Token,
    /// The ticket of a login.
    Ticket {
        ticket: SecretString,
        /// Sent with every request that changes something.
        csrf: SecretString,
    },
}

/// The connection to one cluster.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) config: Arc<ProxmoxConfig>,
    pub(crate) tls: Arc<rustls::ClientConfig>,
    reads: reqwest::Client,
    /// Keeps no connections alive: a kept one may be dead, and then nobody can tell whether a request was received.
    writes: reqwest::Client,
    /// Index of the endpoint that answered last.
    current: Arc<AtomicUsize>,
    slots: Arc<Semaphore>,
    /// The rows of the cluster's list that could not be read the last time.
    pub(crate) odd: Arc<Mutex<HashSet<String>>>,
    /// The other lists that had unreadable rows the last time.
    pub(crate) odd_lists: OddLists,
}

impl Client {
    pub(crate) fn new(config: ProxmoxConfig) -> Result<Self> {
        check(&config)?;
        let tls = tls::config(&config.tls)?;
        let build = |idle| {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .connect_timeout(Duration::from_secs(config.connect_timeout_s.max(1)))
                .timeout(Duration::from_secs(config.request_timeout_s.max(1)))
                .pool_max_idle_per_host(idle)
                .pool_idle_timeout(IDLE)
                .http1_only()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|e| Error::Invalid(format!("can't create an HTTP client: {e}")))
        };
        Ok(Self {
            reads: build(PER_HOST)?,
            writes: build(0)?,
            tls: Arc::new(tls),
            current: Arc::default(),
            slots: slots_of(&config),
            odd: Arc::default(),
            odd_lists: OddLists::default(),
            config: Arc::new(config),
        })
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.config.request_timeout_s.max(1))
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &Params<'_>) -> Result<T> {
        typed(&self.call(&ApiCredentials::Token, Method::GET, path, query).await?)
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &[&str], form: &Params<'_>) -> Result<T> {
        self.post_as(&ApiCredentials::Token, path, form).await
    }

    pub(crate) async fn post_as<T: DeserializeOwned>(
        &self,
        who: &ApiCredentials,
        path: &[&str],
        form: &Params<'_>,
    ) -> Result<T> {
        sent(&self.call(who, Method::POST, path, form).await?)
    }

    pub(crate) async fn put<T: DeserializeOwned>(&self, path: &[&str], form: &Params<'_>) -> Result<T> {
        sent(&self.call(&ApiCredentials::Token, Method::PUT, path, form).await?)
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &[&str], query: &Params<'_>) -> Result<T> {
        sent(&self.call(&ApiCredentials::Token, Method::DELETE, path, query).await?)
    }

    /// Logs in with a password, for calls that don't accept a token.
    pub(crate) async fn login(&self, login: &PasswordLogin) -> Result<ApiCredentials> {
        #[derive(Deserialize)]
        struct Answer {
            ticket: SecretString,
            #[serde(rename = "CSRFPreventionToken", default)]
            csrf: SecretString,
            #[serde(rename = "NeedTFA", default)]
            second_factor: Value,
        }
        let form = [("username", login.user.as_str()), ("password", login.password.expose_secret())];
        // Without the token: a request can't have both.
        let answer: Answer = typed(&self.request(None, Method::POST, &["access", "ticket"], &form).await?)?;
        if !answer.second_factor.is_null() {
            return Err(Error::Unauthorized(format!(
                "{} requires a second factor, which is not supported",
                login.user
            )));
        }
        Ok(ApiCredentials::Ticket { ticket: answer.ticket, csrf: answer.csrf })
    }

    /// The headers for authentication.
    pub(crate) fn headers(&self, who: &ApiCredentials) -> Result<HeaderMap> {
        let secret = |text: String| -> Result<HeaderValue> {
            let mut value = HeaderValue::from_str(&text).map_err(|_| Error::Invalid("a bad credential".to_owned()))?;
            value.set_sensitive(true);
            Ok(value)
        };
        let mut headers = HeaderMap::new();
        match who {
            ApiCredentials::Token => {
                let token =
                    format!("PVEAPIToken={}={}", self.config.token_id, self.config.token_secret.expose_secret());
                headers.insert(AUTHORIZATION, secret(token)?);
            }
            ApiCredentials::Ticket { ticket, csrf } => {
                headers.insert(COOKIE, secret(format!("PVEAuthCookie={}", ticket.expose_secret()))?);
                let name = HeaderName::from_static("csrfpreventiontoken");
                headers.insert(name, secret(csrf.expose_secret().to_owned())?);
            }
        }
        Ok(headers)
    }

    /// The endpoints, starting with the one that answered last.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = (usize, &str)> {
        let (first, count) = (self.current.load(Ordering::Relaxed), self.config.endpoints.len());
        (0..count).map(move |n| (first + n) % count).map(|n| (n, self.config.endpoints[n].as_str()))
    }

    async fn call(&self, who: &ApiCredentials, method: Method, path: &[&str], params: &Params<'_>) -> Result<Bytes> {
        let headers = self.headers(who)?;
        self.request(Some(headers), method, path, params).await
    }

    /// Sends a request to the first endpoint that accepts a connection.
    async fn request(
        &self,
        headers: Option<HeaderMap>,
        method: Method,
        path: &[&str],
        params: &Params<'_>,
    ) -> Result<Bytes> {
        let mutates = method != Method::GET;
        let path = encoded_path(path)?;
        let params = encoded_params(params);
        let _slot = self.slot().await?;
        let mut failure = Error::Unreachable("no endpoint is configured".to_owned());
        for (n, endpoint) in self.endpoints() {
            let mut url = format!("{}/api2/json{path}", endpoint.trim_end_matches('/'));
            let in_query = matches!(method, Method::GET | Method::DELETE);
            if in_query && !params.is_empty() {
                url = format!("{url}?{params}");
            }
            let url = Url::parse(&url).map_err(|e| Error::Invalid(format!("{endpoint}: {e}")))?;
            let http = if mutates { &self.writes } else { &self.reads };
            let mut request = http.request(method.clone(), url).headers(headers.clone().unwrap_or_default());
            if !in_query {
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                // Nodes want a length even where it is 0.
                request = request.header(CONTENT_TYPE, form).header(CONTENT_LENGTH, params.len()).body(params.clone());
            }
            match request.send().await {
                Ok(response) => match answer(response, mutates).await {
                    // This node is cut off from the others, which may well work without it.
                    Err(error) if error.is_unsent() => failure = error,
                    answered => {
                        self.current.store(n, Ordering::Relaxed);
                        return answered;
                    }
                },
                Err(error) => failure = transport(&error, mutates),
            }
            // Any node of the cluster can answer, but only a request that certainly did not arrive may be repeated.
            if !failure.is_unsent() {
                break;
            }
        }
        Err(failure)
    }

    /// Waits for a slot among the calls that may be under way.
    async fn slot(&self) -> Result<(SemaphorePermit<'_>, SemaphorePermit<'static>)> {
        static ALL: Semaphore = Semaphore::const_new(IN_ALL);
        let waiting = async { Ok((self.slots.acquire().await?, ALL.acquire().await?)) };
        let closed = |_: tokio::sync::AcquireError| Error::Failed("the client has been shut down".to_owned());
        tokio::time::timeout(self.timeout(), waiting)
            .await
            .map_err(|_| Error::Unreachable("earlier calls to the host are still waiting for a response".to_owned()))?
            .map_err(closed)
    }
}

/// Validates the configuration as far as possible without a connection.
fn check(config: &ProxmoxConfig) -> Result<()> {
    let invalid = |text: String| Err(Error::Invalid(text));
    if config.endpoints.is_empty() {
        return invalid("no endpoint is configured".to_owned());
    }
    for endpoint in &config.endpoints {
        let url = Url::parse(endpoint).ok().filter(|u| u.scheme() == "https" && u.has_host());
        if url.is_none_or(|u| u.path() != "/" || u.query().is_some() || !u.username().is_empty()) {
            return invalid(format!("{endpoint:?} is not a valid endpoint: use https://host:8006"));
        }
    }
    let graphic = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
    let parts = config.token_id.split_once('!').filter(|(user, name)| user.contains('@') && graphic(name));
    if parts.is_none() || !graphic(&config.token_id) || config.token_id.contains('=') {
        return invalid(format!("{:?} is not a valid token id: use user@realm!name", config.token_id));
    }
    if !graphic(config.token_secret.expose_secret()) {
        return invalid("the token's secret is empty or contains invalid characters".to_owned());
    }
    for (what, name) in [("storage", Some(&config.storage)), ("pool", config.pool.as_ref())] {
        if name.is_some_and(|n| !graphic(n) || n.contains([',', ':', ';', '='])) {
            return invalid(format!("{:?} is not a valid {what} name", name.map_or("", String::as_str)));
        }
    }
    Ok(())
}

/// The slots of one host, shared by all drivers for it in this process.
fn slots_of(config: &ProxmoxConfig) -> Arc<Semaphore> {
    static HOSTS: LazyLock<Mutex<HashMap<String, Weak<Semaphore>>>> = LazyLock::new(Mutex::default);
    let mut endpoints = config.endpoints.clone();
    endpoints.sort_unstable();
    let mut hosts = HOSTS.lock().unwrap_or_else(PoisonError::into_inner);
    hosts.retain(|_, slots| slots.strong_count() > 0);
    let key = endpoints.join(" ");
    if let Some(slots) = hosts.get(&key).and_then(Weak::upgrade) {
        return slots;
    }
    let slots = Arc::new(Semaphore::new(PER_HOST));
    hosts.insert(key, Arc::downgrade(&slots));
    slots
}

pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

pub(crate) fn encoded_path(segments: &[&str]) -> Result<String> {
    if segments.iter().any(|s| s.is_empty() || *s == "." || *s == "..") {
        return Err(Error::Invalid("an empty or relative name".to_owned()));
    }
    Ok(segments.iter().flat_map(|segment| ["/".to_owned(), encoded(segment)]).collect())
}

pub(crate) fn encoded_params(params: &Params<'_>) -> String {
    let pairs: Vec<_> = params.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    pairs.join("&")
}

/// The body of a success, not parsed yet: a cluster's list is large.
async fn answer(response: Response, mutates: bool) -> Result<Bytes> {
    let status = response.status();
    let reason = response.extensions().get::<ReasonPhrase>();
    let reason = reason.and_then(|r| std::str::from_utf8(r.as_bytes()).ok()).or(status.canonical_reason());
    let reason = reason.map(str::to_owned);
    let bytes = response.bytes().await.map_err(|e| transport(&e, mutates))?;
    if status.is_success() {
        return Ok(bytes);
    }
    let refused: Option<ErrorReply> = serde_json::from_slice(&bytes).ok();
    Err(refusal(status.as_u16(), words(refused.as_ref(), reason.as_deref(), status.as_u16()), mutates))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    #[derive(Deserialize)]
    struct DataEnvelope<T> {
        data: T,
    }
    let success: Result<DataEnvelope<T>, _> = serde_json::from_slice(body);
    success.map(|success| success.data).map_err(|e| format!("invalid response: {e}"))
}

/// Parses the answer to a read.
fn typed<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    read(body).map_err(Error::Failed)
}

/// Parses the answer to a change, which is done or under way: without the answer nobody can tell which.
fn sent<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    read(body).map_err(Error::OutcomeUnknown)
}

/// Maps a failure below HTTP.
fn transport(error: &reqwest::Error, mutates: bool) -> Error {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tls;

    fn config() -> ProxmoxConfig {
        serde_json::from_value(serde_json::json!({
            "endpoints": ["https://127.0.0.1:1"], "token_id": "a@pve!b", "token_secret": "c", "storage": "local-lvm",
        }))
        .unwrap()
    }

    #[test]
    fn settings_are_checked_before_use() {
        assert!(Client::new(config()).is_ok());
        assert_eq!(config().tls, Tls::SystemRoots);
        let wrong: [fn(&mut ProxmoxConfig); 7] = [
            |c| c.endpoints.clear(),
            |c| c.endpoints = vec!["http://a:8006".to_owned()],
            |c| c.endpoints = vec!["https://a:8006/api2".to_owned()],
            |c| c.token_id = "root@pam".to_owned(),
            |c| c.token_secret = "a\nb".to_owned().into(),
            |c| c.storage = "a,b".to_owned(),
            |c| c.pool = Some(String::new()),
        ];
        for change in wrong {
            let mut config = config();
            change(&mut config);
            assert!(matches!(Client::new(config), Err(Error::Invalid(_))));
        }
    }

    #[test]
    fn everything_is_encoded() {
        assert_eq!(encoded_params(&[("tags", "a;b"), ("net0", "ip=1+2")]), "tags=a%3Bb&net0=ip%3D1%2B2");
        let upid = "UPID:pve1:000004E4:0002D87C:6B018A79:vzstart:100:op@pve!t:";
        let path = encoded_path(&["nodes", upid]).unwrap();
        assert_eq!(path, "/nodes/UPID%3Apve1%3A000004E4%3A0002D87C%3A6B018A79%3Avzstart%3A100%3Aop%40pve%21t%3A");
        assert!(encoded_path(&["nodes", ".."]).is_err() && encoded_path(&["nodes", ""]).is_err());
    }

    #[test]
    fn one_host_has_its_places_once() {
        let (first, second) = (Client::new(config()).unwrap(), Client::new(config()).unwrap());
        assert!(Arc::ptr_eq(&first.slots, &second.slots));
        let mut other = config();
        other.endpoints.push("https://127.0.0.2:1".to_owned());
        assert!(!Arc::ptr_eq(&first.slots, &Client::new(other).unwrap().slots));
    }

    #[test]
    fn secrets_don_t_show() {
        let text = format!("{:?}", Client::new(config()).unwrap().headers(&ApiCredentials::Token).unwrap());
        assert!(text.contains("Sensitive") && !text.contains("PVEAPIToken"), "{text}");
    }
}
