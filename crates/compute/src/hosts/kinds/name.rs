//! The name of a host kind in requests, responses and the database.

use std::fmt::{self, Formatter};

use kernel::error::{Code, Error, Result};
use kernel::stored_enum;
use serde::de::{EnumAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

use super::{HostKind, Registered, all};

/// The name of a host's kind; `unknown` for a kind that only a newer version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindName(&'static str);

stored_enum!(KindName, Self::UNKNOWN);

impl KindName {
    const UNKNOWN: Self = Self("unknown");

    /// The name of this kind.
    pub fn of<K: HostKind>() -> Self {
        Self(K::NAME)
    }

    /// As stored.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// The registered kind of this name.
    pub(in crate::hosts) fn registered(self) -> Result<Registered> {
        all().into_iter().find(|kind| kind.name == self.0).ok_or_else(|| {
            Error::new(Code::Conflict, "This is a host of a kind that only a newer version of Innkeeper knows.")
        })
    }
}

impl Serialize for KindName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

/// Accepts what serde's derive accepts for an enum of the registered names, and fails with the same messages.
impl<'de> Deserialize<'de> for KindName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_enum("HostKind", &[], Variant)
    }
}

struct Variant;

impl<'de> Visitor<'de> for Variant {
    type Value = KindName;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("enum HostKind")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<KindName, A::Error> {
        let (Word(name), nothing) = data.variant()?;
        nothing.unit_variant()?;
        Ok(name)
    }
}

/// The variant's name.
struct Word(KindName);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(Identifier)
    }
}

struct Identifier;

impl Visitor<'_> for Identifier {
    type Value = Word;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("variant identifier")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Word, E> {
        let names: Vec<&'static str> = all().into_iter().map(|kind| kind.name).collect();
        let known = names.iter().find(|name| **name == text);
        known
            .map(|name| Word(KindName(name)))
            .ok_or_else(|| E::custom(format_args!("unknown variant `{text}`, expected {}", alternatives(&names))))
    }
}

fn alternatives(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.len() {
        0..=2 => names.join(" or "),
        _ => format!("one of {}", names.join(", ")),
    }
}

impl utoipa::PartialSchema for KindName {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(all().into_iter().map(|kind| kind.name)))
            .description(Some("The kinds of hosts that there are drivers for."))
            .into()
    }
}

impl utoipa::ToSchema for KindName {
    fn name() -> std::borrow::Cow<'static, str> {
        "HostKind".into()
    }
}
