//! Turns stored samples into stats.

use std::collections::HashMap;
use std::time::Duration;

use chrono::Utc;
use compute::servers::figures::{NetworkRates, SPARKLINE_STEP, SPARKLINE_STEPS, ServerStats, Sparkline};
use kernel::core::Core;
use kernel::error::{Error, Result};
use sqlx::PgConnection;

use super::charts::{self, Charts};
use super::model::{ChartPoint, FleetHost, FleetServer, NetworkUsage, ResourceUsage, StatsData};
use super::store::{self, PointRow, SampleRow, ServerRow};
use crate::ids::{HostId, ServerId};

/// The stats of a server.
pub async fn stats(core: &Core, server: ServerId) -> Result<StatsData> {
    let rows = store::servers(&core.db, None, &[server]).await?;
    let row = rows.first().ok_or_else(|| Error::not_found("server"))?;
    // Read once, it can miss nothing.
    let mut chart = Charts::new(Duration::ZERO);
    chart.update(&core.db, &rows).await?;
    Ok(stats_from(row, chart.of(server)))
}

/// The stats of these servers, limited to one host if given, in a fixed number of queries.
pub async fn stats_of(
    core: &Core,
    host: Option<HostId>,
    servers: &[ServerId],
    charts: &mut Charts,
) -> Result<Vec<(ServerId, StatsData)>> {
    let rows = store::servers(&core.db, host, servers).await?;
    charts.update(&core.db, &rows).await?;
    Ok(rows.iter().map(|row| (row.id, stats_from(row, charts.of(row.id)))).collect())
}

/// These servers' latest figures with their last hour, in two queries.
pub async fn brief(db: &mut PgConnection, servers: &[ServerId]) -> sqlx::Result<HashMap<ServerId, ServerStats>> {
    let rows = store::servers(&mut *db, None, servers).await?;
    let empty = || Sparkline { cpu: vec![None; SPARKLINE_STEPS], memory: vec![None; SPARKLINE_STEPS] };
    let mut lines: HashMap<ServerId, Sparkline> = rows.iter().map(|row| (row.id, empty())).collect();
    for step in store::steps(db, servers, SPARKLINE_STEP).await? {
        let place = usize::try_from(step.ago).ok().and_then(|ago| (SPARKLINE_STEPS - 1).checked_sub(ago));
        if let (Some(place), Some(line)) = (place, lines.get_mut(&step.server_id)) {
            line.cpu[place] = step.cpu.map(|cpu| round(cpu, 4));
            line.memory[place] = step.memory.map(f64::round);
        }
    }
    Ok(rows
        .iter()
        .map(|row| {
            let StatsData { cpu, memory, disk, uptime, sampled_at, age, .. } = stats_from(row, &[]);
            let live = row.sample.as_ref().filter(|_| !is_idle(row));
            let rate = |of: fn(&SampleRow) -> Option<f64>| match live {
                Some(sample) => of(sample).map(|rate| round(rate, 2)),
                None => is_idle(row).then_some(0.0),
            };
            let network = NetworkRates { received: rate(|s| s.net_in_rate), sent: rate(|s| s.net_out_rate) };
            let sparkline = lines.remove(&row.id).unwrap_or_else(empty);
            (row.id, ServerStats { cpu, memory, disk, network, uptime, sampled_at, age, sparkline })
        })
        .collect())
}

/// All enabled hosts and all servers, as of their last sweeps.
pub async fn fleet(core: &Core) -> Result<(Vec<FleetHost>, Vec<FleetServer>)> {
    Ok(tokio::try_join!(store::fleet_hosts(&core.db), store::fleet_servers(&core.db))?)
}

