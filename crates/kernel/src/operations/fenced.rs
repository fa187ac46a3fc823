//! A host's driver as steps see it: once the operation's lease is lost, the host gets no new calls.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hypervisor::{
    Capabilities, Console, Consoles, Driver, Error, ExecOutput, GuestFacts, GuestKind, GuestRef, GuestSize, GuestSpec,
    Host, HostInfo, Inside, Interface, Inventory, Power, Presence, Provision, Result, Snapshot, Snapshots, StopMode,
    Sweep, Task, TaskId, TaskState, Tasks,
};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

/// Calls in progress when the lease is lost are completed: a dropped call would continue on the host anyway, and no one
/// would learn its outcome.
#[derive(Debug)]
pub(super) struct Fenced {
    pub driver: Arc<dyn Driver>,
    pub lost: CancellationToken,
}

impl Fenced {
    fn check_lease(&self) -> Result<()> {
        match self.lost.is_cancelled() {
            true => Err(Error::Unreachable("not called: the operation's lease was lost".to_owned())),
            false => Ok(()),
        }
    }
}

/// Implements the traits of a driver. A method that is left out has the trait's default, which asks nobody: none with a
/// default may be missing.
macro_rules! fenced {
    ($($matter:ident {
        $(fn $constant:ident() -> $value:ty;)?
        $(async fn $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*
    })*) => {
        $(#[async_trait]
        impl $matter for Fenced {
            $(fn $constant(&self) -> $value {
                self.driver.$constant()
            })?
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$answer> {
                self.check_lease()?;
                self.driver.$name($($argument),*).await
            })*
        })*
    };
}

fenced! {
    Host {
        fn capabilities() -> Capabilities;
        async fn info() -> HostInfo;
        async fn has_image(kind: GuestKind, source: &str) -> bool;
        async fn image_nodes(kind: GuestKind, source: &str) -> Option<Vec<String>>;
    }
    Inventory {
        async fn sweep() -> Sweep;
        async fn find(guest: &GuestRef) -> Presence;
        async fn facts(guest: &GuestRef) -> GuestFacts;
        async fn disk_used(guest: &GuestRef) -> Option<u64>;
        async fn is_number_free(vmid: i64) -> bool;
    }
    Tasks {
        async fn task(id: &TaskId) -> TaskState;
    }
    Provision {
        async fn check_create(spec: &GuestSpec) -> ();
        async fn create(spec: &GuestSpec) -> Task;
        async fn prepare(spec: &GuestSpec) -> ();
        async fn resize(guest: &GuestRef, limits: &GuestSize) -> Task;
        async fn check_delete(guest: &GuestRef) -> ();
        async fn delete(guest: &GuestRef) -> Task;
    }
    Power {
        async fn start(guest: &GuestRef) -> Task;
        async fn stop(guest: &GuestRef, mode: StopMode) -> Task;
        async fn restart(guest: &GuestRef, timeout: Duration) -> Task;
    }
    Snapshots {
        async fn snapshots(guest: &GuestRef) -> Vec<Snapshot>;
        async fn create_snapshot(guest: &GuestRef, name: &str, description: &str) -> Task;
        async fn rollback(guest: &GuestRef, name: &str) -> Task;
        async fn check_rollback(guest: &GuestRef, name: &str) -> ();
        async fn delete_snapshot(guest: &GuestRef, name: &str) -> Task;
    }
    Inside {
        async fn exec(guest: &GuestRef, argv: &[&str], stdin: &[u8], timeout: Duration) -> ExecOutput;
        async fn set_password(guest: &GuestRef, password: &SecretString) -> ();
        async fn interfaces(guest: &GuestRef) -> Vec<Interface>;
    }
    Consoles {
        async fn console(guest: &GuestRef) -> Console;
        async fn last_words(guest: &GuestRef) -> String;
    }
}
