//! Centrifuge protocol, JSON, client side: commands as bytes, replies and pushes as values.

use serde::Deserialize;
use serde_json::value::RawValue;

/// The server's ping and the client's pong.
pub(crate) const EMPTY: &str = "{}";

/// Where a client stands in a channel's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: String,
    pub(crate) offset: u64,
}

/// The connect command.
pub(crate) fn connect(id: u32) -> String {
    format!(r#"{{"id":{id},"connect":{{"name":"flux-bench"}}}}"#)
}

/// The subscribe command; with a position it asks for what was published since.
pub(crate) fn subscribe(id: u32, channel: &str, since: Option<&Position>) -> String {
    let channel = quoted(channel);
    match since {
        None => format!(r#"{{"id":{id},"subscribe":{{"channel":{channel}}}}}"#),
        Some(Position { epoch, offset }) => {
            let epoch = quoted(epoch);
            format!(
                r#"{{"id":{id},"subscribe":{{"channel":{channel},"recover":true,"epoch":{epoch},"offset":{offset}}}}}"#
            )
        }
    }
}

/// The publish command; `data` is JSON.
pub(crate) fn publish(id: u32, channel: &str, data: &str) -> String {
    format!(
        r#"{{"id":{id},"publish":{{"channel":{},"data":{data}}}}}"#,
        quoted(channel)
    )
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// One line from the server: a reply (with `id`), a push, or an empty ping.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(crate) struct Line<'a> {
    pub(crate) id: u32,
    pub(crate) error: Option<ErrorReply>,
    pub(crate) connect: Option<ConnectReply>,
    #[serde(borrow)]
    pub(crate) subscribe: Option<SubscribeReply<'a>>,
    #[serde(borrow)]
    pub(crate) push: Option<Push<'a>>,
}

#[derive(Debug, Deserialize, Clone, PartialEq, Eq, Default)]
#[serde(default)]
pub(crate) struct ErrorReply {
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) temporary: bool,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(crate) struct ConnectReply {
    /// The node that the client is on.
    pub(crate) node: String,
    /// Seconds between the server's pings; 0: none.
    pub(crate) ping: u32,
    /// Pings want a pong.
    pub(crate) pong: bool,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(crate) struct SubscribeReply<'a> {
    pub(crate) recoverable: bool,
    pub(crate) epoch: String,
    pub(crate) offset: u64,
    pub(crate) was_recovering: bool,
    pub(crate) recovered: bool,
    #[serde(borrow)]
    pub(crate) publications: Vec<Publication<'a>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Publication<'a> {
    #[serde(borrow)]
    pub(crate) data: &'a RawValue,
    #[serde(default)]
    pub(crate) offset: u64,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(crate) struct Push<'a> {
    #[serde(borrow, rename = "pub")]
    pub(crate) publication: Option<Publication<'a>>,
    pub(crate) unsubscribe: Option<Ended>,
    pub(crate) disconnect: Option<Ended>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(crate) struct Ended {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

/// The lines of a text frame, parsed.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = Result<Line<'_>, serde_json::Error>> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
}

/// A client reconnects after this close code (0: the transport was lost without one).
pub(crate) fn reconnects_after(code: u16) -> bool {
    !matches!(code, 3500..=3999 | 4500..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_json_with_quoted_names() {
        assert_eq!(connect(1), r#"{"id":1,"connect":{"name":"flux-bench"}}"#);
        assert_eq!(
            subscribe(2, "a\"b", None),
            r#"{"id":2,"subscribe":{"channel":"a\"b"}}"#
        );
        let position = Position {
            epoch: "x7".into(),
            offset: 14,
        };
        assert_eq!(
            subscribe(2, "c", Some(&position)),
            r#"{"id":2,"subscribe":{"channel":"c","recover":true,"epoch":"x7","offset":14}}"#
        );
        assert_eq!(
            publish(3, "c", r#"{"n":1}"#),
            r#"{"id":3,"publish":{"channel":"c","data":{"n":1}}}"#
        );
    }

    #[test]
    fn replies_pushes_and_pings_are_told_apart() {
        let text = concat!(
            r#"{"id":1,"connect":{"client":"x","version":"1","ping":25,"pong":true,"node":"gateway-2"}}"#,
            "\n",
            r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"e","offset":7,"recovered":true,"publications":[{"data":{"n":1},"offset":7}]}}"#,
            "\n",
            "{}\n",
            r#"{"push":{"channel":"c","pub":{"data":{"n":2},"offset":8}}}"#,
            "\n",
            r#"{"id":3,"error":{"code":103,"message":"permission denied"}}"#,
            "\n",
            r#"{"push":{"channel":"c","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#,
        );
        let lines: Vec<Line<'_>> = lines(text.as_bytes())
            .collect::<Result<_, _>>()
            .expect("valid");
        let connect = lines[0].connect.as_ref().expect("connect");
        assert_eq!(
            (connect.node.as_str(), connect.ping, connect.pong),
            ("gateway-2", 25, true)
        );
        let subscribe = lines[1].subscribe.as_ref().expect("subscribe");
        assert!(subscribe.recovered && subscribe.publications[0].data.get() == r#"{"n":1}"#);
        assert!(lines[2].id == 0 && lines[2].push.is_none());
        assert_eq!(
            lines[3]
                .push
                .as_ref()
                .and_then(|push| push.publication.as_ref())
                .map(|publication| publication.offset),
            Some(8)
        );
        assert_eq!(lines[4].error.as_ref().map(|error| error.code), Some(103));
        assert_eq!(
            lines[5]
                .push
                .as_ref()
                .and_then(|push| push.unsubscribe.as_ref())
                .map(|ended| ended.code),
            Some(2500)
        );
    }

    #[test]
    fn only_terminal_codes_keep_a_client_away() {
        for code in [0, 1000, 1001, 1006, 3000, 3001, 3499, 4000, 4499, 5000] {
            assert!(reconnects_after(code), "{code}");
        }
        for code in [3500, 3501, 3999, 4500, 4999] {
            assert!(!reconnects_after(code), "{code}");
        }
    }
}
