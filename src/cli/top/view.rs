//! The data on display: the last state of the fleet, sorted, filtered and scrolled.

use std::cmp::Ordering;

use chrono::Utc;
use clap::ValueEnum;
use watch::monitoring::model::{FleetHost, FleetServer};

use crate::cli::output::plain;

/// Sort keys for servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TopSort {
    /// [i] Id
    Id,
    /// [n] Name
    Name,
    /// [h] Host and node
    Host,
    /// [s] Status
    Status,
    /// [c] CPU usage, highest first
    Cpu,
    /// [m] Memory usage, highest first
    Memory,
    /// [d] Disk usage, highest first
    Disk,
    /// [t] Network traffic in both directions, highest first
    Traffic,
    /// [u] Uptime, longest first
    Uptime,
    /// [a] Age of the data, oldest first
    Age,
}

/// The columns, and the sort key of each.
pub(super) const HEADINGS: [&str; 12] =
    ["ID", "NAME", "HOST", "NODE", "STATUS", "CPU%", "MEM%", "DISK%", "IN/s", "OUT/s", "UP", "AGE"];
pub(super) const SORTS: [TopSort; 12] = [
    TopSort::Id,
    TopSort::Name,
    TopSort::Host,
    TopSort::Host,
    TopSort::Status,
    TopSort::Cpu,
    TopSort::Memory,
    TopSort::Disk,
    TopSort::Traffic,
    TopSort::Traffic,
    TopSort::Uptime,
    TopSort::Age,
];

/// The last state of the fleet and how to show it.
#[derive(Debug, Clone)]
pub(super) struct View {
    hosts: Vec<FleetHost>,
    servers: Vec<FleetServer>,
    /// Why the data is outdated.
    pub(super) complaint: Option<String>,
    pub(super) sort: TopSort,
    pub(super) reversed: bool,
    pub(super) filter: String,
    /// Whether keys are typed into the filter.
    pub(super) typing: bool,
    /// The first visible row.
    pub(super) first: usize,
}

impl View {
    pub(super) fn new(sort: TopSort, filter: String) -> Self {
        let (hosts, servers, complaint) = (vec![], vec![], None);
        Self { hosts, servers, complaint, sort, reversed: false, filter, typing: false, first: 0 }
    }

    /// Replaces the data.
    pub(super) fn show(&mut self, hosts: Vec<FleetHost>, servers: Vec<FleetServer>) {
        (self.hosts, self.servers, self.complaint) = (hosts, servers, None);
    }

    /// Records why there is no new data.
    pub(super) fn complain(&mut self, why: String) {
        self.complaint = Some(why);
    }

    /// Takes the data of another view, and keeps its own display settings.
    pub(super) fn take(&mut self, other: &Self) {
        self.show(other.hosts.clone(), other.servers.clone());
        self.complaint.clone_from(&other.complaint);
    }

    /// A one-line summary.
    pub(super) fn summary(&self) -> String {
        let up = self.hosts.iter().filter(|h| h.up).count();
        let running = self.servers.iter().filter(|s| s.power.as_deref() == Some("running")).count();
        let down: Vec<String> = self.hosts.iter().filter(|h| !h.up).map(|h| plain(&h.name)).take(5).collect();
        let down = if down.is_empty() { String::new() } else { format!("   DOWN: {}", down.join(", ")) };
        format!(
            "hosts {up}/{} up   servers {running}/{} running   in {}/s   out {}/s{down}",
            self.hosts.len(),
            self.servers.len(),
            bytes(self.servers.iter().filter_map(|s| s.net_in_rate).sum()),
            bytes(self.servers.iter().filter_map(|s| s.net_out_rate).sum()),
        )
    }

    /// The servers that match the filter, sorted.
    pub(super) fn rows(&self) -> Vec<FleetServer> {
        let wanted = self.filter.to_lowercase();
        let passes = |s: &&FleetServer| {
            [&s.name, &s.host, &s.node, &s.status].into_iter().any(|text| text.to_lowercase().contains(&wanted))
        };
        let mut rows: Vec<&FleetServer> = self.servers.iter().filter(passes).collect();
        rows.sort_by(|a, b| {
            let order = self.sort.compare(a, b);
            (if self.reversed { order.reverse() } else { order }).then(a.id.cmp(&b.id))
        });
        rows.into_iter().cloned().collect()
    }

    /// Scrolls the rows, within their number.
    pub(super) fn scroll(&mut self, by: isize) {
        self.first = self.first.saturating_add_signed(by).min(self.servers.len());
    }

    /// Sorts by the given key; if it is the current one, reverses the order.
    pub(super) fn sort_by(&mut self, key: char) {
        let Some(sort) = TopSort::value_variants().iter().find(|s| s.key() == key) else { return };
        (self.reversed, self.sort) = (*sort == self.sort && !self.reversed, *sort);
    }

    pub(super) fn stop_filtering(&mut self) {
        self.typing = false;
        self.filter.clear();
    }
}

impl TopSort {
    fn key(self) -> char {
        self.to_possible_value().and_then(|v| v.get_name().chars().next()).unwrap_or_default()
    }

    fn compare(self, a: &FleetServer, b: &FleetServer) -> Ordering {
        // Highest first, unknown values last.
        let most =
            |figure: fn(&FleetServer) -> Option<f64>| figure(b).unwrap_or(-1.0).total_cmp(&figure(a).unwrap_or(-1.0));
        match self {
            Self::Id => a.id.cmp(&b.id),
            Self::Name => a.name.cmp(&b.name),
            Self::Host => (&a.host, &a.node).cmp(&(&b.host, &b.node)),
            Self::Status => a.status.cmp(&b.status),
            Self::Cpu => most(|s| s.cpu),
            Self::Memory => most(FleetServer::memory_share),
            Self::Disk => most(FleetServer::disk_share),
            Self::Traffic => most(|s| Some(s.net_in_rate? + s.net_out_rate?)),
            Self::Uptime => b.uptime_s.cmp(&a.uptime_s),
            Self::Age => a.taken_at.cmp(&b.taken_at),
        }
    }
}

/// Formats a server as a row.
pub(super) fn cells(server: &FleetServer) -> [String; 12] {
    let none = || "-".to_owned();
    let percent = |share: Option<f64>| share.map_or_else(none, |s| format!("{:.1}", s * 100.0));
    let rate = |rate: Option<f64>| rate.map_or_else(none, bytes);
    let age = server.taken_at.map(|at| (Utc::now() - at).num_seconds().max(0));
    [
        server.id.to_string(),
        plain(&server.name),
        plain(&server.host),
        plain(&server.node),
        server.status.clone(),
        percent(server.cpu),
        percent(server.memory_share()),
        percent(server.disk_share()),
        rate(server.net_in_rate),
        rate(server.net_out_rate),
        server.uptime_s.map_or_else(none, span),
        age.map_or_else(none, span),
    ]
}

/// Formats a number of bytes with at most three digits and a unit.
fn bytes(count: f64) -> String {
    let mut count = count;
    for unit in ["B", "K", "M", "G"] {
        if count < 999.5 {
            return if count < 9.95 && unit != "B" { format!("{count:.1}{unit}") } else { format!("{count:.0}{unit}") };
        }
        count /= 1024.0;
    }
    format!("{count:.1}T")
}

/// Formats a number of seconds in the largest unit that fits.
fn span(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
