//! The request head of a new connection: where it ends, and which affinity key it carries.
//!
//! Pure: bytes in, verdict out. The balancer reads a head only to route by it; it never judges it.
//! Whatever does not parse, does not end within the bounds or is not HTTP at all is passed on by
//! source address, and the gateway answers it.
//!
//! Invariants:
//! - no byte is looked at twice, however finely a client tears its head;
//! - the work and the memory per connection are bounded by [`HEAD_LEN_MAX`].

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

/// Longest request head that is read for its affinity key, in bytes.
pub const HEAD_LEN_MAX: usize = 8 * 1024;

/// Most header fields of a head that is read for its key.
const HEADER_COUNT_MAX: usize = 100;

/// Name of the query parameter that carries the affinity key.
const QUERY_KEY: &str = "sid";

/// Name of the cookie that carries the affinity key.
const COOKIE_KEY: &[u8] = b"flux_sid";

/// Finds the end of a head over several reads.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct HeadReader {
    scanned: usize,
}

/// What the bytes read so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The head goes on; read more.
    More,
    /// A whole head.
    Complete(Head<'a>),
    /// No head that could be routed by: pass the bytes on by source address.
    Opaque(Opaque),
}

/// Why bytes are passed on without being understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opaque {
    /// The first byte cannot begin an HTTP request (TLS, another protocol).
    NotHttp,
    /// No end of the head within [`HEAD_LEN_MAX`].
    TooLong,
    /// It ended, and it is no HTTP/1 head.
    Malformed,
}

/// A whole request head.
#[derive(Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// Its length, the empty line included. Bytes after it belong to the body or the next protocol.
    pub len: usize,
    /// Affinity key: `sid` of the query, else the cookie `flux_sid`; decoded; never empty.
    pub sid: Option<Cow<'a, [u8]>>,
    /// Whether sending it a second time to another node does no harm (RFC 9110, section 9.2.1).
    pub safe: bool,
}

impl HeadReader {
    /// Looks at everything received so far; `bytes` must begin with what earlier calls were given.
    pub fn read<'a>(&mut self, bytes: &'a [u8]) -> Progress<'a> {
        match bytes.first() {
            None => return Progress::More,
            Some(first) if !first.is_ascii_uppercase() => return Progress::Opaque(Opaque::NotHttp),
            Some(_) => {}
        }
        let window = &bytes[..bytes.len().min(HEAD_LEN_MAX)];
        match self.end_of_head(window) {
            Some(len) => parse(&window[..len]),
            None if bytes.len() >= HEAD_LEN_MAX => Progress::Opaque(Opaque::TooLong),
            None => Progress::More,
        }
    }

    /// The length up to and including the empty line. A line ends in LF, with or without CR
    /// (RFC 9112, section 2.2, lets a recipient be that lenient, and the gateway must see the same end).
    fn end_of_head(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(found) = memchr::memchr(b'\n', &bytes[self.scanned..]) {
            let after = self.scanned + found + 1;
            match &bytes[after..] {
                [b'\n', ..] => return Some(after + 1),
                [b'\r', b'\n', ..] => return Some(after + 2),
                // The next read decides what follows this line end.
                [] | [b'\r'] => {
                    self.scanned = after - 1;
                    return None;
                }
                _ => self.scanned = after,
            }
        }
        self.scanned = bytes.len();
        None
    }
}

fn parse(head: &[u8]) -> Progress<'_> {
    let mut headers = [httparse::EMPTY_HEADER; HEADER_COUNT_MAX];
    let mut request = httparse::Request::new(&mut headers);
    if !matches!(request.parse(head), Ok(httparse::Status::Complete(_))) {
        return Progress::Opaque(Opaque::Malformed);
    }
    let sid = request.path.and_then(sid_of_target).or_else(|| {
        let mut cookies = request
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case("cookie"));
        cookies.find_map(|header| sid_of_cookies(header.value))
    });
    let safe = matches!(request.method, Some("GET" | "HEAD" | "OPTIONS"));
    Progress::Complete(Head {
        len: head.len(),
        sid,
        safe,
    })
}

fn sid_of_target(target: &str) -> Option<Cow<'_, [u8]>> {
    let (_, query) = target.split_once('?')?;
    let query = query.split('#').next().unwrap_or_default();
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        (name == QUERY_KEY && !value.is_empty()).then(|| form_decoded(value.as_bytes()))
    })
}

fn sid_of_cookies(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    value.split(|byte| *byte == b';').find_map(|pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(COOKIE_KEY)?.strip_prefix(b"=")?;
        let value = value
            .strip_prefix(b"\"")
            .and_then(|rest| rest.strip_suffix(b"\""))
            .unwrap_or(value);
        (!value.is_empty()).then_some(Cow::Borrowed(value))
    })
}

/// Decodes `application/x-www-form-urlencoded`, as `/api/ring?key=K` does for its own query: a key
/// must mean the same in both. A `%` without two digits stands for itself.
fn form_decoded(value: &[u8]) -> Cow<'_, [u8]> {
    if !value.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(value);
    }
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        decoded.push(match (byte, tail) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                _ => b'%',
            },
            _ => byte,
        });
    }
    Cow::Owned(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// What a source address counts as: the address itself for IPv4, the /64 for IPv6 (one subscriber
/// has at least that much, so a finer key would neither hold affinity nor bound anything).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl Source {
    /// The source that `address` belongs to; an IPv4-mapped address counts as IPv4.
    pub fn of(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                Source(IpAddr::V6((u128::from(address) & (u128::MAX << 64)).into()))
            }
            address => Source(address),
        }
    }
}

