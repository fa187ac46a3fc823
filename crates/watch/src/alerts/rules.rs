//! Picks the rule that applies to a subject.

use std::collections::HashMap;

use kernel::error::{Error, Result};
use monitor::alerts::{AlertRule, Kind, QuietPeriod};

use super::model::{AlertRuleScope, SetAlertRule};
use crate::ids::{ServerId, TariffId};

/// A rule with its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RuleSettings {
    /// Whether alerts are raised at all.
    pub enabled: bool,
    /// Thresholds and durations.
    pub rule: AlertRule,
    /// Quiet hours, in which no mail is sent.
    pub quiet: Option<QuietPeriod>,
}

/// Scope that a rule is set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleTarget {
    /// Everything without a more specific rule.
    Everything,
    /// The servers of a tariff.
    Tariff(TariffId),
    /// One server.
    Server(ServerId),
}

/// The rules that users have set.
#[derive(Debug, Default)]
pub struct RuleSet(HashMap<(RuleTarget, Kind), RuleSettings>);

impl FromIterator<((RuleTarget, Kind), RuleSettings)> for RuleSet {
    fn from_iter<I: IntoIterator<Item = ((RuleTarget, Kind), RuleSettings)>>(rules: I) -> Self {
        Self(rules.into_iter().collect())
    }
}

impl RuleSet {
    /// The most specific rule. It applies as a whole.
    pub fn of(&self, kind: Kind, tariff: Option<TariffId>, server: Option<ServerId>) -> (AlertRuleScope, RuleSettings) {
        let made = |whose: Option<RuleTarget>| whose.and_then(|whose| self.0.get(&(whose, kind)).copied());
        [
            (AlertRuleScope::Server, server.map(RuleTarget::Server)),
            (AlertRuleScope::Tariff, tariff.map(RuleTarget::Tariff)),
            (AlertRuleScope::Everything, Some(RuleTarget::Everything)),
        ]
        .into_iter()
        .find_map(|(scope, whose)| made(whose).map(|settings| (scope, settings)))
        .unwrap_or_else(|| (AlertRuleScope::Builtin, RuleSettings::builtin(kind)))
    }
}

impl RuleSettings {
    /// The built-in default.
    pub fn builtin(kind: Kind) -> Self {
        Self { enabled: true, rule: kind.default_rule(), quiet: None }
    }

    /// The rule to judge by, if alerts are enabled.
    pub fn active(&self) -> Option<&AlertRule> {
        self.enabled.then_some(&self.rule)
    }

    /// Validates a rule from a request and fills in the defaults.
    pub fn asked(kind: Kind, put: &SetAlertRule) -> Result<Self> {
        let builtin = kind.default_rule();
        if !kind.has_threshold() && [put.warning, put.critical, put.clear].iter().any(Option::is_some) {
            let text = format!("{} can only be switched on or off: it has no thresholds.", kind.as_str());
            return Err(Error::field("warning", text));
        }
        let warning = put.warning.unwrap_or(builtin.warning);
        let critical = put.critical.unwrap_or(builtin.critical.max(warning));
        let near = if put.warning.is_some() { (warning - 0.05).max(0.0) } else { builtin.clear };
        let clear = put.clear.unwrap_or(near);
        if critical < warning {
            return Err(Error::field("critical", "Must not be below warning."));
        }
        if clear > warning {
            return Err(Error::field("clear", "Must not be above warning."));
        }
        let quiet = match &put.quiet_hours {
            None => None,
            Some(hours) if hours.from == hours.to => {
                return Err(Error::field("quietHours.to", "Must differ from `from`."));
            }
            Some(hours) => Some(hours.hours().ok_or_else(|| Error::field("quietHours", "Must be times of day."))?),
        };
        let rule = AlertRule {
            warning,
            critical,
            clear,
            sustain_s: put.sustain_seconds.unwrap_or(builtin.sustain_s),
            clear_sustain_s: put.clear_sustain_seconds.unwrap_or(builtin.clear_sustain_s),
        };
        Ok(Self { enabled: put.enabled.unwrap_or(true), rule, quiet })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(json: serde_json::Value) -> Result<RuleSettings> {
        RuleSettings::asked(Kind::Cpu, &serde_json::from_value(json).unwrap())
    }

    #[test]
    fn the_most_specific_rule_holds_as_a_whole() {
        let with = |sustain_s| {
            let builtin = RuleSettings::builtin(Kind::Cpu);
            RuleSettings { rule: AlertRule { sustain_s, ..builtin.rule }, ..builtin }
        };
        let (server, tariff) = (ServerId(1), TariffId(1));
        let rules: RuleSet = [
            ((RuleTarget::Everything, Kind::Cpu), with(1)),
            ((RuleTarget::Tariff(tariff), Kind::Cpu), with(2)),
            ((RuleTarget::Server(server), Kind::Cpu), with(3)),
        ]
        .into_iter()
        .collect();
        let of = |server, tariff| rules.of(Kind::Cpu, Some(TariffId(tariff)), Some(ServerId(server)));
        assert_eq!(of(1, 1), (AlertRuleScope::Server, with(3)));
        assert_eq!(of(2, 1), (AlertRuleScope::Tariff, with(2)));
        assert_eq!(of(2, 2), (AlertRuleScope::Everything, with(1)));
        assert_eq!(
            rules.of(Kind::Disk, Some(tariff), Some(server)),
            (AlertRuleScope::Builtin, RuleSettings::builtin(Kind::Disk))
        );
    }

    #[test]
    fn what_is_left_out_fits_what_is_said() {
        let rule = |json| put(json).unwrap().rule;
        assert_eq!(rule(serde_json::json!({})), Kind::Cpu.default_rule());
        let low = rule(serde_json::json!({ "warning": 0.5 }));
        assert!((low.clear - 0.45).abs() < 1e-9 && (low.critical - 0.95).abs() < 1e-9);
        assert!((rule(serde_json::json!({ "warning": 0.97 })).critical - 0.97).abs() < 1e-9);
        assert!(rule(serde_json::json!({ "warning": 0.02 })).clear.abs() < 1e-9);
        for (bad, field) in [
            (serde_json::json!({ "warning": 0.9, "critical": 0.8 }), "critical"),
            (serde_json::json!({ "clear": 0.91 }), "clear"),
            (
                serde_json::json!({ "quietHours": { "from": "01:00", "to": "01:00", "timeZone": "UTC" } }),
                "quietHours.to",
            ),
        ] {
            let error = put(bad).unwrap_err();
            assert!(error.details.unwrap()["fields"].get(field).is_some(), "{field}");
        }
        let none = SetAlertRule { warning: Some(0.5), ..SetAlertRule::default() };
        assert!(RuleSettings::asked(Kind::Down, &none).is_err());
    }
}
