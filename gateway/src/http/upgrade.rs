//! A WebSocket handshake (RFC 6455 §4.2).

use std::borrow::Cow;

use crate::authority::Headers;

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

/// Where a WebSocket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/connection/websocket`: the Centrifuge protocol.
    Centrifuge,
    /// `/connection/uni_websocket`: its unidirectional form.
    Unidirectional,
    /// `/echo`: each message comes back as it came.
    Echo,
}

/// A subprotocol that was offered and chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subprotocol {
    /// `centrifuge-json`: what is also spoken without a subprotocol.
    CentrifugeJson,
    /// `centrifuge-protobuf`: what is also spoken with `cf_protocol=protobuf` in the query.
    CentrifugeProtobuf,
}

impl Subprotocol {
    const ALL: [Self; 2] = [Self::CentrifugeJson, Self::CentrifugeProtobuf];

    /// The name in `Sec-WebSocket-Protocol`.
    pub const fn name(self) -> &'static str {
        match self {
            Subprotocol::CentrifugeJson => "centrifuge-json",
            Subprotocol::CentrifugeProtobuf => "centrifuge-protobuf",
        }
    }

    pub(super) fn from_name(name: &[u8]) -> Option<Subprotocol> {
        Self::ALL
            .into_iter()
            .find(|known| known.name().as_bytes() == name)
    }
}

/// A valid handshake (RFC 6455 §4.2.1).
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade<'a> {
    /// Where the connection goes.
    pub endpoint: Endpoint,
    /// The first of the offered subprotocols that is spoken here. One that is not is not chosen, and the client has to
    /// decide what that means (§4.2.2): browsers fail the connection.
    pub subprotocol: Option<Subprotocol>,
    /// Whether the client speaks Protobuf: by the subprotocol, else by `cf_protocol` in the query.
    pub is_protobuf: bool,
    /// `cf_connect` of the query: the connect request of a unidirectional client.
    pub connect: Option<Cow<'a, str>>,
    /// `Origin`, allowed by the policy.
    pub origin: Option<&'a str>,
    /// `Host`.
    pub host: &'a str,
    /// The affinity key: `sid` of the query, else the cookie `flux_sid`.
    pub sid: Option<Cow<'a, str>>,
    /// The query without its `?`, undecoded.
    pub query: &'a str,
    /// The last `X-Forwarded-For` field: only as true as whoever sent it.
    pub forwarded_for: Option<&'a str>,
    /// Those of its fields that the policy keeps.
    pub headers: Headers,
    /// `Sec-WebSocket-Accept`.
    pub accept: [u8; 28],
}

impl Upgrade<'_> {
    /// Appends the answer that completes the handshake (§4.2.2). No extension is ever accepted.
    pub fn answer_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        );
        out.extend_from_slice(&self.accept);
        if let Some(subprotocol) = self.subprotocol {
            out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
            out.extend_from_slice(subprotocol.name().as_bytes());
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

/// `Sec-WebSocket-Accept` for a key that is 16 bytes in base64 (§4.2.2).
pub(super) fn accept(key: &[u8]) -> Option<[u8; 28]> {
    // Some clients write random characters instead of encoding random bytes: the spare bits may be set.
    const KEY: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let mut decoded = [0; 18];
    if key.len() != 24 || KEY.decode_slice(key, &mut decoded) != Ok(16) {
        return None;
    }
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let mut accept = [0; 28];
    let written = STANDARD.encode_slice(hash.digest().bytes(), &mut accept);
    (written == Ok(28)).then_some(accept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_of_the_rfc() {
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ==").as_ref(),
            Some(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
    }

    #[test]
    fn a_key_is_sixteen_bytes_in_base64() {
        let bad: [&[u8]; 8] = [
            b"",
            b"dGhlIHNhbXBsZSBub25jZQ",
            b"dGhlIHNhbXBsZSBub25jZQ=",
            b"dGhlIHNhbXBsZSBub25jZTE=",
            b"dGhlIHNhbXBsZSBub25jZTEy",
            b"dGhlIHNhbXBsZSBub25j=Q==",
            b"dGhlIHNhbXBs SBub25jZQ==",
            b"dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ==",
        ];
        for key in bad {
            assert_eq!(accept(key), None, "{}", String::from_utf8_lossy(key));
        }
        assert!(accept(b"dGhlIHNhbXBsZSBub25jZR==").is_some());
    }
}
