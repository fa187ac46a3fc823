//! Consoles over fakepve's websockets.

use std::time::Duration;

use bytes::Bytes;
use hypervisor::{Console, ConsoleInput, ConsoleKind, Consoles, Error, GuestKind};
use proxmox::{PasswordLogin, Proxmox};
use secrecy::ExposeSecret;

use crate::Bench;

/// Reads until `wanted` has been received.
async fn read_until(console: &mut Console, wanted: &[u8]) -> Vec<u8> {
    let mut seen = Vec::new();
    while !seen.windows(wanted.len()).any(|w| w == wanted) {
        let more = tokio::time::timeout(Duration::from_secs(10), console.output.recv()).await;
        let more = more.unwrap_or_else(|_| panic!("nothing more after {:?}", String::from_utf8_lossy(&seen)));
        seen.extend_from_slice(&more.expect("the console ended"));
    }
    seen
}

async fn a_terminal(bench: &Bench) {
    let mut console = bench.driver.console(&bench.spec.guest).await.unwrap();
    assert!(matches!(console.kind, ConsoleKind::Text));
    read_until(&mut console, b"starting serial terminal").await;
    console.input.send(ConsoleInput::Data(Bytes::from_static("caf\u{e9}\n".as_bytes()))).await.unwrap();
    read_until(&mut console, "caf\u{e9}\n".as_bytes()).await;
    console.input.send(ConsoleInput::Resize { columns: 100, rows: 40 }).await.unwrap();
    console.input.send(ConsoleInput::Data(Bytes::from_static(b"end"))).await.unwrap();
    read_until(&mut console, b"end").await;
    assert!(bench.fake.run("pve.termdata").await.to_string().contains("1:100:40:"));
    // Leaving closes the console: when one side ends, so does the other.
    drop(console.input);
    while console.output.recv().await.is_some() {}
}

#[tokio::test]
async fn a_container_s_terminal_by_token() {
    a_terminal(&Bench::running(GuestKind::Lxc).await).await;
}

#[tokio::test]
async fn a_container_s_terminal_by_login_with_a_ticket_each() {
    let mut bench = Bench::running(GuestKind::Lxc).await;
    let mut config = bench.config();
    config.login =
        Some(PasswordLogin { user: "innkeeper@pve".to_owned(), password: "secret of the login".to_owned().into() });
    bench.driver = Proxmox::new(config.clone()).unwrap();
    a_terminal(&bench).await;
    // An expired ticket does no harm.
    bench.fake.run("pve.revoke_tickets()").await;
    a_terminal(&bench).await;
    assert_eq!(bench.fake.run("len([a for a in pve.asked if a[1] == '/access/ticket'])").await, 2);
    config.login = Some(PasswordLogin { user: "innkeeper@pve".to_owned(), password: "wrong".to_owned().into() });
    let refused = Proxmox::new(config.clone()).unwrap().console(&bench.spec.guest).await;
    assert!(matches!(refused, Err(Error::Unauthorized(_))));
    bench.fake.run("pve.tfa = True").await;
    config.login =
        Some(PasswordLogin { user: "innkeeper@pve".to_owned(), password: "secret of the login".to_owned().into() });
    let refused = Proxmox::new(config).unwrap().console(&bench.spec.guest).await;
    assert!(matches!(refused, Err(Error::Unauthorized(text)) if text.contains("second factor")));
}

#[tokio::test]
async fn a_terminal_that_refuses_a_token_says_what_it_takes() {
    let bench = Bench::running(GuestKind::Lxc).await;
    bench.fake.run("pve.refuse_terminal = True").await;
    let refused = bench.driver.console(&bench.spec.guest).await;
    assert!(matches!(refused, Err(Error::Unauthorized(text)) if text.contains("need a login")));
}

#[tokio::test]
async fn a_machine_s_screen_speaks_rfb() {
    let bench = Bench::running(GuestKind::Vm).await;
    bench.fake.run(&format!("setattr(guest({}), 'rfb', True)", bench.vmid())).await;
    let mut console = bench.driver.console(&bench.spec.guest).await.unwrap();
    let ConsoleKind::Screen { password: Some(password) } = &console.kind else { panic!("{:?}", console.kind) };
    assert_eq!(password.expose_secret().len(), 8);
    read_until(&mut console, b"RFB 003.008\n").await;
    console.input.send(ConsoleInput::Data(Bytes::from_static(b"RFB 003.008\n"))).await.unwrap();
    // It offers VNC authentication only.
    read_until(&mut console, b"\x01\x02").await;
}

#[tokio::test]
async fn a_ticket_that_the_node_refuses_is_said() {
    let bench = Bench::running(GuestKind::Lxc).await;
    bench.fake.run("setattr(pve, 'vnc_ticket_ttl', -1)").await;
    let refused = bench.driver.console(&bench.spec.guest).await;
    assert!(matches!(&refused, Err(Error::Unauthorized(text)) if text.contains("PVEVNC")), "{refused:?}");
}

#[tokio::test]
async fn a_server_that_knows_no_subprotocol_is_well_too() {
    let bench = Bench::running(GuestKind::Lxc).await;
    bench.fake.run("setattr(pve, 'no_subprotocol', True)").await;
    a_terminal(&bench).await;
}

#[tokio::test]
async fn a_stopped_guest_has_no_console() {
    let bench = Bench::stopped(GuestKind::Lxc).await;
    assert!(matches!(bench.driver.console(&bench.spec.guest).await, Err(Error::Conflict(_))));
}
