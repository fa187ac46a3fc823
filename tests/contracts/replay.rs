//! Replays: a request as the document has it, and the shape of the answer. README.md has the format.

use std::collections::BTreeMap;

use super::rows::Row;
use super::shape::Shape;

/// Values of placeholders.
pub(super) type Values = BTreeMap<&'static str, String>;

#[derive(Debug, PartialEq)]
pub(super) struct Replay {
    pub(super) ask: Ask,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Option<String>,
    pub(super) answer: Answer,
}

#[derive(Debug, PartialEq)]
pub(super) enum Ask {
    /// The method, and the path below the service's address.
    Request(String, String),
    Connect,
    Emit(String),
}

#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Response { status: u16, headers: Vec<(String, String)>, shape: Option<Shape> },
    Event(String, Option<Shape>),
    Ack(Shape),
}

impl Replay {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split("\n###\n");
        let (Some(ask), Some(answer), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err("one line ### divides the request from the answer".to_owned());
        };
        let ask = Part::parse(ask.trim_start_matches('\n'))?;
        let body = ask.body.map(str::to_owned);
        let sends_json = is_json(&ask.headers);
        let headers = ask.headers;
        let ask = match ask.line.split_once(' ') {
            Some(("CONNECT", "{{url}}")) => Ask::Connect,
            Some(("EMIT", event)) => Ask::Emit(event.to_owned()),
            Some((method @ ("GET" | "POST" | "PUT" | "PATCH" | "DELETE"), url)) => {
                let path = url.strip_prefix("{{url}}").filter(|path| path.starts_with('/'));
                Ask::Request(
                    method.to_owned(),
                    path.ok_or_else(|| format!("{url} is not below {{{{url}}}}"))?.to_owned(),
                )
            }
            _ => return Err(format!("{:?} is no request", ask.line)),
        };
        if let (Ask::Connect | Ask::Emit(_), false) = (&ask, headers.is_empty()) {
            return Err("a socket's messages have no headers".to_owned());
        }
        if let Ask::Request(..) = ask
            && body.is_some() != headers.iter().any(|(name, _)| name == "content-type")
        {
            return Err("a body and a Content-Type go together".to_owned());
        }
        if let (Some(body), true) = (&body, sends_json || !matches!(ask, Ask::Request(..))) {
            let filled = fill_with(body, |_| Ok("0"))?;
            serde_json::from_str::<serde_json::Value>(&filled)
                .map_err(|error| format!("the body is no JSON: {error}"))?;
        }
        let answer = Answer::parse(&Part::parse(answer)?)?;
        match (&ask, &answer) {
            (Ask::Request(..), Answer::Response { .. })
            | (Ask::Connect, Answer::Event(..))
            | (Ask::Emit(_), Answer::Event(..) | Answer::Ack(_)) => Ok(Self { ask, headers, body, answer }),
            _ => Err("the answer does not fit the request".to_owned()),
        }
    }

    /// Whether it is a replay of this row.
    pub(super) fn is_of(&self, row: &Row) -> bool {
        match (&self.ask, &self.answer) {
            (Ask::Request(method, path), _) => *method == row.method && is_at(path, &row.path),
            (_, Answer::Event(name, _)) | (Ask::Emit(name), Answer::Ack(_)) => row.is_event() && *name == row.path,
            _ => false,
        }
    }
}

impl Answer {
    fn parse(part: &Part<'_>) -> Result<Self, String> {
        if part.body.is_some_and(|body| body.contains("{{")) {
            return Err("answers have types, no placeholders".to_owned());
        }
        let shape = part.body.map(Shape::parse).transpose()?;
        let answer = match part.line.split_once(' ') {
            None if part.line == "ACK" => Self::Ack(shape.ok_or("an acknowledgement has a shape")?),
            Some(("EVENT", name)) => Self::Event(name.to_owned(), shape),
            Some(("HTTP/1.1", status)) => {
                let status = status.parse().map_err(|_| format!("{status} is no status"))?;
                if is_json(&part.headers) != shape.is_some() {
                    return Err("a shape and Content-Type: application/json go together".to_owned());
                }
                return Ok(Self::Response { status, headers: part.headers.clone(), shape });
            }
            _ => return Err(format!("{:?} is no answer", part.line)),
        };
        if part.headers.is_empty() { Ok(answer) } else { Err("a socket's messages have no headers".to_owned()) }
    }
}

