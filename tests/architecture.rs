//! How the crates and their features fit: arrows go one way, the kernel names no feature, and each table is written by
//! its own store. Read from the manifests, the imports and the SQL in the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::support::{TestDb, sources};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What each crate may name of ours. A feature stands on the kernel and on the features below it; the test kit stands
/// on the program, and only tests name it.
const MAY_NAME: [(&str, &[&str]); 10] = [
    ("hypervisor", &[]),
    ("monitor", &["hypervisor"]),
    ("crates/conformance", &["hypervisor"]),
    ("crates/drivers/incus", &["hypervisor"]),
    ("crates/drivers/proxmox", &["hypervisor"]),
    ("crates/kernel", &["hypervisor"]),
    ("crates/accounts", &["kernel"]),
    ("crates/compute", &["accounts", "hypervisor", "incus", "kernel", "monitor", "proxmox"]),
    ("crates/watch", &["accounts", "compute", "hypervisor", "kernel", "monitor"]),
    ("crates/testkit", &["accounts", "compute", "conformance", "hypervisor", "incus", "innkeeper", "kernel", "watch"]),
];

/// The folder or file whose SQL writes a table. What is not here is written by nobody but a migration's functions.
const OWNERS: [(&str, &[&str]); 21] = [
    (
        "crates/accounts/src",
        &[
            "account_members",
            "accounts",
            "address_confirmations",
            "login_attempts",
            "login_links",
            "sessions",
            "tokens",
            "users",
        ],
    ),
    ("crates/compute/src/addresses", &["address_pools", "addresses", "released_addresses", "reverse_suffixes"]),
    ("crates/compute/src/console", &["consoles"]),
    ("crates/compute/src/hosts", &["hosts", "nodes"]),
    ("crates/compute/src/images", &["image_sources", "images"]),
    ("crates/compute/src/servers", &["servers", "snapshot_room"]),
    ("crates/compute/src/ssh_keys", &["ssh_keys"]),
    ("crates/compute/src/tariffs", &["tariffs"]),
    ("crates/compute/src/unknown_guests", &["unknown_guests"]),
    ("crates/kernel/src/audit", &["audit", "audit_open", "audit_refused"]),
    ("crates/kernel/src/idempotency", &["idempotency_keys"]),
    ("crates/kernel/src/janitor.rs", &["upkeep"]),
    ("crates/kernel/src/keyring", &["key_check"]),
    ("crates/kernel/src/limits", &["rate_limits"]),
    ("crates/kernel/src/mail", &["mails"]),
    ("crates/kernel/src/operations", &["operation_lanes", "operation_log", "operations"]),
    ("crates/kernel/src/restores", &["installation"]),
    ("crates/kernel/src/schema.rs", &["schema_generation"]),
    ("crates/watch/src/alerts", &["alert_mutes", "alert_rules", "alert_tracks", "alerts"]),
    ("crates/watch/src/history", &["history_progress", "samples_1h", "samples_5m", "traffic"]),
    ("crates/watch/src/monitoring", &["samples"]),
];

/// The names in a section of a manifest.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let name = |line: &str| line.split(['.', ' ', '=']).next().unwrap_or_default().to_owned();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(name).collect()
}

/// The tables that follow these words in a text's SQL.
fn tables<'a>(text: &str, words: &[&str], known: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for word in words {
        for after in text.split(word).skip(1) {
            let end = after.find(|c: char| !c.is_ascii_lowercase() && c != '_' && !c.is_ascii_digit());
            let table = &after[..end.unwrap_or(after.len())];
            found.extend(known.get(table));
        }
    }
    found
}

#[test]
fn crates_name_only_what_is_below_them() {
    let ours: BTreeSet<String> = MAY_NAME
        .iter()
        .map(|(folder, _)| folder.rsplit('/').next().unwrap().to_owned())
        .chain(["innkeeper".to_owned(), "bench".to_owned(), "fleet".to_owned()])
        .collect();
    for (folder, allowed) in MAY_NAME {
        let manifest = std::fs::read_to_string(Path::new(ROOT).join(folder).join("Cargo.toml")).unwrap();
        let named = dependencies(&manifest);
        assert!(!named.is_empty(), "{folder} names nothing");
        let named: Vec<&String> = named.intersection(&ours).collect();
        assert!(named.iter().all(|name| allowed.contains(&name.as_str())), "{folder} names {named:?}, not {allowed:?}");
    }
    let crates = std::fs::read_dir(Path::new(ROOT).join("crates")).unwrap();
    for folder in crates.map(|entry| format!("crates/{}", entry.unwrap().file_name().to_str().unwrap())) {
        assert!(MAY_NAME.iter().any(|(known, _)| known.starts_with(&folder)), "{folder} is in no list here");
    }
}

