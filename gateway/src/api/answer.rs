//! What the server API answers: results, errors and where they stand. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::value::RawValue;

use super::request::Method;
use crate::engine::PresenceStats;
use crate::engine::history::{HistoryPage, StoredPublication};
use crate::protocol::{ClientInfo, ErrorCode, json};
use crate::pubsub::{OwnedClientInfo, StreamPosition};

/// An error, as the API shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ApiError {
    /// See [`ErrorCode`].
    pub code: u16,
    /// For people.
    pub message: &'static str,
}

impl From<ErrorCode> for ApiError {
    fn from(error: ErrorCode) -> Self {
        Self {
            code: error.code(),
            message: error.message(),
        }
    }
}

impl ApiError {
    /// The HTTP status of this error where errors stand there.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self.code {
            102 | 104 => 404,
            107 | 108 => 400,
            111 => 429,
            112 => 416,
            113 => 409,
            _ => 500,
        }
    }
}

/// What became of one request.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    /// The result or the error.
    pub result: Result<Answer, ErrorCode>,
    /// Nodes that did not answer in time: what they would have said is missing, and what they were
    /// asked to do may not be done.
    pub unanswered: Vec<String>,
}

impl Outcome {
    /// Nobody else had to be asked.
    #[must_use]
    pub const fn alone(result: Result<Answer, ErrorCode>) -> Self {
        Self {
            result,
            unanswered: Vec::new(),
        }
    }
}

/// A result.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "named as in the API")]
pub enum Answer {
    Published(Published),
    Broadcast {
        responses: Vec<Response>,
    },
    Presence {
        presence: BTreeMap<String, Info>,
    },
    PresenceStats {
        num_clients: u64,
        num_users: u64,
    },
    History(Box<History>),
    Channels {
        channels: BTreeMap<String, ChannelInfo>,
    },
    Info {
        nodes: Vec<NodeInfo>,
    },
    /// Nothing is to be said.
    Done {},
}

impl PartialEq for Answer {
    /// By what callers see.
    fn eq(&self, other: &Self) -> bool {
        serde_json::to_value(self).ok() == serde_json::to_value(other).ok()
    }
}

/// Where a publication is in the history, if it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct Published {
    #[serde(skip_serializing_if = "is_zero")]
    pub offset: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub epoch: String,
}

impl From<Option<StreamPosition>> for Published {
    fn from(position: Option<StreamPosition>) -> Self {
        position.map_or_else(Self::default, |position| Self {
            offset: position.offset,
            epoch: position.epoch.to_string(),
        })
    }
}

/// What became of one channel of a broadcast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "named as in the API")]
pub enum Response {
    Result(Published),
    Error(ApiError),
}

/// A client of a channel.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct Info {
    pub client: String,
    pub user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conn_info: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chan_info: Option<Box<RawValue>>,
}

impl From<ClientInfo<'_>> for Info {
    fn from(info: ClientInfo<'_>) -> Self {
        Self {
            client: info.client.to_string(),
            user: info.user.to_owned(),
            conn_info: raw(info.conn_info),
            chan_info: raw(info.chan_info),
        }
    }
}

/// Some publications of the past.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct History {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publications: Vec<PastPublication>,
    pub epoch: String,
    pub offset: u64,
}

/// A publication of the past.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct PastPublication {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
    /// Where the data is no JSON.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub b64data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<Info>,
    pub offset: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

impl From<&StoredPublication> for PastPublication {
    fn from(stored: &StoredPublication) -> Self {
        let message = stored.message.as_ref();
        let payload = message.payload();
        let is_json = json::check_value(payload).is_ok();
        Self {
            data: raw(payload).filter(|_| is_json),
            b64data: if is_json {
                String::new()
            } else {
                BASE64.encode(payload)
            },
            info: message.info().map(Info::from),
            offset: stored.offset,
            tags: message
                .tags()
                .iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        }
    }
}

