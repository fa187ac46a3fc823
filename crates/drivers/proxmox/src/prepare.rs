//! What a guest's configuration is to be before its first start: its network as ordered, a machine's cloud-init values. A
//! container's files are written by Proxmox VE itself when it is made.

use hypervisor::{GuestSpec, Result};
use secrecy::ExposeSecret;

use crate::api::{Config, Properties};
use crate::client::{Client, encoded};
use crate::network;

/// Keys of a configuration, and what they are to be; `None` takes one away.
pub(crate) type Wanted<'a> = Vec<(&'a str, Option<String>)>;

/// `wanted` as the configuration has it where it says the same: Proxmox VE has an order of its own.
fn same(config: &Config, key: &str, wanted: Option<String>) -> Option<String> {
    let wanted = wanted?;
    let present = config.get(key).filter(|present| Properties::parse(present) == Properties::parse(&wanted));
    Some(present.unwrap_or(wanted))
}

pub(crate) fn container<'a>(client: &Client, spec: &GuestSpec, config: &'a Config) -> Result<Wanted<'a>> {
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

pub(crate) fn machine<'a>(client: &Client, spec: &GuestSpec, config: &'a Config) -> Result<Wanted<'a>> {
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
        // The form is encoded once more on its way: Proxmox VE keeps the keys encoded.
        ("sshkeys", present(encoded(&spec.ssh_keys.join("\n")))),
        // An upgrade of all packages would come before the first login.
        ("ciupgrade", Some("0".to_owned())),
    ];
    // A guest has one interface, and nothing would filter the others that its template has.
    wanted.extend(config.keys().filter(|key| network::is_further(key)).map(|key| (key, None)));
    // It is shown as stars, so it can't be compared: always written.
    if !spec.password.expose_secret().is_empty() {
        wanted.push(("cipassword", Some(spec.password.expose_secret().to_owned())));
    }
    Ok(wanted)
}
