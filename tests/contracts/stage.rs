//! Plays replays against a running service.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use super::replay::{Answer, Ask, Replay, Values, fill};
use super::rows::{FOLDER, Row, State, rows};
use crate::support::Live;

/// The rows of one document, the values of their placeholders, and which of them were played.
pub(super) struct Stage {
    rows: Vec<Row>,
    values: Values,
    http: reqwest::Client,
    live: Option<Live>,
    played: BTreeSet<String>,
}

impl Stage {
    pub(super) fn new(document: &str, base: &str, http: &reqwest::Client) -> Self {
        let rows = rows().into_iter().filter(|row| row.document == document).collect();
        let values = Values::from([("url", base.to_owned())]);
        Self { rows, values, http: http.clone(), live: None, played: BTreeSet::new() }
    }

    pub(super) fn set(&mut self, name: &'static str, value: impl ToString) {
        self.values.insert(name, value.to_string());
    }

    /// Plays a row's replay and returns the answer.
    pub(super) async fn play(&mut self, id: &str) -> Value {
        let row = self.rows.iter().find(|row| row.id == id).unwrap_or_else(|| panic!("{id} is no row"));
        let text = std::fs::read_to_string(format!("{FOLDER}/{}", row.file())).unwrap();
        let replay = Replay::parse(&text).unwrap_or_else(|problem| panic!("{}: {problem}", row.file()));
        let body = replay.body.as_deref().map(|body| self.filled(body));
        let (answer, shape) = match (&replay.ask, &replay.answer) {
            (Ask::Request(method, path), Answer::Response { status, headers, shape }) => {
                (self.request(id, method, path, &replay.headers, body, (*status, headers)).await, shape.as_ref())
            }
            (ask, Answer::Event(name, shape)) => {
                self.tell(ask, body, false).await;
                let seen = self.live.as_mut().expect("connected").next(name).await;
                (seen["args"][0].clone(), shape.as_ref())
            }
            (ask, Answer::Ack(shape)) => {
                self.tell(ask, body, true).await;
                let seen = self.live.as_mut().expect("connected").next("ack").await;
                (seen["args"][0].clone(), Some(shape))
            }
            _ => unreachable!("refused when it was read"),
        };
        let differences = shape.map(|shape| shape.differences(&answer)).unwrap_or_default();
        assert!(differences.is_empty(), "{id}: {differences:#?} in {answer}");
        self.played.insert(id.to_owned());
        answer
    }

    /// Fails unless exactly the served rows of the document were played.
    pub(super) fn all_played(&self) {
        let served = self.rows.iter().filter(|row| row.state == State::Served);
        let served: BTreeSet<String> = served.map(|row| row.id.clone()).collect();
        assert_eq!(self.played, served, "the rows that were played, and those marked served");
    }

    #[track_caller]
    fn filled(&self, text: &str) -> String {
        fill(text, &self.values).unwrap_or_else(|problem| panic!("{problem}: {text}"))
    }

    async fn request(
        &self,
        id: &str,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: Option<String>,
        (status, answered): (u16, &[(String, String)]),
    ) -> Value {
        let method: Method = method.parse().unwrap();
        let mut request = self.http.request(method, format!("{}{}", self.values["url"], self.filled(path)));
        for (name, value) in headers {
            request = request.header(name, self.filled(value));
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await.expect("the service answers");
        let (got, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("the service answers");
        assert_eq!(got, status, "{id}: {text}");
        for (name, value) in answered {
            // A media type may have parameters.
            let got = headers.get(name).and_then(|got| got.to_str().ok()?.split(';').next());
            assert_eq!(got, Some(value.as_str()), "{id}: {name}");
        }
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    async fn tell(&mut self, ask: &Ask, body: Option<String>, ack: bool) {
        let body: Value = body.map(|body| serde_json::from_str(&body).unwrap()).unwrap_or_default();
        match ask {
            Ask::Connect => {
                let live = self.live.insert(Live::new(&self.values["url"]));
                live.tell(json!({ "do": "connect", "auth": body })).await;
            }
            Ask::Emit(event) => {
                let live = self.live.as_mut().expect("connected");
                live.tell(json!({ "do": "emit", "event": event, "args": [body], "ack": ack })).await;
            }
            Ask::Request(..) => unreachable!("refused when it was read"),
        }
    }
}
