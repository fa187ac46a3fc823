//! The OpenAPI document as its users meet it: a linter and client generators. Installed by scripts/openapi.sh; none of
//! this needs the network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::app::document;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The document as a file in a folder of its own.
fn written() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("openapi.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&document()).unwrap()).unwrap();
    (folder, file)
}

/// Runs one of the programs; fails with its output.
#[track_caller]
fn run(program: &str, within: &Path, arguments: &[&str]) {
    let program = format!("{ROOT}/{program}");
    let output = Command::new(&program)
        .args(arguments)
        .current_dir(within)
        .env("REDOCLY_TELEMETRY", "off")
        .env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true")
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}; `make test` installs it with scripts/openapi.sh"));
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program}:\n{}\n{}", said(&output.stdout), said(&output.stderr));
}

fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, operation)| (format!("{method} {path}"), operation))
        })
        .collect()
}

/// Generated clients have one function per operation, so the names must be unique: `listServers`, `getServer`,
/// `createServer`.
#[test]
fn every_operation_id_is_unique_and_descriptive() {
    let document = document();
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    for (route, operation) in operations(&document) {
        let name = operation["operationId"].as_str().unwrap_or_default();
        let verb = name.split(|c: char| c.is_ascii_uppercase()).next().unwrap_or_default();
        let fits: &[&str] = match route.split(' ').next().unwrap() {
            "get" => &["get", "list", "connect"],
            "put" => &["update", "set", "resize"],
            "patch" => &["update"],
            "delete" => &["delete", "revoke", "release", "unmute"],
            _ => &[],
        };
        let reads = ["get", "list"].contains(&verb);
        assert!(
            name.chars().all(|c| c.is_ascii_alphabetic())
                && verb.len() > 1
                && verb.len() < name.len()
                && (fits.contains(&verb) || fits.is_empty() && !reads),
            "{route}: its operation_id is `{name}`; use a verb and its object, as in `listThings`, \
             `getThing`, `createThing`, `updateThing`, `deleteThing`{}",
            if fits.is_empty() { String::new() } else { format!(", beginning with one of {fits:?}") }
        );
        if let Some(other) = names.insert(name, route.clone()) {
            panic!("`{name}` is the operation_id of `{other}` and of `{route}`; clients need one for each");
        }
    }
}

/// Clients that were generated from an older document use these names.
#[test]
fn operation_ids_stay_what_they_were() {
    let document = document();
    let names = operations(&document)
        .into_iter()
        .map(|(route, operation)| format!("{route} {}\n", operation["operationId"].as_str().unwrap_or_default()));
    let (now, file) = (names.collect::<String>(), format!("{ROOT}/tests/openapi/operations.txt"));
    if std::env::var_os("OPERATIONS").is_some_and(|mode| mode == "write") {
        std::fs::write(&file, &now).unwrap();
    }
    let before = std::fs::read_to_string(&file).unwrap();
    assert!(
        before == now,
        "{file} is not the document's list; OPERATIONS=write rewrites it for a route that is new or gone"
    );
}

/// A shape without its description.
fn bare(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("description");
    }
    schema
}

/// An object with fields, or an enumeration: what generators make a type of.
fn is_shape(schema: &Value) -> bool {
    schema["properties"].is_object() && schema["type"] == "object" || schema["enum"].is_array()
}

#[test]
fn every_shape_is_defined_once_as_a_schema() {
    let document = document();
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    fn walk(value: &Value, at: &str, seen: &mut BTreeMap<String, String>) {
        if is_shape(value)
            && let Some(other) = seen.insert(bare(value).to_string(), at.to_owned())
        {
            panic!(
                "{at} repeats {other}: use one type for both, and name it in crates/kernel/src/http/openapi.rs where a \
                    parameter has it"
            );
        }
        match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter().filter(|(name, _)| *name != "example") {
                    walk(value, &format!("{at}/{name}"), seen);
                }
            }
            Value::Array(values) => values.iter().enumerate().for_each(|(n, v)| walk(v, &format!("{at}/{n}"), seen)),
            _ => {}
        }
    }
    walk(&document["components"]["schemas"], "schemas", &mut seen);
    walk(&document["paths"], "paths", &mut seen);
    assert!(seen.len() > 80, "{}", seen.len());
}

