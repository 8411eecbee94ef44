//! What tokens and the backend say of a subscription.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::payload::{Allowed, PayloadError, payload};
use super::{Object, SubscribeGrant};

/// Longest validity that is told apart from a longer one: ten years. Sessions count with it.
const EXPIRES_IN_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// `info`, `data`, `override` of a subscription.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SubscriptionOptions {
    pub(crate) info: Option<Box<RawValue>>,
    pub(crate) b64info: Option<String>,
    pub(crate) data: Option<Box<RawValue>>,
    pub(crate) b64data: Option<String>,
    #[serde(rename = "override")]
    pub(crate) overrides: Option<Object<Overrides>>,
    pub(crate) expire_at: Option<i64>,
}

/// Overrides of the channel's options.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Overrides {
    presence: Option<Object<BoolValue>>,
    join_leave: Option<Object<BoolValue>>,
    force_push_join_leave: Option<Object<BoolValue>>,
    force_recovery: Option<Object<BoolValue>>,
    force_positioning: Option<Object<BoolValue>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BoolValue {
    value: bool,
}

impl SubscriptionOptions {
    /// The grant that they make, without an expiry. `data` is for the client alone, `info` for all
    /// subscribers, of whatever format.
    pub(crate) fn grant(&self, data: Allowed) -> Result<SubscribeGrant, PayloadError> {
        let info = payload(self.info.as_deref(), self.b64info.as_deref(), Allowed::Json)?;
        let data = payload(self.data.as_deref(), self.b64data.as_deref(), data)?;
        let of = |read: fn(&Overrides) -> &Option<Object<BoolValue>>| {
            let overrides = self.overrides.as_ref()?;
            read(&overrides.0).as_ref().map(|one| one.0.value)
        };
        Ok(SubscribeGrant {
            expires_in: None,
            info: info.unwrap_or_default(),
            data: data.unwrap_or_default(),
            presence: of(|all| &all.presence),
            join_leave: of(|all| &all.join_leave),
            force_push_join_leave: of(|all| &all.force_push_join_leave),
            force_recovery: of(|all| &all.force_recovery),
            force_positioning: of(|all| &all.force_positioning),
        })
    }
}

/// The credentials have expired before they were used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expired;

/// Time left until `expire_at`, in seconds since 1970; 0 and less: never.
pub(crate) fn expires_in(expire_at: i64, now: SystemTime) -> Result<Option<Duration>, Expired> {
    match u64::try_from(expire_at) {
        Ok(0) | Err(_) => Ok(None),
        Ok(seconds) => {
            // Later than what a clock can say is later than anybody counts.
            let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
            let left = at.map_or(Ok(EXPIRES_IN_MAX), |at| at.duration_since(now));
            match left {
                Ok(left) if !left.is_zero() => Ok(Some(left.min(EXPIRES_IN_MAX))),
                _ => Err(Expired),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_counts_from_now_and_is_bounded() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(expires_in(0, now), Ok(None));
        assert_eq!(expires_in(-5, now), Ok(None));
        assert_eq!(expires_in(1_060, now), Ok(Some(Duration::from_secs(60))));
        assert_eq!(expires_in(1_000, now), Err(Expired));
        assert_eq!(expires_in(999, now), Err(Expired));
        assert_eq!(expires_in(i64::MAX, now), Ok(Some(EXPIRES_IN_MAX)));
    }

    #[test]
    fn overrides_that_are_not_given_leave_the_option_as_it_is() {
        let text = r#"{"info":{"a":1},"data":[2],"override":{"presence":{"value":true},"join_leave":{"value":false}}}"#;
        let options: SubscriptionOptions = serde_json::from_str(text).expect("known");
        let grant = options.grant(Allowed::Json).expect("good");
        assert_eq!(
            (grant.presence, grant.join_leave),
            (Some(true), Some(false))
        );
        assert_eq!(
            (grant.force_recovery, grant.force_positioning),
            (None, None)
        );
        assert_eq!(
            (&*grant.info, &*grant.data),
            (&b"{\"a\":1}"[..], &b"[2]"[..])
        );
    }
}
