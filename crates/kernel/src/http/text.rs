//! Validators for text from users, for garde's `custom`, and deserializers for lines.

use chrono::{DateTime, Datelike, Utc};
use hypervisor::ssh::BadKey;
use serde::{Deserialize, Deserializer};

/// Rejects control characters (NUL, CR, LF, escape sequences) and marks that change the direction of text: they have no
/// place in a name, and allow attacks on logs, emails, configuration files and terminals.
pub fn plain(text: &str, (): &()) -> garde::Result {
    let bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
    };
    match text.chars().any(bad) {
        true => Err(garde::Error::new("must not contain control characters or direction marks")),
        false => Ok(()),
    }
}

/// A display name in any script: not blank, no surrounding spaces, no control characters.
pub fn title(text: &str, ctx: &()) -> garde::Result {
    if text.trim().is_empty() {
        return Err(garde::Error::new("must not be blank"));
    }
    trimmed(text, ctx)
}

/// [`plain`], without surrounding spaces: these are not trimmed silently, what is stored is what was sent.
pub fn trimmed(text: &str, ctx: &()) -> garde::Result {
    if text.trim() != text {
        return Err(garde::Error::new("must not begin or end with a space"));
    }
    plain(text, ctx)
}

/// The longest host name that Linux accepts: a longer one is truncated, or keeps a container from starting.
const HOST_NAME: usize = 64;

/// A host name: a [`domain`] name short enough for Linux.
pub fn hostname(text: &str, ctx: &()) -> garde::Result {
    domain(text, ctx).map_err(|_| garde::Error::new("must be a host name such as web-1 or web-1.example.com"))?;
    match text.len() <= HOST_NAME {
        true => Ok(()),
        false => Err(garde::Error::new("must be a host name of at most 64 characters, including its domain")),
    }
}

/// A DNS name: labels of letters, digits and inner hyphens, not all numeric (RFC 1123).
pub fn domain(text: &str, (): &()) -> garde::Result {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let numeric = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    if text.len() <= 253 && !numeric && text.split('.').all(label) {
        return Ok(());
    }
    Err(garde::Error::new("must be a name such as mail.example.com"))
}

/// An email address that every relay accepts.
pub fn email(text: &str, ctx: &()) -> garde::Result {
    plain(text, ctx)?;
    let wrong = || garde::Error::new("must be an email address such as me@example.com");
    let (local, name) = text.rsplit_once('@').ok_or_else(wrong)?;
    if !name.is_ascii() {
        let words = "must have its domain in the xn-- form (ASCII), such as me@xn--e1afmkfd.example";
        return Err(garde::Error::new(words));
    }
    if !local.is_ascii() {
        return Err(garde::Error::new("must have only ASCII before the @: many mail servers accept nothing else"));
    }
    if name.starts_with('[') {
        return Err(garde::Error::new("must have a domain after the @, not an IP address"));
    }
    domain(name, ctx).map_err(|_| wrong())?;
    match crate::mail::service::is_deliverable(text) {
        true => Ok(()),
        false => Err(wrong()),
    }
}

/// An IANA time zone name.
pub fn time_zone(text: &str, (): &()) -> garde::Result {
    match text.parse::<chrono_tz::Tz>() {
        Ok(_) => Ok(()),
        Err(_) => Err(garde::Error::new("must be an IANA time zone name such as Europe/Berlin or UTC")),
    }
}

/// A time that the database can store.
pub fn instant(at: &DateTime<Utc>, (): &()) -> garde::Result {
    match (0..=9999).contains(&at.year()) {
        true => Ok(()),
        false => Err(garde::Error::new("must be in the years 0 to 9999")),
    }
}

/// A single OpenSSH public key: a known type and a complete key of that type, with an optional comment.
pub fn ssh_key(text: &str, ctx: &()) -> garde::Result {
    let words = match hypervisor::ssh::check_key(text) {
        Ok(()) => return plain(text, ctx),
        Err(BadKey::Private) => "is a private key, which you must never share; send the line from its .pub file",
        Err(BadKey::Shape) => "must be an OpenSSH public key such as `ssh-ed25519 AAAA… name`",
        Err(BadKey::Body) => "is not a complete key of its type; copy the line from the .pub file again",
        Err(BadKey::Length) => "is an RSA key of a length that OpenSSH does not accept: use 1024 to 16384 bits",
    };
    plain(text, ctx)?;
    Err(garde::Error::new(words))
}

