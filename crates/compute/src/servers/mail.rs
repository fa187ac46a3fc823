//! The mail that says that a server is ready.

use std::net::IpAddr;

use askama::Template;
use kernel::error::{Error, Result};
use kernel::mail::templates::{MailTemplate, Rendered, line};

use crate::images::model::RootLogin;

/// "Your server is ready". It never contains a password: email is not a safe place for one.
#[derive(Debug)]
pub struct ServerReady<'a> {
    /// The server's host name.
    pub name: &'a str,
    /// The server's addresses.
    pub addresses: &'a [IpAddr],
    /// The tariff's name.
    pub tariff: &'a str,
    /// The image's name.
    pub os: &'a str,
    /// How root signs in over SSH.
    pub root_login: RootLogin,
    /// Whether SSH keys were installed.
    pub has_keys: bool,
    /// URL of the server's page.
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

/// How to sign in: only ways that the image permits, with the credentials that the server has.
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
                "Sign in on its console, with the root password that was shown when you ordered it: this system \
                 allows root over SSH only with a key, and the server was given none.",
                false,
            ),
            (RootLogin::Unknown, _) => {
                ("Sign in on its console, with the root password that was shown when you ordered it.", false)
            }
            (RootLogin::None, _) => (
                "Sign in on its console, with the root password that was shown when you ordered it: this system does \
                 not allow root over SSH.",
                false,
            ),
        };
        Self { words, ssh }
    }
}

impl MailTemplate for ServerReady<'_> {
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

    /// Text and HTML both offer a way to sign in that works, and no other.
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
            (RootLogin::None, true, ["console", "root password", "not allow root over SSH"], "ssh root@"),
            (RootLogin::None, false, ["console", "root password", "not allow root over SSH"], "ssh root@"),
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
}
