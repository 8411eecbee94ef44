//! Promise: a shard that is behind takes everything that has happened in one turn, however much it is.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use flux_runtime::mailbox::wake_pair;
use flux_runtime::ring::{Completion, Key, NetRing, RingConfig};

#[test]
fn one_turn_takes_all_that_has_happened_while_the_shard_was_busy() {
    const CONNECTIONS: u64 = 400;
    let config = RingConfig {
        buffer_count: 512,
        ..RingConfig::default()
    };
    let (_waker, source) = wake_pair().unwrap();
    let mut ring = NetRing::new(&config, source).unwrap();
    let pairs: Vec<_> = (0..CONNECTIONS)
        .map(|key| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ring.recv(&ours, Key(key));
            (ours, theirs)
        })
        .collect();
    // Not waiting: the receives stand.
    ring.wait(Some(Instant::now()));
    assert!(ring.next_completion().is_none());
    for (_, theirs) in &pairs {
        (&*theirs).write_all(b"x").unwrap();
    }
    ring.wait(Some(Instant::now()));
    let mut received = 0;
    while let Some(completion) = ring.next_completion() {
        assert!(
            matches!(completion, Completion::Received { .. }),
            "{completion:?}"
        );
        received += 1;
    }
    assert_eq!(received, CONNECTIONS);
}
