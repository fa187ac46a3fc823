//! `.env.example` lists the settings of the kernel and of every feature, with their defaults.

use kernel::config::Config;
use kernel::settings::Variables;
use serde_json::{Value, json};

use crate::support::app::idle;

/// The variables that the file lists for the service, with what it says of each.
fn listed() -> Vec<(&'static str, &'static str)> {
    let (service, _) = include_str!("../.env.example").split_once("# --- The scripts behind make").unwrap();
    let lines = service.lines().filter_map(|line| line.strip_prefix("# ").unwrap_or(line).split_once('='));
    let is_name = |name: &str| name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    lines.filter(|(name, _)| is_name(name)).map(|(name, value)| (name, value.trim_matches('"'))).collect()
}

#[test]
fn the_example_lists_every_setting_with_its_default() {
    let mut variables = Config::variables();
    for feature in idle().features.all() {
        for (name, default) in feature.settings() {
            let of = feature.name();
            assert!(variables.insert(name.clone(), default).is_none(), "{name} of {of} is somebody else's, too");
        }
    }
    for (name, value) in listed() {
        let default = variables.remove(name).unwrap_or_else(|| panic!("no feature has a setting {name}"));
        let shown = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        // Where there is no default, the file is free to give an example.
        assert!(shown == value || default == Value::Null || default == json!([]), "{name} is {shown}, not {value}");
    }
    assert_eq!(variables, Variables::new(), "missing in .env.example");
}