/// How many clients a channel has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct ChannelInfo {
    #[serde(skip_serializing_if = "is_zero")]
    pub num_clients: u64,
}

/// A node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct NodeInfo {
    pub uid: String,
    pub name: String,
    pub version: String,
    pub num_clients: u64,
    pub num_users: u64,
    pub num_channels: u64,
    pub uptime: u64,
    pub num_subs: u64,
}

impl From<PresenceStats> for Answer {
    fn from(stats: PresenceStats) -> Self {
        Self::PresenceStats {
            num_clients: stats.clients,
            num_users: stats.users,
        }
    }
}

impl From<&[OwnedClientInfo]> for Answer {
    fn from(members: &[OwnedClientInfo]) -> Self {
        let infos = members.iter().map(|member| Info::from(member.as_ref()));
        Self::Presence {
            presence: infos.map(|info| (info.client.clone(), info)).collect(),
        }
    }
}

impl From<&HistoryPage> for Answer {
    fn from(page: &HistoryPage) -> Self {
        Self::History(Box::new(History {
            publications: page
                .publications
                .iter()
                .map(PastPublication::from)
                .collect(),
            epoch: page.position.epoch.to_string(),
            offset: page.position.offset,
        }))
    }
}

/// JSON as it is; what is none becomes the text of its base64. `None` for nothing.
fn raw(bytes: &[u8]) -> Option<Box<RawValue>> {
    if bytes.is_empty() {
        return None;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if json::check_value(bytes).is_ok() => text.to_owned(),
        _ => format!("\"{}\"", BASE64.encode(bytes)),
    };
    RawValue::from_string(text).ok()
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `{"result":..}` or `{"error":..}`, and `unanswered` beside it where a node did not answer.
#[derive(Debug, Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a Answer>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    unanswered: &'a [String],
}

impl<'a> Body<'a> {
    fn new(outcome: &'a Outcome, id: Option<u32>) -> Self {
        let (result, error) = match &outcome.result {
            Ok(answer) => (Some(answer), None),
            Err(error) => (None, Some(ApiError::from(*error))),
        };
        Self {
            id,
            error,
            result,
            unanswered: &outcome.unanswered,
        }
    }
}

/// Status and body for one outcome.
#[must_use]
pub fn respond(outcome: &Outcome, errors_in_status: bool) -> (u16, Vec<u8>) {
    match &outcome.result {
        Err(error) if errors_in_status => {
            let error = ApiError::from(*error);
            (error.status(), text(&error))
        }
        _ => (200, text(&Body::new(outcome, None))),
    }
}

/// One reply of the old form, where the method stands in the body.
#[must_use]
pub fn legacy_reply(outcome: &Outcome, id: u32) -> Vec<u8> {
    text(&Body::new(outcome, (id != 0).then_some(id)))
}

/// The replies of a batch: each under its method's name, or as an error.
#[must_use]
pub fn batch_reply(outcomes: &[(Option<Method>, Outcome)]) -> Vec<u8> {
    let replies: Vec<_> = outcomes
        .iter()
        .map(|(method, outcome)| {
            let mut reply = serde_json::Map::new();
            match (&outcome.result, method) {
                (Ok(answer), Some(method)) => {
                    let answer = serde_json::to_value(answer).unwrap_or_default();
                    reply.insert(method.name().to_owned(), answer);
                }
                (Err(error), _) => {
                    let error = serde_json::to_value(ApiError::from(*error)).unwrap_or_default();
                    reply.insert("error".to_owned(), error);
                }
                (Ok(_), None) => {}
            }
            if !outcome.unanswered.is_empty() {
                let nodes = serde_json::to_value(&outcome.unanswered).unwrap_or_default();
                reply.insert("unanswered".to_owned(), nodes);
            }
            reply
        })
        .collect();
    text(&serde_json::json!({ "replies": replies }))
}

