//! Promise: the frame codec reads and writes RFC 6455, as tungstenite does, however the bytes are cut.

#![allow(
    clippy::print_stdout,
    reason = "the seed belongs to the report of a failure"
)]

mod client_frames;

use std::io::{self, Cursor, Read, Write};

use client_frames::{
    BINARY, CLOSE, CONTINUATION, ClientFrame, Length, PING, PONG, Seen, TEXT, decode, decode_whole,
    write_header,
};
use fastrand::Rng;
use flux_gateway::websocket::{
    CloseCode, CloseReason, Decoder, Limits, Opcode, close_frame, frame_into,
};
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode as TheirCode, Data, OpCode};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

fn seeded(name: &str) -> Rng {
    let seed = fastrand::u64(..);
    println!("{name}: seed {seed}");
    Rng::with_seed(seed)
}

/// What is read comes from `input`, what is written goes to `output`.
struct Pipe {
    input: Cursor<Vec<u8>>,
    output: Vec<u8>,
}

impl Pipe {
    fn new(input: Vec<u8>) -> Pipe {
        Pipe {
            input: Cursor::new(input),
            output: Vec::new(),
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn random_text(random: &mut Rng, chars_max: usize) -> String {
    let len = random.usize(..=chars_max);
    std::iter::repeat_with(|| match random.u8(..6) {
        0 => random.char('\u{80}'..='\u{7ff}'),
        1 => random.char('\u{800}'..='\u{d7ff}'),
        2 => random.char('\u{10000}'..='\u{10ffff}'),
        _ => random.char(' '..='~'),
    })
    .take(len)
    .collect()
}

fn random_bytes(random: &mut Rng, len_max: usize) -> Vec<u8> {
    let len = random.usize(..=len_max);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

/// Decodes with random cuts: whole, single bytes, or pieces around a random size.
fn decode_cut(random: &mut Rng, bytes: &[u8], limits: &Limits) -> Vec<Seen> {
    let piece = [1, 2, 7, 64, 4096, usize::MAX - 1][random.usize(..6)];
    decode(&mut Decoder::new(), bytes, limits, || {
        if piece < 2 {
            1
        } else {
            random.usize(1..=piece)
        }
    })
}

#[test]
fn examples_of_the_rfc() {
    let masked_hello = [
        0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    assert_eq!(decode_whole(&masked_hello), [Seen::Text("Hello".into())]);
    let masked_pong = [
        0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    assert_eq!(decode_whole(&masked_pong), [Seen::Pong(b"Hello".to_vec())]);
    let unmasked_hello = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(
        decode_whole(&unmasked_hello),
        [Seen::Failed(CloseReason::Unmasked)]
    );

    // Fragmented, with a ping in between, and messages of the lengths that change the header.
    let mut bytes = ClientFrame::fragment(TEXT, b"Hel").bytes();
    ClientFrame::new(PING, b"?").write(&mut bytes);
    ClientFrame::new(CONTINUATION, b"lo").write(&mut bytes);
    let mut expected = vec![Seen::Ping(b"?".to_vec()), Seen::Text("Hello".into())];
    for len in [0, 1, 125, 126, 127, 255, 256, 65_535, 65_536] {
        let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
        ClientFrame::new(BINARY, &payload).write(&mut bytes);
        expected.push(Seen::Binary(payload));
    }
    ClientFrame::new(CLOSE, b"\x03\xe8bye").write(&mut bytes);
    expected.push(Seen::Close(Some(1000), "bye".into()));
    ClientFrame::new(TEXT, b"too late").write(&mut bytes);
    assert_eq!(decode_whole(&bytes), expected);
    assert_eq!(
        decode(&mut Decoder::new(), &bytes, &Limits::default(), || 1),
        expected
    );
}

#[test]
fn each_broken_rule_has_its_reason() {
    let frame = |opcode, payload: &[u8]| ClientFrame::new(opcode, payload);
    let fragment = ClientFrame::fragment;
    let claim = |first, length, claimed| {
        let mut bytes = Vec::new();
        write_header(&mut bytes, first, Some([1, 2, 3, 4]), length, claimed);
        bytes
    };
    let reserved = |bits| {
        ClientFrame {
            reserved: bits,
            ..frame(TEXT, b"x")
        }
        .bytes()
    };
    let opcode = |opcode| frame(opcode, b"x").bytes();
    let close = |payload: &[u8]| frame(CLOSE, payload).bytes();
    let after_fragment = |next: ClientFrame| [fragment(TEXT, b"x").bytes(), next.bytes()].concat();
    let cases: Vec<(Vec<u8>, CloseReason, u16)> = vec![
        (reserved(4), CloseReason::ReservedBits, 1002),
        (reserved(2), CloseReason::ReservedBits, 1002),
        (reserved(1), CloseReason::ReservedBits, 1002),
        (opcode(3), CloseReason::ReservedOpcode, 1002),
        (opcode(7), CloseReason::ReservedOpcode, 1002),
        (opcode(11), CloseReason::ReservedOpcode, 1002),
        (opcode(15), CloseReason::ReservedOpcode, 1002),
        (
            ClientFrame {
                key: None,
                ..frame(TEXT, b"x")
            }
            .bytes(),
            CloseReason::Unmasked,
            1002,
        ),
        (
            ClientFrame {
                key: None,
                ..frame(PING, b"")
            }
            .bytes(),
            CloseReason::Unmasked,
            1002,
        ),
        (
            frame(PING, &[0; 126]).bytes(),
            CloseReason::ControlTooLong,
            1002,
        ),
        (
            frame(CLOSE, &[3; 70_000]).bytes(),
            CloseReason::ControlTooLong,
            1002,
        ),
        (
            fragment(PING, b"x").bytes(),
            CloseReason::ControlFragmented,
            1002,
        ),
        (
            fragment(CLOSE, b"").bytes(),
            CloseReason::ControlFragmented,
            1002,
        ),
        (
            claim(0x81, Length::TwoBytes, 125),
            CloseReason::LengthNotMinimal,
            1002,
        ),
        (
            claim(0x81, Length::EightBytes, 125),
            CloseReason::LengthNotMinimal,
            1002,
        ),
        (
            claim(0x82, Length::EightBytes, 65_535),
            CloseReason::LengthNotMinimal,
            1002,
        ),
        (
            claim(0x82, Length::EightBytes, 1 << 63),
            CloseReason::LengthTopBit,
            1002,
        ),
        (
            claim(0x82, Length::EightBytes, u64::MAX),
            CloseReason::LengthTopBit,
            1002,
        ),
        (
            frame(CONTINUATION, b"x").bytes(),
            CloseReason::UnexpectedContinuation,
            1002,
        ),
        (
            after_fragment(frame(TEXT, b"y")),
            CloseReason::ExpectedContinuation,
            1002,
        ),
        (
            after_fragment(fragment(BINARY, b"y")),
            CloseReason::ExpectedContinuation,
            1002,
        ),
        (
            claim(0x82, Length::EightBytes, 65_537),
            CloseReason::MessageTooBig,
            1009,
        ),
        (
            claim(0x82, Length::EightBytes, 1 << 30),
            CloseReason::MessageTooBig,
            1009,
        ),
        (
            claim(0x82, Length::EightBytes, (1 << 63) - 1),
            CloseReason::MessageTooBig,
            1009,
        ),
        (
            after_fragment(frame(CONTINUATION, &[b'x'; 65_536])),
            CloseReason::MessageTooBig,
            1009,
        ),
        (frame(TEXT, b"\xff").bytes(), CloseReason::InvalidUtf8, 1007),
        (
            frame(TEXT, b"a\xce").bytes(),
            CloseReason::InvalidUtf8,
            1007,
        ),
        (
            frame(TEXT, b"\xed\xa0\x80").bytes(),
            CloseReason::InvalidUtf8,
            1007,
        ),
        (
            after_fragment(frame(CONTINUATION, b"\xce")),
            CloseReason::InvalidUtf8,
            1007,
        ),
        (close(b"\x03"), CloseReason::ClosePayloadTooShort, 1002),
        (
            close(&1005u16.to_be_bytes()),
            CloseReason::CloseCodeInvalid,
            1002,
        ),
        (
            close(&5000u16.to_be_bytes()),
            CloseReason::CloseCodeInvalid,
            1002,
        ),
        (
            close(b"\x03\xe8\xff"),
            CloseReason::CloseReasonNotUtf8,
            1007,
        ),
    ];
    for (bytes, reason, code) in cases {
        assert_eq!(reason.code().get(), code);
        let mut followed = bytes.clone();
        ClientFrame::new(PING, b"ignored").write(&mut followed);
        for piece in [1, 3, usize::MAX] {
            let seen = decode(&mut Decoder::new(), &followed, &Limits::default(), || piece);
            assert_eq!(
                seen,
                [Seen::Failed(reason)],
                "{:x?} in pieces of {piece}",
                &bytes[..bytes.len().min(20)]
            );
        }
    }
}

#[test]
fn invalid_text_is_refused_before_its_frame_or_message_has_ended() {
    // A frame that claims more than what comes; the byte after "κόσμε" cannot begin a character.
    let mut bytes = Vec::new();
    write_header(&mut bytes, 0x81, Some([0; 4]), Length::Minimal, 100);
    bytes.extend("κόσμε".as_bytes());
    assert_eq!(decode_whole(&bytes), []);
    bytes.extend(b"\xf4");
    assert_eq!(decode_whole(&bytes), []);
    bytes.extend(b"\x90");
    assert_eq!(
        decode_whole(&bytes),
        [Seen::Failed(CloseReason::InvalidUtf8)]
    );
    assert_eq!(
        decode(&mut Decoder::new(), &bytes, &Limits::default(), || 1),
        [Seen::Failed(CloseReason::InvalidUtf8)]
    );

    // The first half of a character in one fragment, no second half in the next; the message stays open.
    let mut bytes = ClientFrame::fragment(TEXT, b"a\xf0\x9f").bytes();
    ClientFrame::new(PING, b"").write(&mut bytes);
    ClientFrame::fragment(CONTINUATION, b"\x98z").write(&mut bytes);
    assert_eq!(
        decode_whole(&bytes),
        [Seen::Ping(vec![]), Seen::Failed(CloseReason::InvalidUtf8)]
    );
}

#[test]
fn a_connection_is_idle_again_after_each_kind_of_message() {
    let mut decoder = Decoder::new();
    let mut bytes = ClientFrame::fragment(TEXT, b"one").bytes();
    ClientFrame::new(PONG, &[0; 125]).write(&mut bytes);
    ClientFrame::new(CONTINUATION, b"two").write(&mut bytes);
    ClientFrame::new(BINARY, &[0; 5000]).write(&mut bytes);
    for piece in [1, 9, usize::MAX] {
        assert_eq!(
            decode(&mut decoder, &bytes, &Limits::default(), || piece).len(),
            3
        );
        assert!(decoder.is_idle() && decoder.heap_bytes() == 0);
    }
    ClientFrame::new(CLOSE, b"").write(&mut bytes);
    decode(&mut decoder, &bytes, &Limits::default(), || 1);
    assert!(decoder.is_closed());
}

#[test]
fn messages_of_tungstenite_arrive_as_they_were_sent() {
    let mut random = seeded("tungstenite sends");
    for _ in 0..300 {
        let mut client = WebSocket::from_raw_socket(Pipe::new(Vec::new()), Role::Client, None);
        let mut expected = Vec::new();
        for _ in 0..random.usize(1..12) {
            match random.u8(..5) {
                0 => {
                    let payload = random_bytes(&mut random, 125);
                    client
                        .send(Message::Ping(payload.clone().into()))
                        .expect("sent");
                    expected.push(Seen::Ping(payload));
                }
                1 => {
                    let text = random_text(&mut random, 300);
                    client.send(Message::text(text.as_str())).expect("sent");
                    expected.push(Seen::Text(text));
                }
                2 => {
                    let payload = random_bytes(&mut random, 65_536);
                    client.send(Message::binary(payload.clone())).expect("sent");
                    expected.push(Seen::Binary(payload));
                }
                _ => {
                    // Fragments cut anywhere, also inside a character, with pongs in between.
                    let text = random_text(&mut random, 200);
                    let mut rest = text.as_bytes();
                    let mut opcode = OpCode::Data(Data::Text);
                    loop {
                        let (part, behind) = rest.split_at(random.usize(..=rest.len()));
                        rest = behind;
                        let last = rest.is_empty() && random.bool();
                        let frame = Frame::message(part.to_vec(), opcode, last);
                        client.send(Message::Frame(frame)).expect("sent");
                        opcode = OpCode::Data(Data::Continue);
                        if last {
                            break;
                        }
                        if random.u8(..4) == 0 {
                            client
                                .send(Message::Pong(b"p".to_vec().into()))
                                .expect("sent");
                            expected.push(Seen::Pong(b"p".to_vec()));
                        }
                    }
                    expected.push(Seen::Text(text));
                }
            }
        }
        let reason = random_text(&mut random, 30);
        client
            .close(Some(CloseFrame {
                code: TheirCode::Away,
                reason: reason.as_str().into(),
            }))
            .expect("closed");
        expected.push(Seen::Close(Some(1001), reason));
        let bytes = &client.get_ref().output;
        assert_eq!(decode_cut(&mut random, bytes, &Limits::default()), expected);
    }
}

#[test]
fn tungstenite_reads_what_is_written_here() {
    let mut random = seeded("tungstenite reads");
    for _ in 0..300 {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..random.usize(1..12) {
            match random.u8(..4) {
                0 => {
                    let text = random_text(&mut random, 300);
                    frame_into(&mut bytes, Opcode::Text, text.as_bytes());
                    expected.push(Message::text(text));
                }
                1 => {
                    let payload = random_bytes(&mut random, 70_000);
                    frame_into(&mut bytes, Opcode::Binary, &payload);
                    expected.push(Message::binary(payload));
                }
                2 => {
                    let payload = random_bytes(&mut random, 125);
                    frame_into(&mut bytes, Opcode::Ping, &payload);
                    expected.push(Message::Ping(payload.into()));
                }
                _ => {
                    let payload = random_bytes(&mut random, 125);
                    frame_into(&mut bytes, Opcode::Pong, &payload);
                    expected.push(Message::Pong(payload.into()));
                }
            }
        }
        let code =
            CloseCode::new([1000, 1001, 1012, 3008, 4999][random.usize(..5)]).expect("valid");
        let reason = random_text(&mut random, 30);
        bytes.extend(close_frame(code, &reason));
        expected.push(Message::Close(Some(CloseFrame {
            code: code.get().into(),
            reason: reason.into(),
        })));
        let mut client = WebSocket::from_raw_socket(Pipe::new(bytes), Role::Client, None);
        for message in expected {
            assert_eq!(client.read().expect("valid"), message);
        }
    }
}

/// Whole frames, some of which break a rule that tungstenite knows too.
fn random_frames(random: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut open = false;
    for _ in 0..random.usize(1..20) {
        let control = random.u8(..4) == 0;
        let opcode = match (control, open) {
            (true, _) => [PING, PONG, PING, PONG, CLOSE][random.usize(..5)],
            (false, true) => CONTINUATION,
            (false, false) => [TEXT, TEXT, BINARY][random.usize(..3)],
        };
        let payload = match opcode {
            CLOSE => {
                let code = [
                    1000,
                    1004,
                    1006,
                    1013,
                    2000,
                    3000,
                    4999,
                    5000,
                    random.u16(1..1014),
                ][random.usize(..9)];
                let mut payload = code.to_be_bytes().to_vec();
                payload.extend(random_text(random, 20).as_bytes());
                payload.truncate([0, 1, 2, 100][random.usize(..4)]);
                payload
            }
            PING | PONG => random_bytes(random, 125),
            _ => random_text(random, 60).into_bytes(),
        };
        let mut frame = ClientFrame::new(opcode, &payload);
        frame.key = Some(random.u32(..).to_be_bytes());
        if !control {
            frame.fin = random.bool();
            // Cut anywhere: the next fragment may or may not bring the rest of the character.
            if !frame.fin && random.u8(..8) == 0 {
                frame.payload.pop();
            }
            open = !frame.fin;
        }
        match random.u8(..150) {
            0 => frame.reserved = random.u8(1..8),
            1 => frame.opcode = [3, 7, 11, 15][random.usize(..4)],
            2 => frame.key = None,
            3 => frame.fin = !frame.fin,
            4 => frame.opcode = random.u8(..3),
            5 if control => frame.payload = vec![b'x'; 126],
            6 | 7 if !frame.payload.is_empty() => {
                let at = random.usize(..frame.payload.len());
                frame.payload[at] = random.u8(..);
            }
            _ => {}
        }
        frame.write(&mut bytes);
    }
    bytes
}

/// What tungstenite's server makes of it: its messages, and whether it found fault.
fn judge(bytes: &[u8], limits: &Limits) -> (Vec<Seen>, bool) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(limits.message_bytes_max))
        .max_frame_size(Some(limits.message_bytes_max));
    let mut server =
        WebSocket::from_raw_socket(Pipe::new(bytes.to_vec()), Role::Server, Some(config));
    let mut seen = Vec::new();
    loop {
        match server.read() {
            Ok(Message::Text(text)) => seen.push(Seen::Text(text.to_string())),
            Ok(Message::Binary(bytes)) => seen.push(Seen::Binary(bytes.to_vec())),
            Ok(Message::Ping(bytes)) => seen.push(Seen::Ping(bytes.to_vec())),
            Ok(Message::Pong(bytes)) => seen.push(Seen::Pong(bytes.to_vec())),
            // An invalid code is answered by itself and reported as this.
            Ok(Message::Close(Some(close))) if close.reason == "Protocol violation" => {
                return (seen, true);
            }
            Ok(Message::Close(close)) => {
                let reason = close
                    .as_ref()
                    .map_or(String::new(), |close| close.reason.to_string());
                seen.push(Seen::Close(close.map(|close| close.code.into()), reason));
                return (seen, false);
            }
            Ok(Message::Frame(_)) => unreachable!("never read"),
            // The end of the bytes is no fault of a frame.
            Err(tungstenite::Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => {
                return (seen, false);
            }
            Err(_) => return (seen, true),
        }
    }
}

#[test]
fn tungstenite_finds_the_same_faults_after_the_same_messages() {
    let mut random = seeded("tungstenite judges");
    let limits = Limits {
        message_bytes_max: 400,
        ..Limits::default()
    };
    let (mut faults, mut clean) = (0, 0);
    for round in 0..6_000 {
        let bytes = random_frames(&mut random);
        let mut seen = decode_cut(&mut random, &bytes, &limits);
        let failed = matches!(seen.last(), Some(Seen::Failed(_)));
        if failed {
            seen.pop();
        }
        assert_eq!(
            (seen, failed),
            judge(&bytes, &limits),
            "round {round}: {bytes:02x?}"
        );
        *(if failed { &mut faults } else { &mut clean }) += 1;
    }
    assert!(
        faults > 500 && clean > 500,
        "{faults} faults, {clean} clean: the generator is lopsided"
    );
}

#[test]
fn events_do_not_depend_on_how_the_bytes_are_cut() {
    let mut random = seeded("cuts");
    let limits = Limits {
        message_bytes_max: 300,
        message_fragments_max: 5,
    };
    for round in 0..20_000 {
        // Frames with damage anywhere, headers included, or plain noise that begins like a frame.
        let mut bytes = if random.bool() {
            random_frames(&mut random)
        } else {
            random_bytes(&mut random, 60)
        };
        if !bytes.is_empty() {
            for _ in 0..random.usize(..3) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            let known = [TEXT, BINARY, CONTINUATION, PING, CLOSE][random.usize(..5)];
            bytes[0] = random.u8(..2) << 7 | known;
        }
        let whole = decode(&mut Decoder::new(), &bytes, &limits, || usize::MAX);
        let single = decode(&mut Decoder::new(), &bytes, &limits, || 1);
        assert_eq!(whole, single, "round {round}: {bytes:02x?}");
        let cut = decode_cut(&mut random, &bytes, &limits);
        assert_eq!(whole, cut, "round {round}: {bytes:02x?}");
    }
}
