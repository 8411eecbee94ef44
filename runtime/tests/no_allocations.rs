//! Promise: in steady state the net ring allocates nothing per message, whatever kind of payload.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]
#![allow(unsafe_code, reason = "a global allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use flux_runtime::log::LogWriter;
use flux_runtime::mailbox::{mailbox, wake_pair};
use flux_runtime::ring::{Completion, Key, NetRing, Payload, RingConfig};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator; the counter is a plain thread-local
// cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Messages go round between two sockets: from a vector that is used again, from a shared log with
/// a piece before it, and back from the receive buffer.
#[test]
fn messages_go_round_without_allocations() {
    const NEAR: Key = Key(1);
    const FAR: Key = Key(2);
    let (waker, source) = wake_pair().unwrap();
    let (sender, mail) = mailbox(16, waker);
    let mut ring = NetRing::new(&RingConfig::default(), source).unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    ring.recv(&near, NEAR);
    ring.recv(&far, FAR);
    let mut log = LogWriter::new();
    let frame = log.append(&[b"a frame of the shared log"]);
    let mut spare = Some(Vec::with_capacity(64));
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut rounds = 0u64;
    let mut before = 0;
    ring.send(&near, NEAR, Payload::from(&b"first"[..]));
    while rounds < 2_000 {
        if rounds == 500 && before == 0 {
            before = ALLOCATIONS.get();
        }
        assert!(ring.wait(Some(deadline)) < deadline);
        while mail.pop().is_some() {}
        while let Some(completion) = ring.next_completion() {
            match completion {
                Completion::Received { key: FAR, buffer } => {
                    ring.send(&far, FAR, Payload::from(buffer));
                }
                Completion::Received { .. } => {
                    rounds += 1;
                    sender.try_send(rounds).unwrap();
                    let payload = match spare.take() {
                        Some(mut bytes) => {
                            bytes.extend_from_slice(b"from a vector");
                            Payload::from(bytes)
                        }
                        None => Payload::from(frame.clone()),
                    };
                    ring.send(&near, NEAR, payload);
                }
                Completion::Sent {
                    key,
                    payload,
                    result,
                } => {
                    assert_eq!(result.unwrap(), payload.len());
                    if key == NEAR {
                        spare = payload.into_spare_vec();
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(ALLOCATIONS.get() - before, 0, "in 1,500 rounds");
}
