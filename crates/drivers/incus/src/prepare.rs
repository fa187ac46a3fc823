//! What a guest has inside before its first start: a container's files, and the data for cloud-init.
//!
//! Customers' text passes [`check`] first: without control characters it can't add a line to a file. Cloud-init gets
//! JSON, which is YAML with quoting that can't be escaped from.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use hypervisor::{Error, GuestKind, GuestNetwork, GuestSpec, Result, check};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::json;

use crate::api::Map;
use crate::client::{Client, envelope, transport};
use crate::files;
use crate::network::NIC;

/// How often to try a guest's files again after an error of Incus's helper process, and after no answer; and the
/// first and longest wait between tries. Half a minute in all: on a busy machine the helper is slow.
const HELPER_TRIES: u32 = 20;
const SILENT_TRIES: u32 = 2;
const HELPER_WAIT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

fn short(hostname: &str) -> &str {
    hostname.split('.').next().unwrap_or(hostname)
}

/// The `cloud-init.*` keys, for images that use cloud-init.
pub(crate) fn cloud_init(spec: &GuestSpec, search: Option<&str>) -> Result<Map> {
    check::texts(spec)?;
    let user = json!({
        "hostname": short(&spec.hostname),
        "fqdn": spec.hostname,
        "manage_etc_hosts": true,
        "disable_root": false,
        "users": [{"name": "root", "lock_passwd": false, "ssh_authorized_keys": spec.ssh_keys}],
    });
    let addresses = &spec.network.addresses;
    let mut link = json!({
        "dhcp4": false,
        "dhcp6": false,
        "addresses": addresses.iter().map(|a| format!("{}/{}", a.address, a.prefix)).collect::<Vec<_>>(),
        "routes": addresses.iter().filter_map(|a| Some((a.address, a.gateway?)))
            .map(|(address, via)| {
                let to = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
                json!({"to": to, "via": via, "on-link": true})
            })
            .collect::<Vec<_>>(),
    });
    if !spec.network.dns.is_empty() {
        link["nameservers"] = json!({"addresses": spec.network.dns});
    }
    if let Some(domain) = search {
        link["nameservers"]["search"] = json!([domain]);
    }
    // In a VM the kernel names the interface.
    let ethernets = match spec.guest.kind {
        GuestKind::Lxc => json!({NIC: link}),
        GuestKind::Vm => {
            link["match"] = json!({"name": "e*"});
            json!({"net0": link})
        }
    };
    let network = if addresses.is_empty() {
        json!({"version": 2, "ethernets": {}})
    } else {
        json!({"version": 2, "ethernets": ethernets})
    };
    Ok(Map::from([
        ("cloud-init.user-data".to_owned(), format!("#cloud-config\n{user}\n")),
        ("cloud-init.network-config".to_owned(), network.to_string()),
    ]))
}

fn networkd(network: &GuestNetwork, search: Option<&str>) -> String {
    let mut text = format!("# Written by Innkeeper.\n[Match]\nName={NIC}\n\n[Network]\nDHCP=no\nIPv6AcceptRA=no\n");
    for address in &network.addresses {
        let _ = writeln!(text, "Address={}/{}", address.address, address.prefix);
    }
    for server in &network.dns {
        let _ = writeln!(text, "DNS={server}");
    }
    if let Some(domain) = search {
        let _ = writeln!(text, "Domains={domain}");
    }
    for gateway in network.addresses.iter().filter_map(|a| a.gateway) {
        // On-link: a pool's gateway need not be within the guest's own prefix.
        let _ = writeln!(text, "\n[Route]\nGateway={gateway}\nGatewayOnLink=yes");
    }
    text
}

fn hosts(hostname: &str) -> String {
    let short = short(hostname);
    let names = if short == hostname { short.to_owned() } else { format!("{hostname} {short}") };
    format!(
        "127.0.0.1\tlocalhost\n127.0.1.1\t{names}\n\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
    )
}

