//! Tokens for people at a terminal: `flux-gateway token`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Map, Value};

use super::{TokenConfig, provider};

/// Makes a token (HS256) with the secret of the configuration and prints it.
#[derive(clap::Args, Clone, Debug)]
pub struct IssueArgs {
    /// User of the token; empty: anonymous.
    #[arg(long, short, default_value = "")]
    pub user: String,
    /// How long it holds (60s, 2h, 7days); 0s: for ever.
    #[arg(long, default_value = "1h", value_parser = humantime_serde::re::humantime::parse_duration)]
    pub ttl: Duration,
    /// Make a subscription token for this channel instead of a connection token.
    #[arg(long)]
    pub channel: Option<String>,
    /// JSON that others see of the client (`info`).
    #[arg(long)]
    pub info: Option<String>,
}

/// A token with the secret of `config`, which stands under the key `section`.
///
/// # Errors
/// One line with the remedy.
pub fn issue(
    config: &TokenConfig,
    section: &str,
    args: &IssueArgs,
    now: SystemTime,
) -> Result<String, String> {
    if !config.hmac_secret_key.is_set() {
        return Err(format!(
            "config key `{section}.hmac_secret_key`: unset, so no token can be made; set it in the file or the environment"
        ));
    }
    let mut claims = Map::new();
    let user_claim = match config.user_id_claim.as_str() {
        "" => "sub",
        claim => claim,
    };
    claims.insert(user_claim.to_owned(), args.user.clone().into());
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    claims.insert("iat".to_owned(), seconds.into());
    if !args.ttl.is_zero() {
        let until = seconds.saturating_add(args.ttl.as_secs().max(1));
        claims.insert("exp".to_owned(), until.into());
    }
    for (claim, value) in [("aud", &config.audience), ("iss", &config.issuer)] {
        if !value.is_empty() {
            claims.insert(claim.to_owned(), value.clone().into());
        }
    }
    if let Some(channel) = &args.channel {
        claims.insert("channel".to_owned(), channel.clone().into());
    }
    if let Some(info) = &args.info {
        let info: Value = serde_json::from_str(info)
            .map_err(|error| format!("--info `{info}` is not JSON ({error}); quote it as JSON"))?;
        claims.insert("info".to_owned(), info);
    }
    provider::install();
    let key = EncodingKey::from_secret(config.hmac_secret_key.expose().as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key)
        .map_err(|error| format!("the token cannot be made: {error}"))
}
