//! Checks of text that people send, for garde's `custom`.

/// Refuses control characters (NUL, CR, LF, escape sequences) and marks that change the direction of text: they have
/// no place in a name, and carry attacks into logs, mails, configuration files and terminals.
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

/// A name for people, in any script: not blank, no spaces around it, no control characters.
pub fn title(text: &str, ctx: &()) -> garde::Result {
    if text.trim().is_empty() {
        return Err(garde::Error::new("must not be blank"));
    }
    trimmed(text, ctx)
}

/// [`plain`], with no spaces around it: they are not cut off in silence, what is stored is what was sent.
pub fn trimmed(text: &str, ctx: &()) -> garde::Result {
    if text.trim() != text {
        return Err(garde::Error::new("must not begin or end with a space"));
    }
    plain(text, ctx)
}

/// A host name: labels of letters, digits and inner hyphens, not numeric throughout (RFC 1123).
pub fn hostname(text: &str, (): &()) -> garde::Result {
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
    Err(garde::Error::new("must be a host name such as web-1 or web-1.example.com"))
}

/// One OpenSSH public key a line: a known type and base64, with an optional comment.
pub fn ssh_key(text: &str, ctx: &()) -> garde::Result {
    const TYPES: [&str; 7] = [
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    ];
    plain(text, ctx)?;
    let mut parts = text.split_whitespace();
    let known = parts.next().is_some_and(|t| TYPES.contains(&t));
    let body = parts.next().is_some_and(|b| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.decode(b).is_ok_and(|b| b.len() > 16)
    });
    match known && body {
        true => Ok(()),
        false => Err(garde::Error::new("must be an OpenSSH public key such as `ssh-ed25519 AAAA… name`")),
    }
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
}
