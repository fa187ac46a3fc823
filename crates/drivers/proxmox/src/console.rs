//! Consoles: a container's terminal, a machine's screen (VNC), both carried by a websocket of the node's.
//!
//! The ticket that opens the websocket is valid for the user who asked for it, and for seconds. Nodes before version
//! 9.1, and 8.4 without the updates of April 2026, check a terminal's user in a way that no API token passes: where a
//! login is configured, it is used, with a new ticket for each console, so that none is too old.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::client::conn::http1;
use hyper::ext::ReasonPhrase;
use hyper::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use hyper::http::uri::InvalidUri;
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use hypervisor::{Console, ConsoleInput, ConsoleKind, Consoles, Error, GuestKind, GuestRef, Result};
use reqwest::Url;
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::client::{ApiCredentials, Client, encoded_params, encoded_path};
use crate::error::{refusal, words};
use crate::place::Place;
use crate::power::STARTS;
use crate::{Proxmox, lookup, tasks};

/// Messages buffered in each direction.
const QUEUE: usize = 32;
/// Nodes close a terminal that is silent for longer.
const PING: Duration = Duration::from_secs(30);
/// How long to wait for a peer that does not read.
const PATIENCE: Duration = Duration::from_secs(30);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

#[derive(Debug, Deserialize)]
struct Proxy {
    #[serde(deserialize_with = "port")]
    port: u16,
    ticket: SecretString,
    user: String,
    /// Versions before 9.2 leave it out unless it was requested.
    #[serde(default)]
    password: Option<SecretString>,
}

/// A number, perhaps as a string.
fn port<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok()).and_then(|n| u16::try_from(n).ok());
    number.ok_or_else(|| serde::de::Error::custom("not a port number"))
}

#[async_trait]
impl Consoles for Proxmox {
    async fn console(&self, guest: &GuestRef) -> Result<Console> {
        let client = &self.client;
        let found = lookup::require_running(client, guest).await?;
        let who = match &client.config.login {
            Some(login) => client.login(login).await?,
            None => ApiCredentials::Token,
        };
        let at = &found.at;
        let proxy: Proxy = match guest.kind {
            GuestKind::Lxc => client.post_as(&who, &at.path(&["termproxy"]), &[]).await?,
            GuestKind::Vm => {
                let mut form = vec![("websocket", "1")];
                form.extend(wants_asking(client).await?.then_some(("generate-password", "1")));
                client.post_as(&who, &at.path(&["vncproxy"]), &form).await?
            }
        };
        let mut socket = connect(client, &who, at, &proxy).await?;
        let mut first = Bytes::new();
        let kind = match guest.kind {
            GuestKind::Lxc => {
                first = sign_in(&mut socket, &proxy).await?;
                ConsoleKind::Text
            }
            // Without a password, the ticket is the password.
            GuestKind::Vm => ConsoleKind::Screen { password: Some(proxy.password.unwrap_or(proxy.ticket)) },
        };
        let (to_person, output) = mpsc::channel(QUEUE);
        let (input, from_person) = mpsc::channel(QUEUE);
        if !first.is_empty() {
            let _ = to_person.try_send(first);
        }
        tokio::spawn(carry(socket, matches!(kind, ConsoleKind::Text), to_person, from_person));
        Ok(Console { kind, output, input })
    }

    /// The log of the guest's last start: Proxmox VE keeps no console output.
    async fn last_words(&self, guest: &GuestRef) -> Result<String> {
        let at = lookup::require(&self.client, guest).await?.at;
        tasks::last_log(&self.client, &at, STARTS).await
    }
}

/// Whether a screen gets a password only on request. From 9.2 on it always does, and the request is deprecated.
async fn wants_asking(client: &Client) -> Result<bool> {
    #[derive(Deserialize)]
    struct Version {
        version: String,
    }
    let Version { version } = client.get(&["version"], &[]).await?;
    let mut numbers = version.split(['.', '-']).map(|text| text.parse().unwrap_or(0));
    Ok((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (9, 2))
}

async fn connect(client: &Client, who: &ApiCredentials, at: &Place, proxy: &Proxy) -> Result<Socket> {
    let path = encoded_path(&at.path(&["vncwebsocket"]))?;
    let query = encoded_params(&[("port", &proxy.port.to_string()), ("vncticket", proxy.ticket.expose_secret())]);
    // The endpoint that gave the ticket; it proxies to the guest's node.
    let endpoint = client.endpoints().next().map(|(_, endpoint)| endpoint.to_owned()).unwrap_or_default();
    let odd = |e: &dyn std::fmt::Display| Error::Failed(format!("the console's websocket: {e}"));
    let url = Url::parse(&endpoint).map_err(|e| odd(&e))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(8006);
    let name = match host.parse::<IpAddr>() {
        Ok(ip) => ServerName::IpAddress(ip.into()),
        Err(_) => ServerName::try_from(host.clone()).map_err(|e| odd(&e))?,
    };
    let target = format!("wss://{}:{port}/api2/json{path}?{query}", url.host_str().unwrap_or_default());
    let mut request = target.into_client_request().map_err(|e| odd(&e))?;
    request.headers_mut().extend(client.headers(who)?);
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("binary"));
    let opening = async {
        let unreachable = |e: std::io::Error| Error::Unreachable(format!("{host}:{port}: {e}"));
        let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)?;
        let _ = tcp.set_nodelay(true);
        let tls = TlsConnector::from(Arc::clone(&client.tls)).connect(name, tcp).await.map_err(unreachable)?;
        upgrade(tls, request).await
    };
    let late = || Error::Unreachable(format!("{host}:{port} did not open the console in time"));
    timeout(client.timeout(), opening).await.map_err(|_| late())?
}

