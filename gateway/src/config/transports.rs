//! Centrifugo's `websocket`, `sse`, `http_stream`, `uni_*` and `emulation`.

use serde::{Deserialize, Serialize};

/// Centrifugo's bound on what a client sends in one message or body.
const BODY_BYTES: usize = 65_536;

/// The WebSocket transport.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocketConfig {
    /// Whether it is switched off.
    pub disabled: bool,
    /// Longest message from a client, in bytes.
    pub message_size_limit: usize,
}

/// A transport that delivers in a streamed HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamConfig {
    /// Whether it is there.
    pub enabled: bool,
    /// Longest body of the request that opens it, in bytes.
    pub max_request_body_size: usize,
}

/// WebSocket that only delivers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UniWebSocketConfig {
    /// Whether it is there.
    pub enabled: bool,
    /// Longest message from a client, in bytes.
    pub message_size_limit: usize,
}

/// The way back of `sse` and `http_stream`; there when one of the two is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmulationConfig {
    /// Longest body, in bytes.
    pub max_request_body_size: usize,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            disabled: false,
            message_size_limit: BODY_BYTES,
        }
    }
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            max_request_body_size: BODY_BYTES,
        }
    }
}

impl Default for UniWebSocketConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            message_size_limit: BODY_BYTES,
        }
    }
}

impl Default for EmulationConfig {
    fn default() -> Self {
        Self {
            max_request_body_size: BODY_BYTES,
        }
    }
}