/// Deserializes a line as `cat` prints it, without the trailing line end.
pub fn line<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    String::deserialize(from).map(cut)
}

/// Deserializes several lines, each like [`line()`].
pub fn lines<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Vec::<String>::deserialize(from).map(|lines| lines.into_iter().map(cut).collect())
}

/// Deserializes several lines, or null.
pub fn some_lines<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    let lines: Option<Vec<String>> = Option::deserialize(from)?;
    Ok(lines.map(|lines| lines.into_iter().map(cut).collect()))
}

fn cut(mut line: String) -> String {
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_script_pass_and_control_characters_do_not() {
        assert!(title("Базовый ☕", &()).is_ok());
        for bad in ["", "  ", " a", "a ", "a\0b", "a\r\nb", "\u{1b}[31m", "abc\u{202E}def", "\u{7f}"] {
            assert!(title(bad, &()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn host_names() {
        for good in ["web-1", "a", "web-1.example.com", "1a"] {
            assert!(hostname(good, &()).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", "10.0.0.1", "a_b", "a b", "веб", "a\n", &"a".repeat(64), "a."] {
            assert!(hostname(bad, &()).is_err(), "{bad:?}");
            assert!(domain(bad, &()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_host_name_is_no_longer_than_linux_has_it() {
        let name = |length: usize| format!("{}.{}", "c".repeat(59), "d".repeat(length - 60));
        assert!(hostname(&"a".repeat(63), &()).is_ok() && hostname(&name(64), &()).is_ok());
        for length in [65, 72, 104] {
            assert!(hostname(&name(length), &()).unwrap_err().to_string().contains("64"), "{length}");
            assert!(domain(&name(length), &()).is_ok(), "{length}");
        }
    }

    #[test]
    fn ssh_keys() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2X0OWNlLS+ChqYjV8kNwVsWTB5Yc7vYXxWk0GmKoIh me@there";
        assert!(ssh_key(key, &()).is_ok());
        for bad in
            ["", "ssh-ed25519", "ssh-ed25519 !!!", "rsa AAAA", &format!("{key}\n{key}"), "command=\"x\" ssh-rsa AAAA"]
        {
            assert!(ssh_key(bad, &()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn line_ends_behind_a_line_are_cut_off_and_no_others() {
        let read = |text: &str| line(serde_json::Value::from(text)).unwrap();
        assert_eq!((read("a b\n"), read("a b\r\n\n"), read("a\nb\n")), ("a b".into(), "a b".into(), "a\nb".into()));
        assert_eq!((read(" a "), read("\n"), read("a\t")), (" a ".into(), String::new(), "a\t".into()));
        assert_eq!(lines(serde_json::json!(["a\n", "b"])).unwrap(), ["a", "b"]);
        assert_eq!(some_lines(serde_json::Value::Null).unwrap(), None);
    }

    #[test]
    fn what_passes_for_a_mail_address_can_be_written_to() {
        for good in ["me@example.com", "a.b+c@xn--e1afmkfd.xn--p1ai", "o'brien@mail.example.com", "root@localhost"] {
            assert!(email(good, &()).is_ok(), "{good}");
        }
        for (bad, words) in [
            ("me@пример.example", "xn--"),
            ("me@b\u{fc}cher.example", "xn--"),
            ("почта@example.com", "ASCII"),
            ("x@[192.0.2.1]", "not an IP"),
            ("x@[IPv6:2001:db8::1]", "not an IP"),
            ("x@192.0.2.1", "such as"),
            ("", "such as"),
            ("me", "such as"),
            ("@example.com", "such as"),
            ("me@", "such as"),
            ("a b@example.com", "such as"),
            ("<me@example.com>", "such as"),
            ("me@example.com, you@example.com", "such as"),
            (".me@example.com", "such as"),
            ("me@example..com", "such as"),
            ("me@example.com.", "such as"),
            ("me@-example.com", "such as"),
            ("a\r\nb@example.com", "control"),
        ] {
            let error = email(bad, &()).unwrap_err().to_string();
            assert!(error.contains(words), "{bad:?}: {error}");
        }
        // An email can be built for every address that passes.
        let odd = "\"\\()<>[]:;@,. ab'%+!#$&*/=?^_`{|}~-\u{e9}";
        for first in odd.chars() {
            for second in odd.chars() {
                for text in [format!("{first}{second}@example.com"), format!("a{first}{second}b@example.com")] {
                    assert!(email(&text, &()).is_err() || crate::mail::service::is_deliverable(&text), "{text}");
                }
            }
        }
    }
}
