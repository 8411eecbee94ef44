//! A thin client side of RFC 6455: upgrade request and answer, masked frames out,
//! unmasked frames in. It checks what a client must check to count correctly; frames
//! are handed out where they lie, a partial frame is kept until the rest has come.

use tungstenite::handshake::derive_accept_key;

/// A frame longer than this is an error, not a reason to allocate.
const FRAME_MAX: usize = 64 << 20;
/// An answer to the upgrade longer than this is an error.
const HEAD_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Appends the upgrade request (RFC 6455 section 4.1).
pub(crate) fn upgrade_request(out: &mut Vec<u8>, authority: &str, path: &str, key: &str) {
    out.extend_from_slice(
        format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        )
        .as_bytes(),
    );
}

/// What the bytes after an upgrade request mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// More bytes are needed.
    Incomplete,
    /// The WebSocket is open; frames start after this many bytes.
    Open(usize),
    /// Another status than 101.
    Refused(u16),
    /// Not an answer to this request.
    Invalid(&'static str),
}

/// Reads the answer to an upgrade request made with `key`.
pub(crate) fn read_upgrade(bytes: &[u8], key: &str) -> Upgrade {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let consumed = match response.parse(bytes) {
        Ok(httparse::Status::Complete(consumed)) => consumed,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_MAX => return Upgrade::Incomplete,
        Ok(httparse::Status::Partial) => return Upgrade::Invalid("head too long"),
        Err(_) => return Upgrade::Invalid("not HTTP"),
    };
    match response.code {
        Some(101) => {}
        Some(code) => return Upgrade::Refused(code),
        None => return Upgrade::Invalid("no status"),
    }
    let accept = derive_accept_key(key.as_bytes());
    let accepted = response.headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("sec-websocket-accept")
            && header.value == accept.as_bytes()
    });
    if accepted {
        Upgrade::Open(consumed)
    } else {
        Upgrade::Invalid("wrong Sec-WebSocket-Accept")
    }
}

/// Appends one final, masked frame.
pub(crate) fn frame(out: &mut Vec<u8>, opcode: u8, mask: [u8; 4], payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
}

/// A frame as the server sent it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
}

/// The code of a close frame; 1005 when it has none (RFC 6455 section 7.1.5).
pub(crate) fn close_code(payload: &[u8]) -> u16 {
    payload
        .first_chunk()
        .map_or(1005, |code| u16::from_be_bytes(*code))
}

/// Cuts a stream of bytes into frames; holds at most one partial frame.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    partial: Vec<u8>,
}

impl FrameReader {
    /// Hands every complete frame to `on_frame`, until that returns false (the connection was closed).
    ///
    /// # Errors
    /// What the server must not send: masked, reserved bits, too long.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        on_frame: &mut impl FnMut(Frame<'_>) -> bool,
    ) -> Result<(), &'static str> {
        let mut rest = bytes;
        if !self.partial.is_empty() {
            if !self.complete(&mut rest)? {
                return Ok(());
            }
            let mut held = std::mem::take(&mut self.partial);
            let goes_on = first(&held)?.is_none_or(|(frame, _)| on_frame(frame));
            held.clear();
            self.partial = held;
            if !goes_on {
                return Ok(());
            }
        }
        while let Some((frame, len)) = first(rest)? {
            rest = &rest[len..];
            if !on_frame(frame) {
                return Ok(());
            }
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// Bytes that the frame lacks of which it holds a part; without a whole head one, behind which more are
    /// missing. 0: it holds none.
    pub(crate) fn missing(&self) -> usize {
        match self.partial.is_empty() {
            true => 0,
            // What is wrong with the head is told when it is fed.
            false => self.lacking().unwrap_or(1),
        }
    }

    /// Bytes up to the end of the frame, or where its head is not whole up to the next byte of that.
    fn lacking(&self) -> Result<usize, &'static str> {
        Ok(head(&self.partial)?.map_or(1, |(start, len)| {
            (start + len).saturating_sub(self.partial.len())
        }))
    }

    /// Takes from `rest` what the partial frame lacks, and nothing more; true when it is whole.
    fn complete(&mut self, rest: &mut &[u8]) -> Result<bool, &'static str> {
        loop {
            let missing = self.lacking()?;
            if missing == 0 {
                return Ok(true);
            }
            if rest.is_empty() {
                return Ok(false);
            }
            let (next, behind) = rest.split_at(missing.min(rest.len()));
            self.partial.extend_from_slice(next);
            *rest = behind;
        }
    }
}

/// Bytes of the frame at the start of `bytes`, if that is whole and one.
pub(crate) fn frame_len(bytes: &[u8]) -> Option<usize> {
    first(bytes).ok().flatten().map(|(_, len)| len)
}