fn stats_from<'a>(server: &ServerRow, points: impl IntoIterator<Item = &'a PointRow>) -> StatsData {
    let (sample, idle) = (server.sample.as_ref(), is_idle(server));
    let live = sample.filter(|_| !idle);
    // Nothing is known of a running server before its first sample.
    let nothing = idle.then_some(0);
    let max = |seen: Option<i64>, sold: i64| seen.filter(|m| *m > 0).unwrap_or(sold);
    StatsData {
        vmid: server.guest_number,
        status: server.status.clone(),
        reason: live.filter(|_| server.status == "paused").and_then(|s| s.reason.clone()),
        uptime: live.map_or(nothing, |s| s.uptime_s),
        cpu: live.map_or(idle.then_some(0.0), |s| s.cpu.map(|cpu| round(cpu, 4))),
        memory: gauge(
            live.map_or(nothing, |s| s.memory_used),
            max(sample.and_then(|s| s.memory_max), server.memory_mib.saturating_mul(1 << 20)),
        ),
        disk: gauge(
            sample.map_or(nothing, |s| s.disk_used),
            max(sample.and_then(|s| s.disk_max), server.disk_gib.saturating_mul(1 << 30)),
        ),
        network: NetworkUsage {
            received: sample.map_or(nothing, |s| s.net_in),
            sent: sample.map_or(nothing, |s| s.net_out),
        },
        rrd_data: chart(points),
        sampled_at: sample.map(|s| s.taken_at),
        // Clocks of different processes differ a little.
        age: sample.map(|s| (Utc::now() - s.taken_at).num_seconds().max(0)),
    }
}

/// Whether it is stopped. Then it uses nothing, whatever its last sample, perhaps an older one, says.
fn is_idle(server: &ServerRow) -> bool {
    let off = matches!(server.status.as_str(), "creating" | "stopped" | "deleted" | "failed");
    off || server.sample.as_ref().is_some_and(|sample| sample.power == "stopped")
}

fn gauge(used: Option<i64>, max: i64) -> ResourceUsage {
    let share = monitor::sample::share(used.map(unsigned), Some(unsigned(max)));
    ResourceUsage { used, max, usage: share.map(|share| round(share * 100.0, 2)) }
}

