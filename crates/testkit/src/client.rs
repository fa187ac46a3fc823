//! A client of the API: nobody, a customer, another customer, the provider.

use kernel::ids::AccountId;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

/// Who sends requests, and where to.
#[derive(Debug, Clone)]
pub struct Client {
    pub http: reqwest::Client,
    pub base: String,
    pub token: Option<String>,
    /// The account that requests are made for, if not the token's own.
    pub account: Option<AccountId>,
    /// Sent with every request.
    pub headers: HeaderMap,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Client {
    pub fn new(base: &str, token: Option<&str>) -> Self {
        // An error means that the service in this process has installed one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            http: reqwest::Client::new(),
            base: base.to_owned(),
            token: token.map(str::to_owned),
            account: None,
            headers: HeaderMap::new(),
        }
    }

    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same, acting for this account.
    pub fn acting_for(&self, account: AccountId) -> Self {
        Self { account: Some(account), ..self.clone() }
    }

    /// The same, with this header.
    pub fn with_header(&self, name: &'static str, value: &str) -> Self {
        let mut headers = self.headers.clone();
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header"));
        Self { headers, ..self.clone() }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).headers(self.headers.clone());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(account) = self.account {
            request = request.header("x-account", account.0);
        }
        request
    }

    pub async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: impl Into<Option<Value>>) -> Response {
        self.send(Method::POST, path, body.into()).await
    }

    pub async fn put(&self, path: &str, body: impl Into<Option<Value>>) -> Response {
        self.send(Method::PUT, path, body.into()).await
    }

    pub async fn delete(&self, path: &str) -> Response {
        self.send(Method::DELETE, path, None).await
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        let body = body.map(|b| ("application/json", b.to_string().into_bytes()));
        self.try_send(method, path, body).await.expect("the service answers")
    }

    /// A POST with an `Idempotency-Key`; with `null`, without a body.
    pub async fn post_once(&self, path: &str, key: &str, body: &Value) -> Response {
        self.try_post_once(path, key, body).await.expect("the service answers")
    }

    pub async fn try_post_once(&self, path: &str, key: &str, body: &Value) -> reqwest::Result<Response> {
        let mut request = self.request(Method::POST, path).header("idempotency-key", key);
        if !body.is_null() {
            request = request.json(body);
        }
        Response::read(request.send().await?).await
    }

    /// Any body at all, for input that JSON libraries can't produce.
    pub async fn raw(&self, method: Method, path: &str, content_type: &str, body: &[u8]) -> Response {
        self.try_send(method, path, Some((content_type, body.to_vec()))).await.expect("the service answers")
    }

    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> reqwest::Result<Response> {
        let mut request = self.request(method, path);
        if let Some((content_type, body)) = body {
            request = request.header("content-type", content_type).body(body);
        }
        Response::read(request.send().await?).await
    }
}

impl Response {
    async fn read(response: reqwest::Response) -> reqwest::Result<Self> {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Self { status, headers, body, text })
    }

    /// Fails the test unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// The cookie that it sets, as a browser sends it; `None` if it sets or keeps none.
    pub fn cookie(&self) -> Option<&str> {
        let pair = self.headers.get("set-cookie")?.to_str().expect("text").split(';').next()?;
        (!pair.ends_with('=')).then_some(pair)
    }

    /// An error answer's code.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}
