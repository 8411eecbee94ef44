//! What a hostile client sends, and what it must get. Shared by the process tests and by the program
//! `hostile`, which measures what an attack costs the others.
#![allow(dead_code, unreachable_pub, reason = "each user takes its part")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than the gateway waits for a request head (10 s).
const PATIENCE: Duration = Duration::from_secs(20);

const UPGRADE: &str = "GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

const FIN: u8 = 0x80;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const MASKED: u8 = 0x80;

/// What the gateway must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// This status instead of an upgrade.
    Status(u16),
    /// A close frame with this code.
    Close(u16),
    /// Nothing at all: the connection just ends.
    Silence,
}

/// One hostile connection.
pub struct Attack {
    pub name: &'static str,
    /// After a proper handshake, or instead of one.
    upgraded: bool,
    bytes: Vec<u8>,
    /// Bytes in one write.
    piece: usize,
    pub expected: Rejection,
    /// The metric that counts it, and the label.
    pub counted: Option<(&'static str, &'static str)>,
    /// Whether it takes as long as the gateway is patient.
    pub is_slow: bool,
}

fn request(
    name: &'static str,
    bytes: impl Into<Vec<u8>>,
    status: u16,
    label: &'static str,
) -> Attack {
    Attack {
        name,
        upgraded: false,
        bytes: bytes.into(),
        piece: usize::MAX,
        expected: Rejection::Status(status),
        counted: Some(("flux_requests_refused", label)),
        is_slow: false,
    }
}

fn frames(name: &'static str, bytes: impl Into<Vec<u8>>, code: u16, label: &'static str) -> Attack {
    Attack {
        name,
        upgraded: true,
        bytes: bytes.into(),
        piece: usize::MAX,
        expected: Rejection::Close(code),
        counted: Some(("flux_frames_refused", label)),
        is_slow: false,
    }
}

