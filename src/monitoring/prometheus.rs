//! The fleet for Prometheus: what the last sweeps saw, in the text format. Names end as Prometheus asks: `_ratio`,
//! `_bytes`, `_seconds`, `_total`; guests go by the labels that prometheus-pve-exporter's users know.

use std::fmt::{Display, Write as _};

use super::model::{FleetHost, FleetServer};
use super::service;
use crate::core::Core;
use crate::error::Result;

/// Every host and server as the last sweeps saw them.
pub(super) async fn fleet(core: &Core) -> Result<String> {
    let (hosts, servers) = service::fleet(core).await?;
    let mut text = Text::default();
    of_hosts(&mut text, &hosts);
    of_servers(&mut text, &servers);
    Ok(text.0)
}

fn of_hosts(text: &mut Text, hosts: &[FleetHost]) {
    let labels = |h: &FleetHost| format!("host=\"{}\"", escaped(&h.name));
    text.family("innkeeper_host_up", "gauge", "Whether the last sweep of the host succeeded.", hosts, |h| {
        Some((labels(h), f64::from(u8::from(h.up))))
    });
    text.family("innkeeper_host_swept_timestamp_seconds", "gauge", "When a sweep of it last succeeded.", hosts, |h| {
        Some((labels(h), h.seen_at?.timestamp_millis() as f64 / 1e3))
    });
}

/// A server's figure, where it is known.
type Figure = fn(&FleetServer) -> Option<f64>;

fn of_servers(text: &mut Text, servers: &[FleetServer]) {
    let id = |s: &FleetServer| format!("id=\"{}\"", s.id);
    let info = |s: &FleetServer| {
        let (name, host, node, tariff) = (escaped(&s.name), escaped(&s.host), escaped(&s.node), escaped(&s.tariff));
        let (id, vmid, kind, status) = (s.id, s.guest_number, &s.kind, &s.status);
        format!(
            "id=\"{id}\",vmid=\"{vmid}\",name=\"{name}\",type=\"{kind}\",host=\"{host}\",node=\"{node}\",\
             tariff=\"{tariff}\",status=\"{status}\""
        )
    };
    text.family("innkeeper_guest_info", "gauge", "A server and where it is.", servers, |s| Some((info(s), 1.0)));
    let figures: [(&str, &str, &str, Figure); 11] = [
        ("innkeeper_guest_up", "gauge", "Whether it runs.", |s| {
            let known = s.power.as_deref().filter(|power| *power != "unknown")?;
            Some(f64::from(u8::from(known == "running")))
        }),
        ("innkeeper_guest_sampled_timestamp_seconds", "gauge", "When it was looked at.", |s| {
            Some(s.taken_at?.timestamp_millis() as f64 / 1e3)
        }),
        ("innkeeper_guest_uptime_seconds", "gauge", "Since its start.", |s| Some(s.uptime_s? as f64)),
        ("innkeeper_guest_cpu_usage_ratio", "gauge", "Share of its cores in use.", |s| s.cpu),
        ("innkeeper_guest_cpu_usage_limit", "gauge", "Its cores.", |s| Some(f64::from(s.cores))),
        ("innkeeper_guest_memory_usage_bytes", "gauge", "Memory in use.", |s| Some(s.memory_used? as f64)),
        ("innkeeper_guest_memory_size_bytes", "gauge", "Memory it may use.", |s| Some(s.memory_max? as f64)),
        ("innkeeper_guest_disk_usage_bytes", "gauge", "Root disk in use.", |s| Some(s.disk_used? as f64)),
        ("innkeeper_guest_disk_size_bytes", "gauge", "Root disk.", |s| Some(s.disk_max? as f64)),
        ("innkeeper_guest_network_receive_bytes_total", "counter", "Received since its start.", |s| {
            Some(s.net_in? as f64)
        }),
        ("innkeeper_guest_network_transmit_bytes_total", "counter", "Sent since its start.", |s| {
            Some(s.net_out? as f64)
        }),
    ];
    for (name, kind, help, figure) in figures {
        text.family(name, kind, help, servers, |s| Some((id(s), figure(s)?)));
    }
}

/// A page in Prometheus' text format.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family<T>(
        &mut self,
        name: &str,
        kind: &str,
        help: impl Display,
        all: &[T],
        value: impl Fn(&T) -> Option<(String, f64)>,
    ) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in all.iter().filter_map(value) {
            let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
        }
    }
}

/// A label's value: names are anybody's text.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_labels() {
        assert_eq!(escaped("a\"} 1\n\\"), "a\\\"} 1\\n\\\\");
        let mut text = Text::default();
        text.family("x_ratio", "gauge", "An x.", &[Some(0.5), None], |v| Some((String::from("id=\"1\""), (*v)?)));
        assert_eq!(text.0, "# HELP x_ratio An x.\n# TYPE x_ratio gauge\nx_ratio{id=\"1\"} 0.5\n");
    }
}
