//! What the authority is made of, from all over the configuration.

use super::Switched;
use crate::backend::BackendConfig;
use crate::token::TokenConfig;

/// What the authority is made of.
#[derive(Clone, Debug, Default)]
pub struct AuthorityConfig {
    /// `client.token`.
    pub token: TokenConfig,
    /// `client.subscription_token`; switched off: as `client.token`.
    pub subscription_token: Switched<TokenConfig>,
    /// Whether a client of whom the connect proxy knows nothing (an answer without `result`) may
    /// connect (`client.allow_anonymous_connect_without_token`).
    pub allow_anonymous: bool,
    /// The backend's endpoints.
    pub backend: BackendConfig,
}

impl AuthorityConfig {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// One line that names the key, the value (never a secret) and the remedy.
    pub fn check(&self) -> Result<(), String> {
        self.token.check("client.token")?;
        if self.subscription_token.enabled {
            let section = "client.subscription_token";
            self.subscription_token.options.check(section)?;
            if !self.subscription_token.options.has_keys() {
                return Err(format!(
                    "config key `{section}.enabled`: true, but there is no key to verify with; set a key there, or use false"
                ));
            }
        }
        self.backend.check()
    }
}
