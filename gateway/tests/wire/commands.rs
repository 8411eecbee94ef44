//! Commands: what the Protobuf decoder reads is what the schema says, and what the JSON decoder
//! reads of the same command.

use fastrand::Rng;
use flux_gateway::protocol::protobuf::Malformed;
use flux_gateway::protocol::{Command, DecodeError, Request, WireFormat, protobuf};
use proptest::prelude::*;
use prost_reflect::DynamicMessage;
use prost_reflect::prost::Message as _;
use prost_reflect::prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, skip_field,
};

use crate::schema::{message, random, to_json};

/// A map has no order.
fn ordered(mut command: Command<'_>) -> Command<'_> {
    if let Some(Request::Connect(connect)) = &mut command.request {
        connect.subs.sort_by(|a, b| a.0.cmp(&b.0));
    }
    command
}

fn decode(format: WireFormat, bytes: &[u8]) -> Result<Vec<Command<'_>>, DecodeError> {
    format
        .decode(bytes)
        .map(|command| command.map(ordered))
        .collect()
}

fn some_commands(seed: u64) -> (Vec<u8>, String) {
    let mut rng = Rng::with_seed(seed);
    let (mut bytes, mut lines) = (Vec::new(), Vec::new());
    for _ in 0..rng.usize(1..4) {
        let command = random(&message("Command"), &mut rng, 5);
        command
            .encode_length_delimited(&mut bytes)
            .expect("there is room");
        lines.push(to_json(&command).expect("its bytes are JSON"));
    }
    (bytes, lines.join("\n"))
}

/// Whether a connect request has a map (3 or 6) that is not written as messages are. The library takes whatever
/// stands there for an entry; by the format it is a field of which nothing is known.
fn has_map_of_another_kind(command: &[u8]) -> Option<bool> {
    for connect in fields(command, &[4])?.into_iter().flatten() {
        if fields(connect, &[3, 6])?.contains(&None) {
            return Some(true);
        }
    }
    Some(false)
}

