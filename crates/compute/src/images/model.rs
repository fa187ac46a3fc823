//! Request and response types for images.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use garde::Validate;
use kernel::http::page::Listed;
use kernel::http::text;
use kernel::stored_enum;
use serde::{Deserialize, Serialize};

use crate::ids::{HostId, ImageId};
use crate::tariffs::ServerKind;

/// How root logs in over SSH to a server made from an image. This depends on the image and can't be detected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RootLogin {
    /// With the root password, or with an SSH key.
    Password,
    /// With an SSH key only: the default of Debian, Ubuntu and most other systems, for containers and cloud images
    /// alike.
    #[default]
    Key,
    /// Not at all: the system has no SSH server, or doesn't allow root logins.
    None,
    /// A value that only a newer version knows.
    #[serde(skip_deserializing)]
    #[value(skip)]
    Unknown,
}

stored_enum!(RootLogin, Self::Unknown);

impl RootLogin {
    /// The value stored in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Key => "key",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// An operating system image.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// Its name, in any script.
    #[schema(example = "Debian 12")]
    pub name: String,
    /// The operating system's family.
    #[serde(rename = "type")]
    #[schema(example = "linux")]
    pub family: String,
    /// The kind of guest that it is for.
    pub kind: ServerKind,
    /// How root logs in over SSH to a server made from it.
    pub root_login: RootLogin,
    /// Whether it can be ordered.
    pub enabled: bool,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// An image with its sources, which only providers see.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageView {
    /// The image.
    #[serde(flatten)]
    pub image: Image,
    /// Where hosts have it; for providers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<ImageSource>>,
}

impl Listed for ImageView {
    fn facts(&self) -> (i64, &str, bool, DateTime<Utc>, DateTime<Utc>) {
        (self.image.id.0, &self.image.name, self.image.enabled, self.image.created_at, self.image.updated_at)
    }
}

/// An image's source on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageSource {
    /// The host.
    #[garde(skip)]
    pub host_id: HostId,
    /// The image as the host names it: an Incus alias or fingerprint.
    #[garde(length(chars, max = 255), custom(text::title))]
    #[schema(example = "debian-12")]
    pub source: String,
}

/// A new image.
#[derive(Debug, Clone, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewImage {
    /// Its name, in any script; unique among images of the same kind, ignoring case.
    #[garde(length(chars, max = 100), custom(text::title))]
    pub name: String,
    /// The operating system's family; `linux` if omitted.
    #[serde(default = "linux", rename = "type")]
    #[garde(length(chars, max = 40), custom(text::title))]
    pub family: String,
    /// The kind of guest that it is for.
    #[garde(skip)]
    pub kind: ServerKind,
    /// How root logs in over SSH to a server made from it, for the email that a server is ready; `key` if omitted.
    #[serde(default)]
    #[garde(skip)]
    pub root_login: RootLogin,
    /// Whether it can be ordered; true if omitted.
    #[serde(default = "yes")]
    #[garde(skip)]
    pub enabled: bool,
    /// Where hosts have it.
    #[serde(default)]
    #[garde(length(max = 100), custom(distinct), dive)]
    pub sources: Vec<ImageSource>,
    /// Whether to check with the hosts that they have it before saving; true if omitted.
    #[serde(default = "yes")]
    #[garde(skip)]
    pub verify: bool,
}

/// A change of an image. Omitted fields stay unchanged; `sources` are replaced as a whole.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateImage {
    /// Its name.
    #[garde(inner(length(chars, max = 100), custom(text::title)))]
    pub name: Option<String>,
    /// The operating system's family.
    #[serde(rename = "type")]
    #[garde(inner(length(chars, max = 40), custom(text::title)))]
    pub family: Option<String>,
    /// The kind of guest that it is for.
    #[garde(skip)]
    pub kind: Option<ServerKind>,
    /// How root logs in over SSH to a server made from it.
    #[garde(skip)]
    pub root_login: Option<RootLogin>,
    /// Whether it can be ordered.
    #[garde(skip)]
    pub enabled: Option<bool>,
    /// Where hosts have it: these replace all current sources.
    #[garde(length(max = 100), custom(distinct_opt), dive)]
    pub sources: Option<Vec<ImageSource>>,
    /// Whether to check with the hosts that they have new sources before saving; true if omitted.
    #[serde(default = "yes")]
    #[garde(skip)]
    pub verify: bool,
}

fn linux() -> String {
    "linux".to_owned()
}

fn yes() -> bool {
    true
}

fn distinct(sources: &[ImageSource], (): &()) -> garde::Result {
    let mut hosts = HashSet::new();
    match sources.iter().all(|s| hosts.insert(s.host_id)) {
        true => Ok(()),
        false => Err(garde::Error::new("must name each host only once")),
    }
}

#[allow(clippy::ref_option, reason = "garde calls it with a reference to the field")]
fn distinct_opt(sources: &Option<Vec<ImageSource>>, ctx: &()) -> garde::Result {
    sources.as_deref().map_or(Ok(()), |s| distinct(s, ctx))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_name_each_host_once() {
        let sources = |list: &str| {
            let json = format!(r#"{{"name": "Debian 12", "kind": "lxc", "sources": [{list}]}}"#);
            serde_json::from_str::<NewImage>(&json).unwrap().validate()
        };
        assert!(sources(r#"{"hostId": 1, "source": "debian"}, {"hostId": 2, "source": "debian"}"#).is_ok());
        assert!(sources(r#"{"hostId": 1, "source": "debian"}, {"hostId": 1, "source": "other"}"#).is_err());
        assert!(sources(r#"{"hostId": 1, "source": " "}"#).is_err());
        let update: UpdateImage = serde_json::from_str(r#"{"sources": [{"hostId": 1, "source": "a\u0000"}]}"#).unwrap();
        assert!(update.verify && update.validate().is_err());
    }
}
