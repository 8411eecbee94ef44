//! Commands from JSON and publications into JSON: ours and serde_json, which borrows all that it can.

use std::borrow::Cow;
use std::hint::black_box;

use crate::protocol::WireFormat;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{CHANNEL, OFFSET, TICK, article, encode_publication};
use crate::harness::{OURS, case};

/// As much of the schema as a server must read.
#[derive(Deserialize)]
#[expect(dead_code, reason = "what is read is not looked at")]
struct Command<'a> {
    #[serde(default)]
    id: u32,
    #[serde(borrow, default)]
    connect: Option<Connect<'a>>,
    #[serde(borrow, default)]
    subscribe: Option<Subscribe<'a>>,
    #[serde(borrow, default)]
    publish: Option<Publish<'a>>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "what is read is not looked at")]
struct Connect<'a> {
    #[serde(borrow, default)]
    token: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Cow<'a, str>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "what is read is not looked at")]
struct Subscribe<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow, default)]
    token: Cow<'a, str>,
    #[serde(default)]
    recover: bool,
    #[serde(borrow, default)]
    epoch: Cow<'a, str>,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    positioned: bool,
    #[serde(default)]
    recoverable: bool,
    #[serde(default)]
    join_leave: bool,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "what is read is not looked at")]
struct Publish<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Serialize)]
struct Pushed<'a> {
    push: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    channel: &'a str,
    #[serde(rename = "pub")]
    publication: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    data: &'a RawValue,
    offset: u64,
}

pub(crate) fn run() {
    let token = "eyJhbGciOiJIUzI1NiJ9".repeat(8);
    for (name, message) in [
        (
            "JSON connect",
            format!(r#"{{"id":1,"connect":{{"token":"{token}","name":"js","version":"5.2.2"}}}}"#),
        ),
        (
            "JSON subscribe",
            r#"{"id":2,"subscribe":{"channel":"news:sport","recover":true,"offset":1234,"epoch":"xyzw","positioned":true}}"#.to_owned(),
        ),
        (
            "JSON publish 100 B",
            format!(r#"{{"id":3,"publish":{{"channel":"news:sport","data":{TICK}}}}}"#),
        ),
        (
            "JSON publish 1 KiB",
            format!(r#"{{"id":4,"publish":{{"channel":"news:sport","data":{}}}}}"#, article()),
        ),
    ] {
        // What the frame decoder has found to be UTF-8 is checked again by both.
        let message = message.as_bytes();
        case(name, OURS, 500, 1, || {
            for command in WireFormat::Json.decode(black_box(message)) {
                assert!(black_box(command).is_ok(), "{name}: ours");
            }
        });
        case(name, "serde_json", 500, 1, || {
            let command = serde_json::from_slice::<Command<'_>>(black_box(message));
            assert!(black_box(command).is_ok(), "{name}: serde_json");
        });
    }

    publication("JSON publication 100 B", TICK);
    publication("JSON publication 1 KiB", &article());
}

fn publication(name: &str, data: &str) {
    let mut out = Vec::with_capacity(2 * data.len());
    encode_publication(name, WireFormat::Json, data, &mut out);
    let expected = out.clone();
    let data: &RawValue = serde_json::from_str(data).expect("JSON");
    case(name, "serde_json", 500, 1, || {
        out.clear();
        let pushed = Pushed {
            push: Body {
                channel: CHANNEL,
                publication: Data {
                    data,
                    offset: OFFSET,
                },
            },
        };
        let written = serde_json::to_writer(&mut out, black_box(&pushed));
        black_box(written.is_ok());
    });
    assert_eq!(out, expected, "both write the same");
}
