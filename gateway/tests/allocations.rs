//! Promise: a whole message costs no allocation, an idle connection holds no memory, and memory follows the bytes that
//! have come, never a length that was claimed.

#![allow(
    unsafe_code,
    reason = "a global allocator that counts cannot be written without"
)]

mod client_frames;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use client_frames::{BINARY, CONTINUATION, ClientFrame, Length, PING, PONG, TEXT, write_header};
use flux_gateway::engine::{Asker, Engine, Event as EngineEvent, PublishOptions};
use flux_gateway::http::{HeadScan, Policy, Progress, Request};
use flux_gateway::protocol::{Tags, WireFormat, command};
use flux_gateway::pubsub::{ChannelKey, MessageRef, Sequencer, Variant, Wire};
use flux_gateway::websocket::{CloseReason, Decoder, Event, Limits, Opcode, frame_into};
use flux_runtime::mailbox::wake_pair;

/// Counts per thread, so that tests beside each other do not disturb.
struct Counting;

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    allocations: u64,
    held_bytes: isize,
    held_bytes_max: isize,
}

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { allocations: 0, held_bytes: 0, held_bytes_max: 0 }) };
}

fn count(allocations: u64, bytes: isize) {
    // A thread that ends may still free: nobody looks at it any more.
    let _ = COUNTS.try_with(|counts| {
        let mut now = counts.get();
        now.allocations += allocations;
        now.held_bytes += bytes;
        now.held_bytes_max = now.held_bytes_max.max(now.held_bytes);
        counts.set(now);
    });
}

// SAFETY: everything is passed on to `System` as it came; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as isize);
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -(layout.size() as isize));
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(1, new_size as isize - layout.size() as isize);
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations during `work`, bytes still held after it, and the most that were held.
fn measure(work: impl FnOnce()) -> Counts {
    let before = COUNTS.get();
    COUNTS.set(Counts {
        held_bytes_max: before.held_bytes,
        ..before
    });
    work();
    let after = COUNTS.get();
    Counts {
        allocations: after.allocations - before.allocations,
        held_bytes: after.held_bytes - before.held_bytes,
        held_bytes_max: after.held_bytes_max - before.held_bytes,
    }
}

#[test]
fn whole_messages_are_decoded_and_echoed_without_an_allocation() {
    let limits = Limits::default();
    let mut received = Vec::new();
    ClientFrame::new(TEXT, "twenty bytes of tëxt".as_bytes()).write(&mut received);
    ClientFrame::new(TEXT, "κόσμε ".repeat(500).as_bytes()).write(&mut received);
    ClientFrame::new(BINARY, &[7; 65_536]).write(&mut received);
    ClientFrame::new(PING, b"ping").write(&mut received);
    ClientFrame::new(PONG, b"").write(&mut received);
    let mut buffer = received.clone();
    let mut out = Vec::with_capacity(2 * received.len());
    let mut decoder = Decoder::new();
    let mut messages = 0;
    let counts = measure(|| {
        for _ in 0..100 {
            buffer.copy_from_slice(&received);
            out.clear();
            decoder
                .feed(&mut buffer, &limits, &mut |event| {
                    messages += 1;
                    match event {
                        Event::Text(text) => frame_into(&mut out, Opcode::Text, text.as_bytes()),
                        Event::Binary(bytes) => frame_into(&mut out, Opcode::Binary, bytes),
                        Event::Ping(bytes) => frame_into(&mut out, Opcode::Pong, bytes),
                        Event::Pong(_) | Event::Close(..) => {}
                    }
                })
                .expect("valid");
        }
    });
    assert_eq!(messages, 500);
    assert_eq!(counts.allocations, 0);
}

#[test]
fn a_header_that_is_cut_costs_no_allocation() {
    let limits = Limits::default();
    let frame = ClientFrame::new(BINARY, &[1; 300]).bytes();
    let mut decoder = Decoder::new();
    let mut messages = 0;
    for cut in 1..8 {
        let mut bytes = frame.clone();
        let (head, rest) = bytes.split_at_mut(cut);
        let counts = measure(|| {
            decoder
                .feed(head, &limits, &mut |_| messages += 1)
                .expect("valid");
            decoder
                .feed(rest, &limits, &mut |_| messages += 1)
                .expect("valid");
        });
        assert_eq!(counts.allocations, 0, "cut at {cut}");
    }
    assert_eq!(messages, 7);
}

