//! The console page: built from `web/console` (`make web`), embedded in the program, and served with a content security
//! policy that allows nothing from elsewhere.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use kernel::http::embedded;
use rust_embed::{Embed, RustEmbed};

/// The built files. Debug builds read the folder, so that the page can be changed without recompiling.
#[derive(RustEmbed)]
#[folder = "../../web/console/dist"]
#[allow_missing = true]
struct PageAssets;

/// Scripts only from us, and none inline. Styles may be inline: xterm.js sets its sizes and colours that way.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn index() -> Response {
    let Some(file) = <PageAssets as Embed>::get("index.html") else {
        return embedded::missing("web/console/dist");
    };
    let mut response = Html(file.data.into_owned()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A script or style. Its name changes with its contents.
pub(super) fn asset(path: &str) -> Response {
    let data = <PageAssets as Embed>::get(path).map(|file| file.data);
    embedded::file(path, data, embedded::FOR_EVER).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}
