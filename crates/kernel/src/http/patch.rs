//! Fields of partial updates.

use serde::{Deserialize, Deserializer};

/// A field of a partial update that can also be cleared: omitted, `null`, or a value. Use with `#[serde(default)]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// Omitted: unchanged.
    #[default]
    Keep,
    /// `null`: cleared.
    Clear,
    /// The new value.
    Set(T),
}

impl<T> Patch<T> {
    /// The value of the field after the update.
    pub fn apply(self, current: Option<T>) -> Option<T> {
        match self {
            Self::Keep => current,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }

    /// The new value, if there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Keep | Self::Clear => None,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Clear, Self::Set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Update {
        #[serde(default)]
        field: Patch<i64>,
    }

    fn applied(json: &str) -> Option<i64> {
        serde_json::from_str::<Update>(json).unwrap().field.apply(Some(1))
    }

    #[test]
    fn left_out_null_and_a_value_differ() {
        assert_eq!(applied("{}"), Some(1));
        assert_eq!(applied(r#"{"field": null}"#), None);
        assert_eq!(applied(r#"{"field": 7}"#), Some(7));
        assert!(serde_json::from_str::<Update>(r#"{"field": "7"}"#).is_err());
    }
}
