//! Images as they are asked for and answered.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::http::page::Listed;
use crate::http::text;
use crate::ids::{HostId, ImageId};
use crate::stored::stored;
use crate::tariffs::Kind;

/// How root signs in over SSH to what an image installs. It is the image's own affair, and can't be seen from here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RootLogin {
    /// With the root password, or with an SSH key.
    Password,
    /// With an SSH key: so it is in Debian's, Ubuntu's and most other systems, containers and cloud images alike.
    #[default]
    Key,
    /// Not at all: the system has no SSH server, or lets no root in.
    None,
    /// One that a newer version knows and this one does not.
    #[serde(skip_deserializing)]
    #[value(skip)]
    Unknown,
}

stored!(RootLogin, Self::Unknown);

impl RootLogin {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Key => "key",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// An operating system to install.
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
    /// What it installs.
    pub kind: Kind,
    /// How root signs in over SSH to what it installs.
    pub root_login: RootLogin,
    /// Whether it can be ordered.
    pub enabled: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// An image with where it is to be had, which only providers are told.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageView {
    /// The image.
    #[serde(flatten)]
    pub image: Image,
    /// Where it is to be had; for providers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<ImageSource>>,
}

impl Listed for ImageView {
    fn facts(&self) -> (i64, &str, bool, DateTime<Utc>, DateTime<Utc>) {
        (self.image.id.0, &self.image.name, self.image.enabled, self.image.created_at, self.image.updated_at)
    }
}

/// Where an image is to be had on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageSource {
    /// The host.
    #[garde(skip)]
    pub host_id: HostId,
    /// The image in the host's own terms: an Incus alias or fingerprint.
    #[garde(length(chars, max = 255), custom(text::title))]
    #[schema(example = "debian-12")]
    pub source: String,
}

/// A new image.
#[derive(Debug, Clone, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewImage {
    /// Its name, in any script; no two images of a kind have the same, without regard to case.
    #[garde(length(chars, max = 100), custom(text::title))]
    pub name: String,
    /// The operating system's family; `linux` if left out.
    #[serde(default = "linux", rename = "type")]
    #[garde(length(chars, max = 40), custom(text::title))]
    pub family: String,
    /// What it installs.
    #[garde(skip)]
    pub kind: Kind,
    /// How root signs in over SSH to what it installs, for the mail that a server is ready; `key` if left out.
    #[serde(default)]
    #[garde(skip)]
    pub root_login: RootLogin,
    /// Whether it can be ordered; true if left out.
    #[serde(default = "yes")]
    #[garde(skip)]
    pub enabled: bool,
    /// Where it is to be had.
    #[serde(default)]
    #[garde(length(max = 100), custom(distinct), dive)]
    pub sources: Vec<ImageSource>,
    /// Whether to ask the hosts for it before saving; true if left out.
    #[serde(default = "yes")]
    #[garde(skip)]
    pub verify: bool,
}

/// A change of an image. Fields left out stay as they are; `sources` are replaced as a whole.
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
    /// What it installs.
    #[garde(skip)]
    pub kind: Option<Kind>,
    /// How root signs in over SSH to what it installs.
    #[garde(skip)]
    pub root_login: Option<RootLogin>,
    /// Whether it can be ordered.
    #[garde(skip)]
    pub enabled: Option<bool>,
    /// Where it is to be had: these and no others.
    #[garde(length(max = 100), custom(distinct_opt), dive)]
    pub sources: Option<Vec<ImageSource>>,
    /// Whether to ask the hosts for new sources before saving; true if left out.
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
        false => Err(garde::Error::new("must name each host once")),
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
