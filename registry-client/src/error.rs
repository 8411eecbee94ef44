//! What can go wrong between a node and its registry, and who mends it.

/// The configuration cannot work; nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct ConfigError {
    /// Which setting.
    pub key: &'static str,
    /// What is wrong with it and what is allowed.
    pub message: String,
}

/// One exchange with the registry failed. Every one is tried again by whoever met it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// No connection or no answer in time; heals with the network or the server.
    #[error("registry unreachable: {0}")]
    Unreachable(String),
    /// The server answered with an error (credentials, memory, a replica, foreign keys); an operator mends it.
    #[error("registry refused: {0}")]
    Refused(String),
}

impl RegistryError {
    pub(crate) fn from_redis(error: &redis::RedisError) -> RegistryError {
        if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() {
            RegistryError::Unreachable(error.to_string())
        } else {
            RegistryError::Refused(error.to_string())
        }
    }
}
