//! The messages of the live view.

use compute::servers;
use kernel::error::{Code, Error};
use kernel::subjects::Subject;
use serde::Serialize;

use crate::alerts::model::LiveAlert;
use crate::ids::ServerId;
use crate::monitoring::wire::Stats;

/// Payload of `server-stats`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServerStats<'a> {
    pub server_id: ServerId,
    pub stats: &'a Stats,
}

/// Payload of `server-alerts`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServerAlerts<'a> {
    pub server_id: ServerId,
    pub alerts: &'a [LiveAlert],
}

/// Acknowledgement of a client's request.
#[derive(Debug, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub(super) enum Ack<'a> {
    #[serde(rename_all = "camelCase")]
    Success {
        #[serde(skip_serializing_if = "Option::is_none")]
        server_id: Option<ServerId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<&'a Subject>,
    },
    Error {
        error: &'a str,
        code: Code,
    },
}

impl<'a> Ack<'a> {
    pub(super) fn of(naming: Naming, result: &'a Result<Subject, Error>) -> Self {
        match result {
            Ok(subject) => match naming {
                Naming::ServerId => Self::Success { server_id: server_of(subject), subject: None },
                Naming::Subject => Self::Success { server_id: None, subject: Some(subject) },
            },
            Err(error) => Self::Error { error: &error.message, code: error.code },
        }
    }
}

/// Payload of `subscribe-error` and, without a subject, of `session-ended`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ErrorEvent<'a> {
    /// What the client sent, by how it names its subjects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_id: Option<&'a serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<&'a serde_json::Value>,
    pub error: &'a str,
    pub code: Code,
}

/// How a client names what it watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// `subscribe-server`: by a server's id.
    ServerId,
    /// `subscribe`: by kind and id, such as `server:12`.
    Subject,
}

impl Naming {
    /// What a client sent, as a subject. The room of its watchers has the name of the subject.
    pub(super) fn read(self, value: &serde_json::Value) -> Result<Subject, Error> {
        let (subject, expected) = match self {
            Self::ServerId => (server_id(value).map(servers::subject::subject), "Send the server's id as a number."),
            Self::Subject => {
                (value.as_str().and_then(|text| text.parse().ok()), "Send a subject as text, such as server:12.")
            }
        };
        subject.ok_or_else(|| Error::new(Code::Malformed, expected))
    }
}

/// The server that a subject is.
pub(super) fn server_of(subject: &Subject) -> Option<ServerId> {
    subject.number(servers::subject::KIND).map(ServerId)
}

/// A server's id as sent by clients: a number, or a string that contains one.
pub(super) fn server_id(value: &serde_json::Value) -> Option<ServerId> {
    let id = match value {
        serde_json::Value::Number(n) => n.as_i64(),
        serde_json::Value::String(s) if s.len() <= 20 => s.trim().parse().ok(),
        _ => None,
    };
    id.filter(|id| *id > 0).map(ServerId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ids_are_numbers_or_texts_with_one() {
        assert_eq!(server_id(&json!(7)), Some(ServerId(7)));
        assert_eq!(server_id(&json!("7")), Some(ServerId(7)));
        for bad in
            [json!(null), json!(0), json!(-1), json!(1.5), json!("x"), json!([7]), json!({ "id": 7 }), json!(1e30)]
        {
            assert_eq!(server_id(&bad), None, "{bad}");
        }
        for subject in [Naming::ServerId.read(&json!(7)), Naming::Subject.read(&json!("server:7"))] {
            assert_eq!(server_of(&subject.unwrap()), Some(ServerId(7)));
        }
        assert_eq!(server_of(&Naming::Subject.read(&json!("zone:7")).unwrap()), None);
        for bad in [json!(7), json!("7"), json!("server:"), json!(null)] {
            assert!(Naming::Subject.read(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn acks_read_as_documented() {
        let ack = |naming, result| serde_json::to_value(Ack::of(naming, &result)).unwrap();
        let server = || Ok(Subject::new("server", 7));
        assert_eq!(ack(Naming::ServerId, server()), json!({ "status": "success", "serverId": 7 }));
        assert_eq!(ack(Naming::Subject, server()), json!({ "status": "success", "subject": "server:7" }));
        assert_eq!(
            ack(Naming::ServerId, Err(Error::not_found("server"))),
            json!({ "status": "error", "error": "There is no such server.", "code": "NOT_FOUND" })
        );
    }
}
