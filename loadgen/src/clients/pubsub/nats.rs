//! NATS over WebSocket. A frame is a piece of the protocol's byte stream: lines, and behind `MSG` as many
//! bytes as the line says; both may be cut by the end of a frame.
//!
//! Invariant: `partial` holds less than one operation.

use anyhow::{Context, Result, bail, ensure};

use super::{Heard, MASK, Role};
use crate::clients::subscriber::stamp_of;
use crate::clients::websocket::{self, BINARY};

/// A line longer than this is an error; NATS allows 4,096 bytes to clients, and its own INFO is longer.
const LINE_MAX: usize = 64 << 10;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// The answer to the first PING came: what was sent before it stands.
    ready: bool,
    partial: Vec<u8>,
}

/// Connect, subscribe, and a PING whose answer says that both are done.
pub(super) fn greet(out: &mut Vec<u8>, role: &Role) {
    let mut text = concat!(
        r#"CONNECT {"verbose":false,"pedantic":false,"echo":false,"lang":"flux-bench","version":"1","protocol":1}"#,
        "\r\n"
    )
    .to_owned();
    if let Role::Subscriber(channels) = role {
        for (sid, channel) in (1..).zip(channels) {
            text.push_str(&format!("SUB {channel} {sid}\r\n"));
        }
    }
    text.push_str("PING\r\n");
    websocket::frame(out, BINARY, MASK, text.as_bytes());
}

pub(super) fn publish(out: &mut Vec<u8>, channel: &str, data: &str) {
    let text = format!("PUB {channel} {}\r\n{data}\r\n", data.len());
    websocket::frame(out, BINARY, MASK, text.as_bytes());
}

impl Session {
    pub(super) fn receive(
        &mut self,
        payload: &[u8],
        out: &mut Vec<u8>,
        on_heard: &mut impl FnMut(Heard),
    ) -> Result<()> {
        if self.partial.is_empty() {
            let taken = self.operations(payload, out, on_heard)?;
            self.partial.extend_from_slice(&payload[taken..]);
        } else {
            let mut held = std::mem::take(&mut self.partial);
            held.extend_from_slice(payload);
            let taken = self.operations(&held, out, on_heard)?;
            if taken < held.len() {
                held.drain(..taken);
                self.partial = held;
            }
        }
        Ok(())
    }

    /// Takes the whole operations at the start of `bytes`; returns how many bytes they are.
    fn operations(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        on_heard: &mut impl FnMut(Heard),
    ) -> Result<usize> {
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            let Some(end) = memchr::memchr(b'\n', rest) else {
                ensure!(rest.len() <= LINE_MAX, "a line of NATS has no end");
                return Ok(taken);
            };
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            if line.starts_with(b"MSG ") {
                let start = end + 1;
                let length = length(line).with_context(|| {
                    format!("not a line of NATS: {}", String::from_utf8_lossy(line))
                })?;
                // Behind the data stands the end of a line.
                let Some(data) = rest.get(start..start + length + 2) else {
                    return Ok(taken);
                };
                let stamp = stamp_of(&data[..length]).context("a message that nobody sent")?;
                on_heard(Heard::Delivery(stamp));
                taken += start + data.len();
            } else {
                self.line(line, out, on_heard)?;
                taken += end + 1;
            }
        }
    }

    fn line(
        &mut self,
        line: &[u8],
        out: &mut Vec<u8>,
        on_heard: &mut impl FnMut(Heard),
    ) -> Result<()> {
        match line {
            b"PING" => websocket::frame(out, BINARY, MASK, b"PONG\r\n"),
            b"PONG" if !self.ready => {
                self.ready = true;
                on_heard(Heard::Ready);
            }
            b"PONG" | b"+OK" => {}
            _ if line.starts_with(b"INFO ") => {}
            // A permission that is missing leaves the connection open; all else ends it.
            _ if self.ready && line.starts_with(b"-ERR 'Permissions Violation for Publish") => {
                on_heard(Heard::Refused);
            }
            _ => bail!("{}", String::from_utf8_lossy(line)),
        }
        Ok(())
    }
}

/// The last word of `MSG SUBJECT SID [REPLY] LENGTH`.
fn length(line: &[u8]) -> Option<usize> {
    let at = memchr::memrchr(b' ', line)?;
    std::str::from_utf8(&line[at + 1..]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::subscriber::{Stamp, data};

    #[test]
    fn operations_survive_any_cut() {
        let stamps: Vec<Stamp> = (0..20)
            .map(|sequence| Stamp {
                publisher: 3,
                sequence,
            })
            .collect();
        let mut stream = b"INFO {\"version\":\"2\"}\r\nPONG\r\nPING\r\n+OK\r\n".to_vec();
        for (number, stamp) in stamps.iter().enumerate() {
            let data = data(*stamp, 40 * number);
            let head = format!("MSG channel-1 {number} {}\r\n", data.len());
            stream.extend_from_slice(head.as_bytes());
            stream.extend_from_slice(data.as_bytes());
            stream.extend_from_slice(b"\r\n");
        }
        let mut expected = vec![Heard::Ready];
        expected.extend(stamps.into_iter().map(Heard::Delivery));
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for round in 0..50 {
            let (mut session, mut heard, mut out) = (Session::default(), Vec::new(), Vec::new());
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let cut = match round {
                    0 => 1,
                    1 => rest.len(),
                    _ => random.usize(1..=rest.len().min(300)),
                };
                session
                    .receive(&rest[..cut], &mut out, &mut |what| heard.push(what))
                    .expect("valid");
                rest = &rest[cut..];
            }
            assert_eq!(heard, expected, "round {round}");
            assert!(session.partial.is_empty() && !out.is_empty());
        }
    }

    #[test]
    fn what_the_server_refuses_is_said_in_its_words() {
        let receive = |session: &mut Session, text: &str| {
            let mut heard = Vec::new();
            session
                .receive(text.as_bytes(), &mut Vec::new(), &mut |what| {
                    heard.push(what);
                })
                .map(|()| heard)
        };
        let mut session = Session::default();
        let error =
            receive(&mut session, "-ERR 'Authorization Violation'\r\n").expect_err("refused");
        assert!(error.to_string().contains("Authorization Violation"));
        let mut session = Session::default();
        let text = "PONG\r\n-ERR 'Permissions Violation for Publish to \"a\"'\r\n";
        assert_eq!(
            receive(&mut session, text).expect("counted"),
            [Heard::Ready, Heard::Refused]
        );
        assert!(receive(&mut session, "MSG a 1 x\r\n").is_err());
        let mut session = Session::default();
        assert!(receive(&mut session, &"x".repeat(LINE_MAX + 1)).is_err());
    }
}