/// The affinity key in words, as `/api/ring?key=K` takes it: `192.0.2.7`, `2001:db8:1:2::/64`.
impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(out, "{address}"),
            IpAddr::V6(prefix) => write!(out, "{prefix}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Progress<'_> {
        HeadReader::default().read(bytes)
    }

    fn sid(bytes: &[u8]) -> Option<String> {
        match whole(bytes) {
            Progress::Complete(head) => head
                .sid
                .map(|sid| String::from_utf8_lossy(&sid).into_owned()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sid_comes_from_the_query_then_from_the_cookie() {
        assert_eq!(
            sid(b"GET /ws?a=1&sid=alice HTTP/1.1\r\nCookie: flux_sid=bob\r\n\r\n").as_deref(),
            Some("alice")
        );
        assert_eq!(
            sid(b"GET /ws?asid=1 HTTP/1.1\r\ncookie: x=1; flux_sid=bob\r\n\r\n").as_deref(),
            Some("bob")
        );
        assert_eq!(
            sid(b"GET /ws?sid= HTTP/1.1\r\nCookie: flux_sid=\"b\"\r\n\r\n").as_deref(),
            Some("b")
        );
        assert_eq!(
            sid(b"GET /ws HTTP/1.1\r\nCookie: xflux_sid=1\r\nCookie: flux_sid=2\r\n\r\n")
                .as_deref(),
            Some("2")
        );
        assert_eq!(sid(b"GET /ws HTTP/1.1\r\nX: flux_sid=bob\r\n\r\n"), None);
    }

    #[test]
    fn sid_is_form_decoded() {
        assert_eq!(
            sid(b"GET /?sid=a%20b+c%2Fd HTTP/1.1\r\n\r\n").as_deref(),
            Some("a b c/d")
        );
        assert_eq!(
            sid(b"GET /?sid=100%&x HTTP/1.1\r\n\r\n").as_deref(),
            Some("100%")
        );
        assert_eq!(
            sid(b"GET /?sid=%zz%4 HTTP/1.1\r\n\r\n").as_deref(),
            Some("%zz%4")
        );
    }

    #[test]
    fn a_head_torn_anywhere_reads_as_the_whole_one() {
        let head = b"GET /ws?sid=alice HTTP/1.1\r\nHost: a\r\nCookie: flux_sid=b\r\n\r\nBODY";
        let expected = whole(head);
        for step in 1..head.len() {
            let mut reader = HeadReader::default();
            let mut seen = step.min(head.len());
            let verdict = loop {
                match reader.read(&head[..seen]) {
                    Progress::More => seen = (seen + step).min(head.len()),
                    verdict => break verdict,
                }
            };
            assert_eq!(verdict, expected, "step {step}");
        }
        let Progress::Complete(head) = expected else {
            panic!("{expected:?}")
        };
        assert_eq!(head.len, 59);
        assert!(head.safe);
    }

    #[test]
    fn what_is_no_head_is_opaque_at_once() {
        assert_eq!(whole(b"\x16\x03\x01"), Progress::Opaque(Opaque::NotHttp));
        assert_eq!(whole(b"\r\nGET"), Progress::Opaque(Opaque::NotHttp));
        assert_eq!(whole(b"GET /\r\n\r\n"), Progress::Opaque(Opaque::Malformed));
        assert_eq!(whole(b""), Progress::More);
    }

    #[test]
    fn a_huge_head_is_opaque_when_the_bound_is_reached() {
        let mut head = b"GET / HTTP/1.1\r\nX: ".to_vec();
        head.resize(HEAD_LEN_MAX - 1, b'a');
        assert_eq!(whole(&head), Progress::More);
        head.resize(64 * 1024, b'a');
        head.extend_from_slice(b"\r\n\r\n");
        assert_eq!(whole(&head), Progress::Opaque(Opaque::TooLong));
    }

    #[test]
    fn many_headers_are_opaque() {
        let mut head = b"GET / HTTP/1.1\r\n".to_vec();
        for _ in 0..=HEADER_COUNT_MAX {
            head.extend_from_slice(b"a:b\r\n");
        }
        head.extend_from_slice(b"\r\n");
        assert_eq!(whole(&head), Progress::Opaque(Opaque::Malformed));
    }

    #[test]
    fn lines_may_end_in_a_bare_line_feed() {
        let Progress::Complete(head) = whole(b"POST /x?sid=1 HTTP/1.1\nHost: a\n\nrest") else {
            panic!("not a head")
        };
        assert_eq!((head.len, head.safe), (32, false));
    }

    #[test]
    fn sources_are_an_ipv4_address_or_an_ipv6_half() {
        let of = |text: &str| Source::of(text.parse().expect("an address")).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_never_differ_by_chunking(bytes: Vec<u8>, step in 1_usize..9) {
            let bytes = [b"GET /?sid=".as_slice(), &bytes, b"\r\n\n"].concat();
            let mut reader = HeadReader::default();
            let mut seen = 1;
            let torn = loop {
                match reader.read(&bytes[..seen]) {
                    Progress::More if seen == bytes.len() => break Progress::More,
                    Progress::More => seen = (seen + step).min(bytes.len()),
                    verdict => break verdict,
                }
            };
            proptest::prop_assert_eq!(torn, whole(&bytes));
        }
    }
}
