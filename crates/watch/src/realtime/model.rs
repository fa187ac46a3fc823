//! The messages of the live view.

use kernel::error::{Code, Error};
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
        server_id: ServerId,
    },
    Error {
        error: &'a str,
        code: Code,
    },
}

impl<'a> Ack<'a> {
    pub(super) fn of(result: &'a Result<ServerId, Error>) -> Self {
        match result {
            Ok(server_id) => Self::Success { server_id: *server_id },
            Err(error) => Self::Error { error: &error.message, code: error.code },
        }
    }
}

/// Payload of `subscribe-error` and, without a server, of `session-ended`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ErrorEvent<'a> {
    /// The id as the client sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_id: Option<&'a serde_json::Value>,
    pub error: &'a str,
    pub code: Code,
}

/// The room of a server's watchers.
pub(super) fn room(server: ServerId) -> String {
    format!("server:{server}")
}

/// The server of a room.
pub(super) fn server_of(room: &str) -> Option<ServerId> {
    room.strip_prefix("server:")?.parse().ok()
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
        assert_eq!(server_of(&room(ServerId(7))), Some(ServerId(7)));
        assert_eq!(server_of("7"), None);
    }

    #[test]
    fn acks_read_as_documented() {
        assert_eq!(
            serde_json::to_value(Ack::of(&Ok(ServerId(7)))).unwrap(),
            json!({ "status": "success", "serverId": 7 })
        );
        assert_eq!(
            serde_json::to_value(Ack::of(&Err(Error::not_found("server")))).unwrap(),
            json!({ "status": "error", "error": "There is no such server.", "code": "NOT_FOUND" })
        );
    }
}
