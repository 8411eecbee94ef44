//! The backend: HTTP endpoints that are asked what clients may do, and told what they did.
//!
//! | what | file |
//! |---|---|
//! | `client.proxy`, `channel.proxy`, `rpc`, `proxies` | `config` |
//! | what their types cannot say | `check` |
//! | which endpoint a question is for | `routes` |
//! | documents out, answers in (pure) | `wire` |
//! | when a failing endpoint is left alone (pure) | [`breaker`] |
//! | one endpoint: bounds, one exchange | `endpoint` |
//! | the HTTP client | [`http`] |
//!
//! Invariants
//! - Whatever the backend does or fails to do costs only the questions that were for it: each
//!   endpoint has its own bounds, and every wait its own end.

pub mod breaker;
mod check;
mod config;
mod endpoint;
pub mod http;
mod metrics;
mod routes;
pub(crate) mod wire;

pub use config::{
    BackendConfig, BreakerConfig, ChannelProxyConfig, ChannelRoute, ClientProxyConfig,
    DEFAULT_PROXY, ProxyConfig, ProxyHttpConfig, RpcConfig, RpcOptions, StatusTransform,
    TransformDisconnect, TransformError,
};
pub use endpoint::Endpoint;
pub(crate) use endpoint::Trouble;
pub use metrics::EndpointMetrics;
pub use routes::Routes;
pub use wire::examine;
