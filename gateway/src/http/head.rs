//! Where a request head ends, and whether what has come can still become one. The bytes are kept by the caller and
//! shown again, longer, when more have come.
//!
//! Each byte is searched for the end once, and what is incomplete is parsed only when it has doubled since the last
//! time: a head that comes byte by byte costs little more than one that comes at once, and garbage is refused early
//! all the same. The verdict on a given head does not depend on how it was cut.

use super::request::{Request, read};
use super::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX, Policy, Rejection};

/// What is known of the head of one connection.
#[derive(Debug, Default)]
pub struct HeadScan {
    /// Bytes searched for the end of the head.
    scanned: usize,
    /// Where the line begins that `scanned` stands in.
    line_start: usize,
    /// A line that is not empty has ended (empty lines before the request line are skipped, RFC 9112 §2.2).
    begun: bool,
    /// Length at which an incomplete head is parsed next.
    parse_at: usize,
}

/// What became of the head.
#[derive(Debug)]
pub enum Progress<'a> {
    /// More bytes are needed.
    Incomplete,
    /// The head has been read, or refused.
    Complete {
        /// What is asked for.
        request: Request<'a>,
        /// Length of the head in bytes; what follows belongs to the protocol that is upgraded to. Zero when refused.
        head_len: usize,
    },
}

enum End {
    At(usize),
    BareLf(usize),
    NotYet,
}

impl HeadScan {
    /// A connection of which nothing has come.
    pub const fn new() -> HeadScan {
        HeadScan {
            scanned: 0,
            line_start: 0,
            begun: false,
            parse_at: 0,
        }
    }

    /// Looks at everything that has come so far: `received` begins with what it was the last time.
    pub fn advance<'a>(&mut self, received: &'a [u8], policy: &Policy) -> Progress<'a> {
        let rejection = match self.find_end(received) {
            End::At(head_len) => match parse(&received[..head_len], |head| read(head, policy)) {
                Ok(Some(request)) => {
                    let head_len = if matches!(request, Request::Rejected(_)) {
                        0
                    } else {
                        head_len
                    };
                    return Progress::Complete { request, head_len };
                }
                // Both see the same end, or the line before it is refused.
                Ok(None) => Rejection::LineEnding,
                Err(rejection) => rejection,
            },
            // What stands before the fault is judged first, as it would have been, had it come alone.
            End::BareLf(at) => check(&received[..at])
                .err()
                .unwrap_or(Rejection::LineEnding),
            End::NotYet if received.len() >= HEAD_BYTES_MAX => check(&received[..HEAD_BYTES_MAX])
                .err()
                .unwrap_or(Rejection::HeadTooLarge),
            End::NotYet if received.len() >= self.parse_at => {
                self.parse_at = received.len() * 2;
                match check(received) {
                    Ok(()) => return Progress::Incomplete,
                    Err(rejection) => rejection,
                }
            }
            End::NotYet => return Progress::Incomplete,
        };
        Progress::Complete {
            request: Request::Rejected(rejection),
            head_len: 0,
        }
    }

    fn find_end(&mut self, received: &[u8]) -> End {
        let received = &received[..received.len().min(HEAD_BYTES_MAX)];
        while let Some(at) = memchr::memchr(b'\n', &received[self.scanned..]) {
            let at = self.scanned + at;
            let Some(line) = received[self.line_start..at].strip_suffix(b"\r") else {
                return End::BareLf(at);
            };
            self.scanned = at + 1;
            self.line_start = at + 1;
            if !line.is_empty() {
                self.begun = true;
            } else if self.begun {
                return End::At(at + 1);
            }
        }
        self.scanned = received.len();
        End::NotYet
    }
}

/// Whether `bytes` may be the beginning of a head.
fn check(bytes: &[u8]) -> Result<(), Rejection> {
    parse(bytes, |_| ()).map(|_| ())
}

/// `None` while incomplete.
fn parse<'a, T>(
    bytes: &'a [u8],
    read: impl FnOnce(&httparse::Request<'_, 'a>) -> T,
) -> Result<Option<T>, Rejection> {
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => Ok(Some(read(&head))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::Version) => Err(Rejection::HttpVersion),
        Err(httparse::Error::TooManyHeaders) => Err(Rejection::TooManyFields),
        Err(httparse::Error::NewLine) => Err(Rejection::LineEnding),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => Err(Rejection::Field),
        Err(httparse::Error::Token | httparse::Error::Status) => Err(Rejection::RequestLine),
    }
}
