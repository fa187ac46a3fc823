//! The dashboard: a web app built from `dashboard/` (`make web`), embedded in the program. Its addresses are the app's
//! own affair, so every page that a browser asks for and nobody else has is the same file.

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use kernel::feature::Feature;
use kernel::http::embedded;
use rust_embed::{Embed, RustEmbed};

/// The built files. Debug builds read the folder, so that the app can be changed without recompiling.
#[derive(RustEmbed)]
#[folder = "dashboard/dist"]
#[allow_missing = true]
struct DashboardFiles;

/// The web app for customers and providers.
#[derive(Debug)]
pub(crate) struct Dashboard;

/// Nothing from elsewhere and nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'";

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// What addresses of others begin with, whether or not there is anything below. Health checks of any name, too.
const OTHERS: [&str; 8] = ["api", "assets", "confirm", "console", "licences.txt", "login-link", "metrics", "socket.io"];

impl Feature for Dashboard {
    fn name(&self) -> &'static str {
        "dashboard"
    }

    fn fallback(&self, request: &Parts) -> Option<Response> {
        if request.method != Method::GET && request.method != Method::HEAD {
            return None;
        }
        match request.uri.path() {
            "/licences.txt" => file("licences.txt", "no-cache"),
            // One that is missing is of another version: a tab that was left open finds out by the 404.
            path if path.starts_with("/assets/") => file(&path[1..], embedded::FOR_EVER),
            path if is_others(path) || !accepts_html(&request.headers) => None,
            _ => Some(index(&request.headers)),
        }
    }
}

fn is_others(path: &str) -> bool {
    let first = path.split('/').nth(1).unwrap_or_default();
    OTHERS.contains(&first) || first.starts_with("health")
}

/// Whether this is a browser that opens a page. What takes anything (`*/*`) is a program that has the wrong address.
fn accepts_html(headers: &HeaderMap) -> bool {
    listed(headers, &header::ACCEPT)
        .any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/html")))
}

/// The values in a header that is a list.
fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn index(headers: &HeaderMap) -> Response {
    let Some(file) = <DashboardFiles as Embed>::get("index.html") else {
        return embedded::missing("dashboard/dist");
    };
    let hash = file.metadata.sha256_hash();
    let tag = hash[..16].iter().fold("\"".to_owned(), |tag, byte| format!("{tag}{byte:02x}")) + "\"";
    let fixed = [
        (header::ETAG, tag.as_str()),
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "accept"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (OPENER_POLICY, "same-origin"),
    ];
    let is_known = listed(headers, &header::IF_NONE_MATCH).any(|known| known.trim_start_matches("W/") == tag);
    match is_known {
        true => (StatusCode::NOT_MODIFIED, fixed).into_response(),
        false => (fixed, Html(file.data.into_owned())).into_response(),
    }
}

fn file(path: &str, caching: &str) -> Option<Response> {
    embedded::file(path, <DashboardFiles as Embed>::get(path).map(|file| file.data), caching)
}
