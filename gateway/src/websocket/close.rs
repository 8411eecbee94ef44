//! The one place for WebSocket close codes (RFC 6455 §7.4 and IANA's registry). The codes from 3000 on that Centrifuge
//! gives a meaning stand in `protocol/codes.rs`.

use std::fmt;

/// Longest reason text of a close frame, in bytes: a control frame holds 125, two of them are the code.
pub const CLOSE_REASON_BYTES_MAX: usize = 123;

/// A close code that may stand on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose is fulfilled.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// The endpoint goes away: a server that stops, a page that is left.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// The peer broke the framing rules.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// A kind of data that this endpoint does not accept.
    pub const UNSUPPORTED_DATA: CloseCode = CloseCode(1003);
    /// A text message or a close reason that is not UTF-8.
    pub const INVALID_PAYLOAD: CloseCode = CloseCode(1007);
    /// A rule of this endpoint that no other code names.
    pub const POLICY_VIOLATION: CloseCode = CloseCode(1008);
    /// A message larger than this endpoint takes.
    pub const MESSAGE_TOO_BIG: CloseCode = CloseCode(1009);
    /// The server met a condition it did not expect.
    pub const INTERNAL_ERROR: CloseCode = CloseCode(1011);
    /// The service restarts; the client may come back at once.
    pub const SERVICE_RESTART: CloseCode = CloseCode(1012);
    /// The service is overloaded; the client should come back later.
    pub const TRY_AGAIN_LATER: CloseCode = CloseCode(1013);

    /// The code, if it may be sent in a close frame: 1000-1003, 1007-1014 and 3000-4999. (1004 is reserved; 1005, 1006
    /// and 1015 are never sent; 1016-2999 belong to future versions and extensions.)
    pub const fn new(code: u16) -> Option<CloseCode> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(CloseCode(code)),
            _ => None,
        }
    }

    /// The number on the wire.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why the decoder closes a connection. Each has a close code, a text for the peer, and a label for the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// An RSV bit is set although no extension was negotiated (§5.2).
    ReservedBits,
    /// Opcode 3-7 or 11-15 (§5.2).
    ReservedOpcode,
    /// A client frame without a mask (§5.1).
    Unmasked,
    /// A control frame with more than 125 bytes (§5.5).
    ControlTooLong,
    /// A control frame without FIN (§5.4).
    ControlFragmented,
    /// A length that fits into fewer bytes than were used (§5.2).
    LengthNotMinimal,
    /// A 64-bit length with its top bit set (§5.2).
    LengthTopBit,
    /// A continuation frame where no message is open (§5.4).
    UnexpectedContinuation,
    /// A new text or binary frame while a message is open (§5.4).
    ExpectedContinuation,
    /// The message is larger than [`Limits::message_bytes_max`](super::Limits::message_bytes_max).
    MessageTooBig,
    /// The message has more frames than [`Limits::message_fragments_max`](super::Limits::message_fragments_max).
    TooManyFragments,
    /// A text message that is not UTF-8 (§8.1).
    InvalidUtf8,
    /// A close frame with a payload of one byte (§5.5.1).
    ClosePayloadTooShort,
    /// A close frame with a code that may not be sent (§7.4).
    CloseCodeInvalid,
    /// A close frame with a reason that is not UTF-8 (§5.5.1).
    CloseReasonNotUtf8,
}

impl CloseReason {
    /// Every reason, for metrics that start at zero.
    pub const ALL: [CloseReason; 15] = [
        CloseReason::ReservedBits,
        CloseReason::ReservedOpcode,
        CloseReason::Unmasked,
        CloseReason::ControlTooLong,
        CloseReason::ControlFragmented,
        CloseReason::LengthNotMinimal,
        CloseReason::LengthTopBit,
        CloseReason::UnexpectedContinuation,
        CloseReason::ExpectedContinuation,
        CloseReason::MessageTooBig,
        CloseReason::TooManyFragments,
        CloseReason::InvalidUtf8,
        CloseReason::ClosePayloadTooShort,
        CloseReason::CloseCodeInvalid,
        CloseReason::CloseReasonNotUtf8,
    ];

