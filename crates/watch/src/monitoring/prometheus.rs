//! Fleet metrics in Prometheus' text format, from the last sweeps. Names have Prometheus' suffixes (`_ratio`, `_bytes`,
//! `_seconds`, `_total`); guest labels follow prometheus-pve-exporter.

use std::fmt::{Display, Write as _};

use kernel::core::Core;
use kernel::error::Result;

use super::model::{FleetHost, FleetServer};
use super::service;

/// Metrics of all hosts and servers, as of their last sweeps.
pub(super) async fn host_and_server_metrics(core: &Core) -> Result<String> {
    let (hosts, servers) = service::fleet(core).await?;
    let mut text = MetricsPage::default();
    of_hosts(&mut text, &hosts);
    of_servers(&mut text, &servers);
    Ok(text.0)
}

fn of_hosts(text: &mut MetricsPage, hosts: &[FleetHost]) {
    let labels = |h: &FleetHost| format!("host=\"{}\"", escaped(&h.name));
    text.family("innkeeper_host_up", "gauge", "Whether the last sweep of the host succeeded.", hosts, |h| {
        Some((labels(h), f64::from(u8::from(h.up))))
    });
    text.family("innkeeper_host_swept_timestamp_seconds", "gauge", "Time of its last successful sweep.", hosts, |h| {
        Some((labels(h), h.seen_at?.timestamp_millis() as f64 / 1e3))
    });
}

/// Reads a metric of a server; `None` if unknown.
type Metric = fn(&FleetServer) -> Option<f64>;

fn of_servers(text: &mut MetricsPage, servers: &[FleetServer]) {
    let id = |s: &FleetServer| format!("id=\"{}\"", s.id);
    let info = |s: &FleetServer| {
        let (name, host, node, tariff) = (escaped(&s.name), escaped(&s.host), escaped(&s.node), escaped(&s.tariff));
        let (id, vmid, kind, status) = (s.id, s.guest_number, &s.kind, &s.status);
        format!(
            "id=\"{id}\",vmid=\"{vmid}\",name=\"{name}\",type=\"{kind}\",host=\"{host}\",node=\"{node}\",\
             tariff=\"{tariff}\",status=\"{status}\""
        )
    };
    text.family("innkeeper_guest_info", "gauge", "A server and its placement.", servers, |s| Some((info(s), 1.0)));
    let figures: [(&str, &str, &str, Metric); 11] = [
        ("innkeeper_guest_up", "gauge", "Whether the guest is running.", |s| {
            let known = s.power.as_deref().filter(|power| *power != "unknown")?;
            Some(f64::from(u8::from(known == "running")))
        }),
        ("innkeeper_guest_sampled_timestamp_seconds", "gauge", "Time of the last sample.", |s| {
            Some(s.taken_at?.timestamp_millis() as f64 / 1e3)
        }),
        ("innkeeper_guest_uptime_seconds", "gauge", "Time since the guest's last start.", |s| Some(s.uptime_s? as f64)),
        ("innkeeper_guest_cpu_usage_ratio", "gauge", "CPU usage as a fraction of the guest's cores.", |s| s.cpu),
        ("innkeeper_guest_cpu_usage_limit", "gauge", "Number of cores.", |s| Some(f64::from(s.cores))),
        ("innkeeper_guest_memory_usage_bytes", "gauge", "Memory usage.", |s| Some(s.memory_used? as f64)),
        ("innkeeper_guest_memory_size_bytes", "gauge", "Memory limit.", |s| Some(s.memory_max? as f64)),
        ("innkeeper_guest_disk_usage_bytes", "gauge", "Root disk usage.", |s| Some(s.disk_used? as f64)),
        ("innkeeper_guest_disk_size_bytes", "gauge", "Root disk size.", |s| Some(s.disk_max? as f64)),
        ("innkeeper_guest_network_receive_bytes_total", "counter", "Bytes received since its last start.", |s| {
            Some(s.net_in? as f64)
        }),
        ("innkeeper_guest_network_transmit_bytes_total", "counter", "Bytes sent since its last start.", |s| {
            Some(s.net_out? as f64)
        }),
    ];
    for (name, kind, help, figure) in figures {
        text.family(name, kind, help, servers, |s| Some((id(s), figure(s)?)));
    }
}

/// A page in Prometheus' text format, under construction.
#[derive(Default)]
struct MetricsPage(String);

impl MetricsPage {
    fn family<T>(
        &mut self,
        name: &str,
        kind: &str,
        help: impl Display,
        all: &[T],
        value: impl Fn(&T) -> Option<(String, f64)>,
    ) {
        // Writing to a `String` can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in all.iter().filter_map(value) {
            let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
        }
    }
}

/// Escapes a label value: names can contain any text.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_labels() {
        assert_eq!(escaped("a\"} 1\n\\"), "a\\\"} 1\\n\\\\");
        let mut text = MetricsPage::default();
        text.family("x_ratio", "gauge", "An x.", &[Some(0.5), None], |v| Some((String::from("id=\"1\""), (*v)?)));
        assert_eq!(text.0, "# HELP x_ratio An x.\n# TYPE x_ratio gauge\nx_ratio{id=\"1\"} 0.5\n");
    }
}
