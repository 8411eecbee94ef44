//! The documents that nodes send each other through Redis: JSON, one a message. Pure.
//!
//! A request says who asks and how long the answer is waited for; an answer says who answers which
//! request. Anything else that comes along the channel is refused and counted: whoever may write
//! to Redis could be anybody.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::operation::{Operation, Report};

/// Version of the documents. One of a later version is refused.
const VERSION: u32 = 1;
/// Longest document that is sent or read, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest that a node lets itself be told to work on a request.
const WITHIN_MAX: Duration = Duration::from_secs(10);

/// A document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Somebody wants something done.
    Request {
        /// Names the request; drawn at random by who asks.
        id: u64,
        /// Who asks: where the answer goes.
        from: String,
        /// How long the answer is waited for; zero: it is not.
        within: Duration,
        /// What.
        operation: Operation,
    },
    /// Somebody has done it.
    Answer {
        /// Names the request.
        id: u64,
        /// Who answers.
        from: String,
        /// What it found.
        report: Report,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    v: u32,
    id: String,
    from: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    within_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<Operation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Report>,
}

/// Why something is no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is longer than any of ours.
    #[error("longer than {DOCUMENT_BYTES_MAX} bytes")]
    Size,
    /// It is no JSON of ours.
    #[error("not a document of ours")]
    Format,
    /// It was written by a later program.
    #[error("of a later version; upgrade this node")]
    Version,
}

impl Document {
    /// As it is sent. `None` where it would be longer than anybody reads.
    #[must_use]
    pub fn encode(self) -> Option<Vec<u8>> {
        let written = match self {
            Self::Request {
                id,
                from,
                within,
                operation,
            } => Written {
                v: VERSION,
                id: format!("{id:016x}"),
                from,
                within_ms: Some(within.as_millis() as u64),
                request: Some(operation),
                answer: None,
            },
            Self::Answer { id, from, report } => Written {
                v: VERSION,
                id: format!("{id:016x}"),
                from,
                within_ms: None,
                request: None,
                answer: Some(report),
            },
        };
        let bytes = serde_json::to_vec(&written).ok()?;
        (bytes.len() <= DOCUMENT_BYTES_MAX).then_some(bytes)
    }

    /// Reads a document.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(Refused::Size);
        }
        let written: Written = match serde_json::from_slice(bytes) {
            Ok(written) => written,
            Err(_) => return Err(refused(bytes)),
        };
        if written.v != VERSION {
            return Err(Refused::Version);
        }
        let is_id = written.id.len() == 16 && written.id.bytes().all(|b| b.is_ascii_hexdigit());
        let id = u64::from_str_radix(&written.id, 16)
            .ok()
            .filter(|_| is_id)
            .ok_or(Refused::Format)?;
        if !flux_registry::valid_id(&written.from) {
            return Err(Refused::Format);
        }
        match (written.request, written.within_ms, written.answer) {
            (Some(operation), Some(within_ms), None) => Ok(Self::Request {
                id,
                from: written.from,
                within: Duration::from_millis(within_ms).min(WITHIN_MAX),
                operation,
            }),
            (None, None, Some(report)) => Ok(Self::Answer {
                id,
                from: written.from,
                report,
            }),
            _ => Err(Refused::Format),
        }
    }
}

