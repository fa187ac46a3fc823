//! Hands an email over: to a mail server or, without one, to a folder. It must be known afterwards whether it was sent.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use lettre::address::Envelope;
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use lettre::{Address, Message};
use secrecy::ExposeSecret;
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use super::store::QueuedMail;
use crate::config::{Config, Smtp, SmtpTls};

/// Why an email was not sent, as far as is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SendFailure {
    /// Certainly not sent; a retry may succeed.
    Later(String),
    /// The same, for a reason unrelated to this email: it is not given up for that.
    Busy(String),
    /// Certainly not sent, for a reason unrelated to this email that someone has to fix: the mail server is
    /// unreachable, or rejects us.
    Held(String),
    /// Certainly not sent, and never will be.
    Never(String),
    /// The mail server received everything and did not report an outcome.
    Unknown(String),
}

type SendResult<T = ()> = Result<T, SendFailure>;

/// The destination of emails.
#[derive(Debug)]
pub(super) struct Transport {
    from: Mailbox,
    to: TransportKind,
}

#[derive(Debug)]
enum TransportKind {
    Smtp(Box<SmtpServer>),
    Folder(PathBuf),
}

struct SmtpServer {
    settings: Smtp,
    tls: Option<TlsParameters>,
    name: ClientId,
}

impl std::fmt::Debug for SmtpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.settings.fmt(f)
    }
}

/// An email that is ready to be handed over: nothing of its content has been sent.
pub(super) enum PreparedMail {
    /// The mail server has accepted sender and recipient.
    Smtp { connection: Box<AsyncSmtpConnection>, content: Vec<u8> },
    /// To be written to a file.
    Folder { folder: PathBuf, name: String, content: Vec<u8> },
}

/// How long a mail server may take for its greeting, TLS and authentication.
const CONNECT: Duration = Duration::from_secs(30);
/// How long it may take to accept sender and recipient.
const ENVELOPE: Duration = Duration::from_mins(1);
/// How long it may take to be ready for the content.
const DATA: Duration = Duration::from_secs(30);
/// How long it may take to accept the content. RFC 5321 allows ten minutes; our emails are small.
const CONTENT: Duration = Duration::from_mins(2);

impl Transport {
    /// Builds the transport from the settings.
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let from = config.mail_from.parse().context("SMTP_FROM is not an email address")?;
        let to = match &config.smtp {
            None => TransportKind::Folder(config.data.join(FOLDER)),
            Some(smtp) => TransportKind::Smtp(Box::new(SmtpServer {
                tls: match smtp.tls {
                    SmtpTls::None => None,
                    SmtpTls::Tls | SmtpTls::Starttls => {
                        Some(TlsParameters::new(smtp.host.clone()).context("preparing TLS for SMTP_HOST")?)
                    }
                },
                settings: smtp.clone(),
                name: ClientId::default(),
            })),
        };
        Ok(Self { from, to })
    }

    /// Whether handing an email over twice has the same effect as once.
    pub(super) fn is_idempotent(&self) -> bool {
        matches!(self.to, TransportKind::Folder(_))
    }

    /// How long until a sender that has not reported an outcome must have died: well over the sum of all timeouts.
    pub(super) fn claim(&self) -> Duration {
        match self.to {
            TransportKind::Smtp(_) => Duration::from_mins(5),
            TransportKind::Folder(_) => Duration::from_secs(30),
        }
    }

    /// Does everything short of handing the email over. If it fails or is dropped, the email is unsent.
    pub(super) async fn prepare(&self, mail: &QueuedMail) -> SendResult<PreparedMail> {
        let message = self.message(mail).map_err(|e| SendFailure::Never(format!("{e:#}")))?;
        let content = message.formatted();
        Ok(match &self.to {
            TransportKind::Smtp(server) => {
                PreparedMail::Smtp { connection: Box::new(server.begin(message.envelope()).await?), content }
            }
            TransportKind::Folder(folder) => {
                PreparedMail::Folder { folder: folder.clone(), name: file(mail.id), content }
            }
        })
    }

    /// The email with its headers. Every attempt has the same Message-ID and date, so that mail clients recognise
    /// duplicates.
    fn message(&self, mail: &QueuedMail) -> anyhow::Result<Message> {
        let to: Address = mail.recipient.parse().context("the recipient is not an email address")?;
        Message::builder()
            .message_id(Some(format!("<{}@{}>", mail.id, self.from.email.domain())))
            .date(mail.created_at.into())
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(mail.subject.as_str())
            .multipart(MultiPart::alternative_plain_html(mail.text_body.clone(), mail.html_body.clone()))
            .context("building the email")
    }
}

