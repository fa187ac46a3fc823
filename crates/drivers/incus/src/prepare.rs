//! What a guest gets before its first start: its network device, and the files inside it.
//!
//! Customer text goes into files only after [`check`]: nothing with a control character passes, so that no line can
//! be added to a file. What goes to cloud-init is JSON, which is YAML whose quoting can't be escaped from.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use hypervisor::{Error, GuestKind, GuestNetwork, GuestPower, GuestSpec, Limits, Result, check};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::Map;
use crate::client::{Client, envelope, transport};
use crate::lookup;

/// The one network interface inside a guest.
const NIC: &str = "eth0";

/// How often to ask anew for a guest's files: after a failure, after silence; and how long to wait before, at first and
/// at most. Half a minute in all: on a busy machine a helper takes its time.
const HELPER_TRIES: u32 = 20;
const SILENT_TRIES: u32 = 2;
const HELPER_WAIT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// How long Incus may take over one small file.
const FILE_TIME: Duration = Duration::from_secs(15);

/// A network as Incus knows it.
#[derive(Debug, Deserialize)]
struct Network {
    managed: bool,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    config: Map,
}

impl Network {
    /// Incus pins no address outside of a network that it gives out itself: it would say so of the device, in words that
    /// name nothing to do.
    fn takes(&self, name: &str, address: IpAddr) -> Result<()> {
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        let of = |key: &str| self.config.get(&format!("{family}.{key}")).map_or("", String::as_str);
        let given_out = !["", "none"].contains(&of("address")) && of("dhcp") != "false";
        if !given_out || contains(of("address"), address) {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "{address} is outside of {}, which Incus gives out on {name}: switch {family}.dhcp off there, or take another bridge",
            of("address")
        )))
    }
}

/// Whether a network, as `10.0.0.1/24`, has this address.
fn contains(network: &str, address: IpAddr) -> bool {
    let Some((base, Ok(prefix))) = network.split_once('/').map(|(base, prefix)| (base, prefix.parse::<u32>())) else {
        return false;
    };
    let same = |a: u128, b: u128, bits: u32| (a ^ b).checked_shr(bits.saturating_sub(prefix)).unwrap_or(0) == 0;
    match (base.parse(), address) {
        (Ok(IpAddr::V4(base)), IpAddr::V4(address)) => same(base.to_bits().into(), address.to_bits().into(), 32),
        (Ok(IpAddr::V6(base)), IpAddr::V6(address)) => same(base.to_bits(), address.to_bits(), 128),
        _ => false,
    }
}

/// The network device; `None` for a guest without addresses.
pub(crate) async fn nic(client: &Client, network: &GuestNetwork, limits: &Limits) -> Result<Option<Map>> {
    if network.addresses.is_empty() {
        return Ok(None);
    }
    let bridge = network.bridge.as_str();
    check::line("bridge", bridge)?;
    if bridge.is_empty() || bridge.contains('/') {
        return Err(Error::Invalid(format!("{bridge:?} is no bridge")));
    }
    let known: Option<Network> = client.get_opt(&["networks", bridge], &[]).await?;
    let managed = known.filter(|n| n.managed && n.kind == "bridge");
    let mut nic = device(network, managed.is_some(), client.config.address_filters);
    let pinned = network.addresses.iter().map(|a| a.address).filter(|a| nic.values().any(|v| *v == a.to_string()));
    managed.map_or(Ok(()), |known| pinned.into_iter().try_for_each(|address| known.takes(bridge, address)))?;
    limit(limits.bandwidth_mbps.unwrap_or_default(), &mut nic);
    Ok(Some(nic))
}

/// The device's rate, in Mbit/s each way; 0 for none.
pub(crate) fn limit(mbps: u32, nic: &mut Map) {
    match mbps {
        0 => drop(nic.remove("limits.max")),
        mbps => drop(nic.insert("limits.max".to_owned(), format!("{mbps}Mbit"))),
    }
}