#[test]
fn a_handshake_costs_no_allocation_beyond_its_answer() {
    let head = b"GET /connection/websocket?sid=abc HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let policy = Policy::default();
    let mut out = Vec::with_capacity(256);
    let counts = measure(|| {
        let Progress::Complete {
            request: Request::Upgrade(upgrade),
            ..
        } = HeadScan::new().advance(head, &policy)
        else {
            panic!("refused")
        };
        upgrade.answer_into(&mut out);
    });
    assert_eq!(counts.allocations, 0);
}

#[test]
fn a_connection_between_messages_holds_nothing() {
    let limits = Limits::default();
    let mut bytes = ClientFrame::fragment(TEXT, &[b'x'; 5000]).bytes();
    ClientFrame::new(PING, &[0; 125]).write(&mut bytes);
    ClientFrame::new(CONTINUATION, &[b'y'; 5000]).write(&mut bytes);
    let mut decoder = Decoder::new();
    let mut messages = 0;
    let counts = measure(|| {
        for byte in &mut bytes {
            decoder
                .feed(std::slice::from_mut(byte), &limits, &mut |_| messages += 1)
                .expect("valid");
        }
    });
    assert_eq!(messages, 2);
    assert_eq!((decoder.heap_bytes(), counts.held_bytes), (0, 0));
}

#[test]
fn a_claimed_length_costs_nothing_until_its_bytes_come() {
    // Even where the operator allows messages of any size.
    let limits = Limits {
        message_bytes_max: usize::MAX,
        ..Limits::default()
    };
    for claimed in [1 << 30, 1 << 40, (1 << 63) - 1] {
        for opcode in [TEXT, BINARY] {
            let mut decoder = Decoder::new();
            let counts = measure(|| {
                let mut bytes = Vec::new();
                write_header(
                    &mut bytes,
                    0x80 | opcode,
                    Some([0; 4]),
                    Length::EightBytes,
                    claimed,
                );
                bytes.extend([b'x'; 1000]);
                decoder
                    .feed(&mut bytes, &limits, &mut |_| ())
                    .expect("incomplete");
            });
            assert!(decoder.heap_bytes() < 2048, "{}", decoder.heap_bytes());
            assert!(counts.held_bytes_max < 8192, "{counts:?}");
        }
    }
    // With the default the claim alone ends the connection, before a single byte of payload.
    let mut decoder = Decoder::new();
    let mut bytes = Vec::new();
    write_header(&mut bytes, 0x82, Some([0; 4]), Length::EightBytes, 1 << 30);
    let counts = measure(|| {
        let outcome = decoder.feed(&mut bytes, &Limits::default(), &mut |_| ());
        assert_eq!(outcome, Err(CloseReason::MessageTooBig));
    });
    assert_eq!(counts.allocations, 0);
}

#[test]
fn a_million_fragments_cost_bounded_memory() {
    let limits = Limits::default();
    // (payload of each fragment, how the connection ends, fragments until then)
    let fragments_max = limits.message_fragments_max as usize;
    for (payload, reason, taken) in [
        (
            &[b'x'; 64][..],
            CloseReason::MessageTooBig,
            limits.message_bytes_max / 64,
        ),
        (b"x", CloseReason::TooManyFragments, fragments_max),
        (b"", CloseReason::TooManyFragments, fragments_max),
    ] {
        let first = ClientFrame::fragment(TEXT, payload).bytes();
        let further = ClientFrame::fragment(CONTINUATION, payload).bytes();
        let mut decoder = Decoder::new();
        let mut outcome = Ok(());
        let mut fragments = 0;
        let counts = measure(|| {
            let mut buffer = [0; 80];
            for number in 0..1_000_000 {
                let frame = if number == 0 { &first } else { &further };
                let bytes = &mut buffer[..frame.len()];
                bytes.copy_from_slice(frame);
                let fed = decoder.feed(bytes, &limits, &mut |_| ());
                fragments += usize::from(fed.is_ok() && outcome.is_ok());
                outcome = outcome.and(fed);
            }
        });
        assert_eq!(outcome, Err(reason));
        assert_eq!(fragments, taken);
        assert!(counts.held_bytes_max <= 256 * 1024, "{counts:?}");
        assert_eq!(counts.held_bytes, 0);
    }
}

