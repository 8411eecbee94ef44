//! How a flow over plain TCP begins: with a line that says what it is for. A balancer's PROXY header may stand before
//! it. The line's first byte has to be none that an HTTP request begins with, so that a balancer passes it on at once.

use flux_runtime::proxy_protocol::{self, Parse};

/// Longest beginning of a flow, PROXY header included.
pub(crate) const HEAD_MAX: usize = 1024;

/// The whole line with its end, if all of it has come: `head` is what came so far, and not a byte of what follows the
/// line, since a PROXY header has line ends too.
pub(crate) fn line(head: &[u8]) -> Option<&[u8]> {
    let line = match proxy_protocol::parse_v2(head) {
        Parse::Proxy { len, .. } => head.get(len..),
        Parse::NotProxy => Some(head),
        Parse::Incomplete | Parse::Invalid(_) => None,
    };
    line.filter(|line| line.ends_with(b"\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn a_line_is_found_with_and_without_a_proxy_header() {
        let address: SocketAddr = "127.0.0.1:80".parse().expect("an address");
        let mut head = proxy_protocol::encode_v2(address, address).to_vec();
        assert_eq!(line(&head), None);
        head.extend_from_slice(b"bulk down\n");
        assert_eq!(line(&head), Some(&b"bulk down\n"[..]));
        assert_eq!(line(b"bulk down\n"), Some(&b"bulk down\n"[..]));
        assert_eq!(line(b"bulk do"), None);
    }
}