/// First line, headers, an empty line, body.
struct Part<'a> {
    line: &'a str,
    headers: Vec<(String, String)>,
    body: Option<&'a str>,
}

impl<'a> Part<'a> {
    fn parse(mut text: &'a str) -> Result<Self, String> {
        while text.starts_with('#') {
            text = text.split_once('\n').map_or("", |(_, rest)| rest);
        }
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
        let header = |line: &str| match line.split_once(": ") {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_lowercase(), value.to_owned())),
            _ => Err(format!("{line:?} is no header")),
        };
        let headers = headers.lines().map(header).collect::<Result<_, _>>()?;
        let body = Some(body.trim()).filter(|body| !body.is_empty());
        Ok(Self { line: line.trim_end(), headers, body })
    }
}

fn is_json(headers: &[(String, String)]) -> bool {
    headers.iter().any(|(name, value)| name == "content-type" && value == "application/json")
}

/// Whether a path matches a template with parameters.
fn is_at(path: &str, template: &str) -> bool {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let (mut here, mut there) = (path.split('/'), template.split('/'));
    loop {
        match (here.next(), there.next()) {
            (None, None) => return true,
            (Some(segment), Some(parameter)) if parameter.starts_with('{') && !segment.is_empty() => {}
            (Some(segment), Some(same)) if segment == same => {}
            _ => return false,
        }
    }
}

/// Fills in the placeholders.
pub(super) fn fill(text: &str, values: &Values) -> Result<String, String> {
    fill_with(text, |name| values.get(name).map(String::as_str).ok_or_else(|| format!("{name} has no value")))
}

