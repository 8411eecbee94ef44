//! What a fast subscriber has to know of Centrifuge: where in a frame the publication's
//! number stands, that a ping wants a pong, and nothing else. No JSON is parsed for a delivery.

use std::cell::Cell;

use memchr::memmem::Finder;

/// Stands before the number in the data of each publication of a run.
const MARK: &str = r#""seq":""#;

/// Which publication a delivery is: sequence number `sequence` (from 0) of `publisher`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) publisher: u32,
    pub(crate) sequence: u64,
}

/// The data of a publication: JSON of `size` bytes (or the least that holds the stamp).
pub(crate) fn data(stamp: Stamp, size: usize) -> String {
    let mut data = format!(r#"{{{MARK}{}.{}","x":""#, stamp.publisher, stamp.sequence);
    let padding = size.saturating_sub(data.len() + 2);
    data.extend(std::iter::repeat_n('x', padding));
    data.push_str(r#""}"#);
    data
}

/// The stamp of a publication's data that came alone.
pub(crate) fn stamp_of(data: &[u8]) -> Option<Stamp> {
    parse(data.strip_prefix(b"{")?.strip_prefix(MARK.as_bytes())?)
}

/// Finds the stamps in frames. Publications of a run look alike, so the mark is nearly always where it
/// was in the frame before.
#[derive(Debug)]
pub(crate) struct Deliveries {
    finder: Finder<'static>,
    last_at: Cell<usize>,
}

impl Deliveries {
    pub(crate) fn new() -> Self {
        Self {
            finder: Finder::new(MARK),
            last_at: Cell::new(0),
        }
    }

    /// Every publication in a text frame (one or more lines, one publication a line), in order.
    pub(crate) fn of<'a>(&'a self, frame: &'a [u8]) -> impl Iterator<Item = Stamp> + 'a {
        let mut rest = Some(frame);
        std::iter::from_fn(move || {
            loop {
                let line = rest?;
                let Some(at) = self.find(line) else {
                    rest = None;
                    return None;
                };
                let behind = &line[at + MARK.len()..];
                rest = memchr::memchr(b'\n', behind).map(|end| &behind[end + 1..]);
                if let Some(stamp) = parse(behind) {
                    return Some(stamp);
                }
            }
        })
    }

    /// Where the first mark stands.
    fn find(&self, bytes: &[u8]) -> Option<usize> {
        let last = self.last_at.get();
        if bytes
            .get(last..)
            .is_some_and(|bytes| bytes.starts_with(MARK.as_bytes()))
        {
            return Some(last);
        }
        let at = self.finder.find(bytes)?;
        self.last_at.set(at);
        Some(at)
    }
}

fn parse(bytes: &[u8]) -> Option<Stamp> {
    let (publisher, rest) = number(bytes, b'.')?;
    let (sequence, _) = number(rest, b'"')?;
    Some(Stamp {
        publisher: u32::try_from(publisher).ok()?,
        sequence,
    })
}

/// Digits up to `end`, and what follows it.
fn number(bytes: &[u8], end: u8) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(20) {
        if *byte == end {
            return (index > 0).then(|| (value, &bytes[index + 1..]));
        }
        value = value.checked_mul(10)?.checked_add(u64::from(
            byte.checked_sub(b'0').filter(|digit| *digit < 10)?,
        ))?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_found_in_every_line_of_a_frame() {
        let stamps = [
            Stamp {
                publisher: 0,
                sequence: 0,
            },
            Stamp {
                publisher: 12,
                sequence: 98_765,
            },
        ];
        let frame = stamps
            .map(|stamp| {
                format!(
                    r#"{{"push":{{"channel":"c","pub":{{"data":{}}}}}}}"#,
                    data(stamp, 100)
                )
            })
            .join("\n");
        assert_eq!(
            Deliveries::new().of(frame.as_bytes()).collect::<Vec<_>>(),
            stamps
        );
        for stamp in stamps {
            assert_eq!(stamp_of(data(stamp, 100).as_bytes()), Some(stamp));
        }
        assert_eq!(stamp_of(b"{\"sequence\":1}"), None);
        assert_eq!(Deliveries::new().of(b"{}").count(), 0);
        assert_eq!(
            Deliveries::new()
                .of(br#""seq":"x.1" "seq":"1." "seq":"99999999999999999999999.1""#)
                .count(),
            0
        );
    }

    #[test]
    fn data_is_json_of_the_size_asked_for() {
        let data = data(
            Stamp {
                publisher: 3,
                sequence: 4,
            },
            100,
        );
        assert_eq!(data.len(), 100);
        let value: serde_json::Value = serde_json::from_str(&data).expect("JSON");
        assert_eq!(value["seq"], "3.4");
        assert!(
            self::data(
                Stamp {
                    publisher: 3,
                    sequence: 4
                },
                1
            )
            .len()
                < 30
        );
    }
}
