//! What all sessions of a node have in common, and what is known of a client before it speaks.

use super::ChannelRules;
use crate::authority::{Headers, Wanted};
use crate::limits::SessionLimits;
use crate::protocol::{ErrorCode, WireFormat};
use crate::pubsub::{Framing, Wire};

/// What all sessions of a node have in common. Centrifugo's key stands beside what Centrifugo also
/// has.
#[derive(Clone, Debug, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own in the configuration"
)]
pub struct SessionConfig {
    /// The id of this node, told to every client.
    pub node: String,
    /// Name and version of this server, told to every client.
    pub version: String,
    /// Whether a client may connect without a token
    /// (`client.allow_anonymous_connect_without_token`).
    pub allow_anonymous: bool,
    /// Whether a token without a user is refused, 3507
    /// (`client.disallow_anonymous_connection_tokens`).
    pub disallow_anonymous_tokens: bool,
    /// No token is needed, connections do not expire, everything that exists is allowed: for
    /// development (`client.insecure`).
    pub insecure: bool,
    /// Whether the backend is asked about clients without a token (`client.proxy.connect.enabled`).
    pub connect_proxy: bool,
    /// Whether the backend renews the credentials of connections, instead of their clients
    /// (`client.proxy.refresh.enabled`).
    pub refresh_proxy: bool,
    /// Every user's own channel, to which the server subscribes all of the user's connections
    /// (`client.subscribe_to_user_personal_channel`).
    pub personal_channel: Option<PersonalChannel>,
    /// Which calls go to the backend (`rpc`).
    pub rpc: RpcRules,
    /// What the backend is told without being asked.
    pub notices: Wanted,
    /// Which channels exist and what a client may do there.
    pub channels: ChannelRules,
    /// What bounds a session.
    pub limits: SessionLimits,
}

/// A user's own channel: `NAMESPACE:#USER`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PersonalChannel {
    /// Its namespace; empty: `#USER` (`personal_channel_namespace`).
    pub namespace: String,
}

/// Which calls go to the backend: by namespace, which is what stands before the first `:` of the
/// method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcRules {
    /// Whether methods without a namespace do (`rpc.without_namespace.proxy_enabled`).
    pub without_namespace: bool,
    /// Namespaces, and whether their methods do (`rpc.namespaces`).
    pub namespaces: Vec<(String, bool)>,
}

impl RpcRules {
    /// Whether a method goes to the backend.
    ///
    /// # Errors
    /// 104 where its namespace is not configured, 108 where the backend is not asked.
    pub fn check(&self, method: &str) -> Result<(), ErrorCode> {
        let is_enabled = match method.split_once(':') {
            None => self.without_namespace,
            Some((name, _)) => self
                .namespaces
                .iter()
                .find(|(namespace, _)| namespace == name)
                .map(|(_, is_enabled)| *is_enabled)
                .ok_or(ErrorCode::MethodNotFound)?,
        };
        if is_enabled {
            Ok(())
        } else {
            Err(ErrorCode::NotAvailable)
        }
    }
}

/// By which door a client comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Door {
    /// How commands, replies and pushes are encoded.
    pub format: WireFormat,
    /// What carries them.
    pub transport: Framing,
    /// Whether the client only listens.
    pub unidirectional: bool,
    /// Names the session in requests of transports that receive by one connection and send by
    /// another; empty for the others.
    pub session_token: Box<str>,
    /// Headers of the client's request that the backend may be told of.
    pub headers: Headers,
}

impl Door {
    /// A WebSocket client's.
    #[must_use]
    pub fn websocket(format: WireFormat) -> Self {
        Self {
            format,
            ..Self::default()
        }
    }

    /// How messages look to the client.
    #[must_use]
    pub fn wire(&self) -> Wire {
        Wire {
            format: self.format,
            transport: self.transport,
            unidirectional: self.unidirectional,
        }
    }
}

/// The transport's name, as the backend is told.
pub(super) const fn transport_name(wire: Wire) -> &'static str {
    match (wire.transport, wire.unidirectional) {
        (Framing::WebSocket, false) => "websocket",
        (Framing::WebSocket, true) => "uni_websocket",
        (Framing::HttpStream, false) => "http_stream",
        (Framing::HttpStream, true) => "uni_http_stream",
        (Framing::Sse, false) => "sse",
        (Framing::Sse, true) => "uni_sse",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_goes_to_the_backend_by_its_methods_namespace() {
        let rules = RpcRules {
            without_namespace: false,
            namespaces: vec![("users".to_owned(), true), ("old".to_owned(), false)],
        };
        assert_eq!(rules.check("users:list"), Ok(()));
        assert_eq!(rules.check("old:list"), Err(ErrorCode::NotAvailable));
        assert_eq!(rules.check("list"), Err(ErrorCode::NotAvailable));
        assert_eq!(rules.check("other:list"), Err(ErrorCode::MethodNotFound));
    }
}
