//! What the pure parts cost in instructions and allocations, beside well-known crates doing the same.
//!
//! `scripts/bench instructions` runs this program under valgrind's callgrind, which counts the instructions that
//! [`harness::measured`] and everything below it executes, once for each line that this program writes. The lines say
//! what was measured and how many allocations it made. Run without valgrind it shows that each case runs.
//!
//! The pure parts are compiled here from the files where they stand, without the crates that they are part of: so the
//! program builds in seconds, its figures do not move with what else those crates have, and the parts show that they
//! need no socket, runtime or registry.

// The tests of the parts run where the parts belong.
#![cfg(not(test))]

mod allocations;
mod cases;
mod harness;

// What gateway/ has of the runtime, by the name that it has there.
extern crate self as flux_runtime;

#[path = "../../gateway/src/limits.rs"]
#[allow(dead_code, unreachable_pub, reason = "as much as the cases need")]
mod limits;
#[path = "../../runtime/src/log.rs"]
#[allow(dead_code, unreachable_pub, reason = "as much as the cases need")]
mod log;
#[path = "../../runtime/src/mailbox/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "as much as the cases need"
)]
mod mailbox;
#[path = "../../gateway/src/protocol/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "as much as the cases need"
)]
mod protocol;
#[path = "../../gateway/src/pubsub/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "as much as the cases need"
)]
mod pubsub;
#[path = "../../gateway/src/websocket/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::enum_variant_names,
    reason = "as much as the cases need"
)]
mod websocket;
#[path = "../../runtime/src/wheel/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "as much as the cases need")]
mod wheel;

mod registry;

fn main() {
    cases::websocket::run();
    cases::json::run();
    cases::protobuf::run();
    cases::fanout::run();
    cases::ring::run();
    cases::wheel::run();
    cases::mailbox::run();
}
