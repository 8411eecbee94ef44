//! Where a run connects to (always an address that the user named) and from which
//! source addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, bail};
use tungstenite::http::Uri;

/// Connections from one source address to one destination before the next source is taken.
/// The kernel's default ephemeral range has 28,232 ports.
pub(crate) const PER_SOURCE_MAX: usize = 28_000;

/// A parsed `ws://HOST:PORT/PATH?QUERY` or `tcp://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// `Host` header.
    pub(crate) authority: String,
    /// Path and query, starting with `/`.
    pub(crate) path: String,
    /// Plain TCP: bytes instead of WebSocket messages.
    pub(crate) raw_tcp: bool,
}

impl Target {
    /// Parses and resolves once, so that no run depends on a resolver later.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let uri: Uri = url.parse().with_context(|| {
            format!("`{url}` is not a URL like ws://127.0.0.1:8080/connection/websocket")
        })?;
        let raw_tcp = match uri.scheme_str() {
            Some("ws") => false,
            Some("tcp") => true,
            Some("wss") => bail!("`{url}`: TLS is not spoken here; give the plain port (ws://)"),
            _ => bail!("`{url}`: the scheme must be ws:// or tcp://"),
        };
        let authority = uri.authority().context("the URL names no host")?;
        let port = authority.port_u16().unwrap_or(80);
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let address = (host, port)
            .to_socket_addrs()
            .with_context(|| format!("`{host}` does not resolve"))?
            .next()
            .with_context(|| format!("`{host}` has no address"))?;
        let path = uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned();
        Ok(Self {
            address,
            authority: authority.to_string(),
            path,
            raw_tcp,
        })
    }

    /// The path with one more query parameter.
    pub(crate) fn path_with(&self, name: &str, value: &str) -> String {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        format!("{}{separator}{name}={value}", self.path)
    }

    /// The source address for connection number `n`: the kernel's choice for the first
    /// 28,000; on loopback 127.0.0.2, .3, ... after that.
    pub(crate) fn source(&self, n: usize) -> Option<IpAddr> {
        let block = n / PER_SOURCE_MAX;
        (block > 0 && self.address.ip().is_loopback() && self.address.is_ipv4())
            .then(|| IpAddr::V4(Ipv4Addr::new(127, 0, 0, (1 + block).min(254) as u8)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("ws://127.0.0.1:8080/connection/websocket?a=1").expect("target");
        assert_eq!(target.address, "127.0.0.1:8080".parse().expect("address"));
        assert_eq!(target.authority, "127.0.0.1:8080");
        assert!(!target.raw_tcp);
        assert_eq!(
            target.path_with("sid", "x"),
            "/connection/websocket?a=1&sid=x"
        );
        let raw = Target::parse("tcp://[::1]:9").expect("target");
        assert!(raw.raw_tcp && raw.address.is_ipv6());
        assert_eq!(
            Target::parse("ws://127.0.0.1:1")
                .expect("target")
                .path_with("sid", "x"),
            "/?sid=x"
        );
    }

    #[test]
    fn what_is_not_spoken_is_refused_with_the_remedy() {
        assert!(
            Target::parse("wss://127.0.0.1/")
                .expect_err("tls")
                .to_string()
                .contains("plain port")
        );
        assert!(
            Target::parse("http://127.0.0.1/")
                .expect_err("scheme")
                .to_string()
                .contains("ws://")
        );
        assert!(Target::parse("127.0.0.1:80").is_err());
    }

    #[test]
    fn many_connections_come_from_several_sources() {
        let target = Target::parse("ws://127.0.0.1:80/").expect("target");
        assert_eq!(target.source(27_999), None);
        assert_eq!(
            target.source(28_000),
            Some("127.0.0.2".parse().expect("address"))
        );
        assert_eq!(
            target.source(60_000),
            Some("127.0.0.3".parse().expect("address"))
        );
    }
}
