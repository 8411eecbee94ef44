//! The one place for the protocol's codes: errors, disconnects, unsubscribes.

/// Why a command failed: answered as `{"id":N,"error":{..}}`, the connection stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ErrorCode {
    /// The server failed; the client may try again.
    Internal = 100,
    /// No valid credentials.
    Unauthorized = 101,
    /// The channel's namespace is not configured.
    UnknownChannel = 102,
    /// Not allowed for this client.
    PermissionDenied = 103,
    /// No such RPC method.
    MethodNotFound = 104,
    /// Subscribed already, or a subscribe is under way.
    AlreadySubscribed = 105,
    /// A limit of this client is reached.
    LimitExceeded = 106,
    /// Well-formed, but never acceptable.
    BadRequest = 107,
    /// Not switched on here.
    NotAvailable = 108,
    /// The token has expired; the client asks for a new one.
    TokenExpired = 109,
    /// Expired without a token being involved.
    Expired = 110,
    /// Too many at once; the client may try again.
    TooManyRequests = 111,
    /// The history no longer reaches back to the position asked for.
    UnrecoverablePosition = 112,
    /// Two pages of one map asked for at once; the client may try again.
    ConcurrentPagination = 113,
}

impl ErrorCode {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Internal,
        Self::Unauthorized,
        Self::UnknownChannel,
        Self::PermissionDenied,
        Self::MethodNotFound,
        Self::AlreadySubscribed,
        Self::LimitExceeded,
        Self::BadRequest,
        Self::NotAvailable,
        Self::TokenExpired,
        Self::Expired,
        Self::TooManyRequests,
        Self::UnrecoverablePosition,
        Self::ConcurrentPagination,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The text on the wire.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Internal => "internal server error",
            Self::Unauthorized => "unauthorized",
            Self::UnknownChannel => "unknown channel",
            Self::PermissionDenied => "permission denied",
            Self::MethodNotFound => "method not found",
            Self::AlreadySubscribed => "already subscribed",
            Self::LimitExceeded => "limit exceeded",
            Self::BadRequest => "bad request",
            Self::NotAvailable => "not available",
            Self::TokenExpired => "token expired",
            Self::Expired => "expired",
            Self::TooManyRequests => "too many requests",
            Self::UnrecoverablePosition => "unrecoverable position",
            Self::ConcurrentPagination => "concurrent pagination",
        }
    }

    /// Whether the same command may succeed later: SDKs retry by this flag.
    #[must_use]
    pub const fn temporary(self) -> bool {
        matches!(
            self,
            Self::Internal | Self::TooManyRequests | Self::ConcurrentPagination
        )
    }
}

/// Why a connection is closed: the WebSocket close code and reason, or the disconnect push of the
/// transports that have no close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// 3000-4999.
    pub code: u16,
    /// Plain text of at most 123 bytes (RFC 6455, 5.5); SDKs show it to the application.
    pub reason: &'a str,
}