/// What stands in the fields with these numbers; `None` for one that has no length before it.
fn fields<'a>(mut rest: &'a [u8], numbers: &[u32]) -> Option<Vec<Option<&'a [u8]>>> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (number, kind) = decode_key(&mut rest).ok()?;
        let mut value = None;
        if kind == WireType::LengthDelimited {
            let mut behind = rest;
            let len = decode_varint(&mut behind).ok()? as usize;
            value = behind.get(..len);
        }
        skip_field(kind, number, &mut rest, DecodeContext::default()).ok()?;
        if numbers.contains(&number) {
            found.push(value);
        }
    }
    Some(found)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_command_is_the_same_in_both_formats(seed: u64) {
        let (bytes, lines) = some_commands(seed);
        let ours = decode(WireFormat::Protobuf, &bytes);
        prop_assert!(ours.is_ok(), "{:?}", ours);
        prop_assert_eq!(ours, decode(WireFormat::Json, lines.as_bytes()), "{}", lines);
    }

    #[test]
    fn a_connect_request_that_stands_alone_is_the_same_in_both_formats(seed: u64) {
        let request = random(&message("ConnectRequest"), &mut Rng::with_seed(seed), 3);
        let (bytes, json) = (request.encode_to_vec(), to_json(&request).expect("JSON"));
        let ours = WireFormat::Protobuf.decode_connect_request(&bytes);
        let theirs = WireFormat::Json.decode_connect_request(json.as_bytes());
        let command = |request| ordered(Command { id: 1, request: Some(Request::Connect(request)) });
        prop_assert_eq!(ours.map(command), theirs.map(command));
    }

    /// Among the changed bytes are messages in pieces, fields of the wrong kind and numbers of the
    /// wrong size.
    #[test]
    fn a_changed_command_is_what_the_schema_takes_it_for(seed: u64, changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4), twice: bool) {
        let mut rng = Rng::with_seed(seed);
        let mut body = random(&message("Command"), &mut rng, 4).encode_to_vec();
        if twice {
            body.extend(random(&message("Command"), &mut rng, 4).encode_to_vec());
        }
        for (at, byte) in changes {
            if !body.is_empty() {
                let at = at % body.len();
                body[at] = byte;
            }
        }
        let mut bytes = Vec::new();
        prost_reflect::prost::encoding::encode_varint(body.len() as u64, &mut bytes);
        bytes.extend_from_slice(&body);
        let ours = decode(WireFormat::Protobuf, &bytes);
        // Where the library takes it, so do we, and for the same. The reverse need not be: what is
        // stepped over is not looked into.
        let Ok(theirs) = DynamicMessage::decode(message("Command"), &*body) else {
            return Ok(());
        };
        if ours == Err(DecodeError::Protobuf(Malformed::Field)) {
            // A group, which the library steps over.
            return Ok(());
        }
        if has_map_of_another_kind(&body) == Some(true) {
            return Ok(());
        }
        prop_assert!(ours.is_ok(), "{:?} of {:?}", ours, theirs);
        let Some(json) = to_json(&theirs) else { return Ok(()) };
        // The library keeps one entry a key, we keep all that were sent.
        let has_subs = matches!(ours.as_deref(), Ok([Command { request: Some(Request::Connect(connect)), .. }]) if !connect.subs.is_empty());
        if !has_subs {
            prop_assert_eq!(&ours, &decode(WireFormat::Json, json.as_bytes()), "{}", json);
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>) {
        for format in [WireFormat::Json, WireFormat::Protobuf] {
            let commands = format.decode(&bytes).count();
            prop_assert!(commands <= bytes.len() + 1);
            let _ = format.decode_connect_request(&bytes);
        }
        let _ = protobuf::decode_emulation(&bytes);
    }

    #[test]
    fn a_command_cut_short_is_refused(seed: u64, end: usize) {
        let mut rng = Rng::with_seed(seed);
        let body = random(&message("Command"), &mut rng, 4);
        let bytes = body.encode_length_delimited_to_vec();
        let end = end % bytes.len();
        prop_assert!(decode(WireFormat::Protobuf, &bytes[..end]).is_err());
    }
}

#[test]
fn a_map_of_another_kind_is_stepped_over_as_what_it_is() {
    // The headers of a connect request, field 6, as a number, and behind it a token.
    let body = b"\x22\x07\x30\x05\x0a\x03abc";
    assert_eq!(has_map_of_another_kind(body), Some(true));
    let bytes = [&[body.len() as u8], &body[..]].concat();
    let commands = decode(WireFormat::Protobuf, &bytes).expect("of the schema");
    let Some(Request::Connect(connect)) = &commands[0].request else {
        panic!("a connect");
    };
    assert_eq!(connect.token, "abc");
}

#[test]
fn a_message_is_as_long_as_its_commands() {
    let (bytes, _) = some_commands(7);
    let mut rest = &bytes[..];
    let mut count = 0;
    while !rest.is_empty() {
        let len = decode_varint(&mut rest).expect("a length") as usize;
        rest = &rest[len..];
        count += 1;
    }
    assert_eq!(
        decode(WireFormat::Protobuf, &bytes).map(|c| c.len()),
        Ok(count)
    );
}

#[test]
fn the_seeds_of_the_fuzz_targets_are_commands() {
    for (folder, format) in [
        ("json_command", WireFormat::Json),
        ("protobuf_command", WireFormat::Protobuf),
    ] {
        let folder = format!("{}/fuzz/seeds/{folder}", env!("CARGO_MANIFEST_DIR"));
        for seed in std::fs::read_dir(folder).expect("the seeds") {
            let path = seed.expect("a seed").path();
            let bytes = std::fs::read(&path).expect("a file");
            let commands = decode(format, &bytes);
            assert!(commands.is_ok(), "{}: {commands:?}", path.display());
        }
    }
}
