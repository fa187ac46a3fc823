//! Validates users' public keys, so that one that OpenSSH would not accept is reported before a guest gets it.

use russh::keys::PublicKey;
use russh::keys::ssh_key::public::KeyData;

/// Shortest and longest RSA key that OpenSSH accepts, in bits.
const RSA_BITS: std::ops::RangeInclusive<u32> = 1024..=16_384;

/// Why a line is not a valid public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadKey {
    /// It is not a key type followed by a key.
    Shape,
    /// It is a private key, which must be kept secret.
    Private,
    /// The text after the type is not a complete key of that type.
    Body,
    /// An RSA key that is too short or too long for OpenSSH.
    Length,
}

/// Checks that a line of `authorized_keys`, without options, holds a key that OpenSSH accepts.
///
/// # Errors
/// The reason why it is not valid.
pub fn check_key(line: &str) -> Result<(), BadKey> {
    const TYPES: [&str; 7] = [
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    ];
    if line.contains("PRIVATE KEY") {
        return Err(BadKey::Private);
    }
    let mut parts = line.split_whitespace();
    let (Some(kind), Some(body)) = (parts.next().filter(|kind| TYPES.contains(kind)), parts.next()) else {
        return Err(BadKey::Shape);
    };
    // The comment may be any text. The parser checks that the body is of the same type and has no trailing data.
    let key = PublicKey::from_openssh(&format!("{kind} {body}")).map_err(|_| BadKey::Body)?;
    match key.key_data() {
        KeyData::Rsa(rsa) if !RSA_BITS.contains(&rsa.key_size()) => Err(BadKey::Length),
        // OpenSSH does not read compressed points.
        KeyData::Ecdsa(point) if point.as_sec1_bytes().first() != Some(&4) => Err(BadKey::Body),
        KeyData::Dsa(_) | KeyData::Certificate(_) | KeyData::Other(_) => Err(BadKey::Shape),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One key of each type.
    const GOOD: [&str; 7] = [
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBUpNgsLazBUq/DZ37OqxVVmlSmbZTHbMtGBDrcUI4Br",
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDf9iyYEPaQEBLnIhT+O5KIHowsD/7Sr2tVhSf6/3zOQu0UBQKx240S+Nx57+pI26KZG4vz60VkJUGtw04qIgVycyn9brdbLGxFRgLsdNJA/QTNNUYto/es+beqObLCc5woeJLyTtuixLZUQHJuM7CHvjk693ByJpLmjbYEY5veLqUsrmSKthxJ5jGA22nTWFEYH9PoA8l2fQoyzlPcYYNua0oubzlItpsH5FYtQwnFJygG0nVjSf38LLtt0aKPWOlXIbjaT5OmMzXGUrBhLxhis/v3KI1xedux73uQnWdcwqZe1vhFB8vlYXhEWEhL2kTHDL6+KXStFtqaXwB2ggPn",
        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEjRqwU5/8sKSbpceVeLNDbo/PE2UZRxjE+nNa7gqUypxrSlr6hSguHO8X9VFwoWK339fpNeUMa5UQ64eRJvm5A=",
        "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBP5i9oc/Mcizppn8MCZFAfLheBijitNioPjuirN+7KQK4N5Let7JiF8BlydVN+GPFDwwJNvjyaxKPpnXXl9+NMFwDcT3fNWBiL835WK7+99UMfQspdYbTS1wK9w6HEKhNg==",
        "ecdsa-sha2-nistp521 AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBACus9GN2kbLviArPuBxO9jeVk0DnTWdz5p9+t58vPeHQJCTIpAhbB1fXApFEgQbjaso5mU7PMCNHh6H1+jng+ROYAH6WsAKOI73FqZe2b6JjyRYAosNLGo1Zo7dVgYvJV9qJldTHX27ELisxfGFG0kL+D/kOcUi+n3xP+MR4mxCt3cGWw==",
        "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIIK3Du5/GlA5vvB+wjR/Bm7Qj13HUSRH40BDAAJrblRVAAAABHNzaDo=",
        "sk-ecdsa-sha2-nistp256@openssh.com AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZAb3BlbnNzaC5jb20AAAAIbmlzdHAyNTYAAABBBEjRqwU5/8sKSbpceVeLNDbo/PE2UZRxjE+nNa7gqUypxrSlr6hSguHO8X9VFwoWK339fpNeUMa5UQ64eRJvm5AAAAAEc3NoOg==",
    ];

    #[test]
    fn whole_keys_pass_with_any_comment() {
        for key in GOOD {
            for comment in ["", " me@there", " it's \"me\": {} веб", "  two  spaces "] {
                assert_eq!(check_key(&format!("{key}{comment}")), Ok(()), "{key}{comment}");
            }
            assert_eq!(check_key(&key.replacen(' ', "\t ", 1)), Ok(()));
        }
    }

    /// Every key that is truncated anywhere, extended, or given another type is rejected.
    #[test]
    fn what_is_not_a_whole_key_of_its_type_is_refused() {
        for key in GOOD {
            let (kind, body) = key.split_once(' ').unwrap();
            for length in 0..body.len() {
                assert!(check_key(&format!("{kind} {}", &body[..length])).is_err(), "{kind} cut at {length}");
            }
            let body_whole = body.trim_end_matches('=');
            assert!(check_key(&format!("{kind} {body_whole}AAAA")).is_err(), "{kind} lengthened");
            for other in GOOD.iter().map(|other| other.split_once(' ').unwrap().0).filter(|other| *other != kind) {
                assert_eq!(check_key(&format!("{other} {body}")), Err(BadKey::Body), "{other} with a body of {kind}");
            }
        }
    }

    #[test]
    fn what_openssh_would_not_take_is_told_apart() {
        for shape in ["", "ssh-ed25519", "rsa AAAA", "ssh-dss AAAAB3NzaC1kc3M=", "command=\"x\" ssh-rsa AAAA"] {
            assert_eq!(check_key(shape), Err(BadKey::Shape), "{shape}");
        }
        assert_eq!(check_key("ssh-ed25519 AAAAAAAAAAAAAAAAAAAAAAA="), Err(BadKey::Body));
        assert_eq!(check_key("-----BEGIN OPENSSH PRIVATE KEY----- b3BlbnNz"), Err(BadKey::Private));
        let short = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAYQDDlKBlaF1kxJgLuNRUSochqZoBrSGetZz2oV728Vodgwu3zgnWu8AE5xdcZDx97LC1gOw3vJcS3S5qrrlLro0vn6KcWihMnvdSGCnPEHmwgOnXShwQ/KtqQkPTNlbevgE=";
        assert_eq!(check_key(short), Err(BadKey::Length));
    }
}
