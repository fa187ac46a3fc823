//! Web apps that are embedded in the program: their files, and what to say where they are missing.

use std::borrow::Cow;

use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::error::Error;

/// The caching of files whose names change with their contents.
pub const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// A file of a kind that web apps have, by the end of its name; `None` if there is none, or it is of another kind.
pub fn file(path: &str, data: Option<Cow<'static, [u8]>>, caching: &str) -> Option<Response> {
    let kind = match path.rsplit_once('.')?.1 {
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        _ => return None,
    };
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, caching)];
    Some((headers, data?.into_owned()).into_response())
}

/// The response where this folder was empty when the program was built.
pub fn missing(folder: &str) -> Response {
    tracing::error!("this program was built without {folder}: run `make web`, then build again");
    Error::internal(anyhow::anyhow!("{folder} was empty when this program was built")).into_response()
}
