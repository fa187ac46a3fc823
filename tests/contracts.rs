//! The documents whose API we serve, row by row: a row marked served needs its route and its replay, and replays are
//! played. See tests/contracts/README.md.

mod replay;
mod rows;
mod server_management;
mod shape;
mod stage;

use std::collections::{BTreeMap, BTreeSet};

use self::replay::Replay;
use self::rows::{FOLDER, Row, State, rows};
use crate::support::app::document;

/// Documents whose replays are played, each by the module of its name.
const PLAYED: &[&str] = &["server-management"];

/// The methods and paths that are mounted for each document.
type Routes = BTreeMap<&'static str, BTreeSet<(String, String)>>;

/// Server management and OneStack are part of the native API. The others are dialects with routes of their own; native
/// routes at the same paths don't count for them.
fn mounted() -> Routes {
    let document = document();
    let mut native = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            native.insert((method.to_uppercase(), nameless(path)));
        }
    }
    Routes::from([("server-management", native.clone()), ("onestack", native)])
}

/// A path without the names of its parameters.
fn nameless(path: &str) -> String {
    let segment = |segment: &str| if segment.starts_with('{') { "{}".to_owned() } else { segment.to_owned() };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// The names of all replays.
fn replays() -> BTreeSet<String> {
    let names = std::fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".http") || name.ends_with(".event")).collect()
}

/// Every row whose state is not true, and every replay without a row.
fn untrue(rows: &[Row], routes: &Routes, replays: &BTreeSet<String>) -> Vec<String> {
    let mut found = vec![];
    for row in rows {
        let Row { id, document, method, path, state } = row;
        let file = row.file();
        let at = (method.clone(), nameless(path));
        // Events have no routes; their replays are the proof.
        let routed = row.is_event() || routes.get(document.as_str()).is_some_and(|routes| routes.contains(&at));
        let played = PLAYED.contains(&document.as_str());
        match (state, routed, replays.contains(&file)) {
            (State::Served, false, _) => {
                found.push(format!("{id} is marked served, but there is no route {method} {path}"))
            }
            (State::Served, true, false) => found.push(format!("{id} is marked served, but there is no {file}")),
            (State::Served, true, true) if !played => {
                found.push(format!("{id} is marked served, but no test plays {document}"))
            }
            (State::Planned, true, true) => found.push(format!("{id} has its route and its replay: mark it served")),
            (State::Planned, false, true) => {
                found.push(format!("{file} is there, but there is no route {method} {path}"))
            }
            (State::Served, true, true) | (State::Planned, _, false) => {}
        }
    }
    let files: BTreeSet<String> = rows.iter().map(Row::file).collect();
    found.extend(replays.difference(&files).map(|file| format!("{file} has no row")));
    found
}

#[test]
fn each_row_s_state_is_true() {
    let found = untrue(&rows(), &mounted(), &replays());
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn each_replay_is_of_its_row() {
    let (rows, replays) = (rows(), replays());
    let mut read = 0;
    for row in rows.iter().filter(|row| replays.contains(&row.file())) {
        let text = std::fs::read_to_string(format!("{FOLDER}/{}", row.file())).unwrap();
        let replay = Replay::parse(&text).unwrap_or_else(|problem| panic!("{}: {problem}", row.file()));
        assert!(replay.is_of(row), "{} is not of {} {}", row.file(), row.method, row.path);
        read += 1;
    }
    assert_eq!(read, replays.len());
}

#[test]
fn a_state_that_is_not_true_is_found() {
    let rows = |state: &str, document: &str, id: &str, event: &str| {
        let text = format!(
            "id\tdocument\tmethod\tpath\tstate\tcarrier\n{id}1\t{document}\tGET\t/api/things/{{id}}\t{state}\tsame\n\
             {id}E1\t{document}\tEVENT\t{event}\t{state}\tsame\n"
        );
        rows::parse(&text).unwrap()
    };
    let (served, planned) =
        (rows("served", "server-management", "S", "seen"), rows("planned", "server-management", "S", "seen"));
    let thing = BTreeSet::from([("GET".to_owned(), "/api/things/{}".to_owned())]);
    let routes = Routes::from([("server-management", thing.clone()), ("onestack", thing)]);
    let files = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let (none, both) = (files(&[]), files(&["S1.http", "SE1.event"]));
    let nothing: Vec<String> = vec![];

    assert_eq!(untrue(&served, &routes, &both), nothing);
    assert_eq!(untrue(&planned, &routes, &none), nothing);
    assert_eq!(untrue(&planned, &Routes::new(), &none), nothing);
    assert_eq!(
        untrue(&served, &Routes::new(), &both),
        ["S1 is marked served, but there is no route GET /api/things/{id}"]
    );
    assert_eq!(
        untrue(&served, &routes, &none),
        ["S1 is marked served, but there is no S1.http", "SE1 is marked served, but there is no SE1.event"]
    );
    assert_eq!(
        untrue(&planned, &routes, &both),
        ["S1 has its route and its replay: mark it served", "SE1 has its route and its replay: mark it served"]
    );
    assert_eq!(
        untrue(&planned, &Routes::new(), &files(&["S1.http"])),
        ["S1.http is there, but there is no route GET /api/things/{id}"]
    );
    assert_eq!(untrue(&planned, &routes, &files(&["S2.http"])), ["S2.http has no row"]);
    let (unplayed, its_files) = (rows("served", "onestack", "O", "seen"), files(&["O1.http", "OE1.event"]));
    assert_eq!(
        untrue(&unplayed, &routes, &its_files),
        ["O1 is marked served, but no test plays onestack", "OE1 is marked served, but no test plays onestack"]
    );
    // A dialect's rows are not served by what the native API has at the same address.
    let dialects = rows("served", "novacpx", "N", "seen");
    assert!(untrue(&dialects, &routes, &files(&["N1.http"]))[0].contains("there is no route"));
}

#[test]
fn parameters_may_have_other_names() {
    assert_eq!(nameless("/api/server/{id}/addresses/{address}"), "/api/server/{}/addresses/{}");
    let routes = mounted();
    let at = |method: &str, path: &str| (method.to_owned(), nameless(path));
    assert!(routes["server-management"].contains(&at("GET", "/api/server/{serverId}/status")));
    assert!(!routes["server-management"].contains(&at("GET", "/api/server/create")));
}
