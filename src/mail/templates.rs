//! What mails say, in text and HTML. Names in them are data: escaped in HTML, and on one line in both.

use std::net::IpAddr;

use askama::Template;

use crate::error::{Error, Result};

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
    url: &'a str,
}

#[derive(Template)]
#[template(path = "mail/server_ready.html")]
struct ServerReadyHtml<'a> {
    name: &'a str,
    addresses: &'a [String],
    tariff: &'a str,
    os: &'a str,
    url: &'a str,
}

impl ServerReady<'_> {
    /// Subject, text and HTML.
    pub fn render(&self) -> Result<Rendered> {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let (name, tariff, os, url) = (&line(self.name), &line(self.tariff), &line(self.os), &line(self.url));
        let addresses = &addresses;
        Ok(Rendered {
            subject: format!("Your server {name} is ready"),
            text: ServerReadyText { name, addresses, tariff, os, url }.render().map_err(Error::internal)?,
            html: ServerReadyHtml { name, addresses, tariff, os, url }.render().map_err(Error::internal)?,
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
        ServerReady { name, addresses, tariff, os: "Debian 12", url: "http://127.0.0.1:5000/servers/7?a=1&b=2" }
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
}