/// The websocket's opening handshake. By hand: tungstenite fails where a server does not confirm the subprotocol,
/// which old versions require and new ones don't know.
async fn upgrade(tls: TlsStream<TcpStream>, request: Request<()>) -> Result<Socket> {
    let odd = |e: &dyn std::fmt::Display| Error::Failed(format!("the console's websocket: {e}"));
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes())).unwrap_or_default();
    let (parts, ()) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let mut request = Request::from_parts(parts, String::new());
    *request.uri_mut() = target.parse().map_err(|e: InvalidUri| odd(&e))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(|e| odd(&e))?;
    tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(request).await.map_err(|e| odd(&e))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let reason = response.extensions().get::<ReasonPhrase>();
        let reason = reason.and_then(|reason| std::str::from_utf8(reason.as_bytes()).ok());
        let status = response.status().as_u16();
        return Err(refusal(status, words(None, reason, status), false));
    }
    if response.headers().get(SEC_WEBSOCKET_ACCEPT).is_none_or(|accept| accept != key.as_str()) {
        return Err(odd(&"the response does not match the handshake"));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(|e| odd(&e))?;
    Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await)
}

/// Authenticates at a terminal. The node answers "OK", perhaps with the first output right behind it.
async fn sign_in(socket: &mut Socket, proxy: &Proxy) -> Result<Bytes> {
    let refused = || {
        Error::Unauthorized(format!(
            "the terminal refused {}: nodes before version 9.1 (or 8.4 with the updates of April 2026) don't open \
             terminals with an API token, they need a login",
            proxy.user
        ))
    };
    let hello = format!("{}:{}\n", proxy.user, proxy.ticket.expose_secret());
    socket.send(Message::text(hello)).await.map_err(|_| refused())?;
    let answer = timeout(Duration::from_secs(10), socket.next()).await.map_err(|_| refused())?;
    let answer = answer.and_then(Result::ok).map(Message::into_data).unwrap_or_default();
    if answer.starts_with(b"OK") { Ok(answer.slice(2..)) } else { Err(refused()) }
}

/// Relays both ways until either side closes.
async fn carry(
    mut socket: Socket,
    text: bool,
    to_person: mpsc::Sender<Bytes>,
    mut from_person: mpsc::Receiver<ConsoleInput>,
) {
    let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
    loop {
        let outgoing = tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(data))) => {
                    if to_person.send(data).await.is_err() { break }
                    continue;
                }
                Some(Ok(Message::Text(data))) => {
                    if to_person.send(data.into()).await.is_err() { break }
                    continue;
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => continue,
            },
            input = from_person.recv() => match input {
                Some(input) => message(input, text),
                None => break,
            },
            _ = ping.tick() => Some(if text { Message::text("2") } else { Message::Ping(Bytes::new()) }),
            () = to_person.closed() => break,
        };
        let Some(outgoing) = outgoing else { continue };
        if !matches!(timeout(PATIENCE, socket.send(outgoing)).await, Ok(Ok(()))) {
            break;
        }
    }
    let _ = timeout(PATIENCE, socket.close(None)).await;
}

/// A terminal takes `0:<length>:<bytes>` and `1:<columns>:<rows>:`; a screen takes plain bytes.
fn message(input: ConsoleInput, text: bool) -> Option<Message> {
    match input {
        ConsoleInput::Data(data) if text => {
            let mut framed = format!("0:{}:", data.len()).into_bytes();
            framed.extend_from_slice(&data);
            Some(String::from_utf8(framed).map_or_else(|e| Message::binary(e.into_bytes()), Message::text))
        }
        ConsoleInput::Data(data) => Some(Message::Binary(data)),
        ConsoleInput::Resize { columns, rows } => text.then(|| Message::text(format!("1:{columns}:{rows}:"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_s_input_is_framed() {
        let data = |bytes: &'static [u8]| ConsoleInput::Data(Bytes::from_static(bytes));
        assert_eq!(message(data("é\n".as_bytes()), true), Some(Message::text("0:3:é\n")));
        assert_eq!(message(data(b"\xff"), true), Some(Message::binary(&b"0:1:\xff"[..])));
        assert_eq!(message(data(b"\x03"), false), Some(Message::binary(&b"\x03"[..])));
        let size = ConsoleInput::Resize { columns: 80, rows: 24 };
        assert_eq!(message(size.clone(), true), Some(Message::text("1:80:24:")));
        assert_eq!(message(size, false), None);
    }

    #[test]
    fn a_port_comes_as_text_or_number() {
        for text in
            [r#"{"port":"5900","ticket":"t","user":"u"}"#, r#"{"port":5900,"ticket":"t","user":"u","upid":"x"}"#]
        {
            assert_eq!(serde_json::from_str::<Proxy>(text).unwrap().port, 5900);
        }
    }
}
