//! Promise: both wire formats say the same, as the schema has it, and no bytes make a decoder panic;
//! what a channel's listeners get is this, framed for their transport.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod commands;
mod feeds;
mod replies;
mod schema;
