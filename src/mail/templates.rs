//! What mails say, in text and HTML. Names in them are data: escaped in HTML, and on one line in both.

use std::net::IpAddr;

use askama::Template;

use crate::error::{Error, Result};
use crate::images::model::RootLogin;

/// A mail ready to be queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Subject, one line.
    pub subject: String,
    /// For readers of plain text.
    pub text: String,
    /// For everybody else.
    pub html: String,
}

/// A mail that can be written.
pub trait Mail {
    /// Subject, text and HTML.
    fn render(&self) -> Result<Rendered>;
}

/// "Your server is ready". It never holds a password: mail is no place for one.
#[derive(Debug)]
pub struct ServerReady<'a> {
    /// The server's host name.
    pub name: &'a str,
    /// Its addresses.
    pub addresses: &'a [IpAddr],
    /// Its tariff's name.
    pub tariff: &'a str,
    /// Its image's name.
    pub os: &'a str,
    /// How root signs in to it over SSH.
    pub root_login: RootLogin,
    /// Whether it was given SSH keys.
    pub has_keys: bool,
    /// Where to see it.
    pub url: &'a str,
}

#[derive(Template)]
#[template(path = "mail/server_ready.txt")]
struct ServerReadyText<'a> {
    name: &'a str,
    addresses: &'a [String],
    tariff: &'a str,
    os: &'a str,
    sign_in: SignIn,
    url: &'a str,
}

#[derive(Template)]
#[template(path = "mail/server_ready.html")]
struct ServerReadyHtml<'a> {
    name: &'a str,
    addresses: &'a [String],
    tariff: &'a str,
    os: &'a str,
    sign_in: SignIn,
    url: &'a str,
}

/// How to get in: only what the image permits, with what the server was given.
#[derive(Debug, Clone, Copy)]
struct SignIn {
    words: &'static str,
    ssh: bool,
}

impl SignIn {
    fn new(root_login: RootLogin, has_keys: bool) -> Self {
        let (words, ssh) = match (root_login, has_keys) {
            (RootLogin::Password, true) => {
                ("Sign in with the root password that was shown when you ordered it, or with your SSH key:", true)
            }
            (RootLogin::Password, false) => {
                ("Sign in with the root password that was shown when you ordered it:", true)
            }
            (RootLogin::Key, true) => (
                "Sign in with your SSH key. The root password that was shown when you ordered it is for the console.",
                true,
            ),
            (RootLogin::Key, false) => (
                "Sign in on its console, with the root password that was shown when you ordered it: this system lets \
                 root in over SSH with a key only, and the server was given none.",
                false,
            ),
            (RootLogin::Unknown, _) => {
                ("Sign in on its console, with the root password that was shown when you ordered it.", false)
            }
            (RootLogin::None, _) => (
                "Sign in on its console, with the root password that was shown when you ordered it: this system does \
                 not let root in over SSH.",
                false,
            ),
        };
        Self { words, ssh }
    }
}

impl Mail for ServerReady<'_> {
    fn render(&self) -> Result<Rendered> {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let (name, tariff, os, url) = (&line(self.name), &line(self.tariff), &line(self.os), &line(self.url));
        let addresses = &addresses;
        let sign_in = SignIn::new(self.root_login, self.has_keys);
        Ok(Rendered {
            subject: format!("Your server {name} is ready"),
            text: ServerReadyText { name, addresses, tariff, os, sign_in, url }.render().map_err(Error::internal)?,
            html: ServerReadyHtml { name, addresses, tariff, os, sign_in, url }.render().map_err(Error::internal)?,
        })
    }
}

/// "Is this address yours?"
#[derive(Debug)]
pub struct ConfirmAddress<'a> {
    /// The page that says yes.
    pub url: &'a str,
    /// What it says it with.
    pub code: &'a str,
    /// Where the account is.
    pub service: &'a str,
}

#[derive(Template)]
#[template(path = "mail/confirm_address.txt")]
struct ConfirmAddressText<'a> {
    url: &'a str,
    code: &'a str,
    service: &'a str,
}

#[derive(Template)]
#[template(path = "mail/confirm_address.html")]
struct ConfirmAddressHtml<'a> {
    subject: &'a str,
    url: &'a str,
    service: &'a str,
}

