//! Promise: a request head becomes an upgrade, a page or a named rejection, as RFC 9112 and RFC 6455 §4 say, however
//! its bytes are cut.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints its seed"
)]

use fastrand::Rng;
use flux_gateway::http::{
    AllowedOrigins, Endpoint, HEAD_BYTES_MAX, HEAD_FIELDS_MAX, HeadScan, Page, Plain, Policy,
    Progress, Rejection, Request, Subprotocol, Transports,
};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const UPGRADE: [&str; 5] = [
    "Host: server.example.com",
    "Upgrade: websocket",
    "Connection: Upgrade",
    KEY,
    "Sec-WebSocket-Version: 13",
];

fn policy() -> Policy {
    Policy {
        transports: Transports::default(),
        kept_headers: Vec::new(),
        origins: AllowedOrigins::new(&["https://*.example.com"]).expect("valid"),
        echo: true,
    }
}

fn head(request_line: &str, fields: &[&str]) -> Vec<u8> {
    format!(
        "{request_line}\r\n{}\r\n",
        fields
            .iter()
            .map(|field| format!("{field}\r\n"))
            .collect::<String>()
    )
    .into_bytes()
}

/// A valid handshake whose field at `index` is replaced (by none, one or several).
fn upgrade_with(index: usize, replacement: &[&str]) -> Vec<u8> {
    let mut fields = UPGRADE.to_vec();
    fields.splice(index..=index, replacement.iter().copied());
    head("GET /connection/websocket HTTP/1.1", &fields)
}

fn upgrade_and(more: &[&str]) -> Vec<u8> {
    head(
        "GET /connection/websocket HTTP/1.1",
        &[&UPGRADE, more].concat(),
    )
}

/// The verdict in comparable form, with the length of the head.
fn verdict(bytes: &[u8], mut next_len: impl FnMut() -> usize) -> Option<(String, usize)> {
    let mut scan = HeadScan::new();
    let mut end = 0;
    while end < bytes.len() {
        end += next_len().clamp(1, bytes.len() - end);
        if let Progress::Complete { request, head_len } = scan.advance(&bytes[..end], &policy()) {
            return Some((format!("{request:?}"), head_len));
        }
    }
    None
}

/// The request, read whole and byte by byte.
fn read(bytes: &[u8]) -> Request<'_> {
    let whole = verdict(bytes, || usize::MAX);
    assert_eq!(
        whole,
        verdict(bytes, || 1),
        "{}",
        String::from_utf8_lossy(bytes)
    );
    match HeadScan::new().advance(bytes, &policy()) {
        Progress::Complete { request, .. } => request,
        Progress::Incomplete => panic!("incomplete: {}", String::from_utf8_lossy(bytes)),
    }
}

#[test]
fn the_handshake_of_the_rfc_is_answered_as_in_the_rfc() {
    let bytes = head(
        "GET /connection/websocket?cf_ws_frame_ping_pong=true&sid=s%2F1 HTTP/1.1",
        &[
            &UPGRADE[..],
            &[
                "Origin: https://www.example.com",
                "Sec-WebSocket-Protocol: chat, centrifuge-json",
            ],
        ]
        .concat(),
    );
    let Request::Upgrade(upgrade) = read(&bytes) else {
        panic!("refused")
    };
    assert_eq!(upgrade.endpoint, Endpoint::Centrifuge);
    assert_eq!(upgrade.subprotocol, Some(Subprotocol::CentrifugeJson));
    assert_eq!(upgrade.origin, Some("https://www.example.com"));
    assert_eq!(upgrade.host, "server.example.com");
    assert_eq!(upgrade.sid.as_deref(), Some("s/1"));
    assert_eq!(upgrade.query, "cf_ws_frame_ping_pong=true&sid=s%2F1");
    let mut answer = Vec::new();
    upgrade.answer_into(&mut answer);
    assert_eq!(
        String::from_utf8(answer).expect("ascii"),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: centrifuge-json\r\n\r\n"
    );
}