/// A masked frame; the mask is zero, which is as good as any to a server.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(MASKED | len as u8),
        len @ 126..=0xffff => {
            bytes.push(MASKED | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.push(MASKED | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// A header that claims `len` bytes, and a few of them.
fn claim(len: u64) -> Vec<u8> {
    let mut bytes = vec![FIN | BINARY, MASKED | 127];
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(b"not that many");
    bytes
}

fn with_field(field: &str) -> String {
    UPGRADE.replace("Host: x\r\n", &format!("Host: x\r\n{field}\r\n"))
}

/// Every kind, each with what it must get.
pub fn all() -> Vec<Attack> {
    let mut attacks = vec![
        request(
            "garbage",
            "\u{1}\u{2}\u{3} garbage\r\n\r\n",
            400,
            "request_line",
        ),
        request(
            "a TLS greeting",
            [
                &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..],
                &[7; 512],
                b"\r\n\r\n",
            ]
            .concat(),
            400,
            "request_line",
        ),
        request(
            "64 KiB in one field",
            with_field(&format!("X: {}", "x".repeat(65_536))),
            431,
            "head_too_large",
        ),
        request(
            "64 KiB in many fields",
            with_field(&vec![format!("X: {}", "y".repeat(1000)); 64].join("\r\n")),
            431,
            "head_too_large",
        ),
        request(
            "a thousand fields",
            with_field(&vec!["a: b"; 1000].join("\r\n")),
            431,
            "too_many_fields",
        ),
        request("a field of NULs", with_field("X: \0\0"), 400, "field"),
        request("two hosts", with_field("Host: y"), 400, "duplicate_field"),
        request("a body", with_field("Content-Length: 10"), 413, "body"),
        request(
            "a body in chunks",
            with_field("Transfer-Encoding: chunked"),
            413,
            "body",
        ),
        request(
            "HTTP/2",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            505,
            "http_version",
        ),
        request(
            "WebSocket version 8",
            UPGRADE.replace("Version: 13", "Version: 8"),
            426,
            "websocket_version",
        ),
        request(
            "a short key",
            UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
            400,
            "websocket_key",
        ),
        request(
            "no upgrade",
            UPGRADE.replace("Upgrade: websocket\r\n", ""),
            426,
            "upgrade_missing",
        ),
        request(
            "a foreign page",
            with_field("Origin: https://evil.example"),
            403,
            "origin",
        ),
        frames(
            "an unmasked frame",
            [FIN | TEXT, 5, b'h', b'e', b'l', b'l', b'o'],
            1002,
            "unmasked",
        ),
        frames(
            "text that is not UTF-8",
            frame(
                FIN | TEXT,
                b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80",
            ),
            1007,
            "invalid_utf8",
        ),
        frames(
            "half a character, then another message's byte",
            [frame(TEXT, b"\xf0\x9f"), frame(FIN, b"\x41")].concat(),
            1007,
            "invalid_utf8",
        ),
        frames("a claim of 1 GiB", claim(1 << 30), 1009, "message_too_big"),
        frames(
            "a claim of 2^62 bytes",
            claim(1 << 62),
            1009,
            "message_too_big",
        ),
        frames(
            "a claim with the top bit set",
            claim(1 << 63),
            1002,
            "length_top_bit",
        ),
        frames(
            "a length in more bytes than it needs",
            [FIN | BINARY, MASKED | 126, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 5],
            1002,
            "length_not_minimal",
        ),
        frames(
            "reserved bits",
            frame(FIN | 0x40 | TEXT, b"deflated?"),
            1002,
            "reserved_bits",
        ),
        frames(
            "a reserved opcode",
            frame(FIN | 3, b"x"),
            1002,
            "reserved_opcode",
        ),
        frames(
            "a long ping",
            frame(FIN | PING, &[b'x'; 126]),
            1002,
            "control_too_long",
        ),
        frames(
            "a ping in pieces",
            frame(PING, b"x"),
            1002,
            "control_fragmented",
        ),
        frames(
            "a continuation of nothing",
            frame(FIN, b"x"),
            1002,
            "unexpected_continuation",
        ),
        frames(
            "a message inside another",
            [frame(TEXT, b"a"), frame(FIN | TEXT, b"b")].concat(),
            1002,
            "expected_continuation",
        ),
        frames(
            "a message that is too big",
            frame(FIN | BINARY, &vec![1; 70_000]),
            1009,
            "message_too_big",
        ),
        frames(
            "a message that grows too big",
            [frame(BINARY, &[1; 40_000]), frame(0, &[1; 40_000])].concat(),
            1009,
            "message_too_big",
        ),
        frames(
            "seventy thousand empty fragments",
            [frame(BINARY, b""), frame(0, b"").repeat(70_000)].concat(),
            1008,
            "too_many_fragments",
        ),
        frames(
            "a close frame of one byte",
            frame(FIN | CLOSE, &[3]),
            1002,
            "close_payload_too_short",
        ),
        frames(
            "a close code that may not be sent",
            frame(FIN | CLOSE, &1005_u16.to_be_bytes()),
            1002,
            "close_code_invalid",
        ),
        frames(
            "a close reason that is not UTF-8",
            frame(FIN | CLOSE, b"\x03\xe8\xff\xfe"),
            1007,
            "close_reason_not_utf8",
        ),
    ];
    // The worst of both, byte by byte.
    attacks.push(Attack {
        name: "an unmasked frame, byte by byte",
        piece: 1,
        ..frames(
            "",
            [FIN | TEXT, 5, b'h', b'e', b'l', b'l', b'o'],
            1002,
            "unmasked",
        )
    });
    attacks.push(Attack {
        name: "bad UTF-8, byte by byte",
        piece: 1,
        ..frames(
            "",
            frame(FIN | TEXT, b"ok so far \xff"),
            1007,
            "invalid_utf8",
        )
    });
    attacks.push(Attack {
        name: "20 KiB of head, 64 bytes at a time",
        piece: 64,
        ..request(
            "",
            with_field(&format!("X: {}", "x".repeat(20_000))),
            431,
            "head_too_large",
        )
    });
    attacks.push(Attack {
        name: "a torn handshake",
        is_slow: true,
        ..request("", &UPGRADE[..100], 408, "head_timeout")
    });
    attacks.push(Attack {
        name: "a connection that says nothing",
        expected: Rejection::Silence,
        counted: Some(("flux_connections_ended", "stale")),
        is_slow: true,
        ..request("", "", 0, "")
    });
    attacks
}

impl Attack {
    /// Carries it out.
    ///
    /// # Errors
    /// What the gateway did instead of what it must.
    pub fn run(&self, address: SocketAddr) -> Result<(), String> {
        let wrong = |what: String| format!("{}: {what}", self.name);
        let mut stream = TcpStream::connect(address).map_err(|error| wrong(error.to_string()))?;
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(PATIENCE));
        if self.upgraded {
            stream
                .write_all(UPGRADE.as_bytes())
                .map_err(|error| wrong(error.to_string()))?;
            let head = read_head(&mut stream);
            if !head.starts_with("HTTP/1.1 101 ") {
                return Err(wrong(format!("the handshake is answered with {head}")));
            }
        }
        for piece in self.bytes.chunks(self.piece.min(self.bytes.len().max(1))) {
            // The gateway may have had enough before everything is written.
            if stream.write_all(piece).is_err() {
                break;
            }
        }
        let answer = read_all(&mut stream).map_err(&wrong)?;
        let got = match (self.upgraded, answer.as_slice()) {
            (_, []) => Rejection::Silence,
            (false, bytes) => {
                let head = String::from_utf8_lossy(bytes);
                let status = head
                    .split(' ')
                    .nth(1)
                    .and_then(|status| status.parse().ok());
                Rejection::Status(status.ok_or_else(|| wrong(format!("answered with {head}")))?)
            }
            (true, [0x88, len, high, low, ..]) if *len >= 2 => {
                Rejection::Close(u16::from_be_bytes([*high, *low]))
            }
            (true, bytes) => return Err(wrong(format!("answered with {bytes:?}"))),
        };
        if got == self.expected {
            Ok(())
        } else {
            Err(wrong(format!("{got:?} instead of {:?}", self.expected)))
        }
    }
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn read_all(stream: &mut TcpStream) -> Result<Vec<u8>, String> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => Ok(answer),
        // Whoever keeps sending to somebody who has closed is reset.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(answer),
        Err(error) => Err(format!("{error} after {} bytes", answer.len())),
    }
}
