//! Images to make guests from.

use hypervisor::{Error, GuestKind, GuestSpec, Result};
use serde::Deserialize;

use crate::client::Client;
use crate::lookup::instance_type;

/// Looks an image of this kind up by alias or fingerprint.
pub(crate) async fn fingerprint(client: &Client, kind: GuestKind, source: &str) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Alias {
        target: String,
    }
    #[derive(Deserialize)]
    struct Image {
        fingerprint: String,
        #[serde(rename = "type")]
        kind: String,
    }
    if source.is_empty() || source.chars().any(char::is_control) {
        return Err(Error::Invalid(format!("{source:?} is not a valid image name")));
    }
    let alias: Option<Alias> = client.get_opt(&["images", "aliases", source], &[]).await?;
    let fingerprint = match alias {
        Some(alias) => alias.target,
        None if source.len() >= 12 && source.chars().all(|c| c.is_ascii_hexdigit()) => source.to_owned(),
        None => return Ok(None),
    };
    let image: Option<Image> = client.get_opt(&["images", &fingerprint], &[]).await?;
    Ok(image.filter(|image| image.kind == instance_type(kind)).map(|image| image.fingerprint))
}

pub(crate) async fn for_spec(client: &Client, spec: &GuestSpec) -> Result<String> {
    let missing = || Error::NotFound(format!("image {} for a {}", spec.image, instance_type(spec.guest.kind)));
    fingerprint(client, spec.guest.kind, &spec.image).await?.ok_or_else(missing)
}
