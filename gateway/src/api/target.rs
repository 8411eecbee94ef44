//! Whom a request means, and what is done to their sessions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::request::{Disconnect, Refresh, TEXT_BYTES_MAX, WHITELIST_MAX};
use crate::bus::operation::{Bytes, Client, Operation, Target};
use crate::protocol::{ClientId, Disconnect as Close, ErrorCode};

/// Longest reason of a disconnect, in bytes (RFC 6455, 5.5).
const REASON_BYTES_MAX: usize = 123;

/// Who is meant, if anybody can be.
pub(super) enum Meant {
    Sessions(Target),
    /// An id that no client has.
    Nobody,
}

impl Meant {
    pub(super) fn of(self, operation: impl FnOnce(Target) -> Operation) -> Option<Operation> {
        match self {
            Self::Sessions(target) => Some(operation(target)),
            Self::Nobody => None,
        }
    }
}

/// Whom a request means. One of the three has to be given: an operation on everybody is never what
/// somebody means who leaves all of them out.
pub(super) fn meant(user: &str, client: &str, session: &str) -> Result<Meant, ErrorCode> {
    let are_too_long = user.len() > TEXT_BYTES_MAX || session.len() > TEXT_BYTES_MAX;
    if are_too_long || (user.is_empty() && client.is_empty() && session.is_empty()) {
        return Err(ErrorCode::BadRequest);
    }
    let client = match ClientId::parse(client) {
        Some(id) => Some(Client(id)),
        None if client.is_empty() => None,
        None => return Ok(Meant::Nobody),
    };
    Ok(Meant::Sessions(Target {
        user: user.to_owned(),
        client,
        session: (!session.is_empty()).then(|| session.to_owned()),
    }))
}

pub(super) fn disconnect_of(request: Disconnect) -> Result<Option<Operation>, ErrorCode> {
    if request.whitelist.len() > WHITELIST_MAX {
        return Err(ErrorCode::BadRequest);
    }
    let meant = meant(&request.user, &request.client, &request.session)?;
    let (code, reason) = match request.disconnect {
        None => (
            Close::FORCE_DISCONNECT.code,
            Close::FORCE_DISCONNECT.reason.to_owned(),
        ),
        Some(given) => match u16::try_from(given.code) {
            Ok(code @ 3000..=4999) if given.reason.len() <= REASON_BYTES_MAX => {
                (code, given.reason)
            }
            _ => return Err(ErrorCode::BadRequest),
        },
    };
    // Ids that no client has keep nobody.
    let whitelist = request.whitelist.iter();
    let whitelist = whitelist
        .filter_map(|id| ClientId::parse(id).map(Client))
        .collect();
    Ok(meant.of(|target| Operation::Disconnect {
        target,
        code,
        reason,
        whitelist,
    }))
}

pub(super) fn refresh_of(request: &Refresh, now: Duration) -> Result<Option<Operation>, ErrorCode> {
    let meant = meant(&request.user, &request.client, &request.session)?;
    let info = request.info()?.map(Bytes);
    let left = expires_in(request.expire_at, now);
    Ok(meant.of(|target| Operation::Refresh {
        target,
        expired: request.expired || left == Some(Duration::ZERO),
        expires_in_ms: left.map(millis),
        info,
    }))
}

/// Time until a Unix time in seconds; none: never.
pub(super) fn expires_in(at: i64, now: Duration) -> Option<Duration> {
    match u64::try_from(at) {
        Ok(0) => None,
        Ok(at) => Some(Duration::from_secs(at).saturating_sub(now)),
        Err(_) => Some(Duration::ZERO),
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn unix_now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::request::{Method, Request};
    use super::*;

    fn parsed(method: Method, body: &str) -> Request {
        Request::parse(method, body.as_bytes()).expect(body)
    }

    #[test]
    fn nobody_means_everybody() {
        assert!(matches!(meant("", "", ""), Err(ErrorCode::BadRequest)));
        assert!(matches!(meant("42", "", ""), Ok(Meant::Sessions(_))));
        // An id that no client has does not widen what is meant to all clients of the user.
        assert!(matches!(meant("42", "nobody", ""), Ok(Meant::Nobody)));
    }

    #[test]
    fn a_disconnect_has_a_code_and_a_reason_that_a_close_frame_can_carry() {
        let of = |body: &str| match parsed(Method::Disconnect, body) {
            Request::Disconnect(disconnect) => disconnect_of(disconnect),
            other => panic!("{other:?}"),
        };
        let Ok(Some(Operation::Disconnect { code, reason, .. })) = of(r#"{"user":"42"}"#) else {
            panic!("valid");
        };
        assert_eq!((code, &*reason), (3503, "force disconnect"));
        for (code, valid) in [
            (2999, false),
            (3000, true),
            (4999, true),
            (5000, false),
            (70_000, false),
        ] {
            let body = format!(r#"{{"user":"42","disconnect":{{"code":{code},"reason":"r"}}}}"#);
            assert_eq!(of(&body).is_ok(), valid, "{code}");
        }
        let long = format!(
            r#"{{"user":"42","disconnect":{{"code":4000,"reason":"{}"}}}}"#,
            "r".repeat(124)
        );
        assert_eq!(of(&long), Err(ErrorCode::BadRequest));
    }

    #[test]
    fn credentials_that_ended_in_the_past_have_expired() {
        let of = |body: &str| match parsed(Method::Refresh, body) {
            Request::Refresh(refresh) => refresh_of(&refresh, Duration::from_secs(1_000)),
            other => panic!("{other:?}"),
        };
        for (body, expected) in [
            (r#"{"user":"42"}"#, (false, None)),
            (r#"{"user":"42","expire_at":1060}"#, (false, Some(60_000))),
            (r#"{"user":"42","expire_at":1000}"#, (true, Some(0))),
            (r#"{"user":"42","expire_at":-5}"#, (true, Some(0))),
            (r#"{"user":"42","expired":true}"#, (true, None)),
        ] {
            let Ok(Some(Operation::Refresh {
                expired,
                expires_in_ms,
                ..
            })) = of(body)
            else {
                panic!("{body}");
            };
            assert_eq!((expired, expires_in_ms), expected, "{body}");
        }
    }
}