/// The same answer reads the same on every route: one component per error status.
#[test]
fn every_error_response_is_the_shared_component_of_its_status() {
    let document = document();
    for (route, operation) in operations(&document) {
        for (status, answer) in operation["responses"].as_object().unwrap() {
            let answer = match answer["$ref"].as_str() {
                Some(path) => document.pointer(path.trim_start_matches('#')).unwrap(),
                None => answer,
            };
            let says = answer["description"].as_str().unwrap_or_default();
            assert!(
                !says.is_empty(),
                "{route} {status} says nothing: add its meaning to STANDARD in crates/kernel/src/http/openapi.rs"
            );
            if status.starts_with(['4', '5']) {
                let body = &answer["content"]["application/json"]["schema"];
                assert_eq!(*body, json!({ "$ref": "#/components/schemas/ErrorBody" }), "{route} {status}");
            }
        }
    }
}

#[test]
fn redocly_accepts_the_document() {
    let (folder, file) = written();
    let config = format!("{ROOT}/tests/openapi/redocly.yaml");
    let arguments =
        ["lint", file.to_str().unwrap(), "--config", &config, "--format", "stylish", "--max-problems", "1000"];
    run("tests/openapi/node_modules/.bin/redocly", folder.path(), &arguments);
}

#[test]
fn a_generated_typescript_client_compiles() {
    let (folder, file) = written();
    let bin = "tests/openapi/node_modules/.bin";
    let generate = [file.to_str().unwrap(), "--output", "client.ts"];
    run(&format!("{bin}/openapi-typescript"), folder.path(), &generate);
    // As users do: through the names of operations and schemas.
    let used = r#"import type { components, operations } from "./client";
type Body<T> = T extends { content: { "application/json": infer B } } ? B : never;
const servers: Body<operations["listServers"]["responses"][200]> = [];
const server: components["schemas"]["ServerView"] | undefined = servers[0];
const failure: Body<operations["getServer"]["responses"][404]>["code"] = "NOT_FOUND";
export { failure, server };
"#;
    std::fs::write(folder.path().join("used.ts"), used).unwrap();
    let compile = ["--noEmit", "--strict", "used.ts", "client.ts"];
    run(&format!("{bin}/tsc"), folder.path(), &compile);
}

/// The dashboard is checked against these types, so they must be of this document.
#[test]
fn the_dashboards_types_are_of_this_document() {
    let (folder, file) = written();
    let generate = [file.to_str().unwrap(), "--output", "schema.d.ts"];
    run("tests/openapi/node_modules/.bin/openapi-typescript", folder.path(), &generate);
    let now = std::fs::read_to_string(folder.path().join("schema.d.ts")).unwrap();
    let file = format!("{ROOT}/dashboard/src/api/schema.d.ts");
    if std::env::var_os("TYPES").is_some_and(|mode| mode == "write") {
        std::fs::write(&file, &now).unwrap();
    }
    let before = std::fs::read_to_string(&file).unwrap();
    assert!(
        before == now,
        "{file} is of another document; TYPES=write scripts/test.sh --test suite openapi:: rewrites it, and `npm run \
         check` in dashboard/ says what no longer fits"
    );
}

#[test]
fn a_generated_python_client_compiles_and_imports() {
    let (folder, _) = written();
    std::fs::write(folder.path().join("config.yaml"), "post_hooks: []\n").unwrap();
    let bin = "target/openapi-python-client/bin";
    let generate = [
        "generate",
        "--path",
        "openapi.json",
        "--output-path",
        "client",
        "--meta",
        "none",
        "--config",
        "config.yaml",
        "--fail-on-warning",
    ];
    run(&format!("{bin}/openapi-python-client"), folder.path(), &generate);
    run(&format!("{bin}/python"), folder.path(), &["-m", "compileall", "-q", "client"]);
    let import = "import client, importlib, pkgutil
for module in pkgutil.walk_packages(client.__path__, 'client.'):
    importlib.import_module(module.name)
from client.api.servers import create_server, get_server, list_servers
from client.models import ServerView
assert list_servers.sync and get_server.sync and create_server.sync and ServerView.from_dict";
    run(&format!("{bin}/python"), folder.path(), &["-c", import]);
}
