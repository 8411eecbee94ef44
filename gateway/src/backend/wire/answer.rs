//! What the backend's answers say.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::authority::options::{Expired, SubscriptionOptions, expires_in};
use crate::authority::payload::{Allowed, PayloadError, payload};
use crate::authority::{
    ConnectGrant, Object, OwnedError, PublishGrant, RefreshGrant, Refusal, RpcGrant,
    SubscribeGrant, Who,
};
use crate::protocol::{ErrorCode, WireFormat};

/// Longest reason of a close frame (RFC 6455, 5.5).
const REASON_BYTES_MAX: usize = 123;

/// An answer that is none; the text is for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Garbage(String);

impl From<PayloadError> for Garbage {
    fn from(error: PayloadError) -> Self {
        Self(format!("a payload {error}"))
    }
}

/// What the backend has decided.
type Decided<T> = Result<Result<T, Refusal>, Garbage>;

#[derive(Deserialize)]
#[serde(bound = "R: DeserializeOwned")]
struct Envelope<R> {
    #[serde(default)]
    result: Option<Object<R>>,
    #[serde(default)]
    error: Option<Object<ErrorAnswer>>,
    #[serde(default)]
    disconnect: Option<Object<DisconnectAnswer>>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    code: u32,
    #[serde(default)]
    message: String,
    #[serde(default)]
    temporary: bool,
}

