//! Promises about ends: stopping, cancelling, closing, resets, and a ring that is dropped with
//! everything in flight.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use flux_runtime::mailbox::wake_pair;
use flux_runtime::ring::{Completion, Features, Key, NetRing, Payload, RingConfig, Shutdown};

fn ring_with(config: &RingConfig) -> NetRing {
    let (_waker, source) = wake_pair().unwrap();
    NetRing::new(config, source).unwrap()
}

fn ring() -> NetRing {
    ring_with(&RingConfig::default())
}

/// Turns until one completion is what `wanted` takes.
fn until<T>(ring: &mut NetRing, mut wanted: impl FnMut(Completion) -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        while let Some(completion) = ring.next_completion() {
            if let Some(found) = wanted(completion) {
                return found;
            }
        }
        assert!(ring.wait(Some(deadline)) < deadline, "in vain: {ring:?}");
    }
}

/// Some turns in which nothing may happen.
fn quiet_turns(ring: &mut NetRing) {
    for _ in 0..5 {
        ring.wait(Some(Instant::now() + Duration::from_millis(2)));
        if let Some(completion) = ring.next_completion() {
            panic!("{completion:?}");
        }
    }
}

#[test]
fn connect_accept_exchange_and_end() {
    for allowed in [Features::all(), Features::none()] {
        let mut ring = ring_with(&RingConfig {
            allowed,
            ..RingConfig::default()
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        ring.accept(&listener, Key(1));
        for _ in 0..3 {
            let client =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            ring.connect(&client, Key(2), listener.local_addr().unwrap());
            let (mut server, mut connected) = (None, false);
            until(&mut ring, |completion| {
                match completion {
                    Completion::Accepted { key, socket } => {
                        assert_eq!(key, Key(1));
                        server = Some(socket);
                    }
                    Completion::Connected { key, result } => {
                        assert_eq!(key, Key(2));
                        result.unwrap();
                        connected = true;
                    }
                    other => panic!("{other:?}"),
                }
                (server.is_some() && connected).then_some(())
            });
            let server: OwnedFd = server.unwrap();
            ring.recv(&server, Key(3));
            ring.send(&client, Key(2), Payload::from(b"bye".to_vec()));
            // The shutdown must not overtake the send, although that was not submitted yet.
            ring.shutdown(&client, Shutdown::Write).unwrap();
            let mut received = Vec::new();
            until(&mut ring, |completion| match completion {
                Completion::Received { buffer, .. } => {
                    received.extend_from_slice(&buffer);
                    None
                }
                Completion::ReceiveEnded { key, error: None } => {
                    assert_eq!(key, Key(3));
                    Some(())
                }
                Completion::Sent { result, .. } => {
                    assert_eq!(result.unwrap(), 3);
                    None
                }
                other => panic!("{other:?}"),
            });
            assert_eq!(received, b"bye");
            ring.close(server, None);
        }
        assert_eq!(ring.stats().accepted, 3);
    }
}

#[test]
fn a_refused_connect_says_so() {
    let mut ring = ring();
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    ring.connect(&client, Key(9), address);
    let error = until(&mut ring, |completion| match completion {
        Completion::Connected {
            key: Key(9),
            result,
        } => result.err(),
        other => panic!("{other:?}"),
    });
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
}

#[test]
fn a_connect_and_a_stuck_send_can_be_cancelled() {
    let mut ring = ring();
    // Nobody answers: a listener whose backlog is full.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let filler = TcpStream::connect(address).unwrap();
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let connect = ring.connect(&client, Key(1), address);
    quiet_turns(&mut ring);
    ring.cancel(connect);
    let error = until(&mut ring, |completion| match completion {
        Completion::Connected { result, .. } => result.err(),
        other => panic!("{other:?}"),
    });
    assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
    drop(filler);

    let (near, _far) = UnixStream::pair().unwrap();
    let mut send = ring.send(&near, Key(2), Payload::from(vec![7; 1 << 20]));
    let mut sent = 0;
    // The first is partial; the next finds no room and stays.
    let stuck = loop {
        ring.wait(Some(Instant::now() + Duration::from_millis(2)));
        match ring.next_completion() {
            Some(Completion::Sent {
                mut payload,
                result,
                ..
            }) => {
                let count = result.unwrap();
                sent += count;
                payload.advance(count);
                send = ring.send(&near, Key(2), payload);
            }
            Some(other) => panic!("{other:?}"),
            None if sent > 0 => break send,
            None => {}
        }
    };
    ring.cancel(stuck);
    let payload = until(&mut ring, |completion| match completion {
        Completion::Sent {
            payload, result, ..
        } => {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
            Some(payload)
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(
        payload.len(),
        (1 << 20) - sent,
        "the payload came back whole"
    );
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn a_stopped_receiver_is_silent_and_resumes_without_loss() {
    let mut ring = ring();
    let (near, mut far) = UnixStream::pair().unwrap();
    let handle = ring.recv(&near, Key(1));
    quiet_turns(&mut ring);
    ring.stop_recv(handle);
    quiet_turns(&mut ring);
    far.write_all(b"while stopped").unwrap();
    quiet_turns(&mut ring);
    assert_eq!(ring.in_flight(), 0);
    // An old handle names nothing.
    ring.stop_recv(handle);
    let again = ring.recv(&near, Key(1));
    assert_ne!(again, handle);
    let buffer = until(&mut ring, |completion| match completion {
        Completion::Received { buffer, .. } => Some(buffer),
        other => panic!("{other:?}"),
    });
    assert_eq!(&*buffer, b"while stopped");
    // Stopped and started within one turn: the same receiver goes on.
    ring.stop_recv(again);
    assert_eq!(ring.recv(&near, Key(1)), again);
    far.write_all(b"more").unwrap();
    let buffer = until(&mut ring, |completion| match completion {
        Completion::Received { buffer, .. } => Some(buffer),
        other => panic!("{other:?}"),
    });
    assert_eq!(&*buffer, b"more");
}

#[test]
fn a_cancelled_accept_ends_and_the_listener_lives() {
    let mut ring = ring();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let accept = ring.accept(&listener, Key(1));
    quiet_turns(&mut ring);
    ring.cancel(accept);
    quiet_turns(&mut ring);
    assert_eq!(ring.in_flight(), 0);
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    quiet_turns(&mut ring);
    ring.accept(&listener, Key(2));
    until(&mut ring, |completion| match completion {
        Completion::Accepted { key: Key(2), .. } => Some(()),
        other => panic!("{other:?}"),
    });
}

#[test]
fn a_listener_that_is_none_is_given_up() {
    for allowed in [Features::all(), Features::none()] {
        let mut ring = ring_with(&RingConfig {
            allowed,
            ..RingConfig::default()
        });
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        ring.accept(&socket, Key(1));
        let error = until(&mut ring, |completion| match completion {
            Completion::AcceptFailed {
                error,
                again: false,
                ..
            } => Some(error),
            other => panic!("{other:?}"),
        });
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        assert_eq!(ring.in_flight(), 0);
    }
}

#[test]
fn a_reset_ends_the_receiver_with_its_error() {
    let mut ring = ring();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    ring.recv(&server, Key(1));
    quiet_turns(&mut ring);
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    let error = until(&mut ring, |completion| match completion {
        Completion::ReceiveEnded { error, .. } => Some(error),
        other => panic!("{other:?}"),
    });
    assert_eq!(error.unwrap().raw_os_error(), Some(libc::ECONNRESET));
}

#[test]
fn closing_submits_what_was_queued_before_and_the_peer_sees_the_end() {
    let mut ring = ring();
    let (near, mut far) = UnixStream::pair().unwrap();
    let handle = ring.recv(&near, Key(1));
    quiet_turns(&mut ring);
    ring.send(&near, Key(1), Payload::from(&b"last words"[..]));
    ring.close(OwnedFd::from(near), Some(handle));
    until(&mut ring, |completion| match completion {
        Completion::Sent { result, .. } => (result.unwrap() == 10).then_some(()),
        other => panic!("{other:?}"),
    });
    quiet_turns(&mut ring);
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"last words");
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn a_nonblocking_socket_is_put_right() {
    let mut ring = ring();
    let (near, mut far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    ring.recv(&near, Key(1));
    quiet_turns(&mut ring);
    far.write_all(b"x").unwrap();
    until(&mut ring, |completion| match completion {
        Completion::Received { buffer, .. } => (&*buffer == b"x").then_some(()),
        other => panic!("{other:?}"),
    });
}

/// Receives, a stuck send with shared memory, an accept and a connect are in flight, buffers are
/// held; the ring goes first, in an order nobody planned.
#[test]
fn a_ring_dropped_with_everything_in_flight_frees_everything() {
    for allowed in [Features::all(), Features::none()] {
        let config = RingConfig {
            allowed,
            ..RingConfig::default()
        };
        let mut ring = ring_with(&config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        ring.accept(&listener, Key(0));
        let pairs: Vec<_> = (0..64).map(|_| UnixStream::pair().unwrap()).collect();
        let mut held = Vec::new();
        for (index, (near, far)) in pairs.iter().enumerate() {
            ring.recv(near, Key(index as u64));
            (&*far).write_all(b"held").unwrap();
            ring.send(near, Key(index as u64), Payload::from(vec![1; 1 << 20]));
        }
        ring.wait(None);
        while let Some(completion) = ring.next_completion() {
            match completion {
                Completion::Received { buffer, .. } => held.push(buffer),
                Completion::Sent {
                    key,
                    mut payload,
                    result: Ok(count),
                } => {
                    payload.advance(count);
                    ring.send(&pairs[key.0 as usize].0, key, payload);
                }
                other => panic!("{other:?}"),
            }
        }
        ring.wait(Some(Instant::now()));
        // Something is queued that was never submitted.
        ring.recv(&pairs[0].1, Key(1000));
        assert!(ring.in_flight() > 64);
        let started = Instant::now();
        drop(ring);
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "it waited for what cannot end"
        );
        // Buffers outlive the ring.
        assert!(held.iter().all(|buffer| &**buffer == b"held"));
        // Nothing holds the sockets any more: the peer sees the end.
        let (near, mut far) = pairs.into_iter().next().unwrap();
        assert!(near.as_raw_fd() >= 0);
        drop(near);
        far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        far.read_to_end(&mut Vec::new()).unwrap();
    }
}
