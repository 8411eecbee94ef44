//! The client side of each protocol, without sockets: bytes in, bytes and events out.
//!
//! | file | what |
//! |---|---|
//! | `websocket` | upgrade, thin frame writer and reader (RFC 6455), for where the load generator must be fast |
//! | `centrifuge` | commands and replies of the Centrifuge protocol, JSON |
//! | `subscriber` | a Centrifuge subscriber that only finds out which publication a delivery is |
//! | `resp` | Redis's protocol: where one value ends and the next begins |
//! | `link` | one connection from TCP to open WebSocket, with failures by kind |

pub(crate) mod centrifuge;
pub(crate) mod link;
pub(crate) mod resp;
pub(crate) mod subscriber;
pub(crate) mod websocket;
