//! Alerts and alert rules, as the API shows them.

use chrono::{DateTime, NaiveTime, Utc};
use garde::Validate;
use kernel::http::text;
use kernel::listing::{Place, SortOrder};
use kernel::stored_enum;
use monitor::alerts::{Kind, QuietPeriod};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{AlertId, HostId, PoolId, ServerId, UserId};

/// Gives a `monitor` enum its stored and displayed text form.
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

        stored_enum!($name, Self($unknown));
    };
}

word!(
    /// What an alert is about.
    AlertKind,
    monitor::alerts::Kind,
    monitor::alerts::Kind::Unknown
);
word!(
    /// Severity of an alert: the worst level it has had since it was raised.
    AlertLevel,
    monitor::alerts::Level,
    monitor::alerts::Level::Warning
);

/// The message of an alert with this value. A stale lock's is the host's own, which says how to unlock the guest.
pub(super) fn message(kind: Kind, value: f64, detail: Option<&str>) -> String {
    let lock = detail.filter(|_| kind == Kind::StaleLock).and_then(|text| text.strip_prefix(hypervisor::STALE_LOCK));
    match lock.and_then(|text| text.trim_start_matches([':', ' ']).lines().next()) {
        Some(text) => text.to_owned(),
        None => kind.message(value),
    }
}

/// How an alert ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertEnd {
    /// The condition cleared, or an edited rule no longer raises the alert.
    Recovered,
    /// There is nothing left to watch: the subject was deleted, disabled or stopped on purpose, or the rule was
    /// disabled.
    Withdrawn,
    /// In a way that only a newer version knows.
    #[serde(skip_deserializing)]
    Unknown,
}

stored_enum!(AlertEnd, Self::Unknown);

/// An alert, from when it was raised until it ended.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Alert)]
pub struct AlertView {
    /// Its id.
    pub id: AlertId,
    /// What the alert is about.
    pub r#type: AlertKind,
    /// Severity.
    pub level: AlertLevel,
    /// Human-readable message.
    #[schema(example = "CPU usage is at 95%")]
    pub message: String,
    /// Latest value, or the last one if the alert has ended: a fraction, or 1 for types without a measured value.
    pub value: f64,
    /// Name of the server, host or pool, or the kind of operation.
    pub name: String,
    /// What the alert is about: a kind and an id, or `mail` or `installation`.
    #[serde(default)]
    #[schema(example = "server:1")]
    pub subject: String,
    /// The server, if the alert is about one.
    pub server_id: Option<ServerId>,
    /// The host; shown to providers only.
    pub host_id: Option<HostId>,
    /// The address pool, if the alert is about one.
    pub pool_id: Option<PoolId>,
    /// The operation, if the alert is about one.
    pub operation_id: Option<Uuid>,
    /// When it was raised.
    pub raised_at: DateTime<Utc>,
    /// When it ended; null while it is open.
    pub resolved_at: Option<DateTime<Utc>>,
    /// How it ended.
    pub ended: Option<AlertEnd>,
    /// When it was acknowledged.
    pub acknowledged_at: Option<DateTime<Utc>>,
    /// Who acknowledged it. Null for customers if it was the provider.
    pub acknowledged_by: Option<UserId>,
    /// No email is sent about it before this time.
    pub muted_until: Option<DateTime<Utc>>,
    /// When the email about it was queued.
    pub mailed_at: Option<DateTime<Utc>>,
}

/// An open alert, as sent in the `server-alerts` event.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveAlert {
    /// What the alert is about.
    pub r#type: AlertKind,
    /// Human-readable message.
    pub message: String,
    /// Severity.
    pub level: AlertLevel,
    /// Its id, for `GET /api/alerts/{id}`.
    pub id: AlertId,
    /// When it was raised.
    pub raised_at: DateTime<Utc>,
    /// Whether it has been acknowledged.
    pub acknowledged: bool,
}

/// Filters for listing alerts.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListAlerts {
    /// Page number, starting at 1.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<i64>,
    /// Alerts per page: 20 by default, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    /// `next` of the response before: continues the list there, past the last page, too. Not together with `page`,
    /// nor in the order of levels.
    #[garde(skip)]
    #[param(value_type = Option<String>)]
    pub after: Option<Place<AlertId>>,
    /// Sort field; `raisedAt` by default.
    #[garde(skip)]
    #[param(inline)]
    pub sort: Option<Sort>,
    /// Sort order; `desc` (latest or worst first) by default.
    #[garde(skip)]
    #[param(inline)]
    pub order: Option<SortOrder>,
    /// true: open alerts only; false: ended ones only.
    #[garde(skip)]
    pub open: Option<bool>,
    /// Only alerts of this type.
    #[garde(skip)]
    #[serde(rename = "type")]
    pub kind: Option<AlertKind>,
    /// Only alerts of this level.
    #[garde(skip)]
    pub level: Option<AlertLevel>,
    /// Only alerts about this subject, such as `server:12`.
    #[garde(inner(length(chars, max = 300), custom(text::plain)))]
    pub subject: Option<String>,
    /// Only alerts of this server.
    #[garde(skip)]
    pub server_id: Option<ServerId>,
    /// Only alerts of this host and its servers (providers only).
    #[garde(skip)]
    pub host_id: Option<HostId>,
    /// true: acknowledged alerts only; false: unacknowledged ones only.
    #[garde(skip)]
    pub acknowledged: Option<bool>,
}

