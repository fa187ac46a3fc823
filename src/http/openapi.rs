//! The OpenAPI document's frame; its paths come from the routes themselves, and what all of them have in common is
//! added here, where no route can forget it.

use std::collections::BTreeSet;

use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, ObjectBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Schema, Type};
use utoipa::{Modify, OpenApi};

use crate::idempotency;

/// Title, licence, and how to sign in.
#[derive(Debug, OpenApi)]
#[openapi(
    info(title = "Innkeeper", description = "Servers by tariff on Proxmox-style hosts.", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    modifiers(&Bearer),
    security(("bearer" = [])),
    components(schemas(super::ErrorBody)),
)]
pub struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(
            "bearer",
            SecurityScheme::Http(
                HttpBuilder::new()
                    .scheme(HttpAuthScheme::Bearer)
                    .description(Some("An access token from /api/auth/login, or an API token from /api/auth/tokens."))
                    .build(),
            ),
        );
    }
}

/// The component that every failure refers to.
const FAILURE: &str = "Failure";

/// Adds what holds for every route: the failures that layers answer with, and `Idempotency-Key` on POSTs by someone.
pub(super) fn complete(document: &mut utoipa::openapi::OpenApi) {
    let components = document.components.get_or_insert_default();
    components.responses.insert(FAILURE.to_owned(), failure().into());
    for (path, item) in &mut document.paths.paths {
        if !path.starts_with("/api/") {
            continue;
        }
        if let Some(post) = item.post.as_mut().filter(|post| !is_open(post)) {
            post.parameters.get_or_insert_default().push(RefOr::T(key()));
            fail(post, &["409", "422"]);
        }
        for operation in operations(item) {
            fail(operation, &["400", "408", "413", "429", "500", "503"]);
            if operation.request_body.is_some() {
                fail(operation, &["415", "422"]);
            }
        }
    }
}

/// The routes that nobody has to sign in for, as `POST /api/auth/login`.
pub(super) fn open_routes(document: &utoipa::openapi::OpenApi) -> BTreeSet<String> {
    let methods = |item: &PathItem| {
        [("GET", &item.get), ("POST", &item.post), ("PUT", &item.put), ("PATCH", &item.patch), ("DELETE", &item.delete)]
            .map(|(name, operation)| operation.as_ref().is_some_and(is_open).then_some(name))
    };
    let paths = document.paths.paths.iter();
    paths.flat_map(|(path, item)| methods(item).into_iter().flatten().map(move |m| format!("{m} {path}"))).collect()
}

/// Whether nobody has to sign in for it.
fn is_open(operation: &Operation) -> bool {
    operation.security.as_ref().is_some_and(|security| security.iter().all(|s| *s == SecurityRequirement::default()))
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten()
}

/// Documents these statuses as failures, where the route has nothing to say of them itself.
fn fail(operation: &mut Operation, statuses: &[&str]) {
    for status in statuses {
        let known = operation.responses.responses.entry((*status).to_owned());
        known.or_insert_with(|| RefOr::Ref(Ref::from_response_name(FAILURE)));
    }
}

fn failure() -> Response {
    let body = Content::new(Some(Ref::from_schema_name("ErrorBody")));
    ResponseBuilder::new().description("It failed; `code` says why.").content("application/json", body).build()
}

fn key() -> Parameter {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(255))
        .pattern(Some("^[ -~]+$"))
        .build();
    ParameterBuilder::new()
        .name(idempotency::HEADER)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "The client's own name for this request. Sent again within a day with the same key, it is done once and \
             answered alike; another request with the same key is refused.",
        ))
        .schema(Some(Schema::Object(schema)))
        .build()
}
