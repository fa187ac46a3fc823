//! Inside a running guest: interfaces, commands, root's password. Machines have the guest agent for that. For
//! containers the API has only the interfaces, so commands go through a [`GuestShell`](hypervisor::GuestShell).

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use hypervisor::{Error, ExecOutput, GuestKind, GuestPower, GuestRef, Inside, Interface, Result, ShellTarget, check};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::api::Properties;
use crate::client::Client;
use crate::place::{self, LocatedGuest};
use crate::rows::rows;
use crate::{Proxmox, lookup};

/// How much of an output is kept; the rest is dropped.
const OUTPUT_LIMIT: usize = 1 << 20;
/// How much input the agent takes.
const INPUT_LIMIT: usize = 64 << 10;
/// `chpasswd` is quick, and the caller holds a worker meanwhile: one that hangs is given up.
const PASSWORD_TIMEOUT: Duration = Duration::from_secs(5);
/// The first and the longest wait before the agent is asked whether a command has ended.
const POLLS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Nic {
    name: String,
    #[serde(alias = "hwaddr", rename = "hardware-address")]
    mac: String,
    inet: Option<String>,
    inet6: Option<String>,
    #[serde(rename = "ip-addresses")]
    addresses: Vec<AgentAddress>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AgentAddress {
    #[serde(rename = "ip-address")]
    address: String,
}

#[async_trait]
impl Inside for Proxmox {
    async fn exec(&self, guest: &GuestRef, argv: &[&str], stdin: &[u8], timeout: Duration) -> Result<ExecOutput> {
        let client = &self.client;
        check::command(argv)?;
        let found = lookup::require_running(client, guest).await?;
        match guest.kind {
            GuestKind::Lxc => self.by_shell(&found, guest, argv, stdin, timeout).await,
            GuestKind::Vm => by_agent(client, &found, argv, stdin, timeout).await,
        }
    }

    async fn set_password(&self, guest: &GuestRef, password: &SecretString) -> Result<()> {
        let client = &self.client;
        check::password(password)?;
        let found = lookup::require_running(client, guest).await?;
        if guest.kind == GuestKind::Vm {
            let form = [("username", "root"), ("password", password.expose_secret())];
            return client.post::<Value>(&found.at.path(&["agent", "set-user-password"]), &form).await.map(drop);
        }
        let line = SecretString::from(format!("root:{}\n", password.expose_secret()));
        let input = line.expose_secret().as_bytes();
        let output = self.by_shell(&found, guest, &["chpasswd"], input, PASSWORD_TIMEOUT).await?;
        if output.status == 0 {
            Ok(())
        } else {
            found.check_room()?;
            // Its output could quote the password, so it is not passed on.
            Err(Error::Failed(format!("chpasswd exited with status {}", output.status)))
        }
    }

    async fn interfaces(&self, guest: &GuestRef) -> Result<Vec<Interface>> {
        let client = &self.client;
        let found = lookup::require(client, guest).await?;
        if found.power() != GuestPower::Running {
            return Ok(Vec::new());
        }
        let answer: Value = match guest.kind {
            GuestKind::Lxc => client.get(&found.at.path(&["interfaces"]), &[]).await?,
            GuestKind::Vm => client
                .get::<Value>(&found.at.path(&["agent", "network-get-interfaces"]), &[])
                .await?
                .get("result")
                .cloned()
                .unwrap_or_default(),
        };
        // Versions differ in the keys, and some send both, which a serde alias would refuse.
        let rows = answer.as_array().cloned().unwrap_or_default();
        Ok(rows.into_iter().filter_map(nic).filter(|nic| nic.name != "lo").map(interface).collect())
    }
}

impl Proxmox {
    async fn by_shell(
        &self,
        found: &LocatedGuest,
        guest: &GuestRef,
        argv: &[&str],
        stdin: &[u8],
        timeout: Duration,
    ) -> Result<ExecOutput> {
        let client = &self.client;
        let none =
            || Error::Unsupported("Proxmox VE can't run commands in containers, and SSH is not configured".to_owned());
        let shell = self.shell.as_deref().ok_or_else(none)?;
        let config = place::config(client, &found.at).await?;
        let net = Properties::parse(&config.get("net0").unwrap_or_default());
        let addresses = ["ip", "ip6"].iter().filter_map(|key| net.get(key)?.split('/').next()?.parse().ok()).collect();
        let target = ShellTarget {
            marker: guest.marker,
            vmid: guest.vmid,
            kind: guest.kind,
            addresses,
            node: found.at.node.clone(),
            node_address: node_address(client, &found.at.node).await,
        };
        shell.exec(&target, argv, stdin, timeout).await
    }
}

fn nic(mut row: Value) -> Option<Nic> {
    let object = row.as_object_mut()?;
    if object.contains_key("hardware-address") {
        object.remove("hwaddr");
    }
    serde_json::from_value(row).ok()
}

fn interface(nic: Nic) -> Interface {
    let listed = nic.addresses.iter().map(|a| a.address.as_str());
    let single = nic.inet.iter().chain(&nic.inet6).map(|cidr| cidr.split('/').next().unwrap_or_default());
    let mut addresses: Vec<IpAddr> = listed.chain(single).filter_map(|text| text.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Interface { name: nic.name, mac: nic.mac.to_lowercase(), addresses }
}

/// A node's address in its cluster; `None` where we may not see it.
async fn node_address(client: &Client, node: &str) -> Option<IpAddr> {
    #[derive(Deserialize)]
    struct ClusterNodeRow {
        #[serde(default)]
        name: String,
        ip: Option<IpAddr>,
    }
    let rows = rows::<ClusterNodeRow>(client, &["cluster", "status"], &[]).await.ok()?;
    rows.read.into_iter().find(|row| row.name == node)?.ip
}

async fn by_agent(
    client: &Client,
    found: &LocatedGuest,
    argv: &[&str],
    stdin: &[u8],
    timeout: Duration,
) -> Result<ExecOutput> {
    #[derive(Deserialize)]
    struct AgentProcess {
        pid: u64,
    }
    let input = std::str::from_utf8(stdin).ok().filter(|text| text.is_ascii() && text.len() <= INPUT_LIMIT);
    let input =
        input.ok_or_else(|| Error::Unsupported("the guest agent takes at most 64 KiB of plain text".to_owned()))?;
    let mut form: Vec<_> = argv.iter().map(|argument| ("command", *argument)).collect();
    if !input.is_empty() {
        form.push(("input-data", input));
    }
    let deadline = Instant::now() + timeout;
    let begun: AgentProcess = client.post(&found.at.path(&["agent", "exec"]), &form).await?;
    let pid = begun.pid.to_string();
    let mut pause = POLLS.0;
    loop {
        let status: Value = client.get(&found.at.path(&["agent", "exec-status"]), &[("pid", &pid)]).await?;
        if truth(&status, "exited") {
            return Ok(output(&status));
        }
        if Instant::now() + pause > deadline {
            return Err(Error::GuestHung(format!("{} did not end within {} s", argv[0], timeout.as_secs())));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLLS.1);
    }
}

fn truth(status: &Value, key: &str) -> bool {
    status.get(key).is_some_and(|v| v.as_bool() == Some(true) || v.as_i64() == Some(1))
}

fn output(status: &Value) -> ExecOutput {
    let bytes = |key: &str| {
        let mut bytes = status.get(key).and_then(Value::as_str).unwrap_or_default().as_bytes().to_vec();
        bytes.truncate(OUTPUT_LIMIT);
        bytes
    };
    let number = |key: &str| status.get(key).and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok());
    // As shells report a signal.
    let status = number("exitcode").or(number("signal").map(|signal| 128 + signal)).unwrap_or(-1);
    ExecOutput { status, stdout: bytes("out-data"), stderr: bytes("err-data") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_in_both_spellings() {
        let old = serde_json::json!({"name": "eth0", "hwaddr": "BC:24:11:00:00:01", "inet": "10.0.0.5/24"});
        let address = serde_json::json!({"ip-address": "10.0.0.5", "ip-address-type": "inet", "prefix": "24"});
        let new = serde_json::json!({"name": "eth0", "hwaddr": "bc:24:11:00:00:01",
            "hardware-address": "bc:24:11:00:00:01", "inet": "10.0.0.5/24", "ip-addresses": [address]});
        let [old, new] = [old, new].map(|row| interface(nic(row).unwrap()));
        assert_eq!(old, new);
        assert_eq!((old.mac.as_str(), old.addresses.len()), ("bc:24:11:00:00:01", 1));
    }

    #[test]
    fn a_command_s_end_is_its_status_or_its_signal() {
        let ended = output(&serde_json::json!({"exited": 1, "exitcode": 7, "out-data": "a", "err-data": "b"}));
        assert_eq!(ended, ExecOutput { status: 7, stdout: b"a".to_vec(), stderr: b"b".to_vec() });
        assert_eq!(output(&serde_json::json!({"exited": true, "signal": 9})).status, 137);
    }
}
