//! Every bound of the dashboard, in one place.

use std::time::Duration;

/// How long a node that is DEAD stays listed.
pub const DEPARTED_LISTED: Duration = Duration::from_secs(600);

/// Most nodes kept at all. A registry with more is cut off in the order of
/// ids, and the page says so.
pub const NODES_MAX: usize = 4_096;

/// Most timeline entries kept; the oldest go first.
pub const TIMELINE_MAX: usize = 500;

/// Time between two points of a sparkline.
pub const HISTORY_STEP: Duration = Duration::from_secs(2);

/// Points of a sparkline: five minutes.
pub const HISTORY_POINTS: usize = 150;

/// Nodes whose sparklines are kept; beyond it only the totals are.
pub const HISTORY_NODES_MAX: usize = 256;

/// Time between two probes of one target.
pub const PROBE_EVERY: Duration = Duration::from_secs(1);

/// After this a probe counts as failed; shorter than the time between two, so
/// that a frozen target is found in [`PROBE_FALL`] of them.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(800);

/// Failed probes in a row that turn a target to failing.
pub const PROBE_FALL: u32 = 3;

/// Good probes in a row that turn a failing target to ok.
pub const PROBE_RISE: u32 = 2;

/// Probes in flight at once.
pub const PROBES_IN_FLIGHT_MAX: usize = 64;

/// Bytes read of one admin answer; a longer one counts as failed.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Characters of a reason that came from elsewhere.
pub const REASON_CHARS_MAX: usize = 200;

/// Shortest time between two documents on one event stream: 4 a second.
pub const STREAM_GAP_MIN: Duration = Duration::from_millis(250);

/// Longest time between two documents: ages move even when nothing else does.
pub const STREAM_GAP_MAX: Duration = Duration::from_secs(1);

/// Event streams open at once; one more is answered 503.
pub const STREAMS_MAX: usize = 256;

// Two documents a second at the very least have to fit between two probes.
const _: () = assert!(STREAM_GAP_MIN.as_millis() * 2 <= PROBE_EVERY.as_millis());
const _: () = assert!(PROBE_TIMEOUT.as_millis() < PROBE_EVERY.as_millis());
const _: () = assert!(STREAM_GAP_MIN.as_millis() < STREAM_GAP_MAX.as_millis());