/// The modules of their own crate that a source file names: `crate::hosts::store`, `crate::{addresses, hosts}`.
fn modules_named(text: &str) -> BTreeSet<String> {
    let word =
        |text: &str| text.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned);
    let mut found = BTreeSet::new();
    for after in text.split("crate::").skip(1) {
        let Some(group) = after.strip_prefix('{') else {
            found.extend(word(after));
            continue;
        };
        let (mut depth, mut entries) = (0, String::new());
        for c in group.chars() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if depth < 0 {
                break;
            }
            entries.extend((depth == 0).then_some(c));
        }
        found.extend(entries.split(',').filter_map(word));
    }
    found
}

#[test]
fn features_within_a_crate_form_no_circle() {
    assert_eq!(
        modules_named("use crate::{a, b::{c, d}};\nfn f(x: crate::e::F)").into_iter().collect::<Vec<_>>(),
        ["a", "b", "e"]
    );
    for root in ["crates/compute/src/", "crates/watch/src/"] {
        let mut arrows: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (file, text) in sources(&[root]) {
            let module = file[root.len()..].split(['/', '.']).next().unwrap().to_owned();
            let named = modules_named(&text).into_iter().filter(|name| *name != module);
            arrows.entry(module.clone()).or_default().extend(named.map(|name| (name, file.clone())));
        }
        arrows.remove("lib");
        assert!(arrows.len() > 4, "{root}: {arrows:?}");
        // What names nothing that is left stands below the rest; a circle has nothing of that kind.
        loop {
            let left: BTreeSet<String> = arrows.keys().cloned().collect();
            arrows.values_mut().for_each(|to| to.retain(|name, _| left.contains(name)));
            arrows.retain(|_, to| !to.is_empty());
            if arrows.len() == left.len() {
                break;
            }
        }
        assert!(arrows.is_empty(), "{root} has a circle: {arrows:#?}");
    }
}

#[test]
fn each_table_is_written_by_its_own_feature() {
    let mut owner = BTreeMap::new();
    for (folder, tables) in OWNERS {
        for table in tables {
            assert!(owner.insert(*table, folder).is_none(), "{table} has two owners");
        }
    }
    let known: BTreeSet<&str> = owner.keys().copied().collect();
    let mut written = BTreeSet::new();
    // Tests write what they need into any table.
    for (file, text) in sources(&["crates"]).into_iter().filter(|(file, _)| !file.starts_with("crates/testkit")) {
        let code = text.split("#[cfg(test)]").next().unwrap();
        for table in tables(code, &["insert into ", "update ", "delete from "], &known) {
            let owner = owner[table];
            assert!(file.starts_with(owner), "{file} writes {table}, which is {owner}'s");
            written.insert(table);
        }
    }
    // A list that matches nothing would let everything pass.
    assert!(written.len() > 30, "{written:?}");
}

#[tokio::test]
async fn every_table_has_an_owner() {
    let db = TestDb::new().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')
             and not relispartition and relname not like '\\_sqlx%' order by 1",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    let owned: BTreeSet<&str> = OWNERS.iter().flat_map(|(_, tables)| tables.iter().copied()).collect();
    let without: Vec<_> = tables.iter().filter(|table| !owned.contains(table.as_str())).collect();
    assert!(without.is_empty(), "{without:?}");
}

#[test]
fn the_kernel_reads_no_feature_s_table() {
    let kernels = |folder: &str| folder.starts_with("crates/kernel");
    let others: BTreeSet<&str> =
        OWNERS.iter().filter(|(folder, _)| !kernels(folder)).flat_map(|(_, tables)| tables.iter().copied()).collect();
    for (file, text) in sources(&["crates/kernel/src"]) {
        // A word in prose is no table.
        let code: String =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        for table in tables(&code, &["from ", "join "], &others) {
            assert!(!code.contains("sqlx::"), "{file} reads {table}");
        }
    }
}
