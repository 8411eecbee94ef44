//! The backend: HTTP endpoints that are asked what clients may do, and told what they did.
//!
//! | what | file |
//! |---|---|
//! | `client.proxy`, `channel.proxy`, `rpc`, `proxies` | `config` |
//! | the HTTP client | [`http`] |
//!
//! Invariants
//! - Whatever the backend does or fails to do costs only the questions that were for it: each
//!   endpoint has its own bounds, and every wait its own end.

mod config;
pub mod http;

pub use config::{
    BackendConfig, BreakerConfig, ChannelProxyConfig, ChannelRoute, ClientProxyConfig,
    DEFAULT_PROXY, ProxyConfig, ProxyHttpConfig, RpcConfig, RpcOptions, RpcPingConfig,
    StatusTransform, TransformDisconnect, TransformError,
};