impl SmtpServer {
    async fn begin(&self, envelope: &Envelope) -> SendResult<AsyncSmtpConnection> {
        let mut connection = within(CONNECT, self.connect()).await?;
        match within(ENVELOPE, address(&mut connection, envelope)).await {
            Ok(()) => Ok(connection),
            Err(failure) => {
                quit(&mut connection).await;
                Err(failure)
            }
        }
    }

    async fn connect(&self) -> SendResult<AsyncSmtpConnection> {
        let Smtp { host, port, user, pass, tls } = &self.settings;
        let implicit = self.tls.clone().filter(|_| *tls == SmtpTls::Tls);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1((host.as_str(), *port), Some(CONNECT), &self.name, implicit, None)
                .await
                .map_err(|e| held(&e))?;
        if let (SmtpTls::Starttls, Some(parameters)) = (tls, self.tls.clone()) {
            connection.starttls(parameters, &self.name).await.map_err(|e| held(&e))?;
        }
        if let Some(user) = user {
            let pass = pass.as_ref().map(|p| p.expose_secret().to_owned()).unwrap_or_default();
            let credentials = Credentials::new(user.clone(), pass);
            connection.auth(DEFAULT_MECHANISMS, &credentials).await.map_err(|e| held(&e))?;
        }
        Ok(connection)
    }
}

impl PreparedMail {
    /// Hands the email over.
    pub(super) async fn hand_over(self) -> SendResult {
        match self {
            Self::Smtp { mut connection, content } => {
                let outcome = deliver(&mut connection, &content).await;
                // Only a courtesy: the outcome is known.
                quit(&mut connection).await;
                outcome
            }
            Self::Folder { folder, name, content } => write(&folder, &name, &content)
                .await
                .map_err(|e| SendFailure::Held(format!("writing to {}: {e}", folder.display()))),
        }
    }
}

async fn deliver(connection: &mut AsyncSmtpConnection, content: &[u8]) -> SendResult {
    within(DATA, async { connection.command(Data).await.map(drop).map_err(|e| refused(&e)) }).await?;
    // From here on it may have been sent.
    match tokio::time::timeout(CONTENT, connection.message(content)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) if e.is_permanent() || e.is_transient() => Err(content_refused(&e)),
        Ok(Err(e)) => Err(SendFailure::Unknown(chain(&e))),
        Err(_) => Err(SendFailure::Unknown("the mail server received the email and did not confirm it".into())),
    }
}

async fn quit(connection: &mut AsyncSmtpConnection) {
    let _ = tokio::time::timeout(Duration::from_secs(5), connection.quit()).await;
}

/// Sends the envelope. The content is not sent yet, so any failure here leaves the email unsent.
async fn address(connection: &mut AsyncSmtpConnection, envelope: &Envelope) -> SendResult {
    let mut parameters = vec![];
    if envelope.from().into_iter().chain(envelope.to()).any(|a| !AsRef::<str>::as_ref(a).is_ascii()) {
        if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
            return Err(SendFailure::Never(
                "the mail server does not support the recipient's address (SMTPUTF8)".into(),
            ));
        }
        parameters.push(MailParameter::SmtpUtfEight);
    }
    // So far it knows only who we are.
    connection.command(MailFrom::new(envelope.from().cloned(), parameters)).await.map_err(|e| held(&e))?;
    for to in envelope.to() {
        connection.command(Rcpt::new(to.clone(), vec![])).await.map_err(|e| refused(&e))?;
    }
    Ok(())
}

async fn within<T>(time: Duration, work: impl Future<Output = SendResult<T>>) -> SendResult<T> {
    tokio::time::timeout(time, work)
        .await
        .unwrap_or_else(|_| Err(SendFailure::Held("the mail server did not answer in time".into())))
}