impl Mail for ConfirmAddress<'_> {
    fn render(&self) -> Result<Rendered> {
        let (url, code, service) = (&line(self.url), self.code, &line(self.service));
        let subject = "Is this address yours?";
        Ok(Rendered {
            subject: subject.to_owned(),
            text: ConfirmAddressText { url, code, service }.render().map_err(Error::internal)?,
            html: ConfirmAddressHtml { subject, url, service }.render().map_err(Error::internal)?,
        })
    }
}

/// Alerts that were raised, and alerts that are over: one mail, however many there are.
#[derive(Debug)]
pub struct Alerts<'a> {
    /// What is new.
    pub raised: Vec<AlertLine>,
    /// What is over.
    pub over: Vec<AlertLine>,
    /// Where to see them.
    pub url: &'a str,
}

/// One alert in a mail.
#[derive(Debug, Clone)]
pub struct AlertLine {
    /// What it is about, by name.
    pub name: String,
    /// What there is to say of it.
    pub what: String,
    /// Since when, or when it ended.
    pub when: String,
}

/// Lines of each part of a mail; of more there is the number only.
const LINES: usize = 200;

#[derive(Template)]
#[template(path = "mail/alerts.txt")]
struct AlertsText<'a> {
    parts: &'a [Part<'a>],
    url: &'a str,
}

#[derive(Template)]
#[template(path = "mail/alerts.html")]
struct AlertsHtml<'a> {
    subject: &'a str,
    parts: &'a [Part<'a>],
    url: &'a str,
}

struct Part<'a> {
    title: &'a str,
    lines: Vec<AlertLine>,
    more: usize,
}

impl<'a> Alerts<'a> {
    /// Nothing yet.
    pub fn new(url: &'a str) -> Self {
        Self { raised: vec![], over: vec![], url }
    }

    fn subject(&self) -> String {
        let one = |word: &str, a: &AlertLine| {
            let text: String = format!("{}: {}", line(&a.name), line(&a.what)).chars().take(150).collect();
            format!("{word}: {text}")
        };
        match (&self.raised[..], &self.over[..]) {
            ([a], []) => one("Alert", a),
            ([], [a]) => one("Over", a),
            (raised, []) => format!("{} alerts", raised.len()),
            ([], over) => format!("{} alerts are over", over.len()),
            (raised, over) => format!("Alerts: {} new, {} over", raised.len(), over.len()),
        }
    }
}

impl Mail for Alerts<'_> {
    fn render(&self) -> Result<Rendered> {
        let subject = self.subject();
        let part = |title, alerts: &[AlertLine]| Part {
            title,
            lines: alerts
                .iter()
                .take(LINES)
                .map(|a| AlertLine { name: line(&a.name), what: line(&a.what), when: line(&a.when) })
                .collect(),
            more: alerts.len().saturating_sub(LINES),
        };
        let parts = [part("Needs you now", &self.raised), part("Is over", &self.over)];
        let (parts, url) = (&parts[..], &line(self.url));
        Ok(Rendered {
            text: AlertsText { parts, url }.render().map_err(Error::internal)?,
            html: AlertsHtml { subject: &subject, parts, url }.render().map_err(Error::internal)?,
            subject,
        })
    }
}