fn resolv_conf(dns: &[IpAddr], search: Option<&str>) -> String {
    let mut text = search.map(|domain| format!("search {domain}\n")).unwrap_or_default();
    for server in dns {
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

fn lines(keys: &[String]) -> String {
    let mut text = String::new();
    for key in keys.iter().map(|key| key.trim()).filter(|key| !key.is_empty()) {
        let _ = writeln!(text, "{key}");
    }
    text
}

/// Writes a container's files. Repeatable.
pub(crate) async fn write_files(client: &Client, instance: &str, spec: &GuestSpec) -> Result<()> {
    let files = InstanceFiles { client, instance };
    let mut tries = 0;
    loop {
        match files.write_all(spec).await {
            // Incus reads a stopped guest's files through a helper process that exits when idle. A request at that
            // moment fails, or gets no answer.
            Err(Error::Failed(text)) if text.contains("forkfile.sock") => {
                if tries >= HELPER_TRIES {
                    return Err(Error::Locked(text));
                }
            }
            Err(Error::OutcomeUnknown(_)) if tries < SILENT_TRIES => {}
            done => return done,
        }
        tries += 1;
        tokio::time::sleep((HELPER_WAIT.0 * tries).min(HELPER_WAIT.1)).await;
    }
}

struct InstanceFiles<'a> {
    client: &'a Client,
    instance: &'a str,
}

impl InstanceFiles<'_> {
    async fn write_all(&self, spec: &GuestSpec) -> Result<()> {
        let search = self.client.config.search_domain.as_deref();
        self.write("/etc/hostname", 0o644, format!("{}\n", spec.hostname)).await?;
        self.write("/etc/hosts", 0o644, hosts(&spec.hostname)).await?;
        if !spec.network.addresses.is_empty() {
            self.directory("/etc/systemd", 0o755).await?;
            self.directory("/etc/systemd/network", 0o755).await?;
            // Sorts before the image's own file for the interface: the first match wins.
            self.write("/etc/systemd/network/00-innkeeper.network", 0o644, networkd(&spec.network, search)).await?;
        }
        if !spec.network.dns.is_empty() && !self.is_managed("/etc/resolv.conf").await? {
            self.write("/etc/resolv.conf", 0o644, resolv_conf(&spec.network.dns, search)).await?;
        }
        self.directory("/root/.ssh", 0o700).await?;
        self.write("/root/.ssh/authorized_keys", 0o600, lines(&spec.ssh_keys)).await
    }

    /// Owned by root; replaces the file and its mode.
    async fn write(&self, path: &str, mode: u32, content: String) -> Result<()> {
        self.post(path, "file", mode, content).await
    }

    /// Owned by root; an existing one keeps its mode.
    async fn directory(&self, path: &str, mode: u32) -> Result<()> {
        self.post(path, "directory", mode, String::new()).await
    }

    async fn post(&self, path: &str, kind: &str, mode: u32, content: String) -> Result<()> {
        files::post(self.client, self.instance, (path, kind, mode), content).await
    }

    /// Whether a path is a symlink, which some service in the image manages.
    async fn is_managed(&self, path: &str) -> Result<bool> {
        let url = self.client.url(&["instances", self.instance, "files"], &[("path", path)])?;
        let response = self.client.request(Method::GET, url).send().await.map_err(|e| transport(&e, false))?;
        let status = response.status().as_u16();
        if response.status().is_success() {
            let kind = |headers: &HeaderMap| headers.get("X-Incus-type").is_some_and(|kind| kind == "symlink");
            return Ok(kind(response.headers()));
        }
        let bytes = response.bytes().await.map_err(|e| transport(&e, false))?;
        match envelope(status, &bytes) {
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
            Ok(_) => Err(Error::Failed(format!("HTTP {status} for {path}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use hypervisor::{GuestAddress, GuestRef, GuestSize};
    use serde_json::Value;

    use super::*;

    fn spec() -> GuestSpec {
        GuestSpec {
            guest: GuestRef { marker: uuid::Uuid::nil(), vmid: 1, kind: GuestKind::Lxc, node: String::new() },
            hostname: "web.example.org".to_owned(),
            image: "debian".to_owned(),
            limits: GuestSize::default(),
            network: GuestNetwork {
                bridge: "br0".to_owned(),
                vlan: None,
                addresses: vec![
                    GuestAddress {
                        address: "10.0.0.5".parse().unwrap(),
                        prefix: 24,
                        gateway: Some("10.0.0.1".parse().unwrap()),
                    },
                    GuestAddress { address: "2001:db8::5".parse().unwrap(), prefix: 64, gateway: None },
                ],
                dns: vec!["10.0.0.1".parse().unwrap()],
            },
            ssh_keys: vec!["ssh-ed25519 AAAA it's \"me\": {}".to_owned()],
            password: String::new().into(),
        }
    }

    #[test]
    fn control_characters_never_pass() {
        for bad in ["a\nb", "a\0", "", "a b", "a\u{85}"] {
            assert!(cloud_init(&GuestSpec { hostname: bad.to_owned(), ..spec() }, None).is_err(), "{bad:?}");
        }
        let keys = vec!["ssh-ed25519 AAAA\nssh-rsa BBBB".to_owned()];
        assert!(cloud_init(&GuestSpec { ssh_keys: keys, ..spec() }, None).is_err());
    }

    #[test]
    fn cloud_init_quotes_customer_text() {
        let keys = cloud_init(&spec(), Some("customers.example")).unwrap();
        let user = keys["cloud-init.user-data"].strip_prefix("#cloud-config\n").unwrap();
        let user: Value = serde_json::from_str(user).unwrap();
        assert_eq!(user["users"][0]["ssh_authorized_keys"][0], "ssh-ed25519 AAAA it's \"me\": {}");
        let network: Value = serde_json::from_str(&keys["cloud-init.network-config"]).unwrap();
        assert_eq!(network["ethernets"]["eth0"]["addresses"][1], "2001:db8::5/64");
        assert_eq!(network["ethernets"]["eth0"]["nameservers"]["search"][0], "customers.example");
    }

    #[test]
    fn files_say_what_they_should() {
        let text = networkd(&spec().network, Some("customers.example"));
        assert!(
            text.contains("Address=10.0.0.5/24\nAddress=2001:db8::5/64\nDNS=10.0.0.1\nDomains=customers.example\n")
        );
        let resolv = resolv_conf(&spec().network.dns, Some("customers.example"));
        assert_eq!(resolv, "search customers.example\nnameserver 10.0.0.1\n");
        assert_eq!(resolv_conf(&spec().network.dns, None), "nameserver 10.0.0.1\n");
        assert!(text.contains("[Route]\nGateway=10.0.0.1\n"));
        assert!(hosts("web.example.org").contains("127.0.1.1\tweb.example.org web\n"));
        assert_eq!(lines(&[" a ".to_owned(), String::new()]), "a\n");
    }

    /// A guest with a /32, or with a link-local gateway, can reach its gateway on the link.
    #[test]
    fn a_gateway_outside_is_on_the_link() {
        let mut spec = spec();
        let address = |address: &str, prefix, via: &str| GuestAddress {
            address: address.parse().unwrap(),
            prefix,
            gateway: via.parse().ok(),
        };
        spec.network.addresses = vec![address("192.0.2.7", 32, "198.51.100.1"), address("2001:db8::7", 128, "fe80::1")];
        let text = networkd(&spec.network, None);
        for via in ["198.51.100.1", "fe80::1"] {
            assert!(text.contains(&format!("[Route]\nGateway={via}\nGatewayOnLink=yes\n")), "{text}");
        }
        let network: Value =
            serde_json::from_str(&cloud_init(&spec, None).unwrap()["cloud-init.network-config"]).unwrap();
        let routes = network["ethernets"]["eth0"]["routes"].as_array().unwrap();
        assert_eq!(routes[0], json!({"to": "0.0.0.0/0", "via": "198.51.100.1", "on-link": true}));
        assert_eq!(routes[1], json!({"to": "::/0", "via": "fe80::1", "on-link": true}));
    }
}
