//! Replies and pushes: what both encoders write means the same in the schema's terms.

use std::sync::LazyLock;

use fastrand::Rng;
use flux_gateway::protocol::{
    ClientId, ClientInfo, ConnectResult, Disconnect, Error, Publication, Push, Reply,
    SubscribeResult, Tags, Unsubscribe, WireFormat, tags,
};
use proptest::prelude::*;
use prost_reflect::DynamicMessage;

use crate::schema::{JSON, TEXTS, meaning, message, number, to_json};

static TAGS: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    [
        Vec::new(),
        tags::pack([("a", "1"), ("b\n", "ü\"")]).expect("few"),
        tags::pack([("", ""), ("k", TEXTS[6])]).expect("few"),
    ]
});

fn text(rng: &mut Rng) -> &'static str {
    rng.choice(TEXTS).unwrap()
}

fn json(rng: &mut Rng) -> &'static [u8] {
    rng.choice(JSON).unwrap().as_bytes()
}

fn json_or_none(rng: &mut Rng) -> &'static [u8] {
    match rng.bool() {
        true => json(rng),
        false => b"",
    }
}

fn info(rng: &mut Rng) -> ClientInfo<'static> {
    ClientInfo {
        user: text(rng),
        client: ClientId::from_random(rng.u128(..)),
        conn_info: json_or_none(rng),
        chan_info: json_or_none(rng),
    }
}

fn publication(rng: &mut Rng) -> Publication<'static> {
    Publication {
        data: json(rng),
        info: rng.bool().then(|| info(rng)),
        offset: number(rng),
        tags: Tags::from_packed(rng.choice(TAGS.iter()).unwrap()).expect("as packed"),
        delta: rng.bool(),
    }
}

fn publications(rng: &mut Rng) -> Vec<Publication<'static>> {
    (0..rng.usize(..5)).map(|_| publication(rng)).collect()
}

fn subscribed<'a>(rng: &mut Rng, publications: &'a [Publication<'a>]) -> SubscribeResult<'a> {
    SubscribeResult {
        ttl_seconds: rng.bool().then(|| number(rng) as u32),
        recoverable: rng.bool(),
        positioned: rng.bool(),
        epoch: text(rng),
        offset: number(rng),
        publications,
        was_recovering: rng.bool(),
        recovered: rng.bool(),
        data: json_or_none(rng),
        delta: rng.bool(),
    }
}

fn connected<'a>(rng: &mut Rng, subs: &'a [(&'a str, SubscribeResult<'a>)]) -> ConnectResult<'a> {
    ConnectResult {
        client: ClientId::from_random(rng.u128(..)),
        version: text(rng),
        ttl_seconds: rng.bool().then(|| number(rng) as u32),
        data: json_or_none(rng),
        subs,
        ping_seconds: number(rng) as u32,
        pong: rng.bool(),
        session: text(rng),
        node: text(rng),
    }
}

/// The JSON of what was encoded, read from either format.
struct Read {
    json: serde_json::Value,
    protobuf: serde_json::Value,
}

fn read(name: &str, json: &[u8], protobuf: &[u8]) -> Read {
    assert!(!json.contains(&b'\n') && !json.contains(&b'\r'));
    let descriptor = message(name);
    let mut body = protobuf;
    let len = prost_reflect::prost::encoding::decode_varint(&mut body).expect("a length");
    assert_eq!(len as usize, body.len(), "the length says where it ends");
    let decoded = DynamicMessage::decode(descriptor.clone(), body).expect("of the schema");
    assert_eq!(decoded.unknown_fields().count(), 0);
    let from_protobuf = to_json(&decoded).expect("its bytes are JSON");
    let parse = |text: &[u8]| -> serde_json::Value {
        let document = serde_json::from_slice(text).expect("valid JSON");
        meaning(&document, &descriptor)
    };
    Read {
        json: parse(json),
        protobuf: parse(from_protobuf.as_bytes()),
    }
}

fn written(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

fn check_reply(id: u32, reply: &Reply<'_>) {
    let json = written(|out| WireFormat::Json.reply(out, id, reply));
    let protobuf = written(|out| WireFormat::Protobuf.reply(out, id, reply));
    let read = read("Reply", &json, &protobuf);
    assert_eq!(read.json, read.protobuf, "{reply:?}");
}

fn check_push(push: &Push<'_>) {
    let json = written(|out| WireFormat::Json.push(out, push));
    let protobuf = written(|out| WireFormat::Protobuf.push(out, push));
    let inside = read("Reply", &json, &protobuf);
    assert_eq!(inside.json, inside.protobuf, "{push:?}");
    let json = written(|out| WireFormat::Json.bare_push(out, push));
    let protobuf = written(|out| WireFormat::Protobuf.bare_push(out, push));
    let alone = read("Push", &json, &protobuf);
    assert_eq!(alone.json, alone.protobuf, "{push:?}");
    assert_eq!(inside.json["push"], alone.json);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_reply_means_the_same_in_both_formats(seed: u64) {
        let rng = &mut Rng::with_seed(seed);
        let publications = publications(rng);
        let result = subscribed(rng, &publications);
        let subs = [("a", result), ("b\"", subscribed(rng, &[]))];
        let clients: Vec<_> = (0..rng.usize(..4)).map(|_| info(rng)).collect();
        let (id, count) = (number(rng) as u32, rng.usize(..3));
        for reply in [
            Reply::Error(Error { code: number(rng) as u32, message: text(rng), temporary: rng.bool() }),
            Reply::Connect(connected(rng, &subs[..count])),
            Reply::Subscribe(result),
            Reply::Unsubscribe,
            Reply::Publish,
            Reply::Presence(&clients),
            Reply::PresenceStats { clients: number(rng) as u32, users: number(rng) as u32 },
            Reply::History { publications: &publications, offset: number(rng), epoch: text(rng) },
            Reply::Rpc { data: json_or_none(rng) },
            Reply::Refresh {
                client: ClientId::from_random(rng.u128(..)),
                version: text(rng),
                ttl_seconds: rng.bool().then(|| number(rng) as u32),
            },
            Reply::SubRefresh { ttl_seconds: rng.bool().then(|| number(rng) as u32) },
        ] {
            check_reply(id, &reply);
        }
    }

    #[test]
    fn a_push_means_the_same_in_both_formats(seed: u64) {
        let rng = &mut Rng::with_seed(seed);
        let result = subscribed(rng, &[]);
        let subs = [("a", result), ("b", result)];
        let channel = text(rng);
        for push in [
            Push::Publication { channel, publication: publication(rng) },
            Push::Join { channel, info: info(rng) },
            Push::Leave { channel, info: info(rng) },
            Push::Subscribe { channel, result },
            Push::Unsubscribe { channel, unsubscribe: Unsubscribe::new(number(rng) as u16, text(rng)) },
            Push::Message { data: json(rng) },
            Push::Connect(connected(rng, &subs)),
            Push::Disconnect(Disconnect::new(number(rng) as u16, text(rng))),
            Push::Refresh { ttl_seconds: rng.bool().then(|| number(rng) as u32) },
        ] {
            check_push(&push);
        }
    }
}
