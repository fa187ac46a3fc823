//! Extractors that report bad input in our own error format: JSON bodies, paths and queries.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request, rejection::BytesRejection};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use garde::Validate;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::carry::BodyTooLate;
use super::error::too_large;
use crate::dialect;
use crate::error::{Code, Error};

/// A JSON body: read, parsed and validated, or rejected with the field named. Also a response.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<S, T> FromRequest<S> for Json<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Validate<Context = ()>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        is_json(request.headers())?;
        parse(&body(request, state).await?).map(Self)
    }
}

/// Rejects a body that is not declared as JSON.
pub fn is_json(headers: &HeaderMap) -> Result<(), Error> {
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .map(|v| v.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        .is_some_and(|mime| {
            mime == "application/json" || (mime.starts_with("application/") && mime.ends_with("+json"))
        });
    match is_json {
        true => Ok(()),
        false => Err(Error::new(
            Code::UnsupportedMediaType,
            "Send the body as JSON, with the header Content-Type: application/json.",
        )),
    }
}

/// Reads the whole body.
pub async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Error> {
    let limit = dialect::body_limit(request.extensions());
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(e) if e.status() == 413 => too_large(limit),
        rejection if is_late(&rejection) => {
            Error::new(Code::Timeout, "The request body did not arrive in time. Nothing was done.")
        }
        _ => Error::new(Code::Malformed, "The request body could not be read."),
    })
}

fn is_late(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<BodyTooLate>() || error.source().is_some_and(is_late)
}

/// Parses and validates a JSON body.
pub fn parse<T: DeserializeOwned + Validate<Context = ()>>(bytes: &[u8]) -> Result<T, Error> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value: T = typed("", &mut json)?;
    json.end().map_err(|e| malformed(&e))?;
    check("", &value)?;
    Ok(value)
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// Parses and validates a part of a body whose shape only the service knows; `at` is its path.
pub fn read<T>(at: &str, value: serde_json::Value) -> Result<T, Error>
where
    T: DeserializeOwned + Validate<Context = ()>,
{
    let value = typed(at, value)?;
    check(at, &value)?;
    Ok(value)
}

fn typed<'de, T, D>(at: &str, json: D) -> Result<T, Error>
where
    T: DeserializeOwned,
    D: serde::Deserializer<'de, Error = serde_json::Error>,
{
    serde_path_to_error::deserialize(json).map_err(|e| {
        let path = e.path().to_string();
        let inner = e.into_inner();
        match inner.classify() {
            Category::Data => {
                Error::field(&below(at, if path == "." { "" } else { &path }), sentence(&inner.to_string()))
            }
            _ => malformed(&inner),
        }
    })
}

fn check<T: Validate<Context = ()>>(at: &str, value: &T) -> Result<(), Error> {
    value.validate().map_err(|report| {
        let fields: BTreeMap<String, String> =
            report.iter().map(|(path, error)| (below(at, &camel(path)), sentence(&error.to_string()))).collect();
        Error::fields(fields)
    })
}

/// The path of a validated field as it is in the JSON: validation knows fields by their Rust names.
fn camel(path: &garde::Path) -> String {
    let path = path.to_string();
    let mut words = path.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |path, word| {
        let mut letters = word.chars();
        path + &letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default() + letters.as_str()
    })
}

fn below(at: &str, path: &str) -> String {
    [at, path].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
}

fn malformed(error: &serde_json::Error) -> Error {
    Error::new(Code::Malformed, format!("The body is not valid JSON: {}", sentence(&error.to_string())))
}

/// Turns `missing field x at line 1 column 2` into a sentence, without the position, which is useless in compact JSON.
fn sentence(text: &str) -> String {
    let text = text.split(" at line ").next().unwrap_or(text);
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with('.') { "" } else { "." };
    format!("{first}{}{end}", chars.as_str())
}

/// Path parameters.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(|_| Error::new(Code::Malformed, "The id in the address is invalid."))
    }
}

/// Validated query parameters.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Validate<Context = ()>> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let query = parts.uri.query().unwrap_or_default();
        let query = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        let value: T = serde_path_to_error::deserialize(query).map_err(|e| {
            let path = e.path().to_string();
            Error::field(if path == "." { "" } else { &path }, sentence(&e.into_inner().to_string()))
        })?;
        check("", &value)?;
        Ok(Self(value))
    }
}
