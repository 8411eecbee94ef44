//! Payloads that tokens and the backend give: as JSON, or as base64 of whatever.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use crate::protocol::json;

/// What a payload may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// JSON: clients of the JSON format see it.
    Json,
    /// Anything: only clients of the Protobuf format see it.
    Bytes,
}

/// Why a payload cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PayloadError {
    /// It is not base64 (RFC 4648, 4).
    #[error("is not base64")]
    Base64,
    /// It is not JSON, or nested too deeply: it would break the frames that it is put into.
    #[error("is not JSON that clients can read")]
    Json,
}

/// The payload on one line: base64 where there is any, else JSON; none without both, and where the
/// JSON is `null`.
pub(crate) fn payload(
    value: Option<&RawValue>,
    base64: Option<&str>,
    allowed: Allowed,
) -> Result<Option<Vec<u8>>, PayloadError> {
    let bytes = match (base64.filter(|text| !text.is_empty()), value) {
        (Some(text), _) => STANDARD.decode(text).map_err(|_| PayloadError::Base64)?,
        (None, Some(value)) => {
            let line = json::on_one_line(value.get().as_bytes()).into_owned();
            json::check_value(&line).map_err(|_| PayloadError::Json)?;
            return Ok(Some(line));
        }
        (None, None) => return Ok(None),
    };
    if allowed == Allowed::Json {
        let line = json::on_one_line(&bytes).into_owned();
        json::check_value(&line).map_err(|_| PayloadError::Json)?;
        return Ok(Some(line));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn json_comes_out_on_one_line_and_base64_goes_before_it() {
        let value = raw("{\n\"a\": 1\r\n}");
        let line = payload(Some(&value), None, Allowed::Json).expect("good");
        assert_eq!(line.as_deref(), Some(&b"{ \"a\": 1  }"[..]));
        let line = payload(Some(&value), Some(""), Allowed::Json).expect("good");
        assert!(line.is_some());
        let line = payload(Some(&value), Some("WzEsCjJd"), Allowed::Json).expect("good");
        assert_eq!(line.as_deref(), Some(&b"[1, 2]"[..]));
        assert_eq!(payload(None, None, Allowed::Json), Ok(None));
    }

    #[test]
    fn what_would_break_a_frame_of_others_is_refused() {
        assert_eq!(
            payload(None, Some("/w=="), Allowed::Json),
            Err(PayloadError::Json)
        );
        assert_eq!(
            payload(None, Some("/w=="), Allowed::Bytes),
            Ok(Some(vec![0xff]))
        );
        assert_eq!(
            payload(None, Some("%"), Allowed::Bytes),
            Err(PayloadError::Base64)
        );
        let deep = raw(&format!("{}{}", "[".repeat(100), "]".repeat(100)));
        assert!(payload(Some(&deep), None, Allowed::Json).is_ok());
        // The reader of documents stops at 128; base64 gets past it.
        let deeper = STANDARD.encode(format!("{}{}", "[".repeat(200), "]".repeat(200)));
        assert_eq!(
            payload(None, Some(&deeper), Allowed::Json),
            Err(PayloadError::Json)
        );
    }
}
