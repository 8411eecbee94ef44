//! The PROXY protocol, version 2 (binary): how the balancer tells a gateway who the client is. Pure.
//!
//! A header is believed only from trusted addresses; that is the caller's to check. Written by
//! [`encode_v2`] and [`encode_local_v2`], read by [`parse_v2`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;

/// What every version 2 header begins with.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Longest header that is accepted, in bytes, signature and TLVs included: the smallest segment that TCP over IPv4 has
/// to carry, so every sender that keeps the specification's promise (the header comes in one segment) stays below it.
pub const HEADER_BYTES_MAX: usize = 536;

/// Longest header that is written: addresses of IPv6, no TLV.
pub const ENCODED_BYTES_MAX: usize = FIXED_BYTES + INET6_BYTES;

const FIXED_BYTES: usize = 16;
const INET_BYTES: usize = 12;
const INET6_BYTES: usize = 36;
const VERSION_2: u8 = 0x20;
const COMMAND_LOCAL: u8 = 0;
const COMMAND_PROXY: u8 = 1;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// A header to send before the first byte of the client. Dereferences to its bytes.
#[derive(Clone, Copy, Debug)]
pub struct EncodedHeader {
    bytes: [u8; ENCODED_BYTES_MAX],
    len: u8,
}

impl Deref for EncodedHeader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parse {
    /// Not the signature: the client's own bytes begin here.
    NotProxy,
    /// The beginning of a header: more bytes are needed.
    Incomplete,
    /// A whole header.
    Proxy {
        /// Its length in bytes; what follows is the client's.
        len: usize,
        /// The client's address. `None`: the sender speaks for itself (LOCAL, a health check), or the family is not
        /// TCP over IP; the address of the connection itself counts then.
        source: Option<SocketAddr>,
    },
    /// The signature, but no valid header behind it: end the connection.
    Invalid(Invalid),
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Invalid {
    /// Another version than 2.
    Version,
    /// A command other than LOCAL and PROXY.
    Command,
    /// An address family or transport that the specification does not have.
    Family,
    /// Too short for the addresses of its family.
    TooShort,
    /// Longer than [`HEADER_BYTES_MAX`].
    TooLong,
}

impl Invalid {
    /// The label value for the metric.
    pub const fn label(self) -> &'static str {
        match self {
            Invalid::Version => "version",
            Invalid::Command => "command",
            Invalid::Family => "family",
            Invalid::TooShort => "too_short",
            Invalid::TooLong => "too_long",
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Invalid::Version => "PROXY protocol header of an unknown version",
            Invalid::Command => "PROXY protocol header with an unknown command",
            Invalid::Family => "PROXY protocol header with an unknown address family",
            Invalid::TooShort => "PROXY protocol header too short for its addresses",
            Invalid::TooLong => "PROXY protocol header longer than 536 bytes",
        })
    }
}

impl std::error::Error for Invalid {}

/// The header for a client at `source` that connected to `destination`: 28 bytes for IPv4, 52 for IPv6. IPv4 addresses
/// that a dual-stack socket shows as IPv6 are written as IPv4; a mixed pair is written as IPv6.
pub fn encode_v2(source: SocketAddr, destination: SocketAddr) -> EncodedHeader {
    let mut header = fixed(COMMAND_PROXY);
    let address_bytes = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.bytes[13] = TCP_OVER_IPV4;
            header.bytes[16..20].copy_from_slice(&from.octets());
            header.bytes[20..24].copy_from_slice(&to.octets());
            header.bytes[24..26].copy_from_slice(&source.port().to_be_bytes());
            header.bytes[26..28].copy_from_slice(&destination.port().to_be_bytes());
            INET_BYTES
        }
        (from, to) => {
            header.bytes[13] = TCP_OVER_IPV6;
            header.bytes[16..32].copy_from_slice(&as_v6(from).octets());
            header.bytes[32..48].copy_from_slice(&as_v6(to).octets());
            header.bytes[48..50].copy_from_slice(&source.port().to_be_bytes());
            header.bytes[50..52].copy_from_slice(&destination.port().to_be_bytes());
            INET6_BYTES
        }
    };
    header.bytes[15] = address_bytes as u8;
    header.len = (FIXED_BYTES + address_bytes) as u8;
    header
}

