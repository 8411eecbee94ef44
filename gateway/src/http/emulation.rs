//! The body of a request to `/emulation`: commands of a session whose transport takes none.

use serde::Deserialize;

use crate::protocol::protobuf;

/// Commands, and for which session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Emulation {
    /// The id of the session's node.
    pub node: String,
    /// The session's text.
    pub session: String,
    /// A frame of commands in the session's wire format; text in JSON.
    #[serde(deserialize_with = "text")]
    pub data: Vec<u8>,
}

fn text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    String::deserialize(deserializer).map(String::into_bytes)
}

impl Emulation {
    /// Reads a body in JSON. None for what is no such request.
    #[must_use]
    pub fn from_json(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// Reads a body in Protobuf. None for what is no such request.
    #[must_use]
    pub fn from_protobuf(body: &[u8]) -> Option<Self> {
        let request = protobuf::decode_emulation(body).ok()?;
        Some(Self {
            node: request.node.to_owned(),
            session: request.session.to_owned(),
            data: request.data.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emulation(data: &[u8]) -> Emulation {
        Emulation {
            node: "n".to_owned(),
            session: "s".to_owned(),
            data: data.to_vec(),
        }
    }

    #[test]
    fn json() {
        let body = br#"{"session":"s","node":"n","data":"{\"id\":2}\n{}","x":1}"#;
        assert_eq!(
            Emulation::from_json(body),
            Some(emulation(b"{\"id\":2}\n{}"))
        );
        for bad in [
            b"".as_slice(),
            b"{}",
            br#"{"node":"n","session":"s"}"#,
            br#"{"node":"n","session":"s","data":7}"#,
            br#"{"node":7,"session":"s","data":""}"#,
        ] {
            assert_eq!(Emulation::from_json(bad), None);
        }
    }

    #[test]
    fn protobuf() {
        let body = b"\x0a\x01n\x12\x01s\x1a\x03\x00\xff\x07\x20\x05";
        assert_eq!(
            Emulation::from_protobuf(body),
            Some(emulation(b"\x00\xff\x07"))
        );
        for cut in 1..body.len() {
            // Never a panic; some beginnings are whole messages.
            let _ = Emulation::from_protobuf(&body[..cut]);
        }
        for bad in [
            b"\x0a".as_slice(),
            b"\x0a\x05n",
            b"\x0b",
            b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x0a\x01\xff",
        ] {
            assert_eq!(
                Emulation::from_protobuf(bad),
                None,
                "{}",
                bad.escape_ascii()
            );
        }
    }
}
