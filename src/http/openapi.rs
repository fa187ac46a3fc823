//! The OpenAPI document's frame; its paths come from the routes themselves.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

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