/// A name on one line: what breaks lines or turns the direction of text becomes a space.
fn line(text: &str) -> String {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}'
                | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
    };
    text.chars().map(|c| if odd(c) { ' ' } else { c }).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail<'a>(name: &'a str, addresses: &'a [IpAddr], tariff: &'a str) -> ServerReady<'a> {
        let (root_login, has_keys) = (RootLogin::Password, true);
        let url = "http://127.0.0.1:5000/servers/7?a=1&b=2";
        ServerReady { name, addresses, tariff, os: "Debian 12", root_login, has_keys, url }
    }

    #[test]
    fn it_reads_well() {
        let addresses = ["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        let mail = mail("web-1", &addresses, "Базовый").render().unwrap();
        assert_eq!(mail.subject, "Your server web-1 is ready");
        for part in [&mail.text, &mail.html] {
            for word in ["web-1", "10.0.0.5", "fd00::5", "Базовый", "Debian 12", "ssh root@10.0.0.5"] {
                assert!(part.contains(word), "{word} is missing in {part}");
            }
        }
        assert!(mail.text.contains("http://127.0.0.1:5000/servers/7?a=1&b=2"));
        assert!(!mail.text.contains("\n\n\n"), "{}", mail.text);
    }

    /// Text and HTML alike promise a way in that there is, and no other.
    #[test]
    fn the_way_in_is_the_image_s() {
        let addresses = ["10.0.0.5".parse().unwrap()];
        for (root_login, has_keys, says, never) in [
            (RootLogin::Password, true, ["root password", "or with your SSH key", "ssh root@10.0.0.5"], "console"),
            (RootLogin::Password, false, ["root password", "ssh root@", "10.0.0.5"], "SSH key"),
            (
                RootLogin::Key,
                true,
                ["with your SSH key.", "for the console", "ssh root@10.0.0.5"],
                "with the root password",
            ),
            (RootLogin::Key, false, ["console", "root password", "was given none"], "ssh root@"),
            (RootLogin::None, true, ["console", "root password", "not let root in over SSH"], "ssh root@"),
            (RootLogin::None, false, ["console", "root password", "not let root in over SSH"], "ssh root@"),
        ] {
            let mail = ServerReady { root_login, has_keys, ..mail("web-1", &addresses, "Small") }.render().unwrap();
            for part in [&mail.text, &mail.html] {
                assert!(says.iter().all(|word| part.contains(word)), "{root_login:?}, {has_keys}: {part}");
                assert!(!part.contains(never), "{root_login:?}, {has_keys}: {part}");
            }
            assert!(!mail.text.contains("\n\n\n"), "{}", mail.text);
        }
    }

    #[test]
    fn a_server_without_addresses_gets_no_ssh_line() {
        let mail = mail("web-1", &[], "Small").render().unwrap();
        assert!(!mail.text.contains("ssh") && !mail.html.contains("ssh"), "{}", mail.text);
    }

    #[test]
    fn hostile_names_stay_text() {
        let mail = mail("a\r\nBcc: x@evil.example\r\n\r\nHi", &[], "<script>alert('1')</script>\u{202E}{{ 7*7 }}&")
            .render()
            .unwrap();
        assert!(!mail.subject.contains(['\r', '\n']));
        assert!(!mail.html.contains("<script>") && mail.html.contains("script"), "{}", mail.html);
        assert!(mail.html.contains("{{ 7*7 }}") && !mail.html.contains('\u{202E}'));
        assert!(!mail.text.lines().any(|l| l.starts_with("Bcc:")), "{}", mail.text);
    }

    fn alert(name: &str) -> AlertLine {
        AlertLine { name: name.into(), what: "CPU usage is at 97%".into(), when: "since 2026-01-01 10:00 UTC".into() }
    }

    #[test]
    fn many_alerts_are_one_mail() {
        let mut mail = Alerts::new("http://127.0.0.1:5000");
        mail.raised.push(alert("web-1"));
        let one = mail.render().unwrap();
        assert_eq!(one.subject, "Alert: web-1: CPU usage is at 97%");
        assert!(one.text.contains("web-1: CPU usage is at 97%, since 2026-01-01 10:00 UTC"), "{}", one.text);
        assert!(!one.text.contains("Is over") && !one.html.contains("Is over"), "{}", one.text);
        mail.over.extend((0..500).map(|n| alert(&format!("db-{n}"))));
        let many = mail.render().unwrap();
        assert_eq!(many.subject, "Alerts: 1 new, 500 over");
        for part in [&many.text, &many.html] {
            assert!(part.contains("db-199") && !part.contains("db-200") && part.contains("300 more"), "{part}");
        }
        assert!(!many.text.contains("\n\n\n"), "{}", many.text);
    }

    #[test]
    fn hostile_names_of_servers_stay_text() {
        let mut mail = Alerts::new("http://127.0.0.1:5000");
        mail.raised.push(alert("a\r\nBcc: x@evil.example\r\n\r\n<script>alert('1')</script>\u{202E}"));
        let mail = mail.render().unwrap();
        assert!(!mail.subject.contains(['\r', '\n']) && !mail.html.contains("<script>"), "{}", mail.html);
        assert!(!mail.text.lines().any(|l| l.starts_with("Bcc:")), "{}", mail.text);
    }
}