impl Disconnect<'static> {
    /// Closed without advice.
    pub const CONNECTION_CLOSED: Self = Self::new(3000, "connection closed");
    /// This node is shutting down or draining.
    pub const SHUTDOWN: Self = Self::new(3001, "shutdown");
    /// The server failed.
    pub const SERVER_ERROR: Self = Self::new(3004, "internal server error");
    /// The connection's credentials expired.
    pub const EXPIRED: Self = Self::new(3005, "connection expired");
    /// A server-side subscription expired.
    pub const SUBSCRIPTION_EXPIRED: Self = Self::new(3006, "subscription expired");
    /// The client reads too slowly.
    pub const SLOW: Self = Self::new(3008, "slow");
    /// Writing to the client failed or took too long.
    pub const WRITE_ERROR: Self = Self::new(3009, "write error");
    /// A server-side subscription lost its position.
    pub const INSUFFICIENT_STATE: Self = Self::new(3010, "insufficient state");
    /// The client is asked to connect again.
    pub const FORCE_RECONNECT: Self = Self::new(3011, "force reconnect");
    /// No pong in time.
    pub const NO_PONG: Self = Self::new(3012, "no pong");
    /// Too many commands.
    pub const TOO_MANY_REQUESTS: Self = Self::new(3013, "too many requests");
    /// Token and positions no longer hold; the client starts anew.
    pub const STATE_INVALIDATED: Self = Self::new(3014, "state invalidated");

    /// The token is not acceptable.
    pub const INVALID_TOKEN: Self = Self::new(3500, "invalid token");
    /// A frame that cannot be decoded, or a command that breaks the protocol's order.
    pub const BAD_REQUEST: Self = Self::new(3501, "bad request");
    /// No connect command in time.
    pub const STALE: Self = Self::new(3502, "stale");
    /// The client is asked to stay away.
    pub const FORCE_DISCONNECT: Self = Self::new(3503, "force disconnect");
    /// Too many connections of this user.
    pub const CONNECTION_LIMIT: Self = Self::new(3504, "connection limit");
    /// Too many server-side subscriptions.
    pub const CHANNEL_LIMIT: Self = Self::new(3505, "channel limit");
    /// Data that this client's wire format cannot carry.
    pub const INAPPROPRIATE_PROTOCOL: Self = Self::new(3506, "inappropriate protocol");
    /// This client may not connect.
    pub const PERMISSION_DENIED: Self = Self::new(3507, "permission denied");
    /// A command without a reply asks for something that is not switched on.
    pub const NOT_AVAILABLE: Self = Self::new(3508, "not available");
    /// Too many commands of this client failed.
    pub const TOO_MANY_ERRORS: Self = Self::new(3509, "too many errors");
}

impl<'a> Disconnect<'a> {
    /// A code with its reason.
    #[must_use]
    pub const fn new(code: u16, reason: &'a str) -> Self {
        Self { code, reason }
    }

    /// Whether a client connects again by itself after this code.
    #[must_use]
    pub const fn reconnects(&self) -> bool {
        self.code < 3500 || (self.code >= 4000 && self.code < 4500) || self.code >= 5000
    }
}

/// Why the server ended a subscription: an unsubscribe push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Below 2500 final, from 2500 the client subscribes again.
    pub code: u16,
    /// For people.
    pub reason: &'a str,
}

impl Unsubscribe<'static> {
    /// By the server API; final.
    pub const SERVER: Self = Self::new(2000, "server unsubscribe");
    /// The subscription lost its position; the client subscribes again and recovers.
    pub const INSUFFICIENT_STATE: Self = Self::new(2500, "insufficient state");
    /// The subscription's token expired; the client subscribes again with a new one.
    pub const EXPIRED: Self = Self::new(2501, "subscription expired");
    /// Token and position no longer hold; the client subscribes anew.
    pub const STATE_INVALIDATED: Self = Self::new(2502, "state invalidated");
}

impl<'a> Unsubscribe<'a> {
    /// A code with its reason.
    #[must_use]
    pub const fn new(code: u16, reason: &'a str) -> Self {
        Self { code, reason }
    }

    /// Whether a client subscribes again by itself after this code.
    #[must_use]
    pub const fn resubscribes(&self) -> bool {
        self.code >= 2500
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errors_are_numbered_without_a_gap_and_three_are_temporary() {
        for (index, error) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(usize::from(error.code()), 100 + index);
        }
        let temporary: Vec<_> = ErrorCode::ALL
            .iter()
            .filter(|error| error.temporary())
            .map(|error| error.code())
            .collect();
        assert_eq!(temporary, [100, 111, 113]);
    }

    #[test]
    fn clients_reconnect_by_the_range_of_the_code() {
        assert!(Disconnect::SHUTDOWN.reconnects());
        assert!(Disconnect::STATE_INVALIDATED.reconnects());
        assert!(!Disconnect::INVALID_TOKEN.reconnects());
        assert!(!Disconnect::TOO_MANY_ERRORS.reconnects());
        for (code, reconnects) in [(4000, true), (4499, true), (4500, false), (4999, false)] {
            assert_eq!(Disconnect::new(code, "").reconnects(), reconnects, "{code}");
        }
        assert!(!Unsubscribe::SERVER.resubscribes());
        assert!(Unsubscribe::INSUFFICIENT_STATE.resubscribes());
    }
}
