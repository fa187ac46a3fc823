//! Reverse names (PTR): who may have which. A name in a reverse zone is the provider's word for who is there: mail servers
//! and logs believe it. So an account names its addresses below the names that it has shown the provider to own, or that
//! the provider gives to everybody, and no others.

use sqlx::PgConnection;

use super::store;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::http::text;
use crate::ids::UserId;

/// Names by commas, below which everybody may name their addresses.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Suffixes(Vec<String>);

impl TryFrom<String> for Suffixes {
    type Error = String;

    fn try_from(list: String) -> std::result::Result<Self, Self::Error> {
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        names
            .map(|name| suffix(name).map_err(|problem| format!("{name} {problem}")))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// A name as it is kept: small letters, no dot around it.
fn suffix(name: &str) -> std::result::Result<String, String> {
    let name = name.trim_matches('.').to_ascii_lowercase();
    text::domain(&name, &()).map_err(|problem| problem.to_string())?;
    Ok(name)
}

/// Whether a name is this one or below it.
fn is_below(name: &str, suffix: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Refuses a name that the account may not give to its addresses.
pub async fn check(core: &Core, tx: &mut PgConnection, user: UserId, name: &str) -> Result<()> {
    let mut allowed = store::suffixes(tx, user).await?;
    allowed.extend(core.config.reverse_suffixes.0.iter().cloned());
    if allowed.iter().any(|suffix| is_below(name, suffix)) {
        return Ok(());
    }
    let message = match allowed.as_slice() {
        [] => "The provider has to allow your account a domain before its addresses can have names in it.".to_owned(),
        names => format!(
            "Your addresses can have names in {}; the provider has to allow your account others.",
            names.join(", ")
        ),
    };
    Err(Error::field("reverseDns", message))
}

/// The names below which an account may name its addresses, but for those that everybody may.
pub async fn allowed(core: &Core, user: UserId) -> Result<Vec<String>> {
    store::suffixes(&mut *core.db.acquire().await?, user).await
}

/// Lets an account name its addresses below a name, or no longer. Names that are given stay.
pub async fn allow(core: &Core, user: UserId, name: &str, allow: bool) -> Result<()> {
    let name = suffix(name).map_err(|problem| Error::field("suffix", problem))?;
    store::set_suffix(&core.db, user, &name, allow).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_below_another_by_whole_labels() {
        for (name, suffix, below) in [
            ("mail.example.com", "example.com", true),
            ("example.com", "example.com", true),
            ("MAIL.Example.COM", "example.com", true),
            ("mail.example.com", "mail.example.com", true),
            ("badexample.com", "example.com", false),
            ("example.com.evil.net", "example.com", false),
            ("com", "example.com", false),
        ] {
            assert_eq!(is_below(name, suffix), below, "{name} below {suffix}");
        }
    }

    #[test]
    fn a_list_of_names_is_read_and_nonsense_refused() {
        let list = Suffixes::try_from(" Example.com, .customers.example.net.,".to_owned()).unwrap();
        assert_eq!(list.0, ["example.com", "customers.example.net"]);
        assert!(Suffixes::default().0.is_empty() && Suffixes::try_from("a b".to_owned()).is_err());
    }
}
