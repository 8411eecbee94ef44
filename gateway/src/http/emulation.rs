//! The body of a request to `/emulation`: commands of a session whose transport takes none.

use serde::Deserialize;

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

    /// Reads a body in Protobuf: strings 1 and 2, bytes 3. None for what is no such request.
    #[must_use]
    pub fn from_protobuf(body: &[u8]) -> Option<Self> {
        let mut found = Self::default();
        let mut rest = body;
        while !rest.is_empty() {
            let tag = varint(&mut rest)?;
            let number = tag >> 3;
            let bytes = match tag & 7 {
                0 => {
                    varint(&mut rest)?;
                    continue;
                }
                1 => {
                    rest = rest.get(8..)?;
                    continue;
                }
                5 => {
                    rest = rest.get(4..)?;
                    continue;
                }
                2 => {
                    let len = usize::try_from(varint(&mut rest)?).ok()?;
                    let (bytes, after) = rest.split_at_checked(len)?;
                    rest = after;
                    bytes
                }
                _ => return None,
            };
            match number {
                1 => found.node = String::from_utf8(bytes.to_vec()).ok()?,
                2 => found.session = String::from_utf8(bytes.to_vec()).ok()?,
                3 => found.data = bytes.to_vec(),
                _ => {}
            }
        }
        Some(found)
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
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
