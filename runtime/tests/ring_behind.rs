//! Promise: a ring that is behind says so, and hands out in portions all that has happened, however much it is.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use flux_runtime::mailbox::wake_pair;
use flux_runtime::ring::{Completion, Key, NetRing, RingConfig};

#[test]
fn a_ring_is_behind_until_everything_that_has_happened_was_taken() {
    const CONNECTIONS: usize = 400;
    let config = RingConfig {
        buffer_count: 512,
        ..RingConfig::default()
    };
    let (_waker, source) = wake_pair().unwrap();
    let mut ring = NetRing::new(&config, source).unwrap();
    let pairs: Vec<_> = (0..CONNECTIONS)
        .map(|key| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ring.recv(&ours, Key(key as u64));
            (ours, theirs)
        })
        .collect();
    // Not waiting: the receives stand.
    ring.wait(Some(Instant::now()));
    assert!(ring.next_completion().is_none());
    for (_, theirs) in &pairs {
        (&*theirs).write_all(b"x").unwrap();
    }
    let mut received = 0;
    for _ in 0..CONNECTIONS {
        ring.wait(Some(Instant::now()));
        while let Some(completion) = ring.next_completion() {
            assert!(
                matches!(completion, Completion::Received { .. }),
                "{completion:?}"
            );
            received += 1;
        }
        assert!(ring.is_behind() || received == CONNECTIONS);
        if !ring.is_behind() {
            break;
        }
    }
    assert_eq!(received, CONNECTIONS);
}