#[test]
fn a_publication_costs_no_allocation_of_its_own_in_any_encoding() {
    let variant = |format, delta| Variant {
        wire: Wire {
            format,
            ..Wire::default()
        },
        join_leave: false,
        delta,
    };
    let (mut sequencer, name) = (Sequencer::new(), std::sync::Arc::from("c"));
    for (shard, variant) in [
        variant(WireFormat::Json, false),
        variant(WireFormat::Protobuf, false),
        variant(WireFormat::Json, true),
        variant(WireFormat::Protobuf, true),
    ]
    .into_iter()
    .enumerate()
    {
        let key = ChannelKey {
            index: 0,
            generation: 0,
        };
        sequencer.join(&name, variant, shard as u16, key);
    }
    let mut payload = format!("{{\"n\":1000,\"text\":\"{}\"}}", "x".repeat(150)).into_bytes();
    let mut bytes = 0;
    let mut publish = |count: u32| {
        for n in 0..count {
            payload[6] = b'0' + (n % 10) as u8;
            let message = MessageRef::Publication {
                data: &payload,
                info: None,
                tags: Tags::NONE,
                delta: true,
            };
            sequencer.publish(&name, message, None, &mut |_, _, delivered| {
                // The two variants with deltas share one message.
                let whole = delivered.whole.map_or(0, |whole| whole.size() / 2);
                bytes += delivered.slice.len() + whole;
                true
            });
        }
    };
    publish(5_000);
    let counts = measure(|| publish(10_000));
    // What is left is the memory of the logs, a quarter of a megabyte and its count of users at a
    // time.
    let chunks = bytes / (256 * 1024) + 5;
    assert!(bytes > 5 * 1024 * 1024, "{bytes}");
    assert!(
        counts.allocations <= 2 * chunks as u64,
        "{counts:?}, {chunks}"
    );
}

#[test]
fn a_command_of_either_format_is_read_without_an_allocation() {
    let json = br#"{"id":1,"publish":{"channel":"news","data":{"a":1}}}"#;
    let protobuf = b"\x13\x08\x01\x3a\x0f\x0a\x04news\x12\x07{\"a\":1}";
    for (format, message) in [
        (WireFormat::Json, &json[..]),
        (WireFormat::Protobuf, protobuf),
    ] {
        let counts = measure(|| {
            for command in format.decode(message) {
                let request = command.expect("valid").request;
                assert!(
                    matches!(request, Some(command::Request::Publish(publish)) if publish.channel == "news")
                );
            }
        });
        assert_eq!(counts.allocations, 0, "{format:?}");
    }
}

#[test]
fn a_publication_without_history_costs_no_allocation_of_its_own_on_its_way_between_shards() {
    const PUBLICATIONS: u32 = 20_000;
    let (wakers, _wakes): (Vec<_>, Vec<_>) =
        (0..2).map(|_| wake_pair().expect("an eventfd")).unzip();
    let (mut engines, _handle) = Engine::memory(&wakers);
    let channels: Vec<std::sync::Arc<str>> = ["a", "b", "c", "d"].map(Into::into).to_vec();
    for engine in &mut engines {
        for (index, channel) in (0..).zip(&channels) {
            let key = ChannelKey {
                index,
                generation: 0,
            };
            engine.subscribe(channel, Variant::JSON, key, None);
        }
    }
    let data = [b'1'; 100];
    let mut delivered = 0;
    let mut round = |count: u32| {
        for command in 0..count {
            let channel = &channels[command as usize % channels.len()];
            let asker = Asker {
                connection: 1,
                command,
            };
            let engine = &mut engines[command as usize / 4 % 2];
            let (message, options) = (MessageRef::data(&data), PublishOptions::default());
            engine.publish(channel, message, &options, Some(asker));
            engine.flush();
            // Twice: to the owner, and back.
            for at in [0, 1, 0, 1] {
                while let Some(event) = engines[at].poll() {
                    delivered += u32::from(matches!(event, EngineEvent::Delivery { .. }));
                }
                engines[at].flush();
            }
        }
    };
    round(1_000);
    let counts = measure(|| round(PUBLICATIONS));
    assert_eq!(delivered, 2 * (PUBLICATIONS + 1_000));
    // Chunks of logs, each for a thousand messages or more.
    assert!(
        counts.allocations < u64::from(PUBLICATIONS) / 100,
        "{counts:?}"
    );
}