    /// The code to close with.
    pub const fn code(self) -> CloseCode {
        match self {
            CloseReason::MessageTooBig => CloseCode::MESSAGE_TOO_BIG,
            CloseReason::TooManyFragments => CloseCode::POLICY_VIOLATION,
            CloseReason::InvalidUtf8 | CloseReason::CloseReasonNotUtf8 => {
                CloseCode::INVALID_PAYLOAD
            }
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }

    /// The text for the close frame.
    pub const fn text(self) -> &'static str {
        match self {
            CloseReason::ReservedBits => "reserved bit set without an extension",
            CloseReason::ReservedOpcode => "reserved opcode",
            CloseReason::Unmasked => "client frame is not masked",
            CloseReason::ControlTooLong => "control frame is longer than 125 bytes",
            CloseReason::ControlFragmented => "control frame is fragmented",
            CloseReason::LengthNotMinimal => "length is not minimally encoded",
            CloseReason::LengthTopBit => "length has its top bit set",
            CloseReason::UnexpectedContinuation => "continuation without a message",
            CloseReason::ExpectedContinuation => "new message inside a fragmented one",
            CloseReason::MessageTooBig => "message too big",
            CloseReason::TooManyFragments => "message has too many fragments",
            CloseReason::InvalidUtf8 => "text is not UTF-8",
            CloseReason::ClosePayloadTooShort => "close payload of one byte",
            CloseReason::CloseCodeInvalid => "invalid close code",
            CloseReason::CloseReasonNotUtf8 => "close reason is not UTF-8",
        }
    }

    /// The label value for the metric.
    pub const fn label(self) -> &'static str {
        match self {
            CloseReason::ReservedBits => "reserved_bits",
            CloseReason::ReservedOpcode => "reserved_opcode",
            CloseReason::Unmasked => "unmasked",
            CloseReason::ControlTooLong => "control_too_long",
            CloseReason::ControlFragmented => "control_fragmented",
            CloseReason::LengthNotMinimal => "length_not_minimal",
            CloseReason::LengthTopBit => "length_top_bit",
            CloseReason::UnexpectedContinuation => "unexpected_continuation",
            CloseReason::ExpectedContinuation => "expected_continuation",
            CloseReason::MessageTooBig => "message_too_big",
            CloseReason::TooManyFragments => "too_many_fragments",
            CloseReason::InvalidUtf8 => "invalid_utf8",
            CloseReason::ClosePayloadTooShort => "close_payload_too_short",
            CloseReason::CloseCodeInvalid => "close_code_invalid",
            CloseReason::CloseReasonNotUtf8 => "close_reason_not_utf8",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for CloseReason {}

/// Reads the payload of a close frame (§5.5.1): empty, or a code and a reason.
pub(super) fn parse_payload(payload: &[u8]) -> Result<(Option<CloseCode>, &str), CloseReason> {
    match payload {
        [] => Ok((None, "")),
        [_] => Err(CloseReason::ClosePayloadTooShort),
        [high, low, reason @ ..] => {
            let code = CloseCode::new(u16::from_be_bytes([*high, *low]))
                .ok_or(CloseReason::CloseCodeInvalid)?;
            let reason =
                std::str::from_utf8(reason).map_err(|_| CloseReason::CloseReasonNotUtf8)?;
            Ok((Some(code), reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_of_the_registry_may_stand_on_the_wire() {
        let valid: Vec<u16> = (0..=u16::MAX)
            .filter(|code| CloseCode::new(*code).is_some())
            .collect();
        let expected: Vec<u16> = (1000..=1003)
            .chain(1007..=1014)
            .chain(3000..=4999)
            .collect();
        assert_eq!(valid, expected);
    }

    #[test]
    fn reasons_are_distinct_and_fit_into_a_close_frame() {
        let mut labels: Vec<_> = CloseReason::ALL
            .iter()
            .map(|reason| reason.label())
            .collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), CloseReason::ALL.len());
        for reason in CloseReason::ALL {
            assert!(reason.text().len() <= CLOSE_REASON_BYTES_MAX);
            assert!(CloseCode::new(reason.code().get()).is_some());
        }
    }
}
