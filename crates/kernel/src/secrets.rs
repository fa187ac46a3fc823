//! Secrets: sealing with the master key, bearer tokens and their hashes, readable passwords.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::hashing;

/// Seals small secrets (host credentials, passwords on their way to a guest) with the master key: XChaCha20-Poly1305,
/// with a random nonce in front, and bound to a purpose, so that a sealed value can't be used for another one. Old keys
/// only open secrets that were sealed with them.
#[derive(Clone)]
pub struct Sealer {
    master: MasterKey,
    old: Vec<MasterKey>,
}

#[derive(Clone)]
struct MasterKey {
    cipher: XChaCha20Poly1305,
    mac: Hmac<Sha256>,
}

/// The key that opens a sealed secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealedBy {
    /// The master key.
    Master,
    /// An old key; holds the same secret sealed with the master key.
    Old(Vec<u8>),
    /// No key that we have.
    Unknown,
}

/// The fingerprint of a request: by the master key, and by each old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(Vec<[u8; 32]>);

impl Fingerprint {
    /// The value to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0[0]
    }

    /// Whether a stored fingerprint, made before or after a change of keys, belongs to the same request.
    pub fn matches(&self, stored: &[u8]) -> bool {
        self.0.iter().any(|known| known == stored)
    }
}

const NONCE: usize = 24;

impl Sealer {
    /// Takes the master key and the old ones: each 32 bytes in base64.
    pub fn new(key: &SecretString, old: &[SecretString]) -> anyhow::Result<Self> {
        Ok(Self {
            master: MasterKey::new(key, "INNKEEPER_SECRET_KEY")?,
            old: old
                .iter()
                .map(|key| MasterKey::new(key, "each of INNKEEPER_OLD_SECRET_KEYS"))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Seals `plain` for `purpose` (a fixed name such as `host`).
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>> {
        let nonce: [u8; NONCE] = rand::rng().random();
        let sealed = self
            .master
            .cipher
            .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: purpose.as_bytes() })
            .map_err(|_| Error::internal(anyhow::anyhow!("sealing failed")))?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens a value that [`Self::seal`] sealed for the same purpose, with this master key or an old one.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        let failed = || {
            Error::internal(anyhow::anyhow!(
                "a sealed {purpose} secret can't be opened with INNKEEPER_SECRET_KEY or INNKEEPER_OLD_SECRET_KEYS"
            ))
        };
        self.keys().find_map(|key| key.open(purpose, sealed)).ok_or_else(failed)
    }

    /// Returns the key that opens a secret and, if that is an old one, the same secret sealed with the master key.
    pub fn sealed_by(&self, purpose: &str, sealed: &[u8]) -> Result<SealedBy> {
        if self.master.open(purpose, sealed).is_some() {
            return Ok(SealedBy::Master);
        }
        match self.old.iter().find_map(|key| key.open(purpose, sealed)) {
            Some(plain) => self.seal(purpose, &plain).map(SealedBy::Old),
            None => Ok(SealedBy::Unknown),
        }
    }

    fn keys(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.master).chain(&self.old)
    }

    /// A keyed fingerprint of the parts. It reveals nothing without the master key, even if they are easy to guess (a
    /// user's password).
    pub fn fingerprint(&self, parts: &[&[u8]]) -> Fingerprint {
        Fingerprint(self.keys().map(|key| key.fingerprint(parts)).collect())
    }

    /// Seals a password to be stored in an operation's data.
    pub fn seal_text(&self, purpose: &str, plain: &SecretString) -> Result<Sealed> {
        Ok(Sealed(STANDARD.encode(self.seal(purpose, plain.expose_secret().as_bytes())?)))
    }

    /// Opens a value that [`Self::seal_text`] sealed.
    pub fn open_text(&self, purpose: &str, sealed: &Sealed) -> Result<SecretString> {
        let bytes = self.open(purpose, &STANDARD.decode(&sealed.0).map_err(Error::internal)?)?;
        String::from_utf8(bytes).map(SecretString::from).map_err(Error::internal)
    }
}

impl MasterKey {
    fn new(key: &SecretString, name: &str) -> anyhow::Result<Self> {
        let bytes = STANDARD.decode(key.expose_secret().trim()).ok().filter(|b| b.len() == 32).ok_or_else(|| {
            anyhow::anyhow!("{name} must be 32 bytes in base64; generate one with `openssl rand -base64 32`")
        })?;
        let key = Key::try_from(bytes.as_slice())?;
        let mac = Hmac::new_from_slice(&Sha256::digest([b"innkeeper fingerprint ", bytes.as_slice()].concat()))?;
        Ok(Self { cipher: XChaCha20Poly1305::new(&key), mac })
    }

