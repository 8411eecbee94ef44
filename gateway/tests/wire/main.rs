//! Promise: both wire formats say the same, as the schema has it, and no bytes make a decoder panic.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod commands;
mod replies;
mod schema;