#[derive(Deserialize)]
struct DisconnectAnswer {
    code: u16,
    #[serde(default)]
    reason: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConnectResult {
    user: String,
    expire_at: i64,
    info: Option<Box<RawValue>>,
    b64info: Option<String>,
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
    channels: Option<Vec<String>>,
    subs: Option<BTreeMap<String, Object<SubscriptionOptions>>>,
    meta: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RefreshResult {
    expired: bool,
    expire_at: i64,
    info: Option<Box<RawValue>>,
    b64info: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PublishResult {
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
    skip_history: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RpcResult {
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
}

/// Disconnect stands before error, error before result, which may be missing.
fn open<R: DeserializeOwned>(answer: &[u8]) -> Decided<Option<R>> {
    let Object(envelope): Object<Envelope<R>> = serde_json::from_slice(answer)
        .map_err(|error| Garbage(format!("not the JSON that is expected: {error}")))?;
    if let Some(Object(DisconnectAnswer { code, mut reason })) = envelope.disconnect {
        if !(3000..=4999).contains(&code) {
            return Err(Garbage(format!(
                "disconnect code {code}: only 3000 to 4999 exist"
            )));
        }
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        return Ok(Err(Refusal::Disconnect { code, reason }));
    }
    if let Some(Object(ErrorAnswer {
        code,
        message,
        temporary,
    })) = envelope.error
    {
        if code == 0 {
            return Err(Garbage("error code 0: none exists".to_owned()));
        }
        return Ok(Err(Refusal::Error(OwnedError {
            code,
            message,
            temporary,
        })));
    }
    Ok(Ok(envelope.result.map(|object| object.0)))
}

/// What a client can read: its own format decides.
pub(crate) fn readable_by(who: &Who) -> Allowed {
    if who.format == WireFormat::Json {
        Allowed::Json
    } else {
        Allowed::Bytes
    }
}

/// To `Connect`; none: the backend does not know the client.
pub(crate) fn connect(
    answer: &[u8],
    data_allowed: Allowed,
    now: SystemTime,
) -> Decided<Option<ConnectGrant>> {
    let result = match open::<ConnectResult>(answer)? {
        Err(refusal) => return Ok(Err(refusal)),
        Ok(None) => return Ok(Ok(None)),
        Ok(Some(result)) => result,
    };
    let Ok(expires_in) = expires_in(result.expire_at, now) else {
        return Ok(Err(ErrorCode::Expired.into()));
    };
    let info = payload(
        result.info.as_deref(),
        result.b64info.as_deref(),
        Allowed::Json,
    )?;
    let data = payload(
        result.data.as_deref(),
        result.b64data.as_deref(),
        data_allowed,
    )?;
    let meta = payload(result.meta.as_deref(), None, Allowed::Json)?;
    let mut subs: BTreeMap<String, SubscribeGrant> = result
        .channels
        .unwrap_or_default()
        .into_iter()
        .map(|channel| (channel, SubscribeGrant::default()))
        .collect();
    for (channel, Object(options)) in result.subs.unwrap_or_default() {
        subs.insert(channel, options.grant(Allowed::Json)?);
    }
    Ok(Ok(Some(ConnectGrant {
        user: result.user,
        expires_in,
        info: info.unwrap_or_default(),
        data: data.unwrap_or_default(),
        meta: meta.unwrap_or_default(),
        subs: subs.into_iter().collect(),
    })))
}

/// To `Refresh` and `SubRefresh`. No result: expired.
pub(crate) fn refresh(answer: &[u8], now: SystemTime) -> Decided<RefreshGrant> {
    let expired = RefreshGrant {
        expired: true,
        ..RefreshGrant::default()
    };
    let result = match open::<RefreshResult>(answer)? {
        Err(refusal) => return Ok(Err(refusal)),
        Ok(None) => return Ok(Ok(expired)),
        Ok(Some(result)) if result.expired => return Ok(Ok(expired)),
        Ok(Some(result)) => result,
    };
    let info = payload(
        result.info.as_deref(),
        result.b64info.as_deref(),
        Allowed::Json,
    )?;
    Ok(Ok(match expires_in(result.expire_at, now) {
        Err(Expired) => expired,
        Ok(expires_in) => RefreshGrant {
            expires_in,
            info,
            ..RefreshGrant::default()
        },
    }))
}

/// To `Subscribe`. No result: as the channel's options say.
pub(crate) fn subscribe(
    answer: &[u8],
    data_allowed: Allowed,
    now: SystemTime,
) -> Decided<SubscribeGrant> {
    let options = match open::<SubscriptionOptions>(answer)? {
        Err(refusal) => return Ok(Err(refusal)),
        Ok(options) => options.unwrap_or_default(),
    };
    Ok(
        match expires_in(options.expire_at.unwrap_or_default(), now) {
            Err(Expired) => Err(ErrorCode::Expired.into()),
            Ok(expires_in) => Ok(SubscribeGrant {
                expires_in,
                ..options.grant(data_allowed)?
            }),
        },
    )
}

/// To `Publish`. No result: as the client has it.
pub(crate) fn publish(answer: &[u8], data_allowed: Allowed) -> Decided<PublishGrant> {
    let result = match open::<PublishResult>(answer)? {
        Err(refusal) => return Ok(Err(refusal)),
        Ok(result) => result.unwrap_or_default(),
    };
    Ok(Ok(PublishGrant {
        data: payload(
            result.data.as_deref(),
            result.b64data.as_deref(),
            data_allowed,
        )?,
        skip_history: result.skip_history,
    }))
}

/// To `Rpc`. No result: nothing.
pub(crate) fn rpc(answer: &[u8], data_allowed: Allowed) -> Decided<RpcGrant> {
    let result = match open::<RpcResult>(answer)? {
        Err(refusal) => return Ok(Err(refusal)),
        Ok(result) => result.unwrap_or_default(),
    };
    let data = payload(
        result.data.as_deref(),
        result.b64data.as_deref(),
        data_allowed,
    )?;
    Ok(Ok(RpcGrant {
        data: data.unwrap_or_default(),
    }))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::backend::examine;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn disconnect_stands_before_error_and_error_before_result() {
        let answer = br#"{"result":{},"error":{"code":1000,"message":"m","temporary":true},"disconnect":{"code":4000,"reason":"r"}}"#;
        let end = Refusal::Disconnect {
            code: 4000,
            reason: "r".to_owned(),
        };
        assert_eq!(publish(answer, Allowed::Json), Ok(Err(end)));
        let answer = br#"{"result":{},"error":{"code":1000,"message":"m","temporary":true}}"#;
        let error = Refusal::Error(OwnedError {
            code: 1000,
            message: "m".to_owned(),
            temporary: true,
        });
        assert_eq!(publish(answer, Allowed::Json), Ok(Err(error)));
        for nothing in [&b"{}"[..], br#"{"result":null,"error":null,"more":1}"#] {
            assert_eq!(
                publish(nothing, Allowed::Json),
                Ok(Ok(PublishGrant::default()))
            );
            assert_eq!(connect(nothing, Allowed::Json, at(0)), Ok(Ok(None)));
            assert!(
                refresh(nothing, at(0)).is_ok_and(|answer| answer.is_ok_and(|grant| grant.expired))
            );
        }
    }

    #[test]
    fn answers_that_are_none_are_told_apart_from_refusals() {
        for garbage in [
            "",
            "null",
            "[]",
            "<html>",
            "{\"result\":[]}",
            "{\"result\":{\"b64data\":\"%\"}}",
            "{\"result\":{\"data\":1",
            "{\"error\":{}}",
            "{\"error\":{\"code\":0}}",
            "{\"error\":{\"code\":-1}}",
            "{\"disconnect\":{\"code\":1000}}",
            "{\"disconnect\":{\"code\":70000}}",
            "{\"result\":{}}{}",
        ] {
            assert!(
                publish(garbage.as_bytes(), Allowed::Json).is_err(),
                "{garbage}"
            );
        }
    }

    #[test]
    fn a_connect_answer_grants_what_it_says() {
        let answer = br#"{"result":{"user":"42","expire_at":160,"info":{"n":1},"data":{"d":1},"channels":["b","a","b"],
            "subs":{"b":{"data":[1]}},"meta":{"m":1}}}"#;
        let grant = connect(answer, Allowed::Json, at(100))
            .expect("good")
            .expect("yes")
            .expect("known");
        assert_eq!(
            (&*grant.user, grant.expires_in),
            ("42", Some(Duration::from_secs(60)))
        );
        assert_eq!(
            (&*grant.info, &*grant.data, &*grant.meta),
            (&b"{\"n\":1}"[..], &b"{\"d\":1}"[..], &b"{\"m\":1}"[..])
        );
        let subs: Vec<_> = grant.subs.iter().map(|(c, s)| (&**c, &*s.data)).collect();
        assert_eq!(subs, [("a", &b""[..]), ("b", &b"[1]"[..])]);
        let late = connect(answer, Allowed::Json, at(160));
        assert_eq!(late, Ok(Err(ErrorCode::Expired.into())));
    }

    #[test]
    fn a_long_reason_is_cut_to_what_a_close_frame_takes() {
        let answer = json!({"disconnect": {"code": 4000, "reason": "\u{fc}".repeat(100)}});
        let Ok(Err(Refusal::Disconnect { reason, .. })) =
            rpc(answer.to_string().as_bytes(), Allowed::Json)
        else {
            panic!("a disconnect")
        };
        assert_eq!(reason.len(), 122);
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(
            answer in prop_oneof![
                any::<Vec<u8>>(),
                "[{}\\[\\]\":,0-9a-z]{0,60}".prop_map(String::into_bytes),
                ("result|error|disconnect", "code|info|b64info|subs|data|expire_at|channels", "[0-9]{1,12}|\"x\"|\\{\\}|\\[\\]|null")
                    .prop_map(|(a, b, c)| format!("{{\"{a}\":{{\"{b}\":{c}}}}}").into_bytes()),
            ],
            seconds in any::<u32>(),
        ) {
            let _ = examine(&answer, at(seconds.into()));
        }
    }
}
