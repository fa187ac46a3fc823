//! rows.tsv: every endpoint and event of the documents whose API we serve.

pub(super) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contracts");
const COLUMNS: &str = "id\tdocument\tmethod\tpath\tstate\tcarrier";
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", EVENT];
const EVENT: &str = "EVENT";

/// The documents, the letters of their rows, and their numbers of endpoints and events.
const DOCUMENTS: [(&str, &str, usize, usize); 5] = [
    ("server-management", "S", 15, 5),
    ("onestack", "O", 44, 11),
    ("ghostcp", "G", 28, 18),
    ("novacpx", "N", 93, 0),
    ("cloudron", "C", 85, 2),
];

/// An endpoint or event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) document: String,
    /// `EVENT` for an event.
    pub(super) method: String,
    /// The name of an event.
    pub(super) path: String,
    pub(super) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Served,
    Planned,
}

impl Row {
    pub(super) fn is_event(&self) -> bool {
        self.method == EVENT
    }

    /// The name of its replay's file.
    pub(super) fn file(&self) -> String {
        format!("{}.{}", self.id, if self.is_event() { "event" } else { "http" })
    }
}

pub(super) fn rows() -> Vec<Row> {
    let text = std::fs::read_to_string(format!("{FOLDER}/rows.tsv")).unwrap();
    parse(&text).unwrap_or_else(|problem| panic!("rows.tsv, {problem}"))
}

pub(super) fn parse(text: &str) -> Result<Vec<Row>, String> {
    let mut lines = text.lines();
    if lines.next() != Some(COLUMNS) {
        return Err(format!("line 1 is not {COLUMNS:?}"));
    }
    lines.enumerate().map(|(n, line)| row(line).map_err(|problem| format!("line {}: {problem}", n + 2))).collect()
}

fn row(line: &str) -> Result<Row, String> {
    let fields: Vec<&str> = line.split('\t').collect();
    let &[id, document, method, path, state, _carrier] = &fields[..] else {
        return Err(format!("{} fields", fields.len()));
    };
    if fields.iter().any(|field| field.is_empty() || field.trim() != *field) {
        return Err("a field is empty or has spaces around it".to_owned());
    }
    let (_, letter, ..) =
        DOCUMENTS.iter().find(|(name, ..)| *name == document).ok_or_else(|| format!("no document {document}"))?;
    if !METHODS.contains(&method) {
        return Err(format!("no method {method}"));
    }
    let number = id.strip_prefix(letter).and_then(|rest| match method {
        EVENT => rest.strip_prefix('E'),
        _ => Some(rest),
    });
    if number.is_none_or(|number| number.parse::<u32>().is_err()) {
        return Err(format!("{id} is no {method} of {document}"));
    }
    if method != EVENT && !path.starts_with('/') {
        return Err(format!("{path} is no path"));
    }
    let state = match state {
        "served" => State::Served,
        "planned" => State::Planned,
        _ => return Err(format!("no state {state}")),
    };
    Ok(Row { id: id.into(), document: document.into(), method: method.into(), path: path.into(), state })
}

#[test]
fn every_endpoint_and_event_has_one_row() {
    let rows = rows();
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let mut numbered = vec![];
    for (_, letter, endpoints, events) in DOCUMENTS {
        numbered.extend((1..=endpoints).map(|n| format!("{letter}{n}")));
        // OE1 is OneStack's socket, which is no event.
        let first = if letter == "O" { 2 } else { 1 };
        numbered.extend((first..first + events).map(|n| format!("{letter}E{n}")));
    }
    assert_eq!(ids, numbered);
    let events = rows.iter().filter(|row| row.is_event()).count();
    assert_eq!((rows.len() - events, events), (265, 36));
    for (n, row) in rows.iter().enumerate() {
        let same =
            |other: &&Row| (&other.document, &other.method, &other.path) == (&row.document, &row.method, &row.path);
        assert_eq!(rows[..n].iter().find(same), None, "{} is in it twice", row.id);
    }
}

#[test]
fn a_bad_line_is_refused() {
    let with = |line: &str| parse(&format!("{COLUMNS}\n{line}\n"));
    let good = with("S1\tserver-management\tGET\t/api/server\tserved\tsame").unwrap();
    assert_eq!((good[0].id.as_str(), good[0].state, good[0].file().as_str()), ("S1", State::Served, "S1.http"));
    assert_eq!(with("SE4\tserver-management\tEVENT\tserver-stats\tplanned\tx").unwrap()[0].file(), "SE4.event");
    for (line, why) in [
        ("", "line 2: 1 fields"),
        ("S1\tserver-management\tGET\t/api/server\tserved", "line 2: 5 fields"),
        ("S1\tserver-management\tGET\t/api/server\tserved\t", "line 2: a field is empty or has spaces around it"),
        ("S1\tserver-management\tGET \t/api/server\tserved\tx", "line 2: a field is empty or has spaces around it"),
        ("S1\tservers\tGET\t/api/server\tserved\tx", "line 2: no document servers"),
        ("S1\tserver-management\tget\t/api/server\tserved\tx", "line 2: no method get"),
        ("S1\tserver-management\tGET\tapi/server\tserved\tx", "line 2: api/server is no path"),
        ("S1\tserver-management\tGET\t/api/server\tdone\tx", "line 2: no state done"),
        ("O1\tserver-management\tGET\t/api/server\tserved\tx", "line 2: O1 is no GET of server-management"),
        ("SE1\tserver-management\tGET\t/api/server\tserved\tx", "line 2: SE1 is no GET of server-management"),
        ("S1\tserver-management\tEVENT\tconnect\tserved\tx", "line 2: S1 is no EVENT of server-management"),
    ] {
        assert_eq!(with(line), Err(why.to_owned()), "{line:?}");
    }
    assert!(parse("id\tdocument\n").is_err());
}