#[test]
fn variations_that_the_rfcs_allow_are_upgraded() {
    let cases = [
        upgrade_with(1, &["uPGRADE: WebSocket"]),
        upgrade_with(1, &["Upgrade: h2c, websocket"]),
        upgrade_with(1, &["Upgrade: h2c", "Upgrade: websocket"]),
        upgrade_with(2, &["Connection: keep-alive, Upgrade"]),
        upgrade_with(2, &["Connection: keep-alive", "connection: ,uPgRaDe ,"]),
        upgrade_with(4, &["Sec-WebSocket-Version:13\t "]),
        upgrade_with(0, &["Host: [2001:db8::1]:8001"]),
        upgrade_and(&["Origin: https://a.b.example.com"]),
        upgrade_and(&["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"]),
        upgrade_and(&["Content-Length: 0"]),
        upgrade_and(&[
            "X-Empty:",
            "X-Latin: caf\u{e9}",
            "Cookie: a=b",
            "Cookie: flux_sid=c",
        ]),
        head(
            "GET http://server.example.com/connection/websocket?x HTTP/1.1",
            &UPGRADE,
        ),
        [b"\r\n\r\n", &upgrade_and(&[])[..]].concat(),
    ];
    for bytes in cases {
        let request = read(&bytes);
        assert!(
            matches!(request, Request::Upgrade(_)),
            "{request:?}: {}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

#[test]
fn a_subprotocol_is_chosen_only_when_it_is_offered_and_spoken() {
    let cases: [(&[&str], Option<Subprotocol>); 8] = [
        (&[], None),
        // The Python SDK in JSON mode.
        (&["Sec-WebSocket-Protocol:"], None),
        (
            &["Sec-WebSocket-Protocol: centrifuge-json"],
            Some(Subprotocol::CentrifugeJson),
        ),
        (&["Sec-WebSocket-Protocol: centrifuge-xml"], None),
        (
            &["Sec-WebSocket-Protocol: centrifuge-protobuf"],
            Some(Subprotocol::CentrifugeProtobuf),
        ),
        (
            &["Sec-WebSocket-Protocol: centrifuge-protobuf,centrifuge-json"],
            Some(Subprotocol::CentrifugeProtobuf),
        ),
        (
            &[
                "Sec-WebSocket-Protocol: a",
                "Sec-WebSocket-Protocol: centrifuge-json",
            ],
            Some(Subprotocol::CentrifugeJson),
        ),
        (&["Sec-WebSocket-Protocol: Centrifuge-JSON"], None),
    ];
    for (fields, expected) in cases {
        let bytes = upgrade_and(fields);
        let Request::Upgrade(upgrade) = read(&bytes) else {
            panic!("{fields:?}")
        };
        assert_eq!(upgrade.subprotocol, expected, "{fields:?}");
        let mut answer = Vec::new();
        upgrade.answer_into(&mut answer);
        let named = String::from_utf8(answer)
            .expect("ascii")
            .contains("Sec-WebSocket-Protocol");
        assert_eq!(named, expected.is_some());
    }
}

#[test]
fn the_affinity_key_comes_from_the_query_before_the_cookie() {
    let cookie = "Cookie: theme=dark; flux_sid=from-cookie";
    let sid = |target: &str| {
        let bytes = head(
            &format!("GET {target} HTTP/1.1"),
            &[&UPGRADE[..], &[cookie]].concat(),
        );
        match read(&bytes) {
            Request::Upgrade(upgrade) => upgrade.sid.map(|sid| sid.into_owned()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(sid("/connection/websocket").as_deref(), Some("from-cookie"));
    assert_eq!(
        sid("/connection/websocket?sid=from-query&sid=second").as_deref(),
        Some("from-query")
    );
    assert_eq!(sid("/echo?x=1&sid=").as_deref(), Some("from-cookie"));
}

#[test]
fn each_fault_has_its_reason_and_status() {
    let get = |target: &str| head(&format!("GET {target} HTTP/1.1"), &["Host: x"]);
    let line = |line: &str| head(line, &["Host: x"]);
    let field = |field: &str| head("GET / HTTP/1.1", &["Host: x", field]);
    let many: Vec<&str> = std::iter::repeat_n("X: y", HEAD_FIELDS_MAX + 1).collect();
    let cases: Vec<(Vec<u8>, Rejection, u16)> = vec![
        // Not HTTP.
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            Rejection::RequestLine,
            400,
        ),
        (b"\0\0\0\0".to_vec(), Rejection::RequestLine, 400),
        (line("GET  / HTTP/1.1"), Rejection::RequestLine, 400),
        (line(" GET / HTTP/1.1"), Rejection::RequestLine, 400),
        (line("G{T / HTTP/1.1"), Rejection::RequestLine, 400),
        (line("GET /a b HTTP/1.1"), Rejection::HttpVersion, 505),
        (line("GET / HTTP/2.0"), Rejection::HttpVersion, 505),
        (line("GET / HTTP/1.2"), Rejection::HttpVersion, 505),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            Rejection::HttpVersion,
            505,
        ),
        (line("GET * HTTP/1.1"), Rejection::Target, 400),
        (line("CONNECT x:80 HTTP/1.1"), Rejection::Target, 400),
        (line("GET ftp://x/ HTTP/1.1"), Rejection::Target, 400),
        (line("GET http://user@x/ HTTP/1.1"), Rejection::Host, 400),
        // Lines and fields.
        (
            b"GET / HTTP/1.1\nHost: x\n\n".to_vec(),
            Rejection::LineEnding,
            400,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\n\r\n".to_vec(),
            Rejection::LineEnding,
            400,
        ),
        (
            b"\n\nGET / HTTP/1.1\r\n".to_vec(),
            Rejection::LineEnding,
            400,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\rY: z\r\n\r\n".to_vec(),
            Rejection::Field,
            400,
        ),
        (field("Folded: a\r\n b"), Rejection::Field, 400),
        (field("Folded: a\r\n\tb"), Rejection::Field, 400),
        (field("Nul: a\0b"), Rejection::Field, 400),
        (field("Space : a"), Rejection::Field, 400),
        (field(": a"), Rejection::Field, 400),
        (field("No colon"), Rejection::Field, 400),
        (field("B\u{e4}d: a"), Rejection::Field, 400),
        (head("GET / HTTP/1.1", &many), Rejection::TooManyFields, 431),
        (
            field(&format!("Long: {}", "x".repeat(HEAD_BYTES_MAX))),
            Rejection::HeadTooLarge,
            431,
        ),
        (vec![b'\n'; 1], Rejection::LineEnding, 400),
        (b"\r\n".repeat(HEAD_BYTES_MAX), Rejection::HeadTooLarge, 431),
        (
            line(&format!("GET /{} HTTP/1.1", "x".repeat(HEAD_BYTES_MAX))),
            Rejection::HeadTooLarge,
            431,
        ),
        // Host.
        (head("GET / HTTP/1.1", &["X: y"]), Rejection::Host, 400),
        (head("GET / HTTP/1.1", &["Host:"]), Rejection::Host, 400),
        (head("GET / HTTP/1.1", &["Host: a/b"]), Rejection::Host, 400),
        (head("GET / HTTP/1.1", &["Host: a b"]), Rejection::Host, 400),
        (
            head("GET / HTTP/1.1", &["Host: a", "host: a"]),
            Rejection::DuplicateField,
            400,
        ),
        // Where to.
        (get("/connection/websocket/"), Rejection::NotFound, 404),
        (get("/favicon.ico"), Rejection::NotFound, 404),
        (get("/%6Cive"), Rejection::NotFound, 404),
        (line("POST / HTTP/1.1"), Rejection::PageMethod, 405),
        (
            head("POST /connection/websocket HTTP/1.1", &UPGRADE),
            Rejection::UpgradeMethod,
            405,
        ),
        (
            head("HEAD /echo HTTP/1.1", &UPGRADE),
            Rejection::UpgradeMethod,
            405,
        ),
        (
            head("get /echo HTTP/1.1", &UPGRADE),
            Rejection::UpgradeMethod,
            405,
        ),
        // Bodies.
        (field("Content-Length: 5"), Rejection::Body, 413),
        (field("Content-Length: -1"), Rejection::Body, 413),
        (upgrade_and(&["Content-Length: 5"]), Rejection::Body, 413),
        (
            upgrade_and(&["Transfer-Encoding: chunked"]),
            Rejection::Body,
            413,
        ),
        (
            upgrade_and(&["Content-Length: 0", "Content-Length: 0"]),
            Rejection::DuplicateField,
            400,
        ),
        // The handshake.
        (get("/connection/websocket"), Rejection::UpgradeMissing, 426),
        (upgrade_with(1, &[]), Rejection::UpgradeMissing, 426),
        (
            upgrade_with(1, &["Upgrade: websockets"]),
            Rejection::UpgradeMissing,
            426,
        ),
        (
            upgrade_with(1, &["Upgrade: h2c"]),
            Rejection::UpgradeMissing,
            426,
        ),
        (
            head("GET /echo HTTP/1.0", &UPGRADE),
            Rejection::HttpVersion,
            505,
        ),
        (upgrade_with(2, &[]), Rejection::ConnectionField, 400),
        (
            upgrade_with(2, &["Connection: keep-alive"]),
            Rejection::ConnectionField,
            400,
        ),
        (
            upgrade_with(2, &["Connection: upgraded"]),
            Rejection::ConnectionField,
            400,
        ),
        (upgrade_with(4, &[]), Rejection::WebSocketVersion, 426),
        (
            upgrade_with(4, &["Sec-WebSocket-Version: 8"]),
            Rejection::WebSocketVersion,
            426,
        ),
        (
            upgrade_with(4, &["Sec-WebSocket-Version: 13, 8"]),
            Rejection::WebSocketVersion,
            426,
        ),
        (
            upgrade_with(4, &["Sec-WebSocket-Version: 013"]),
            Rejection::WebSocketVersion,
            426,
        ),
        (
            upgrade_and(&["Sec-WebSocket-Version: 13"]),
            Rejection::DuplicateField,
            400,
        ),
        (upgrade_with(3, &[]), Rejection::WebSocketKey, 400),
        (
            upgrade_with(3, &["Sec-WebSocket-Key:"]),
            Rejection::WebSocketKey,
            400,
        ),
        (
            upgrade_with(3, &["Sec-WebSocket-Key: AAAA"]),
            Rejection::WebSocketKey,
            400,
        ),
        (
            upgrade_with(3, &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"]),
            Rejection::WebSocketKey,
            400,
        ),
        (upgrade_and(&[KEY]), Rejection::DuplicateField, 400),
        (
            upgrade_and(&["Origin: https://evil.example"]),
            Rejection::Origin,
            403,
        ),
        (upgrade_and(&["Origin: null"]), Rejection::Origin, 403),
        (
            upgrade_and(&[
                "Origin: https://a.example.com",
                "Origin: https://a.example.com",
            ]),
            Rejection::DuplicateField,
            400,
        ),
    ];
    for (bytes, rejection, status) in cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        assert_eq!(read(&bytes), Request::Rejected(rejection), "{shown}");
        assert_eq!(rejection.status(), status);
    }
}

#[test]
fn pages_are_told_from_what_does_not_exist() {
    for (target, page) in [
        ("/", Page::Index),
        ("/live", Page::Live),
        ("/ready?verbose", Page::Ready),
    ] {
        let get = head(&format!("GET {target} HTTP/1.1"), &["Host: x"]);
        assert_eq!(
            read(&get),
            Request::Plain(Plain {
                page,
                head_only: false,
                persists: true
            })
        );
        let old = head(&format!("HEAD {target} HTTP/1.0"), &[]);
        assert_eq!(
            read(&old),
            Request::Plain(Plain {
                page,
                head_only: true,
                persists: false
            })
        );
    }
    let echo = head("GET /echo HTTP/1.1", &UPGRADE);
    assert!(matches!(read(&echo), Request::Upgrade(upgrade) if upgrade.endpoint == Endpoint::Echo));
    let Progress::Complete { request, .. } = HeadScan::new().advance(&echo, &Policy::default())
    else {
        panic!()
    };
    assert_eq!(
        request,
        Request::Rejected(Rejection::NotFound),
        "without --echo"
    );
}

#[test]
fn what_follows_the_head_is_left_to_the_websocket() {
    let request = upgrade_and(&[]);
    for following in [&b"\x81\x80\0\0\0\0"[..], b"\r\n\r\n", b"\n", &[0; 40_000]] {
        let bytes = [&request[..], following].concat();
        let Progress::Complete {
            request: Request::Upgrade(_),
            head_len,
        } = HeadScan::new().advance(&bytes, &policy())
        else {
            panic!("refused")
        };
        assert_eq!(&bytes[head_len..], following);
    }
}

#[test]
fn a_head_may_be_as_long_as_the_limit_and_not_longer() {
    let of_len = |len: usize| {
        let empty = upgrade_and(&["X: "]).len();
        upgrade_and(&[&format!("X: {}", "x".repeat(len - empty))])
    };
    let longest = of_len(HEAD_BYTES_MAX);
    assert_eq!(longest.len(), HEAD_BYTES_MAX);
    assert!(matches!(read(&longest), Request::Upgrade(_)));
    assert_eq!(
        read(&of_len(HEAD_BYTES_MAX + 1)),
        Request::Rejected(Rejection::HeadTooLarge)
    );
    // What has not ended at the limit is refused there, without waiting for more.
    assert_eq!(verdict(&longest[..HEAD_BYTES_MAX - 1], || usize::MAX), None);
    let unfinished = &of_len(2 * HEAD_BYTES_MAX)[..HEAD_BYTES_MAX];
    assert_eq!(read(unfinished), Request::Rejected(Rejection::HeadTooLarge));
}

#[test]
fn noise_and_damage_get_a_verdict_that_does_not_depend_on_cuts() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    for _ in 0..10_000 {
        let mut bytes = if random.u8(..4) == 0 {
            std::iter::repeat_with(|| random.u8(..)).take(300).collect()
        } else {
            upgrade_and(&["Origin: https://a.example.com", "Cookie: flux_sid=x"])
        };
        for _ in 0..random.usize(..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = random.u8(..),
                1 => bytes[at] = b"\r\n \t:,\0/"[random.usize(..8)],
                2 => {
                    bytes.remove(at);
                }
                _ => bytes.insert(at, b"\r\n \t:,\0/"[random.usize(..8)]),
            }
        }
        // Damage near the end of an unfinished head is judged when more comes; the limit is the last occasion.
        let damaged_len = bytes.len();
        bytes.resize(HEAD_BYTES_MAX, b'x');
        let shown = String::from_utf8_lossy(&bytes[..damaged_len]);
        let whole = verdict(&bytes, || usize::MAX);
        assert!(whole.is_some(), "{shown}");
        for piece_max in [1, 80] {
            let mut left = damaged_len;
            let cut = verdict(&bytes, || {
                let piece = random.usize(1..=piece_max);
                left = left.saturating_sub(piece);
                if left == 0 { usize::MAX } else { piece }
            });
            assert_eq!(whole, cut, "{shown}");
        }
    }
}
