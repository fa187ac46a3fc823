//! A graphical console: a real QEMU with a VNC password, shown in Chromium through our proxy, which keeps the password.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use accounts::AccountSettings;
use async_trait::async_trait;
use bytes::Bytes;
use compute::ids::HostId;
use hypervisor::{
    Capabilities, Console, ConsoleInput, ConsoleKind, Consoles, Error, ExecOutput, GuestKind, GuestRef, GuestSize,
    GuestSpec, Host, HostInfo, Inside, Interface, Inventory, Power, Presence, Provision, Result, Snapshot, Snapshots,
    StopMode, Sweep, Task, TaskId, TaskState, Tasks,
};
use secrecy::SecretString;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::support::relay::{Port, Relay};
use crate::support::{Browser, TestApp, wait_for};

/// The only guest of its host, with nothing but a VNC console.
#[derive(Debug)]
struct Qemu {
    folder: tempfile::TempDir,
    password: SecretString,
}

impl Qemu {
    /// With the machine, which ends when it is dropped: the service's tasks may keep the driver to the end.
    async fn start(password: &str) -> (Self, Child) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("screen");
        let machine = Command::new("qemu-system-x86_64")
            .args(["-nodefaults", "-machine", "pc,accel=tcg", "-m", "64", "-vga", "std", "-display", "none"])
            .arg("-object")
            .arg(format!("secret,id=vnc,data={password}"))
            .arg("-vnc")
            .arg(format!("unix:{},password-secret=vnc", socket.display()))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("QEMU starts; `make test` installs it");
        wait_for("QEMU's screen", async || UnixStream::connect(&socket).await).await;
        (Self { folder, password: password.to_owned().into() }, machine)
    }
}

#[async_trait]
impl Consoles for Qemu {
    async fn console(&self, _: &GuestRef) -> Result<Console> {
        let stream = UnixStream::connect(self.folder.path().join("screen")).await;
        let (mut reading, mut writing) = stream.map_err(|e| Error::Unreachable(e.to_string()))?.into_split();
        let (output, shown) = mpsc::channel(32);
        let (typed, mut input) = mpsc::channel(32);
        tokio::spawn(async move {
            let mut bytes = vec![0; 64 << 10];
            while let Ok(length @ 1..) = reading.read(&mut bytes).await {
                if output.send(Bytes::copy_from_slice(&bytes[..length])).await.is_err() {
                    break;
                }
            }
        });
        tokio::spawn(async move {
            while let Some(input) = input.recv().await {
                let ConsoleInput::Data(bytes) = input else { continue };
                if writing.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        });
        let kind = ConsoleKind::Screen { password: Some(self.password.clone()) };
        Ok(Console { kind, output: shown, input: typed })
    }
}

/// Nothing but the console is asked of this driver.
macro_rules! unsupported {
    ($($matter:ident {
        $(fn $constant:ident() -> $value:ty = $is:expr;)?
        $(async fn $call:ident($($argument:ty),*) -> $answer:ty;)*
    })*) => {
        $(#[async_trait]
        impl $matter for Qemu {
            $(fn $constant(&self) -> $value {
                $is
            })?
            $(async fn $call(&self, $(_: $argument),*) -> Result<$answer> {
                Err(Error::Unsupported(stringify!($call).to_owned()))
            })*
        })*
    };
}

const CONSOLE_ONLY: Capabilities = Capabilities {
    password_at_create: false,
    set_password: false,
    exec: false,
    live_resize: false,
    vm_live_resize: false,
    snapshots: false,
    console: true,
    lxc: false,
    vm: true,
};

unsupported! {
    Host {
        fn capabilities() -> Capabilities = CONSOLE_ONLY;
        async fn info() -> HostInfo;
        async fn has_image(GuestKind, &str) -> bool;
    }
    Inventory {
        async fn sweep() -> Sweep;
        async fn find(&GuestRef) -> Presence;
    }
    Tasks {
        async fn task(&TaskId) -> TaskState;
    }
    Provision {
        async fn check_create(&GuestSpec) -> ();
        async fn create(&GuestSpec) -> Task;
        async fn prepare(&GuestSpec) -> ();
        async fn resize(&GuestRef, &GuestSize) -> Task;
        async fn check_delete(&GuestRef) -> ();
        async fn delete(&GuestRef) -> Task;
    }
    Power {
        async fn start(&GuestRef) -> Task;
        async fn stop(&GuestRef, StopMode) -> Task;
        async fn restart(&GuestRef, Duration) -> Task;
    }
    Snapshots {
        async fn snapshots(&GuestRef) -> Vec<Snapshot>;
        async fn create_snapshot(&GuestRef, &str, &str) -> Task;
        async fn rollback(&GuestRef, &str) -> Task;
        async fn delete_snapshot(&GuestRef, &str) -> Task;
    }
    Inside {
        async fn exec(&GuestRef, &[&str], &[u8], Duration) -> ExecOutput;
        async fn set_password(&GuestRef, &SecretString) -> ();
        async fn interfaces(&GuestRef) -> Vec<Interface>;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graphical_console_is_shown_without_exposing_its_password() {
    let port = Port::new();
    let app =
        TestApp::with(|c| c.of::<AccountSettings>().public_url = format!("http://127.0.0.1:{}", port.number())).await;
    let _relay = Relay::tcp(&port, app.base.trim_start_matches("http://").to_owned()).await;
    let server = crate::live::server(&app, "customer@example.com").await;
    let (host, vmid): (i64, i64) = sqlx::query_as("select host_id, guest_number from servers where id = $1")
        .bind(server)
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    let url = async || {
        let answer = app.customer.post("/api/server/console", json!({ "vmid": vmid })).await.expect(200).body;
        answer["url"].as_str().unwrap().to_owned()
    };

    let (mut wrong, _machine) = Qemu::start("right").await;
    wrong.password = "wrong".to_owned().into();
    app.service.features.hosts.drivers.pin(HostId(host), Arc::new(wrong));
    let mut browser = Browser::new();
    browser.open(&url().await).await;
    let (title, words, _) = browser.notice().await;
    assert_eq!(title, "The host could not open the console");
    assert!(words.starts_with("Could not log in to the host's graphical console."), "{words}");

    let (right, _other_machine) = Qemu::start("s3cret-8").await;
    app.service.features.hosts.drivers.pin(HostId(host), Arc::new(right));
    browser.open(&url().await).await;
    browser.status("Connected").await;
    // The firmware prints text, so there is more than one colour.
    let picture = browser.tell(json!({ "do": "picture" })).await;
    assert!(picture["width"].as_i64() >= Some(640) && picture["height"].as_i64() >= Some(400), "{picture}");
    browser.shot("screen").await;
    browser.tell(json!({ "do": "click", "on": "#keys" })).await;
    browser.tell(json!({ "do": "picture" })).await;
    assert_eq!(browser.tell(json!({ "do": "problems" })).await, json!([]));
}
