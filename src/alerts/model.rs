//! Alerts and their rules as the API has them.

use chrono::{DateTime, NaiveTime, Utc};
use garde::Validate;
use monitor::alerts::Quiet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::http::page::Order;
use crate::ids::{AlertId, HostId, PoolId, ServerId, UserId};
use crate::stored::stored;

/// A name of the monitor's, as it is stored and shown.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $unknown:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .enum_values(Some(<$inner>::ALL.map(<$inner>::as_str)))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
        }

        stored!($name, Self($unknown));
    };
}

word!(
    /// What an alert is about.
    AlertKind,
    monitor::alerts::Kind,
    monitor::alerts::Kind::Unknown
);
word!(
    /// How bad an alert is: the worst it was since it was raised.
    AlertLevel,
    monitor::alerts::Level,
    monitor::alerts::Level::Warning
);

/// How an alert ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// All is well again, or an edited rule calls for no alert.
    Recovered,
    /// There is nothing to watch any more: it was deleted, disabled, or stopped on purpose, or the rule switched off.
    Withdrawn,
    /// In a way that a newer version knows and this one does not.
    #[serde(skip_deserializing)]
    Unknown,
}

stored!(Ended, Self::Unknown);

/// An alert: from when it was raised until it ended.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertView {
    /// Its id.
    pub id: AlertId,
    /// What it is about.
    pub r#type: AlertKind,
    /// How bad it is.
    pub level: AlertLevel,
    /// For a person.
    #[schema(example = "CPU usage is at 95%")]
    pub message: String,
    /// The latest figure, and the last one where it has ended: a share, or 1 where there is no figure.
    pub value: f64,
    /// What the server, host or pool is called, or which kind of operation it is.
    pub name: String,
    /// The server, where it is about one.
    pub server_id: Option<ServerId>,
    /// The host, to providers.
    pub host_id: Option<HostId>,
    /// The address pool.
    pub pool_id: Option<PoolId>,
    /// The operation.
    pub operation_id: Option<Uuid>,
    /// When it was raised.
    pub raised_at: DateTime<Utc>,
    /// When it ended; null while it is open.
    pub resolved_at: Option<DateTime<Utc>>,
    /// How it ended.
    pub ended: Option<Ended>,
    /// When somebody took it on.
    pub acknowledged_at: Option<DateTime<Utc>>,
    /// Who did. Null to customers where it was the provider.
    pub acknowledged_by: Option<UserId>,
    /// Until when nobody is mailed about it.
    pub muted_until: Option<DateTime<Utc>>,
    /// When the mail about it was queued.
    pub mailed_at: Option<DateTime<Utc>>,
}

/// An open alert, as the event `server-alerts` has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveAlert {
    /// What it is about.
    pub r#type: AlertKind,
    /// For a person.
    pub message: String,
    /// How bad it is.
    pub level: AlertLevel,
    /// Its id, for `GET /api/alerts/{id}`.
    pub id: AlertId,
    /// When it was raised.
    pub raised_at: DateTime<Utc>,
    /// Whether somebody took it on.
    pub acknowledged: bool,
}

/// Which alerts to show.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListAlerts {
    /// From 1.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<i64>,
    /// Alerts a page: 20, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    /// By what; `raisedAt` if left out.
    #[garde(skip)]
    #[param(inline)]
    pub sort: Option<Sort>,
    /// Latest, or worst, first (`desc`) if left out.
    #[garde(skip)]
    #[param(inline)]
    pub order: Option<Order>,
    /// Those that are open, or those that have ended.
    #[garde(skip)]
    pub open: Option<bool>,
    /// About this.
    #[garde(skip)]
    #[serde(rename = "type")]
    pub kind: Option<AlertKind>,
    /// This bad.
    #[garde(skip)]
    pub level: Option<AlertLevel>,
    /// Of this server.
    #[garde(skip)]
    pub server_id: Option<ServerId>,
    /// Of this host and its servers (providers only).
    #[garde(skip)]
    pub host_id: Option<HostId>,
    /// Those that somebody took on, or those that nobody did.
    #[garde(skip)]
    pub acknowledged: Option<bool>,
}

/// What alerts can be sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Sort {
    /// When they were raised.
    #[default]
    RaisedAt,
    /// How bad they are.
    Level,
}

/// Where a rule was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Nowhere: it came with the service.
    Builtin,
    /// For everything.
    Everything,
    /// For the servers of a tariff.
    Tariff,
    /// For one server.
    Server,
}

/// The rule that holds for one kind of alert.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleView {
    /// What it is about.
    pub r#type: AlertKind,
    /// Where it was made.
    pub scope: Scope,
    /// Whether there are alerts at all.
    pub enabled: bool,
    /// Above this share it is a warning; null where there is no figure.
    pub warning: Option<f64>,
    /// Above this share it is critical.
    pub critical: Option<f64>,
    /// At this share or below the alert may end.
    pub clear: Option<f64>,
    /// Seconds that the figure must have been too high.
    pub sustain_seconds: u32,
    /// Seconds that it must have been low enough again.
    pub clear_sustain_seconds: u32,
    /// Hours in which nobody is mailed; null: none.
    pub quiet_hours: Option<QuietHours>,
    /// Until when nobody is mailed; null: it is not muted.
    pub muted_until: Option<DateTime<Utc>>,
}

