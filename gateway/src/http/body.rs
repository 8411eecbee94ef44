//! A request's body, as it comes in: with a length, or in chunks (RFC 9112 §6, §7.1). What is kept grows with what
//! has come, never with what was announced.

use super::Rejection;

/// Longest line of a chunk's size with its extensions, in bytes without CRLF.
const SIZE_LINE_BYTES_MAX: usize = 256;

/// Most bytes of trailer fields, which are read over.
const TRAILER_BYTES_MAX: usize = 4 * 1024;

/// How a head says that its body is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none.
    #[default]
    None,
    /// So many bytes.
    Bytes(u64),
    /// In chunks.
    Chunked,
}

/// A body on its way in.
#[derive(Debug)]
pub struct Body {
    received: Vec<u8>,
    bytes_max: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// So many bytes are missing.
    Plain {
        missing: u64,
    },
    /// In the line that says how long the next chunk is.
    SizeLine {
        line: Vec<u8>,
    },
    /// So many bytes of the chunk are missing.
    Chunk {
        missing: u64,
    },
    /// The CRLF behind a chunk; how much of it has come.
    ChunkEnd {
        seen: usize,
    },
    /// Behind the last chunk: trailer fields up to an empty line.
    Trailer {
        /// Bytes of all trailer lines so far.
        total: usize,
        /// Bytes of the line so far.
        line: usize,
        /// Whether the last byte was a CR.
        is_cr: bool,
    },
    Whole,
}

impl Body {
    /// A body of which nothing has come.
    ///
    /// # Errors
    /// [`Rejection::BodyTooLarge`] when it says that it is longer than `bytes_max`.
    pub fn new(length: BodyLength, bytes_max: usize) -> Result<Body, Rejection> {
        let state = match length {
            BodyLength::None | BodyLength::Bytes(0) => State::Whole,
            BodyLength::Bytes(length) if length > bytes_max as u64 => {
                return Err(Rejection::BodyTooLarge);
            }
            BodyLength::Bytes(missing) => State::Plain { missing },
            BodyLength::Chunked => State::SizeLine { line: Vec::new() },
        };
        Ok(Body {
            received: Vec::new(),
            bytes_max,
            state,
        })
    }

    /// Takes what has come. True once the body is whole; what stands behind it is not read.
    ///
    /// # Errors
    /// [`Rejection::BodyTooLarge`], or [`Rejection::BodyFraming`] for chunks that are none.
    pub fn advance(&mut self, mut bytes: &[u8]) -> Result<bool, Rejection> {
        while !bytes.is_empty() && !self.is_whole() {
            bytes = self.step(bytes)?;
        }
        Ok(self.is_whole())
    }

    /// Whether all of it has come.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self.state, State::Whole)
    }

    /// What has come.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.received
    }

    /// Takes some of `bytes`, which are not empty; returns the rest.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Rejection> {
        match &mut self.state {
            State::Plain { missing } | State::Chunk { missing } => {
                let take = bytes
                    .len()
                    .min(usize::try_from(*missing).unwrap_or(usize::MAX));
                *missing -= take as u64;
                let is_done = *missing == 0;
                let (taken, rest) = bytes.split_at(take);
                if self.received.len() + take > self.bytes_max {
                    return Err(Rejection::BodyTooLarge);
                }
                self.received.extend_from_slice(taken);
                if is_done {
                    self.state = match self.state {
                        State::Chunk { .. } => State::ChunkEnd { seen: 0 },
                        _ => State::Whole,
                    };
                }
                Ok(rest)
            }
            State::SizeLine { line } => {
                let end = memchr::memchr(b'\n', bytes);
                let part = &bytes[..end.unwrap_or(bytes.len())];
                if line.len() + part.len() > SIZE_LINE_BYTES_MAX + 1 {
                    return Err(Rejection::BodyFraming);
                }
                line.extend_from_slice(part);
                let Some(end) = end else {
                    return Ok(&[]);
                };
                let size = line.strip_suffix(b"\r").and_then(chunk_size);
                self.state = match size.ok_or(Rejection::BodyFraming)? {
                    0 => State::Trailer {
                        total: 0,
                        line: 0,
                        is_cr: false,
                    },
                    size if size > (self.bytes_max - self.received.len()) as u64 => {
                        return Err(Rejection::BodyTooLarge);
                    }
                    missing => State::Chunk { missing },
                };
                Ok(&bytes[end + 1..])
            }
            State::ChunkEnd { seen } => {
                if bytes[0] != b"\r\n"[*seen] {
                    return Err(Rejection::BodyFraming);
                }
                *seen += 1;
                if *seen == 2 {
                    self.state = State::SizeLine { line: Vec::new() };
                }
                Ok(&bytes[1..])
            }
            State::Trailer { total, line, is_cr } => {
                *total += 1;
                if *total > TRAILER_BYTES_MAX {
                    return Err(Rejection::BodyTooLarge);
                }
                match (bytes[0], *is_cr) {
                    (b'\n', true) if *line == 0 => self.state = State::Whole,
                    (b'\n', true) => (*line, *is_cr) = (0, false),
                    (b'\n', false) | (_, true) => return Err(Rejection::BodyFraming),
                    (b'\r', false) => *is_cr = true,
                    (_, false) => *line += 1,
                }
                Ok(&bytes[1..])
            }
            State::Whole => Ok(bytes),
        }
    }
}

