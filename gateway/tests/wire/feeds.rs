//! What listeners of a channel get: their format in their transport's frame, deltas only where they
//! can be applied, and nothing that their format cannot carry.

use std::collections::HashMap;
use std::sync::Arc;

use fastrand::Rng;
use flux_gateway::protocol::{ClientId, ClientInfo, Tags, WireFormat, delta};
use flux_gateway::pubsub::{
    ChannelKey, Delivered, Epoch, Framing, Interest, MessageRef, Sequenced, Sequencer,
    StreamPosition, Variant, Wire,
};
use proptest::prelude::*;
use prost_reflect::DynamicMessage;

use crate::schema::{message, to_json};

fn variant(format: WireFormat, transport: Framing, unidirectional: bool) -> Variant {
    Variant {
        wire: Wire {
            format,
            transport,
            unidirectional,
        },
        ..Variant::default()
    }
}

fn at(offset: u64) -> Option<StreamPosition> {
    Some(StreamPosition {
        epoch: Epoch::from_random(1),
        offset,
    })
}

/// A channel with one listener for each variant, on the shard of the variant's number.
struct Listeners {
    sequencer: Sequencer,
    name: Arc<str>,
}

const KEY: ChannelKey = ChannelKey {
    index: 7,
    generation: 0,
};

impl Listeners {
    fn of(variants: &[Variant]) -> Self {
        let (mut sequencer, name) = (Sequencer::new(), Arc::from("c"));
        for (shard, variant) in variants.iter().enumerate() {
            sequencer.join(&name, *variant, shard as u16, KEY);
        }
        Self { sequencer, name }
    }

    fn publish(
        &mut self,
        message: MessageRef<'_>,
        position: Option<StreamPosition>,
    ) -> (Sequenced, HashMap<u16, Delivered>) {
        let mut got = HashMap::new();
        let name = Arc::clone(&self.name);
        let sequenced =
            self.sequencer
                .publish(&name, message, position, &mut |shard, _, delivered| {
                    got.insert(shard, delivered);
                    true
                });
        (sequenced, got)
    }
}

#[test]
fn every_kind_of_client_gets_its_own_form_of_the_same_publication() {
    use Framing::{HttpStream, Sse, WebSocket};
    use WireFormat::{Json, Protobuf};
    let variants = [
        variant(Json, WebSocket, false),
        variant(Json, WebSocket, true),
        variant(Json, HttpStream, false),
        variant(Json, Sse, true),
        variant(Protobuf, WebSocket, false),
        variant(Protobuf, WebSocket, true),
        variant(Protobuf, HttpStream, false),
    ];
    let mut listeners = Listeners::of(&variants);
    let (sequenced, got) = listeners.publish(MessageRef::data(b"[1]"), at(5));
    assert_eq!((sequenced.taken, sequenced.inappropriate.len()), (7, 0));
    for (shard, expected) in [
        &b"\x81\x36{\"push\":{\"channel\":\"c\",\"pub\":{\"data\":[1],\"offset\":5}}}"[..],
        b"\x81\x2d{\"channel\":\"c\",\"pub\":{\"data\":[1],\"offset\":5}}",
        b"37\r\n{\"push\":{\"channel\":\"c\",\"pub\":{\"data\":[1],\"offset\":5}}}\n\r\n",
        b"35\r\ndata: {\"channel\":\"c\",\"pub\":{\"data\":[1],\"offset\":5}}\n\n\r\n",
        b"\x82\x0f\x0e\x22\x0c\x12\x01c\x22\x07\x22\x03[1]\x30\x05",
        b"\x82\x0d\x0c\x12\x01c\x22\x07\x22\x03[1]\x30\x05",
        b"f\r\n\x0e\x22\x0c\x12\x01c\x22\x07\x22\x03[1]\x30\x05\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let delivered = &got[&(shard as u16)];
        assert_eq!(
            String::from_utf8_lossy(delivered.slice.as_bytes()),
            String::from_utf8_lossy(expected),
        );
        assert_eq!((delivered.offset, delivered.whole.is_none()), (5, true));
    }
}

