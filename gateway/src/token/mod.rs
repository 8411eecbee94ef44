//! Connection and subscription tokens (JWT, RFC 7519): who issued them, whether they hold, what
//! they grant.
//!
//! | what | file |
//! |---|---|
//! | `client.token`, `client.subscription_token` | `config` |
//! | a secret that never shows | `secret` |
//! | keys, each bound to its family of algorithms | `keys` |
//! | cryptography of the JWT crate | `provider` |
//! | key sets at a URL | `jwks` |
//! | from a token to its claims | `verify` |
//! | from claims to a grant (pure) | `claims` |
//! | tokens made at a terminal | `issue` |
//!
//! Invariants
//! - A key verifies only algorithms of its own family: which one is tried follows from the key,
//!   never from the token alone. `none` is not an algorithm.
//! - Nothing of a token is believed before its signature is.

pub(crate) mod claims;
mod config;
mod issue;
mod jwks;
mod keys;
mod provider;
mod secret;
mod verify;

#[cfg(test)]
mod tests;

pub use config::TokenConfig;
pub use issue::{IssueArgs, issue};
pub use secret::Secret;
pub use verify::{Verifier, examine, examine_key_set};

/// Why a token grants nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It has expired or does not hold yet (error 109: the client asks for a new one).
    Expired,
    /// It holds, but what it grants has expired (`expire_at`; error 110).
    ExpiredAtOnce,
    /// It is not acceptable, for this reason (close 3500, for subscriptions error 103). Never told
    /// to the client.
    Invalid(&'static str),
    /// Its key could not be looked up just now (error 100, temporary).
    Unjudged,
}