fn text(value: &impl Serialize) -> Vec<u8> {
    // Of plain data: it has no way to fail.
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ClientId;
    use crate::pubsub::Epoch;

    fn body(outcome: &Outcome) -> String {
        String::from_utf8(respond(outcome, false).1).expect("text")
    }

    #[test]
    fn results_look_as_centrifugos() {
        let done = Outcome::alone(Ok(Answer::Done {}));
        assert_eq!(body(&done), r#"{"result":{}}"#);
        let nothing = Answer::Published(Published::from(None));
        assert_eq!(body(&Outcome::alone(Ok(nothing))), r#"{"result":{}}"#);
        let position = StreamPosition {
            epoch: Epoch::parse("abcdefgh").expect("letters"),
            offset: 7,
        };
        let stored = Published::from(Some(position));
        assert_eq!(
            body(&Outcome::alone(Ok(Answer::Published(stored.clone())))),
            r#"{"result":{"offset":7,"epoch":"abcdefgh"}}"#
        );
        let responses = vec![
            Response::Result(stored),
            Response::Error(ErrorCode::UnknownChannel.into()),
        ];
        assert_eq!(
            body(&Outcome::alone(Ok(Answer::Broadcast { responses }))),
            r#"{"result":{"responses":[{"result":{"offset":7,"epoch":"abcdefgh"}},{"error":{"code":102,"message":"unknown channel"}}]}}"#
        );
        let stats = Answer::from(PresenceStats::default());
        assert_eq!(
            body(&Outcome::alone(Ok(stats))),
            r#"{"result":{"num_clients":0,"num_users":0}}"#
        );
    }

    #[test]
    fn members_show_json_as_it_is_and_anything_else_as_base64() {
        let client = ClientId::from_random(7);
        let info = ClientInfo {
            user: "42",
            client,
            conn_info: br#"{"name":"A"}"#,
            chan_info: b"\xff}{",
        };
        assert_eq!(
            serde_json::to_string(&Info::from(info)).expect("text"),
            format!(
                r#"{{"client":"{client}","user":"42","conn_info":{{"name":"A"}},"chan_info":"/317"}}"#
            )
        );
    }

    #[test]
    fn errors_stand_in_the_body_or_in_the_status() {
        for (error, status) in [
            (ErrorCode::Internal, 500),
            (ErrorCode::UnknownChannel, 404),
            (ErrorCode::MethodNotFound, 404),
            (ErrorCode::BadRequest, 400),
            (ErrorCode::NotAvailable, 400),
            (ErrorCode::TooManyRequests, 429),
            (ErrorCode::UnrecoverablePosition, 416),
            (ErrorCode::ConcurrentPagination, 409),
        ] {
            let outcome = Outcome::alone(Err(error));
            assert_eq!(respond(&outcome, false).0, 200);
            let (answered, body) = respond(&outcome, true);
            assert_eq!(answered, status);
            let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(body["code"], error.code());
        }
    }

    #[test]
    fn nodes_that_did_not_answer_stand_beside_the_result() {
        let outcome = Outcome {
            result: Ok(Answer::Done {}),
            unanswered: vec!["gateway-3".to_owned()],
        };
        assert_eq!(
            body(&outcome),
            r#"{"result":{},"unanswered":["gateway-3"]}"#
        );
        let replies = batch_reply(&[
            (Some(Method::Disconnect), outcome),
            (None, Outcome::alone(Err(ErrorCode::MethodNotFound))),
        ]);
        assert_eq!(
            String::from_utf8(replies).expect("text"),
            r#"{"replies":[{"disconnect":{},"unanswered":["gateway-3"]},{"error":{"code":104,"message":"method not found"}}]}"#
        );
    }

    #[test]
    fn the_old_form_carries_the_commands_id() {
        let outcome = Outcome::alone(Ok(Answer::Done {}));
        assert_eq!(legacy_reply(&outcome, 3), br#"{"id":3,"result":{}}"#);
        assert_eq!(legacy_reply(&outcome, 0), br#"{"result":{}}"#);
    }
}