    fn open(&self, purpose: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_at_checked(NONCE)?;
        let nonce = XNonce::try_from(nonce).ok()?;
        self.cipher.decrypt(&nonce, Payload { msg: body, aad: purpose.as_bytes() }).ok()
    }

    fn fingerprint(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.mac.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

/// A sealed text in base64: safe to store, useless without the master key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

impl Sealed {
    /// Returns the key that opens it. If that is an old one, reseals it with the master key.
    pub fn reseal(&mut self, sealer: &Sealer, purpose: &str) -> Result<SealedBy> {
        let bytes = STANDARD.decode(&self.0).map_err(Error::internal)?;
        let by = sealer.sealed_by(purpose, &bytes)?;
        if let SealedBy::Old(new) = &by {
            self.0 = STANDARD.encode(new);
        }
        Ok(by)
    }
}

/// Generates a bearer token: the text for the client, which is shown only once, and the hash to store.
pub fn new_token(prefix: &str) -> (SecretString, [u8; 32]) {
    let bytes: [u8; 32] = rand::rng().random();
    let text = format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes));
    let hash = hash_token(&text);
    (SecretString::from(text), hash)
}

/// The hash that a token is stored under. Tokens are 256 random bits, so a plain hash can't be reversed.
pub fn hash_token(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// A password for people to read and type: four groups of five characters, about 99 bits, without look-alikes.
pub fn readable_password() -> SecretString {
    const LETTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyzACDEFGHJKLMNPQRTUVWXY34679";
    let mut rng = rand::rng();
    let group = |rng: &mut rand::rngs::ThreadRng| -> String {
        (0..5).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
    };
    let groups: Vec<String> = (0..4).map(|_| group(&mut rng)).collect();
    SecretString::from(groups.join("-"))
}

/// Hashes a user's password with argon2id.
pub async fn hash_password(password: SecretString) -> Result<String> {
    hashing::hash(hashing::HashClient::Known, password).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretString {
        SecretString::from(STANDARD.encode([byte; 32]))
    }

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(&key(byte), &[]).unwrap()
    }

    #[test]
    fn an_old_key_opens_and_the_first_one_seals() {
        let both = Sealer::new(&key(2), &[key(1)]).unwrap();
        let old = sealer(1).seal("host", b"secret").unwrap();
        assert_eq!(both.open("host", &old).unwrap(), b"secret");
        let SealedBy::Old(new) = both.sealed_by("host", &old).unwrap() else { panic!("it is sealed by the old key") };
        assert_eq!(sealer(2).open("host", &new).unwrap(), b"secret");
        assert_eq!(both.sealed_by("host", &new).unwrap(), SealedBy::Master);
        assert_eq!(sealer(2).sealed_by("host", &old).unwrap(), SealedBy::Unknown);
        assert!(both.fingerprint(&[b"a"]).matches(sealer(1).fingerprint(&[b"a"]).as_bytes()));
        assert!(!sealer(2).fingerprint(&[b"a"]).matches(sealer(1).fingerprint(&[b"a"]).as_bytes()));
    }

    #[test]
    fn a_sealed_secret_opens_only_with_its_key_and_purpose() {
        let sealed = sealer(1).seal("host", b"secret").unwrap();
        assert_eq!(sealer(1).open("host", &sealed).unwrap(), b"secret");
        assert!(sealer(2).open("host", &sealed).is_err());
        assert!(sealer(1).open("password", &sealed).is_err());
        assert!(sealer(1).open("host", &sealed[..10]).is_err());
        assert!(!sealed.windows(6).any(|w| w == b"secret"));
    }

    #[test]
    fn fingerprints_differ_by_key_and_by_part() {
        let print = |byte, parts: &[&[u8]]| sealer(byte).fingerprint(parts);
        assert_eq!(print(1, &[b"ab", b"c"]), print(1, &[b"ab", b"c"]));
        assert_ne!(print(1, &[b"ab", b"c"]), print(1, &[b"a", b"bc"]));
        assert_ne!(print(1, &[b"ab", b"c"]), print(2, &[b"ab", b"c"]));
    }

    #[test]
    fn the_master_key_must_be_32_bytes() {
        assert!(Sealer::new(&SecretString::from("c2hvcnQ="), &[]).is_err());
        assert!(Sealer::new(&key(1), &[SecretString::from("not base64!")]).is_err());
    }

    #[test]
    fn generated_passwords_differ_and_read_well() {
        let (a, b) = (readable_password(), readable_password());
        assert_ne!(a.expose_secret(), b.expose_secret());
        assert_eq!(a.expose_secret().len(), 23);
        assert!(a.expose_secret().chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
    }
}
