//! What is published: drawn at random, and the same text for it wherever somebody sees it, be it in a
//! push, a recovery or a page of history.

use std::collections::BTreeMap;

use fastrand::Rng;
use flux_gateway::protocol::{ClientId, ClientInfo, Tags, delta, tags};
use flux_gateway::pubsub::{MessageRef, OwnedClientInfo};

/// A publication as its publisher makes it: data, who it was, tags, whether it may be told as a delta.
#[derive(Debug)]
pub(super) struct Draft {
    data: String,
    info: Option<OwnedClientInfo>,
    tags: Vec<u8>,
    delta: bool,
}

impl Draft {
    /// One that is told from all others by `number`.
    pub(super) fn random(number: u32, rng: &mut Rng) -> Self {
        // What is alike in all of them makes a delta worth it.
        let alike = ["", "The quick brown fox jumps over the lazy dog. "][rng.usize(..2)];
        let text = format!("{number}.").repeat(rng.usize(1..30));
        let pairs = [("kind", "a"), ("", "ü"), ("number", &text)];
        Self {
            data: format!("\"{}{text}\"", alike.repeat(3)),
            info: rng.bool().then(|| OwnedClientInfo {
                client: ClientId::from_random(rng.u128(..)),
                user: ["", "ann"][rng.usize(..2)].into(),
                conn_info: [&b""[..], b"{\"a\":1}"][rng.usize(..2)].into(),
                chan_info: [&b""[..], b"[2]"][rng.usize(..2)].into(),
            }),
            tags: tags::pack(pairs.into_iter().take(rng.usize(..4))).expect("few"),
            delta: rng.bool(),
        }
    }

    pub(super) fn message(&self) -> MessageRef<'_> {
        MessageRef::Publication {
            data: self.data.as_bytes(),
            info: self.info.as_ref().map(OwnedClientInfo::as_ref),
            tags: Tags::from_packed(&self.tags).expect("just packed"),
            delta: self.delta,
        }
    }

    pub(super) fn text(&self) -> String {
        text(self.message())
    }
}

/// Everything of a publication that a client sees.
pub(super) fn text(message: MessageRef<'_>) -> String {
    let data = String::from_utf8_lossy(message.payload()).into_owned();
    let info = message.info().map(|info| {
        let ClientInfo {
            user,
            client,
            conn_info,
            chan_info,
        } = info;
        let raw = |bytes| String::from_utf8_lossy(bytes).into_owned();
        [
            user.to_owned(),
            client.to_string(),
            raw(conn_info),
            raw(chan_info),
        ]
    });
    let tags: BTreeMap<_, _> = message.tags().iter().collect();
    format!("{data} {info:?} {tags:?}")
}

/// What stands in a pushed frame.
pub(super) struct Pushed {
    /// Everything that a client sees of a publication; `join NUMBER` for a join.
    pub(super) text: String,
    /// The payload of a publication.
    pub(super) payload: Option<String>,
    pub(super) offset: u64,
}

/// Reads a push in a text frame. Where `understands_deltas`, the payload stands in it as text: as it is, or as
/// what has changed since `previous`.
pub(super) fn pushed(
    frame: &[u8],
    channel: &str,
    understands_deltas: bool,
    previous: Option<&str>,
) -> Option<Pushed> {
    assert_eq!(frame[0], 0x81, "a whole text frame");
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let value: serde_json::Value = serde_json::from_slice(&frame[header..]).expect("JSON");
    let push = &value["push"];
    assert_eq!(push["channel"], channel);
    if let Some(join) = push.get("join") {
        return Some(Pushed {
            text: format!("join {}", join["info"]["user"].as_str().expect("a user")),
            payload: None,
            offset: 0,
        });
    }
    let publication = &push["pub"];
    let payload = match publication["data"].as_str() {
        Some(changes) if publication["delta"] == true => {
            let whole = delta::apply(previous?.as_bytes(), changes.as_bytes());
            String::from_utf8(whole.expect("a delta of the one before")).expect("text")
        }
        Some(text) if understands_deltas => text.to_owned(),
        _ => publication["data"].to_string(),
    };
    let info = publication.get("info").map(|info| {
        let text = |name: &str| info[name].as_str().unwrap_or_default().to_owned();
        let json = |name: &str| info.get(name).map_or(String::new(), ToString::to_string);
        [
            text("user"),
            text("client"),
            json("conn_info"),
            json("chan_info"),
        ]
    });
    let tags: BTreeMap<String, String> = publication
        .get("tags")
        .map(|tags| serde_json::from_value(tags.clone()).expect("texts"))
        .unwrap_or_default();
    Some(Pushed {
        text: format!("{payload} {info:?} {tags:?}"),
        payload: Some(payload),
        offset: publication["offset"].as_u64().unwrap_or_default(),
    })
}
