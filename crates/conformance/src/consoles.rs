//! Consoles: output and input.

use std::time::Duration;

use bytes::Bytes;
use hypervisor::{Console, ConsoleInput, ConsoleKind, Error, GuestKind, GuestSpec, Presence, StopMode};

use super::wait::within;
use super::{Lab, refused};

/// How long to wait for expected output of a guest.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running guest has a console if the driver's capabilities say so, and a stopped one has none.
pub async fn only_a_running_guest_has_a_console(lab: Lab) {
    let spec = lab.running().await;
    let able = lab.driver.capabilities().console;
    match lab.driver.console(&spec.guest).await {
        Ok(_) => assert!(able, "a driver without consoles opened one"),
        Err(error) => assert!(!able && matches!(error, Error::Unsupported(_)), "{error:?}"),
    }
    lab.done(lab.driver.stop(&spec.guest, StopMode::Force).await).await;
    let right = |e: &Error| matches!(e, Error::Conflict(_)) || !able && matches!(e, Error::Unsupported(_));
    refused(lab.driver.console(&spec.guest).await, right);
}

/// A guest with its console open.
async fn opened(lab: &Lab) -> (GuestSpec, Console) {
    let spec = lab.running().await;
    let console = lab.driver.console(&spec.guest).await.unwrap();
    (spec, console)
}

async fn say(console: &Console, text: &str) {
    console.input.send(ConsoleInput::Data(Bytes::copy_from_slice(text.as_bytes()))).await.unwrap();
}

/// Reads until `wanted` is shown. With `pressed`, presses Enter whenever the console is silent: a host may drop what is
/// typed in the first moment, and earlier input may still be on the line.
async fn see(console: &mut Console, wanted: &str, pressed: bool) {
    let mut seen = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            match tokio::time::timeout(Duration::from_secs(2), console.output.recv()).await {
                Ok(Some(bytes)) => seen.extend_from_slice(&bytes),
                Ok(None) => return Err("the console ended"),
                Err(_) if pressed => say(console, "\r").await,
                Err(_) => {}
            }
        }
        Ok(())
    };
    let read = tokio::time::timeout(PATIENCE, reading).await.unwrap_or(Err("nothing more came"));
    assert_eq!(read, Ok(()), "{wanted:?} was not shown: {:?}", String::from_utf8_lossy(&seen));
}

/// Waits for a console's greeting: a login prompt, or the RFB server's version.
async fn greeting(console: &mut Console) {
    match console.kind {
        ConsoleKind::Text => see(console, "login: ", true).await,
        ConsoleKind::Screen { .. } => see(console, "RFB 003.", false).await,
    }
}

/// Input at the login prompt is echoed and received, at any window size.
pub async fn a_console_shows_what_is_typed(lab: Lab) {
    let (spec, mut console) = opened(&lab).await;
    greeting(&mut console).await;
    if let ConsoleKind::Screen { .. } = console.kind {
        // What is typed at a screen takes a VNC client.
        return;
    }
    for (columns, rows) in [(132, 50), (1, 1), (100, 30)] {
        console.input.send(ConsoleInput::Resize { columns, rows }).await.unwrap();
    }
    if spec.guest.kind == GuestKind::Lxc {
        lab.eventually("the terminal has the window's size", async || {
            lab.sh(&spec.guest, "stty -F /dev/console size").await.trim() == "30 100"
        })
        .await;
    }
    say(&console, "nobody-of-this-name\r").await;
    see(&mut console, "nobody-of-this-name", false).await;
    see(&mut console, "Password: ", false).await;
}

/// A console can be reopened at once, whether the previous one was released or is still open.
pub async fn a_console_can_be_opened_again(lab: Lab) {
    let (spec, mut console) = opened(&lab).await;
    let mut held = Vec::new();
    for hold in [false, true, true, false] {
        let before = std::mem::replace(&mut console, lab.driver.console(&spec.guest).await.unwrap());
        held.extend(hold.then_some(before));
        greeting(&mut console).await;
    }
}

/// An open console does not count as work on the guest: it delays nothing and ends with it.
pub async fn a_console_ends_with_its_guest(lab: Lab) {
    let (spec, mut console) = opened(&lab).await;
    let guest = &spec.guest;
    let found = lab.driver.find(guest).await.unwrap();
    assert!(matches!(found, Presence::Present { busy: false, .. }), "{found:?}");
    lab.done(lab.driver.stop(guest, StopMode::Force).await).await;
    let ended = async { while console.output.recv().await.is_some() {} };
    within("the console's end", ended).await;
}
