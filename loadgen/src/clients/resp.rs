//! Redis's protocol (RESP 2 and 3) as a bystander needs it: where one value ends and the next
//! begins. What stands in a value is looked for by the caller.

use std::fmt;

/// Values in one another, counted as they are opened; a longer one is given up.
const ELEMENTS_MAX: usize = 1 << 20;

/// What came is not the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotResp(String);

impl fmt::Display for NotResp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an answer of Redis: {}", self.0)
    }
}

/// Bytes of one connection, cut into values.
#[derive(Debug, Default)]
pub(crate) struct Values {
    bytes: Vec<u8>,
}

impl Values {
    /// Takes in `bytes`, and hands every value that is complete to `on_value`, as it stands.
    ///
    /// # Errors
    /// [`NotResp`]: nothing that follows can be understood.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        on_value: &mut impl FnMut(&[u8]),
    ) -> Result<(), NotResp> {
        // Most values come whole: only what is left over is kept.
        if self.bytes.is_empty() {
            let taken = cut(bytes, on_value)?;
            self.bytes.extend_from_slice(&bytes[taken..]);
        } else {
            self.bytes.extend_from_slice(bytes);
            let taken = cut(&self.bytes, on_value)?;
            self.bytes.drain(..taken);
        }
        Ok(())
    }
}

/// Hands over the complete values and returns how many bytes they are.
fn cut(bytes: &[u8], on_value: &mut impl FnMut(&[u8])) -> Result<usize, NotResp> {
    let mut at = 0;
    while let Some(len) = value_len(&bytes[at..])? {
        on_value(&bytes[at..at + len]);
        at += len;
    }
    Ok(at)
}

/// Length of the value at the beginning; none while it is not complete.
fn value_len(bytes: &[u8]) -> Result<Option<usize>, NotResp> {
    let (mut at, mut wanted, mut seen) = (0, 1usize, 0usize);
    while wanted > 0 {
        seen += 1;
        let Some(end) = bytes.get(at..).and_then(|rest| memchr::memchr(b'\n', rest)) else {
            return Ok(None);
        };
        let line = &bytes[at..at + end];
        let count = |line: &[u8]| {
            let text = std::str::from_utf8(line.get(1..).unwrap_or_default()).ok();
            text.and_then(|text| text.trim_end().parse::<i64>().ok())
                .filter(|_| seen <= ELEMENTS_MAX)
                .ok_or_else(|| NotResp(String::from_utf8_lossy(&line[..line.len().min(80)]).into()))
        };
        at += end + 1;
        wanted -= 1;
        match line.first() {
            Some(b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(') => {}
            Some(b'$' | b'=' | b'!') => {
                // None has length -1 and nothing that follows.
                at += usize::try_from(count(line)?).map_or(0, |len| len.saturating_add(2));
            }
            Some(b'*' | b'>' | b'~') => wanted += usize::try_from(count(line)?).unwrap_or(0),
            Some(b'%') => wanted += 2 * usize::try_from(count(line)?).unwrap_or(0),
            _ => {
                let start = &line[..line.len().min(80)];
                return Err(NotResp(String::from_utf8_lossy(start).into()));
            }
        }
    }
    Ok((at <= bytes.len()).then_some(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"+OK\r\n*3\r\n:1\r\n$8\r\nab\r\ndefg\r\n$-1\r\n>2\r\n$1\r\nx\r\n*0\r\n-ERR no\r\n%1\r\n+a\r\n_\r\n";
    const VALUES: [&[u8]; 5] = [
        b"+OK\r\n",
        b"*3\r\n:1\r\n$8\r\nab\r\ndefg\r\n$-1\r\n",
        b">2\r\n$1\r\nx\r\n*0\r\n",
        b"-ERR no\r\n",
        b"%1\r\n+a\r\n_\r\n",
    ];

    #[test]
    fn values_are_cut_out_however_the_bytes_come() {
        for size in 1..=STREAM.len() {
            let mut values = Values::default();
            let mut found = Vec::new();
            for part in STREAM.chunks(size) {
                values
                    .feed(part, &mut |value| found.push(value.to_vec()))
                    .expect("RESP");
            }
            assert_eq!(found, VALUES, "in pieces of {size}");
        }
    }

    #[test]
    fn other_protocols_are_no_values() {
        for bytes in [&b"HTTP/1.1 200 OK\r\n"[..], b"*x\r\n", b"\r\n"] {
            let fed = Values::default().feed(bytes, &mut |_| panic!("no value"));
            assert!(fed.is_err(), "{bytes:?}");
        }
    }
}