fn device(network: &GuestNetwork, managed: bool, filters: bool) -> Map {
    let mut nic = Map::new();
    let mut set = |key: &str, value: String| nic.insert(key.to_owned(), value);
    set("type", "nic".to_owned());
    set("name", NIC.to_owned());
    if managed {
        set("network", network.bridge.clone());
    } else {
        set("nictype", "bridged".to_owned());
        set("parent", network.bridge.clone());
    }
    if let Some(vlan) = network.vlan {
        set("vlan", vlan.to_string());
    }
    if !filters {
        return nic;
    }
    set("security.mac_filtering", "true".to_owned());
    for (family, v4) in [("ipv4", true), ("ipv6", false)] {
        let mut of_family = network.addresses.iter().filter(|a| a.address.is_ipv4() == v4);
        match (of_family.next(), of_family.next()) {
            (Some(one), None) => {
                set(&format!("{family}.address"), one.address.to_string());
                set(&format!("security.{family}_filtering"), "true".to_owned());
            }
            // "none" with the filter lets nothing of that family out.
            (None, _) => {
                set(&format!("{family}.address"), "none".to_owned());
                set(&format!("security.{family}_filtering"), "true".to_owned());
            }
            // Incus filters for one address a family; a second would be cut off.
            (Some(_), Some(_)) => {}
        }
    }
    nic
}

/// The name without its domain.
fn short(hostname: &str) -> &str {
    hostname.split('.').next().unwrap_or(hostname)
}

/// The `cloud-init.*` keys, for images that read them.
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
            .map(|(address, via)| json!({"to": if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" }, "via": via, "on-link": true}))
            .collect::<Vec<_>>(),
    });
    if !spec.network.dns.is_empty() {
        link["nameservers"] = json!({"addresses": spec.network.dns});
    }
    if let Some(domain) = search {
        link["nameservers"]["search"] = json!([domain]);
    }
    // In a VM the kernel chooses the interface's name.
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
        // On-link: a pool's gateway need not be inside the guest's own prefix.
        let _ = writeln!(text, "\n[Route]\nGateway={gateway}\nGatewayOnLink=yes");
    }
    text
}

