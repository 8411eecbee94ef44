//! Masking, frames and UTF-8: ours, tungstenite and tokio-websockets read the same bytes from memory.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::websocket::{Decoder, Event, Limits, Opcode, frame_into, unmask};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::{Role, WebSocketConfig};

use crate::harness::{OURS, case};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const TEXT: u8 = 1;
const BINARY: u8 = 2;

pub(crate) fn run() {
    for (name, len) in [("unmask 20 B", 20), ("unmask 1 KiB", 1024)] {
        let mut payload = vec![7; len];
        case(name, OURS, 1_000, 1, || {
            unmask(black_box(&mut payload), black_box(KEY));
        });
    }
    utf8();
    let kilobyte = "x".repeat(1024);
    let part = &kilobyte.as_bytes()[..64];
    let mut fragments = frame(false, TEXT, part);
    for _ in 1..15 {
        fragments.extend(frame(false, 0, part));
    }
    fragments.extend(frame(true, 0, part));
    decode(
        "frame 20 B text",
        1,
        &frame(true, TEXT, b"twenty bytes of text"),
    );
    decode(
        "frame 1 KiB text",
        1,
        &frame(true, TEXT, kilobyte.as_bytes()),
    );
    decode("frame 64 KiB binary", 1, &frame(true, BINARY, &[7; 65_536]));
    decode(
        "frame, one of 16 of 20 B read at once",
        16,
        &frame(true, TEXT, b"twenty bytes of text").repeat(16),
    );
    decode("message of 16 fragments of 64 B", 1, &fragments);
    encode();
}

fn utf8() {
    let greek = "κόσμε ".repeat(94);
    let ascii = "x".repeat(1024);
    for (name, text) in [
        ("UTF-8 20 B ASCII", &ascii[..20]),
        ("UTF-8 1 KiB ASCII", &ascii[..]),
        ("UTF-8 1 KiB Greek", &greek[..]),
    ] {
        case(name, OURS, 1_000, 1, || {
            black_box(simdutf8::basic::from_utf8(black_box(text.as_bytes())).is_ok());
        });
        case(name, "std", 1_000, 1, || {
            black_box(std::str::from_utf8(black_box(text.as_bytes())).is_ok());
        });
    }
}

/// `received` holds `messages` messages. All three get it by a copy into memory of theirs, as from a socket.
fn decode(name: &str, messages: u32, received: &[u8]) {
    let times = 200;
    let (limits, mut decoder) = (Limits::default(), Decoder::new());
    let mut buffer = vec![0; received.len()];
    let mut heard = 0;
    case(name, OURS, times, messages, || {
        buffer.copy_from_slice(black_box(received));
        let outcome = decoder.feed(&mut buffer, &limits, &mut |event| {
            heard += u32::from(matches!(
                black_box(event),
                Event::Text(_) | Event::Binary(_)
            ));
        });
        black_box(outcome.is_ok());
    });
    assert_eq!(heard, (times + 1) * messages, "{name}: ours");

    let (replay, config) = (Replay::of(received), tungstenite_config());
    let mut socket = tungstenite::WebSocket::from_raw_socket(replay, Role::Server, Some(config));
    case(name, "tungstenite", times, messages, || {
        socket.get_mut().at = 0;
        for _ in 0..messages {
            let message = black_box(socket.read());
            assert!(message.is_ok(), "{name}: tungstenite");
        }
    });

    let mut socket = tokio_websockets::ServerBuilder::new().serve(Replay::of(received));
    let mut context = Context::from_waker(Waker::noop());
    case(name, "tokio-websockets", times, messages, || {
        socket.get_mut().at = 0;
        for _ in 0..messages {
            let message = black_box(Pin::new(&mut socket).poll_next(&mut context));
            assert!(
                matches!(message, Poll::Ready(Some(Ok(_)))),
                "{name}: tokio-websockets"
            );
        }
    });
}

/// It clears its whole read buffer before each read; with the default of 128 KiB that would be most of what is counted.
fn tungstenite_config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(4 * 1024)
}

fn encode() {
    let (name, payload) = ("frame to send, 100 B text", "x".repeat(100));
    let mut out = Vec::with_capacity(256);
    case(name, OURS, 1_000, 1, || {
        out.clear();
        frame_into(&mut out, Opcode::Text, black_box(payload.as_bytes()));
        black_box(&out);
    });
    let mut socket = tungstenite::WebSocket::from_raw_socket(Replay::of(b""), Role::Server, None);
    let payload = tungstenite::Utf8Bytes::from(payload);
    case(name, "tungstenite", 1_000, 1, || {
        let sent = socket.send(tungstenite::Message::Text(black_box(&payload).clone()));
        black_box(sent.is_ok());
    });
}

/// A client's frame.
fn frame(is_last: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::from(is_last) << 7 | opcode];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(KEY);
    bytes.extend(
        payload
            .iter()
            .zip(KEY.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    bytes
}

/// Reads the same bytes again and again, as often as it is set back; takes all that is written.
struct Replay {
    bytes: Vec<u8>,
    at: usize,
}

impl Replay {
    fn of(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            at: 0,
        }
    }

    fn next(&mut self, len_max: usize) -> &[u8] {
        let start = self.at;
        self.at = self.bytes.len().min(start + len_max);
        &self.bytes[start..self.at]
    }
}

impl Read for Replay {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.next(into.len());
        into[..bytes.len()].copy_from_slice(bytes);
        match bytes.len() {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }
}

impl Write for Replay {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Replay {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = self.next(into.remaining());
        if bytes.is_empty() {
            return Poll::Pending;
        }
        into.put_slice(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replay {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
