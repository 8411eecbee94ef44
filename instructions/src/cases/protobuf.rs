//! Commands from Protobuf and publications into Protobuf: ours and prost, with `Bytes` for data, which it does not
//! copy.

use std::hint::black_box;

use crate::protocol::WireFormat;
use prost::Message;
use prost::bytes::Bytes;

use super::{CHANNEL, OFFSET, TICK, article, encode_publication};
use crate::harness::{OURS, case};

/// As much of the schema as these cases need.
#[derive(Clone, PartialEq, Message)]
struct Command {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(message, optional, tag = "4")]
    connect: Option<Connect>,
    #[prost(message, optional, tag = "5")]
    subscribe: Option<Subscribe>,
    #[prost(message, optional, tag = "7")]
    publish: Option<Publish>,
}

#[derive(Clone, PartialEq, Message)]
struct Connect {
    #[prost(string, tag = "1")]
    token: String,
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "5")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Subscribe {
    #[prost(string, tag = "1")]
    channel: String,
    #[prost(string, tag = "2")]
    token: String,
    #[prost(bool, tag = "3")]
    recover: bool,
    #[prost(string, tag = "6")]
    epoch: String,
    #[prost(uint64, tag = "7")]
    offset: u64,
    #[prost(bytes = "bytes", tag = "8")]
    data: Bytes,
    #[prost(bool, tag = "9")]
    positioned: bool,
    #[prost(bool, tag = "10")]
    recoverable: bool,
    #[prost(bool, tag = "11")]
    join_leave: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Publish {
    #[prost(string, tag = "1")]
    channel: String,
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Reply {
    #[prost(message, optional, tag = "4")]
    push: Option<Pushed>,
}

#[derive(Clone, PartialEq, Message)]
struct Pushed {
    #[prost(string, tag = "2")]
    channel: String,
    #[prost(message, optional, tag = "4")]
    publication: Option<Data>,
}

#[derive(Clone, PartialEq, Message)]
struct Data {
    #[prost(bytes = "bytes", tag = "4")]
    data: Bytes,
    #[prost(uint64, tag = "6")]
    offset: u64,
}

pub(crate) fn run() {
    let connect = Connect {
        token: "eyJhbGciOiJIUzI1NiJ9".repeat(8),
        name: "js".to_owned(),
        version: "5.2.2".to_owned(),
        ..Connect::default()
    };
    let subscribe = Subscribe {
        channel: "news:sport".to_owned(),
        recover: true,
        epoch: "xyzw".to_owned(),
        offset: 1234,
        positioned: true,
        ..Subscribe::default()
    };
    let publish = |data: &str| Publish {
        channel: "news:sport".to_owned(),
        data: Bytes::from(data.to_owned()),
    };
    let command = Command {
        id: 1,
        ..Command::default()
    };
    for (name, command) in [
        (
            "Protobuf connect",
            Command {
                connect: Some(connect),
                ..command.clone()
            },
        ),
        (
            "Protobuf subscribe",
            Command {
                subscribe: Some(subscribe),
                ..command.clone()
            },
        ),
        (
            "Protobuf publish 100 B",
            Command {
                publish: Some(publish(TICK)),
                ..command.clone()
            },
        ),
        (
            "Protobuf publish 1 KiB",
            Command {
                publish: Some(publish(&article())),
                ..command
            },
        ),
    ] {
        let message = Bytes::from(command.encode_length_delimited_to_vec());
        case(name, OURS, 500, 1, || {
            for command in WireFormat::Protobuf.decode(black_box(&message)) {
                assert!(black_box(command).is_ok(), "{name}: ours");
            }
        });
        case(name, "prost", 500, 1, || {
            let command = Command::decode_length_delimited(black_box(message.clone()));
            assert!(black_box(command).is_ok(), "{name}: prost");
        });
    }

    publication("Protobuf publication 100 B", TICK);
    publication("Protobuf publication 1 KiB", article().leak());
}

fn publication(name: &str, data: &'static str) {
    let mut out = Vec::with_capacity(2 * data.len());
    encode_publication(name, WireFormat::Protobuf, data, &mut out);
    let expected = out.clone();
    let reply = Reply {
        push: Some(Pushed {
            channel: CHANNEL.to_owned(),
            publication: Some(Data {
                data: Bytes::from(data),
                offset: OFFSET,
            }),
        }),
    };
    case(name, "prost", 500, 1, || {
        out.clear();
        let written = black_box(&reply).encode_length_delimited(&mut out);
        black_box(written.is_ok());
    });
    assert_eq!(out, expected, "both write the same");
}