fn fill_with<'a>(text: &str, value: impl Fn(&str) -> Result<&'a str, String>) -> Result<String, String> {
    let mut parts = text.split("{{");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").ok_or_else(|| format!("a placeholder without an end: {part:?}"))?;
        filled += value(name)?;
        filled += rest;
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::super::rows;
    use super::*;

    const ORDER: &str = "# 4. Create New Server
POST {{url}}/api/server/create
Authorization: Bearer {{token}}
Content-Type: application/json

{ \"osId\": {{osId}} }

###
HTTP/1.1 200
Content-Type: application/json

{ \"id\": \"integer\" }
";
    const STATS: &str =
        "EMIT subscribe-server\n\n{{serverId}}\n\n###\nEVENT server-stats\n\n{ \"serverId\": \"integer\" }\n";

    fn row(line: &str) -> Row {
        rows::parse(&format!("id\tdocument\tmethod\tpath\tstate\tcarrier\n{line}\tplanned\tx")).unwrap().remove(0)
    }

    #[test]
    fn a_replay_is_read() {
        let replay = Replay::parse(ORDER).unwrap();
        assert_eq!(replay.ask, Ask::Request("POST".to_owned(), "/api/server/create".to_owned()));
        assert_eq!(replay.headers[0], ("authorization".to_owned(), "Bearer {{token}}".to_owned()));
        assert_eq!(replay.body.as_deref(), Some("{ \"osId\": {{osId}} }"));
        let Answer::Response { status: 200, headers, shape: Some(_) } = &replay.answer else { panic!("{replay:?}") };
        assert_eq!(headers, &[("content-type".to_owned(), "application/json".to_owned())]);
        let replay = Replay::parse(STATS).unwrap();
        assert_eq!(replay.ask, Ask::Emit("subscribe-server".to_owned()));
        assert!(matches!(&replay.answer, Answer::Event(name, Some(_)) if name == "server-stats"), "{replay:?}");
        let replay = Replay::parse("CONNECT {{url}}\n\n{ \"token\": \"{{token}}\" }\n\n###\nEVENT connect\n").unwrap();
        assert_eq!((replay.ask, replay.answer), (Ask::Connect, Answer::Event("connect".to_owned(), None)));
        let gone = "DELETE {{url}}/api/v1/users/{{user}}\nAuthorization: Bearer {{token}}\n\n###\nHTTP/1.1 204\n";
        let gone = Replay::parse(gone).unwrap();
        assert_eq!(gone.answer, Answer::Response { status: 204, headers: vec![], shape: None });
    }

    #[test]
    fn an_invalid_replay_is_refused() {
        for (from, to, why) in [
            ("\n###\n", "\n", "one line ### divides"),
            ("HTTP/1.1 200", "###\nHTTP/1.1 200\n\n###\n", "one line ### divides"),
            ("POST ", "FETCH ", "is no request"),
            ("{{url}}/", "http://127.0.0.1/", "is not below {{url}}"),
            ("Authorization: Bearer {{token}}", "Authorization", "is no header"),
            ("{{token}}\nContent-Type: application/json", "{{token}}", "a body and a Content-Type go together"),
            ("{ \"osId\": {{osId}} }\n\n", "", "a body and a Content-Type go together"),
            ("{{osId}}", "{{osId", "a placeholder without an end"),
            ("{{osId}}", "osId", "the body is no JSON"),
            ("HTTP/1.1 200", "200 OK", "is no answer"),
            ("HTTP/1.1 200", "HTTP/1.1 OK", "is no status"),
            ("HTTP/1.1 200", "EVENT created", "a socket's messages have no headers"),
            ("HTTP/1.1 200\nContent-Type: application/json", "HTTP/1.1 200", "a shape and Content-Type"),
            ("HTTP/1.1 200\nContent-Type: application/json", "EVENT created", "does not fit the request"),
            ("{ \"id\": \"integer\" }", "", "a shape and Content-Type"),
            ("\"integer\"", "\"int\"", "is no type"),
            ("\"integer\"", "{{id}}", "no placeholders"),
            ("\"integer\" }", "\"integer\"", "the shape is no JSON"),
        ] {
            let text = ORDER.replacen(from, to, 1);
            assert_ne!(text, ORDER, "{from}");
            let problem = Replay::parse(&text).expect_err(&text);
            assert!(problem.contains(why), "{problem:?} is not {why:?}");
        }
        assert!(Replay::parse(&STATS.replace("EVENT server-stats", "HTTP/1.1 200")).is_err());
        assert!(Replay::parse(&STATS.replace("server\n\n", "server\nX: y\n\n")).is_err());
        assert!(Replay::parse("").is_err());
    }

    #[test]
    fn a_replay_is_matched_with_its_row() {
        let replay = Replay::parse(ORDER).unwrap();
        assert!(replay.is_of(&row("S4\tserver-management\tPOST\t/api/server/create")));
        assert!(!replay.is_of(&row("S4\tserver-management\tPUT\t/api/server/create")));
        assert!(!replay.is_of(&row("S4\tserver-management\tPOST\t/api/server")));
        assert!(!replay.is_of(&row("S4\tserver-management\tPOST\t/api/server/create/it")));
        let replay = Replay::parse(&ORDER.replace("/create", "/{{serverId}}/start?now=1")).unwrap();
        assert!(replay.is_of(&row("S5\tserver-management\tPOST\t/api/server/{id}/start")));
        assert!(!replay.is_of(&row("S5\tserver-management\tPOST\t/api/server/{id}/stop")));
        let replay = Replay::parse(STATS).unwrap();
        assert!(replay.is_of(&row("SE4\tserver-management\tEVENT\tserver-stats")));
        assert!(!replay.is_of(&row("SE2\tserver-management\tEVENT\tsubscribe-server")), "that is only its request");
        let replay = Replay::parse(&STATS.replace("EVENT server-stats", "ACK")).unwrap();
        assert!(replay.is_of(&row("SE2\tserver-management\tEVENT\tsubscribe-server")));
    }

    #[test]
    fn every_placeholder_needs_a_value() {
        let values = Values::from([("a", "1".to_owned()), ("b", "2".to_owned())]);
        assert_eq!(fill("{{a}}/{{b}} {{a}}", &values).unwrap(), "1/2 1");
        assert_eq!(fill("{{c}}", &values).unwrap_err(), "c has no value");
        assert_eq!(fill("{\"x\":{\"y\":1}}", &values).unwrap(), "{\"x\":{\"y\":1}}");
    }
}
