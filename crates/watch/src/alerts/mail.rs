//! The mail that tells of alerts.

use askama::Template;
use kernel::error::{Error, Result};
use kernel::mail::templates::{MailTemplate, Rendered, line};

/// Alerts that were raised or resolved: one email, however many there are.
#[derive(Debug)]
pub struct AlertsMail<'a> {
    /// New alerts.
    pub raised: Vec<AlertLine>,
    /// Resolved alerts.
    pub over: Vec<AlertLine>,
    /// URL of the alerts page.
    pub url: &'a str,
}

/// An alert in an email.
#[derive(Debug, Clone)]
pub struct AlertLine {
    /// Name of the server or host.
    pub name: String,
    /// Description of the alert.
    pub what: String,
    /// When it was raised or resolved.
    pub when: String,
}

/// Maximum number of lines in each part of an email; the rest is only counted.
const LINES: usize = 200;

#[derive(Template)]
#[template(path = "mail/alerts.txt")]
struct AlertsText<'a> {
    parts: &'a [AlertsSection<'a>],
    url: &'a str,
}

#[derive(Template)]
#[template(path = "mail/alerts.html")]
struct AlertsHtml<'a> {
    subject: &'a str,
    parts: &'a [AlertsSection<'a>],
    url: &'a str,
}

struct AlertsSection<'a> {
    title: &'a str,
    lines: Vec<AlertLine>,
    more: usize,
}

impl<'a> AlertsMail<'a> {
    /// An email without alerts.
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
            ([], [a]) => one("Resolved", a),
            (raised, []) => format!("{} alerts", raised.len()),
            ([], over) => format!("{} alerts resolved", over.len()),
            (raised, over) => format!("Alerts: {} new, {} resolved", raised.len(), over.len()),
        }
    }
}

impl MailTemplate for AlertsMail<'_> {
    fn render(&self) -> Result<Rendered> {
        let subject = self.subject();
        let part = |title, alerts: &[AlertLine]| AlertsSection {
            title,
            lines: alerts
                .iter()
                .take(LINES)
                .map(|a| AlertLine { name: line(&a.name), what: line(&a.what), when: line(&a.when) })
                .collect(),
            more: alerts.len().saturating_sub(LINES),
        };
        let parts = [part("New", &self.raised), part("Resolved", &self.over)];
        let (parts, url) = (&parts[..], &line(self.url));
        Ok(Rendered {
            text: AlertsText { parts, url }.render().map_err(Error::internal)?,
            html: AlertsHtml { subject: &subject, parts, url }.render().map_err(Error::internal)?,
            subject,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(name: &str) -> AlertLine {
        AlertLine { name: name.into(), what: "CPU usage is at 97%".into(), when: "since 2026-01-01 10:00 UTC".into() }
    }

    #[test]
    fn many_alerts_are_one_mail() {
        let mut mail = AlertsMail::new("http://127.0.0.1:5000");
        mail.raised.push(alert("web-1"));
        let one = mail.render().unwrap();
        assert_eq!(one.subject, "Alert: web-1: CPU usage is at 97%");
        assert!(one.text.contains("web-1: CPU usage is at 97%, since 2026-01-01 10:00 UTC"), "{}", one.text);
        assert!(!one.text.contains("Resolved") && !one.html.contains("Resolved"), "{}", one.text);
        mail.over.extend((0..500).map(|n| alert(&format!("db-{n}"))));
        let many = mail.render().unwrap();
        assert_eq!(many.subject, "Alerts: 1 new, 500 resolved");
        for part in [&many.text, &many.html] {
            assert!(part.contains("db-199") && !part.contains("db-200") && part.contains("300 more"), "{part}");
        }
        assert!(!many.text.contains("\n\n\n"), "{}", many.text);
    }

    #[test]
    fn hostile_names_of_servers_stay_text() {
        let mut mail = AlertsMail::new("http://127.0.0.1:5000");
        mail.raised.push(alert("a\r\nBcc: x@evil.example\r\n\r\n<script>alert('1')</script>\u{202E}"));
        let mail = mail.render().unwrap();
        assert!(!mail.subject.contains(['\r', '\n']) && !mail.html.contains("<script>"), "{}", mail.html);
        assert!(!mail.text.lines().any(|l| l.starts_with("Bcc:")), "{}", mail.text);
    }
}
