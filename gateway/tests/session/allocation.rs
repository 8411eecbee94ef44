//! A publish costs no memory of its own, from the message to the effect and to the reply.

#![allow(
    unsafe_code,
    reason = "counting allocations takes a global allocator, whose trait is unsafe"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Instant;

use crate::client::{Client, open_config};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Gone while the thread ends; what is allocated then is not looked at.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it came; the count is a plain number of
// this thread, and touching it allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`, which is the same.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(run: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    run();
    COUNT.get() - before
}

/// `{"id":7,"publish":..}` with 100 bytes of data, as the JavaScript SDK writes it.
fn publish() -> String {
    let text = "x".repeat(60);
    format!(
        r#"{{"publish":{{"channel":"news","data":{{"text":"{text}","n":[1,2,3],"at":1700000000}}}},"id":7}}"#
    )
}

#[test]
fn a_publish_allocates_nothing() {
    let mut client = Client::connected(open_config());
    let message = publish();
    let mut out = Vec::with_capacity(256);
    let mut published = 0;
    let mut round = || {
        out.clear();
        let now = client.now;
        client
            .session
            .on_message(message.as_bytes(), now, &mut out, &mut |_| published += 1);
        client.session.on_published(7, Ok(None), &mut out);
        assert_eq!(out, br#"{"id":7,"publish":{}}"#);
    };
    round();
    assert_eq!(
        allocations(|| {
            for _ in 0..1_000 {
                round();
            }
        }),
        0
    );
    assert_eq!(published, 1_001);
}

/// Most connections are idle and many are anonymous: such a session is nothing but itself, and each
/// plain subscription one entry of its list and the channel's name.
#[test]
fn an_idle_anonymous_client_takes_no_memory_of_its_own() {
    let mut client = Client::new(open_config());
    let now = client.now;
    let mut out = Vec::with_capacity(256);
    let connected = allocations(|| {
        let connect = br#"{"id":1,"connect":{"name":"js"}}"#;
        client
            .session
            .on_message(connect, now, &mut out, &mut |_| {});
    });
    assert_eq!(connected, 0);
    assert!(client.session.is_connected());
    let subscribed = allocations(|| {
        let subscribe = br#"{"id":2,"subscribe":{"channel":"a","flag":1}}"#;
        client
            .session
            .on_message(subscribe, now, &mut out, &mut |_| {});
    });
    assert_eq!(subscribed, 2);
}

#[test]
fn pings_and_pongs_allocate_nothing() {
    let mut client = Client::connected(open_config());
    let mut out = Vec::with_capacity(64);
    let allocated = allocations(|| {
        for _ in 0..100 {
            out.clear();
            client.now = client.session.deadline().expect("a ping is due");
            let now = client.now;
            client.session.on_timer(now, &mut out, &mut |_| {});
            assert_eq!(out, b"{}");
            client.session.on_message(b"{}", now, &mut out, &mut |_| {});
        }
    });
    assert_eq!(allocated, 0);
    assert!(client.session.is_connected());
}

/// `cargo test --release -p flux-gateway --test session -- --ignored --nocapture measure`
#[test]
#[ignore = "a figure, not a promise"]
fn measure_a_publish() {
    let mut client = Client::connected(open_config());
    let message = publish();
    let mut out = Vec::with_capacity(256);
    let rounds = 2_000_000_u32;
    let started = Instant::now();
    for _ in 0..rounds {
        out.clear();
        let now = client.now;
        client
            .session
            .on_message(message.as_bytes(), now, &mut out, &mut |effect| {
                std::hint::black_box(effect);
            });
        client.session.on_published(7, Ok(None), &mut out);
        std::hint::black_box(&out);
    }
    println!(
        "{:.0} ns a publish of {} bytes, command to reply",
        started.elapsed().as_nanos() as f64 / f64::from(rounds),
        message.len()
    );
}