/// A rule to hold from now on, as a whole: what is left out is as it came with the service.
#[derive(Debug, Default, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PutRule {
    /// Whether there are alerts at all; true if left out.
    #[garde(skip)]
    pub enabled: Option<bool>,
    /// Above this share (1 is all there is) it is a warning. Not for what has no figure.
    #[garde(inner(range(min = 0.01, max = 10.0)))]
    #[schema(minimum = 0.01, maximum = 10.0)]
    pub warning: Option<f64>,
    /// Above this share it is critical, which is mailed; not below `warning`.
    #[garde(inner(range(min = 0.01, max = 10.0)))]
    #[schema(minimum = 0.01, maximum = 10.0)]
    pub critical: Option<f64>,
    /// At this share or below the alert may end; not above `warning`, and 0.05 below it if left out.
    #[garde(inner(range(min = 0.0, max = 10.0)))]
    #[schema(minimum = 0.0, maximum = 10.0)]
    pub clear: Option<f64>,
    /// Seconds that the figure must have been too high.
    #[garde(inner(range(min = 0, max = 86_400)))]
    pub sustain_seconds: Option<u32>,
    /// Seconds that it must have been low enough again.
    #[garde(inner(range(min = 0, max = 86_400)))]
    pub clear_sustain_seconds: Option<u32>,
    /// Hours in which nobody is mailed, of ends as little as of beginnings.
    #[garde(dive)]
    pub quiet_hours: Option<QuietHours>,
}

/// Hours of every day. What is still to be told when they are over is told then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct QuietHours {
    /// Their first minute.
    #[garde(custom(clock))]
    #[schema(example = "22:00")]
    pub from: String,
    /// The first minute after them.
    #[garde(custom(clock))]
    #[schema(example = "07:00")]
    pub to: String,
    /// The place whose clock counts, by its IANA name.
    #[garde(custom(zone))]
    #[schema(example = "Europe/Berlin")]
    pub time_zone: String,
}

fn time(text: &str) -> Option<NaiveTime> {
    NaiveTime::parse_from_str(text, "%H:%M").ok().filter(|time| time.format("%H:%M").to_string() == text)
}

fn clock(text: &str, (): &()) -> garde::Result {
    time(text).map(drop).ok_or_else(|| garde::Error::new("must be a time such as 22:00"))
}

fn zone(text: &str, (): &()) -> garde::Result {
    match text.parse::<chrono_tz::Tz>() {
        Ok(_) => Ok(()),
        Err(_) => Err(garde::Error::new("must be the IANA name of a time zone such as Europe/Berlin or UTC")),
    }
}

impl QuietHours {
    /// The hours themselves; `None` where they are not what the checks let pass.
    pub fn hours(&self) -> Option<Quiet> {
        Some(Quiet { from: time(&self.from)?, to: time(&self.to)?, zone: self.time_zone.parse().ok()? })
    }
}

impl From<Quiet> for QuietHours {
    fn from(quiet: Quiet) -> Self {
        let text = |time: NaiveTime| time.format("%H:%M").to_string();
        Self { from: text(quiet.from), to: text(quiet.to), time_zone: quiet.zone.name().to_owned() }
    }
}

/// Tell nobody for a while.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mute {
    /// Until when: a year ahead at most.
    #[garde(skip)]
    pub until: DateTime<Utc>,
    /// Of this only; of everything if left out.
    #[serde(default, rename = "type")]
    #[garde(skip)]
    pub kind: Option<AlertKind>,
}

/// Tell nobody for a while about one kind of alert.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MuteRule {
    /// Until when: a year ahead at most.
    #[garde(skip)]
    pub until: DateTime<Utc>,
}

/// Nobody is told until then.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Muted {
    /// About this only; null: about everything.
    pub r#type: Option<AlertKind>,
    /// Until when.
    pub until: DateTime<Utc>,
}

/// Which mute of a server to end.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Unmute {
    /// The one about this; every one if left out.
    #[garde(skip)]
    #[serde(rename = "type")]
    pub kind: Option<AlertKind>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_hours_read_as_they_are_written() {
        let good = QuietHours { from: "22:00".into(), to: "07:30".into(), time_zone: "Europe/Berlin".into() };
        assert!(good.validate().is_ok());
        assert_eq!(QuietHours::from(good.hours().unwrap()), good);
        for (from, zone) in
            [("24:00", "UTC"), ("7:00", "UTC"), ("", "UTC"), ("07:00:00", "UTC"), ("07:00", "Berlin"), ("07:00", "")]
        {
            let bad = QuietHours { from: from.into(), to: "07:30".into(), time_zone: zone.into() };
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }
}