/// A document of a later version need not look like ours.
fn refused(bytes: &[u8]) -> Refused {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    match serde_json::from_slice(bytes) {
        Ok(Version { v }) if v > VERSION => Refused::Version,
        _ => Refused::Format,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::operation::{Bytes, Client, Found, Grant, Target};
    use super::*;
    use crate::protocol::ClientId;

    fn operations() -> Vec<Operation> {
        let target = Target {
            user: "42".to_owned(),
            client: Some(Client(ClientId::from_random(9))),
            session: Some("s".to_owned()),
        };
        vec![
            Operation::Disconnect {
                target: target.clone(),
                code: 3503,
                reason: "\u{e9}\"\n".to_owned(),
                whitelist: vec![Client(ClientId::from_random(3))],
            },
            Operation::Unsubscribe {
                target: Target::default(),
                channel: "a".to_owned(),
                code: 2000,
                reason: String::new(),
            },
            Operation::Subscribe {
                target: target.clone(),
                channel: "a".to_owned(),
                grant: Box::new(Grant {
                    info: Bytes(vec![0, 255]),
                    force_recovery: Some(false),
                    expires_in_ms: Some(1),
                    ..Grant::default()
                }),
                recover_since: Some((7, "abcdefgh".to_owned())),
            },
            Operation::Refresh {
                target,
                expired: true,
                expires_in_ms: None,
                info: Some(Bytes(b"{}".to_vec())),
            },
            Operation::Info {},
            Operation::Channels {
                pattern: "a*".to_owned(),
            },
            Operation::Commands {
                session: "s".to_owned(),
                data: Bytes(b"{\"id\":1}".to_vec()),
            },
        ]
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        for operation in operations() {
            let document = Document::Request {
                id: 0xfedc_ba98_7654_3210,
                from: "gateway-1".to_owned(),
                within: Duration::from_millis(2_000),
                operation,
            };
            let bytes = document.clone().encode().expect("short");
            assert_eq!(Document::decode(&bytes), Ok(document));
        }
        let document = Document::Answer {
            id: 1,
            from: "gateway-2".to_owned(),
            report: Report {
                found: Found::Channels(vec![("a".to_owned(), 2)]),
                is_partial: true,
            },
        };
        let bytes = document.clone().encode().expect("short");
        assert_eq!(Document::decode(&bytes), Ok(document));
    }

    #[test]
    fn anything_else_is_refused_by_reason() {
        let refused = |text: &str| Document::decode(text.as_bytes()).expect_err(text);
        for text in [
            "",
            "{}",
            "[]",
            r#"{"v":1,"id":"1","from":"a","within_ms":1,"request":{"info":{}}}"#,
            r#"{"v":1,"id":"+000000000000001","from":"a","within_ms":1,"request":{"info":{}}}"#,
            r#"{"v":1,"id":"0000000000000001","from":"a b","within_ms":1,"request":{"info":{}}}"#,
            r#"{"v":1,"id":"0000000000000001","from":"a","within_ms":1}"#,
            r#"{"v":1,"id":"0000000000000001","from":"a","request":{"info":{}}}"#,
            r#"{"v":1,"id":"0000000000000001","from":"a","within_ms":1,"request":{"dance":{}}}"#,
            r#"{"v":1,"id":"0000000000000001","from":"a","within_ms":1,"request":{"info":{}},"more":1}"#,
            r#"{"v":1,"id":"0000000000000001","from":"a","within_ms":1,"request":{"commands":{"session":"s","data":"!"}}}"#,
        ] {
            assert_eq!(refused(text), Refused::Format, "{text}");
        }
        assert_eq!(refused(r#"{"v":2,"everything":"else"}"#), Refused::Version);
        let long = vec![b' '; DOCUMENT_BYTES_MAX + 1];
        assert_eq!(Document::decode(&long), Err(Refused::Size));
        // Nobody makes another node work for an hour.
        let text = r#"{"v":1,"id":"0000000000000001","from":"a","within_ms":3600000,"request":{"info":{}}}"#;
        let Ok(Document::Request { within, .. }) = Document::decode(text.as_bytes()) else {
            panic!("a request");
        };
        assert_eq!(within, WITHIN_MAX);
    }

    proptest! {
        #[test]
        fn nothing_that_comes_along_makes_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            at in 0usize..200, byte in any::<u8>(), which in 0usize..7,
        ) {
            let _ = Document::decode(&bytes);
            let mut valid = Document::Request {
                id: 1,
                from: "a".to_owned(),
                within: Duration::ZERO,
                operation: operations().swap_remove(which),
            }.encode().expect("short");
            let at = at % valid.len();
            valid[at] = byte;
            let _ = Document::decode(&valid);
        }
    }
}
