//! What both event loops promise.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::{EpollNet, Event, Net, RingNet};

/// Runs a test over both; without io_uring only over epoll, and says so.
macro_rules! both {
    ($($name:ident),*) => {$(
        mod $name {
            #[test]
            fn epoll() {
                super::$name(super::EpollNet::new().expect("epoll"));
            }

            #[test]
            fn ring() {
                match super::RingNet::new() {
                    Ok(net) => super::$name(net),
                    Err(error) => println!("skipped: {error}"),
                }
            }
        }
    )*};
}

both!(
    a_refused_connection_ends_in_one_closed_event,
    bytes_beyond_the_socket_buffer_arrive_in_order,
    a_closed_connection_says_nothing_more,
    waits_shorter_than_a_millisecond_are_kept
);

fn a_refused_connection_ends_in_one_closed_event(mut net: impl Net) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let mut seen = Vec::new();
    match net.connect(address, None, 0) {
        Err(error) => seen.push(error.kind()),
        Ok(_) => {
            while seen.is_empty() {
                net.turn(None, &mut |_, _, event| match event {
                    Event::Closed(Some(error)) => seen.push(error.kind()),
                    other => panic!("unexpected {other:?}"),
                })
                .expect("turn");
            }
        }
    }
    assert_eq!(seen, [ErrorKind::ConnectionRefused]);
}

fn bytes_beyond_the_socket_buffer_arrive_in_order(mut net: impl Net) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let sent: Vec<u8> = (0..8_000_000u32).map(|n| (n / 3) as u8).collect();
    let expected = sent.clone();
    let reader = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().expect("accept");
        assert_eq!(peer.ip().to_string(), "127.0.0.2");
        let mut got = vec![0; expected.len()];
        stream.read_exact(&mut got).expect("read");
        got == expected
    });
    let source = Some("127.0.0.2".parse().expect("address"));
    net.connect(address, source, 0).expect("connect");
    let mut closed = false;
    while !closed {
        net.turn(None, &mut |net, key, event| match event {
            Event::Connected => {
                for part in sent.chunks(100_000) {
                    net.send(key, part);
                }
            }
            Event::Closed(_) => closed = true,
            Event::Data(_) => {}
        })
        .expect("turn");
    }
    assert!(reader.join().expect("reader"));
}

fn a_closed_connection_says_nothing_more(mut net: impl Net) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let first = net.connect(address, None, 7).expect("connect");
    let mut connected = false;
    while !connected {
        net.turn(None, &mut |_, _, event| {
            connected = matches!(event, Event::Connected);
        })
        .expect("turn");
    }
    let (mut old, _) = listener.accept().expect("accept");
    old.write_all(b"late").expect("write");
    net.close(first);
    // Another connection takes the slot; what comes belongs to it alone.
    let second = net.connect(address, None, 8).expect("connect");
    let peer = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().expect("accept");
        peer.write_all(b"hello").expect("write");
        peer
    });
    let mut got = Vec::new();
    while got != b"hello" {
        net.turn(None, &mut |_, key, event| {
            assert_eq!((key, key.tag), (second, 8));
            if let Event::Data(bytes) = event {
                got.extend_from_slice(bytes);
            }
        })
        .expect("turn");
    }
    drop(peer.join().expect("peer"));
}

fn waits_shorter_than_a_millisecond_are_kept(mut net: impl Net) {
    // In whole milliseconds each takes at least one; a busy machine may take the best of many.
    let best = (0..500)
        .map(|_| {
            let started = Instant::now();
            let until = started + Duration::from_micros(200);
            while Instant::now() < until {
                net.turn(Some(until), &mut |_, _, _| {}).expect("turn");
            }
            started.elapsed()
        })
        .min();
    assert!(best < Some(Duration::from_millis(1)), "{best:?}");
}
