//! The frame of the OpenAPI document. Its paths come from the routes themselves; what all of them have in common is
//! added here, so that no route can forget it.

use std::collections::BTreeSet;

use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Components, Content, ObjectBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Schema, Type,
};
use utoipa::{Modify, OpenApi};

use super::native;
use super::page::CatalogueSort;
use crate::idempotency;
use crate::listing::SortOrder;

/// Title, licence and authentication.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Innkeeper",
        description = "Servers by tariff on Proxmox-style hosts.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    modifiers(&Bearer),
    servers((url = "/", description = "The service that serves this document")),
    security(("bearer" = [])),
    components(schemas(super::ErrorBody, CatalogueSort, SortOrder)),
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

/// What a response with each status means on every route, and for failures the name of the shared response component. A
/// route that has more to say about a status writes its own description.
const STANDARD: [(&str, &str, &str); 17] = [
    ("200", "", "Success: the requested data, or the result."),
    ("201", "", "Created: this is the new object."),
    ("204", "", "Done; the response has no body."),
    ("400", "BadRequest", "The request can't be read: broken JSON, or an invalid id or address."),
    ("401", "Unauthenticated", "The token is missing, wrong, expired or revoked."),
    ("403", "Forbidden", "This role may not do it, or the token's scopes do not allow it."),
    ("404", "NotFound", "It does not exist, or it belongs to someone else."),
    ("408", "RequestTimeout", "The request body did not arrive in time. Nothing was done."),
    (
        "409",
        "Conflict",
        "The current state does not allow it: the name is taken, or the object is in use or being changed.",
    ),
    ("413", "TooLarge", "The request body is too large."),
    ("415", "UnsupportedMediaType", "The request body is not declared as JSON."),
    ("422", "Invalid", "Understood, but impossible; `details.fields` has a message per field, parameter or header."),
    ("429", "RateLimited", "Too many requests; the `Retry-After` header says when to try again."),
    ("500", "Internal", "Internal error; our log has the details under the `requestId`."),
    ("502", "HostError", "The host refused the request or failed."),
    ("503", "Unavailable", "The host or our database can't be reached; try again later."),
    ("507", "NoRoom", "There is no capacity or no free address, or the account's limit is reached."),
];

/// The name of the response component for failures with this status.
fn failure_name(status: &str) -> Option<&'static str> {
    let (_, name, _) = STANDARD.iter().find(|(known, ..)| *known == status)?;
    (!name.is_empty()).then_some(name)
}

/// Adds what applies to every route: the failures that layers and extractors answer with, `Idempotency-Key` on
/// authenticated POSTs, and the meaning of each status; and leaves one schema for each shape. So a route only lists
/// the failures that its service has beyond those.
pub(super) fn complete(document: &mut utoipa::openapi::OpenApi) {
    for (path, item) in &mut document.paths.paths {
        if path.starts_with(native::MOUNT) {
            if let Some(post) = item.post.as_mut().filter(|post| !is_open(post)) {
                post.parameters.get_or_insert_default().push(RefOr::T(key()));
                fail(post, &["409", "422"]);
            }
            let writes = [&mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten();
            writes.filter(|write| !is_open(write)).for_each(|write| fail(write, &["403"]));
            for operation in operations(item) {
                fail(operation, &["400", "408", "413", "429", "500", "503"]);
                if !is_open(operation) {
                    fail(operation, &["401"]);
                }
                if path.contains("{id}") {
                    fail(operation, &["404"]);
                }
                if operation.request_body.is_some() {
                    fail(operation, &["415", "422"]);
                }
                if operation.parameters.iter().flatten().any(is_query) {
                    fail(operation, &["422"]);
                }
            }
        }
        operations(item).for_each(describe);
    }
    let components = document.components.get_or_insert_default();
    for (_, name, meaning) in STANDARD.iter().filter(|(_, name, _)| !name.is_empty()) {
        components.responses.insert((*name).to_owned(), failure(meaning).into());
    }
    let shapes = shapes(components);
    for schema in components.schemas.values_mut() {
        if let RefOr::T(schema) = schema {
            fold_parts(schema, &shapes);
        }
    }
    let operations = document.paths.paths.values_mut().flat_map(operations);
    for parameter in operations.flat_map(|operation| operation.parameters.iter_mut().flatten()) {
        if let RefOr::T(Parameter { schema: Some(schema), .. }) = parameter {
            fold(schema, &shapes);
        }
    }
}

/// Describes each response that the route does not; failures with nothing more to say share one component.
fn describe(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(own) = response else { continue };
        if !own.description.is_empty() {
            continue;
        }
        if let Some(name) = failure_name(status) {
            *response = RefOr::Ref(Ref::from_response_name(name));
        } else if let Some((.., meaning)) = STANDARD.iter().find(|(known, ..)| known == status) {
            (*meaning).clone_into(&mut own.description);
        }
    }
}

