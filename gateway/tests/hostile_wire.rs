//! Promise: a hostile client gets the right rejection and costs little. The rows of the test campaign that concern
//! bytes alone; sockets and other clients' latency are tested elsewhere.

mod client_frames;

use std::time::{Duration, Instant};

use client_frames::{
    BINARY, CONTINUATION, ClientFrame, Length, PING, Seen, TEXT, decode, decode_whole, write_header,
};
use flux_gateway::http::{HEAD_BYTES_MAX, HeadScan, Policy, Progress, Rejection, Request};
use flux_gateway::websocket::{CloseReason, Decoder, Limits};

const HANDSHAKE: &[u8] = b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// The first verdict on a head that comes in pieces, and how many bytes it took.
fn verdict(bytes: &[u8], piece: usize) -> (Option<Request<'_>>, usize) {
    let mut scan = HeadScan::new();
    let policy = Policy::default();
    let mut end = 0;
    while end < bytes.len() {
        end = (end + piece).min(bytes.len());
        if let Progress::Complete { request, .. } = scan.advance(&bytes[..end], &policy) {
            return (Some(request), end);
        }
    }
    (None, end)
}

/// A generous bound: debug builds on a loaded machine keep it easily, quadratic work does not.
fn within_seconds(seconds: u64, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    assert!(
        start.elapsed() < Duration::from_secs(seconds),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_torn_handshake_is_waited_for_at_every_byte() {
    for cut in 0..HANDSHAKE.len() {
        assert_eq!(verdict(&HANDSHAKE[..cut], 1).0, None, "cut {cut}");
        assert_eq!(
            verdict(&HANDSHAKE[..cut], usize::MAX / 2).0,
            None,
            "cut {cut}"
        );
    }
    assert!(matches!(verdict(HANDSHAKE, 1).0, Some(Request::Upgrade(_))));
    let timeout = String::from_utf8(Rejection::HeadTimeout.answer()).expect("ascii");
    assert!(timeout.starts_with("HTTP/1.1 408 "));
}

#[test]
fn headers_of_64_kib_are_refused_at_16_kib_whatever_their_form() {
    let forms = [
        format!(
            "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
            "x".repeat(65_536)
        ),
        format!(
            "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
            format!("X: {}\r\n", "y".repeat(1000)).repeat(64)
        ),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(65_536)),
        format!("{} / HTTP/1.1\r\nHost: x\r\n\r\n", "G".repeat(65_536)),
        "\r\n".repeat(32_768),
    ];
    for bytes in &forms {
        for piece in [1, 100, 4096, 65_536] {
            let (request, taken) = verdict(bytes.as_bytes(), piece);
            assert_eq!(
                request,
                Some(Request::Rejected(Rejection::HeadTooLarge)),
                "{}",
                &bytes[..40]
            );
            assert!(taken < HEAD_BYTES_MAX + piece, "{taken}");
        }
    }
}

#[test]
fn a_head_of_single_bytes_costs_no_more_than_its_length() {
    let fields: String = (0..90)
        .map(|n| format!("Field-{n}: {}\r\n", "v".repeat(160)))
        .collect();
    let bytes = format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    assert!(bytes.len() > 15_000 && bytes.len() < HEAD_BYTES_MAX);
    within_seconds(10, || {
        for _ in 0..50 {
            assert!(matches!(
                verdict(bytes.as_bytes(), 1).0,
                Some(Request::Plain(_))
            ));
        }
    });
}

#[test]
fn what_is_no_http_is_refused_at_its_first_bytes() {
    let cases: [(&[u8], Rejection); 5] = [
        (b"\x16\x03\x01\x02\x00", Rejection::RequestLine),
        (b"\x81\x85\x37\xfa\x21\x3d", Rejection::RequestLine),
        (b"\r\n\r\n\0\r\nQUIT\n", Rejection::RequestLine),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Rejection::RequestLine),
        (b"*1\r\n$4\r\nPING\r\n", Rejection::RequestLine),
    ];
    for (bytes, rejection) in cases {
        assert_eq!(
            verdict(bytes, 64).0,
            Some(Request::Rejected(rejection)),
            "{bytes:x?}"
        );
    }
}

