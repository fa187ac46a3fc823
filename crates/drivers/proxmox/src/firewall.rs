//! The guest's firewall, as far as it keeps a guest from using others' addresses. It works where the datacenter's
//! firewall is on, which the preflight checks.
//!
//! The set `ipfilter-net0` lists the addresses that the interface `net0` may send from. It is rewritten before every
//! first start, since a clone brings its template's. The policies are set: the default would let nothing in.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hypervisor::{Error, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::api::GuestConfig;
use crate::client::Client;
use crate::place::Place;
use crate::rows::rows;

const SET: &str = "ipfilter-net0";

const OPTIONS: &[(&str, &str)] = &[
    ("enable", "1"),
    ("macfilter", "1"),
    ("ipfilter", "1"),
    ("dhcp", "0"),
    ("ndp", "1"),
    ("radv", "0"),
    ("policy_in", "ACCEPT"),
    ("policy_out", "ACCEPT"),
];

#[derive(Deserialize)]
struct IpSetEntry {
    cidr: String,
}

#[derive(Deserialize)]
struct IpSet {
    name: String,
}

/// Allows a guest to use these addresses only.
pub(crate) async fn filter(client: &Client, at: &Place, allowed: &[IpAddr]) -> Result<()> {
    let sets = rows::<IpSet>(client, &at.path(&["firewall", "ipset"]), &[]).await?;
    if !sets.read.iter().any(|set| set.name == SET) {
        done(client.post(&at.path(&["firewall", "ipset"]), &[("name", SET)]).await)?;
    }
    let entries = rows::<IpSetEntry>(client, &at.path(&["firewall", "ipset", SET]), &[]).await?;
    if entries.incomplete {
        // It would stay, and may allow somebody else's address.
        return Err(Error::Failed(format!("an entry of {SET} of {} can't be read", at.vmid)));
    }
    let present: BTreeSet<String> = entries.read.into_iter().map(|entry| entry.cidr).collect();
    let wanted: BTreeSet<String> = allowed.iter().map(IpAddr::to_string).collect();
    for cidr in wanted.difference(&present) {
        done(client.post(&at.path(&["firewall", "ipset", SET]), &[("cidr", cidr)]).await)?;
    }
    for cidr in present.difference(&wanted) {
        match client.delete::<Value>(&at.path(&["firewall", "ipset", SET, cidr]), &[]).await {
            Ok(_) | Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    // Last, so that no guest is filtered by an incomplete set.
    let options: GuestConfig = client.get(&at.path(&["firewall", "options"]), &[]).await?;
    let form: Vec<_> =
        OPTIONS.iter().copied().filter(|(key, value)| options.get(key).as_deref() != Some(*value)).collect();
    if form.is_empty() {
        return Ok(());
    }
    client.put::<Value>(&at.path(&["firewall", "options"]), &form).await.map(drop)
}

/// An entry that exists already is a success.
fn done(result: Result<Value>) -> Result<()> {
    match result {
        Ok(_) | Err(Error::AlreadyExists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
