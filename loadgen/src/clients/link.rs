//! One connection on its way from TCP to an open WebSocket. Where no speed is
//! lost by it, the frames of an open link are read by `FrameReader`.

use std::io::{self, ErrorKind};

use super::websocket::{self, Frame, FrameReader, Upgrade};
use crate::target::Target;

/// Why a connection did not come about, or ended: the report counts by these names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// Nobody listens.
    Refused,
    /// The peer reset the connection.
    Reset,
    /// The peer closed before the handshake was complete.
    ClosedEarly,
    /// No answer in time.
    Timeout,
    /// This machine had no descriptor or port left.
    LocalLimit,
    /// The upgrade was answered with this status.
    Status(u16),
    /// The peer broke the protocol.
    Protocol(&'static str),
    /// Another error of the socket.
    Other(ErrorKind),
}

impl Failure {
    /// What a socket's end means before the handshake is complete.
    pub(crate) fn from_end(error: Option<&io::Error>) -> Self {
        let Some(error) = error else {
            return Self::ClosedEarly;
        };
        if let Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::EADDRNOTAVAIL
            | libc::EADDRINUSE
            | libc::ENOBUFS
            | libc::ENOMEM,
        ) = error.raw_os_error()
        {
            return Self::LocalLimit;
        }
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
                Self::Reset
            }
            ErrorKind::TimedOut => Self::Timeout,
            other => Self::Other(other),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::Reset => f.write_str("reset"),
            Self::ClosedEarly => f.write_str("closed before the handshake was complete"),
            Self::Timeout => f.write_str("timeout"),
            Self::LocalLimit => f.write_str("no descriptor or port left on this side"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Protocol(what) => write!(f, "protocol: {what}"),
            Self::Other(kind) => write!(f, "{kind}"),
        }
    }
}

/// The WebSocket side of one connection.
#[derive(Debug)]
pub(crate) struct Link {
    phase: Phase,
}

impl Default for Link {
    /// An open link on which nothing has come yet.
    fn default() -> Self {
        Self {
            phase: Phase::Open(FrameReader::default()),
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// The upgrade is under way: its key and what came so far.
    Upgrading {
        key: String,
        head: Vec<u8>,
    },
    Open(FrameReader),
}

/// What the bytes of a link mean.
#[derive(Debug)]
pub(crate) enum LinkEvent<'a> {
    /// The upgrade was accepted.
    Open,
    Frame(Frame<'a>),
}

impl Link {
    /// A link and the upgrade request to send once TCP is connected.
    pub(crate) fn new(target: &Target, path: &str) -> (Self, Vec<u8>) {
        let key = tungstenite::handshake::client::generate_key();
        let mut request = Vec::with_capacity(256);
        websocket::upgrade_request(&mut request, &target.authority, path, &key);
        (
            Self {
                phase: Phase::Upgrading {
                    key,
                    head: Vec::new(),
                },
            },
            request,
        )
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Bytes that the frame lacks of which it holds a part, as far as its head tells; 0: it holds none.
    pub(crate) fn missing(&self) -> usize {
        match &self.phase {
            Phase::Open(reader) => reader.missing(),
            Phase::Upgrading { .. } => 0,
        }
    }

    /// Takes what came and hands out what it means, until `on_event` returns false.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        on_event: &mut impl FnMut(LinkEvent<'_>) -> bool,
    ) -> Result<(), Failure> {
        match &mut self.phase {
            Phase::Open(reader) => reader
                .feed(bytes, &mut |frame| on_event(LinkEvent::Frame(frame)))
                .map_err(Failure::Protocol),
            Phase::Upgrading { key, head } => {
                head.extend_from_slice(bytes);
                match websocket::read_upgrade(head, key) {
                    Upgrade::Incomplete => Ok(()),
                    Upgrade::Refused(status) => Err(Failure::Status(status)),
                    Upgrade::Invalid(what) => Err(Failure::Protocol(what)),
                    Upgrade::Open(consumed) => {
                        let head = std::mem::take(head);
                        self.phase = Phase::Open(FrameReader::default());
                        if on_event(LinkEvent::Open) && consumed < head.len() {
                            return self.feed(&head[consumed..], on_event);
                        }
                        Ok(())
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_right_behind_the_answer_are_not_lost() {
        let target = Target::parse("ws://127.0.0.1:1/x").expect("target");
        let (mut link, request) = Link::new(&target, &target.path);
        let request = String::from_utf8(request).expect("ascii");
        let key = request
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
            .expect("key");
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let mut answer = format!("HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n").into_bytes();
        answer.extend_from_slice(&[0x81, 2, b'h', b'i']);
        let mut seen = Vec::new();
        for byte in answer {
            link.feed(&[byte], &mut |event| {
                seen.push(match event {
                    LinkEvent::Open => "open".to_owned(),
                    LinkEvent::Frame(frame) => String::from_utf8_lossy(frame.payload).into_owned(),
                });
                true
            })
            .expect("valid");
        }
        assert_eq!(seen, ["open", "hi"]);
        assert!(link.is_open());
    }

    #[test]
    fn failures_have_kinds() {
        let end = |code| Failure::from_end(Some(&io::Error::from_raw_os_error(code)));
        assert_eq!(end(libc::ECONNREFUSED), Failure::Refused);
        assert_eq!(end(libc::ECONNRESET), Failure::Reset);
        assert_eq!(end(libc::EMFILE), Failure::LocalLimit);
        assert_eq!(end(libc::EADDRNOTAVAIL), Failure::LocalLimit);
        assert_eq!(end(libc::ETIMEDOUT), Failure::Timeout);
        assert_eq!(Failure::from_end(None), Failure::ClosedEarly);
        assert_eq!(Failure::Status(503).to_string(), "status 503");
    }
}
