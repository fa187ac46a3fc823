//! Business logic for SSH keys.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use kernel::core::Core;
use kernel::db;
use kernel::error::{Code, Error, Result};
use kernel::http::owned::Owned;
use kernel::http::text;
use kernel::idempotency::Once;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::model::{NewSshKey, SshKey, SshKeyRecord};
use super::store;
use crate::ids::{AccountId, SshKeyId};

/// The maximum number of keys per account.
const MOST: i64 = 100;
/// The maximum number of keys per server.
const MOST_OF_A_SERVER: usize = 20;

/// An account's keys, oldest first.
pub async fn list(core: &Core, account: AccountId) -> Result<Vec<SshKey>> {
    Ok(store::list(&core.db, account).await?)
}

/// Adds a key. The caller has validated `new`.
pub async fn add(core: &Core, once: &Once, account: AccountId, new: NewSshKey) -> Result<SshKey> {
    let fingerprint = fingerprint(&new.public_key);
    let (name, key) = (new.name.trim(), new.public_key.trim());
    let taken = || Error::new(Code::AlreadyExists, "Your account already has this SSH key.");
    once.run(core, async |tx| {
        if store::lock_and_count(tx, account).await? >= MOST {
            return Err(Error::new(
                Code::ResourceUnavailable,
                format!("Your account has {MOST} SSH keys; delete one."),
            ));
        }
        store::insert(tx, account, name, key, &fingerprint).await?.ok_or_else(taken)
    })
    .await
}

/// Deletes a key.
pub async fn delete(core: &Core, access: &Owned<SshKeyRecord>) -> Result<()> {
    let mut tx = db::begin(&core.db).await?;
    match store::delete(&mut tx, access.thing.account, access.thing.id).await? {
        true => tx.commit().await,
        false => Err(Error::not_found("SSH key")),
    }
}

/// Merges lines and keys of the account into one list without duplicates. Ids that aren't the account's are an error of
/// `sshKeyIds`.
pub async fn together(
    tx: &mut PgConnection,
    account: AccountId,
    lines: &[String],
    ids: &[SshKeyId],
) -> Result<Vec<String>> {
    let mut all = lines.to_vec();
    for id in ids {
        let unknown = || Error::field("sshKeyIds", format!("There is no SSH key {id} in your account."));
        let key = store::public_key(tx, account, *id).await?.ok_or_else(unknown)?;
        // Older versions accepted keys that no SSH server accepts.
        text::ssh_key(&key, &())
            .map_err(|problem| Error::field("sshKeyIds", format!("The SSH key {id} {problem}. Replace it.")))?;
        all.push(key);
    }
    let mut known = std::collections::HashSet::new();
    all.retain(|key| known.insert(fingerprint(key)));
    match all.len() > MOST_OF_A_SERVER {
        true => Err(Error::field("sshKeyIds", format!("A server can have at most {MOST_OF_A_SERVER} SSH keys."))),
        false => Ok(all),
    }
}

/// The key's fingerprint as printed by OpenSSH; the line must have passed [`kernel::http::text::ssh_key`].
fn fingerprint(line: &str) -> String {
    let body = line.split_whitespace().nth(1).and_then(|b| STANDARD.decode(b).ok()).unwrap_or_default();
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(body)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_fingerprint_is_what_ssh_keygen_prints() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2X0OWNlLS+ChqYjV8kNwVsWTB5Yc7vYXxWk0GmKoIh me@there";
        assert_eq!(super::fingerprint(key), "SHA256:jplVdD3DTURTIaNMwccPtyvRg7vHg9qw6xQMkHPgyRc");
    }
}
