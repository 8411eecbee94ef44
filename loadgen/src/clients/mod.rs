//! The client side of each protocol, without sockets: bytes in, bytes and events out.
//!
//! | file | what |
//! |---|---|
//! | `websocket` | upgrade, thin frame writer and reader (RFC 6455), for where the load generator must be fast |
//! | `centrifuge` | commands and replies of the Centrifuge protocol, JSON |
//! | `subscriber` | what a fast subscriber finds in a delivery: which publication it is |
//! | `twins` | frames that another subscriber has received before |
//! | `pubsub` | publish/subscribe over WebSocket, whichever protocol: Centrifuge, NATS, nchan |
//! | `resp` | Redis's protocol: where one value ends and the next begins |
//! | `link` | one connection from TCP to open WebSocket, with failures by kind |

pub(crate) mod centrifuge;
pub(crate) mod link;
pub(crate) mod pubsub;
pub(crate) mod resp;
pub(crate) mod subscriber;
pub(crate) mod twins;
pub(crate) mod websocket;
