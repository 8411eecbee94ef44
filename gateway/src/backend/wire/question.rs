//! What is sent to the backend: questions and notices.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::authority::{NoticeKind, QuestionKind, Who};
use crate::backend::ProxyConfig;
use crate::protocol::{ErrorCode, WireFormat};

/// A request's document. Keys that a question has not are left out.
#[derive(Debug, Default, Serialize)]
struct Body<'a> {
    client: String,
    transport: &'a str,
    protocol: &'a str,
    encoding: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    token: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl<'a> Body<'a> {
    fn new(who: &'a Who, proxy: &ProxyConfig) -> Self {
        Self {
            client: who.client.map(|id| id.to_string()).unwrap_or_default(),
            transport: who.transport,
            protocol: if who.format == WireFormat::Json {
                "json"
            } else {
                "protobuf"
            },
            encoding: if proxy.binary_encoding {
                "binary"
            } else {
                "json"
            },
            ..Self::default()
        }
    }

    fn of_user(mut self, who: &'a Who, proxy: &ProxyConfig) -> Self {
        self.user = Some(&who.user);
        if proxy.include_connection_meta && !who.meta.is_empty() {
            // Ours, and checked when it came.
            self.meta = serde_json::from_slice(&who.meta).ok();
        }
        self
    }

    fn with_data(mut self, data: &'a [u8], proxy: &ProxyConfig) -> Result<Self, ErrorCode> {
        if data.is_empty() {
        } else if proxy.binary_encoding {
            self.b64data = Some(STANDARD.encode(data));
        } else {
            // Bytes of a Protobuf client: the endpoint would need `binary_encoding`.
            self.data = Some(serde_json::from_slice(data).map_err(|_| ErrorCode::BadRequest)?);
        }
        Ok(self)
    }

    fn document(&self) -> Result<Vec<u8>, ErrorCode> {
        serde_json::to_vec(self).map_err(|_| ErrorCode::Internal)
    }
}

/// The document of a question.
///
/// # Errors
/// 107 where data that is not JSON would have to go to an endpoint without `binary_encoding`.
pub(crate) fn question(
    who: &Who,
    kind: &QuestionKind,
    proxy: &ProxyConfig,
) -> Result<Vec<u8>, ErrorCode> {
    let body = Body::new(who, proxy);
    let body = match kind {
        QuestionKind::Connect {
            data,
            name,
            version,
            ..
        } => Body {
            name,
            version,
            ..body.with_data(data, proxy)?
        },
        QuestionKind::Refresh { .. } => body.of_user(who, proxy),
        QuestionKind::Subscribe {
            channel,
            token,
            data,
        } => Body {
            channel: Some(channel),
            token,
            ..body.of_user(who, proxy).with_data(data, proxy)?
        },
        QuestionKind::SubRefresh { channel, .. } => Body {
            channel: Some(channel),
            ..body.of_user(who, proxy)
        },
        QuestionKind::Publish { channel, data } => Body {
            channel: Some(channel),
            ..body.of_user(who, proxy).with_data(data, proxy)?
        },
        QuestionKind::Rpc { method, data } => Body {
            method: Some(method),
            ..body.of_user(who, proxy).with_data(data, proxy)?
        },
    };
    body.document()
}

/// The document of a notice.
///
/// # Errors
/// None that can be met.
pub(crate) fn notice(
    who: &Who,
    kind: &NoticeKind,
    proxy: &ProxyConfig,
) -> Result<Vec<u8>, ErrorCode> {
    let body = Body::new(who, proxy).of_user(who, proxy);
    let body = match kind {
        NoticeKind::Connected => Body {
            event: Some("connected"),
            ..body
        },
        NoticeKind::Disconnected { code, reason } => Body {
            event: Some("disconnected"),
            code: Some(*code),
            reason: Some(reason),
            ..body
        },
        NoticeKind::Subscribed { channel } => Body {
            event: Some("subscribed"),
            channel: Some(channel),
            ..body
        },
        NoticeKind::Unsubscribed { channel, code } => Body {
            event: Some("unsubscribed"),
            channel: Some(channel),
            code: Some(*code),
            ..body
        },
    };
    body.document()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::ClientId;

    fn who() -> Who {
        Who {
            client: Some(ClientId::from_random(1)),
            user: "42".to_owned(),
            meta: br#"{"tenant":7}"#.to_vec(),
            transport: "websocket",
            ..Who::default()
        }
    }

    fn sent(kind: &QuestionKind, proxy: &ProxyConfig) -> Value {
        let document = question(&who(), kind, proxy).expect("can be sent");
        serde_json::from_slice(&document).expect("JSON")
    }

    #[test]
    fn each_question_is_the_document_that_centrifugo_sends() {
        let plain = ProxyConfig::default();
        let text = |text: &str| text.to_owned();
        let client = ClientId::from_random(1).to_string();
        let head = json!({"client": client, "transport": "websocket", "protocol": "json", "encoding": "json"});
        let with = |more: Value| {
            let mut all = head.as_object().cloned().expect("an object");
            all.extend(more.as_object().cloned().expect("an object"));
            Value::Object(all)
        };
        let (channel, data) = (text("news"), b"{\"a\":1}".to_vec());
        let connect = QuestionKind::Connect {
            token: String::new(),
            data: data.clone(),
            name: text("js"),
            version: text("1"),
        };
        assert_eq!(
            sent(&connect, &plain),
            with(json!({"data": {"a": 1}, "name": "js", "version": "1"}))
        );
        let refresh = QuestionKind::Refresh {
            token: String::new(),
        };
        assert_eq!(sent(&refresh, &plain), with(json!({"user": "42"})));
        let subscribe = QuestionKind::Subscribe {
            channel: channel.clone(),
            token: String::new(),
            data: data.clone(),
        };
        assert_eq!(
            sent(&subscribe, &plain),
            with(json!({"user": "42", "channel": "news", "data": {"a": 1}}))
        );
        let publish = QuestionKind::Publish {
            channel,
            data: data.clone(),
        };
        assert_eq!(sent(&publish, &plain), sent(&subscribe, &plain));
        let rpc = QuestionKind::Rpc {
            method: text("sum"),
            data: Vec::new(),
        };
        assert_eq!(
            sent(&rpc, &plain),
            with(json!({"user": "42", "method": "sum"}))
        );
        let binary = ProxyConfig {
            binary_encoding: true,
            include_connection_meta: true,
            ..plain
        };
        let all = sent(&publish, &binary);
        assert_eq!(all["encoding"], "binary");
        assert_eq!(all["b64data"], STANDARD.encode(&data));
        assert_eq!(all["meta"], json!({"tenant": 7}));
        assert_eq!(all.get("data"), None);
    }

    #[test]
    fn bytes_go_only_where_base64_is_expected() {
        let kind = QuestionKind::Publish {
            channel: "news".to_owned(),
            data: vec![0xff],
        };
        let plain = ProxyConfig::default();
        assert_eq!(question(&who(), &kind, &plain), Err(ErrorCode::BadRequest));
    }

    #[test]
    fn notices_name_what_happened() {
        let kind = NoticeKind::Disconnected {
            code: 3001,
            reason: "shutdown".to_owned(),
        };
        let document = notice(&who(), &kind, &ProxyConfig::default()).expect("can be sent");
        let document: Value = serde_json::from_slice(&document).expect("JSON");
        assert_eq!(
            (
                &document["event"],
                &document["code"],
                &document["reason"],
                &document["user"]
            ),
            (
                &json!("disconnected"),
                &json!(3001),
                &json!("shutdown"),
                &json!("42")
            )
        );
    }
}
