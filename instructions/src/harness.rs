//! Runs one operation many times where callgrind counts.

use crate::allocations;

/// The name under which our own code stands in the table.
pub(crate) const OURS: &str = "ours";

/// Runs `operation` once to warm up (buffers grow, processors are asked for what they can do), then `times` more, and
/// writes the line for it. `units`: what one run of it does, so that a figure can be told for each of 1,000
/// deliveries.
#[expect(
    clippy::print_stdout,
    reason = "the lines are what this program is for"
)]
pub(crate) fn case(name: &str, who: &str, times: u32, units: u32, mut operation: impl FnMut()) {
    operation();
    let before = allocations::count();
    measured(&mut operation, times);
    let allocations = allocations::count() - before;
    println!(
        "{{\"name\": \"{name}\", \"who\": \"{who}\", \"operations\": {}, \"allocations\": {allocations}}}",
        u64::from(times) * u64::from(units)
    );
}

/// What callgrind counts: it is told this function's name. The loop costs two instructions a turn.
#[inline(never)]
fn measured(operation: &mut impl FnMut(), times: u32) {
    for _ in 0..times {
        operation();
    }
}
