//! Labels: key-value pairs that customers attach to servers, and the selector syntax for filtering by them.

use std::collections::BTreeMap;
use std::str::FromStr;

use garde::Validate;
use serde::{Deserialize, Serialize};

/// Labels by key. At most 32; keys and values have up to 63 letters, digits, `-`, `_`, `.` and inner `/`, and a value
/// may be empty (the format of Kubernetes labels, which many users know).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(example = json!({ "env": "production", "team": "shop" }))]
pub struct Labels(#[garde(length(max = 32), custom(words))] pub BTreeMap<String, String>);

fn words(labels: &BTreeMap<String, String>, (): &()) -> garde::Result {
    match labels.iter().find(|(k, v)| !is_word(k) || !(v.is_empty() || is_word(v))) {
        None => Ok(()),
        Some(_) => Err(garde::Error::new(
            "keys and values must have 1 to 63 letters, digits, -, _, . or /, and begin and end with a letter or digit",
        )),
    }
}

fn is_word(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && ends(text.chars().next())
        && ends(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

/// A label selector: `env=production,team!=shop,web,!old`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// `key=value`: all of these must match.
    pub equal: BTreeMap<String, String>,
    /// `key!=value`: none of these may match; a server without the key passes.
    pub unequal: Vec<BTreeMap<String, String>>,
    /// `key`: all of these keys must be present.
    pub present: Vec<String>,
    /// `!key`: none of these keys may be present.
    pub absent: Vec<String>,
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut selector = Self::default();
        for part in text.split(',').map(str::trim) {
            let wrong = || format!("`{part}` is not one of key=value, key!=value, key and !key");
            let word = |text: &str| is_word(text).then(|| text.to_owned()).ok_or_else(wrong);
            let value = |text: &str| if text.is_empty() { Ok(String::new()) } else { word(text) };
            if let Some((key, not)) = part.split_once("!=") {
                selector.unequal.push(BTreeMap::from([(word(key)?, value(not)?)]));
            } else if let Some((key, equal)) = part.split_once('=') {
                let before = selector.equal.insert(word(key)?, value(equal)?);
                // Both can't match, and the map holds only one.
                if before.is_some_and(|before| before != equal) {
                    return Err(format!("`{key}` can't have two values"));
                }
            } else if let Some(key) = part.strip_prefix('!') {
                selector.absent.push(word(key)?);
            } else {
                selector.present.push(word(part)?);
            }
        }
        Ok(selector)
    }
}

/// Validates a [`Selector`] in a query parameter.
pub(super) fn selector(text: &str, (): &()) -> garde::Result {
    text.parse::<Selector>().map(drop).map_err(garde::Error::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_has_four_kinds_of_parts() {
        let read: Selector = "env=production, team!=shop,web,!old".parse().unwrap();
        assert_eq!(read.equal, BTreeMap::from([("env".to_owned(), "production".to_owned())]));
        assert_eq!(read.unequal, [BTreeMap::from([("team".to_owned(), "shop".to_owned())])]);
        assert_eq!((read.present, read.absent), (vec!["web".to_owned()], vec!["old".to_owned()]));
        for bad in ["", ",", "a b", "=x", "a=b=c", "!", "a=1,a=2", "ключ=1", "a='1'"] {
            assert!(bad.parse::<Selector>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn labels_are_words() {
        let with = |k: &str, v: &str| Labels(BTreeMap::from([(k.to_owned(), v.to_owned())])).validate().is_ok();
        assert!(with("env", "") && with("example.com/role", "a_b-c.d") && with("1", "2"));
        assert!(
            !with("", "x") && !with("-a", "x") && !with("a", "x y") && !with("a", "ы") && !with(&"k".repeat(64), "")
        );
    }
}