/// The size in a chunk's first line; what stands behind `;` is read over.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body, or why not, however it is cut.
    fn read(length: BodyLength, bytes: &[u8]) -> Result<Option<Vec<u8>>, Rejection> {
        let whole = |cut: usize| {
            let mut body = Body::new(length, 20)?;
            for part in bytes.chunks(cut) {
                body.advance(part)?;
            }
            Ok(body.is_whole().then(|| body.into_bytes()))
        };
        let expected = whole(bytes.len().max(1));
        for cut in 1..bytes.len() {
            assert_eq!(whole(cut), expected, "cut into {cut}");
        }
        expected
    }

    #[test]
    fn a_body_ends_where_its_head_says() {
        assert_eq!(read(BodyLength::None, b"x"), Ok(Some(vec![])));
        assert_eq!(read(BodyLength::Bytes(0), b""), Ok(Some(vec![])));
        assert_eq!(read(BodyLength::Bytes(3), b"ab"), Ok(None));
        assert_eq!(read(BodyLength::Bytes(3), b"abcd"), Ok(Some(b"abc".into())));
        assert_eq!(
            read(
                BodyLength::Chunked,
                b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\nrest"
            ),
            Ok(Some(b"abcde".into()))
        );
        assert_eq!(
            read(BodyLength::Chunked, b"1\r\na\r\n0\r\nTrailer: x\r\n\r\n"),
            Ok(Some(b"a".into()))
        );
        assert_eq!(read(BodyLength::Chunked, b"3\r\nabc\r\n0\r\n"), Ok(None));
    }

    #[test]
    fn a_body_is_bounded_whatever_it_announces() {
        let too_large = Err(Rejection::BodyTooLarge);
        assert_eq!(read(BodyLength::Bytes(21), b""), too_large);
        assert_eq!(read(BodyLength::Bytes(u64::MAX), b"x"), too_large);
        assert_eq!(read(BodyLength::Chunked, b"fffffff\r\n"), too_large);
        let mut many = b"a\r\n0123456789\r\n".repeat(2);
        many.extend_from_slice(b"1\r\nx\r\n0\r\n\r\n");
        assert_eq!(read(BodyLength::Chunked, &many), too_large);
        let mut trailer = b"0\r\n".to_vec();
        trailer.extend_from_slice(&vec![b'x'; TRAILER_BYTES_MAX + 1]);
        assert_eq!(
            Body::new(BodyLength::Chunked, 20).and_then(|mut body| body.advance(&trailer)),
            Err(Rejection::BodyTooLarge)
        );
    }

    #[test]
    fn chunks_that_are_none_are_refused() {
        for bad in [
            b"x\r\n".as_slice(),
            b"\r\n",
            b"-1\r\n",
            b"+1\r\nx",
            b"0x1\r\n",
            b"1\nx",
            b"1\r\nxy",
            b"1\r\nx\n",
            b"1\r\nx\rx",
            b"0\r\n\n",
            b"0\r\nx\n",
            b"0\r\n\rx",
            b"10000000000000000\r\n",
        ] {
            let text = bad.escape_ascii();
            assert_eq!(
                read(BodyLength::Chunked, bad),
                Err(Rejection::BodyFraming),
                "{text}"
            );
        }
        let long = vec![b'1'; SIZE_LINE_BYTES_MAX + 2];
        let mut body = Body::new(BodyLength::Chunked, 20).expect("no length said");
        assert_eq!(body.advance(&long), Err(Rejection::BodyFraming));
    }
}