fn hosts(hostname: &str) -> String {
    let short = short(hostname);
    let names = if short == hostname { short.to_owned() } else { format!("{hostname} {short}") };
    format!(
        "127.0.0.1\tlocalhost\n127.0.1.1\t{names}\n\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
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

pub(crate) async fn prepare(client: &Client, spec: &GuestSpec) -> Result<()> {
    let cloud_init = cloud_init(spec, client.config.search_domain.as_deref())?;
    let instance = lookup::require(client, &spec.guest).await?;
    if instance.power() != GuestPower::Stopped {
        return Err(Error::Conflict(format!("{} is not stopped", instance.name)));
    }
    let name = instance.name.as_str();
    let mut change = serde_json::Map::new();
    if cloud_init.iter().any(|(key, value)| instance.config.get(key) != Some(value)) {
        change.insert("config".to_owned(), json!(cloud_init));
    }
    let nic = nic(client, &spec.network, &spec.limits).await?;
    if let Some(nic) = nic.filter(|nic| instance.devices.get(NIC) != Some(nic)) {
        change.insert("devices".to_owned(), json!({NIC: nic}));
    }
    if !change.is_empty() {
        client.send_and_wait(Method::PATCH, &["instances", name], Some(&Value::Object(change))).await?;
    }
    // A stopped VM's disk is not open to us: its image must read cloud-init.
    if spec.guest.kind == GuestKind::Vm {
        return Ok(());
    }
    let files = Files { client, instance: name };
    let mut tries = 0;
    loop {
        match inside(&files, spec).await {
            // Incus gives a stopped guest's files to a helper that ends when nobody asks, and whom it may ask meanwhile: it
            // says so, or nothing at all.
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

/// Writes a guest's files; repeated, it writes the same.
async fn inside(files: &Files<'_>, spec: &GuestSpec) -> Result<()> {
    let search = files.client.config.search_domain.as_deref();
    files.write("/etc/hostname", 0o644, format!("{}\n", spec.hostname)).await?;
    files.write("/etc/hosts", 0o644, hosts(&spec.hostname)).await?;
    if !spec.network.addresses.is_empty() {
        files.directory("/etc/systemd", 0o755).await?;
        files.directory("/etc/systemd/network", 0o755).await?;
        // Sorts before whatever the image has for its interface; the first match wins.
        files.write("/etc/systemd/network/00-innkeeper.network", 0o644, networkd(&spec.network, search)).await?;
    }
    if !spec.network.dns.is_empty() && !files.is_managed("/etc/resolv.conf").await? {
        files.write("/etc/resolv.conf", 0o644, resolv_conf(&spec.network.dns, search)).await?;
    }
    files.directory("/root/.ssh", 0o700).await?;
    files.write("/root/.ssh/authorized_keys", 0o600, lines(&spec.ssh_keys)).await
}

/// The files API of one instance.
struct Files<'a> {
    client: &'a Client,
    instance: &'a str,
}

impl Files<'_> {
    /// Writes a file of root's, replacing what is there, its mode included.
    async fn write(&self, path: &str, mode: u32, content: String) -> Result<()> {
        self.post(path, "file", mode, content).await
    }

    /// Makes a directory of root's; one that is there keeps its mode.
    async fn directory(&self, path: &str, mode: u32) -> Result<()> {
        self.post(path, "directory", mode, String::new()).await
    }

    async fn post(&self, path: &str, kind: &str, mode: u32, content: String) -> Result<()> {
        let url = self.client.url(&["instances", self.instance, "files"], &[("path", path)])?;
        let response = self
            .client
            .request(Method::POST, url)
            .header("X-Incus-type", kind)
            .header("X-Incus-uid", "0")
            .header("X-Incus-gid", "0")
            .header("X-Incus-mode", format!("{mode:04o}"))
            .header("X-Incus-write", "overwrite")
            .header("Content-Type", "application/octet-stream")
            .timeout(FILE_TIME.min(self.client.timeout()))
            .body(content)
            .send()
            .await
            .map_err(|e| transport(&e, true))?;
        let status = response.status().as_u16();
        let bytes = response.bytes().await.map_err(|e| transport(&e, true))?;
        envelope(status, &bytes).map(drop)
    }

    /// Whether a path is a link, which something in the image keeps.
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
    use hypervisor::{GuestAddress, GuestRef};

    use super::*;

    fn spec() -> GuestSpec {
        GuestSpec {
            guest: GuestRef { marker: uuid::Uuid::nil(), vmid: 1, kind: GuestKind::Lxc, node: String::new() },
            hostname: "web.example.org".to_owned(),
            image: "debian".to_owned(),
            limits: Limits::default(),
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

    #[test]
    fn a_network_that_incus_gives_out_takes_its_own_addresses_only() {
        let network = |address: &str, dhcp: &str| Network {
            managed: true,
            kind: "bridge".to_owned(),
            config: Map::from([
                ("ipv4.address".to_owned(), address.to_owned()),
                ("ipv4.dhcp".to_owned(), dhcp.to_owned()),
                ("ipv6.address".to_owned(), "fd00::1/64".to_owned()),
            ]),
        };
        let takes = |network: &Network, address: &str| network.takes("br0", address.parse().unwrap()).is_ok();
        let own = network("10.0.0.1/24", "true");
        assert!(takes(&own, "10.0.0.255") && takes(&own, "fd00::ffff:1"));
        assert!(!takes(&own, "10.0.1.0") && !takes(&own, "192.0.2.7") && !takes(&own, "fd00:0:0:1::1"));
        assert!(takes(&network("10.0.0.1/24", "false"), "192.0.2.7") && takes(&network("none", ""), "192.0.2.7"));
        assert!(contains("10.0.0.1/0", "192.0.2.7".parse().unwrap()) && !contains("x", "192.0.2.7".parse().unwrap()));
    }

    /// A guest with a /32, or with a gateway that is link-local, finds its gateway on the link.
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

    #[test]
    fn a_managed_network_pins_the_addresses() {
        let nic = device(&spec().network, true, true);
        assert_eq!(nic["network"], "br0");
        assert_eq!(nic["ipv4.address"], "10.0.0.5");
        assert_eq!(nic["security.ipv6_filtering"], "true");
        let bare = device(&spec().network, false, false);
        assert_eq!(bare["parent"], "br0");
        assert!(!bare.contains_key("security.mac_filtering"));
    }
}