#[test]
fn joins_have_no_offset_and_reach_only_those_who_want_them() {
    let plain = Variant::JSON;
    let mut listeners = Listeners::of(&[plain, Variant::JSON_JOIN_LEAVE]);
    let info = ClientInfo {
        user: "u",
        client: ClientId::from_random(1),
        conn_info: b"",
        chan_info: b"",
    };
    let (sequenced, got) = listeners.publish(MessageRef::Join(info), None);
    assert_eq!((sequenced.taken, got[&1].offset), (1, 0));
    assert!(!got.contains_key(&0));
}

#[test]
fn what_is_not_json_ends_the_listening_of_json_clients_alone() {
    let protobuf = variant(WireFormat::Protobuf, Framing::WebSocket, false);
    let mut listeners = Listeners::of(&[Variant::JSON, Variant::JSON_JOIN_LEAVE, protobuf]);
    let (sequenced, got) = listeners.publish(MessageRef::data(b"\xff\x00"), at(1));
    assert_eq!(sequenced.inappropriate.as_slice(), [(0, KEY), (1, KEY)]);
    assert_eq!(
        (sequenced.taken, sequenced.interest),
        (1, Interest::Unchanged)
    );
    assert!(got.len() == 1 && got.contains_key(&2));
    let (sequenced, got) = listeners.publish(MessageRef::data(b"{}"), at(2));
    assert_eq!((sequenced.taken, sequenced.inappropriate.len()), (1, 0));
    assert_eq!(got[&2].offset, 2);

    let mut listeners = Listeners::of(&[Variant::JSON]);
    for bad in [&b""[..], b"{", b"1 2", b"\xff", &b"[".repeat(1_000)] {
        let (sequenced, got) = listeners.publish(MessageRef::data(bad), None);
        assert_eq!(sequenced.interest, Interest::Ended, "{bad:?}");
        assert!(got.is_empty() && !listeners.sequencer.is_heard("c"));
        listeners = Listeners::of(&[Variant::JSON]);
    }
    let info = ClientInfo {
        user: "u",
        client: ClientId::from_random(1),
        conn_info: b"\xff",
        chan_info: b"",
    };
    let (sequenced, _) = listeners.publish(
        MessageRef::Publication {
            data: b"1",
            info: Some(info),
            tags: Tags::NONE,
            delta: false,
        },
        None,
    );
    assert_eq!(sequenced.inappropriate.len(), 1);
}

#[test]
fn json_on_several_lines_arrives_on_one() {
    let mut listeners = Listeners::of(&[Variant::JSON]);
    let (_, got) = listeners.publish(MessageRef::data(b"{\n\"a\":\r\n1}"), None);
    let text = String::from_utf8_lossy(got[&0].slice.as_bytes()).into_owned();
    assert!(text.ends_with("{\"data\":{ \"a\":  1}}}}"), "{text}");
}

/// A client of the protocol that understands deltas.
#[derive(Default)]
struct DeltaClient {
    previous: Option<Vec<u8>>,
    deltas: u32,
}

impl DeltaClient {
    fn take(&mut self, is_json: bool, delivered: &Delivered) -> Vec<u8> {
        // The first one must be whole.
        let slice = match (&self.previous, &delivered.whole) {
            (None, Some(whole)) => whole.encode(delivered.offset),
            _ => delivered.slice.clone(),
        };
        let (data, is_delta) = publication(is_json, slice.as_bytes());
        let payload = match (&self.previous, is_delta) {
            (_, false) => data,
            (Some(previous), true) => {
                self.deltas += 1;
                delta::apply(previous, &data).expect("a delta of the one before")
            }
            (None, true) => panic!("a delta of nothing"),
        };
        self.previous = Some(payload.clone());
        payload
    }
}

/// Data of a publication in a server's WebSocket frame, and whether it is a delta.
fn publication(is_json: bool, frame: &[u8]) -> (Vec<u8>, bool) {
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let body = &frame[header..];
    let document: serde_json::Value = if is_json {
        serde_json::from_slice(body).expect("valid JSON")
    } else {
        let mut body = body;
        prost_reflect::prost::encoding::decode_varint(&mut body).expect("a length");
        let mut reply = DynamicMessage::decode(message("Reply"), body).expect("of the schema");
        let push = reply.get_field_by_name_mut("push").expect("a push");
        let push = push.as_message_mut().expect("a message");
        let publication = push.get_field_by_name_mut("pub").expect("a publication");
        let publication = publication.as_message_mut().expect("a message");
        let data = publication.get_field_by_name("data").expect("data");
        let data = data.as_bytes().expect("bytes").to_vec();
        publication.clear_field_by_name("data");
        let rest = to_json(publication).expect("the rest is JSON");
        let rest: serde_json::Value = serde_json::from_str(&rest).expect("valid JSON");
        return (data, rest["delta"] == true);
    };
    let publication = &document["push"]["pub"];
    let text = publication["data"].as_str().expect("a string");
    (text.as_bytes().to_vec(), publication["delta"] == true)
}

