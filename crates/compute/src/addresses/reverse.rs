//! Reverse DNS names (PTR), and who may set which. A name in a reverse zone is the provider's statement about who is at
//! an address: mail servers and logs trust it. So accounts may only use names in domains that the provider knows to be
//! theirs, or that the provider opens to all accounts.

use kernel::core::Core;
use kernel::db;
use kernel::error::{Error, Result};
use sqlx::PgConnection;

use super::settings::suffix;
use super::{Addresses, store};
use crate::ids::AccountId;

/// Whether a name is this domain or in it.
fn is_below(name: &str, suffix: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Refuses a reverse DNS name that the account may not use.
pub async fn check(pools: &Addresses, tx: &mut PgConnection, account: AccountId, name: &str) -> Result<()> {
    let mut allowed = store::suffixes(tx, account).await?;
    allowed.extend(pools.settings.reverse_suffixes.names().iter().cloned());
    if allowed.iter().any(|suffix| is_below(name, suffix)) {
        return Ok(());
    }
    let message = match allowed.as_slice() {
        [] => "Your account may not use any domain for reverse DNS names; ask the provider to allow one.".to_owned(),
        names => {
            format!("Your account may only use names in {}; ask the provider to allow other domains.", names.join(", "))
        }
    };
    Err(Error::field("reverseDns", message))
}

/// The domains in which an account may name its addresses, beyond those open to all accounts.
pub async fn allowed(core: &Core, account: AccountId) -> Result<Vec<String>> {
    store::suffixes(&mut *core.db.acquire().await?, account).await
}

/// Allows or forbids an account to name its addresses in a domain. Existing names stay.
pub async fn allow(core: &Core, account: AccountId, name: &str, allow: bool) -> Result<()> {
    let name = suffix(name).map_err(|problem| Error::field("suffix", problem))?;
    let mut tx = db::begin(&core.db).await?;
    store::set_suffix(&mut tx, account, &name, allow).await?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::super::settings::Suffixes;
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
        assert_eq!(list.names(), ["example.com", "customers.example.net"]);
        assert!(Suffixes::default().names().is_empty() && Suffixes::try_from("a b".to_owned()).is_err());
    }
}