/// The frame at the start of `bytes` and how many bytes it takes; `None`: it is not whole.
fn first(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, &'static str> {
    let Some((start, len)) = head(bytes)? else {
        return Ok(None);
    };
    let payload = bytes.get(start..start + len);
    Ok(payload.map(|payload| {
        let frame = Frame {
            fin: bytes[0] & 0x80 != 0,
            opcode: bytes[0] & 0x0f,
            payload,
        };
        (frame, start + len)
    }))
}

/// Bytes of the head and of the payload of the frame at the start of `bytes`; `None`: the head is not whole.
fn head(bytes: &[u8]) -> Result<Option<(usize, usize)>, &'static str> {
    let (Some(&first), Some(&second)) = (bytes.first(), bytes.get(1)) else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err("reserved bits set");
    }
    if second & 0x80 != 0 {
        return Err("masked frame from the server");
    }
    let long = |start: usize| bytes.get(2..start);
    let (start, len) = match second {
        126 => match long(4).and_then(|len| len.first_chunk()) {
            Some(len) => (4, u64::from(u16::from_be_bytes(*len))),
            None => return Ok(None),
        },
        127 => match long(10).and_then(|len| len.first_chunk()) {
            Some(len) => (10, u64::from_be_bytes(*len)),
            None => return Ok(None),
        },
        len => (2, u64::from(len)),
    };
    if len > FRAME_MAX as u64 {
        return Err("frame too long");
    }
    Ok(Some((start, len as usize)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
    use tungstenite::{Bytes, Message};

    /// What tungstenite reads from our frames, as a server.
    #[test]
    fn tungstenite_reads_what_is_written() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 200_000] {
            let payload: Vec<u8> = (0..length).map(|n| b'a' + (n % 26) as u8).collect();
            let mut bytes = Vec::new();
            frame(&mut bytes, TEXT, [1, 2, 3, 250], &payload);
            let mut server = WebSocket::from_raw_socket(Cursor::new(bytes), Role::Server, None);
            let message = server.read().expect("a message");
            assert_eq!(message.into_data(), Bytes::from(payload));
        }
    }

    /// What we read from tungstenite's frames, however the bytes are cut.
    #[test]
    fn frames_survive_any_cut() {
        let mut server = WebSocket::from_raw_socket(
            Cursor::new(Vec::new()),
            Role::Server,
            Some(WebSocketConfig::default()),
        );
        let mut expected = Vec::new();
        for length in [0usize, 5, 125, 126, 70_000, 3] {
            let payload = vec![b'x'; length];
            expected.push((TEXT, payload.clone()));
            server
                .send(Message::text(String::from_utf8(payload).expect("text")))
                .expect("send");
        }
        server
            .send(Message::Ping(Bytes::from_static(b"p")))
            .expect("send");
        expected.push((PING, b"p".to_vec()));
        let bytes = server.into_inner().into_inner();
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for round in 0..50 {
            let mut reader = FrameReader::default();
            let mut got = Vec::new();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let longest = rest.len().min(1 << random.u32(0..18));
                let cut = if round == 0 {
                    1
                } else {
                    random.usize(1..=longest)
                };
                reader
                    .feed(&rest[..cut], &mut |frame| {
                        assert!(frame.fin);
                        got.push((frame.opcode, frame.payload.to_vec()));
                        true
                    })
                    .expect("valid frames");
                rest = &rest[cut..];
                assert_eq!(reader.missing() == 0, reader.partial.is_empty());
                assert!(reader.missing() <= rest.len(), "round {round}");
            }
            assert_eq!(got, expected, "round {round}");
            assert!(reader.partial.is_empty());
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_an_error() {
        let feed = |bytes: &[u8]| FrameReader::default().feed(bytes, &mut |_| true);
        assert_eq!(
            feed(&[0x81, 0x81, 0, 0, 0, 0, b'x']),
            Err("masked frame from the server")
        );
        assert_eq!(feed(&[0xc1, 0x01, b'x']), Err("reserved bits set"));
        assert_eq!(
            feed(&[0x81, 127, 0, 0, 1, 0, 0, 0, 0, 0]),
            Err("frame too long")
        );
    }

    #[test]
    fn the_upgrade_answer_is_checked() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nxy";
        assert_eq!(read_upgrade(answer, key), Upgrade::Open(answer.len() - 2));
        assert_eq!(read_upgrade(&answer[..40], key), Upgrade::Incomplete);
        assert_eq!(
            read_upgrade(answer, "other"),
            Upgrade::Invalid("wrong Sec-WebSocket-Accept")
        );
        assert_eq!(
            read_upgrade(b"HTTP/1.1 503 Busy\r\n\r\n", key),
            Upgrade::Refused(503)
        );
        assert_eq!(
            read_upgrade(b"\x00\x01\x02\x03 nonsense\r\n\r\n", key),
            Upgrade::Invalid("not HTTP")
        );
    }

    #[test]
    fn close_codes_are_read() {
        assert_eq!(close_code(&[0x0b, 0xb9, b's']), 3001);
        assert_eq!(close_code(&[]), 1005);
    }
}
