//! Claims: what a token whose signature holds says, judged by the clock and the configuration.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use regex::Regex;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{TokenConfig, TokenError};
use crate::authority::options::{Expired, Overrides, SubscriptionOptions, expires_in};
use crate::authority::payload::{Allowed, PayloadError, payload};
use crate::authority::{ConnectGrant, Object, SubscribeGrant, Who};

/// The claims that tokens of both kinds may have.
#[derive(Debug, Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    /// Not judged, but it has to be a time (RFC 7519, 4.1.6).
    #[serde(rename = "iat")]
    _iat: Option<f64>,
    aud: Option<Audience>,
    iss: Option<String>,
    expire_at: Option<i64>,
    info: Option<Box<RawValue>>,
    b64info: Option<String>,
    channel: Option<String>,
}

/// Those of a connection token alone.
#[derive(Debug, Deserialize)]
struct ConnectClaims {
    meta: Option<Box<RawValue>>,
    channels: Option<Vec<String>>,
    subs: Option<BTreeMap<String, Object<SubscriptionOptions>>>,
}

/// Those of a subscription token alone.
#[derive(Debug, Deserialize)]
struct SubscribeClaims {
    client: Option<String>,
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
    #[serde(rename = "override")]
    overrides: Option<Object<Overrides>>,
}

/// One or several (RFC 7519, 4.1.3).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn any(&self, matches: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::One(one) => matches(one),
            Self::Several(all) => all.iter().any(|one| matches(one)),
        }
    }
}

/// What a subscription token grants, and to whom.
#[derive(Debug, PartialEq)]
pub(crate) struct SubscribeToken {
    pub(crate) user: String,
    pub(crate) channel: String,
    /// Empty: any connection of the user.
    pub(crate) client: String,
    pub(crate) grant: SubscribeGrant,
}

impl SubscribeToken {
    /// Whether it is for this client and this channel.
    pub(crate) fn is_for(&self, who: &Who, channel: &str) -> bool {
        let is_client = self.client.is_empty()
            || who
                .client
                .is_some_and(|client| client.to_string() == self.client);
        self.user == who.user && self.channel == channel && is_client
    }
}

/// What `aud` or `iss` has to be.
#[derive(Debug)]
enum Expected {
    Anything,
    Exactly(String),
    Matching(Regex),
}

impl Expected {
    fn new(exact: &str, pattern: &str) -> Result<Self, String> {
        if !exact.is_empty() {
            return Ok(Self::Exactly(exact.to_owned()));
        }
        if pattern.is_empty() {
            return Ok(Self::Anything);
        }
        Regex::new(pattern)
            .map(Self::Matching)
            .map_err(|error| error.to_string())
    }

    fn accepts(&self, value: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::Exactly(expected) => expected == value,
            Self::Matching(pattern) => pattern.is_match(value),
        }
    }

    fn is_anything(&self) -> bool {
        matches!(self, Self::Anything)
    }
}

/// How claims are judged.
#[derive(Debug)]
pub(super) struct Rules {
    audience: Expected,
    issuer: Expected,
    user_id_claim: String,
    leeway: Duration,
}

impl Rules {
    pub(super) fn new(config: &TokenConfig) -> Result<Self, String> {
        Ok(Self {
            audience: Expected::new(&config.audience, &config.audience_regex)?,
            issuer: Expected::new(&config.issuer, &config.issuer_regex)?,
            user_id_claim: config.user_id_claim.clone(),
            leeway: config.leeway,
        })
    }

    /// What the claims of a connection token grant.
    pub(super) fn connect(
        &self,
        claims: &str,
        now: SystemTime,
    ) -> Result<ConnectGrant, TokenError> {
        let (read, own): (Claims, ConnectClaims) = (parse(claims)?, parse(claims)?);
        self.judge(&read, now)?;
        if read.channel.is_some_and(|channel| !channel.is_empty()) {
            return Err(TokenError::Invalid(
                "a connection token must not have `channel`",
            ));
        }
        let user = self.user(read.sub, claims)?;
        let info = payload(read.info.as_deref(), read.b64info.as_deref(), Allowed::Json)?;
        let meta = payload(own.meta.as_deref(), None, Allowed::Json)?;
        let subs = match (own.subs, own.channels) {
            (Some(subs), _) if !subs.is_empty() => subs
                .iter()
                .map(|(channel, options)| Ok((channel.clone(), options.0.grant(Allowed::Json)?)))
                .collect::<Result<_, PayloadError>>()?,
            (_, channels) => plain(channels.unwrap_or_default()),
        };
        Ok(ConnectGrant {
            user,
            expires_in: validity(read.expire_at, read.exp, now)?,
            info: info.unwrap_or_default(),
            data: Vec::new(),
            meta: meta.unwrap_or_default(),
            subs,
        })
    }