/// Chart points with the rates between them. If the first point is older than the hour, it only serves as the
/// predecessor of the second.
fn chart<'a>(points: impl IntoIterator<Item = &'a PointRow>) -> Vec<ChartPoint> {
    let (begin, mut before) = (charts::begin(), None::<&PointRow>);
    let mut chart = Vec::new();
    for point in points {
        let rate = |counter: fn(&PointRow) -> Option<i64>| {
            let seconds = (point.taken_at - before?.taken_at).as_seconds_f64();
            let (then, now) = (unsigned(counter(before?)?), unsigned(counter(point)?));
            Some(round(monitor::sample::rate(then, now, seconds), 2))
        };
        if point.taken_at > begin {
            chart.push(ChartPoint {
                time: point.taken_at.timestamp(),
                cpu: point.cpu.map(|cpu| round(cpu, 4)),
                mem: point.memory_used,
                maxmem: point.memory_max,
                disk: point.disk_used,
                maxdisk: point.disk_max,
                netin: rate(|p| p.net_in),
                netout: rate(|p| p.net_out),
            });
        }
        if point.net_in.is_some() && point.net_out.is_some() {
            before = Some(point);
        }
    }
    chart
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::super::wire::Stats;
    use super::*;
    use chrono::TimeDelta;

    fn server(status: &str, sample: Option<SampleRow>) -> ServerRow {
        ServerRow { id: ServerId(1), guest_number: 1000, status: status.into(), memory_mib: 2048, disk_gib: 20, sample }
    }

    fn sample(power: &str) -> SampleRow {
        SampleRow {
            taken_at: Utc::now(),
            power: power.into(),
            reason: None,
            uptime_s: Some(3600),
            cpu: Some(0.15),
            memory_used: Some(536_870_912),
            memory_max: Some(2_147_483_648),
            disk_used: Some(5_368_709_120),
            disk_max: Some(21_474_836_480),
            net_in: Some(104_857_600),
            net_out: Some(52_428_800),
            net_in_rate: None,
            net_out_rate: None,
        }
    }

    fn keys(value: &serde_json::Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn the_shape_is_the_contracts() {
        let json =
            serde_json::to_value(Stats::from(stats_from(&server("running", Some(sample("running"))), &[]))).unwrap();
        assert_eq!(json["status"], "success");
        let data = &json["data"];
        assert_eq!(data["vmid"], 1000);
        assert_eq!(data["cpu"], 0.15);
        assert_eq!(data["memory"], serde_json::json!({ "used": 536_870_912, "max": 2_147_483_648_i64, "usage": 25.0 }));
        assert_eq!(data["disk"]["usage"], 25.0);
        assert_eq!(data["network"], serde_json::json!({ "in": 104_857_600, "out": 52_428_800 }));
        let before = serde_json::to_value(Stats::from(stats_from(&server("creating", None), &[]))).unwrap();
        assert_eq!(keys(&before["data"]), keys(data));
        assert_eq!(before["data"]["memory"]["max"], 2_147_483_648_i64);
        assert_eq!(before["data"]["disk"]["max"], 21_474_836_480_i64);
        assert_eq!(
            (&before["data"]["sampledAt"], &before["data"]["rrdData"]),
            (&serde_json::Value::Null, &serde_json::json!([]))
        );
    }

    #[test]
    fn what_is_stopped_uses_nothing() {
        for (status, power) in [("stopped", "running"), ("running", "stopped")] {
            let data = stats_from(&server(status, Some(sample(power))), &[]);
            assert_eq!((data.cpu, data.memory.used, data.memory.usage), (Some(0.0), Some(0), Some(0.0)));
            assert_eq!((data.uptime, data.disk.used), (Some(0), Some(5_368_709_120)));
        }
        let data = stats_from(&server("stopped", None), &[]);
        assert_eq!((data.cpu, data.memory.used, data.uptime), (Some(0.0), Some(0), Some(0)));
    }

    #[test]
    fn what_is_not_known_is_null_and_not_nothing() {
        let data = stats_from(&server("running", None), &[]);
        assert_eq!((data.cpu, data.memory.used, data.memory.usage, data.uptime), (None, None, None, None));
        assert_eq!((data.disk.used, data.disk.usage, data.network.received), (None, None, None));
        assert_eq!((data.memory.max, data.disk.max), (2_147_483_648, 21_474_836_480));
        let machine = SampleRow { disk_used: None, memory_used: None, ..sample("running") };
        let data = stats_from(&server("running", Some(machine)), &[]);
        assert_eq!((data.cpu, data.memory.used, data.disk.usage), (Some(0.15), None, None));
        let json = serde_json::to_value(data).unwrap();
        assert_eq!(json["disk"], serde_json::json!({ "used": null, "max": 21_474_836_480_i64, "usage": null }));
    }

    #[test]
    fn a_paused_server_says_why() {
        let paused = || SampleRow { reason: Some("io-error".into()), ..sample("paused") };
        assert_eq!(stats_from(&server("paused", Some(paused())), &[]).reason.as_deref(), Some("io-error"));
        assert_eq!(stats_from(&server("running", Some(paused())), &[]).reason, None);
    }

    #[test]
    fn a_chart_has_rates_and_survives_counters_that_start_again() {
        let at = Utc::now();
        let point = |seconds: i64, net: i64| PointRow {
            server_id: ServerId(1),
            taken_at: at + TimeDelta::seconds(seconds),
            cpu: Some(0.123_456),
            memory_used: Some(1),
            memory_max: Some(2),
            disk_used: Some(3),
            disk_max: Some(4),
            net_in: Some(net),
            net_out: Some(net * 2),
        };
        let drawn = chart(&[point(-3610, 100), point(-3580, 400), point(-3550, 60)]);
        let rates = |chart: &[ChartPoint]| chart.iter().map(|p| (p.netin, p.netout)).collect::<Vec<_>>();
        assert_eq!(rates(&drawn), [(Some(10.0), Some(20.0)), (Some(2.0), Some(4.0))]);
        assert!((drawn[0].cpu.unwrap() - 0.1235).abs() < 1e-9 && drawn[0].time < drawn[1].time);
        // A point without data is a gap, not a zero.
        let blind = PointRow { cpu: None, memory_used: None, net_in: None, net_out: None, ..point(-3550, 0) };
        let drawn = chart(&[point(-3580, 400), blind, point(-3520, 460)]);
        assert_eq!(rates(&drawn), [(None, None), (None, None), (Some(1.0), Some(2.0))]);
        assert_eq!((drawn[1].cpu, drawn[1].mem, drawn[1].maxmem), (None, None, Some(2)));
    }
}
