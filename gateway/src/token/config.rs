//! `client.token` and `client.subscription_token`, with Centrifugo's names, defaults and units.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Secret;
use super::keys::StaticKeys;

/// The largest leeway: more would make expiry meaningless.
const LEEWAY_MAX: Duration = Duration::from_secs(300);

/// How tokens are verified.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenConfig {
    /// Secret of HS256, HS384 and HS512; unset: they are refused.
    pub hmac_secret_key: Secret,
    /// The secret before the last change, still good; unset: none.
    pub hmac_previous_secret_key: Secret,
    /// Until when it is good, in seconds since 1970; 0: for good.
    pub hmac_previous_secret_key_valid_until: i64,
    /// PEM of the key of RS256/384/512 and PS256/384/512; empty: they are refused.
    pub rsa_public_key: String,
    /// PEM of the key of ES256 (P-256) or ES384 (P-384); empty: they are refused.
    pub ecdsa_public_key: String,
    /// URL of a JSON Web Key Set; with it the keys above are not used.
    pub jwks_public_endpoint: String,
    /// What `aud` has to be, or to contain; empty: anything.
    pub audience: String,
    /// What one of `aud` has to match; empty: anything.
    pub audience_regex: String,
    /// What `iss` has to be; empty: anything.
    pub issuer: String,
    /// What `iss` has to match; empty: anything.
    pub issuer_regex: String,
    /// The claim that names the user; empty: `sub`.
    pub user_id_claim: String,
    /// How much the clocks of issuer and gateway may differ when `exp` and `nbf` are judged. Not
    /// in Centrifugo, whose value is the default: 0.
    #[serde(with = "humantime_serde")]
    pub leeway: Duration,
}

impl TokenConfig {
    /// Checks what the types cannot say. `section` is the key of this section, for the message.
    ///
    /// # Errors
    /// One line that names the key, the value (never a secret) and the remedy.
    pub fn check(&self, section: &str) -> Result<(), String> {
        let refuse = |key: &str, what: &str| Err(format!("config key `{section}.{key}`: {what}"));
        StaticKeys::new(self)
            .map_err(|(key, what)| format!("config key `{section}.{key}`: {what}"))?;
        if self.hmac_previous_secret_key.is_set() && !self.hmac_secret_key.is_set() {
            return refuse(
                "hmac_previous_secret_key",
                "there is a previous secret but no current one; set hmac_secret_key",
            );
        }
        if self.hmac_previous_secret_key_valid_until < 0 {
            return refuse(
                "hmac_previous_secret_key_valid_until",
                &format!(
                    "{} is not allowed; use seconds since 1970, or 0",
                    self.hmac_previous_secret_key_valid_until
                ),
            );
        }
        self.check_jwks()
            .or_else(|what| refuse("jwks_public_endpoint", &what))?;
        for (key, pattern, other, exact) in [
            (
                "audience_regex",
                &self.audience_regex,
                "audience",
                &self.audience,
            ),
            ("issuer_regex", &self.issuer_regex, "issuer", &self.issuer),
        ] {
            if !pattern.is_empty() && !exact.is_empty() {
                return refuse(
                    key,
                    &format!("`{pattern}` stands beside `{other}`; set only one of the two"),
                );
            }
            if let Err(error) = regex::Regex::new(pattern) {
                let error = error.to_string().replace('\n', " ");
                return refuse(
                    key,
                    &format!("`{pattern}` is no regular expression ({error}); correct it"),
                );
            }
        }
        if !self
            .user_id_claim
            .bytes()
            .all(|b| b.is_ascii_alphabetic() || b == b'_')
        {
            return refuse(
                "user_id_claim",
                &format!("`{}` is not allowed; use a-z A-Z and _", self.user_id_claim),
            );
        }
        if self.leeway > LEEWAY_MAX {
            return refuse(
                "leeway",
                &format!(
                    "{:?} is not allowed; use at most {LEEWAY_MAX:?}",
                    self.leeway
                ),
            );
        }
        Ok(())
    }

    fn check_jwks(&self) -> Result<(), String> {
        let endpoint = &self.jwks_public_endpoint;
        if endpoint.is_empty() {
            return Ok(());
        }
        if endpoint.contains("{{") {
            return Err(format!(
                "`{endpoint}` has a placeholder, which is not supported; give one URL"
            ));
        }
        match reqwest::Url::parse(endpoint) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(()),
            _ => Err(format!(
                "`{endpoint}` is no URL; use http://... or https://..."
            )),
        }
    }

    /// Whether any token can be verified.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.hmac_secret_key.is_set()
            || !self.rsa_public_key.is_empty()
            || !self.ecdsa_public_key.is_empty()
            || !self.jwks_public_endpoint.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> TokenConfig {
        serde_json::from_str(text).expect("known keys")
    }

    #[test]
    fn each_refusal_names_key_value_and_remedy() {
        for (text, names) in [
            (r#"{"hmac_previous_secret_key":"old"}"#, "hmac_secret_key"),
            (
                r#"{"hmac_previous_secret_key_valid_until":-1}"#,
                "`client.token.hmac_previous_secret_key_valid_until`: -1",
            ),
            (
                r#"{"rsa_public_key":"no pem"}"#,
                "`client.token.rsa_public_key`",
            ),
            (
                r#"{"ecdsa_public_key":"no pem"}"#,
                "`client.token.ecdsa_public_key`",
            ),
            (
                r#"{"jwks_public_endpoint":"grpc://x"}"#,
                "`grpc://x` is no URL",
            ),
            (
                r#"{"jwks_public_endpoint":"https://x/{{realm}}"}"#,
                "placeholder",
            ),
            (
                r#"{"audience":"a","audience_regex":"b"}"#,
                "only one of the two",
            ),
            (r#"{"issuer_regex":"("}"#, "`(` is no regular expression"),
            (r#"{"user_id_claim":"a.b"}"#, "`a.b` is not allowed"),
            (r#"{"leeway":"1h"}"#, "3600s is not allowed"),
        ] {
            let error = read(text).check("client.token").expect_err(text);
            assert!(error.contains(names) && !error.contains('\n'), "{error}");
        }
        let good = r#"{"hmac_secret_key":"s","audience_regex":"^a$","leeway":"5s","user_id_claim":"user_id",
            "jwks_public_endpoint":"https://example.com/keys"}"#;
        assert_eq!(read(good).check("client.token"), Ok(()));
    }

    #[test]
    fn secrets_do_not_show() {
        let config = read(r#"{"hmac_secret_key":"hush","hmac_previous_secret_key":"older"}"#);
        let shown = format!(
            "{config:?} {}",
            serde_json::to_string(&config).expect("text")
        );
        assert!(
            !shown.contains("hush") && !shown.contains("older"),
            "{shown}"
        );
    }
}