/// The header of a connection that the balancer makes for itself (a probe): 16 bytes.
pub fn encode_local_v2() -> EncodedHeader {
    fixed(COMMAND_LOCAL)
}

fn fixed(command: u8) -> EncodedHeader {
    let mut bytes = [0; ENCODED_BYTES_MAX];
    bytes[..12].copy_from_slice(&SIGNATURE);
    bytes[12] = VERSION_2 | command;
    EncodedHeader {
        bytes,
        len: FIXED_BYTES as u8,
    }
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Reads a header from the first bytes of a connection: everything that has come so far. Faults are found at the first
/// byte that shows them; the verdict does not depend on how the bytes were cut. TLVs are skipped unread.
pub fn parse_v2(bytes: &[u8]) -> Parse {
    let seen = bytes.len().min(SIGNATURE.len());
    if bytes[..seen] != SIGNATURE[..seen] {
        return Parse::NotProxy;
    }
    let Some(&version_command) = bytes.get(12) else {
        return Parse::Incomplete;
    };
    if version_command & 0xf0 != VERSION_2 {
        return Parse::Invalid(Invalid::Version);
    }
    let local = match version_command & 0x0f {
        COMMAND_LOCAL => true,
        COMMAND_PROXY => false,
        _ => return Parse::Invalid(Invalid::Command),
    };

    let Some(&family) = bytes.get(13) else {
        return Parse::Incomplete;
    };
    // The family of a LOCAL header is to be ignored, whatever it is.
    let needed = match family {
        _ if local => 0,
        0x00 => 0,
        0x11 | 0x12 => INET_BYTES,
        0x21 | 0x22 => INET6_BYTES,
        0x31 | 0x32 => 216,
        // Half unspecified: defined by no one, tolerated as unspecified.
        0x01 | 0x02 | 0x10 | 0x20 | 0x30 => 0,
        _ => return Parse::Invalid(Invalid::Family),
    };

    let Some(length) = bytes.get(14..).and_then(|rest| rest.first_chunk::<2>()) else {
        return Parse::Incomplete;
    };
    let length = usize::from(u16::from_be_bytes(*length));
    if length < needed {
        return Parse::Invalid(Invalid::TooShort);
    }
    let len = FIXED_BYTES + length;
    if len > HEADER_BYTES_MAX {
        return Parse::Invalid(Invalid::TooLong);
    }
    let Some(block) = bytes.get(FIXED_BYTES..len) else {
        return Parse::Incomplete;
    };
    let source = match family {
        _ if local => None,
        TCP_OVER_IPV4 => source_v4(block),
        TCP_OVER_IPV6 => source_v6(block),
        _ => None,
    };
    Parse::Proxy { len, source }
}

fn source_v4(block: &[u8]) -> Option<SocketAddr> {
    let address = *block.first_chunk::<4>()?;
    let port = *block.get(8..)?.first_chunk::<2>()?;
    Some(SocketAddr::from((
        Ipv4Addr::from(address),
        u16::from_be_bytes(port),
    )))
}

fn source_v6(block: &[u8]) -> Option<SocketAddr> {
    let address = *block.first_chunk::<16>()?;
    let port = *block.get(32..)?.first_chunk::<2>()?;
    Some(SocketAddr::from((
        Ipv6Addr::from(address).to_canonical(),
        u16::from_be_bytes(port),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn raw(version_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([version_command, family]);
        bytes.extend((block.len() as u16).to_be_bytes());
        bytes.extend(block);
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let cases = [
            ("192.0.2.1:4711", "198.51.100.2:80", 28, "192.0.2.1:4711"),
            (
                "[2001:db8::1]:4711",
                "[2001:db8::2]:80",
                52,
                "[2001:db8::1]:4711",
            ),
            (
                "[::ffff:192.0.2.1]:4711",
                "[::ffff:198.51.100.2]:80",
                28,
                "192.0.2.1:4711",
            ),
            ("192.0.2.1:4711", "[2001:db8::2]:80", 52, "192.0.2.1:4711"),
        ];
        for (source, destination, len, seen) in cases {
            let header = encode_v2(addr(source), addr(destination));
            assert_eq!(header.len(), len);
            assert_eq!(
                parse_v2(&header),
                Parse::Proxy {
                    len,
                    source: Some(addr(seen))
                }
            );
        }
        assert_eq!(
            parse_v2(&encode_local_v2()),
            Parse::Proxy {
                len: 16,
                source: None
            }
        );
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let header = encode_v2(addr("127.0.0.1:1"), addr("127.0.0.2:258"));
        let expected = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c\x7f\0\0\x01\x7f\0\0\x02\0\x01\x01\x02";
        assert_eq!(*header, *expected);
    }

    #[test]
    fn every_prefix_of_a_header_is_incomplete_and_what_follows_is_left() {
        for header in [
            encode_v2(addr("192.0.2.1:1"), addr("192.0.2.2:2")).to_vec(),
            encode_v2(addr("[2001:db8::1]:1"), addr("[2001:db8::2]:2")).to_vec(),
            raw(0x21, 0x11, &[7; 12 + 100]),
        ] {
            for cut in 0..header.len() {
                assert_eq!(parse_v2(&header[..cut]), Parse::Incomplete, "cut {cut}");
            }
            let whole = parse_v2(&header);
            assert!(matches!(whole, Parse::Proxy { len, source: Some(_) } if len == header.len()));
            assert_eq!(
                parse_v2(&[&header[..], b"GET / HTTP/1.1\r\n"].concat()),
                whole
            );
        }
    }

    #[test]
    fn a_client_without_the_header_is_seen_at_its_first_byte_that_differs() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"G",
            b"\r\n\r\nGET",
            b"\r\n\r\n\0\r\nQUIT\r",
            b"PROXY TCP4 ",
        ] {
            assert_eq!(parse_v2(bytes), Parse::NotProxy);
        }
    }

    #[test]
    fn bad_headers_are_refused_and_foreign_families_accepted_without_an_address() {
        let cases = [
            (raw(0x11, 0x11, &[0; 12]), Parse::Invalid(Invalid::Version)),
            (raw(0x22, 0x11, &[0; 12]), Parse::Invalid(Invalid::Command)),
            (raw(0x21, 0x41, &[0; 12]), Parse::Invalid(Invalid::Family)),
            (raw(0x21, 0x13, &[0; 12]), Parse::Invalid(Invalid::Family)),
            (raw(0x21, 0x11, &[0; 11]), Parse::Invalid(Invalid::TooShort)),
            (raw(0x21, 0x21, &[0; 35]), Parse::Invalid(Invalid::TooShort)),
            (
                raw(0x21, 0x31, &[0; 215]),
                Parse::Invalid(Invalid::TooShort),
            ),
            (raw(0x21, 0x11, &[0; 521]), Parse::Invalid(Invalid::TooLong)),
            (raw(0x20, 0xff, &[0; 521]), Parse::Invalid(Invalid::TooLong)),
            (
                raw(0x21, 0x00, b""),
                Parse::Proxy {
                    len: 16,
                    source: None,
                },
            ),
            (
                raw(0x21, 0x00, &[0; 30]),
                Parse::Proxy {
                    len: 46,
                    source: None,
                },
            ),
            (
                raw(0x21, 0x12, &[0; 12]),
                Parse::Proxy {
                    len: 28,
                    source: None,
                },
            ),
            (
                raw(0x21, 0x31, &[0; 216]),
                Parse::Proxy {
                    len: 232,
                    source: None,
                },
            ),
            (
                raw(0x20, 0xff, &[0; 5]),
                Parse::Proxy {
                    len: 21,
                    source: None,
                },
            ),
            (
                raw(0x21, 0x11, &[0; 520]),
                Parse::Proxy {
                    len: 536,
                    source: Some(addr("0.0.0.0:0")),
                },
            ),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse_v2(&bytes), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn any_bytes_behind_the_signature_get_a_verdict_that_does_not_depend_on_cuts() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20_000 {
            let mut bytes = SIGNATURE.to_vec();
            let len = random.usize(..64);
            bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(len));
            if random.bool() && bytes.len() > 15 {
                bytes[12] = 0x20 | random.u8(..3);
                bytes[13] = random.u8(..4) << 4 | random.u8(..3);
                bytes[14] = 0;
            }
            let whole = parse_v2(&bytes);
            let first_verdict = (0..=bytes.len())
                .map(|cut| parse_v2(&bytes[..cut]))
                .find(|verdict| *verdict != Parse::Incomplete);
            assert_eq!(
                first_verdict.unwrap_or(Parse::Incomplete),
                whole,
                "{bytes:x?}"
            );
        }
    }
}