/// A failure before the mail server knew the recipient: it applies to every email.
fn held(error: &smtp::Error) -> SendFailure {
    SendFailure::Held(chain(error))
}

/// A failure after the mail server knew the recipient, which leaves this email unsent.
fn refused(error: &smtp::Error) -> SendFailure {
    // The server does not understand us (RFC 5321), or forbids us to send there (X.7.X of RFC 3463).
    judge(error, |status, code| matches!(status, 500 | 502 | 503 | 521 | 523) || code.starts_with("7."))
}

/// A refusal of the content: another email may be accepted.
fn content_refused(error: &smtp::Error) -> SendFailure {
    // Spam is refused with 5.7.1 as well; with 4.7.X we are too many or too new.
    judge(error, |status, code| status < 500 && code.starts_with("7."))
}

/// What a refusal means; `more` says which others are about us.
fn judge(error: &smtp::Error, more: impl Fn(u16, &str) -> bool) -> SendFailure {
    let Some(status) = error.status().map(u16::from) else { return SendFailure::Held(chain(error)) };
    let text = reason(error);
    let about_us = is_about_us(status, &text) || more(status, enhanced_code(&text));
    let failure = match (status < 500, about_us) {
        (true, true) => SendFailure::Busy,
        (true, false) => SendFailure::Later,
        (false, true) => SendFailure::Held,
        (false, false) => SendFailure::Never,
    };
    failure(chain(error))
}

/// What Postfix, Exim and relay services (Amazon SES, Twilio) say of senders.
const ABOUT_SENDERS: [&str; 4] =
    ["sender address rejected", "sender verify failed", "email address is not verified", "verified sender identity"];

/// Whether a refusal is about us or the mail server, whoever the recipient is and whatever the content: the server
/// shuts down or requires authentication (RFC 4954), or has trouble with our address (X.1.7, X.1.8 of RFC 3463), with
/// itself (X.3.X) or with our commands (X.5.X).
fn is_about_us(status: u16, text: &str) -> bool {
    let words = text.to_lowercase();
    let of_code = match enhanced_code(text) {
        "1.7" | "1.8" => true,
        // Sendmail says 5.3.0 of unknown users, Outlook.com 5.5.0; with X.3.4 the email is too big.
        "3.0" => status < 500,
        "3.4" | "5.0" => false,
        // Postfix says 5.5.2 of recipients without a domain.
        code => code.starts_with("3.") || code.starts_with("5.") && !words.contains("recipient address rejected"),
    };
    of_code
        || matches!(status, 421 | 454 | 530 | 534 | 535 | 538)
        || ABOUT_SENDERS.iter().any(|said| words.contains(said))
}

/// The enhanced status code that the text begins with (RFC 3463), without its class: 7.1 for 5.7.1.
fn enhanced_code(text: &str) -> &str {
    let code = text.split_whitespace().next().unwrap_or_default();
    code.strip_prefix("4.").or_else(|| code.strip_prefix("5.")).unwrap_or_default()
}

/// The mail server's message.
fn reason(error: &smtp::Error) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.chars().filter(|c| *c != '\0').take(1000).collect()
}

/// The subfolder of the data folder that emails are written to without a mail server.
const FOLDER: &str = "mail";

fn file(mail: Uuid) -> String {
    format!("{mail}.eml")
}

/// Removes an email's file, if it has one.
pub(super) async fn forget(data: &Path, mail: Uuid) {
    match tokio::fs::remove_file(data.join(FOLDER).join(file(mail))).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%mail, %error, "cannot remove the file of a deleted email");
        }
        _ => {}
    }
}

/// Writes a file atomically, in a folder that only we can read.
async fn write(folder: &Path, name: &str, content: &[u8]) -> std::io::Result<()> {
    tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).await?;
    let temporary = folder.join(format!(".{name}.tmp"));
    let mut file =
        tokio::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary).await?;
    file.write_all(content).await?;
    file.sync_all().await?;
    drop(file);
    tokio::fs::rename(&temporary, folder.join(name)).await
}

#[cfg(test)]
mod tests;