    /// What the claims of a subscription token grant. `data` is what the client can read.
    pub(super) fn subscribe(
        &self,
        claims: &str,
        data: Allowed,
        now: SystemTime,
    ) -> Result<SubscribeToken, TokenError> {
        let (read, own): (Claims, SubscribeClaims) = (parse(claims)?, parse(claims)?);
        self.judge(&read, now)?;
        let options = SubscriptionOptions {
            info: read.info,
            b64info: read.b64info,
            data: own.data,
            b64data: own.b64data,
            overrides: own.overrides,
            expire_at: None,
        };
        let grant = SubscribeGrant {
            expires_in: validity(read.expire_at, read.exp, now)?,
            ..options.grant(data)?
        };
        Ok(SubscribeToken {
            user: self.user(read.sub, claims)?,
            channel: read.channel.unwrap_or_default(),
            client: own.client.unwrap_or_default(),
            grant,
        })
    }

    fn judge(&self, claims: &Claims, now: SystemTime) -> Result<(), TokenError> {
        let Claims {
            exp, nbf, aud, iss, ..
        } = claims;
        let is_for_us = self.audience.is_anything()
            || aud
                .as_ref()
                .is_some_and(|aud| aud.any(|one| self.audience.accepts(one)));
        if !is_for_us {
            return Err(TokenError::Invalid(
                "`aud` is not what the configuration expects",
            ));
        }
        let is_of_ours =
            self.issuer.is_anything() || iss.as_deref().is_some_and(|iss| self.issuer.accepts(iss));
        if !is_of_ours {
            return Err(TokenError::Invalid(
                "`iss` is not what the configuration expects",
            ));
        }
        let now = since_1970(now);
        let leeway = self.leeway.as_secs_f64();
        if exp.is_some_and(|exp| now >= exp + leeway) || nbf.is_some_and(|nbf| now + leeway < nbf) {
            return Err(TokenError::Expired);
        }
        Ok(())
    }

    fn user(&self, sub: Option<String>, claims: &str) -> Result<String, TokenError> {
        if self.user_id_claim.is_empty() || self.user_id_claim == "sub" {
            return Ok(sub.unwrap_or_default());
        }
        let mut all: BTreeMap<String, Box<RawValue>> = parse(claims)?;
        let Some(value) = all.remove(&self.user_id_claim) else {
            return Ok(String::new());
        };
        match serde_json::from_str(value.get()) {
            Ok(serde_json::Value::String(user)) => Ok(user),
            Ok(serde_json::Value::Number(number)) => Ok(number.to_string()),
            Ok(serde_json::Value::Null) => Ok(String::new()),
            _ => Err(TokenError::Invalid(
                "the claim of the user is neither text nor a number",
            )),
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(claims: &str) -> Result<T, TokenError> {
    serde_json::from_str::<Object<T>>(claims)
        .map(|object| object.0)
        .map_err(|_| TokenError::Invalid("the claims are not of their types"))
}

/// Subscriptions with nothing but their names, each once.
fn plain(mut channels: Vec<String>) -> Vec<(String, SubscribeGrant)> {
    channels.sort_unstable();
    channels.dedup();
    channels
        .into_iter()
        .map(|channel| (channel, SubscribeGrant::default()))
        .collect()
}

/// `expire_at` stands before `exp`.
fn validity(
    expire_at: Option<i64>,
    exp: Option<f64>,
    now: SystemTime,
) -> Result<Option<Duration>, TokenError> {
    let at = match (expire_at, exp) {
        (Some(at), _) => at,
        // Rounded up: it holds until its very end. With a leeway `exp` may be over already.
        (None, Some(exp)) => (exp.ceil() as i64).max(since_1970(now).floor() as i64 + 1),
        (None, None) => 0,
    };
    expires_in(at, now).map_err(|Expired| TokenError::ExpiredAtOnce)
}

fn since_1970(now: SystemTime) -> f64 {
    now.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

impl From<PayloadError> for TokenError {
    fn from(error: PayloadError) -> Self {
        match error {
            PayloadError::Base64 => Self::Invalid("`b64info` or `b64data` is not base64"),
            PayloadError::Json => {
                Self::Invalid("`info`, `data` or `meta` is not JSON that clients can read")
            }
        }
    }
}