/// Fields that alerts can be sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Sort {
    /// By the time they were raised.
    #[default]
    RaisedAt,
    /// By severity.
    Level,
}

/// The scope that a rule was set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertRuleScope {
    /// No one set it: this is the built-in default.
    Builtin,
    /// All servers and other subjects.
    Everything,
    /// The servers of a tariff.
    Tariff,
    /// One server.
    Server,
}

/// The effective rule for one type of alert.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AlertRule)]
pub struct AlertRuleView {
    /// The type of alert.
    pub r#type: AlertKind,
    /// Scope that the rule comes from.
    pub scope: AlertRuleScope,
    /// Whether alerts are raised at all.
    pub enabled: bool,
    /// Threshold of a warning, as a fraction; null for types without a measured value.
    pub warning: Option<f64>,
    /// Threshold of a critical alert, as a fraction.
    pub critical: Option<f64>,
    /// The alert may end once the value is at or below this fraction.
    pub clear: Option<f64>,
    /// Seconds that the value must stay above a threshold before the alert is raised.
    pub sustain_seconds: u32,
    /// Seconds that the value must stay at or below `clear` before the alert ends.
    pub clear_sustain_seconds: u32,
    /// Daily hours in which no email is sent; null: none.
    pub quiet_hours: Option<QuietHours>,
    /// No email is sent before this time; null: not muted.
    pub muted_until: Option<DateTime<Utc>>,
}

/// A new rule. It replaces the previous one as a whole: fields that are left out take the built-in defaults.
#[derive(Debug, Default, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetAlertRule {
    /// Whether alerts of this type are raised at all; true by default.
    #[garde(skip)]
    pub enabled: Option<bool>,
    /// Threshold of a warning, as a fraction (1 = 100 %). Not allowed for types without a measured value.
    #[garde(inner(range(min = 0.01, max = 10.0)))]
    #[schema(minimum = 0.01, maximum = 10.0)]
    pub warning: Option<f64>,
    /// Threshold of a critical alert, which is always emailed; not below `warning`.
    #[garde(inner(range(min = 0.01, max = 10.0)))]
    #[schema(minimum = 0.01, maximum = 10.0)]
    pub critical: Option<f64>,
    /// The alert may end once the value is at or below this; not above `warning`, and 0.05 below it by default.
    #[garde(inner(range(min = 0.0, max = 10.0)))]
    #[schema(minimum = 0.0, maximum = 10.0)]
    pub clear: Option<f64>,
    /// Seconds that the value must stay above a threshold before the alert is raised.
    #[garde(inner(range(min = 0, max = 86_400)))]
    pub sustain_seconds: Option<u32>,
    /// Seconds that the value must stay at or below `clear` before the alert ends.
    #[garde(inner(range(min = 0, max = 86_400)))]
    pub clear_sustain_seconds: Option<u32>,
    /// Daily hours in which no email is sent, neither about new alerts nor about ended ones.
    #[garde(dive)]
    pub quiet_hours: Option<QuietHours>,
}

/// Quiet hours of every day. Notifications that are still relevant are sent when they end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct QuietHours {
    /// Start time.
    #[garde(custom(clock))]
    #[schema(example = "22:00")]
    pub from: String,
    /// End time (exclusive).
    #[garde(custom(clock))]
    #[schema(example = "07:00")]
    pub to: String,
    /// Time zone, as an IANA name.
    #[garde(custom(text::time_zone))]
    #[schema(example = "Europe/Berlin")]
    pub time_zone: String,
}

fn time(text: &str) -> Option<NaiveTime> {
    NaiveTime::parse_from_str(text, "%H:%M").ok().filter(|time| time.format("%H:%M").to_string() == text)
}

fn clock(text: &str, (): &()) -> garde::Result {
    time(text).map(drop).ok_or_else(|| garde::Error::new("must be a time such as 22:00"))
}

impl QuietHours {
    /// Parsed hours; `None` if the values would not pass validation.
    pub fn hours(&self) -> Option<QuietPeriod> {
        Some(QuietPeriod { from: time(&self.from)?, to: time(&self.to)?, zone: self.time_zone.parse().ok()? })
    }
}

impl From<QuietPeriod> for QuietHours {
    fn from(quiet: QuietPeriod) -> Self {
        let text = |time: NaiveTime| time.format("%H:%M").to_string();
        Self { from: text(quiet.from), to: text(quiet.to), time_zone: quiet.zone.name().to_owned() }
    }
}

/// Suspends notifications for a while.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MuteAlerts {
    /// End of the mute: at most a year ahead.
    #[garde(skip)]
    pub until: DateTime<Utc>,
    /// Mutes only this type; all types if left out.
    #[serde(default, rename = "type")]
    #[garde(skip)]
    pub kind: Option<AlertKind>,
}

/// Suspends notifications of one type of alert for a while.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MuteRule {
    /// End of the mute: at most a year ahead.
    #[garde(skip)]
    pub until: DateTime<Utc>,
}

/// No notifications are sent until then.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MutedAlerts {
    /// Only this type is muted; null: all types.
    pub r#type: Option<AlertKind>,
    /// End of the mute.
    pub until: DateTime<Utc>,
}

/// Which mutes of a server to lift.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Unmute {
    /// Only the mute of this type; all of them if left out.
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
