//! A guest's configuration before its first start: its network and a machine's cloud-init values. Proxmox VE writes a
//! container's files itself when it creates it.

use hypervisor::{GuestSpec, Result};
use secrecy::ExposeSecret;

use crate::api::{GuestConfig, Properties};
use crate::client::{Client, encoded};
use crate::network;

/// Configuration keys and their wanted values; `None` deletes a key.
pub(crate) type Wanted<'a> = Vec<(&'a str, Option<String>)>;

/// `wanted`, in the configuration's own spelling if that means the same: Proxmox VE orders properties its own way.
fn same(config: &GuestConfig, key: &str, wanted: Option<String>) -> Option<String> {
    let wanted = wanted?;
    let present = config.get(key).filter(|present| Properties::parse(present) == Properties::parse(&wanted));
    Some(present.unwrap_or(wanted))
}

pub(crate) fn container<'a>(client: &Client, spec: &GuestSpec, config: &'a GuestConfig) -> Result<Wanted<'a>> {
    let net =
        network::container(&spec.network, &spec.limits, client.config.address_filters, config.get("net0").as_deref())?;
    let dns = Some(network::name_servers(&spec.network)).filter(|text| !text.is_empty());
    let search = network::search_domain(client.config.search_domain.as_deref(), &spec.hostname);
    Ok(vec![
        ("net0", same(config, "net0", net)),
        ("hostname", Some(spec.hostname.clone())),
        ("nameserver", dns),
        ("searchdomain", Some(search.to_owned())),
    ])
}

pub(crate) fn machine<'a>(client: &Client, spec: &GuestSpec, config: &'a GuestConfig) -> Result<Wanted<'a>> {
    let net =
        network::machine(&spec.network, &spec.limits, client.config.address_filters, config.get("net0").as_deref())?;
    let addresses = network::cloud_init(&spec.network)?;
    let present = |text: String| Some(text).filter(|text| !text.is_empty());
    let mut wanted = vec![
        ("net0", same(config, "net0", net)),
        ("name", Some(spec.hostname.clone())),
        ("ipconfig0", same(config, "ipconfig0", addresses)),
        ("nameserver", present(network::name_servers(&spec.network))),
        (
            "searchdomain",
            Some(network::search_domain(client.config.search_domain.as_deref(), &spec.hostname).to_owned()),
        ),
        ("ciuser", Some("root".to_owned())),
        // Encoded twice, with the form: Proxmox VE stores the keys encoded.
        ("sshkeys", present(encoded(&spec.ssh_keys.join("\n")))),
        // Else all packages would be upgraded before the first login.
        ("ciupgrade", Some("0".to_owned())),
    ];
    // A guest has one interface. Others from its template would not be filtered.
    wanted.extend(config.keys().filter(|key| network::is_further(key)).map(|key| (key, None)));
    // It is shown as asterisks and can't be compared, so it is always written.
    if !spec.password.expose_secret().is_empty() {
        wanted.push(("cipassword", Some(spec.password.expose_secret().to_owned())));
    }
    Ok(wanted)
}