#[test]
fn pipelined_garbage_behind_the_handshake_ends_the_websocket_not_the_handshake() {
    let bytes = [HANDSHAKE, b"GET / HTTP/1.1\r\n\r\n"].concat();
    let Progress::Complete {
        request: Request::Upgrade(_),
        head_len,
    } = HeadScan::new().advance(&bytes, &Policy::default())
    else {
        panic!("refused")
    };
    // 'G' is FIN 0, RSV1.
    assert_eq!(
        decode_whole(&bytes[head_len..]),
        [Seen::Failed(CloseReason::ReservedBits)]
    );
}

#[test]
fn a_gibibyte_is_refused_on_its_claim() {
    for length in [65_537, 1 << 30, 1 << 62] {
        let mut bytes = Vec::new();
        write_header(
            &mut bytes,
            0x81,
            Some([1, 2, 3, 4]),
            Length::EightBytes,
            length,
        );
        // Two bytes and the length are enough.
        assert_eq!(decode_whole(&bytes[..9]), []);
        assert_eq!(
            decode_whole(&bytes[..10]),
            [Seen::Failed(CloseReason::MessageTooBig)]
        );
    }
}

#[test]
fn a_million_fragments_end_in_bounded_time() {
    within_seconds(20, || {
        for (payload, reason) in [
            (&[b'x'; 64][..], CloseReason::MessageTooBig),
            (b"x", CloseReason::TooManyFragments),
            (b"", CloseReason::TooManyFragments),
        ] {
            let mut bytes = ClientFrame::fragment(TEXT, payload).bytes();
            bytes.extend(
                ClientFrame::fragment(CONTINUATION, payload)
                    .bytes()
                    .repeat(1_000_000),
            );
            assert_eq!(decode_whole(&bytes), [Seen::Failed(reason)]);
        }
    });
}

#[test]
fn control_frames_amid_fragments_are_answered_at_once_and_disturb_nothing() {
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for (at, character) in "für κόσμε 😀".char_indices() {
        let mut utf8 = [0; 4];
        for byte in character.encode_utf8(&mut utf8).bytes() {
            let opcode = if bytes.is_empty() { TEXT } else { CONTINUATION };
            ClientFrame::fragment(opcode, &[byte]).write(&mut bytes);
            ClientFrame::new(PING, &[at as u8; 125]).write(&mut bytes);
            expected.push(Seen::Ping(vec![at as u8; 125]));
        }
    }
    ClientFrame::new(CONTINUATION, b"").write(&mut bytes);
    expected.push(Seen::Text("für κόσμε 😀".into()));
    for piece in [1, 5, usize::MAX] {
        assert_eq!(
            decode(&mut Decoder::new(), &bytes, &Limits::default(), || piece),
            expected
        );
    }
}

#[test]
fn bad_utf8_split_over_frames_is_refused_at_the_byte_that_shows_it() {
    // "€" with its last byte replaced: two fragments are fine, the third is not.
    let mut bytes = ClientFrame::fragment(TEXT, b"\xe2").bytes();
    ClientFrame::fragment(CONTINUATION, b"\x82").write(&mut bytes);
    assert_eq!(decode_whole(&bytes), []);
    ClientFrame::fragment(CONTINUATION, b"A").write(&mut bytes);
    assert_eq!(
        decode_whole(&bytes),
        [Seen::Failed(CloseReason::InvalidUtf8)]
    );
}

#[test]
fn large_messages_of_single_bytes_cost_no_more_than_their_length() {
    let text = "κόσμε ".repeat(65_536 / 11);
    within_seconds(20, || {
        for opcode in [TEXT, BINARY] {
            let bytes = ClientFrame::new(opcode, text.as_bytes()).bytes().repeat(10);
            let seen = decode(&mut Decoder::new(), &bytes, &Limits::default(), || 1);
            assert_eq!(seen.len(), 10);
        }
    });
}

#[test]
fn nothing_is_heard_after_the_end() {
    let mut decoder = Decoder::new();
    let limits = Limits::default();
    assert_eq!(
        decode(&mut decoder, &[0xff, 0xff], &limits, || 2),
        [Seen::Failed(CloseReason::ReservedBits)]
    );
    let later = ClientFrame::new(TEXT, b"x").bytes().repeat(100);
    assert_eq!(decode(&mut decoder, &later, &limits, || 1), []);
    assert_eq!(decoder.heap_bytes(), 0);
}
