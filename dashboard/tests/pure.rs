//! The pure parts mention no socket, runtime, clock or randomness.

use std::fs;
use std::path::Path;

const PURE: &[&str] = &[
    "document.rs",
    "history.rs",
    "limits.rs",
    "observe.rs",
    "probe.rs",
    "timeline.rs",
    "topology/judge.rs",
    "topology/known.rs",
    "topology/mod.rs",
];

const FORBIDDEN: &[&str] = &[
    "std::net",
    "std::thread",
    "std::time::Instant",
    "Instant::now",
    "SystemTime",
    "tokio",
    "reqwest",
    "axum",
    "flux_registry",
    "fastrand",
    "rand::",
];

#[test]
fn pure_parts_touch_nothing_outside() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in PURE {
        let text = fs::read_to_string(source.join(file)).expect("the file is there");
        for word in FORBIDDEN {
            assert!(!text.contains(word), "{file} mentions {word}");
        }
    }
}
