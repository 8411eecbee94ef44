//! Connection and subscription tokens (JWT, RFC 7519): who issued them, whether they hold, what
//! they grant.
//!
//! | what | file |
//! |---|---|
//! | `client.token`, `client.subscription_token` | `config` |
//! | a secret that never shows | `secret` |
//! | keys, each bound to its family of algorithms | `keys` |
//!
//! Invariants
//! - A key verifies only algorithms of its own family: which one is tried follows from the key,
//!   never from the token alone. `none` is not an algorithm.
//! - Nothing of a token is believed before its signature is.

mod config;
mod keys;
mod provider;
mod secret;

pub use config::TokenConfig;
pub use secret::Secret;