fn delta_variant(format: WireFormat) -> Variant {
    Variant {
        delta: true,
        ..variant(format, Framing::WebSocket, false)
    }
}

/// A document that changes a little from one to the next.
fn document(rng: &mut Rng) -> Vec<u8> {
    let filler = "ü€ and so on ".repeat(rng.usize(..20));
    match rng.u8(..8) {
        0 => b"1".to_vec(),
        1 => format!("[\"{filler}\",{}]\n", rng.u8(..)).into_bytes(),
        _ => format!(
            "{{\"a\":{},\"filler\":\"{filler}\",\"b\":{}}}",
            rng.u16(..),
            rng.bool()
        )
        .into_bytes(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_client_of_deltas_has_every_payload_whenever_it_came(seed: u64) {
        let rng = &mut Rng::with_seed(seed);
        let formats = [WireFormat::Json, WireFormat::Protobuf];
        let mut listeners = Listeners::of(&formats.map(delta_variant));
        let mut clients: Vec<(u16, DeltaClient)> = Vec::new();
        for offset in 1..40 {
            if rng.u8(..4) == 0 {
                clients.push((rng.u16(..2), DeltaClient::default()));
            }
            let payload = document(rng);
            let message = MessageRef::Publication {
                data: &payload,
                info: None,
                tags: Tags::NONE,
                delta: rng.u8(..4) > 0,
            };
            let (sequenced, got) = listeners.publish(message, at(offset));
            prop_assert_eq!(sequenced.taken, 2);
            for (shard, client) in &mut clients {
                let is_json = *shard == 0;
                prop_assert_eq!(client.take(is_json, &got[shard]), payload.clone());
            }
        }
    }
}

#[test]
fn a_delta_comes_only_when_it_is_wanted_and_known_to_be_smaller() {
    let plain = variant(WireFormat::Json, Framing::WebSocket, false);
    let mut listeners = Listeners::of(&[
        plain,
        delta_variant(WireFormat::Json),
        delta_variant(WireFormat::Protobuf),
    ]);
    let wanted = |data, delta| MessageRef::Publication {
        data,
        info: None,
        tags: Tags::NONE,
        delta,
    };
    let old = format!("{{\"n\":1,\"text\":\"{}\"}}", "x".repeat(200));
    let new = old.replace('1', "2");
    let is_delta =
        |got: &HashMap<u16, Delivered>| [0, 1, 2].map(|shard| got[&shard].whole.is_some());

    let (_, got) = listeners.publish(wanted(old.as_bytes(), true), None);
    assert_eq!(is_delta(&got), [false; 3], "there is nothing before it");
    let (_, got) = listeners.publish(wanted(new.as_bytes(), true), None);
    assert_eq!(is_delta(&got), [false, true, true]);
    assert!(got[&1].slice.len() < 100 && got[&2].slice.len() < 60);
    let whole = got[&1].whole.as_ref().expect("whole").encode(0);
    let (data, _) = publication(true, whole.as_bytes());
    assert_eq!(data, new.as_bytes(), "also whole it is a string");
    let (_, got) = listeners.publish(wanted(old.as_bytes(), false), None);
    assert_eq!(is_delta(&got), [false; 3], "not asked for");
    let (_, got) = listeners.publish(wanted(b"[]", true), None);
    assert_eq!(is_delta(&got), [false; 3], "not smaller");
    // What is quiet loses its log's memory, not what the next delta needs.
    listeners.publish(wanted(old.as_bytes(), true), None);
    listeners.sequencer.sweep();
    listeners.sequencer.sweep();
    let (_, got) = listeners.publish(wanted(new.as_bytes(), true), None);
    assert_eq!(is_delta(&got), [false, true, true]);
}