/// Named objects and enumerations, with their schemas.
fn shapes(components: &Components) -> Vec<(String, Schema)> {
    let named = components.schemas.iter().filter_map(|(name, schema)| match schema {
        RefOr::T(schema @ Schema::Object(object)) if !object.properties.is_empty() || object.enum_values.is_some() => {
            Some((name.clone(), anonymous(schema)))
        }
        _ => None,
    });
    named.collect()
}

fn anonymous(schema: &Schema) -> Schema {
    let mut schema = schema.clone();
    if let Schema::Object(object) = &mut schema {
        object.description = None;
    }
    schema
}

/// Replaces a copy of a named schema by a reference: generic types and parameters have their parts written out.
fn fold(schema: &mut RefOr<Schema>, shapes: &[(String, Schema)]) {
    let RefOr::T(whole) = schema else { return };
    if let Schema::Object(_) = whole {
        let looks = anonymous(whole);
        if let Some((name, _)) = shapes.iter().find(|(_, shape)| *shape == looks) {
            *schema = RefOr::Ref(Ref::from_schema_name(name));
            return;
        }
    }
    fold_parts(whole, shapes);
}

fn fold_parts(schema: &mut Schema, shapes: &[(String, Schema)]) {
    match schema {
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                fold(items, shapes);
            }
        }
        Schema::Object(object) => {
            object.properties.values_mut().for_each(|part| fold(part, shapes));
            if let Some(AdditionalProperties::RefOr(part)) = object.additional_properties.as_deref_mut() {
                fold(part, shapes);
            }
        }
        Schema::OneOf(some) => some.items.iter_mut().for_each(|part| fold(part, shapes)),
        Schema::AllOf(all) => all.items.iter_mut().for_each(|part| fold(part, shapes)),
        Schema::AnyOf(any) => any.items.iter_mut().for_each(|part| fold(part, shapes)),
        _ => {}
    }
}

/// The routes that need no authentication, in the form `POST /api/auth/login`.
pub(super) fn open_routes(document: &utoipa::openapi::OpenApi) -> BTreeSet<String> {
    let methods = |item: &PathItem| {
        [("GET", &item.get), ("POST", &item.post), ("PUT", &item.put), ("PATCH", &item.patch), ("DELETE", &item.delete)]
            .map(|(name, operation)| operation.as_ref().is_some_and(is_open).then_some(name))
    };
    let paths = document.paths.paths.iter();
    paths.flat_map(|(path, item)| methods(item).into_iter().flatten().map(move |m| format!("{m} {path}"))).collect()
}

/// Whether it needs no authentication.
fn is_open(operation: &Operation) -> bool {
    operation.security.as_ref().is_some_and(|security| security.iter().all(|s| *s == SecurityRequirement::default()))
}

fn is_query(parameter: &RefOr<Parameter>) -> bool {
    matches!(parameter, RefOr::T(Parameter { parameter_in: ParameterIn::Query, .. }))
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten()
}

/// Documents these statuses as failures, unless the route does so itself.
fn fail(operation: &mut Operation, statuses: &[&str]) {
    for status in statuses {
        let Some(name) = failure_name(status) else { continue };
        let known = operation.responses.responses.entry((*status).to_owned());
        known.or_insert_with(|| RefOr::Ref(Ref::from_response_name(name)));
    }
}

fn failure(meaning: &str) -> Response {
    let body = Content::new(Some(Ref::from_schema_name("ErrorBody")));
    ResponseBuilder::new().description(meaning).content("application/json", body).build()
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
            "A name for this request, chosen by the client. Repeated within a day with the same key, the request is \
             executed once and gets the same answer; a different request with the same key is refused.",
        ))
        .schema(Some(Schema::Object(schema)))
        .build()
}
