//! Authentication to a graphical console: the one place where we speak RFB ourselves (RFC 6143, version 3.8). The
//! host's password stays here; the browser is not asked for one.

use axum::extract::ws::{Message, WebSocket};
use bytes::{Bytes, BytesMut};
use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hypervisor::{Console, ConsoleInput};
use secrecy::{ExposeSecret, SecretString};

use super::model::CloseReason;

/// The version that we speak to both sides.
const VERSION: &[u8; 12] = b"RFB 003.008\n";
/// Security type "None".
const NONE: u8 = 1;
/// Security type "VNC Authentication".
const VNC: u8 = 2;

/// A source of bytes, in chunks of any size.
pub(super) trait ByteSource {
    /// The next chunk; `None` at the end.
    async fn piece(&mut self) -> Option<Bytes>;
}

impl ByteSource for Console {
    async fn piece(&mut self) -> Option<Bytes> {
        self.output.recv().await
    }
}

pub(super) struct BrowserSource<'a> {
    pub sink: &'a mut SplitSink<WebSocket, Message>,
    pub stream: &'a mut SplitStream<WebSocket>,
}

impl ByteSource for BrowserSource<'_> {
    async fn piece(&mut self) -> Option<Bytes> {
        while let Some(Ok(message)) = self.stream.next().await {
            match message {
                Message::Binary(bytes) => return Some(bytes),
                Message::Close(_) => return None,
                _ => {}
            }
        }
        None
    }
}

/// Reads exact numbers of bytes.
#[derive(Debug, Default)]
pub(super) struct ExactReader(BytesMut);

impl ExactReader {
    async fn take<const N: usize>(&mut self, source: &mut impl ByteSource) -> Option<[u8; N]> {
        while self.0.len() < N {
            self.0.extend_from_slice(&source.piece().await?);
        }
        self.0.split_to(N).as_ref().try_into().ok()
    }
}

/// Authenticates to the host's VNC server, up to the point where it waits for `ClientInit`.
pub(super) async fn sign_in(console: &mut Console, password: &SecretString) -> Result<(), CloseReason> {
    let refused = || CloseReason::HOST.with_text("Could not log in to the host's graphical console.");
    let mut reader = ExactReader::default();
    let version: [u8; 12] = reader.take(console).await.ok_or_else(refused)?;
    if !version.starts_with(b"RFB 003.") || &version[8..11] < b"008".as_slice() {
        tracing::warn!(version = %version.escape_ascii(), "a host's VNC server does not speak RFB 3.8");
        return Err(refused());
    }
    say(console, VERSION).await?;
    let [count] = reader.take(console).await.ok_or_else(refused)?;
    let mut offered = Vec::with_capacity(count.into());
    for _ in 0..count {
        let [kind] = reader.take(console).await.ok_or_else(refused)?;
        offered.push(kind);
    }
    if !offered.contains(&VNC) {
        tracing::warn!(?offered, "a host's VNC server does not offer VNC authentication");
        return Err(refused());
    }
    say(console, &[VNC]).await?;
    let challenge = reader.take(console).await.ok_or_else(refused)?;
    say(console, &answer(challenge, password)).await?;
    if reader.take(console).await.ok_or_else(refused)? != [0, 0, 0, 0] {
        tracing::warn!("a host's VNC server rejected the password that the host gave for it");
        return Err(refused());
    }
    Ok(())
}

async fn say(console: &Console, bytes: &[u8]) -> Result<(), CloseReason> {
    let data = ConsoleInput::Data(Bytes::copy_from_slice(bytes));
    console.input.send(data).await.map_err(|_| CloseReason::OVER)
}

/// DES with the password as the key; VNC has always reversed the bits of its bytes.
fn answer(mut challenge: [u8; 16], password: &SecretString) -> [u8; 16] {
    let mut key = [0; 8];
    for (key, byte) in key.iter_mut().zip(password.expose_secret().bytes()) {
        *key = byte.reverse_bits();
    }
    let cipher = Des::new(&key.into());
    for block in challenge.as_chunks_mut::<8>().0 {
        let mut encrypted = (*block).into();
        cipher.encrypt_block(&mut encrypted);
        *block = encrypted.into();
    }
    challenge
}

/// Greets a browser as a VNC server without authentication, and returns what it has sent beyond that. `None`: it has
/// disconnected.
pub(super) async fn welcome(browser: &mut BrowserSource<'_>) -> Option<Bytes> {
    let mut reader = ExactReader::default();
    browser.say(VERSION).await?;
    let _version: [u8; 12] = reader.take(browser).await?;
    browser.say(&[1, NONE]).await?;
    let _chosen: [u8; 1] = reader.take(browser).await?;
    browser.say(&[0, 0, 0, 0]).await?;
    Some(reader.0.freeze())
}

impl BrowserSource<'_> {
    async fn say(&mut self, bytes: &'static [u8]) -> Option<()> {
        self.sink.send(Message::Binary(Bytes::from_static(bytes))).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_des_with_the_password_s_bits_reversed() {
        // All-zero blocks under the keys 00…, 80… and 40…, from the standard's own tables (FIPS 81, SP 800-17).
        for (password, expected) in
            [("", 0x8CA6_4DE9_C1B1_23A7_u64), ("\u{1}", 0x95A8_D728_13DA_A94D), ("\u{2}", 0x0EEC_1487_DD8C_26D5)]
        {
            let answer = answer([0; 16], &password.to_owned().into());
            assert_eq!((&answer[..8], &answer[8..]), (&expected.to_be_bytes()[..], &expected.to_be_bytes()[..]));
        }
    }
}
